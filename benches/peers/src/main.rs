//! `myelin-peers`: publishes to another broker and checks every event at the subscribers, as `myelin-bench load` does.
//!
//! The cells, the bound on what is in flight, the check of every number, the phases and the histogram are those of
//! `myelin-load`; only how an event gets to the broker and back differs. Publishers are on one thread, subscribers on
//! another, beside the threads that a broker's own client library brings.

mod batching;
mod nats;
mod publish;
mod zenoh;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use myelin_load::{Measured, Plan, PlanArgs, Progress};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The name in the servers' certificates.
const SERVER_NAME: &str = "localhost";

/// Publishes to another broker and checks every event at the subscribers; prints one line of JSON.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Which broker, and by which client.
    #[arg(long)]
    peer: Peer,
    /// The server's address.
    #[arg(long)]
    addr: SocketAddr,
    /// Where subscribers connect, if not there.
    #[arg(long)]
    subscribers_addr: Option<SocketAddr>,
    /// Folder with `ca.pem`.
    #[arg(long)]
    certs: PathBuf,
    #[command(flatten)]
    plan: PlanArgs,
}

/// A broker and a client of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// NATS over TLS by async-nats.
    NatsTls,
    /// NATS over TLS by a minimal client that writes 32 KiB at a time.
    NatsTlsBatching,
    /// Zenoh over QUIC by its own crate.
    ZenohQuic,
    /// Zenoh over TLS by its own crate.
    ZenohTls,
}

/// What all connections of a run have in common.
#[derive(Debug)]
struct Run {
    progress: Arc<Progress>,
    plan: Plan,
    /// Where publishers connect.
    port: u16,
    /// Where subscribers connect.
    subscribers_port: u16,
    /// The authority whose servers are trusted (PEM).
    ca: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Both crypto providers may be compiled in, and then there is no default.
    let ring = rustls::crypto::ring::default_provider().install_default();
    ring.map_err(|_| anyhow::anyhow!("a crypto provider is installed already"))?;
    let run = Arc::new(Run {
        progress: Arc::new(Progress::new(&arguments.plan.cell)),
        plan: arguments.plan.plan()?,
        port: arguments.addr.port(),
        subscribers_port: arguments.subscribers_addr.unwrap_or(arguments.addr).port(),
        ca: arguments.certs.join("ca.pem"),
    });
    let measured: Measured = match arguments.peer {
        Peer::NatsTls => nats::run(&run),
        Peer::NatsTlsBatching => batching::run(&run),
        Peer::ZenohQuic => zenoh::run(&run, "quic"),
        Peer::ZenohTls => zenoh::run(&run, "tls"),
    }
    .with_context(|| format!("{:?}", arguments.peer))?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
