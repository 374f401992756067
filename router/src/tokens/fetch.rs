//! A key set over HTTP: one connection, one bounded answer, no redirects.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{ACCEPT, HOST, HeaderValue, USER_AGENT};
use hyper::http::uri::Scheme;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use myelin_token::KEYS_BYTES_MAX;
use myelin_transport::crypto_provider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where a key set is.
pub(super) struct Fetcher {
    url: Uri,
    host: String,
    port: u16,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Fetcher {
    /// The key set at `url`, whose server has a certificate of one of the authorities in `ca`, or of the system's.
    pub(super) fn new(url: &str, ca: Option<&Path>) -> anyhow::Result<Self> {
        let url: Uri = url.parse().with_context(|| format!("jwks_url `{url}`"))?;
        let is_secure = url.scheme() == Some(&Scheme::HTTPS);
        let host = url.host().context("jwks_url names no host")?.trim_matches(['[', ']']).to_owned();
        let port = url.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let tls = is_secure.then(|| tls(ca)).transpose()?.map(Arc::new);
        Ok(Self { url, host, port, tls })
    }

    /// Its text.
    pub(super) async fn fetch(&self) -> anyhow::Result<Bytes> {
        let stream = TcpStream::connect((&*self.host, self.port)).await.with_context(|| format!("{}", self.url))?;
        let answer = match &self.tls {
            None => self.exchange(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).context("the host")?;
                let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.context("TLS");
                self.exchange(stream.with_context(|| format!("{}", self.url))?).await
            }
        };
        answer.with_context(|| format!("{}", self.url))
    }

    async fn exchange(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<Bytes> {
        let authority = self.url.authority().context("no host")?;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(HOST, HeaderValue::from_str(authority.as_str())?)
            .header(ACCEPT, "application/json, application/jwk-set+json")
            .header(USER_AGENT, concat!("myelin/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut connection = tokio::task::JoinSet::from_iter([connection]);
        let response = sender.send_request(request).await?;
        // Whoever answers with another place could be anywhere.
        ensure!(response.status() == StatusCode::OK, "it answers {}", response.status());
        let body = Limited::new(response.into_body(), KEYS_BYTES_MAX).collect().await;
        connection.abort_all();
        let body =
            body.map_err(|error| anyhow::anyhow!("reading its answer of at most {KEYS_BYTES_MAX} bytes: {error}"))?;
        Ok(body.to_bytes())
    }
}

fn tls(ca: Option<&Path>) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    match ca {
        Some(ca) => {
            let read = CertificateDer::pem_file_iter(ca).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            for certificate in read.with_context(|| format!("ca: {}", ca.display()))? {
                roots.add(certificate).with_context(|| format!("ca: {}", ca.display()))?;
            }
        }
        // Some of a system's certificates may be none: the rest is good.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    ensure!(!roots.is_empty(), "ca: no authority is trusted; name those of the issuer's server in `ca`");
    let builder = rustls::ClientConfig::builder_with_provider(crypto_provider());
    Ok(builder.with_protocol_versions(&[&rustls::version::TLS13])?.with_root_certificates(roots).with_no_client_auth())
}
