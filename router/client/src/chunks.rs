//! What waits for the publish stream: whole frames, in chunks.

use std::collections::VecDeque;

use bytes::Bytes;
use myelin_wire::frame::HEADER_BYTES;
use myelin_wire::{EventBuilder, FrameHeader, FrameType, Refusal, stream};

/// A chunk is closed when it has this many bytes: large enough that a frame's and a write's cost vanish, small enough
/// to stay in a core's cache.
const CHUNK_BYTES: usize = 64 * 1024;
/// Room beyond, so that the event that closes a chunk mostly does not move it.
const CHUNK_SLACK_BYTES: usize = 4 * 1024;
/// Least room of a chunk: a quiet publisher's chunks hold one event each until the peer has them.
const CHUNK_BYTES_MIN: usize = 512;

/// Encoded frames in the order of the stream.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    closed: VecDeque<Bytes>,
    closed_bytes: usize,
    open: Vec<u8>,
    /// Where the header of the running EVENTS frame stands in `open`; its length is not known yet.
    frame_at: Option<usize>,
    /// What the next chunk will probably need.
    next_capacity: usize,
}

impl Chunks {
    /// Bytes that wait.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.closed_bytes + self.open.len()
    }

    /// Announces `name`.
    pub(crate) fn name(&mut self, reference: u32, name: &str) {
        self.end_frame();
        stream::write_name(&mut self.open, reference, name);
    }

    /// Adds an event to the running frame, or begins one.
    ///
    /// # Errors
    /// When a length does not fit the layout. The stream stays whole.
    #[inline]
    pub(crate) fn event(&mut self, event: &EventBuilder<'_>) -> Result<(), Refusal> {
        if self.frame_at.is_none() {
            self.begin_frame();
        }
        event.write(&mut self.open)?;
        if self.open.len() >= CHUNK_BYTES {
            self.close_chunk();
        }
        Ok(())
    }

    /// Takes everything that waits.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        self.close_chunk();
        self.closed_bytes = 0;
        self.closed.drain(..).collect()
    }

    fn begin_frame(&mut self) {
        if self.open.capacity() == 0 {
            self.open.reserve(self.next_capacity.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES + CHUNK_SLACK_BYTES));
        }
        self.frame_at = Some(self.open.len());
        self.open.extend_from_slice(&[0; HEADER_BYTES]);
    }

    fn end_frame(&mut self) {
        if let Some(at) = self.frame_at.take() {
            // A chunk holds at most one event beyond `CHUNK_BYTES`, and events are far below 4 GiB.
            let body_len = u32::try_from(self.open.len() - at - HEADER_BYTES).unwrap_or(u32::MAX);
            let header = FrameHeader::new(FrameType::Events, body_len).to_bytes();
            self.open[at..at + HEADER_BYTES].copy_from_slice(&header);
        }
    }

    fn close_chunk(&mut self) {
        self.end_frame();
        if !self.open.is_empty() {
            self.next_capacity = self.open.len().next_power_of_two();
            self.closed_bytes += self.open.len();
            self.closed.push_back(std::mem::take(&mut self.open).into());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::refs::TopicRefs;
    use hashbrown::HashMap;
    use myelin_wire::Limits;
    use myelin_wire::stream::{DataDecoder, Item};
    use proptest::prelude::*;

    /// What a router reads: topic and payload of each event.
    fn read_back(chunks: Vec<Bytes>) -> Vec<(String, Vec<u8>)> {
        let mut decoder = DataDecoder::new(FrameType::Events, Limits::default().event_len_max());
        let (mut names, mut events) = (HashMap::new(), Vec::new());
        for chunk in chunks {
            decoder.push(&chunk);
            while let Some(item) = decoder.poll().unwrap() {
                match item {
                    Item::Name { reference, name } => {
                        names.insert(reference, String::from_utf8(decoder.buffer()[name].to_vec()).unwrap());
                    }
                    Item::Event(event) => {
                        let topic: &String = &names[&event.head.topic_ref];
                        events.push((topic.clone(), event.payload(decoder.buffer()).to_vec()));
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(decoder.is_at_boundary(), "chunks are whole frames");
        }
        events
    }

    proptest! {
        /// Whatever the order of topics, the number of references and the moments of taking: the router reads what was
        /// published.
        #[test]
        fn a_router_reads_what_was_published(
            events in prop::collection::vec((0..6_u8, 0..40_000_usize, prop::bool::weighted(0.2)), 1..40),
            refs_max in 1..5_usize,
        ) {
            let (mut chunks, mut refs, mut taken, mut published) =
                (Chunks::default(), TopicRefs::new(refs_max), Vec::new(), Vec::new());
            for (n, (topic, len, take)) in events.into_iter().enumerate() {
                let (topic, payload) = (format!("t/{topic}"), vec![u8::try_from(n).unwrap(); len]);
                let topic_ref = refs.find(&topic).unwrap_or_else(|| {
                    let reference = refs.define(&topic);
                    chunks.name(reference, &topic);
                    reference
                });
                chunks.event(&EventBuilder { topic_ref, attrs: &[], payload: &payload, request: false }).unwrap();
                published.push((topic, payload));
                if take {
                    taken.extend(chunks.take());
                    prop_assert_eq!(chunks.bytes(), 0);
                }
            }
            taken.extend(chunks.take());
            prop_assert_eq!(read_back(taken), published);
        }
    }

    #[test]
    fn what_piles_up_goes_in_one_frame_for_each_chunk() {
        let mut chunks = Chunks::default();
        for _ in 0..2_000 {
            chunks.event(&EventBuilder { topic_ref: 1, attrs: &[], payload: &[0; 89], request: false }).unwrap();
        }
        let taken = chunks.take();
        assert_eq!(taken.len(), 4, "200,000 bytes in chunks of 64 KiB");
        for chunk in &taken {
            let header = FrameHeader::parse(chunk).unwrap().unwrap();
            assert_eq!(header.body_len as usize + HEADER_BYTES, chunk.len());
        }
    }
}
