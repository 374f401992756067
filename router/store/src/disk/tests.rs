//! What can happen only to files.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use myelin_catalog::{Catalog, Op};
use proptest::prelude::*;

use super::*;
use crate::conformance::{Damage, blob_path, change, module, upload};

/// Damages a record of a store that is not open.
pub(crate) fn tamper_record(dir: &Path, rev: u64, change: Damage) {
    let store = DiskStore::open_unchecked(dir).unwrap();
    store.log().tamper(|records| {
        let bytes = records.remove(rev).unwrap().unwrap().value().to_vec();
        if let Some(bytes) = change(bytes) {
            records.insert(rev, bytes.as_slice()).unwrap();
        }
    });
}

fn refusal(dir: &Path) -> StoreError {
    DiskStore::open(dir).err().expect("it is refused")
}

fn filled(dir: &Path) -> Catalog {
    let (mut store, Recovered { mut catalog, .. }) = DiskStore::open(dir).unwrap();
    upload(&mut store, &mut catalog, "m@1.0.0");
    upload(&mut store, &mut catalog, "m@2.0.0");
    catalog
}

#[test]
fn modules_without_a_log_are_not_collected() {
    for truncate in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let (log, aside) = (dir.path().join(LOG_FILE), dir.path().join("kept"));
        fs::copy(&log, &aside).unwrap();
        if truncate {
            fs::write(&log, "").unwrap()
        } else {
            fs::remove_file(&log).unwrap()
        }
        let refused = refusal(dir.path());
        assert!(refused.code() == "catalog-lost" && refused.to_string().contains("from a backup"), "{refused}");
        assert_eq!(refusal(dir.path()).code(), "catalog-lost", "the first try began no log either");
        fs::rename(&aside, &log).unwrap();
        let (_, recovered) = DiskStore::open(dir.path()).unwrap();
        assert_eq!((recovered.orphans, recovered.missing.len()), (0, 0), "restored as the sentence says");
    }
}

#[test]
fn a_log_of_a_newer_router_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    DiskStore::open_unchecked(dir.path()).unwrap().log().set_format(2);
    for _ in 0..2 {
        let refused = refusal(dir.path());
        assert!(refused.code() == "store-format" && refused.to_string().contains("format 2"), "{refused}");
    }
}

#[test]
fn a_crash_while_the_log_is_begun_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(LOG_FILE_ASIDE), "half a log").unwrap();
    filled(dir.path());
    assert!(!dir.path().join(LOG_FILE_ASIDE).exists());
    assert_eq!(DiskStore::open(dir.path()).unwrap().1.catalog.head().rev, 2);
}

#[test]
fn a_file_that_is_no_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(LOG_FILE), "x".repeat(10_000)).unwrap();
    let refused = refusal(dir.path());
    assert!(
        ["store-io", "store-damaged"].contains(&refused.code()) && refused.to_string().contains(LOG_FILE),
        "{refused}"
    );
}

#[test]
fn a_log_that_ends_in_its_own_header_is_damaged() {
    for len in [1, 100, 200, 320, 4_096] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        OpenOptions::new().write(true).open(dir.path().join(LOG_FILE)).unwrap().set_len(len).unwrap();
        let refused = refusal(dir.path());
        assert_eq!(refused.code(), "store-damaged", "{len} bytes: {refused}");
    }
}

#[test]
fn leftovers_go_and_strange_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(dir.path());
    let half_written = dir.path().join("blobs/tmp/half");
    fs::write(&half_written, "ha").unwrap();
    let kept = blob_path(&dir, &module("m@1.0.0").digest);
    // A note beside a module, a digest in a wrong folder, a file where folders are.
    let strange =
        [kept.with_file_name("note.txt"), kept.with_file_name("0".repeat(64)), dir.path().join("blobs/sha256/x")];
    strange.iter().for_each(|path| fs::write(path, "?").unwrap());
    let (_, recovered) = DiskStore::open(dir.path()).unwrap();
    assert_eq!(recovered, Recovered { catalog, orphans: 0, missing: Vec::new() });
    assert!(!half_written.exists() && strange.iter().all(|path| path.exists()));
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = refusal(&file.join("data"));
    assert!(refused.code() == "store-io" && refused.to_string().contains("file/data"), "{refused}");
}

const CHILD: &str = "MYELIN_STORE_CRASH_DIR";

/// Two roles: started by itself it uploads without end and says what is promised; else it starts itself and kills it.
#[test]
fn nothing_that_was_promised_is_lost_to_a_kill() {
    if let Some(dir) = std::env::var_os(CHILD) {
        upload_for_ever(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut promised = 0;
    for round in 0..6 {
        let me = std::env::current_exe().unwrap();
        let test = "disk::tests::nothing_that_was_promised_is_lost_to_a_kill";
        let mut child = Command::new(me)
            .args([test, "--exact", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Some promises, then the kill: between blob and record, in the middle of either, or elsewhere.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let revs = lines.filter_map(|line| line.strip_prefix("promised ")?.parse::<u64>().ok());
        let last = revs.take(5 + round).last().expect("the child promises something");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(last > promised);
        promised = last;

        let (store, recovered) = DiskStore::open(dir.path()).unwrap();
        assert!(recovered.catalog.head().rev >= promised, "{} < {promised}", recovered.catalog.head().rev);
        assert!(recovered.missing.is_empty() && recovered.orphans <= 1, "{recovered:?}");
        for module in recovered.catalog.modules() {
            assert_eq!(store.blob(&module.digest).unwrap(), module.module_ref().to_string().as_bytes());
        }
        assert_eq!(store.blobs().unwrap().len(), recovered.catalog.modules().len());
    }
}

fn upload_for_ever(dir: &Path) -> ! {
    let (mut store, Recovered { mut catalog, .. }) = DiskStore::open(dir).unwrap();
    loop {
        let rev = catalog.head().rev;
        upload(&mut store, &mut catalog, &format!("m@1.0.{rev}"));
        println!("promised {}", catalog.head().rev);
        if rev % 3 == 0 {
            let gone = module(&format!("m@1.0.{rev}"));
            change(&mut store, &mut catalog, Op::ModuleRemoved { module: gone.module_ref() });
            store.remove(&gone.digest).unwrap();
            println!("promised {}", catalog.head().rev);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_refused_or_read_as_it_was(at in any::<prop::sample::Index>(), mask in 1u8.., cut in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(dir.path());
        let path = dir.path().join(LOG_FILE);
        let mut bytes = fs::read(&path).unwrap();
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        if cut {
            bytes.truncate(at.index(bytes.len()));
        } else {
            bytes[used[at.index(used.len())]] ^= mask;
        }
        fs::write(&path, bytes).unwrap();
        match DiskStore::open(dir.path()) {
            Ok((store, recovered)) => {
                prop_assert_eq!(recovered, Recovered { catalog, orphans: 0, missing: Vec::new() });
                prop_assert_eq!(store.blobs().unwrap().len(), 2);
            }
            Err(refused) => {
                let code = refused.code();
                prop_assert!(["store-damaged", "chain-broken", "catalog-lost"].contains(&code), "{}", refused);
                prop_assert!(dir.path().join("blobs/sha256").read_dir().unwrap().count() == 2, "no module is touched");
            }
        }
    }
}
