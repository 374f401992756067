//! Logs that must not be followed, between real router processes: one that forks, and one that is out of date.

use crate::jetstream::good;
use crate::routing::decided;
use anyhow::{Context, Result, ensure};
use myelin_client::{Event, Outcome, Overflow, SubscribeOptions};
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::sites::{PATIENCE, Sites};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits until `seen` holds of what a site answers.
async fn wait(sites: &Sites, site: usize, path: &str, seen: impl Fn(&Value) -> bool) -> Result<Value> {
    let begin = Instant::now();
    loop {
        let found = get(sites, site, path)?;
        if seen(&found) {
            return Ok(found);
        }
        ensure!(begin.elapsed() < PATIENCE, "site {site}, {path}: {found:#}\n{}", sites.routers[site].log());
        tokio::time::sleep(PAUSE).await;
    }
}

fn get(sites: &Sites, site: usize, path: &str) -> Result<Value> {
    Ok(sites.routers[site].ask("GET", path, &[], b"")?.json())
}

fn revision(sites: &Sites, site: usize) -> Result<u64> {
    get(sites, site, "/v1/status")?["revision"].as_u64().context("a revision")
}

/// Uploads a filter at the router that writes the log.
fn push(sites: &Sites, name: &str, behaviour: Behaviour) -> Result<()> {
    good(sites.routers[0].upload(name, "1.0.0", &component(behaviour)?)?).map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (entry, is_folder) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir())))?;
        let target = to.join(entry.file_name().context("a name")?);
        if is_folder { copy(&entry, &target)? } else { std::fs::copy(&entry, &target).map(drop)? }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_was_restored_from_a_backup_forks_the_catalog_and_nobody_follows_it() -> Result<()> {
    let mut sites = Sites::start_with(2, &[(0, 1)], &[]).await?;
    push(&sites, "common", Behaviour::Allow)?;
    let (data, backup) = (sites.routers[0].data_dir(), sites.routers[0].folder().join("backup"));
    sites.routers[0].terminate()?;
    copy(&data, &backup)?;
    sites.routers[0].restart()?;
    // One record more, which the other site has as well.
    push(&sites, "first", Behaviour::Allow)?;
    let head = revision(&sites, 0)?;
    wait(&sites, 1, "/v1/status", |status| status["revision"] == head).await?;

    // The backup knows nothing of it, nobody is reached that could tell, and so it writes another record in its place.
    sites.routers[0].kill()?;
    sites.link((0, 1)).cut();
    std::fs::remove_dir_all(&data)?;
    copy(&backup, &data)?;
    sites.routers[0].restart()?;
    ensure!(revision(&sites, 0)? == head - 1, "it is the old log");
    push(&sites, "second", Behaviour::TrapOnPoison)?;
    ensure!(revision(&sites, 0)? == head, "another record at the same place");
    sites.link((0, 1)).heal();

    for site in 0..2 {
        wait(&sites, site, "/v1/mesh", |mesh| mesh["alarms"]["catalog-fork"].as_u64() >= Some(1)).await?;
        ensure!(get(&sites, site, "/v1/mesh/sites")?["alarms"]["catalog-fork"].as_u64() >= Some(1));
        ensure!(sites.routers[site].metric("myelin_alarms_total{code=\"catalog-fork\"}")? >= 1);
    }
    // Each keeps what it had, and what the other log goes on with is not taken either.
    push(&sites, "third", Behaviour::TrapOnPoison)?;
    let has = |modules: &Value, name: &str| modules.to_string().contains(name);
    let (here, there) = (get(&sites, 0, "/v1/modules")?, get(&sites, 1, "/v1/modules")?);
    ensure!(has(&here, "second") && has(&here, "third") && !has(&here, "first"), "{here:#}");
    ensure!(has(&there, "first") && !has(&there, "second") && !has(&there, "third"), "{there:#}");
    // A change by way of the other log is refused with a code, and changes nothing.
    let binding = json!({"module": "first@1.0.0", "pattern": "orders/**"});
    let refused = tokio::task::block_in_place(|| sites.routers[1].send_json("PUT", "/v1/bindings/b", &binding))?;
    ensure!(refused.status >= 400 && !refused.code().is_empty(), "{refused:?}");
    ensure!(revision(&sites, 1)? == head, "{:?}", refused.problem());

    // Events flow all the same.
    let (near, far) = (sites.client(0, "near", Overflow::Pause).await?, sites.client(1, "far", Overflow::Pause).await?);
    let mut events = far.subscribe("orders/*", SubscribeOptions::default()).await?;
    sites.agree(&[(0, 1), (1, 0)]).await?;
    near.send(Event::new("orders/a", "still")).await?;
    let event = tokio::time::timeout(PATIENCE, events.next()).await?.context("an event")?;
    ensure!(event.payload() == b"still");
    sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_waits_for_its_catalog_ends_at_once_when_it_is_asked_to() -> Result<()> {
    let mut sites = Sites::start_with(2, &[(1, 0)], &[]).await?;
    sites.routers[1].kill()?;
    // It knows nothing, and nobody tells it anything.
    std::fs::remove_dir_all(sites.routers[1].data_dir())?;
    sites.link((1, 0)).cut();
    let told = sites.routers[1].log().len();
    sites.routers[1].launch()?;
    let begin = Instant::now();
    while !sites.routers[1].log()[told..].contains("nothing is served yet, the admin API included") {
        ensure!(begin.elapsed() < PATIENCE, "it does not say why it waits: {}", sites.routers[1].log());
        tokio::time::sleep(PAUSE).await;
    }
    // It reads its certificates again, and does not die of that.
    sites.routers[1].hang_up()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(sites.routers[1].ended()?.is_none() && !sites.routers[1].is_ready());
    let asked = Instant::now();
    let status = tokio::task::block_in_place(|| sites.routers[1].terminate())?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_with_an_old_catalog_serves_nobody_until_it_has_what_its_neighbour_has() -> Result<()> {
    // Each dials the one before, so that only the first begins without another.
    let mut sites = Sites::start_with(3, &[(1, 0), (2, 1)], &[("CATALOG__JOIN_SECONDS", "600")]).await?;
    let roll_out = || tokio::task::block_in_place(|| sites.routers[0].send_json("POST", "/v1/rollouts", &json!({})));
    push(&sites, "gate", Behaviour::TrapOnPoison)?;
    let binding = json!({"module": "gate@1.0.0", "pattern": "orders/**"});
    good(sites.routers[0].send_json("PUT", "/v1/bindings/gate", &binding)?)?;
    let strict = good(roll_out()?)?["generation"].as_u64().context("a generation")?;
    good(sites.routers[0].ask("DELETE", "/v1/bindings/gate", &[], b"")?)?;
    good(roll_out()?)?;

    // While the last one is away the filter comes back, at once.
    wait(&sites, 2, "/v1/status", |status| status["generation"].as_u64() > Some(strict)).await?;
    sites.routers[2].kill()?;
    let back = || sites.routers[0].send_json("POST", "/v1/rollouts/rollback", &json!({}));
    good(tokio::task::block_in_place(back)?)?;
    let head = revision(&sites, 0)?;
    wait(&sites, 1, "/v1/status", |status| status["revision"] == head).await?;
    sites.link((2, 1)).cut();
    let told = sites.routers[2].log().len();
    sites.routers[2].launch()?;
    let begin = Instant::now();
    while !sites.routers[2].log()[told..].contains("nothing is served yet") {
        ensure!(begin.elapsed() < PATIENCE, "it does not say why it waits: {}", sites.routers[2].log());
        ensure!(!sites.routers[2].is_ready(), "it serves by a catalog that is out of date");
        tokio::time::sleep(PAUSE).await;
    }
    ensure!(!sites.routers[2].is_ready());
    sites.link((2, 1)).heal();
    tokio::task::block_in_place(|| sites.routers[2].comes_up())?;
    ensure!(revision(&sites, 2)? >= head, "it is level when it serves");
    // The first event that it takes is judged by the filter that it missed.
    let client = sites.client(2, "client", Overflow::Pause).await?;
    let outcome = decided(&client, Event::new("orders/a", "Poison")).await?;
    ensure!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
    sites.end()
}
