//! What waits for a second person.
//!
//! What waits can begin: whatever makes that untrue drops it, in every copy of the log. Only the hour is the asked router's to
//! judge, for the clocks of routers differ.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use super::Catalog;
use super::check::{conflict, not_found};
use super::rollouts::check_text;
use crate::approval::{Approval, Intent};
use crate::digest::Digest;
use crate::error::CatalogError;
use crate::governance::{GovernanceChange, Governed};
use crate::limits::{APPROVALS_KEPT, APPROVALS_MAX};
use crate::op::Op;
use crate::record::Record;
use crate::rollout::Outcome;

/// What waits, and what is known of what waited.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Approvals {
    /// Oldest first.
    waiting: Vec<Arc<Approval>>,
    /// The numbers of those that can begin no more, because of another change.
    stale: VecDeque<u64>,
    /// The time of the newest record.
    newest_unix_ms: u64,
    /// The latest time of all records: one of them may be of a clock that was ahead.
    latest_unix_ms: u64,
}

impl Catalog {
    /// What waits for somebody else to approve it, oldest first. A clock that lags behind that of the newest record makes
    /// nothing wait longer.
    pub fn approvals(&self, now_unix_ms: u64) -> impl Iterator<Item = &Arc<Approval>> {
        let newest_unix_ms = self.approvals.newest_unix_ms;
        let waits = move |approval: &&Arc<Approval>| approval.waits_ms(now_unix_ms, newest_unix_ms) > 0;
        self.approvals.waiting.iter().filter(waits)
    }

    /// The approval that is waited for under that number.
    pub fn approval(&self, id: u64, now_unix_ms: u64) -> Option<&Arc<Approval>> {
        self.approvals(now_unix_ms).find(|approval| approval.id == id)
    }

    /// How long an approval is waited for still, in milliseconds.
    pub fn approval_waits_ms(&self, approval: &Approval, now_unix_ms: u64) -> u64 {
        approval.waits_ms(now_unix_ms, self.approvals.newest_unix_ms)
    }

    /// The approval of that number that can still begin, be its hour over or not.
    pub fn find_approval(&self, id: u64) -> Option<&Arc<Approval>> {
        self.approvals.waiting.iter().find(|approval| approval.id == id)
    }

    /// Whether another change has made that void which was asked for under this number, not long ago.
    pub fn is_stale_approval(&self, id: u64) -> bool {
        self.approvals.stale.contains(&id)
    }

    /// Whether that which shall begin is still what it was when it was asked for.
    pub(crate) fn is_as_asked(&self, intent: &Intent) -> bool {
        match intent {
            Intent::Activate { bindings } | Intent::Start { bindings, .. } => *bindings == self.staged.revisions(),
            // What else could undo it is told by the records, one by one.
            Intent::Govern { .. } => true,
            Intent::Promote { id, step } => self
                .rollout()
                .is_some_and(|rollout| rollout.id == *id && rollout.is_forward() && rollout.step() == *step),
        }
    }

    pub(super) fn check_approval(&self, intent: &Intent, note: &str, record: &Record) -> Result<(), CatalogError> {
        check_text("note", note)?;
        // By the latest clock of all: a log that was written before is not refused now.
        let at_unix_ms = record.at_unix_ms.max(self.approvals.latest_unix_ms);
        let is_other = |approval: &&Arc<Approval>| !approval.is_same(&record.actor, intent);
        let others = self.approvals.waiting.iter().filter(is_other);
        let waiting = others.filter(|approval| approval.waits_ms(at_unix_ms, at_unix_ms) > 0).count();
        if waiting >= APPROVALS_MAX {
            let mend = "have one approved, withdraw one, or wait until one is over";
            return Err(CatalogError::Full { what: "approvals that are waited for", max: APPROVALS_MAX as u64, mend });
        }
        match intent {
            Intent::Activate { bindings } => self.check_activation(bindings),
            Intent::Start { bindings, plan } => self.check_startable(bindings, plan),
            Intent::Govern { plan } => self.check_startable(&self.active().bindings.revisions(), plan),
            Intent::Promote { id, .. } => {
                self.check_rollout(&Op::RolloutPromoted { id: *id })?;
                match self.is_as_asked(intent) {
                    true => Ok(()),
                    false => {
                        conflict(format!("rollout {id} is at another step by now; look where it is, and ask again"))
                    }
                }
            }
        }
    }

    pub(super) fn check_withdrawal(&self, id: u64) -> Result<(), CatalogError> {
        match self.find_approval(id) {
            Some(_) => Ok(()),
            None => Err(not_found("proposal", id, "list those that wait with `myelin rollout history`")),
        }
    }

    /// Whoever asks again for the same asks once; its hour begins anew.
    pub(super) fn commit_approval(&mut self, record: &Record, intent: &Intent, note: &str) {
        let digest = self.digest_of(intent);
        let waiting = &mut self.approvals.waiting;
        waiting.retain(|approval| !approval.is_same(&record.actor, intent));
        // Those whose hour is over are not told by a clock that may be wrong, but by what came after them.
        if waiting.len() == APPROVALS_KEPT {
            waiting.remove(0);
        }
        waiting.push(Arc::new(Approval {
            id: record.rev,
            by: record.actor.clone(),
            at_unix_ms: record.at_unix_ms,
            intent: intent.clone(),
            note: note.to_owned(),
            digest,
        }));
    }

    /// Before a record is taken: lets go of what it begins, whoever approved it, of what it withdraws, and of what would
    /// undo it.
    pub(super) fn settle_approvals(&mut self, op: &Op) {
        self.approvals.waiting.retain(|approval| match op {
            Op::Activated { .. } | Op::RolledBack { .. } => approval.intent.bindings().is_none(),
            Op::RolloutStarted { .. } => matches!(approval.intent, Intent::Promote { .. }),
            Op::RolloutAdvanced { id, .. }
            | Op::RolloutPromoted { id }
            | Op::RolloutAborted { id, .. }
            | Op::RolloutFinished { id, .. } => !approval.intent.promotes(*id),
            Op::ApprovalWithdrawn { id } => approval.id != *id,
            _ => true,
        });
        let governed = self.rollout().cloned();
        let governed = governed.as_ref().map_or(&[][..], |rollout| &rollout.plan.changes);
        let is_undone = |changes: &[GovernanceChange]| {
            changes.iter().any(|change| governs(op, governed).any(|governed| governed == change.governed()))
        };
        self.approvals.drop_stale(|approval| !is_undone(approval.intent.changes()));
    }

    /// After a record is taken: lets go of what is no longer as it was asked for, and looks at the clock.
    pub(super) fn review_approvals(&mut self, record: &Record) {
        let mut approvals = std::mem::take(&mut self.approvals);
        approvals.drop_stale(|approval| self.is_as_asked(&approval.intent));
        approvals.newest_unix_ms = record.at_unix_ms;
        approvals.latest_unix_ms = approvals.latest_unix_ms.max(record.at_unix_ms);
        self.approvals = approvals;
    }

    /// Of the filters by their bytes, and of all that else is said.
    fn digest_of(&self, intent: &Intent) -> Digest {
        let mut text = serde_json::to_string(intent).unwrap_or_default();
        if intent.bindings().is_some() {
            for staged in self.staged.iter() {
                let _ = write!(text, "\n{} {}", staged.binding.name, staged.digest);
            }
        }
        Digest::of(text.as_bytes())
    }
}

impl Approvals {
    fn drop_stale(&mut self, is_kept: impl Fn(&Approval) -> bool) {
        let stale = &mut self.stale;
        self.waiting.retain(|approval| {
            let is_kept = is_kept(approval);
            if !is_kept {
                if stale.len() == APPROVALS_KEPT {
                    stale.pop_front();
                }
                stale.push_back(approval.id);
            }
            is_kept
        });
    }
}

/// The rules and policies that a record changes everywhere; `brought` are those of the rollout under way.
fn governs<'a>(op: &'a Op, brought: &'a [GovernanceChange]) -> impl Iterator<Item = Governed<'a>> {
    let at_once = match op {
        Op::TopicRuleSet { rule } => Some(Governed::TopicRule(&rule.name)),
        Op::TopicRuleRemoved { name } => Some(Governed::TopicRule(name)),
        Op::PolicySet { policy } => Some(Governed::Policy(&policy.name)),
        Op::PolicyRemoved { name } => Some(Governed::Policy(name)),
        _ => None,
    };
    let brought = match op {
        Op::RolloutFinished { outcome: Outcome::Complete | Outcome::Unbalanced, .. } => brought,
        _ => &[],
    };
    at_once.into_iter().chain(brought.iter().map(GovernanceChange::governed))
}
