//! Test vectors that a module carries: events and what its filter ought to say about them.

use std::collections::BTreeMap;

use myelin_arena::{AttrsBuilder, attrs};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::ModuleLimits;

/// Name of the custom section with the vectors, JSON lines.
pub const VECTORS_SECTION: &str = "myelin:vectors";

/// One line of the section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Only on a line of its own: the configuration of the events after it.
    #[serde(default, deserialize_with = "given")]
    config: Option<Box<RawValue>>,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    identity: String,
    #[serde(default)]
    payload: Option<Box<RawValue>>,
    #[serde(default)]
    expect: Option<Expect>,
}

/// What was given, `null` included.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// What a filter ought to say about an event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The kind of verdict.
    pub verdict: ExpectedKind,
    /// The reason of a deny or a dead-letter; any where it is left out.
    #[serde(default)]
    pub reason: Option<String>,
    /// The routes as the filter declares them, in any order; any where they are left out.
    #[serde(default)]
    pub routes: Option<Vec<String>>,
    /// The payload after the filter; looked at by the SDK's own tests, not by the router's self-test.
    #[serde(default)]
    pub payload: Option<serde_json::Value>,
}

/// The kind of an expected verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpectedKind {
    /// It goes on.
    Allow,
    /// It is refused.
    Deny,
    /// It goes to the dead-letter topic.
    DeadLetter,
    /// It vanishes.
    Drop,
    /// It goes on under the routes only.
    Redirect,
    /// It goes on under its own topic and the routes.
    Add,
}

impl ExpectedKind {
    /// The name in the vectors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::DeadLetter => "dead-letter",
            Self::Drop => "drop",
            Self::Redirect => "redirect",
            Self::Add => "add",
        }
    }
}

/// A test event with what is expected of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestVector {
    /// The configuration that the filter is to be set up with, JSON; empty where none was given.
    pub config: Vec<u8>,
    /// Which instance judges it: each line with a configuration begins another, so that what a filter remembers does
    /// not reach further than its author sees.
    pub instance: usize,
    /// The topic.
    pub topic: String,
    /// The attribute block.
    pub attrs: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
    /// The publisher's identity.
    pub identity: String,
    /// What ought to be said; nothing but "no fault" where it is left out.
    pub expect: Option<Expect>,
}

/// Reads JSON lines. A payload that is a JSON string stands for its text, any other for its JSON.
///
/// # Errors
/// A sentence that names the line and what is wrong with it.
pub fn parse_vectors(lines: &[u8], limits: &ModuleLimits) -> Result<Vec<TestVector>, String> {
    if lines.len() > limits.vectors_bytes_max {
        return Err(format!("{} bytes: at most {} are allowed", lines.len(), limits.vectors_bytes_max));
    }
    let text = std::str::from_utf8(lines).map_err(|_| "it is not UTF-8".to_owned())?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (mut vectors, mut config, mut instance) = (Vec::new(), Vec::new(), 0);
    for (index, line) in lines {
        let fail = |what| format!("line {}: {what}", index + 1);
        let line: Line = serde_json::from_str(line).map_err(|e| fail(e.to_string()))?;
        if let Some(given) = &line.config {
            if !line.topic.is_empty() {
                return Err(fail("`config` stands on a line of its own, before its events".into()));
            }
            config = if given.get() == "null" { Vec::new() } else { given.get().into() };
            instance += 1;
            continue;
        }
        if vectors.len() == limits.vectors_max {
            return Err(format!("over {} lines", limits.vectors_max));
        }
        vectors.push(vector(line, &config, instance).map_err(fail)?);
    }
    Ok(vectors)
}

fn vector(line: Line, config: &[u8], instance: usize) -> Result<TestVector, String> {
    myelin_wire::validate_topic(&line.topic).map_err(|e| e.to_string())?;
    let mut block = AttrsBuilder::new();
    if let Some(kind) = &line.kind {
        block.own(attrs::TYPE, kind.as_bytes());
    }
    if let Some(key) = &line.key {
        block.own(attrs::KEY, key.as_bytes());
    }
    for (name, value) in &line.headers {
        block.header(name, value);
    }
    attrs::validate(block.as_bytes(), crate::limits::OUTPUT_HEADERS_MAX).map_err(|e| e.to_string())?;
    let payload = line.payload.map(|raw| {
        let text = serde_json::from_str::<String>(raw.get());
        text.unwrap_or_else(|_| raw.get().to_owned()).into_bytes()
    });
    Ok(TestVector {
        config: config.to_owned(),
        instance,
        topic: line.topic,
        attrs: block.into_bytes(),
        payload: payload.unwrap_or_default(),
        identity: line.identity,
        expect: line.expect,
    })
}

#[cfg(test)]
mod tests {
    use myelin_arena::Attrs;

    use super::*;

    fn parse(text: &str) -> Result<Vec<TestVector>, String> {
        parse_vectors(text.as_bytes(), &ModuleLimits { vectors_max: 3, ..ModuleLimits::default() })
    }

    #[test]
    fn a_line_becomes_an_event() {
        let line = r#"{"topic":"orders/eu","headers":{"x-tenant":"acme"},"type":"t","key":"k","identity":"me",
            "payload":{"a": 1},"expect":{"verdict":"dead-letter","reason":"r","routes":["topic:a"]}}"#;
        let vector = parse(&line.replace('\n', "")).expect("parsed").remove(0);
        assert_eq!((vector.topic.as_str(), vector.identity.as_str()), ("orders/eu", "me"));
        assert_eq!(vector.payload, br#"{"a": 1}"#);
        let attrs = Attrs::new(&vector.attrs);
        assert_eq!((attrs.header("x-tenant"), attrs.text(attrs::TYPE)), (Some("acme"), Some("t")));
        let expect = vector.expect.expect("expectation");
        assert_eq!((expect.verdict, expect.reason.as_deref()), (ExpectedKind::DeadLetter, Some("r")));
        assert_eq!(parse(r#"{"topic":"a","payload":"te\"xt"}"#).expect("text")[0].payload, b"te\"xt");
    }

    #[test]
    fn a_configuration_holds_for_the_events_after_it() {
        let lines =
            "{\"topic\":\"a\"}\n{\"config\":{\"k\":1}}\n{\"topic\":\"b\"}\n{\"config\":null}\n{\"topic\":\"c\"}";
        let vectors = parse(lines).expect("parsed");
        let configs: Vec<_> = vectors.iter().map(|vector| (vector.config.as_slice(), vector.instance)).collect();
        assert_eq!(configs, [(&b""[..], 0), (br#"{"k":1}"#, 1), (b"", 2)]);
        assert!(parse(r#"{"config":{},"topic":"a"}"#).expect_err("mixed").contains("line of its own"));
    }

    #[test]
    fn a_bad_line_is_named() {
        let refused = |text: &str| parse(text).expect_err("refused");
        assert!(refused("{\"topic\":\"a\"}\n\n{\"topic\":\"a/*\"}").starts_with("line 3:"));
        assert!(refused(r#"{"topic":"a","tpye":"t"}"#).contains("tpye"));
        assert!(refused(r#"{"topic":"a","expect":{"verdict":"maybe"}}"#).contains("maybe"));
        assert!(refused(&"{\"topic\":\"a\"}\n".repeat(4)).contains("over 3 lines"));
    }
}
