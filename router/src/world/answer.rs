//! Answers what other routers ask.

use super::explain::Explainer;
use super::keeper::refused;
use super::log::Shelf;
use super::{Account, Blame, Command, View, WorldError, keys};
use crate::peering::{Asked, Caller};
use arc_swap::ArcSwap;
use bytes::Bytes;
use myelin_catalog::exchange::{ANSWER_LEN_MAX_BYTES, Answer, Ask};
use myelin_catalog::{Module, Name, Op, Proposal, PublicKey, RouterReport};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Questions that are answered at once: each may read a megabyte from the disk.
const ANSWERS_MAX: usize = 16;

/// How often the bytes of a proposed module are asked for.
const FETCH_ATTEMPTS: u32 = 5;
/// Between two of them.
const FETCH_PAUSE: Duration = Duration::from_millis(300);

/// Who asks: which router, which neighbour has handed it on, and whether the first has a link to this one.
#[derive(Clone, Copy, Debug)]
struct Asker {
    from: u32,
    by: Option<u32>,
    is_linked: bool,
}

/// What an answer is made of.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) shelf: Shelf,
    pub(super) view: Arc<ArcSwap<View>>,
    pub(super) commands: mpsc::WeakSender<Command>,
    pub(super) caller: Caller,
    pub(super) account: Account,
    pub(super) explainer: Explainer,
}

/// Answers until the links end.
pub(super) async fn answer_all(source: Source, mut asked: mpsc::Receiver<Asked>) {
    let under_way = Arc::new(Semaphore::new(ANSWERS_MAX));
    while let Some(Asked { from, by, is_linked, request, answer }) = asked.recv().await {
        let Ok(permit) = under_way.clone().acquire_owned().await else { return };
        let source = source.clone();
        tokio::spawn(async move {
            let told =
                source.answer(Asker { from, by, is_linked }, &request).await.unwrap_or_else(|error| refused(&error));
            // Whoever asked may have gone.
            let _ = answer.send(Bytes::from(told.encode()));
            drop(permit);
        });
    }
}

impl Source {
    async fn answer(&self, asker: Asker, request: &[u8]) -> Result<Answer, WorldError> {
        match Ask::decode(request)? {
            Ask::Records { after } => {
                let shelf = self.shelf.clone();
                let (head, records) = aside(move || shelf.page(after)).await?;
                Ok(Answer::Records { head, records })
            }
            Ask::Blob { digest, offset } => {
                let shelf = self.shelf.clone();
                let (size_bytes, bytes) = aside(move || shelf.piece(&digest, offset)).await?;
                Ok(Answer::Blob { size_bytes, bytes: bytes.into() })
            }
            Ask::Propose(proposal) => self.propose(asker, proposal).await,
            Ask::Report(report) => {
                self.check_report(asker, &report)?;
                self.command(Command::Report(report)).await?;
                Ok(Answer::Noted)
            }
            Ask::Ledger => Ok(Answer::Ledger(self.account.encode().await?.into())),
            Ask::Explain { topic, identity } => {
                let explanation = self.explainer.here(&topic, &identity).await?;
                Ok(Answer::Explained(super::explain::encode(&explanation)?.into()))
            }
            Ask::Hop { topic, stamp } => Ok(Answer::Hop(self.explainer.hop(&topic, &stamp)?.into())),
            Ask::Trace { trace } => Ok(Answer::Trace(self.account.encode_trace(&trace).await?.into())),
            Ask::Shadow { rollout } => {
                let report = super::shadow::here(&self.view.load(), &self.account, rollout);
                Ok(Answer::Shadow(super::shadow::encode(report.ok_or_else(super::shadow::none)?)?.into()))
            }
            Ask::Audit { seen } => Ok(Answer::Audit(super::witness::here(&self.account, seen).await?.into())),
            Ask::Progress => Ok(Answer::Progress(self.view.load().heard())),
        }
    }

    /// Hands a change to the keeper, once the bytes that it needs are here.
    async fn propose(&self, asker: Asker, proposal: Box<Proposal>) -> Result<Answer, WorldError> {
        match &proposal.op {
            Op::ModuleAdded { module } => self.fetch(asker.from, module).await?,
            Op::KeyTrusted { key_id, public_key, .. } => self.check_key(asker, key_id, public_key)?,
            _ => {}
        }
        let (via, (answer, answered)) = (self.title(asker), oneshot::channel());
        self.command(Command::Propose { proposal, via, answer }).await?;
        answered.await.map_err(|_| WorldError::stopped())
    }

    /// Who asks, for people: `SITE/ROUTER`, and which neighbour has handed it on.
    fn title(&self, Asker { from, by, .. }: Asker) -> String {
        let view = self.view.load();
        let title = |number: u32| match view.catalog.fleet().router_numbered(number) {
            Some(router) => format!("{}/{}", router.site, router.name),
            None => format!("number {number}"),
        };
        match by {
            Some(by) => format!("{}, handed on by {}", title(from), title(by)),
            None => title(from),
        }
    }

    /// A router asks for its own key and for nobody else's, as far as the links know who it is: one with a link to this
    /// router asks over that.
    fn check_key(&self, asker: Asker, key_id: &Name, public_key: &PublicKey) -> Result<(), WorldError> {
        let Asker { from, by, is_linked } = asker;
        if is_linked && by.is_some() {
            let message = format!("router number {from} has a link to this one: it asks for its key over that");
            return Err(WorldError::new(Blame::Request, "foreign-key", message));
        }
        let view = self.view.load();
        let router = view.catalog.fleet().router_numbered(from);
        let own = router.and_then(|router| keys::own_id(&router.site, &router.name, public_key).ok());
        if own.as_ref() == Some(key_id) {
            return Ok(());
        }
        let message = format!("router number {from} asks to trust key `{key_id}`, which is not named as its own is");
        Err(WorldError::new(Blame::Request, "foreign-key", message))
    }

    /// A router reports of itself: what others say of it does not move a rollout on.
    fn check_report(&self, asker: Asker, report: &RouterReport) -> Result<(), WorldError> {
        let view = self.view.load();
        match view.catalog.fleet().router(&report.site, &report.router) {
            Some(router) if router.number != asker.from => {
                let (whose, by) = (format!("{}/{}", report.site, report.router), self.title(asker));
                // As often as it likes: whoever looks for it finds it, and nobody's log is filled.
                tracing::debug!(router = whose, by, "a report of another router is not taken");
                let message = format!("this is a report of router {whose}, and comes from {by}");
                Err(WorldError::new(Blame::Request, "foreign-report", message))
            }
            _ => Ok(()),
        }
    }

    /// Gets a new module from the router that asks for its record.
    async fn fetch(&self, from: u32, module: &Module) -> Result<(), WorldError> {
        // Before anything is asked for: how large a module may be is the catalog's to say.
        module.validate()?;
        let (shelf, digest, size_bytes) = (self.shelf.clone(), module.digest, module.size_bytes);
        if aside(move || Ok(shelf.has_blob(&digest, size_bytes))).await? {
            return Ok(());
        }
        let (mut bytes, mut attempt) = (Vec::new(), 1);
        while let Err(error) = super::follow::fetch(&self.caller, from, module, &mut bytes).await {
            // Whoever has just joined is heard before it is reached.
            if attempt == FETCH_ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(FETCH_PAUSE).await;
        }
        let shelf = self.shelf.clone();
        aside(move || shelf.put(&digest, &bytes)).await
    }

    async fn command(&self, command: Command) -> Result<(), WorldError> {
        let commands = self.commands.upgrade().ok_or_else(WorldError::stopped)?;
        commands.send(command).await.map_err(|_| WorldError::stopped())
    }
}

/// Work on files, aside from the runtime's threads.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WorldError> + Send + 'static,
) -> Result<T, WorldError> {
    let failed = |error| WorldError::new(Blame::Router, "internal", format!("reading the catalog broke off: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// The longest answer that is read.
pub(super) const ANSWER_BYTES_MAX: usize = ANSWER_LEN_MAX_BYTES;
