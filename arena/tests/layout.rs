//! Attribute blocks, arenas and verdicts under every cut, every lying length and every garbage.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin_arena::attrs::{self, Attr, HEADER, KEY, LAST, TIME, TTL};
use myelin_arena::batch::{ENTRY_BYTES, HEADER_BYTES};
use myelin_arena::{Arena, ArenaBuilder, ArenaError, AttrError, Attrs, AttrsBuilder, Entry, Kind, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;

const HEADERS_MAX: usize = 64;

fn own_value(tag: u8) -> BoxedStrategy<Vec<u8>> {
    match tag {
        TIME => vec(any::<u8>(), 8).boxed(),
        TTL => vec(any::<u8>(), 4).boxed(),
        KEY | attrs::CORRELATION => vec(any::<u8>(), 0..=255).boxed(),
        _ => "[ -~ü]{0,30}".prop_map(String::into_bytes).boxed(),
    }
}

/// A valid list of attributes: own ones at most once, headers in between.
fn list() -> impl Strategy<Value = Vec<(u8, String, Vec<u8>)>> {
    let tags = proptest::sample::subsequence((1..=LAST).collect::<Vec<_>>(), 0..=usize::from(LAST)).prop_shuffle();
    let own = tags.prop_flat_map(|tags| {
        tags.into_iter()
            .map(|tag| own_value(tag).prop_map(move |value| (tag, String::new(), value)))
            .collect::<Vec<_>>()
    });
    let headers = vec(("[ -~ü]{1,20}", "[ -~ü]{0,30}"), 0..5);
    (own, headers, any::<prop::sample::Index>()).prop_map(|(mut list, headers, at)| {
        for (name, value) in headers {
            let at = at.index(list.len() + 1);
            list.insert(at, (HEADER, name, value.into_bytes()));
        }
        list
    })
}

/// The block of `list`, where each attribute ends, and offset and width of every length field.
fn written(list: &[(u8, String, Vec<u8>)]) -> (Vec<u8>, BTreeSet<usize>, Vec<(usize, usize)>) {
    let (mut block, mut ends, mut lengths) = (AttrsBuilder::new(), BTreeSet::from([0]), Vec::new());
    for (tag, name, value) in list {
        let start = block.as_bytes().len();
        block.attr(&Attr { tag: *tag, name, value });
        let name_bytes = if *tag == HEADER { 1 + name.len() } else { 0 };
        if *tag == HEADER {
            lengths.push((start + 1, 1));
        }
        lengths.push((start + 1 + name_bytes, 2));
        ends.insert(block.as_bytes().len());
    }
    (block.into_bytes(), ends, lengths)
}

fn read(block: &[u8]) -> Vec<(u8, String, Vec<u8>)> {
    Attrs::new(block).iter().map(|attr| (attr.tag, attr.name.to_owned(), attr.value.to_vec())).collect()
}

/// The values with which a length field of `width` bytes lies.
fn lies(bytes: &[u8], at: usize, width: usize) -> Vec<(u32, Vec<u8>)> {
    let mut word = [0; 4];
    word[..width].copy_from_slice(&bytes[at..at + width]);
    let (truth, most) = (u32::from_le_bytes(word), u32::MAX >> (32 - 8 * width));
    let lies = [0, truth.wrapping_sub(1) & most, truth.wrapping_add(1) & most, most];
    let lying = lies.into_iter().filter(|lie| *lie != truth).map(|lie| {
        let mut lying = bytes.to_vec();
        lying[at..at + width].copy_from_slice(&lie.to_le_bytes()[..width]);
        (lie, lying)
    });
    lying.collect()
}

proptest! {
    #[test]
    fn an_attribute_block_comes_back(list in list()) {
        let (block, _, _) = written(&list);
        prop_assert_eq!(attrs::validate(&block, HEADERS_MAX), Ok(()));
        prop_assert_eq!(read(&block), list.clone());
        let view = Attrs::new(&block);
        for tag in 1..=LAST {
            let expected = list.iter().find(|attr| attr.0 == tag).map(|attr| &attr.2[..]);
            prop_assert_eq!(view.own(tag), expected);
        }
        for (_, name, _) in list.iter().filter(|attr| attr.0 == HEADER) {
            let first = list.iter().find(|attr| attr.0 == HEADER && attr.1 == *name).unwrap();
            prop_assert_eq!(view.header(name).map(str::as_bytes), Some(&first.2[..]));
        }
        prop_assert_eq!(view.own(HEADER), None);
    }

    #[test]
    fn a_truncated_block_is_refused_unless_the_cut_is_between_attributes(list in list()) {
        let (block, ends, _) = written(&list);
        for cut in 0..=block.len() {
            let valid = attrs::validate(&block[..cut], HEADERS_MAX).is_ok();
            prop_assert_eq!(valid, ends.contains(&cut), "cut at {}", cut);
            let whole = ends.range(..=cut).count() - 1;
            prop_assert_eq!(read(&block[..cut]), &list[..whole], "cut at {}", cut);
        }
    }

    #[test]
    fn a_lying_length_in_a_block_never_reads_as_the_truth(list in list()) {
        let (block, _, lengths) = written(&list);
        for (at, width) in lengths {
            for (lie, lying) in lies(&block, at, width) {
                let found = attrs::validate(&lying, HEADERS_MAX);
                prop_assert!(found.is_err() || read(&lying) != list, "length at {}: {}", at, lie);
                if width == 2 && lie == 0xffff {
                    prop_assert_eq!(found, Err(AttrError::Truncated));
                }
            }
        }
    }

    /// What passes may be trusted ever after: nothing of a valid block is left unread.
    #[test]
    fn a_valid_block_reads_to_its_end(bytes in vec(prop_oneof![4 => 0..=12_u8, 1 => any::<u8>()], 0..60)) {
        let mut copy = AttrsBuilder::new();
        Attrs::new(&bytes).iter().for_each(|attr| { copy.attr(&attr); });
        prop_assert!(bytes.starts_with(copy.as_bytes()));
        if attrs::validate(&bytes, HEADERS_MAX).is_ok() {
            prop_assert_eq!(copy.as_bytes(), &bytes[..]);
        }
    }

    #[test]
    fn headers_over_the_limit_are_refused(count in 0..6_usize, limit in 0..6_usize) {
        let mut block = AttrsBuilder::new();
        (0..count).for_each(|_| { block.header("x", "y"); });
        let expected = if count > limit { Err(AttrError::TooManyHeaders) } else { Ok(()) };
        prop_assert_eq!(attrs::validate(block.as_bytes(), limit), expected);
    }
}

#[test]
fn own_values_are_bounded() {
    let checked =
        |tag: u8, len: usize| attrs::validate(AttrsBuilder::new().own(tag, &vec![b'x'; len]).as_bytes(), HEADERS_MAX);
    for tag in 1..=LAST {
        let (least, most) = match tag {
            TIME => (8, 8),
            TTL => (4, 4),
            KEY => (0, 255),
            _ => (0, 1024),
        };
        assert_eq!((checked(tag, least), checked(tag, most)), (Ok(()), Ok(())), "tag {tag}");
        assert_eq!(checked(tag, most + 1), Err(AttrError::BadLength(tag)));
        assert!(least == 0 || checked(tag, least - 1) == Err(AttrError::BadLength(tag)));
    }
    assert_eq!(checked(HEADER, 0), Err(AttrError::Truncated), "a header without its name's length");
}

#[derive(Clone, Debug)]
struct Event {
    topic: String,
    attrs: Vec<u8>,
    payload: Vec<u8>,
    payload_total: u32,
    identity: Option<String>,
}

impl Event {
    fn entry(&self) -> Entry<'_> {
        let Self { topic, attrs, payload, payload_total, identity } = self;
        Entry { topic, attrs, payload, payload_total: *payload_total, identity: identity.as_deref() }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let topic = proptest::sample::select(vec!["", "a", "orders/eu", "ü/b"]);
    let identity =
        proptest::sample::select(vec![None, Some(""), Some("spiffe://m/service/a"), Some("spiffe://m/service/b")]);
    (topic, vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..20), any::<u32>(), identity).prop_map(
        |(topic, attrs, payload, payload_total, identity)| Event {
            topic: topic.to_owned(),
            attrs,
            payload,
            payload_total,
            identity: identity.map(str::to_owned),
        },
    )
}

fn arena_of(events: &[Event], room: usize) -> Vec<u8> {
    let mut builder = ArenaBuilder::new(events.len() + room);
    events.iter().for_each(|event| builder.push(&event.entry()));
    builder.into_bytes()
}

fn entries(bytes: &[u8]) -> Result<Vec<Entry<'_>>, ArenaError> {
    Arena::new(bytes)?.entries().collect()
}

/// Any bits, and bits near those that mean something.
fn bits() -> impl Strategy<Value = u64> {
    let near = (0..8_u64, 0..4_u64, 0..4_u64, 0..8_u64);
    let near = near.prop_map(|(kind, flags, reason, routes)| kind | flags << 3 | reason << 16 | routes << 32);
    prop_oneof![any::<u64>(), near]
}

proptest! {
    #[test]
    fn an_arena_comes_back(events in vec(event(), 0..6), room in 0..3_usize) {
        let bytes = arena_of(&events, room);
        let expected: Vec<_> = events.iter().map(Event::entry).collect();
        prop_assert_eq!(entries(&bytes), Ok(expected));
    }

    /// The memory is kept from batch to batch: nothing of an earlier batch shows in a later one.
    #[test]
    fn a_reset_builder_writes_what_a_new_one_writes(before in vec(event(), 0..4), events in vec(event(), 0..4)) {
        let mut builder = ArenaBuilder::new(before.len());
        before.iter().for_each(|event| builder.push(&event.entry()));
        builder.finish();
        builder.reset(events.len());
        events.iter().for_each(|event| builder.push(&event.entry()));
        prop_assert_eq!(builder.finish(), &arena_of(&events, 0)[..]);
    }

    #[test]
    fn a_truncated_arena_loses_entries_but_never_lies(events in vec(event(), 1..4)) {
        let bytes = arena_of(&events, 0);
        for cut in 0..bytes.len() {
            let Ok(arena) = Arena::new(&bytes[..cut]) else {
                prop_assert!(cut < HEADER_BYTES + events.len() * ENTRY_BYTES, "cut at {}: the table is whole", cut);
                continue;
            };
            for (found, event) in arena.entries().zip(&events) {
                prop_assert!(found.is_err() || found == Ok(event.entry()), "cut at {}", cut);
            }
        }
    }

    /// Every word of the header and of the entries, which are all lengths, offsets or flags.
    #[test]
    fn a_lying_word_never_leads_outside(events in vec(event(), 1..4)) {
        let bytes = arena_of(&events, 0);
        let table = HEADER_BYTES + events.len() * ENTRY_BYTES;
        for at in (0..table).step_by(2) {
            // Behind the table of events without any bytes there is nothing.
            for width in [2, 4].into_iter().filter(|width| at + width <= bytes.len()) {
                for (lie, lying) in lies(&bytes, at, width) {
                    let Ok(found) = entries(&lying) else { continue };
                    let heap = lying.as_ptr_range();
                    let inside = |part: Range<*const u8>| part.start >= heap.start && part.end <= heap.end;
                    let within = |part: &[u8]| part.is_empty() || inside(part.as_ptr_range());
                    for entry in found {
                        let parts = [entry.topic.as_bytes(), entry.attrs, entry.payload];
                        prop_assert!(parts.into_iter().all(within), "{} at {}", lie, at);
                    }
                }
            }
        }
        for (lie, lying) in lies(&bytes, 0, 4) {
            let count = lie as usize;
            let whole = HEADER_BYTES + count * ENTRY_BYTES <= lying.len();
            let expected = if whole { Ok(count) } else { Err(ArenaError::Table) };
            prop_assert_eq!(Arena::new(&lying).map(|arena| arena.len()), expected);
        }
    }

    #[test]
    fn garbage_is_no_arena_or_reads_without_panic(
        count in 0..4_u32, words in vec(prop_oneof![0..200_u32, any::<u32>()], 0..40),
    ) {
        let mut bytes = [count.to_le_bytes(), [0; 4]].concat();
        words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        match Arena::new(&bytes) {
            Ok(arena) => prop_assert_eq!(arena.entries().count(), count as usize),
            Err(fault) => prop_assert_eq!((fault, bytes.len() < 8 + count as usize * 32), (ArenaError::Table, true)),
        }
    }

    /// The rules of docs/PROTOCOL.md section 13.2, said once more and differently.
    #[test]
    fn the_check_of_a_verdict_is_the_rule_s(bits in bits(), reasons in 0..4_usize, routes in 0..=33_usize) {
        let verdict = Verdict(bits);
        let kind = bits % 8;
        let (reason, set) = (bits >> 16 & 0xffff, bits >> 32);
        let known = kind < 6 && bits >> 6 & 3 == 0;
        let reason_fits = reason == 0 || ((kind == 1 || kind == 2) && reason < reasons as u64);
        let routes_fit = if kind == 4 || kind == 5 { set != 0 && (set >> routes.min(32)) == 0 } else { set == 0 };
        let replaces = bits >> 3 & 3 != 0;
        let replacement_fits = !replaces || matches!(kind, 0 | 4 | 5);
        prop_assert_eq!(verdict.check(reasons, routes).is_ok(), known && reason_fits && routes_fit && replacement_fits);
        let detail = usize::from(bits >> 5 & 1 == 1);
        prop_assert_eq!(verdict.output_entries(), usize::from(replaces) + detail + (bits >> 8 & 0xff) as usize);
    }

    #[test]
    fn a_verdict_comes_back(
        reason in any::<u16>(), routes in any::<u32>(), emitted in any::<u8>(), flags in any::<[bool; 3]>(),
    ) {
        let [payload, attrs, detail] = flags;
        for kind in [Kind::Allow, Kind::Deny, Kind::DeadLetter, Kind::Drop, Kind::Redirect, Kind::Add] {
            let verdict = Verdict::of(kind).with_reason(reason).with_routes(routes).with_emitted(emitted);
            let verdict = verdict.with_replacement(payload, attrs);
            let verdict = if detail { verdict.with_detail() } else { verdict };
            prop_assert_eq!(verdict.kind(), Ok(kind));
            prop_assert_eq!((verdict.reason(), verdict.routes(), verdict.emitted()), (reason, routes, emitted));
            prop_assert_eq!([verdict.replaces_payload(), verdict.replaces_attrs(), verdict.has_detail()], flags);
        }
    }
}

#[test]
fn a_text_too_long_for_its_length_field_is_cut_not_wrapped() {
    let topic = "x".repeat(65_536 + 3);
    let mut builder = ArenaBuilder::new(1);
    builder.push(&Entry { topic: &topic, attrs: b"", payload: b"", payload_total: 0, identity: Some(&topic) });
    let bytes = builder.into_bytes();
    let entry = Arena::new(&bytes).unwrap().entry(0).unwrap();
    assert_eq!((entry.topic.len(), entry.identity.map(str::len)), (65_535, Some(65_535)));
}
