//! The in-memory twin: two connected [`Connection`]s without a network, with the semantics of the real ones.
//!
//! Kept the same: streams appear to the peer with their first byte or end, in the order of opening; bounded bytes per
//! stream and bounded streams; finish, reset, stop; close codes; what arrived before a close can still be read.
//! Not here: loss, delay, congestion, a window over all streams of a connection, priorities.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::config::QuicConfig;
use crate::connection::{Connection, ConnectionStats};
use crate::error::{CloseReason, ConnectionError, ReadError, WriteError};
use crate::identity::Identity;

/// Two ends of one connection: the first is held by `a` and sees `b` as its peer, the second the other way round.
/// Limits are those of [`QuicConfig::default`].
#[must_use]
pub fn pair(a: Identity, b: Identity) -> (Connection, Connection) {
    pair_with(a, b, &QuicConfig::default())
}

/// Like [`pair`], with stream caps and the stream window of `config`.
#[must_use]
pub fn pair_with(a: Identity, b: Identity, config: &QuicConfig) -> (Connection, Connection) {
    let link = Arc::new(Link {
        window_bytes: config.stream_window_bytes as usize,
        streams_max: [config.uni_streams_max, config.bidi_streams_max],
        lanes: Default::default(),
        closed: OnceLock::new(),
        closing: Notify::new(),
        sent_bytes: Default::default(),
    });
    let first = End { link: link.clone(), side: 0, peer: b };
    let second = End { link, side: 1, peer: a };
    (Connection::memory(first), Connection::memory(second))
}

const UNI: usize = 0;
const BIDI: usize = 1;

/// What both ends share. Lanes hold pipes only, never handles: nothing here keeps an end alive.
struct Link {
    window_bytes: usize,
    streams_max: [u32; 2],
    /// By opening side, then direction.
    lanes: [[Lane; 2]; 2],
    closed: OnceLock<Closed>,
    closing: Notify,
    /// By sending side.
    sent_bytes: [AtomicU64; 2],
}

struct Closed {
    side: usize,
    code: u32,
    text: Arc<str>,
}

/// All streams of one direction that one side opened.
#[derive(Default)]
struct Lane {
    state: Mutex<LaneState>,
    arrived: Notify,
    credit: Notify,
}

#[derive(Default)]
struct LaneState {
    opened: u64,
    open: u32,
    /// Opened, and not shown to the peer yet.
    hidden: VecDeque<(u64, Pipes)>,
    incoming: VecDeque<Pipes>,
}

/// Opener to acceptor, and back for a bidirectional stream.
#[derive(Clone)]
struct Pipes {
    there: Arc<Pipe>,
    back: Option<Arc<Pipe>>,
}

/// One direction of one stream.
#[derive(Default)]
struct Pipe {
    state: Mutex<PipeState>,
    readable: Notify,
    writable: Notify,
}

#[derive(Default)]
struct PipeState {
    chunks: VecDeque<Bytes>,
    unread_bytes: usize,
    finished: bool,
    reset: Option<u32>,
    stopped: Option<u32>,
}

/// One end of a link; when its last handle goes, the link closes with code 0.
pub(crate) struct End {
    link: Arc<Link>,
    side: usize,
    peer: Identity,
}

/// Gives the opener its stream credit back when the acceptor is through with all halves.
struct Slot {
    link: Arc<Link>,
    lane: [usize; 2],
}

/// Shows the stream, and all opened before it, to the peer: at the opener's first byte or end.
struct Announce {
    lane: [usize; 2],
    index: u64,
}

pub(crate) struct SendHalf {
    end: Arc<End>,
    pipe: Arc<Pipe>,
    announce: Option<Announce>,
    slot: Option<Arc<Slot>>,
}

pub(crate) struct RecvHalf {
    end: Arc<End>,
    pipe: Arc<Pipe>,
    slot: Option<Arc<Slot>>,
    ended: bool,
}

impl End {
    pub(crate) fn peer(&self) -> &Identity {
        &self.peer
    }

    pub(crate) async fn open_uni(self: &Arc<Self>) -> Result<SendHalf, ConnectionError> {
        let (pipes, announce) = self.open(UNI).await?;
        Ok(SendHalf { end: self.clone(), pipe: pipes.there, announce: Some(announce), slot: None })
    }

    pub(crate) async fn open_bi(self: &Arc<Self>) -> Result<(SendHalf, RecvHalf), ConnectionError> {
        let (pipes, announce) = self.open(BIDI).await?;
        let back = pipes.back.expect("bidirectional streams are made with both pipes");
        let send = SendHalf { end: self.clone(), pipe: pipes.there, announce: Some(announce), slot: None };
        Ok((send, RecvHalf { end: self.clone(), pipe: back, slot: None, ended: false }))
    }

    pub(crate) async fn accept_uni(self: &Arc<Self>) -> Result<RecvHalf, ConnectionError> {
        let (pipes, slot) = self.accept(UNI).await?;
        Ok(RecvHalf { end: self.clone(), pipe: pipes.there, slot: Some(slot), ended: false })
    }

    pub(crate) async fn accept_bi(self: &Arc<Self>) -> Result<(SendHalf, RecvHalf), ConnectionError> {
        let (pipes, slot) = self.accept(BIDI).await?;
        let back = pipes.back.expect("bidirectional streams are made with both pipes");
        let send = SendHalf { end: self.clone(), pipe: back, announce: None, slot: Some(slot.clone()) };
        Ok((send, RecvHalf { end: self.clone(), pipe: pipes.there, slot: Some(slot), ended: false }))
    }

    pub(crate) fn close(&self, code: u32, text: &str) {
        if self.link.closed.set(Closed { side: self.side, code, text: text.into() }).is_ok() {
            self.link.closing.notify_waiters();
        }
    }

    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        let closed = self.link.closed.get()?;
        Some(CloseReason::application(closed.code, &closed.text, closed.side != self.side))
    }

    pub(crate) async fn closed(&self) -> CloseReason {
        wait(&self.link.closing, &self.link.closing, || self.close_reason()).await
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        let [sent_bytes, received_bytes] =
            [self.side, 1 - self.side].map(|side| self.link.sent_bytes[side].load(Relaxed));
        ConnectionStats { sent_bytes, received_bytes, ..ConnectionStats::default() }
    }

    async fn open(&self, direction: usize) -> Result<(Pipes, Announce), ConnectionError> {
        let lane = &self.link.lanes[self.side][direction];
        let most = self.link.streams_max[direction];
        wait(&lane.credit, &self.link.closing, || {
            if let Some(error) = self.lost() {
                return Some(Err(error));
            }
            let mut state = lock(&lane.state);
            if state.open >= most {
                return None;
            }
            state.open += 1;
            let index = state.opened;
            state.opened += 1;
            let pipes = Pipes { there: Arc::default(), back: (direction == BIDI).then(Arc::default) };
            state.hidden.push_back((index, pipes.clone()));
            Some(Ok((pipes, Announce { lane: [self.side, direction], index })))
        })
        .await
    }

    async fn accept(&self, direction: usize) -> Result<(Pipes, Arc<Slot>), ConnectionError> {
        let opener = 1 - self.side;
        let lane = &self.link.lanes[opener][direction];
        // Streams that had arrived come before the news of the close.
        wait(&lane.arrived, &self.link.closing, || match lock(&lane.state).incoming.pop_front() {
            Some(pipes) => {
                let slot = Arc::new(Slot { link: self.link.clone(), lane: [opener, direction] });
                Some(Ok((pipes, slot)))
            }
            None => self.lost().map(Err),
        })
        .await
    }

    fn lost(&self) -> Option<ConnectionError> {
        self.close_reason().map(ConnectionError)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close(0, "");
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let [side, direction] = self.lane;
        let lane = &self.link.lanes[side][direction];
        lock(&lane.state).open -= 1;
        lane.credit.notify_waiters();
    }
}

impl Announce {
    fn show(self, link: &Link) {
        let [side, direction] = self.lane;
        let lane = &link.lanes[side][direction];
        let mut state = lock(&lane.state);
        while state.hidden.front().is_some_and(|(index, _)| *index <= self.index) {
            if let Some((_, pipes)) = state.hidden.pop_front() {
                state.incoming.push_back(pipes);
            }
        }
        drop(state);
        lane.arrived.notify_waiters();
    }
}

impl SendHalf {
    pub(crate) async fn write_chunks(&mut self, bufs: &mut [Bytes]) -> Result<(), WriteError> {
        if bufs.iter().all(Bytes::is_empty) {
            return Ok(());
        }
        let Self { end, pipe, announce, .. } = self;
        wait(&pipe.writable, &end.link.closing, || {
            if let Some(error) = end.lost() {
                return Some(Err(WriteError::ConnectionLost(error)));
            }
            let mut state = lock(&pipe.state);
            if state.finished || state.reset.is_some() {
                return Some(Err(WriteError::Finished));
            }
            if let Some(code) = state.stopped {
                return Some(Err(WriteError::Stopped(code)));
            }
            let written = state.take(bufs, end.link.window_bytes);
            drop(state);
            if written > 0 {
                end.link.sent_bytes[end.side].fetch_add(written as u64, Relaxed);
                if let Some(announce) = announce.take() {
                    announce.show(&end.link);
                }
                pipe.readable.notify_waiters();
            }
            bufs.iter().all(Bytes::is_empty).then_some(Ok(()))
        })
        .await
    }

    pub(crate) fn finish(&mut self) -> Result<(), WriteError> {
        self.conclude(|state| state.finished = true)
    }

    pub(crate) fn reset(&mut self, code: u32) {
        // As in QUIC, a finished stream whose bytes are not all read can still be given up; one that is through cannot.
        let mut state = lock(&self.pipe.state);
        if state.reset.is_some() || (state.finished && state.chunks.is_empty()) {
            return;
        }
        state.finished = false;
        drop(state);
        let _ = self.conclude(|state| {
            state.reset = Some(code);
            state.discard();
        });
    }

    pub(crate) fn stopped(&self) -> impl Future<Output = Result<Option<u32>, ConnectionError>> + Send + 'static {
        let (end, pipe) = (self.end.clone(), self.pipe.clone());
        async move {
            wait(&pipe.writable, &end.link.closing, || {
                let state = lock(&pipe.state);
                if let Some(code) = state.stopped {
                    return Some(Ok(Some(code)));
                }
                if state.finished || state.reset.is_some() {
                    return Some(Ok(None));
                }
                drop(state);
                end.lost().map(Err)
            })
            .await
        }
    }

    fn conclude(&mut self, set: impl FnOnce(&mut PipeState)) -> Result<(), WriteError> {
        let mut state = lock(&self.pipe.state);
        if state.finished || state.reset.is_some() {
            return Err(WriteError::Finished);
        }
        set(&mut state);
        drop(state);
        if let Some(announce) = self.announce.take() {
            announce.show(&self.end.link);
        }
        self.pipe.readable.notify_waiters();
        self.pipe.writable.notify_waiters();
        self.slot = None;
        Ok(())
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl RecvHalf {
    pub(crate) async fn read_chunks(&mut self, bufs: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        if bufs.is_empty() {
            return Ok(Some(0));
        }
        let Self { end, pipe, slot, ended } = self;
        wait(&pipe.readable, &end.link.closing, || {
            let mut state = lock(&pipe.state);
            let through = if let Some(code) = state.reset {
                Err(ReadError::Reset(code))
            } else if !state.chunks.is_empty() {
                let read = state.give(bufs);
                drop(state);
                pipe.writable.notify_waiters();
                return Some(Ok(Some(read)));
            } else if state.finished {
                Ok(None)
            } else {
                return end.lost().map(|error| Err(ReadError::ConnectionLost(error)));
            };
            *ended = true;
            *slot = None;
            Some(through)
        })
        .await
    }

    /// Whether there was anything to stop.
    pub(crate) fn stop(&mut self, code: u32) -> bool {
        if self.ended {
            return false;
        }
        self.ended = true;
        let mut state = lock(&self.pipe.state);
        if state.reset.is_none() {
            state.stopped = Some(code);
            state.discard();
        }
        drop(state);
        self.pipe.writable.notify_waiters();
        self.slot = None;
        true
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.stop(0);
    }
}

impl PipeState {
    /// Takes as many bytes off the front of `bufs` as the window has room for.
    fn take(&mut self, bufs: &mut [Bytes], window_bytes: usize) -> usize {
        let mut written = 0;
        for chunk in bufs.iter_mut().filter(|chunk| !chunk.is_empty()) {
            let room = window_bytes - self.unread_bytes;
            if room == 0 {
                break;
            }
            let part = chunk.split_to(chunk.len().min(room));
            self.unread_bytes += part.len();
            written += part.len();
            self.chunks.push_back(part);
        }
        written
    }

    fn give(&mut self, bufs: &mut [Bytes]) -> usize {
        let mut read = 0;
        while read < bufs.len() {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.unread_bytes -= chunk.len();
            bufs[read] = chunk;
            read += 1;
        }
        read
    }

    fn discard(&mut self) {
        self.chunks.clear();
        self.unread_bytes = 0;
    }
}

/// Waits until `check` has an answer, looking again at each notification. Cancel-safe: `check` alone changes state.
async fn wait<T>(one: &Notify, other: &Notify, mut check: impl FnMut() -> Option<T>) -> T {
    loop {
        let mut one = pin!(one.notified());
        let mut other = pin!(other.notified());
        // Listening before looking: no notification falls between the two.
        one.as_mut().enable();
        other.as_mut().enable();
        if let Some(answer) = check() {
            return answer;
        }
        tokio::select! {
            () = one => {}
            () = other => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
