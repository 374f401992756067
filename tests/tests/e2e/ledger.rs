//! The ledger notices when a single term is not counted.

use crate::filters::built;
use crate::mesh::{PATIENCE, Sites};
use anyhow::{Context, Result, ensure};
use myelin::config::{Config, ModulesConfig, PolicyDefault};
use myelin::ledger::{Counts, Term, check};
use myelin::node::Node;
use myelin::world::Actor;
use myelin_catalog::Binding;
use myelin_client::{Client, ClientConfig, Event, Overflow, SubscribeOptions, TlsFiles};
use myelin_tests::guests::{Behaviour, component};
use myelin_transport::TlsIdentity;
use myelin_transport::ca::CertificateAuthority;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// At rest they are 0, whoever counts them: forgetting one shows only while something is on its way.
const GAUGES: [Term; 2] = [Term::InPipeline, Term::InQueue];
/// What only a router with neighbours counts. Every other term has to occur in [`traffic`].
const BETWEEN_SITES: [Term; 2] = [Term::Received, Term::Forwarded];
/// Events that may wait for one subscriber.
const OUTBOX_EVENTS: usize = 16;
/// What a reader is sent that does not read: several times what its outbox, its window and its queue hold.
const SLOW_ROUNDS: usize = 16;
const SLOW_BYTES: usize = 8 * 1024;
/// A time to live that runs out while an event waits.
const SHORT: Duration = Duration::from_millis(50);

/// A router in this process, so that its ledger can be sabotaged.
async fn node(folder: &Path) -> Result<(Node, ClientConfig)> {
    let authority = CertificateAuthority::create("test", 2)?;
    authority.save(folder)?;
    let (cert, key) = authority.issue_router("site", "r1", &["localhost".into()], 1)?.save(folder, "router")?;
    let tls = TlsIdentity::load(&TlsFiles { cert, key, ca: folder.join("ca.pem") })?;
    let mut config = Config::default();
    config.node.workers = 2;
    config.node.data_dir = folder.join("data");
    config.node.drain_seconds = 5;
    config.listen.client.set_port(0);
    config.policy.default = PolicyDefault::Allow;
    config.modules = ModulesConfig::OPEN;
    config.outbox.events = OUTBOX_EVENTS;
    config.wasm.compiler = Some(myelin_tests::program());
    let node = Node::start(&config, &tls, 1).await?;
    let (cert, key) = authority.issue_service("client", 1)?.save(folder, "client")?;
    let files = TlsFiles { cert, key, ca: folder.join("ca.pem") };
    let client = ClientConfig::new(node.client_addr().to_string(), files).with_server_name("localhost");
    Ok((node, client))
}

/// The filters whose verdicts the ledger counts: name, bytes, and the binding.
fn filters() -> Result<Vec<(&'static str, Vec<u8>, Value)>> {
    let marked = component(Behaviour::DropMarked)?;
    let objects = json!({"schema": {"type": "object"}, "on_invalid": "dead-letter"});
    let copies = json!({"field": "region", "mode": "add", "routes": {"eu": "regions/eu"}});
    Ok(vec![
        ("marked", marked.clone(), json!({"pattern": "in/**"})),
        ("marked-out", marked, json!({"pattern": "out/**", "stage": "egress"})),
        ("objects", std::fs::read(built("schema-json")?)?, json!({"pattern": "objects/**", "config": objects})),
        (
            "copies",
            std::fs::read(built("content-route")?)?,
            json!({"pattern": "copied/**", "config": copies, "grant": {"topics": ["regions/**"]}}),
        ),
    ])
}

/// Makes all of them judge.
async fn deploy(node: &Node) -> Result<()> {
    let (world, ann) = (node.world(), || -> Actor { "ann".into() });
    for (name, bytes, mut binding) in filters()? {
        world.add_module(name.parse()?, "1.0.0".parse()?, bytes.into(), ann()).await?;
        binding["name"] = name.into();
        binding["module"] = format!("{name}@1.0.0").into();
        world.stage(serde_json::from_value::<Binding>(binding)?, None, ann()).await?;
    }
    world.rollout(ann()).await?;
    Ok(())
}

/// A client that takes next to nothing in before it reads.
fn slow(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone().with_overflow(Overflow::DropOldest).with_reconnect(false);
    (config.queue_events_max, config.queue_bytes_max) = (1, 4 * 1024);
    (config.quic.stream_window_bytes, config.quic.connection_window_bytes) = (16 * 1024, 16 * 1024);
    config
}

/// The ledger of all generations, once nothing is on its way.
async fn settled(node: &Node) -> Result<Counts> {
    let ledgers = node.ledgers();
    let at_rest = async {
        loop {
            let counts = sum(&ledgers.read().await);
            if counts.is_settled() {
                return counts;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, at_rest).await.context("the ledger settles")
}

/// What was counted between two looks.
fn between(before: &Counts, after: &Counts) -> Result<Counts> {
    let value = |counts: &Counts| -> Result<BTreeMap<String, u64>> {
        Ok(serde_json::from_value(serde_json::to_value(counts)?)?)
    };
    let before = value(before)?;
    let grown = value(after)?.into_iter().map(|(term, after)| {
        let grown = after.wrapping_sub(before[&term]);
        (term, grown)
    });
    Ok(serde_json::from_value(serde_json::to_value(grown.collect::<BTreeMap<_, _>>())?)?)
}

/// Something of everything that one router can count.
async fn traffic(node: &Node, config: &ClientConfig) -> Result<()> {
    let client = Client::connect(config.clone()).await?;
    let mut events = client.subscribe("wanted", SubscribeOptions::default()).await?;
    let _outside = client.subscribe("out/**", SubscribeOptions::default()).await?;
    for _ in 0..10 {
        client.send(Event::new("wanted", "1")).await?;
        client.send(Event::new("unwanted", "2")).await?;
        client.send(Event::new("$reserved", "3")).await?;
        client.send(Event::new("wanted", "4").ttl(Duration::ZERO)).await?;
        client.send(Event::new("in/a", "Dropped")).await?;
        client.send(Event::new("out/a", "Denied at the way out")).await?;
        client.send(Event::new("objects/a", "[]")).await?;
        client.send(Event::new("copied/a", r#"{"region":"eu"}"#)).await?;
    }
    client.flush().await;
    for _ in 0..10 {
        timeout(PATIENCE, events.next()).await?.context("an event")?;
    }
    // Two that do not read: most of what is sent to them is shed, and the rest waits.
    let (reader, killed) = (Client::connect(slow(config)).await?, Client::connect(slow(config)).await?);
    let mut late = reader.subscribe("slow", SubscribeOptions::default()).await?;
    let never = killed.subscribe("slow", SubscribeOptions::default()).await?;
    let payload = vec![7; SLOW_BYTES];
    for _ in 0..SLOW_ROUNDS {
        for _ in 0..OUTBOX_EVENTS / 2 {
            client.send(Event::new("slow", &payload)).await?;
        }
        // One batch for each round: what is shed goes in batches.
        client.flush().await;
    }
    for _ in 0..3 {
        client.send(Event::new("slow", "short-lived").ttl(SHORT)).await?;
    }
    client.flush().await;
    // Without a word, with copies on their way to it.
    drop((never, killed));
    tokio::time::sleep(2 * SHORT).await;
    let reading = tokio::spawn(async move { while late.next().await.is_some() {} });
    settled(node).await?;
    reading.abort();
    reader.close().await;
    // A client that closes before its receipts are through leaves lost copies in place of delivered ones.
    client.close().await;
    Ok(())
}

fn sum(ledger: &BTreeMap<u64, Counts>) -> Counts {
    let mut total = Counts::default();
    ledger.values().for_each(|counts| total.add(counts));
    total
}

/// What is counted at one of two sites, the forgetful one, for an event that site 0 sends to site 1.
async fn between_sites(site: usize, sabotaged: Term) -> Result<Counts> {
    let sites = Sites::start(2, |site, other| other + 1 == site).await?;
    let (near, far) = (sites.client(0, "near").await?, sites.client(1, "far").await?);
    let mut events = far.subscribe("orders/**", SubscribeOptions::default()).await?;
    sites.knows(0, 1).await?;
    sites.at(site).sabotage(Some(sabotaged)).await;
    near.send(Event::new("orders/a", "hello")).await?;
    near.flush().await;
    timeout(PATIENCE, events.next()).await?.context("an event")?;
    let counts = [settled(sites.at(0)).await?, settled(sites.at(1)).await?];
    ensure!(counts[1 - site].balances(), "the other site forgets nothing: {:?}", counts[1 - site]);
    Ok(counts[site])
}

#[tokio::test(flavor = "multi_thread")]
async fn it_balances_and_every_forgotten_term_shows() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (node, config) = node(folder.path()).await?;
    deploy(&node).await?;
    traffic(&node, &config).await?;
    let honest = settled(&node).await?;
    ensure!(honest.balances(), "{honest:?}");
    ensure!((honest.unmatched, honest.expired, honest.dropped) == (10 + 30, 10, 10), "{honest:?}");
    ensure!((honest.dead_lettered, honest.emitted, honest.egress_rejected) == (10, 20, 10), "{honest:?}");
    for term in Term::ALL.iter().copied().filter(|term| !GAUGES.contains(term)) {
        if BETWEEN_SITES.contains(&term) {
            ensure!(honest.get(term) == 0, "{} has been counted at a router that is alone", term.name());
            let site = usize::from(term == Term::Received);
            let counts = between_sites(site, term).await?;
            ensure!(!counts.balances(), "without {}: {counts:?}", term.name());
            continue;
        }
        ensure!(honest.get(term) > 0, "the traffic of this test has nothing that is {}: {honest:?}", term.name());
        let before = settled(&node).await?;
        node.sabotage(Some(term)).await;
        traffic(&node, &config).await?;
        let counts = between(&before, &settled(&node).await?)?;
        let checked = check(&BTreeMap::from([(1, counts)]));
        ensure!(!counts.balances() && checked.is_err(), "without {}: {counts:?}", term.name());
        node.sabotage(None).await;
    }
    node.drain().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_drained_balances_and_one_that_forgets_does_not() -> Result<()> {
    for (sabotaged, is_good) in [(None, true), (Some(Term::Delivered), false)] {
        let folder = tempfile::tempdir()?;
        let (node, config) = node(folder.path()).await?;
        deploy(&node).await?;
        node.sabotage(sabotaged).await;
        traffic(&node, &config).await?;
        let ledger = node.drain().await;
        ensure!(check(&ledger).is_ok() == is_good && sum(&ledger).is_settled(), "{ledger:?}");
    }
    Ok(())
}
