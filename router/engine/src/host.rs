//! What a guest may ask of its host, and the account that is kept of it.

use std::sync::Arc;

use myelin_arena::Rate;
use wasmtime::ResourceLimiter;

use crate::batch::Payloads;
use crate::bindings::myelin::filter::host::{Host, Level, Rate as WitRate};
use crate::bindings::myelin::filter::types;
use crate::deadline::Deadline;
use crate::fault::{FaultCode, FilterFault};
use crate::filter::{LogLevel, LogLine, Notes};
use crate::flat::Callee;
use crate::limits::{COUNT_CALLS_MAX, LOG_LINE_BYTES_MAX, SlotLimits};
use crate::recall::{Answers, HostAnswer, HostCall, Question};
use crate::runtime::Schemas;
use crate::shared::{Change, SharedState};

/// The data of a slot's store: limits, the account of the running call, and what the guest said in it.
pub(crate) struct HostState {
    limits: SlotLimits,
    table_elements_max: usize,
    pub(crate) deadline: Deadline,
    /// Declared counters; set once the filter has introduced itself.
    pub(crate) counters: u32,
    /// What all linear memories of the instance have grown to.
    pub(crate) memory_bytes: usize,
    /// The instance, where it is called without its component.
    pub(crate) callee: Option<Callee>,
    /// Whether it may call the host now; kept only for such an instance.
    pub(crate) may_leave: bool,
    payloads: Option<Arc<Payloads>>,
    now_unix_ns: u64,
    calls: u32,
    count_calls: u32,
    bytes: usize,
    notes: Notes,
    log_gate: LogGate,
    shared: Arc<SharedState>,
    /// The router's registry of schemas.
    pub(crate) schemas: Schemas,
    /// The revision at which it is seen; without one as it is now.
    pub(crate) schemas_at: Option<u64>,
    /// In a replay or a shadow: what is answered instead of what is shared.
    pub(crate) answers: Option<Arc<Answers>>,
    /// Whether the notes say what was asked in this call.
    pub(crate) records: bool,
    /// The batch's monotonic time; there is none outside of a batch.
    now_ms: Option<u64>,
    /// What the running call, or the last one, has changed of what is shared: at most one for each host call.
    changes: Vec<Change>,
}

impl HostState {
    pub(crate) fn new(
        limits: &SlotLimits,
        table_elements_max: usize,
        log_gate: LogGate,
        shared: Arc<SharedState>,
    ) -> Self {
        Self {
            limits: limits.clone(),
            table_elements_max,
            deadline: Deadline::default(),
            counters: 0,
            memory_bytes: 0,
            callee: None,
            may_leave: true,
            payloads: None,
            now_unix_ns: 0,
            calls: 0,
            count_calls: 0,
            bytes: 0,
            notes: Notes::default(),
            log_gate,
            shared,
            schemas: Schemas::default(),
            schemas_at: None,
            answers: None,
            records: false,
            now_ms: None,
            changes: Vec::new(),
        }
    }

    /// Opens the account of a call; what the one before has changed of what is shared stays from here on. Without a
    /// time the call is none of a batch.
    pub(crate) fn begin(&mut self, payloads: Option<&Arc<Payloads>>, now_unix_ns: u64, now_ms: Option<u64>) {
        self.payloads = payloads.cloned();
        self.now_unix_ns = now_unix_ns;
        self.now_ms = now_ms;
        self.changes.clear();
        if let Some(answers) = &self.answers {
            answers.keep();
        }
        (self.calls, self.count_calls, self.bytes) = (0, 0, 0);
        self.log_gate.open(now_ms.unwrap_or(0));
    }

    /// Takes back what the last call has changed of what is shared: it has faulted, or its answer counts for nothing.
    pub(crate) fn roll_back(&mut self) {
        for change in self.changes.drain(..).rev() {
            self.shared.undo(change);
        }
        if let Some(answers) = &self.answers {
            answers.rewind();
        }
    }

    /// Closes the account of a call that did not fault and hands over what the guest said.
    pub(crate) fn end(&mut self, notes: &mut Notes) {
        self.payloads = None;
        if self.calls > 0 || self.count_calls > 0 {
            self.notes.host_calls = u64::from(self.calls) + u64::from(self.count_calls);
            std::mem::swap(&mut self.notes, notes);
            self.notes.clear();
        }
    }

    /// The log account, which outlives the instance: a fault must not buy a filter more lines.
    pub(crate) fn log_gate(&self) -> LogGate {
        self.log_gate
    }

    /// Bytes that a call of the guest may give back beside its verdicts.
    pub(crate) fn output_bytes_max(&self) -> usize {
        self.limits.batch_output_bytes_max
    }

    fn charge(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.calls += 1;
        if self.calls > self.limits.host_calls_max {
            return fault(FaultCode::HostCallBudget, format!("over {} host calls", self.limits.host_calls_max));
        }
        self.charge_bytes(bytes)
    }

    fn charge_bytes(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.host_bytes_max {
            let detail = format!("over {} bytes copied by host calls", self.limits.host_bytes_max);
            return fault(FaultCode::HostCallBudget, detail);
        }
        Ok(())
    }
}

/// At most so many logged bytes a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogGate {
    bytes_per_second: usize,
    second: u64,
    left: usize,
}

impl LogGate {
    pub(crate) fn new(bytes_per_second: usize) -> Self {
        Self { bytes_per_second, second: 0, left: bytes_per_second }
    }

    fn open(&mut self, now_ms: u64) {
        let second = now_ms / 1_000;
        if second != self.second {
            (self.second, self.left) = (second, self.bytes_per_second);
        }
    }

    fn admit(&mut self, bytes: usize) -> bool {
        let admitted = bytes <= self.left;
        if admitted {
            self.left -= bytes;
        }
        admitted
    }
}

fn fault<T>(code: FaultCode, detail: String) -> wasmtime::Result<T> {
    Err(wasmtime::Error::new(FilterFault::new(code, detail)))
}

impl HostState {
    /// Charges a call of a function that answers from what is shared, and gives the batch's time.
    fn charge_shared(&mut self, name: &str, key: &str) -> wasmtime::Result<u64> {
        self.charge(key.len())?;
        let outside = || format!("`{name}` outside of a batch, where there is no time");
        self.now_ms.map_or_else(|| fault(FaultCode::BadHostCall, outside()), Ok)
    }

    /// Notes a call where the batch is recorded.
    fn note(&mut self, question: impl FnOnce() -> Question, answer: impl FnOnce() -> HostAnswer) {
        if self.records {
            self.notes.calls.push(HostCall { question: question(), answer: answer() });
        }
    }

    /// What the record answers. Nothing is invented: what was not recorded ends the call, unless it is to be asked of
    /// what is shared, as where there is no record.
    fn recall(&self, question: impl FnOnce() -> Question) -> wasmtime::Result<Option<HostAnswer>> {
        let Some(answers) = &self.answers else { return Ok(None) };
        let question = question();
        let told = (!answers.falls_back()).then(|| question.to_string());
        match (answers.answer(question), told) {
            (None, Some(told)) => fault(FaultCode::Host, format!("not recorded: {told}")),
            (answer, _) => Ok(answer),
        }
    }
}

impl types::Host for HostState {}

impl Host for HostState {
    fn log(&mut self, level: Level, mut text: String) -> wasmtime::Result<()> {
        self.charge(text.len())?;
        text.truncate(text.floor_char_boundary(LOG_LINE_BYTES_MAX));
        if !self.log_gate.admit(text.len()) {
            self.notes.logs_dropped += 1;
            return Ok(());
        }
        let level = match level {
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        self.notes.logs.push(LogLine { time_unix_ns: self.now_unix_ns, level, text });
        Ok(())
    }

    fn count(&mut self, counter: u32, by: u64) -> wasmtime::Result<()> {
        self.count_calls += 1;
        if self.count_calls > COUNT_CALLS_MAX {
            return fault(FaultCode::HostCallBudget, format!("over {COUNT_CALLS_MAX} calls of `count`"));
        }
        if counter >= self.counters {
            let detail = format!("`count` of counter {counter}, {} are declared", self.counters);
            return fault(FaultCode::BadHostCall, detail);
        }
        self.notes.counts.push((counter, by));
        Ok(())
    }

    fn payload(&mut self, event: u32, offset: u32, len: u32) -> wasmtime::Result<Vec<u8>> {
        self.charge(0)?;
        let payloads = self.payloads.clone();
        let Some(payload) = payloads.as_ref().and_then(|payloads| payloads.payload(event as usize)) else {
            return fault(FaultCode::BadHostCall, format!("`payload` of event {event}, which is not in the batch"));
        };
        let from = (offset as usize).min(payload.len());
        let to = from.saturating_add(len as usize).min(payload.len());
        self.charge_bytes(to - from)?;
        Ok(payload[from..to].to_vec())
    }

    fn schema(&mut self, subject: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.charge(subject.len())?;
        // What is asked during set-up is not recorded, so that a replay could not tell it; and it would be old soon.
        if self.now_ms.is_none() {
            return Ok(None);
        }
        let question = || Question::Schema { subject: subject.clone() };
        // A shadow sees the registry as its binding will, not as that of the filter which judges does.
        let is_shadow = self.answers.as_ref().is_some_and(|answers| answers.falls_back());
        let recalled = if is_shadow { None } else { self.recall(question)? };
        let schema = match recalled {
            Some(HostAnswer::Schema(schema)) => schema,
            Some(HostAnswer::Flag(_)) => None,
            None => {
                let found = self.schemas.get().and_then(|schemas| schemas.schema(&subject, self.schemas_at));
                // Before it is copied: the budget bounds that.
                self.charge_bytes(found.as_ref().map_or(0, |text| text.len()))?;
                let schema = found.map(|text| text.as_bytes().to_vec());
                self.note(question, || HostAnswer::Schema(schema.clone()));
                return Ok(schema);
            }
        };
        self.charge_bytes(schema.as_ref().map_or(0, Vec::len))?;
        Ok(schema)
    }

    fn take(&mut self, bucket: String, n: u32, rate: WitRate) -> wasmtime::Result<bool> {
        let now_ms = self.charge_shared("take", &bucket)?;
        let rate = Rate { amount: rate.amount, period_ms: rate.period_ms, burst: rate.burst };
        if !rate.is_valid() {
            return fault(FaultCode::BadHostCall, format!("`take` with {rate:?}: each part is at least 1"));
        }
        let Rate { amount, period_ms, burst } = rate;
        let question = || Question::Take { bucket: bucket.clone(), n, amount, period_ms, burst };
        if let Some(answer) = self.recall(question)? {
            return Ok(answer == HostAnswer::Flag(true));
        }
        let taken = self.shared.take(&bucket, n, &rate, now_ms);
        self.changes.extend(taken);
        self.note(question, || HostAnswer::Flag(taken.is_some()));
        Ok(taken.is_some())
    }

    fn seen(&mut self, key: String, ttl_ms: u64) -> wasmtime::Result<bool> {
        let now_ms = self.charge_shared("seen", &key)?;
        let question = || Question::Seen { key: key.clone(), ttl_ms };
        if let Some(answer) = self.recall(question)? {
            return Ok(answer == HostAnswer::Flag(true));
        }
        let remembered = self.shared.remember(&key, ttl_ms, now_ms);
        self.changes.extend(remembered);
        self.note(question, || HostAnswer::Flag(remembered.is_none()));
        Ok(remembered.is_none())
    }
}

/// Growth over the limit ends the call: `memory` says more than the panic that a refused growth would end in.
impl ResourceLimiter for HostState {
    fn memory_growing(&mut self, current: usize, desired: usize, max: Option<usize>) -> wasmtime::Result<bool> {
        let limit = self.limits.memory_bytes_max;
        if max.is_some_and(|max| desired > max && max <= limit) {
            // Over the module's own maximum: it gets its -1, and nothing has grown.
            return Ok(false);
        }
        // All memories of a component together: each on its own would multiply the limit.
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if total > limit {
            return fault(FaultCode::Memory, format!("{total} bytes of memory asked for, {limit} are allowed"));
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let limit = self.table_elements_max;
        if desired <= limit {
            return Ok(true);
        }
        fault(FaultCode::Memory, format!("a table of {desired} elements asked for, {limit} are allowed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schemas::SchemaSource;

    fn state() -> HostState {
        let limits = SlotLimits { host_calls_max: 4, host_bytes_max: 10, ..SlotLimits::default() };
        let mut state = HostState::new(&limits, 10, LogGate::new(8), Arc::default());
        state.counters = 1;
        let mut payloads = Payloads::default();
        payloads.push(b"0123456789");
        state.begin(Some(&Arc::new(payloads)), 7, Some(0));
        state
    }

    fn code<T>(result: wasmtime::Result<T>) -> Option<FaultCode> {
        result.err().and_then(|e| e.downcast_ref::<FilterFault>().map(|fault| fault.code))
    }

    /// Has one schema, which came with revision 7.
    #[derive(Debug)]
    struct One;

    impl SchemaSource for One {
        fn schema(&self, name: &str, at: Option<u64>) -> Option<Arc<str>> {
            (name == "s" && at.is_none_or(|at| at >= 7)).then(|| "true".into())
        }
    }

    #[test]
    fn a_schema_comes_from_the_registry_counts_as_copied_and_is_recorded() {
        let mut state = state();
        assert_eq!(state.schema("s".into()).expect("within"), None, "there is no registry");
        state.schemas.set(Arc::new(One)).expect("the first");
        state.records = true;
        assert_eq!(state.schema("s".into()).expect("within").as_deref(), Some(&b"true"[..]));
        assert_eq!(state.notes.calls[0].answer, HostAnswer::Schema(Some(b"true".to_vec())));
        assert_eq!(code(state.schema("s".into())), Some(FaultCode::HostCallBudget), "bytes");
        state.begin(None, 7, None);
        assert_eq!(state.schema("s".into()).expect("within"), None, "no batch");
        for (at, found) in [(Some(6), None), (Some(7), Some(&b"true"[..]))] {
            state.schemas_at = at;
            state.begin(None, 7, Some(0));
            assert_eq!(state.schema("s".into()).expect("within").as_deref(), found, "seen as it was at {at:?}");
        }
        let told = HostCall {
            question: Question::Schema { subject: "s".into() },
            answer: HostAnswer::Schema(Some(b"old".to_vec())),
        };
        for (answers, found) in [(Answers::default(), "old"), (Answers::falling_back(), "true")] {
            answers.load(std::slice::from_ref(&told));
            state.answers = Some(Arc::new(answers));
            state.begin(None, 7, Some(0));
            let schema = state.schema("s".into()).expect("within");
            assert_eq!(
                schema.as_deref(),
                Some(found.as_bytes()),
                "a replay is told what was said, a shadow what is there"
            );
        }
    }

    #[test]
    fn payload_gives_what_is_there_and_no_more() {
        let mut state = state();
        assert_eq!(state.payload(0, 2, 3).expect("slice"), b"234");
        assert_eq!(state.payload(0, 8, u32::MAX).expect("short"), b"89");
        assert_eq!(state.payload(0, u32::MAX, u32::MAX).expect("past the end"), b"");
        assert_eq!(code(state.payload(1, 0, 1)), Some(FaultCode::BadHostCall));
    }

    #[test]
    fn calls_and_bytes_are_budgeted() {
        let mut state = state();
        state.payload(0, 0, 10).expect("within");
        assert_eq!(code(state.payload(0, 0, 1)), Some(FaultCode::HostCallBudget), "bytes");
        state.begin(None, 0, Some(0));
        (0..4).for_each(|_| assert!(state.schema(String::new()).expect("within").is_none()));
        assert_eq!(code(state.schema(String::new())), Some(FaultCode::HostCallBudget), "calls");
        assert_eq!(code(state.count(1, 1)), Some(FaultCode::BadHostCall));
    }

    #[test]
    fn logs_over_the_rate_are_dropped_and_counted() {
        let mut state = state();
        state.log(Level::Info, "12345".into()).expect("logged");
        state.log(Level::Info, "12345".into()).expect("dropped");
        let mut notes = Notes::default();
        state.end(&mut notes);
        assert_eq!((notes.logs.len(), notes.logs_dropped, notes.host_calls), (1, 1, 2));
        state.begin(None, 0, Some(1_000));
        state.log(Level::Info, "12345".into()).expect("logged");
        notes.clear();
        state.end(&mut notes);
        assert_eq!(notes.logs.len(), 1, "a new second, a new budget");
    }

    fn one() -> WitRate {
        WitRate { amount: 1, period_ms: 1_000, burst: 1 }
    }

    #[test]
    fn limits_and_duplicates_are_shared_by_all_instances_of_a_binding() {
        let shared = Arc::new(SharedState::default());
        let instance = || {
            let mut state = HostState::new(&SlotLimits::default(), 10, LogGate::new(0), Arc::clone(&shared));
            state.begin(None, 0, Some(0));
            state
        };
        let (mut first, mut second) = (instance(), instance());
        assert!(first.take("a".into(), 1, one()).expect("a call"));
        assert!(!second.take("a".into(), 1, one()).expect("a call"));
        assert!(!second.seen("k".into(), 10).expect("a call"));
        assert!(first.seen("k".into(), 10).expect("a call"));
        first.roll_back();
        assert!(second.take("a".into(), 1, one()).expect("a call"), "the first one's call has faulted");
        assert!(first.seen("k".into(), 10).expect("a call"), "what the second one said stays");
        second.begin(None, 0, Some(1));
        second.roll_back();
        assert!(!first.take("a".into(), 1, one()).expect("a call"), "a call that ended well stays");
    }

    #[test]
    fn what_is_shared_is_budgeted_and_makes_sense_in_a_batch_only() {
        let mut state = state();
        for bad in [WitRate { amount: 0, ..one() }, WitRate { period_ms: 0, ..one() }, WitRate { burst: 0, ..one() }] {
            assert_eq!(code(state.take(String::new(), 1, bad)), Some(FaultCode::BadHostCall));
        }
        assert_eq!(code(state.seen("over ten bytes".into(), 1)), Some(FaultCode::HostCallBudget), "bytes");
        state.begin(None, 0, Some(0));
        (0..4).for_each(|_| assert!(!state.seen(String::new(), 0).expect("within")));
        assert_eq!(code(state.take(String::new(), 1, one())), Some(FaultCode::HostCallBudget), "calls");
        state.begin(None, 0, None);
        assert_eq!(code(state.take(String::new(), 1, one())), Some(FaultCode::BadHostCall));
        assert_eq!(code(state.seen(String::new(), 1)), Some(FaultCode::BadHostCall));
    }

    #[test]
    fn several_memories_share_one_limit() {
        let mut state = HostState::new(
            &SlotLimits { memory_bytes_max: 10, ..SlotLimits::default() },
            10,
            LogGate::new(0),
            Arc::default(),
        );
        assert!(state.memory_growing(0, 6, None).expect("within"));
        assert!(!state.memory_growing(6, 8, Some(7)).expect("over its own maximum"), "and nothing is counted");
        assert!(state.memory_growing(0, 4, Some(4)).expect("just within"));
        assert_eq!(code(state.memory_growing(6, 7, None)), Some(FaultCode::Memory));
    }
}
