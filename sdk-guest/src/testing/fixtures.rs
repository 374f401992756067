//! Folder cases: `fixtures/*.jsonl`, the same lines that travel in the component as its self-test.

use super::{EmittedEvent, Harness, Observed, OwnedEvent};
use crate::Filter;
use myelin_arena::{Attrs, Kind, attrs};
use serde_json::{Map, Value};
use std::path::Path;

/// What [`run_fixtures`] ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixtureReport {
    /// How many files.
    pub files: usize,
    /// How many events.
    pub events: usize,
    /// How many of them say what they expect.
    pub expectations: usize,
}

/// Runs every line of `DIRECTORY/*.jsonl` and holds each verdict against the line's `expect`.
///
/// A line is an object with `topic` and, where wanted, `headers`, `type`, `key`, `identity`, `payload` (a string is taken
/// as the payload's bytes, anything else is written as JSON) and `expect` with `verdict` (`allow`, `deny`,
/// `dead-letter`, `drop`, `redirect`, `add`) and, where wanted, `reason`, `routes`, `payload`, `headers` (of the event
/// after the filter; `null` for one that must not be there), `detail` and `emitted` (all events beside it, each with
/// `topic` and, where wanted, `headers` and `payload`). A line `{"config": ..}` makes a new filter with this
/// configuration for what follows; each file begins without one.
///
/// # Panics
/// At the first line that is malformed or whose verdict differs, with file, line and both values; and where there is
/// no fixture at all.
pub fn run_fixtures<F: Filter>(directory: impl AsRef<Path>) -> FixtureReport {
    let directory = directory.as_ref();
    let listing = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = listing.map(|entry| entry.expect("the directory can be read").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|it| it == "jsonl")).collect();
    paths.sort();
    let mut report = FixtureReport { files: paths.len(), events: 0, expectations: 0 };
    for path in &paths {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        run_file::<F>(&text, &path.display().to_string(), &mut report);
    }
    assert!(report.events > 0, "{} holds no fixtures (*.jsonl)", directory.display());
    report
}

fn run_file<F: Filter>(text: &str, name: &str, report: &mut FixtureReport) {
    let mut harness = None;
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{name}:{number}");
        let line: Map<String, Value> = serde_json::from_str(line).unwrap_or_else(|error| panic!("{place}: {error}"));
        if let Some(config) = line.get("config") {
            harness = Some(make::<F>(config, &place));
            continue;
        }
        let harness = harness.get_or_insert_with(|| make::<F>(&Value::Null, &place));
        let event = event(&line, &place);
        let own = event.attrs.as_bytes().to_vec();
        let observed = harness.batch(vec![event]).remove(0);
        report.events += 1;
        if let Some(expect) = line.get("expect") {
            report.expectations += 1;
            compare(expect, &observed, &own, &place);
        }
    }
}

fn make<F: Filter>(config: &Value, place: &str) -> Harness<F> {
    let config = if config.is_null() { String::new() } else { config.to_string() };
    Harness::new(config).unwrap_or_else(|error| panic!("{place}: the configuration was refused: {error}"))
}

/// Makes the event of one line.
fn event(line: &Map<String, Value>, place: &str) -> OwnedEvent {
    const KEYS: [&str; 7] = ["topic", "headers", "type", "key", "identity", "payload", "expect"];
    if let Some(unknown) = line.keys().find(|key| !KEYS.contains(&key.as_str())) {
        panic!("{place}: `{unknown}` is not known; a line has {}", KEYS.join(", "));
    }
    let text =
        |key: &str| line.get(key).map(|value| value.as_str().unwrap_or_else(|| panic!("{place}: `{key}`: text")));
    let mut event = OwnedEvent {
        topic: text("topic").unwrap_or_else(|| panic!("{place}: `topic` is missing")).to_owned(),
        identity: text("identity").unwrap_or_default().to_owned(),
        payload: line.get("payload").map(payload_bytes).unwrap_or_default(),
        ..OwnedEvent::default()
    };
    for (key, tag) in [("type", attrs::TYPE), ("key", attrs::KEY)] {
        if let Some(value) = text(key) {
            event.attrs.own(tag, value.as_bytes());
        }
    }
    for (name, value) in line.get("headers").and_then(Value::as_object).into_iter().flatten() {
        event.attrs.header(name, value.as_str().unwrap_or_else(|| panic!("{place}: header `{name}` is not text")));
    }
    event
}

/// A string is the payload itself; anything else stands for its JSON.
fn payload_bytes(value: &Value) -> Vec<u8> {
    value.as_str().map_or_else(|| value.to_string().into_bytes(), |text| text.as_bytes().to_vec())
}

/// Holds what was observed against what is expected; `own` are the attributes that the event came with.
fn compare(expect: &Value, observed: &Observed, own: &[u8], place: &str) {
    let Value::Object(expect) = expect else { panic!("{place}: `expect` is an object") };
    assert!(expect.contains_key("verdict"), "{place}: `expect` has no `verdict`");
    for (key, wanted) in expect {
        let same = match key.as_str() {
            "verdict" => wanted.as_str() == Some(kind_name(observed.kind)),
            "reason" => wanted.as_str() == observed.reason.as_deref(),
            "routes" => *wanted == Value::from(observed.routes.clone()),
            "payload" => observed.payload.as_deref().is_some_and(|payload| same_payload(wanted, payload)),
            "headers" => same_headers(wanted, observed.attrs.as_deref().unwrap_or(own), place),
            "detail" => wanted.as_str() == observed.detail.as_deref(),
            "emitted" => same_emitted(wanted, &observed.emitted, place),
            other => panic!(
                "{place}: `expect.{other}` is not known; write verdict, reason, routes, payload, headers, detail or emitted"
            ),
        };
        assert!(same, "{place}: expected {key} {wanted}, got {observed:?}");
    }
}

/// Whether these headers are as wanted: a text, or `null` for one that must not be there. Others may be.
fn same_headers(wanted: &Value, block: &[u8], place: &str) -> bool {
    let Value::Object(wanted) = wanted else { panic!("{place}: `headers` is an object") };
    wanted.iter().all(|(name, value)| match value {
        Value::Null => Attrs::new(block).header(name).is_none(),
        value => {
            let text = value.as_str().unwrap_or_else(|| panic!("{place}: header `{name}` is neither text nor null"));
            Attrs::new(block).header(name) == Some(text)
        }
    })
}

/// Whether exactly these events are emitted, in this order; of each its topic and, where given, headers and payload.
fn same_emitted(wanted: &Value, emitted: &[EmittedEvent], place: &str) -> bool {
    let Value::Array(wanted) = wanted else { panic!("{place}: `emitted` is a list") };
    let same = |wanted: &Value, event: &EmittedEvent| {
        let Value::Object(wanted) = wanted else { panic!("{place}: `emitted` is a list of objects") };
        assert!(wanted.contains_key("topic"), "{place}: an emitted event has no `topic`");
        wanted.iter().all(|(key, wanted)| match key.as_str() {
            "topic" => wanted.as_str() == Some(&event.topic),
            "headers" => same_headers(wanted, &event.attrs, place),
            "payload" => same_payload(wanted, &event.payload),
            other => panic!("{place}: `emitted.{other}` is not known; write topic, headers or payload"),
        })
    };
    wanted.len() == emitted.len() && wanted.iter().zip(emitted).all(|(wanted, event)| same(wanted, event))
}

/// Compares text byte for byte and anything else as JSON, whatever its spacing and order.
fn same_payload(wanted: &Value, payload: &[u8]) -> bool {
    match wanted {
        Value::String(text) => text.as_bytes() == payload,
        wanted => serde_json::from_slice::<Value>(payload).is_ok_and(|payload| payload == *wanted),
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Allow => "allow",
        Kind::Deny => "deny",
        Kind::DeadLetter => "dead-letter",
        Kind::Drop => "drop",
        Kind::Redirect => "redirect",
        Kind::Add => "add",
    }
}
