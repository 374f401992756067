//! A worker's records: the newest ones, bounded in number, bytes and rate.

use super::{Record, TraceId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records that a worker keeps: what some hundred events leave at it.
pub const RECORDS_MAX: usize = 4_096;
/// Bytes that they may take.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Records that a worker makes in a second, and at once after a pause. Each costs some microseconds: at this rate less
/// than one per cent of its time, whoever marks all events as sampled.
pub const RECORDS_PER_SECOND_MAX: u32 = 1_000;

/// Records of a ring, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub struct Portion {
    /// The records.
    pub records: Vec<Arc<Record>>,
    /// Where the next portion begins.
    pub next: u64,
    /// Records before these that nobody can have any more: they have made room.
    pub overwritten: u64,
}

/// The records of one worker. The oldest make room for new ones.
#[derive(Debug)]
pub struct Ring {
    /// Shared with whoever asks for them, so that the worker copies none.
    records: VecDeque<Arc<Record>>,
    /// Records that were ever kept: the number of the next.
    kept: u64,
    bytes: usize,
    tokens: u32,
    /// Until when tokens were counted.
    counted: Instant,
    /// Records that were over the rate, and so not made.
    not_recorded: u64,
}

impl Ring {
    /// An empty ring.
    pub fn new(now: Instant) -> Self {
        Self {
            records: VecDeque::new(),
            kept: 0,
            bytes: 0,
            tokens: RECORDS_PER_SECOND_MAX,
            counted: now,
            not_recorded: 0,
        }
    }

    /// Whether another record may be made at `now`; looked at before its parts are put together.
    pub fn has_room(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.counted);
        let more = elapsed.as_micros() * u128::from(RECORDS_PER_SECOND_MAX) / 1_000_000;
        if more > 0 {
            // No more than fit: what is left of a token is counted next time, what is left of a long pause is not.
            let more = u32::try_from(more).unwrap_or(u32::MAX).min(RECORDS_PER_SECOND_MAX);
            self.tokens = self.tokens.saturating_add(more).min(RECORDS_PER_SECOND_MAX);
            self.counted += Duration::from_secs(1) * more / RECORDS_PER_SECOND_MAX;
            if self.tokens == RECORDS_PER_SECOND_MAX {
                self.counted = now;
            }
        }
        self.tokens > 0
    }

    /// Counts records that are not made.
    pub fn skip(&mut self, records: u64) {
        self.not_recorded += records;
    }

    /// Keeps a record that there was room for.
    pub fn push(&mut self, record: Record) {
        self.tokens = self.tokens.saturating_sub(1);
        self.bytes += record.bytes();
        self.records.push_back(Arc::new(record));
        self.kept += 1;
        while self.records.len() > RECORDS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }

    /// The records of a trace, oldest first.
    pub fn find(&self, trace: TraceId) -> Vec<Arc<Record>> {
        self.records.iter().filter(|record| record.trace_id == trace).cloned().collect()
    }

    /// At most `max` of the records from number `from` on, oldest first.
    pub fn since(&self, from: u64, max: usize) -> Portion {
        let oldest = self.kept - self.records.len() as u64;
        let begin = from.clamp(oldest, self.kept);
        let at = usize::try_from(begin - oldest).unwrap_or(usize::MAX).min(self.records.len());
        let end = self.records.len().min(at.saturating_add(max));
        let records: Vec<_> = self.records.range(at..end).cloned().collect();
        Portion { next: begin + records.len() as u64, records, overwritten: begin.saturating_sub(from) }
    }

    /// Records that were over the rate since the start.
    pub fn not_recorded(&self) -> u64 {
        self.not_recorded
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn the_oldest_make_room_in_number_and_in_bytes() {
        let (mut ring, trace, other) = (Ring::new(Instant::now()), TraceId::random(), TraceId::random());
        ring.push(record(other, "first"));
        for _ in 0..RECORDS_MAX - 1 {
            ring.push(record(trace, "a"));
        }
        assert_eq!((ring.find(other).len(), ring.find(trace).len()), (1, RECORDS_MAX - 1));
        ring.push(record(trace, "a"));
        assert_eq!((ring.find(other).len(), ring.find(trace).len()), (0, RECORDS_MAX));
        // Records of a quarter of the bytes each.
        for _ in 0..5 {
            ring.push(record(other, &"x".repeat(BYTES_MAX / 4)));
        }
        assert!(ring.bytes <= BYTES_MAX && ring.find(other).len() == 3, "{} bytes", ring.bytes);
        ring.push(record(other, &"x".repeat(2 * BYTES_MAX)));
        assert_eq!((ring.bytes, ring.records.len()), (0, 0), "one that is too large alone is not kept");
        ring.push(record(other, "a"));
        assert_eq!(ring.find(other).len(), 1);
    }

    #[test]
    fn whoever_comes_back_gets_what_is_new_and_learns_what_is_gone() {
        let (mut ring, trace) = (Ring::new(Instant::now()), TraceId::random());
        let make = |ring: &mut Ring, count: usize| {
            for number in 0..count {
                ring.push(record(trace, &number.to_string()));
            }
        };
        let read = |ring: &Ring, from: u64, max: usize| {
            let Portion { records, next, overwritten } = ring.since(from, max);
            (records.iter().map(|record| record.topic.clone()).collect::<Vec<_>>(), next, overwritten)
        };
        assert_eq!(read(&ring, 0, 10), (vec![], 0, 0));
        make(&mut ring, 3);
        assert_eq!(read(&ring, 0, 2), (vec!["0".to_owned(), "1".to_owned()], 2, 0));
        assert_eq!(read(&ring, 2, 2), (vec!["2".to_owned()], 3, 0));
        assert_eq!(read(&ring, 3, 2), (vec![], 3, 0));
        make(&mut ring, RECORDS_MAX + 5);
        assert_eq!(read(&ring, 3, 1), (vec!["5".to_owned()], 9, 5), "five had to make room");
        assert_eq!(read(&ring, u64::MAX, 1).0.len(), 0, "of no record yet");
        // One that is too large alone is gone at once, and counted like all others.
        let next = ring.since(0, usize::MAX).next;
        ring.push(record(trace, &"x".repeat(2 * BYTES_MAX)));
        assert_eq!(read(&ring, next, 1), (vec![], next + 1, 1));
    }

    #[test]
    fn no_more_are_made_than_the_rate_allows_and_the_rest_is_counted() {
        let begin = Instant::now();
        let (mut ring, trace) = (Ring::new(begin), TraceId::random());
        let mut make = |now: Instant, count: u32| {
            let mut made = 0;
            for _ in 0..count {
                if ring.has_room(now) {
                    ring.push(record(trace, "a"));
                    made += 1;
                } else {
                    ring.skip(1);
                }
            }
            (made, ring.not_recorded())
        };
        assert_eq!(make(begin, RECORDS_PER_SECOND_MAX + 5), (RECORDS_PER_SECOND_MAX, 5));
        assert_eq!(make(begin + Duration::from_millis(100), 200), (RECORDS_PER_SECOND_MAX / 10, 105));
        assert_eq!(
            make(begin + Duration::from_secs(60), 2_000).0,
            RECORDS_PER_SECOND_MAX,
            "no more after a long pause"
        );
        // Looking often does not lose parts of a token: 1,200 looks in 840 ms.
        let (mut ring, mut made) = (Ring::new(begin), 0);
        for _ in 0..RECORDS_PER_SECOND_MAX {
            ring.push(record(trace, "a"));
        }
        for step in 1..=1_200u64 {
            if ring.has_room(begin + Duration::from_micros(700 * step)) {
                ring.push(record(trace, "a"));
                made += 1;
            }
        }
        assert_eq!(made, 840);
    }
}
