//! What filters say, carried out: verdicts become refusals, replacements and further events.
//!
//! A filter may send an event elsewhere, or make new ones. Each such *derived* event is judged under its new topic by
//! the bindings there, never by one that has judged it before, and at most [`DEPTH_MAX`] deep.

mod ask;

use crate::generation::Active;
use crate::hops;
use crate::ledger::Term;
use crate::local::{Local, Route, TopicEntry};
use crate::residency::DEAD_LETTERS;
use crate::trace::Watch;
use bytes::Bytes;
use myelin_catalog::Stage;
use myelin_engine::{BoundFilter, Chain, ChainScratch, EventView, Fate, Judged, Judgement, RouteTarget};
use myelin_mesh::SiteSet;
use myelin_wire::event::EventSpan;
use myelin_wire::{Attrs, AttrsBuilder, Code, validate_topic};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// How often an event may be derived from a derived one.
const DEPTH_MAX: u8 = 4;
/// Derived events that are judged for one batch of a publisher; further ones are refused. Bounds what a filter that
/// answers each event with many can make the router do.
pub const DERIVED_PER_BATCH_MAX: usize = 4096;
/// Why an event of a topic is refused that may not be at this site.
pub const NOT_HERE: &str = "a topic rule keeps events of this topic from this site; see `myelin topic ls`";
/// Longest reason in a dead letter's header, in bytes.
const REASON_BYTES_MAX: usize = 256;

/// An event on its way through the filters.
#[derive(Debug)]
pub struct Passing {
    /// Its place in the publish stream; none for a derived event that no publisher waits for.
    pub seq: Option<u64>,
    /// Where it was received; none for a derived event, which has attributes and payload of its own.
    pub span: Option<EventSpan>,
    /// Its topic.
    pub topic: Rc<TopicEntry>,
    /// Where it goes.
    pub route: Rc<Route>,
    /// The only sites that may have it, where a filter said so.
    pub within: Option<SiteSet>,
    /// New attributes.
    pub attrs: Option<Bytes>,
    /// A new payload.
    pub payload: Option<Bytes>,
}

/// The bindings that have judged an event, by address.
type Seen = SmallVec<[*const BoundFilter; 8]>;

/// An event that a filter made, moved, or gave up.
#[derive(Debug)]
pub struct Derived {
    topic: Arc<str>,
    attrs: Bytes,
    payload: Bytes,
    depth: u8,
    seen: Seen,
    /// The only sites that may have it, where a filter says so.
    within: Option<SiteSet>,
    /// The publisher's sequence, where this is the publisher's own event under another topic.
    seq: Option<u64>,
    /// The router's own: it goes to a topic that filters may not name.
    is_dead_letter: bool,
}

/// What the filters of a batch said, apart from the events that go on.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// For the publisher: sequence, code, detail.
    pub exceptions: Vec<(u64, Code, String)>,
    /// Still to be judged.
    pub derived: VecDeque<Derived>,
    /// Looks at the sampled events of the batch, where there are some.
    pub watch: Option<Box<Watch>>,
}

/// Judges events for one publisher's batch.
pub struct Judge<'a> {
    /// The worker.
    pub local: &'a Local,
    /// The generation of the batch.
    pub active: &'a Active,
    /// The publisher.
    pub identity: Arc<str>,
    /// The batch's clock, Unix nanoseconds.
    pub now_ns: u64,
}

/// One run of a chain: which, on which side of the matching, and what came before.
#[derive(Clone, Copy)]
struct Pass<'a> {
    chain: &'a Chain,
    is_egress: bool,
    /// Whether these events have not been judged here before.
    is_entry: bool,
    seen: &'a Seen,
    depth: u8,
}

/// What a publisher keeps from batch to batch for its filters.
#[derive(Debug, Default)]
pub struct Workbench {
    scratch: ChainScratch,
    /// What the filters said.
    pub verdicts: Verdicts,
}

impl Judge<'_> {
    /// Takes a publisher's events, all of `route`'s chains, through the filters; `true` when all go on as they came.
    /// Only where not, or where the egress has filters too, `enlist` puts them into `items`, and `items` are
    /// afterwards those that go on.
    pub async fn run(
        &self,
        (buffer, views): (&[u8], &[EventView<'_>]),
        route: &Route,
        items: &mut Vec<Passing>,
        bench: &mut Workbench,
        enlist: impl Fn(&mut Vec<Passing>),
    ) -> bool {
        let (mut untouched, seen) = (true, Seen::new());
        if let Some(chain) = &route.ingress {
            let pass = Pass { chain, is_egress: false, is_entry: true, seen: &seen, depth: 0 };
            let Workbench { scratch, verdicts } = &mut *bench;
            let judgement = self.ask(pass, views, scratch, verdicts).await;
            untouched = judgement.is_some_and(|judgement| judgement.all_pass_untouched());
            if untouched && route.egress.is_none() {
                if self.local.shade.is_on() && route.copies > 0 {
                    self.show(Stage::Egress, views);
                }
                return true;
            }
            enlist(items);
            if !untouched {
                let changes = self.carry_out(pass, judgement, views, items, verdicts);
                keep_changed(items, changes);
            }
        } else {
            if self.local.shade.is_on() {
                self.show(Stage::Ingress, views);
            }
            enlist(items);
        }
        if let Some(chain) = &route.egress {
            let is_entry = route.ingress.is_none();
            let pass = Pass { chain, is_egress: true, is_entry, seen: &seen, depth: 0 };
            untouched &= self.pass_wanted(pass, buffer, items, bench).await;
        } else if self.local.shade.is_on() {
            let wanted = items.iter().filter(|item| item.route.copies > 0);
            let views: Vec<_> = wanted.map(|item| view(item, buffer, &self.identity)).collect();
            self.show(Stage::Egress, &views);
        }
        untouched
    }

    /// Takes events that a router of another site sent through the filters before delivery; `items` are afterwards those
    /// that go on.
    pub async fn run_arrived(&self, chain: &Chain, buffer: &[u8], items: &mut Vec<Passing>, bench: &mut Workbench) {
        let seen = Seen::new();
        let pass = Pass { chain, is_egress: true, is_entry: true, seen: &seen, depth: 0 };
        self.pass_wanted(pass, buffer, items, bench).await;
    }

    /// Takes one derived event through the filters of its topic; what is left of it goes on.
    pub async fn run_derived(&self, derived: Derived, bench: &mut Workbench) -> Option<Passing> {
        let Derived { topic, attrs, payload, depth, seen, within, seq, is_dead_letter } = derived;
        let topic = self.local.topic(&topic);
        let route = match within {
            Some(sites) => self.local.route_within(&topic, self.active, sites),
            None => self.local.route(&topic, self.active),
        };
        if !route.may_be_here {
            self.turn_away(seq, &mut bench.verdicts);
            return None;
        }
        let ingress = route.ingress.as_ref().filter(|_| !is_dead_letter).and_then(|chain| without(chain, &seen));
        let egress = route.egress.as_ref().filter(|_| !is_dead_letter).and_then(|chain| without(chain, &seen));
        let (attrs, payload) = (Some(attrs), Some(payload));
        let mut items = vec![Passing { seq, span: None, topic, route, within, attrs, payload }];
        if let Some(chain) = &ingress {
            let pass = Pass { chain, is_egress: false, is_entry: true, seen: &seen, depth };
            self.pass(pass, &[], &mut items, bench).await;
        }
        if let Some(chain) = &egress {
            let pass = Pass { chain, is_egress: true, is_entry: ingress.is_none(), seen: &seen, depth };
            self.pass_wanted(pass, &[], &mut items, bench).await;
        }
        items.pop()
    }

    /// Refuses a derived event that may not be at this site.
    fn turn_away(&self, seq: Option<u64>, verdicts: &mut Verdicts) {
        self.local.ledger.sub(self.active.number, Term::InPipeline, 1);
        self.local.ledger.add(self.active.number, Term::Rejected, 1);
        self.local.shared.held_back.refused.fetch_add(1, Relaxed);
        if let Some(seq) = seq {
            verdicts.exceptions.push((seq, Code::Residency, NOT_HERE.to_owned()));
        }
    }

    /// Egress filters see only events that somebody wants.
    async fn pass_wanted(
        &self,
        pass: Pass<'_>,
        buffer: &[u8],
        items: &mut Vec<Passing>,
        bench: &mut Workbench,
    ) -> bool {
        if items.iter().all(|item| item.route.copies > 0) {
            return self.pass(pass, buffer, items, bench).await;
        }
        let (mut wanted, mut unwanted): (Vec<_>, Vec<_>) = items.drain(..).partition(|item| item.route.copies > 0);
        let untouched = wanted.is_empty() || self.pass(pass, buffer, &mut wanted, bench).await;
        // Order matters among events that are delivered; those that nobody wants are only counted.
        items.append(&mut wanted);
        items.append(&mut unwanted);
        untouched
    }

    /// One chain over events that are ready.
    async fn pass(&self, pass: Pass<'_>, buffer: &[u8], items: &mut Vec<Passing>, bench: &mut Workbench) -> bool {
        if items.is_empty() {
            return true;
        }
        let Workbench { scratch, verdicts } = bench;
        let identity = &*self.identity;
        let views: Vec<EventView<'_>> = items.iter().map(|item| view(item, buffer, identity)).collect();
        if let Some(watch) = &mut verdicts.watch {
            watch.keys = items.iter().map(|item| item.seq).collect();
        }
        let judgement = self.ask(pass, &views, scratch, verdicts).await;
        if judgement.is_some_and(|judgement| judgement.all_pass_untouched()) {
            return true;
        }
        let changes = self.carry_out(pass, judgement, &views, items, verdicts);
        drop(views);
        keep_changed(items, changes);
        false
    }

    /// Carries out what a chain said; for each event what changes in it, or `None` where it does not go on.
    fn carry_out(
        &self,
        pass: Pass<'_>,
        judgement: Option<Judgement<'_>>,
        views: &[EventView<'_>],
        items: &[Passing],
        verdicts: &mut Verdicts,
    ) -> Vec<Option<Changes>> {
        let Some(judgement) = judgement else {
            // The caller bounds batches; whatever does not fit all the same must not pass unjudged.
            for item in items {
                self.settle(pass.is_egress, item, Term::Rejected);
                refuse(verdicts, item, Code::Internal, "the batch does not fit a filter's bounds".to_owned());
            }
            return Vec::new();
        };
        let context = Context { judge: self, pass };
        let mut changes = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let (judged, event) = (judgement.event(index), &views[index]);
            context.derive(&judgement, index, &judged, event, item, verdicts);
            changes.push(match judged.fate {
                Fate::Pass => context.changes(&judged, item, verdicts),
                // The event itself goes on as a derived one.
                Fate::Redirect => None,
                Fate::Deny | Fate::DeadLetter | Fate::Drop => {
                    context.end(&judged, item, event, verdicts);
                    None
                }
            });
        }
        for emitted in judgement.emitted() {
            let mut seen = pass.seen.clone();
            seen.extend(pass.chain.bindings()[..=emitted.binding].iter().map(Rc::as_ptr));
            let (attrs, payload) = (Bytes::copy_from_slice(emitted.attrs), Bytes::copy_from_slice(emitted.payload));
            context.enter(emitted.topic, attrs, payload, seen, verdicts);
        }
        changes
    }

    /// Counts an event that ends here: at ingress among the events, at egress among the copies.
    fn settle(&self, is_egress: bool, item: &Passing, term: Term) {
        let (ledger, generation) = (&self.local.ledger, self.active.number);
        ledger.sub(generation, Term::InPipeline, 1);
        if is_egress {
            // It was matched; what an egress filter holds back are its copies.
            ledger.add(generation, Term::Matched, 1);
            ledger.add(generation, Term::Targets, item.route.copies);
            ledger.add(generation, Term::EgressRejected, item.route.copies);
        } else {
            ledger.add(generation, term, 1);
        }
    }
}

/// Keeps the events that go on, with what changes in them.
fn keep_changed(items: &mut Vec<Passing>, changes: Vec<Option<Changes>>) {
    let mut changes = changes.into_iter();
    items.retain_mut(|item| {
        let Some((attrs, payload)) = changes.next().flatten() else { return false };
        item.attrs = attrs.or(item.attrs.take());
        item.payload = payload.or(item.payload.take());
        true
    });
}

/// One chain's run, as its verdicts are carried out.
struct Context<'a> {
    judge: &'a Judge<'a>,
    pass: Pass<'a>,
}

/// New attributes and a new payload, where a filter has replaced them.
type Changes = (Option<Bytes>, Option<Bytes>);

impl Context<'_> {
    /// Makes the events that follow from one event's verdict: copies for routes, or the event itself where it was
    /// redirected.
    fn derive(
        &self,
        judgement: &Judgement<'_>,
        index: usize,
        judged: &Judged<'_>,
        event: &EventView<'_>,
        item: &Passing,
        verdicts: &mut Verdicts,
    ) {
        if !judged.has_targets {
            return;
        }
        let attrs = Bytes::copy_from_slice(judged.attrs.unwrap_or(event.attrs));
        let payload = Bytes::copy_from_slice(judged.payload.unwrap_or(event.payload));
        let mut seen = self.pass.seen.clone();
        seen.extend(self.pass.chain.bindings().iter().map(Rc::as_ptr));
        let mut topics: Vec<&str> = judgement.targets(index).filter_map(topic_of).collect();
        topics.sort_unstable();
        topics.dedup();
        let mut moves = judged.fate == Fate::Redirect;
        if moves && topics.is_empty() {
            // It stays what it is, and goes to some sites only.
            topics.push(event.topic);
        }
        let within = self.within(judgement, index, item);
        for topic in topics {
            let seq = if moves { item.seq } else { None };
            if !std::mem::take(&mut moves) {
                // Other than the event itself, it is not in the pipeline yet.
                self.count_in();
            }
            self.push((topic, within), attrs.clone(), payload.clone(), seen.clone(), seq, verdicts);
        }
    }

    /// The only sites that may have what follows from an event: those that every binding allows that names some, and
    /// every one before.
    fn within(&self, judgement: &Judgement<'_>, index: usize, item: &Passing) -> Option<SiteSet> {
        let named = judgement.target_sets(index).filter_map(|targets| {
            let names: SmallVec<[&str; 4]> = targets.filter_map(site_of).collect();
            (!names.is_empty()).then(|| self.judge.local.sites(names.into_iter()))
        });
        named.chain(item.within).reduce(|a, b| a & b)
    }

    fn count_in(&self) {
        let (ledger, generation) = (&self.judge.local.ledger, self.judge.active.number);
        ledger.add(generation, Term::Emitted, 1);
        ledger.add(generation, Term::InPipeline, 1);
    }

    /// A new event enters the pipeline.
    fn enter(&self, topic: &str, attrs: Bytes, payload: Bytes, seen: Seen, verdicts: &mut Verdicts) {
        self.count_in();
        self.push((topic, None), attrs, payload, seen, None, verdicts);
    }

    fn push(
        &self,
        (topic, within): (&str, Option<SiteSet>),
        attrs: Bytes,
        payload: Bytes,
        seen: Seen,
        seq: Option<u64>,
        verdicts: &mut Verdicts,
    ) {
        let (topic, depth) = (Arc::from(topic), self.pass.depth + 1);
        let derived = Derived { topic, attrs, payload, depth, seen, within, seq, is_dead_letter: false };
        let limit = self.judge.local.shared.limits.payload_bytes as usize;
        if depth > DEPTH_MAX || derived.payload.len() > limit {
            return abandon(self.judge.local, self.judge.active.number, derived, verdicts);
        }
        verdicts.derived.push_back(derived);
    }

    /// What changes in an event that goes on; `None` where it may not: a filter can make an event larger, but not larger
    /// than any event may be.
    fn changes(&self, judged: &Judged<'_>, item: &Passing, verdicts: &mut Verdicts) -> Option<Changes> {
        let limit = self.judge.local.shared.limits.payload_bytes as usize;
        if let Some(payload) = judged.payload.filter(|payload| payload.len() > limit) {
            self.judge.settle(self.pass.is_egress, item, Term::Rejected);
            let detail = format!("a filter made the payload {} bytes long; {limit} are allowed", payload.len());
            refuse(verdicts, item, Code::FilterFault, detail);
            return None;
        }
        Some((judged.attrs.map(Bytes::copy_from_slice), judged.payload.map(Bytes::copy_from_slice)))
    }

    /// An event that a filter has ended: counted, told to the publisher, and kept as a dead letter where it is to be.
    fn end(&self, judged: &Judged<'_>, item: &Passing, event: &EventView<'_>, verdicts: &mut Verdicts) {
        let binding =
            judged.binding.and_then(|index| self.pass.chain.bindings().get(index)).map_or("", |binding| binding.name());
        let why = match judged.fault {
            Some(fault) => format!("{}: {}", fault.code(), fault.detail),
            None if judged.detail.is_empty() => judged.reason.to_owned(),
            None if judged.reason.is_empty() => judged.detail.to_owned(),
            None => format!("{}: {}", judged.reason, judged.detail),
        };
        let (term, code) = match judged.fate {
            Fate::Drop => (Term::Dropped, None),
            Fate::DeadLetter => (Term::DeadLettered, Some(Code::DeadLettered)),
            _ if judged.fault.is_some() => (Term::Rejected, Some(Code::FilterFault)),
            _ => (Term::Rejected, Some(Code::Denied)),
        };
        self.judge.settle(self.pass.is_egress, item, term);
        if let Some(watch) = &mut verdicts.watch {
            hops::ended(self.judge.local, watch, event, item.seq, (judged.fate.as_str(), &why));
        }
        if let Some(code) = code.filter(|_| !self.pass.is_egress) {
            refuse(verdicts, item, code, format!("{binding}: {why}"));
        }
        if judged.fate == Fate::DeadLetter {
            self.bury(binding, &why, item, event, verdicts);
        }
    }

    /// Publishes a dead letter: the event under `$dead/<binding>/<topic>`, with the reason in its headers.
    fn bury(&self, binding: &str, why: &str, item: &Passing, event: &EventView<'_>, verdicts: &mut Verdicts) {
        let topic = format!("{DEAD_LETTERS}{binding}/{}", event.topic);
        // A topic at the limit has no room for the prefix: its dead letters share one topic.
        let topic = if validate_topic(&topic).is_ok() { topic } else { format!("{DEAD_LETTERS}{binding}") };
        let module = self.judge.active.module_of(binding).unwrap_or_default();
        let mut attrs = AttrsBuilder::new();
        Attrs::new(event.attrs).iter().filter(|attr| !attr.name.starts_with("myelin-")).for_each(|attr| {
            attrs.attr(&attr);
        });
        attrs
            .header("myelin-reason", &why[..why.floor_char_boundary(REASON_BYTES_MAX)])
            .header("myelin-binding", binding)
            .header("myelin-module", &module)
            .header("myelin-generation", &self.judge.active.number.to_string())
            .header("myelin-topic", event.topic);
        self.count_in();
        tracing::debug!(binding, why, topic = event.topic, seq = item.seq, "dead letter");
        verdicts.derived.push_back(Derived {
            topic: Arc::from(topic),
            attrs: Bytes::from(attrs.into_bytes()),
            payload: Bytes::copy_from_slice(event.payload),
            depth: self.pass.depth + 1,
            seen: Seen::new(),
            within: item.within,
            seq: None,
            is_dead_letter: true,
        });
    }
}

/// Refuses a derived event that goes too deep, is too large, or is one too many.
pub fn abandon(local: &Local, generation: u64, derived: Derived, verdicts: &mut Verdicts) {
    local.ledger.sub(generation, Term::InPipeline, 1);
    local.ledger.add(generation, Term::Rejected, 1);
    if let Some(seq) = derived.seq {
        let detail = format!("filters sent it on too often, too large, or with too many others, to {}", derived.topic);
        verdicts.exceptions.push((seq, Code::FilterFault, detail));
    }
    tracing::warn!(topic = &*derived.topic, depth = derived.depth, "a derived event is refused");
}

fn refuse(verdicts: &mut Verdicts, item: &Passing, code: Code, detail: String) {
    if let Some(seq) = item.seq {
        verdicts.exceptions.push((seq, code, detail));
    }
}

/// A chain without the bindings that have judged the event; none when nothing is left of it.
fn without(chain: &Rc<Chain>, seen: &Seen) -> Option<Rc<Chain>> {
    let bindings = chain.bindings();
    if !bindings.iter().any(|binding| seen.contains(&Rc::as_ptr(binding))) {
        return Some(chain.clone());
    }
    let left: Vec<_> = bindings.iter().filter(|binding| !seen.contains(&Rc::as_ptr(binding))).cloned().collect();
    (!left.is_empty()).then(|| Rc::new(Chain::new(left)))
}

fn topic_of(target: &RouteTarget) -> Option<&str> {
    match target {
        RouteTarget::Topic(topic) => Some(topic.as_str()),
        RouteTarget::Site(_) => None,
    }
}

fn site_of(target: &RouteTarget) -> Option<&str> {
    match target {
        RouteTarget::Site(site) => Some(site),
        RouteTarget::Topic(_) => None,
    }
}

fn view<'a>(item: &'a Passing, buffer: &'a [u8], identity: &'a str) -> EventView<'a> {
    let (attrs, payload) = item.span.map(|span| (span.attrs(buffer), span.payload(buffer))).unwrap_or_default();
    EventView {
        topic: &item.topic.name.text,
        attrs: item.attrs.as_deref().unwrap_or(attrs),
        payload: item.payload.as_deref().unwrap_or(payload),
        identity,
    }
}
