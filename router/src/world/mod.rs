//! The world: what is deployed on this router, and the one thread that changes it.
//!
//! Every change - from the admin API, from another router, or a quarantine that a worker reports - is a command in one
//! bounded queue. The *keeper* checks it, compiles and tests aside, has the record written down, and only then lets
//! the workers act on it. Everybody else reads a [`View`], an immutable snapshot.
//!
//! In a mesh one router, the *writer*, writes the log; the others *follow* it and ask the writer for changes. Or all
//! routers *share* a log (`shared`). What a router runs follows from its copy of the log alone (`reconcile`), so that it
//! makes no difference by whom and when a record was written.

mod account;
mod admission;
mod answer;
mod approve;
mod boot;
mod changes;
mod control;
mod deploy;
mod error;
mod explain;
mod follow;
mod forge;
mod handed_in;
mod keeper;
pub(crate) mod keys;
mod log;
pub(crate) mod members;
mod others;
mod policing;
mod propose;
mod reconcile;
mod recorded;
mod report;
mod rollout;
mod schemas;
mod setup;
mod shadow;
mod shared;
mod traces;
mod view;
mod witness;
mod writing;

pub use account::{Account, LinkLedger, MeshLedger, RouterLedger};
pub use changes::Change;
pub use error::{Blame, WorldError};
pub use explain::{
    AdmissionRefusal, Destination, DestinationState, ExplainedBinding, ExplainedCopy, ExplainedGroup, ExplainedHop,
    Explanation, Wanted,
};
pub use recorded::Look;
pub use rollout::{RolloutCounts, RolloutKind, RolloutReport};
pub use schemas::{Asked, Candidate, Registered, Wish, not_alone};
pub use setup::{MeshSetup, WorldSetup};
pub use shadow::MeshShadow;
pub use shared::SharedLogStatus;
pub use traces::{RouterTrace, Trace};
pub use view::View;
pub use witness::MeshAudit;
pub(crate) use witness::unreadable;

use crate::audit::Witness;
use arc_swap::ArcSwap;
use bytes::Bytes;
use myelin_catalog::exchange::{Answer as Told, Heard, RouterReport};
use myelin_catalog::{Binding, Gates, MinisignSignature, Module, ModuleRef, Name, Proposal, RolloutPlan, Version};
use reconcile::LedgerReader;
use serde_bytes::ByteBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};

/// Changes that may wait for the keeper. A rollout takes as long as its slowest filter compiles; askers beyond this
/// wait for room.
const COMMANDS_WAITING_MAX: usize = 64;
/// How often a change waits for the bytes of a module whose record is here, and how long: they are on their way from a
/// neighbour.
const BYTES_WAITS: u32 = 10;
const BYTES_PAUSE: Duration = Duration::from_millis(300);
/// Rollouts that are remembered with their reports.
pub const ROLLOUTS_REMEMBERED: usize = 64;
/// How long a step of a rollout at once may take: every router compiles, none is watched.
const AT_ONCE_DEADLINE_S: u32 = 120;

/// Who wants a change.
pub type Actor = Arc<str>;

/// A handle to the world: cheap to clone, safe to share.
#[derive(Clone, Debug)]
pub struct World {
    commands: mpsc::Sender<Command>,
    view: Arc<ArcSwap<View>>,
    /// The revision of the newest view.
    revision: watch::Receiver<u64>,
    /// Asks the controller how a rollout goes on; none outside a mesh.
    progress: Option<propose::Writer>,
    /// The log that all routers share; none where one writes it.
    shared: Option<shared::SharedLog>,
    /// Reads this router's part of the mesh's ledger.
    account: Account,
    /// Says what would become of events.
    explainer: explain::Explainer,
    /// What was seen of other routers' audit logs.
    witness: Arc<Mutex<Witness>>,
    /// Judges schemas.
    desk: schemas::Desk,
    /// Who has had recorded events judged.
    looks: recorded::Looks,
}

/// Where the answer to a command goes.
type Answer<T> = oneshot::Sender<Result<T, WorldError>>;

/// What the keeper is asked to do.
#[derive(Debug)]
enum Command {
    /// A change; the answer is the revision since which it is made, here and at the writer.
    Change { change: Change, if_match: Option<u64>, actor: Actor, answer: Answer<u64> },
    /// A filter that a worker has given up.
    Quarantine { module: ModuleRef, binding: Name, reason: String },
    /// A change that another router asks the writer for.
    Propose { proposal: Box<Proposal>, via: String, answer: oneshot::Sender<Told> },
    /// What became of it, where the log is shared.
    Proposed { proposal: Box<Proposal>, done: Result<u64, WorldError>, answer: oneshot::Sender<Told> },
    /// What became of a record of this router's own in a log that is shared.
    Written { what: shared::Written, done: Result<u64, WorldError> },
    /// Records that were written elsewhere.
    Page { records: Vec<ByteBuf>, answer: Answer<()> },
    /// Bytes of modules came, or time has passed: what was not possible may be now.
    Look,
    /// A router's report, to the controller.
    Report(RouterReport),
    /// What was off in the ledger of the mesh, which the controller had read in a step.
    LedgerRead { step_rev: u64, off: Option<String> },
    /// Time for the controller.
    Tick,
    /// A follower has caught up: run what the log says.
    Boot { answer: Answer<()> },
    /// The router ends: close the catalog.
    Stop { answer: oneshot::Sender<()> },
    /// An alarm that was found elsewhere.
    Alarm(String),
}

impl World {
    /// Takes a module into the catalog: checked, compiled in a child process, self-tested, then kept. Uploading the
    /// same bytes under the same name and version again changes nothing.
    ///
    /// # Errors
    /// Refusals of the module by its blame, or of the catalog.
    pub async fn add_module(
        &self,
        name: Name,
        version: Version,
        bytes: Bytes,
        actor: Actor,
    ) -> Result<Arc<Module>, WorldError> {
        self.add_signed_module(ModuleRef { name, version }, bytes, None, actor).await
    }

    /// The same with a signature, which must be right. With the same bytes again, it takes the place of the one that the
    /// module has.
    ///
    /// # Errors
    /// As above, and `signature-...` where the signature is not right.
    pub async fn add_signed_module(
        &self,
        module: ModuleRef,
        bytes: Bytes,
        signature: Option<MinisignSignature>,
        actor: Actor,
    ) -> Result<Arc<Module>, WorldError> {
        let ModuleRef { name, version } = module.clone();
        self.change(Change::AddModule { name, version, bytes, signature }, None, actor).await?;
        self.view().catalog.module(&module).cloned().ok_or_else(WorldError::stopped)
    }

    /// Removes a module that no staged or active binding uses; with `force` also one that the next rollback would use.
    /// Returns the catalog's new revision.
    ///
    /// # Errors
    /// `not-found` or `conflict`.
    pub async fn remove_module(&self, module: ModuleRef, force: bool, actor: Actor) -> Result<u64, WorldError> {
        self.change(Change::RemoveModule { module, force }, None, actor).await
    }

    /// Stages a binding; it judges nothing before a rollout. Returns the catalog's new revision. With `if_match` only
    /// when the catalog's revision is that one.
    ///
    /// # Errors
    /// Refusals of the binding or its configuration; `conflict` when `if_match` is not the revision.
    pub async fn stage(&self, binding: Binding, if_match: Option<u64>, actor: Actor) -> Result<u64, WorldError> {
        self.change(Change::Stage { binding: Box::new(binding) }, if_match, actor).await
    }

    /// Takes a binding out of the staged set; it judges until the next rollout. Returns the catalog's new revision.
    ///
    /// # Errors
    /// `not-found`; `conflict` when `if_match` is not the revision.
    pub async fn unstage(&self, name: Name, if_match: Option<u64>, actor: Actor) -> Result<u64, WorldError> {
        self.change(Change::Unstage { name }, if_match, actor).await
    }

    /// Makes the staged set active, at all sites at once: every router prepares it, then all swap. Returns when they
    /// have.
    ///
    /// # Errors
    /// When a filter cannot be prepared at some router; then nothing has changed.
    pub async fn rollout(&self, actor: Actor) -> Result<Arc<RolloutReport>, WorldError> {
        let rev = self.change(Change::Activate { plan: at_once() }, None, actor).await?;
        self.finished(rev).await
    }

    /// Starts a rollout of the staged set over the sites of the mesh, and returns its number.
    ///
    /// # Errors
    /// When there are no sites, another rollout is under way, or the plan is not right.
    pub async fn start_rollout(&self, plan: RolloutPlan, actor: Actor) -> Result<u64, WorldError> {
        self.change(Change::Start { plan: Box::new(plan) }, None, actor).await
    }

    /// Starts a rollout of the rules and policies in `plan` alone, and returns its number: what is staged stays staged.
    ///
    /// # Errors
    /// As above.
    pub async fn start_governance(&self, plan: RolloutPlan, actor: Actor) -> Result<u64, WorldError> {
        self.change(Change::Govern { plan: Box::new(plan) }, None, actor).await
    }

    /// Makes an earlier generation's set active again: the one before the active one, or generation `to`.
    ///
    /// # Errors
    /// `not-found` when there is no such generation.
    pub async fn rollback(&self, to: Option<u64>, actor: Actor) -> Result<Arc<RolloutReport>, WorldError> {
        let rev = self.change(Change::RollBack { to }, None, actor).await?;
        self.finished(rev).await
    }

    /// Lifts a module's quarantine: from the next rollout on its filters run again. Returns the catalog's new revision.
    ///
    /// # Errors
    /// `not-found` when the module is not quarantined.
    pub async fn release(&self, module: ModuleRef, actor: Actor) -> Result<u64, WorldError> {
        self.change(Change::Release { module }, None, actor).await
    }

    /// Makes a change; returns the revision since which it is made.
    ///
    /// # Errors
    /// Why it is not made.
    pub async fn change(&self, change: Change, if_match: Option<u64>, actor: Actor) -> Result<u64, WorldError> {
        for _ in 0..BYTES_WAITS {
            match self.try_change(change.clone(), if_match, actor.clone()).await {
                Err(error) if error.code == "blob-missing" && self.progress.is_some() => {}
                done => return done,
            }
            tokio::time::sleep(BYTES_PAUSE).await;
        }
        self.try_change(change, if_match, actor).await
    }

    async fn try_change(&self, change: Change, if_match: Option<u64>, actor: Actor) -> Result<u64, WorldError> {
        if let Some(shared) = &self.shared {
            for _ in 1..shared::ATTEMPTS {
                shared.catch_up(self.revision.clone()).await?;
                match self.ask_keeper(change.clone(), if_match, actor.clone()).await {
                    Err(error) if error.code == shared::MOVED => {}
                    done => return done,
                }
            }
            shared.catch_up(self.revision.clone()).await?;
        }
        if let Some(writer) = self.progress.as_ref().filter(|writer| !writer.is_here) {
            // What was changed through another router counts before this change is looked at.
            writer.catch_up(self.revision.clone()).await?;
        }
        self.ask_keeper(change, if_match, actor).await
    }

    /// Waits until this router has all that is written by now.
    async fn catch_up(&self) -> Result<(), WorldError> {
        if let Some(shared) = &self.shared {
            return shared.catch_up(self.revision.clone()).await;
        }
        match self.progress.as_ref().filter(|writer| !writer.is_here) {
            Some(writer) => writer.catch_up(self.revision.clone()).await,
            None => Ok(()),
        }
    }

    async fn ask_keeper(&self, change: Change, if_match: Option<u64>, actor: Actor) -> Result<u64, WorldError> {
        let (answer, done) = oneshot::channel();
        let command = Command::Change { change, if_match, actor, answer };
        self.commands.send(command).await.map_err(|_| WorldError::stopped())?;
        done.await.map_err(|_| WorldError::stopped())?
    }

    /// What the controller of rollouts last heard of every router.
    ///
    /// # Errors
    /// When the controller is not reached.
    pub async fn progress(&self) -> Result<Vec<Heard>, WorldError> {
        let leader = self.shared.as_ref().and_then(|shared| shared.elsewhere(&self.view()));
        let controller = match (&self.progress, leader) {
            (Some(writer), Some((number, title))) => {
                Some(propose::Writer { number, title, is_here: false, caller: writer.caller.clone() })
            }
            (writer, _) => writer.clone(),
        };
        match controller {
            Some(writer) if !writer.is_here => writer.progress().await,
            _ => Ok(self.view().heard()),
        }
    }

    /// What would become of an event of `topic` that `identity` publishes: at this router, or at the site or
    /// `SITE/ROUTER` that `at` names. Nothing is sent.
    ///
    /// # Errors
    /// `invalid-topic`, `invalid-identity`, `not-found`, `no-answer`, `explain-busy`.
    pub async fn explain(&self, topic: &str, identity: &str, at: Option<&str>) -> Result<Explanation, WorldError> {
        self.explainer.explain(topic, identity, at).await
    }

    /// The ledger of the whole mesh, as far as its routers answer.
    pub async fn mesh_ledger(&self) -> MeshLedger {
        self.ledger_reader().read().await
    }

    /// What keeps a rollout from its end whose routers all run the new set: why the ledger of the mesh is off; none where
    /// it balances.
    pub async fn ledger_off(&self) -> Option<String> {
        self.ledger_reader().off().await
    }

    fn ledger_reader(&self) -> LedgerReader {
        LedgerReader { account: self.account.clone(), view: self.view.clone(), writer: self.progress.clone() }
    }

    /// Whether the keeper has ended, by [`stop`](Self::stop) or by a defect.
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// Ends the keeper and closes the catalog; every later change is refused.
    pub async fn stop(&self) {
        let (answer, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop { answer }).await.is_ok() {
            // An error says that it has ended by itself.
            let _ = stopped.await;
        }
    }

    /// What is deployed now.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Waits until the catalog has changed, or `time` has passed.
    pub async fn changed(&mut self, time: Duration) {
        let _ = tokio::time::timeout(time, self.revision.changed()).await;
    }

    /// The report of what record `rev` made active here, once that is over at every site.
    ///
    /// # Errors
    /// Why it was rolled back.
    pub async fn finished(&self, rev: u64) -> Result<Arc<RolloutReport>, WorldError> {
        let mut revision = self.revision.clone();
        loop {
            revision.borrow_and_update();
            let view = self.view();
            let rollout = view.catalog.rollouts().find(|rollout| rollout.id == rev).cloned();
            let is_over = rollout.as_ref().is_none_or(|rollout| !rollout.is_running());
            if is_over {
                if let Some(failure) = rollout.as_deref().and_then(error::failure) {
                    return Err(failure);
                }
                if let Some(report) = view.rollouts.iter().rev().find(|report| report.generation >= rev) {
                    return Ok(report.clone());
                }
            }
            // Woken by every view; none is missed.
            revision.changed().await.map_err(|_| WorldError::stopped())?;
        }
    }
}

/// How a rollout goes on that makes the staged set active at all sites at once.
fn at_once() -> RolloutPlan {
    RolloutPlan {
        canary: Vec::new(),
        waves: vec![100],
        observe_s: 0,
        events_min: 0,
        gates: Gates::OPEN,
        deadline_s: AT_ONCE_DEADLINE_S,
        ..RolloutPlan::default()
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
