//! `/v1/traces`: what became of sampled events.

use super::Context;
use super::intake::InPath;
use super::problem::Problem;
use crate::world::Trace;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

/// Whose records are asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TraceQuery {
    mesh: bool,
}

/// What became of the sampled events of a trace: each hop with its verdicts, each copy with the time that it waited. Only
/// events whose W3C `traceparent` says `sampled` are recorded, as many as the bounds of a router allow.
#[utoipa::path(get, path = "/v1/traces/{trace_id}", tag = "observation",
    params(
        ("trace_id" = String, Path, description = "The trace: 32 hexadecimal digits"),
        ("mesh" = Option<bool>, Query, description = "Ask all routers of the mesh, and not only this one"),
    ),
    responses(
        (status = 200, body = Trace),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The query or the trace's number is none"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Nothing of it is recorded"),
    ))]
pub(super) async fn trace(
    State(context): State<Arc<Context>>,
    InPath(trace_id): InPath<String>,
    query: Result<Query<TraceQuery>, QueryRejection>,
) -> Result<Json<Trace>, Problem> {
    let Query(TraceQuery { mesh }) = query.map_err(|rejection| {
        let detail = format!("{}; the query may have mesh=true", rejection.body_text());
        Problem::new(StatusCode::BAD_REQUEST, "invalid-query", detail)
    })?;
    Ok(Json(context.state.world.trace(&trace_id, mesh).await?))
}
