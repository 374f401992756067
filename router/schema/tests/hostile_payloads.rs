//! Payloads that are made to be dear: what their judgement takes is bounded, whatever the schema has of choices.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin_schema::{Format, Source, Validator};
use serde_json::{Value, json};

/// More than a payload of a megabyte, its tape, and one copy of it take.
const PEAK_KIB_MAX: u64 = 128 * 1024;

fn compiled(schema: &Value) -> Validator {
    Validator::compile(&Source { format: Format::Json, text: &schema.to_string(), references: &[] }).unwrap()
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// An array of that many ones, or a text of that many members, around a megabyte.
fn ones(count: usize) -> String {
    format!("[{}1]", "1,".repeat(count))
}

#[test]
fn what_fits_no_choice_is_refused_within_bounds() {
    let tagged = |branches: usize, of: &Value| {
        let branch =
            |tag: usize| json!({"properties": {"kind": {"const": tag}, "data": of}, "required": ["kind", "more"]});
        json!({"oneOf": (0..branches).map(branch).collect::<Vec<_>>()})
    };
    let payload = format!(r#"{{"kind": "zzz", "data": {}}}"#, ones(400_000));
    let names: String = (0..60_000).map(|number| format!(r#""n{number}": 1,"#)).collect();
    let nested = (0..100).fold(ones(300_000), |inside, _| format!(r#"{{"a": {inside}}}"#));
    let many: Vec<_> = (0..400).map(|number| json!([number, "x"])).collect();
    let cases = [
        ("a tagged union", tagged(40, &json!(true)), payload.clone()),
        ("a union whose branches refuse each element", tagged(40, &json!({"items": {"type": "string"}})), payload),
        (
            "a recursive choice",
            json!({"anyOf": [{"type": "string"}, {"properties": {"a": {"$ref": "#"}}, "required": ["b"]}]}),
            nested,
        ),
        (
            "names that no branch knows",
            json!({"anyOf": (0..40).map(|_| json!({"additionalProperties": false})).collect::<Vec<_>>()}),
            format!("{{{names}\"last\": 1}}"),
        ),
        ("many values to compare with", json!({"enum": many}), ones(500_000)),
    ];
    for (what, schema, payload) in cases {
        let validator = compiled(&schema);
        let fault = validator.validate(payload.as_bytes()).unwrap_err();
        let peak = peak_kib();
        println!("{what}: {fault}, {peak} KiB at most so far");
        assert!(peak <= PEAK_KIB_MAX, "{what}: {peak} KiB, {PEAK_KIB_MAX} are allowed");
    }
    // Where there are few reasons, they are told, also after the others.
    let fault = compiled(&tagged(3, &json!(true))).validate(br#"{"kind": 1}"#).unwrap_err();
    assert!(fault.text.contains("oneOf") || fault.text.contains("any of"), "{fault}");
    let fault = compiled(&json!({"items": {"type": "string"}})).validate(ones(500_000).as_bytes()).unwrap_err();
    assert_eq!(fault.path, "/0", "{fault}");
}

#[test]
fn values_are_compared_as_the_library_does() {
    let same = |schema: &Value, payload: &Value| {
        let ours = compiled(schema).validate(payload.to_string().as_bytes()).is_ok();
        assert_eq!(ours, jsonschema::is_valid(schema, payload), "{schema} {payload}");
        ours
    };
    let values = [
        json!([1, {"a": [1.0, null]}]),
        json!([1.0, {"a": [1, null]}]),
        json!([1, {"a": [1, null, 2]}]),
        json!({"a": 1, "b": [true]}),
        json!({"b": [true], "a": 1}),
        json!({"a": 1}),
        json!({"a": 1, "c": [true]}),
        json!([]),
        json!({}),
        json!("a"),
        json!(1),
        json!(null),
    ];
    for wanted in &values {
        assert!(same(&json!({"const": wanted}), wanted));
        for other in &values {
            same(&json!({"const": wanted}), other);
            same(&json!({"enum": [wanted, {"z": 1}, [7]]}), other);
        }
    }
}
