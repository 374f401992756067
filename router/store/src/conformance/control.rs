//! What every log of a mesh must do.

use std::time::Duration;

use myelin_catalog::{Catalog, Head, Op, Record};

use super::{Disk, bind, change, four_records, upload};
use crate::StoreError;
use crate::control::ControlLog;
use crate::store::{BlobStore, CatalogStore, Recovered};

/// Longer than any test takes: a wait that must end by itself.
const LONG: Duration = Duration::from_secs(600);

/// A log elsewhere, as it is kept there.
fn elsewhere() -> (Catalog, Vec<Vec<u8>>) {
    let disk = crate::MemoryDisk::new();
    let catalog = four_records(&disk);
    let (store, _) = crate::MemoryStore::open(&disk).unwrap();
    (catalog, store.read_after(0, 10).unwrap())
}

fn next(catalog: &Catalog, module: &str) -> Record {
    let module = super::module(module);
    catalog.draft(Op::ModuleAdded { module }, "ada", 1).unwrap()
}

fn code<T>(result: Result<T, StoreError>) -> &'static str {
    result.map(|_| ()).unwrap_err().code()
}

fn a_copy_is_the_log_byte_for_byte(disk: &impl Disk) {
    let (catalog, log) = elsewhere();
    let (mut store, _) = disk.open().unwrap();
    assert_eq!(code(store.append_encoded(&log[1])), "conflict", "it does not follow");
    for bytes in &log {
        store.append_encoded(bytes).unwrap();
        assert_eq!(code(store.append_encoded(bytes)), "conflict", "a replay");
    }
    assert_eq!((store.head(), store.read_after(0, 10).unwrap()), (catalog.head(), log.clone()));

    let bytes = next(&catalog, "m@3.0.0").encode();
    for wrong in [&bytes[..bytes.len() - 1], &[bytes.as_slice(), &[0xc0]].concat(), b"", b"no record"] {
        assert_eq!(code(store.append_encoded(wrong)), "invalid-record");
    }
    assert_eq!(store.head(), catalog.head());
    // The bytes of the modules come by themselves.
    for reference in ["m@1.0.0", "m@2.0.0"] {
        store.put(&super::module(reference).digest, reference.as_bytes()).unwrap();
    }
    drop(store);
    let (store, recovered) = disk.open().unwrap();
    assert_eq!(recovered, Recovered { catalog, orphans: 0, missing: Vec::new() });
    assert_eq!(store.read_after(2, 1).unwrap(), log[2..3]);
}

fn a_lease_is_exclusive_and_runs_out(disk: &impl Disk) {
    let (mut store, _) = disk.open().unwrap();
    let first = store.lease("rollout", "a", 60_000, 5_000).unwrap();
    let held = store.lease("rollout", "b", 60_000, 64_999).unwrap_err();
    assert!(held.code() == "lease-held" && held.to_string().contains("a has it for another 1 ms"), "{held}");
    assert_eq!(store.lease("rollout", "a", 60_000, 35_000).unwrap(), first, "lengthened");
    assert_eq!(code(store.lease("rollout", "b", 60_000, 94_999)), "lease-held");
    let second = store.lease("rollout", "b", 60_000, 95_000).unwrap();
    assert!(second.term > first.term);
    assert_eq!(code(store.lease("rollout", "a", 60_000, 95_001)), "lease-held");
    store.release(&first);
    assert_eq!(code(store.lease("rollout", "a", 60_000, 95_001)), "lease-held", "an old fence gives nothing back");
    store.release(&second);
    assert!(store.lease("rollout", "a", 60_000, 95_001).unwrap().term > second.term);
    store.lease("other", "c", 1_000, 7_000).expect("leases are apart");
    assert_eq!(code(store.lease("", "c", 1_000, 7_000)), "invalid-lease");
}

fn terms_grow_over_reopening_and_leases_end_with_the_store(disk: &impl Disk) {
    let mut newest = 0;
    for round in 0..3 {
        let (mut store, Recovered { catalog, .. }) = disk.open().unwrap();
        let fence = store.lease("rollout", "a", 60_000, 0).unwrap();
        assert!(fence.term > newest, "{} after {newest}", fence.term);
        newest = fence.term;
        drop(store);
        let (mut store, _) = disk.open().unwrap();
        let record = next(&catalog, &format!("m@1.0.{round}"));
        assert_eq!(code(store.append_under(&fence, 1, &record)), "lease-lost", "its clock began anew");
        assert_eq!(store.head(), catalog.head());
    }
}

fn nothing_is_appended_under_a_lease_that_is_lost(disk: &impl Disk) {
    let (mut store, Recovered { mut catalog, .. }) = disk.open().unwrap();
    let first = store.lease("rollout", "a", 1_000, 0).unwrap();
    let record = next(&catalog, "m@1.0.0");
    assert_eq!(store.append_under(&first, 999, &record).unwrap(), Head { rev: 1, hash: record.hash() });
    catalog.apply(&record).unwrap();

    let record = next(&catalog, "m@2.0.0");
    let lost = store.append_under(&first, 1_000, &record).unwrap_err();
    assert!(lost.code() == "lease-lost" && lost.to_string().contains("rollout"), "{lost}");
    let second = store.lease("rollout", "b", 1_000, 1_000).unwrap();
    // It slept through the end of its lease, and its clock shows it as held.
    assert_eq!(code(store.append_under(&first, 500, &record)), "lease-lost");
    assert_eq!(store.head(), catalog.head());
    store.append_under(&second, 1_001, &record).unwrap();
    assert_eq!(code(store.append_under(&second, 1_001, &record)), "conflict", "a lease is no leave to write twice");
    catalog.apply(&record).unwrap();
    // Others than the controller write as ever.
    change(&mut store, &mut catalog, bind("b", "m@2.0.0"));
}

fn whoever_watches_is_woken(disk: &impl Disk) {
    let (mut store, Recovered { mut catalog, .. }) = disk.open().unwrap();
    upload(&mut store, &mut catalog, "m@1.0.0");
    let watch = store.watch();
    assert_eq!((watch.rev(), watch.wait_past(0, LONG)), (1, 1), "what is there needs no waiting");
    assert_eq!(watch.wait_past(1, Duration::from_millis(1)), 1, "nothing came");
    let waiting = std::thread::spawn({
        let watch = watch.clone();
        move || watch.wait_past(1, LONG)
    });
    store.append_encoded(&next(&catalog, "m@2.0.0").encode()).unwrap();
    assert_eq!(waiting.join().unwrap(), 2);
    let waiting = std::thread::spawn({
        let watch = watch.clone();
        move || watch.wait_past(2, LONG)
    });
    assert!(!watch.is_closed());
    drop(store);
    assert_eq!(waiting.join().unwrap(), 2, "closing wakes, too");
    assert!(watch.is_closed());
}

conformance! {
    a_copy_is_the_log_byte_for_byte
    a_lease_is_exclusive_and_runs_out
    terms_grow_over_reopening_and_leases_end_with_the_store
    nothing_is_appended_under_a_lease_that_is_lost
    whoever_watches_is_woken
}
