//! UDP sockets that several workers share, and the connection ids that tell their workers apart.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use quinn::ConnectionIdGenerator;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::tls::crypto_provider;

/// Length of our connection ids in bytes: the worker's number, then seven random ones.
pub const CONNECTION_ID_BYTES: usize = 8;

/// What the kernel gave a socket; less than asked is a cause of loss under load, and worth a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketFacts {
    /// Buffer bytes asked for, each way.
    pub buffer_bytes_asked: usize,
    /// Receive buffer bytes given. Raise `net.core.rmem_max` if less than asked.
    pub receive_bytes: usize,
    /// Send buffer bytes given. Raise `net.core.wmem_max` if less than asked.
    pub send_bytes: usize,
}

impl SocketFacts {
    /// Whether the kernel gave less than was asked for.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.receive_bytes.min(self.send_bytes) < self.buffer_bytes_asked
    }
}

pub(crate) struct BoundSocket {
    pub(crate) socket: UdpSocket,
    pub(crate) addr: SocketAddr,
    pub(crate) facts: SocketFacts,
}

/// Binds `count` sockets to one address; the kernel spreads clients over them by their address and port.
pub(crate) fn bind_shared(addr: SocketAddr, count: usize, buffer_bytes: usize) -> io::Result<Vec<BoundSocket>> {
    // With SO_REUSEPORT a port would quietly be shared with another process of this user, and port 0 may well be given one
    // that is in use so. The first socket is bound without, which is refused where anybody has the port; the others join it.
    let first = open(addr, false, buffer_bytes)?;
    if count > 1 {
        SockRef::from(&first.socket).set_reuse_port(true)?;
    }
    let shared = first.addr;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(open(shared, true, buffer_bytes)?);
    }
    Ok(sockets)
}

/// Binds a socket of its own, for dialling.
pub(crate) fn bind_own(addr: SocketAddr, buffer_bytes: usize) -> io::Result<BoundSocket> {
    open(addr, false, buffer_bytes)
}

fn open(addr: SocketAddr, share_port: bool, buffer_bytes: usize) -> io::Result<BoundSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        // Not everywhere allowed; then IPv6 alone is served.
        let _ = socket.set_only_v6(false);
    }
    if share_port {
        socket.set_reuse_port(true)?;
    }
    // The kernel caps these silently; the facts tell.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    // Linux reports twice the usable size: the other half is its own bookkeeping.
    let facts = SocketFacts {
        buffer_bytes_asked: buffer_bytes,
        receive_bytes: socket.recv_buffer_size()? / 2,
        send_bytes: socket.send_buffer_size()? / 2,
    };
    let socket: UdpSocket = socket.into();
    let addr = socket.local_addr()?;
    Ok(BoundSocket { socket, addr, facts })
}

/// Makes ids that begin with the worker's number.
///
/// `validate` stays the default, which takes every id for possibly ours: a packet that reaches the wrong worker is then
/// answered with a stateless reset, which its client understands (all workers share the reset key), and the client
/// reconnects at once instead of waiting for its idle timeout.
pub(crate) struct WorkerIds {
    pub(crate) worker: u8,
}

impl ConnectionIdGenerator for WorkerIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        // The operating system's source fails only where nothing cryptographic works; guessable ids stay correct then.
        let _ = crypto_provider().secure_random.fill(&mut id);
        id[0] = self.worker;
        quinn::ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn ids_begin_with_the_worker_and_differ() {
        let mut ids = WorkerIds { worker: 7 };
        let made: std::collections::HashSet<_> = (0..1_000).map(|_| ids.generate_cid().to_vec()).collect();
        assert_eq!(made.len(), 1_000);
        assert!(made.iter().all(|id| id[0] == 7 && id.len() == CONNECTION_ID_BYTES));
    }

    #[test]
    fn a_group_shares_one_port_and_a_second_group_is_told() {
        let sockets = bind_shared(SocketAddr::from(([127, 0, 0, 1], 0)), 3, 262_144).unwrap();
        let addr = sockets[0].addr;
        assert_ne!(addr.port(), 0);
        assert!(sockets.iter().all(|socket| socket.addr == addr));
        let error = bind_shared(addr, 1, 262_144).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn no_port_is_shared_with_anybody_else_and_clients_are_spread() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let groups: Vec<_> = (0..400).map(|_| bind_shared(any, 2, 65_536).unwrap()).collect();
        let ports: std::collections::BTreeSet<u16> = groups.iter().map(|group| group[0].addr.port()).collect();
        assert_eq!(ports.len(), groups.len(), "each has a port of its own");
        let group = &groups[0];
        let taken = bind_shared(group[0].addr, 2, 65_536).map(drop).map_err(|error| error.kind());
        assert_eq!(taken, Err(io::ErrorKind::AddrInUse));
        for _ in 0..64 {
            let client = UdpSocket::bind(any).unwrap();
            client.send_to(b"x", group[0].addr).unwrap();
        }
        let counts = [0, 1].map(|at| {
            let take = || group[at].socket.recv_from(&mut [0; 8]).ok();
            std::iter::from_fn(take).count()
        });
        assert!(counts[0] + counts[1] == 64 && counts.iter().all(|count| *count > 8), "{counts:?}");
    }
}
