//! Trials: decisions in words, and in what they are not as expected.

use super::*;

fn trial() -> Trial {
    Trial::new(Box::new(slot(hostile())))
}

fn decide(trial: &mut Trial, payloads: &[&str]) -> Result<Vec<Decision>, FilterFault> {
    trial.decide(&events(payloads), 1)
}

#[test]
fn a_decision_has_its_numbers_resolved() {
    let mut trial = trial();
    let decided = decide(&mut trial, &["a", "D", "T", "a"]).expect("judged");
    assert_eq!((decided[0].verdict, &decided[0].reason), (ExpectedKind::Allow, &None));
    assert_eq!((decided[1].verdict, decided[1].reason.as_deref()), (ExpectedKind::Deny, Some("second reason")));
    assert_eq!((decided[2].emitted.len(), decided[3].emitted.len()), (1, 0));
    assert_eq!(decided[2].emitted[0].topic, "audit/log");
    assert_eq!(decided[0], decided[3]);
    // The guest has four pages of its own; the component adds none.
    assert_eq!(trial.memory_bytes(), Some(4 * 65_536));
    decide(&mut trial, &["G"]).expect("judged");
    assert_eq!((trial.notes().logs.len(), trial.notes().counts.len()), (1, 1));
}

#[test]
fn a_fault_is_told_and_faults_without_end_never_give_the_filter_up() {
    let mut trial = trial();
    for _ in 0..20 {
        assert_eq!(decide(&mut trial, &["a", "X"]).expect_err("a trap").code, FaultCode::Trap);
    }
    assert_eq!(decide(&mut trial, &["V"]).expect_err("a lie").code, FaultCode::MalformedOutput);
    assert_eq!(trial.memory_bytes(), None, "the instance is gone");
    assert_eq!(decide(&mut trial, &["D"]).expect("a fresh instance")[0].verdict, ExpectedKind::Deny);
    let too_many = vec!["a"; BATCH_EVENTS_MAX + 1];
    assert_eq!(decide(&mut trial, &too_many).expect_err("no batch").code, FaultCode::Host);
}

#[test]
fn what_is_not_as_expected_is_named_field_by_field() {
    let expect = |json: &str| -> Expect { serde_json::from_str(json).expect("an expectation") };
    let decision = Decision {
        verdict: ExpectedKind::Deny,
        reason: Some("second reason".into()),
        routes: vec!["topic:b".into(), "topic:a".into()],
        payload: Some(br#"{"a":1,"b":2}"#.to_vec()),
        attrs: None,
        detail: None,
        emitted: Vec::new(),
    };
    let fields = |json: &str| -> Vec<&str> { expect(json).unmet(&decision).iter().map(|unmet| unmet.field).collect() };
    assert!(fields(r#"{"verdict":"deny"}"#).is_empty());
    assert!(fields(r#"{"verdict":"deny","routes":["topic:a","topic:b"],"payload":{"b":2,"a":1}}"#).is_empty());
    assert_eq!(fields(r#"{"verdict":"deny","payload":"{\"b\":2,\"a\":1}"}"#), ["payload"], "text is compared as text");
    let all = r#"{"verdict":"add","reason":"first reason","routes":[],"payload":{"a":1}}"#;
    assert_eq!(fields(all), ["verdict", "reason", "routes", "payload"]);
    let unmet = expect(r#"{"verdict":"add"}"#).unmet(&decision).remove(0);
    assert_eq!((unmet.expected.as_str(), unmet.found.as_str()), ("add", "deny"));
}
