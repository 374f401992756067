//! The schema registry: subjects, their versions, and the schemas that these are.
//!
//! A *schema* is a text in a format with what it refers to; it has an id, the same in whatever subject it is, which no
//! other schema ever gets. A *subject* has versions 1, 2, ..., each of which is a schema. What is deleted is kept first,
//! for whoever still has an id in its events, and is gone only when it is deleted a second time, for good.
//!
//! Whether a text is a schema, and whether it is compatible, is not for the catalog to say: the router finds out before it
//! drafts a record, and puts into it the digest that tells schemas apart.
//!
//! # To read
//!
//! | what | how |
//! |---|---|
//! | the registry | `catalog.schemas()`: cheap to clone, and the same one as long as `PartialEq` or [`Schemas::revision`] says so |
//! | the newest version of a subject | [`Schemas::latest`] |
//! | a version | [`Schemas::version`] |
//! | a schema by its id, of deleted versions too | [`Schemas::schema`] |
//! | the texts that it refers to, dependencies first | [`Schema::dependencies`] |
//! | subjects, and their versions | [`Schemas::subjects`], [`Schemas::subject`], [`Subject::versions`] |
//!
//! All is held in trees that share what is the same: to clone a registry of any size copies some pointers, and a change
//! copies the path to what it changes.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::digest::Digest;
use crate::limits::IMPORTED_ID_MAX;

mod check;
mod kinds;
mod refusal;
mod subject;
#[cfg(test)]
mod tests;

pub use kinds::{CompatibilityLevel, RegistryMode, SchemaFormat, SubjectName};
pub use refusal::SchemaRefusal;
pub use subject::{NewSchema, Reference, Registration, Schema, Subject, SubjectVersion, dependencies};

/// A version of a subject by its names.
type Place = (SubjectName, u32);

/// The schema registry at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schemas {
    subjects: OrdMap<SubjectName, Arc<Subject>>,
    /// By id: all that are a version of a subject, deleted or not.
    schemas: OrdMap<u32, Kept>,
    ids: OrdMap<Digest, u32>,
    /// The schemas that refer to a version.
    referrers: OrdMap<Place, OrdSet<u32>>,
    /// What had an id that is gone for good.
    retired: OrdMap<u32, Digest>,
    /// What was a version that is gone for good, until it is there again.
    retired_versions: OrdMap<SubjectName, OrdMap<u32, Digest>>,
    /// The largest id so far.
    newest_id: u32,
    /// The id after which own ones go on: the largest so far, but for those beyond what is taken over today, which logs of
    /// earlier routers may have.
    counted_id: u32,
    versions: usize,
    text_bytes: u64,
    compatibility: Option<CompatibilityLevel>,
    mode: Option<RegistryMode>,
    /// The revision of the newest record that changed something here.
    revision: u64,
}

/// A schema and where it is.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    schema: Arc<Schema>,
    places: OrdSet<Place>,
}

/// What becomes of a schema that somebody wants registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is there already, in that subject.
    Known {
        /// Its id.
        id: u32,
        /// Its version.
        version: u32,
    },
    /// This makes it a version.
    New(Box<Registration>),
}

impl Schemas {
    /// The newest version of a subject that is not deleted.
    pub fn latest(&self, subject: &str) -> Option<&SubjectVersion> {
        self.subject(subject)?.latest()
    }

    /// A version of a subject that is not deleted.
    pub fn version(&self, subject: &str, version: u32) -> Option<&SubjectVersion> {
        self.subject(subject)?.version(version)
    }

    /// The schema of that id, whose versions may all be deleted.
    pub fn schema(&self, id: u32) -> Option<&Arc<Schema>> {
        self.schemas.get(&id).map(|kept| &kept.schema)
    }

    /// The schema of that digest.
    pub fn find(&self, digest: &Digest) -> Option<&Arc<Schema>> {
        self.schema(*self.ids.get(digest)?)
    }

    /// The subject of that name; with nothing but settings or deleted versions too.
    pub fn subject(&self, subject: &str) -> Option<&Arc<Subject>> {
        self.subjects.get(subject)
    }

    /// All subjects by name; those with nothing but settings or deleted versions too.
    pub fn subjects(&self) -> impl Iterator<Item = &Arc<Subject>> {
        self.subjects.values()
    }

    /// The versions that a schema is, as subject and number, with whether they are deleted.
    pub fn places(&self, id: u32) -> impl Iterator<Item = (&SubjectName, u32, bool)> {
        self.schemas.get(&id).into_iter().flat_map(|kept| &kept.places).map(|(subject, version)| {
            let is_live = self.version(subject.as_str(), *version).is_some();
            (subject, *version, !is_live)
        })
    }

    /// The ids of the schemas that refer to a version, as far as these are in use.
    pub fn referrers(&self, subject: &SubjectName, version: u32) -> impl Iterator<Item = u32> {
        let found = self.referrers.get(&(subject.clone(), version)).into_iter().flatten();
        found.copied().filter(|id| self.places(*id).any(|(_, _, is_deleted)| !is_deleted))
    }

    /// What a new version of a subject must be compatible with.
    pub fn compatibility(&self, subject: &str) -> CompatibilityLevel {
        let own = self.subject(subject).and_then(|subject| subject.compatibility);
        own.unwrap_or_else(|| self.default_compatibility())
    }

    /// The same, where the subject says nothing of its own.
    pub fn default_compatibility(&self) -> CompatibilityLevel {
        self.compatibility.unwrap_or(CompatibilityLevel::Backward)
    }

    /// What may be changed in a subject.
    pub fn mode(&self, subject: &str) -> RegistryMode {
        match self.default_mode() {
            RegistryMode::ReadOnlyOverride => RegistryMode::ReadOnlyOverride,
            default => self.subject(subject).and_then(|subject| subject.mode).unwrap_or(default),
        }
    }

    /// The same, where the subject says nothing of its own.
    pub fn default_mode(&self) -> RegistryMode {
        self.mode.unwrap_or(RegistryMode::ReadWrite)
    }

    /// The revision of the newest record that changed something in the registry; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The largest id that a schema ever had; 0 before the first.
    pub fn newest_id(&self) -> u32 {
        self.newest_id
    }

    /// The id that the next schema gets which is registered here: one that no schema ever had.
    pub(crate) fn next_id(&self) -> u32 {
        subject::next_free(self.counted_id, |id| self.schemas.contains_key(&id) || self.retired.contains_key(&id))
    }

    /// The version that a schema becomes which is registered here: a number means the same for ever, also when its version
    /// or its subject is gone for good. So the first that is free, unless it was another schema's; then one after all that
    /// were.
    pub(crate) fn next_version(&self, subject: &SubjectName, digest: &Digest) -> u32 {
        let there = self.subject(subject.as_str());
        let next = there.map_or(1, |subject| subject.next());
        if !self.was_another(subject, next, digest) {
            return next;
        }
        let gone = self.retired_versions.get(subject.as_str());
        let last = gone.and_then(|gone| Some(*gone.range(..=IMPORTED_ID_MAX).next_back()?.0)).unwrap_or_default();
        let counted = there.map_or(0, |subject| subject.counted).max(last);
        let is_taken = |version| {
            let is_there = there.is_some_and(|there| there.find(version).is_some());
            is_there || self.was_another(subject, version, digest)
        };
        subject::next_free(counted, is_taken)
    }

    /// Whether a version that is gone for good was another schema.
    pub(crate) fn was_another(&self, subject: &SubjectName, version: u32, digest: &Digest) -> bool {
        let gone = self.retired_versions.get(subject.as_str()).and_then(|gone| gone.get(&version));
        gone.is_some_and(|gone| gone != digest)
    }

    /// Whether a subject has, or ever had, a version.
    pub fn has_had_versions(&self, subject: &str) -> bool {
        self.subject(subject).is_some_and(|subject| subject.all().next().is_some())
            || self.retired_versions.contains_key(subject)
    }

    /// Subjects, versions of all of them, and bytes of their texts.
    pub fn counts(&self) -> (usize, usize, u64) {
        (self.subjects.len(), self.versions, self.text_bytes)
    }

    /// The schemas that references mean.
    ///
    /// # Errors
    /// `invalid-schema`, of `subject`.
    pub fn resolve(&self, subject: &SubjectName, references: &[Reference]) -> Result<Vec<Arc<Schema>>, SchemaRefusal> {
        let resolve = |reference: &Reference| {
            let found = self.version(reference.subject.as_str(), reference.version);
            found.map(|version| version.schema.clone()).ok_or_else(|| SchemaRefusal::Invalid {
                subject: subject.clone(),
                field: "references",
                why: format!(
                    "`{}` is to be version {} of subject `{}`, which is not there; register that first",
                    reference.name, reference.version, reference.subject
                ),
            })
        };
        references.iter().map(resolve).collect()
    }

    /// What makes `schema` a version of `subject`, as the next one and with the next id where there is none yet.
    pub fn register_next(&self, subject: &SubjectName, schema: NewSchema) -> Wanted {
        let known = self.ids.get(&schema.digest).copied();
        let there = self.subject(subject.as_str());
        if let Some(found) = known.and_then(|id| there?.find_schema(id, false)) {
            return Wanted::Known { id: found.schema.id, version: found.version };
        }
        let version = self.next_version(subject, &schema.digest);
        let id = known.unwrap_or_else(|| self.next_id());
        let schema = known.is_none().then_some(schema);
        Wanted::New(Box::new(Registration { subject: subject.clone(), version, id, schema }))
    }

    /// The same with the id that it has elsewhere, and with the version where one is given.
    pub fn register_as(&self, subject: &SubjectName, schema: NewSchema, id: u32, version: Option<u32>) -> Wanted {
        let there = self.subject(subject.as_str());
        let known = self.ids.get(&schema.digest).is_some_and(|known| *known == id);
        if let Some(found) = there.filter(|_| known).and_then(|there| there.find_schema(id, false))
            && version.is_none_or(|version| version == found.version)
        {
            return Wanted::Known { id, version: found.version };
        }
        let version = version.unwrap_or_else(|| self.next_version(subject, &schema.digest));
        Wanted::New(Box::new(Registration {
            subject: subject.clone(),
            version,
            id,
            schema: (!known).then_some(schema),
        }))
    }
}

/// Changes; each was found possible by `check`.
impl Schemas {
    /// The registry as it would be with that version.
    pub fn with(&self, registration: &Registration) -> Self {
        let mut after = self.clone();
        after.register(registration, self.revision.saturating_add(1), 0);
        after
    }

    pub(crate) fn register(&mut self, registration: &Registration, rev: u64, at_unix_ms: u64) {
        let Registration { subject, version, id, schema } = registration;
        self.revision = rev;
        if *id <= IMPORTED_ID_MAX || *id == self.next_id() {
            self.counted_id = self.counted_id.max(*id);
        }
        if let Some(new) = schema {
            self.keep(*id, new, subject);
        }
        let Some(kept) = self.schemas.get_mut(id) else { return };
        kept.places.insert((subject.clone(), *version));
        let schema = kept.schema.clone();
        self.newest_id = self.newest_id.max(*id);
        self.versions += 1;
        if let Some(gone) = self.retired_versions.get_mut(subject.as_str()) {
            gone.remove(version);
            if gone.is_empty() {
                self.retired_versions.remove(subject.as_str());
            }
        }
        self.change(subject, |subject| {
            let place = subject.versions.partition_point(|known| known.version < *version);
            let deleted_rev = None;
            subject.count(*version);
            subject.versions.insert(place, SubjectVersion { version: *version, schema, deleted_rev, rev, at_unix_ms });
        });
    }

    fn keep(&mut self, id: u32, new: &NewSchema, subject: &SubjectName) {
        let referenced = self.resolve(subject, &new.references).unwrap_or_default().into();
        for reference in &new.references {
            let place = (reference.subject.clone(), reference.version);
            self.referrers.entry(place).or_default().insert(id);
        }
        let schema = Schema {
            id,
            format: new.format,
            digest: new.digest,
            text: new.text.as_str().into(),
            references: new.references.as_slice().into(),
            referenced,
        };
        self.text_bytes += schema.text.len() as u64;
        self.ids.insert(new.digest, id);
        self.retired.remove(&id);
        self.schemas.insert(id, Kept { schema: Arc::new(schema), places: OrdSet::new() });
    }

    pub(crate) fn delete_version(&mut self, subject: &SubjectName, version: u32, permanent: bool, rev: u64) {
        self.revision = rev;
        self.delete(subject, |known| known.version == version, permanent, rev);
    }

    pub(crate) fn delete_subject(&mut self, subject: &SubjectName, permanent: bool, rev: u64) {
        self.revision = rev;
        self.delete(subject, |_| true, permanent, rev);
    }

    fn delete(&mut self, name: &SubjectName, is_meant: impl Fn(&SubjectVersion) -> bool, permanent: bool, rev: u64) {
        let mut gone = Vec::new();
        self.change(name, |subject| {
            if permanent {
                gone.extend(subject.versions.extract_if(.., |version| is_meant(version)));
            } else {
                let meant = subject.versions.iter_mut().filter(|version| is_meant(version));
                // Of one that was deleted before, when that was.
                meant.for_each(|version| version.deleted_rev = version.deleted_rev.or(Some(rev)));
            }
            // Who registers under the name again begins with what holds by default.
            if !subject.is_live() {
                (subject.compatibility, subject.mode) = (None, None);
            }
        });
        for version in gone {
            self.forget(name, &version);
        }
    }

    /// A version is gone for good, and with its last version a schema.
    fn forget(&mut self, subject: &SubjectName, version: &SubjectVersion) {
        self.versions = self.versions.saturating_sub(1);
        let schema = &version.schema;
        self.retired_versions.entry(subject.clone()).or_default().insert(version.version, schema.digest);
        let Some(kept) = self.schemas.get_mut(&schema.id) else { return };
        kept.places.remove(&(subject.clone(), version.version));
        if !kept.places.is_empty() {
            return;
        }
        self.schemas.remove(&schema.id);
        self.ids.remove(&schema.digest);
        self.retired.insert(schema.id, schema.digest);
        self.text_bytes = self.text_bytes.saturating_sub(schema.text.len() as u64);
        for reference in &schema.references {
            let place = (reference.subject.clone(), reference.version);
            if let Some(referrers) = self.referrers.get_mut(&place) {
                referrers.remove(&schema.id);
                if referrers.is_empty() {
                    self.referrers.remove(&place);
                }
            }
        }
    }

    pub(crate) fn set_compatibility(
        &mut self,
        subject: Option<&SubjectName>,
        level: Option<CompatibilityLevel>,
        rev: u64,
    ) {
        self.revision = rev;
        match subject {
            Some(subject) => self.change(subject, |subject| subject.compatibility = level),
            None => self.compatibility = level,
        }
    }

    pub(crate) fn set_mode(&mut self, subject: Option<&SubjectName>, mode: Option<RegistryMode>, rev: u64) {
        self.revision = rev;
        match subject {
            Some(subject) => self.change(subject, |subject| subject.mode = mode),
            None => self.mode = mode,
        }
    }

    /// Changes a subject, which is there only as long as there is something to remember of it.
    fn change(&mut self, name: &SubjectName, change: impl FnOnce(&mut Subject)) {
        let subject = self.subjects.entry(name.clone()).or_insert_with(|| Arc::new(Subject::new(name.clone())));
        change(Arc::make_mut(subject));
        if subject.is_empty() {
            self.subjects.remove(name);
        }
    }
}
