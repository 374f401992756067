//! A batch that the active filters have judged, copied for the shadow, and what each new filter would have seen of it.

use super::Subject;
use crate::capture::Taken;
use crate::generation::BindingPlan;
use myelin_catalog::{OnFault, Stage};
use myelin_engine::{EventView, ExpectedKind, HostCall, Tape, TapedEvent};
use std::sync::Arc;

/// What a copied batch costs beside its bytes, event by event: its places and its verdict on the tape.
const EVENT_OVERHEAD_BYTES: usize = 128;

/// A copied batch.
pub(super) struct Work {
    /// Topic, attributes, payload and identity of every event, one after the other.
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<[usize; 4]>,
    pub(super) stage: Stage,
    pub(super) now_unix_ns: u64,
    pub(super) now_ms: u64,
    pub(super) worker: u8,
    /// The bindings that judged it; none where one is not known.
    chain: Vec<Option<Arc<BindingPlan>>>,
    tape: Tape,
}

/// An event as a binding of either set saw it, or would have.
pub(super) struct Seen<'a> {
    pub(super) view: EventView<'a>,
    /// What the active binding said; none where there is none.
    pub(super) old: Option<&'a TapedEvent>,
}

impl Work {
    /// Copies what the active filters judged.
    pub(super) fn copy(taken: &Taken<'_>, stage: Stage, now_ms: u64) -> Self {
        let parts =
            |view: &EventView<'_>| view.topic.len() + view.attrs.len() + view.payload.len() + view.identity.len();
        let mut bytes = Vec::with_capacity(taken.views.iter().map(parts).sum());
        let mut ends = Vec::with_capacity(taken.views.len());
        for view in taken.views {
            ends.push([view.topic.as_bytes(), view.attrs, view.payload, view.identity.as_bytes()].map(|part| {
                bytes.extend_from_slice(part);
                bytes.len()
            }));
        }
        Self {
            bytes,
            ends,
            stage,
            now_unix_ns: taken.now_unix_ns,
            now_ms,
            worker: taken.worker,
            chain: taken.chain.to_vec(),
            tape: taken.tape.cloned().unwrap_or_default(),
        }
    }

    /// How many bytes it takes, about.
    pub(super) fn size(&self) -> usize {
        let events = self.tape.judged.iter().flat_map(|taped| &taped.events);
        self.bytes.len() + self.ends.len() * EVENT_OVERHEAD_BYTES + events.map(made).sum::<usize>()
    }

    pub(super) fn views(&self) -> Vec<EventView<'_>> {
        let mut start = 0;
        let views = self.ends.iter().map(|ends| {
            let [topic, attrs, payload, identity] =
                ends.map(|end| &self.bytes[std::mem::replace(&mut start, end)..end]);
            // They were text when they were copied.
            let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
            EventView { topic: text(topic), attrs, payload, identity: text(identity) }
        });
        views.collect()
    }

    /// The events that are to be compared for `subject`, as the binding saw them or would have, and what the active one
    /// asked its host meanwhile.
    pub(super) fn seen<'a>(&'a self, subject: &Subject, views: &[EventView<'a>]) -> (Vec<Seen<'a>>, &'a [HostCall]) {
        let is_it = |plan: &Option<Arc<BindingPlan>>| plan.as_ref().is_some_and(|plan| plan.name == subject.name);
        let place = subject.old.as_ref().and_then(|_| self.chain.iter().position(is_it));
        let Some(place) = place else { return (self.passing(subject, views), &[]) };
        // Where events before it have all ended, it was not asked.
        let Some(taped) = self.tape.judged.iter().find(|taped| taped.binding == place) else {
            return (Vec::new(), &[]);
        };
        let seen = taped.events.iter().filter_map(|event| {
            let view = *views.get(event.event)?;
            let (attrs, payload) = (event.attrs.as_deref(), event.payload.as_deref());
            let view =
                EventView { attrs: attrs.unwrap_or(view.attrs), payload: payload.unwrap_or(view.payload), ..view };
            Some(Seen { view, old: Some(event) })
        });
        (seen.collect(), &taped.calls)
    }

    /// The events that come to the place of a binding which the active set does not have here: those that the active
    /// bindings before that place let go on, as those left them.
    fn passing<'a>(&'a self, subject: &Subject, views: &[EventView<'a>]) -> Vec<Seen<'a>> {
        let mut passing: Vec<_> = views.iter().map(|view| Some(*view)).collect();
        for taped in &self.tape.judged {
            let Some(Some(plan)) = self.chain.get(taped.binding) else { continue };
            if !subject.before.contains(&plan.name) {
                continue;
            }
            for event in &taped.events {
                let Some(place) = passing.get_mut(event.event) else { continue };
                *place = place.and_then(|view| after(event, view, plan.card().on_fault));
            }
        }
        passing.into_iter().flatten().map(|view| Seen { view, old: None }).collect()
    }
}

/// Bytes that filters made of an event, or beside it.
fn made(event: &TapedEvent) -> usize {
    let len = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
    let said = event.decision.iter().map(|decision| {
        let emitted = decision.emitted.iter().map(|event| event.topic.len() + event.attrs.len() + event.payload.len());
        len(&decision.attrs) + len(&decision.payload) + emitted.sum::<usize>()
    });
    len(&event.attrs) + len(&event.payload) + said.sum::<usize>()
}

/// An event after a binding; none where it ended there.
fn after<'a>(event: &'a TapedEvent, view: EventView<'a>, on_fault: OnFault) -> Option<EventView<'a>> {
    let view = EventView {
        attrs: event.attrs.as_deref().unwrap_or(view.attrs),
        payload: event.payload.as_deref().unwrap_or(view.payload),
        ..view
    };
    let Some(decision) = &event.decision else { return (on_fault == OnFault::Pass).then_some(view) };
    let goes_on = matches!(decision.verdict, ExpectedKind::Allow | ExpectedKind::Add | ExpectedKind::Redirect);
    goes_on.then(|| EventView {
        attrs: decision.attrs.as_deref().unwrap_or(view.attrs),
        payload: decision.payload.as_deref().unwrap_or(view.payload),
        ..view
    })
}
