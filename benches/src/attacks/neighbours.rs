//! A tenant beyond its quota, beside another one that notices nothing of it.

use super::probe::{CALM_RATE, measure, ratio};
use super::{Row, Sheet, Size};
use anyhow::{Context, Result, ensure};
use myelin_client::{Client, ClientConfig, Event, SubscribeOptions, TlsFiles};
use myelin_tests::Router;
use myelin_transport::ca::CertificateAuthority;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// What the other tenant may notice: its 99th percentile, over what it is without the neighbour.
const P99_RATIO_MAX: f64 = 2.0;
/// Events a second that the noisy tenant may publish.
const QUOTA: u64 = 2_000;
/// How many times that it tries to.
const OVER: u64 = 10;
/// What it may get through on top of its quota: the burst at the beginning, and batches under way.
const ADMITTED_RATIO_MAX: f64 = 1.1;
const NOISY: &str = "noisy";

/// Publishes [`OVER`] times the quota until it is told to stop, held back as it is; how many it got through a second.
async fn make_noise(client: Client, stop: Arc<AtomicBool>) -> Result<f64> {
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begin, mut sent) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        for _ in 0..QUOTA * OVER / 1_000 {
            client.send(Event::new("noise/x", &[7; 128])).await?;
            sent += 1;
        }
    }
    let elapsed = begin.elapsed();
    eprintln!("  {sent} events were handed to the client in {:.1} s", elapsed.as_secs_f64());
    Ok(elapsed.as_secs_f64())
}

/// A client of the router's own authority with a name of its own.
async fn client_called(router: &Router, name: &str) -> Result<Client> {
    let folder = router.data_dir().join("dev");
    let (cert, key) = CertificateAuthority::load(&folder)?.issue_service(name, 1)?.save(&folder, name)?;
    let files = TlsFiles { cert, key, ca: folder.join("ca.pem") };
    let config = ClientConfig::new(router.client_addr().to_string(), files).with_server_name("localhost");
    Ok(Client::connect(config).await?)
}

/// One tenant publishes ten times what it may; another one's events are timed.
pub(super) async fn noisy_neighbour(size: Size, sheet: &mut Sheet) -> Result<()> {
    let router = Router::start()?;
    let domain = CertificateAuthority::load(&router.data_dir().join("dev"))?.trust_domain().to_owned();
    let noisy = format!("spiffe://{domain}/service/{NOISY}");
    for (name, service, root, quota) in [
        ("quiet", format!("spiffe://{domain}/*"), "calm", json!({})),
        (NOISY, noisy, "noise", json!({ "events_per_s": QUOTA })),
    ] {
        let tenant = json!({ "services": [service], "root": root, "quota": quota });
        ensure!(router.send_json("PUT", &format!("/v1/tenants/{name}"), &tenant)?.status == 204, "{name}");
    }
    let time = Duration::from_secs(size.of(20));
    let calm = measure(&router, "calm", CALM_RATE, time).await?;

    let (publisher, subscriber) = (client_called(&router, NOISY).await?, client_called(&router, NOISY).await?);
    let mut events = subscriber.subscribe("noise/**", SubscribeOptions::default()).await?;
    let reading = tokio::spawn(async move { while events.next().await.is_some() {} });
    let stop = Arc::new(AtomicBool::new(false));
    let noise = tokio::spawn(make_noise(publisher, stop.clone()));
    let attacked = measure(&router, "calm", CALM_RATE, time).await?;
    stop.store(true, Ordering::Relaxed);
    let usage = router.ask("GET", &format!("/v1/tenants/{NOISY}"), &[], b"")?.json()["usage"].clone();
    let admitted = usage["events"].as_u64().context("events of the noisy tenant")? as f64;
    ensure!(usage["paused_ms"].as_u64().is_some_and(|ms| ms > 0), "it was never held back: {usage}");
    // Held back in the middle of a batch: it ends with its client.
    let seconds = noise.await??;
    reading.abort();
    sheet.add(Row::at_most(
        "noisy-neighbour: its own rate",
        admitted / seconds / QUOTA as f64,
        ADMITTED_RATIO_MAX,
        "x",
    ))?;
    let figure = ratio(&attacked, &calm, 0.99);
    sheet.add(Row::at_most("noisy-neighbour: p99 of another tenant", figure, P99_RATIO_MAX, "x"))
}
