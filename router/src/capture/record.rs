//! What the engine taped, as the file says it.

use super::data::{Data, unpacked};
use super::file::{Batch, Bound, Call, Emitted, Event, Fault, Judged, Said, Side, Verdict};
use crate::generation::BindingPlan;
use myelin_engine::{Decision, EventView, FilterFault, HostAnswer, HostCall, Question, Tape, TapedBinding, TapedEvent};
use std::sync::Arc;

/// A batch that was judged, and everything that is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// The events as they came.
    pub views: &'a [EventView<'a>],
    /// The batch's clock.
    pub now_unix_ns: u64,
    /// The thread.
    pub worker: u8,
    /// The generation.
    pub generation: u64,
    /// On which side of the matching.
    pub side: Side,
    /// Whether the events are met for the first time.
    pub entry: bool,
    /// The bindings of the chain; none where one is not known.
    pub chain: &'a [Option<Arc<BindingPlan>>],
    /// What they said.
    pub tape: Option<&'a Tape>,
}

impl Taken<'_> {
    /// The batch with the events that are `wanted` (all, where neighbours stay), those of `matched` marked; `place` says
    /// where a binding stands among those of the file.
    pub(super) fn batch(
        &self,
        matched: &[bool],
        neighbours: bool,
        mut place: impl FnMut(&BindingPlan) -> Option<usize>,
    ) -> Batch {
        let is_kept = |event: usize| neighbours || matched[event];
        // Where an event of the batch stands in the record.
        let mut places = Vec::with_capacity(self.views.len());
        let mut events = Vec::new();
        for (at, view) in self.views.iter().enumerate() {
            places.push(is_kept(at).then_some(events.len()));
            if is_kept(at) {
                events.push(event(view, matched[at]));
            }
        }
        let judged = self.tape.into_iter().flat_map(|tape| &tape.judged).filter_map(|taped| {
            let plan = self.chain.get(taped.binding)?.as_ref()?;
            Some(judged(taped, place(plan)?, &places))
        });
        let judged = judged.collect();
        let cut = events.len() < self.views.len();
        let Self { now_unix_ns, worker, generation, side, entry, .. } = *self;
        Batch { number: 0, worker, generation, now_unix_ns, side, entry, cut, events, judged }
    }
}

/// A binding as the file names it.
pub(super) fn bound(plan: &BindingPlan) -> Bound {
    Bound {
        name: plan.name.to_string(),
        module: plan.module.to_string(),
        digest: plan.digest.to_string(),
        revision: plan.revision,
        stage: plan.card().stage.as_str().to_owned(),
        pattern: plan.card().pattern.as_str().to_owned(),
        config: Some(Data(plan.config().to_vec())),
    }
}

fn event(view: &EventView<'_>, matched: bool) -> Event {
    Event {
        topic: view.topic.to_owned(),
        attrs: unpacked(view.attrs),
        payload: Data(view.payload.to_vec()),
        identity: view.identity.to_owned(),
        matched,
    }
}

fn judged(taped: &TapedBinding, binding: usize, places: &[Option<usize>]) -> Judged {
    let said = |taped: &TapedEvent| {
        Some(Said {
            event: (*places.get(taped.event)?)?,
            attrs: taped.attrs.as_deref().map(unpacked),
            payload: taped.payload.clone().map(Data),
            verdict: taped.decision.as_ref().map(Verdict::from),
            fault: taped.fault.as_ref().map(Fault::from),
        })
    };
    Judged {
        binding,
        events: taped.events.iter().filter_map(said).collect(),
        calls: taped.calls.iter().map(Call::from).collect(),
    }
}

impl From<&Decision> for Verdict {
    fn from(decision: &Decision) -> Self {
        let emitted = decision.emitted.iter().map(|event| Emitted {
            topic: event.topic.clone(),
            attrs: unpacked(&event.attrs),
            payload: Data(event.payload.clone()),
        });
        Self {
            kind: decision.verdict.as_str().to_owned(),
            reason: decision.reason.clone(),
            routes: decision.routes.clone(),
            detail: decision.detail.clone(),
            attrs: decision.attrs.as_deref().map(unpacked),
            payload: decision.payload.clone().map(Data),
            emitted: emitted.collect(),
        }
    }
}

impl From<&FilterFault> for Fault {
    fn from(fault: &FilterFault) -> Self {
        Self { code: fault.code().to_owned(), detail: fault.detail.clone() }
    }
}

impl From<&HostCall> for Call {
    fn from(call: &HostCall) -> Self {
        let flag = call.answer == HostAnswer::Flag(true);
        match call.question.clone() {
            Question::Schema { subject } => {
                let answer = match &call.answer {
                    HostAnswer::Schema(schema) => schema.clone().map(Data),
                    HostAnswer::Flag(_) => None,
                };
                Self::Schema { subject, answer }
            }
            Question::Take { bucket, n, amount, period_ms, burst } => {
                Self::Take { bucket, n, amount, period_ms, burst, answer: flag }
            }
            Question::Seen { key, ttl_ms } => Self::Seen { key, ttl_ms, answer: flag },
        }
    }
}
