//! What all workers of a router share, and the queues between them.

mod identities;

pub use identities::{Identities, Presence, Subscribed};

use crate::capture::Captures;
use crate::outbox::{Delivery, Gauge, OutboxLimits};
use crate::policy::{Denials, Rules, Services};
use crate::registry::Registry;
use crate::residency::{HeldBack, Residency};
use crate::screen::Screens;
use crate::tokens::Tokens;
use arc_swap::ArcSwap;
use myelin_core::{SessionKey, Table};
use myelin_mesh::{Directory, Interest, Plan, Routes};
use myelin_wire::{Code, Limits, Pattern, Refusal};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

/// Parcels that may wait at a worker for each queue: enough to ride out a scheduling delay, few enough that waiting
/// for room is the publishers' back-pressure (each parcel is a slice of a batch, 64 KiB as a rule).
pub const MAILBOX_PARCELS: usize = 256;

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
    /// Where events may be.
    pub residency: Arc<ArcSwap<Residency>>,
    /// This site as the configuration has it: all that a router without links knows of where it is.
    pub alone: Directory,
    /// Who the open sessions are.
    pub services: Services,
    /// How many sessions each identity has.
    pub identities: Arc<Identities>,
    /// Whose tokens are believed; none where no issuer is configured.
    pub tokens: Option<Arc<Tokens>>,
    /// Who may do what.
    pub rules: Arc<ArcSwap<Rules>>,
    /// The version of the rules, for those who have to look again when they change.
    pub rules_version: watch::Sender<u64>,
    /// What the rules have denied.
    pub denials: Denials,
    /// How far the router is in its life.
    pub phase: watch::Sender<Phase>,
    /// Publish streams that are open.
    pub publishers: AtomicUsize,
    /// What residency has held back.
    pub held_back: HeldBack,
    /// By which schemas payloads are judged.
    pub screens: Arc<ArcSwap<Screens>>,
    /// The schemas that filters may ask for.
    pub registry: Arc<Registry>,
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
    /// Monotonic nanoseconds since the router's start.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

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
