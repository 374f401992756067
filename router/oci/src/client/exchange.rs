//! One question and its answer over HTTP, with a connection of their own.

use super::ANSWER_BYTES_MAX;
use crate::error::{OciError, cut};
use crate::reference::Registry;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use myelin_catalog::Digest;
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a connection may take, with its TLS.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a question and its answer may take: the largest module at half a megabit a second.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(300);
/// The digest of what a registry sends, as it says.
const DIGEST_HEADER: &str = "docker-content-digest";

/// How a registry is reached.
#[derive(Clone, Debug)]
pub enum Transport {
    /// By HTTPS, trusting those authorities.
    Tls(Arc<rustls::ClientConfig>),
    /// By HTTP, on this machine only.
    PlainOnLoopback,
}

/// How questions get to one registry.
#[derive(Debug)]
pub(super) struct Exchange {
    registry: Registry,
    transport: Transport,
}

/// A question.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// The path at the registry, where no place is named.
    pub(super) path: String,
    /// The place.
    pub(super) uri: Option<Uri>,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
    /// Bytes of a good answer that are read, and what they are.
    max: (u64, &'static str),
    /// Whether the answer may come from another server, to which the registry sends us on.
    may_be_elsewhere: bool,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) uri: Uri,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Asked {
    pub(super) fn new(method: Method, path: String) -> Self {
        let max = (ANSWER_BYTES_MAX, "the answer");
        Self { method, path, uri: None, headers: Vec::new(), body: Bytes::new(), max, may_be_elsewhere: false }
    }

    pub(super) fn at(method: Method, uri: Uri) -> Self {
        Self { uri: Some(uri), ..Self::new(method, String::new()) }
    }

    pub(super) fn header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    pub(super) fn up_to(self, bytes: u64, what: &'static str) -> Self {
        Self { max: (bytes, what), ..self }
    }

    /// Registries keep blobs in storage of others, and a blob is what its digest says wherever it comes from.
    pub(super) fn elsewhere(self) -> Self {
        Self { may_be_elsewhere: true, ..self }
    }
}

impl Answer {
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The media type, without its parameters.
    pub(super) fn content_type(&self) -> Option<&str> {
        self.header(CONTENT_TYPE).and_then(|value| value.split(';').next()).map(str::trim)
    }

    /// The digest of the body, as the registry says.
    pub(super) fn digest(&self) -> Option<Digest> {
        let said = self.header(HeaderName::from_static(DIGEST_HEADER))?;
        said.strip_prefix("sha256:")?.parse().ok()
    }
}

impl Exchange {
    pub(super) fn new(registry: Registry, transport: Transport) -> Self {
        Self { registry, transport }
    }

    fn scheme(&self) -> &'static str {
        match self.transport {
            Transport::Tls(_) => "https",
            Transport::PlainOnLoopback => "http",
        }
    }

    /// A place at the registry.
    pub(super) fn uri(&self, path: &str) -> Result<Uri, OciError> {
        let text = format!("{}://{}{path}", self.scheme(), self.registry);
        text.parse().map_err(|_| self.unreachable(format!("`{}` is no URL", cut(&text))))
    }

    /// Whether a place is at the registry.
    pub(super) fn is_registry(&self, uri: &Uri) -> bool {
        let own = self.uri("/").ok();
        let own = own.as_ref();
        let port = if self.scheme() == "https" { 443 } else { 80 };
        let place = |uri: &Uri| {
            let authority = uri.authority()?;
            let is_plain = !authority.as_str().contains('@');
            let (host, port) = (authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(port));
            is_plain.then_some((uri.scheme_str()?.to_owned(), host, port))
        };
        own.is_some_and(|own| place(own).is_some_and(|own| place(uri) == Some(own)))
    }

    /// Where a registry sends us, seen from `from`: never to somewhere without TLS where there was some.
    pub(super) fn follow(&self, from: &Uri, location: &str) -> Result<Uri, OciError> {
        let refuse = |why| OciError::Redirect { registry: self.registry.to_string(), location: cut(location), why };
        let whole = match location.starts_with('/') && !location.starts_with("//") {
            true => {
                format!("{}://{}{location}", self.scheme(), from.authority().map_or("", |authority| authority.as_str()))
            }
            false => location.to_owned(),
        };
        let uri: Uri = whole.parse().map_err(|_| refuse("that is no URL"))?;
        let authority = uri.authority().ok_or_else(|| refuse("that names no server"))?;
        if uri.scheme_str() != Some(self.scheme()) {
            return Err(refuse("only https is followed, or http where the registry itself is asked by it"));
        }
        if authority.as_str().contains('@') {
            return Err(refuse("it has a user's name in it"));
        }
        Ok(uri)
    }

    /// Where a registry sends us on with a question: to another server for blobs only. Whatever a registry says, it cannot
    /// make this machine ask others for anything else, such as those of its own network.
    pub(super) fn redirect(&self, asked: &Asked, from: &Uri, location: &str) -> Result<Uri, OciError> {
        let uri = self.follow(from, location)?;
        if asked.may_be_elsewhere || self.is_registry(&uri) {
            return Ok(uri);
        }
        let why = "only blobs may come from another server than the registry's; name that server as the registry";
        Err(OciError::Redirect { registry: self.registry.to_string(), location: cut(location), why })
    }

    /// Asks once.
    pub(super) async fn send(&self, asked: &Asked, uri: &Uri, authorization: Option<&str>) -> Result<Answer, OciError> {
        let exchanged = timeout(EXCHANGE_TIME_MAX, self.exchange(asked, uri, authorization)).await;
        exchanged.unwrap_or_else(|_| Err(self.unreachable(format!("no answer within {EXCHANGE_TIME_MAX:?}"))))
    }

    async fn exchange(&self, asked: &Asked, uri: &Uri, authorization: Option<&str>) -> Result<Answer, OciError> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let request = self.request(asked, uri, authorization)?;
        let port = uri.port_u16();
        match &self.transport {
            Transport::Tls(config) => {
                let connect = async {
                    let stream = TcpStream::connect((host.as_str(), port.unwrap_or(443))).await?;
                    let name = ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
                    tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await
                };
                let stream = self.connected(timeout(CONNECT_TIME_MAX, connect).await)?;
                self.over(stream, asked, uri, request).await
            }
            Transport::PlainOnLoopback => {
                let connect = async {
                    let found = tokio::net::lookup_host((host.as_str(), port.unwrap_or(80))).await?;
                    let addrs: Vec<SocketAddr> = found.filter(|addr| addr.ip().is_loopback()).collect();
                    if addrs.is_empty() { Ok(None) } else { TcpStream::connect(&addrs[..]).await.map(Some) }
                };
                let stream = self.connected(timeout(CONNECT_TIME_MAX, connect).await)?;
                let stream = stream.ok_or_else(|| OciError::PlainHttp { host: cut(&host) })?;
                self.over(stream, asked, uri, request).await
            }
        }
    }

    fn connected<S>(&self, result: Result<std::io::Result<S>, tokio::time::error::Elapsed>) -> Result<S, OciError> {
        match result {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.unreachable(told(&error))),
            Err(_) => Err(self.unreachable(format!("no connection within {CONNECT_TIME_MAX:?}"))),
        }
    }

    fn request(&self, asked: &Asked, uri: &Uri, authorization: Option<&str>) -> Result<Request<Full<Bytes>>, OciError> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::builder()
            .method(asked.method.clone())
            .uri(path)
            .header(HOST, authority)
            .header(USER_AGENT, concat!("myelin/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &asked.headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = authorization {
            let mut value = HeaderValue::try_from(authorization)
                .map_err(|_| OciError::credentials("they cannot stand in a header"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let refuse = |error: hyper::http::Error| self.unreachable(error.to_string());
        request.body(Full::new(asked.body.clone())).map_err(refuse)
    }

    async fn over<S>(
        &self,
        stream: S,
        asked: &Asked,
        uri: &Uri,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, OciError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| self.unreachable(error.to_string());
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with this call, whatever becomes of it.
        let _connection = JoinSet::from_iter([connection]);
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        // An error's text is not what was asked for, and has a bound of its own.
        let max = if head.status == StatusCode::OK { asked.max } else { (ANSWER_BYTES_MAX, "the answer") };
        let body = self.read(body, max).await?;
        Ok(Answer { uri: uri.clone(), status: head.status, headers: head.headers, body })
    }

    /// Reads a body piece by piece, so that no more is ever held than may come, whatever it says of itself.
    async fn read(&self, mut body: Incoming, (max, what): (u64, &'static str)) -> Result<Vec<u8>, OciError> {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.unreachable(format!("its answer broke off: {error}")))?;
            let Ok(piece) = frame.into_data() else { continue };
            let len = bytes.len() as u64 + piece.len() as u64;
            if len > max {
                return Err(OciError::TooLarge { what, bytes: len, max });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn unreachable(&self, why: String) -> OciError {
        OciError::Unreachable { registry: self.registry.to_string(), why }
    }
}

/// Why there is no connection, with what to do where the two only misunderstand each other.
fn told(error: &std::io::Error) -> String {
    let step = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            "; its certificate is of no authority that is trusted here: name that with --registry-ca FILE, not the \
             registry's own certificate"
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "; it does not speak TLS: a registry on this machine may be spoken to with --plain-http"
        }
        _ => "",
    };
    format!("{error}{step}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{CertificateError, Error, InvalidMessage};

    #[test]
    fn who_misunderstands_the_registry_is_told_what_to_give() {
        for (error, step) in [
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "--registry-ca"),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "--plain-http"),
        ] {
            let told = told(&std::io::Error::other(error));
            assert!(told.contains(step), "{told}");
        }
        assert!(!told(&std::io::ErrorKind::ConnectionRefused.into()).contains("--"));
    }
}
