//! Whether the registry can change so. Nothing here changes anything.

use std::sync::Arc;

use crate::digest::Digest;
use crate::error::CatalogError;
use crate::limits::{
    IMPORTED_ID_MAX, REFERENCE_LEN_MAX_BYTES, REFERENCES_MAX, SCHEMA_ID_MAX, SCHEMA_LEN_MAX_BYTES, SCHEMA_VERSIONS_MAX,
    SCHEMAS_TOTAL_MAX_BYTES, SUBJECT_VERSIONS_MAX, SUBJECTS_MAX,
};
use crate::schemas::subject::dependencies;
use crate::schemas::{
    CompatibilityLevel, NewSchema, Reference, Registration, RegistryMode, Schema, SchemaRefusal, Schemas, Subject,
    SubjectName, SubjectVersion,
};

impl Schemas {
    /// Whether a schema can become a version now: all but what its text says.
    ///
    /// # Errors
    /// What is wrong; `conflict` where another change came before.
    pub fn check_registration(&self, registration: &Registration) -> Result<(), CatalogError> {
        let Registration { subject, version, id, schema } = registration;
        let there = self.subject(subject.as_str());
        if self.check_writable(subject)? == RegistryMode::Import {
            // One that is there already uses no number up.
            if schema.is_some() {
                check_taken_over(subject, "id", *id)?;
            }
            check_taken_over(subject, "version", *version)?;
            self.check_registered(registration)?;
            return Ok(self.check_means_the_same(registration)?);
        }
        let (next, next_id) = (self.next(registration), self.next_id());
        check_left(there, next, schema.as_ref().map(|_| next_id))?;
        self.check_registered(registration)?;
        if *version != next {
            return Err(SchemaRefusal::Moved(format!("the next version of subject `{subject}` is {next}")).into());
        }
        if schema.is_some() && *id != next_id {
            return Err(SchemaRefusal::Moved(format!("the next id is {next_id}")).into());
        }
        Ok(())
    }

    /// Whether a log may have it: whatever an earlier router was let to write, too.
    pub(crate) fn check_registered(&self, registration: &Registration) -> Result<(), CatalogError> {
        let Registration { subject, version, id, schema } = registration;
        let is_import = self.check_writable(subject)? == RegistryMode::Import;
        if *id == 0 || *id > SCHEMA_ID_MAX || *version == 0 || *version > SCHEMA_ID_MAX {
            let why = format!("id {id} and version {version}: both are 1 to {SCHEMA_ID_MAX}");
            return Err(invalid(subject, "id", why).into());
        }
        let there = self.subject(subject.as_str());
        self.check_room(there, schema.as_ref())?;
        self.check_version(registration, there, is_import)?;
        match (schema, self.schema(*id)) {
            (None, Some(known)) => Ok(self.check_references(subject, &known.references).map(drop)?),
            (Some(new), None) => {
                self.check_id(subject, *id, &new.digest, is_import)?;
                Ok(self.check_new(subject, new)?)
            }
            (None, None) => Err(SchemaRefusal::Moved(format!("schema {id} is gone")).into()),
            (Some(_), Some(_)) if is_import => {
                let why = format!("id {id} belongs to another schema; ids are taken over only as they are elsewhere");
                Err(invalid(subject, "id", why).into())
            }
            (Some(_), Some(_)) => Err(SchemaRefusal::Moved(format!("id {id} is given")).into()),
        }
    }

    fn check_version(
        &self,
        registration: &Registration,
        there: Option<&Arc<Subject>>,
        is_import: bool,
    ) -> Result<(), SchemaRefusal> {
        let Registration { subject, version, id, .. } = registration;
        let next = self.next(registration);
        // Earlier routers went on after the newest, whatever that was; and began again with 1 where all were gone for good.
        let earlier = there.map_or((1, 1), |subject| (subject.next(), subject.newest + 1));
        if !is_import && ![next, earlier.0, earlier.1].contains(version) {
            return Err(SchemaRefusal::Moved(format!("the next version of subject `{subject}` is {next}")));
        }
        if there.is_some_and(|subject| subject.find(*version).is_some()) {
            let why = format!("version {version} is there already; versions never change");
            return Err(invalid(subject, "version", why));
        }
        match there.and_then(|subject| subject.find_schema(*id, false)) {
            Some(found) if is_import => {
                Err(invalid(subject, "version", format!("schema {id} is version {} already", found.version)))
            }
            Some(found) => Err(SchemaRefusal::Moved(format!("schema {id} is version {} already", found.version))),
            None => Ok(()),
        }
    }

    /// The version that it has to become.
    fn next(&self, registration: &Registration) -> u32 {
        let first = || self.subject(registration.subject.as_str()).map_or(1, |subject| subject.next());
        self.digest(registration).map_or_else(first, |digest| self.next_version(&registration.subject, digest))
    }

    fn digest<'a>(&'a self, Registration { id, schema, .. }: &'a Registration) -> Option<&'a Digest> {
        schema.as_ref().map(|new| &new.digest).or_else(|| self.schema(*id).map(|known| &known.digest))
    }

    /// Whether nobody who has named that version means another schema.
    fn check_means_the_same(&self, registration: &Registration) -> Result<(), SchemaRefusal> {
        let Registration { subject, version, .. } = registration;
        match self.digest(registration) {
            Some(digest) if self.was_another(subject, *version, digest) => {
                let why = format!(
                    "version {version} was another schema, which is gone for good; whoever has named it would get this one:                      give it another number"
                );
                Err(invalid(subject, "version", why))
            }
            _ => Ok(()),
        }
    }

    fn check_id(&self, subject: &SubjectName, id: u32, digest: &Digest, is_import: bool) -> Result<(), CatalogError> {
        if let Some(known) = self.ids.get(digest) {
            let moved = SchemaRefusal::Moved(format!("the schema has id {known}"));
            let why = format!("the registry has this schema as id {known}; give it that id");
            return Err(if is_import { invalid(subject, "id", why) } else { moved }.into());
        }
        if !is_import {
            let next = self.next_id();
            // As for versions.
            return match id == next || id == self.newest_id + 1 {
                true => Ok(()),
                false => Err(SchemaRefusal::Moved(format!("the next id is {next}")).into()),
            };
        }
        match self.retired.get(&id) {
            Some(retired) if retired != digest => {
                let why = format!("id {id} was another schema's, which is gone; ids are never used again");
                Err(invalid(subject, "id", why).into())
            }
            _ => Ok(()),
        }
    }

    fn check_room(&self, there: Option<&Arc<Subject>>, schema: Option<&NewSchema>) -> Result<(), CatalogError> {
        let full = |what, max, mend| Err(CatalogError::Full { what, max, mend });
        let mend = "delete some that are no longer used, permanently";
        if there.is_none() && self.subjects.len() >= SUBJECTS_MAX {
            return full("subjects", SUBJECTS_MAX as u64, mend);
        }
        if there.is_some_and(|subject| subject.versions.len() >= SUBJECT_VERSIONS_MAX) {
            return full("versions of this subject", SUBJECT_VERSIONS_MAX as u64, mend);
        }
        if self.versions >= SCHEMA_VERSIONS_MAX {
            return full("versions of schemas", SCHEMA_VERSIONS_MAX as u64, mend);
        }
        let bytes = schema.map_or(0, |schema| schema.text.len() as u64);
        if self.text_bytes + bytes > SCHEMAS_TOTAL_MAX_BYTES {
            return full("bytes of schemas", SCHEMAS_TOTAL_MAX_BYTES, mend);
        }
        Ok(())
    }

    fn check_new(&self, subject: &SubjectName, schema: &NewSchema) -> Result<(), SchemaRefusal> {
        let NewSchema { text, references, .. } = schema;
        if text.is_empty() || text.len() > SCHEMA_LEN_MAX_BYTES {
            let why = format!("it has {} bytes; 1 to {SCHEMA_LEN_MAX_BYTES} are right", text.len());
            return Err(invalid(subject, "text", why));
        }
        let referenced = self.check_references(subject, references)?;
        match dependencies(references, &referenced) {
            Ok(_) => Ok(()),
            Err(why) => Err(invalid(subject, "references", why)),
        }
    }

    /// Whether references can be followed.
    ///
    /// # Errors
    /// `invalid-schema`.
    pub fn check_references(
        &self,
        subject: &SubjectName,
        references: &[Reference],
    ) -> Result<Vec<Arc<Schema>>, SchemaRefusal> {
        if references.len() > REFERENCES_MAX {
            let why = format!("{} of them, {REFERENCES_MAX} are the most", references.len());
            return Err(invalid(subject, "references", why));
        }
        for (place, reference) in references.iter().enumerate() {
            let name = &reference.name;
            if name.is_empty() || name.len() > REFERENCE_LEN_MAX_BYTES || name.chars().any(char::is_control) {
                let why =
                    format!("number {place} is named in 1 to {REFERENCE_LEN_MAX_BYTES} bytes, none of which controls");
                return Err(invalid(subject, "references", why));
            }
            if references.iter().take(place).any(|before| before.name == *name) {
                return Err(invalid(subject, "references", format!("`{name}` is there twice; leave one out")));
            }
        }
        self.resolve(subject, references)
    }

    /// Whether a version can be deleted so.
    ///
    /// # Errors
    /// `version-not-found` and others.
    pub fn check_version_deleted(
        &self,
        subject: &SubjectName,
        version: u32,
        permanent: bool,
    ) -> Result<(), SchemaRefusal> {
        let there = self.find_subject(subject)?;
        let not_found = || SchemaRefusal::VersionNotFound { subject: subject.clone(), version };
        let found = there.find(version).ok_or_else(not_found)?;
        match (found.is_deleted(), permanent) {
            (true, false) => return Err(SchemaRefusal::VersionDeleted { subject: subject.clone(), version }),
            (false, true) => return Err(SchemaRefusal::VersionNotDeleted { subject: subject.clone(), version }),
            _ => {}
        }
        self.check_writable(subject)?;
        self.check_unreferenced(subject, found)
    }

    /// Whether all versions of a subject can be deleted so.
    ///
    /// # Errors
    /// `subject-not-found` and others.
    pub fn check_subject_deleted(&self, subject: &SubjectName, permanent: bool) -> Result<(), SchemaRefusal> {
        let there = self.find_subject(subject)?;
        match (there.is_live(), permanent) {
            (false, false) => return Err(SchemaRefusal::SubjectDeleted(subject.clone())),
            (true, true) => return Err(SchemaRefusal::SubjectNotDeleted(subject.clone())),
            _ => {}
        }
        self.check_writable(subject)?;
        there.all().try_for_each(|version| self.check_unreferenced(subject, version))
    }

    /// The subject, where it has a version, deleted or not.
    ///
    /// # Errors
    /// `subject-not-found`.
    pub fn find_subject(&self, subject: &SubjectName) -> Result<&Arc<Subject>, SchemaRefusal> {
        let found = self.subject(subject.as_str()).filter(|found| !found.versions.is_empty());
        found.ok_or_else(|| SchemaRefusal::SubjectNotFound(subject.clone()))
    }

    fn check_unreferenced(&self, subject: &SubjectName, version: &SubjectVersion) -> Result<(), SchemaRefusal> {
        let version = version.version;
        match self.referrers(subject, version).next() {
            Some(id) => Err(SchemaRefusal::Referenced { subject: subject.clone(), version, id }),
            None => Ok(()),
        }
    }

    /// The mode of a subject, where that lets it change.
    fn check_writable(&self, subject: &SubjectName) -> Result<RegistryMode, SchemaRefusal> {
        self.check_mode(&format!("subject `{subject}`"), self.mode(subject.as_str()))
    }

    fn check_mode(&self, what: &str, mode: RegistryMode) -> Result<RegistryMode, SchemaRefusal> {
        match mode {
            RegistryMode::ReadWrite | RegistryMode::Import => Ok(mode),
            RegistryMode::ReadOnly | RegistryMode::ReadOnlyOverride => Err(SchemaRefusal::NotPermitted {
                what: what.to_owned(),
                mode: mode.as_str(),
                mend: "nothing changes there; set the mode READWRITE first".to_owned(),
            }),
        }
    }

    pub(crate) fn check_compatibility_set(
        &self,
        subject: Option<&SubjectName>,
        level: Option<CompatibilityLevel>,
    ) -> Result<(), CatalogError> {
        let own = |subject: &SubjectName| self.subject(subject.as_str()).and_then(|subject| subject.compatibility);
        match subject {
            Some(subject) => self.check_writable(subject)?,
            None => self.check_mode("the registry", self.default_mode())?,
        };
        self.check_setting(subject, level.is_some(), "level of compatibility", |subject| own(subject).is_some())
    }

    pub(crate) fn check_mode_set(
        &self,
        subject: Option<&SubjectName>,
        mode: Option<RegistryMode>,
    ) -> Result<(), CatalogError> {
        if let (Some(subject), Some(RegistryMode::ReadOnlyOverride)) = (subject, mode) {
            return Err(SchemaRefusal::NotPermitted {
                what: format!("subject `{subject}`"),
                mode: self.mode(subject.as_str()).as_str(),
                mend: "READONLY_OVERRIDE is for the whole registry; set READONLY here".to_owned(),
            }
            .into());
        }
        let own = |subject: &SubjectName| self.subject(subject.as_str()).and_then(|subject| subject.mode);
        self.check_setting(subject, mode.is_some(), "mode", |subject| own(subject).is_some())
    }

    fn check_setting(
        &self,
        subject: Option<&SubjectName>,
        is_set: bool,
        what: &'static str,
        has_own: impl Fn(&SubjectName) -> bool,
    ) -> Result<(), CatalogError> {
        let Some(subject) = subject else { return Ok(()) };
        match is_set {
            true => self.check_room(self.subject(subject.as_str()), None),
            false if has_own(subject) => Ok(()),
            false => Err(SchemaRefusal::NotSet { subject: subject.clone(), what }.into()),
        }
    }
}

/// Whether a number that something has elsewhere may be taken over.
fn check_taken_over(subject: &SubjectName, field: &'static str, number: u32) -> Result<(), SchemaRefusal> {
    if number <= IMPORTED_ID_MAX {
        return Ok(());
    }
    let why = format!(
        "{number} is beyond {IMPORTED_ID_MAX}, the largest that is taken over: what is above is for what is registered here, \
         so that numbers do not run out; give the {field} that it has elsewhere, or set mode READWRITE and register it \
         without one"
    );
    Err(invalid(subject, field, why))
}

/// Whether there is a number left, and one by which a new version is the newest.
fn check_left(there: Option<&Arc<Subject>>, next: u32, next_id: Option<u32>) -> Result<(), CatalogError> {
    let full = |what, mend| Err(CatalogError::Full { what, max: SCHEMA_ID_MAX.into(), mend });
    if next_id.is_some_and(|next_id| next_id > SCHEMA_ID_MAX) {
        return full("ids of schemas", "ids are never used again: start a new catalog from an export of this one");
    }
    if next > SCHEMA_ID_MAX {
        return full("version numbers of this subject", "take another subject");
    }
    match there.and_then(|subject| Some((subject, subject.latest()?.version))) {
        Some((subject, latest)) if latest > next => {
            let name = subject.name();
            let why = format!(
                "version {latest} was taken over and is beyond {IMPORTED_ID_MAX}, and so none could be newer; delete it \
                 (`myelin schema rm {name} --version {latest}`), then register this again as version {next}"
            );
            Err(invalid(name, "version", why).into())
        }
        _ => Ok(()),
    }
}

fn invalid(subject: &SubjectName, field: &'static str, why: String) -> SchemaRefusal {
    SchemaRefusal::Invalid { subject: subject.clone(), field, why }
}
