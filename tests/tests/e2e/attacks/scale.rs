//! Many clients, slow clients, clients that all come at once. Larger versions: `cargo xtask bench attacks`.

use super::{assert_growth, eventually};
use anyhow::{Context, Result, ensure};
use myelin_attacks::modules;
use myelin_client::{Event, Overflow, Status, SubscribeOptions};
use myelin_tests::{Healthy, Router, Setup, crowd, crowd_with};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
/// Clients that are dropped at once.
const DROPPED: usize = 300;
/// Clients that do nothing.
const IDLE: usize = 400;
/// What a client that does nothing may cost the router.
const IDLE_KIB_MAX: u64 = 64;

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_subscriber_of_many_takes_nothing_from_the_others() -> Result<()> {
    const SUBSCRIBERS: usize = 20;
    // What is bounded is full after the first ones: outboxes, windows, and what the allocator keeps of both. How much
    // that is depends on how far the readers fall behind, so it is no bound. Thrice as much again must fit in the same.
    const FILLING: u64 = 3_000;
    const EVENTS: u64 = 12_000;
    const EVENT_KIB: u64 = 4;
    // The bounds that hold for one subscriber, small enough to be met.
    let variables = vec![("MYELIN_OUTBOX__EVENTS".to_owned(), "500".to_owned())];
    let router = Router::start_with(Setup { workers: 2, variables })?;
    let slow = router.client_with(Overflow::DropOldest).await?;
    let mut slow_events = slow.subscribe("news", SubscribeOptions::default()).await?;
    let mut others = JoinSet::new();
    for client in crowd(&router, SUBSCRIBERS - 1, Overflow::Pause).await? {
        let mut events = client.subscribe("news", SubscribeOptions::default()).await?;
        others.spawn(async move {
            for due in 0..EVENTS {
                let event = timeout(PATIENCE, events.next()).await.context("in time")?.context("an event")?;
                ensure!(event.payload()[..8] == due.to_le_bytes(), "{due} was due");
            }
            drop(client);
            Ok(())
        });
    }
    let publisher = router.client().await?;
    let mut full_kib = 0;
    let mut payload = vec![7; usize::try_from(EVENT_KIB * 1024)?];
    let mut read_by_the_slow_one = 0;
    for number in 0..EVENTS {
        payload[..8].copy_from_slice(&number.to_le_bytes());
        publisher.send(Event::new("news", &payload)).await?;
        if number == FILLING {
            full_kib = router.own_memory_kib()?;
        }
        if number % 2_000 == 0 {
            read_by_the_slow_one += u64::from(slow_events.next().await.is_some());
        }
    }
    let summary = publisher.flush().await;
    ensure!(summary.acked == EVENTS, "{summary:?}");
    while let Some(other) = others.join_next().await {
        other??;
    }
    ensure!(read_by_the_slow_one < 10);
    let ledger = router.ledger()?;
    ensure!(ledger["balances"] == true && ledger["total"]["shed"].as_u64().context("shed")? > 0, "{ledger}");
    assert_growth(&router, full_kib, (EVENTS - FILLING) * EVENT_KIB / 2)
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_clients_dropped_at_once_come_back_and_get_their_events() -> Result<()> {
    let mut router = Router::start()?;
    let mut config = router.client_config();
    // That the router is gone is noticed after 5 s instead of 30.
    (config.quic.idle_timeout_ms, config.quic.keep_alive_ms) = (5_000, 1_000);
    let clients = crowd_with(config, DROPPED).await?;
    let mut subscriptions = Vec::new();
    for client in &clients {
        subscriptions.push(client.subscribe("all", SubscribeOptions::default()).await?);
    }
    router.kill()?;
    router.restart()?;
    // All subscriptions are live again, not only the sessions.
    eventually("everybody is back", || Ok(router.metric("myelin_sessions")? == DROPPED as u64)).await?;
    for client in &clients {
        let mut status = client.status();
        timeout(PATIENCE, status.wait_for(|status| matches!(status, Status::Connected(_)))).await??;
    }
    let mut healthy = Healthy::start(&router, "calm").await?;
    healthy.beat(1).await?;
    let publisher = router.client().await?;
    for subscription in &mut subscriptions {
        // A client subscribes again after it is back: until then it is told nothing.
        let event = loop {
            publisher.send(Event::new("all", "again")).await?;
            match timeout(Duration::from_millis(200), subscription.next()).await {
                Ok(event) => break event.context("the subscription lives on")?,
                Err(_) => continue,
            }
        };
        assert_eq!(event.payload(), b"again");
    }
    assert_eq!(router.ledger()?["balances"], true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_nothing_cost_little_and_leave_nothing() -> Result<()> {
    let router = Router::start()?;
    // What the first clients cost once is not theirs.
    let mut healthy = Healthy::start(&router, "calm").await?;
    healthy.beat(50).await?;
    let before = router.own_memory_kib()?;
    let clients = crowd(&router, IDLE, Overflow::DropOldest).await?;
    ensure!(router.metric("myelin_sessions")? == IDLE as u64 + 2);
    let after = router.own_memory_kib()?;
    let each = after.saturating_sub(before) / IDLE as u64;
    println!("{IDLE} idle clients: {before} KiB before, {after} KiB with them, {each} KiB each");
    ensure!(each <= IDLE_KIB_MAX, "{each} KiB for an idle client");
    healthy.beat(10).await?;
    let closing: JoinSet<_> = clients.into_iter().map(|client| async move { client.close().await }).collect();
    closing.join_all().await;
    eventually("all are gone", || Ok(router.metric("myelin_sessions")? == 2)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_swaps_lose_nothing_double_nothing_and_keep_no_memory() -> Result<()> {
    const SWAPS: u64 = 300;
    let router = Router::start()?;
    for version in ["1.0.0", "2.0.0"] {
        assert_eq!(router.upload("quiet", version, &modules::quiet())?.status, 201);
    }
    let swap = |number: u64| -> Result<()> {
        let version = ["1.0.0", "2.0.0"][usize::from(number.is_multiple_of(2))];
        let binding = json!({ "module": format!("quiet@{version}"), "pattern": "calm", "order": number });
        ensure!(router.send_json("PUT", "/v1/bindings/calm", &binding)?.status == 202);
        let answer = router.send_json("POST", "/v1/rollouts", &json!({}))?;
        ensure!(answer.status / 100 == 2, "{answer:?}");
        Ok(())
    };
    let (stop, mut healthy) = (Arc::new(AtomicBool::new(false)), Healthy::start(&router, "calm").await?);
    let stopped = stop.clone();
    // Each event is acknowledged and is the one that is due: none is lost, none comes twice, whoever judged it.
    let load = tokio::spawn(async move {
        let mut beats = 0;
        while !stopped.load(Ordering::Relaxed) {
            healthy.beat(10).await?;
            beats += 10;
        }
        healthy.close().await;
        Ok::<u64, anyhow::Error>(beats)
    });
    let swaps = |numbers: std::ops::Range<u64>| tokio::task::block_in_place(|| numbers.into_iter().try_for_each(swap));
    // The first ones fill what every swap uses again: pools, caches, the history that is kept.
    swaps(0..SWAPS / 2)?;
    let before = router.own_memory_kib()?;
    swaps(SWAPS / 2..SWAPS)?;
    assert_growth(&router, before, 8 * 1024)?;
    stop.store(true, Ordering::Relaxed);
    let beats = load.await??;
    // With the one at the start: the counter knows those that nobody looked at, too.
    assert_eq!(router.metric("myelin_rollouts_total")?, SWAPS + 1);
    ensure!(beats > 100, "the load was real: {beats}");
    println!("{SWAPS} swaps, {beats} events");
    let total = &router.settled_ledger()?["total"];
    assert_eq!((&total["balances"], &total["delivered"]), (&json!(true), &json!(beats)), "{total}");
    assert_eq!((&total["shed"], &total["lost"]), (&json!(0), &json!(0)), "{total}");
    Ok(())
}
