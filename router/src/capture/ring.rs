//! The ring of one capture: lines of its file, bounded in bytes and in events.

use super::file::{Batch, Bound, End, Line};
use super::read::BINDINGS_MAX;
use super::spec::{CaptureSpec, Keep, Sample};
use bytes::Bytes;
use std::collections::VecDeque;

/// What a line costs beside its bytes: its place in the ring and its allocation.
const LINE_OVERHEAD_BYTES: u64 = 64;
/// Bytes of the bound that are left for the head and the end.
pub(super) const FRAME_BYTES: u64 = 16 << 10;

/// Why a capture is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Stopped,
    Time,
    Full,
}

impl Over {
    pub(super) fn as_str(over: Option<Self>) -> &'static str {
        match over {
            None => "running",
            Some(Self::Stopped) => "stopped",
            Some(Self::Time) => "time",
            Some(Self::Full) => "full",
        }
    }
}

struct Kept {
    line: Bytes,
    events: u64,
}

/// What a capture keeps, and what it has left out.
pub(super) struct Ring {
    bytes_max: u64,
    events_max: u64,
    keep: Keep,
    kept: VecDeque<Kept>,
    bindings: Vec<(Bound, Bytes)>,
    pub(super) bytes: u64,
    pub(super) events: u64,
    pub(super) evicted: u64,
    pub(super) sampled_out: u64,
    pub(super) too_large: u64,
    pub(super) over: Option<Over>,
    next: u64,
    sampler: Sampler,
}

impl Ring {
    pub(super) fn new(spec: &CaptureSpec, sample: Sample) -> Self {
        Self {
            bytes_max: spec.bytes_max - FRAME_BYTES,
            events_max: spec.events_max,
            keep: spec.keep,
            kept: VecDeque::new(),
            bindings: Vec::new(),
            bytes: 0,
            events: 0,
            evicted: 0,
            sampled_out: 0,
            too_large: 0,
            over: None,
            next: 0,
            sampler: Sampler { sample, credit: 0, filled_ms: None },
        }
    }

    /// Whether a batch with so many matching events is to be recorded.
    pub(super) fn wants(&mut self, events: u64, now_ms: u64) -> bool {
        let wants = self.sampler.takes(events, now_ms);
        if !wants {
            self.sampled_out += events;
        }
        wants
    }

    /// The place of `bound` among the bindings; `None` where it does not fit any more.
    pub(super) fn place(&mut self, bound: &Bound) -> Option<usize> {
        if let Some(place) = self.bindings.iter().position(|(known, _)| known == bound) {
            return Some(place);
        }
        let line = Bytes::from(Line::Binding(bound.clone()).bytes());
        let cost = cost(&line);
        if self.bindings.len() == BINDINGS_MAX || self.bytes + cost > self.bytes_max {
            self.over = Some(Over::Full);
            return None;
        }
        self.bytes += cost;
        self.bindings.push((bound.clone(), line));
        Some(self.bindings.len() - 1)
    }

    /// Keeps a batch, in the place of older ones where it must and may be. None where it is over: a filter that runs
    /// apart may answer later.
    pub(super) fn push(&mut self, mut batch: Batch) {
        if self.over.is_some() {
            return;
        }
        let room = match self.keep {
            Keep::First => self.events_max - self.events,
            Keep::Last => self.events_max,
        };
        // Those beyond the bound stay as neighbours of those within it.
        let matched = batch.events.iter_mut().filter(|event| event.matched);
        matched.skip(usize::try_from(room).unwrap_or(usize::MAX)).for_each(|event| event.matched = false);
        batch.number = self.next;
        self.next += 1;
        let events = batch.matched() as u64;
        let line = Bytes::from(Line::Batch(batch).bytes());
        let cost = cost(&line);
        let fixed: u64 = self.bindings.iter().map(|(_, line)| self::cost(line)).sum();
        if fixed + cost > self.bytes_max {
            self.too_large += events;
            return;
        }
        while self.bytes + cost > self.bytes_max || self.events + events > self.events_max {
            match (self.keep, self.kept.pop_front()) {
                (Keep::Last, Some(oldest)) => {
                    self.bytes -= self::cost(&oldest.line);
                    self.events -= oldest.events;
                    self.evicted += oldest.events;
                }
                (_, first) => {
                    // It stays: only the newest are left out.
                    first.into_iter().for_each(|first| self.kept.push_front(first));
                    self.over = Some(Over::Full);
                    return;
                }
            }
        }
        self.bytes += cost;
        self.events += events;
        self.kept.push_back(Kept { line, events });
        if self.keep == Keep::First && self.events == self.events_max {
            self.over = Some(Over::Full);
        }
    }

    pub(super) fn batches(&self) -> u64 {
        self.kept.len() as u64
    }

    /// The lines of the file after its head.
    pub(super) fn lines(&self) -> Vec<Bytes> {
        let end = End {
            state: Over::as_str(self.over).to_owned(),
            batches: self.batches(),
            events: self.events,
            evicted: self.evicted,
            sampled_out: self.sampled_out,
            too_large: self.too_large,
        };
        let bindings = self.bindings.iter().map(|(_, line)| line.clone());
        let batches = self.kept.iter().map(|kept| kept.line.clone());
        bindings.chain(batches).chain([Line::End(end).bytes().into()]).collect()
    }
}

fn cost(line: &Bytes) -> u64 {
    line.len() as u64 + LINE_OVERHEAD_BYTES
}

/// Which batches are taken, so that the share or the rate of events comes out right in the long run. It draws no random
/// numbers: what it owes is carried over.
pub(crate) struct Sampler {
    sample: Sample,
    /// Events that may be taken, in millionths; what a batch took too many is owed.
    credit: i64,
    filled_ms: Option<u64>,
}

/// Millionths of an event.
const WHOLE: i64 = 1_000_000;

impl Sampler {
    /// Takes so many of a hundred events.
    pub(crate) fn percent(percent: u8) -> Self {
        let millionths = u64::from(percent) * WHOLE.unsigned_abs() / 100;
        let sample = if percent < 100 { Sample::Share(millionths) } else { Sample::All };
        Self { sample, credit: 0, filled_ms: None }
    }

    /// Whether a batch of so many events is taken.
    pub(crate) fn takes(&mut self, events: u64, now_ms: u64) -> bool {
        let events = i64::try_from(events).unwrap_or(i64::MAX / WHOLE).min(i64::MAX / WHOLE);
        match self.sample {
            Sample::All => return true,
            Sample::Share(millionths) => {
                self.credit = self.credit.saturating_add(events * i64::try_from(millionths).unwrap_or(WHOLE));
                // One whole event that is owed takes the batch that it falls into, large or small.
                if self.credit < WHOLE {
                    return false;
                }
            }
            Sample::Rate(per_second) => {
                let full = i64::try_from(per_second).unwrap_or(i64::MAX / WHOLE) * WHOLE;
                let passed = self.filled_ms.map_or(1_000, |filled| now_ms.saturating_sub(filled).min(1_000));
                self.filled_ms = Some(now_ms);
                let gained = full / 1_000 * i64::try_from(passed).unwrap_or(1_000);
                self.credit = self.credit.saturating_add(gained).min(full);
                if self.credit < WHOLE {
                    return false;
                }
            }
        }
        self.credit -= events * WHOLE;
        true
    }
}

#[cfg(test)]
#[path = "ring/tests.rs"]
mod tests;
