//! A defect makes a thread of a router panic: nobody waits for ever, and the router does not look well when it is not.

use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Event};
use myelin_tests::{Router, Setup};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A router that panics at a point of its code.
fn tripping(point: &str) -> Result<Router> {
    assert!(myelin_failpoint::TRIPS.contains(&point), "{point}");
    let variables = vec![("MYELIN_FAILPOINT".to_owned(), point.to_owned())];
    Router::start_with(Setup { workers: 1, variables })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_fails_is_ended_and_its_client_told() -> Result<()> {
    let router = tripping("batch-admitted")?;
    let once = router.client_config().with_reconnect(false);
    let client = Client::connect(once.clone()).await?;
    client.send(Event::new("a", "1")).await?;
    // It was accepted and never decided about: the client learns that it will not hear.
    let flushed = timeout(PATIENCE, client.flush()).await.context("the client was never told")?;
    ensure!((flushed.acked, flushed.unknown) == (0, 1), "{flushed:?}");
    ensure!(router.log().contains("failpoint batch-admitted"), "{}", router.log());
    // The others go on, and nothing is left of it but the alarm: the ledger says that an event is being judged.
    let next = Client::connect(once).await?;
    next.send(Event::new("a", "2")).await?;
    let flushed = timeout(PATIENCE, next.flush()).await?;
    ensure!(flushed.acked == 1, "{flushed:?}");
    let until = Instant::now() + PATIENCE;
    while router.myelin(&["client", "ls", "-o", "json"])?.good()?.json()?["sessions"] != 1 {
        ensure!(Instant::now() < until, "the session that failed is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(router.is_ready(), "one session's defect is not the router's end");
    Ok(())
}

#[test]
fn a_router_whose_catalog_is_kept_no_more_ends() -> Result<()> {
    let mut router = tripping("keeper-obeys")?;
    let file = router.folder().join("open.cedar");
    std::fs::write(&file, "permit (principal, action, resource);")?;
    let refused = router.myelin(&["policy", "apply", file.to_str().context("a path")?])?;
    ensure!(refused.code != Some(0), "{refused:?}");
    let status = router.wait()?;
    ensure!(status.code() == Some(1), "{status}: {}", router.log());
    ensure!(router.log().contains("the thread that keeps the catalog has ended by itself"), "{}", router.log());
    router.setup_mut().variables.clear();
    router.restart()?;
    router.myelin(&["policy", "apply", file.to_str().context("a path")?])?.good()?;
    Ok(())
}
