//! Swaps a filter every second while a client runs.

use crate::admin::Bound;
use anyhow::anyhow;
use serde::Serialize;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often.
const PERIOD: Duration = Duration::from_secs(1);

/// One swap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Swap {
    /// When it was done, in milliseconds since 1970.
    pub(crate) at_unix_ms: u64,
    /// How long the rollout took, preparing included.
    pub(crate) took_ms: u64,
    /// The longest that a worker paused for it.
    pub(crate) pause_us: u64,
    /// The most CPU time that a worker used for it.
    pub(crate) pause_cpu_us: u64,
}

/// A thread that swaps until it is told to end.
#[derive(Debug)]
pub(crate) struct Swapper {
    end: SyncSender<()>,
    thread: JoinHandle<anyhow::Result<Vec<Swap>>>,
}

impl Swapper {
    /// Swaps the first binding of `bound` once each [`PERIOD`] from now on.
    pub(crate) fn start(mut bound: Bound) -> Self {
        let (end, ended) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let mut swaps = Vec::new();
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let rollout = bound.swap()?;
                let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let at_unix_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
                swaps.push(Swap {
                    at_unix_ms,
                    took_ms: rollout.took_ms,
                    pause_us: rollout.swap_us_max,
                    pause_cpu_us: rollout.swap_cpu_us_max,
                });
            }
            Ok(swaps)
        });
        Self { end, thread }
    }

    /// Ends it; the swaps that it made.
    pub(crate) fn end(self) -> anyhow::Result<Vec<Swap>> {
        // A thread that has failed listens no more.
        let _ = self.end.send(());
        self.thread.join().map_err(|_| anyhow!("the thread that swaps has panicked"))?
    }
}
