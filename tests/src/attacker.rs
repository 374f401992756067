//! Attackers: with a certificate and bad manners, or with nothing but a UDP socket.

use crate::Router;
use anyhow::{Context as _, Result};
use myelin_client::TlsFiles;
use myelin_transport::{Connection, DialConfig, Dialer, QuicConfig, RecvStream, SendStream, TlsIdentity};
use myelin_wire::Message;
use myelin_wire::message::{Hello, MessageDecoder, Overflow};
use quinn::congestion::{Controller, ControllerFactory};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, UdpPoller};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::any::Any;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long the router may take for its word.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody with a valid certificate who writes frames by hand.
pub struct Attacker {
    dialer: Dialer,
    config: DialConfig,
}

/// A session of theirs: HELLO was said and WELCOME has come.
pub struct RawSession {
    /// The connection.
    pub connection: Connection,
    /// The control stream towards the router.
    pub control: SendStream,
    /// The control stream from it.
    pub answers: RecvStream,
}

impl Attacker {
    /// An attacker of `router` with its development certificate.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn of(router: &Router) -> Result<Self> {
        let files = files(router);
        let config = DialConfig {
            addr: router.client_addr(),
            server_name: "localhost".to_owned(),
            alpn: "myelin-client/1".to_owned(),
            tls: TlsIdentity::load(&files)?,
        };
        let dialer = Dialer::new(QuicConfig::default()).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        Ok(Self { dialer, config })
    }

    /// A connection on which nothing was said yet.
    ///
    /// # Errors
    /// When the router does not take it.
    pub async fn connect(&self) -> Result<Connection> {
        Ok(self.dialer.connect(&self.config).await?)
    }

    /// A session.
    ///
    /// # Errors
    /// When the router does not welcome it.
    pub async fn session(&self, overflow: Overflow) -> Result<RawSession> {
        let connection = self.connect().await?;
        let (mut control, mut answers) = connection.open_bi().await?;
        control.write_all(&hello(overflow)?).await?;
        let mut decoder = MessageDecoder::new();
        while !matches!(decoder.poll()?, Some(Message::Welcome(_))) {
            let read = timeout(PATIENCE, answers.read_chunk()).await.context("no WELCOME in time")?;
            decoder.push(&read?.context("the control stream ended before WELCOME")?);
        }
        Ok(RawSession { connection, control, answers })
    }
}

/// The bytes of a HELLO.
///
/// # Errors
/// None that a test could cause.
pub fn hello(overflow: Overflow) -> Result<Vec<u8>> {
    encoded(&Message::Hello(Hello { min: 1, max: 1, client: "attacker".to_owned(), overflow, token: None }))
}

/// The bytes of a control message.
///
/// # Errors
/// When it is too large.
pub fn encoded(message: &Message) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes)?;
    Ok(bytes)
}

fn files(router: &Router) -> TlsFiles {
    let dev = router.data_dir().join("dev");
    TlsFiles { cert: dev.join("client.pem"), key: dev.join("client-key.pem"), ca: dev.join("ca.pem") }
}

/// quinn's own client settings with the development certificate, for attacks below the transport's API.
///
/// # Errors
/// When the certificate cannot be read.
pub fn quinn_config(router: &Router) -> Result<quinn::ClientConfig> {
    let files = files(router);
    let chain = CertificateDer::pem_file_iter(&files.cert)?.collect::<Result<Vec<_>, _>>()?;
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&files.ca)? {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key)?)?;
    tls.alpn_protocols = vec![b"myelin-client/1".to_vec()];
    Ok(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)))
}

/// First packets of `count` handshakes that will never go on.
///
/// # Errors
/// None that a test could cause.
pub fn first_packets(router: &Router, count: usize) -> Result<Vec<Vec<u8>>> {
    let (config, now) = (quinn_config(router)?, Instant::now());
    let mut endpoint = quinn_proto::Endpoint::new(Arc::default(), None, true, None);
    (0..count)
        .map(|_| {
            let (_, mut connection) = endpoint.connect(now, config.clone(), router.client_addr(), "localhost")?;
            let mut packet = Vec::new();
            let _ = connection.poll_transmit(now, 1, &mut packet).context("a client begins with a packet")?;
            Ok(packet)
        })
        .collect()
}

/// A socket that goes deaf on command: from then on it hears nothing and loses every other packet that it sends, so
/// that its peer's streams have gaps that nobody fills.
#[derive(Debug)]
pub struct DeafSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    is_deaf: AtomicBool,
    sent: AtomicU64,
    lost: AtomicU64,
}

impl DeafSocket {
    /// A client endpoint on a socket of this kind, whose congestion control knows no limit.
    ///
    /// # Errors
    /// When no socket is to be had.
    pub fn endpoint() -> Result<(quinn::Endpoint, Arc<Self>)> {
        let runtime = Arc::new(quinn::TokioRuntime);
        let inner = runtime.wrap_udp_socket(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?)?;
        let socket =
            Arc::new(Self { inner, is_deaf: AtomicBool::new(false), sent: AtomicU64::new(0), lost: AtomicU64::new(0) });
        let endpoint =
            quinn::Endpoint::new_with_abstract_socket(quinn::EndpointConfig::default(), None, socket.clone(), runtime)?;
        Ok((endpoint, socket))
    }

    /// Goes deaf.
    pub fn go_deaf(&self) {
        self.is_deaf.store(true, Relaxed);
    }

    /// Packets sent and lost since it is deaf.
    pub fn counts(&self) -> (u64, u64) {
        (self.sent.load(Relaxed), self.lost.load(Relaxed))
    }
}

impl AsyncUdpSocket for DeafSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.is_deaf.load(Relaxed) {
            return self.inner.try_send(transmit);
        }
        if self.lost.load(Relaxed) < self.sent.load(Relaxed) {
            self.lost.fetch_add(1, Relaxed);
            return Ok(());
        }
        self.inner.try_send(transmit)?;
        self.sent.fetch_add(1, Relaxed);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let count = ready!(self.inner.poll_recv(context, buffers, metas))?;
            if !self.is_deaf.load(Relaxed) {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Congestion control of somebody who does not care.
#[derive(Debug)]
pub struct Reckless;

impl ControllerFactory for Reckless {
    fn build(self: Arc<Self>, _: Instant, _: u16) -> Box<dyn Controller> {
        Box::new(Self)
    }
}

impl Controller for Reckless {
    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        1 << 30
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self)
    }

    fn initial_window(&self) -> u64 {
        self.window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
