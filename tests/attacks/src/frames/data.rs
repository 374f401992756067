//! Bad data streams: names, events, attribute blocks.

use super::{frame, honest, length, lie};
use crate::Dice;
use crate::mangle::{EDGES, mangle, not_utf8};
use myelin_arena::{AttrsBuilder, attrs};
use myelin_wire::event::EventBuilder;
use myelin_wire::stream::{write_deliver_head, write_name};
use myelin_wire::{EventHead, Stamp};

const NAME: u8 = 0x10;
const EVENTS: u8 = 0x11;
const DELIVER: u8 = 0x12;

/// A well-formed attribute block with a header and three own attributes.
fn block() -> Vec<u8> {
    let mut block = AttrsBuilder::new();
    block.own(attrs::TYPE, b"order.created").own(attrs::KEY, b"k7").header("x-tenant", "acme");
    block.own(attrs::TTL, &60_000_u32.to_le_bytes());
    block.into_bytes()
}

fn one_event(topic_ref: u32, attrs: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Everything here fits the layout.
    drop(EventBuilder { topic_ref, attrs, payload, request: false }.write(&mut bytes));
    bytes
}

/// A well-formed publish stream: two names, three events.
pub fn valid_publish() -> Vec<u8> {
    let mut bytes = Vec::new();
    write_name(&mut bytes, 1, "attack/a");
    write_name(&mut bytes, 65_535, "attack/b");
    let events = [one_event(1, &[], b"one"), one_event(65_535, &block(), b"two"), one_event(1, &[], b"")].concat();
    bytes.extend(honest(EVENTS, &events));
    bytes
}

/// A publish stream that most likely breaks its rules.
pub fn publish(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = if dice.once_in(2) { valid_publish() } else { Vec::new() };
    let payload = dice.noise(60);
    let event = one_event(1, &bad_block(dice), &payload);
    match dice.below(10) {
        0 => return mangle(dice, valid_publish()),
        1 => bytes.extend(bad_name(dice)),
        2 => {
            // The event's own length lies.
            let mut event = event;
            let len = lie(dice, length(&event) - 4);
            event[..4].copy_from_slice(&len.to_le_bytes());
            bytes.extend(honest(EVENTS, &event));
        }
        3 => {
            // The frame's length lies.
            let len = lie(dice, length(&event));
            bytes.extend(frame(EVENTS, 0, 0, len, &event));
        }
        4 => {
            // The attributes are longer than the event, or flags are set that do not exist.
            let (flags, attrs_len) = (dice.byte(), dice.pick(&EDGES).to_le_bytes());
            let head =
                EventHead { len: 7, flags, topic_ref: 1, attrs_len: u16::from_le_bytes([attrs_len[0], attrs_len[1]]) };
            bytes.extend(honest(EVENTS, &[&head.to_bytes()[..], &payload].concat()));
        }
        5 => bytes.extend(honest(EVENTS, &event)),
        6 => {
            // A reference that nobody announced.
            let reference = dice.pick(&EDGES).wrapping_add(3);
            bytes.extend(honest(EVENTS, &one_event(reference, &[], &payload)));
        }
        7 => {
            // A frame that belongs elsewhere, or to nobody.
            let kind = *dice.pick(&[DELIVER, 0x01, 0x44, 0x7e, 0xff]);
            bytes.extend(frame(kind, dice.byte() & 3, 0, length(&payload), &payload));
        }
        8 => {
            // An event over the limit in a frame that has room for it: its bytes need not come.
            let head = EventHead { len: 3 << 20, flags: 0, topic_ref: 1, attrs_len: 0 };
            bytes.extend(frame(EVENTS, 0, 0, 4 << 20, &head.to_bytes()));
        }
        _ => {
            let cut = dice.below(event.len());
            bytes.extend(honest(EVENTS, &event[..cut]));
        }
    }
    bytes
}

/// A delivery stream that most likely breaks its rules: for clients.
pub fn deliver(dice: &mut Dice) -> Vec<u8> {
    let events = one_event(1, &bad_block(dice), &dice.noise(40));
    let mut bytes = Vec::new();
    write_name(&mut bytes, 1, "attack/a");
    let stamp = Stamp { count: *dice.pick(&EDGES), seq: dice.word(), source_ref: 1, ..Stamp::default() };
    let told = usize::try_from(lie(dice, length(&events))).unwrap_or(0).min(1 << 20);
    write_deliver_head(&mut bytes, &stamp, if dice.once_in(2) { told } else { events.len() });
    bytes.extend(events);
    match dice.below(3) {
        0 => bytes,
        1 => [bytes, honest(EVENTS, b"")].concat(),
        _ => mangle(dice, bytes),
    }
}

/// An event's head with a block and a payload, of which at least one most likely lies.
pub fn event(dice: &mut Dice) -> Vec<u8> {
    let payload = dice.noise(30);
    match dice.below(4) {
        0 => {
            let event = one_event(1, &block(), &payload);
            mangle(dice, event)
        }
        1 => dice.noise(80),
        2 => {
            let attrs_len = dice.pick(&EDGES).to_le_bytes();
            let head = EventHead {
                len: lie(dice, 7 + length(&payload)),
                flags: dice.byte(),
                topic_ref: dice.pick(&EDGES).wrapping_add(1),
                attrs_len: u16::from_le_bytes([attrs_len[0], attrs_len[1]]),
            };
            [&head.to_bytes()[..], &payload].concat()
        }
        _ => one_event(1, &bad_block(dice), &payload),
    }
}

/// An attribute block with one fault: each that there is a refusal for.
fn bad_block(dice: &mut Dice) -> Vec<u8> {
    let own = |tag: u8, value: &[u8]| {
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        [&[tag][..], &len.to_le_bytes(), value].concat()
    };
    let header = |name: &[u8], value: &[u8]| {
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        let name_len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        [&[0, name_len][..], name, &len.to_le_bytes(), value].concat()
    };
    match dice.below(10) {
        0 => own(12 + dice.byte() % 240, b"unknown"),
        1 => [own(attrs::KEY, b"a"), own(attrs::KEY, b"b")].concat(),
        2 => own(attrs::TTL, &dice.noise(3)),
        3 => own(attrs::TIME, b"1234567"),
        4 => own(attrs::KEY, &[7; 256]),
        5 => own(attrs::ID, &[b'x'; 1_025]),
        6 => own(*dice.pick(&[attrs::ID, attrs::TYPE, attrs::REPLY_TO]), not_utf8(dice)),
        7 => header(b"", b"no name"),
        8 => header(not_utf8(dice), b"v"),
        _ => {
            let mut whole = block();
            whole.truncate(1 + dice.below(whole.len() - 1));
            // Cut between two attributes it would still be whole.
            whole.push(attrs::SCHEMA);
            whole
        }
    }
}

fn bad_name(dice: &mut Dice) -> Vec<u8> {
    let reference = dice.pick(&EDGES).to_le_bytes();
    let text: Vec<u8> = match dice.below(5) {
        0 => not_utf8(dice).to_vec(),
        1 => super::topic(dice),
        2 => vec![b'a'; 2_049 + dice.below(9)],
        3 => return honest(NAME, &dice.noise(4)),
        _ => return frame(NAME, 0, 0, *dice.pick(&EDGES), &reference),
    };
    honest(NAME, &[&reference[..], &text].concat())
}
