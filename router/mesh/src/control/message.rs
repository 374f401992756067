//! What routers tell each other on the control stream: MessagePack maps; unknown keys are ignored.

use std::fmt;
use std::sync::Arc;

use myelin_wire::Pattern;
use myelin_wire::limits::GROUP_BYTES_MAX;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bounded::{self, FixedBytes};
use crate::ids::{RouterNumber, SiteNumber};
use crate::limits::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, DETAIL_BYTES_MAX, GENERATIONS_MAX, INTEREST_MESSAGE_ENTRIES_MAX, LINKS_MAX,
    MESSAGE_BYTES_MAX, NAME_BYTES_MAX, ROUTERS_MAX,
};
use crate::violation::ViolationCode;

/// A SHA-256 hash of the catalog's chain.
pub type CatalogHash = FixedBytes<32>;
/// The hash of an interest, SipHash-2-4 with 128 bits: see `router/mesh/src/interest/mod.rs`.
pub type InterestHash = FixedBytes<16>;

/// The end of a router's copy of the catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogHead {
    /// The newest revision.
    pub rev: u64,
    /// Its hash.
    pub hash: CatalogHash,
}

/// How far a router's advertised interest is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterestHead {
    /// The router's boot epoch.
    pub epoch: u32,
    /// Deltas so far.
    pub seq: u64,
    /// Hash of what they add up to.
    pub hash: InterestHash,
}

/// First message in each direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest version of the mesh protocol that the sender speaks.
    pub min: u16,
    /// Highest version.
    pub max: u16,
    /// Number of the sender's site.
    pub site: SiteNumber,
    /// Number of the sender.
    pub router: RouterNumber,
    /// Name of the sender's site, as in its certificate.
    #[serde(deserialize_with = "bounded::text::<_, NAME_BYTES_MAX>")]
    pub site_name: String,
    /// Name of the sender, as in its certificate.
    #[serde(deserialize_with = "bounded::text::<_, NAME_BYTES_MAX>")]
    pub router_name: String,
    /// How often the sender had started.
    pub epoch: u32,
    /// The end of its copy of the catalog.
    pub catalog: CatalogHead,
    /// Bits for what is optional; unknown ones are ignored.
    #[serde(default)]
    pub features: u64,
}

/// Answer to a hello that is not accepted; the link is closed after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloRefused {
    /// Why.
    pub code: ViolationCode,
    /// For a person.
    #[serde(deserialize_with = "bounded::text::<_, MESSAGE_BYTES_MAX>")]
    pub message: String,
}

/// What one router says about itself, flooded to all; the newest `(epoch, version)` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Who says it.
    pub owner: RouterNumber,
    /// Its boot epoch.
    pub epoch: u32,
    /// Counts its changes within the epoch.
    pub version: u64,
    /// It is about to leave: nothing is to go through it, only to it.
    #[serde(default)]
    pub draining: bool,
    /// Its neighbours and what the link to each costs, sorted by neighbour.
    #[serde(deserialize_with = "bounded::list::<_, _, LINKS_MAX>")]
    pub links: Vec<(RouterNumber, u32)>,
    /// How far its interest is.
    pub interest: InterestHead,
    /// The end of its copy of the catalog.
    pub catalog: CatalogHead,
    /// What else it says.
    pub status: Status,
}

/// What a shell tells about its router; the mesh carries it and reads none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where other routers can reach it.
    #[serde(deserialize_with = "bounded_addresses")]
    pub addresses: Vec<String>,
    /// How far it is with generations.
    #[serde(default, deserialize_with = "bounded::list::<_, _, GENERATIONS_MAX>")]
    pub generations: Vec<GenerationStatus>,
    /// How busy it is, in per mille.
    #[serde(default)]
    pub load: u16,
}

/// How far a router is with a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// Which.
    pub generation: u64,
    /// How far; the numbers are the shell's.
    pub state: u8,
    /// Why, where something is wrong.
    #[serde(default, deserialize_with = "bounded::text::<_, DETAIL_BYTES_MAX>")]
    pub detail: String,
}

/// Which link states the sender has: what a link begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// `(owner, epoch, version)` of each.
    #[serde(deserialize_with = "bounded::list::<_, _, ROUTERS_MAX>")]
    pub entries: Vec<(RouterNumber, u32, u64)>,
    /// The sender wants the receiver's digest in turn.
    #[serde(default)]
    pub reply: bool,
}

/// Asks for the newest link states of these owners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatePull {
    /// Whose.
    #[serde(deserialize_with = "bounded::list::<_, _, ROUTERS_MAX>")]
    pub owners: Vec<RouterNumber>,
}

/// The name of a queue group that has been checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// Checks `text` and keeps it: 1 to 64 bytes, no control characters.
    pub fn new(text: &str) -> Option<Self> {
        let good = (1..=GROUP_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        good.then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared text itself.
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for GroupName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for GroupName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = bounded::text::<_, GROUP_BYTES_MAX>(deserializer)?;
        Self::new(&text).ok_or_else(|| serde::de::Error::custom("a group's name is empty or has control characters"))
    }
}

/// One thing that a router is interested in: what a pattern matches, for everybody or for one member of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entry(pub Pattern, pub Option<GroupName>);

impl Entry {
    /// Levels of its pattern: what it takes in a table depends on them most.
    pub(crate) fn levels(&self) -> usize {
        self.0.as_str().split('/').count()
    }

    /// About how many bytes it takes in a message.
    pub(crate) fn encoded_bytes(&self) -> usize {
        5 + self.0.as_str().len() + self.1.as_ref().map_or(0, |group| 2 + group.as_str().len())
    }
}

/// A change of one router's advertised interest, flooded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterestDelta {
    /// Whose interest.
    pub owner: RouterNumber,
    /// What the interest is after the change; `seq` counts the deltas, the first is 1.
    pub head: InterestHead,
    /// What is new.
    #[serde(default, deserialize_with = "bounded::list::<_, _, INTEREST_MESSAGE_ENTRIES_MAX>")]
    pub added: Vec<Entry>,
    /// What is over.
    #[serde(default, deserialize_with = "bounded::list::<_, _, INTEREST_MESSAGE_ENTRIES_MAX>")]
    pub removed: Vec<Entry>,
}

/// Asks for a snapshot of one router's interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterestPull {
    /// Whose.
    pub owner: RouterNumber,
    /// What the sender has; whoever has no more does not answer.
    pub have: InterestHead,
}

/// A piece of a router's interest: what [`InterestPull`] asks for, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterestSnapshot {
    /// Whose.
    pub owner: RouterNumber,
    /// What the whole of it is.
    pub head: InterestHead,
    /// Which piece; the first is 0.
    pub index: u32,
    /// No further piece follows.
    pub last: bool,
    /// The entries.
    #[serde(deserialize_with = "bounded::list::<_, _, INTEREST_MESSAGE_ENTRIES_MAX>")]
    pub entries: Vec<Entry>,
}

/// The sender is about to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// How long it still takes what is for it, in milliseconds.
    pub drain_ms: u64,
}

/// Reads a list of at most [`ADDRESSES_MAX`] texts of at most [`ADDRESS_BYTES_MAX`] bytes.
fn bounded_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct Address(#[serde(deserialize_with = "bounded::text::<_, ADDRESS_BYTES_MAX>")] String);
    let addresses = bounded::list::<_, Address, ADDRESSES_MAX>(deserializer)?;
    Ok(addresses.into_iter().map(|address| address.0).collect())
}
