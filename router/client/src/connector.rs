//! Where connections come from.

use std::future::Future;
use std::pin::Pin;

use myelin_transport::{ALPN_CLIENT, Connection, DialConfig, DialError, Dialer, Refusal, TlsIdentity, TlsReloader};

use crate::config::ClientConfig;
use crate::error::ClientError;

/// A future behind a pointer, so that [`Connector`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Addresses of one host that are tried, at most.
const RESOLVED_MAX: usize = 8;

/// Makes connections to routers: [`QuicConnector`] over the network, a test's own in memory.
pub trait Connector: Send + Sync + 'static {
    /// How many routers there are to choose from; at least 1.
    fn routers(&self) -> usize;

    /// A connection to the router number `index` (below [`routers`](Self::routers)), both sides authenticated.
    fn connect(&self, index: usize) -> BoxFuture<'_, Result<Connection, ClientError>>;

    /// Waits until the peers of all closed connections were told. Called once, before a client's end.
    fn wait_idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Dials routers over QUIC.
pub struct QuicConnector {
    dialer: Dialer,
    addrs: Vec<String>,
    server_name: Option<String>,
    tls: TlsIdentity,
    /// Follows the files of the certificate where there are any.
    files: Option<TlsReloader>,
}

impl QuicConnector {
    /// A connector with the certificate files that `config.tls` names. Each connection is made with what they hold then.
    ///
    /// # Errors
    /// When there are none, one cannot be used, or a setting is out of range.
    pub fn new(config: &ClientConfig) -> Result<Self, ClientError> {
        let tls = match (&config.tls, &config.ca) {
            (Some(files), _) => {
                let files = TlsReloader::open(files.clone())?;
                let connector = Self::with_identity(config, files.tls())?;
                return Ok(Self { files: Some(files), ..connector });
            }
            (None, Some(ca)) if config.token_file.is_some() => TlsIdentity::trusting(ca)?,
            _ => {
                let problem =
                    "tls is not set; give the files of a certificate, its key and the CA, or ca and token_file";
                return Err(ClientError::Config(problem.to_owned()));
            }
        };
        Self::with_identity(config, tls)
    }

    /// A connector with a certificate that is loaded already; reloads of it are followed.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn with_identity(config: &ClientConfig, tls: TlsIdentity) -> Result<Self, ClientError> {
        config.validate()?;
        let invalid = |errors: Vec<myelin_transport::ConfigError>| {
            ClientError::Config(errors.iter().map(|error| format!("quic.{error}")).collect::<Vec<_>>().join("; "))
        };
        let dialer = Dialer::new(config.quic.clone()).map_err(invalid)?;
        let (addrs, server_name) = (config.addrs.clone(), config.server_name.clone());
        Ok(Self { dialer, addrs, server_name, tls, files: None })
    }

    /// Tries all addresses of one router.
    async fn dial(&self, index: usize) -> Result<Connection, ClientError> {
        let text = &self.addrs[index % self.addrs.len()];
        if let Some(files) = &self.files {
            files.check();
        }
        let unresolved = |problem: String| ClientError::Resolve { addr: text.clone(), problem };
        let resolved = tokio::net::lookup_host(text.as_str()).await.map_err(|error| unresolved(error.to_string()))?;
        let mut failed = unresolved("the host has no address".to_owned());
        for addr in resolved.take(RESOLVED_MAX) {
            let server_name = self.server_name.clone().unwrap_or_else(|| host_of(text).to_owned());
            let config = DialConfig { addr, server_name, alpn: ALPN_CLIENT.to_owned(), tls: self.tls.clone() };
            match self.dialer.connect(&config).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = error.into(),
            }
        }
        Err(self.blame(failed))
    }

    /// Why a router does not take the certificate that is in use: perhaps there is another one that cannot be used.
    fn blame(&self, failed: ClientError) -> ClientError {
        let ClientError::Dial(DialError::Refused { refusal: Refusal::Expired | Refusal::OutsideValidity }) = &failed
        else {
            return failed;
        };
        let renewed = self.files.as_ref().and_then(|files| files.stats().last_error);
        renewed.map_or(failed, ClientError::Tls)
    }
}

impl Connector for QuicConnector {
    fn routers(&self) -> usize {
        self.addrs.len()
    }

    fn connect(&self, index: usize) -> BoxFuture<'_, Result<Connection, ClientError>> {
        Box::pin(self.dial(index))
    }

    fn wait_idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.dialer.wait_idle())
    }
}

/// The host of `host:port` or `[v6]:port`.
fn host_of(addr: &str) -> &str {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn the_host_is_what_stands_before_the_port() {
        let hosts = ["localhost:7400", "10.0.0.1:1", "[::1]:7400", "edge.example"].map(host_of);
        assert_eq!(hosts, ["localhost", "10.0.0.1", "::1", "edge.example"]);
    }
}
