#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::file::compile;
use crate::{
    Compatibility, Format, ReferenceText, SchemaError, Source, Validator, canonical, check, incompatibilities,
};
use prost::Message;
use prost_reflect::{DynamicMessage, Value};

fn source<'a>(text: &'a str, references: &'a [ReferenceText<'a>]) -> Source<'a> {
    Source { format: Format::Protobuf, text, references }
}

fn compiled(text: &str) -> Validator {
    Validator::compile(&source(text, &[])).unwrap()
}

fn refused(text: &str) -> SchemaError {
    check(&source(text, &[])).unwrap_err()
}

const ORDER: &str = r#"
    syntax = "proto3";
    package shop;
    import "google/protobuf/timestamp.proto";
    message Order {
        message Item { string name = 1; double price = 2; }
        int64 id = 1;
        repeated Item items = 2;
        map<string, int32> counts = 3;
        repeated sint32 numbers = 4;
        oneof payment { string card = 5; bytes cash = 6; }
        fixed32 checksum = 7;
        google.protobuf.Timestamp at = 8;
    }
    message Other { bool yes = 1; }
"#;

fn written() -> Vec<u8> {
    let file = compile(&source(ORDER, &[])).unwrap();
    let mut item = DynamicMessage::new(file.parent_pool().get_message_by_name("shop.Order.Item").unwrap());
    item.set_field_by_name("name", Value::String("tea".to_owned()));
    item.set_field_by_name("price", Value::F64(2.5));
    let mut order = DynamicMessage::new(file.parent_pool().get_message_by_name("shop.Order").unwrap());
    order.set_field_by_name("id", Value::I64(-1));
    order.set_field_by_name("items", Value::List(vec![Value::Message(item)]));
    order.set_field_by_name("numbers", Value::List(vec![Value::I32(-1), Value::I32(300)]));
    order.set_field_by_name("card", Value::String("4711".to_owned()));
    order.set_field_by_name("checksum", Value::U32(7));
    order.encode_to_vec()
}

/// The library's decoder accepts what ours does.
#[test]
fn changed_payloads_are_judged_as_the_library_judges_them() {
    let validator = compiled(ORDER);
    let payload = written();
    validator.validate(&payload).unwrap();
    let descriptor = compile(&source(ORDER, &[])).unwrap().messages().next().unwrap();
    let (mut good, mut bad) = (0, 0);
    for index in 0..payload.len() {
        for value in 0..=255 {
            let mut changed = payload.clone();
            changed[index] = value;
            let decoded = DynamicMessage::decode(descriptor.clone(), changed.as_slice());
            assert_eq!(validator.validate(&changed).is_ok(), decoded.is_ok(), "byte {index} is {value}: {decoded:?}");
            if decoded.is_ok() { good += 1 } else { bad += 1 }
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} good, {bad} bad");
}

#[test]
fn a_fault_says_which_field() {
    let validator = compiled(ORDER);
    // Order.items[0].name is not UTF-8.
    let fault = validator.validate(&[0x12, 3, 0x0a, 1, 0xff]).unwrap_err();
    assert_eq!((fault.path.as_str(), fault.text.as_str()), ("items.name", "is no string: it is not UTF-8"));
    assert_eq!(validator.validate(&[0x0d, 0, 0, 0, 0]).unwrap_err().path, "id");
    assert!(validator.validate(&[0x12, 3]).unwrap_err().text.contains("cut off"));
}

#[test]
fn messages_are_named_by_indexes() {
    let validator = compiled(ORDER);
    validator.validate_message(&[1], &[8, 1]).unwrap();
    assert_eq!(validator.validate_message(&[1], &[0x0a, 0]).unwrap_err().path, "yes");
    validator.validate_message(&[0, 0], &[0x0a, 1, b'x']).unwrap();
    for indexes in [&[2][..], &[0, 9], &[], &[0; 1_000]] {
        assert!(validator.validate_message(indexes, &[]).unwrap_err().text.contains("does not have"));
    }
}

#[test]
fn required_fields_must_be_there() {
    let many: String = (1..=70).map(|n| format!("required int32 f{n} = {n};")).collect();
    let validator = compiled(&format!("syntax = \"proto2\"; message M {{ {many} }}"));
    let payload = |left_out: u32| -> Vec<u8> {
        let all = (1..=70_u32).filter(|n| *n != left_out);
        all.flat_map(|n| {
            let mut field = Vec::new();
            prost::encoding::int32::encode(n, &1, &mut field);
            field
        })
        .collect()
    };
    validator.validate(&payload(0)).unwrap();
    assert!(validator.validate(&payload(3)).unwrap_err().text.ends_with("f3"));
    assert!(validator.validate(&payload(69)).unwrap_err().text.ends_with("f69"));
}

#[test]
fn deep_and_endless_payloads_are_refused() {
    let validator = compiled("syntax = \"proto3\"; message M { M m = 1; }");
    let mut payload = Vec::new();
    for _ in 0..90 {
        let mut outer = Vec::new();
        prost::encoding::bytes::encode(1, &payload, &mut outer);
        payload = outer;
    }
    validator.validate(&payload).unwrap();
    for _ in 0..100 {
        let mut outer = Vec::new();
        prost::encoding::bytes::encode(1, &payload, &mut outer);
        payload = outer;
    }
    assert!(validator.validate(&payload).unwrap_err().text.contains("too deeply"));
    // Groups that nobody knows, opened a hundred thousand times.
    assert!(validator.validate(&[0x13; 100_000]).unwrap_err().text.contains("too deeply"));
}

#[test]
fn imports_come_from_what_was_handed_in() {
    let references =
        [ReferenceText { name: "shop/item.proto", text: "syntax = \"proto3\"; message Item { string name = 1; }" }];
    let text = "syntax = \"proto3\"; import \"shop/item.proto\"; message Order { Item item = 1; }";
    let validator = Validator::compile(&source(text, &references)).unwrap();
    assert_eq!(validator.validate(&[0x0a, 3, 0x0a, 1, 0xff]).unwrap_err().path, "item.name");
    for import in
        ["shop/item.proto", "/etc/passwd", "../../etc/passwd", "http://127.0.0.1:9/a.proto", "google/api/http.proto"]
    {
        let error = refused(&format!("syntax = \"proto3\";\n  import \"{import}\"; message M {{}}"));
        assert_eq!(error.code, "schema-reference-unresolved", "{import}: {error}");
        assert!(error.message.starts_with(&format!("`{import}` is not among")), "{error}");
    }
    let group = refused("syntax = \"proto2\"; message M { optional group lower = 1 {} }");
    assert!(group.code == "schema-malformed" && group.message.contains("invalid group name"), "{group}");
}

#[test]
fn bad_files_are_refused() {
    let nested = format!("syntax = \"proto3\"; {}{}", "message M {".repeat(50_000), "}".repeat(50_000));
    let brackets = format!("syntax = \"proto3\"; option (a) = {}{};", "{ a: ".repeat(50_000), "}".repeat(50_000));
    for (text, code) in [
        ("message", "schema-malformed"),
        ("", "schema-malformed"),
        ("syntax = \"proto3\"; message M { Unknown u = 1; }", "schema-malformed"),
        ("syntax = \"proto3\"; message M { int32 a = 1; int32 b = 1; }", "schema-malformed"),
        ("syntax = \"proto3\"; import \"$schema.proto\"; message M {}", "schema-malformed"),
        (nested.as_str(), "schema-too-complex"),
        (brackets.as_str(), "schema-too-complex"),
    ] {
        assert_eq!(refused(text).code, code, "{}", &text[..text.len().min(80)]);
    }
    let fields: String = (1..60_000).map(|n| format!("int32 f{n} = {n};")).collect();
    let many = format!("syntax = \"proto3\"; message M {{ {} }}", fields.replace("int32 f18999 = 18999;", ""));
    assert!(["schema-too-big", "schema-too-complex", "schema-malformed"].contains(&refused(&many).code));
    assert_eq!(refused(&" ".repeat(10 << 20)).code, "schema-too-big");
}

#[test]
fn one_file_has_one_canonical_text() {
    let text = |text: &str| canonical(&source(text, &[])).unwrap();
    let one =
        "syntax = \"proto3\"; // c\n/* d */ message  M{map<string ,int32> m=1; string s = 2 [deprecated = true];\n}";
    let other =
        "syntax=\"proto3\";\n\nmessage M {\n  map<string, int32> m = 1;\n  string s = 2 [deprecated=true];\n}\n";
    assert_eq!(text(one), text(other));
    assert_eq!(text(&text(one)), text(one), "the text itself is a file");
    assert_ne!(text(one), text(&other.replace("s = 2", "s = 3")));
    assert_eq!(text(ORDER), text(&text(ORDER)));
}

/// What a change from the first to the second breaks: reading old data, reading new data with the old schema.
fn broken(older: &str, newer: &str) -> (bool, bool) {
    let (older, newer) = (in_file(older), in_file(newer));
    let (older, newer) = ([source(&older, &[])], source(&newer, &[]));
    let of = |level| !incompatibilities(level, &newer, &older).unwrap().is_empty();
    (of(Compatibility::Backward), of(Compatibility::Forward))
}

fn in_file(text: &str) -> String {
    format!("syntax = \"proto2\"; {text}")
}

#[test]
fn changes_of_protobuf_files() {
    let message =
        |fields: &str| format!("message M {{ {fields} }} message N {{ optional int32 n = 1; }} enum E {{ Z = 0; }}");
    let inside = [
        ("a field", "", "optional int32 a = 1;", (false, false)),
        ("another name", "optional int32 a = 1;", "optional int32 b = 1;", (false, false)),
        ("another number", "optional int32 a = 1;", "optional int32 a = 2;", (false, false)),
        ("integers alike", "optional int32 a = 1;", "optional uint64 a = 1;", (false, false)),
        ("an enum", "optional int32 a = 1;", "optional E a = 1;", (false, false)),
        ("zigzag", "optional int32 a = 1;", "optional sint32 a = 1;", (true, true)),
        ("a string", "optional bytes a = 1;", "optional string a = 1;", (false, false)),
        ("fixed", "optional fixed32 a = 1;", "optional float a = 1;", (true, true)),
        ("a repeated number", "optional int32 a = 1;", "repeated int32 a = 1;", (true, true)),
        ("a repeated string", "optional string a = 1;", "repeated string a = 1;", (false, false)),
        ("required", "", "required int32 a = 1;", (true, false)),
        ("no longer optional", "optional int32 a = 1;", "required int32 a = 1;", (true, false)),
        ("a reserved number", "reserved 1;", "optional int32 a = 1;", (true, false)),
        ("a reserved name", "reserved \"a\";", "optional int32 a = 7;", (true, false)),
        ("a message", "optional bytes a = 1;", "optional N a = 1;", (true, true)),
        ("into a oneof", "optional int32 a = 1;", "oneof o { int32 a = 1; }", (false, false)),
        (
            "two into a oneof",
            "optional int32 a = 1; optional int32 b = 2;",
            "oneof o { int32 a = 1; int32 b = 2; }",
            (true, false),
        ),
        ("one more in a oneof", "oneof o { int32 a = 1; }", "oneof o { int32 a = 1; int32 b = 2; }", (false, true)),
    ];
    for (name, older, newer, expected) in inside {
        assert_eq!(broken(&message(older), &message(newer)), expected, "{name}: {older} -> {newer}");
    }
    let inner = |kind: &str| format!("message M {{ optional N n = 1; }} message N {{ optional {kind} n = 1; }}");
    assert_eq!(broken(&inner("int32"), &inner("string")), (true, true));
    assert_eq!(broken("message M {}", "message M {} message N {}"), (false, true));
    assert_eq!(broken("message M {}", "message N {}"), (true, true));
    assert_eq!(broken("package a; message M {}", "package b; message M {}"), (false, false));
}
