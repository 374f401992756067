//! The graph that link states add up to: an edge counts where both ends state it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::mix;
use super::states::LinkStates;
use crate::directory::Directory;
use crate::ids::{LinkId, RouterNumber, SiteNumber};
use crate::site_set::SiteSet;

/// Parts of a unit of cost: room for the jitter that breaks ties.
const FINE: u64 = 1_024;

/// Routers that the directory knows, and their links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Graph {
    /// Sorted by router.
    vertices: Vec<Vertex>,
    me: usize,
    /// The links of this router.
    links: BTreeMap<RouterNumber, LinkId>,
    /// All sites of the directory.
    sites: SiteSet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Vertex {
    router: RouterNumber,
    site: SiteNumber,
    draining: bool,
    /// `(index of the other end, cost)`.
    edges: Vec<(usize, u32)>,
}

/// A router that there is a path to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) router: RouterNumber,
    pub(super) site: SiteNumber,
    pub(super) draining: bool,
    pub(super) cost: u32,
    /// The neighbour by which; none for this router itself.
    pub(super) by: Option<(RouterNumber, LinkId)>,
}

/// This router, for building the graph.
pub(crate) struct Own<'a> {
    pub(crate) router: RouterNumber,
    pub(crate) site: SiteNumber,
    pub(crate) draining: bool,
    /// Its links and their costs as they are now, which may be newer than what it last told.
    pub(crate) links: &'a BTreeMap<RouterNumber, (LinkId, u32)>,
}

impl Graph {
    pub(crate) fn new(own: &Own<'_>, states: &LinkStates, directory: &Directory) -> Self {
        let mut vertices: Vec<Vertex> = states
            .iter()
            .filter(|state| state.owner != own.router)
            .filter_map(|state| {
                let site = directory.site_of(state.owner)?;
                Some(Vertex { router: state.owner, site, draining: state.draining, edges: Vec::new() })
            })
            .collect();
        let me = vertices.partition_point(|vertex| vertex.router < own.router);
        vertices.insert(me, Vertex { router: own.router, site: own.site, draining: own.draining, edges: Vec::new() });
        let mut edges = Vec::new();
        let find = |router: RouterNumber| vertices.binary_search_by_key(&router, |vertex| vertex.router).ok();
        for (at, vertex) in vertices.iter().enumerate().filter(|(at, _)| *at != me) {
            let Some(state) = states.get(vertex.router) else { continue };
            for (other, cost) in &state.links {
                let stated_there = match other {
                    _ if *other == own.router => own.links.get(&vertex.router).map(|(_, cost)| *cost),
                    _ => states.stated(*other, vertex.router),
                };
                let Some((there, other)) = stated_there.zip(find(*other)) else { continue };
                let cost = there.max(*cost);
                edges.push((at, other, cost));
                if other == me {
                    edges.push((me, at, cost));
                }
            }
        }
        for (from, to, cost) in edges {
            vertices[from].edges.push((to, cost));
        }
        let links = own.links.iter().map(|(router, (link, _))| (*router, *link)).collect();
        let sites = directory.sites().map(|site| site.number).collect();
        Self { vertices, me, links, sites }
    }

    pub(super) fn me(&self) -> RouterNumber {
        self.vertices.get(self.me).map_or(RouterNumber(0), |vertex| vertex.router)
    }

    /// The link to `router` and what it costs, where both ends state it.
    pub(super) fn direct(&self, router: RouterNumber) -> Option<(LinkId, SiteNumber, u32)> {
        let at = self.vertices.binary_search_by_key(&router, |vertex| vertex.router).ok()?;
        let (_, cost) = self.vertices[self.me].edges.iter().find(|(to, _)| *to == at)?;
        Some((*self.links.get(&router)?, self.vertices[at].site, *cost))
    }

    /// Whether there is a path from `neighbour` to `router` that does not lead through this router, as links are stated.
    pub(super) fn leads_to(&self, neighbour: RouterNumber, router: RouterNumber) -> bool {
        let find = |router: RouterNumber| self.vertices.binary_search_by_key(&router, |vertex| vertex.router).ok();
        let (Some(begin), Some(end)) = (find(neighbour), find(router)) else { return false };
        let mut seen = vec![false; self.vertices.len()];
        // As if it had been there before: nothing goes through it.
        seen[self.me] = true;
        let mut ahead = vec![begin];
        while let Some(at) = ahead.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            if at == end {
                return true;
            }
            ahead.extend(self.vertices[at].edges.iter().map(|(to, _)| *to));
        }
        false
    }

    pub(super) fn sites(&self) -> &SiteSet {
        &self.sites
    }

    /// The routers that there is a path to within the `allowed` sites, this one included, sorted. Nothing goes through
    /// a router that is draining.
    pub(super) fn reach(&self, allowed: Option<&SiteSet>) -> Vec<Reached> {
        let is_allowed = |at: usize| allowed.is_none_or(|allowed| allowed.contains(self.vertices[at].site));
        if self.vertices.is_empty() || !is_allowed(self.me) {
            return Vec::new();
        }
        let mut best: Vec<Option<(u64, usize)>> = vec![None; self.vertices.len()];
        let mut done = vec![false; self.vertices.len()];
        let mut heap = BinaryHeap::from([Reverse((0u64, self.me))]);
        best[self.me] = Some((0, self.me));
        while let Some(Reverse((distance, at))) = heap.pop() {
            if std::mem::replace(&mut done[at], true) || (self.vertices[at].draining && at != self.me) {
                continue;
            }
            for (to, cost) in self.vertices[at].edges.iter().filter(|(to, _)| is_allowed(*to)) {
                let first = if at == self.me { *to } else { best[at].map_or(*to, |(_, first)| first) };
                let found = (distance + self.weight(at, *to, *cost), first);
                // At the same distance the lower neighbour: vertices are in the order of their numbers.
                if best[*to].is_none_or(|known| found < known) {
                    best[*to] = Some(found);
                    heap.push(Reverse((found.0, *to)));
                }
            }
        }
        let reached = self.vertices.iter().enumerate().zip(best);
        reached.filter_map(|((at, vertex), best)| self.reached(at, vertex, best?)).collect()
    }

    fn reached(&self, at: usize, vertex: &Vertex, (distance, first): (u64, usize)) -> Option<Reached> {
        let by = if at == self.me {
            None
        } else {
            let neighbour = self.vertices[first].router;
            Some((neighbour, *self.links.get(&neighbour)?))
        };
        let &Vertex { router, site, draining, .. } = vertex;
        let cost = u32::try_from(distance / FINE).unwrap_or(u32::MAX);
        Some(Reached { router, site, draining, cost, by })
    }

    /// A cost with up to one per cent on it that depends on the two ends only: ways of equal cost are told apart, and
    /// by every router in the same manner.
    fn weight(&self, a: usize, b: usize, cost: u32) -> u64 {
        let (low, high) = (self.vertices[a.min(b)].router, self.vertices[a.max(b)].router);
        let jitter = mix(u64::from(low.0) << 32 | u64::from(high.0)) % (u64::from(cost) * FINE / 100 + 1);
        u64::from(cost) * FINE + jitter
    }
}
