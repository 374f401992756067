//! What changes of schemas: judged here, before anything is registered, with what the router has.

use super::current::Current;
use super::folder::Folder;
use super::plan::{Action, By, Call, Change, Plan};
use super::registry::{Named, Registry, Version};
use super::state::{Kind, Reference, Subject};
use crate::cli::failure::Result;
use crate::cli::http::wishing;
use crate::cli::schema::path;
use crate::registry::judged_as;
use myelin_catalog::{CompatibilityLevel, SchemaFormat, SubjectName};
use myelin_schema::{Compatibility, ReferenceText, Source};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a subject's newest version will be.
#[derive(Clone, Debug)]
enum Newest {
    /// One that is there.
    There(u32),
    /// The folder's, which is registered.
    Registered,
}

/// Judges the schemas of a folder, in an order in which each comes after those that it refers to.
pub(super) struct Judge<'a> {
    folder: &'a Folder,
    current: &'a Current,
    registry: Registry<'a>,
    newest: BTreeMap<SubjectName, Newest>,
    /// What the folder's schemas refer to, directly or not.
    needed: BTreeMap<SubjectName, Vec<Named>>,
    /// Whether versions are registered that rules follow, and that would turn recorded events back.
    accept_failures: bool,
    /// What stands against the whole.
    pub(super) faults: Vec<String>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(folder: &'a Folder, current: &'a Current, registry: Registry<'a>, accept_failures: bool) -> Self {
        let (newest, needed, faults) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { folder, current, registry, newest, needed, accept_failures, faults }
    }

    /// Adds what changes to the plan.
    pub(super) async fn judge(&mut self, plan: &mut Plan) -> Result<()> {
        let folder = self.folder;
        let (order, circle) = in_order(&folder.state.schemas);
        for subject in circle {
            self.fault(subject, "it refers to itself, through what it refers to; take one of the references out");
        }
        for subject in order {
            let schema = &folder.state.schemas[subject];
            match self.judge_one(subject, schema, &mut plan.remarks).await? {
                Some(change) => plan.changes.push(change),
                None => plan.unchanged += 1,
            }
        }
        Ok(())
    }

    fn fault(&mut self, subject: &SubjectName, why: impl std::fmt::Display) {
        self.faults.push(format!("{}: {why}", self.folder.file(Kind::Schema, subject.as_str())));
    }

    async fn judge_one(
        &mut self,
        subject: &SubjectName,
        schema: &Subject,
        remarks: &mut Vec<String>,
    ) -> Result<Option<Change>> {
        // Should it fail, what refers to it is still judged by its text.
        self.newest.insert(subject.clone(), Newest::Registered);
        let (references, needed) = self.resolve(subject, schema).await?;
        let new = Text { format: schema.format, text: &schema.text, needed: &needed };
        let canonical = new.with(|source| myelin_schema::check(source).and_then(|()| myelin_schema::canonical(source)));
        self.needed.insert(subject.clone(), needed.clone());
        let canonical = match canonical {
            Ok(canonical) => canonical,
            Err(error) => {
                self.fault(subject, error);
                return Ok(None);
            }
        };
        let level = schema.compatibility.unwrap_or_else(|| self.current.level(subject));
        let sets_level = match schema.compatibility {
            Some(_) => self.registry.own_level(subject).await? != schema.compatibility,
            None => false,
        };
        let settled = self.settled(subject, &references, schema.format, &canonical, remarks).await?;
        if let Some(number) = settled {
            self.newest.insert(subject.clone(), Newest::There(number));
        } else {
            self.judge_next(subject, &new, level).await?;
        }
        Ok(self.change(subject, schema, settled, sets_level.then_some(level)))
    }

    /// References with the versions that they mean, where these are there; and all texts that are needed.
    async fn resolve(&mut self, subject: &SubjectName, schema: &Subject) -> Result<(Vec<Reference>, Vec<Named>)> {
        let (mut references, mut needed) = (Vec::new(), Vec::new());
        for reference in &schema.references {
            let of_folder = self.folder.state.schemas.get(&reference.subject);
            let version = match (reference.version, self.newest.get(&reference.subject), of_folder) {
                (Some(number), _, _) => Some(number),
                (None, Some(Newest::Registered), Some(other)) => {
                    let inner = self.needed.get(&reference.subject).cloned().unwrap_or_default();
                    let own = [(reference.name.clone(), Arc::from(&*other.text))];
                    for named in inner.into_iter().chain(own) {
                        if needed.iter().all(|(known, _): &Named| *known != named.0) {
                            needed.push(named);
                        }
                    }
                    references.push(reference.clone());
                    continue;
                }
                (None, Some(Newest::There(number)), _) => Some(*number),
                (None, _, _) => self.current.latest(&reference.subject),
            };
            let resolved = Reference { version, ..reference.clone() };
            let is_there = match version {
                Some(number) => self.registry.version(&reference.subject, number).await?.is_some(),
                None => false,
            };
            if is_there {
                self.registry.texts(std::slice::from_ref(&resolved), &mut needed).await?;
                references.push(resolved);
            } else {
                let Reference { name, subject: other, .. } = reference;
                let number = version.map(|number| format!(" version {number}")).unwrap_or_default();
                self.fault(subject, format!("`{name}` is to be subject {other}{number}, which is not there"));
            }
        }
        Ok((references, needed))
    }

    /// The version that the schema is already.
    async fn settled(
        &mut self,
        subject: &SubjectName,
        references: &[Reference],
        format: SchemaFormat,
        canonical: &str,
        remarks: &mut Vec<String>,
    ) -> Result<Option<u32>> {
        let Some(latest) = self.current.latest(subject) else { return Ok(None) };
        // A reference to what is not there yet is none that the newest version has.
        if references.iter().any(|reference| reference.version.is_none()) {
            return Ok(None);
        }
        let Some(version) = self.registry.version(subject, latest).await? else { return Ok(None) };
        let old = self.text(&version).await?;
        let same = version.format == format
            && version.references == references
            && old.as_text().with(myelin_schema::canonical).is_ok_and(|old| old == canonical);
        if same {
            return Ok(Some(latest));
        }
        let schema = &self.folder.state.schemas[subject];
        let found = self.registry.find(subject, body(schema, references)).await?;
        if let Some(number) = found {
            remarks.push(format!(
                "subject {subject} has this schema as version {number}, and its newest is {latest}: a schema that is there \
                 is not registered again"
            ));
        }
        Ok(found)
    }

    /// Whether the schema can be the next version.
    async fn judge_next(&mut self, subject: &SubjectName, new: &Text<'_>, level: CompatibilityLevel) -> Result<()> {
        let mode = self.current.mode(subject);
        if !["", "READWRITE"].contains(&mode) {
            let why =
                format!("the subject's mode is {mode}: set it with `myelin schema config {subject} --mode readwrite`");
            self.fault(subject, why);
        }
        let level: Compatibility = match level.as_str().parse() {
            Ok(level) => level,
            Err(error) => {
                self.fault(subject, error);
                return Ok(());
            }
        };
        let mut older = Vec::new();
        for version in self.looked_at(subject, level).await? {
            older.push(self.text(&version).await?);
        }
        let needed: Vec<_> = older.iter().map(|old| references(&old.needed)).collect();
        let older: Vec<_> = older.iter().zip(&needed).map(|(old, needed)| old.as_text().source(needed)).collect();
        let broken = new.with(|new| myelin_schema::incompatibilities(level, new, &older));
        match broken {
            Ok(broken) if broken.is_empty() => {}
            Ok(broken) => {
                let level = level.as_str();
                let why = format!("it is not compatible with subject {subject} ({level}):\n{}", broken.join("\n"));
                self.fault(subject, why);
            }
            Err(error) => self.fault(subject, error),
        }
        Ok(())
    }

    /// The versions that a new one must be compatible with, newest first.
    async fn looked_at(&mut self, subject: &SubjectName, level: Compatibility) -> Result<Vec<Arc<Version>>> {
        let there = self.current.subjects.get(subject).map(|there| there.versions.as_slice()).unwrap_or_default();
        let count = match level {
            Compatibility::None => 0,
            Compatibility::Backward | Compatibility::Forward | Compatibility::Full => 1,
            _ => there.len(),
        };
        let mut found = Vec::new();
        for number in there.iter().rev().take(count) {
            found.extend(self.registry.version(subject, *number).await?);
        }
        Ok(found)
    }

    /// A version with what it refers to.
    async fn text(&mut self, version: &Arc<Version>) -> Result<Old> {
        let mut needed = Vec::new();
        self.registry.texts(&version.references, &mut needed).await?;
        Ok(Old { version: version.clone(), needed })
    }

    fn change(
        &self,
        subject: &SubjectName,
        schema: &Subject,
        settled: Option<u32>,
        sets_level: Option<CompatibilityLevel>,
    ) -> Option<Change> {
        let (mut details, mut calls) = (Vec::new(), Vec::new());
        if let Some(level) = sets_level {
            details.push(format!("compatibility: {} -> {level}", self.current.level(subject)));
            calls.push(Call::put(path("config", subject, ""), json!({"compatibility": level})));
        }
        let latest = self.current.latest(subject);
        if settled.is_none() {
            if let Some(latest) = latest {
                details.push(format!("a new version after {latest}"));
            }
            let wishes = [("acceptFailures", self.accept_failures)];
            let path = wishing(&path("subjects", subject, "/versions"), &wishes);
            calls.push(Call::post(path, body(schema, &schema.references)));
        }
        let action = if latest.is_some() { Action::Update } else { Action::Create };
        let name = subject.to_string();
        let (is_there, by) = (!calls.is_empty(), By::Calls(calls));
        is_there.then_some(Change { kind: Kind::Schema, name, action, details, sites: None, by })
    }

    /// The version that a rule without one means: the folder's schema, or else the newest that is there. `None` = it is
    /// yet to be registered.
    pub(super) fn meant(&self, subject: &SubjectName) -> Option<u32> {
        match self.newest.get(subject) {
            Some(Newest::There(number)) => Some(*number),
            Some(Newest::Registered) => None,
            None => self.current.latest(subject),
        }
    }

    /// Adds the removal of subjects that the folder does not have: first those that others do not refer to.
    pub(super) async fn prune(&mut self, plan: &mut Plan) -> Result<()> {
        let names = self.current.subjects.iter().filter(|(_, there)| !there.versions.is_empty());
        let gone: Vec<_> = names.filter(|(name, _)| !self.folder.state.schemas.contains_key(*name)).collect();
        let mut referrers: BTreeMap<&SubjectName, BTreeSet<u32>> = BTreeMap::new();
        let mut owners: BTreeMap<u32, &SubjectName> = BTreeMap::new();
        for (subject, there) in &gone {
            for number in &there.versions {
                owners.insert(self.registry.id(subject, *number).await?, subject);
                referrers.entry(subject).or_default().extend(self.registry.referrers(subject, *number).await?);
            }
        }
        let mut left: Vec<&SubjectName> = gone.iter().map(|(subject, _)| *subject).collect();
        while !left.is_empty() {
            let is_free = |subject: &SubjectName| {
                let of = |id: &u32| owners.get(id).copied();
                let needed = referrers.get(subject).into_iter().flatten();
                !needed.into_iter().any(|id| of(id).is_none_or(|other| other != subject && left.contains(&other)))
            };
            let (free, held): (Vec<_>, Vec<_>) = left.iter().copied().partition(|subject| is_free(subject));
            if free.is_empty() {
                for subject in held {
                    self.faults.push(format!(
                        "subject {subject} is not in the folder, and others that stay refer to it: add it to the folder"
                    ));
                }
                break;
            }
            plan.changes.extend(free.into_iter().map(removal));
            left = held;
        }
        Ok(())
    }
}

fn removal(subject: &SubjectName) -> Change {
    let by = By::Calls(vec![Call::delete(path("subjects", subject, ""))]);
    let details = vec!["deleted, and kept for whoever has its ids".to_owned()];
    Change { kind: Kind::Schema, name: subject.to_string(), action: Action::Remove, details, sites: None, by }
}

/// What a router is asked about a schema; what has no version is the newest when it is asked.
fn body(schema: &Subject, references: &[Reference]) -> serde_json::Value {
    let references = references.iter().map(|Reference { name, subject, version }| {
        json!({"name": name, "subject": subject, "version": version.map_or(-1, i64::from)})
    });
    json!({"schema": schema.text, "schemaType": schema.format, "references": references.collect::<Vec<_>>()})
}

/// A schema with what it refers to.
struct Text<'a> {
    format: SchemaFormat,
    text: &'a str,
    needed: &'a [Named],
}

/// A version with what it refers to.
struct Old {
    version: Arc<Version>,
    needed: Vec<Named>,
}

impl Old {
    fn as_text(&self) -> Text<'_> {
        Text { format: self.version.format, text: &self.version.text, needed: &self.needed }
    }
}

impl<'a> Text<'a> {
    fn source(&self, references: &'a [ReferenceText<'a>]) -> Source<'a> {
        Source { format: judged_as(self.format), text: self.text, references }
    }

    fn with<T>(&self, look: impl FnOnce(&Source<'_>) -> T) -> T {
        let needed = references(self.needed);
        look(&Text { ..*self }.source(&needed))
    }
}

fn references(needed: &[Named]) -> Vec<ReferenceText<'_>> {
    needed.iter().map(|(name, text)| ReferenceText { name, text }).collect()
}

/// Subjects, each after those that it refers to; and those that are in, or behind, a circle.
fn in_order(schemas: &BTreeMap<SubjectName, Subject>) -> (Vec<&SubjectName>, Vec<&SubjectName>) {
    let mut order = Vec::with_capacity(schemas.len());
    let mut placed: BTreeSet<&SubjectName> = BTreeSet::new();
    let mut left: Vec<&SubjectName> = schemas.keys().collect();
    while !left.is_empty() {
        let is_ready = |subject: &&SubjectName| {
            let mut needed = schemas[*subject].references.iter().filter(|one| one.version.is_none());
            needed.all(|one| placed.contains(&one.subject) || !schemas.contains_key(&one.subject))
        };
        let (ready, waiting): (Vec<_>, Vec<_>) = left.iter().copied().partition(is_ready);
        if ready.is_empty() {
            return (order, waiting);
        }
        placed.extend(&ready);
        order.extend(ready);
        left = waiting;
    }
    (order, left)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn schemas(names: &[(&str, &[&str])]) -> BTreeMap<SubjectName, Subject> {
        let subject = |(name, references): &(&str, &[&str])| {
            let reference =
                |other: &&str| Reference { name: (*other).into(), subject: other.parse().unwrap(), version: None };
            let references = references.iter().map(reference).collect();
            let schema = Subject { format: SchemaFormat::Avro, text: String::new(), references, compatibility: None };
            (name.parse().unwrap(), schema)
        };
        names.iter().map(subject).collect()
    }

    #[test]
    fn schemas_come_after_those_that_they_refer_to() {
        let schemas = schemas(&[("a", &["c", "elsewhere"]), ("b", &["a"]), ("c", &[]), ("x", &["y"]), ("y", &["x"])]);
        let (order, circle) = in_order(&schemas);
        let names = |of: Vec<&SubjectName>| of.into_iter().map(SubjectName::to_string).collect::<Vec<_>>();
        assert_eq!(
            (names(order), names(circle)),
            (vec!["c".into(), "a".into(), "b".into()], vec!["x".into(), "y".into()])
        );
    }
}
