//! `myelin schema check --against`: which recorded events a schema would turn back.

use super::super::admin::Api;
use super::super::apply::{Named, Reference, Registry};
use super::super::failure::{Exit, Failure, Result};
use super::super::http::Body;
use super::super::listing::{Shape, items, table};
use super::super::values::say;
use super::candidate::Candidate;
use super::path;
use crate::capture::{Event, Recording, Tallies, Tally, packed};
use crate::registry::judged_as;
use crate::screen::{Next, Screen, Screens};
use anyhow::Context;
use hyper::Method;
use myelin_catalog::{Residency, SchemaRule, SubjectName, TopicRule};
use myelin_engine::EventView;
use myelin_schema::{ReferenceText, SchemaError, Source, Validator};
use serde_json::{Value, json};
use std::path::Path;

/// The rules as they would judge by the candidate.
struct Rules {
    screens: Screens,
    /// Whether one of them names the subject: then events that no rule is about are not meant.
    is_named: bool,
}

/// What came of it.
#[derive(Default)]
struct Outcome {
    tallies: Tallies,
    /// Events that name another schema, or another version: that goes on judging them.
    others: u64,
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
    let refused = |error: SchemaError| {
        Failure::new(Exit::Usage, format!("{}: {error} ({})", candidate.file.display(), error.code)).coded(error.code)
    };
    let compile = || Validator::compile(&source).map_err(refused);
    // What would not be registered judges nothing here either.
    myelin_schema::check(&source).map_err(refused)?;
    let validator = compile()?;
    let rules = rules(&api.get("/v1/topics").await?, &candidate.subject);
    let place = match rules.iter().any(|rule| rule.schema.as_ref().is_some_and(|schema| schema.by.is_some())) {
        true => place(api, candidate).await?,
        false => None,
    };
    let rules = Rules::new(&rules, Next { subject: candidate.subject.clone(), place, validator: compile()? });
    let outcome = outcome(&recording, &validator, &rules);
    report(&candidate.subject, &recording, &outcome, shape)
}

/// The id and the number by which events may name the candidate, where it is registered already.
async fn place(api: &Api, candidate: &Candidate) -> Result<Option<(u32, u32)>> {
    let path = path("subjects", &candidate.subject, "");
    let there: Result<Value> = api.ask(Method::POST, &path, Body::Json(candidate.body()?)).await;
    let there = match there {
        Err(failure) if failure.is_absence() => return Ok(None),
        there => there?,
    };
    let number = |field: &str| there[field].as_u64().and_then(|number| u32::try_from(number).ok());
    Ok(number("id").zip(number("version")))
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

/// The rules for topics that may judge by a schema of the subject.
fn rules(topics: &Value, subject: &SubjectName) -> Vec<TopicRule> {
    let rule = |rule: &Value| {
        let schema: SchemaRule = serde_json::from_value(rule["schema"].clone()).ok()?;
        let is_meant = match &schema.subject {
            Some(named) => named == subject,
            None => schema.by.is_some(),
        };
        let (name, pattern) = (rule["name"].as_str()?.parse().ok()?, rule["pattern"].as_str()?.parse().ok()?);
        is_meant.then(|| TopicRule { name, pattern, residency: Residency::default(), schema: Some(schema) })
    };
    items(topics, "rules").iter().filter_map(rule).collect()
}

impl Rules {
    fn new(rules: &[TopicRule], next: Next) -> Self {
        let names = |rule: &TopicRule| rule.schema.as_ref().is_some_and(|schema| schema.subject.is_some());
        Self { is_named: rules.iter().any(names), screens: Screens::of_next(rules.iter(), next) }
    }
}

/// Judges each event as the rules would. Without one about the subject all events are meant, as they are.
fn outcome(recording: &Recording, validator: &Validator, rules: &Rules) -> Outcome {
    let Outcome { mut tallies, mut others } = Outcome::default();
    tallies.add(recording, |Event { topic, attrs, payload, identity, .. }| {
        let attrs = packed(attrs).ok()?;
        let event = EventView { topic, attrs: &attrs, payload: &payload.0, identity };
        let mut screens = rules.screens.of(topic).map(|screen| &**screen).peekable();
        if screens.peek().is_none() {
            let judged = || validator.validate(event.payload).map_err(|fault| fault.to_string());
            return (!rules.is_named).then(judged);
        }
        let mut meant = screens.filter(|screen| !screen.names_another(&event)).peekable();
        if meant.peek().is_none() {
            others += 1;
            return None;
        }
        Some(meant.try_for_each(|screen: &Screen| screen.judge(&event)).map_err(|bad| bad.detail()))
    });
    Outcome { tallies, others }
}

fn report(subject: &SubjectName, recording: &Recording, outcome: &Outcome, shape: Shape) -> Result<()> {
    let Outcome { tallies, others } = outcome;
    let (events, turned_back) = tallies.total();
    if events == 0 && *others == 0 {
        return Err(Failure::new(Exit::NotFound, format!("the capture has no event that subject {subject} is about"))
            .next("take one of its topics: `myelin capture start PATTERN`"));
    }
    let site = &recording.head.site;
    if shape.is_json() {
        say!("{}", for_programs(site, outcome));
    } else if *others > 0 {
        say!("{others} events name another schema, or another version: that judges them, whatever this one says");
    }
    if turned_back == 0 {
        if !shape.is_json() {
            say!("all {events} events of the capture from site {site} that it would judge are as the schema says");
        }
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

fn for_programs(site: &str, Outcome { tallies, others }: &Outcome) -> Value {
    let (events, turned_back) = tallies.total();
    let rows = tallies.turned_back().into_iter().map(|(topic, producer, Tally { events, turned_back, reason })| {
        json!({"topic": topic, "producer": producer, "events": events, "turned_back": turned_back, "reason": reason})
    });
    let producers = rows.collect::<Vec<_>>();
    json!({"site": site, "events": events, "turned_back": turned_back, "name_others": others, "producers": producers})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::capture::{Attribute, Data};

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

    fn integers() -> Validator {
        let format = judged_as(myelin_catalog::SchemaFormat::Json);
        Validator::compile(&Source { format, text: r#"{"type": "integer"}"#, references: &[] }).unwrap()
    }

    fn judged(recording: &Recording, topics: &Value, place: Option<(u32, u32)>) -> Outcome {
        let subject: SubjectName = "orders-value".parse().unwrap();
        let rules = Rules::new(&rules(topics, &subject), Next { subject, place, validator: integers() });
        outcome(recording, &integers(), &rules)
    }

    #[test]
    fn each_event_is_judged_once_where_a_rule_is_about_it() {
        let topics = json!({"rules": [
            {"name": "a", "pattern": "orders/**", "schema": {"subject": "orders-value", "version": "latest"}},
            {"name": "b", "pattern": "**", "residency": {}}]});
        let outcome = judged(&recording(), &topics, None);
        let tallies = &outcome.tallies;
        let bad: Vec<_> =
            tallies.turned_back().into_iter().map(|(topic, who, tally)| (topic, who, tally.events)).collect();
        assert_eq!((tallies.total(), &*bad), ((3, 1), &[("orders/1", "bob", 2)][..]));
        let subject: SubjectName = "orders-value".parse().unwrap();
        let failure = report(&subject, &recording(), &outcome, Shape::default()).unwrap_err();
        assert_eq!(failure.exit, Exit::GateFailed);
        let told = for_programs("hamburg", &outcome);
        assert_eq!((&told["turned_back"], &told["producers"][0]["producer"]), (&json!(1), &json!("bob")));
        let all = judged(&recording(), &json!({"rules": []}), None);
        assert_eq!(all.tallies.total().0, 4, "without a rule all of them");
    }

    /// A capture of events with these payloads, and what they say in their heads.
    fn of_events(events: &[(&str, &[u8], Option<&str>)]) -> Recording {
        let event = |(topic, payload, named): &(&str, &[u8], Option<&str>)| {
            let tag = myelin_wire::attrs::SCHEMA;
            let attrs = named.map(|named| Attribute { header: None, tag: Some(tag), value: Data(named.into()) });
            json!({"topic": topic, "attrs": Vec::from_iter(attrs), "payload": Data(payload.to_vec()), "identity": "ann",
                "matched": true})
        };
        let events: Vec<Value> = events.iter().map(event).collect();
        let count = events.len();
        let lines = [
            json!({"capture": {"format": 1, "id": 1, "site": "hamburg", "router": "r", "version": "0", "started_unix_ms": 0,
                "pattern": "**", "redacted": [], "neighbours": false}}),
            json!({"batch": {"number": 1, "worker": 0, "generation": 1, "now_unix_ns": 1, "side": "ingress", "entry": true,
                "events": events, "judged": []}}),
            json!({"end": {"state": "stopped", "batches": 1, "events": count, "evicted": 0,
                "sampled_out": 0, "too_large": 0}}),
        ];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Recording::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn it_judges_as_the_rules_do() {
        let of = |schema: Value| json!({"rules": [{"name": "r", "pattern": "orders/**", "schema": schema}]});
        let confluent = of_events(&[
            ("orders/1", b"\0\0\0\0\x071", None),
            ("orders/1", b"\0\0\0\0\x07x", None),
            ("orders/1", b"\0\0\0\0\x08x", None),
            ("orders/1", b"", None),
        ]);
        // Nobody names what is not registered; what names nothing is turned back where something must be named.
        for schema in [json!({"by": "confluent"}), json!({"by": "confluent", "subject": "orders-value"})] {
            let new = judged(&confluent, &of(schema.clone()), None);
            assert_eq!((new.tallies.total(), new.others), ((1, 1), 3), "{schema}");
            let there = judged(&confluent, &of(schema), Some((7, 2)));
            assert_eq!((there.tallies.total(), there.others), ((3, 2), 1));
        }
        let optional = json!({"by": "confluent", "required": false});
        assert_eq!(judged(&confluent, &of(optional), Some((7, 2))).tallies.total(), (3, 1));
        let empty = of_events(&[("orders/1", b"", None), ("orders/1", b"1", None)]);
        let optional = json!({"subject": "orders-value", "required": false, "version": "latest"});
        assert_eq!(judged(&empty, &of(optional), None).tallies.total(), (2, 0), "no payload, and none required");
        let required = json!({"subject": "orders-value", "version": "latest"});
        assert_eq!(judged(&empty, &of(required), None).tallies.total(), (2, 1));
        let named = of_events(&[
            ("orders/1", b"x", Some("orders-value:1")),
            ("orders/1", b"x", Some("orders-value:2")),
            ("orders/1", b"x", Some("orders-value")),
            ("orders/1", b"1", Some("orders-value:latest")),
            ("orders/1", b"x", Some("7")),
            ("orders/1", b"x", Some("other")),
        ]);
        let by_header = of(json!({"by": "header", "subject": "orders-value"}));
        let new = judged(&named, &by_header, None);
        assert_eq!((new.tallies.total(), new.others), ((2, 1), 4), "only what follows the newest version");
        let there = judged(&named, &by_header, Some((7, 2)));
        assert_eq!((there.tallies.total(), there.others), ((4, 3), 2));
        let subject: SubjectName = "orders-value".parse().unwrap();
        let none = judged(&of_events(&[("orders/1", b"x", Some("other"))]), &by_header, None);
        assert!(report(&subject, &recording(), &none, Shape::default()).is_ok(), "it turns nothing back");
    }
}
