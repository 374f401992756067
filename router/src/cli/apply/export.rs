//! `myelin export DIR`: what the catalog has, as a folder that `myelin apply` takes.

use super::current::{self, Versions};
use super::registry::Registry;
use super::state::{Beside, Kind, State, Subject};
use crate::cli::admin::{Admin, Api};
use crate::cli::connect::block_on;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::schema::encoded;
use crate::cli::values::{say, write_atomically};
use anyhow::Context;
use clap::Args;
use myelin_catalog::{SchemaFormat, SchemaRule, SchemaVersion, SubjectName};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Bytes of a file's name that every file system takes, without the ending.
const FILE_NAME_BYTES_MAX: usize = 200;

/// Write tenants, schemas, topics, policies and bindings as a folder for `myelin apply -f`
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  myelin export mesh.d && myelin apply -f mesh.d --dry-run\n\n\
    Of each subject its newest version is written; bindings are written as they are staged.")]
pub(in crate::cli) struct Export {
    /// The folder: a new one, or an empty one
    dir: PathBuf,
    #[command(flatten)]
    admin: Admin,
}

impl Export {
    pub(in crate::cli) fn run(self) -> Result<()> {
        block_on(async {
            let api = self.admin.api()?;
            let (state, revision) = read(&api).await?;
            write(&self.dir, &state)?;
            pinned(&state).iter().for_each(|remark| eprintln!("note: {remark}"));
            say!("{} has {} (revision {revision})", self.dir.display(), counts(&state));
            Ok(())
        })
    }
}

/// What refers to a version that is not the newest: elsewhere a folder brings only the newest.
pub(super) fn pinned(state: &State) -> Vec<String> {
    let references = state.schemas.iter().flat_map(|(name, schema)| schema.references.iter().map(move |to| (name, to)));
    let pinned = references.filter_map(|(name, to)| {
        let (subject, version) = (&to.subject, to.version?);
        Some(format!(
            "schema {name} refers to version {version} of {subject}, which is not the newest: where there is no such \
             version, register it before this is applied"
        ))
    });
    pinned.collect()
}

/// All that the catalog has, with the newest schema of each subject; and the revision at which it has that.
pub(super) async fn read(api: &Api) -> Result<(State, u64)> {
    let mut current = current::read(api).await?;
    let mut registry = Registry::new(api);
    for (name, there) in &current.subjects {
        let Some(latest) = there.latest() else { continue };
        let subject = registry.subject(name, latest).await?.with_context(|| format!("subject {name} is gone"))?;
        current.state.schemas.insert(name.clone(), subject);
    }
    let subjects = &current.subjects;
    let newest = |schema: &SchemaRule| subjects.get(schema.subject.as_ref()?)?.latest().map(SchemaVersion::Number);
    // What is the newest need not be said by number, which is another one elsewhere.
    for reference in current.state.schemas.values_mut().flat_map(|schema| &mut schema.references) {
        if reference.version == subjects.get(&reference.subject).and_then(Versions::latest) {
            reference.version = None;
        }
    }
    for schema in current.state.topics.values_mut().filter_map(|rule| rule.schema.as_mut()) {
        if schema.by.is_none() && schema.version == newest(schema) {
            schema.version = None;
        }
    }
    Ok((current.state, current.revision))
}

/// How many things there are of each kind.
pub(super) fn counts(state: &State) -> String {
    let State { tenants, schemas, topics, policies, bindings } = state;
    let counts = [tenants.len(), schemas.len(), topics.len(), policies.len(), bindings.len()];
    let counted: Vec<_> = Kind::ALL.iter().zip(counts).map(|(kind, count)| kind.counted(count)).collect();
    counted.join(", ")
}

/// Writes a new folder, with a folder for each kind.
pub(super) fn write(dir: &Path, state: &State) -> Result<()> {
    empty(dir)?;
    for kind in Kind::ALL {
        let folder = dir.join(kind.folder());
        std::fs::create_dir_all(&folder).map_err(|error| Failure::of_file(&folder, error))?;
    }
    for (name, tenant) in &state.tenants {
        write_file(dir, Kind::Tenant, &format!("{name}.json"), &pretty(json!(tenant)))?;
    }
    for (name, rule) in &state.topics {
        write_file(dir, Kind::Topic, &format!("{name}.json"), &pretty(json!(rule)))?;
    }
    for (name, text) in &state.policies {
        write_file(dir, Kind::Policy, &format!("{name}.cedar"), text)?;
    }
    for (name, binding) in &state.bindings {
        write_file(dir, Kind::Binding, &format!("{name}.json"), &pretty(json!(binding)))?;
    }
    state.schemas.iter().try_for_each(|(name, subject)| write_schema(dir, name, subject))
}

fn write_file(dir: &Path, kind: Kind, file: &str, text: &str) -> Result<()> {
    let path = dir.join(kind.folder()).join(file);
    write_atomically(&path, text).map_err(|error| Failure::of_file(&path, error))
}

fn write_schema(dir: &Path, name: &SubjectName, subject: &Subject) -> Result<()> {
    let stem = file_stem(name);
    let ending = match subject.format {
        SchemaFormat::Json => "json",
        SchemaFormat::Avro => "avsc",
        SchemaFormat::Protobuf => "proto",
    };
    write_file(dir, Kind::Schema, &format!("{stem}.{ending}"), &subject.text)?;
    let beside = Beside {
        subject: (stem != name.as_str()).then(|| name.clone()),
        compatibility: subject.compatibility,
        references: subject.references.clone(),
    };
    let text = toml::to_string(&beside).context("what stands beside a schema")?;
    if text.is_empty() { Ok(()) } else { write_file(dir, Kind::Schema, &format!("{stem}.toml"), &text) }
}

/// A file's name for a subject, which may be any text.
fn file_stem(name: &SubjectName) -> String {
    let stem = encoded(name.as_str());
    let stem = stem.strip_prefix('.').map_or(stem.clone(), |rest| format!("%2E{rest}"));
    match stem.len() > FILE_NAME_BYTES_MAX {
        // A part of it, and what tells it from others that begin so.
        true => {
            format!("{}-{}", &stem[..FILE_NAME_BYTES_MAX / 2], myelin_catalog::Digest::of(name.as_str().as_bytes()))
        }
        false => stem,
    }
}

fn pretty(mut value: Value) -> String {
    // The file's name says it.
    if let Some(fields) = value.as_object_mut() {
        fields.remove("name");
    }
    format!("{value:#}\n")
}

fn empty(folder: &Path) -> Result<()> {
    let is_empty = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    match is_empty {
        true => Ok(()),
        false => Err(Failure::new(Exit::Usage, format!("{} is not an empty folder", folder.display()))
            .next("name a new one; what is there is never overwritten")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn any_subject_has_a_file() {
        let stem = |name: &str| file_stem(&name.parse().unwrap());
        assert_eq!([stem("orders-value"), stem("a/b c"), stem("..")], ["orders-value", "a%2Fb%20c", "%2E."]);
        let long = stem(&"ä".repeat(100));
        assert!(long.len() <= FILE_NAME_BYTES_MAX && long != stem(&"ä".repeat(101)), "{long}");
    }
}
