//! Payloads that are made to be dear: what their judgement takes is bounded, whatever the schema has of choices.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin_schema::limits::{JSON_WORK_NS_MAX, READ_BYTE_NS};
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
    let payload = format!(r#"{{"kind": "zzz", "data": {}}}"#, ones(100_000));
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
        json!(1.0),
        json!(0.5),
        json!(0),
        json!(-0.0),
        json!(9_007_199_254_740_993_u64),
        json!(9_007_199_254_740_992.0),
        json!(9_223_372_036_854_775_808_u64),
        json!(9_223_372_036_854_775_808.0),
        json!(u64::MAX),
        json!(i64::MAX),
        json!(1e300),
        json!(false),
        json!(null),
    ];
    for wanted in &values {
        assert!(same(&json!({"const": wanted}), wanted));
        for other in &values {
            same(&json!({"const": wanted}), other);
            same(&json!({"enum": [wanted, {"z": 1}, [7]]}), other);
            same(&json!({"enum": [wanted, 77, 78]}), other);
            same(&json!({"uniqueItems": true}), &json!([wanted, other]));
            same(&json!({"uniqueItems": true}), &json!([[wanted, 1], [other, 1]]));
            same(&json!({"uniqueItems": true}), &json!([{"a": wanted, "b": 1}, {"b": 1, "a": other}]));
        }
    }
}

/// Schemas that ask much of each value, each with a payload that is too much for it, and one that is not.
fn dear() -> Vec<(&'static str, Value, String, &'static str)> {
    let list: Vec<u32> = (0..10_000).collect();
    let arrays: Vec<_> = (0..1_000).map(|number| json!([1, 2, number])).collect();
    let names: serde_json::Map<_, _> = (0..5_000).map(|number| (format!("n{number}"), json!(["b"]))).collect();
    let patterns: serde_json::Map<_, _> = (0..200).map(|number| (format!("^x{number}$"), json!(true))).collect();
    let members: String = (0..50_000).map(|number| format!(r#""m{number}": 1,"#)).collect();
    // Each of these goes on to judge what is inside, and gives it to the next one as well: with every step down there are
    // more of the last ones.
    let circle = |number: usize| {
        let to = |number: usize| json!({"$ref": format!("#/$defs/c{number}")});
        (format!("c{number}"), json!({"items": {"allOf": [to(number), to(number + 1)]}}))
    };
    let mut circles: serde_json::Map<_, _> = (0..5).map(circle).collect();
    circles.insert("c5".to_owned(), json!({"type": "array"}));
    let many = |one: &str, count: usize| format!("[{}{one}]", format!("{one},").repeat(count - 1));
    vec![
        ("numbers of another form", json!({"items": {"enum": list}}), many("9999.0", 150_000), "[9999.0, 3, 9998]"),
        ("schemas", json!({"items": {"allOf": vec![json!({"minimum": 0}); 9_900]}}), ones(500_000), "[1, 2]"),
        ("arrays to compare with", json!({"items": {"enum": arrays}}), many("[1, 2, 999]", 90_000), "[[1, 2, 999]]"),
        ("names to look for", json!({"items": {"dependentRequired": names}}), many("{}", 300_000), r#"[{"a": 1}]"#),
        (
            "patterns of names",
            json!({"patternProperties": patterns}),
            format!("{{{members}\"last\": 1}}"),
            r#"{"x1": 1}"#,
        ),
        ("divisors", json!({"items": {"allOf": vec![json!({"multipleOf": 0.1}); 100]}}), many("1.1", 250_000), "[1.1]"),
        ("circles", json!({"$ref": "#/$defs/c0", "$defs": circles}), "[".repeat(120) + &"]".repeat(120), "[[[[]]]]"),
    ]
}

#[test]
fn what_would_take_too_long_is_refused_unjudged() {
    for (what, schema, payload, little) in dear() {
        let (validator, mut work_ns) = (compiled(&schema), 0);
        let fault = validator.judge(&[0], payload.as_bytes(), &mut work_ns).unwrap_err();
        assert!(fault.text.contains("too many for all that the schema asks"), "{what}: {fault}");
        assert_eq!(work_ns, READ_BYTE_NS * payload.len() as u64, "{what}: it is read, and nothing more");
        validator.judge(&[0], little.as_bytes(), &mut work_ns).unwrap_or_else(|fault| panic!("{what}: {fault}"));
    }
}

#[test]
fn payloads_of_a_megabyte_are_judged_by_ordinary_schemas() {
    let codes: Vec<u32> = (0..10_000).collect();
    let countries: Vec<_> = (0..250).map(|number| format!("C{number}")).collect();
    let item = json!({
        "type": "object",
        "properties": {
            "sku": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
            "country": {"enum": countries},
            "code": {"enum": codes[..500]},
            "price": {"type": "number", "minimum": 0},
            "rate": {"enum": [0, 7, 19]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "uniqueItems": true}
        },
        "required": ["sku", "code"],
        "additionalProperties": false
    });
    let order =
        r#"{"sku": "AB-1234", "country": "C77", "code": 499, "rate": 19, "price": 12.5, "tags": ["new", "eu"]}"#;
    let items = format!("[{}{order}]", format!("{order},").repeat(9_000));
    let kind = |kind: String, data: &Value| json!({"properties": {"kind": {"const": kind}, "data": data}, "required": ["kind", "data"], "type": "object"});
    let kinds: Vec<_> = (0..3).map(|number| kind(number.to_string(), &json!({"items": item}))).collect();
    let tree = json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
        "patternProperties": {"^x-": {"type": ["string", "number"]}}
    });
    let leaves = r#"{"name": "leaf", "x-more": 1},"#.repeat(30_000);
    for (what, schema, payload) in [
        ("integers", json!({"items": {"type": "integer", "minimum": 0, "maximum": 9}}), ones(500_000)),
        ("codes", json!({"items": {"enum": codes}}), ones(500_000)),
        ("orders", json!({"items": item}), items.clone()),
        (
            "one of several kinds, each of which judges all",
            json!({"oneOf": kinds}),
            format!(r#"{{"kind": "2", "data": {items}}}"#),
        ),
        ("a tree", tree, format!(r#"{{"children": [{{"name": "a", "children": [{leaves} {{}}]}}]}}"#)),
    ] {
        let mut work_ns = 0;
        let judged = compiled(&schema).judge(&[0], payload.as_bytes(), &mut work_ns);
        assert_eq!(judged, Ok(()), "{what}: {} bytes", payload.len());
        println!("{what}: {} bytes, {} ms at most", payload.len(), work_ns / 1_000_000);
        assert!(work_ns < JSON_WORK_NS_MAX + READ_BYTE_NS * payload.len() as u64, "{what}: {work_ns}");
    }
}

/// Arrays of nothing but arrays: as many shapes as there are, which hashes of what they hold would not tell apart.
#[test]
fn shapes_are_told_apart() {
    fn shapes(size: usize) -> Vec<String> {
        let mut all = vec![Vec::new(), vec![String::new()]];
        for size in 2..=size {
            let mut of_size = Vec::new();
            for first in 1..size {
                // The first element takes so many, the rest the others.
                let (inside, rest): (&Vec<String>, &Vec<String>) = (&all[first], &all[size - first]);
                of_size
                    .extend(inside.iter().flat_map(|inside| rest.iter().map(move |rest| format!("[{inside}],{rest}"))));
            }
            all.push(of_size.into_iter().map(|shape| shape.trim_end_matches(',').to_owned()).collect());
        }
        all.pop().unwrap()
    }
    let shapes = shapes(12);
    assert!(shapes.len() > 50_000, "{}", shapes.len());
    let elements: Vec<_> = shapes.iter().map(|shape| format!("[{shape}]")).collect();
    let validator = compiled(&json!({"uniqueItems": true}));
    let payload = |elements: &[String]| format!("[{}]", elements.join(","));
    validator.validate(payload(&elements).as_bytes()).unwrap();
    let twice = [&elements[..], &elements[777..778]].concat();
    assert!(validator.validate(payload(&twice).as_bytes()).is_err());
}

/// Expressions that take steps back: those of all texts together are bounded, also where none of them fails.
#[test]
fn expressions_that_take_steps_back_are_for_few_texts() {
    let text = |number: usize| format!(r#""{}{number}""#, "x".repeat(24));
    let list = |count: usize| format!("[{}]", (0..count).map(text).collect::<Vec<_>>().join(","));
    let names = |count: usize| {
        let members: Vec<_> = (0..count).map(|number| format!("{}:1", text(number))).collect();
        format!("{{{}}}", members.join(","))
    };
    let slow = r"^(?=x)((x+x+)+y|z)$";
    let either = json!({"items": {"anyOf": [{"pattern": slow}, {"type": "string"}]}});
    let named = json!({"patternProperties": {(slow): true}});
    for (schema, payload) in [(&either, list(30_000)), (&named, names(30_000))] {
        let mut work_ns = 0;
        let fault = compiled(schema).judge(&[0], payload.as_bytes(), &mut work_ns).unwrap_err();
        assert!(fault.text.contains("too many for all that the schema asks of each"), "{fault}");
    }
    compiled(&json!({"items": {"pattern": "^(?!y)x"}})).validate(list(1_000).as_bytes()).unwrap();
    // What needs no steps back is for many.
    compiled(&json!({"items": {"pattern": "^x{24}[0-9]+$"}})).validate(list(30_000).as_bytes()).unwrap();
}
