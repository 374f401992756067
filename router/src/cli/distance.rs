//! Sites on one machine with distances between them: a UDP relay holds every datagram for a while.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The sites that `demo` and `dev` play with.
pub(super) const SITES: [&str; 3] = ["eu1", "us1", "ap1"];
/// How far a site is from those before it, in milliseconds one way: about what lies between Europe, America and Asia.
const DISTANCES_MS: [&[u64]; 3] = [&[], &[40], &[85, 70]];
/// Datagrams that may be on their way in one direction; the path drops what is more, as a real one would.
const DATAGRAMS_MAX: usize = 16_384;
/// Peers of one relay: the routers of all sites.
const PEERS_MAX: usize = 16;
/// Bytes of a datagram.
const DATAGRAM_BYTES: usize = 65_535;

/// Where a router of one of these sites listens for the others, and what it dials.
#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    listen: SocketAddr,
    seeds: Vec<SocketAddr>,
}

/// The first `count` of [`SITES`]: each dials those before it, over a path of its own. Nobody is told an address without a
/// distance.
///
/// # Errors
/// When there are no free ports.
pub(super) async fn neighbours(count: usize) -> std::io::Result<Vec<Neighbour>> {
    // Free at this moment, which has to do: the relays must know them before the routers bind them.
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(UdpSocket::bind("127.0.0.1:0").await?);
    }
    let addresses = listeners.iter().map(UdpSocket::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    let mut all = Vec::new();
    for (listen, distances) in addresses.iter().zip(DISTANCES_MS) {
        let mut seeds = Vec::new();
        for (other, one_way_ms) in addresses.iter().zip(distances) {
            seeds.push(relay(*other, Duration::from_millis(*one_way_ms)).await?);
        }
        all.push(Neighbour { listen: *listen, seeds });
    }
    Ok(all)
}

impl Neighbour {
    /// Its section `[mesh]` of the configuration, in a mesh of the first `count` sites.
    pub(super) fn section(&self, count: usize) -> String {
        let members: Vec<_> = SITES.iter().take(count).map(|site| format!("\"{site}/r1\"")).collect();
        let seeds: Vec<_> = self.seeds.iter().map(|relay| format!("\"{relay}\"")).collect();
        let (listen, members, seeds) = (self.listen, members.join(", "), seeds.join(", "));
        format!("[mesh]\nlisten = \"{listen}\"\nmembers = [{members}]\nseeds = [{seeds}]\n")
    }
}

/// Starts a relay in front of `target` that takes `delay` in each direction, and says where it is. It ends with the
/// process.
///
/// # Errors
/// When there is no free port.
async fn relay(target: SocketAddr, delay: Duration) -> std::io::Result<SocketAddr> {
    let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
    let addr = outside.local_addr()?;
    tokio::spawn(async move {
        let mut peers: HashMap<SocketAddr, mpsc::Sender<(Instant, Vec<u8>)>> = HashMap::new();
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            // A peer that is gone shows as an error of the socket; the others are still there.
            let Ok((length, from)) = outside.recv_from(&mut buffer).await else { continue };
            if !peers.contains_key(&from) {
                peers.retain(|_, way| !way.is_closed());
                if peers.len() >= PEERS_MAX {
                    continue;
                }
                let Ok(way) = open(outside.clone(), from, target, delay).await else { continue };
                peers.insert(from, way);
            }
            if let Some(way) = peers.get(&from) {
                // Full: dropped.
                let _ = way.try_send((Instant::now() + delay, buffer[..length].to_vec()));
            }
        }
    });
    Ok(addr)
}

/// The way of one peer to the target, and back.
async fn open(
    outside: Arc<UdpSocket>,
    peer: SocketAddr,
    target: SocketAddr,
    delay: Duration,
) -> std::io::Result<mpsc::Sender<(Instant, Vec<u8>)>> {
    let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
    inside.connect(target).await?;
    let (way, mut there) = mpsc::channel::<(Instant, Vec<u8>)>(DATAGRAMS_MAX);
    let back = inside.clone();
    tokio::spawn(async move {
        while let Some((due, datagram)) = there.recv().await {
            tokio::time::sleep_until(due).await;
            let _ = inside.send(&datagram).await;
        }
    });
    tokio::spawn(async move {
        let mut held: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            let due = held.front().map(|(due, _)| *due);
            tokio::select! {
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((_, datagram)) = held.pop_front() {
                        let _ = outside.send_to(&datagram, peer).await;
                    }
                }
                received = back.recv(&mut buffer) => {
                    if let Ok(length) = received
                        && held.len() < DATAGRAMS_MAX
                    {
                        held.push_back((Instant::now() + delay, buffer[..length].to_vec()));
                    }
                }
            }
        }
    });
    Ok(way)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[tokio::test]
    async fn datagrams_go_there_and_back_later() {
        let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = relay(target.local_addr().unwrap(), Duration::from_millis(20)).await.unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let begin = Instant::now();
        for word in [b"one", b"two"] {
            peer.send_to(word, at).await.unwrap();
        }
        let mut buffer = [0; 16];
        for word in [b"one", b"two"] {
            let (length, from) = target.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], word);
            target.send_to(word, from).await.unwrap();
        }
        let (length, _) = peer.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"one");
        assert!(begin.elapsed() >= Duration::from_millis(40), "a delay can be longer, never shorter");
    }
}
