//! Control streams.

use crate::{cuts, pieces};
use myelin_wire::frame::{FLAG_SKIPPABLE, FrameHeader, HEADER_BYTES};
use myelin_wire::limits::CONTROL_DEPTH_MAX;
use myelin_wire::message::{
    Ack, Exception, GoAway, Hello, MessageDecoder, Overflow, Receipt, Refused, Subscribe, SubscriptionId, Token,
    Welcome,
};
use myelin_wire::{Code, FrameType, Limits, Message};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn words() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..40).prop_map(|chars| chars.into_iter().collect())
}

fn code() -> impl Strategy<Value = Code> {
    proptest::sample::select(Code::ALL)
}

fn limits() -> impl Strategy<Value = Limits> {
    let parts = (any::<u32>(), any::<u16>(), any::<u16>(), any::<u32>());
    parts.prop_map(|(payload_bytes, headers, attributes_bytes, subscriptions)| Limits {
        payload_bytes,
        headers,
        attributes_bytes,
        subscriptions,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let overflow = proptest::sample::select(vec![Overflow::DropOldest, Overflow::Disconnect, Overflow::Pause]);
    let token = proptest::option::of(words().prop_map(Token));
    let hello = (any::<u16>(), any::<u16>(), words(), overflow, token);
    let welcome = (any::<u16>(), words(), words(), words(), limits());
    let exceptions = proptest::collection::vec((any::<u64>(), code(), words()), 0..5);
    let id = any::<u32>().prop_map(|id| SubscriptionId { id });
    prop_oneof![
        hello.prop_map(|(min, max, client, overflow, token)| {
            Message::Hello(Hello { min, max, client, overflow, token })
        }),
        welcome.prop_map(|(version, site, router, inbox, limits)| {
            Message::Welcome(Welcome { version, site, router, inbox, limits })
        }),
        (any::<u32>(), words(), proptest::option::of(words()))
            .prop_map(|(id, pattern, group)| Message::Subscribe(Subscribe { id, pattern, group })),
        id.clone().prop_map(Message::Unsubscribe),
        id.clone().prop_map(Message::Subscribed),
        id.prop_map(Message::Unsubscribed),
        any::<u64>().prop_map(|events| Message::Receipt(Receipt { events })),
        (any::<u64>(), exceptions).prop_map(|(seq, list)| {
            let exceptions = list.into_iter().map(|(seq, code, detail)| Exception(seq, code, detail)).collect();
            Message::Ack(Ack { seq, exceptions })
        }),
        (any::<u32>(), code(), words()).prop_map(|(id, code, message)| Message::Refused(Refused { id, code, message })),
        (code(), words(), any::<u32>()).prop_map(|(code, message, drain_ms)| Message::GoAway(GoAway {
            code,
            message,
            drain_ms
        })),
        Just(Message::Bye),
    ]
}

/// All messages of a control stream that comes in pieces that end at `cuts`, and how it ended.
fn read_control(stream: &[u8], cuts: &BTreeSet<usize>) -> (Vec<Message>, Option<Code>) {
    let mut decoder = MessageDecoder::new();
    let mut messages = Vec::new();
    for piece in pieces(stream, cuts) {
        decoder.push(piece);
        loop {
            match decoder.poll() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(refusal) => return (messages, Some(refusal.code)),
            }
        }
    }
    (messages, None)
}

fn encoded(messages: &[Message]) -> Vec<u8> {
    let mut stream = Vec::new();
    messages.iter().for_each(|message| message.encode(&mut stream).unwrap());
    stream
}

proptest! {
    #[test]
    fn messages_come_back_however_the_stream_is_cut(
        messages in proptest::collection::vec(message(), 0..6), cuts in cuts(),
    ) {
        prop_assert_eq!(read_control(&encoded(&messages), &cuts), (messages, None));
    }

    #[test]
    fn a_truncated_message_is_waited_for(message in message()) {
        let frame = encoded(std::slice::from_ref(&message));
        for cut in 0..frame.len() {
            prop_assert_eq!(read_control(&frame[..cut], &BTreeSet::new()), (vec![], None), "cut at {}", cut);
        }
    }

    /// The body cut short under a header that says so: a map that ends early is refused, never half-read.
    #[test]
    fn a_truncated_body_is_refused(message in message().prop_filter("BYE has no body", |m| *m != Message::Bye)) {
        let frame = encoded(&[message]);
        for cut in HEADER_BYTES..frame.len() {
            let mut short = frame[..cut].to_vec();
            short[..4].copy_from_slice(&u32::try_from(cut - HEADER_BYTES).unwrap().to_le_bytes());
            prop_assert_eq!(read_control(&short, &BTreeSet::new()), (vec![], Some(Code::Malformed)), "cut at {}", cut);
        }
    }

    #[test]
    fn a_lying_length_of_a_control_frame_is_noticed(message in message()) {
        let frame = encoded(&[message.clone(), Message::Bye]);
        let body_len = u32::from_le_bytes(frame[..4].try_into().unwrap());
        for lie in [0, body_len.wrapping_sub(1), body_len + 1, 64 * 1024 + 1, u32::MAX] {
            if lie == body_len {
                continue;
            }
            let mut lying = frame.clone();
            lying[..4].copy_from_slice(&lie.to_le_bytes());
            let read = read_control(&lying, &BTreeSet::new());
            prop_assert_ne!(&read, &(vec![message.clone(), Message::Bye], None), "body-len {}", lie);
            if lie > 64 * 1024 {
                prop_assert_eq!(read, (vec![], Some(Code::FrameTooLarge)));
            }
        }
    }

    #[test]
    fn unknown_keys_and_skippable_frames_change_nothing(
        messages in proptest::collection::vec(message(), 1..4), kind in 0x50..=0xff_u8,
        body in proptest::collection::vec(any::<u8>(), 0..50), cuts in cuts(),
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            let header = FrameHeader { body_len: body.len().try_into().unwrap(), kind, flags: FLAG_SKIPPABLE };
            stream.extend_from_slice(&header.to_bytes());
            stream.extend_from_slice(&body);
            stream.extend_from_slice(&with_unknown_key(message));
        }
        prop_assert_eq!(read_control(&stream, &cuts), (messages, None));
    }

    #[test]
    fn garbage_on_a_control_stream_never_panics(
        mut garbage in proptest::collection::vec(any::<u8>(), 0..200), kind in any::<u8>(), cuts in cuts(),
    ) {
        let whole = read_control(&garbage, &BTreeSet::new());
        prop_assert_eq!(read_control(&garbage, &cuts), whole);
        // Most random bytes fail at the header; with a good header the body is read.
        if garbage.len() >= HEADER_BYTES {
            let body_len = u32::try_from(garbage.len() - HEADER_BYTES).unwrap();
            garbage[..HEADER_BYTES].copy_from_slice(&FrameHeader { body_len, kind, flags: 0 }.to_bytes());
            let whole = read_control(&garbage, &BTreeSet::new());
            prop_assert_eq!(read_control(&garbage, &cuts), whole);
        }
    }

    #[test]
    fn a_flipped_bit_never_panics(message in message(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut frame = encoded(&[message]);
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        read_control(&frame, &BTreeSet::new());
    }
}

/// The frame of `message` with `"x-new": nil` in front of its map.
fn with_unknown_key(message: &Message) -> Vec<u8> {
    let mut frame = encoded(std::slice::from_ref(message));
    if *message == Message::Bye {
        return frame;
    }
    assert!(frame[HEADER_BYTES] < 0x8f, "a map of fewer than 15 keys");
    frame[HEADER_BYTES] += 1;
    let key = b"\xa5x-new\xc0";
    frame.splice(HEADER_BYTES + 1..HEADER_BYTES + 1, key.iter().copied());
    let body_len = u32::try_from(frame.len() - HEADER_BYTES).unwrap();
    frame[..4].copy_from_slice(&body_len.to_le_bytes());
    frame
}

#[test]
fn a_limit_of_a_later_version_is_no_fault() {
    let limits = [&[0x82][..], b"\xa7headers\x07", b"\xa5later\x01"].concat();
    let texts = b"\xa7version\x01\xa4site\xa1s\xa6router\xa1r\xa5inbox\xa1i\xa6limits";
    let body = [&[0x85][..], texts, &limits].concat();
    let Message::Welcome(welcome) = Message::decode(FrameType::Welcome, &body).unwrap() else { panic!("a WELCOME") };
    assert_eq!(welcome.limits, Limits { headers: 7, ..Limits::default() });
}

#[test]
fn a_frame_of_the_other_side_is_refused_by_its_header() {
    for number in (0..=u8::MAX).filter(|number| FrameType::from_number(*number).is_some_and(|kind| !kind.is_data())) {
        let kind = FrameType::from_number(number).unwrap();
        assert!(kind.is_from_client() != kind.is_from_router(), "{kind:?} is of one side");
        // The body is a map without keys and then not there at all: neither is looked at.
        for (body_len, body) in [(1, &b"\x80"[..]), (64 * 1024, b"")] {
            let mut decoder = MessageDecoder::new();
            decoder.push(&FrameHeader::new(kind, body_len).to_bytes());
            decoder.push(body);
            let refused = decoder.poll_if(|came| came != kind).map_err(|refusal| refusal.code);
            assert_eq!(refused, Err(Code::OutOfOrder), "{kind:?}");
        }
    }
}

#[test]
fn nil_says_the_same_as_leaving_a_key_out() {
    let hello = Message::decode(FrameType::Hello, b"\x84\xa3min\x01\xa3max\x01\xa6client\xc0\xa8overflow\xc0");
    let default = Hello { min: 1, max: 1, client: String::new(), overflow: Overflow::DropOldest, token: None };
    assert_eq!(hello, Ok(Message::Hello(default)));
    let ack = Message::decode(FrameType::Ack, b"\x82\xa3seq\x05\xaaexceptions\xc0");
    assert_eq!(ack, Ok(Message::Ack(Ack { seq: 5, exceptions: Vec::new() })));
    let subscribe = Message::decode(FrameType::Subscribe, b"\x83\xa2id\x01\xa7pattern\xa1a\xa5group\xc0");
    assert_eq!(subscribe, Ok(Message::Subscribe(Subscribe { id: 1, pattern: "a".to_owned(), group: None })));
    let required = Message::decode(FrameType::Receipt, b"\x81\xa6events\xc0").unwrap_err();
    assert_eq!(required.code, Code::Malformed, "{required}");
    let twice = Message::decode(FrameType::Hello, b"\x84\xa3min\x01\xa3max\x01\xa6client\xc0\xa6client\xa1a");
    assert_eq!(twice.unwrap_err().code, Code::Malformed);
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| {
        let body = [&b"\x82\xa6events\x05\xa1x"[..], &vec![0x91; levels - 1], &[0xc0]].concat();
        Message::decode(FrameType::Receipt, &body)
    };
    assert_eq!(nested(CONTROL_DEPTH_MAX), Ok(Message::Receipt(Receipt { events: 5 })));
    assert_eq!(nested(CONTROL_DEPTH_MAX + 1).unwrap_err().code, Code::Malformed);
    assert_eq!(nested(60_000).unwrap_err().code, Code::Malformed);
}

#[test]
fn a_code_of_a_later_version_counts_as_internal() {
    let body = b"\x83\xa2id\x01\xa4code\xcd\x03\xe7\xa7message\xa0";
    let Message::Refused(refused) = Message::decode(FrameType::Refused, body).unwrap() else { panic!("a REFUSED") };
    assert_eq!(refused.code, Code::Internal);
}

#[test]
fn a_control_message_over_the_limit_is_not_written() {
    let mut out = Vec::new();
    let subscribe = Subscribe { id: 1, pattern: "x".repeat(64 * 1024), group: None };
    assert_eq!(Message::Subscribe(subscribe).encode(&mut out).unwrap_err().code, Code::FrameTooLarge);
    assert!(out.is_empty());
}
