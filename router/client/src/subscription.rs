//! A subscription as its subscriber sees it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use myelin_wire::limits::GROUP_BYTES_MAX;
use myelin_wire::{Code, Refusal};

use crate::client::Client;
use crate::delivered::Delivered;
use crate::error::ClientError;
use crate::queue::Queue;

/// Events that are taken out of the queue at a time, beyond its bound: one lock for many.
const TAKE_MAX: usize = 64;

/// How to subscribe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Name of a queue group: each event goes to one member of it. 1 to 64 bytes without control characters.
    pub group: Option<String>,
}

/// A subscription. It is made again after a lost connection, and ended when this is dropped.
///
/// Must be read: when its queue is full, nothing more is read from the router for any subscription of the client.
pub struct Subscription {
    client: Client,
    id: u32,
    queue: Arc<Queue>,
    taken: VecDeque<Delivered>,
}

impl SubscribeOptions {
    /// As a member of the queue group `name`.
    #[must_use]
    pub fn group(name: impl Into<String>) -> Self {
        Self { group: Some(name.into()) }
    }

    pub(crate) fn check(&self) -> Result<(), ClientError> {
        match self.group.as_deref() {
            Some(name) if name.is_empty() || name.len() > GROUP_BYTES_MAX || name.contains(char::is_control) => {
                let message = format!("a group's name has 1 to {GROUP_BYTES_MAX} bytes and no control characters");
                Err(ClientError::Invalid(Refusal::new(Code::InvalidGroup, message)))
            }
            _ => Ok(()),
        }
    }
}

impl Subscription {
    pub(crate) fn new(client: Client, id: u32, queue: Arc<Queue>) -> Self {
        Self { client, id, queue, taken: VecDeque::new() }
    }

    /// The next event; `None` when the subscription has ended and all its events are taken. Cancel-safe.
    pub async fn next(&mut self) -> Option<Delivered> {
        if self.taken.is_empty() && !self.queue.pop(&mut self.taken, TAKE_MAX).await {
            return None;
        }
        self.taken.pop_front()
    }

    /// Adds between 1 and `most` events to `into`, waiting for the first; 0 when the subscription has ended and all its
    /// events are taken. Cancel-safe.
    pub async fn next_batch(&mut self, into: &mut Vec<Delivered>, most: usize) -> usize {
        let most = most.max(1);
        if self.taken.is_empty() && !self.queue.pop(&mut self.taken, most).await {
            return 0;
        }
        let count = self.taken.len().min(most);
        into.extend(self.taken.drain(..count));
        count
    }

    /// The next event if one is there.
    pub fn try_next(&mut self) -> Option<Delivered> {
        self.taken.pop_front().or_else(|| {
            self.queue.try_pop(&mut self.taken, TAKE_MAX);
            self.taken.pop_front()
        })
    }

    /// Why the subscription ended by itself: the router refused it (also when it was made again), or the client ended
    /// with an error. `None` while it lives and after a clean end.
    #[must_use]
    pub fn error(&self) -> Option<ClientError> {
        self.queue.error()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.client.unsubscribe(self.id);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Subscription({})", self.id)
    }
}
