//! What a tenant uses of a router, against its quota.

use super::meter::Meter;
use myelin_catalog::Quota;
use myelin_wire::{Code, Refusal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds in a millisecond.
const MS_NS: u64 = 1_000_000;
/// Events of one batch of a tenant with a rate are at most what it may send in this part of a second: the pauses between
/// its batches are short, and evenly spread.
const ROUNDS_PER_S: u64 = 50;
/// Without a bound of connections.
const UNBOUNDED: u64 = u64::MAX;

/// What a tenant uses of this router, counted by all workers.
#[derive(Debug)]
pub struct Usage {
    name: Arc<str>,
    events: Meter,
    bytes: Meter,
    /// Nanoseconds of CPU time.
    filters: Meter,
    dead_letters: Meter,
    /// Dead letters that the quota turned into refusals.
    dead_letters_refused: AtomicU64,
    connections: AtomicU64,
    connections_max: AtomicU64,
    connections_refused: AtomicU64,
    /// How long its publishers were made to wait, all together, in nanoseconds.
    paused_ns: AtomicU64,
}

/// What a batch has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Events.
    pub events: u64,
    /// Bytes of the publisher's stream.
    pub bytes: u64,
    /// CPU time of filters, and of judging payloads by schemas, in nanoseconds.
    pub filters_ns: u64,
}

/// What a tenant has used since the router's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Figures {
    pub events: u64,
    pub bytes: u64,
    pub filters_ns: u64,
    pub dead_letters: u64,
    pub dead_letters_refused: u64,
    pub connections: u64,
    pub connections_refused: u64,
    pub paused_ns: u64,
}

/// A connection of a tenant: one of those that it may have, until this is dropped.
#[derive(Debug)]
pub struct Member(Arc<Usage>);

impl Usage {
    /// Nothing used yet, nothing bounded.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            events: Meter::default(),
            bytes: Meter::default(),
            filters: Meter::default(),
            dead_letters: Meter::default(),
            dead_letters_refused: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_max: AtomicU64::new(UNBOUNDED),
            connections_refused: AtomicU64::new(0),
            paused_ns: AtomicU64::new(0),
        }
    }

    /// Lets a quota hold from now on. Connections beyond it stay; no new one comes.
    pub fn bound(&self, quota: &Quota) {
        self.events.bound(quota.events_per_s);
        self.bytes.bound(quota.bytes_per_s);
        self.filters.bound(quota.filter_ms_per_s.map(|ms| ms.saturating_mul(MS_NS)));
        self.dead_letters.bound(quota.dead_letters_per_s);
        self.connections_max.store(quota.connections.unwrap_or(UNBOUNDED), Relaxed);
    }

    /// The tenant's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Takes one of the connections that the tenant may have.
    ///
    /// # Errors
    /// `too-many-sessions` where it has them all.
    pub fn connect(self: &Arc<Self>) -> Result<Member, Refusal> {
        let max = self.connections_max.load(Relaxed);
        let one_more = |count: u64| (count < max).then_some(count + 1);
        if self.connections.fetch_update(Relaxed, Relaxed, one_more).is_ok() {
            return Ok(Member(self.clone()));
        }
        self.connections_refused.fetch_add(1, Relaxed);
        let message =
            format!("tenant {} has {max} connections to this router, which is its quota; close one", self.name);
        Err(Refusal::new(Code::TooManySessions, message))
    }

    /// How many events one batch may have.
    pub fn events_per_round(&self, max: usize) -> usize {
        match self.events.per_s() {
            0 => max,
            per_s => usize::try_from(per_s / ROUNDS_PER_S).unwrap_or(max).clamp(1, max),
        }
    }

    /// Counts what a batch has used.
    pub fn charge(&self, now_ns: u64, spent: Spent) {
        for (meter, amount) in
            [(&self.events, spent.events), (&self.bytes, spent.bytes), (&self.filters, spent.filters_ns)]
        {
            if amount > 0 {
                meter.charge(now_ns, amount);
            }
        }
    }

    /// How long its publishers must wait before their next batch, in nanoseconds.
    pub fn wait_ns(&self, now_ns: u64) -> u64 {
        [&self.events, &self.bytes, &self.filters].into_iter().map(|meter| meter.wait_ns(now_ns)).max().unwrap_or(0)
    }

    /// Counts a pause.
    pub fn paused(&self, ns: u64) {
        self.paused_ns.fetch_add(ns, Relaxed);
    }

    /// Whether one more of its events may go to the dead letters.
    pub fn may_bury(&self, now_ns: u64) -> bool {
        let may = self.dead_letters.take(now_ns, 1);
        if !may {
            self.dead_letters_refused.fetch_add(1, Relaxed);
        }
        may
    }

    /// What it has used.
    pub fn figures(&self) -> Figures {
        Figures {
            events: self.events.used(),
            bytes: self.bytes.used(),
            filters_ns: self.filters.used(),
            dead_letters: self.dead_letters.used(),
            dead_letters_refused: self.dead_letters_refused.load(Relaxed),
            connections: self.connections.load(Relaxed),
            connections_refused: self.connections_refused.load(Relaxed),
            paused_ns: self.paused_ns.load(Relaxed),
        }
    }
}

impl Member {
    /// What the tenant uses.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.0
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
