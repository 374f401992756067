//! `load`: the client process. Publishers on one thread, subscribers on another, the clock on a third.

use crate::cell::{Cell, Target, attributes};
use crate::facts;
use crate::progress::Phase;
use crate::session::Client;
use crate::{publisher, subscriber};
use anyhow::{Context, anyhow, bail};
use clap::Args;
use myelin_transport::{Dialer, QuicConfig};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Publishers on one, subscribers on the other; each tells its end.
const THREADS: usize = 2;
/// How long connecting and subscribing may take.
const PREPARATION: Duration = Duration::from_secs(15);
/// How long what is on its way may take to arrive after the last event was published.
const DRAIN: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const DRAIN_POLL: Duration = Duration::from_millis(5);
/// How long everybody may take to leave.
const FAREWELL: Duration = Duration::from_secs(10);

/// Arguments of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// What is behind the address.
    #[arg(long)]
    target: Target,
    /// The server's UDP address.
    #[arg(long)]
    addr: SocketAddr,
    /// Folder with `ca.pem`, `client.pem` and `client.key`.
    #[arg(long)]
    certs: PathBuf,
    /// The server's process, whose CPU time and memory are counted.
    #[arg(long)]
    server_pid: u32,
    /// Payload bytes, publishers and subscribers.
    #[arg(long, default_value = "128:1-1")]
    cell: Cell,
    /// One header that every event carries, as name=value.
    #[arg(long)]
    header: Option<String>,
    /// Events a second of each publisher on a fixed schedule; without it, as fast as it goes.
    #[arg(long)]
    rate: Option<u64>,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds before that, which are not.
    #[arg(long, default_value_t = 0.7)]
    warm_up: f64,
}

/// What one run of the client found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Length of the measured window.
    pub(crate) seconds: f64,
    /// Events that all subscribers together took in the window.
    pub(crate) delivered: u64,
    /// CPU time of the server in the window.
    pub(crate) server_cpu_seconds: f64,
    /// CPU time of the client in the window.
    pub(crate) client_cpu_seconds: f64,
    /// Memory of the server at the window's end.
    pub(crate) server_memory_mib: f64,
    /// Most memory of the server so far.
    pub(crate) server_memory_mib_max: f64,
    /// Events that never arrived at a subscriber, over the whole run.
    pub(crate) lost: u64,
    /// Events that arrived twice or out of order, over the whole run.
    pub(crate) doubled: u64,
    /// Events that the router refused, over the whole run.
    pub(crate) refused: u64,
    /// Latencies from an event's due time to its arrival; only with a rate.
    pub(crate) latency: Option<Latency>,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) events: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

impl Measured {
    pub(crate) fn delivered_per_second(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }

    pub(crate) fn server_cpu_seconds_per_million(&self) -> f64 {
        self.server_cpu_seconds * 1e6 / self.delivered.max(1) as f64
    }

    /// Whether every event arrived exactly once.
    pub(crate) fn is_exact(&self) -> bool {
        (self.lost, self.doubled, self.refused) == (0, 0, 0)
    }
}

/// What the client's threads report.
enum News {
    /// A subscriber is there.
    Subscribed,
    /// A thread has ended.
    Ended(anyhow::Result<()>),
}

/// Runs the client and prints what it found as one line of JSON.
pub(crate) fn run(arguments: &LoadArgs) -> anyhow::Result<()> {
    let LoadArgs { target, cell, rate, addr, .. } = *arguments;
    let attributes = attributes(arguments.header.as_deref())?;
    let client = Arc::new(Client::new(target, cell, attributes, rate, addr, &arguments.certs)?);
    let (tell, news) = sync_channel(cell.subscribers + THREADS);
    spawn("subscribers", &client, &tell, subscribe)?;
    spawn("publishers", &client, &tell, publish)?;
    wait_for_subscribers(&news, cell.subscribers)?;
    client.progress.begin(Phase::Running);
    pause(&news, Duration::from_secs_f64(arguments.warm_up))?;
    let mut measured = measure(arguments, &client, &news)?;
    client.progress.begin(Phase::Draining);
    let until = Instant::now() + DRAIN;
    while client.progress.missing() > 0 && Instant::now() < until {
        thread::sleep(DRAIN_POLL);
    }
    let progress = &client.progress;
    measured.lost = progress.missing() + progress.gaps.load(Relaxed);
    measured.doubled = progress.doubled.load(Relaxed);
    // Only now: the events of the window that were late have arrived, too.
    measured.latency = rate.map(|_| latency(&client));
    progress.begin(Phase::Done);
    for _ in 0..THREADS {
        match news.recv_timeout(FAREWELL) {
            Ok(News::Ended(ended)) => ended?,
            _ => bail!("the client's threads did not end; the server does not answer"),
        }
    }
    measured.refused = progress.refused.load(Relaxed);
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// What happens between the two ends of the window.
fn measure(arguments: &LoadArgs, client: &Client, news: &Receiver<News>) -> anyhow::Result<Measured> {
    let length = Duration::from_secs_f64(arguments.seconds);
    let (server, own) = (arguments.server_pid, std::process::id());
    let look = || {
        anyhow::Ok((Instant::now(), client.progress.delivered(), facts::cpu_seconds(server)?, facts::cpu_seconds(own)?))
    };
    client.progress.open_window(length);
    let (begin, delivered_before, server_before, own_before) = look()?;
    pause(news, length)?;
    let (end, delivered, server_cpu, own_cpu) = look()?;
    let (server_memory_mib, server_memory_mib_max) = facts::memory_mib(server)?;
    Ok(Measured {
        seconds: (end - begin).as_secs_f64(),
        delivered: delivered - delivered_before,
        server_cpu_seconds: server_cpu - server_before,
        client_cpu_seconds: own_cpu - own_before,
        server_memory_mib,
        server_memory_mib_max,
        ..Measured::default()
    })
}

fn latency(client: &Client) -> Latency {
    let latencies = client.progress.latencies();
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    let max_us = latencies.max() as f64 / 1e3;
    Latency { events: latencies.len(), p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999), max_us }
}

/// Waits; a thread that ends meanwhile has failed.
fn pause(news: &Receiver<News>, time: Duration) -> anyhow::Result<()> {
    match news.recv_timeout(time) {
        Err(RecvTimeoutError::Timeout) => Ok(()),
        Ok(News::Ended(Err(error))) => Err(error),
        _ => bail!("a thread of the client ended too early"),
    }
}

fn wait_for_subscribers(news: &Receiver<News>, count: usize) -> anyhow::Result<()> {
    let until = Instant::now() + PREPARATION;
    for _ in 0..count {
        match news.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(News::Subscribed) => {}
            Ok(News::Ended(ended)) => return Err(ended.err().unwrap_or_else(|| anyhow!("a thread ended too early"))),
            Err(_) => bail!("the subscribers were not there within {} s", PREPARATION.as_secs()),
        }
    }
    Ok(())
}

fn spawn<F: Future<Output = anyhow::Result<()>>>(
    name: &'static str,
    client: &Arc<Client>,
    tell: &SyncSender<News>,
    work: impl FnOnce(Arc<Client>, SyncSender<News>) -> F + Send + 'static,
) -> anyhow::Result<()> {
    let (client, tell) = (client.clone(), tell.clone());
    thread::Builder::new().name(name.into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ended = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(work(client, tell.clone())));
        // Without a listener the process is ending anyway.
        let _ = tell.send(News::Ended(ended.context(name)));
    })?;
    Ok(())
}

async fn publish(client: Arc<Client>, _tell: SyncSender<News>) -> anyhow::Result<()> {
    let dialer = dialer()?;
    let mut publishers = JoinSet::new();
    for number in 0..client.cell.publishers {
        let (client, dialer) = (client.clone(), dialer.clone());
        publishers.spawn(async move { publisher::run(&client, &dialer, number).await });
    }
    join(publishers, &dialer).await
}

async fn subscribe(client: Arc<Client>, tell: SyncSender<News>) -> anyhow::Result<()> {
    let dialer = dialer()?;
    let mut subscribers = JoinSet::new();
    for number in 0..client.cell.subscribers {
        let (client, dialer, tell) = (client.clone(), dialer.clone(), tell.clone());
        let ready = move || drop(tell.send(News::Subscribed));
        subscribers.spawn(async move { subscriber::run(&client, &dialer, number, ready).await });
    }
    join(subscribers, &dialer).await
}

async fn join(mut tasks: JoinSet<anyhow::Result<()>>, dialer: &Dialer) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    dialer.wait_idle().await;
    Ok(())
}

/// One socket for each thread, with the transport's own settings, which are the servers' too.
fn dialer() -> anyhow::Result<Arc<Dialer>> {
    Dialer::new(QuicConfig::default()).map(Arc::new).map_err(|errors| anyhow!("{errors:?}"))
}
