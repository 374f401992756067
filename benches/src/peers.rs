//! Other brokers as servers, with the settings that let them show their best without losing anything.

use crate::relay::certificates;
use crate::server::Server;
use anyhow::{Context, bail};
use std::fs::read_to_string;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
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
    fn free_port(self) -> anyhow::Result<u16> {
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
    let (data, port) = (TempDir::new()?, Protocol::Tcp.free_port()?);
    let dir = data.path().join("dev");
    certificates(&dir)?;
    let (cert, key) = (text(dir.join("router.pem"))?, text(dir.join("router-key.pem"))?);
    let config = format!(
        "listen: \"127.0.0.1:{port}\"\nmax_pending: 268435456\nwrite_deadline: \"20s\"\n\
         tls {{\n  cert_file: \"{cert}\"\n  key_file: \"{key}\"\n  min_version: \"1.3\"\n}}\n"
    );
    let file = data.path().join("nats.conf");
    std::fs::write(&file, config)?;
    let mut command = Command::new(binary);
    command.arg("-c").arg(&file);
    Server::foreign(command, data, Protocol::Tcp, port)
}

/// Zenoh as a router, over `quic` or `tls`: no scouting, no administration, its own batching and windows.
pub(crate) fn zenoh(binary: &Path, scheme: &str) -> anyhow::Result<Server> {
    let protocol = match scheme {
        "quic" => Protocol::Udp,
        "tls" => Protocol::Tcp,
        _ => bail!("Zenoh speaks quic or tls here, not {scheme}"),
    };
    let (data, port) = (TempDir::new()?, protocol.free_port()?);
    let dir = data.path().join("dev");
    certificates(&dir)?;
    let config = serde_json::json!({
        "mode": "router",
        "listen": { "endpoints": [format!("{scheme}/127.0.0.1:{port}")] },
        "scouting": { "multicast": { "enabled": false }, "gossip": { "enabled": false } },
        "adminspace": { "enabled": false },
        "timestamping": { "enabled": false },
        "transport": { "link": { "tls": {
            "listen_certificate": text(dir.join("router.pem"))?,
            "listen_private_key": text(dir.join("router-key.pem"))?,
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
