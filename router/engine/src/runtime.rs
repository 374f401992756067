//! The process-wide part: one wasmtime engine and the thread that lets its epochs pass.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::Fast;
use crate::flat;
use crate::host::HostState;
use crate::limits::RuntimeConfig;
use crate::schemas::SchemaSource;

/// How often the epoch moves on: the grain of every deadline.
const TICK: Duration = Duration::from_millis(1);
/// Core instances that one component may have: its own module and what the componentiser adds, which for a JavaScript
/// engine are ten.
const CORE_INSTANCES_PER_SLOT: u32 = 16;
/// Linear memories that one component may have.
const MEMORIES_PER_SLOT: u32 = 3;
/// Tables that one component may have.
const TABLES_PER_SLOT: u32 = 4;
/// Bytes of the host's own data for one instance of a component or of a core module.
const INSTANCE_BYTES_MAX: usize = 1 << 20;

/// Runs filters; cheap to clone. There is one in a process.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    engine: Engine,
    linker: Linker<HostState>,
    flat_linker: wasmtime::Linker<HostState>,
    config: RuntimeConfig,
    compatibility: Compatibility,
    ticker: Ticker,
    schemas: Schemas,
}

/// What answers questions about schemas, once there is something.
pub(crate) type Schemas = Arc<OnceLock<Arc<dyn SchemaSource>>>;

/// Which builds of the engine can run each other's compiled code: equal values can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compatibility([u8; 32]);

impl Compatibility {
    /// The value as bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn of(engine: &Engine) -> Self {
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self(hasher.0.finalize().into())
    }
}

/// Feeds a hash into SHA-256, so that it is the same in every process.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest: [u8; 32] = self.0.clone().finalize().into();
        digest.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

/// The engine could not be started: our fault or the machine's, never a filter's.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// wasmtime refused the settings, or the machine has no room for the pool.
    #[error("the Wasm engine does not start: {0}; fewer `slots` need less address space")]
    Engine(String),
    /// The thread that stops endless loops could not be started.
    #[error("the epoch thread does not start: {0}")]
    Ticker(#[from] std::io::Error),
}

impl RuntimeError {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Engine(_) => "engine-start",
            Self::Ticker(_) => "engine-ticker",
        }
    }
}

impl Runtime {
    /// Starts the engine and its ticker.
    ///
    /// # Errors
    /// When the machine has no room for the pool, or no further thread.
    pub fn new(config: &RuntimeConfig) -> Result<Self, RuntimeError> {
        let engine = Engine::new(&engine_config(config)).map_err(|e| RuntimeError::Engine(format!("{e:#}")))?;
        let mut linker = Linker::new(&engine);
        Fast::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |state| state)
            .map_err(|e| RuntimeError::Engine(format!("{e:#}")))?;
        let compatibility = Compatibility::of(&engine);
        let ticker = Ticker::start(&engine)?;
        let flat_linker = flat::linker(&engine).map_err(|e| RuntimeError::Engine(format!("{e:#}")))?;
        let (config, schemas) = (config.clone(), Schemas::default());
        Ok(Self(Arc::new(Inner { engine, linker, flat_linker, config, compatibility, ticker, schemas })))
    }

    /// Has filters' questions about schemas answered from here; before, and without it, there are none. The first one
    /// stays.
    pub fn serve_schemas(&self, source: Arc<dyn SchemaSource>) {
        let _ = self.0.schemas.set(source);
    }

    pub(crate) fn schemas(&self) -> &Schemas {
        &self.0.schemas
    }

    /// Which compiled code this runtime can run.
    pub fn compatibility(&self) -> Compatibility {
        self.0.compatibility
    }

    /// What it was made for.
    pub fn config(&self) -> &RuntimeConfig {
        &self.0.config
    }

    /// Takes one of the slots and lets epochs pass, for as long as the answer lives; `None` where all are taken.
    pub(crate) fn ticking(&self) -> Option<Ticking> {
        self.0.ticker.hold(self.0.config.slots)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn linker(&self) -> &Linker<HostState> {
        &self.0.linker
    }

    /// The host's functions for core modules that are called without their component.
    pub(crate) fn flat_linker(&self) -> &wasmtime::Linker<HostState> {
        &self.0.flat_linker
    }
}

/// The settings that the running engine and the compiler child share; WASM.md has the measurements behind them.
pub(crate) fn engine_config(config: &RuntimeConfig) -> Config {
    let mut engine = Config::new();
    engine
        .epoch_interruption(true)
        .consume_fuel(false)
        // Costs 0.43 us and four allocations on each call.
        .concurrency_support(false)
        .max_wasm_stack(config.stack_bytes)
        // A stack overflow costs 10 times as much with it.
        .wasm_backtrace_max_frames(None)
        // A replay gives the same bits on every machine.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // Not for guests, whose own modules are refused with it at inspection: wasmtime's glue between the parts of a
        // composed component, such as a JavaScript engine and the stubs below it, copies from memory to memory.
        .wasm_multi_memory(true)
        .wasm_memory64(false)
        .memory_init_cow(true);
    if config.pooling {
        engine.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
    } else {
        engine.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    }
    engine
}

fn pool(config: &RuntimeConfig) -> PoolingAllocationConfig {
    let in_all = |per_slot: u32| config.slots.saturating_mul(per_slot);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(config.slots)
        .total_core_instances(in_all(CORE_INSTANCES_PER_SLOT))
        .total_memories(in_all(MEMORIES_PER_SLOT))
        .total_tables(in_all(TABLES_PER_SLOT))
        .max_core_instances_per_component(CORE_INSTANCES_PER_SLOT)
        .max_memories_per_component(MEMORIES_PER_SLOT)
        .max_tables_per_component(TABLES_PER_SLOT)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_memory_size(config.memory_bytes_max)
        .table_elements(config.table_elements_max);
    pool
}

/// The thread that raises the epoch each millisecond, while there is an instance that could overrun its deadline. A
/// router without filters is not woken a thousand times a second for nothing.
struct Ticker {
    pulse: Arc<Pulse>,
    thread: JoinHandle<()>,
}

/// What the ticker's thread looks at.
#[derive(Debug, Default)]
struct Pulse {
    live: AtomicUsize,
    stop: AtomicBool,
}

/// Keeps the epoch moving; every instance holds one from before its first call.
pub(crate) struct Ticking {
    pulse: Arc<Pulse>,
}

impl Ticker {
    fn start(engine: &Engine) -> std::io::Result<Self> {
        let (pulse, engine) = (Arc::new(Pulse::default()), engine.clone());
        let watched = Arc::clone(&pulse);
        let tick = move || {
            while !watched.stop.load(SeqCst) {
                // Whoever raises the count unparks afterwards, and an unpark that comes early is kept for the next park.
                if watched.live.load(SeqCst) == 0 {
                    thread::park();
                } else {
                    thread::park_timeout(TICK);
                    engine.increment_epoch();
                }
            }
        };
        let thread = thread::Builder::new().name("wasm-epoch".into()).spawn(tick)?;
        Ok(Self { pulse, thread })
    }

    fn hold(&self, slots: u32) -> Option<Ticking> {
        let before = self.pulse.live.fetch_add(1, SeqCst);
        // Made before the count is looked at: dropping it takes the count back.
        let ticking = Ticking { pulse: Arc::clone(&self.pulse) };
        if before == 0 {
            self.thread.thread().unpark();
        }
        (before < slots as usize).then_some(ticking)
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.pulse.live.fetch_sub(1, SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // The thread ends by itself: whoever drops the runtime need not wait for it.
        self.pulse.stop.store(true, SeqCst);
        self.thread.thread().unpark();
    }
}
