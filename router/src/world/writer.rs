//! The single writer of the world: one thread that takes the commands one by one.

use super::forge::Forge;
use super::rollout::{RolloutCounts, RolloutKind, RolloutReport};
use super::{Actor, Answer, Blame, COMMANDS_WAITING_MAX, Command, ROLLOUTS_REMEMBERED, View, World, WorldError};
use crate::generation::{BindingPlan, Plan, Prepared};
use crate::worker::{Order, Swapped};
use arc_swap::ArcSwap;
use myelin_catalog::{
    Binding, BindingSet, Catalog, Digest, Generation, Module, ModuleRef, Name, Op, Plan as Difference, Record, Stage,
    StagedBinding, Version,
};
use myelin_engine::{CodeCache, CompilerConfig, ModuleLimits, Runtime, SlotLimits};
use myelin_store::{BlobStore, CatalogStore, DiskStore, Recovered, StoreError};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// How often the writer is told of filters that were given up.
const QUARANTINE_POLL: Duration = Duration::from_millis(250);

/// What the world is made of.
pub struct WorldSetup {
    /// Where the catalog is kept.
    pub store: DiskStore,
    /// What was found there.
    pub recovered: Recovered,
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
}

impl WorldSetup {
    /// Starts the writer and makes the catalog's active generation judge on every worker. The future ends when it
    /// does.
    ///
    /// # Errors
    /// When a filter of the active generation cannot be prepared: a router never serves without a filter that it was
    /// told to run.
    pub async fn start(self) -> Result<World, WorldError> {
        let (commands, queue) = mpsc::channel(COMMANDS_WAITING_MAX);
        let view = Arc::new(ArcSwap::from_pointee(View::default()));
        let world = World { commands, view: view.clone() };
        let (ready, started) = oneshot::channel();
        let run = move || match Writer::start(self, view) {
            Ok(writer) => {
                let _ = ready.send(Ok(()));
                writer.run(queue);
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        thread::Builder::new()
            .name("world".into())
            .spawn(run)
            .map_err(|error| WorldError::new(Blame::Router, "internal", format!("the writer's thread: {error}")))?;
        started.await.map_err(|_| WorldError::stopped())??;
        tokio::spawn(watch_quarantine(world.commands.downgrade(), Arc::downgrade(&world.view)));
        Ok(world)
    }
}

/// Tells the writer of filters that a worker has given up.
async fn watch_quarantine(commands: mpsc::WeakSender<Command>, view: Weak<ArcSwap<View>>) {
    loop {
        tokio::time::sleep(QUARANTINE_POLL).await;
        let (Some(commands), Some(view)) = (commands.upgrade(), view.upgrade()) else { return };
        let view = view.load_full();
        for card in view.cards.iter().filter(|card| card.is_quarantined()) {
            let Ok(binding) = card.name.parse() else { continue };
            if view.catalog.quarantine(&card.module).is_some() {
                continue;
            }
            let last = card
                .figures()
                .into_iter()
                .filter_map(|(_, figures)| figures.last_fault)
                .max_by_key(|fault| fault.time_unix_ns);
            let reason =
                last.map_or_else(|| "too many faults".to_owned(), |fault| format!("{}: {}", fault.code, fault.detail));
            let command = Command::Quarantine { module: card.module.clone(), binding, reason };
            if commands.send(command).await.is_err() {
                return;
            }
        }
    }
}

/// A generation and the number it is active, or was active, under.
#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    plan: Arc<Plan>,
}

struct Writer {
    store: DiskStore,
    catalog: Catalog,
    forge: Forge,
    workers: Vec<mpsc::Sender<Order>>,
    active: Numbered,
    /// Warm on every worker.
    previous: Option<Numbered>,
    rollouts: VecDeque<Arc<RolloutReport>>,
    rollout_counts: RolloutCounts,
    view: Arc<ArcSwap<View>>,
}

impl Writer {
    fn start(setup: WorldSetup, view: Arc<ArcSwap<View>>) -> Result<Self, WorldError> {
        let WorldSetup { store, recovered, runtime, cache, compiler, modules, slots, workers } = setup;
        let empty = Numbered { number: 0, plan: Arc::default() };
        let mut writer = Self {
            store,
            catalog: recovered.catalog,
            forge: Forge::new(runtime, cache, compiler, modules, slots),
            workers,
            active: empty,
            previous: None,
            rollouts: VecDeque::new(),
            rollout_counts: RolloutCounts::default(),
            view,
        };
        let generation = writer.catalog.active().clone();
        let begin = Instant::now();
        let plan = writer.plan(generation.number, &generation.bindings)?;
        let prepared = writer.prepare(&plan)?;
        let took = begin.elapsed();
        let difference = Difference::between(&BindingSet::default(), &generation.bindings);
        let report = writer.report(RolloutKind::Started, &"router".into(), difference, took);
        writer.swap(Numbered { number: generation.number, plan }, prepared, report)?;
        writer.publish();
        Ok(writer)
    }

    /// Takes commands until every handle is gone.
    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.blocking_recv() {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::AddModule { name, version, bytes, actor, answer } => {
                let done = self.add_module(name, version, &bytes, &actor);
                self.answer(answer, done);
            }
            Command::RemoveModule { module, actor, answer } => {
                let done = self.remove_module(module, &actor);
                self.answer(answer, done);
            }
            Command::Stage { binding, if_match, actor, answer } => {
                let done = self.stage(binding, if_match, &actor);
                self.answer(answer, done);
            }
            Command::Unstage { name, if_match, actor, answer } => {
                let done = self.unstage(name, if_match, &actor);
                self.answer(answer, done);
            }
            Command::Rollout { actor, answer } => {
                let done = self.rollout(&actor);
                self.answer(answer, done);
            }
            Command::Rollback { to, actor, answer } => {
                let done = self.rollback(to, &actor);
                self.answer(answer, done);
            }
            Command::Release { module, actor, answer } => {
                let done = self.record(Op::Released { module }, &actor).map(|_| ());
                self.answer(answer, done);
            }
            Command::Quarantine { module, binding, reason } => {
                self.quarantine(module, binding, reason);
                self.publish();
            }
        }
    }

    /// Lets everybody see the change, then says so to the asker; who may have gone: the change is made all the same.
    fn answer<T>(&self, answer: Answer<T>, done: Result<T, WorldError>) {
        self.publish();
        let _ = answer.send(done);
    }

    fn add_module(
        &mut self,
        name: Name,
        version: Version,
        bytes: &[u8],
        actor: &str,
    ) -> Result<Arc<Module>, WorldError> {
        let module_ref = ModuleRef { name: name.clone(), version: version.clone() };
        let digest = Digest::of(bytes);
        match self.catalog.module(&module_ref) {
            Some(known) if known.digest == digest => return Ok(known.clone()),
            Some(_) => {
                let message =
                    format!("{module_ref} exists with other bytes; a version never changes: upload a new version");
                return Err(WorldError::new(Blame::Conflict, "conflict", message));
            }
            None => {}
        }
        let facts = self.forge.inspect(bytes)?;
        let program = self.forge.program(digest, || Ok(bytes.to_vec()))?;
        self.forge.test(&program, &facts)?;
        let size_bytes = bytes.len() as u64;
        let world = match facts.world {
            myelin_engine::World::Fast => myelin_catalog::World::Fast,
            myelin_engine::World::Easy => myelin_catalog::World::Easy,
        };
        let (imports, uploaded_unix_ms) = (facts.imports, unix_ms());
        let module = Module { name, version, digest, size_bytes, uploaded_unix_ms, imports, world };
        let record = self.catalog.draft(Op::ModuleAdded { module }, actor, unix_ms())?;
        self.store.put(&digest, bytes).map_err(store_error)?;
        self.keep(&record)?;
        self.catalog.module(&module_ref).cloned().ok_or_else(WorldError::stopped)
    }

    fn remove_module(&mut self, module: ModuleRef, actor: &str) -> Result<(), WorldError> {
        let digest = self.catalog.module(&module).map(|module| module.digest);
        self.record(Op::ModuleRemoved { module }, actor)?;
        if let Some(digest) = digest.filter(|digest| !self.catalog.needs_blob(digest)) {
            self.store.remove(&digest).map_err(store_error)?;
        }
        Ok(())
    }

    fn stage(&mut self, binding: Box<Binding>, if_match: Option<u64>, actor: &str) -> Result<u64, WorldError> {
        self.check_revision(if_match)?;
        let name = binding.name.clone();
        let record = self.catalog.draft(Op::BindingStaged { binding }, actor, unix_ms())?;
        // Tried out before it is written down: what a filter refuses is refused here, not at the rollout.
        let mut after = self.catalog.clone();
        after.apply(&record)?;
        if let Some(staged) = after.staged().find(&name).cloned() {
            let plan = self.plan_binding(&staged)?;
            let filter = plan.instantiate(None).map_err(|error| prepare_error(&plan.name, &error))?;
            drop(filter);
            self.forge.test_bound(plan.program(), &plan.setup())?;
        }
        self.keep(&record)?;
        Ok(record.rev)
    }

    fn unstage(&mut self, name: Name, if_match: Option<u64>, actor: &str) -> Result<u64, WorldError> {
        self.check_revision(if_match)?;
        Ok(self.record(Op::BindingRemoved { name }, actor)?.rev)
    }

    fn check_revision(&self, if_match: Option<u64>) -> Result<(), WorldError> {
        let revision = self.catalog.head().rev;
        match if_match {
            Some(wanted) if wanted != revision => {
                let message = format!(
                    "the catalog is at revision {revision}, not {wanted}: look at what has changed, then try again"
                );
                Err(WorldError::new(Blame::Conflict, "conflict", message))
            }
            _ => Ok(()),
        }
    }

    /// Prepares the staged set everywhere, writes the record, swaps.
    fn rollout(&mut self, actor: &Actor) -> Result<Arc<RolloutReport>, WorldError> {
        let difference = self.catalog.staged_plan();
        let record = self.catalog.draft(self.catalog.activation(), actor, unix_ms())?;
        let begin = Instant::now();
        let plan = self.plan(record.rev, &self.catalog.staged().clone())?;
        let prepared = self.prepare(&plan)?;
        let report = self.report(RolloutKind::Activated, actor, difference, begin.elapsed());
        self.keep(&record)?;
        self.swap(Numbered { number: record.rev, plan }, prepared, report)
    }

    /// Returns to an earlier set: in one swap where it is the one kept warm.
    fn rollback(&mut self, to: Option<u64>, actor: &Actor) -> Result<Arc<RolloutReport>, WorldError> {
        let target = match to {
            Some(number) => self.catalog.find_generation(number),
            None => self.catalog.rollback_target(),
        };
        let target: Arc<Generation> = target.cloned().ok_or_else(|| {
            let message = "there is no such earlier generation; `myelin rollout history` lists those that are kept";
            WorldError::new(Blame::NotFound, "not-found", message)
        })?;
        let difference = Difference::between(&self.catalog.active().bindings, &target.bindings);
        let record = self.catalog.draft(Op::RolledBack { to: target.number }, actor, unix_ms())?;
        let begin = Instant::now();
        if let Some(warm) = self.previous.clone().filter(|warm| warm.number == target.number) {
            let report = self.report(RolloutKind::RolledBack, actor, difference, begin.elapsed());
            self.keep(&record)?;
            return self.swap_back(Numbered { number: record.rev, plan: warm.plan }, report);
        }
        let plan = self.plan(record.rev, &target.bindings)?;
        let prepared = self.prepare(&plan)?;
        let report = self.report(RolloutKind::RolledBack, actor, difference, begin.elapsed());
        self.keep(&record)?;
        self.swap(Numbered { number: record.rev, plan }, prepared, report)
    }

    fn quarantine(&mut self, module: ModuleRef, binding: Name, reason: String) {
        tracing::error!(%module, %binding, reason, "the module is quarantined: its binding answers the fault verdict");
        if let Err(error) = self.record(Op::Quarantined { module, binding, reason }, "router") {
            // Retreat never needs the log: the workers have given the filter up already.
            tracing::warn!(%error, "the quarantine is not written down");
        }
    }

    /// Plans every binding of `set`; those that are active as they are keep their plan, and with it their instances.
    fn plan(&mut self, number: u64, set: &BindingSet) -> Result<Arc<Plan>, WorldError> {
        let staged: Vec<_> =
            [Stage::Ingress, Stage::Egress].into_iter().flat_map(|stage| set.stage(stage)).cloned().collect();
        let bindings = staged.iter().map(|staged| self.plan_binding(staged)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Plan { number, bindings }))
    }

    fn plan_binding(&mut self, staged: &Arc<StagedBinding>) -> Result<Arc<BindingPlan>, WorldError> {
        let same_name =
            self.active.plan.bindings.iter().find(|plan| *plan.name == *staged.binding.name.as_str()).cloned();
        if let Some(same) = same_name.as_ref().filter(|same| same.revision == staged.rev) {
            return Ok(same.clone());
        }
        let store = &self.store;
        let program = self.forge.program(staged.digest, || store.blob(&staged.digest).map_err(store_error))?;
        Ok(Arc::new(BindingPlan::new(staged, program, same_name)))
    }

    /// Instances for every worker.
    fn prepare(&self, plan: &Arc<Plan>) -> Result<Vec<Prepared>, WorldError> {
        let one = |_| Prepared::new(plan, &self.active.plan).map_err(|(name, error)| prepare_error(&name, &error));
        self.workers.iter().map(one).collect()
    }

    /// Lets every worker swap to `next`, and waits for the last of them.
    fn swap(
        &mut self,
        next: Numbered,
        prepared: Vec<Prepared>,
        report: RolloutReport,
    ) -> Result<Arc<RolloutReport>, WorldError> {
        let orders = self.workers.iter().zip(prepared).map(|(worker, prepared)| {
            let (answer, swapped) = oneshot::channel();
            (worker, Order::Swap(prepared, answer), swapped)
        });
        let waiting: Vec<_> = orders.map(|(worker, order, swapped)| (worker.blocking_send(order), swapped)).collect();
        let swapped: Vec<Swapped> =
            waiting.into_iter().filter_map(|(_, swapped)| swapped.blocking_recv().ok()).collect();
        self.finish(next, swapped, report)
    }

    /// Lets every worker return to the set that it keeps warm.
    fn swap_back(&mut self, next: Numbered, report: RolloutReport) -> Result<Arc<RolloutReport>, WorldError> {
        let orders = self.workers.iter().map(|worker| {
            let (answer, swapped) = oneshot::channel();
            (worker, Order::SwapBack(next.number, answer), swapped)
        });
        let waiting: Vec<_> = orders.map(|(worker, order, swapped)| (worker.blocking_send(order), swapped)).collect();
        let swapped: Vec<Swapped> =
            waiting.into_iter().filter_map(|(_, swapped)| swapped.blocking_recv().ok().flatten()).collect();
        self.finish(next, swapped, report)
    }

    fn finish(
        &mut self,
        next: Numbered,
        swapped: Vec<Swapped>,
        mut report: RolloutReport,
    ) -> Result<Arc<RolloutReport>, WorldError> {
        if swapped.len() < self.workers.len() {
            return Err(WorldError::stopped());
        }
        report.generation = next.number;
        report.previous = self.active.number;
        report.workers = swapped.len();
        report.swap_us_max = swapped.iter().map(|swapped| swapped.pause_us).max().unwrap_or(0);
        report.swap_cpu_us_max = swapped.iter().map(|swapped| swapped.pause_cpu_us).max().unwrap_or(0);
        for Swapped { mut handover, retired, .. } in swapped {
            // Freed here, and before the next command: its instances have their slots back when that prepares.
            drop(retired);
            report.handed_over.append(&mut handover.taken);
            report.not_handed_over.append(&mut handover.refused);
        }
        report.handed_over.sort();
        report.handed_over.dedup();
        self.previous = Some(std::mem::replace(&mut self.active, next));
        let catalog = &self.catalog;
        self.forge.keep(|digest| {
            let uses = |set: &BindingSet| set.iter().any(|staged| staged.digest == *digest);
            uses(catalog.staged()) || catalog.history().rev().take(2).any(|generation| uses(&generation.bindings))
        });
        let report = Arc::new(report);
        if self.rollouts.len() == ROLLOUTS_REMEMBERED {
            self.rollouts.pop_front();
        }
        self.rollouts.push_back(report.clone());
        self.rollout_counts.add(report.kind);
        tracing::info!(
            generation = report.generation,
            previous = report.previous,
            swap_us = report.swap_us_max,
            swap_cpu_us = report.swap_cpu_us_max,
            "swapped"
        );
        Ok(report)
    }

    fn report(&self, kind: RolloutKind, actor: &Actor, plan: Difference, prepared: Duration) -> RolloutReport {
        RolloutReport {
            kind,
            generation: 0,
            previous: 0,
            plan,
            actor: actor.to_string(),
            at_unix_ms: unix_ms(),
            prepare_ms: u64::try_from(prepared.as_millis()).unwrap_or(u64::MAX),
            swap_us_max: 0,
            swap_cpu_us_max: 0,
            workers: 0,
            handed_over: Vec::new(),
            not_handed_over: Vec::new(),
        }
    }

    /// Drafts, keeps and applies a change that needs no more than its record.
    fn record(&mut self, op: Op, actor: &str) -> Result<Record, WorldError> {
        let record = self.catalog.draft(op, actor, unix_ms())?;
        self.keep(&record)?;
        Ok(record)
    }

    /// Writes a record down, then lets it count.
    fn keep(&mut self, record: &Record) -> Result<(), WorldError> {
        self.store.append(record).map_err(store_error)?;
        self.catalog.apply(record)?;
        Ok(())
    }

    fn publish(&self) {
        let view = View {
            catalog: Arc::new(self.catalog.clone()),
            cards: self.active.plan.bindings.iter().map(|binding| binding.card().clone()).collect(),
            rollouts: self.rollouts.clone(),
            rollout_counts: self.rollout_counts,
            is_ready: true,
        };
        self.view.store(Arc::new(view));
    }
}

fn prepare_error(name: &str, error: &crate::generation::PrepareError) -> WorldError {
    WorldError::new(Blame::Filter, error.code(), format!("binding {name}: {error}"))
}

fn store_error(error: StoreError) -> WorldError {
    WorldError::new(Blame::Router, error.code(), error.to_string())
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
