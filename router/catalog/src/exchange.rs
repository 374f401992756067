//! What routers ask each other about a log: its records, the bytes of its modules, changes, and how far they are.
//!
//! One question and one answer, each MessagePack with named fields and bounded before it is read. Nothing here is
//! believed because of who said it: records carry signatures, bytes are named by their digest, and a report is no more
//! than a report.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::controller::{Metrics, Phase};
use crate::digest::Digest;
use crate::error::CatalogError;
use crate::limits::{CONFIG_DEPTH_MAX, PAGE_LEN_MAX_BYTES, RECORD_LEN_MAX_BYTES};
use crate::names::Name;
use crate::proposal::Proposal;
use crate::record::Head;

/// Bytes of a question: the largest proposal and its frame.
pub const ASK_LEN_MAX_BYTES: usize = RECORD_LEN_MAX_BYTES + 1_024;
/// Bytes of an answer: the largest page and its frame.
pub const ANSWER_LEN_MAX_BYTES: usize = PAGE_LEN_MAX_BYTES + 64 * 1_024;
/// Bytes of a module in one answer: what is asked for again when a neighbour is lost on the way.
pub const BLOB_PIECE_BYTES: usize = 512 * 1024;

/// A question to another router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// The records after a revision: as many as fit a page.
    Records {
        /// The newest one that the asker has.
        after: u64,
    },
    /// Bytes of a module.
    Blob {
        /// Which.
        digest: Digest,
        /// How many of its bytes the asker has.
        offset: u64,
    },
    /// To the writer: a change.
    Propose(Box<Proposal>),
    /// To the controller: how far a router is.
    Report(RouterReport),
    /// To the controller: how far all routers are.
    Progress,
    /// What became of the events at the asked router.
    Ledger,
    /// What would become of an event that is published at the asked router.
    Explain {
        /// Its topic.
        topic: String,
        /// Who would publish it.
        identity: String,
    },
    /// What the asked router would do with an event that comes by a link.
    Hop {
        /// Its topic.
        topic: String,
        /// Its stamp, as on a link.
        stamp: ByteBuf,
    },
    /// What the asked router has recorded of a trace.
    Trace {
        /// The trace, in hexadecimal digits.
        trace: String,
    },
    /// What the shadow of a rollout's candidate found out at the asked router.
    Shadow {
        /// The rollout.
        rollout: u64,
    },
    /// Where the audit log of the asked router ends, and what it has in the place that the asker saw last.
    Audit {
        /// The newest entry that the asker knows of, of each router as `SITE/ROUTER`.
        seen: BTreeMap<String, u64>,
    },
}

/// How far a router is, in its own words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterReport {
    /// Its site.
    pub site: Name,
    /// Its name.
    pub router: Name,
    /// Of which rollout it speaks; 0 = of none.
    pub rollout: u64,
    /// Where it is.
    pub phase: Phase,
    /// How the new set does there.
    pub metrics: Metrics,
}

/// What a controller last heard of a router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heard {
    /// The report.
    pub report: RouterReport,
    /// How old it is, in milliseconds.
    pub age_ms: u64,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// Records as they were kept, oldest first; none where the asker has them all.
    Records {
        /// Where the log of the asked router ends.
        head: Head,
        /// The page.
        records: Vec<ByteBuf>,
    },
    /// Bytes of a module.
    Blob {
        /// How many bytes it has in all.
        size_bytes: u64,
        /// Those from the offset on, up to [`BLOB_PIECE_BYTES`].
        bytes: ByteBuf,
    },
    /// The change is made.
    Accepted {
        /// The record that it became.
        rev: u64,
    },
    /// The report is noted.
    Noted,
    /// What the controller heard, by site and router.
    Progress(Vec<Heard>),
    /// The ledger of the asked router, in the words of its API.
    Ledger(ByteBuf),
    /// What would become of an event, in the words of the asked router's API.
    Explained(ByteBuf),
    /// What the asked router would do with an event, in the words of its API.
    Hop(ByteBuf),
    /// What the asked router has recorded of a trace, in the words of its API.
    Trace(ByteBuf),
    /// What a shadow found out, in the words of the asked router's API.
    Shadow(ByteBuf),
    /// Where an audit log ends, as JSON.
    Audit(ByteBuf),
    /// The question is refused.
    Refused {
        /// Whose fault it is, in the words of the asked router's API.
        blame: String,
        /// The stable code.
        code: String,
        /// What, where and how to mend it.
        message: String,
    },
}

impl Ask {
    /// Its encoding.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a question.
    ///
    /// # Errors
    /// `invalid-record`.
    pub fn decode(bytes: &[u8]) -> Result<Self, CatalogError> {
        decode("question", bytes, ASK_LEN_MAX_BYTES)
    }
}

impl Answer {
    /// Its encoding.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// `invalid-record`.
    pub fn decode(bytes: &[u8]) -> Result<Self, CatalogError> {
        decode("answer", bytes, ANSWER_LEN_MAX_BYTES)
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("it has text keys, known lengths and bounded depth")
}

fn decode<T: Serialize + DeserializeOwned>(field: &'static str, bytes: &[u8], most: usize) -> Result<T, CatalogError> {
    let refuse = |why: String| CatalogError::InvalidRecord { field, why };
    if bytes.len() > most {
        return Err(refuse(format!("it has {} bytes; {most} are the most", bytes.len())));
    }
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    // As deep as a record, and what is around it.
    decoder.set_max_depth(2 * CONFIG_DEPTH_MAX + 24);
    let value = T::deserialize(&mut decoder).map_err(|e| refuse(e.to_string()))?;
    // One encoding each, as of records: nothing hides after the end or in a second field of the same name.
    match encode(&value) == bytes {
        true => Ok(value),
        false => Err(refuse("it is not written as this router would write it".into())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::op::Op;
    use crate::proposal::Nonce;
    use proptest::prelude::*;

    fn report() -> RouterReport {
        let phase = Phase::Nack { code: "self-test".into(), reason: "sample 2 is denied".into() };
        let (site, router) = ("eu1".parse().unwrap(), "r1".parse().unwrap());
        RouterReport { site, router, rollout: 7, phase, metrics: Metrics { events: 3, ..Metrics::default() } }
    }

    #[test]
    fn questions_and_answers_are_read_as_they_were_written() {
        let op = Op::BindingRemoved { name: "check".parse().unwrap() };
        let proposal = Proposal { nonce: Nonce::from_bytes([7; 16]), at: Head::EMPTY, actor: "ann".into(), op };
        let digest = Digest::of(b"module");
        let asks = [
            Ask::Records { after: 9 },
            Ask::Blob { digest, offset: 1 << 20 },
            Ask::Propose(Box::new(proposal)),
            Ask::Report(report()),
            Ask::Progress,
            Ask::Ledger,
            Ask::Explain { topic: "a/b".into(), identity: "spiffe://d/service/s".into() },
            Ask::Trace { trace: "4bf92f3577b34da6a3ce929d0e0e4736".into() },
            Ask::Shadow { rollout: 7 },
            Ask::Hop { topic: "a/b".into(), stamp: ByteBuf::from([1, 2, 3]) },
        ];
        for ask in asks {
            assert_eq!(Ask::decode(&ask.encode()).unwrap(), ask);
        }
        let answers = [
            Answer::Records { head: Head::EMPTY, records: vec![ByteBuf::from([1, 2]), ByteBuf::new()] },
            Answer::Blob { size_bytes: 5, bytes: ByteBuf::from(*b"lo") },
            Answer::Accepted { rev: 4 },
            Answer::Noted,
            Answer::Ledger(ByteBuf::from(*b"{}")),
            Answer::Explained(ByteBuf::from(*b"{}")),
            Answer::Hop(ByteBuf::from(*b"{}")),
            Answer::Trace(ByteBuf::from(*b"{}")),
            Answer::Shadow(ByteBuf::from(*b"{}")),
            Answer::Progress(vec![Heard { report: report(), age_ms: 20 }]),
            Answer::Refused { blame: "conflict".into(), code: "conflict".into(), message: "look again".into() },
        ];
        for answer in answers {
            assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
        }
    }

    #[test]
    fn bytes_of_a_module_travel_as_they_are() {
        let bytes = ByteBuf::from(vec![0xff; BLOB_PIECE_BYTES]);
        let encoded = Answer::Blob { size_bytes: 1 << 24, bytes }.encode();
        assert!(encoded.len() < BLOB_PIECE_BYTES + 64, "{}", encoded.len());
    }

    #[test]
    fn what_is_too_long_or_goes_on_is_refused() {
        let mut longer = Ask::Progress.encode();
        longer.push(0);
        assert!(Ask::decode(&longer).unwrap_err().to_string().contains("would write it"));
        assert!(Ask::decode(&vec![0; ASK_LEN_MAX_BYTES + 1]).unwrap_err().to_string().contains("are the most"));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Ask::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }
    }
}
