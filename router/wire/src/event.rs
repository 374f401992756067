//! The bytes of an event, and the stamp of a batch of delivered events.
//!
//! `u32 len | u8 flags | u32 topic-ref | u16 attrs-len | attrs | payload`, where `len` counts what follows it. The
//! layout is the same towards the router and from it: a router patches the topic reference in the buffer it received
//! and hands the very bytes on.

use crate::refusal::{Code, Refusal};
use std::ops::Range;

/// Bytes of an event before its attribute block.
pub const HEAD_BYTES: usize = 11;
/// Bytes of the head that `len` counts.
pub const HEAD_AFTER_LEN: u32 = 7;
/// Offset of the topic reference from the event's first byte.
pub const TOPIC_REF_AT: usize = 5;
/// Flag: the attribute block holds a time to live.
pub const FLAG_TTL: u8 = 1;
/// Flag: the publisher waits for an answer, and wants to know when nobody is there to give one.
pub const FLAG_REQUEST: u8 = 2;

/// The fixed part of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHead {
    /// Bytes after the length field.
    pub len: u32,
    /// [`FLAG_TTL`] and [`FLAG_REQUEST`]; the other bits are zero.
    pub flags: u8,
    /// Which announced name is the topic.
    pub topic_ref: u32,
    /// Bytes of the attribute block.
    pub attrs_len: u16,
}

impl EventHead {
    /// Reads the head from the beginning of `bytes`; `None` when there are fewer than [`HEAD_BYTES`].
    ///
    /// # Errors
    /// `malformed` when the lengths contradict each other or a reserved flag is set.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Refusal> {
        let Some(&[a, b, c, d, flags, e, f, g, h, i, j]) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let head = Self {
            len: u32::from_le_bytes([a, b, c, d]),
            flags,
            topic_ref: u32::from_le_bytes([e, f, g, h]),
            attrs_len: u16::from_le_bytes([i, j]),
        };
        if head.len < HEAD_AFTER_LEN + u32::from(head.attrs_len) || flags & !(FLAG_TTL | FLAG_REQUEST) != 0 {
            return Err(malformed(&head));
        }
        Ok(Some(head))
    }

    /// The head as it stands on the wire.
    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let [a, b, c, d] = self.len.to_le_bytes();
        let [e, f, g, h] = self.topic_ref.to_le_bytes();
        let [i, j] = self.attrs_len.to_le_bytes();
        [a, b, c, d, self.flags, e, f, g, h, i, j]
    }

    /// Bytes of the whole event.
    pub fn total_bytes(&self) -> usize {
        4 + self.len as usize
    }

    /// Bytes of the payload.
    pub fn payload_len(&self) -> u32 {
        self.len - HEAD_AFTER_LEN - u32::from(self.attrs_len)
    }
}

#[cold]
fn malformed(head: &EventHead) -> Refusal {
    let EventHead { len, flags, attrs_len, .. } = head;
    Refusal::new(
        Code::Malformed,
        format!(
            "an event head with len {len}, flags {flags:#04x} and {attrs_len} bytes of attributes contradicts itself"
        ),
    )
}

/// A whole event within a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSpan {
    /// Offset of the event's first byte in the buffer.
    pub at: usize,
    /// Its head.
    pub head: EventHead,
}

impl EventSpan {
    /// Where the event stands in the buffer.
    pub fn range(&self) -> Range<usize> {
        self.at..self.at + self.head.total_bytes()
    }

    /// The attribute block.
    pub fn attrs<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        let at = self.at + HEAD_BYTES;
        &buffer[at..at + usize::from(self.head.attrs_len)]
    }

    /// The payload.
    pub fn payload<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        &buffer[self.at + HEAD_BYTES + usize::from(self.head.attrs_len)..self.range().end]
    }
}

/// Writes an event.
#[derive(Clone, Copy, Debug)]
pub struct EventBuilder<'a> {
    /// The announced reference of the topic.
    pub topic_ref: u32,
    /// The attribute block.
    pub attrs: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// Whether an answer is waited for.
    pub request: bool,
}

impl EventBuilder<'_> {
    /// Appends the event to `out`. Attributes over 65,535 bytes or a payload over 4 GiB do not fit the layout.
    ///
    /// # Errors
    /// `invalid-attributes` or `payload-too-large` when a length does not fit; nothing is appended then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let attrs_len = u16::try_from(self.attrs.len())
            .map_err(|_| Refusal::new(Code::InvalidAttributes, "the attribute block is over 65,535 bytes"))?;
        let len = u32::try_from(self.payload.len())
            .ok()
            .and_then(|len| len.checked_add(HEAD_AFTER_LEN + u32::from(attrs_len)))
            .ok_or_else(|| Refusal::new(Code::PayloadTooLarge, "the payload is over 4 GiB"))?;
        let has_ttl = attrs_len > 0 && myelin_arena::Attrs::new(self.attrs).ttl_ms().is_some();
        let flags = if has_ttl { FLAG_TTL } else { 0 } | if self.request { FLAG_REQUEST } else { 0 };
        out.reserve(HEAD_BYTES + self.attrs.len() + self.payload.len());
        out.extend_from_slice(&EventHead { len, flags, topic_ref: self.topic_ref, attrs_len }.to_bytes());
        out.extend_from_slice(self.attrs);
        out.extend_from_slice(self.payload);
        Ok(())
    }
}

/// Bytes of a [`Stamp`].
pub const STAMP_BYTES: usize = 48;

/// What the events of one DELIVER frame have in common. The n-th event of the frame (from 0) has `seq + n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the router at which the events were published.
    pub origin: u32,
    /// How often that router had started.
    pub epoch: u32,
    /// The worker of that router.
    pub shard: u8,
    /// Announced name of the publisher's identity; 0 when the router itself is the source.
    pub source_ref: u32,
    /// The subscription with a queue group that these events are for; 0 for plain subscriptions.
    pub subscription: u32,
    /// Events in the frame.
    pub count: u32,
    /// Sequence number of the first event at (origin, epoch, shard).
    pub seq: u64,
    /// Unix time of the batch at the origin, in nanoseconds.
    pub time_ns: u64,
    /// The generation that judged the events.
    pub generation: u64,
}

impl Stamp {
    /// The stamp as it stands on the wire.
    pub fn to_bytes(&self) -> [u8; STAMP_BYTES] {
        let mut out = [0; STAMP_BYTES];
        out[0..4].copy_from_slice(&self.origin.to_le_bytes());
        out[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        out[8] = self.shard;
        out[12..16].copy_from_slice(&self.source_ref.to_le_bytes());
        out[16..20].copy_from_slice(&self.subscription.to_le_bytes());
        out[20..24].copy_from_slice(&self.count.to_le_bytes());
        out[24..32].copy_from_slice(&self.seq.to_le_bytes());
        out[32..40].copy_from_slice(&self.time_ns.to_le_bytes());
        out[40..48].copy_from_slice(&self.generation.to_le_bytes());
        out
    }

    /// Reads a stamp from the beginning of `bytes`; `None` when there are fewer than [`STAMP_BYTES`].
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; STAMP_BYTES] = bytes.first_chunk()?;
        let word = |at: usize| bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
        let long = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        Some(Self {
            origin: word(0),
            epoch: word(4),
            shard: bytes[8],
            source_ref: word(12),
            subscription: word(16),
            count: word(20),
            seq: long(24),
            time_ns: long(32),
            generation: long(40),
        })
    }

    /// The id of the `index`-th event of the frame, for an event that carries none.
    pub fn event_id(&self, index: u32) -> String {
        let seq = self.seq.wrapping_add(u64::from(index));
        format!("{:08x}-{:08x}-{:02x}-{seq:016x}", self.origin, self.epoch, self.shard)
    }
}
