//! `/v1/trust`: whose signatures on modules count, and who decides about that.

use super::Context;
use super::intake::Json as Body;
use super::problem::Problem;
use crate::world::{Actor, Change};
use axum::extract::State;
use axum::{Extension, Json};
use myelin_catalog::{Catalog, MinisignKey, ModulePattern, Op, TrustChange};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Whom the mesh trusts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TrustView {
    /// What the next change follows.
    after: TrustHead,
    /// Who must agree to a change; none: whoever may use this API decides alone.
    roots: Option<RootsInfo>,
    /// The keys that may sign modules, and those that might once.
    keys: Vec<ModuleKeyInfo>,
}

/// A record of the catalog.
#[derive(Debug, Serialize, ToSchema)]
struct TrustHead {
    /// Its revision; 0 where trust was never changed.
    rev: u64,
    /// Its hash.
    hash: String,
}

/// Who must agree to a change.
#[derive(Debug, Serialize, ToSchema)]
struct RootsInfo {
    /// The keys.
    keys: Vec<KeyInfo>,
    /// How many of them must have signed.
    threshold: u8,
    /// The revision that set them.
    rev: u64,
}

/// A key.
#[derive(Debug, Serialize, ToSchema)]
struct KeyInfo {
    /// Its id, as minisign shows it.
    key_id: String,
    /// The key, as in the second line of its `.pub` file.
    public_key: String,
}

/// A key that may sign modules.
#[derive(Debug, Serialize, ToSchema)]
struct ModuleKeyInfo {
    #[serde(flatten)]
    key: KeyInfo,
    /// The modules that it may sign: names, or beginnings with `*`.
    modules: Vec<String>,
    /// Whose it is.
    note: String,
    /// The revision since which it is trusted.
    rev: u64,
    /// The revision that removed it.
    removed_rev: Option<u64>,
}

/// A change that was applied.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TrustChanged {
    /// The revision of its record.
    revision: u64,
}

/// Whose signatures on modules count, and who must agree to change that.
#[utoipa::path(get, path = "/v1/trust", tag = "trust", responses((status = 200, body = TrustView)))]
pub(super) async fn describe(State(context): State<Arc<Context>>) -> Json<TrustView> {
    Json(TrustView::of(&context.state.world.view().catalog))
}

/// Apply a change of trust, as `myelin trust change` makes it and `myelin trust sign` signs it: all of it or nothing. Once
/// there is a root set, it needs as many signatures by different root keys as that says.
#[utoipa::path(post, path = "/v1/trust/changes", tag = "trust",
    request_body(content = Object, description = "`after` {rev, hash}, `actions`, `signatures`"),
    responses(
        (status = 200, body = TrustChanged),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The change cannot be so"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It follows another change, or too few have signed it"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn change(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    Body(change): Body<TrustChange>,
) -> Result<Json<TrustChanged>, Problem> {
    let op = Op::TrustChanged { change: Box::new(change) };
    let revision = context.state.world.change(Change::Record(Box::new(op)), None, actor).await?;
    Ok(Json(TrustChanged { revision }))
}

impl TrustView {
    fn of(catalog: &Catalog) -> Self {
        let trust = catalog.trust();
        let (head, roots) = (trust.head(), trust.roots());
        let keys = trust.keys().map(|(_, key)| ModuleKeyInfo {
            key: KeyInfo::of(&key.public_key),
            modules: key.modules.iter().map(ModulePattern::to_string).collect(),
            note: key.note.clone(),
            rev: key.rev,
            removed_rev: key.removed_rev,
        });
        let roots = roots.map(|roots| RootsInfo {
            keys: roots.keys.iter().map(KeyInfo::of).collect(),
            threshold: roots.threshold,
            rev: roots.rev,
        });
        Self { after: TrustHead { rev: head.rev, hash: head.hash.to_string() }, roots, keys: keys.collect() }
    }
}

impl KeyInfo {
    fn of(key: &MinisignKey) -> Self {
        Self { key_id: key.id().to_string(), public_key: key.to_string() }
    }
}
