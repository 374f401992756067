//! `/v1/captures`: events with what filters said about them, kept for a replay.

use super::Context;
use super::intake::Json as Body;
use super::problem::{Problem, shown};
use crate::capture::{Capture, CaptureError, CaptureInfo, CaptureSpec};
use crate::shared::unix_ns;
use crate::world::Actor;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The content type of a capture's file.
const CONTENT_TYPE_FILE: &str = "application/x-ndjson";

/// All captures.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CaptureList {
    /// In the order in which they began. None of them is there any more after a restart.
    captures: Vec<CaptureInfo>,
}

/// The capture in the path.
pub(super) struct CapturePath(u64);

impl<S: Send + Sync> FromRequestParts<S> for CapturePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let given = Path::<String>::from_request_parts(parts, state).await;
        let given = given.map(|Path(id)| id).unwrap_or_default();
        given.parse().map(Self).map_err(|_| none(&shown(&given)))
    }
}

impl CapturePath {
    fn find(&self, context: &Context) -> Result<Arc<Capture>, Problem> {
        context.state.shared.captures.find(self.0).ok_or_else(|| none(&self.0.to_string()))
    }
}

fn none(id: &str) -> Problem {
    Problem::not_found(format!(
        "there is no capture `{id}` at this router; GET /v1/captures shows those that there are, and a restart ends all"
    ))
}

impl From<CaptureError> for Problem {
    fn from(error: CaptureError) -> Self {
        let status = match error {
            CaptureError::Invalid(_) => StatusCode::BAD_REQUEST,
            CaptureError::TooMany => StatusCode::CONFLICT,
            CaptureError::NoRoom { .. } => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

/// The captures of this router.
#[utoipa::path(get, path = "/v1/captures", tag = "captures", responses(
    (status = 200, body = CaptureList),
))]
pub(super) async fn list(State(context): State<Arc<Context>>) -> Json<CaptureList> {
    let shared = &context.state.shared;
    Json(CaptureList { captures: shared.captures.list(shared.now_ms()) })
}

/// Begin a capture at this router. It ends by itself: at its bounds, after its time, or with the router.
#[utoipa::path(post, path = "/v1/captures", tag = "captures",
    request_body(content = CaptureSpec),
    responses(
        (status = 201, body = CaptureInfo),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The router keeps as many captures as it may"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The bytes for captures are spoken for"),
    ))]
pub(super) async fn start(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    Body(spec): Body<CaptureSpec>,
) -> Result<(StatusCode, Json<CaptureInfo>), Problem> {
    let shared = &context.state.shared;
    let now = (shared.now_ms(), unix_ns() / 1_000_000);
    let info = shared.captures.start(spec, (&shared.site, &shared.router), actor.to_string(), now)?;
    let redact = info.spec.redact.join(",");
    tracing::info!(capture = info.id, pattern = info.spec.pattern.as_str(), redact, %actor, "a capture begins");
    Ok((StatusCode::CREATED, Json(info)))
}

/// One capture.
#[utoipa::path(get, path = "/v1/captures/{id}", tag = "captures",
    params(("id" = u64, Path, description = "The capture's number")),
    responses(
        (status = 200, body = CaptureInfo),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn describe(
    State(context): State<Arc<Context>>,
    capture: CapturePath,
) -> Result<Json<CaptureInfo>, Problem> {
    Ok(Json(capture.find(&context)?.info(context.state.shared.now_ms())))
}

/// End a capture. It keeps what it has.
#[utoipa::path(post, path = "/v1/captures/{id}/stop", tag = "captures",
    params(("id" = u64, Path, description = "The capture's number")),
    responses(
        (status = 200, body = CaptureInfo),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn stop(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    CapturePath(id): CapturePath,
) -> Result<Json<CaptureInfo>, Problem> {
    let shared = &context.state.shared;
    let info = shared.captures.stop(id, shared.now_ms()).ok_or_else(|| none(&id.to_string()))?;
    tracing::info!(capture = id, state = info.state, events = info.events, %actor, "a capture is stopped");
    Ok(Json(info))
}

/// End a capture and forget what it has.
#[utoipa::path(delete, path = "/v1/captures/{id}", tag = "captures",
    params(("id" = u64, Path, description = "The capture's number")),
    responses(
        (status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn remove(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    CapturePath(id): CapturePath,
) -> Result<StatusCode, Problem> {
    if !context.state.shared.captures.remove(id) {
        return Err(none(&id.to_string()));
    }
    tracing::info!(capture = id, %actor, "a capture is removed");
    Ok(StatusCode::NO_CONTENT)
}

/// The file of a capture, as it stands now: one JSON value a line (docs/CAPTURE.md).
#[utoipa::path(get, path = "/v1/captures/{id}/file", tag = "captures",
    params(("id" = u64, Path, description = "The capture's number")),
    responses(
        (status = 200, description = "Head, bindings, batches, end", body = String, content_type = "application/x-ndjson"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn file(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    capture: CapturePath,
) -> Result<impl IntoResponse, Problem> {
    let file = capture.find(&context)?.file();
    tracing::info!(capture = capture.0, bytes = file.len(), %actor, "a capture is fetched");
    Ok(([(CONTENT_TYPE, CONTENT_TYPE_FILE)], file))
}
