#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use myelin_catalog::schemas::Wanted;
use myelin_catalog::{Catalog, Digest, NewSchema, Op, SchemaFormat};
use myelin_wire::AttrsBuilder;
use serde_json::json;

fn register(catalog: &mut Catalog, subject: &str, format: SchemaFormat, text: &str) -> u32 {
    let digest = Digest::of(text.as_bytes());
    let schema = NewSchema { format, digest, text: text.to_owned(), references: Vec::new() };
    let Wanted::New(registration) = catalog.schemas().register_next(&subject.parse().unwrap(), schema) else {
        panic!("{subject} has that version already")
    };
    let id = registration.id;
    change(catalog, Op::SchemaRegistered { registration });
    id
}

fn change(catalog: &mut Catalog, op: Op) {
    let record = catalog.draft(op, "ann", 0).unwrap();
    catalog.apply(&record).unwrap();
}

fn rule(catalog: &mut Catalog, name: &str, schema: serde_json::Value) {
    let rule = json!({"name": name, "pattern": format!("{name}/**"), "schema": schema});
    change(catalog, Op::TopicRuleSet { rule: serde_json::from_value(rule).unwrap() });
}

fn table(before: &Screens, catalog: &Catalog) -> Screens {
    Screens::after(before, catalog.topic_rules().filter(|rule| rule.schema.is_some()), catalog.schemas())
}

fn judge(screens: &Screens, topic: &str, attrs: &[u8], payload: &[u8]) -> Result<(), Violation> {
    let event = EventView { topic, attrs, payload, identity: "" };
    screens.of(topic).try_for_each(|screen| screen.judge(&event, &mut 0)).map_err(|violation| *violation)
}

#[test]
fn whoever_judges_is_told_how_much_work_that_is() {
    let mut catalog = Catalog::new();
    let list: Vec<u32> = (0..1_000).collect();
    register(&mut catalog, "codes-value", SchemaFormat::Json, &json!({"items": {"enum": list}}).to_string());
    rule(&mut catalog, "codes", json!({"subject": "codes-value", "version": 1}));
    let screens = table(&Screens::default(), &catalog);
    let work = |payload: &str| {
        let event = EventView { topic: "codes/1", attrs: &[], payload: payload.as_bytes(), identity: "" };
        let mut work_ns = 0;
        let judged = screens.of("codes/1").try_for_each(|screen| screen.judge(&event, &mut work_ns));
        (work_ns, judged.map_err(|violation| violation.text))
    };
    let (little, judged) = work("[999.0]");
    assert!(judged.is_ok() && little > 1_000 && little < 100_000, "{little} {judged:?}");
    let (more, judged) = work(&json!(vec![999.0; 1_000]).to_string());
    assert!(judged.is_ok() && more > 100 * little, "{more} {judged:?}");
    let (unjudged, judged) = work(&json!(vec![999.0; 100_000]).to_string());
    assert!(judged.is_err_and(|text| text.contains("too many")), "{unjudged}");
}

fn prefixed(id: u32, rest: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], rest].concat()
}

#[test]
fn the_newest_version_counts_and_what_is_compiled_stays() {
    let mut catalog = Catalog::new();
    rule(&mut catalog, "orders", json!({"subject": "orders-value"}));
    let empty = table(&Screens::default(), &catalog);
    let missing = judge(&empty, "orders/1", &[], b"1").unwrap_err();
    assert!(missing.text.contains("no schema yet"), "{missing:?}");
    register(&mut catalog, "orders-value", SchemaFormat::Json, r#"{"type": "integer"}"#);
    let first = table(&empty, &catalog);
    assert_eq!(judge(&first, "orders/1", &[], b"1"), Ok(()));
    let bad = judge(&first, "orders/1", &[], b"\"a\"").unwrap_err();
    assert!(bad.text.contains("integer") && bad.schema == "orders-value:1", "{bad:?}");
    assert_eq!(judge(&first, "other/1", &[], b"\"a\""), Ok(()), "no rule is about it");
    assert_eq!(judge(&first, "$dead/admission/orders/1", &[], b"\"a\""), Ok(()), "the router's own");
    register(&mut catalog, "orders-value", SchemaFormat::Json, r#"{"type": "string"}"#);
    rule(&mut catalog, "old", json!({"subject": "orders-value", "version": 1, "required": false}));
    let second = table(&first, &catalog);
    assert_eq!(judge(&second, "orders/1", &[], b"\"a\""), Ok(()));
    assert_eq!(judge(&second, "old/1", &[], b"1"), Ok(()));
    assert_eq!(judge(&second, "old/1", &[], b""), Ok(()), "no payload, and none required");
    assert!(judge(&second, "orders/1", &[], b"").is_err());
    assert!(second.version() > first.version());
    let judge_of = |screens: &Screens, id| Arc::as_ptr(screens.compiled[&id].as_ref().unwrap());
    assert_eq!(judge_of(&first, 1), judge_of(&second, 1), "compiled once");
}

#[test]
fn counts_outlive_a_table() {
    let mut catalog = Catalog::new();
    rule(&mut catalog, "orders", json!({"subject": "a"}));
    let first = table(&Screens::default(), &catalog);
    first.all().for_each(|screen| screen.passed(3));
    rule(&mut catalog, "orders", json!({"subject": "a", "on_invalid": "dead-letter"}));
    let second = table(&first, &catalog);
    let screen = second.all().next().unwrap();
    screen.held_back();
    assert_eq!(screen.counts(), (3, 0, 1));
}

#[test]
fn events_name_their_schema_by_confluents_prefix() {
    let mut catalog = Catalog::new();
    let numbers = register(&mut catalog, "numbers", SchemaFormat::Json, r#"{"type": "integer"}"#);
    let avro = register(&mut catalog, "avro", SchemaFormat::Avro, "\"boolean\"");
    let proto = "syntax = \"proto3\"; message A { int32 a = 1; message B { string b = 1; } } message C { bool c = 1; }";
    let proto = register(&mut catalog, "proto", SchemaFormat::Protobuf, proto);
    rule(&mut catalog, "any", json!({"by": "confluent"}));
    rule(&mut catalog, "one", json!({"by": "confluent", "subject": "numbers", "required": false}));
    let screens = table(&Screens::default(), &catalog);
    for (good, payload) in [
        (true, prefixed(numbers, b"17")),
        (false, prefixed(numbers, b"\"17\"")),
        (true, prefixed(avro, &[1])),
        (false, prefixed(avro, &[2])),
        (true, prefixed(proto, &[0, 8, 1])),
        // Message 0, in it message 0.
        (true, prefixed(proto, &[4, 0, 0, 0x0a, 1, b'x'])),
        (false, prefixed(proto, &[4, 0, 0, 0x08, 1])),
        // Message 1.
        (true, prefixed(proto, &[2, 2, 8, 1])),
        (false, prefixed(proto, &[2, 4, 8, 1])),
        (false, prefixed(proto, &[0xff, 0xff, 0xff, 0xff, 0x0f])),
        (false, prefixed(99, b"17")),
        (false, b"17".to_vec()),
        (false, Vec::new()),
    ] {
        assert_eq!(judge(&screens, "any/1", &[], &payload).is_ok(), good, "{payload:?}");
    }
    assert_eq!(judge(&screens, "one/1", &[], b"17"), Ok(()), "it names none, and does not have to");
    assert!(judge(&screens, "one/1", &[], &prefixed(avro, &[1])).unwrap_err().text.contains("not among those"));
}

#[test]
fn events_name_their_schema_in_their_head() {
    let mut catalog = Catalog::new();
    let id = register(&mut catalog, "a:b", SchemaFormat::Json, r#"{"type": "integer"}"#);
    register(&mut catalog, "a:b", SchemaFormat::Json, r#"{"type": "string"}"#);
    rule(&mut catalog, "attribute", json!({"by": "header"}));
    rule(&mut catalog, "address", json!({"by": "dataschema"}));
    let screens = table(&Screens::default(), &catalog);
    let by_id = id.to_string();
    for (named, good) in
        [("a:b:1", true), ("a:b:2", false), ("a:b:latest", false), (&*by_id, true), ("a:b:3", false), ("c:1", false)]
    {
        let mut attrs = AttrsBuilder::new();
        attrs.own(myelin_wire::attrs::SCHEMA, named.as_bytes());
        assert_eq!(judge(&screens, "attribute/1", attrs.as_bytes(), b"1").is_ok(), good, "{named}");
    }
    for (named, good) in [
        (format!("https://registry.example/schemas/ids/{id}"), true),
        ("https://registry.example/subjects/a:b/versions/1".to_owned(), true),
        ("https://registry.example/subjects/a:b/versions/latest?x=y".to_owned(), false),
        ("https://registry.example/other".to_owned(), false),
    ] {
        for name in DATASCHEMA {
            let mut attrs = AttrsBuilder::new();
            attrs.header(name, &named);
            assert_eq!(judge(&screens, "address/1", attrs.as_bytes(), b"1").is_ok(), good, "{named}");
        }
    }
    assert!(judge(&screens, "attribute/1", &[], b"1").unwrap_err().text.contains("names no schema"));
}
