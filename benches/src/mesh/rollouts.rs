//! How long a change takes to be active at every site: from `filter push` to the last router's swap. Router processes in a
//! full mesh on this machine, without delay; each compiles the module itself, so that with few cores they wait for each
//! other.

use crate::scenarios::{Row, Sheet, Size};
use anyhow::{Context, Result, ensure};
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::relay::Path;
use myelin_tests::sites::{Sites, shapes};
use std::time::{Duration, Instant};

const SITES: usize = 10;
/// Changes; the slowest counts.
const CHANGES: u64 = 10;
/// From the edit to the last swap, in seconds.
const ACTIVE_S: f64 = 10.0;

/// Change after change.
pub(super) async fn rollout(size: Size, sheet: &mut Sheet) -> Result<()> {
    let sites = Sites::start(SITES, &shapes::mesh(SITES), 1, |_| Path::default()).await?;
    let wanted: Vec<_> = (0..SITES).map(|site| (site, 0)).collect();
    sites.agree(&wanted).await?;
    let mut slowest = Duration::ZERO;
    for change in 1..=size.of(CHANGES) {
        let took = tokio::task::block_in_place(|| deploy(&sites, change))?;
        eprintln!("  change {change}: {:.2} s", took.as_secs_f64());
        slowest = slowest.max(took);
    }
    sheet.add(Row::at_most("rollout: push to active on 10 sites", slowest.as_secs_f64(), ACTIVE_S, "s"))?;
    sites.end()
}

/// Pushes a new version at the last site, binds it, and waits until every router runs it.
fn deploy(sites: &Sites, change: u64) -> Result<Duration> {
    let file = sites.folder().join(format!("gate-{change}.wasm"));
    let mut bytes = component(Behaviour::Allow)?;
    // Another module each time: a custom section at its end that says which.
    bytes.extend([0, 3, 1, b'n', u8::try_from(change)?]);
    std::fs::write(&file, bytes)?;
    let at = sites.routers.last().context("no site")?;
    let begin = Instant::now();
    let module = format!("gate@1.0.{change}");
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
