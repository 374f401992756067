//! Forwarding: the origin decides once where an event goes; every hop only splits that set by next hop.
//!
//! No hop looks at a topic to forward: each site of the set goes into exactly one copy, so that there are neither loops
//! nor doubles, whatever the relays believe, and [`HOPS_MAX`] bounds what a moment of disagreement about the routes does.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ids::{LinkId, RouterNumber, SiteNumber, SiteSet};
use crate::interest::{GroupInterest, InterestMatch};
use crate::limits::{GRANTS_MAX, HOPS_MAX};
use crate::stamp::{Grant, Grants, Stamp};
use crate::topology::{NoAllowedPath, ResidencyCache, Routes};
use crate::violation::{Violation, ViolationCode};

/// Where an event is to go, by its origin's decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The sites with plain subscribers; the own one where siblings have some.
    pub sites: SiteSet,
    /// The groups without a member at this router, and the site that serves each.
    pub grants: Grants,
    /// Sites that want it and may not have it.
    pub not_allowed: SiteSet,
    /// Sites that may have it and can only be reached through sites that may not.
    pub no_allowed_path: SiteSet,
    /// Sites that want it and cannot be reached at all.
    pub unreachable: SiteSet,
    /// Groups that nobody can serve now, or that are more than [`GRANTS_MAX`].
    pub unplaced: u32,
}

/// What a batch becomes at this router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// What this site gets; see [`hand_on`].
    pub local: Option<LocalDelivery>,
    /// The copies for other sites: their destinations and those below are a partition of the stamp's.
    pub copies: Vec<Outgoing>,
    /// Sites that no path leads to now.
    pub unreachable: SiteSet,
    /// Sites that the directory does not know ([`ViolationCode::UnknownSite`]).
    pub unknown: SiteSet,
    /// Sites that are further away than [`HOPS_MAX`] routers ([`ViolationCode::HopLimit`]).
    pub over_hops: SiteSet,
    /// Sites outside of what the stamp allows ([`ViolationCode::Residency`]).
    pub not_allowed: SiteSet,
}

/// What a site gets of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalDelivery {
    /// Every plain subscriber of the site gets it.
    pub plain: bool,
    /// One member of each of these groups gets it.
    pub groups: SmallVec<[u32; 2]>,
    /// The copy is for this very router: it is handed to no sibling.
    pub here_only: bool,
}

/// A copy that goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// By which link.
    pub link: LinkId,
    /// To whom.
    pub neighbour: RouterNumber,
    /// With which stamp. Its time to live is still that of the batch that came.
    pub stamp: Stamp,
}

/// What [`hand_on`] leaves to this router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Groups of which a member of this router gets it.
    pub groups: SmallVec<[u32; 2]>,
    /// Siblings and groups of the site that could not be served now.
    pub missed: u32,
}

impl Plan {
    /// Whether the event leaves this router at all.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty() && self.grants.is_empty()
    }

    /// What a strict caller refuses: some destination is allowed, and the way to it is not.
    ///
    /// # Errors
    /// `no_allowed_path`.
    pub fn check_paths(&self, allowed: SiteSet) -> Result<(), NoAllowedPath> {
        let sites = self.no_allowed_path;
        if sites.is_empty() { Ok(()) } else { Err(NoAllowedPath { sites, allowed }) }
    }
}

/// Decides at the origin where an event goes that `matched` has been found for.
///
/// `allowed` is its residency; `has_member` says of a group whether this router has a member, which then gets the event
/// without a grant. A group is otherwise served by a sibling, else by the nearest site.
pub fn plan(
    matched: &InterestMatch,
    routes: &Arc<Routes>,
    residency: &mut ResidencyCache,
    allowed: Option<SiteSet>,
    mut has_member: impl FnMut(&GroupInterest) -> bool,
) -> Plan {
    let mut plan = Plan::default();
    let permitted = allowed.unwrap_or(SiteSet::ALL);
    let within = match allowed {
        Some(allowed) => residency.routes(routes, allowed),
        None => routes.clone(),
    };
    plan.not_allowed = matched.sites - permitted;
    let wanted = matched.sites & permitted;
    plan.sites = wanted & within.reachable();
    plan.no_allowed_path = (wanted - plan.sites) & routes.reachable();
    plan.unreachable = wanted - plan.sites - plan.no_allowed_path;
    if !matched.siblings.is_empty() {
        if permitted.contains(routes.my_site()) {
            plan.sites.insert(routes.my_site());
        } else {
            plan.not_allowed.insert(routes.my_site());
        }
    }
    for group in &matched.groups {
        if has_member(group) {
            continue;
        }
        match place(group, &within) {
            Some(site) if plan.grants.len() < GRANTS_MAX => plan.grants.push(Grant { group: group.id, site }),
            _ => plan.unplaced += 1,
        }
    }
    plan
}

/// The site that serves a group: the own one where a sibling can, else the nearest; of equally near ones the lowest.
fn place(group: &GroupInterest, routes: &Routes) -> Option<SiteNumber> {
    if group.siblings.iter().any(|sibling| routes.direct(*sibling).is_some()) {
        return Some(routes.my_site());
    }
    let costs = group.sites.iter().filter_map(|site| Some((routes.site_cost(site)?, site)));
    costs.min().map(|(_, site)| site)
}

/// Splits a batch by next hop. At the origin the stamp has no hops yet, and [`LocalDelivery`] concerns its siblings only.
///
/// # Errors
/// `residency` where the batch must not be at this site; `not-here` where a copy for this router alone names other
/// sites. Neither closes the link; the batch is counted and dropped.
pub fn split(
    stamp: &Stamp,
    routes: &Arc<Routes>,
    residency: &mut ResidencyCache,
    out: &mut Split,
) -> Result<(), Violation> {
    *out = Split { copies: std::mem::take(&mut out.copies), ..Split::default() };
    out.copies.clear();
    let mine = routes.my_site();
    if stamp.allowed.is_some_and(|allowed| !allowed.contains(mine)) {
        let message = format!("a batch of router {} came to site {mine}, where it must not be", stamp.origin);
        return Err(Violation::new(ViolationCode::Residency, message));
    }
    let own = SiteSet::only(mine);
    let elsewhere = stamp.destinations() - own;
    if stamp.here_only && !elsewhere.is_empty() {
        let message = format!("a copy for this router alone names the sites {elsewhere:?}");
        return Err(Violation::new(ViolationCode::NotHere, message));
    }
    if stamp.destinations().contains(mine) {
        let groups = stamp.grants.iter().filter(|grant| grant.site == mine).map(|grant| grant.group).collect();
        out.local = Some(LocalDelivery { plain: stamp.sites.contains(mine), groups, here_only: stamp.here_only });
    }
    let routes = match stamp.allowed {
        Some(allowed) => residency.routes(routes, allowed),
        None => routes.clone(),
    };
    out.unknown = elsewhere - routes.known_sites();
    out.not_allowed = elsewhere - out.unknown - stamp.allowed.unwrap_or(SiteSet::ALL);
    let left = elsewhere - out.unknown - out.not_allowed;
    if stamp.hops >= HOPS_MAX {
        out.over_hops = left;
        return Ok(());
    }
    for site in left.iter() {
        let hop = routes.entry(site, stamp.origin, stamp.shard).and_then(|entry| routes.hop(entry));
        match hop {
            // Checked once more where it matters: whatever the routes say, nothing leaves to a site that is not allowed.
            Some(hop) if stamp.allowed.is_none_or(|allowed| allowed.contains(hop.site)) => {
                add(&mut out.copies, stamp, (hop.link, hop.neighbour), site);
            }
            Some(_) => out.not_allowed.insert(site),
            None => out.unreachable.insert(site),
        }
    }
    Ok(())
}

/// Adds `site`, and what is granted there, to the copy for a neighbour.
fn add(copies: &mut Vec<Outgoing>, stamp: &Stamp, (link, neighbour): (LinkId, RouterNumber), site: SiteNumber) {
    let at = copies.iter().position(|copy| copy.link == link).unwrap_or_else(|| {
        copies.push(outgoing(stamp, link, neighbour));
        copies.len() - 1
    });
    let copy = &mut copies[at].stamp;
    if stamp.sites.contains(site) {
        copy.sites.insert(site);
    }
    copy.grants.extend(stamp.grants.iter().filter(|grant| grant.site == site).copied());
}

fn outgoing(stamp: &Stamp, link: LinkId, neighbour: RouterNumber) -> Outgoing {
    let hops = (stamp.hops + 1).min(HOPS_MAX);
    let stamp = Stamp { hops, sites: SiteSet::EMPTY, grants: Grants::new(), ..*stamp };
    Outgoing { link, neighbour, stamp }
}

/// Hands a batch that `local` says is for this site to the siblings that want it, by copies that go no further, and says
/// what is left to this router. `has_member` says of a group whether this router has a member; those groups that it does
/// not serve itself go to the nearest sibling that can.
///
/// `matched` must be for the batch's topic and for the own interest table: it knows the siblings.
pub fn hand_on(
    stamp: &Stamp,
    local: &LocalDelivery,
    matched: &InterestMatch,
    routes: &Routes,
    mut has_member: impl FnMut(u32) -> bool,
    out: &mut Vec<Outgoing>,
) -> Served {
    out.clear();
    let mut served = Served::default();
    let mine = routes.my_site();
    if local.plain && !local.here_only {
        for sibling in &matched.siblings {
            match routes.direct(*sibling) {
                Some(hop) => {
                    let mut copy = here_only(stamp, hop.link, *sibling);
                    copy.stamp.sites = SiteSet::only(mine);
                    out.push(copy);
                }
                None => served.missed += 1,
            }
        }
    }
    for id in &local.groups {
        if has_member(*id) {
            served.groups.push(*id);
            continue;
        }
        let group = matched.groups.iter().find(|group| group.id == *id && !local.here_only);
        let siblings = group.map(|group| &*group.siblings).unwrap_or_default();
        let nearest =
            siblings.iter().filter_map(|sibling| routes.direct(*sibling)).min_by_key(|hop| (hop.cost, hop.neighbour));
        let Some(hop) = nearest else {
            served.missed += 1;
            continue;
        };
        let at = out.iter().position(|copy| copy.link == hop.link).unwrap_or_else(|| {
            out.push(here_only(stamp, hop.link, hop.neighbour));
            out.len() - 1
        });
        out[at].stamp.grants.push(Grant { group: *id, site: mine });
    }
    served
}

fn here_only(stamp: &Stamp, link: LinkId, sibling: RouterNumber) -> Outgoing {
    let mut copy = outgoing(stamp, link, sibling);
    copy.stamp.here_only = true;
    copy
}
