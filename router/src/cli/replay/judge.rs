//! Judging captured batches in the place of a binding.

use crate::capture::{Batch, Bound, Judged, Recording, Said, Verdict};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::trial::replay_instance;
use crate::compare::Told;
use myelin_engine::{FilterInfo, HostCall, Program, Replay, Replayed};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A module to judge with.
pub(super) struct Source {
    /// Where it came from.
    pub(super) name: String,
    /// SHA-256 of its bytes.
    pub(super) digest: String,
    /// Its code.
    pub(super) program: Program,
    /// The configuration to use instead of the binding's.
    pub(super) config: Option<Vec<u8>>,
}

/// Which judgements of the capture are made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selection<'a> {
    /// Those of this binding.
    Binding(&'a str),
    /// No binding has judged: the events as they came.
    Unjudged,
}

/// One judgement that is made anew; none where no binding has judged.
pub(super) type Place<'a> = Option<&'a Judged>;

impl<'a> Selection<'a> {
    /// What of `batch` is made anew.
    pub(super) fn of(self, recording: &Recording, batch: &'a Batch) -> Vec<Place<'a>> {
        match self {
            Self::Unjudged if batch.entry => vec![None],
            Self::Unjudged => Vec::new(),
            Self::Binding(name) => {
                let is_meant = |judged: &&Judged| recording.bindings[judged.binding].name == name;
                batch.judged.iter().filter(is_meant).map(Some).collect()
            }
        }
    }

    /// What was said then, event by event.
    pub(super) fn recorded(self, batch: &Batch, place: Place<'_>) -> Vec<Told> {
        let Some(judged) = place else {
            // Nobody judged: they went on.
            return batch.events.iter().map(|_| Told::went_on()).collect();
        };
        let told = |said: &Said| match (&said.fault, &said.verdict) {
            (Some(fault), _) => Told::Fault(fault.code.clone()),
            (None, Some(verdict)) => Told::Verdict(verdict.clone()),
            (None, None) => Told::NotRecorded("its verdict".into()),
        };
        judged.events.iter().map(told).collect()
    }
}

/// A module in the place of the bindings that it judges for: an instance for each of their instances.
pub(super) struct Player<'a> {
    recording: &'a Recording,
    source: &'a Source,
    info: Arc<FilterInfo>,
    /// By worker and binding: each has its own instance at a router.
    instances: BTreeMap<(u8, usize), Replay>,
}

impl<'a> Player<'a> {
    pub(super) fn new(recording: &'a Recording, source: &'a Source, selection: Selection<'_>) -> Result<Self> {
        // One instance at once, so that a configuration that it refuses is told whatever the capture holds.
        let first = match selection {
            Selection::Unjudged => None,
            Selection::Binding(name) => recording.bindings.iter().position(|bound| bound.name == name),
        };
        let info = instance(recording, source, first)?.info().clone();
        Ok(Self { recording, source, info, instances: BTreeMap::new() })
    }

    /// What the module declares.
    pub(super) fn info(&self) -> &FilterInfo {
        &self.info
    }

    /// What it says about what a binding judged, event by event.
    pub(super) fn play(&mut self, batch: &Batch, place: Place<'_>) -> Result<Vec<Told>> {
        let binding = place.map(|judged| judged.binding);
        let key = (batch.worker, binding.unwrap_or_default());
        let replay = match self.instances.entry(key) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(instance(self.recording, self.source, binding)?)
            }
        };
        let seen = match place {
            Some(judged) => judged.seen(),
            None => (0..batch.events.len()).map(|event| (event, None)).collect(),
        };
        let calls: Vec<HostCall> = place.iter().flat_map(|judged| &judged.calls).map(HostCall::from).collect();
        let said = batch.with_views(&seen, |views| replay.run(views, batch.now_unix_ns, &calls));
        let said = said.map_err(|what| Failure::new(Exit::Failed, format!("batch {}: {what}", batch.number)))?;
        let told = said.into_iter().map(|said| match said {
            Replayed::Decided(decision) => Told::Verdict(Verdict::from(&decision)),
            Replayed::Faulted(fault) => Told::Fault(fault.code().to_owned()),
            Replayed::NotRecorded(question) => Told::NotRecorded(question.to_string()),
        });
        let told = told.collect();
        Ok(if self.recording.redaction.is_empty() { told } else { self.redacted(batch, &seen, told) })
    }

    /// The same, with what the capture leaves out left out here: it is compared with what was kept.
    fn redacted(&self, batch: &Batch, seen: &[(usize, Option<&Said>)], told: Vec<Told>) -> Vec<Told> {
        let events = seen.iter().zip(&told).map(|((event, said), told)| Said {
            event: *event,
            attrs: said.and_then(|said| said.attrs.clone()),
            payload: said.and_then(|said| said.payload.clone()),
            verdict: if let Told::Verdict(verdict) = told { Some(verdict.clone()) } else { None },
            fault: None,
        });
        let judged = vec![Judged { binding: 0, events: events.collect(), calls: Vec::new() }];
        let mut batch = Batch { judged, ..batch.clone() };
        self.recording.redaction.apply(&mut batch);
        let verdicts = batch.judged.into_iter().flat_map(|judged| judged.events).map(|said| said.verdict);
        told.into_iter().zip(verdicts).map(|(told, verdict)| verdict.map_or(told, Told::Verdict)).collect()
    }
}

fn instance(recording: &Recording, source: &Source, binding: Option<usize>) -> Result<Replay> {
    let bound: Option<&Bound> = binding.and_then(|binding| recording.bindings.get(binding));
    let recorded = bound.and_then(|bound| bound.config.as_ref()).map(|config| config.0.as_slice());
    let config = match (&source.config, bound, recorded) {
        (Some(config), ..) => config.as_slice(),
        (None, Some(bound), None) => {
            let what = format!("the configuration of the binding `{}` is redacted in this capture", bound.name);
            return Err(Failure::new(Exit::Usage, what).next("give it with --config"));
        }
        (None, _, recorded) => recorded.unwrap_or_default(),
    };
    replay_instance(&source.program, config)
        .map_err(|what| Failure::new(Exit::Failed, format!("{}: {what}", source.name)))
}
