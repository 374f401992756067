//! The keeper's part in a shared log: changes that it drafts and others append, its router's own key and members, and the
//! steps of rollouts while its router has the lease.

use super::super::handed_in::told;
use super::super::keeper::{Keeper, refused};
use super::super::propose::Writer;
use super::super::{Answer, Blame, Command, WorldError, members, unix_ms};
use super::{CANNOT_SIGN, Lead, SharedLog, come_back, moved};
use crate::peering::PeerHead;
use myelin_catalog::exchange::Answer as Told;
use myelin_catalog::{Admission, Head, Op, Proposal, PublicKey, Record};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// How often a change is offered to the routers that are reached, and between two of those times: a router that has just
/// joined has no links for a moment.
const OFFERS: u32 = 10;
const OFFER_PAUSE: Duration = Duration::from_millis(500);
/// How often other routers are asked to trust this router's key.
const TRUST_PAUSE: Duration = Duration::from_secs(1);

/// What a keeper has of the shared log.
pub(in super::super) struct Part {
    log: SharedLog,
    /// The routers that can be reached, the nearest first: those that may sign for this one.
    peers: watch::Receiver<Arc<[PeerHead]>>,
    /// Where what comes of an append is told.
    commands: mpsc::WeakSender<Command>,
    /// The key with which the log must begin.
    root: Option<PublicKey>,
    /// The step of a rollout that is being written down.
    step: Pending,
    /// What this router writes of itself.
    own: Pending,
    trust_asked: Option<Instant>,
}

/// What was written down without anybody waiting for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Written {
    /// A step of a rollout.
    Step,
    /// A key, a site or a router.
    Own,
}

/// A record that was drafted: no second one is while it is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pending {
    #[default]
    Nothing,
    /// Nobody knows yet what becomes of it.
    Asked,
    /// It is in the log, and will be here.
    Coming(u64),
}

impl Pending {
    /// Whether the next one may be drafted, in a copy that ends with `rev`.
    fn is_over(&mut self, rev: u64) -> bool {
        if matches!(self, Self::Coming(coming) if *coming <= rev) {
            *self = Self::Nothing;
        }
        *self == Self::Nothing
    }

    fn settle(&mut self, done: &Result<u64, WorldError>) {
        *self = done.as_ref().map_or(Self::Nothing, |rev| Self::Coming(*rev));
    }
}

impl Part {
    pub(in super::super) fn new(
        log: SharedLog,
        peers: watch::Receiver<Arc<[PeerHead]>>,
        commands: mpsc::WeakSender<Command>,
        root: Option<PublicKey>,
    ) -> Self {
        let (step, own) = (Pending::Nothing, Pending::Nothing);
        Self { log, peers, commands, root, step, own, trust_asked: None }
    }

    pub(in super::super) fn log(&self) -> &SharedLog {
        &self.log
    }

    fn pending(&mut self, what: Written) -> &mut Pending {
        match what {
            Written::Step => &mut self.step,
            Written::Own => &mut self.own,
        }
    }
}

impl Keeper {
    /// Has a change written into the shared log: by this router, or, as long as its key is not trusted, by another one.
    /// The asker hears of it when its record is here.
    pub(in super::super) fn share(&mut self, op: Op, actor: &str, answer: Answer<u64>) {
        let Some(part) = &self.shared else { return };
        let (log, revision) = (part.log.clone(), self.revision());
        if !log.me().can_sign(self.catalog()) {
            let asking = self.ask_peers(op, actor.to_owned());
            self.runtime().spawn(async move { drop(answer.send(asking.await)) });
            return;
        }
        let record = match self.log.draft(op, actor, unix_ms()) {
            Ok(record) => record,
            Err(error) => return drop(answer.send(Err(error))),
        };
        self.runtime().spawn(async move {
            let done = match log.append(record, false).await {
                Ok(rev) => come_back(rev, revision, "in the shared log").await,
                Err(error) => Err(error),
            };
            // Whoever asked may have gone.
            let _ = answer.send(done);
        });
    }

    /// Asks the routers that are reached, the nearest first, to write down a change, until one does or refuses it for a
    /// reason of the change. Two never make it: it is for the present end of the log.
    fn ask_peers(&self, op: Op, actor: String) -> impl Future<Output = Result<u64, WorldError>> + Send + use<> {
        let at = self.catalog().head();
        let asked = self
            .shared
            .as_ref()
            .zip(self.mesh.as_ref())
            .map(|(part, mesh)| (part.peers.clone(), mesh.writer.caller.clone(), part.log.me().title.clone()));
        let revision = self.revision();
        async move {
            let Some((peers, caller, own)) = asked else { return Err(WorldError::stopped()) };
            let mut last = cannot_sign(&own);
            for _ in 0..OFFERS {
                let reached = peers.borrow().clone();
                for peer in reached.iter() {
                    let title = format!("router number {}", peer.router);
                    let other = Writer { number: peer.router, title, is_here: false, caller: caller.clone() };
                    match other.propose(op.clone(), actor.clone(), at, revision.clone()).await {
                        Err(error) if error.code == CANNOT_SIGN => {}
                        Err(error) if ["store-unavailable", "writer-unreachable"].contains(&&*error.code) => {
                            last = error;
                        }
                        done => return done,
                    }
                }
                tokio::time::sleep(OFFER_PAUSE).await;
            }
            Err(last)
        }
    }

    /// Takes in a change that another router asks for because it cannot sign.
    pub(in super::super) fn accept_shared(
        &mut self,
        proposal: Box<Proposal>,
        via: &str,
        answer: oneshot::Sender<Told>,
    ) {
        let record = match self.admit(&proposal, via) {
            Ok(Ok(record)) => record,
            Ok(Err(rev)) => return drop(answer.send(Told::Accepted { rev })),
            Err(error) => return drop(answer.send(refused(&error))),
        };
        let Some(part) = &self.shared else { return };
        let (log, commands) = (part.log.clone(), part.commands.clone());
        // Before it is appended: it may be back before that is answered.
        self.log.expect(&record, told(via));
        self.runtime().spawn(async move {
            let done = log.append(record, false).await;
            if let Some(commands) = commands.upgrade() {
                let _ = commands.send(Command::Proposed { proposal, done, answer }).await;
            }
        });
    }

    /// The record of a proposed change; or the revision that it has already.
    fn admit(&mut self, proposal: &Proposal, via: &str) -> Result<Result<Record, u64>, WorldError> {
        let is_signing = self.shared.as_ref().is_some_and(|part| part.log.me().can_sign(self.log.catalog()));
        if !is_signing {
            return Err(cannot_sign(self.shared.as_ref().map_or("", |part| &part.log.me().title)));
        }
        let head = self.log.catalog().head();
        match self.inbox.admit(proposal, &head) {
            // Its asker decides it anew, for the end that it sees then.
            Err(_) if proposal.at != head => Err(moved()),
            Err(refused) => Err(refused.into()),
            Ok(Admission::Settled { rev }) => Ok(Err(rev)),
            Ok(Admission::Fresh) => {
                self.check_handed_in(proposal, via)?;
                self.vet(&proposal.op, &proposal.actor)?;
                self.log.draft(proposal.op.clone(), &proposal.actor, unix_ms()).map(Ok)
            }
        }
    }

    /// Notes what became of a proposed change, and tells its asker.
    pub(in super::super) fn proposed(
        &mut self,
        proposal: &Proposal,
        done: Result<u64, WorldError>,
        answer: oneshot::Sender<Told>,
    ) {
        let told = match done {
            Ok(rev) => {
                self.inbox.settle(proposal, rev);
                Told::Accepted { rev }
            }
            Err(error) => refused(&error),
        };
        // Whoever asked may have gone: it asks again.
        let _ = answer.send(told);
    }

    /// Notes what became of a record that nobody waits for.
    pub(in super::super) fn written(&mut self, what: Written, done: Result<u64, WorldError>) {
        if let Err(error) = &done {
            // Being overtaken and waiting for a router that can sign are what happens when a mesh begins.
            tracing::debug!(?what, code = &*error.code, %error, "a record was not written down; tried again");
        }
        if let Some(part) = &mut self.shared {
            part.pending(what).settle(&done);
        }
    }

    /// Writes down, one record after another, what the log must have of this router and its configuration: the key with
    /// which a new log begins, this router's own key, and the members that have no number yet.
    pub(in super::super) fn tend(&mut self) {
        let head = self.catalog().head();
        let Some(part) = &mut self.shared else { return };
        let is_level = part.log.rev().is_some_and(|rev| rev <= head.rev);
        if !is_level || !part.own.is_over(head.rev) {
            return;
        }
        let (me, root) = (part.log.me(), part.root);
        let trust = Op::KeyTrusted {
            key_id: me.key_id.clone(),
            public_key: me.public_key,
            note: format!("the key of router {}", me.title),
        };
        let catalog = self.log.catalog();
        if me.can_sign(catalog) {
            let named = self.mesh.as_ref().map_or(&[][..], |mesh| &mesh.members);
            if let Some(op) = members::enrolment(catalog, named, None).into_iter().next() {
                self.write_own(op);
            }
        } else if head == Head::EMPTY {
            // Whose key the operator named founds the log; where none is named, whoever comes first.
            if root.is_none_or(|root| root == me.public_key) {
                self.write_own(trust);
            }
        } else if catalog.keys().find(&me.key_id).is_none() {
            self.ask_for_trust(trust);
        }
    }

    fn write_own(&mut self, op: Op) {
        match self.log.draft(op, "router", unix_ms()) {
            Ok(record) => self.append_aside(record, Written::Own),
            Err(error) => tracing::warn!(%error, "what the configuration names does not fit the catalog"),
        }
    }

    fn ask_for_trust(&mut self, trust: Op) {
        let Some(part) = &mut self.shared else { return };
        if part.trust_asked.is_some_and(|asked| asked.elapsed() < TRUST_PAUSE) {
            return;
        }
        part.trust_asked = Some(Instant::now());
        part.own = Pending::Asked;
        let commands = part.commands.clone();
        let asking = self.ask_peers(trust, "router".to_owned());
        self.runtime().spawn(async move {
            let done = asking.await;
            if let Some(commands) = commands.upgrade() {
                let _ = commands.send(Command::Written { what: Written::Own, done }).await;
            }
        });
    }

    fn append_aside(&mut self, record: Record, what: Written) {
        let Some(part) = &mut self.shared else { return };
        *part.pending(what) = Pending::Asked;
        let (log, commands) = (part.log.clone(), part.commands.clone());
        self.runtime().spawn(async move {
            let done = log.append(record, what == Written::Step).await;
            if let Some(commands) = commands.upgrade() {
                let _ = commands.send(Command::Written { what, done }).await;
            }
        });
    }

    /// Takes the next step of the rollout that is under way, where this router has the lease and there is one to take.
    pub(in super::super) fn control_shared(&mut self) {
        let (rev, is_booted) = (self.catalog().head().rev, self.is_booted());
        let Some(part) = &mut self.shared else { return };
        // Before it runs what the log says, its word on how far it is would be none.
        if !is_booted || part.log.lead() != Lead::Here || !part.step.is_over(rev) {
            return;
        }
        let Some(op) = self.next_step() else { return };
        tracing::info!(kind = op.kind(), "the rollout goes on");
        match self.log.draft(op, "rollout", unix_ms()) {
            Ok(record) => self.append_aside(record, Written::Step),
            // Asked again at the next tick.
            Err(error) => tracing::error!(%error, "a step of the rollout is not written down"),
        }
    }
}

/// Why a router does not write a change down itself.
fn cannot_sign(title: &str) -> WorldError {
    let message = format!(
        "the catalog does not trust the key of router {title} yet, and no router is reached whose key it trusts; see \
         `myelin mesh`, and try again"
    );
    WorldError::new(Blame::Router, CANNOT_SIGN, message)
}
