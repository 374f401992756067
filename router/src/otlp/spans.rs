//! A record as spans: one for what happened, one below it for each verdict.
//!
//! The tree is the one of the records. A hop is a `CONSUMER`: it belongs to a span elsewhere, the publisher's or that of
//! the copy that a neighbour sent. A copy to a neighbour is a `PRODUCER`, because the neighbour's hop belongs to it; one
//! to a session is a `CLIENT`, because the subscriber sees the publisher's `traceparent` and not ours. Verdicts are
//! `INTERNAL`.

#[cfg(test)]
pub(super) mod tests;

use super::conventions as names;
use crate::trace::{DeliveryRecord, HopRecord, LinkRecord, Record, SENT, Verdict};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

/// The flag `sampled` of W3C Trace Context, which every event here has that is recorded.
const SAMPLED: u32 = 0x01;
/// Says that the next flag is meant.
const HAS_IS_REMOTE: u32 = 0x100;
/// The parent is a span of another process.
const IS_REMOTE: u32 = 0x200;

/// Where the router is.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Name of the site.
    pub site: String,
    /// Name of the router.
    pub router: String,
    /// Region of the site; empty where nobody has said it.
    pub region: String,
    /// Cloud of the site; empty where nobody has said it.
    pub cloud: String,
}

impl Place {
    /// Whose spans they are.
    pub(super) fn resource(&self) -> Resource {
        let mut attributes = Attributes::default();
        attributes
            .text(names::SERVICE_NAME, names::SYSTEM)
            .text(names::SERVICE_VERSION, env!("CARGO_PKG_VERSION"))
            .text(names::SERVICE_INSTANCE_ID, &format!("{}/{}", self.site, self.router))
            .text(names::SITE, &self.site)
            .text(names::ROUTER, &self.router)
            .text(names::CLOUD_PROVIDER, &self.cloud)
            .text(names::CLOUD_REGION, &self.region);
        Resource { attributes: attributes.0, ..Resource::default() }
    }
}

/// How many spans a record becomes.
pub(super) fn count(record: &Record) -> usize {
    1 + record.hop.as_ref().map_or(0, |hop| hop.verdicts.len())
}

/// A request for these records.
pub(super) fn request<'a>(resource: &Resource, records: impl Iterator<Item = &'a Record>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: names::SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let mut spans = Vec::new();
    records.for_each(|record| add(record, &mut spans));
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans = ResourceSpans { resource: Some(resource.clone()), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

/// The spans of a record.
fn add(record: &Record, spans: &mut Vec<Span>) {
    let site = record.router.split_once('/').map_or("", |(site, _)| site);
    let mut span = Span {
        trace_id: record.trace_id.as_bytes().to_vec(),
        span_id: record.span_id.as_bytes().to_vec(),
        parent_span_id: record.parent_id.as_bytes().to_vec(),
        start_time_unix_nano: record.begin_unix_ns,
        end_time_unix_nano: record.begin_unix_ns.saturating_add(record.took_ns),
        flags: SAMPLED | HAS_IS_REMOTE,
        ..Span::default()
    };
    let mut attributes = Attributes::default();
    attributes
        .text(names::MESSAGING_SYSTEM, names::SYSTEM)
        .text(names::MESSAGING_DESTINATION_NAME, &record.topic)
        .text(names::MESSAGING_MESSAGE_ID, record.event.as_deref().unwrap_or_default())
        .text(names::SITE, site);
    if let Some(hop) = &record.hop {
        hop_span(hop, &mut span, &mut attributes);
    } else if let Some(link) = &record.link {
        link_span(link, &mut span, &mut attributes);
    } else if let Some(delivery) = &record.delivery {
        delivery_span(delivery, &mut span, &mut attributes);
    }
    span.attributes = attributes.0;
    spans.push(span);
    for (index, verdict) in record.hop.iter().flat_map(|hop| &hop.verdicts).enumerate() {
        spans.push(verdict_span(record, index, verdict));
    }
}

fn operation(span: &mut Span, attributes: &mut Attributes, kind: SpanKind, (name, of): (&str, &str)) {
    span.kind = kind.into();
    span.name = name.to_owned();
    attributes.text(names::MESSAGING_OPERATION_NAME, name).text(names::MESSAGING_OPERATION_TYPE, of);
}

fn hop_span(hop: &HopRecord, span: &mut Span, attributes: &mut Attributes) {
    span.flags |= IS_REMOTE;
    operation(span, attributes, SpanKind::Consumer, (names::ROUTE, names::PROCESS));
    attributes
        .text(names::OUTCOME, &hop.outcome)
        .number(names::GENERATION, hop.generation)
        .text(names::PUBLISHER, &hop.publisher)
        .text(names::FROM, hop.from.as_deref().unwrap_or_default())
        .number(names::SUBSCRIBERS, hop.subscribers as u64)
        .number(names::GROUPS, hop.groups as u64)
        .texts(names::SITES, &hop.sites);
    // Whoever published it has been told so; `drop` and `unmatched` are as it should be.
    if matches!(&*hop.outcome, "refused" | "deny" | "dead-letter") {
        fail(span, attributes, &hop.outcome, &hop.detail);
    } else {
        attributes.text(names::REASON, &hop.detail);
    }
}

fn link_span(link: &LinkRecord, span: &mut Span, attributes: &mut Attributes) {
    operation(span, attributes, SpanKind::Producer, (names::FORWARD, names::SEND));
    attributes.text(names::TO, &link.to).number(names::HOPS, link.hops.into()).text(names::OUTCOME, &link.outcome);
    if link.outcome != SENT {
        fail(span, attributes, &link.outcome, "");
    }
}

fn delivery_span(delivery: &DeliveryRecord, span: &mut Span, attributes: &mut Attributes) {
    operation(span, attributes, SpanKind::Client, (names::DELIVER, names::SEND));
    attributes.text(names::SESSION, &delivery.session);
    if delivery.subscription != 0 {
        attributes.number(names::SUBSCRIPTION, delivery.subscription.into());
    }
    attributes.text(names::OUTCOME, &delivery.outcome);
    if delivery.outcome != SENT {
        fail(span, attributes, &delivery.outcome, "");
    }
}

fn verdict_span(record: &Record, index: usize, verdict: &Verdict) -> Span {
    let begin = record.begin_unix_ns.saturating_add(verdict.began_ns);
    let mut span = Span {
        trace_id: record.trace_id.as_bytes().to_vec(),
        span_id: record.span_id.part(index).as_bytes().to_vec(),
        parent_span_id: record.span_id.as_bytes().to_vec(),
        name: format!("{} {}", names::JUDGE, verdict.binding),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: begin,
        end_time_unix_nano: begin.saturating_add(verdict.batch_took_ns),
        flags: SAMPLED | HAS_IS_REMOTE,
        ..Span::default()
    };
    let (name, version) = verdict.module.rsplit_once('@').unwrap_or((&verdict.module, ""));
    let mut attributes = Attributes::default();
    attributes
        .text(names::MESSAGING_SYSTEM, names::SYSTEM)
        .text(names::MESSAGING_DESTINATION_NAME, &record.topic)
        .number(names::MESSAGING_BATCH_MESSAGE_COUNT, verdict.batch_events as u64)
        .text(names::STAGE, &verdict.stage)
        .text(names::BINDING, &verdict.binding)
        .text(names::MODULE_NAME, name)
        .text(names::MODULE_VERSION, version)
        .text(names::MODULE_DIGEST, &verdict.digest)
        .text(names::VERDICT, &verdict.verdict)
        .text(names::REASON, &verdict.reason)
        .texts(names::TARGETS, &verdict.targets)
        .flag(names::CHANGED, verdict.changed)
        .flag(names::EMITTED, verdict.emitted)
        .flag(names::LAST_GOOD, verdict.last_good);
    // What a filter decides is no error of the filter.
    if let Some(fault) = &verdict.fault {
        fail(&mut span, &mut attributes, fault, &verdict.reason);
    }
    span.attributes = attributes.0;
    span
}

fn fail(span: &mut Span, attributes: &mut Attributes, what: &str, why: &str) {
    attributes.text(names::ERROR_TYPE, what);
    span.status = Some(Status { message: why.to_owned(), code: StatusCode::Error.into() });
}

/// Attributes in the making. What is empty, zero or false says nothing and is left out, but for numbers.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &str, text: &str) -> &mut Self {
        if text.is_empty() { self } else { self.push(key, Value::StringValue(text.to_owned())) }
    }

    fn texts(&mut self, key: &str, texts: &[String]) -> &mut Self {
        let values = texts.iter().map(|text| AnyValue { value: Some(Value::StringValue(text.clone())) }).collect();
        if texts.is_empty() { self } else { self.push(key, Value::ArrayValue(ArrayValue { values })) }
    }

    fn number(&mut self, key: &str, number: u64) -> &mut Self {
        self.push(key, Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    fn flag(&mut self, key: &str, flag: bool) -> &mut Self {
        if flag { self.push(key, Value::BoolValue(true)) } else { self }
    }

    fn push(&mut self, key: &str, value: Value) -> &mut Self {
        self.0.push(KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
        self
    }
}
