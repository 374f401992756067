//! An event that was delivered.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use myelin_wire::event::{EventSpan, FLAG_REQUEST};
use myelin_wire::{Attr, Attrs, Stamp, attrs};

/// An event that was delivered. Cheap to clone: text and bytes are shared.
#[derive(Clone)]
pub struct Delivered {
    topic: Arc<str>,
    publisher: Option<Arc<str>>,
    /// Attribute block, then payload: a slice of what was received.
    bytes: Bytes,
    attrs_len: u16,
    flags: u8,
    stamp: Stamp,
}

impl Delivered {
    /// The event at `span` of `received`; `stamp` has the event's own seq.
    pub(crate) fn new(
        received: &Bytes,
        span: &EventSpan,
        topic: Arc<str>,
        publisher: Option<Arc<str>>,
        stamp: Stamp,
    ) -> Self {
        let range = span.range();
        let bytes = received.slice(range.start + myelin_wire::event::HEAD_BYTES..range.end);
        Self { topic, publisher, bytes, attrs_len: span.head.attrs_len, flags: span.head.flags, stamp }
    }

    /// The topic that it was published to.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic, shared with other events of it.
    #[must_use]
    pub fn shared_topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.attrs_len)..]
    }

    /// The payload without a copy. It keeps the buffer alive that it was received in, of 64 KiB or more: copy what is
    /// to be kept for long.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        self.bytes.slice(usize::from(self.attrs_len)..)
    }

    /// The attribute block.
    #[must_use]
    pub fn attrs(&self) -> Attrs<'_> {
        Attrs::new(&self.bytes[..usize::from(self.attrs_len)])
    }

    /// The headers in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let header = |attr: Attr<'_>| attr.tag == attrs::HEADER;
        self.attrs().iter().filter(move |attr| header(*attr)).filter_map(|attr| Some((attr.name, attr.text()?)))
    }

    /// The first header called `name`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.attrs().header(name)
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.attrs().own(attrs::KEY)
    }

    /// CloudEvents `type`.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.attrs().text(attrs::TYPE)
    }

    /// Media type of the payload.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.attrs().text(attrs::CONTENT_TYPE)
    }

    /// Schema of the payload.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.attrs().text(attrs::SCHEMA)
    }

    /// W3C `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.attrs().text(attrs::TRACEPARENT)
    }

    /// What was left of the time to live when it was delivered, in milliseconds.
    #[must_use]
    pub fn ttl_ms(&self) -> Option<u32> {
        self.attrs().ttl_ms()
    }

    /// The topic that an answer is to be published to; [`Client::reply`](crate::Client::reply) does it.
    #[must_use]
    pub fn reply_to(&self) -> Option<&str> {
        self.attrs().text(attrs::REPLY_TO)
    }

    /// What an answer repeats.
    #[must_use]
    pub fn correlation(&self) -> Option<&[u8]> {
        self.attrs().own(attrs::CORRELATION)
    }

    /// Whether the publisher waits for an answer.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.flags & FLAG_REQUEST != 0
    }

    /// The id: the publisher's, or derived from where and when the event was taken. The same at all subscribers.
    #[must_use]
    pub fn id(&self) -> Cow<'_, str> {
        match self.attrs().text(attrs::ID) {
            Some(id) => Cow::Borrowed(id),
            None => Cow::Owned(self.stamp.event_id(0)),
        }
    }

    /// CloudEvents `source`: the publisher's own, else its identity. `None` when the router made the event.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.attrs().text(attrs::SOURCE).or_else(|| self.publisher())
    }

    /// The verified identity of the publisher. `None` when the router made the event.
    #[must_use]
    pub fn publisher(&self) -> Option<&str> {
        self.publisher.as_deref()
    }

    /// When it happened, in Unix nanoseconds: the publisher's word, else when the router took it.
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        self.attrs().time_ns().unwrap_or(self.stamp.time_ns)
    }

    /// The generation of filters that judged it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.stamp.generation
    }

    /// Its sequence number at its origin. Gaps are no error: other events go to others.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.stamp.seq
    }

    /// The stamp of its delivery, with the event's own `seq`.
    #[must_use]
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Bytes that it holds in a queue: attributes and payload.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for Delivered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = out.debug_struct("Delivered");
        shown.field("topic", &self.topic).field("id", &self.id());
        shown.field("payload_bytes", &self.payload().len()).finish_non_exhaustive()
    }
}
