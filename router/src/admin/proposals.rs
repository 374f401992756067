//! The rule of two: with `[admin] two_person` a rollout is proposed by one and begun by another.
//!
//! A proposal waits in the catalog, an hour at most, so that any router can be asked for it and none forgets it. It names what
//! is to become active by a digest; whoever stages something else meanwhile makes it void. Going back needs nobody's leave:
//! `abort`, `pause` and `rollback` stay with one.

use super::Context;
use super::problem::Problem;
use super::rollouts::begin;
use crate::world::{Actor, Change, View, unix_ms};
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use myelin_catalog::limits::ACTOR_LEN_MAX_BYTES;
use myelin_catalog::{Approval, Digest, Intent, Op};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// What somebody wants to make active, and somebody else has to approve.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Proposal {
    /// Its number, at every router: `POST /v1/rollouts/{id}/approve`.
    pub(super) proposal: u64,
    /// Who wants it.
    by: String,
    /// What: `rollout`, or `promote` of the rollout `rollout`.
    wants: &'static str,
    /// The rollout whose next step is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<u64>,
    /// The digest of the staged set and of the plan. With another set there is nothing to approve any more.
    #[schema(value_type = String)]
    digest: Digest,
    /// Why it is wanted.
    note: Option<String>,
    /// How long it waits still, in seconds.
    expires_in_s: u64,
}

impl Proposal {
    fn new(approval: &Approval, now_unix_ms: u64) -> Self {
        let (wants, rollout) = match approval.intent {
            Intent::Activate { .. } | Intent::Start { .. } | Intent::Govern { .. } => ("rollout", None),
            Intent::Promote { id, .. } => ("promote", Some(id)),
        };
        Self {
            proposal: approval.id,
            by: approval.by.clone(),
            wants,
            rollout,
            digest: approval.digest,
            note: Some(approval.note.clone()).filter(|note| !note.is_empty()),
            expires_in_s: approval.waits_ms(now_unix_ms) / 1_000,
        }
    }

    /// Those that can be approved, oldest first.
    pub(super) fn list(view: &View) -> Vec<Self> {
        let now = unix_ms();
        let waiting = view.catalog.approvals(now).filter(|approval| view.catalog.is_as_asked(&approval.intent));
        waiting.map(|approval| Self::new(approval, now)).collect()
    }
}

/// Lets `intent` wait for somebody other than `by`.
///
/// # Errors
/// When it could not begin, or too many wait already.
pub(super) async fn propose(
    context: &Context,
    intent: Intent,
    note: Option<String>,
    by: Actor,
) -> Result<Proposal, Problem> {
    let op = Op::ApprovalRequested { intent, note: note.unwrap_or_default() };
    let id = context.state.world.change(Change::Record(Box::new(op)), None, by).await?;
    let view = context.state.world.view();
    Ok(Proposal::new(find(&view, id)?, unix_ms()))
}

fn find(view: &View, id: u64) -> Result<&Arc<Approval>, Problem> {
    view.catalog.approval(id, unix_ms()).ok_or_else(|| {
        Problem::not_found(format!(
            "no proposal {id} waits; `myelin rollout history` shows those that do, for an hour each"
        ))
    })
}

/// The proposal that `actor` may approve.
fn approvable(view: &View, id: u64, actor: &Actor) -> Result<Arc<Approval>, Problem> {
    let approval = find(view, id)?;
    if *approval.by == **actor {
        let detail = format!("{actor} has proposed {id}; somebody else with the role releaser has to approve it");
        return Err(Problem::new(StatusCode::FORBIDDEN, "two-person", detail));
    }
    if !view.catalog.is_as_asked(&approval.intent) {
        let detail = match approval.intent {
            Intent::Promote { id: rollout, .. } => {
                format!("rollout {rollout} is not where it was when {id} was proposed; propose it again")
            }
            _ => format!("what is staged is not what proposal {id} was about; propose it again"),
        };
        return Err(Problem::new(StatusCode::CONFLICT, "proposal-stale", detail));
    }
    Ok(approval.clone())
}

/// Both names, for the catalog's history; cut where a record would not take them.
fn both(by: &str, approved_by: &str) -> Actor {
    const BETWEEN: &str = ", approved by ";
    let each = (ACTOR_LEN_MAX_BYTES - BETWEEN.len()) / 2;
    let cut = |name: &str| name[..name.floor_char_boundary(each)].to_owned();
    format!("{}{BETWEEN}{}", cut(by), cut(approved_by)).into()
}

/// Approve what somebody else has proposed (`[admin] two_person`), at any router: it begins at once. Only with what was staged
/// then.
#[utoipa::path(post, path = "/v1/rollouts/{id}/approve", tag = "rollouts",
    params(("id" = u64, Path, description = "The proposal's number")),
    responses(
        (status = 200, body = super::types::Rollout),
        (status = 202, body = super::fleet::MeshRollout, description = "A rollout over the sites has begun"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "It is one's own"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Something else is staged now"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A filter cannot be prepared; nothing has changed"),
    ))]
pub(super) async fn approve(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<u64>,
) -> Result<Response, Problem> {
    let view = context.state.world.view();
    let approval = approvable(&view, id, &actor)?;
    // What was compared just now is what is made active, or nothing is.
    let revision = view.catalog.head().rev;
    let note = Some(approval.note.clone()).filter(|note| !note.is_empty());
    begin(&context, approval.intent.clone(), note, Some(revision), both(&approval.by, &actor)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_both_names() {
        assert_eq!(&*both("ann", "bob"), "ann, approved by bob");
        let long = format!("spiffe://example.org/jwt/corp/{}", "ü".repeat(200));
        assert!(both(&long, &long).len() <= ACTOR_LEN_MAX_BYTES);
    }
}
