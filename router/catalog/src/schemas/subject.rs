//! What the registry holds: schemas, and the subjects whose versions they are.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::limits::{IMPORTED_ID_MAX, REFERENCED_LEN_MAX_BYTES, REFERENCES_TOTAL_MAX, SCHEMA_ID_MAX};
use crate::schemas::{CompatibilityLevel, RegistryMode, SchemaFormat, SubjectName};

/// That a text refers to another schema.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// How the text names it: an import's path, a URI, a full name.
    pub name: String,
    /// The subject that has it.
    pub subject: SubjectName,
    /// As which version.
    pub version: u32,
}

/// That a schema becomes a version of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The subject.
    pub subject: SubjectName,
    /// The version, which the subject has not had.
    pub version: u32,
    /// The schema's id.
    pub id: u32,
    /// The schema, where the registry does not have it.
    pub schema: Option<NewSchema>,
}

/// A schema that the registry does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSchema {
    /// Its language.
    pub format: SchemaFormat,
    /// What tells it from others: the digest of its canonical form and of what it refers to.
    pub digest: Digest,
    /// Its text.
    pub text: String,
    /// What it refers to.
    pub references: Vec<Reference>,
}

/// A schema; the same in whatever subject it is.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Its number, which no other schema ever had or will have.
    pub id: u32,
    /// Its language.
    pub format: SchemaFormat,
    /// What tells it from others.
    pub digest: Digest,
    /// Its text, as it was registered first.
    pub text: Arc<str>,
    /// What it refers to.
    pub references: Box<[Reference]>,
    /// The schemas that are meant, in that order: they stay as they were, whatever becomes of their versions.
    pub(super) referenced: Box<[Arc<Schema>]>,
}

/// Ids tell schemas apart, and what is referred to is named as well as held.
impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        let Self { id, format, digest, text, references, referenced: _ } = self;
        (*id, *format, *digest) == (other.id, other.format, other.digest)
            && *text == other.text
            && *references == other.references
    }
}

impl Eq for Schema {}

/// A subject: what it is called, its versions, and what holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub(super) name: SubjectName,
    /// By number; deleted ones too, as long as they are kept.
    pub(super) versions: Vec<SubjectVersion>,
    /// The largest number so far.
    pub(super) newest: u32,
    /// The same, but for those beyond what is taken over today, which logs of earlier routers may have.
    pub(super) counted: u32,
    pub(super) compatibility: Option<CompatibilityLevel>,
    pub(super) mode: Option<RegistryMode>,
}

/// A version of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectVersion {
    /// Its number.
    pub version: u32,
    /// What it is.
    pub schema: Arc<Schema>,
    /// The revision of the record that deleted it, where it is deleted and kept for whoever has its number or id.
    pub deleted_rev: Option<u64>,
    /// The revision of the record that registered it.
    pub rev: u64,
    /// When that was, for people.
    pub at_unix_ms: u64,
}

impl SubjectVersion {
    /// Whether it is deleted.
    pub fn is_deleted(&self) -> bool {
        self.deleted_rev.is_some()
    }

    /// Whether it was there, and not deleted, when the catalog was at `rev`.
    pub fn was_there(&self, rev: u64) -> bool {
        self.rev <= rev && self.deleted_rev.is_none_or(|deleted| deleted > rev)
    }
}

impl Schema {
    /// The texts that this one refers to, directly and through others, each with the name that the text has for it:
    /// every one after those that it refers to itself.
    pub fn dependencies(&self) -> Vec<(&str, &Arc<Self>)> {
        // Found right when it was registered.
        dependencies(&self.references, &self.referenced).unwrap_or_default()
    }

    /// What it refers to, with the schemas that are meant.
    pub fn referenced(&self) -> impl ExactSizeIterator<Item = (&Reference, &Arc<Self>)> {
        self.references.iter().zip(&self.referenced)
    }
}

/// What `references`, which mean `referenced` in that order, lead to: see [`Schema::dependencies`].
///
/// # Errors
/// Why a parser cannot be given them.
pub fn dependencies<'a>(
    references: &'a [Reference],
    referenced: &'a [Arc<Schema>],
) -> Result<Vec<(&'a str, &'a Arc<Schema>)>, String> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    walk(references, referenced, &mut found, &mut bytes)?;
    Ok(found)
}

/// One level of it. As deep as there are schemas in `found` at most, so [`REFERENCES_TOTAL_MAX`].
fn walk<'a>(
    references: &'a [Reference],
    referenced: &'a [Arc<Schema>],
    found: &mut Vec<(&'a str, &'a Arc<Schema>)>,
    bytes: &mut usize,
) -> Result<(), String> {
    for (reference, schema) in references.iter().zip(referenced) {
        let name = reference.name.as_str();
        match found.iter().find(|(known, _)| *known == name) {
            Some((_, known)) if known.id == schema.id => continue,
            Some((_, known)) => {
                return Err(format!(
                    "`{name}` means schema {} and, where another reference leads, schema {}; let both mean the same",
                    schema.id, known.id
                ));
            }
            None => {}
        }
        if !found.iter().any(|(_, known)| known.id == schema.id) {
            walk(&schema.references, &schema.referenced, found, bytes)?;
        }
        *bytes += schema.text.len();
        if found.len() >= REFERENCES_TOTAL_MAX || *bytes > REFERENCED_LEN_MAX_BYTES {
            return Err(format!(
                "it leads to more than {REFERENCES_TOTAL_MAX} schemas or {REFERENCED_LEN_MAX_BYTES} bytes of them; refer \
                 to fewer"
            ));
        }
        found.push((name, schema));
    }
    Ok(())
}

/// The first number after `counted` that is not taken. What is taken there was taken over from elsewhere.
pub(super) fn next_free(counted: u32, is_taken: impl Fn(u32) -> bool) -> u32 {
    let after = counted.saturating_add(1);
    (after..=SCHEMA_ID_MAX).find(|number| !is_taken(*number)).unwrap_or(SCHEMA_ID_MAX.saturating_add(1))
}

impl Subject {
    pub(super) fn new(name: SubjectName) -> Self {
        Self { name, versions: Vec::new(), newest: 0, counted: 0, compatibility: None, mode: None }
    }

    /// The number of the next version that is registered here.
    pub(super) fn next(&self) -> u32 {
        next_free(self.counted, |version| self.find(version).is_some())
    }

    /// A version comes that is not there yet.
    pub(super) fn count(&mut self, version: u32) {
        if version <= IMPORTED_ID_MAX || version == self.next() {
            self.counted = self.counted.max(version);
        }
        self.newest = self.newest.max(version);
    }

    /// What it is called.
    pub fn name(&self) -> &SubjectName {
        &self.name
    }

    /// All its versions, the oldest first; deleted ones too, as long as they are kept.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &SubjectVersion> {
        self.versions.iter()
    }

    /// Those that are not deleted, the oldest first.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &SubjectVersion> {
        self.versions.iter().filter(|version| !version.is_deleted())
    }

    /// The newest that is not deleted.
    pub fn latest(&self) -> Option<&SubjectVersion> {
        self.versions().next_back()
    }

    /// The newest when the catalog was at `rev`, of those that are kept: what is deleted since is still that.
    pub fn latest_at(&self, rev: u64) -> Option<&SubjectVersion> {
        self.all().rev().find(|version| version.was_there(rev))
    }

    /// The version of that number, deleted or not.
    pub fn find(&self, version: u32) -> Option<&SubjectVersion> {
        let place = self.versions.binary_search_by_key(&version, |known| known.version).ok()?;
        self.versions.get(place)
    }

    /// The version of that number that is not deleted.
    pub fn version(&self, version: u32) -> Option<&SubjectVersion> {
        self.find(version).filter(|found| !found.is_deleted())
    }

    /// The newest version that is this schema; deleted ones only with `deleted`.
    pub fn find_schema(&self, id: u32, deleted: bool) -> Option<&SubjectVersion> {
        self.all().rev().find(|version| version.schema.id == id && (deleted || !version.is_deleted()))
    }

    /// Whether it has a version that is not deleted.
    pub fn is_live(&self) -> bool {
        self.latest().is_some()
    }

    /// The level that it says of its own.
    pub fn own_compatibility(&self) -> Option<CompatibilityLevel> {
        self.compatibility
    }

    /// The mode that it says of its own.
    pub fn own_mode(&self) -> Option<RegistryMode> {
        self.mode
    }

    /// Whether there is anything to remember of it.
    pub(super) fn is_empty(&self) -> bool {
        self.versions.is_empty() && self.compatibility.is_none() && self.mode.is_none()
    }
}
