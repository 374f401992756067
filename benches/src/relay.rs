//! The direct baseline: a bare relay on the same transport with the same settings.
//!
//! It finds where events begin, copies them once into a batch that all subscribers share, and writes that. No session,
//! routing, admission, filters, acks, receipts or counters: what a router costs beyond this is its own doing. Like a
//! router's worker it is one thread with a current-thread runtime. It trusts its clients: it is no server for anybody
//! else.

use anyhow::{Context, ensure};
use bytes::{Buf, Bytes, BytesMut};
use clap::Args;
use myelin_load::{READY, ROLE_PUBLISHER, ROLE_SUBSCRIBER};
use myelin_transport::ca::CertificateAuthority;
use myelin_transport::{Connection, Listener, ListenerConfig, RecvStream, TlsFiles, TlsIdentity};
use myelin_wire::event::HEAD_AFTER_LEN;
use myelin_wire::frame::HEADER_BYTES;
use myelin_wire::stream::write_deliver_head;
use myelin_wire::{FrameHeader, FrameType, Stamp};
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

/// Batches that may wait for a subscriber; a full queue stops the reading of publishers.
const BATCHES_WAITING_MAX: usize = 64;
/// Chunks taken from a stream in one read, as in the router.
const READ_CHUNKS: usize = 32;
/// Room made in the receive buffer at a time, as in the router.
const BUFFER_BYTES: usize = 64 * 1024;
/// Bytes gathered for one write, as in the router.
const WRITE_BYTES: usize = 64 * 1024;
/// Days that the throw-away certificates are good for.
const CERTIFICATE_DAYS: u32 = 2;

/// Arguments of `relay`.
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// Where the certificates go, below `dev/`.
    #[arg(long)]
    data_dir: PathBuf,
    /// Where to say that it listens: JSON with `client_addr` and `pid`.
    #[arg(long)]
    ready_file: PathBuf,
}

/// A frame for every subscriber: its head and its events, shared.
#[derive(Clone, Debug)]
struct Batch {
    head: Bytes,
    events: Bytes,
}

type Subscribers = Rc<RefCell<Vec<mpsc::Sender<Batch>>>>;

/// Serves until it is killed.
pub(crate) fn run(arguments: &RelayArgs) -> anyhow::Result<()> {
    let tls = certificates(&arguments.data_dir.join("dev"))?;
    let config = ListenerConfig { addr: (Ipv4Addr::LOCALHOST, 0).into(), ..ListenerConfig::default() };
    let listener = Listener::bind(config, &tls)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let mut listener = listener.start()?;
        announce(&arguments.ready_file, listener.local_addr())?;
        let subscribers = Subscribers::default();
        while let Some(connection) = listener.accept().await {
            let subscribers = subscribers.clone();
            spawn_local(async move {
                if let Err(error) = serve(connection, subscribers).await {
                    eprintln!("relay: {error:#}");
                }
            });
        }
        Ok(())
    })
}

/// Throw-away certificates in `dir`: `ca.pem`, `client.pem`, `router.pem` and their keys.
pub(crate) fn certificates(dir: &Path) -> anyhow::Result<TlsIdentity> {
    let authority = CertificateAuthority::create("bench.example", CERTIFICATE_DAYS)?;
    authority.save(dir)?;
    authority.issue_service("bench", CERTIFICATE_DAYS)?.save(dir, "client")?;
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let (cert, key) = authority.issue_router("bench", "relay", &hosts, CERTIFICATE_DAYS)?.save(dir, "router")?;
    Ok(TlsIdentity::load(&TlsFiles { cert, key, ca: dir.join("ca.pem") })?)
}

/// Whole or not at all: the reader polls for it.
fn announce(file: &Path, addr: SocketAddr) -> anyhow::Result<()> {
    let part = file.with_extension("part");
    let ready = serde_json::json!({ "client_addr": addr, "pid": std::process::id() });
    std::fs::write(&part, ready.to_string())?;
    std::fs::rename(&part, file).with_context(|| format!("cannot write {}", file.display()))
}

async fn serve(connection: Connection, subscribers: Subscribers) -> anyhow::Result<()> {
    let (mut send, mut recv) = connection.accept_bi().await?;
    let role = recv.read_chunk().await?.and_then(|bytes| bytes.first().copied());
    if role == Some(ROLE_SUBSCRIBER) {
        let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
        subscribers.borrow_mut().push(sender);
        send.write_all(&[READY]).await?;
        return deliver(&connection, receiver).await;
    }
    ensure!(role == Some(ROLE_PUBLISHER), "a connection that is neither publisher nor subscriber");
    send.write_all(&[READY]).await?;
    let Ok(stream) = connection.accept_uni().await else { return Ok(()) };
    relay(stream, &subscribers).await
}

/// From a publisher to everybody.
async fn relay(mut stream: RecvStream, subscribers: &Subscribers) -> anyhow::Result<()> {
    let mut chunks: [Bytes; READ_CHUNKS] = std::array::from_fn(|_| Bytes::new());
    let (mut cutter, mut runs) = (Cutter::default(), Vec::new());
    while let Ok(Some(count)) = stream.read_chunks(&mut chunks).await {
        for chunk in &mut chunks[..count] {
            cutter.push(&std::mem::take(chunk));
        }
        let whole = cutter.cut(&mut runs)?;
        for (range, count) in runs.drain(..) {
            let mut head = Vec::new();
            write_deliver_head(&mut head, &Stamp { count, ..Stamp::default() }, range.len());
            let batch = Batch { head: head.into(), events: whole.slice(range) };
            let targets = subscribers.borrow().clone();
            for target in &targets {
                // A subscriber that has left is none any more.
                let _ = target.send(batch.clone()).await;
            }
        }
        subscribers.borrow_mut().retain(|target| !target.is_closed());
    }
    Ok(())
}

/// From the queue to a subscriber: what has gathered, in one write.
async fn deliver(connection: &Connection, mut batches: mpsc::Receiver<Batch>) -> anyhow::Result<()> {
    let mut stream = connection.open_uni().await?;
    let mut chunks = Vec::new();
    loop {
        let first = tokio::select! {
            batch = batches.recv() => batch,
            _ = connection.closed() => None,
        };
        let Some(first) = first else { return Ok(()) };
        let mut bytes = first.events.len();
        chunks.extend([first.head, first.events]);
        while bytes < WRITE_BYTES
            && let Ok(more) = batches.try_recv()
        {
            bytes += more.events.len();
            chunks.extend([more.head, more.events]);
        }
        if stream.write_chunks(&mut chunks).await.is_err() {
            return Ok(());
        }
        chunks.clear();
    }
}

/// Finds the events in the publish stream.
#[derive(Debug, Default)]
struct Cutter {
    buffer: BytesMut,
    /// Bytes of the running EVENTS frame that were not cut yet.
    frame_left: usize,
}

impl Cutter {
    fn push(&mut self, bytes: &[u8]) {
        if self.buffer.capacity() - self.buffer.len() < bytes.len() {
            self.buffer.reserve(bytes.len().max(BUFFER_BYTES));
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes away the whole events that are there; `runs` tells where, and how many each.
    fn cut(&mut self, runs: &mut Vec<(Range<usize>, u32)>) -> anyhow::Result<Bytes> {
        let bytes = &self.buffer[..];
        let mut at = 0;
        loop {
            if self.frame_left == 0 {
                let Some(header) = FrameHeader::parse(&bytes[at..])? else { break };
                let body = header.body_len as usize;
                if header.kind != FrameType::Events as u8 {
                    if bytes.len() - at < HEADER_BYTES + body {
                        break;
                    }
                    at += HEADER_BYTES + body;
                    continue;
                }
                at += HEADER_BYTES;
                self.frame_left = body;
            }
            let (start, mut count) = (at, 0);
            while self.frame_left > 0 && bytes.len() - at >= 4 {
                let len = (&bytes[at..]).get_u32_le();
                let whole = 4 + len as usize;
                ensure!(len >= HEAD_AFTER_LEN && whole <= self.frame_left, "an event of {whole} bytes does not fit");
                if bytes.len() - at < whole {
                    break;
                }
                at += whole;
                self.frame_left -= whole;
                count += 1;
            }
            if count > 0 {
                runs.push((start..at, count));
            }
            if self.frame_left > 0 {
                break;
            }
        }
        Ok(self.buffer.split_to(at).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_wire::EventBuilder;
    use myelin_wire::stream::write_name;

    #[test]
    fn events_are_cut_the_same_however_the_stream_is_chopped() {
        let (mut stream, mut events) = (Vec::new(), Vec::new());
        write_name(&mut stream, 1, "bench/events");
        for size in [0, 1, 300] {
            let mut body = Vec::new();
            for _ in 0..3 {
                let event = EventBuilder { topic_ref: 1, attrs: &[], payload: &vec![7; size], request: false };
                event.write(&mut body).expect("it fits");
            }
            let len = u32::try_from(body.len()).expect("short");
            stream.extend_from_slice(&FrameHeader::new(FrameType::Events, len).to_bytes());
            stream.extend_from_slice(&body);
            events.extend_from_slice(&body);
        }
        for step in [1, 2, 7, 64, stream.len()] {
            let (mut cutter, mut runs, mut out, mut total) = (Cutter::default(), Vec::new(), Vec::new(), 0);
            for part in stream.chunks(step) {
                cutter.push(part);
                let whole = cutter.cut(&mut runs).expect("well formed");
                for (range, count) in runs.drain(..) {
                    out.extend_from_slice(&whole[range]);
                    total += count;
                }
            }
            assert_eq!((out == events, total), (true, 9), "step {step}");
        }
    }

    #[test]
    fn an_event_that_is_longer_than_its_frame_is_an_error() {
        let mut cutter = Cutter::default();
        cutter.push(&FrameHeader::new(FrameType::Events, 11).to_bytes());
        cutter.push(&8_u32.to_le_bytes());
        assert!(cutter.cut(&mut Vec::new()).is_err());
    }
}
