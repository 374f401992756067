//! A tape: what each binding of a chain saw of a batch, what it said, and what its host told it meanwhile.
//!
//! Nothing is taped unless the caller asks for it, batch by batch, with
//! [`ChainScratch::record`](crate::ChainScratch::record).

use crate::fault::FilterFault;
use crate::filter::Outcome;
use crate::info::FilterInfo;
use crate::recall::HostCall;
use crate::scratch::{ChainScratch, Version};
use crate::trial::{Decision, decisions};

/// The record of one batch's way through a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tape {
    /// One for each binding that was asked, in order.
    pub judged: Vec<TapedBinding>,
}

/// What one binding did with a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapedBinding {
    /// The binding: index in the chain.
    pub binding: usize,
    /// The events that it judged, in order: those that no binding before has ended.
    pub events: Vec<TapedEvent>,
    /// What it asked its host, in order. Of calls that faulted nothing is known: what they asked counts for nothing.
    pub calls: Vec<HostCall>,
}

/// One event as a binding saw it, and what the binding said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapedEvent {
    /// Index in the batch.
    pub event: usize,
    /// The attributes that it had here, where a binding before has replaced them.
    pub attrs: Option<Vec<u8>>,
    /// The payload that it had here, where a binding before has replaced it.
    pub payload: Option<Vec<u8>>,
    /// What was said; none where the filter has faulted and no version before it has judged.
    pub decision: Option<Decision>,
    /// The filter's fault. A decision beside it is that of the version before.
    pub fault: Option<FilterFault>,
}

impl ChainScratch {
    /// Notes what binding number `binding` is about to see.
    #[cold]
    pub(crate) fn tape_input(&mut self, binding: usize) {
        let seen = self.alive.iter().map(|&event| {
            let state = &self.states[event];
            let owned = |part| self.bytes(part).to_vec();
            let (attrs, payload) = (state.attrs.map(owned), state.payload.map(owned));
            TapedEvent { event, attrs, payload, ..TapedEvent::default() }
        });
        let events = seen.collect();
        if let Some(tape) = &mut self.tape {
            tape.judged.push(TapedBinding { binding, events, calls: Vec::new() });
        }
    }

    /// Notes a checked outcome about the events from `first` on in the list of those alive.
    #[cold]
    pub(crate) fn tape_outcome(&mut self, version: Version, first: usize, info: &FilterInfo, outcome: &mut Outcome) {
        let calls = std::mem::take(&mut outcome.notes.calls);
        let alive = self.alive.clone();
        let Some(taped) = self.tape.as_mut().and_then(|tape| tape.judged.last_mut()) else { return };
        for (event, decision) in alive.iter().skip(first).zip(decisions(info, outcome)) {
            if let Ok(at) = taped.events.binary_search_by_key(event, |taped| taped.event) {
                taped.events[at].decision = Some(decision);
            }
        }
        // A replay is of the version that stands in the binding.
        if version == Version::Current {
            taped.calls.extend(calls);
        }
    }

    /// Notes that the filter has not judged `events`.
    #[cold]
    pub(crate) fn tape_fault(&mut self, events: &[usize]) {
        let fault = self.faults.last().cloned();
        let Some(taped) = self.tape.as_mut().and_then(|tape| tape.judged.last_mut()) else { return };
        for event in events {
            if let Ok(at) = taped.events.binary_search_by_key(event, |taped| taped.event) {
                // The current version's fault comes first, and is what is replayed.
                let known = &mut taped.events[at].fault;
                *known = known.take().or_else(|| fault.clone());
            }
        }
    }
}
