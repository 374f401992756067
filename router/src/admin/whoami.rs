//! `/v1/whoami`: as whom the router knows whoever asks.

use super::Context;
use super::access::{self, Caller};
use super::rights;
use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// As whom the router knows whoever asks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Whoami {
    /// The SPIFFE name; `token` for the bearer token of `[admin] token_file`, `local` for whoever is on this machine
    /// with `--dev`.
    identity: String,
    /// How that was shown: `certificate`, `jwt`, `token` or `local`.
    by: &'static str,
    /// The roles.
    roles: Vec<&'static str>,
    /// What these open, as `METHOD PATH`; to somebody of a tenant, as far as that may.
    may: Vec<String>,
    /// The tenant, where they are of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// Until when a JSON Web Token counts, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_unix_s: Option<u64>,
}

/// Who is asking: identity, how it was shown, roles, and what these open.
#[utoipa::path(get, path = "/v1/whoami", tag = "identity", responses((status = 200, body = Whoami)))]
pub(super) async fn whoami(State(context): State<Arc<Context>>, Extension(caller): Extension<Caller>) -> Json<Whoami> {
    let tenant = access::tenant_of(&context, &caller);
    Json(Whoami {
        may: rights::of(caller.roles, tenant.as_deref()),
        tenant: tenant.map(|tenant| tenant.to_string()),
        identity: caller.actor.to_string(),
        by: caller.by.name(),
        roles: caller.roles.names(),
        expires_unix_s: caller.by.expires_unix_s(),
    })
}
