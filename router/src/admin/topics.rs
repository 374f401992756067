//! `/v1/topics`: rules for topics. They hold at once, on every router that has the record.

use super::Context;
use super::access::Caller;
use super::intake::{IfMatch, Json as Body, NamePath, RevisionTag, revision_tag};
use super::problem::Problem;
use super::rights;
use crate::screen::{Screen, Screens};
use crate::shared::Shared;
use crate::world::members::place;
use crate::world::{Actor, Blame, Change, Look, View, WorldError, not_alone};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use myelin_catalog::{GovernanceChange, Governed, Op, Residency, SchemaRule, SchemaVersion, Schemas, TopicRule};
use myelin_wire::Pattern;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// The rules for topics.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TopicRules {
    rules: Vec<TopicRuleInfo>,
    /// The catalog's revision, for If-Match.
    revision: u64,
    /// Events that were refused at this router since its start, because they may not be at its site.
    refused: u64,
    /// Copies that other sites want and that this router held back since its start.
    held_back: u64,
}

/// A rule for topics.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TopicRuleInfo {
    /// What it is called.
    name: String,
    /// The topics.
    pattern: String,
    /// Where their events may be.
    residency: ResidencySpec,
    /// The sites that are meant, as the catalog has them now.
    allowed: Vec<String>,
    /// What their payloads must be like.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SchemaSpec>)]
    schema: Option<SchemaRule>,
    /// What the rollout under way makes of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<Brought>,
    /// The subject's newest version, where the rule judges by an older one: a rollout may let it hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<u32>,
    /// What the schema has done at this router.
    #[serde(skip_serializing_if = "Option::is_none")]
    screening: Option<Screening>,
}

/// What the rollout under way makes of a rule: `schema` is what it says itself, and goes on saying where the rollout is not.
#[derive(Debug, Serialize, ToSchema)]
struct Brought {
    /// The rollout.
    id: u64,
    /// What payloads must be like where it is; nothing where it removes the rule, or takes the schema out of it.
    #[schema(value_type = Option<SchemaSpec>)]
    schema: Option<SchemaRule>,
    /// Whether it is at this router's site.
    is_here: bool,
}

impl Brought {
    fn of(rule: &TopicRule, view: &View) -> Option<Self> {
        let rollout = view.catalog.rollout().filter(|rollout| rollout.is_forward())?;
        let is_meant = |change: &&GovernanceChange| change.governed() == Governed::TopicRule(&rule.name);
        let change = rollout.plan.changes.iter().find(is_meant)?;
        let is_here = view.site.as_ref().is_some_and(|site| !rollout.changes_at(site).is_empty());
        Some(Self { id: rollout.id, schema: change.rule().and_then(|rule| rule.schema.clone()), is_here })
    }
}

/// What a rule's schema has done at this router since its start.
#[derive(Debug, Serialize, ToSchema)]
struct Screening {
    /// What payloads are judged by now, for people.
    by: String,
    /// Events that were as the schema says.
    passed: u64,
    /// Events that were refused.
    refused: u64,
    /// Events that went to `$dead/admission/<topic>`.
    dead_lettered: u64,
}

impl Screening {
    fn new(screen: &Screen) -> Self {
        let (passed, refused, dead_lettered) = screen.counts();
        Self { by: screen.describe(), passed, refused, dead_lettered }
    }
}

/// By which schema the payloads of topics are judged, and what becomes of those that are not as it says.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the catalog's own type to readers of the API")]
pub(super) struct SchemaSpec {
    /// The subject whose schema it is; with `by`, the only subject whose schemas events may name.
    subject: Option<String>,
    /// How each event names its schema: `confluent`, `header`, or `dataschema`.
    by: Option<String>,
    /// A version's number; or `latest`, which is another one as soon as it is registered. Where nothing is said, the
    /// newest that there is now, by its number.
    #[schema(value_type = Option<Object>)]
    version: Option<serde_json::Value>,
    /// `refuse`, or `dead-letter`.
    on_invalid: Option<String>,
    /// Whether an event without a payload, or with `by` one that names no schema, is not as it must be; it is not where
    /// nothing is said.
    required: Option<bool>,
}

/// The sites at which events may be: those that every list fits that is not empty.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct ResidencySpec {
    /// Regions; `eu-*` are all that begin so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    regions: Vec<String>,
    /// Clouds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    clouds: Vec<String>,
    /// Sites by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sites: Vec<String>,
}

/// What a rule says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicRuleSpec {
    /// The topics.
    #[schema(value_type = String)]
    pattern: Pattern,
    /// Where their events may be; anywhere where nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<ResidencySpec>)]
    residency: Residency,
    /// What their payloads must be like.
    #[serde(default)]
    #[schema(value_type = Option<SchemaSpec>)]
    schema: Option<SchemaRule>,
}

/// How a rule is set.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct ApplyQuery {
    at_once: bool,
    accept_failures: bool,
}

impl TopicRuleInfo {
    fn new(rule: &TopicRule, view: &View, shared: &Shared, screens: &Screens) -> Self {
        let Residency { regions, clouds, sites } = &rule.residency;
        let texts = |list: &[myelin_catalog::Selector]| list.iter().map(ToString::to_string).collect();
        let is_allowed = |name: &str, region: &str, cloud: &str| rule.residency.allows(name, region, cloud);
        let allowed = match &shared.outward {
            Some(_) => view
                .catalog
                .fleet()
                .sites()
                .filter(|site| is_allowed(site.name.as_str(), place(&site.region), place(&site.cloud)))
                .map(|site| site.name.to_string())
                .collect(),
            // Without links there is the own site, whatever the catalog has.
            None => shared
                .alone
                .sites()
                .filter(|site| is_allowed(&site.name, &site.region, &site.cloud))
                .map(|site| site.name.to_string())
                .collect(),
        };
        Self {
            name: rule.name.to_string(),
            pattern: rule.pattern.as_str().to_owned(),
            residency: ResidencySpec { regions: texts(regions), clouds: texts(clouds), sites: texts(sites) },
            allowed,
            schema: rule.schema.clone(),
            rollout: Brought::of(rule, view),
            newest: rule.schema.as_ref().and_then(|schema| newer(schema, view.catalog.schemas())),
            screening: screens.all().find(|screen| screen.rule() == rule.name.as_str()).map(Screening::new),
        }
    }
}

/// The newest version of the subject, where the rule judges by another one.
fn newer(schema: &SchemaRule, schemas: &Schemas) -> Option<u32> {
    let Some(SchemaVersion::Number(number)) = schema.version else { return None };
    let newest = schemas.latest(schema.subject.as_ref()?.as_str())?.version;
    Some(newest).filter(|newest| *newest != number)
}

/// All rules for topics, and what they have held back at this router.
#[utoipa::path(get, path = "/v1/topics", tag = "topics", responses(
    (status = 200, body = TopicRules),
))]
pub(super) async fn list(State(context): State<Arc<Context>>) -> Json<TopicRules> {
    let view = context.state.world.view();
    let shared = &context.state.shared;
    let (refused, held_back) = shared.held_back.read();
    let screens = shared.screens.load();
    let rules = view.catalog.topic_rules().map(|rule| TopicRuleInfo::new(rule, &view, shared, &screens)).collect();
    Json(TopicRules { rules, revision: view.catalog.head().rev, refused, held_back })
}

/// One rule.
#[utoipa::path(get, path = "/v1/topics/{name}", tag = "topics",
    params(("name" = String, Path, description = "Name of the rule")),
    responses(
        (status = 200, body = TopicRuleInfo),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn describe(
    State(context): State<Arc<Context>>,
    NamePath(name): NamePath,
) -> Result<Json<TopicRuleInfo>, Problem> {
    let view = context.state.world.view();
    let rule = view.catalog.topic_rule(&name).ok_or_else(|| {
        let message = format!("there is no topic rule `{name}`; list them with `myelin topic ls`");
        WorldError::new(Blame::NotFound, "not-found", message)
    })?;
    let shared = &context.state.shared;
    Ok(Json(TopicRuleInfo::new(rule, &view, shared, &shared.screens.load())))
}

/// Let a rule hold from now on, in place of the one of the same name.
#[utoipa::path(put, path = "/v1/topics/{name}", tag = "topics",
    params(
        ("name" = String, Path, description = "Name of the rule"),
        ("at-once" = Option<bool>, Query, description = "Also when it judges payloads by another schema than before, or of other topics, which is for a rollout where there are sites; never with `[admin] two_person`"),
        ("accept-failures" = Option<bool>, Query, description = "Also when its schema would turn back events that this router has recorded"),
        ("if-match" = Option<String>, Header, description = "Only when the catalog's revision is this one"),
    ),
    request_body = TopicRuleSpec,
    responses(
        (status = 204, description = "It holds"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The rule cannot be so"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "With `[admin] two_person` a rule that judges payloads comes by a rollout, where there are sites"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The subject has no version, or not the one that the rule names"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The catalog has another revision; or another schema is for a rollout, or would turn back recorded events"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Who may not see payloads has recorded events judged too often"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn apply(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    NamePath(name): NamePath,
    IfMatch(if_match): IfMatch,
    query: Result<Query<ApplyQuery>, QueryRejection>,
    Body(TopicRuleSpec { pattern, residency, schema }): Body<TopicRuleSpec>,
) -> Result<(StatusCode, RevisionTag), Problem> {
    let Query(ApplyQuery { at_once, accept_failures }) = query.map_err(|rejection| {
        let detail = format!("{}; the query may have at-once=true and accept-failures=true", rejection.body_text());
        Problem::new(StatusCode::BAD_REQUEST, "invalid-query", detail)
    })?;
    let world = &context.state.world;
    let rule = world.settle(TopicRule { name, pattern, residency, schema }).await?;
    let view = world.view();
    let before = view.catalog.topic_rule(&rule.name);
    let mut revision = view.catalog.head().rev;
    if before != Some(&rule) {
        let is_judged_anew = rule.judges_otherwise_than(before);
        let has_judged = before.is_some_and(|before| before.schema.is_some());
        let may_be_rolled_out = is_judged_anew && view.catalog.fleet().sites().next().is_some();
        if may_be_rolled_out && context.two_person {
            // Nor by removing the rule and setting it anew: what it is set to is what counts.
            return Err(not_alone(rule.name.as_str(), "as it is to be").into());
        }
        if may_be_rolled_out && has_judged && !at_once {
            return Err(rollout_needed(&rule).into());
        }
        let op = Op::TopicRuleSet { rule: Box::new(rule.clone()) };
        if is_judged_anew && !accept_failures {
            world.check_first(&op, if_match, &caller.actor).await?;
            let sees_payloads = rights::sees_payloads(caller.roles);
            let look = Look { actor: caller.actor.clone(), sees_payloads, subject: rule.name.to_string() };
            world.check_recorded(&look, vec![rule], view.catalog.schemas().clone()).await?;
        }
        revision = world.change(Change::Record(Box::new(op)), if_match, caller.actor).await?;
    }
    Ok((StatusCode::NO_CONTENT, revision_tag(revision)))
}

/// What a rule lets in is changed at one site after the other, and taken back by itself where that turns too much back.
fn rollout_needed(rule: &TopicRule) -> WorldError {
    let message = format!(
        "topic rule `{0}` would judge payloads otherwise than before at all sites at once: let a rollout bring it (`myelin rollout \
         start --only-changes --schema {0}`, or `--topics FILE`), or ask for it at once (`--at-once`)",
        rule.name
    );
    WorldError::new(Blame::Conflict, "rollout-needed", message)
}

/// Remove a rule.
#[utoipa::path(delete, path = "/v1/topics/{name}", tag = "topics",
    params(
        ("name" = String, Path, description = "Name of the rule"),
        ("if-match" = Option<String>, Header, description = "Only when the catalog's revision is this one"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The catalog has another revision"),
    ))]
pub(super) async fn remove(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    NamePath(name): NamePath,
    IfMatch(if_match): IfMatch,
) -> Result<(StatusCode, RevisionTag), Problem> {
    let change = Change::Record(Box::new(Op::TopicRuleRemoved { name }));
    let revision = context.state.world.change(change, if_match, actor).await?;
    Ok((StatusCode::NO_CONTENT, revision_tag(revision)))
}
