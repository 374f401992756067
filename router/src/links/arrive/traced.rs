//! What is written down about the sampled events of a batch that another router sent; see [`crate::trace`].

use super::{Arrivals, Link};
use crate::derived::{Passing, Verdicts};
use crate::hops::{self, Placed};
use crate::local::{Local, Route, TopicEntry};
use crate::names::Name;
use crate::shared::unix_ns;
use crate::trace::{Arrival, EventId, Watch};
use bytes::Bytes;
use myelin_mesh::{BatchHead, SiteSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

impl Arrivals {
    /// Looks at the sampled events of a batch on their way, if the rate allows for records. After
    /// [`super::Splitter::split`] of its stamp.
    #[cold]
    pub(super) fn watch(&mut self, local: &Local, link: &Link, head: &BatchHead, source: Option<&Arc<Name>>) {
        let count = std::mem::take(&mut self.sampled);
        let mut ring = local.traces.borrow_mut();
        if !ring.has_room(Instant::now()) {
            return ring.skip(u64::from(count));
        }
        let (stamp, copies) = (&head.stamp, &self.splitter.split.copies);
        let onward = copies.iter().fold(SiteSet::EMPTY, |all, copy| all | &copy.stamp.destinations());
        let arrival = Arrival {
            from: format!("{}/{}", link.site(), link.router()),
            origin: EventId { router: stamp.origin.0, epoch: stamp.epoch, shard: stamp.shard, seq: stamp.seq },
            onward: hops::site_names(local, &onward),
        };
        let publisher = source.map_or_else(|| Arc::from(""), |name| name.text.clone());
        self.bench.verdicts.watch = Some(Box::new(Watch::new(publisher, unix_ns(), Some(arrival))));
    }

    /// Notes that the sampled ones of a batch go on, and to nobody here.
    #[cold]
    pub(super) fn tell_passed_on(&self, local: &Local, head: &BatchHead, events: &Bytes) {
        let Some(watch) = &self.bench.verdicts.watch else { return };
        for (seq, (span, topic)) in (head.stamp.seq..).zip(&self.events) {
            hops::passed_on(local, watch, (&topic.name.text, span.attrs(events)), seq);
        }
    }

    /// Notes where the sampled ones of these events go, which no filter judges here.
    #[cold]
    pub(super) fn tell_passed(
        &mut self,
        local: &Local,
        generation: u64,
        head: &BatchHead,
        (topic, route): (&TopicEntry, &Route),
        range: Range<usize>,
        events: &Bytes,
    ) {
        let Some(watch) = &mut self.bench.verdicts.watch else { return };
        for at in range {
            let (attrs, key) = (self.events[at].0.attrs(events), Some(head.stamp.seq + at as u64));
            hops::placed(local, watch, generation, Placed { topic: &topic.name.text, attrs, key, route, ahead: 0 });
        }
    }
}

/// Notes where an event goes that its filters let go on, where it is sampled.
#[inline]
pub(super) fn tell_placed(local: &Local, verdicts: &mut Verdicts, generation: u64, buffer: &[u8], item: &Passing) {
    let Some(watch) = &mut verdicts.watch else { return };
    let received = item.span.map(|span| span.attrs(buffer));
    let attrs = received.or(item.attrs.as_deref()).unwrap_or_default();
    let (topic, route) = (&*item.topic.name.text, &*item.route);
    hops::placed(local, watch, generation, Placed { topic, attrs, key: item.seq, route, ahead: 0 });
}
