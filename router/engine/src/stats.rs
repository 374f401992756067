//! What happened at a binding. Written by its worker alone, read by anybody: plain cells, no lock on the hot path.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::fault::{FaultCode, FilterFault};
use crate::filter::{LogLevel, LogLine, Notes};
use crate::info::FilterInfo;
use crate::limits::LOG_LINES_MAX;
use crate::times::Times;

/// A counter with one writer: raising it needs no locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    pub(crate) fn add(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The last fault of a binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastFault {
    /// Its stable name.
    pub code: &'static str,
    /// What happened.
    pub detail: String,
    /// Whether that may quote what the filter put out.
    pub may_quote: bool,
    /// The batch's time, Unix nanoseconds.
    pub time_unix_ns: u64,
}

/// A reading of a binding's cells on one worker. Sum them over the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BindingStats {
    /// Batches judged.
    pub batches: u64,
    /// Events that came in; the sum of the following seven.
    pub events: u64,
    /// Events allowed under their own topic only.
    pub allowed: u64,
    /// Events denied.
    pub denied: u64,
    /// Events sent to the dead-letter topic by a verdict.
    pub dead_lettered: u64,
    /// Events dropped.
    pub dropped: u64,
    /// Events that go on under the routes only.
    pub redirected: u64,
    /// Events that go on under their own topic and the routes.
    pub added: u64,
    /// Events that have no verdict of this version, because of a fault or the quarantine.
    pub faulted: u64,
    /// Of the faulted: judged by the previous version.
    pub faulted_last_good: u64,
    /// Of the faulted: let through.
    pub faulted_passed: u64,
    /// Of the faulted: refused.
    pub faulted_rejected: u64,
    /// Of the faulted: sent to the dead-letter topic.
    pub faulted_dead_lettered: u64,
    /// Events emitted beside the others.
    pub emitted: u64,
    /// Events that go on changed.
    pub replaced: u64,
    /// Calls that faulted, by code; codes that never happened are left out.
    pub faults: Vec<(&'static str, u64)>,
    /// The last of them.
    pub last_fault: Option<LastFault>,
    /// Thread CPU time, nanoseconds: measured on every sixteenth batch and multiplied, exact where it runs apart.
    pub cpu_ns: u64,
    /// The time that 99 of 100 calls stay below, microseconds of thread CPU time, of those that were measured.
    pub call_us_p99: u32,
    /// The same in percent of what a call may use.
    pub budget_p99_percent: u8,
    /// Host calls made.
    pub host_calls: u64,
    /// Log lines that were over the rate.
    pub logs_dropped: u64,
    /// The filter's own counters.
    pub counters: Vec<(String, u64)>,
    /// Whether it runs on a thread of its own after a fault.
    pub apart: bool,
    /// Whether it is given up.
    pub quarantined: bool,
}

/// The cells of one binding on one worker, shared with whoever reads them.
#[derive(Debug, Default)]
pub struct BindingCells {
    pub(crate) batches: Cell,
    pub(crate) events: Cell,
    pub(crate) allowed: Cell,
    pub(crate) denied: Cell,
    pub(crate) dead_lettered: Cell,
    pub(crate) dropped: Cell,
    pub(crate) redirected: Cell,
    pub(crate) added: Cell,
    pub(crate) faulted: Cell,
    pub(crate) faulted_last_good: Cell,
    pub(crate) faulted_passed: Cell,
    pub(crate) faulted_rejected: Cell,
    pub(crate) faulted_dead_lettered: Cell,
    pub(crate) emitted: Cell,
    pub(crate) replaced: Cell,
    pub(crate) cpu_ns: Cell,
    times: Times,
    /// What a call may use, nanoseconds.
    budget_ns: u64,
    host_calls: Cell,
    logs_dropped: Cell,
    faults: [Cell; FaultCode::ALL.len()],
    counters: Box<[Cell]>,
    names: Option<Arc<FilterInfo>>,
    pub(crate) apart: AtomicBool,
    pub(crate) quarantined: AtomicBool,
    last_fault: Mutex<Option<LastFault>>,
    logs: Mutex<VecDeque<LogLine>>,
}

impl BindingCells {
    /// Cells of a filter whose calls may use `budget_ns` nanoseconds.
    pub(crate) fn new(info: &Arc<FilterInfo>, budget_ns: u64) -> Self {
        let counters = info.counters.iter().map(|_| Cell::default()).collect();
        Self { counters, names: Some(Arc::clone(info)), budget_ns, ..Self::default() }
    }

    /// A call was measured that stands for `calls` of its like.
    pub(crate) fn took(&self, ns: u64, calls: u32) {
        self.cpu_ns.add(ns * u64::from(calls));
        self.times.record(ns);
    }

    /// Reads all cells. Each is right by itself; together they may be a batch apart.
    pub fn read(&self) -> BindingStats {
        let faults = FaultCode::ALL.iter().map(|code| (code.code(), self.faults[*code as usize].value()));
        let names = self.names.iter().flat_map(|info| &info.counters);
        let p99_ns = self.times.percentile_ns(990);
        BindingStats {
            batches: self.batches.value(),
            events: self.events.value(),
            allowed: self.allowed.value(),
            denied: self.denied.value(),
            dead_lettered: self.dead_lettered.value(),
            dropped: self.dropped.value(),
            redirected: self.redirected.value(),
            added: self.added.value(),
            faulted: self.faulted.value(),
            faulted_last_good: self.faulted_last_good.value(),
            faulted_passed: self.faulted_passed.value(),
            faulted_rejected: self.faulted_rejected.value(),
            faulted_dead_lettered: self.faulted_dead_lettered.value(),
            emitted: self.emitted.value(),
            replaced: self.replaced.value(),
            faults: faults.filter(|(_, count)| *count > 0).collect(),
            last_fault: lock(&self.last_fault).clone(),
            cpu_ns: self.cpu_ns.value(),
            call_us_p99: u32::try_from(p99_ns.div_ceil(1_000)).unwrap_or(u32::MAX),
            budget_p99_percent: u8::try_from(p99_ns.saturating_mul(100) / self.budget_ns.max(1)).unwrap_or(u8::MAX),
            host_calls: self.host_calls.value(),
            logs_dropped: self.logs_dropped.value(),
            counters: names.cloned().zip(self.counters.iter().map(Cell::value)).collect(),
            apart: self.apart.load(Relaxed),
            quarantined: self.quarantined.load(Relaxed),
        }
    }

    /// Whether the binding is given up.
    pub fn is_quarantined(&self) -> bool {
        self.quarantined.load(Relaxed)
    }

    /// Takes the log lines that nobody has read yet, oldest first.
    pub fn take_logs(&self) -> Vec<LogLine> {
        lock(&self.logs).drain(..).collect()
    }

    pub(crate) fn fault(&self, fault: &FilterFault, time_unix_ns: u64) {
        self.faults[fault.code as usize].add(1);
        let (code, detail, may_quote) = (fault.code(), fault.detail.clone(), fault.code.may_quote());
        *lock(&self.last_fault) = Some(LastFault { code, detail, may_quote, time_unix_ns });
    }

    /// Takes in what a clean call told the host. Locks only where something was logged.
    pub(crate) fn note(&self, notes: &mut Notes) {
        if notes.host_calls == 0 && notes.logs_dropped == 0 {
            return;
        }
        self.host_calls.add(notes.host_calls);
        self.logs_dropped.add(notes.logs_dropped);
        for (counter, by) in &notes.counts {
            if let Some(cell) = self.counters.get(*counter as usize) {
                cell.add(*by);
            }
        }
        if !notes.logs.is_empty() {
            let mut logs = lock(&self.logs);
            logs.extend(notes.logs.drain(..));
            let surplus = logs.len().saturating_sub(LOG_LINES_MAX);
            logs.drain(..surplus);
            self.logs_dropped.add(surplus as u64);
        }
        notes.clear();
    }

    /// Says something in the binding's log on the router's behalf.
    pub(crate) fn remark(&self, level: LogLevel, text: String, time_unix_ns: u64) {
        let mut logs = lock(&self.logs);
        if logs.len() >= LOG_LINES_MAX {
            logs.pop_front();
            self.logs_dropped.add(1);
        }
        logs.push_back(LogLine { time_unix_ns, level, text });
    }
}

/// A poisoned lock still guards whole values here: every update is one assignment or one push.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_a_ring_and_what_falls_out_is_counted() {
        let cells = BindingCells::default();
        let line = |n: usize| LogLine { time_unix_ns: 0, level: LogLevel::Info, text: n.to_string() };
        for chunk in 0..4 {
            let logs: Vec<_> = (chunk * 100..(chunk + 1) * 100).map(line).collect();
            cells.note(&mut Notes { logs, host_calls: 100, ..Notes::default() });
        }
        let kept = cells.take_logs();
        assert_eq!((kept.len(), kept[0].text.as_str()), (256, "144"));
        assert_eq!(cells.read().logs_dropped, 144);
        assert!(cells.take_logs().is_empty());
    }

    #[test]
    fn faults_are_counted_by_code() {
        let cells = BindingCells::default();
        cells.fault(&FilterFault::new(FaultCode::Trap, "one"), 1);
        cells.fault(&FilterFault::new(FaultCode::Trap, "two"), 2);
        cells.fault(&FilterFault::new(FaultCode::Deadline, "three"), 3);
        let stats = cells.read();
        assert_eq!(stats.faults, vec![("trap", 2), ("deadline", 1)]);
        assert_eq!(stats.last_fault.expect("fault").detail, "three");
    }
}
