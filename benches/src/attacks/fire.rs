//! Attacks on the router's CPU: hostile filters at work, handshakes from everywhere.

use super::probe::{CALM_RATE, measure, ratio};
use super::{Row, Sheet, Size};
use anyhow::{Result, ensure};
use myelin_attacks::modules::{self, GRANTED, POISON, Stop};
use myelin_client::Event;
use myelin_tests::Router;
use myelin_tests::attacker::first_packets;
use serde_json::json;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the others may notice: their 99th percentile, over what it is without the attack.
const P99_RATIO_MAX: f64 = 2.0;

/// Every module that bides its time is woken again and again, while another binding's events are timed.
pub(super) async fn hostile_modules(size: Size, sheet: &mut Sheet) -> Result<()> {
    let router = Arc::new(Router::start()?);
    ensure!(router.upload("quiet", "1.0.0", &modules::quiet())?.status == 201);
    router.send_json("PUT", "/v1/bindings/calm", &json!({ "module": "quiet@1.0.0", "pattern": "calm" }))?;
    let mut names = Vec::new();
    for module in modules::all().into_iter().filter(|module| matches!(module.stop, Stop::Call(_))) {
        ensure!(router.upload(module.name, "1.0.0", &module.wasm())?.status == 201, "{}", module.name);
        let binding = json!({
            "module": format!("{}@1.0.0", module.name), "pattern": format!("bad/{}", module.name),
            "grant": { "topics": [GRANTED] },
        });
        router.send_json("PUT", &format!("/v1/bindings/{}", module.name), &binding)?;
        names.push(module.name);
    }
    ensure!(router.send_json("POST", "/v1/rollouts", &json!({}))?.status / 100 == 2);
    let time = Duration::from_secs(size.of(20));
    let calm = measure(&router, "calm", CALM_RATE, time).await?;
    let (stop, client) = (Arc::new(AtomicBool::new(false)), router.client().await?);
    let stopped = stop.clone();
    let attack = tokio::spawn(async move {
        let mut woken = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            // One at a time, so that each has time for all it wants before it is quarantined.
            for name in &names {
                let ticket = client.publish(Event::new(&format!("bad/{name}"), POISON)).await?;
                ticket.await;
                woken += 1;
            }
        }
        Ok::<u64, anyhow::Error>(woken)
    });
    let attacked = measure(&router, "calm", CALM_RATE, time).await?;
    stop.store(true, Ordering::Relaxed);
    eprintln!("  {} times a hostile module was woken", attack.await??);
    let figure = ratio(&attacked, &calm, 0.99);
    sheet.add(Row::at_most("hostile-modules: p99 of another binding", figure, P99_RATIO_MAX, "x"))
}

/// First packets of handshakes that never go on, 2,000 a second from 100 networks.
pub(super) async fn handshake_flood(size: Size, sheet: &mut Sheet) -> Result<()> {
    const RATE: u64 = 2_000;
    let router = Router::start()?;
    let time = Duration::from_secs(size.of(20));
    let calm = measure(&router, "calm", CALM_RATE, time).await?;
    let packets = first_packets(&router, 4_000)?;
    let (to, stop) = (router.client_addr(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let flood = std::thread::spawn(move || -> Result<u64> {
        let bind = |network| Ok(UdpSocket::bind((Ipv4Addr::new(127, 1, network, 1), 0))?);
        let sockets = (0..100).map(bind).collect::<Result<Vec<_>>>()?;
        let mut sent = 0_usize;
        while !stopped.load(Ordering::Relaxed) {
            for _ in 0..RATE / 100 {
                // A full buffer of the kernel loses it, as a network would.
                let _ = sockets[sent % sockets.len()].send_to(&packets[sent % packets.len()], to);
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(sent as u64)
    });
    let attacked = measure(&router, "calm", CALM_RATE, time).await?;
    stop.store(true, Ordering::Relaxed);
    let sent = flood.join().map_err(|_| anyhow::anyhow!("the flood's thread panicked"))??;
    eprintln!("  {sent} first packets, {} retried", router.metric("myelin_connections_retried_total")?);
    let figure = ratio(&attacked, &calm, 0.99);
    sheet.add(Row::at_most("handshake-flood: p99 of a client", figure, P99_RATIO_MAX, "x"))
}
