#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::trace::Sampled;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn traced() -> Sampled {
    Sampled::parse(TRACEPARENT.as_bytes()).unwrap()
}

pub(in crate::otlp) fn record(span: &str, parent: &str, topic: &str) -> Record {
    Record {
        trace_id: traced().trace,
        span_id: span.parse().unwrap(),
        parent_id: parent.parse().unwrap(),
        router: "hamburg/r1".into(),
        topic: topic.into(),
        event: Some("00000001-00000002-00-0000000000000003".into()),
        begin_unix_ns: 1_000,
        took_ns: 500,
        hop: None,
        link: None,
        delivery: None,
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => format!("#{number}"),
        Value::BoolValue(flag) => flag.to_string(),
        Value::ArrayValue(array) => {
            let texts = array.values.iter().filter_map(|one| one.value.as_ref().map(self::value));
            format!("[{}]", texts.collect::<Vec<_>>().join(" "))
        }
        other => format!("{other:?}"),
    }
}

pub(in crate::otlp) fn attributes(attributes: &[KeyValue]) -> Vec<String> {
    let of = |one: &KeyValue| {
        format!("{}={}", one.key, one.value.as_ref().and_then(|any| any.value.as_ref()).map_or(String::new(), value))
    };
    attributes.iter().map(of).collect()
}

/// A span as text, a line each for what it is and for every attribute.
fn show(span: &Span) -> String {
    let [trace, own, parent] = [&span.trace_id, &span.span_id, &span.parent_span_id].map(hex::encode);
    let (kind, status) = (span.kind().as_str_name(), span.status.clone().unwrap_or_default());
    let times = format!("{}-{}", span.start_time_unix_nano, span.end_time_unix_nano);
    assert_eq!(trace, traced().trace.to_string());
    let status = format!("{} {}", status.code().as_str_name(), status.message);
    let head = format!("{} {kind} {own} below {parent}, {times}, flags {:x}, {status}", span.name, span.flags);
    [vec![head.trim_end().to_owned()], attributes(&span.attributes)].concat().join("\n  ")
}

pub(in crate::otlp) fn spans(request: &ExportTraceServiceRequest) -> Vec<Span> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

fn shown(record: &Record) -> String {
    let request = request(&Place::default().resource(), std::iter::once(record));
    let spans = spans(&request);
    assert_eq!(spans.len(), count(record));
    spans.iter().map(show).collect::<Vec<_>>().join("\n")
}

/// A filter that lets pass, and one that has faulted.
fn verdicts() -> Vec<Verdict> {
    let gate = Verdict {
        stage: "ingress".into(),
        binding: "gate".into(),
        module: "topic-policy@0.1.0".into(),
        digest: "ab".repeat(32),
        verdict: "pass".into(),
        targets: vec!["topic:audit/log".into()],
        changed: true,
        began_ns: 100,
        batch_took_ns: 50,
        batch_events: 7,
        ..Verdict::default()
    };
    let check = Verdict {
        stage: "ingress".into(),
        binding: "check".into(),
        module: "schema@1.2.0".into(),
        verdict: "deny".into(),
        reason: "no".into(),
        fault: Some("trap".into()),
        last_good: true,
        began_ns: 150,
        batch_took_ns: 25,
        batch_events: 6,
        ..Verdict::default()
    };
    vec![gate, check]
}

#[test]
fn a_hop_and_its_verdicts_are_a_consumer_with_children() {
    let hop = HopRecord {
        from: Some("ohio/r1".into()),
        publisher: "spiffe://test/service/shop".into(),
        generation: 7,
        outcome: "deny".into(),
        detail: "not-for-you: no".into(),
        sites: vec!["ohio".into(), "tokyo".into()],
        verdicts: verdicts(),
        ..HopRecord::default()
    };
    let record = Record { hop: Some(hop), ..record("00000000000000a1", "00f067aa0ba902b7", "orders/1") };
    let [first, second] = [record.span_id.part(0), record.span_id.part(1)];
    let digest = "ab".repeat(32);
    let expected = format!(
        "route SPAN_KIND_CONSUMER 00000000000000a1 below 00f067aa0ba902b7, 1000-1500, flags 301, STATUS_CODE_ERROR not-for-you: no
  messaging.system=myelin
  messaging.destination.name=orders/1
  messaging.message.id=00000001-00000002-00-0000000000000003
  myelin.site=hamburg
  messaging.operation.name=route
  messaging.operation.type=process
  myelin.outcome=deny
  myelin.generation=#7
  myelin.publisher=spiffe://test/service/shop
  myelin.from=ohio/r1
  myelin.subscribers=#0
  myelin.groups=#0
  myelin.sites=[ohio tokyo]
  error.type=deny
judge gate SPAN_KIND_INTERNAL {first} below 00000000000000a1, 1100-1150, flags 101, STATUS_CODE_UNSET
  messaging.system=myelin
  messaging.destination.name=orders/1
  messaging.batch.message_count=#7
  myelin.stage=ingress
  myelin.binding=gate
  myelin.module.name=topic-policy
  myelin.module.version=0.1.0
  myelin.module.digest={digest}
  myelin.verdict=pass
  myelin.targets=[topic:audit/log]
  myelin.changed=true
judge check SPAN_KIND_INTERNAL {second} below 00000000000000a1, 1150-1175, flags 101, STATUS_CODE_ERROR no
  messaging.system=myelin
  messaging.destination.name=orders/1
  messaging.batch.message_count=#6
  myelin.stage=ingress
  myelin.binding=check
  myelin.module.name=schema
  myelin.module.version=1.2.0
  myelin.verdict=deny
  myelin.reason=no
  myelin.last_good=true
  error.type=trap"
    );
    assert_eq!(shown(&record), expected);
}

#[test]
fn copies_are_a_producer_and_a_client() {
    let link = LinkRecord { to: "ohio/r1".into(), hops: 2, outcome: SENT.into() };
    let record = |topic| Record { took_ns: u64::MAX, ..record("00000000000000b1", "00000000000000a1", topic) };
    let expected = format!(
        "forward SPAN_KIND_PRODUCER 00000000000000b1 below 00000000000000a1, 1000-{}, flags 101, STATUS_CODE_UNSET
  messaging.system=myelin
  messaging.destination.name=orders/1
  messaging.message.id=00000001-00000002-00-0000000000000003
  myelin.site=hamburg
  messaging.operation.name=forward
  messaging.operation.type=send
  myelin.to=ohio/r1
  myelin.hops=#2
  myelin.outcome=sent",
        u64::MAX
    );
    assert_eq!(shown(&Record { link: Some(link), ..record("orders/1") }), expected);
    let session = "spiffe://test/service/ear at 127.0.0.1:9".to_owned();
    let of = |subscription, outcome: &str| {
        let delivery = Some(DeliveryRecord { session: session.clone(), subscription, outcome: outcome.into() });
        shown(&Record { delivery, event: None, ..record("") })
    };
    let expected = format!(
        "deliver SPAN_KIND_CLIENT 00000000000000b1 below 00000000000000a1, 1000-{}, flags 101, STATUS_CODE_UNSET
  messaging.system=myelin
  myelin.site=hamburg
  messaging.operation.name=deliver
  messaging.operation.type=send
  myelin.session={session}",
        u64::MAX
    );
    assert_eq!(of(0, SENT), format!("{expected}\n  myelin.outcome=sent"));
    assert_eq!(of(3, SENT), format!("{expected}\n  myelin.subscription=#3\n  myelin.outcome=sent"));
    let expected = expected.replace("STATUS_CODE_UNSET", "STATUS_CODE_ERROR");
    assert_eq!(of(0, "shed"), format!("{expected}\n  myelin.outcome=shed\n  error.type=shed"));
}

#[test]
fn the_page_explains_every_name() {
    let (page, names) = (include_str!("../../../../docs/TRACING.md"), include_str!("../conventions.rs"));
    let names: Vec<_> =
        names.lines().filter(|line| line.starts_with("pub(super)")).filter_map(|line| line.split('"').nth(1)).collect();
    assert!(names.len() > 40 && names.contains(&"myelin.module.digest"), "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !page.contains(&format!("`{name}"))).collect();
    assert!(missing.is_empty(), "not in docs/TRACING.md: {missing:?}");
}

#[test]
fn the_resource_says_which_router_it_is_and_where() {
    let place = |region: &str, cloud: &str| Place {
        site: "hamburg".into(),
        router: "r1".into(),
        region: region.into(),
        cloud: cloud.into(),
    };
    let version = env!("CARGO_PKG_VERSION");
    let who = ["service.name=myelin", &format!("service.version={version}"), "service.instance.id=hamburg/r1"];
    let both = ["myelin.site=hamburg", "myelin.router=r1"];
    let bare = [&who[..], &both].concat();
    assert_eq!(attributes(&place("", "").resource().attributes), bare, "what nobody has said is not made up");
    let full = [&bare[..], &["cloud.provider=own", "cloud.region=eu-north"]].concat();
    assert_eq!(attributes(&place("eu-north", "own").resource().attributes), full);
}
