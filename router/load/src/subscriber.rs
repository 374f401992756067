//! A subscriber: takes every event, checks its number, and gives receipts.

use crate::payload::Checker;
use crate::progress::{Phase, Progress};
use crate::session::{Client, ROLE_SUBSCRIBER, Receipts, Session, Target, tell};
use anyhow::{Context, bail};
use bytes::Bytes;
use myelin_transport::{Dialer, RecvStream};
use myelin_wire::stream::{DataDecoder, Item};
use myelin_wire::{FrameType, Limits};
use std::time::Duration;
use tokio::time::timeout;

/// Chunks taken from a stream in one read, as in the router.
const READ_CHUNKS: usize = 32;
/// How long events may stay without receipt; the protocol allows 50 ms.
const RECEIPT_DELAY: Duration = Duration::from_millis(25);

/// Takes events until [`Phase::Done`]; calls `ready` when it is subscribed.
pub(crate) async fn run(client: &Client, dialer: &Dialer, number: usize, ready: impl FnOnce()) -> anyhow::Result<()> {
    let mut session = client.open(dialer, ROLE_SUBSCRIBER).await?;
    if client.target == Target::Router {
        session.subscribe(&client.channel.pattern).await?;
    }
    ready();
    let mut phase = client.progress.phase.subscribe();
    tokio::select! {
        taken = take_all(client, &mut session, number) => taken?,
        done = phase.wait_for(|phase| *phase == Phase::Done) => drop(done?),
    }
    session.leave(client.target).await;
    Ok(())
}

async fn take_all(client: &Client, session: &mut Session, number: usize) -> anyhow::Result<()> {
    let mut stream = session.connection.accept_uni().await?;
    let mut chunks: [Bytes; READ_CHUNKS] = std::array::from_fn(|_| Bytes::new());
    let mut taker = Taker::new(client, number);
    let mut receipts = Receipts::default();
    loop {
        let count = if receipts.is_behind() && client.target == Target::Router {
            match timeout(RECEIPT_DELAY, read(&mut stream, &mut chunks)).await {
                Ok(count) => count?,
                Err(_) => 0,
            }
        } else {
            read(&mut stream, &mut chunks).await?
        };
        let (events, bytes) = taker.take(&client.progress, &mut chunks[..count])?;
        receipts.took(events, bytes);
        if client.target == Target::Router && (receipts.is_due() || count == 0) {
            tell(&mut session.send, &receipts.receipt()).await?;
        }
    }
}

async fn read(stream: &mut RecvStream, chunks: &mut [Bytes]) -> anyhow::Result<usize> {
    stream.read_chunks(chunks).await?.context("the server ended the delivery stream")
}

/// Cuts the delivery stream into events and checks their numbers.
struct Taker {
    decoder: DataDecoder,
    checker: Checker,
}

impl Taker {
    fn new(client: &Client, subscriber: usize) -> Self {
        let decoder = DataDecoder::new(FrameType::Deliver, Limits::default().delivered_len_max());
        let cell = client.progress.cell();
        Self { decoder, checker: Checker::new(cell, subscriber, client.rate.is_some()).of_form(cell, client.form) }
    }

    /// Takes what was read; returns how many events it completed, and their bytes.
    fn take(&mut self, progress: &Progress, chunks: &mut [Bytes]) -> anyhow::Result<(u64, u64)> {
        let now_ns = progress.now_ns();
        for chunk in chunks {
            self.decoder.push(&std::mem::take(chunk));
        }
        let (mut events, mut bytes) = (0, 0);
        while let Some(item) = self.decoder.poll()? {
            match item {
                Item::Event(span) => {
                    self.checker.take(progress, span.payload(self.decoder.buffer()))?;
                    events += 1;
                    bytes += span.range().len() as u64;
                }
                Item::Name { .. } | Item::Stamp(_) => {}
                Item::Oversized(head) => bail!("an event of {} bytes", head.total_bytes()),
            }
        }
        self.decoder.discard();
        self.checker.publish(progress, now_ns);
        Ok((events, bytes))
    }
}
