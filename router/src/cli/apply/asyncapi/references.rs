//! References inside a document (`#/...`, RFC 6901). Nothing outside of it is ever read.

use serde_json::{Map, Value};
use std::borrow::Cow;
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
pub(super) fn follow<'a>(document: &'a Value, value: &'a Value) -> Result<(&'a Value, Option<String>), String> {
    let (mut value, mut name) = (value, None);
    for _ in 0..HOPS_MAX {
        let Some(reference) = value["$ref"].as_str() else { return Ok((value, name)) };
        value = target(document, reference)?;
        name = Some(key(reference));
    }
    Err(format!("more than {HOPS_MAX} references lead to references, the last to {}", name.unwrap_or_default()))
}

fn target<'a>(document: &'a Value, reference: &str) -> Result<&'a Value, String> {
    let Some(pointer) = reference.strip_prefix('#') else {
        return Err(format!("`{reference}` leads out of the document; bundle it, for example with `asyncapi bundle`"));
    };
    document
        .pointer(&decoded(pointer))
        .or_else(|| document.pointer(pointer))
        .ok_or_else(|| format!("`{reference}` leads nowhere"))
}

/// A pointer in a fragment of a URI has what does not fit there as `%` and two digits (RFC 6901, section 6). What is no such
/// number, or would be no text, stays as it is: then it is a key of the document, or leads nowhere.
fn decoded(pointer: &str) -> Cow<'_, str> {
    if !pointer.contains('%') {
        return pointer.into();
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(pointer.len()), pointer.as_bytes());
    while let [first, after @ ..] = rest {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match after {
            [high, low, after @ ..] if *first == b'%' => match digit(high).zip(digit(low)) {
                Some((high, low)) => {
                    bytes.push(high * 16 + low);
                    rest = after;
                }
                None => return pointer.into(),
            },
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_or(pointer.into(), Cow::Owned)
}

/// The key that a reference ends with.
fn key(reference: &str) -> String {
    let pointer = decoded(reference);
    let last = pointer.rsplit('/').next().unwrap_or_default();
    last.replace("~1", "/").replace("~0", "~")
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
        let key = key(reference);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let plain: String = key.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
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

    /// A key as a part of a reference.
    fn escaped(key: &str) -> String {
        key.replace('~', "~0").replace('/', "~1").replace('%', "%25").replace(' ', "%20")
    }

    #[test]
    fn keys_are_escaped_in_references_and_found_by_them() {
        for key in ["acme/Order", "a~1b", "~", "10% off", "Größe", "a b", "%2F", "100%"] {
            let document = json!({"components": {"schemas": {key: {"type": "object"}}}});
            let reference = json!({"$ref": format!("#/components/schemas/{}", escaped(key))});
            let (found, name) = follow(&document, &reference).unwrap();
            assert_eq!((found, name.as_deref()), (&json!({"type": "object"}), Some(key)));
        }
        let document = json!({"Größe": 1, "100%": 2});
        for (reference, found) in [("#/Gr%C3%B6%c3%9fe", 1), ("#/100%", 2), ("#/100%25", 2)] {
            assert_eq!(follow(&document, &json!({"$ref": reference})).unwrap().0, &json!(found), "{reference}");
        }
        assert!(follow(&document, &json!({"$ref": "#/%ff%zz"})).unwrap_err().contains("leads nowhere"));
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
