//! Two routers of a mesh, each a site: events come in at the one and go out at the other.

use crate::admin;
use crate::peers::Protocol;
use crate::server::Server;
use anyhow::{Context, bail};
use myelin_transport::ca::CertificateAuthority;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The two sites.
const SITES: [&str; 2] = ["east", "west"];
/// Days that the throw-away certificates are good for.
const CERTIFICATE_DAYS: u32 = 2;
/// How long the link may take.
const LINKED: Duration = Duration::from_secs(10);
/// How often it is looked whether it is there.
const POLL: Duration = Duration::from_millis(20);

/// Two linked routers, and the folder of their certificates and configurations.
pub(crate) struct Pair {
    pub(crate) routers: Vec<Server>,
    _folder: TempDir,
}

impl Pair {
    /// Starts them, each with `workers` workers, and waits for their link.
    pub(crate) fn start(binary: &Path, workers: usize) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let dir = folder.path();
        let authority = CertificateAuthority::create("bench.example", CERTIFICATE_DAYS)?;
        authority.save(dir)?;
        authority.issue_service("bench", CERTIFICATE_DAYS)?.save(dir, "client")?;
        let mut routers = Vec::new();
        let mut seed: Option<SocketAddr> = None;
        for site in SITES {
            let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
            authority.issue_router(site, "r1", &hosts, CERTIFICATE_DAYS)?.save(dir, site)?;
            let mesh = (Ipv4Addr::LOCALHOST, Protocol::Udp.free_port()?).into();
            let file = dir.join(format!("{site}.toml"));
            std::fs::write(&file, config(dir, site, mesh, seed))?;
            routers.push(Server::router_of(binary, workers, &file, dir)?);
            seed = Some(mesh);
        }
        let pair = Self { routers, _folder: folder };
        pair.wait_linked()?;
        Ok(pair)
    }

    fn wait_linked(&self) -> anyhow::Result<()> {
        let until = Instant::now() + LINKED;
        for router in &self.routers {
            while admin::links(router.admin_addr()?)? == 0 {
                if Instant::now() > until {
                    bail!("the two routers were not linked within {} s", LINKED.as_secs());
                }
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// Ends both as an operator would.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        for (site, router) in SITES.iter().zip(self.routers) {
            router.stop().with_context(|| format!("the router of {site}"))?;
        }
        Ok(())
    }
}

/// The configuration of the router of `site`, whose mesh address is `mesh`.
fn config(dir: &Path, site: &str, mesh: SocketAddr, seed: Option<SocketAddr>) -> String {
    let dir = dir.display();
    let members = SITES.map(|site| format!("\"{site}/r1\"")).join(", ");
    let seeds: Vec<String> = seed.iter().map(|seed| format!("\"{seed}\"")).collect();
    format!(
        "[node]\nsite = \"{site}\"\nname = \"r1\"\n\
         [tls]\ncert = \"{dir}/{site}.pem\"\nkey = \"{dir}/{site}-key.pem\"\nca = \"{dir}/ca.pem\"\n\
         [policy]\ndefault = \"allow\"\n\
         [mesh]\nlisten = \"{mesh}\"\nmembers = [{members}]\nseeds = [{}]\n",
        seeds.join(", ")
    )
}
