#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::{
    Compatibility, Format, ReferenceText, SchemaError, Source, Validator, canonical, check, incompatibilities,
};
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::{Value, json};

fn source<'a>(text: &'a str, references: &'a [ReferenceText<'a>]) -> Source<'a> {
    Source { format: Format::Avro, text, references }
}

fn compiled(schema: &Value) -> Validator {
    Validator::compile(&source(&schema.to_string(), &[])).unwrap()
}

fn refused(text: &str) -> SchemaError {
    check(&source(text, &[])).unwrap_err()
}

fn order() -> Value {
    json!({"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "id", "type": "long"},
        {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
            {"name": "name", "type": "string"}, {"name": "price", "type": ["null", "double"]}]}}},
        {"name": "tags", "type": {"type": "map", "values": "string"}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
        {"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 4}},
        {"name": "done", "type": "boolean"},
        {"name": "count", "type": "int"}
    ]})
}

fn written(schema: &Value) -> Vec<u8> {
    let schema = Schema::parse(schema).unwrap();
    let item = Avro::Record(vec![
        ("name".to_owned(), Avro::String("tea".to_owned())),
        ("price".to_owned(), Avro::Union(1, Box::new(Avro::Double(2.5)))),
    ]);
    let order = Avro::Record(vec![
        ("id".to_owned(), Avro::Long(-1_000_000_000_000)),
        ("items".to_owned(), Avro::Array(vec![item.clone(), item])),
        ("tags".to_owned(), Avro::Map([("a".to_owned(), Avro::String("b".to_owned()))].into())),
        ("state".to_owned(), Avro::Enum(1, "PAID".to_owned())),
        ("digest".to_owned(), Avro::Fixed(4, vec![1, 2, 3, 4])),
        ("done".to_owned(), Avro::Boolean(true)),
        ("count".to_owned(), Avro::Int(7)),
    ]);
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(order).unwrap()
}

#[test]
fn what_the_library_writes_is_valid_and_every_cut_of_it_is_not() {
    let validator = compiled(&order());
    let payload = written(&order());
    validator.validate(&payload).unwrap();
    for end in 0..payload.len() {
        assert!(validator.validate(&payload[..end]).is_err(), "cut at {end}");
    }
    let longer: Vec<u8> = payload.iter().copied().chain([0]).collect();
    assert!(validator.validate(&longer).unwrap_err().text.contains("1 bytes after"));
}

/// The library's decoder accepts what ours does, but for bytes that follow.
#[test]
fn changed_payloads_are_judged_as_the_library_judges_them() {
    let validator = compiled(&order());
    let schema = Schema::parse(&order()).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let payload = written(&order());
    let (mut good, mut bad) = (0, 0);
    for index in 0..payload.len() {
        for value in 0..=255 {
            let mut changed = payload.clone();
            changed[index] = value;
            // A length of gigabytes is refused by the library for its own limit.
            let mut rest = changed.as_slice();
            let decoded = reader.read_value(&mut rest);
            let accepted = decoded.is_ok() && rest.is_empty();
            assert_eq!(validator.validate(&changed).is_ok(), accepted, "byte {index} is {value}: {decoded:?}");
            if accepted { good += 1 } else { bad += 1 }
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} good, {bad} bad");
}

#[test]
fn a_fault_says_which_field() {
    let fault = |schema: Value, payload: &[u8]| compiled(&schema).validate(payload).unwrap_err().to_string();
    let record = |kind: Value| json!({"type": "record", "name": "R", "fields": [{"name": "a", "type": kind}]});
    assert!(fault(record(json!("boolean")), &[2]).starts_with("at `a`: is no boolean"));
    assert!(
        fault(record(json!({"type": "array", "items": "string"})), &[4, 2, b'x', 2, 0xff, 0])
            .starts_with("at `a.1`: is no string")
    );
    assert!(
        fault(record(json!({"type": "map", "values": "boolean"})), &[2, 2, b'k', 9, 0])
            .starts_with("at `a.k`: is no boolean")
    );
    assert!(fault(json!(["null", "int"]), &[4]).contains("no branch"));
    assert!(fault(json!({"type": "enum", "name": "E", "symbols": ["A"]}), &[2]).contains("no symbol"));
    assert!(fault(json!("int"), &[0xff, 0xff, 0xff, 0xff, 0x7f]).contains("32 bits"));
    assert!(fault(json!("long"), &[0xff; 11]).contains("64 bits"));
}

#[test]
fn payloads_that_claim_to_be_huge_cost_nothing() {
    // Ten bytes: a negative count of 2^62, a block of no bytes.
    let huge_count = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0];
    let fault = compiled(&json!({"type": "array", "items": "null"})).validate(&huge_count).unwrap_err();
    assert!(fault.text.contains("more values"), "{fault}");
    let huge_length = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert!(compiled(&json!("bytes")).validate(&huge_length).unwrap_err().text.contains("cut off"));
    let fixed = json!({"type": "fixed", "name": "F", "size": 1_000_000_000_000_u64});
    assert!(compiled(&fixed).validate(&[0; 16]).unwrap_err().text.contains("cut off"));
    // Records that take no byte, each with two of the next: 2^40 values.
    let mut kind = json!({"type": "record", "name": "R0", "fields": [{"name": "n", "type": "null"}]});
    for level in 1..15 {
        let name = format!("R{level}");
        kind = json!({"type": "record", "name": name, "fields": [
            {"name": "a", "type": kind}, {"name": "b", "type": format!("R{}", level - 1)}]});
    }
    let many = json!({"type": "array", "items": kind});
    assert!(compiled(&many).validate(&[200, 1, 0]).unwrap_err().text.contains("more values"));
    let endless = json!({"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]});
    assert!(compiled(&endless).validate(&[]).unwrap_err().text.contains("too deeply"));
}

#[test]
fn bad_schemas_are_refused() {
    for (text, code) in [
        ("{", "schema-malformed"),
        (r#"{"type": "record"}"#, "schema-malformed"),
        (r#"{"type": "record", "name": "1", "fields": []}"#, "schema-malformed"),
        (r#"["null", "null"]"#, "schema-malformed"),
        (r#"{"type": "enum", "name": "E", "symbols": ["A", "A"]}"#, "schema-malformed"),
        (r#"{"type": "array", "items": "Unknown"}"#, "schema-malformed"),
        ("", "schema-malformed"),
        (
            r#"{"type": "record", "name": "R", "fields": [
                {"name": "r", "type": {"type": "record", "name": "R", "fields": []}}]}"#,
            "schema-malformed",
        ),
    ] {
        assert_eq!(refused(text).code, code, "{text}");
    }
    let open = refused("{\n  \"type\": ").message;
    assert!(open.contains("no JSON") && open.contains("line 2 column"), "{open}");
    let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(70), "}".repeat(70));
    assert_eq!(refused(&deep).code, "schema-too-complex");
    let deeper = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(20_000), "}".repeat(20_000));
    assert!(["schema-malformed", "schema-too-complex"].contains(&refused(&deeper).code));
    assert_eq!(refused(&" ".repeat(10 << 20)).code, "schema-too-big");
}

#[test]
fn references_are_named_types() {
    let item = r#"{"type": "record", "name": "shop.Item", "fields": [{"name": "n", "type": "shop.Size"}]}"#;
    let size = r#"{"type": "enum", "name": "shop.Size", "symbols": ["S", "L"]}"#;
    let references = [ReferenceText { name: "shop.Size", text: size }, ReferenceText { name: "shop.Item", text: item }];
    let order = r#"{"type": "record", "name": "shop.Order", "fields": [{"name": "item", "type": "Item"}]}"#;
    let validator = Validator::compile(&source(order, &references)).unwrap();
    validator.validate(&[2]).unwrap();
    assert_eq!(validator.validate(&[4]).unwrap_err().path, "item.n");
    assert_eq!(refused(order).code, "schema-malformed");
}

#[test]
fn one_schema_has_one_canonical_text() {
    let text = |text: &str| canonical(&source(text, &[])).unwrap();
    assert_eq!(text(r#"{"type": "string"}"#), r#""string""#);
    let one = r#"{"type": "record", "namespace": "a", "name": "R", "doc": "d", "fields": [
        {"type": {"type": "int"}, "name": "x", "doc": "d", "default": 1, "aliases": ["y"]},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A"], "aliases": ["F"]}}]}"#;
    let other = r#"{"name":"a.R","fields":[{"name":"x","type":"int","aliases":["y"],"default":1},
        {"name":"e","type":{"name":"a.E","type":"enum","aliases":["a.F"],"symbols":["A"]}}],"type":"record"}"#;
    let expected = concat!(
        r#"{"name":"a.R","type":"record","fields":[{"name":"x","type":"int","aliases":["y"],"default":1},"#,
        r#"{"name":"e","type":{"name":"a.E","type":"enum","symbols":["A"],"aliases":["a.F"]}}]}"#
    );
    assert_eq!(text(one), expected);
    assert_eq!(text(other), expected);
    assert_eq!(text(expected), expected);
    assert_ne!(text(&one.replace("\"default\": 1", "\"default\": 2")), expected);
}

/// What a change from the first to the second breaks: reading old data, reading new data with the old schema.
fn broken(older: &Value, newer: &Value) -> (bool, bool) {
    let (older, newer) = (older.to_string(), newer.to_string());
    let (older, newer) = ([source(&older, &[])], source(&newer, &[]));
    let of = |level| !incompatibilities(level, &newer, &older).unwrap().is_empty();
    (of(Compatibility::Backward), of(Compatibility::Forward))
}

#[test]
fn changes_of_avro_schemas() {
    let record = |fields: Value| json!({"type": "record", "name": "R", "fields": fields});
    let choice = |symbols: Value| json!({"type": "enum", "name": "E", "symbols": symbols});
    let cases = [
        ("promotion", json!("int"), json!("long"), (false, true)),
        ("bytes and texts", json!("bytes"), json!("string"), (false, false)),
        ("a field", record(json!([])), record(json!([{"name": "a", "type": "int"}])), (true, false)),
        (
            "a field with a default",
            record(json!([])),
            record(json!([{"name": "a", "type": "int", "default": 1}])),
            (false, false),
        ),
        (
            "a field's other name",
            record(json!([{"name": "a", "type": "int"}])),
            record(json!([{"name": "b", "type": "int", "aliases": ["a"]}])),
            (false, true),
        ),
        ("a branch", json!(["null", "int"]), json!(["null", "int", "string"]), (false, true)),
        ("a union", json!("int"), json!(["null", "int"]), (false, true)),
        ("a symbol", choice(json!(["A"])), choice(json!(["A", "B"])), (false, true)),
        (
            "a size",
            json!({"type": "fixed", "name": "F", "size": 4}),
            json!({"type": "fixed", "name": "F", "size": 5}),
            (true, true),
        ),
        ("another name", record(json!([])), json!({"type": "record", "name": "S", "fields": []}), (true, true)),
        (
            "another namespace",
            record(json!([])),
            json!({"type": "record", "name": "a.R", "fields": []}),
            (false, false),
        ),
        (
            "another name with an alias",
            record(json!([])),
            json!({"type": "record", "name": "S", "aliases": ["R"], "fields": []}),
            (false, true),
        ),
        ("items", json!({"type": "array", "items": "int"}), json!({"type": "array", "items": "long"}), (false, true)),
        ("values", json!({"type": "map", "values": "int"}), json!({"type": "map", "values": "string"}), (true, true)),
        (
            "recursive",
            record(json!([{"name": "n", "type": ["null", "R"]}, {"name": "v", "type": "int"}])),
            record(json!([{"name": "n", "type": ["null", "R"]}, {"name": "v", "type": "double"}])),
            (false, true),
        ),
    ];
    for (name, older, newer, expected) in cases {
        assert_eq!(broken(&older, &newer), expected, "{name}: {older} -> {newer}");
    }
    let default = json!({"type": "enum", "name": "E", "symbols": ["A"], "default": "A"});
    assert_eq!(broken(&choice(json!(["A", "B"])), &default), (false, false));
}

#[test]
fn reasons_say_where() {
    let older =
        json!({"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": "string"}}]});
    let newer =
        json!({"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": "int"}}]});
    let (older, newer) = (older.to_string(), newer.to_string());
    let reasons = incompatibilities(Compatibility::Backward, &source(&newer, &[]), &[source(&older, &[])]).unwrap();
    assert_eq!(
        reasons,
        ["data of the version before cannot be read: at `a.[]`: string was written, which is not read as int"]
    );
}
