//! What the tasks of the links' thread share: the mesh, the links that are up, and what is to be told of them.

use super::link::Link;
use super::mark::InterestMark;
use super::queue::Outgoing;
use super::status::LinksStatus;
use crate::hops;
use crate::ledger::{Exchanged, Term};
use crate::local::{INBOX, Local};
use crate::outbox::Delivery;
use crate::peering::{Asked, PeerHead};
use crate::shared::Reach;
use crate::trace::EventId;
use arc_swap::ArcSwap;
use bytes::Bytes;
use myelin_catalog::{Digest, Head};
use myelin_mesh::{
    Control, Directory, DuplicateWindow, Interest, LinkId, Mesh, Output, RouterNumber, Routes, Stamp, Violation,
    ViolationCode,
};
use myelin_wire::Pattern;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// An [`Output::Application`] with the number of events that came by a link so far.
pub(super) const RECEIPT: u8 = 1;
/// Violations close a connection with this code and their number.
const CLOSE_CODE: u32 = 0x100;
/// Runs of neighbours of which it is kept what was exchanged: those of a full mesh, and some restarts of each.
const EXCHANGED_MAX: usize = 1024;
/// How often it is looked whether neighbours read what waits on their control streams, while it piles up ...
const CONTROL_POLL: Duration = Duration::from_millis(5);
/// ... and how often at most: one that reads nothing must not hold up the others. It loses its link.
const CONTROL_POLLS_MAX: u32 = 20;
/// How often a stopping router looks whether its links have sent everything.
const SETTLE_POLL: Duration = Duration::from_millis(5);

/// Counters that are not the ledger's.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) duplicates: Cell<u64>,
    pub(super) unreachable: Cell<u64>,
    alarms: RefCell<BTreeMap<String, u64>>,
    violations: RefCell<BTreeMap<String, u64>>,
}

/// Shared by the tasks of the thread; nothing of it is borrowed across an await.
pub(super) struct Links {
    pub(super) local: Rc<Local>,
    pub(super) counters: Counters,
    pub(super) window: RefCell<DuplicateWindow>,
    pub(super) queue_bytes: usize,
    mesh: RefCell<Mesh>,
    links: RefCell<BTreeMap<LinkId, Rc<Link>>>,
    /// What was exchanged over links that have ended, by neighbour and its run; the newest runs of each.
    ended: RefCell<BTreeMap<(String, String, u32), Exchanged>>,
    next: Cell<u64>,
    reach_version: Cell<u64>,
    routes: RefCell<Arc<Routes>>,
    interest: RefCell<Interest>,
    /// Whether this site has other routers.
    siblings: Cell<bool>,
    /// Whether the router stops: there are no new links any more.
    stops: Cell<bool>,
    deadline: Rc<Notify>,
    /// Links came or went, or other routers told new addresses.
    pub(super) changed: Notify,
    status: Arc<ArcSwap<LinksStatus>>,
    peers: watch::Sender<Arc<[PeerHead]>>,
    /// Where the questions of other routers go.
    pub(super) asked: mpsc::Sender<Asked>,
}

/// Where the thread publishes what it knows, for other threads.
pub(super) struct Outlets {
    pub(super) status: Arc<ArcSwap<LinksStatus>>,
    pub(super) peers: watch::Sender<Arc<[PeerHead]>>,
    pub(super) asked: mpsc::Sender<Asked>,
}

impl Links {
    pub(super) fn new(local: Rc<Local>, mesh: Mesh, queue_bytes: usize, outlets: Outlets) -> Self {
        let Outlets { status, peers, asked } = outlets;
        Self {
            routes: RefCell::new(mesh.routes()),
            interest: RefCell::new(mesh.interest()),
            siblings: Cell::new(has_siblings(&mesh)),
            stops: Cell::new(false),
            local,
            counters: Counters::default(),
            window: RefCell::default(),
            queue_bytes,
            mesh: RefCell::new(mesh),
            links: RefCell::default(),
            ended: RefCell::default(),
            next: Cell::new(1),
            reach_version: Cell::new(1),
            deadline: Rc::default(),
            changed: Notify::new(),
            status,
            peers,
            asked,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.local.shared.now_ms()
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.mesh.borrow().next_deadline()
    }

    /// Ends when the mesh was called: its next deadline may be another one.
    pub(super) fn deadline_moved(&self) -> impl Future<Output = ()> + use<> {
        let deadline = self.deadline.clone();
        async move { deadline.notified().await }
    }

    pub(super) fn routes(&self) -> Arc<Routes> {
        self.routes.borrow().clone()
    }

    pub(super) fn with_interest<T>(&self, look: impl FnOnce(&Interest) -> T) -> T {
        look(&self.interest.borrow())
    }

    /// Tells the other routers that answers to this one's sessions are wanted.
    pub(super) fn want_answers(&self) {
        let inboxes = format!("{INBOX}{:x}/**", self.local.shared.origin);
        let told =
            Pattern::new(&inboxes).map(|inboxes| self.with_mesh(|mesh, now| mesh.subscribe(now, &inboxes, None)));
        if !matches!(told, Ok(Ok(()))) {
            tracing::error!(inboxes, "the inboxes of this router are not told: a defect of the router");
        }
    }

    /// Looks something up in the mesh.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Mesh) -> T) -> T {
        look(&self.mesh.borrow())
    }

    /// Calls the mesh and carries out what it says.
    pub(super) fn with_mesh<T>(&self, call: impl FnOnce(&mut Mesh, u64) -> T) -> T {
        let answer = call(&mut self.mesh.borrow_mut(), self.now_ms());
        self.pump();
        answer
    }

    pub(super) fn new_id(&self) -> LinkId {
        LinkId(self.next.replace(self.next.get() + 1))
    }

    pub(super) fn insert(&self, link: Rc<Link>) {
        self.links.borrow_mut().insert(link.id, link);
    }

    /// Takes a link out of the table, where it still is.
    pub(super) fn remove(&self, link: LinkId) -> Option<Rc<Link>> {
        let gone = self.links.borrow_mut().remove(&link);
        self.changed.notify_waiters();
        gone
    }

    /// Keeps what was exchanged over a link that has ended.
    pub(super) fn keep_exchanged(&self, last: Exchanged) {
        if (last.sent, last.received) == (0, 0) {
            return;
        }
        let mut ended = self.ended.borrow_mut();
        add_exchanged(&mut ended, last);
        while ended.len() > EXCHANGED_MAX
            && let Some(oldest) = ended.keys().min_by_key(|(_, _, epoch)| *epoch).cloned()
        {
            ended.remove(&oldest);
        }
    }

    /// What went to and came from each neighbour.
    pub(super) fn exchanged(&self) -> Vec<Exchanged> {
        let mut all = self.ended.borrow().clone();
        self.links.borrow().values().for_each(|link| add_exchanged(&mut all, link.exchanged()));
        all.into_values().collect()
    }

    pub(super) fn link(&self, link: LinkId) -> Option<Rc<Link>> {
        self.links.borrow().get(&link).cloned()
    }

    /// Whether this site has other routers.
    pub(super) fn has_siblings(&self) -> bool {
        self.siblings.get()
    }

    /// The mesh has these sites and routers now.
    pub(super) fn set_directory(&self, directory: Arc<Directory>) {
        self.with_mesh(|mesh, now| mesh.set_directory(now, directory));
        self.siblings.set(self.read(has_siblings));
    }

    /// Whether there is a link to `router`.
    pub(super) fn is_linked(&self, router: RouterNumber) -> bool {
        self.mesh.borrow().peers().any(|peer| peer.router == router)
    }

    /// Queues a copy for a neighbour, and counts what comes of it.
    pub(super) fn offer(&self, link: LinkId, copy: Outgoing) {
        let count = u64::from(copy.delivery.count);
        let Some(link) = self.link(link) else {
            // To which neighbour it was nobody knows any more.
            return self.local.ledger.settle(copy.delivery.origin.generation, Term::Lost, count);
        };
        let shed = |old: Outgoing| {
            self.gone(&link, &old, Term::Shed);
            link.shed.set(link.shed.get() + u64::from(old.delivery.count));
        };
        if let Some(copy) = link.queue.push(copy, shed) {
            self.gone(&link, &copy, Term::Lost);
        }
    }

    /// A copy for a neighbour has ended before it was sent: counted, and written down where it is traced.
    pub(super) fn gone(&self, link: &Link, Outgoing { stamp, delivery }: &Outgoing, term: Term) {
        self.local.ledger.settle(delivery.origin.generation, term, u64::from(delivery.count));
        if delivery.origin.traced.is_some() {
            self.tell(link, delivery, (stamp, &delivery.events), term);
        }
    }

    /// Writes down what became of the sampled ones of these copies for a neighbour.
    #[cold]
    pub(super) fn tell(&self, link: &Link, delivery: &Delivery, (stamp, events): (&Stamp, &[u8]), term: Term) {
        let Stamp { origin, epoch, shard, seq, hops, .. } = *stamp;
        let first = EventId { router: origin.0, epoch, shard, seq };
        let to = format!("{}/{}", link.site(), link.router());
        hops::forwarded(&self.local, delivery, (events, first), (&to, hops), term);
    }

    /// Carries out what the mesh says, until it says nothing more.
    pub(super) fn pump(&self) {
        let (mut reach_changed, mut peers_changed) = (false, false);
        loop {
            let Some(output) = self.mesh.borrow_mut().poll() else { break };
            match output {
                Output::Send { links, control } => self.send(&links, &control),
                Output::Close { link, violation } => self.close(link, &violation),
                Output::InterestChanged | Output::RoutesChanged => reach_changed = true,
                Output::Application { link, kind: RECEIPT, body } => self.receipt(link, &body),
                Output::Application { kind, .. } => tracing::debug!(kind, "a message of a newer router is skipped"),
                Output::StatusChanged(_) => {
                    peers_changed = true;
                    self.changed.notify_waiters();
                }
                Output::Forgotten(router) => self.window.borrow_mut().forget(router),
                Output::PeerDraining { link, drain_ms } => {
                    tracing::info!(?link, drain_ms, "a neighbour is about to leave");
                }
                Output::Alarm(alarm) => self.alarm(alarm.code(), &alarm),
            }
        }
        if reach_changed {
            self.publish();
        }
        if reach_changed || peers_changed {
            self.tell_peers();
        }
        self.deadline.notify_one();
    }

    /// Counts what should not be; said ever more rarely.
    pub(super) fn alarm(&self, code: &str, alarm: &dyn fmt::Debug) {
        let mut alarms = self.counters.alarms.borrow_mut();
        let count = alarms.entry(code.to_owned()).or_default();
        *count += 1;
        if count.is_power_of_two() {
            tracing::warn!(code, ?alarm, count, "alarm");
        }
    }

    /// Tells the control plane who can be reached, and how far their catalogs are.
    fn tell_peers(&self) {
        let routes = self.routes();
        let mut peers: Vec<PeerHead> = self.read(|mesh| {
            let states = mesh.link_states().filter(|state| state.owner.0 != self.local.shared.origin);
            let known = states.filter_map(|state| {
                let hop = routes.hop(state.owner)?;
                let head = Head { rev: state.catalog.rev, hash: Digest::from_bytes(state.catalog.hash.0) };
                let is_neighbour = hop.neighbour == state.owner;
                Some(PeerHead { router: state.owner.0, head, is_neighbour, cost: hop.cost })
            });
            known.collect()
        });
        peers.sort_by_key(|peer| (!peer.is_neighbour, peer.cost, peer.router));
        self.peers.send_if_modified(|known| {
            let is_news = **known != *peers;
            if is_news {
                *known = peers.into();
            }
            is_news
        });
    }

    /// Hands interest and routes to the workers.
    fn publish(&self) {
        let (interest, routes) = self.read(|mesh| (mesh.interest(), mesh.routes()));
        self.routes.replace(routes.clone());
        self.interest.replace(interest.clone());
        let version = self.reach_version.get() + 1;
        self.reach_version.set(version);
        if let Some(outward) = &self.local.shared.outward {
            outward.reach.store(Arc::new(Reach { version, interest, routes }));
        }
        self.changed.notify_waiters();
    }

    fn send(&self, links: &[LinkId], control: &Control) {
        let mut frame = Vec::new();
        if let Err(violation) = control.encode(&mut frame) {
            return tracing::error!(%violation, "a control message is over its limit: a defect of the router");
        }
        let frame = Bytes::from(frame);
        for link in links.iter().filter_map(|link| self.link(*link)) {
            // A neighbour that does not read its control stream is as good as dead.
            if link.control.try_send(frame.clone()).is_err() {
                link.end("the neighbour does not read its control stream");
            }
        }
    }

    fn receipt(&self, link: LinkId, body: &[u8]) {
        let Some(link) = self.link(link) else { return };
        let ledger = &self.local.ledger;
        let settle = |generation, count| ledger.settle(generation, Term::Forwarded, count);
        let violation = match body.try_into().map(u64::from_le_bytes) {
            Ok(total) => match link.outstanding.receipt(total, settle) {
                Ok(()) => return,
                Err(refusal) => Violation::new(ViolationCode::OutOfOrder, refusal.message),
            },
            Err(_) => Violation::new(ViolationCode::Malformed, format!("a receipt of {} bytes", body.len())),
        };
        self.count_violation(&violation);
        self.refuse(&link.connection, &violation);
        link.end("the neighbour acknowledges what it was not sent");
    }

    /// Lets others have their turn, and waits while messages pile up for some neighbour: what one says goes on to the
    /// others, which are not to lose their links because it talks faster than they read.
    pub(super) async fn room_for_control(&self) {
        tokio::task::yield_now().await;
        let is_piling_up = |link: &Rc<Link>| link.control.capacity() < link.control.max_capacity() / 2;
        for _ in 0..CONTROL_POLLS_MAX {
            if !self.links.borrow().values().any(is_piling_up) {
                return;
            }
            tokio::time::sleep(CONTROL_POLL).await;
        }
    }

    /// The mesh has given up a link.
    fn close(&self, link: LinkId, violation: &Violation) {
        self.count_violation(violation);
        if let Some(link) = self.link(link) {
            link.connection.close(CLOSE_CODE + u32::from(violation.code.number()), &violation.message);
        }
    }

    pub(super) fn count_violation(&self, violation: &Violation) {
        // Both sides have dialled at once: nobody's fault.
        if violation.code == ViolationCode::DuplicateLink {
            return tracing::debug!(message = &*violation.message, "a second link is not needed");
        }
        let mut violations = self.counters.violations.borrow_mut();
        let count = violations.entry(violation.code.name().to_owned()).or_default();
        *count += 1;
        // Nobody is to fill the log: the 1st, 2nd, 4th, 8th ..
        if count.is_power_of_two() {
            let (code, message) = (violation.code.name(), &*violation.message);
            tracing::warn!(code, message, count, "a neighbour broke the protocol");
        }
    }

    /// Closes a connection that is refused.
    pub(super) fn refuse(&self, connection: &myelin_transport::Connection, violation: &Violation) {
        connection.close(CLOSE_CODE + u32::from(violation.code.number()), &violation.message);
    }

    /// Tells the neighbours that this router is about to leave.
    pub(super) fn drain(&self) {
        self.with_mesh(|mesh, now| mesh.drain(now, 30_000));
    }

    /// Waits until every link has sent what waits and heard that it arrived.
    pub(super) async fn settled(&self) {
        let busy = |link: &Rc<Link>| link.queue.depth().1 > 0 || link.outstanding.events() > 0;
        while self.links.borrow().values().any(busy) {
            tokio::time::sleep(SETTLE_POLL).await;
        }
    }

    /// Whether the router stops.
    pub(super) fn stops(&self) -> bool {
        self.stops.get()
    }

    /// Ends all links, for good: a router that dials again while it stops would seem to be live when it is back.
    pub(super) fn close_all(&self, why: &str) {
        self.stops.set(true);
        let links: Vec<_> = self.links.borrow().values().cloned().collect();
        links.iter().for_each(|link| link.end(why));
    }

    /// Publishes what is known of the mesh.
    pub(super) fn tell_status(&self) {
        let links = self.links.borrow();
        let sizes = self.read(Mesh::sizes);
        let status = LinksStatus {
            router: self.local.shared.origin,
            reachable: self.routes().iter().filter(|(_, hop)| hop.is_some()).count(),
            interest: sizes.interest_entries,
            interest_own: sizes.own_entries,
            interest_behind: sizes.behind,
            interest_asked: self.read(Mesh::stats).snapshots_asked,
            interests: self.read(InterestMark::all),
            links: links.values().map(|link| link.status()).collect(),
            alarms: self.counters.alarms.borrow().clone(),
            violations: self.counters.violations.borrow().clone(),
            duplicates: self.counters.duplicates.get(),
            unreachable: self.counters.unreachable.get(),
            neighbours: self.exchanged(),
        };
        self.status.store(Arc::new(status));
    }
}

/// Whether the own site has other routers.
fn has_siblings(mesh: &Mesh) -> bool {
    mesh.directory().routers().filter(|router| router.site == mesh.routes().my_site()).count() > 1
}

fn add_exchanged(all: &mut BTreeMap<(String, String, u32), Exchanged>, more: Exchanged) {
    let key = (more.site.clone(), more.router.clone(), more.epoch);
    let sum = all.entry(key).or_insert_with(|| Exchanged {
        site: more.site.clone(),
        router: more.router.clone(),
        epoch: more.epoch,
        ..Exchanged::default()
    });
    sum.sent += more.sent;
    sum.acknowledged += more.acknowledged;
    sum.lost += more.lost;
    sum.received += more.received;
}
