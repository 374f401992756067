//! Certificates, keys and trust: loading, swapping, verifying.
//!
//! TLS 1.3 only, mutual, without session tickets. A resumed session would carry the client's identity over without
//! looking at its certificate again, so a certificate that has expired or lost its CA could come back; a full
//! handshake each time costs a signature and no state. It also leaves nothing that early data could be sent with.

mod authorities;
mod identity;
mod reload;
mod verify;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use serde::{Deserialize, Serialize};

pub use identity::{ClientAuthentication, TlsIdentity};
pub use reload::{ReloadOutcome, ReloadStats, TlsReloader};
pub use verify::Refusal;
pub(crate) use verify::RefusalSink;

/// Where an endpoint's certificate chain, private key and trusted CAs are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
    /// The CA certificates that peers must chain to; several while a CA is being replaced. One that names a trust domain
    /// (a URI name `spiffe://DOMAIN`) speaks for that one only: where it is not that of `cert`, it is left out.
    pub ca: PathBuf,
}

/// A TLS file that cannot be used: which, what is wrong, how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TlsError {
    /// What sort of problem this is.
    pub kind: TlsErrorKind,
    /// The file at fault.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// The sorts of [`TlsError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsErrorKind {
    /// The file cannot be read.
    Unreadable,
    /// The file holds no PEM block of the needed sort.
    Empty,
    /// The content is damaged or of an unsupported sort.
    Malformed,
    /// The key does not belong to the certificate.
    KeyMismatch,
    /// The certificate carries no single valid identity.
    Identity,
    /// The certificate is of the wrong sort for its use: a listener needs a router's.
    WrongKind,
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not come.
    NotYetValid,
    /// No authority in the file speaks for the trust domain of the certificate.
    ForeignAuthority,
    /// A reload found another identity than the one this process runs as.
    IdentityChanged,
}

impl TlsErrorKind {
    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "tls-file-unreadable",
            Self::Empty => "tls-file-empty",
            Self::Malformed => "tls-file-malformed",
            Self::KeyMismatch => "tls-key-mismatch",
            Self::Identity => "tls-identity",
            Self::WrongKind => "tls-wrong-kind",
            Self::Expired => "tls-expired",
            Self::NotYetValid => "tls-not-yet-valid",
            Self::ForeignAuthority => "tls-foreign-authority",
            Self::IdentityChanged => "tls-identity-changed",
        }
    }
}

impl TlsError {
    pub(crate) fn new(kind: TlsErrorKind, file: &Path, problem: impl Into<String>, remedy: &'static str) -> Self {
        Self { kind, file: file.to_path_buf(), problem: problem.into(), remedy }
    }

    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}; {}", self.file.display(), self.problem, self.remedy)
    }
}

/// The cryptography of every Myelin connection: ring, with AES-128-GCM first.
///
/// Passed explicitly everywhere, so that another crate's features can never choose for us. ring seals packets up to
/// 22 % faster than aws-lc-rs in quinn; AES-128 and AES-256 are within noise of each other, ChaCha20 is 25 % slower.
#[must_use]
pub fn crypto_provider() -> Arc<CryptoProvider> {
    use rustls::crypto::ring::cipher_suite as suite;
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    let build = || {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites = vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        Arc::new(provider)
    };
    PROVIDER.get_or_init(build).clone()
}
