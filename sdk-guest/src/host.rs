//! What a filter may ask of its host. All of it is recorded for replay and budgeted: too much is a fault.
//!
//! On the host target the calls go to the [`crate::testing::Harness`] that runs the filter; outside of one they do
//! nothing.

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::calls as imports;
#[cfg(target_arch = "wasm32")]
use crate::wasm::imports;

pub use myelin_arena::Rate;

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

/// The text of a schema of the router's registry: of `subject` the version that judges at this site, and where no rule for
/// topics says one the newest when the binding was staged; of `subject:version` that one. `None` where there is none, and
/// always in `new`: a schema may be there, and be another, with every batch.
pub fn schema(subject: &str) -> Option<Vec<u8>> {
    imports::schema(subject)
}

/// Takes `n` out of the bucket called `bucket` where it holds as many, and says whether it did. A bucket begins full,
/// fills up evenly by its `rate`, and never holds more than the rate's burst.
///
/// The buckets belong to the binding: all workers share them, and the next version finds them as they are. A router
/// keeps some 57,000 of them for a binding; where there are more, the ones unused for longest begin full again.
///
/// ```
/// use myelin_filter::host::{self, Rate};
/// let may_go_on = host::take("acme", 1, Rate::per_second(100).with_burst(200));
/// # assert!(!may_go_on, "outside of a harness nothing is given");
/// ```
pub fn take(bucket: &str, n: u32, rate: Rate) -> bool {
    imports::take(bucket, n, rate)
}

/// Whether `key` is remembered. Where it is not, it is from now on, for `ttl_ms`; asking again does not make that
/// longer.
///
/// The keys belong to the binding, like the buckets of [`take`]. A router remembers some 900,000 of them for a binding;
/// where there are more, the oldest are forgotten.
pub fn seen(key: &str, ttl_ms: u64) -> bool {
    imports::seen(key, ttl_ms)
}
