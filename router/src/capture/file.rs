//! The file of a capture: JSON, one value a line, described in docs/CAPTURE.md.
//!
//! The first line is the head, then come the bindings that judged, then the batches, and at last how it ended: a file
//! without an end was cut off. Whoever reads one checks all of it, as if an enemy had written it.

use super::data::{Attribute, Data};
use serde::{Deserialize, Serialize};

/// The version of the format.
pub const FORMAT: u32 = 1;

/// One line.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Line {
    Capture(Head),
    Binding(Bound),
    Batch(Batch),
    End(End),
}

/// What was captured, where, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`FORMAT`].
    pub format: u32,
    /// The capture's number at its router.
    pub id: u64,
    /// Where.
    pub site: String,
    /// By which router.
    pub router: String,
    /// The router's version.
    pub version: String,
    /// When it began, Unix milliseconds.
    pub started_unix_ms: u64,
    /// The topics.
    pub pattern: String,
    /// The one binding, where only one is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// How much of it, where not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
    /// What was replaced by `[redacted]`.
    pub redacted: Vec<String>,
    /// Whether batches are whole: with those of their events, too, that do not match.
    pub neighbours: bool,
}

/// A binding that judged; batches name it by its place among the bindings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Its name.
    pub name: String,
    /// Its module, `name@version`.
    pub module: String,
    /// SHA-256 of the module.
    pub digest: String,
    /// The catalog's revision that staged it.
    pub revision: u64,
    /// `ingress` or `egress`.
    pub stage: String,
    /// The topics that it judges.
    pub pattern: String,
    /// Its configuration; none where that is redacted.
    pub config: Option<Data>,
}

/// On which side of the matching a batch was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Before it.
    Ingress,
    /// After it, before the events are handed out.
    Egress,
    /// No binding judges these events.
    None,
}

/// Events that were judged together, as they came, and what each binding said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Counts the batches of the capture.
    pub number: u64,
    /// The thread whose filter instances judged.
    pub worker: u8,
    /// The generation that judged.
    pub generation: u64,
    /// The batch's clock.
    pub now_unix_ns: u64,
    /// On which side of the matching.
    pub side: Side,
    /// Whether the events are met here for the first time: an event that is judged on both sides stands in two batches.
    pub entry: bool,
    /// Whether events were left out, so that a filter saw more than is here.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut: bool,
    /// The events.
    pub events: Vec<Event>,
    /// What the bindings said, in the order of the chain.
    pub judged: Vec<Judged>,
}

/// An event as it came to the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Its topic.
    pub topic: String,
    /// Its attributes.
    pub attrs: Vec<Attribute>,
    /// Its payload.
    pub payload: Data,
    /// The publisher.
    pub identity: String,
    /// Whether it was asked for. Others stand beside it because a filter judged them together.
    pub matched: bool,
}

/// What one binding said about a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// The binding's place among the bindings.
    pub binding: usize,
    /// The events that it judged: those that no binding before has ended.
    pub events: Vec<Said>,
    /// What it asked its host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Call>,
}

/// What a binding said about one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// The event's place in the batch.
    pub event: usize,
    /// The attributes that it had here, where a binding before has replaced them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attrs: Option<Vec<Attribute>>,
    /// The payload that it had here, where a binding before has replaced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Data>,
    /// The verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// How the filter failed on it. A verdict beside it is that of the version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// A verdict, its numbers resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// `allow`, `deny`, `dead-letter`, `drop`, `redirect` or `add`.
    pub kind: String,
    /// The declared reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// The text that explains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// New attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attrs: Option<Vec<Attribute>>,
    /// A new payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Data>,
    /// What it emits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emitted: Vec<Emitted>,
}

/// An event that a filter made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emitted {
    /// Its topic.
    pub topic: String,
    /// Its attributes.
    pub attrs: Vec<Attribute>,
    /// Its payload.
    pub payload: Data,
}

/// How a filter failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The stable code.
    pub code: String,
    /// What happened.
    pub detail: String,
}

/// A question to the host, and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Call {
    /// `schema`.
    #[serde(rename_all = "snake_case")]
    Schema {
        /// The subject.
        subject: String,
        /// The schema.
        answer: Option<Data>,
    },
    /// `take`.
    #[serde(rename_all = "snake_case")]
    Take {
        /// The bucket.
        bucket: String,
        /// How much of it.
        n: u32,
        /// How much flows in, in every period.
        amount: u32,
        /// The period.
        period_ms: u32,
        /// What it holds at most.
        burst: u32,
        /// Whether it held as much.
        answer: bool,
    },
    /// `seen`.
    #[serde(rename_all = "snake_case")]
    Seen {
        /// The key.
        key: String,
        /// For how long it is remembered.
        ttl_ms: u64,
        /// Whether it was remembered.
        answer: bool,
    },
}

/// How a capture stood when its file was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// `running`, `stopped`, `time`, or `full`.
    pub state: String,
    /// Batches in the file.
    pub batches: u64,
    /// Matching events in the file.
    pub events: u64,
    /// Matching events that were recorded and have made room for later ones.
    pub evicted: u64,
    /// Matching events that were left out by sampling.
    pub sampled_out: u64,
    /// Matching events of batches that are larger than the whole capture may be.
    pub too_large: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Line {
    /// The line's bytes, with its end.
    pub(super) fn bytes(&self) -> Vec<u8> {
        // Nothing of it has a key that is no text: writing it cannot fail.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
