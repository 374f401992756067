//! What a router says of a shadow: to the admin API, and to another router that is asked for the whole mesh.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a candidate's new filters said about copies of live events at one router.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ShadowReport {
    /// The router's site.
    pub site: String,
    /// Its name.
    pub router: String,
    /// Whether they still judge.
    pub running: bool,
    /// For how long they have, in milliseconds.
    pub for_ms: u64,
    /// How many of a hundred events they were to judge.
    pub sample_percent: u8,
    /// Events that the sample left out.
    pub sampled_out: u64,
    /// Events that were left out because the worker's time for the shadow was used up.
    pub skipped: u64,
    /// The bindings that differ between the two sets.
    pub bindings: Vec<ShadowedBinding>,
    /// Whether samples were left out so that the answer is not too long.
    pub samples_left_out: bool,
}

/// A binding that differs between the active set and the candidate.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ShadowedBinding {
    /// Its name.
    pub name: String,
    /// `added`, `changed` or `removed`.
    #[schema(pattern = "^(added|changed|removed)$")]
    pub change: String,
    /// The active module; none where the binding is new.
    pub old: Option<String>,
    /// The candidate's module; none where the binding goes away.
    pub new: Option<String>,
    /// Events that were compared.
    pub events: u64,
    /// Those that the candidate judges otherwise.
    pub differences: u64,
    /// Those on which the new filter failed.
    pub traps: u64,
    /// Those that the new filter rejects.
    pub rejects: u64,
    /// Those that the active one rejects.
    pub base_rejects: u64,
    /// Questions to the host that the active filter did not ask: the shadow's own memory has answered them.
    pub asked_otherwise: u64,
    /// The time that 99 of 100 calls of the new filter stay below, in microseconds.
    pub call_us_p99: u32,
    /// The same in percent of what a call may use.
    pub budget_p99_percent: u8,
    /// Differences by what was said and what would be said.
    pub transitions: Vec<ShadowTransition>,
    /// The newest of them, without payloads.
    pub samples: Vec<ShadowSample>,
}

/// So many events are judged otherwise in the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShadowTransition {
    /// What the active filter said.
    pub from: String,
    /// What the new one says.
    pub to: String,
    /// How often.
    pub count: u64,
}

/// An event that the two sets judge differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShadowSample {
    /// When it was judged, Unix milliseconds.
    pub at_unix_ms: u64,
    /// The thread that judged it.
    pub worker: u8,
    /// Its topic.
    pub topic: String,
    /// Its key, where it has one.
    pub key: Option<SampledKey>,
    /// How long its payload is; what it says is not kept.
    pub payload_bytes: usize,
    /// In what the two differ.
    pub differs: Vec<String>,
    /// What the active filter said.
    pub old: ShadowSaid,
    /// What the new one says.
    pub new: ShadowSaid,
}

/// The key of an event, so that the events of one key can be told from others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SampledKey {
    /// How long it is.
    pub bytes: usize,
    /// The beginning of its SHA-256.
    pub hash: String,
}

/// What a filter says about an event, without payloads and without texts that may quote them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShadowSaid {
    /// The kind of verdict; `fault` where the filter failed, `not-judged` where no binding of that name is.
    pub verdict: String,
    /// The declared reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The stable code of the fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The routes.
    pub routes: Vec<String>,
    /// How long the new payload is, where it is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<usize>,
    /// Whether headers are replaced.
    pub headers_changed: bool,
    /// How many events are emitted beside it.
    pub emitted: usize,
}
