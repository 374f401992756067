//! Fan-out: one batch of events to many subscribers, sharing the bytes.
//!
//! Events that go to the same subscribers and lie next to each other form a *run*. A run costs one entry per
//! subscriber, whatever its length, and its bytes are a slice of the batch's one buffer: the buffer that the events
//! were received into, with the topic references patched, or the side buffer for events that a filter rewrote.

use crate::hops;
use crate::ledger::Term;
use crate::local::{Local, Route, TopicEntry};
use crate::names::Name;
use crate::outbox::{Delivery, Gauge, NameSet, Offered, Origin};
use crate::shared::{Forward, Parcel};
use bytes::{Bytes, BytesMut};
use myelin_core::{SessionKey, pick_member};
use myelin_wire::attrs::KEY;
use myelin_wire::event::{EventHead, HEAD_BYTES};
use myelin_wire::{Attrs, Code, EventBuilder, Refusal};
use smallvec::SmallVec;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// In which buffer a run lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The buffer that the events were received into.
    Received,
    /// The buffer of rewritten events.
    Side,
}

#[derive(Debug)]
struct Run {
    number: u64,
    route: Rc<Route>,
    place: Place,
    start: usize,
    end: usize,
    seq: u64,
    count: u32,
    first: Arc<Name>,
    more: Vec<Arc<Name>>,
    expires: bool,
}

/// Collects the events of a batch that go on, then hands them out. Kept from batch to batch for its buffers.
#[derive(Debug, Default)]
pub struct Fanout {
    runs: Vec<Run>,
    side: Vec<u8>,
}

impl Fanout {
    /// Adds the event at `range` of `place` to the batch.
    #[inline]
    pub fn push(
        &mut self,
        local: &Local,
        route: &Rc<Route>,
        topic: &TopicEntry,
        place: Place,
        range: Range<usize>,
        expires: bool,
    ) {
        let seq = local.seq.get();
        local.seq.set(seq + 1);
        self.push_numbered(local, route, topic, place, range, (seq, expires));
    }

    /// Adds an event that has its number already: one that was published at another router.
    #[inline]
    pub fn push_numbered(
        &mut self,
        local: &Local,
        route: &Rc<Route>,
        topic: &TopicEntry,
        place: Place,
        range: Range<usize>,
        (seq, expires): (u64, bool),
    ) {
        let Range { start, end } = range;
        if let Some(run) = self.runs.last_mut()
            && run.end == start
            && run.place == place
            && run.seq + u64::from(run.count) == seq
            && (Rc::ptr_eq(&run.route, route) || (run.route.targets == route.targets && run.route.plan == route.plan))
        {
            run.end = end;
            run.count += 1;
            run.expires |= expires;
            if topic.listed_in.replace(run.number) != run.number {
                run.more.push(topic.name.clone());
            }
            return;
        }
        let number = local.runs.get() + 1;
        local.runs.set(number);
        topic.listed_in.set(number);
        let (route, first) = (route.clone(), topic.name.clone());
        self.runs.push(Run { number, route, place, start, end, seq, count: 1, first, more: Vec::new(), expires });
    }

    /// Encodes an event that was not received as it is sent, and adds it.
    ///
    /// # Errors
    /// When attributes or payload do not fit the layout.
    pub fn write(
        &mut self,
        local: &Local,
        route: &Rc<Route>,
        topic: &TopicEntry,
        attrs: &[u8],
        payload: &[u8],
    ) -> Result<(), Refusal> {
        self.write_numbered(local, route, topic, (attrs, payload), None)
    }

    /// The same for an event that has its number already, where it has.
    ///
    /// # Errors
    /// When attributes or payload do not fit the layout.
    pub fn write_numbered(
        &mut self,
        local: &Local,
        route: &Rc<Route>,
        topic: &TopicEntry,
        (attrs, payload): (&[u8], &[u8]),
        seq: Option<u64>,
    ) -> Result<(), Refusal> {
        let start = self.side.len();
        let event = EventBuilder { topic_ref: topic.name.reference, attrs, payload, request: false };
        event.write(&mut self.side)?;
        let expires = !attrs.is_empty() && Attrs::new(attrs).ttl_ms().is_some();
        let range = start..self.side.len();
        match seq {
            Some(seq) => self.push_numbered(local, route, topic, Place::Side, range, (seq, expires)),
            None => self.push(local, route, topic, Place::Side, range, expires),
        }
        Ok(())
    }

    /// Hands the batch out: `received` is the buffer it was received into. Waits where another worker's queue is full.
    /// Appends the gauges of subscribers that publishers should wait for to `full`.
    pub async fn flush(&mut self, local: &Local, received: Bytes, origin: Origin, full: &mut Vec<Arc<Gauge>>) {
        if self.runs.is_empty() {
            return;
        }
        let origin = Arc::new(origin);
        let side = Bytes::from(std::mem::take(&mut self.side));
        for run in self.runs.drain(..) {
            let whole = if run.place == Place::Received { &received } else { &side };
            let names = match run.more.is_empty() {
                true => NameSet::One(run.first),
                false => NameSet::Many(std::iter::once(run.first).chain(run.more).collect()),
            };
            let delivery = Delivery {
                events: whole.slice(run.start..run.end),
                origin: origin.clone(),
                names,
                seq: run.seq,
                count: run.count,
                subscription: 0,
                expires: run.expires,
            };
            let copies = run.route.copies * u64::from(run.count);
            local.ledger.add(origin.generation, Term::Targets, copies);
            local.ledger.add(origin.generation, Term::InQueue, copies);
            send_plain(local, &run.route, &delivery).await;
            if !run.route.targets.groups.is_empty() {
                send_groups(local, &run.route, &delivery).await;
            }
            send_away(local, &run.route, &delivery).await;
            full.extend(run.route.gauges.iter().map(|(_, gauge)| gauge).filter(|gauge| gauge.is_full()).cloned());
        }
    }
}

/// One copy for each plain subscriber.
async fn send_plain(local: &Local, route: &Route, delivery: &Delivery) {
    let mut rest = route.targets.plain.as_slice();
    // Sorted by worker: one parcel for all subscribers of another worker.
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|key| key.worker == first.worker).count();
        let (here, after) = rest.split_at(same);
        here.iter().for_each(|key| add_to_gauge(route, *key, delivery));
        send(local, here, delivery.clone()).await;
        rest = after;
    }
}

/// One copy of each event for one member of each group.
async fn send_groups(local: &Local, route: &Route, delivery: &Delivery) {
    for (index, group) in route.targets.groups.iter().enumerate() {
        // Neighbours that go to the same member stay one delivery.
        let mut pending: Option<(SessionKey, Delivery, usize, usize)> = None;
        let (mut at, mut seq) = (0, delivery.seq);
        while let Some(event) = split_event(&delivery.events[at..]) {
            let end = at + event.total_bytes();
            let attrs = Attrs::new(&delivery.events[at + HEAD_BYTES..at + HEAD_BYTES + usize::from(event.attrs_len)]);
            let picked = pick_member(&group.members, attrs.own(KEY), &mut route.turns.borrow_mut()[index]);
            let Some((session, subscription)) = picked.map(|member| group.members[member]) else { return };
            match &mut pending {
                Some((same, part, _, part_end)) if *same == session && part.subscription == subscription => {
                    part.count += 1;
                    *part_end = end;
                }
                _ => {
                    let part = Delivery { seq, count: 1, subscription, ..delivery.clone() };
                    if let Some(done) = pending.replace((session, part, at, end)) {
                        send_part(local, route, done).await;
                    }
                }
            }
            (at, seq) = (end, seq + 1);
        }
        if let Some(done) = pending {
            send_part(local, route, done).await;
        }
    }
}

/// One copy for all other sites.
async fn send_away(local: &Local, route: &Route, delivery: &Delivery) {
    let (Some(plan), Some(outward)) = (&route.plan, &local.shared.outward) else { return };
    let forward = Forward { delivery: delivery.clone(), plan: plan.clone() };
    if outward.forwards.send(forward).await.is_err() {
        // The links have ended.
        local.ledger.settle(delivery.origin.generation, Term::Lost, u64::from(delivery.count));
    }
}

async fn send_part(
    local: &Local,
    route: &Route,
    (session, mut part, start, end): (SessionKey, Delivery, usize, usize),
) {
    part.events = part.events.slice(start..end);
    add_to_gauge(route, session, &part);
    send(local, &[session], part).await;
}

fn split_event(bytes: &[u8]) -> Option<EventHead> {
    EventHead::parse(bytes).ok()?
}

fn add_to_gauge(route: &Route, session: SessionKey, delivery: &Delivery) {
    if let Some((_, gauge)) = route.gauges.iter().find(|(key, _)| *key == session) {
        gauge.add(delivery.events.len());
    }
}

/// Queues `delivery` for a session of this worker, and counts what comes of it.
pub fn offer(local: &Local, session: SessionKey, delivery: Delivery) {
    let Some(seat) = local.seat(session) else {
        return gone(local, "a session that has ended", &delivery, Term::Lost);
    };
    let waits = |copy: &Delivery| local.waits(copy.origin.source.as_deref(), seat.outbox.tenant());
    let offered = seat.outbox.offer(delivery, waits, |copy, term| gone(local, seat.outbox.whose(), copy, term));
    if offered == Offered::Overflowed {
        let message = "this subscriber does not keep up and asked to be disconnected then; read faster, subscribe to less, or choose another overflow policy";
        seat.ending.set(Refusal::new(Code::SlowConsumer, message));
    }
}

/// A copy for a session has ended before it was sent: counted, and written down where it is traced.
pub fn gone(local: &Local, whose: &str, copy: &Delivery, term: Term) {
    local.ledger.settle(copy.origin.generation, term, u64::from(copy.count));
    if copy.origin.traced.is_some() {
        hops::delivered(local, copy, (&copy.events, copy.seq), whose, term);
    }
}

/// Offers `delivery` to sessions of one worker: this one or another.
async fn send(local: &Local, to: &[SessionKey], delivery: Delivery) {
    let Some(worker) = to.first().map(|key| key.worker) else { return };
    if worker == local.id {
        return to.iter().for_each(|key| offer(local, *key, delivery.clone()));
    }
    let Some(mailbox) = local.shared.mailboxes.get(usize::from(worker)) else { return };
    let (generation, copies) = (delivery.origin.generation, u64::from(delivery.count) * to.len() as u64);
    let parcel = Parcel { to: SmallVec::from_slice(to), delivery };
    if mailbox.send(parcel).await.is_err() {
        // That worker has ended, and its sessions with it.
        local.ledger.settle(generation, Term::Lost, copies);
    }
}

/// Splits the events of a delivery whose time to live ran out `waited_ms` after they came in from those that are
/// still good, and writes down what is left to the good ones. `emit(bytes, first index, count)` gets each run of good
/// neighbours; returns how many expired.
pub fn split_expired(
    delivery: &Delivery,
    waited_ms: u64,
    mut emit: impl FnMut(Bytes, u32, u32),
    mut late: impl FnMut(&[u8], u32),
) -> u32 {
    let mut expired = 0;
    let (mut run, mut first, mut count) = (BytesMut::new(), 0, 0);
    let (mut at, mut index) = (0, 0);
    while let Some(head) = split_event(&delivery.events[at..]) {
        let event = &delivery.events[at..at + head.total_bytes()];
        let attrs_end = HEAD_BYTES + usize::from(head.attrs_len);
        let ttl = Attrs::new(&event[HEAD_BYTES..attrs_end]).own(myelin_wire::attrs::TTL);
        let left = ttl
            .and_then(|ttl| ttl.try_into().ok())
            .map(|ttl| u64::from(u32::from_le_bytes(ttl)).saturating_sub(waited_ms));
        if left == Some(0) {
            expired += 1;
            late(event, index);
            if count > 0 {
                emit(run.split().freeze(), first, count);
            }
            (first, count) = (index + 1, 0);
        } else {
            let start = run.len();
            run.extend_from_slice(event);
            if let (Some(ttl), Some(left)) = (ttl, left) {
                let offset = start + (ttl.as_ptr() as usize - event.as_ptr() as usize);
                run[offset..offset + 4].copy_from_slice(&u32::try_from(left).unwrap_or(u32::MAX).to_le_bytes());
            }
            count += 1;
        }
        at += head.total_bytes();
        index += 1;
    }
    if count > 0 {
        emit(run.freeze(), first, count);
    }
    expired
}
