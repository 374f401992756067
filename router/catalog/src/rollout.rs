//! Rollouts over the sites of a mesh, as the log tells them.
//!
//! ```text
//! (draft: what is staged) -> staged -> preparing -> prepared -> [shadow] -> [canary -> observe] -> wave 1 .. n -> complete
//!                                                                                                    (or unbalanced)
//!                               \________ a failed gate, a stalled step, a NACK, a hand ________/
//!                                                      rolling-back -> rolled-back
//! ```
//!
//! Each arrow is a record. The log knows the order of the steps and refuses to skip one; *when* a step is over is the
//! controller's to say ([`crate::controller`]), from what the routers report. A step names the sites for which it
//! activates the candidate, and which ones those are follows from the plan and the rollout's number, so that any
//! controller goes on where another stopped.
//!
//! What is active where follows from the log alone: [`crate::catalog::Catalog::active_for`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::governance::GovernanceChange;
use crate::names::Name;
use crate::set::BindingSet;

mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Gates, RolloutPlan};

/// A rollout, from its start on.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// The revision of the record that started it: its name, unique without anybody choosing one.
    pub id: u64,
    /// How it goes on.
    pub plan: RolloutPlan,
    /// What becomes active; empty when it is over and the set is in the history.
    pub candidate: BindingSet,
    /// Who started it.
    pub actor: String,
    /// When it began, for people.
    pub at_unix_ms: u64,
    /// The record that began the present step, or let it go on after a pause.
    pub step_rev: u64,
    /// It does not go on by itself; its gates are watched all the same.
    pub is_paused: bool,
    /// The present step need not observe any longer.
    pub is_promoted: bool,
    /// Why it is rolled back.
    pub abort: Option<Abort>,
    /// How it ended.
    pub end: Option<End>,
    schedule: Vec<Scheduled>,
    at: usize,
    /// The records that made the candidate active at sites: their numbers of its generation.
    activations: Vec<u64>,
}

/// A step that goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// The set is fixed and no router has done anything yet.
    Staged,
    /// Every router pulls, compiles, tests and warms the candidate.
    Preparing,
    /// Every router has.
    Prepared,
    /// The candidate judges copies of events, without effect.
    Shadow,
    /// It is active at the canary sites.
    Canary,
    /// It is watched there.
    Observe,
    /// It is active at the sites of this wave, too, and watched.
    Wave {
        /// Which wave of the plan; the first is 1.
        number: u8,
    },
}

/// A step with the sites for which it activates the candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// The step.
    pub step: Step,
    /// The sites, sorted; none for a step that activates nothing.
    pub sites: Vec<Name>,
}

/// Why a rollout is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Somebody wanted it.
    Hand,
    /// A router could not prepare the candidate.
    Nack,
    /// A step did not come to its end in time.
    Stalled,
    /// A router returned to its previous generation on its own.
    Retreated,
    /// A module of the candidate was quarantined.
    Quarantined,
    /// Too many faults.
    GateTraps,
    /// Too many more events rejected than before.
    GateRejects,
    /// The module takes too long.
    GateTime,
    /// The module uses too much of its fuel.
    GateFuel,
    /// Too many events judged otherwise in shadow.
    GateDifferences,
    /// A shadow that is held was not promoted in time.
    ShadowOver,
}

/// That a rollout is rolled back, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// Why.
    pub cause: Cause,
    /// The same for people: which router, which figure.
    pub reason: String,
    /// The record that says so: the generation of the sites that return to their old set.
    pub rev: u64,
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub outcome: Outcome,
    /// More of it, for people.
    pub reason: String,
    /// The record that says so.
    pub rev: u64,
}

/// How a rollout ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every site has the new set, and the ledger of the mesh balanced after that. Records of routers that did not
    /// look at the ledger say this, too.
    Complete,
    /// Every site has the new set, and the ledger of the mesh did not balance in time.
    Unbalanced,
    /// Every site has the old set.
    RolledBack,
}

impl Step {
    /// Whether the candidate is watched in this step for as long as the plan says, beyond being there.
    pub fn is_observing(self) -> bool {
        matches!(self, Self::Shadow | Self::Observe | Self::Wave { .. })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Staged => f.write_str("staged"),
            Self::Preparing => f.write_str("preparing"),
            Self::Prepared => f.write_str("prepared"),
            Self::Shadow => f.write_str("shadow"),
            Self::Canary => f.write_str("canary"),
            Self::Observe => f.write_str("observe"),
            Self::Wave { number } => write!(f, "wave {number}"),
        }
    }
}

impl Cause {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Hand => "hand",
            Self::Nack => "nack",
            Self::Stalled => "stalled",
            Self::Retreated => "retreated",
            Self::Quarantined => "quarantined",
            Self::GateTraps => "gate-traps",
            Self::GateRejects => "gate-rejects",
            Self::GateTime => "gate-time",
            Self::GateFuel => "gate-fuel",
            Self::GateDifferences => "gate-differences",
            Self::ShadowOver => "shadow-over",
        }
    }
}

impl Rollout {
    /// A rollout of `candidate` over `sites` that the record `id` starts.
    pub(crate) fn start(
        id: u64,
        plan: RolloutPlan,
        candidate: BindingSet,
        sites: &[Name],
        actor: &str,
        at_unix_ms: u64,
    ) -> Self {
        let schedule = schedule(id, &plan, sites);
        let (step_rev, actor) = (id, actor.to_owned());
        let (is_paused, is_promoted) = (false, false);
        Self {
            id,
            plan,
            candidate,
            actor,
            at_unix_ms,
            step_rev,
            is_paused,
            is_promoted,
            abort: None,
            end: None,
            schedule,
            at: 0,
            activations: Vec::new(),
        }
    }

    /// The steps from the first to the last, with the sites of each. Waves that would add no site are left out.
    pub fn schedule(&self) -> &[Scheduled] {
        &self.schedule
    }

    /// The newest step forward. A rollout that is rolled back stays at the one where it failed.
    pub fn step(&self) -> Step {
        self.schedule[self.at].step
    }

    /// The step after the present one; `None` when it was the last, after which the rollout is complete.
    pub fn next(&self) -> Option<&Scheduled> {
        self.schedule.get(self.at + 1)
    }

    /// The sites for which the present step activated the candidate.
    pub fn step_sites(&self) -> &[Name] {
        &self.schedule[self.at].sites
    }

    /// The sites for which the steps so far activated the candidate; the ones that have the old set again, too.
    pub fn reached(&self) -> impl Iterator<Item = &Name> {
        self.schedule[..=self.at].iter().flat_map(|scheduled| &scheduled.sites)
    }

    /// What it changes at a site now, beside the filters.
    pub fn changes_at(&self, site: &Name) -> &[GovernanceChange] {
        let is_there = self.is_forward() && self.reached().any(|reached| reached == site);
        if is_there { &self.plan.changes } else { &[] }
    }

    /// Whether it stays in its shadow until somebody promotes it.
    pub fn is_held(&self) -> bool {
        self.is_forward() && self.step() == Step::Shadow && self.plan.shadow_hold && !self.is_promoted
    }

    /// Whether it has neither completed nor come back to the old set everywhere.
    pub fn is_running(&self) -> bool {
        self.end.is_none()
    }

    /// Whether it goes forward, or would if it were not paused.
    pub fn is_forward(&self) -> bool {
        self.is_running() && self.abort.is_none()
    }

    /// Whether routers shall prepare the candidate and keep it prepared.
    pub fn wants_prepared(&self) -> bool {
        self.is_forward() && self.step() >= Step::Preparing
    }

    /// Where it stands, in one word or two.
    pub fn state(&self) -> String {
        match (&self.end, &self.abort) {
            (Some(End { outcome: Outcome::Complete, .. }), _) => "complete".into(),
            (Some(End { outcome: Outcome::Unbalanced, .. }), _) => "unbalanced".into(),
            (Some(End { outcome: Outcome::RolledBack, .. }), _) => "rolled-back".into(),
            (None, Some(_)) => "rolling-back".into(),
            (None, None) if self.is_paused => format!("{}, paused", self.step()),
            (None, None) if self.is_held() => format!("{}, held", self.step()),
            (None, None) => self.step().to_string(),
        }
    }

    pub(crate) fn advance(&mut self, rev: u64) {
        self.at += 1;
        if !self.step_sites().is_empty() {
            self.activations.push(rev);
        }
        self.step_rev = rev;
        self.is_promoted = false;
    }

    /// The numbers that sites know its generation by.
    pub(crate) fn activations(&self) -> Vec<u64> {
        self.activations.clone()
    }

    /// Goes on by itself; the step has its whole time again.
    pub(crate) fn resume(&mut self, rev: u64) {
        self.is_paused = false;
        self.step_rev = rev;
    }

    pub(crate) fn promote(&mut self, rev: u64) {
        if self.is_paused {
            self.resume(rev);
        }
        self.is_promoted = true;
    }

    pub(crate) fn roll_back(&mut self, cause: Cause, reason: &str, rev: u64) {
        self.abort = Some(Abort { cause, reason: reason.to_owned(), rev });
        self.step_rev = rev;
        self.is_paused = false;
    }

    pub(crate) fn finish(&mut self, outcome: Outcome, reason: &str, rev: u64) {
        self.end = Some(End { outcome, reason: reason.to_owned(), rev });
        self.is_paused = false;
        // The set lives on in the history, with its numbers, or nowhere.
        self.activations = Vec::new();
        self.candidate = BindingSet::default();
    }
}

/// Which step activates the candidate where.
fn schedule(id: u64, plan: &RolloutPlan, sites: &[Name]) -> Vec<Scheduled> {
    let quiet = |step| Scheduled { step, sites: Vec::new() };
    let mut steps = vec![quiet(Step::Staged), quiet(Step::Preparing), quiet(Step::Prepared)];
    if plan.shadow_s > 0 {
        steps.push(quiet(Step::Shadow));
    }
    let mut canary: Vec<Name> = plan.canary.clone();
    canary.sort();
    if !canary.is_empty() {
        steps.push(Scheduled { step: Step::Canary, sites: canary.clone() });
        steps.push(quiet(Step::Observe));
    }
    let mut rest: Vec<&Name> = sites.iter().filter(|site| !plan.canary.contains(site)).collect();
    // Everybody finds the same order, and each rollout has another: no site is the guinea pig of all.
    rest.sort_by_key(|site| Digest::of(format!("{id}/{site}").as_bytes()));
    let mut reached = canary.len();
    for (number, percent) in (1..).zip(&plan.waves) {
        // As many sites as the share says, rounded up; a wave of 100 % reaches all.
        let wanted = (sites.len() * usize::from(*percent)).div_ceil(100);
        let begin = reached - canary.len();
        let mut wave: Vec<Name> =
            rest.iter().take(wanted.saturating_sub(canary.len())).skip(begin).cloned().cloned().collect();
        wave.sort();
        if !wave.is_empty() {
            reached += wave.len();
            steps.push(Scheduled { step: Step::Wave { number }, sites: wave });
        }
    }
    steps
}
