//! The server's side: sockets, the gate before the handshake, and the connections that came through it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{AsyncUdpSocket, Runtime, VarInt};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::config::{ConfigError, ListenerConfig};
use crate::connection::{Connection, peer_leaf};
use crate::error::{CloseKind, CloseReason};
use crate::identity::Identity;
use crate::limiter::{Decision, Limiter};
use crate::reset::ResetKey;
use crate::socket::{BoundSocket, SocketFacts, WorkerIds, bind_shared};
use crate::tls::{ClientAuthentication, Refusal, RefusalSink, TlsIdentity};

/// Bytes of one client held until the gate has looked at it: a ClientHello is one or two packets.
const INCOMING_BYTES_EACH_MAX: u64 = 64 * 1024;

/// A listener whose socket is bound and whose endpoint is not running yet: made anywhere, started by its worker.
pub struct BoundListener {
    socket: BoundSocket,
    endpoint: quinn::EndpointConfig,
    server: quinn::ServerConfig,
    config: ListenerConfig,
    stats: Arc<ListenerStats>,
}

/// A running listener. Dropping it stops accepting; its connections live on.
pub struct Listener {
    control: ListenerControl,
    ready: mpsc::Receiver<Connection>,
    gate: JoinHandle<()>,
    segments_max: usize,
}

/// A handle on a [`Listener`] for other threads. Cheap to clone.
#[derive(Clone)]
pub struct ListenerControl {
    endpoint: quinn::Endpoint,
    stopping: Arc<Notify>,
    addr: SocketAddr,
    facts: SocketFacts,
    stats: Arc<ListenerStats>,
}

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Settings out of range.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Config(Vec<ConfigError>),
    /// The certificate names a service; clients trust only routers.
    #[error("the certificate is for {0}, which is not a router; issue a router's with `myelin cert issue`")]
    NotARouter(Identity),
    /// More sockets than worker numbers.
    #[error("{0} workers are too many: worker numbers are one byte")]
    TooManyWorkers(usize),
    /// The address cannot be bound.
    #[error("cannot listen on UDP {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

impl ListenError {
    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "invalid-setting",
            Self::NotARouter(_) => "tls-wrong-kind",
            Self::TooManyWorkers(_) => "too-many-workers",
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => "address-in-use",
            Self::Bind { .. } => "bind-failed",
        }
    }
}

/// Counters of a listener since it was bound.
#[derive(Debug, Default)]
pub struct ListenerStats {
    /// First packets looked at.
    pub attempts: AtomicU64,
    /// Connections through the handshake.
    pub accepted: AtomicU64,
    /// First packets answered with a demand to prove the address.
    pub retried: AtomicU64,
    /// First packets ignored because their network, or everyone together, knocks too often.
    pub ignored: AtomicU64,
    /// Handshakes that took too long.
    pub timed_out: AtomicU64,
    /// Handshakes that the client ended, for example because it does not trust us.
    pub refused_by_client: AtomicU64,
    /// Handshakes under way.
    pub handshaking: AtomicUsize,
    /// Of these, those whose client has not proven its address.
    pub unvalidated: AtomicUsize,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl ListenerStats {
    /// Clients refused for this reason.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Relaxed)
    }

    /// Clients refused for any reason.
    #[must_use]
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().map(|count| count.load(Relaxed)).sum()
    }

    fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Relaxed);
    }
}

impl Listener {
    /// Binds one listener. Needs no runtime.
    ///
    /// # Errors
    /// [`ListenError`] when a setting, the identity or the address will not do.
    pub fn bind(config: ListenerConfig, tls: &TlsIdentity) -> Result<BoundListener, ListenError> {
        let mut group = Self::bind_group(config, tls, 1)?;
        Ok(group.pop().expect("one was asked for"))
    }

    /// Binds `count` listeners, one a worker, to one UDP port. They share what lets a client be understood by any of
    /// them: the key of stateless resets and that of address tokens.
    ///
    /// # Errors
    /// [`ListenError`] when a setting, the identity or the address will not do.
    pub fn bind_group(
        config: ListenerConfig,
        tls: &TlsIdentity,
        count: usize,
    ) -> Result<Vec<BoundListener>, ListenError> {
        config.validate().map_err(ListenError::Config)?;
        if count == 0 || usize::from(config.worker) + count > 256 {
            return Err(ListenError::TooManyWorkers(count));
        }
        let identity = tls.identity();
        if !identity.is_router() {
            return Err(ListenError::NotARouter(identity));
        }
        let mut endpoint = config.reset_key.as_ref().map(ResetKey::endpoint_config).unwrap_or_default();
        let payload_max = config.quic.mtu_bytes_max.max(1472);
        endpoint.max_udp_payload_size(payload_max).expect("validate() has checked the MTU");
        let sockets = bind_shared(config.addr, count, config.quic.socket_buffer_bytes as usize)
            .map_err(|source| ListenError::Bind { addr: config.addr, source })?;
        let stats: Vec<Arc<ListenerStats>> = sockets.iter().map(|_| Arc::default()).collect();
        let server = server_config(&config, crypto(&config, tls, &stats[0]));
        let numbered = (config.worker..=u8::MAX).zip(sockets).zip(stats);
        let listener = |((worker, socket), stats)| {
            // Copies keep the keys; what follows is the worker's own.
            let mut endpoint = endpoint.clone();
            endpoint.cid_generator(move || Box::new(WorkerIds { worker }));
            let mut server = server.clone();
            server.crypto = crypto(&config, tls, &stats);
            BoundListener { socket, endpoint, server, config: ListenerConfig { worker, ..config.clone() }, stats }
        };
        Ok(numbered.map(listener).collect())
    }

    /// The next connection through the handshake, or `None` once the listener has stopped accepting and the last
    /// handshake is through. Cancel-safe.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.ready.recv().await
    }

    /// A handle for other threads.
    #[must_use]
    pub fn control(&self) -> ListenerControl {
        self.control.clone()
    }

    /// The address bound, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.control.local_addr()
    }

    /// Packets that the kernel takes in one send: 1 means no GSO, and a third of the throughput. quinn uses 10 at most.
    #[must_use]
    pub fn segments_max(&self) -> usize {
        self.segments_max
    }

    /// See [`ListenerControl::stop_accepting`].
    pub fn stop_accepting(&self) {
        self.control.stop_accepting();
    }

    /// See [`ListenerControl::close`].
    pub fn close(&self, code: u32, reason: &str) {
        self.control.close(code, reason);
    }

    /// See [`ListenerControl::wait_idle`].
    pub async fn wait_idle(&self) {
        self.control.wait_idle().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.gate.abort();
    }
}

impl BoundListener {
    /// The address bound, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.addr
    }

    /// What the kernel gave the socket.
    #[must_use]
    pub fn facts(&self) -> SocketFacts {
        self.socket.facts
    }

    /// The counters, from now on.
    #[must_use]
    pub fn stats(&self) -> Arc<ListenerStats> {
        self.stats.clone()
    }

    /// Starts the endpoint on the current tokio runtime, which then does all its work.
    ///
    /// # Errors
    /// When the runtime cannot take the socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub fn start(self) -> io::Result<Listener> {
        let Self { socket, endpoint, server, config, stats } = self;
        let BoundSocket { socket, addr, facts } = socket;
        let runtime = Arc::new(quinn::TokioRuntime);
        let socket: Arc<dyn AsyncUdpSocket> = runtime.wrap_udp_socket(socket)?;
        let segments_max = if config.quic.segmentation_offload { socket.max_transmit_segments() } else { 1 };
        let endpoint = quinn::Endpoint::new_with_abstract_socket(endpoint, Some(server), socket, runtime)?;
        let control = ListenerControl { endpoint, stopping: Arc::default(), addr, facts, stats: stats.clone() };
        let (ready_tx, ready) = mpsc::channel(config.accepted_max as usize);
        let gate = Gate {
            limiter: Limiter::new(config.limiter.clone(), tokio::time::Instant::now().into_std()),
            permits: Arc::new(Semaphore::new(config.handshakes_max as usize)),
            config,
            stats,
        };
        let gate = tokio::spawn(gate.run(control.endpoint.clone(), control.stopping.clone(), ready_tx));
        Ok(Listener { control, ready, gate, segments_max })
    }
}

impl ListenerControl {
    /// The address bound, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// What the kernel gave the socket.
    #[must_use]
    pub fn facts(&self) -> SocketFacts {
        self.facts
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<ListenerStats> {
        &self.stats
    }

    /// Connections now, those still in the handshake or closing included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// Refuses every new client as `busy` from now on. Handshakes under way may end; connections live on.
    pub fn stop_accepting(&self) {
        self.stopping.notify_one();
    }

    /// Closes every connection, and the listener for good.
    pub fn close(&self, code: u32, reason: &str) {
        self.endpoint.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Waits until every connection has ended and its peer has been told.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// Decides on first packets and sees handshakes through.
struct Gate {
    limiter: Limiter,
    permits: Arc<Semaphore>,
    config: ListenerConfig,
    stats: Arc<ListenerStats>,
}

impl Gate {
    async fn run(mut self, endpoint: quinn::Endpoint, stopping: Arc<Notify>, ready: mpsc::Sender<Connection>) {
        let mut ready = Some(ready);
        loop {
            tokio::select! {
                () = stopping.notified(), if ready.is_some() => ready = None,
                incoming = endpoint.accept() => match (incoming, &ready) {
                    (None, _) => return,
                    (Some(incoming), Some(ready)) => self.consider(incoming, ready),
                    (Some(incoming), None) => self.turn_away(incoming),
                },
            }
        }
    }

    fn consider(&mut self, incoming: quinn::Incoming, ready: &mpsc::Sender<Connection>) {
        self.stats.attempts.fetch_add(1, Relaxed);
        let validated = incoming.remote_address_validated();
        let now = tokio::time::Instant::now().into_std();
        let unvalidated = self.stats.unvalidated.load(Relaxed);
        match self.limiter.decide(now, incoming.remote_address().ip(), validated, unvalidated) {
            Decision::Accept => match self.permits.clone().try_acquire_owned() {
                Ok(permit) => {
                    let progress = Progress::begin(self.stats.clone(), validated);
                    let timeout = self.config.quic.handshake_timeout();
                    let ready = ready.clone();
                    let certificate_optional = self.config.certificate_optional;
                    tokio::spawn(async move {
                        let through = handshake(incoming, timeout, certificate_optional, &progress.stats).await;
                        drop(progress);
                        if let Some(connection) = through {
                            // The permit is held until the worker takes the connection: a worker that is behind slows
                            // the accepting down. A receiver that is gone drops, and so closes, the connection.
                            let _ = ready.send(connection).await;
                        }
                        drop(permit);
                    });
                }
                Err(_) => self.turn_away(incoming),
            },
            Decision::Retry if incoming.may_retry() => {
                self.stats.retried.fetch_add(1, Relaxed);
                // Cannot fail: may_retry() has just said so.
                let _ = incoming.retry();
            }
            Decision::Retry | Decision::Ignore => {
                self.stats.ignored.fetch_add(1, Relaxed);
                incoming.ignore();
            }
        }
    }

    fn turn_away(&self, incoming: quinn::Incoming) {
        self.stats.refuse(Refusal::Busy);
        incoming.refuse();
    }
}

/// A handshake under way, for the counters.
struct Progress {
    stats: Arc<ListenerStats>,
    validated: bool,
}

impl Progress {
    fn begin(stats: Arc<ListenerStats>, validated: bool) -> Self {
        stats.handshaking.fetch_add(1, Relaxed);
        if !validated {
            stats.unvalidated.fetch_add(1, Relaxed);
        }
        Self { stats, validated }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stats.handshaking.fetch_sub(1, Relaxed);
        if !self.validated {
            self.stats.unvalidated.fetch_sub(1, Relaxed);
        }
    }
}

/// Sees one handshake through. The verifier inside it has checked chain and identity, before any frame.
async fn handshake(
    incoming: quinn::Incoming,
    timeout: std::time::Duration,
    certificate_optional: bool,
    stats: &ListenerStats,
) -> Option<Connection> {
    let connection = match incoming.accept() {
        Ok(connecting) => match tokio::time::timeout(timeout, connecting).await {
            Ok(connection) => connection,
            Err(_) => {
                stats.timed_out.fetch_add(1, Relaxed);
                return None;
            }
        },
        Err(error) => Err(error),
    };
    match connection {
        Ok(connection) => {
            // Who shows a certificate has the name in it, and no other.
            let has_certificate = connection.peer_identity().is_some();
            let nobody = (certificate_optional && !has_certificate).then(Identity::nobody);
            let Some(identity) = nobody.or_else(|| peer_identity(&connection)) else {
                // The verifier lets nobody without an identity through; if it ever did, this would end it.
                stats.refuse(Refusal::WrongIdentity);
                connection.close(VarInt::from_u32(0), b"no identity");
                return None;
            };
            stats.accepted.fetch_add(1, Relaxed);
            Some(Connection::quic(connection, identity))
        }
        Err(error) => {
            count_failure(stats, &CloseReason::from_quinn(&error));
            None
        }
    }
}

fn count_failure(stats: &ListenerStats, reason: &CloseReason) {
    match reason.kind {
        _ if reason.by_peer => {
            stats.refused_by_client.fetch_add(1, Relaxed);
        }
        CloseKind::TimedOut => {
            stats.timed_out.fetch_add(1, Relaxed);
        }
        CloseKind::Refused(refusal) if refusal.is_of_certificate() => {} // the verifier has counted it, more exactly
        CloseKind::Refused(refusal) => stats.refuse(refusal),
        CloseKind::Application | CloseKind::Reset | CloseKind::Protocol | CloseKind::Local => {
            stats.refuse(Refusal::Handshake);
        }
    }
}

pub(crate) fn peer_identity(connection: &quinn::Connection) -> Option<Identity> {
    Identity::from_certificate(&peer_leaf(connection)?).ok()
}

fn server_config(config: &ListenerConfig, crypto: Arc<QuicServerConfig>) -> quinn::ServerConfig {
    let mut server = quinn::ServerConfig::with_crypto(crypto);
    server
        .transport_config(config.quic.transport())
        .migration(config.migration)
        .max_incoming(config.incoming_max as usize)
        .incoming_buffer_size(INCOMING_BYTES_EACH_MAX)
        .incoming_buffer_size_total(config.incoming_bytes_max);
    server
}

fn crypto(config: &ListenerConfig, tls: &TlsIdentity, stats: &Arc<ListenerStats>) -> Arc<QuicServerConfig> {
    let stats = stats.clone();
    let refusals = RefusalSink::new(move |refusal| stats.refuse(refusal));
    let alpn: Vec<&str> = config.alpn.iter().map(String::as_str).collect();
    let clients =
        if config.certificate_optional { ClientAuthentication::Optional } else { ClientAuthentication::Required };
    let server = tls.server_config_with(&alpn, clients, refusals);
    Arc::new(QuicServerConfig::try_from(server).expect("the provider holds QUIC's initial suite"))
}
