//! Who lets a rollout go on: [`decide`] looks at the log and at what the routers report, and says which record comes
//! next, if any.
//!
//! Nothing is remembered between two calls but the log and the newest reports, so that any router that holds the lease
//! goes on where another stopped. All times are of the caller's monotonic clock, or are lengths that a router measured
//! with its own: no wall clock decides anything. A controller that takes over gives the present step its whole time
//! again.
//!
//! The rules, in the order in which they count:
//!
//! 1. *Bad news ends a rollout at once*, paused or not: a NACK, a router that retreated on its own, a module of the
//!    candidate in quarantine, a gate that a router exceeds.
//! 2. *A step is over* when each router that it concerns says so in a report that is fresh, and has been watched for as
//!    long as the plan says. A step that activates begins only when each router of its sites says that it is prepared.
//! 3. *A step that does not come to its end in time* ends the rollout: a router that nobody hears of holds up the
//!    others for one deadline, and no longer.
//! 4. *A rollout is complete when the ledger of the mesh balances* after its last step was over: no event was lost or
//!    doubled on the way from set to set. Where it does not within one more deadline, or a router is not heard of any
//!    more, the new set stays, which has passed everything else, and the rollout ends as unbalanced.
//! 5. *Rolling back needs nobody's leave*: it is over when every router of the sites concerned has the old set again, or
//!    at its deadline; who was away follows from the log.

use crate::catalog::Catalog;
use crate::fleet::Router;
use crate::limits::REASON_LEN_MAX_BYTES;
use crate::names::Name;
use crate::op::Op;
use crate::plan::Plan;
use crate::rollout::{Cause, Outcome, Rollout, RolloutPlan, Step};

#[cfg(test)]
mod model;
mod report;
#[cfg(test)]
mod tests;

pub use report::{LedgerReading, Metrics, OBSERVATION_FRESH_MS, Observations, Phase, Report, percent};

/// A router is silent that has told nothing for so long: one that runs does every second while a rollout is under way.
pub const SILENT_MS: u64 = 3_000;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// No rollout is under way.
    Nothing,
    /// Nothing now. Ask again when a report or a record comes, and then at the latest.
    Wait {
        /// When; `None` while it is paused.
        until_ms: Option<u64>,
    },
    /// All is done but one: read the ledger of the mesh, note it ([`Observations::note_ledger`]) and ask again.
    Reconcile {
        /// Then at the latest.
        until_ms: u64,
    },
    /// Append this change to the log that the decision was made from.
    Append(Op),
}

/// Why a step is not over.
enum Pending {
    /// A router has not done what the step wants.
    Router(String),
    /// It has not been watched for long enough; it will have been by then.
    Time { until_ms: u64 },
}

/// What the rollout that is under way needs next.
pub fn decide(catalog: &Catalog, seen: &Observations, now_ms: u64) -> Decision {
    let Some(rollout) = catalog.rollout() else { return Decision::Nothing };
    let view = View { catalog, rollout, seen, now_ms };
    if rollout.abort.is_some() {
        return view.roll_back();
    }
    if let Some((cause, reason)) = view.failure() {
        return view.abort(cause, &reason);
    }
    if rollout.is_paused {
        return Decision::Wait { until_ms: None };
    }
    view.forward()
}

struct View<'a> {
    catalog: &'a Catalog,
    rollout: &'a Rollout,
    seen: &'a Observations,
    now_ms: u64,
}

impl View<'_> {
    /// The next step where the present one is over and the next can begin.
    fn forward(&self) -> Decision {
        if self.rollout.is_held() {
            return self.held();
        }
        let pending = self.pending().or_else(|| {
            let next = self.rollout.next()?;
            self.routers(&next.sites).find_map(|router| self.unprepared(router))
        });
        let ledger = self.seen.ledger(self.rollout.step_rev);
        if self.rollout.next().is_none() && ledger.is_some() {
            return self.reconcile(pending, ledger);
        }
        let deadline_ms = self.deadline_ms();
        let (id, is_late) = (self.rollout.id, self.now_ms >= deadline_ms);
        match (pending, self.rollout.next()) {
            (None, Some(next)) => {
                Decision::Append(Op::RolloutAdvanced { id, to: next.step, sites: next.sites.clone() })
            }
            (None, None) => self.reconcile(None, None),
            (Some(Pending::Router(why)), _) if is_late => self.abort(Cause::Stalled, &why),
            (Some(Pending::Time { .. }), _) if is_late => {
                self.abort(Cause::Stalled, "a router of this step started anew again and again")
            }
            (Some(Pending::Router(_)), _) => Decision::Wait { until_ms: Some(deadline_ms) },
            (Some(Pending::Time { until_ms }), _) => {
                // Later than now, so that nobody asks in a circle while a report is under way.
                Decision::Wait { until_ms: Some(until_ms.clamp(self.now_ms + 1, deadline_ms)) }
            }
        }
    }

    /// A shadow that is held ends by a hand, by bad news, or with its time; a router that is away for a while holds
    /// nothing up, and is in it again when it is back.
    fn held(&self) -> Decision {
        let RolloutPlan { shadow_s, .. } = self.rollout.plan;
        let until_ms = self.step_begin_ms().saturating_add(u64::from(shadow_s) * 1_000);
        if self.now_ms < until_ms {
            return Decision::Wait { until_ms: Some(until_ms) };
        }
        let reason = format!("nobody promoted it within {shadow_s} s; what the shadow found out is kept");
        self.abort(Cause::ShadowOver, &reason)
    }

    /// The end of a rollout whose last step is over, or was when the ledger was read first: from there on it is not
    /// taken back because somebody is away.
    fn reconcile(&self, pending: Option<Pending>, ledger: Option<&LedgerReading>) -> Decision {
        let (id, is_over) = (self.rollout.id, pending.is_none());
        let wait_ms = u64::from(self.rollout.plan.deadline_s) * 1_000;
        let until_ms = ledger.map_or(self.now_ms, |ledger| ledger.since_ms).saturating_add(wait_ms);
        let is_fresh = |ledger: &&LedgerReading| self.is_fresh(ledger.seen_ms);
        let why = match (pending, ledger.filter(is_fresh).map(|ledger| &ledger.off)) {
            (None, Some(None)) => {
                let reason = "every site has the new set, and the ledger of the mesh balances".to_owned();
                return Decision::Append(Op::RolloutFinished { id, outcome: Outcome::Complete, reason });
            }
            (Some(Pending::Router(why)), _) => why,
            (Some(Pending::Time { .. }), _) => "a router started anew".to_owned(),
            (None, Some(Some(off))) => off.clone(),
            (None, None) => "it could not be read".to_owned(),
        };
        if self.now_ms >= until_ms {
            let reason =
                format!("every site has the new set, but the ledger of the mesh did not balance in time: {why}");
            return Decision::Append(Op::RolloutFinished { id, outcome: Outcome::Unbalanced, reason: cut(&reason) });
        }
        if is_over { Decision::Reconcile { until_ms } } else { Decision::Wait { until_ms: Some(until_ms) } }
    }

    /// The end of a rollback.
    fn roll_back(&self) -> Decision {
        let reached: Vec<Name> = self.rollout.reached().cloned().collect();
        let away: Vec<String> =
            self.routers(&reached).filter(|router| self.inactive(router).is_some()).map(title).collect();
        let deadline_ms = self.deadline_ms();
        if !away.is_empty() && self.now_ms < deadline_ms {
            return Decision::Wait { until_ms: Some(deadline_ms) };
        }
        let reason = match away.is_empty() {
            true => "every router has its old set again".to_owned(),
            false => format!("not heard of in time, and to follow from the log: {}", away.join(", ")),
        };
        let (id, outcome) = (self.rollout.id, Outcome::RolledBack);
        Decision::Append(Op::RolloutFinished { id, outcome, reason: cut(&reason) })
    }

    fn abort(&self, cause: Cause, reason: &str) -> Decision {
        Decision::Append(Op::RolloutAborted { id: self.rollout.id, cause, reason: cut(reason) })
    }

    /// Bad news, where there is any. It does not go stale: only a newer report of the same router takes it back.
    fn failure(&self) -> Option<(Cause, String)> {
        let difference = Plan::between(&self.catalog.active().bindings, &self.rollout.candidate);
        for staged in difference.built().filter_map(|name| self.rollout.candidate.find(name)) {
            let module = &staged.binding.module;
            if let Some(quarantine) = self.catalog.quarantine(module) {
                return Some((Cause::Quarantined, format!("module {module}: {}", quarantine.reason)));
            }
        }
        self.catalog.fleet().routers().find_map(|router| {
            let report = self.seen.report(router.number)?;
            let (cause, why) = self.bad_news(router, report)?;
            Some((cause, format!("{}: {why}", title(router))))
        })
    }

    fn bad_news(&self, router: &Router, report: &Report) -> Option<(Cause, String)> {
        let is_ours = report.rollout == self.rollout.id;
        let generation = self.catalog.active_for(&router.site).number;
        let is_reached = self.rollout.reached().any(|site| *site == router.site);
        let gates = &self.rollout.plan.gates;
        match &report.phase {
            Phase::Nack { code, reason } if is_ours => Some((Cause::Nack, format!("{code}: {reason}"))),
            Phase::Retreated { from, reason, .. } if is_reached && *from == generation => {
                Some((Cause::Retreated, reason.clone()))
            }
            Phase::Active { generation: runs, .. } if is_reached && *runs == generation => {
                report.metrics.exceeds(gates)
            }
            Phase::Shadowing { .. } if is_ours => report.metrics.exceeds(gates),
            _ => None,
        }
    }

    /// Why the present step is not over.
    fn pending(&self) -> Option<Pending> {
        let plan = &self.rollout.plan;
        match self.rollout.step() {
            Step::Staged | Step::Prepared => None,
            Step::Preparing => self.catalog.fleet().routers().find_map(|router| self.unprepared(router)),
            Step::Shadow => {
                let mut routers = self.catalog.fleet().routers();
                routers.find_map(|router| {
                    self.unwatched(router, plan.shadow_s, |phase| match phase {
                        Phase::Shadowing { for_ms } => Some(*for_ms),
                        _ => None,
                    })
                })
            }
            Step::Canary => self.inactive_so_far(),
            Step::Observe => {
                let reached: Vec<Name> = self.rollout.reached().cloned().collect();
                self.inactive_so_far().or_else(|| self.unobserved(&reached))
            }
            Step::Wave { .. } => self.inactive_so_far().or_else(|| self.unobserved(self.rollout.step_sites())),
        }
    }

    fn unprepared(&self, router: &Router) -> Option<Pending> {
        let report = self.fresh(router).filter(|report| report.rollout == self.rollout.id);
        let is_prepared = report.is_some_and(|report| report.phase.is_prepared());
        (!is_prepared).then(|| self.pending_router(router, "has not prepared the new set"))
    }

    /// A router of the sites reached so far that does not run what its site has.
    fn inactive_so_far(&self) -> Option<Pending> {
        let mut reached = self.rollout.reached();
        reached.find_map(|site| self.catalog.fleet().routers_of(site).find_map(|router| self.inactive(router)))
    }

    fn inactive(&self, router: &Router) -> Option<Pending> {
        let generation = self.catalog.active_for(&router.site).number;
        let runs = self.fresh(router).map(|report| &report.phase);
        let is_active = matches!(runs, Some(Phase::Active { generation: runs, .. }) if *runs == generation);
        (!is_active).then(|| self.pending_router(router, &format!("does not run generation {generation}")))
    }

    fn unobserved(&self, sites: &[Name]) -> Option<Pending> {
        let observe_s = self.rollout.plan.observe_s;
        self.routers(sites).find_map(|router| {
            self.unwatched(router, observe_s, |phase| match phase {
                Phase::Active { for_ms, .. } => Some(*for_ms),
                _ => None,
            })
        })
    }

    /// Whether a router has not been watched for long enough, or with too few events.
    fn unwatched(&self, router: &Router, watch_s: u32, for_ms: impl Fn(&Phase) -> Option<u64>) -> Option<Pending> {
        let report = self.fresh(router).filter(|report| report.rollout == self.rollout.id);
        let Some((report, watched_ms)) = report.and_then(|report| Some((report, for_ms(&report.phase)?))) else {
            return Some(self.pending_router(router, "does not watch the new set"));
        };
        if self.rollout.is_promoted {
            return None;
        }
        let RolloutPlan { events_min, deadline_s, .. } = self.rollout.plan;
        let watch_ms = u64::from(watch_s) * 1_000;
        // A quiet router is waited for, but not for ever; in shadow, one without events has nothing to compare.
        let quiet_ms = watch_ms.max(u64::from(deadline_s) * 1_000);
        let events = report.metrics.came();
        let has_nothing = events == 0 && self.rollout.step() == Step::Shadow;
        let is_quiet = events < events_min && !has_nothing && self.now_ms < self.deadline_ms();
        let wanted_ms = if is_quiet { quiet_ms } else { watch_ms };
        let left_ms = wanted_ms.saturating_sub(watched_ms);
        (left_ms > 0).then(|| Pending::Time { until_ms: report.seen_ms.saturating_add(left_ms) })
    }

    /// When the present step is given up.
    fn deadline_ms(&self) -> u64 {
        let RolloutPlan { shadow_s, observe_s, deadline_s, .. } = self.rollout.plan;
        let watch_s = match self.rollout.step() {
            _ if self.rollout.abort.is_some() => 0,
            Step::Shadow => shadow_s,
            step if step.is_observing() => observe_s,
            _ => 0,
        };
        self.step_begin_ms().saturating_add((u64::from(watch_s) + u64::from(deadline_s)) * 1_000)
    }

    fn step_begin_ms(&self) -> u64 {
        self.seen.step_seen_ms(self.rollout.step_rev).unwrap_or(self.now_ms)
    }

    fn routers<'a>(&'a self, sites: &'a [Name]) -> impl Iterator<Item = &'a Router> {
        sites.iter().flat_map(|site| self.catalog.fleet().routers_of(site))
    }

    /// The newest report of a router, unless it is too old to say that all is well.
    fn fresh(&self, router: &Router) -> Option<&Report> {
        let report = self.seen.report(router.number)?;
        self.is_fresh(report.seen_ms).then_some(report)
    }

    fn is_fresh(&self, seen_ms: u64) -> bool {
        self.now_ms.saturating_sub(seen_ms) <= OBSERVATION_FRESH_MS
    }

    fn pending_router(&self, router: &Router, why: &str) -> Pending {
        let (site, name) = (&router.site, &router.name);
        let mend = format!("see that it runs, or `myelin site rm {site}/{name}` where it is gone for good");
        let report = self.seen.report(router.number);
        let age_ms = report.map_or(0, |report| self.now_ms.saturating_sub(report.seen_ms));
        let heard = match report {
            None => format!("it was not heard of; {mend}"),
            // What it was before it fell silent is not what it is.
            Some(_) if age_ms >= SILENT_MS => format!("nothing was heard of it for {} s; {mend}", age_ms / 1_000),
            Some(report) if report.rollout != self.rollout.id => "it has told nothing of this rollout yet".to_owned(),
            Some(report) => format!("it is {}", report.phase.as_str()),
        };
        Pending::Router(format!("{} {why}; {heard}", title(router)))
    }
}

fn title(router: &Router) -> String {
    format!("router {}/{}", router.site, router.name)
}

/// A reason that fits into a record, whatever a router reported.
fn cut(reason: &str) -> String {
    let mut short = String::new();
    for shown in reason.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if short.len() + shown.len_utf8() > REASON_LEN_MAX_BYTES {
            break;
        }
        short.push(shown);
    }
    short
}
