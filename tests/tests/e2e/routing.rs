//! Who gets what.

use anyhow::{Context, Result};
use myelin_client::{Client, Event, Outcome, Overflow, RequestError, SubscribeOptions, Subscription};
use myelin_tests::{Router, Setup};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// Longer than anything here takes, shorter than a person waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The next `count` payloads of a subscription, as text.
pub(crate) async fn payloads(subscription: &mut Subscription, count: usize) -> Result<Vec<String>> {
    let mut found = Vec::new();
    while found.len() < count {
        let event = timeout(PATIENCE, subscription.next())
            .await
            .with_context(|| format!("after {} of {count}", found.len()))?;
        let event = event.context("the subscription ended")?;
        found.push(String::from_utf8_lossy(event.payload()).into_owned());
    }
    Ok(found)
}

/// Publishes and waits for the router's word.
pub(crate) async fn decided(client: &Client, event: Event<'_>) -> Result<Outcome> {
    Ok(timeout(PATIENCE, client.publish(event).await?).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_every_subscriber_once_whatever_worker_they_are_on() -> Result<()> {
    let router = Router::start_with(Setup { workers: 3, ..Setup::default() })?;
    let mut subscribers = Vec::new();
    for pattern in ["orders/**", "orders/*/new", "orders/eu/new", "**", "orders/us/**"] {
        let client = router.client().await?;
        let mut subscriptions = vec![client.subscribe(pattern, SubscribeOptions::default()).await?];
        // A second, overlapping one of the same session makes no second copy at the router.
        subscriptions.push(client.subscribe("orders/**", SubscribeOptions::default()).await?);
        subscribers.push((pattern, client, subscriptions));
    }
    let publisher = router.client().await?;
    for n in 0..50 {
        publisher.send(Event::new("orders/eu/new", &n.to_string())).await?;
    }
    publisher.flush().await;
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for (pattern, _, subscriptions) in &mut subscribers {
        let matching = if *pattern == "orders/us/**" { 1 } else { 0 };
        assert_eq!(payloads(&mut subscriptions[matching], 50).await?, expected, "{pattern}");
        assert_eq!(
            payloads(&mut subscriptions[1 - matching], if matching == 1 { 0 } else { 50 }).await?.len() / 50,
            1 - matching
        );
    }
    for (_, client, _) in subscribers {
        client.close().await;
    }
    publisher.close().await;
    let ledger = router.settled_ledger()?;
    assert_eq!(ledger["balances"], true, "{ledger}");
    assert_eq!(ledger["total"]["delivered"], 250, "one copy per session: {ledger}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shares_events_and_a_key_stays_with_its_member() -> Result<()> {
    let router = Router::start()?;
    let mut members = Vec::new();
    for _ in 0..3 {
        let client = router.client().await?;
        let subscription = client.subscribe("jobs/*", SubscribeOptions::group("workers")).await?;
        members.push((client, subscription));
    }
    let publisher = router.client().await?;
    for n in 0..300 {
        publisher.send(Event::new("jobs/keyed", &n.to_string()).key(format!("k{}", n % 10))).await?;
    }
    for n in 0..300 {
        publisher.send(Event::new("jobs/free", &n.to_string())).await?;
    }
    publisher.flush().await;
    let mut keyed: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut seen = [vec![0; 300], vec![0; 300]];
    let mut total = 0;
    while total < 600 {
        for (index, (_, subscription)) in members.iter_mut().enumerate() {
            while let Some(event) = subscription.try_next() {
                let n: usize = String::from_utf8_lossy(event.payload()).parse()?;
                let is_free = usize::from(event.topic() == "jobs/free");
                seen[is_free][n] += 1;
                if let Some(key) = event.key() {
                    keyed.entry(String::from_utf8_lossy(key).into_owned()).or_default().push(index);
                }
                total += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(seen.iter().flatten().all(|count| *count == 1), "each event exactly once");
    assert!(keyed.values().all(|members| members.iter().all(|member| *member == members[0])), "{keyed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_and_nobody_there_is_said_at_once() -> Result<()> {
    let router = Router::start()?;
    let (asker, answerer) = (router.client().await?, router.client().await?);
    let nobody = asker.request("sums/add", "1 2", PATIENCE).await;
    assert!(matches!(nobody, Err(RequestError::NoResponder)), "{nobody:?}");
    let mut requests = answerer.subscribe("sums/*", SubscribeOptions::group("sums")).await?;
    let serving = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let text = String::from_utf8_lossy(request.payload()).into_owned();
            let sum: i64 = text.split(' ').filter_map(|n| n.parse::<i64>().ok()).sum();
            if answerer.reply(&request, &sum.to_string()).await.is_err() {
                return;
            }
        }
    });
    for n in 0..100_i64 {
        let answer = asker.request("sums/add", &format!("{n} 5"), PATIENCE).await?;
        assert_eq!(answer.payload(), (n + 5).to_string().as_bytes());
    }
    serving.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_meets_its_own_policy() -> Result<()> {
    let variables = vec![("MYELIN_OUTBOX__EVENTS".to_owned(), "64".to_owned())];
    let router = Router::start_with(Setup { workers: 2, variables })?;
    // Neither reads: the library's own queue fills, then the stream's credit, then the outbox.
    let dropping = router.client_with(Overflow::DropOldest).await?;
    let cut = router.client_with(Overflow::Disconnect).await?;
    let _slow = dropping.subscribe("flood", SubscribeOptions::default()).await?;
    let _gone = cut.subscribe("flood", SubscribeOptions::default()).await?;
    let reading = router.client().await?;
    let mut read = reading.subscribe("calm", SubscribeOptions::default()).await?;
    let publisher = router.client().await?;
    let payload = vec![7; 16 * 1024];
    for n in 0..4_000 {
        publisher.send(Event::new("flood", &payload)).await?;
        if n % 100 == 0 {
            publisher.send(Event::new("calm", "still here")).await?;
        }
    }
    publisher.flush().await;
    assert_eq!(payloads(&mut read, 40).await?.len(), 40, "others are not held up");
    let ledger = router.ledger()?;
    assert!(ledger["total"]["shed"].as_u64().unwrap() > 0, "{ledger}");
    assert_eq!(ledger["balances"], true, "{ledger}");
    assert!(router.own_memory_kib()? < 400 * 1024, "bounded memory: {} KiB", router.own_memory_kib()?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_to_live_that_runs_out_in_the_queue_is_counted() -> Result<()> {
    let router = Router::start()?;
    let (publisher, subscriber) = (router.client().await?, router.client().await?);
    let mut events = subscriber.subscribe("t", SubscribeOptions::default()).await?;
    let refused = decided(&publisher, Event::new("t", "late").ttl(Duration::ZERO)).await?;
    assert!(matches!(&refused, Outcome::Refused { code, .. } if code.name() == "expired"), "{refused:?}");
    decided(&publisher, Event::new("t", "in time").ttl(Duration::from_secs(60))).await?;
    let event = timeout(PATIENCE, events.next()).await?.context("an event")?;
    assert_eq!(event.payload(), b"in time");
    assert!(event.ttl_ms().is_some_and(|left| left > 30_000 && left <= 60_000), "{:?}", event.ttl_ms());
    Ok(())
}
