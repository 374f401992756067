//! The links to the routers of other sites: one thread with its own runtime, listener and dialler.
//!
//! It owns the [`Mesh`], the pure state machine, and carries out what that says: it sends control messages, hands the
//! workers a new [`Reach`] when interest or routes have changed, and closes what broke the protocol. Events come from
//! the workers as [`Forward`]s and from other routers as batches; where they go is decided by
//! [`myelin_mesh::split`]. Nothing here waits for a slow neighbour: each has a bounded queue that sheds the oldest.
//!
//! To the rest of the router the thread is one more worker: it has a ledger, a generation of filters of its own (for
//! what leaves to this site's subscribers), and takes the same orders.

mod arrive;
mod calls;
mod connect;
mod forward;
mod link;
mod mark;
mod queue;
mod state;
mod status;

pub use mark::InterestMark;
pub use status::{LinkStatus, LinksStatus};

use crate::config::MeshConfig;
use crate::local::{INBOX, Local};
use crate::peering::{self, LinksEnd, Peering};
use crate::shared::{Forward, InterestChange, Outward, Reach, Shared};
use crate::worker::{Order, Worker, obey};
use anyhow::Context as _;
use arc_swap::ArcSwap;
use myelin_mesh::control::{ALPN_MESH, GroupName, Status};
use myelin_mesh::{Directory, Mesh, RouterNumber, SiteNumber};
use myelin_transport::{BoundListener, Listener, ListenerConfig, QuicConfig, TlsIdentity};
use state::{Links, Outlets};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::spawn_local;

/// Runs of events that may wait for the links' thread: as many as for a worker, for the same reasons.
const FORWARDS_WAITING_MAX: usize = crate::shared::MAILBOX_PARCELS;
/// Changes of interest that may wait; whoever writes the subscription table waits for more.
const INTEREST_WAITING_MAX: usize = 4096;
/// How long the links may take to send what waits when the router stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// QUIC between routers: a dead neighbour is known after four seconds, and the windows fit a path of 200 ms.
fn quic() -> QuicConfig {
    QuicConfig {
        keep_alive_ms: 1_000,
        idle_timeout_ms: 4_000,
        bidi_streams_max: 16,
        uni_streams_max: 16,
        stream_window_bytes: 8 * 1024 * 1024,
        connection_window_bytes: 16 * 1024 * 1024,
        send_window_bytes: 16 * 1024 * 1024,
        ..QuicConfig::default()
    }
}

/// Links that are bound and not running yet.
pub struct BoundLinks {
    listener: BoundListener,
    config: MeshConfig,
    mesh: myelin_mesh::Config,
    directory: Arc<Directory>,
    forwards: mpsc::Receiver<Forward>,
    interest: mpsc::Receiver<InterestChange>,
    status: Arc<ArcSwap<LinksStatus>>,
    control: LinksEnd,
    tls: TlsIdentity,
}

impl BoundLinks {
    /// Binds the address for other routers and finds this router among the members; `None` where no address is
    /// configured. Returns what the workers need as well.
    ///
    /// # Errors
    /// When the address cannot be bound, or this router is not in `directory`.
    pub fn bind(
        config: &MeshConfig,
        directory: Arc<Directory>,
        (site, router): (&str, &str),
        epoch: u32,
        tls: &TlsIdentity,
    ) -> anyhow::Result<Option<(Self, Outward, Peering)>> {
        let Some(addr) = config.listen else { return Ok(None) };
        let (number, site_number) = find(&directory, site, router)
            .with_context(|| format!("neither [mesh] members nor the catalog names this router, `{site}/{router}`"))?;
        let alpn = vec![String::from_utf8_lossy(ALPN_MESH).into_owned()];
        let listener = ListenerConfig { addr, alpn, quic: quic(), migration: false, ..ListenerConfig::default() };
        let listener =
            Listener::bind(listener, tls).with_context(|| format!("the links' listener on {addr} ([mesh] listen)"))?;
        let mesh = myelin_mesh::Config::new(site_number, site, number, router, epoch);
        let still = Mesh::new(0, mesh.clone(), directory.clone());
        let reach = Reach { version: 1, interest: still.interest(), routes: still.routes() };
        let (forwards, forwards_in) = mpsc::channel(FORWARDS_WAITING_MAX);
        let (interest, interest_in) = mpsc::channel(INTEREST_WAITING_MAX);
        let reach = Arc::new(ArcSwap::from_pointee(reach));
        let (peering, control) = peering::pair(number.0);
        let links = Self {
            listener,
            config: config.clone(),
            mesh,
            directory,
            forwards: forwards_in,
            interest: interest_in,
            status: Arc::default(),
            control,
            tls: tls.clone(),
        };
        let outward = Outward { reach, forwards, interest };
        Ok(Some((links, outward, peering)))
    }

    /// This router's number in the mesh.
    pub fn number(&self) -> RouterNumber {
        self.mesh.router
    }

    /// Where other routers connect, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// What is known of the mesh, for people.
    pub fn status(&self) -> Arc<ArcSwap<LinksStatus>> {
        self.status.clone()
    }

    /// Starts the links' thread, as worker number `id`.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(self, id: u8, shared: Arc<Shared>) -> std::io::Result<Worker> {
        Worker::spawn(id, "links".to_owned(), shared, move |local, orders| run(self, local, orders))
    }
}

fn find(directory: &Directory, site: &str, router: &str) -> Option<(RouterNumber, SiteNumber)> {
    let number = directory.by_name(site, router)?;
    Some((number, directory.site_of(number)?))
}

/// The thread's work: what happens is taken up here, and handled in tasks of their own.
async fn run(bound: BoundLinks, local: Rc<Local>, mut orders: mpsc::Receiver<Order>) {
    let BoundLinks { listener, config, mut mesh, directory, forwards, interest, status, control, tls } = bound;
    let LinksEnd { calls, told, peers, asked } = control;
    let mut listener = match listener.start() {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the links' listener does not start"),
    };
    let now = local.shared.now_ms();
    mesh.seed ^= now;
    let mut mesh = Mesh::new(now, mesh, directory);
    mesh.set_status(now, Status { addresses: config.advertise.clone(), generations: Vec::new(), load: 0 });
    let links = Rc::new(Links::new(local.clone(), mesh, config.queue_bytes, Outlets { status, peers, asked }));
    links.pump();
    links.want_answers();
    spawn_local(forward::take(links.clone(), forwards));
    spawn_local(follow_interest(links.clone(), interest));
    spawn_local(calls::carry(links.clone(), calls));
    spawn_local(calls::follow(links.clone(), told));
    spawn_local(keep_time(links.clone()));
    spawn_local(connect::dial_all(links.clone(), config.seeds, tls));
    loop {
        tokio::select! {
            Some(connection) = listener.accept() => {
                spawn_local(link::serve(links.clone(), connection, false));
            }
            order = orders.recv() => match order {
                None | Some(Order::Stop) => break,
                Some(Order::StopAccepting) => {
                    listener.stop_accepting();
                    links.drain();
                }
                // Whoever asked may have gone.
                Some(Order::Exchanged(answer)) => drop(answer.send(links.exchanged())),
                Some(order) => obey(&local, order),
            },
        }
    }
    let _ = tokio::time::timeout(STOP_GRACE, links.settled()).await;
    links.close_all("the router has stopped");
    listener.close(0, "draining: the router has stopped");
    let _ = tokio::time::timeout(STOP_GRACE, listener.wait_idle()).await;
}

/// Tells the mesh what this router's sessions want.
async fn follow_interest(links: Rc<Links>, mut changes: mpsc::Receiver<InterestChange>) {
    while let Some(InterestChange { pattern, group, begins }) = changes.recv().await {
        // All inboxes of this router were told at its start.
        if pattern.as_str().starts_with(INBOX) {
            continue;
        }
        // What a session may call a group is within what the mesh takes.
        let group = group.and_then(|group| GroupName::new(&group));
        let told = links.with_mesh(|mesh, now| match begins {
            true => mesh.subscribe(now, &pattern, group.as_ref()),
            false => mesh.unsubscribe(now, &pattern, group.as_ref()),
        });
        if let Err(error) = told {
            tracing::warn!(%error, pattern = pattern.as_str(), "other sites are not told of a subscription");
        }
    }
}

/// Calls the mesh when it has something to do.
async fn keep_time(links: Rc<Links>) {
    loop {
        let moved = links.deadline_moved();
        match links.next_deadline() {
            Some(at_ms) => {
                let left = at_ms.saturating_sub(links.now_ms());
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(left.max(1))) => links.with_mesh(|mesh, now| mesh.tick(now)),
                    () = moved => {}
                }
            }
            None => moved.await,
        }
    }
}
