//! Fixtures, one event after the other: what the filter says, and whether it is as expected.

use crate::cli::expectation::{Further, further_keys, payload_value};
use crate::cli::fixtures::FixtureFile;
use crate::cli::trial::{NOW_UNIX_NS, instance};
use myelin_engine::{Decision, ExpectedKind, Program, TestVector, Trial, Unmet};
use serde_json::{Value, json};
use std::path::PathBuf;

/// One fixture, and what came of it.
pub(super) struct Checked {
    /// Which file, by its place among them.
    pub(super) file: usize,
    /// Its path.
    pub(super) path: PathBuf,
    /// Its line.
    pub(super) line: usize,
    /// The event's topic.
    pub(super) topic: String,
    /// The decision, or why there is none: a fault, or a refused configuration.
    pub(super) said: Result<Decision, String>,
    /// In what it is not as expected.
    pub(super) unmet: Vec<Unmet>,
    /// Whether something was expected of it, beside no fault.
    pub(super) has_expectation: bool,
}

impl Checked {
    /// Whether nothing is wrong with it.
    pub(super) fn is_good(&self) -> bool {
        self.said.is_ok() && self.unmet.is_empty()
    }

    /// What the fixture ought to expect, where it expects something else or nothing.
    pub(super) fn new_expectation(&self, vector: &TestVector, further: &Further) -> Option<String> {
        let decision = self.said.as_ref().ok()?;
        if self.has_expectation && self.unmet.is_empty() {
            return None;
        }
        Some(expectation(decision, vector, further))
    }
}

/// What to expect, so that `decision` meets it: in the order in which people write it. Headers, detail and emitted events
/// where they were expected before, or nothing was: whoever left them out did not want to be told of every change.
fn expectation(decision: &Decision, vector: &TestVector, further: &Further) -> String {
    let mut expect = vec![("verdict", Value::from(decision.verdict.as_str()))];
    if let Some(reason) = &decision.reason {
        expect.push(("reason", reason.as_str().into()));
    }
    if matches!(decision.verdict, ExpectedKind::Add | ExpectedKind::Redirect) {
        expect.push(("routes", json!(decision.routes)));
    }
    let said_before = vector.expect.as_ref().and_then(|expect| expect.payload.as_ref());
    // As text where the fixture had it so.
    let as_text = said_before.is_some_and(Value::is_string);
    if let Some(payload) = decision.payload.as_ref().and_then(|payload| payload_value(payload, as_text)) {
        expect.push(("payload", payload));
    }
    let is_wanted = |key: &str, value: &Value| match vector.expect {
        Some(_) => further.has(key),
        // Nearly every event emits nothing.
        None => value.as_array().is_none_or(|emitted| !emitted.is_empty()),
    };
    expect.extend(further_keys(decision, vector).into_iter().filter(|(key, value)| is_wanted(key, value)));
    let members: Vec<_> = expect.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Runs every fixture. Those of one instance see each other's state, in their order, as in a router's self-test.
pub(super) fn examine(program: &Program, files: &[FixtureFile]) -> Vec<Checked> {
    let mut checked = Vec::new();
    for (number, file) in files.iter().enumerate() {
        for cases in file.cases.chunk_by(|a, b| a.vector.instance == b.vector.instance) {
            let config = cases.first().map_or(&[][..], |case| &case.vector.config);
            let mut trial = instance(program, config);
            for case in cases {
                let said = judge(&mut trial, &case.vector);
                let expect = case.vector.expect.as_ref();
                let mut unmet = match (&said, expect) {
                    (Ok(decision), Some(expect)) => expect.unmet(decision),
                    _ => Vec::new(),
                };
                if let Ok(decision) = &said {
                    unmet.extend(case.further.unmet(decision, &case.vector));
                }
                checked.push(Checked {
                    file: number,
                    path: file.path.clone(),
                    line: case.line,
                    topic: case.vector.topic.clone(),
                    said,
                    unmet,
                    has_expectation: expect.is_some(),
                });
            }
        }
    }
    checked
}

fn judge(trial: &mut Result<Trial, String>, vector: &TestVector) -> Result<Decision, String> {
    let trial = trial.as_mut().map_err(|error| error.clone())?;
    let mut decided = trial.decide(&[vector.view()], NOW_UNIX_NS).map_err(|fault| fault.to_string())?;
    decided.pop().ok_or_else(|| "no verdict".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(verdict: ExpectedKind, payload: Option<&str>) -> Decision {
        Decision {
            verdict,
            reason: Some("why".into()).filter(|_: &String| verdict == ExpectedKind::Deny),
            routes: vec!["topic:a".into()],
            payload: payload.map(|payload| payload.as_bytes().to_vec()),
            attrs: None,
            detail: None,
            emitted: Vec::new(),
        }
    }

    fn vector(expect: Value) -> TestVector {
        TestVector {
            config: Vec::new(),
            instance: 0,
            topic: "a".into(),
            attrs: Vec::new(),
            payload: Vec::new(),
            identity: String::new(),
            expect: serde_json::from_value(expect).ok(),
        }
    }

    #[test]
    fn what_is_written_is_met_by_what_was_said() {
        let text = json!({"verdict": "allow", "payload": "{}"});
        for (decision, before, wanted) in [
            (decision(ExpectedKind::Deny, None), json!(null), json!({"verdict": "deny", "reason": "why"})),
            (decision(ExpectedKind::Add, None), json!(null), json!({"verdict": "add", "routes": ["topic:a"]})),
            (
                decision(ExpectedKind::Allow, Some("{\"b\":1}")),
                json!(null),
                json!({"verdict": "allow", "payload": {"b": 1}}),
            ),
            (
                decision(ExpectedKind::Allow, Some("{\"b\":1}")),
                text,
                json!({"verdict": "allow", "payload": "{\"b\":1}"}),
            ),
            (decision(ExpectedKind::Allow, Some("x")), json!(null), json!({"verdict": "allow", "payload": "x"})),
        ] {
            let written = expectation(&decision, &vector(before), &Further::default());
            assert!(written.starts_with("{\"verdict\":"), "{written}");
            assert_eq!(serde_json::from_str::<Value>(&written).ok(), Some(wanted));
            let expect: myelin_engine::Expect = serde_json::from_str(&written).expect("an expectation");
            assert!(expect.unmet(&decision).is_empty());
        }
    }
    #[test]
    fn what_was_left_out_stays_out_and_what_was_asked_for_is_written_anew() {
        let told = Decision { detail: Some("because".into()), ..decision(ExpectedKind::Allow, None) };
        let write = |expect: Value| {
            let line = json!({ "topic": "a", "expect": expect }).to_string();
            let further = crate::cli::expectation::split(&line).expect("an expectation").1;
            let written = expectation(&told, &vector(json!({ "verdict": "deny" })), &further);
            serde_json::from_str::<Value>(&written).expect("JSON")
        };
        assert_eq!(write(json!({ "verdict": "deny" })), json!({ "verdict": "allow" }));
        let (before, after) = (
            json!({ "detail": "", "emitted": [{ "topic": "b" }] }),
            json!({
                "verdict": "allow", "detail": "because", "emitted": [],
            }),
        );
        assert_eq!(write(before), after);
        let fresh = expectation(&told, &vector(Value::Null), &Further::default());
        assert_eq!(
            fresh, r#"{"verdict":"allow","detail":"because"}"#,
            "all there is to say, where nothing was expected"
        );
    }
}
