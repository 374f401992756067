//! The client's connection: the same raw one to the relay and to a router.

use crate::cell::{Cell, PATTERN, Target};
use crate::progress::Progress;
use crate::relay::READY;
use anyhow::{Context, bail, ensure};
use myelin_transport::{ALPN_CLIENT, Connection, DialConfig, Dialer, RecvStream, SendStream, TlsFiles, TlsIdentity};
use myelin_wire::limits::{RECEIPT_BYTES, RECEIPT_EVENTS};
use myelin_wire::message::{Hello, MessageDecoder, Overflow, Receipt, Subscribe};
use myelin_wire::{Message, VERSION};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long a connection may take to close after BYE.
const FAREWELL: Duration = Duration::from_secs(1);
/// The one subscription of a subscriber.
const SUBSCRIPTION: u32 = 1;

/// What all connections of a client have in common.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) target: Target,
    pub(crate) cell: Cell,
    /// Attribute block of every event.
    pub(crate) attributes: Vec<u8>,
    /// Events a second of each publisher on a fixed schedule; without it, as fast as the bound on what is in flight
    /// allows.
    pub(crate) rate: Option<u64>,
    pub(crate) progress: Progress,
    dial: DialConfig,
}

impl Client {
    /// A client of the server at `addr`, with the certificate in `dir`.
    pub(crate) fn new(
        target: Target,
        cell: Cell,
        attributes: Vec<u8>,
        rate: Option<u64>,
        addr: SocketAddr,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let keys = ["client.key", "client-key.pem"].map(|name| dir.join(name));
        let key = keys.into_iter().find(|file| file.exists()).context("no client.key beside the certificates")?;
        let tls = TlsIdentity::load(&TlsFiles { cert: dir.join("client.pem"), key, ca: dir.join("ca.pem") })?;
        let dial = DialConfig { addr, server_name: "localhost".into(), alpn: ALPN_CLIENT.into(), tls };
        Ok(Self { target, cell, attributes, rate, progress: Progress::new(&cell), dial })
    }

    /// Connects and introduces itself as `role`; to a router as a session that lets publishers wait for it.
    pub(crate) async fn open(&self, dialer: &Dialer, role: u8) -> anyhow::Result<Session> {
        let connection = dialer.connect(&self.dial).await?;
        let (send, recv) = connection.open_bi().await?;
        let mut session = Session { connection, send, recv, decoder: MessageDecoder::new() };
        match self.target {
            Target::Relay => {
                session.send.write_all(&[role]).await?;
                let answer = session.recv.read_chunk().await?;
                ensure!(answer.as_deref() == Some(&[READY]), "the relay does not take the connection");
            }
            Target::Router => {
                let hello = Hello { min: VERSION, max: VERSION, client: "bench".into(), overflow: Overflow::Pause };
                session.tell(&Message::Hello(hello)).await?;
                match session.heard().await? {
                    Message::Welcome(_) => {}
                    other => bail!("{other:?} instead of WELCOME"),
                }
            }
        }
        Ok(session)
    }
}

/// A connection and its control stream.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    decoder: MessageDecoder,
}

impl Session {
    async fn tell(&mut self, message: &Message) -> anyhow::Result<()> {
        tell(&mut self.send, message).await
    }

    /// The next control message.
    pub(crate) async fn heard(&mut self) -> anyhow::Result<Message> {
        loop {
            if let Some(message) = self.decoder.poll()? {
                return Ok(message);
            }
            let bytes = self.recv.read_chunk().await?.context("the router ended the control stream")?;
            self.decoder.push(&bytes);
        }
    }

    /// Subscribes, and waits until the subscription is live.
    pub(crate) async fn subscribe(&mut self) -> anyhow::Result<()> {
        let subscribe = Subscribe { id: SUBSCRIPTION, pattern: PATTERN.into(), group: None };
        self.tell(&Message::Subscribe(subscribe)).await?;
        match self.heard().await? {
            Message::Subscribed(_) => Ok(()),
            other => bail!("{other:?} instead of SUBSCRIBED"),
        }
    }

    /// Leaves a router politely; a relay is just left.
    pub(crate) async fn leave(mut self, target: Target) {
        if target == Target::Router && self.tell(&Message::Bye).await.is_ok() {
            let _ = timeout(FAREWELL, self.connection.closed()).await;
        }
        self.connection.close(0, "bye");
    }
}

/// Writes a control message.
pub(crate) async fn tell(send: &mut SendStream, message: &Message) -> anyhow::Result<()> {
    let mut frame = Vec::new();
    message.encode(&mut frame)?;
    Ok(send.write_all(&frame).await?)
}

/// Counts what a subscriber took and says when a receipt is due.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    events: u64,
    told_events: u64,
    untold_bytes: u64,
}

impl Receipts {
    /// Notes events that were taken.
    pub(crate) fn took(&mut self, events: u64, bytes: u64) {
        self.events += events;
        self.untold_bytes += bytes;
    }

    /// Whether anything was taken that no receipt covers.
    pub(crate) fn is_behind(&self) -> bool {
        self.events > self.told_events
    }

    /// Whether a receipt must go out now, whatever the time.
    pub(crate) fn is_due(&self) -> bool {
        self.events - self.told_events >= RECEIPT_EVENTS || self.untold_bytes >= RECEIPT_BYTES
    }

    /// The receipt for all that was taken.
    pub(crate) fn receipt(&mut self) -> Message {
        (self.told_events, self.untold_bytes) = (self.events, 0);
        Message::Receipt(Receipt { events: self.events })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_due_by_events_or_by_bytes() {
        let mut receipts = Receipts::default();
        receipts.took(999, 10);
        assert!(receipts.is_behind() && !receipts.is_due());
        receipts.took(1, 0);
        assert!(receipts.is_due());
        assert_eq!(receipts.receipt(), Message::Receipt(Receipt { events: 1000 }));
        assert!(!receipts.is_behind() && !receipts.is_due());
        receipts.took(1, RECEIPT_BYTES);
        assert!(receipts.is_due());
    }
}
