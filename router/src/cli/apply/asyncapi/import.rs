//! What a document says, as a folder for `myelin apply` has it.

use super::super::state::{Reference, State, Subject};
use super::EXTENSION;
use super::references::{bundle, follow};
use myelin_catalog::{
    CompatibilityLevel, Name, OnInvalid, Residency, SchemaFormat, SchemaRule, SubjectName, TopicRule,
};
use myelin_wire::Pattern;
use serde::Deserialize;
use serde_json::Value;

/// Bytes of a name in the catalog.
const NAME_BYTES_MAX: usize = 60;

/// What Myelin wrote beside a channel.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ChannelExtension {
    pattern: Option<Pattern>,
    residency: Residency,
    schema: Option<SchemaRule>,
}

/// What Myelin wrote beside a message.
#[derive(Default, Deserialize)]
#[serde(default)]
struct MessageExtension {
    subject: Option<SubjectName>,
    compatibility: Option<CompatibilityLevel>,
    references: Vec<Reference>,
}

struct Reader<'a> {
    document: &'a Value,
    state: State,
    remarks: Vec<String>,
    faults: Vec<String>,
}

/// Topics and schemas of a document, and what of it could not be taken.
///
/// # Errors
/// All that cannot be.
pub(super) fn state(document: &Value) -> Result<(State, Vec<String>), Vec<String>> {
    match document["asyncapi"].as_str() {
        Some(version) if version.starts_with("3.") => {}
        Some(version) => {
            return Err(vec![format!("it is AsyncAPI {version}, and 3 is read; `asyncapi convert` converts it")]);
        }
        None => return Err(vec!["it is no AsyncAPI document: it has no field `asyncapi` with a version".to_owned()]),
    }
    let mut reader = Reader { document, state: State::default(), remarks: Vec::new(), faults: Vec::new() };
    for (key, message) in fields(&document["components"]["messages"]) {
        reader.keep(|reader| reader.message(key, message).map(drop), &format!("message {key}"));
    }
    for (id, channel) in fields(&document["channels"]) {
        reader.keep(|reader| reader.channel(id, channel), &format!("channel {id}"));
    }
    if !document["operations"].is_null() {
        reader.remarks.push("operations are not taken: policies say who may send and receive".to_owned());
    }
    if reader.faults.is_empty() { Ok((reader.state, reader.remarks)) } else { Err(reader.faults) }
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn extension<T: Default + for<'de> Deserialize<'de>>(value: &Value) -> Result<T, String> {
    match &value[EXTENSION] {
        Value::Null => Ok(T::default()),
        own => serde_json::from_value(own.clone()).map_err(|error| format!("{EXTENSION}: {error}")),
    }
}

impl Reader<'_> {
    fn keep(&mut self, read: impl FnOnce(&mut Self) -> Result<(), String>, what: &str) {
        if let Err(why) = read(self) {
            self.faults.push(format!("{what}: {why}"));
        }
    }

    fn channel(&mut self, id: &str, channel: &Value) -> Result<(), String> {
        let (channel, _) = follow(self.document, channel)?;
        let own: ChannelExtension = extension(channel)?;
        let mut subjects = Vec::new();
        for (key, message) in fields(&channel["messages"]) {
            subjects.extend(self.message(key, message)?);
        }
        subjects.sort();
        subjects.dedup();
        let pattern = match (own.pattern, channel["address"].as_str()) {
            (Some(pattern), _) => pattern,
            (None, Some(address)) => self.pattern(id, address)?,
            (None, None) => {
                self.remarks.push(format!("channel {id} has no address: it becomes no rule for topics"));
                return Ok(());
            }
        };
        let schema = match (own.schema, subjects.as_slice()) {
            (Some(schema), _) => Some(schema),
            (None, [subject]) => Some(rule_of(subject.clone())),
            (None, []) => None,
            (None, several) => {
                let count = several.len();
                self.remarks.push(format!(
                    "channel {id} has {count} messages: their schemas are taken, and no rule, since it could not say which \
                     of them an event is; `myelin topic apply --schema-by header` lets events say it"
                ));
                None
            }
        };
        if schema.is_none() && own.residency.is_anywhere() {
            self.remarks.push(format!("channel {id} says nothing that a rule for topics could hold its events to"));
            return Ok(());
        }
        let rule = TopicRule { name: self.rule_name(id)?, pattern, residency: own.residency, schema };
        rule.validate().map_err(|error| error.to_string())?;
        self.state.topics.insert(rule.name.clone(), rule);
        Ok(())
    }

    /// An address as a pattern: a parameter is one level.
    fn pattern(&mut self, id: &str, address: &str) -> Result<Pattern, String> {
        let levels: Vec<&str> =
            address.trim_matches('/').split('/').map(|level| if level.contains('{') { "*" } else { level }).collect();
        let is_part = |level: &str| level.contains('{') && !(level.starts_with('{') && level.ends_with('}'));
        if address.split('/').any(is_part) {
            self.remarks
                .push(format!("channel {id}: a parameter of `{address}` is a part of a level; the whole is `*` here"));
        }
        Pattern::new(&levels.join("/")).map_err(|error| format!("its address `{address}` is no topic: {error}"))
    }

    /// What a channel's rule is called.
    fn rule_name(&self, id: &str) -> Result<Name, String> {
        let plain = id.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let plain: String = plain.trim_matches('-').chars().take(NAME_BYTES_MAX).collect();
        let is_free = |name: &Name| !self.state.topics.contains_key(name);
        let tries = (1..=self.state.topics.len() + 1).map(|number| match number {
            1 => plain.clone(),
            _ => format!("{plain}-{number}"),
        });
        let mut names = tries.filter_map(|text| text.parse::<Name>().ok());
        names.find(is_free).ok_or_else(|| format!("no rule can be called `{id}`: rename the channel"))
    }

    /// The subject of a message; none where it says nothing about payloads.
    fn message(&mut self, key: &str, message: &Value) -> Result<Option<SubjectName>, String> {
        let (message, component) = follow(self.document, message)?;
        let own: MessageExtension = extension(message)?;
        let (payload, schema_name) = follow(self.document, &message["payload"])?;
        if payload.is_null() {
            return Ok(None);
        }
        let named = message["name"].as_str().or(schema_name.as_deref()).or(component.as_deref()).unwrap_or(key);
        let subject = match own.subject {
            Some(subject) => subject,
            None => named.parse().map_err(|error| format!("it names its subject: {error}"))?,
        };
        let (format, text) = self.schema(payload)?;
        let mut references = own.references;
        references.sort();
        let schema = Subject { format, text, references, compatibility: own.compatibility };
        match self.state.schemas.get(&subject) {
            Some(known) if *known != schema => Err(format!("another message has other payloads as subject {subject}")),
            _ => {
                self.state.schemas.insert(subject.clone(), schema);
                Ok(Some(subject))
            }
        }
    }

    /// The text of a schema: a multi-format one, or one of the specification's own, which are JSON schemas.
    fn schema(&self, payload: &Value) -> Result<(SchemaFormat, String), String> {
        let is_multi_format = payload["schemaFormat"].is_string() && !payload["schema"].is_null();
        let (name, schema) = match is_multi_format {
            true => (payload["schemaFormat"].as_str().unwrap_or_default(), &payload["schema"]),
            false => ("", payload),
        };
        let format = match name {
            name if name.contains("avro") => SchemaFormat::Avro,
            name if name.contains("protobuf") => SchemaFormat::Protobuf,
            "" => SchemaFormat::Json,
            name if name.contains("schema+json") || name.contains("asyncapi") => SchemaFormat::Json,
            other => {
                return Err(format!("schemas in `{other}` are not known here: Avro, Protobuf and JSON Schema are"));
            }
        };
        let text = match (format, schema) {
            // The name of a type is a schema, too, and no text of one: `"string"`.
            (SchemaFormat::Avro, Value::String(text)) if !text.trim_start().starts_with(['{', '[', '"']) => {
                format!("{schema:#}\n")
            }
            (_, Value::String(text)) => text.clone(),
            (SchemaFormat::Protobuf, _) => return Err("a Protobuf schema is a text".to_owned()),
            (SchemaFormat::Avro, schema) => format!("{schema:#}\n"),
            (SchemaFormat::Json, schema) => format!("{:#}\n", bundle(self.document, schema)?),
        };
        Ok((format, text))
    }
}

fn rule_of(subject: SubjectName) -> SchemaRule {
    SchemaRule { subject: Some(subject), by: None, version: None, on_invalid: OnInvalid::default(), required: true }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::super::document::document;
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_exported_is_imported_as_it_was() {
        let rule = json!({"name": "eu", "pattern": "orders/*/eu/**", "residency": {"regions": ["eu-*"]},
            "schema": {"subject": "orders/value", "version": 2, "on_invalid": "dead-letter", "required": false}});
        let rule: TopicRule = serde_json::from_value(rule).unwrap();
        let subject =
            |format, text: &str| Subject { format, text: text.into(), references: vec![], compatibility: None };
        let reference = Reference { name: "m.proto".into(), subject: "money".parse().unwrap(), version: Some(1) };
        let mut order = subject(SchemaFormat::Protobuf, "syntax = \"proto3\"; import \"m.proto\"; message Order {}");
        order.references = vec![reference];
        order.compatibility = Some(CompatibilityLevel::Full);
        let schemas: BTreeMap<SubjectName, Subject> = [
            ("orders/value".parse().unwrap(), order),
            ("money".parse().unwrap(), subject(SchemaFormat::Protobuf, "syntax = \"proto3\"; message Money {}")),
            ("avro".parse().unwrap(), subject(SchemaFormat::Avro, "\"long\"")),
        ]
        .into();
        let topics = [(rule.name.clone(), rule)].into();
        let state = State { schemas, topics, ..State::default() };
        let exported = document(&state, "t", 1, &[]);
        let (mut again, remarks) = super::state(&exported).unwrap();
        // Avro is written anew, with another end of its last line.
        let avro = again.schemas.get_mut("avro").unwrap();
        avro.text = avro.text.trim().to_owned();
        assert_eq!((again, remarks), (state, vec![]));
    }

    #[test]
    fn a_document_of_others_becomes_rules_and_subjects() {
        let (state, remarks) = super::state(&json!({
            "asyncapi": "3.0.0", "info": {"title": "t", "version": "1"},
            "channels": {
                "userSignedUp": {"address": "user/{id}/signedup", "messages": {"up": {"$ref": "#/components/messages/Up"}}},
                "both": {"address": "both-{x}/a", "messages": {"up": {"$ref": "#/components/messages/Up"},
                    "down": {"payload": {"type": "string"}}}},
                "unknown": {"address": null},
            },
            "operations": {"onUp": {"action": "receive", "channel": {"$ref": "#/channels/userSignedUp"}}},
            "components": {
                "messages": {"Up": {"payload": {"$ref": "#/components/schemas/User"}}},
                "schemas": {"User": {"type": "object", "properties": {"at": {"$ref": "#/components/schemas/Time"}}},
                    "Time": {"type": "string"}},
            },
        }))
        .unwrap();
        let rule = &state.topics["usersignedup"];
        assert_eq!(
            (rule.pattern.as_str(), rule.schema.clone()),
            ("user/*/signedup", Some(rule_of("User".parse().unwrap())))
        );
        assert_eq!(state.topics.len(), 1);
        assert!(state.schemas["User"].text.contains("#/$defs/Time") && state.schemas.contains_key("down"));
        for part in ["has 2 messages", "part of a level", "no address", "operations are not taken"] {
            assert!(remarks.iter().any(|remark| remark.contains(part)), "{part} is missing in {remarks:?}");
        }
    }

    #[test]
    fn a_message_whose_key_is_escaped_in_a_reference_is_one_subject() {
        let (state, remarks) = super::state(&json!({
            "asyncapi": "3.0.0",
            "channels": {"orders": {"address": "orders", "messages": {
                "order": {"$ref": "#/components/messages/acme~1Order"},
                "again": {"$ref": "#/components/messages/acme~1%7E1"},
            }}},
            "components": {"messages": {
                "acme/Order": {"payload": {"type": "object"}},
                "acme//": {"payload": {"$ref": "#/components/schemas/~0%C3%A4~1b"}},
            }, "schemas": {"~ä/b": {"type": "string"}}},
        }))
        .unwrap();
        let subjects: Vec<_> = state.schemas.keys().map(SubjectName::as_str).collect();
        assert_eq!(subjects, ["acme/Order", "~ä/b"], "{remarks:?}");
    }

    #[test]
    fn what_cannot_be_taken_is_refused_with_all_reasons() {
        let of = |document: Value| super::state(&document).unwrap_err().join("; ");
        assert!(of(json!({"asyncapi": "2.6.0"})).contains("asyncapi convert"));
        assert!(of(json!({})).contains("no AsyncAPI document"));
        let told = of(json!({"asyncapi": "3.0.0", "channels": {
            "a": {"address": "a", "messages": {"m": {"payload": {"schemaFormat": "application/raml+yaml", "schema": "x"}}}},
            "b": {"address": "a//b", "messages": {"n": {"payload": {"$ref": "http://127.0.0.1/x"}}}},
            "c": {"address": "a//b"},
        }}));
        for part in
            ["channel a: schemas in `application/raml+yaml`", "channel b: ", "out of the document", "channel c: "]
        {
            assert!(told.contains(part), "{part} is missing in {told}");
        }
    }
}
