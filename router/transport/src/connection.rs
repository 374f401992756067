//! One authenticated connection, over QUIC or in memory.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::VarInt;
use rustls::pki_types::CertificateDer;

use crate::error::{CloseKind, CloseReason, ConnectionError};
use crate::identity::Identity;
use crate::memory;
use crate::stream::{RecvStream, SendStream};

/// A connection whose peer has proven its identity. Cheap to clone; all clones are the same connection.
///
/// When the last clone and the last stream of it are dropped, it closes with code 0.
#[derive(Clone)]
pub struct Connection(Inner);

#[derive(Clone)]
enum Inner {
    Quic(Arc<QuicConnection>),
    Memory(Arc<memory::End>),
}

pub(crate) struct QuicConnection {
    pub(crate) quinn: quinn::Connection,
    peer: Identity,
    /// quinn forgets code and text of our own close.
    closed_here: OnceLock<CloseReason>,
}

/// Figures of one connection since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Best estimate of the round trip time; zero in memory.
    pub rtt: Duration,
    /// The least round trip time that was seen; zero in memory.
    pub min_rtt: Duration,
    /// Bytes sent: UDP payload, or stream bytes in memory.
    pub sent_bytes: u64,
    /// Bytes received: UDP payload, or stream bytes in memory.
    pub received_bytes: u64,
    /// Packets sent on the current path.
    pub sent_packets: u64,
    /// Packets taken for lost on the current path.
    pub lost_packets: u64,
    /// Bytes that congestion control allows under way.
    pub congestion_window_bytes: u64,
    /// Largest UDP payload in use, in bytes.
    pub mtu_bytes: u16,
}

impl Connection {
    pub(crate) fn quic(quinn: quinn::Connection, peer: Identity) -> Self {
        Self(Inner::Quic(Arc::new(QuicConnection { quinn, peer, closed_here: OnceLock::new() })))
    }

    pub(crate) fn memory(end: memory::End) -> Self {
        Self(Inner::Memory(Arc::new(end)))
    }

    /// Who the peer is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        match &self.0 {
            Inner::Quic(quic) => &quic.peer,
            Inner::Memory(end) => end.peer(),
        }
    }

    /// Until when the peer's certificate is valid, in Unix seconds; none where it has shown none, and in memory.
    #[must_use]
    pub fn certificate_not_after_unix_s(&self) -> Option<i64> {
        match &self.0 {
            Inner::Quic(quic) => certificate_not_after_unix_s(&peer_leaf(&quic.quinn)?),
            Inner::Memory(_) => None,
        }
    }

    /// Where the peer is now, for people: `192.0.2.1:4433`, or `memory`. It may change while the connection lives.
    #[must_use]
    pub fn remote(&self) -> String {
        match &self.0 {
            Inner::Quic(quic) => quic.quinn.remote_address().to_string(),
            Inner::Memory(_) => "memory".to_owned(),
        }
    }

    /// Opens a stream that only this side writes. Waits while the peer allows no more streams. The peer sees the
    /// stream with its first byte or its end. Cancel-safe.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn open_uni(&self) -> Result<SendStream, ConnectionError> {
        match &self.0 {
            Inner::Quic(quic) => {
                let stream = quic.quinn.open_uni().await.map_err(|error| quic.error(&error))?;
                Ok(SendStream::quic(stream, quic.clone()))
            }
            Inner::Memory(end) => end.open_uni().await.map(SendStream::memory),
        }
    }

    /// Opens a stream that both sides write. Otherwise like [`open_uni`](Self::open_uni).
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        match &self.0 {
            Inner::Quic(quic) => {
                let (send, recv) = quic.quinn.open_bi().await.map_err(|error| quic.error(&error))?;
                Ok((SendStream::quic(send, quic.clone()), RecvStream::quic(recv, quic.clone())))
            }
            Inner::Memory(end) => {
                end.open_bi().await.map(|(send, recv)| (SendStream::memory(send), RecvStream::memory(recv)))
            }
        }
    }

    /// The next stream that the peer opened with [`open_uni`](Self::open_uni), in the order of opening. Cancel-safe.
    ///
    /// # Errors
    /// When the connection has ended and all streams that had arrived are accepted.
    pub async fn accept_uni(&self) -> Result<RecvStream, ConnectionError> {
        match &self.0 {
            Inner::Quic(quic) => {
                let stream = quic.quinn.accept_uni().await.map_err(|error| quic.error(&error))?;
                Ok(RecvStream::quic(stream, quic.clone()))
            }
            Inner::Memory(end) => end.accept_uni().await.map(RecvStream::memory),
        }
    }

    /// The next stream that the peer opened with [`open_bi`](Self::open_bi), in the order of opening. Cancel-safe.
    ///
    /// # Errors
    /// When the connection has ended and all streams that had arrived are accepted.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        match &self.0 {
            Inner::Quic(quic) => {
                let (send, recv) = quic.quinn.accept_bi().await.map_err(|error| quic.error(&error))?;
                Ok((SendStream::quic(send, quic.clone()), RecvStream::quic(recv, quic.clone())))
            }
            Inner::Memory(end) => {
                end.accept_bi().await.map(|(send, recv)| (SendStream::memory(send), RecvStream::memory(recv)))
            }
        }
    }

    /// Closes at once. Bytes not yet sent are lost: finish streams and wait for [`SendStream::stopped`] first where
    /// they matter. The first close of either side counts. `reason` should stay under 1 KiB.
    pub fn close(&self, code: u32, reason: &str) {
        match &self.0 {
            Inner::Quic(quic) => {
                // A close that comes after the peer's must not hide the peer's reason.
                if quic.quinn.close_reason().is_none() {
                    let _ = quic.closed_here.set(CloseReason::application(code, reason, false));
                    quic.quinn.close(VarInt::from_u32(code), reason.as_bytes());
                }
            }
            Inner::Memory(end) => end.close(code, reason),
        }
    }

    /// Waits for the end of the connection. Cancel-safe.
    pub async fn closed(&self) -> CloseReason {
        match &self.0 {
            Inner::Quic(quic) => {
                let error = quic.quinn.closed().await;
                quic.error(&error).0
            }
            Inner::Memory(end) => end.closed().await,
        }
    }

    /// How the connection ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        match &self.0 {
            Inner::Quic(quic) => quic.quinn.close_reason().map(|error| quic.error(&error).0),
            Inner::Memory(end) => end.close_reason(),
        }
    }

    /// Figures since the connection began.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        match &self.0 {
            Inner::Quic(quic) => {
                let stats = quic.quinn.stats();
                ConnectionStats {
                    rtt: stats.path.rtt,
                    min_rtt: stats.path.min_rtt,
                    sent_bytes: stats.udp_tx.bytes,
                    received_bytes: stats.udp_rx.bytes,
                    sent_packets: stats.path.sent_packets,
                    lost_packets: stats.path.lost_packets,
                    congestion_window_bytes: stats.path.cwnd,
                    mtu_bytes: stats.path.current_mtu,
                }
            }
            Inner::Memory(end) => end.stats(),
        }
    }
}

/// Until when a certificate (DER) is valid, in Unix seconds; none where it is no certificate.
#[must_use]
pub fn certificate_not_after_unix_s(der: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// The certificate that the peer has shown.
pub(crate) fn peer_leaf(connection: &quinn::Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().next()
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Connection({} at {})", self.identity(), self.remote())
    }
}

impl QuicConnection {
    pub(crate) fn error(&self, error: &quinn::ConnectionError) -> ConnectionError {
        let reason = CloseReason::from_quinn(error);
        match self.closed_here.get() {
            Some(ours) if reason.kind == CloseKind::Local => ConnectionError(ours.clone()),
            _ => ConnectionError(reason),
        }
    }
}
