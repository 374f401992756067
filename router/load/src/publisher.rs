//! A publisher: as fast as the bound on what is in flight allows, or on a fixed schedule.

use crate::payload::Payload;
use crate::progress::Phase;
use crate::session::{Client, ROLE_PUBLISHER, Session, Target};
use crate::ticks::Schedule;
use anyhow::Context;
use bytes::Bytes;
use myelin_transport::{Dialer, SendStream};
use myelin_wire::event::HEAD_BYTES;
use myelin_wire::frame::HEADER_BYTES;
use myelin_wire::stream::write_name;
use myelin_wire::{EventBuilder, FrameHeader, FrameType, Message};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of one EVENTS frame under full load.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the last acks may take.
const LAST_ACKS: Duration = Duration::from_secs(5);
/// The publisher's reference for its topic.
const TOPIC_REF: u32 = 1;

/// Publishes from [`Phase::Running`] to [`Phase::Draining`].
pub(crate) async fn run(client: &Client, dialer: &Dialer, number: usize) -> anyhow::Result<()> {
    let session = client.open(dialer, ROLE_PUBLISHER).await?;
    let mut stream = session.connection.open_uni().await?;
    let mut name = Vec::new();
    write_name(&mut name, TOPIC_REF, &client.channel.topic);
    stream.write_all(&name).await?;
    let mut phase = client.progress.phase.subscribe();
    phase.wait_for(|phase| *phase >= Phase::Running).await?;
    let batch = Batch::new(client, number)?;
    let publish = async {
        match client.rate {
            None => flat_out(client, number, &mut stream, batch).await,
            Some(rate) => scheduled(client, number, &mut stream, batch, rate).await,
        }?;
        let all_acked = async {
            while !client.progress.is_all_acked(number) {
                client.progress.moved(number).await;
            }
        };
        timeout(LAST_ACKS, all_acked).await.context("the last acks did not come")
    };
    match client.target {
        Target::Relay => {
            // A relay has no acks: only its subscribers bound what is in flight.
            client.progress.acked(number, u64::MAX);
            publish.await?;
            phase.wait_for(|phase| *phase == Phase::Done).await?;
            session.leave(client.target).await;
        }
        Target::Router => {
            let mut session = session;
            tokio::select! {
                published = publish => published?,
                lost = read_acks(client, number, &mut session) => lost?,
            }
            session.leave(client.target).await;
        }
    }
    Ok(())
}

/// Takes acks until the connection ends.
async fn read_acks(client: &Client, number: usize, session: &mut Session) -> anyhow::Result<()> {
    loop {
        match session.heard().await? {
            Message::Ack(ack) => {
                client.progress.refused.fetch_add(ack.exceptions.len() as u64, Relaxed);
                client.progress.acked(number, ack.seq);
            }
            other => anyhow::bail!("{other:?} instead of an ACK"),
        }
    }
}

async fn flat_out(client: &Client, number: usize, stream: &mut SendStream, mut batch: Batch<'_>) -> anyhow::Result<()> {
    let progress = &client.progress;
    let full = (BATCH_BYTES / batch.event_bytes()).max(1) as u64;
    let full = full.min(progress.cell().in_flight_max());
    while progress.is_running() {
        if progress.room(number) < full {
            progress.moved(number).await;
            continue;
        }
        let now_ns = progress.now_ns();
        for _ in 0..full {
            batch.push(now_ns)?;
        }
        progress.sent(number, batch.seq);
        stream.write_chunk(batch.take()?).await?;
    }
    Ok(())
}

/// Each event has its time; it is late when the publisher or anything after it is.
async fn scheduled(
    client: &Client,
    number: usize,
    stream: &mut SendStream,
    mut batch: Batch<'_>,
    rate: u64,
) -> anyhow::Result<()> {
    let progress = &client.progress;
    let schedule = Schedule::new(progress, rate)?;
    while progress.is_running() {
        schedule.tick().await?;
        let now_ns = progress.now_ns();
        while schedule.due_ns(batch.seq) <= now_ns && batch.bytes() < BATCH_BYTES {
            batch.push(schedule.due_ns(batch.seq))?;
        }
        if batch.bytes() > 0 {
            progress.sent(number, batch.seq);
            stream.write_chunk(batch.take()?).await?;
        }
    }
    Ok(())
}

/// An EVENTS frame that is being written.
struct Batch<'a> {
    frame: Vec<u8>,
    attributes: &'a [u8],
    payload: Payload,
    /// Events so far.
    seq: u64,
}

impl<'a> Batch<'a> {
    fn new(client: &'a Client, number: usize) -> anyhow::Result<Self> {
        let payload = Payload::of(client.progress.cell(), number, client.form)?;
        Ok(Self { frame: Vec::new(), attributes: &client.attributes, payload, seq: 0 })
    }

    fn event_bytes(&self) -> usize {
        HEAD_BYTES + self.attributes.len() + self.payload.len()
    }

    /// Bytes of events in the frame.
    fn bytes(&self) -> usize {
        self.frame.len().saturating_sub(HEADER_BYTES)
    }

    /// Appends the next event, which is due at `due_ns`.
    fn push(&mut self, due_ns: u64) -> anyhow::Result<()> {
        if self.frame.is_empty() {
            self.frame.reserve(HEADER_BYTES + BATCH_BYTES + self.event_bytes());
            self.frame.extend_from_slice(&[0; HEADER_BYTES]);
        }
        let payload = self.payload.write(self.seq, due_ns);
        let event = EventBuilder { topic_ref: TOPIC_REF, attrs: self.attributes, payload, request: false };
        event.write(&mut self.frame)?;
        self.seq += 1;
        Ok(())
    }

    /// The finished frame.
    fn take(&mut self) -> anyhow::Result<Bytes> {
        let header = FrameHeader::new(FrameType::Events, u32::try_from(self.bytes())?);
        self.frame[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        Ok(std::mem::take(&mut self.frame).into())
    }
}
