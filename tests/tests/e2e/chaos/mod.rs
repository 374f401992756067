//! Meshes of five router processes over links that delay, lose, double and reorder, and that break in the midst of
//! traffic. See docs/MESH.md, "What it is tested against".
//!
//! They assert outcomes with much patience; how long things take is judged by `cargo xtask bench mesh`.

mod faults;
mod shapes;

use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Event, Overflow, SubscribeOptions};
use myelin_tests::sites::{PATIENCE, Sites};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long costs and routes are left alone after everybody is known, before order is expected.
const CALM: Duration = Duration::from_secs(3);

/// A publisher that numbers its events.
pub(crate) struct Mouth {
    site: usize,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<()>>,
}

impl Mouth {
    /// Publishes at `site`, one event every `interval`: `most` in all, or until it is stopped.
    pub(crate) async fn open(sites: &Sites, site: usize, interval: Duration, most: u64) -> Result<Self> {
        let client = sites.client(site, &format!("mouth-{site}"), Overflow::DropOldest).await?;
        let (sent, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let task = tokio::spawn({
            let (sent, stop, topic) = (sent.clone(), stop.clone(), format!("chaos/{site}"));
            async move {
                let mut tick = tokio::time::interval(interval);
                for number in 0..most {
                    if stop.load(Relaxed) {
                        break;
                    }
                    tick.tick().await;
                    client.send(Event::new(&topic, &number.to_string()).key("one")).await?;
                    sent.store(number + 1, Relaxed);
                }
                let summary = client.flush().await;
                ensure!(summary.acked == summary.published, "{topic}: {summary:?}");
                Ok(())
            }
        });
        Ok(Self { site, sent, stop, task })
    }

    pub(crate) fn site(&self) -> usize {
        self.site
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Waits for the last event, or makes it the last; how many there were.
    pub(crate) async fn close(self, at_once: bool) -> Result<u64> {
        self.stop.store(at_once, Relaxed);
        tokio::time::timeout(PATIENCE, self.task).await.context("publishing takes too long")???;
        Ok(self.sent.load(Relaxed))
    }
}

/// A subscriber to all of them.
pub(crate) struct Ears {
    site: usize,
    heard: Arc<Mutex<BTreeMap<usize, Vec<u64>>>>,
    _client: Client,
    task: JoinHandle<Result<()>>,
}

impl Ears {
    pub(crate) async fn open(sites: &Sites, site: usize) -> Result<Self> {
        let client = sites.client(site, &format!("ears-{site}"), Overflow::Pause).await?;
        let mut events = client.subscribe("chaos/*", SubscribeOptions::default()).await?;
        let heard = Arc::<Mutex<BTreeMap<usize, Vec<u64>>>>::default();
        let task = tokio::spawn({
            let heard = heard.clone();
            async move {
                while let Some(event) = events.next().await {
                    let from = event.topic().trim_start_matches("chaos/").parse()?;
                    let number = std::str::from_utf8(event.payload())?.parse()?;
                    heard.lock().unwrap().entry(from).or_default().push(number);
                }
                Ok(())
            }
        });
        Ok(Self { site, heard, _client: client, task })
    }

    /// What came of a publisher, in this order.
    pub(crate) fn heard(&self, from: usize) -> Vec<u64> {
        self.heard.lock().unwrap().get(&from).cloned().unwrap_or_default()
    }

    /// Waits until all events of a publisher from `first` to below `end` are here, in whatever order.
    pub(crate) async fn hears(&self, from: usize, first: u64, end: u64) -> Result<()> {
        let begin = Instant::now();
        loop {
            ensure!(!self.task.is_finished(), "the subscription at site {} ended", self.site);
            let heard: BTreeSet<u64> = self.heard(from).into_iter().collect();
            let missing: BTreeSet<u64> = (first..end).filter(|number| !heard.contains(number)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            let (count, least) = (missing.len(), missing.first());
            ensure!(
                begin.elapsed() < PATIENCE,
                "site {} lacks {count} of {first}..{end} from site {from}, the first {least:?}",
                self.site
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until an event is here that was published later than `after` others.
    pub(crate) async fn hears_later_than(&self, from: usize, after: u64) -> Result<()> {
        let begin = Instant::now();
        while !self.heard(from).iter().any(|number| *number > after) {
            ensure!(begin.elapsed() < PATIENCE, "site {} hears nothing of site {from} after {after}", self.site);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// No event came twice.
    pub(crate) fn heard_none_twice(&self, from: usize) -> Result<()> {
        let mut heard = self.heard(from);
        let count = heard.len();
        heard.sort_unstable();
        heard.dedup();
        ensure!(heard.len() == count, "site {} had {} events of site {from} twice", self.site, count - heard.len());
        Ok(())
    }
}
