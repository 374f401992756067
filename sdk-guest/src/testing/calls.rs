//! Host calls on the host: they reach the harness whose filter runs on this thread.

use crate::host::{Level, Rate};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What the host calls of one harness see and leave.
#[derive(Debug, Default)]
pub(crate) struct HostState {
    pub(crate) payloads: Vec<Vec<u8>>,
    pub(crate) schemas: BTreeMap<String, Vec<u8>>,
    pub(crate) logs: Vec<(Level, String)>,
    pub(crate) counters: BTreeMap<u32, u64>,
    /// The batch's time; there is none outside of a batch.
    pub(crate) now_ms: Option<u64>,
    /// For each bucket the nanosecond at which it is full again.
    pub(crate) buckets: BTreeMap<String, u64>,
    /// For each key the millisecond at which it is forgotten.
    pub(crate) keys: BTreeMap<String, u64>,
}

impl HostState {
    fn now_ms(&self, name: &str) -> u64 {
        self.now_ms.unwrap_or_else(|| panic!("`host::{name}` outside of a batch: a router takes that for a fault"))
    }
}

thread_local! {
    static CURRENT: RefCell<Option<HostState>> = const { RefCell::new(None) };
}

/// Runs `work` with `state` behind the host calls.
pub(crate) fn with_state<T>(state: &mut HostState, work: impl FnOnce() -> T) -> T {
    let outer = CURRENT.replace(Some(std::mem::take(state)));
    let result = work();
    *state = CURRENT.replace(outer).unwrap_or_default();
    result
}

fn in_current<T: Default>(work: impl FnOnce(&mut HostState) -> T) -> T {
    CURRENT.with_borrow_mut(|current| current.as_mut().map(work).unwrap_or_default())
}

pub(crate) fn log(level: Level, text: &str) {
    in_current(|state| state.logs.push((level, text.to_owned())));
}

pub(crate) fn count(counter: u32, by: u64) {
    in_current(|state| *state.counters.entry(counter).or_default() += by);
}

pub(crate) fn payload(event: u32, offset: u32, len_bytes: u32) -> Vec<u8> {
    in_current(|state| {
        let payload = state.payloads.get(event as usize).map(Vec::as_slice).unwrap_or_default();
        let rest = payload.get(offset as usize..).unwrap_or_default();
        rest[..rest.len().min(len_bytes as usize)].to_vec()
    })
}

pub(crate) fn schema(subject: &str) -> Option<Vec<u8>> {
    in_current(|state| state.schemas.get(subject).cloned())
}

pub(crate) fn take(bucket: &str, n: u32, rate: Rate) -> bool {
    in_current(|state| {
        assert!(rate.is_valid(), "`host::take` with {rate:?}: each part is at least 1");
        let now_ns = state.now_ms("take").saturating_mul(1_000_000);
        let full_at = state.buckets.entry(bucket.to_owned()).or_default();
        let taken = rate.take(*full_at, now_ns, n);
        *full_at = taken.unwrap_or(*full_at);
        taken.is_some()
    })
}

pub(crate) fn seen(key: &str, ttl_ms: u64) -> bool {
    in_current(|state| {
        let now_ms = state.now_ms("seen");
        let until = state.keys.entry(key.to_owned()).or_default();
        let is_known = *until > now_ms;
        if !is_known {
            *until = now_ms.saturating_add(ttl_ms);
        }
        is_known
    })
}
