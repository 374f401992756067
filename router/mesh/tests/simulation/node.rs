//! A router of the simulation: the mesh, what its sessions want, and what a worker keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use myelin_mesh::control::GroupName;
use myelin_mesh::{
    Config, Directory, DuplicateWindow, InterestMatch, Mesh, ResidencyCache, RouterNumber, Routes, SiteNumber,
};
use myelin_wire::Pattern;

use crate::clock::Clock;

pub type Wanted = (Pattern, Option<GroupName>);

pub struct Node {
    pub router: RouterNumber,
    pub site: SiteNumber,
    pub epoch: u32,
    /// What the mesh is told the time by.
    pub clock: Clock,
    /// None while it is dead.
    pub mesh: Option<Mesh>,
    pub wanted: BTreeMap<Wanted, u32>,
    pub tick_at: u64,
    /// Control messages that came in, by kind: how many, and bytes.
    pub came: BTreeMap<&'static str, (u64, u64)>,
    pub seq: u64,
    pub window: DuplicateWindow,
    pub residency: ResidencyCache,
}

impl Node {
    pub fn new(router: RouterNumber, site: SiteNumber) -> Self {
        Self {
            router,
            site,
            epoch: 0,
            clock: Clock::exact(),
            mesh: None,
            wanted: BTreeMap::new(),
            tick_at: u64::MAX,
            came: BTreeMap::new(),
            seq: 0,
            window: DuplicateWindow::new(),
            residency: ResidencyCache::default(),
        }
    }

    pub fn start(&mut self, now: u64, directory: &Arc<Directory>) {
        self.epoch += 1;
        self.clock.start(now);
        self.seq = 0;
        self.window = DuplicateWindow::new();
        // The cache of residency stays, as where a worker outlives a mesh: it must tell the routes of the new mesh from
        // those of the old one, whose versions it has seen.
        let site = directory.site(self.site).unwrap().name.clone();
        let name = directory.router(self.router).unwrap().name.clone();
        let config = Config::new(self.site, &site, self.router, &name, self.epoch);
        self.mesh = Some(Mesh::new(self.clock.at(now), config, directory.clone()));
        self.tick_at = u64::MAX;
    }

    pub fn crash(&mut self) {
        self.mesh = None;
        self.wanted.clear();
    }

    pub fn subscribe(&mut self, now: u64, wanted: Wanted) {
        let Some(mesh) = &mut self.mesh else { return };
        mesh.subscribe(self.clock.at(now), &wanted.0, wanted.1.as_ref()).unwrap();
        *self.wanted.entry(wanted).or_default() += 1;
    }

    pub fn unsubscribe(&mut self, now: u64, wanted: &Wanted) {
        let Some(mesh) = &mut self.mesh else { return };
        mesh.unsubscribe(self.clock.at(now), &wanted.0, wanted.1.as_ref()).unwrap();
        let count = self.wanted.get_mut(wanted).unwrap();
        *count -= 1;
        if *count == 0 {
            self.wanted.remove(wanted);
        }
    }

    /// Whether a session here wants `topic` for itself.
    pub fn wants_plain(&self, topic: &str) -> bool {
        self.wanted.keys().any(|(pattern, group)| group.is_none() && pattern.matches(topic))
    }

    /// The groups with a member here that want `topic`.
    pub fn groups(&self, topic: &str) -> Vec<u32> {
        let of = |(pattern, group): &Wanted| {
            let name = group.as_ref()?;
            pattern.matches(topic).then(|| myelin_mesh::interest::group_id(name.as_str(), pattern))
        };
        self.wanted.keys().filter_map(of).collect()
    }

    /// What the mesh says of `topic`.
    pub fn matched(&self, topic: &str) -> (InterestMatch, Arc<Routes>) {
        let mut matched = InterestMatch::default();
        let mesh = self.mesh.as_ref().unwrap();
        mesh.interest().matches(topic, &mut matched);
        (matched, mesh.routes())
    }
}
