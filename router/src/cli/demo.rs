//! `myelin demo`: a router of its own, real events, filters swapped under load, and the account at the end.
//!
//! Everything goes the way a user's would: the router is a process, filters are pushed and bound by the commands that
//! are printed, events go through the client library. What was sent is held against what arrived, event by event.

mod mesh;
mod stage;

use super::failure::{Exit, Failure, Result};
use anyhow::{Context, anyhow, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use myelin_client::{Client, Event, Overflow, SubscribeOptions, Subscription};
use serde::Deserialize;
use stage::{Ready, Stage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Events a second in the part that measures latency.
const STEADY_RATE: u64 = 5_000;
/// Header that numbers the events.
const NUMBER: &str = "demo-n";
/// Events that one run may send; bounds the account that is kept of them.
const EVENTS_MAX: usize = 50_000_000;
/// How long the router may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the last events may take to arrive.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

const AFTER_HELP: &str = "\
Examples:
  myelin demo --filters target/filters --data examples/data
  myelin demo --sites 1 --load 30 --swaps 8

With three sites: events across them, a rollout that succeeds and one that is caught at its canary, and the mesh's ledger.
With one: filters swapped at full load, with the latencies.

`cargo xtask demo` builds the filters first. The exit code is 1 when an event was lost or doubled, or the ledger does
not balance.";

/// Play real events through filters that are swapped under load
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Demo {
    /// How many sites: 3, or 1 for filters swapped at full load
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = sites)]
    sites: u8,
    /// Folder with the built filters
    #[arg(long, value_name = "DIR", default_value = "target/filters")]
    filters: PathBuf,
    /// Folder with the events; the bindings are in the folder `bindings` beside it
    #[arg(long, value_name = "DIR", default_value = "examples/data")]
    data: PathBuf,
    /// Seconds at a steady rate, for the latencies
    #[arg(long, value_name = "N", default_value_t = 10)]
    steady: u64,
    /// Seconds at full load, while filters are swapped
    #[arg(long, value_name = "N", default_value_t = 30)]
    load: u64,
    /// How often the filter is swapped during the full load
    #[arg(long, value_name = "N", default_value_t = 8)]
    swaps: u32,
}

fn sites(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(sites @ (1 | 3)) => Ok(sites),
        _ => Err("the demo has 1 or 3 sites".to_owned()),
    }
}

/// A line of the data.
#[derive(Deserialize)]
struct Line {
    topic: String,
    #[serde(rename = "type")]
    kind: String,
    key: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    payload: Box<serde_json::value::RawValue>,
}

/// A binding as it is kept beside the data.
#[derive(Deserialize)]
struct Binding {
    name: String,
    module: String,
    pattern: String,
    #[serde(default)]
    order: i32,
    config: Box<serde_json::value::RawValue>,
    #[serde(default)]
    grant: Grant,
}

#[derive(Default, Deserialize)]
struct Grant {
    #[serde(default)]
    topics: Vec<String>,
}

/// What is known of every event that was sent.
#[derive(Default)]
struct Account {
    sent: AtomicU64,
    arrived: AtomicU64,
    doubled: AtomicU64,
    /// For each event: how often it arrived, and when it was due, in nanoseconds since the beginning.
    events: Mutex<(Vec<u8>, Vec<u64>)>,
    latency: Mutex<Option<Histogram<u64>>>,
    is_steady: AtomicBool,
    generation: AtomicU64,
}

impl Demo {
    pub(super) fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.context("the demo's runtime")?;
        let verdict = match self.sites {
            1 => runtime.block_on(self.play())?,
            _ => runtime.block_on(mesh::play(&self))?,
        };
        match verdict {
            None => Ok(()),
            Some(fault) => Err(Failure::new(Exit::Failed, fault)),
        }
    }

    async fn play(&self) -> Result<Option<String>> {
        let events = Arc::new(read_events(&self.data)?);
        let stage = Stage::start()?;
        println!("\na router of its own, with {} events of {} kinds to play\n", events.len(), 3);
        self.prepare(&stage)?;

        let account = Arc::new(Account { latency: Mutex::new(Some(histogram()?)), ..Account::default() });
        let subscriber = stage.client(Overflow::Pause).await?;
        let publisher = stage.client(Overflow::DropOldest).await?;
        let begin = Instant::now();
        for pattern in ["orders/**", "telemetry/**", "payments/**"] {
            let subscription =
                subscriber.subscribe(pattern, SubscribeOptions::default()).await.map_err(|e| anyhow!(e))?;
            tokio::spawn(take(subscription, account.clone(), begin));
        }
        let refusals = tokio::spawn(count_refusals(publisher.clone()));
        let view = tokio::spawn(show(account.clone(), publisher.clone(), begin));

        println!("{STEADY_RATE} events/s for {} s, to see the latencies", self.steady);
        account.is_steady.store(true, Ordering::Relaxed);
        send_steadily(&publisher, &events, &account, begin, Duration::from_secs(self.steady)).await?;
        account.is_steady.store(false, Ordering::Relaxed);

        println!("\nas fast as it goes for {} s, while the filter `tenant` is swapped {} times", self.load, self.swaps);
        let stop = Arc::new(AtomicBool::new(false));
        let load = tokio::spawn(send_flat_out(publisher.clone(), events, account.clone(), begin, stop.clone()));
        let swapping = self.swap_under_load(&stage).await;
        stop.store(true, Ordering::Relaxed);
        load.await.context("the publisher")??;
        swapping?;

        let summary = publisher.flush().await;
        publisher.close().await;
        let refused = refusals.await.context("the refusals")?;
        let expected = summary.acked;
        let settled = Instant::now();
        while account.arrived.load(Ordering::Relaxed) < expected && settled.elapsed() < SETTLE_TIMEOUT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        view.abort();
        subscriber.close().await;
        Ok(conclude(&stage, &account, expected, &summary, &refused)?)
    }

    /// Pushes the filters and binds them, by the commands that a user would give.
    fn prepare(&self, stage: &Stage) -> anyhow::Result<()> {
        for file in ["schema-json", "content-route", "redact", "tenant", "tenant-2"] {
            let path = self.filters.join(format!("{file}.wasm"));
            ensure!(path.is_file(), "{} is missing: `cargo xtask demo` builds the filters", path.display());
            stage.command(&["filter", "push", &path.to_string_lossy()], true)?;
        }
        let folder = self.data.parent().unwrap_or(Path::new(".")).join("bindings");
        for binding in read_bindings(&folder)? {
            let order = binding.order.to_string();
            let mut args = vec!["bind", &binding.name, "--module", &binding.module, "--pattern", &binding.pattern];
            args.extend(["--order", &order, "--config", binding.config.get()]);
            binding.grant.topics.iter().for_each(|topic| args.extend(["--grant-topic", topic]));
            stage.command(&args, true)?;
        }
        bind_tenant(stage, "1.0.0")
    }

    /// Swaps between the two versions of the example filter; every third time by a rollback.
    async fn swap_under_load(&self, stage: &Stage) -> anyhow::Result<()> {
        let pause = Duration::from_secs(self.load) / (self.swaps + 1);
        for swap in 0..self.swaps {
            tokio::time::sleep(pause).await;
            tokio::task::block_in_place(|| match swap % 6 {
                2 | 5 => stage.command(&["rollout", "rollback"], true),
                0 | 4 => bind_tenant(stage, "2.0.0"),
                _ => bind_tenant(stage, "1.0.0"),
            })?;
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

fn bind_tenant(stage: &Stage, version: &str) -> anyhow::Result<()> {
    let module = format!("tenant@{version}");
    let tenants = r#"{"tenants":["acme","globex","initech","umbrella","hooli"]}"#;
    let args = ["bind", "tenants", "--module", &module, "--pattern", "orders/**", "--order", "5", "--config", tenants];
    stage.command(&[&args[..], &["--grant-topic", "audit/**"]].concat(), true)
}

fn read_bindings(folder: &Path) -> anyhow::Result<Vec<Binding>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| format!("the bindings in {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    };
    files.into_iter().map(read).collect()
}

fn read_events(folder: &Path) -> anyhow::Result<Vec<Line>> {
    let mut kinds = Vec::new();
    for kind in ["orders", "telemetry", "payments"] {
        let path = folder.join(format!("{kind}.jsonl"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let lines: Result<Vec<Line>, _> = text.lines().map(serde_json::from_str).collect();
        kinds.push(lines.with_context(|| path.display().to_string())?.into_iter());
    }
    // Mixed, as they would come.
    let mut mixed = Vec::new();
    while !kinds.is_empty() {
        kinds.retain_mut(|kind| kind.next().map(|line| mixed.push(line)).is_some());
    }
    Ok(mixed)
}

/// Sends event number `n` and notes when it was due.
async fn send(client: &Client, line: &Line, account: &Account, due_ns: u64) -> anyhow::Result<()> {
    let n = account.sent.fetch_add(1, Ordering::Relaxed);
    if let Ok(mut events) = account.events.lock() {
        ensure!(events.0.len() < EVENTS_MAX, "the demo keeps account of {EVENTS_MAX} events at most");
        events.0.push(0);
        events.1.push(due_ns);
    }
    let mut event = Event::new(&line.topic, line.payload.get()).key(&line.key).event_type(&line.kind);
    for (name, value) in &line.headers {
        event = event.header(name, value);
    }
    client.send(event.header(NUMBER, &n.to_string())).await?;
    Ok(())
}

/// An open loop: an event is sent when it is due, whatever became of the ones before.
async fn send_steadily(
    client: &Client,
    events: &[Line],
    account: &Account,
    begin: Instant,
    length: Duration,
) -> anyhow::Result<()> {
    let start = begin.elapsed();
    let (mut n, interval) = (0_u64, Duration::from_secs(1) / u32::try_from(STEADY_RATE).unwrap_or(u32::MAX));
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    while begin.elapsed() < start + length {
        ticks.tick().await;
        while let due = start + interval * u32::try_from(n).unwrap_or(u32::MAX)
            && due <= begin.elapsed()
        {
            let line = &events[usize::try_from(n).unwrap_or(0) % events.len()];
            send(client, line, account, nanos(due)).await?;
            n += 1;
        }
    }
    Ok(())
}

async fn send_flat_out(
    client: Client,
    events: Arc<Vec<Line>>,
    account: Arc<Account>,
    begin: Instant,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    for line in events.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        send(&client, line, &account, nanos(begin.elapsed())).await?;
    }
    Ok(())
}

/// Takes what arrives and crosses it off.
async fn take(mut subscription: Subscription, account: Arc<Account>, begin: Instant) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if subscription.next_batch(&mut batch, 1024).await == 0 {
            return;
        }
        let now_ns = nanos(begin.elapsed());
        let (Ok(mut events), Ok(mut latency)) = (account.events.lock(), account.latency.lock()) else { return };
        for event in &batch {
            let n = event.header(NUMBER).and_then(|n| n.parse::<usize>().ok());
            let Some(n) = n.filter(|n| *n < events.0.len()) else { continue };
            if events.0[n] > 0 {
                account.doubled.fetch_add(1, Ordering::Relaxed);
            }
            events.0[n] = events.0[n].saturating_add(1);
            account.generation.store(event.generation(), Ordering::Relaxed);
            if account.is_steady.load(Ordering::Relaxed)
                && let Some(latency) = latency.as_mut()
            {
                latency.saturating_record(now_ns.saturating_sub(events.1[n]) / 1_000);
            }
        }
        account.arrived.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }
}

/// Counts refusals by code until the publisher is closed.
async fn count_refusals(client: Client) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    while let Some(exception) = client.next_exception().await {
        *counts.entry(exception.code.name().to_owned()).or_insert(0) += 1;
    }
    counts
}

/// A line a second.
async fn show(account: Arc<Account>, publisher: Client, begin: Instant) {
    let (mut sent_before, mut arrived_before) = (0, 0);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (sent, arrived) = (account.sent.load(Ordering::Relaxed), account.arrived.load(Ordering::Relaxed));
        let refused = publisher.stats().refused;
        println!(
            "  {:>3} s  sent {:>8}/s  delivered {:>8}/s  refused {refused:>8} in all  generation {:>3}",
            begin.elapsed().as_secs(),
            sent - sent_before,
            arrived - arrived_before,
            account.generation.load(Ordering::Relaxed),
        );
        (sent_before, arrived_before) = (sent, arrived);
    }
}

/// Prints the account; what is wrong with it, if anything is.
fn conclude(
    stage: &Stage,
    account: &Account,
    expected: u64,
    summary: &myelin_client::Summary,
    refused: &BTreeMap<String, u64>,
) -> anyhow::Result<Option<String>> {
    let begin = Instant::now();
    let (text, ledger) = loop {
        let (text, ledger) = stage.ledger()?;
        let is_settled = ledger["total"]["in_queue"] == 0 && ledger["total"]["in_pipeline"] == 0;
        if is_settled || begin.elapsed() > SETTLE_TIMEOUT {
            break (text, ledger);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    println!("\nthe router's ledger\n{text}");
    let (arrived, doubled) = (account.arrived.load(Ordering::Relaxed), account.doubled.load(Ordering::Relaxed));
    let distinct = arrived - doubled;
    println!("the publisher's and the subscriber's own account");
    println!("  sent       {:>10}", summary.published);
    println!("  refused    {:>10}   {refused:?}", summary.refused);
    println!("  accepted   {expected:>10}");
    println!("  delivered  {distinct:>10}");
    println!("  lost       {:>10}", expected.saturating_sub(distinct));
    println!("  doubled    {doubled:>10}");
    if let Ok(Some(latency)) = account.latency.lock().as_deref() {
        let at = |quantile| latency.value_at_quantile(quantile);
        println!("\nlatency at {STEADY_RATE}/s, microseconds from when an event was due to its arrival");
        println!(
            "  p50 {}   p90 {}   p99 {}   p99.9 {}   max {}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            latency.max()
        );
    }
    if expected != distinct || doubled > 0 || summary.unknown > 0 {
        return Ok(Some(format!("{} events were lost and {doubled} doubled", expected.abs_diff(distinct))));
    }
    if ledger["balances"] != true {
        return Ok(Some("the ledger does not balance".to_owned()));
    }
    println!("\nnothing was lost, nothing was doubled, and the ledger balances");
    Ok(None)
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    // Up to a minute, three digits.
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
