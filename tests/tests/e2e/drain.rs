//! SIGTERM: clients are told to move on, what is in flight is finished, exit code 0.

use anyhow::{Context, Result};
use myelin_client::{Client, Event, Overflow, SubscribeOptions};
use myelin_tests::Router;
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_router_has_delivered_what_it_acknowledged() -> Result<()> {
    let mut router = Router::start()?;
    let once = |config: myelin_client::ClientConfig| config.with_reconnect(false).with_overflow(Overflow::Pause);
    let subscriber = Client::connect(once(router.client_config())).await?;
    let mut events = subscriber.subscribe("load", SubscribeOptions::default()).await?;
    let publisher = Client::connect(once(router.client_config())).await?;
    let sending = publisher.clone();
    let load = tokio::spawn(async move {
        let mut sent = 0_u64;
        while sending.send(Event::new("load", &sent.to_string())).await.is_ok() {
            sent += 1;
        }
        sent
    });
    let counting = tokio::spawn(async move {
        let mut next = 0_u64;
        while let Some(event) = events.next().await {
            let n: u64 = String::from_utf8_lossy(event.payload()).parse().unwrap();
            assert_eq!(n, next, "in order, once each");
            next += 1;
        }
        next
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    router.ask_to_end()?;
    let status = tokio::task::spawn_blocking(move || router.wait()).await??;
    assert_eq!(status.code(), Some(0));
    timeout(Duration::from_secs(20), load).await.context("the publisher was not told")??;
    let received = timeout(Duration::from_secs(20), counting).await.context("the subscriber was not told")??;
    let acked = publisher.flush().await.acked;
    assert!(acked > 0 && received >= acked, "{acked} were acknowledged, {received} delivered");
    Ok(())
}
