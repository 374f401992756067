//! A document of what the catalog has.

use super::super::state::{State, Subject};
use super::EXTENSION;
use myelin_catalog::{SchemaFormat, SubjectName, TopicRule};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The version of the specification; 3.1 changes nothing of what is used here, and fewer tools read it.
const VERSION: &str = "3.0.0";

/// The document.
pub(super) fn document(state: &State, title: &str, revision: u64, servers: &[(String, String)]) -> Value {
    let keys = keys(state);
    let messages =
        state.schemas.iter().map(|(name, subject)| (keys[name].clone(), message(name, subject, &keys[name])));
    let schemas = state.schemas.iter().map(|(name, subject)| (keys[name].clone(), schema(subject)));
    let channels = state.topics.values().map(|rule| (rule.name.to_string(), channel(rule, &keys)));
    let servers = servers.iter().map(|(name, host)| (name.clone(), json!({"host": host, "protocol": "myelin"})));
    let mut document = json!({
        "asyncapi": VERSION,
        "info": {"title": title, "version": revision.to_string(),
            "description": "Exported by `myelin asyncapi export`; the version is the revision of the catalog."},
        "channels": channels.collect::<Map<_, _>>(),
        "components": {"messages": messages.collect::<Map<_, _>>(), "schemas": schemas.collect::<Map<_, _>>()},
    });
    let servers: Map<_, _> = servers.collect();
    if !servers.is_empty() {
        document["servers"] = servers.into();
    }
    document
}

/// Under which key of the components each subject is: its name, as far as the specification allows its characters.
fn keys(state: &State) -> BTreeMap<&SubjectName, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut taken = std::collections::BTreeSet::new();
    let key = |name| {
        let plain: String = SubjectName::as_str(name).chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        let mut key = plain.clone();
        let mut number = 2;
        while !taken.insert(key.clone()) {
            key = format!("{plain}_{number}");
            number += 1;
        }
        (name, key)
    };
    state.schemas.keys().map(key).collect()
}

fn schema(subject: &Subject) -> Value {
    let written = match subject.format {
        SchemaFormat::Protobuf => Value::from(&*subject.text),
        // A schema that is text in another language is still the text; both of these are JSON.
        SchemaFormat::Json | SchemaFormat::Avro => {
            serde_json::from_str(&subject.text).unwrap_or_else(|_| Value::from(&*subject.text))
        }
    };
    let format = match subject.format {
        SchemaFormat::Avro => "application/vnd.apache.avro+json;version=1.9.0",
        SchemaFormat::Protobuf => match subject.text.contains("proto2") {
            true => "application/vnd.google.protobuf;version=2",
            false => "application/vnd.google.protobuf;version=3",
        },
        SchemaFormat::Json => match written["$schema"].as_str() {
            Some(draft) if draft.contains("draft-04") => "application/schema+json;version=draft-04",
            Some(draft) if draft.contains("draft-06") => "application/schema+json;version=draft-06",
            Some(draft) if draft.contains("draft-07") => "application/schema+json;version=draft-07",
            Some(draft) if draft.contains("2019-09") => "application/schema+json;version=draft-2019-09",
            _ => "application/schema+json;version=draft-2020-12",
        },
    };
    json!({"schemaFormat": format, "schema": written})
}

fn message(name: &SubjectName, subject: &Subject, key: &str) -> Value {
    let content_type = match subject.format {
        SchemaFormat::Json => "application/json",
        SchemaFormat::Avro => "avro/binary",
        SchemaFormat::Protobuf => "application/protobuf",
    };
    let mut own = json!({"subject": name});
    if let Some(level) = subject.compatibility {
        own["compatibility"] = json!(level);
    }
    if !subject.references.is_empty() {
        own["references"] = json!(subject.references);
    }
    json!({
        "name": name,
        "contentType": content_type,
        "payload": {"$ref": format!("#/components/schemas/{key}")},
        EXTENSION: own,
    })
}

fn channel(rule: &TopicRule, keys: &BTreeMap<&SubjectName, String>) -> Value {
    let (address, parameters) = address(rule.pattern.as_str());
    let mut own = json!({"pattern": rule.pattern});
    if !rule.residency.is_anywhere() {
        own["residency"] = json!(rule.residency);
    }
    if let Some(schema) = &rule.schema {
        own["schema"] = json!(schema);
    }
    let mut channel = json!({"address": address, EXTENSION: own});
    if !parameters.is_empty() {
        channel["parameters"] = parameters.into();
    }
    let subject = rule.schema.as_ref().and_then(|schema| schema.subject.as_ref());
    if let Some(key) = subject.and_then(|subject| keys.get(subject)) {
        channel["messages"] = json!({key.as_str(): {"$ref": format!("#/components/messages/{key}")}});
    }
    channel
}

/// A pattern as an address with parameters.
fn address(pattern: &str) -> (String, Map<String, Value>) {
    let mut parameters = Map::new();
    let levels: Vec<String> = pattern
        .split('/')
        .map(|level| {
            let (name, what) = match level {
                "*" => (format!("level{}", parameters.len() + 1), "One level of the topic."),
                "**" => ("rest".to_owned(), "Any number of levels, none among them."),
                plain => return plain.to_owned(),
            };
            parameters.insert(name.clone(), json!({"description": what}));
            format!("{{{name}}}")
        })
        .collect();
    (levels.join("/"), parameters)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn wildcards_are_parameters() {
        let of = |pattern| {
            let (address, parameters) = address(pattern);
            (address, parameters.keys().cloned().collect::<Vec<_>>())
        };
        assert_eq!(
            of("orders/*/lines/*/**"),
            ("orders/{level1}/lines/{level2}/{rest}".into(), vec!["level1".into(), "level2".into(), "rest".into()],)
        );
        assert_eq!(of("orders"), ("orders".into(), vec![]));
    }

    #[test]
    fn every_subject_has_a_key_of_its_own() {
        let subject =
            Subject { format: SchemaFormat::Json, text: "true".into(), references: vec![], compatibility: None };
        let names = ["a/b", "a b", "a_b"];
        let schemas = names.iter().map(|name| (name.parse().unwrap(), subject.clone())).collect();
        let document = document(&State { schemas, ..State::default() }, "t", 7, &[]);
        let keys: Vec<_> = document["components"]["messages"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["a_b", "a_b_2", "a_b_3"]);
        assert_eq!(document["components"]["messages"]["a_b_2"]["x-myelin"]["subject"], "a/b");
    }
}
