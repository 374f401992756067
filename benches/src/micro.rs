//! `micro`: what single parts cost, beside what they may.

use crate::admin::{Bound, Filter};
use crate::goals::{Better, Goal};
use crate::load::{PATTERN, channel, dial};
use crate::policies;
use crate::report::markdown;
use crate::server::Server;
use crate::swaps::Swapper;
use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use clap::Args;
use myelin::config::PolicyDefault;
use myelin::generation::Active;
use myelin::local::{Local, TopicEntry};
use myelin::outbox::OutboxLimits;
use myelin::policy::Rules;
use myelin::shared::{Phase, Refusals, Shared};
use myelin_benches::judging::{self, Judging};
use myelin_benches::subscriptions::{shuffled, table, topic};
use myelin_core::{MatchSet, Table};
use myelin_load::{Cell, Client, Plan, Target, attributes, median};
use myelin_wire::Limits;
use serde_json::json;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Subscriptions of the table.
const SUBSCRIPTIONS: usize = 1_000_000;
/// Topics that are asked for again and again: the worker has cached who wants them.
const HOT_TOPICS: usize = 64;
/// Topics that are asked for once each.
const COLD_TOPICS: usize = 200_000;
/// Rounds of each measurement; the median counts.
const ROUNDS: usize = 9;
/// Batches in a round.
const BATCHES: usize = 20_000;
/// Events of a full batch.
const FULL: usize = 64;
/// The cell that allocations and swaps are measured with.
const CELL: Cell = Cell { payload_bytes: 128, publishers: 1, subscribers: 1 };
/// How long.
const LENGTH: Duration = Duration::from_secs(6);
/// The header that the filter reads.
const HEADER: &str = "x-tenant=acme";
/// The filter's configuration, and the route that it declares.
const CONFIG: &str = r#"{"tenants":["acme"]}"#;
const GRANT: &str = "audit/orders";

/// Arguments of `micro` and `memory`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PartArgs {
    /// The router; without it the `myelin` beside this program is taken.
    #[arg(long, env = "MYELIN_BIN")]
    router: Option<PathBuf>,
    /// Folder of filters, with `tenant.wasm`.
    #[arg(long, env = "MYELIN_FILTERS_DIR")]
    filters_dir: PathBuf,
    /// Print the table and nothing else on stdout: it is Markdown either way.
    #[arg(long)]
    markdown: bool,
    /// Succeed also where a figure is behind its goal.
    #[arg(long)]
    tolerate_behind: bool,
}

impl PartArgs {
    /// The program of that name beside this one, or the one that was named.
    pub(crate) fn beside(&self, name: &str) -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe()?;
        let file = own.parent().context("this program lies in a folder")?.join(name);
        let file = self.router.clone().filter(|_| name == "myelin").unwrap_or(file);
        ensure!(file.exists(), "there is no {}; `cargo xtask bench` builds it", file.display());
        Ok(file)
    }

    pub(crate) fn filter(&self) -> PathBuf {
        self.filters_dir.join("tenant.wasm")
    }

    /// Prints the goals; an error where one is behind.
    pub(crate) fn finish(&self, title: &str, goals: &[Goal]) -> anyhow::Result<()> {
        let head = ["figure of", "measured", "reach", "aim", "verdict"].map(str::to_owned).to_vec();
        let rows = std::iter::once(head).chain(goals.iter().map(|goal| goal.cells().to_vec())).collect::<Vec<_>>();
        println!("\n{}{title}\n\n{}", if self.markdown { "### " } else { "" }, markdown(&rows));
        let behind: Vec<&str> = goals.iter().filter(|goal| goal.is_behind()).map(|goal| goal.what.as_str()).collect();
        ensure!(self.tolerate_behind || behind.is_empty(), "behind the goal: {}", behind.join("; "));
        Ok(())
    }
}

/// Binds the filter `count` times on a router.
pub(crate) fn bind(server: &Server, file: &Path, pattern: &str, count: usize) -> anyhow::Result<Bound> {
    let (config, grant) = (json!({ "tenants": ["acme"] }), [GRANT.to_owned()]);
    Bound::new(server.admin_addr()?, Filter { file, config: &config, grant: &grant, pattern }, count)
}

/// Measures and prints all of it.
pub(crate) fn run(arguments: &PartArgs) -> anyhow::Result<()> {
    let mut goals = subscription_table()?;
    goals.extend(policies::decisions()?);
    goals.extend(filter(&arguments.filter())?);
    goals.extend(crate::schemas::goals(|count, work| time_ns(count, work))?);
    goals.extend(allocations(arguments)?);
    goals.extend(swap_pause(arguments)?);
    arguments.finish("Parts", &goals)
}

/// The median time of `work` for one of its `count` pieces, in nanoseconds.
pub(crate) fn time_ns(count: usize, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    work()?;
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        work()?;
        rounds.push(begin.elapsed().as_nanos() as f64 / count as f64);
    }
    Ok(median(rounds))
}

fn subscription_table() -> anyhow::Result<Vec<Goal>> {
    eprintln!("a table of {SUBSCRIPTIONS} subscriptions ..");
    let table = table(SUBSCRIPTIONS)?;
    let topics: Vec<String> = shuffled(SUBSCRIPTIONS).take(COLD_TOPICS).map(topic).collect();
    let mut out = MatchSet::default();
    let mut look_up = |table: &Table, topic: &str| {
        table.matches(topic, &mut out);
        ensure!(!out.is_empty(), "{topic} has subscribers");
        black_box(&out);
        anyhow::Ok(())
    };
    let hot = &topics[..HOT_TOPICS];
    let again = || (0..COLD_TOPICS / HOT_TOPICS).flat_map(|_| hot);
    let walk_ns = time_ns(COLD_TOPICS, || again().try_for_each(|topic| look_up(&table, topic)))?;
    // Each round walks through more nodes than any cache holds, in an order that no prefetcher foresees.
    let cold_ns = time_ns(COLD_TOPICS, || topics.iter().try_for_each(|topic| look_up(&table, topic)))?;
    let (worker, active) = (worker(table), Rc::new(Active::empty()));
    let entries: Vec<Rc<TopicEntry>> = hot.iter().map(|topic| worker.topic(topic)).collect();
    let warm_ns = time_ns(COLD_TOPICS, || {
        for _ in 0..COLD_TOPICS / HOT_TOPICS {
            entries.iter().for_each(|entry| drop(black_box(worker.route(entry, &active))));
        }
        Ok(())
    })?;
    let warm = format!("match among 1,000,000 subscriptions, in the worker's cache (found again: {walk_ns:.0} ns)");
    Ok(vec![
        Goal::new(warm, warm_ns, (100.0, 50.0), Better::Lower).unit("ns"),
        Goal::new("the same, cold", cold_ns, (3_000.0, 1_000.0), Better::Lower).unit("ns"),
    ])
}

/// A worker's plain values over `table`, without its thread.
fn worker(table: Table) -> Local {
    let shared = Shared {
        site: "bench".into(),
        router: "bench".into(),
        origin: 1,
        epoch: 1,
        limits: Limits::default(),
        outbox: OutboxLimits { events: 1, bytes: 1 },
        sessions_max: 0,
        table: Arc::new(ArcSwap::from_pointee(table)),
        table_writer: mpsc::channel(1).0,
        mailboxes: Box::default(),
        outward: None,
        residency: Arc::default(),
        alone: Default::default(),
        gauges: RwLock::default(),
        tokens: None,
        services: Default::default(),
        identities: Arc::default(),
        rules: Arc::new(ArcSwap::from_pointee(Rules::new(PolicyDefault::Allow, "bench"))),
        rules_version: watch::Sender::new(0),
        denials: Default::default(),
        phase: watch::Sender::new(Phase::Serving),
        publishers: Default::default(),
        held_back: Default::default(),
        screens: Default::default(),
        registry: Arc::default(),
        sessions: Default::default(),
        started: Instant::now(),
        refusals: Refusals::default(),
        captures: Default::default(),
    };
    Local::new(0, Arc::new(shared), Rc::new(Active::empty()))
}

fn filter(component: &Path) -> anyhow::Result<Vec<Goal>> {
    eprintln!("the engine ..");
    let bytes = std::fs::read(component).with_context(|| format!("cannot read {}", component.display()))?;
    let program = judging::load(&bytes, true)?;
    let (mut wasm, mut native) = (Judging::wasm(&program, 1, CONFIG.as_bytes(), GRANT)?, Judging::native()?);
    let cost = |judging: &mut Judging, events: usize| {
        time_ns(BATCHES * events, || (0..BATCHES).try_for_each(|_| judging.run(events).map(drop)))
    };
    let (full, single) = (cost(&mut wasm, FULL)?, cost(&mut wasm, 1)?);
    let (native_full, native_single) = (cost(&mut native, FULL)?, cost(&mut native, 1)?);
    let goal = |what: String, figure, bounds| Goal::new(what, figure, bounds, Better::Lower).unit("ns");
    Ok(vec![
        goal(format!("one Wasm filter, an event in full batches (native: {native_full:.0} ns)"), full, (150.0, 80.0)),
        goal(format!("one Wasm filter, a single event (native: {native_single:.0} ns)"), single, (600.0, 400.0)),
    ])
}

/// Loads `server` for [`LENGTH`]; the events that were delivered.
fn load(server: &Server, rate: Option<u64>) -> anyhow::Result<u64> {
    let dial = dial(server.client_addr(), server.certificates())?;
    let client = Client::new(Target::Router, channel(), &CELL, attributes(Some(HEADER))?, dial);
    let measured = client.run(&Plan { length: LENGTH, rate, ..Plan::default() })?;
    ensure!(measured.is_exact(), "events were lost, doubled or refused");
    Ok(measured.delivered)
}

/// Allocations of the whole router process, QUIC and TLS included, for each event from in to out.
fn allocations(arguments: &PartArgs) -> anyhow::Result<Vec<Goal>> {
    let router = arguments.beside("myelin-counted")?;
    let mut goals = Vec::new();
    for (filters, what) in [(0, "allocations for an event, no filter"), (1, "the same, one filter")] {
        eprintln!("{what} ..");
        let mut server = Server::counted(&router)?;
        if filters > 0 {
            bind(&server, &arguments.filter(), PATTERN, filters)?;
        }
        // Once to fill pools and caches; connecting again is part of the second, and does not weigh.
        load(&server, None)?;
        let before = server.allocations()?;
        let events = load(&server, None)?;
        let made = server.allocations()?.saturating_sub(before);
        server.stop()?;
        goals.push(Goal::new(what, made as f64 / events as f64, (0.1, 0.05), Better::Lower).unit("/event"));
    }
    Ok(goals)
}

/// What a worker under load waits for a swap.
fn swap_pause(arguments: &PartArgs) -> anyhow::Result<[Goal; 2]> {
    eprintln!("swaps ..");
    let server = Server::router(&arguments.beside("myelin")?, 1)?;
    let swapper = Swapper::start(bind(&server, &arguments.filter(), PATTERN, 1)?);
    let loaded = load(&server, None);
    let swaps = swapper.end()?;
    loaded?;
    server.stop()?;
    let pause_us = swaps.iter().map(|swap| swap.pause_us).max().context("no swap was made")?;
    let what = format!("longest pause of a worker, {} swaps under full load", swaps.len());
    let cpu_us = swaps.iter().map(|swap| swap.pause_cpu_us).max().unwrap_or(0);
    let goal = |what: &str, us: u64| Goal::new(what, us as f64, (1_000.0, 100.0), Better::Lower).unit("us");
    Ok([goal(&what, pause_us), goal("most CPU time of such a pause", cpu_us)])
}
