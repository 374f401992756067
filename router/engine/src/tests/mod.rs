//! Tests of the parts together: real components in real slots, and chains of native and Wasm filters.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

mod chains;
mod easy;
mod easy_guest;
mod faults;
mod guests;
mod inspection;
mod native_chains;
mod slots;
mod tapes;
mod trials;

use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use myelin_wire::Pattern;

use crate::native::{NativeFilter, OutputEntry};
use crate::*;
use guests::Guest;
use myelin_arena::{Entry, Verdict};

/// One runtime for all tests of the process.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new(&RuntimeConfig { slots: 64, ..RuntimeConfig::default() }).expect("an engine"))
}

/// A guest, compiled and linked.
fn program(guest: &Guest) -> Program {
    runtime().load(&runtime().compile_here(&guest.component()).expect("compiled")).expect("linked")
}

/// The hostile guest; compiled once.
fn hostile() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| program(&Guest::default()))
}

/// The guest that honours no fault, as the version before; compiled once.
fn healthy() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| program(&Guest { version: "0.9.0", hostile: false, ..Guest::default() }))
}

fn slot(program: &Program) -> Slot {
    program.instantiate(&SlotSetup::default()).expect("a slot")
}

/// The events of these payloads.
fn events<'a>(payloads: &'a [&'a str]) -> Vec<EventView<'a>> {
    let event =
        |payload: &&'a str| EventView { topic: "orders/eu", payload: payload.as_bytes(), ..EventView::default() };
    payloads.iter().map(event).collect()
}

/// Binds a filter that may reach `audit/**`.
fn bind(filter: impl Filter + 'static, on_fault: OnFault, policy: FaultPolicy) -> Rc<BoundFilter> {
    bind_with_previous(filter, None, on_fault, policy)
}

fn bind_with_previous(
    filter: impl Filter + 'static,
    previous: Option<Box<dyn Filter>>,
    on_fault: OnFault,
    policy: FaultPolicy,
) -> Rc<BoundFilter> {
    let grant = Grant::new(vec![Pattern::new("audit/**").unwrap()], vec!["eu-1".into()]);
    let setup = BindingSetup { name: "binding".into(), on_fault, grant, policy };
    Rc::new(BoundFilter::new(setup, Box::new(filter), previous).expect("bound"))
}

/// Runs a future to its end on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Polls a future once: what runs inline is ready at once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

/// The fates of a batch of these payloads, at a time.
fn fates(chain: &Chain, payloads: &[&str], now_ms: u64) -> Vec<Fate> {
    let events = events(payloads);
    let mut scratch = ChainScratch::new();
    let judgement = block_on(chain.run(&Batch::new(&events, 1, now_ms).unwrap(), &mut scratch));
    judgement.events().map(|judged| judged.fate).collect()
}

/// A native filter whose closure sees the payload's text.
fn native(
    info: FilterInfo,
    mut judge: impl FnMut(&str, &mut Vec<OutputEntry>) -> Result<Verdict, FilterFault> + Send + 'static,
) -> NativeFilter {
    let info = FilterInfo { name: "native".into(), version: "1".into(), needs: Needs::everything(), ..info };
    NativeFilter::new(info, move |entry: &Entry<'_>, output| judge(std::str::from_utf8(entry.payload).unwrap(), output))
}

/// A native filter that faults on payloads with an `X` and allows the rest.
fn faulty() -> NativeFilter {
    native(FilterInfo::default(), |payload, _| match payload.contains('X') {
        true => Err(FilterFault::new(FaultCode::Trap, format!("poison: {payload}"))),
        false => Ok(Verdict::ALLOW),
    })
}
