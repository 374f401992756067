//! The router under attack: bad frames, hostile modules, uploads, QUIC, too much of everything.
//!
//! Each attack is one named test; `docs/RELIABILITY.md` lists them with their figures. They assert outcomes, bounds and
//! counters; ratios and percentiles under attack are measured by `cargo xtask bench attacks`.

mod frames;
mod modules;
mod names;
mod peers;
mod quic;
mod scale;
mod stages;
mod streams;
mod uploads;

use anyhow::{Result, ensure};
use myelin_tests::Router;
use std::time::{Duration, Instant};

/// Waits until `is_so`, looking every 50 milliseconds.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_so()? {
        ensure!(begin.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The router's memory has grown by at most so many KiB since `before_kib`.
fn assert_growth(router: &Router, before_kib: u64, most_kib: u64) -> Result<()> {
    let now_kib = router.own_memory_kib()?;
    println!("resident: {before_kib} KiB before, {now_kib} KiB after, {most_kib} KiB more are allowed");
    ensure!(now_kib <= before_kib + most_kib, "{before_kib} KiB grew to {now_kib} KiB, {most_kib} KiB were allowed");
    Ok(())
}
