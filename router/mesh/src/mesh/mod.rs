//! The state machine that ties it together: what came goes in, what must be told comes out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::control::{
    CatalogHead, Control, Drain, Entry, GroupName, Hello, InterestHead, InterestPull, LinkState, Status, VERSIONS,
    Versions,
};
use crate::directory::Directory;
use crate::ids::{LinkId, RouterNumber, SiteNumber};
use crate::interest::own::OwnInterest;
use crate::interest::remote::RemoteInterest;
use crate::interest::{Interest, InterestError};
use crate::limits::{LINK_STATE_INTERVAL_MS, LINK_STATE_REFRESH_MS, ROUTES_INTERVAL_MS};
use crate::topology::RoundTrips;
use crate::topology::cost::Cost;
use crate::topology::states::LinkStates;
use crate::topology::wanted::Wanted;
use crate::topology::{Graph, Routes, mix};
use myelin_wire::Pattern;

mod admission;
mod output;
mod receive;
#[cfg(test)]
mod tests;
mod work;

pub use admission::{LinkUp, PeerIdentity};
pub use output::{Alarm, Output, Peer, Sizes, Stats};

/// Who a router is. Its numbers come from the catalog, its names from its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of its site.
    pub site: SiteNumber,
    /// Its number.
    pub router: RouterNumber,
    /// Name of its site.
    pub site_name: String,
    /// Its name.
    pub router_name: String,
    /// How often it has started; must grow with every start.
    pub epoch: u32,
    /// Optional features that it tells its neighbours of.
    pub features: u64,
    /// The versions of the protocol that it speaks.
    pub versions: Versions,
    /// Spreads what every router does now and then. Any number that differs from router to router.
    pub seed: u64,
}

impl Config {
    /// A router with these numbers and names in its boot epoch `epoch`, and the usual rest.
    pub fn new(site: SiteNumber, site_name: &str, router: RouterNumber, router_name: &str, epoch: u32) -> Self {
        let (site_name, router_name) = (site_name.to_owned(), router_name.to_owned());
        let seed = u64::from(router.0) << 32 | u64::from(epoch);
        Self { site, router, site_name, router_name, epoch, features: 0, versions: VERSIONS, seed }
    }
}

/// The mesh as one router sees it. Nothing here waits, reads a clock, or does I/O: every call takes the time as
/// monotonic milliseconds, and is to be followed by [`poll`](Self::poll) until there is nothing more.
pub struct Mesh {
    config: Config,
    directory: Arc<Directory>,
    links: BTreeMap<LinkId, Link>,
    peers: BTreeMap<RouterNumber, LinkId>,
    states: LinkStates,
    wanted: Wanted,
    own: OwnInterest,
    remote: RemoteInterest,
    /// Who waits for whose interest: at most each link for each router.
    askers: BTreeMap<RouterNumber, BTreeMap<LinkId, InterestPull>>,
    /// What was told last.
    told: LinkState,
    status: Status,
    catalog: CatalogHead,
    draining: bool,
    publish_at: Option<u64>,
    published_at: Option<u64>,
    refresh_at: u64,
    graph: Arc<Graph>,
    routes: Arc<Routes>,
    routes_at: Option<u64>,
    routes_computed_at: Option<u64>,
    alarmed: Option<(u32, u64)>,
    outputs: VecDeque<Output>,
    routes_changed: bool,
    /// The version of the interest that the shell was told of.
    interest_told: u64,
    stats: Stats,
}

/// A link that is up.
struct Link {
    peer: RouterNumber,
    epoch: u32,
    version: u16,
    features: u64,
    dialled: bool,
    cost: Cost,
    draining: bool,
    /// The directory knows the peer: it takes part.
    is_known: bool,
    answers: receive::Answers,
    /// The newest link state of the peer that came by other links, newer than its own word, and when. It counts once
    /// this link has ended.
    hearsay: Option<(u64, LinkState)>,
}

impl Mesh {
    /// A router without links, at the time `now`.
    pub fn new(now: u64, config: Config, directory: Arc<Directory>) -> Self {
        let told = LinkState {
            owner: config.router,
            epoch: config.epoch,
            version: 0,
            draining: false,
            links: Vec::new(),
            interest: InterestHead { epoch: config.epoch, ..InterestHead::default() },
            catalog: CatalogHead::default(),
            status: Status::default(),
        };
        let mut mesh = Self {
            own: OwnInterest::new(config.router, config.epoch),
            remote: RemoteInterest::new(directory.clone(), config.site),
            graph: Arc::default(),
            routes: Arc::new(Routes::new(0, Arc::default(), config.site)),
            askers: BTreeMap::new(),
            links: BTreeMap::new(),
            peers: BTreeMap::new(),
            states: LinkStates::default(),
            wanted: Wanted::default(),
            status: Status::default(),
            catalog: CatalogHead::default(),
            draining: false,
            publish_at: None,
            published_at: None,
            refresh_at: now + LINK_STATE_REFRESH_MS,
            routes_at: Some(now),
            routes_computed_at: None,
            alarmed: None,
            outputs: VecDeque::new(),
            routes_changed: false,
            interest_told: 0,
            stats: Stats::default(),
            told,
            config,
            directory,
        };
        mesh.tick(now);
        mesh
    }

    /// The first message on every link.
    pub fn hello(&self) -> Hello {
        let Config { site, router, site_name, router_name, epoch, features, versions, .. } = &self.config;
        Hello {
            min: versions.min,
            max: versions.max,
            site: *site,
            router: *router,
            site_name: site_name.clone(),
            router_name: router_name.clone(),
            epoch: *epoch,
            catalog: self.catalog,
            features: *features,
        }
    }

    /// The round trips of a link were measured. To be called about once a second.
    pub fn measured(&mut self, now: u64, link: LinkId, round_trips: RoundTrips) {
        let Some(link) = self.links.get_mut(&link) else { return };
        if link.cost.measured(now, round_trips) {
            self.want_publish(now, 0);
            self.want_routes(now);
        }
        self.tick(now);
    }

    /// Somebody at this router subscribed. The first subscription to a pattern (and group) is told to the others.
    ///
    /// # Errors
    /// `too-many-interests` when this router has as many different ones as it may.
    pub fn subscribe(&mut self, now: u64, pattern: &Pattern, group: Option<&GroupName>) -> Result<(), InterestError> {
        let done = self.own.subscribe(now, Entry(pattern.clone(), group.cloned()));
        self.tick(now);
        done
    }

    /// Somebody at this router is not subscribed any more. Once for each [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    /// `unknown-interest` when nobody was.
    pub fn unsubscribe(&mut self, now: u64, pattern: &Pattern, group: Option<&GroupName>) -> Result<(), InterestError> {
        let done = self.own.unsubscribe(now, Entry(pattern.clone(), group.cloned()));
        self.tick(now);
        done
    }

    /// This router's copy of the catalog is at `head` now.
    pub fn set_catalog_head(&mut self, now: u64, head: CatalogHead) {
        if std::mem::replace(&mut self.catalog, head) != head {
            self.want_publish(now, 0);
        }
        self.tick(now);
    }

    /// What this router tells about itself.
    pub fn set_status(&mut self, now: u64, status: Status) {
        if self.status != status {
            // A load that moves all the time travels with the rest, or with the next refresh.
            let is_urgent = self.status.generations != status.generations || self.status.addresses != status.addresses;
            self.status = status;
            if is_urgent {
                self.want_publish(now, 0);
            }
        }
        self.tick(now);
    }

    /// This router is about to leave: the others send nothing through it from here on, and what is for it still for
    /// `drain_ms`.
    pub fn drain(&mut self, now: u64, drain_ms: u64) {
        self.draining = true;
        let links = self.links.keys().copied().collect();
        self.send(links, Control::Drain(Drain { drain_ms }));
        self.want_publish(now, 0);
        self.want_routes(now);
        self.tick(now);
    }

    /// Sends a message of the shell to the neighbour at `link`.
    pub fn send_application(&mut self, link: LinkId, kind: u8, body: Bytes) {
        if self.links.contains_key(&link) {
            self.send(vec![link], Control::Application { kind, body });
        }
    }

    /// What to do or to know next; `None` when that was all. The queue is bounded by what one call can cause, which
    /// the limits of messages bound: empty it after every call.
    pub fn poll(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if std::mem::take(&mut self.routes_changed) {
            return Some(Output::RoutesChanged);
        }
        let version = self.remote.table().version();
        if std::mem::replace(&mut self.interest_told, version) != version {
            return Some(Output::InterestChanged);
        }
        None
    }

    /// Who wants what, all other routers together: a snapshot for the workers.
    pub fn interest(&self) -> Interest {
        self.remote.table().clone()
    }

    /// The way to everybody: a snapshot for the workers.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.clone()
    }

    /// Who belongs to the mesh.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// What a router last said about itself; of this one, what it last told.
    pub fn link_state(&self, router: RouterNumber) -> Option<&LinkState> {
        if router == self.config.router { Some(&self.told) } else { self.states.get(router) }
    }

    /// What all other routers last said about themselves.
    pub fn link_states(&self) -> impl Iterator<Item = &LinkState> {
        self.states.iter()
    }

    /// How far this router's copy of another's interest is, or what it told of its own.
    pub fn interest_head(&self, router: RouterNumber) -> Option<InterestHead> {
        if router == self.config.router { Some(self.own.head()) } else { self.remote.head(router) }
    }

    /// Whether somebody at this router subscribed to exactly this.
    pub fn wants(&self, pattern: &Pattern, group: Option<&GroupName>) -> bool {
        self.own.wants(&Entry(pattern.clone(), group.cloned()))
    }

    /// The neighbours.
    pub fn peers(&self) -> impl Iterator<Item = Peer> {
        self.links.iter().map(|(id, link)| Peer {
            link: *id,
            router: link.peer,
            epoch: link.epoch,
            version: link.version,
            features: link.features,
            cost: link.cost.current(),
            draining: link.draining,
            is_known: link.is_known,
        })
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How much is held.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            links: self.links.len(),
            routers: self.states.len(),
            interest_entries: self.remote.entries(),
            own_entries: self.own.len(),
            behind: self.remote.behind(),
        }
    }

    /// Plans to flood the own link state in `delay` milliseconds, or as soon after as it may.
    fn want_publish(&mut self, now: u64, delay: u64) {
        let earliest = self.published_at.map_or(0, |at| at + LINK_STATE_INTERVAL_MS);
        let at = (now + delay).max(earliest);
        self.publish_at = Some(self.publish_at.map_or(at, |planned| planned.min(at)));
    }

    /// Plans to compute the routes as soon as that may be.
    fn want_routes(&mut self, now: u64) {
        let earliest = self.routes_computed_at.map_or(0, |at| at + ROUTES_INTERVAL_MS);
        self.routes_at.get_or_insert(now.max(earliest));
    }

    fn send(&mut self, links: Vec<LinkId>, control: Control) {
        if !links.is_empty() {
            self.stats.sent += links.len() as u64;
            self.outputs.push_back(Output::Send { links, control });
        }
    }

    /// The links whose peers take part.
    fn known_links(&self) -> Vec<LinkId> {
        self.links.iter().filter(|(_, link)| link.is_known).map(|(id, _)| *id).collect()
    }

    /// The links by which news of `owner` that came by `from` go on: not back, not to the owner, and not to whom the
    /// owner tells them itself.
    fn onward(&self, owner: RouterNumber, from: Option<LinkId>) -> Vec<LinkId> {
        self.past(owner, from, |peer| self.states.are_adjacent(owner, peer))
    }

    /// The same for a link state, by what it says itself: its owner tells whom it calls a neighbour, and whoever comes to
    /// a full mesh is not told by everybody. A neighbour that does not read it yet is told again once it does; one that
    /// is no neighbour any more is told by us, once the owner has noticed.
    fn onward_state(&self, owner: RouterNumber, from: Option<LinkId>) -> Vec<LinkId> {
        self.past(owner, from, |peer| self.states.stated(owner, peer).is_some())
    }

    fn past(&self, owner: RouterNumber, from: Option<LinkId>, is_told: impl Fn(RouterNumber) -> bool) -> Vec<LinkId> {
        let goes_on = |(id, link): &(&LinkId, &Link)| {
            link.is_known && Some(**id) != from && link.peer != owner && !is_told(link.peer)
        };
        self.links.iter().filter(goes_on).map(|(id, _)| *id).collect()
    }

    /// Up to a fifth more or less than `interval`, from the seed: so that routers that started together do not refresh
    /// together.
    fn spread(&self, interval: u64) -> u64 {
        let random = mix(self.config.seed ^ self.told.version);
        interval - interval / 5 + random % (interval * 2 / 5 + 1)
    }
}
