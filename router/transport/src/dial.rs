//! The client's side: dialling a router, and saying exactly why it failed.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;

use crate::config::{ConfigError, QuicConfig};
use crate::connection::Connection;
use crate::error::{CloseKind, CloseReason};
use crate::listener::peer_identity;
use crate::socket::{SocketFacts, bind_own};
use crate::tls::{Refusal, RefusalSink, TlsIdentity};

/// Dials routers from one UDP socket per address family, shared by all its connections.
///
/// Belongs to the tokio runtime it first dials on. Keep it as long as its connections; dropping it leaves them alive.
pub struct Dialer {
    quic: QuicConfig,
    endpoints: Mutex<Endpoints>,
    /// Proofs of our address that routers gave out: the next handshake with one needs no Retry.
    tokens: Arc<quinn::TokenMemoryCache>,
}

#[derive(Default)]
struct Endpoints {
    v4: Option<(quinn::Endpoint, SocketFacts)>,
    v6: Option<(quinn::Endpoint, SocketFacts)>,
}

/// Whom to dial, as what, for which protocol.
#[derive(Debug, Clone)]
pub struct DialConfig {
    /// The router's UDP address.
    pub addr: SocketAddr,
    /// The DNS name or IP address that the router's certificate must be for.
    pub server_name: String,
    /// The protocol, for example [`ALPN_CLIENT`](crate::ALPN_CLIENT).
    pub alpn: String,
    /// Our own certificate, and whom we trust.
    pub tls: TlsIdentity,
}

/// Why a router was not reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The server name is neither a DNS name nor an IP address.
    #[error("`{0}` is neither a DNS name nor an IP address; give the name in the router's certificate")]
    InvalidName(String),
    /// The address cannot be dialled.
    #[error("{0} cannot be dialled: it has no port, or is of a family this machine does not speak")]
    InvalidAddress(SocketAddr),
    /// The local socket failed.
    #[error("no UDP socket to dial from: {0}")]
    Socket(String),
    /// No answer.
    #[error("no answer from {addr} within {waited_ms} ms; is a router listening on this UDP port, and may UDP pass?")]
    Timeout {
        /// Whom.
        addr: SocketAddr,
        /// How long was waited, in milliseconds.
        waited_ms: u32,
    },
    /// We do not trust the router: its certificate was refused here.
    #[error("the router's certificate is not acceptable ({}): {}", .refusal.code(), explain_untrusted(*.refusal))]
    Untrusted {
        /// What is wrong with its certificate.
        refusal: Refusal,
    },
    /// The router refused us.
    #[error("the router refused this client ({}): {}", .refusal.code(), explain_refused(*.refusal))]
    Refused {
        /// Its reason.
        refusal: Refusal,
    },
    /// The connection ended before it was ready, in another way.
    #[error("the connection ended before it was ready: {0}")]
    Lost(CloseReason),
}

impl DialError {
    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "dial-invalid-name",
            Self::InvalidAddress(_) => "dial-invalid-address",
            Self::Socket(_) => "dial-socket",
            Self::Timeout { .. } => "dial-timeout",
            Self::Untrusted { refusal: Refusal::WrongAuthority } => "router-wrong-authority",
            Self::Untrusted { refusal: Refusal::Expired } => "router-expired",
            Self::Untrusted { refusal: Refusal::NotYetValid } => "router-not-yet-valid",
            Self::Untrusted { refusal: Refusal::WrongName } => "router-wrong-name",
            Self::Untrusted { refusal: Refusal::WrongIdentity } => "router-wrong-identity",
            Self::Untrusted { .. } => "router-bad-certificate",
            Self::Refused { refusal } => refusal.code(),
            Self::Lost(reason) => reason.kind.code(),
        }
    }

    /// Whether dialling again may succeed without anybody changing a setting or a certificate.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Socket(_) | Self::Lost(_) => true,
            Self::Refused { refusal } => *refusal == Refusal::Busy,
            Self::InvalidName(_) | Self::InvalidAddress(_) | Self::Untrusted { .. } => false,
        }
    }
}

impl Dialer {
    /// A dialer whose connections have these settings. Binds nothing yet.
    ///
    /// # Errors
    /// All settings that are out of range.
    pub fn new(quic: QuicConfig) -> Result<Self, Vec<ConfigError>> {
        quic.validate()?;
        Ok(Self { quic, endpoints: Mutex::default(), tokens: Arc::default() })
    }

    /// Dials, and returns once both sides have authenticated each other: when this returns, the router has accepted
    /// our certificate too. (In TLS 1.3 the client is through first and would learn of a refusal only later.)
    ///
    /// # Errors
    /// [`DialError`] says whose certificate, name or protocol is at fault, or that nobody answered.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub async fn connect(&self, config: &DialConfig) -> Result<Connection, DialError> {
        let endpoint = self.endpoint(config.addr).map_err(|error| DialError::Socket(error.to_string()))?;
        let told = Arc::new(Mutex::new(None));
        let connecting = endpoint
            .connect_with(self.client_config(config, &told), config.addr, &config.server_name)
            .map_err(|error| match error {
                quinn::ConnectError::InvalidServerName(name) => DialError::InvalidName(name),
                quinn::ConnectError::InvalidRemoteAddress(addr) => DialError::InvalidAddress(addr),
                other => DialError::Socket(other.to_string()),
            })?;
        let both_through = async {
            let connection = connecting.await?;
            confirmed(&connection).await?;
            Ok(connection)
        };
        let connection = match tokio::time::timeout(self.quic.handshake_timeout(), both_through).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(self.classify(config.addr, &error, &told)),
            Err(_) => return Err(self.timeout(config.addr)),
        };
        let identity = peer_identity(&connection).ok_or(DialError::Untrusted { refusal: Refusal::WrongIdentity })?;
        Ok(Connection::quic(connection, identity))
    }

    /// What the kernel gave the sockets that are in use.
    #[must_use]
    pub fn facts(&self) -> Vec<SocketFacts> {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        [&endpoints.v4, &endpoints.v6].into_iter().flatten().map(|(_, facts)| *facts).collect()
    }

    /// Waits until every connection has ended and its peer has been told: to be called before a program exits.
    pub async fn wait_idle(&self) {
        let endpoints = {
            let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
            [endpoints.v4.clone(), endpoints.v6.clone()]
        };
        for (endpoint, _) in endpoints.into_iter().flatten() {
            endpoint.wait_idle().await;
        }
    }

    fn endpoint(&self, to: SocketAddr) -> io::Result<quinn::Endpoint> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let (slot, any) = match to {
            SocketAddr::V4(_) => (&mut endpoints.v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            SocketAddr::V6(_) => (&mut endpoints.v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        if let Some((endpoint, _)) = slot {
            return Ok(endpoint.clone());
        }
        let bound = bind_own(any, self.quic.socket_buffer_bytes as usize)?;
        let mut config = quinn::EndpointConfig::default();
        config.max_udp_payload_size(self.quic.mtu_bytes_max.max(1472)).map_err(io::Error::other)?;
        let endpoint = quinn::Endpoint::new(config, None, bound.socket, Arc::new(quinn::TokioRuntime))?;
        *slot = Some((endpoint.clone(), bound.facts));
        Ok(endpoint)
    }

    fn client_config(&self, config: &DialConfig, told: &Arc<Mutex<Option<Refusal>>>) -> quinn::ClientConfig {
        let told = told.clone();
        let refusals = RefusalSink::new(move |refusal| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        });
        let tls = config.tls.client_config_with(&config.alpn, refusals);
        let crypto = QuicClientConfig::try_from(tls).expect("the provider holds QUIC's initial suite");
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        client.transport_config(self.quic.transport()).token_store(self.tokens.clone());
        client
    }

    fn classify(&self, addr: SocketAddr, error: &quinn::ConnectionError, told: &Mutex<Option<Refusal>>) -> DialError {
        if let Some(refusal) = *told.lock().unwrap_or_else(PoisonError::into_inner) {
            return DialError::Untrusted { refusal };
        }
        let reason = CloseReason::from_quinn(error);
        match reason.kind {
            CloseKind::Refused(refusal) => DialError::Refused { refusal },
            CloseKind::TimedOut => self.timeout(addr),
            _ => DialError::Lost(reason),
        }
    }

    fn timeout(&self, addr: SocketAddr) -> DialError {
        DialError::Timeout { addr, waited_ms: self.quic.handshake_timeout_ms }
    }
}

/// Waits for the router's HANDSHAKE_DONE, which it sends when it has verified us. quinn tells of it only in its
/// counters, so they are looked at: within one round trip it is there or the connection is closed.
async fn confirmed(connection: &quinn::Connection) -> Result<(), quinn::ConnectionError> {
    const PAUSE_MAX: Duration = Duration::from_millis(20);
    let mut pause = Duration::from_millis(1);
    while connection.stats().frame_rx.handshake_done == 0 {
        tokio::select! {
            error = connection.closed() => return Err(error),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
    Ok(())
}

fn explain_untrusted(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::WrongAuthority => "it is not issued by a CA in our `ca` file",
        Refusal::Expired => "its time is over; the router needs a new one",
        Refusal::NotYetValid => "its time has not come; check both clocks",
        Refusal::WrongName => "it is not for the name that was dialled; dial a name it holds, or issue it for this one",
        Refusal::WrongIdentity => "it does not name a router of our trust domain",
        _ => "it is damaged or not made for a server",
    }
}

fn explain_refused(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoCertificate => "it wants a client certificate",
        Refusal::WrongAuthority => "our certificate is not issued by a CA it trusts",
        Refusal::OutsideValidity | Refusal::Expired | Refusal::NotYetValid => {
            "our certificate is expired or not yet valid; check both clocks, or issue a new one"
        }
        Refusal::WrongIdentity => "our certificate does not hold exactly one identity of its trust domain",
        Refusal::WrongPurpose => "our certificate is not made for a client",
        Refusal::WrongAlpn => "it does not speak this protocol or this version of it",
        Refusal::Busy => "it is full or stopping; try again or elsewhere",
        Refusal::WrongName | Refusal::BadCertificate | Refusal::Handshake => "the handshake failed",
    }
}
