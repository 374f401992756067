//! `docs/PROTOCOL.md` is what strangers write clients from: its vectors and its tables of numbers are read here, so
//! that the page cannot say anything else than the code does.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin_arena::{Arena, ArenaBuilder, ArenaError, Entry, Kind, Verdict, VerdictError};
use myelin_wire::event::HEAD_BYTES;
use myelin_wire::frame::{FrameHeader, HEADER_BYTES};
use myelin_wire::message::MessageDecoder;
use myelin_wire::stream::{DataDecoder, Item, write_deliver_head, write_name};
use myelin_wire::{
    AttrError, Attrs, AttrsBuilder, Code, EventBuilder, FrameType, Limits, Message, Pattern, Stamp, attrs,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/PROTOCOL.md");

/// A fenced block of the page: what stands after the fence's backticks, and the lines within.
struct Block {
    info: &'static str,
    text: String,
}

struct Vector {
    name: &'static str,
    bytes: Vec<u8>,
    meaning: Value,
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in PAGE.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(info) => {
                open = true;
                blocks.push(Block { info, text: String::new() });
            }
            None if open => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    assert!(!open, "the last fence of the page is not closed");
    blocks
}

fn vectors() -> Vec<Vector> {
    let blocks = blocks();
    let named = blocks.iter().enumerate().filter_map(|(at, block)| Some((at, block.info.strip_prefix("vector ")?)));
    let vectors: Vec<_> = named
        .map(|(at, name)| {
            let digits: String = blocks[at].text.lines().map(|line| line.split('#').next().unwrap()).collect();
            let digits: String = digits.split_whitespace().collect();
            let beside = blocks.get(at + 1).filter(|block| block.info == "json");
            let meaning = beside.unwrap_or_else(|| panic!("vector {name} has no meaning beside it"));
            Vector {
                name,
                bytes: hex::decode(digits).unwrap_or_else(|fault| panic!("vector {name}: {fault}")),
                meaning: serde_json::from_str(&meaning.text).unwrap_or_else(|fault| panic!("vector {name}: {fault}")),
            }
        })
        .collect();
    let names: BTreeSet<_> = vectors.iter().map(|vector| vector.name).collect();
    assert_eq!(names.len(), vectors.len(), "a vector's name stands twice");
    assert_eq!(PAGE.matches("```vector ").count(), vectors.len());
    vectors
}

/// The vectors whose meaning has `key`; there must be some.
fn vectors_of(key: &str) -> Vec<Vector> {
    let found: Vec<_> = vectors().into_iter().filter(|vector| vector.meaning.get(key).is_some()).collect();
    assert!(!found.is_empty(), "no vector has a meaning with {key}");
    found
}

#[track_caller]
fn same_bytes(vector: &Vector, written: &[u8]) {
    assert_eq!(hex::encode(written), hex::encode(&vector.bytes), "vector {}", vector.name);
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value) -> T {
    value.as_u64().unwrap().try_into().unwrap()
}

/// The bytes that the meaning of an attribute block stands for.
fn block_of(list: &Value) -> Vec<u8> {
    let mut block = AttrsBuilder::new();
    for attr in list.as_array().unwrap() {
        let value = |key: &str| attr.get(key);
        match (value("header"), value("u32"), value("u64"), value("hex")) {
            (Some(name), ..) => block.header(text(name), text(&attr["value"])),
            (_, Some(word), ..) => block.own(number(&attr["tag"]), &number::<u32>(word).to_le_bytes()),
            (_, _, Some(long), _) => block.own(number(&attr["tag"]), &number::<u64>(long).to_le_bytes()),
            (_, _, _, Some(bytes)) => block.own(number(&attr["tag"]), &hex::decode(text(bytes)).unwrap()),
            _ => block.own(number(&attr["tag"]), text(&attr["value"]).as_bytes()),
        };
    }
    block.into_bytes()
}

fn message_of(meaning: &Value) -> Message {
    fn body<T: DeserializeOwned>(meaning: &Value) -> T {
        serde_json::from_value(meaning["body"].clone()).unwrap()
    }
    match text(&meaning["frame"]) {
        "HELLO" => Message::Hello(body(meaning)),
        "SUBSCRIBE" => Message::Subscribe(body(meaning)),
        "UNSUBSCRIBE" => Message::Unsubscribe(body(meaning)),
        "RECEIPT" => Message::Receipt(body(meaning)),
        "BYE" => Message::Bye,
        "WELCOME" => Message::Welcome(body(meaning)),
        "SUBSCRIBED" => Message::Subscribed(body(meaning)),
        "UNSUBSCRIBED" => Message::Unsubscribed(body(meaning)),
        "ACK" => Message::Ack(body(meaning)),
        "REFUSED" => Message::Refused(body(meaning)),
        "GOAWAY" => Message::GoAway(body(meaning)),
        other => panic!("there is no control frame {other}"),
    }
}

#[test]
fn control_vectors_read_and_write_as_they_mean() {
    let mut seen = BTreeSet::new();
    for vector in vectors_of("frame") {
        let message = message_of(&vector.meaning);
        let mut decoder = MessageDecoder::new();
        decoder.push(&vector.bytes);
        assert_eq!(decoder.poll(), Ok(Some(message.clone())), "vector {}", vector.name);
        assert_eq!(decoder.poll(), Ok(None), "vector {}", vector.name);
        if vector.meaning.get("decode_only").is_none() {
            let mut written = Vec::new();
            message.encode(&mut written).unwrap();
            same_bytes(&vector, &written);
            seen.insert(message.frame_type() as u8);
        }
    }
    let all = (0..=u8::MAX).filter(|number| FrameType::from_number(*number).is_some_and(|kind| !kind.is_data()));
    assert_eq!(seen, all.collect(), "every control message has a vector");
}

/// What the decoder finds on a data stream, in the words of the page.
fn items_in(vector: &Vector, mut decoder: DataDecoder) -> Vec<Value> {
    let mut items = Vec::new();
    decoder.push(&vector.bytes);
    while let Some(item) = decoder.poll().unwrap_or_else(|fault| panic!("vector {}: {fault}", vector.name)) {
        items.push(match item {
            Item::Name { reference, name } => {
                json!({"name": {"ref": reference, "text": std::str::from_utf8(&decoder.buffer()[name]).unwrap()}})
            }
            Item::Stamp(stamp) => json!({"stamp": {
                "origin": stamp.origin, "epoch": stamp.epoch, "shard": stamp.shard, "source_ref": stamp.source_ref,
                "subscription": stamp.subscription, "count": stamp.count, "seq": stamp.seq, "time_ns": stamp.time_ns,
                "generation": stamp.generation,
            }}),
            Item::Event(event) => json!({"event": {
                "topic_ref": event.head.topic_ref, "flags": event.head.flags,
                "attrs": hex::encode(event.attrs(decoder.buffer())),
                "payload": std::str::from_utf8(event.payload(decoder.buffer())).unwrap(),
            }}),
            Item::Oversized(head) => json!({"oversized": head.len}),
        });
    }
    assert!(decoder.is_at_boundary(), "vector {} ends within a frame", vector.name);
    items
}

/// The meaning's items with the attributes as bytes, to compare with what a decoder finds.
fn items_of(meaning: &Value) -> Vec<Value> {
    let mut items = meaning["items"].as_array().unwrap().clone();
    for event in items.iter_mut().filter_map(|item| item.get_mut("event")) {
        event["attrs"] = hex::encode(block_of(&event["attrs"])).into();
    }
    items
}

fn write_items(meaning: &Value) -> Vec<u8> {
    let items = meaning["items"].as_array().unwrap();
    let mut out = Vec::new();
    for (at, item) in items.iter().enumerate() {
        if let Some(name) = item.get("name") {
            write_name(&mut out, number(&name["ref"]), text(&name["text"]));
        }
        let mut frame = Vec::new();
        for event in
            items[at..].iter().skip(usize::from(item.get("stamp").is_some())).map_while(|item| item.get("event"))
        {
            let attrs = block_of(&event["attrs"]);
            let builder = EventBuilder {
                topic_ref: number(&event["topic_ref"]),
                attrs: &attrs,
                payload: text(&event["payload"]).as_bytes(),
                request: number::<u8>(&event["flags"]) & myelin_wire::event::FLAG_REQUEST != 0,
            };
            builder.write(&mut frame).unwrap();
        }
        let first_of_run = at == 0 || items[at - 1].get("event").is_none();
        if let Some(stamp) = item.get("stamp") {
            write_deliver_head(&mut out, &stamp_of(stamp), frame.len());
            out.extend_from_slice(&frame);
        } else if item.get("event").is_some() && first_of_run && text(&meaning["stream"]) == "events" {
            out.extend_from_slice(&FrameHeader::new(FrameType::Events, frame.len().try_into().unwrap()).to_bytes());
            out.extend_from_slice(&frame);
        }
    }
    out
}

fn stamp_of(stamp: &Value) -> Stamp {
    Stamp {
        origin: number(&stamp["origin"]),
        epoch: number(&stamp["epoch"]),
        shard: number(&stamp["shard"]),
        source_ref: number(&stamp["source_ref"]),
        subscription: number(&stamp["subscription"]),
        count: number(&stamp["count"]),
        seq: number(&stamp["seq"]),
        time_ns: number(&stamp["time_ns"]),
        generation: number(&stamp["generation"]),
    }
}

fn decoder_for(stream: &str, len_max: u32) -> DataDecoder {
    let carries = match stream {
        "events" => FrameType::Events,
        "deliver" => FrameType::Deliver,
        other => panic!("there is no data stream {other}"),
    };
    DataDecoder::new(carries, len_max)
}

#[test]
fn data_vectors_read_and_write_as_they_mean() {
    let mut streams = BTreeSet::new();
    for vector in vectors_of("stream") {
        let stream = text(&vector.meaning["stream"]);
        let len_max = vector.meaning.get("len_max").map_or_else(|| Limits::default().event_len_max(), number);
        let items = items_in(&vector, decoder_for(stream, len_max));
        assert_eq!(items, items_of(&vector.meaning), "vector {}", vector.name);
        if vector.meaning.get("decode_only").is_none() {
            same_bytes(&vector, &write_items(&vector.meaning));
            streams.insert(stream.to_owned());
        }
        if stream == "deliver" {
            let stamp = items.iter().find_map(|item| item.get("stamp")).map(stamp_of).unwrap();
            let events = items.iter().filter(|item| item.get("event").is_some()).count();
            assert_eq!(stamp.count as usize, events, "vector {}", vector.name);
            let ids: Vec<_> = (0..stamp.count).map(|index| Value::from(stamp.event_id(index))).collect();
            assert_eq!(vector.meaning["ids"], Value::from(ids), "vector {}", vector.name);
        }
    }
    assert_eq!(streams.len(), 2, "both kinds of data stream have vectors that are written, too");
}

#[test]
fn attribute_vectors_read_and_write_as_they_mean() {
    let mut tags = BTreeSet::new();
    for vector in vectors_of("attrs") {
        same_bytes(&vector, &block_of(&vector.meaning["attrs"]));
        assert_eq!(attrs::validate(&vector.bytes, usize::from(Limits::default().headers)), Ok(()));
        tags.extend(Attrs::new(&vector.bytes).iter().map(|attr| attr.tag));
    }
    assert_eq!(tags, (0..=attrs::LAST).collect(), "every tag stands in a vector");
}

#[test]
fn arena_vectors_read_and_write_as_they_mean() {
    for vector in vectors_of("arena") {
        let list = vector.meaning["arena"].as_array().unwrap();
        let blocks: Vec<_> = list.iter().map(|entry| block_of(&entry["attrs"])).collect();
        let entries = list.iter().zip(&blocks).map(|(entry, attrs)| Entry {
            topic: text(&entry["topic"]),
            attrs,
            payload: text(&entry["payload"]).as_bytes(),
            payload_total: number(&entry["payload_total"]),
            identity: entry["identity"].as_str(),
        });
        let entries: Vec<_> = entries.collect();
        let mut builder = ArenaBuilder::new(entries.len());
        entries.iter().for_each(|entry| builder.push(entry));
        same_bytes(&vector, builder.finish());
        let read: Result<Vec<_>, _> = Arena::new(&vector.bytes).unwrap().entries().collect();
        assert_eq!(read.unwrap(), entries, "vector {}", vector.name);
    }
}

fn kind_of(name: &str) -> Kind {
    let kinds = [Kind::Allow, Kind::Deny, Kind::DeadLetter, Kind::Drop, Kind::Redirect, Kind::Add];
    let names = ["allow", "deny", "dead-letter", "drop", "redirect", "add"];
    kinds[names.iter().position(|known| *known == name).unwrap_or_else(|| panic!("there is no kind {name}"))]
}

fn declared(meaning: &Value) -> (usize, usize) {
    (number(&meaning["declared"]["reasons"]), number(&meaning["declared"]["routes"]))
}

#[test]
fn verdict_vectors_read_and_write_as_they_mean() {
    let mut kinds = BTreeSet::new();
    for vector in vectors_of("verdict") {
        let meaning = &vector.meaning["verdict"];
        let flag = |key: &str| meaning[key].as_bool().unwrap();
        let routes = meaning["routes"].as_array().unwrap().iter().fold(0, |set, bit| set | 1_u32 << number::<u32>(bit));
        let kind = kind_of(text(&meaning["kind"]));
        let mut verdict = Verdict::of(kind)
            .with_reason(number(&meaning["reason"]))
            .with_routes(routes)
            .with_emitted(number(&meaning["emitted"]))
            .with_replacement(flag("payload"), flag("attrs"));
        if flag("detail") {
            verdict = verdict.with_detail();
        }
        same_bytes(&vector, &verdict.0.to_le_bytes());
        let (reasons, routes) = declared(&vector.meaning);
        assert_eq!(verdict.check(reasons, routes), Ok(kind), "vector {}", vector.name);
        kinds.insert(kind as u8);
    }
    assert_eq!(kinds, (0..6).collect(), "every kind stands in a vector");
}

fn attribute_fault(bytes: &[u8]) -> &'static str {
    match attrs::validate(bytes, usize::from(Limits::default().headers)).unwrap_err() {
        AttrError::Truncated => "truncated",
        AttrError::UnknownTag(_) => "unknown-tag",
        AttrError::Repeated(_) => "repeated",
        AttrError::NotUtf8(_) => "not-utf8",
        AttrError::BadLength(_) => "bad-length",
        AttrError::EmptyName => "empty-name",
        AttrError::TooManyHeaders => "too-many-headers",
    }
}

fn arena_fault(bytes: &[u8]) -> &'static str {
    match Arena::new(bytes).and_then(|arena| arena.entries().collect::<Result<Vec<_>, _>>()).unwrap_err() {
        ArenaError::Table => "table",
        ArenaError::OutOfBounds => "out-of-bounds",
        ArenaError::NotUtf8 => "not-utf8",
    }
}

fn verdict_fault(vector: &Vector) -> &'static str {
    let (reasons, routes) = declared(&vector.meaning);
    let bits = u64::from_le_bytes(vector.bytes[..].try_into().unwrap());
    match Verdict(bits).check(reasons, routes).unwrap_err() {
        VerdictError::Kind => "kind",
        VerdictError::Reserved => "reserved",
        VerdictError::Reason => "reason",
        VerdictError::Routes => "routes",
        VerdictError::Replacement => "replacement",
    }
}

#[test]
fn malformed_vectors_are_refused_with_their_code() {
    let mut codes = BTreeSet::new();
    for vector in vectors_of("refusal") {
        let refusal = text(&vector.meaning["refusal"]).to_owned();
        let fault = |found: &str| assert_eq!(vector.meaning["fault"], found, "vector {}", vector.name);
        let found = match text(&vector.meaning["on"]) {
            "control" => {
                let mut decoder = MessageDecoder::new();
                decoder.push(&vector.bytes);
                decoder.poll_if(FrameType::is_from_client).expect_err(vector.name).code.name()
            }
            "attrs" => {
                fault(attribute_fault(&vector.bytes));
                Code::InvalidAttributes.name()
            }
            on @ ("arena" | "verdict") => {
                fault(if on == "arena" { arena_fault(&vector.bytes) } else { verdict_fault(&vector) });
                "malformed-output"
            }
            stream => {
                let mut decoder = decoder_for(stream, Limits::default().event_len_max());
                decoder.push(&vector.bytes);
                decoder.poll().expect_err(vector.name).code.name()
            }
        };
        assert_eq!(found, refusal, "vector {}", vector.name);
        codes.insert(refusal);
    }
    for code in [Code::Malformed, Code::UnknownFrame, Code::FrameTooLarge, Code::OutOfOrder, Code::InvalidAttributes] {
        assert!(codes.contains(code.name()), "no vector is refused with {code}");
    }
}

#[test]
fn the_samples_of_topics_and_patterns_hold() {
    let blocks = blocks();
    let samples = &blocks.iter().find(|block| block.info == "json topics").unwrap().text;
    let samples: Value = serde_json::from_str(samples).unwrap();
    let list = |key: &str| samples[key].as_array().filter(|list| !list.is_empty()).unwrap().clone();
    let topic = |sample: &Value| myelin_wire::validate_topic(text(sample)).is_ok();
    let pattern = |sample: &Value| Pattern::new(text(sample)).is_ok();
    let matches = |pair: &Value| Pattern::new(text(&pair[0])).unwrap().matches(text(&pair[1]));
    list("valid").iter().for_each(|sample| assert!(topic(sample), "{sample}"));
    list("invalid").iter().for_each(|sample| assert!(!topic(sample), "{sample}"));
    list("valid_patterns").iter().for_each(|sample| assert!(pattern(sample), "{sample}"));
    list("invalid_patterns").iter().for_each(|sample| assert!(!pattern(sample), "{sample}"));
    list("matches").iter().for_each(|pair| assert!(matches(pair), "{pair}"));
    list("does_not_match").iter().for_each(|pair| assert!(!matches(pair), "{pair}"));
}

/// The first two cells of each row of the table whose head begins with `head`, without backticks.
fn table(head: &str) -> Vec<(String, String)> {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let rows: Vec<_> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    assert!(!rows.is_empty(), "there is no table with the head {head}");
    rows
}

#[test]
fn the_table_of_frames_is_the_code_s() {
    let known = (0..=u8::MAX).filter_map(FrameType::from_number);
    let known: Vec<_> =
        known.map(|kind| (format!("{kind:?}").to_uppercase(), format!("{:#04x}", kind as u8))).collect();
    assert_eq!(table("| type | number |"), known);
}

#[test]
fn the_table_of_refusals_is_the_code_s() {
    let known: Vec<_> = Code::ALL.iter().map(|code| (code.number().to_string(), code.name().to_owned())).collect();
    assert_eq!(table("| number | name |"), known);
}

#[test]
fn the_table_of_tags_is_the_code_s() {
    use attrs::*;
    let own = [("header", HEADER), ("id", ID), ("source", SOURCE), ("type", TYPE), ("time", TIME), ("key", KEY)];
    let rest = [("content-type", CONTENT_TYPE), ("schema", SCHEMA), ("traceparent", TRACEPARENT), ("ttl", TTL)];
    let known = [&own[..], &rest, &[("reply-to", REPLY_TO), ("correlation", CORRELATION)]].concat();
    let known: Vec<_> = known.into_iter().map(|(name, tag)| (tag.to_string(), name.to_owned())).collect();
    assert_eq!(table("| tag | name |"), known);
    assert_eq!(known.len(), usize::from(LAST) + 1);
}

#[test]
fn the_tables_of_limits_are_the_code_s() {
    use myelin_wire::limits::*;
    macro_rules! named { ($($name:ident),* $(,)?) => { [$((stringify!($name).to_owned(), $name.to_string())),*] } }
    use myelin_wire::attrs::{KEY_BYTES_MAX, OWN_VALUE_BYTES_MAX};
    let known = named![
        CONTROL_FRAME_BYTES_MAX,
        CONTROL_DEPTH_MAX,
        DATA_FRAME_BYTES_MAX,
        TOPIC_BYTES_MAX,
        TOPIC_LEVELS_MAX,
        GROUP_BYTES_MAX,
        NAME_BYTES_MAX,
        TOPIC_REFS_MAX,
        PAYLOAD_BYTES_CEILING,
        ACK_EXCEPTIONS_MAX,
        DETAIL_BYTES_MAX,
        CLIENT_NAME_BYTES_MAX,
        HELLO_TIMEOUT_MS,
        UNRECEIPTED_EVENTS_MAX,
        UNRECEIPTED_BYTES_MAX,
        RECEIPT_EVENTS,
        RECEIPT_BYTES,
        RECEIPT_DELAY_MS,
        OWN_VALUE_BYTES_MAX,
        KEY_BYTES_MAX,
    ];
    assert_eq!(table("| constant | value |"), known);
    let in_code = include_str!("../src/limits.rs").matches("\npub const ").count();
    assert_eq!(in_code + 2, known.len(), "every constant of limits.rs stands in the table, and the arena's two");

    let Limits { payload_bytes, headers, attributes_bytes, subscriptions } = Limits::default();
    let announced = [u32::from(headers), u32::from(attributes_bytes), subscriptions];
    let names = ["payload_bytes", "headers", "attributes_bytes", "subscriptions"];
    let known: Vec<_> = names.iter().zip([[payload_bytes].as_slice(), &announced].concat()).collect();
    let known: Vec<_> = known.into_iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
    assert_eq!(table("| key | default |"), known);
}

#[test]
fn the_layouts_of_the_page_have_the_code_s_sizes() {
    let last_offset = |head: &str| table(head).pop().expect("a table has rows").0;
    assert_eq!((HEADER_BYTES, HEAD_BYTES, myelin_wire::event::STAMP_BYTES), (8, 11, 48));
    assert!(PAGE.contains("an 8-byte header") && PAGE.contains("A **stamp** of 48 bytes"));
    assert_eq!(last_offset("| offset | field |"), (HEADER_BYTES - 2).to_string());
    assert_eq!(last_offset("| offset in the entry | field |"), (myelin_arena::batch::ENTRY_BYTES - 4).to_string());
}
