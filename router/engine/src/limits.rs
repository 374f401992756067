//! What a filter may use. Every limit is given when a runtime or a slot is made; none of them defaults to "unlimited".

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// Events of one batch.
pub const BATCH_EVENTS_MAX: usize = 64;
/// Bytes of one batch (topics, attributes, payloads, identities), unless it is a single event.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Routes that a filter may declare: the bits of a verdict.
pub const ROUTES_MAX: usize = 32;
/// Reasons that a filter may declare.
pub const REASONS_MAX: usize = 1024;
/// Counters that a filter may declare.
pub const COUNTERS_MAX: usize = 64;
/// Header names that a filter may ask for.
pub const NEEDED_HEADERS_MAX: usize = 64;
/// Bytes of a filter's name, of its version and of a counter's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a declared reason.
pub const REASON_BYTES_MAX: usize = 256;
/// Bytes of a detail text in a filter's output.
pub const DETAIL_BYTES_MAX: usize = 1024;
/// Headers in attributes that a filter puts out; the same limit as at admission.
pub const OUTPUT_HEADERS_MAX: usize = 64;
/// Bytes of an attribute block that a filter puts out; the same limit as at admission.
pub const OUTPUT_ATTRS_BYTES_MAX: usize = 16 * 1024;
/// Events that a filter may emit beside one event.
pub const EMITTED_MAX: usize = 64;
/// Bytes of one log line; the rest is cut.
pub const LOG_LINE_BYTES_MAX: usize = 1024;
/// Log lines that a binding keeps until somebody reads them; the oldest goes first.
pub const LOG_LINES_MAX: usize = 256;
/// Calls of `count` in one batch: each declared counter once for each event.
pub const COUNT_CALLS_MAX: u32 = 4_096;
const _: () = assert!(COUNT_CALLS_MAX as usize == COUNTERS_MAX * BATCH_EVENTS_MAX);

/// The process-wide part: how much room is set aside for filters, and how they run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeConfig {
    /// Live instances in the whole process. A generation needs workers x bindings of them, and two or three
    /// generations are alive during a swap. Each reserves 12 GiB of address space and uses none of it.
    pub slots: u32,
    /// Largest linear memory of any filter, in bytes.
    pub memory_bytes_max: usize,
    /// Elements of any table of a filter.
    pub table_elements_max: usize,
    /// Stack of a filter, in bytes. A worker thread needs 1 MiB more than that.
    pub stack_bytes: usize,
    /// Take instances from a pool. `false` maps each one on its own: slower, but fit for valgrind.
    pub pooling: bool,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            slots: 512,
            memory_bytes_max: 64 << 20,
            table_elements_max: 10_000,
            stack_bytes: 256 << 10,
            pooling: true,
        }
    }
}

/// What one instance of a filter may use. A binding may lower these.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlotLimits {
    /// Linear memory in bytes, all memories of the component together; at most what the runtime was made for.
    pub memory_bytes_max: usize,
    /// Thread CPU time of one batch, in microseconds.
    pub batch_cpu_us_max: u64,
    /// Thread CPU time of `init`, in milliseconds. It never runs on a worker that serves.
    pub init_cpu_ms_max: u64,
    /// Thread CPU time of `save`, in milliseconds. It runs on the worker.
    pub save_cpu_ms_max: u64,
    /// Calls of `payload`, `log`, `schema`, `take` and `seen` in one batch.
    pub host_calls_max: u32,
    /// Bytes that host calls may copy in one batch, either way.
    pub host_bytes_max: usize,
    /// Bytes that may be logged in one second.
    pub log_bytes_per_second: usize,
    /// Bytes that a filter may declare as its largest output for one event.
    pub event_output_bytes_max: u32,
    /// Bytes of the output of one batch.
    pub batch_output_bytes_max: usize,
    /// Bytes of the state that `save` hands to the next version.
    pub state_bytes_max: usize,
}

impl Default for SlotLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
            batch_cpu_us_max: 2_000,
            init_cpu_ms_max: 100,
            save_cpu_ms_max: 10,
            host_calls_max: 256,
            host_bytes_max: 1 << 20,
            log_bytes_per_second: 4 << 10,
            event_output_bytes_max: 1 << 20,
            batch_output_bytes_max: 4 << 20,
            state_bytes_max: 1 << 20,
        }
    }
}

/// How much module a router takes in; checked before anything is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModuleLimits {
    /// Bytes of the component.
    pub bytes_max: usize,
    /// Functions defined in all its core modules.
    pub functions_max: u32,
    /// Imports, and exports, in all its parts.
    pub imports_exports_max: u32,
    /// Linear memories defined in all its core modules. A JavaScript engine brings two empty ones beside its own.
    pub memories_max: u32,
    /// Tables defined in all its core modules.
    pub tables_max: u32,
    /// Elements that one table begins with.
    pub table_elements_max: u64,
    /// How deep modules and components may nest.
    pub nesting_max: u32,
    /// Bytes of the section with test vectors.
    pub vectors_bytes_max: usize,
    /// Test vectors.
    pub vectors_max: usize,
}

impl Default for ModuleLimits {
    fn default() -> Self {
        Self {
            bytes_max: 16 << 20,
            functions_max: 10_000,
            imports_exports_max: 2_000,
            memories_max: 3,
            tables_max: 4,
            table_elements_max: 10_000,
            nesting_max: 8,
            vectors_bytes_max: 1 << 20,
            vectors_max: 1_000,
        }
    }
}

/// Which program compiles modules, and what it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompilerConfig {
    /// The program; it must call [`compiler_child_main`](crate::compiler_child_main) when started with `args`.
    pub program: PathBuf,
    /// Its arguments, such as `compile-module`.
    pub args: Vec<String>,
    /// Its limits.
    pub limits: CompilerLimits,
    /// Time until it is killed, counted from its start.
    pub wall: Duration,
}

/// What the compiler child sets as its own limits before it reads the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompilerLimits {
    /// Address space, in bytes. A component of 2.6 MB compiles in 192 MiB.
    pub address_space_bytes: u64,
    /// CPU time of all its threads, in seconds. A component of 2.6 MB takes five on a slow machine.
    pub cpu_seconds: u64,
    /// Bytes of the module on its standard input.
    pub module_bytes_max: usize,
}

impl Default for CompilerLimits {
    fn default() -> Self {
        Self { address_space_bytes: 1 << 30, cpu_seconds: 20, module_bytes_max: 16 << 20 }
    }
}

/// When a binding is set apart and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultPolicy {
    /// Faulted batches within the window that quarantine the binding.
    pub faults_max: u32,
    /// The window, in milliseconds.
    pub window_ms: u64,
    /// Clean batches in a row after which a binding that was set apart runs on its worker again.
    pub clean_batches: u32,
    /// Deadlines that judging the events of a faulted batch one by one may spend in all.
    pub deadlines_max: u32,
}

impl Default for FaultPolicy {
    fn default() -> Self {
        Self { faults_max: 8, window_ms: 10_000, clean_batches: 1_000, deadlines_max: 4 }
    }
}
