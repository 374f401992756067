//! What a router tells of its links.

use super::mark::InterestMark;
use crate::ledger::Exchanged;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The mesh as this router sees it.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct LinksStatus {
    /// Number of this router; 0 where it has no links.
    pub router: u32,
    /// Routers that can be reached, this one not counted.
    pub reachable: usize,
    /// Patterns that the other routers want.
    pub interest: usize,
    /// Patterns that this router's own sessions want, and its inboxes.
    pub interest_own: usize,
    /// Routers of whose patterns this one knows that it misses some, and has asked for them: 0 but for moments.
    pub interest_behind: usize,
    /// How often since the start this router has asked another one for all patterns of a third, or its own: at most once a
    /// second for each, until it has them.
    pub interest_asked: u64,
    /// How far each router's patterns are known here, by `SITE/ROUTER`, this one's included: the same everywhere but for
    /// moments.
    pub interests: BTreeMap<String, InterestMark>,
    /// The links that are up.
    pub links: Vec<LinkStatus>,
    /// Alarms by code since the start, such as a second holder of an identity, or `catalog-fork`.
    pub alarms: BTreeMap<String, u64>,
    /// Violations of peers by code since the start.
    pub violations: BTreeMap<String, u64>,
    /// Events that arrived twice and were delivered once.
    pub duplicates: u64,
    /// Copies for sites that no path led to.
    pub unreachable: u64,
    /// What went to and came from each neighbour since this router's start.
    pub neighbours: Vec<Exchanged>,
}

/// A link that is up.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LinkStatus {
    /// Site of the neighbour.
    pub site: String,
    /// Name of the neighbour.
    pub router: String,
    /// Where it is.
    pub address: String,
    /// Whether this router opened the link.
    pub dialled: bool,
    /// Round trip in microseconds.
    pub rtt_us: u64,
    /// Bytes that wait for it.
    pub queued_bytes: usize,
    /// Events that were sent to it.
    pub sent: u64,
    /// Events that it sent.
    pub received: u64,
    /// Copies that were dropped because it did not keep up.
    pub shed: u64,
}
