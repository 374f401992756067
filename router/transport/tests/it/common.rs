//! A small world for tests: CAs on disk, a serving router, hostile clients made from bare quinn.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use myelin_transport::ca::{CertificateAuthority, CertificateRequest, IssuedCertificate, Validity};
use myelin_transport::{
    ALPN_CLIENT, Connection, DialConfig, DialError, Dialer, Listener, ListenerConfig, ListenerControl, QuicConfig,
    TlsFiles, TlsIdentity,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::sync::mpsc;

pub(crate) const TRUST_DOMAIN: &str = "test.example";
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A test that waits longer than this hangs.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// Waits until `check` holds: counters of the other side follow a little later.
pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came true: {what}");
}

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) ca: CertificateAuthority,
}

impl World {
    pub(crate) fn new() -> Self {
        let ca = CertificateAuthority::create(TRUST_DOMAIN, 30).unwrap();
        Self { dir: TempDir::new().unwrap(), ca }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Files of a certificate that trust this world's CA.
    pub(crate) fn files(&self, stem: &str, issued: &IssuedCertificate) -> TlsFiles {
        self.files_trusting(stem, issued, self.ca.cert_pem())
    }

    pub(crate) fn files_trusting(&self, stem: &str, issued: &IssuedCertificate, ca_pem: &str) -> TlsFiles {
        let (cert, key) = issued.save(self.dir.path(), stem).unwrap();
        let ca = self.path(&format!("{stem}-ca.pem"));
        replace(&ca, ca_pem);
        TlsFiles { cert, key, ca }
    }

    pub(crate) fn router(&self) -> TlsIdentity {
        TlsIdentity::load(&self.files("router", &issue_router(&self.ca))).unwrap()
    }

    pub(crate) fn service(&self, name: &str) -> TlsIdentity {
        TlsIdentity::load(&self.files(name, &self.ca.issue_service(name, 1).unwrap())).unwrap()
    }
}

/// Replaces a file as careful programs do, so that a reload sees the change whatever the clock's grain.
pub(crate) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("replacement");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

pub(crate) fn issue_router(ca: &CertificateAuthority) -> IssuedCertificate {
    ca.issue_router("lab", "r1", &["localhost".into(), "127.0.0.1".into()], 1).unwrap()
}

/// A good service's request, to be spoilt.
pub(crate) fn service_request() -> CertificateRequest {
    CertificateRequest {
        uris: vec![format!("spiffe://{TRUST_DOMAIN}/service/odd")],
        hosts: Vec::new(),
        validity: Validity::days(1).unwrap(),
        for_server: false,
        for_client: true,
    }
}

/// A good router's request, to be spoilt.
pub(crate) fn router_request() -> CertificateRequest {
    CertificateRequest {
        uris: vec![format!("spiffe://{TRUST_DOMAIN}/site/lab/router/odd")],
        hosts: vec!["localhost".into()],
        for_server: true,
        ..service_request()
    }
}

pub(crate) fn expired() -> Validity {
    let now = SystemTime::now();
    Validity { not_before: now - 10 * DAY, not_after: now - DAY }
}

pub(crate) fn not_yet_valid() -> Validity {
    let now = SystemTime::now();
    Validity { not_before: now + DAY, not_after: now + 10 * DAY }
}

pub(crate) fn listener_config() -> ListenerConfig {
    ListenerConfig { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ..ListenerConfig::default() }
}

/// A listener with its accept loop; accepted connections come out of `accepted`.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) control: ListenerControl,
    pub(crate) accepted: mpsc::Receiver<Connection>,
}

impl Server {
    pub(crate) fn start(config: ListenerConfig, tls: &TlsIdentity) -> Self {
        let mut listener = Listener::bind(config, tls).unwrap().start().unwrap();
        let (addr, control) = (listener.local_addr(), listener.control());
        let (accepted_tx, accepted) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Some(connection) = listener.accept().await {
                if accepted_tx.send(connection).await.is_err() {
                    return;
                }
            }
        });
        Self { addr, control, accepted }
    }

    pub(crate) async fn next(&mut self) -> Connection {
        in_time(self.accepted.recv()).await.expect("the listener runs")
    }
}

pub(crate) fn dial_config(addr: SocketAddr, tls: &TlsIdentity) -> DialConfig {
    DialConfig { addr, server_name: "localhost".into(), alpn: ALPN_CLIENT.into(), tls: tls.clone() }
}

pub(crate) async fn dial(addr: SocketAddr, tls: &TlsIdentity) -> Result<Connection, DialError> {
    in_time(Dialer::new(QuicConfig::default()).unwrap().connect(&dial_config(addr, tls))).await
}

/// Sends bytes there and back: both sides are alive.
pub(crate) async fn echo_once(here: &Connection, there: &Connection, text: &[u8]) {
    let (mut send, mut recv) = in_time(here.open_bi()).await.unwrap();
    send.write_all(text).await.unwrap();
    send.finish().unwrap();
    let (mut back, mut forth) = in_time(there.accept_bi()).await.unwrap();
    let heard = read_to_end(&mut forth).await;
    back.write_all(&heard).await.unwrap();
    back.finish().unwrap();
    assert_eq!(read_to_end(&mut recv).await, text);
}

pub(crate) async fn read_to_end(recv: &mut myelin_transport::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = in_time(recv.read_chunk()).await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all
}

/// What a stranger with bare quinn can set at will.
pub(crate) struct BareClient {
    pub(crate) certificate: Option<IssuedCertificate>,
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) early_data: bool,
}

impl BareClient {
    pub(crate) fn with(certificate: Option<IssuedCertificate>) -> Self {
        Self { certificate, alpn: vec![ALPN_CLIENT.into()], early_data: false }
    }

    pub(crate) fn config(&self, trusted: &CertificateAuthority) -> quinn::ClientConfig {
        let builder = rustls::ClientConfig::builder_with_provider(myelin_transport::crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots(trusted));
        let mut tls = match &self.certificate {
            Some(issued) => builder.with_client_auth_cert(chain(issued), key(issued)).unwrap(),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols.clone_from(&self.alpn);
        tls.enable_early_data = self.early_data;
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
    }
}

/// A server made from bare quinn, with a certificate no [`Listener`] would take. It needs no client certificate.
pub(crate) fn bare_server(issued: &IssuedCertificate, early_data: bool) -> quinn::Endpoint {
    let mut tls = rustls::ServerConfig::builder_with_provider(myelin_transport::crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain(issued), key(issued))
        .unwrap();
    tls.alpn_protocols = vec![ALPN_CLIENT.into()];
    if early_data {
        tls.max_early_data_size = u32::MAX;
    }
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let serving = endpoint.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Some(incoming) = serving.accept().await {
            if let Ok(connection) = incoming.await {
                held.push(connection);
            }
        }
    });
    endpoint
}

pub(crate) fn bare_endpoint() -> quinn::Endpoint {
    quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
}

fn roots(ca: &CertificateAuthority) -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert_pem().as_bytes()).unwrap()).unwrap();
    Arc::new(roots)
}

pub(crate) fn chain(issued: &IssuedCertificate) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(issued.cert_pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

fn key(issued: &IssuedCertificate) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap()
}
