//! What is due at a time: the one place where the state machine acts by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Alarm, Mesh, Output};
use crate::control::{Control, LinkState, LinkStatePull};
use crate::ids::{LinkId, RouterNumber};
use crate::limits::{INTEREST_HEAD_DELAY_MS, LINK_STATE_REFRESH_MS};
use crate::topology::{Graph, Own, Routes};

impl Mesh {
    /// When [`tick`](Self::tick) has something to do; it may be called sooner.
    pub fn next_deadline(&self) -> Option<u64> {
        let all = [
            self.own.deadline(),
            self.publish_at,
            Some(self.refresh_at),
            self.routes_at,
            self.remote.deadline(),
            self.wanted.deadline(),
            self.states.deadline(),
        ];
        all.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64) {
        self.flush_interest(now);
        self.expire(now);
        self.compute_routes(now);
        if self.publish_at.is_some_and(|at| now >= at) || now >= self.refresh_at {
            self.publish(now);
        }
        self.pull_interest(now);
        self.pull_link_states(now);
        while let Some(router) = self.remote.take_overflowed() {
            self.outputs.push_back(Output::Alarm(Alarm::InterestFull { router }));
        }
    }

    fn flush_interest(&mut self, now: u64) {
        let deltas = self.own.flush(now);
        if deltas.is_empty() {
            return;
        }
        let links = self.known_links();
        for delta in deltas {
            self.send(links.clone(), Control::InterestDelta(delta));
        }
        self.want_publish(now, INTEREST_HEAD_DELAY_MS);
    }

    fn expire(&mut self, now: u64) {
        for owner in self.states.expire(now) {
            self.remote.forget(owner);
            self.askers.remove(&owner);
            self.outputs.push_back(Output::Forgotten(owner));
            self.want_routes(now);
        }
    }

    fn compute_routes(&mut self, now: u64) {
        if self.routes_at.is_none_or(|at| now < at) {
            return;
        }
        (self.routes_at, self.routes_computed_at) = (None, Some(now));
        let links = self.own_links();
        let own = Own { router: self.config.router, site: self.config.site, draining: self.draining, links: &links };
        let graph = Graph::new(&own, &self.states, &self.directory);
        if graph != *self.graph {
            self.stats.routes_computed += 1;
            self.graph = Arc::new(graph);
            let version = self.routes.version() + 1;
            self.routes = Arc::new(Routes::new(version, self.graph.clone(), self.config.site));
            self.routes_changed = true;
        }
        self.states.note_reachable(now, |owner| self.routes.reaches(owner));
        self.remote.set_absent(self.states.away().collect());
    }

    /// The links that take part, by neighbour.
    fn own_links(&self) -> BTreeMap<RouterNumber, (LinkId, u32)> {
        let known = self.links.iter().filter(|(_, link)| link.is_known);
        known.map(|(id, link)| (link.peer, (*id, link.cost.current()))).collect()
    }

    /// Floods the own link state in a new version.
    fn publish(&mut self, now: u64) {
        let links = self.own_links();
        self.told = LinkState {
            owner: self.config.router,
            epoch: self.config.epoch,
            version: self.told.version + 1,
            draining: self.draining,
            links: links.iter().map(|(peer, (_, cost))| (*peer, *cost)).collect(),
            interest: self.own.head(),
            catalog: self.catalog,
            status: self.status.clone(),
        };
        (self.publish_at, self.published_at) = (None, Some(now));
        self.refresh_at = now + self.spread(LINK_STATE_REFRESH_MS);
        self.stats.link_states_told += 1;
        self.send(links.into_values().map(|(link, _)| link).collect(), Control::LinkState(self.told.clone()));
    }

    /// Asks for the interest of those whose copy is behind: the owner itself or on the way to it, and every other time
    /// another neighbour, in turn.
    fn pull_interest(&mut self, now: u64) {
        if self.remote.deadline().is_none_or(|at| now < at) {
            return;
        }
        let own_words: BTreeMap<RouterNumber, LinkId> =
            self.peers.keys().filter_map(|peer| Some((*peer, self.own_word(*peer)?))).collect();
        let (links, peers, routes) = (&self.links, &self.peers, &self.routes);
        let is_known = |link: &LinkId| links.get(link).is_some_and(|link| link.is_known);
        let choose = |owner: RouterNumber, tries: usize| {
            if let Some(its_own) = own_words.get(&owner) {
                return Some(*its_own);
            }
            let near = [peers.get(&owner).copied(), routes.hop(owner).map(|hop| hop.link)];
            let mut near: SmallVec<[LinkId; 2]> = near.into_iter().flatten().filter(is_known).collect();
            near.dedup();
            if tries.is_multiple_of(2) && !near.is_empty() {
                return near.get(tries / 2 % near.len()).copied();
            }
            let others: SmallVec<[LinkId; 16]> =
                links.keys().filter(|link| is_known(link) && !near.contains(link)).copied().collect();
            let all = if others.is_empty() { near.as_slice() } else { others.as_slice() };
            all.get(tries / 2 % all.len().max(1)).copied()
        };
        let pulls = self.remote.pulls(now, choose);
        self.stats.snapshots_asked += pulls.len() as u64;
        for (link, pull) in pulls {
            self.send(vec![link], Control::InterestPull(pull));
        }
    }

    fn pull_link_states(&mut self, now: u64) {
        for (link, owners) in self.wanted.questions(now) {
            self.stats.link_states_asked += owners.len() as u64;
            self.send(vec![link], Control::LinkStatePull(LinkStatePull { owners }));
        }
    }
}
