//! A mesh of router processes, one for each site, whose links are relays: the shape of the mesh is which of them have one.
//!
//! No router advertises an address: each knows the relays that were given to it as seeds, and learns of no other way.

use crate::namespaces::Namespace;
use crate::relay::{Path, Relay};
use crate::router::{Router, Setup};
use anyhow::{Context, Result, bail, ensure};
use myelin_client::{Client, ClientConfig, Overflow, TlsFiles};
use myelin_transport::ca::CertificateAuthority;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long anything may take to be known everywhere, on a busy machine and with the longest pause between two attempts
/// to link.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Ports for routers: below those that the system gives out, so that no socket made meanwhile takes one.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// The port for other routers in a namespace, where nobody else is.
const MESH_PORT: u16 = 7_401;

/// Counts how often a router has read its certificates again.
const RELOADS: &str = "myelin_certificate_reloads_total{outcome=\"reloaded\"}";

/// The links of a mesh, as pairs of sites; the first of each dials.
pub mod shapes {
    /// 0 - 1 - 2 - ..
    pub fn line(count: usize) -> Vec<(usize, usize)> {
        (1..count).map(|site| (site - 1, site)).collect()
    }

    /// A line whose ends are linked.
    pub fn ring(count: usize) -> Vec<(usize, usize)> {
        line(count).into_iter().chain([(0, count - 1)]).collect()
    }

    /// Site 0 in the middle.
    pub fn star(count: usize) -> Vec<(usize, usize)> {
        (1..count).map(|site| (0, site)).collect()
    }

    /// Each with each.
    pub fn mesh(count: usize) -> Vec<(usize, usize)> {
        (0..count).flat_map(|site| (site + 1..count).map(move |other| (site, other))).collect()
    }
}

/// Sites `s0`, `s1`, .. with one router `r1` each.
pub struct Sites {
    folder: tempfile::TempDir,
    authority: CertificateAuthority,
    members: Vec<String>,
    ports: Vec<u16>,
    relays: BTreeMap<(usize, usize), Relay>,
    /// Further variables of every router.
    variables: Vec<(String, String)>,
    /// The routers, by site.
    pub routers: Vec<Router>,
    /// Where they run, by site; none on loopback. Dropped after the routers.
    namespaces: Vec<Arc<Namespace>>,
}

impl Sites {
    /// Starts `count` sites with these links; `path` says how each is, and all chance comes from `seed`.
    ///
    /// # Errors
    /// When a router does not come up.
    pub async fn start(
        count: usize,
        links: &[(usize, usize)],
        seed: u64,
        path: impl Fn(usize) -> Path,
    ) -> Result<Self> {
        Self::start_among(count, links, seed, path, &[], &[]).await
    }

    /// The same with links that are fast and lose nothing, and with these keys of the configuration, such as
    /// `CATALOG__ENGINE`.
    ///
    /// # Errors
    /// When a router does not come up.
    pub async fn start_with(count: usize, links: &[(usize, usize)], keys: &[(&str, &str)]) -> Result<Self> {
        Self::start_among(count, links, 0, |_| Path::default(), &[], keys).await
    }

    /// The same in a mesh that has further members, which are not started.
    ///
    /// # Errors
    /// When a router does not come up.
    pub async fn start_among(
        count: usize,
        links: &[(usize, usize)],
        seed: u64,
        path: impl Fn(usize) -> Path,
        further: &[&str],
        keys: &[(&str, &str)],
    ) -> Result<Self> {
        Self::build(count, links, seed, path, further, keys, Vec::new()).await
    }

    /// The same with each site in a network namespace of its own, with an interface and addresses of its own; the links
    /// are between them.
    ///
    /// # Errors
    /// When there are no namespaces to be had, or a router does not come up.
    pub async fn start_apart(
        count: usize,
        links: &[(usize, usize)],
        seed: u64,
        path: impl Fn(usize) -> Path,
    ) -> Result<Self> {
        let namespaces = (0..count).map(|site| Namespace::create(&format!("s{site}"))).collect::<Result<Vec<_>>>()?;
        Self::build(count, links, seed, path, &[], &[], namespaces).await
    }

    async fn build(
        count: usize,
        links: &[(usize, usize)],
        seed: u64,
        path: impl Fn(usize) -> Path,
        further: &[&str],
        keys: &[(&str, &str)],
        namespaces: Vec<Arc<Namespace>>,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = CertificateAuthority::create("test", 2)?;
        authority.save(folder.path())?;
        let ports = (0..count).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let members =
            (0..count).map(|site| format!("s{site}/r1")).chain(further.iter().map(|&member| member.to_owned()));
        let members = members.collect();
        let variables = keys.iter().map(|(key, value)| (format!("MYELIN_{key}"), (*value).to_owned())).collect();
        let (relays, routers) = (BTreeMap::new(), Vec::new());
        let mut sites = Self { folder, authority, members, ports, relays, variables, routers, namespaces };
        for (number, (from, to)) in links.iter().copied().enumerate() {
            let gate = |site: usize| sites.namespaces.get(site).map_or(Ipv4Addr::LOCALHOST, |n| n.gate());
            let (seed, target) = (seed.wrapping_add(number as u64), sites.mesh_addr(to));
            let relay = Relay::start_at([gate(from), gate(to)], target, seed, path(number)).await?;
            sites.relays.insert((from, to), relay);
        }
        for site in 0..count {
            let namespace = sites.namespaces.get(site).cloned();
            let router = Router::start_inside(sites.setup(site)?, namespace)?;
            sites.routers.push(router);
        }
        Ok(sites)
    }

    fn setup(&self, site: usize) -> Result<Setup> {
        let folder = self.folder.path();
        let name = format!("s{site}");
        let (cert, key) = self.issue(&self.authority, site)?;
        let seeds = self.relays.iter().filter(|((from, _), _)| *from == site);
        let seeds: Vec<String> = seeds.map(|(_, relay)| relay.addr().to_string()).collect();
        let text = |path: &FilePath| path.to_string_lossy().into_owned();
        let variables = [
            ("NODE__SITE", name),
            ("TLS__CERT", text(&cert)),
            ("TLS__KEY", text(&key)),
            ("TLS__CA", text(&folder.join("ca.pem"))),
            // The first one has nobody to wait for, and cannot know that: it dials all others.
            ("CATALOG__JOIN_SECONDS", "1".to_owned()),
            ("MESH__LISTEN", self.mesh_addr(site).to_string()),
            ("MESH__MEMBERS", self.members.join(",")),
            ("MESH__SEEDS", seeds.join(",")),
        ];
        let variables = variables.into_iter().map(|(key, value)| (format!("MYELIN_{key}"), value));
        let variables = variables.chain(self.variables.iter().cloned()).collect();
        Ok(Setup { workers: 1, variables })
    }

    /// Writes a certificate of the router at `site` where it reads it: good for every address that it may be reached at.
    fn issue(&self, authority: &CertificateAuthority, site: usize) -> Result<(PathBuf, PathBuf)> {
        let gates = self.namespaces.iter().map(|namespace| namespace.gate().to_string());
        let hosts: Vec<String> = ["localhost".into(), "127.0.0.1".into()].into_iter().chain(gates).collect();
        let issued = authority.issue_router(&format!("s{site}"), "r1", &hosts, 1)?;
        Ok(issued.save(self.folder(), &format!("router-{site}"))?)
    }

    /// Moves all routers to a new certificate authority while they run, as docs/OPERATIONS.md tells: first everybody
    /// trusts both, then everybody gets a new certificate, then nobody trusts the old one any more.
    ///
    /// # Errors
    /// When a router does not take it up.
    pub async fn rotate_certificates(&mut self) -> Result<()> {
        let (old, new) = (self.authority.cert_pem().to_owned(), CertificateAuthority::create("test", 2)?);
        self.trust(&format!("{old}{}", new.cert_pem())).await?;
        for site in 0..self.routers.len() {
            self.issue(&new, site)?;
        }
        self.reload().await?;
        self.trust(new.cert_pem()).await?;
        self.authority = new;
        Ok(())
    }

    async fn trust(&self, authorities: &str) -> Result<()> {
        let (aside, file) = (self.folder().join("ca.new"), self.folder().join("ca.pem"));
        std::fs::write(&aside, authorities)?;
        std::fs::rename(aside, file)?;
        self.reload().await
    }

    /// Lets every router read its certificates again, and waits until it has.
    async fn reload(&self) -> Result<()> {
        for (site, router) in self.routers.iter().enumerate() {
            let (before, begin) = (router.metric(RELOADS)?, Instant::now());
            router.hang_up()?;
            while router.metric(RELOADS)? == before {
                ensure!(begin.elapsed() < PATIENCE, "site {site} does not read its certificates: {}", router.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// The authority that has issued all certificates.
    pub fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// A folder for certificates, with the authority's `ca.pem`.
    pub fn folder(&self) -> &FilePath {
        self.folder.path()
    }

    /// Where the router of `site` listens for other routers, without a relay between.
    pub fn mesh_addr(&self, site: usize) -> SocketAddr {
        match self.namespaces.get(site) {
            Some(namespace) => (namespace.addr(), MESH_PORT).into(),
            None => (Ipv4Addr::LOCALHOST, self.ports[site]).into(),
        }
    }

    /// The network namespace of a site that has one.
    ///
    /// # Panics
    /// When it has none.
    pub fn namespace(&self, site: usize) -> &Namespace {
        self.namespaces.get(site).unwrap_or_else(|| panic!("site {site} is on loopback"))
    }

    /// The link between two sites, in the order of the list that it was started with.
    ///
    /// # Panics
    /// When there is none.
    pub fn link(&self, link: (usize, usize)) -> &Relay {
        self.relays.get(&link).unwrap_or_else(|| panic!("no link {link:?}"))
    }

    /// All links.
    pub fn links(&self) -> impl Iterator<Item = (&(usize, usize), &Relay)> {
        self.relays.iter()
    }

    /// A client of the router at `site`.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn client(&self, site: usize, name: &str, overflow: Overflow) -> Result<Client> {
        let (cert, key) = self.authority.issue_service(name, 1)?.save(self.folder(), name)?;
        let files = TlsFiles { cert, key, ca: self.folder().join("ca.pem") };
        let config = ClientConfig::new(self.routers[site].client_addr().to_string(), files);
        Ok(Client::connect(config.with_server_name("localhost").with_overflow(overflow)).await?)
    }

    /// `GET /v1/mesh` of a site.
    ///
    /// # Errors
    /// When the router does not answer.
    pub fn mesh(&self, site: usize) -> Result<Value> {
        Ok(self.routers[site].ask("GET", "/v1/mesh", &[], b"")?.json())
    }

    /// Waits until these sites have all links that they are to have, reach all others, and know of exactly `wanted`
    /// patterns of clients at other sites each.
    ///
    /// # Errors
    /// When that takes too long; says what is missing.
    pub async fn agree(&self, wanted: &[(usize, usize)]) -> Result<()> {
        let others = self.routers.len() - 1;
        let begin = Instant::now();
        for (site, wanted) in wanted {
            let links = self.relays.keys().filter(|(a, b)| a == site || b == site).count();
            // Every router wants answers to its own sessions as well.
            let expected = (links, others, wanted + others);
            loop {
                let mesh = self.mesh(*site)?;
                let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
                let links = mesh["links"].as_array().map_or(0, Vec::len);
                let is = (links, number(&mesh["reachable"]), number(&mesh["interest"]));
                if is == (expected.0, Some(expected.1), Some(expected.2)) {
                    break;
                }
                if begin.elapsed() >= PATIENCE {
                    self.tell_all();
                    bail!("site {site}: (links, reachable, interest) are {is:?}, not {expected:?}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Prints what every site knows of the mesh, what its clients want and what it has logged: a failure that comes once
    /// in a hundred runs must explain itself.
    fn tell_all(&self) {
        for (site, router) in self.routers.iter().enumerate() {
            println!("--- site {site}");
            for path in ["/v1/mesh", "/v1/status"] {
                match router.ask("GET", path, &[], b"") {
                    Ok(answer) => println!("{path}: {}", answer.json()),
                    Err(error) => println!("{path}: {error:#}"),
                }
            }
            println!("{}", router.log());
        }
    }

    /// Waits until no copy is on its way anywhere, and checks that every ledger balances. Gives the sum over all sites
    /// of the terms.
    ///
    /// # Errors
    /// When it takes too long, or a ledger does not balance.
    pub async fn settle(&self) -> Result<BTreeMap<String, u64>> {
        let begin = Instant::now();
        loop {
            let ledgers = self.routers.iter().map(Router::ledger).collect::<Result<Vec<_>>>()?;
            let is_settled = |ledger: &Value| ledger["total"]["in_queue"] == 0 && ledger["total"]["in_pipeline"] == 0;
            if !ledgers.iter().all(is_settled) {
                ensure!(begin.elapsed() < PATIENCE, "the ledgers do not settle: {ledgers:#?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            let mut sum = BTreeMap::new();
            for (site, ledger) in ledgers.iter().enumerate() {
                ensure!(ledger["balances"] == true, "the ledger of site {site} does not balance: {ledger:#}");
                let total = ledger["total"].as_object().context("the ledger's total")?;
                for (term, value) in total.iter().filter_map(|(term, value)| Some((term, value.as_u64()?))) {
                    *sum.entry(term.clone()).or_default() += value;
                }
            }
            return Ok(sum);
        }
    }

    /// Ends all routers in order; each must say that its ledger balances.
    ///
    /// # Errors
    /// When one does not.
    pub fn end(mut self) -> Result<()> {
        self.routers.iter().try_for_each(Router::ask_to_end)?;
        for (site, router) in self.routers.iter_mut().enumerate() {
            let status = router.wait()?;
            ensure!(status.success(), "the router of site {site} ended with {status}: {}", router.log());
        }
        Ok(())
    }
}

/// A UDP port that nobody has, and that no other test is given.
fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Test programs that run at the same time begin at different places.
    let begin = u16::try_from(std::process::id() % u32::from(count)).unwrap_or(0);
    for _ in 0..count {
        let port = PORTS.start + (begin + NEXT.fetch_add(1, Relaxed) % count) % count;
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free UDP port in {PORTS:?}")
}
