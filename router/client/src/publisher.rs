//! Publishing: events in, chunks of frames out, acks back.
//!
//! Callers encode their events themselves, into one buffer behind a lock that is held for a copy's length; the session's
//! writer takes what piled up. So batches grow by themselves when the stream is slower than the callers, without a timer.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use myelin_wire::message::{Ack, Exception};
use myelin_wire::{Code, EventBuilder, Limits, Refusal, validate_topic};
use tokio::sync::{Notify, oneshot};

use crate::chunks::Chunks;
use crate::doubt::Doubt;
use crate::error::ClientError;
use crate::event::Event;
use crate::notify::{lock, until};
use crate::refs::{REFS_MAX, TopicRefs};

/// Exceptions that wait to be asked for, at most; later ones are dropped and counted.
const EXCEPTIONS_MAX: usize = 4096;

/// What became of a published event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Admitted, filtered, and offered to every subscription there was. Nobody need have subscribed.
    Acked,
    /// Not offered.
    Refused {
        /// Why.
        code: Code,
        /// More about it, such as a filter's reason; may be empty.
        detail: String,
    },
    /// The connection was lost before the router said: it may or may not have been offered. It is not sent again.
    Unknown,
}

/// Resolves to what became of one event. Dropping it changes nothing.
#[derive(Debug)]
pub struct PublishTicket {
    number: u64,
    outcome: oneshot::Receiver<Outcome>,
}

/// An event without a ticket that was not offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishException {
    /// The number that [`send`](crate::Client::send) gave for it.
    pub number: u64,
    /// Why.
    pub code: Code,
    /// More about it; may be empty.
    pub detail: String,
}

/// What became of all events of a client, from its beginning: `published = acked + refused + unknown + in flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that were taken for publishing.
    pub published: u64,
    /// Events that the router offered.
    pub acked: u64,
    /// Events that the router refused.
    pub refused: u64,
    /// Events whose fate a lost connection left open.
    pub unknown: u64,
    /// Exceptions that nobody asked for in time.
    pub exceptions_dropped: u64,
}

pub(crate) struct Publisher {
    state: Mutex<State>,
    bytes_max: usize,
    events_max: u64,
    /// The session's writer waits here: for something to write, or the end.
    work: Notify,
    /// Callers wait here: for room, or a session.
    room: Notify,
    /// Whoever flushes or ends a session waits here.
    settled: Notify,
    /// Whoever asks for exceptions waits here.
    excepted: Notify,
}

/// Where a call of [`Publisher::try_enqueue`] ended that was not successful.
#[derive(Debug)]
pub(crate) enum Blocked {
    /// The buffer is full.
    Full,
    /// There is no session, or it takes no more events.
    Down,
    /// The session is another than the event was made for.
    OtherSession,
    /// The event or the client is at fault.
    Error(ClientError),
}

/// What the session's writer is to do.
#[derive(Debug)]
pub(crate) enum Work {
    Write(Vec<Bytes>),
    Finish,
}

#[derive(Debug)]
enum Gate {
    Down,
    Open,
    Closed(ClientError),
}

struct State {
    gate: Gate,
    /// No more events in this session: what is encoded is written and acknowledged, then the stream ends.
    finishing: bool,
    session: u64,
    limits: Limits,
    refs: TopicRefs,
    chunks: Chunks,
    /// Events encoded in this session.
    seq: u64,
    /// Events of this session that the router decided.
    acked: u64,
    /// Events of earlier sessions.
    base: u64,
    tickets: VecDeque<(u64, oneshot::Sender<Outcome>)>,
    exceptions: VecDeque<PublishException>,
    refused: u64,
    doubt: Doubt,
    exceptions_dropped: u64,
}

impl Publisher {
    pub(crate) fn new(bytes_max: u32, events_max: u32) -> Self {
        let state = State {
            gate: Gate::Down,
            finishing: false,
            session: 0,
            limits: Limits::default(),
            refs: TopicRefs::new(REFS_MAX),
            chunks: Chunks::default(),
            seq: 0,
            acked: 0,
            base: 0,
            tickets: VecDeque::new(),
            exceptions: VecDeque::new(),
            refused: 0,
            doubt: Doubt::default(),
            exceptions_dropped: 0,
        };
        Self {
            state: Mutex::new(state),
            bytes_max: bytes_max as usize,
            events_max: events_max.into(),
            work: Notify::new(),
            room: Notify::new(),
            settled: Notify::new(),
            excepted: Notify::new(),
        }
    }

    /// Encodes `event` if there is room, into session `only` if one is named. Takes `ticket` when it does. The number
    /// of the event.
    #[inline]
    pub(crate) fn try_enqueue(
        &self,
        event: &Event<'_>,
        only: Option<u64>,
        ticket: &mut Option<oneshot::Sender<Outcome>>,
    ) -> Result<u64, Blocked> {
        let mut state = lock(&self.state);
        if let Gate::Closed(error) = &state.gate {
            return Err(Blocked::Error(error.clone()));
        }
        if only.is_some_and(|session| session != state.session || state.finishing) {
            return Err(Blocked::OtherSession);
        }
        if matches!(state.gate, Gate::Down) {
            return Err(Blocked::Down);
        }
        let waiting_bytes = state.chunks.bytes();
        if waiting_bytes >= self.bytes_max || state.seq - state.acked >= self.events_max {
            return Err(Blocked::Full);
        }
        let encoded = state.encode(event);
        if let Some(ticket) = ticket.take_if(|_| encoded.is_ok()) {
            let seq = state.seq;
            state.tickets.push_back((seq, ticket));
        }
        // An event that was refused may have left the announcement of its topic behind.
        let is_first = waiting_bytes == 0 && state.chunks.bytes() > 0;
        drop(state);
        if is_first {
            self.work.notify_one();
        }
        encoded.map_err(|refusal| Blocked::Error(ClientError::Invalid(refusal)))
    }

    /// Like [`try_enqueue`](Self::try_enqueue), but waits for room and for a session. Cancel-safe: cancelled, the event
    /// was not encoded.
    pub(crate) async fn enqueue(
        &self,
        event: &Event<'_>,
        only: Option<u64>,
        ticket: &mut Option<oneshot::Sender<Outcome>>,
    ) -> Result<u64, Blocked> {
        match self.try_enqueue(event, only, ticket) {
            Err(Blocked::Full | Blocked::Down) => {}
            decided => return decided,
        }
        until(&self.room, || match self.try_enqueue(event, only, ticket) {
            Err(Blocked::Full | Blocked::Down) => None,
            decided => Some(decided),
        })
        .await
    }

    /// A new session begins, with the gate still shut: first the subscriptions are to be live.
    pub(crate) fn begin(&self, session: u64, limits: Limits) {
        let mut state = lock(&self.state);
        state.session = session;
        state.limits = limits;
        state.finishing = matches!(state.gate, Gate::Closed(_));
    }

    /// Events may be published in the session.
    pub(crate) fn open(&self) {
        let mut state = lock(&self.state);
        if matches!(state.gate, Gate::Down) && !state.finishing {
            state.gate = Gate::Open;
        }
        drop(state);
        self.room.notify_waiters();
    }

    /// No more events in this session; callers wait for the next one.
    pub(crate) fn finish_session(&self) {
        let mut state = lock(&self.state);
        state.finishing = true;
        if matches!(state.gate, Gate::Open) {
            state.gate = Gate::Down;
        }
        drop(state);
        self.work.notify_one();
        self.settled.notify_waiters();
        // Callers that insist on this session learn that it is over.
        self.room.notify_waiters();
    }

    /// No more events at all.
    pub(crate) fn close(&self, error: ClientError) {
        let mut state = lock(&self.state);
        state.finishing = true;
        if !matches!(state.gate, Gate::Closed(_)) {
            state.gate = Gate::Closed(error);
        }
        drop(state);
        self.work.notify_one();
        self.wake_all();
    }

    /// The session is over: what is not acknowledged is in doubt.
    pub(crate) fn lost(&self) {
        let mut state = lock(&self.state);
        if matches!(state.gate, Gate::Open) {
            state.gate = Gate::Down;
        }
        let tickets = state.forget_session();
        drop(state);
        for (_, ticket) in tickets {
            let _ = ticket.send(Outcome::Unknown);
        }
        self.wake_all();
    }

    /// What the writer of the session is to do next. One caller at a time.
    pub(crate) async fn work(&self) -> Work {
        let work = until(&self.work, || {
            let mut state = lock(&self.state);
            let chunks = state.chunks.take();
            if !chunks.is_empty() {
                return Some(Work::Write(chunks));
            }
            (state.finishing && state.seq == state.acked).then_some(Work::Finish)
        })
        .await;
        self.room.notify_waiters();
        work
    }

    /// Takes an ack.
    ///
    /// # Errors
    /// When the router acknowledges what was not published, goes back, or its exceptions do not fit.
    pub(crate) fn acknowledge(&self, ack: Ack) -> Result<(), ClientError> {
        let mut state = lock(&self.state);
        state.check(&ack)?;
        let excepted = !ack.exceptions.is_empty();
        state.settle(ack);
        let finished = state.finishing && state.seq == state.acked;
        drop(state);
        if finished {
            self.work.notify_one();
        }
        if excepted {
            self.excepted.notify_waiters();
        }
        self.room.notify_waiters();
        self.settled.notify_waiters();
        Ok(())
    }

    /// Waits until everything that was published before the call is decided.
    pub(crate) async fn flush(&self) -> Summary {
        let target = lock(&self.state).published();
        until(&self.settled, || {
            let state = lock(&self.state);
            (state.base + state.acked >= target).then(|| state.summary())
        })
        .await
    }

    /// Waits until the session has nothing left to write or to be acknowledged, and takes no more.
    pub(crate) async fn drained(&self) {
        until(&self.settled, || {
            let state = lock(&self.state);
            (state.finishing && state.seq == state.acked && state.chunks.bytes() == 0).then_some(())
        })
        .await;
    }

    /// The next exception; `None` when the client is closed and there is no more.
    pub(crate) async fn next_exception(&self) -> Option<PublishException> {
        until(&self.excepted, || {
            let mut state = lock(&self.state);
            match state.exceptions.pop_front() {
                Some(exception) => Some(Some(exception)),
                None => (matches!(state.gate, Gate::Closed(_)) && state.seq == state.acked).then_some(None),
            }
        })
        .await
    }

    pub(crate) fn summary(&self) -> Summary {
        lock(&self.state).summary()
    }

    pub(crate) fn unknown(&self) -> Vec<(u64, u64)> {
        lock(&self.state).doubt.runs().to_vec()
    }

    fn wake_all(&self) {
        self.room.notify_waiters();
        self.settled.notify_waiters();
        self.excepted.notify_waiters();
    }
}

impl State {
    fn encode(&mut self, event: &Event<'_>) -> Result<u64, Refusal> {
        event.check(&self.limits)?;
        let topic_ref = match self.refs.find(event.topic()) {
            Some(topic_ref) => topic_ref,
            None => self.announce(event.topic())?,
        };
        let (attrs, payload) = (event.attrs(), event.payload());
        self.chunks.event(&EventBuilder { topic_ref, attrs, payload, request: event.is_request() })?;
        self.seq += 1;
        Ok(self.base + self.seq)
    }

    #[cold]
    fn announce(&mut self, topic: &str) -> Result<u32, Refusal> {
        validate_topic(topic).map_err(|error| Refusal::new(Code::InvalidTopic, error.to_string()))?;
        let topic_ref = self.refs.define(topic);
        self.chunks.name(topic_ref, topic);
        Ok(topic_ref)
    }

    fn check(&self, ack: &Ack) -> Result<(), ClientError> {
        let malformed = |message| Err(ClientError::protocol(Code::Malformed, message));
        if ack.seq < self.acked || ack.seq > self.seq {
            let (acked, seq) = (self.acked, self.seq);
            return malformed(format!("an ACK of {} came after {acked} of {seq} events were acknowledged", ack.seq));
        }
        let mut last = self.acked;
        for Exception(seq, ..) in &ack.exceptions {
            if *seq <= last || *seq > ack.seq {
                return malformed(format!("an ACK of {} has an exception for {seq} after {last}", ack.seq));
            }
            last = *seq;
        }
        Ok(())
    }

    /// Tells outcomes. The ack is checked.
    fn settle(&mut self, ack: Ack) {
        self.acked = ack.seq;
        self.refused += ack.exceptions.len() as u64;
        let mut exceptions = ack.exceptions.into_iter().peekable();
        while self.tickets.front().is_some_and(|(seq, _)| *seq <= ack.seq) {
            let Some((seq, ticket)) = self.tickets.pop_front() else { break };
            while let Some(earlier) = exceptions.next_if(|exception| exception.0 < seq) {
                self.keep(earlier);
            }
            let outcome = match exceptions.next_if(|exception| exception.0 == seq) {
                Some(Exception(_, code, detail)) => Outcome::Refused { code, detail },
                None => Outcome::Acked,
            };
            // Whoever dropped the ticket does not want to know.
            let _ = ticket.send(outcome);
        }
        for exception in exceptions {
            self.keep(exception);
        }
    }

    fn keep(&mut self, Exception(seq, code, detail): Exception) {
        if self.exceptions.len() >= EXCEPTIONS_MAX {
            self.exceptions_dropped += 1;
            return;
        }
        self.exceptions.push_back(PublishException { number: self.base + seq, code, detail });
    }

    fn forget_session(&mut self) -> VecDeque<(u64, oneshot::Sender<Outcome>)> {
        self.doubt.add(self.base + self.acked + 1, self.base + self.seq);
        self.base += self.seq;
        (self.seq, self.acked) = (0, 0);
        self.refs = TopicRefs::new(REFS_MAX);
        self.chunks = Chunks::default();
        std::mem::take(&mut self.tickets)
    }

    fn published(&self) -> u64 {
        self.base + self.seq
    }

    fn summary(&self) -> Summary {
        let decided = self.base + self.acked;
        Summary {
            published: self.published(),
            acked: decided - self.refused - self.doubt.events(),
            refused: self.refused,
            unknown: self.doubt.events(),
            exceptions_dropped: self.exceptions_dropped,
        }
    }
}

impl PublishTicket {
    pub(crate) fn new(number: u64, outcome: oneshot::Receiver<Outcome>) -> Self {
        Self { number, outcome }
    }

    /// The event's number among all that this client published, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Future for PublishTicket {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        // A client that is gone without a word leaves the outcome open.
        Pin::new(&mut self.outcome).poll(context).map(|told| told.unwrap_or(Outcome::Unknown))
    }
}

impl Summary {
    /// What happened since `earlier`, a summary of the same client.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            published: self.published - earlier.published,
            acked: self.acked - earlier.acked,
            refused: self.refused - earlier.refused,
            unknown: self.unknown - earlier.unknown,
            exceptions_dropped: self.exceptions_dropped - earlier.exceptions_dropped,
        }
    }

    /// Events that are not decided yet.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.published - self.acked - self.refused - self.unknown
    }
}
