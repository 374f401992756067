//! What one person has asked for and another one approves: found and decided where the change is, so that nothing that is
//! written meanwhile counts but what it is about.

use super::keeper::Keeper;
use super::{Actor, Blame, Change, View, World, WorldError, at_once, unix_ms};
use myelin_catalog::limits::ACTOR_LEN_MAX_BYTES;
use myelin_catalog::{Approval, Catalog, Intent, Op};
use std::sync::Arc;

/// How often an approval is decided anew because the log has moved on.
const ATTEMPTS: u32 = 5;

impl Change {
    /// The change that begins what somebody wants.
    pub fn begin(intent: Intent) -> Self {
        match intent {
            Intent::Activate { .. } => Self::Activate { plan: at_once() },
            Intent::Start { plan, .. } => Self::Start { plan },
            Intent::Govern { plan } => Self::Govern { plan },
            Intent::Promote { id, .. } => Self::Record(Box::new(Op::RolloutPromoted { id })),
        }
    }
}

impl View {
    /// What waits for somebody else under that number.
    ///
    /// # Errors
    /// `proposal-stale` where another change has made it void; `not-found`.
    pub fn proposal(&self, id: u64) -> Result<&Arc<Approval>, WorldError> {
        find(&self.catalog, id)
    }
}

fn find(catalog: &Catalog, id: u64) -> Result<&Arc<Approval>, WorldError> {
    if catalog.is_stale_approval(id) {
        let message = format!(
            "what proposal {id} was about has changed meanwhile: the staged set, a rule or policy, or the step of the rollout; \
             propose it again"
        );
        return Err(WorldError::new(Blame::Conflict, "proposal-stale", message));
    }
    catalog.approval(id, unix_ms()).ok_or_else(|| {
        let message = format!(
            "no proposal {id} waits, or it has begun; `myelin rollout history` shows those that do, for an hour each"
        );
        WorldError::new(Blame::NotFound, "not-found", message)
    })
}

impl World {
    /// What waits for somebody else under that number, with all that is written by now.
    ///
    /// # Errors
    /// As of [`View::proposal`]; and when the log is not reached.
    pub async fn proposal(&self, id: u64) -> Result<Arc<Approval>, WorldError> {
        self.catch_up().await?;
        self.view().proposal(id).cloned()
    }

    /// Begins what waits under that number, if it still does, and somebody other than `actor` has asked for it. Returns the
    /// revision of its record.
    ///
    /// # Errors
    /// The same; `two-person`; and why it cannot begin.
    pub async fn approve(&self, id: u64, actor: Actor) -> Result<u64, WorldError> {
        for _ in 1..ATTEMPTS {
            let before = self.view().catalog.head().rev;
            let done = self.change(Change::Approve { id }, None, actor.clone()).await;
            // At the writer another record was first: what that changed is looked at anew.
            match done {
                Err(error) if error.code == "conflict" => {
                    self.catch_up().await?;
                    if self.view().catalog.head().rev == before {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
        self.change(Change::Approve { id }, None, actor).await
    }
}

impl Keeper {
    /// The change that `actor` approves, and the names of both for its record.
    ///
    /// # Errors
    /// `not-found`, `proposal-stale`, `two-person`.
    pub(super) fn approved(&self, id: u64, actor: &Actor) -> Result<(Change, Actor), WorldError> {
        let approval = find(self.catalog(), id)?;
        if *approval.by == **actor {
            let message = format!("{actor} has proposed {id}; somebody else with the role releaser has to approve it");
            return Err(WorldError::new(Blame::Request, "two-person", message));
        }
        Ok((Change::begin(approval.intent.clone()), both(&approval.by, actor)))
    }
}

/// What stands between the names of those who have asked for something and approved it.
const BETWEEN: &str = ", approved by ";
/// How names of persons begin: with a certificate, or a token of their own.
const PERSON: &str = "spiffe://";

/// Both names, for the catalog's history; cut where a record would not take them.
fn both(by: &str, approved_by: &str) -> Actor {
    format!("{}{BETWEEN}{}", cut(by), cut(approved_by)).into()
}

fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary((ACTOR_LEN_MAX_BYTES - BETWEEN.len()) / 2)]
}

/// Whether a record in the name of `actor` begins what `by` has asked for, approved by another person.
pub(super) fn is_of_two(by: &str, actor: &str) -> bool {
    let approved_by = actor.strip_prefix(cut(by)).and_then(|rest| rest.strip_prefix(BETWEEN));
    let is_other = |other: &str| other.starts_with(PERSON) && other != cut(by);
    by.starts_with(PERSON) && approved_by.is_some_and(is_other)
}

/// Who has asked for what began in the name of `actor`, which may be that of two.
pub(super) fn asked_by(actor: &str) -> &str {
    actor.split_once(BETWEEN).map_or(actor, |(by, _)| by)
}

/// The record that begins what somebody wants, as the log is now.
pub(super) fn at_begin(catalog: &Catalog, intent: &Intent) -> Op {
    match intent {
        Intent::Activate { .. } if catalog.fleet().sites().len() == 0 => catalog.activation(),
        Intent::Activate { .. } => catalog.rollout_start(at_once()),
        Intent::Start { plan, .. } => catalog.rollout_start(plan.as_ref().clone()),
        Intent::Govern { plan } => catalog.governance_start(plan.as_ref().clone()),
        Intent::Promote { id, .. } => Op::RolloutPromoted { id: *id },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_both_names() {
        assert_eq!(&*both("ann", "bob"), "ann, approved by bob");
        assert_eq!((asked_by(&both("ann", "bob")), asked_by("ann")), ("ann", "ann"));
        let long = format!("spiffe://example.org/jwt/corp/{}", "ü".repeat(200));
        assert!(both(&long, &long).len() <= ACTOR_LEN_MAX_BYTES);
    }
}
