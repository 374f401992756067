//! A small HTTP client for the admin API: one connection for all calls, bounded answers, problems as failures.

use super::failure::{Exit, Failure, Result, exit_for_code, exit_for_status, is_nobody};
use crate::config::without_user;
use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use myelin_transport::crypto_provider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Largest answer that is read, in bytes: the longest lists there are have some megabytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a connection is kept for the next call. A router hangs up on one that is idle for five seconds, and of what is
/// sent at that moment nobody knows whether it was read.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the admin API is, and how to prove who asks.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Its URL, without a path.
    pub(super) url: Uri,
    /// The bearer token.
    pub(super) token: Option<String>,
    /// The client's certificate and its key, for HTTPS.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    /// The authorities that are trusted, for HTTPS.
    pub(super) ca: Option<PathBuf>,
    /// The name in the router's certificate, where it is not the URL's host.
    pub(super) server_name: Option<String>,
    /// How long a call may take.
    pub(super) timeout: Duration,
    /// The connection.
    pub(super) line: Line,
}

/// The connection of the last call, for the next one, and since when nothing was asked by it.
#[derive(Clone, Default)]
pub(super) struct Line(Arc<Mutex<Option<(Sender, Instant)>>>);

type Sender = SendRequest<Full<Bytes>>;

impl fmt::Debug for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Line")
    }
}

impl Line {
    /// The connection, if it is there and can take a request.
    async fn take(&self) -> Option<Sender> {
        let (mut sender, since) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        (since.elapsed() < IDLE_MAX && sender.ready().await.is_ok()).then_some(sender)
    }

    fn keep(&self, sender: Sender) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((sender, Instant::now()));
    }
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its body.
    pub(super) body: Bytes,
    /// The catalog's revision, where it says one (`ETag`).
    pub(super) revision: Option<u64>,
}

/// What to send.
#[derive(Clone, Debug, Default)]
pub(super) enum Body {
    /// Nothing.
    #[default]
    None,
    /// JSON.
    Json(Value),
    /// A Wasm component.
    Wasm(Upload),
}

/// A Wasm component, and what is said beside it.
#[derive(Clone, Debug, Default)]
pub(super) struct Upload {
    /// The component.
    pub(super) component: Bytes,
    /// The text of its signature.
    pub(super) signature: Option<String>,
    /// Where it comes from, for whoever reads the audit log.
    pub(super) origin: Option<String>,
}

/// A problem (RFC 9457), or one of the schema registry.
#[derive(Debug, Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default, alias = "message")]
    detail: String,
    #[serde(default)]
    code: String,
}

/// A path of the API with a query, whatever characters are in it.
pub(super) fn query<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<_> = pairs.into_iter().collect();
    // Pairs of texts can always be written.
    format!("{path}?{}", serde_urlencoded::to_string(pairs).unwrap_or_default())
}

/// The same with those that are wished, and without a query where none is.
pub(super) fn wishing(path: &str, wishes: &[(&str, bool)]) -> String {
    let asked: Vec<_> = wishes.iter().filter(|(_, is_so)| *is_so).map(|(name, _)| (*name, "true")).collect();
    if asked.is_empty() { path.to_owned() } else { query(path, asked) }
}

impl Server {
    /// Asks, and gives the answer's body; anything but success is a failure.
    pub(super) async fn call(&self, method: Method, path: &str, if_match: Option<u64>, body: Body) -> Result<Answer> {
        let shown = || without_user(&self.url.to_string());
        // Held aside: a connection is made in it, and every caller's future would carry that.
        let exchange = Box::pin(self.exchange(method, path, if_match, body));
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Ok((status, answer))) if (200..300).contains(&status) => Ok(answer),
            Ok(Ok((status, answer))) => Err(problem(status, &answer.body, path)),
            Ok(Err(failure)) => Err(failure.doing(format!("the admin API at {}", shown()))),
            Err(_) => {
                let what = format!("the admin API at {} did not answer within {:?}", shown(), self.timeout);
                Err(Failure::new(Exit::Timeout, what)
                    .next("wait longer with --timeout; what was asked may still happen"))
            }
        }
    }

    async fn exchange(&self, method: Method, path: &str, if_match: Option<u64>, body: Body) -> Result<(u16, Answer)> {
        let request = self.request(method, path, if_match, body)?;
        let (response, sender) = match self.line.take().await {
            None => self.ask_anew(request).await?,
            Some(mut sender) => match sender.try_send_request(request).await {
                Ok(response) => (response, sender),
                Err(mut error) => match error.take_message() {
                    // The server has hung up on what was kept, and never read this.
                    Some(request) => self.ask_anew(request).await?,
                    None => return Err(no_http(error.into_error())),
                },
            },
        };
        let (status, revision) = (response.status().as_u16(), revision(response.headers()));
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Failure::new(Exit::Failed, format!("reading the answer: {error}")))?;
        self.line.keep(sender);
        Ok((status, Answer { body: body.to_bytes(), revision }))
    }

    async fn ask_anew(&self, request: Request<Full<Bytes>>) -> Result<(Response<Incoming>, Sender)> {
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(no_http)?;
        Ok((response, sender))
    }

    async fn connect(&self) -> Result<Sender> {
        let host = self.url.host().context("the URL names no host")?.trim_matches(['[', ']']).to_owned();
        let is_secure = self.url.scheme_str() == Some("https");
        let port = self.url.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), port))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable(format!("no connection within {CONNECT_TIMEOUT:?}"))),
        };
        // A request goes at once, and does not wait for what was sent before it to be acknowledged.
        let _ = stream.set_nodelay(true);
        if is_secure {
            let name = ServerName::try_from(self.server_name.clone().unwrap_or(host)).context("the URL's host")?;
            let tls = self.tls().map_err(|error| Failure { exit: Exit::Usage, ..error.into() })?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
            let stream = connector.connect(name, stream).await.map_err(|error| no_tls(&error))?;
            speak(stream).await
        } else {
            speak(stream).await
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        if_match: Option<u64>,
        body: Body,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let authority = self.url.authority().context("the URL names no host")?;
        let mut request = Request::builder().method(method).uri(path).header(HOST, authority.as_str());
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).context("the token")?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(revision) = if_match {
            request = request.header("if-match", format!("\"{revision}\""));
        }
        if let Body::Wasm(Upload { signature: Some(signature), .. }) = &body {
            request = request.header("myelin-signature", BASE64.encode(signature));
        }
        if let Body::Wasm(Upload { origin: Some(origin), .. }) = &body {
            request = request.header("myelin-origin", origin);
        }
        let (content_type, bytes) = match body {
            Body::None => (None, Bytes::new()),
            Body::Json(value) => (Some("application/json"), serde_json::to_vec(&value)?.into()),
            Body::Wasm(upload) => (Some("application/wasm"), upload.component),
        };
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        Ok(request.body(Full::new(bytes))?)
    }

    fn tls(&self) -> anyhow::Result<rustls::ClientConfig> {
        let ca = self.ca.as_deref().context("HTTPS needs --ca: the authorities whose routers are trusted")?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).with_context(|| format!("{}", ca.display()))?;
        }
        let config = rustls::ClientConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let Some((cert, key)) = &self.client else { return Ok(config.with_no_client_auth()) };
        let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("{}", key.display()))?;
        Ok(config.with_client_auth_cert(certificates(cert)?, private)?)
    }
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.with_context(|| format!("{}", file.display()))
}

/// Speaks HTTP over a connection, for as long as there is somebody to send by it.
async fn speak<S>(stream: S) -> Result<Sender>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("HTTP")?;
    tokio::spawn(connection);
    Ok(sender)
}

fn revision(headers: &HeaderMap) -> Option<u64> {
    headers.get(ETAG)?.to_str().ok()?.trim_matches('"').parse().ok()
}

fn unreachable(why: String) -> Failure {
    Failure::unanswered(why)
        .next("start a router with `myelin serve --dev`, or name the one that runs with --admin URL")
}

/// The two could not agree on an encrypted connection.
fn no_tls(error: &std::io::Error) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("TLS: {error}"));
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match told {
        Some(rustls::Error::InvalidMessage(_)) => {
            failure.next("what answers there does not speak TLS: write the URL with http://")
        }
        Some(rustls::Error::InvalidCertificate(_)) => {
            failure.next("give --ca with the authority of that router's certificate, and its name as the URL's host")
        }
        _ => failure,
    }
}

/// The other side did not answer as HTTP wants it.
fn no_http(error: hyper::Error) -> Failure {
    // An alert of TLS is what a server of HTTPS says to a request in the clear.
    let is_other_protocol = error.is_parse();
    let failure = Failure::from(anyhow::Error::from(error).context("HTTP"));
    match is_other_protocol {
        true => {
            failure.next("what answers there does not speak plain HTTP: write the URL with https://, and give --ca")
        }
        false => failure,
    }
}

/// What the server said, as a failure.
fn problem(status: u16, answer: &[u8], path: &str) -> Failure {
    let Ok(Problem { title, detail, code }) = serde_json::from_slice::<Problem>(answer) else {
        let what = format!("{path}: HTTP status {status}, and no problem in JSON: is this Myelin's admin API?");
        return Failure::new(exit_for_status(status), what);
    };
    let exit = exit_for_code(&code).unwrap_or_else(|| exit_for_status(status));
    let sentence = if detail.is_empty() { title } else { detail };
    // The server's words may quote a stranger's.
    let sentence: String = sentence.chars().filter(|c| !c.is_control() || *c == '\n').collect();
    let failure = Failure { is_unanswered: is_nobody(&code), ..Failure::new(exit, format!("{sentence} ({code})")) };
    match exit {
        Exit::Denied if status == 401 => {
            failure.next("give --token, or a client certificate with --cert, --key and --ca")
        }
        Exit::Denied => match step_for_denial(&code) {
            Some(step) => failure.next(step),
            None => failure,
        },
        Exit::Conflict => match step_for_conflict(&code) {
            Some(step) => failure.next(step),
            None => failure,
        },
        _ => failure,
    }
}

/// What to do about a conflict, where its sentence does not say: that of a mere `conflict` does.
fn step_for_conflict(code: &str) -> Option<&'static str> {
    Some(match code {
        "subject-not-deleted" | "version-not-deleted" => "delete it without --permanent first",
        "schema-referenced" => "`myelin schema ls` shows the subjects; delete those that refer to it first",
        "schema-in-use" => "`myelin topic ls` shows which rules judge by it; let them judge by another first",
        "trust-stale" => "make the change anew: `myelin trust ls` shows what is there now",
        "proposal-stale" => "propose it anew: `myelin rollout history` shows what waits",
        "rollout-running" => "`myelin rollout status` shows it; wait for its end, or `myelin rollout abort`",
        "catalog-moved" => "somebody else has changed something meanwhile: look at what is there now, and do it again",
        _ => return None,
    })
}

/// What to do about a denial, where its sentence does not say.
fn step_for_denial(code: &str) -> Option<&'static str> {
    Some(match code {
        "forbidden-role" | "forbidden-tenant" => "`myelin whoami --may` shows what this identity may do",
        "signature-missing" => "sign it with `myelin filter sign`; `myelin trust ls` shows whose signatures count",
        "signature-untrusted" | "signature-invalid" | "signature-expired" | "signature-mismatch" => {
            "`myelin trust ls` shows whose signatures count, and for which modules"
        }
        "registry-mode" => "`myelin schema config SUBJECT` shows the mode and sets it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use std::io::{Read, Write};

    fn server(answer: &'static [u8]) -> (Server, std::thread::JoinHandle<String>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = server_at(&listener);
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        (server, thread)
    }

    fn server_at(listener: &std::net::TcpListener) -> Server {
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (token, timeout, line) = (Some("sesame".into()), Duration::from_secs(10), Line::default());
        Server { url, token, client: None, ca: None, server_name: None, timeout, line }
    }

    fn call(server: &Server) -> Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(server.call(Method::PUT, "/v1/x", Some(7), Body::Json(serde_json::json!({"a": 1}))))
    }

    #[test]
    fn a_call_carries_token_revision_and_body() {
        let (server, thread) = server(b"HTTP/1.1 200 OK\r\netag: \"8\"\r\ncontent-length: 2\r\n\r\n{}");
        let answer = call(&server).unwrap();
        assert_eq!((&answer.body[..], answer.revision), (&b"{}"[..], Some(8)));
        let request = thread.join().unwrap().to_lowercase();
        for part in ["put /v1/x http/1.1\r\n", "authorization: bearer sesame", "if-match: \"7\"", "application/json"] {
            assert!(request.contains(part), "{part}: {request}");
        }
    }

    #[test]
    fn calls_share_a_connection_while_it_holds() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = server_at(&listener);
        let (hung_up, is_over) = std::sync::mpsc::sync_channel(2);
        let thread = std::thread::spawn(move || {
            let mut request = vec![0; 4096];
            // Two calls by one connection, which is hung up on then; the third comes by another one.
            for calls in [2, 1] {
                let (mut stream, _) = listener.accept().unwrap();
                for _ in 0..calls {
                    assert_ne!(stream.read(&mut request).unwrap(), 0);
                    stream.write_all(answer).unwrap();
                }
                drop(stream);
                hung_up.send(()).unwrap();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..2 {
            runtime.block_on(server.call(Method::GET, "/v1/x", None, Body::None)).unwrap();
        }
        is_over.recv().unwrap();
        runtime.block_on(server.call(Method::GET, "/v1/x", None, Body::None)).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn problems_become_failures_with_their_exit_code() {
        let answer = b"HTTP/1.1 409 Conflict\r\ncontent-type: application/problem+json\r\ncontent-length: 65\r\n\r\n\
            {\"title\":\"Conflict\",\"status\":409,\"detail\":\"no\",\"code\":\"conflict\"}";
        let (server, thread) = server(answer);
        let failure = call(&server).unwrap_err();
        assert_eq!((failure.exit, failure.what.as_str()), (Exit::Conflict, "no (conflict)"));
        thread.join().unwrap();
    }

    #[test]
    fn the_next_step_of_a_conflict_is_about_its_code() {
        let step = |code: &str| {
            let answer = serde_json::json!({"title": "Conflict", "status": 409, "detail": "no", "code": code});
            let failure = problem(409, answer.to_string().as_bytes(), "/v1/x");
            assert_eq!(failure.exit, Exit::Conflict, "{code}");
            failure.next.unwrap_or_default()
        };
        for (code, part) in [
            ("schema-in-use", "myelin topic ls"),
            ("schema-referenced", "myelin schema ls"),
            ("rollout-running", "myelin rollout status"),
            ("trust-stale", "myelin trust ls"),
        ] {
            assert!(step(code).contains(part), "{code}: {}", step(code));
        }
        // A site that has routers, a tenant's services, no sites: their sentences say it.
        assert_eq!(step("conflict"), "");
        assert_eq!(step("rollout-needed"), "");
    }

    #[test]
    fn other_servers_and_none_at_all_are_told_apart() {
        let (mut server, thread) = server(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope");
        let failure = call(&server).unwrap_err();
        assert!(failure.exit == Exit::NotFound && failure.what.contains("is this Myelin's admin API?"));
        thread.join().unwrap();
        server.url = "http://127.0.0.1:1".parse().unwrap();
        let failure = call(&server).unwrap_err();
        assert!(failure.exit == Exit::NotFound && failure.next.unwrap().contains("myelin serve --dev"));
    }

    #[test]
    fn a_url_of_the_wrong_scheme_is_told_with_the_right_one() {
        // What a server of HTTPS sends to somebody who does not begin with TLS: an alert.
        let (mut server, thread) = server(b"\x15\x03\x03\x00\x02\x02\x32");
        let failure = call(&server).unwrap_err();
        assert!(failure.next.as_ref().is_some_and(|next| next.contains("https://")), "{failure}");
        thread.join().unwrap();

        let folder = tempfile::tempdir().unwrap();
        let authority = myelin_transport::ca::CertificateAuthority::create("test", 2).unwrap();
        authority.save(folder.path()).unwrap();
        let (plain, thread) = self::server(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        server.url = plain.url.to_string().replace("http:", "https:").parse().unwrap();
        server.ca = Some(folder.path().join(myelin_transport::ca::CA_CERT_FILE));
        let failure = call(&server).unwrap_err();
        assert!(failure.next.as_ref().is_some_and(|next| next.contains("http://")), "{failure}");
        thread.join().unwrap();
    }

    #[test]
    fn authorities_that_cannot_be_read_are_the_command_lines_fault() {
        let (mut server, thread) = server(b"");
        server.url = server.url.to_string().replace("http:", "https:").parse().unwrap();
        server.ca = Some("/nope/ca.pem".into());
        let failure = call(&server).unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.what.contains("/nope/ca.pem"), "{failure}");
        thread.join().unwrap();
    }
}
