//! A guest of the world `easy` in text, for what no language's tools would do: its memory is laid out by hand.
//!
//! What it does with an event is told by the first byte of its payload: `D` denies with the second reason, `U` with a
//! reason that is not declared, `A` adds the declared route, `P` puts the payload without its first byte in its place,
//! `S` drops what it has seen (by the topic), `T` takes one of two tokens and denies with the first reason where there
//! is none, `X` traps after both, `L` loops, `C` gives a verdict too many, `Z` a payload outside its memory. Everything
//! else is allowed.

use wit_parser::{SizeAlign, TypeDefKind};

use super::guests::{Guest, INFO_AT, TEXT_AT, componentise_for, contract, escape};

/// Where the verdicts stand in the guest's memory.
const VERDICTS_AT: usize = 8192;
/// Where a list with the one route stands.
const ROUTES_AT: usize = 640;

/// Its component.
pub(crate) fn component() -> Vec<u8> {
    let (info, texts) = Guest::default().info();
    let place = |text: &str| {
        let at = texts.windows(text.len()).position(|window| window == text.as_bytes()).expect("a text of the guest");
        (TEXT_AT + at).to_string()
    };
    let (events, verdicts) = (layout("event"), layout("verdict"));
    let text = TEMPLATE
        .replace("$EVENT_SIZE", &events.size.to_string())
        .replace("$EVENT_PAYLOAD", &events.field("payload").to_string())
        .replace("$VERDICT_SIZE", &verdicts.size.to_string())
        .replace("$VERDICT_PAYLOAD", &verdicts.field("payload").to_string())
        .replace("$VERDICTS_AT", &VERDICTS_AT.to_string())
        .replace("$ROUTES_AT", &ROUTES_AT.to_string())
        .replace("$ROUTE", &place("topic:audit/log"))
        .replace("$FIRST", &place("first reason"))
        .replace("$SECOND", &place("second reason"))
        .replace("$INFO_AT", &INFO_AT.to_string())
        .replace("$INFO", &escape(&info))
        .replace("$TEXTS_AT", &TEXT_AT.to_string())
        .replace("$TEXTS", &escape(&texts));
    componentise_for("easy", &wat::parse_str(&text).expect("the template is well-formed"))
}

/// How a record of the contract lies in memory.
struct Layout {
    size: usize,
    fields: Vec<(String, usize)>,
}

impl Layout {
    fn field(&self, name: &str) -> usize {
        self.fields.iter().find(|(field, _)| field == name).expect("a field of the record").1
    }
}

fn layout(record: &str) -> Layout {
    let (resolve, package) = contract();
    let interface = resolve.packages[package].interfaces["easy-filter"];
    let id = resolve.interfaces[interface].types[record];
    let TypeDefKind::Record(definition) = &resolve.types[id].kind else { panic!("{record} is a record") };
    let mut sizes = SizeAlign::default();
    sizes.fill(&resolve);
    let offsets = sizes.field_offsets(definition.fields.iter().map(|field| &field.ty));
    let names = definition.fields.iter().map(|field| field.name.clone());
    let fields = names.zip(offsets.iter().map(|(offset, _)| offset.size_wasm32())).collect();
    Layout { size: sizes.size(&wit_parser::Type::Id(id)).size_wasm32(), fields }
}

const TEMPLATE: &str = r#"(module
  (import "myelin:filter/host@0.1.0" "take" (func $take (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "myelin:filter/host@0.1.0" "seen" (func $seen (param i32 i32 i64) (result i32)))
  (memory (export "memory") 4)
  (global $bump (mut i32) (i32.const 65536))
  (data (i32.const $TEXTS_AT) "$TEXTS")
  (data (i32.const $INFO_AT) "$INFO")
  (func (export "cabi_realloc") (param i32 i32 i32) (param $len i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $bump) (i32.const 15)) (i32.const -16)))
    (global.set $bump (i32.add (local.get $at) (local.get $len)))
    (local.get $at))
  (func (export "myelin:filter/easy-filter@0.1.0#init") (param i32 i32 i32 i32 i32) (result i32)
    (i32.const $INFO_AT))
  (func (export "myelin:filter/easy-filter@0.1.0#save") (result i32)
    (i64.store (i32.const 528) (i64.const 0))
    (i32.const 528))
  (func $is (param $event i32) (param $wanted i32) (result i32)
    (if (i32.eqz (i32.load offset=4 (i32.add (local.get $event) (i32.const $EVENT_PAYLOAD)))) (then
      (return (i32.const 0))))
    (i32.eq (i32.load8_u (i32.load (i32.add (local.get $event) (i32.const $EVENT_PAYLOAD)))) (local.get $wanted)))
  (func $say (param $verdict i32) (param $case i32) (param $at i32) (param $len i32)
    (i32.store8 (local.get $verdict) (local.get $case))
    (i32.store offset=4 (local.get $verdict) (local.get $at))
    (i32.store offset=8 (local.get $verdict) (local.get $len)))
  (func $replace (param $verdict i32) (param $at i32) (param $len i32)
    (local.set $verdict (i32.add (local.get $verdict) (i32.const $VERDICT_PAYLOAD)))
    (i32.store8 (local.get $verdict) (i32.const 1))
    (i32.store offset=4 (local.get $verdict) (local.get $at))
    (i32.store offset=8 (local.get $verdict) (local.get $len)))
  (func $judge (param $event i32) (param $verdict i32)
    (local $payload i32) (local $len i32)
    (local.set $payload (i32.load (i32.add (local.get $event) (i32.const $EVENT_PAYLOAD))))
    (local.set $len (i32.load offset=4 (i32.add (local.get $event) (i32.const $EVENT_PAYLOAD))))
    (if (call $is (local.get $event) (i32.const 68)) (then
      (call $say (local.get $verdict) (i32.const 1) (i32.const $SECOND) (i32.const 13))))
    (if (call $is (local.get $event) (i32.const 85)) (then
      (call $say (local.get $verdict) (i32.const 1) (i32.const $SECOND) (i32.const 6))))
    (if (call $is (local.get $event) (i32.const 65)) (then
      (i32.store (i32.const $ROUTES_AT) (i32.const $ROUTE))
      (i32.store offset=4 (i32.const $ROUTES_AT) (i32.const 15))
      (call $say (local.get $verdict) (i32.const 5) (i32.const $ROUTES_AT) (i32.const 1))))
    (if (call $is (local.get $event) (i32.const 80)) (then
      (call $replace (local.get $verdict) (i32.add (local.get $payload) (i32.const 1))
        (i32.sub (local.get $len) (i32.const 1)))))
    (if (call $is (local.get $event) (i32.const 90)) (then
      (call $replace (local.get $verdict) (i32.const 0x7fffff00) (i32.const 64))))
    (if (i32.or (call $is (local.get $event) (i32.const 83)) (call $is (local.get $event) (i32.const 88))) (then
      (if (call $seen (i32.load (local.get $event)) (i32.load offset=4 (local.get $event)) (i64.const 1000)) (then
        (i32.store8 (local.get $verdict) (i32.const 3))))))
    (if (i32.or (call $is (local.get $event) (i32.const 84)) (call $is (local.get $event) (i32.const 88))) (then
      (if (i32.eqz (call $take (local.get $payload) (i32.const 0) (i32.const 1) (i32.const 1) (i32.const 1000)
            (i32.const 2))) (then
        (call $say (local.get $verdict) (i32.const 1) (i32.const $FIRST) (i32.const 12))))))
    (if (call $is (local.get $event) (i32.const 88)) (then unreachable))
    (if (call $is (local.get $event) (i32.const 76)) (then (loop $spin (br $spin)))))
  (func (export "myelin:filter/easy-filter@0.1.0#on-batch")
    (param $events i32) (param $count i32) (param $seconds i64) (param $nanoseconds i32) (result i32)
    (local $verdict i32) (local $given i32)
    (memory.fill (i32.const $VERDICTS_AT) (i32.const 0) (i32.const 40000))
    (local.set $verdict (i32.const $VERDICTS_AT))
    (local.set $given (local.get $count))
    (block $done (loop $next
      (br_if $done (i32.eqz (local.get $count)))
      (call $judge (local.get $events) (local.get $verdict))
      (if (call $is (local.get $events) (i32.const 67)) (then
        (local.set $given (i32.add (local.get $given) (i32.const 1)))))
      (local.set $events (i32.add (local.get $events) (i32.const $EVENT_SIZE)))
      (local.set $verdict (i32.add (local.get $verdict) (i32.const $VERDICT_SIZE)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br $next)))
    (i32.store (i32.const 512) (i32.const $VERDICTS_AT))
    (i32.store (i32.const 516) (local.get $given))
    (i32.const 512))
  (func (export "cabi_post_myelin:filter/easy-filter@0.1.0#on-batch") (param i32)
    (global.set $bump (i32.const 65536)))
)"#;
