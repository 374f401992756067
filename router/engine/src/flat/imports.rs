//! The host's functions as a core module imports them: flat parameters, results through a pointer.

use wasmtime::{Caller, Engine, Linker};

use super::memory::text_argument;
use super::{Callee, malformed};
use crate::bindings::myelin::filter::host::{Host, Level, Rate};
use crate::fault::{FaultCode, FilterFault};
use crate::host::HostState;

/// The module's name for them.
const HOST: &str = "myelin:filter/host@0.1.0";

/// The host's functions for core modules. A module that imports anything else is not linked.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap(HOST, "log", |mut caller: Caller<'_, HostState>, level: u32, at: u32, len: u32| {
        let level = match level {
            0 => Level::Debug,
            1 => Level::Info,
            2 => Level::Warn,
            3 => Level::Error,
            _ => return Err(malformed(format!("`log` with the level {level}"))),
        };
        let text = text_of(&mut caller, at, len)?;
        caller.data_mut().log(level, text)
    })?;
    linker.func_wrap(HOST, "count", |mut caller: Caller<'_, HostState>, counter: u32, by: u64| {
        leave(&caller)?;
        caller.data_mut().count(counter, by)
    })?;
    linker.func_wrap(
        HOST,
        "payload",
        |mut caller: Caller<'_, HostState>, event: u32, offset: u32, len: u32, answer: u32| {
            let callee = leave(&caller)?;
            let bytes = caller.data_mut().payload(event, offset, len)?;
            let (at, len) = callee.lend(&mut caller, &bytes)?;
            let words = [at.to_le_bytes(), len.to_le_bytes()].concat();
            answer_with(&callee, &mut caller, answer, &words)
        },
    )?;
    linker.func_wrap(HOST, "schema", |mut caller: Caller<'_, HostState>, at: u32, len: u32, answer: u32| {
        let callee = leave(&caller)?;
        let subject = text_of(&mut caller, at, len)?;
        let Some(schema) = caller.data_mut().schema(subject)? else {
            return answer_with(&callee, &mut caller, answer, &[0]);
        };
        let (at, len) = callee.lend(&mut caller, &schema)?;
        let words = [1u32.to_le_bytes(), at.to_le_bytes(), len.to_le_bytes()].concat();
        answer_with(&callee, &mut caller, answer, &words)
    })?;
    linker.func_wrap(
        HOST,
        "take",
        |mut caller: Caller<'_, HostState>, at: u32, len: u32, n: u32, amount: u32, period_ms: u32, burst: u32| {
            let bucket = text_of(&mut caller, at, len)?;
            caller.data_mut().take(bucket, n, Rate { amount, period_ms, burst }).map(u32::from)
        },
    )?;
    linker.func_wrap(HOST, "seen", |mut caller: Caller<'_, HostState>, at: u32, len: u32, ttl_ms: u64| {
        let key = text_of(&mut caller, at, len)?;
        caller.data_mut().seen(key, ttl_ms).map(u32::from)
    })?;
    Ok(linker)
}

/// Whether the guest may call the host now; what the host then needs of it.
fn leave(caller: &Caller<'_, HostState>) -> wasmtime::Result<Callee> {
    let state = caller.data();
    let callee = state.callee.clone().filter(|_| state.may_leave);
    callee.ok_or_else(|| {
        let detail = "a host call from start-up code, from the allocator or while a result is freed";
        wasmtime::Error::new(FilterFault::new(FaultCode::BadHostCall, detail))
    })
}

fn text_of(caller: &mut Caller<'_, HostState>, at: u32, len: u32) -> wasmtime::Result<String> {
    let callee = leave(caller)?;
    text_argument(callee.memory.data(&*caller), at, len)
}

/// Writes a result to where the guest wants it.
fn answer_with(callee: &Callee, caller: &mut Caller<'_, HostState>, at: u32, words: &[u8]) -> wasmtime::Result<()> {
    if !at.is_multiple_of(4) {
        return Err(malformed(format!("the pointer {at} for a result is not aligned to 4 bytes")));
    }
    callee.write(&mut wasmtime::AsContextMut::as_context_mut(caller), at, words)
}
