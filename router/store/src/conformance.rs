//! What every store must do, run against the one on a disk, the one in memory, and the one on NATS JetStream.
//!
//! The last needs a `nats-server`, which `cargo xtask setup` installs; without it its tests fail and say so.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin_catalog::limits::MODULE_SIZE_MAX_BYTES;
use myelin_catalog::{Binding, Catalog, Digest, Head, Module, ModuleRef, Op, Record, World};
use myelin_wire::Pattern;

use crate::control::ControlLog;
use crate::store::{BlobStore, CatalogStore, Recovered};
use crate::{DiskStore, MemoryDisk, MemoryStore, StoreError};

/// Runs each test with every store. A new engine gets a module here and passes all of them.
macro_rules! conformance {
    ($($test:ident)*) => {
        mod on_disk {
            $(#[test] fn $test() { super::$test(&tempfile::tempdir().unwrap()); })*
        }
        mod in_memory {
            $(#[test] fn $test() { super::$test(&crate::MemoryDisk::new()); })*
        }
        mod with_nats_server {
            $(#[test] fn $test() { super::$test(&crate::jetstream::testing::Log::new()); })*
        }
    };
}

mod control;
mod shared;

/// What becomes of bytes behind the store's back; `None` removes them.
pub(crate) type Damage = fn(Vec<u8>) -> Option<Vec<u8>>;

/// Something that outlives a store, and that can be damaged behind its back.
pub(crate) trait Disk {
    type Store: ControlLog + BlobStore;
    fn open(&self) -> Result<(Self::Store, Recovered), StoreError>;
    fn tamper_record(&self, rev: u64, change: Damage);
    fn tamper_blob(&self, digest: &Digest, change: Damage);
}

impl Disk for MemoryDisk {
    type Store = MemoryStore;

    fn open(&self) -> Result<(MemoryStore, Recovered), StoreError> {
        MemoryStore::open(self)
    }

    fn tamper_record(&self, rev: u64, change: Damage) {
        MemoryDisk::tamper_record(self, rev, change);
    }

    fn tamper_blob(&self, digest: &Digest, change: Damage) {
        MemoryDisk::tamper_blob(self, digest, change);
    }
}

impl Disk for tempfile::TempDir {
    type Store = DiskStore;

    fn open(&self) -> Result<(DiskStore, Recovered), StoreError> {
        DiskStore::open(self.path())
    }

    fn tamper_record(&self, rev: u64, change: Damage) {
        crate::disk::tamper_record(self.path(), rev, change);
    }

    fn tamper_blob(&self, digest: &Digest, change: Damage) {
        let path = blob_path(self, digest);
        match change(std::fs::read(&path).unwrap()) {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
    }
}

pub(crate) fn blob_path(dir: &tempfile::TempDir, digest: &Digest) -> std::path::PathBuf {
    let name = digest.to_string();
    dir.path().join("blobs/sha256").join(&name[..2]).join(name)
}

pub(crate) fn module(reference: &str) -> Module {
    let ModuleRef { name, version } = reference.parse().unwrap();
    let (digest, size_bytes) = (Digest::of(reference.as_bytes()), reference.len() as u64);
    let (imports, world, capabilities, signature) = (Vec::new(), World::Fast, None, None);
    Module { name, version, digest, size_bytes, uploaded_unix_ms: 1, imports, world, capabilities, signature }
}

/// Appends a change as the router's writer does.
pub(crate) fn change<S: CatalogStore>(store: &mut S, catalog: &mut Catalog, op: Op) -> Record {
    let record = catalog.draft(op, "ada", 1).unwrap();
    assert_eq!(store.append(&record).unwrap(), Head { rev: record.rev, hash: record.hash() });
    catalog.apply(&record).unwrap();
    record
}

/// Uploads a module as the router does; its bytes are its name.
pub(crate) fn upload<S: CatalogStore + BlobStore>(store: &mut S, catalog: &mut Catalog, reference: &str) -> Module {
    let module = module(reference);
    store.put(&module.digest, reference.as_bytes()).unwrap();
    change(store, catalog, Op::ModuleAdded { module: module.clone() });
    module
}

fn bind(name: &str, module: &str) -> Op {
    let binding = Binding::new(name.parse().unwrap(), module.parse().unwrap(), Pattern::new("a/**").unwrap());
    Op::BindingStaged { binding: Box::new(binding) }
}

/// A log of four records, the last of which activates.
fn four_records(disk: &impl Disk) -> Catalog {
    let (mut store, Recovered { mut catalog, .. }) = disk.open().unwrap();
    upload(&mut store, &mut catalog, "m@1.0.0");
    upload(&mut store, &mut catalog, "m@2.0.0");
    change(&mut store, &mut catalog, bind("b", "m@2.0.0"));
    let activation = catalog.activation();
    change(&mut store, &mut catalog, activation);
    catalog
}

fn a_new_store_is_empty(disk: &impl Disk) {
    let (store, recovered) = disk.open().unwrap();
    assert_eq!(recovered, Recovered { catalog: Catalog::new(), orphans: 0, missing: Vec::new() });
    assert_eq!((store.head(), store.blobs().unwrap().len()), (Head::EMPTY, 0));
}

fn what_was_appended_is_there_after_reopening(disk: &impl Disk) {
    let catalog = four_records(disk);
    let (store, recovered) = disk.open().unwrap();
    assert_eq!(recovered, Recovered { catalog: catalog.clone(), orphans: 0, missing: Vec::new() });
    assert_eq!((store.head(), catalog.generation()), (catalog.head(), 4));
}

fn a_log_of_many_pages_is_read_whole(disk: &impl Disk) {
    let (mut store, Recovered { mut catalog, .. }) = disk.open().unwrap();
    upload(&mut store, &mut catalog, "m@1.0.0");
    for turn in 0..260 {
        change(&mut store, &mut catalog, bind(&format!("b{}", turn % 3), "m@1.0.0"));
    }
    let page = store.read_after(258, 2).unwrap();
    let revs: Vec<u64> = page.iter().map(|bytes| Record::decode(bytes).unwrap().rev).collect();
    assert_eq!(revs, [259, 260]);
    assert!(store.read_after(261, 2).unwrap().is_empty() && store.read_after(u64::MAX, 2).unwrap().is_empty());
    drop(store);
    assert_eq!(disk.open().unwrap().1.catalog, catalog);
}

fn only_a_record_that_follows_the_head_is_appended(disk: &impl Disk) {
    let catalog = four_records(disk);
    let (mut store, _) = disk.open().unwrap();
    let good = catalog.draft(bind("c", "m@1.0.0"), "ada", 1).unwrap();
    let wrong = [
        Record { rev: 4, ..good.clone() },
        Record { rev: 6, ..good.clone() },
        Record { rev: 0, ..good.clone() },
        Record { prev_hash: Digest::ZERO, ..good.clone() },
    ];
    for record in wrong {
        let refused = store.append(&record).unwrap_err();
        assert_eq!(refused.code(), "conflict", "{refused}");
        assert_eq!(store.head(), catalog.head());
    }
    store.append(&good).unwrap();
    assert_eq!(store.append(&good).unwrap_err().code(), "conflict", "the same record twice");
}

fn blobs_are_kept_by_their_digest(disk: &impl Disk) {
    let (mut store, Recovered { mut catalog, .. }) = disk.open().unwrap();
    let digest = upload(&mut store, &mut catalog, "m@1.0.0").digest;
    store.put(&digest, b"m@1.0.0").unwrap();
    assert_eq!(store.blob(&digest).unwrap(), b"m@1.0.0");
    assert_eq!(store.blob_size_bytes(&digest).unwrap(), Some(7));
    assert_eq!(store.put(&digest, b"other").unwrap_err().code(), "invalid-digest");
    let large = vec![0; usize::try_from(MODULE_SIZE_MAX_BYTES).unwrap() + 1];
    assert_eq!(store.put(&Digest::of(&large), &large).unwrap_err().code(), "invalid-digest");

    let unknown = Digest::of(b"unknown");
    assert_eq!(store.blob(&unknown).unwrap_err().code(), "blob-missing");
    assert_eq!(store.blob_size_bytes(&unknown).unwrap(), None);
    assert!(!store.remove(&unknown).unwrap());
    store.put(&unknown, b"unknown").unwrap();
    let mut both = vec![digest, unknown];
    both.sort_unstable();
    assert_eq!(store.blobs().unwrap(), both);
    assert!(store.remove(&unknown).unwrap());
    assert_eq!(store.blobs().unwrap(), [digest]);
}

fn damaged_bytes_are_never_given_and_healed_by_an_upload(disk: &impl Disk) {
    let (mut store, Recovered { mut catalog, .. }) = disk.open().unwrap();
    let digest = upload(&mut store, &mut catalog, "m@1.0.0").digest;
    let damages: [Damage; 4] = [
        |mut bytes| {
            bytes[3] ^= 1;
            Some(bytes)
        },
        |bytes| Some(bytes[..4].to_vec()),
        |_| Some(Vec::new()),
        |bytes| Some([bytes, vec![0]].concat()),
    ];
    for damage in damages {
        disk.tamper_blob(&digest, damage);
        assert_eq!(store.blob(&digest).unwrap_err().code(), "blob-damaged");
        store.put(&digest, b"m@1.0.0").unwrap();
        assert_eq!(store.blob(&digest).unwrap(), b"m@1.0.0");
    }
}

fn a_blob_without_a_record_is_collected_and_a_missing_one_named(disk: &impl Disk) {
    let catalog = four_records(disk);
    let (mut store, _) = disk.open().unwrap();
    // A crash between blob and record.
    store.put(&Digest::of(b"orphan"), b"orphan").unwrap();
    drop(store);
    let lost = [module("m@1.0.0"), module("m@2.0.0")];
    disk.tamper_blob(&lost[0].digest, |_| None);
    disk.tamper_blob(&lost[1].digest, |bytes| Some(bytes[1..].to_vec()));
    let (store, recovered) = disk.open().unwrap();
    let missing = lost.iter().map(Module::module_ref).collect();
    assert_eq!(recovered, Recovered { catalog, orphans: 1, missing });
    assert_eq!(store.blobs().unwrap(), [lost[1].digest], "a damaged one is kept for whoever wants to look");
    drop(store);
    assert_eq!(disk.open().unwrap().1.orphans, 0);
}

fn a_removed_module_leaves_no_bytes_whenever_the_crash_comes(disk: &impl Disk) {
    four_records(disk);
    let (mut store, Recovered { mut catalog, .. }) = disk.open().unwrap();
    change(&mut store, &mut catalog, Op::ModuleRemoved { module: "m@1.0.0".parse().unwrap() });
    drop(store);
    let (store, recovered) = disk.open().unwrap();
    assert_eq!((recovered.orphans, recovered.missing.len()), (1, 0));
    assert_eq!(store.blobs().unwrap(), [module("m@2.0.0").digest]);
}

fn a_broken_log_is_refused_where_it_breaks(disk: &impl Disk) {
    four_records(disk);
    let refusal = |change: Damage, rev| {
        disk.tamper_record(rev, change);
        let refused = disk.open().err().expect("a broken log is refused");
        assert_eq!(refused.code(), "chain-broken");
        // Nothing was mended or collected behind anybody's back: the second look is the same.
        assert_eq!(disk.open().err().unwrap().to_string(), refused.to_string());
        refused.to_string()
    };
    let flip: Damage = |mut bytes| {
        let last = bytes.len() - 20;
        bytes[last] ^= 1;
        Some(bytes)
    };
    let middle = refusal(flip, 2);
    assert!(middle.contains("broken at record") && middle.contains("restore the catalog"), "{middle}");
    disk.tamper_record(2, flip);
    disk.open().expect("the damage is undone");
    assert!(refusal(flip, 4).contains("broken at record 4"));
    disk.tamper_record(4, flip);
    assert!(refusal(|_| Some(vec![0xc1; 9]), 3).contains("its bytes are no record"));
    assert!(refusal(|_| None, 3).contains("broken at record 3: it says it is record 4"));
    assert!(refusal(|_| None, 4).contains("broken at record 3: the log ends before it"));
}

fn two_routers_do_not_share_a_store(disk: &impl Disk) {
    let (store, _) = disk.open().unwrap();
    let refused = disk.open().err().expect("it is in use");
    assert_eq!(refused.code(), "store-locked");
    let says = refused.to_string();
    assert!(
        says.contains(&format!("process {}", std::process::id())) && says.contains("another data directory"),
        "{says}"
    );
    drop(store);
    disk.open().expect("it is free again");
}

conformance! {
    a_new_store_is_empty
    what_was_appended_is_there_after_reopening
    a_log_of_many_pages_is_read_whole
    only_a_record_that_follows_the_head_is_appended
    blobs_are_kept_by_their_digest
    damaged_bytes_are_never_given_and_healed_by_an_upload
    a_blob_without_a_record_is_collected_and_a_missing_one_named
    a_removed_module_leaves_no_bytes_whenever_the_crash_comes
    a_broken_log_is_refused_where_it_breaks
}

/// For the engines that are one router's own; what those do that are shared is in [`shared`].
mod own {
    #[test]
    fn two_routers_do_not_share_a_directory() {
        super::two_routers_do_not_share_a_store(&tempfile::tempdir().unwrap());
    }

    #[test]
    fn two_routers_do_not_share_a_memory() {
        super::two_routers_do_not_share_a_store(&crate::MemoryDisk::new());
    }
}
