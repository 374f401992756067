//! Why a signature, or a change of whom the mesh trusts, is refused.

/// Why. The sentence says what, where and how to mend it; [`TrustRefusal::code`] is stable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustRefusal {
    /// A module is not signed where it must be.
    #[error(
        "module {module} is not signed and this router runs signed modules only; sign it with `myelin filter sign` and \
         push it again"
    )]
    Missing {
        /// Which.
        module: String,
    },
    /// A signature is none, or not of what it is given for.
    #[error("{what}: {why}; sign again, and send the file that this makes")]
    InvalidSignature {
        /// Of what.
        what: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A signature's time is over.
    #[error(
        "the signature of module {module} expired at Unix second {expires_unix_s}; sign it again and push it again"
    )]
    Expired {
        /// Which.
        module: String,
        /// When.
        expires_unix_s: u64,
    },
    /// The key is not trusted for what it has signed.
    #[error("{what} is signed by key {key_id}, {why}")]
    Untrusted {
        /// What.
        what: String,
        /// The key.
        key_id: String,
        /// Why it does not count, and what to do.
        why: String,
    },
    /// The signature is for something else.
    #[error("the signature of module {module} is for something else: {why}; sign this very module")]
    Mismatch {
        /// Which.
        module: String,
        /// What differs.
        why: String,
    },
    /// A text is no key.
    #[error("{why}")]
    InvalidKey {
        /// What is wrong.
        why: String,
    },
    /// A change of trust cannot be as it says it is.
    #[error("change of trust: {0}")]
    InvalidChange(String),
    /// A change of trust was made for another state.
    #[error(
        "this change of trust follows revision {given}, and the newest change is {newest}: it was applied already, or \
         another one came first; make it again with `myelin trust change`, and have it signed"
    )]
    Stale {
        /// What it follows, as it says.
        given: String,
        /// What it would have to follow.
        newest: String,
    },
    /// A change of trust has not the signatures that it needs.
    #[error("this change of trust needs {threshold} signatures by different root keys and has {valid}: {why}")]
    Signatures {
        /// How many.
        threshold: u8,
        /// How many it has.
        valid: usize,
        /// What is wrong with the others, or what to do.
        why: String,
    },
    /// A new version can do what the running one cannot.
    #[error(
        "binding {binding}: module {module} uses {new} of the host, which {running} does not; look at it, then let \
         somebody with the role releaser or security bind it with `--approve-capabilities {new}`"
    )]
    Capabilities {
        /// Which binding.
        binding: String,
        /// The new module.
        module: String,
        /// The module that is active now.
        running: String,
        /// What is new, separated by commas.
        new: String,
    },
    /// A lower version would follow a higher one.
    #[error(
        "binding {binding}: module {module} is lower than {highest}, which was active; {why}. `myelin filter \
         allow-downgrade` signs one, and `myelin bind --allow-downgrade FILE` brings it"
    )]
    Downgrade {
        /// Which binding.
        binding: String,
        /// The lower version.
        module: String,
        /// The highest version that was active.
        highest: String,
        /// What is missing or wrong.
        why: String,
    },
}

impl TrustRefusal {
    /// The stable name of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "signature-missing",
            Self::InvalidSignature { .. } => "signature-invalid",
            Self::Expired { .. } => "signature-expired",
            Self::Untrusted { .. } => "signature-untrusted",
            Self::Mismatch { .. } => "signature-mismatch",
            Self::InvalidKey { .. } => "invalid-key",
            Self::InvalidChange(_) => "invalid-trust",
            Self::Stale { .. } => "trust-stale",
            Self::Signatures { .. } => "trust-signatures",
            Self::Capabilities { .. } => "capability-approval",
            Self::Downgrade { .. } => "downgrade",
        }
    }
}
