//! Schemas that strangers upload, and payloads that strangers send.

use myelin_schema::limits::FAULT_TEXT_MAX;
use myelin_schema::{Compatibility, Format, ReferenceText, Source, Validator, canonical, incompatibilities};
use serde_json::Value;
use std::sync::LazyLock;

/// What an error says is for people, however long the text is that it is about.
const MESSAGE_BYTES_MAX: usize = 2_000;
/// Between the parts of an input: two schemas, or a schema and what it refers to.
const SEPARATOR: &str = "\n---\n";

/// A schema's text: the first byte is the format; two schemas are compared, a third is what both refer to as `other`.
pub(super) fn schema(data: &[u8]) {
    let Some((format, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let format = [Format::Json, Format::Avro, Format::Protobuf][usize::from(format % 3)];
    let mut parts = text.split(SEPARATOR);
    let (first, second, other) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let references: Vec<_> = other.into_iter().map(|text| ReferenceText { name: "other", text }).collect();
    let source = |text| Source { format, text, references: &references };
    let compiled = match Validator::compile(&source(first)) {
        Ok(compiled) => compiled,
        Err(error) => {
            assert!(error.message.len() <= MESSAGE_BYTES_MAX, "{} bytes of {}", error.message.len(), error.code);
            return;
        }
    };
    let normal = canonical(&source(first)).expect("what compiles has a canonical text");
    assert_eq!(canonical(&source(&normal)).as_ref(), Ok(&normal), "the canonical text is its own");
    Validator::compile(&source(&normal)).expect("the canonical text is a schema");
    assert_eq!(compiled.format(), format);
    if let Some(second) = second {
        let _ = incompatibilities(Compatibility::Full, &source(second), &[source(first)]);
    }
    let same = incompatibilities(Compatibility::Full, &source(&normal), &[source(first)]);
    assert!(same.as_ref().map_or(true, Vec::is_empty), "a schema reads what it writes: {same:?}");
}

/// Schemas with something of everything, by which payloads are judged.
static VALIDATORS: LazyLock<[Validator; 3]> = LazyLock::new(|| {
    let compile = |format, text| Validator::compile(&Source { format, text, references: &[] }).expect("our own");
    [
        compile(Format::Json, include_str!("schemas/tree.json")),
        compile(Format::Avro, include_str!("schemas/tree.avsc")),
        compile(Format::Protobuf, include_str!("schemas/tree.proto")),
    ]
});

/// A schema that every JSON is valid by: what it refuses is none.
static ANYTHING: LazyLock<Validator> = LazyLock::new(|| {
    Validator::compile(&Source { format: Format::Json, text: "true", references: &[] }).expect("our own")
});

/// A payload: the first byte is the format, the second the message of a Protobuf file.
pub(super) fn payload(data: &[u8]) {
    let [format, index, payload @ ..] = data else { return };
    let validator = &VALIDATORS[usize::from(format % 3)];
    let judged = validator.validate_message(&[u32::from(index % 3)], payload);
    assert_eq!(judged, validator.validate_message(&[u32::from(index % 3)], payload), "judged again");
    if let Err(fault) = judged {
        assert!(fault.path.len() <= FAULT_TEXT_MAX && fault.text.len() <= FAULT_TEXT_MAX, "{fault}");
        assert!(!fault.text.is_empty() && !fault.text.contains(char::is_control), "{fault}");
    }
    if validator.format() == Format::Json {
        let value = serde_json::from_slice::<Value>(payload).ok();
        // Of members of one name the library keeps the last, and the router none.
        let is_taken = value.as_ref().is_some_and(|value| members(value) == colons(payload));
        let judged = ANYTHING.validate(payload);
        assert_eq!(judged.is_ok(), is_taken, "ours and the library's reading of JSON differ: {judged:?}");
        let is_none = judged.is_err_and(|fault| fault.text.starts_with("is no JSON"));
        assert_eq!(is_none, value.is_none(), "what is JSON, and refused, is told so");
    }
}

/// The members of all objects in a value.
fn members(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(members).sum(),
        Value::Object(values) => values.len() + values.values().map(members).sum::<usize>(),
        _ => 0,
    }
}

/// The colons of a JSON text that are in none of its strings: one for each member.
fn colons(text: &[u8]) -> usize {
    let (mut count, mut is_string, mut is_escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_string,
            b'"' => is_string = !is_string,
            b':' if !is_string => count += 1,
            _ => {}
        }
    }
    count
}
