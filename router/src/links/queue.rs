//! What waits for one neighbour: bounded in bytes, the oldest makes room.

use crate::outbox::Delivery;
use myelin_mesh::Stamp;
use std::cell::RefCell;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// A copy of some events on its way to a neighbour.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Where it goes.
    pub(super) stamp: Stamp,
    /// The events.
    pub(super) delivery: Delivery,
}

/// The queue of one neighbour.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: RefCell<Waiting>,
    bytes_max: usize,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    copies: VecDeque<Outgoing>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { waiting: RefCell::default(), bytes_max, wake: Notify::new() }
    }

    /// Queues a copy; `shed` is given what had to make room. Gives the copy back where the queue is closed.
    pub(super) fn push(&self, copy: Outgoing, mut shed: impl FnMut(Outgoing)) -> Option<Outgoing> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.closed {
            return Some(copy);
        }
        let bytes = copy.delivery.events.len();
        while waiting.bytes + bytes > self.bytes_max
            && let Some(old) = waiting.copies.pop_front()
        {
            waiting.bytes -= old.delivery.events.len();
            shed(old);
        }
        waiting.bytes += bytes;
        waiting.copies.push_back(copy);
        drop(waiting);
        self.wake.notify_one();
        None
    }

    /// Moves copies of up to `bytes_max` bytes, one at least, to `into`; waits until there are some.
    pub(super) async fn take(&self, bytes_max: usize, into: &mut Vec<Outgoing>) {
        loop {
            self.waiting.borrow_mut().take(bytes_max, into);
            if !into.is_empty() {
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Takes no more, and gives back what waits.
    pub(super) fn close(&self) -> VecDeque<Outgoing> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.closed = true;
        waiting.bytes = 0;
        std::mem::take(&mut waiting.copies)
    }

    /// Bytes and copies that wait.
    pub(super) fn depth(&self) -> (usize, usize) {
        let waiting = self.waiting.borrow();
        (waiting.bytes, waiting.copies.len())
    }
}

impl Waiting {
    fn take(&mut self, bytes_max: usize, into: &mut Vec<Outgoing>) {
        let mut taken = 0;
        while let Some(next) = self.copies.front()
            && (taken == 0 || taken + next.delivery.events.len() <= bytes_max)
        {
            taken += next.delivery.events.len();
            into.extend(self.copies.pop_front());
        }
        self.bytes -= taken;
    }
}
