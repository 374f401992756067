//! From bytes to claims.

use crate::crypto;
use crate::keys::Keys;
use crate::refusal::Refusal;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, dangerous};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Bytes of a token: with fifty groups in it one has some 4 KiB.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Texts that are read of a claim: more groups than that fit into no token of [`TOKEN_BYTES_MAX`] that means it well.
pub const TEXTS_MAX: usize = 256;

/// How a token may be signed: with a private key, always. `none` and HMAC, whose secret whoever checks a token has as
/// well, are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of RFC 7518 and RFC 8037")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Rs256, Self::Rs384, Self::Rs512, Self::Ps256, Self::Es256, Self::Es384, Self::EdDsa];
    /// Those that are accepted where nobody says which: what issuers use today.
    pub const DEFAULT: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];
    pub(crate) const OF_RSA: [Self; 4] = [Self::Rs256, Self::Rs384, Self::Rs512, Self::Ps256];

    /// As tokens spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The one that is spelt so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    fn known(algorithm: jsonwebtoken::Algorithm) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.theirs() == algorithm)
    }

    const fn theirs(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm as A;
        match self {
            Self::Rs256 => A::RS256,
            Self::Rs384 => A::RS384,
            Self::Rs512 => A::RS512,
            Self::Ps256 => A::PS256,
            Self::Es256 => A::ES256,
            Self::Es384 => A::ES384,
            Self::EdDsa => A::EdDSA,
        }
    }
}

/// What a token of an issuer must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `iss`, letter by letter.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
    /// How it may be signed.
    pub algorithms: Vec<Algorithm>,
    /// How far the clocks may be apart, in seconds.
    pub leeway_s: u64,
}

/// What a token says that is believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    /// `sub`.
    pub subject: String,
    /// Until when it counts, in Unix seconds: `exp` and the leeway.
    pub expires_unix_s: u64,
    all: Map<String, Value>,
}

impl Claims {
    /// The texts of a claim: of a list each, of a text its words, as of `scope`. A claim that lies deeper is named with
    /// dots (`realm_access.roles`), unless one is called just so.
    pub fn texts(&self, claim: &str) -> Vec<&str> {
        let found = self.all.get(claim).or_else(|| {
            let mut parts = claim.split('.');
            let first = self.all.get(parts.next()?)?;
            parts.try_fold(first, |value, part| value.get(part))
        });
        match found {
            Some(Value::String(text)) => text.split_ascii_whitespace().take(TEXTS_MAX).collect(),
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).take(TEXTS_MAX).collect(),
            _ => Vec::new(),
        }
    }
}

/// The issuer that a token names. Not believed yet: it says by whose rules the token is to be judged.
///
/// # Errors
/// When it is too long, or no token.
pub fn issuer(token: &[u8]) -> Result<String, Refusal> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        iss: Value,
    }
    check_length(token)?;
    let named: Named = dangerous::insecure_decode_claims(token).map_err(|_| Refusal::Malformed)?;
    match named.iss {
        Value::String(issuer) => Ok(issuer),
        _ => Err(Refusal::Claim { claim: "iss", kind: "a text" }),
    }
}

/// A claim that is no time.
fn no_time(claim: &'static str) -> Refusal {
    Refusal::Claim { claim, kind: "a time in Unix seconds" }
}

fn check_length(token: &[u8]) -> Result<(), Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::TooLarge { bytes: token.len() });
    }
    Ok(())
}

/// What `token` says at `now`, if one of `keys` has signed it and it is as `rules` want it.
///
/// # Errors
/// Why it is not believed.
pub fn verify(token: &[u8], keys: &Keys, rules: &Rules, now_unix_s: u64) -> Result<Claims, Refusal> {
    check_length(token)?;
    let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
        // `none` and whatever else is no algorithm that we could check.
        ErrorKind::Json(_) if has_algorithm(token) => Refusal::Algorithm,
        _ => Refusal::Malformed,
    })?;
    // What must be understood is not; and there is nothing to unpack.
    if header.crit.is_some() || header.zip.is_some() || header.enc.is_some() {
        return Err(Refusal::Malformed);
    }
    let algorithm = Algorithm::known(header.alg).filter(|algorithm| rules.algorithms.contains(algorithm));
    let algorithm = algorithm.ok_or(Refusal::Algorithm)?;
    let key = keys.find(header.kid.as_deref(), algorithm).ok_or(Refusal::Key)?;
    if !key.fits(algorithm) {
        return Err(Refusal::Algorithm);
    }
    crypto::install();
    let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, &validation(rules, algorithm))
        .map_err(|error| refusal(error.kind()))?
        .claims;
    let expires = time(&claims, "exp").ok_or(no_time("exp"))?;
    let expires_unix_s = expires.saturating_add(rules.leeway_s);
    if expires_unix_s <= now_unix_s {
        return Err(Refusal::Expired);
    }
    if claims.contains_key("nbf") {
        let not_before = time(&claims, "nbf").ok_or(no_time("nbf"))?;
        if not_before > now_unix_s.saturating_add(rules.leeway_s) {
            return Err(Refusal::NotYet);
        }
    }
    let subject = claims.get("sub").and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or(Refusal::Subject)?;
    Ok(Claims { subject: subject.to_owned(), expires_unix_s, all: claims })
}

/// Everything but the times, which the library would take from a clock of its own.
fn validation(rules: &Rules, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm.theirs());
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.set_issuer(&[&rules.issuer]);
    validation.set_audience(&rules.audiences);
    validation.required_spec_claims = HashSet::from(["exp", "iss", "aud", "sub"].map(str::to_owned));
    validation
}

/// A time in Unix seconds; the standard allows fractions.
fn time(claims: &Map<String, Value>, claim: &str) -> Option<u64> {
    let value = claims.get(claim)?;
    // Beyond 2^53 there are no whole seconds in a fraction, nor anybody who will see them.
    #[expect(clippy::cast_possible_truncation, reason = "it is within the bounds, and fractions are not wanted")]
    let seconds = |seconds: f64| (0.0..9_007_199_254_740_992.0).contains(&seconds).then_some(seconds as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(seconds))
}

/// Whether the header of what cannot be read is JSON and names an algorithm: then that is what is wrong with it.
fn has_algorithm(token: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Named {
        alg: String,
    }
    // The header in place of the claims, which the library reads for us.
    let Some(header) = token.split(|byte| *byte == b'.').next() else { return false };
    let turned = [b".", header, b"."].concat();
    dangerous::insecure_decode_claims::<Named>(turned).is_ok_and(|named| Algorithm::from_name(&named.alg).is_none())
}

fn refusal(kind: &ErrorKind) -> Refusal {
    match kind {
        ErrorKind::InvalidSignature | ErrorKind::Base64(_) => Refusal::Signature,
        ErrorKind::InvalidIssuer => Refusal::Issuer,
        ErrorKind::InvalidAudience => Refusal::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Refusal::Algorithm,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Refusal::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "sub" => Refusal::Subject,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Refusal::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "exp" => no_time("exp"),
        _ => Refusal::Malformed,
    }
}
