//! A native filter made of a closure: it meets the same contract as a Wasm slot, so tests need no Wasm.

use std::sync::Arc;

use myelin_arena::{Arena, ArenaBuilder, Entry, Verdict};

use crate::batch::FilterBatch;
use crate::fault::{FaultCode, FilterFault};
use crate::filter::{Filter, Outcome};
use crate::info::FilterInfo;

/// Judges one event: the verdict, with its output entries pushed to the vector.
pub type Judge = dyn FnMut(&Entry<'_>, &mut Vec<OutputEntry>) -> Result<Verdict, FilterFault> + Send;

/// One entry of a native filter's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputEntry {
    /// The topic of an emitted event; empty otherwise.
    pub topic: String,
    /// The attribute block.
    pub attrs: Vec<u8>,
    /// The payload, or the text of a detail.
    pub payload: Vec<u8>,
}

/// A filter that runs a closure for each event.
pub struct NativeFilter {
    info: Arc<FilterInfo>,
    judge: Box<Judge>,
    state: Vec<u8>,
}

impl NativeFilter {
    /// A filter that describes itself by `info` and judges with `judge`.
    pub fn new(
        info: FilterInfo,
        judge: impl FnMut(&Entry<'_>, &mut Vec<OutputEntry>) -> Result<Verdict, FilterFault> + Send + 'static,
    ) -> Self {
        Self { info: Arc::new(info), judge: Box::new(judge), state: Vec::new() }
    }

    /// The same with what `save` shall give.
    #[must_use]
    pub fn with_state(mut self, state: impl Into<Vec<u8>>) -> Self {
        self.state = state.into();
        self
    }
}

impl Filter for NativeFilter {
    fn info(&self) -> &Arc<FilterInfo> {
        &self.info
    }

    fn run(&mut self, batch: &FilterBatch<'_>, outcome: &mut Outcome) -> Result<(), FilterFault> {
        let broken = |e| FilterFault::new(FaultCode::Host, format!("the arena: {e}"));
        let mut output = Vec::new();
        for entry in Arena::new(batch.arena).map_err(broken)?.entries() {
            outcome.verdicts.push((self.judge)(&entry.map_err(broken)?, &mut output)?.0);
        }
        if !output.is_empty() {
            let mut builder = ArenaBuilder::new(output.len());
            for OutputEntry { topic, attrs, payload } in &output {
                builder.push(&Entry { topic, attrs, payload, payload_total: 0, identity: None });
            }
            outcome.output = builder.into_bytes();
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn save(&mut self) -> Result<Vec<u8>, FilterFault> {
        Ok(self.state.clone())
    }
}
