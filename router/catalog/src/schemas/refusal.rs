//! Why the registry refuses.

use crate::schemas::SubjectName;

/// Why the registry refuses a change, or has not what is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaRefusal {
    /// A text is no name of a subject.
    #[error("`{text}` is no name of a subject: {why}")]
    InvalidSubject {
        /// The text, cut.
        text: String,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// A text is none of the words that may stand there.
    #[error("`{text}` is no {what}; write one of {known}")]
    UnknownWord {
        /// Of which kind it should be.
        what: &'static str,
        /// The text, cut.
        text: String,
        /// Those that there are.
        known: String,
    },
    /// There is no such subject.
    #[error("subject `{0}` is not there; register a schema under it first")]
    SubjectNotFound(SubjectName),
    /// The subject has no such version.
    #[error("subject `{subject}` has no version {version}; list those that it has")]
    VersionNotFound {
        /// The subject.
        subject: SubjectName,
        /// The version.
        version: u32,
    },
    /// All versions of the subject are deleted, for the time being.
    #[error("subject `{0}` was deleted, and its versions are kept; delete it permanently, or register again")]
    SubjectDeleted(SubjectName),
    /// Only what was deleted before is deleted permanently.
    #[error("subject `{0}` is in use; delete it without `permanent` first")]
    SubjectNotDeleted(SubjectName),
    /// The version is deleted, for the time being.
    #[error("version {version} of subject `{subject}` was deleted, and is kept; delete it permanently")]
    VersionDeleted {
        /// The subject.
        subject: SubjectName,
        /// The version.
        version: u32,
    },
    /// Only what was deleted before is deleted permanently.
    #[error("version {version} of subject `{subject}` is in use; delete it without `permanent` first")]
    VersionNotDeleted {
        /// The subject.
        subject: SubjectName,
        /// The version.
        version: u32,
    },
    /// Another schema refers to the version.
    #[error("version {version} of subject `{subject}` is what schema {id} refers to; delete that one first")]
    Referenced {
        /// The subject.
        subject: SubjectName,
        /// The version.
        version: u32,
        /// One that refers to it.
        id: u32,
    },
    /// The subject says nothing of its own about this.
    #[error("subject `{subject}` has no {what} of its own; ask for that of the registry, or of what holds by default")]
    NotSet {
        /// The subject.
        subject: SubjectName,
        /// About what.
        what: &'static str,
    },
    /// The mode does not let this happen.
    #[error("{what} is in mode {mode}: {mend}")]
    NotPermitted {
        /// The registry or a subject.
        what: String,
        /// Its mode.
        mode: &'static str,
        /// Why not, and what to do.
        mend: String,
    },
    /// The schema, apart from its text, cannot be as it says it is.
    #[error("schema for subject `{subject}`, {field}: {why}")]
    Invalid {
        /// Under which subject it should be kept.
        subject: SubjectName,
        /// Where.
        field: &'static str,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// The registry has changed since the change was made ready.
    #[error("the registry has changed meanwhile: {0}; try again")]
    Moved(String),
}

impl SchemaRefusal {
    /// The stable name of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidSubject { .. } => "invalid-subject",
            Self::UnknownWord { what: "level of compatibility", .. } => "invalid-compatibility",
            Self::UnknownWord { what: "mode of the registry", .. } => "invalid-mode",
            Self::UnknownWord { .. } => "invalid-format",
            Self::SubjectNotFound(_) => "subject-not-found",
            Self::VersionNotFound { .. } => "version-not-found",
            Self::SubjectDeleted(_) => "subject-deleted",
            Self::SubjectNotDeleted(_) => "subject-not-deleted",
            Self::VersionDeleted { .. } => "version-deleted",
            Self::VersionNotDeleted { .. } => "version-not-deleted",
            Self::Referenced { .. } => "schema-referenced",
            Self::NotSet { what: "mode", .. } => "mode-not-set",
            Self::NotSet { .. } => "compatibility-not-set",
            Self::NotPermitted { .. } => "registry-mode",
            Self::Invalid { .. } => "invalid-schema",
            Self::Moved(_) => "conflict",
        }
    }
}
