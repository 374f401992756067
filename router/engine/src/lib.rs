//! Runs filters with hard limits; the only crate that names wasmtime.
//!
//! The shape is **runtime -> program -> slot**. A [`Runtime`] is process-wide. A module is looked over
//! ([`inspect`]), compiled in a child process that limits itself ([`compile_in_child`], kept by a [`CodeCache`]) and
//! loaded into a [`Program`]. A program makes [`Slot`]s: one live instance each, with its own store and its limits as
//! constructor arguments, for one worker, one call at a time.
//!
//! A guest speaks one of two worlds: `fast`, where a batch is one flat arena, or `easy`, where it is typed records.
//!
//! A slot, or a native filter, meets the trait [`Filter`]. Under a binding it is a [`BoundFilter`]: its output is
//! checked as if an enemy had written it, a fault takes no neighbour with it, and what follows from a fault is
//! declared. Bindings in order are a [`Chain`], which runs over a whole [`Batch`] and writes into the caller's
//! [`ChainScratch`].
//!
//! Absent on purpose: WASI, clocks and randomness for guests, and any knowledge of sockets, TOML or Prometheus.

mod batch;
mod bindings;
mod bound;
mod breaker;
mod cache;
mod chain;
mod compile;
mod deadline;
mod easy;
mod fault;
mod filter;
mod flat;
mod footprint;
mod grant;
mod guest;
mod host;
mod info;
mod inspect;
mod isolate;
mod judge;
mod lane;
pub mod limits;
#[cfg(any(test, feature = "testing"))]
pub mod native;
mod program;
mod recall;
mod replay;
mod runtime;
mod schemas;
mod scratch;
mod seat;
mod selftest;
mod shared;
mod slot;
mod stats;
mod tape;
mod times;
mod trial;
mod vectors;
mod watch;

pub use batch::{Batch, BatchError, EventView, FilterBatch, Payloads};
pub use bound::{BindError, BindingSetup, BoundFilter, OnFault};
pub use cache::{CacheError, CacheStats, CodeCache, ProgramError};
pub use chain::{Chain, Emitted, Judged, Judgement};
pub use compile::{Artefact, CompileError, compile_in_child, compiler_child_main};
pub use deadline::thread_cpu_ns;
pub use fault::{FaultCode, FilterFault};
pub use filter::{Filter, LogLevel, LogLine, Notes, Outcome};
pub use footprint::release_startup_code;
pub use grant::Grant;
pub use info::{FilterInfo, Needs, PayloadNeed, RouteTarget};
pub use inspect::{ModuleFacts, ModuleRefusal, World, inspect};
pub use limits::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, CompilerConfig, CompilerLimits, FaultPolicy, ModuleLimits, RuntimeConfig,
    SlotLimits,
};
pub use program::{LoadError, Program};
pub use recall::{Answers, HostAnswer, HostCall, Question};
pub use replay::{Replay, Replayed};
pub use runtime::{Compatibility, Runtime, RuntimeError};
pub use schemas::SchemaSource;
pub use scratch::{ChainScratch, Fate};
pub use selftest::{SelfTestFailure, SelfTestReport, self_test};
pub use shared::{BUCKETS_MAX, KEYS_MAX, SharedState, SharedStats};
pub use slot::{InstantiateError, Slot, SlotSetup, Spare};
pub use stats::{BindingCells, BindingStats, LastFault};
pub use tape::{Tape, TapedBinding, TapedEvent};
pub use trial::{Decision, EmittedEvent, Trial, Unmet};
pub use vectors::{Expect, ExpectedKind, TestVector, VECTORS_SECTION, parse_vectors};
pub use watch::Seen;

#[cfg(test)]
mod tests;
