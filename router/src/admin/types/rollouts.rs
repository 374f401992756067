//! The JSON of rollouts, both ways.

use crate::admin::fleet::MeshRollout;
use crate::admin::governance::ChangesSpec;
use crate::admin::proposals::Proposal;
use crate::world::{RolloutKind, RolloutReport};
use myelin_catalog::{CatalogError, Gates, GovernanceChange, Name, RolloutPlan};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What to roll out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct RolloutRequest {
    /// Why, for people who read the list of rollouts; at most 1,024 bytes.
    pub(in crate::admin) note: Option<String>,
    /// How it goes on over the sites of the mesh; without, every site swaps as soon as all have prepared.
    pub(in crate::admin) plan: Option<PlanSpec>,
    /// Rules and policies that it brings beside filters; it goes on over the sites then, by the default plan where none is
    /// given.
    pub(in crate::admin) changes: ChangesSpec,
    /// Leave out the filters that are staged: they stay staged, and the rollout brings `changes` alone.
    pub(in crate::admin) only_changes: bool,
}

/// How a rollout goes on over the sites of a mesh. What is left out has its default.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct PlanSpec {
    /// The sites that have the new set first.
    canary: Vec<String>,
    /// How many sites have it after each wave, in percent of all; rises to 100. Default 10, 50, 100.
    waves: Option<Vec<u8>>,
    /// How long the new set judges copies of events before it is active anywhere, in seconds. Default 0: not at all.
    shadow_s: Option<u32>,
    /// How many of a hundred events it judges copies of meanwhile. Default 100.
    shadow_percent: Option<u8>,
    /// Stay in the shadow until the rollout is promoted; it is rolled back after `shadow_s`.
    shadow_hold: bool,
    /// How long it is watched after the canaries and after each wave, in seconds. Default 60.
    observe_s: Option<u32>,
    /// How many events each router shall have judged before a step is over. Default 1,000; a quiet router is waited
    /// for until the deadline, but in shadow not one that no event came to.
    events_min: Option<u64>,
    /// What ends it; `null` in place of a number: any.
    gates: Option<GatesSpec>,
    /// How long a step may take beyond the time of observing, in seconds. Default 600.
    deadline_s: Option<u32>,
    /// Go on although rules of `changes` would turn back events that captures of routers hold.
    accept_failures: bool,
}

/// What the new set may do at each router before it is rolled back. What is left out has its default.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct GatesSpec {
    /// Most faults, in events of a million. Default 1,000.
    traps_ppm: Option<u32>,
    /// Most rejected events beyond the share of the old set, in events of a million. Default 20,000.
    rejects_ppm: Option<u32>,
    /// Longest time of a call for all but one of a hundred, in microseconds. Default 5,000.
    module_p99_us: Option<u32>,
    /// Most CPU time in percent of what a call may use, for all but one of a hundred. Default 50.
    fuel_percent: Option<u8>,
    /// Most events that it judges otherwise than the old set in shadow, in events of a million. Default any.
    differences_ppm: Option<u32>,
}

impl Default for GatesSpec {
    fn default() -> Self {
        Self::of(&Gates::default())
    }
}

impl GatesSpec {
    fn of(gates: &Gates) -> Self {
        let Gates { traps_ppm, rejects_ppm, module_p99_us, fuel_percent, differences_ppm } = gates.clone();
        Self { traps_ppm, rejects_ppm, module_p99_us, fuel_percent, differences_ppm }
    }
}

impl PlanSpec {
    /// As this plan was asked for, with its defaults.
    pub(in crate::admin) fn of(plan: &RolloutPlan) -> Self {
        Self {
            canary: plan.canary.iter().map(Name::to_string).collect(),
            waves: Some(plan.waves.clone()),
            shadow_s: Some(plan.shadow_s),
            shadow_percent: Some(plan.shadow_percent),
            shadow_hold: plan.shadow_hold,
            observe_s: Some(plan.observe_s),
            events_min: Some(plan.events_min),
            gates: Some(GatesSpec::of(&plan.gates)),
            deadline_s: Some(plan.deadline_s),
            accept_failures: plan.accept_failures,
        }
    }

    /// The plan.
    ///
    /// # Errors
    /// When a site's name is none.
    pub(in crate::admin) fn read(self, changes: Vec<GovernanceChange>) -> Result<RolloutPlan, CatalogError> {
        let default = RolloutPlan::default();
        let GatesSpec { traps_ppm, rejects_ppm, module_p99_us, fuel_percent, differences_ppm } =
            self.gates.unwrap_or_default();
        Ok(RolloutPlan {
            canary: self.canary.iter().map(|site| site.parse()).collect::<Result<_, _>>()?,
            waves: self.waves.unwrap_or(default.waves),
            shadow_s: self.shadow_s.unwrap_or(default.shadow_s),
            shadow_percent: self.shadow_percent.unwrap_or(default.shadow_percent),
            shadow_hold: self.shadow_hold,
            observe_s: self.observe_s.unwrap_or(default.observe_s),
            events_min: self.events_min.unwrap_or(default.events_min),
            gates: Gates { traps_ppm, rejects_ppm, module_p99_us, fuel_percent, differences_ppm },
            deadline_s: self.deadline_s.unwrap_or(default.deadline_s),
            changes,
            accept_failures: self.accept_failures,
        })
    }
}

/// Where to return to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct RollbackRequest {
    /// The generation whose set becomes active again, by any number that is shown for it; without it the one before the
    /// active one.
    pub(in crate::admin) to: Option<u64>,
    /// Why, for people who read the list of rollouts; at most 1,024 bytes.
    pub(in crate::admin) note: Option<String>,
}

/// What a rollout did.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Rollout {
    /// What kind of change it was.
    kind: RolloutKind,
    /// The generation that is active since.
    pub(in crate::admin) generation: u64,
    /// The generation before.
    previous: u64,
    /// What changed.
    plan: PlanInfo,
    /// Who wanted it.
    actor: String,
    /// Why, where a note was given to this process.
    note: Option<String>,
    /// When, Unix milliseconds.
    at_unix_ms: u64,
    /// How long it took, preparing included, in milliseconds.
    took_ms: u64,
    /// How long preparing took on all workers together, in milliseconds.
    prepare_ms: u64,
    /// The longest that a worker paused for the swap, in microseconds.
    swap_us_max: u64,
    /// The most CPU time that a worker used for the swap, in microseconds: what the swap itself costs. What a pause lasts
    /// longer, the operating system ran something else on that core.
    swap_cpu_us_max: u64,
    /// How many workers swapped.
    workers: usize,
    /// Bindings whose state was handed over to the new version.
    handed_over: Vec<String>,
    /// Bindings whose new version refused the state of the old one, and began anew: why.
    not_handed_over: Vec<String>,
}

/// What changed between two generations.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct PlanInfo {
    /// Bindings that are new.
    added: Vec<String>,
    /// Bindings that differ.
    changed: Vec<ChangeInfo>,
    /// Bindings that are gone.
    removed: Vec<String>,
    /// Bindings that stayed.
    kept: Vec<String>,
}

/// A binding that differs between two generations.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ChangeInfo {
    /// Which.
    name: String,
    /// The fields that differ.
    fields: Vec<&'static str>,
}

impl Rollout {
    /// The report, with the note that was given for it.
    pub(in crate::admin) fn new(report: &RolloutReport, note: Option<String>) -> Self {
        let texts = |names: &[Name]| names.iter().map(Name::to_string).collect();
        let changed = report.plan.changed.iter();
        let changed = changed.map(|change| ChangeInfo { name: change.name.to_string(), fields: change.fields.clone() });
        Self {
            kind: report.kind,
            generation: report.generation,
            previous: report.previous,
            plan: PlanInfo {
                added: texts(&report.plan.added),
                changed: changed.collect(),
                removed: texts(&report.plan.removed),
                kept: texts(&report.plan.kept),
            },
            actor: report.actor.clone(),
            note,
            at_unix_ms: report.at_unix_ms,
            took_ms: report.prepare_ms + report.swap_us_max.div_ceil(1_000),
            prepare_ms: report.prepare_ms,
            swap_us_max: report.swap_us_max,
            swap_cpu_us_max: report.swap_cpu_us_max,
            workers: report.workers,
            handed_over: report.handed_over.clone(),
            not_handed_over: report.not_handed_over.clone(),
        }
    }
}

/// The rollouts since the router's start that are remembered.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct RolloutList {
    /// What waits for somebody else to approve it, oldest first.
    pub(in crate::admin) proposals: Vec<Proposal>,
    /// Newest last.
    pub(in crate::admin) rollouts: Vec<Rollout>,
    /// The generation that judges events now.
    pub(in crate::admin) active_generation: u64,
    /// Rollouts over the sites of the mesh, oldest first.
    pub(in crate::admin) mesh: Vec<MeshRollout>,
    /// The generations that a rollback can return to, oldest first.
    pub(in crate::admin) generations: Vec<GenerationInfo>,
}

/// A set of bindings that is or was active.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct GenerationInfo {
    /// Its number.
    pub(in crate::admin) generation: u64,
    /// Other numbers for it: those under which a rollout made it active at sites. A rollback takes them as well.
    pub(in crate::admin) at_sites: Vec<u64>,
    /// The generation that had this set first: the number itself unless a rollback returned to the set.
    pub(in crate::admin) source: u64,
    /// When it became active, Unix milliseconds.
    pub(in crate::admin) at_unix_ms: u64,
    /// Who made it active.
    pub(in crate::admin) actor: String,
    /// How many bindings it has.
    pub(in crate::admin) bindings: usize,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn a_plan_is_shown_as_it_was_asked_for() {
        let asked = serde_json::json!({"canary": ["eu1"], "waves": [50, 100], "shadow_s": 5, "shadow_percent": 10,
            "shadow_hold": true, "observe_s": 7, "events_min": 3, "deadline_s": 9, "accept_failures": true,
            "gates": {"traps_ppm": null, "rejects_ppm": 4, "module_p99_us": 5, "fuel_percent": 6, "differences_ppm": 7}});
        let plan = serde_json::from_value::<PlanSpec>(asked.clone()).unwrap().read(Vec::new()).unwrap();
        assert_eq!(serde_json::to_value(PlanSpec::of(&plan)).unwrap(), asked);
    }
}
