//! The traffic of `myelin dev`: events like the fixtures', at a steady rate, from a seed.

use super::package::{Package, samples};
use super::stage::Stage;
use crate::cli::failure::Result;
use crate::cli::made_up::{MadeUp, Maker};
use myelin_arena::Attrs;
use myelin_client::{Client, Event, Stats};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How often events are sent; each time as many as are due.
const TICK: Duration = Duration::from_millis(10);
/// How long the last events may take to be decided.
const FLUSH_TIME: Duration = Duration::from_secs(5);

/// Traffic that flows until it is stopped.
pub(super) struct Traffic {
    /// One of each site.
    clients: Vec<Client>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Begins to send `rate` events a second at each site; none at all where there is nothing to send.
    pub(super) async fn start(stage: &Stage, package: &Package, rate: u32, seed: u64) -> Result<Self> {
        let clients = stage.clients().await?;
        let samples = samples(&package.fixtures()?);
        let flows = rate > 0 && !samples.is_empty();
        let makers = (seed..).map(|seed| Maker::new(seed, samples.clone(), &[]));
        let sending = clients.iter().zip(makers).filter(|_| flows);
        let tasks = sending.map(|(client, maker)| tokio::spawn(send(client.clone(), maker, rate))).collect();
        Ok(Self { clients, tasks })
    }

    /// What became of it so far.
    pub(super) fn told(&self) -> String {
        if self.tasks.is_empty() {
            return "none: there are no fixtures, or --rate is 0".to_owned();
        }
        let all: Vec<Stats> = self.clients.iter().map(Client::stats).collect();
        let sum = |of: fn(&Stats) -> u64| all.iter().map(of).sum::<u64>();
        let (published, acked, refused) =
            (sum(|told| told.published), sum(|told| told.acked), sum(|told| told.refused));
        format!("{published} events sent, {acked} accepted, {refused} refused")
    }

    /// Ends it; what became of it in all.
    pub(super) async fn stop(self) -> String {
        self.tasks.iter().for_each(JoinHandle::abort);
        // What is not decided by then is decided by the drain.
        let flushed = async {
            for client in &self.clients {
                client.flush().await;
            }
        };
        let _ = timeout(FLUSH_TIME, flushed).await;
        let told = self.told();
        for client in &self.clients {
            client.close().await;
        }
        told
    }
}

async fn send(client: Client, mut maker: Maker, rate: u32) {
    let (begin, mut sent) = (Instant::now(), 0_u64);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // An open loop: what is due is sent, whatever became of the events before.
        let due = begin.elapsed().as_millis() * u128::from(rate) / 1_000;
        while u128::from(sent) < due {
            let event = maker.mild();
            if client.send(event_of(&event)).await.is_err() {
                return;
            }
            sent += 1;
        }
    }
}

fn event_of(made_up: &MadeUp) -> Event<'_> {
    Attrs::new(&made_up.attrs)
        .iter()
        .fold(Event::new(&made_up.topic, &made_up.payload), |event, attr| event.attr(&attr))
}
