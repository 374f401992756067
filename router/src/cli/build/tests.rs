//! Tests of what does not need a compiler; whole builds are run by `cargo xtask test`.

use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    folder
}

fn vectors(files: &[(&str, &str)]) -> Result<Option<Vectors>> {
    read_vectors(folder(files).path())
}

#[test]
fn fixtures_come_in_order_and_each_file_with_its_own_configuration() {
    let files = [
        ("b.jsonl", "{\"topic\":\"b\"}\n\n{\"topic\":\"c\"}"),
        ("a.jsonl", "{\"config\":{\"x\":1}}\n{\"topic\":\"a\"}\n"),
        ("notes.txt", "not a fixture"),
    ];
    let read = vectors(&files).expect("read").expect("some");
    // The second file has none of its own, so the first one's is taken back.
    let expected =
        "{\"config\":{\"x\":1}}\n{\"topic\":\"a\"}\n{\"config\":null}\n{\"topic\":\"b\"}\n{\"topic\":\"c\"}\n";
    assert_eq!((String::from_utf8_lossy(&read.lines).as_ref(), read.events), (expected, 3));
    assert_eq!(vectors(&[("notes.txt", "")]).expect("read"), None);
    assert_eq!(read_vectors(Path::new("/nowhere/fixtures")).expect("absent"), None);
}

#[test]
fn what_routers_do_not_look_at_stays_outside_of_the_component() {
    let line =
        "{\"topic\":\"a\",\"expect\":{\"verdict\":\"allow\",\"headers\":{\"x\":null},\"emitted\":[]},\"payload\":1.0}";
    let read = vectors(&[("a.jsonl", line)]).expect("read").expect("some");
    let expected = "{\"topic\":\"a\",\"expect\":{\"verdict\":\"allow\"},\"payload\":1.0}\n";
    assert_eq!(String::from_utf8_lossy(&read.lines), expected);
    let refused = vectors(&[("a.jsonl", &line.replace("null", "1"))]).expect_err("refused");
    assert!(format!("{refused:#}").contains("a.jsonl:1"), "{refused:#}");
}

#[test]
fn a_malformed_fixture_is_told_with_its_place() {
    let refused = |text: &str| format!("{:#}", vectors(&[("a.jsonl", text)]).expect_err("refused"));
    assert!(refused("{\"topic\":\"a\"}\n{").contains("a.jsonl:2: the line is not JSON"));
    assert!(refused("[]").contains("a.jsonl:1: the line is not an object"));
    assert!(refused("{\"payload\":1}").contains("`topic` is missing"));
    assert!(refused("{\"config\":{},\"topic\":\"a\"}").contains("`config` has no other key"));
    assert!(refused("{\"topic\":\"a\",\"tpye\":\"t\"}").contains("`tpye` is not known here; known are topic, headers"));
    assert!(refused("{\"topic\":\"a\",\"headers\":{\"x\":1}}").contains("`headers` is not an object of texts"));
    let maybe = "{\"topic\":\"a\",\"expect\":{\"verdict\":\"maybe\"}}";
    assert!(refused(maybe).contains("`expect.verdict` is none of allow, deny"));
    assert!(refused(&"{\"topic\":\"a\"}\n".repeat(1001)).contains("1001 lines; a self-test has at most 1000"));
    let large = format!("{{\"topic\":\"{}\"}}\n", "a".repeat(VECTORS_BYTES_MAX));
    assert!(refused(&large).contains("at most 1048576 fit"));
}

#[test]
fn what_is_no_filter_is_refused_in_words() {
    let refused = |bytes: &[u8]| componentize(bytes, None).expect_err("refused").to_string();
    assert!(refused(b"#!/bin/sh").contains("no core WebAssembly module"));
    let component = b"\0asm\x0d\0\x01\0";
    assert!(refused(component).contains("no core WebAssembly module"));
    let empty = b"\0asm\x01\0\0\0";
    assert!(refused(empty).contains("put #[myelin_filter::filter] above one type"));
    assert!(refused(b"\0asm\x01\0\0\0\x01\xff").contains("malformed"));
}

#[test]
fn an_import_from_elsewhere_is_named() {
    use wasm_encoder::{EntityType, ImportSection, Module, TypeSection};
    let mut module = Module::new();
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut imports = ImportSection::new();
    imports.import("wasi_snapshot_preview1", "random_get", EntityType::Function(0));
    module.section(&types).section(&imports);
    module.section(&CustomSection { name: INTERFACE_SECTION_PREFIX.into(), data: (&[]).into() });
    let error = componentize(&module.finish(), None).expect_err("refused").to_string();
    assert!(error.contains("imports `random_get` from `wasi_snapshot_preview1`"), "{error}");
}

#[test]
fn the_label_is_read_from_the_module() {
    let module = |data: &'static [u8]| {
        let mut module = wasm_encoder::Module::new();
        module.section(&CustomSection { name: LABEL_SECTION.into(), data: data.into() });
        module.finish()
    };
    assert_eq!(label(&module(b"redact\x000.1.0")).expect("label"), Some(("redact".to_owned(), "0.1.0".to_owned())));
    assert!(label(&module(b"redact")).is_err());
    assert_eq!(label(b"\0asm\x01\0\0\0").expect("none"), None);
}

#[test]
fn a_folder_without_a_package_is_refused() {
    let folder = folder(&[]);
    let options = BuildOptions { dir: folder.path().to_owned(), ..BuildOptions::default() };
    assert!(build_filter(&options).expect_err("refused").to_string().contains("has no Cargo.toml"));
    std::fs::write(folder.path().join("package.json"), "{}").expect("a file");
    let refused = build_filter(&options).expect_err("refused").to_string();
    let command = format!("`node sdk-js/build.mjs {}`", folder.path().display());
    assert!(refused.contains(&command), "{refused}");
}
