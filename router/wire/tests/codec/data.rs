//! Data streams.

use crate::{cuts, pieces};
use myelin_wire::event::{EventSpan, FLAG_TTL};
use myelin_wire::frame::{FLAG_SKIPPABLE, FrameHeader};
use myelin_wire::stream::{DataDecoder, Item, write_deliver_head, write_name};
use myelin_wire::{AttrsBuilder, Code, EventBuilder, EventHead, FrameType, Stamp, attrs};
use proptest::prelude::*;
use std::collections::BTreeSet;

const LEN_MAX: u32 = 512;

/// An item with its bytes, so that items of differently cut streams compare.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Name(u32, Vec<u8>),
    Stamp(Stamp),
    Event { head: EventHead, attrs: Vec<u8>, payload: Vec<u8> },
    Oversized(EventHead),
}

fn seen(item: &Item, buffer: &[u8]) -> Seen {
    match item {
        Item::Name { reference, name } => Seen::Name(*reference, buffer[name.clone()].to_vec()),
        Item::Stamp(stamp) => Seen::Stamp(*stamp),
        Item::Event(event) => Seen::Event {
            head: event.head,
            attrs: event.attrs(buffer).to_vec(),
            payload: event.payload(buffer).to_vec(),
        },
        Item::Oversized(head) => Seen::Oversized(*head),
    }
}

/// How a stream ended: refused, at a boundary, or within a frame.
type End = Result<bool, Code>;

/// All items of a stream that comes in pieces; the ranges of a piece's items are resolved in the bytes that are taken
/// after it, as a router does.
fn read_data(carries: FrameType, stream: &[u8], cuts: &BTreeSet<usize>) -> (Vec<Seen>, End) {
    let mut decoder = DataDecoder::new(carries, LEN_MAX);
    let mut all = Vec::new();
    for piece in pieces(stream, cuts) {
        decoder.push(piece);
        let mut items = Vec::new();
        let refused = loop {
            match decoder.poll() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break None,
                Err(refusal) => break Some(refusal.code),
            }
        };
        let taken = decoder.take();
        all.extend(items.iter().map(|item| seen(item, &taken)));
        if let Some(code) = refused {
            return (all, Err(code));
        }
    }
    (all, Ok(decoder.is_at_boundary()))
}

/// A stream under construction: what it should read as, where its frames end, and where which length field stands.
#[derive(Clone, Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    items: Vec<Seen>,
    frame_ends: BTreeSet<usize>,
    /// Offset and width in bytes of every length field.
    lengths: Vec<(usize, usize)>,
}

#[derive(Clone, Debug)]
enum Part {
    Name(u32, String),
    Frame(Stamp, Vec<(u32, Vec<u8>, Vec<u8>, bool)>),
    Skipped(u8, Vec<u8>),
}

fn part() -> impl Strategy<Value = Part> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    // Every now and then a payload is over the limit of 512.
    let payload = prop_oneof![9 => bytes(40), 1 => bytes(700)];
    let event = (any::<u32>(), bytes(20), payload, any::<bool>());
    let stamp = (any::<u64>(), any::<u32>(), any::<u8>()).prop_map(|(long, word, shard)| Stamp {
        origin: word,
        epoch: !word,
        shard,
        source_ref: word / 3,
        subscription: word / 5,
        count: word / 7,
        seq: long,
        time_ns: !long,
        generation: long / 3,
    });
    prop_oneof![
        2 => (any::<u32>(), "[a-zü/]{1,20}").prop_map(|(reference, name)| Part::Name(reference, name)),
        4 => (stamp, proptest::collection::vec(event, 1..4)).prop_map(|(stamp, events)| Part::Frame(stamp, events)),
        1 => (0x13..=0x40_u8, bytes(30)).prop_map(|(kind, body)| Part::Skipped(kind, body)),
    ]
}

fn write(carries: FrameType, parts: &[Part]) -> Written {
    let mut out = Written::default();
    for part in parts {
        let start = out.bytes.len();
        match part {
            Part::Name(reference, name) => {
                write_name(&mut out.bytes, *reference, name);
                out.items.push(Seen::Name(*reference, name.as_bytes().to_vec()));
                out.lengths.push((start, 4));
            }
            Part::Frame(stamp, events) => write_frame(&mut out, carries, stamp, events),
            Part::Skipped(kind, body) => {
                let header =
                    FrameHeader { body_len: body.len().try_into().unwrap(), kind: *kind, flags: FLAG_SKIPPABLE };
                out.bytes.extend_from_slice(&header.to_bytes());
                out.bytes.extend_from_slice(body);
            }
        }
        out.frame_ends.insert(out.bytes.len());
    }
    out
}

fn write_frame(out: &mut Written, carries: FrameType, stamp: &Stamp, events: &[(u32, Vec<u8>, Vec<u8>, bool)]) {
    let (mut body, mut starts) = (Vec::new(), Vec::new());
    for (topic_ref, attrs, payload, request) in events {
        starts.push(body.len());
        EventBuilder { topic_ref: *topic_ref, attrs, payload, request: *request }.write(&mut body).unwrap();
    }
    out.lengths.push((out.bytes.len(), 4));
    if carries == FrameType::Deliver {
        write_deliver_head(&mut out.bytes, stamp, body.len());
        out.items.push(Seen::Stamp(*stamp));
    } else {
        out.bytes.extend_from_slice(&FrameHeader::new(carries, body.len().try_into().unwrap()).to_bytes());
    }
    for (start, (_, attrs, payload, _)) in starts.iter().zip(events) {
        let head = EventHead::parse(&body[*start..]).unwrap().unwrap();
        assert_eq!(head.total_bytes(), 11 + attrs.len() + payload.len());
        out.items.push(match head.len > LEN_MAX {
            true => Seen::Oversized(head),
            false => Seen::Event { head, attrs: attrs.clone(), payload: payload.clone() },
        });
        out.lengths.extend([(out.bytes.len() + start, 4), (out.bytes.len() + start + 9, 2)]);
    }
    out.bytes.extend_from_slice(&body);
}

fn carries() -> impl Strategy<Value = FrameType> {
    proptest::sample::select(vec![FrameType::Events, FrameType::Deliver])
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    proptest::collection::vec(part(), 0..5)
}

proptest! {
    #[test]
    fn a_data_stream_reads_the_same_however_it_is_cut(carries in carries(), parts in parts(), cuts in cuts()) {
        let written = write(carries, &parts);
        prop_assert_eq!(read_data(carries, &written.bytes, &cuts), (written.items.clone(), Ok(true)));
        let every_byte: BTreeSet<_> = (0..written.bytes.len()).collect();
        prop_assert_eq!(read_data(carries, &written.bytes, &every_byte), (written.items, Ok(true)));
    }

    #[test]
    fn a_truncated_data_stream_gives_its_beginning_and_waits(carries in carries(), parts in parts()) {
        let written = write(carries, &parts);
        let mut before = 0;
        for cut in 0..=written.bytes.len() {
            let (items, end) = read_data(carries, &written.bytes[..cut], &BTreeSet::new());
            prop_assert_eq!(&items[..], &written.items[..items.len()], "cut at {}", cut);
            prop_assert!(items.len() >= before, "cut at {}: an item was there with a byte less", cut);
            before = items.len();
            prop_assert_eq!(end, Ok(cut == 0 || written.frame_ends.contains(&cut)), "cut at {}", cut);
        }
        prop_assert_eq!(before, written.items.len());
    }

    #[test]
    fn a_lying_length_is_never_taken_for_the_truth(carries in carries(), parts in parts()) {
        let written = write(carries, &parts);
        for (at, width) in &written.lengths {
            let field = *at..at + width;
            let mut long = [0; 4];
            long[..*width].copy_from_slice(&written.bytes[field.clone()]);
            let truth = u32::from_le_bytes(long);
            let most = u32::MAX >> (32 - 8 * width);
            for lie in [0, truth.wrapping_sub(1) & most, truth.wrapping_add(1) & most, most] {
                if lie == truth {
                    continue;
                }
                let mut lying = written.bytes.clone();
                lying[field.clone()].copy_from_slice(&lie.to_le_bytes()[..*width]);
                let read = read_data(carries, &lying, &BTreeSet::new());
                let truthful = (written.items.clone(), Ok(true));
                prop_assert_ne!(&read, &truthful, "length at {}: {} instead of {}", at, lie, truth);
                if lie == u32::MAX {
                    prop_assert!(read.1.is_err(), "length at {}: 4 GiB are announced", at);
                }
                let every_byte: BTreeSet<_> = (0..lying.len()).collect();
                prop_assert_eq!(read_data(carries, &lying, &every_byte), read, "a lie reads the same in pieces");
            }
        }
    }

    #[test]
    fn garbage_and_flipped_bits_on_a_data_stream_never_panic(
        carries in carries(), parts in parts(), garbage in proptest::collection::vec(any::<u8>(), 0..80),
        at in any::<prop::sample::Index>(), bit in 0..8_u32, cuts in cuts(),
    ) {
        let written = write(carries, &parts);
        let mut stream = [&written.bytes[..], &garbage].concat();
        let (items, _) = read_data(carries, &stream, &cuts);
        prop_assert_eq!(&items[..written.items.len()], &written.items[..], "garbage spoils nothing that came before");
        if !stream.is_empty() {
            let at = at.index(stream.len());
            stream[at] ^= 1 << bit;
        }
        let whole = read_data(carries, &stream, &BTreeSet::new());
        prop_assert_eq!(read_data(carries, &stream, &cuts), whole);
        // Garbage as the events of a frame: the header is good, so that the event heads are read.
        let header = FrameHeader::new(FrameType::Events, garbage.len().try_into().unwrap()).to_bytes();
        let stream = [&header[..], &garbage].concat();
        let whole = read_data(FrameType::Events, &stream, &BTreeSet::new());
        prop_assert_eq!(read_data(FrameType::Events, &stream, &cuts), whole);
    }

    #[test]
    fn a_patched_topic_ref_is_all_that_changes(parts in parts(), topic_ref in any::<u32>()) {
        let written = write(FrameType::Events, &parts);
        let mut decoder = DataDecoder::new(FrameType::Events, LEN_MAX);
        decoder.push(&written.bytes);
        let mut spans: Vec<EventSpan> = Vec::new();
        while let Some(item) = decoder.poll().unwrap() {
            if let Item::Event(event) = item {
                decoder.patch_topic_ref(&event, topic_ref);
                spans.push(event);
            }
        }
        let taken = decoder.take();
        prop_assert_eq!(taken.len(), written.bytes.len());
        let mut expected = written.bytes;
        for span in &spans {
            let head = EventHead { topic_ref, ..span.head };
            prop_assert_eq!(EventHead::parse(&taken[span.range()]), Ok(Some(head)));
            expected[span.at + 5..span.at + 9].copy_from_slice(&topic_ref.to_le_bytes());
        }
        prop_assert_eq!(&taken[..], &expected[..]);
    }

    #[test]
    fn stamps_and_frame_headers_come_back(bytes in any::<[u8; 48]>(), len in any::<u32>(), kind in any::<u8>()) {
        let stamp = Stamp::parse(&bytes).unwrap();
        prop_assert_eq!(Stamp::parse(&stamp.to_bytes()), Some(stamp));
        prop_assert_eq!(Stamp::parse(&bytes[..47]), None);
        let header = FrameHeader { body_len: len, kind, flags: FLAG_SKIPPABLE };
        prop_assert_eq!(FrameHeader::parse(&header.to_bytes()), Ok(Some(header)));
        prop_assert_eq!(FrameHeader::parse(&header.to_bytes()[..7]), Ok(None));
    }
}

#[test]
fn the_builder_says_whether_there_is_a_time_to_live() {
    let flags = |block: &AttrsBuilder| {
        let mut event = Vec::new();
        EventBuilder { topic_ref: 1, attrs: block.as_bytes(), payload: b"", request: false }.write(&mut event).unwrap();
        event[4]
    };
    let mut block = AttrsBuilder::new();
    assert_eq!(flags(block.own(attrs::KEY, b"k")), 0);
    assert_eq!(flags(block.own(attrs::TTL, &7_u32.to_le_bytes())), FLAG_TTL);
}

#[test]
fn an_attribute_block_that_does_not_fit_is_refused_and_nothing_is_written() {
    let mut out = vec![1];
    let block = vec![0; 65_536];
    let refusal =
        EventBuilder { topic_ref: 1, attrs: &block, payload: b"", request: false }.write(&mut out).unwrap_err();
    assert_eq!((refusal.code, out), (Code::InvalidAttributes, vec![1]));
}
