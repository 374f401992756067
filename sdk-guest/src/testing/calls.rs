//! Host calls on the host: they reach the harness whose filter runs on this thread.

use crate::host::Level;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What the host calls of one harness see and leave.
#[derive(Debug, Default)]
pub(crate) struct HostState {
    pub(crate) payloads: Vec<Vec<u8>>,
    pub(crate) schemas: BTreeMap<String, Vec<u8>>,
    pub(crate) logs: Vec<(Level, String)>,
    pub(crate) counters: BTreeMap<u32, u64>,
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
