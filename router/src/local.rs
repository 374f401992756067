//! What one worker owns.
//!
//! A worker is one OS thread: its sessions, names, match cache, filter instances and ledger cells are plain values
//! that nobody else touches. The subscription table is an immutable snapshot that the table's writer replaces.
//! Deliveries for another worker's sessions go there in parcels, through a bounded queue.

mod rights;

pub use crate::names::INBOX;

use crate::generation::Active;
use crate::ledger::Ledger;
use crate::names::{Name, Names};
use crate::outbox::{Gauge, Outbox};
use crate::policy::Rules;
use crate::residency::Residency;
use crate::screen::{Screen, Screens};
use crate::shadow::Shade;
use crate::shared::{Reach, Shared};
use crate::trace::Ring;
use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use myelin_core::{MatchSet, SessionKey, Table};
use myelin_engine::Chain;
use myelin_mesh::{GroupInterest, InterestMatch, Plan, ResidencyCache, SiteSet, group_id};
use myelin_policy::Decider;
use myelin_wire::Refusal;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// Routes of narrowed events that a worker keeps; all are found anew when there are more.
const NARROWED_MAX: usize = 4_096;

/// Whether a queue group of other sites has a member among these subscribers.
pub fn is_member(targets: &MatchSet, group: &GroupInterest) -> bool {
    targets.groups.iter().any(|here| here.name == group.name && *here.pattern == *group.pattern.as_str())
}

/// A topic as a worker knows it, with what was last found out about it.
#[derive(Debug)]
pub struct TopicEntry {
    /// Its number and text.
    pub name: Arc<Name>,
    route: RefCell<Option<Rc<Route>>>,
    screened: RefCell<Option<Rc<Screened>>>,
    /// The last run of events that this topic was listed for; see [`crate::fanout`].
    pub listed_in: Cell<u64>,
}

/// The rules about schemas that hold for a topic, under one table of them.
#[derive(Debug)]
pub struct Screened {
    version: u64,
    /// All of them hold.
    pub screens: Box<[Arc<Screen>]>,
}

/// Where the events of a topic go, under one table and one generation.
#[derive(Debug)]
pub struct Route {
    table_version: u64,
    reach_version: u64,
    residency_version: u64,
    rules_version: u64,
    generation: u64,
    /// Whether the events may be at this site at all.
    pub may_be_here: bool,
    /// Other sites that want them and do not get them, by the rules of residency.
    pub held_back: u32,
    /// Copies that subscribers here want and do not get, by the policies.
    pub withheld: u32,
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
    rules: Cached<Rules>,
    /// What is remembered of the rules of this version.
    decider: RefCell<(u64, Decider)>,
    reach: Option<Cached<Reach>>,
    residency: Cached<Residency>,
    screens: Cached<Screens>,
    allowed_routes: RefCell<ResidencyCache>,
    /// Routes of events that a filter lets go to some sites only, by topic and sites.
    narrowed: RefCell<HashMap<(u32, SiteSet), Rc<Route>, foldhash::fast::RandomState>>,
    active: RefCell<Rc<Active>>,
    /// The generation before, warm for a rollback.
    previous: RefCell<Option<Rc<Active>>>,
    /// What became of every event.
    pub ledger: Ledger,
    /// The next sequence number that the worker gives out.
    pub seq: Cell<u64>,
    /// Numbers the runs of events; see [`crate::fanout`].
    pub runs: Cell<u64>,
    /// What happened to sampled events here.
    pub traces: RefCell<Ring>,
    /// The shadow of a candidate, which judges copies of what is judged here.
    pub shade: Shade,
}

impl Local {
    /// A worker that serves `active`.
    pub fn new(id: u8, shared: Arc<Shared>, active: Rc<Active>) -> Self {
        Self {
            id,
            names: RefCell::new(Names::new(id)),
            seats: RefCell::default(),
            table: RefCell::new(Cache::new(shared.table.clone())),
            rules: RefCell::new(Cache::new(shared.rules.clone())),
            decider: RefCell::default(),
            reach: shared.outward.as_ref().map(|outward| RefCell::new(Cache::new(outward.reach.clone()))),
            residency: RefCell::new(Cache::new(shared.residency.clone())),
            screens: RefCell::new(Cache::new(shared.screens.clone())),
            allowed_routes: RefCell::default(),
            narrowed: RefCell::default(),
            active: RefCell::new(active),
            previous: RefCell::default(),
            ledger: Ledger::default(),
            seq: Cell::new(1),
            runs: Cell::new(0),
            traces: RefCell::new(Ring::new(Instant::now())),
            shade: Shade::default(),
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
        let make = |name| {
            let (route, screened) = (RefCell::new(None), RefCell::new(None));
            Rc::new(TopicEntry { name, route, screened, listed_in: Cell::new(0) })
        };
        self.names.borrow_mut().intern(text, make)
    }

    /// Where events of `topic` go under the table as it is now and under `active`.
    #[inline]
    pub fn route(&self, topic: &TopicEntry, active: &Active) -> Rc<Route> {
        if let Some(route) = &*topic.route.borrow()
            && self.is_current(route, active)
        {
            return route.clone();
        }
        let route = Rc::new(self.find_route(topic, active, None));
        topic.route.replace(Some(route.clone()));
        route
    }

    /// The same for events that a filter lets go to `sites` only.
    pub fn route_within(&self, topic: &TopicEntry, active: &Active, sites: &SiteSet) -> Rc<Route> {
        let key = (topic.name.reference, sites.clone());
        let known = self.narrowed.borrow().get(&key).cloned();
        if let Some(route) = known.filter(|route| self.is_current(route, active)) {
            return route;
        }
        let route = Rc::new(self.find_route(topic, active, Some(sites)));
        let mut narrowed = self.narrowed.borrow_mut();
        if narrowed.len() >= NARROWED_MAX {
            narrowed.clear();
        }
        narrowed.insert(key, route.clone());
        route
    }

    /// Whether payloads of any topic are judged by a schema.
    #[inline]
    pub fn is_screening(&self) -> bool {
        !self.screens.borrow_mut().load().is_empty()
    }

    /// Whether events of any topic may name a schema that is to be compiled first.
    #[inline]
    pub fn lets_events_name(&self) -> bool {
        self.screens.borrow_mut().load().lets_events_name()
    }

    /// The rules about schemas that hold for a topic as they are now.
    pub fn screened(&self, topic: &TopicEntry) -> Rc<Screened> {
        let mut screens = self.screens.borrow_mut();
        let screens = screens.load();
        if let Some(screened) = &*topic.screened.borrow()
            && screened.version == screens.version()
        {
            return screened.clone();
        }
        let of_topic = screens.of(&topic.name.text).cloned().collect();
        let screened = Rc::new(Screened { version: screens.version(), screens: of_topic });
        topic.screened.replace(Some(screened.clone()));
        screened
    }

    /// The sites of these names.
    pub fn sites<'a>(&self, names: impl Iterator<Item = &'a str>) -> SiteSet {
        let mut residency = self.residency.borrow_mut();
        let residency = residency.load();
        names.fold(SiteSet::EMPTY, |sites, name| sites | &residency.site(name))
    }

    #[inline]
    fn is_current(&self, route: &Route, active: &Active) -> bool {
        fn version<T>(snapshot: &Option<Cached<T>>, version: impl Fn(&T) -> u64) -> u64 {
            snapshot.as_ref().map_or(0, |snapshot| version(snapshot.borrow_mut().load()))
        }
        route.table_version == self.table.borrow_mut().load().version()
            && route.rules_version == self.rules_version()
            && route.generation == active.number
            && route.reach_version == version(&self.reach, |reach| reach.version)
            && route.residency_version == self.residency.borrow_mut().load().version()
    }

    fn find_route(&self, topic: &TopicEntry, active: &Active, only: Option<&SiteSet>) -> Route {
        let mut table = self.table.borrow_mut();
        let table = table.load();
        let (targets, rules_version, withheld) = self.targets(table, &topic.name.text);
        let mut residency = self.residency.borrow_mut();
        let residency = residency.load();
        let mut route = match &self.reach {
            Some(reach) => self.mesh_route(topic, active, (reach.borrow_mut().load(), residency), targets, only),
            None => self.lone_route(topic, active, residency, targets, only),
        };
        (route.table_version, route.rules_version, route.withheld) = (table.version(), rules_version, withheld);
        route
    }

    /// A route of a router without links: the one site that it knows is here.
    fn lone_route(
        &self,
        topic: &TopicEntry,
        active: &Active,
        residency: &Residency,
        mut targets: MatchSet,
        only: Option<&SiteSet>,
    ) -> Route {
        if only.is_some_and(SiteSet::is_empty) {
            targets = MatchSet::default();
        }
        Route {
            residency_version: residency.version(),
            may_be_here: residency.allowed(&topic.name.text).is_none_or(|sites| !sites.is_empty()),
            ..self.make_route(topic, active, targets, None)
        }
    }

    /// A route that may lead to other sites.
    fn mesh_route(
        &self,
        topic: &TopicEntry,
        active: &Active,
        (reach, residency): (&Reach, &Residency),
        mut targets: MatchSet,
        only: Option<&SiteSet>,
    ) -> Route {
        let mine = reach.routes.my_site();
        let ruled = residency.allowed(&topic.name.text);
        if only.is_some_and(|only| !only.contains(mine)) {
            targets = MatchSet::default();
        }
        let mut matched = InterestMatch::default();
        reach.interest.matches(&topic.name.text, &mut matched);
        // What a filter narrows down is here already; from here on it passes the sites that it may be at.
        let narrowed = only.map(|only| {
            matched.keep(only, mine);
            only.clone() | &SiteSet::only(mine)
        });
        let may_be_here = ruled.as_ref().is_none_or(|ruled| ruled.contains(mine));
        let allowed = match (ruled, narrowed) {
            (Some(ruled), Some(narrowed)) => Some(ruled & &narrowed),
            (ruled, narrowed) => ruled.or(narrowed),
        };
        let is_here = |group: &GroupInterest| is_member(&targets, group);
        let plan = myelin_mesh::plan(&matched, &reach.routes, &mut self.allowed_routes.borrow_mut(), allowed, is_here);
        let held_back = plan.not_allowed.len() + plan.no_allowed_path.len();
        let plan = (!plan.is_empty()).then(|| Arc::new(plan));
        Route {
            reach_version: reach.version,
            residency_version: residency.version(),
            may_be_here,
            held_back,
            ..self.make_route(topic, active, targets, plan)
        }
    }

    /// Where events go that another site's router sent for `plain` subscribers of this router and for one member of each
    /// of the groups with these numbers. Nothing of it goes to further sites.
    pub fn arrival(&self, topic: &TopicEntry, active: &Active, plain: bool, groups: &[u32]) -> Route {
        let mut table = self.table.borrow_mut();
        let table = table.load();
        let (mut targets, rules_version, withheld) = self.targets(table, &topic.name.text);
        if !plain {
            targets.plain.clear();
        }
        targets.groups.retain(|group| groups.contains(&group_id(&group.name, &group.pattern)));
        let route = self.make_route(topic, active, targets, None);
        Route { table_version: table.version(), rules_version, withheld, ..route }
    }

    /// Whether `route`, found before, still says where events go that arrive.
    pub fn is_current_arrival(&self, route: &Route, active: &Active) -> bool {
        route.generation == active.number
            && route.table_version == self.table.borrow_mut().load().version()
            && route.rules_version == self.rules_version()
    }

    /// A route of no version yet, by which events may be here and nothing is held back.
    fn make_route(&self, topic: &TopicEntry, active: &Active, targets: MatchSet, plan: Option<Arc<Plan>>) -> Route {
        let mut gauges = Vec::new();
        if let Ok(known) = self.shared.gauges.read()
            && !known.is_empty()
        {
            let members = targets.groups.iter().flat_map(|group| group.members.iter().map(|(key, _)| *key));
            let keys = targets.plain.iter().copied().chain(members);
            gauges.extend(keys.filter_map(|key| Some((key, known.get(&key)?.clone()))));
        }
        Route {
            table_version: 0,
            reach_version: 0,
            residency_version: 0,
            rules_version: 0,
            generation: active.number,
            may_be_here: true,
            held_back: 0,
            withheld: 0,
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
}
