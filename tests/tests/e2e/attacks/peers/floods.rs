//! Peers that send too much, too slowly, or too many things at once.

use super::{Attacked, EVIL};
use anyhow::{Context, Result};
use myelin_mesh::control::{Entry, FixedBytes, InterestDelta, InterestHead};
use myelin_mesh::{Control, RouterNumber, ViolationCode};
use myelin_tests::hostile::{encoded, frame, raw_batch, stamp, state};
use std::time::Duration;
use tokio::time::timeout;

/// What an attack may cost the attacked router: the windows of a connection, and what the allocator keeps.
const LITTLE_KIB: u64 = 64 * 1024;
/// Bytes of interest in a message.
const MESSAGE_BYTES: usize = 96 * 1024;
/// Levels and bytes of the longest patterns.
const LEVELS: usize = 32;
const PATTERN_BYTES: usize = 250;

/// The longest and deepest pattern with this number; none shares a level with another.
fn pattern(number: usize) -> String {
    let level = format!("{number:06x}");
    let text = vec![level.as_str(); LEVELS].join("/");
    format!("{number:06x}{}", &text[6..]).chars().take(PATTERN_BYTES).collect()
}

/// A delta of `owner` that adds patterns from `first` on, as many as fit; and how many.
fn giant_delta(owner: u32, seq: u64, first: usize) -> Result<(Vec<u8>, usize)> {
    let count = MESSAGE_BYTES / (PATTERN_BYTES + 5);
    let added = (first..first + count).map(|number| Ok(Entry(pattern(number).parse()?, None)));
    let head = InterestHead { epoch: 1, seq, hash: FixedBytes([1; 16]) };
    let delta =
        InterestDelta { owner: RouterNumber(owner), head, added: added.collect::<Result<_>>()?, removed: Vec::new() };
    Ok((encoded(&Control::InterestDelta(delta))?, count))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_interest_is_refused_before_it_fills_the_memory() -> Result<()> {
    let mut attacked = Attacked::start().await?;
    let mut link = attacked.evil.link().await?;
    link.say(&Control::LinkState(link.state(1, &[(1, 10)]))).await?;
    let (mut first, mut seq) = (0, 0);
    // Far more than a router may want.
    while first < 400_000 {
        seq += 1;
        let (bytes, count) = giant_delta(EVIL, seq, first)?;
        first += count;
        if link.say_raw(&bytes).await.is_err() {
            break;
        }
        if seq.is_multiple_of(100) {
            attacked.beat(1).await?;
        }
    }
    println!("{first} patterns were sent");
    assert_eq!(link.ended().await?, ViolationCode::TooMany);
    attacked.counts(ViolationCode::TooMany, 1).await?;
    // Patterns that share nothing cost most: some 200 bytes for each level.
    attacked.ends_unharmed(320 * 1024).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interest_of_strangers_and_out_of_turn_is_not_kept() -> Result<()> {
    let mut attacked = Attacked::start().await?;
    let mut link = attacked.evil.link().await?;
    link.say(&Control::LinkState(link.state(1, &[(1, 10)]))).await?;
    for owner in 1_000..1_100 {
        link.say(&Control::LinkState(state((owner, 1, 1), &[(EVIL, 1)]))).await?;
        // The one that these wait for never comes.
        for seq in 2..18 {
            link.say_raw(&giant_delta(owner, seq, 0)?.0).await?;
        }
        if owner % 20 == 0 {
            link.is_answered().await?;
            attacked.beat(1).await?;
        }
    }
    link.is_answered().await?;
    attacked.ends_unharmed(LITTLE_KIB).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_link_states_costs_no_neighbour_its_link() -> Result<()> {
    let mut attacked = Attacked::start().await?;
    let mut link = attacked.evil.link().await?;
    // Each is newer, so that each goes on to everybody.
    for burst in 0..10u64 {
        let states =
            (1..=2_000).map(|number| encoded(&Control::LinkState(link.state(burst * 2_000 + number, &[(1, 10)]))));
        let bytes = states.collect::<Result<Vec<_>>>()?.concat();
        link.say_raw(&bytes).await?;
        attacked.beat(1).await?;
    }
    link.is_answered().await?;
    attacked.ends_unharmed(LITTLE_KIB).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_counted_by_their_bytes() -> Result<()> {
    let attacked = Attacked::start().await?;
    let mut link = attacked.evil.link().await?;
    link.say(&Control::LinkState(link.state(1, &[(1, 10)]))).await?;
    let mut stream = link.connection.open_uni().await?;
    let event = [7, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    let mut sent = 0;
    for batch in 0..2_000u32 {
        let names: Vec<(u32, String)> =
            (1..=120).map(|name| (batch * 120 + name, format!("{:02000}", batch * 120 + name))).collect();
        let mut names: Vec<(u32, &str)> = names.iter().map(|(reference, text)| (*reference, text.as_str())).collect();
        names[0] = (1, "attack");
        sent += names.iter().map(|(_, text)| text.len()).sum::<usize>();
        let bytes = raw_batch(stamp(EVIL, u64::from(batch) + 1, 1), &names, 1, &event)?;
        if stream.write_all(&bytes).await.is_err() {
            break;
        }
    }
    println!("{} MiB of names were sent", sent >> 20);
    assert_eq!(link.ended().await?, ViolationCode::TooMany);
    attacked.ends_unharmed(256 * 1024).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_never_end_and_thousands_of_streams_hold_nobody_up() -> Result<()> {
    let mut attacked = Attacked::start().await?;
    // Connections on which nothing is said.
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(attacked.evil.connect().await?);
    }
    let mut link = attacked.evil.link().await?;
    link.say(&Control::LinkState(link.state(1, &[(1, 10)]))).await?;
    link.is_answered().await?;
    let mut slow = link.connection.open_uni().await?;
    slow.write_all(&300_000u32.to_le_bytes()).await?;
    // As many streams as are given, and all that each takes.
    let mut streams = Vec::new();
    while streams.len() < 5_000 {
        let opened = timeout(Duration::from_millis(500), link.connection.open_uni()).await;
        let Ok(Ok(mut stream)) = opened else { break };
        let _ = timeout(Duration::from_millis(500), stream.write_all(&[0; 256 * 1024])).await;
        streams.push(stream);
        if let Ok(Ok((mut control, answers))) = timeout(Duration::from_millis(100), link.connection.open_bi()).await {
            let _ = timeout(Duration::from_millis(500), control.write_all(&[0x55; 256 * 1024])).await;
            std::mem::forget((control, answers));
        }
    }
    println!("{} streams were opened", streams.len());
    assert!(streams.len() < 100, "the router gives few");
    // A frame of which a byte comes now and then.
    let giant = frame(100_000, 3, &[0x81; 100_000]);
    for byte in giant.iter().take(200) {
        let _ = timeout(Duration::from_millis(100), link.say_raw(&[*byte])).await;
        let _ = timeout(Duration::from_millis(100), slow.write_all(&[1])).await;
        attacked.beat(1).await?;
    }
    for connection in silent {
        let reason = timeout(super::PATIENCE, connection.closed()).await.context("a silent connection is kept")?;
        assert_eq!(myelin_tests::hostile::code_of(&reason)?, ViolationCode::OutOfOrder);
    }
    attacked.ends_unharmed(LITTLE_KIB).await
}
