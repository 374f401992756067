//! What a log must do that several routers have open at once. Each of them has a clock of its own.

use std::time::Duration;

use myelin_catalog::{Catalog, Op};

use super::{Disk, change, module, upload};
use crate::control::ControlLog;
use crate::store::{BlobStore, CatalogStore, Recovered, recover};
use crate::{Fence, StoreError};

/// Longer than any test takes: a wait that must end by itself.
const LONG: Duration = Duration::from_secs(600);
/// A lease that no test outlives by the machine's clock.
const TTL_MS: u64 = 60_000;

/// Runs each test with every store that can be open twice.
macro_rules! shared_conformance {
    ($($test:ident)*) => {
        mod with_nats_server {
            $(#[test] fn $test() { super::$test(&crate::jetstream::testing::Log::new()); })*
        }
    };
}

fn code<T>(result: Result<T, StoreError>) -> &'static str {
    result.map(|_| ()).unwrap_err().code()
}

fn added(reference: &str) -> Op {
    Op::ModuleAdded { module: module(reference) }
}

/// Reads what others appended.
fn follow(store: &impl CatalogStore, catalog: &mut Catalog) {
    for bytes in store.read_after(catalog.head().rev, 100).unwrap() {
        catalog.apply(&myelin_catalog::Record::decode(&bytes).unwrap()).unwrap();
    }
    assert_eq!(catalog.head(), store.head());
}

/// Appends a change, after whatever others appended before.
fn insist(store: &mut impl CatalogStore, catalog: &mut Catalog, op: Op) {
    let record = catalog.draft(op.clone(), "ada", 1).unwrap();
    if let Err(refused) = store.append(&record) {
        assert_eq!(refused.code(), "conflict", "{refused}");
        follow(store, catalog);
        change(store, catalog, op);
    } else {
        catalog.apply(&record).unwrap();
    }
}

fn of_two_writers_one_is_refused_and_sees_why(disk: &impl Disk) {
    let (mut one, Recovered { mut catalog, .. }) = disk.open().unwrap();
    let (mut two, Recovered { catalog: mut theirs, .. }) = disk.open().unwrap();
    change(&mut one, &mut catalog, added("m@1.0.0"));
    let late = theirs.draft(added("m@2.0.0"), "bob", 1).unwrap();
    let refused = two.append(&late).unwrap_err();
    assert!(refused.code() == "conflict" && refused.to_string().contains("at revision 1"), "{refused}");
    assert_eq!(two.head(), catalog.head(), "who is refused knows by what");
    follow(&two, &mut theirs);
    change(&mut two, &mut theirs, added("m@2.0.0"));
    assert_eq!(code(one.append_encoded(&late.encode())), "conflict");
    follow(&one, &mut catalog);
    // In turns: no record is lost and none is there twice, whoever has heard of what.
    for turn in 3..13 {
        let op = added(&format!("m@{turn}.0.0"));
        if turn % 2 == 0 { insist(&mut one, &mut catalog, op) } else { insist(&mut two, &mut theirs, op) }
    }
    drop((one, two));
    let (store, recovered) = disk.open().unwrap();
    assert_eq!((store.head().rev, recovered.catalog.modules().len()), (12, 12));
}

fn a_record_that_two_copy_is_there_once(disk: &impl Disk) {
    let (mut one, Recovered { catalog, .. }) = disk.open().unwrap();
    let (mut two, _) = disk.open().unwrap();
    let bytes = catalog.draft(added("m@1.0.0"), "ada", 1).unwrap().encode();
    let head = one.append_encoded(&bytes).unwrap();
    assert_eq!(code(two.append_encoded(&bytes)), "conflict");
    assert_eq!((one.head(), two.head()), (head, head));
    assert_eq!(two.read_after(0, 10).unwrap(), [bytes]);
}

fn whoever_watches_hears_of_others(disk: &impl Disk) {
    let (mut one, Recovered { mut catalog, .. }) = disk.open().unwrap();
    let (two, _) = disk.open().unwrap();
    let watch = two.watch();
    for rev in 1..4 {
        change(&mut one, &mut catalog, added(&format!("m@{rev}.0.0")));
        assert_eq!(watch.wait_past(rev - 1, LONG), rev);
        assert_eq!(two.head(), catalog.head());
        assert_eq!(two.read_after(rev - 1, 10).unwrap().len(), 1);
    }
}

fn a_stranger_waits_for_the_end_of_a_lease_by_its_own_clock(disk: &impl Disk) {
    let (mut one, _) = disk.open().unwrap();
    let (mut two, _) = disk.open().unwrap();
    // Their clocks have nothing to do with each other.
    let first = one.lease("rollout", "a", TTL_MS, 5_000_000).unwrap();
    let held = two.lease("rollout", "b", TTL_MS, 100).unwrap_err();
    assert!(held.to_string().contains("a has it for another 60000 ms"), "{held}");
    assert_eq!(code(two.lease("rollout", "b", TTL_MS, 60_099)), "lease-held");
    assert_eq!(one.lease("rollout", "a", TTL_MS, 5_030_000).unwrap(), first, "lengthened");
    let held = two.lease("rollout", "b", TTL_MS, 60_100).unwrap_err();
    assert!(held.to_string().contains("another 60000 ms"), "it saw that the holder lives: {held}");
    assert_eq!(code(two.lease("rollout", "b", TTL_MS, 120_099)), "lease-held");
    let second = two.lease("rollout", "b", TTL_MS, 120_100).unwrap();
    assert!(second.term > first.term);
    let held = one.lease("rollout", "a", TTL_MS, 5_031_000).unwrap_err();
    assert!(held.to_string().contains("b has it"), "{held}");
}

fn nothing_is_appended_behind_the_grant_of_a_later_holder(disk: &impl Disk) {
    let (mut one, Recovered { mut catalog, .. }) = disk.open().unwrap();
    let (mut two, Recovered { catalog: mut theirs, .. }) = disk.open().unwrap();
    let first = one.lease("rollout", "a", TTL_MS, 0).unwrap();
    let record = catalog.draft(added("m@1.0.0"), "ada", 1).unwrap();
    one.append_under(&first, 1, &record).unwrap();
    catalog.apply(&record).unwrap();
    // The holder sleeps. Its successor takes over and appends nothing: the head is where the sleeper thinks it is.
    assert_eq!(code(two.lease("rollout", "b", TTL_MS, 0)), "lease-held");
    let second = two.lease("rollout", "b", TTL_MS, TTL_MS).unwrap();
    let record = catalog.draft(added("m@2.0.0"), "ada", 1).unwrap();
    let lost = one.append_under(&first, 2, &record).unwrap_err();
    assert_eq!(lost.code(), "lease-lost", "its clock shows the lease as held: {lost}");
    follow(&two, &mut theirs);
    assert_eq!((two.head(), two.read_after(0, 10).unwrap().len()), (catalog.head(), 1));
    let record = theirs.draft(added("m@3.0.0"), "bob", 1).unwrap();
    two.append_under(&second, TTL_MS + 1, &record).unwrap();
    // Another lease is no obstacle, and neither is who appends without one.
    one.lease("other", "a", TTL_MS, 2).unwrap();
    theirs.apply(&record).unwrap();
    let record = theirs.draft(added("m@4.0.0"), "bob", 1).unwrap();
    two.append_under(&second, TTL_MS + 2, &record).unwrap();
    theirs.apply(&record).unwrap();
    follow_up(&mut one, &mut catalog, &theirs);
    change(&mut one, &mut catalog, added("m@5.0.0"));
    let record = theirs.draft(added("m@6.0.0"), "bob", 1).unwrap();
    assert_eq!(code(two.append_under(&second, TTL_MS + 3, &record)), "conflict", "a lease is no leave to fork");
}

/// Makes a store see the head that another has, as a refused append does.
fn follow_up(store: &mut impl CatalogStore, catalog: &mut Catalog, theirs: &Catalog) {
    let behind = catalog.draft(added("never@1.0.0"), "ada", 1).unwrap();
    if store.head() != theirs.head() {
        assert_eq!(code(store.append(&behind)), "conflict");
    }
    follow(store, catalog);
}

fn a_lease_that_is_given_back_is_free_for_everybody(disk: &impl Disk) {
    let (mut one, _) = disk.open().unwrap();
    let (mut two, Recovered { catalog, .. }) = disk.open().unwrap();
    let first = one.lease("rollout", "a", TTL_MS, 0).unwrap();
    assert_eq!(code(two.lease("rollout", "b", TTL_MS, 0)), "lease-held");
    two.release(&Fence { name: "rollout".into(), term: first.term });
    assert_eq!(code(two.lease("rollout", "b", TTL_MS, 1)), "lease-held", "nobody gives back what it has not");
    one.release(&first);
    assert!(two.lease("rollout", "b", TTL_MS, 2).unwrap().term > first.term);
    let record = catalog.draft(added("m@1.0.0"), "ada", 1).unwrap();
    assert_eq!(code(one.append_under(&first, 1, &record)), "lease-lost");
}

fn a_router_that_starts_anew_has_its_lease_back_and_its_past_is_fenced_off(disk: &impl Disk) {
    let (mut past, Recovered { catalog, .. }) = disk.open().unwrap();
    let first = past.lease("rollout", "a", TTL_MS, 1_000).unwrap();
    let (mut present, _) = disk.open().unwrap();
    let second = present.lease("rollout", "a", TTL_MS, 0).unwrap();
    assert!(second.term > first.term);
    let record = catalog.draft(added("m@1.0.0"), "ada", 1).unwrap();
    assert_eq!(code(past.append_under(&first, 1_001, &record)), "lease-lost");
    present.append_under(&second, 1, &record).unwrap();
    // A third, which was not there before, waits from now on.
    let (mut other, _) = disk.open().unwrap();
    assert_eq!(code(other.lease("rollout", "b", TTL_MS, u64::MAX / 2)), "lease-held");
}

fn modules_are_everybodys(disk: &impl Disk) {
    let (mut one, Recovered { mut catalog, .. }) = disk.open().unwrap();
    let (mut two, _) = disk.open().unwrap();
    let digest = upload(&mut one, &mut catalog, "m@1.0.0").digest;
    assert_eq!(two.blob(&digest).unwrap(), b"m@1.0.0");
    let large: Vec<u8> = (0..700_001u32).map(|n| (n % 251) as u8).collect();
    let large_digest = myelin_catalog::Digest::of(&large);
    two.put(&large_digest, &large).unwrap();
    assert_eq!(one.blob(&large_digest).unwrap(), large);
    assert_eq!(one.blob_size_bytes(&large_digest).unwrap(), Some(700_001));
    assert!(one.remove(&large_digest).unwrap() && !two.remove(&large_digest).unwrap());
    assert_eq!(two.blobs().unwrap(), [digest]);
    // Whoever looks at all of it again finds what others wrote.
    let refused = two.append(&catalog.draft(added("m@1.0.1"), "x", 1).unwrap());
    refused.unwrap();
    follow_up(&mut one, &mut catalog, &recover(&mut two).unwrap().catalog);
    assert_eq!(recover(&mut one).unwrap().catalog, catalog);
}

shared_conformance! {
    of_two_writers_one_is_refused_and_sees_why
    a_record_that_two_copy_is_there_once
    whoever_watches_hears_of_others
    a_stranger_waits_for_the_end_of_a_lease_by_its_own_clock
    nothing_is_appended_behind_the_grant_of_a_later_holder
    a_lease_that_is_given_back_is_free_for_everybody
    a_router_that_starts_anew_has_its_lease_back_and_its_past_is_fenced_off
    modules_are_everybodys
}
