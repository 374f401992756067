//! How a rollout goes on.

use serde::{Deserialize, Serialize};

use crate::error::CatalogError;
use crate::governance::{self, GovernanceChange};
use crate::limits::{ROLLOUT_TIME_MAX_S, SITES_EVER_MAX, WAVES_MAX};
use crate::names::Name;

/// How a rollout goes on. What is left out has its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutPlan {
    /// The sites that have the candidate first; none = it begins with the first wave.
    pub canary: Vec<Name>,
    /// How many sites have it after each wave, canaries included, in percent of all; rises to 100.
    pub waves: Vec<u8>,
    /// How long the candidate judges copies of events before it is active anywhere; 0 = not at all.
    pub shadow_s: u32,
    /// How many of a hundred events it judges copies of meanwhile.
    #[serde(skip_serializing_if = "is_every_event")]
    pub shadow_percent: u8,
    /// Nothing follows the shadow by itself: it goes on until somebody promotes the rollout, and is rolled back after
    /// `shadow_s`.
    #[serde(skip_serializing_if = "is_false")]
    pub shadow_hold: bool,
    /// How long it is watched after the canaries and after each wave.
    pub observe_s: u32,
    /// How many events each router shall have judged before a step is over; a quiet router is waited for until the
    /// step's deadline, and not longer. In shadow, one that no event came to is not waited for: there is nothing to
    /// compare, and nothing that could go wrong.
    pub events_min: u64,
    /// What ends it.
    pub gates: Gates,
    /// How long a step may take, beyond the time of observing, until it is given up.
    pub deadline_s: u32,
    /// What it changes beside the filters. It holds at the sites that have the candidate, and everywhere when the rollout
    /// is complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<GovernanceChange>,
    /// It goes on although a rule that it brings would turn back events that routers have recorded.
    #[serde(skip_serializing_if = "is_false")]
    pub accept_failures: bool,
}

/// What the candidate may do. Each router is judged by itself: a mean over a site would hide the one that fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// Most faults, in events of a million; `null` = any number.
    pub traps_ppm: Option<u32>,
    /// Most rejected events beyond the share of the old set, in events of a million; `null` = any number.
    pub rejects_ppm: Option<u32>,
    /// Longest time of the module for all but one event of a hundred, in microseconds; `null` = any.
    pub module_p99_us: Option<u32>,
    /// Most fuel, or CPU time, in percent of what a call may use, for all but one of a hundred; `null` = any.
    pub fuel_percent: Option<u8>,
    /// Most events that it judges otherwise than the old set, in events of a million, in shadow; `null` = any number,
    /// because a new version is there to judge otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences_ppm: Option<u32>,
}

/// The share of the events that a shadow judges where a plan says nothing else.
const EVERY_EVENT_PERCENT: u8 = 100;

// What is not said is not written either: a plan of before reads and hashes as it did.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_every_event(percent: &u8) -> bool {
    *percent == EVERY_EVENT_PERCENT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(is: &bool) -> bool {
    !*is
}

impl Default for RolloutPlan {
    fn default() -> Self {
        Self {
            canary: Vec::new(),
            waves: vec![10, 50, 100],
            shadow_s: 0,
            shadow_percent: EVERY_EVENT_PERCENT,
            shadow_hold: false,
            observe_s: 60,
            events_min: 1_000,
            gates: Gates::default(),
            deadline_s: 600,
            changes: Vec::new(),
            accept_failures: false,
        }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            traps_ppm: Some(1_000),
            rejects_ppm: Some(20_000),
            module_p99_us: Some(5_000),
            fuel_percent: Some(50),
            differences_ppm: None,
        }
    }
}

impl Gates {
    /// Gates that hold nothing back.
    pub const OPEN: Self =
        Self { traps_ppm: None, rejects_ppm: None, module_p99_us: None, fuel_percent: None, differences_ppm: None };
}

impl RolloutPlan {
    /// Checks what the types do not; whether the sites are there is the catalog's to say.
    pub fn validate(&self) -> Result<(), CatalogError> {
        let refuse = |field, why: String| Err(CatalogError::InvalidRecord { field, why });
        let waves = &self.waves;
        let rises = waves.windows(2).all(|pair| pair[0] < pair[1]);
        if !rises || waves.first().is_none_or(|first| *first == 0) || waves.last() != Some(&100) {
            return refuse("plan.waves", format!("{waves:?} does not rise from above 0 to 100; such as 10, 50, 100"));
        }
        if waves.len() > WAVES_MAX {
            return refuse("plan.waves", format!("there are {}; {WAVES_MAX} are the most", waves.len()));
        }
        let mut canary: Vec<&Name> = self.canary.iter().collect();
        canary.sort_unstable();
        if canary.len() > usize::from(SITES_EVER_MAX) || canary.windows(2).any(|pair| pair[0] == pair[1]) {
            return refuse("plan.canary", "a site is named twice; name each once".into());
        }
        let percent = self.shadow_percent;
        if !(1..=EVERY_EVENT_PERCENT).contains(&percent) {
            return refuse("plan.shadow_percent", format!("{percent} is outside 1 to {EVERY_EVENT_PERCENT}"));
        }
        if self.shadow_hold && self.shadow_s == 0 {
            return refuse(
                "plan.shadow_hold",
                "there is no shadow to hold; say with `shadow_s` how long at most".into(),
            );
        }
        for (field, seconds, least) in [
            ("plan.shadow_s", self.shadow_s, 0),
            ("plan.observe_s", self.observe_s, 0),
            ("plan.deadline_s", self.deadline_s, 1),
        ] {
            if !(least..=ROLLOUT_TIME_MAX_S).contains(&seconds) {
                return refuse(field, format!("{seconds} is outside {least} to {ROLLOUT_TIME_MAX_S}"));
            }
        }
        governance::validate(&self.changes)
    }
}
