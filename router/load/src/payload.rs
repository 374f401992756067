//! What is in an event: its number, when it was due, and whose it is. Written by publishers, checked by subscribers.

use crate::cell::{Cell, PAYLOAD_BYTES_MIN};
use crate::form::{Form, STAMP_BYTES};
use crate::progress::Progress;
use anyhow::Context;
use std::sync::atomic::Ordering::Relaxed;

/// Where the publisher's number stands, behind the event's number and its time.
const PUBLISHER_AT: usize = 16;

/// The payload of a publisher's events.
#[derive(Clone, Debug)]
pub struct Payload {
    bytes: Vec<u8>,
    form: Form,
    stamp: [u8; STAMP_BYTES],
    stamp_at: usize,
}

impl Payload {
    /// For the events of `publisher`.
    ///
    /// # Errors
    /// When there are more publishers than a number of 32 bits can tell apart.
    pub fn new(cell: &Cell, publisher: usize) -> anyhow::Result<Self> {
        Self::of(cell, publisher, Form::Raw)
    }

    /// The same in a form that a schema can speak of.
    ///
    /// # Errors
    /// Also where no payload of this form is as large as the cell says.
    pub fn of(cell: &Cell, publisher: usize, form: Form) -> anyhow::Result<Self> {
        let bytes = form.empty(cell.payload_bytes.max(PAYLOAD_BYTES_MIN))?;
        let mut stamp = [0; STAMP_BYTES];
        stamp[PUBLISHER_AT..].copy_from_slice(&u32::try_from(publisher)?.to_le_bytes());
        let stamp_at = form.stamp_at(bytes.len());
        Ok(Self { bytes, form, stamp, stamp_at })
    }

    /// The payload of event `seq`, which is due at `due_ns`.
    pub fn write(&mut self, seq: u64, due_ns: u64) -> &[u8] {
        self.stamp[0..8].copy_from_slice(&seq.to_le_bytes());
        self.stamp[8..PUBLISHER_AT].copy_from_slice(&due_ns.to_le_bytes());
        self.form.write(&mut self.bytes, self.stamp_at, &self.stamp);
        &self.bytes
    }

    /// How long it is.
    #[allow(clippy::len_without_is_empty, reason = "a payload has its stamp at least")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Checks the number of every event that one subscriber takes.
#[derive(Debug)]
pub struct Checker {
    subscriber: usize,
    /// The number of each publisher's next event.
    next: Vec<u64>,
    /// When the events since the last [`Checker::publish`] were due; only where the schedule is fixed.
    due_ns: Option<Vec<u64>>,
    events: u64,
    form: Form,
    stamp_at: usize,
}

impl Checker {
    /// For subscriber number `subscriber`. With `timed`, latencies are noted, too.
    pub fn new(cell: &Cell, subscriber: usize, timed: bool) -> Self {
        let (next, due_ns) = (vec![0; cell.publishers], timed.then(Vec::new));
        Self { subscriber, next, due_ns, events: 0, form: Form::Raw, stamp_at: 0 }
    }

    /// The same for payloads in another form, as large as those of `cell`.
    pub fn of_form(self, cell: &Cell, form: Form) -> Self {
        Self { form, stamp_at: form.stamp_at(cell.payload_bytes.max(PAYLOAD_BYTES_MIN)), ..self }
    }

    /// Takes the payload of an event.
    ///
    /// # Errors
    /// When it is none that a publisher of this run has written.
    pub fn take(&mut self, progress: &Progress, payload: &[u8]) -> anyhow::Result<()> {
        let stamp = self.form.read(payload, self.stamp_at).context("an event that nobody here published")?;
        let word = |at: usize| stamp[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let (seq, due_ns) = (word(0), word(8));
        let publisher = stamp[PUBLISHER_AT..].try_into().map_or(0, u32::from_le_bytes) as usize;
        let next = self.next.get_mut(publisher).context("an event of a publisher that is not there")?;
        if seq == *next {
            *next += 1;
        } else if seq > *next {
            progress.gaps.fetch_add(seq - *next, Relaxed);
            *next = seq + 1;
        } else {
            progress.doubled.fetch_add(1, Relaxed);
        }
        self.events += 1;
        if let Some(due) = &mut self.due_ns {
            due.push(due_ns);
        }
        Ok(())
    }

    /// Tells everybody what was taken since the last time; `now_ns` is when it arrived.
    pub fn publish(&mut self, progress: &Progress, now_ns: u64) {
        if std::mem::take(&mut self.events) > 0 {
            for (publisher, next) in self.next.iter().enumerate() {
                progress.took(self.subscriber, publisher, *next);
            }
        }
        if let Some(due) = &mut self.due_ns
            && !due.is_empty()
        {
            progress.arrived(due, now_ns);
            due.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_and_a_doubled_event_are_noticed() {
        let cell = Cell { payload_bytes: 128, publishers: 2, subscribers: 1 };
        let (progress, mut checker) = (Progress::new(&cell), Checker::new(&cell, 0, false));
        let mut second = Payload::new(&cell, 1).expect("a small number");
        for seq in [0, 1, 3, 3] {
            checker.take(&progress, second.write(seq, 0)).expect("one of ours");
        }
        checker.publish(&progress, 0);
        assert_eq!((progress.gaps.load(Relaxed), progress.doubled.load(Relaxed), progress.delivered()), (1, 1, 4));
        assert!(checker.take(&progress, &[0; 19]).is_err());
        let mut third = Payload::new(&cell, 2).expect("a small number");
        assert!(checker.take(&progress, third.write(0, 0)).is_err(), "there are two publishers");
    }
}
