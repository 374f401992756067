//! Overload: half as many events again as a subscriber takes.

use super::probe::{Latencies, new_latencies};
use super::{Row, Sheet, Size};
use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Event, Overflow, SubscribeOptions, Subscription};
use myelin_tests::Router;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Events a second that are published, all the time.
const RATE: u64 = 3_000;
/// Events a second that the subscriber takes while it is overloaded: two thirds.
const TAKEN: u64 = 2_000;
/// Large enough that an outbox is full within seconds.
const EVENT_BYTES: usize = 8 * 1_024;
/// The topic of all of it.
const TOPIC: &str = "busy";
/// One look at the latencies after the overload.
const WINDOW: Duration = Duration::from_millis(500);
/// After this it has not recovered.
const PATIENCE: Duration = Duration::from_secs(30);

/// The subscriber, as the publisher sees it.
#[derive(Debug)]
struct Reader {
    /// It takes [`TAKEN`] events a second, not all.
    is_slow: AtomicBool,
    /// Events that it has taken.
    taken: AtomicU64,
    /// Since somebody looked.
    latencies: Mutex<Latencies>,
}

impl Reader {
    /// Takes every event, and times it from when it was due; one that comes twice or out of order is an error.
    async fn read(&self, mut events: Subscription, base: Instant) -> Result<()> {
        let (mut pace, mut next) = (ticks(TAKEN), 0);
        while let Some(event) = events.next().await {
            let (number, rest) = event.payload().split_first_chunk().context("an event of another")?;
            let (number, due) = (u64::from_le_bytes(*number), rest.first_chunk().context("an event of another")?);
            ensure!(number >= next, "event {number} came after event {next}");
            next = number + 1;
            let late = base.elapsed().saturating_sub(Duration::from_nanos(u64::from_le_bytes(*due)));
            self.record(u64::try_from(late.as_micros())?.max(1));
            if self.is_slow.load(Ordering::Relaxed) {
                pace.tick().await;
            } else {
                pace.reset();
            }
        }
        Ok(())
    }

    fn record(&self, late_us: u64) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(late_us);
    }

    /// What has arrived since the last look.
    fn look(&self) -> Result<Latencies> {
        let fresh = new_latencies()?;
        Ok(std::mem::replace(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner), fresh))
    }
}

fn ticks(rate: u64) -> Interval {
    let mut ticks = interval(Duration::from_nanos(1_000_000_000 / rate));
    // An open loop: what is late is done late, not left out.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    ticks
}

/// The publisher: [`RATE`] events a second, whatever becomes of them.
struct Publisher {
    client: Client,
    ticks: Interval,
    base: Instant,
    sent: u64,
}

impl Publisher {
    async fn publish_for(&mut self, time: Duration) -> Result<()> {
        let mut payload = vec![7; EVENT_BYTES];
        for _ in 0..u128::from(RATE) * time.as_millis() / 1_000 {
            let due = self.ticks.tick().await.into_std().saturating_duration_since(self.base);
            payload[..8].copy_from_slice(&self.sent.to_le_bytes());
            payload[8..16].copy_from_slice(&u64::try_from(due.as_nanos())?.to_le_bytes());
            self.client.send(Event::new(TOPIC, &payload)).await?;
            self.sent += 1;
        }
        Ok(())
    }
}

/// A subscriber takes two thirds of what is published, then all of it again.
pub(super) async fn overload(size: Size, sheet: &mut Sheet) -> Result<()> {
    let router = Router::start()?;
    let client = router.client_with(Overflow::DropOldest).await?;
    let events = client.subscribe(TOPIC, SubscribeOptions::default()).await?;
    let reader =
        Reader { is_slow: AtomicBool::new(false), taken: AtomicU64::new(0), latencies: Mutex::new(new_latencies()?) };
    let (reader, base) = (Arc::new(reader), Instant::now());
    let reading = tokio::spawn({
        let reader = reader.clone();
        async move { reader.read(events, base).await }
    });
    let mut publisher = Publisher { client: router.client().await?, ticks: ticks(RATE), base, sent: 0 };
    publisher.publish_for(Duration::from_secs(size.of(10))).await?;
    let calm = reader.look()?.value_at_quantile(0.99);

    reader.is_slow.store(true, Ordering::Relaxed);
    // Longer than the outbox, the windows of QUIC and the client take to fill, in a quick run too.
    publisher.publish_for(Duration::from_secs(size.of(20).max(10))).await?;
    let overloaded = reader.look()?.value_at_quantile(0.99);
    reader.is_slow.store(false, Ordering::Relaxed);

    let begin = Instant::now();
    let (recovered, p99) = loop {
        publisher.publish_for(WINDOW).await?;
        let p99 = reader.look()?.value_at_quantile(0.99);
        if p99 <= 2 * calm || begin.elapsed() > PATIENCE {
            break (begin.elapsed(), p99);
        }
    };
    publisher.client.flush().await;
    let ledger = router.settled_ledger()?;
    ensure!(ledger["balances"] == true, "{ledger}");
    let shed = ledger["total"]["shed"].as_u64().context("shed")?;
    let sent = publisher.sent;
    // What is settled has left the router; it has still to be read.
    let begin = Instant::now();
    while reader.taken.load(Ordering::Relaxed) + shed < sent && begin.elapsed() < PATIENCE && !reading.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let taken = reader.taken.load(Ordering::Relaxed);
    if reading.is_finished() {
        reading.await??;
    } else {
        reading.abort();
    }
    ensure!(shed > 0, "nothing was shed: the overload was none");
    ensure!(taken + shed == sent, "{sent} events were published, {taken} taken, {shed} shed and counted");
    eprintln!("  {sent} events: {taken} taken, {shed} shed, and counted one by one; the ledger balances");
    eprintln!("  p99 {calm} us before, {overloaded} us in it, {p99} us after it");
    sheet.add(Row::at_most("overload: p99 is within 2x again after", recovered.as_secs_f64(), 5.0, "s"))
}
