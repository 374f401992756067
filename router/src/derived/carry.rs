//! One chain's verdicts, carried out: what changes, what ends, and which further events are made.

use super::{DEPTH_MAX, Derived, Judge, Pass, Passing, REASON_BYTES_MAX, Seen, Verdicts};
use crate::hops;
use crate::ledger::Term;
use crate::local::Local;
use bytes::Bytes;
use myelin_engine::{EventView, Fate, Judged, Judgement, RouteTarget};
use myelin_mesh::SiteSet;
use myelin_wire::{Attrs, AttrsBuilder, Code};
use smallvec::SmallVec;
use std::rc::Rc;
use std::sync::Arc;

/// One chain's run, as its verdicts are carried out.
pub(super) struct Context<'a> {
    pub(super) judge: &'a Judge<'a>,
    pub(super) pass: Pass<'a>,
}

/// New attributes and a new payload, where a filter has replaced them.
pub(super) type Changes = (Option<Bytes>, Option<Bytes>);

impl Context<'_> {
    /// Makes the events that follow from one event's verdict: copies for routes, or the event itself where it was
    /// redirected.
    pub(super) fn derive(
        &self,
        judgement: &Judgement<'_>,
        index: usize,
        judged: &Judged<'_>,
        event: &EventView<'_>,
        item: &Passing,
        verdicts: &mut Verdicts,
    ) {
        if !judged.has_targets {
            return;
        }
        let attrs = Bytes::copy_from_slice(judged.attrs.unwrap_or(event.attrs));
        let payload = Bytes::copy_from_slice(judged.payload.unwrap_or(event.payload));
        let mut seen = self.pass.seen.clone();
        seen.extend(self.pass.chain.bindings().iter().map(Rc::as_ptr));
        let mut topics: Vec<&str> = judgement.targets(index).filter_map(topic_of).collect();
        topics.sort_unstable();
        topics.dedup();
        let mut moves = judged.fate == Fate::Redirect;
        if moves && topics.is_empty() {
            // It stays what it is, and goes to some sites only.
            topics.push(event.topic);
        }
        let within = self.within(judgement, index, item);
        for topic in topics {
            let seq = if moves { item.seq } else { None };
            if !std::mem::take(&mut moves) {
                // Other than the event itself, it is not in the pipeline yet.
                self.count_in();
            }
            self.push((topic, within.clone()), attrs.clone(), payload.clone(), seen.clone(), seq, verdicts);
        }
    }

    /// The only sites that may have what follows from an event: those that every binding allows that names some, and
    /// every one before.
    fn within(&self, judgement: &Judgement<'_>, index: usize, item: &Passing) -> Option<SiteSet> {
        let named = judgement.target_sets(index).filter_map(|targets| {
            let names: SmallVec<[&str; 4]> = targets.filter_map(site_of).collect();
            (!names.is_empty()).then(|| self.judge.local.sites(names.into_iter()))
        });
        named.chain(item.within.clone()).reduce(|a, b| a & &b)
    }

    fn count_in(&self) {
        let (ledger, generation) = (&self.judge.local.ledger, self.judge.active.number);
        ledger.add(generation, Term::Emitted, 1);
        ledger.add(generation, Term::InPipeline, 1);
    }

    /// A new event enters the pipeline.
    pub(super) fn enter(&self, topic: &str, attrs: Bytes, payload: Bytes, seen: Seen, verdicts: &mut Verdicts) {
        self.count_in();
        self.push((topic, None), attrs, payload, seen, None, verdicts);
    }

    fn push(
        &self,
        (topic, within): (&str, Option<SiteSet>),
        attrs: Bytes,
        payload: Bytes,
        seen: Seen,
        seq: Option<u64>,
        verdicts: &mut Verdicts,
    ) {
        let (topic, depth) = (Arc::from(topic), self.pass.depth + 1);
        let derived = Derived { topic, attrs, payload, depth, seen, within, seq, is_dead_letter: false };
        let limit = self.judge.local.shared.limits.payload_bytes as usize;
        if depth > DEPTH_MAX || derived.payload.len() > limit {
            return abandon(self.judge.local, self.judge.active.number, derived, verdicts);
        }
        verdicts.derived.push_back(derived);
    }

    /// What changes in an event that goes on; `None` where it may not: a filter can make an event larger, but not larger
    /// than any event may be.
    pub(super) fn changes(
        &self,
        judged: &Judged<'_>,
        item: &Passing,
        event: &EventView<'_>,
        verdicts: &mut Verdicts,
    ) -> Option<Changes> {
        let limit = self.judge.local.shared.limits.payload_bytes as usize;
        if let Some(payload) = judged.payload.filter(|payload| payload.len() > limit) {
            self.judge.settle(self.pass.is_egress, item, Term::Rejected);
            let detail = format!("a filter made the payload {} bytes long; {limit} are allowed", payload.len());
            let why = (Code::FilterFault, &*detail);
            hops::not_allowed(self.judge.local, verdicts.watch.as_deref_mut(), event, item.seq, why);
            refuse(verdicts, item, Code::FilterFault, detail);
            return None;
        }
        Some((judged.attrs.map(Bytes::copy_from_slice), judged.payload.map(Bytes::copy_from_slice)))
    }

    /// An event that a filter has ended: counted, told to the publisher, and kept as a dead letter where it is to be.
    pub(super) fn end(&self, judged: &Judged<'_>, item: &Passing, event: &EventView<'_>, verdicts: &mut Verdicts) {
        let binding =
            judged.binding.and_then(|index| self.pass.chain.bindings().get(index)).map_or("", |binding| binding.name());
        let why = match judged.fault {
            Some(fault) => format!("{}: {}", fault.code(), fault.detail),
            None if judged.detail.is_empty() => judged.reason.to_owned(),
            None if judged.reason.is_empty() => judged.detail.to_owned(),
            None => format!("{}: {}", judged.reason, judged.detail),
        };
        // What a filter says besides may quote payloads: traces are for more people than those.
        let declared = judged.fault.map_or(judged.reason, |fault| fault.code());
        let letter = (judged.fate == Fate::DeadLetter).then(|| self.judge.letter(binding, event));
        let (fate, why, told) = match &letter {
            Some(Err(unburied)) => (Fate::Deny, format!("{why} ({unburied})"), format!("{declared} ({unburied})")),
            _ => (judged.fate, why, declared.to_owned()),
        };
        let (term, code) = match fate {
            Fate::Drop => (Term::Dropped, None),
            Fate::DeadLetter => (Term::DeadLettered, Some(Code::DeadLettered)),
            _ if judged.fault.is_some() => (Term::Rejected, Some(Code::FilterFault)),
            _ => (Term::Rejected, Some(Code::Denied)),
        };
        self.judge.settle(self.pass.is_egress, item, term);
        if let Some(watch) = &mut verdicts.watch {
            hops::ended(self.judge.local, watch, event, item.seq, (fate.as_str(), &told));
        }
        if let Some(code) = code.filter(|_| !self.pass.is_egress) {
            refuse(verdicts, item, code, format!("{binding}: {why}"));
        }
        if let Some(Ok(letter)) = letter {
            self.bury(letter, (binding, &why), item, event, verdicts);
        }
    }

    /// Publishes a dead letter: the event under `$dead/<binding>/<topic>`, with the reason in its headers.
    fn bury(
        &self,
        topic: String,
        (binding, why): (&str, &str),
        item: &Passing,
        event: &EventView<'_>,
        verdicts: &mut Verdicts,
    ) {
        let module = self.judge.active.module_of(binding).unwrap_or_default();
        let mut attrs = AttrsBuilder::new();
        Attrs::new(event.attrs).iter().filter(|attr| !attr.name.starts_with("myelin-")).for_each(|attr| {
            attrs.attr(&attr);
        });
        attrs
            .header("myelin-reason", &why[..why.floor_char_boundary(REASON_BYTES_MAX)])
            .header("myelin-binding", binding)
            .header("myelin-module", &module)
            .header("myelin-generation", &self.judge.active.number.to_string())
            .header("myelin-topic", event.topic);
        self.count_in();
        tracing::debug!(binding, why, topic = event.topic, seq = item.seq, "dead letter");
        verdicts.derived.push_back(Derived {
            topic: Arc::from(topic),
            attrs: Bytes::from(attrs.into_bytes()),
            payload: Bytes::copy_from_slice(event.payload),
            depth: self.pass.depth + 1,
            seen: Seen::new(),
            within: item.within.clone(),
            seq: None,
            is_dead_letter: true,
        });
    }
}

/// Refuses a derived event that goes too deep, is too large, or is one too many.
pub fn abandon(local: &Local, generation: u64, derived: Derived, verdicts: &mut Verdicts) {
    local.ledger.sub(generation, Term::InPipeline, 1);
    local.ledger.add(generation, Term::Rejected, 1);
    let detail = format!("filters sent it on too often, too large, or with too many others, to {}", derived.topic);
    let event = EventView { topic: &derived.topic, attrs: &derived.attrs, ..EventView::default() };
    hops::not_allowed(local, verdicts.watch.as_deref_mut(), &event, derived.seq, (Code::FilterFault, &detail));
    if let Some(seq) = derived.seq {
        verdicts.exceptions.push((seq, Code::FilterFault, detail));
    }
    tracing::warn!(topic = &*derived.topic, depth = derived.depth, "a derived event is refused");
}

pub(super) fn refuse(verdicts: &mut Verdicts, item: &Passing, code: Code, detail: String) {
    if let Some(seq) = item.seq {
        verdicts.exceptions.push((seq, code, detail));
    }
}

fn topic_of(target: &RouteTarget) -> Option<&str> {
    match target {
        RouteTarget::Topic(topic) => Some(topic.as_str()),
        RouteTarget::Site(_) => None,
    }
}

fn site_of(target: &RouteTarget) -> Option<&str> {
    match target {
        RouteTarget::Site(site) => Some(site),
        RouteTarget::Topic(_) => None,
    }
}
