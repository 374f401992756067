//! Change: a thousand swaps at half load.

use super::probe::{Latencies, capacity, measure, ratio};
use super::{Row, Sheet, Size};
use anyhow::{Result, ensure};
use myelin_attacks::modules;
use myelin_tests::Router;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Swaps before anything is measured.
const WARM_UP_SWAPS: u64 = 1_000;
/// How long all swaps may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Swaps a second: all of them in the time in which latencies are measured.
const SWAPS_PER_SECOND: u64 = 50;

/// The filter's two versions in turn, on all topics.
struct Swapper {
    router: Arc<Router>,
    /// How many swaps there were.
    done: AtomicU64,
}

impl Swapper {
    /// Swaps until there were `wanted` swaps, not more often than `per_second`.
    fn run(&self, wanted: u64, per_second: u64) -> Result<()> {
        let (begin, first) = (Instant::now(), self.done.load(Ordering::Relaxed));
        for number in first..wanted {
            let due = Duration::from_nanos(1_000_000_000 / per_second * (number - first));
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
            let version = if number % 2 == 0 { "2.0.0" } else { "1.0.0" };
            let binding = json!({ "module": format!("quiet@{version}"), "pattern": "*", "order": number });
            ensure!(self.router.send_json("PUT", "/v1/bindings/all", &binding)?.status == 202);
            ensure!(self.router.send_json("POST", "/v1/rollouts", &json!({}))?.status / 100 == 2);
            self.done.store(number + 1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// 1,000 swaps at half of what one publisher and one subscriber can do.
pub(super) async fn swaps(size: Size, sheet: &mut Sheet) -> Result<()> {
    let router = Arc::new(Router::start()?);
    for version in ["1.0.0", "2.0.0"] {
        ensure!(router.upload("quiet", version, &modules::quiet())?.status == 201);
    }
    let swapper = Arc::new(Swapper { router: router.clone(), done: AtomicU64::new(0) });
    // The first ones fill what every swap uses again: pools, caches, the history that is kept.
    swapper.run(WARM_UP_SWAPS, u64::MAX)?;
    let half = capacity(&router, "capacity", Duration::from_secs(3)).await? / 2;
    let time = Duration::from_secs(size.of(20));
    let calm = measure(&router, "calm", half, time).await?;
    let before = router.resident_kib()? as f64;
    let wanted = WARM_UP_SWAPS + size.of(1_000);
    let swapping = tokio::task::spawn_blocking({
        let swapper = swapper.clone();
        move || swapper.run(wanted, SWAPS_PER_SECOND)
    });
    let (mut swapped, begin) = (calm.clone(), Instant::now());
    swapped.reset();
    while swapped.is_empty() || !swapping.is_finished() {
        let (seconds, swaps) = (begin.elapsed().as_secs(), swapper.done.load(Ordering::Relaxed) - WARM_UP_SWAPS);
        ensure!(begin.elapsed() < PATIENCE, "{swaps} swaps in {seconds} s");
        eprintln!("  {swaps} swaps after {seconds} s, {} events, none lost or doubled", swapped.len());
        // One event that is lost, doubled or out of order fails the measurement.
        swapped.add(measure(&router, "calm", half, time).await?)?;
    }
    swapping.await??;
    let after = router.resident_kib()? as f64;
    let ledger = router.settled_ledger()?;
    ensure!(ledger["balances"] == true && ledger["total"]["shed"] == 0, "{ledger}");
    let counted = router.metric("myelin_rollouts_total")?;
    ensure!(counted == wanted + 1, "{wanted} swaps and the start were made, {counted} counted");
    let swaps = wanted - WARM_UP_SWAPS;
    eprintln!("  {swaps} swaps at {half} events/s, {} events; the ledger balances, nothing was shed", swapped.len());
    let p999 = |latencies: &Latencies| latencies.value_at_quantile(0.999);
    eprintln!("  p99.9 {} us, without swaps {} us; {after} KiB, before {before} KiB", p999(&swapped), p999(&calm));
    sheet.add(Row::at_most("swaps: p99.9", ratio(&swapped, &calm, 0.999), 2.0, "x"))?;
    sheet.add(Row::at_most("swaps: memory after them", after / before, 1.05, "x"))
}
