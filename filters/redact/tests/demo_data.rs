//! The demo's binding on the demo's events.
#![allow(clippy::unwrap_used, reason = "tests")]

use myelin_filter::config::Value;
use myelin_filter::testing::Harness;
use redact::Redact;

const BINDING: &str = include_str!("../../../examples/bindings/payments-redact.json");
const PAYMENTS: &str = include_str!("../../../examples/data/payments.jsonl");

#[test]
fn no_personal_value_is_left_and_nothing_else_is_touched() {
    let binding: Value = BINDING.parse().unwrap();
    let mut redact = Harness::<Redact>::new(binding["config"].to_string()).unwrap();
    let fields = ["/card/number", "/customer/name", "/customer/email", "/customer/phone"];
    let mut masked = 0;
    for line in PAYMENTS.lines() {
        let mut payload = line.parse::<Value>().unwrap()["payload"].take();
        let verdict = redact.event("payments/eu").payload(payload.to_string()).verdict();
        let mut touched = false;
        for value in fields.map(|field| payload.pointer_mut(field).map(|value| *value = "***".into())) {
            touched |= value.is_some();
        }
        let rewritten = verdict.payload_text().map(|text| text.parse::<Value>().unwrap());
        assert_eq!(rewritten, touched.then_some(payload));
        masked += usize::from(touched);
    }
    assert!(masked >= 500, "{masked} payments hold personal values");
}
