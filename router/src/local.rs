//! What one worker owns, and what all workers share.
//!
//! A worker is one OS thread: its sessions, names, match cache, filter instances and ledger cells are plain values
//! that nobody else touches. The subscription table is an immutable snapshot that the table's writer replaces.
//! Deliveries for another worker's sessions go there in parcels, through a bounded queue.

use crate::capture::Captures;
use crate::generation::Active;
use crate::ledger::Ledger;
use crate::names::{Name, Names};
use crate::outbox::{Delivery, Gauge, Offered, Outbox, OutboxLimits};
use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use myelin_core::{MatchSet, SessionKey, Table};
use myelin_engine::Chain;
use myelin_mesh::{GroupInterest, Interest, InterestMatch, Plan, ResidencyCache, Routes, group_id};
use myelin_wire::{Code, Limits, Pattern, Refusal};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc, watch};

/// Parcels that may wait at a worker for each queue: enough to ride out a scheduling delay, few enough that waiting
/// for room is the publishers' back-pressure (each parcel is a slice of a batch, 64 KiB as a rule).
pub const MAILBOX_PARCELS: usize = 256;

/// Prefix of the topics on which sessions receive answers: `$inbox/ROUTER/SESSION/..`, where ROUTER is the hexadecimal
/// number of the router that the session is at. A router tells other sites once that it wants all of its own, so that an
/// answer finds its way however young the session is.
pub const INBOX: &str = "$inbox/";

/// Events for sessions of another worker.
#[derive(Debug)]
pub struct Parcel {
    /// The sessions, all of the receiving worker.
    pub to: SmallVec<[SessionKey; 4]>,
    /// The events.
    pub delivery: Delivery,
}

/// Events for other sites.
#[derive(Debug)]
pub struct Forward {
    /// The events.
    pub delivery: Delivery,
    /// Where they go.
    pub plan: Arc<Plan>,
}

/// What the other sites want, and the ways there: an immutable snapshot that the links publish.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Grows with every snapshot.
    pub version: u64,
    /// What the other sites want.
    pub interest: Interest,
    /// The ways there.
    pub routes: Arc<Routes>,
}

/// A first subscription to a pattern, or the end of the last one, as the other sites are told.
#[derive(Debug)]
pub struct InterestChange {
    /// What is subscribed to.
    pub pattern: Pattern,
    /// As a member of which queue group.
    pub group: Option<Arc<str>>,
    /// Whether it begins.
    pub begins: bool,
}

/// How workers reach the other sites.
#[derive(Debug)]
pub struct Outward {
    /// The snapshot.
    pub reach: Arc<ArcSwap<Reach>>,
    /// The queue of the thread that keeps the links.
    pub forwards: mpsc::Sender<Forward>,
    /// Where changes of the own interest go.
    pub interest: mpsc::Sender<InterestChange>,
}

/// A change of the subscription table, asked for by a session.
#[derive(Debug)]
pub struct TableCommand {
    /// Whose subscription.
    pub session: SessionKey,
    /// What changes.
    pub change: TableChange,
    /// Told when the change is live on every worker.
    pub done: tokio::sync::oneshot::Sender<Result<(), Refusal>>,
}

/// What changes in the subscription table.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TableChange {
    Subscribe { id: u32, pattern: myelin_wire::Pattern, group: Option<Arc<str>> },
    Unsubscribe { id: u32 },
    DropSession,
}

/// How far the router is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It takes no new sessions; publishers finish what is in flight. Ends at the given instant at the latest.
    Draining(Instant),
    /// No publisher is left: queues are flushed, sessions closed.
    Flushing(Instant),
}

/// What all workers of a router share.
#[derive(Debug)]
pub struct Shared {
    /// Name of the site.
    pub site: String,
    /// Name of the router.
    pub router: String,
    /// Number of the router in stamps.
    pub origin: u32,
    /// How often the router was started.
    pub epoch: u32,
    /// Limits of the wire.
    pub limits: Limits,
    /// Bounds of each subscriber's outbox.
    pub outbox: OutboxLimits,
    /// Sessions that a worker takes.
    pub sessions_max: usize,
    /// The subscription table.
    pub table: Arc<ArcSwap<Table>>,
    /// The table's writer.
    pub table_writer: mpsc::Sender<TableCommand>,
    /// The workers' queues.
    pub mailboxes: Box<[mpsc::Sender<Parcel>]>,
    /// Gauges of the subscribers that let publishers wait.
    pub gauges: RwLock<HashMap<SessionKey, Arc<Gauge>>>,
    /// The other sites, where there are links to them.
    pub outward: Option<Outward>,
    /// How far the router is in its life.
    pub phase: watch::Sender<Phase>,
    /// Publish streams that are open.
    pub publishers: AtomicUsize,
    /// Sessions that are open.
    pub sessions: AtomicUsize,
    /// Origin of monotonic milliseconds.
    pub started: Instant,
    /// Counters by kind of refusal, indexed by code.
    pub refusals: Refusals,
    /// What is recorded of events and verdicts.
    pub captures: Captures,
}

/// Refusals by code.
#[derive(Debug)]
pub struct Refusals(Box<[AtomicU64]>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Code::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Refusals {
    /// Counts one.
    pub fn count(&self, code: Code) {
        if let Some(at) = Code::ALL.iter().position(|known| *known == code) {
            self.0[at].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// All counters that are not zero.
    pub fn snapshot(&self) -> Vec<(Code, u64)> {
        let values = self.0.iter().map(|cell| cell.load(std::sync::atomic::Ordering::Relaxed));
        Code::ALL.iter().copied().zip(values).filter(|(_, count)| *count > 0).collect()
    }
}

impl Shared {
    /// Monotonic milliseconds since the router's start.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Unix time in nanoseconds.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A topic as a worker knows it, with what was last found out about it.
#[derive(Debug)]
pub struct TopicEntry {
    /// Its number and text.
    pub name: Arc<Name>,
    route: RefCell<Option<Rc<Route>>>,
    /// The last run of events that this topic was listed for; see [`crate::fanout`].
    pub listed_in: Cell<u64>,
}

/// Where the events of a topic go, under one table and one generation.
#[derive(Debug)]
pub struct Route {
    table_version: u64,
    reach_version: u64,
    generation: u64,
    /// Other sites that get a copy.
    pub plan: Option<Arc<Plan>>,
    /// The subscribers.
    pub targets: MatchSet,
    /// Copies that an event becomes.
    pub copies: u64,
    /// Gauges of those targets that let publishers wait.
    pub gauges: Vec<(SessionKey, Arc<Gauge>)>,
    /// Filters before matching.
    pub ingress: Option<Rc<Chain>>,
    /// Filters before fan-out.
    pub egress: Option<Rc<Chain>>,
    /// For each group, whose turn it is.
    pub turns: RefCell<SmallVec<[u32; 2]>>,
}

/// Why a session ends: set once, by whoever finds the reason first.
#[derive(Debug, Default)]
pub struct Ending {
    reason: RefCell<Option<Refusal>>,
    wake: Notify,
}

impl Ending {
    /// Ends the session with `refusal`, unless it ends already.
    pub fn set(&self, refusal: Refusal) {
        self.reason.borrow_mut().get_or_insert(refusal);
        self.wake.notify_waiters();
        self.wake.notify_one();
    }

    /// Whether the session ends.
    pub fn is_set(&self) -> bool {
        self.reason.borrow().is_some()
    }

    /// Waits for the end.
    pub async fn reason(&self) -> Refusal {
        loop {
            let mut wake = std::pin::pin!(self.wake.notified());
            wake.as_mut().enable();
            if let Some(reason) = self.reason.borrow().clone() {
                return reason;
            }
            wake.await;
        }
    }
}

/// A subscriber's place at its worker.
#[derive(Clone, Debug)]
pub struct Seat {
    /// What waits for it.
    pub outbox: Rc<Outbox>,
    /// How to end it.
    pub ending: Rc<Ending>,
}

#[derive(Debug, Default)]
struct Seats {
    places: Vec<(u32, Option<Seat>)>,
    free: Vec<u32>,
}

/// A snapshot that somebody else replaces, as one worker last saw it.
type Cached<T> = RefCell<Cache<Arc<ArcSwap<T>>, Arc<T>>>;

/// What one worker owns.
#[derive(Debug)]
pub struct Local {
    /// The worker's number.
    pub id: u8,
    /// What it shares.
    pub shared: Arc<Shared>,
    /// The topics and identities it told its sessions numbers for.
    names: RefCell<Names<Rc<TopicEntry>>>,
    seats: RefCell<Seats>,
    table: Cached<Table>,
    reach: Option<Cached<Reach>>,
    residency: RefCell<ResidencyCache>,
    active: RefCell<Rc<Active>>,
    /// The generation before, warm for a rollback.
    previous: RefCell<Option<Rc<Active>>>,
    /// What became of every event.
    pub ledger: Ledger,
    /// The next sequence number that the worker gives out.
    pub seq: Cell<u64>,
    /// Numbers the runs of events; see [`crate::fanout`].
    pub runs: Cell<u64>,
}

impl Local {
    /// A worker that serves `active`.
    pub fn new(id: u8, shared: Arc<Shared>, active: Rc<Active>) -> Self {
        Self {
            id,
            names: RefCell::new(Names::new(id)),
            seats: RefCell::default(),
            table: RefCell::new(Cache::new(shared.table.clone())),
            reach: shared.outward.as_ref().map(|outward| RefCell::new(Cache::new(outward.reach.clone()))),
            residency: RefCell::default(),
            active: RefCell::new(active),
            previous: RefCell::default(),
            ledger: Ledger::default(),
            seq: Cell::new(1),
            runs: Cell::new(0),
            shared,
        }
    }

    /// The generation that judges the next batch.
    pub fn active(&self) -> Rc<Active> {
        self.active.borrow().clone()
    }

    /// Makes `next` judge every batch from here on; returns what judged until now.
    pub fn activate(&self, next: Rc<Active>) -> Rc<Active> {
        self.active.replace(next)
    }

    /// Keeps `previous` warm; returns what was kept until now.
    pub fn keep_previous(&self, previous: Option<Rc<Active>>) -> Option<Rc<Active>> {
        self.previous.replace(previous)
    }

    /// The worker's entry of a topic or an identity.
    pub fn topic(&self, text: &str) -> Rc<TopicEntry> {
        let make = |name| Rc::new(TopicEntry { name, route: RefCell::new(None), listed_in: Cell::new(0) });
        self.names.borrow_mut().intern(text, make)
    }

    /// Where events of `topic` go under the table as it is now and under `active`.
    #[inline]
    pub fn route(&self, topic: &TopicEntry, active: &Active) -> Rc<Route> {
        let mut table = self.table.borrow_mut();
        let table = table.load();
        let mut reach = self.reach.as_ref().map(RefCell::borrow_mut);
        let reach = reach.as_mut().map(|reach| &**reach.load());
        if let Some(route) = &*topic.route.borrow()
            && route.table_version == table.version()
            && route.generation == active.number
            && route.reach_version == reach.map_or(0, |reach| reach.version)
        {
            return route.clone();
        }
        let mut targets = MatchSet::default();
        table.matches(&topic.name.text, &mut targets);
        let plan = reach.and_then(|reach| self.plan(topic, reach, &targets));
        let versions = (table.version(), reach.map_or(0, |reach| reach.version));
        let route = Rc::new(self.make_route(topic, active, versions, targets, plan));
        topic.route.replace(Some(route.clone()));
        route
    }

    /// The other sites that get an event of `topic`; `None` where none does.
    fn plan(&self, topic: &TopicEntry, reach: &Reach, targets: &MatchSet) -> Option<Arc<Plan>> {
        let mut matched = InterestMatch::default();
        reach.interest.matches(&topic.name.text, &mut matched);
        let is_here = |group: &GroupInterest| {
            targets.groups.iter().any(|here| here.name == group.name && *here.pattern == *group.pattern.as_str())
        };
        let plan = myelin_mesh::plan(&matched, &reach.routes, &mut self.residency.borrow_mut(), None, is_here);
        (!plan.is_empty()).then(|| Arc::new(plan))
    }

    /// Where events go that another site's router sent for `plain` subscribers of this router and for one member of each
    /// of the groups with these numbers. Nothing of it goes to further sites.
    pub fn arrival(&self, topic: &TopicEntry, active: &Active, plain: bool, groups: &[u32]) -> Route {
        let mut table = self.table.borrow_mut();
        let table = table.load();
        let mut targets = MatchSet::default();
        table.matches(&topic.name.text, &mut targets);
        if !plain {
            targets.plain.clear();
        }
        targets.groups.retain(|group| groups.contains(&group_id(&group.name, &group.pattern)));
        self.make_route(topic, active, (table.version(), 0), targets, None)
    }

    /// Whether `route`, found before, still says where events go that arrive.
    pub fn is_current_arrival(&self, route: &Route, active: &Active) -> bool {
        route.generation == active.number && route.table_version == self.table.borrow_mut().load().version()
    }

    fn make_route(
        &self,
        topic: &TopicEntry,
        active: &Active,
        (table_version, reach_version): (u64, u64),
        targets: MatchSet,
        plan: Option<Arc<Plan>>,
    ) -> Route {
        let mut gauges = Vec::new();
        if let Ok(known) = self.shared.gauges.read()
            && !known.is_empty()
        {
            let members = targets.groups.iter().flat_map(|group| group.members.iter().map(|(key, _)| *key));
            let keys = targets.plain.iter().copied().chain(members);
            gauges.extend(keys.filter_map(|key| Some((key, known.get(&key)?.clone()))));
        }
        Route {
            table_version,
            reach_version,
            generation: active.number,
            // The other sites are one copy here; the links count what becomes of it.
            copies: (targets.plain.len() + targets.groups.len() + usize::from(plan.is_some())) as u64,
            plan,
            turns: RefCell::new(SmallVec::from_elem(0, targets.groups.len())),
            targets,
            gauges,
            ingress: active.ingress(&topic.name.text),
            egress: active.egress(&topic.name.text),
        }
    }

    /// Gives a session a place; `None` when the worker has as many as it takes.
    pub fn take_seat(&self, seat: Seat) -> Option<SessionKey> {
        let mut seats = self.seats.borrow_mut();
        let slot = match seats.free.pop() {
            Some(slot) => slot,
            None if seats.places.len() >= self.shared.sessions_max => return None,
            None => {
                seats.places.push((0, None));
                u32::try_from(seats.places.len() - 1).ok()?
            }
        };
        let place = &mut seats.places[slot as usize];
        place.0 = place.0.wrapping_add(1);
        place.1 = Some(seat);
        Some(SessionKey { worker: self.id, slot, generation: place.0 })
    }

    /// Frees the place of `session`.
    pub fn leave_seat(&self, session: SessionKey) {
        let mut seats = self.seats.borrow_mut();
        seats.places[session.slot as usize].1 = None;
        seats.free.push(session.slot);
    }

    /// The seat of `session`, when it is still there.
    pub fn seat(&self, session: SessionKey) -> Option<Seat> {
        let seats = self.seats.borrow();
        let (generation, seat) = seats.places.get(session.slot as usize)?;
        seat.as_ref().filter(|_| *generation == session.generation).cloned()
    }

    /// Queues `delivery` for `session`, and counts what comes of it.
    pub fn offer(&self, session: SessionKey, delivery: Delivery) {
        use crate::ledger::Term;
        let (generation, count) = (delivery.origin.generation, u64::from(delivery.count));
        let Some(seat) = self.seat(session) else {
            return self.ledger.settle(generation, Term::Lost, count);
        };
        let shed = |old: &Delivery| self.ledger.settle(old.origin.generation, Term::Shed, u64::from(old.count));
        match seat.outbox.offer(delivery, shed) {
            Offered::Queued => {}
            Offered::Closed => self.ledger.settle(generation, Term::Lost, count),
            Offered::Overflowed => {
                self.ledger.settle(generation, Term::Shed, count);
                let message = "this subscriber does not keep up and asked to be disconnected then; read faster, subscribe to less, or choose another overflow policy";
                seat.ending.set(Refusal::new(Code::SlowConsumer, message));
            }
        }
    }
}
