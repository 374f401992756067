//! What a filter may ask of its host. All of it is recorded for replay and budgeted: too much is a fault.
//!
//! On the host target the calls go to the [`crate::testing::Harness`] that runs the filter; outside of one they do
//! nothing.

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::calls as imports;
#[cfg(target_arch = "wasm32")]
use crate::wasm::imports;

/// How important a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the author.
    Debug,
    /// For the operator, as news.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}

/// Writes a line to the binding's log (`myelin filter logs`), about 4 KiB a second at most.
pub fn log(level: Level, text: &str) {
    imports::log(level, text);
}

/// Raises a declared counter, `counter!("name")`, by `by`. The host is told at the end of the batch, once for each
/// counter: counting costs a few nanoseconds.
pub fn count(counter: u32, by: u64) {
    imports::count(counter, by);
}

/// A part of the payload of event number `event` of the running batch; shorter where the payload ends before.
pub fn payload(event: u32, offset: u32, len_bytes: u32) -> Vec<u8> {
    imports::payload(event, offset, len_bytes)
}

/// A schema by its subject; `None` where the router has none of that name.
pub fn schema(subject: &str) -> Option<Vec<u8>> {
    imports::schema(subject)
}
