#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;
use crate::testing::{Story, add, key, revoke, trust};

/// A log of `records` records, signed from the third one on.
fn story(records: usize) -> Story {
    let mut story = Story::default();
    story.add(add("m@1.0.0"));
    story.add(add("m@2.0.0"));
    story.sign_with("root");
    for n in story.log.len()..records {
        story.add(add(&format!("n@1.0.{n}")));
    }
    story
}

/// Another log that is the same for `shared` records and of the same writer's key after them.
fn fork_after(whole: &Story, shared: usize) -> Story {
    let mut fork = Story::default();
    for record in &whole.log[..shared] {
        fork.catalog.apply(record).unwrap();
        fork.log.push(record.clone());
    }
    fork.signer = Some(key("root"));
    while fork.log.len() < whole.log.len() {
        fork.add(add(&format!("fork@1.0.{}", fork.log.len())));
    }
    fork
}

fn following(log: &[Vec<u8>]) -> Follower {
    let mut follower = Follower::new(None);
    if !log.is_empty() {
        follower.accept(log).unwrap();
    }
    follower
}

/// The refusal of a page, which may change nothing.
fn refusal(follower: &mut Follower, page: &[Vec<u8>]) -> FollowFault {
    let before = (follower.catalog.clone(), follower.hashes.clone());
    let refused = follower.accept(page).unwrap_err();
    assert_eq!((follower.catalog.clone(), follower.hashes.clone()), before, "{refused}");
    refused
}

#[test]
fn pages_are_taken_in_order_whatever_they_overlap() {
    let story = story(12);
    let log = story.encoded();
    let mut follower = Follower::new(None);
    for (from, to) in [(0, 5), (0, 7), (6, 9), (9, 12)] {
        let had = usize::try_from(follower.head().rev).unwrap();
        let accepted = follower.accept(&log[from..to]).unwrap();
        assert_eq!(accepted.encoded, &log[had..to], "what is new, byte for byte");
        assert_eq!(accepted.records, &story.log[had..to]);
        assert_eq!(accepted.head, follower.head());
    }
    assert_eq!(follower.catalog(), &story.catalog);
}

#[test]
fn a_replay_is_told_from_a_fork_and_from_a_gap() {
    let story = story(10);
    let (log, fork) = (story.encoded(), fork_after(&story, 5).encoded());
    let mut follower = following(&log[..8]);
    let head = story.log[7].hash();

    for replay in [&log[..8], &log[2..6], &log[7..8]] {
        assert_eq!(refusal(&mut follower, replay).code(), "catalog-stale");
    }
    let gap = refusal(&mut follower, &log[9..]);
    assert_eq!(gap, FollowFault::Gap { expected: 9, found: 10 });
    assert!(gap.to_string().contains("ask for the records after 8"), "{gap}");
    assert_eq!(refusal(&mut follower, &[]).code(), "catalog-stale");

    let (ours, theirs) = (Digest::of(&log[5]), Digest::of(&fork[5]));
    assert_eq!(refusal(&mut follower, &fork), FollowFault::Fork { rev: 6, ours, theirs });
    assert_eq!(refusal(&mut follower, &fork[5..6]).code(), "catalog-fork");
    // Records after our head alone show it as well: the first does not follow it.
    let theirs = Digest::of(&fork[7]);
    assert_eq!(refusal(&mut follower, &fork[8..]), FollowFault::Fork { rev: 8, ours: head, theirs });
    follower.accept(&log[8..]).expect("the right log goes on");
}

#[test]
fn nobody_raises_the_alarm_with_a_record_that_no_trusted_key_signed() {
    let story = story(8);
    let log = story.encoded();
    let mut follower = following(&log);
    let forge =
        |rev: usize, head: Head| Record { rev: rev as u64, ..Record::after(&head, add("evil@1.0.0"), "eve", 0) };
    let before = Head { rev: 6, hash: story.log[5].hash() };
    for (forged, code) in [
        (forge(7, before), "unsigned-record"),
        (forge(7, before).sign(&key("eve")), "unknown-key"),
        (Record { key_id: "root".into(), ..forge(7, before).sign(&key("eve")) }, "bad-signature"),
        (forge(9, Head { rev: 8, hash: Digest::ZERO }), "unsigned-record"),
        (forge(9, follower.head()), "unsigned-record"),
        (forge(7, before).sign(&key("root")), "catalog-fork"),
    ] {
        assert_eq!(refusal(&mut follower, &[forged.encode()]).code(), code);
    }
}

#[test]
fn a_page_is_taken_whole_or_not_at_all() {
    let story = story(9);
    let log = story.encoded();
    let mut follower = following(&log[..4]);
    type Damage = fn(&mut Vec<Vec<u8>>);
    let damages: [(&str, Damage); 5] = [
        ("cut", |page| page[3].truncate(9)),
        ("swapped", |page| page.swap(1, 2)),
        ("missing", |page| drop(page.remove(2))),
        ("doubled", |page| page.insert(2, page[1].clone())),
        ("empty", |page| page.push(Vec::new())),
    ];
    for (how, damage) in damages {
        let mut page = log[4..].to_vec();
        damage(&mut page);
        assert_eq!(refusal(&mut follower, &page).code(), "chain-broken", "{how}");
    }
    let mut impossible = story.log[..8].to_vec();
    let again = Record::after(&Head { rev: 8, hash: impossible[7].hash() }, add("m@1.0.0"), "ada", 0);
    impossible.push(again.sign(&key("root")));
    let page: Vec<_> = impossible[4..].iter().map(Record::encode).collect();
    assert_eq!(refusal(&mut follower, &page).code(), "chain-broken", "it adds what is there");
    let zero = Record { rev: 0, ..story.log[4].clone() }.encode();
    assert_eq!(refusal(&mut follower, &[zero]).code(), "chain-broken");
    follower.accept(&log[4..]).unwrap();
}

#[test]
fn pages_are_bounded() {
    let mut follower = Follower::new(None);
    let many = vec![Vec::new(); PAGE_RECORDS_MAX + 1];
    assert_eq!(refusal(&mut follower, &many).code(), "page-too-large");
    let heavy = vec![vec![0; PAGE_LEN_MAX_BYTES / 2 + 1]; 2];
    assert_eq!(refusal(&mut follower, &heavy).code(), "page-too-large");
}

#[test]
fn a_given_root_key_is_the_one_that_the_log_must_trust_first() {
    let log = story(6).encoded();
    let root = key("root").public_key();
    let mut follower = Follower::new(Some(root));
    follower.accept(&log[..2]).unwrap();
    assert!(!follower.is_anchored(), "anybody can write an unsigned beginning");
    follower.accept(&log[2..]).unwrap();
    assert!(follower.is_anchored());

    let mut elsewhere = Story::default();
    elsewhere.add(add("m@1.0.0"));
    elsewhere.sign_with("mallory");
    let mut follower = Follower::new(Some(root));
    let refused = refusal(&mut follower, &elsewhere.encoded());
    assert_eq!(refused, FollowFault::RootKey { expected: root, found: key("mallory").public_key() });
    let kept = Follower::resume::<Vec<u8>>(elsewhere.catalog, Some(root), &[]);
    assert_eq!(kept.unwrap_err().code(), "root-key");
}

#[test]
fn an_exchanged_root_key_still_anchors() {
    let mut story = story(4);
    story.add(trust("second"));
    story.add(revoke("root"));
    story.signer = Some(key("second"));
    story.add(add("m@3.0.0"));
    let mut follower = Follower::new(Some(key("root").public_key()));
    follower.accept(&story.encoded()).unwrap();
    assert!(follower.is_anchored());
}

#[test]
fn a_copy_goes_on_where_it_was() {
    let story = story(9);
    let (log, fork) = (story.encoded(), fork_after(&story, 4).encoded());
    let kept = Catalog::from_records(&story.log[..7]).unwrap();
    let mut follower = Follower::resume(kept.clone(), None, &log[3..7]).unwrap();
    assert_eq!(refusal(&mut follower, &fork[3..6]).code(), "catalog-fork");
    assert_eq!(refusal(&mut follower, &log[..2]).code(), "catalog-stale");
    // Older than is remembered, but tied to what is: the page is right as a whole.
    let mut without_tail = Follower::resume::<Vec<u8>>(kept.clone(), None, &[]).unwrap();
    without_tail.accept(&log).unwrap();
    follower.accept(&log[6..]).unwrap();
    assert_eq!(follower.head(), without_tail.head());
    for wrong in [&log[2..6], &fork[3..7]] {
        assert_eq!(Follower::resume(kept.clone(), None, wrong).unwrap_err().code(), "chain-broken");
    }
}

#[test]
fn heads_are_compared_without_pulling_anything() {
    let story = story(9);
    let (log, fork) = (story.encoded(), fork_after(&story, 4));
    let follower = following(&log[..7]);
    let head = |records: &[Record]| records.last().map_or(Head::EMPTY, |r| Head { rev: r.rev, hash: r.hash() });
    assert_eq!(follower.compare(&head(&story.log[..7])), Ok(Standing::Same));
    assert_eq!(follower.compare(&head(&story.log)), Ok(Standing::Ahead { records: 2 }));
    assert_eq!(follower.compare(&head(&story.log[..3])), Ok(Standing::Behind { records: 4 }));
    assert_eq!(follower.compare(&Head::EMPTY), Ok(Standing::Behind { records: 7 }));
    assert_eq!(follower.compare(&head(&fork.log[..5])).unwrap_err().code(), "catalog-fork");
    let kept = Catalog::from_records(&story.log[..7]).unwrap();
    let resumed = Follower::resume::<Vec<u8>>(kept, None, &[]).unwrap();
    assert_eq!(resumed.compare(&head(&story.log[..3])), Ok(Standing::Unknown));
}

#[test]
fn what_was_verified_before_another_page_is_not_adopted_after_it() {
    let log = story(6).encoded();
    let mut follower = following(&log[..3]);
    let verified = follower.verify(&log[3..5]).unwrap();
    follower.accept(&log[3..4]).unwrap();
    assert_eq!(follower.adopt(verified).unwrap_err().code(), "catalog-stale");
    assert_eq!(follower.head().rev, 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever pages come, of the log or of a fork of it: the copy is always a beginning of the log that it began
    /// with, never shorter than before.
    #[test]
    fn a_copy_never_goes_back_and_never_changes_sides(
        pages in prop::collection::vec((any::<bool>(), 0usize..14, 0usize..8), 1..24),
    ) {
        let story = story(12);
        let fork = fork_after(&story, 6);
        let logs = [story.encoded(), fork.encoded()];
        let mut follower = following(&logs[0][..8]);
        for (of_fork, from, len) in pages {
            let before = follower.head();
            let log = &logs[usize::from(of_fork)];
            let page = &log[from.min(12)..(from + len).min(12)];
            match follower.accept(page) {
                Ok(accepted) => {
                    prop_assert!(!of_fork);
                    prop_assert_eq!(accepted.head.rev, before.rev + accepted.encoded.len() as u64);
                }
                Err(refused) => {
                    let is_fork = of_fork && page.len() + from.min(12) > 6 && from.min(12) as u64 <= before.rev;
                    prop_assert_eq!(refused.code() == "catalog-fork", is_fork && !page.is_empty(), "{}", refused);
                    prop_assert_eq!(follower.head(), before);
                }
            }
            let at = usize::try_from(follower.head().rev).unwrap();
            prop_assert_eq!(follower.head().hash, Digest::of(&logs[0][at - 1]));
        }
    }
}
