//! Five sites in a line, a ring, a star and a mesh, 80 to 200 ms and 2 % of loss apart: everybody hears everybody.

use super::{CALM, Ears, Mouth};
use anyhow::{Result, ensure};
use myelin_tests::relay::Path;
use myelin_tests::sites::{PATIENCE, Sites, shapes};
use serde_json::Value;
use std::time::{Duration, Instant};

const SITES: usize = 5;
/// Sites that publish, and events of each.
const MOUTHS: [usize; 3] = [0, 2, 4];
const EVENTS: u64 = 150;

/// Round trips of the links, in turn: 80 to 200 ms for shapes in which there is no choice, and so that the direct way is
/// the shortest in the others.
const FAR_MS: [u64; 5] = [80, 200, 110, 170, 140];
const NEAR_MS: [u64; 5] = [80, 140, 100, 120, 90];

/// A link that does everything but break.
fn rough(rtt_ms: u64) -> Path {
    let wide = Path::wide_area(Duration::from_millis(rtt_ms), 20);
    Path { duplicate_per_mille: 5, reorder_per_mille: 5, ..wide }
}

async fn everybody_hears_everybody(links: Vec<(usize, usize)>, rtts_ms: [u64; 5], seed: u64) -> Result<()> {
    println!("seed {seed}");
    let sites = Sites::start(SITES, &links, seed, |link| rough(rtts_ms[link % rtts_ms.len()])).await?;
    let mut ears = Vec::new();
    for site in 0..SITES {
        ears.push(Ears::open(&sites, site).await?);
    }
    let everywhere: Vec<_> = (0..SITES).map(|site| (site, SITES - 1)).collect();
    sites.agree(&everywhere).await?;
    tokio::time::sleep(CALM).await;
    let mut mouths = Vec::new();
    for site in MOUTHS {
        mouths.push(Mouth::open(&sites, site, Duration::from_millis(10), EVENTS).await?);
    }
    for mouth in mouths {
        let site = mouth.site;
        let sent = mouth.close(false).await?;
        assert_eq!(sent, EVENTS);
        for ears in &ears {
            ears.hears(site, 0, sent).await?;
            let heard = ears.heard(site);
            ensure!(heard.is_sorted(), "site {} heard site {site} out of order: {heard:?}", ears.site);
            ears.heard_none_twice(site)?;
        }
    }
    let ledger = sites.settle().await?;
    let published = EVENTS * MOUTHS.len() as u64;
    assert_eq!((ledger["accepted"], ledger["delivered"]), (published, published * SITES as u64), "{ledger:?}");
    assert_eq!((ledger["lost"], ledger["shed"], ledger["unmatched"]), (0, 0, 0), "{ledger:?}");
    let sent = links_agree(&sites, ledger["forwarded"]).await?;
    let lost: u64 = sites.links().map(|(_, relay)| relay.counts()).map(|(there, back)| there.lost + back.lost).sum();
    println!("{sent} copies over links, {lost} datagrams lost by chance");
    ensure!(lost > 0, "the links were to lose something");
    sites.end()
}

/// What was handed to links came out of them, and was acknowledged: `forwarded` copies. No link has ended, so that their
/// counters are whole; a router tells them once a second.
async fn links_agree(sites: &Sites, forwarded: u64) -> Result<u64> {
    let begin = Instant::now();
    loop {
        let (mut sent, mut received) = (0, 0);
        for site in 0..SITES {
            let mesh = sites.mesh(site)?;
            for link in mesh["links"].as_array().into_iter().flatten() {
                sent += link["sent"].as_u64().unwrap_or_default();
                received += link["received"].as_u64().unwrap_or_default();
            }
            let none = Value::Object(serde_json::Map::default());
            ensure!(mesh["duplicates"] == 0 && mesh["unreachable"] == 0 && mesh["violations"] == none, "{mesh}");
        }
        if (sent, received) == (forwarded, forwarded) {
            return Ok(sent);
        }
        ensure!(begin.elapsed() < PATIENCE, "links sent {sent} and received {received}, {forwarded} were forwarded");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_sites_in_a_line() -> Result<()> {
    everybody_hears_everybody(shapes::line(SITES), FAR_MS, 11).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_sites_in_a_ring() -> Result<()> {
    everybody_hears_everybody(shapes::ring(SITES), NEAR_MS, 12).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_sites_in_a_star() -> Result<()> {
    everybody_hears_everybody(shapes::star(SITES), FAR_MS, 13).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_sites_each_with_each() -> Result<()> {
    everybody_hears_everybody(shapes::mesh(SITES), NEAR_MS, 14).await
}
