//! Fast batches: what a fast stream of a link consists of.
//!
//! `u32 len | stamp | u32 count | u64 time-ns | u32 source-ref | u16 names | names * (u32 ref, u16 len, text) | events`,
//! little-endian, where `len` counts what follows it. The events are laid out as `myelin-wire` does, one after the
//! other. A name says what a reference (of a topic in an event, or of the publisher's identity in `source-ref`) means
//! from here on, on this stream; references are the sender's, and 0 as the source means the origin itself.

use bytes::{Buf, Bytes, BytesMut};
use myelin_wire::event::{EventHead, EventSpan, HEAD_BYTES};
use myelin_wire::limits::NAME_BYTES_MAX;

use crate::limits::{BATCH_COUNT_MAX, BATCH_EVENTS_BYTES, BATCH_NAMES_BYTES_MAX, BATCH_NAMES_MAX};
use crate::stamp::{STAMP_BYTES_MAX, Stamp};
use crate::violation::{Violation, ViolationCode};

/// Bytes of a head between its stamp and its names.
const COMMON_BYTES: usize = 4 + 8 + 4 + 2;
/// Bytes of the length field.
const LEN_BYTES: usize = 4;
/// Room that is made in a decoder's buffer at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// What all events of a batch have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// Where it came from and where it goes.
    pub stamp: Stamp,
    /// Events in the batch, 1 or more.
    pub count: u32,
    /// Unix time of the batch at its origin, in nanoseconds; for people, nothing is ordered by it.
    pub time_ns: u64,
    /// Announced name of the publisher's identity; 0 when the origin itself is the source.
    pub source_ref: u32,
}

/// A name that a batch announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedName<T> {
    /// What stands for it from here on.
    pub reference: u32,
    /// The name: a topic or an identity.
    pub text: T,
}

/// A batch as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What its events have in common.
    pub head: BatchHead,
    /// The names that it announces; UTF-8, not otherwise checked.
    pub names: Vec<AnnouncedName<String>>,
    /// Its events, each whole; exactly as many as the head says.
    pub events: Bytes,
}

impl Batch {
    /// Where each event stands in [`events`](Self::events).
    pub fn spans(&self) -> impl Iterator<Item = EventSpan> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let head = EventHead::parse(self.events.get(at..)?).ok().flatten()?;
            let span = EventSpan { at, head };
            at = span.range().end;
            Some(span)
        })
    }
}

/// Appends what stands before the events of a batch whose events take `events_bytes`; they must follow.
///
/// # Errors
/// `too-many` or `frame-too-large` where the head, a name or the batch is over its limit, or the stamp's refusal;
/// nothing is appended then.
pub fn write_head(
    out: &mut Vec<u8>,
    head: &BatchHead,
    names: &[AnnouncedName<&str>],
    events_bytes: usize,
) -> Result<(), Violation> {
    let names_bytes: usize = names.iter().map(|name| 6 + name.text.len()).sum();
    check_count(head.count, events_bytes)?;
    check_names(names.len(), names_bytes)?;
    if let Some(long) = names.iter().find(|name| !(1..=NAME_BYTES_MAX).contains(&name.text.len())) {
        return Err(name_length(long.text.len()));
    }
    let len = head.stamp.encoded_bytes() + COMMON_BYTES + names_bytes + events_bytes;
    let len = u32::try_from(len).map_err(|_| too_large(len, u32::MAX as usize))?;
    let start = out.len();
    out.extend_from_slice(&len.to_le_bytes());
    if let Err(refused) = head.stamp.encode(out) {
        out.truncate(start);
        return Err(refused);
    }
    out.extend_from_slice(&head.count.to_le_bytes());
    out.extend_from_slice(&head.time_ns.to_le_bytes());
    out.extend_from_slice(&head.source_ref.to_le_bytes());
    out.extend_from_slice(&u16::try_from(names.len()).unwrap_or(u16::MAX).to_le_bytes());
    for name in names {
        out.extend_from_slice(&name.reference.to_le_bytes());
        out.extend_from_slice(&u16::try_from(name.text.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(name.text.as_bytes());
    }
    Ok(())
}

/// Cuts a fast stream into batches. Holds at most one batch beyond what was pushed last.
#[derive(Debug)]
pub struct BatchDecoder {
    buffer: BytesMut,
    event_len_max: u32,
    len_max: usize,
}

impl BatchDecoder {
    /// A decoder at the beginning of a stream whose events have a `len` of at most `event_len_max`
    /// ([`myelin_wire::Limits::delivered_len_max`]).
    pub fn new(event_len_max: u32) -> Self {
        let events = BATCH_EVENTS_BYTES + LEN_BYTES + event_len_max as usize;
        let len_max = STAMP_BYTES_MAX + COMMON_BYTES + BATCH_NAMES_BYTES_MAX + events;
        Self { buffer: BytesMut::new(), event_len_max, len_max }
    }

    /// Adds bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.buffer.capacity() - self.buffer.len() < bytes.len() {
            self.buffer.reserve(bytes.len().max(BUFFER_BYTES));
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the stream may end here.
    pub fn is_at_boundary(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole batch; `None` until more bytes come.
    ///
    /// # Errors
    /// Any refusal of the batch that stands next. The stream is then of no more use.
    pub fn poll(&mut self) -> Result<Option<Batch>, Violation> {
        let Some(len) = self.buffer.first_chunk() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        if len > self.len_max {
            return Err(too_large(len, self.len_max));
        }
        let whole = LEN_BYTES + len;
        if self.buffer.len() < whole {
            // The length was checked: a large event needs its room once, not piece by piece.
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        let mut body = self.buffer.split_to(whole).freeze();
        body.advance(LEN_BYTES);
        self.read(body).map(Some)
    }

    fn read(&self, mut body: Bytes) -> Result<Batch, Violation> {
        let (stamp, stamp_bytes) = Stamp::decode(&body)?;
        body.advance(stamp_bytes);
        if body.len() < COMMON_BYTES {
            return Err(cut_off());
        }
        let count = body.get_u32_le();
        let head = BatchHead { stamp, count, time_ns: body.get_u64_le(), source_ref: body.get_u32_le() };
        let names = read_names(&mut body)?;
        check_count(count, body.len())?;
        if head.stamp.seq.checked_add(u64::from(count)).is_none() {
            let message = format!("a batch of {count} events begins with number {}", head.stamp.seq);
            return Err(Violation::new(ViolationCode::Malformed, message));
        }
        self.check_events(&body, count)?;
        Ok(Batch { head, names, events: body })
    }

    /// Checks that `events` are `count` whole events, each within its limit.
    fn check_events(&self, events: &[u8], count: u32) -> Result<(), Violation> {
        let (mut at, mut seen) = (0, 0u32);
        while at < events.len() {
            let head = EventHead::parse(&events[at..])
                .map_err(|refusal| Violation::new(ViolationCode::Malformed, refusal.message))?
                .ok_or_else(cut_off)?;
            if head.len > self.event_len_max {
                return Err(too_large(head.len as usize, self.event_len_max as usize));
            }
            at += head.total_bytes();
            seen += 1;
        }
        if at != events.len() || seen != count {
            let message = format!("a batch of {count} events holds {seen} and ends {at} bytes into {}", events.len());
            return Err(Violation::new(ViolationCode::Malformed, message));
        }
        Ok(())
    }
}

fn read_names(body: &mut Bytes) -> Result<Vec<AnnouncedName<String>>, Violation> {
    let count = usize::from(body.get_u16_le());
    check_names(count, 0)?;
    let (mut names, mut total) = (Vec::with_capacity(count.min(body.len() / 7)), 0);
    for _ in 0..count {
        if body.len() < 6 {
            return Err(cut_off());
        }
        let (reference, len) = (body.get_u32_le(), usize::from(body.get_u16_le()));
        if !(1..=NAME_BYTES_MAX).contains(&len) {
            return Err(name_length(len));
        }
        if body.len() < len {
            return Err(cut_off());
        }
        total += 6 + len;
        check_names(count, total)?;
        let text = std::str::from_utf8(&body[..len])
            .map_err(|_| Violation::new(ViolationCode::Malformed, "a name of a batch is not UTF-8"))?;
        names.push(AnnouncedName { reference, text: text.to_owned() });
        body.advance(len);
    }
    Ok(names)
}

fn check_count(count: u32, events_bytes: usize) -> Result<(), Violation> {
    if count == 0 || count > BATCH_COUNT_MAX {
        let message = format!("a batch has {count} events; 1 to {BATCH_COUNT_MAX} are allowed");
        return Err(Violation::new(ViolationCode::TooMany, message));
    }
    if events_bytes < count as usize * HEAD_BYTES {
        return Err(cut_off());
    }
    Ok(())
}

fn check_names(count: usize, bytes: usize) -> Result<(), Violation> {
    if count > BATCH_NAMES_MAX || bytes > BATCH_NAMES_BYTES_MAX {
        let message = format!(
            "a batch announces {count} names in {bytes} bytes; the limits are {BATCH_NAMES_MAX} and \
             {BATCH_NAMES_BYTES_MAX}"
        );
        return Err(Violation::new(ViolationCode::TooMany, message));
    }
    Ok(())
}

#[cold]
fn name_length(len: usize) -> Violation {
    let message = format!("a name of a batch has {len} bytes; 1 to {NAME_BYTES_MAX} are allowed");
    Violation::new(ViolationCode::Malformed, message)
}

#[cold]
fn too_large(len: usize, limit: usize) -> Violation {
    let message = format!("a batch or an event of it has {len} bytes; the limit is {limit}");
    Violation::new(ViolationCode::FrameTooLarge, message)
}

#[cold]
fn cut_off() -> Violation {
    Violation::new(ViolationCode::Malformed, "a batch ends in the midst of something")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use myelin_wire::EventBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::ids::RouterNumber;
    use crate::site_set::SiteSet;
    use crate::stamp::{Grants, tests::stamps};

    const EVENT_LEN_MAX: u32 = 4_096;

    fn events(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for payload in payloads {
            EventBuilder { topic_ref: 9, attrs: &[], payload, request: false }.write(&mut out).unwrap();
        }
        out
    }

    fn encode(head: &BatchHead, names: &[(u32, String)], events: &[u8]) -> Vec<u8> {
        let names: Vec<_> =
            names.iter().map(|(reference, text)| AnnouncedName { reference: *reference, text: &**text }).collect();
        let mut out = Vec::new();
        write_head(&mut out, head, &names, events.len()).unwrap();
        out.extend_from_slice(events);
        out
    }

    fn plain_stamp() -> Stamp {
        Stamp {
            origin: RouterNumber(1),
            epoch: 2,
            shard: 0,
            hops: 1,
            here_only: true,
            seq: 5,
            generation: 3,
            ttl_ms: 0,
            sites: SiteSet::from_bits(1),
            allowed: None,
            grants: Grants::new(),
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let head = BatchHead { stamp: plain_stamp(), count: 1, time_ns: 0x0102, source_ref: 8 };
        let bytes = encode(&head, &[(9, "a/b".to_owned())], &events(&[b"hi".to_vec()]));
        let expected = concat!(
            "50000000", // len 80
            "01000000",
            "02000000",
            "00",
            "01",
            "01",
            "00",
            "0500000000000000",
            "0300000000000000",
            "00000000",
            "0100000000000000", // stamp
            "01000000",
            "0201000000000000",
            "08000000",
            "0100", // count, time, source, names
            "09000000",
            "0300",
            "612f62", // name
            "09000000",
            "00",
            "09000000",
            "0000",
            "6869" // event
        );
        assert_eq!(hex::encode(bytes), expected);
    }

    #[test]
    fn numbers_that_do_not_go_on_are_refused() {
        for (seq, is_good) in [(u64::MAX - 2, true), (u64::MAX - 1, false), (u64::MAX, false)] {
            let stamp = Stamp { seq, ..plain_stamp() };
            let head = BatchHead { stamp, count: 2, time_ns: 0, source_ref: 0 };
            let mut decoder = BatchDecoder::new(EVENT_LEN_MAX);
            decoder.push(&encode(&head, &[], &events(&[b"a".to_vec(), b"b".to_vec()])));
            let read = decoder.poll();
            assert_eq!(read.as_ref().err().map(|refused| refused.code), (!is_good).then_some(ViolationCode::Malformed));
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_waited_for() {
        let mut decoder = BatchDecoder::new(EVENT_LEN_MAX);
        decoder.push(&u32::MAX.to_le_bytes());
        assert_eq!(decoder.poll().unwrap_err().code, ViolationCode::FrameTooLarge);

        let head = BatchHead { stamp: plain_stamp(), count: 2, time_ns: 0, source_ref: 0 };
        let refused = |bytes: &[u8]| {
            let mut decoder = BatchDecoder::new(EVENT_LEN_MAX);
            decoder.push(bytes);
            decoder.poll().unwrap_err().code
        };
        let one_too_few = encode(&head, &[], &events(&[vec![0; 30]]));
        assert_eq!(refused(&one_too_few), ViolationCode::Malformed);
        let too_long = encode(&head, &[], &events(&[vec![0; 5_000], vec![0; 3]]));
        assert_eq!(refused(&too_long), ViolationCode::FrameTooLarge);
        let mut names = encode(&head, &[], &events(&[vec![], vec![]]));
        names[60..62].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(refused(&names), ViolationCode::TooMany);
        let mut out = Vec::new();
        let none = BatchHead { count: 0, ..head };
        assert_eq!(write_head(&mut out, &none, &[], 100).unwrap_err().code, ViolationCode::TooMany);
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn batches_come_back_however_the_bytes_arrive(
            batches in prop::collection::vec(
                (stamps(), prop::collection::vec((any::<u32>(), "[a-z/ü]{1,20}"), 0..4),
                 prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..6)), 1..5),
            step in 1usize..400,
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for (stamp, names, payloads) in batches {
                let count = u32::try_from(payloads.len()).unwrap();
                let head = BatchHead { stamp, count, time_ns: 77, source_ref: 3 };
                let events = events(&payloads);
                stream.extend(encode(&head, &names, &events));
                let names = names.into_iter().map(|(reference, text)| AnnouncedName { reference, text }).collect();
                expected.push((Batch { head, names, events: events.into() }, payloads));
            }
            let mut decoder = BatchDecoder::new(EVENT_LEN_MAX);
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                decoder.push(piece);
                while let Some(batch) = decoder.poll().unwrap() {
                    let payloads = batch.spans().map(|span| span.payload(&batch.events).to_vec()).collect();
                    seen.push((batch, payloads));
                }
            }
            prop_assert!(decoder.is_at_boundary());
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if bytes.len() > 4 {
                let len = u32::try_from(bytes.len() - 4).unwrap();
                bytes[..4].copy_from_slice(&len.to_le_bytes());
            }
            let mut decoder = BatchDecoder::new(EVENT_LEN_MAX);
            decoder.push(&bytes);
            drop(decoder.poll());
        }
    }
}
