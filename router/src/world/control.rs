//! The controller of rollouts: what it heard of the routers, and the steps that it writes down. Where one router writes
//! the log, it controls; where all share it, the one that has the lease (`shared`).

use super::keeper::Keeper;
use super::log::Log;
use super::reconcile::Readings;
use super::unix_ms;
use myelin_catalog::controller::Report;
use myelin_catalog::exchange::{Heard, RouterReport};
use myelin_catalog::{Decision, Observations, Op, decide};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The lease under which a controller writes.
const LEASE: &str = "rollout";
/// How long it lasts, in milliseconds: a controller that holds it asks again with every step.
const LEASE_MS: u64 = 30_000;

/// What the controller heard.
pub(super) struct Controller {
    seen: Observations,
    /// By the router's number.
    heard: BTreeMap<u32, (Heard, Instant)>,
    started: Instant,
    readings: Readings,
}

impl Controller {
    pub(super) fn new(readings: Readings) -> Self {
        Self { seen: Observations::default(), heard: BTreeMap::new(), started: Instant::now(), readings }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes the report of a router that the catalog knows.
    pub(super) fn note(&mut self, log: &Log, report: RouterReport) {
        let fleet = log.catalog().fleet();
        let Some(number) = fleet.router(&report.site, &report.router).map(|router| router.number) else { return };
        let RouterReport { rollout, phase, metrics, .. } = report.clone();
        self.seen.note(number, Report { seen_ms: self.now_ms(), rollout, phase, metrics });
        self.heard.retain(|number, _| fleet.router_numbered(*number).is_some());
        self.heard.insert(number, (Heard { report, age_ms: 0 }, Instant::now()));
    }

    /// Notes what was off in the ledger of the mesh in a step.
    pub(super) fn note_ledger(&mut self, step_rev: u64, off: Option<String>) {
        self.readings.done();
        if let Some(off) = &off {
            tracing::warn!(off, "the rollout waits for the ledger of the mesh");
        }
        self.seen.note_ledger(step_rev, self.now_ms(), off);
    }

    /// What was heard of all routers.
    pub(super) fn heard(&self) -> Arc<[(Heard, Instant)]> {
        self.heard.values().cloned().collect()
    }
}

impl Keeper {
    /// Takes the next step of the rollout that is under way, where there is one to take; says whether it did.
    pub(super) fn control(&mut self) -> bool {
        if self.shared.is_some() {
            // What it writes counts when it comes back.
            self.control_shared();
            return false;
        }
        if !self.is_writer() {
            return false;
        }
        let Some(op) = self.next_step() else { return false };
        tracing::info!(kind = op.kind(), "the rollout goes on");
        let now_ms = self.controller.now_ms();
        let holder = self.mesh.as_ref().map_or("router", |mesh| mesh.router.as_str()).to_owned();
        let written = self.log.lease(LEASE, &holder, LEASE_MS, now_ms).and_then(|fence| {
            myelin_failpoint::reach("step-leased");
            let record = self.log.draft(op, "rollout", unix_ms())?;
            self.log.keep_under(&fence, now_ms, &record)?;
            myelin_failpoint::reach("step-kept");
            Ok(())
        });
        match written {
            Ok(()) => {
                self.log_moved();
                true
            }
            Err(error) => {
                // Asked again at the next tick.
                tracing::error!(%error, "a step of the rollout is not written down");
                false
            }
        }
    }

    /// The record that the rollout under way needs next, by what this router has heard.
    pub(super) fn next_step(&mut self) -> Option<Op> {
        if let Some(mesh) = &self.mesh
            && let Some(site) = self.site()
        {
            let mut own = self.phase.report(site.clone(), &mesh.router);
            own.metrics = self.own_metrics(&own.phase);
            self.controller.note(&self.log, own);
        }
        let now_ms = self.controller.now_ms();
        self.controller.seen.follow(self.log.catalog(), now_ms);
        match decide(self.log.catalog(), &self.controller.seen, now_ms) {
            Decision::Append(op) => Some(op),
            Decision::Reconcile { .. } => {
                let step_rev = self.catalog().rollout()?.step_rev;
                let runtime = self.runtime().clone();
                self.controller.readings.begin(step_rev, &runtime);
                None
            }
            Decision::Nothing | Decision::Wait { .. } => None,
        }
    }
}
