//! The outbox of a subscriber: what waits to be sent to it, bounded, with a declared overflow policy.

use crate::config::OutboxConfig;
use crate::ledger::Term;
use crate::names::Name;
use bytes::Bytes;
use myelin_wire::message::Overflow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// A backlog of this many entries belongs to a subscriber that does not keep up: small entries are then copied out, so
/// that they do not keep a whole receive buffer alive each.
const COMPACT_AFTER_ENTRIES: usize = 16;
/// Entries below this size are copied out of their receive buffer, in bytes.
const COMPACT_BELOW_BYTES: usize = 16 * 1024;

/// Where the events of one batch come from.
#[derive(Debug)]
pub struct Origin {
    /// The publisher's identity; `None` for the router itself.
    pub source: Option<Arc<Name>>,
    /// Unix time of the batch in nanoseconds.
    pub time_ns: u64,
    /// Monotonic time at which the batch came in, in milliseconds since the router's start.
    pub received_ms: u64,
    /// The generation that judged the batch.
    pub generation: u64,
    /// The worker that gave out the sequence numbers.
    pub shard: u8,
    /// The router at which they were published, where that is another one.
    pub elsewhere: Option<Elsewhere>,
    /// When the batch was handed out, where some of its events are traced.
    pub traced: Option<Instant>,
}

/// Where events were published that another site's router sent here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Number of that router.
    pub router: u32,
    /// How often it was started.
    pub epoch: u32,
    /// The generation that judged them there.
    pub generation: u64,
}

/// The names that the events of a delivery refer to.
#[derive(Clone, Debug)]
pub enum NameSet {
    /// All events have one topic.
    One(Arc<Name>),
    /// The distinct topics.
    Many(Arc<[Arc<Name>]>),
}

impl NameSet {
    /// The names as a slice.
    pub fn as_slice(&self) -> &[Arc<Name>] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

/// Consecutive events for one subscriber, in the bytes that every subscriber of the batch shares.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The encoded events.
    pub events: Bytes,
    /// Where they come from.
    pub origin: Arc<Origin>,
    /// The topics they refer to.
    pub names: NameSet,
    /// Sequence number of the first.
    pub seq: u64,
    /// How many they are.
    pub count: u32,
    /// The group membership they are for; 0 = plain.
    pub subscription: u32,
    /// Some of them have a time to live.
    pub expires: bool,
}

/// How full an outbox is, for publishers on other workers.
#[derive(Debug)]
pub struct Gauge {
    /// The subscriber's tenant.
    tenant: Option<Arc<str>>,
    queued_bytes: AtomicUsize,
    bytes_max: usize,
    closed: AtomicBool,
    room: Notify,
}

impl Gauge {
    /// The tenant of the subscriber whose outbox it is; its publishers wait for it, and no others.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Counts bytes on their way to the outbox.
    pub fn add(&self, bytes: usize) {
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether publishers should wait.
    pub fn is_full(&self) -> bool {
        self.queued_bytes.load(Ordering::Relaxed) >= self.bytes_max && !self.closed.load(Ordering::Relaxed)
    }

    /// Waits until there is room.
    pub async fn room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // Registered before the check, so that no wake-up falls between the two.
            room.as_mut().enable();
            if !self.is_full() {
                return;
            }
            room.await;
        }
    }

    fn sub(&self, bytes: usize) {
        let before = self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.bytes_max / 2 && before - bytes < self.bytes_max / 2 || before >= self.bytes_max {
            self.room.notify_waiters();
        }
    }
}

/// What an offer led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Offered {
    /// It waits to be sent.
    Queued,
    /// The outbox is closed: its connection is gone.
    Closed,
    /// It did not fit, and the policy is to disconnect: the outbox is closed now.
    Overflowed,
    /// It did not fit, and its publisher does not wait for this subscriber.
    Shed,
}

/// Bounds of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Encoded bytes.
    pub bytes: usize,
    /// Events.
    pub events: usize,
}

impl From<OutboxConfig> for OutboxLimits {
    fn from(OutboxConfig { bytes, events }: OutboxConfig) -> Self {
        Self { bytes, events }
    }
}

/// The outbox of one subscriber, owned by its worker.
#[derive(Debug)]
pub struct Outbox {
    /// Whose it is, for people.
    whose: Box<str>,
    overflow: Overflow,
    limits: OutboxLimits,
    queue: RefCell<Queue>,
    gauge: Arc<Gauge>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Delivery>,
    bytes: usize,
    events: usize,
    closed: bool,
}

impl Outbox {
    /// An empty outbox of somebody of that tenant; `whose` says whose it is, for people.
    pub fn new(whose: &str, tenant: Option<Arc<str>>, overflow: Overflow, limits: OutboxLimits) -> Self {
        let gauge = Gauge {
            tenant,
            queued_bytes: AtomicUsize::new(0),
            bytes_max: limits.bytes,
            closed: AtomicBool::new(false),
            room: Notify::new(),
        };
        let (whose, queue, gauge) = (whose.into(), RefCell::default(), Arc::new(gauge));
        Self { whose, overflow, limits, queue, gauge, wake: Notify::new() }
    }

    /// Whose it is, for people.
    pub fn whose(&self) -> &str {
        &self.whose
    }

    /// The tenant of the subscriber.
    pub fn tenant(&self) -> Option<&str> {
        self.gauge.tenant()
    }

    /// The gauge that publishers watch, when the policy is to pause them.
    pub fn gauge(&self) -> Option<Arc<Gauge>> {
        (self.overflow == Overflow::Pause).then(|| self.gauge.clone())
    }

    /// Queues `delivery`, whose bytes were added to the gauge before where there is one. What has to make room, or does
    /// not get in, is handed to `gone` with the term that counts it. `waits` says of the delivery whether its publisher
    /// waits for this subscriber; it is asked only where an outbox is full whose policy is to pause publishers.
    pub fn offer(
        &self,
        mut delivery: Delivery,
        waits: impl FnOnce(&Delivery) -> bool,
        mut gone: impl FnMut(&Delivery, Term),
    ) -> Offered {
        let mut queue = self.queue.borrow_mut();
        if queue.closed {
            self.gauge_sub(delivery.events.len());
            gone(&delivery, Term::Lost);
            return Offered::Closed;
        }
        let (bytes, events) = (delivery.events.len(), delivery.count as usize);
        if self.overflow == Overflow::Pause {
            // Nobody holds it back at its source, so that it would make the queue grow for ever. What waits in front of it
            // may be of those who wait, to whom nothing may be lost.
            if queue.overflows(bytes, events, self.limits) && !waits(&delivery) {
                drop(queue);
                self.gauge_sub(bytes);
                gone(&delivery, Term::Shed);
                return Offered::Shed;
            }
        } else {
            while queue.overflows(bytes, events, self.limits) {
                if self.overflow == Overflow::Disconnect {
                    drop(queue);
                    self.close();
                    gone(&delivery, Term::Shed);
                    return Offered::Overflowed;
                }
                if let Some(oldest) = queue.pop() {
                    gone(&oldest, Term::Shed);
                }
            }
        }
        if queue.entries.len() >= COMPACT_AFTER_ENTRIES && bytes < COMPACT_BELOW_BYTES {
            delivery.events = Bytes::copy_from_slice(&delivery.events);
        }
        queue.bytes += bytes;
        queue.events += events;
        queue.entries.push_back(delivery);
        drop(queue);
        self.wake.notify_one();
        Offered::Queued
    }

    /// Moves entries of up to `bytes_max` bytes (at least one entry) to `into`; whether there was any.
    pub fn take(&self, bytes_max: usize, into: &mut Vec<Delivery>) -> bool {
        let mut queue = self.queue.borrow_mut();
        let mut taken_bytes = 0;
        while let Some(next) = queue.entries.front()
            && (taken_bytes == 0 || taken_bytes + next.events.len() <= bytes_max)
        {
            taken_bytes += next.events.len();
            into.extend(queue.pop());
        }
        drop(queue);
        self.gauge_sub(taken_bytes);
        taken_bytes > 0
    }

    /// Waits for an offer or for [`Self::close`].
    pub async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Wakes whoever waits on the outbox.
    pub fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Takes no more offers. What is queued stays until it is taken.
    pub fn close(&self) {
        self.queue.borrow_mut().closed = true;
        self.gauge.closed.store(true, Ordering::Relaxed);
        self.gauge.room.notify_waiters();
        self.wake.notify_one();
    }

    /// Whether no more offers are taken.
    pub fn is_closed(&self) -> bool {
        self.queue.borrow().closed
    }

    /// Queued bytes and events.
    pub fn depth(&self) -> (usize, usize) {
        let queue = self.queue.borrow();
        (queue.bytes, queue.events)
    }

    fn gauge_sub(&self, bytes: usize) {
        if self.overflow == Overflow::Pause && bytes > 0 {
            self.gauge.sub(bytes);
        }
    }
}

impl Queue {
    /// Whether so much more is too much. What is alone always fits.
    fn overflows(&self, bytes: usize, events: usize, limits: OutboxLimits) -> bool {
        !self.entries.is_empty() && (self.bytes + bytes > limits.bytes || self.events + events > limits.events)
    }

    fn pop(&mut self) -> Option<Delivery> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.events.len();
        self.events -= entry.count as usize;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(seq: u64, bytes: usize) -> Delivery {
        let name = Arc::new(Name { reference: 1, version: 0, text: Arc::from("a") });
        let origin =
            Origin { source: None, time_ns: 0, received_ms: 0, generation: 1, shard: 0, elsewhere: None, traced: None };
        Delivery {
            events: Bytes::from(vec![0; bytes]),
            origin: Arc::new(origin),
            names: NameSet::One(name),
            seq,
            count: 1,
            subscription: 0,
            expires: false,
        }
    }

    fn outbox(overflow: Overflow) -> Outbox {
        Outbox::new("me", None, overflow, OutboxLimits { bytes: 100, events: 10 })
    }

    #[test]
    fn drop_oldest_makes_room_and_says_what_it_shed() {
        let outbox = outbox(Overflow::DropOldest);
        let mut shed = Vec::new();
        for seq in 0..15 {
            assert_eq!(outbox.offer(delivery(seq, 10), |_| true, |old, _| shed.push(old.seq)), Offered::Queued);
        }
        assert_eq!((shed, outbox.depth()), (vec![0, 1, 2, 3, 4], (100, 10)));
        let mut taken = Vec::new();
        assert!(outbox.take(35, &mut taken));
        assert_eq!(taken.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [5, 6, 7]);
    }

    #[test]
    fn an_entry_larger_than_the_bound_passes_alone() {
        let outbox = outbox(Overflow::DropOldest);
        assert_eq!(outbox.offer(delivery(0, 1_000), |_| true, |_, _| {}), Offered::Queued);
        let mut shed = 0;
        outbox.offer(delivery(1, 10), |_| true, |_, _| shed += 1);
        assert_eq!((shed, outbox.depth()), (1, (10, 1)));
    }

    #[test]
    fn disconnect_closes_and_keeps_what_was_queued() {
        let (outbox, mut gone) = (outbox(Overflow::Disconnect), Vec::new());
        let mut offer = |seq| outbox.offer(delivery(seq, 10), |_| true, |copy, term| gone.push((copy.seq, term)));
        assert!((0..10).all(|seq| offer(seq) == Offered::Queued));
        assert_eq!((offer(10), offer(11)), (Offered::Overflowed, Offered::Closed));
        assert_eq!(gone, [(10, Term::Shed), (11, Term::Lost)]);
        assert_eq!(outbox.depth(), (100, 10));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn pause_lets_publishers_wait_and_wakes_them() {
        let outbox = outbox(Overflow::Pause);
        let gauge = outbox.gauge().expect("a pausing outbox has a gauge");
        for seq in 0..12 {
            gauge.add(10);
            let offered = outbox.offer(delivery(seq, 10), |_| true, |_, _| panic!("nothing is shed"));
            assert_eq!(offered, Offered::Queued);
        }
        assert!(gauge.is_full());
        let drain = async {
            tokio::task::yield_now().await;
            outbox.take(80, &mut Vec::new());
        };
        tokio::join!(gauge.room(), drain);
        assert!(!gauge.is_full());
    }

    #[test]
    fn whoever_does_not_wait_for_a_subscriber_fills_no_more_than_its_outbox() {
        let outbox = outbox(Overflow::Pause);
        let gauge = outbox.gauge().expect("a pausing outbox has a gauge");
        let offer = |seq, waits| {
            let mut shed = Vec::new();
            gauge.add(10);
            let offered = outbox.offer(delivery(seq, 10), |_| waits, |copy, term| shed.push((copy.seq, term)));
            (offered, shed)
        };
        for seq in 0..10 {
            assert_eq!(offer(seq, seq % 2 == 0), (Offered::Queued, Vec::new()));
        }
        assert_eq!(offer(10, false), (Offered::Shed, vec![(10, Term::Shed)]));
        assert_eq!(offer(11, true), (Offered::Queued, Vec::new()));
        assert_eq!(offer(12, false), (Offered::Shed, vec![(12, Term::Shed)]));
        let mut taken = Vec::new();
        assert!(outbox.take(usize::MAX, &mut taken));
        assert_eq!(taken.iter().map(|copy| copy.seq).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]);
        assert_eq!(gauge.queued_bytes.load(Ordering::Relaxed), 0, "what was shed is on its way no more");
    }
}
