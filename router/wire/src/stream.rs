//! Data streams: names and events, cut from the bytes as they arrive.
//!
//! A decoder owns the buffer that bytes are received into. Events are parsed in place; whoever reads them may patch a
//! topic reference in place, and takes the parsed part away as shared bytes without copying it.

use crate::event::{EventHead, EventSpan, HEAD_BYTES, STAMP_BYTES, Stamp, TOPIC_REF_AT};
use crate::frame::{FrameHeader, FrameType, HEADER_BYTES};
use crate::limits::NAME_BYTES_MAX;
use crate::refusal::{Code, Refusal};
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// Room that is made in the buffer at a time. Events larger than this grow the buffer to their announced length, which
/// is checked against the limit first.
const BUFFER_BYTES: usize = 64 * 1024;

/// What stands next on a data stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// `reference` means the text at `name` from here on.
    Name {
        /// The reference that is (re)defined.
        reference: u32,
        /// Where the text stands in [`DataDecoder::buffer`]; not yet checked to be UTF-8.
        name: Range<usize>,
    },
    /// A DELIVER frame begins.
    Stamp(Stamp),
    /// A whole event in [`DataDecoder::buffer`].
    Event(EventSpan),
    /// An event over the limit: it counts as an event of the stream, its bytes are skipped.
    Oversized(EventHead),
}

/// Cuts a data stream into names, stamps and events.
#[derive(Debug)]
pub struct DataDecoder {
    buffer: BytesMut,
    /// Bytes of the buffer that were handed out as items.
    parsed: usize,
    /// Bytes of the running EVENTS or DELIVER frame that were not parsed yet.
    frame_left: usize,
    /// Bytes to throw away: a skipped frame or an oversized event.
    skip: usize,
    carries: FrameType,
    event_len_max: u32,
}

impl DataDecoder {
    /// A decoder for a stream whose events come in frames of type `carries` ([`FrameType::Events`] towards a router,
    /// [`FrameType::Deliver`] from it) and have a `len` of at most `event_len_max`.
    pub fn new(carries: FrameType, event_len_max: u32) -> Self {
        Self { buffer: BytesMut::new(), parsed: 0, frame_left: 0, skip: 0, carries, event_len_max }
    }

    /// Adds bytes of the stream.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        if self.buffer.capacity() - self.buffer.len() < bytes.len() {
            self.buffer.reserve(bytes.len().max(BUFFER_BYTES));
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The bytes that the items' ranges point into.
    pub fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// Replaces the topic reference of `event` in the buffer.
    #[inline]
    pub fn patch_topic_ref(&mut self, event: &EventSpan, topic_ref: u32) {
        let at = event.at + TOPIC_REF_AT;
        self.buffer[at..at + 4].copy_from_slice(&topic_ref.to_le_bytes());
    }

    /// Takes everything that was parsed; ranges of items polled since the last take index into it.
    pub fn take(&mut self) -> Bytes {
        let taken = self.buffer.split_to(self.parsed).freeze();
        self.parsed = 0;
        taken
    }

    /// Throws away what was parsed: for batches that nobody wants.
    pub fn discard(&mut self) {
        drop(self.take());
    }

    /// Whether the stream may end here.
    pub fn is_at_boundary(&self) -> bool {
        self.parsed == self.buffer.len() && self.frame_left == 0 && self.skip == 0
    }

    /// The next item; `None` until more bytes come.
    ///
    /// # Errors
    /// A refusal of the frame or event that stands next. The stream is then of no more use.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<Item>, Refusal> {
        loop {
            if self.skip > 0 && !self.skip_available() {
                return Ok(None);
            }
            if self.frame_left > 0 {
                return self.poll_event();
            }
            match self.poll_frame()? {
                Step::Item(item) => return Ok(Some(item)),
                Step::Again => {}
                Step::More => return Ok(None),
            }
        }
    }

    /// Skips what is there of the bytes to throw away; whether that was all of them.
    fn skip_available(&mut self) -> bool {
        let now = self.skip.min(self.buffer.len() - self.parsed);
        self.parsed += now;
        self.skip -= now;
        self.skip == 0
    }

    #[inline]
    fn poll_event(&mut self) -> Result<Option<Item>, Refusal> {
        let rest = &self.buffer[self.parsed..];
        let Some(head) = EventHead::parse(rest)? else {
            // A frame that ends inside a head can never become whole.
            return if self.frame_left < HEAD_BYTES { Err(overrun(self.frame_left)) } else { Ok(None) };
        };
        let total = head.total_bytes();
        if total > self.frame_left {
            return Err(overrun(self.frame_left));
        }
        if head.len > self.event_len_max {
            self.frame_left -= total;
            self.skip = total;
            return Ok(Some(Item::Oversized(head)));
        }
        if rest.len() < total {
            let missing = total - rest.len();
            self.buffer.reserve(missing);
            return Ok(None);
        }
        let event = EventSpan { at: self.parsed, head };
        self.parsed += total;
        self.frame_left -= total;
        Ok(Some(Item::Event(event)))
    }

    /// Reads the header of the next frame, and the whole frame where it is not one of events.
    fn poll_frame(&mut self) -> Result<Step, Refusal> {
        let rest = &self.buffer[self.parsed..];
        let Some(header) = FrameHeader::parse(rest)? else { return Ok(Step::More) };
        let body_len = header.body_len as usize;
        let Some(kind) = header.classify(true)? else {
            self.skip = HEADER_BYTES + body_len;
            return Ok(Step::Again);
        };
        let body = &rest[HEADER_BYTES..];
        match kind {
            FrameType::Name => {
                if !(5..=4 + NAME_BYTES_MAX).contains(&body_len) {
                    let message =
                        format!("a NAME frame has a body of {body_len} bytes; 5 to {} are allowed", 4 + NAME_BYTES_MAX);
                    return Err(Refusal::new(Code::Malformed, message));
                }
                if body.len() < body_len {
                    return Ok(Step::More);
                }
                let reference = body.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                let end = self.parsed + HEADER_BYTES + body_len;
                let name = self.parsed + HEADER_BYTES + 4..end;
                self.parsed = end;
                Ok(Step::Item(Item::Name { reference, name }))
            }
            FrameType::Deliver if self.carries == kind => {
                if body_len < STAMP_BYTES + HEAD_BYTES {
                    return Err(Refusal::new(
                        Code::Malformed,
                        format!("a DELIVER frame of {body_len} bytes is too short"),
                    ));
                }
                let Some(stamp) = Stamp::parse(body) else { return Ok(Step::More) };
                self.parsed += HEADER_BYTES + STAMP_BYTES;
                self.frame_left = body_len - STAMP_BYTES;
                Ok(Step::Item(Item::Stamp(stamp)))
            }
            FrameType::Events if self.carries == kind => {
                self.parsed += HEADER_BYTES;
                self.frame_left = body_len;
                Ok(Step::Again)
            }
            other => Err(Refusal::new(Code::OutOfOrder, format!("a {other:?} frame does not belong on this stream"))),
        }
    }
}

/// What reading a frame's header led to.
enum Step {
    Item(Item),
    Again,
    More,
}

#[cold]
fn overrun(frame_left: usize) -> Refusal {
    Refusal::new(
        Code::Malformed,
        format!("an event is longer than its frame, of which {frame_left} bytes are left (a head takes {HEAD_BYTES})"),
    )
}

/// Appends a NAME frame to `out`: from here on the stream, `reference` means `name`.
pub fn write_name(out: &mut Vec<u8>, reference: u32, name: &str) {
    let len = u32::try_from(4 + name.len().min(NAME_BYTES_MAX)).unwrap_or(u32::MAX);
    out.extend_from_slice(&FrameHeader::new(FrameType::Name, len).to_bytes());
    out.extend_from_slice(&reference.to_le_bytes());
    out.extend_from_slice(&name.as_bytes()[..name.len().min(NAME_BYTES_MAX)]);
}

/// Appends the header and stamp of a DELIVER frame whose events take `events_bytes`.
pub fn write_deliver_head(out: &mut Vec<u8>, stamp: &Stamp, events_bytes: usize) {
    let len = u32::try_from(STAMP_BYTES + events_bytes).unwrap_or(u32::MAX);
    out.extend_from_slice(&FrameHeader::new(FrameType::Deliver, len).to_bytes());
    out.extend_from_slice(&stamp.to_bytes());
}
