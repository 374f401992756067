//! The arena: a batch of events as one flat run of bytes.
//!
//! `u32 count | u32 0`, then for each event an entry of 32 bytes, then the heap that the entries point into. Offsets
//! count from the arena's first byte. A filter's output has the same layout.
//!
//! | offset in the entry | field |
//! |---|---|
//! | 0 | `topic-off u32` |
//! | 4 | `topic-len u16` |
//! | 6 | `flags u16`: bit 0 the payload is a prefix |
//! | 8 | `attrs-off u32` |
//! | 12 | `attrs-len u32` |
//! | 16 | `payload-off u32` |
//! | 20 | `payload-len u32` |
//! | 24 | `payload-total u32`: the whole payload's length, where only a prefix or nothing is here |
//! | 28 | `identity-off u32`: `u16 len`, then the publisher's identity; 0 = not given |

use crate::bytes::{u16_at, u32_at};
use alloc::vec::Vec;
use core::str;

/// Bytes before the first entry.
pub const HEADER_BYTES: usize = 8;
/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 32;
/// Flag: the arena holds only the beginning of the payload.
pub const FLAG_PREFIX: u16 = 1;

/// What is wrong with an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArenaError {
    /// The header or the table of entries is cut, or the header's second word is not zero.
    Table,
    /// An entry points outside the arena.
    OutOfBounds,
    /// A topic or an identity is not UTF-8.
    NotUtf8,
}

impl core::fmt::Display for ArenaError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Table => "the arena's table of entries is cut or malformed",
            Self::OutOfBounds => "an entry points outside the arena",
            Self::NotUtf8 => "a topic or an identity is not UTF-8",
        })
    }
}

impl core::error::Error for ArenaError {}

/// One event of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The event's topic. Empty in an output entry that keeps the topic.
    pub topic: &'a str,
    /// The attribute block, not validated.
    pub attrs: &'a [u8],
    /// The payload, or as much of it as was asked for.
    pub payload: &'a [u8],
    /// Length of the whole payload in bytes.
    pub payload_total: u32,
    /// The publisher's identity, where the filter asked for it.
    pub identity: Option<&'a str>,
}

/// A view of an arena whose table is known to be whole.
#[derive(Clone, Copy, Debug)]
pub struct Arena<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Arena<'a> {
    /// Views `bytes` as an arena.
    ///
    /// # Errors
    /// [`ArenaError::Table`] when the header or the table of entries is not whole.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ArenaError> {
        let count = u32_at(bytes, 0).ok_or(ArenaError::Table)? as usize;
        let table = count.checked_mul(ENTRY_BYTES).and_then(|table| table.checked_add(HEADER_BYTES));
        if u32_at(bytes, 4) != Some(0) || table.is_none_or(|table| table > bytes.len()) {
            return Err(ArenaError::Table);
        }
        Ok(Self { bytes, count })
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The event at `index`, its bounds checked.
    ///
    /// # Errors
    /// When there is no such entry, it points outside the arena, or its text is not UTF-8.
    pub fn entry(&self, index: usize) -> Result<Entry<'a>, ArenaError> {
        self.read(index, &mut Texts::default())
    }

    /// All events in order. Neighbours that share a topic or an identity have its text checked once.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry<'a>, ArenaError>> + use<'a> {
        let (arena, mut known) = (*self, Texts::default());
        (0..arena.count).map(move |index| arena.read(index, &mut known))
    }

    fn read(&self, index: usize, known: &mut Texts<'a>) -> Result<Entry<'a>, ArenaError> {
        if index >= self.count {
            return Err(ArenaError::Table);
        }
        let at = HEADER_BYTES + index * ENTRY_BYTES;
        let word = |offset| u32_at(self.bytes, at + offset).ok_or(ArenaError::Table);
        let topic_len = u32::from(u16_at(self.bytes, at + 4).ok_or(ArenaError::Table)?);
        let identity = match word(28)? {
            0 => None,
            offset => {
                let len = u16_at(self.bytes, offset as usize).ok_or(ArenaError::OutOfBounds)?;
                let start = offset.checked_add(2).ok_or(ArenaError::OutOfBounds)?;
                Some(self.text(start, u32::from(len), &mut known.identity)?)
            }
        };
        Ok(Entry {
            topic: self.text(word(0)?, topic_len, &mut known.topic)?,
            attrs: self.slice(word(8)?, word(12)?)?,
            payload: self.slice(word(16)?, word(20)?)?,
            payload_total: word(24)?,
            identity,
        })
    }

    fn slice(&self, offset: u32, len: u32) -> Result<&'a [u8], ArenaError> {
        if len == 0 {
            return Ok(&[]);
        }
        let end = (offset as usize).checked_add(len as usize).ok_or(ArenaError::OutOfBounds)?;
        self.bytes.get(offset as usize..end).ok_or(ArenaError::OutOfBounds)
    }

    fn text(&self, offset: u32, len: u32, known: &mut Text<'a>) -> Result<&'a str, ArenaError> {
        if known.offset != offset || known.text.len() != len as usize {
            let text = str::from_utf8(self.slice(offset, len)?).map_err(|_| ArenaError::NotUtf8)?;
            *known = Text { offset, text };
        }
        Ok(known.text)
    }
}

/// The texts of the entry before.
#[derive(Default)]
struct Texts<'a> {
    topic: Text<'a>,
    identity: Text<'a>,
}

/// A text that was checked, and where it stands; at first the empty one.
#[derive(Default)]
struct Text<'a> {
    offset: u32,
    text: &'a str,
}

/// Writes an arena. The buffers are kept from batch to batch: in the steady state nothing is allocated.
///
/// Lengths are bounded by the caller (a batch is at most 64 events and 256 KiB of input, or one larger event), far
/// below what `u32` holds.
#[derive(Debug, Default)]
pub struct ArenaBuilder {
    bytes: Vec<u8>,
    capacity: usize,
    count: usize,
    last_topic: (usize, usize),
    last_identity: (usize, usize),
}

impl ArenaBuilder {
    /// An arena with room for `capacity` events.
    pub fn new(capacity: usize) -> Self {
        let mut builder = Self::default();
        builder.reset(capacity);
        builder
    }

    /// Empties the arena and makes room for `capacity` events, keeping its memory.
    pub fn reset(&mut self, capacity: usize) {
        self.bytes.clear();
        self.bytes.resize(HEADER_BYTES + capacity * ENTRY_BYTES, 0);
        (self.capacity, self.count) = (capacity, 0);
        (self.last_topic, self.last_identity) = ((0, 0), (0, 0));
    }

    /// How many events were pushed.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no event was pushed.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes written so far.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends an event. A topic or an identity equal to the one before is stored once.
    ///
    /// # Panics
    /// When more events are pushed than the arena has room for: a bug of the caller, who knows the count.
    pub fn push(&mut self, entry: &Entry<'_>) {
        assert!(self.count < self.capacity, "the arena has room for {} events", self.capacity);
        let topic = self.topic(entry.topic);
        let identity = entry.identity.map_or(0, |identity| self.identity(identity));
        let attrs = self.append(entry.attrs);
        let payload = self.append(entry.payload);
        let prefix = (entry.payload.len() as u64) < u64::from(entry.payload_total);
        let at = HEADER_BYTES + self.count * ENTRY_BYTES;
        let row = &mut self.bytes[at..at + ENTRY_BYTES];
        row[0..4].copy_from_slice(&word(topic).to_le_bytes());
        row[4..6].copy_from_slice(&short(entry.topic.len()).to_le_bytes());
        row[6..8].copy_from_slice(&(if prefix { FLAG_PREFIX } else { 0 }).to_le_bytes());
        row[8..12].copy_from_slice(&word(attrs).to_le_bytes());
        row[12..16].copy_from_slice(&word(entry.attrs.len()).to_le_bytes());
        row[16..20].copy_from_slice(&word(payload).to_le_bytes());
        row[20..24].copy_from_slice(&word(entry.payload.len()).to_le_bytes());
        row[24..28].copy_from_slice(&entry.payload_total.to_le_bytes());
        row[28..32].copy_from_slice(&word(identity).to_le_bytes());
        self.count += 1;
    }

    /// The finished arena. Room that was not used stays as zero bytes between table and heap.
    pub fn finish(&mut self) -> &[u8] {
        self.bytes[0..4].copy_from_slice(&word(self.count).to_le_bytes());
        &self.bytes
    }

    /// The finished arena as its own bytes.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.finish();
        self.bytes
    }

    fn append(&mut self, part: &[u8]) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(part);
        at
    }

    fn topic(&mut self, topic: &str) -> usize {
        let (at, len) = self.last_topic;
        if len != topic.len() || self.bytes[at..at + len] != *topic.as_bytes() {
            self.last_topic = (self.append(topic.as_bytes()), topic.len());
        }
        self.last_topic.0
    }

    fn identity(&mut self, identity: &str) -> usize {
        let (at, len) = self.last_identity;
        if at == 0 || len != identity.len() || self.bytes[at + 2..at + 2 + len] != *identity.as_bytes() {
            let at = self.append(&short(identity.len()).to_le_bytes());
            self.append(identity.as_bytes());
            self.last_identity = (at, identity.len());
        }
        self.last_identity.0
    }
}

/// A length as the arena stores it; batches are bounded far below 4 GiB.
fn word(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// The length of a text as the arena stores it. A longer text is cut, never wrapped into a short one that looks right.
fn short(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(topic: &'a str, payload: &'a [u8]) -> Entry<'a> {
        Entry { topic, attrs: b"\x05\x01\0k", payload, payload_total: 9, identity: Some("spiffe://m/service/a") }
    }

    #[test]
    fn reads_back_what_was_pushed() {
        let mut builder = ArenaBuilder::new(3);
        let events = [entry("a/b", b"123456789"), entry("a/b", b"1234"), Entry { identity: None, ..entry("c", b"") }];
        events.iter().for_each(|event| builder.push(event));
        let bytes = builder.into_bytes();
        let read: Result<Vec<_>, _> = Arena::new(&bytes).expect("table").entries().collect();
        assert_eq!(read.expect("entries"), events);
    }

    #[test]
    fn an_equal_topic_is_stored_once() {
        let mut builder = ArenaBuilder::new(2);
        builder.push(&entry("orders/eu", b""));
        let one = builder.bytes_len();
        builder.push(&entry("orders/eu", b""));
        assert_eq!(builder.bytes_len() - one, 4, "only the attributes are added");
    }

    #[test]
    fn no_cut_and_no_flipped_byte_panics() {
        let mut builder = ArenaBuilder::new(2);
        builder.push(&entry("a/b", b"payload"));
        builder.push(&entry("a/c", b"payload"));
        let bytes = builder.into_bytes();
        for cut in 0..bytes.len() {
            if let Ok(arena) = Arena::new(&bytes[..cut]) {
                assert!(arena.entries().count() <= arena.len());
            }
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut broken = bytes.clone();
                broken[at] = value;
                if let Ok(arena) = Arena::new(&broken) {
                    assert!(arena.entries().count() <= arena.len());
                }
            }
        }
    }

    #[test]
    fn a_count_larger_than_the_table_is_refused() {
        assert_eq!(Arena::new(&[255, 255, 255, 255, 0, 0, 0, 0]).err(), Some(ArenaError::Table));
        assert_eq!(Arena::new(&[0, 0, 0, 0, 1, 0, 0, 0]).err(), Some(ArenaError::Table));
        assert!(Arena::new(&[0; 8]).expect("empty").is_empty());
    }
}
