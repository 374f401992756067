//! NATS over TLS by a minimal client that batches: what the server can do when its clients cost next to nothing.
//!
//! The protocol's client side as far as it is needed: INFO, an upgrade to TLS, CONNECT, PUB, SUB, MSG, PING and PONG.

use crate::nats::{PATTERN, SUBJECT};
use crate::publish::{Publisher, current_thread, publish, reached, run_on_two_threads};
use crate::{Run, SERVER_NAME};
use anyhow::{Context, bail, ensure};
use bytes::{Buf, BytesMut};
use myelin_load::{Checker, Measured, Phase, Progress, Subscribed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Room made in the receive buffer at a time.
const BUFFER_BYTES: usize = 64 * 1024;
/// Longest line that is not a payload: the server's INFO.
const LINE_BYTES_MAX: usize = 16 * 1024;

type Stream = TlsStream<TcpStream>;

/// Runs it.
pub(crate) fn run(run: &Arc<Run>) -> anyhow::Result<Measured> {
    run_on_two_threads(run, current_thread, publish_as, subscribe_as)
}

async fn publish_as(run: &Arc<Run>, number: usize) -> anyhow::Result<()> {
    let (reader, writer) = split(connect(run, run.port, "").await?);
    let mut batching = Batching { writer, batch: Vec::new() };
    tokio::select! {
        published = publish(run, number, &mut batching) => published,
        told = listen(reader) => told,
    }
}

async fn subscribe_as(run: &Arc<Run>, number: usize, subscribed: &Subscribed) -> anyhow::Result<()> {
    let stream = connect(run, run.subscribers_port, &format!("SUB {PATTERN} 1\r\n")).await?;
    subscribed.tell();
    tokio::select! {
        taken = take_all(run, number, stream) => taken,
        done = reached(run, Phase::Done) => done,
    }
}

/// Connects, says `first`, and waits until the server has taken it in.
async fn connect(run: &Run, port: u16, first: &str) -> anyhow::Result<Stream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&run.ca).with_context(|| format!("cannot read {}", run.ca.display()))?)?;
    let tls = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let mut plain = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    plain.set_nodelay(true)?;
    // The server speaks first, in the clear; not a byte behind that line may be taken from the handshake.
    let mut info = Vec::new();
    while !info.ends_with(b"\r\n") {
        ensure!(info.len() < LINE_BYTES_MAX, "NATS does not end its INFO");
        info.push(plain.read_u8().await?);
    }
    ensure!(info.starts_with(b"INFO "), "this is no NATS server");
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(ServerName::try_from(SERVER_NAME)?, plain).await?;
    let hello = "{\"verbose\":false,\"pedantic\":false,\"tls_required\":true,\"lang\":\"rust\",\"version\":\"0\"}";
    stream.write_all(format!("CONNECT {hello}\r\n{first}PING\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut answer = BytesMut::new();
    loop {
        while let Some(line) = take_line(&mut answer)? {
            match &line[..] {
                b"PONG" => return Ok(stream),
                line if line.starts_with(b"-ERR") => bail!("NATS says {}", String::from_utf8_lossy(line)),
                _ => {}
            }
        }
        ensure!(stream.read_buf(&mut answer).await? > 0, "NATS has closed the connection");
    }
}

/// A publisher that writes a burst at once.
struct Batching {
    writer: WriteHalf<Stream>,
    batch: Vec<u8>,
}

impl Publisher for Batching {
    async fn publish(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        write!(self.batch, "PUB {SUBJECT} {}\r\n", payload.len())?;
        self.batch.extend_from_slice(payload);
        self.batch.extend_from_slice(b"\r\n");
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.writer.write_all(&self.batch).await?;
        self.writer.flush().await?;
        self.batch.clear();
        Ok(())
    }
}

/// What the server says to a publisher: nothing but pings, unless something is wrong. A ping may stay without answer
/// for minutes.
async fn listen(mut reader: ReadHalf<Stream>) -> anyhow::Result<()> {
    let mut said = BytesMut::new();
    loop {
        ensure!(reader.read_buf(&mut said).await? > 0, "NATS has closed the connection");
        while let Some(line) = take_line(&mut said)? {
            ensure!(!line.starts_with(b"-ERR"), "NATS says {}", String::from_utf8_lossy(&line));
        }
    }
}

async fn take_all(run: &Run, number: usize, mut stream: Stream) -> anyhow::Result<()> {
    let progress = &run.progress;
    let mut checker = Checker::new(progress.cell(), number, run.plan.rate.is_some());
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(BUFFER_BYTES);
        ensure!(stream.read_buf(&mut buffer).await? > 0, "NATS has closed the connection");
        let now_ns = progress.now_ns();
        if take_events(progress, &mut checker, &mut buffer)? {
            stream.write_all(b"PONG\r\n").await?;
        }
        checker.publish(progress, now_ns);
    }
}

/// Takes the whole messages that are there; whether a ping was among them.
fn take_events(progress: &Progress, checker: &mut Checker, buffer: &mut BytesMut) -> anyhow::Result<bool> {
    let (mut at, mut pinged) = (0, false);
    while let Some(line) = peek_line(&buffer[at..])? {
        let after = at + line.len() + 2;
        if line.starts_with(b"MSG ") {
            let digits = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let len: usize = std::str::from_utf8(digits)?.parse().context("a MSG without its length")?;
            if buffer.len() < after + len + 2 {
                break;
            }
            checker.take(progress, &buffer[after..after + len])?;
            at = after + len + 2;
            continue;
        }
        ensure!(!line.starts_with(b"-ERR"), "NATS says {}", String::from_utf8_lossy(line));
        pinged |= line == b"PING";
        at = after;
    }
    buffer.advance(at);
    Ok(pinged)
}

/// The line that begins here, without its end; none when it is not whole.
fn peek_line(bytes: &[u8]) -> anyhow::Result<Option<&[u8]>> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        ensure!(bytes.len() < LINE_BYTES_MAX, "NATS does not end its line");
        return Ok(None);
    };
    ensure!(end > 0 && bytes[end - 1] == b'\r', "NATS ends a line without \\r");
    Ok(Some(&bytes[..end - 1]))
}

fn take_line(bytes: &mut BytesMut) -> anyhow::Result<Option<BytesMut>> {
    let Some(len) = peek_line(bytes)?.map(<[u8]>::len) else { return Ok(None) };
    let line = bytes.split_to(len);
    bytes.advance(2);
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_load::{Cell, Payload};

    #[test]
    fn messages_are_cut_the_same_however_the_stream_is_chopped() {
        let cell = Cell { payload_bytes: 40, publishers: 1, subscribers: 1 };
        let mut payload = Payload::new(&cell, 0).expect("a small number");
        let mut stream = b"PING\r\n".to_vec();
        for seq in 0..9 {
            stream.extend_from_slice(format!("MSG {SUBJECT} 1 {}\r\n", payload.len()).as_bytes());
            stream.extend_from_slice(payload.write(seq, 0));
            stream.extend_from_slice(b"\r\n");
        }
        for step in [1, 2, 7, 50, stream.len()] {
            let (progress, mut checker) = (Progress::new(&cell), Checker::new(&cell, 0, false));
            let (mut buffer, mut pings) = (BytesMut::new(), 0);
            for part in stream.chunks(step) {
                buffer.extend_from_slice(part);
                pings += usize::from(take_events(&progress, &mut checker, &mut buffer).expect("well formed"));
            }
            checker.publish(&progress, 0);
            assert_eq!((progress.delivered(), pings, buffer.len()), (9, 1, 0), "step {step}");
        }
    }
}
