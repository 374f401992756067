//! The delivery side of a session: from the outbox to the wire, and the receipts for it.

use crate::fanout::{gone, split_expired};
use crate::hops;
use crate::ledger::Term;
use crate::local::{Local, Seat};
use crate::names::Announced;
use crate::outbox::{Delivery, Elsewhere, Outbox};
use bytes::Bytes;
use myelin_transport::{Connection, SendStream};
use myelin_wire::limits::{UNRECEIPTED_BYTES_MAX, UNRECEIPTED_EVENTS_MAX};
use myelin_wire::stream::{write_deliver_head, write_name};
use myelin_wire::{Code, Refusal, Stamp};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use tokio::sync::Notify;

/// Bytes that are taken from the outbox for one write: what a send of several full segments carries.
const WRITE_BYTES: usize = 64 * 1024;
/// Events below this size are copied next to their frame's header: one larger chunk is cheaper than two small ones.
const COPY_BELOW_BYTES: usize = 4 * 1024;
/// Events that are remembered as one entry, so that receipts give back bytes in small steps.
const EVENTS_PER_ENTRY: u64 = 1_024;

/// What was sent without receipt, oldest first.
#[derive(Debug, Default)]
pub struct Outstanding {
    sent: RefCell<VecDeque<Sent>>,
    bytes: Cell<u64>,
    sent_total: Cell<u64>,
    received_total: Cell<u64>,
    /// Something was sent or received.
    changed: Notify,
}

/// Events of one generation, sent one after the other.
#[derive(Debug)]
struct Sent {
    generation: u64,
    events: u64,
    bytes: u64,
}

impl Outstanding {
    /// Notes that `count` events of `generation` were sent.
    pub fn sent(&self, generation: u64, count: u64, bytes: usize) {
        let (mut sent, bytes) = (self.sent.borrow_mut(), bytes as u64);
        self.bytes.set(self.bytes.get() + bytes);
        match sent.back_mut() {
            Some(last) if last.generation == generation && last.events < EVENTS_PER_ENTRY => {
                last.events += count;
                last.bytes += bytes;
            }
            _ => sent.push_back(Sent { generation, events: count, bytes }),
        }
        self.sent_total.set(self.sent_total.get() + count);
    }

    /// Takes a cumulative receipt; `delivered` is told how many events of which generation it covers.
    ///
    /// # Errors
    /// `malformed` when the receipt covers more than was sent, or less than the one before.
    pub fn receipt(&self, total: u64, mut delivered: impl FnMut(u64, u64)) -> Result<(), Refusal> {
        let (before, sent_total) = (self.received_total.get(), self.sent_total.get());
        if total < before || total > sent_total {
            let message = format!("a receipt for {total} events, where {sent_total} were sent and {before} received");
            return Err(Refusal::new(Code::Malformed, message));
        }
        let mut covered = total - before;
        let mut sent = self.sent.borrow_mut();
        while covered > 0
            && let Some(first) = sent.front_mut()
        {
            let part = covered.min(first.events);
            delivered(first.generation, part);
            // A part of an entry counts its share of the bytes.
            let bytes = first.bytes * part / first.events;
            self.bytes.set(self.bytes.get() - bytes);
            first.bytes -= bytes;
            first.events -= part;
            covered -= part;
            if first.events == 0 {
                sent.pop_front();
            }
        }
        self.received_total.set(total);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Events sent without receipt.
    pub fn events(&self) -> u64 {
        self.sent_total.get() - self.received_total.get()
    }

    /// Takes what will never be received any more: (generation, events).
    pub fn drain(&self) -> Vec<(u64, u64)> {
        self.received_total.set(self.sent_total.get());
        self.bytes.set(0);
        self.sent.borrow_mut().drain(..).map(|entry| (entry.generation, entry.events)).collect()
    }

    /// Waits until the outbox is empty and everything sent was received.
    pub async fn settled(&self, outbox: &Outbox) {
        self.until(|| outbox.depth().1 == 0 && self.events() == 0).await;
    }

    /// Waits until more may be sent.
    async fn room(&self) {
        self.until(|| self.events() < UNRECEIPTED_EVENTS_MAX && self.bytes.get() < UNRECEIPTED_BYTES_MAX).await;
    }

    async fn until(&self, condition: impl Fn() -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if condition() {
                return;
            }
            changed.await;
        }
    }
}

/// Sends what comes into the outbox, until the session ends.
pub async fn write(local: Rc<Local>, connection: Connection, seat: Seat, outstanding: Rc<Outstanding>) {
    // Outside of the work, so that what was taken is not forgotten when the session ends in the middle.
    let mut entries = Vec::new();
    let work = async {
        let mut writer: Option<Writer> = None;
        loop {
            outstanding.room().await;
            if !seat.outbox.take(WRITE_BYTES, &mut entries) {
                seat.outbox.wait().await;
                continue;
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                // The first delivery opens the stream: a session that never gets one never pays for it.
                None => match connection.open_uni().await {
                    Ok(stream) => writer.insert(Writer::new(stream, seat.outbox.clone())),
                    Err(_) => return,
                },
            };
            for entry in entries.drain(..) {
                writer.encode(&local, &outstanding, entry);
            }
            if writer.send().await.is_err() {
                return end_stopped(&connection, &seat, "delivery");
            }
            outstanding.changed.notify_waiters();
        }
    };
    tokio::select! {
        biased;
        _ = seat.ending.reason() => {}
        () = work => {}
    }
    for entry in entries {
        gone(&local, seat.outbox.whose(), &entry, Term::Lost);
    }
}

/// Ends a session whose client reads a stream of the router's no more, while the connection still stands: nothing on it
/// could ever reach the client, and publishers must not wait for that.
pub fn end_stopped(connection: &Connection, seat: &Seat, stream: &str) {
    if connection.close_reason().is_none() {
        let message = format!("the client stopped the {stream} stream, which lives as long as the session");
        seat.ending.set(Refusal::new(Code::OutOfOrder, message));
    }
}

/// Encodes deliveries for one session.
struct Writer {
    stream: SendStream,
    outbox: Rc<Outbox>,
    announced: Announced,
    /// Headers, names and small events that come before the next shared chunk.
    head: Vec<u8>,
    chunks: Vec<Bytes>,
}

impl Writer {
    fn new(stream: SendStream, outbox: Rc<Outbox>) -> Self {
        Self { stream, outbox, announced: Announced::default(), head: Vec::new(), chunks: Vec::new() }
    }

    /// Appends one delivery to what is sent next, and notes it as sent.
    fn encode(&mut self, local: &Local, outstanding: &Outstanding, delivery: Delivery) {
        for name in delivery.names.as_slice().iter().chain(&delivery.origin.source) {
            if self.announced.is_news(name) {
                write_name(&mut self.head, name.reference, &name.text);
            }
        }
        let generation = delivery.origin.generation;
        if !delivery.expires {
            outstanding.sent(generation, u64::from(delivery.count), delivery.events.len());
            return self.frame(local, &delivery, delivery.events.clone(), delivery.seq, delivery.count);
        }
        let waited_ms = local.shared.now_ms().saturating_sub(delivery.origin.received_ms);
        let (outbox, seq) = (self.outbox.clone(), |index: u32| delivery.seq + u64::from(index));
        let emit = |events: Bytes, first, count| {
            outstanding.sent(generation, u64::from(count), events.len());
            self.frame(local, &delivery, events, seq(first), count);
        };
        let expired = split_expired(&delivery, waited_ms, emit, |event, index| {
            if delivery.origin.traced.is_some() {
                hops::delivered(local, &delivery, (event, seq(index)), outbox.whose(), Term::CopiesExpired);
            }
        });
        local.ledger.settle(generation, Term::CopiesExpired, u64::from(expired));
    }

    fn frame(&mut self, local: &Local, delivery: &Delivery, events: Bytes, seq: u64, count: u32) {
        let origin = &delivery.origin;
        let here = Elsewhere { router: local.shared.origin, epoch: local.shared.epoch, generation: origin.generation };
        let published = origin.elsewhere.unwrap_or(here);
        let stamp = Stamp {
            origin: published.router,
            epoch: published.epoch,
            shard: origin.shard,
            source_ref: origin.source.as_ref().map_or(0, |name| name.reference),
            subscription: delivery.subscription,
            count,
            seq,
            time_ns: origin.time_ns,
            generation: published.generation,
        };
        if origin.traced.is_some() {
            hops::delivered(local, delivery, (&events, seq), self.outbox.whose(), Term::Delivered);
        }
        write_deliver_head(&mut self.head, &stamp, events.len());
        if events.len() < COPY_BELOW_BYTES {
            self.head.extend_from_slice(&events);
        } else {
            self.chunks.push(Bytes::from(std::mem::take(&mut self.head)));
            self.chunks.push(events);
        }
    }

    async fn send(&mut self) -> Result<(), myelin_transport::WriteError> {
        if !self.head.is_empty() {
            self.chunks.push(Bytes::from(std::mem::take(&mut self.head)));
        }
        let written = self.stream.write_chunks(&mut self.chunks).await;
        self.chunks.clear();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_settle_generations_in_the_order_of_sending() {
        let outstanding = Outstanding::default();
        for (generation, count) in [(1, 5), (1, 5), (2, 10)] {
            outstanding.sent(generation, count, 10);
        }
        let settled = RefCell::new(Vec::new());
        let receipt =
            |total| outstanding.receipt(total, |generation, count| settled.borrow_mut().push((generation, count)));
        receipt(7).expect("within what was sent");
        receipt(12).expect("within what was sent");
        assert_eq!(*settled.borrow(), [(1, 7), (1, 3), (2, 2)]);
        assert_eq!(receipt(11).map_err(|refusal| refusal.code), Err(Code::Malformed), "less than before");
        assert_eq!(receipt(21).map_err(|refusal| refusal.code), Err(Code::Malformed), "more than was sent");
        assert_eq!((outstanding.events(), outstanding.bytes.get()), (8, 8));
    }
}
