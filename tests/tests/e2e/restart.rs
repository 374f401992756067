//! SIGKILL and start again: the catalog is intact.

use crate::filters::{bind, push_built};
use crate::routing::decided;
use anyhow::{Context, Result};
use myelin_client::{Client, ClientConfig, Event, Outcome};
use myelin_tests::Router;
use std::fs::File;
use std::time::{Duration, SystemTime};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How often a new client tries to be the first that a starting router serves.
const KNOCK_INTERVAL: Duration = Duration::from_millis(50);
/// Clients that try at most: a router that takes longer than they do together does not come up.
const KNOCKS_MAX: usize = 1_000;

/// What becomes of an event that `tenant` denies, when it is published with the connection's first bytes.
async fn knock(config: ClientConfig) -> Result<Outcome> {
    let client = Client::connect(config.with_reconnect(false)).await?;
    decided(&client, Event::new("orders/eu", "{}").header("x-tenant", "nobody")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_router_comes_back_with_its_filters() -> Result<()> {
    let mut router = Router::start()?;
    push_built(&router, "tenant", "tenant", "1.0.0")?;
    bind(
        &router,
        "tenants",
        "tenant@1.0.0",
        "orders/**",
        &["--config", r#"{"tenants":["acme"]}"#, "--grant-topic", "audit/**"],
    )?;
    let before = router.myelin(&["filter", "ls", "-o", "json"])?.json()?;
    for _ in 0..3 {
        router.kill()?;
        router.restart()?;
    }
    assert_eq!(router.myelin(&["filter", "ls", "-o", "json"])?.json()?, before);
    let client = router.client().await?;
    let refused = decided(&client, Event::new("orders/eu", "{}").header("x-tenant", "nobody")).await?;
    assert!(
        matches!(&refused, Outcome::Refused { code, detail } if code.name() == "denied" && detail.contains("unknown tenant")),
        "{refused:?}"
    );
    let acked = decided(&client, Event::new("orders/eu", "{}").header("x-tenant", "acme")).await?;
    assert!(matches!(acked, Outcome::Acked), "{acked:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_removes_what_one_that_was_killed_has_left_half_written() -> Result<()> {
    let mut router = Router::start()?;
    router.kill()?;
    let at = |name: &str| router.data_dir().join(name);
    let old = SystemTime::now() - Duration::from_secs(7_200);
    for (name, modified) in [
        (".epoch.0123456789abcdef", old),
        (".epoch.0123456789abcde", old),
        (".epoch.00112233445566ff", SystemTime::now()),
    ] {
        std::fs::write(at(name), "1")?;
        File::options().write(true).open(at(name))?.set_modified(modified)?;
    }
    std::fs::write(at("mine"), "1")?;
    File::options().write(true).open(at("mine"))?.set_modified(old)?;
    std::os::unix::fs::symlink(at("mine"), at(".epoch.fedcba9876543210"))?;
    router.restart()?;
    let is_there = |name: &str| router.data_dir().join(name).symlink_metadata().is_ok();
    assert!(!is_there(".epoch.0123456789abcdef"));
    for name in [".epoch.0123456789abcde", ".epoch.00112233445566ff", ".epoch.fedcba9876543210", "mine", "epoch"] {
        assert!(is_there(name), "{name}");
    }
    Ok(())
}

/// Within this a client that was told of the restart is back; one that was not waits for its idle timeout of 30 s.
const TOLD_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_killed_router_are_told_when_it_is_there_again() -> Result<()> {
    let mut router = Router::start()?;
    let client = router.client().await?;
    assert!(matches!(decided(&client, Event::new("orders/eu", "before")).await?, Outcome::Acked));
    router.kill()?;
    router.restart()?;
    let back = async {
        // What was under way when the connection broke is unknown to the client; the next one goes to the new session.
        while !matches!(decided(&client, Event::new("orders/eu", "after")).await, Ok(Outcome::Acked)) {
            sleep(KNOCK_INTERVAL).await;
        }
    };
    tokio::time::timeout(TOLD_WITHIN, back).await.context("nobody told the client that its session is gone")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_starts_again_judges_the_very_first_event() -> Result<()> {
    let mut router = Router::start()?;
    push_built(&router, "tenant", "tenant", "1.0.0")?;
    let config = r#"{"tenants":["acme"]}"#;
    bind(&router, "tenants", "tenant@1.0.0", "orders/**", &["--config", config, "--grant-topic", "audit/**"])?;
    router.kill()?;
    // Without it the filter is compiled anew, and there is much time to be served too early.
    std::fs::remove_dir_all(router.data_dir().join("code")).context("the cache of compiled filters")?;
    let knocker = router.client_config();
    let starting = tokio::task::spawn_blocking(move || router.restart().map(|()| router));
    let (mut knocks, mut outcomes) = (JoinSet::new(), Vec::new());
    for _ in 0..KNOCKS_MAX {
        knocks.spawn(knock(knocker.clone()));
        sleep(KNOCK_INTERVAL).await;
        while let Some(knocked) = knocks.try_join_next() {
            outcomes.extend(knocked?);
        }
        if !outcomes.is_empty() {
            break;
        }
    }
    // Those that were on their way meanwhile: each was decided or did not get in.
    outcomes.extend(knocks.join_all().await.into_iter().flatten());
    let _router = starting.await??;
    assert!(!outcomes.is_empty(), "nobody got in");
    for outcome in &outcomes {
        assert!(matches!(outcome, Outcome::Refused { code, .. } if code.name() == "denied"), "{outcome:?}");
    }
    Ok(())
}
