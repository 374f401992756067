#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::interest::own::OwnInterest;
use crate::interest::table::InterestMatch;

const OWNER: RouterNumber = RouterNumber(1);
const LINK: LinkId = LinkId(8);

fn entry(text: &str) -> Entry {
    Entry(text.parse().unwrap(), None)
}

fn remote() -> RemoteInterest {
    RemoteInterest::new(Arc::default(), SiteNumber::new(0).unwrap())
}

/// An owner whose deltas are numbered as they are made: one for each text.
fn deltas(own: &mut OwnInterest, texts: &[&str]) -> Vec<InterestDelta> {
    texts
        .iter()
        .flat_map(|text| {
            own.subscribe(0, entry(text)).unwrap();
            own.flush(1_000)
        })
        .collect()
}

fn is_whole(remote: &RemoteInterest, own: &OwnInterest) -> bool {
    remote.head(OWNER) == Some(own.head()) && remote.behind() == 0
}

#[test]
fn deltas_are_applied_once_and_in_order() {
    let (mut own, mut remote) = (OwnInterest::new(OWNER, 1), remote());
    let all = deltas(&mut own, &["a", "b", "c"]);
    assert_eq!(remote.delta(0, all[0].clone()), Ok(Outcome::Unknown));
    remote.set_head(0, OWNER, InterestHead { epoch: 1, ..InterestHead::default() });
    assert_eq!(remote.delta(0, all[0].clone()), Ok(Outcome::Fresh));
    assert_eq!(remote.delta(0, all[2].clone()), Ok(Outcome::Fresh));
    assert_eq!(remote.delta(0, all[2].clone()), Ok(Outcome::Duplicate));
    assert_eq!((remote.behind(), remote.entries()), (1, 1));
    assert_eq!(remote.delta(0, all[1].clone()), Ok(Outcome::Fresh));
    assert_eq!(remote.delta(0, all[0].clone()), Ok(Outcome::Duplicate));
    assert!(is_whole(&remote, &own));
}

#[test]
fn a_gap_is_repaired_by_a_snapshot_and_what_waited_is_not_lost() {
    let (mut own, mut remote) = (OwnInterest::new(OWNER, 1), remote());
    remote.set_head(0, OWNER, InterestHead { epoch: 1, ..InterestHead::default() });
    let all = deltas(&mut own, &["a", "b"]);
    remote.delta(100, all[1].clone()).unwrap();
    let snapshot = own.snapshot();
    let later = deltas(&mut own, &["c"]).remove(0);
    remote.delta(110, later).unwrap();
    assert_eq!(remote.deadline(), Some(300));
    assert!(remote.pulls(299, |_, _| Some(LINK)).is_empty());
    let asked = remote.pulls(300, |owner, tries| (owner == OWNER && tries == 0).then_some(LINK));
    assert_eq!(asked.len(), 1);
    remote.snapshot(310, LinkId(9), snapshot[0].clone()).unwrap();
    assert_eq!(remote.entries(), 0, "that link was not asked");
    remote.snapshot(310, LINK, snapshot[0].clone()).unwrap();
    assert!(is_whole(&remote, &own), "the third was applied after the snapshot of two");
}

#[test]
fn nothing_is_asked_more_than_once_a_second_nor_of_the_same_router_again() {
    let mut remote = remote();
    let told = InterestHead { epoch: 1, seq: 4, ..InterestHead::default() };
    remote.set_head(0, OWNER, told);
    let mut asked = Vec::new();
    for now in 0..4_000 {
        asked.extend(remote.pulls(now, |_, tries| Some(LinkId(tries as u64))).into_iter().map(|(to, _)| (now, to.0)));
        if now == 2_300 {
            remote.link_down(now, LinkId(2));
        }
    }
    assert_eq!(asked, [(200, 0), (1_200, 1), (2_200, 2), (2_301, 3), (3_301, 4)]);
}

#[test]
fn a_wrong_hash_is_noticed_and_a_wrong_snapshot_is_a_violation() {
    let (mut own, mut remote) = (OwnInterest::new(OWNER, 1), remote());
    remote.set_head(0, OWNER, InterestHead { epoch: 1, ..InterestHead::default() });
    let mut delta = deltas(&mut own, &["a"]).remove(0);
    delta.added = vec![entry("x")];
    remote.delta(0, delta).unwrap();
    assert_eq!(remote.behind(), 1);
    assert!(remote.answer(&InterestPull { owner: OWNER, have: InterestHead::default() }).is_none());
    remote.pulls(500, |_, _| Some(LINK));
    let mut snapshot = own.snapshot().remove(0);
    snapshot.entries.push(entry("y"));
    assert_eq!(remote.snapshot(600, LINK, snapshot).unwrap_err().code, ViolationCode::InterestHash);
    remote.snapshot(700, LINK, own.snapshot().remove(0)).unwrap();
    assert!(is_whole(&remote, &own));
}

#[test]
fn a_restart_forgets_what_was_wanted_before_it() {
    let (mut own, mut remote) = (OwnInterest::new(OWNER, 1), remote());
    remote.set_head(0, OWNER, own.head());
    for delta in deltas(&mut own, &["a", "b"]) {
        remote.delta(0, delta).unwrap();
    }
    let old = deltas(&mut own, &["c"]).remove(0);
    let mut own = OwnInterest::new(OWNER, 2);
    remote.set_head(10, OWNER, own.head());
    assert_eq!(remote.entries(), 0);
    assert_eq!(remote.delta(20, old), Ok(Outcome::Duplicate));
    remote.delta(30, deltas(&mut own, &["d"]).remove(0)).unwrap();
    assert!(is_whole(&remote, &own));
    remote.forget(OWNER);
    let mut out = InterestMatch::default();
    remote.table().matches("d", &mut out);
    assert!(out.is_empty() && remote.entries() == 0 && remote.head(OWNER).is_none());
}

#[test]
fn an_owner_with_too_much_is_a_violation_and_a_table_that_is_full_refuses_the_owner_alone() {
    let mut remote = remote();
    let many =
        |prefix: &str, count: usize| -> Vec<Entry> { (0..count).map(|n| entry(&format!("{prefix}/{n}"))).collect() };
    let feed = |remote: &mut RemoteInterest, owner: u32, total: usize| -> Result<(), Violation> {
        remote.set_head(0, RouterNumber(owner), InterestHead { epoch: 1, ..InterestHead::default() });
        let mut sum = HashSum::default();
        for (seq, added) in many(&format!("{owner}"), total).chunks(4_096).enumerate() {
            added.iter().for_each(|entry| sum.add(entry));
            let head = InterestHead { epoch: 1, seq: seq as u64 + 1, hash: sum.finish() };
            let added = added.to_vec();
            remote.delta(0, InterestDelta { owner: RouterNumber(owner), head, added, removed: vec![] })?;
        }
        Ok(())
    };
    let refused = feed(&mut remote, 100, INTEREST_ENTRIES_MAX + 1).unwrap_err();
    assert_eq!((refused.code, refused.closes_link()), (ViolationCode::TooMany, true));
    remote.forget(RouterNumber(100));
    let owners = u32::try_from(INTEREST_ENTRIES_TOTAL_MAX / INTEREST_ENTRIES_MAX).unwrap();
    for owner in 0..owners {
        feed(&mut remote, owner, INTEREST_ENTRIES_MAX).unwrap();
    }
    assert_eq!(remote.take_overflowed(), None);
    feed(&mut remote, owners, 1).unwrap();
    assert_eq!(remote.take_overflowed(), Some(RouterNumber(owners)));
    assert_eq!((remote.entries(), remote.behind()), (INTEREST_ENTRIES_TOTAL_MAX, 0));
}

#[test]
fn patterns_are_counted_by_their_levels_too() {
    let mut remote = remote();
    remote.set_head(0, OWNER, InterestHead { epoch: 1, ..InterestHead::default() });
    let deep: Vec<Entry> = (0..4_000).map(|number| entry(&format!("{number}{}", "/x".repeat(31)))).collect();
    let add = |remote: &mut RemoteInterest, seq: u64| {
        let number = |Entry(pattern, _): &Entry| entry(&format!("{seq}-{}", pattern.as_str()));
        let head = InterestHead { epoch: 1, seq, ..InterestHead::default() };
        let added = deep.iter().map(number).collect();
        remote.delta(0, InterestDelta { owner: OWNER, head, added, removed: vec![] })
    };
    let whole = INTEREST_LEVELS_MAX / 32 / deep.len();
    for seq in 1..=whole as u64 {
        add(&mut remote, seq).unwrap();
    }
    assert_eq!(add(&mut remote, whole as u64 + 1).unwrap_err().code, ViolationCode::TooMany);
    remote.forget(OWNER);
    assert_eq!(remote.entries(), 0);
}

#[test]
fn what_waits_for_others_is_bounded_for_all_routers_together() {
    let mut remote = remote();
    let many: Vec<Entry> = (0..4_096).map(|number| entry(&number.to_string())).collect();
    for owner in 0..20 {
        remote.set_head(0, RouterNumber(owner), InterestHead { epoch: 1, ..InterestHead::default() });
        for seq in 2..18 {
            let head = InterestHead { epoch: 1, seq, ..InterestHead::default() };
            let delta = InterestDelta { owner: RouterNumber(owner), head, added: many.clone(), removed: vec![] };
            remote.delta(0, delta).unwrap();
        }
    }
    assert_eq!(remote.pending(), INTEREST_PENDING_MAX);
    // Snapshots that never end have no room beside them; once others are gone, they have.
    let told = InterestHead { epoch: 1, seq: 99, ..InterestHead::default() };
    remote.set_head(0, OWNER, told);
    remote.pulls(1_000, |_, _| Some(LINK));
    let piece = |index| InterestSnapshot { owner: OWNER, head: told, index, last: false, entries: many.clone() };
    remote.snapshot(1_001, LINK, piece(0)).unwrap();
    assert_eq!(remote.pending(), INTEREST_PENDING_MAX);
    (2..20).for_each(|owner| remote.forget(RouterNumber(owner)));
    remote.snapshot(1_002, LINK, piece(0)).unwrap();
    assert_eq!(remote.pending(), (2 * 16 + 1) * many.len());
}
