//! Bad control frames: MessagePack maps behind a header.

use super::{frame, honest, length, lie};
use crate::Dice;
use crate::mangle::{EDGES, mangle, not_utf8};
use myelin_wire::message::{
    Ack, Exception, GoAway, Hello, Message, Overflow, Receipt, Refused, Subscribe, SubscriptionId, Welcome,
};
use myelin_wire::{Code, Limits};

/// Numbers of the types that travel on a control stream.
const KINDS: [u8; 11] = [0x01, 0x02, 0x03, 0x04, 0x05, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46];
/// The keys of all messages together.
const KEYS: [&str; 20] = [
    "min",
    "max",
    "client",
    "overflow",
    "version",
    "site",
    "router",
    "inbox",
    "limits",
    "id",
    "pattern",
    "group",
    "events",
    "seq",
    "exceptions",
    "code",
    "message",
    "drain_ms",
    "payload_bytes",
    "unknown",
];

/// A well-formed message of every kind, clients' first.
pub fn valid_messages() -> Vec<Message> {
    let (message, text) = (|| "why".to_owned(), |text: &str| text.to_owned());
    vec![
        Message::Hello(Hello { min: 1, max: 1, client: text("attack/1"), overflow: Overflow::Pause, token: None }),
        Message::Subscribe(Subscribe { id: 1, pattern: text("a/*/**"), group: None }),
        Message::Subscribe(Subscribe { id: 2, pattern: text("jobs/*"), group: Some(text("workers")) }),
        Message::Unsubscribe(SubscriptionId { id: 1 }),
        Message::Receipt(Receipt { events: 7 }),
        Message::Bye,
        Message::Welcome(Welcome {
            version: 1,
            site: text("local"),
            router: text("r1"),
            inbox: text("$inbox/1-0-0-0"),
            limits: Limits::default(),
        }),
        Message::Subscribed(SubscriptionId { id: 1 }),
        Message::Unsubscribed(SubscriptionId { id: 1 }),
        Message::Ack(Ack { seq: 9, exceptions: vec![Exception(3, Code::Denied, text("/id"))] }),
        Message::Refused(Refused { id: 1, code: Code::InvalidPattern, message: message() }),
        Message::GoAway(GoAway { code: Code::Draining, message: message(), drain_ms: 2_000 }),
    ]
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    // None of the messages above is too large.
    drop(message.encode(&mut bytes));
    bytes
}

/// A piece of a control stream that most likely breaks its rules.
pub fn control(dice: &mut Dice) -> Vec<u8> {
    let messages = valid_messages();
    let valid = encoded(dice.pick(&messages));
    let kind = *dice.pick(&KINDS);
    match dice.below(9) {
        0 => honest(dice.byte(), &dice.noise(200)),
        1 => mangle(dice, valid),
        2 => {
            let two = [valid, encoded(dice.pick(&messages))].concat();
            mangle(dice, two)
        }
        3 => {
            let body = valid.get(8..).unwrap_or_default();
            let len = lie(dice, length(body));
            frame(kind, 0, 0, len, body)
        }
        4 => {
            let zero = if dice.once_in(2) { 1 << dice.below(16) } else { 0 };
            frame(dice.byte(), dice.byte(), zero, 2, &[0x80, 0xc0])
        }
        5 => honest(kind, &odd_map(dice)),
        6 => honest(kind, &deep(dice)),
        7 => honest(kind, &promise(dice)),
        _ => {
            // Not a map at all, or more than one.
            let body = match dice.below(3) {
                0 => value(dice),
                1 => [odd_map(dice), odd_map(dice)].concat(),
                _ => [&valid[8.min(valid.len())..], &dice.noise(9)].concat(),
            };
            honest(kind, &body)
        }
    }
}

/// A map whose keys are known and whose values are what nobody expects there; a key may stand twice.
fn odd_map(dice: &mut Dice) -> Vec<u8> {
    let entries = dice.below(6);
    let mut bytes = vec![0x80 | u8::try_from(entries).unwrap_or(0)];
    for _ in 0..entries {
        match dice.below(12) {
            0 => bytes.extend(value(dice)),
            1 => bytes.extend(text(not_utf8(dice))),
            _ => bytes.extend(text(dice.pick(&KEYS).as_bytes())),
        }
        bytes.extend(value(dice));
    }
    bytes
}

/// A MessagePack value of some sort.
fn value(dice: &mut Dice) -> Vec<u8> {
    match dice.below(12) {
        0 => vec![0xc0],
        1 => vec![*dice.pick(&[0xc2, 0xc3, 0xc1])],
        2 => [&[0xcf][..], &dice.word().to_be_bytes()].concat(),
        3 => [&[0xd3][..], &(-1_i64).to_be_bytes()].concat(),
        4 => [&[0xcb][..], &f64::NAN.to_be_bytes()].concat(),
        5 => [&[0xce][..], &dice.pick(&EDGES).to_be_bytes()].concat(),
        6 => text(not_utf8(dice)),
        7 => text(&b"x".repeat(dice.below(300))),
        8 => [&[0xc4, 3][..], b"bin"].concat(),
        9 => [&[0xd4, dice.byte()][..], &[0]].concat(),
        10 => [vec![0x92], value(dice), value(dice)].concat(),
        _ => [vec![0x81], text(b"a"), value(dice)].concat(),
    }
}

/// A text or, for short ones now and then, a form of it that is longer than it needs to be.
fn text(bytes: &[u8]) -> Vec<u8> {
    let len = length(bytes).to_be_bytes();
    match bytes.len() {
        0..=31 => [&[0xa0 | len[3]][..], bytes].concat(),
        32..=255 => [&[0xd9, len[3]][..], bytes].concat(),
        _ => [&[0xdb][..], &len, bytes].concat(),
    }
}

/// A map with one unknown key whose value is nested deeper than allowed, closed or not.
fn deep(dice: &mut Dice) -> Vec<u8> {
    let depth = *dice.pick(&[31, 32, 33, 64, 1_000, 20_000]);
    let mut bytes = vec![0x81];
    bytes.extend(text(b"unknown"));
    for _ in 0..depth {
        match dice.below(2) {
            0 => bytes.push(0x91),
            _ => bytes.extend([0x81, 0xa0]),
        }
    }
    if dice.once_in(2) {
        bytes.push(0xc0);
    }
    bytes
}

/// Announces more elements or bytes than there can be.
fn promise(dice: &mut Dice) -> Vec<u8> {
    let many = dice.pick(&EDGES).to_be_bytes();
    match dice.below(4) {
        0 => [&[0xdf][..], &many, &dice.noise(9)].concat(),
        marker => {
            let marker = [0xdd, 0xdb, 0xc6][marker - 1];
            let key = *dice.pick(&["exceptions", "pattern", "client", "unknown"]);
            [vec![0x81], text(key.as_bytes()), vec![marker], many.to_vec(), dice.noise(9)].concat()
        }
    }
}
