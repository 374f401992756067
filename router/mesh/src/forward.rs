//! Forwarding: the origin decides once where an event goes; every hop only splits that set by next hop.
//!
//! No hop looks at a topic to forward: each site of the set goes into exactly one copy, so that there are neither loops
//! nor doubles, whatever the relays believe, and [`Routes::hops_max`] bounds what a moment of disagreement about the routes does.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ids::{LinkId, RouterNumber, SiteNumber};
use crate::interest::{GroupInterest, InterestMatch};
use crate::limits::GRANTS_MAX;
use crate::site_set::SiteSet;
use crate::stamp::{Grant, Grants, Stamp, destinations};
use crate::topology::{Hop, NoAllowedPath, ResidencyCache, Routes};
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
    /// The residency that it was made under: the sites that the event may pass, for the stamp.
    pub allowed: Option<SiteSet>,
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
    /// Sites that are further away than [`Routes::hops_max`] routers ([`ViolationCode::HopLimit`]).
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

    /// All sites that it goes to: for plain subscribers or for a group.
    pub fn destinations(&self) -> SiteSet {
        destinations(&self.sites, &self.grants)
    }

    /// What a strict caller refuses: some destination is allowed, and the way to it is not.
    ///
    /// # Errors
    /// `no_allowed_path`.
    pub fn check_paths(&self, allowed: SiteSet) -> Result<(), NoAllowedPath> {
        let sites = &self.no_allowed_path;
        if sites.is_empty() { Ok(()) } else { Err(NoAllowedPath { sites: sites.clone(), allowed }) }
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
    let within = match &allowed {
        Some(allowed) => residency.routes(routes, allowed),
        None => routes.clone(),
    };
    let mut wanted = matched.sites.clone();
    if let Some(allowed) = &allowed {
        plan.not_allowed = &wanted - allowed;
        wanted &= allowed;
    }
    plan.sites = &wanted & within.reachable();
    wanted -= &plan.sites;
    plan.no_allowed_path = &wanted & routes.reachable();
    plan.unreachable = wanted - &plan.no_allowed_path;
    if !matched.siblings.is_empty() {
        if allowed.as_ref().is_none_or(|allowed| allowed.contains(routes.my_site())) {
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
    plan.allowed = allowed;
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
    if stamp.allowed.as_ref().is_some_and(|allowed| !allowed.contains(mine)) {
        let message = format!("a batch of router {} came to site {mine}, where it must not be", stamp.origin);
        return Err(Violation::new(ViolationCode::Residency, message));
    }
    let mut left = stamp.destinations();
    let is_for_here = left.contains(mine);
    left.remove(mine);
    if stamp.here_only && !left.is_empty() {
        let message = format!("a copy for this router alone names the sites {left:?}");
        return Err(Violation::new(ViolationCode::NotHere, message));
    }
    if is_for_here {
        let groups = stamp.grants.iter().filter(|grant| grant.site == mine).map(|grant| grant.group).collect();
        out.local = Some(LocalDelivery { plain: stamp.sites.contains(mine), groups, here_only: stamp.here_only });
    }
    let routes = match &stamp.allowed {
        Some(allowed) => residency.routes(routes, allowed),
        None => routes.clone(),
    };
    out.unknown = &left - routes.known_sites();
    left &= routes.known_sites();
    if let Some(allowed) = &stamp.allowed {
        out.not_allowed = &left - allowed;
        left &= allowed;
    }
    if stamp.hops >= routes.hops_max() {
        out.over_hops = left;
        return Ok(());
    }
    for site in left.iter() {
        let hop = routes.entry(site, stamp.origin, stamp.shard).and_then(|entry| routes.hop(entry));
        match hop {
            // Checked once more where it matters: whatever the routes say, nothing leaves to a site that is not allowed.
            Some(hop) if stamp.allowed.as_ref().is_none_or(|allowed| allowed.contains(hop.site)) => {
                add(&mut out.copies, stamp, (hop, routes.hops_max()), site);
            }
            Some(_) => out.not_allowed.insert(site),
            None => out.unreachable.insert(site),
        }
    }
    Ok(())
}

/// Adds `site`, and what is granted there, to the copy for a neighbour.
fn add(copies: &mut Vec<Outgoing>, stamp: &Stamp, (hop, hops_max): (Hop, u8), site: SiteNumber) {
    let at = copies.iter().position(|copy| copy.link == hop.link).unwrap_or_else(|| {
        copies.push(outgoing(stamp, (hop.link, hop.neighbour), hops_max));
        copies.len() - 1
    });
    let copy = &mut copies[at].stamp;
    if stamp.sites.contains(site) {
        copy.sites.insert(site);
    }
    copy.grants.extend(stamp.grants.iter().filter(|grant| grant.site == site).copied());
}

fn outgoing(stamp: &Stamp, (link, neighbour): (LinkId, RouterNumber), hops_max: u8) -> Outgoing {
    let hops = (stamp.hops + 1).min(hops_max);
    let allowed = stamp.allowed.clone();
    let stamp = Stamp { hops, sites: SiteSet::EMPTY, allowed, grants: Grants::new(), ..*stamp };
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
                    let mut copy = here_only(stamp, (hop.link, *sibling), routes.hops_max());
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
            out.push(here_only(stamp, (hop.link, hop.neighbour), routes.hops_max()));
            out.len() - 1
        });
        out[at].stamp.grants.push(Grant { group: *id, site: mine });
    }
    served
}

fn here_only(stamp: &Stamp, to: (LinkId, RouterNumber), hops_max: u8) -> Outgoing {
    let mut copy = outgoing(stamp, to, hops_max);
    copy.stamp.here_only = true;
    copy
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::*;
    use crate::limits::{HOPS_MAX, HOPS_NARROW_MAX};
    use crate::site_set::tests::site_sets;
    use crate::topology::tests::{SITES, View, set, site, views};

    fn stamp(sites: SiteSet) -> Stamp {
        Stamp {
            origin: RouterNumber(0),
            epoch: 1,
            shard: 0,
            hops: 0,
            here_only: false,
            seq: 1,
            generation: 1,
            ttl_ms: 0,
            sites,
            allowed: None,
            grants: Grants::new(),
        }
    }

    fn group(id: u32, sites: &[u16], siblings: &[u32]) -> GroupInterest {
        GroupInterest {
            id,
            name: "g".into(),
            pattern: "a".parse().unwrap(),
            sites: set(sites),
            siblings: siblings.iter().map(|number| RouterNumber(*number)).collect(),
        }
    }

    fn split_at(view: &View, me: u32, stamp: &Stamp) -> Result<Split, Violation> {
        let mut out = Split::default();
        split(stamp, &view.routes(me), &mut ResidencyCache::default(), &mut out).map(|()| out)
    }

    #[test]
    fn a_line_carries_one_copy_and_takes_each_site_out_where_it_is() {
        let view = View::new(4, &[(0, 1, 10), (1, 2, 10), (2, 3, 10)]);
        let at_origin = split_at(&view, 0, &stamp(set(&[1, 3]))).unwrap();
        assert_eq!(at_origin.local, None);
        let [copy] = &at_origin.copies[..] else { panic!("{at_origin:?}") };
        assert_eq!((copy.link, copy.stamp.hops, &copy.stamp.sites), (LinkId(101), 1, &set(&[1, 3])));
        let at_first = split_at(&view, 1, &copy.stamp).unwrap();
        assert!(at_first.local.is_some_and(|local| local.plain));
        let [copy] = &at_first.copies[..] else { panic!("{:?}", at_first.copies) };
        assert_eq!((copy.link, copy.stamp.hops, &copy.stamp.sites), (LinkId(102), 2, &set(&[3])));
    }

    #[test]
    fn an_event_goes_no_further_than_the_hop_limit() {
        let view = View::new(3, &[(0, 1, 10), (1, 2, 10)]);
        let spent = Stamp { hops: HOPS_NARROW_MAX, ..stamp(set(&[1, 2])) };
        let out = split_at(&view, 1, &spent).unwrap();
        assert!(out.copies.is_empty() && out.local.is_some());
        assert_eq!(out.over_hops, set(&[2]));
        // Where no router is from before, it goes further.
        let view = View { sites: vec![0, 1, 128], ..view };
        let out = split_at(&view, 1, &Stamp { hops: HOPS_NARROW_MAX, ..stamp(set(&[128])) }).unwrap();
        assert_eq!((out.copies[0].stamp.hops, out.copies.len()), (HOPS_NARROW_MAX + 1, 1));
        let out = split_at(&view, 1, &Stamp { hops: HOPS_MAX, ..stamp(set(&[128])) }).unwrap();
        assert_eq!((out.copies.len(), out.over_hops), (0, set(&[128])));
    }

    #[test]
    fn a_copy_for_one_router_goes_no_further_and_names_no_other_site() {
        let view = View::new(3, &[(0, 1, 10), (1, 2, 10)]);
        let here = Stamp { here_only: true, hops: 1, ..stamp(set(&[1])) };
        let out = split_at(&view, 1, &here).unwrap();
        assert!(out.copies.is_empty());
        assert!(out.local.unwrap().here_only);
        let refused = split_at(&view, 1, &Stamp { sites: set(&[1, 2]), ..here }).unwrap_err();
        assert_eq!((refused.code, refused.closes_link()), (ViolationCode::NotHere, false));
    }

    #[test]
    fn residency_binds_paths_and_not_only_destinations() {
        // The short way to site 3 leads through site 1; that to site 4 through nothing else.
        let view = View::new(5, &[(0, 1, 10), (1, 3, 10), (0, 2, 50), (2, 3, 50), (1, 4, 10)]);
        let allowed = set(&[0, 2, 3, 4]);
        let matched = InterestMatch { sites: set(&[1, 3, 4]), ..InterestMatch::default() };
        let (routes, mut residency) = (view.routes(0), ResidencyCache::default());
        let plan = plan(&matched, &routes, &mut residency, Some(allowed.clone()), |_| false);
        let parts = (&plan.sites, &plan.not_allowed, &plan.no_allowed_path);
        assert_eq!(parts, (&set(&[3]), &set(&[1]), &set(&[4])));
        let refused = plan.check_paths(allowed.clone()).unwrap_err();
        assert_eq!((refused.code(), refused.sites), ("no_allowed_path", set(&[4])));
        let bound = Stamp { allowed: Some(allowed.clone()), ..stamp(set(&[1, 3, 4])) };
        let out = split_at(&view, 0, &bound).unwrap();
        assert_eq!(out.copies[0].link, LinkId(102));
        assert_eq!(out.copies[0].stamp.allowed, Some(allowed));
        assert_eq!((out.not_allowed, out.unreachable), (set(&[1]), set(&[4])), "checked again at every hop");
        let refused = split_at(&view, 1, &bound).unwrap_err();
        assert_eq!((refused.code, refused.closes_link()), (ViolationCode::Residency, false));
    }

    #[test]
    fn a_group_is_served_here_or_by_a_sibling_or_at_the_nearest_site_and_elsewhere_when_that_is_gone() {
        let mut view =
            View { sites: vec![0, 0, 1, 2], edges: vec![(0, 1, 1), (0, 2, 30), (0, 3, 20)], draining: vec![] };
        let matched =
            InterestMatch { groups: vec![group(1, &[1, 2], &[]), group(2, &[1], &[1])], ..InterestMatch::default() };
        let grants = |view: &View, mine: u32| {
            let plan = plan(&matched, &view.routes(0), &mut ResidencyCache::default(), None, |group| group.id == mine);
            (plan.grants.iter().map(|grant| (grant.group, grant.site.number())).collect::<Vec<_>>(), plan.unplaced)
        };
        assert_eq!(grants(&view, 0), (vec![(1, 2), (2, 0)], 0));
        assert_eq!(grants(&view, 1), (vec![(2, 0)], 0), "a member of this router needs no grant");
        view.edges.retain(|(_, b, _)| *b != 3);
        assert_eq!(grants(&view, 0), (vec![(1, 1), (2, 0)], 0));
        view.edges.retain(|(_, b, _)| *b != 1);
        assert_eq!(grants(&view, 0), (vec![(1, 1), (2, 1)], 0));
        view.edges.clear();
        assert_eq!(grants(&view, 0), (vec![], 2));
    }

    #[test]
    fn an_entry_router_hands_each_sibling_one_copy_with_all_that_is_for_it() {
        let view = View {
            sites: vec![0, 0, 0, 0, 1],
            edges: vec![(0, 1, 5), (0, 2, 1), (1, 2, 1), (1, 3, 1), (0, 4, 10)],
            draining: vec![],
        };
        let grants = (1..=4).map(|group| Grant { group, site: site(0) }).collect();
        let came = Stamp { hops: 1, origin: RouterNumber(4), grants, ..stamp(set(&[0])) };
        let local = split_at(&view, 0, &came).unwrap().local.unwrap();
        let matched = InterestMatch {
            siblings: [1, 3].map(RouterNumber).into_iter().collect(),
            groups: vec![group(2, &[], &[1]), group(3, &[], &[1, 2]), group(4, &[], &[3])],
            ..InterestMatch::default()
        };
        let mut out = Vec::new();
        let served = hand_on(&came, &local, &matched, &view.routes(0), |id| id == 1, &mut out);
        assert_eq!(&served.groups[..], [1]);
        assert_eq!(served.missed, 2, "router 3 and its group: there is no link to it");
        let copies: Vec<_> = out
            .iter()
            .map(|copy| {
                assert!(copy.stamp.here_only && copy.stamp.hops == 2);
                let groups: Vec<_> = copy.stamp.grants.iter().map(|grant| grant.group).collect();
                (copy.link.0, copy.stamp.sites.clone(), groups)
            })
            .collect();
        assert_eq!(copies, [(101, set(&[0]), vec![2]), (102, SiteSet::EMPTY, vec![3])]);
        // The sibling that got it serves what it can and hands nothing on.
        let at_sibling = split_at(&view, 1, &out[0].stamp).unwrap().local.unwrap();
        let served = hand_on(&out[0].stamp.clone(), &at_sibling, &matched, &view.routes(1), |_| false, &mut out);
        assert_eq!((out.len(), served.groups.len(), served.missed), (0, 0, 1));
    }

    proptest! {
        #[test]
        fn what_becomes_of_a_set_is_a_partition_of_it(
            view in views(), me in 0u32..10, sites in site_sets(), allowed in prop::option::of(site_sets()),
            grants in prop::collection::vec((0u32..5, prop::sample::select(SITES.to_vec())), 0..8), hops in 0..=HOPS_MAX,
        ) {
            let me = me % u32::try_from(view.sites.len()).unwrap();
            let mine = site(view.sites[me as usize]);
            let grants: Grants = grants.into_iter().map(|(group, at)| Grant { group, site: site(at) }).collect();
            let allowed = allowed.map(|allowed| allowed | &SiteSet::only(mine));
            let came = Stamp { hops, allowed, grants, ..stamp(sites) };
            let out = split_at(&view, me, &came).unwrap();
            let mut parts: Vec<SiteSet> = out.copies.iter().map(|copy| copy.stamp.destinations()).collect();
            parts.extend([out.unreachable, out.unknown, out.over_hops, out.not_allowed]);
            parts.extend(out.local.as_ref().map(|_| SiteSet::only(mine)));
            let (mut all, mut sum) = (SiteSet::EMPTY, 0);
            for part in parts {
                all |= &part;
                sum += part.len();
            }
            prop_assert_eq!(&all, &came.destinations());
            prop_assert_eq!(sum, all.len(), "no site is in two parts");
            for copy in &out.copies {
                prop_assert_eq!(copy.stamp.hops, came.hops + 1);
                prop_assert!(came.sites.contains_all(&copy.stamp.sites));
                let to = copy.stamp.destinations();
                let granted: Vec<_> = came.grants.iter().filter(|grant| to.contains(grant.site)).collect();
                prop_assert_eq!(granted.len(), copy.stamp.grants.len());
                prop_assert!(granted.into_iter().all(|grant| copy.stamp.grants.contains(grant)));
                prop_assert_eq!(&copy.stamp.sites, &(&came.sites & &to), "plain bits stay plain bits");
            }
            let mut links: Vec<_> = out.copies.iter().map(|copy| copy.link).collect();
            links.sort_unstable();
            links.dedup();
            prop_assert_eq!(links.len(), out.copies.len(), "one copy for each link");
        }
    }
}
