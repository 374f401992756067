//! `/v1/modules`: the code of filters.

use super::Context;
use super::access::Caller;
use super::bindings;
use super::intake::{ModulePath, Origin, RevisionTag, Signature, Wasm, revision_tag};
use super::logs::Wanted;
use super::problem::Problem;
use super::types::{LogList, ModuleDescription, ModuleList, ModuleState, ModuleSummary, QuarantineInfo, SignatureInfo};
use crate::world::{Actor, View, unix_ms};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use myelin_catalog::{BindingSet, Module, ModuleRef};
use serde::Deserialize;
use std::sync::Arc;

/// All modules.
#[utoipa::path(get, path = "/v1/modules", tag = "modules", responses(
    (status = 200, body = ModuleList),
))]
pub(super) async fn list(State(context): State<Arc<Context>>) -> Json<ModuleList> {
    let view = context.state.world.view();
    let modules = view.catalog.modules().map(|module| summary(&view, module)).collect();
    Json(ModuleList { modules, revision: view.catalog.head().rev })
}

/// Upload a version of a module.
///
/// The body is a Wasm component, as `myelin filter build` makes it. It is checked, compiled and tested on its own
/// sample events before it is kept. The same bytes again change nothing, or the signature alone; other bytes are a
/// conflict, because a version never changes.
#[utoipa::path(put, path = "/v1/modules/{name}/versions/{version}", tag = "modules",
    params(
        ("name" = String, Path, description = "Name of the module"),
        ("version" = String, Path, description = "Semantic version"),
        ("myelin-signature" = Option<String>, Header, description = "Its signature: a file of minisign's, in base64"),
        ("myelin-origin" = Option<String>, Header, description = "The artifact of an OCI registry that it comes from, by digest; kept in the audit log"),
    ),
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses(
        (status = 200, description = "The catalog has it already", body = ModuleSummary),
        (status = 201, description = "Kept", body = ModuleSummary),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The name or version is none"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The version has other bytes"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "The module is too large"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not application/wasm"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "The module is no filter, does not compile, or fails its test"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn upload(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    ModulePath(module): ModulePath,
    Signature(signature): Signature,
    _: Origin,
    Wasm { bytes, place }: Wasm,
) -> Result<(StatusCode, Json<ModuleSummary>), Problem> {
    if bytes.is_empty() {
        let detail = "the body is empty; send the bytes of a Wasm component";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "body-missing", detail));
    }
    let world = context.state.world.clone();
    let is_known = world.view().catalog.module(&module).is_some();
    // A task of its own: the bytes keep their place among all bodies until the writer is done with them, even when
    // the client has gone.
    let task = tokio::spawn(async move {
        let added = world.add_signed_module(module, bytes, signature, actor).await;
        drop(place);
        added
    });
    let module = task.await.map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("the upload broke off: {error}"))
    })??;
    let status = if is_known { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(summary(&context.state.world.view(), &module))))
}

/// Everything about a version of a module: its bindings, what its filters declared and what happened at them.
#[utoipa::path(get, path = "/v1/modules/{name}/versions/{version}", tag = "modules",
    params(("name" = String, Path), ("version" = String, Path)),
    responses(
        (status = 200, body = ModuleDescription),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn describe(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    ModulePath(path): ModulePath,
) -> Result<Json<ModuleDescription>, Problem> {
    let view = context.state.world.view();
    let module = find(&view, &path)?;
    let quarantine = view.catalog.quarantine(&path).map(|quarantine| QuarantineInfo {
        binding: quarantine.binding.to_string(),
        reason: quarantine.reason.clone(),
        at_unix_ms: quarantine.at_unix_ms,
    });
    let uses = bindings::all(&view).filter(|(staged, _)| staged.binding.module == path);
    Ok(Json(ModuleDescription {
        module: summary(&view, module),
        world: module.world.as_str(),
        imports: module.imports.clone(),
        capabilities: module.capabilities.clone(),
        quarantine,
        bindings: uses.map(|(staged, state)| bindings::description(&view, staged, state, caller.roles)).collect(),
    }))
}

/// How a module is removed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveQuery {
    #[serde(default)]
    force: bool,
}

/// Remove a version of a module that no binding uses. One that the next rollback would use stays, unless `force` is set.
#[utoipa::path(delete, path = "/v1/modules/{name}/versions/{version}", tag = "modules",
    params(
        ("name" = String, Path),
        ("version" = String, Path),
        ("force" = Option<bool>, Query, description = "Also where the next rollback would use it"),
    ),
    responses(
        (status = 204, description = "Removed"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "A binding uses it, or the next rollback would"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn remove(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    ModulePath(module): ModulePath,
    query: Result<Query<RemoveQuery>, QueryRejection>,
) -> Result<(StatusCode, RevisionTag), Problem> {
    let Query(RemoveQuery { force }) = query.map_err(|rejection| {
        let detail = format!("{}; the query may have force=true", rejection.body_text());
        Problem::new(StatusCode::BAD_REQUEST, "invalid-query", detail)
    })?;
    let revision = context.state.world.remove_module(module, force, actor).await?;
    Ok((StatusCode::NO_CONTENT, revision_tag(revision)))
}

/// Lift a module's quarantine: from the next rollout on its filters run again.
#[utoipa::path(post, path = "/v1/modules/{name}/versions/{version}/release", tag = "modules",
    params(("name" = String, Path), ("version" = String, Path)),
    responses(
        (status = 204, description = "Released"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such module, or it is not quarantined"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn release(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    ModulePath(module): ModulePath,
) -> Result<(StatusCode, RevisionTag), Problem> {
    let revision = context.state.world.release(module, actor).await?;
    Ok((StatusCode::NO_CONTENT, revision_tag(revision)))
}

/// What the filters of a module logged.
#[utoipa::path(get, path = "/v1/modules/{name}/versions/{version}/logs", tag = "modules",
    params(("name" = String, Path), ("version" = String, Path)),
    responses(
        (status = 200, body = LogList),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn logs(
    State(context): State<Arc<Context>>,
    ModulePath(path): ModulePath,
) -> Result<Json<LogList>, Problem> {
    let view = context.state.world.view();
    find(&view, &path)?;
    Ok(Json(context.logs.read(&view, &Wanted::of_module(path))))
}

fn find<'a>(view: &'a View, path: &ModuleRef) -> Result<&'a Arc<Module>, Problem> {
    view.catalog.module(path).ok_or_else(|| {
        Problem::not_found(format!("there is no module {path}; `myelin filter ls` shows those that there are"))
    })
}

fn summary(view: &View, module: &Module) -> ModuleSummary {
    let reference = module.module_ref();
    let uses = |set: &BindingSet| set.iter().any(|staged| staged.binding.module == reference);
    let state = match &*view.catalog {
        catalog if catalog.quarantine(&reference).is_some() => ModuleState::Quarantined,
        _ if uses(&view.active().bindings) => ModuleState::Active,
        catalog if uses(catalog.staged()) => ModuleState::Staged,
        _ => ModuleState::Unused,
    };
    ModuleSummary {
        name: module.name.to_string(),
        version: module.version.to_string(),
        digest: module.digest.to_string(),
        size_bytes: module.size_bytes,
        uploaded_unix_ms: module.uploaded_unix_ms,
        state,
        signature: module.signature.as_ref().map(|signature| SignatureInfo {
            key_id: signature.key_id().to_string(),
            statement: signature.comment().to_owned(),
            state: view.catalog.signature_state(module, unix_ms()).as_str(),
        }),
    }
}
