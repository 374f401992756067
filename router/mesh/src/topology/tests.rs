#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::states::{LinkStates, tests::state};
use super::*;
use crate::directory::{Directory, Router, Site};
use crate::ids::{LinkId, RouterNumber, SiteNumber};
use crate::limits::RESIDENCY_SETS_MAX;
use crate::site_set::SiteSet;
use crate::site_set::tests::site_sets;

/// A mesh of which everybody has the same view. Router n is at `sites[n]`.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) sites: Vec<u16>,
    pub(crate) edges: Vec<(u32, u32, u32)>,
    pub(crate) draining: Vec<u32>,
}

pub(crate) fn site(number: u16) -> SiteNumber {
    SiteNumber::new(number).unwrap()
}

pub(crate) fn set(sites: &[u16]) -> SiteSet {
    sites.iter().map(|number| site(*number)).collect()
}

impl View {
    /// One router at each of so many sites.
    pub(crate) fn new(count: u16, edges: &[(u32, u32, u32)]) -> Self {
        Self { sites: (0..count).collect(), edges: edges.to_vec(), draining: Vec::new() }
    }

    fn cost(&self, a: u32, b: u32) -> Option<u32> {
        let mut costs = self.edges.iter().filter(|(x, y, _)| (*x, *y) == (a, b) || (*y, *x) == (a, b));
        costs.next().map(|(_, _, cost)| *cost)
    }

    /// The routes as `me` computes them; the link to router n is n + 100.
    pub(crate) fn routes(&self, me: u32) -> Arc<Routes> {
        let sites = self.sites.iter().collect::<std::collections::BTreeSet<_>>().into_iter().map(|number| Site {
            number: site(*number),
            name: format!("s{number}").into(),
            region: Arc::default(),
            cloud: Arc::default(),
        });
        let routers = (0u32..).zip(&self.sites).map(|(number, at)| Router {
            number: RouterNumber(number),
            name: format!("r{number}").into(),
            site: site(*at),
        });
        let directory = Directory::new(sites, routers).unwrap();
        let (mut states, all) = (LinkStates::default(), 0..u32::try_from(self.sites.len()).unwrap());
        let neighbours = |of: u32| all.clone().filter_map(move |n| Some((n, self.cost(of, n)?)).filter(|_| n != of));
        for owner in all.clone().filter(|owner| *owner != me) {
            let mut state = state(owner, 1, 1, &neighbours(owner).collect::<Vec<_>>());
            state.draining = self.draining.contains(&owner);
            states.accept(0, state, |_| true);
        }
        let links: BTreeMap<_, _> =
            neighbours(me).map(|(n, cost)| (RouterNumber(n), (LinkId(u64::from(n) + 100), cost))).collect();
        let my_site = site(self.sites[me as usize]);
        let own = Own { router: RouterNumber(me), site: my_site, draining: self.draining.contains(&me), links: &links };
        Arc::new(Routes::new(1, Arc::new(Graph::new(&own, &states, &directory)), my_site))
    }

    /// What the best way costs by trying all, within the allowed sites.
    fn best(&self, from: u32, to: u32, allowed: &SiteSet) -> Option<u32> {
        let count = self.sites.len();
        let is_allowed = |n: u32| allowed.contains(site(self.sites[n as usize]));
        let mut best = vec![None; count];
        best[from as usize] = is_allowed(from).then_some(0u32);
        for _ in 0..count {
            for (a, b, _) in &self.edges {
                let cost = self.cost(*a, *b).unwrap();
                for (a, b) in [(*a, *b), (*b, *a)] {
                    let passes = a == from || !self.draining.contains(&a);
                    if let Some(here) = best[a as usize].filter(|_| passes && is_allowed(b) && a != b) {
                        let there = best[b as usize].map_or(here + cost, |known: u32| known.min(here + cost));
                        best[b as usize] = Some(there);
                    }
                }
            }
        }
        best[to as usize]
    }
}

/// Sites of [`views`]: in each part of a set of sites, and at its ends.
pub(crate) const SITES: [u16; 8] = [0, 1, 2, 63, 64, 127, 128, 1_023];

pub(crate) fn views() -> impl Strategy<Value = View> {
    (2usize..10).prop_flat_map(|count| {
        let end = 0..u32::try_from(count).unwrap();
        let edges = prop::collection::vec((end.clone(), end.clone(), 1u32..200), 0..25);
        let sites = prop::collection::vec(prop::sample::select(SITES.to_vec()), count);
        let draining = prop::collection::vec(end, 0..2);
        (sites, edges, draining).prop_map(|(sites, mut edges, draining)| {
            edges.retain(|(a, b, _)| a != b);
            View { sites, edges, draining }
        })
    })
}

#[test]
fn an_edge_counts_when_both_ends_state_it_and_costs_what_the_dearer_says() {
    let directory = Directory::new(
        (0..3).map(|n| Site {
            number: site(n),
            name: format!("s{n}").into(),
            region: Arc::default(),
            cloud: Arc::default(),
        }),
        (0..3).map(|n| Router { number: RouterNumber(n), name: "r".into(), site: site(u16::try_from(n).unwrap()) }),
    )
    .unwrap();
    let mut states = LinkStates::default();
    states.accept(0, state(1, 1, 1, &[(0, 30), (2, 5)]), |_| true);
    states.accept(0, state(2, 1, 1, &[]), |_| true);
    states.accept(0, state(9, 1, 1, &[(0, 1)]), |_| true);
    let links = [(RouterNumber(1), (LinkId(7), 20)), (RouterNumber(9), (LinkId(8), 1))].into();
    let own = Own { router: RouterNumber(0), site: site(0), draining: false, links: &links };
    let routes = Routes::new(1, Arc::new(Graph::new(&own, &states, &directory)), site(0));
    let hop = routes.hop(RouterNumber(1)).unwrap();
    assert_eq!((hop.link, hop.cost, hop.site), (LinkId(7), 30, site(1)));
    assert_eq!(routes.hop(RouterNumber(2)), None, "router 2 does not state it");
    assert!(!routes.reaches(RouterNumber(9)), "the directory does not know it");
    assert_eq!(*routes.reachable(), set(&[0, 1]));
    states.accept(1, state(2, 1, 2, &[(1, 4)]), |_| true);
    let routes = Routes::new(2, Arc::new(Graph::new(&own, &states, &directory)), site(0));
    assert_eq!(routes.hop(RouterNumber(2)).unwrap().cost, 35);
}

#[test]
fn a_neighbour_passes_on_what_is_of_those_behind_it_and_of_nobody_else() {
    // 3 - 0 - 1 - 2, and 4 with links to 0 and 1.
    let view = View::new(6, &[(3, 0, 1), (0, 1, 1), (1, 2, 1), (4, 0, 1), (4, 1, 1)]);
    let routes = view.routes(0);
    let may = |neighbour, router| routes.may_come_by(RouterNumber(neighbour), RouterNumber(router));
    assert!(may(3, 3) && may(1, 1) && may(1, 2), "of itself, and of one behind it");
    assert!(!may(3, 1) && !may(3, 2) && !may(3, 4), "it stands at an edge");
    assert!(may(1, 4) && may(4, 1) && may(4, 2), "there are two ways");
    assert!(!may(1, 0) && !may(3, 0), "nothing of this router comes back to it");
    assert!(!may(1, 5) && !may(1, 99), "nobody knows a way, or the router");
    // A link that one end alone states is none.
    let claimed = View { edges: vec![(3, 0, 1), (0, 1, 1)], ..view };
    assert!(!claimed.routes(0).may_come_by(RouterNumber(3), RouterNumber(1)));
}

#[test]
fn nothing_goes_through_a_router_that_is_draining_and_all_that_is_for_it_goes_to_it() {
    let mut view = View::new(4, &[(0, 1, 10), (1, 3, 10), (0, 2, 50), (2, 3, 50)]);
    assert_eq!(view.routes(0).hop(RouterNumber(3)).unwrap().neighbour, RouterNumber(1));
    view.draining = vec![1];
    let routes = view.routes(0);
    assert_eq!(routes.hop(RouterNumber(3)).unwrap().neighbour, RouterNumber(2));
    assert_eq!(routes.hop(RouterNumber(1)).unwrap().neighbour, RouterNumber(1));
    // A site with another router prefers that one as its entry; without, it has only this.
    view.sites = vec![0, 1, 1, 3];
    let routes = view.routes(0);
    assert!((0..50).all(|shard| routes.entry(site(1), RouterNumber(0), shard) == Some(RouterNumber(2))));
    view.draining = vec![1, 2];
    let routes = view.routes(0);
    let entries: std::collections::BTreeSet<_> =
        (0..50).filter_map(|shard| routes.entry(site(1), RouterNumber(0), shard)).collect();
    assert_eq!(entries.len(), 2, "they share what is for their site");
}

#[test]
fn the_loss_of_an_entry_router_moves_its_own_shards_only() {
    let full: Vec<_> = (0..5).flat_map(|a| (0..a).map(move |b| (a, b, 10))).collect();
    let mut view = View { sites: vec![0, 1, 1, 1, 1], edges: full, draining: Vec::new() };
    let before = view.routes(0);
    view.edges.retain(|(a, b, _)| *a != 4 && *b != 4);
    let after = view.routes(0);
    let mut moved = 0;
    for shard in 0..=255 {
        let (was, is) = (before.entry(site(1), RouterNumber(7), shard), after.entry(site(1), RouterNumber(7), shard));
        assert!(was == is || was == Some(RouterNumber(4)));
        moved += u32::from(was != is);
    }
    assert!((30..100).contains(&moved), "{moved} of 256 shards were at one of four routers");
}

#[test]
fn routes_of_allowed_sites_are_kept_within_a_bound_and_renewed_with_the_routes() {
    let view = View::new(20, &[(0, 1, 10), (1, 2, 10), (0, 3, 99), (3, 2, 99)]);
    let (base, mut cache) = (view.routes(0), ResidencyCache::default());
    assert!(Arc::ptr_eq(&cache.routes(&base, &SiteSet::from_bits(u128::MAX)), &base));
    let around = cache.routes(&base, &set(&[0, 2, 3]));
    assert_eq!(around.hop(RouterNumber(2)).unwrap().neighbour, RouterNumber(3));
    assert!(Arc::ptr_eq(&cache.routes(&base, &set(&[0, 2, 3])), &around));
    assert_eq!(*cache.routes(&base, &set(&[0, 2])).reachable(), set(&[0]));
    assert_eq!(*cache.routes(&base, &set(&[1, 2])).reachable(), SiteSet::EMPTY, "not even here");
    for number in 0..20 {
        cache.routes(&base, &set(&[0, number]));
    }
    assert!(!Arc::ptr_eq(&cache.routes(&base, &set(&[0, 2, 3])), &around), "{RESIDENCY_SETS_MAX} others came since");
    let newer = Arc::new(Routes::new(2, Arc::new(Graph::default()), site(0)));
    assert_eq!(*cache.routes(&newer, &set(&[0, 2, 3])).reachable(), SiteSet::EMPTY);
}

#[test]
fn routes_of_allowed_sites_are_renewed_with_the_routes_of_another_mesh_that_have_the_same_version() {
    // As of a router before and after a restart: it has counted up to the same version, over other links.
    let before = View::new(3, &[(0, 1, 10), (1, 2, 10)]).routes(0);
    let after = View::new(3, &[(0, 2, 10), (1, 2, 10)]).routes(0);
    assert_eq!(before.version(), after.version());
    let (mut cache, allowed) = (ResidencyCache::default(), set(&[0, 1]));
    assert_eq!(cache.routes(&before, &allowed).hop(RouterNumber(1)).unwrap().link, LinkId(101));
    assert!(cache.routes(&after, &allowed).hop(RouterNumber(1)).is_none(), "that link was the other mesh's");
}

proptest! {
    /// Every router takes the next step by its own routes alone, and the way is a best one that stays where it may.
    #[test]
    fn ways_are_short_end_and_stay_within_the_allowed_sites(view in views(), allowed in site_sets()) {
        let everywhere = view.sites.iter().map(|number| site(*number)).collect();
        for allowed in [&everywhere, &allowed] {
            let count = u32::try_from(view.sites.len()).unwrap();
            let routes: Vec<_> =
                (0..count).map(|me| ResidencyCache::default().routes(&view.routes(me), allowed)).collect();
            for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
                let best = view.best(from, to, allowed);
                prop_assert_eq!(routes[from as usize].reaches(RouterNumber(to)), best.is_some());
                let (Some(best), mut at, mut cost, mut steps) = (best, from, 0, 0) else { continue };
                while at != to {
                    let hop = routes[at as usize].hop(RouterNumber(to)).unwrap();
                    prop_assert!(allowed.contains(hop.site));
                    prop_assert_eq!(hop.link, LinkId(u64::from(hop.neighbour.0) + 100));
                    prop_assert!(at == from || !view.draining.contains(&at));
                    cost += view.cost(at, hop.neighbour.0).unwrap();
                    at = hop.neighbour.0;
                    steps += 1;
                    prop_assert!(steps <= count, "a loop");
                }
                prop_assert!(cost <= best + best / 100 + 1, "{} instead of {}", cost, best);
            }
        }
    }
}
