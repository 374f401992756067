//! `myelin-guard FUNCTION`: does the work of the hot path once, for callgrind to count.
//!
//! `cargo xtask guard` counts the instructions inside the function of that name, and of nothing else.
#![forbid(unsafe_code)]

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use myelin_benches::judging::{self, Judging};
use myelin_benches::subscriptions::{table, topic};
use myelin_core::{MatchSet, Table};
use myelin_load::{Cell, Form, Payload};
use myelin_schema::{Format, Source, Validator};
use myelin_wire::stream::{DataDecoder, Item, write_deliver_head};
use myelin_wire::{EventBuilder, FrameHeader, FrameType, Limits, Stamp};
use std::hint::black_box;

/// Events of a frame.
const EVENTS: usize = 64;
/// Bytes of each payload.
const PAYLOAD_BYTES: usize = 128;
/// Subscriptions of the table: enough for its depth, few enough for an emulator.
const SUBSCRIPTIONS: usize = 10_000;
/// Topics that are matched.
const TOPICS: usize = 256;
/// The guest whose batch is counted: committed, because compilers differ in what they make of its source.
const GUEST: &[u8] = include_bytes!("../guard-filter.wasm");
/// Its configuration and its declared route.
const CONFIG: &[u8] = br#"{"tenants":["acme"]}"#;
const GRANT: &str = "audit/orders";

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("decode") => {
            let mut body = Vec::new();
            encode(&mut body, &[b'.'; PAYLOAD_BYTES])?;
            let mut frame = FrameHeader::new(FrameType::Events, u32::try_from(body.len())?).to_bytes().to_vec();
            frame.extend_from_slice(&body);
            let mut decoder = DataDecoder::new(FrameType::Events, Limits::default().delivered_len_max());
            ensure!(decode(&mut decoder, &frame.into())? == EVENTS, "events were lost");
        }
        Some("match_topics") => {
            let table = table(SUBSCRIPTIONS)?;
            let topics: Vec<String> = (0..TOPICS).map(|number| topic(number * SUBSCRIPTIONS / TOPICS)).collect();
            let mut out = MatchSet::default();
            ensure!(match_topics(&table, &topics, &mut out) >= TOPICS, "a topic has no subscriber");
        }
        Some("encode") => {
            let mut out = Vec::with_capacity(EVENTS * 2 * PAYLOAD_BYTES);
            encode(&mut out, &[b'.'; PAYLOAD_BYTES])?;
            black_box(out);
        }
        Some("filter_batch") => {
            let program = judging::load(GUEST, false)?;
            let mut judging = Judging::wasm(&program, 1, CONFIG, GRANT)?;
            ensure!(filter_batch(&mut judging)?, "the events do not pass");
        }
        Some("judge_json") => {
            let (_, text) = Form::Json.schema().context("JSON has a schema")?;
            let validator = Validator::compile(&Source { format: Format::Json, text, references: &[] })?;
            let payloads = json_payloads()?;
            // Once before, so that memory is there and the processor was asked what it can do.
            validator.validate(&payloads[0])?;
            ensure!(judge_json(&validator, &payloads)? > 0, "judging takes some time");
        }
        other => bail!("{other:?} is none of decode, match_topics, encode, filter_batch, judge_json"),
    }
    Ok(())
}

/// A frame of events out of the bytes of a stream.
#[inline(never)]
fn decode(decoder: &mut DataDecoder, frame: &Bytes) -> anyhow::Result<usize> {
    decoder.push(frame);
    let mut events = 0;
    while let Some(item) = decoder.poll()? {
        let Item::Event(span) = item else { continue };
        black_box(span.payload(decoder.buffer()));
        events += 1;
    }
    decoder.discard();
    Ok(events)
}

/// Who gets each topic.
#[inline(never)]
fn match_topics(table: &Table, topics: &[String], out: &mut MatchSet) -> usize {
    let mut targets = 0;
    for topic in topics {
        table.matches(topic, out);
        targets += out.targets();
    }
    targets
}

/// Events as a publisher writes them, and the head of a delivery of them.
#[inline(never)]
fn encode(out: &mut Vec<u8>, payload: &[u8]) -> anyhow::Result<()> {
    for _ in 0..EVENTS {
        EventBuilder { topic_ref: 1, attrs: &[], payload, request: false }.write(out)?;
    }
    let mut head = Vec::with_capacity(64);
    let count = u32::try_from(EVENTS).context("few events")?;
    write_deliver_head(&mut head, &Stamp { count, ..Stamp::default() }, out.len());
    black_box(head);
    Ok(())
}

/// A full batch through one Wasm filter.
#[inline(never)]
fn filter_batch(judging: &mut Judging) -> anyhow::Result<bool> {
    judging.run(EVENTS)
}

/// Payloads as `bench governance` publishes them.
fn json_payloads() -> anyhow::Result<Vec<Vec<u8>>> {
    let cell = Cell { payload_bytes: PAYLOAD_BYTES, publishers: 1, subscribers: 1 };
    let mut payload = Payload::of(&cell, 0, Form::Json)?;
    Ok((0..EVENTS as u64).map(|number| payload.write(number, number * 1_000).to_vec()).collect())
}

/// Payloads by a JSON schema, as at their first hop.
#[inline(never)]
fn judge_json(validator: &Validator, payloads: &[Vec<u8>]) -> anyhow::Result<u64> {
    let mut work_ns = 0;
    for payload in payloads {
        validator.judge(&[0], black_box(payload), &mut work_ns)?;
    }
    Ok(work_ns)
}
