//! `/v1/rollouts/{id}/shadow`: what a candidate would have said about live events.

use super::Context;
use super::fleet::find;
use super::intake::{InPath, Query};
use super::problem::Problem;
use crate::world::MeshShadow;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Of which routers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only those of this site.
    site: Option<String>,
}

/// What a rollout's candidate said about copies of live events, held against what the active set said: counts, and
/// samples without payloads, of every router. Kept at a router until its next shadow, or its restart.
#[utoipa::path(get, path = "/v1/rollouts/{id}/shadow", tag = "rollouts",
    params(("id" = u64, Path, description = "The rollout's number"), Wanted),
    responses(
        (status = 200, body = MeshShadow),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such rollout, or no router has a shadow of it"),
    ))]
pub(super) async fn shadow(
    State(context): State<Arc<Context>>,
    InPath(id): InPath<u64>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<MeshShadow>, Problem> {
    let world = &context.state.world;
    find(&world.view(), id)?;
    Ok(Json(world.shadow(id, wanted.site.as_deref()).await?))
}
