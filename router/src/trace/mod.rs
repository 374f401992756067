//! Events that are followed: those whose W3C `traceparent` says `sampled`. What happens to one at a router becomes
//! records in a ring of the worker that it happens at, bounded in number, bytes and rate; a worker shares it with
//! nobody and is asked for it between two batches. Events that are not sampled cost a comparison of a length.
//!
//! The attributes of an event travel as they came, so that nobody on the way can write the number of its own span into
//! them. Instead a span's number follows from what both ends know: the trace, the event, and where and what the span is.

mod ring;
mod watch;

pub use ring::{BYTES_MAX, Portion, RECORDS_MAX, RECORDS_PER_SECOND_MAX, Ring};
pub use watch::{Arrival, Watch};

use myelin_wire::Attrs;
use myelin_wire::attrs::TRACEPARENT;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// Characters of a `traceparent`; those of versions to come are longer.
const TRACEPARENT_BYTES: usize = 55;
/// Bytes of its attribute: tag, length, value.
const TRACEPARENT_ATTR_BYTES: usize = 1 + 2 + TRACEPARENT_BYTES;

/// The number of a trace: 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId([u8; 16]);

/// The number of a span: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId([u8; 8]);

/// What is no number of a trace or a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must have {0} lower-case hexadecimal digits, not all of them 0")]
pub struct IdError(usize);

macro_rules! id {
    ($name:ident, $bytes:literal) => {
        impl $name {
            /// Its bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            fn read(digits: &[u8]) -> Option<Self> {
                let mut bytes = [0; $bytes];
                let is_lower = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
                let read = is_lower && hex::decode_to_slice(digits, &mut bytes).is_ok();
                (read && bytes != [0; $bytes]).then_some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::read(text.as_bytes()).ok_or(IdError(2 * $bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(TraceId, 16);
id!(SpanId, 8);

impl TraceId {
    /// A new one, drawn at random.
    pub fn random() -> Self {
        Self(fastrand::u128(1..).to_be_bytes())
    }
}

impl SpanId {
    /// A new one, drawn at random.
    pub fn random() -> Self {
        Self(fastrand::u64(1..).to_be_bytes())
    }
}

/// What the `traceparent` of a sampled event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// The trace.
    pub trace: TraceId,
    /// The span of whoever published the event.
    pub parent: SpanId,
}

impl Sampled {
    /// Reads a `traceparent`; none where it does not say `sampled`, or is none by W3C Trace Context: whoever cannot read
    /// it goes on without.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let flag = *text.get(TRACEPARENT_BYTES - 1)?;
        // The common case first: there is one, and it says no.
        if hex_digit(flag)? & 1 == 0 {
            return None;
        }
        let is_version = hex_digit(text[0]).is_some() && hex_digit(text[1]).is_some() && &text[..2] != b"ff";
        // Version 00 ends here; those to come may go on after another dash.
        let end = text.get(TRACEPARENT_BYTES);
        let ends = if &text[..2] == b"00" { end.is_none() } else { end.is_none_or(|after| *after == b'-') };
        let is_split = [2, 35, 52].iter().all(|at| text[*at] == b'-');
        if !is_version || !ends || !is_split || hex_digit(text[53]).is_none() {
            return None;
        }
        Some(Self { trace: TraceId::read(&text[3..35])?, parent: SpanId::read(&text[36..52])? })
    }
}

impl fmt::Display for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", self.trace, self.parent)
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Whether attributes of that many bytes can hold a `traceparent`: what an event that is not traced pays.
#[inline]
pub fn has_room(attrs_len: u16) -> bool {
    usize::from(attrs_len) >= TRACEPARENT_ATTR_BYTES
}

/// What the attributes of a sampled event say; none for all others.
pub fn sampled(attrs: &[u8]) -> Option<Sampled> {
    if attrs.len() < TRACEPARENT_ATTR_BYTES {
        return None;
    }
    Sampled::parse(Attrs::new(attrs).own(TRACEPARENT)?)
}

/// Which event of a trace: its place in the stream of its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    /// The router at which it was published.
    pub router: u32,
    /// How often that had started.
    pub epoch: u32,
    /// The worker there.
    pub shard: u8,
    /// The number that this worker gave it.
    pub seq: u64,
}

impl fmt::Display for EventId {
    /// As subscribers derive it where the publisher has given none (docs/PROTOCOL.md, 6.3).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:08x}-{:02x}-{:016x}", self.router, self.epoch, self.shard, self.seq)
    }
}

/// What a span is: with the router that it is at, this makes its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanOf<'a> {
    /// An event at a router.
    Hop,
    /// Its copy to this neighbour.
    Link(&'a str),
    /// Its copy to this session of the router.
    Delivery(&'a str),
}

impl Sampled {
    /// The number of a span of this event at `router`, the same wherever it is computed.
    pub fn span(&self, event: EventId, router: &str, of: SpanOf<'_>) -> SpanId {
        let (kind, other) = match of {
            SpanOf::Hop => (0u8, ""),
            SpanOf::Link(to) => (1, to),
            SpanOf::Delivery(to) => (2, to),
        };
        let mut hash = Sha256::new();
        hash.update(self.trace.0);
        hash.update(self.parent.0);
        hash.update(event.router.to_le_bytes());
        hash.update(event.epoch.to_le_bytes());
        hash.update([event.shard, kind]);
        hash.update(event.seq.to_le_bytes());
        // No name holds a zero byte.
        hash.update(router.as_bytes());
        hash.update([0]);
        hash.update(other.as_bytes());
        first(&hash.finalize())
    }
}

impl SpanId {
    /// The number of the `index`th part of this span.
    pub fn part(&self, index: usize) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update((index as u64).to_le_bytes());
        first(&hash.finalize())
    }
}

fn first(hash: &[u8]) -> SpanId {
    let bytes = hash.first_chunk::<8>().copied().unwrap_or_default();
    // All zeros would be no number; one hash of 2^64 is.
    SpanId(if bytes == [0; 8] { [1; 8] } else { bytes })
}

/// What happened to a sampled event at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// The trace.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub trace_id: TraceId,
    /// The number of this span.
    #[schema(value_type = String, pattern = "^[0-9a-f]{16}$")]
    pub span_id: SpanId,
    /// The span that it belongs to: that of the publisher, of a hop, or of the copy that came by a link.
    #[schema(value_type = String, pattern = "^[0-9a-f]{16}$")]
    pub parent_id: SpanId,
    /// The router, as `SITE/ROUTER`.
    pub router: String,
    /// The event's topic there.
    pub topic: String,
    /// The event's id: the publisher's, or the one that subscribers derive; none where it has neither.
    #[serde(default)]
    pub event: Option<String>,
    /// When it began, Unix nanoseconds by the router's clock.
    pub begin_unix_ns: u64,
    /// How long it took in nanoseconds. Of a link or a delivery: how long the copy waited, from when the worker handed the
    /// event out until it was written to the connection.
    pub took_ns: u64,
    /// The event at this router.
    pub hop: Option<HopRecord>,
    /// A copy to a neighbour.
    pub link: Option<LinkRecord>,
    /// A copy to a session.
    pub delivery: Option<DeliveryRecord>,
}

/// An event at a router: from when its batch came in until it was handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HopRecord {
    /// The router that sent it here; none at its origin.
    pub from: Option<String>,
    /// Who published it.
    pub publisher: String,
    /// The generation that judged it here.
    pub generation: u64,
    /// What became of it here: `routed` (handed out), `passed-on` (to other routers only, unjudged), `unmatched` (nobody
    /// wants it), `refused` (by admission), or what a filter decided: `deny`, `dead-letter`, `drop`.
    pub outcome: String,
    /// Why, where it ended here.
    pub detail: String,
    /// Sessions of this router that get a copy each.
    pub subscribers: usize,
    /// Queue groups of which a member at this router gets a copy.
    pub groups: usize,
    /// The sites that copies go on to.
    pub sites: Vec<String>,
    /// What each binding said, in the order in which they were asked.
    pub verdicts: Vec<Verdict>,
}

/// What a binding said about an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// `ingress` or `egress`.
    pub stage: String,
    /// The binding.
    pub binding: String,
    /// Its module, `name@version`.
    pub module: String,
    /// The digest of its module, 64 hexadecimal digits.
    #[serde(default)]
    pub digest: String,
    /// `pass`, `deny`, `dead-letter`, `drop` or `redirect`.
    pub verdict: String,
    /// Why, where it ended the event.
    pub reason: String,
    /// Where it sends the event instead, or copies of it.
    pub targets: Vec<String>,
    /// It changed attributes or payload.
    pub changed: bool,
    /// It emitted further events.
    pub emitted: bool,
    /// The code of the fault, where its filter faulted.
    pub fault: Option<String>,
    /// After a fault the version before has judged.
    pub last_good: bool,
    /// When the filter was called, in nanoseconds after the record's beginning.
    #[serde(default)]
    pub began_ns: u64,
    /// How long the filter took for the whole batch, in nanoseconds: it is called once for all events of a batch.
    pub batch_took_ns: u64,
    /// Events of that batch.
    pub batch_events: usize,
}

/// A copy to a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkRecord {
    /// The neighbour, as `SITE/ROUTER`.
    pub to: String,
    /// How many links the copy has passed with this one.
    pub hops: u8,
    /// What became of it: `sent`, or why not: `shed` (it had to make room), `expired`, `lost` (the link has ended).
    #[serde(default = "sent")]
    pub outcome: String,
}

/// A copy to a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryRecord {
    /// Whose session it is, and from which address.
    pub session: String,
    /// The group membership that it is for; 0 = none.
    pub subscription: u32,
    /// What became of it: `sent`, or why not: `shed` (it had to make room), `expired`, `lost` (the session has ended).
    #[serde(default = "sent")]
    pub outcome: String,
}

/// What becomes of a copy as a rule.
pub const SENT: &str = "sent";

/// Routers of a version before tell of no other copies.
fn sent() -> String {
    SENT.to_owned()
}

impl Record {
    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let texts = |texts: &[String]| texts.iter().map(|text| text.len() + size_of::<String>()).sum::<usize>();
        let verdict = |verdict: &Verdict| {
            let Verdict { stage, binding, module, digest, verdict, reason, targets, fault, .. } = verdict;
            let named = [stage, binding, module, digest, verdict, reason].iter().map(|text| text.len()).sum::<usize>();
            size_of::<Verdict>() + named + texts(targets) + fault.as_ref().map_or(0, String::len)
        };
        let hop = self.hop.as_ref().map_or(0, |hop| {
            let HopRecord { from, publisher, outcome, detail, sites, verdicts, .. } = hop;
            let named = from.as_ref().map_or(0, String::len) + publisher.len() + outcome.len() + detail.len();
            named + texts(sites) + verdicts.iter().map(verdict).sum::<usize>()
        });
        let other = self.link.as_ref().map_or(0, |link| link.to.len() + link.outcome.len());
        let session = self.delivery.as_ref().map_or(0, |delivery| delivery.session.len() + delivery.outcome.len());
        let named = self.router.len() + self.topic.len() + self.event.as_ref().map_or(0, String::len);
        size_of::<Self>() + named + hop + other + session
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_wire::AttrsBuilder;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    pub(crate) fn record(trace: TraceId, topic: &str) -> Record {
        let span_id = SpanId::random();
        Record {
            trace_id: trace,
            span_id,
            parent_id: span_id,
            router: "s/r".into(),
            topic: topic.into(),
            event: None,
            begin_unix_ns: 1,
            took_ns: 1,
            hop: Some(HopRecord { verdicts: vec![Verdict::default()], ..HopRecord::default() }),
            link: None,
            delivery: None,
        }
    }

    #[test]
    fn a_traceparent_is_read_as_w3c_says_and_nothing_else_is_sampled() {
        let sampled = Sampled::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((sampled.trace.to_string(), sampled.parent.to_string()), (GOOD[3..35].into(), GOOD[36..52].into()));
        assert_eq!(sampled.to_string(), GOOD);
        for also in [GOOD.replace("00-4", "cc-4") + "-later", GOOD.replace("00-4", "01-4"), GOOD.replace("-01", "-03")]
        {
            assert_eq!(Sampled::parse(also.as_bytes()), Some(sampled), "{also}");
        }
        for bad in [
            GOOD.replace("-01", "-00"),
            GOOD.replace("-01", "-02"),
            GOOD.replace("-01", "-0g"),
            GOOD.replace("-01", "-x1"),
            GOOD.replace("00-4", "ff-4"),
            GOOD.replace("00-4", "0x-4"),
            GOOD.to_uppercase(),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("-00f0", "_00f0"),
            format!("{GOOD}-x"),
            GOOD[..54].to_owned(),
            String::new(),
        ] {
            assert_eq!(Sampled::parse(bad.as_bytes()), None, "{bad}");
        }
        for number in 0..=255u8 {
            let _ = Sampled::parse(&[number; 60]);
        }
    }

    #[test]
    fn attributes_without_room_are_not_looked_at() {
        let mut attrs = AttrsBuilder::new();
        attrs.own(TRACEPARENT, GOOD.as_bytes());
        let block = attrs.into_bytes();
        assert!(has_room(u16::try_from(block.len()).unwrap()) && sampled(&block).is_some());
        assert!(!has_room(u16::try_from(block.len() - 1).unwrap()));
        assert_eq!(sampled(&block[..block.len() - 1]), None);
    }

    #[test]
    fn numbers_of_spans_are_the_same_at_both_ends_and_differ_otherwise() {
        let sampled = Sampled::parse(GOOD.as_bytes()).unwrap();
        let event = EventId { router: 1, epoch: 2, shard: 3, seq: 4 };
        assert_eq!(event.to_string(), "00000001-00000002-03-0000000000000004");
        let link = sampled.span(event, "eu/r1", SpanOf::Link("us/r1"));
        assert_eq!(link.to_string(), sampled.span(event, "eu/r1", SpanOf::Link("us/r1")).to_string());
        let others = [
            sampled.span(event, "eu/r1", SpanOf::Hop),
            sampled.span(event, "eu/r1", SpanOf::Delivery("us/r1")),
            sampled.span(event, "us/r1", SpanOf::Link("eu/r1")),
            sampled.span(EventId { seq: 5, ..event }, "eu/r1", SpanOf::Link("us/r1")),
            sampled.span(EventId { shard: 4, ..event }, "eu/r1", SpanOf::Link("us/r1")),
            Sampled { parent: SpanId::random(), ..sampled }.span(event, "eu/r1", SpanOf::Link("us/r1")),
            link.part(0),
            link.part(1),
        ];
        assert!(others.iter().all(|other| *other != link));
        assert_eq!(others.iter().collect::<std::collections::BTreeSet<_>>().len(), others.len());
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let record = record(TraceId::random(), "a/b");
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        // Routers of a version before answer without what is new.
        let mut old = serde_json::to_value(&record).unwrap();
        old.as_object_mut().unwrap().remove("event");
        let verdict = old["hop"]["verdicts"][0].as_object_mut().unwrap();
        assert!(verdict.remove("digest").is_some() && verdict.remove("began_ns").is_some());
        assert_eq!(serde_json::from_value::<Record>(old).unwrap(), record);
        let link: LinkRecord = serde_json::from_str(r#"{"to": "s/r", "hops": 1}"#).unwrap();
        let delivery: DeliveryRecord = serde_json::from_str(r#"{"session": "s", "subscription": 0}"#).unwrap();
        assert_eq!((&*link.outcome, &*delivery.outcome), (SENT, SENT));
        assert!("xyz".parse::<TraceId>().is_err() && GOOD[3..35].to_uppercase().parse::<TraceId>().is_err());
    }
}
