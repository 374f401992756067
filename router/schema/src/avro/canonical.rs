//! Avro's canonical form, but with what readers need beside the encoding: defaults, aliases, logical types, properties.

use super::schema::Table;
use crate::error::SchemaError;
use crate::format::Source;
use crate::json::write_sorted;
use serde_json::{Map, Value};

const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
/// Attributes in the canonical form's order; all others follow, sorted.
const ORDER: [&str; 7] = ["name", "type", "fields", "symbols", "items", "values", "size"];

/// Full names, no documentation, attributes in a fixed order, no white space.
pub(crate) fn canonical(source: &Source<'_>) -> Result<String, SchemaError> {
    Table::read(source)?;
    let value: Value = match serde_json::from_str(source.text) {
        Ok(value) => value,
        Err(error) => return Err(SchemaError::malformed("Avro", error)),
    };
    let mut text = String::with_capacity(source.text.len());
    write(&normal(&value, ""), &mut text);
    Ok(text)
}

/// A schema in normal form, inside that namespace.
fn normal(schema: &Value, space: &str) -> Value {
    match schema {
        Value::String(name) if PRIMITIVES.contains(&name.as_str()) => schema.clone(),
        Value::String(name) => Value::String(full(name, space)),
        Value::Array(branches) => branches.iter().map(|branch| normal(branch, space)).collect(),
        Value::Object(attributes) => normal_object(attributes, space),
        other => other.clone(),
    }
}

fn normal_object(attributes: &Map<String, Value>, space: &str) -> Value {
    let text = |key: &str| attributes.get(key).and_then(Value::as_str);
    let mut normalized = attributes.clone();
    normalized.remove("doc");
    let mut inner = space.to_owned();
    if let Some(name) = text("name") {
        let own = text("namespace").unwrap_or(space);
        let name = full(name, own);
        inner = name.rsplit_once('.').map_or("", |(space, _)| space).to_owned();
        normalized.insert("name".to_owned(), name.into());
        normalized.remove("namespace");
        if let Some(aliases) = attributes.get("aliases").and_then(Value::as_array) {
            let aliases = aliases.iter().filter_map(Value::as_str).map(|alias| Value::from(full(alias, &inner)));
            normalized.insert("aliases".to_owned(), aliases.collect());
        }
    }
    for key in ["items", "values"] {
        if let Some(schema) = attributes.get(key) {
            normalized.insert(key.to_owned(), normal(schema, &inner));
        }
    }
    if let Some(Value::Array(fields)) = attributes.get("fields") {
        let fields =
            fields.iter().map(|field| field.as_object().map_or(Value::Null, |field| normal_field(field, &inner)));
        normalized.insert("fields".to_owned(), fields.collect());
    }
    // `{"type": "string"}` is `"string"`; a type inside a type is itself.
    let kind = attributes.get("type").map(|kind| match kind {
        Value::String(word) if ["record", "enum", "fixed", "array", "map", "error"].contains(&word.as_str()) => {
            kind.clone()
        }
        kind => normal(kind, &inner),
    });
    match kind {
        Some(kind) if normalized.len() == 1 => kind,
        Some(kind) => {
            normalized.insert("type".to_owned(), kind);
            Value::Object(normalized)
        }
        None => Value::Object(normalized),
    }
}

/// Fields' names have no namespace, and their types stand in that of the record.
fn normal_field(attributes: &Map<String, Value>, space: &str) -> Value {
    let mut normalized = attributes.clone();
    normalized.remove("doc");
    if let Some(kind) = attributes.get("type") {
        normalized.insert("type".to_owned(), normal(kind, space));
    }
    Value::Object(normalized)
}

fn full(name: &str, space: &str) -> String {
    let name = name.strip_prefix('.').unwrap_or(name);
    if name.contains('.') || space.is_empty() { name.to_owned() } else { format!("{space}.{name}") }
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                write(value, text);
            }
            text.push(']');
        }
        Value::Object(attributes) => {
            let place = |key: &str| ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len());
            let mut sorted: Vec<_> = attributes.iter().collect();
            sorted.sort_by_key(|(key, _)| (place(key), key.as_str()));
            text.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                write_sorted(&Value::from(key.as_str()), text);
                text.push(':');
                // What is not schema has no order of its own.
                if key == "default" { write_sorted(value, text) } else { write(value, text) }
            }
            text.push('}');
        }
        scalar => write_sorted(scalar, text),
    }
}
