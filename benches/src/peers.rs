//! Other brokers as servers, with the settings that let them show their best without losing anything.

use crate::relay::certificates;
use crate::server::{CERTIFICATES, Server};
use anyhow::{Context, bail};
use std::fs::read_to_string;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// State of a listening socket in `/proc/net/tcp`.
const TCP_LISTEN: &str = "0A";
/// State of a bound socket in `/proc/net/udp`.
const UDP_BOUND: &str = "07";

/// Where the peers' programs are; `cargo xtask bench peers` builds and names them.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Peers")]
pub(crate) struct PeerArgs {
    /// The client of all peers, `myelin-peers`.
    #[arg(long, env = "MYELIN_PEERS_BIN")]
    pub(crate) peers_client: Option<PathBuf>,
    /// `nats-server`.
    #[arg(long, env = "MYELIN_NATS_SERVER")]
    pub(crate) nats_server: Option<PathBuf>,
    /// `zenohd`.
    #[arg(long, env = "MYELIN_ZENOHD")]
    pub(crate) zenohd: Option<PathBuf>,
}

impl PeerArgs {
    /// The program, or how to get it.
    pub(crate) fn program<'a>(&self, program: &'a Option<PathBuf>, name: &str) -> anyhow::Result<&'a Path> {
        let file = program.as_deref().filter(|file| file.exists());
        file.with_context(|| format!("there is no {name}; `cargo xtask bench peers` builds it and says where it is"))
    }

    /// Names and versions of the servers.
    pub(crate) fn versions(&self) -> Vec<String> {
        let version = |name: &str, program: &Option<PathBuf>| {
            let output = Command::new(program.as_ref()?).arg("--version").output().ok()?;
            Some(format!("{name} {}", version_in(&String::from_utf8_lossy(&output.stdout))?))
        };
        let servers = [("nats-server", &self.nats_server), ("zenohd", &self.zenohd)];
        servers.into_iter().filter_map(|(name, program)| version(name, program)).collect()
    }
}

/// The first word like `v1.2.3`, wherever a program puts it.
fn version_in(text: &str) -> Option<&str> {
    let mut numbers = text.split_whitespace().filter_map(|word| word.strip_prefix('v'));
    numbers.find(|number| number.starts_with(|sign: char| sign.is_ascii_digit()))
}

/// A protocol of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// A port that is free now.
    pub(crate) fn free_port(self) -> anyhow::Result<u16> {
        let any = (Ipv4Addr::LOCALHOST, 0);
        Ok(match self {
            Self::Tcp => TcpListener::bind(any)?.local_addr()?.port(),
            Self::Udp => UdpSocket::bind(any)?.local_addr()?.port(),
        })
    }

    /// Whether somebody serves at `port`: without a probe that a server would take for a client.
    pub(crate) fn is_served(self, port: u16) -> bool {
        let (file, state) = match self {
            Self::Tcp => ("/proc/net/tcp", TCP_LISTEN),
            Self::Udp => ("/proc/net/udp", UDP_BOUND),
        };
        is_listed(&read_to_string(file).unwrap_or_default(), port, state)
    }
}

fn is_listed(table: &str, port: u16, state: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().and_then(|local| local.rsplit_once(':')).map(|(_, port)| port);
        local.and_then(|port| u16::from_str_radix(port, 16).ok()) == Some(port) && fields.nth(1) == Some(state)
    })
}

/// NATS over TLS 1.3, everything else as it comes but for the bounds that would make it drop slow consumers.
pub(crate) fn nats(binary: &Path) -> anyhow::Result<Server> {
    let data = TempDir::new()?;
    let dir = data.path().join(CERTIFICATES);
    certificates(&dir)?;
    nats_with(binary, data, &dir, "")
}

/// Two of them, the second a leaf node of the first, over TLS 1.3 as well.
pub(crate) fn nats_pair(binary: &Path) -> anyhow::Result<[Server; 2]> {
    let data = TempDir::new()?;
    let dir = data.path().join(CERTIFICATES);
    certificates(&dir)?;
    let (port, tls, ca) = (Protocol::Tcp.free_port()?, nats_tls(&dir)?, text(dir.join("ca.pem"))?);
    let first = nats_with(binary, data, &dir, &format!("leafnodes {{\n listen: \"127.0.0.1:{port}\"\n {tls}}}\n"))?;
    let remote = format!("{{ url: \"tls://localhost:{port}\", tls {{ ca_file: \"{ca}\" }} }}");
    let second = nats_with(binary, TempDir::new()?, &dir, &format!("leafnodes {{ remotes: [ {remote} ] }}\n"))?;
    Ok([first, second])
}

/// A server with the certificates in `dir`, which has `more` in its configuration.
fn nats_with(binary: &Path, data: TempDir, dir: &Path, more: &str) -> anyhow::Result<Server> {
    let port = Protocol::Tcp.free_port()?;
    let tls = nats_tls(dir)?;
    let config = format!("listen: \"127.0.0.1:{port}\"\nmax_pending: 268435456\nwrite_deadline: \"20s\"\n{tls}{more}");
    let file = data.path().join("nats.conf");
    std::fs::write(&file, config)?;
    let mut command = Command::new(binary);
    command.arg("-c").arg(&file);
    Server::foreign(command, data, Protocol::Tcp, port)
}

/// How a listener of NATS shows itself.
fn nats_tls(dir: &Path) -> anyhow::Result<String> {
    let (cert, key) = (text(dir.join("router.pem"))?, text(dir.join("router-key.pem"))?);
    Ok(format!("tls {{\n  cert_file: \"{cert}\"\n  key_file: \"{key}\"\n  min_version: \"1.3\"\n}}\n"))
}

/// Zenoh as a router, over `quic` or `tls`: no scouting, no administration, its own batching and windows.
pub(crate) fn zenoh(binary: &Path, scheme: &str) -> anyhow::Result<Server> {
    let data = TempDir::new()?;
    let dir = data.path().join(CERTIFICATES);
    certificates(&dir)?;
    zenoh_with(binary, data, &dir, scheme, None)
}

/// Two of them, the second connected to the first in the same way.
pub(crate) fn zenoh_pair(binary: &Path, scheme: &str) -> anyhow::Result<[Server; 2]> {
    let data = TempDir::new()?;
    let dir = data.path().join(CERTIFICATES);
    certificates(&dir)?;
    let first = zenoh_with(binary, data, &dir, scheme, None)?;
    let second = zenoh_with(binary, TempDir::new()?, &dir, scheme, Some(first.client_addr()))?;
    Ok([first, second])
}

/// A router with the certificates in `dir`, connected to the one at `other`.
fn zenoh_with(
    binary: &Path,
    data: TempDir,
    dir: &Path,
    scheme: &str,
    other: Option<SocketAddr>,
) -> anyhow::Result<Server> {
    let protocol = match scheme {
        "quic" => Protocol::Udp,
        "tls" => Protocol::Tcp,
        _ => bail!("Zenoh speaks quic or tls here, not {scheme}"),
    };
    let port = protocol.free_port()?;
    let others: Vec<String> = other.into_iter().map(|addr| format!("{scheme}/{addr}")).collect();
    let config = serde_json::json!({
        "mode": "router",
        "connect": { "endpoints": others },
        "listen": { "endpoints": [format!("{scheme}/127.0.0.1:{port}")] },
        "scouting": { "multicast": { "enabled": false }, "gossip": { "enabled": false } },
        "adminspace": { "enabled": false },
        "timestamping": { "enabled": false },
        "transport": { "link": { "tls": {
            "listen_certificate": text(dir.join("router.pem"))?,
            "listen_private_key": text(dir.join("router-key.pem"))?,
            "root_ca_certificate": text(dir.join("ca.pem"))?,
        } } },
    });
    let file = data.path().join("zenoh.json5");
    std::fs::write(&file, config.to_string())?;
    let mut command = Command::new(binary);
    command.arg("-c").arg(&file).env("RUST_LOG", "error");
    Server::foreign(command, data, protocol, port)
}

fn text(file: PathBuf) -> anyhow::Result<String> {
    file.into_os_string().into_string().ok().context("the folder for temporary files has a name that is no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(version_in("nats-server: v2.15.1\n"), Some("2.15.1"));
        assert_eq!(version_in("2026-01-01 INFO main: zenohd v1.10.2 built with rustc 1.95.0"), Some("1.10.2"));
        assert_eq!(version_in("no version"), None);
    }

    #[test]
    fn the_kernel_knows_who_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        assert!(Protocol::Tcp.is_served(port));
        let table = "  sl  local_address\n   0: 0100007F:1F90 00000000:0000 01 0 0\n";
        assert!(is_listed(table, 8080, "01") && !is_listed(table, 8080, "0A") && !is_listed(table, 8081, "01"));
    }
}
