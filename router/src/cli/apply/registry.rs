//! The schemas that a router has, read as they are needed.

use super::state::{Reference, Subject};
use crate::cli::admin::Api;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::http::Body;
use crate::cli::schema::path;
use anyhow::Context;
use hyper::Method;
use myelin_catalog::{CompatibilityLevel, SchemaFormat, SubjectName};
use myelin_schema::limits::REFERENCES_MAX;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A name in a schema's text, and the text that it means.
pub(in crate::cli) type Named = (String, Arc<str>);

/// A version of a subject.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) format: SchemaFormat,
    pub(super) text: Arc<str>,
    /// With numbers of versions.
    pub(super) references: Vec<Reference>,
}

/// The same as the API writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    schema_type: Option<SchemaFormat>,
    schema: String,
    #[serde(default)]
    references: Vec<Reference>,
}

/// The registry of a router. What was read once is not asked for again.
#[derive(Debug)]
pub(in crate::cli) struct Registry<'a> {
    api: &'a Api,
    known: BTreeMap<(SubjectName, u32), Option<Arc<Version>>>,
}

impl<'a> Registry<'a> {
    pub(in crate::cli) fn new(api: &'a Api) -> Self {
        Self { api, known: BTreeMap::new() }
    }

    /// A version of a subject, if it is there.
    pub(super) async fn version(&mut self, subject: &SubjectName, number: u32) -> Result<Option<Arc<Version>>> {
        let key = (subject.clone(), number);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let path = path("subjects", subject, &format!("/versions/{number}"));
        let found = found(self.api.ask::<Written>(Method::GET, &path, Body::None).await)?.map(|written| {
            let Written { schema_type, schema, mut references } = written;
            references.sort();
            let format = schema_type.unwrap_or(SchemaFormat::Avro);
            Arc::new(Version { format, text: schema.into(), references })
        });
        self.known.insert(key, found.clone());
        Ok(found)
    }

    /// All texts that references to versions mean, directly or not, dependencies first, after those in `needed`.
    pub(in crate::cli) async fn texts(&mut self, references: &[Reference], needed: &mut Vec<Named>) -> Result<()> {
        // Each reference is looked at twice: to find what it needs itself, then to be added after that.
        let mut open: Vec<(Reference, bool)> = references.iter().rev().map(|one| (one.clone(), false)).collect();
        while let Some((reference, is_ready)) = open.pop() {
            if needed.iter().any(|(known, _)| *known == reference.name) {
                continue;
            }
            if needed.len() + open.len() > 2 * REFERENCES_MAX {
                let what = format!("a schema refers to more than {REFERENCES_MAX} others, directly or not");
                return Err(Failure::new(Exit::Usage, what));
            }
            let number = reference.version.unwrap_or_default();
            let version = self.version(&reference.subject, number).await?;
            let version =
                version.with_context(|| format!("version {number} of subject {} is gone", reference.subject))?;
            if is_ready {
                needed.push((reference.name, version.text.clone()));
            } else {
                open.push((reference, true));
                open.extend(version.references.iter().rev().map(|one| (one.clone(), false)));
            }
        }
        Ok(())
    }

    /// What a subject says of its own about compatibility.
    pub(super) async fn own_level(&self, subject: &SubjectName) -> Result<Option<CompatibilityLevel>> {
        let path = path("config", subject, "");
        let level = found(self.api.get(&path).await)?;
        Ok(level.and_then(|level| level["compatibilityLevel"].as_str()?.parse().ok()))
    }

    /// The version of a subject that a schema is already, if any.
    pub(super) async fn find(&self, subject: &SubjectName, body: Value) -> Result<Option<u32>> {
        let path = path("subjects", subject, "");
        let version: Option<Value> = found(self.api.ask(Method::POST, &path, Body::Json(body)).await)?;
        Ok(version.and_then(|version| version["version"].as_u64()?.try_into().ok()))
    }

    /// Ids of the schemas that refer to a version.
    pub(super) async fn referrers(&self, subject: &SubjectName, number: u32) -> Result<Vec<u32>> {
        let path = path("subjects", subject, &format!("/versions/{number}/referencedby"));
        self.api.ask(Method::GET, &path, Body::None).await
    }

    /// The id of a version.
    pub(super) async fn id(&self, subject: &SubjectName, number: u32) -> Result<u32> {
        let version = self.api.get(&path("subjects", subject, &format!("/versions/{number}"))).await?;
        let id = version["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        Ok(id.with_context(|| format!("version {number} of subject {subject} has no id"))?)
    }

    /// A version as a folder has it.
    pub(super) async fn subject(&mut self, subject: &SubjectName, number: u32) -> Result<Option<Subject>> {
        let Some(version) = self.version(subject, number).await? else { return Ok(None) };
        Ok(Some(Subject {
            format: version.format,
            text: version.text.to_string(),
            references: version.references.clone(),
            compatibility: self.own_level(subject).await?,
        }))
    }
}

/// What was found; that it is not there is no failure.
pub(super) fn found<T>(asked: Result<T>) -> Result<Option<T>> {
    match asked {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.is_absence() => Ok(None),
        Err(failure) => Err(failure),
    }
}
