//! Why a change of the catalog is refused, or a log is not believed.

use myelin_wire::topic::TopicError;

use crate::schemas::SchemaRefusal;
use crate::trust::TrustRefusal;

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
    /// A rollout is under way, and what it works with stays as it is.
    #[error("rollout {id} is under way ({state}); {mend}")]
    RolloutRunning {
        /// Which.
        id: u64,
        /// Where it stands.
        state: String,
        /// What to do about it.
        mend: &'static str,
    },
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
    /// A rule for topics cannot be as it says it is.
    #[error("topic rule {rule}, {field}: {why}")]
    InvalidTopicRule {
        /// Which.
        rule: String,
        /// Where.
        field: &'static str,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// A policy cannot be as it says it is.
    #[error("policy {policy}: {why}")]
    InvalidPolicy {
        /// Which.
        policy: String,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// A tenant cannot be as it says it is.
    #[error("tenant {tenant}, {field}: {why}")]
    InvalidTenant {
        /// Which.
        tenant: String,
        /// Where.
        field: &'static str,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// A text selects no services.
    #[error("a selector of services: {why}")]
    InvalidServiceSelector {
        /// What is wrong and how to mend it.
        why: String,
    },
    /// A tenant has as much as its quota lets it have.
    #[error(
        "tenant {tenant} has {has} {what}, and its quota is {max}; remove one, or raise `{field}` (`myelin tenant`)"
    )]
    TenantQuota {
        /// Which.
        tenant: String,
        /// What it has.
        what: &'static str,
        /// How many, with the one that is refused.
        has: u64,
        /// How many it may have.
        max: u64,
        /// The quota.
        field: &'static str,
    },
    /// A pattern or topic cannot be.
    #[error(transparent)]
    InvalidTopic(#[from] TopicError),
    /// The schema registry refuses.
    #[error(transparent)]
    Schema(#[from] SchemaRefusal),
    /// A signature, or a change of whom the mesh trusts, is refused.
    #[error(transparent)]
    Trust(Box<TrustRefusal>),
    /// A record cannot be as it says it is, apart from what it changes.
    #[error("record, {field}: {why}")]
    InvalidRecord {
        /// Where.
        field: &'static str,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// A text is no key.
    #[error("a public key is 64 hexadecimal digits, lower case; this has {len} bytes")]
    InvalidKey {
        /// How long the text is.
        len: usize,
    },
    /// A signing key's bytes are none.
    #[error("signing key {key_id}: {why}; give an Ed25519 key as PKCS #8, or its seed of 32 bytes")]
    InvalidSigningKey {
        /// What the key is called.
        key_id: String,
        /// What is wrong.
        why: String,
    },
    /// A record is not signed as this log demands.
    #[error("record {rev} {fault}")]
    Signature {
        /// Which.
        rev: u64,
        /// How.
        fault: SignatureFault,
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

/// How a record is not signed as its log demands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// It is not signed, and the log trusts keys.
    #[error("is not signed and this log takes signed records only; sign it with a key that the catalog trusts")]
    Unsigned,
    /// Its key is not one that the log trusted at that place.
    #[error("is signed by key `{key_id}`, which the catalog does not trust; trust the key first, or sign with another")]
    UnknownKey {
        /// Which key.
        key_id: String,
    },
    /// Its key was revoked before.
    #[error("is signed by key `{key_id}`, which record {revoked_rev} revoked; sign it with another key")]
    RevokedKey {
        /// Which key.
        key_id: String,
        /// The record that revoked it.
        revoked_rev: u64,
    },
    /// It is not what its key signed.
    #[error("is not what key `{key_id}` signed; take it from another router, and look who changed it on its way")]
    Bad {
        /// Which key.
        key_id: String,
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

impl From<TrustRefusal> for CatalogError {
    fn from(refusal: TrustRefusal) -> Self {
        Self::Trust(Box::new(refusal))
    }
}

impl CatalogError {
    /// The stable name of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not-found",
            Self::Conflict(_) => "conflict",
            Self::RolloutRunning { .. } => "rollout-running",
            Self::Full { .. } => "catalog-full",
            Self::InvalidName { .. } => "invalid-name",
            Self::InvalidVersion { .. } => "invalid-version",
            Self::InvalidDigest { .. } => "invalid-digest",
            Self::InvalidModule { .. } => "invalid-module",
            Self::InvalidBinding { .. } => "invalid-binding",
            Self::InvalidTopicRule { .. } => "invalid-topic-rule",
            Self::InvalidPolicy { .. } => "invalid-policy",
            Self::InvalidTenant { .. } => "invalid-tenant",
            Self::InvalidServiceSelector { .. } => "invalid-service-selector",
            Self::TenantQuota { .. } => "tenant-quota",
            Self::InvalidTopic(refused) => refused.code(),
            Self::Schema(refused) => refused.code(),
            Self::Trust(refused) => refused.code(),
            Self::InvalidRecord { .. } => "invalid-record",
            Self::InvalidKey { .. } | Self::InvalidSigningKey { .. } => "invalid-key",
            Self::Signature { fault, .. } => fault.code(),
            Self::ChainBroken { .. } => "chain-broken",
        }
    }
}

impl SignatureFault {
    /// The stable name of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned-record",
            Self::UnknownKey { .. } => "unknown-key",
            Self::RevokedKey { .. } => "revoked-key",
            Self::Bad { .. } => "bad-signature",
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
