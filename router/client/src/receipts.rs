//! What was taken over from the delivery stream, and when the router is to be told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use myelin_wire::limits::{RECEIPT_BYTES, RECEIPT_EVENTS};
use tokio::time::Instant;

/// At most so long after an event was taken over, the router knows. The protocol allows 50 ms.
const RECEIPT_DELAY: Duration = Duration::from_millis(20);

/// Counts of one session. The delivery reader adds, the control writer tells.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    events: AtomicU64,
    bytes: AtomicU64,
    told_events: AtomicU64,
    told_bytes: AtomicU64,
    /// Whether the control writer knows that there is something new, and when to tell it.
    armed: AtomicBool,
}

/// When the next receipt is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Now, with this count.
    Now(u64),
    /// Then, unless a threshold is passed earlier.
    At(Instant),
    /// There is nothing new.
    Never,
}

impl Receipts {
    /// Adds what was taken over; whether the control writer is to be woken.
    pub(crate) fn took(&self, events: u64, bytes: u64) -> bool {
        let events = self.events.fetch_add(events, Ordering::AcqRel) + events;
        let bytes = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let new_events = events - self.told_events.load(Ordering::Acquire);
        let new_bytes = bytes - self.told_bytes.load(Ordering::Acquire);
        new_events >= RECEIPT_EVENTS || new_bytes >= RECEIPT_BYTES || !self.armed.swap(true, Ordering::AcqRel)
    }

    /// Events taken over in this session.
    pub(crate) fn taken(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    /// When to tell, if the last receipt was at `told_at`: at once after a quiet while, or when the session ends.
    pub(crate) fn due(&self, now: Instant, told_at: Option<Instant>, leaving: bool) -> Due {
        // Disarmed before looking, so that what comes after the look wakes the writer again.
        self.armed.swap(false, Ordering::AcqRel);
        let events = self.taken();
        let new_events = events - self.told_events.load(Ordering::Acquire);
        if new_events == 0 {
            return Due::Never;
        }
        let new_bytes = self.bytes.load(Ordering::Acquire) - self.told_bytes.load(Ordering::Acquire);
        let then = told_at.map_or(now, |told_at| told_at + RECEIPT_DELAY);
        if leaving || then <= now || new_events >= RECEIPT_EVENTS || new_bytes >= RECEIPT_BYTES {
            return Due::Now(events);
        }
        self.armed.store(true, Ordering::Release);
        Due::At(then)
    }

    /// A receipt of `events` is on its way.
    pub(crate) fn told(&self, events: u64) {
        self.told_events.store(events, Ordering::Release);
        self.told_bytes.store(self.bytes.load(Ordering::Acquire), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_due_at_once_after_quiet_and_by_number_or_time_after_that() {
        let (receipts, start) = (Receipts::default(), Instant::now());
        assert_eq!(receipts.due(start, None, false), Due::Never);
        assert!(receipts.took(1, 10), "the first wakes the writer");
        assert!(!receipts.took(1, 10), "the writer knows");
        assert_eq!(receipts.due(start, None, false), Due::Now(2));
        receipts.told(2);
        assert!(receipts.took(1, 10));
        let told_at = Some(start);
        assert_eq!(receipts.due(start, told_at, false), Due::At(start + RECEIPT_DELAY));
        assert!(!receipts.took(1, 10), "it knows when to tell");
        assert!(receipts.took(RECEIPT_EVENTS, 10), "so many do not wait for the time");
        assert_eq!(receipts.due(start, told_at, false), Due::Now(4 + RECEIPT_EVENTS));
        receipts.told(4 + RECEIPT_EVENTS);
        assert!(receipts.took(1, RECEIPT_BYTES), "nor do so many bytes");
        assert_eq!(receipts.due(start, told_at, false), Due::Now(5 + RECEIPT_EVENTS));
        receipts.told(5 + RECEIPT_EVENTS);
        receipts.took(1, 1);
        assert_eq!(receipts.due(start, told_at, true), Due::Now(6 + RECEIPT_EVENTS), "nor does leaving");
    }
}
