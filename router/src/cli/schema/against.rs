//! `myelin schema check --against`: which recorded events a schema would turn back.

use super::super::admin::Api;
use super::super::failure::{Exit, Failure, Result};
use super::super::http::Body;
use super::super::listing::{items, table, text};
use super::super::values::say;
use super::candidate::Candidate;
use super::path;
use crate::capture::{Recording, Side};
use crate::registry::judged_as;
use crate::screen::unprefixed;
use hyper::Method;
use myelin_catalog::SubjectName;
use myelin_schema::limits::REFERENCES_MAX;
use myelin_schema::{ReferenceText, Source, Validator};
use myelin_wire::Pattern;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What came of the events of one topic from one publisher.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    events: u64,
    turned_back: u64,
    /// The first reason.
    reason: String,
}

/// The events that were judged, by topic and publisher.
type Tallies = BTreeMap<(String, String), Tally>;

/// A rule that judges by the subject.
struct Ruled {
    pattern: Pattern,
    /// Whether payloads begin with Confluent's prefix.
    is_prefixed: bool,
}

/// Judges a capture's events by the candidate, and says whom it would turn back.
///
/// # Errors
/// When it would turn back any, with exit code 7.
pub(super) async fn judge(api: &Api, candidate: &Candidate, capture: &Path) -> Result<()> {
    let recording = super::super::replay::read(capture)?;
    let (schema, references) = (candidate.text()?, references(api, candidate).await?);
    let references: Vec<ReferenceText<'_>> =
        references.iter().map(|(name, text)| ReferenceText { name, text }).collect();
    let format = judged_as(candidate.format()?);
    let source = Source { format, text: &schema, references: &references };
    let validator = Validator::compile(&source).map_err(|error| {
        Failure::new(Exit::Usage, format!("{}: {error} ({})", candidate.file.display(), error.code))
    })?;
    let rules = rules(&api.get("/v1/topics").await?, &candidate.subject);
    let tallies = tallies(&recording, &validator, &rules);
    report(&candidate.subject, &recording, &tallies)
}

/// The texts that the candidate refers to, dependencies first.
async fn references(api: &Api, candidate: &Candidate) -> Result<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut open: Vec<Value> = items(&candidate.body()?, "references").to_vec();
    while let Some(reference) = open.pop() {
        let name = text(&reference["name"]);
        if found.iter().any(|(known, _)| *known == name) {
            continue;
        }
        if found.len() >= REFERENCES_MAX {
            return Err(Failure::new(Exit::Usage, format!("the schema refers to more than {REFERENCES_MAX} others")));
        }
        let subject: SubjectName = text(&reference["subject"])
            .parse()
            .map_err(|error| Failure::new(Exit::Usage, format!("the reference {name}: {error}")))?;
        let version = text(&reference["version"]);
        let path = path("subjects", &subject, &format!("/versions/{version}?deleted=true"));
        let schema: Value = api.ask(Method::GET, &path, Body::None).await?;
        open.extend(items(&schema, "references").iter().cloned());
        found.push((name, text(&schema["schema"])));
    }
    found.reverse();
    Ok(found)
}

/// The rules for topics that judge by the subject.
fn rules(topics: &Value, subject: &SubjectName) -> Vec<Ruled> {
    let rules = items(topics, "rules").iter().filter(|rule| rule["schema"]["subject"] == subject.as_str());
    let ruled = |rule: &Value| {
        let pattern = Pattern::new(rule["pattern"].as_str()?).ok()?;
        Some(Ruled { pattern, is_prefixed: rule["schema"]["by"] == "confluent" })
    };
    rules.filter_map(ruled).collect()
}

/// Judges each event once, where it came in. Without a rule for the subject all events are meant, as they are.
fn tallies(recording: &Recording, validator: &Validator, rules: &[Ruled]) -> Tallies {
    let mut tallies = Tallies::new();
    let came_in = recording.batches.iter().filter(|batch| batch.entry && batch.side != Side::Egress);
    for event in came_in.flat_map(|batch| &batch.events).filter(|event| event.matched) {
        let ruled: Vec<&Ruled> = rules.iter().filter(|rule| rule.pattern.matches(&event.topic)).collect();
        if ruled.is_empty() && !rules.is_empty() {
            continue;
        }
        let tally = tallies.entry((event.topic.clone(), event.identity.clone())).or_default();
        tally.events += 1;
        let judged = match ruled.iter().any(|rule| rule.is_prefixed) {
            true => unprefixed(&event.payload.0, validator.format())
                .ok_or_else(|| "begins with no schema id".to_owned())
                .and_then(|(_, indexes, rest)| {
                    validator.validate_message(&indexes, rest).map_err(|fault| fault.to_string())
                }),
            false => validator.validate(&event.payload.0).map_err(|fault| fault.to_string()),
        };
        if let Err(reason) = judged {
            tally.turned_back += 1;
            if tally.reason.is_empty() {
                tally.reason = reason;
            }
        }
    }
    tallies
}

fn report(subject: &SubjectName, recording: &Recording, tallies: &Tallies) -> Result<()> {
    let events: u64 = tallies.values().map(|tally| tally.events).sum();
    let turned_back: u64 = tallies.values().map(|tally| tally.turned_back).sum();
    if events == 0 {
        return Err(Failure::new(Exit::NotFound, format!("the capture has no event that subject {subject} is about"))
            .next("take one of its topics: `myelin capture start PATTERN`"));
    }
    let site = &recording.head.site;
    if turned_back == 0 {
        say!("all {events} events of the capture from site {site} are as the schema says");
        return Ok(());
    }
    let bad = tallies.iter().filter(|(_, tally)| tally.turned_back > 0);
    let rows = bad.map(|((topic, producer), tally)| {
        let Tally { events, turned_back, reason } = tally;
        vec![topic.clone(), producer.clone(), site.clone(), format!("{turned_back} of {events}"), reason.clone()]
    });
    say!("{}", table(&["topic", "producer", "site", "turned back", "the first reason"], &["turned back"], rows));
    if !recording.head.redacted.is_empty() {
        say!("the capture is redacted: what stands in the place of a value may be what the schema does not allow");
    }
    let what = format!("the schema would turn back {turned_back} of {events} recorded events");
    Err(Failure::new(Exit::GateFailed, what).next("change the schema, or those who publish"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use serde_json::json;

    fn recording() -> Recording {
        let event = |topic: &str, payload: &str, identity: &str| json!({"topic": topic, "attrs": [], "payload": payload, "identity": identity, "matched": true});
        let batch = |number: u64, side: &str, entry: bool, events: Vec<Value>| {
            json!({"batch": {"number": number, "worker": 0, "generation": 1, "now_unix_ns": 1, "side": side, "entry": entry,
                "events": events, "judged": []}})
        };
        let lines = [
            json!({"capture": {"format": 1, "id": 1, "site": "hamburg", "router": "r", "version": "0", "started_unix_ms": 0,
                "pattern": "**", "redacted": [], "neighbours": false}}),
            batch(1, "ingress", true, vec![event("orders/1", "1", "ann"), event("orders/1", "\"x\"", "bob")]),
            batch(2, "egress", false, vec![event("orders/1", "\"x\"", "bob")]),
            batch(3, "none", true, vec![event("other", "\"x\"", "ann"), event("orders/1", "2", "bob")]),
            json!({"end": {"state": "stopped", "batches": 3, "events": 5, "evicted": 0,
                "sampled_out": 0, "too_large": 0}}),
        ];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Recording::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn each_event_is_judged_once_where_a_rule_is_about_it() {
        let source = Source {
            format: judged_as(myelin_catalog::SchemaFormat::Json),
            text: r#"{"type": "integer"}"#,
            references: &[],
        };
        let validator = Validator::compile(&source).unwrap();
        let topics = json!({"rules": [
            {"pattern": "orders/**", "schema": {"subject": "orders-value"}}, {"pattern": "**", "residency": {}}]});
        let subject: SubjectName = "orders-value".parse().unwrap();
        let tallies = tallies(&recording(), &validator, &rules(&topics, &subject));
        let counts: Vec<_> =
            tallies.iter().map(|((_, producer), tally)| (&**producer, tally.events, tally.turned_back)).collect();
        assert_eq!(counts, [("ann", 1, 0), ("bob", 2, 1)]);
        let failure = report(&subject, &recording(), &tallies).unwrap_err();
        assert_eq!(failure.exit, Exit::GateFailed);
        let all = super::tallies(&recording(), &validator, &[]);
        assert_eq!(all.values().map(|tally| tally.events).sum::<u64>(), 4, "without a rule all of them");
    }
}
