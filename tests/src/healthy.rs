//! A client that does nothing wrong while others do: whatever they are up to, its events are decided and arrive.

use crate::Router;
use anyhow::{Context, Result, ensure};
use myelin_client::{
    Client, ClientConfig, Connector, Event, Outcome, Overflow, QuicConnector, SubscribeOptions, Subscription,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longer than any of its events takes while the machine is under attack.
const PATIENCE: Duration = Duration::from_secs(60);

/// A publisher and a subscriber of one topic.
#[derive(Debug)]
pub struct Healthy {
    topic: String,
    publisher: Client,
    subscriber: Client,
    events: Subscription,
    sent: u64,
}

impl Healthy {
    /// Connects both.
    ///
    /// # Errors
    /// When the router does not take them.
    pub async fn start(router: &Router, topic: &str) -> Result<Self> {
        let subscriber = router.client_with(Overflow::Pause).await?;
        let events = subscriber.subscribe(topic, SubscribeOptions::default()).await?;
        Ok(Self { topic: topic.to_owned(), publisher: router.client().await?, subscriber, events, sent: 0 })
    }

    /// Publishes `count` events one after the other: each must be acknowledged, and arrive next.
    ///
    /// # Errors
    /// When one of them is refused, lost, doubled or out of order.
    pub async fn beat(&mut self, count: u64) -> Result<()> {
        for _ in 0..count {
            let payload = self.sent.to_string();
            let ticket = timeout(PATIENCE, self.publisher.publish(Event::new(&self.topic, &payload))).await??;
            let outcome = timeout(PATIENCE, ticket).await.context("no ack in time")?;
            ensure!(matches!(outcome, Outcome::Acked), "event {payload} of the healthy client: {outcome:?}");
            let event = timeout(PATIENCE, self.events.next()).await.context("not delivered in time")?;
            let event = event.context("the subscription ended")?;
            ensure!(event.payload() == payload.as_bytes(), "{:?} came where {payload} was due", event.payload());
            self.sent += 1;
        }
        Ok(())
    }

    /// Ends both clients in order: the router has their last receipts then.
    pub async fn close(self) {
        self.publisher.close().await;
        self.subscriber.close().await;
    }
}

/// Clients that are made at the same time.
const TOGETHER: usize = 50;

/// Many clients behind one UDP socket, so that they cost few descriptors; otherwise they are as any.
///
/// # Errors
/// When one of them cannot connect.
pub async fn crowd(router: &Router, count: usize, overflow: Overflow) -> Result<Vec<Client>> {
    crowd_with(router.client_config().with_overflow(overflow), count).await
}

/// The same with settings of the caller's.
///
/// # Errors
/// When one of them cannot connect.
pub async fn crowd_with(config: ClientConfig, count: usize) -> Result<Vec<Client>> {
    let connector: Arc<dyn Connector> = Arc::new(QuicConnector::new(&config)?);
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let together = TOGETHER.min(count - clients.len());
        let joining: JoinSet<_> =
            (0..together).map(|_| Client::connect_with(config.clone(), connector.clone())).collect();
        for joined in joining.join_all().await {
            clients.push(joined?);
        }
    }
    Ok(clients)
}
