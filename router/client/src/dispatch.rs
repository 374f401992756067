//! The delivery stream: from bytes to the queues of subscriptions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use hashbrown::HashMap;
use myelin_wire::event::EventSpan;
use myelin_wire::stream::{DataDecoder, Item};
use myelin_wire::{Code, FrameType, Stamp};

use crate::delivered::Delivered;
use crate::error::ClientError;
use crate::receipts::Receipts;
use crate::registry::Sink;
use crate::shared::Shared;
use crate::stats::add;

/// Names that a router may have defined at once on a delivery stream: 32 workers with all references of theirs in use.
const NAMES_MAX: usize = 32 * 65_536;

/// Cuts the delivery stream of one session into events and hands them to their subscriptions.
pub(crate) struct Dispatcher<'a> {
    shared: &'a Shared,
    receipts: &'a Receipts,
    decoder: DataDecoder,
    names: HashMap<u32, Name>,
    frame: Frame,
    /// Events that were found in what was received last.
    found: Vec<Found>,
    /// Events in a row for the same targets.
    run: Run,
}

/// What a reference means, and who wants events of that topic.
struct Name {
    text: Arc<str>,
    targets: Option<Targets>,
}

#[derive(Clone)]
struct Targets {
    sinks: Arc<[Sink]>,
    /// The version of the registry that they hold for.
    version: u64,
}

/// The DELIVER frame that is being read.
#[derive(Default)]
struct Frame {
    /// With the seq of the next event.
    stamp: Stamp,
    publisher: Option<Arc<str>>,
    group: Option<Targets>,
}

struct Found {
    span: EventSpan,
    topic: Arc<str>,
    publisher: Option<Arc<str>>,
    stamp: Stamp,
    sinks: Arc<[Sink]>,
}

#[derive(Default)]
struct Run {
    sinks: Option<Arc<[Sink]>>,
    events: VecDeque<Delivered>,
    bytes: u64,
}

impl<'a> Dispatcher<'a> {
    /// At the beginning of a delivery stream whose events have a `len` of at most `event_len_max`.
    pub(crate) fn new(shared: &'a Shared, receipts: &'a Receipts, event_len_max: u32) -> Self {
        Self {
            shared,
            receipts,
            decoder: DataDecoder::new(FrameType::Deliver, event_len_max),
            names: HashMap::new(),
            frame: Frame::default(),
            found: Vec::new(),
            run: Run::default(),
        }
    }

    /// Adds bytes of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// Hands over all events that are there, waiting where a subscription is full.
    ///
    /// # Errors
    /// When the router broke the layout. What came before the fault is handed over.
    pub(crate) async fn dispatch(&mut self) -> Result<(), ClientError> {
        let parsed = self.parse();
        let received = self.decoder.take();
        let mut found = std::mem::take(&mut self.found);
        for one in found.drain(..) {
            self.add(&received, one).await;
        }
        self.found = found;
        self.hand_over().await;
        parsed
    }

    /// Whether the stream may end here.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.decoder.is_at_boundary()
    }

    /// Finds the events in what was received. References are resolved now: they may change their meaning later on.
    fn parse(&mut self) -> Result<(), ClientError> {
        while let Some(item) = self.decoder.poll().map_err(ClientError::Protocol)? {
            match item {
                Item::Name { reference, name } => {
                    let text = self.decoder.buffer().get(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
                    let text = text.ok_or_else(|| malformed(format!("NAME {reference} is not UTF-8")))?;
                    let text = Arc::from(text);
                    self.define(reference, text)?;
                }
                Item::Stamp(stamp) => self.begin_frame(stamp)?,
                Item::Event(span) => self.find(span)?,
                Item::Oversized(_) => {
                    self.frame.stamp.seq += 1;
                    add(&self.shared.counters.oversized, 1);
                    // It was an event of the stream: the router waits for its receipt.
                    self.took(1, 0);
                }
            }
        }
        Ok(())
    }

    fn define(&mut self, reference: u32, text: Arc<str>) -> Result<(), ClientError> {
        if reference == 0 {
            return Err(malformed("a NAME defines ref 0, which means the router itself".to_owned()));
        }
        if self.names.len() >= NAMES_MAX && !self.names.contains_key(&reference) {
            return Err(malformed(format!("more than {NAMES_MAX} names are defined at once")));
        }
        self.names.insert(reference, Name { text, targets: None });
        Ok(())
    }

    fn begin_frame(&mut self, stamp: Stamp) -> Result<(), ClientError> {
        let publisher = match stamp.source_ref {
            0 => None,
            reference => {
                let name = self.names.get(&reference).ok_or_else(|| undefined("source-ref", reference))?;
                Some(name.text.clone())
            }
        };
        self.frame = Frame { stamp, publisher, group: None };
        Ok(())
    }

    fn find(&mut self, span: EventSpan) -> Result<(), ClientError> {
        let reference = span.head.topic_ref;
        let registry = &self.shared.registry;
        // Before the targets: a change in between makes them be looked up once more.
        let version = registry.version();
        let frame = &mut self.frame;
        let name = self.names.get_mut(&reference).ok_or_else(|| undefined("topic-ref", reference))?;
        let (cached, subscription) = match frame.stamp.subscription {
            0 => (&mut name.targets, None),
            id => (&mut frame.group, Some(id)),
        };
        let sinks = match cached {
            Some(targets) if targets.version == version => targets.sinks.clone(),
            _ => {
                let sinks = match subscription {
                    None => registry.plain_targets(&name.text),
                    Some(id) => registry.group_targets(id),
                };
                cached.insert(Targets { sinks, version }).sinks.clone()
            }
        };
        let (topic, publisher, stamp) = (name.text.clone(), frame.publisher.clone(), frame.stamp);
        frame.stamp.seq = frame.stamp.seq.wrapping_add(1);
        self.found.push(Found { span, topic, publisher, stamp, sinks });
        Ok(())
    }

    async fn add(&mut self, received: &Bytes, found: Found) {
        let Found { span, topic, publisher, stamp, sinks } = found;
        if !self.run.sinks.as_ref().is_some_and(|running| Arc::ptr_eq(running, &sinks)) {
            self.hand_over().await;
            self.run.sinks = Some(sinks);
        }
        self.run.bytes += span.head.total_bytes() as u64;
        self.run.events.push_back(Delivered::new(received, &span, topic, publisher, stamp));
    }

    /// Puts the run into its queues, and only then counts it as taken over.
    async fn hand_over(&mut self) {
        let Some(sinks) = self.run.sinks.take() else { return };
        let (events, bytes) = (self.run.events.len() as u64, std::mem::take(&mut self.run.bytes));
        match sinks.split_last() {
            None => {
                add(&self.shared.counters.unclaimed, events);
                self.run.events.clear();
            }
            Some((last, others)) => {
                for sink in others {
                    let mut copies = self.run.events.clone();
                    offer(sink, &mut copies).await;
                }
                offer(last, &mut self.run.events).await;
            }
        }
        self.took(events, bytes);
    }

    fn took(&self, events: u64, bytes: u64) {
        self.shared.counters.delivered.fetch_add(events, Relaxed);
        self.shared.counters.delivered_bytes.fetch_add(bytes, Relaxed);
        if self.receipts.took(events, bytes) {
            self.shared.control.notify_one();
        }
    }
}

async fn offer(sink: &Sink, events: &mut VecDeque<Delivered>) {
    match sink {
        Sink::Queue(queue) => queue.push_all(events).await,
        Sink::Replies(replies) => events.drain(..).for_each(|event| replies.resolve(event)),
    }
}

fn malformed(message: String) -> ClientError {
    ClientError::protocol(Code::Malformed, message)
}

#[cold]
fn undefined(what: &str, reference: u32) -> ClientError {
    malformed(format!("{what} {reference} was not defined by a NAME"))
}
