//! `/livez` and `/readyz`: for whoever restarts routers, and for whoever sends clients to them.

use super::Context;
use super::problem::Problem;
use super::types::Health;
use crate::shared::Phase;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long the workers may take to answer before they count as stuck: far longer than a batch under overload.
const WORKERS_TIME: Duration = Duration::from_secs(5);

/// Whether every worker's event loop turns: each is asked and answers between two batches.
#[utoipa::path(get, path = "/livez", tag = "health", responses(
    (status = 200, body = Health),
    (status = 503, body = Problem, content_type = "application/problem+json", description = "A worker is stuck: restart the router"),
))]
pub(super) async fn live(State(context): State<Arc<Context>>) -> Result<Json<Health>, Problem> {
    match timeout(WORKERS_TIME, (context.state.ledger)()).await {
        Ok(_) => Ok(Json(Health { status: "alive" })),
        Err(_) => {
            let detail =
                format!("a worker has not answered for {} seconds; restart the router", WORKERS_TIME.as_secs());
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "worker-stuck", detail))
        }
    }
}

/// Whether the router serves: its filters run on every worker, and it is not shutting down.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, body = Health),
    (status = 503, body = Problem, content_type = "application/problem+json", description = "Send clients elsewhere"),
))]
pub(super) async fn ready(State(context): State<Arc<Context>>) -> Result<Json<Health>, Problem> {
    let not_ready = |code, detail| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail));
    if *context.state.shared.phase.borrow() != Phase::Serving {
        return not_ready("draining", "the router is shutting down; send clients to another");
    }
    if !context.state.world.view().is_ready {
        return not_ready("not-ready", "not every worker runs the active generation yet; wait a moment");
    }
    Ok(Json(Health { status: "ready" }))
}
