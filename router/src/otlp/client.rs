//! OTLP over HTTP: one connection that is kept, one request at a time, and what the collector's answers mean.

use super::Trouble;
use crate::config::{TelemetryConfig, collector, header};
use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::http::uri::Scheme;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use myelin_transport::crypto_provider;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Largest answer that is read, in bytes: a number and a sentence.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Largest file of headers that is read, in bytes: a token of several kilobytes, and some more.
const HEADERS_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Characters of a collector's message that are logged.
const MESSAGE_CHARACTERS_MAX: usize = 200;
/// Where spans go, below the collector's base URL.
const TRACES_PATH: &str = "v1/traces";

/// A collector, and how it is spoken to.
#[derive(Clone)]
pub struct Target {
    base: Uri,
    /// Host and port for TCP, and the host's name for TLS.
    host: String,
    port: u16,
    path: String,
    headers: HeaderMap,
    tls: Option<Arc<rustls::ClientConfig>>,
    timeout: Duration,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base)
    }
}

impl Target {
    /// The collector that is configured, with what its files hold; none where nothing is to be exported.
    ///
    /// # Errors
    /// When a value or a file is not what it should be.
    pub fn load(config: &TelemetryConfig) -> anyhow::Result<Option<Self>> {
        let Some(url) = &config.otlp else { return Ok(None) };
        let base =
            collector(url).map_err(|(problem, remedy)| anyhow::anyhow!("[telemetry] otlp: {problem}; {remedy}"))?;
        let is_secure = base.scheme() == Some(&Scheme::HTTPS);
        let tls = is_secure.then(|| tls(config)).transpose()?.map(Arc::new);
        let host = base.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = base.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let path = format!("{}/{TRACES_PATH}", base.path().trim_end_matches('/'));
        let headers = headers(config)?;
        Ok(Some(Self { base, host, port, path, headers, tls, timeout: Duration::from_millis(config.timeout_ms) }))
    }

    fn request(&self, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let authority = self.base.authority().context("the URL names no host")?;
        let mut request = Request::builder().method(Method::POST).uri(&self.path).body(Full::new(body))?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let agent = HeaderValue::from_static(concat!("myelin/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(agent);
        Ok(request)
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect((&*self.host, self.port)).await.context("connecting")?;
        stream.set_nodelay(true).context("connecting")?;
        match &self.tls {
            None => Connection::over(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).context("the URL's host")?;
                let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.context("TLS")?;
                Connection::over(stream).await
            }
        }
    }
}

/// The headers of the configuration and of its file.
fn headers(config: &TelemetryConfig) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for text in &config.headers {
        let (name, value) = header(text).map_err(|problem| anyhow::anyhow!("[telemetry] headers: {problem}"))?;
        headers.append(name, value);
    }
    let Some(file) = &config.headers_file else { return Ok(headers) };
    let what = || format!("[telemetry] headers_file: {}", file.display());
    let mut text = String::new();
    let read =
        std::fs::File::open(file).and_then(|file| file.take(HEADERS_FILE_BYTES_MAX + 1).read_to_string(&mut text));
    read.with_context(what)?;
    anyhow::ensure!(
        text.len() as u64 <= HEADERS_FILE_BYTES_MAX,
        "{} has more than {HEADERS_FILE_BYTES_MAX} bytes",
        what()
    );
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let read = header(line).map_err(|problem| anyhow::anyhow!("{problem}; give NAME=VALUE on each line"));
        let (name, value) = read.with_context(|| format!("{}:{number}", what()))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// TLS 1.3, as everywhere here.
fn tls(config: &TelemetryConfig) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    match &config.ca {
        Some(ca) => {
            for certificate in certificates(ca).context("[telemetry] ca")? {
                roots.add(certificate).with_context(|| format!("[telemetry] ca: {}", ca.display()))?;
            }
        }
        None => {
            // Some of a system's certificates may be none: the rest is good.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    anyhow::ensure!(!roots.is_empty(), "[telemetry] ca: no authority is trusted; name those of the collector in `ca`");
    let builder = rustls::ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("[telemetry] key: {}", key.display()))?;
    let chain = certificates(certificate).context("[telemetry] certificate")?;
    builder.with_client_auth_cert(chain, private).context("[telemetry] certificate and key")
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.with_context(|| file.display().to_string())
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The collector has it, but for some spans that it rejects.
    Taken {
        /// Spans that it rejects.
        rejected: u64,
        /// Why.
        message: String,
    },
    /// It is worth another attempt, after that time where the collector says one.
    Later {
        /// What went wrong.
        trouble: Trouble,
        /// The same for people.
        why: String,
        /// What `Retry-After` says.
        after: Option<Duration>,
    },
    /// It would be refused again.
    Never {
        /// Why.
        why: String,
    },
}

/// Speaks to a collector.
pub(super) struct Client {
    target: Target,
    /// The connection of the request before.
    connection: Option<Connection>,
}

impl Client {
    pub(super) fn new(target: Target) -> Self {
        Self { target, connection: None }
    }

    /// The collector's base URL.
    pub(super) fn url(&self) -> String {
        self.target.base.to_string()
    }

    /// Sends a request. Dropped in the middle, it leaves the next one a connection of its own.
    pub(super) async fn send(&mut self, body: Bytes) -> Outcome {
        let timeout = self.target.timeout;
        match tokio::time::timeout(timeout, self.exchange(body)).await {
            Ok(Ok((status, headers, answer))) => read(status, &headers, &answer, SystemTime::now()),
            Ok(Err(error)) => later(Trouble::Connection, format!("{error:#}")),
            Err(_) => later(Trouble::Timeout, format!("no answer within {timeout:?}")),
        }
    }

    async fn exchange(&mut self, body: Bytes) -> anyhow::Result<(StatusCode, HeaderMap, Bytes)> {
        let request = self.target.request(body)?;
        let mut connection = match self.kept().await {
            Some(kept) => kept,
            None => self.target.connect().await?,
        };
        let response = connection.sender.send_request(request).await.context("sending the request")?;
        let (head, body) = response.into_parts();
        let answer = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let answer = answer.map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?.to_bytes();
        self.connection = Some(connection);
        Ok((head.status, head.headers, answer))
    }

    /// The connection of the request before, where the collector has not closed it meanwhile.
    async fn kept(&mut self) -> Option<Connection> {
        let mut kept = self.connection.take()?;
        kept.sender.ready().await.ok()?;
        Some(kept)
    }
}

fn later(trouble: Trouble, why: String) -> Outcome {
    Outcome::Later { trouble, why, after: None }
}

/// What an answer means, by the specification of OTLP.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, answer: &[u8], now: SystemTime) -> Outcome {
    match status {
        StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => {
            // An answer that cannot be read, of a proxy say, does not make the collector give back what it has.
            let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
            let partial = answer.partial_success.unwrap_or_default();
            let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
            Outcome::Taken { rejected, message: printable(&partial.error_message) }
        }
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now));
            Outcome::Later { trouble: Trouble::Busy, why: format!("the collector answers {status}"), after }
        }
        _ => Outcome::Never { why: format!("the collector answers {status}, and would again") },
    }
}

/// Seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

/// A stranger's text for the log: bounded, without control characters.
fn printable(text: &str) -> String {
    text.chars().take(MESSAGE_CHARACTERS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A connection; closed when it is dropped.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Connection {
    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("HTTP")?;
        // What goes wrong with it is told to whoever sends.
        let driver = tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender, driver })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
