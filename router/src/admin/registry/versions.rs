//! `/registry/subjects/{subject}/versions`.

use super::RegistryProblem;
use super::bodies::{RegisteredInfo, SchemaRequest, VersionInfo};
use super::intake::{Answer, Body, SubjectPath, VersionAsked, VersionPath, Wishes};
use crate::admin::access::Caller;
use crate::admin::intake::{IfMatch, RevisionTag, revision_tag};
use crate::admin::problem::Problem;
use crate::admin::{Context, rights};
use crate::world::{Actor, Wish};
use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use myelin_catalog::{Op, SchemaRefusal, Schemas, Subject, SubjectName, SubjectVersion};
use std::sync::Arc;

/// The numbers of a subject's versions.
#[utoipa::path(get, path = "/registry/subjects/{subject}/versions", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("deleted" = Option<bool>, Query, description = "Deleted ones as well"),
        ("deletedOnly" = Option<bool>, Query, description = "Only deleted ones"),
        ("offset" = Option<u64>, Query, description = "How many are left out at the beginning"),
        ("limit" = Option<u64>, Query, description = "How many there may be"),
    ),
    responses(
        (status = 200, body = Vec<u32>, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "There is no such subject (40401)"),
    ))]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    SubjectPath(subject): SubjectPath,
    wishes: Wishes,
) -> Result<Answer<Vec<u32>>, RegistryProblem> {
    let schemas = context.state.world.schemas();
    let there = schemas.find_subject(&subject)?;
    let (only_deleted, deleted) = (wishes.has("deletedOnly"), wishes.has("deleted"));
    let shown = there
        .all()
        .filter(|version| if only_deleted { version.is_deleted() } else { deleted || !version.is_deleted() });
    let shown: Vec<u32> = shown.map(|version| version.version).collect();
    if shown.is_empty() {
        return Err(SchemaRefusal::SubjectNotFound(subject).into());
    }
    let (offset, limit) = wishes.part();
    Ok(Answer(shown.into_iter().skip(offset).take(limit).collect()))
}

/// Make a schema the next version of a subject. Where it is there already nothing changes.
#[utoipa::path(post, path = "/registry/subjects/{subject}/versions", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("normalize" = Option<bool>, Query, description = "Keep the canonical form in place of the text"),
        ("acceptFailures" = Option<bool>, Query, description = "Also when a topic rule that follows `latest` would turn back events that this router has recorded"),
        ("if-match" = Option<String>, Header, description = "Only when the catalog's revision is this one"),
    ),
    request_body(content = SchemaRequest, content_type = "application/vnd.schemaregistry.v1+json"),
    responses(
        (status = 200, body = RegisteredInfo, content_type = "application/vnd.schemaregistry.v1+json", description = "It is there now"),
        (status = 403, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "With `[admin] two_person` nobody registers alone what a topic rule follows by `latest`, where there are sites"),
        (status = 409, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is not compatible, or would turn back recorded events (409)"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is no schema, or the mode does not let it in (42201, 42205)"),
        (status = 429, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "Who may not see payloads has recorded events judged too often (429)"),
        (status = 500, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "The router that writes the catalog is not reached (50003)"),
        (status = 507, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn register(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    SubjectPath(subject): SubjectPath,
    wishes: Wishes,
    if_match: Result<IfMatch, Problem>,
    Body(request): Body<SchemaRequest>,
) -> Result<(RevisionTag, Answer<RegisteredInfo>), RegistryProblem> {
    let world = &context.state.world;
    let (candidate, place) = request.read(&world.schemas(), &subject, wishes.has("normalize"))?;
    let (accept_failures, by_two) = (wishes.has("acceptFailures"), context.two_person);
    let (sees_payloads, if_match) = (rights::sees_payloads(caller.roles), if_match?.0);
    let wish = Wish { candidate, place, accept_failures, by_two, sees_payloads, if_match };
    let (made, revision) = world.register_schema(subject, wish, caller.actor).await?;
    Ok((revision_tag(revision), Answer(RegisteredInfo { id: made.id, version: made.version })))
}

/// A version.
#[utoipa::path(get, path = "/registry/subjects/{subject}/versions/{version}", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("version" = String, Path, description = "Its number, or `latest`"),
        ("deleted" = Option<bool>, Query, description = "Among deleted versions as well"),
        ("format" = Option<String>, Query, description = "`serialized`: a Protobuf schema as a FileDescriptorProto in base 64"),
    ),
    responses(
        (status = 200, body = VersionInfo, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "There is no such subject or version (40401, 40402)"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is no version (42202)"),
    ))]
pub(super) async fn describe(
    State(context): State<Arc<Context>>,
    VersionPath(subject, version): VersionPath,
    wishes: Wishes,
) -> Result<Answer<VersionInfo>, RegistryProblem> {
    let world = &context.state.world;
    let found = find(&world.schemas(), &subject, version, wishes.has("deleted"))?;
    let text = world.schema_text(&found.schema, wishes.text("format")).await?;
    Ok(Answer(VersionInfo::new(&subject, &found, text)))
}

/// The text of a version.
#[utoipa::path(get, path = "/registry/subjects/{subject}/versions/{version}/schema", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("version" = String, Path, description = "Its number, or `latest`"),
        ("deleted" = Option<bool>, Query, description = "Among deleted versions as well"),
        ("format" = Option<String>, Query, description = "`serialized`: a Protobuf schema as a FileDescriptorProto in base 64"),
    ),
    responses(
        (status = 200, body = String, content_type = "application/vnd.schemaregistry.v1+json", description = "The text itself"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "There is no such subject or version (40401, 40402)"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is no version (42202)"),
    ))]
pub(super) async fn text(
    State(context): State<Arc<Context>>,
    VersionPath(subject, version): VersionPath,
    wishes: Wishes,
) -> Result<impl IntoResponse, RegistryProblem> {
    let world = &context.state.world;
    let found = find(&world.schemas(), &subject, version, wishes.has("deleted"))?;
    Ok(super::ids::plain(world.schema_text(&found.schema, wishes.text("format")).await?))
}

/// The ids of the schemas that refer to a version.
#[utoipa::path(get, path = "/registry/subjects/{subject}/versions/{version}/referencedby", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("version" = String, Path, description = "Its number, or `latest`"),
    ),
    responses(
        (status = 200, body = Vec<u32>, content_type = "application/vnd.schemaregistry.v1+json"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "There is no such subject or version (40401, 40402)"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "It is no version (42202)"),
    ))]
pub(super) async fn referrers(
    State(context): State<Arc<Context>>,
    VersionPath(subject, version): VersionPath,
) -> Result<Answer<Vec<u32>>, RegistryProblem> {
    let schemas = context.state.world.schemas();
    let found = find(&schemas, &subject, version, true)?;
    Ok(Answer(schemas.referrers(&subject, found.version).collect()))
}

/// Delete a version: whoever has its number or id can still read it, until it is deleted permanently.
#[utoipa::path(delete, path = "/registry/subjects/{subject}/versions/{version}", tag = "schemas",
    params(
        ("subject" = String, Path, description = "Name of the subject"),
        ("version" = String, Path, description = "Its number, or `latest`"),
        ("permanent" = Option<bool>, Query, description = "For good; it must have been deleted before"),
    ),
    responses(
        (status = 200, body = u32, content_type = "application/vnd.schemaregistry.v1+json", description = "The version that is deleted"),
        (status = 403, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "With `[admin] two_person` nobody deletes alone the newest version of a subject that a topic rule follows by `latest`, where there are sites"),
        (status = 404, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "There is no such version, or not so (40401, 40402, 40406, 40407)"),
        (status = 422, body = RegistryProblem, content_type = "application/vnd.schemaregistry.v1+json", description = "Other schemas refer to it, a topic rule judges by it, or the mode is not READWRITE (42202, 42205, 42206)"),
    ))]
pub(super) async fn remove(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    VersionPath(subject, version): VersionPath,
    wishes: Wishes,
) -> Result<Answer<u32>, RegistryProblem> {
    let world = &context.state.world;
    let permanent = wishes.has("permanent");
    let version = match version {
        VersionAsked::Number(number) => number,
        VersionAsked::Latest => find(&world.schemas(), &subject, version, permanent)?.version,
    };
    world.check_unused(&subject, Some(version), permanent)?;
    if context.two_person {
        match permanent {
            false => world.check_by_two(&subject, version)?,
            // No rule judges by what went before, but filters whose bindings are older see it still.
            true => world.check_by_two_for_good(&subject, Some(version))?,
        }
    }
    world.change_registry(Op::SchemaVersionDeleted { subject, version, permanent }, None, actor).await?;
    Ok(Answer(version))
}

/// The version that is asked for.
pub(super) fn find(
    schemas: &Schemas,
    subject: &SubjectName,
    version: VersionAsked,
    deleted: bool,
) -> Result<SubjectVersion, RegistryProblem> {
    let there = schemas.find_subject(subject)?;
    if !deleted && !there.is_live() {
        return Err(SchemaRefusal::SubjectNotFound(subject.clone()).into());
    }
    let found = match version {
        VersionAsked::Number(number) if deleted => there.find(number),
        VersionAsked::Number(number) => there.version(number),
        VersionAsked::Latest if deleted => there.all().next_back(),
        VersionAsked::Latest => there.latest(),
    };
    let number = match version {
        VersionAsked::Number(number) => number,
        VersionAsked::Latest => 0,
    };
    found.cloned().ok_or_else(|| SchemaRefusal::VersionNotFound { subject: subject.clone(), version: number }.into())
}

/// The numbers of a subject's versions; deleted ones where they are asked for.
pub(super) fn numbers(subject: &Subject, deleted: bool) -> Vec<u32> {
    subject.all().filter(|version| deleted || !version.is_deleted()).map(|version| version.version).collect()
}
