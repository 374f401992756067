#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::catalog::Catalog;
use crate::limits::TOPIC_RULES_MAX;
use crate::op::Op;
use crate::record::Record;
use crate::schemas::{NewSchema, SchemaFormat, Wanted};

fn rule(name: &str, pattern: &str, residency: serde_json::Value) -> TopicRule {
    let rule = serde_json::json!({"name": name, "pattern": pattern, "residency": residency});
    serde_json::from_value(rule).unwrap()
}

fn with(schema: serde_json::Value) -> TopicRule {
    let rule = serde_json::json!({"name": "orders", "pattern": "orders/**", "schema": schema});
    serde_json::from_value(rule).unwrap()
}

fn set(catalog: &mut Catalog, rule: TopicRule) -> Result<Record, CatalogError> {
    let record = catalog.draft(Op::TopicRuleSet { rule: Box::new(rule) }, "ann", 0)?;
    catalog.apply(&record)?;
    Ok(record)
}

#[test]
fn every_list_that_is_there_must_fit() {
    let eu = rule("eu", "orders/**", serde_json::json!({"regions": ["eu-*"], "clouds": ["own", "aws"]})).residency;
    assert!(eu.allows("hamburg", "eu-north", "aws"));
    assert!(!eu.allows("hamburg", "eu-north", "other") && !eu.allows("ohio", "us-east", "aws"));
    assert!(!eu.allows("nowhere", "", ""), "of an unknown place nothing is promised");
    let named = rule("two", "a", serde_json::json!({"sites": ["eu1", "us*"]})).residency;
    assert!(named.allows("eu1", "", "") && named.allows("us1", "", "") && !named.allows("eu11", "", ""));
}

#[test]
fn selectors_are_names_or_beginnings_of_them() {
    for good in ["eu1", "eu-*", "*", "e*"] {
        assert_eq!(good.parse::<Selector>().unwrap().to_string(), good);
    }
    for bad in ["", "EU", "a*b", "**", "-*", "a/b"] {
        assert!(bad.parse::<Selector>().is_err(), "{bad}");
    }
}

#[test]
fn rules_are_set_replaced_and_removed_by_records() {
    let mut catalog = Catalog::new();
    let first = rule("eu", "orders/**", serde_json::json!({"regions": ["eu"]}));
    let wider = rule("eu", "orders/**", serde_json::json!({"regions": ["eu", "uk"]}));
    let record = set(&mut catalog, first.clone()).unwrap();
    assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    assert_eq!(catalog.topic_rules().collect::<Vec<_>>(), [&first]);
    set(&mut catalog, wider.clone()).unwrap();
    assert_eq!(catalog.topic_rules().collect::<Vec<_>>(), [&wider]);
    let remove = |catalog: &Catalog| catalog.draft(Op::TopicRuleRemoved { name: "eu".parse().unwrap() }, "ann", 0);
    let record = remove(&catalog).unwrap();
    catalog.apply(&record).unwrap();
    assert_eq!(catalog.topic_rules().len(), 0);
    assert_eq!(remove(&catalog).unwrap_err().code(), "not-found");
}

#[test]
fn what_means_nothing_or_too_much_is_refused() {
    let mut catalog = Catalog::new();
    let mut refused = |rule: TopicRule| set(&mut catalog, rule).unwrap_err();
    let everywhere = refused(rule("a", "x", serde_json::json!({})));
    assert_eq!(everywhere.code(), "invalid-topic-rule");
    assert!(everywhere.to_string().contains("allows every site"), "{everywhere}");
    assert!(refused(rule("a", "$dead/**", serde_json::json!({"sites": ["a"]}))).to_string().contains('$'));
    let many: Vec<String> = (0..=SELECTORS_MAX).map(|number| format!("s{number}")).collect();
    assert!(refused(rule("a", "x", serde_json::json!({"sites": many}))).to_string().contains("the most"));
    let mut full = Catalog::new();
    for number in 0..TOPIC_RULES_MAX {
        set(&mut full, rule(&format!("r{number}"), "x", serde_json::json!({"sites": ["a"]}))).unwrap();
    }
    let one_more = rule("one-more", "x", serde_json::json!({"sites": ["a"]}));
    assert_eq!(set(&mut full, one_more).unwrap_err().code(), "catalog-full");
    set(&mut full, rule("r0", "y", serde_json::json!({"sites": ["a"]}))).unwrap();
}

#[test]
fn a_rule_may_say_a_schema_instead_of_sites() {
    let mut catalog = Catalog::new();
    for schema in [
        serde_json::json!({"subject": "orders-value", "version": "latest"}),
        serde_json::json!({"subject": "orders-value", "version": 3, "on_invalid": "dead-letter", "required": false}),
        serde_json::json!({"by": "confluent", "version": "latest"}),
        serde_json::json!({"by": "header", "subject": "orders-value", "version": "latest"}),
    ] {
        let rule = with(schema);
        let record = set(&mut catalog, rule.clone()).unwrap();
        assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        assert_eq!(catalog.topic_rule(&rule.name), Some(&rule));
        assert!(rule.residency.allows("anywhere", "", ""));
    }
    for (schema, field) in [
        (serde_json::json!({}), "schema"),
        (serde_json::json!({"by": "confluent", "version": 2}), "schema.version"),
        (serde_json::json!({"subject": "a", "version": 0}), "schema.version"),
        // It may be asked for, and would be another one at each router that has the record later.
        (serde_json::json!({"subject": "a"}), "schema.version"),
    ] {
        let refused = set(&mut catalog, with(schema)).unwrap_err();
        assert!(matches!(refused, CatalogError::InvalidTopicRule { field: found, .. } if found == field), "{refused}");
    }
}

#[test]
fn a_rule_that_says_no_version_means_the_newest_there_is_and_keeps_it() {
    let mut catalog = Catalog::new();
    let unsaid = || with(serde_json::json!({"subject": "orders-value"}));
    assert_eq!(unsaid().settled(catalog.schemas()).unwrap_err().code(), "subject-not-found");
    let mut settled = Vec::new();
    for text in ["{}", "{\"type\": \"object\"}"] {
        let digest = crate::Digest::of(text.as_bytes());
        let schema = NewSchema { format: SchemaFormat::Json, digest, text: text.to_owned(), references: Vec::new() };
        let subject = "orders-value".parse().unwrap();
        let Wanted::New(registration) = catalog.schemas().register_next(&subject, schema) else { panic!("it is new") };
        let record = catalog.draft(Op::SchemaRegistered { registration }, "ann", 0).unwrap();
        catalog.apply(&record).unwrap();
        settled.push(unsaid().settled(catalog.schemas()).unwrap().schema.unwrap().version);
    }
    assert_eq!(settled, [Some(SchemaVersion::Number(1)), Some(SchemaVersion::Number(2))]);
    let version = |schema| with(schema).settled(catalog.schemas()).unwrap().schema.unwrap().version;
    let latest = Some(SchemaVersion::Latest);
    assert_eq!(version(serde_json::json!({"subject": "orders-value", "version": "latest"})), latest);
    assert_eq!(version(serde_json::json!({"by": "header", "subject": "orders-value"})), latest);
    assert_eq!(version(serde_json::json!({"subject": "other", "version": 7})), Some(SchemaVersion::Number(7)));
}
