//! The world: what is deployed on this router, and the single writer that changes it.
//!
//! Every change - from the admin API or a quarantine that a worker reports - is a command in one bounded queue. The
//! writer checks it, compiles and tests aside, writes the record down, and only then lets the workers act on it.
//! Everybody else reads a [`View`], an immutable snapshot.

mod forge;
mod rollout;
mod writer;

pub use rollout::{RolloutCounts, RolloutKind, RolloutReport};
pub use writer::WorldSetup;

use crate::generation::BindingCard;
use arc_swap::ArcSwap;
use bytes::Bytes;
use myelin_catalog::{Binding, Catalog, CatalogError, Module, ModuleRef, Name, Version};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Changes that may wait for the writer. A rollout takes as long as its slowest filter compiles; askers beyond this
/// wait for room.
const COMMANDS_WAITING_MAX: usize = 64;
/// Rollouts that are remembered with their reports.
pub const ROLLOUTS_REMEMBERED: usize = 64;

/// Who wants a change.
pub type Actor = Arc<str>;

/// A handle to the world: cheap to clone, safe to share.
#[derive(Clone, Debug)]
pub struct World {
    commands: mpsc::Sender<Command>,
    view: Arc<ArcSwap<View>>,
}

/// What is deployed, at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Modules, staged bindings, generations.
    pub catalog: Arc<Catalog>,
    /// The bindings that judge events now: what their modules declared, and their live figures.
    pub cards: Vec<Arc<BindingCard>>,
    /// The newest rollouts of this process, newest last.
    pub rollouts: VecDeque<Arc<RolloutReport>>,
    /// All of them, counted.
    pub rollout_counts: RolloutCounts,
    /// Every worker runs the active generation.
    pub is_ready: bool,
}

/// Whose fault a refused change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The asker's: what was sent is wrong.
    Request,
    /// What the change names does not exist.
    NotFound,
    /// The change does not fit what is there now.
    Conflict,
    /// Nobody's: a bound of the catalog is reached.
    Full,
    /// The filter's: it does not compile, refuses its configuration, or fails its self-test.
    Filter,
    /// The router's.
    Router,
}

/// Why a change was refused. Nothing of it is applied.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct WorldError {
    /// The stable code.
    pub code: &'static str,
    /// Whose fault it is.
    pub blame: Blame,
    /// What, where and how to mend it.
    pub message: String,
}

impl WorldError {
    /// An error with these parts.
    pub fn new(blame: Blame, code: &'static str, message: impl Into<String>) -> Self {
        Self { code, blame, message: message.into() }
    }

    /// The router is shutting down, or its writer has failed.
    fn stopped() -> Self {
        Self::new(Blame::Router, "stopping", "the router is shutting down; ask again when it is back")
    }
}

impl From<CatalogError> for WorldError {
    fn from(error: CatalogError) -> Self {
        let blame = match error.code() {
            "not-found" => Blame::NotFound,
            "conflict" | "rollout-running" => Blame::Conflict,
            "catalog-full" => Blame::Full,
            // A router without the key that its log demands cannot write, whoever asks.
            "chain-broken" | "unsigned-record" | "unknown-key" | "revoked-key" | "bad-signature" => Blame::Router,
            _ => Blame::Request,
        };
        Self::new(blame, error.code(), error.to_string())
    }
}

/// Where the answer to a command goes.
type Answer<T> = oneshot::Sender<Result<T, WorldError>>;

/// A change of the world.
#[derive(Debug)]
enum Command {
    AddModule { name: Name, version: Version, bytes: Bytes, actor: Actor, answer: Answer<Arc<Module>> },
    RemoveModule { module: ModuleRef, actor: Actor, answer: Answer<()> },
    Stage { binding: Box<Binding>, if_match: Option<u64>, actor: Actor, answer: Answer<u64> },
    Unstage { name: Name, if_match: Option<u64>, actor: Actor, answer: Answer<u64> },
    Rollout { actor: Actor, answer: Answer<Arc<RolloutReport>> },
    Rollback { to: Option<u64>, actor: Actor, answer: Answer<Arc<RolloutReport>> },
    Release { module: ModuleRef, actor: Actor, answer: Answer<()> },
    Quarantine { module: ModuleRef, binding: Name, reason: String },
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
        self.ask(|answer| Command::AddModule { name, version, bytes, actor, answer }).await
    }

    /// Removes a module that no staged or active binding uses.
    ///
    /// # Errors
    /// `not-found` or `conflict`.
    pub async fn remove_module(&self, module: ModuleRef, actor: Actor) -> Result<(), WorldError> {
        self.ask(|answer| Command::RemoveModule { module, actor, answer }).await
    }

    /// Stages a binding; it judges nothing before a rollout. Returns the catalog's new revision. With `if_match` only
    /// when the catalog's revision is that one.
    ///
    /// # Errors
    /// Refusals of the binding or its configuration; `conflict` when `if_match` is not the revision.
    pub async fn stage(&self, binding: Binding, if_match: Option<u64>, actor: Actor) -> Result<u64, WorldError> {
        let binding = Box::new(binding);
        self.ask(|answer| Command::Stage { binding, if_match, actor, answer }).await
    }

    /// Takes a binding out of the staged set; it judges until the next rollout. Returns the catalog's new revision.
    ///
    /// # Errors
    /// `not-found`; `conflict` when `if_match` is not the revision.
    pub async fn unstage(&self, name: Name, if_match: Option<u64>, actor: Actor) -> Result<u64, WorldError> {
        self.ask(|answer| Command::Unstage { name, if_match, actor, answer }).await
    }

    /// Makes the staged set active: prepares it on every worker, then swaps.
    ///
    /// # Errors
    /// When a filter cannot be prepared; then nothing has changed.
    pub async fn rollout(&self, actor: Actor) -> Result<Arc<RolloutReport>, WorldError> {
        self.ask(|answer| Command::Rollout { actor, answer }).await
    }

    /// Makes an earlier generation's set active again: the one before the active one, or generation `to`.
    ///
    /// # Errors
    /// `not-found` when there is no such generation.
    pub async fn rollback(&self, to: Option<u64>, actor: Actor) -> Result<Arc<RolloutReport>, WorldError> {
        self.ask(|answer| Command::Rollback { to, actor, answer }).await
    }

    /// Lifts a module's quarantine: from the next rollout on its filters run again.
    ///
    /// # Errors
    /// `not-found` when the module is not quarantined.
    pub async fn release(&self, module: ModuleRef, actor: Actor) -> Result<(), WorldError> {
        self.ask(|answer| Command::Release { module, actor, answer }).await
    }

    /// What is deployed now.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, WorldError> {
        let (answer, done) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| WorldError::stopped())?;
        done.await.map_err(|_| WorldError::stopped())?
    }
}
