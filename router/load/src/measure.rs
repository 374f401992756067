//! One run: publishers on one thread, subscribers on another, the clock on a third.

use crate::cell::Cell;
use crate::measured::{Distribution, Measured};
use crate::process;
use crate::progress::{Phase, Progress};
use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
/// Grain of the timeline.
const SAMPLE: Duration = Duration::from_millis(100);

/// How long a run takes, and what it looks at.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Time before the window, which is not measured.
    pub warm_up: Duration,
    /// Length of the window.
    pub length: Duration,
    /// Events a second of each publisher on a fixed schedule; `None` = as fast as the bound on what is in flight
    /// allows. Only then latencies say something.
    pub rate: Option<u64>,
    /// The servers' processes, whose CPU time and memory are counted, all together.
    pub server_pids: Vec<u32>,
    /// Time between the last subscription and the first event: what a server needs to tell others of it.
    pub settle: Duration,
}

/// The plan of a client process on its command line.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// A process of the server, whose CPU time and memory are counted; may be given again.
    #[arg(long = "server-pid")]
    pub server_pids: Vec<u32>,
    /// Payload bytes, publishers and subscribers.
    #[arg(long, default_value = "128:1-1")]
    pub cell: Cell,
    /// Events a second of each publisher on a fixed schedule; without it, as fast as it goes.
    #[arg(long)]
    pub rate: Option<u64>,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Seconds before that, which are not.
    #[arg(long, default_value_t = 0.7)]
    pub warm_up: f64,
    /// Seconds from the last subscription to the first event, for servers that have to tell others of it.
    #[arg(long, default_value_t = 0.0)]
    pub settle: f64,
}

impl PlanArgs {
    /// The plan.
    ///
    /// # Errors
    /// When a time is none.
    pub fn plan(&self) -> anyhow::Result<Plan> {
        let time = |seconds| Duration::try_from_secs_f64(seconds).context("a time is a number of seconds");
        let (warm_up, length, settle) = (time(self.warm_up)?, time(self.seconds)?, time(self.settle)?);
        ensure!(!length.is_zero(), "a window has some length");
        Ok(Plan { warm_up, length, rate: self.rate, server_pids: self.server_pids.clone(), settle })
    }
}

/// What the client's threads report.
enum News {
    /// A subscriber is there.
    Subscribed,
    /// A thread has ended.
    Ended(anyhow::Result<()>),
}

/// Tells that a subscriber is there; each subscriber calls it once.
#[derive(Clone)]
pub struct Subscribed(SyncSender<News>);

impl Subscribed {
    /// The subscriber takes events from now on.
    pub fn tell(&self) {
        // Without a listener the process is ending anyway.
        let _ = self.0.send(News::Subscribed);
    }
}

/// Runs `publish` and `subscribe`, each on a thread of its own. Both follow the phases of `progress`: publishers
/// publish while it is [`Phase::Running`], and both return when it is [`Phase::Done`].
///
/// # Errors
/// What failed in either, or that they did not keep to the phases.
pub fn measure(
    plan: &Plan,
    progress: &Arc<Progress>,
    publish: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    subscribe: impl FnOnce(Subscribed) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Measured> {
    let subscribers = progress.cell().subscribers;
    let (tell, news) = sync_channel(subscribers + THREADS);
    let subscribed = Subscribed(tell.clone());
    spawn("subscribers", tell.clone(), move || subscribe(subscribed))?;
    spawn("publishers", tell, publish)?;
    wait_for_subscribers(&news, subscribers)?;
    pause(&news, plan.settle)?;
    progress.begin(Phase::Running);
    pause(&news, plan.warm_up)?;
    let mut measured = window(plan, progress, &news)?;
    progress.begin(Phase::Draining);
    let until = Instant::now() + DRAIN;
    // First the pause: a publisher that is just writing a batch has not yet counted it.
    thread::sleep(DRAIN_POLL);
    while progress.missing() > 0 && Instant::now() < until {
        thread::sleep(DRAIN_POLL);
    }
    measured.lost = progress.missing() + progress.gaps.load(Relaxed);
    measured.doubled = progress.doubled.load(Relaxed);
    // Only now: the events of the window that were late have arrived, too.
    measured.latency = plan.rate.map(|_| Distribution::of(&progress.latencies()));
    progress.begin(Phase::Done);
    for _ in 0..THREADS {
        match news.recv_timeout(FAREWELL) {
            Ok(News::Ended(ended)) => ended?,
            _ => bail!("the client's threads did not end; the server does not answer"),
        }
    }
    measured.refused = progress.refused.load(Relaxed);
    Ok(measured)
}

/// What happens between the two ends of the window.
fn window(plan: &Plan, progress: &Progress, news: &Receiver<News>) -> anyhow::Result<Measured> {
    let look = || {
        let server = plan.server_pids.iter().map(|pid| process::cpu_seconds(*pid)).sum::<anyhow::Result<f64>>()?;
        anyhow::Ok((Instant::now(), progress.delivered(), server, process::cpu_seconds(std::process::id())?))
    };
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    progress.open_window(plan.length);
    let (begin, delivered_before, server_before, own_before) = look()?;
    let mut timeline = Vec::new();
    loop {
        let left = plan.length.saturating_sub(begin.elapsed());
        if left.is_zero() {
            break;
        }
        pause(news, SAMPLE.min(left))?;
        timeline.push((millis(begin.elapsed()), progress.delivered() - delivered_before));
    }
    let (end, delivered, server_cpu, own_cpu) = look()?;
    let (mut server_memory_mib, mut server_memory_mib_max) = (0.0, 0.0);
    for pid in &plan.server_pids {
        let (now, most) = process::memory_mib(*pid)?;
        server_memory_mib += now;
        server_memory_mib_max += most;
    }
    Ok(Measured {
        seconds: (end - begin).as_secs_f64(),
        begin_unix_ms: millis(unix),
        delivered: delivered - delivered_before,
        server_cpu_seconds: server_cpu - server_before,
        client_cpu_seconds: own_cpu - own_before,
        server_memory_mib,
        server_memory_mib_max,
        timeline,
        ..Measured::default()
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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

fn spawn(
    name: &'static str,
    tell: SyncSender<News>,
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    thread::Builder::new().name(name.into()).spawn(move || {
        // Without a listener the process is ending anyway.
        let _ = tell.send(News::Ended(work().context(name)));
    })?;
    Ok(())
}

/// Runs a future to its end on this thread, with I/O and time.
///
/// # Errors
/// When there is no runtime, or the future fails.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Checker, Payload};

    /// A broker that is a queue in this process; it swallows event number `swallows`.
    fn run(swallows: Option<u64>) -> anyhow::Result<Measured> {
        let cell = Cell { payload_bytes: 128, publishers: 1, subscribers: 1 };
        let progress = Arc::new(Progress::new(&cell));
        let plan = Plan {
            warm_up: Duration::from_millis(10),
            length: Duration::from_millis(250),
            server_pids: vec![std::process::id()],
            ..Plan::default()
        };
        let (to_subscriber, events) = sync_channel::<Vec<u8>>(64);
        let (publishing, subscribing) = (progress.clone(), progress.clone());
        let publish = move || {
            let mut payload = Payload::new(&cell, 0)?;
            let mut seq = 0;
            publishing.acked(0, u64::MAX);
            block_on(async {
                Ok(publishing.phase.subscribe().wait_for(|phase| *phase >= Phase::Running).await.map(drop)?)
            })?;
            while publishing.is_running() {
                let event = payload.write(seq, 0).to_vec();
                if swallows != Some(seq) {
                    to_subscriber.send(event)?;
                }
                seq += 1;
                publishing.sent(0, seq);
            }
            Ok(())
        };
        let subscribe = move |subscribed: Subscribed| {
            subscribed.tell();
            let mut checker = Checker::new(&cell, 0, false);
            while let Ok(event) = events.recv() {
                checker.take(&subscribing, &event)?;
                checker.publish(&subscribing, 0);
            }
            Ok(())
        };
        measure(&plan, &progress, publish, subscribe)
    }

    #[test]
    fn a_run_counts_what_arrives_and_what_does_not() {
        let measured = run(None).expect("nothing fails");
        assert!(measured.is_exact() && measured.delivered > 0, "{measured:?}");
        assert!(
            measured.timeline.len() >= 2 && measured.timeline.last().is_some_and(|last| last.1 <= measured.delivered)
        );
        let measured = run(Some(7)).expect("nothing fails");
        assert_eq!((measured.lost, measured.doubled), (1, 0));
    }

    #[test]
    fn a_thread_that_fails_ends_the_run_with_its_reason() {
        let progress = Arc::new(Progress::new(&Cell { payload_bytes: 128, publishers: 1, subscribers: 1 }));
        let plan = Plan { length: Duration::from_secs(60), ..Plan::default() };
        let failed = measure(&plan, &progress, || Ok(()), |_| bail!("no broker")).expect_err("it cannot succeed");
        assert!(
            format!("{failed:#}").contains("no broker") || format!("{failed:#}").contains("too early"),
            "{failed:#}"
        );
    }
}
