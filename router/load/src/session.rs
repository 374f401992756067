//! The client's connection: the same raw one to the relay and to a router.

use crate::cell::Cell;
use crate::form::Form;
use crate::measure::{Plan, Subscribed, block_on, measure};
use crate::measured::Measured;
use crate::progress::Progress;
use crate::{publisher, subscriber};
use anyhow::{Context, anyhow, bail, ensure};
use clap::ValueEnum;
use myelin_transport::{Connection, DialConfig, Dialer, QuicConfig, RecvStream, SendStream};
use myelin_wire::limits::{RECEIPT_BYTES, RECEIPT_EVENTS};
use myelin_wire::message::{Hello, MessageDecoder, Overflow, Receipt, Subscribe, Token};
use myelin_wire::{Message, VERSION};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a connection may take to close after BYE.
const FAREWELL: Duration = Duration::from_secs(1);
/// The one subscription of a subscriber.
const SUBSCRIPTION: u32 = 1;

/// First byte of a publisher's control stream to the bare relay.
pub const ROLE_PUBLISHER: u8 = b'p';
/// First byte of a subscriber's control stream to the bare relay.
pub const ROLE_SUBSCRIBER: u8 = b's';
/// The relay's answer: the role is taken.
pub const READY: u8 = b'r';

/// What the client talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The bare relay: no session, no acks, no receipts.
    Relay,
    /// A Myelin router.
    Router,
}

impl Target {
    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Router => "router",
        }
    }
}

/// Where the events go.
#[derive(Clone, Debug)]
pub struct Channel {
    /// The topic that all publishers publish to.
    pub topic: String,
    /// What every subscriber subscribes to.
    pub pattern: String,
}

/// What all connections of a client have in common.
#[derive(Debug)]
pub struct Client {
    pub(crate) target: Target,
    pub(crate) channel: Channel,
    /// Attribute block of every event.
    pub(crate) attributes: Vec<u8>,
    /// Events a second of each publisher on a fixed schedule; without it, as fast as the bound on what is in flight
    /// allows.
    pub(crate) rate: Option<u64>,
    pub(crate) progress: Arc<Progress>,
    /// In which form payloads are.
    pub(crate) form: Form,
    dial: DialConfig,
    /// Where subscribers connect, if not where publishers do.
    subscribers_dial: Option<DialConfig>,
    /// What says who this is, where it has no certificate.
    token: Option<Token>,
}

impl Client {
    /// A client of the server that `dial` leads to, for one run of `cell`. Every event carries `attributes`.
    pub fn new(target: Target, channel: Channel, cell: &Cell, attributes: Vec<u8>, dial: DialConfig) -> Self {
        let progress = Arc::new(Progress::new(cell));
        let form = Form::Raw;
        Self { target, channel, attributes, rate: None, progress, form, dial, subscribers_dial: None, token: None }
    }

    /// The same with payloads in another form.
    pub fn with_form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// The same with the subscribers at another server.
    pub fn with_subscribers_at(self, dial: DialConfig) -> Self {
        Self { subscribers_dial: Some(dial), ..self }
    }

    /// The same with a token that says who this is.
    pub fn with_token(self, token: Option<String>) -> Self {
        Self { token: token.map(Token), ..self }
    }

    /// Runs it.
    ///
    /// # Errors
    /// What failed; an event that was lost, doubled or refused is no failure, but counted.
    pub fn run(mut self, plan: &Plan) -> anyhow::Result<Measured> {
        self.rate = plan.rate;
        let publishing = Arc::new(self);
        let (subscribing, progress) = (publishing.clone(), publishing.progress.clone());
        let publish = move || block_on(publish(publishing));
        measure(plan, &progress, publish, move |subscribed| block_on(subscribe(subscribing, subscribed)))
    }

    /// Connects and introduces itself as `role`; to a router as a session that lets publishers wait for it.
    ///
    /// # Errors
    /// When the server cannot be reached, or does not take the connection.
    pub async fn open(&self, dialer: &Dialer, role: u8) -> anyhow::Result<Session> {
        let elsewhere = self.subscribers_dial.as_ref().filter(|_| role == ROLE_SUBSCRIBER);
        let connection = dialer.connect(elsewhere.unwrap_or(&self.dial)).await?;
        let (send, recv) = connection.open_bi().await?;
        let mut session = Session { connection, send, recv, decoder: MessageDecoder::new() };
        match self.target {
            Target::Relay => {
                session.send.write_all(&[role]).await?;
                let answer = session.recv.read_chunk().await?;
                ensure!(answer.as_deref() == Some(&[READY]), "the relay does not take the connection");
            }
            Target::Router => {
                let (client, overflow, token) = ("bench".into(), Overflow::Pause, self.token.clone());
                let hello = Hello { min: VERSION, max: VERSION, client, overflow, token };
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
pub struct Session {
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
    ///
    /// # Errors
    /// When the router refuses, or the connection ends.
    pub async fn subscribe(&mut self, pattern: &str) -> anyhow::Result<()> {
        let subscribe = Subscribe { id: SUBSCRIPTION, pattern: pattern.into(), group: None };
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

async fn publish(client: Arc<Client>) -> anyhow::Result<()> {
    let dialer = dialer()?;
    let mut publishers = JoinSet::new();
    for number in 0..client.progress.cell().publishers {
        let (client, dialer) = (client.clone(), dialer.clone());
        publishers.spawn(async move { publisher::run(&client, &dialer, number).await });
    }
    join(publishers, &dialer).await
}

async fn subscribe(client: Arc<Client>, subscribed: Subscribed) -> anyhow::Result<()> {
    let dialer = dialer()?;
    let mut subscribers = JoinSet::new();
    for number in 0..client.progress.cell().subscribers {
        let (client, dialer, subscribed) = (client.clone(), dialer.clone(), subscribed.clone());
        subscribers.spawn(async move { subscriber::run(&client, &dialer, number, || subscribed.tell()).await });
    }
    join(subscribers, &dialer).await
}

async fn join(mut tasks: JoinSet<anyhow::Result<()>>, dialer: &Dialer) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    dialer.wait_idle().await;
    Ok(())
}

/// One socket for each thread, with the transport's own settings, which are the servers' too.
fn dialer() -> anyhow::Result<Arc<Dialer>> {
    Dialer::new(QuicConfig::default()).map(Arc::new).map_err(|errors| anyhow!("{errors:?}"))
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
