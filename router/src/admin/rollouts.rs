//! `/v1/rollouts`: what is staged becomes active, or an earlier generation does again.

use super::Context;
use super::access::Caller;
use super::fleet::{MeshRollout, find, newest};
use super::intake::OptionalJson;
use super::problem::Problem;
use super::proposals::{Proposal, propose};
use super::types::{GenerationInfo, RollbackRequest, Rollout, RolloutList, RolloutRequest};
use crate::world::{Actor, Change, ROLLOUTS_REMEMBERED, RolloutReport, WorldError};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use myelin_catalog::{Approval, Intent};
use serde::Serialize;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use utoipa::ToSchema;

/// Bytes of a note.
const NOTE_BYTES_MAX: usize = 1_024;

/// Why rollouts were made, by generation: for as many as are remembered.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<VecDeque<(u64, String)>>);

impl Notes {
    fn keep(&self, generation: u64, note: Option<String>) {
        let Some(note) = note else { return };
        // A poisoned lock still guards whole values.
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() == ROLLOUTS_REMEMBERED {
            notes.pop_front();
        }
        notes.push_back((generation, note));
    }

    fn find(&self, generation: u64) -> Option<String> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().find(|(number, _)| *number == generation).map(|(_, note)| note.clone())
    }
}

/// The rollouts since the router's start, and the generations that a rollback can return to.
#[utoipa::path(get, path = "/v1/rollouts", tag = "rollouts", responses(
    (status = 200, body = RolloutList),
))]
pub(super) async fn list(State(context): State<Arc<Context>>) -> Json<RolloutList> {
    let view = context.state.world.view();
    let known = view.rollouts.iter();
    let rollouts = known.map(|report| Rollout::new(report, context.notes.find(report.generation))).collect();
    let generations =
        view.catalog.history().filter(|generation| view.catalog.can_return_to(generation)).map(|generation| {
            GenerationInfo {
                generation: generation.number,
                at_sites: generation.at_sites.clone(),
                source: generation.source,
                at_unix_ms: generation.at_unix_ms,
                actor: generation.actor.clone(),
                bindings: generation.bindings.len(),
            }
        });
    let active_generation = view.generation;
    let proposals = Proposal::list(&view);
    Json(RolloutList {
        proposals,
        rollouts,
        active_generation,
        mesh: newest(&view),
        generations: generations.collect(),
    })
}

/// Make the staged set active. Every filter is prepared on every worker of every site before any worker swaps; answers
/// when all run the new generation. With a plan, over the sites step by step: answers once that has begun. With changes,
/// rules and policies come with it, site by site; they need the role that may change them at once, too.
#[utoipa::path(post, path = "/v1/rollouts", tag = "rollouts",
    request_body(content = Option<RolloutRequest>),
    responses(
        (status = 200, body = Rollout),
        (status = 202, body = Begun, description = "A rollout over the sites has begun; or, with `[admin] two_person`, it waits for somebody else to approve it"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "The changes are for another role"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The changes name something that is not there"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A filter cannot be prepared; nothing has changed"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn start(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    OptionalJson(request): OptionalJson<RolloutRequest>,
) -> Result<Response, Problem> {
    check_note("note", request.note.as_deref())?;
    request.changes.check(&caller, &context.state.shared.rules.load())?;
    let RolloutRequest { note, plan, changes, only_changes } = request;
    let plan = if changes.is_empty() { plan } else { Some(plan.unwrap_or_default()) };
    let mut changes = changes.read();
    context.state.world.settle_all(&mut changes).await?;
    let bindings = context.state.world.view().catalog.staged().revisions();
    let intent = match plan.map(|plan| plan.read(changes).map(Box::new)).transpose()? {
        Some(plan) if only_changes => Intent::Govern { plan },
        None if only_changes => {
            let detail = "`only_changes` leaves the filters out, and there are no `changes`; give some";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-body", detail));
        }
        Some(plan) => Intent::Start { bindings, plan },
        None => Intent::Activate { bindings },
    };
    if context.two_person {
        let proposal = propose(&context, intent, note, &caller).await?;
        return Ok((StatusCode::ACCEPTED, Json(Begun::Proposed(proposal))).into_response());
    }
    begin(&context, intent, note, caller.actor).await
}

/// What has begun, or waits to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Begun {
    /// A rollout over the sites.
    Rollout(MeshRollout),
    /// Somebody else has to approve it.
    Proposed(Proposal),
}

/// Begins it. The set is whatever is staged.
async fn begin(
    context: &Arc<Context>,
    intent: Intent,
    note: Option<String>,
    actor: Actor,
) -> Result<Response, Problem> {
    let world = context.state.world.clone();
    if let Intent::Activate { .. } = intent {
        let change = async move { world.rollout(actor).await };
        return Ok(finish(context.clone(), note, change).await?.into_response());
    }
    let id = world.change(Change::begin(intent), None, actor).await?;
    has_begun(context, id, note)
}

/// Begins what `actor` approves, if it still waits.
pub(super) async fn approved(context: &Arc<Context>, approval: &Approval, actor: Actor) -> Result<Response, Problem> {
    let (world, id) = (context.state.world.clone(), approval.id);
    let note = Some(approval.note.clone()).filter(|note| !note.is_empty());
    if let Intent::Activate { .. } = approval.intent {
        let change = async move { world.finished(world.approve(id, actor).await?).await };
        return Ok(finish(context.clone(), note, change).await?.into_response());
    }
    let rev = world.approve(id, actor).await?;
    let rollout = if let Intent::Promote { id, .. } = approval.intent { id } else { rev };
    has_begun(context, rollout, note)
}

fn has_begun(context: &Context, id: u64, note: Option<String>) -> Result<Response, Problem> {
    context.notes.keep(id, note);
    let rollout = find(&context.state.world.view(), id)?;
    Ok((StatusCode::ACCEPTED, Json(Begun::Rollout(MeshRollout::new(&rollout)))).into_response())
}

/// Make an earlier generation's set active again.
#[utoipa::path(post, path = "/v1/rollouts/rollback", tag = "rollouts",
    request_body(content = Option<RollbackRequest>),
    responses(
        (status = 200, body = Rollout),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such generation"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A filter cannot be prepared; nothing has changed"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn roll_back(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    OptionalJson(request): OptionalJson<RollbackRequest>,
) -> Result<Json<Rollout>, Problem> {
    let world = context.state.world.clone();
    finish(context, request.note, async move { world.rollback(request.to, actor).await }).await
}

/// Whether a text for the history is one that every record takes: whether it is kept in one or not, the same is refused.
pub(super) fn check_note(field: &str, note: Option<&str>) -> Result<(), Problem> {
    let note = note.unwrap_or_default();
    let why = match note.len() > NOTE_BYTES_MAX {
        true => format!("has more than {NOTE_BYTES_MAX} bytes, which is the most; shorten it"),
        false if note.chars().any(char::is_control) => "is more than a line, or holds a control character".to_owned(),
        false => return Ok(()),
    };
    Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-body", format!("`{field}` {why}")))
}

/// Waits for the change on a task of its own, so that its note is kept even when the client has gone.
async fn finish(
    context: Arc<Context>,
    note: Option<String>,
    change: impl Future<Output = Result<Arc<RolloutReport>, WorldError>> + Send + 'static,
) -> Result<Json<Rollout>, Problem> {
    check_note("note", note.as_deref())?;
    let task = tokio::spawn(async move {
        let report = change.await?;
        context.notes.keep(report.generation, note.clone());
        Ok::<_, WorldError>(Rollout::new(&report, note))
    });
    let done = task.await.map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("the rollout broke off: {error}"))
    })?;
    Ok(Json(done?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_found_and_bounded() {
        let notes = Notes::default();
        (0..200).for_each(|generation| notes.keep(generation, Some(generation.to_string())));
        notes.keep(200, None);
        assert_eq!(notes.find(199).as_deref(), Some("199"));
        assert_eq!((notes.find(0), notes.find(200)), (None, None));
    }

    #[test]
    fn a_note_is_one_line_and_is_called_by_its_name() {
        assert!(check_note("note", None).is_ok() && check_note("note", Some("why: ü")).is_ok());
        for bad in ["a\nb", "a\u{1b}b", &"x".repeat(NOTE_BYTES_MAX + 1)] {
            let refused = check_note("reason", Some(bad)).expect_err("it is refused");
            assert!(refused.status() == StatusCode::BAD_REQUEST && refused.code() == "invalid-body");
        }
    }
}
