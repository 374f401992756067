//! Several sites in one process: what is published anywhere reaches every interested site once.

use anyhow::{Context, Result, ensure};
use myelin::config::Config;
use myelin::ledger::{Counts, check};
use myelin::node::Node;
use myelin_client::{Client, ClientConfig, Event, SubscribeOptions, TlsFiles};
use myelin_transport::TlsIdentity;
use myelin_transport::ca::CertificateAuthority;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

/// How long anything may take to be known everywhere.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mesh of sites with one router each, all issued by one authority.
struct Sites {
    folder: tempfile::TempDir,
    authority: CertificateAuthority,
    ports: Vec<u16>,
    nodes: Vec<Option<Node>>,
}

impl Sites {
    /// Starts `count` sites; `knows(a, b)` says whether site `a` is told the address of site `b`.
    async fn start(count: usize, knows: impl Fn(usize, usize) -> bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = CertificateAuthority::create("test", 2)?;
        authority.save(folder.path())?;
        // Free at this moment, which has to do: every site must know the others' ports before it starts.
        let sockets = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
        let ports = sockets.iter().map(|socket| Ok(socket.local_addr()?.port())).collect::<Result<Vec<_>>>()?;
        drop(sockets);
        let mut sites = Self { folder, authority, ports, nodes: Vec::new() };
        for site in 0..count {
            let seeds = (0..count).filter(|other| *other != site && knows(site, *other)).collect::<Vec<_>>();
            let node = sites.node(site, &seeds, 1).await?;
            sites.nodes.push(Some(node));
        }
        Ok(sites)
    }

    async fn node(&self, site: usize, seeds: &[usize], epoch: u32) -> Result<Node> {
        let (folder, name) = (self.folder.path(), format!("s{site}"));
        let issued = self.authority.issue_router(&name, "r1", &["localhost".into(), "127.0.0.1".into()], 1)?;
        let (cert, key) = issued.save(folder, &format!("router-{site}"))?;
        let tls = TlsIdentity::load(&TlsFiles { cert, key, ca: folder.join("ca.pem") })?;
        let mut config = Config::default();
        config.node.site = name;
        config.node.workers = 1;
        config.node.data_dir = folder.join(format!("data-{site}"));
        config.node.drain_seconds = 5;
        config.listen.client.set_port(0);
        config.wasm.compiler = Some(myelin_tests::program());
        let address = |site: &usize| format!("127.0.0.1:{}", self.ports[*site]);
        config.mesh.listen = Some(address(&site).parse()?);
        config.mesh.members = (0..self.ports.len()).map(|site| format!("s{site}/r1")).collect();
        config.mesh.advertise = vec![address(&site)];
        config.mesh.seeds = seeds.iter().map(address).collect();
        Node::start(&config, &tls, epoch).await
    }

    fn at(&self, site: usize) -> &Node {
        self.nodes[site].as_ref().expect("the site runs")
    }

    async fn client(&self, site: usize, name: &str) -> Result<Client> {
        let folder: &Path = self.folder.path();
        let (cert, key) = self.authority.issue_service(name, 1)?.save(folder, name)?;
        let files = TlsFiles { cert, key, ca: folder.join("ca.pem") };
        let config = ClientConfig::new(self.at(site).client_addr().to_string(), files).with_server_name("localhost");
        Ok(Client::connect(config).await?)
    }

    /// Waits until `site` knows of `interest` patterns elsewhere and has a link to each other site that runs.
    async fn knows(&self, site: usize, interest: usize) -> Result<()> {
        let others = self.nodes.iter().flatten().count() - 1;
        let known = async {
            loop {
                let status = self.at(site).mesh_status().load();
                if status.reachable >= others && status.links.len() == others && status.interest == interest {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, known).await;
        waited.with_context(|| format!("site {site} knows {:?}", self.at(site).mesh_status().load()))
    }

    /// Ends all sites; their ledgers, each of which must balance.
    async fn end(mut self) -> Result<Vec<Counts>> {
        let mut ledgers = Vec::new();
        for node in self.nodes.iter_mut().filter_map(Option::take) {
            let ledger = node.drain().await;
            check(&ledger)?;
            ledgers.push(sum(&ledger));
        }
        Ok(ledgers)
    }
}

fn sum(ledger: &BTreeMap<u64, Counts>) -> Counts {
    let mut total = Counts::default();
    ledger.values().for_each(|counts| total.add(counts));
    total
}

/// The next event's payload.
async fn next(events: &mut myelin_client::Subscription) -> Result<String> {
    let event = tokio::time::timeout(PATIENCE, events.next()).await?.context("an event")?;
    Ok(String::from_utf8_lossy(event.payload()).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_every_interested_site_once_and_in_order() -> Result<()> {
    // Each knows the one before: the rest they tell each other.
    let sites = Sites::start(3, |site, other| other + 1 == site).await?;
    let (near, far, other) =
        (sites.client(0, "near").await?, sites.client(1, "far").await?, sites.client(2, "other").await?);
    let mut here = near.subscribe("orders/*", SubscribeOptions::default()).await?;
    let mut there = far.subscribe("orders/**", SubscribeOptions::default()).await?;
    let mut elsewhere = other.subscribe("orders/eu", SubscribeOptions::default()).await?;
    sites.knows(0, 2).await?;
    for number in 0..1_000 {
        let topic = if number % 2 == 0 { "orders/eu" } else { "orders/us" };
        near.send(Event::new(topic, &number.to_string())).await?;
    }
    near.flush().await;
    for number in 0..1_000 {
        ensure!(next(&mut here).await? == number.to_string() && next(&mut there).await? == number.to_string());
    }
    for number in (0..1_000).step_by(2) {
        ensure!(next(&mut elsewhere).await? == number.to_string());
    }
    // Nobody wants it anywhere: it stays where it is.
    near.send(Event::new("unwanted", "x")).await?;
    near.flush().await;
    let ledgers = sites.end().await?;
    let of = |site: usize| ledgers[site];
    assert_eq!((of(0).matched, of(0).unmatched, of(0).delivered), (1_000, 1, 1_000));
    assert_eq!((of(1).delivered, of(2).delivered), (1_000, 500));
    // Over the direct link, or by way of the site between: each copy is sent once.
    assert_eq!(ledgers.iter().map(|counts| counts.forwarded).sum::<u64>(), 1_500);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_from_another_site_and_a_group_is_served_once() -> Result<()> {
    let sites = Sites::start(3, |site, other| other + 1 == site).await?;
    let (asker, near, far) =
        (sites.client(0, "asker").await?, sites.client(1, "near").await?, sites.client(2, "far").await?);
    let group = || SubscribeOptions::group("workers");
    let mut members = [near.subscribe("jobs/**", group()).await?, far.subscribe("jobs/**", group()).await?];
    let mut echo = far.subscribe("echo", SubscribeOptions::default()).await?;
    // The two members are one group at two sites.
    sites.knows(0, 3).await?;
    let answering = tokio::spawn(async move {
        let request = echo.next().await.context("a request")?;
        far.reply(&request, b"pong").await?;
        anyhow::Ok(far)
    });
    let answer = tokio::time::timeout(PATIENCE, asker.request("echo", "ping", PATIENCE)).await??;
    assert_eq!(answer.payload(), b"pong");
    let _far = answering.await??;
    for number in 0..100 {
        asker.send(Event::new("jobs/a", &number.to_string())).await?;
    }
    asker.flush().await;
    let mut taken = 0;
    let quiet = Duration::from_millis(500);
    for member in &mut members {
        while let Ok(Some(_)) = tokio::time::timeout(quiet, member.next()).await {
            taken += 1;
        }
    }
    assert_eq!(taken, 100, "each by one member of the group, wherever");
    sites.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_stops_is_routed_around_and_comes_back() -> Result<()> {
    let mut sites = Sites::start(3, |site, other| other + 1 == site).await?;
    let publisher = sites.client(0, "publisher").await?;
    let subscriber = sites.client(2, "subscriber").await?;
    let mut events = subscriber.subscribe("news", SubscribeOptions::default()).await?;
    sites.knows(0, 1).await?;
    publisher.send(Event::new("news", "1")).await?;
    ensure!(next(&mut events).await? == "1");
    let between = sites.nodes[1].take().context("it runs")?;
    check(&between.drain().await)?;
    sites.knows(0, 1).await?;
    publisher.send(Event::new("news", "2")).await?;
    ensure!(next(&mut events).await? == "2");
    sites.nodes[1] = Some(sites.node(1, &[0], 2).await?);
    sites.knows(0, 1).await?;
    let again = sites.client(1, "again").await?;
    let mut there = again.subscribe("news", SubscribeOptions::default()).await?;
    sites.knows(0, 2).await?;
    publisher.send(Event::new("news", "3")).await?;
    ensure!(next(&mut events).await? == "3" && next(&mut there).await? == "3");
    sites.end().await?;
    Ok(())
}
