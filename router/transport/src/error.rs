//! How a connection or a stream ends, and whose doing it was.

use std::fmt;
use std::sync::Arc;

use crate::tls::Refusal;

/// Why a connection is no more. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// What sort of end this was.
    pub kind: CloseKind,
    /// The application's code ([`CloseKind::Application`]) or QUIC's own; 0 where there is none.
    pub code: u32,
    /// The closing side's sentence. Written by the peer when `by_peer`: never trust its content.
    pub text: Arc<str>,
    /// Whether the other side closed.
    pub by_peer: bool,
}

/// The sorts of end a connection can come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseKind {
    /// One side called [`close`](crate::Connection::close).
    Application,
    /// The handshake ended in a refusal: TLS, or the listener is full or stopping.
    Refused(Refusal),
    /// Nothing was heard for the idle timeout.
    TimedOut,
    /// The peer has no memory of this connection: it restarted, or our packets reach another worker now.
    Reset,
    /// One side broke QUIC's rules.
    Protocol,
    /// Our own endpoint is gone.
    Local,
}

impl CloseKind {
    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Application => "closed",
            Self::Refused(refusal) => refusal.code(),
            Self::TimedOut => "timed-out",
            Self::Reset => "reset",
            Self::Protocol => "protocol-violation",
            Self::Local => "endpoint-closed",
        }
    }
}

impl CloseReason {
    pub(crate) fn application(code: u32, text: &str, by_peer: bool) -> Self {
        Self { kind: CloseKind::Application, code, text: text.into(), by_peer }
    }

    pub(crate) fn from_quinn(error: &quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        let of = |kind, code, text: &str, by_peer| Self { kind, code, text: text.into(), by_peer };
        match error {
            E::ApplicationClosed(close) => {
                let text = String::from_utf8_lossy(&close.reason);
                of(CloseKind::Application, code_of(close.error_code.into_inner()), &text, true)
            }
            E::ConnectionClosed(close) => {
                let code = u64::from(close.error_code);
                let kind = Refusal::from_quic_code(code).map_or(CloseKind::Protocol, CloseKind::Refused);
                of(kind, code_of(code), &String::from_utf8_lossy(&close.reason), true)
            }
            E::TransportError(error) => {
                let code = u64::from(error.code);
                let kind = Refusal::from_quic_code(code).map_or(CloseKind::Protocol, CloseKind::Refused);
                of(kind, code_of(code), &error.reason, false)
            }
            E::TimedOut => of(CloseKind::TimedOut, 0, "nothing heard for the idle timeout", false),
            E::Reset => of(CloseKind::Reset, 0, "the peer does not know this connection", true),
            E::VersionMismatch => of(CloseKind::Protocol, 0, "no common QUIC version", true),
            E::LocallyClosed => of(CloseKind::Local, 0, "closed here", false),
            E::CidsExhausted => of(CloseKind::Local, 0, "no connection ids left", false),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.by_peer { "peer" } else { "us" };
        write!(out, "{} by {who}, code {}: {}", self.kind.code(), self.code, self.text)
    }
}

/// The connection under an operation has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("connection lost: {0}")]
pub struct ConnectionError(pub CloseReason);

impl ConnectionError {
    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.kind.code()
    }

    pub(crate) fn from_quinn(error: &quinn::ConnectionError) -> Self {
        Self(CloseReason::from_quinn(error))
    }
}

/// Why bytes could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The reader wants no more; its code.
    #[error("the peer stopped reading, code {0}")]
    Stopped(u32),
    /// The stream was finished or reset on this side.
    #[error("the stream is finished or reset")]
    Finished,
    /// The connection has ended.
    #[error(transparent)]
    ConnectionLost(#[from] ConnectionError),
}

impl WriteError {
    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Stopped(_) => "stream-stopped",
            Self::Finished => "stream-finished",
            Self::ConnectionLost(error) => error.code(),
        }
    }

    pub(crate) fn from_quinn(error: &quinn::WriteError) -> Self {
        use quinn::WriteError as E;
        match error {
            E::Stopped(code) => Self::Stopped(code_of(code.into_inner())),
            E::ConnectionLost(error) => Self::ConnectionLost(ConnectionError::from_quinn(error)),
            // Early data is never enabled, so a rejection of it cannot be seen.
            E::ClosedStream | E::ZeroRttRejected => Self::Finished,
        }
    }
}

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The writer gave the stream up; its code. Unread bytes are gone.
    #[error("the peer reset the stream, code {0}")]
    Reset(u32),
    /// The stream was stopped on this side.
    #[error("the stream is stopped")]
    Stopped,
    /// The connection has ended.
    #[error(transparent)]
    ConnectionLost(#[from] ConnectionError),
}

impl ReadError {
    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Reset(_) => "stream-reset",
            Self::Stopped => "stream-stopped",
            Self::ConnectionLost(error) => error.code(),
        }
    }

    pub(crate) fn from_quinn(error: &quinn::ReadError) -> Self {
        use quinn::ReadError as E;
        match error {
            E::Reset(code) => Self::Reset(code_of(code.into_inner())),
            E::ConnectionLost(error) => Self::ConnectionLost(ConnectionError::from_quinn(error)),
            // Reads are always ordered and early data is never enabled.
            E::ClosedStream | E::IllegalOrderedRead | E::ZeroRttRejected => Self::Stopped,
        }
    }
}

/// QUIC codes have 62 bits, ours 32: a foreign code beyond that is told as the largest of ours.
pub(crate) fn code_of(code: u64) -> u32 {
    u32::try_from(code).unwrap_or(u32::MAX)
}
