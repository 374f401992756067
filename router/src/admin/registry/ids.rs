//! `/registry/schemas`: schemas by their ids, whatever became of their versions.

use super::bodies::SchemaInfo;
use super::intake::{Answer, IdPath, Wishes, not_found};
use super::{MEDIA_TYPE, RegistryProblem};
use crate::admin::Context;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use myelin_catalog::SchemaFormat;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A version by its names.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PlaceInfo {
    subject: String,
    version: u32,
}

/// The formats of schemas.
#[utoipa::path(get, path = "/registry/schemas/types", tag = "schemas",
    responses((status = 200, body = Vec<String>, content_type = "application/vnd.schemaregistry.v1+json")))]
pub(super) async fn types() -> Answer<Vec<&'static str>> {
    Answer(SchemaFormat::ALL.iter().map(|format| format.as_str()).collect())
}

/// The schema of an id.
#[utoipa::path(get, path = "/registry/schemas/ids/{id}", tag = "schemas",
    params(
        ("id" = u32, Path, description = "The id"),
        ("fetchMaxId" = Option<bool>, Query, description = "Say the largest id as well"),
        ("format" = Option<String>, Query, description = "`serialized`: a Protobuf schema as a FileDescriptorProto in base 64"),
    ),
    responses(
        (status = 200, body = SchemaInfo, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "There is none (40403)"),
    ))]
pub(super) async fn describe(
    State(context): State<Arc<Context>>,
    IdPath(id): IdPath,
    wishes: Wishes,
) -> Result<Answer<SchemaInfo>, RegistryProblem> {
    let world = &context.state.world;
    let schemas = world.schemas();
    let schema = schemas.schema(id).ok_or_else(|| not_found(&id))?;
    let text = world.schema_text(schema, wishes.text("format")).await?;
    let max_id = wishes.has("fetchMaxId").then(|| schemas.newest_id());
    Ok(Answer(SchemaInfo::new(schema, text, max_id)))
}

/// The text of the schema of an id.
#[utoipa::path(get, path = "/registry/schemas/ids/{id}/schema", tag = "schemas",
    params(
        ("id" = u32, Path, description = "The id"),
        ("format" = Option<String>, Query, description = "`serialized`: a Protobuf schema as a FileDescriptorProto in base 64"),
    ),
    responses(
        (status = 200, body = String, content_type = "application/vnd.schemaregistry.v1+json", description = "The text itself"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "There is none (40403)"),
    ))]
pub(super) async fn text(
    State(context): State<Arc<Context>>,
    IdPath(id): IdPath,
    wishes: Wishes,
) -> Result<impl IntoResponse, RegistryProblem> {
    let world = &context.state.world;
    let schemas = world.schemas();
    let schema = schemas.schema(id).ok_or_else(|| not_found(&id))?;
    Ok(plain(world.schema_text(schema, wishes.text("format")).await?))
}

/// The subjects that have a schema.
#[utoipa::path(get, path = "/registry/schemas/ids/{id}/subjects", tag = "schemas",
    params(
        ("id" = u32, Path, description = "The id"),
        ("deleted" = Option<bool>, Query, description = "As a deleted version as well"),
    ),
    responses(
        (status = 200, body = Vec<String>, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "There is none (40403)"),
    ))]
pub(super) async fn subjects(
    State(context): State<Arc<Context>>,
    IdPath(id): IdPath,
    wishes: Wishes,
) -> Result<Answer<Vec<String>>, RegistryProblem> {
    let mut subjects: Vec<String> = places(&context, id, &wishes)?.into_iter().map(|place| place.subject).collect();
    subjects.dedup();
    Ok(Answer(subjects))
}

/// The versions that a schema is.
#[utoipa::path(get, path = "/registry/schemas/ids/{id}/versions", tag = "schemas",
    params(
        ("id" = u32, Path, description = "The id"),
        ("deleted" = Option<bool>, Query, description = "Deleted ones as well"),
    ),
    responses(
        (status = 200, body = Vec<PlaceInfo>, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "There is none (40403)"),
    ))]
pub(super) async fn versions(
    State(context): State<Arc<Context>>,
    IdPath(id): IdPath,
    wishes: Wishes,
) -> Result<Answer<Vec<PlaceInfo>>, RegistryProblem> {
    Ok(Answer(places(&context, id, &wishes)?))
}

/// The versions that a schema is, by subject.
fn places(context: &Context, id: u32, wishes: &Wishes) -> Result<Vec<PlaceInfo>, RegistryProblem> {
    let schemas = context.state.world.schemas();
    schemas.schema(id).ok_or_else(|| not_found(&id))?;
    let deleted = wishes.has("deleted");
    let shown = schemas.places(id).filter(|(_, _, is_deleted)| deleted || !is_deleted);
    Ok(shown.map(|(subject, version, _)| PlaceInfo { subject: subject.to_string(), version }).collect())
}

/// A text as it is.
pub(super) fn plain(text: String) -> ([(HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE, MEDIA_TYPE)], text)
}
