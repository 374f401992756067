//! What is kept of the sampled events of one batch until each is handed out or ends.

use super::{EventId, Sampled, SpanId, SpanOf, Verdict};
use std::sync::Arc;
use std::time::Instant;

/// Verdicts that wait for their events: a batch is bounded, and so are the bindings that judge it.
const PENDING_MAX: usize = 16 * 1024;

/// The router that sent a batch here, and the stamp that it came with.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The neighbour, as `SITE/ROUTER`.
    pub from: String,
    /// Number, epoch and shard of the origin; the sequence number is each event's own.
    pub origin: EventId,
    /// The sites that copies go on to from here.
    pub onward: Vec<String>,
}

/// A batch with sampled events, on its way through this router.
#[derive(Debug)]
pub struct Watch {
    /// When it came in.
    pub begin: Instant,
    /// The same in Unix nanoseconds.
    pub begin_unix_ns: u64,
    /// Who published it.
    pub publisher: Arc<str>,
    /// Where it came from; none where it was published here.
    pub arrival: Option<Arrival>,
    /// For each event that a chain is about to judge, which it is: its place in the publish stream, or the sequence number
    /// that it came with. None for what filters made.
    pub keys: Vec<Option<u64>>,
    pending: Vec<(Option<u64>, Verdict)>,
}

impl Watch {
    /// Of a batch that `publisher` sent, or another router.
    pub fn new(publisher: Arc<str>, begin_unix_ns: u64, arrival: Option<Arrival>) -> Self {
        Self { begin: Instant::now(), begin_unix_ns, publisher, arrival, keys: Vec::new(), pending: Vec::new() }
    }

    /// Notes a verdict about the event that stands at `at` of those being judged.
    pub fn note(&mut self, at: usize, verdict: Verdict) {
        if self.pending.len() < PENDING_MAX {
            self.pending.push((self.keys.get(at).copied().flatten(), verdict));
        }
    }

    /// Takes the verdicts about an event, in the order in which they were noted.
    pub fn take(&mut self, key: Option<u64>) -> Vec<Verdict> {
        self.pending.extract_if(.., |(of, _)| *of == key).map(|(_, verdict)| verdict).collect()
    }

    /// The span that an event at this router belongs to.
    pub fn parent(&self, sampled: &Sampled, key: Option<u64>, here: &str) -> SpanId {
        match (&self.arrival, key) {
            (Some(arrival), Some(seq)) => {
                sampled.span(EventId { seq, ..arrival.origin }, &arrival.from, SpanOf::Link(here))
            }
            _ => sampled.parent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_wait_for_their_own_event() {
        let mut watch = Watch::new("i".into(), 0, None);
        watch.keys = vec![Some(7), None, Some(9)];
        for (at, binding) in [(0, "a"), (1, "b"), (2, "c"), (0, "d"), (5, "e")] {
            watch.note(at, Verdict { binding: binding.into(), ..Verdict::default() });
        }
        let mut take = |key| watch.take(key).into_iter().map(|verdict| verdict.binding).collect::<Vec<_>>();
        assert_eq!((take(Some(7)), take(Some(7)).len()), (vec!["a".to_owned(), "d".to_owned()], 0));
        assert_eq!((take(Some(9)), take(None)), (vec!["c".to_owned()], vec!["b".to_owned(), "e".to_owned()]));
        (0..PENDING_MAX + 10).for_each(|_| watch.note(0, Verdict::default()));
        assert_eq!(watch.take(Some(7)).len(), PENDING_MAX);
    }

    #[test]
    fn what_came_by_a_link_belongs_to_the_copy_that_was_sent() {
        let sampled = Sampled { trace: super::super::TraceId::random(), parent: SpanId::random() };
        let origin = EventId { router: 4, epoch: 1, shard: 0, seq: 0 };
        let arrival = Arrival { from: "eu/r1".into(), origin, onward: Vec::new() };
        let watch = Watch::new("i".into(), 0, Some(arrival));
        let sent = sampled.span(EventId { seq: 12, ..origin }, "eu/r1", SpanOf::Link("us/r1"));
        assert_eq!(watch.parent(&sampled, Some(12), "us/r1"), sent);
        assert_eq!(watch.parent(&sampled, None, "us/r1"), sampled.parent, "made by a filter");
    }
}
