//! What runs on the workers: the active set, the one before it, which stays warm, and one that is prepared beside them.

use super::forge::Forge;
use super::log::Shelf;
use super::rollout::{RolloutCounts, RolloutKind, RolloutReport};
use super::{Blame, ROLLOUTS_REMEMBERED, WorldError};
use crate::generation::{BindingCard, BindingPlan, Plan, PrepareError, Prepared};
use crate::shadow::{Cast, Shadow};
use crate::worker::{Order, Swapped};
use myelin_catalog::{BindingSet, Generation, Phase, Plan as Difference, Stage, StagedBinding};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// A set that judges events or did, and the number of its generation.
#[derive(Clone, Debug, Default)]
pub(super) struct Running {
    pub(super) number: u64,
    pub(super) set: BindingSet,
    pub(super) plan: Arc<Plan>,
}

/// A set whose filters are ready on every worker, beside those that judge.
struct Candidate {
    set: BindingSet,
    plan: Arc<Plan>,
    prepared: Vec<Prepared>,
    /// The plan that its kept instances belong to.
    beside: Arc<Plan>,
    took: Duration,
}

/// What runs on the workers.
pub(super) struct Deployment {
    pub(super) forge: Forge,
    shelf: Shelf,
    workers: Vec<mpsc::Sender<Order>>,
    /// Whether this router is part of a mesh.
    has_sites: bool,
    active: Running,
    /// Warm on every worker.
    previous: Option<Running>,
    candidate: Option<Candidate>,
    /// The newest shadow, and the plan of the candidate that it was of.
    shadow: Option<(Arc<Shadow>, Arc<Plan>)>,
    rollouts: VecDeque<Arc<RolloutReport>>,
    counts: RolloutCounts,
}

impl Deployment {
    pub(super) fn new(forge: Forge, shelf: Shelf, workers: Vec<mpsc::Sender<Order>>, has_sites: bool) -> Self {
        Self {
            forge,
            shelf,
            workers,
            has_sites,
            active: Running::default(),
            previous: None,
            candidate: None,
            shadow: None,
            rollouts: VecDeque::new(),
            counts: Default::default(),
        }
    }

    pub(super) fn active(&self) -> &Running {
        &self.active
    }

    /// The bindings that judged before.
    pub(super) fn cards_before(&self) -> Vec<Arc<BindingCard>> {
        let before = self.previous.iter().flat_map(|previous| &previous.plan.bindings);
        before.map(|binding| binding.card().clone()).collect()
    }

    /// The bindings that judge.
    pub(super) fn cards(&self) -> Vec<Arc<BindingCard>> {
        self.active.plan.bindings.iter().map(|binding| binding.card().clone()).collect()
    }

    pub(super) fn reports(&self) -> (VecDeque<Arc<RolloutReport>>, RolloutCounts) {
        (self.rollouts.clone(), self.counts)
    }

    /// Plans every binding of `set`; those that are active as they are keep their plan, and with it their instances.
    fn plan(&mut self, set: &BindingSet) -> Result<Arc<Plan>, WorldError> {
        let staged: Vec<_> =
            [Stage::Ingress, Stage::Egress].into_iter().flat_map(|stage| set.stage(stage)).cloned().collect();
        let bindings = staged.iter().map(|staged| self.plan_binding(staged)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Plan { bindings }))
    }

    fn plan_binding(&mut self, staged: &Arc<StagedBinding>) -> Result<Arc<BindingPlan>, WorldError> {
        let same_name =
            self.active.plan.bindings.iter().find(|plan| *plan.name == *staged.binding.name.as_str()).cloned();
        if let Some(same) = same_name.as_ref().filter(|same| same.revision == staged.rev) {
            return Ok(same.clone());
        }
        let shelf = &self.shelf;
        let program = self.forge.program(staged.digest, || shelf.blob(&staged.digest))?;
        Ok(Arc::new(BindingPlan::new(staged, program, same_name, self.has_sites)))
    }

    /// Tries a binding out: what a filter refuses is refused before anything is written down.
    pub(super) fn try_out(&mut self, staged: &Arc<StagedBinding>) -> Result<(), WorldError> {
        let plan = self.plan_binding(staged)?;
        let filter = plan.instantiate(None).map_err(|error| prepare_error(&plan.name, &error))?;
        drop(filter);
        self.forge.test_bound(plan.program(), &plan.setup())
    }

    /// Makes `set` ready on every worker, unless it is; `tell` hears how far that is.
    ///
    /// # Errors
    /// When a filter of it cannot be had, does not compile, fails its test, or does not come to life.
    pub(super) fn prepare(&mut self, set: &BindingSet, mut tell: impl FnMut(Phase)) -> Result<(), WorldError> {
        let is_ready = |ready: &Candidate| ready.set == *set && Arc::ptr_eq(&ready.beside, &self.active.plan);
        if self.candidate.as_ref().is_some_and(is_ready) {
            return Ok(());
        }
        self.candidate = None;
        let begin = Instant::now();
        tell(Phase::Pulled);
        let plan = self.plan(set)?;
        myelin_failpoint::reach("set-planned");
        tell(Phase::Compiled);
        for binding in plan.bindings.iter().filter(|binding| !self.is_running(binding)) {
            self.forge.test_bound(binding.program(), &binding.setup())?;
        }
        myelin_failpoint::reach("set-tested");
        tell(Phase::Tested);
        let beside = self.active.plan.clone();
        let one = |_| Prepared::new(&plan, &beside).map_err(|(name, error)| prepare_error(&name, &error));
        let mut prepared = self.workers.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        prepared.iter_mut().for_each(|prepared| prepared.make_spares(&beside));
        myelin_failpoint::reach("set-prepared");
        tell(Phase::Prepared);
        self.candidate = Some(Candidate { set: set.clone(), plan, prepared, beside, took: begin.elapsed() });
        Ok(())
    }

    fn is_running(&self, binding: &Arc<BindingPlan>) -> bool {
        self.active.plan.bindings.iter().any(|running| Arc::ptr_eq(running, binding))
    }

    /// Lets the filters that are new in what is prepared judge copies of events on every worker, for rollout `rollout`,
    /// unless they do.
    ///
    /// # Errors
    /// When there is no room for their instances.
    pub(super) fn begin_shadow(&mut self, rollout: u64, sample_percent: u8) -> Result<(), WorldError> {
        let Some(candidate) = &self.candidate else { return Err(WorldError::stopped()) };
        let plan = candidate.plan.clone();
        let is_it = |(shadow, of): &(Arc<Shadow>, Arc<Plan>)| {
            shadow.rollout == rollout && shadow.is_running() && Arc::ptr_eq(of, &plan)
        };
        if self.shadow.as_ref().is_some_and(is_it) {
            return Ok(());
        }
        let cast = Cast::new(rollout, sample_percent, &self.active.plan, &plan);
        let one = |_| cast.instances().map_err(|(name, error)| prepare_error(&name, &error));
        let instances = self.workers.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        self.end_shadow();
        drop(give(&self.workers, instances, |instances, answer| Order::Shadow(Some(instances), answer)));
        tracing::info!(rollout, "the new filters judge copies of events");
        self.shadow = Some((cast.shadow, plan));
        Ok(())
    }

    /// Ends the shadow, where one runs; what it found out stays until the next one.
    pub(super) fn end_shadow(&self) {
        let Some((shadow, _)) = self.shadow.as_ref().filter(|(shadow, _)| shadow.is_running()) else { return };
        shadow.end();
        // Its instances are freed here.
        drop(give(&self.workers, std::iter::repeat(()), |(), answer| Order::Shadow(None, answer)));
    }

    /// The newest shadow, running or over.
    pub(super) fn shadow(&self) -> Option<&Arc<Shadow>> {
        self.shadow.as_ref().map(|(shadow, _)| shadow)
    }

    /// Forgets what is prepared and not wanted any more.
    pub(super) fn forget_candidate(&mut self) {
        self.candidate = None;
    }

    /// Whether `set` can judge at once.
    pub(super) fn is_warm(&self, set: &BindingSet) -> bool {
        self.previous.as_ref().is_some_and(|warm| warm.set == *set)
    }

    /// Lets every worker swap to `generation`: in one step where its set is the one kept warm, else to what is
    /// prepared, or is now.
    ///
    /// # Errors
    /// When it cannot be prepared: then nothing has changed.
    pub(super) fn activate(
        &mut self,
        generation: &Generation,
        kind: RolloutKind,
        tell: impl FnMut(Phase),
    ) -> Result<(), WorldError> {
        let difference = Difference::between(&self.active.set, &generation.bindings);
        let mut report = RolloutReport::new(kind, generation, difference);
        if self.is_warm(&generation.bindings)
            && let Some(warm) = self.previous.clone()
        {
            let swapped =
                give(&self.workers, std::iter::repeat(()), |(), answer| Order::SwapBack(generation.number, answer));
            let swapped = swapped.into_iter().flatten().collect();
            return self.finish(Running { number: generation.number, ..warm }, swapped, report);
        }
        self.prepare(&generation.bindings, tell)?;
        let Some(Candidate { set, plan, prepared, took, .. }) = self.candidate.take() else {
            return Err(WorldError::stopped());
        };
        report.prepare_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let number = generation.number;
        myelin_failpoint::reach("swap-begins");
        let swapped = give(&self.workers, prepared, |prepared, answer| Order::Swap(prepared.numbered(number), answer));
        self.finish(Running { number, set, plan }, swapped, report)
    }

    fn finish(&mut self, next: Running, swapped: Vec<Swapped>, mut report: RolloutReport) -> Result<(), WorldError> {
        myelin_failpoint::reach("swap-answered");
        if swapped.len() < self.workers.len() {
            return Err(WorldError::stopped());
        }
        if let Some((shadow, _)) = &self.shadow {
            // It compared with what judged until now: the workers have ended it.
            shadow.end();
        }
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
        tracing::info!(
            generation = report.generation,
            previous = report.previous,
            swap_us = report.swap_us_max,
            swap_cpu_us = report.swap_cpu_us_max,
            "swapped"
        );
        if self.rollouts.len() == ROLLOUTS_REMEMBERED {
            self.rollouts.pop_front();
        }
        self.counts.add(report.kind);
        self.rollouts.push_back(Arc::new(report));
        myelin_failpoint::reach("swap-told");
        Ok(())
    }
}

/// Gives each worker its order, and gives the answers of those that are still there, once the last one has come.
fn give<P, T>(
    workers: &[mpsc::Sender<Order>],
    parts: impl IntoIterator<Item = P>,
    order: impl Fn(P, oneshot::Sender<T>) -> Order,
) -> Vec<T> {
    let given = workers.iter().zip(parts).filter_map(|(worker, part)| {
        let (answer, answered) = oneshot::channel();
        // A worker that has ended gives the order back, and with it what it would answer by: kept, it would be waited for.
        worker.blocking_send(order(part, answer)).ok().map(|()| answered)
    });
    let waiting: Vec<_> = given.collect();
    waiting.into_iter().filter_map(|answered| answered.blocking_recv().ok()).collect()
}

fn prepare_error(name: &str, error: &PrepareError) -> WorldError {
    WorldError::new(Blame::Filter, error.code(), format!("binding {name}: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn a_worker_that_has_ended_is_not_waited_for() {
        let (done, is_done) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let (ended, _) = mpsc::channel(1);
            let (there, mut orders) = mpsc::channel(1);
            let works = std::thread::spawn(move || {
                let Some(Order::NotRecorded(answer)) = orders.blocking_recv() else { panic!("another order") };
                answer.send(7).unwrap();
            });
            let told = give(&[ended, there], [(), ()], |(), answer| Order::NotRecorded(answer));
            works.join().unwrap();
            done.send(told).unwrap();
        });
        assert_eq!(is_done.recv_timeout(std::time::Duration::from_secs(30)), Ok(vec![7]));
    }
}
