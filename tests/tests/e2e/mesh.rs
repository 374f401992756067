//! Several sites in one process: what is published anywhere reaches every interested site once.

use anyhow::{Context, Result, ensure};
use myelin::config::{Config, ModulesConfig, PolicyDefault};
use myelin::ledger::{Counts, check};
use myelin::node::Node;
use myelin_client::{Client, ClientConfig, Event, SubscribeOptions, TlsFiles};
use myelin_mesh::RouterNumber;
use myelin_transport::TlsIdentity;
use myelin_transport::ca::CertificateAuthority;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

/// How long anything may take to be known everywhere.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A mesh of sites with one router each, all issued by one authority.
pub(crate) struct Sites {
    folder: tempfile::TempDir,
    authority: CertificateAuthority,
    ports: Vec<u16>,
    /// The routers as `SITE/ROUTER`.
    members: Vec<String>,
    /// `[mesh] members`: the routers, and sites by themselves.
    lines: Vec<String>,
    pub(crate) nodes: Vec<Option<Node>>,
}

impl Sites {
    /// Starts `count` sites of one router; `knows(a, b)` says whether site `a` is told the address of site `b`.
    pub(crate) async fn start(count: usize, knows: impl Fn(usize, usize) -> bool) -> Result<Self> {
        let members: Vec<String> = (0..count).map(|site| format!("s{site}/r1")).collect();
        Self::start_as(&members.iter().map(String::as_str).collect::<Vec<_>>(), knows).await
    }

    /// Starts these routers.
    async fn start_as(members: &[&str], knows: impl Fn(usize, usize) -> bool) -> Result<Self> {
        let count = members.len();
        let folder = tempfile::tempdir()?;
        let authority = CertificateAuthority::create("test", 2)?;
        authority.save(folder.path())?;
        // Free at this moment, which has to do: every site must know the others' ports before it starts.
        let sockets = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
        let ports = sockets.iter().map(|socket| Ok(socket.local_addr()?.port())).collect::<Result<Vec<_>>>()?;
        drop(sockets);
        let members: Vec<String> = members.iter().map(|&member| member.to_owned()).collect();
        let lines = members.clone();
        let mut sites = Self { folder, authority, ports, members, lines, nodes: Vec::new() };
        for site in 0..count {
            let seeds = (0..count).filter(|other| *other != site && knows(site, *other)).collect::<Vec<_>>();
            let node = sites.node(site, &seeds, 1).await?;
            sites.nodes.push(Some(node));
        }
        Ok(sites)
    }

    pub(crate) async fn node(&self, site: usize, seeds: &[usize], epoch: u32) -> Result<Node> {
        let folder = self.folder.path();
        let (name, router) = self.members[site].split_once('/').context("SITE/ROUTER")?;
        let issued = self.authority.issue_router(name, router, &["localhost".into(), "127.0.0.1".into()], 1)?;
        let (cert, key) = issued.save(folder, &format!("router-{site}"))?;
        let tls = TlsIdentity::load(&TlsFiles { cert, key, ca: folder.join("ca.pem") })?;
        let mut config = Config::default();
        config.node.site = name.into();
        config.node.name = router.into();
        config.node.workers = 1;
        config.node.data_dir = folder.join(format!("data-{site}"));
        config.node.drain_seconds = 5;
        config.listen.client.set_port(0);
        config.policy.default = PolicyDefault::Allow;
        config.modules = ModulesConfig::OPEN;
        config.wasm.compiler = Some(myelin_tests::program());
        let address = |site: &usize| format!("127.0.0.1:{}", self.ports[*site]);
        config.catalog.join_seconds = 2;
        config.mesh.listen = Some(address(&site).parse()?);
        config.mesh.members = self.lines.clone();
        config.mesh.advertise = vec![address(&site)];
        config.mesh.seeds = seeds.iter().map(address).collect();
        Node::start(&config, &tls, epoch).await
    }

    /// Lets routers that start from now on keep the number of a site that has none.
    pub(crate) fn skip(&mut self, site: &str) {
        self.lines.push(site.to_owned());
    }

    /// Starts a router that was not there from the beginning.
    pub(crate) async fn join(&mut self, member: &str, seeds: &[usize]) -> Result<()> {
        self.ports.push(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port());
        self.members.push(member.to_owned());
        self.lines.push(member.to_owned());
        let node = self.node(self.nodes.len(), seeds, 1).await?;
        self.nodes.push(Some(node));
        Ok(())
    }

    pub(crate) fn at(&self, site: usize) -> &Node {
        self.nodes[site].as_ref().expect("the site runs")
    }

    pub(crate) async fn client(&self, site: usize, name: &str) -> Result<Client> {
        let folder: &Path = self.folder.path();
        let (cert, key) = self.authority.issue_service(name, 1)?.save(folder, name)?;
        let files = TlsFiles { cert, key, ca: folder.join("ca.pem") };
        let config = ClientConfig::new(self.at(site).client_addr().to_string(), files).with_server_name("localhost");
        Ok(Client::connect(config).await?)
    }

    /// Waits until `site` knows of `interest` patterns elsewhere, beside each router's own inboxes, and has a link to each other site that runs.
    pub(crate) async fn knows(&self, site: usize, interest: usize) -> Result<()> {
        let others = self.nodes.iter().flatten().count() - 1;
        let known = async {
            loop {
                let status = self.at(site).mesh_status().load();
                if status.links.len() == others && status.reachable >= others && status.interest >= interest + others {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, known).await;
        waited.with_context(|| format!("site {site} knows {:?}", self.at(site).mesh_status().load()))
    }

    /// Waits until `site` reaches all others over its own links: a route that moves may let events overtake each other.
    async fn is_direct(&self, site: usize) -> Result<()> {
        let outward = self.at(site).shared().outward.as_ref().context("links")?;
        let is_direct = |other: usize| {
            let router = RouterNumber(u32::try_from(other + 1).unwrap_or_default());
            outward.reach.load().routes.hop(router).is_some_and(|hop| hop.neighbour == router)
        };
        let settled = async {
            while !(0..self.nodes.len()).filter(|other| *other != site).all(is_direct) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.context("direct routes")
    }

    /// Ends all sites; their ledgers, each of which must balance.
    pub(crate) async fn end(mut self) -> Result<Vec<Counts>> {
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
    sites.is_direct(0).await?;
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
    assert_eq!((of(0).forwarded, of(1).received, of(2).received), (1_500, 1_000, 500));
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
    // The way back is known as well.
    sites.knows(2, 1).await?;
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
    // Both sides may have dialled at once: of two links one is closed, with what is on it.
    let (mut first, mut second) = (false, false);
    let until = tokio::time::Instant::now() + PATIENCE;
    while !(first && second) {
        ensure!(tokio::time::Instant::now() < until, "first: {first}, second: {second}");
        publisher.send(Event::new("news", "3")).await?;
        first |= tokio::time::timeout(Duration::from_millis(100), events.next()).await.is_ok();
        second |= tokio::time::timeout(Duration::from_millis(100), there.next()).await.is_ok();
    }
    sites.end().await?;
    Ok(())
}

/// A running `myelin serve`; ended with its value.
struct Serving(std::process::Child);

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The fenced blocks of docs/MESH.md of one kind.
fn blocks(kind: &str) -> Vec<String> {
    let page = include_str!("../../../docs/MESH.md");
    let begin = format!("```{kind}\n");
    let parts = page.split(&begin).skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_the_page_make_a_mesh() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ports =
        (0..6).map(|_| Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())).collect::<Result<Vec<u16>>>()?;
    let page_ports = ["7400", "7401", "7480", "7500", "7501", "7580"];
    let here = |text: &str| {
        let replaced = page_ports.iter().zip(&ports);
        replaced.fold(text.to_owned(), |text, (page, port)| text.replace(page, &port.to_string()))
    };
    let myelin = |line: &str| -> Result<std::process::Command> {
        let mut command = std::process::Command::new(myelin_tests::program());
        command.args(line.split_whitespace().skip(1)).current_dir(folder.path());
        Ok(command)
    };
    let commands = blocks("console");
    for line in here(&commands[0]).lines() {
        ensure!(myelin(line)?.status()?.success(), "{line}");
    }
    let mut serving = Vec::new();
    for (site, text) in ["hamburg", "ohio"].iter().zip(blocks("toml")) {
        let file = format!("{site}.toml");
        std::fs::write(folder.path().join(&file), here(&text))?;
        serving.push(Serving(myelin(&format!("myelin serve -c {file}"))?.spawn()?));
    }
    let look = here(commands[1].trim());
    let linked = async {
        loop {
            let shown = myelin(&look)?.output()?;
            if String::from_utf8_lossy(&shown.stdout).contains("hamburg") {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, linked).await.context("a link")??;
    std::fs::write(folder.path().join("all.cedar"), &blocks("cedar")[0])?;
    let apply = here(commands[2].trim());
    ensure!(myelin(&apply)?.status()?.success(), "{apply}");
    let client = |port: u16| {
        let file = |name: &str| folder.path().join(name);
        let files = TlsFiles { cert: file("ops/ops.pem"), key: file("ops/ops-key.pem"), ca: file("pki/ca.pem") };
        Client::connect(ClientConfig::new(format!("127.0.0.1:{port}"), files).with_server_name("localhost"))
    };
    let (hamburg, ohio) = (client(ports[0]).await?, client(ports[3]).await?);
    let mut events = ohio.subscribe("orders/**", SubscribeOptions::default()).await?;
    let arrived = async {
        // Nobody says when interest and policy have arrived: it is asked for until it has.
        loop {
            hamburg.send(Event::new("orders/1", "hello")).await?;
            if let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(100), events.next()).await {
                return anyhow::Ok(event.payload().to_vec());
            }
        }
    };
    ensure!(tokio::time::timeout(PATIENCE, arrived).await.context("an event")?? == b"hello");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routers_of_one_site_serve_all_its_subscribers() -> Result<()> {
    let sites = Sites::start_as(&["s0/r1", "s1/r1", "s1/r2"], |site, other| other + 1 == site).await?;
    let publisher = sites.client(0, "publisher").await?;
    let (first, second) = (sites.client(1, "first").await?, sites.client(2, "second").await?);
    let mut at_first = first.subscribe("a/*", SubscribeOptions::default()).await?;
    let mut at_second = second.subscribe("a/**", SubscribeOptions::default()).await?;
    let mut alone = second.subscribe("b", SubscribeOptions::default()).await?;
    sites.knows(0, 3).await?;
    sites.knows(1, 2).await?;
    sites.knows(2, 1).await?;
    // An answer finds its asker at either router.
    let asked = tokio::spawn({
        let mut echo = publisher.subscribe("echo", SubscribeOptions::default()).await?;
        sites.knows(1, 3).await?;
        sites.knows(2, 2).await?;
        async move {
            for _ in 0..2 {
                let request = echo.next().await.context("a request")?;
                publisher.reply(&request, b"pong").await?;
            }
            anyhow::Ok(publisher)
        }
    });
    for asker in [&first, &second] {
        let answer = tokio::time::timeout(PATIENCE, asker.request("echo", "ping", PATIENCE)).await??;
        ensure!(answer.payload() == b"pong");
    }
    let publisher = asked.await??;
    for number in 0..200 {
        publisher.send(Event::new(if number % 2 == 0 { "a/x" } else { "b" }, &number.to_string())).await?;
    }
    // From a router of the very site, too.
    first.send(Event::new("b", "200")).await?;
    publisher.flush().await;
    first.flush().await;
    for number in (0..200).step_by(2) {
        ensure!(next(&mut at_first).await? == number.to_string() && next(&mut at_second).await? == number.to_string());
    }
    let mut seen = Vec::new();
    for _ in 0..101 {
        seen.push(next(&mut alone).await?.parse::<u32>()?);
    }
    seen.sort_unstable();
    ensure!(seen == (1..200).step_by(2).chain([200]).collect::<Vec<_>>(), "{seen:?}");
    sites.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_is_no_member_or_no_router_gets_no_link() -> Result<()> {
    use myelin_transport::{DialConfig, Dialer, QuicConfig};
    let sites = Sites::start(2, |site, other| other + 1 == site).await?;
    sites.knows(0, 0).await?;
    let dial = async |cert: (std::path::PathBuf, std::path::PathBuf)| {
        let tls = TlsIdentity::load(&TlsFiles { cert: cert.0, key: cert.1, ca: sites.folder.path().join("ca.pem") })?;
        let addr = format!("127.0.0.1:{}", sites.ports[0]).parse()?;
        let config = DialConfig { addr, server_name: "localhost".into(), alpn: "myelin-mesh/1".into(), tls };
        let dialer = Dialer::new(QuicConfig::default()).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        anyhow::Ok((dialer.connect(&config).await?, dialer))
    };
    let hello = |site_name: &str| {
        use myelin_mesh::{Config, Directory, Mesh, SiteNumber};
        let site = SiteNumber::new(1).expect("a site");
        let config = Config::new(site, site_name, RouterNumber(2), "r1", 9);
        let mut frame = Vec::new();
        let hello = Mesh::new(0, config, std::sync::Arc::new(Directory::default())).hello();
        myelin_mesh::Control::Hello(hello).encode(&mut frame).expect("small");
        frame
    };
    // A service; a router that nobody named; one that says that it is another.
    let folder = sites.folder.path();
    let strangers = [
        (sites.authority.issue_service("service", 1)?.save(folder, "service")?, "s1"),
        (sites.authority.issue_router("s9", "r1", &["localhost".into()], 1)?.save(folder, "stranger")?, "s9"),
        (sites.authority.issue_router("s9", "r2", &["localhost".into()], 1)?.save(folder, "liar")?, "s1"),
    ];
    for (cert, says) in strangers {
        // Who is no router may be gone before the connection is ready, or a stream is open.
        let knocked = async {
            let (connection, _dialer) = dial(cert).await?;
            let (mut send, mut recv) = connection.open_bi().await?;
            send.write_all(&hello(says)).await?;
            while let Ok(Some(_)) = tokio::time::timeout(PATIENCE, recv.read_chunk()).await? {}
            anyhow::Ok(tokio::time::timeout(PATIENCE, connection.closed()).await?.to_string())
        };
        let reason = knocked.await.unwrap_or_else(|error| format!("{error:#}"));
        ensure!(reason.contains("router") && reason.contains("code"), "{says}: {reason}");
    }
    sites.knows(0, 0).await?;
    let told = sites.at(0).mesh_status().load().violations.clone();
    ensure!(told.values().sum::<u64>() >= 2, "{told:?}");
    sites.end().await?;
    Ok(())
}
