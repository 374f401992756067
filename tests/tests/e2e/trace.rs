//! A sampled event leaves a record wherever it comes, and only such an event does.

use crate::explain::line;
use crate::routing::decided;
use anyhow::{Context, Result, ensure};
use myelin_client::{Event, Overflow, SubscribeOptions, Subscription};
use myelin_tests::sites::Sites;
use myelin_tests::{Ran, Router, Setup};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

const ORDER: &str = r#"{"region":"eu","card":"4111"}"#;
const PATIENCE: Duration = Duration::from_secs(30);

/// `myelin pub TOPIC --trace` at site 0.
fn publish(sites: &Sites, topic: &str, payload: &str, more: &[&str]) -> Result<Ran> {
    let (cert, key) = sites.authority().issue_service("shop", 1)?.save(sites.folder(), "shop")?;
    let ca = sites.folder().join("ca.pem");
    let [cert, key, ca] = [cert, key, ca].map(|path| path.to_string_lossy().into_owned());
    let whom = ["--cert", &cert, "--key", &key, "--ca", &ca, "--server-name", "localhost"];
    sites.routers[0].myelin(&[&["pub", topic, "-m", payload, "--trace"], &whom[..], more].concat())
}

fn records<'a>(trace: &'a Value, kind: &str, topic: &str) -> Vec<&'a Value> {
    let all = trace["records"].as_array().into_iter().flatten();
    all.filter(|record| !record[kind].is_null() && record["topic"] == topic).collect()
}

/// Binding, verdict and module of each verdict of a hop.
fn verdicts(hop: &Value) -> Vec<(&str, &str, &str)> {
    let all = hop["hop"]["verdicts"].as_array().into_iter().flatten();
    all.map(|verdict| {
        let [binding, said, module] =
            ["binding", "verdict", "module"].map(|field| verdict[field].as_str().unwrap_or_default());
        (binding, said, module)
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_is_followed_over_two_hops_with_every_verdict() -> Result<()> {
    let (sites, mut ears) = line().await?;
    let trace = publish(&sites, "orders/new", ORDER, &["--json"])?.json()?;
    let hops = records(&trace, "hop", "orders/new");
    ensure!(hops.len() == 3 && trace["missing"] == json!({}), "{trace:#}");
    let (guard, region, cards) = ("topic-policy@0.1.0", "content-route@0.1.0", "redact@0.1.0");
    let ingress = [("guard", "pass", guard), ("by-region", "pass", region), ("no-cards", "pass", cards)];
    assert_eq!(verdicts(hops[0]), ingress, "{trace:#}");
    assert_eq!(hops[0]["hop"]["verdicts"][1]["targets"], json!(["topic:regions/eu"]));
    assert_eq!(
        (&hops[0]["hop"]["verdicts"][2]["stage"], &hops[0]["hop"]["verdicts"][2]["changed"]),
        (&json!("egress"), &json!(true))
    );
    let field = |at: usize, name: &str| hops[0]["hop"]["verdicts"][at][name].as_u64().unwrap_or_default();
    for at in 0..3 {
        let (began, took) = (field(at, "began_ns"), field(at, "batch_took_ns"));
        assert!(took > 0 && hops[0]["hop"]["verdicts"][at]["digest"].as_str().map(str::len) == Some(64), "{trace:#}");
        let next = if at < 2 { field(at + 1, "began_ns") } else { hops[0]["took_ns"].as_u64().unwrap_or_default() };
        assert!(began + took <= next, "one after the other: {trace:#}");
    }
    // One id at all of them, which every router derives by itself.
    assert!(hops.iter().all(|hop| hop["event"].as_str().map(str::len) == Some(37) && hop["event"] == hops[0]["event"]));
    assert_eq!((&hops[0]["hop"]["sites"], &hops[0]["hop"]["from"]), (&json!(["s1", "s2"]), &Value::Null));
    assert_eq!(hops[0]["hop"]["publisher"], "spiffe://test/service/shop");
    for (at, hop) in hops.iter().enumerate() {
        assert_eq!((&hop["router"], &hop["hop"]["outcome"]), (&json!(format!("s{at}/r1")), &json!("routed")), "{hop}");
        assert!(hop["hop"]["generation"].as_u64() > Some(0) && hop["trace_id"] == trace["trace_id"], "{hop}");
        if at > 0 {
            // What was sent by a link is the parent of what came, though the two routers have exchanged no number.
            assert_eq!(verdicts(hop), [("no-cards", "pass", cards)]);
            let links = records(&trace, "link", "orders/new");
            let by =
                links.iter().find(|link| link["span_id"] == hop["parent_id"]).context("the copy that it came by")?;
            assert_eq!((&by["router"], &by["parent_id"]), (&hops[at - 1]["router"], &hops[at - 1]["span_id"]));
            assert_eq!((&by["link"]["to"], &by["link"]["hops"]), (&hop["router"], &json!(at)));
            let sent = records(&trace, "delivery", "orders/new");
            let here: Vec<_> = sent.iter().filter(|sent| sent["parent_id"] == hop["span_id"]).collect();
            assert_eq!(here.len(), 1, "{trace:#}");
            assert_eq!(here[0]["router"], hop["router"]);
        }
    }
    // The copy that the filter made is an event of the same trace that nobody wants.
    let made = records(&trace, "hop", "regions/eu");
    assert_eq!((made.len(), &made[0]["hop"]["outcome"]), (1, &json!("unmatched")), "{trace:#}");
    assert_eq!(made[0]["parent_id"], hops[0]["parent_id"], "of the publisher");

    let denied = publish(&sites, "orders/secret", ORDER, &["--json"])?;
    assert_eq!(denied.code, Some(4), "{}", denied.err);
    let trace: Value = serde_json::from_str(&denied.out)?;
    let [hop] = &records(&trace, "hop", "orders/secret")[..] else { anyhow::bail!("{trace:#}") };
    assert_eq!((&hop["hop"]["outcome"], verdicts(hop)), (&json!("deny"), vec![("guard", "deny", guard)]));
    assert_eq!(hop["hop"]["verdicts"][0]["reason"], "not for you");
    let shown = publish(&sites, "orders/new", ORDER, &[])?.good()?.out;
    for part in
        ["publish", "ingress guard", "egress no-cards", "to s1/r1", "receive", "deliver", "redact@0.1.0 changed"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let (_, ear) = ears.last_mut().context("a subscriber of orders/** at s2")?;
    passed_on(&sites)?;
    for _ in 0..3 {
        timeout(PATIENCE, ear.next()).await?.context("the events before")?;
    }
    carried(&sites, ear).await
}

/// A router between passes an event on without judging it, and says so.
fn passed_on(sites: &Sites) -> Result<()> {
    let trace = publish(sites, "orders/a/b", ORDER, &["--json"])?.json()?;
    let hops = records(&trace, "hop", "orders/a/b");
    let outcomes: Vec<_> = hops.iter().map(|hop| hop["hop"]["outcome"].as_str().unwrap_or_default()).collect();
    assert_eq!(outcomes, ["routed", "passed-on", "routed"], "{trace:#}");
    let counts: Vec<_> = hops.iter().map(|hop| verdicts(hop).len()).collect();
    assert_eq!(counts, [3, 0, 1], "{trace:#}");
    assert_eq!((&hops[1]["hop"]["from"], &hops[1]["hop"]["sites"]), (&json!("s0/r1"), &json!(["s2"])));
    Ok(())
}

/// The publisher's own traceparent comes to every subscriber as it was; whoever is not sampled leaves nothing.
async fn carried(sites: &Sites, ear: &mut Subscription) -> Result<()> {
    let client = sites.client(0, "tracer", Overflow::Disconnect).await?;
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let other = "5bf92f3577b34da6a3ce929d0e0e4736";
    let good = format!("00-{id}-00f067aa0ba902b7-01");
    for traceparent in [&*good, &format!("00-{other}-00f067aa0ba902b7-00"), &format!("00-{other}-01"), ""] {
        decided(&client, Event::new("orders/new", ORDER).traceparent(traceparent)).await?;
        let came = timeout(PATIENCE, ear.next()).await?.context("an event")?;
        assert_eq!(came.traceparent(), Some(traceparent));
    }
    let ask = |path: String| sites.routers[0].ask("GET", &path, &[], b"");
    let own = ask(format!("/v1/traces/{id}"))?.json();
    assert_eq!(records(&own, "hop", "orders/new")[0]["parent_id"], "00f067aa0ba902b7");
    assert_eq!(own["routers"].as_array().map(Vec::len), Some(1), "only this router was asked: {own}");
    for (path, problem) in [
        (format!("{other}?mesh=true"), (404, "not-found")),
        (other.to_owned(), (404, "not-found")),
        ("xyz".to_owned(), (400, "invalid-trace-id")),
        ("0".repeat(32), (400, "invalid-trace-id")),
        (format!("{id}?all=1"), (400, "invalid-query")),
    ] {
        assert_eq!(ask(format!("/v1/traces/{path}"))?.problem(), (problem.0, problem.1.to_owned()), "{path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_do_not_arrive_say_what_became_of_them() -> Result<()> {
    let variables = vec![("MYELIN_OUTBOX__EVENTS".to_owned(), "64".to_owned())];
    let router = Router::start_with(Setup { workers: 1, variables })?;
    // Neither reads for now: the library's own queue fills, then the stream's credit, then the outbox.
    let (late, gone) =
        (router.client_with(Overflow::DropOldest).await?, router.client_with(Overflow::DropOldest).await?);
    let mut late_ear = late.subscribe("flood", SubscribeOptions::default()).await?;
    let gone_ear = gone.subscribe("flood", SubscribeOptions::default()).await?;
    let publisher = router.client().await?;
    let payload = vec![7; 16 * 1024];
    let flood = async |events: usize| -> Result<()> {
        for _ in 0..events {
            publisher.send(Event::new("flood", &payload)).await?;
        }
        publisher.flush().await;
        Ok(())
    };
    let traced = |id: &str| Event::new("flood", "traced").traceparent(&format!("00-{id}-00f067aa0ba902b7-01"));
    let outcomes = |id: &str| -> Result<Vec<String>> {
        let trace = router.ask("GET", &format!("/v1/traces/{id}"), &[], b"")?.json();
        let sent = records(&trace, "delivery", "flood");
        let mut found: Vec<_> =
            sent.iter().map(|record| record["delivery"]["outcome"].as_str().unwrap_or_default().to_owned()).collect();
        found.sort_unstable();
        Ok(found)
    };
    let eventually = async |id: &str, expected: &[&str]| -> Result<()> {
        crate::attacks::eventually("the trace", || Ok(outcomes(id)? == expected)).await
    };
    let (first, second) = ("1bf92f3577b34da6a3ce929d0e0e4736", "2bf92f3577b34da6a3ce929d0e0e4736");
    flood(4_000).await?;
    decided(&publisher, traced(first)).await?;
    flood(100).await?;
    eventually(first, &["shed", "shed"]).await?;
    decided(&publisher, traced(second).ttl(Duration::from_millis(1))).await?;
    assert_eq!(outcomes(second)?, [""; 0], "it waits");
    gone.close().await;
    eventually(second, &["lost"]).await?;
    // Until here: without it the library would have read on, and thrown away what comes.
    drop(gone_ear);
    let reading = tokio::spawn(async move { while late_ear.next().await.is_some() {} });
    eventually(second, &["expired", "lost"]).await?;
    reading.abort();
    let ledger = router.settled_ledger()?;
    assert_eq!((&ledger["balances"], &ledger["total"]["copies_expired"]), (&json!(true), &json!(1)), "{ledger}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_samples_everything_fills_no_router() -> Result<()> {
    const EVENTS: u64 = 20_000;
    let router = Router::start()?;
    let client = router.client().await?;
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    for _ in 0..EVENTS {
        client.send(Event::new("flood/x", "x").traceparent(&format!("00-{id}-00f067aa0ba902b7-01"))).await?;
    }
    client.flush().await;
    let trace = router.ask("GET", &format!("/v1/traces/{id}?mesh=true"), &[], b"")?.json();
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let listed = trace["records"].as_array().map_or(0, Vec::len) as u64;
    let [left_out, skipped] = ["left_out", "not_recorded"].map(|field| count(&trace["routers"][0][field]));
    ensure!(skipped > 0 && (1..=1_000).contains(&listed), "{listed} listed, {left_out} left out, {skipped} skipped");
    ensure!(listed + left_out + skipped <= EVENTS, "{listed} + {left_out} + {skipped}");
    client.close().await;
    let ledger = router.settled_ledger()?;
    assert_eq!((&ledger["balances"], &ledger["total"]["unmatched"]), (&json!(true), &json!(EVENTS)), "{ledger}");
    let metrics = String::from_utf8(router.ask("GET", "/metrics", &[], b"")?.body)?;
    assert!(metrics.contains(&format!("\nmyelin_trace_not_recorded_total {skipped}\n")), "{metrics}");
    Ok(())
}
