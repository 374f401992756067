#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::capture::{Data, Event, Side};
use myelin_wire::Pattern;
use proptest::prelude::*;

fn spec(bytes_max: u64, events_max: u64, keep: Keep) -> CaptureSpec {
    CaptureSpec { bytes_max, events_max, keep, ..CaptureSpec::new(Pattern::new("a/**").unwrap()) }
}

fn batch(events: usize, payload_bytes: usize) -> Batch {
    let event = || Event {
        topic: "a/b".into(),
        attrs: Vec::new(),
        payload: Data(vec![b'x'; payload_bytes]),
        identity: "spiffe://test/service/one".into(),
        matched: true,
    };
    Batch {
        number: 0,
        worker: 0,
        generation: 1,
        now_unix_ns: 1,
        side: Side::Ingress,
        entry: true,
        cut: false,
        events: (0..events).map(|_| event()).collect(),
        judged: Vec::new(),
    }
}

fn written(ring: &Ring) -> u64 {
    ring.lines().iter().map(|line| line.len() as u64).sum()
}

proptest! {
    #[test]
    fn no_bound_is_ever_passed_and_every_event_is_accounted_for(
        batches in prop::collection::vec((1_usize..64, 0_usize..3_000), 1..60),
        events_max in 1_u64..500,
        is_last: bool,
    ) {
        let keep = if is_last { Keep::Last } else { Keep::First };
        let bytes_max = 64 << 10;
        let mut ring = Ring::new(&spec(bytes_max, events_max, keep), Sample::All);
        let (mut offered, mut beyond) = (0, 0);
        for (events, payload_bytes) in batches {
            if ring.over.is_some() {
                break;
            }
            let room = if is_last { events_max } else { events_max - ring.events };
            ring.push(batch(events, payload_bytes));
            if ring.over.is_some() && ring.events < events_max {
                // The batch that found no room is not in it.
                continue;
            }
            offered += (events as u64).min(room);
            beyond += (events as u64).saturating_sub(room);
            prop_assert!(ring.bytes <= bytes_max - FRAME_BYTES && ring.events <= events_max);
            prop_assert!(written(&ring) <= bytes_max);
            prop_assert_eq!(ring.kept.iter().map(|kept| kept.events).sum::<u64>(), ring.events);
            prop_assert_eq!(ring.events + ring.evicted + ring.too_large, offered, "{} beyond", beyond);
        }
        if is_last {
            prop_assert_eq!(ring.over, None, "the last ones always find room");
        }
    }

    #[test]
    fn a_share_comes_out_right_whatever_the_batches_are(
        sizes in prop::collection::vec(1_u64..64, 500..1_000),
        millionths in 1_000_u64..1_000_000,
    ) {
        let mut ring = Ring::new(&spec(64 << 10, 1, Keep::Last), Sample::Share(millionths));
        let taken: u64 = sizes.iter().filter(|size| ring.wants(**size, 0)).sum();
        let total: u64 = sizes.iter().sum();
        let owed = total * millionths / 1_000_000;
        prop_assert!(taken.abs_diff(owed) <= 65, "{} taken, {} owed", taken, owed);
        prop_assert_eq!(ring.sampled_out, total - taken);
    }
}

#[test]
fn a_rate_holds_over_seconds() {
    let mut ring = Ring::new(&spec(64 << 10, 1, Keep::Last), Sample::Rate(100));
    // A batch of ten every ten milliseconds, for ten seconds: a thousand a second are offered.
    let taken: u64 = (0..1_000).filter(|n| ring.wants(10, n * 10)).map(|_| 10).sum();
    assert!((1_000..=1_200).contains(&taken), "{taken}: a hundred a second, and one full bucket at the beginning");
}

#[test]
fn the_first_stay_or_the_last() {
    let numbers = |ring: &Ring| -> Vec<u64> {
        let lines = ring.kept.iter().map(|kept| serde_json::from_slice(&kept.line).unwrap());
        lines.map(|line| if let Line::Batch(batch) = line { batch.number } else { u64::MAX }).collect()
    };
    let mut first = Ring::new(&spec(1 << 20, 5, Keep::First), Sample::All);
    (0..4).for_each(|_| first.push(batch(2, 1)));
    assert_eq!((numbers(&first), first.over), (vec![0, 1, 2], Some(Over::Full)));
    assert_eq!(first.events, 5, "of the last batch one event counts, its neighbour stays with it");
    let mut last = Ring::new(&spec(1 << 20, 5, Keep::Last), Sample::All);
    (0..4).for_each(|_| last.push(batch(2, 1)));
    assert_eq!((numbers(&last), last.over, last.evicted), (vec![2, 3], None, 4));
}

#[test]
fn bindings_are_kept_once_and_within_the_bound() {
    let bound = |name: &str, bytes: usize| Bound {
        name: name.into(),
        module: "m@1.0.0".into(),
        digest: "0".repeat(64),
        revision: 1,
        stage: "ingress".into(),
        pattern: "a/**".into(),
        config: Some(Data(vec![b'c'; bytes])),
    };
    let mut ring = Ring::new(&spec(64 << 10, 5, Keep::First), Sample::All);
    assert_eq!(
        [ring.place(&bound("a", 9)), ring.place(&bound("b", 9)), ring.place(&bound("a", 9))].map(Option::unwrap),
        [0, 1, 0]
    );
    assert_eq!((ring.place(&bound("c", 64 << 10)), ring.over), (None, Some(Over::Full)));
}
