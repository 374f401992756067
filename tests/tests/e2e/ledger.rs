//! The ledger notices when a single term is not counted.

use anyhow::{Context, Result};
use myelin::config::{Config, ModulesConfig, PolicyDefault};
use myelin::ledger::{Counts, Term, Unbalanced, check};
use myelin::node::Node;
use myelin_client::{Client, ClientConfig, Event, SubscribeOptions, TlsFiles};
use myelin_transport::TlsIdentity;
use myelin_transport::ca::CertificateAuthority;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

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
    config.wasm.compiler = Some(myelin_tests::program());
    let node = Node::start(&config, &tls, 1).await?;
    let (cert, key) = authority.issue_service("client", 1)?.save(folder, "client")?;
    let files = TlsFiles { cert, key, ca: folder.join("ca.pem") };
    let client = ClientConfig::new(node.client_addr().to_string(), files).with_server_name("localhost");
    Ok((node, client))
}

/// A little of everything, then the ledger after the drain, and what `myelin serve` makes its exit code of.
async fn traffic(sabotaged: Option<Term>) -> Result<(Counts, Result<(), Unbalanced>)> {
    let folder = tempfile::tempdir()?;
    let (node, config) = node(folder.path()).await?;
    node.sabotage(sabotaged).await;
    let client = Client::connect(config).await?;
    let mut events = client.subscribe("wanted", SubscribeOptions::default()).await?;
    for _ in 0..10 {
        client.send(Event::new("wanted", "1")).await?;
        client.send(Event::new("unwanted", "2")).await?;
        client.send(Event::new("$reserved", "3")).await?;
        client.send(Event::new("wanted", "4").ttl(Duration::ZERO)).await?;
    }
    client.flush().await;
    for _ in 0..10 {
        events.next().await.context("an event")?;
    }
    // A client that closes before its receipts are through leaves lost copies in place of delivered ones.
    let ledgers = node.ledgers();
    while !sum(&ledgers.read().await).is_settled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    client.close().await;
    let ledger = node.drain().await;
    Ok((sum(&ledger), check(&ledger)))
}

fn sum(ledger: &BTreeMap<u64, Counts>) -> Counts {
    let mut total = Counts::default();
    ledger.values().for_each(|counts| total.add(counts));
    total
}

#[tokio::test(flavor = "multi_thread")]
async fn it_balances_and_every_forgotten_term_shows() -> Result<()> {
    let (honest, checked) = traffic(None).await?;
    assert_eq!(checked, Ok(()));
    assert!(honest.balances() && honest.is_settled(), "{honest:?}");
    assert_eq!((honest.accepted, honest.rejected, honest.expired), (40, 10, 10), "{honest:?}");
    assert_eq!((honest.unmatched, honest.matched, honest.delivered), (10, 10, 10), "{honest:?}");
    // The two gauges are 0 at rest, whoever counts them: they are not among these.
    let terms = [Term::Accepted, Term::Rejected, Term::Expired, Term::Unmatched, Term::Matched, Term::Targets];
    for term in terms.into_iter().chain([Term::Delivered]) {
        let (counts, checked) = traffic(Some(term)).await?;
        assert!(!counts.balances() && checked.is_err(), "without {}: {counts:?}", term.name());
    }
    Ok(())
}
