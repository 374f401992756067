//! Made-up events: from a seed, so that whoever has the seed has the events.
//!
//! *Mild* ones look like the samples, for traffic; *wild* ones are whatever a stranger may send, for finding faults.

use fastrand::Rng;
use myelin_arena::{Attrs, AttrsBuilder, attrs};
use myelin_engine::{EventView, TestVector};
use serde_json::{Map, Number, Value, json};

/// Longest made-up text, in characters; most of them are much shorter.
const TEXT_CHARS_MAX: usize = 200;
/// Largest made-up payload that is no JSON, in bytes.
const NOISE_BYTES_MAX: usize = 2_000;
/// Deepest made-up JSON that is meant to be read.
const DEPTH_MAX: usize = 3;
/// Deepest made-up JSON that is meant to hurt: beyond what parsers take.
const DEPTH_HURTS: usize = 400;
/// Topics that are tried until one is valid.
const TOPIC_TRIES: usize = 8;
/// The publisher of events whose sample has none.
const IDENTITY: &str = "spiffe://myelin.dev/service/dev";

/// A made-up event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MadeUp {
    /// Its topic: valid.
    pub(super) topic: String,
    /// Its attribute block: valid.
    pub(super) attrs: Vec<u8>,
    /// Its payload.
    pub(super) payload: Vec<u8>,
    /// Who published it.
    pub(super) identity: String,
}

impl MadeUp {
    /// The event of a sample, as it is.
    pub(super) fn from_sample(sample: &TestVector) -> Self {
        let TestVector { topic, attrs, payload, identity, .. } = sample.clone();
        Self { topic, attrs, payload, identity }
    }

    /// As the engine takes it.
    pub(super) fn view(&self) -> EventView<'_> {
        EventView { topic: &self.topic, attrs: &self.attrs, payload: &self.payload, identity: &self.identity }
    }

    /// Bytes that it takes in a batch.
    pub(super) fn bytes(&self) -> usize {
        self.topic.len() + self.attrs.len() + self.payload.len() + self.identity.len()
    }

    /// The payload as hex, where it is no text and a fixture cannot hold it.
    pub(super) fn payload_hex(&self) -> Option<String> {
        std::str::from_utf8(&self.payload).is_err().then(|| hex::encode(&self.payload))
    }

    /// The event as a line of a fixture; bytes that are not UTF-8 are shown as U+FFFD.
    pub(super) fn line(&self) -> String {
        let mut line = Map::new();
        line.insert("topic".into(), self.topic.as_str().into());
        let mut headers = Map::new();
        for attr in Attrs::new(&self.attrs).iter() {
            let value = String::from_utf8_lossy(attr.value).into_owned();
            match attr.tag {
                attrs::HEADER => drop(headers.insert(attr.name.to_owned(), value.into())),
                attrs::TYPE => drop(line.insert("type".into(), value.into())),
                attrs::KEY => drop(line.insert("key".into(), value.into())),
                _ => {}
            }
        }
        if !headers.is_empty() {
            line.insert("headers".into(), headers.into());
        }
        if !self.identity.is_empty() {
            line.insert("identity".into(), self.identity.as_str().into());
        }
        line.insert("payload".into(), String::from_utf8_lossy(&self.payload).into());
        Value::Object(line).to_string()
    }
}

/// Makes events up.
pub(super) struct Maker {
    random: Rng,
    samples: Vec<TestVector>,
    /// Names of headers that may occur.
    headers: Vec<String>,
}

impl Maker {
    /// Makes events like `samples`, with the headers that they or the filter name.
    pub(super) fn new(seed: u64, samples: Vec<TestVector>, needed: &[String]) -> Self {
        let mut headers = needed.to_vec();
        for sample in &samples {
            let named = Attrs::new(&sample.attrs).iter().filter(|attr| attr.tag == attrs::HEADER);
            headers.extend(named.map(|attr| attr.name.to_owned()));
        }
        headers.sort();
        headers.dedup();
        Self { random: Rng::with_seed(seed), samples, headers }
    }

    /// An event much like one of the samples: now and then another number, or a header of another sample.
    pub(super) fn mild(&mut self) -> MadeUp {
        let Some(sample) = self.random.choice(&self.samples) else { return self.of_nothing() };
        let mut event = MadeUp::from_sample(sample);
        if self.random.u8(..4) == 0 {
            event.attrs = self.changed_headers(&event.attrs);
        }
        if let Ok(mut document) = serde_json::from_slice::<Value>(&event.payload)
            && self.random.bool()
        {
            nudge(&mut self.random, &mut document);
            event.payload = document.to_string().into_bytes();
        }
        event
    }

    /// Whatever a stranger may send.
    pub(super) fn wild(&mut self) -> MadeUp {
        match self.random.u8(..10) {
            0..4 if !self.samples.is_empty() => self.changed_sample(),
            0..8 => self.of_nothing(),
            _ => self.nasty(),
        }
    }

    /// A sample with one to three changes.
    fn changed_sample(&mut self) -> MadeUp {
        let Some(sample) = self.random.choice(&self.samples) else { return self.of_nothing() };
        let mut event = MadeUp::from_sample(sample);
        for _ in 0..self.random.usize(1..=3) {
            match self.random.u8(..8) {
                0 => event.topic = self.topic(),
                1 | 2 => event.attrs = self.changed_headers(&event.attrs),
                3 => event.identity = self.identity(),
                4 => event.payload.truncate(self.random.usize(..=event.payload.len())),
                5 => self.flip(&mut event.payload),
                _ => match serde_json::from_slice::<Value>(&event.payload) {
                    Ok(mut document) => {
                        self.mutate(&mut document);
                        event.payload = document.to_string().into_bytes();
                    }
                    Err(_) => self.flip(&mut event.payload),
                },
            }
        }
        event
    }

    /// An event that has nothing to do with the samples, but with the headers that the filter names.
    fn of_nothing(&mut self) -> MadeUp {
        let mut block = AttrsBuilder::new();
        for name in self.headers.clone() {
            if self.random.u8(..4) > 0 {
                block.header(&name, &self.text());
            }
        }
        if self.random.bool() {
            block.own(attrs::TYPE, b"made-up");
        }
        let payload = self.value(0).to_string().into_bytes();
        MadeUp { topic: self.topic(), attrs: block.into_bytes(), payload, identity: self.identity() }
    }

    /// An event with the payload of somebody who means ill.
    fn nasty(&mut self) -> MadeUp {
        let payload = match self.random.u8(..6) {
            0 => Vec::new(),
            1 => (0..self.random.usize(..NOISE_BYTES_MAX)).map(|_| self.random.u8(..)).collect(),
            2 => "[".repeat(DEPTH_HURTS).into_bytes(),
            3 => format!("{}1{}", "{\"a\":".repeat(DEPTH_HURTS), "}".repeat(DEPTH_HURTS)).into_bytes(),
            4 => format!("{{\"a\":{},\"a\":{}}}", self.value(1), self.value(1)).into_bytes(),
            _ => b"\xef\xbb\xbf{\"a\":1e999,\"b\":-0,\"c\":\"\\ud800\"}\0".to_vec(),
        };
        MadeUp { payload, ..self.of_nothing() }
    }

    /// The same block with one of its headers, or another, changed or gone.
    fn changed_headers(&mut self, block: &[u8]) -> Vec<u8> {
        let Some(name) = self.random.choice(&self.headers).cloned() else { return block.to_owned() };
        let others: Vec<_> = self
            .samples
            .iter()
            .filter_map(|sample| Attrs::new(&sample.attrs).header(&name))
            .map(str::to_owned)
            .collect();
        let value = match self.random.u8(..4) {
            0 => None,
            1 => Some(self.text()),
            _ => self.random.choice(&others).cloned(),
        };
        let mut changed = AttrsBuilder::new();
        for attr in Attrs::new(block).iter().filter(|attr| attr.tag != attrs::HEADER || attr.name != name) {
            changed.attr(&attr);
        }
        if let Some(value) = value {
            changed.header(&name, &value);
        }
        changed.into_bytes()
    }

    /// A valid topic: one of a sample with a level changed, or any.
    fn topic(&mut self) -> String {
        for _ in 0..TOPIC_TRIES {
            let sample = self.random.choice(&self.samples).map_or("made/up", |sample| sample.topic.as_str());
            let mut levels: Vec<String> = sample.split('/').map(str::to_owned).collect();
            let level = self.random.usize(..levels.len());
            let text = self.text();
            match self.random.u8(..4) {
                0 => levels.push(text),
                1 if levels.len() > 1 => drop(levels.remove(level)),
                // The first level is mostly what the pattern names.
                _ if level > 0 => levels[level] = text,
                _ => {}
            }
            let topic = levels.join("/");
            if myelin_wire::validate_topic(&topic).is_ok() && !topic.starts_with('$') {
                return topic;
            }
        }
        "made/up".to_owned()
    }

    fn identity(&mut self) -> String {
        let sample = self.random.choice(&self.samples).map(|sample| sample.identity.clone());
        match (self.random.u8(..4), sample) {
            (0 | 1, Some(identity)) if !identity.is_empty() => identity,
            (2, _) => format!("spiffe://made.up/service/{}", self.random.u16(..)),
            _ => IDENTITY.to_owned(),
        }
    }

    /// Changes one value of a document, somewhere in it.
    fn mutate(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) if !map.is_empty() && self.random.u8(..5) > 0 => {
                let key = map.keys().nth(self.random.usize(..map.len())).cloned().unwrap_or_default();
                if self.random.u8(..5) == 0 {
                    map.remove(&key);
                } else if let Some(value) = map.get_mut(&key) {
                    self.mutate(value);
                }
            }
            Value::Array(values) if !values.is_empty() && self.random.u8(..5) > 0 => {
                let index = self.random.usize(..values.len());
                self.mutate(&mut values[index]);
            }
            other => *other = self.value(0),
        }
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            bytes[self.random.usize(..bytes.len())] = self.random.u8(..);
        }
    }

    fn value(&mut self, depth: usize) -> Value {
        let kinds = if depth < DEPTH_MAX { 8 } else { 6 };
        match self.random.u8(..kinds) {
            0 => Value::Null,
            1 => self.random.bool().into(),
            2 => self.random.u16(..).into(),
            3 => self.random.choice([json!(0), json!(-1), json!(u64::MAX), json!(i64::MIN), json!(0.1)]).into(),
            4 => Number::from_f64(self.random.f64() * 1e6 - 5e5).into(),
            5 => self.text().into(),
            6 => (0..self.random.usize(..4)).map(|_| self.value(depth + 1)).collect(),
            _ => {
                (0..self.random.usize(..5)).map(|_| (self.text(), self.value(depth + 1))).collect::<Map<_, _>>().into()
            }
        }
    }

    /// A short word mostly; sometimes nothing, something long, or letters of other scripts.
    fn text(&mut self) -> String {
        let chars = match self.random.u8(..8) {
            0 => 0,
            1 => self.random.usize(..TEXT_CHARS_MAX),
            _ => self.random.usize(1..10),
        };
        let is_plain = self.random.u8(..4) > 0;
        (0..chars)
            .map(|_| if is_plain { self.random.lowercase() } else { self.random.char('\u{20}'..'\u{fff}') })
            .collect()
    }
}

/// Changes numbers a little: what differs between one order and the next.
fn nudge(random: &mut Rng, value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = number.as_u64().filter(|_| random.bool()) {
                // Between a fifth and five times as much.
                *value = (whole.saturating_mul(random.u64(1..=25)) / 5).into();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| nudge(random, value)),
        Value::Object(map) => map.values_mut().for_each(|value| nudge(random, value)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_engine::{ModuleLimits, parse_vectors};

    fn samples() -> Vec<TestVector> {
        let lines = concat!(
            r#"{"topic":"orders/new","headers":{"x-tenant":"acme"},"type":"t","payload":{"n":10,"list":[1,{"a":"b"}]}}"#,
            "\n",
            r#"{"topic":"orders/old","headers":{"x-tenant":"globex"},"identity":"spiffe://a/service/b","payload":"text"}"#
        );
        parse_vectors(lines.as_bytes(), &ModuleLimits::default()).expect("samples")
    }

    fn events(seed: u64, samples: Vec<TestVector>) -> Vec<MadeUp> {
        let mut maker = Maker::new(seed, samples, &["x-region".to_owned()]);
        (0..500).map(|n| if n % 2 == 0 { maker.wild() } else { maker.mild() }).collect()
    }

    #[test]
    fn a_seed_always_gives_the_same_events_and_another_gives_others() {
        assert_eq!(events(7, samples()), events(7, samples()));
        assert_ne!(events(7, samples()), events(8, samples()));
    }

    #[test]
    fn every_event_is_one_that_a_router_would_admit() {
        for event in events(1, samples()).into_iter().chain(events(1, Vec::new())) {
            assert!(myelin_wire::validate_topic(&event.topic).is_ok(), "{event:?}");
            assert!(attrs::validate(&event.attrs, 64).is_ok(), "{event:?}");
            assert!(!event.topic.starts_with('$'));
        }
    }

    #[test]
    fn wild_events_reach_what_filters_stumble_over() {
        let events = events(3, samples());
        assert!(events.iter().any(|event| event.payload.is_empty()));
        assert!(events.iter().any(|event| std::str::from_utf8(&event.payload).is_err()));
        assert!(events.iter().any(|event| event.payload.starts_with(b"[[[[")));
        assert!(events.iter().any(|event| Attrs::new(&event.attrs).header("x-tenant").is_none()));
        assert!(events.iter().any(|event| Attrs::new(&event.attrs).header("x-region").is_some()));
    }

    #[test]
    fn a_line_makes_the_event_again() {
        let sample = samples().remove(0);
        let line = MadeUp::from_sample(&sample).line();
        let again = parse_vectors(line.as_bytes(), &ModuleLimits::default()).expect("a fixture").remove(0);
        assert_eq!((again.topic, again.attrs, again.payload), (sample.topic, sample.attrs, sample.payload));
    }
}
