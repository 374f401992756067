//! Hot swap at full load: nothing lost, nothing doubled, the ledger balances.

use crate::filters::{bind, push_built};
use crate::routing::PATIENCE;
use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Event, Overflow, SubscribeOptions, Subscription};
use myelin_tests::{Router, Setup};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{sleep, timeout};

const SWAPS: usize = 20;
const PUBLISHERS: usize = 3;
/// Events that each publisher sends at least between two swaps.
const EVENTS_BETWEEN: u64 = 500;
const TENANTS: &[&str] = &["--config", r#"{"tenants":["acme"]}"#, "--grant-topic", "audit/**"];

/// Publishes numbers without pause until told to stop; `progress` says how many, for whoever waits for more.
async fn numbers(client: Client, topic: String, progress: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> (u64, u64) {
    let mut sent = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let payload = sent.to_string();
        if client.send(Event::new(&topic, &payload).header("x-tenant", "acme")).await.is_err() {
            break;
        }
        sent += 1;
        progress.store(sent, Ordering::Relaxed);
    }
    let summary = client.flush().await;
    client.close().await;
    (sent, summary.acked)
}

/// One publisher; returns how many were sent and acknowledged.
async fn flood(router: &Router, stop: Arc<AtomicBool>) -> Result<JoinHandle<(u64, u64)>> {
    let client = router.client().await?;
    Ok(tokio::spawn(numbers(client, "orders/eu".to_owned(), Arc::default(), stop)))
}

/// One swap of many: to the other version, and sometimes back by rollback.
fn swap_once(router: &Router, swap: usize) -> Result<()> {
    if swap % 5 == 4 {
        router.myelin(&["rollout", "rollback"])?.good()?;
        return Ok(());
    }
    let version = if swap.is_multiple_of(2) { "tenant@2.0.0" } else { "tenant@1.0.0" };
    bind(router, "tenants", version, "orders/**", &[TENANTS, &["--order", &swap.to_string()]].concat())
}

/// Swaps between the two versions while events flow.
fn swap_many(router: &Router) -> Result<()> {
    (0..SWAPS).try_for_each(|swap| block_in_place(|| swap_once(router, swap)))
}

/// Waits until each publisher is `more` events further: a swap in a lull proves nothing.
async fn further(progress: &[Arc<AtomicU64>], more: u64) -> Result<()> {
    for progress in progress {
        let until = progress.load(Ordering::Relaxed) + more;
        let reached = async {
            while progress.load(Ordering::Relaxed) < until {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, reached).await.context("a publisher stands still")?;
    }
    Ok(())
}

/// What a subscriber got of each publisher, and the generations that judged it.
#[derive(Default)]
struct Got {
    next: [u64; PUBLISHERS],
    /// How many events each generation has judged.
    judged: BTreeMap<u64, u64>,
}

/// Reads until all publishers' events have come, each of them once and in order.
async fn check_all(mut events: Subscription, mut sent: watch::Receiver<Option<[u64; PUBLISHERS]>>) -> Result<Got> {
    let mut got = Got::default();
    while *sent.borrow() != Some(got.next) {
        let event = tokio::select! {
            event = timeout(PATIENCE, events.next()) => event.with_context(|| format!("after {:?}", got.next))?,
            changed = sent.changed() => {
                changed?;
                continue;
            }
        };
        let event = event.context("the subscription ended")?;
        let of: usize = event.topic().trim_start_matches("orders/").parse()?;
        let (n, next): (u64, _) = (String::from_utf8_lossy(event.payload()).parse()?, &mut got.next[of]);
        ensure!(n == *next, "event {n} of publisher {of} came where {next} was due");
        *next += 1;
        *got.judged.entry(event.generation()).or_default() += 1;
    }
    Ok(got)
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_swaps_at_full_load_lose_and_double_nothing() -> Result<()> {
    let router = Router::start()?;
    push_built(&router, "tenant", "tenant", "1.0.0")?;
    push_built(&router, "tenant-2", "tenant", "2.0.0")?;
    bind(&router, "tenants", "tenant@1.0.0", "orders/**", TENANTS)?;
    let subscriber = router.client_with(Overflow::Pause).await?;
    let events = subscriber.subscribe("orders/**", SubscribeOptions::default()).await?;
    let (tell, told) = watch::channel(None);
    let checking = tokio::spawn(check_all(events, told));
    let (stop, progress) = (Arc::new(AtomicBool::new(false)), <[Arc<AtomicU64>; PUBLISHERS]>::default());
    let mut loads = Vec::new();
    for (publisher, progress) in progress.iter().enumerate() {
        let client = router.client().await?;
        loads.push(tokio::spawn(numbers(client, format!("orders/{publisher}"), progress.clone(), stop.clone())));
    }
    for swap in 0..SWAPS {
        further(&progress, EVENTS_BETWEEN).await?;
        block_in_place(|| swap_once(&router, swap))?;
    }
    further(&progress, EVENTS_BETWEEN).await?;
    stop.store(true, Ordering::Relaxed);
    let mut sent = [0; PUBLISHERS];
    for (sent, load) in sent.iter_mut().zip(loads) {
        let (published, acked) = load.await?;
        assert_eq!(acked, published);
        *sent = published;
    }
    // A reader that has found something wrong has gone, and says so itself.
    let _ = tell.send(Some(sent));
    let got = checking.await??;
    assert_eq!(got.next, sent, "zero lost, zero doubled");
    let list = router.myelin(&["rollout", "history", "-o", "json"])?.json()?;
    let generations = list["rollouts"].as_array().context("rollouts")?.iter().filter_map(|r| r["generation"].as_u64());
    let swapped: Vec<u64> = generations.collect::<BTreeSet<_>>().into_iter().rev().take(SWAPS + 1).collect();
    for generation in &swapped {
        // Load was there during every swap: each generation has judged events of it until the next one took over.
        let judged = got.judged.get(generation).copied().unwrap_or_default();
        assert!(judged >= EVENTS_BETWEEN, "generation {generation} judged {judged}: {:?} of {swapped:?}", got.judged);
    }
    let ledger = router.settled_ledger()?;
    assert_eq!(ledger["balances"], true, "{ledger}");
    assert_eq!(ledger["total"]["delivered"].as_u64(), Some(sent.iter().sum()), "{ledger}");
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
    swap_many(&router)?;
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
            sleep(Duration::from_millis(10)).await;
        }
    });
    swap_many(&router)?;
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
