//! What the routers say would become of an event is what becomes of it.

use crate::filters::{bind, push_built};
use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Overflow, SubscribeOptions, Subscription};
use myelin_tests::relay::Path;
use myelin_tests::sites::{PATIENCE, Sites, shapes};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub(crate) const WHO: &str = "spiffe://test/service/shop";

/// Three sites in a line, with a filter that denies, one that routes, and one at egress; s2 wants orders, s1 and s2 share
/// a queue group.
pub(crate) async fn line() -> Result<(Sites, Vec<(Client, Subscription)>)> {
    let sites = Sites::start(3, &shapes::line(3), 7, |_| Path::default()).await?;
    let router = &sites.routers[0];
    for name in ["topic-policy", "content-route", "redact"] {
        push_built(router, name, name, "0.1.0")?;
    }
    let rules =
        json!({"rules": [{"topic": "orders/secret", "action": "deny", "reason": "not for you"}], "default": "allow"});
    bind(router, "guard", "topic-policy@0.1.0", "orders/**", &["--config", &rules.to_string()])?;
    let routes = json!({"field": "region", "mode": "add", "routes": {"eu": "regions/eu"}}).to_string();
    let more = ["--order", "10", "--config", &routes, "--grant-topic", "regions/**"];
    bind(router, "by-region", "content-route@0.1.0", "orders/**", &more)?;
    let fields = r#"{"fields":["card"],"action":"mask","mask":"***"}"#;
    bind(router, "no-cards", "redact@0.1.0", "orders/**", &["--stage", "egress", "--config", fields])?;
    let mut ears = Vec::new();
    for (number, (site, pattern, group)) in
        [(1, "orders/*", Some("g")), (2, "orders/*", Some("g")), (2, "orders/**", None)].into_iter().enumerate()
    {
        let client = sites.client(site, &format!("ear-{number}"), Overflow::Disconnect).await?;
        let options = group.map_or_else(SubscribeOptions::default, SubscribeOptions::group);
        let subscription = client.subscribe(pattern, options).await?;
        ears.push((client, subscription));
    }
    sites.agree(&[(0, 3), (1, 2), (2, 1)]).await?;
    let newest = revision(&sites, 0)?;
    let begin = Instant::now();
    for site in 1..3 {
        while revision(&sites, site)? < newest {
            ensure!(begin.elapsed() < PATIENCE, "site {site} does not get the filters");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok((sites, ears))
}

/// The generation that judges at a site.
fn revision(sites: &Sites, site: usize) -> Result<u64> {
    let status = sites.routers[site].ask("GET", "/v1/status", &[], b"")?.json();
    status["generation"].as_u64().context("a generation")
}

fn explained(sites: &Sites, site: usize, topic: &str, more: &[&str]) -> Result<Value> {
    sites.routers[site].myelin(&[&["explain", topic, "--as", WHO, "--json"], more].concat())?.json()
}

fn names(list: &Value, field: &str) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
}

/// Site, state, subscribers, groups and number of routers on the way of each destination.
fn ends(explanation: &Value) -> Vec<(String, String, u64, usize, usize)> {
    let ends = explanation["destinations"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    let read = |end: &Value| {
        let subscribers = end["subscribers"].as_u64().unwrap_or(u64::MAX);
        (text(&end["site"]), text(&end["state"]), subscribers, count(&end["groups"]), count(&end["path"]))
    };
    let mut ends: Vec<_> = ends.map(read).collect();
    ends.sort();
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn every_router_on_the_way_says_what_it_would_do() -> Result<()> {
    let (mut sites, _ears) = line().await?;
    let told = explained(&sites, 0, "orders/new", &[])?;
    assert_eq!((&told["origin"], &told["refused"]), (&json!("s0/r1"), &Value::Null));
    assert_eq!(names(&told["ingress"], "name"), ["guard", "by-region"], "{told}");
    let [guard, by_region] = [&told["ingress"][0], &told["ingress"][1]];
    assert_eq!(guard["module"], "topic-policy@0.1.0");
    assert_eq!((&guard["on_fault"], &guard["is_quarantined"]), (&json!("reject"), &json!(false)));
    assert!(guard["digest"].as_str().is_some_and(|digest| digest.len() == 64), "{guard}");
    assert!(guard["reasons"].as_array().is_some_and(|reasons| reasons.contains(&json!("not for you"))), "{guard}");
    assert_eq!((&by_region["routes"], &by_region["order"]), (&json!(["topic:regions/eu"]), &json!(10)));
    // The nearest member of the group, and the plain subscriber behind it.
    let wanted: Vec<_> = told["wanted"].as_array().context("a list")?.iter().collect();
    assert_eq!(wanted.len(), 2, "{told}");
    assert_eq!(
        (&wanted[0]["pattern"], &wanted[0]["group"], &wanted[0]["chosen"]),
        (&json!("orders/*"), &json!("g"), &json!("s1"))
    );
    assert_eq!((&wanted[1]["pattern"], &wanted[1]["routers"]), (&json!("orders/**"), &json!(["s2/r1"])));
    assert_eq!(names(&told["hops"], "router"), ["s0/r1", "s1/r1", "s2/r1"], "{told}");
    let paths = ["s0/r1", "s1/r1", "s2/r1"];
    for (at, hop) in told["hops"].as_array().context("hops")?.iter().enumerate() {
        assert_eq!(hop["path"], json!(paths[..=at]), "{hop}");
        assert_eq!((&hop["no_answer"], &hop["generation"]), (&Value::Null, &json!(revision(&sites, at)?)));
        assert_eq!(names(&hop["egress"], "name"), ["no-cards"], "the origin hands out, the others deliver: {hop}");
    }
    assert_eq!(told["hops"][0]["copies"][0]["sites"], json!(["s1", "s2"]), "one copy for both");
    let reached =
        |site: &str, subscribers, groups, way| (site.to_owned(), "reached".to_owned(), subscribers, groups, way);
    assert_eq!(ends(&told), [reached("s1", 0, 1, 2), reached("s2", 1, 0, 3)]);

    // Asked at one end for the other: what is published there goes to the member that is there.
    let there = explained(&sites, 0, "orders/new", &["--at", "s2"])?;
    assert_eq!(there["origin"], "s2/r1");
    assert_eq!(names(&there["hops"], "router"), ["s2/r1"], "the group has a member at s2: {there}");
    assert_eq!(ends(&there), [reached("s2", 1, 1, 1)]);
    let same = explained(&sites, 2, "orders/new", &[])?;
    assert_eq!(same, there, "the router itself says the same");
    let deep = explained(&sites, 0, "orders/a/b", &["--at", "s1/r1"])?;
    assert_eq!(names(&deep["hops"], "router"), ["s1/r1", "s2/r1"], "{deep}");

    let nobody = explained(&sites, 0, "nothing/here", &[])?;
    assert_eq!((ends(&nobody).len(), names(&nobody["ingress"], "name").len()), (0, 0), "{nobody}");
    let reserved = explained(&sites, 0, "$dead/guard/orders/new", &[])?;
    assert_eq!(reserved["refused"]["code"], "reserved-topic");
    let unknown = sites.routers[0].myelin(&["policy", "explain", WHO, "publish", "orders/new", "--site", "nowhere"])?;
    assert!(unknown.code == Some(2) && unknown.err.contains("no site `nowhere`"), "{unknown:?}");
    let shown = sites.routers[0].myelin(&["explain", "orders/new", "--as", WHO])?.good()?.out;
    for part in
        ["orders/new, published by", "by-region", "route to topic:regions/eu", "s0/r1 > s1/r1 > s2/r1", "reached"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    // A site that is gone is wanted and not reached.
    sites.routers[2].kill()?;
    let begin = Instant::now();
    loop {
        let told = explained(&sites, 0, "orders/new", &[])?;
        if ends(&told).contains(&("s2".into(), "no-path".into(), 0, 0, 1)) {
            assert_eq!(told["wanted"][1]["without_path"], json!(["s2/r1"]), "{told}");
            assert_eq!(ends(&told)[0], reached("s1", 0, 1, 2));
            break;
        }
        ensure!(begin.elapsed() < PATIENCE, "{told}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_explained_is_refused_with_a_code() -> Result<()> {
    let sites = Sites::start(2, &shapes::line(2), 8, |_| Path::default()).await?;
    sites.agree(&[(0, 0), (1, 0)]).await?;
    let router = &sites.routers[0];
    let who = "as=spiffe://test/service/shop";
    for (query, problem) in [
        (format!("topic=a/b&{who}&at=mars"), (404, "not-found")),
        (format!("topic=a/b&{who}&at=s1/r9"), (404, "not-found")),
        (format!("topic=a/**&{who}"), (400, "invalid-topic")),
        (format!("topic=&{who}"), (400, "invalid-topic")),
        ("topic=a/b&as=shop".to_owned(), (400, "invalid-identity")),
        (format!("topic=a/b&{who}&via=x"), (400, "invalid-query")),
        ("topic=a/b".to_owned(), (400, "invalid-query")),
    ] {
        let answer = router.ask("GET", &format!("/v1/explain?{query}"), &[], b"")?;
        assert_eq!(answer.problem(), (problem.0, problem.1.to_owned()), "{query}");
    }
    let exit = |args: &[&str]| -> Result<Option<i32>> { Ok(router.myelin(&[&["explain"], args].concat())?.code) };
    assert_eq!(exit(&["a/b", "--as", WHO, "--at", "mars"])?, Some(3));
    assert_eq!(exit(&["a/*", "--as", WHO])?, Some(2));
    assert_eq!(exit(&["a/b", "--as", "shop"])?, Some(2));
    Ok(())
}
