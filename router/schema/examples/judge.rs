//! Judges for tests in other languages: a request in JSON on each line of the input, its answer on a line of the output.
//!
//! `{"format": "AVRO", "newer": TEXT, "older": TEXT}` is answered by `{"reasons": [..]}`: why `newer` does not read what
//! `older` describes; with a list of versions, newest first, and a `"level"` of compatibility, by what it owes to them.
//! `{"format": "JSON", "schema": TEXT, "references": {NAME: TEXT}, "payloads": [TEXT]}` by
//! `{"valid": [true]}`. Either by `{"error": CODE, "message": TEXT}`.

use myelin_schema::{Compatibility, Format, ReferenceText, SchemaError, Source, Validator, incompatibilities};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};

/// The version before, or all of them, newest first.
#[derive(Deserialize)]
#[serde(untagged)]
enum Older {
    One(String),
    All(Vec<String>),
}

impl Older {
    fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::All(texts) => texts,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Request {
    Compare {
        format: Format,
        #[serde(default)]
        level: Compatibility,
        newer: String,
        older: Older,
    },
    Judge {
        format: Format,
        schema: String,
        #[serde(default)]
        references: BTreeMap<String, String>,
        payloads: Vec<String>,
    },
}

fn answer(request: &Request) -> Result<Value, SchemaError> {
    match request {
        Request::Compare { format, level, newer, older } => {
            let source = |text| Source { format: *format, text, references: &[] };
            let older: Vec<_> = older.texts().iter().map(|text| source(text)).collect();
            let reasons = incompatibilities(*level, &source(newer), &older)?;
            Ok(json!({"reasons": reasons}))
        }
        Request::Judge { format, schema, references, payloads } => {
            let references: Vec<_> =
                references.iter().map(|(name, text)| ReferenceText { name, text: text.as_str() }).collect();
            let validator = Validator::compile(&Source { format: *format, text: schema, references: &references })?;
            let valid: Vec<bool> =
                payloads.iter().map(|payload| validator.validate(payload.as_bytes()).is_ok()).collect();
            Ok(json!({"valid": valid}))
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let answer = answer(&request);
        let answer = answer.unwrap_or_else(|error| json!({"error": error.code, "message": error.message}));
        writeln!(out, "{answer}")?;
    }
    Ok(())
}
