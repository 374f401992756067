//! The demo's binding on the demo's events.
#![allow(clippy::unwrap_used, reason = "tests")]

use content_route::ContentRoute;
use myelin_filter::config::Value;
use myelin_filter::testing::Harness;
use std::collections::BTreeMap;

const BINDING: &str = include_str!("../../../examples/bindings/orders-route.json");
const ORDERS: &str = include_str!("../../../examples/data/orders.jsonl");

#[test]
fn every_order_is_copied_to_its_region() {
    let binding: Value = BINDING.parse().unwrap();
    let mut route = Harness::<ContentRoute>::new(binding["config"].to_string()).unwrap();
    let mut copies = BTreeMap::<String, usize>::new();
    for line in ORDERS.lines() {
        let event: Value = line.parse().unwrap();
        let verdict = route.event("orders/eu").payload(event["payload"].to_string()).verdict();
        let region = event["payload"]["region"].as_str().unwrap();
        assert_eq!(verdict.routes, [format!("topic:fulfilment/{region}")]);
        *copies.entry(region.to_owned()).or_default() += 1;
    }
    assert_eq!(copies.len(), 3, "{copies:?}");
}
