//! What is refused before anything is compiled.

use super::guests::{componentise, with_section};
use super::*;

fn refusal(bytes: &[u8]) -> ModuleRefusal {
    inspect(bytes, &ModuleLimits::default()).expect_err("refused")
}

#[test]
fn a_filter_passes_with_its_facts() {
    let vectors = br#"{"topic":"a","payload":"D","expect":{"verdict":"deny"}}"#;
    let component = with_section(&Guest::default().component(), VECTORS_SECTION, vectors);
    let facts = inspect(&component, &ModuleLimits::default()).expect("taken in");
    assert_eq!(facts.bytes, component.len());
    assert!(facts.functions >= 7, "{}", facts.functions);
    assert!(facts.imports.iter().any(|import| import == "myelin:filter/host@0.1.0"), "{:?}", facts.imports);
    assert_eq!(facts.exports, ["myelin:filter/filter@0.1.0", "flat-module"]);
    assert_eq!(facts.vectors.as_deref(), Some(&vectors[..]));
    let artefact = runtime().compile_here(&component).expect("compiled");
    let program = runtime().load(&artefact).expect("linked");
    self_test(&program, &SlotSetup::default(), facts.vectors.as_deref()).expect("as expected");
}

#[test]
fn what_is_no_filter_is_told_what_it_is() {
    assert_eq!(refusal(b"").code(), "module-not-wasm");
    assert_eq!(refusal(b"{\"json\":1}").code(), "module-not-wasm");
    let core = refusal(&Guest::default().core());
    assert_eq!(core.code(), "module-core");
    assert!(core.to_string().contains("myelin filter build"), "{core}");
    let component = |text: &str| wat::parse_str(text).expect("well-formed");
    let empty = refusal(&component("(component)"));
    assert_eq!(empty.code(), "module-wrong-world");
    assert!(empty.to_string().contains("nothing"), "{empty}");
    let wasi = refusal(&component(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#));
    assert_eq!(wasi.code(), "module-unknown-import");
    assert!(wasi.to_string().contains("wasi:cli/environment"), "{wasi}");
    let newer = refusal(&component(r#"(component (import "myelin:filter/host@0.2.0" (instance)))"#));
    assert_eq!(newer.code(), "module-wrong-version", "{newer}");
}

#[test]
fn broken_and_oversized_modules_are_refused() {
    let good = Guest::default().component();
    for cut in [8, 9, good.len() / 2, good.len() - 1] {
        let refusal = refusal(&good[..cut]);
        assert!(matches!(refusal.code(), "module-invalid" | "module-wrong-world"), "cut at {cut}: {refusal}");
    }
    let limits = |limits: ModuleLimits| inspect(&good, &limits).expect_err("refused").code();
    let all = ModuleLimits::default;
    assert_eq!(limits(ModuleLimits { bytes_max: 100, ..all() }), "module-too-large");
    assert_eq!(limits(ModuleLimits { functions_max: 3, ..all() }), "module-too-complex");
    assert_eq!(limits(ModuleLimits { imports_exports_max: 5, ..all() }), "module-too-complex");
    assert_eq!(limits(ModuleLimits { memories_max: 0, ..all() }), "module-too-complex");
    assert_eq!(limits(ModuleLimits { tables_max: 0, ..all() }), "module-too-complex");
    assert_eq!(limits(ModuleLimits { nesting_max: 1, ..all() }), "module-too-complex");
    let threads = "(component (core module (memory 1 2 shared)))";
    let memory64 = "(component (core module (memory i64 1)))";
    let exceptions = "(component (core module (tag)))";
    let table = "(component (core module (table 10001 funcref)))";
    let memories = "(component (core module (memory 1) (memory 1)))";
    let components = "(component $C)".replace("$C", &"(core module (memory 1))".repeat(4));
    for (text, code) in [
        (threads, "module-invalid"),
        (memory64, "module-invalid"),
        (exceptions, "module-invalid"),
        (table, "module-too-complex"),
        (memories, "module-invalid"),
        (components.as_str(), "module-too-complex"),
    ] {
        assert_eq!(refusal(&wat::parse_str(text).unwrap()).code(), code, "{text}");
    }
}

#[test]
fn unreadable_vectors_are_refused() {
    let component = with_section(&Guest::default().component(), VECTORS_SECTION, b"{\"topic\":\"a\"}\nnonsense");
    let refusal = refusal(&component);
    assert_eq!(refusal.code(), "module-vectors");
    assert!(refusal.to_string().contains("line 2"), "{refusal}");
}

#[test]
fn the_right_names_with_the_wrong_types_are_refused_at_loading() {
    let text = r#"(component
        (core module $m (func (export "run") (result i32) (i32.const 1)))
        (core instance $i (instantiate $m))
        (func $run (result u32) (canon lift (core func $i "run")))
        (instance $filter (export "run" (func $run)))
        (export "myelin:filter/filter@0.1.0" (instance $filter)))"#;
    let component = wat::parse_str(text).unwrap();
    inspect(&component, &ModuleLimits::default()).expect("the names are right");
    let error = runtime().load(&runtime().compile_here(&component).unwrap()).err().expect("refused");
    assert_eq!(error.code(), "wrong-world", "{error}");
}

#[test]
fn a_component_of_bare_code_compiles_like_any_other() {
    let component = componentise(&Guest::default().core());
    assert_eq!(inspect(&component, &ModuleLimits::default()).unwrap().vectors, None);
}
