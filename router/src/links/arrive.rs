//! Batches that another router sent: each event once, to this site's subscribers and on to where else it goes.
//!
//! No admission and no ingress filters: its origin has judged it. What leaves to subscribers here passes the egress
//! filters of this router's own generation.

mod traced;

use super::forward::{Splitter, add_copies};
use super::link::Link;
use super::queue::Outgoing;
use super::state::Links;
use crate::derived::{self, DERIVED_PER_BATCH_MAX, Judge, Passing, Workbench};
use crate::fanout::{Fanout, Place};
use crate::generation::Active;
use crate::ledger::Term;
use crate::local::{Local, Route, TopicEntry};
use crate::names::Name;
use crate::outbox::{Delivery, Elsewhere, Gauge, NameSet, Origin};
use crate::screen::Waiting;
use crate::shared::unix_ns;
use crate::trace;
use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use myelin_mesh::{Batch, BatchDecoder, BatchHead, LocalDelivery, Source, Stamp, Violation, ViolationCode};
use myelin_wire::event::{EventSpan, FLAG_TTL, TOPIC_REF_AT};
use myelin_wire::validate_topic;
use smallvec::SmallVec;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use traced::tell_placed;

/// Names that one stream may announce in all: those of sixteen busy workers.
const NAMES_MAX: usize = 16 * 65_536;
/// Bytes of these names: a million of the usual length.
const NAMES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Routes that are kept for one stream; all are forgotten when there are more.
const ROUTES_MAX: usize = 16_384;
/// Events of one topic that are judged in one go; filters bound a batch.
const EVENTS_PER_CHAIN: usize = myelin_engine::limits::BATCH_EVENTS_MAX;

/// Which subscribers of a topic are meant: plain ones, and members of these groups.
type RouteKey = (u32, bool, SmallVec<[u32; 2]>);

/// What one incoming stream keeps.
pub(super) struct Arrivals {
    decoder: BatchDecoder,
    names: HashMap<u32, Rc<TopicEntry>, foldhash::fast::RandomState>,
    names_bytes: usize,
    routes: HashMap<RouteKey, (Arc<Name>, Rc<Route>), foldhash::fast::RandomState>,
    splitter: Splitter,
    /// The events of a batch, with their topics.
    events: Vec<(EventSpan, Rc<TopicEntry>)>,
    admitted: Vec<u32>,
    fanout: Fanout,
    /// What egress filters made: events of this router's own.
    own: Fanout,
    bench: Workbench,
    items: Vec<Passing>,
    full: Vec<Arc<Gauge>>,
    /// Events of the batch that are sampled for tracing.
    sampled: u32,
}

impl Arrivals {
    pub(super) fn new(local: &Local) -> Self {
        Self {
            decoder: BatchDecoder::new(local.shared.limits.delivered_len_max()),
            names: HashMap::default(),
            names_bytes: 0,
            routes: HashMap::default(),
            splitter: Splitter::default(),
            events: Vec::new(),
            admitted: Vec::new(),
            fanout: Fanout::default(),
            own: Fanout::default(),
            bench: Workbench::default(),
            items: Vec::new(),
            full: Vec::new(),
            sampled: 0,
        }
    }
}

/// Takes bytes of a stream, and every batch that is whole with them.
///
/// # Errors
/// What broke the protocol; the link ends with it.
pub(super) async fn take(links: &Links, link: &Link, arrivals: &mut Arrivals, bytes: &Bytes) -> Result<(), Violation> {
    arrivals.decoder.push(bytes);
    while let Some(batch) = arrivals.decoder.poll()? {
        link.came(batch.head.count);
        arrivals.take_batch(links, link, batch).await?;
    }
    Ok(())
}

impl Arrivals {
    async fn take_batch(&mut self, links: &Links, link: &Link, batch: Batch) -> Result<(), Violation> {
        self.learn(&links.local, &batch)?;
        let stamp = &batch.head.stamp;
        let split = self.splitter.split(links, stamp).and_then(|()| self.check_origin(links, stamp));
        if let Err(violation) = split {
            links.count_violation(&violation);
            let (generation, count) = (links.local.active().number, u64::from(batch.head.count));
            links.local.ledger.add(generation, Term::Received, count);
            links.local.ledger.add(generation, Term::Rejected, count);
            return if violation.code.closes_link() { Err(violation) } else { Ok(()) };
        }
        self.count_left_out(links, stamp);
        if self.splitter.split.local.is_none() {
            // On its way to other sites only: they know what they have had.
            return self.take_piece(links, link, &batch.head, batch.events).await;
        }
        let source = Source { origin: stamp.origin, epoch: stamp.epoch, shard: stamp.shard };
        let tally = links.window.borrow_mut().admit(source, stamp.seq, batch.head.count, &mut self.admitted);
        let again = u64::from(tally.duplicates + tally.too_old);
        links.counters.duplicates.set(links.counters.duplicates.get() + again);
        if again == 0 {
            return self.take_piece(links, link, &batch.head, batch.events).await;
        }
        // Only some of it is new, or nothing, which takes a change of the routes at the wrong moment: what is, run by
        // run. What is for sites beyond as well goes on whole, as if it were for them alone.
        let local = self.splitter.split.local.take();
        if !self.splitter.split.copies.is_empty() {
            self.take_piece(links, link, &batch.head, batch.events.clone()).await?;
        }
        let spans: Vec<EventSpan> = batch.spans().collect();
        let admitted = std::mem::take(&mut self.admitted);
        for run in admitted.chunk_by(|a, b| a + 1 == *b) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let range = spans[*first as usize].range().start..spans[*last as usize].range().end;
            let mut head = batch.head.clone();
            head.stamp.seq += u64::from(*first);
            head.count = u32::try_from(run.len()).unwrap_or(u32::MAX);
            self.splitter.split.local.clone_from(&local);
            self.take_piece(links, link, &head, batch.events.slice(range)).await?;
        }
        Ok(())
    }

    /// Events come from members, and what a router published does not come back to its own site.
    fn check_origin(&self, links: &Links, stamp: &Stamp) -> Result<(), Violation> {
        let origin = stamp.origin;
        let message = if links.read(|mesh| mesh.directory().router(origin).is_none()) {
            format!("events of router {origin}, which is no member")
        } else if origin.0 == links.local.shared.origin && self.splitter.split.local.is_some() {
            "events of this very router for its own site".to_owned()
        } else {
            return Ok(());
        };
        Err(Violation::new(ViolationCode::Hearsay, message))
    }

    /// Counts sites that a batch names and that get no copy: the rest of it goes on.
    fn count_left_out(&self, links: &Links, stamp: &Stamp) {
        let split = &self.splitter.split;
        let left_out = [
            (&split.unknown, ViolationCode::UnknownSite),
            (&split.over_hops, ViolationCode::HopLimit),
            (&split.not_allowed, ViolationCode::Residency),
        ];
        for (sites, code) in left_out.into_iter().filter(|(sites, _)| !sites.is_empty()) {
            let message = format!("events of router {} name the sites {sites:?}", stamp.origin);
            links.count_violation(&Violation::new(code, message));
        }
    }

    /// Learns the names that a batch announces.
    fn learn(&mut self, local: &Local, batch: &Batch) -> Result<(), Violation> {
        for name in &batch.names {
            let before = self.names.insert(name.reference, local.topic(&name.text));
            self.names_bytes += name.text.len();
            self.names_bytes -= before.map_or(0, |before| before.name.text.len());
        }
        if self.names.len() > NAMES_MAX || self.names_bytes > NAMES_BYTES_MAX {
            let message = format!("a stream announced more than {NAMES_MAX} names or {NAMES_BYTES_MAX} bytes of them");
            return Err(Violation::new(ViolationCode::TooMany, message));
        }
        Ok(())
    }

    fn name(&self, reference: u32) -> Result<&Rc<TopicEntry>, Violation> {
        self.names.get(&reference).ok_or_else(|| {
            Violation::new(ViolationCode::Malformed, format!("the reference {reference} was not announced"))
        })
    }

    /// Events that are all new, after [`Splitter::split`] of their stamp.
    async fn take_piece(
        &mut self,
        links: &Links,
        link: &Link,
        head: &BatchHead,
        events: Bytes,
    ) -> Result<(), Violation> {
        let local = &links.local;
        let active = local.active();
        let (generation, count) = (active.number, u64::from(head.count));
        let source = if head.source_ref == 0 { None } else { Some(self.name(head.source_ref)?.name.clone()) };
        let events = self.rename(head, events)?;
        let stamp = &head.stamp;
        if self.sampled > 0 {
            self.watch(local, link, head, source.as_ref());
        }
        let traced = self.bench.verdicts.watch.is_some();
        let origin = || Origin {
            source: source.clone(),
            time_ns: head.time_ns,
            received_ms: local.shared.now_ms(),
            generation,
            shard: stamp.shard,
            elsewhere: Some(Elsewhere { router: stamp.origin.0, epoch: stamp.epoch, generation: stamp.generation }),
            traced: traced.then(Instant::now),
        };
        let copies = std::mem::take(&mut self.splitter.split.copies);
        let here = self.splitter.split.local.take();
        if traced && here.is_none() {
            self.tell_passed_on(local, head, &events);
        }
        if !copies.is_empty() {
            let delivery = self.delivery(head, &events, origin());
            local.ledger.add(generation, Term::Received, count);
            local.ledger.add(generation, Term::Matched, count);
            add_copies(links, generation, count * copies.len() as u64);
            for copy in copies {
                links.offer(copy.link, Outgoing { stamp: copy.stamp, delivery: delivery.clone() });
            }
        } else if here.is_none() {
            local.ledger.add(generation, Term::Received, count);
            local.ledger.add(generation, Term::Unmatched, count);
            links.counters.unreachable.set(links.counters.unreachable.get() + count);
        }
        if let Some(here) = here {
            local.ledger.add(generation, Term::Received, count);
            local.ledger.add(generation, Term::InPipeline, count);
            self.deliver(links, &active, head, &here, &events, source.as_ref()).await;
            self.fanout.flush(local, events, origin(), &mut self.full).await;
            let own = Origin { elsewhere: None, shard: local.id, time_ns: unix_ns(), ..origin() };
            self.own.flush(local, Bytes::new(), own, &mut self.full).await;
        }
        self.events.clear();
        self.bench.verdicts.watch = None;
        for gauge in self.full.drain(..) {
            if local.waits(source.as_deref(), gauge.tenant()) {
                gauge.room().await;
            }
        }
        Ok(())
    }

    /// Finds the topics of the events, and writes this router's numbers for them where the sender's stood.
    fn rename(&mut self, head: &BatchHead, events: Bytes) -> Result<Bytes, Violation> {
        let batch = Batch { head: head.clone(), names: Vec::new(), events };
        let mut bytes = BytesMut::from(&batch.events[..]);
        let mut found = std::mem::take(&mut self.events);
        let mut known: Option<(u32, Rc<TopicEntry>)> = None;
        for span in batch.spans() {
            let reference = span.head.topic_ref;
            let topic = match &known {
                Some((same, topic)) if *same == reference => topic.clone(),
                _ => {
                    let topic = self.name(reference)?.clone();
                    if let Err(error) = validate_topic(&topic.name.text) {
                        return Err(Violation::new(ViolationCode::Malformed, error.to_string()));
                    }
                    known = Some((reference, topic.clone()));
                    topic
                }
            };
            if trace::has_room(span.head.attrs_len) && trace::sampled(span.attrs(&batch.events)).is_some() {
                self.sampled += 1;
            }
            let at = span.at + TOPIC_REF_AT;
            bytes[at..at + 4].copy_from_slice(&topic.name.reference.to_le_bytes());
            found.push((span, topic));
        }
        self.events = found;
        Ok(bytes.freeze())
    }

    /// The events as one delivery for neighbours.
    fn delivery(&self, head: &BatchHead, events: &Bytes, origin: Origin) -> Delivery {
        let mut names: Vec<Arc<Name>> = Vec::new();
        for (_, topic) in &self.events {
            if !names.iter().any(|known| known.reference == topic.name.reference) {
                names.push(topic.name.clone());
            }
        }
        let names = match &names[..] {
            [one] => NameSet::One(one.clone()),
            _ => NameSet::Many(names.into()),
        };
        Delivery {
            events: events.clone(),
            origin: Arc::new(origin),
            names,
            seq: head.stamp.seq,
            count: head.count,
            subscription: 0,
            expires: self.events.iter().any(|(span, _)| span.head.flags & FLAG_TTL != 0),
        }
    }

    /// Takes the events to this site's subscribers, topic by topic.
    async fn deliver(
        &mut self,
        links: &Links,
        active: &Rc<Active>,
        head: &BatchHead,
        here: &LocalDelivery,
        events: &Bytes,
        source: Option<&Arc<Name>>,
    ) {
        let mut at = 0;
        while at < self.events.len() {
            let topic = self.events[at].1.clone();
            let same = self.events[at..].iter().take_while(|(_, other)| Rc::ptr_eq(other, &topic)).count();
            let end = at + same.min(EVENTS_PER_CHAIN);
            let groups = self.serve(links, head, here, at..end, (events, source));
            let route = self.route(&links.local, active, &topic, (here.plain, groups));
            if route.egress.is_some() && route.copies > 0 {
                self.judge(links, active, head, (&topic, &route), at..end, (events, source)).await;
            } else {
                self.pass(&links.local, active.number, head, (&topic, &route), at..end, events);
            }
            at = end;
        }
    }

    /// Hands events of one topic on to the siblings at this site; which groups this router serves.
    fn serve(
        &mut self,
        links: &Links,
        head: &BatchHead,
        here: &LocalDelivery,
        range: Range<usize>,
        (events, source): (&Bytes, Option<&Arc<Name>>),
    ) -> SmallVec<[u32; 2]> {
        if here.here_only || !links.has_siblings() {
            return here.groups.clone();
        }
        let (local, topic) = (&links.local, self.events[range.start].1.clone());
        let generation = local.active().number;
        let mut stamp = head.stamp.clone();
        stamp.seq += range.start as u64;
        let bytes = self.events[range.start].0.range().start..self.events[range.end - 1].0.range().end;
        let origin = Origin {
            source: source.cloned(),
            time_ns: head.time_ns,
            received_ms: local.shared.now_ms(),
            generation,
            shard: stamp.shard,
            elsewhere: None,
            traced: self.bench.verdicts.watch.is_some().then(Instant::now),
        };
        let part = Delivery {
            events: events.slice(bytes),
            origin: Arc::new(origin),
            names: NameSet::One(topic.name.clone()),
            seq: stamp.seq,
            count: u32::try_from(range.len()).unwrap_or(u32::MAX),
            subscription: 0,
            expires: self.events[range].iter().any(|(span, _)| span.head.flags & FLAG_TTL != 0),
        };
        let has_member = |id| !local.arrival(&topic, &local.active(), false, &[id]).targets.groups.is_empty();
        let (served, siblings) = self.splitter.hand_to_siblings(links, &stamp, here, &part, has_member);
        for copy in siblings {
            add_copies(links, generation, u64::from(part.count));
            links.offer(copy.link, Outgoing { stamp: copy.stamp, delivery: part.clone() });
        }
        served.groups
    }

    fn route(
        &mut self,
        local: &Local,
        active: &Active,
        topic: &TopicEntry,
        (plain, groups): (bool, SmallVec<[u32; 2]>),
    ) -> Rc<Route> {
        let key = (topic.name.reference, plain, groups);
        if let Some((name, route)) = self.routes.get(&key)
            && Arc::ptr_eq(name, &topic.name)
            && local.is_current_arrival(route, active)
        {
            return route.clone();
        }
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        let route = Rc::new(local.arrival(topic, active, plain, &key.2));
        self.routes.insert(key, (topic.name.clone(), route.clone()));
        route
    }

    /// Events of one topic without egress filters.
    fn pass(
        &mut self,
        local: &Local,
        generation: u64,
        head: &BatchHead,
        (topic, route): (&TopicEntry, &Rc<Route>),
        range: Range<usize>,
        events: &Bytes,
    ) {
        let (count, wanted) = (range.len() as u64, route.copies > 0);
        if self.bench.verdicts.watch.is_some() {
            self.tell_passed(local, generation, head, (topic, route), range.clone(), events);
        }
        if wanted {
            for at in range {
                let (span, seq) = (self.events[at].0, head.stamp.seq + at as u64);
                let expires = span.head.flags & FLAG_TTL != 0;
                self.fanout.push_numbered(local, route, topic, Place::Received, span.range(), (seq, expires));
            }
        }
        local.ledger.sub(generation, Term::InPipeline, count);
        local.ledger.add(generation, if wanted { Term::Matched } else { Term::Unmatched }, count);
    }

    /// Events of one topic through their egress filters.
    async fn judge(
        &mut self,
        links: &Links,
        active: &Rc<Active>,
        head: &BatchHead,
        (topic, route): (&Rc<TopicEntry>, &Rc<Route>),
        range: Range<usize>,
        (events, source): (&Bytes, Option<&Arc<Name>>),
    ) {
        let local = &*links.local;
        let Some(chain) = &route.egress else { return };
        let mut items = std::mem::take(&mut self.items);
        items.extend(range.map(|at| Passing {
            seq: Some(head.stamp.seq + at as u64),
            span: Some(self.events[at].0),
            topic: topic.clone(),
            route: route.clone(),
            within: head.stamp.allowed.clone(),
            attrs: None,
            payload: None,
        }));
        let identity: Arc<str> = source.map_or_else(|| Arc::from(""), |name| name.text.clone());
        let judge = Judge { local, active, identity, tenant: None, now_ns: unix_ns() };
        self.bench.waiting = Waiting::default();
        judge.run_arrived(chain, events, &mut items, &mut self.bench).await;
        for item in items.drain(..) {
            tell_placed(local, &mut self.bench.verdicts, active.number, events, &item);
            place(local, active.number, events, item, &mut self.fanout);
        }
        self.items = items;
        let mut judged = 0;
        while let Some(derived) = self.bench.verdicts.derived.pop_front() {
            judged += 1;
            if judged > DERIVED_PER_BATCH_MAX {
                derived::abandon(local, active.number, derived, &mut self.bench.verdicts);
            } else if let Some(item) = judge.run_derived(derived, &mut self.bench).await {
                let item = Passing { seq: None, ..item };
                // An event of this router's own, which may be wanted where it may not go.
                if item.route.held_back > 0 {
                    local.shared.held_back.add(1, item.route.held_back);
                }
                tell_placed(local, &mut self.bench.verdicts, active.number, &[], &item);
                place(local, active.number, &[], item, &mut self.own);
            }
        }
        // Nobody here published them.
        self.bench.verdicts.exceptions.clear();
    }
}

/// Puts an event that its filters let go on into the fan-out.
fn place(local: &Local, generation: u64, buffer: &[u8], item: Passing, fanout: &mut Fanout) {
    let Passing { seq, span, topic, route, attrs, payload, .. } = item;
    local.ledger.sub(generation, Term::InPipeline, 1);
    if route.copies == 0 {
        return local.ledger.add(generation, Term::Unmatched, 1);
    }
    let placed = match (span, seq) {
        (Some(span), Some(seq)) if attrs.is_none() && payload.is_none() => {
            let expires = span.head.flags & FLAG_TTL != 0;
            fanout.push_numbered(local, &route, &topic, Place::Received, span.range(), (seq, expires));
            Ok(())
        }
        (span, seq) => {
            let (old_attrs, old_payload) =
                span.map(|span| (span.attrs(buffer), span.payload(buffer))).unwrap_or_default();
            let parts = (attrs.as_deref().unwrap_or(old_attrs), payload.as_deref().unwrap_or(old_payload));
            fanout.write_numbered(local, &route, &topic, parts, seq)
        }
    };
    let term = if placed.is_ok() { Term::Matched } else { Term::Rejected };
    local.ledger.add(generation, term, 1);
}
