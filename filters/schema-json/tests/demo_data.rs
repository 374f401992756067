//! The demo's binding on the demo's events.
#![allow(clippy::unwrap_used, reason = "tests")]

use myelin_filter::Kind;
use myelin_filter::config::Value;
use myelin_filter::testing::Harness;
use schema_json::SchemaJson;

const BINDING: &str = include_str!("../../../examples/bindings/orders-schema.json");
const ORDERS: &str = include_str!("../../../examples/data/orders.jsonl");
const SUMMARY: &str = include_str!("../../../examples/data/summary.json");

#[test]
fn every_broken_order_is_denied_with_its_place_and_no_other() {
    let binding: Value = BINDING.parse().unwrap();
    let mut schema = Harness::<SchemaJson>::new(binding["config"].to_string()).unwrap();
    let mut denied = 0;
    for line in ORDERS.lines() {
        let event: Value = line.parse().unwrap();
        let verdict = schema.event("orders/eu").payload(event["payload"].to_string()).verdict();
        if verdict.kind == Kind::Deny {
            denied += 1;
            let detail = verdict.detail.unwrap();
            assert!(detail.starts_with('/') || detail.starts_with("(document): "), "{detail}");
        }
    }
    let summary: Value = SUMMARY.parse().unwrap();
    assert_eq!(Value::from(denied), summary["orders"]["invalid"]);
}
