#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::format::ReferenceText;

/// Everything that is written.
const PROTO3: &str = r#"
    syntax = "proto3";
    package shop.orders;
    import "money.proto";
    import public "google/protobuf/timestamp.proto";
    option java_package = "com.example \"shop\"";
    option java_multiple_files = true;
    // A comment.
    message Order {
        option deprecated = true;
        message Item { string sku = 1; sint64 count = 2 [deprecated = true]; }
        enum State { UNKNOWN = 0; OPEN = 1; SHUT = -1 [deprecated = true]; reserved 5 to 7, 100 to max; reserved "GONE"; }
        string id = 1 [json_name = "orderId"];
        optional string note = 2;
        repeated Item items = 3;
        map<string, Item> by_sku = 4;
        map<int32, State> states = 14;
        State state = 5;
        oneof paid { shop.Money cash = 6; bytes voucher = 7; }
        string after_the_choice = 8;
        google.protobuf.Timestamp at = 9;
        repeated int32 numbers = 10 [packed = false];
        reserved 11, 12 to 13, 1000 to max;
        reserved "old";
    }
    enum Kind { option allow_alias = true; A = 0; B = 0; }
    service Shop { rpc Place(Order) returns (stream Order); rpc Watch(stream Order) returns (Order); }
"#;

const PROTO2: &str = r#"
    syntax = "proto2";
    message M {
        required int32 a = 1 [default = -7];
        optional string b = 2 [default = "q\"\n\\ü"];
        optional bytes c = 3 [default = "\001\377"];
        optional double d = 4 [default = inf];
        optional E e = 5 [default = SECOND];
        optional bool f = 6 [default = true];
        extensions 100 to 199;
        extensions 1000 to max;
        enum E { FIRST = 1; SECOND = 2; }
        extend M { repeated string inner = 101; }
    }
    extend M { optional M outer = 100; }
"#;

const MONEY: &str = "syntax = \"proto3\"; package shop; message Money { int64 cents = 1; }";

fn source(text: &str) -> Source<'_> {
    Source { format: Format::Protobuf, text, references: &[ReferenceText { name: "money.proto", text: MONEY }] }
}

#[test]
fn a_descriptor_becomes_a_text_that_means_the_same() {
    for text in [PROTO3, PROTO2, MONEY] {
        let first = serialized(&source(text)).unwrap();
        let printed = from_serialized(&first).unwrap().unwrap();
        let again = serialized(&source(&printed)).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        let read = |text: &str| FileDescriptorProto::decode(&*STANDARD.decode(text).unwrap()).unwrap();
        assert_eq!(read(&again), read(&first), "{printed}");
    }
}

#[test]
fn what_is_no_descriptor_is_a_text_or_an_error() {
    assert!(from_serialized(PROTO3).is_none() && from_serialized("").is_none() && from_serialized("  ").is_none());
    for (bad, code) in [
        ("abc", "schema-malformed"),
        ("////", "schema-malformed"),
        (
            &STANDARD
                .encode(FileDescriptorProto { syntax: Some("editions".into()), ..Default::default() }.encode_to_vec()),
            "schema-format-unsupported",
        ),
    ] {
        assert_eq!(from_serialized(bad).unwrap().unwrap_err().code, code, "{bad}");
    }
    let json = Source { format: Format::Json, text: "{}", references: &[] };
    assert_eq!(serialized(&json).unwrap_err().code, "schema-format-unsupported");
    assert!(serialized(&source("syntax = \"proto3\"; import \"/etc/passwd\";")).is_err());
}

#[test]
fn a_descriptor_of_nested_messages_is_bounded() {
    let nest = |inner, _| prost_types::DescriptorProto {
        name: Some("M".into()),
        nested_type: vec![inner],
        ..Default::default()
    };
    let deep = (0..50).fold(prost_types::DescriptorProto::default(), nest);
    let file = FileDescriptorProto { message_type: vec![deep], ..Default::default() };
    let refused = from_serialized(&STANDARD.encode(file.encode_to_vec())).unwrap().unwrap_err();
    assert_eq!(refused.code, "schema-too-complex");
    // A name that breaks out of its place is no text that compiles.
    let named = prost_types::DescriptorProto { name: Some("M {} message N".into()), ..Default::default() };
    let file = FileDescriptorProto { message_type: vec![named], ..Default::default() };
    let text = from_serialized(&STANDARD.encode(file.encode_to_vec())).unwrap().unwrap();
    assert!(serialized(&source(&text)).is_ok(), "it is another schema, and no more than that");
}
