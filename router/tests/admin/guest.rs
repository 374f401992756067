//! A filter small enough to be written by hand: it allows everything, logs when it is set up, and refuses a
//! configuration that begins with `"`.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The component of version `version`; the text must have 5 bytes, such as `1.0.0`.
pub(crate) fn component(version: &str) -> Vec<u8> {
    encode(TEMPLATE, version)
}

/// The same, but it logs with each batch which schema the subject `quiet` has, or `no` where it has none.
pub(crate) fn asking_component(version: &str) -> Vec<u8> {
    let run = r#"(func (export "myelin:filter/filter@0.1.0#run") (param i32 i32 i32 i64) (result i32)"#;
    let template = TEMPLATE.replacen("(memory ", IMPORT, 1).replacen(run, &format!("{run}{ASK}"), 1);
    encode(&template, version)
}

fn encode(template: &str, version: &str) -> Vec<u8> {
    assert_eq!(version.len(), 5, "the version's place in the data segment");
    let mut module = wat::parse_str(template.replace("VERSN", version)).unwrap();
    let mut resolve = Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/0.1.0");
    let (package, _) = resolve.push_path(wit).unwrap();
    let world = resolve.select_world(&[package], Some("fast")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

/// The same, but it gives one verdict too many where the first event's topic begins with an `o`: for orders, and not for what
/// it is tested with.
pub(crate) fn faulty(version: &str) -> Vec<u8> {
    let given = "(i32.store (i32.const 164) (local.get 2))";
    assert!(TEMPLATE.contains(given));
    // The first entry of the table stands after 8 bytes, and begins with where its topic does.
    let topic = "(i32.load8_u (i32.add (local.get 0) (i32.load offset=8 (local.get 0))))";
    let is_order = format!("(i32.eq {topic} (i32.const 111))");
    let surplus = format!("(i32.store (i32.const 164) (i32.add (local.get 2) {is_order}))");
    encode(&TEMPLATE.replace(given, &surplus), version)
}

/// A core module, which is no component.
pub(crate) fn core_module() -> Vec<u8> {
    wat::parse_str("(module)").unwrap()
}

/// A component without what a filter exports.
pub(crate) fn other_component() -> Vec<u8> {
    wat::parse_str("(component)").unwrap()
}

const IMPORT: &str = r#"(import "myelin:filter/host@0.1.0" "schema" (func $schema (param i32 i32 i32)))
  (memory "#;
/// The answer is put at 192: whether there is one, where its bytes are, and how many.
const ASK: &str = r#"
    (call $schema (i32.const 0) (i32.const 5) (i32.const 192))
    (if (i32.load8_u (i32.const 192))
      (then (call $log (i32.const 1) (i32.load (i32.const 196)) (i32.load (i32.const 200))))
      (else (call $log (i32.const 1) (i32.const 16) (i32.const 2))))"#;

/// Memory: 0..64 texts, 64..192 results, 1024.. 64 zero verdicts, 4096.. the heap, which each run begins anew.
const TEMPLATE: &str = r#"
(module
  (import "myelin:filter/host@0.1.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 8)
  (global $next (mut i32) (i32.const 4096))
  (data (i32.const 0) "quietVERSNset upno texts")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "myelin:filter/filter@0.1.0#init") (param i32 i32 i32 i32 i32) (result i32)
    (if (local.get 1)
      (then (if (i32.eq (i32.load8_u (local.get 0)) (i32.const 34))
        (then
          (i32.store8 (i32.const 64) (i32.const 1))
          (i32.store (i32.const 68) (i32.const 16))
          (i32.store (i32.const 72) (i32.const 8))
          (return (i32.const 64))))))
    (call $log (i32.const 1) (i32.const 10) (i32.const 6))
    (i32.store8 (i32.const 64) (i32.const 0))
    (i32.store (i32.const 68) (i32.const 0))
    (i32.store (i32.const 72) (i32.const 5))
    (i32.store (i32.const 76) (i32.const 5))
    (i32.store (i32.const 80) (i32.const 5))
    (i32.const 64))
  (func (export "myelin:filter/filter@0.1.0#run") (param i32 i32 i32 i64) (result i32)
    (i32.store (i32.const 160) (i32.const 1024))
    (i32.store (i32.const 164) (local.get 2))
    (i32.store (i32.const 168) (i32.const 0))
    (i32.store (i32.const 172) (i32.const 0))
    (global.set $next (i32.const 4096))
    (i32.const 160))
  (func (export "myelin:filter/filter@0.1.0#save") (result i32)
    (i32.store (i32.const 176) (i32.const 0))
    (i32.store (i32.const 180) (i32.const 0))
    (i32.const 176))
)
"#;
