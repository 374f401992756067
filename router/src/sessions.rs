//! One client's session: four small tasks around a connection.
//!
//! The control reader takes requests, the control writer answers; the publish reader takes events through the
//! pipeline; the delivery writer sends what waits in the outbox. Readers and writers never wait for each other's
//! credit: a task that reads and awaits its own writes deadlocks when both sides run out of it.

use crate::delivery::{self, Outstanding};
use crate::ledger::Term;
use crate::local::{Ending, Local, Phase, Seat, TableChange, TableCommand};
use crate::outbox::Outbox;
use crate::pipeline::{INBOX, Publisher};
use bytes::Bytes;
use myelin_core::SessionKey;
use myelin_transport::{Connection, ReadError, RecvStream, SendStream};
use myelin_wire::limits::{ACK_EXCEPTIONS_MAX, CLIENT_NAME_BYTES_MAX, GROUP_BYTES_MAX, HELLO_TIMEOUT_MS};
use myelin_wire::message::{
    Ack, Exception, GoAway, Hello, Message, MessageDecoder, Refused, Subscribe, SubscriptionId, Welcome,
};
use myelin_wire::{Code, Pattern, Refusal, VERSION, topic};
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_local;
use tokio::time::timeout;

/// How long a client may take for its HELLO.
const HELLO_TIMEOUT: Duration = Duration::from_millis(HELLO_TIMEOUT_MS as u64);
/// Chunks that are taken from a stream in one read: 32 packets are what one receive batch brings.
const READ_CHUNKS: usize = 32;
/// Exceptions that may wait for the control writer; a publisher with more waits.
const EXCEPTIONS_WAITING_MAX: usize = 4096;
/// Answers that may wait for the control writer; a client that does not read them is not read either.
const ANSWERS_WAITING_MAX: usize = 256;
/// How long the last bytes of a session may take to reach its client before the connection is closed.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// What the tasks of a session share.
#[derive(Debug)]
pub struct Session {
    key: SessionKey,
    identity: Arc<str>,
    inbox: String,
    connection: Connection,
    seat: Seat,
    answers: RefCell<Answers>,
    /// Wakes the control writer.
    wake_writer: Notify,
    /// Wakes whoever waits for the control writer.
    room: Notify,
    outstanding: Rc<Outstanding>,
}

/// What the control writer has to write.
#[derive(Debug, Default)]
struct Answers {
    messages: VecDeque<Message>,
    /// Cumulative sequence to acknowledge.
    seq: u64,
    acked: u64,
    exceptions: VecDeque<Exception>,
}

/// Serves a connection from its first frame to its close. The session's end is told to the client by the close code.
pub async fn serve(local: Rc<Local>, connection: Connection) {
    let identity: Arc<str> = Arc::from(connection.identity().as_str());
    match timeout(HELLO_TIMEOUT, greet(&connection)).await {
        Err(_) => {
            close(&local, &connection, &Refusal::new(Code::HelloTimeout, "no HELLO within 5 s of the handshake"));
        }
        Ok(Err(refusal)) => close(&local, &connection, &refusal),
        Ok(Ok((send, recv, decoder, hello))) => {
            let outbox = Rc::new(Outbox::new(hello.overflow, local.shared.outbox));
            let seat = Seat { outbox, ending: Rc::new(Ending::default()) };
            let Some(key) = local.take_seat(seat.clone()) else {
                let message = "this router has as many sessions as it takes; connect to another one";
                return close(&local, &connection, &Refusal::new(Code::TooManySessions, message));
            };
            if let (Some(gauge), Ok(mut gauges)) = (seat.outbox.gauge(), local.shared.gauges.write()) {
                gauges.insert(key, gauge);
            }
            let inbox = format!("{INBOX}{:x}-{}-{}-{}", local.shared.epoch, key.worker, key.slot, key.generation);
            let session = Rc::new(Session {
                key,
                identity,
                inbox,
                connection,
                seat,
                answers: RefCell::default(),
                wake_writer: Notify::new(),
                room: Notify::new(),
                outstanding: Rc::default(),
            });
            tracing::debug!(identity = %session.identity, client = %cut(&hello.client), "session opened");
            session.run(&local, send, recv, decoder).await;
        }
    }
}

/// Takes the control stream and the client's HELLO.
async fn greet(connection: &Connection) -> Result<(SendStream, RecvStream, MessageDecoder, Hello), Refusal> {
    let lost = |what: &str| Refusal::new(Code::OutOfOrder, format!("{what} before HELLO"));
    let (send, mut recv) = connection.accept_bi().await.map_err(|_| lost("the connection ended"))?;
    let mut decoder = MessageDecoder::new();
    loop {
        match decoder.poll()? {
            Some(Message::Hello(hello)) if (hello.min..=hello.max).contains(&VERSION) => {
                return Ok((send, recv, decoder, hello));
            }
            Some(Message::Hello(hello)) => {
                let message =
                    format!("the client speaks versions {} to {}, this router {VERSION}", hello.min, hello.max);
                return Err(Refusal::new(Code::Version, message));
            }
            Some(other) => return Err(lost(&format!("a {:?} frame came", other.frame_type()))),
            None => match recv.read_chunk().await {
                Ok(Some(bytes)) => decoder.push(&bytes),
                _ => return Err(lost("the control stream ended")),
            },
        }
    }
}

/// A client's name as it is logged.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(CLIENT_NAME_BYTES_MAX)]
}

fn close(local: &Local, connection: &Connection, refusal: &Refusal) {
    if connection.close_reason().is_none() {
        local.shared.refusals.count(refusal.code);
        tracing::info!(
            identity = connection.identity().as_str(),
            code = refusal.code.name(),
            "session refused: {}",
            refusal.message
        );
    }
    connection.close(u32::from(refusal.code.number()), &refusal.to_string());
}

impl Session {
    /// The life of the session, then its end.
    async fn run(self: Rc<Self>, local: &Rc<Local>, send: SendStream, recv: RecvStream, decoder: MessageDecoder) {
        local.shared.sessions.fetch_add(1, Ordering::Relaxed);
        self.answer(Message::Welcome(self.welcome(local)));
        let mut writer = spawn_local(write_control(self.clone(), send));
        let reader = spawn_local(read_control(self.clone(), local.clone(), recv, decoder));
        let publisher = spawn_local(accept_publisher(self.clone(), local.clone()));
        let (connection, seat) = (self.connection.clone(), self.seat.clone());
        let delivery = spawn_local(delivery::write(local.clone(), connection, seat, self.outstanding.clone()));
        let end = self.wait_for_end(local).await;
        self.seat.ending.set(end.clone());
        // The publisher may be in the middle of a batch: it ends by itself, at the batch's end.
        self.farewell(&mut writer).await;
        close_session(local, &self.connection, &end);
        reader.abort();
        writer.abort();
        for task in [publisher, delivery] {
            if task.await.is_err_and(|error| error.is_panic()) {
                tracing::error!("a session task panicked: this is a defect of the router");
            }
        }
        self.leave(local).await;
        local.shared.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    fn welcome(&self, local: &Local) -> Welcome {
        let shared = &local.shared;
        let (site, router) = (shared.site.clone(), shared.router.clone());
        Welcome { version: VERSION, site, router, inbox: self.inbox.clone(), limits: shared.limits }
    }

    /// Waits for the session's end, and takes it through the router's draining.
    async fn wait_for_end(&self, local: &Local) -> Refusal {
        let mut phase = local.shared.phase.subscribe();
        let draining = async {
            let is_over = |phase: &Phase| matches!(phase, Phase::Flushing(_));
            if let Ok(Phase::Draining(until)) =
                phase.wait_for(|phase| *phase != Phase::Serving).await.map(|phase| *phase)
            {
                self.say_goodbye(until);
            }
            let until = match phase.wait_for(is_over).await.map(|phase| *phase) {
                Ok(Phase::Flushing(until)) => until,
                _ => Instant::now(),
            };
            let left = until.saturating_duration_since(Instant::now());
            let _ = timeout(left, self.outstanding.settled(&self.seat.outbox)).await;
            Refusal::new(Code::Draining, "the router is shutting down; connect to another one, or again later")
        };
        tokio::select! {
            reason = self.seat.ending.reason() => reason,
            reason = self.connection.closed() => Refusal::new(Code::OutOfOrder, reason.to_string()),
            reason = draining => reason,
        }
    }

    fn say_goodbye(&self, until: Instant) {
        let drain_ms = u32::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u32::MAX);
        let message = "the router is shutting down: finish what is in flight, then connect to another one".to_owned();
        self.answer(Message::GoAway(GoAway { code: Code::Draining, message, drain_ms }));
    }

    /// Lets the control writer write what it has, for a while.
    async fn farewell(&self, writer: &mut tokio::task::JoinHandle<()>) {
        if self.connection.close_reason().is_none() {
            self.wake_writer.notify_one();
            let _ = timeout(FAREWELL_TIMEOUT, writer).await;
        }
    }

    /// Gives up the seat and the subscriptions, and counts what did not reach the client.
    async fn leave(&self, local: &Local) {
        self.seat.outbox.close();
        let (done, live) = oneshot::channel();
        let command = TableCommand { session: self.key, change: TableChange::DropSession, done };
        if local.shared.table_writer.send(command).await.is_ok() {
            let _ = live.await;
        }
        if let Ok(mut gauges) = local.shared.gauges.write() {
            gauges.remove(&self.key);
        }
        local.leave_seat(self.key);
        let mut queued = Vec::new();
        while self.seat.outbox.take(usize::MAX, &mut queued) {}
        for delivery in queued {
            local.ledger.settle(delivery.origin.generation, Term::Lost, u64::from(delivery.count));
        }
        for (generation, count) in self.outstanding.drain() {
            local.ledger.settle(generation, Term::Lost, count);
        }
    }

    /// Queues a message for the control writer.
    fn answer(&self, message: Message) {
        self.answers.borrow_mut().messages.push_back(message);
        self.wake_writer.notify_one();
    }

    /// Queues an ack for the control writer.
    fn acknowledge(&self, seq: u64, exceptions: Vec<Exception>) {
        let mut answers = self.answers.borrow_mut();
        answers.seq = seq;
        answers.exceptions.extend(exceptions);
        self.wake_writer.notify_one();
    }

    /// Waits until the control writer has less to write than the bounds.
    async fn wait_for_room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if self.answers.borrow().have_room() {
                return;
            }
            room.await;
        }
    }
}

/// Ends the connection: code 0 when the client said BYE.
fn close_session(local: &Local, connection: &Connection, end: &Refusal) {
    if end.code == Code::OutOfOrder && end.message == BYE {
        return connection.close(0, "bye");
    }
    close(local, connection, end);
}

/// The reason of a session that its client ended; never sent.
const BYE: &str = "bye";

impl Answers {
    fn have_room(&self) -> bool {
        self.messages.len() < ANSWERS_WAITING_MAX && self.exceptions.len() < EXCEPTIONS_WAITING_MAX
    }

    /// Encodes everything that can be written now.
    fn encode(&mut self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        for message in self.messages.drain(..) {
            message.encode(out)?;
        }
        while self.seq > self.acked {
            let told = self.exceptions.len().min(ACK_EXCEPTIONS_MAX);
            let exceptions: Vec<_> = self.exceptions.drain(..told).collect();
            // The sequence never passes an exception that was not told yet.
            let seq = match exceptions.last() {
                Some(last) if !self.exceptions.is_empty() => last.0,
                _ => self.seq,
            };
            self.acked = seq;
            Message::Ack(Ack { seq, exceptions }).encode(out)?;
        }
        Ok(())
    }
}

/// Writes answers and acks as they come.
async fn write_control(session: Rc<Session>, mut send: SendStream) {
    send.set_priority(1);
    loop {
        let mut out = Vec::new();
        let encoded = session.answers.borrow_mut().encode(&mut out);
        if let Err(refusal) = encoded {
            return session.seat.ending.set(refusal);
        }
        if out.is_empty() && session.seat.ending.is_set() {
            // Everything was written: closing now would throw away what the client has not got yet.
            let _ = send.finish();
            let _ = send.stopped().await;
            return;
        }
        if out.is_empty() {
            session.room.notify_waiters();
            session.wake_writer.notified().await;
        } else if send.write_chunk(Bytes::from(out)).await.is_err() {
            return;
        }
        session.room.notify_waiters();
    }
}

/// Takes requests and receipts.
async fn read_control(session: Rc<Session>, local: Rc<Local>, mut recv: RecvStream, mut decoder: MessageDecoder) {
    let mut subscriptions = HashSet::new();
    let end = loop {
        // All requests that have come are asked for together: the table is published at most once a millisecond.
        let (mut asked, mut polled, mut is_more) = (Vec::new(), 0, false);
        let taken = loop {
            match decoder.poll() {
                Ok(Some(message)) => match session.take_message(&local, message, &mut subscriptions).await {
                    Ok(request) => asked.extend(request),
                    Err(refusal) => break Err(refusal),
                },
                Ok(None) => break Ok(()),
                Err(refusal) => break Err(refusal),
            }
            // Refused ones count as well: their answers wait with the others.
            polled += 1;
            if polled >= ANSWERS_WAITING_MAX {
                is_more = true;
                break Ok(());
            }
        };
        for (id, answer, live) in asked {
            match live.await.unwrap_or_else(|_| Err(Refusal::new(Code::Draining, "the router has stopped"))) {
                Ok(()) => session.answer(answer),
                Err(refusal) => {
                    subscriptions.remove(&id);
                    session.refuse(&local, id, refusal);
                }
            }
        }
        if let Err(refusal) = taken {
            break refusal;
        }
        session.wait_for_room().await;
        if is_more {
            continue;
        }
        match recv.read_chunk().await {
            Ok(Some(bytes)) => decoder.push(&bytes),
            Ok(None) | Err(_) => break Refusal::new(Code::OutOfOrder, BYE),
        }
    };
    session.seat.ending.set(end);
}

/// A request that waits for the table: the subscription, the answer when it is live, and who tells.
type Asked = (u32, Message, oneshot::Receiver<Result<(), Refusal>>);

impl Session {
    /// One control message. Refusals of single requests are answered; an error ends the session.
    async fn take_message(
        &self,
        local: &Local,
        message: Message,
        subscriptions: &mut HashSet<u32>,
    ) -> Result<Option<Asked>, Refusal> {
        match message {
            Message::Subscribe(request) => match self.check_subscribe(local, &request, subscriptions) {
                Ok((pattern, group)) => {
                    let id = request.id;
                    subscriptions.insert(id);
                    let change = TableChange::Subscribe { id, pattern, group };
                    let live = self.ask(local, change).await?;
                    Ok(Some((id, Message::Subscribed(SubscriptionId { id }), live)))
                }
                Err(refusal) => {
                    self.refuse(local, request.id, refusal);
                    Ok(None)
                }
            },
            Message::Unsubscribe(SubscriptionId { id }) => {
                if !subscriptions.remove(&id) {
                    let message = format!("there is no subscription {id} in this session");
                    self.refuse(local, id, Refusal::new(Code::SubscriptionId, message));
                    return Ok(None);
                }
                let live = self.ask(local, TableChange::Unsubscribe { id }).await?;
                Ok(Some((id, Message::Unsubscribed(SubscriptionId { id }), live)))
            }
            Message::Receipt(receipt) => {
                self.outstanding.receipt(receipt.events, |generation, count| {
                    local.ledger.settle(generation, Term::Delivered, count);
                })?;
                self.seat.outbox.nudge();
                Ok(None)
            }
            Message::Bye => Err(Refusal::new(Code::OutOfOrder, BYE)),
            other => {
                Err(Refusal::new(Code::OutOfOrder, format!("a client does not send {:?} here", other.frame_type())))
            }
        }
    }

    fn check_subscribe(
        &self,
        local: &Local,
        request: &Subscribe,
        subscriptions: &HashSet<u32>,
    ) -> Result<(Pattern, Option<Arc<str>>), Refusal> {
        let limit = local.shared.limits.subscriptions;
        if subscriptions.len() >= limit as usize {
            return Err(Refusal::new(Code::TooManySubscriptions, format!("a session may have {limit} subscriptions")));
        }
        if request.id == 0 || subscriptions.contains(&request.id) {
            let message = format!("subscription id {} is 0 or in use; choose another", request.id);
            return Err(Refusal::new(Code::SubscriptionId, message));
        }
        let pattern =
            Pattern::new(&request.pattern).map_err(|error| Refusal::new(Code::InvalidPattern, error.to_string()))?;
        let own = pattern.as_str().strip_prefix(&self.inbox).is_some_and(|rest| rest.starts_with('/'));
        if topic::is_reserved(pattern.as_str()) && !own && !pattern.as_str().starts_with("$dead/") {
            let message =
                format!("of the router's own topics a client may subscribe to $dead/... and {}/**", self.inbox);
            return Err(Refusal::new(Code::ReservedTopic, message));
        }
        let group = match request.group.as_deref() {
            Some(name) if name.is_empty() || name.len() > GROUP_BYTES_MAX || name.chars().any(char::is_control) => {
                let message = format!("a group's name has 1 to {GROUP_BYTES_MAX} bytes and no control characters");
                return Err(Refusal::new(Code::InvalidGroup, message));
            }
            group => group.map(Arc::from),
        };
        Ok((pattern, group))
    }

    async fn ask(&self, local: &Local, change: TableChange) -> Result<oneshot::Receiver<Result<(), Refusal>>, Refusal> {
        let (done, live) = oneshot::channel();
        let command = TableCommand { session: self.key, change, done };
        let stopped = |_| Refusal::new(Code::Draining, "the router has stopped");
        local.shared.table_writer.send(command).await.map_err(stopped)?;
        Ok(live)
    }

    fn refuse(&self, local: &Local, id: u32, Refusal { code, message }: Refusal) {
        local.shared.refusals.count(code);
        self.answer(Message::Refused(Refused { id, code, message: message.into_owned() }));
    }
}

/// Takes the one publish stream of a session.
async fn accept_publisher(session: Rc<Session>, local: Rc<Local>) {
    let Some(stream) = until_end(&session, session.connection.accept_uni()).await.and_then(Result::ok) else { return };
    local.shared.publishers.fetch_add(1, Ordering::Relaxed);
    let second = async {
        match session.connection.accept_uni().await {
            Ok(_) => session.seat.ending.set(Refusal::new(Code::OutOfOrder, "a session has one publish stream")),
            Err(_) => std::future::pending().await,
        }
    };
    // The publisher's own future runs to the end of its batch whatever happens: it is not cancelled by the others.
    let mut second = std::pin::pin!(second);
    let mut publish = std::pin::pin!(read_published(&session, &local, stream));
    let end = tokio::select! {
        end = &mut publish => end,
        // The session ends with the second stream; the batch under way is finished all the same.
        () = &mut second => {
            let _ = publish.await;
            local.shared.publishers.fetch_sub(1, Ordering::Relaxed);
            return;
        }
    };
    local.shared.publishers.fetch_sub(1, Ordering::Relaxed);
    if let Err(refusal) = end {
        return session.seat.ending.set(refusal);
    }
    // The end of the stream is the end of publishing: a further stream is one too many all the same.
    until_end(&session, second).await;
}

/// Reads the publish stream to its end, batch by batch.
async fn read_published(session: &Session, local: &Local, mut stream: RecvStream) -> Result<(), Refusal> {
    let mut publisher = Publisher::new(local, &session.identity);
    let mut chunks: [Bytes; READ_CHUNKS] = std::array::from_fn(|_| Bytes::new());
    loop {
        let read = until_end(session, stream.read_chunks(&mut chunks)).await;
        let count = match read {
            None | Some(Err(ReadError::ConnectionLost(_))) => return Ok(()),
            Some(Ok(Some(count))) => count,
            Some(Ok(None)) if publisher.is_at_boundary() => return Ok(()),
            Some(Ok(None)) => return Err(Refusal::new(Code::Malformed, "the publish stream ends inside a frame")),
            Some(Err(error)) => return Err(Refusal::new(Code::OutOfOrder, format!("the publish stream: {error}"))),
        };
        for chunk in &mut chunks[..count] {
            publisher.push(&std::mem::take(chunk));
        }
        while let Some(outcome) = publisher.publish(local).await? {
            for exception in &outcome.exceptions {
                local.shared.refusals.count(exception.1);
            }
            session.acknowledge(outcome.seq, outcome.exceptions);
            for gauge in outcome.full {
                until_end(session, gauge.room()).await;
            }
            until_end(session, session.wait_for_room()).await;
        }
    }
}

/// Awaits `work`, unless the session ends first.
async fn until_end<T>(session: &Session, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        _ = session.seat.ending.reason() => None,
    }
}
