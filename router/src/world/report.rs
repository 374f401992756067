//! What this router says of itself to whoever controls a rollout.

use crate::generation::BindingCard;
use crate::shadow::Shadow;
use myelin_catalog::exchange::RouterReport;
use myelin_catalog::{Metrics, Name, Phase};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where this router is, changed by the keeper while it works.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnPhase(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rollout: u64,
    phase: Phase,
    /// Since when a generation judges here.
    since: Instant,
}

impl Default for State {
    fn default() -> Self {
        Self { rollout: 0, phase: Phase::Active { generation: 0, for_ms: 0 }, since: Instant::now() }
    }
}

impl OwnPhase {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The router is there now, in that rollout.
    pub(super) fn set(&self, rollout: u64, phase: Phase) {
        let mut state = self.state();
        (state.rollout, state.phase) = (rollout, phase);
    }

    /// A generation has begun to judge here.
    pub(super) fn began(&self) {
        self.state().since = Instant::now();
    }

    /// For how long the generation that judges here has done so.
    pub(super) fn running_for(&self) -> Duration {
        self.state().since.elapsed()
    }

    /// Generation `generation` judges here, and nothing is to be prepared beside it.
    pub(super) fn runs(&self, rollout: u64, generation: u64) {
        self.set(rollout, Phase::Active { generation, for_ms: 0 });
    }

    /// Whether this router has refused the set of that rollout.
    pub(super) fn is_nack(&self, rollout: u64) -> bool {
        let state = self.state();
        state.rollout == rollout && matches!(state.phase, Phase::Nack { .. })
    }

    /// The report without its figures.
    pub(super) fn report(&self, site: Name, router: &Name) -> RouterReport {
        let state = self.state();
        let mut phase = state.phase.clone();
        if let Phase::Active { for_ms, .. } = &mut phase {
            *for_ms = u64::try_from(state.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        }
        RouterReport { site, router: router.clone(), rollout: state.rollout, phase, metrics: Metrics::default() }
    }
}

/// How the new filters do: in shadow those of the candidate, else those of the active set beside those that judged
/// before.
pub(super) fn metrics(
    phase: &Phase,
    shadow: Option<&Arc<Shadow>>,
    cards: &[Arc<BindingCard>],
    before: &[Arc<BindingCard>],
) -> Metrics {
    if matches!(phase, Phase::Shadowing { .. }) {
        return shadow.map(|shadow| shadow.metrics()).unwrap_or_default();
    }
    let mut metrics = Metrics::default();
    let is_kept = |card: &Arc<BindingCard>| before.iter().any(|old| Arc::ptr_eq(old, card));
    for card in cards.iter().filter(|card| !is_kept(card)) {
        let all = card.figures();
        for (_, figures) in &all {
            metrics.events += figures.events;
            metrics.traps += figures.faulted;
            metrics.rejects += figures.denied + figures.faulted_rejected;
            metrics.module_p99_us = metrics.module_p99_us.max(figures.call_us_p99);
            metrics.fuel_p99_percent = metrics.fuel_p99_percent.max(figures.budget_p99_percent);
        }
        for old in before.iter().filter(|old| old.name == card.name) {
            for (_, figures) in old.figures() {
                metrics.base_events += figures.events;
                metrics.base_rejects += figures.denied + figures.faulted_rejected;
            }
        }
    }
    metrics
}
