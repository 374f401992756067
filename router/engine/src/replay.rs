//! A replay: a filter judges recorded batches, and its host says what it said then.

use std::sync::Arc;

use crate::batch::EventView;
use crate::fault::FilterFault;
use crate::info::FilterInfo;
use crate::limits::SlotLimits;
use crate::program::Program;
use crate::recall::{Answers, HostCall, Question};
use crate::slot::{InstantiateError, SlotSetup};
use crate::trial::{Decision, Trial};

/// A filter that judges recorded batches. The same batches in the same order give the same answers.
pub struct Replay {
    trial: Trial,
    answers: Arc<Answers>,
}

/// What a filter says about one event of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// A verdict.
    Decided(Decision),
    /// It faulted.
    Faulted(FilterFault),
    /// It asked its host something that the record has no answer to; what it would have said is not known.
    NotRecorded(Question),
}

impl Replay {
    /// A fresh instance of `program`.
    ///
    /// # Errors
    /// When the filter refuses its configuration or faults while it is set up.
    pub fn new(program: &Program, config: &[u8], limits: SlotLimits) -> Result<Self, InstantiateError> {
        let answers = Arc::new(Answers::default());
        let setup = SlotSetup { limits, config, answers: Some(Arc::clone(&answers)), ..SlotSetup::default() };
        let slot = program.instantiate(&setup)?;
        Ok(Self { trial: Trial::new(Box::new(slot)), answers })
    }

    /// What the filter declared.
    pub fn info(&self) -> &Arc<FilterInfo> {
        self.trial.info()
    }

    /// Judges `events` as one batch, its host's answers taken from `calls`. Where the batch faults, its events are
    /// judged one by one on fresh instances, as a router does.
    pub fn run(&mut self, events: &[EventView<'_>], now_unix_ns: u64, calls: &[HostCall]) -> Vec<Replayed> {
        self.answers.load(calls);
        match self.trial.decide(events, now_unix_ns) {
            Ok(decisions) => decisions.into_iter().map(Replayed::Decided).collect(),
            Err(fault) if events.len() <= 1 => events.iter().map(|_| self.failed(fault.clone())).collect(),
            Err(_) => {
                // What the whole batch has asked counts for nothing.
                self.answers.load(calls);
                events.iter().map(|event| self.single(event, now_unix_ns)).collect()
            }
        }
    }

    fn single(&mut self, event: &EventView<'_>, now_unix_ns: u64) -> Replayed {
        match self.trial.decide(std::slice::from_ref(event), now_unix_ns) {
            Ok(decisions) => decisions.into_iter().next().map_or_else(
                || Replayed::Faulted(FilterFault::malformed("no verdict for one event")),
                Replayed::Decided,
            ),
            Err(fault) => self.failed(fault),
        }
    }

    /// A fault, or the question without an answer that it comes from.
    fn failed(&self, fault: FilterFault) -> Replayed {
        self.answers.take_missed().map_or(Replayed::Faulted(fault), Replayed::NotRecorded)
    }
}
