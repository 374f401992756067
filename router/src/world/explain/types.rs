//! What an explanation says, in the words of the API and of the questions between routers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What would become of an event. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The event's topic.
    pub topic: String,
    /// Who would publish it.
    pub identity: String,
    /// The router where it would be published, as `SITE/ROUTER`.
    pub origin: String,
    /// Why no publisher may send it, where that is so. The rest then says what would become of an event that the router
    /// or a filter makes.
    pub refused: Option<AdmissionRefusal>,
    /// The rules whose schemas judge its payload at the origin, before any filter.
    #[serde(default)]
    pub schemas: Vec<ExplainedSchema>,
    /// The rollout under way whose rules and policies hold at the origin, and not yet everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governed_by: Option<u64>,
    /// The bindings that judge it at the origin before it is matched, first to last.
    pub ingress: Vec<ExplainedBinding>,
    /// Who wants it at other routers, as those have told the origin.
    pub wanted: Vec<Wanted>,
    /// Further entries of that list, which are left out.
    pub wanted_left_out: usize,
    /// The routers that it comes to, each by its own answer; the origin is the first.
    pub hops: Vec<ExplainedHop>,
    /// Where it ends.
    pub destinations: Vec<Destination>,
}

/// Why admission refuses an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdmissionRefusal {
    /// The stable code.
    pub code: String,
    /// What is wrong, and how to mend it.
    pub message: String,
}

/// A rule by whose schema a payload would be judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedSchema {
    /// The rule for topics.
    pub rule: String,
    /// What payloads are judged by now, for people.
    pub by: String,
    /// What becomes of what is not as it says: `refuse` or `dead-letter`.
    pub on_invalid: String,
    /// Whether an event without a payload, or one that names no schema, is not as it must be.
    pub is_required: bool,
}

/// A binding that would judge an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedBinding {
    /// Its name.
    pub name: String,
    /// Its place in the chain: lower comes first at ingress and last at egress.
    pub order: i32,
    /// The topics whose events it judges.
    pub pattern: String,
    /// Its module, `name@version`.
    pub module: String,
    /// SHA-256 of the module's bytes.
    pub digest: String,
    /// What becomes of an event on which the filter fails.
    pub on_fault: String,
    /// Where the bits of its verdicts lead: it may copy an event there, or send it there instead.
    pub routes: Vec<String>,
    /// Topics that it may emit further events to.
    pub may_emit_to: Vec<String>,
    /// Why it may deny, or send to the dead letters, as it declares.
    pub reasons: Vec<String>,
    /// Bytes that it may put out for each event; 0 = it never transforms, emits or explains.
    pub output_bytes_max: u32,
    /// It reads who publishes.
    pub reads_identity: bool,
    /// It failed too often and is not asked any more: every event gets the verdict for a fault.
    pub is_quarantined: bool,
}

/// A pattern by which other routers want an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Wanted {
    /// What is subscribed to there.
    pub pattern: String,
    /// As a queue group of this name: one member in the mesh gets it.
    pub group: Option<String>,
    /// The routers that say so, as `SITE/ROUTER`.
    pub routers: Vec<String>,
    /// Those of which no path leads there now: nothing is sent for them.
    pub without_path: Vec<String>,
    /// Of a group: the site that would be chosen; none where nobody can serve it now.
    pub chosen: Option<String>,
}

/// A router that an event comes to, and what it would do with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedHop {
    /// The router, as `SITE/ROUTER`.
    pub router: String,
    /// The way to it, router by router, both ends included.
    pub path: Vec<String>,
    /// What the links of that way cost: the sum of their round trips in milliseconds.
    pub cost: u32,
    /// The generation that judges there.
    pub generation: u64,
    /// The bindings that judge it there before it is handed out, first to last.
    pub egress: Vec<ExplainedBinding>,
    /// The event is for this router, too, and does not only pass by.
    pub is_destination: bool,
    /// Sessions of this router that get a copy each.
    pub subscribers: usize,
    /// Queue groups of which one member at this router gets it.
    pub groups: Vec<ExplainedGroup>,
    /// Where it goes on to.
    pub copies: Vec<ExplainedCopy>,
    /// Sites that no path leads to from here.
    pub no_path: Vec<String>,
    /// Sites that are further away than an event may go.
    pub too_far: Vec<String>,
    /// Sites that want it and at which it may not be, by a rule for its topic.
    pub not_allowed: Vec<String>,
    /// Sites at which it may be, and to which only forbidden ways lead.
    pub no_allowed_path: Vec<String>,
    /// It may not be at this router's own site, and is refused here.
    pub refused_here: bool,
    /// Why this router gave no answer, where it did not: what it would do is not known.
    pub no_answer: Option<String>,
}

/// A queue group at a router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedGroup {
    /// Its name.
    pub name: String,
    /// What its members subscribe to.
    pub pattern: String,
    /// How many members there are at this router.
    pub members: usize,
}

/// A copy that a router sends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedCopy {
    /// The neighbour, as `SITE/ROUTER`.
    pub to: String,
    /// What the link to it costs: its round trip in milliseconds.
    pub cost: u32,
    /// The sites that the copy is for.
    pub sites: Vec<String>,
}

/// How an event ends at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DestinationState {
    /// It is handed out, unless a filter on the way decides otherwise.
    Reached,
    /// It arrives, and nobody there wants it any more.
    Nobody,
    /// No path leads there.
    NoPath,
    /// It is further away than an event may go.
    TooFar,
    /// It may not be there, by a rule for its topic.
    NotAllowed,
    /// It may be there, and only forbidden ways lead there.
    NoAllowedPath,
    /// A router on the way, or there, did not answer.
    NoAnswer,
}

/// Where an event ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Destination {
    /// The site.
    pub site: String,
    /// How it ends there.
    pub state: DestinationState,
    /// The way, router by router, as far as it is known.
    pub path: Vec<String>,
    /// What the links of that way cost.
    pub cost: u32,
    /// Sessions that get a copy each.
    pub subscribers: usize,
    /// Queue groups of which one member gets it.
    pub groups: Vec<String>,
}

/// What a router answers to the question after a hop: the hop, and what to ask next for each of its copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::world) struct HopAnswer {
    pub(in crate::world) hop: ExplainedHop,
    pub(in crate::world) next: Vec<NextHop>,
}

/// A copy, as the question to the router that gets it needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::world) struct NextHop {
    /// The router's number.
    pub(in crate::world) router: u32,
    /// The copy's stamp in hexadecimal digits.
    pub(in crate::world) stamp: String,
}
