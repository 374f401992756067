//! 10,000 refused inputs for every surface, from fixed seeds: each refusal has a code of its surface, and nothing
//! panics, hangs, or is taken for something else.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin::config::{Config, Sources};
use myelin_arena::attrs;
use myelin_attacks::targets::{ControlRead, Stood, TARGETS, read_control, read_data};
use myelin_attacks::{Dice, frames};
use myelin_wire::frame::FrameType;
use myelin_wire::topic::validate_topic_bytes;
use myelin_wire::{Code, EventHead, Pattern};
use std::collections::{BTreeMap, BTreeSet};

/// Refused inputs a surface.
const REFUSED: usize = 10_000;
/// No generator may need more attempts than this for them: it would not be one of bad input.
const ATTEMPTS_MAX: usize = 3 * REFUSED;

/// Generates until enough was refused; gives how often each code was the reason.
fn refuse<T>(
    seed: u64,
    make: impl Fn(&mut Dice) -> T,
    judge: impl Fn(&T) -> Option<&'static str>,
) -> BTreeMap<&'static str, usize> {
    let (mut dice, mut codes) = (Dice::new(seed), BTreeMap::new());
    let mut refused = 0;
    for _ in 0..ATTEMPTS_MAX {
        if let Some(code) = judge(&make(&mut dice)) {
            *codes.entry(code).or_default() += 1;
            refused += 1;
        }
        if refused == REFUSED {
            println!("{codes:?}");
            return codes;
        }
    }
    panic!("seed {seed}: only {refused} of {ATTEMPTS_MAX} were refused: {codes:?}");
}

/// The codes that were given are these.
fn expect(codes: &BTreeMap<&'static str, usize>, expected: &[&str]) {
    let found: BTreeSet<_> = codes.keys().copied().collect();
    assert_eq!(found, expected.iter().copied().collect(), "{codes:?}");
}

fn target(name: &str, data: &[u8]) {
    (TARGETS.iter().find(|target| target.name == name).unwrap().run)(data);
}

#[test]
fn control_frames() {
    let codes = refuse(1, frames::control, |bytes| {
        target("control", bytes);
        match read_control([&bytes[..]]) {
            ControlRead { refusal: Some(refusal), .. } => Some(refusal.code.name()),
            // What is cut short waits for the rest, and is refused when the stream ends or HELLO is late.
            ControlRead { messages, .. } if messages.is_empty() => Some("waits"),
            ControlRead { .. } => None,
        }
    });
    expect(&codes, &["malformed", "unknown-frame", "frame-too-large", "out-of-order", "waits"]);
}

/// Why a publish stream is refused by what a router asks of it beyond the layout.
fn published(bytes: &[u8]) -> Option<&'static str> {
    let read = read_data(FrameType::Events, [bytes]);
    let mut known = BTreeSet::new();
    for item in &read.items {
        let code = match item {
            Stood::Name(reference, name) => {
                known.insert(*reference);
                validate_topic_bytes(name).err().map(|_| Code::InvalidTopic)
            }
            Stood::Event(head, ..) if !known.contains(&head.topic_ref) => Some(Code::UnknownTopicRef),
            Stood::Event(_, block, _) => attrs::validate(block, 64).err().map(|_| Code::InvalidAttributes),
            Stood::Oversized(_) => Some(Code::PayloadTooLarge),
            Stood::Stamp(_) => None,
        };
        if let Some(code) = code {
            return Some(code.name());
        }
    }
    match read.refusal {
        Some(refusal) => Some(refusal.code.name()),
        None if !read.is_at_boundary => Some("ends-inside-a-frame"),
        None => None,
    }
}

#[test]
fn publish_streams() {
    assert_eq!(published(&frames::valid_publish()), None, "what is spoilt was good");
    let codes = refuse(2, frames::publish, |bytes| {
        target("publish", bytes);
        published(bytes)
    });
    let expected = [
        "malformed",
        "unknown-frame",
        "frame-too-large",
        "out-of-order",
        "invalid-topic",
        "unknown-topic-ref",
        "invalid-attributes",
        "payload-too-large",
        "ends-inside-a-frame",
    ];
    expect(&codes, &expected);
}

#[test]
fn delivery_streams() {
    let codes = refuse(3, frames::deliver, |bytes| {
        target("deliver", bytes);
        let read = read_data(FrameType::Deliver, [&bytes[..]]);
        let is_bad = |item: &Stood| matches!(item, Stood::Event(_, block, _) if attrs::validate(block, 64).is_err());
        match read.refusal {
            Some(refusal) => Some(refusal.code.name()),
            None if read.items.iter().any(is_bad) => Some("invalid-attributes"),
            None if !read.is_at_boundary => Some("ends-inside-a-frame"),
            None => None,
        }
    });
    assert!(codes.contains_key("malformed") && codes.contains_key("out-of-order"), "{codes:?}");
}

#[test]
fn event_heads_and_attribute_blocks() {
    let codes = refuse(4, frames::event, |bytes| {
        target("event", bytes);
        let head = match EventHead::parse(bytes) {
            Err(refusal) => return Some(refusal.code.name()),
            Ok(None) => return Some("waits"),
            Ok(Some(head)) if head.total_bytes() != bytes.len() => return Some("another-length"),
            Ok(Some(head)) => head,
        };
        match attrs::validate(&bytes[11..11 + usize::from(head.attrs_len)], 64) {
            Err(attrs::AttrError::Truncated) => Some("truncated"),
            Err(attrs::AttrError::UnknownTag(_)) => Some("unknown-tag"),
            Err(attrs::AttrError::Repeated(_)) => Some("repeated"),
            Err(attrs::AttrError::NotUtf8(_)) => Some("not-utf8"),
            Err(attrs::AttrError::BadLength(_)) => Some("bad-length"),
            Err(attrs::AttrError::EmptyName) => Some("empty-name"),
            Err(attrs::AttrError::TooManyHeaders) => Some("too-many-headers"),
            Ok(()) => None,
        }
    });
    for code in ["malformed", "truncated", "unknown-tag", "repeated", "not-utf8", "bad-length", "empty-name"] {
        assert!(codes.contains_key(code), "{code}: {codes:?}");
    }
}

#[test]
fn topics_and_patterns() {
    refuse(5, frames::topic, |bytes| {
        target("topics", bytes);
        validate_topic_bytes(bytes).err().map(|error| error.code())
    });
    refuse(6, frames::pattern, |bytes| {
        target("topics", bytes);
        match std::str::from_utf8(bytes).map(Pattern::new) {
            Err(_) => Some("not-utf8"),
            Ok(pattern) => pattern.err().map(|error| error.code()),
        }
    });
    // Both at once: what a pattern matches and implies agrees with the naive rule, whatever the texts are.
    let mut dice = Dice::new(7);
    for _ in 0..REFUSED {
        let parts = ["a", "b", "*", "$x", "a/b"];
        let mut side = || {
            let mut levels: Vec<&str> = (0..=dice.below(4)).map(|_| *dice.pick(&parts)).collect();
            if dice.once_in(2) {
                levels.push("**");
            }
            levels.join("/")
        };
        let (wide, narrow) = (side(), side());
        target("topics", format!("{wide}\n{narrow}").as_bytes());
    }
}

#[test]
fn arenas_from_a_filter() {
    // Nothing to count: an arena that is read at all is checked entry by entry.
    let mut builder = myelin_arena::ArenaBuilder::new(2);
    for topic in ["audit/log", ""] {
        let entry =
            myelin_arena::Entry { topic, attrs: b"\x05\x01\0k", payload: b"p", payload_total: 1, identity: Some("me") };
        builder.push(&entry);
    }
    let (good, mut dice) = (builder.into_bytes(), Dice::new(8));
    for _ in 0..REFUSED {
        target("arena", &myelin_attacks::mangle::mangle(&mut dice, good.clone()));
    }
}

#[test]
fn configuration_files() {
    refuse(9, frames::config, |text| {
        target("config", text.as_bytes());
        let sources = Sources { file: Some(("x.toml".into(), text.clone())), dev: true, ..Sources::default() };
        Config::load(&sources).err().map(|_| "refused")
    });
}

#[test]
fn admin_bodies() {
    // Over HTTP to a real router in the end-to-end tests; here without, so that a failure is found by its seed.
    refuse(10, frames::body, |bytes| {
        target("bodies", bytes);
        let read = myelin::admin::read_bodies(bytes);
        read.iter().all(Option::is_some).then_some("refused")
    });
}
