//! Limits and duplicates that hold over all workers: what a filter keeps is shared by its instances.

use crate::filters::{bind, push_built};
use crate::routing::{PATIENCE, decided};
use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Event, Outcome, SubscribeOptions, Subscription};
use myelin_tests::Router;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use tokio::time::timeout;

/// Connections after which both workers have one: the kernel spreads them by a hash of the port, so that fewer than this
/// is all but certain.
const CONNECTIONS_MAX: usize = 64;

/// How many connections each worker has taken, as the admin API tells it.
fn accepted(router: &Router) -> Result<Vec<u64>> {
    let mut stream = TcpStream::connect(router.admin_addr())?;
    write!(stream, "GET /v1/clients HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", router.admin_addr())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer")?;
    let clients: Value = serde_json::from_str(body).with_context(|| answer.clone())?;
    let workers = clients["workers"].as_array().context("workers")?;
    Ok(workers.iter().map(|worker| worker["accepted"].as_u64().unwrap_or_default()).collect())
}

/// A client on each of the two workers.
pub(crate) async fn one_on_each_worker(router: &Router) -> Result<[Client; 2]> {
    let mut found: [Option<Client>; 2] = [None, None];
    let mut before = accepted(router)?;
    ensure!(before.len() == 2, "two workers: {before:?}");
    for _ in 0..CONNECTIONS_MAX {
        let client = router.client().await?;
        let after = accepted(router)?;
        let worker = usize::from(after[1] > before[1]);
        before = after;
        found[worker] = Some(client);
        if let [Some(_), Some(_)] = &found {
            let [first, second] = found;
            return Ok([first.context("on the first")?, second.context("on the second")?]);
        }
    }
    anyhow::bail!("{CONNECTIONS_MAX} connections, and all on one worker: {before:?}")
}

/// Publishes `payloads` one after the other; how many were acknowledged.
async fn publish(client: &Client, topic: &str, payloads: std::ops::Range<usize>) -> Result<usize> {
    let mut acked = 0;
    for payload in payloads {
        let payload = payload.to_string();
        let event = Event::new(topic, &payload).header("x-request-id", &payload);
        acked += usize::from(matches!(decided(client, event).await?, Outcome::Acked));
    }
    Ok(acked)
}

/// Everything that a subscription has got by the time at which a last event of ours has come.
async fn got(client: &Client, subscription: &mut Subscription, topic: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    ensure!(matches!(decided(client, Event::new(topic, "last")).await?, Outcome::Acked));
    loop {
        let event = timeout(PATIENCE, subscription.next()).await?.context("the subscription ended")?;
        match std::str::from_utf8(event.payload())? {
            "last" => return Ok(found),
            payload => found.push(payload.to_owned()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_over_both_workers_and_across_versions() -> Result<()> {
    let router = Router::start()?;
    push_built(&router, "rate-limit", "rate-limit", "0.1.0")?;
    push_built(&router, "rate-limit", "rate-limit", "0.1.1")?;
    // Ten at once; the next one after six minutes.
    let config = r#"{"amount":10,"period_ms":3600000,"by":["level:0"]}"#;
    bind(&router, "limit", "rate-limit@0.1.0", "*/limited", &["--config", config])?;
    let [first, second] = one_on_each_worker(&router).await?;
    let (one, other) = tokio::try_join!(publish(&first, "a/limited", 0..20), publish(&second, "a/limited", 0..20))?;
    assert_eq!(one + other, 10, "{one} and {other}");
    assert_eq!(publish(&second, "b/limited", 0..12).await?, 10, "another level, another limit");
    let refused = decided(&first, Event::new("b/limited", "x")).await?;
    assert!(
        matches!(&refused, Outcome::Refused { code, detail } if code.name() == "denied" && detail.contains("rate limit")),
        "{refused:?}"
    );
    // The next version finds the buckets as they are.
    bind(&router, "limit", "rate-limit@0.1.1", "*/limited", &["--config", config])?;
    let after = [publish(&first, "a/limited", 0..3).await?, publish(&second, "b/limited", 0..3).await?];
    assert_eq!(after, [0, 0]);
    assert_eq!(publish(&first, "c/limited", 0..3).await?, 3);
    let described = router.myelin(&["filter", "describe", "rate-limit@0.1.1"])?.good()?;
    assert!(described.out.contains("buckets 3") && described.out.contains("on 2 workers"), "{}", described.out);
    assert_eq!(router.settled_ledger()?["balances"], true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_is_known_on_both_workers_and_across_versions() -> Result<()> {
    let router = Router::start()?;
    push_built(&router, "dedup", "dedup", "0.1.0")?;
    push_built(&router, "dedup", "dedup", "0.1.1")?;
    let config = r#"{"by":["header:x-request-id"],"ttl_ms":3600000}"#;
    bind(&router, "once", "dedup@0.1.0", "once/**", &["--config", config])?;
    let [first, second] = one_on_each_worker(&router).await?;
    let mut events = first.subscribe("once/**", SubscribeOptions::default()).await?;
    let (one, other) = tokio::try_join!(publish(&first, "once/a", 0..50), publish(&second, "once/b", 0..50))?;
    assert_eq!((one, other), (50, 50), "who sends again is told that all is well");
    bind(&router, "once", "dedup@0.1.1", "once/**", &["--config", config])?;
    assert_eq!(publish(&second, "once/c", 40..60).await?, 20);
    let mut found = got(&second, &mut events, "once/a").await?;
    found.sort_by_key(|payload| payload.parse::<usize>().unwrap_or(usize::MAX));
    let expected: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    assert_eq!(found, expected, "each of them once");
    let described = router.myelin(&["filter", "describe", "dedup@0.1.1"])?.good()?;
    assert!(described.out.contains("keys 60"), "{}", described.out);
    let ledger = router.settled_ledger()?;
    assert_eq!(ledger["balances"], true, "{ledger}");
    Ok(())
}
