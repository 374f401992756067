//! The simulation itself: a queue of what happens when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::sync::Arc;

use myelin_mesh::{Alarm, Control, ControlDecoder, Directory, LinkUp, Mesh, Output, PeerIdentity};
use myelin_mesh::{LinkId, RoundTrips, SiteSet};

use crate::network::{End, IDLE_MS, Network, Payload, State, link_id, of_link};
use crate::node::{Node, Wanted};

/// Largest event of the simulation.
pub const EVENT_LEN_MAX: u32 = 1_024;
/// A router tries again after this long, and up to as much more, in milliseconds.
const REDIAL_MS: u64 = 500;
/// Round trips are measured this often, in milliseconds.
const MEASURE_MS: u64 = 2_000;

/// What happens.
pub enum Happening {
    Arrive { connection: u64, end: End, payload: Payload },
    Tick { node: usize },
    Dial { path: usize, end: End },
    Idle { connection: u64, end: End, since: u64 },
    Measure { connection: u64, end: End },
    Cut { path: usize, ends: [bool; 2] },
    Heal { path: usize },
    Clog { path: usize, by_ms: u64 },
    Jump { node: usize, by_ms: u64, links_end: bool },
    Crash { node: usize },
    Start { node: usize },
    Subscribe { node: usize, wanted: Wanted },
    Unsubscribe { node: usize, at: usize },
    Publish { node: usize, topic: String, allowed: Option<SiteSet> },
}

struct Due(u64, u64, Happening);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// An event that was published.
#[derive(Debug, Default)]
pub struct Published {
    pub topic: String,
    pub origin: usize,
    pub allowed: Option<SiteSet>,
    /// By router: copies for its plain subscribers.
    pub plain: BTreeMap<usize, u32>,
    /// By group: members that got it.
    pub groups: BTreeMap<u32, u32>,
    /// By site: copies with the site's bit that came to a router of it for all of it.
    pub sites: BTreeMap<u16, u32>,
    /// Sites that are further away than an event goes.
    pub over_hops: SiteSet,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub control_messages: u64,
    pub control_bytes: u64,
    pub batches: u64,
    /// Packets that were sent again.
    pub retransmissions: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub sibling_copies: u64,
    pub missed: u64,
    pub links_lost: u64,
    pub refused_identities: u64,
    pub refused_doubles: u64,
    pub largest_control_bytes: usize,
    /// Links that an event passed, at most.
    pub most_hops: u8,
    /// Jumps of clocks, and how far they went together.
    pub jumps: u64,
    pub jumped_ms: u64,
}

pub struct World {
    pub now: u64,
    pub rng: fastrand::Rng,
    pub directory: Arc<Directory>,
    pub nodes: Vec<Node>,
    pub network: Network,
    pub events: Vec<Published>,
    pub counters: Counters,
    /// What must never be.
    pub faults: Vec<String>,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
}

impl World {
    pub fn new(seed: u64, directory: Directory, network: Network) -> Self {
        let directory = Arc::new(directory);
        let nodes = directory.routers().map(|router| Node::new(router.number, router.site)).collect();
        let mut world = Self {
            now: 0,
            rng: fastrand::Rng::with_seed(seed),
            directory,
            nodes,
            network,
            events: Vec::new(),
            counters: Counters::default(),
            faults: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
        };
        for path in 0..world.network.paths.len() {
            for end in 0..2 {
                let at = world.rng.u64(0..REDIAL_MS);
                world.at(at, Happening::Dial { path, end });
            }
        }
        world
    }

    pub fn at(&mut self, at: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Due(at, self.order, what)));
    }

    /// Lets everything happen up to `until`.
    pub fn run(&mut self, until: u64) {
        while self.queue.peek().is_some_and(|Reverse(due)| due.0 <= until) {
            let Some(Reverse(Due(at, _, what))) = self.queue.pop() else { break };
            self.now = at;
            self.happen(what);
        }
        self.now = until;
    }

    pub fn mesh(&self, node: usize) -> Option<&Mesh> {
        self.nodes[node].mesh.as_ref()
    }

    fn happen(&mut self, what: Happening) {
        let now = self.now;
        match what {
            Happening::Arrive { connection, end, payload } => self.arrive(connection, end, payload),
            Happening::Tick { node } => {
                if self.nodes[node].tick_at <= now {
                    self.nodes[node].tick_at = u64::MAX;
                    self.with(node, Mesh::tick);
                }
            }
            Happening::Dial { path, end } => self.dial(path, end),
            Happening::Idle { connection, end, since } => self.idle(connection, end, since),
            Happening::Measure { connection, end } => self.measure(connection, end),
            Happening::Cut { path, ends } => self.cut(path, ends),
            Happening::Heal { path } => self.heal(path),
            Happening::Clog { path, by_ms } => self.network.paths[path].clog_ms = by_ms,
            Happening::Jump { node, by_ms, links_end } => self.jump(node, by_ms, links_end),
            Happening::Crash { node } => self.crash(node),
            Happening::Start { node } => {
                if self.nodes[node].mesh.is_none() {
                    self.nodes[node].start(now, &self.directory);
                    self.flush(node);
                }
            }
            Happening::Subscribe { node, wanted } => {
                self.nodes[node].subscribe(now, wanted);
                self.flush(node);
            }
            Happening::Unsubscribe { node, at } => {
                let count = self.nodes[node].wanted.len().max(1);
                if let Some(wanted) = self.nodes[node].wanted.keys().nth(at % count).cloned() {
                    self.nodes[node].unsubscribe(now, &wanted);
                    self.flush(node);
                }
            }
            Happening::Publish { node, topic, allowed } => self.publish(node, topic, allowed),
        }
    }

    /// Does something with a router's mesh, and then what it says.
    fn with(&mut self, node: usize, act: impl FnOnce(&mut Mesh, u64)) {
        let local = self.nodes[node].clock.at(self.now);
        if let Some(mesh) = &mut self.nodes[node].mesh {
            act(mesh, local);
            self.flush(node);
        }
    }

    /// A router's clock goes forward at once; with `links_end`, the timers of its links have run out over that.
    fn jump(&mut self, node: usize, by_ms: u64, links_end: bool) {
        if self.nodes[node].mesh.is_none() {
            return;
        }
        self.nodes[node].clock.jump(self.now, by_ms);
        self.counters.jumps += 1;
        self.counters.jumped_ms += by_ms;
        for path in 0..self.network.paths.len() {
            let Some(end) = self.network.paths[path].end_of(node).filter(|_| links_end) else { continue };
            // A connection that has been silent for too long ends without a word to the other side.
            self.network.over(path).into_iter().for_each(|id| self.down(id, end));
        }
        self.with(node, Mesh::tick);
    }

    fn flush(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].mesh.as_mut().and_then(Mesh::poll) {
            match output {
                Output::Send { links, control } => {
                    let mut bytes = Vec::new();
                    control.encode(&mut bytes).unwrap();
                    self.counters.control_messages += links.len() as u64;
                    self.counters.control_bytes += (links.len() * bytes.len()) as u64;
                    self.counters.largest_control_bytes = self.counters.largest_control_bytes.max(bytes.len());
                    let bytes: Rc<[u8]> = bytes.into();
                    links.into_iter().for_each(|link| self.send(link, Payload::Control(bytes.clone())));
                }
                Output::Close { link, .. } => self.close(link),
                Output::Alarm(Alarm::IdentityInUse { .. }) => self.counters.refused_identities += 1,
                Output::Alarm(alarm) => self.faults.push(format!("router {node}: {alarm:?}")),
                _ => {}
            }
        }
        let Some(mesh) = &self.nodes[node].mesh else { return };
        let due = mesh.next_deadline().map_or(u64::MAX, |due| self.nodes[node].clock.when(due)).max(self.now + 1);
        if due < self.nodes[node].tick_at {
            self.nodes[node].tick_at = due;
            self.at(due, Happening::Tick { node });
        }
    }

    /// Sends to the other end of a link.
    pub(crate) fn send(&mut self, link: LinkId, payload: Payload) {
        let (id, end) = of_link(link);
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        let path = &self.network.paths[connection.path];
        let to = 1 - end;
        // A stream keeps the order, whatever the delays.
        let losses = path.losses(&mut self.rng);
        self.counters.retransmissions += losses;
        let delay = path.delay(&mut self.rng) + losses * path.loss_ms();
        let at = (self.now + delay).max(connection.last[to]);
        connection.last[to] = at;
        self.at(at, Happening::Arrive { connection: id, end: to, payload });
    }

    fn dial(&mut self, path: usize, end: End) {
        let again = self.now + REDIAL_MS + self.rng.u64(0..REDIAL_MS);
        self.at(again, Happening::Dial { path, end });
        let node = self.network.paths[path].ends[end];
        let Some(mesh) = &self.nodes[node].mesh else { return };
        let state = |id: &u64| self.network.connections[id].state[end];
        let busy = self.network.over(path).iter().any(|id| {
            state(id) == State::Up || (state(id) == State::Opening && self.network.connections[id].dialler == end)
        });
        let other = self.network.paths[path].ends[1 - end];
        if busy || !self.network.paths[path].is_whole() || self.nodes[other].mesh.is_none() {
            return;
        }
        let hello = mesh.hello();
        let id = self.network.open(path, end);
        self.send(link_id(id, end), Payload::Hello(Box::new(hello)));
    }

    fn arrive(&mut self, id: u64, end: End, payload: Payload) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        if self.network.paths[connection.path].deaf[end].is_some() {
            connection.held[end].push(payload);
            return;
        }
        let node = self.network.paths[connection.path].ends[end];
        let state = connection.state[end];
        match payload {
            Payload::Close => self.down(id, end),
            Payload::Hello(hello) if state == State::Opening && self.nodes[node].mesh.is_some() => {
                self.hello(id, end, node, &hello);
            }
            Payload::Control(bytes) if state == State::Up => self.control(node, link_id(id, end), &bytes),
            Payload::Batch(bytes) if state == State::Up => self.batch(node, &bytes),
            Payload::Batch(_) => self.counters.lost += 1,
            _ => {}
        }
    }

    fn hello(&mut self, id: u64, end: End, node: usize, hello: &myelin_mesh::control::Hello) {
        let now = self.now;
        let connection = &self.network.connections[&id];
        let other = self.network.node(connection, 1 - end);
        let (site, router) = {
            let router = self.directory.router(self.nodes[other].router).unwrap();
            (self.directory.site(router.site).unwrap().name.clone(), router.name.clone())
        };
        let dialled = connection.dialler == end;
        let identity = PeerIdentity { site: &site, router: &router };
        let up = LinkUp { link: link_id(id, end), identity, dialled, hello };
        let local = self.nodes[node].clock.at(now);
        match self.nodes[node].mesh.as_mut().unwrap().link_up(local, up) {
            Ok(_) => {
                self.network.connections.get_mut(&id).unwrap().state[end] = State::Up;
                if !dialled {
                    let mine = self.mesh(node).unwrap().hello();
                    self.send(link_id(id, end), Payload::Hello(Box::new(mine)));
                }
                self.at(now + 100, Happening::Measure { connection: id, end });
            }
            Err(violation) => {
                match violation.code.name() {
                    "identity-in-use" => {}
                    "duplicate-link" => self.counters.refused_doubles += 1,
                    _ => self.faults.push(format!("router {node} refused {other}: {violation}")),
                }
                self.close(link_id(id, end));
            }
        }
        self.flush(node);
    }

    fn control(&mut self, node: usize, link: LinkId, bytes: &[u8]) {
        let mut decoder = ControlDecoder::new();
        decoder.push(bytes);
        let control: Control = decoder.poll().unwrap().unwrap();
        let came = self.nodes[node].came.entry(kind(&control)).or_default();
        *came = (came.0 + 1, came.1 + bytes.len() as u64);
        let mut done = Ok(());
        self.with(node, |mesh, now| done = mesh.receive(now, link, control));
        if let Err(violation) = done {
            self.faults.push(format!("router {node}: {violation}"));
        }
    }

    fn measure(&mut self, id: u64, end: End) {
        let Some(connection) = self.network.connections.get(&id).filter(|c| c.state[end] == State::Up) else { return };
        let (node, path) = (self.network.node(connection, end), &self.network.paths[connection.path]);
        let rtt_us = 1_000 * (path.delay(&mut self.rng) + path.delay(&mut self.rng));
        let now = self.now;
        self.with(node, |mesh, now| mesh.measured(now, link_id(id, end), RoundTrips::one(rtt_us)));
        self.at(now + MEASURE_MS, Happening::Measure { connection: id, end });
    }

    /// This end closes a connection, and tells the other.
    fn close(&mut self, link: LinkId) {
        self.send(link, Payload::Close);
        let (id, end) = of_link(link);
        self.end(id, end);
    }

    /// This end of a connection is over; the other hears no more from it.
    fn end(&mut self, id: u64, end: End) {
        let now = self.now;
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        connection.state[end] = State::Down;
        let dropped: usize = connection.held[end].drain(..).filter(|p| matches!(p, Payload::Batch(_))).count();
        self.counters.lost += dropped as u64;
        if connection.state == [State::Down; 2] {
            let gone = self.network.remove(id).unwrap();
            let held = gone.held.iter().flatten().filter(|payload| matches!(payload, Payload::Batch(_))).count();
            self.counters.lost += held as u64;
            return;
        }
        // No keep-alive comes from here any more.
        self.at(now + IDLE_MS, Happening::Idle { connection: id, end: 1 - end, since: now });
    }

    fn down(&mut self, id: u64, end: End) {
        let Some(connection) = self.network.connections.get(&id) else { return };
        let (node, was) = (self.network.node(connection, end), connection.state[end]);
        if was == State::Down {
            return;
        }
        self.end(id, end);
        if was == State::Up {
            self.counters.links_lost += 1;
            self.with(node, |mesh, now| mesh.link_down(now, link_id(id, end)));
        }
    }

    fn idle(&mut self, id: u64, end: End, since: u64) {
        let Some(connection) = self.network.connections.get(&id) else { return };
        let is_deaf = self.network.paths[connection.path].deaf[end].is_some_and(|deaf| deaf <= since);
        if is_deaf || connection.state[1 - end] == State::Down {
            self.send(link_id(id, end), Payload::Close);
            self.down(id, end);
        }
    }

    fn cut(&mut self, path: usize, ends: [bool; 2]) {
        let now = self.now;
        for end in (0..2).filter(|end| ends[*end]) {
            if self.network.paths[path].deaf[end].is_none() {
                self.network.paths[path].deaf[end] = Some(now);
                for connection in self.network.over(path) {
                    self.at(now + IDLE_MS, Happening::Idle { connection, end, since: now });
                }
            }
        }
    }

    fn heal(&mut self, path: usize) {
        self.network.paths[path].deaf = [None; 2];
        for id in self.network.over(path) {
            for end in 0..2 {
                let Some(connection) = self.network.connections.get_mut(&id) else { break };
                // What the stream sends again arrives now, before anything that is still under way.
                let held = std::mem::take(&mut connection.held[end]);
                held.into_iter().for_each(|payload| self.arrive(id, end, payload));
            }
        }
    }

    fn crash(&mut self, node: usize) {
        self.nodes[node].crash();
        for path in 0..self.network.paths.len() {
            let Some(end) = self.network.paths[path].end_of(node) else { continue };
            for id in self.network.over(path) {
                self.end(id, end);
            }
        }
    }
}

/// What a control message is about.
fn kind(control: &Control) -> &'static str {
    match control {
        Control::LinkState(_) | Control::LinkStatePull(_) => "link states",
        Control::Digest(_) => "digests",
        Control::InterestDelta(_) | Control::InterestPull(_) | Control::InterestSnapshot(_) => "interest",
        _ => "else",
    }
}
