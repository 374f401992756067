//! Follows the log of the mesh: pulls what neighbours have and this router has not, records and bytes of modules.
//!
//! Whoever has it may give it: records are signed and chained, bytes are named by their digest. A neighbour that gives
//! what is wrong is left alone for a while. The writer follows as well, so that one that was restored from an old
//! backup gets its own records back from the others before it writes new ones.

use super::answer::{ANSWER_BYTES_MAX, aside};
use super::log::Shelf;
use super::shared::SharedLog;
use super::view::active_at;
use super::{Blame, Command, View, WorldError};
use crate::peering::{Caller, PeerHead};
use arc_swap::ArcSwap;
use bytes::Bytes;
use myelin_catalog::exchange::{Answer, Ask};
use myelin_catalog::{BindingSet, Module};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// How often it is looked whether something is missing, beside every word of a neighbour.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a neighbour that gave something wrong is not asked.
const LEFT_ALONE: Duration = Duration::from_secs(30);
/// How long one is not asked that gave no answer: it was killed, or the way to it broke, and may be back at once. A
/// rollout stands still for as long as its routers do not hear of the next step.
const LEFT_IN_PEACE: Duration = Duration::from_secs(1);
/// The code of a question without an answer.
const NO_ANSWER: &str = "no-answer";
/// Pages that are pulled in one go before it is looked at something else.
const PAGES_MAX: usize = 64;

/// Pulls what is missing.
pub(super) struct Pull {
    pub(super) caller: Caller,
    pub(super) peers: watch::Receiver<Arc<[PeerHead]>>,
    pub(super) shelf: Shelf,
    pub(super) view: Arc<ArcSwap<View>>,
    pub(super) commands: mpsc::WeakSender<Command>,
    /// The log that all share, which has the bytes as well.
    pub(super) shared: Option<SharedLog>,
    /// Routers that gave something wrong, and until when they are left alone.
    pub(super) wrong: HashMap<u32, Instant>,
}

/// How this router's copy stands to those of the routers that it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// No router is reached.
    Alone,
    /// Some have more.
    Behind,
    /// None has more.
    Even,
}

impl Pull {
    /// Follows until the keeper ends.
    pub(super) async fn run(mut self) {
        while self.commands.strong_count() > 0 {
            self.step().await;
            self.wait().await;
        }
    }

    /// Waits for a reason to look again.
    pub(super) async fn wait(&mut self) {
        let _ = tokio::time::timeout(LOOK_INTERVAL, self.peers.changed()).await;
    }

    /// Pulls what can be pulled now.
    pub(super) async fn step(&mut self) {
        let now = Instant::now();
        self.wrong.retain(|_, until| *until > now);
        for _ in 0..PAGES_MAX {
            let peers = self.peers.borrow_and_update().clone();
            let head = self.view.load().copy.head();
            let is_asked = |peer: &&PeerHead| peer.head.rev > head.rev && !self.wrong.contains_key(&peer.router);
            let Some(peer) = peers.iter().find(is_asked) else { break };
            if let Err(error) = self.pull_page(peer.router, head.rev).await {
                self.leave_alone(peer.router, &error);
            }
        }
        self.compare().await;
        if self.pull_blobs().await
            && let Some(commands) = self.commands.upgrade()
        {
            let _ = commands.send(Command::Look).await;
        }
    }

    /// How the copy stands to the others'.
    pub(super) fn level(&self) -> Level {
        let peers = self.peers.borrow().clone();
        let head = self.view.load().copy.head();
        match peers.iter().map(|peer| peer.head.rev).max() {
            None => Level::Alone,
            Some(newest) if newest > head.rev => Level::Behind,
            Some(_) => Level::Even,
        }
    }

    /// Whether the bytes of all filters that this router is to run are here.
    pub(super) async fn has_filters(&self) -> bool {
        let view = self.view.load_full();
        let set = active_at(&view.catalog, view.site.as_ref()).bindings.clone();
        self.missing(&view, Some(set)).await.is_empty()
    }

    fn leave_alone(&mut self, router: u32, error: &WorldError) {
        tracing::warn!(router, code = &*error.code, %error, "the catalog is not pulled from this router");
        self.wrong.insert(router, Instant::now() + left_alone(error));
    }

    async fn pull_page(&self, from: u32, after: u64) -> Result<(), WorldError> {
        let ask = Bytes::from(Ask::Records { after }.encode());
        let answer = self.caller.call(from, ask, ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|error| WorldError::new(Blame::Router, NO_ANSWER, error.to_string()))?;
        let Answer::Records { records, .. } = Answer::decode(&answer)? else { return Err(other_answer()) };
        let (answer, answered) = oneshot::channel();
        let commands = self.commands.upgrade().ok_or_else(WorldError::stopped)?;
        commands.send(Command::Page { records, answer }).await.map_err(|_| WorldError::stopped())?;
        match answered.await.map_err(|_| WorldError::stopped())? {
            // Another way was faster.
            Err(error) if error.code == "catalog-stale" && self.view.load().copy.head().rev > after => Ok(()),
            done => done,
        }
    }

    /// Raises an alarm where another router has another record at a place that this one has, too.
    async fn compare(&mut self) {
        let copy = self.view.load().copy.clone();
        let peers = self.peers.borrow().clone();
        for peer in peers.iter().filter(|peer| !self.wrong.contains_key(&peer.router)).collect::<Vec<_>>() {
            // What is ahead shows when its records come.
            let Err(fault) = copy.compare(&peer.head) else { continue };
            let error = super::log::follow_error(&fault);
            self.wrong.insert(peer.router, Instant::now() + LEFT_ALONE);
            tracing::error!(router = peer.router, code = &*error.code, %error, "alarm");
            if let Some(commands) = self.commands.upgrade() {
                let _ = commands.send(Command::Alarm(error.code.to_string())).await;
            }
        }
    }

    /// Gets the bytes of modules that are not here; says whether any came.
    async fn pull_blobs(&mut self) -> bool {
        let view = self.view.load_full();
        let mut came = false;
        for module in self.missing(&view, None).await {
            came |= self.pull_blob(&module).await;
        }
        came
    }

    /// Gets the bytes of one module from the nearest routers that give them. What one gave is not asked for again of the
    /// next, unless all together is found to be wrong.
    async fn pull_blob(&mut self, module: &Arc<Module>) -> bool {
        let peers = self.peers.borrow().clone();
        let mut bytes = Vec::new();
        let mut givers = Vec::new();
        for peer in peers.iter().filter(|peer| peer.head.rev > 0).map(|peer| peer.router) {
            if self.wrong.contains_key(&peer) {
                continue;
            }
            let before = bytes.len();
            let fetched = fetch(&self.caller, peer, module, &mut bytes).await;
            if bytes.len() > before {
                givers.push(peer);
            }
            if let Err(error) = fetched {
                tracing::debug!(router = peer, %error, "the bytes of a module do not come from there");
                continue;
            }
            let (shelf, digest, whole) = (self.shelf.clone(), module.digest, std::mem::take(&mut bytes));
            match aside(move || shelf.put(&digest, &whole)).await {
                Ok(()) => return true,
                // Of several givers nobody knows which one was wrong; alone each shows.
                Err(error) => givers.drain(..).for_each(|giver| self.leave_alone(giver, &error)),
            }
        }
        self.pull_shared(module).await
    }

    /// Gets the bytes of one module from the log that all routers share, where there is one.
    async fn pull_shared(&self, module: &Arc<Module>) -> bool {
        let Some(log) = &self.shared else { return false };
        let (shelf, digest) = (self.shelf.clone(), module.digest);
        let kept = match log.blob(digest).await {
            Ok(bytes) => aside(move || shelf.put(&digest, &bytes)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &kept {
            tracing::debug!(module = %module.name, %error, "the bytes of a module do not come from the shared log");
        }
        kept.is_ok()
    }

    /// The modules whose bytes are not here: all that the catalog has, or those of a set.
    async fn missing(&self, view: &View, set: Option<BindingSet>) -> Vec<Arc<Module>> {
        let is_wanted = |module: &&Arc<Module>| {
            set.as_ref().is_none_or(|set| set.iter().any(|staged| staged.digest == module.digest))
        };
        let wanted: Vec<_> = view.catalog.modules().filter(is_wanted).cloned().collect();
        let shelf = self.shelf.clone();
        let missing = aside(move || {
            Ok(wanted.into_iter().filter(|module| !shelf.has_blob(&module.digest, module.size_bytes)).collect())
        });
        missing.await.unwrap_or_default()
    }
}

/// Gets the rest of a module's bytes from a router: piece by piece, never more than its record says.
///
/// # Errors
/// When the router does not have them, gives no answer, or more or less than it should.
pub(super) async fn fetch(caller: &Caller, from: u32, module: &Module, bytes: &mut Vec<u8>) -> Result<(), WorldError> {
    let wrong = |why: String| WorldError::new(Blame::Router, "wrong-bytes", why);
    while (bytes.len() as u64) < module.size_bytes {
        let ask = Ask::Blob { digest: module.digest, offset: bytes.len() as u64 };
        let answer = caller.call(from, Bytes::from(ask.encode()), ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|error| WorldError::new(Blame::Router, NO_ANSWER, error.to_string()))?;
        let Answer::Blob { size_bytes, bytes: piece } = Answer::decode(&answer)? else { return Err(other_answer()) };
        let left = module.size_bytes - bytes.len() as u64;
        if size_bytes != module.size_bytes || piece.is_empty() || piece.len() as u64 > left {
            return Err(wrong(format!(
                "a piece of {} bytes of {size_bytes} for module {}@{}, which has {} bytes",
                piece.len(),
                module.name,
                module.version,
                module.size_bytes
            )));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(())
}

/// How long a router is not asked after this.
fn left_alone(error: &WorldError) -> Duration {
    if error.code == NO_ANSWER { LEFT_IN_PEACE } else { LEFT_ALONE }
}

fn other_answer() -> WorldError {
    WorldError::new(Blame::Router, "unexpected-answer", "the other router answers another question")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gave_no_answer_is_asked_again_long_before_who_gave_a_wrong_one() {
        let silent = WorldError::new(Blame::Router, NO_ANSWER, "the connection was lost");
        assert_eq!(left_alone(&silent), LEFT_IN_PEACE);
        assert_eq!(left_alone(&other_answer()), LEFT_ALONE);
    }
}
