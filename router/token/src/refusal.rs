//! Why a token is not believed: a stable code, and a sentence that tells nothing of what is secret in it.

use crate::verify::TOKEN_BYTES_MAX;

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too long to be looked at.
    #[error("the token has {bytes} bytes; {TOKEN_BYTES_MAX} are the most")]
    TooLarge {
        /// How long.
        bytes: usize,
    },
    /// Not of the form of a token.
    #[error("this is no JSON Web Token in its compact form: header.claims.signature")]
    Malformed,
    /// A claim that must be there is missing, or is nothing of its kind.
    #[error("the token's `{claim}` is missing, or not {kind}; a token that its issuer makes for this router has it")]
    Claim {
        /// Which.
        claim: &'static str,
        /// What it must be.
        kind: &'static str,
    },
    /// Signed by an algorithm that is not accepted, or that its key is not for.
    #[error(
        "the token is signed by an algorithm that is not accepted; `algorithms` of its issuer below [jwt] names them"
    )]
    Algorithm,
    /// Of an issuer that is not trusted.
    #[error("the token's issuer is none of those below [jwt] issuers")]
    Issuer,
    /// Signed by a key that the issuer does not show.
    #[error("the token's key is not among those that its issuer shows; get a new token, or look at its key set")]
    Key,
    /// The issuer's keys were never read, or so long ago that they do not count.
    #[error(
        "the keys of the token's issuer have not been read yet, or not for too long; look at the router's log, then try again"
    )]
    NoKeys,
    /// The signature does not fit.
    #[error("the token's signature is not good")]
    Signature,
    /// For somebody else.
    #[error("the token is not for this router: its `aud` has none of `audience` of its issuer below [jwt]")]
    Audience,
    /// Over.
    #[error("the token is over; get a new one")]
    Expired,
    /// Not yet good.
    #[error("the token is not good yet; check both clocks")]
    NotYet,
    /// Its subject cannot be an identity.
    #[error("the token's `sub` is missing, empty, too long, or a SPIFFE name that its issuer may not give")]
    Subject,
}

impl Refusal {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "token-too-large",
            Self::Malformed => "token-malformed",
            Self::Claim { .. } => "token-claim",
            Self::Algorithm => "token-algorithm",
            Self::Issuer => "token-issuer",
            Self::Key => "token-key",
            Self::NoKeys => "token-no-keys",
            Self::Signature => "token-signature",
            Self::Audience => "token-audience",
            Self::Expired => "token-expired",
            Self::NotYet => "token-not-yet",
            Self::Subject => "token-subject",
        }
    }
}
