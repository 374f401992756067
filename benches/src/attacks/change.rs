//! Change: a thousand swaps at half load.

use super::probe::{Latencies, capacity, measure, ratio};
use super::{Row, Sheet, Size};
use anyhow::{Result, ensure};
use myelin_attacks::modules;
use myelin_tests::Router;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long all swaps may take.
const PATIENCE: Duration = Duration::from_secs(600);

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
pub(super) async fn swaps(size: Size, sheet: &mut Sheet) -> Result<()> {
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
    loop {
        let swaps = rollouts()? - first;
        if swaps >= wanted {
            break;
        }
        let seconds = begin.elapsed().as_secs();
        ensure!(begin.elapsed() < PATIENCE, "{swaps} of {wanted} swaps in {seconds} s");
        eprintln!("  {swaps} of {wanted} swaps after {seconds} s, {} events, none lost or doubled", swapped.len());
        // One event that is lost, doubled or out of order fails the measurement.
        swapped.add(measure(&router, "calm", half, time).await?)?;
    }
    stop.store(true, Ordering::Relaxed);
    let count = swapping.await??;
    let after = router.resident_kib()? as f64;
    let ledger = router.settled_ledger()?;
    ensure!(ledger["balances"] == true && ledger["total"]["shed"] == 0, "{ledger}");
    let p999 = |latencies: &Latencies| latencies.value_at_quantile(0.999);
    eprintln!("  {count} swaps at {half} events/s, {} events; the ledger balances, nothing was shed", swapped.len());
    eprintln!("  p99.9 {} us, without swaps {} us; {after} KiB, before {before} KiB", p999(&swapped), p999(&calm));
    sheet.add(Row::at_most("swaps: p99.9", ratio(&swapped, &calm, 0.999), 2.0, "x"))?;
    sheet.add(Row::at_most("swaps: memory after them", after / before, 1.05, "x"))
}
