//! What this router runs, has ready and lets judge in shadow, as its copy of the log wants it.

use super::{Keeper, TRY_AGAIN};
use crate::world::rollout::RolloutKind;
use crate::world::{WorldError, unix_ms};
use myelin_catalog::{BindingSet, Generation, Phase};
use std::sync::Arc;
use std::time::Instant;

impl Keeper {
    /// Lets the workers run what the log says, and has ready what it wants ready.
    pub(super) fn reconcile(&mut self) {
        if !self.is_booted {
            return;
        }
        let wanted = match &self.site {
            Some(site) => self.catalog().wanted(site),
            None => myelin_catalog::Wanted { active: self.catalog().active().clone(), prepare: None, is_shadow: false },
        };
        let rollout = self.catalog().rollout().map_or(0, |rollout| rollout.id);
        if !self.run_wanted(rollout, &wanted.active) {
            return;
        }
        match wanted.prepare {
            Some((id, set)) => self.prepare_wanted(id, &set, wanted.is_shadow),
            None => {
                self.forget_governance();
                self.deployment.end_shadow();
                self.phase.runs(rollout, wanted.active.number);
                if rollout == 0 && self.mesh.is_some() {
                    self.deployment.forget_candidate();
                }
            }
        }
    }

    /// Lets the workers run what the log says, and says whether they do.
    fn run_wanted(&mut self, rollout: u64, wanted: &Arc<Generation>) -> bool {
        if self.retreat.as_ref().is_some_and(|retreat| retreat.holds(wanted.number)) {
            return false;
        }
        self.retreat = None;
        if wanted.number == self.deployment.active().number {
            return true;
        }
        if self.failed.is_some_and(|(number, at)| number == wanted.number && at.elapsed() < TRY_AGAIN) {
            return false;
        }
        if !self.has_blobs(&wanted.bindings) {
            self.phase.set(rollout, Phase::Pulling);
            return false;
        }
        if let Err(error) = self.catalog().check_all_signed(&wanted.bindings, self.demands) {
            // Once, however often it is tried: a writer that demands what this router does had refused it.
            if self.failed.is_none_or(|(number, _)| number != wanted.number) {
                self.alarm(error.code());
            }
            self.failed = Some((wanted.number, Instant::now()));
            self.fail(rollout, &error.into());
            return false;
        }
        if !wanted.bindings.is_empty() {
            self.guard.activating(wanted.number);
        }
        // A set that a rollout has left as it is keeps its source.
        let is_forward = self.catalog().rollout().is_some_and(|rollout| rollout.is_forward());
        let is_activated = wanted.source == wanted.number || is_forward;
        let kind = if is_activated { RolloutKind::Activated } else { RolloutKind::RolledBack };
        let phase = &self.phase;
        match self.deployment.activate(wanted, kind, |step| phase.set(rollout, step)) {
            Ok(()) => {
                self.phase.began();
                (self.failed, self.is_healthy) = (None, false);
                let catalog = self.log.catalog();
                let candidate = catalog.rollout().map(|rollout| rollout.candidate.clone()).unwrap_or_default();
                self.deployment.forge.keep(|digest| {
                    let uses = |set: &BindingSet| set.iter().any(|staged| staged.digest == *digest);
                    let history = catalog.history().rev().take(2);
                    uses(catalog.staged()) || uses(&candidate) || history.into_iter().any(|kept| uses(&kept.bindings))
                });
                true
            }
            Err(error) => {
                self.failed = Some((wanted.number, Instant::now()));
                self.fail(rollout, &error);
                false
            }
        }
    }

    fn prepare_wanted(&mut self, id: u64, set: &BindingSet, is_shadow: bool) {
        if self.phase.is_nack(id) {
            return;
        }
        if !is_shadow {
            self.deployment.end_shadow();
        }
        if !self.has_blobs(set) {
            return self.phase.set(id, Phase::Pulling);
        }
        // Whoever has written the rollout's record: this router looks for itself.
        if let Err(error) = self.catalog().check_demands(set, self.demands, unix_ms()) {
            self.alarm(error.code());
            return self.fail(id, &error.into());
        }
        if let Err(error) = self.prepare_governance(id) {
            return self.fail(id, &error);
        }
        let phase = &self.phase;
        match self.deployment.prepare(set, |step| phase.set(id, step)) {
            Ok(()) if is_shadow => self.shadow_wanted(id),
            Ok(()) => self.phase.set(id, Phase::Prepared),
            Err(error) => self.fail(id, &error),
        }
    }

    /// Lets what is prepared judge copies of events.
    fn shadow_wanted(&mut self, id: u64) {
        let percent = self.catalog().rollout().map_or(100, |rollout| rollout.plan.shadow_percent);
        match self.deployment.begin_shadow(id, percent) {
            Ok(()) => {
                let for_ms = self.deployment.shadow().map_or(0, |shadow| shadow.for_ms());
                self.phase.set(id, Phase::Shadowing { for_ms });
            }
            Err(error) => self.fail(id, &error),
        }
    }

    fn alarm(&mut self, code: &str) {
        *self.alarms.entry(code.to_owned()).or_default() += 1;
    }

    fn fail(&self, rollout: u64, error: &WorldError) {
        tracing::error!(rollout, code = &*error.code, %error, "the set cannot be prepared");
        self.phase.set(rollout, Phase::Nack { code: error.code.to_string(), reason: error.message.clone() });
    }

    /// Whether the bytes of every module of a set are here.
    fn has_blobs(&self, set: &BindingSet) -> bool {
        set.iter().all(|staged| match self.catalog().module(&staged.binding.module) {
            Some(module) => self.log.shelf().has_blob(&staged.digest, module.size_bytes),
            // Its record is gone, which the catalog allows for no set that is in use; reading says what is wrong.
            None => true,
        })
    }
}
