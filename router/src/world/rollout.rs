//! Reports of rollouts.

use super::unix_ms;
use myelin_catalog::{Generation, Plan};
use serde::Serialize;

/// What kind of change a rollout was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutKind {
    /// The staged set became active.
    Activated,
    /// An earlier set became active again.
    RolledBack,
    /// The router started with this set.
    Started,
}

/// How many rollouts there were since the router's start, remembered or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutCounts {
    started: u64,
    activated: u64,
    rolled_back: u64,
}

impl RolloutCounts {
    /// One more.
    pub(super) fn add(&mut self, kind: RolloutKind) {
        *match kind {
            RolloutKind::Started => &mut self.started,
            RolloutKind::Activated => &mut self.activated,
            RolloutKind::RolledBack => &mut self.rolled_back,
        } += 1;
    }

    /// Each kind by its name.
    pub fn by_kind(&self) -> Vec<(&'static str, u64)> {
        vec![("started", self.started), ("activated", self.activated), ("rolled-back", self.rolled_back)]
    }
}

/// What a rollout did.
#[derive(Clone, Debug, Serialize)]
pub struct RolloutReport {
    /// What kind of change it was.
    pub kind: RolloutKind,
    /// The generation that is active since.
    pub generation: u64,
    /// The generation before.
    pub previous: u64,
    /// What changed.
    pub plan: Plan,
    /// Who wanted it.
    pub actor: String,
    /// When, Unix milliseconds.
    pub at_unix_ms: u64,
    /// How long preparing took on all workers together (compiling, instantiating, self-test), in milliseconds.
    pub prepare_ms: u64,
    /// The longest that a worker paused for the swap, in microseconds.
    pub swap_us_max: u64,
    /// The most CPU time that a worker's thread used for the swap, in microseconds: what the swap itself costs. What a
    /// pause lasts longer, the operating system ran something else on that core.
    pub swap_cpu_us_max: u64,
    /// How many workers swapped.
    pub workers: usize,
    /// Bindings whose state was handed over to the new version.
    pub handed_over: Vec<String>,
    /// Bindings whose new version refused the state of the old one, and began anew: why.
    pub not_handed_over: Vec<String>,
}

impl RolloutReport {
    /// The report of a swap to `generation` before it is made.
    pub(super) fn new(kind: RolloutKind, generation: &Generation, plan: Plan) -> Self {
        Self {
            kind,
            generation: generation.number,
            previous: 0,
            plan,
            actor: generation.actor.clone(),
            at_unix_ms: unix_ms(),
            prepare_ms: 0,
            swap_us_max: 0,
            swap_cpu_us_max: 0,
            workers: 0,
            handed_over: Vec::new(),
            not_handed_over: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rollout_is_counted_under_its_kind() {
        let mut counts = RolloutCounts::default();
        let kinds = [RolloutKind::Started, RolloutKind::Activated, RolloutKind::RolledBack, RolloutKind::Activated];
        kinds.into_iter().for_each(|kind| counts.add(kind));
        assert_eq!(counts.by_kind(), [("started", 1), ("activated", 2), ("rolled-back", 1)]);
    }
}
