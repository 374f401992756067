//! An endpoint's own certificate and trust, swappable while connections run.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::authorities::Authorities;
use super::verify::{ClientVerifier, RefusalSink, RouterVerifier};
use super::{TlsError, TlsErrorKind, TlsFiles, crypto_provider};
use crate::identity::Identity;

/// Largest TLS file that is read, in bytes: a wrong path must not fill the memory.
const TLS_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// An endpoint's certificate, key and trusted CAs. Cheap to clone; all clones see a reload at once.
///
/// Established connections keep what they were made with; new handshakes use the newest.
#[derive(Clone)]
pub struct TlsIdentity {
    current: Arc<ArcSwap<Loaded>>,
}

/// Whether a TLS server insists on a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// No certificate, no connection.
    Required,
    /// A certificate is asked for and, if given, must be good; the caller has another way to know its clients.
    Optional,
}

/// What one load of the files yields; immutable.
pub(super) struct Loaded {
    pub(super) identity: Identity,
    pub(super) authorities: Authorities,
    /// None of a client that shows no certificate.
    certified_key: Option<Arc<CertifiedKey>>,
    not_after_unix_s: i64,
    chain_bytes: usize,
}

impl TlsIdentity {
    /// Loads and checks the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file, the problem and the remedy.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Self::load_at(files, SystemTime::now())
    }

    /// Like [`load`](Self::load), with the validity judged at `now`. A test gets an expired certificate past the
    /// load this way, and sees its peer refuse it.
    ///
    /// # Errors
    /// [`TlsError`] names the file, the problem and the remedy.
    pub fn load_at(files: &TlsFiles, now: SystemTime) -> Result<Self, TlsError> {
        let loaded = Loaded::read(files, now)?;
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(loaded)) })
    }

    /// What a client without a certificate needs: the authorities whose routers it trusts. It shows a token instead.
    ///
    /// # Errors
    /// [`TlsError`] names the file, the problem and the remedy.
    pub fn trusting(ca: &Path) -> Result<Self, TlsError> {
        let (identity, certified_key) = (Identity::nobody(), None);
        let authorities = Authorities::new(read_certificates(ca)?, &identity, ca)?;
        let (not_after_unix_s, chain_bytes) = (i64::MAX, 0);
        let loaded = Loaded { identity, authorities, certified_key, not_after_unix_s, chain_bytes };
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(loaded)) })
    }

    /// Who this endpoint is; nobody where it has no certificate.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.current.load().identity.clone()
    }

    /// The end of the leaf certificate's validity, in Unix seconds: for alarms.
    #[must_use]
    pub fn not_after_unix_s(&self) -> i64 {
        self.current.load().not_after_unix_s
    }

    /// The authorities of the `ca` file that are not trusted, since their own certificates name another trust domain than
    /// this identity's: each in words, for a warning.
    #[must_use]
    pub fn left_out_authorities(&self) -> Vec<String> {
        self.current.load().authorities.left_out().to_vec()
    }

    /// Size of the certificate chain in bytes. Beyond about 3,000 a server's first flight no longer fits into three
    /// times the client's first packet, and every handshake takes one round trip more.
    #[must_use]
    pub fn chain_bytes(&self) -> usize {
        self.current.load().chain_bytes
    }

    /// A rustls server configuration with this identity, for listeners other than QUIC (the admin API): TLS 1.3 only,
    /// no resumption. It follows reloads.
    #[must_use]
    pub fn server_config(&self, alpn: &[&str], clients: ClientAuthentication) -> rustls::ServerConfig {
        self.server_config_with(alpn, clients, RefusalSink::default())
    }

    pub(crate) fn server_config_with(
        &self,
        alpn: &[&str],
        clients: ClientAuthentication,
        refusals: RefusalSink,
    ) -> rustls::ServerConfig {
        let mandatory = clients == ClientAuthentication::Required;
        let verifier = ClientVerifier { tls: self.clone(), mandatory, refusals };
        let mut config = rustls::ServerConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider holds TLS 1.3 suites")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config
    }

    pub(crate) fn client_config_with(&self, alpn: &str, refusals: RefusalSink) -> rustls::ClientConfig {
        let verifier = RouterVerifier { tls: self.clone(), refusals };
        let mut config = rustls::ClientConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider holds TLS 1.3 suites")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config
    }

    pub(super) fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    pub(super) fn swap(&self, loaded: Loaded) {
        self.current.store(Arc::new(loaded));
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "TlsIdentity({})", self.identity())
    }
}

impl Loaded {
    pub(super) fn read(files: &TlsFiles, now: SystemTime) -> Result<Self, TlsError> {
        let chain = read_certificates(&files.cert)?;
        let key = read_key(&files.key)?;

        let leaf = chain.first().expect("read_certificates returns at least one");
        let identity = Identity::from_certificate(leaf).map_err(|error| {
            TlsError::new(TlsErrorKind::Identity, &files.cert, error.to_string(), "issue one with `myelin cert issue`")
        })?;
        let not_after_unix_s = check_validity(leaf, &files.cert, now)?;
        let chain_bytes = chain.iter().map(|certificate| certificate.len()).sum();
        let certified_key = CertifiedKey::from_der(chain, key, &crypto_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::new(
                TlsErrorKind::KeyMismatch,
                &files.key,
                format!("this key does not belong to the certificate in {}", files.cert.display()),
                "give the two files that were issued together",
            ),
            other => TlsError::new(
                TlsErrorKind::Malformed,
                &files.key,
                other.to_string(),
                "use an ECDSA P-256, P-384, Ed25519 or RSA key",
            ),
        })?;
        let authorities = Authorities::new(read_certificates(&files.ca)?, &identity, &files.ca)?;
        let certified_key = Some(Arc::new(certified_key));
        Ok(Self { identity, authorities, certified_key, not_after_unix_s, chain_bytes })
    }
}

#[derive(Debug)]
struct Resolver(TlsIdentity);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.current().certified_key.clone()
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.current().certified_key.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.current().certified_key.is_some()
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |problem: String| {
        TlsError::new(TlsErrorKind::Unreadable, path, problem, "check the path and that this user may read it")
    };
    let meta = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if !meta.is_file() {
        return Err(unreadable("this is not a file".into()));
    }
    if meta.len() > TLS_FILE_BYTES_MAX {
        return Err(unreadable(format!("{} bytes are too many for a PEM file", meta.len())));
    }
    std::fs::read(path).map_err(|error| unreadable(error.to_string()))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read_file(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| {
        TlsError::new(TlsErrorKind::Malformed, path, format!("not valid PEM: {error}"), "give the certificate as PEM")
    })?;
    if certificates.is_empty() {
        return Err(TlsError::new(
            TlsErrorKind::Empty,
            path,
            "there is no certificate in this file",
            "give a PEM file with at least one CERTIFICATE block",
        ));
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    use rustls::pki_types::pem::Error;
    const REMEDY: &str = "give a PEM file with one PRIVATE KEY block (PKCS#8, SEC1 or PKCS#1, not encrypted)";
    let pem = read_file(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        Error::NoItemsFound => TlsError::new(TlsErrorKind::Empty, path, "there is no private key in this file", REMEDY),
        other => TlsError::new(TlsErrorKind::Malformed, path, format!("not valid PEM: {other}"), REMEDY),
    })
}

/// Checks the leaf's validity at `now` and returns its end in Unix seconds.
fn check_validity(leaf: &[u8], path: &Path, now: SystemTime) -> Result<i64, TlsError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).map_err(|error| {
        TlsError::new(TlsErrorKind::Malformed, path, error.to_string(), "give an X.509 certificate as PEM")
    })?;
    let validity = certificate.validity();
    let now_unix_s = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    if now_unix_s > validity.not_after.timestamp() {
        return Err(TlsError::new(
            TlsErrorKind::Expired,
            path,
            format!("the certificate expired on {}", validity.not_after),
            "issue a new one with `myelin cert issue`",
        ));
    }
    if now_unix_s < validity.not_before.timestamp() {
        return Err(TlsError::new(
            TlsErrorKind::NotYetValid,
            path,
            format!("the certificate is valid only from {} on", validity.not_before),
            "check this machine's clock, or issue a new certificate",
        ));
    }
    Ok(validity.not_after.timestamp())
}
