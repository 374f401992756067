//! A slot: one live instance of a filter in a store of its own, for one thread at a time, one call at a time.

use std::sync::Arc;

use wasmtime::{Store, Trap, UpdateDeadline};

use crate::batch::FilterBatch;
use crate::bindings::exports::myelin::filter::filter::Info;
use crate::bindings::myelin::filter::types::PayloadNeed as WitPayloadNeed;
use crate::deadline::{Tick, thread_cpu_ns};
use crate::fault::{FaultCode, FilterFault};
use crate::filter::{Filter, Notes, Outcome};
use crate::guest::Guest;
use crate::host::{HostState, LogGate};
use crate::info::{FilterInfo, Needs, PayloadNeed, RouteTarget};
use crate::limits::{BATCH_EVENTS_MAX, SlotLimits};
use crate::program::Program;
use crate::recall::Answers;
use crate::runtime::{Runtime, Ticking};
use crate::shared::SharedState;

/// Ticks until the deadline is looked at for the first time.
const TICKS: u64 = 1;

/// What an instance is set up with.
#[derive(Clone, Debug, Default)]
pub struct SlotSetup<'a> {
    /// What it may use.
    pub limits: SlotLimits,
    /// The binding's configuration, JSON as the operator wrote it; empty where none was given.
    pub config: &'a [u8],
    /// What `save` of the version before gave.
    pub previous: Option<&'a [u8]>,
    /// What it shares with the other instances of its binding; by default with none.
    pub shared: Arc<SharedState>,
    /// In a replay or a shadow: what its host answers instead of what is shared.
    pub answers: Option<Arc<Answers>>,
    /// The revision at which it sees the registry of schemas, where it names no version; without one as that is now.
    pub schemas_at: Option<u64>,
}

/// Why an instance could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstantiateError {
    /// The filter does not like its configuration: the operator's fault.
    #[error("the filter refuses its configuration: {0}")]
    Configuration(String),
    /// What it says about itself breaks the contract.
    #[error("the filter describes itself wrongly: {0}")]
    Info(String),
    /// It faulted while it was set up.
    #[error("the filter faults while it is set up: {0}")]
    Fault(#[from] FilterFault),
    /// All slots of the runtime are in use.
    #[error("no slot is free: {0}; raise `wasm.slots` or lower the number of bindings")]
    NoSlot(String),
}

impl InstantiateError {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Configuration(_) => "filter-config-refused",
            Self::Info(_) => "filter-info-invalid",
            Self::Fault(fault) => fault.code(),
            Self::NoSlot(_) => "no-slot",
        }
    }
}

/// One instance of a program. After a fault its store is dropped; the next call makes a fresh one, without state.
pub struct Slot {
    program: Program,
    limits: SlotLimits,
    config: Vec<u8>,
    info: Arc<FilterInfo>,
    live: Option<Live>,
    log_gate: LogGate,
    shared: Arc<SharedState>,
    answers: Option<Arc<Answers>>,
    schemas_at: Option<u64>,
    /// What the filter said while it was set up, handed over with the next batch.
    early: Notes,
}

struct Live {
    store: Store<HostState>,
    guest: Guest,
    _ticking: Ticking,
}

/// An instance that is not set up yet. Making it takes most of the time, setting it up next to none: it is made ahead
/// for a state that is there only at the swap.
pub struct Spare {
    program: Program,
    limits: SlotLimits,
    live: Live,
    log_gate: LogGate,
    shared: Arc<SharedState>,
    answers: Option<Arc<Answers>>,
    schemas_at: Option<u64>,
}

impl Spare {
    pub(crate) fn new(program: Program, setup: &SlotSetup<'_>) -> Result<Self, InstantiateError> {
        let (limits, shared, answers) = (setup.limits.clone(), Arc::clone(&setup.shared), setup.answers.clone());
        let log_gate = LogGate::new(limits.log_bytes_per_second);
        let live = blank(&program, &limits, &shared, log_gate)?;
        Ok(Self { program, limits, live, log_gate, shared, answers, schemas_at: setup.schemas_at })
    }

    /// Sets it up with the binding's configuration and what `save` of the version before gave.
    ///
    /// # Errors
    /// As [`Program::instantiate`]; the instance is gone then.
    pub fn set_up(mut self, config: &[u8], previous: Option<&[u8]>) -> Result<Slot, InstantiateError> {
        let (info, early) = set_up(&mut self.live, &self.limits, config, previous)?;
        let Self { program, limits, mut live, log_gate, shared, answers, schemas_at } = self;
        // Of a call within a batch only: there is no record of a set-up.
        live.store.data_mut().answers.clone_from(&answers);
        live.store.data_mut().schemas_at = schemas_at;
        let (config, info, live) = (config.to_vec(), Arc::new(info), Some(live));
        Ok(Slot { program, limits, config, info, live, log_gate, shared, answers, schemas_at, early })
    }
}

impl Slot {
    /// The live instance, or a fresh one after a fault.
    fn ready(&mut self) -> Result<&mut Live, FilterFault> {
        if self.live.is_none() {
            let fault = |error: InstantiateError| FilterFault::new(FaultCode::Instantiate, error.to_string());
            let mut live = blank(&self.program, &self.limits, &self.shared, self.log_gate).map_err(fault)?;
            let (info, early) = set_up(&mut live, &self.limits, &self.config, None).map_err(fault)?;
            live.store.data_mut().answers.clone_from(&self.answers);
            live.store.data_mut().schemas_at = self.schemas_at;
            if info != *self.info {
                return Err(FilterFault::malformed("a fresh instance describes itself otherwise than the first"));
            }
            self.early = early;
            self.live = Some(live);
        }
        self.live.as_mut().ok_or_else(|| FilterFault::new(FaultCode::Host, "no instance"))
    }

    /// Drops the store after a fault and says what the fault was.
    fn fail(&mut self, error: &wasmtime::Error) -> FilterFault {
        self.reset();
        fault_of(error)
    }
}

impl Filter for Slot {
    fn info(&self) -> &Arc<FilterInfo> {
        &self.info
    }

    fn run(&mut self, batch: &FilterBatch<'_>, outcome: &mut Outcome) -> Result<(), FilterFault> {
        let limit_ns = self.batch_cpu_ns_max();
        let fuel = self.limits.batch_output_bytes_max + BATCH_EVENTS_MAX * size_of::<u64>();
        let info = Arc::clone(&self.info);
        let live = self.ready()?;
        let state = live.store.data_mut();
        state.begin(batch.payloads, batch.now_unix_ns, Some(batch.now_ms));
        state.records = batch.record_calls;
        state.deadline.begin(limit_ns, batch.cpu_start_ns);
        live.store.set_epoch_deadline(TICKS);
        live.store.set_hostcall_fuel(fuel);
        match live.guest.run(&mut live.store, batch, &info, outcome) {
            Ok(()) => {
                live.store.data_mut().end(&mut outcome.notes);
                if self.early.host_calls > 0 {
                    merge(&mut outcome.notes, &mut self.early);
                }
                Ok(())
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn reset(&mut self) {
        if let Some(mut live) = self.live.take() {
            live.store.data_mut().roll_back();
            self.log_gate = live.store.data().log_gate();
        }
    }

    fn save(&mut self) -> Result<Vec<u8>, FilterFault> {
        let (limit_ns, bytes_max) = (self.limits.save_cpu_ms_max * 1_000_000, self.limits.state_bytes_max);
        let live = self.ready()?;
        let state = live.store.data_mut();
        state.begin(None, 0, None);
        state.deadline.begin(limit_ns, Some(thread_cpu_ns()));
        live.store.set_epoch_deadline(TICKS);
        live.store.set_hostcall_fuel(bytes_max.saturating_add(1));
        match live.guest.save(&mut live.store, bytes_max) {
            Ok(saved) if saved.len() <= bytes_max => {
                live.store.data_mut().end(&mut Notes::default());
                Ok(saved)
            }
            Ok(saved) => {
                self.reset();
                Err(FilterFault::malformed(format!("{} bytes of state, {bytes_max} are allowed", saved.len())))
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn reads_payloads(&self) -> bool {
        self.program.reads_payloads()
    }

    fn memory_bytes(&self) -> Option<usize> {
        self.live.as_ref().map(|live| live.store.data().memory_bytes)
    }

    fn batch_cpu_ns_max(&self) -> u64 {
        self.limits.batch_cpu_us_max * 1_000
    }
}

/// Makes an instance and lets it come up to its `init`, which is not called.
fn blank(
    program: &Program,
    limits: &SlotLimits,
    shared: &Arc<SharedState>,
    gate: LogGate,
) -> Result<Live, InstantiateError> {
    let runtime = program.runtime();
    let ticking = runtime.ticking();
    let ticking = ticking.ok_or_else(|| InstantiateError::NoSlot(format!("{} are in use", runtime.config().slots)))?;
    let mut store = new_store(runtime, limits, gate, Arc::clone(shared));
    let guest = Guest::instantiate(program.pre(), &mut store).map_err(|error| {
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            InstantiateError::NoSlot(format!("{error:#}"))
        } else {
            InstantiateError::Fault(fault_of(&error))
        }
    })?;
    Ok(Live { store, guest, _ticking: ticking })
}

/// Calls `init` and checks what the instance says about itself.
fn set_up(
    live: &mut Live,
    limits: &SlotLimits,
    config: &[u8],
    previous: Option<&[u8]>,
) -> Result<(FilterInfo, Notes), InstantiateError> {
    let Live { store, guest, .. } = live;
    // It may have been made long ago, and on another thread.
    store.data_mut().deadline.begin(limits.init_cpu_ms_max * 1_000_000, Some(thread_cpu_ns()));
    store.set_epoch_deadline(TICKS);
    let answer = guest.init(&mut *store, config, previous).map_err(|error| fault_of(&error))?;
    let info = info_of(answer.map_err(InstantiateError::Configuration)?).map_err(InstantiateError::Info)?;
    info.check(limits).map_err(InstantiateError::Info)?;
    let mut early = Notes::default();
    let state = store.data_mut();
    state.counters = u32::try_from(info.counters.len()).unwrap_or(0);
    state.end(&mut early);
    Ok((info, early))
}

/// A store for one instance, with the time of a set-up to use.
pub(crate) fn new_store(
    runtime: &Runtime,
    limits: &SlotLimits,
    log_gate: LogGate,
    shared: Arc<SharedState>,
) -> Store<HostState> {
    let mut state = HostState::new(limits, runtime.config().table_elements_max, log_gate, shared);
    state.schemas = runtime.schemas().clone();
    state.deadline.begin(limits.init_cpu_ms_max * 1_000_000, Some(thread_cpu_ns()));
    let mut store = Store::new(runtime.engine(), state);
    store.limiter(|state| state);
    store.epoch_deadline_callback(|mut context| match context.data_mut().deadline.on_tick(thread_cpu_ns()) {
        Tick::Extend => Ok(UpdateDeadline::Continue(TICKS)),
        Tick::Stop => Ok(UpdateDeadline::Interrupt),
    });
    store.set_epoch_deadline(TICKS);
    store.set_hostcall_fuel(limits.batch_output_bytes_max);
    store
}

/// Puts what was said earlier before what was said now.
fn merge(notes: &mut Notes, early: &mut Notes) {
    early.logs.append(&mut notes.logs);
    early.counts.append(&mut notes.counts);
    early.logs_dropped += notes.logs_dropped;
    early.host_calls += notes.host_calls;
    *notes = std::mem::take(early);
}

fn info_of(info: Info) -> Result<FilterInfo, String> {
    let needs = Needs {
        headers: info.needs.headers,
        all_headers: info.needs.all_headers,
        identity: info.needs.identity,
        payload: match info.needs.payload {
            WitPayloadNeed::None => PayloadNeed::None,
            WitPayloadNeed::Prefix(bytes) => PayloadNeed::Prefix(bytes),
            WitPayloadNeed::Full => PayloadNeed::Full,
        },
    };
    let routes = info.routes.iter().map(|route| RouteTarget::parse(route)).collect::<Result<_, _>>()?;
    Ok(FilterInfo {
        name: info.name,
        version: info.version,
        needs,
        routes,
        reasons: info.reasons,
        counters: info.counters,
        max_output: info.max_output,
    })
}

/// Sorts an error of a call by whose rule was broken.
fn fault_of(error: &wasmtime::Error) -> FilterFault {
    if let Some(fault) = error.downcast_ref::<FilterFault>() {
        return fault.clone();
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        // Lowering or lifting failed: a pointer outside its memory, text that is not UTF-8, a result too large.
        return FilterFault::malformed(format!("{error:#}"));
    };
    let code = match trap {
        Trap::StackOverflow => FaultCode::StackOverflow,
        Trap::MemoryOutOfBounds | Trap::TableOutOfBounds => FaultCode::OutOfBounds,
        Trap::Interrupt | Trap::OutOfFuel => FaultCode::Deadline,
        Trap::AllocationTooLarge => FaultCode::Memory,
        _ => FaultCode::Trap,
    };
    FilterFault::new(code, trap.to_string())
}
