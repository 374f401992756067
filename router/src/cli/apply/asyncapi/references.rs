//! References inside a document (`#/...`, RFC 6901). Nothing outside of it is ever read.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// References that lead to references.
const HOPS_MAX: usize = 16;
/// Schemas that one schema may refer to, directly or not.
const BUNDLED_MAX: usize = 1_000;
/// What is inside each other in a schema; JSON that is deeper was not read.
const DEFINITIONS: &str = "$defs";

/// What a value is, references followed; with the last part of the last reference, which is its name.
///
/// # Errors
/// Where a reference leads nowhere, or out of the document.
pub(super) fn follow<'a>(document: &'a Value, value: &'a Value) -> Result<(&'a Value, Option<&'a str>), String> {
    let (mut value, mut name) = (value, None);
    for _ in 0..HOPS_MAX {
        let Some(reference) = value["$ref"].as_str() else { return Ok((value, name)) };
        value = target(document, reference)?;
        name = reference.rsplit('/').next();
    }
    Err(format!("more than {HOPS_MAX} references lead to references, the last to {}", name.unwrap_or_default()))
}

fn target<'a>(document: &'a Value, reference: &str) -> Result<&'a Value, String> {
    let Some(pointer) = reference.strip_prefix('#') else {
        return Err(format!("`{reference}` leads out of the document; bundle it, for example with `asyncapi bundle`"));
    };
    document.pointer(pointer).ok_or_else(|| format!("`{reference}` leads nowhere"))
}

/// A JSON schema with all that it refers to in the document, so that it stands by itself.
///
/// # Errors
/// See [`follow`].
pub(super) fn bundle(document: &Value, schema: &Value) -> Result<Value, String> {
    let mut bundle = Bundle { document, names: BTreeMap::new(), waiting: Vec::new() };
    let mut whole = bundle.rewritten(schema)?;
    let mut definitions = Map::new();
    while let Some((name, reference)) = bundle.waiting.pop() {
        let found = bundle.rewritten(target(document, &reference)?)?;
        definitions.insert(name, found);
    }
    if definitions.is_empty() {
        return Ok(whole);
    }
    definitions.sort_keys();
    let Some(fields) = whole.as_object_mut() else { return Ok(whole) };
    // A reference beside other words replaces them in older drafts: not at the top, where the definitions are.
    if let Some(reference) = fields.remove("$ref") {
        fields.insert("allOf".to_owned(), serde_json::json!([{"$ref": reference}]));
    }
    let known = fields.entry(DEFINITIONS).or_insert_with(|| Map::new().into());
    if let Some(known) = known.as_object_mut() {
        known.extend(definitions);
    }
    Ok(whole)
}

struct Bundle<'a> {
    document: &'a Value,
    /// What each reference into the document is called among the definitions.
    names: BTreeMap<String, String>,
    /// What is still to be added to them.
    waiting: Vec<(String, String)>,
}

impl Bundle<'_> {
    fn rewritten(&mut self, value: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::Array(values) => values.iter().map(|value| self.rewritten(value)).collect::<Result<_, _>>()?,
            Value::Object(fields) => {
                let rewrite = |(name, value): (&String, &Value)| {
                    let value = match value.as_str().filter(|_| name == "$ref") {
                        Some(reference) => self.definition(reference)?.into(),
                        None => self.rewritten(value)?,
                    };
                    Ok((name.clone(), value))
                };
                fields.iter().map(rewrite).collect::<Result<Map<_, _>, String>>()?.into()
            }
            other => other.clone(),
        })
    }

    /// What a reference is among the definitions.
    fn definition(&mut self, reference: &str) -> Result<String, String> {
        target(self.document, reference)?;
        if let Some(known) = self.names.get(reference) {
            return Ok(format!("#/{DEFINITIONS}/{known}"));
        }
        if self.names.len() >= BUNDLED_MAX {
            return Err(format!("a schema refers to more than {BUNDLED_MAX} others"));
        }
        let plain = reference.rsplit('/').next().unwrap_or("definition");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let plain: String = plain.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        let is_taken = self.names.values().any(|known| *known == plain);
        let name = if is_taken { format!("{plain}_{}", self.names.len()) } else { plain };
        self.names.insert(reference.to_owned(), name.clone());
        self.waiting.push((name.clone(), reference.to_owned()));
        Ok(format!("#/{DEFINITIONS}/{name}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_is_bundled_with_what_it_refers_to_even_in_a_circle() {
        let document = json!({"components": {"schemas": {
            "Order": {"type": "object", "properties": {"price": {"$ref": "#/components/schemas/Money"}}},
            "Money": {"type": "object", "properties": {"of": {"$ref": "#/components/schemas/Order"}}},
        }}});
        let bundled = bundle(&document, &document["components"]["schemas"]["Order"]).unwrap();
        assert_eq!(bundled["properties"]["price"]["$ref"], "#/$defs/Money");
        assert_eq!(bundled["$defs"]["Money"]["properties"]["of"]["$ref"], "#/$defs/Order");
        assert!(bundled["$defs"]["Order"].is_object());
    }

    #[test]
    fn nothing_outside_is_read() {
        let document = json!({"a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}, "c": {"$ref": "file:///etc/passwd"}});
        assert!(follow(&document, &document["a"]).unwrap_err().contains("more than"));
        assert!(follow(&document, &document["c"]).unwrap_err().contains("leads out of the document"));
        assert!(follow(&document, &json!({"$ref": "#/none"})).unwrap_err().contains("leads nowhere"));
        assert!(bundle(&document, &json!({"items": {"$ref": "http://127.0.0.1/x"}})).is_err());
    }
}
