//! The sockets of a relay.

use super::direction::{Counts, Direction, Path};
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

/// Largest datagram that passes: what UDP can carry.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Callers that are told apart at a time: a router has one socket, and a new one after each restart. The oldest makes
/// room.
const CALLERS_MAX: usize = 8;
/// How long the pump sleeps where nothing is on its way and nobody wakes it.
const IDLE: Duration = Duration::from_secs(3_600);

/// A link between whoever sends to [`addr`](Self::addr) and one other address. Ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    inner: Arc<Inner>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Inner {
    front: UdpSocket,
    back: Ipv4Addr,
    target: SocketAddr,
    begin: Instant,
    lanes: Mutex<Lanes>,
    /// Something new is on its way.
    pushed: Notify,
}

#[derive(Debug)]
struct Lanes {
    /// From the callers to the target.
    there: Direction<Parcel>,
    /// From the target to the callers.
    back: Direction<Parcel>,
    /// At most [`CALLERS_MAX`], the oldest first.
    callers: Vec<Arc<Caller>>,
}

#[derive(Clone, Debug)]
struct Parcel {
    caller: Arc<Caller>,
    bytes: Arc<[u8]>,
}

/// One who dials through the relay, and the socket that the target sees instead.
#[derive(Debug)]
struct Caller {
    addr: SocketAddr,
    back: UdpSocket,
    reader: Mutex<Option<AbortHandle>>,
}

impl Caller {
    fn end(&self) {
        if let Some(reader) = lock(&self.reader).take() {
            reader.abort();
        }
    }
}

impl Relay {
    /// A relay to `target` on a loopback port of its own; both directions are `path`, and all chance comes from `seed`.
    ///
    /// # Errors
    /// When no socket is to be had.
    pub async fn start(target: SocketAddr, seed: u64, path: Path) -> Result<Self> {
        Self::start_at([Ipv4Addr::LOCALHOST; 2], target, seed, path).await
    }

    /// The same with these addresses: the one that callers send to, and the one that the target sees.
    ///
    /// # Errors
    /// When no socket is to be had.
    pub async fn start_at([front, back]: [Ipv4Addr; 2], target: SocketAddr, seed: u64, path: Path) -> Result<Self> {
        let front = UdpSocket::bind((front, 0)).await.context("the relay's socket")?;
        let addr = front.local_addr()?;
        let lanes = Lanes {
            there: Direction::new(seed, path),
            back: Direction::new(seed ^ u64::MAX, path),
            callers: Vec::new(),
        };
        let inner = Arc::new(Inner {
            front,
            back,
            target,
            begin: Instant::now(),
            lanes: Mutex::new(lanes),
            pushed: Notify::new(),
        });
        let tasks = [tokio::spawn(inner.clone().listen()), tokio::spawn(inner.clone().pump())];
        Ok(Self { addr, inner, tasks })
    }

    /// Where callers send to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes both directions: `change` gets the one towards the target, then the one back.
    pub fn change(&self, mut change: impl FnMut(&mut Path)) {
        self.change_there(&mut change);
        self.change_back(&mut change);
    }

    /// Changes the direction towards the target.
    pub fn change_there(&self, change: impl FnOnce(&mut Path)) {
        let mut lanes = lock(&self.inner.lanes);
        let mut path = lanes.there.path();
        change(&mut path);
        lanes.there.set(path);
    }

    /// Changes the direction back from the target.
    pub fn change_back(&self, change: impl FnOnce(&mut Path)) {
        let mut lanes = lock(&self.inner.lanes);
        let mut path = lanes.back.path();
        change(&mut path);
        lanes.back.set(path);
    }

    /// Nothing passes from here on, either way.
    pub fn cut(&self) {
        self.change(|path| path.is_cut = true);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.change(|path| path.is_cut = false);
    }

    /// What became of the datagrams: towards the target, and back.
    pub fn counts(&self) -> (Counts, Counts) {
        let lanes = lock(&self.inner.lanes);
        (lanes.there.counts(), lanes.back.counts())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        lock(&self.inner.lanes).callers.drain(..).for_each(|caller| caller.end());
    }
}

impl Inner {
    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Takes what callers send.
    async fn listen(self: Arc<Self>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            // An error here is the echo of a datagram that nobody took: the next one may be another's.
            let Ok((len, from)) = self.front.recv_from(&mut buffer).await else { continue };
            let Ok(caller) = self.caller(from).await else { continue };
            let parcel = Parcel { caller, bytes: Arc::from(&buffer[..len]) };
            lock(&self.lanes).there.push(self.now(), len, parcel);
            self.pushed.notify_one();
        }
    }

    /// The caller at `addr`, made where there is none yet.
    async fn caller(self: &Arc<Self>, addr: SocketAddr) -> Result<Arc<Caller>> {
        if let Some(known) = lock(&self.lanes).callers.iter().find(|caller| caller.addr == addr) {
            return Ok(known.clone());
        }
        let back = UdpSocket::bind((self.back, 0)).await?;
        back.connect(self.target).await?;
        let caller = Arc::new(Caller { addr, back, reader: Mutex::default() });
        let reader = tokio::spawn(self.clone().read_back(caller.clone()));
        *lock(&caller.reader) = Some(reader.abort_handle());
        let mut lanes = lock(&self.lanes);
        if lanes.callers.len() == CALLERS_MAX {
            lanes.callers.remove(0).end();
        }
        lanes.callers.push(caller.clone());
        Ok(caller)
    }

    /// Takes what the target sends to one caller.
    async fn read_back(self: Arc<Self>, caller: Arc<Caller>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            // As above: the target may not be there at the moment.
            let Ok(len) = caller.back.recv(&mut buffer).await else { continue };
            let parcel = Parcel { caller: caller.clone(), bytes: Arc::from(&buffer[..len]) };
            lock(&self.lanes).back.push(self.now(), len, parcel);
            self.pushed.notify_one();
        }
    }

    /// Sends what is due.
    async fn pump(self: Arc<Self>) {
        loop {
            let next = {
                let mut lanes = lock(&self.lanes);
                let now = self.now();
                // What a full socket does not take is lost, as on any wire.
                while let Some(parcel) = lanes.there.pop(now) {
                    let _ = parcel.caller.back.try_send(&parcel.bytes);
                }
                while let Some(parcel) = lanes.back.pop(now) {
                    let _ = self.front.try_send_to(&parcel.bytes, parcel.caller.addr);
                }
                let dues = [lanes.there.next_due(), lanes.back.next_due()];
                dues.into_iter().flatten().min().map_or(IDLE, |due| due.saturating_sub(now))
            };
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = self.pushed.notified() => {}
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A server that sends everything back.
    async fn echo() -> Result<SocketAddr> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let addr = socket.local_addr()?;
        tokio::spawn(async move {
            let mut buffer = [0; 2_000];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(&buffer[..len], from).await;
            }
        });
        Ok(addr)
    }

    #[tokio::test]
    async fn two_callers_are_told_apart_a_cut_is_silent_and_a_heal_is_not() -> Result<()> {
        let path = Path { delay: Duration::from_millis(20), ..Path::default() };
        let relay = Relay::start(echo().await?, 3, path).await?;
        let (one, two) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
        let mut buffer = [0; 100];
        let begin = Instant::now();
        one.send_to(b"one", relay.addr()).await?;
        two.send_to(b"two", relay.addr()).await?;
        for (socket, text) in [(&one, b"one"), (&two, b"two")] {
            let (len, from) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await??;
            assert_eq!((&buffer[..len], from), (&text[..], relay.addr()));
        }
        assert!(begin.elapsed() >= Duration::from_millis(40), "both ways");
        relay.change_back(|path| path.is_cut = true);
        one.send_to(b"lost", relay.addr()).await?;
        while relay.counts().1.cut == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        relay.heal();
        one.send_to(b"again", relay.addr()).await?;
        let (len, _) = timeout(PATIENCE, one.recv_from(&mut buffer)).await??;
        assert_eq!(&buffer[..len], b"again");
        let (there, back) = relay.counts();
        assert_eq!((there.delivered, back.delivered, back.cut), (4, 3, 1));
        Ok(())
    }
}
