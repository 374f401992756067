//! What the threads of a client tell each other: how far each publisher and each subscriber is, and what went wrong.

use crate::cell::Cell;
use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Longest latency that is told apart, in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Decimal digits that a latency is exact to.
const LATENCY_DIGITS: u8 = 3;

/// Events taken for which a publisher is woken once, at most.
const WAKE_EVENTS_MAX: u64 = 64;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Phase {
    /// Subscribers are not there yet: publishers wait.
    Preparing,
    /// Publishers publish.
    Running,
    /// Publishers have stopped; what is on its way arrives.
    Draining,
    /// Everybody leaves.
    Done,
}

/// Shared by all threads of the client.
#[derive(Debug)]
pub struct Progress {
    origin: Instant,
    /// How far the run is.
    pub phase: watch::Sender<Phase>,
    cell: Cell,
    in_flight_max: u64,
    /// Events for which a publisher is woken once: few beside what it may have on its way, so that it never waits for
    /// a wake-up that does not come.
    wake_events: u64,
    sent: Box<[AtomicU64]>,
    acked: Box<[AtomicU64]>,
    /// For each subscriber, the events of each publisher that it took.
    taken: Box<[Box<[AtomicU64]>]>,
    /// Wakes a publisher that waits for room.
    room: Box<[Notify]>,
    /// Events that are missing between two that arrived.
    pub gaps: AtomicU64,
    /// Events that arrived again, or too late.
    pub doubled: AtomicU64,
    /// Events that the router acknowledged with an exception.
    pub refused: AtomicU64,
    /// Only events scheduled within these nanoseconds since the origin count as latencies.
    window_ns: [AtomicU64; 2],
    latencies: Mutex<Histogram<u64>>,
}

impl Progress {
    /// Of a run that has not begun.
    pub fn new(cell: &Cell) -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            origin: Instant::now(),
            phase: watch::Sender::new(Phase::Preparing),
            cell: *cell,
            in_flight_max: cell.in_flight_max(),
            wake_events: (cell.in_flight_max() / 4).clamp(1, WAKE_EVENTS_MAX),
            sent: zeros(cell.publishers),
            acked: zeros(cell.publishers),
            taken: (0..cell.subscribers).map(|_| zeros(cell.publishers)).collect(),
            room: (0..cell.publishers).map(|_| Notify::new()).collect(),
            gaps: AtomicU64::new(0),
            doubled: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            window_ns: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)],
            latencies: Mutex::new(new_histogram()),
        }
    }

    /// What is measured.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }

    /// Nanoseconds since the run's origin.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Begins a phase, and wakes the publishers that wait for room: the phase may be the end of their waiting.
    pub fn begin(&self, phase: Phase) {
        self.phase.send_replace(phase);
        self.room.iter().for_each(Notify::notify_one);
    }

    /// Whether publishers go on.
    pub fn is_running(&self) -> bool {
        *self.phase.borrow() == Phase::Running
    }

    /// Notes that `publisher` has handed over its first `total` events.
    pub fn sent(&self, publisher: usize, total: u64) {
        self.sent[publisher].store(total, Relaxed);
    }

    /// Notes that the server has decided the first `total` events of `publisher`.
    pub fn acked(&self, publisher: usize, total: u64) {
        self.acked[publisher].store(total, Relaxed);
        self.room[publisher].notify_one();
    }

    /// Notes that `subscriber` took the first `total` events of `publisher`. Wakes the publisher once for several
    /// events: a client that takes them one by one would else pay for a wake-up with each.
    pub fn took(&self, subscriber: usize, publisher: usize, total: u64) {
        let taken = &self.taken[subscriber][publisher];
        // Nobody else writes it.
        let before = taken.load(Relaxed);
        taken.store(total, Relaxed);
        if before / self.wake_events != total / self.wake_events {
            self.room[publisher].notify_one();
        }
    }

    /// Whether all that `publisher` sent was decided.
    pub fn is_all_acked(&self, publisher: usize) -> bool {
        self.acked[publisher].load(Relaxed) >= self.sent[publisher].load(Relaxed)
    }

    /// Waits until something moved for `publisher`; a wake-up in between is not missed.
    pub async fn moved(&self, publisher: usize) {
        self.room[publisher].notified().await;
    }

    /// Events that `publisher` may send now: it is bounded by its acks and by the slowest subscriber.
    pub fn room(&self, publisher: usize) -> u64 {
        let slowest = self.taken.iter().map(|taken| taken[publisher].load(Relaxed)).min().unwrap_or(0);
        let done = slowest.min(self.acked[publisher].load(Relaxed));
        (done + self.in_flight_max).saturating_sub(self.sent[publisher].load(Relaxed))
    }

    /// Events that all subscribers together took.
    pub fn delivered(&self) -> u64 {
        self.taken.iter().flatten().map(|count| count.load(Relaxed)).sum()
    }

    /// Events that all subscribers together have not taken yet.
    pub fn missing(&self) -> u64 {
        let missing = |taken: &[AtomicU64]| -> u64 {
            taken
                .iter()
                .zip(&self.sent)
                .map(|(taken, sent)| sent.load(Relaxed).saturating_sub(taken.load(Relaxed)))
                .sum()
        };
        self.taken.iter().map(|taken| missing(taken)).sum()
    }

    /// From now on, for `length`, the latencies of events count.
    pub fn open_window(&self, length: Duration) {
        let now = self.now_ns();
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        self.window_ns[1].store(now.saturating_add(length), Relaxed);
        self.window_ns[0].store(now, Relaxed);
    }

    /// Adds the latencies of events that arrived at `now_ns`.
    ///
    /// # Panics
    /// When a thread panicked while it held the histogram.
    pub fn arrived(&self, scheduled_ns: &[u64], now_ns: u64) {
        let [from, to] = [&self.window_ns[0], &self.window_ns[1]].map(|bound| bound.load(Relaxed));
        let mut latencies = self.latencies.lock().expect("no thread panics while it holds the histogram");
        for scheduled in scheduled_ns.iter().filter(|at| (from..to).contains(*at)) {
            latencies.saturating_record(now_ns.saturating_sub(*scheduled).max(1));
        }
    }

    /// The latencies that counted.
    ///
    /// # Panics
    /// When a thread panicked while it held the histogram.
    pub fn latencies(&self) -> Histogram<u64> {
        self.latencies.lock().expect("no thread panics while it holds the histogram").clone()
    }
}

/// A histogram with the bounds and digits of all of them.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
        .expect("the bounds and digits are ones that a histogram takes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_follows_the_slowest_of_acks_and_subscribers() {
        let progress = Progress::new(&Cell { payload_bytes: 1024, publishers: 1, subscribers: 2 });
        assert_eq!(progress.room(0), 16_384);
        progress.sent(0, 16_384);
        assert_eq!(progress.room(0), 0);
        progress.acked(0, 5_000);
        progress.took(0, 0, 10_000);
        assert_eq!(progress.room(0), 0, "the second subscriber took nothing");
        progress.took(1, 0, 7_000);
        assert_eq!((progress.room(0), progress.missing(), progress.delivered()), (5_000, 15_768, 17_000));
    }

    #[test]
    fn latencies_count_within_the_window_only() {
        let progress = Progress::new(&Cell { payload_bytes: 128, publishers: 1, subscribers: 1 });
        progress.arrived(&[1], 2);
        progress.open_window(Duration::from_secs(60));
        let now = progress.now_ns();
        progress.arrived(&[1, now, now + 120_000_000_000], now + 1_000);
        let latencies = progress.latencies();
        assert_eq!((latencies.len(), latencies.max() / 1_000), (1, 1));
    }
}
