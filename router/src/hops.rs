//! What is written down about sampled events at this router. Everything here is off the way of all other events: whoever
//! calls has seen that a batch is watched, or that a delivery is traced.

use crate::generation::Active;
use crate::ledger::Term;
use crate::local::{Local, Route};
use crate::outbox::Delivery;
use crate::shared::unix_ns;
use crate::trace::{
    DeliveryRecord, EventId, HopRecord, LinkRecord, Record, SENT, Sampled, SpanId, SpanOf, Verdict, Watch, sampled,
};
use myelin_engine::{Batch, Chain, ChainScratch, EventView, Fate, Judgement, RouteTarget, Seen};
use myelin_mesh::SiteSet;
use myelin_wire::attrs::ID;
use myelin_wire::event::{EventHead, HEAD_BYTES};
use myelin_wire::{Attrs, Code};
use std::time::{Duration, Instant};

/// What became of an event that the router has refused.
const REFUSED: &str = "refused";
/// Bytes of a reason or a detail that are kept.
const TEXT_BYTES_MAX: usize = 256;

/// This router, as `SITE/ROUTER`.
fn here(local: &Local) -> String {
    format!("{}/{}", local.shared.site, local.shared.router)
}

/// The names of sites.
pub fn site_names(local: &Local, sites: &SiteSet) -> Vec<String> {
    let Some(outward) = &local.shared.outward else { return Vec::new() };
    let reach = outward.reach.load();
    let directory = reach.interest.directory();
    let name = |site| directory.site(site).map_or_else(|| format!("site {site}"), |site| site.name.to_string());
    sites.iter().map(name).collect()
}

/// Whether another record may be made; counts one that may not.
pub fn may_record(local: &Local) -> bool {
    let mut ring = local.traces.borrow_mut();
    let may = ring.has_room(Instant::now());
    if !may {
        ring.skip(1);
    }
    may
}

fn keep(local: &Local, record: Record) {
    local.traces.borrow_mut().push(record);
}

/// Lets a chain judge a batch, and notes what each binding says about the sampled events in it.
pub async fn judge<'a>(
    active: &Active,
    (chain, is_egress): (&'a Chain, bool),
    batch: &Batch<'_>,
    scratch: &'a mut ChainScratch,
    watch: &mut Watch,
) -> Judgement<'a> {
    let events = batch.events().iter().enumerate();
    let watched: Vec<_> = events.filter(|(_, event)| sampled(event.attrs).is_some()).map(|(at, _)| at).collect();
    let mut seen = Vec::new();
    let mut began_ns = nanos(watch.begin.elapsed());
    let judgement = chain.run_watched(batch, scratch, &watched, &mut seen).await;
    // The bindings of a chain judge one after the other, each the whole batch.
    for bindings in seen.chunk_by(|a, b| a.binding == b.binding) {
        for one in bindings {
            let stage = if is_egress { "egress" } else { "ingress" }.to_owned();
            let verdict = verdict(active, chain, &judgement, one);
            watch.note(one.event, Verdict { stage, began_ns, ..verdict });
        }
        began_ns += bindings.first().map_or(0, |one| one.took_ns);
    }
    judgement
}

fn verdict(active: &Active, chain: &Chain, judgement: &Judgement<'_>, one: &Seen) -> Verdict {
    let binding = chain.bindings().get(one.binding).map_or("", |binding| binding.name());
    let plan = active.plan_of(binding);
    let judged = judgement.event(one.event);
    let is_decided = judged.binding == Some(one.binding);
    let sends = one.adds || one.fate == Fate::Redirect;
    let target = |target: &RouteTarget| target.to_string();
    Verdict {
        stage: String::new(),
        binding: binding.to_owned(),
        module: plan.map(|plan| plan.module.to_string()).unwrap_or_default(),
        digest: plan.map(|plan| plan.digest.to_string()).unwrap_or_default(),
        verdict: one.fate.as_str().to_owned(),
        // Never its detail, which may quote the payload: viewers and collectors read this.
        reason: if is_decided { shorten(judged.reason) } else { String::new() },
        targets: if sends { judgement.targets(one.event).map(target).collect() } else { Vec::new() },
        changed: one.changes,
        emitted: one.emits,
        fault: one.fault.map(str::to_owned),
        last_good: one.last_good,
        began_ns: 0,
        batch_took_ns: one.took_ns,
        batch_events: one.judged,
    }
}

fn shorten(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

/// What an event is called: as its publisher says, else as its place at its origin does.
fn event_id(attrs: &[u8], place: Option<EventId>) -> Option<String> {
    let given = Attrs::new(attrs).own(ID).and_then(|id| std::str::from_utf8(id).ok());
    given.map(shorten).or_else(|| place.map(|place| place.to_string()))
}

/// The span of an event at this router.
struct HopSpan {
    sampled: Sampled,
    id: SpanId,
    event: Option<String>,
}

impl HopSpan {
    /// Of the event that has this place at its origin: other routers compute the same number.
    fn known(sampled: Sampled, place: EventId, here: &str, attrs: &[u8]) -> Self {
        Self { sampled, id: sampled.span(place, here, SpanOf::Hop), event: event_id(attrs, Some(place)) }
    }

    /// Of an event from which nothing follows elsewhere, so that nobody else has to know its number.
    fn random(sampled: Sampled, attrs: &[u8]) -> Self {
        Self { sampled, id: SpanId::random(), event: event_id(attrs, None) }
    }
}

/// An event that is about to be handed out.
#[derive(Clone, Copy)]
pub struct Placed<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its attributes, as they came.
    pub attrs: &'a [u8],
    /// Its place in the publish stream, or the sequence number that it came with; none where a filter made it.
    pub key: Option<u64>,
    /// Where it goes.
    pub route: &'a Route,
    /// Events of the same batch that get their number here before it.
    pub ahead: u64,
}

/// An event is handed out, or nobody wants it.
#[cold]
pub fn placed(local: &Local, watch: &mut Watch, generation: u64, event: Placed<'_>) {
    let Placed { topic, attrs, key, route, ahead } = event;
    let Some(sampled) = sampled(attrs) else { return };
    let verdicts = watch.take(key);
    if !may_record(local) {
        return;
    }
    let here = here(local);
    let plan = route.plan.as_ref().map(|plan| plan.destinations());
    let is_wanted = route.copies > 0;
    let (span, sites) = match (&watch.arrival, key) {
        (Some(arrival), Some(seq)) => {
            let place = EventId { seq, ..arrival.origin };
            (HopSpan::known(sampled, place, &here, attrs), arrival.onward.clone())
        }
        // Nobody gives a number to what nobody wants.
        _ if !is_wanted => (HopSpan::random(sampled, attrs), Vec::new()),
        _ => {
            let place = own(local, local.seq.get() + ahead);
            (HopSpan::known(sampled, place, &here, attrs), site_names(local, &plan.unwrap_or_default()))
        }
    };
    let is_routed = is_wanted || !sites.is_empty();
    let hop = HopRecord {
        outcome: if is_routed { "routed" } else { "unmatched" }.to_owned(),
        subscribers: route.targets.plain.len(),
        groups: route.targets.groups.len(),
        sites,
        verdicts,
        ..HopRecord::default()
    };
    record_hop(local, watch, span, generation, (topic, key), hop);
}

/// An event has ended here: by what a filter said, or because it may not go on.
#[cold]
pub fn ended(local: &Local, watch: &mut Watch, event: &EventView<'_>, key: Option<u64>, (fate, why): (&str, &str)) {
    let Some(sampled) = sampled(event.attrs) else { return };
    let verdicts = watch.take(key);
    if !may_record(local) {
        return;
    }
    let hop = HopRecord { outcome: fate.to_owned(), detail: shorten(why), verdicts, ..HopRecord::default() };
    let span = HopSpan::random(sampled, event.attrs);
    record_hop(local, watch, span, local.active().number, (event.topic, key), hop);
}

/// An event may not go on, for what the router says and not a filter; where its batch is watched.
pub fn not_allowed(
    local: &Local,
    watch: Option<&mut Watch>,
    event: &EventView<'_>,
    key: Option<u64>,
    (code, why): (Code, &str),
) {
    if let Some(watch) = watch {
        ended(local, watch, event, key, (REFUSED, &format!("{}: {why}", code.name())));
    }
}

/// An event goes on to other routers, and to nobody here.
#[cold]
pub fn passed_on(local: &Local, watch: &Watch, (topic, attrs): (&str, &[u8]), seq: u64) {
    let (Some(sampled), Some(arrival)) = (sampled(attrs), &watch.arrival) else { return };
    if !may_record(local) {
        return;
    }
    let span = HopSpan::known(sampled, EventId { seq, ..arrival.origin }, &here(local), attrs);
    let hop = HopRecord { outcome: "passed-on".to_owned(), sites: arrival.onward.clone(), ..HopRecord::default() };
    record_hop(local, watch, span, local.active().number, (topic, Some(seq)), hop);
}

/// Admission has refused an event.
#[cold]
pub fn refused(local: &Local, publisher: &str, (topic, attrs): (&str, &[u8]), (code, why): (&str, &str)) {
    let Some(sampled) = sampled(attrs).filter(|_| may_record(local)) else { return };
    let watch = Watch::new(publisher.into(), unix_ns(), None);
    let detail = format!("{code}: {}", shorten(why));
    let hop = HopRecord { outcome: REFUSED.to_owned(), detail, ..HopRecord::default() };
    let span = HopSpan::random(sampled, attrs);
    record_hop(local, &watch, span, local.active().number, (topic, None), hop);
}

fn record_hop(
    local: &Local,
    watch: &Watch,
    HopSpan { sampled, id, event }: HopSpan,
    generation: u64,
    (topic, key): (&str, Option<u64>),
    hop: HopRecord,
) {
    let router = here(local);
    let parent_id = watch.parent(&sampled, key, &router);
    let from = watch.arrival.as_ref().map(|arrival| arrival.from.clone());
    keep(
        local,
        Record {
            trace_id: sampled.trace,
            span_id: id,
            parent_id,
            router,
            topic: topic.to_owned(),
            event,
            begin_unix_ns: watch.begin_unix_ns,
            took_ns: nanos(watch.begin.elapsed()),
            hop: Some(HopRecord { from, publisher: watch.publisher.to_string(), generation, ..hop }),
            link: None,
            delivery: None,
        },
    );
}

/// A number that this worker gives.
fn own(local: &Local, seq: u64) -> EventId {
    EventId { router: local.shared.origin, epoch: local.shared.epoch, shard: local.id, seq }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What became of copies that a term of the ledger counts.
fn outcome(term: Term) -> &'static str {
    match term {
        Term::Shed => "shed",
        Term::CopiesExpired => "expired",
        Term::Lost => "lost",
        _ => SENT,
    }
}

/// Copies of `events` of a traced delivery are written to the link to `to`, or end before that, as `term` says; `first` is
/// the first one's number.
#[cold]
pub fn forwarded(
    local: &Local,
    delivery: &Delivery,
    (events, first): (&[u8], EventId),
    (to, hops): (&str, u8),
    term: Term,
) {
    let link = LinkRecord { to: to.to_owned(), hops, outcome: outcome(term).to_owned() };
    let fill = |record: Record| Record { link: Some(link.clone()), ..record };
    record_copies(local, delivery, events, first, SpanOf::Link(to), fill);
}

/// Copies of `events` of a traced delivery are written to a session's connection, or end before that, as `term` says;
/// `seq` is the first one's number.
#[cold]
pub fn delivered(local: &Local, delivery: &Delivery, (events, seq): (&[u8], u64), session: &str, term: Term) {
    let origin = &delivery.origin;
    let (router, epoch) = match origin.elsewhere {
        Some(elsewhere) => (elsewhere.router, elsewhere.epoch),
        None => (local.shared.origin, local.shared.epoch),
    };
    let first = EventId { router, epoch, shard: origin.shard, seq };
    let subscription = delivery.subscription;
    // A session that is in a group as well gets a copy for each.
    let copy = format!("{session} {subscription}");
    let fill = |record: Record| {
        let delivery = DeliveryRecord { session: session.to_owned(), subscription, outcome: outcome(term).to_owned() };
        Record { delivery: Some(delivery), ..record }
    };
    record_copies(local, delivery, events, first, SpanOf::Delivery(&copy), fill);
}

fn record_copies(
    local: &Local,
    delivery: &Delivery,
    events: &[u8],
    first: EventId,
    of: SpanOf<'_>,
    fill: impl Fn(Record) -> Record,
) {
    let waited = delivery.origin.traced.map(|since| since.elapsed()).unwrap_or_default();
    let (router, mut at, mut event) = (here(local), 0, first);
    while let Some(head) = events.get(at..).and_then(|rest| EventHead::parse(rest).ok()?) {
        let attrs = at + HEAD_BYTES..at + HEAD_BYTES + usize::from(head.attrs_len);
        let attrs = events.get(attrs).unwrap_or_default();
        if let Some(sampled) = sampled(attrs)
            && may_record(local)
        {
            let names = delivery.names.as_slice();
            let topic = names.iter().find(|name| name.reference == head.topic_ref).map_or("", |name| &*name.text);
            keep(
                local,
                fill(Record {
                    trace_id: sampled.trace,
                    span_id: sampled.span(event, &router, of),
                    parent_id: sampled.span(event, &router, SpanOf::Hop),
                    router: router.clone(),
                    topic: topic.to_owned(),
                    event: event_id(attrs, Some(event)),
                    begin_unix_ns: unix_ns().saturating_sub(nanos(waited)),
                    took_ns: nanos(waited),
                    hop: None,
                    link: None,
                    delivery: None,
                }),
            );
        }
        at += head.total_bytes();
        event.seq += 1;
    }
}
