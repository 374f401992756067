//! Guests for tests: one small core module in text, made a component as `myelin filter build` would make it.
//!
//! What the guest does with an event is told by the first byte of its payload, so that one module shows every fault:
//! `X` traps, `L` loops for ever, `M` asks for memory until it gets none, `R` recurses, `O` reads out of bounds, `C`
//! gives a verdict too many, `V` a verdict of no kind, `E` announces output that is garbage, `Z` points its output
//! outside its memory, `B` calls the host without end, `Q` raises a counter that it has not declared. `D` denies with
//! reason 1, `T` emits an event, `G` logs and counts, `P` fetches the payload and denies where its last byte is `!`,
//! and everything else is allowed, unless the event has no attributes and begins with `H`: that is denied.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

/// Where the answer of `init` stands in the guest's memory.
pub(crate) const INFO_AT: usize = 4096;
/// Where texts stand.
pub(crate) const TEXT_AT: usize = 1024;
/// Where the arena with the emitted event stands.
const OUTPUT_AT: usize = 6144;

/// What differs between guests.
pub(crate) struct Guest {
    /// Its version.
    pub(crate) version: &'static str,
    /// Whether the bytes that stand for faults are honoured; otherwise such events are allowed.
    pub(crate) hostile: bool,
    /// Pages of memory that it begins with.
    pub(crate) pages: usize,
    /// Route that it declares.
    pub(crate) route: &'static str,
}

impl Default for Guest {
    fn default() -> Self {
        Self { version: "1.0.0", hostile: true, pages: 4, route: "topic:audit/log" }
    }
}

impl Guest {
    /// Its component, which offers its core module to be called directly.
    pub(crate) fn component(&self) -> Vec<u8> {
        let mut component = self.plain_component();
        let mut exports = wasm_encoder::ComponentExportSection::new();
        // The encoder puts the module that it was given first.
        exports.export("flat-module", wasm_encoder::ComponentExportKind::Module, 0, None);
        wasm_encoder::ComponentSection::append_to_component(&exports, &mut component);
        component
    }

    /// Its component as others build it, which can only be called as one.
    pub(crate) fn plain_component(&self) -> Vec<u8> {
        componentise(&self.core())
    }

    /// Its core module, before it becomes a component.
    pub(crate) fn core(&self) -> Vec<u8> {
        let (info, texts) = self.info();
        let text = TEMPLATE
            .replace("$PAGES", &self.pages.to_string())
            .replace("$HOSTILE", if self.hostile { "1" } else { "0" })
            .replace("$INFO_AT", &INFO_AT.to_string())
            .replace("$INFO", &escape(&info))
            .replace("$TEXTS_AT", &TEXT_AT.to_string())
            .replace("$TEXTS", &escape(&texts))
            .replace("$OUTPUT_AT", &OUTPUT_AT.to_string())
            .replace("$OUTPUT_LEN", &emitted().len().to_string())
            .replace("$OUTPUT", &escape(&emitted()));
        wat::parse_str(&text).expect("the template is well-formed")
    }

    /// `result<info, string>` as the canonical ABI lays it out, and the texts that it points to.
    pub(crate) fn info(&self) -> (Vec<u8>, Vec<u8>) {
        let mut texts = b"config is bad".to_vec();
        let mut text = |text: &str| {
            let at = TEXT_AT + texts.len();
            texts.extend_from_slice(text.as_bytes());
            [at as u32, text.len() as u32]
        };
        let (name, version, route) = (text("guest"), text(self.version), text(self.route));
        let (first, second, counter) = (text("first reason"), text("second reason"), text("seen_total"));
        let list = INFO_AT as u32 + 128;
        let mut words = vec![0, name[0], name[1], version[0], version[1]];
        // needs: no named headers, all headers, identity not, payload in full.
        words.extend([list, 0, 1, 2, 0]);
        words.extend([list, 1, list + 8, 2, list + 24, 1, 1024]);
        words.resize(32, 0);
        words.extend([route, first, second, counter].concat());
        (words.iter().flat_map(|word| word.to_le_bytes()).collect(), texts)
    }
}

/// An arena with one event for `audit/log`.
fn emitted() -> Vec<u8> {
    let mut builder = myelin_arena::ArenaBuilder::new(1);
    builder.push(&myelin_arena::Entry {
        topic: "audit/log",
        attrs: &[],
        payload: b"seen",
        payload_total: 4,
        identity: None,
    });
    builder.into_bytes()
}

/// Makes a component of the world `fast` from a core module.
pub(crate) fn componentise(core: &[u8]) -> Vec<u8> {
    componentise_for("fast", core)
}

/// The contract, and its package.
pub(crate) fn contract() -> (Resolve, PackageId) {
    let mut resolve = Resolve::default();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/0.1.0");
    let (package, _) = resolve.push_path(folder).expect("the contract is readable");
    (resolve, package)
}

/// Makes a component of a world from a core module.
pub(crate) fn componentise_for(world: &str, core: &[u8]) -> Vec<u8> {
    let (resolve, package) = contract();
    let world = resolve.select_world(&[package], Some(world)).expect("the world exists");
    let mut module = core.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
    let mut encoder = ComponentEncoder::default().validate(true).module(&module).expect("a module of the world");
    encoder.encode().expect("a component")
}

/// Appends a custom section to a module or component.
#[allow(dead_code, reason = "one of the two users of this file has no vectors")]
pub(crate) fn with_section(wasm: &[u8], name: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = wasm.to_vec();
    bytes.push(0);
    let mut body = Vec::new();
    leb(name.len(), &mut body);
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(data);
    leb(body.len(), &mut bytes);
    bytes.extend_from_slice(&body);
    bytes
}

fn leb(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn escape(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

const TEMPLATE: &str = r#"(module
  (import "myelin:filter/host@0.1.0" "log" (func $log (param i32 i32 i32)))
  (import "myelin:filter/host@0.1.0" "count" (func $count (param i32 i64)))
  (import "myelin:filter/host@0.1.0" "payload" (func $payload (param i32 i32 i32 i32)))
  (memory (export "memory") $PAGES)
  (global $bump (mut i32) (i32.const 65536))
  (global $seen (mut i32) (i32.const 0))
  (data (i32.const $TEXTS_AT) "$TEXTS")
  (data (i32.const $INFO_AT) "$INFO")
  (data (i32.const $OUTPUT_AT) "$OUTPUT")
  (func (export "cabi_realloc") (param i32 i32 i32) (param $len i32) (result i32)
    (local $at i32) (local $end i32)
    (local.set $at (i32.and (i32.add (global.get $bump) (i32.const 15)) (i32.const -16)))
    (local.set $end (i32.add (local.get $at) (local.get $len)))
    (if (i32.gt_u (local.get $end) (i32.mul (memory.size) (i32.const 65536))) (then
      (drop (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $len) (i32.const 16)))))))
    (global.set $bump (local.get $end))
    (local.get $at))
  (func $recurse (param i32) (result i32)
    (i32.add (i32.const 1) (call $recurse (i32.add (local.get 0) (i32.const 1)))))
  (func (export "myelin:filter/filter@0.1.0#init")
    (param $config i32) (param $len i32) (param $some i32) (param $state i32) (param $state_len i32) (result i32)
    (if (i32.eq (local.get $len) (i32.const 3)) (then
      (i32.store8 (i32.const 512) (i32.const 1))
      (i32.store (i32.const 516) (i32.const $TEXTS_AT))
      (i32.store (i32.const 520) (i32.const 13))
      (return (i32.const 512))))
    (if (i32.eq (local.get $len) (i32.const 4)) (then (loop $spin (br $spin))))
    (if (i32.and (local.get $some) (i32.eq (local.get $state_len) (i32.const 4))) (then
      (global.set $seen (i32.load (local.get $state)))))
    (i32.const $INFO_AT))
  (func (export "myelin:filter/filter@0.1.0#save") (result i32)
    (i32.store (i32.const 544) (global.get $seen))
    (i32.store (i32.const 528) (i32.const 544))
    (i32.store (i32.const 532) (i32.const 4))
    (i32.const 528))
  (func $hostile (param $first i32)
    (if (i32.eq (local.get $first) (i32.const 88)) (then unreachable))
    (if (i32.eq (local.get $first) (i32.const 76)) (then (loop $spin (br $spin))))
    (if (i32.eq (local.get $first) (i32.const 77)) (then
      (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable))
    (if (i32.eq (local.get $first) (i32.const 82)) (then (drop (call $recurse (i32.const 0)))))
    (if (i32.eq (local.get $first) (i32.const 79)) (then (drop (i32.load (i32.const 0x7fffffff)))))
    (if (i32.eq (local.get $first) (i32.const 67)) (then
      (i32.store (i32.const 516) (i32.add (i32.load (i32.const 516)) (i32.const 1)))))
    (if (i32.eq (local.get $first) (i32.const 90)) (then
      (i32.store (i32.const 520) (i32.const 0x7fffff00))
      (i32.store (i32.const 524) (i32.const 64))))
    (if (i32.eq (local.get $first) (i32.const 66)) (then
      (loop $call (call $payload (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 536)) (br $call))))
    (if (i32.eq (local.get $first) (i32.const 81)) (then (call $count (i32.const 9) (i64.const 1)))))
  (func $verdict (param $first i32) (param $event i32) (param $bytes i32) (param $attrs i32) (result i64)
    (if (i32.eq (local.get $first) (i32.const 86)) (then (return (i64.const 6))))
    (if (i32.eq (local.get $first) (i32.const 69)) (then
      (i32.store (i32.const 520) (i32.const $TEXTS_AT))
      (i32.store (i32.const 524) (i32.const 20))
      (return (i64.const 256))))
    (if (i32.eq (local.get $first) (i32.const 68)) (then (return (i64.const 65537))))
    (if (i32.eq (local.get $first) (i32.const 84)) (then
      (i32.store (i32.const 520) (i32.const $OUTPUT_AT))
      (i32.store (i32.const 524) (i32.const $OUTPUT_LEN))
      (return (i64.const 256))))
    (if (i32.eq (local.get $first) (i32.const 71)) (then
      (call $log (i32.const 1) (i32.const $TEXTS_AT) (i32.const 13))
      (call $count (i32.const 0) (i64.const 2))))
    (if (i32.eq (local.get $first) (i32.const 80)) (then
      (call $payload (local.get $event) (i32.sub (local.get $bytes) (i32.const 1)) (i32.const 9) (i32.const 536))
      (if (i32.and (i32.eq (i32.load (i32.const 540)) (i32.const 1))
                   (i32.eq (i32.load8_u (i32.load (i32.const 536))) (i32.const 33)))
        (then (return (i64.const 1))))))
    (if (i32.and (i32.eq (local.get $first) (i32.const 72)) (i32.eqz (local.get $attrs))) (then
      (return (i64.const 1))))
    (i64.const 0))
  (func (export "myelin:filter/filter@0.1.0#run")
    (param $arena i32) (param $len i32) (param $count i32) (param $now i64) (result i32)
    (local $i i32) (local $row i32) (local $first i32)
    (i32.store (i32.const 512) (i32.const 8192))
    (i32.store (i32.const 516) (local.get $count))
    (i64.store (i32.const 520) (i64.const 0))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
      (local.set $row (i32.add (i32.add (local.get $arena) (i32.const 8)) (i32.mul (local.get $i) (i32.const 32))))
      (global.set $seen (i32.add (global.get $seen) (i32.const 1)))
      (local.set $first (i32.const 0))
      (if (i32.load offset=20 (local.get $row)) (then
        (local.set $first (i32.load8_u (i32.add (local.get $arena) (i32.load offset=16 (local.get $row)))))))
      (if (i32.const $HOSTILE) (then (call $hostile (local.get $first))))
      (i64.store offset=8192 (i32.mul (local.get $i) (i32.const 8))
        (call $verdict (local.get $first) (local.get $i) (i32.load offset=20 (local.get $row))
          (i32.load offset=12 (local.get $row))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (i32.const 512))
  (func (export "cabi_post_myelin:filter/filter@0.1.0#run") (param i32)
    (global.set $bump (i32.const 65536)))
)"#;
