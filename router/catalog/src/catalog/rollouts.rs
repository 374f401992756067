//! What rollouts do to the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::{conflict, not_found};
use super::{Catalog, Generation};
use crate::error::CatalogError;
use crate::limits::{REASON_LEN_MAX_BYTES, ROLLOUTS_KEPT, SITE_NUMBERS_KEPT};
use crate::names::Name;
use crate::op::Op;
use crate::plan::Plan;
use crate::record::Record;
use crate::rollout::{Outcome, Rollout, RolloutPlan, Step};
use crate::set::BindingSet;

/// What the log wants of the routers of a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// What they run. A router that has not prepared it prepares it first, and serves nothing before.
    pub active: Arc<Generation>,
    /// What they prepare beside that and report about: the rollout's number and its set.
    pub prepare: Option<(u64, BindingSet)>,
    /// Whether the prepared set judges copies of events.
    pub is_shadow: bool,
}

impl Catalog {
    /// The generation that is active at a site: its number is the revision of the newest record that changed what is
    /// active *there*. For a site that the catalog does not know it is that of the whole mesh.
    pub fn active_for(&self, site: &Name) -> &Arc<Generation> {
        self.sites.get(site).unwrap_or_else(|| self.active())
    }

    /// All that a router of that site has to do, from the log alone: a router that was away needs nothing else.
    pub fn wanted(&self, site: &Name) -> Wanted {
        let active = self.active_for(site).clone();
        let ahead = self.rollout().filter(|rollout| rollout.wants_prepared());
        let ahead = ahead.filter(|rollout| !rollout.reached().any(|reached| reached == site));
        let is_shadow = ahead.is_some_and(|rollout| rollout.step() == Step::Shadow);
        Wanted { active, prepare: ahead.map(|rollout| (rollout.id, rollout.candidate.clone())), is_shadow }
    }

    /// The rollout that is under way.
    pub fn rollout(&self) -> Option<&Arc<Rollout>> {
        self.rollouts.back().filter(|rollout| rollout.is_running())
    }

    /// The rollouts that are remembered, oldest first; the last may be under way.
    pub fn rollouts(&self) -> impl DoubleEndedIterator<Item = &Arc<Rollout>> {
        self.rollouts.iter()
    }

    /// The change that starts a rollout of the staged set.
    pub fn rollout_start(&self, plan: RolloutPlan) -> Op {
        Op::RolloutStarted { bindings: self.staged.revisions(), plan: Box::new(plan) }
    }

    /// The change that starts a rollout of the plan's changes alone: what is staged stays staged.
    pub fn governance_start(&self, plan: RolloutPlan) -> Op {
        Op::RolloutStarted { bindings: self.active().bindings.revisions(), plan: Box::new(plan) }
    }

    pub(super) fn check_no_rollout(&self, mend: &'static str) -> Result<(), CatalogError> {
        match self.rollout() {
            None => Ok(()),
            Some(rollout) => Err(CatalogError::RolloutRunning { id: rollout.id, state: rollout.state(), mend }),
        }
    }

    pub(super) fn check_rollout(&self, op: &Op) -> Result<(), CatalogError> {
        match op {
            Op::RolloutStarted { bindings, plan } => self.check_started(bindings, plan),
            Op::RolloutAdvanced { id, to, sites } => self.check_advanced(*id, *to, sites),
            Op::RolloutPaused { id } => match self.find_forward(*id)?.is_paused {
                true => conflict(format!("rollout {id} is paused already")),
                false => Ok(()),
            },
            Op::RolloutResumed { id } => match self.find_forward(*id)?.is_paused {
                true => Ok(()),
                false => conflict(format!("rollout {id} is not paused; it goes on by itself")),
            },
            Op::RolloutPromoted { id } => {
                let rollout = self.find_forward(*id)?;
                match rollout.step().is_observing() || rollout.is_paused {
                    true => Ok(()),
                    false => conflict(format!(
                        "rollout {id} is at a step that waits for its routers and for no time ({}); abort it, or wait",
                        rollout.state()
                    )),
                }
            }
            Op::RolloutAborted { id, reason, .. } => {
                check_text("reason", reason)?;
                self.find_forward(*id).map(|_| ())
            }
            Op::RolloutFinished { id, outcome, reason } => {
                check_text("reason", reason)?;
                self.check_finished(*id, *outcome)
            }
            _ => Ok(()),
        }
    }

    fn check_started(&self, bindings: &BTreeMap<Name, u64>, plan: &RolloutPlan) -> Result<(), CatalogError> {
        self.check_no_rollout("one rollout runs at a time: wait for its end, or abort it")?;
        self.check_startable(bindings, plan)
    }

    /// Whether a rollout could start, once none is under way.
    pub(super) fn check_startable(
        &self,
        bindings: &BTreeMap<Name, u64>,
        plan: &RolloutPlan,
    ) -> Result<(), CatalogError> {
        plan.validate()?;
        if self.fleet.sites().len() == 0 {
            let at_once = match plan.changes.is_empty() {
                true => "make what is staged active at once: `myelin rollout start` without flags about sites",
                false => "let rules and policies hold at once: `myelin topic apply`, `myelin policy apply`",
            };
            return conflict(format!("there are no sites to roll out over, as in a mesh; {at_once}"));
        }
        plan.canary.iter().try_for_each(|site| self.fleet.find_site(site).map(|_| ()))?;
        self.check_changes(&plan.changes)?;
        // A set that is active already: the rollout brings rules and policies alone.
        match !plan.changes.is_empty() && *bindings == self.active().bindings.revisions() {
            true => self.check_governance_alone(&plan.changes),
            false => self.check_activation(bindings),
        }
    }

    fn check_advanced(&self, id: u64, to: Step, sites: &[Name]) -> Result<(), CatalogError> {
        let rollout = self.find_forward(id)?;
        if rollout.is_paused {
            return conflict(format!("rollout {id} is paused; resume or promote it"));
        }
        match rollout.next() {
            Some(next) if next.step == to && next.sites == sites => Ok(()),
            Some(next) => conflict(format!(
                "the step after {} is {} with its sites; no step is skipped",
                rollout.step(),
                next.step
            )),
            None => conflict(format!("rollout {id} has no step after {}; it is complete", rollout.step())),
        }
    }

    fn check_finished(&self, id: u64, outcome: Outcome) -> Result<(), CatalogError> {
        let rollout = self.find_running(id)?;
        let is_due = match outcome {
            Outcome::Complete | Outcome::Unbalanced => {
                rollout.is_forward() && !rollout.is_paused && rollout.next().is_none()
            }
            Outcome::RolledBack => rollout.abort.is_some(),
        };
        match is_due {
            true => Ok(()),
            false => conflict(format!("rollout {id} is under way ({}) and cannot end so", rollout.state())),
        }
    }

    fn find_running(&self, id: u64) -> Result<&Arc<Rollout>, CatalogError> {
        let running = self.rollout().filter(|rollout| rollout.id == id);
        running.ok_or_else(|| not_found("running rollout", id, "`myelin rollout history` lists them"))
    }

    fn find_forward(&self, id: u64) -> Result<&Arc<Rollout>, CatalogError> {
        let rollout = self.find_running(id)?;
        if rollout.is_forward() {
            return Ok(rollout);
        }
        conflict(format!("rollout {id} is rolling back already; wait until it has"))
    }

    pub(super) fn commit_rollout(&mut self, record: &Record) {
        match &record.op {
            Op::RolloutStarted { plan, bindings } => {
                let sites: Vec<Name> = self.fleet.sites().map(|site| site.name.clone()).collect();
                let is_staged = *bindings == self.staged.revisions();
                let candidate = if is_staged { self.staged.clone() } else { self.active().bindings.clone() };
                let plan = plan.as_ref().clone();
                let rollout = Rollout::start(record.rev, plan, candidate, &sites, &record.actor, record.at_unix_ms);
                self.rollouts.push_back(Arc::new(rollout));
                if self.rollouts.len() > ROLLOUTS_KEPT {
                    self.rollouts.pop_front();
                }
            }
            Op::RolloutAdvanced { sites, .. } => {
                let candidate = self.change_rollout(|rollout| {
                    rollout.advance(record.rev);
                    rollout.candidate.clone()
                });
                let generation = Arc::new(self.generation_of(record, candidate));
                self.sites.extend(sites.iter().map(|site| (site.clone(), generation.clone())));
            }
            Op::RolloutPaused { .. } => self.change_rollout(|rollout| rollout.is_paused = true),
            Op::RolloutResumed { .. } => self.change_rollout(|rollout| rollout.resume(record.rev)),
            Op::RolloutPromoted { .. } => self.change_rollout(|rollout| rollout.promote(record.rev)),
            Op::RolloutAborted { cause, reason, .. } => {
                let reached: Vec<Name> = self.change_rollout(|rollout| {
                    rollout.roll_back(*cause, reason, record.rev);
                    rollout.reached().cloned().collect()
                });
                let old = self.active();
                let generation = Arc::new(Generation::of(record, old.source, old.bindings.clone()));
                if !reached.is_empty()
                    && let Some(old) = self.history.back_mut()
                {
                    let at_sites = &mut Arc::make_mut(old).at_sites;
                    if at_sites.len() == SITE_NUMBERS_KEPT {
                        at_sites.remove(0);
                    }
                    at_sites.push(record.rev);
                }
                self.sites.extend(reached.into_iter().map(|site| (site, generation.clone())));
            }
            Op::RolloutFinished { outcome, reason, .. } => self.finish_rollout(record, *outcome, reason),
            _ => {}
        }
    }

    /// The new set becomes that of the whole mesh, under a number of its own for routers outside the sites of the
    /// rollout; or what was staged for the rollout is staged no longer, as after any rollback.
    fn finish_rollout(&mut self, record: &Record, outcome: Outcome, reason: &str) {
        let (candidate, at_sites, changes) = self.change_rollout(|rollout| {
            let made = (rollout.candidate.clone(), rollout.activations(), rollout.plan.changes.clone());
            rollout.finish(outcome, reason, record.rev);
            made
        });
        match outcome {
            Outcome::Complete | Outcome::Unbalanced => {
                self.govern(changes);
                let generation = self.generation_of(record, candidate);
                self.activate(Generation { at_sites, ..generation });
            }
            Outcome::RolledBack => {
                let old = self.active().bindings.clone();
                self.unstage(&candidate, &old);
            }
        }
    }

    /// The generation of a candidate; with the set that is active it is no step that a rollback goes back by.
    fn generation_of(&self, record: &Record, candidate: BindingSet) -> Generation {
        let active = self.active();
        let source = if candidate == active.bindings { active.source } else { record.rev };
        Generation::of(record, source, candidate)
    }

    fn change_rollout<T>(&mut self, change: impl FnOnce(&mut Rollout) -> T) -> T {
        let rollout = self.rollouts.back_mut().expect("checked before: a rollout is under way");
        change(Arc::make_mut(rollout))
    }

    /// Whether every site has the active set of the whole mesh; under numbers of their own, perhaps.
    pub fn is_uniform(&self) -> bool {
        self.sites.values().all(|site| Plan::between(&site.bindings, &self.active().bindings).is_empty())
    }
}

/// What somebody writes for people, on one line.
pub(super) fn check_text(field: &'static str, text: &str) -> Result<(), CatalogError> {
    if text.len() > REASON_LEN_MAX_BYTES || text.chars().any(char::is_control) {
        let why = format!("it has at most {REASON_LEN_MAX_BYTES} bytes and no control characters; shorten it");
        return Err(CatalogError::InvalidRecord { field, why });
    }
    Ok(())
}
