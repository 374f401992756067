//! `/registry/config` and `/registry/mode`: what new versions must be compatible with, and what may be changed.

use super::RegistryProblem;
use super::intake::{Answer, Body, SubjectPath, Wishes};
use crate::admin::Context;
use crate::admin::intake::{IfMatch, RevisionTag, revision_tag};
use crate::admin::problem::Problem;
use crate::world::Actor;
use axum::Extension;
use axum::extract::State;
use myelin_catalog::{CompatibilityLevel, Op, RegistryMode, SchemaRefusal, SubjectName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;

/// A level of compatibility as it is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LevelInfo {
    /// `NONE`, `BACKWARD`, `FORWARD`, `FULL`, the last three also with `_TRANSITIVE`.
    #[schema(value_type = String)]
    compatibility_level: CompatibilityLevel,
}

/// A level of compatibility as it is to be.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct LevelSpec {
    /// `NONE`, `BACKWARD`, `FORWARD`, `FULL`, the last three also with `_TRANSITIVE`.
    compatibility: String,
    /// What other registries know beside it is not kept: only nothing is accepted.
    #[serde(flatten, skip_serializing)]
    #[schema(ignore)]
    others: Map<String, Value>,
}

/// A mode.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct ModeSpec {
    /// `READWRITE`, `READONLY`, `READONLY_OVERRIDE`, `IMPORT`.
    mode: String,
}

/// What new versions must be compatible with, where a subject says nothing of its own.
#[utoipa::path(get, path = "/registry/config", tag = "schemas",
    responses((status = 200, body = LevelInfo, content_type = "application/vnd.schemaregistry.v1+json")))]
pub(super) async fn level(State(context): State<Arc<Context>>) -> Answer<LevelInfo> {
    Answer(LevelInfo { compatibility_level: context.state.world.schemas().default_compatibility() })
}

/// Say what new versions must be compatible with, where a subject says nothing of its own.
#[utoipa::path(put, path = "/registry/config", tag = "schemas",
    request_body(content = LevelSpec, content_type = "application/vnd.schemaregistry.v1+json"),
    responses(
        (status = 200, body = LevelSpec, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is no level, or the mode is not READWRITE (42203, 42205)"),
    ))]
pub(super) async fn set_level(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    Body(spec): Body<LevelSpec>,
) -> Result<Answer<LevelSpec>, RegistryProblem> {
    change_level(&context, actor, None, None, spec).await.map(|(_, answer)| answer)
}

/// Let what holds by default, BACKWARD, hold again; says what held.
#[utoipa::path(delete, path = "/registry/config", tag = "schemas",
    responses((status = 200, body = LevelInfo, content_type = "application/vnd.schemaregistry.v1+json")))]
pub(super) async fn unset_level(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
) -> Result<Answer<LevelInfo>, RegistryProblem> {
    let compatibility_level = context.state.world.schemas().default_compatibility();
    context.state.world.change_registry(Op::CompatibilitySet { subject: None, level: None }, None, actor).await?;
    Ok(Answer(LevelInfo { compatibility_level }))
}

/// What a subject says of its own about compatibility.
#[utoipa::path(get, path = "/registry/config/{subject}", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("defaultToGlobal" = Option<bool>, Query, description = "What holds for it, where it says nothing"),
    ),
    responses(
        (status = 200, body = LevelInfo, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It says nothing (40408)"),
    ))]
pub(super) async fn subject_level(
    State(context): State<Arc<Context>>,
    SubjectPath(subject): SubjectPath,
    wishes: Wishes,
) -> Result<Answer<LevelInfo>, RegistryProblem> {
    let schemas = context.state.world.schemas();
    let own = schemas.subject(subject.as_str()).and_then(|subject| subject.own_compatibility());
    let level = own.or_else(|| wishes.has("defaultToGlobal").then(|| schemas.default_compatibility()));
    match level {
        Some(compatibility_level) => Ok(Answer(LevelInfo { compatibility_level })),
        None => Err(SchemaRefusal::NotSet { subject, what: "level of compatibility" }.into()),
    }
}

/// Say what new versions of a subject must be compatible with.
#[utoipa::path(put, path = "/registry/config/{subject}", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("if-match" = Option<String>, Header, description = "Only when the catalog's revision is this one"),
    ),
    request_body(content = LevelSpec, content_type = "application/vnd.schemaregistry.v1+json"),
    responses(
        (status = 200, body = LevelSpec, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is no level, or the mode is not READWRITE (42203, 42205)"),
    ))]
pub(super) async fn set_subject_level(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    SubjectPath(subject): SubjectPath,
    if_match: Result<IfMatch, Problem>,
    Body(spec): Body<LevelSpec>,
) -> Result<(RevisionTag, Answer<LevelSpec>), RegistryProblem> {
    change_level(&context, actor, Some(subject), if_match?.0, spec).await
}

/// Let a subject say nothing of its own about compatibility; says what it said.
#[utoipa::path(delete, path = "/registry/config/{subject}", tag = "schemas",
    params(("subject" = String, Path, description = "Name of the subject")),
    responses(
        (status = 200, body = LevelInfo, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It says nothing (40408)"),
    ))]
pub(super) async fn unset_subject_level(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    SubjectPath(subject): SubjectPath,
) -> Result<Answer<LevelInfo>, RegistryProblem> {
    let compatibility_level = context.state.world.schemas().compatibility(subject.as_str());
    let op = Op::CompatibilitySet { subject: Some(subject), level: None };
    context.state.world.change_registry(op, None, actor).await?;
    Ok(Answer(LevelInfo { compatibility_level }))
}

async fn change_level(
    context: &Context,
    actor: Actor,
    subject: Option<SubjectName>,
    if_match: Option<u64>,
    spec: LevelSpec,
) -> Result<(RevisionTag, Answer<LevelSpec>), RegistryProblem> {
    if let Some((name, _)) = spec.others.iter().find(|(_, value)| !value.is_null()) {
        let name = crate::admin::problem::shown(name);
        let message = format!("`{name}` is not kept by this registry; leave it out");
        return Err(RegistryProblem::new("registry-mode", message));
    }
    let level: CompatibilityLevel = spec.compatibility.parse()?;
    let op = Op::CompatibilitySet { subject, level: Some(level) };
    let revision = context.state.world.change_registry(op, if_match, actor).await?;
    Ok((revision_tag(revision), Answer(LevelSpec { compatibility: level.to_string(), others: Map::new() })))
}

/// What may be changed, where a subject says nothing of its own.
#[utoipa::path(get, path = "/registry/mode", tag = "schemas",
    responses((status = 200, body = ModeSpec, content_type = "application/vnd.schemaregistry.v1+json")))]
pub(super) async fn mode(State(context): State<Arc<Context>>) -> Answer<ModeSpec> {
    shown(context.state.world.schemas().default_mode())
}

/// Say what may be changed, where a subject says nothing of its own.
#[utoipa::path(put, path = "/registry/mode", tag = "schemas",
    params(("force" = Option<bool>, Query, description = "IMPORT although there are schemas")),
    request_body(content = ModeSpec, content_type = "application/vnd.schemaregistry.v1+json"),
    responses(
        (status = 200, body = ModeSpec, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is no mode, or not now (42204, 42205)"),
    ))]
pub(super) async fn set_mode(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    wishes: Wishes,
    Body(spec): Body<ModeSpec>,
) -> Result<Answer<ModeSpec>, RegistryProblem> {
    change_mode(&context, actor, None, &wishes, &spec).await
}

/// Let what holds by default, READWRITE, hold again; says what held.
#[utoipa::path(delete, path = "/registry/mode", tag = "schemas",
    responses((status = 200, body = ModeSpec, content_type = "application/vnd.schemaregistry.v1+json")))]
pub(super) async fn unset_mode(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
) -> Result<Answer<ModeSpec>, RegistryProblem> {
    let before = context.state.world.schemas().default_mode();
    context.state.world.change_registry(Op::RegistryModeSet { subject: None, mode: None }, None, actor).await?;
    Ok(shown(before))
}

/// What a subject says of its own about changes.
#[utoipa::path(get, path = "/registry/mode/{subject}", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("defaultToGlobal" = Option<bool>, Query, description = "What holds for it, where it says nothing"),
    ),
    responses(
        (status = 200, body = ModeSpec, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It says nothing (40409)"),
    ))]
pub(super) async fn subject_mode(
    State(context): State<Arc<Context>>,
    SubjectPath(subject): SubjectPath,
    wishes: Wishes,
) -> Result<Answer<ModeSpec>, RegistryProblem> {
    let schemas = context.state.world.schemas();
    let own = schemas.subject(subject.as_str()).and_then(|subject| subject.own_mode());
    match own.or_else(|| wishes.has("defaultToGlobal").then(|| schemas.default_mode())) {
        Some(mode) => Ok(shown(mode)),
        None => Err(SchemaRefusal::NotSet { subject, what: "mode" }.into()),
    }
}

/// Say what may be changed in a subject.
#[utoipa::path(put, path = "/registry/mode/{subject}", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("force" = Option<bool>, Query, description = "IMPORT although there are schemas"),
    ),
    request_body(content = ModeSpec, content_type = "application/vnd.schemaregistry.v1+json"),
    responses(
        (status = 200, body = ModeSpec, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is no mode, or not now (42204, 42205)"),
    ))]
pub(super) async fn set_subject_mode(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    SubjectPath(subject): SubjectPath,
    wishes: Wishes,
    Body(spec): Body<ModeSpec>,
) -> Result<Answer<ModeSpec>, RegistryProblem> {
    change_mode(&context, actor, Some(subject), &wishes, &spec).await
}

/// Let a subject say nothing of its own about changes; says what it said.
#[utoipa::path(delete, path = "/registry/mode/{subject}", tag = "schemas",
    params(("subject" = String, Path, description = "Name of the subject")),
    responses(
        (status = 200, body = ModeSpec, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It says nothing (40409)"),
    ))]
pub(super) async fn unset_subject_mode(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    SubjectPath(subject): SubjectPath,
) -> Result<Answer<ModeSpec>, RegistryProblem> {
    let before = context.state.world.schemas().mode(subject.as_str());
    let op = Op::RegistryModeSet { subject: Some(subject), mode: None };
    context.state.world.change_registry(op, None, actor).await?;
    Ok(shown(before))
}

async fn change_mode(
    context: &Context,
    actor: Actor,
    subject: Option<SubjectName>,
    wishes: &Wishes,
    spec: &ModeSpec,
) -> Result<Answer<ModeSpec>, RegistryProblem> {
    let (world, mode) = (&context.state.world, spec.mode.parse()?);
    if mode == RegistryMode::Import && !wishes.has("force") {
        world.check_import(subject.as_ref())?;
    }
    world.change_registry(Op::RegistryModeSet { subject, mode: Some(mode) }, None, actor).await?;
    Ok(shown(mode))
}

fn shown(mode: RegistryMode) -> Answer<ModeSpec> {
    Answer(ModeSpec { mode: mode.to_string() })
}
