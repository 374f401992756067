//! Change and overload: a thousand swaps at half load, and more events than a subscriber takes.

use super::probe::{capacity, measure, ratio};
use super::{Row, Size};
use anyhow::{Context, Result, ensure};
use myelin_attacks::modules;
use myelin_client::{Event, Overflow, SubscribeOptions};
use myelin_tests::Router;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Swaps the filter between its two versions until told to stop or for `most` times; says how often.
fn swap_many(router: &Router, most: u64, stop: &AtomicBool) -> Result<u64> {
    for number in 0..most {
        if stop.load(Ordering::Relaxed) {
            return Ok(number);
        }
        let version = if number % 2 == 0 { "2.0.0" } else { "1.0.0" };
        let binding = json!({ "module": format!("quiet@{version}"), "pattern": "*", "order": number });
        ensure!(router.send_json("PUT", "/v1/bindings/all", &binding)?.status == 202);
        ensure!(router.send_json("POST", "/v1/rollouts", &json!({}))?.status / 100 == 2);
    }
    Ok(most)
}

/// 1,000 swaps at half of what one publisher and one subscriber can do.
pub(super) async fn swaps(size: Size) -> Result<Vec<Row>> {
    let router = Arc::new(Router::start()?);
    for version in ["1.0.0", "2.0.0"] {
        ensure!(router.upload("quiet", version, &modules::quiet())?.status == 201);
    }
    let never = AtomicBool::new(false);
    swap_many(&router, 50, &never)?;
    let half = capacity(&router, "capacity", Duration::from_secs(3)).await? / 2;
    let time = Duration::from_secs(size.of(20));
    let calm = measure(&router, "calm", half, time).await?;
    let before = router.resident_kib()? as f64;
    let (stop, wanted) = (Arc::new(AtomicBool::new(false)), size.of(1_000));
    let swapping = {
        let (router, stop) = (router.clone(), stop.clone());
        tokio::task::spawn_blocking(move || swap_many(&router, u64::MAX, &stop))
    };
    let (mut swapped, begin) = (calm.clone(), Instant::now());
    swapped.reset();
    let rollouts = || router.metric("myelin_rollouts_total");
    let first = rollouts()?;
    while rollouts()? - first < wanted {
        ensure!(begin.elapsed() < Duration::from_secs(600), "{wanted} swaps take too long");
        // Every event of it must arrive, in order or not: one that is lost fails the measurement.
        swapped.add(measure(&router, "calm", half, time).await?)?;
    }
    stop.store(true, Ordering::Relaxed);
    let count = swapping.await??;
    let after = router.resident_kib()? as f64;
    let ledger = router.settled_ledger()?;
    ensure!(ledger["balances"] == true && ledger["total"]["shed"] == 0, "{ledger}");
    eprintln!("  {count} swaps at {half} events/s");
    Ok(vec![
        Row::at_most("swaps: p99.9", ratio(&swapped, &calm, 0.999), 2.0, "x"),
        Row::at_most("swaps: memory after them", after / before, 1.05, "x"),
    ])
}

/// A subscriber takes two thirds of what is published, then all of it again.
pub(super) async fn overload(size: Size) -> Result<Vec<Row>> {
    const RATE: u64 = 3_000;
    let router = Router::start()?;
    let calm = measure(&router, "calm", RATE, Duration::from_secs(size.of(10))).await?;
    let subscriber = router.client_with(Overflow::DropOldest).await?;
    let mut events = subscriber.subscribe("calm", SubscribeOptions::default()).await?;
    let slow = Arc::new(AtomicBool::new(true));
    let is_slow = slow.clone();
    let reading = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            drop(event);
            if is_slow.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_micros(1_500_000 / RATE)).await;
            }
        }
    });
    // Larger events, so that the outbox is full within the time of a bench.
    let (publisher, begin) = (router.client().await?, Instant::now());
    while router.ledger()?["total"]["shed"] == 0 {
        ensure!(begin.elapsed() < Duration::from_secs(120), "nothing is shed");
        for _ in 0..RATE / 10 {
            publisher.send(Event::new("calm", &[7; 8 * 1_024])).await?;
        }
    }
    slow.store(false, Ordering::Relaxed);
    let begin = Instant::now();
    let recovered = loop {
        let now = measure(&router, "calm", RATE, Duration::from_millis(500)).await?;
        if ratio(&now, &calm, 0.99) <= 2.0 || begin.elapsed() > Duration::from_secs(30) {
            break begin.elapsed().as_secs_f64();
        }
    };
    let ledger = router.ledger()?;
    ensure!(ledger["balances"] == true, "{ledger}");
    let shed = ledger["total"]["shed"].as_u64().context("shed")?;
    eprintln!("  {shed} copies were shed, and counted");
    reading.abort();
    Ok(vec![Row::at_most("overload: p99 is within 2x again after", recovered, 5.0, "s")])
}
