//! How long a change takes to be active at every site: prints the time from `filter push` to the last router's swap.
//!
//! `cargo run --release -p myelin-tests --example rollout_time -- [SITES] [RUNS]`, beside a built `myelin` (the same profile:
//! `MYELIN_BIN`). Router processes in a full mesh on this machine, without delay; each compiles the module itself. Figures,
//! not a test: with few cores the compilers wait for each other.

use anyhow::{Context, Result, ensure};
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::relay::Path;
use myelin_tests::sites::{Sites, shapes};
use std::time::{Duration, Instant};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(Ok(10), |text| text.parse()).context("SITES is a number")?;
    let runs: u32 = arguments.next().map_or(Ok(3), |text| text.parse()).context("RUNS is a number")?;
    let sites = Sites::start(count, &shapes::mesh(count), 1, |_| Path::default()).await?;
    let wanted: Vec<_> = (0..count).map(|site| (site, 0)).collect();
    sites.agree(&wanted).await?;
    println!("{count} sites, one machine: seconds from `filter push` to the last router's swap");
    for run in 1..=runs {
        let took = tokio::task::block_in_place(|| deploy(&sites, run))?;
        println!("  run {run}: {:.2}", took.as_secs_f64());
    }
    sites.end()
}

/// Pushes a new version at the last site, binds it, and waits until every router runs it.
fn deploy(sites: &Sites, run: u32) -> Result<Duration> {
    let file = sites.folder().join(format!("gate-{run}.wasm"));
    let mut bytes = component(Behaviour::Allow)?;
    // Another module each time: a custom section at its end that says which.
    bytes.extend([0, 3, 1, b'n', u8::try_from(run)?]);
    std::fs::write(&file, bytes)?;
    let at = sites.routers.last().context("no site")?;
    let begin = Instant::now();
    let module = format!("gate@1.0.{run}");
    at.myelin(&["filter", "push", &file.to_string_lossy(), "--as", &module])?.good()?;
    at.myelin(&["bind", "gate", "--module", &module, "--pattern", "orders/**"])?.good()?;
    let generation = |site: usize| -> Result<(u64, u64)> {
        let status = sites.routers[site].ask("GET", "/v1/bindings", &[], b"")?.json();
        let active = status["bindings"][0]["state"] == "active" && status["bindings"][0]["module"] == module.as_str();
        Ok((u64::from(active), status["active_generation"].as_u64().context("a generation")?))
    };
    for site in 0..sites.routers.len() {
        while generation(site)?.0 == 0 {
            ensure!(begin.elapsed() < Duration::from_secs(120), "site {site} does not run {module}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(begin.elapsed())
}
