//! What the mesh tells its shell: what to do, what is odd, and its figures.

use bytes::Bytes;

use crate::control::Control;
use crate::ids::{LinkId, RouterNumber};
use crate::violation::Violation;

/// What the shell must do or know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this on the control streams of these links; encoded once, it is the same for all.
    Send {
        /// The links.
        links: Vec<LinkId>,
        /// The message.
        control: Control,
    },
    /// Close the link, and tell the peer why. The mesh has forgotten it already: no `link_down` is due.
    Close {
        /// Which.
        link: LinkId,
        /// Why.
        violation: Violation,
    },
    /// [`Mesh::interest`] has another answer. Comes once however much changed.
    InterestChanged,
    /// [`Mesh::routes`] has another answer. Comes once however much changed.
    RoutesChanged,
    /// [`Mesh::link_state`] of this router has another answer: its status, catalog or links.
    StatusChanged(RouterNumber),
    /// A router has been out of reach for so long that everything about it was forgotten.
    Forgotten(RouterNumber),
    /// A neighbour is about to leave: open links and streams elsewhere.
    PeerDraining {
        /// The link to it.
        link: LinkId,
        /// How long it still takes what is for it, in milliseconds.
        drain_ms: u64,
    },
    /// A message of the peer's shell.
    Application {
        /// By which link.
        link: LinkId,
        /// What kind.
        kind: u8,
        /// The message.
        body: Bytes,
    },
    /// Somebody must look at this.
    Alarm(Alarm),
}

/// What somebody must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Another holder of a router's identity wanted a link while the first is live: a disk or a key was copied. Also
    /// after a quick restart, until the old link has timed out.
    IdentityInUse {
        /// The router.
        router: RouterNumber,
        /// The boot epoch that is live.
        live: u32,
        /// The boot epoch that was refused.
        refused: u32,
    },
    /// Somebody speaks in this router's name.
    OwnIdentity {
        /// The boot epoch that was heard.
        epoch: u32,
        /// The version of the link state that was heard; 0 for a hello.
        version: u64,
    },
    /// A router wants more than this one has room for: events reach it by routers that have it.
    InterestFull {
        /// The router.
        router: RouterNumber,
    },
    /// There are more routers than there may be; this one is left out.
    RoutersFull {
        /// The router.
        router: RouterNumber,
    },
}

impl Alarm {
    /// The stable name of this alarm.
    pub fn code(&self) -> &'static str {
        match self {
            Self::IdentityInUse { .. } => "identity-in-use",
            Self::OwnIdentity { .. } => "own-identity",
            Self::InterestFull { .. } => "interest-full",
            Self::RoutersFull { .. } => "routers-full",
        }
    }
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Control messages that came.
    pub received: u64,
    /// Control messages that went out, one for each link.
    pub sent: u64,
    /// Link states that came and were known already.
    pub link_states_old: u64,
    /// Deltas that came and were applied or kept.
    pub deltas_fresh: u64,
    /// Deltas that came and were known already.
    pub deltas_duplicate: u64,
    /// Deltas of owners that are not known, or have no room.
    pub deltas_unknown: u64,
    /// Snapshots of interest that were asked for.
    pub snapshots_asked: u64,
    /// Snapshots of interest that were given.
    pub snapshots_given: u64,
    /// Questions that came sooner after one another than they may, and were not answered.
    pub questions_refused: u64,
    /// Link states that were asked for after a digest.
    pub link_states_asked: u64,
    /// What others said about neighbours, which say it themselves.
    pub hearsay: u64,
    /// Messages of peers that the directory does not know yet, which were not read.
    pub unread: u64,
    /// How often the routes were computed.
    pub routes_computed: u64,
    /// How often the own link state was flooded.
    pub link_states_told: u64,
}

/// How much is held now; each against its limit in [`crate::limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Links.
    pub links: usize,
    /// Routers whose link state is known.
    pub routers: usize,
    /// Entries of all other routers' interest.
    pub interest_entries: usize,
    /// Entries of the own interest.
    pub own_entries: usize,
    /// Routers whose interest is known to be incomplete.
    pub behind: usize,
}

/// A neighbour, for people and dashboards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The link to it.
    pub link: LinkId,
    /// Who it is.
    pub router: RouterNumber,
    /// Its boot epoch.
    pub epoch: u32,
    /// The version of the protocol that is spoken.
    pub version: u16,
    /// The optional features that it told.
    pub features: u64,
    /// What the link costs.
    pub cost: u32,
    /// Whether it is about to leave.
    pub draining: bool,
    /// Whether the directory knows it: only then does it take part.
    pub is_known: bool,
}
