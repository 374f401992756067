//! The keys of an issuer: a JSON Web Key Set (RFC 7517).

use crate::verify::Algorithm;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use std::collections::BTreeMap;

/// Bytes of a key set that are read: a hundred keys with certificates around them are less.
pub const KEYS_BYTES_MAX: usize = 256 * 1024;
/// Keys of a set that are kept; issuers have one or two, and more while they change them.
pub const KEYS_MAX: usize = 64;
/// Bytes of a key's id.
const KID_BYTES_MAX: usize = 512;
/// Bytes of a coordinate or modulus as text: RSA of 8,192 bits, the largest that is checked, has 1,366.
const NUMBER_BYTES_MAX: usize = 1_400;

/// The keys of one issuer that can be used: for signatures, of a known sort.
#[derive(Clone, Debug)]
pub struct Keys {
    named: BTreeMap<String, Key>,
    /// Those without an id.
    nameless: Vec<Key>,
    /// Keys that were passed over.
    unusable: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) decoding: DecodingKey,
    /// What the key may be used with; one family, one curve.
    algorithms: Vec<Algorithm>,
}

/// Why there are no keys in a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysFault {
    /// Too long to be read.
    #[error("the key set has {bytes} bytes; {KEYS_BYTES_MAX} are the most")]
    TooLarge {
        /// How long.
        bytes: usize,
    },
    /// No JSON, or no key set.
    #[error("this is no JSON Web Key Set: {why}")]
    Malformed {
        /// What the reader says.
        why: String,
    },
    /// More keys than are kept.
    #[error("the key set has {count} keys; {KEYS_MAX} are the most")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// None can be used.
    #[error("none of the {count} keys can be used: RSA, P-256, P-384 and Ed25519 keys for signatures can")]
    NoneUsable {
        /// How many there are.
        count: usize,
    },
}

impl Keys {
    /// Reads a key set. Keys of unknown sorts, for encryption or with an id that is there twice are passed over.
    ///
    /// # Errors
    /// When it is none, too long, or holds no key that can be used.
    pub fn parse(text: &[u8]) -> Result<Self, KeysFault> {
        if text.len() > KEYS_BYTES_MAX {
            return Err(KeysFault::TooLarge { bytes: text.len() });
        }
        let set: JwkSet =
            serde_json::from_slice(text).map_err(|error| KeysFault::Malformed { why: error.to_string() })?;
        let count = set.keys.len();
        if count > KEYS_MAX {
            return Err(KeysFault::TooMany { count });
        }
        let mut keys = Self { named: BTreeMap::new(), nameless: Vec::new(), unusable: 0 };
        for jwk in &set.keys {
            match (Key::read(jwk), jwk.common.key_id.clone()) {
                (Some(key), None) => keys.nameless.push(key),
                (Some(key), Some(kid)) if kid.len() <= KID_BYTES_MAX && !keys.named.contains_key(&kid) => {
                    keys.named.insert(kid, key);
                }
                _ => keys.unusable += 1,
            }
        }
        if keys.count() == 0 {
            return Err(KeysFault::NoneUsable { count });
        }
        Ok(keys)
    }

    /// How many can be used.
    pub fn count(&self) -> usize {
        self.named.len() + self.nameless.len()
    }

    /// How many were passed over.
    pub fn unusable(&self) -> usize {
        self.unusable
    }

    /// The key with the id `kid`. A token that names none has the only key that its algorithm fits.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        match kid {
            Some(kid) => self.named.get(kid),
            None => {
                let mut fitting = self.nameless.iter().chain(self.named.values()).filter(|key| key.fits(algorithm));
                fitting.next().filter(|_| fitting.next().is_none())
            }
        }
    }
}

impl Key {
    fn read(jwk: &Jwk) -> Option<Self> {
        if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return None;
        }
        let (algorithms, numbers) = match &jwk.algorithm {
            AlgorithmParameters::RSA(key) => (Algorithm::OF_RSA.to_vec(), [&key.n, &key.e]),
            AlgorithmParameters::EllipticCurve(key) => {
                let algorithm = match key.curve {
                    EllipticCurve::P256 => Algorithm::Es256,
                    EllipticCurve::P384 => Algorithm::Es384,
                    _ => return None,
                };
                (vec![algorithm], [&key.x, &key.y])
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (vec![Algorithm::EdDsa], [&key.x, &key.x])
            }
            _ => return None,
        };
        if numbers.iter().any(|number| number.len() > NUMBER_BYTES_MAX) {
            return None;
        }
        let declared = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        let is_declared = |algorithm: &Algorithm| declared.as_ref().is_none_or(|name| *name == algorithm.name());
        let algorithms: Vec<_> = algorithms.into_iter().filter(is_declared).collect();
        let decoding = DecodingKey::from_jwk(jwk).ok().filter(|_| !algorithms.is_empty())?;
        Some(Self { decoding, algorithms })
    }

    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}
