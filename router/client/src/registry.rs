//! The subscriptions of a client: what it wants, what the router confirmed, and where events go.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hashbrown::HashMap;
use myelin_wire::message::{Message, Refused, Subscribe, SubscriptionId};
use myelin_wire::{Code, Pattern, Refusal};
use tokio::sync::oneshot;

use crate::error::ClientError;
use crate::notify::lock;
use crate::queue::{End, Queue};
use crate::request::Replies;

/// Subscriptions of a client at once, those that are being ended included. Routers allow 1,024 by default.
const SUBSCRIPTIONS_MAX: usize = 65_536;

/// Where the events of a subscription go.
#[derive(Clone, Debug)]
pub(crate) enum Sink {
    /// To a subscriber.
    Queue(Arc<Queue>),
    /// To whoever waits for the answer.
    Replies(Arc<Replies>),
}

/// Tells whether the router confirmed a subscription. Gone without a word: the session was lost, and it with it.
pub(crate) type Confirmation = oneshot::Receiver<Result<(), ClientError>>;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
    /// Grows with every change; whoever keeps targets looks here whether they still hold.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<u32, Entry>,
    last_id: u32,
    /// Control frames to be written in the running session.
    outbox: VecDeque<Message>,
    in_session: bool,
    /// Subscriptions of before that the router has not confirmed in this session.
    rejoining: usize,
    /// When set, why there are no more subscriptions.
    closed: Option<ClientError>,
}

#[derive(Debug)]
struct Entry {
    pattern: Pattern,
    group: Option<Arc<str>>,
    sink: Sink,
    phase: Phase,
    confirmation: Option<oneshot::Sender<Result<(), ClientError>>>,
    /// Counted in `rejoining`.
    is_rejoining: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Wanted,
    Live,
    Ending,
}

impl Registry {
    /// Wants a subscription. In a session it is asked for now, else when the next begins.
    pub(crate) fn subscribe(
        &self,
        pattern: Pattern,
        group: Option<Arc<str>>,
        sink: Sink,
    ) -> Result<(u32, Confirmation), ClientError> {
        let mut state = lock(&self.state);
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        if state.entries.len() >= SUBSCRIPTIONS_MAX {
            let message = format!("this client has {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(ClientError::Invalid(Refusal::new(Code::TooManySubscriptions, message)));
        }
        let id = state.free_id();
        let (confirm, confirmation) = oneshot::channel();
        let confirm = Some(confirm);
        let entry = Entry { pattern, group, sink, phase: Phase::Wanted, confirmation: confirm, is_rejoining: false };
        if state.in_session {
            let ask = entry.ask(id);
            state.outbox.push_back(ask);
        }
        state.entries.insert(id, entry);
        drop(state);
        self.changed();
        Ok((id, confirmation))
    }

    /// Ends a subscription. Its queue takes no more at once; the router is told when there is a session.
    pub(crate) fn unsubscribe(&self, id: u32) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(entry) = state.entries.get_mut(&id).filter(|entry| entry.phase != Phase::Ending) else { return };
        entry.sink.end(End::Closed);
        if state.in_session {
            entry.phase = Phase::Ending;
            entry.confirmation = None;
            state.outbox.push_back(Message::Unsubscribe(SubscriptionId { id }));
        } else {
            state.entries.remove(&id);
        }
        drop(guard);
        self.changed();
    }

    /// A session begins: everything is asked for again. Whether there is nothing to wait for.
    pub(crate) fn begin_session(&self) -> bool {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        state.in_session = true;
        let mut wanted: Vec<_> = state.entries.iter_mut().collect();
        wanted.sort_unstable_by_key(|(id, _)| **id);
        for (id, entry) in wanted {
            entry.is_rejoining = true;
            state.outbox.push_back(entry.ask(*id));
        }
        state.rejoining = state.entries.len();
        state.rejoining == 0
    }

    /// The session is over. The inbox goes with it, and what was being ended has ended.
    pub(crate) fn end_session(&self) {
        let mut state = lock(&self.state);
        state.in_session = false;
        state.rejoining = 0;
        state.outbox.clear();
        state.entries.retain(|_, entry| entry.phase != Phase::Ending && matches!(entry.sink, Sink::Queue(_)));
        for entry in state.entries.values_mut() {
            entry.phase = Phase::Wanted;
            entry.is_rejoining = false;
        }
        drop(state);
        self.changed();
    }

    /// No session will come: all subscriptions end with `error`, or cleanly.
    pub(crate) fn close(&self, error: &ClientError) {
        let mut state = lock(&self.state);
        state.closed = Some(error.clone());
        state.outbox.clear();
        let entries = std::mem::take(&mut state.entries);
        drop(state);
        self.changed();
        for (_, entry) in entries {
            entry.sink.end(match error {
                ClientError::ClientClosed => End::Closed,
                error => End::Failed(error.clone()),
            });
            entry.confirm(Err(error.clone()));
        }
    }

    /// The router confirmed `id`. Whether that was the last one of before.
    pub(crate) fn subscribed(&self, id: u32) -> bool {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(entry) = state.entries.get_mut(&id) else { return false };
        if entry.phase == Phase::Wanted {
            entry.phase = Phase::Live;
        }
        if let Some(confirmation) = entry.confirmation.take() {
            // Whoever stopped waiting has dropped the subscription, too.
            let _ = confirmation.send(Ok(()));
        }
        let was_rejoining = std::mem::take(&mut entry.is_rejoining);
        state.rejoined(was_rejoining)
    }

    /// The router refused `id`, which therefore ends. Whether that was the last one of before.
    pub(crate) fn refused(&self, refused: Refused) -> bool {
        let mut state = lock(&self.state);
        let Some(entry) = state.entries.remove(&refused.id) else { return false };
        let last = state.rejoined(entry.is_rejoining);
        drop(state);
        self.changed();
        let error = ClientError::Refused(Refusal::new(refused.code, refused.message));
        entry.sink.end(End::Failed(error.clone()));
        entry.confirm(Err(error));
        last
    }

    /// The router ended `id`.
    pub(crate) fn unsubscribed(&self, id: u32) {
        let mut state = lock(&self.state);
        if state.entries.get(&id).is_some_and(|entry| entry.phase == Phase::Ending) {
            state.entries.remove(&id);
        }
    }

    /// Encodes up to `most` control frames that wait.
    pub(crate) fn write_outbox(&self, out: &mut Vec<u8>, most: usize) -> Result<(), ClientError> {
        let mut state = lock(&self.state);
        let count = state.outbox.len().min(most);
        for message in state.outbox.drain(..count) {
            // Patterns and groups are checked, so that no frame is too large.
            message.encode(out).map_err(ClientError::Invalid)?;
        }
        Ok(())
    }

    /// Grows with every change.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Where events of `topic` go that came for plain subscriptions.
    pub(crate) fn plain_targets(&self, topic: &str) -> Arc<[Sink]> {
        let state = lock(&self.state);
        let matching =
            |entry: &&Entry| entry.phase != Phase::Ending && entry.group.is_none() && entry.pattern.matches(topic);
        state.entries.values().filter(matching).map(|entry| entry.sink.clone()).collect()
    }

    /// Where events go that came for the member `id` of a group.
    pub(crate) fn group_targets(&self, id: u32) -> Arc<[Sink]> {
        let state = lock(&self.state);
        let member = state.entries.get(&id).filter(|entry| entry.phase != Phase::Ending && entry.group.is_some());
        member.map(|entry| entry.sink.clone()).into_iter().collect()
    }

    /// Whether anybody waits for events, answers apart.
    pub(crate) fn has_subscribers(&self) -> bool {
        let waits = |entry: &Entry| entry.phase != Phase::Ending && matches!(entry.sink, Sink::Queue(_));
        lock(&self.state).entries.values().any(waits)
    }

    /// Subscriptions, and events that wait in them.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let state = lock(&self.state);
        let queued = state.entries.values().map(|entry| match &entry.sink {
            Sink::Queue(queue) => queue.len(),
            Sink::Replies(_) => 0,
        });
        (state.entries.len(), queued.sum())
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}

impl State {
    /// An id that is not in use: fewer than [`SUBSCRIPTIONS_MAX`] are.
    fn free_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.entries.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    fn rejoined(&mut self, was_rejoining: bool) -> bool {
        if was_rejoining {
            self.rejoining -= 1;
        }
        was_rejoining && self.rejoining == 0
    }
}

impl Entry {
    fn ask(&self, id: u32) -> Message {
        let group = self.group.as_deref().map(str::to_owned);
        Message::Subscribe(Subscribe { id, pattern: self.pattern.as_str().to_owned(), group })
    }

    fn confirm(self, told: Result<(), ClientError>) {
        if let Some(confirmation) = self.confirmation {
            let _ = confirmation.send(told);
        }
    }
}

impl Sink {
    fn end(&self, end: End) {
        match self {
            Self::Queue(queue) => queue.end(end),
            // Requests are told by the session's end.
            Self::Replies(_) => {}
        }
    }
}
