//! The journey of a batch of events, from the publisher's bytes to the outboxes: decode, admit, ingress filters,
//! match, egress filters, fan out, acknowledge.
//!
//! A batch is what the publisher's stream had ready; nothing waits for more. One generation judges all of it.

mod admit;
mod received;
mod screening;
mod topics;
mod traced;

use crate::capture::{Side, Taken};
use crate::derived::{self, DERIVED_PER_BATCH_MAX, Judge, Passing, Workbench};
use crate::fanout::{Fanout, Place};
use crate::generation::Active;
use crate::ledger::Term;
use crate::local::{Local, Route, TopicEntry};
use crate::outbox::{Gauge, Origin};
use crate::screen::Waiting;
use crate::shared::unix_ns;
use crate::tenants::{Spent, Usage};
use myelin_catalog::Stage;
use myelin_engine::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};
use myelin_engine::{Chain, EventView};
use myelin_policy::{Action, Service};
use myelin_wire::event::{EventSpan, FLAG_REQUEST, FLAG_TTL};
use myelin_wire::frame::FrameType;
use myelin_wire::limits::{DETAIL_BYTES_MAX, TOPIC_BYTES_MAX};
use myelin_wire::message::Exception;
use myelin_wire::stream::DataDecoder;
use myelin_wire::{Code, Refusal};
use received::{Received, emptied};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use topics::Topics;

/// Events that are judged in one go. A bound for the latency of the first and for the scratch memory.
const EVENTS_PER_ROUND_MAX: usize = 2048;
/// An event that passed admission.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    /// Its place in the publish stream, from 1.
    seq: u64,
    /// Where it stands in the receive buffer.
    span: EventSpan,
}

/// What was refused last by the policies: the next event is of the same topic, as a rule, and gets the same answer.
#[derive(Debug)]
struct Forbidden {
    version: u64,
    action: Action,
    topic: Rc<TopicEntry>,
    refusal: Refusal,
}

/// The publishing side of a session.
#[derive(Debug)]
pub struct Publisher {
    decoder: DataDecoder,
    topics: Topics,
    source: Rc<TopicEntry>,
    service: Service,
    /// What its tenant uses.
    tenant: Option<Arc<Usage>>,
    /// Bytes of the stream that its tenant was not charged for yet.
    pushed_bytes: u64,
    /// Events that are judged in one go.
    round_max: usize,
    /// The version of the rules that the batch is admitted by.
    rules_version: u64,
    forbidden: RefCell<Option<Forbidden>>,
    seq: u64,
    batch: Vec<Admitted>,
    /// A topic that gets a new meaning once the batch that used the old one is through.
    redefined: Option<(u32, String)>,
    exceptions: Vec<Exception>,
    fanout: Fanout,
    bench: Workbench,
    /// The events as filters see them; empty between batches.
    views: Vec<EventView<'static>>,
    /// The events that filters have touched; empty between batches.
    items: Vec<Passing>,
    /// Events of the batch that are sampled for tracing.
    sampled: Cell<u32>,
}

/// What a batch led to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cumulative sequence of the publish stream.
    pub seq: u64,
    /// Those that were not offered, by sequence.
    pub exceptions: Vec<Exception>,
    /// Subscribers that want the publisher to wait.
    pub full: Vec<Arc<Gauge>>,
}

impl Publisher {
    /// The publisher that `service` is, at the beginning of its stream.
    pub fn new(local: &Local, service: Service, tenant: Option<Arc<Usage>>) -> Self {
        Self {
            decoder: DataDecoder::new(FrameType::Events, local.shared.limits.event_len_max()),
            topics: Topics::default(),
            source: local.topic(service.id()),
            service,
            tenant,
            pushed_bytes: 0,
            round_max: EVENTS_PER_ROUND_MAX,
            rules_version: 0,
            forbidden: RefCell::default(),
            seq: 0,
            batch: Vec::new(),
            redefined: None,
            exceptions: Vec::new(),
            fanout: Fanout::default(),
            bench: Workbench::default(),
            views: Vec::new(),
            items: Vec::new(),
            sampled: Cell::new(0),
        }
    }

    /// Adds bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pushed_bytes += bytes.len() as u64;
        self.decoder.push(bytes);
    }

    /// Whether the stream may end here.
    pub fn is_at_boundary(&self) -> bool {
        self.decoder.is_at_boundary()
    }

    /// Takes the next batch from what was pushed all the way to the outboxes; `None` until more bytes come.
    ///
    /// # Errors
    /// What breaks the stream: the session ends with it.
    pub async fn publish(&mut self, local: &Local) -> Result<Option<Outcome>, Refusal> {
        let before = self.seq;
        if let Some(tenant) = &self.tenant {
            self.round_max = tenant.events_per_round(EVENTS_PER_ROUND_MAX);
        }
        self.admit(local)?;
        if self.seq == before {
            // Names and skipped frames were read, and are of no more use in the buffer.
            self.decoder.discard();
            return Ok(None);
        }
        self.bench.waiting = Waiting::default();
        if local.lets_events_name() {
            // In a box: few routers need it, and each publisher would have room for it.
            Box::pin(self.await_schemas(local)).await;
        }
        let active = local.active();
        let generation = active.number;
        local.ledger.add(generation, Term::Accepted, self.seq - before);
        let expired = self.exceptions.iter().filter(|exception| exception.1 == Code::Expired).count() as u64;
        local.ledger.add(generation, Term::Expired, expired);
        local.ledger.add(generation, Term::Rejected, self.exceptions.len() as u64 - expired);
        local.ledger.add(generation, Term::InPipeline, self.batch.len() as u64);
        myelin_failpoint::trip("batch-admitted");
        let mut origin = self.origin(local, generation);
        if self.sampled.get() > 0 {
            self.watch(local, origin.time_ns);
        }
        if local.is_screening() {
            self.screen(local, &active, origin.time_ns).await;
        }
        self.judge(local, &active, origin.time_ns).await;
        if !self.bench.verdicts.derived.is_empty() {
            self.judge_derived(local, &active, origin.time_ns).await;
            self.tell_verdicts();
        }
        origin.traced = self.bench.verdicts.watch.take().map(|_| Instant::now());
        let mut outcome = Outcome { seq: self.seq, exceptions: std::mem::take(&mut self.exceptions), full: Vec::new() };
        outcome.exceptions.sort_unstable_by_key(|exception| exception.0);
        let received = self.decoder.take();
        self.fanout.flush(local, received, origin, &mut outcome.full).await;
        self.batch.clear();
        if let Some(tenant) = &self.tenant {
            let (events, bytes) = (self.seq - before, std::mem::take(&mut self.pushed_bytes));
            tenant.charge(local.shared.now_ns(), Spent { events, bytes, filters_ns: self.bench.take_cpu_ns() });
        }
        Ok(Some(outcome))
    }

    fn judge_of<'a>(&self, local: &'a Local, active: &'a Active, now_ns: u64) -> Judge<'a> {
        Judge { local, active, identity: self.source.name.text.clone(), tenant: self.tenant.clone(), now_ns }
    }

    fn origin(&self, local: &Local, generation: u64) -> Origin {
        let source = Some(self.source.name.clone());
        Origin {
            source,
            time_ns: unix_ns(),
            received_ms: local.shared.now_ms(),
            generation,
            shard: local.id,
            elsewhere: None,
            traced: None,
        }
    }

    fn refuse(&mut self, seq: u64, code: Code, detail: &str) {
        let end = detail.floor_char_boundary(DETAIL_BYTES_MAX);
        self.exceptions.push(Exception(seq, code, detail[..end].to_owned()));
    }

    /// Judges the batch: what goes on is in the fan-out afterwards, the rest among the exceptions.
    async fn judge(&mut self, local: &Local, active: &Rc<Active>, now_ns: u64) {
        let mut at = 0;
        while at < self.batch.len() {
            let Some((topic, route)) = self.route(local, active, at) else { break };
            if !route.may_be_here {
                at = self.turn_away(local, active.number, at);
            } else if route.ingress.is_none() && route.egress.is_none() {
                let topic_ref = self.batch[at].span.head.topic_ref;
                let same = self.batch[at..].iter().take_while(|event| event.span.head.topic_ref == topic_ref).count();
                if local.shared.captures.is_on() || local.shade.is_on() {
                    self.show_unjudged(local, active, &route, at..at + same, now_ns);
                }
                self.pass(local, active.number, &topic, &route, at..at + same);
                at += same;
            } else {
                let end = self.same_chains(local, active, &route, at);
                self.filter(local, active, &route, at..end, now_ns).await;
                at = end;
            }
        }
    }

    /// Shows events that no binding judges to the captures and to a shadow: both can tell what a filter would say.
    #[cold]
    fn show_unjudged(&self, local: &Local, active: &Active, route: &Route, events: Range<usize>, now_unix_ns: u64) {
        let (buffer, identity) = (self.decoder.buffer(), &*self.source.name.text);
        let captures = &local.shared.captures;
        let mut at = events.start;
        while at < events.end {
            // In batches as a filter would get them.
            let end = self.same_chains(local, active, route, at).min(events.end);
            let received = Received { topics: &self.topics, events: &self.batch[at..end] };
            let views: Vec<_> = received.events.iter().map(|event| received.view(event, buffer, identity)).collect();
            let taken = Taken {
                views: &views,
                now_unix_ns,
                worker: local.id,
                generation: active.number,
                side: Side::None,
                entry: true,
                chain: &[],
                tape: None,
            };
            let chosen = captures.choose(&views, local.shared.now_ms(), |_| false);
            chosen.iter().for_each(|capture| capture.record(&taken));
            let judge = self.judge_of(local, active, now_unix_ns);
            judge.show(Stage::Ingress, &views);
            if route.copies > 0 {
                judge.show(Stage::Egress, &views);
            }
            at = end;
        }
    }

    /// Topic and route of the event at `at` of the batch.
    #[inline]
    fn route(&self, local: &Local, active: &Active, at: usize) -> Option<(Rc<TopicEntry>, Rc<Route>)> {
        Received { topics: &self.topics, events: &self.batch }.route(local, active, self.batch.get(at)?)
    }

    /// How far from `at` on the events go through the same chains as `route`, within the bounds of a filter's batch.
    fn same_chains(&self, local: &Local, active: &Active, route: &Route, at: usize) -> usize {
        let same = |a: &Option<Rc<Chain>>, b: &Option<Rc<Chain>>| match (a, b) {
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        let (mut end, mut bytes) = (at, 0);
        let mut known = self.batch[at].span.head.topic_ref;
        while end < self.batch.len() && end - at < BATCH_EVENTS_MAX {
            let head = &self.batch[end].span.head;
            if head.topic_ref != known {
                let Some((_, other)) = self.route(local, active, end) else { break };
                let judged_alike = same(&other.ingress, &route.ingress) && same(&other.egress, &route.egress);
                if !judged_alike || !other.may_be_here {
                    break;
                }
                known = head.topic_ref;
            }
            // Topic and identity come on top of the event's own bytes in an arena.
            bytes += head.total_bytes() + TOPIC_BYTES_MAX + self.source.name.text.len();
            if bytes > BATCH_BYTES_MAX && end > at {
                break;
            }
            end += 1;
        }
        end
    }

    /// Takes events of the same chains through their filters.
    async fn filter(&mut self, local: &Local, active: &Rc<Active>, route: &Route, events: Range<usize>, now_ns: u64) {
        let judge = self.judge_of(local, active, now_ns);
        let buffer = self.decoder.buffer();
        let received = Received { topics: &self.topics, events: &self.batch[events.clone()] };
        // Kept from batch to batch: in the steady state no event costs an allocation.
        let mut views = emptied(std::mem::take(&mut self.views));
        views.extend(received.events.iter().map(|event| received.view(event, buffer, &judge.identity)));
        if let Some(watch) = &mut self.bench.verdicts.watch {
            watch.keys = received.events.iter().map(|event| Some(event.seq)).collect();
        }
        let mut items = std::mem::take(&mut self.items);
        let enlist = |items: &mut Vec<Passing>| received.enlist(local, active, items);
        let untouched = judge.run((buffer, &views), route, &mut items, &mut self.bench, enlist).await;
        self.views = emptied(views);
        if untouched {
            // The common case: as if there were no filter.
            items.clear();
            self.items = items;
            let mut at = events.start;
            while at < events.end {
                let Some((topic, route)) = self.route(local, active, at) else { break };
                let topic_ref = self.batch[at].span.head.topic_ref;
                let same = self.batch[at..events.end].iter().take_while(|event| event.span.head.topic_ref == topic_ref);
                let end = at + same.count();
                self.pass(local, active.number, &topic, &route, at..end);
                at = end;
            }
            return;
        }
        for item in items.drain(..) {
            self.place(local, active.number, item);
        }
        self.items = items;
        self.judge_derived(local, active, now_ns).await;
        self.tell_verdicts();
    }

    /// Tells the publisher what the router has decided on its events.
    fn tell_verdicts(&mut self) {
        for (seq, code, detail) in std::mem::take(&mut self.bench.verdicts.exceptions) {
            self.refuse(seq, code, &detail);
        }
    }

    /// Refuses the events from `at` on that have the same topic: they may not be at this site. Where the next begin.
    fn turn_away(&mut self, local: &Local, generation: u64, at: usize) -> usize {
        let topic_ref = self.batch[at].span.head.topic_ref;
        let same = self.batch[at..].iter().take_while(|event| event.span.head.topic_ref == topic_ref).count();
        for index in at..at + same {
            self.refuse(self.batch[index].seq, Code::Residency, derived::NOT_HERE);
        }
        if self.bench.verdicts.watch.is_some() {
            self.tell_turned_away(local, at..at + same);
        }
        local.ledger.sub(generation, Term::InPipeline, same as u64);
        local.ledger.add(generation, Term::Rejected, same as u64);
        local.shared.held_back.refused.fetch_add(same as u64, Relaxed);
        at + same
    }

    /// Judges what filters emitted, redirected or gave up, until nothing is left of it.
    async fn judge_derived(&mut self, local: &Local, active: &Rc<Active>, now_ns: u64) {
        let mut judged = 0;
        while let Some(derived) = self.bench.verdicts.derived.pop_front() {
            judged += 1;
            if judged > DERIVED_PER_BATCH_MAX {
                derived::abandon(local, active.number, derived, &mut self.bench.verdicts);
                continue;
            }
            let judge = self.judge_of(local, active, now_ns);
            if let Some(item) = judge.run_derived(derived, &mut self.bench).await {
                self.place(local, active.number, item);
            }
        }
    }

    /// Puts an event that its filters let go on into the fan-out, if anybody wants it.
    fn place(&mut self, local: &Local, generation: u64, item: Passing) {
        if self.bench.verdicts.watch.is_some() {
            self.tell_placed(local, generation, &item);
        }
        let Passing { seq, span, topic, route, attrs, payload, .. } = item;
        local.ledger.sub(generation, Term::InPipeline, 1);
        if route.held_back > 0 {
            local.shared.held_back.add(1, route.held_back);
        }
        if route.withheld > 0 {
            local.shared.denials.withhold(1, route.withheld);
        }
        if route.copies == 0 {
            if let (Some(seq), Some(span)) = (seq, span)
                && span.head.flags & FLAG_REQUEST != 0
            {
                self.refuse(seq, Code::NoResponder, "nobody subscribes to this topic");
            }
            return local.ledger.add(generation, Term::Unmatched, 1);
        }
        let placed = match span {
            Some(span) if attrs.is_none() && payload.is_none() => {
                self.decoder.patch_topic_ref(&span, topic.name.reference);
                self.fanout.push(local, &route, &topic, Place::Received, span.range(), span.head.flags & FLAG_TTL != 0);
                Ok(())
            }
            span => {
                let buffer = self.decoder.buffer();
                let received = span.map(|span| (span.attrs(buffer), span.payload(buffer)));
                let (old_attrs, old_payload) = received.unwrap_or_default();
                let (attrs, payload) =
                    (attrs.as_deref().unwrap_or(old_attrs), payload.as_deref().unwrap_or(old_payload));
                self.fanout.write(local, &route, &topic, attrs, payload)
            }
        };
        match placed {
            Ok(()) => local.ledger.add(generation, Term::Matched, 1),
            Err(refusal) => {
                local.ledger.add(generation, Term::Rejected, 1);
                if let Some(seq) = seq {
                    self.refuse(seq, refusal.code, &refusal.message);
                }
            }
        }
    }

    /// Events of one topic that no filter has touched.
    #[inline]
    fn pass(&mut self, local: &Local, generation: u64, topic: &TopicEntry, route: &Rc<Route>, events: Range<usize>) {
        let count = events.len() as u64;
        let wanted = route.copies > 0;
        if route.held_back > 0 {
            local.shared.held_back.add(count, route.held_back);
        }
        if route.withheld > 0 {
            local.shared.denials.withhold(count, route.withheld);
        }
        if self.bench.verdicts.watch.is_some() {
            self.tell_passed(local, generation, topic, route, events.clone());
        }
        for at in events {
            let Admitted { seq, span } = self.batch[at];
            if wanted {
                self.decoder.patch_topic_ref(&span, topic.name.reference);
                self.fanout.push(local, route, topic, Place::Received, span.range(), span.head.flags & FLAG_TTL != 0);
            } else if span.head.flags & FLAG_REQUEST != 0 {
                self.refuse(seq, Code::NoResponder, "nobody subscribes to this topic");
            }
        }
        local.ledger.sub(generation, Term::InPipeline, count);
        local.ledger.add(generation, if wanted { Term::Matched } else { Term::Unmatched }, count);
    }
}
