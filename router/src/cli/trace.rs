//! `myelin pub --trace`: follows one event and prints what became of it, hop by hop.

use super::admin::Api;
use super::failure::{Exit, Failure, Result};
use super::listing::{items, table, text};
use crate::trace::{Sampled, SpanId, TraceId};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long the routers may take until every copy of an event has arrived.
const ARRIVAL_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// A new trace of one event.
pub(super) fn begin() -> Sampled {
    Sampled { trace: TraceId::random(), parent: SpanId::random() }
}

/// Waits until the routers have recorded all hops of the event, and gives what they have; after some seconds what there
/// is.
pub(super) async fn follow(api: &Api, trace: TraceId) -> Result<Value> {
    let until = Instant::now() + ARRIVAL_WAIT;
    loop {
        match api.get(&format!("/v1/traces/{trace}?mesh=true")).await {
            Ok(found) if is_whole(&found) || Instant::now() >= until => return Ok(found),
            Err(failure) if !failure.is_absence() || Instant::now() >= until => {
                return Err(failure.doing("the event was published, and its trace is not there"));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Whether every copy that a hop speaks of is recorded, and every copy to another router has come there.
fn is_whole(trace: &Value) -> bool {
    let records = items(trace, "records");
    let copies = |hop: &Value, kind: &str| {
        records.iter().filter(|record| !record[kind].is_null() && record["parent_id"] == hop["span_id"]).count()
    };
    let is_handed_out = |hop: &Value| {
        let count = |field: &str| hop["hop"][field].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        let wanted = count("subscribers") + count("groups");
        let goes_on = !items(&hop["hop"], "sites").is_empty();
        copies(hop, "delivery") >= wanted && (!goes_on || copies(hop, "link") > 0)
    };
    let hops: Vec<&Value> = records.iter().filter(|record| !record["hop"].is_null()).collect();
    let came: BTreeSet<&str> = hops.iter().filter_map(|hop| hop["parent_id"].as_str()).collect();
    let known: BTreeSet<&str> = hops.iter().filter_map(|hop| hop["span_id"].as_str()).collect();
    let has_hop = |record: &Value| {
        !record["hop"].is_null() || record["parent_id"].as_str().is_some_and(|parent| known.contains(parent))
    };
    let has_come = |link: &Value| link["span_id"].as_str().is_some_and(|span| came.contains(span));
    !hops.is_empty()
        && records.iter().all(has_hop)
        && hops.iter().all(|hop| is_handed_out(hop))
        && records.iter().filter(|record| outcome(&record["link"]) == Some("sent")).all(has_come)
}

/// What became of a copy; routers of a version before tell of those only that were sent.
fn outcome(copy: &Value) -> Option<&str> {
    (!copy.is_null()).then(|| copy["outcome"].as_str().unwrap_or("sent"))
}

/// As a table: hops in order, each with its verdicts and its copies below it.
pub(super) fn show(trace: &Value) -> String {
    let records = items(trace, "records");
    let spans: BTreeSet<&str> = records.iter().filter_map(|record| record["span_id"].as_str()).collect();
    let is_first = |record: &&Value| !record["parent_id"].as_str().is_some_and(|parent| spans.contains(parent));
    let mut rows = Vec::new();
    for first in records.iter().filter(is_first) {
        add(records, first, 0, &mut rows);
    }
    let header = ["router", "step", "what", "waited", "module", "generation", "detail"];
    let mut shown = format!("trace {}\n{}", text(&trace["trace_id"]), table(&header, &["waited", "module"], rows));
    for router in items(trace, "routers") {
        let [name, skipped, left_out] = ["router", "not_recorded", "left_out"].map(|field| text(&router[field]));
        if skipped != "0" {
            shown += &format!("{name} has not recorded {skipped} steps since its start: there were too many at once\n");
        }
        if left_out != "0" {
            shown += &format!("{name} has {left_out} records more\n");
        }
    }
    for (router, why) in trace["missing"].as_object().into_iter().flatten() {
        shown += &format!("{router} does not answer: {}\n", text(why));
    }
    if !is_whole(trace) {
        shown += "not every copy has arrived or is recorded\n";
    }
    shown
}

/// A record, and those that follow from it. Numbers of spans make no rings: a copy comes after its hop.
fn add(records: &[Value], record: &Value, depth: usize, rows: &mut Vec<Vec<String>>) {
    // Deeper than an event goes: whatever it is, it ends.
    if depth > 64 {
        return;
    }
    let router = text(&record["router"]);
    let row = |step: &str, what: String, rest: [String; 4]| {
        [vec![router.clone(), format!("{}{step}", "  ".repeat(depth)), what], rest.to_vec()].concat()
    };
    let none = String::new;
    let waited = time(&record["took_ns"]);
    let hop = &record["hop"];
    if !hop.is_null() {
        let step = if hop["from"].is_null() { "publish" } else { "receive" };
        let detail = [&hop["detail"], &record["topic"]].map(text).join(" ");
        rows.push(row(
            step,
            text(&hop["outcome"]),
            [none(), none(), text(&hop["generation"]), detail.trim().to_owned()],
        ));
        for verdict in items(&record["hop"], "verdicts") {
            let step = format!("  {} {}", text(&verdict["stage"]), text(&verdict["binding"]));
            let took = format!("{} for {}", time(&verdict["batch_took_ns"]), text(&verdict["batch_events"]));
            let detail = [text(&verdict["module"]), said(verdict)].join(" ");
            rows.push(row(&step, text(&verdict["verdict"]), [none(), took, text(&hop["generation"]), detail]));
        }
    } else if record["link"].is_null() {
        let (session, said) = (text(&record["delivery"]["session"]), outcome(&record["delivery"]));
        rows.push(row("deliver", said.unwrap_or("sent").into(), [waited, none(), none(), session]));
    } else {
        let (to, said) = (format!("to {}", text(&record["link"]["to"])), outcome(&record["link"]));
        rows.push(row("link", said.unwrap_or("sent").into(), [waited, none(), none(), to]));
    }
    for next in
        records.iter().filter(|next| next["parent_id"] == record["span_id"] && next["span_id"] != record["span_id"])
    {
        add(records, next, depth + 1, rows);
    }
}

/// What a verdict says beside its kind.
fn said(verdict: &Value) -> String {
    let mut said = Vec::new();
    if !items(verdict, "targets").is_empty() {
        said.push(format!("to {}", text(&verdict["targets"])));
    }
    for (field, word) in [("changed", "changed"), ("emitted", "emitted others"), ("last_good", "by the version before")]
    {
        if verdict[field] == true {
            said.push(word.to_owned());
        }
    }
    if let Some(fault) = verdict["fault"].as_str() {
        said.push(format!("FAULT {fault}"));
    }
    if let Some(reason) = verdict["reason"].as_str().filter(|reason| !reason.is_empty()) {
        said.push(reason.to_owned());
    }
    said.join(", ")
}

/// Nanoseconds for people.
fn time(ns: &Value) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let us = ns.as_u64().unwrap_or_default() as f64 / 1_000.0;
    if us < 1_000.0 { format!("{us:.1} us") } else { format!("{:.1} ms", us / 1_000.0) }
}

/// What to say where there is nothing to follow an event with.
pub(super) fn not_with(what: &str) -> Failure {
    Failure::new(Exit::Usage, format!("--trace follows one event, and {what} publishes several"))
        .next("publish one with -m or -f")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn records() -> Value {
        let verdict = json!({"stage": "ingress", "binding": "check", "module": "schema@1.0.0", "verdict": "pass",
            "targets": ["topic:audit/log"], "batch_took_ns": 12_300, "batch_events": 3, "changed": true, "fault": "trap"});
        json!([
            {"router": "eu/r1", "span_id": "a", "parent_id": "0", "topic": "orders/eu",
             "hop": {"outcome": "routed", "generation": 7, "subscribers": 1, "groups": 0, "sites": ["us"], "verdicts": [verdict]}},
            {"router": "eu/r1", "span_id": "b", "parent_id": "a", "took_ns": 2_000, "delivery": {"session": "s"}},
            {"router": "eu/r1", "span_id": "c", "parent_id": "a", "took_ns": 3_000_000, "link": {"to": "us/r1"}},
            {"router": "us/r1", "span_id": "d", "parent_id": "c", "topic": "orders/eu",
             "hop": {"from": "eu/r1", "outcome": "unmatched", "generation": 6, "subscribers": 0, "groups": 0, "sites": []}},
        ])
    }

    #[test]
    fn a_trace_is_whole_when_every_copy_has_come() {
        let whole = |records: &Value| is_whole(&json!({ "records": records }));
        let all = records();
        assert!(whole(&all));
        for at in 0..4 {
            let mut some = all.as_array().cloned().unwrap_or_default();
            some.remove(at);
            assert!(!whole(&json!(some)), "without record {at}");
        }
        assert!(!whole(&json!([])));
        // A copy that was shed comes nowhere, and that is known.
        let mut shed = all.as_array().cloned().unwrap_or_default();
        shed.pop();
        assert!(!whole(&json!(shed)));
        shed[2]["link"]["outcome"] = json!("shed");
        assert!(whole(&json!(shed)));
        assert!(show(&json!({"trace_id": "t", "records": shed})).contains("shed"));
    }

    #[test]
    fn hops_verdicts_and_copies_are_shown_in_order() {
        let routers = json!([{"router": "us/r1", "not_recorded": 4, "left_out": 0}]);
        let shown =
            show(&json!({"trace_id": "t", "records": records(), "routers": routers, "missing": {"jp/r1": "late"}}));
        let at = |part: &str| shown.find(part).unwrap_or_else(|| panic!("{part} is missing in\n{shown}"));
        let parts = [
            "publish",
            "ingress check",
            "12.3 us for 3",
            "schema@1.0.0 to topic:audit/log, changed, FAULT trap",
            "deliver",
            "2.0 us",
            "link",
            "3.0 ms",
            "to us/r1",
            "receive",
            "unmatched",
            "us/r1 has not recorded 4",
            "jp/r1 does not",
        ];
        assert!(parts.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{shown}");
    }
}
