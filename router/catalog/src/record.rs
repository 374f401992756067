//! Records, their one encoding, and the chain that they form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::binding::Binding;
use crate::digest::Digest;
use crate::error::{CatalogError, ChainFault};
use crate::limits::{ACTOR_LEN_MAX_BYTES, CONFIG_DEPTH_MAX, RECORD_LEN_MAX_BYTES};
use crate::module::Module;
use crate::names::{ModuleRef, Name};

/// One change of the catalog, as it stands in the log.
///
/// Its encoding is MessagePack with named fields in the order below, and there is only one for each record; its hash
/// is the SHA-256 of that. A signature, once there is one, signs [`Record::signing_digest`].
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
}

/// A change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Op {
    /// A module was uploaded.
    ModuleAdded {
        /// What it is.
        module: Module,
    },
    /// A module that nothing used was removed.
    ModuleRemoved {
        /// Which.
        module: ModuleRef,
    },
    /// A binding was put into the staged set, where it replaced the one of the same name.
    BindingStaged {
        /// What it is.
        binding: Box<Binding>,
    },
    /// A binding was taken out of the staged set.
    BindingRemoved {
        /// Which.
        name: Name,
    },
    /// The staged set became active.
    Activated {
        /// The set: each binding with the revision that staged it.
        bindings: BTreeMap<Name, u64>,
    },
    /// The set of an earlier generation became active again.
    RolledBack {
        /// The number of that generation.
        to: u64,
    },
    /// A module failed too often: bindings to it answer their fault verdict from now on.
    Quarantined {
        /// The module.
        module: ModuleRef,
        /// The binding in which it failed.
        binding: Name,
        /// How it failed.
        reason: String,
    },
    /// A quarantine was lifted.
    Released {
        /// The module.
        module: ModuleRef,
    },
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

impl Op {
    /// The kind of change, as it is spelled in the log and the API.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ModuleAdded { .. } => "module-added",
            Self::ModuleRemoved { .. } => "module-removed",
            Self::BindingStaged { .. } => "binding-staged",
            Self::BindingRemoved { .. } => "binding-removed",
            Self::Activated { .. } => "activated",
            Self::RolledBack { .. } => "rolled-back",
            Self::Quarantined { .. } => "quarantined",
            Self::Released { .. } => "released",
        }
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
        Self { sig: String::new(), ..self.clone() }.hash()
    }

    /// Checks the record apart from its place and its change.
    pub fn validate(&self) -> Result<(), CatalogError> {
        let refuse = |field, why: String| Err(CatalogError::InvalidRecord { field, why });
        if self.actor.is_empty() || self.actor.len() > ACTOR_LEN_MAX_BYTES {
            return refuse("actor", format!("it has {} bytes; name who changes in 1 to 256", self.actor.len()));
        }
        if self.actor.chars().any(char::is_control) {
            return refuse("actor", "it holds a control character; remove it".into());
        }
        match self.alg {
            Algorithm::None if self.key_id.is_empty() && self.sig.is_empty() => Ok(()),
            Algorithm::None => refuse("alg", "a record with a key or a signature names its algorithm".into()),
        }
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
