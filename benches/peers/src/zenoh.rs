//! Zenoh by its own crate, over QUIC or TLS, with its own batching: a publisher on its own thread, a subscriber's
//! callback on a thread of Zenoh's.

use crate::Run;
use crate::publish::{Publisher, publish, reached, run_on_two_threads};
use anyhow::{Context, anyhow, ensure};
use myelin_load::{Checker, Measured, Phase, Subscribed};
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use zenoh::qos::CongestionControl;
use zenoh::{Config, Session, Wait};

/// The key of all events.
const KEY: &str = "bench/events";
/// What every subscriber subscribes to.
const PATTERN: &str = "bench/**";
/// How long a declaration may take to be known everywhere.
const DECLARED: Duration = Duration::from_secs(10);
/// How often it is looked whether it is.
const POLL: Duration = Duration::from_millis(20);
/// Zenoh tells nobody when its router has taken in a subscription.
const SUBSCRIPTION_SETTLES: Duration = Duration::from_millis(500);

/// Runs it over `scheme`.
pub(crate) fn run(run: &Arc<Run>, scheme: &'static str) -> anyhow::Result<Measured> {
    let publish_as = async move |run: &Arc<Run>, number| publish_as(run, scheme, number).await;
    let subscribe_as = async move |run: &Arc<Run>, number, subscribed: &Subscribed| {
        subscribe_as(run, scheme, number, subscribed).await
    };
    run_on_two_threads(run, runtime, publish_as, subscribe_as)
}

/// Zenoh refuses to be called from a current-thread runtime.
fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// By its address: Zenoh takes the first that a name has, which may be another family's.
async fn open(run: &Run, scheme: &str, port: u16) -> anyhow::Result<Session> {
    let config = serde_json::json!({
        "mode": "client",
        "connect": { "endpoints": [format!("{scheme}/{}:{}", Ipv4Addr::LOCALHOST, port)] },
        "scouting": { "multicast": { "enabled": false }, "gossip": { "enabled": false } },
        "timestamping": { "enabled": false },
        "transport": { "link": { "tls": { "root_ca_certificate": run.ca } } },
    });
    let config = Config::from_json5(&config.to_string()).map_err(|error| anyhow!("Zenoh's settings: {error}"))?;
    zenoh::open(config).await.map_err(|error| anyhow!("connecting to Zenoh: {error}"))
}

/// Puts from the thread that it is on; it blocks while Zenoh's queue is full.
struct Putting<'a>(zenoh::pubsub::Publisher<'a>);

impl Publisher for Putting<'_> {
    async fn publish(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        self.0.put(payload).wait().map_err(|error| anyhow!("Zenoh: {error}"))
    }
}

async fn publish_as(run: &Arc<Run>, scheme: &str, number: usize) -> anyhow::Result<()> {
    let session = open(run, scheme, run.port).await?;
    let publisher = session.declare_publisher(KEY).congestion_control(CongestionControl::Block).await;
    let publisher = publisher.map_err(|error| anyhow!("Zenoh: {error}"))?;
    let until = Instant::now() + DECLARED;
    while !publisher.matching_status().await.is_ok_and(|status| status.matching()) {
        ensure!(Instant::now() < until, "Zenoh does not match publisher and subscriber");
        tokio::time::sleep(POLL).await;
    }
    publish(run, number, &mut Putting(publisher)).await?;
    session.close().await.map_err(|error| anyhow!("Zenoh: {error}"))
}

async fn subscribe_as(run: &Arc<Run>, scheme: &str, number: usize, subscribed: &Subscribed) -> anyhow::Result<()> {
    let session = open(run, scheme, run.subscribers_port).await?;
    let timed = run.plan.rate.is_some();
    // Zenoh calls it from one thread; the lock is for the compiler, and free.
    let checker = Mutex::new(Checker::new(run.progress.cell(), number, timed));
    let taking = run.clone();
    let (fail, mut failed) = tokio::sync::mpsc::channel(1);
    let take = move |sample: zenoh::sample::Sample| {
        let progress = &taking.progress;
        let now_ns = if timed { progress.now_ns() } else { 0 };
        let mut checker = checker.lock().unwrap_or_else(PoisonError::into_inner);
        match checker.take(progress, &sample.payload().to_bytes()) {
            Ok(()) => checker.publish(progress, now_ns),
            // One error is enough to end the run.
            Err(error) => drop(fail.try_send(error)),
        }
    };
    let subscriber = session.declare_subscriber(PATTERN).callback(take).await;
    let _subscriber = subscriber.map_err(|error| anyhow!("Zenoh: {error}"))?;
    tokio::time::sleep(SUBSCRIPTION_SETTLES).await;
    subscribed.tell();
    tokio::select! {
        error = failed.recv() => return Err(error.context("the subscription has ended")?),
        done = reached(run, Phase::Done) => done?,
    }
    session.close().await.map_err(|error| anyhow!("Zenoh: {error}"))
}
