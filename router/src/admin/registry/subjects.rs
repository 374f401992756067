//! `/registry/subjects`: the names, what a schema is under one, and how one goes.

use super::bodies::{SchemaRequest, VersionInfo};
use super::intake::{Answer, Body, SubjectPath, Wishes};
use super::{RegistryProblem, versions};
use crate::admin::Context;
use crate::admin::intake::{IfMatch, RevisionTag, revision_tag};
use crate::admin::problem::Problem;
use crate::world::Actor;
use axum::Extension;
use axum::extract::State;
use myelin_catalog::Op;
use std::sync::Arc;

/// The names of all subjects.
#[utoipa::path(get, path = "/registry/subjects", tag = "schemas",
    params(
        ("deleted" = Option<bool>, Query, description = "Deleted ones as well"),
        ("deletedOnly" = Option<bool>, Query, description = "Only deleted ones"),
        ("subjectPrefix" = Option<String>, Query, description = "Only those that begin so"),
        ("offset" = Option<u64>, Query, description = "How many are left out at the beginning"),
        ("limit" = Option<u64>, Query, description = "How many there may be"),
    ),
    responses((status = 200, body = Vec<String>, content_type = "application/vnd.schemaregistry.v1+json")))]
pub(super) async fn list(State(context): State<Arc<Context>>, wishes: Wishes) -> Answer<Vec<String>> {
    let schemas = context.state.world.schemas();
    let (only_deleted, deleted) = (wishes.has("deletedOnly"), wishes.has("deleted"));
    let prefix = wishes.text("subjectPrefix").unwrap_or_default();
    let (offset, limit) = wishes.part();
    let shown = schemas.subjects().filter(|subject| match subject.is_live() {
        true => !only_deleted,
        false => (deleted || only_deleted) && subject.all().next().is_some(),
    });
    let shown = shown.map(|subject| subject.name().to_string()).filter(|name| name.starts_with(prefix));
    Answer(shown.skip(offset).take(limit).collect())
}

/// What a schema is under a subject, if it is there.
#[utoipa::path(post, path = "/registry/subjects/{subject}", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("deleted" = Option<bool>, Query, description = "Among deleted versions as well"),
        ("normalize" = Option<bool>, Query, description = "Has no effect here: schemas are told apart by their canonical form always"),
    ),
    request_body(content = SchemaRequest, content_type = "application/vnd.schemaregistry.v1+json"),
    responses(
        (status = 200, body = VersionInfo, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is not (40401, 40403)"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is no schema (42201)"),
    ))]
pub(super) async fn look_up(
    State(context): State<Arc<Context>>,
    SubjectPath(subject): SubjectPath,
    wishes: Wishes,
    Body(request): Body<SchemaRequest>,
) -> Result<Answer<VersionInfo>, RegistryProblem> {
    let world = &context.state.world;
    let (candidate, _) = request.read(&world.schemas(), &subject, false)?;
    let found = world.find_schema(subject.clone(), candidate, wishes.has("deleted")).await?;
    let schemas = world.schemas();
    let version = schemas.find_subject(&subject)?.find(found.version);
    let version = version.ok_or_else(|| super::intake::not_found(&found.id))?;
    Ok(Answer(VersionInfo::new(&subject, version, version.schema.text.to_string())))
}

/// Delete all versions of a subject: whoever has an id can still read it, until they are deleted permanently.
#[utoipa::path(delete, path = "/registry/subjects/{subject}", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("permanent" = Option<bool>, Query, description = "For good; they must have been deleted before"),
        ("if-match" = Option<String>, Header, description = "Only when the catalog's revision is this one"),
    ),
    responses(
        (status = 200, body = Vec<u32>, content_type = "application/vnd.schemaregistry.v1+json", description = "The versions that are deleted"),
        (status = 403, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "With `[admin] two_person` nobody deletes alone for good what an active filter may get that names no version"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "There is no such subject, or not so (40401, 40404, 40405)"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "Other schemas refer to it, a topic rule judges by it, or the mode is not READWRITE (42205, 42206)"),
    ))]
pub(super) async fn remove(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    SubjectPath(subject): SubjectPath,
    wishes: Wishes,
    if_match: Result<IfMatch, Problem>,
) -> Result<(RevisionTag, Answer<Vec<u32>>), RegistryProblem> {
    let world = &context.state.world;
    let permanent = wishes.has("permanent");
    world.check_unused(&subject, None, permanent)?;
    if context.two_person && permanent {
        world.check_by_two_for_good(&subject, None)?;
    }
    let before = world.schemas();
    let gone = before.find_subject(&subject).ok().map(|subject| versions::numbers(subject, permanent));
    let revision = world.change_registry(Op::SubjectDeleted { subject, permanent }, if_match?.0, actor).await?;
    // None only where another router registered it since.
    Ok((revision_tag(revision), Answer(gone.unwrap_or_default())))
}
