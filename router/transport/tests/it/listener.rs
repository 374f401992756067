//! Listeners as a worker uses them: in groups, stopping, closing.

use std::collections::HashMap;
use std::time::Duration;

use myelin_transport::{CloseKind, DialError, Dialer, Listener, QuicConfig, Refusal};
use tokio::sync::mpsc;

use crate::common::*;

/// Workers as in the router: a thread and a current-thread runtime each. What they accept is echoed, stream by stream,
/// and their numbers come out of the channel.
fn workers(world: &World, count: usize) -> (std::net::SocketAddr, mpsc::Receiver<usize>) {
    let group = Listener::bind_group(listener_config(), &world.router(), count).unwrap();
    let addr = group[0].local_addr();
    assert!(group.iter().all(|listener| listener.local_addr() == addr));
    let (accepted_tx, accepted) = mpsc::channel(64);
    for (worker, bound) in group.into_iter().enumerate() {
        let accepted_tx = accepted_tx.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut listener = bound.start().unwrap();
                while let Some(connection) = listener.accept().await {
                    let _ = accepted_tx.try_send(worker);
                    tokio::spawn(async move {
                        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                            while let Ok(Some(chunk)) = recv.read_chunk().await {
                                let _ = send.write_chunk(chunk).await;
                            }
                        }
                    });
                }
            });
        });
    }
    (addr, accepted)
}

#[tokio::test]
async fn a_group_shares_a_port_and_its_clients() {
    let world = World::new();
    let (addr, mut accepted) = workers(&world, 2);
    let alice = world.service("alice");
    let mut by_worker: HashMap<usize, u32> = HashMap::new();
    for _ in 0..32 {
        // A dialer of its own each: another port, so perhaps another worker.
        let dialer = Dialer::new(QuicConfig::default()).unwrap();
        let connection = in_time(dialer.connect(&dial_config(addr, &alice))).await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(b"hello").await.unwrap();
        assert_eq!(in_time(recv.read_chunk()).await.unwrap().unwrap(), "hello");
        *by_worker.entry(accepted.recv().await.unwrap()).or_default() += 1;
    }
    assert_eq!(by_worker.len(), 2, "32 clients all at one of two workers: {by_worker:?}");
    assert_eq!(by_worker.values().sum::<u32>(), 32);
}

#[tokio::test]
async fn a_client_whose_packets_reach_another_worker_learns_it_at_once() {
    let world = World::new();
    let (addr, _accepted) = workers(&world, 2);
    let endpoint = bare_endpoint();
    let client = BareClient::with(Some(world.ca.issue_unchecked(&service_request()).unwrap()));
    let connection =
        in_time(endpoint.connect_with(client.config(&world.ca), addr, "localhost").unwrap()).await.unwrap();
    for _ in 0..30 {
        endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        // Either the same worker goes on serving, or the other one says that it does not know us; never silence.
        let echo = async {
            let (mut send, mut recv) = connection.open_bi().await?;
            let _ = send.write_all(&[7; 100]).await;
            let mut heard = [0; 100];
            let _ = recv.read_exact(&mut heard).await;
            if heard == [7; 100] { Ok(()) } else { Err(connection.closed().await) }
        };
        let answer: Result<(), quinn::ConnectionError> =
            tokio::time::timeout(Duration::from_secs(5), echo).await.expect("an answer, not silence");
        if let Err(error) = answer {
            assert_eq!(error, quinn::ConnectionError::Reset);
            return;
        }
    }
    panic!("30 moves and never another worker");
}

#[tokio::test]
async fn stopping_refuses_newcomers_and_keeps_the_rest() {
    let world = World::new();
    let mut listener = Listener::bind(listener_config(), &world.router()).unwrap().start().unwrap();
    let alice = world.service("alice");
    let (here, there) = tokio::join!(dial(listener.local_addr(), &alice), listener.accept());
    let (here, there) = (here.unwrap(), there.unwrap());

    listener.stop_accepting();
    assert!(in_time(listener.accept()).await.is_none());
    assert_eq!(dial(listener.local_addr(), &alice).await.unwrap_err(), DialError::Refused { refusal: Refusal::Busy });
    assert!(in_time(listener.accept()).await.is_none(), "and stays so");
    echo_once(&here, &there, b"still served").await;

    listener.close(9, "going down");
    let reason = in_time(here.closed()).await;
    assert_eq!((reason.kind, reason.code, &*reason.text), (CloseKind::Application, 9, "going down"));
    in_time(listener.wait_idle()).await;
    assert_eq!(listener.control().connections(), 0);
}

#[tokio::test]
async fn a_dropped_listener_frees_its_port() {
    let world = World::new();
    let router = world.router();
    let listener = Listener::bind(listener_config(), &router).unwrap().start().unwrap();
    let mut config = listener_config();
    config.addr = listener.local_addr();
    let error = Listener::bind(config.clone(), &router).err().unwrap();
    assert_eq!(error.code(), "address-in-use");
    assert!(error.to_string().contains(&config.addr.to_string()), "{error}");
    drop(listener);
    for _ in 0..200 {
        if Listener::bind(config.clone(), &router).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the port stays taken");
}

#[tokio::test]
async fn facts_are_told() {
    let world = World::new();
    let bound = Listener::bind(listener_config(), &world.router()).unwrap();
    let facts = bound.facts();
    assert_eq!(facts.buffer_bytes_asked, 4 * 1024 * 1024);
    assert_eq!(facts.is_short(), facts.receive_bytes.min(facts.send_bytes) < 4 * 1024 * 1024);
    assert!(facts.receive_bytes > 0 && facts.send_bytes > 0);
    let listener = bound.start().unwrap();
    assert!(listener.segments_max() >= 1);
    assert_eq!(listener.control().facts(), facts);
    let mut config = listener_config();
    config.worker = 255;
    assert_eq!(Listener::bind_group(config, &world.router(), 2).err().unwrap().code(), "too-many-workers");
}

#[tokio::test]
async fn a_larger_mtu_is_found_and_used() {
    let world = World::new();
    let quic = QuicConfig { mtu_bytes_max: 6500, ..QuicConfig::default() };
    let mut config = listener_config();
    config.quic = quic.clone();
    let mut server = Server::start(config, &world.router());
    let dialer = Dialer::new(quic).unwrap();
    let here = in_time(dialer.connect(&dial_config(server.addr, &world.service("alice")))).await.unwrap();
    let there = server.next().await;
    let reader = tokio::spawn(async move {
        let mut recv = there.accept_uni().await.unwrap();
        let bytes = read_to_end(&mut recv).await.len();
        (there, bytes)
    });
    let mut send = here.open_uni().await.unwrap();
    send.write_all(&vec![1; 20_000_000]).await.unwrap();
    send.finish().unwrap();
    let (_there, bytes) = in_time(reader).await.unwrap();
    assert_eq!(bytes, 20_000_000);
    assert!(here.stats().mtu_bytes > 6_000, "{} bytes", here.stats().mtu_bytes);
}
