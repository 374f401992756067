//! `myelin schema check --against`: which recorded events a schema would turn back.

use super::super::admin::Api;
use super::super::apply::{Named, Reference, Registry};
use super::super::failure::{Exit, Failure, Result};
use super::super::listing::{Shape, items, table};
use super::super::values::say;
use super::candidate::Candidate;
use super::path;
use crate::capture::{Recording, Tallies, Tally};
use crate::registry::judged_as;
use crate::screen::unprefixed;
use anyhow::Context;
use myelin_catalog::SubjectName;
use myelin_schema::{ReferenceText, Source, Validator};
use myelin_wire::Pattern;
use serde_json::{Value, json};
use std::path::Path;

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
pub(super) async fn judge(api: &Api, candidate: &Candidate, capture: &Path, shape: Shape) -> Result<()> {
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
    report(&candidate.subject, &recording, &tallies, shape)
}

/// The texts that the candidate refers to, dependencies first.
async fn references(api: &Api, candidate: &Candidate) -> Result<Vec<Named>> {
    let mut references = Vec::new();
    for (name, subject, version) in &candidate.reference {
        let version = match u32::try_from(*version) {
            Ok(version) => version,
            // `latest`
            Err(_) => {
                let newest = api.get(&path("subjects", subject, "/versions/latest")).await?;
                let newest = newest["version"].as_u64().and_then(|version| version.try_into().ok());
                newest.with_context(|| format!("the newest version of {subject} has no number"))?
            }
        };
        references.push(Reference { name: name.clone(), subject: subject.clone(), version: Some(version) });
    }
    let mut needed = Vec::new();
    Registry::new(api).texts(&references, &mut needed).await?;
    Ok(needed)
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

/// Judges each event as the rules about the subject would. Without one all events are meant, as they are.
fn tallies(recording: &Recording, validator: &Validator, rules: &[Ruled]) -> Tallies {
    let mut tallies = Tallies::default();
    tallies.add(recording, |event| {
        let mut ruled = rules.iter().filter(|rule| rule.pattern.matches(&event.topic)).peekable();
        if ruled.peek().is_none() && !rules.is_empty() {
            return None;
        }
        Some(match ruled.any(|rule| rule.is_prefixed) {
            true => unprefixed(&event.payload.0, validator.format())
                .ok_or_else(|| "begins with no schema id".to_owned())
                .and_then(|(_, indexes, rest)| {
                    validator.validate_message(&indexes, rest).map_err(|fault| fault.to_string())
                }),
            false => validator.validate(&event.payload.0).map_err(|fault| fault.to_string()),
        })
    });
    tallies
}

fn report(subject: &SubjectName, recording: &Recording, tallies: &Tallies, shape: Shape) -> Result<()> {
    let (events, turned_back) = tallies.total();
    if events == 0 {
        return Err(Failure::new(Exit::NotFound, format!("the capture has no event that subject {subject} is about"))
            .next("take one of its topics: `myelin capture start PATTERN`"));
    }
    let site = &recording.head.site;
    if shape.is_json() {
        say!("{}", for_programs(site, tallies));
    }
    if turned_back == 0 {
        if shape.is_json() {
            return Ok(());
        }
        say!("all {events} events of the capture from site {site} are as the schema says");
        return Ok(());
    }
    let rows = tallies.turned_back().into_iter().map(|(topic, producer, Tally { events, turned_back, reason })| {
        let (topic, producer) = (topic.to_owned(), producer.to_owned());
        vec![topic, producer, site.clone(), format!("{turned_back} of {events}"), reason.clone()]
    });
    if !shape.is_json() {
        say!("{}", table(&["topic", "producer", "site", "turned back", "the first reason"], &["turned back"], rows));
    }
    if !shape.is_json() && !recording.head.redacted.is_empty() {
        say!("the capture is redacted: what stands in the place of a value may be what the schema does not allow");
    }
    let what = format!("the schema would turn back {turned_back} of {events} recorded events");
    Err(Failure::new(Exit::GateFailed, what).next("change the schema, or those who publish"))
}

fn for_programs(site: &str, tallies: &Tallies) -> Value {
    let (events, turned_back) = tallies.total();
    let rows = tallies.turned_back().into_iter().map(|(topic, producer, Tally { events, turned_back, reason })| {
        json!({"topic": topic, "producer": producer, "events": events, "turned_back": turned_back, "reason": reason})
    });
    json!({"site": site, "events": events, "turned_back": turned_back, "producers": rows.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

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
        let bad: Vec<_> =
            tallies.turned_back().into_iter().map(|(topic, who, tally)| (topic, who, tally.events)).collect();
        assert_eq!((tallies.total(), &*bad), ((3, 1), &[("orders/1", "bob", 2)][..]));
        let failure = report(&subject, &recording(), &tallies, Shape::default()).unwrap_err();
        assert_eq!(failure.exit, Exit::GateFailed);
        let told = for_programs("hamburg", &tallies);
        assert_eq!((&told["turned_back"], &told["producers"][0]["producer"]), (&json!(1), &json!("bob")));
        let all = super::tallies(&recording(), &validator, &[]);
        assert_eq!(all.total().0, 4, "without a rule all of them");
    }
}
