//! What was found out about one binding: counts, and samples of differences without the events' payloads.

use super::report::{SampledKey, ShadowSaid, ShadowSample, ShadowTransition};
use crate::capture::Verdict;
use crate::compare::{Difference, Told, Transitions};
use myelin_catalog::{Digest, OnFault};
use myelin_engine::{Decision, EventView, ExpectedKind, TapedEvent};
use myelin_wire::{Attrs, attrs};
use std::collections::VecDeque;

/// Pairs of verdicts of one binding that are told apart.
const TRANSITIONS_MAX: usize = 32;
/// Samples that are kept of one binding: the newest. All that a router says of a shadow fits one answer, as long as no
/// rollout brings very many bindings.
pub(super) const SAMPLES_MAX: usize = 16;
/// Bytes of a text that a filter chose, such as a reason.
const TEXT_BYTES_MAX: usize = 128;
/// Routes that a sample names.
const ROUTES_MAX: usize = 8;

/// An event that both sets have judged, or one of them.
pub(super) struct Compared<'a> {
    pub(super) view: EventView<'a>,
    /// What the active binding said, and what becomes of an event on which it fails; none where there is none here.
    pub(super) old: Option<(&'a TapedEvent, OnFault)>,
    /// The same of the new one.
    pub(super) new: Option<(&'a TapedEvent, OnFault)>,
}

/// The counts of one binding.
#[derive(Debug)]
pub(super) struct Tally {
    /// Events that were compared.
    pub(super) events: u64,
    /// Those that are judged otherwise.
    pub(super) differences: u64,
    /// Those on which the new filter failed.
    pub(super) traps: u64,
    /// Those that the new one rejects, and those that the active one rejects.
    pub(super) rejects: u64,
    pub(super) base_rejects: u64,
    /// Questions to the host that the active one did not ask.
    pub(super) asked_otherwise: u64,
    transitions: Transitions,
    samples: VecDeque<ShadowSample>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            events: 0,
            differences: 0,
            traps: 0,
            rejects: 0,
            base_rejects: 0,
            asked_otherwise: 0,
            transitions: Transitions::new(TRANSITIONS_MAX),
            samples: VecDeque::new(),
        }
    }
}

impl Tally {
    /// Counts one event.
    pub(super) fn add(&mut self, compared: &Compared<'_>, (worker, at_unix_ns): (u8, u64)) {
        let Compared { view, old, new } = compared;
        self.events += 1;
        self.traps += u64::from(new.is_some_and(|(new, _)| new.fault.is_some()));
        self.rejects += u64::from(is_reject(*new));
        self.base_rejects += u64::from(is_reject(*old));
        let (old, new) = (old.map(|(old, _)| old), new.map(|(new, _)| new));
        if is_same(old, new) {
            return;
        }
        let Some(difference) = Difference::between(&told(old), &told(new)) else { return };
        self.differences += 1;
        let Difference { from, to, fields } = difference;
        let (from, to) = (cut(&from), cut(&to));
        let differs = fields.iter().map(|field| (*field).to_owned()).collect();
        self.transitions.count(&Difference { from, to, fields });
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(ShadowSample {
            at_unix_ms: at_unix_ns / 1_000_000,
            worker,
            topic: view.topic.to_owned(),
            key: Attrs::new(view.attrs)
                .own(attrs::KEY)
                .map(|key| SampledKey { bytes: key.len(), hash: Digest::of(key).short() }),
            payload_bytes: view.payload.len(),
            differs,
            old: said(old),
            new: said(new),
        });
    }

    pub(super) fn transitions(&self) -> Vec<ShadowTransition> {
        let transitions = self.transitions.iter();
        transitions.map(|(from, to, count)| ShadowTransition { from: from.into(), to: to.into(), count }).collect()
    }

    pub(super) fn samples(&self) -> Vec<ShadowSample> {
        self.samples.iter().cloned().collect()
    }
}

/// Whether an event is refused after what was said about it.
fn is_reject(said: Option<(&TapedEvent, OnFault)>) -> bool {
    said.is_some_and(|(said, on_fault)| match &said.decision {
        Some(decision) => decision.verdict == ExpectedKind::Deny,
        None => matches!(on_fault, OnFault::Reject | OnFault::LastGood),
    })
}

/// Whether both say the same, as far as that shows without looking at each part: the common case.
fn is_same(old: Option<&TapedEvent>, new: Option<&TapedEvent>) -> bool {
    if [old, new].into_iter().flatten().any(|said| said.fault.is_some()) {
        return false;
    }
    match (old.and_then(|old| old.decision.as_ref()), new.and_then(|new| new.decision.as_ref())) {
        (Some(old), Some(new)) => old == new,
        _ => false,
    }
}

/// What was said, as a replay tells it; an event that nobody judged went on.
fn told(said: Option<&TapedEvent>) -> Told {
    let Some(said) = said else { return Told::went_on() };
    match (&said.fault, &said.decision) {
        (Some(fault), _) => Told::Fault(fault.code().to_owned()),
        (None, Some(decision)) => Told::Verdict(Verdict::from(decision)),
        (None, None) => Told::NotRecorded("its verdict".to_owned()),
    }
}

fn said(said: Option<&TapedEvent>) -> ShadowSaid {
    let fault = said.and_then(|said| said.fault.as_ref()).map(|fault| fault.code().to_owned());
    let decision = said.and_then(|said| said.decision.as_ref()).filter(|_| fault.is_none());
    let Some(Decision { verdict, reason, routes, payload, attrs, emitted, .. }) = decision else {
        let verdict = if said.is_some() { "fault" } else { "not-judged" };
        return ShadowSaid { verdict: verdict.to_owned(), fault, ..ShadowSaid::default() };
    };
    ShadowSaid {
        verdict: verdict.as_str().to_owned(),
        fault,
        reason: reason.as_deref().map(cut),
        routes: routes.iter().take(ROUTES_MAX).map(|route| cut(route)).collect(),
        payload_bytes: payload.as_ref().map(Vec::len),
        headers_changed: attrs.is_some(),
        emitted: emitted.len(),
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}
