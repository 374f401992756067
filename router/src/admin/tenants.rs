//! `/v1/tenants`: whose topics are whose, and what each may use. They hold at once, on every router that has the record.

use super::Context;
use super::access::{By, Caller};
use super::intake::{IfMatch, Json as Body, NamePath, RevisionTag, Warning, revision_tag, warning};
use super::problem::Problem;
use crate::config::{Role, Roles};
use crate::tenants::{Figures, Known, Tenants, check_reach, new_selectors, unmet_shares};
use crate::world::{Actor, Blame, Change, View, WorldError};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use myelin_catalog::{Op, Quota, ServiceSelector, Share, Tenant};
use myelin_wire::Topic;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// The tenants.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TenantList {
    tenants: Vec<TenantInfo>,
    /// The catalog's revision, for If-Match.
    revision: u64,
}

/// A tenant, and what it has used of this router.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TenantInfo {
    /// What it is called.
    name: String,
    /// Who belongs to it.
    services: Vec<String>,
    /// Its topics are this one and all below it.
    root: String,
    #[schema(value_type = QuotaSpec)]
    quota: Quota,
    #[schema(value_type = Vec<ShareSpec>)]
    shares: Vec<Share>,
    /// Bindings whose topics are its own, in the whole mesh.
    bindings: usize,
    usage: UsageInfo,
}

/// What a tenant has used of this router since its start.
#[derive(Debug, Default, Serialize, ToSchema)]
struct UsageInfo {
    /// Events published.
    events: u64,
    /// Bytes published.
    bytes: u64,
    /// CPU time that filters have spent on its events, in milliseconds.
    filter_ms: u64,
    /// Events that went to dead letters.
    dead_letters: u64,
    /// Events that were refused since its rate of dead letters was used up.
    dead_letters_refused: u64,
    /// Connections that are open.
    connections: u64,
    /// Connections that were refused.
    connections_refused: u64,
    /// How long its publishers were held back, all together, in milliseconds.
    paused_ms: u64,
}

impl From<Figures> for UsageInfo {
    fn from(figures: Figures) -> Self {
        Self {
            events: figures.events,
            bytes: figures.bytes,
            filter_ms: figures.filters_ns / 1_000_000,
            dead_letters: figures.dead_letters,
            dead_letters_refused: figures.dead_letters_refused,
            connections: figures.connections,
            connections_refused: figures.connections_refused,
            paused_ms: figures.paused_ns / 1_000_000,
        }
    }
}

/// What a tenant may use at each router; what is left away is not bounded.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the catalog's own type to readers of the API")]
struct QuotaSpec {
    /// Events published, per second.
    events_per_s: Option<u64>,
    /// Bytes published, per second.
    bytes_per_s: Option<u64>,
    /// Connections at a time.
    connections: Option<u64>,
    /// CPU time of filters for its events, in milliseconds per second.
    filter_ms_per_s: Option<u64>,
    /// Bindings whose topics are its own, in the whole mesh.
    bindings: Option<u64>,
    /// Events that go to dead letters, per second.
    dead_letters_per_s: Option<u64>,
}

/// Topics of a tenant that others may use.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the catalog's own type to readers of the API")]
struct ShareSpec {
    /// The topics, all of its own.
    #[schema(example = "acme/news/**")]
    topics: String,
    /// Tenants by name, `BEGINNING*`, or `*` for everybody.
    with: Vec<String>,
    /// `subscribe` (where nothing is said), `publish`, or `both`.
    access: Option<String>,
}

/// What a tenant is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantSpec {
    /// Who belongs to it: names of services, or `BEGINNING*`.
    #[schema(value_type = Vec<String>, example = json!(["spiffe://acme.example/*"]))]
    services: Vec<ServiceSelector>,
    /// Its topics are this one and all below it; the tenant's name where nothing is said.
    #[schema(value_type = Option<String>)]
    root: Option<Topic>,
    /// What it may use.
    #[serde(default)]
    #[schema(value_type = Option<QuotaSpec>)]
    quota: Quota,
    /// Topics of its own that others may use.
    #[serde(default)]
    #[schema(value_type = Option<Vec<ShareSpec>>)]
    shares: Vec<Share>,
}

impl TenantInfo {
    fn new(tenant: &Tenant, view: &View, tenants: &Tenants) -> Self {
        let usage = |known: &Known| UsageInfo::from(known.usage.figures());
        Self {
            name: tenant.name.to_string(),
            services: tenant.services.iter().map(ToString::to_string).collect(),
            root: tenant.root.to_string(),
            quota: tenant.quota,
            shares: tenant.shares.clone(),
            bindings: view.catalog.bindings_of(tenant),
            usage: tenants.find(tenant.name.as_str()).map(usage).unwrap_or_default(),
        }
    }
}

/// All tenants, and what they have used of this router.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", responses((status = 200, body = TenantList)))]
pub(super) async fn list(State(context): State<Arc<Context>>) -> Json<TenantList> {
    let (view, rules) = (context.state.world.view(), context.state.shared.rules.load());
    let tenants = view.catalog.tenants().map(|tenant| TenantInfo::new(tenant, &view, rules.tenants())).collect();
    Json(TenantList { tenants, revision: view.catalog.head().rev })
}

/// One tenant.
#[utoipa::path(get, path = "/v1/tenants/{name}", tag = "tenants",
    params(("name" = String, Path, description = "Name of the tenant")),
    responses(
        (status = 200, body = TenantInfo),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn describe(
    State(context): State<Arc<Context>>,
    NamePath(name): NamePath,
) -> Result<Json<TenantInfo>, Problem> {
    let (view, rules) = (context.state.world.view(), context.state.shared.rules.load());
    let tenant = view.catalog.tenant(&name).ok_or_else(|| {
        let message = format!("there is no tenant `{name}`; list them with `myelin tenant ls`");
        WorldError::new(Blame::NotFound, "not-found", message)
    })?;
    Ok(Json(TenantInfo::new(tenant, &view, rules.tenants())))
}

/// Let a tenant be as said from now on, in place of the one of the same name. Sessions whose tenant is another one by that
/// are ended, and connect again.
#[utoipa::path(put, path = "/v1/tenants/{name}", tag = "tenants",
    params(
        ("name" = String, Path, description = "Name of the tenant"),
        ("if-match" = Option<String>, Header, description = "Only when the catalog's revision is this one"),
    ),
    request_body = TenantSpec,
    responses(
        (status = 204, description = "It holds. The header `Warning` names tenants that it shares with and that there are not"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The tenant cannot be so"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Another tenant has these services or topics, or the catalog has another revision"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn apply(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    Extension(caller): Extension<Caller>,
    NamePath(name): NamePath,
    IfMatch(if_match): IfMatch,
    Body(TenantSpec { services, root, quota, shares }): Body<TenantSpec>,
) -> Result<(StatusCode, Warning, RevisionTag), Problem> {
    let root = match root {
        Some(root) => root,
        None => Topic::new(name.as_str())
            .map_err(|error| WorldError::new(Blame::Request, "invalid-topic", error.to_string()))?,
    };
    let tenant = Tenant { name, services, root, quota, shares };
    let view = context.state.world.view();
    let before = view.catalog.tenant(&tenant.name);
    let mut revision = view.catalog.head().rev;
    let unmet = unmet_shares(&tenant, |name| view.catalog.tenants().any(|tenant| tenant.name.as_str() == name));
    if before != Some(&tenant) {
        check_services(&tenant, before, &caller)?;
        let change = Change::Record(Box::new(Op::TenantSet { tenant: Box::new(tenant) }));
        revision = context.state.world.change(change, if_match, actor).await?;
    }
    Ok((StatusCode::NO_CONTENT, warning(unmet), revision_tag(revision)))
}

/// Checks that each new selector could fit a service, fits those of one trust domain at most, and does not fit whoever asks:
/// nobody of a tenant changes one, so that they could not take it back. What the tenant `before` had may stay.
fn check_services(tenant: &Tenant, before: Option<&Tenant>, caller: &Caller) -> Result<(), Problem> {
    let refuse = |selector: &ServiceSelector, why: String| {
        let message = format!("tenant {}: services: `{selector}` {why}", tenant.name);
        Err(WorldError::new(Blame::Request, "invalid-tenant", message).into())
    };
    let is_somebody = matches!(caller.by, By::Certificate | By::Jwt(_));
    let may_be_taken = is_somebody && !caller.roles.meets(Roles::of(&[Role::Admin]));
    let name = caller.actor.to_string();
    for selector in new_selectors(tenant, before) {
        if let Err(why) = check_reach(selector) {
            return refuse(selector, why);
        }
        let takes = match selector.beginning() {
            Some(beginning) => name.starts_with(beginning),
            None => name == selector.as_str(),
        };
        if may_be_taken && takes {
            let why = format!(
                "would take in {name}, who asks for it, and nobody of a tenant may change tenants: say the others more \
                 exactly, or let the role admin do it"
            );
            return refuse(selector, why);
        }
    }
    Ok(())
}

/// Remove a tenant: its services are without one, and its topics everybody's, as far as the policies permit.
#[utoipa::path(delete, path = "/v1/tenants/{name}", tag = "tenants",
    params(
        ("name" = String, Path, description = "Name of the tenant"),
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
    let change = Change::Record(Box::new(Op::TenantRemoved { name }));
    let revision = context.state.world.change(change, if_match, actor).await?;
    Ok((StatusCode::NO_CONTENT, revision_tag(revision)))
}
