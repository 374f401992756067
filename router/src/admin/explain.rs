//! `/v1/explain`: what would become of an event. Nothing is sent.

use super::Context;
use super::problem::Problem;
use crate::world::Explanation;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

/// Which event is meant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    topic: String,
    r#as: String,
    at: Option<String>,
}

/// What would become of an event: the bindings that judge it, who wants it and where, and the way there, router by
/// router, each by its own answer. Nothing is sent.
#[utoipa::path(get, path = "/v1/explain", tag = "observation",
    params(
        ("topic" = String, Query, description = "The event's topic"),
        ("as" = String, Query, description = "Who publishes it: an identity, such as spiffe://corp/service/web"),
        ("at" = Option<String>, Query, description = "The site, or SITE/ROUTER, where it is published; this router where none is given"),
    ),
    responses(
        (status = 200, body = Explanation),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The query, the topic or the identity is none"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such site or router"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Too many explanations are being worked out"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "That site gives no answer"),
    ))]
pub(super) async fn explain(
    State(context): State<Arc<Context>>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<Explanation>, Problem> {
    let Query(ExplainQuery { topic, r#as, at }) = query.map_err(|rejection| {
        let detail = format!("{}; the query has topic and as, and may have at", rejection.body_text());
        Problem::new(StatusCode::BAD_REQUEST, "invalid-query", detail)
    })?;
    Ok(Json(context.state.world.explain(&topic, &r#as, at.as_deref()).await?))
}
