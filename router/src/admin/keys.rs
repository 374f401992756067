//! `/v1/mesh/keys`: the keys that sign the catalog.

use super::Context;
use super::fleet::record;
use super::intake::{NamePath, RevisionTag};
use super::problem::Problem;
use crate::world::Actor;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use myelin_catalog::Op;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The keys that sign records of the catalog, or once did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyList {
    /// By name; a revoked one stays, and its name is never used again.
    keys: Vec<KeyInfo>,
}

/// A key.
#[derive(Debug, Serialize, ToSchema)]
struct KeyInfo {
    /// What it is called in the records that it signs.
    name: String,
    /// The key: Ed25519, hexadecimal.
    public_key: String,
    /// Whose it is.
    note: String,
    /// Whether the signed part of the log begins with it.
    is_root: bool,
    /// The revision since which it may sign.
    revision: u64,
    /// The revision since which it may not any more; none while it may.
    revoked_revision: Option<u64>,
}

/// The keys that sign the catalog, revoked ones too.
#[utoipa::path(get, path = "/v1/mesh/keys", tag = "mesh", responses(
    (status = 200, body = KeyList),
))]
pub(super) async fn list(State(context): State<Arc<Context>>) -> Json<KeyList> {
    let view = context.state.world.view();
    let root = view.catalog.keys().root();
    let keys = view.catalog.keys().iter().map(|(name, key)| KeyInfo {
        name: name.to_string(),
        public_key: key.public_key.to_string(),
        note: key.note.clone(),
        is_root: root == Some(key.public_key),
        revision: key.rev,
        revoked_revision: key.revoked_rev,
    });
    Json(KeyList { keys: keys.collect() })
}

/// Revoke a key for good: every router refuses what it signs from the next record on. What it has signed stays valid. To
/// be asked of a router that signs with another key.
#[utoipa::path(delete, path = "/v1/mesh/keys/{name}", tag = "mesh",
    params(("name" = String, Path, description = "The key's name")),
    responses(
        (status = 204, description = "It signs nothing any more"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No key of that name is trusted"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is the only one, or the one of the router that was asked"),
    ))]
pub(super) async fn revoke(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    NamePath(key_id): NamePath,
) -> Result<(StatusCode, RevisionTag), Problem> {
    record(&context, actor, Op::KeyRevoked { key_id }).await
}
