//! What is written down about sampled events at this router. Everything here is off the way of all other events: whoever
//! calls has seen that a batch is watched, or that a delivery is traced.

use crate::generation::Active;
use crate::local::{Local, Route, unix_ns};
use crate::outbox::Delivery;
use crate::trace::{
    DeliveryRecord, EventId, HopRecord, LinkRecord, Record, Sampled, SpanId, SpanOf, Verdict, Watch, sampled,
};
use myelin_engine::{Batch, Chain, ChainScratch, EventView, Fate, Judgement, RouteTarget, Seen};
use myelin_mesh::SiteSet;
use myelin_transport::Connection;
use myelin_wire::event::{EventHead, HEAD_BYTES};
use std::time::{Duration, Instant};

/// Bytes of a reason or a detail that are kept.
const TEXT_BYTES_MAX: usize = 256;

/// This router, as `SITE/ROUTER`.
fn here(local: &Local) -> String {
    format!("{}/{}", local.shared.site, local.shared.router)
}

/// The names of sites.
pub fn site_names(local: &Local, sites: SiteSet) -> Vec<String> {
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
    let judgement = chain.run_watched(batch, scratch, &watched, &mut seen).await;
    for one in &seen {
        let verdict = verdict(active, chain, &judgement, one);
        watch.note(one.event, Verdict { stage: if is_egress { "egress" } else { "ingress" }.to_owned(), ..verdict });
    }
    judgement
}

fn verdict(active: &Active, chain: &Chain, judgement: &Judgement<'_>, one: &Seen) -> Verdict {
    let binding = chain.bindings().get(one.binding).map_or("", |binding| binding.name());
    let judged = judgement.event(one.event);
    let is_decided = judged.binding == Some(one.binding);
    let reason = if judged.reason.is_empty() { judged.detail } else { judged.reason };
    let sends = one.adds || one.fate == Fate::Redirect;
    let target = |target: &RouteTarget| target.to_string();
    Verdict {
        stage: String::new(),
        binding: binding.to_owned(),
        module: active.module_of(binding).unwrap_or_default(),
        verdict: one.fate.as_str().to_owned(),
        reason: if is_decided { shorten(reason) } else { String::new() },
        targets: if sends { judgement.targets(one.event).map(target).collect() } else { Vec::new() },
        changed: one.changes,
        emitted: one.emits,
        fault: one.fault.map(str::to_owned),
        last_good: one.last_good,
        batch_took_ns: one.took_ns,
        batch_events: one.judged,
    }
}

fn shorten(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
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
    let plan =
        route.plan.as_ref().map(|plan| plan.grants.iter().fold(plan.sites, |all, one| all | SiteSet::only(one.site)));
    let is_wanted = route.copies > 0;
    let (span, sites) = match (&watch.arrival, key) {
        (Some(arrival), Some(seq)) => {
            (sampled.span(EventId { seq, ..arrival.origin }, &here, SpanOf::Hop), arrival.onward.clone())
        }
        // Nobody gives a number to what nobody wants.
        _ if !is_wanted => (SpanId::random(), Vec::new()),
        _ => (
            sampled.span(own(local, local.seq.get() + ahead), &here, SpanOf::Hop),
            site_names(local, plan.unwrap_or(SiteSet::EMPTY)),
        ),
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
    record_hop(local, watch, (sampled, span), generation, (topic, key), hop);
}

/// A filter has ended an event.
#[cold]
pub fn ended(local: &Local, watch: &mut Watch, event: &EventView<'_>, key: Option<u64>, (fate, why): (&str, &str)) {
    let Some(sampled) = sampled(event.attrs) else { return };
    let verdicts = watch.take(key);
    if !may_record(local) {
        return;
    }
    let hop = HopRecord { outcome: fate.to_owned(), detail: shorten(why), verdicts, ..HopRecord::default() };
    // Nothing follows from it elsewhere: its number need not be known there.
    record_hop(local, watch, (sampled, SpanId::random()), local.active().number, (event.topic, key), hop);
}

/// An event goes on to other routers, and to nobody here.
#[cold]
pub fn passed_on(local: &Local, watch: &Watch, (topic, attrs): (&str, &[u8]), seq: u64) {
    let (Some(sampled), Some(arrival)) = (sampled(attrs), &watch.arrival) else { return };
    if !may_record(local) {
        return;
    }
    let span = sampled.span(EventId { seq, ..arrival.origin }, &here(local), SpanOf::Hop);
    let hop = HopRecord { outcome: "passed-on".to_owned(), sites: arrival.onward.clone(), ..HopRecord::default() };
    record_hop(local, watch, (sampled, span), local.active().number, (topic, Some(seq)), hop);
}

/// Admission has refused an event.
#[cold]
pub fn refused(local: &Local, publisher: &str, (topic, attrs): (&str, &[u8]), (code, why): (&str, &str)) {
    let Some(sampled) = sampled(attrs).filter(|_| may_record(local)) else { return };
    let watch = Watch::new(publisher.into(), unix_ns(), None);
    let detail = format!("{code}: {}", shorten(why));
    let hop = HopRecord { outcome: "refused".to_owned(), detail, ..HopRecord::default() };
    record_hop(local, &watch, (sampled, SpanId::random()), local.active().number, (topic, None), hop);
}

fn record_hop(
    local: &Local,
    watch: &Watch,
    (sampled, span_id): (Sampled, SpanId),
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
            span_id,
            parent_id,
            router,
            topic: topic.to_owned(),
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

/// Copies of `events` of a traced delivery are written to the link to `to`; `first` is the first one's number.
#[cold]
pub fn sent(local: &Local, delivery: &Delivery, events: &[u8], first: EventId, (to, hops): (&str, u8)) {
    let link = LinkRecord { to: to.to_owned(), hops };
    let fill = |record: Record| Record { link: Some(link.clone()), ..record };
    record_copies(local, delivery, events, first, SpanOf::Link(to), fill);
}

/// Copies of `events` of a traced delivery are written to a session's connection; `seq` is the first one's number.
#[cold]
pub fn delivered(local: &Local, delivery: &Delivery, events: &[u8], seq: u64, session: &Connection) {
    let session = format!("{} at {}", session.identity(), session.remote());
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
        let delivery = DeliveryRecord { session: session.clone(), subscription };
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
