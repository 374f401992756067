#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;
use crate::ids::{RouterNumber, SiteNumber};
use crate::limits::{LINKS_MAX, NAME_BYTES_MAX, ROUTERS_MAX};

fn decode(bytes: &[u8]) -> Result<Option<Control>, Violation> {
    let mut decoder = ControlDecoder::new();
    decoder.push(bytes);
    decoder.poll()
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    [&len.to_le_bytes()[..], &[kind], body].concat()
}

fn encode(control: &Control) -> Vec<u8> {
    let mut out = Vec::new();
    control.encode(&mut out).unwrap();
    out
}

fn hello() -> Hello {
    Hello {
        min: 1,
        max: 2,
        site: SiteNumber::new(3).unwrap(),
        router: RouterNumber(7),
        site_name: "ohio".to_owned(),
        router_name: "r1".to_owned(),
        epoch: 4,
        catalog: CatalogHead { rev: 9, hash: FixedBytes([0xab; 32]) },
        features: 0,
    }
}

fn head(seq: u64) -> InterestHead {
    InterestHead { epoch: 1, seq, hash: FixedBytes([7; 16]) }
}

fn all() -> Vec<Control> {
    let entries = vec![Entry("a/*".parse().unwrap(), None), Entry("b/**".parse().unwrap(), GroupName::new("g"))];
    let status = Status {
        addresses: vec!["10.0.0.1:7443".to_owned()],
        generations: vec![GenerationStatus { generation: 5, state: 2, detail: "why".to_owned() }],
        load: 300,
    };
    let owner = RouterNumber(7);
    vec![
        Control::Hello(hello()),
        Control::HelloRefused(HelloRefused { code: ViolationCode::Version, message: "no".to_owned() }),
        Control::LinkState(LinkState {
            owner,
            epoch: 1,
            version: 2,
            draining: true,
            links: vec![(RouterNumber(1), 30), (RouterNumber(2), 5)],
            interest: head(3),
            catalog: CatalogHead::default(),
            status,
        }),
        Control::Digest(Digest { entries: vec![(owner, 1, 2)], reply: true }),
        Control::LinkStatePull(LinkStatePull { owners: vec![owner] }),
        Control::InterestDelta(InterestDelta {
            owner,
            head: head(1),
            added: entries.clone(),
            removed: entries[..1].to_vec(),
        }),
        Control::InterestPull(InterestPull { owner, have: head(1) }),
        Control::InterestSnapshot(InterestSnapshot { owner, head: head(2), index: 0, last: true, entries }),
        Control::Drain(Drain { drain_ms: 30_000 }),
        Control::Application { kind: 5, body: Bytes::from_static(b"mine") },
    ]
}

#[test]
fn every_message_comes_back_as_it_was() {
    let (all, mut stream) = (all(), Vec::new());
    all.iter().for_each(|control| control.encode(&mut stream).unwrap());
    for step in [1, 7, 1_000_000] {
        let (mut decoder, mut seen) = (ControlDecoder::new(), Vec::new());
        for piece in stream.chunks(step) {
            decoder.push(piece);
            while let Some(control) = decoder.poll().unwrap() {
                seen.push(control);
            }
        }
        assert!(decoder.is_at_boundary());
        assert_eq!(seen, all);
    }
}

#[test]
fn the_layout_is_the_documented_one() {
    let drain = encode(&Control::Drain(Drain { drain_ms: 500 }));
    assert_eq!(hex::encode(drain), concat!("0d000000", "09", "81", "a8647261696e5f6d73", "cd01f4"));
    let pull = encode(&Control::LinkStatePull(LinkStatePull { owners: vec![RouterNumber(1), RouterNumber(300)] }));
    assert_eq!(hex::encode(pull), concat!("0d000000", "05", "81", "a66f776e657273", "92", "01", "cd012c"));
    let application = encode(&Control::Application { kind: 5, body: Bytes::from_static(b"hi") });
    assert_eq!(hex::encode(application), "030000000a056869");
}

#[test]
fn lengths_and_counts_are_checked_before_anything_is_allocated() {
    assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff, 3]).unwrap_err().code, ViolationCode::FrameTooLarge);
    // A list that announces 4 billion neighbours and holds none.
    let state = encode(&all()[2]);
    let at = state.windows(5).position(|bytes| bytes == b"links").unwrap() + 5;
    let cut = [&state[5..at], &[0xdd, 0xff, 0xff, 0xff, 0xff]].concat();
    assert_eq!(decode(&frame(3, &cut)).unwrap_err().code, ViolationCode::Malformed);

    let too_many = |control: Control| decode(&encode(&control)).unwrap_err().code;
    let Control::LinkState(mut state) = all().remove(2) else { unreachable!() };
    state.links = (0..=u32::try_from(LINKS_MAX).unwrap()).map(|n| (RouterNumber(n), 1)).collect();
    assert_eq!(too_many(Control::LinkState(state)), ViolationCode::Malformed);
    let owners = (0..=u32::try_from(ROUTERS_MAX).unwrap()).map(RouterNumber).collect();
    assert_eq!(too_many(Control::LinkStatePull(LinkStatePull { owners })), ViolationCode::Malformed);
    let long = Hello { site_name: "x".repeat(NAME_BYTES_MAX + 1), ..hello() };
    assert_eq!(too_many(Control::Hello(long)), ViolationCode::Malformed);
    let body = Bytes::from(vec![0; APPLICATION_BYTES_MAX + 1]);
    let mut out = Vec::new();
    assert_eq!(Control::Application { kind: 0, body }.encode(&mut out).unwrap_err().code, ViolationCode::FrameTooLarge);
    assert!(out.is_empty());
}

#[test]
fn what_is_unknown_is_skipped_where_it_may_be() {
    let mut stream = frame(0x8b, b"from the future");
    stream.extend(encode(&all()[8]));
    assert_eq!(decode(&stream).unwrap(), Some(all().remove(8)));
    assert_eq!(decode(&frame(0x0b, b"")).unwrap_err().code, ViolationCode::UnknownFrame);
    // An unknown key in a known message.
    let drain = concat!("82", "a8647261696e5f6d73", "05", "a3666f6f", "93010203");
    let expected = Control::Drain(Drain { drain_ms: 5 });
    assert_eq!(decode(&frame(9, &hex::decode(drain).unwrap())).unwrap(), Some(expected));
}

#[test]
fn what_does_not_follow_the_layout_is_malformed() {
    let deep = [&hex::decode("82a8647261696e5f6d7305a3666f6f").unwrap()[..], &[0x91; 1_000], &[1]].concat();
    let group = encode(&all()[5]);
    let at = group.windows(2).position(|bytes| bytes == [0xa1, b'g']).unwrap();
    let mut control_character = group[5..].to_vec();
    control_character[at - 5 + 1] = 7;
    for (kind, body) in [
        (9, &[][..]),
        (9, &[0x91, 5]),
        (9, &[0x80]),
        (9, &[&encode(&all()[8])[5..], &[0]].concat()),
        (9, &deep),
        (6, &control_character),
        (10, &[]),
    ] {
        assert_eq!(decode(&frame(kind, body)).unwrap_err().code, ViolationCode::Malformed, "{kind} {body:?}");
    }
}

#[test]
fn the_highest_common_version_is_spoken() {
    let range = |min, max| Versions { min, max };
    assert_eq!(negotiate(range(1, 3), range(2, 5)), Ok(3));
    assert_eq!(negotiate(range(2, 2), range(1, 2)), Ok(2));
    let refused = negotiate(range(1, 2), range(3, 4)).unwrap_err();
    assert_eq!((refused.code, refused.closes_link()), (ViolationCode::Version, true));
    assert!(negotiate(range(3, 4), range(1, 2)).is_err());
    assert!(negotiate(range(1, 9), range(7, 5)).is_err(), "a range that holds nothing");
}

proptest! {
    #[test]
    fn no_body_makes_the_decoder_panic(kind in 0u8..16, body in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(decode(&frame(kind, &body)));
    }

    #[test]
    fn no_change_of_a_message_makes_the_decoder_panic(which in 0usize..10, at in 0usize..400, to in any::<u8>()) {
        let mut bytes = encode(&all()[which]);
        let len = bytes.len();
        if at % len >= 5 {
            bytes[at % len] = to;
        }
        drop(decode(&bytes));
    }
}
