//! Changes that another router asks the writer of the log to make.
//!
//! A proposal names the head that it was made for, so that it can be accepted once at most: accepting it moves the
//! head. The nonce tells a proposal that is asked for again because its answer was lost from one that comes too late:
//! the first gets its answer again, the second is a `conflict`.

use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::CatalogError;
use crate::limits::{CONFIG_DEPTH_MAX, PROPOSALS_REMEMBERED, RECORD_LEN_MAX_BYTES};
use crate::op::Op;
use crate::record::Head;

#[cfg(test)]
mod tests;

/// A number that its asker uses once; drawn at random by the asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce([u8; 16]);

/// A change that another router asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// Which proposal it is.
    pub nonce: Nonce,
    /// The head that it was made for.
    pub at: Head,
    /// Who wants the change.
    pub actor: String,
    /// The change.
    pub op: Op,
}

/// The writer's memory of the proposals that it has answered.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// Oldest first.
    settled: VecDeque<Settled>,
}

#[derive(Clone, Copy, Debug)]
struct Settled {
    nonce: Nonce,
    digest: Digest,
    rev: u64,
}

/// What is to be done with a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Draft, keep and apply its change, then [`Inbox::settle`] it.
    Fresh,
    /// It was accepted before, and its asker did not hear so.
    Settled {
        /// The record that it became.
        rev: u64,
    },
}

impl Nonce {
    /// A nonce from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl Proposal {
    /// Its one encoding.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("a proposal has text keys, known lengths and bounded depth")
    }

    /// Reads a proposal; refuses every other encoding of the same one.
    ///
    /// # Errors
    /// `invalid-record`.
    pub fn decode(bytes: &[u8]) -> Result<Self, CatalogError> {
        let refuse = |why: String| CatalogError::InvalidRecord { field: "proposal", why };
        if bytes.len() > RECORD_LEN_MAX_BYTES {
            return Err(refuse(format!("it has {} bytes; {RECORD_LEN_MAX_BYTES} are the most", bytes.len())));
        }
        let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
        // As deep as a record.
        decoder.set_max_depth(2 * CONFIG_DEPTH_MAX + 16);
        let proposal = Self::deserialize(&mut decoder).map_err(|e| refuse(e.to_string()))?;
        if proposal.encode() != bytes {
            return Err(refuse("it is not written as proposals are".into()));
        }
        Ok(proposal)
    }
}

impl Inbox {
    /// Whether the change of `proposal` is to be made in a log that ends with `head`.
    ///
    /// # Errors
    /// `conflict` where it was made for another head, or its nonce was another proposal's.
    pub fn admit(&self, proposal: &Proposal, head: &Head) -> Result<Admission, CatalogError> {
        if let Some(settled) = self.settled.iter().find(|settled| settled.nonce == proposal.nonce) {
            if settled.digest == Digest::of(&proposal.encode()) {
                return Ok(Admission::Settled { rev: settled.rev });
            }
            let why = "the nonce was used for another proposal; draw a new one for each proposal";
            return Err(CatalogError::Conflict(why.into()));
        }
        if proposal.at != *head {
            return Err(CatalogError::Conflict(format!(
                "the catalog is at revision {} and the change was made for {}; look at what has changed, then try again",
                head.rev, proposal.at.rev
            )));
        }
        Ok(Admission::Fresh)
    }

    /// Remembers that `proposal` became record `rev`. The oldest is forgotten where there are too many.
    pub fn settle(&mut self, proposal: &Proposal, rev: u64) {
        if self.settled.len() == PROPOSALS_REMEMBERED {
            self.settled.pop_front();
        }
        self.settled.push_back(Settled { nonce: proposal.nonce, digest: Digest::of(&proposal.encode()), rev });
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 16];
        let refused = "a nonce is 32 hexadecimal digits, lower case";
        if text.bytes().any(|b| b.is_ascii_uppercase()) || hex::decode_to_slice(&text, &mut bytes).is_err() {
            return Err(serde::de::Error::custom(refused));
        }
        Ok(Self(bytes))
    }
}
