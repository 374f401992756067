//! The settings of a client.

use myelin_transport::{QuicConfig, TlsFiles};
use myelin_wire::limits::CLIENT_NAME_BYTES_MAX;
use myelin_wire::message::{Overflow, Token};
use serde::Deserialize;
use std::io::Read;
use std::path::PathBuf;

use crate::error::ClientError;

/// Bytes of a token's file that are read: what a router takes, and a line's end.
const TOKEN_FILE_BYTES_MAX: u64 = 8 * 1024 + 2;
/// Most addresses of routers.
const ADDRS_MAX: usize = 64;
/// Bounds of memory beyond this are a mistake in a unit, in bytes.
const BYTES_MAX: u32 = 1 << 30;
/// Bounds of counts beyond this are a mistake, too.
const EVENTS_MAX: u32 = 1 << 24;

/// Settings of a client. [`ClientConfig::new`] and the `with_` methods, or plain fields over `Default`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// Routers as `host:port`, tried in order and round again. All must serve the same mesh. UDP.
    pub addrs: Vec<String>,
    /// The name that the router's certificate must hold; without it, the host of the address dialled.
    pub server_name: Option<String>,
    /// The client's certificate and key, and the CAs it trusts. Needed unless the caller brings its own connector.
    pub tls: Option<TlsFiles>,
    /// Where there is no certificate: the CAs whose routers are trusted. The client shows a token then.
    pub ca: Option<PathBuf>,
    /// The file of that token, a JSON Web Token. It is read for every connection, so that whoever renews it in time keeps
    /// the client connected: the router ends a session whose token is over, and the client connects again.
    pub token_file: Option<PathBuf>,
    /// The program's name and version, for the router's logs; at most 128 bytes.
    pub name: String,
    /// What the router does when this client does not keep up with its deliveries.
    pub overflow: Overflow,
    /// Whether a lost connection is made again. Without, the client is closed by its first loss.
    pub reconnect: bool,
    /// Largest pause before the first attempt to connect again, in milliseconds; it doubles with each failure.
    pub reconnect_first_ms: u32,
    /// Largest pause between attempts, in milliseconds. Pauses are random between nothing and the bound.
    pub reconnect_most_ms: u32,
    /// Encoded events that wait for the publish stream, in bytes; beyond, `publish` and `send` wait.
    pub pending_bytes_max: u32,
    /// Published events without an ack; beyond, `publish` and `send` wait.
    pub unacked_events_max: u32,
    /// Events that wait in one subscription; beyond, nothing more is read from the router.
    pub queue_events_max: u32,
    /// Bytes of events that wait in one subscription (one larger event excepted); beyond, nothing more is read.
    pub queue_bytes_max: u32,
    /// Settings of the connection.
    pub quic: QuicConfig,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            addrs: vec!["127.0.0.1:7400".to_owned()],
            server_name: None,
            tls: None,
            ca: None,
            token_file: None,
            name: String::new(),
            overflow: Overflow::default(),
            reconnect: true,
            reconnect_first_ms: 200,
            reconnect_most_ms: 30_000,
            pending_bytes_max: 1024 * 1024,
            unacked_events_max: 65_536,
            queue_events_max: 16_384,
            queue_bytes_max: 8 * 1024 * 1024,
            // A router opens one stream, for deliveries; more would be memory that nobody reads.
            quic: QuicConfig { uni_streams_max: 1, bidi_streams_max: 1, ..QuicConfig::default() },
        }
    }
}

impl ClientConfig {
    /// One router and the files of the client's certificate.
    #[must_use]
    pub fn new(addr: impl Into<String>, tls: TlsFiles) -> Self {
        Self { addrs: vec![addr.into()], tls: Some(tls), ..Self::default() }
    }

    /// One router, the CAs that it is trusted by, and the file of the token that says who this client is.
    #[must_use]
    pub fn with_token_file(addr: impl Into<String>, ca: impl Into<PathBuf>, token_file: impl Into<PathBuf>) -> Self {
        let (ca, token_file) = (Some(ca.into()), Some(token_file.into()));
        Self { addrs: vec![addr.into()], ca, token_file, ..Self::default() }
    }

    /// Adds another router to fall back to.
    #[must_use]
    pub fn with_addr(mut self, addr: impl Into<String>) -> Self {
        self.addrs.push(addr.into());
        self
    }

    /// Sets the name that the router's certificate must hold.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Sets the program's name and version for the router's logs.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets what the router does when this client does not keep up.
    #[must_use]
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets whether a lost connection is made again.
    #[must_use]
    pub fn with_reconnect(mut self, reconnect: bool) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// The token that its file holds now.
    pub(crate) fn token(&self) -> Result<Option<Token>, ClientError> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let mut text = String::new();
        let read =
            std::fs::File::open(file).and_then(|open| open.take(TOKEN_FILE_BYTES_MAX + 1).read_to_string(&mut text));
        let told = |problem: String| ClientError::Config(format!("token_file {}: {problem}", file.display()));
        match read {
            Err(error) => Err(told(error.to_string())),
            Ok(bytes) if bytes as u64 > TOKEN_FILE_BYTES_MAX => {
                Err(told(format!("it has more than {TOKEN_FILE_BYTES_MAX} bytes, which no token has")))
            }
            Ok(_) => Ok(Some(Token(text.trim().to_owned()))),
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`ClientError::Config`] with all settings that are out of range.
    pub fn validate(&self) -> Result<(), ClientError> {
        let mut problems = Vec::new();
        if self.addrs.is_empty() || self.addrs.len() > ADDRS_MAX {
            problems.push(format!("addrs has {} entries; give 1 to {ADDRS_MAX}", self.addrs.len()));
        }
        if self.name.len() > CLIENT_NAME_BYTES_MAX {
            let len = self.name.len();
            problems.push(format!("name has {len} bytes; give at most {CLIENT_NAME_BYTES_MAX}"));
        }
        if self.reconnect_first_ms == 0 || self.reconnect_first_ms > self.reconnect_most_ms {
            let first = self.reconnect_first_ms;
            problems.push(format!("reconnect_first_ms is {first}; give 1 to reconnect_most_ms"));
        }
        for (key, value, most) in [
            ("pending_bytes_max", self.pending_bytes_max, BYTES_MAX),
            ("unacked_events_max", self.unacked_events_max, EVENTS_MAX),
            ("queue_events_max", self.queue_events_max, EVENTS_MAX),
            ("queue_bytes_max", self.queue_bytes_max, BYTES_MAX),
        ] {
            if !(1..=most).contains(&value) {
                problems.push(format!("{key} is {value}; give 1 to {most}"));
            }
        }
        if let Err(errors) = self.quic.validate() {
            problems.extend(errors.iter().map(|error| format!("quic.{error}")));
        }
        if problems.is_empty() { Ok(()) } else { Err(ClientError::Config(problems.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_all_faults_are_told_at_once() {
        assert_eq!(ClientConfig::default().validate(), Ok(()));
        let bad = ClientConfig { addrs: Vec::new(), queue_events_max: 0, ..ClientConfig::default() };
        let told = bad.validate().expect_err("two settings are out of range");
        assert_eq!(told.code(), "invalid-setting");
        let text = told.to_string();
        assert!(text.contains("addrs") && text.contains("queue_events_max"), "{text}");
    }
}
