//! What a schema is to a registry: parsed, told from others, compared. Pure, and as slow as the limits of schemas let it.

use super::super::{Blame, WorldError};
use crate::registry::judged_as;
use myelin_catalog::limits::SCHEMA_LEN_MAX_BYTES;
use myelin_catalog::schemas::{Wanted, dependencies};
use myelin_catalog::{
    CatalogError, CompatibilityLevel, Digest, NewSchema, Reference, Registration, RegistryMode, Schema, SchemaFormat,
    SchemaRefusal, SchemaVersion, Schemas, SubjectName, SubjectVersion,
};
use myelin_schema::{Compatibility, ReferenceText, SchemaError, Source};
use std::sync::Arc;

/// A schema that somebody asks about.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its language.
    pub format: SchemaFormat,
    /// Its text.
    pub text: String,
    /// What it refers to.
    pub references: Vec<Reference>,
    /// Whether its canonical form is kept in place of its text.
    pub normalize: bool,
}

impl Candidate {
    /// A candidate. Where `text` is a serialized Protobuf schema, as the serializers of some languages register it, it
    /// becomes the text that means the same.
    ///
    /// # Errors
    /// `invalid-schema` where it cannot be read.
    pub fn new(format: SchemaFormat, text: String, references: Vec<Reference>) -> Result<Self, WorldError> {
        let is_serialized = format == SchemaFormat::Protobuf && text.len() <= SCHEMA_LEN_MAX_BYTES;
        let text = match is_serialized.then(|| myelin_schema::from_serialized(&text)).flatten() {
            Some(read) => read.map_err(invalid)?,
            None => text,
        };
        Ok(Self { format, text, references, normalize: false })
    }
}

/// What a schema is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// One version.
    Version(u32),
    /// The newest version.
    Latest,
    /// All that the subject's level of compatibility names.
    All,
}

/// A candidate that is a schema.
#[derive(Debug)]
pub(super) struct Judged {
    /// What tells it from others.
    pub(super) digest: Digest,
    canonical: String,
    referenced: Vec<Arc<Schema>>,
}

impl Judged {
    /// Parses a candidate.
    ///
    /// # Errors
    /// `invalid-schema`.
    pub(super) fn new(schemas: &Schemas, subject: &SubjectName, candidate: &Candidate) -> Result<Self, WorldError> {
        let Candidate { format, text, references, .. } = candidate;
        let referenced = schemas.check_references(subject, references).map_err(CatalogError::from)?;
        let needed = dependencies(references, &referenced).map_err(|why| {
            CatalogError::from(SchemaRefusal::Invalid { subject: subject.clone(), field: "references", why })
        })?;
        let needed = texts(&needed);
        let source = Source { format: judged_as(*format), text, references: &needed };
        myelin_schema::check(&source).map_err(invalid)?;
        let canonical = myelin_schema::canonical(&source).map_err(invalid)?;
        Ok(Self { digest: identity(*format, &canonical, references, &referenced), canonical, referenced })
    }
}

/// What makes a candidate a version of a subject.
///
/// # Errors
/// `invalid-schema`, `incompatible-schema`, `registry-mode`.
pub(super) fn register(
    schemas: &Schemas,
    subject: &SubjectName,
    candidate: &Candidate,
    place: Option<(u32, Option<u32>)>,
) -> Result<Wanted, WorldError> {
    let judged = Judged::new(schemas, subject, candidate)?;
    let text = if candidate.normalize { &judged.canonical } else { &candidate.text };
    let schema = NewSchema {
        format: candidate.format,
        digest: judged.digest,
        text: text.clone(),
        references: candidate.references.clone(),
    };
    let mode = schemas.mode(subject.as_str());
    let wanted = match (mode, place) {
        (RegistryMode::Import, Some((id, version))) => schemas.register_as(subject, schema, id, version),
        (_, None) => schemas.register_next(subject, schema),
        (_, Some(_)) => {
            let message = format!(
                "subject `{subject}` is in mode {mode}: ids and versions are chosen here; leave `id` and `version` out, or \
                 set mode IMPORT"
            );
            return Err(refuse(Blame::Request, "registry-mode", message));
        }
    };
    let Wanted::New(registration) = &wanted else { return Ok(wanted) };
    check_apart(schemas, subject)?;
    if mode == RegistryMode::Import {
        if place.is_none() {
            let message = format!("subject `{subject}` is in mode IMPORT: give the `id` that the schema has elsewhere");
            return Err(refuse(Blame::Request, "registry-mode", message));
        }
        return Ok(wanted);
    }
    // What the catalog refuses anyway needs no comparison.
    schemas.check_registration(registration)?;
    let broken = breaks(schemas, subject, Asked::All, candidate, &judged.referenced)?;
    if broken.is_empty() { Ok(wanted) } else { Err(incompatible(schemas, subject, &broken)) }
}

/// Judges again what another router has judged: it may be of another version.
///
/// # Errors
/// Where this one would not have drafted that registration.
pub(in super::super) fn confirm(schemas: &Schemas, registration: &Registration) -> Result<(), WorldError> {
    let Registration { subject, id, schema, .. } = registration;
    let (candidate, digest) = match (schema, schemas.schema(*id)) {
        (Some(NewSchema { format, digest, text, references }), _) => {
            let (text, references) = (text.clone(), references.clone());
            (Candidate { format: *format, text, references, normalize: false }, *digest)
        }
        (None, Some(known)) => {
            let (text, references) = (known.text.to_string(), known.references.to_vec());
            (Candidate { format: known.format, text, references, normalize: false }, known.digest)
        }
        // The catalog refuses it.
        (None, None) => return Ok(()),
    };
    let judged = Judged::new(schemas, subject, &candidate)?;
    if judged.digest != digest {
        let message = format!(
            "the schema for subject `{subject}` has another digest here than where it was judged; run the same version of \
             Myelin at both routers"
        );
        return Err(refuse(Blame::Request, "invalid-schema", message));
    }
    if schemas.mode(subject.as_str()) == RegistryMode::Import {
        return Ok(());
    }
    let broken = breaks(schemas, subject, Asked::All, &candidate, &judged.referenced)?;
    if broken.is_empty() { Ok(()) } else { Err(incompatible(schemas, subject, &broken)) }
}

/// What a candidate breaks; empty = compatible.
///
/// # Errors
/// `version-not-found`, `invalid-schema`.
pub(super) fn compare(
    schemas: &Schemas,
    subject: &SubjectName,
    asked: Asked,
    candidate: &Candidate,
) -> Result<Vec<String>, WorldError> {
    let judged = Judged::new(schemas, subject, candidate)?;
    breaks(schemas, subject, asked, candidate, &judged.referenced)
}

fn breaks(
    schemas: &Schemas,
    subject: &SubjectName,
    asked: Asked,
    candidate: &Candidate,
    referenced: &[Arc<Schema>],
) -> Result<Vec<String>, WorldError> {
    let level = schemas.compatibility(subject.as_str());
    let there = schemas.subject(subject.as_str());
    let versions: Vec<&SubjectVersion> = match (asked, there) {
        (Asked::All, None) => Vec::new(),
        (Asked::All, Some(there)) => there.versions().rev().collect(),
        (Asked::Latest, _) => match there.and_then(|there| there.latest()) {
            Some(latest) => vec![latest],
            None => return Err(CatalogError::from(SchemaRefusal::SubjectNotFound(subject.clone())).into()),
        },
        (Asked::Version(version), _) => {
            let there = schemas.find_subject(subject).map_err(CatalogError::from)?;
            let refused = || SchemaRefusal::VersionNotFound { subject: subject.clone(), version };
            vec![there.version(version).ok_or_else(refused).map_err(CatalogError::from)?]
        }
    };
    let needed = dependencies(&candidate.references, referenced).unwrap_or_default();
    let needed = texts(&needed);
    let newer = Source { format: judged_as(candidate.format), text: &candidate.text, references: &needed };
    let older: Vec<_> = versions.iter().map(|version| texts(&version.schema.dependencies())).collect();
    let older: Vec<_> = (versions.iter().zip(&older))
        .map(|(version, references)| Source {
            format: judged_as(version.schema.format),
            text: &version.schema.text,
            references,
        })
        .collect();
    myelin_schema::incompatibilities(level_of(level), &newer, &older).map_err(invalid)
}

/// What tells schemas apart. The ids of what is referred to are part of it: versions of a subject that was deleted are
/// given again, ids never.
fn identity(format: SchemaFormat, canonical: &str, references: &[Reference], referenced: &[Arc<Schema>]) -> Digest {
    let mut parts: Vec<(&str, &str, u32, u32)> = (references.iter().zip(referenced))
        .map(|(reference, schema)| (&*reference.name, reference.subject.as_str(), reference.version, schema.id))
        .collect();
    // In whatever order they are named.
    parts.sort_unstable();
    // A list of texts has one JSON form, so that no two identities run together.
    Digest::of(serde_json::json!([format, canonical, parts]).to_string().as_bytes())
}

/// A schema as a serialized descriptor.
///
/// # Errors
/// `invalid-schema` where its format has none.
pub(super) fn serialized(schema: &Schema) -> Result<String, WorldError> {
    let needed = schema.dependencies();
    let needed = texts(&needed);
    let source = Source { format: judged_as(schema.format), text: &schema.text, references: &needed };
    myelin_schema::serialized(&source).map_err(invalid)
}

fn texts<'a>(needed: &[(&'a str, &'a Arc<Schema>)]) -> Vec<ReferenceText<'a>> {
    needed.iter().map(|(name, schema)| ReferenceText { name, text: &schema.text }).collect()
}

fn level_of(level: CompatibilityLevel) -> Compatibility {
    use CompatibilityLevel as L;
    match level {
        L::None => Compatibility::None,
        L::Backward => Compatibility::Backward,
        L::BackwardTransitive => Compatibility::BackwardTransitive,
        L::Forward => Compatibility::Forward,
        L::ForwardTransitive => Compatibility::ForwardTransitive,
        L::Full => Compatibility::Full,
        L::FullTransitive => Compatibility::FullTransitive,
    }
}

pub(super) fn refuse(blame: Blame, code: &'static str, message: String) -> WorldError {
    WorldError::new(blame, code, message)
}

/// Whether filters can tell a new subject from versions of another: `host::schema` takes `SUBJECT:VERSION` for one, so neither
/// does a subject come that is called like a version of another, nor one of whose versions another is called like. Who is gone
/// for good may still be named by a filter.
fn check_apart(schemas: &Schemas, subject: &SubjectName) -> Result<(), WorldError> {
    let has_versions = |name: &str| schemas.subject(name).is_some_and(|subject| subject.all().next().is_some());
    if schemas.has_had_versions(subject.as_str()) {
        return Ok(());
    }
    let whole = |name: &str| {
        let (before, version) = name.rsplit_once(':')?;
        version.parse::<SchemaVersion>().is_ok().then(|| before.to_owned())
    };
    let other = match whole(subject.as_str()).filter(|before| schemas.has_had_versions(before)) {
        Some(before) => Some(before),
        None => {
            let mut names = schemas.subjects().map(|other| other.name().as_str()).filter(|name| has_versions(name));
            names.find(|name| whole(name).as_deref() == Some(subject.as_str())).map(str::to_owned)
        }
    };
    match other {
        None => Ok(()),
        Some(other) => {
            let message = format!(
                "there is, or was, subject `{other}`, and filters could not tell it and `{subject}` apart, as `SUBJECT:VERSION` names a \
                 version: call it otherwise"
            );
            Err(refuse(Blame::Request, "invalid-subject", message))
        }
    }
}

/// The code of the schema's own error stays at the sentence's beginning: clients of the registry know one for all.
fn invalid(error: SchemaError) -> WorldError {
    refuse(Blame::Request, "invalid-schema", format!("{}: {}", error.code, error.message))
}

fn incompatible(schemas: &Schemas, subject: &SubjectName, broken: &[String]) -> WorldError {
    let level = schemas.compatibility(subject.as_str());
    let message = format!(
        "the schema is not {level} compatible with subject `{subject}`: {}; change it, or choose another level",
        broken.join("; ")
    );
    refuse(Blame::Conflict, "incompatible-schema", message)
}
