//! Sessions that change what they want all the time, at one of two sites; and how long the other takes to know it all.

use crate::relay::Path;
use crate::sites::{PATIENCE, Sites, shapes};
use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Overflow, SubscribeOptions};
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

/// What a run was.
#[derive(Clone, Copy, Debug)]
pub struct Churned {
    /// Subscriptions and their ends.
    pub changes: usize,
    /// How long all of them took, each confirmed.
    pub took: Duration,
    /// Batches that the other site was sent, until it knew all.
    pub batches: u64,
    /// From the last change until both sites had the same hash of every pattern.
    pub equal_after: Duration,
}

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

/// A hundred thousand changes of a hundred sessions; until the other site knows them, mark for mark.
///
/// # Errors
/// When the sites do not start, a change is refused, or they do not agree.
pub async fn churn_at_one_of_two_sites() -> Result<Churned> {
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
    let (after, equal_after) = loop {
        let (here, there) = (sites.mesh(0)?, sites.mesh(1)?);
        let is_all = there["interest"] == CLIENTS * KEPT + 1 && here["interest_own"] == CLIENTS * KEPT + 1;
        if is_all && here["interests"] == there["interests"] && there["interest_behind"] == 0 {
            break (told(&here)?, end.elapsed());
        }
        ensure!(end.elapsed() < PATIENCE, "site 0: {here:#}\nsite 1: {there:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    drop(kept);
    sites.end()?;
    Ok(Churned { changes: CLIENTS * (2 * TURNS - KEPT), took, batches: after - before, equal_after })
}
