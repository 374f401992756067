//! What the catalog has now, as a router tells it.

use super::state::{Kind, State};
use crate::cli::admin::{Api, binding_alone};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::listing::{items, text};
use crate::world::members::place;
use anyhow::Context;
use myelin_catalog::{Binding, CompatibilityLevel, Name, SubjectName, Tenant, TopicRule};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How often the catalog is read anew because it changed meanwhile.
const READS_MAX: usize = 5;

/// What the catalog has, without texts of schemas.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// Everything but schemas.
    pub(super) state: State,
    pub(super) subjects: BTreeMap<SubjectName, Versions>,
    /// What new versions must be compatible with, and may be done, where a subject says nothing of its own.
    pub(super) default_level: Option<CompatibilityLevel>,
    pub(super) default_mode: String,
    /// The bindings that the next rollout would add, change or remove.
    pub(super) inactive: BTreeSet<Name>,
    /// The sites of the mesh; none at a router that is alone.
    pub(super) sites: Vec<Site>,
    /// The catalog's revision at which all of this is so.
    pub(super) revision: u64,
}

/// A site of the mesh.
#[derive(Debug, Deserialize)]
pub(super) struct Site {
    pub(super) name: Name,
    pub(super) region: Name,
    pub(super) cloud: Name,
}

/// The versions of a subject that are not deleted.
#[derive(Debug, Deserialize)]
pub(super) struct Versions {
    pub(super) versions: Vec<u32>,
    /// What its next version must be compatible with.
    pub(super) compatibility: CompatibilityLevel,
    pub(super) mode: String,
}

impl Versions {
    pub(super) fn latest(&self) -> Option<u32> {
        self.versions.last().copied()
    }
}

impl Current {
    /// The names of the sites at which events may be by one of these rules.
    pub(super) fn sites_of(&self, rules: &[&TopicRule]) -> Vec<String> {
        let is_meant = |site: &&Site| {
            rules.iter().any(|rule| rule.residency.allows(site.name.as_str(), place(&site.region), place(&site.cloud)))
        };
        self.sites.iter().filter(is_meant).map(|site| site.name.to_string()).collect()
    }

    /// The newest version of a subject that is not deleted.
    pub(super) fn latest(&self, subject: &SubjectName) -> Option<u32> {
        self.subjects.get(subject)?.latest()
    }

    /// What the next version of a subject must be compatible with.
    pub(super) fn level(&self, subject: &SubjectName) -> CompatibilityLevel {
        let own = self.subjects.get(subject).map(|subject| subject.compatibility);
        own.or(self.default_level).unwrap_or(CompatibilityLevel::Backward)
    }

    /// What may be done in a subject.
    pub(super) fn mode(&self, subject: &SubjectName) -> &str {
        self.subjects.get(subject).map_or(&self.default_mode, |subject| &subject.mode)
    }

    /// Names of the things of a kind.
    pub(super) fn names(&self, kind: Kind) -> Vec<String> {
        match kind {
            Kind::Tenant => self.state.tenants.keys().map(ToString::to_string).collect(),
            Kind::Topic => self.state.topics.keys().map(ToString::to_string).collect(),
            Kind::Policy => self.state.policies.keys().map(ToString::to_string).collect(),
            Kind::Binding => self.state.bindings.keys().map(ToString::to_string).collect(),
            Kind::Schema => {
                let live = self.subjects.iter().filter(|(_, subject)| !subject.versions.is_empty());
                live.map(|(name, _)| name.to_string()).collect()
            }
        }
    }
}

/// The catalog's revision.
pub(super) async fn revision(api: &Api) -> Result<u64> {
    let bindings = api.get("/v1/bindings").await?;
    Ok(bindings["revision"].as_u64().context("the answer of /v1/bindings has no revision")?)
}

/// Reads the catalog, all of it at one revision.
pub(super) async fn read(api: &Api) -> Result<Current> {
    for _ in 0..READS_MAX {
        let current = read_once(api).await?;
        if revision(api).await? == current.revision {
            return Ok(current);
        }
    }
    Err(Failure::new(Exit::Conflict, format!("the catalog changed {READS_MAX} times while it was read"))
        .next("run this again when nobody else changes it"))
}

async fn read_once(api: &Api) -> Result<Current> {
    let bindings = api.get("/v1/bindings").await?;
    let (topics, policies, schemas) =
        (api.get("/v1/topics").await?, api.get("/v1/policies").await?, api.get("/v1/schemas").await?);
    let tenants = api.get("/v1/tenants").await?;
    let mut current = Current {
        default_level: schemas["compatibility"].as_str().and_then(|level| level.parse().ok()),
        default_mode: text(&schemas["mode"]),
        revision: bindings["revision"].as_u64().context("the answer of /v1/bindings has no revision")?,
        ..Current::default()
    };
    let state = &mut current.state;
    for tenant in items(&tenants, "tenants") {
        let tenant: Tenant = understood("tenants", pick(tenant, &["name", "services", "root", "quota", "shares"]))?;
        state.tenants.insert(tenant.name.clone(), tenant);
    }
    for rule in items(&topics, "rules") {
        let fields = pick(rule, &["name", "pattern", "residency", "schema"]);
        let rule: TopicRule = understood("topics", fields)?;
        state.topics.insert(rule.name.clone(), rule);
    }
    for policy in items(&policies, "policies") {
        state.policies.insert(understood("policies", policy["name"].clone())?, text(&policy["text"]));
    }
    for binding in items(&bindings, "bindings") {
        let (binding, is_leaving, is_active) = read_binding(binding)?;
        if !is_active {
            current.inactive.insert(binding.name.clone());
        }
        if !is_leaving {
            state.bindings.insert(binding.name.clone(), binding);
        }
    }
    for site in items(&api.get("/v1/mesh/sites").await?, "sites") {
        current.sites.push(understood("mesh/sites", pick(site, &["name", "region", "cloud"]))?);
    }
    for subject in items(&schemas, "subjects") {
        let name = understood("schemas", subject["name"].clone())?;
        let versions = pick(subject, &["versions", "compatibility", "mode"]);
        current.subjects.insert(name, understood("schemas", versions)?);
    }
    Ok(current)
}

/// A binding as it is staged, whether it is leaving, and whether it is active as it is staged.
fn read_binding(binding: &Value) -> Result<(Binding, bool, bool)> {
    let state = text(&binding["state"]);
    let mut binding: Binding = understood("bindings", binding_alone(binding))?;
    binding.config.sort_all_objects();
    Ok((binding, state == "leaving", state == "active"))
}

fn pick(value: &Value, names: &[&str]) -> Value {
    let known = names.iter().filter(|name| !value[**name].is_null());
    json!(known.map(|name| ((*name).to_owned(), value[*name].clone())).collect::<serde_json::Map<_, _>>())
}

fn understood<T: DeserializeOwned>(path: &str, value: Value) -> Result<T> {
    let told = || format!("the answer of /v1/{path} is not as this version of the command line expects it");
    Ok(serde_json::from_value(value).with_context(told)?)
}
