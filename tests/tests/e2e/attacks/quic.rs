//! Attackers without a certificate: first packets from many ports, and datagrams of any sort.

use super::{assert_growth, eventually};
use anyhow::{Result, ensure};
use myelin_attacks::Dice;
use myelin_tests::attacker::first_packets;
use myelin_tests::{Healthy, Router};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// Handshakes that are begun and never go on.
const FIRST_PACKETS: usize = 3_000;
/// Ports that they come from, each of a network of its own.
const SOURCES: u8 = 100;
/// Handshakes under way at once in each of the two workers; what is beyond is refused (`handshakes_max`).
const HANDSHAKES_MAX: u64 = 2 * 1_024;
/// Datagrams of garbage.
const GARBAGE: usize = 4_000;
/// The largest payload of a UDP datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Sockets on as many ports of loopback, each in a /24 of its own.
fn sources() -> Result<Vec<UdpSocket>> {
    let bind = |number| -> Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, number, 1), 0))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    (0..SOURCES).map(bind).collect()
}

/// Bytes that have come back to any of them.
fn received(sockets: &[UdpSocket]) -> usize {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    sockets.iter().map(|socket| std::iter::from_fn(|| socket.recv(&mut buffer).ok()).sum::<usize>()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_first_packets_is_metered_and_forgotten() -> Result<()> {
    let router = Router::start()?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    healthy.beat(10).await?;
    let before = router.own_memory_kib()?;
    let (packets, sockets, to) = (first_packets(&router, FIRST_PACKETS)?, sources()?, router.client_addr());
    let sent_bytes: usize = packets.iter().map(Vec::len).sum();
    for (number, packet) in packets.iter().enumerate() {
        // A full buffer of the kernel loses it, as a network would.
        let _ = sockets[number % sockets.len()].send_to(packet, to);
        if number % 100 == 0 {
            healthy.beat(1).await?;
        }
    }
    ensure!(router.metric("myelin_connections_handshaking")? <= HANDSHAKES_MAX);
    healthy.beat(50).await?;
    eventually("the metered first packets are counted", || {
        let metered = router.metric("myelin_connections_retried_total")?
            + router.metric("myelin_connections_ignored_total")?
            + router.metric("myelin_connections_refused_total")?;
        Ok(router.metric("myelin_connection_attempts_total")? >= 1_000 && metered >= 100)
    })
    .await?;
    // 5 s after the last of them, nothing is left of any.
    eventually("the handshakes are given up", || Ok(router.metric("myelin_connections_handshaking")? == 0)).await?;
    let received_bytes = received(&sockets);
    ensure!(received_bytes <= 3 * sent_bytes, "{sent_bytes} bytes were sent, {received_bytes} came back");
    println!(
        "{FIRST_PACKETS} first packets: {} seen, {} retried, {} ignored, {} refused; {sent_bytes} B sent, {received_bytes} B back",
        router.metric("myelin_connection_attempts_total")?,
        router.metric("myelin_connections_retried_total")?,
        router.metric("myelin_connections_ignored_total")?,
        router.metric("myelin_connections_refused_total")?,
    );
    // Newcomers are taken again, by proof of their address if need be.
    let mut newcomer = Healthy::start(&router, "new").await?;
    newcomer.beat(10).await?;
    healthy.beat(10).await?;
    assert_growth(&router, before, 96 * 1024)?;
    Ok(())
}

/// A datagram that no client of ours would send.
fn garbage(dice: &mut Dice, first: &[u8]) -> Vec<u8> {
    match dice.below(6) {
        // Largest and smallest.
        0 => (0..DATAGRAM_BYTES_MAX).map(|_| 0xc3).collect(),
        1 => dice.noise(3),
        // A long header of an unknown version: asks for version negotiation.
        2 => [&[0xc0, 0xfa, 0xce, 0xb0, 0x0c, 8][..], &dice.noise(1_300)].concat(),
        // A short header with a made-up connection: asks for a stateless reset.
        3 => [&[0x40][..], &dice.noise(1_400)].concat(),
        // A first packet that was cut or changed.
        4 => first[..dice.below(first.len())].to_vec(),
        _ => {
            let mut packet = first.to_vec();
            let at = dice.below(packet.len());
            packet[at] ^= 1 << dice.below(8);
            packet
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_garbage_cost_little_and_are_not_amplified() -> Result<()> {
    let router = Router::start()?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    healthy.beat(10).await?;
    let before = router.own_memory_kib()?;
    let (sockets, to, first) = (sources()?, router.client_addr(), first_packets(&router, 1)?.remove(0));
    let (mut dice, mut sent_bytes) = (Dice::new(12), 0);
    for number in 0..GARBAGE {
        let datagram = garbage(&mut dice, &first);
        sent_bytes += sockets[number % sockets.len()].send_to(&datagram, to).unwrap_or(0);
        if number % 200 == 0 {
            healthy.beat(1).await?;
        }
    }
    healthy.beat(50).await?;
    let begin = Instant::now();
    let mut received_bytes = 0;
    while begin.elapsed() < Duration::from_millis(500) {
        received_bytes += received(&sockets);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{GARBAGE} datagrams of garbage: {sent_bytes} B sent, {received_bytes} B back");
    ensure!(received_bytes <= 3 * sent_bytes, "{sent_bytes} bytes were sent, {received_bytes} came back");
    ensure!(router.metric("myelin_sessions")? == 2);
    assert_growth(&router, before, 48 * 1024)?;
    Ok(())
}
