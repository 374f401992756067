//! What routers report, and what a controller keeps of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::rollout::{Cause, Gates};

/// How old a report may be that says that all is well: three lost rounds of gossip and the time of a path around a
/// dead neighbour.
pub const OBSERVATION_FRESH_MS: u64 = 15_000;

/// Where a router is with the set that it was told to prepare or to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Phase {
    /// It gets the modules.
    Pulling,
    /// It has the modules.
    Pulled,
    /// They are compiled.
    Compiled,
    /// They pass their tests.
    Tested,
    /// They are warm on every worker.
    Prepared,
    /// The candidate judges copies of events.
    Shadowing {
        /// For how long, by the router's own monotonic clock.
        for_ms: u64,
    },
    /// A generation judges events.
    Active {
        /// Which.
        generation: u64,
        /// For how long, by the router's own monotonic clock.
        for_ms: u64,
    },
    /// The router returned to an earlier generation on its own, which it may always do.
    Retreated {
        /// The generation that it left.
        from: u64,
        /// The one that it runs instead.
        to: u64,
        /// Why.
        reason: String,
    },
    /// It cannot prepare the set.
    Nack {
        /// The stable code.
        code: String,
        /// What is wrong.
        reason: String,
    },
}

/// How the new set does at a router, since it is active or in shadow there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Events that the new set judged.
    pub events: u64,
    /// Those on which a filter failed.
    pub traps: u64,
    /// Those that were rejected.
    pub rejects: u64,
    /// Events that the old set judged in as long a time before, or beside the shadow.
    pub base_events: u64,
    /// Those of them that were rejected.
    pub base_rejects: u64,
    /// Those that the new set judges otherwise: in shadow only.
    #[serde(skip_serializing_if = "is_zero")]
    pub differences: u64,
    /// The 99th percentile of the modules' time, in microseconds.
    pub module_p99_us: u32,
    /// The 99th percentile of the fuel or CPU time, in percent of what a call may use.
    pub fuel_p99_percent: u8,
    /// Events that publishers sent since the rules and policies of the rollout hold there, where it brings some.
    #[serde(skip_serializing_if = "is_zero")]
    pub arrived: u64,
    /// How many of a million these hold back where they come in, or withhold from subscribers: where the difference to
    /// before is the largest.
    #[serde(skip_serializing_if = "is_zero_ppm")]
    pub held_ppm: u32,
    /// How many it was there before.
    #[serde(skip_serializing_if = "is_zero_ppm")]
    pub base_held_ppm: u32,
}

// A router of before knows no such field, and never was in a shadow.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero_ppm(ppm: &u32) -> bool {
    *ppm == 0
}

/// The newest that is known of a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// When the router was heard of, by the controller's monotonic clock.
    pub seen_ms: u64,
    /// Of which rollout it speaks.
    pub rollout: u64,
    /// Where the router is.
    pub phase: Phase,
    /// How the new set does there.
    pub metrics: Metrics,
}

/// What the ledger of the mesh said at the end of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerReading {
    /// Since when it is read in this step.
    pub since_ms: u64,
    /// When it was read last, both by the controller's monotonic clock.
    pub seen_ms: u64,
    /// What was off in it; none where it balanced.
    pub off: Option<String>,
}

/// What a controller knows beside the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observations {
    /// By the router's number.
    reports: BTreeMap<u32, Report>,
    /// Since when the present step is known, and which record began it.
    step: Option<(u64, u64)>,
    /// The newest reading of the ledger, and which record began the step in which it was made.
    ledger: Option<(u64, LedgerReading)>,
}

impl Phase {
    /// The state as people read it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pulling => "PULLING",
            Self::Pulled => "PULLED",
            Self::Compiled => "COMPILED",
            Self::Tested => "TESTED",
            Self::Prepared => "PREPARED",
            Self::Shadowing { .. } => "SHADOWING",
            Self::Active { .. } => "ACTIVE",
            Self::Retreated { .. } => "RETREATED",
            Self::Nack { .. } => "NACK",
        }
    }

    /// Whether the candidate could become active at once. A generation that is active says nothing of that: a router
    /// that has not read of the candidate yet runs the old set, and says so.
    pub fn is_prepared(&self) -> bool {
        matches!(self, Self::Prepared | Self::Shadowing { .. })
    }
}

impl Observations {
    /// Keeps the report of the router of that number, in place of an older one.
    pub fn note(&mut self, router: u32, report: Report) {
        self.reports.insert(router, report);
    }

    /// Begins the time of a step that the log has begun, and forgets routers that are gone. To be called after each
    /// record, and once by a controller that takes over.
    pub fn follow(&mut self, catalog: &Catalog, now_ms: u64) {
        self.reports.retain(|number, _| catalog.fleet().router_numbered(*number).is_some());
        let step_rev = catalog.rollout().map(|rollout| rollout.step_rev);
        if self.step.map(|(rev, _)| rev) != step_rev {
            self.step = step_rev.map(|rev| (rev, now_ms));
        }
    }

    /// Keeps what the ledger of the mesh said in the step that the record `step_rev` began: what is off, if anything.
    pub fn note_ledger(&mut self, step_rev: u64, now_ms: u64, off: Option<String>) {
        let since_ms = self.ledger(step_rev).map_or(now_ms, |ledger| ledger.since_ms);
        self.ledger = Some((step_rev, LedgerReading { since_ms, seen_ms: now_ms, off }));
    }

    /// What the ledger of the mesh said last in the step that the record `step_rev` began.
    pub fn ledger(&self, step_rev: u64) -> Option<&LedgerReading> {
        self.ledger.as_ref().filter(|(rev, _)| *rev == step_rev).map(|(_, ledger)| ledger)
    }

    /// The newest report of a router.
    pub fn report(&self, router: u32) -> Option<&Report> {
        self.reports.get(&router)
    }

    /// Since when the step is known that the record `step_rev` began.
    pub fn step_seen_ms(&self, step_rev: u64) -> Option<u64> {
        self.step.filter(|(rev, _)| *rev == step_rev).map(|(_, seen_ms)| seen_ms)
    }
}

impl Metrics {
    /// Events that came to what is new.
    pub fn came(&self) -> u64 {
        self.events.max(self.arrived)
    }

    /// The first gate that these figures exceed, and how.
    pub fn exceeds(&self, gates: &Gates) -> Option<(Cause, String)> {
        let traps_ppm = share_ppm(self.traps, self.events);
        if let Some(most) = gates.traps_ppm.filter(|most| traps_ppm > u64::from(*most)) {
            let (traps, events) = (self.traps, self.events);
            return Some((
                Cause::GateTraps,
                format!("{traps} faults in {events} events; {} are the most", percent(most)),
            ));
        }
        // Without events before there is nothing to compare with, and a filter that rejects much stands out.
        let (now, before) = (share_ppm(self.rejects, self.events), share_ppm(self.base_rejects, self.base_events));
        if let Some(most) = gates.rejects_ppm.filter(|most| now.saturating_sub(before) > u64::from(*most)) {
            let [now, before, most] = [now, before, most.into()].map(percent);
            let why = format!("{now} of the events rejected and {before} before; {most} more are the most");
            return Some((Cause::GateRejects, why));
        }
        let (now, before) = (self.held_ppm, self.base_held_ppm);
        if let Some(most) = gates.rejects_ppm.filter(|most| now.saturating_sub(before) > *most) {
            let [now, before, most] = [now, before, most].map(percent);
            let why = format!(
                "rules and policies hold back {now} of the events and {before} before; {most} more are the most"
            );
            return Some((Cause::GateRejects, why));
        }
        let (differences, events) = (self.differences, self.events);
        let differences_ppm = share_ppm(differences, events);
        if let Some(most) = gates.differences_ppm.filter(|most| differences_ppm > u64::from(*most)) {
            let most = percent(most);
            let why = format!("{differences} of {events} events judged otherwise in shadow; {most} are the most");
            return Some((Cause::GateDifferences, why));
        }
        let time_us = self.module_p99_us;
        if let Some(most) = gates.module_p99_us.filter(|most| time_us > *most) {
            return Some((
                Cause::GateTime,
                format!("p99 of the modules' time is {time_us} us; {most} us are the most"),
            ));
        }
        let percent = self.fuel_p99_percent;
        if let Some(most) = gates.fuel_percent.filter(|most| percent > *most) {
            return Some((Cause::GateFuel, format!("p99 of the fuel is {percent} %; {most} % are the most")));
        }
        None
    }
}

/// A share of a million in percent, as gates are given.
pub fn percent(ppm: impl Into<u64>) -> String {
    let ppm = ppm.into();
    let (whole, part) = (ppm / 10_000, ppm % 10_000);
    let digits = format!("{part:04}");
    match digits.trim_end_matches('0') {
        "" => format!("{whole} %"),
        digits => format!("{whole}.{digits} %"),
    }
}

/// How many in a million. More parts than there are in the whole count as all: counters are read one after another.
fn share_ppm(part: u64, whole: u64) -> u64 {
    let whole = u128::from(whole.max(part));
    let share = (u128::from(part) * 1_000_000).checked_div(whole).unwrap_or(0);
    u64::try_from(share).unwrap_or(1_000_000)
}
