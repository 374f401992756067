//! `/v1/policies`: who may publish and subscribe. They hold at once, on every router that has the record.

use super::Context;
use super::intake::{IfMatch, Json as Body, NamePath, RevisionTag, revision_tag};
use super::problem::Problem;
use crate::policy::{Asked, PolicyEvent, asked, named};
use crate::world::{Actor, Blame, Change, View, WorldError};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use myelin_catalog::{Op, Policy};
use myelin_policy::{Action, Decision, Policies, Service, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// The policies, and what holds where they are silent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PolicyList {
    policies: Vec<PolicyInfo>,
    /// The catalog's revision, for If-Match.
    revision: u64,
    /// `deny`, `allow` or `allow-until-first`, as this router's configuration says.
    default: String,
    /// Whether that of which no policy speaks is allowed now.
    allows_unspoken: bool,
    /// Statements that hold at this router.
    statements: usize,
    /// What was denied at this router since its start, by action.
    denials: BTreeMap<String, u64>,
    /// Copies that were withheld at this router since its start.
    withheld: u64,
}

/// A policy.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PolicyInfo {
    /// What it is called.
    name: String,
    /// Its statements, in Cedar.
    text: String,
}

/// What a policy says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicySpec {
    /// Its statements, in Cedar.
    #[schema(example = "permit (principal, action == Action::\"subscribe\", resource);")]
    text: String,
}

/// How a policy is applied.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyQuery {
    #[serde(default, rename = "dry-run")]
    dry_run: bool,
}

/// Whether somebody may do something.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyQuestion {
    /// Who: a service's SPIFFE name.
    #[schema(example = "spiffe://example.org/service/billing")]
    principal: String,
    /// What: `publish`, `request`, `reply` or `subscribe`.
    #[schema(example = "publish")]
    action: String,
    /// With which topic, or pattern.
    #[schema(example = "orders/eu/1")]
    resource: String,
    /// At which site; this router's where none is given.
    site: Option<String>,
    /// The groups of the service's token.
    #[serde(default)]
    groups: Vec<String>,
    /// The event that it is about: where policies look at events.
    event: Option<PolicyEvent>,
}

/// Whether somebody may, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PolicyAnswer {
    /// Whether it is allowed.
    allowed: bool,
    /// What the policies say: `permit`, `forbid`, `silent`, or `by-event` where they look at each event and none was given.
    verdict: String,
    /// The tenant of the principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// Why it is denied whatever the policies say: the topic is not for that tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    foreign: Option<String>,
    /// The statements that decided, as `NAME#NUMBER`; none where the default did.
    reasons: Vec<String>,
    /// `deny`, `allow` or `allow-until-first`, as this router's configuration says: what holds where no policy speaks.
    default: String,
}

/// All policies, and what they have denied at this router.
#[utoipa::path(get, path = "/v1/policies", tag = "policies", responses(
    (status = 200, body = PolicyList),
))]
pub(super) async fn list(State(context): State<Arc<Context>>) -> Json<PolicyList> {
    let (view, shared) = (context.state.world.view(), &context.state.shared);
    let rules = shared.rules.load();
    let policies = view.catalog.policies().map(|policy| PolicyInfo::new(policy)).collect();
    let denials = shared.denials.by_action().into_iter().map(|(action, count)| (action.to_owned(), count));
    Json(PolicyList {
        policies,
        revision: view.catalog.head().rev,
        default: rules.default_name().to_owned(),
        allows_unspoken: rules.allows_unspoken(),
        statements: rules.statements(),
        denials: denials.collect(),
        withheld: shared.denials.withheld(),
    })
}

/// One policy.
#[utoipa::path(get, path = "/v1/policies/{name}", tag = "policies",
    params(("name" = String, Path, description = "Name of the policy")),
    responses(
        (status = 200, body = PolicyInfo),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn describe(
    State(context): State<Arc<Context>>,
    NamePath(name): NamePath,
) -> Result<Json<PolicyInfo>, Problem> {
    let view = context.state.world.view();
    let policy = view.catalog.policy(&name).ok_or_else(|| {
        let message = format!("there is no policy `{name}`; list them with `myelin policy ls`");
        WorldError::new(Blame::NotFound, "not-found", message)
    })?;
    Ok(Json(PolicyInfo::new(policy)))
}

/// Let a policy hold from now on, in place of the one of the same name. All policies are compiled together before
/// anything is written: what does not type-check changes nothing.
#[utoipa::path(put, path = "/v1/policies/{name}", tag = "policies",
    params(
        ("name" = String, Path, description = "Name of the policy"),
        ("dry-run" = Option<bool>, Query, description = "Only check it"),
        ("if-match" = Option<String>, Header, description = "Only when the catalog's revision is this one"),
    ),
    request_body = PolicySpec,
    responses(
        (status = 204, description = "It holds; or could, with dry-run"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The policy cannot be so"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The catalog has another revision"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn apply(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    NamePath(name): NamePath,
    query: Result<Query<ApplyQuery>, QueryRejection>,
    IfMatch(if_match): IfMatch,
    Body(PolicySpec { text }): Body<PolicySpec>,
) -> Result<(StatusCode, RevisionTag), Problem> {
    let Query(ApplyQuery { dry_run }) = query.map_err(|rejection| {
        let detail = format!("{}; the query may have dry-run=true", rejection.body_text());
        Problem::new(StatusCode::BAD_REQUEST, "invalid-query", detail)
    })?;
    let (policy, world) = (Policy { name, text }, &context.state.world);
    let mut revision = world.view().catalog.head().rev;
    if dry_run {
        policy.validate().map_err(WorldError::from)?;
        let view = world.view();
        let others = view.catalog.policies().filter(|other| other.name != policy.name);
        let texts = others.map(|other| (other.name.as_str(), &*other.text));
        Policies::compile(texts.chain([(policy.name.as_str(), &*policy.text)]))
            .map_err(|errors| WorldError::new(Blame::Request, errors.code(), errors.to_string()))?;
        if view.catalog.policy(&policy.name) != Some(&policy) {
            named::check_names(policy.name.as_str(), &policy.text)
                .map_err(|why| WorldError::new(Blame::Request, named::CODE, why))?;
        }
    } else if world.view().catalog.policy(&policy.name) != Some(&policy) {
        revision = world.change(Change::Record(Box::new(Op::PolicySet { policy })), if_match, actor).await?;
    }
    Ok((StatusCode::NO_CONTENT, revision_tag(revision)))
}

/// Remove a policy.
#[utoipa::path(delete, path = "/v1/policies/{name}", tag = "policies",
    params(
        ("name" = String, Path, description = "Name of the policy"),
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
    let change = Change::Record(Box::new(Op::PolicyRemoved { name }));
    let revision = context.state.world.change(change, if_match, actor).await?;
    Ok((StatusCode::NO_CONTENT, revision_tag(revision)))
}

/// Whether somebody may do something at this router, and which policies say so.
#[utoipa::path(post, path = "/v1/policies/explain", tag = "policies", request_body = PolicyQuestion, responses(
    (status = 200, body = PolicyAnswer),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "The question is none"),
))]
pub(super) async fn explain(
    State(context): State<Arc<Context>>,
    Body(question): Body<PolicyQuestion>,
) -> Result<Json<PolicyAnswer>, Problem> {
    let action: Action =
        question.action.parse().map_err(|why: String| WorldError::new(Blame::Request, "invalid-action", why))?;
    asked::check(&question.principal, action, &question.resource)
        .map_err(|why| WorldError::new(Blame::Request, "invalid-question", why))?;
    known_site(&context.state.world.view(), question.site.as_deref())?;
    let rules = context.state.shared.rules.load();
    let service = Service::new(question.principal).with_groups(question.groups.iter().map(|group| &**group));
    let event = question.event.as_ref().map(PolicyEvent::head);
    let asked = Asked { service: &service, action, topic: &question.resource, event: event.as_ref() };
    let Decision { verdict, reasons } = rules.decide(&asked, question.site.as_deref());
    let told = match verdict {
        Verdict::Permit => "permit",
        Verdict::Forbid => "forbid",
        Verdict::Silent => "silent",
        Verdict::ByEvent { .. } => "by-event",
    };
    let foreign = rules.tenants().check(&service, action, &question.resource).err().map(|foreign| foreign.to_string());
    let tenant = rules.tenants().of(&service).map(|known| known.tenant.name.to_string());
    let (allowed, default) = (foreign.is_none() && rules.allow(verdict), rules.default_name().to_owned());
    Ok(Json(PolicyAnswer { allowed, verdict: told.to_owned(), tenant, foreign, reasons, default }))
}

/// A site is one of the catalog's, where that has any: a router by itself has only its own.
fn known_site(view: &View, site: Option<&str>) -> Result<(), WorldError> {
    let names: Vec<_> = view.catalog.fleet().sites().map(|site| site.name.as_str()).collect();
    match site {
        Some(site) if !names.is_empty() && !names.contains(&site) => {
            let message = format!("there is no site `{site}`; there are {}", names.join(", "));
            Err(WorldError::new(Blame::Request, "invalid-question", message))
        }
        _ => Ok(()),
    }
}

impl PolicyInfo {
    fn new(policy: &Policy) -> Self {
        Self { name: policy.name.to_string(), text: policy.text.clone() }
    }
}
