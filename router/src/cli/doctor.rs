//! `myelin doctor`: what is missing on this machine, and the step that mends it.

mod finding;

use super::admin::development_server;
use super::build::wasm_toolchain;
use super::connect::{block_on, dialable, running};
use super::development;
use super::failure::{Exit, Failure, Result};
use super::http::{Body, Line, Server};
use super::listing::Shape;
use super::secrets::{self, Exposed};
use super::serve::{self, config_file, tls_files};
use super::values::say;
use crate::config::{Config, Sources};
use anyhow::Context;
use clap::Args;
use finding::{Finding, Level};
use hyper::Method;
use hyper::body::Bytes;
use myelin_engine::{Runtime, RuntimeConfig};
use myelin_transport::{Identity, QuicConfig, TlsFiles, TlsIdentity};
use rustix::process::{Resource, getrlimit};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Certificates that end sooner are worth a warning, in days.
const EXPIRES_SOON_DAYS: i64 = 30;
/// Open files that a router may need: 256 connections of the admin API, the catalog, the sockets of its workers, the
/// pipes of compilers, and some. Clients need none: they share the workers' UDP sockets.
const OPEN_FILES_WANTED: u64 = 1_024;
/// How long a router may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

const AFTER_HELP: &str = "\
Examples:
  myelin doctor
  myelin doctor -c myelin.toml --cert ops.pem --key ops-key.pem
  myelin doctor -o json | jq '.findings[] | select(.level != \"ok\")'

Looks at: the configuration, the data directory, certificates, ports or the running router and its version, UDP buffers,
open files, room for the Wasm engine, and the toolchain for filters. Each finding names the step that mends it. Exit code
1 when something is missing that a router needs.";

/// Look whether this machine has what is needed
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Doctor {
    /// Configuration file; ./myelin.toml where there is one
    #[arg(short, long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    asker: Asker,
}

/// As whom a router is asked that is no --dev router
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Admin API")]
struct Asker {
    /// Bearer token [default: what [admin] token_file holds]; others see arguments: rather give it in the environment
    #[arg(long, env = "MYELIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Client certificate for HTTPS (PEM)
    #[arg(long, value_name = "FILE", env = "MYELIN_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", env = "MYELIN_KEY", requires = "cert")]
    key: Option<PathBuf>,
}

impl Doctor {
    pub(super) fn run(self) -> Result<()> {
        let file = config_file(self.config);
        let (config, finding) = configuration(file.as_deref());
        let mut findings = vec![finding, data_dir(&config.node.data_dir)];
        findings.extend(certificates(&config));
        findings.extend(secrets::exposed(&config).iter().map(open_secret));
        findings.extend(block_on(async { Ok(router(&config, &self.asker).await) })?);
        findings.extend([udp_buffers(), open_files(), engine(&config), toolchain()]);
        match self.shape.is_json() {
            true => say!("{}", finding::for_programs(&findings)),
            false => findings.iter().for_each(finding::show),
        }
        match findings.iter().filter(|finding| finding.level == Level::Missing).count() {
            0 => Ok(()),
            1 => Err(Failure::new(Exit::Failed, "one thing is missing; the step stands beside it")),
            count => {
                Err(Failure::new(Exit::Failed, format!("{count} things are missing; the steps stand beside them")))
            }
        }
    }
}

/// The configuration, or the default where it is faulty: the other looks go on with that.
fn configuration(file: Option<&Path>) -> (Config, Finding) {
    const WHAT: &str = "configuration";
    match Sources::of_process(file, Vec::new()).and_then(|sources| Config::load(&sources)) {
        Ok(config) => {
            let from = file.map_or_else(|| "defaults".to_owned(), |file| file.display().to_string());
            (config, Finding::good(WHAT, from))
        }
        Err(errors) => {
            let first = errors.0.first().map(ToString::to_string).unwrap_or_default();
            let found = format!("{} faults; the first: {first}", errors.0.len());
            (Config::default(), Finding::missing(WHAT, found, "see all with `myelin config check`"))
        }
    }
}

fn data_dir(folder: &Path) -> Finding {
    const WHAT: &str = "data directory";
    // What is not there yet is made at the start, below the nearest folder that is.
    let existing = folder.ancestors().find(|folder| folder.exists() && !folder.as_os_str().is_empty());
    let existing = existing.unwrap_or(Path::new("."));
    let probe = existing.join(format!(".myelin-doctor-{}", std::process::id()));
    let written = std::fs::write(&probe, b"probe");
    let _ = std::fs::remove_file(&probe);
    match written {
        Ok(()) if existing == folder => Finding::good(WHAT, folder.display().to_string()),
        Ok(()) => Finding::good(WHAT, format!("{}, made at the first start", folder.display())),
        Err(error) => {
            let step = format!("let this user write there, or set [node] data_dir: {}", existing.display());
            Finding::missing(WHAT, format!("{}: {error}", folder.display()), step)
        }
    }
}

fn certificates(config: &Config) -> Vec<Finding> {
    if let Some(files) = tls_files(config) {
        return vec![router_certificate(&files)];
    }
    let data_dir = &config.node.data_dir;
    if !development::folder(data_dir).exists() {
        let step = "`myelin serve --dev` makes its own; `myelin cert ca` and `myelin cert issue` make real ones";
        return vec![Finding::warning("certificate", "none in [tls], none of --dev", step)];
    }
    let router = development::router_files(data_dir);
    vec![certificate("--dev router", &router), certificate("--dev client", &development::client_files(data_dir))]
}

/// A certificate that a router is to serve with.
fn router_certificate(files: &TlsFiles) -> Finding {
    const WHAT: &str = "certificate";
    match serve::router_identity(files) {
        Err(failure) if TlsIdentity::load(files).is_ok() => {
            Finding::missing(WHAT, failure.what, failure.next.unwrap_or_default())
        }
        _ => certificate(WHAT, files),
    }
}

fn open_secret(exposed: &Exposed) -> Finding {
    Finding::warning("secrets", exposed.to_string(), exposed.step())
}

fn certificate(what: &'static str, files: &TlsFiles) -> Finding {
    match TlsIdentity::load(files) {
        Err(error) => Finding::missing(what, format!("{}: {}", error.file.display(), error.problem), error.remedy),
        Ok(tls) => {
            let now_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let left_s = tls.not_after_unix_s().saturating_sub(i64::try_from(now_unix_s).unwrap_or(i64::MAX));
            let days = left_s / 86_400;
            let found = format!("{}, good for {days} days", tls.identity());
            if days < EXPIRES_SOON_DAYS {
                Finding::warning(
                    what,
                    found,
                    "issue a new one with `myelin cert issue`; routers take it up by themselves",
                )
            } else {
                Finding::good(what, found)
            }
        }
    }
}

/// The running router, or whether one could start.
async fn router(config: &Config, asker: &Asker) -> Vec<Finding> {
    const WHAT: &str = "router";
    let ready = running(&config.node.data_dir);
    let (client, admin) =
        ready.as_ref().map_or((config.listen.client, config.listen.admin), |it| (it.client_addr, it.admin_addr));
    let server = match &ready {
        Some(ready) => development_server(ready, &config.node.data_dir, ANSWER_TIMEOUT),
        None => configured_server(config, asker),
    };
    let ask = async |path| {
        let server = server.as_ref().map_err(Clone::clone)?;
        Ok(server.call(Method::GET, path, None, Body::None).await?.body)
    };
    match ask("/readyz").await {
        Ok(_) => {
            let serves = Finding::good(WHAT, format!("serves on {client}, admin API on {admin}, ready"));
            return match ask("/v1/status").await {
                // It does not talk to everybody: as it should.
                Err(failure) if is_refusal(&failure) => {
                    let told = "it tells no stranger its version; ask with --token, or --cert and --key";
                    vec![serves, Finding::good("version", told.to_owned())]
                }
                status => vec![serves, version(status)],
            };
        }
        Err(failure) if is_refusal(&failure) => {
            // It serves, and does not talk to everybody: as it should.
            let found =
                format!("admin API on {admin}, which tells no stranger more; ask with --token, or --cert and --key");
            return vec![Finding::good(WHAT, found)];
        }
        Err(failure) if is_taken(admin) => {
            let step = "`myelin rollout status` and the router's log say more; another program may have the port";
            return vec![Finding::warning(WHAT, format!("something listens on {admin}: {}", failure.what), step)];
        }
        Err(_) => {}
    }
    let mut findings = vec![Finding::good(WHAT, "none runs here; `myelin serve --dev` starts one")];
    let listen = &config.listen;
    findings.push(match UdpSocket::bind(listen.client) {
        Ok(_) => Finding::good("client port", format!("UDP {} is free", listen.client)),
        Err(error) => Finding::missing("client port", format!("UDP {}: {error}", listen.client), "set [listen] client"),
    });
    findings
}

/// Whether the router is of this program's version.
fn version(status: Result<Bytes>) -> Finding {
    const WHAT: &str = "version";
    let own = env!("CARGO_PKG_VERSION");
    let said = status.map(|answer| serde_json::from_slice::<Value>(&answer).unwrap_or_default());
    match said.as_ref().map(|status| status["version"].as_str()) {
        Ok(Some(version)) if version == own => Finding::good(WHAT, format!("{own}, the router's and this one")),
        Ok(Some(version)) => {
            let found = format!("the router is {version}, this command line is {own}");
            Finding::warning(WHAT, found, "use the `myelin` that the router runs, or update the router")
        }
        Ok(None) => Finding::warning(WHAT, "what answers tells no version", "see whether another program has the port"),
        Err(failure) => {
            let found = format!("the router does not tell it: {}", failure.what);
            Finding::warning(WHAT, found, "ask as somebody whom it knows: `myelin ledger --token ..` or with --cert")
        }
    }
}

/// Whether a router has said, in its own words, that it does not know who asks.
fn is_refusal(failure: &Failure) -> bool {
    failure.exit == Exit::Denied && ["(unauthorized)", "(forbidden)"].iter().any(|code| failure.what.ends_with(code))
}

/// The admin API as it is configured: HTTP on loopback with a token and nobody who is known by a certificate, HTTPS
/// otherwise.
fn configured_server(config: &Config, asker: &Asker) -> Result<Server> {
    let admin = config.listen.admin;
    let is_plain = admin.ip().is_loopback() && config.admin.token_file.is_some() && !config.admin.knows_certificates();
    let tls = tls_files(config).filter(|_| !is_plain);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", dialable(admin)).parse().context("[listen] admin")?;
    // Whoever may not read the token may ask without: the answer tells them apart.
    let kept = || Some(std::fs::read_to_string(config.admin.token_file.as_ref()?).ok()?.trim().to_owned());
    let token = asker.token.clone().or_else(kept);
    let client = asker.cert.clone().zip(asker.key.clone());
    let server_name = tls.as_ref().and_then(|files| certified(&files.cert, admin.ip()));
    Ok(Server {
        url,
        token,
        client,
        ca: tls.map(|files| files.ca),
        server_name,
        timeout: ANSWER_TIMEOUT,
        line: Line::default(),
    })
}

/// A name that the router's certificate carries, where the address that it listens on is none of them: it is looked for
/// on its own machine, where no name leads elsewhere.
fn certified(cert: &Path, listens_on: IpAddr) -> Option<String> {
    let der = CertificateDer::from_pem_file(cert).ok()?;
    let hosts = Identity::hosts_of_certificate(&der);
    let asked = dialable(SocketAddr::new(listens_on, 0)).ip().to_string();
    if hosts.contains(&asked) {
        return None;
    }
    let local = hosts.iter().find(|host| *host == "localhost");
    local.or_else(|| hosts.iter().find(|host| !host.starts_with('*'))).cloned()
}

fn is_taken(addr: SocketAddr) -> bool {
    TcpListener::bind(addr).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

fn udp_buffers() -> Finding {
    const WHAT: &str = "UDP buffers";
    let wanted = usize::try_from(QuicConfig::default().socket_buffer_bytes).unwrap_or(usize::MAX);
    let most = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?;
        text.trim().parse::<usize>().ok()
    };
    let (Some(receive), Some(send)) = (most("rmem_max"), most("wmem_max")) else {
        return Finding::warning(
            WHAT,
            "the kernel does not say how large they may be",
            "nothing, unless packets get lost",
        );
    };
    let least = receive.min(send);
    if least >= wanted {
        return Finding::good(WHAT, format!("{} KiB allowed, {} KiB wanted", least / 1024, wanted / 1024));
    }
    let found = format!("{} KiB allowed, {} KiB wanted: bursts may get lost", least / 1024, wanted / 1024);
    Finding::warning(WHAT, found, format!("sudo sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}"))
}

fn open_files() -> Finding {
    const WHAT: &str = "open files";
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < OPEN_FILES_WANTED => {
            let found = format!("{limit} allowed, {OPEN_FILES_WANTED} wanted");
            Finding::warning(WHAT, found, format!("ulimit -n {OPEN_FILES_WANTED}, or LimitNOFILE= in a systemd unit"))
        }
        Some(limit) => Finding::good(WHAT, format!("{limit} allowed, {OPEN_FILES_WANTED} wanted")),
        None => Finding::good(WHAT, "no limit"),
    }
}

/// Whether there is address space for all filter instances.
fn engine(config: &Config) -> Finding {
    const WHAT: &str = "Wasm engine";
    let (slots, memory_bytes_max) = (config.wasm.instances, config.wasm.memory_bytes);
    match Runtime::new(&RuntimeConfig { slots, memory_bytes_max, ..RuntimeConfig::default() }) {
        Ok(_) => Finding::good(WHAT, format!("room for {slots} filter instances")),
        Err(error) => {
            let step = "set [wasm] instances lower, or lift the limit of address space: ulimit -v unlimited";
            Finding::missing(WHAT, format!("no room for {slots} filter instances: {error}"), step)
        }
    }
}

fn toolchain() -> Finding {
    match wasm_toolchain() {
        Ok(_) => Finding::good("toolchain", "builds filters"),
        Err(step) => Finding::warning("toolchain", format!("{}; only filter authors need it", step.what), step.run),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn a_folder_that_is_still_to_be_made_is_good_and_a_file_in_its_place_is_not() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(data_dir(&folder.path().join("a/b")).level, Level::Good);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the probe is gone");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let finding = data_dir(&file.join("data"));
        assert!(finding.level == Level::Missing && finding.step.is_some(), "{finding:?}");
    }

    /// Answers each call with the next of `answers`; gives the heads of the requests.
    fn admin_api(answers: Vec<(&'static str, &'static str)>) -> (SocketAddr, std::thread::JoinHandle<Vec<String>>) {
        use std::io::{Read, Write};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let answer_all = move || {
            let answered = answers.into_iter().map(|(status, body)| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).unwrap();
                write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
                String::from_utf8_lossy(&head[..read]).to_lowercase()
            });
            answered.collect()
        };
        (addr, std::thread::spawn(answer_all))
    }

    fn looks_at(addr: SocketAddr, token_file: Option<PathBuf>, data_dir: &Path) -> Vec<Finding> {
        let mut config = Config::default();
        (config.listen.admin, config.admin.token_file) = (addr, token_file);
        config.node.data_dir = data_dir.into();
        block_on(async { Ok(router(&config, &Asker::default()).await) }).unwrap()
    }

    #[test]
    fn a_router_that_tells_strangers_nothing_is_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        for (status, code) in [("401 Unauthorized", "unauthorized"), ("403 Forbidden", "forbidden")] {
            let body = format!("{{\"title\":\"no\",\"detail\":\"who asks?\",\"code\":\"{code}\"}}").leak();
            let (addr, api) = admin_api(vec![(status, body)]);
            let findings = looks_at(addr, None, folder.path());
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert!(findings[0].level == Level::Good && findings[0].found.contains("--cert"), "{findings:?}");
            assert!(!api.join().unwrap()[0].contains("authorization"));
        }
        // The status alone may be anybody's. The port is free again when it is looked at.
        let (addr, api) = admin_api(vec![("401 Unauthorized", "who are you?")]);
        let findings = looks_at(addr, None, folder.path());
        assert!(!findings[0].found.contains("--cert"), "{findings:?}");
        api.join().unwrap();
    }

    #[test]
    fn the_configured_token_is_used_and_a_certificate_goes_along() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let own = format!("{{\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION")).leak();
        let (addr, api) = admin_api(vec![("200 OK", "{}"), ("200 OK", own)]);
        let findings = looks_at(addr, Some(file), folder.path());
        assert!(findings.len() == 2 && findings.iter().all(|finding| finding.level == Level::Good), "{findings:?}");
        let requests = api.join().unwrap();
        assert!(requests.iter().all(|head| head.contains("authorization: bearer 0123456789abcdef")), "{requests:?}");

        let mut config = Config::default();
        let file = |name: &str| Some(PathBuf::from(name));
        (config.tls.cert, config.tls.key, config.tls.ca) = (file("r.pem"), file("r.key"), file("ca.pem"));
        let asker = Asker { token: None, cert: file("ops.pem"), key: file("ops.key") };
        let server = configured_server(&config, &asker).unwrap();
        assert_eq!((server.url.scheme_str(), server.client), (Some("https"), file("ops.pem").zip(file("ops.key"))));
        config.admin.token_file = file("token");
        let scheme =
            |config: &Config| configured_server(config, &asker).unwrap().url.scheme_str().map(ToOwned::to_owned);
        assert_eq!(scheme(&config).as_deref(), Some("http"), "the token, and nobody with a certificate");
        config.admin.identities = vec![Identity::service("test", "ops").unwrap()];
        assert_eq!(scheme(&config).as_deref(), Some("https"), "as the router does it");
    }

    #[test]
    fn a_router_is_asked_by_a_name_that_its_certificate_carries() {
        let folder = tempfile::tempdir().unwrap();
        let authority = myelin_transport::ca::CertificateAuthority::create("test", 2).unwrap();
        let issue = |name: &str, hosts: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
            authority.issue_router("site", name, &hosts, 1).unwrap().save(folder.path(), name).unwrap().0
        };
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(certified(&issue("a", &["r1.example.org", "localhost"]), local).as_deref(), Some("localhost"));
        assert_eq!(certified(&issue("b", &["r1.example.org"]), local).as_deref(), Some("r1.example.org"));
        assert_eq!(certified(&issue("c", &["r1.example.org", "127.0.0.1"]), local), None);
        assert_eq!(certified(&issue("d", &["127.0.0.1"]), IpAddr::from([0, 0, 0, 0])), None);
        assert_eq!(certified(&folder.path().join("none.pem"), local), None);
    }

    #[test]
    fn another_version_than_the_routers_is_told() {
        let answer = |json: &str| version(Ok(json.to_owned().into()));
        let own = format!("{{\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION"));
        assert_eq!(answer(&own).level, Level::Good);
        let other = answer("{\"version\":\"99.0.0\"}");
        assert!(other.level == Level::Warning && other.found.contains("99.0.0") && other.step.is_some(), "{other:?}");
        for odd in ["{}", "no JSON"] {
            assert!(answer(odd).found.contains("tells no version"), "{odd}");
        }
        let refused = version(Err(Failure::new(Exit::Denied, "no token")));
        assert!(refused.level == Level::Warning && refused.found.contains("no token"), "{refused:?}");
    }

    #[test]
    fn limits_of_this_machine_are_told_with_their_step() {
        for finding in [open_files(), engine(&Config::default()), udp_buffers()] {
            assert_eq!(finding.step.is_some(), finding.level != Level::Good, "{finding:?}");
        }
        let mut config = Config::default();
        // More than any machine has addresses for.
        config.wasm.instances = 1 << 20;
        let finding = engine(&config);
        assert!(finding.level == Level::Missing && finding.found.contains("no room"), "{finding:?}");
    }

    #[test]
    fn a_damaged_certificate_is_named_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.node.data_dir = folder.path().into();
        assert_eq!(certificates(&config)[0].level, Level::Warning);
        development::prepare(&config).unwrap();
        assert!(certificates(&config).iter().all(|finding| finding.level == Level::Good));
        std::fs::write(development::client_files(folder.path()).cert, "damaged").unwrap();
        let finding = &certificates(&config)[1];
        assert!(finding.level == Level::Missing && finding.found.contains("client.pem"), "{finding:?}");
    }
}
