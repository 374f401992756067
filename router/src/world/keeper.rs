//! The keeper of the world: one thread that takes the commands one by one.

mod governing;
mod moved;
mod reconcile;
mod store;

use super::admission::Marks;
use super::boot::BootGuard;
use super::changes::{Change, Decided};
use super::control::Controller;
use super::deploy::Deployment;
use super::log::Log;
use super::members::Member;
use super::policing::Policing;
use super::propose::Writer;
use super::recorded::Looks;
use super::report::{OwnPhase, metrics};
use super::rollout::RolloutKind;
use super::shared::Part;
use super::view::active_at;
use super::{Account, Actor, Answer, Blame, Command, View, WorldError, unix_ms};
use crate::peering::Tell;
use crate::registry::Registry;
use crate::screen::Screens;
use arc_swap::ArcSwap;
use governing::Ahead;
use myelin_catalog::exchange::Answer as Told;
use myelin_catalog::{
    BootDecision, Catalog, Demands, Fleet, Follower, Generation, Head, Inbox, Metrics, Name, Op, Phase, Record,
    Retreat, TopicRule,
};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How long a router waits before it tries again to prepare a generation that it should run.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// When what runs is taken for healthy.
const HEALTHY_AFTER: Duration = Duration::from_millis(myelin_catalog::boot::HEALTHY_AFTER_MS);
/// How long the end of a router waits until its lease is given back.
const LET_GO: Duration = Duration::from_secs(2);
/// Steps that a controller may take between two commands: more than a rollout has.
const STEPS_MAX: usize = 64;

/// The world's one writer on this router.
pub(super) struct Keeper {
    pub(super) log: Log,
    pub(super) deployment: Deployment,
    /// What the keeper is in the mesh; none outside one.
    pub(super) mesh: Option<Membership>,
    /// What it has of a log that all routers share; none where one router writes the log.
    pub(super) shared: Option<Part>,
    site: Option<Name>,
    pub(super) inbox: Inbox,
    /// How often other routers handed in what they may not.
    pub(super) handed_back: u64,
    pub(super) controller: Controller,
    guard: BootGuard,
    /// That another generation runs than the log wants, and why.
    retreat: Option<Retreat>,
    /// The generation that could not be prepared here, and when that was tried.
    failed: Option<(u64, Instant)>,
    /// Whether the boot guard knows that what runs has not killed this router.
    is_healthy: bool,
    /// Whether the log's generation judges: before, nothing is activated.
    is_booted: bool,
    pub(super) phase: OwnPhase,
    pub(super) alarms: BTreeMap<String, u64>,
    /// Since when the log takes no records for want of its disk, by the last time that it was tried; none = it does.
    store_failed: Option<Instant>,
    pub(super) policing: Policing,
    /// What modules must be like to run here.
    pub(super) demands: Demands,
    /// Whether nobody lets anything begin alone.
    pub(super) two_person: bool,
    /// The change of trust that alarms were raised by.
    trust_rev: u64,
    /// The rules about schemas, for the workers.
    screens: Arc<ArcSwap<Screens>>,
    /// The schemas, for filters.
    registry: Arc<Registry>,
    /// The rules by which it is known where events may be.
    placed: Vec<TopicRule>,
    /// What that table was made of: the rules, and the registry's revision.
    screened: (Vec<TopicRule>, u64),
    /// What a rollout brings beside filters, compiled.
    ahead: Ahead,
    /// Where the counters stood when that began to hold here, and what they said last.
    marks: Option<Arc<Marks>>,
    measured: Option<(Instant, Metrics)>,
    /// Where the counters are read.
    pub(super) account: Account,
    /// Who has had recorded events judged.
    looks: Looks,
    view: Arc<ArcSwap<View>>,
    /// The catalog and the copy of the newest view, which most views share.
    shown: (Head, Arc<Catalog>, Arc<Follower>),
    revision: watch::Sender<u64>,
    runtime: tokio::runtime::Handle,
}

/// This router in its mesh.
pub(super) struct Membership {
    pub(super) router: Name,
    /// Its number, for as long as it runs.
    pub(super) number: u32,
    /// The routers that the configuration names, in the order of their numbers.
    pub(super) members: Vec<Member>,
    /// What the links were told last.
    pub(super) fleet: Fleet,
    pub(super) writer: Writer,
    pub(super) tell: mpsc::Sender<Tell>,
}

/// What a keeper is made of, beside what it knows by itself.
pub(super) struct Parts {
    pub(super) log: Log,
    pub(super) deployment: Deployment,
    pub(super) mesh: Option<Membership>,
    pub(super) shared: Option<Part>,
    pub(super) site: Option<Name>,
    pub(super) controller: Controller,
    pub(super) guard: BootGuard,
    pub(super) policing: Policing,
    pub(super) demands: Demands,
    pub(super) two_person: bool,
    pub(super) screens: Arc<ArcSwap<Screens>>,
    pub(super) registry: Arc<Registry>,
    pub(super) account: Account,
    pub(super) looks: Looks,
    pub(super) view: Arc<ArcSwap<View>>,
    pub(super) revision: watch::Sender<u64>,
    pub(super) runtime: tokio::runtime::Handle,
}

impl Keeper {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            log,
            deployment,
            mesh,
            shared,
            site,
            controller,
            guard,
            policing,
            demands,
            two_person,
            screens,
            registry,
            account,
            looks,
            view,
            revision,
            runtime,
        } = parts;
        let shown = (log.catalog().head(), Arc::new(log.catalog().clone()), Arc::new(log.copy().clone()));
        let mut keeper = Self {
            log,
            deployment,
            mesh,
            shared,
            site,
            inbox: Inbox::default(),
            handed_back: 0,
            controller,
            guard,
            policing,
            demands,
            two_person,
            trust_rev: 0,
            retreat: None,
            failed: None,
            is_healthy: false,
            is_booted: false,
            phase: OwnPhase::default(),
            alarms: BTreeMap::new(),
            store_failed: None,
            screens,
            registry,
            placed: Vec::new(),
            screened: (Vec::new(), 0),
            ahead: Ahead::default(),
            marks: None,
            measured: None,
            account,
            looks,
            view,
            shown,
            revision,
            runtime,
        };
        keeper.publish();
        keeper
    }

    pub(super) fn catalog(&self) -> &Catalog {
        self.log.catalog()
    }

    pub(super) fn site(&self) -> Option<&Name> {
        self.site.as_ref()
    }

    pub(super) fn is_booted(&self) -> bool {
        self.is_booted
    }

    pub(super) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// The revision of this router's copy, for those who wait for a record.
    pub(super) fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Whether this router writes the log itself.
    pub(super) fn is_writer(&self) -> bool {
        self.mesh.as_ref().is_none_or(|mesh| mesh.writer.is_here)
    }

    /// Takes commands until every handle is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.blocking_recv() {
            if let Command::Stop { answer } = command {
                self.end();
                let _ = answer.send(());
                return;
            }
            self.obey(command);
        }
        self.end();
    }

    /// The router ends in good order.
    fn end(&mut self) {
        self.guard.healthy();
        if let Some(part) = &self.shared {
            // Another router takes over at once where the lease is given back; else when its time is over.
            let stopped = part.log().stop();
            let _ = self.runtime.block_on(async { tokio::time::timeout(LET_GO, stopped).await });
        }
        self.log.shelf().close();
    }

    fn obey(&mut self, command: Command) {
        if matches!(command, Command::Change { .. }) {
            myelin_failpoint::trip("keeper-obeys");
        }
        match command {
            Command::Change { change, if_match, actor, answer } => {
                self.tend_store();
                self.change(change, if_match, &actor, answer);
            }
            Command::Quarantine { module, binding, reason } => {
                tracing::error!(%module, %binding, reason, "the module is quarantined: its binding answers the fault verdict");
                self.record_aside(Op::Quarantined { module, binding, reason });
            }
            Command::Propose { proposal, via, answer } if self.shared.is_some() => {
                self.accept_shared(proposal, &via, answer);
            }
            Command::Proposed { proposal, done, answer } => self.proposed(&proposal, done, answer),
            Command::Written { what, done } => {
                self.written(what, done);
                self.settle();
            }
            Command::Propose { proposal, via, answer } => {
                let told = self.accept(&proposal, &via);
                self.settle();
                // Whoever asked may have gone: it asks again.
                let _ = answer.send(told);
            }
            Command::Page { records, answer } => {
                let taken = self.take(&records);
                self.settle();
                let _ = answer.send(taken);
            }
            Command::Look => self.settle(),
            Command::Report(report) => {
                self.controller.note(&self.log, report);
                self.settle();
            }
            Command::LedgerRead { step_rev, off } => {
                self.controller.note_ledger(step_rev, off);
                self.settle();
            }
            Command::Tick => {
                if self.is_booted && !self.is_healthy && self.phase.running_for() >= HEALTHY_AFTER {
                    self.is_healthy = true;
                    self.guard.healthy();
                }
                self.settle();
            }
            Command::Boot { answer } => {
                let booted = self.boot();
                self.settle();
                let _ = answer.send(booted);
            }
            // `run` has dealt with it.
            Command::Stop { .. } => {}
            Command::Alarm(code) => {
                *self.alarms.entry(code).or_default() += 1;
                self.publish();
            }
        }
    }

    /// Makes a change here where this router writes the log, else asks the writer for it.
    fn change(&mut self, change: Change, if_match: Option<u64>, actor: &Actor, answer: Answer<u64>) {
        let decided = self.decide(change, if_match, actor);
        let (op, actor) = match decided {
            Ok(Decided::Write(op, actor)) => (op, actor),
            Ok(Decided::Done) => return self.answer(answer, Ok(self.catalog().head().rev)),
            Err(error) => return self.answer(answer, Err(error)),
        };
        match &self.mesh {
            _ if self.shared.is_some() => {
                self.publish();
                self.share(op, &actor, answer);
            }
            Some(mesh) if !mesh.writer.is_here => {
                let (writer, at) = (mesh.writer.clone(), self.catalog().head());
                let (actor, revision) = (actor.to_string(), self.revision.subscribe());
                self.publish();
                self.runtime.spawn(async move {
                    let _ = answer.send(writer.propose(op, actor, at, revision).await);
                });
            }
            _ => {
                let done = self.record(op, &actor).map(|record| record.rev);
                self.answer(answer, done);
            }
        }
    }

    /// Lets everybody see the change, then says so to the asker; who may have gone: the change is made all the same.
    fn answer<T>(&mut self, answer: Answer<T>, done: Result<T, WorldError>) {
        self.settle();
        myelin_failpoint::reach("change-settled");
        let _ = answer.send(done);
    }

    /// Drafts and keeps a change.
    pub(super) fn record(&mut self, op: Op, actor: &str) -> Result<Record, WorldError> {
        self.record_of(op, actor, None)
    }

    /// The same, for the router that the audit log names.
    pub(super) fn record_of(&mut self, op: Op, actor: &str, via: Option<String>) -> Result<Record, WorldError> {
        let record = self.log.draft(op, actor, unix_ms())?;
        self.log.keep(&record, via)?;
        myelin_failpoint::reach("change-kept");
        self.log_moved();
        myelin_failpoint::reach("change-told");
        Ok(record)
    }

    /// Takes over records that were written elsewhere.
    fn take(&mut self, page: &[ByteBuf]) -> Result<(), WorldError> {
        let taken = self.log.take(page);
        if let Err(error) = &taken
            && error.code != "catalog-stale"
        {
            *self.alarms.entry(error.code.to_string()).or_default() += 1;
        }
        taken?;
        self.log_moved();
        Ok(())
    }

    /// Begins to run what the log says, or an earlier generation where that one has killed this router.
    fn boot(&mut self) -> Result<(), WorldError> {
        if self.is_booted {
            return Ok(());
        }
        self.enroll()?;
        self.log_moved();
        let wanted = active_at(self.catalog(), self.site()).clone();
        let generation = self.choose(&wanted)?;
        self.catalog().check_all_signed(&generation.bindings, self.demands)?;
        myelin_failpoint::reach("boot-chosen");
        self.deployment.activate(&generation, RolloutKind::Started, |_| {})?;
        myelin_failpoint::reach("boot-judges");
        self.phase.began();
        self.is_booted = true;
        Ok(())
    }

    /// The generation that this start runs.
    fn choose(&mut self, wanted: &Arc<Generation>) -> Result<Arc<Generation>, WorldError> {
        // Without filters there is nothing that a filter could have killed.
        if wanted.bindings.is_empty() {
            return Ok(wanted.clone());
        }
        let is_earlier = |kept: &&Arc<Generation>| kept.number < wanted.number && !kept.bindings.is_empty();
        let earlier: Vec<u64> = self.catalog().history().rev().filter(is_earlier).map(|kept| kept.number).collect();
        // A set without filters is nothing to go back to: it would let pass what they hold back.
        if earlier.is_empty() {
            return Ok(wanted.clone());
        }
        match self.guard.boot(wanted.number, &earlier) {
            BootDecision::Run { .. } => Ok(wanted.clone()),
            BootDecision::Retreat(retreat) => {
                tracing::error!(from = retreat.from, to = retreat.to, reason = retreat.reason, "retreat");
                let chosen = self.catalog().find_generation(retreat.to).cloned();
                self.phase
                    .set(0, Phase::Retreated { from: retreat.from, to: retreat.to, reason: retreat.reason.clone() });
                self.retreat = Some(retreat);
                chosen.ok_or_else(WorldError::stopped)
            }
            BootDecision::Halt { generation } => {
                let message = format!(
                    "generation {generation} and all before it have killed this router; look at its log, make a \
                     generation without the filter active at another router, and remove `boot.json` in the data directory"
                );
                Err(WorldError::new(Blame::Router, "boot-halt", message))
            }
        }
    }

    /// Does all that the log and what is known of the others want now, and lets everybody see it.
    pub(super) fn settle(&mut self) {
        self.tend_store();
        self.reconcile();
        for _ in 0..STEPS_MAX {
            if !self.control() {
                break;
            }
            self.reconcile();
        }
        self.tend();
        self.publish();
    }

    pub(super) fn publish(&mut self) {
        let head = self.catalog().head();
        if self.shown.0 != head {
            self.shown = (head, Arc::new(self.catalog().clone()), Arc::new(self.log.copy().clone()));
        }
        self.view.store(Arc::new(self.current_view()));
        self.revision.send_replace(self.catalog().head().rev);
    }

    /// How the new filters do here, in that phase.
    pub(super) fn own_metrics(&mut self, phase: &Phase) -> Metrics {
        let shadow = self.deployment.shadow();
        let mut metrics = metrics(phase, shadow, &self.deployment.cards(), &self.deployment.cards_before());
        self.measure_admission(&mut metrics);
        metrics
    }

    /// All that there is to see now.
    fn current_view(&self) -> View {
        let (rollouts, rollout_counts) = self.deployment.reports();
        View {
            catalog: self.shown.1.clone(),
            copy: self.shown.2.clone(),
            site: self.site.clone(),
            cards: self.deployment.cards(),
            cards_before: self.deployment.cards_before(),
            shadow: self.deployment.shadow().cloned(),
            generation: self.deployment.active().number,
            rollouts,
            rollout_counts,
            is_ready: self.is_booted,
            report: self.mesh.as_ref().zip(self.site.clone()).map(|(mesh, site)| self.phase.report(site, &mesh.router)),
            heard: self.controller.heard(),
            alarms: self.alarms.clone(),
            is_store_failed: self.store_failed.is_some(),
            marks: self.marks.clone(),
        }
    }
}

/// An error in the words of the exchange.
pub(super) fn refused(error: &WorldError) -> Told {
    let (blame, code) = (error.blame.name().to_owned(), error.code.to_string());
    Told::Refused { blame, code, message: error.message.clone() }
}
