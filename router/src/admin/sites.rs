//! `/v1/mesh/sites`: who belongs to the mesh.

use super::Context;
use super::fleet::record;
use super::intake::{InPath, Json as Body, NamePath, RevisionTag, revision_tag};
use super::problem::Problem;
use crate::world::{Actor, SharedLogStatus, members};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use myelin_catalog::{Name, Op};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// The sites of the mesh.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SiteList {
    sites: Vec<SiteInfo>,
    /// `[mesh] members` that give everybody these numbers: for a router that was added and joins. Places whose numbers
    /// nobody has any more are kept by other names, and by sites without routers.
    members: Vec<String>,
    /// The key with which the signed part of the catalog begins: `[catalog] root_key` of other routers.
    root_key: Option<String>,
    /// Alarms of the catalog by code since the start, such as `catalog-fork`.
    alarms: std::collections::BTreeMap<String, u64>,
    /// How the log that all routers share stands; none where one router writes it.
    shared_log: Option<SharedLog>,
}

/// The log that all routers share.
#[derive(Debug, Serialize, ToSchema)]
struct SharedLog {
    /// Why this router does not reach it; none where it does.
    problem: Option<String>,
    /// The router that controls rollouts, as `SITE/ROUTER`, where this one knows.
    controller: Option<String>,
}

/// A site.
#[derive(Debug, Serialize, ToSchema)]
struct SiteInfo {
    name: String,
    /// Its number, which is never used again.
    number: u16,
    region: String,
    cloud: String,
    /// The generation that judges events there.
    generation: u64,
    /// Its routers, with their numbers.
    routers: Vec<RouterInfo>,
}

/// A router of a site.
#[derive(Debug, Serialize, ToSchema)]
struct RouterInfo {
    name: String,
    number: u32,
}

/// Where a new site is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteSpec {
    /// Its region, for rules of residency.
    #[serde(default = "unset")]
    #[schema(value_type = String)]
    region: Name,
    /// Whose machines it runs on, for rules of residency.
    #[serde(default = "unset")]
    #[schema(value_type = String)]
    cloud: Name,
}

fn unset() -> Name {
    "unset".parse().expect("it is a name")
}

/// The sites of the mesh and their routers, as the catalog names them.
#[utoipa::path(get, path = "/v1/mesh/sites", tag = "mesh", responses(
    (status = 200, body = SiteList),
))]
pub(super) async fn sites(State(context): State<Arc<Context>>) -> Json<SiteList> {
    let view = context.state.world.view();
    let fleet = view.catalog.fleet();
    let sites = fleet.sites().map(|site| SiteInfo {
        name: site.name.to_string(),
        number: site.number,
        region: site.region.to_string(),
        cloud: site.cloud.to_string(),
        generation: view.catalog.active_for(&site.name).number,
        routers: fleet
            .routers_of(&site.name)
            .map(|router| RouterInfo { name: router.name.to_string(), number: router.number })
            .collect(),
    });
    let root_key = view.catalog.keys().root().map(|key| key.to_string());
    let shared_log = context.state.world.shared_log();
    let shared_log = shared_log.map(|SharedLogStatus { problem, controller }| SharedLog { problem, controller });
    let members = members::listed(fleet);
    Json(SiteList { sites: sites.collect(), members, root_key, alarms: view.alarms.clone(), shared_log })
}

/// Add a site to the mesh. Its routers are added one by one.
#[utoipa::path(put, path = "/v1/mesh/sites/{name}", tag = "mesh",
    params(("name" = String, Path, description = "The site's name, a DNS label")),
    request_body(content = SiteSpec),
    responses(
        (status = 204, description = "It is there"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It was there, or a rollout is under way"),
    ))]
pub(super) async fn add_site(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    NamePath(name): NamePath,
    Body(SiteSpec { region, cloud }): Body<SiteSpec>,
) -> Result<(StatusCode, RevisionTag), Problem> {
    record(&context, actor, Op::SiteAdded { name, region, cloud }).await
}

/// Where a site is that is there. What is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteChange {
    /// Its region, for rules of residency.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    region: Option<Name>,
    /// Whose machines it runs on, for rules of residency.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    cloud: Option<Name>,
}

/// Say where a site is that is there, such as one that the configuration named at the beginning. It keeps its number and its
/// routers; rules of residency go by it at once.
#[utoipa::path(patch, path = "/v1/mesh/sites/{name}", tag = "mesh",
    params(("name" = String, Path, description = "The site's name")),
    request_body(content = SiteChange),
    responses(
        (status = 204, description = "It is there, everywhere"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "It changes nothing"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such site"),
    ))]
pub(super) async fn move_site(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    NamePath(name): NamePath,
    Body(SiteChange { region, cloud }): Body<SiteChange>,
) -> Result<(StatusCode, RevisionTag), Problem> {
    if region.is_none() && cloud.is_none() {
        let detail = "it says neither `region` nor `cloud`; give one of them";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-body", detail.to_owned()));
    }
    let view = context.state.world.view();
    let site = view.catalog.fleet().site(&name).ok_or_else(|| {
        Problem::not_found(format!("there is no site `{name}`; `myelin site ls` shows those that there are"))
    })?;
    let (region, cloud) = (region.unwrap_or_else(|| site.region.clone()), cloud.unwrap_or_else(|| site.cloud.clone()));
    if (&region, &cloud) == (&site.region, &site.cloud) {
        return Ok((StatusCode::NO_CONTENT, revision_tag(view.catalog.head().rev)));
    }
    record(&context, actor, Op::SiteMoved { name, region, cloud }).await
}

/// Remove a site without routers from the mesh.
#[utoipa::path(delete, path = "/v1/mesh/sites/{name}", tag = "mesh",
    params(("name" = String, Path, description = "The site's name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It has routers, or a rollout is under way"),
    ))]
pub(super) async fn remove_site(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    NamePath(name): NamePath,
) -> Result<(StatusCode, RevisionTag), Problem> {
    record(&context, actor, Op::SiteRemoved { name }).await
}

/// Add a router to a site. Every router of the mesh takes links from it from then on.
#[utoipa::path(put, path = "/v1/mesh/sites/{site}/routers/{router}", tag = "mesh",
    params(("site" = String, Path, description = "The site"), ("router" = String, Path, description = "The router's name at its site, as in its certificate")),
    responses(
        (status = 204, description = "It is there"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such site"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It was there"),
    ))]
pub(super) async fn add_router(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    InPath((site, router)): InPath<(String, String)>,
) -> Result<(StatusCode, RevisionTag), Problem> {
    let (site, name) = (site.parse()?, router.parse()?);
    record(&context, actor, Op::RouterAdded { site, name }).await
}

/// Remove a router that is gone for good. Links to it are closed, and its number is never used again.
#[utoipa::path(delete, path = "/v1/mesh/sites/{site}/routers/{router}", tag = "mesh",
    params(("site" = String, Path, description = "The site"), ("router" = String, Path, description = "The router's name at its site")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn remove_router(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    InPath((site, router)): InPath<(String, String)>,
) -> Result<(StatusCode, RevisionTag), Problem> {
    let (site, name) = (site.parse()?, router.parse()?);
    record(&context, actor, Op::RouterRemoved { site, name }).await
}
