//! One session: the handshake, and the four tasks that live as long as the connection.
//!
//! Two read (control and delivery stream), two write (control and publish stream); none waits for another, so that a
//! blocked publish stream never keeps acks or deliveries from being read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use myelin_transport::{Connection, RecvStream, SendStream};
use myelin_wire::limits::HELLO_TIMEOUT_MS;
use myelin_wire::message::{Hello, Message, MessageDecoder, Receipt, Welcome};
use myelin_wire::{Code, FrameType, VERSION};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::config::ClientConfig;
use crate::connector::Connector;
use crate::dispatch::Dispatcher;
use crate::error::ClientError;
use crate::notify::until;
use crate::publisher::Work;
use crate::receipts::{Due, Receipts};
use crate::shared::{Lifecycle, SessionInfo, Shared};
use crate::stats::add;

/// Chunks that are read at a time; a chunk is what one packet brought.
const READ_CHUNKS: usize = 64;
/// Control frames that are written at a time.
const CONTROL_BATCH: usize = 256;
/// After GOAWAY, deliveries have ceased when none came for so long.
const QUIET: Duration = Duration::from_millis(500);
/// How long a router that has ended the control stream may take to say why: it waits for 2 s itself until that has arrived.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection whose router has said WELCOME.
pub(crate) struct Established {
    /// Which of the routers it is.
    index: usize,
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    decoder: MessageDecoder,
    welcome: Welcome,
}

/// What the tasks of a session have in common.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Connection,
    pub(crate) info: Arc<SessionInfo>,
    receipts: Receipts,
    /// Set by GOAWAY to the time that is left, in milliseconds and one more.
    going: AtomicU32,
    gone: Notify,
    leaving: AtomicBool,
}

/// Connects to router number `index` and greets it.
pub(crate) async fn establish(
    connector: &dyn Connector,
    index: usize,
    config: &ClientConfig,
) -> Result<Established, ClientError> {
    let connection = connector.connect(index).await?;
    match timeout(Duration::from_millis(HELLO_TIMEOUT_MS.into()), greet(&connection, index, config)).await {
        Ok(greeted) => {
            if let Err(ClientError::Protocol(refusal)) = &greeted {
                connection.close(refusal.code.number().into(), &refusal.to_string());
            }
            greeted
        }
        Err(_) => {
            connection.close(0, "no WELCOME in time");
            Err(ClientError::HandshakeTimeout { waited_ms: HELLO_TIMEOUT_MS })
        }
    }
}

async fn greet(connection: &Connection, index: usize, config: &ClientConfig) -> Result<Established, ClientError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    let (client, overflow, token) = (config.name.clone(), config.overflow, config.token()?);
    let hello = Hello { min: VERSION, max: VERSION, client, overflow, token };
    let mut bytes = Vec::new();
    Message::Hello(hello).encode(&mut bytes).map_err(ClientError::Invalid)?;
    send.write_chunk(bytes.into()).await.map_err(ClientError::from_write)?;
    let mut decoder = MessageDecoder::new();
    match read_message(&mut recv, &mut decoder, |kind| kind == FrameType::Welcome).await? {
        Some(Message::Welcome(welcome)) if welcome.version == VERSION => {
            Ok(Established { index, connection: connection.clone(), send, recv, decoder, welcome })
        }
        Some(Message::Welcome(welcome)) => {
            let message = format!("WELCOME names version {}, where {VERSION} was offered", welcome.version);
            Err(ClientError::protocol(Code::Version, message))
        }
        Some(other) => Err(unexpected(&other)),
        None => Err(ClientError::protocol(Code::OutOfOrder, "the control stream ended before WELCOME")),
    }
}

/// The next control message, of a type that may come now; `None` at the end of the stream.
async fn read_message(
    recv: &mut RecvStream,
    decoder: &mut MessageDecoder,
    may_come: impl Fn(FrameType) -> bool,
) -> Result<Option<Message>, ClientError> {
    loop {
        if let Some(message) = decoder.poll_if(&may_come).map_err(ClientError::Protocol)? {
            return Ok(Some(message));
        }
        match recv.read_chunk().await.map_err(ClientError::from_read)? {
            Some(chunk) => decoder.push(&chunk),
            None => return Ok(None),
        }
    }
}

fn unexpected(message: &Message) -> ClientError {
    let kind = message.frame_type();
    ClientError::protocol(Code::OutOfOrder, format!("a {kind:?} frame does not come from a router, or not now"))
}

/// The halves of the control stream.
pub(crate) struct Control {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) decoder: MessageDecoder,
}

impl Session {
    /// Session number `number` begins on an established connection.
    pub(crate) fn begin(shared: &Arc<Shared>, established: Established, number: u64) -> (Arc<Self>, Control) {
        let Established { index, connection, send, recv, decoder, welcome } = established;
        let Welcome { version, site, router, inbox, limits } = welcome;
        let info = Arc::new(SessionInfo { number, index, version, site, router, inbox, limits });
        let session = Self {
            shared: shared.clone(),
            connection,
            info,
            receipts: Receipts::default(),
            going: AtomicU32::new(0),
            gone: Notify::new(),
            leaving: AtomicBool::new(false),
        };
        (Arc::new(session), Control { send, recv, decoder })
    }

    /// Reads acks and answers until the connection ends.
    pub(crate) async fn read_control(
        &self,
        mut recv: RecvStream,
        mut decoder: MessageDecoder,
    ) -> Result<(), ClientError> {
        let shared = &*self.shared;
        loop {
            let may_come = |kind: FrameType| kind.is_from_router() && kind != FrameType::Welcome;
            let Some(message) = read_message(&mut recv, &mut decoder, may_come).await? else { break };
            match message {
                Message::Ack(ack) => shared.publisher.acknowledge(ack)?,
                Message::Subscribed(answer) => {
                    if shared.registry.subscribed(answer.id) {
                        shared.publisher.open();
                    }
                }
                Message::Refused(refused) => {
                    if shared.registry.refused(refused) {
                        shared.publisher.open();
                    }
                }
                Message::Unsubscribed(answer) => shared.registry.unsubscribed(answer.id),
                Message::GoAway(goaway) => {
                    self.going.store(goaway.drain_ms.saturating_add(1), Ordering::Release);
                    shared.publisher.finish_session();
                    self.gone.notify_waiters();
                }
                other => return Err(unexpected(&other)),
            }
        }
        // The router has nothing more to say; it closes when it has sent it, and says why.
        let close = self.connection.closed();
        if self.leaving.load(Ordering::Acquire) {
            return Err(ClientError::from_close(close.await));
        }
        let late = |_| ClientError::protocol(Code::OutOfOrder, "the control stream ended before the session");
        Err(timeout(CLOSE_TIMEOUT, close).await.map_or_else(late, ClientError::from_close))
    }

    /// Writes subscriptions and receipts, and BYE in the end.
    pub(crate) async fn write_control(&self, mut send: SendStream) -> Result<(), ClientError> {
        let shared = &*self.shared;
        let mut told_at = None;
        loop {
            let mut bytes = Vec::new();
            shared.registry.write_outbox(&mut bytes, CONTROL_BATCH)?;
            let (now, leaving) = (Instant::now(), self.leaving.load(Ordering::Acquire));
            let due = self.receipts.due(now, told_at, leaving);
            if let Due::Now(events) = due {
                Message::Receipt(Receipt { events }).encode(&mut bytes).map_err(ClientError::Invalid)?;
                self.receipts.told(events);
                told_at = Some(now);
                add(&shared.counters.receipts, 1);
            }
            if leaving {
                Message::Bye.encode(&mut bytes).map_err(ClientError::Invalid)?;
            }
            if !bytes.is_empty() {
                send.write_chunk(bytes.into()).await.map_err(ClientError::from_write)?;
                if leaving {
                    return Ok(());
                }
                continue;
            }
            match due {
                Due::At(then) => {
                    tokio::select! {
                        () = shared.control.notified() => {}
                        () = tokio::time::sleep_until(then) => {}
                    }
                }
                _ => shared.control.notified().await,
            }
        }
    }

    /// Writes what callers have encoded. The publish stream is opened for the first event.
    pub(crate) async fn write_events(&self) -> Result<(), ClientError> {
        let shared = &*self.shared;
        let mut stream = None;
        loop {
            let mut chunks = match shared.publisher.work().await {
                Work::Write(chunks) => chunks,
                // Dropping the stream finishes it.
                Work::Finish => return Ok(()),
            };
            let bytes: usize = chunks.iter().map(Bytes::len).sum();
            if stream.is_none() {
                stream = Some(self.connection.open_uni().await?);
            }
            if let Some(stream) = &mut stream {
                stream.write_chunks(&mut chunks).await.map_err(ClientError::from_write)?;
            }
            add(&shared.counters.published_bytes, bytes as u64);
        }
    }

    /// Reads deliveries until the connection ends. Waits where a subscription is full, but not beyond that end: what no
    /// receipt covers then counts as lost at the router, too.
    pub(crate) async fn read_deliveries(&self) -> Result<(), ClientError> {
        let mut stream = self.connection.accept_uni().await?;
        let len_max = self.info.limits.delivered_len_max();
        let mut dispatcher = Dispatcher::new(&self.shared, &self.receipts, len_max);
        let mut chunks: [Bytes; READ_CHUNKS] = std::array::from_fn(|_| Bytes::new());
        while let Some(count) = stream.read_chunks(&mut chunks).await.map_err(ClientError::from_read)? {
            for chunk in &mut chunks[..count] {
                dispatcher.push(&std::mem::take(chunk));
            }
            tokio::select! {
                // What fits is handed over even when the connection has ended meanwhile.
                biased;
                dispatched = dispatcher.dispatch() => dispatched?,
                reason = self.connection.closed() => return Err(ClientError::from_close(reason)),
            }
        }
        if dispatcher.is_at_boundary() {
            return Ok(());
        }
        Err(ClientError::protocol(Code::Malformed, "the delivery stream ended within a frame"))
    }

    /// Waits until it is time to say BYE: the client closes or the router has said GOAWAY, and what was in flight is
    /// through.
    pub(crate) async fn departure(&self) {
        tokio::select! {
            () = self.shared.reached(Lifecycle::Closing) => self.shared.publisher.drained().await,
            drain_ms = self.goaway() => {
                let closing = self.shared.reached(Lifecycle::Closing);
                let through = async {
                    self.shared.publisher.drained().await;
                    tokio::select! {
                        () = self.quiet() => {}
                        () = closing => {}
                    }
                };
                // The router closes then in any case.
                let _ = timeout(Duration::from_millis(drain_ms.into()), through).await;
            }
        }
    }

    /// Says BYE, after a last receipt.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.shared.control.notify_one();
    }

    /// Whether the router has said GOAWAY.
    pub(crate) fn is_going(&self) -> bool {
        self.going.load(Ordering::Acquire) > 0
    }

    async fn goaway(&self) -> u32 {
        until(&self.gone, || self.going.load(Ordering::Acquire).checked_sub(1)).await
    }

    /// Waits until no deliveries come any more, if there is anybody to take them.
    async fn quiet(&self) {
        while self.shared.registry.has_subscribers() {
            let before = self.receipts.taken();
            sleep(QUIET).await;
            if self.receipts.taken() == before {
                return;
            }
        }
    }
}
