//! Keys that sign records, and which of them a log trusts.
//!
//! A log without keys is a log of unsigned records: its chain shows damage, not forgery. With its first `key-trusted`
//! record a log becomes a signed one for ever. That record is signed by the very key that it names, which shows that
//! whoever began had the key; from then on each record must be signed by a key that is trusted *at its place*. Because
//! a record holds the hash of the one before, the first signature covers all that came before it, too.
//!
//! Who trusts the first key? The writer of the log does by writing it: trust on first record. That is not enough for a
//! router that pulls the log from a peer, since the peer could begin a log of its own; such a router is given the
//! *root key*, the one that the first `key-trusted` record must name, by its operator (see [`crate::follower`]). One
//! value to hand out, and it stays the same when keys are exchanged: a newer key was made trusted by an older one.

use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::CatalogError;
use crate::names::Name;

/// Bytes of a signature.
pub(crate) const SIGNATURE_LEN_BYTES: usize = 64;
/// What is signed begins with this, so that the signature of a record is never one of anything else.
const DOMAIN: &[u8] = b"myelin catalog record 1\n";

/// An Ed25519 public key; as text, 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// A key that signs records, under the name by which logs know it.
pub struct SigningKey {
    id: Name,
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl PublicKey {
    /// A key from its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature`, in hexadecimal digits, is this key's for the record of that digest.
    pub(crate) fn has_signed(&self, digest: &Digest, signature: &str) -> bool {
        let mut bytes = [0; SIGNATURE_LEN_BYTES];
        let is_read = hex::decode_to_slice(signature, &mut bytes).is_ok();
        is_read && UnparsedPublicKey::new(&ED25519, self.0).verify(&message(digest), &bytes).is_ok()
    }
}

impl SigningKey {
    /// The key of that seed; the caller drew it and keeps it.
    ///
    /// # Errors
    /// `invalid-key` where the seed is none.
    pub fn from_seed(id: Name, seed: &[u8; 32]) -> Result<Self, CatalogError> {
        Self::new(id, Ed25519KeyPair::from_seed_unchecked(seed))
    }

    /// The key in a PKCS #8 document, with or without its public part.
    ///
    /// # Errors
    /// `invalid-key` where the document is none or holds another kind of key.
    pub fn from_pkcs8(id: Name, document: &[u8]) -> Result<Self, CatalogError> {
        Self::new(id, Ed25519KeyPair::from_pkcs8_maybe_unchecked(document))
    }

    fn new(id: Name, pair: Result<Ed25519KeyPair, ring::error::KeyRejected>) -> Result<Self, CatalogError> {
        let refuse = |why: String| CatalogError::InvalidSigningKey { key_id: id.to_string(), why };
        let pair = pair.map_err(|rejected| refuse(rejected.to_string()))?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| refuse("it is no Ed25519 key".into()))?;
        Ok(Self { public: PublicKey(public), id, pair })
    }

    /// The name by which logs know it.
    pub fn id(&self) -> &Name {
        &self.id
    }

    /// What others check its signatures with.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// The signature for the record of that digest, in hexadecimal digits.
    pub(crate) fn sign(&self, digest: &Digest) -> String {
        hex::encode(self.pair.sign(&message(digest)))
    }
}

fn message(digest: &Digest) -> Vec<u8> {
    [DOMAIN, digest.as_bytes()].concat()
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The seed stays out of logs.
        f.debug_struct("SigningKey").field("id", &self.id).field("public", &self.public).finish_non_exhaustive()
    }
}

impl FromStr for PublicKey {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let refused = CatalogError::InvalidKey { len: text.len() };
        // One spelling only, as for digests.
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refused);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| refused)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
