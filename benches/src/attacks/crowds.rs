//! Many clients: one of them slow, all of them dropped at once, all of them idle.

use super::{Row, Sheet, Size};
use anyhow::{Context, Result, ensure};
use myelin_client::{Event, Overflow, SubscribeOptions};
use myelin_tests::{Router, Setup, crowd};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(120);

/// Events a second that all of these subscribers get together, but for a slow one where there is one.
async fn rate(router: &Router, fast: usize, events: u64, has_slow: bool) -> Result<(f64, u64)> {
    let slow = router.client_with(Overflow::DropOldest).await?;
    let mut slow_events = slow.subscribe(if has_slow { "news" } else { "none" }, SubscribeOptions::default()).await?;
    let mut others = JoinSet::new();
    for client in crowd(router, fast, Overflow::Pause).await? {
        let mut subscription = client.subscribe("news", SubscribeOptions::default()).await?;
        others.spawn(async move {
            for _ in 0..events {
                timeout(PATIENCE, subscription.next()).await.context("an event was lost")?.context("it ended")?;
            }
            drop(client);
            Ok::<(), anyhow::Error>(())
        });
    }
    let (publisher, before, begin) = (router.client().await?, router.own_memory_kib()?, Instant::now());
    let slow_reader = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            slow_events.next().await;
        }
    });
    for _ in 0..events {
        publisher.send(Event::new("news", &[7; 128])).await?;
    }
    publisher.flush().await;
    while let Some(done) = others.join_next().await {
        done??;
    }
    let (seconds, after) = (begin.elapsed().as_secs_f64(), router.own_memory_kib()?);
    slow_reader.abort();
    Ok((events as f64 / seconds, after.saturating_sub(before)))
}

/// 1 of 100 subscribers reads one event a second.
pub(super) async fn slow_subscriber(size: Size, sheet: &mut Sheet) -> Result<()> {
    const FAST: usize = 99;
    let variables = vec![("MYELIN_OUTBOX__EVENTS".to_owned(), "1000".to_owned())];
    let router = Router::start_with(Setup { workers: 2, variables })?;
    let events = size.of(100_000);
    // The first run fills pools and tables.
    rate(&router, FAST, events, false).await?;
    let (calm, calm_growth) = rate(&router, FAST, events, false).await?;
    let (with_slow, growth) = rate(&router, FAST, events, true).await?;
    let growth_mib = growth.saturating_sub(calm_growth) as f64 / 1_024.0;
    sheet.add(Row::at_least("slow-subscriber: rate of the other 99", with_slow / calm, 0.95, "x"))?;
    sheet.add(Row::at_most("slow-subscriber: memory for it", growth_mib, 2.0, "MiB"))
}

/// A router with thousands of subscribers is killed and comes back.
pub(super) async fn dropped_clients(size: Size, sheet: &mut Sheet) -> Result<()> {
    let count = size.of(5_000);
    let mut router = Router::start()?;
    let clients = crowd(&router, usize::try_from(count)?, Overflow::DropOldest).await?;
    eprintln!("  {count} clients are there");
    router.kill()?;
    router.restart()?;
    let (begin, mut told) = (Instant::now(), 0);
    loop {
        let back = router.metric("myelin_sessions")?;
        if back >= count {
            break;
        }
        let seconds = begin.elapsed().as_secs();
        ensure!(begin.elapsed() < PATIENCE, "after {seconds} s {back} of {count} are back");
        if seconds / 10 > told {
            told = seconds / 10;
            eprintln!("  {back} are back after {seconds} s");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = begin.elapsed().as_secs_f64();
    drop(clients);
    sheet.add(Row::at_most(format!("dropped-clients: {count} back after"), seconds, 60.0, "s"))
}

/// Thousands of clients that do nothing.
pub(super) async fn idle_clients(size: Size, sheet: &mut Sheet) -> Result<()> {
    let count = size.of(10_000);
    let router = Router::start()?;
    let before = router.own_memory_kib()?;
    let clients = crowd(&router, usize::try_from(count)?, Overflow::DropOldest).await?;
    ensure!(router.metric("myelin_sessions")? == count);
    let (after, whole) = (router.own_memory_kib()?, router.resident_kib()?);
    drop(clients);
    let each = after.saturating_sub(before) as f64 / count as f64;
    let whole_mib = whole as f64 / 1_024.0;
    sheet.add(Row::at_most(format!("idle-clients: the router with {count}"), whole_mib, 640.0, "MiB"))?;
    sheet.add(Row::at_most("idle-clients: each", each, 64.0, "KiB"))
}
