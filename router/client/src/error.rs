//! What can go wrong, by whose doing.

use myelin_transport::{
    CloseKind, CloseReason, ConnectionError, DialError, ReadError, Refusal as TlsRefusal, TlsError, WriteError,
};
use myelin_wire::{Code, Refusal};

/// Why an operation of a [`Client`](crate::Client) failed. Cheap enough to clone: it is told to everybody who waited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The caller's doing: a setting is out of range.
    #[error("{0}")]
    Config(String),
    /// The caller's doing: a certificate, key or CA file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The caller's doing: the event, pattern or group cannot be sent as it is. Nothing was sent.
    #[error("not sent: {0}")]
    Invalid(Refusal),
    /// The caller's doing: the client was closed, or its last handle was dropped.
    #[error("this client was closed; connect a new one")]
    ClientClosed,
    /// The caller's doing, for a moment: the buffer of events is full. Only from calls that do not wait.
    #[error("the buffer of unwritten or unacknowledged events is full; wait, or use `send`")]
    Full,
    /// The caller's doing: an event that nobody wants an answer to was to be answered.
    #[error("the event carries no reply-to: whoever published it expects no answer")]
    NoReplyTo,
    /// The router refused the subscription. The session goes on.
    #[error("the router refused: {0}")]
    Refused(Refusal),
    /// The router ended the session and said why.
    #[error("the router closed the session: {0}")]
    Closed(Refusal),
    /// The router broke the protocol; the connection was closed for it.
    #[error("the router does not follow the protocol: {0}")]
    Protocol(Refusal),
    /// The router accepted the connection and did not answer HELLO in time.
    #[error("the router did not answer HELLO within {waited_ms} ms; is it overloaded, or another kind of server?")]
    HandshakeTimeout {
        /// How long was waited, in milliseconds.
        waited_ms: u32,
    },
    /// An address could not be turned into one that can be dialled.
    #[error("`{addr}` cannot be resolved: {problem}; write it as `host:port`")]
    Resolve {
        /// The address as it was given.
        addr: String,
        /// The resolver's word.
        problem: String,
    },
    /// The router was not reached, or one side refused the other's certificate.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The network's doing, or that of a router that was stopped: the connection ended.
    #[error("the connection is lost: {0}")]
    Lost(CloseReason),
    /// There is no session at the moment. Only from calls that do not wait.
    #[error("there is no connection to a router at the moment; wait, or use `send`")]
    Disconnected,
}

impl ClientError {
    /// Stable code for logs, metrics and exit codes. Refusals have the code of `docs/PROTOCOL.md`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "invalid-setting",
            Self::Tls(error) => error.code(),
            Self::Invalid(refusal) | Self::Refused(refusal) | Self::Closed(refusal) | Self::Protocol(refusal) => {
                refusal.code.name()
            }
            Self::ClientClosed => "client-closed",
            Self::Full => "full",
            Self::NoReplyTo => "no-reply-to",
            Self::HandshakeTimeout { .. } => "handshake-timeout",
            Self::Resolve { .. } => "unresolved-address",
            Self::Dial(error) => error.code(),
            Self::Lost(reason) => reason.kind.code(),
            Self::Disconnected => "disconnected",
        }
    }

    /// Whether no other attempt can help: the two do not speak a common version.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Closed(refusal) if refusal.code == Code::Version)
    }

    /// Whether the router does not believe who this client is, for a reason that time does not mend: its token, or its
    /// certificate, is over and was not renewed. Keys that the router has not read yet, and a token that is not valid yet
    /// by its clock, are no such reason.
    pub(crate) fn is_about_us(&self) -> bool {
        const PASSING: [&str; 3] = ["token-no-keys", "token-key", "token-not-yet"];
        let refusal = match self {
            Self::Tls(_) => return true,
            Self::Dial(DialError::Refused { refusal }) => {
                return matches!(refusal, TlsRefusal::Expired | TlsRefusal::OutsideValidity);
            }
            Self::Closed(refusal) => refusal,
            _ => return false,
        };
        let why = refusal.message.split(':').next().unwrap_or_default();
        refusal.code == Code::Unauthenticated && !PASSING.contains(&why)
    }

    /// A fault of the router's in the layout of what it sends.
    pub(crate) fn protocol(code: Code, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self::Protocol(Refusal::new(code, message))
    }

    pub(crate) fn from_close(reason: CloseReason) -> Self {
        if reason.kind != CloseKind::Application || !reason.by_peer || reason.code == 0 {
            return Self::Lost(reason);
        }
        // A newer router may know more codes: to this client they are faults of the router.
        let code = u16::try_from(reason.code).ok().and_then(Code::from_number).unwrap_or(Code::Internal);
        // The reason phrase is `<code-name>: <sentence>`; the code is told apart already.
        let prefix = reason.text.split_once(": ").filter(|(name, _)| *name == code.name());
        let sentence = prefix.map_or(&*reason.text, |(_, sentence)| sentence).to_owned();
        Self::Closed(Refusal::new(code, sentence))
    }

    pub(crate) fn from_read(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => error.into(),
            other => Self::protocol(Code::OutOfOrder, format!("a stream ended before the session: {other}")),
        }
    }

    pub(crate) fn from_write(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            other => Self::protocol(Code::OutOfOrder, format!("a stream ended before the session: {other}")),
        }
    }
}

impl From<ConnectionError> for ClientError {
    fn from(error: ConnectionError) -> Self {
        Self::from_close(error.0)
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No answer came in time. It may still be under way; it is thrown away when it comes.
    #[error("no answer within {waited_ms} ms")]
    Timeout {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// Nobody subscribes to the topic.
    #[error("nobody is there to answer: no subscription matches the topic")]
    NoResponder,
    /// The router or a filter refused the request.
    #[error("the request was refused: {0}")]
    Refused(Refusal),
    /// The connection was lost after the request was sent: it may or may not have been answered.
    #[error("the connection was lost while waiting; whether the request was served is unknown")]
    Unknown,
    /// More requests wait for answers than this client allows.
    #[error("{waiting} requests are waiting for answers already")]
    TooMany {
        /// How many.
        waiting: usize,
    },
    /// The client could not send it.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl RequestError {
    /// Stable code for logs, metrics and exit codes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::NoResponder => Code::NoResponder.name(),
            Self::Refused(refusal) => refusal.code.name(),
            Self::Unknown => "unknown",
            Self::TooMany { .. } => "too-many-requests",
            Self::Client(error) => error.code(),
        }
    }
}
