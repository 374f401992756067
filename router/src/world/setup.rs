//! How the world comes to be: the keeper's thread and the tasks around it, and the gate that a joining router waits at.

use super::answer::{Source, answer_all};
use super::boot::BootGuard;
use super::control::Controller;
use super::deploy::Deployment;
use super::explain::Explainer;
use super::follow::{Level, Pull};
use super::forge::Forge;
use super::keeper::{Keeper, Membership, Parts};
use super::log::{Log, Shelf};
use super::members::Member;
use super::policing::Policing;
use super::propose::Writer;
use super::reconcile::{LedgerReader, Readings};
use super::recorded::Looks;
use super::report::{OwnPhase, metrics};
use super::shared::{self, Desk, Part, SharedLog};
use super::{Account, Blame, COMMANDS_WAITING_MAX, Command, View, World, WorldError, members, schemas};
use crate::audit::Witness;
use crate::peering::Peering;
use crate::worker::Order;
use arc_swap::ArcSwap;
use myelin_catalog::exchange::Ask;
use myelin_catalog::{Demands, Fleet, ModuleRef, Name, Phase, PublicKey, SigningKey};
use myelin_engine::{CodeCache, CompilerConfig, LastFault, ModuleLimits, Runtime, SlotLimits};
use myelin_store::{DiskStore, JetstreamOptions, Recovered};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// How often it is looked for filters that were given up.
const QUARANTINE_POLL: Duration = Duration::from_millis(250);
/// How long a module that was told is not told again.
const QUARANTINE_TOLD: Duration = Duration::from_secs(10);
/// How often the controller looks whether a rollout's step is over, beside every report.
const CONTROL_TICK: Duration = Duration::from_millis(250);
/// How often a keeper looks after itself.
const KEEPER_TICK: Duration = Duration::from_secs(5);
/// How often a router looks whether it has something new to report ...
const REPORT_POLL: Duration = Duration::from_millis(100);
/// ... and how often it reports all the same, during a rollout and else.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
const REPORT_INTERVAL_IDLE: Duration = Duration::from_secs(5);
/// How long a router waits at least until a shared log trusts its key and has its members, before it serves without.
const ENROL_WAIT: Duration = Duration::from_secs(10);
/// How often a router that waits for its catalog says so.
const WAIT_TOLD: Duration = Duration::from_secs(10);
/// What it says then. Its own admin API answers nobody yet: only others can be asked.
const NOT_SERVED: &str = "nothing is served yet, the admin API included: the catalog of the mesh is not here; see that \
    `[mesh] seeds` leads to a router that runs, and ask that one with `myelin mesh --admin URL` why it takes no link";

/// What the world is made of.
pub struct WorldSetup {
    /// Where the catalog is kept.
    pub store: DiskStore,
    /// What was found there.
    pub recovered: Recovered,
    /// Where the router keeps its state.
    pub data_dir: PathBuf,
    /// This router's site, where its name can be in a catalog.
    pub site: Option<Name>,
    /// What modules must be like to run here.
    pub demands: Demands,
    /// Whether nobody lets anything begin alone, also not by way of another router that hands it in.
    pub two_person: bool,
    /// Runs the filters.
    pub runtime: Runtime,
    /// Remembers compiled code.
    pub cache: CodeCache,
    /// Compiles.
    pub compiler: CompilerConfig,
    /// What modules may be like.
    pub modules: ModuleLimits,
    /// The most that any binding may ask for: what a module has in its own test.
    pub slots: SlotLimits,
    /// The workers.
    pub workers: Vec<mpsc::Sender<Order>>,
    /// Reads this router's part of the mesh's ledger.
    pub account: Account,
    /// The other routers; none = this one is alone.
    pub mesh: Option<MeshSetup>,
}

/// What the world needs to be part of a mesh.
pub struct MeshSetup {
    /// The links' end.
    pub peering: Peering,
    /// This router's name at its site.
    pub router: Name,
    /// The routers that the configuration names, in the order of their numbers.
    pub members: Vec<Member>,
    /// Number and title of the router that writes the log.
    pub writer: (u32, String),
    /// The key with which the log must begin.
    pub root: Option<PublicKey>,
    /// Signs what this router writes, where it is the writer or all routers are.
    pub key: Option<SigningKey>,
    /// The log that all routers share; none where one of them writes it. Each is its own `writer` then, and has a key.
    pub shared: Option<JetstreamOptions>,
    /// How long a router that knows a catalog waits for a newer one before it serves.
    pub join_wait: Duration,
    /// Whether the configuration names routers to dial: without, there is nobody to wait for.
    pub has_seeds: bool,
}

impl WorldSetup {
    /// Starts the keeper and makes the catalog's active generation judge on every worker. In a mesh, a router first
    /// catches up with its neighbours: it serves nothing by rules that are no longer true.
    ///
    /// # Errors
    /// When a filter of the active generation cannot be prepared: a router never serves without a filter that it was
    /// told to run.
    pub async fn start(self) -> Result<World, WorldError> {
        let (commands, queue) = mpsc::channel(COMMANDS_WAITING_MAX);
        let view = Arc::new(ArcSwap::from_pointee(View::default()));
        let (revision_in, revision) = watch::channel(0);
        let Self {
            store,
            recovered,
            data_dir,
            site,
            demands,
            two_person,
            runtime,
            cache,
            compiler,
            modules,
            slots,
            workers,
            account,
            mut mesh,
        } = self;
        let shelf = Shelf::new(store);
        let (root, key) = mesh.as_mut().map_or((None, None), |mesh| (mesh.root, mesh.key.take()));
        let desk = |mesh: &MeshSetup| mesh.desk(key.as_ref(), &account, (&shelf, &view), &commands);
        let shared = mesh.as_ref().and_then(desk).transpose()?;
        let log = Log::resume(shelf.clone(), recovered.catalog, root, key, account.audit.clone())?;
        let forge = Forge::new(runtime, cache, compiler, modules, slots);
        let deployment = Deployment::new(forge, shelf.clone(), workers, mesh.is_some());
        let (writer, membership) = mesh.as_ref().map(|mesh| (mesh.writer(), mesh.membership())).unzip();
        let guard = BootGuard::open(&data_dir);
        let reader = LedgerReader { account: account.clone(), view: view.clone(), writer: writer.clone() };
        let part = |(mesh, log): (&MeshSetup, SharedLog)| {
            Part::new(log, mesh.peering.peers.clone(), commands.downgrade(), root)
        };
        let part = mesh.as_ref().zip(shared.clone()).map(part);
        let looks = Looks::default();
        let keeper = Keeper::new(Parts {
            log,
            deployment,
            mesh: membership,
            shared: part,
            site: site.clone(),
            controller: Controller::new(Readings::new(reader, commands.downgrade())),
            guard,
            policing: Policing::new(account.shared.clone()),
            demands,
            two_person,
            screens: account.shared.screens.clone(),
            registry: account.shared.registry.clone(),
            account: account.clone(),
            looks: looks.clone(),
            view: view.clone(),
            revision: revision_in,
            runtime: tokio::runtime::Handle::current(),
        });
        let phase = keeper.phase.clone();
        run(keeper, queue)?;
        let caller = writer.as_ref().map(|writer| writer.caller.clone());
        let explainer = Explainer::new(account.shared.clone(), view.clone(), caller);
        let witness = Arc::new(Mutex::new(Witness::recall(account.audit.seen_before())));
        let (desk, progress) = (schemas::Desk::default(), writer.clone());
        let world = World { commands, view, revision, progress, shared, account, explainer, witness, desk, looks };
        match mesh.zip(writer) {
            Some((mesh, writer)) => world.join(mesh, writer, shelf, phase, site).await?,
            None => world.boot().await?,
        }
        world.watch_audits();
        tokio::spawn(watch_quarantine(world.commands.downgrade(), Arc::downgrade(&world.view)));
        Ok(world)
    }
}

/// Gives the keeper a thread of its own.
fn run(keeper: Keeper, queue: mpsc::Receiver<Command>) -> Result<(), WorldError> {
    let started = thread::Builder::new().name("world".into()).spawn(move || keeper.run(queue));
    let told = |error| WorldError::new(Blame::Router, "internal", format!("the keeper's thread: {error}"));
    started.map(drop).map_err(told)
}

impl MeshSetup {
    /// This router's desk at the log that all routers share; none where one of them writes it.
    fn desk(
        &self,
        key: Option<&SigningKey>,
        account: &Account,
        (shelf, view): (&Shelf, &Arc<ArcSwap<View>>),
        commands: &mpsc::Sender<Command>,
    ) -> Option<Result<SharedLog, WorldError>> {
        let (options, key) = self.shared.clone().zip(key)?;
        let title = format!("{}/{}", account.site, account.router);
        let me = shared::Me { title, key_id: key.id().clone(), public_key: key.public_key() };
        Some(Desk::open(options, me, shelf.clone(), view.clone(), commands.downgrade()))
    }

    /// How this router reaches the one that writes the log.
    fn writer(&self) -> Writer {
        let (number, title) = self.writer.clone();
        Writer { number, title, is_here: number == self.peering.number, caller: self.peering.caller.clone() }
    }

    /// This router's part in the mesh.
    fn membership(&self) -> Membership {
        Membership {
            router: self.router.clone(),
            number: self.peering.number,
            members: self.members.clone(),
            fleet: Fleet::default(),
            writer: self.writer(),
            tell: self.peering.tell.clone(),
        }
    }
}

impl World {
    async fn boot(&self) -> Result<(), WorldError> {
        let (answer, booted) = oneshot::channel();
        self.commands.send(Command::Boot { answer }).await.map_err(|_| WorldError::stopped())?;
        booted.await.map_err(|_| WorldError::stopped())??;
        tokio::spawn(tick(self.commands.downgrade(), KEEPER_TICK));
        Ok(())
    }

    /// Takes up its part in the mesh.
    async fn join(
        &self,
        mesh: MeshSetup,
        writer: Writer,
        shelf: Shelf,
        phase: OwnPhase,
        site: Option<Name>,
    ) -> Result<(), WorldError> {
        let Peering { caller, peers, asked, .. } = mesh.peering;
        let (view, commands) = (self.view.clone(), self.commands.downgrade());
        let source = Source {
            shelf: shelf.clone(),
            view: view.clone(),
            commands: commands.clone(),
            caller: caller.clone(),
            account: self.account.clone(),
            explainer: self.explainer.clone(),
        };
        tokio::spawn(answer_all(source, asked));
        let shared = self.shared.clone();
        let mut pull = Pull { caller, peers, shelf, view, commands: commands.clone(), shared, wrong: HashMap::new() };
        let is_new_writer = writer.is_here && self.view().catalog.head().rev == 0;
        if let Some(log) = &self.shared {
            // It has its part to write before it begins, and any router may control.
            tokio::spawn(tick(commands.clone(), CONTROL_TICK));
            let own = site.as_ref().map(|site| (site, &mesh.router));
            catch_up_shared(&mut pull, log, mesh.join_wait, &mesh.members, own).await;
        } else if !writer.is_here {
            catch_up(&mut pull, mesh.join_wait, true).await;
        } else if is_new_writer && mesh.has_seeds {
            // One that has lost its disk must not begin a second log beside the first.
            catch_up(&mut pull, mesh.join_wait, false).await;
        }
        tokio::spawn(pull.run());
        self.boot().await?;
        if writer.is_here && self.shared.is_none() {
            tokio::spawn(tick(commands, CONTROL_TICK));
        } else if let Some(site) = site {
            let to = Controllers { writer, shared: self.shared.clone() };
            tokio::spawn(report(to, phase, site, mesh.router, Arc::downgrade(&self.view), self.account.clone()));
        }
        Ok(())
    }
}

/// The gate of a joining router: returns when its copy is level with its neighbours' and it has the filters that it is
/// to run; or when nobody was reached in time, and what it knows has to do. A router that knows nothing has to wait,
/// unless `may_begin`.
async fn catch_up(pull: &mut Pull, wait: Duration, needs_catalog: bool) {
    let (begin, mut told) = (Instant::now(), Instant::now());
    loop {
        pull.step().await;
        let is_late = begin.elapsed() >= wait;
        let knows = pull.view.load().copy.head().rev > 0;
        match pull.level() {
            Level::Even if (knows || !needs_catalog) && pull.has_filters().await => return,
            Level::Alone if is_late && (knows || !needs_catalog) && pull.has_filters().await => {
                return tracing::warn!("no other router is reached: this one goes on from its own copy of the catalog");
            }
            level if told.elapsed() >= WAIT_TOLD => {
                told = Instant::now();
                tracing::warn!(?level, "{NOT_SERVED}");
            }
            _ => {}
        }
        pull.wait().await;
    }
}

/// The same gate where all routers share the log: returns when the copy is level with it, has this router's own records,
/// and the filters are here; or when the log is not reached in time, and what this router or its neighbours know has to do.
async fn catch_up_shared(
    pull: &mut Pull,
    log: &SharedLog,
    wait: Duration,
    named: &[Member],
    own: Option<(&Name, &Name)>,
) {
    let (begin, mut told) = (Instant::now(), Instant::now());
    loop {
        pull.step().await;
        let view = pull.view.load_full();
        let (catalog, rev) = (&view.catalog, view.copy.head().rev);
        let is_late = begin.elapsed() >= wait;
        let is_level = log.rev().map_or(is_late && pull.level() != Level::Behind, |end| rev >= end);
        let is_enrolled = members::enrolment(catalog, named, None).is_empty() && log.me().can_sign(catalog);
        let is_known = own.is_some_and(|(site, router)| catalog.fleet().router(site, router).is_some());
        let waits = log.rev().is_some() && begin.elapsed() < ENROL_WAIT;
        if rev > 0 && is_level && (is_enrolled || is_late && is_known && !waits) && pull.has_filters().await {
            if log.rev().is_none() {
                tracing::warn!("the shared log is not reached: this router goes on from its own copy of the catalog");
            }
            return;
        }
        if told.elapsed() >= WAIT_TOLD {
            told = Instant::now();
            let status = log.status();
            tracing::warn!(rev, ?status, "{NOT_SERVED}");
        }
        pull.wait().await;
    }
}

/// Wakes the keeper.
async fn tick(commands: mpsc::WeakSender<Command>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(commands) = commands.upgrade() else { return };
        if commands.send(Command::Tick).await.is_err() {
            return;
        }
    }
}

/// Who controls rollouts: the writer, or whoever has the lease.
struct Controllers {
    writer: Writer,
    shared: Option<SharedLog>,
}

impl Controllers {
    /// The router that controls now; none where that is this one, or not known.
    fn elsewhere(&self, view: &View) -> Option<Writer> {
        let Some(log) = &self.shared else { return Some(self.writer.clone()) };
        let (number, title) = log.elsewhere(view)?;
        Some(Writer { number, title, is_here: false, caller: self.writer.caller.clone() })
    }
}

/// Tells the controller where this router is.
async fn report(
    to: Controllers,
    phase: OwnPhase,
    site: Name,
    router: Name,
    view: Weak<ArcSwap<View>>,
    account: Account,
) {
    let mut told: Option<(u32, u64, std::mem::Discriminant<Phase>, Instant)> = None;
    loop {
        tokio::time::sleep(REPORT_POLL).await;
        let Some(view) = view.upgrade() else { return };
        let view = view.load_full();
        let Some(writer) = to.elsewhere(&view) else { continue };
        let mut report = phase.report(site.clone(), &router);
        let (rollout, kind) = (report.rollout, std::mem::discriminant(&report.phase));
        let interval = if view.catalog.rollout().is_some() { REPORT_INTERVAL } else { REPORT_INTERVAL_IDLE };
        let is_told = |(number, was, before, at): (u32, u64, _, Instant)| {
            (number, was, before) == (writer.number, rollout, kind) && at.elapsed() < interval
        };
        if told.is_some_and(is_told) {
            continue;
        }
        report.metrics = metrics(&report.phase, view.shadow.as_ref(), &view.cards, &view.cards_before);
        if let Some(marks) = &view.marks {
            marks.measure(&account, &mut report.metrics).await;
        }
        if let (Phase::Shadowing { for_ms }, Some(shadow)) = (&mut report.phase, &view.shadow) {
            // What the keeper said last may be a while ago.
            *for_ms = shadow.for_ms().max(*for_ms);
        }
        match writer.ask(&Ask::Report(report)).await {
            Ok(_) => told = Some((writer.number, rollout, kind, Instant::now())),
            // A writer that is away hears the next one.
            Err(error) => tracing::debug!(%error, "the controller was not told"),
        }
    }
}

/// Tells the keeper of filters that a worker has given up.
async fn watch_quarantine(commands: mpsc::WeakSender<Command>, view: Weak<ArcSwap<View>>) {
    let mut told: HashMap<ModuleRef, Instant> = HashMap::new();
    loop {
        tokio::time::sleep(QUARANTINE_POLL).await;
        let (Some(commands), Some(view)) = (commands.upgrade(), view.upgrade()) else { return };
        let view = view.load_full();
        told.retain(|_, at| at.elapsed() < QUARANTINE_TOLD);
        for card in view.cards.iter().filter(|card| card.is_quarantined()) {
            let Ok(binding) = card.name.parse() else { continue };
            if view.catalog.quarantine(&card.module).is_some() || told.contains_key(&card.module) {
                continue;
            }
            told.insert(card.module.clone(), Instant::now());
            let last = card
                .figures()
                .into_iter()
                .filter_map(|(_, figures)| figures.last_fault)
                .max_by_key(|fault| fault.time_unix_ns);
            let reason = last.map_or_else(|| "too many faults".to_owned(), |fault| reason(&fault));
            let command = Command::Quarantine { module: card.module.clone(), binding, reason };
            if commands.send(command).await.is_err() {
                return;
            }
        }
    }
}

/// Why a module is quarantined: everybody reads the log, and for good, so that nothing of a payload is to be in it.
fn reason(LastFault { code, detail, may_quote, .. }: &LastFault) -> String {
    match may_quote {
        true => format!(
            "{code}; `myelin filter describe` of its binding says more to those who may read what filters write"
        ),
        false => format!("{code}: {detail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantine_quotes_nothing_that_a_filter_has_put_out() {
        let fault = |code, may_quote| LastFault { code, detail: "secret".to_owned(), may_quote, time_unix_ns: 0 };
        assert_eq!(reason(&fault("trap", false)), "trap: secret");
        let told = reason(&fault("malformed-output", true));
        assert!(told.starts_with("malformed-output; ") && !told.contains("secret"), "{told}");
    }
}
