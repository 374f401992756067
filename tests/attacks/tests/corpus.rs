//! The corpora of the fuzz targets, replayed on stable: whatever once broke a reader, or made it take a new path, is
//! read again with every test run.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin_attacks::targets::TARGETS;
use std::path::Path;

/// Bytes of all corpora together: they are read by people, too.
const CORPORA_BYTES_MAX: u64 = 256 * 1024;
/// Files that a target begins with at least.
const SEEDS_MIN: usize = 8;

#[test]
fn every_target_reads_its_corpus() {
    let corpora = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus"));
    let mut bytes = 0;
    for target in TARGETS {
        let mut files = 0;
        for entry in std::fs::read_dir(corpora.join(target.name)).expect(target.name) {
            let data = std::fs::read(entry.unwrap().path()).unwrap();
            (target.run)(&data);
            files += 1;
            bytes += data.len() as u64;
        }
        assert!(files >= SEEDS_MIN, "{}: {files} files", target.name);
    }
    assert!(bytes <= CORPORA_BYTES_MAX, "{bytes} bytes of corpora: minimise them with `cargo fuzz cmin`");
}

/// So that the reader of configurations begins with every key that there is.
#[test]
fn the_configuration_that_it_begins_with_is_the_one_of_today() {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/config/default"));
    let is_same = std::fs::read(file).unwrap() == myelin::config::DEFAULT_TOML.as_bytes();
    assert!(is_same, "write it anew: `myelin config default > tests/fuzz/corpus/config/default`");
}

#[test]
fn every_target_has_its_program_and_no_program_is_without() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/fuzz_targets"));
    let mut programs: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    programs.sort();
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(programs, names);
}
