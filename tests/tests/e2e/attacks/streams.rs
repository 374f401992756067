//! Attackers with a certificate: floods of streams and resets, gaps that are never filled, readers that do not read.

use super::{assert_growth, eventually};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use myelin_client::Event;
use myelin_tests::attacker::{Attacker, DeafSocket, Reckless, encoded, hello, quinn_config};
use myelin_tests::{Healthy, Router, Setup};
use myelin_transport::SendStream;
use myelin_wire::Message;
use myelin_wire::message::{Overflow, Subscribe};
use myelin_wire::stream::write_name;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Attackers at a time.
const ATTACKERS: usize = 6;
/// What one connection may make a router hold: its connection window. The default of `connection_window_bytes`.
const WINDOW_KIB: u64 = 8 * 1024;
/// Streams of a kind that a client may have open: the default of `bidi_streams_max`.
const STREAMS_MAX: usize = 64;
/// What no number of attackers explains: allocator, tables, logs.
const SLACK_KIB: u64 = 32 * 1024;
/// Waiting for something that must not come.
const NEVER: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens streams until no more may be opened, and fills all of them until no more may be sent.
async fn flood_streams(attacker: Arc<Attacker>) -> Result<(usize, myelin_tests::attacker::RawSession)> {
    let session = attacker.session(Overflow::DropOldest).await?;
    let mut streams: Vec<SendStream> = Vec::new();
    while let Ok(opened) = timeout(NEVER, session.connection.open_bi()).await {
        streams.push(opened?.0);
        ensure!(streams.len() <= STREAMS_MAX, "more streams than are allowed");
    }
    let junk = Bytes::from(vec![0x5a; 64 * 1024]);
    for stream in &mut streams {
        // Up to the stream's window, or the connection's: then it waits for ever.
        while let Ok(written) = timeout(NEVER / 30, stream.write_chunk(junk.clone())).await {
            written?;
        }
    }
    Ok((streams.len(), session))
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_streams_stop_at_the_windows() -> Result<()> {
    let router = Router::start()?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    healthy.beat(10).await?;
    let (attacker, before) = (Arc::new(Attacker::of(&router)?), router.own_memory_kib()?);
    let floods: Vec<_> = (0..ATTACKERS).map(|_| tokio::spawn(flood_streams(attacker.clone()))).collect();
    let mut held = Vec::new();
    for flood in floods {
        let (streams, session) = flood.await??;
        // The control stream is one of them.
        ensure!(streams == STREAMS_MAX - 1, "{streams} streams could be opened");
        held.push(session);
        healthy.beat(10).await?;
    }
    healthy.beat(50).await?;
    assert_growth(&router, before, ATTACKERS as u64 * WINDOW_KIB + SLACK_KIB)?;
    drop(held);
    eventually("the attackers are gone", || Ok(router.metric("myelin_sessions")? == 2)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_resets_end_at_the_limit_of_streams_or_the_session() -> Result<()> {
    let router = Router::start()?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    let (attacker, before) = (Attacker::of(&router)?, router.own_memory_kib()?);
    // Streams that nobody reads are never given back, so that resetting them buys no more of them.
    let session = attacker.session(Overflow::DropOldest).await?;
    let mut resets = 0;
    while let Ok(opened) = timeout(NEVER, session.connection.open_bi()).await {
        let (mut send, mut recv) = opened?;
        send.write_all(b"x").await?;
        send.reset(7);
        recv.stop(7);
        resets += 1;
        ensure!(resets < 10 * STREAMS_MAX, "resets buy streams without end");
    }
    healthy.beat(20).await?;
    // A publish stream that is reset, or doubled, ends its session; at once, however often that is tried.
    for round in 0..50 {
        let session = attacker.session(Overflow::DropOldest).await?;
        let mut publish = session.connection.open_uni().await?;
        publish.write_all(b"x").await?;
        if round % 2 == 0 {
            publish.reset(7);
        } else {
            session.connection.open_uni().await?.write_all(b"x").await?;
        }
        let closed = timeout(PATIENCE, session.connection.closed()).await.context("the session goes on")?;
        ensure!(closed.by_peer, "{closed}");
    }
    healthy.beat(20).await?;
    println!("{resets} resets in one session");
    drop(session);
    eventually("the attackers are gone", || Ok(router.metric("myelin_sessions")? == 2)).await?;
    ensure!(router.metric("myelin_refusals_total")? >= 50);
    assert_growth(&router, before, SLACK_KIB)
}

/// Bytes that each deaf attacker sends one by one.
const FRAGMENTS: usize = 6_000;
/// Streams that it spreads them over.
const GAPPY_STREAMS: usize = 16;

#[tokio::test]
async fn gaps_that_are_never_filled_are_bounded() -> Result<()> {
    let router = Router::start()?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    healthy.beat(10).await?;
    let before = router.own_memory_kib()?;
    let mut config = quinn_config(&router)?;
    let mut transport = quinn::TransportConfig::default();
    transport.congestion_controller_factory(Arc::new(Reckless));
    config.transport_config(Arc::new(transport));
    let mut held = Vec::new();
    for _ in 0..ATTACKERS / 2 {
        let (endpoint, socket) = DeafSocket::endpoint()?;
        let connection = endpoint.connect_with(config.clone(), router.client_addr(), "localhost")?.await?;
        let (mut control, mut answers) = connection.open_bi().await?;
        control.write_all(&hello(Overflow::DropOldest)?).await?;
        answers.read_chunk(1_024, true).await?.context("a WELCOME")?;
        let mut streams = vec![connection.open_uni().await?];
        let mut name = Vec::new();
        write_name(&mut name, 1, "gaps");
        streams[0].write_all(&name).await?;
        for _ in 1..GAPPY_STREAMS {
            streams.push(connection.open_bi().await?.0);
        }
        socket.go_deaf();
        for number in 0..FRAGMENTS {
            streams[number % GAPPY_STREAMS].write_all(&[0x5a]).await?;
            // One packet for each byte: the connection's task has a turn.
            tokio::task::yield_now().await;
            if number % 500 == 0 {
                healthy.beat(1).await?;
            }
        }
        let (sent, lost) = socket.counts();
        ensure!(sent > FRAGMENTS as u64 / 8 && lost + 1 >= sent, "{sent} packets sent, {lost} lost");
        println!("{sent} packets with a gap before each");
        held.push((endpoint, connection, control, answers, streams));
    }
    healthy.beat(50).await?;
    assert_growth(&router, before, (ATTACKERS as u64 / 2) * WINDOW_KIB + SLACK_KIB)
}

/// Subscribers that never read.
const DEAF_SUBSCRIBERS: usize = 20;
/// Bytes that may wait for one of them in its outbox.
const OUTBOX_KIB: u64 = 2 * 1024;
/// What a transport holds for a peer that does not read: the default of `send_window_bytes`, most of it in flight.
const SEND_WINDOW_KIB: u64 = 8 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_lose_what_they_do_not_read() -> Result<()> {
    let variables = vec![("MYELIN_OUTBOX__BYTES".to_owned(), (OUTBOX_KIB * 1024).to_string())];
    let router = Router::start_with(Setup { workers: 2, variables })?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    healthy.beat(10).await?;
    let (attacker, before) = (Attacker::of(&router)?, router.own_memory_kib()?);
    let mut held = Vec::new();
    for _ in 0..DEAF_SUBSCRIBERS {
        let mut session = attacker.session(Overflow::DropOldest).await?;
        let subscribe = Message::Subscribe(Subscribe { id: 1, pattern: "flood".to_owned(), group: None });
        session.control.write_all(&encoded(&subscribe)?).await?;
        // SUBSCRIBED, and nothing after it.
        timeout(PATIENCE, session.answers.read_chunk()).await.context("an answer")??;
        held.push(session);
    }
    let publisher = router.client().await?;
    let payload = vec![7; 16 * 1024];
    for number in 0..1_500 {
        publisher.send(Event::new("flood", &payload)).await?;
        if number % 100 == 0 {
            healthy.beat(1).await?;
        }
    }
    let summary = publisher.flush().await;
    ensure!(summary.acked == 1_500, "the publisher is not held up: {summary:?}");
    healthy.beat(50).await?;
    let ledger = router.ledger()?;
    ensure!(ledger["total"]["shed"].as_u64().context("shed")? > 0 && ledger["balances"] == true, "{ledger}");
    // The same bytes wait for all of them: there is one copy.
    assert_growth(&router, before, OUTBOX_KIB + SEND_WINDOW_KIB + SLACK_KIB)?;
    drop(held);
    eventually("the attackers are gone", || Ok(router.metric("myelin_sessions")? <= 3)).await?;
    assert_eq!(router.settled_ledger()?["balances"], true);
    Ok(())
}
