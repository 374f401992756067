//! NATS over TLS by its own client, with its own batching.

use crate::publish::{Publisher, current_thread, publish, reached, run_on_two_threads};
use crate::{Run, SERVER_NAME};
use anyhow::Context;
use async_nats::{Client, ConnectOptions, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use myelin_load::{Checker, Measured, Phase, Subscribed};
use std::sync::Arc;

/// The subject of all events.
pub(crate) const SUBJECT: &str = "bench.events";
/// What every subscriber subscribes to.
pub(crate) const PATTERN: &str = "bench.>";
/// Events that may wait in a subscription: more than can be in flight, so that the client drops none.
const SUBSCRIPTION_EVENTS_MAX: usize = 1 << 18;

/// Runs it.
pub(crate) fn run(run: &Arc<Run>) -> anyhow::Result<Measured> {
    run_on_two_threads(run, current_thread, publish_as, subscribe_as)
}

async fn connect(run: &Run, port: u16) -> anyhow::Result<Client> {
    let options = ConnectOptions::new()
        .require_tls(true)
        .add_root_certificates(run.ca.clone())
        .subscription_capacity(SUBSCRIPTION_EVENTS_MAX);
    options.connect(format!("tls://{SERVER_NAME}:{port}")).await.context("connecting to NATS")
}

struct Native {
    client: Client,
    subject: Subject,
}

impl Publisher for Native {
    async fn publish(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        Ok(self.client.publish(self.subject.clone(), Bytes::copy_from_slice(payload)).await?)
    }
}

async fn publish_as(run: &Arc<Run>, number: usize) -> anyhow::Result<()> {
    let mut native = Native { client: connect(run, run.port).await?, subject: Subject::from_static(SUBJECT) };
    publish(run, number, &mut native).await
}

async fn subscribe_as(run: &Arc<Run>, number: usize, subscribed: &Subscribed) -> anyhow::Result<()> {
    let client = connect(run, run.subscribers_port).await?;
    let events = client.subscribe(PATTERN).await?;
    is_live(&client).await?;
    subscribed.tell();
    tokio::select! {
        taken = take_all(run, number, events) => taken,
        done = reached(run, Phase::Done) => done,
    }
}

/// A round trip through the server on this connection: what was subscribed before is live then.
async fn is_live(client: &Client) -> anyhow::Result<()> {
    let inbox = client.new_inbox();
    let mut probe = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, Bytes::new()).await?;
    probe.next().await.map(drop).context("the connection to NATS has ended")
}

async fn take_all(run: &Run, number: usize, mut events: Subscriber) -> anyhow::Result<()> {
    let progress = &run.progress;
    let mut checker = Checker::new(progress.cell(), number, run.plan.rate.is_some());
    while let Some(event) = events.next().await {
        let now_ns = if run.plan.rate.is_some() { progress.now_ns() } else { 0 };
        checker.take(progress, &event.payload)?;
        checker.publish(progress, now_ns);
    }
    anyhow::bail!("the subscription has ended")
}
