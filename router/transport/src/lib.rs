//! QUIC, TLS and identity for Myelin, with an in-memory twin.
//!
//! A [`Listener`] yields [`Connection`]s whose peers have proven who they are; a [`Dialer`] makes them; [`memory::pair`]
//! makes the same without a network. Streams carry [`bytes::Bytes`] both ways without a copy. No frame, topic or event
//! is known here.
//!
//! Everything is `Send` and runs on the tokio runtime it was made on; a worker's is current-thread.

mod backoff;
pub mod ca;
mod config;
mod connection;
mod dial;
mod error;
mod identity;
mod limiter;
mod listener;
pub mod memory;
mod reset;
mod socket;
mod stream;
mod tls;

pub use backoff::Backoff;
pub use config::{ALPN_CLIENT, ConfigError, ListenerConfig, MTU_BYTES_LIMIT, QuicConfig};
pub use connection::{Connection, ConnectionStats, certificate_not_after_unix_s};
pub use dial::{DialConfig, DialError, Dialer};
pub use error::{CloseKind, CloseReason, ConnectionError, ReadError, WriteError};
pub use identity::{
    IDENTITY_BYTES_MAX, Identity, IdentityError, IdentityKind, NAME_BYTES_MAX, SUBJECT_BYTES_MAX,
    TRUST_DOMAIN_BYTES_MAX,
};
pub use limiter::{Decision, Limiter, LimiterConfig};
pub use listener::{BoundListener, ListenError, Listener, ListenerControl, ListenerStats};
pub use reset::ResetKey;
pub use socket::{CONNECTION_ID_BYTES, SocketFacts};
pub use stream::{RecvStream, SendStream};
pub use tls::{
    ClientAuthentication, Refusal, ReloadOutcome, ReloadStats, TlsError, TlsErrorKind, TlsFiles, TlsIdentity,
    TlsReloader, crypto_provider,
};
