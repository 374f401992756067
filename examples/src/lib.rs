//! What the examples have in common: how to reach a router.
//!
//! Start one with `myelin serve --dev` in this folder; without arguments the examples use the certificates that it
//! made. Then, each in a terminal of its own:
//!
//! ```text
//! cargo run -p myelin-examples --bin subscribe -- 'orders/**'
//! cargo run -p myelin-examples --bin publish -- orders/eu --count 3
//! cargo run -p myelin-examples --bin request -- --serve
//! cargo run -p myelin-examples --bin request
//! ```
#![forbid(unsafe_code)]

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use myelin_client::{Client, ClientConfig, TlsFiles};

/// Which router, and as whom.
#[derive(Args, Debug)]
pub struct Connection {
    /// The router, as HOST:PORT. Its certificate must hold HOST
    #[arg(long, default_value = "localhost:7400")]
    pub addr: String,
    /// This client's certificate (PEM); its URI name is who the client is
    #[arg(long, default_value = ".myelin/dev/client.pem")]
    pub cert: PathBuf,
    /// The certificate's private key (PEM)
    #[arg(long, default_value = ".myelin/dev/client-key.pem")]
    pub key: PathBuf,
    /// The authority whose routers are trusted (PEM)
    #[arg(long, default_value = ".myelin/dev/ca.pem")]
    pub ca: PathBuf,
}

impl Connection {
    /// Connects as the example called `name`. From here on the client keeps the connection by itself: it dials again
    /// when it is lost, and subscribes again.
    ///
    /// # Errors
    /// When the router is not reached; the error says why and what to do.
    pub async fn client(self, name: &str) -> anyhow::Result<Client> {
        let addr = self.addr.clone();
        let tls = TlsFiles { cert: self.cert, key: self.key, ca: self.ca };
        let config = ClientConfig::new(self.addr, tls).with_name(format!("example-{name}/1"));
        Client::connect(config).await.with_context(|| format!("connecting to {addr}; is `myelin serve --dev` running?"))
    }
}
