//! `/v1/schemas`: the registry at a glance, for the command line.

use crate::admin::Context;
use axum::Json;
use axum::extract::State;
use myelin_catalog::{Schemas, Subject};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The registry at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SchemaOverview {
    /// By name.
    subjects: Vec<SubjectInfo>,
    /// What new versions must be compatible with, where a subject says nothing of its own.
    compatibility: &'static str,
    /// What may be changed, where a subject says nothing of its own.
    mode: &'static str,
    /// Bytes of the texts of all schemas.
    text_bytes: u64,
    /// The catalog's revision when the registry changed last.
    revision: u64,
}

/// A subject.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SubjectInfo {
    name: String,
    /// Its versions that are not deleted.
    versions: Vec<u32>,
    /// Its versions that are deleted and kept.
    deleted: Vec<u32>,
    /// The id of the newest version that is not deleted.
    id: Option<u32>,
    /// The format of that version.
    format: Option<&'static str>,
    /// When that version was registered.
    registered_unix_ms: Option<u64>,
    /// What new versions must be compatible with.
    compatibility: &'static str,
    /// What may be changed.
    mode: &'static str,
}

impl SubjectInfo {
    fn new(schemas: &Schemas, subject: &Subject) -> Self {
        let (name, latest) = (subject.name().as_str(), subject.latest());
        let numbers = |deleted| {
            let of_kind = subject.all().filter(move |version| version.is_deleted() == deleted);
            of_kind.map(|version| version.version).collect()
        };
        Self {
            name: name.to_owned(),
            versions: numbers(false),
            deleted: numbers(true),
            id: latest.map(|latest| latest.schema.id),
            format: latest.map(|latest| latest.schema.format.as_str()),
            registered_unix_ms: latest.map(|latest| latest.at_unix_ms),
            compatibility: schemas.compatibility(name).as_str(),
            mode: schemas.mode(name).as_str(),
        }
    }
}

/// The schema registry at a glance: all subjects, without texts.
#[utoipa::path(get, path = "/v1/schemas", tag = "schemas", responses((status = 200, body = SchemaOverview)))]
pub(super) async fn overview(State(context): State<Arc<Context>>) -> Json<SchemaOverview> {
    let schemas = context.state.world.schemas();
    let (_, _, text_bytes) = schemas.counts();
    Json(SchemaOverview {
        subjects: schemas.subjects().map(|subject| SubjectInfo::new(&schemas, subject)).collect(),
        compatibility: schemas.default_compatibility().as_str(),
        mode: schemas.default_mode().as_str(),
        text_bytes,
        revision: schemas.revision(),
    })
}
