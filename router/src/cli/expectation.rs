//! What a fixture may expect beside what a router's self-test looks at: headers, detail, emitted events.
//!
//! The author's tools hold a filter to all of it. In the component travels only what every router knows, so that a
//! router that is older than the tools takes it in.

use anyhow::{Context, Result};
use myelin_arena::{Attrs, attrs};
use myelin_engine::{Decision, EmittedEvent, TestVector, Unmet};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Keys of `expect` that a router's self-test does not know.
const FURTHER_KEYS: [&str; 3] = ["headers", "detail", "emitted"];

/// The further expectations of one fixture; what is left out may be anything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Further {
    /// Headers of the event after the filter; `null` for one that must not be there. Others may be.
    #[serde(default)]
    headers: Option<BTreeMap<String, Option<String>>>,
    /// The text that explains the verdict.
    #[serde(default)]
    detail: Option<String>,
    /// All events that are emitted beside it, in order.
    #[serde(default)]
    emitted: Option<Vec<Emitted>>,
}

/// An event that ought to be emitted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Emitted {
    topic: String,
    /// Headers that it carries, as those of [`Further`].
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    /// Its payload; any where it is left out.
    #[serde(default)]
    payload: Option<Value>,
}

/// What is looked at in a line.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default, borrow)]
    expect: Option<&'a RawValue>,
}

/// A line as a router's self-test knows it, and what it expects beside that. Everything else stays to the byte.
///
/// # Errors
/// What of the expectation is not as it must be.
pub(super) fn split(line: &str) -> Result<(Cow<'_, str>, Further)> {
    // What is no event, or no object, is told by whoever reads the rest.
    let Ok(Line { expect: Some(expect) }) = serde_json::from_str(line) else {
        return Ok((Cow::Borrowed(line), Further::default()));
    };
    let Ok(members) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(expect.get()) else {
        return Ok((Cow::Borrowed(line), Further::default()));
    };
    if !members.keys().any(|key| FURTHER_KEYS.contains(&key.as_ref())) {
        return Ok((Cow::Borrowed(line), Further::default()));
    }
    let further = serde_json::from_str(expect.get()).context("`expect`")?;
    let known = members.iter().filter(|(key, _)| !FURTHER_KEYS.contains(&key.as_ref()));
    let known: Vec<_> = known.map(|(key, value)| format!("{}:{value}", Value::from(key.as_ref()))).collect();
    let (before, after) = line.split_once(expect.get()).context("`expect` stands in its line")?;
    Ok((Cow::Owned(format!("{before}{{{}}}{after}", known.join(","))), further))
}

impl Further {
    /// Whether something is expected under this key.
    pub(super) fn has(&self, key: &str) -> bool {
        match key {
            "headers" => self.headers.is_some(),
            "detail" => self.detail.is_some(),
            "emitted" => self.emitted.is_some(),
            _ => false,
        }
    }

    /// Everything in which `decision` on the event of `vector` is not as expected.
    pub(super) fn unmet(&self, decision: &Decision, vector: &TestVector) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        if let Some(expected) = &self.headers {
            let block = decision.attrs.as_ref().unwrap_or(&vector.attrs);
            unmet.extend(unmet_headers("headers", expected, block));
        }
        if let Some(expected) = &self.detail {
            let found = decision.detail.as_deref();
            if found != Some(expected) {
                let found = found.map_or_else(|| "none".to_owned(), |found| format!("`{found}`"));
                unmet.push(Unmet { field: "detail", expected: format!("the detail `{expected}`"), found });
            }
        }
        if let Some(expected) = &self.emitted {
            let (wanted, found) = (expected.len(), decision.emitted.len());
            if wanted != found {
                let expected = format!("{wanted} emitted events");
                unmet.push(Unmet { field: "emitted", expected, found: found.to_string() });
            }
            unmet.extend(expected.iter().zip(&decision.emitted).flat_map(|(expected, found)| expected.unmet(found)));
        }
        unmet
    }
}

impl Emitted {
    fn unmet(&self, found: &EmittedEvent) -> Vec<Unmet> {
        const FIELD: &str = "emitted";
        if self.topic != found.topic {
            let expected = format!("an emitted event of `{}`", self.topic);
            return vec![Unmet { field: FIELD, expected, found: format!("one of `{}`", found.topic) }];
        }
        let mut unmet: Vec<_> = unmet_headers(FIELD, &self.headers, &found.attrs).collect();
        if let Some(expected) = &self.payload
            && !is_payload(expected, &found.payload)
        {
            let expected = format!("`{}` emitted with the payload {expected}", self.topic);
            unmet.push(Unmet { field: FIELD, expected, found: String::from_utf8_lossy(&found.payload).into_owned() });
        }
        unmet
    }
}

/// The headers of `block` that are not as expected.
fn unmet_headers(
    field: &'static str,
    expected: &BTreeMap<String, Option<String>>,
    block: &[u8],
) -> impl Iterator<Item = Unmet> {
    let named = |value: Option<&str>| value.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
    let found = move |name: &str| Attrs::new(block).header(name);
    expected.iter().filter(move |(name, value)| found(name) != value.as_deref()).map(move |(name, value)| Unmet {
        field,
        expected: format!("the header {name} {}", named(value.as_deref())),
        found: named(found(name)),
    })
}

/// Text is compared byte for byte, anything else as JSON, as the payload of the event itself is.
fn is_payload(expected: &Value, payload: &[u8]) -> bool {
    match expected {
        Value::String(text) => text.as_bytes() == payload,
        expected => serde_json::from_slice::<Value>(payload).is_ok_and(|payload| payload == *expected),
    }
}

/// A payload as a fixture has it: as JSON where it is that, so that people can read it; as text otherwise, and where
/// `as_text` says so. None where it is no text.
pub(super) fn payload_value(payload: &[u8], as_text: bool) -> Option<Value> {
    let text = std::str::from_utf8(payload).ok()?;
    let document = serde_json::from_str::<Value>(text).ok().filter(|value| !value.is_string() && !as_text);
    Some(document.unwrap_or_else(|| text.into()))
}

/// The further keys of an expectation that `decision` on the event of `vector` meets; what is not given is not expected.
pub(super) fn further_keys(decision: &Decision, vector: &TestVector) -> Vec<(&'static str, Value)> {
    let mut keys = Vec::new();
    if let Some(block) = &decision.attrs {
        let mut after = headers(block);
        // What was taken away is seen by its absence only.
        for name in headers(&vector.attrs).keys() {
            after.entry(name.clone()).or_insert(Value::Null);
        }
        keys.push(("headers", after.into()));
    }
    if let Some(detail) = &decision.detail {
        keys.push(("detail", detail.as_str().into()));
    }
    // Also none: an expectation of some is to be written anew when there are none any more.
    keys.push(("emitted", decision.emitted.iter().map(emitted_value).collect()));
    keys
}

fn emitted_value(event: &EmittedEvent) -> Value {
    let mut value = json!({ "topic": event.topic });
    let headers = headers(&event.attrs);
    if !headers.is_empty() {
        value["headers"] = headers.into();
    }
    if let Some(payload) = payload_value(&event.payload, false) {
        value["payload"] = payload;
    }
    value
}

/// The headers that are text, by name.
fn headers(block: &[u8]) -> Map<String, Value> {
    let headers = Attrs::new(block).iter().filter(|attr| attr.tag == attrs::HEADER);
    headers.filter_map(|attr| Some((attr.name.to_owned(), std::str::from_utf8(attr.value).ok()?.into()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_arena::AttrsBuilder;
    use myelin_engine::ExpectedKind;

    fn block(headers: &[(&str, &str)]) -> Vec<u8> {
        let mut block = AttrsBuilder::new();
        for (name, value) in headers {
            block.header(name, value);
        }
        block.into_bytes()
    }

    fn decision() -> Decision {
        let emitted =
            EmittedEvent { topic: "audit/a".into(), attrs: block(&[("x-by", "me")]), payload: b"{\"n\": 1}".to_vec() };
        Decision {
            verdict: ExpectedKind::Allow,
            reason: None,
            routes: Vec::new(),
            payload: None,
            attrs: Some(block(&[("x-new", "1")])),
            detail: Some("because".into()),
            emitted: vec![emitted],
        }
    }

    fn vector() -> TestVector {
        let line = "{\"topic\":\"a\",\"headers\":{\"x-old\":\"0\"}}";
        myelin_engine::parse_vectors(line.as_bytes(), &myelin_engine::ModuleLimits::default())
            .expect("a vector")
            .remove(0)
    }

    fn unmet(further: &Value, decision: &Decision) -> Vec<(&'static str, String, String)> {
        let line = json!({ "topic": "a", "expect": further }).to_string();
        let unmet = split(&line).expect("an expectation").1.unmet(decision, &vector());
        unmet.into_iter().map(|unmet| (unmet.field, unmet.expected, unmet.found)).collect()
    }

    #[test]
    fn a_router_gets_what_it_knows_and_the_rest_of_the_line_stays_to_the_byte() {
        let line = "{\"payload\": [1.0,  2],\"expect\": {\"verdict\": \"allow\", \"detail\":\"d\", \"emitted\":[]} ,\"topic\":\"a\"}";
        let (known, further) = split(line).expect("a line");
        assert_eq!(known, "{\"payload\": [1.0,  2],\"expect\": {\"verdict\":\"allow\"} ,\"topic\":\"a\"}");
        assert_eq!((further.detail.as_deref(), further.emitted), (Some("d"), Some(Vec::new())));
        for plain in ["{\"topic\":\"a\",\"expect\":{\"verdict\" : \"deny\"}}", "{\"config\":{}}", "{\"expect\":1}", "{"]
        {
            let (known, further) = split(plain).expect("a line");
            assert!(matches!(known, Cow::Borrowed(_)) && known == plain && further == Further::default(), "{plain}");
        }
        for bad in [
            "{\"detail\":1}",
            "{\"headers\":{\"a\":1}}",
            "{\"emitted\":[{\"topic\":\"a\",\"tpye\":1}]}",
            "{\"emitted\":[{}]}",
        ] {
            assert!(split(&format!("{{\"topic\":\"a\",\"expect\":{bad}}}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_met_is_silent_and_what_is_not_is_told() {
        let met = json!({
            "headers": { "x-new": "1", "x-old": null },
            "detail": "because",
            "emitted": [{ "topic": "audit/a", "headers": { "x-by": "me" }, "payload": { "n": 1 } }],
        });
        assert_eq!(unmet(&met, &decision()), []);
        assert_eq!(unmet(&json!({ "emitted": [{ "topic": "audit/a" }] }), &decision()), [], "the rest may be anything");
        let told = |further: Value| {
            let all = unmet(&further, &decision());
            assert_eq!(all.len(), 1, "{further}: {all:?}");
            format!("{}: {}, found {}", all[0].0, all[0].1, all[0].2)
        };
        assert_eq!(told(json!({ "headers": { "x-new": "2" } })), "headers: the header x-new `2`, found `1`");
        assert_eq!(told(json!({ "headers": { "x-new": null } })), "headers: the header x-new none, found `1`");
        assert_eq!(told(json!({ "headers": { "x-old": "0" } })), "headers: the header x-old `0`, found none");
        assert_eq!(told(json!({ "detail": "why" })), "detail: the detail `why`, found `because`");
        assert_eq!(told(json!({ "emitted": [] })), "emitted: 0 emitted events, found 1");
        assert_eq!(
            told(json!({ "emitted": [{ "topic": "b" }] })),
            "emitted: an emitted event of `b`, found one of `audit/a`"
        );
        let payload = told(json!({ "emitted": [{ "topic": "audit/a", "payload": "x" }] }));
        assert_eq!(payload, "emitted: `audit/a` emitted with the payload \"x\", found {\"n\": 1}");
    }

    #[test]
    fn the_event_keeps_its_own_headers_where_the_filter_leaves_them() {
        let silent = Decision { attrs: None, detail: None, emitted: Vec::new(), ..decision() };
        assert_eq!(unmet(&json!({ "headers": { "x-old": "0" }, "emitted": [] }), &silent), []);
        assert_eq!(unmet(&json!({ "detail": "because" }), &silent)[0].2, "none");
        assert_eq!(further_keys(&silent, &vector()), [("emitted", json!([]))]);
    }

    #[test]
    fn what_is_written_is_met() {
        let written: Map<String, Value> =
            further_keys(&decision(), &vector()).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let expected = json!({
            "headers": { "x-new": "1", "x-old": null },
            "detail": "because",
            "emitted": [{ "topic": "audit/a", "headers": { "x-by": "me" }, "payload": { "n": 1 } }],
        });
        assert_eq!(Value::from(written.clone()), expected);
        assert_eq!(unmet(&written.into(), &decision()), []);
    }
}
