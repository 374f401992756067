//! What somebody notices who does nothing wrong: an open loop of events at a fixed rate, each timed from the moment
//! when it was due.

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use myelin_client::{Event, Overflow, SubscribeOptions};
use myelin_tests::Router;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Longest time that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// How long the last event may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes in which an event says when it was due, and as many in which it says its number.
const STAMP_BYTES: usize = 8;
/// How long nothing must come after the last event, so that no event came twice.
const SILENCE: Duration = Duration::from_millis(100);
/// Bytes of an event.
const EVENT_BYTES: usize = 128;

/// Events a second that leave the machine room for the attack.
pub(super) const CALM_RATE: u64 = 500;

/// Latencies in microseconds.
pub(super) type Latencies = Histogram<u64>;

/// An empty one.
pub(super) fn new_latencies() -> Result<Latencies> {
    Ok(Histogram::new_with_max(LATENCY_US_MAX, 3)?)
}

/// Publishes `rate` events a second for `time`; every event must arrive once, and in order.
pub(super) async fn measure(router: &Router, topic: &str, rate: u64, time: Duration) -> Result<Latencies> {
    let subscriber = router.client_with(Overflow::Pause).await?;
    let mut events = subscriber.subscribe(topic, SubscribeOptions::default()).await?;
    let publisher = router.client().await?;
    let (base, count) = (Instant::now(), rate * u64::try_from(time.as_millis())? / 1_000);
    let receiving: JoinHandle<Result<Latencies>> = tokio::spawn(async move {
        let mut latencies = new_latencies()?;
        for expected in 0..count {
            let event = timeout(PATIENCE, events.next()).await.context("an event was lost")?;
            let event = event.context("the subscription ended")?;
            let (stamp, rest) = event.payload().split_first_chunk::<STAMP_BYTES>().context("an event of another")?;
            let number = u64::from_le_bytes(*rest.first_chunk().context("an event of another")?);
            ensure!(number == expected, "event {number} came where event {expected} was due");
            let due = Duration::from_nanos(u64::from_le_bytes(*stamp));
            let late = u64::try_from(base.elapsed().saturating_sub(due).as_micros())?;
            latencies.saturating_record(late.max(1));
        }
        ensure!(timeout(SILENCE, events.next()).await.is_err(), "an event came twice, or the subscription ended");
        Ok(latencies)
    });
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX));
    // An open loop: what is late is sent late, and counts as late.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut payload = [0; EVENT_BYTES];
    for number in 0..count {
        let due = ticks.tick().await.into_std().saturating_duration_since(base);
        payload[..STAMP_BYTES].copy_from_slice(&u64::try_from(due.as_nanos())?.to_le_bytes());
        payload[STAMP_BYTES..2 * STAMP_BYTES].copy_from_slice(&number.to_le_bytes());
        publisher.send(Event::new(topic, &payload)).await?;
    }
    publisher.flush().await;
    let latencies = receiving.await??;
    drop(subscriber);
    Ok(latencies)
}

/// Events a second that go from one publisher to one subscriber who waits for none to be shed.
pub(super) async fn capacity(router: &Router, topic: &str, time: Duration) -> Result<u64> {
    let subscriber = router.client_with(Overflow::Pause).await?;
    let mut events = subscriber.subscribe(topic, SubscribeOptions::default()).await?;
    let publisher = router.client().await?;
    let begin = Instant::now();
    let sending = tokio::spawn(async move {
        let mut sent = 0_u64;
        while begin.elapsed() < time {
            publisher.send(Event::new("capacity", &[7; EVENT_BYTES])).await?;
            sent += 1;
        }
        publisher.flush().await;
        Ok::<u64, anyhow::Error>(sent)
    });
    let mut received = 0_u64;
    while let Ok(Some(_)) = timeout(time, events.next()).await {
        received += 1;
        if sending.is_finished() {
            break;
        }
    }
    sending.await??;
    Ok(received * 1_000 / u64::try_from(begin.elapsed().as_millis())?.max(1))
}

/// The `quantile` of the one over that of the other.
pub(super) fn ratio(attacked: &Latencies, calm: &Latencies, quantile: f64) -> f64 {
    attacked.value_at_quantile(quantile) as f64 / calm.value_at_quantile(quantile).max(1) as f64
}
