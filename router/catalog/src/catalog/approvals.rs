//! What waits for a second person.

use std::fmt::Write as _;
use std::sync::Arc;

use super::Catalog;
use super::check::conflict;
use super::rollouts::check_reason;
use crate::approval::{Approval, Intent};
use crate::digest::Digest;
use crate::error::CatalogError;
use crate::limits::APPROVALS_MAX;
use crate::op::Op;
use crate::record::Record;

impl Catalog {
    /// What waits for somebody else to approve it, oldest first.
    pub fn approvals(&self, now_unix_ms: u64) -> impl Iterator<Item = &Arc<Approval>> {
        self.approvals.iter().filter(move |approval| approval.waits_ms(now_unix_ms) > 0)
    }

    /// The approval that is waited for under that number.
    pub fn approval(&self, id: u64, now_unix_ms: u64) -> Option<&Arc<Approval>> {
        self.approvals(now_unix_ms).find(|approval| approval.id == id)
    }

    /// Whether that which shall begin is still what it was when it was asked for.
    pub fn is_as_asked(&self, intent: &Intent) -> bool {
        match intent {
            Intent::Activate { bindings } | Intent::Start { bindings, .. } => *bindings == self.staged.revisions(),
            Intent::Govern { .. } => true,
            Intent::Promote { id, step } => self
                .rollout()
                .is_some_and(|rollout| rollout.id == *id && rollout.is_forward() && rollout.step() == *step),
        }
    }

    pub(super) fn check_approval(&self, intent: &Intent, note: &str, at_unix_ms: u64) -> Result<(), CatalogError> {
        check_reason(note)?;
        if self.approvals(at_unix_ms).count() >= APPROVALS_MAX {
            let mend = "have one approved, or wait until one is over";
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

    pub(super) fn commit_approval(&mut self, record: &Record, intent: &Intent, note: &str) {
        let (id, at_unix_ms) = (record.rev, record.at_unix_ms);
        self.approvals.retain(|approval| approval.waits_ms(at_unix_ms) > 0);
        self.approvals.push(Arc::new(Approval {
            id,
            by: record.actor.clone(),
            at_unix_ms,
            intent: intent.clone(),
            note: note.to_owned(),
            digest: self.digest_of(intent),
        }));
    }

    /// Lets go of what has begun, whoever approved it, and of what can begin no more.
    pub(super) fn settle_approvals(&mut self, op: &Op) {
        self.approvals.retain(|approval| match op {
            Op::Activated { .. } | Op::RolledBack { .. } => approval.intent.bindings().is_none(),
            Op::RolloutStarted { .. } => matches!(approval.intent, Intent::Promote { .. }),
            Op::RolloutAdvanced { id, .. }
            | Op::RolloutPromoted { id }
            | Op::RolloutAborted { id, .. }
            | Op::RolloutFinished { id, .. } => !approval.intent.promotes(*id),
            _ => true,
        });
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
