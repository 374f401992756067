//! What sessions want, told to other sites: in batches, however often it changes.

use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Overflow, SubscribeOptions};
use myelin_tests::relay::Path;
use myelin_tests::sites::{PATIENCE, Sites, shapes};
use serde_json::Value;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Clients that change what they want.
const CLIENTS: usize = 100;
/// How often each subscribes; it unsubscribes as often, but for what it keeps.
const TURNS: usize = 500;
/// Subscriptions that a client holds at a time.
const HELD: usize = 10;
/// Subscriptions that a client has in the end.
const KEPT: usize = 2;
/// Changes wait so long for others.
const COALESCED: Duration = Duration::from_millis(50);

/// Subscribes and unsubscribes; its last subscriptions stay while the client does.
async fn churn(client: Client, number: usize) -> Result<(Client, VecDeque<myelin_client::Subscription>)> {
    let mut held = VecDeque::new();
    for turn in 0..TURNS {
        held.push_back(client.subscribe(&format!("c{number}/{turn}/**"), SubscribeOptions::default()).await?);
        if held.len() > HELD {
            held.pop_front();
        }
    }
    held.drain(..HELD - KEPT);
    Ok((client, held))
}

/// Batches that site 0 has told.
fn told(mesh: &Value) -> Result<u64> {
    mesh["interests"]["s0/r1"]["batches"].as_u64().context("the router tells how many batches")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_changes_go_to_others_in_batches_and_end_in_equal_hashes() -> Result<()> {
    let sites = Sites::start(2, &shapes::line(2), 1, |_| Path::default()).await?;
    sites.agree(&[(0, 0), (1, 0)]).await?;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(sites.client(0, &format!("churner-{number}"), Overflow::DropOldest).await?);
    }
    let (begin, before) = (Instant::now(), told(&sites.mesh(0)?)?);
    let churning: Vec<_> =
        clients.into_iter().enumerate().map(|(number, client)| tokio::spawn(churn(client, number))).collect();
    let mut kept = Vec::new();
    for client in churning {
        kept.push(client.await??);
    }
    let (took, end) = (begin.elapsed(), Instant::now());
    // What the others know is what there is: mark for mark, and not one pattern more.
    let after = loop {
        let (here, there) = (sites.mesh(0)?, sites.mesh(1)?);
        let is_all = there["interest"] == CLIENTS * KEPT + 1 && here["interest_own"] == CLIENTS * KEPT + 1;
        if is_all && here["interests"] == there["interests"] && there["interest_behind"] == 0 {
            break told(&here)?;
        }
        ensure!(end.elapsed() < PATIENCE, "site 0: {here:#}\nsite 1: {there:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let (batches, ran) = (after - before, begin.elapsed());
    let changes = CLIENTS * (2 * TURNS - KEPT);
    println!("{changes} changes in {took:.1?}: {batches} batches, equal {:.1?} after the last", end.elapsed());
    let most = ran.as_millis() / COALESCED.as_millis() + 1;
    assert!(u128::from(batches) <= most, "{batches} batches in {ran:?}");
    assert!(batches > 0);
    drop(kept);
    sites.end()
}
