//! Routes: the next hop to every router and site, immutable once computed.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::graph::Reached;
use super::{Graph, mix};
use crate::ids::{LinkId, RouterNumber, SiteNumber};
use crate::limits::{HOPS_MAX, HOPS_NARROW_MAX, RESIDENCY_SETS_MAX, SITES_NARROW};
use crate::site_set::SiteSet;

/// The way to a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The link to take.
    pub link: LinkId,
    /// Who is at the other end of it.
    pub neighbour: RouterNumber,
    /// That router's site.
    pub site: SiteNumber,
    /// What the whole way costs: the sum of round trips in milliseconds.
    pub cost: u32,
}

/// All routes of one router under one view of the mesh: immutable, shared by all workers.
#[derive(Clone)]
pub struct Routes {
    version: u64,
    graph: Arc<Graph>,
    /// The sites that nothing leaves; none = all may be passed.
    allowed: Option<SiteSet>,
    my_site: SiteNumber,
    /// Sorted by router.
    reached: Vec<Reached>,
    /// By site, up to the highest that can be reached: the routers that take what is for the site.
    entries: Vec<SmallVec<[RouterNumber; 4]>>,
    /// By site, as many.
    site_costs: Vec<u32>,
    reachable: SiteSet,
}

/// A destination is allowed and there is no way to it that stays within the allowed sites.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no path to {sites:?} stays within the allowed sites {allowed:?}; allow a site between, or add a link")]
pub struct NoAllowedPath {
    /// The destinations.
    pub sites: SiteSet,
    /// Where the event may be.
    pub allowed: SiteSet,
}

impl NoAllowedPath {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        "no_allowed_path"
    }
}

impl Routes {
    /// The routes over `graph`.
    pub(crate) fn new(version: u64, graph: Arc<Graph>, my_site: SiteNumber) -> Self {
        Self::compute(version, graph, my_site, None)
    }

    fn compute(version: u64, graph: Arc<Graph>, my_site: SiteNumber, allowed: Option<SiteSet>) -> Self {
        let reached = graph.reach(allowed.as_ref());
        let mut reachable = SiteSet::EMPTY;
        // For as many as there are, and not for as many as there may be.
        let sites = reached.iter().map(|router| router.site.index() + 1).max().unwrap_or_default();
        let mut entries = vec![SmallVec::<[RouterNumber; 4]>::new(); sites];
        let mut site_costs = vec![u32::MAX; sites];
        // Routers that are about to leave are an entry only where there is no other.
        for draining in [false, true] {
            let before = reachable.clone();
            for router in reached.iter().filter(|router| router.draining == draining && !before.contains(router.site)) {
                entries[router.site.index()].push(router.router);
                let cost = &mut site_costs[router.site.index()];
                *cost = router.cost.min(*cost);
                reachable.insert(router.site);
            }
        }
        Self { version, graph, allowed, my_site, reached, entries, site_costs, reachable }
    }

    /// The routes that stay within the `allowed` sites.
    fn within(&self, allowed: SiteSet) -> Self {
        Self::compute(self.version, self.graph.clone(), self.my_site, Some(allowed))
    }

    /// Grows whenever the view of the mesh changes; every [`Mesh`](crate::Mesh) counts for itself, from its start.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// This router.
    pub fn me(&self) -> RouterNumber {
        self.graph.me()
    }

    /// This router's site.
    pub fn my_site(&self) -> SiteNumber {
        self.my_site
    }

    /// The sites that these routes stay within; `None` = they pass through any.
    pub fn allowed(&self) -> Option<&SiteSet> {
        self.allowed.as_ref()
    }

    /// The sites with a router that can be reached.
    pub fn reachable(&self) -> &SiteSet {
        &self.reachable
    }

    /// The sites that the directory knows.
    pub fn known_sites(&self) -> &SiteSet {
        self.graph.sites()
    }

    /// How many routers an event passes at most, its origin not counted.
    pub fn hops_max(&self) -> u8 {
        let is_narrow = self.known_sites().last().is_none_or(|last| last.index() < SITES_NARROW);
        if is_narrow { HOPS_NARROW_MAX } else { HOPS_MAX }
    }

    /// Whether there is a path to `router`.
    pub fn reaches(&self, router: RouterNumber) -> bool {
        self.find(router).is_some()
    }

    /// The next hop on the way to `router`; none for this router itself.
    pub fn hop(&self, router: RouterNumber) -> Option<Hop> {
        let reached = self.find(router)?;
        let (neighbour, link) = reached.by?;
        let site = if neighbour == router { reached.site } else { self.find(neighbour)?.site };
        Some(Hop { link, neighbour, site, cost: reached.cost })
    }

    /// The link to `router`, where it is a neighbour, even if another way costs less: the way to a sibling.
    pub fn direct(&self, router: RouterNumber) -> Option<Hop> {
        let (link, site, cost) = self.graph.direct(router)?;
        self.is_allowed(site).then_some(Hop { link, neighbour: router, site, cost })
    }

    /// Whether `neighbour` may have something of `router` to pass on to this router: it is that router itself, or there is
    /// a way between the two without this one. Whoever stands at an edge of the mesh speaks for nobody else.
    pub fn may_come_by(&self, neighbour: RouterNumber, router: RouterNumber) -> bool {
        router != self.me() && (neighbour == router || self.graph.leads_to(neighbour, router))
    }

    /// The router of `site` that takes what this shard of `origin` sends there: by rendezvous, so that the loss of one
    /// router moves its own shards only, and by the same rule at every hop.
    pub fn entry(&self, site: SiteNumber, origin: RouterNumber, shard: u8) -> Option<RouterNumber> {
        let routers = self.entries.get(site.index())?;
        let sender = mix(u64::from(origin.0) << 8 | u64::from(shard));
        routers.iter().copied().max_by_key(|router| (mix(sender ^ u64::from(router.0)), *router))
    }

    /// What the way to the nearest router of `site` costs.
    pub fn site_cost(&self, site: SiteNumber) -> Option<u32> {
        self.reachable.contains(site).then(|| self.site_costs[site.index()])
    }

    fn is_allowed(&self, site: SiteNumber) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(site))
    }

    /// Every router that can be reached and the hop to it, sorted; this one has none.
    pub fn iter(&self) -> impl Iterator<Item = (RouterNumber, Option<Hop>)> {
        self.reached.iter().map(|reached| (reached.router, self.hop(reached.router)))
    }

    fn find(&self, router: RouterNumber) -> Option<&Reached> {
        let at = self.reached.binary_search_by_key(&router, |reached| reached.router).ok()?;
        Some(&self.reached[at])
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("version", &self.version)
            .field("reachable", &self.reachable)
            .finish_non_exhaustive()
    }
}

/// Routes for sets of allowed sites, computed when first asked for: one cache for each worker. Keeps the
/// [`RESIDENCY_SETS_MAX`] sets that were last new, all of the same routes.
#[derive(Debug, Default)]
pub struct ResidencyCache {
    /// The routes that these were computed from. Not their version: another mesh, or the same router's after a restart,
    /// comes to the same numbers with other links. That they are held here keeps their address from being used again.
    base: Option<Arc<Routes>>,
    sets: Vec<(SiteSet, Arc<Routes>)>,
    next: usize,
}

impl ResidencyCache {
    /// The routes of `base` that stay within `allowed`.
    pub fn routes(&mut self, base: &Arc<Routes>, allowed: &SiteSet) -> Arc<Routes> {
        if allowed.contains_all(base.known_sites()) && allowed.contains(base.my_site) {
            return base.clone();
        }
        if !self.base.as_ref().is_some_and(|known| Arc::ptr_eq(known, base)) {
            (self.base, self.next) = (Some(base.clone()), 0);
            self.sets.clear();
        }
        if let Some((_, routes)) = self.sets.iter().find(|(known, _)| known == allowed) {
            return routes.clone();
        }
        let routes = Arc::new(base.within(allowed.clone()));
        if self.sets.len() < RESIDENCY_SETS_MAX {
            self.sets.push((allowed.clone(), routes.clone()));
        } else {
            self.sets[self.next] = (allowed.clone(), routes.clone());
            self.next = (self.next + 1) % RESIDENCY_SETS_MAX;
        }
        routes
    }
}
