//! Figures of a client.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Figures of a client since its beginning, over all its sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events that were taken for publishing.
    pub published: u64,
    /// Published events that the router offered.
    pub acked: u64,
    /// Published events that the router refused.
    pub refused: u64,
    /// Published events whose fate a lost connection left open.
    pub unknown: u64,
    /// Exceptions that nobody asked for in time.
    pub exceptions_dropped: u64,
    /// Bytes written to publish streams.
    pub published_bytes: u64,
    /// Deliveries taken over from the router, each copy for a group counted.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Deliveries that no subscription wanted any more.
    pub unclaimed: u64,
    /// Deliveries larger than the router announced; they were skipped.
    pub oversized: u64,
    /// Receipts written.
    pub receipts: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Sessions that ended otherwise than by [`close`](crate::Client::close).
    pub sessions_lost: u64,
    /// Attempts to connect that failed, the first one of `connect` apart.
    pub connect_failures: u64,
    /// Subscriptions there are, the inbox included.
    pub subscriptions: u64,
    /// Events that wait in subscriptions.
    pub queued: u64,
}

/// The counters that no other part keeps.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) published_bytes: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) delivered_bytes: AtomicU64,
    pub(crate) unclaimed: AtomicU64,
    pub(crate) oversized: AtomicU64,
    pub(crate) receipts: AtomicU64,
    pub(crate) sessions: AtomicU64,
    pub(crate) sessions_lost: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Stats {
        Stats {
            published_bytes: self.published_bytes.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            delivered_bytes: self.delivered_bytes.load(Relaxed),
            unclaimed: self.unclaimed.load(Relaxed),
            oversized: self.oversized.load(Relaxed),
            receipts: self.receipts.load(Relaxed),
            sessions: self.sessions.load(Relaxed),
            sessions_lost: self.sessions_lost.load(Relaxed),
            connect_failures: self.connect_failures.load(Relaxed),
            ..Stats::default()
        }
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}
