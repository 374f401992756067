//! Batches of events through a chain of filters, as a worker runs it.

use anyhow::{Context, ensure};
use myelin_arena::{Attrs, AttrsBuilder, Entry, Kind, Verdict};
use myelin_engine::native::NativeFilter;
use myelin_engine::{
    BATCH_EVENTS_MAX, Batch, BindingSetup, BoundFilter, Chain, ChainScratch, EventView, FaultPolicy, Filter,
    FilterInfo, Grant, Needs, OnFault, Program, Runtime, RuntimeConfig, SlotLimits, SlotSetup,
};
use myelin_wire::Pattern;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

/// The topic of the events.
const TOPIC: &str = "bench/events";
/// Bytes of each payload.
const PAYLOAD_BYTES: usize = 128;
/// The header that the filters decide by.
const HEADER: (&str, &str) = ("x-tenant", "acme");
/// CPU time of one batch: no measurement shall end in a fault, not even under a slow emulator.
const BATCH_CPU_US_MAX: u64 = 50_000_000;

/// A chain and the events that it judges.
pub struct Judging {
    chain: Chain,
    scratch: ChainScratch,
    attrs: Vec<u8>,
    payload: Vec<u8>,
}

/// Loads a component. Without `pooling` each instance is mapped on its own, which is fit for valgrind.
///
/// # Errors
/// When the engine does not start, or does not take the component.
pub fn load(component: &[u8], pooling: bool) -> anyhow::Result<Program> {
    let runtime = Runtime::new(&RuntimeConfig { slots: 16, pooling, ..RuntimeConfig::default() })?;
    let artefact = runtime.compile_here(component)?;
    Ok(runtime.load(&artefact)?)
}

impl Judging {
    /// A chain of `count` instances of `program`, each with `config`, whose route to `grant` is granted.
    ///
    /// # Errors
    /// When the filter does not like its configuration, or its routes are not granted.
    pub fn wasm(program: &Program, count: usize, config: &[u8], grant: &str) -> anyhow::Result<Self> {
        let limits = SlotLimits { batch_cpu_us_max: BATCH_CPU_US_MAX, ..SlotLimits::default() };
        let setup = SlotSetup { limits, config, ..SlotSetup::default() };
        let filters = (0..count).map(|_| Ok(Box::new(program.instantiate(&setup)?) as Box<dyn Filter>));
        Self::chain(filters.collect::<anyhow::Result<_>>()?, grant)
    }

    /// The direct baseline: the same decision as a closure.
    ///
    /// # Errors
    /// None; it is of the same form as [`Judging::wasm`].
    pub fn native() -> anyhow::Result<Self> {
        let needs = Needs { headers: vec![HEADER.0.into()], ..Needs::default() };
        let info = FilterInfo { name: "native".into(), version: "1".into(), needs, ..FilterInfo::default() };
        let judge = |entry: &Entry<'_>, _: &mut Vec<_>| {
            let known = Attrs::new(entry.attrs).header(HEADER.0) == Some(HEADER.1);
            Ok(if known { Verdict::ALLOW } else { Verdict::of(Kind::Deny) })
        };
        Self::chain(vec![Box::new(NativeFilter::new(info, judge))], "")
    }

    fn chain(filters: Vec<Box<dyn Filter>>, grant: &str) -> anyhow::Result<Self> {
        let topics = if grant.is_empty() { Vec::new() } else { vec![Pattern::new(grant)?] };
        let bind = |filter| {
            let grant = Grant::new(topics.clone(), Vec::new());
            let setup =
                BindingSetup { name: "bench".into(), on_fault: OnFault::Reject, grant, policy: FaultPolicy::default() };
            Ok(Rc::new(BoundFilter::new(setup, filter, None)?))
        };
        let chain = Chain::new(filters.into_iter().map(bind).collect::<anyhow::Result<_>>()?);
        let mut attrs = AttrsBuilder::new();
        attrs.header(HEADER.0, HEADER.1);
        let (attrs, payload) = (attrs.into_bytes(), vec![b'.'; PAYLOAD_BYTES]);
        let mut judging = Self { chain, scratch: ChainScratch::new(), attrs, payload };
        // A chain that denies would be measured doing less.
        ensure!(judging.run(BATCH_EVENTS_MAX)?, "the filters do not let the bench's events pass");
        Ok(judging)
    }

    /// Judges a batch of `events` events; whether all pass as they came.
    ///
    /// # Errors
    /// When there are more than a batch holds, or a filter runs apart after a fault.
    pub fn run(&mut self, events: usize) -> anyhow::Result<bool> {
        let event = EventView { topic: TOPIC, attrs: &self.attrs, payload: &self.payload, identity: "" };
        let full;
        // A single event is not charged for an array of 64.
        let events = match events {
            1 => std::slice::from_ref(&event),
            _ => {
                full = [event; BATCH_EVENTS_MAX];
                &full[..events.min(BATCH_EVENTS_MAX)]
            }
        };
        let batch = Batch::new(events, 1, 1)?;
        let judged = std::pin::pin!(self.chain.run(&batch, &mut self.scratch));
        match judged.poll(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Ready(judgement) => Ok(judgement.all_pass_untouched()),
            Poll::Pending => None.context("a filter has faulted and runs apart"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_native_filter_lets_the_events_pass() {
        let mut native = Judging::native().expect("it needs nothing");
        assert!(native.run(1).expect("no fault"));
        native.attrs.clear();
        assert!(!native.run(1).expect("no fault"), "without its header an event is refused");
    }
}
