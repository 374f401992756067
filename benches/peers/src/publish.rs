//! What every publisher does, whatever the broker: as fast as the bound on what is in flight allows, or on a schedule.

use crate::Run;
use anyhow::Context;
use futures_util::future::try_join_all;
use myelin_load::{Measured, Payload, Phase, Schedule, Subscribed, measure};
use std::io;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// Payload bytes that are published between two looks at the bound, and written at once by a client that batches.
const BURST_BYTES: usize = 32 * 1024;

/// How events get to a broker.
pub(crate) trait Publisher {
    /// Publishes one event.
    async fn publish(&mut self, payload: &[u8]) -> anyhow::Result<()>;

    /// Writes what was published, where the client does not by itself.
    async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Publishes as publisher `number` until the run is over.
pub(crate) async fn publish(run: &Run, number: usize, publisher: &mut impl Publisher) -> anyhow::Result<()> {
    let progress = &run.progress;
    let mut payload = Payload::new(progress.cell(), number)?;
    // These brokers acknowledge nothing here: only the subscribers bound what is in flight.
    progress.acked(number, u64::MAX);
    reached(run, Phase::Running).await?;
    let burst = (BURST_BYTES / payload.len()).max(1) as u64;
    let burst = burst.min(progress.cell().in_flight_max());
    let mut seq = 0;
    match run.plan.rate {
        None => {
            while progress.is_running() {
                if progress.room(number) < burst {
                    progress.moved(number).await;
                    continue;
                }
                progress.sent(number, seq + burst);
                let now_ns = progress.now_ns();
                for _ in 0..burst {
                    publisher.publish(payload.write(seq, now_ns)).await?;
                    seq += 1;
                }
                publisher.flush().await?;
            }
        }
        Some(rate) => {
            let schedule = Schedule::new(progress, rate)?;
            while progress.is_running() {
                schedule.tick().await?;
                let now_ns = progress.now_ns();
                let begin = seq;
                while schedule.due_ns(seq) <= now_ns && seq - begin < burst {
                    progress.sent(number, seq + 1);
                    publisher.publish(payload.write(seq, schedule.due_ns(seq))).await?;
                    seq += 1;
                }
                if seq > begin {
                    publisher.flush().await?;
                }
            }
        }
    }
    reached(run, Phase::Done).await
}

/// Runs all publishers on one thread and all subscribers on another, each with a runtime of its own.
pub(crate) fn run_on_two_threads(
    run: &Arc<Run>,
    runtime: fn() -> io::Result<Runtime>,
    publish_as: impl AsyncFn(&Arc<Run>, usize) -> anyhow::Result<()> + Send + 'static,
    subscribe_as: impl AsyncFn(&Arc<Run>, usize, &Subscribed) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Measured> {
    let (publishing, subscribing) = (run.clone(), run.clone());
    let publishers = move || {
        let numbers = 0..publishing.progress.cell().publishers;
        runtime()?.block_on(try_join_all(numbers.map(|number| publish_as(&publishing, number)))).map(drop)
    };
    let subscribers = move |subscribed: Subscribed| {
        let numbers = 0..subscribing.progress.cell().subscribers;
        let all = numbers.map(|number| subscribe_as(&subscribing, number, &subscribed));
        runtime()?.block_on(try_join_all(all)).map(drop)
    };
    measure(&run.plan, &run.progress, publishers, subscribers)
}

/// A runtime on the thread that it is made on, as the bench's own client has.
pub(crate) fn current_thread() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Waits until the run is as far as `wanted`.
pub(crate) async fn reached(run: &Run, wanted: Phase) -> anyhow::Result<()> {
    run.progress.phase.subscribe().wait_for(|phase| *phase >= wanted).await.map(drop).context("the run is gone")
}
