//! Events stay where the rules for topics, and filters, let them be: not even the way leads elsewhere.

use crate::filters::{bind, push_built};
use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Event, Outcome, Overflow, SubscribeOptions, Subscription};
use myelin_tests::relay::Path;
use myelin_tests::sites::{PATIENCE, Sites, shapes};
use myelin_tests::{Router, Setup};
use myelin_wire::Code;
use tokio::time::timeout;

/// Three sites, each with a subscriber to everything and a publisher.
struct Three {
    sites: Sites,
    subscribers: Vec<(Client, Subscription)>,
    publishers: Vec<Client>,
}

impl Three {
    async fn start(links: &[(usize, usize)], pattern: &str) -> Result<Self> {
        let sites = Sites::start(3, links, 71, |_| Path::default()).await?;
        let (mut subscribers, mut publishers) = (Vec::new(), Vec::new());
        for site in 0..3 {
            let client = sites.client(site, &format!("sub-{site}"), Overflow::Pause).await?;
            let events = client.subscribe(pattern, SubscribeOptions::default()).await?;
            subscribers.push((client, events));
            publishers.push(sites.client(site, &format!("pub-{site}"), Overflow::Pause).await?);
        }
        sites.agree(&[(0, 2), (1, 2), (2, 2)]).await?;
        Ok(Self { sites, subscribers, publishers })
    }

    async fn publish(&self, site: usize, topic: &str, payload: &str) -> Result<Outcome> {
        let ticket = self.publishers[site].publish(Event::new(topic, payload)).await?;
        Ok(timeout(PATIENCE, ticket).await?)
    }

    /// Publishes at `from`; these sites get it as their next event.
    async fn reaches(&mut self, from: usize, topic: &str, payload: &str, sites: &[usize]) -> Result<()> {
        let outcome = self.publish(from, topic, payload).await?;
        ensure!(matches!(outcome, Outcome::Acked), "{payload} from {from}: {outcome:?}");
        for site in sites {
            let next = timeout(PATIENCE, self.subscribers[*site].1.next()).await;
            let event = next.with_context(|| format!("{payload} at {site}"))?.context("it ended")?;
            ensure!(event.payload() == payload.as_bytes(), "{:?} came to {site}, not {payload}", event.payload());
        }
        Ok(())
    }

    /// Runs `myelin topic` at a site, and waits until every site has as many rules as `rules`.
    async fn topic(&self, site: usize, args: &[&str], rules: usize) -> Result<String> {
        let ran = self.sites.routers[site].myelin(&[&["topic"], args].concat())?.good()?;
        let head = self.sites.routers[site].ask("GET", "/v1/topics", &[], b"")?.json()["revision"].clone();
        for router in &self.sites.routers {
            crate::attacks::eventually("the rules", || {
                let topics = router.ask("GET", "/v1/topics", &[], b"")?.json();
                let count = topics["rules"].as_array().map_or(0, Vec::len);
                Ok(count == rules && topics["revision"].as_u64() >= head.as_u64())
            })
            .await?;
        }
        Ok(ran.out)
    }

    fn figure(&self, site: usize, name: &str) -> Result<u64> {
        let topics = self.sites.routers[site].ask("GET", "/v1/topics", &[], b"")?.json();
        topics[name].as_u64().context("a figure")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_for_topics_binds_destinations_and_ways() -> Result<()> {
    let mut three = Three::start(&shapes::line(3), "orders/**").await?;
    three.reaches(0, "orders/1", "everywhere", &[0, 1, 2]).await?;
    // At a router that does not write the catalog.
    let said = three.topic(2, &["apply", "here", "orders/**", "--site", "s0"], 1).await?;
    ensure!(said.contains("may be at s0"), "{said}");
    three.reaches(0, "orders/1", "at home", &[0]).await?;
    ensure!(three.figure(0, "held_back")? == 2);
    let refused = three.publish(2, "orders/1", "abroad").await?;
    ensure!(matches!(refused, Outcome::Refused { code: Code::Residency, .. }), "{refused:?}");
    ensure!(three.figure(2, "refused")? == 1);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced = Event::new("orders/1", "abroad").traceparent(&format!("00-{trace}-00f067aa0ba902b7-01"));
    timeout(PATIENCE, three.publishers[2].publish(traced).await?).await?;
    let recorded = three.sites.routers[2].ask("GET", &format!("/v1/traces/{trace}"), &[], b"")?.json();
    let hop = &recorded["records"][0]["hop"];
    let detail = hop["detail"].as_str().unwrap_or_default();
    ensure!(hop["outcome"] == "refused" && detail.starts_with("residency: a topic rule"), "{recorded:#}");
    // Both ends of the line may have it, and the only way leads through the middle, which may not.
    three.topic(0, &["apply", "here", "orders/**", "--site", "s0", "--site", "s2"], 1).await?;
    three.reaches(0, "orders/1", "no way", &[0]).await?;
    ensure!(three.figure(0, "held_back")? == 4);
    let explained =
        three.sites.routers[0].myelin(&["explain", "orders/1", "--as", "spiffe://test/service/anybody"])?.good()?.out;
    for said in ["NOT ALLOWED at s1", "NO ALLOWED PATH to s2"] {
        ensure!(explained.contains(said), "{said}: {explained}");
    }
    // A second rule takes away what the first one gives.
    three.topic(1, &["apply", "none", "orders/secret", "--region", "mars*"], 2).await?;
    let refused = three.publish(0, "orders/secret", "nowhere").await?;
    ensure!(matches!(refused, Outcome::Refused { code: Code::Residency, .. }), "{refused:?}");
    for (site, series) in
        [(2, "refused_events_total 2"), (0, "refused_events_total 1"), (0, "held_back_copies_total 4")]
    {
        let metrics = String::from_utf8(three.sites.routers[site].ask("GET", "/metrics", &[], b"")?.body)?;
        ensure!(metrics.contains(&format!("\nmyelin_residency_{series}\n")), "{series}: {metrics}");
    }
    three.topic(0, &["rm", "none"], 1).await?;
    three.topic(0, &["rm", "here"], 0).await?;
    // Nothing of what was held back comes late.
    three.reaches(0, "orders/1", "again", &[0, 1, 2]).await?;
    three.reaches(2, "orders/1", "from there", &[0, 1, 2]).await?;
    let wrong = three.sites.routers[0].myelin(&["topic", "apply", "x", "$dead/**", "--site", "s0"])?;
    ensure!(wrong.code != Some(0) && wrong.err.contains("router's own"), "{}", wrong.err);
    three.sites.settle().await?;
    three.sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_filter_makes_where_it_delivers_is_held_back_there() -> Result<()> {
    let mut three = Three::start(&shapes::mesh(3), "**").await?;
    let router = &three.sites.routers[0];
    push_built(router, "content-route", "copies", "0.1.0")?;
    let config = r#"{"field":"to","mode":"add","routes":{"x":"copy/x"}}"#;
    let more = ["--stage", "egress", "--config", config, "--grant-topic", "copy/**"];
    bind(router, "copies", "copies@0.1.0", "made/**", &more)?;
    three.topic(0, &["apply", "there", "copy/**", "--site", "s1"], 1).await?;
    // Each site makes a copy for itself, and only one of them may have it: there it stays, whoever wants it elsewhere.
    three.reaches(0, "made/a", r#"{"to":"x"}"#, &[0, 1, 2]).await?;
    let copy = timeout(PATIENCE, three.subscribers[1].1.next()).await?.context("the copy at its site")?;
    ensure!(copy.topic() == "copy/x", "{}", copy.topic());
    ensure!((three.figure(0, "refused")?, three.figure(2, "refused")?) == (1, 1));
    ensure!((three.figure(1, "refused")?, three.figure(1, "held_back")?) == (0, 2));
    three.sites.settle().await?;
    three.sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_lets_events_go_to_some_sites_only() -> Result<()> {
    let mut three = Three::start(&shapes::mesh(3), "**").await?;
    let router = &three.sites.routers[0];
    push_built(router, "content-route", "by-place", "0.1.0")?;
    let config = r#"{"field":"to","routes":{"two":"site:s2","here":"site:s0"}}"#;
    let refused = router.myelin(&[
        "bind",
        "by-place",
        "--module",
        "by-place@0.1.0",
        "--pattern",
        "routed/**",
        "--config",
        config,
    ])?;
    ensure!(refused.code != Some(0) && refused.err.contains("site:"), "not granted: {}", refused.err);
    bind(
        router,
        "by-place",
        "by-place@0.1.0",
        "routed/**",
        &["--config", config, "--grant-site", "s2", "--grant-site", "s0"],
    )?;
    three.reaches(0, "routed/a", r#"{"to":"two","n":1}"#, &[2]).await?;
    three.reaches(0, "routed/a", r#"{"to":"here","n":2}"#, &[0]).await?;
    three.reaches(0, "routed/a", r#"{"to":"else","n":3}"#, &[0, 1, 2]).await?;
    // A rule for the topic holds beside what the filter says.
    three.topic(0, &["apply", "not-two", "routed/**", "--site", "s0", "--site", "s1"], 1).await?;
    three.reaches(0, "routed/a", r#"{"to":"two","n":4}"#, &[]).await?;
    three.reaches(0, "routed/a", r#"{"to":"else","n":5}"#, &[0, 1]).await?;
    three.topic(0, &["rm", "not-two"], 0).await?;
    three.reaches(0, "plain", "all", &[0, 1, 2]).await?;
    three.sites.settle().await?;
    three.sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_without_links_keeps_to_the_rules_for_its_own_site() -> Result<()> {
    let variables = vec![("MYELIN_NODE__REGION".to_owned(), "eu-north".to_owned())];
    let router = Router::start_with(Setup { workers: 2, variables })?;
    let (client, publisher) = (router.client().await?, router.client().await?);
    let mut events = client.subscribe("near/**", SubscribeOptions::default()).await?;
    let rule = |place: &[&str]| router.myelin(&[&["topic", "apply", "near", "near/**"], place].concat())?.good();

    rule(&["--site", "elsewhere"])?;
    let refused = timeout(PATIENCE, publisher.publish(Event::new("near/1", "secret")).await?).await?;
    ensure!(matches!(refused, Outcome::Refused { code: Code::Residency, .. }), "{refused:?}");
    let said = router.myelin(&["explain", "near/1", "--as", "spiffe://a/service/b"])?.out;
    ensure!(said.contains("a topic rule keeps it from this site"), "{said}");
    let topics = router.ask("GET", "/v1/topics", &[], b"")?.json();
    ensure!(topics["refused"] == 1 && topics["rules"][0]["allowed"] == serde_json::json!([]), "{topics}");

    // Its region is all that a rule needs.
    rule(&["--region", "eu-*"])?;
    let acked = timeout(PATIENCE, publisher.publish(Event::new("near/1", "open")).await?).await?;
    ensure!(matches!(acked, Outcome::Acked), "{acked:?}");
    let event = timeout(PATIENCE, events.next()).await?.context("it ended")?;
    ensure!(event.payload() == b"open", "what was refused came: {:?}", event.payload());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_with_which_the_mesh_began_is_said_to_be_in_a_region_and_rules_follow_at_once() -> Result<()> {
    let mut three = Three::start(&shapes::line(3), "orders/**").await?;
    three.topic(0, &["apply", "eu", "orders/**", "--region", "eu-*"], 1).await?;
    let nowhere = three.publish(0, "orders/1", "nowhere").await?;
    ensure!(matches!(nowhere, Outcome::Refused { code: Code::Residency, .. }), "{nowhere:?}");
    let numbers = |mesh: &serde_json::Value| mesh["members"].clone();
    let before = three.sites.routers[0].ask("GET", "/v1/mesh/sites", &[], b"")?.json();
    // At a router that does not write the catalog.
    for site in ["s0", "s1"] {
        three.sites.routers[2].myelin(&["site", "set", site, "--region", "eu-central"])?.good()?;
    }
    for router in &three.sites.routers {
        crate::attacks::eventually("the regions", || {
            let sites = router.ask("GET", "/v1/mesh/sites", &[], b"")?.json();
            let regions = sites["sites"].as_array().into_iter().flatten().map(|site| site["region"].as_str());
            let is_there = regions.eq([Some("eu-central"), Some("eu-central"), Some("unset")]);
            Ok(is_there && numbers(&sites) == numbers(&before))
        })
        .await?;
    }
    three.reaches(0, "orders/1", "in europe", &[0, 1]).await?;
    let abroad = three.publish(2, "orders/1", "abroad").await?;
    ensure!(matches!(abroad, Outcome::Refused { code: Code::Residency, .. }), "{abroad:?}");
    three.sites.settle().await?;
    three.sites.end()
}
