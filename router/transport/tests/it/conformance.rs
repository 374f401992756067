//! One suite for both twins: what holds over QUIC holds in memory.

use std::any::Any;
use std::time::Duration;

use bytes::Bytes;
use myelin_transport::{CloseKind, Connection, Identity, QuicConfig, ReadError, WriteError, memory};

use crate::common::*;

const WINDOW_BYTES: u32 = 65_536;

/// Small limits, so that tests reach them.
fn small() -> QuicConfig {
    QuicConfig { stream_window_bytes: WINDOW_BYTES, uni_streams_max: 3, bidi_streams_max: 3, ..QuicConfig::default() }
}

struct Pair {
    a: Connection,
    b: Connection,
    /// What must live as long as the connections.
    _held: Box<dyn Any + Send>,
}

async fn quic() -> Pair {
    let world = World::new();
    let config = myelin_transport::ListenerConfig { quic: small(), ..listener_config() };
    let mut server = Server::start(config, &world.router());
    let dialer = myelin_transport::Dialer::new(small()).unwrap();
    let a = in_time(dialer.connect(&dial_config(server.addr, &world.service("alice")))).await.unwrap();
    let b = server.next().await;
    Pair { a, b, _held: Box::new((world, server, dialer)) }
}

async fn in_memory() -> Pair {
    let alice = Identity::service(TRUST_DOMAIN, "alice").unwrap();
    let router = Identity::router(TRUST_DOMAIN, "lab", "r1").unwrap();
    let (a, b) = memory::pair_with(alice, router, &small());
    Pair { a, b, _held: Box::new(()) }
}

macro_rules! on_both {
    ($($case:ident)*) => {
        mod over_quic {
            $(#[tokio::test] async fn $case() { super::in_time(super::$case(super::quic().await)).await; })*
        }
        mod in_process {
            $(#[tokio::test] async fn $case() { super::in_time(super::$case(super::in_memory().await)).await; })*
        }
    };
}

on_both! {
    each_side_knows_the_other
    a_stream_carries_bytes_in_order_and_ends
    both_halves_of_a_bidirectional_stream_work
    streams_show_with_their_first_byte_in_order_of_opening
    a_writer_waits_for_the_reader
    a_cancelled_write_goes_on_without_loss_or_double
    a_read_can_be_cancelled
    stream_caps_hold_and_free_up
    a_reset_reaches_the_reader
    a_stop_reaches_the_writer
    an_ended_stream_takes_no_more
    stopped_tells_of_arrival
    dropped_halves_end_their_streams
    a_close_tells_code_and_text_to_both
    what_arrived_before_a_close_can_be_read
    dropping_every_handle_closes
    many_streams_at_once
    figures_move
}

async fn each_side_knows_the_other(Pair { a, b, _held }: Pair) {
    assert_eq!(a.identity().as_str(), "spiffe://test.example/site/lab/router/r1");
    assert_eq!(b.identity().as_str(), "spiffe://test.example/service/alice");
    assert!(!a.remote().is_empty() && a.close_reason().is_none());
    echo_once(&a, &b, b"there").await;
    echo_once(&b, &a, b"back").await;
}

async fn a_stream_carries_bytes_in_order_and_ends(Pair { a, b, _held }: Pair) {
    let mut send = a.open_uni().await.unwrap();
    let mut chunks: Vec<Bytes> = (0..100u8).map(|number| Bytes::from(vec![number; 7])).collect();
    chunks.insert(3, Bytes::new());
    send.write_chunks(&mut chunks).await.unwrap();
    assert!(chunks.iter().all(Bytes::is_empty), "what is written is taken off");
    send.write_all(b"end").await.unwrap();
    send.finish().unwrap();

    let mut recv = b.accept_uni().await.unwrap();
    let mut expected: Vec<u8> = (0..100u8).flat_map(|number| [number; 7]).collect();
    expected.extend_from_slice(b"end");
    let mut heard = Vec::new();
    let mut bufs = vec![Bytes::new(); 4];
    while let Some(count) = recv.read_chunks(&mut bufs).await.unwrap() {
        assert!((1..=4).contains(&count));
        bufs[..count].iter().for_each(|chunk| heard.extend_from_slice(chunk));
    }
    assert_eq!(heard, expected);
    assert_eq!(recv.read_chunks(&mut bufs).await, Ok(None), "the end stays the end");
}

async fn both_halves_of_a_bidirectional_stream_work(Pair { a, b, _held }: Pair) {
    let (mut send, mut recv) = a.open_bi().await.unwrap();
    send.write_all(b"question").await.unwrap();
    let (mut back, mut forth) = b.accept_bi().await.unwrap();
    assert_eq!(forth.read_chunk().await.unwrap().unwrap(), "question");
    back.write_all(b"answer").await.unwrap();
    assert_eq!(recv.read_chunk().await.unwrap().unwrap(), "answer", "neither half waits for the other's end");
    assert_eq!(forth.read_chunks(&mut []).await, Ok(Some(0)));
    send.finish().unwrap();
    assert_eq!(forth.read_chunk().await.unwrap(), None);
}

async fn streams_show_with_their_first_byte_in_order_of_opening(Pair { a, b, _held }: Pair) {
    let mut first = a.open_uni().await.unwrap();
    let mut second = a.open_uni().await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), b.accept_uni()).await;
    assert!(early.is_err(), "a stream without a byte is not seen");
    second.write_all(b"second").await.unwrap();
    let mut first_seen = b.accept_uni().await.unwrap();
    let mut second_seen = b.accept_uni().await.unwrap();
    assert_eq!(second_seen.read_chunk().await.unwrap().unwrap(), "second");
    first.write_all(b"first").await.unwrap();
    assert_eq!(first_seen.read_chunk().await.unwrap().unwrap(), "first");
}

async fn a_writer_waits_for_the_reader(Pair { a, b, _held }: Pair) {
    let mut send = a.open_uni().await.unwrap();
    let bytes = Bytes::from(vec![5; WINDOW_BYTES as usize * 3]);
    let mut rest = [bytes.clone()];
    let blocked = tokio::time::timeout(Duration::from_millis(200), send.write_chunks(&mut rest)).await;
    assert!(blocked.is_err(), "more than the window must wait");
    let written = bytes.len() - rest[0].len();
    assert_eq!(written, WINDOW_BYTES as usize, "exactly the window goes out");

    let mut recv = b.accept_uni().await.unwrap();
    let reader = tokio::spawn(async move { read_to_end(&mut recv).await.len() });
    send.write_chunks(&mut rest).await.unwrap();
    send.finish().unwrap();
    assert_eq!(reader.await.unwrap(), bytes.len());
}

async fn a_cancelled_write_goes_on_without_loss_or_double(Pair { a, b, _held }: Pair) {
    let mut send = a.open_uni().await.unwrap();
    let all: Vec<u8> = (0..WINDOW_BYTES * 10).map(|number| (number % 251) as u8).collect();
    let mut chunks: Vec<Bytes> = all.chunks(10_007).map(Bytes::copy_from_slice).collect();
    let reader = tokio::spawn(async move {
        let mut recv = b.accept_uni().await.unwrap();
        let mut heard = Vec::new();
        while let Some(chunk) = recv.read_chunk().await.unwrap() {
            heard.extend_from_slice(&chunk);
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        heard
    });
    let mut cancelled = 0;
    while tokio::time::timeout(Duration::from_millis(2), send.write_chunks(&mut chunks)).await.is_err() {
        cancelled += 1;
    }
    send.finish().unwrap();
    assert!(reader.await.unwrap() == all, "bytes lost, doubled or out of order");
    assert!(cancelled > 0, "nothing was cancelled, so nothing was shown");
}

async fn a_read_can_be_cancelled(Pair { a, b, _held }: Pair) {
    let mut send = a.open_uni().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let mut recv = b.accept_uni().await.unwrap();
    assert_eq!(recv.read_chunk().await.unwrap().unwrap(), "x");
    assert!(tokio::time::timeout(Duration::from_millis(20), recv.read_chunk()).await.is_err());
    send.write_all(b"y").await.unwrap();
    assert_eq!(recv.read_chunk().await.unwrap().unwrap(), "y");
}

async fn stream_caps_hold_and_free_up(Pair { a, b, _held }: Pair) {
    let mut open = Vec::new();
    for _ in 0..small().uni_streams_max {
        let mut send = a.open_uni().await.unwrap();
        send.write_all(b"x").await.unwrap();
        open.push(send);
    }
    assert!(tokio::time::timeout(Duration::from_millis(200), a.open_uni()).await.is_err(), "one too many");
    let (mut bidi, _recv) = a.open_bi().await.unwrap();
    bidi.write_all(b"bidirectional streams have their own cap").await.unwrap();

    open[0].finish().unwrap();
    let mut recv = b.accept_uni().await.unwrap();
    assert_eq!(read_to_end(&mut recv).await, b"x");
    in_time(a.open_uni()).await.unwrap();
}

async fn a_reset_reaches_the_reader(Pair { a, b, _held }: Pair) {
    let mut send = a.open_uni().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let mut recv = b.accept_uni().await.unwrap();
    recv.read_chunk().await.unwrap();
    send.reset(77);
    for _ in 0..2 {
        assert_eq!(recv.read_chunk().await, Err(ReadError::Reset(77)), "and stays so");
    }
    assert_eq!(send.write_all(b"y").await, Err(WriteError::Finished));
    // A stream that never carried a byte can be reset too.
    let mut silent = a.open_uni().await.unwrap();
    silent.reset(78);
    assert_eq!(b.accept_uni().await.unwrap().read_chunk().await, Err(ReadError::Reset(78)));
}

async fn a_stop_reaches_the_writer(Pair { a, b, _held }: Pair) {
    let mut send = a.open_uni().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let mut recv = b.accept_uni().await.unwrap();
    let stopped = send.stopped();
    recv.stop(88);
    assert_eq!(stopped.await, Ok(Some(88)));
    assert_eq!(send.write_all(b"y").await, Err(WriteError::Stopped(88)));
    assert_eq!(recv.read_chunk().await, Err(ReadError::Stopped));
    recv.stop(89);
    assert_eq!(send.write_all(b"y").await, Err(WriteError::Stopped(88)), "the first stop counts");
}

async fn an_ended_stream_takes_no_more(Pair { a, b, _held }: Pair) {
    let mut send = a.open_uni().await.unwrap();
    send.finish().unwrap();
    assert_eq!(send.finish(), Err(WriteError::Finished));
    assert_eq!(send.write_all(b"x").await, Err(WriteError::Finished));
    let mut recv = b.accept_uni().await.unwrap();
    assert_eq!(recv.read_chunk().await, Ok(None), "a stream without a byte is one that ends at once");
}

async fn stopped_tells_of_arrival(Pair { a, b, _held }: Pair) {
    let mut send = a.open_uni().await.unwrap();
    send.write_all(b"x").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), send.stopped()).await.is_err(), "not finished yet");
    send.finish().unwrap();
    assert_eq!(send.stopped().await, Ok(None), "arrived, though nobody has read it");
    assert_eq!(read_to_end(&mut b.accept_uni().await.unwrap()).await, b"x");
}

async fn dropped_halves_end_their_streams(Pair { a, b, _held }: Pair) {
    let (mut send, recv) = a.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let (mut back, mut forth) = b.accept_bi().await.unwrap();
    drop(send);
    assert_eq!(read_to_end(&mut forth).await, b"x", "a dropped writer finishes");
    drop(recv);
    assert_eq!(back.stopped().await, Ok(Some(0)), "a dropped reader stops");
    assert_eq!(back.write_all(b"y").await, Err(WriteError::Stopped(0)));
}

async fn a_close_tells_code_and_text_to_both(Pair { a, b, _held }: Pair) {
    let mut send = a.open_uni().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let mut recv = b.accept_uni().await.unwrap();
    recv.read_chunk().await.unwrap();
    let waiting = tokio::spawn({
        let a = a.clone();
        async move { a.accept_bi().await.err() }
    });
    tokio::task::yield_now().await;
    b.close(4_000_000_000, "so it ends");
    b.close(1, "a second close changes nothing");

    let by_peer = a.closed().await;
    assert_eq!((by_peer.kind, by_peer.code, &*by_peer.text), (CloseKind::Application, 4_000_000_000, "so it ends"));
    assert!(by_peer.by_peer);
    a.close(2, "too late");
    assert_eq!(a.closed().await, by_peer, "the first close counts");
    assert_eq!(waiting.await.unwrap().unwrap().0, by_peer);
    assert_eq!(a.open_uni().await.err().unwrap().0, by_peer);
    assert_eq!(a.accept_uni().await.err().unwrap().0, by_peer);
    assert!(matches!(send.write_all(b"y").await, Err(WriteError::ConnectionLost(error)) if error.0 == by_peer));
    assert!(matches!(send.stopped().await, Err(error) if error.0 == by_peer));

    let own = b.closed().await;
    assert_eq!((own.kind, own.code, &*own.text), (CloseKind::Application, 4_000_000_000, "so it ends"));
    assert!(!own.by_peer);
    assert_eq!(b.close_reason(), Some(own.clone()));
    assert_eq!(b.open_bi().await.err().unwrap().0, own);
    assert!(matches!(recv.read_chunk().await, Err(ReadError::ConnectionLost(error)) if error.0 == own));
}

async fn what_arrived_before_a_close_can_be_read(Pair { a, b, _held }: Pair) {
    let mut send = a.open_uni().await.unwrap();
    send.write_all(b"last words").await.unwrap();
    send.finish().unwrap();
    send.stopped().await.unwrap();
    a.close(3, "gone");
    b.closed().await;
    let mut recv = b.accept_uni().await.unwrap();
    assert_eq!(read_to_end(&mut recv).await, b"last words");
    assert!(b.accept_uni().await.is_err());
}

async fn dropping_every_handle_closes(Pair { a, b, _held }: Pair) {
    let mut send = a.open_uni().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let other = a.clone();
    drop(a);
    drop(other);
    assert!(tokio::time::timeout(Duration::from_millis(50), b.closed()).await.is_err(), "a stream keeps it open");
    drop(send);
    let reason = b.closed().await;
    assert_eq!((reason.kind, reason.code, reason.by_peer), (CloseKind::Application, 0, true));
}

async fn many_streams_at_once(Pair { a, b, _held }: Pair) {
    // More streams than the cap and more bytes than the windows, both ways at once.
    async fn talk(from: Connection, to: Connection) -> usize {
        let sending = tokio::spawn(async move {
            for number in 0..40usize {
                let mut send = from.open_uni().await.unwrap();
                tokio::spawn(async move {
                    send.write_all(&vec![1; number * 5_000]).await.unwrap();
                    send.finish().unwrap();
                });
            }
            // Kept until the peer has read all: dropping it would close.
            from
        });
        let mut readers = Vec::new();
        for _ in 0..40 {
            let mut recv = to.accept_uni().await.unwrap();
            readers.push(tokio::spawn(async move { read_to_end(&mut recv).await.len() }));
        }
        let mut total = 0;
        for reader in readers {
            total += reader.await.unwrap();
        }
        drop(sending.await.unwrap());
        total
    }
    let (there, back) = tokio::join!(talk(a.clone(), b.clone()), talk(b.clone(), a.clone()));
    assert_eq!((there, back), (780 * 5_000, 780 * 5_000));
}

async fn figures_move(Pair { a, b, _held }: Pair) {
    echo_once(&a, &b, &[1; 10_000]).await;
    assert!(a.stats().sent_bytes >= 10_000 && a.stats().received_bytes >= 10_000);
    assert!(b.stats().sent_bytes >= 10_000 && b.stats().received_bytes >= 10_000);
}
