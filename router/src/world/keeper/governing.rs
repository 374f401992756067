//! What governs topics here beside the filters: rules and policies of the log, as they hold at this site.

use super::Keeper;
use crate::screen::{Screen, Screens};
use crate::world::admission::Marks;
use crate::world::approve::asked_by;
use crate::world::recorded::Look;
use crate::world::{Blame, WorldError};
use myelin_catalog::{GovernanceChange, Metrics, TopicRule};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How old a reading of the counters may be: a controller looks at its own with every command.
const MEASURED_FRESH: Duration = Duration::from_millis(250);

/// The rules and policies that a rollout brings, ready to hold here.
#[derive(Default)]
pub(super) struct Ahead {
    /// The rollout that this router was ready for last.
    rollout: u64,
    /// Its rules about schemas, compiled.
    screens: Option<Screens>,
}

impl Keeper {
    /// Lets the tenants and the policies hold that the log wants here now.
    pub(super) fn follow_policies(&mut self) {
        self.policing.follow_tenants(self.log.catalog());
        let governance = self.log.catalog().governance_at(self.site.as_ref());
        if let Err(errors) = self.policing.follow(&governance) {
            // Its writer has compiled them: it is of another version.
            tracing::error!(%errors, "the policies of the catalog cannot be compiled: those before hold on, or nobody may anything");
            *self.alarms.entry("policies".to_owned()).or_default() += 1;
        }
    }

    /// Publishes the rules about schemas as they hold here now. Nothing is made where there are none.
    pub(super) fn renew_screens(&mut self) {
        let catalog = self.log.catalog();
        let governance = catalog.governance_at(self.site.as_ref());
        let rules: Vec<&TopicRule> = governance.topic_rules().filter(|rule| rule.schema.is_some()).collect();
        self.registry.renew(catalog.schemas(), rules.iter().copied());
        let (known, revision) = &self.screened;
        let is_known =
            rules.iter().copied().eq(known) && (rules.is_empty() || *revision == catalog.schemas().revision());
        if is_known {
            return;
        }
        let before = self.screens.load();
        let screens =
            Screens::after_with(&before, self.ahead.screens.as_ref(), rules.iter().copied(), catalog.schemas());
        self.screened = (rules.into_iter().cloned().collect(), catalog.schemas().revision());
        self.screens.store(Arc::new(screens));
    }

    /// Compiles the rules and policies that rollout `id` brings, beside those that hold.
    ///
    /// # Errors
    /// What cannot be compiled.
    pub(super) fn prepare_governance(&mut self, id: u64) -> Result<(), WorldError> {
        let catalog = self.log.catalog();
        let Some(rollout) = catalog.rollout().filter(|rollout| rollout.id == id) else { return Ok(()) };
        if rollout.plan.changes.is_empty() || self.ahead.rollout == id {
            return Ok(());
        }
        let governance = catalog.governance_ahead();
        self.policing.check(&governance)?;
        let rules = governance.topic_rules().filter(|rule| rule.schema.is_some());
        let screens = Screens::after(&self.screens.load(), rules, catalog.schemas());
        let brought: Vec<_> = rollout.plan.changes.iter().filter_map(GovernanceChange::rule).collect();
        let is_brought = |screen: &&Screen| brought.iter().any(|rule| rule.name.as_str() == screen.rule());
        if let Some((rule, why)) =
            screens.all().filter(is_brought).find_map(|screen| Some((screen.rule(), screen.fault()?)))
        {
            let message = format!("topic rule {rule}: {why}");
            return Err(WorldError::new(Blame::Request, "schema-unusable", message));
        }
        if !rollout.plan.accept_failures {
            // Everybody hears what becomes of a rollout: numbers, nothing of single events, and not without end. Whether who
            // has asked for it may see payloads is not known here.
            let actor = asked_by(&rollout.actor).into();
            let look = Look { actor, sees_payloads: false, subject: format!("rollout {id}") };
            let meant = (&screens, |screen: &Screen| is_brought(&screen));
            let (judged, verdict) = self.looks.judge((&look, Instant::now()), &self.account.shared.captures, meant);
            let result = verdict.as_ref().err().map_or("ok", |error| &*error.code);
            if let Some(note) = judged.note(&rollout.actor, &look.subject, result) {
                self.account.audit.note(note);
            }
            verdict?;
        }
        self.ahead = Ahead { rollout: id, screens: Some(screens) };
        Ok(())
    }

    /// Lets go of what was compiled for a rollout that needs it no more.
    pub(super) fn forget_governance(&mut self) {
        self.ahead.screens = None;
    }

    /// Reads the counters where the changes of a rollout are about to hold here: what comes after is held against what was
    /// before.
    pub(super) fn mark_admission(&mut self) {
        let rollout = self.site.as_ref().and_then(|site| {
            let rollout = self.log.catalog().rollout()?;
            (!rollout.changes_at(site).is_empty()).then(|| rollout.clone())
        });
        match (rollout, &self.marks) {
            (None, None) => {}
            (None, Some(_)) => (self.marks, self.measured) = (None, None),
            (Some(rollout), Some(marks)) if marks.rollout == rollout.id => {}
            (Some(rollout), _) => {
                let marks = self.runtime.block_on(Marks::take(&self.account, &rollout));
                (self.marks, self.measured) = (Some(Arc::new(marks)), None);
            }
        }
    }

    /// Puts into `metrics` what the changes of a rollout hold back here, where some hold.
    pub(super) fn measure_admission(&mut self, metrics: &mut Metrics) {
        let Some(marks) = &self.marks else { return };
        match &self.measured {
            Some((at, known)) if at.elapsed() < MEASURED_FRESH => {
                let Metrics { arrived, held_ppm, base_held_ppm, .. } = *known;
                (metrics.arrived, metrics.held_ppm, metrics.base_held_ppm) = (arrived, held_ppm, base_held_ppm);
            }
            _ => {
                self.runtime.block_on(marks.measure(&self.account, metrics));
                self.measured = Some((Instant::now(), *metrics));
            }
        }
    }
}
