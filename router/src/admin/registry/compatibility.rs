//! `/registry/compatibility`: what a schema would break. Nothing is registered.

use super::RegistryProblem;
use super::bodies::SchemaRequest;
use super::intake::{Answer, Body, SubjectPath, VersionPath, Wishes};
use crate::admin::Context;
use crate::world::Asked;
use axum::extract::State;
use myelin_catalog::SubjectName;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Whether a schema is compatible.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CompatibilityInfo {
    is_compatible: bool,
    /// What it breaks, where `verbose` is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<String>>,
}

/// Whether a schema is compatible with one version of a subject, at the subject's level.
#[utoipa::path(post, path = "/registry/compatibility/subjects/{subject}/versions/{version}", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("version" = String, Path, description = "Its number, or `latest`"),
        ("verbose" = Option<bool>, Query, description = "Say what it breaks"),
    ),
    request_body(content = SchemaRequest, content_type = "application/vnd.schemaregistry.v1+json"),
    responses(
        (status = 200, body = CompatibilityInfo, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "There is no such subject or version (40401, 40402)"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is no schema or no version (42201, 42202)"),
    ))]
pub(super) async fn compare(
    State(context): State<Arc<Context>>,
    VersionPath(subject, version): VersionPath,
    wishes: Wishes,
    Body(request): Body<SchemaRequest>,
) -> Result<Answer<CompatibilityInfo>, RegistryProblem> {
    answer(&context, subject, version.asked(), &wishes, request).await
}

/// Whether a schema is compatible with the versions that the subject's level names, as when it is registered.
#[utoipa::path(post, path = "/registry/compatibility/subjects/{subject}/versions", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("verbose" = Option<bool>, Query, description = "Say what it breaks"),
    ),
    request_body(content = SchemaRequest, content_type = "application/vnd.schemaregistry.v1+json"),
    responses(
        (status = 200, body = CompatibilityInfo, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is no schema (42201)"),
    ))]
pub(super) async fn compare_all(
    State(context): State<Arc<Context>>,
    SubjectPath(subject): SubjectPath,
    wishes: Wishes,
    Body(request): Body<SchemaRequest>,
) -> Result<Answer<CompatibilityInfo>, RegistryProblem> {
    answer(&context, subject, Asked::All, &wishes, request).await
}

async fn answer(
    context: &Context,
    subject: SubjectName,
    asked: Asked,
    wishes: &Wishes,
    request: SchemaRequest,
) -> Result<Answer<CompatibilityInfo>, RegistryProblem> {
    let world = &context.state.world;
    let (candidate, _) = request.read(&world.schemas(), &subject, false)?;
    let messages = world.compare_schema(subject, asked, candidate).await?;
    let is_compatible = messages.is_empty();
    Ok(Answer(CompatibilityInfo { is_compatible, messages: wishes.has("verbose").then_some(messages) }))
}
