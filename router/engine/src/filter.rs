//! The one contract that Wasm slots and native built-ins meet.

use std::sync::Arc;

use crate::batch::FilterBatch;
use crate::fault::FilterFault;
use crate::info::FilterInfo;
use crate::recall::HostCall;

/// A filter that is set up and belongs to one thread at a time.
pub trait Filter: Send {
    /// What it declared when it was set up; does not change.
    fn info(&self) -> &Arc<FilterInfo>;

    /// Judges a batch into `outcome`, which is empty.
    ///
    /// # Errors
    /// The fault that ended the call. Whatever `outcome` holds then is thrown away, and the next call must find a
    /// fresh instance.
    fn run(&mut self, batch: &FilterBatch<'_>, outcome: &mut Outcome) -> Result<(), FilterFault>;

    /// Throws the instance away, because its output broke the contract; the next call finds a fresh one.
    fn reset(&mut self);

    /// The state for the next version; empty where there is nothing to hand over.
    ///
    /// # Errors
    /// The fault that ended the call.
    fn save(&mut self) -> Result<Vec<u8>, FilterFault>;

    /// Whether it fetches payloads with `host.payload`, so that the host has to keep them at hand.
    fn reads_payloads(&self) -> bool {
        false
    }

    /// Memory of its live instance in bytes, where it has one of its own.
    fn memory_bytes(&self) -> Option<usize> {
        None
    }

    /// CPU time that one call may use, in nanoseconds.
    fn batch_cpu_ns_max(&self) -> u64 {
        2_000_000
    }
}

/// How loud a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For the filter's author.
    Debug,
    /// For the operator, when something is to be known.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something has failed.
    Error,
}

/// One line that a filter logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The batch's time, Unix nanoseconds; 0 during set-up.
    pub time_unix_ns: u64,
    /// How loud.
    pub level: LogLevel,
    /// The text, cut at its limit.
    pub text: String,
}

/// What a filter answers for one batch. Nothing in it is trusted before it was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One verdict for each event.
    pub verdicts: Vec<u64>,
    /// Replacements, details and emitted events in the order of the verdicts, arena layout; empty = none.
    pub output: Vec<u8>,
    /// What it told the host beside its verdicts.
    pub notes: Notes,
}

impl Outcome {
    /// Empties it and keeps what memory it can.
    pub fn clear(&mut self) {
        self.verdicts.clear();
        self.output.clear();
        self.notes.clear();
    }
}

/// What a filter told its host during one call. It counts only when the call did not fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Log lines.
    pub logs: Vec<LogLine>,
    /// Log lines that were over the rate.
    pub logs_dropped: u64,
    /// Counter and how much it was raised.
    pub counts: Vec<(u32, u64)>,
    /// Host calls made.
    pub host_calls: u64,
    /// What it asked and was told, where the batch is [recorded](FilterBatch::record_calls).
    pub calls: Vec<HostCall>,
}

impl Notes {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.logs.clear();
        self.counts.clear();
        self.calls.clear();
        (self.logs_dropped, self.host_calls) = (0, 0);
    }
}
