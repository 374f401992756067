//! The bounded queue between the delivery reader and one subscription.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::delivered::Delivered;
use crate::error::ClientError;
use crate::notify::{lock, until};

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    events_max: usize,
    bytes_max: usize,
    /// The subscriber waits here.
    ready: Notify,
    /// The delivery reader waits here.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Delivered>,
    bytes: usize,
    end: Option<End>,
}

/// Why no more events come.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// The subscription or the client was closed.
    Closed,
    /// The router refused the subscription, or the client ended with an error.
    Failed(ClientError),
}

impl Queue {
    pub(crate) fn new(events_max: u32, bytes_max: u32) -> Self {
        Self {
            state: Mutex::default(),
            events_max: events_max as usize,
            bytes_max: bytes_max as usize,
            ready: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Puts all of `events` in, waiting for room. A queue that has ended takes and drops them. Cancelled, what is in is
    /// in, and the rest is left in `events`.
    pub(crate) async fn push_all(&self, events: &mut VecDeque<Delivered>) {
        until(&self.room, || {
            let mut state = lock(&self.state);
            if state.end.is_some() {
                events.clear();
                return Some(());
            }
            let before = state.events.len();
            while state.has_room(self.events_max, self.bytes_max) {
                let Some(event) = events.pop_front() else { break };
                state.bytes += event.queued_bytes();
                state.events.push_back(event);
            }
            if state.events.len() > before {
                self.ready.notify_one();
            }
            events.is_empty().then_some(())
        })
        .await;
    }

    /// Moves up to `most` events to `into`, waiting until there is one. `false` at the end. Cancel-safe.
    pub(crate) async fn pop(&self, into: &mut VecDeque<Delivered>, most: usize) -> bool {
        until(&self.ready, || {
            if self.try_pop(into, most) > 0 {
                return Some(true);
            }
            lock(&self.state).end.as_ref().map(|_| false)
        })
        .await
    }

    /// Moves up to `most` events to `into`; how many.
    pub(crate) fn try_pop(&self, into: &mut VecDeque<Delivered>, most: usize) -> usize {
        let mut state = lock(&self.state);
        let count = state.events.len().min(most);
        let mut moved_bytes = 0;
        for event in state.events.drain(..count) {
            moved_bytes += event.queued_bytes();
            into.push_back(event);
        }
        state.bytes -= moved_bytes;
        drop(state);
        if count > 0 {
            self.room.notify_one();
        }
        count
    }

    /// No more events come; those that are in can still be taken. The first end counts.
    pub(crate) fn end(&self, end: End) {
        lock(&self.state).end.get_or_insert(end);
        self.ready.notify_one();
        self.room.notify_one();
    }

    /// The error that ended the queue.
    pub(crate) fn error(&self) -> Option<ClientError> {
        match &lock(&self.state).end {
            Some(End::Failed(error)) => Some(error.clone()),
            _ => None,
        }
    }

    /// Events that wait.
    pub(crate) fn len(&self) -> usize {
        lock(&self.state).events.len()
    }
}

impl State {
    /// An event of any size goes into an empty queue.
    fn has_room(&self, events_max: usize, bytes_max: usize) -> bool {
        self.events.len() < events_max && (self.bytes < bytes_max || self.events.is_empty())
    }
}
