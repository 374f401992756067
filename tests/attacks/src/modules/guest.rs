//! One core module in text, whose parts a hostile author replaces, made a component as the build tool makes one.

use myelin_arena::{ArenaBuilder, Entry};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = include_str!("../../../../wit/0.1.0/filter.wit");
/// Where the answer of `init` stands in the guest's memory.
const INFO_AT: usize = 1_024;
/// Where the lists and texts stand that it points to.
const TEXTS_AT: usize = 2_048;
/// Where the verdicts stand: 64 of them.
const VERDICTS_AT: usize = 65_536;
/// Where the output stands, up to [`HEAP_AT`].
const OUTPUT_AT: usize = VERDICTS_AT + 512;
/// Where the host's copies are put; every run begins there anew.
pub(super) const HEAP_AT: usize = 131_072;

/// What a filter says about itself.
#[derive(Clone, Debug)]
pub(super) struct Info {
    pub(super) name: Vec<u8>,
    pub(super) headers: Vec<String>,
    pub(super) routes: Vec<String>,
    pub(super) reasons: Vec<String>,
    pub(super) counters: Vec<String>,
    pub(super) max_output: u32,
}

impl Default for Info {
    fn default() -> Self {
        let list = |text: &str| vec![text.to_owned()];
        Self {
            name: b"hostile".to_vec(),
            headers: Vec::new(),
            routes: list("topic:audit/log"),
            reasons: list("because"),
            counters: list("seen_total"),
            max_output: 1_024,
        }
    }
}

impl Info {
    /// `result<info, string>` as the canonical ABI lays it out at [`INFO_AT`], and what it points to at [`TEXTS_AT`].
    fn lay_out(&self) -> (Vec<u8>, Vec<u8>) {
        let mut texts = Vec::new();
        let mut put = |bytes: &[u8]| {
            // Lists hold words.
            texts.resize(texts.len().next_multiple_of(4), 0);
            let at = TEXTS_AT + texts.len();
            texts.extend_from_slice(bytes);
            [word(at), word(bytes.len())]
        };
        let (name, version) = (put(&self.name), put(b"1.0.0"));
        let mut list = |list: &[String]| {
            let pairs: Vec<_> = list.iter().map(|text| put(text.as_bytes())).collect();
            let [at, _] = put(&pairs.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>());
            [at, word(list.len())]
        };
        let (headers, routes) = (list(&self.headers), list(&self.routes));
        let (reasons, counters) = (list(&self.reasons), list(&self.counters));
        // After the headers: attributes not otherwise asked for, the payload in full.
        let words = [&[0], &name[..], &version, &headers, &[0, 2, 0], &routes, &reasons, &counters, &[self.max_output]];
        (words.concat().iter().flat_map(|word| word.to_le_bytes()).collect(), texts)
    }
}

/// A filter that allows everything but for what is put in its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Guest {
    /// Pages of memory; 16 where it is not said.
    pub(super) pages: Option<usize>,
    /// Further fields of the module.
    pub(super) fields: String,
    /// What `init` does before it answers; `$some`, `$state` and `$state_len` are the state of the version before.
    pub(super) init: String,
    /// What `run` does when an event's payload begins with `P`; `$arena`, `$count`, `$index` say where. After it, the
    /// outcome at hand is given, which allows everything.
    pub(super) act: String,
    /// Acts on every batch instead.
    pub(super) is_eager: bool,
    /// What `save` does before it gives an empty state.
    pub(super) save: String,
    /// What `cabi_realloc` does instead of moving on a pointer; `$old`, `$old_len`, `$align`, `$len`.
    pub(super) realloc: Option<String>,
    pub(super) info: Info,
    /// The output that [`give_output`] points to.
    pub(super) output: Vec<u8>,
}

impl Guest {
    /// A filter that acts on events that begin with `P`.
    pub(super) fn acting(act: impl Into<String>) -> Self {
        Self { act: act.into(), ..Self::default() }
    }

    /// A filter that gives `bits` as the verdict of an event that begins with `P`, and this output with it.
    pub(super) fn lying(bits: u64, output: Vec<u8>) -> Self {
        let act = format!(
            "(i64.store offset={VERDICTS_AT} (i32.shl (local.get $index) (i32.const 3)) (i64.const {bits})) {}",
            if output.is_empty() { String::new() } else { give_output(output.len()) }
        );
        Self { act, output, ..Self::default() }
    }

    /// Its core module in text.
    pub(super) fn text(&self) -> String {
        let (info, texts) = self.info.lay_out();
        assert!(TEXTS_AT + texts.len() <= VERDICTS_AT && OUTPUT_AT + self.output.len() <= HEAP_AT, "it has room");
        let move_on = "(local $at i32) (local $end i32)
             (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
             (local.set $end (i32.add (local.get $at) (local.get $len)))
             (if (i32.gt_u (local.get $end) (i32.mul (memory.size) (i32.const 65536))) (then
               (drop (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $len) (i32.const 16)))))))
             (global.set $next (local.get $end))
             (local.get $at)";
        TEMPLATE
            .replace("%PAGES%", &self.pages.unwrap_or(16).to_string())
            .replace("%FIELDS%", &self.fields)
            .replace("%REALLOC%", self.realloc.as_deref().unwrap_or(move_on))
            .replace("%INIT%", &self.init)
            .replace("%ACT%", &self.act)
            .replace("%EAGER%", if self.is_eager { "1" } else { "0" })
            .replace("%SAVE%", &self.save)
            .replace("%INFO_AT%", &INFO_AT.to_string())
            .replace("%INFO%", &escape(&info))
            .replace("%TEXTS_AT%", &TEXTS_AT.to_string())
            .replace("%TEXTS%", &escape(&texts))
            .replace("%OUTPUT_AT%", &OUTPUT_AT.to_string())
            .replace("%OUTPUT%", &escape(&self.output))
            .replace("%VERDICTS_AT%", &VERDICTS_AT.to_string())
            .replace("%HEAP_AT%", &HEAP_AT.to_string())
    }

    /// Its component.
    pub(super) fn wasm(&self) -> Vec<u8> {
        componentise(&wat::parse_str(self.text()).expect("the module's text is well-formed"))
    }
}

/// Text that makes the outcome's output the first `len` bytes at the output's place.
pub(super) fn give_output(len: usize) -> String {
    format!("(i32.store (i32.const 520) (i32.const {OUTPUT_AT})) (i32.store (i32.const 524) (i32.const {len}))")
}

/// A component of the world `fast`.
pub(super) fn componentise(core: &[u8]) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("filter.wit", WIT).expect("the contract is well-formed");
    let world = resolve.select_world(&[package], Some("fast")).expect("the contract has this world");
    let mut module = core.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a core module");
    ComponentEncoder::default().module(&module).and_then(|mut encoder| encoder.encode()).expect("a filter")
}

/// An output with these entries: topic, attributes, payload.
pub(super) fn entries(entries: &[(&str, &[u8], &[u8])]) -> Vec<u8> {
    let mut builder = ArenaBuilder::new(entries.len());
    for (topic, attrs, payload) in entries {
        builder.push(&Entry { topic, attrs, payload, payload_total: word(payload.len()), identity: None });
    }
    builder.into_bytes()
}

/// Appends a custom section to a module or component.
pub(super) fn with_section(mut wasm: Vec<u8>, name: &str, data: &[u8]) -> Vec<u8> {
    let mut body = leb(name.len());
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(data);
    wasm.push(0);
    wasm.extend(leb(body.len()));
    wasm.extend(body);
    wasm
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        bytes.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return bytes;
        }
    }
}

fn word(number: usize) -> u32 {
    u32::try_from(number).expect("it fits a guest's memory")
}

fn escape(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// 512: the outcome (verdicts, output); 544: the state.
const TEMPLATE: &str = r#"(module
  (import "myelin:filter/host@0.1.0" "log" (func $log (param i32 i32 i32)))
  (import "myelin:filter/host@0.1.0" "count" (func $count (param i32 i64)))
  (import "myelin:filter/host@0.1.0" "payload" (func $payload (param i32 i32 i32 i32)))
  (memory (export "memory") %PAGES%)
  (global $next (mut i32) (i32.const %HEAP_AT%))
  (data (i32.const %INFO_AT%) "%INFO%")
  (data (i32.const %TEXTS_AT%) "%TEXTS%")
  (data (i32.const %OUTPUT_AT%) "%OUTPUT%")
  %FIELDS%
  (func (export "cabi_realloc") (param $old i32) (param $old_len i32) (param $align i32) (param $len i32) (result i32)
    %REALLOC%)
  (func $recurse (param $depth i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get $depth) (i32.const 1))) (i32.const 1)))
  (func (export "myelin:filter/filter@0.1.0#init")
    (param $config i32) (param $config_len i32) (param $some i32) (param $state i32) (param $state_len i32) (result i32)
    %INIT%
    (i32.const %INFO_AT%))
  (func $allow (param $count i32)
    (memory.fill (i32.const %VERDICTS_AT%) (i32.const 0) (i32.shl (local.get $count) (i32.const 3)))
    (i32.store (i32.const 512) (i32.const %VERDICTS_AT%))
    (i32.store (i32.const 516) (local.get $count))
    (i64.store (i32.const 520) (i64.const 0)))
  (func $poison (param $arena i32) (param $count i32) (result i32) (local $at i32) (local $entry i32)
    (loop $next
      (local.set $entry (i32.add (local.get $arena) (i32.add (i32.const 8) (i32.shl (local.get $at) (i32.const 5)))))
      (if (i32.load offset=20 (local.get $entry)) (then
        (if (i32.eq (i32.load8_u (i32.add (local.get $arena) (i32.load offset=16 (local.get $entry)))) (i32.const 80))
          (then (return (local.get $at))))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $count))))
    (i32.const -1))
  (func $act (param $arena i32) (param $count i32) (param $index i32)
    %ACT%)
  (func (export "myelin:filter/filter@0.1.0#run")
    (param $arena i32) (param $len i32) (param $count i32) (param $now i64) (result i32) (local $index i32)
    (call $allow (local.get $count))
    (local.set $index (call $poison (local.get $arena) (local.get $count)))
    (if (i32.const %EAGER%) (then (local.set $index (i32.const 0))))
    (if (i32.ge_s (local.get $index) (i32.const 0))
      (then (call $act (local.get $arena) (local.get $count) (local.get $index))))
    (i32.const 512))
  (func (export "cabi_post_myelin:filter/filter@0.1.0#run") (param i32)
    (global.set $next (i32.const %HEAP_AT%)))
  (func (export "myelin:filter/filter@0.1.0#save") (result i32)
    (i64.store (i32.const 544) (i64.const 0))
    %SAVE%
    (i32.const 544)))"#;
