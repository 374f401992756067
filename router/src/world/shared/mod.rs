//! The log that all routers of a mesh share, and append to by compare-and-set: `[catalog] engine = "jetstream"`.
//!
//! Every router keeps its own copy of the log beside it, as a follower of a writer does: records that come from the
//! shared log go through the same checks as records of a neighbour, and what the router runs follows from the copy alone.
//! So the shared log may go away at any time: routing, joins and restarts go on from the copy, and changes are refused.
//!
//! * A thread of its own (`desk`) has the connection. Everybody else gives it orders through a bounded queue.
//! * A change is decided and its record drafted and signed by the keeper, for the end of its copy; the desk appends it,
//!   and it counts once it comes back as a record of the log. Where another router was faster nothing is appended, and
//!   the change is decided anew.
//! * Each router signs with its own key. The first one founds the log with it; every other asks a router whose key is
//!   trusted to write down its own (`keep`). Until then such a router writes down its changes for it.
//! * One router at a time controls rollouts: the one with the lease.

mod desk;
mod keep;

pub(super) use desk::{Desk, Order};
pub(super) use keep::{Part, Written};

use super::{Answer, Blame, View, World, WorldError};
use myelin_catalog::{Catalog, Digest, Name, PublicKey, Record};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// The code of a change that was overtaken by another router's.
pub(super) const MOVED: &str = "catalog-moved";
/// The code of a refusal by a router whose key the log does not trust.
pub(super) const CANNOT_SIGN: &str = "cannot-sign";
/// How often a change is decided anew when others are faster: each time one of them has made its own.
pub(super) const ATTEMPTS: u32 = 16;
/// How long the record of a change may take to come back.
const COME_BACK: Duration = Duration::from_secs(30);

/// The shared log, as the rest of a router knows it. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct SharedLog {
    orders: SyncSender<Order>,
    state: watch::Receiver<State>,
    me: Arc<Me>,
}

/// Who this router is to the log.
#[derive(Debug)]
pub(super) struct Me {
    /// `SITE/ROUTER`: the holder of a lease.
    pub(super) title: String,
    /// What the log calls its key.
    pub(super) key_id: Name,
    /// Its key.
    pub(super) public_key: PublicKey,
}

/// How the shared log stands.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// It is open and ends with `rev`.
    Open {
        /// The newest record that is known of.
        rev: u64,
        /// Who controls rollouts.
        lead: Lead,
    },
    /// It is not, and why.
    Away(WorldError),
}

/// Who controls rollouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// That is not known.
    Unknown,
    /// This router.
    Here,
    /// The router of that title.
    There(Arc<str>),
}

/// How the shared log stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedLogStatus {
    /// Why it is not reached; none where it is.
    pub problem: Option<String>,
    /// The router that controls rollouts, as `SITE/ROUTER`, where that is known.
    pub controller: Option<String>,
}

impl Me {
    /// Whether the log trusts this router's key.
    pub(super) fn can_sign(&self, catalog: &Catalog) -> bool {
        let known = catalog.keys().find(&self.key_id);
        known.is_some_and(|key| key.revoked_rev.is_none() && key.public_key == self.public_key)
    }
}

impl SharedLog {
    /// Who this router is to the log.
    pub(super) fn me(&self) -> &Me {
        &self.me
    }

    /// The newest record that is known of, while the log is open.
    pub(super) fn rev(&self) -> Option<u64> {
        match &*self.state.borrow() {
            State::Open { rev, .. } => Some(*rev),
            State::Away(_) => None,
        }
    }

    /// Who controls rollouts.
    pub(super) fn lead(&self) -> Lead {
        match &*self.state.borrow() {
            State::Open { lead, .. } => lead.clone(),
            State::Away(_) => Lead::Unknown,
        }
    }

    /// The number and the title of the router that controls rollouts, where it is another one that the catalog knows.
    pub(super) fn elsewhere(&self, view: &View) -> Option<(u32, String)> {
        let Lead::There(title) = self.lead() else { return None };
        let (site, router) = title.split_once('/')?;
        let router = view.catalog.fleet().router(&site.parse().ok()?, &router.parse().ok()?)?;
        Some((router.number, title.as_ref().to_owned()))
    }

    pub(super) fn status(&self) -> SharedLogStatus {
        let controller = match self.lead() {
            Lead::Unknown => None,
            Lead::Here => Some(self.me.title.clone()),
            Lead::There(title) => Some(title.as_ref().to_owned()),
        };
        let problem = match &*self.state.borrow() {
            State::Open { .. } => None,
            State::Away(error) => Some(format!("{}: {error}", error.code)),
        };
        SharedLogStatus { problem, controller }
    }

    /// Appends a record that follows the end of this router's copy, a step of a rollout only while this router has the
    /// lease; says its revision.
    ///
    /// # Errors
    /// `catalog-moved` where it does not follow the end of the log; `store-unavailable` where nobody knows.
    pub(super) async fn append(&self, record: Record, is_step: bool) -> Result<u64, WorldError> {
        self.ask(|answer| Order::Append { record: Box::new(record), is_step, answer }).await
    }

    /// The bytes of a module.
    ///
    /// # Errors
    /// Where the log does not have them, or is away.
    pub(super) async fn blob(&self, digest: Digest) -> Result<Vec<u8>, WorldError> {
        self.ask(|answer| Order::Blob { digest, answer }).await
    }

    /// Waits until this router has all that is in the log now; `revision` is that of its copy.
    ///
    /// # Errors
    /// `record-late`; where the log is away.
    pub(super) async fn catch_up(&self, revision: watch::Receiver<u64>) -> Result<(), WorldError> {
        let rev = self.ask(|answer| Order::Newest { answer }).await?;
        come_back(rev, revision, "in the shared log").await.map(drop)
    }

    /// Gives an order and waits for its answer. Where the log is away the refusal comes at once.
    async fn ask<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, WorldError> {
        if let State::Away(error) = &*self.state.borrow() {
            return Err(error.clone());
        }
        let (answer, answered) = oneshot::channel();
        self.orders.try_send(order(answer)).map_err(|_| busy())?;
        answered.await.map_err(|_| WorldError::stopped())?
    }

    /// Lets the log go; the answer comes when the lease is given back.
    pub(super) fn stop(&self) -> oneshot::Receiver<()> {
        let (done, stopped) = oneshot::channel();
        // Full or gone: dropped, which is an answer as well.
        let _ = self.orders.try_send(Order::Stop(done));
        stopped
    }
}

impl World {
    /// How the log that all routers share stands; none where one router writes it.
    pub fn shared_log(&self) -> Option<SharedLogStatus> {
        self.shared.as_ref().map(SharedLog::status)
    }
}

/// Waits until the copy of which `revision` is told has record `rev`, which is written `place`.
pub(super) async fn come_back(rev: u64, mut revision: watch::Receiver<u64>, place: &str) -> Result<u64, WorldError> {
    let here = tokio::time::timeout(COME_BACK, revision.wait_for(|here| *here >= rev)).await;
    match here {
        Ok(Ok(_)) => Ok(rev),
        Ok(Err(_)) => Err(WorldError::stopped()),
        Err(_) => {
            let message = format!("record {rev} is written {place} and has not come to this router; see `myelin mesh`");
            Err(WorldError::new(Blame::Router, "record-late", message))
        }
    }
}

/// Why a change has to be decided anew.
pub(super) fn moved() -> WorldError {
    let message = "other routers changed the catalog at the same time, again and again; look at it and try again";
    WorldError::new(Blame::Conflict, MOVED, message)
}

fn busy() -> WorldError {
    let message = "too many changes wait for the shared log; try again";
    WorldError::new(Blame::Router, "store-unavailable", message)
}
