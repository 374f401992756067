//! Batches: what the router hands to a chain, and what a filter gets to see of it.

use std::sync::Arc;

use crate::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};

/// One event as the router holds it: everything borrowed, already validated at admission.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventView<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The attribute block.
    pub attrs: &'a [u8],
    /// The whole payload.
    pub payload: &'a [u8],
    /// The publisher's identity.
    pub identity: &'a str,
}

/// Why events are no batch: the caller has to split them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// More events than a verdict list may be long.
    #[error("{0} events in a batch: at most {BATCH_EVENTS_MAX} are allowed")]
    TooManyEvents(usize),
    /// More than one event, and too many bytes.
    #[error("{0} bytes in a batch of several events: at most {BATCH_BYTES_MAX} are allowed")]
    TooManyBytes(usize),
}

/// A batch: 1 to 64 events of at most 256 KiB, or one larger event. Time comes from the caller.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    events: &'a [EventView<'a>],
    now_unix_ns: u64,
    now_ms: u64,
}

impl<'a> Batch<'a> {
    /// A batch of `events`; `now_unix_ns` is what the filters see, `now_ms` is monotonic and counts faults and logs.
    ///
    /// # Errors
    /// [`BatchError`] when the events are too many or too large for one batch.
    pub fn new(events: &'a [EventView<'a>], now_unix_ns: u64, now_ms: u64) -> Result<Self, BatchError> {
        if events.len() > BATCH_EVENTS_MAX {
            return Err(BatchError::TooManyEvents(events.len()));
        }
        let size =
            |event: &EventView<'_>| event.topic.len() + event.attrs.len() + event.payload.len() + event.identity.len();
        let bytes: usize = events.iter().map(size).sum();
        if events.len() > 1 && bytes > BATCH_BYTES_MAX {
            return Err(BatchError::TooManyBytes(bytes));
        }
        Ok(Self { events, now_unix_ns, now_ms })
    }

    /// The events.
    pub fn events(&self) -> &'a [EventView<'a>] {
        self.events
    }

    /// The batch's time, Unix nanoseconds.
    pub fn now_unix_ns(&self) -> u64 {
        self.now_unix_ns
    }

    /// The batch's monotonic time, milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }
}

/// Copies of the whole payloads of a batch, for filters that fetch them with `host.payload`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Payloads {
    /// Forgets all payloads and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Appends the next event's payload.
    pub fn push(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len());
    }

    /// How many payloads there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The payload of the event at `index`.
    pub fn payload(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.bytes.get(start..end)
    }
}

/// What a filter gets: the arena with what it needs, and the batch's only clock.
#[derive(Clone, Copy, Debug)]
pub struct FilterBatch<'a> {
    /// The events in arena layout, projected to the filter's needs.
    pub arena: &'a [u8],
    /// How many events there are.
    pub count: u32,
    /// Unix time in nanoseconds.
    pub now_unix_ns: u64,
    /// Monotonic milliseconds, for rate limits of the host.
    pub now_ms: u64,
    /// The whole payloads, where the filter [reads](crate::Filter::reads_payloads) them through the host.
    pub payloads: Option<&'a Arc<Payloads>>,
    /// The thread's CPU clock at the beginning of the call, where somebody has read it.
    pub cpu_start_ns: Option<u64>,
    /// Whether the notes shall say what was asked of the host.
    pub record_calls: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_bounded_in_events_and_bytes() {
        let event = EventView { topic: "a", ..EventView::default() };
        assert!(Batch::new(&[event; 64], 0, 0).is_ok());
        assert_eq!(Batch::new(&[event; 65], 0, 0).err(), Some(BatchError::TooManyEvents(65)));
        let payload = vec![0; BATCH_BYTES_MAX];
        let large = EventView { payload: &payload, ..event };
        assert!(Batch::new(&[large], 0, 0).is_ok(), "one larger event may pass");
        assert_eq!(Batch::new(&[large, event], 0, 0).err(), Some(BatchError::TooManyBytes(BATCH_BYTES_MAX + 2)));
    }

    #[test]
    fn payloads_are_found_by_index() {
        let mut payloads = Payloads::default();
        [&b"ab"[..], b"", b"cde"].iter().for_each(|payload| payloads.push(payload));
        assert_eq!(payloads.payload(0), Some(&b"ab"[..]));
        assert_eq!(payloads.payload(1), Some(&b""[..]));
        assert_eq!(payloads.payload(2), Some(&b"cde"[..]));
        assert_eq!(payloads.payload(3), None);
    }
}
