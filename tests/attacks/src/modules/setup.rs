//! Modules that misbehave before they judge a stranger's event: at their start, in `init`, in the self-test, in `save`.

use super::Stop::{Bind, Borne, Save, SelfTest};
use super::guest::{Guest, HEAP_AT, Info};
use super::{Hostile, hostile};

const LOOP: &str = "(loop $again (br $again))";
const GROW: &str = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";

pub(super) const MODULES: &[Hostile] = &[
    hostile("start-traps", SelfTest("trap"), || fields("(start $begin) (func $begin unreachable)")),
    hostile("start-loops", SelfTest("deadline"), || fields(&format!("(start $begin) (func $begin {LOOP})"))),
    hostile("data-beyond-memory", SelfTest("out-of-bounds"), || fields("(data (i32.const 1048575) \"two\")")),
    hostile("elements-beyond-table", SelfTest("out-of-bounds"), || {
        fields("(table 1 funcref) (elem (i32.const 1) func $recurse)")
    }),
    hostile("init-loops", SelfTest("deadline"), || init(LOOP)),
    hostile("init-traps", SelfTest("trap"), || init("unreachable")),
    hostile("init-recurses", SelfTest("stack-overflow"), || init("(drop (call $recurse (i32.const 1)))")),
    hostile("init-takes-all-memory", SelfTest("memory"), || init(GROW)),
    hostile("init-answers-nowhere", SelfTest("malformed-output"), || init("(return (i32.const 0x7fffff00))")),
    hostile("init-answers-askew", SelfTest("malformed-output"), || init("(return (i32.const 1025))")),
    hostile("million-routes", SelfTest("malformed-output"), || {
        // The list of routes is as long as it says nowhere.
        init("(i32.store (i32.const 1068) (i32.const 1000000))")
    }),
    hostile("name-that-is-no-text", SelfTest("malformed-output"), || info(|info| info.name = b"\xff\xfe".to_vec())),
    hostile("name-with-line-breaks", SelfTest("filter-info-invalid"), || info(|info| info.name = b"a\r\nb".to_vec())),
    hostile("too-many-routes", SelfTest("filter-info-invalid"), || {
        info(|info| info.routes = vec!["topic:audit/log".into(); 33])
    }),
    hostile("route-with-wildcard", SelfTest("filter-info-invalid"), || {
        info(|info| info.routes = vec!["topic:audit/**".into()])
    }),
    hostile("too-many-reasons", SelfTest("filter-info-invalid"), || {
        info(|info| info.reasons = vec!["r".into(); 1_025])
    }),
    hostile("too-many-counters", SelfTest("filter-info-invalid"), || {
        info(|info| info.counters = (0..65).map(|n| format!("c{n}")).collect())
    }),
    hostile("counter-that-breaks-metrics", SelfTest("filter-info-invalid"), || {
        info(|info| info.counters = vec!["a\"} 1".into()])
    }),
    hostile("too-many-headers", SelfTest("filter-info-invalid"), || info(|info| info.headers = vec!["h".into(); 65])),
    hostile("output-of-four-gigabytes", SelfTest("filter-info-invalid"), || info(|info| info.max_output = u32::MAX)),
    hostile("realloc-outside-memory", SelfTest("malformed-output"), || realloc("(i32.const 0x7fffff00)")),
    hostile("realloc-traps", SelfTest("trap"), || realloc("unreachable")),
    hostile("realloc-loops", SelfTest("deadline"), || realloc(&format!("{LOOP} unreachable"))),
    hostile("realloc-always-the-same", Borne, || realloc(&format!("(i32.const {HEAP_AT})"))),
    hostile("faults-on-anything", SelfTest("self-test-synthetic-fault"), || {
        Guest { is_eager: true, ..Guest::acting("unreachable") }.wasm()
    }),
    hostile("loops-on-anything", SelfTest("self-test-synthetic-fault"), || {
        Guest { is_eager: true, ..Guest::acting(LOOP) }.wasm()
    }),
    hostile("route-outside-the-grant", Bind("route-not-granted"), || {
        info(|info| info.routes = vec!["topic:orders/stolen".into()])
    }),
    hostile("save-loops", Save("deadline"), || save(LOOP)),
    hostile("save-traps", Save("trap"), || save("unreachable")),
    hostile("save-lies", Save("malformed-output"), || save("(return (i32.const 0x7fffff00))")),
    hostile("state-of-two-megabytes", Save("malformed-output"), || {
        let state = format!(
            "(i32.store (i32.const 544) (i32.const {HEAP_AT})) (i32.store (i32.const 548) (i32.const 2097152))"
        );
        Guest { pages: Some(64), save: state, ..Guest::default() }.wasm()
    }),
];

fn fields(fields: &str) -> Vec<u8> {
    Guest { fields: fields.into(), ..Guest::default() }.wasm()
}

fn init(init: &str) -> Vec<u8> {
    Guest { init: init.into(), ..Guest::default() }.wasm()
}

fn realloc(realloc: &str) -> Vec<u8> {
    Guest { realloc: Some(realloc.into()), ..Guest::default() }.wasm()
}

fn save(save: &str) -> Vec<u8> {
    Guest { save: save.into(), ..Guest::default() }.wasm()
}

fn info(change: impl FnOnce(&mut Info)) -> Vec<u8> {
    let mut guest = Guest::default();
    change(&mut guest.info);
    guest.wasm()
}
