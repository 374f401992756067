//! What judging a payload by a schema costs, beside the bare library.

use crate::goals::{Better, Goal};
use anyhow::{Context, ensure};
use myelin_schema::{Format, Source, Validator};
use serde_json::{Value, json};
use std::hint::black_box;

/// Payloads in a round.
const PAYLOADS: usize = 20_000;
/// Bytes of the payload, about.
const PAYLOAD_BYTES: usize = 1_024;

/// A JSON event of 1 KiB, judged by a schema of the usual kind.
pub(crate) fn goals(
    time_ns: impl Fn(usize, &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64>,
) -> anyhow::Result<Vec<Goal>> {
    eprintln!("schemas ..");
    let (schema, payload) = (schema(), payload());
    ensure!(payload.len().abs_diff(PAYLOAD_BYTES) < 64, "the payload has {} bytes", payload.len());
    let text = schema.to_string();
    let ours = Validator::compile(&Source { format: Format::Json, text: &text, references: &[] })?;
    let bare = jsonschema::options().offline().build(&schema).ok().context("the schema")?;
    let ours_ns = time_ns(PAYLOADS, &mut || (0..PAYLOADS).try_for_each(|_| Ok(ours.validate(black_box(&payload))?)))?;
    let bare_ns = time_ns(PAYLOADS, &mut || {
        (0..PAYLOADS).try_for_each(|_| {
            let value: Value = serde_json::from_slice(black_box(&payload))?;
            ensure!(bare.is_valid(&value), "it is as the schema says");
            Ok(())
        })
    })?;
    let what =
        format!("a JSON event of 1 KiB by its schema ({ours_ns:.0} ns), beside the bare library ({bare_ns:.0} ns)");
    Ok(vec![Goal::new(what, ours_ns / bare_ns, (1.2, 1.05), Better::Lower)])
}

fn schema() -> Value {
    let item = json!({
        "type": "object",
        "properties": {
            "sku": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
            "count": {"type": "integer", "minimum": 1},
            "price": {"type": "number", "minimum": 0}
        },
        "required": ["sku", "count", "price"],
        "additionalProperties": false
    });
    json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "minLength": 8},
            "customer": {"type": "object", "properties": {"name": {"type": "string"}, "tier": {"enum": ["a", "b", "c"]}}},
            "items": {"type": "array", "items": item, "maxItems": 100},
            "note": {"type": ["string", "null"], "maxLength": 500}
        },
        "required": ["id", "items"]
    })
}

fn payload() -> Vec<u8> {
    let item = |number: u32| json!({"sku": format!("AB-{number:04}"), "count": number + 1, "price": 12.5});
    let items: Vec<Value> = (0..17).map(item).collect();
    let event = json!({
        "id": "0192f8a1-order", "customer": {"name": "Ada Lovelace", "tier": "b"}, "items": items,
        "note": "n".repeat(230)
    });
    event.to_string().into_bytes()
}
