#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::limits::{FAULT_TEXT_MAX, SCHEMA_BYTES_MAX};
use crate::{
    Compatibility, Format, ReferenceText, SchemaError, Source, Validator, canonical, check, incompatibilities,
};
use serde_json::{Value, json};

fn source<'a>(text: &'a str, references: &'a [ReferenceText<'a>]) -> Source<'a> {
    Source { format: Format::Json, text, references }
}

fn compiled(schema: &Value) -> Validator {
    Validator::compile(&source(&schema.to_string(), &[])).unwrap()
}

fn refused(text: &str) -> SchemaError {
    check(&source(text, &[])).unwrap_err()
}

fn valid(validator: &Validator, value: &Value) -> bool {
    validator.validate(value.to_string().as_bytes()).is_ok()
}

#[test]
fn a_fault_says_where_and_what_but_not_the_value() {
    let schema = json!({"properties": {"order": {"properties": {"id": {"type": "integer"}}, "required": ["id"]}}});
    let validator = compiled(&schema);
    assert!(valid(&validator, &json!({"order": {"id": 1}})));
    let fault = validator.validate(br#"{"order": {"id": "secret"}}"#).unwrap_err();
    assert_eq!(fault.path, "/order/id");
    assert!(fault.text.contains("integer") && !fault.text.contains("secret"), "{fault}");
    let fault = validator.validate(br#"{"order": {}}"#).unwrap_err();
    assert!(fault.path == "/order" && fault.text.contains("id"), "{fault}");
    let fault = validator.validate(b"{\"order\": ").unwrap_err();
    assert!(fault.path.is_empty() && fault.text.starts_with("is no JSON"), "{fault}");
    assert!(validator.validate(b"{} {}").is_err(), "two values are not one");
}

/// Readers do not agree which of them counts: the first, the last, or both.
#[test]
fn a_name_that_comes_twice_is_a_fault_of_its_object_whatever_the_schema_asks() {
    let limit = json!({"properties": {"amount": {"maximum": 10}}});
    for (schema, payload, path) in [
        (limit.clone(), r#"{"amount":99999,"amount":1}"#, ""),
        (limit.clone(), r#"{"amount":1,"amount":1}"#, ""),
        (limit.clone(), r#"{"amount":99999,"\u0061mount":1}"#, ""),
        (json!({"items": limit}), r#"[{"amount":1},{"id":7,"amount":99999,"amount":1}]"#, "/1"),
        (json!(true), r#"{"a":{"b/c":[0,{"amount":1,"amount":2}]}}"#, "/a/b~1c/1"),
    ] {
        let fault = compiled(&schema).validate(payload.as_bytes()).unwrap_err();
        assert_eq!((&*fault.path, &*fault.text), (path, "has more than one member of the name `amount`"), "{payload}");
    }
    assert!(valid(&compiled(&limit), &json!([{"amount": 1}, {"amount": 1}])), "of two objects");
    let long = format!("{{\"{0}\":1,\"{0}\":2}}", "n".repeat(10_000));
    let fault = compiled(&limit).validate(long.as_bytes()).unwrap_err();
    assert!(fault.text.starts_with("has more than one member of the name `nnn"), "{fault}");
}

#[test]
fn a_schema_with_a_name_twice_is_not_registered_and_goes_on_judging_where_it_was() {
    for (format, text, place) in [
        (Format::Json, r#"{"properties":{"a":{"maximum":10},"\u0061":{}}}"#, "`/properties` has"),
        (Format::Json, r#"{"type":"object","type":"string"}"#, "its object has"),
        (Format::Avro, r#"{"type":"fixed","name":"f","size":1,"size":2}"#, "its object has"),
    ] {
        let source = Source { format, text, references: &[] };
        let error = check(&source).unwrap_err();
        assert_eq!(error.code, "schema-malformed", "{error}");
        assert!(error.message.contains(place) && error.message.contains("leave one"), "{error}");
        Validator::compile(&source).unwrap();
    }
    check(&Source { format: Format::Avro, text: "\"string\"", references: &[] }).unwrap();
}

#[test]
fn faults_are_bounded() {
    let name = "n".repeat(10_000);
    let validator = compiled(&json!({"additionalProperties": {"type": "integer"}}));
    let fault = validator.validate(json!({name: "x"}).to_string().as_bytes()).unwrap_err();
    assert!(fault.path.len() <= FAULT_TEXT_MAX && fault.text.len() <= FAULT_TEXT_MAX, "{fault}");
}

#[test]
fn nothing_is_fetched() {
    for uri in [
        "http://127.0.0.1:9/schema.json",
        "https://example.com/schema.json",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]:9/schema.json",
        "https://[::1]/schema.json",
        "http://[::ffff:127.0.0.1]:9/schema.json",
        "http://[::ffff:169.254.169.254]/latest/meta-data",
        "http://[fd00:ec2::254]/latest/meta-data",
        "http://[::ffff:a9fe:a9fe]/",
        "http://2130706433/schema.json",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "other.json",
        "//example.com/a",
    ] {
        let schema = json!({"properties": {"a": {"$ref": uri}}}).to_string();
        let error = refused(&schema);
        assert_eq!(error.code, "schema-reference-unresolved", "{uri}: {error}");
        assert!(error.message.contains("references"), "{error}");
    }
    for meta in ["http://127.0.0.1:9/meta", "http://[::1]:9/meta", "http://[::ffff:127.0.0.1]:9/meta"] {
        let error = refused(&json!({"$schema": meta, "type": "object"}).to_string());
        assert_eq!(error.code, "schema-malformed", "{error}");
    }
}

#[test]
fn references_come_from_what_was_handed_in() {
    let address =
        r##"{"type": "object", "required": ["city"], "properties": {"city": {"$ref": "city.json#/$defs/name"}}}"##;
    let city = r#"{"$defs": {"name": {"type": "string", "maxLength": 5}}}"#;
    let references =
        [ReferenceText { name: "city.json", text: city }, ReferenceText { name: "address.json", text: address }];
    for root in [
        json!({"$id": "http://example.com/person.json", "properties": {"home": {"$ref": "address.json"}}}),
        json!({"properties": {"home": {"$ref": "address.json"}}}),
    ] {
        let text = root.to_string();
        let validator = Validator::compile(&source(&text, &references)).unwrap();
        assert!(valid(&validator, &json!({"home": {"city": "Ulm"}})));
        assert!(!valid(&validator, &json!({"home": {"city": "Hannover"}})));
        assert!(!valid(&validator, &json!({"home": {}})));
    }
}

#[test]
fn endless_and_explosive_schemas_are_refused() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"if": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {"$ref": "#/definitions/a"}},
            "properties": {"x": {"$ref": "#/definitions/a"}}}),
        json!({"$dynamicAnchor": "x", "anyOf": [{"$dynamicRef": "#x"}]}),
    ] {
        let error = refused(&schema.to_string());
        assert_eq!(error.code, "schema-recursive", "{schema}: {error}");
    }
    // Each names the next twice: 2^30 judgements of one value.
    let mut defs = serde_json::Map::new();
    for index in 0..30 {
        let next = format!("#/$defs/d{}", index + 1);
        defs.insert(format!("d{index}"), json!({"allOf": [{"$ref": next}, {"$ref": next}]}));
    }
    defs.insert("d30".to_owned(), json!(true));
    let error = refused(&json!({"$ref": "#/$defs/d0", "$defs": defs}).to_string());
    assert_eq!(error.code, "schema-too-complex", "{error}");
    // The same, one step into the value each time.
    let mut defs = serde_json::Map::new();
    for index in 0..30 {
        let next = json!({"items": {"$ref": format!("#/$defs/d{}", index + 1)}});
        defs.insert(format!("d{index}"), json!({"allOf": [next, next]}));
    }
    defs.insert("d30".to_owned(), json!({"type": "null"}));
    let error = refused(&json!({"$ref": "#/$defs/d0", "$defs": defs}).to_string());
    assert_eq!(error.code, "schema-too-complex", "{error}");
}

#[test]
fn what_is_too_big_or_too_deep_is_refused_before_it_is_compiled() {
    let error = refused(&format!("{{\"title\": \"{}\"}}", "x".repeat(10 * SCHEMA_BYTES_MAX)));
    assert_eq!(error.code, "schema-too-big", "{error}");
    let deep = format!("{}true{}", r#"{"not":"#.repeat(100), "}".repeat(100));
    assert_eq!(refused(&deep).code, "schema-too-complex");
    let deeper = format!("{}true{}", r#"{"not":"#.repeat(100_000), "}".repeat(100_000));
    assert_eq!(refused(&deeper).code, "schema-malformed");
    let wide = json!({"enum": (0..200_000).collect::<Vec<_>>()}).to_string();
    assert_eq!(
        refused(&wide).code,
        if wide.len() > SCHEMA_BYTES_MAX { "schema-too-big" } else { "schema-too-complex" }
    );
    let patterns: serde_json::Map<_, _> = (0..300).map(|n| (format!("^a{n}"), json!(true))).collect();
    assert_eq!(refused(&json!({"patternProperties": patterns}).to_string()).code, "schema-too-complex");
    assert_eq!(refused(r#"{"pattern": "((a{1000}){1000}){1000}"}"#).code, "schema-malformed");
    assert_eq!(refused("[]").code, "schema-malformed");
    assert_eq!(refused(r#"{"type": "strin"}"#).code, "schema-malformed");
    let references = vec![ReferenceText { name: "a", text: "{}" }; 65];
    assert_eq!(check(&source("{}", &references)).unwrap_err().code, "schema-too-many-references");
}

/// A chain as long as is allowed, compiled on a thread of the stack that test threads and workers have.
#[test]
fn long_chains_of_references_fit_the_stack() {
    let chain = |length: usize| {
        let mut defs = serde_json::Map::new();
        for index in 0..length {
            let next = format!("#/$defs/d{}", index + 1);
            defs.insert(format!("d{index}"), json!({"properties": {"a": {"$ref": next}}}));
        }
        defs.insert(format!("d{length}"), json!({"type": "null"}));
        json!({"$ref": "#/$defs/d0", "$defs": defs}).to_string()
    };
    check(&source(&chain(crate::limits::JSON_CHAIN_MAX / 2), &[])).unwrap();
    assert_eq!(refused(&chain(5_000)).code, "schema-too-complex");
}

#[test]
fn deep_payloads_of_deep_recursive_schemas_fit_the_stack() {
    let mut inner = json!({"items": {"$ref": "#"}});
    for _ in 0..(crate::limits::JSON_IN_PLACE_DEPTH_MAX - 4) {
        inner = json!({"allOf": [inner]});
    }
    let validator = compiled(&inner);
    let payload = format!("{}{}", "[".repeat(120), "]".repeat(120));
    validator.validate(payload.as_bytes()).unwrap();
    let payload = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(validator.validate(payload.as_bytes()).is_err());
}

#[test]
fn recursive_schemas_with_choices_have_a_budget() {
    let operation = |name: &str| {
        let operand = json!({"$ref": "#/$defs/expression"});
        json!({"type": "object", "properties": {"op": {"const": name}, "left": operand, "right": operand}, "required": ["op"]})
    };
    let schema = json!({
        "$ref": "#/$defs/expression",
        "$defs": {"expression": {"oneOf": [operation("add"), operation("times"), {"type": "number"}]}}
    });
    let validator = compiled(&schema);
    let nested = |depth: usize| {
        let mut value = json!(1);
        for _ in 0..depth {
            value = json!({"op": "add", "left": value, "right": 2});
        }
        value
    };
    assert!(valid(&validator, &nested(8)));
    assert!(!valid(&validator, &json!({"op": "minus", "left": 1})));
    let fault = validator.validate(nested(60).to_string().as_bytes()).unwrap_err();
    assert!(fault.text.contains("nested too deeply"), "{fault}");
    // A tree without a choice is judged at any depth: each value once.
    let tree = json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "additionalProperties": false});
    let mut value = json!({});
    for _ in 0..60 {
        value = json!({"left": value, "right": {}});
    }
    assert!(valid(&compiled(&tree), &value));
}

#[test]
fn backtracking_expressions_give_up() {
    let validator = compiled(&json!({"pattern": "^(?=x)((x+x+)+y|z)$"}));
    assert!(!valid(&validator, &json!("x".repeat(5_000))));
    assert!(!valid(&validator, &json!("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")));
}

#[test]
fn one_schema_has_one_canonical_text() {
    let text = |text: &str| canonical(&source(text, &[])).unwrap();
    assert_eq!(
        text(r#"{ "type":"object", "a" : [1, {"z":1,"b":"\u00e4"}] }"#),
        r#"{"a":[1,{"b":"ä","z":1}],"type":"object"}"#
    );
    assert_ne!(text(r#"{"required": ["a", "b"]}"#), text(r#"{"required": ["b", "a"]}"#));
    assert_eq!(text("true"), "true");
}

/// What a change from the first to the second breaks: reading old data, reading new data with the old schema.
fn broken(older: &Value, newer: &Value) -> (bool, bool) {
    let (older, newer) = (older.to_string(), newer.to_string());
    let (older, newer) = ([source(&older, &[])], source(&newer, &[]));
    let of = |level| !incompatibilities(level, &newer, &older).unwrap().is_empty();
    (of(Compatibility::Backward), of(Compatibility::Forward))
}

#[test]
fn changes_of_json_schemas() {
    let closed = |members: Value| json!({"type": "object", "properties": members, "additionalProperties": false});
    let open = |members: Value| json!({"type": "object", "properties": members});
    let required = |name: &str| json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": [name]});
    let cases = [
        ("the same", open(json!({"a": true})), open(json!({"a": true})), (false, false)),
        ("a member in a closed object", closed(json!({})), closed(json!({"a": {"type": "string"}})), (false, true)),
        ("a member in an open object", open(json!({})), open(json!({"a": {"type": "string"}})), (true, false)),
        ("a member without demands", open(json!({})), open(json!({"a": {}})), (false, false)),
        ("closing", open(json!({})), closed(json!({})), (true, false)),
        ("required", open(json!({"a": {"type": "string"}})), required("a"), (true, false)),
        ("a wider type", json!({"type": "integer"}), json!({"type": "number"}), (false, true)),
        ("one type more", json!({"type": "string"}), json!({"type": ["string", "null"]}), (false, true)),
        ("another type", json!({"type": "string"}), json!({"type": "object"}), (true, true)),
        ("any type", json!({"type": "string"}), json!({}), (false, true)),
        ("a longer text", json!({"maxLength": 3}), json!({"maxLength": 4}), (false, true)),
        ("a least length", json!({}), json!({"minLength": 1}), (true, false)),
        ("a bound", json!({"minimum": 1}), json!({"minimum": 0}), (false, true)),
        ("the bound excluded", json!({"minimum": 1}), json!({"exclusiveMinimum": 1}), (true, false)),
    ];
    assert_broken(&cases);
}

#[test]
fn changes_of_combined_json_schemas() {
    let cases = [
        (
            "a bound of numbers, where only texts were",
            json!({"type": "string"}),
            json!({"type": "string", "minimum": 1}),
            (false, false),
        ),
        ("a divisor", json!({"multipleOf": 4}), json!({"multipleOf": 2}), (false, true)),
        ("a pattern", json!({"pattern": "a"}), json!({"pattern": "b"}), (true, true)),
        ("one value more", json!({"enum": ["a"]}), json!({"enum": ["a", "b"]}), (false, true)),
        (
            "one alternative more",
            json!({"oneOf": [{"type": "string"}]}),
            json!({"oneOf": [{"type": "string"}, {"type": "null"}]}),
            (false, true),
        ),
        (
            "an alternative instead",
            json!({"type": "string"}),
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            (false, true),
        ),
        (
            "one demand more",
            json!({"allOf": [{"minLength": 1}]}),
            json!({"allOf": [{"minLength": 1}, {"maxLength": 9}]}),
            (true, false),
        ),
        ("not", json!({"not": {"type": "string"}}), json!({"not": {"type": "string", "minLength": 4}}), (false, true)),
        ("items", json!({"items": {"type": "integer"}}), json!({"items": {"type": "number"}}), (false, true)),
        ("unique", json!({"type": "array"}), json!({"type": "array", "uniqueItems": true}), (true, false)),
        (
            "behind a reference",
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}),
            json!({"type": "number"}),
            (false, true),
        ),
        (
            "recursive",
            json!({"properties": {"a": {"$ref": "#"}, "b": {"type": "integer"}}}),
            json!({"properties": {"a": {"$ref": "#"}, "b": {"type": "number"}}}),
            (false, true),
        ),
        (
            "a pattern's members",
            json!({"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": false}),
            json!({"properties": {"x1": {"type": "number"}}, "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": false}),
            (false, true),
        ),
        (
            "titles",
            json!({"title": "a", "type": "string"}),
            json!({"description": "b", "type": "string"}),
            (false, false),
        ),
    ];
    assert_broken(&cases);
}

/// Changes, each with what it breaks.
fn assert_broken(cases: &[(&str, Value, Value, (bool, bool))]) {
    for (name, older, newer, expected) in cases {
        assert_eq!(broken(older, newer), *expected, "{name}: {older} -> {newer}");
    }
}

#[test]
fn a_required_member_with_a_default_is_compatible_as_in_confluents_registry() {
    let older = json!({"type": "object", "additionalProperties": false});
    let newer = json!({"type": "object", "properties": {"a": {"default": 1}}, "required": ["a"], "additionalProperties": false});
    assert!(!broken(&older, &newer).0);
}

#[test]
fn levels_look_at_as_many_versions_as_they_say() {
    let texts = [r#"{"type": "integer"}"#, r#"{"type": "number"}"#, r#"{"type": "string"}"#];
    let [first, second, third] = texts.map(|text| source(text, &[]));
    let count = |level, newer, older: &[Source<'_>]| incompatibilities(level, newer, older).unwrap().len();
    assert_eq!(count(Compatibility::Backward, &second, &[first, third]), 0);
    assert_eq!(count(Compatibility::BackwardTransitive, &second, &[first, third]), 1);
    assert_eq!(count(Compatibility::Forward, &first, &[second]), 0);
    assert_eq!(count(Compatibility::Full, &first, &[second]), 1);
    assert_eq!(count(Compatibility::None, &third, &[first]), 0);
    assert_eq!(count(Compatibility::Full, &third, &[]), 0);
    let reasons = incompatibilities(Compatibility::Backward, &third, &[first]).unwrap();
    assert!(reasons[0].contains("the version before") && reasons[0].contains("integer"), "{reasons:?}");
}

/// A pattern may take more steps on a payload than it is given; the library panics where that is in a choice below the root.
#[test]
fn a_payload_that_the_library_fails_on_is_turned_back_and_the_next_one_judged() {
    let pattern = "^(?:[a-z0-9]+(?:[.](?![.])|-)?)+@[a-z]+$";
    let mail = json!({"anyOf": [{"type": "null"}, {"type": "string", "pattern": pattern}]});
    let hostile = json!({"mail": format!("{}@!", "a".repeat(60))});
    for schema in [json!({"properties": {"mail": mail}}), json!({"properties": {"mail": {"pattern": pattern}}})] {
        let validator = compiled(&schema);
        for _ in 0..3 {
            assert!(valid(&validator, &json!({"mail": "ann@example"})));
            let fault = validator.validate(hostile.to_string().as_bytes()).unwrap_err();
            assert!(!fault.text.contains("aaa"), "{fault}");
        }
    }
}

/// Quadratic it would be some 10^10 steps.
#[test]
fn long_lists_of_values_are_compared_at_once() {
    let texts = |from: usize| (from..from + 90_000).map(|number| json!(format!("v{number}"))).collect::<Vec<_>>();
    let compare = |old: &Value, new: &Value| {
        let (old, new) = (old.to_string(), new.to_string());
        let (old, new) = (source(&old, &[]), source(&new, &[]));
        incompatibilities(Compatibility::Backward, &new, &[old]).unwrap()
    };
    let old = json!({"enum": texts(0)});
    assert!(compare(&old, &json!({"enum": texts(0)})).is_empty());
    assert!(compare(&old, &json!({"enum": texts(1)}))[0].contains("v0"));
    let numbers: Vec<_> = (0..90_000).map(|number| json!(number)).collect();
    assert!(!compare(&old, &json!({"enum": numbers})).is_empty());
    assert!(compare(&json!({"enum": [1, 0, "a"]}), &json!({"enum": ["a", 1.0, -0.0]})).is_empty());
}
