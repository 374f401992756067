//! Records, their one encoding, and the chain that they form.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{CatalogError, ChainFault};
use crate::keys::{SIGNATURE_LEN_BYTES, SigningKey};
use crate::limits::{ACTOR_LEN_MAX_BYTES, CONFIG_DEPTH_MAX, RECORD_LEN_MAX_BYTES};
use crate::names::Name;
use crate::op::Op;

/// One change of the catalog, as it stands in the log.
///
/// Its encoding is MessagePack with named fields in the order below, and there is only one for each record; its hash
/// is the SHA-256 of that. A signature, where there is one, signs [`Record::signing_digest`] (see [`crate::keys`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its place in the log; the first is 1.
    pub rev: u64,
    /// The hash of the record before; zero for the first.
    pub prev_hash: Digest,
    /// When it was written, for people: nothing is ordered by it.
    pub at_unix_ms: u64,
    /// Who wanted the change.
    pub actor: String,
    /// The change.
    pub op: Op,
    /// How it is signed.
    pub alg: Algorithm,
    /// Which key signed it; empty where none did.
    pub key_id: String,
    /// The signature as hexadecimal digits; empty where there is none.
    pub sig: String,
}

/// How a record is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Not at all: the chain shows damage, not forgery.
    #[default]
    None,
    /// With Ed25519.
    Ed25519,
}

/// The end of a log: what the next record follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The revision of the newest record; 0 where there is none.
    pub rev: u64,
    /// The hash of the newest record; zero where there is none.
    pub hash: Digest,
}

/// Follows a log and notices the first record that does not belong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    head: Head,
}

impl Head {
    /// The head of a log without records.
    pub const EMPTY: Self = Self { rev: 0, hash: Digest::ZERO };
}

impl Default for Head {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Record {
    /// An unsigned record that follows `head`.
    pub fn after(head: &Head, op: Op, actor: &str, at_unix_ms: u64) -> Self {
        Self {
            rev: head.rev + 1,
            prev_hash: head.hash,
            at_unix_ms,
            actor: actor.to_owned(),
            op,
            alg: Algorithm::None,
            key_id: String::new(),
            sig: String::new(),
        }
    }

    /// This record, signed by `key`.
    pub fn sign(mut self, key: &SigningKey) -> Self {
        self.alg = Algorithm::Ed25519;
        self.key_id = key.id().to_string();
        self.sig = key.sign(&self.signing_digest());
        self
    }

    /// The record's one encoding.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("a record has text keys, known lengths and bounded depth")
    }

    /// Reads a record; refuses every other encoding of the same record.
    pub fn decode(bytes: &[u8]) -> Result<Self, CatalogError> {
        let refuse = |why: String| CatalogError::InvalidRecord { field: "encoding", why };
        if bytes.len() > RECORD_LEN_MAX_BYTES {
            return Err(refuse(format!("it has {} bytes; {RECORD_LEN_MAX_BYTES} are the most", bytes.len())));
        }
        let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
        // A level of configuration costs at most two here; the record around it adds less than 16.
        decoder.set_max_depth(2 * CONFIG_DEPTH_MAX + 16);
        let record = Self::deserialize(&mut decoder).map_err(|e| refuse(e.to_string()))?;
        if record.encode() != bytes {
            return Err(refuse("it is not written as records are".into()));
        }
        Ok(record)
    }

    /// The hash that the next record carries.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// What a signature signs: the hash of the record with an empty signature.
    pub fn signing_digest(&self) -> Digest {
        if self.sig.is_empty() {
            return self.hash();
        }
        // The algorithm and the key stay in what is signed: a signature cannot be given to another key.
        Self { sig: String::new(), ..self.clone() }.hash()
    }

    /// Checks the record apart from its place and its change.
    pub fn validate(&self) -> Result<(), CatalogError> {
        let refuse = |field, why: String| Err(CatalogError::InvalidRecord { field, why });
        if self.actor.is_empty() || self.actor.len() > ACTOR_LEN_MAX_BYTES {
            return refuse(
                "actor",
                format!("it has {} bytes; name who changes in 1 to {ACTOR_LEN_MAX_BYTES}", self.actor.len()),
            );
        }
        if self.actor.chars().any(char::is_control) {
            return refuse("actor", "it holds a control character; remove it".into());
        }
        match self.alg {
            Algorithm::None if self.key_id.is_empty() && self.sig.is_empty() => Ok(()),
            Algorithm::None => refuse("alg", "a record with a key or a signature names its algorithm".into()),
            Algorithm::Ed25519 => self.validate_signature(),
        }
    }
}

impl Record {
    /// Whether the signature has the one form that signatures have; whether it is right is the key's to say.
    fn validate_signature(&self) -> Result<(), CatalogError> {
        let refuse = |field, why: String| Err(CatalogError::InvalidRecord { field, why });
        if let Err(refused) = self.key_id.parse::<Name>() {
            return refuse("key_id", refused.to_string());
        }
        let is_hex = self.sig.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if self.sig.len() != 2 * SIGNATURE_LEN_BYTES || !is_hex {
            let why = format!("a signature is {} lower-case hexadecimal digits", 2 * SIGNATURE_LEN_BYTES);
            return refuse("sig", why);
        }
        Ok(())
    }
}

impl Chain {
    /// The chain before its first record.
    pub fn new() -> Self {
        Self::default()
    }

    /// A chain that goes on after `head`, whose records were checked before.
    pub fn resume(head: Head) -> Self {
        Self { head }
    }

    /// Where the chain ends so far.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Takes the next record, or leaves the chain as it was.
    pub fn accept(&mut self, record: &Record) -> Result<(), CatalogError> {
        self.link(record)?;
        self.head = Head { rev: record.rev, hash: record.hash() };
        Ok(())
    }

    /// Takes the next record as it was kept, or leaves the chain as it was.
    pub fn accept_encoded(&mut self, bytes: &[u8]) -> Result<Record, CatalogError> {
        let broken = |fault| CatalogError::ChainBroken { rev: self.head.rev + 1, fault };
        let record = Record::decode(bytes).map_err(|e| broken(ChainFault::Encoding(e.to_string())))?;
        self.link(&record)?;
        self.head = Head { rev: record.rev, hash: Digest::of(bytes) };
        Ok(record)
    }

    /// Checks that the log ends where its kept head says.
    pub fn finish(&self, kept: &Head) -> Result<(), CatalogError> {
        let broken = |rev, fault| Err(CatalogError::ChainBroken { rev, fault });
        match self.head.rev.cmp(&kept.rev) {
            std::cmp::Ordering::Less => broken(self.head.rev + 1, ChainFault::Missing),
            std::cmp::Ordering::Greater => broken(kept.rev + 1, ChainFault::Surplus),
            std::cmp::Ordering::Equal if self.head.hash != kept.hash => broken(kept.rev, ChainFault::Hash),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    fn link(&self, record: &Record) -> Result<(), CatalogError> {
        let broken = |fault| Err(CatalogError::ChainBroken { rev: self.head.rev + 1, fault });
        if record.rev != self.head.rev + 1 {
            return broken(ChainFault::Revision { found: record.rev });
        }
        if record.prev_hash != self.head.hash {
            return broken(ChainFault::Previous);
        }
        Ok(())
    }
}
