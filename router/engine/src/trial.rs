//! A trial: a filter judges events for its author, with the engine's own limits and checks, but without a binding,
//! without a breaker that gives it up, and without a router.

use std::sync::Arc;

use myelin_arena::{Arena, Entry, Kind, Verdict};

use crate::batch::{Batch, BatchError, EventView};
use crate::fault::{FaultCode, FilterFault};
use crate::filter::{Filter, Notes, Outcome};
use crate::grant::Grant;
use crate::info::FilterInfo;
use crate::isolate::run_checked;
use crate::judge::Contract;
use crate::scratch::ChainScratch;
use crate::vectors::{Expect, ExpectedKind, TestVector};

/// A filter under trial. It may route and emit to any topic that is not the router's own.
pub struct Trial {
    filter: Box<dyn Filter>,
    contract: Contract,
    scratch: ChainScratch,
}

/// What a filter says about one event, its numbers resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The kind of verdict.
    pub verdict: ExpectedKind,
    /// The declared reason of a deny or a dead-letter, where there is one.
    pub reason: Option<String>,
    /// The routes as the filter declares them, in the order of their bits.
    pub routes: Vec<String>,
    /// The new payload, where it is replaced.
    pub payload: Option<Vec<u8>>,
    /// The new attribute block, where it is replaced.
    pub attrs: Option<Vec<u8>>,
    /// The text that explains it.
    pub detail: Option<String>,
    /// What is emitted beside the event.
    pub emitted: Vec<EmittedEvent>,
}

/// An event that a filter emits beside another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmittedEvent {
    /// Its topic: valid, and not the router's own.
    pub topic: String,
    /// Its attribute block: valid.
    pub attrs: Vec<u8>,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// One thing in which a decision is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The key of the expectation: `verdict`, `reason`, `routes` or `payload`.
    pub field: &'static str,
    /// What was expected, in words.
    pub expected: String,
    /// What the filter says, in words.
    pub found: String,
}

impl Trial {
    /// Puts a filter that is set up on trial.
    pub fn new(filter: Box<dyn Filter>) -> Self {
        let contract = Contract { info: Arc::clone(filter.info()), grant: Grant::everything() };
        Self { filter, contract, scratch: ChainScratch::new() }
    }

    /// What the filter declared.
    pub fn info(&self) -> &Arc<FilterInfo> {
        &self.contract.info
    }

    /// Memory of the live instance in bytes; `None` for a native filter, and after a fault until the next call.
    pub fn memory_bytes(&self) -> Option<usize> {
        self.filter.memory_bytes()
    }

    /// What it told its host during the last call that did not fault.
    pub fn notes(&self) -> &Notes {
        &self.scratch.outcome.notes
    }

    /// The state for the next version; empty where there is nothing to hand over.
    ///
    /// # Errors
    /// The fault that ended the call.
    pub fn save(&mut self) -> Result<Vec<u8>, FilterFault> {
        self.filter.save()
    }

    /// Judges `events` as one batch and checks the answer, which stays unread: for measuring.
    ///
    /// # Errors
    /// The fault; `host` where the events are no batch.
    pub fn judge(&mut self, events: &[EventView<'_>], now_unix_ns: u64) -> Result<(), FilterFault> {
        let no_batch = |error: BatchError| FilterFault::new(FaultCode::Host, error.to_string());
        let batch = Batch::new(events, now_unix_ns, now_unix_ns / 1_000_000).map_err(no_batch)?;
        self.scratch.begin(events.len());
        let reads_payloads = self.filter.reads_payloads();
        let (view, outcome) = self.scratch.project(&self.contract.info.needs, reads_payloads, &batch, None);
        run_checked(self.filter.as_mut(), &self.contract, &view, outcome)
    }

    /// Judges `events` as one batch. After a fault the next call finds a fresh instance.
    ///
    /// # Errors
    /// The fault; `host` where the events are no batch.
    pub fn decide(&mut self, events: &[EventView<'_>], now_unix_ns: u64) -> Result<Vec<Decision>, FilterFault> {
        self.judge(events, now_unix_ns)?;
        Ok(decisions(&self.contract.info, &self.scratch.outcome))
    }
}

/// What a checked outcome says, its numbers resolved.
pub(crate) fn decisions(info: &FilterInfo, outcome: &Outcome) -> Vec<Decision> {
    let arena = Arena::new(&outcome.output).ok();
    // The outcome was checked, so every announced entry is there.
    let mut entries = arena.iter().flat_map(Arena::entries).filter_map(Result::ok);
    outcome.verdicts.iter().map(|verdict| decision(info, Verdict(*verdict), &mut entries)).collect()
}

fn decision<'a>(info: &FilterInfo, bits: Verdict, entries: &mut impl Iterator<Item = Entry<'a>>) -> Decision {
    let replacement = if bits.replaces_payload() || bits.replaces_attrs() { entries.next() } else { None };
    let detail = if bits.has_detail() { entries.next() } else { None };
    let emitted = entries.take(usize::from(bits.emitted())).map(|entry| EmittedEvent {
        topic: entry.topic.to_owned(),
        attrs: entry.attrs.to_vec(),
        payload: entry.payload.to_vec(),
    });
    let verdict = ExpectedKind::of(bits);
    let gives_reason = matches!(verdict, ExpectedKind::Deny | ExpectedKind::DeadLetter);
    let routes = info.routes.iter().enumerate().filter(|(bit, _)| bits.routes() >> bit & 1 == 1);
    Decision {
        verdict,
        reason: info.reasons.get(usize::from(bits.reason())).filter(|_| gives_reason).cloned(),
        routes: routes.map(|(_, route)| route.to_string()).collect(),
        payload: replacement.filter(|_| bits.replaces_payload()).map(|entry| entry.payload.to_vec()),
        attrs: replacement.filter(|_| bits.replaces_attrs()).map(|entry| entry.attrs.to_vec()),
        detail: detail.map(|entry| String::from_utf8_lossy(entry.payload).into_owned()),
        emitted: emitted.collect(),
    }
}

impl ExpectedKind {
    /// The kind of a checked verdict.
    fn of(bits: Verdict) -> Self {
        match bits.kind() {
            Ok(Kind::Deny) => Self::Deny,
            Ok(Kind::DeadLetter) => Self::DeadLetter,
            Ok(Kind::Drop) => Self::Drop,
            Ok(Kind::Redirect) => Self::Redirect,
            Ok(Kind::Add) => Self::Add,
            Ok(Kind::Allow) | Err(_) => Self::Allow,
        }
    }
}

impl Expect {
    /// Everything in which `decision` is not as expected; what the expectation leaves out may be anything.
    pub fn unmet(&self, decision: &Decision) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        let mut hold = |field, is_met: bool, expected: String, found: String| {
            if !is_met {
                unmet.push(Unmet { field, expected, found });
            }
        };
        let (expected, found) = (self.verdict, decision.verdict);
        hold("verdict", expected == found, expected.as_str().into(), found.as_str().into());
        if let Some(expected) = &self.reason {
            let found = decision.reason.as_deref().unwrap_or_default();
            hold("reason", expected == found, format!("the reason `{expected}`"), format!("`{found}`"));
        }
        if let Some(expected) = &self.routes {
            let (mut expected, mut found) = (expected.clone(), decision.routes.clone());
            expected.sort();
            found.sort();
            hold("routes", expected == found, format!("the routes {expected:?}"), format!("{found:?}"));
        }
        if let Some(expected) = &self.payload {
            let is_met = decision.payload.as_deref().is_some_and(|payload| is_payload(expected, payload));
            let found = match &decision.payload {
                Some(payload) => String::from_utf8_lossy(payload).into_owned(),
                None => "the payload as it came".to_owned(),
            };
            hold("payload", is_met, format!("the payload {expected}"), found);
        }
        unmet
    }
}

/// Text is compared byte for byte, anything else as JSON, whatever its spacing and order.
fn is_payload(expected: &serde_json::Value, payload: &[u8]) -> bool {
    match expected {
        serde_json::Value::String(text) => text.as_bytes() == payload,
        expected => serde_json::from_slice::<serde_json::Value>(payload).is_ok_and(|payload| payload == *expected),
    }
}

impl TestVector {
    /// Its event.
    pub fn view(&self) -> EventView<'_> {
        EventView { topic: &self.topic, attrs: &self.attrs, payload: &self.payload, identity: &self.identity }
    }
}
