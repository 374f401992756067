//! How the commands of the data plane reach a router, and what an event on the command line is made of.

use super::admin::Admin;
use super::development;
use super::failure::{Exit, Failure, Result, exit_for_refusal, step_for_refusal};
use super::serve::Ready;
use super::values::{duration, pair};
use anyhow::Context;
use clap::Args;
use hyper::Uri;
use myelin_client::{Client, ClientConfig, ClientError, Event, TlsFiles};
use myelin_transport::{ALPN_CLIENT, DialConfig, DialError, TlsIdentity};
use std::io::{IsTerminal, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Threads of a client's connection, beside the one that runs the command.
const CLIENT_THREADS: usize = 1;
/// Where clients connect when nothing else is known.
const DEFAULT_ADDR: &str = "localhost:7400";
/// Bytes of a token's file that are read: more than the longest token that a router takes.
const TOKEN_FILE_BYTES_MAX: u64 = 16 * 1024;
/// Largest payload that is read from a file or stdin, in bytes: the most that any router takes.
pub(super) const PAYLOAD_BYTES_MAX: u64 = myelin_wire::limits::PAYLOAD_BYTES_CEILING as u64;

/// Which router, and as whom. By default the router that `myelin serve --dev` runs in this folder.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connect {
    /// Routers as HOST:PORT, tried in order [default: the --dev router here, else localhost:7400]
    #[arg(long, value_name = "HOST:PORT", env = "MYELIN_ADDR", value_delimiter = ',')]
    addr: Vec<String>,
    /// This client's certificate (PEM)
    #[arg(long, value_name = "FILE", env = "MYELIN_CERT", requires_all = ["key", "ca"])]
    cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", env = "MYELIN_KEY", requires = "cert")]
    key: Option<PathBuf>,
    /// The authorities whose routers are trusted (PEM)
    #[arg(long, value_name = "FILE", env = "MYELIN_CA")]
    ca: Option<PathBuf>,
    /// File with a JSON Web Token that says who this client is, in place of a certificate
    #[arg(long, value_name = "FILE", env = "MYELIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The name in the router's certificate, where it is not the host of --addr
    #[arg(long, value_name = "NAME", env = "MYELIN_SERVER_NAME")]
    server_name: Option<String>,
    /// Data directory of the --dev router whose certificates are used where none are given
    #[arg(long, value_name = "DIR", env = "MYELIN_NODE__DATA_DIR", default_value = ".myelin")]
    data_dir: PathBuf,
}

impl Connect {
    /// The admin API, asked as the same client.
    pub(super) fn admin(&self, admin: Option<Uri>, token: Option<String>, timeout: Duration) -> Admin {
        let files = (self.cert.clone(), self.key.clone(), self.ca.clone());
        Admin::of((admin, token, self.token_file.clone()), files, timeout, self.data_dir.clone())
    }

    /// Connects, with settings that `tune` has changed.
    pub(super) async fn client(&self, tune: impl FnOnce(ClientConfig) -> ClientConfig) -> Result<Client> {
        let (tls, ca) = match self.token_trust()? {
            Some(ca) => (None, Some(ca)),
            None => (Some(self.files()?), None),
        };
        let (addrs, token_file) = (self.addrs(), self.token_file.clone());
        let config = ClientConfig { addrs, tls, ca, token_file, ..ClientConfig::default() }
            .with_name(concat!("myelin-cli/", env!("CARGO_PKG_VERSION")));
        let config = ClientConfig { server_name: self.server_name.clone(), ..config };
        let addrs = config.addrs.join(", ");
        Client::connect(tune(config)).await.map_err(|error| Failure::from(error).doing(addrs))
    }

    /// How the first router is dialled, for a command that brings its own connections.
    pub(super) fn dial(&self) -> Result<DialConfig> {
        let text = self.addrs().swap_remove(0);
        let unknown = |problem: String| Failure::new(Exit::Usage, format!("{text}: {problem}"));
        let addr = text.to_socket_addrs().map_err(|error| unknown(error.to_string()))?.next();
        let addr = addr.ok_or_else(|| unknown("the host has no address".to_owned()))?;
        let host = text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let server_name = self.server_name.clone().unwrap_or_else(|| host.to_owned());
        let tls = match self.token_trust()? {
            Some(ca) => TlsIdentity::trusting(&ca),
            None => TlsIdentity::load(&self.files()?),
        };
        let tls = tls.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        Ok(DialConfig { addr, server_name, alpn: ALPN_CLIENT.to_owned(), tls })
    }

    /// The token that says who this is; none where it shows a certificate.
    pub(super) fn token(&self) -> Result<Option<String>> {
        self.token_file.as_deref().filter(|_| self.cert.is_none()).map(read_token).transpose()
    }

    /// Whom a client trusts that shows a token; none where it shows a certificate.
    fn token_trust(&self) -> Result<Option<PathBuf>> {
        if self.token_file.is_none() || self.cert.is_some() {
            return Ok(None);
        }
        let ca = self.ca.clone().unwrap_or_else(|| development::client_files(&self.data_dir).ca);
        if ca.exists() {
            return Ok(Some(ca));
        }
        Err(Failure::new(
            Exit::Usage,
            format!("there is no file {}: a token needs a router that is trusted", ca.display()),
        )
        .next("give --ca FILE: the authorities whose routers are trusted"))
    }

    /// The process of the router, where it is the --dev router of this folder.
    pub(super) fn server_pid(&self) -> Option<u32> {
        running(&self.data_dir).filter(|_| self.addr.is_empty()).map(|ready| ready.pid)
    }

    /// The routers that are tried, in order.
    pub(super) fn addrs(&self) -> Vec<String> {
        if !self.addr.is_empty() {
            return self.addr.clone();
        }
        let ready = running(&self.data_dir);
        vec![ready.map_or_else(|| DEFAULT_ADDR.to_owned(), |ready| dialable(ready.client_addr).to_string())]
    }

    fn files(&self) -> Result<TlsFiles> {
        if let Self { cert: Some(cert), key: Some(key), ca: Some(ca), .. } = self.clone() {
            return Ok(TlsFiles { cert, key, ca });
        }
        let files = development::client_files(&self.data_dir);
        if files.cert.exists() {
            return Ok(files);
        }
        let folder = development::folder(&self.data_dir);
        Err(Failure::new(
            Exit::Usage,
            format!("no certificate is given, and {} holds none of a development router", folder.display()),
        )
        .next("start one here with `myelin serve --dev`, or give --cert, --key and --ca"))
    }
}

/// The token in `file`.
pub(super) fn read_token(file: &Path) -> Result<String> {
    let told = |problem: String| Failure::new(Exit::Usage, format!("--token-file {}: {problem}", file.display()));
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| told(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(told("it holds no token on its one line".to_owned()));
    }
    Ok(token.to_owned())
}

/// What the development router with this data directory said when it began to serve.
pub(super) fn running(data_dir: &Path) -> Option<Ready> {
    let text = std::fs::read_to_string(development::ready_file(data_dir)).ok()?;
    let ready: Ready = serde_json::from_str(&text).ok()?;
    // A killed router leaves its file behind. Where there is no /proc, it is believed.
    let is_gone = Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{}", ready.pid)).exists();
    (!is_gone).then_some(ready)
}

/// An address that listens everywhere is reached on loopback.
pub(super) fn dialable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        _ => addr,
    }
}

/// Runs a command of the data plane.
pub(super) fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CLIENT_THREADS)
        .thread_name("client")
        .enable_all()
        .build()
        .context("the client's runtime")?;
    runtime.block_on(command)
}

/// The attributes of an event.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Event")]
pub(super) struct Attributes {
    /// A header; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// The key: events of one publisher with the same key stay in order
    #[arg(short = 'k', value_name = "KEY")]
    event_key: Option<String>,
    /// CloudEvents source, instead of the publisher's identity
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// The schema of the payload: SUBJECT, SUBJECT:VERSION, or an id
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    /// CloudEvents type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Media type of the payload, such as application/json
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// The event's id, instead of a derived one
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// How long the event is of use, such as 5s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
}

impl Attributes {
    /// The event with these attributes.
    pub(super) fn event<'a>(&self, topic: &'a str, payload: &'a [u8]) -> Event<'a> {
        let mut event = Event::new(topic, payload);
        for (name, value) in &self.headers {
            event = event.header(name, value);
        }
        if let Some(key) = &self.event_key {
            event = event.key(key);
        }
        if let Some(source) = &self.source {
            event = event.source(source);
        }
        if let Some(schema) = &self.schema {
            event = event.schema(schema);
        }
        if let Some(event_type) = &self.event_type {
            event = event.event_type(event_type);
        }
        if let Some(content_type) = &self.content_type {
            event = event.content_type(content_type);
        }
        if let Some(id) = &self.id {
            event = event.id(id);
        }
        match self.ttl {
            Some(ttl) => event.ttl(ttl),
            None => event,
        }
    }
}

/// Where a payload comes from: `-m`, `-f`, else stdin when it is no terminal.
pub(super) fn payload(message: Option<&str>, file: Option<&Path>) -> Result<Vec<u8>> {
    if let Some(text) = message {
        return Ok(text.as_bytes().to_vec());
    }
    let (mut from, name): (Box<dyn Read>, String) = match file {
        Some(path) if path != Path::new("-") => {
            let told = |error| Failure::new(Exit::Usage, format!("{}: {error}", path.display()));
            (Box::new(std::fs::File::open(path).map_err(told)?), path.display().to_string())
        }
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::new(Exit::Usage, "there is no payload")
                .next("give -m TEXT, -f FILE, or pipe it in: echo hi | myelin pub TOPIC"));
        }
        _ => (Box::new(std::io::stdin()), "stdin".to_owned()),
    };
    let mut payload = Vec::new();
    let mut limited = from.by_ref().take(PAYLOAD_BYTES_MAX + 1);
    limited.read_to_end(&mut payload).with_context(|| format!("reading {name}"))?;
    if payload.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(Failure::new(Exit::Usage, format!("{name} has more than {PAYLOAD_BYTES_MAX} bytes"))
            .next("a payload is at most 16 MiB; send it in parts"));
    }
    Ok(payload)
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let is_unanswered =
            matches!(error, ClientError::Dial(DialError::Timeout { .. }) | ClientError::HandshakeTimeout { .. });
        let exit = match &error {
            ClientError::Config(_) | ClientError::Tls(_) | ClientError::Invalid(_) | ClientError::Resolve { .. } => {
                Exit::Usage
            }
            ClientError::Dial(DialError::Refused { .. } | DialError::Untrusted { .. }) => Exit::Denied,
            _ if is_unanswered => Exit::NotFound,
            ClientError::Refused(refusal) | ClientError::Closed(refusal) => exit_for_refusal(refusal.code),
            _ => Exit::Failed,
        };
        let failure = Self { is_unanswered, ..Self::new(exit, error.to_string()) };
        match &error {
            ClientError::Dial(DialError::Timeout { .. }) => {
                failure.next("start a router with `myelin serve --dev`, or look with `myelin doctor`")
            }
            ClientError::Dial(DialError::Refused { .. } | DialError::Untrusted { .. }) => {
                failure.next("check --cert, --key and --ca; `myelin cert issue` makes certificates")
            }
            ClientError::Refused(refusal) | ClientError::Closed(refusal) => {
                failure.next(step_for_refusal(refusal.code, "ACTION TOPIC")).coded(refusal.code.name())
            }
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_client::{Code, Refusal};

    #[test]
    fn errors_of_the_client_have_exit_codes() {
        let exit = |error: ClientError| Failure::from(error).exit;
        assert_eq!(exit(ClientError::Config(String::new())), Exit::Usage);
        assert_eq!(exit(ClientError::Refused(Refusal::new(Code::Denied, "no"))), Exit::Denied);
        assert_eq!(exit(ClientError::Refused(Refusal::new(Code::InvalidPattern, "no"))), Exit::Usage);
        assert_eq!(exit(ClientError::ClientClosed), Exit::Failed);
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(exit(ClientError::Dial(DialError::Timeout { addr, waited_ms: 5_000 })), Exit::NotFound);
        assert_eq!(exit(ClientError::HandshakeTimeout { waited_ms: 5_000 }), Exit::NotFound);
        assert!(!Failure::from(ClientError::HandshakeTimeout { waited_ms: 5_000 }).is_absence(), "nobody has answered");
    }

    #[test]
    fn an_address_that_listens_everywhere_is_reached_on_loopback() {
        let dialled = |text: &str| text.parse().map(|addr| dialable(addr).to_string());
        assert_eq!(dialled("0.0.0.0:7400"), Ok("127.0.0.1:7400".to_owned()));
        assert_eq!(dialled("[::]:7400"), Ok("127.0.0.1:7400".to_owned()));
        assert_eq!(dialled("10.0.0.7:1"), Ok("10.0.0.7:1".to_owned()));
    }
}
