//! Why a change of the catalog is refused, or a log is not believed.

use myelin_wire::topic::TopicError;

/// Why the catalog refuses. The sentence says what, where and how to mend it; [`CatalogError::code`] is stable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// What the change names does not exist.
    #[error("there is no {what} `{name}`; {mend}")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// What it was called.
        name: String,
        /// What to do instead.
        mend: &'static str,
    },
    /// The change does not fit what is there.
    #[error("{0}")]
    Conflict(String),
    /// A bound of [`crate::limits`] is reached.
    #[error("the catalog holds {max} {what}, which is the most; {mend}")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        max: u64,
        /// What to do about it.
        mend: &'static str,
    },
    /// A text is no name.
    #[error("`{text}` is no name: {why}; use a-z, 0-9 and `-`, begin with a letter or digit, at most 63 characters")]
    InvalidName {
        /// The text, cut.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A text is no version.
    #[error("`{text}` is no version: {why}; write MAJOR.MINOR.PATCH, such as 1.4.0 or 2.0.0-rc.1")]
    InvalidVersion {
        /// The text, cut.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// A text is no digest.
    #[error("a digest is 64 hexadecimal digits, lower case; this has {len} bytes")]
    InvalidDigest {
        /// How long the text is.
        len: usize,
    },
    /// A module cannot be as it says it is.
    #[error("module {module}: {why}")]
    InvalidModule {
        /// Which.
        module: String,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// A binding cannot be as it says it is.
    #[error("binding {binding}, {field}: {why}")]
    InvalidBinding {
        /// Which.
        binding: String,
        /// Where.
        field: &'static str,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// A pattern or topic cannot be.
    #[error(transparent)]
    InvalidTopic(#[from] TopicError),
    /// A record cannot be as it says it is, apart from what it changes.
    #[error("record, {field}: {why}")]
    InvalidRecord {
        /// Where.
        field: &'static str,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// The log is not the one that was written.
    #[error("the log is broken at record {rev}: {fault}; restore the catalog from a backup or from another router")]
    ChainBroken {
        /// The first record that does not fit.
        rev: u64,
        /// How it does not fit.
        fault: ChainFault,
    },
}

/// How a record does not fit the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// Its revision is not the next one.
    #[error("it says it is record {found}")]
    Revision {
        /// The revision it has.
        found: u64,
    },
    /// It was written after another record than the one before it.
    #[error("it does not follow the record before it")]
    Previous,
    /// It is not what its hash was made of.
    #[error("it is not the record whose hash was kept")]
    Hash,
    /// The log ends elsewhere than its head says.
    #[error("the log ends before it, though its head was kept")]
    Missing,
    /// There are records after the head.
    #[error("it comes after the head that was kept")]
    Surplus,
    /// Its bytes are no record, or not in the one form a record is written in.
    #[error("its bytes are no record ({0})")]
    Encoding(String),
    /// It changes what could not be changed.
    #[error("it could never have been written ({0})")]
    Impossible(String),
}

impl CatalogError {
    /// The stable name of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not-found",
            Self::Conflict(_) => "conflict",
            Self::Full { .. } => "catalog-full",
            Self::InvalidName { .. } => "invalid-name",
            Self::InvalidVersion { .. } => "invalid-version",
            Self::InvalidDigest { .. } => "invalid-digest",
            Self::InvalidModule { .. } => "invalid-module",
            Self::InvalidBinding { .. } => "invalid-binding",
            Self::InvalidTopic(refused) => refused.code(),
            Self::InvalidRecord { .. } => "invalid-record",
            Self::ChainBroken { .. } => "chain-broken",
        }
    }
}

/// The beginning of a stranger's text, short enough for a sentence and without characters that move the cursor.
pub(crate) fn cut(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
