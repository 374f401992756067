#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::naming::DATASCHEMA;
use super::*;
use myelin_catalog::schemas::Wanted;
use myelin_catalog::{Catalog, Digest, NewSchema, Op, SchemaFormat};
use myelin_wire::AttrsBuilder;
use serde_json::json;
use std::time::Duration;

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
    let mut rule = json!({"name": name, "pattern": format!("{name}/**"), "schema": schema});
    // As a rule is once it is settled: here it follows the newest version.
    let version = &mut rule["schema"]["version"];
    *version = if version.is_null() { json!("latest") } else { version.take() };
    change(catalog, Op::TopicRuleSet { rule: serde_json::from_value(rule).unwrap() });
}

fn table(before: &Screens, catalog: &Catalog) -> Screens {
    Screens::after(before, catalog.topic_rules().filter(|rule| rule.schema.is_some()), catalog.schemas())
}

fn judge(screens: &Screens, topic: &str, attrs: &[u8], payload: &[u8]) -> Result<(), Violation> {
    let event = EventView { topic, attrs, payload, identity: "" };
    screens.of(topic).try_for_each(|screen| screen.judge(&event)).map_err(|violation| *violation)
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
        let judged = screens.of("codes/1").try_for_each(|screen| screen.judge_waited(&event, &mut work_ns));
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

#[test]
fn what_is_deleted_and_kept_may_be_named_until_it_goes_for_good() {
    let mut catalog = Catalog::new();
    let first = register(&mut catalog, "orders", SchemaFormat::Json, r#"{"type": "integer"}"#);
    let second = register(&mut catalog, "orders", SchemaFormat::Json, r#"{"type": "string"}"#);
    rule(&mut catalog, "any", json!({"by": "confluent"}));
    rule(&mut catalog, "one", json!({"by": "confluent", "subject": "orders"}));
    rule(&mut catalog, "head", json!({"by": "header", "subject": "orders"}));
    let delete = |catalog: &mut Catalog, version, permanent| {
        change(catalog, Op::SchemaVersionDeleted { subject: "orders".parse().unwrap(), version, permanent });
    };
    let named = |name: &str| {
        let mut attrs = AttrsBuilder::new();
        attrs.own(myelin_wire::attrs::SCHEMA, name.as_bytes());
        attrs.as_bytes().to_vec()
    };
    let holds = |catalog: &Catalog, version: u32, id: u32, payload: &[u8]| {
        let screens = table(&Screens::default(), catalog);
        let by_prefix = |topic| judge(&screens, topic, &[], &prefixed(id, payload)).is_ok();
        let by_head = judge(&screens, "head/1", &named(&format!("orders:{version}")), payload).is_ok();
        by_prefix("any/1") && by_prefix("one/1") && by_head
    };
    delete(&mut catalog, 2, false);
    assert!(holds(&catalog, 1, first, b"1") && holds(&catalog, 2, second, b"\"a\""));
    let screens = table(&Screens::default(), &catalog);
    assert_eq!(judge(&screens, "head/1", &named("orders"), b"1"), Ok(()), "no subject's newest");
    assert!(judge(&screens, "any/1", &[], &prefixed(second, b"1")).is_err(), "it is judged");
    delete(&mut catalog, 2, true);
    let screens = table(&Screens::default(), &catalog);
    for topic in ["any/1", "one/1"] {
        let gone = judge(&screens, topic, &[], &prefixed(second, b"\"a\"")).unwrap_err();
        assert!(gone.text.contains("not among those"), "{gone:?}");
    }
}

fn compilations(screens: &Screens) -> [u64; 4] {
    screens.compilations().map(|(_, count)| count)
}

/// A catalog with these many schemas, and a rule that lets events name any of them.
fn crowded(count: u32) -> Catalog {
    let mut catalog = Catalog::new();
    for number in 0..count {
        let text = format!(r#"{{"type": "integer", "minimum": {number}}}"#);
        register(&mut catalog, &format!("s{number}"), SchemaFormat::Json, &text);
    }
    rule(&mut catalog, "any", json!({"by": "confluent"}));
    catalog
}

#[test]
fn any_schema_of_the_registry_may_be_named_and_is_compiled_when_it_is() {
    let mut catalog = crowded(1_100);
    let screens = table(&Screens::default(), &catalog);
    assert_eq!(compilations(&screens), [0; 4], "nothing was named yet");
    for _ in 0..2 {
        assert_eq!(judge(&screens, "any/1", &[], &prefixed(1, b"17")), Ok(()), "the oldest");
        assert!(judge(&screens, "any/1", &[], &prefixed(1_100, b"17")).is_err());
    }
    assert_eq!(compilations(&screens), [2, 0, 0, 0], "once each");
    for id in 2_000..3_000 {
        assert!(judge(&screens, "any/1", &[], &prefixed(id, b"17")).unwrap_err().text.contains("not among those"));
    }
    assert_eq!(compilations(&screens), [2, 0, 0, 0], "ids that are made up compile nothing");
    // What is registered then turns nobody back, and nothing is compiled again.
    let new = register(&mut catalog, "one-more", SchemaFormat::Json, r#"{"type": "string"}"#);
    let next = table(&screens, &catalog);
    assert_eq!(judge(&next, "any/1", &[], &prefixed(1, b"17")), Ok(()));
    assert_eq!(compilations(&next), [2, 0, 0, 0]);
    assert_eq!(judge(&next, "any/1", &[], &prefixed(new, b"\"a\"")), Ok(()));
}

#[test]
fn what_was_named_longest_ago_gives_way() {
    let before = Screens { shelf: Arc::new(Shelf::new(2, Duration::MAX)), ..Screens::default() };
    let screens = table(&before, &crowded(4));
    let name = |id: u32| assert_eq!(judge(&screens, "any/1", &[], &prefixed(id, b"17")), Ok(()));
    [1, 2, 1, 3, 1].into_iter().for_each(name);
    assert_eq!(compilations(&screens), [3, 0, 1, 0], "2 gave way to 3");
    [1, 3].into_iter().for_each(name);
    assert_eq!(compilations(&screens), [3, 0, 1, 0]);
    name(2);
    assert_eq!(compilations(&screens), [4, 0, 2, 0]);
}

#[tokio::test]
async fn streams_wait_for_what_they_name_first_and_not_for_ever() {
    let payload = prefixed(1, b"17");
    let ask = async |screens: &Screens| {
        let event = EventView { topic: "any/1", attrs: &[], payload: &payload, identity: "" };
        let (screen, mut waiting) = (screens.of("any/1").next().unwrap(), Waiting::default());
        screen.wait_for_schema(&event, &mut waiting).await;
        screen.judge_waited(&event, &mut 0).map_err(|violation| violation.text)
    };
    let catalog = crowded(1);
    let screens = table(&Screens::default(), &catalog);
    let both = tokio::join!(ask(&screens), ask(&screens));
    assert_eq!((both, compilations(&screens)), ((Ok(()), Ok(())), [1, 0, 0, 0]), "compiled once for both");
    let turn = screens.shelf.turn().await;
    assert_eq!(ask(&screens).await, Ok(()), "what is compiled waits for nobody");
    drop(turn);
    // Somebody else has the turn, for as long as it likes.
    let before = Screens { shelf: Arc::new(Shelf::new(2, Duration::from_millis(10))), ..Screens::default() };
    let screens = table(&before, &catalog);
    let _turn = screens.shelf.turn().await;
    let late = ask(&screens).await.unwrap_err();
    assert!(late.contains("the schema 1 was not compiled in time") && late.contains("send the event again"), "{late}");
    assert_eq!(compilations(&screens), [0, 0, 0, 1]);
}

#[tokio::test]
async fn a_batch_waits_once_for_all_that_it_names_and_workers_compile_nothing() {
    let patience = Duration::from_millis(30);
    let before = Screens { shelf: Arc::new(Shelf::new(1, patience)), ..Screens::default() };
    let screens = table(&before, &crowded(40));
    let payloads: Vec<_> = (1..=40).map(|id| prefixed(id, b"17")).collect();
    let screen = screens.of("any/1").next().unwrap();
    let event = |at: usize| EventView { topic: "any/1", attrs: &[], payload: &payloads[at], identity: "" };
    // What gave way to another one meanwhile is not compiled in the way of others.
    let mut waiting = Waiting::default();
    for at in 0..2 {
        screen.wait_for_schema(&event(at), &mut waiting).await;
    }
    assert!(screen.judge_waited(&event(0), &mut 0).unwrap_err().text.contains("send the event again"));
    assert_eq!((screen.judge_waited(&event(1), &mut 0), compilations(&screens)), (Ok(()), [2, 0, 1, 1]));
    // Forty that each wait in vain wait no longer than one.
    let turn = screens.shelf.turn().await;
    let (mut waiting, begin) = (Waiting::default(), std::time::Instant::now());
    for at in 2..40 {
        screen.wait_for_schema(&event(at), &mut waiting).await;
    }
    assert!(begin.elapsed() < 10 * patience, "{:?}", begin.elapsed());
    drop(turn);
}

/// Not a check: the figure beside [`slots::NAMED_SCHEMAS_MAX`].
#[test]
#[ignore = "measures the memory of compiled schemas"]
fn memory_of_compiled_schemas() {
    let mut catalog = Catalog::new();
    for number in 0..2_000 {
        let fields: Vec<_> =
            (0..8).map(|field| format!(r#""field{number}_{field}": {{"type": "string", "maxLength": 80}}"#)).collect();
        let text =
            format!(r#"{{"type": "object", "properties": {{{}}}, "required": ["field{number}_0"]}}"#, fields.join(","));
        register(&mut catalog, &format!("s{number}"), SchemaFormat::Json, &text);
    }
    rule(&mut catalog, "any", json!({"by": "confluent"}));
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
    };
    let screens = table(&Screens::default(), &catalog);
    let (before, begin) = (resident(), std::time::Instant::now());
    (1..=2_000).for_each(|id| drop(judge(&screens, "any/1", &[], &prefixed(id, b"{}"))));
    let each = (resident() - before) / 2_000;
    println!("{each} bytes each, {:?} each", begin.elapsed() / 2_000);
    assert!(each < 256 * 1024);
}
