//! Links: connections of reliable, ordered streams over paths that delay, lose, clog and are cut in either direction.

use std::collections::BTreeMap;
use std::rc::Rc;

use myelin_mesh::LinkId;
use myelin_mesh::control::Hello;

/// A connection that is silent for this long is given up, in milliseconds.
pub const IDLE_MS: u64 = 4_000;
/// Losses of one packet after another: at 30 %, one in 15,000 packets would have more.
const LOSSES_IN_A_ROW_MAX: u64 = 8;
/// What is added to the time after which a loss is found out, in milliseconds: most that a peer waits with an
/// acknowledgement (RFC 9000, 18.2).
const ACK_DELAY_MS: u64 = 25;

/// What travels on a connection.
#[derive(Clone)]
pub enum Payload {
    Hello(Box<Hello>),
    Control(Rc<[u8]>),
    Batch(Rc<[u8]>),
    Close,
}

/// The two ends of a path or a connection.
pub type End = usize;

/// Two routers that can reach each other without a third.
pub struct Path {
    pub ends: [usize; 2],
    pub delay_ms: u64,
    pub jitter_ms: u64,
    /// Packets that are lost, of a hundred.
    pub loss_percent: u64,
    /// More delay, while it is clogged.
    pub clog_ms: u64,
    /// Since when nothing arrives at this end.
    pub deaf: [Option<u64>; 2],
}

/// How far an end of a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Waits for the peer's hello.
    Opening,
    Up,
    Down,
}

pub struct Connection {
    pub path: usize,
    pub dialler: End,
    pub state: [State; 2],
    /// When the last message that was sent towards this end arrives: later ones arrive later.
    pub last: [u64; 2],
    /// What waits until this end can be reached again.
    pub held: [Vec<Payload>; 2],
}

#[derive(Default)]
pub struct Network {
    pub paths: Vec<Path>,
    pub connections: BTreeMap<u64, Connection>,
    /// The connections over each path.
    by_path: Vec<Vec<u64>>,
    next: u64,
}

impl Path {
    /// A path on which nothing is wrong.
    pub fn new(ends: [usize; 2], delay_ms: u64, jitter_ms: u64) -> Self {
        Self { ends, delay_ms, jitter_ms, loss_percent: 0, clog_ms: 0, deaf: [None; 2] }
    }

    pub fn end_of(&self, node: usize) -> Option<End> {
        self.ends.iter().position(|end| *end == node)
    }

    pub fn is_whole(&self) -> bool {
        self.deaf == [None; 2]
    }

    pub fn delay(&self, rng: &mut fastrand::Rng) -> u64 {
        self.delay_ms + self.clog_ms + rng.u64(0..=self.jitter_ms)
    }

    /// How often a packet is sent in vain. A stream loses nothing by it but time: what comes after waits.
    pub fn losses(&self, rng: &mut fastrand::Rng) -> u64 {
        if self.loss_percent == 0 {
            return 0;
        }
        let lost = (0..LOSSES_IN_A_ROW_MAX).take_while(|_| rng.u64(0..100) < self.loss_percent);
        lost.count() as u64
    }

    /// How long it takes until a loss is found out, by what is acknowledged after it: 9/8 of a round trip (RFC 9002, 6.1.2).
    pub fn loss_ms(&self) -> u64 {
        2 * self.delay_ms * 9 / 8 + ACK_DELAY_MS
    }
}

/// The number that an end of a connection knows it by.
pub fn link_id(connection: u64, end: End) -> LinkId {
    LinkId(connection * 2 + end as u64)
}

pub fn of_link(link: LinkId) -> (u64, End) {
    (link.0 / 2, usize::from(link.0 % 2 == 1))
}

impl Network {
    pub fn open(&mut self, path: usize, dialler: End) -> u64 {
        self.next += 1;
        let connection =
            Connection { path, dialler, state: [State::Opening; 2], last: [0; 2], held: [Vec::new(), Vec::new()] };
        self.connections.insert(self.next, connection);
        self.by_path.resize_with(self.paths.len(), Vec::new);
        self.by_path[path].push(self.next);
        self.next
    }

    /// A connection of which neither end is up any more.
    pub fn remove(&mut self, id: u64) -> Option<Connection> {
        let gone = self.connections.remove(&id)?;
        self.by_path[gone.path].retain(|other| *other != id);
        Some(gone)
    }

    /// Connections over a path with an end that is not down, in the order in which they were opened.
    pub fn over(&self, path: usize) -> Vec<u64> {
        self.by_path.get(path).cloned().unwrap_or_default()
    }

    /// The node at an end of a connection.
    pub fn node(&self, connection: &Connection, end: End) -> usize {
        self.paths[connection.path].ends[end]
    }
}
