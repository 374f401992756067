//! What filters say, carried out: verdicts become refusals, replacements and further events.
//!
//! A filter may send an event elsewhere, or make new ones. Each such *derived* event is judged under its new topic by
//! the bindings there, never by one that has judged it before, and at most four deep.

mod ask;
mod carry;
mod turn_back;

pub use carry::abandon;

use crate::generation::Active;
use crate::hops;
use crate::ledger::Term;
use crate::local::{Local, Route, TopicEntry};
use crate::residency::dead_letter;
use crate::screen::{Pace, Waiting};
use crate::tenants::Usage;
use crate::trace::Watch;
use bytes::Bytes;
use carry::{Changes, Context, refuse};
use myelin_catalog::Stage;
use myelin_engine::{BoundFilter, Chain, ChainScratch, EventView, Fate, Judgement};
use myelin_mesh::SiteSet;
use myelin_wire::Code;
use myelin_wire::event::EventSpan;
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
/// Why an event is refused that would be a dead letter.
const DEAD_LETTERS_USED_UP: &str = "and the tenant's dead_letters_per_s is used up";
/// The same, where topic or attributes have no room for what a dead letter adds.
const NO_ROOM_FOR_LETTER: &str = "and it is too long for a dead letter";
/// Bytes of the headers that a dead letter adds to its event's attributes, at most: five texts of up to 256 bytes each, a
/// number, and their names.
const LETTER_HEADERS_BYTES_MAX: usize = 2_048;
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
    /// What the publisher's tenant uses.
    pub tenant: Option<Arc<Usage>>,
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
    /// What its payloads take that schemas judge.
    pub pace: Pace,
    /// How long the batch still waits for schemas that its events are the first to name.
    pub waiting: Waiting,
    /// What the filters said.
    pub verdicts: Verdicts,
}

impl Workbench {
    /// The CPU time of the publisher's filters, and of the schemas that its payloads are judged by, since the last look, in
    /// nanoseconds.
    pub fn take_cpu_ns(&mut self) -> u64 {
        self.scratch.take_cpu_ns() + self.pace.take_ns()
    }
}

impl Judge<'_> {
    /// The topic of the dead letter that `binding` makes of an event; or why there is none. One is counted, for the quota of
    /// the publisher's tenant.
    fn letter(&self, binding: &str, event: &EventView<'_>) -> Result<String, &'static str> {
        let has_room = event.attrs.len() + LETTER_HEADERS_BYTES_MAX <= usize::from(u16::MAX);
        let topic = dead_letter(binding, event.topic).filter(|_| has_room).ok_or(NO_ROOM_FOR_LETTER)?;
        let may = self.tenant.as_ref().is_none_or(|tenant| tenant.may_bury(self.local.shared.now_ns()));
        if may { Ok(topic) } else { Err(DEAD_LETTERS_USED_UP) }
    }

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
            let Workbench { scratch, verdicts, .. } = &mut *bench;
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
        let route = match &within {
            Some(sites) => self.local.route_within(&topic, self.active, sites),
            None => self.local.route(&topic, self.active),
        };
        if !route.may_be_here {
            let event =
                EventView { topic: &topic.name.text, attrs: &attrs, payload: &payload, identity: &self.identity };
            self.turn_away(seq, &event, &mut bench.verdicts);
            return None;
        }
        if !is_dead_letter && self.local.is_screening() {
            let event =
                EventView { topic: &topic.name.text, attrs: &attrs, payload: &payload, identity: &self.identity };
            let screened = self.local.screened(&topic);
            let mut bad = None;
            for screen in &screened.screens {
                screen.wait_for_schema(&event, &mut bench.waiting).await;
                let pace = &mut bench.pace;
                pace.begin();
                let judged = screen.judge_waited(&event, pace.work_ns());
                pace.end();
                if let Err(violation) = judged {
                    bad = Some((screen, violation));
                    break;
                }
            }
            if bench.pace.is_over() {
                bench.pace.pass_turn().await;
                bench.pace.end();
            }
            if let Some((screen, violation)) = bad {
                self.turn_back(screen, &violation, &event, (seq, within), &mut bench.verdicts);
                return None;
            }
            screened.screens.iter().for_each(|screen| screen.passed(1));
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
    fn turn_away(&self, seq: Option<u64>, event: &EventView<'_>, verdicts: &mut Verdicts) {
        self.local.ledger.sub(self.active.number, Term::InPipeline, 1);
        self.local.ledger.add(self.active.number, Term::Rejected, 1);
        self.local.shared.held_back.refused.fetch_add(1, Relaxed);
        hops::not_allowed(self.local, verdicts.watch.as_deref_mut(), event, seq, (Code::Residency, NOT_HERE));
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
        let Workbench { scratch, verdicts, .. } = bench;
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
                Fate::Pass => context.changes(&judged, item, event, verdicts),
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

/// A chain without the bindings that have judged the event; none when nothing is left of it.
fn without(chain: &Rc<Chain>, seen: &Seen) -> Option<Rc<Chain>> {
    let bindings = chain.bindings();
    if !bindings.iter().any(|binding| seen.contains(&Rc::as_ptr(binding))) {
        return Some(chain.clone());
    }
    let left: Vec<_> = bindings.iter().filter(|binding| !seen.contains(&Rc::as_ptr(binding))).cloned().collect();
    (!left.is_empty()).then(|| Rc::new(Chain::new(left)))
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
