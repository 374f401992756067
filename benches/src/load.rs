//! `load`: the client process of Myelin's own rows.

use anyhow::Context;
use clap::Args;
use myelin_load::{Channel, Client, Form, PlanArgs, Target, attributes};
use myelin_transport::{ALPN_CLIENT, DialConfig, TlsFiles, TlsIdentity};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The topic that all publishers publish to.
const TOPIC: &str = "bench/events";
/// What every subscriber subscribes to.
pub(crate) const PATTERN: &str = "bench/**";
/// The name in the servers' certificates.
const SERVER_NAME: &str = "localhost";

/// Arguments of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// What is behind the address.
    #[arg(long)]
    target: Target,
    /// The server's UDP address.
    #[arg(long)]
    addr: SocketAddr,
    /// Where subscribers connect, if not there.
    #[arg(long)]
    subscribers_addr: Option<SocketAddr>,
    /// Folder with `ca.pem`, `client.pem` and `client.key`.
    #[arg(long)]
    certs: PathBuf,
    /// One header that every event carries, as name=value.
    #[arg(long)]
    header: Option<String>,
    /// In which form payloads are.
    #[arg(long, default_value = "raw")]
    form: Form,
    #[command(flatten)]
    plan: PlanArgs,
}

/// Runs the client and prints what it found as one line of JSON.
pub(crate) fn run(arguments: &LoadArgs) -> anyhow::Result<()> {
    let attributes = attributes(arguments.header.as_deref())?;
    let dial = dial(arguments.addr, &arguments.certs)?;
    let mut client =
        Client::new(arguments.target, channel(), &arguments.plan.cell, attributes, dial).with_form(arguments.form);
    if let Some(addr) = arguments.subscribers_addr {
        client = client.with_subscribers_at(self::dial(addr, &arguments.certs)?);
    }
    println!("{}", serde_json::to_string(&client.run(&arguments.plan.plan()?)?)?);
    Ok(())
}

/// Where the events of all rows go.
pub(crate) fn channel() -> Channel {
    Channel { topic: TOPIC.into(), pattern: PATTERN.into() }
}

/// How the server at `addr` is reached, with the certificate in `dir`.
pub(crate) fn dial(addr: SocketAddr, dir: &Path) -> anyhow::Result<DialConfig> {
    let keys = ["client.key", "client-key.pem"].map(|name| dir.join(name));
    let key = keys.into_iter().find(|file| file.exists()).context("no client.key beside the certificates")?;
    let tls = TlsIdentity::load(&TlsFiles { cert: dir.join("client.pem"), key, ca: dir.join("ca.pem") })?;
    Ok(DialConfig { addr, server_name: SERVER_NAME.into(), alpn: ALPN_CLIENT.into(), tls })
}
