//! What a filter remembers goes on at a swap, at each worker by itself, and a rollback returns to what was left behind.
//!
//! The filter drops every seventh event by a count in its memory: which ones are missing tells whether the count went on.

use crate::filters::bind;
use crate::routing::{PATIENCE, decided};
use crate::shared::one_on_each_worker;
use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Event, Outcome, Overflow, SubscribeOptions, Subscription};
use myelin_tests::Router;
use myelin_tests::guests::{Behaviour, component};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::timeout;

/// Swaps while events flow.
const SWAPS: usize = 8;
/// Events that each worker judges at least between two swaps: no multiple of seven, so that a count that begins anew would
/// drop others.
const EVENTS_BETWEEN: u64 = 100;

fn push(router: &Router, version: &str, behaviour: Behaviour) -> Result<()> {
    let path = router.folder().join(format!("counting-{version}.wasm"));
    std::fs::write(&path, component(behaviour)?)?;
    router.myelin(&["filter", "push", &path.to_string_lossy(), "--as", &format!("counting@{version}")])?.good()?;
    Ok(())
}

fn swap_to(router: &Router, version: &str) -> Result<()> {
    block_in_place(|| bind(router, "counting", &format!("counting@{version}"), "*/count", &[]))
}

/// The reports of all rollouts since the router's start, oldest first.
fn reports(router: &Router) -> Result<Vec<Value>> {
    let list = router.myelin(&["rollout", "history", "-o", "json"])?.json()?;
    let mut reports = list["rollouts"].as_array().context("rollouts")?.clone();
    reports.sort_by_key(|report| report["generation"].as_u64());
    Ok(reports)
}

/// The report of the newest one.
fn newest(router: &Router) -> Result<Value> {
    reports(router)?.pop().context("a rollout")
}

/// Publishes numbers from 1 on without pause, until it is told to stop; how many.
async fn flood(client: Client, topic: String, sent: Arc<AtomicU64>, is_over: Arc<AtomicBool>) -> Result<u64> {
    while !is_over.load(Ordering::Relaxed) {
        let number = sent.load(Ordering::Relaxed) + 1;
        client.send(Event::new(&topic, &number.to_string())).await?;
        sent.store(number, Ordering::Relaxed);
    }
    let (number, summary) = (sent.load(Ordering::Relaxed), client.flush().await);
    ensure!(summary.acked == number, "who sent what is dropped is told that all is well: {summary:?} of {number}");
    Ok(number)
}

/// Reads what two floods leave: everything but each seventh of each, in order. `sent` tells how many there were.
async fn survivors(mut events: Subscription, mut sent: watch::Receiver<Option<[u64; 2]>>) -> Result<()> {
    let (mut last, mut came) = ([0_u64; 2], [0_u64; 2]);
    while !sent.borrow().is_some_and(|sent| came == sent.map(|sent| sent - sent / 7)) {
        let event = tokio::select! {
            event = timeout(PATIENCE, events.next()) => event.with_context(|| format!("after {came:?}"))?,
            changed = sent.changed() => {
                changed?;
                continue;
            }
        };
        let event = event.context("the subscription ended")?;
        let of = usize::from(event.topic() == "1/count");
        let number: u64 = std::str::from_utf8(event.payload())?.parse()?;
        let due = last[of] + if last[of] % 7 == 6 { 2 } else { 1 };
        ensure!(number == due, "event {number} of {} came where {due} was due", event.topic());
        (last[of], came[of]) = (number, came[of] + 1);
    }
    Ok(())
}

/// Waits until both publishers are `more` events further.
async fn further(sent: &[Arc<AtomicU64>; 2], more: u64) -> Result<()> {
    for sent in sent {
        let until = sent.load(Ordering::Relaxed) + more;
        let reached = async {
            while sent.load(Ordering::Relaxed) < until {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, reached).await.context("the load stands still")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_count_of_each_worker_goes_on_through_swaps_under_load() -> Result<()> {
    let router = Router::start()?;
    push(&router, "1.0.0", Behaviour::DropEverySeventh)?;
    push(&router, "2.0.0", Behaviour::DropEverySeventh)?;
    swap_to(&router, "1.0.0")?;
    let reader = router.client_with(Overflow::Pause).await?;
    let events = reader.subscribe("*/count", SubscribeOptions::default()).await?;
    let (tell, told) = watch::channel(None);
    let reading = tokio::spawn(survivors(events, told));
    let (sent, is_over): ([Arc<AtomicU64>; 2], _) =
        ([Arc::default(), Arc::default()], Arc::new(AtomicBool::new(false)));
    let [first, second] = one_on_each_worker(&router).await?;
    let loads = [(first, "0/count", &sent[0]), (second, "1/count", &sent[1])]
        .map(|(client, topic, sent)| tokio::spawn(flood(client, topic.to_owned(), sent.clone(), is_over.clone())));
    for swap in 1..=SWAPS {
        further(&sent, EVENTS_BETWEEN).await?;
        swap_to(&router, if swap % 2 == 0 { "1.0.0" } else { "2.0.0" })?;
    }
    further(&sent, EVENTS_BETWEEN).await?;
    is_over.store(true, Ordering::Relaxed);
    let [first, second] = loads;
    let sent = [first.await??, second.await??];
    // A reader that has found something wrong has gone, and says so itself.
    let _ = tell.send(Some(sent));
    reading.await??;
    let reports = reports(&router)?;
    let swaps: Vec<_> = reports.iter().filter(|report| report["kind"] != "started").skip(1).collect();
    ensure!(swaps.len() == SWAPS, "{reports:#?}");
    for report in swaps {
        let states = (report["handed_over"].clone(), report["not_handed_over"].clone());
        ensure!(states == (serde_json::json!(["counting"]), serde_json::json!([])), "{report:#}");
        ensure!(report["workers"] == 2, "{report:#}");
    }
    let ledger = router.settled_ledger()?;
    ensure!(ledger["balances"] == true && ledger["total"]["dropped"] == sent[0] / 7 + sent[1] / 7, "{sent:?} {ledger}");
    Ok(())
}

/// One worker's publisher, and what comes of its events.
struct Lane {
    client: Client,
    events: Subscription,
    number: usize,
}

impl Lane {
    async fn both(router: &Router) -> Result<[Self; 2]> {
        let [first, second] = one_on_each_worker(router).await?;
        Ok([Self::open(first, 0).await?, Self::open(second, 1).await?])
    }

    async fn open(client: Client, number: usize) -> Result<Self> {
        let events = client.subscribe(&format!("{number}/*"), SubscribeOptions::default()).await?;
        Ok(Self { client, events, number })
    }

    /// Which of `count` events, counted from 1, are dropped.
    async fn dropped(&mut self, count: usize) -> Result<Vec<usize>> {
        for number in 1..=count {
            let event = self.number.to_string() + "/count";
            let outcome = decided(&self.client, Event::new(&event, &number.to_string())).await?;
            ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");
        }
        decided(&self.client, Event::new(&format!("{}/done", self.number), "")).await?;
        let mut dropped: Vec<usize> = (1..=count).collect();
        loop {
            let event = timeout(PATIENCE, self.events.next()).await?.context("an event")?;
            if event.topic().ends_with("/done") {
                return Ok(dropped);
            }
            let number: usize = std::str::from_utf8(event.payload())?.parse()?;
            ensure!(dropped.contains(&number), "{number} came twice");
            dropped.retain(|other| *other != number);
        }
    }
}

/// Which of `count` events are dropped at each worker.
async fn dropped(lanes: &mut [Lane; 2], counts: [usize; 2]) -> Result<[Vec<usize>; 2]> {
    let [first, second] = lanes;
    Ok([first.dropped(counts[0]).await?, second.dropped(counts[1]).await?])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_finds_the_counts_as_they_were_left() -> Result<()> {
    let router = Router::start()?;
    push(&router, "1.0.0", Behaviour::DropEverySeventh)?;
    push(&router, "2.0.0", Behaviour::DropEverySeventh)?;
    swap_to(&router, "1.0.0")?;
    let mut lanes = Lane::both(&router).await?;
    // The workers are not at the same count: 10 and 4.
    ensure!(dropped(&mut lanes, [10, 4]).await? == [vec![7], vec![]]);
    swap_to(&router, "2.0.0")?;
    ensure!(newest(&router)?["handed_over"] == serde_json::json!(["counting"]), "{:#}", newest(&router)?);
    // From 11 and from 5 on.
    ensure!(dropped(&mut lanes, [9, 9]).await? == [vec![4], vec![3]], "each worker goes on where it was");
    router.myelin(&["rollout", "rollback"])?.good()?;
    let back = newest(&router)?;
    ensure!(
        (&back["handed_over"], &back["not_handed_over"]) == (&serde_json::json!([]), &serde_json::json!([])),
        "{back:#}"
    );
    // Again from 11 and from 5 on: what the version that was rolled back has counted is gone with it.
    ensure!(dropped(&mut lanes, [9, 9]).await? == [vec![4], vec![3]], "as they were left");
    // The next version goes on from there: from 20 and from 14 on.
    swap_to(&router, "2.0.0")?;
    ensure!(dropped(&mut lanes, [9, 9]).await? == [vec![2, 9], vec![1, 8]], "and on from there");
    ensure!(router.settled_ledger()?["balances"] == true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_refuses_the_state_begins_anew_and_the_report_says_so() -> Result<()> {
    let router = Router::start()?;
    push(&router, "1.0.0", Behaviour::DropEverySeventh)?;
    push(&router, "2.0.0", Behaviour::DropEverySeventhAlone)?;
    swap_to(&router, "1.0.0")?;
    let mut lanes = Lane::both(&router).await?;
    ensure!(dropped(&mut lanes, [10, 4]).await? == [vec![7], vec![]]);
    swap_to(&router, "2.0.0")?;
    let report = newest(&router)?;
    let refused = report["not_handed_over"].as_array().context("refused")?;
    let says_why =
        |text: &Value| text.as_str().is_some_and(|text| text.starts_with("counting: ") && text.contains("hostile"));
    ensure!(report["handed_over"] == serde_json::json!([]) && !refused.is_empty(), "{report:#}");
    ensure!(refused.iter().all(says_why), "{report:#}");
    ensure!(dropped(&mut lanes, [9, 9]).await? == [vec![7], vec![7]], "from nothing at both");
    // The one before takes what this one has counted.
    swap_to(&router, "1.0.0")?;
    ensure!(newest(&router)?["handed_over"] == serde_json::json!(["counting"]), "{:#}", newest(&router)?);
    ensure!(dropped(&mut lanes, [9, 9]).await? == [vec![5], vec![5]], "from 10 on at both");
    ensure!(router.settled_ledger()?["balances"] == true);
    Ok(())
}
