//! Hot swap at full load: nothing lost, nothing doubled, the ledger balances.

use crate::filters::{bind, push_built};
use crate::routing::PATIENCE;
use anyhow::{Context, Result, ensure};
use myelin_client::{Event, Overflow, SubscribeOptions};
use myelin_tests::{Router, Setup};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;

const SWAPS: usize = 20;
const TENANTS: &[&str] = &["--config", r#"{"tenants":["acme"]}"#, "--grant-topic", "audit/**"];

/// Publishes without pause until told to stop; returns how many were sent and acknowledged.
async fn flood(router: &Router, stop: Arc<AtomicBool>) -> Result<tokio::task::JoinHandle<(u64, u64)>> {
    let client = router.client().await?;
    Ok(tokio::spawn(async move {
        let mut sent = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let payload = sent.to_string();
            let event = Event::new("orders/eu", &payload).header("x-tenant", "acme");
            if client.send(event).await.is_err() {
                break;
            }
            sent += 1;
        }
        let summary = client.flush().await;
        client.close().await;
        (sent, summary.acked)
    }))
}

/// Swaps between the two versions, and back by rollback, all while events flow.
async fn swap_many(router: &Router) -> Result<()> {
    for swap in 0..SWAPS {
        if swap % 5 == 4 {
            router.myelin(&["rollout", "rollback"])?.good()?;
        } else {
            let version = if swap % 2 == 0 { "tenant@2.0.0" } else { "tenant@1.0.0" };
            bind(router, "tenants", version, "orders/**", &[TENANTS, &["--order", &swap.to_string()]].concat())?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_swaps_at_full_load_lose_and_double_nothing() -> Result<()> {
    let router = Router::start()?;
    push_built(&router, "tenant", "tenant", "1.0.0")?;
    push_built(&router, "tenant-2", "tenant", "2.0.0")?;
    bind(&router, "tenants", "tenant@1.0.0", "orders/**", TENANTS)?;
    let subscriber = router.client_with(Overflow::Pause).await?;
    let mut events = subscriber.subscribe("orders/**", SubscribeOptions::default()).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = flood(&router, stop.clone()).await?;
    let checking = tokio::spawn(async move {
        let (mut next, mut generations) = (0_u64, vec![]);
        while let Ok(Some(event)) = timeout(PATIENCE / 4, events.next()).await {
            let n: u64 = String::from_utf8_lossy(event.payload()).parse()?;
            ensure!(n == next, "event {n} came where {next} was due");
            if generations.last() != Some(&event.generation()) {
                generations.push(event.generation());
            }
            next += 1;
        }
        Ok((next, generations))
    });
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(swap_many(&router)))?;
    stop.store(true, Ordering::Relaxed);
    let (sent, acked) = load.await?;
    let (received, generations): (u64, Vec<u64>) = checking.await??;
    assert!(sent > 1_000, "the load was real: {sent}");
    assert_eq!((acked, received), (sent, sent), "zero lost, zero doubled");
    assert!(
        generations.is_sorted() && generations.len() > SWAPS / 2,
        "generations follow one another: {generations:?}"
    );
    let ledger = router.settled_ledger()?;
    assert_eq!(ledger["balances"], true, "{ledger}");
    assert_eq!(ledger["total"]["delivered"].as_u64(), Some(sent), "{ledger}");
    assert_eq!(ledger["total"]["shed"], 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_drop_oldest_the_ledger_balances_with_what_was_shed() -> Result<()> {
    let variables = vec![("MYELIN_OUTBOX__EVENTS".to_owned(), "64".to_owned())];
    let router = Router::start_with(Setup { workers: 2, variables })?;
    push_built(&router, "tenant", "tenant", "1.0.0")?;
    push_built(&router, "tenant-2", "tenant", "2.0.0")?;
    bind(&router, "tenants", "tenant@1.0.0", "orders/**", TENANTS)?;
    let subscriber = router.client_with(Overflow::DropOldest).await?;
    // Never read: everything beyond the queues on the way is shed.
    let events = subscriber.subscribe("orders/**", SubscribeOptions::default()).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = flood(&router, stop.clone()).await?;
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(swap_many(&router)))?;
    let begin = std::time::Instant::now();
    while router.ledger()?["total"]["shed"] == 0 {
        ensure!(begin.elapsed() < 3 * PATIENCE, "nothing was shed");
    }
    stop.store(true, Ordering::Relaxed);
    let (sent, acked) = load.await?;
    assert_eq!(sent, acked);
    let ledger = router.ledger()?;
    assert_eq!(ledger["balances"], true, "{ledger}");
    assert!(ledger["total"]["shed"].as_u64().context("shed")? > 0, "{ledger}");
    drop(events);
    subscriber.close().await;
    let ledger = router.settled_ledger()?;
    assert_eq!(ledger["balances"], true, "{ledger}");
    Ok(())
}

/// A rollout needs an instance that judges, a warm one, the new one, and for moments one or two more. Were what it retires
/// not freed, the ninth instance would find no slot, long before the last swap. Topics that fall silent must not keep it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_swap_retires_gives_its_slots_back_before_the_next_one_prepares() -> Result<()> {
    let variables = vec![("MYELIN_WASM__INSTANCES".to_owned(), "8".to_owned())];
    let router = Router::start_with(Setup { workers: 1, variables })?;
    push_built(&router, "tenant", "tenant", "1.0.0")?;
    push_built(&router, "tenant-2", "tenant", "2.0.0")?;
    bind(&router, "tenants", "tenant@1.0.0", "orders/**", TENANTS)?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = flood(&router, stop.clone()).await?;
    let client = router.client().await?;
    let silent = tokio::spawn(async move {
        for number in 0.. {
            let topic = format!("orders/once/{number}");
            if client.send(Event::new(&topic, "{}").header("x-tenant", "acme")).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(swap_many(&router)))?;
    stop.store(true, Ordering::Relaxed);
    silent.abort();
    let (sent, acked) = load.await?;
    assert!(sent > 0 && acked == sent, "every event was judged: {acked} of {sent}");
    let list = router.myelin(&["rollout", "history", "-o", "json"])?.good()?.json()?;
    let rollouts = list["rollouts"].as_array().context("rollouts")?;
    assert!(rollouts.len() > SWAPS / 2, "{list}");
    assert!(rollouts.iter().all(|rollout| rollout["swap_cpu_us_max"].is_u64()), "{list}");
    Ok(())
}
