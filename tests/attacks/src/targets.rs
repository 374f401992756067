//! The readers of strangers' bytes as `fn(&[u8])`: none may panic, hang, or believe what it is told.
//!
//! Each checks more than that it survives: what was read in pieces is what was read whole, what is accepted can be
//! written again and read the same, and a second, naive implementation of the rule agrees.

use myelin_arena::{Arena, ArenaBuilder, Attrs, AttrsBuilder, Verdict, attrs};
use myelin_wire::frame::FrameType;
use myelin_wire::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};
use myelin_wire::message::MessageDecoder;
use myelin_wire::stream::{DataDecoder, Item};
use myelin_wire::topic::{validate_pattern, validate_topic_bytes};
use myelin_wire::{Code, EventHead, Limits, Message, Pattern, Refusal, Stamp};

mod artifacts;
#[cfg(feature = "policy")]
mod policies;
#[cfg(feature = "schema")]
mod schemas;
mod signatures;
mod tokens;

/// Headers of an event, as the default limits have it.
const HEADERS_MAX: usize = 64;
/// A refusal is for people: at most so many bytes, whatever was refused.
const REFUSAL_BYTES_MAX: usize = 2_000;
/// Rebuilding an arena whose entries overlap multiplies its bytes; beyond this it is only read.
const REBUILT_BYTES_MAX: usize = 1 << 20;

/// A reader under attack.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of the fuzz target, and of the folder with its corpus.
    pub name: &'static str,
    /// Reads the bytes; panics where something is wrong.
    pub run: fn(&[u8]),
}

/// Every target of this build.
pub const TARGETS: &[Target] = &[
    Target { name: "control", run: control },
    Target { name: "publish", run: publish },
    Target { name: "deliver", run: deliver },
    Target { name: "event", run: event },
    Target { name: "topics", run: topics },
    Target { name: "arena", run: arena },
    Target { name: "oci", run: artifacts::oci },
    Target { name: "token", run: tokens::token },
    Target { name: "signature", run: signatures::signature },
    Target { name: "trust", run: signatures::trust },
    #[cfg(feature = "schema")]
    Target { name: "schema", run: schemas::schema },
    #[cfg(feature = "schema")]
    Target { name: "payload", run: schemas::payload },
    #[cfg(feature = "router")]
    Target { name: "config", run: with_router::config },
    #[cfg(feature = "router")]
    Target { name: "bodies", run: with_router::bodies },
    #[cfg(feature = "router")]
    Target { name: "module", run: with_router::module },
    #[cfg(feature = "policy")]
    Target { name: "policy", run: policies::policy },
];

/// The target called `name`.
///
/// # Panics
/// When this build has none of that name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("there is no target `{name}` in this build")).run)(data);
}

/// What became of a stream of control frames.
#[derive(Debug, PartialEq)]
pub struct ControlRead {
    /// The messages before the end or the refusal.
    pub messages: Vec<Message>,
    /// Why reading ended.
    pub refusal: Option<Refusal>,
}

/// Reads control frames that come in these pieces.
pub fn read_control<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> ControlRead {
    let (mut decoder, mut read) = (MessageDecoder::new(), ControlRead { messages: Vec::new(), refusal: None });
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.poll() {
                Ok(Some(message)) => read.messages.push(message),
                Ok(None) => break,
                Err(refusal) => {
                    read.refusal = Some(refusal);
                    return read;
                }
            }
        }
    }
    read
}

/// The control stream, either way.
pub fn control(data: &[u8]) {
    let read = read_control([data]);
    assert_eq!(read, read_control(data.chunks(step(data))), "in pieces as whole");
    bounded(read.refusal.as_ref());
    for message in &read.messages {
        let mut again = Vec::new();
        match message.encode(&mut again) {
            Ok(()) => {
                assert_eq!(read_control([&again[..]]).messages, std::slice::from_ref(message), "written and read again")
            }
            // Names of the fields were left out in what was read.
            Err(refusal) => assert_eq!(refusal.code, Code::FrameTooLarge),
        }
    }
}

/// Something that stood on a data stream.
#[derive(Debug, PartialEq)]
pub enum Stood {
    /// A name and its reference.
    Name(u32, Vec<u8>),
    /// The head of a DELIVER frame.
    Stamp(Stamp),
    /// An event: head, attributes, payload.
    Event(EventHead, Vec<u8>, Vec<u8>),
    /// An event over the limit.
    Oversized(EventHead),
}

/// What became of a data stream.
#[derive(Debug, PartialEq)]
pub struct DataRead {
    /// What stood there before the end or the refusal.
    pub items: Vec<Stood>,
    /// Why reading ended.
    pub refusal: Option<Refusal>,
    /// Whether the stream may end here.
    pub is_at_boundary: bool,
}

/// Reads a data stream that comes in these pieces.
pub fn read_data<'a>(carries: FrameType, pieces: impl IntoIterator<Item = &'a [u8]>) -> DataRead {
    let len_max = match carries {
        FrameType::Deliver => Limits::default().delivered_len_max(),
        _ => Limits::default().event_len_max(),
    };
    let mut decoder = DataDecoder::new(carries, len_max);
    let mut read = DataRead { items: Vec::new(), refusal: None, is_at_boundary: false };
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.poll() {
                Ok(Some(item)) => read.items.push(stood(&decoder, item)),
                Ok(None) => break,
                Err(refusal) => {
                    read.refusal = Some(refusal);
                    return read;
                }
            }
        }
        decoder.discard();
    }
    read.is_at_boundary = decoder.is_at_boundary();
    read
}

fn stood(decoder: &DataDecoder, item: Item) -> Stood {
    match item {
        Item::Name { reference, name } => Stood::Name(reference, decoder.buffer()[name].to_vec()),
        Item::Stamp(stamp) => Stood::Stamp(stamp),
        Item::Event(span) => {
            let buffer = decoder.buffer();
            Stood::Event(span.head, span.attrs(buffer).to_vec(), span.payload(buffer).to_vec())
        }
        Item::Oversized(head) => Stood::Oversized(head),
    }
}

/// The publish stream, as a router reads it.
pub fn publish(data: &[u8]) {
    data_stream(FrameType::Events, data);
}

/// The delivery stream, as a client reads it.
pub fn deliver(data: &[u8]) {
    data_stream(FrameType::Deliver, data);
}

fn data_stream(carries: FrameType, data: &[u8]) {
    let (read, pieces) = (read_data(carries, [data]), read_data(carries, data.chunks(step(data))));
    // A frame that ends inside a head is refused as soon as that is seen, so that the sentence may be another.
    assert_eq!((&read.items, read.is_at_boundary), (&pieces.items, pieces.is_at_boundary), "in pieces as whole");
    let code = |read: &DataRead| read.refusal.as_ref().map(|refusal| refusal.code);
    assert_eq!(code(&read), code(&pieces), "in pieces as whole");
    bounded(read.refusal.as_ref());
    for item in &read.items {
        if let Stood::Event(head, block, payload) = item {
            assert_eq!(head.total_bytes(), 11 + block.len() + payload.len(), "an event is as long as it says");
            attributes(block);
        }
    }
}

/// An event's head, and the same bytes as an attribute block.
pub fn event(data: &[u8]) {
    match EventHead::parse(data) {
        Ok(Some(head)) => {
            assert_eq!(head.to_bytes(), data[..11]);
            assert!(u64::from(head.payload_len()) + u64::from(head.attrs_len) + 7 == u64::from(head.len));
        }
        Ok(None) => assert!(data.len() < 11),
        Err(refusal) => bounded(Some(&refusal)),
    }
    attributes(data);
}

fn attributes(block: &[u8]) {
    let view = Attrs::new(block);
    assert!(view.iter().count() <= block.len(), "reading ends");
    if attrs::validate(block, HEADERS_MAX).is_err() {
        return;
    }
    let mut again = AttrsBuilder::new();
    for attr in view.iter() {
        again.attr(&attr);
        match attr.tag {
            attrs::HEADER => assert!(view.header(attr.name).is_some(), "a header that passed can be found"),
            tag => assert_eq!(view.own(tag), Some(attr.value), "an own attribute stands once"),
        }
    }
    assert_eq!(again.as_bytes(), block, "written again");
    assert_eq!(view.own(attrs::TTL).is_some(), view.ttl_ms().is_some());
    assert_eq!(view.own(attrs::TIME).is_some(), view.time_ns().is_some());
}

/// Topics and patterns: up to the first line break one, the other behind it.
pub fn topics(data: &[u8]) {
    let (left, right) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, data),
    };
    for side in [left, right] {
        let naive = std::str::from_utf8(side).is_ok_and(|text| is_valid(text, false));
        assert_eq!(validate_topic_bytes(side).is_ok(), naive, "topic {side:?}");
    }
    let (Ok(left), Ok(right)) = (std::str::from_utf8(left), std::str::from_utf8(right)) else { return };
    assert_eq!(validate_pattern(left).is_ok(), is_valid(left, true), "pattern {left:?}");
    let (Ok(wide), Ok(narrow)) = (Pattern::new(left), Pattern::new(right)) else { return };
    let implied = wide.implies(&narrow);
    for topic in samples(&narrow).into_iter().filter(|topic| is_valid(topic, false)) {
        for pattern in [&wide, &narrow] {
            assert_eq!(pattern.matches(&topic), naive_match(pattern.as_str(), &topic), "{pattern:?} and {topic:?}");
        }
        assert!(!implied || !narrow.matches(&topic) || wide.matches(&topic), "{wide:?} implies {narrow:?}: {topic:?}");
    }
}

/// Topics that the pattern may match, and some that it may not.
fn samples(pattern: &Pattern) -> Vec<String> {
    let fill = |one: &str, deep: &str| {
        let levels = pattern.levels().map(|level| match level {
            "*" => one,
            "**" => deep,
            other => other,
        });
        levels.filter(|level| !level.is_empty()).collect::<Vec<_>>().join("/")
    };
    vec![fill("a", ""), fill("a", "b"), fill("a", "b/c"), fill("$a", "$b"), fill("a", "b") + "/more"]
}

fn is_valid(text: &str, is_pattern: bool) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    let fine = |(index, level): (usize, &&str)| match *level {
        "" => false,
        "*" => is_pattern,
        "**" => is_pattern && index + 1 == levels.len(),
        other => !other.contains('*'),
    };
    (1..=TOPIC_BYTES_MAX).contains(&text.len())
        && levels.len() <= TOPIC_LEVELS_MAX
        && !text.chars().any(char::is_control)
        && levels.iter().enumerate().all(fine)
}

fn naive_match(pattern: &str, topic: &str) -> bool {
    fn levels(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            (["**"], _) => true,
            ([], []) => true,
            ([one, pattern @ ..], [level, topic @ ..]) => (*one == "*" || one == level) && levels(pattern, topic),
            _ => false,
        }
    }
    let (pattern, topic): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), topic.split('/').collect());
    !(topic[0].starts_with('$') && pattern[0].starts_with('*')) && levels(&pattern, &topic)
}

/// An arena, as a filter may hand it back, and the same bytes as verdicts.
pub fn arena(data: &[u8]) {
    for verdict in data.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes) {
        if let Ok(kind) = Verdict(verdict).check(3, 5) {
            assert_eq!(Verdict(verdict).kind(), Ok(kind));
            assert!(Verdict(verdict).routes() < 1 << 5, "only declared routes");
        }
    }
    let Ok(view) = Arena::new(data) else { return };
    assert!(view.len() <= data.len() / 32, "the table is there");
    let entries: Vec<_> = view.entries().collect();
    let Ok(entries) = entries.into_iter().collect::<Result<Vec<_>, _>>() else { return };
    let bytes = entries.iter().map(|entry| entry.topic.len() + entry.attrs.len() + entry.payload.len());
    if bytes.sum::<usize>() > REBUILT_BYTES_MAX {
        return;
    }
    let mut builder = ArenaBuilder::new(entries.len());
    entries.iter().for_each(|entry| builder.push(entry));
    let again = builder.into_bytes();
    let again: Vec<_> = Arena::new(&again).expect("our own").entries().collect();
    for (entry, again) in entries.iter().zip(&again) {
        let again = again.expect("our own");
        assert_eq!((entry.topic, entry.attrs, entry.payload), (again.topic, again.attrs, again.payload));
    }
}

/// Whole reads are compared with reads in pieces of this size, which the bytes themselves choose.
fn step(data: &[u8]) -> usize {
    data.first().map_or(1, |byte| 1 + usize::from(byte % 13))
}

fn bounded(refusal: Option<&Refusal>) {
    if let Some(refusal) = refusal {
        assert!(refusal.message.len() < REFUSAL_BYTES_MAX, "a refusal of {} bytes", refusal.message.len());
    }
}

/// Targets that need the whole router.
#[cfg(feature = "router")]
mod with_router {
    use super::REFUSAL_BYTES_MAX;
    use myelin::config::{Config, Sources};
    use myelin_engine::{ModuleLimits, inspect, parse_vectors};

    /// A configuration file.
    pub(super) fn config(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else { return };
        let file = Some(("myelin.toml".into(), text.to_owned()));
        let sources = Sources { file, dev: true, ..Sources::default() };
        if let Err(errors) = Config::load(&sources) {
            assert!(!errors.0.is_empty(), "a refusal says why");
            for error in &errors.0 {
                let told = error.place.len() + error.problem.len() + error.remedy.len();
                assert!(told < REFUSAL_BYTES_MAX, "{told} bytes: {error:?}");
                assert!(!error.problem.is_empty() && !error.remedy.is_empty(), "{error:?}");
            }
        }
    }

    /// The bodies of the admin API.
    pub(super) fn bodies(data: &[u8]) {
        for refused in myelin::admin::read_bodies(data).into_iter().flatten() {
            assert!(refused.len() < REFUSAL_BYTES_MAX, "{} bytes", refused.len());
        }
    }

    /// An uploaded module, and the same bytes as its test vectors.
    pub(super) fn module(data: &[u8]) {
        let limits = ModuleLimits::default();
        if let Err(refusal) = inspect(data, &limits) {
            assert!(!refusal.code().is_empty() && refusal.to_string().len() < REFUSAL_BYTES_MAX, "{refusal}");
        }
        if let Err(refusal) = parse_vectors(data, &limits) {
            assert!(refusal.len() < REFUSAL_BYTES_MAX, "{refusal}");
        }
    }
}
