//! Files that are refused before they run: too large, too complex, of another sort, or costly to compile.

use super::Stop::{Borne, Compile, Inspect, Load};
use super::guest::{Guest, HEAP_AT, componentise, with_section};
use super::{Hostile, hostile};

pub(super) const MODULES: &[Hostile] = &[
    hostile("no-wasm", Inspect("module-not-wasm"), || b"#!/bin/sh\nexit 1\n".to_vec()),
    hostile("core-module", Inspect("module-core"), || text("(module)")),
    hostile("cut-short", Inspect("module-invalid"), || {
        let mut whole = super::quiet();
        whole.truncate(whole.len() - 9);
        whole
    }),
    hostile("one-byte-too-large", Inspect("module-too-large"), || {
        let quiet = super::quiet();
        let missing = (16 << 20) + 1 - quiet.len();
        // The section's head takes some of it.
        with_section(quiet, "x", &vec![0; missing])
    }),
    hostile("hundred-thousand-functions", Inspect("module-too-complex"), || core_inside(&"(func)".repeat(100_000))),
    hostile("three-thousand-exports", Inspect("module-too-complex"), || {
        let exports: String = (0..3_000).map(|n| format!("(export \"e{n}\" (func $f))")).collect();
        core_inside(&format!("(func $f) {exports}"))
    }),
    hostile("hundred-thousand-globals", Load("code-refused"), || {
        Guest { fields: "(global (mut i64) (i64.const 7))".repeat(100_000), ..Guest::default() }.wasm()
    }),
    hostile("table-of-ten-million", Inspect("module-too-complex"), || core_inside("(table 10000000 funcref)")),
    hostile("five-tables", Inspect("module-too-complex"), || core_inside(&"(table 1 funcref)".repeat(5))),
    hostile("two-memories", Inspect("module-invalid"), || core_inside("(memory 1) (memory 1)")),
    hostile("memory-of-sixty-four-bits", Inspect("module-invalid"), || core_inside("(memory i64 1)")),
    hostile("shared-memory", Inspect("module-invalid"), || core_inside("(memory 1 2 shared)")),
    hostile("exceptions", Inspect("module-invalid"), || core_inside("(tag)")),
    hostile("hundred-nested-components", Inspect("module-too-complex"), || {
        text(&format!("{}{}", "(component ".repeat(100), ")".repeat(100)))
    }),
    hostile("wasi", Inspect("module-unknown-import"), || {
        text(r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#)
    }),
    hostile("another-contract", Inspect("module-wrong-version"), || {
        text(r#"(component (import "myelin:filter/host@0.2.0" (instance)))"#)
    }),
    hostile("exports-nothing", Inspect("module-wrong-world"), || text("(component)")),
    hostile("wrong-signature", Load("wrong-world"), || {
        text(
            r#"(component
                (core module $m (func (export "run") (result i32) (i32.const 1)))
                (core instance $i (instantiate $m))
                (func $run (result u32) (canon lift (core func $i "run")))
                (instance $filter (export "run" (func $run)))
                (export "myelin:filter/filter@0.1.0" (instance $filter)))"#,
        )
    }),
    hostile("vectors-that-are-none", Inspect("module-vectors"), || {
        with_section(super::quiet(), "myelin:vectors", b"{\"topic\":\"a\"}\nnonsense")
    }),
    hostile("two-megabytes-of-vectors", Inspect("module-vectors"), || {
        with_section(super::quiet(), "myelin:vectors", &b"{\"topic\":\"a\"}\n".repeat(150_000))
    }),
    hostile("compile-bomb", Compile("compile-time"), compile_bomb),
    hostile("five-thousand-blocks-deep", Borne, || {
        let deep = format!("(func {} {})", "block ".repeat(5_000), "end ".repeat(5_000));
        Guest { fields: deep, ..Guest::default() }.wasm()
    }),
    hostile("twelve-megabytes-of-data", Borne, || {
        let data = format!("(data (i32.const {HEAP_AT}) \"{}\")", "x".repeat(12 << 20));
        componentise(
            &wat::parse_str(Guest { pages: Some(256), fields: data, ..Guest::default() }.text()).expect("text"),
        )
    }),
    hostile("eight-megabytes-of-names", Borne, || with_section(super::quiet(), "name", &vec![0; 8 << 20])),
    hostile("more-memory-than-there-is", Load("code-refused"), || {
        Guest { pages: Some(2_000), ..Guest::default() }.wasm()
    }),
];

fn text(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text is well-formed")
}

/// A component with a core module of these fields inside.
fn core_inside(fields: &str) -> Vec<u8> {
    text(&format!("(component (core module {fields}))"))
}

/// Functions so large that optimising them takes long: every value depends on the two before.
fn compile_bomb() -> Vec<u8> {
    const LOCALS: usize = 64;
    const STEPS: usize = 20_000;
    const FUNCTIONS: usize = 40;
    let mut body = String::from("(local ");
    body.push_str(&"i64 ".repeat(LOCALS));
    body.push(')');
    for step in 0..STEPS {
        let (to, one, two) = (step % LOCALS, (step * 7 + 1) % LOCALS, (step * 13 + 5) % LOCALS);
        body.push_str(&format!(
            "block local.get {one} i64.eqz br_if 0 local.get {one} local.get {two} i64.mul local.set {to} end\n"
        ));
    }
    Guest { fields: format!("(func {body})").repeat(FUNCTIONS), ..Guest::default() }.wasm()
}
