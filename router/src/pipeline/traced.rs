//! What is written down about the sampled events of a publisher's batch; see [`crate::trace`].

use super::topics::Announced;
use super::{Admitted, Passing, Publisher, Received};
use crate::derived;
use crate::hops::{self, Placed};
use crate::local::{Local, Route, TopicEntry};
use crate::trace::Watch;
use myelin_wire::event::EventSpan;
use myelin_wire::{Code, Refusal};
use std::ops::Range;
use std::time::Instant;

impl Publisher {
    /// Looks at the sampled events of the batch on their way, if the rate allows for records.
    #[cold]
    pub(super) fn watch(&mut self, local: &Local, time_ns: u64) {
        let count = self.sampled.take();
        let mut ring = local.traces.borrow_mut();
        if ring.has_room(Instant::now()) {
            let watch = Watch::new(self.source.name.text.clone(), time_ns, None);
            self.bench.verdicts.watch = Some(Box::new(watch));
        } else {
            ring.skip(u64::from(count));
        }
    }

    /// Notes that admission refused an event, where it is sampled.
    #[cold]
    pub(super) fn tell_refused(&self, local: &Local, span: &EventSpan, refusal: &Refusal) {
        let topic = match self.topics.get(span.head.topic_ref) {
            Announced::Topic(topic, _) => &*topic.name.text,
            Announced::Refused(..) | Announced::Nothing => "",
        };
        let (attrs, why) = (span.attrs(self.decoder.buffer()), (refusal.code.name(), &*refusal.message));
        hops::refused(local, &self.source.name.text, (topic, attrs), why);
    }

    /// Notes that the sampled ones of these events may not be at this site.
    #[cold]
    pub(super) fn tell_turned_away(&mut self, local: &Local, events: Range<usize>) {
        let received = Received { topics: &self.topics, events: &self.batch[events] };
        let (buffer, identity) = (self.decoder.buffer(), &*self.source.name.text);
        for event in received.events {
            let (view, watch) = (received.view(event, buffer, identity), self.bench.verdicts.watch.as_deref_mut());
            hops::not_allowed(local, watch, &view, Some(event.seq), (Code::Residency, derived::NOT_HERE));
        }
    }

    /// Notes where an event goes that its filters let go on, where it is sampled.
    #[cold]
    pub(super) fn tell_placed(&mut self, local: &Local, generation: u64, item: &Passing) {
        let Some(watch) = &mut self.bench.verdicts.watch else { return };
        let received = item.span.map(|span| span.attrs(self.decoder.buffer()));
        let attrs = received.or(item.attrs.as_deref()).unwrap_or_default();
        let (topic, route) = (&*item.topic.name.text, &*item.route);
        hops::placed(local, watch, generation, Placed { topic, attrs, key: item.seq, route, ahead: 0 });
    }

    /// Notes where the sampled ones of these events go, which no filter has touched.
    #[cold]
    pub(super) fn tell_passed(
        &mut self,
        local: &Local,
        generation: u64,
        topic: &TopicEntry,
        route: &Route,
        events: Range<usize>,
    ) {
        let Some(watch) = &mut self.bench.verdicts.watch else { return };
        for (ahead, Admitted { seq, span }) in (0..).zip(&self.batch[events]) {
            let attrs = span.attrs(self.decoder.buffer());
            let event = Placed { topic: &topic.name.text, attrs, key: Some(*seq), route, ahead };
            hops::placed(local, watch, generation, event);
        }
    }
}
