//! An event to be published.

use std::time::Duration;

use myelin_wire::attrs::{self, AttrsBuilder};
use myelin_wire::{Attr, Code, Limits, Refusal};

use crate::delivered::Delivered;

/// An event to be published. It borrows topic and payload: publishing copies them once, into the outgoing buffer.
///
/// Without attributes it costs no allocation. Attributes that are set twice are refused when it is published.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    topic: &'a str,
    payload: &'a [u8],
    attrs: AttrsBuilder,
    request: bool,
    /// A name or value that is longer than the layout can say.
    too_long: bool,
}

impl<'a> Event<'a> {
    /// An event with `payload` for `topic`: bytes, text, `Vec<u8>`, `Bytes`, anything that is bytes.
    pub fn new(topic: &'a str, payload: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { topic, payload: payload.as_ref(), attrs: AttrsBuilder::new(), request: false, too_long: false }
    }

    /// The answer to `request`: for its reply-to topic, with its correlation. `None` when it wants no answer.
    pub fn reply(request: &'a Delivered, payload: &'a (impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        let event = Self::new(request.reply_to()?, payload);
        Some(match request.correlation() {
            Some(correlation) => event.correlation(correlation),
            None => event,
        })
    }

    /// Adds a header. Names may repeat and keep their order; they are compared byte by byte.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.too_long |= name.len() > usize::from(u8::MAX) || value.len() > usize::from(u16::MAX);
        self.attrs.header(name, value);
        self
    }

    /// The key that orders and partitions: events of one publisher with the same key stay in order. At most 255 bytes.
    #[must_use]
    pub fn key(self, key: impl AsRef<[u8]>) -> Self {
        self.own(attrs::KEY, key.as_ref())
    }

    /// How long the event is of use, counted from when it is written. Rounded up to milliseconds, at most 49 days.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        let ttl_ms = u32::try_from(ttl.as_micros().div_ceil(1000)).unwrap_or(u32::MAX);
        self.own(attrs::TTL, &ttl_ms.to_le_bytes())
    }

    /// The event's id, instead of the one that is derived from its place.
    #[must_use]
    pub fn id(self, id: &str) -> Self {
        self.own(attrs::ID, id.as_bytes())
    }

    /// CloudEvents `source`, instead of the publisher's identity.
    #[must_use]
    pub fn source(self, source: &str) -> Self {
        self.own(attrs::SOURCE, source.as_bytes())
    }

    /// CloudEvents `type`.
    #[must_use]
    pub fn event_type(self, event_type: &str) -> Self {
        self.own(attrs::TYPE, event_type.as_bytes())
    }

    /// When it happened, in Unix nanoseconds, instead of when the router took it.
    #[must_use]
    pub fn time_ns(self, time_ns: u64) -> Self {
        self.own(attrs::TIME, &time_ns.to_le_bytes())
    }

    /// Media type of the payload.
    #[must_use]
    pub fn content_type(self, content_type: &str) -> Self {
        self.own(attrs::CONTENT_TYPE, content_type.as_bytes())
    }

    /// Schema of the payload: `subject:version`, or an id.
    #[must_use]
    pub fn schema(self, schema: &str) -> Self {
        self.own(attrs::SCHEMA, schema.as_bytes())
    }

    /// W3C `traceparent`.
    #[must_use]
    pub fn traceparent(self, traceparent: &str) -> Self {
        self.own(attrs::TRACEPARENT, traceparent.as_bytes())
    }

    /// The topic to which an answer is to be published. [`Client::request`](crate::Client::request) sets its own.
    #[must_use]
    pub fn reply_to(self, topic: &str) -> Self {
        self.own(attrs::REPLY_TO, topic.as_bytes())
    }

    /// What the answer repeats.
    #[must_use]
    pub fn correlation(self, correlation: impl AsRef<[u8]>) -> Self {
        self.own(attrs::CORRELATION, correlation.as_ref())
    }

    /// Adds a copy of an attribute of another event, for forwarding.
    #[must_use]
    pub fn attr(mut self, attr: &Attr<'_>) -> Self {
        self.too_long |= attr.name.len() > usize::from(u8::MAX) || attr.value.len() > usize::from(u16::MAX);
        self.attrs.attr(attr);
        self
    }

    /// Asks the router to say `no-responder` when no subscription matches.
    #[must_use]
    pub fn request(mut self) -> Self {
        self.request = true;
        self
    }

    pub(crate) fn topic(&self) -> &'a str {
        self.topic
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        self.payload
    }

    pub(crate) fn attrs(&self) -> &[u8] {
        self.attrs.as_bytes()
    }

    pub(crate) fn is_request(&self) -> bool {
        self.request
    }

    pub(crate) fn has_ttl(&self) -> bool {
        myelin_wire::Attrs::new(self.attrs.as_bytes()).ttl_ms().is_some()
    }

    /// Checks what the router would refuse, but for the topic.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        let (payload_len, attrs_len) = (self.payload.len(), self.attrs().len());
        if payload_len > limits.payload_bytes as usize {
            let message = format!("the payload has {payload_len} bytes; the router takes {}", limits.payload_bytes);
            return Err(Refusal::new(Code::PayloadTooLarge, message));
        }
        if attrs_len == 0 {
            return Ok(());
        }
        if self.too_long || attrs_len > usize::from(limits.attributes_bytes) {
            let message = format!("the attributes are over the router's {} bytes", limits.attributes_bytes);
            return Err(Refusal::new(Code::InvalidAttributes, message));
        }
        attrs::validate(self.attrs(), usize::from(limits.headers))
            .map_err(|error| Refusal::new(Code::InvalidAttributes, error.to_string()))
    }

    fn own(mut self, tag: u8, value: &[u8]) -> Self {
        self.too_long |= value.len() > attrs::OWN_VALUE_BYTES_MAX;
        self.attrs.own(tag, value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(event: &Event<'_>) -> Option<Code> {
        event.check(&Limits::default()).err().map(|refusal| refusal.code)
    }

    #[test]
    fn what_the_router_would_refuse_is_refused_here() {
        assert_eq!(fault(&Event::new("a", "b").key("k").header("h", "v").ttl(Duration::from_millis(5))), None);
        assert_eq!(fault(&Event::new("a", &vec![0; 1024 * 1024 + 1])), Some(Code::PayloadTooLarge));
        assert_eq!(fault(&Event::new("a", "b").key("k").key("k")), Some(Code::InvalidAttributes));
        assert_eq!(fault(&Event::new("a", "b").key([0; 256])), Some(Code::InvalidAttributes));
        assert_eq!(fault(&Event::new("a", "b").header(&"n".repeat(256), "")), Some(Code::InvalidAttributes));
        assert_eq!(fault(&Event::new("a", "b").header("n", &"v".repeat(65_536))), Some(Code::InvalidAttributes));
    }

    #[test]
    fn a_ttl_below_a_millisecond_is_not_zero() {
        let event = Event::new("a", "b").ttl(Duration::from_micros(1));
        assert_eq!(myelin_wire::Attrs::new(event.attrs()).ttl_ms(), Some(1));
    }
}
