//! Filters in the engine of this very process: the router's engine and limits, without a router.

use super::failure::{Exit, Failure, Result};
use crate::config::Config;
use crate::node::compiler;
use anyhow::Context;
use myelin_arena::{Attrs, attrs};
use myelin_engine::{
    CompilerConfig, Decision, ModuleFacts, ModuleLimits, Program, Replay, Runtime, RuntimeConfig, SlotLimits,
    SlotSetup, Trial, compile_in_child, inspect,
};
use std::time::{Duration, Instant};

/// Instances that may live at a time: a few versions, each with a few configurations.
const INSTANCES_MAX: u32 = 32;
/// The time of every batch on trial, so that a trial always says the same: 2026-01-01T00:00:00Z, the harness's own.
pub(super) const NOW_UNIX_NS: u64 = 1_767_225_600_000_000_000;
/// How many times the router's CPU time a batch of made-up events may take.
const PATIENCE: u64 = 10;
/// Characters of a text that is shown in a line.
const SHOWN_MAX: usize = 60;

/// The engine of this process.
pub(super) struct Engine {
    runtime: Runtime,
    compiler: CompilerConfig,
    limits: ModuleLimits,
}

/// A component that a router would take in.
pub(super) struct Loaded {
    /// Its code.
    pub(super) program: Program,
    /// What is known of it.
    pub(super) facts: ModuleFacts,
    /// How long compiling it took.
    pub(super) compiled_in: Duration,
}

impl Engine {
    /// Starts the engine, with the limits that a router has unless it is configured otherwise.
    pub(super) fn start() -> Result<Self> {
        let wasm = Config::default().wasm;
        let slots = RuntimeConfig { slots: INSTANCES_MAX, ..RuntimeConfig::default() };
        let limits = ModuleLimits { bytes_max: wasm.module_bytes, ..ModuleLimits::default() };
        Ok(Self { runtime: Runtime::new(&slots).context("the Wasm engine")?, compiler: compiler(&wasm)?, limits })
    }

    /// Looks a component over and compiles it, as a router does with an upload.
    pub(super) fn load(&self, component: &[u8]) -> Result<Loaded> {
        let refused = |code: &str, what: String| Failure::new(Exit::Failed, format!("{what} ({code})"));
        let facts = inspect(component, &self.limits).map_err(|error| refused(error.code(), error.to_string()))?;
        let begin = Instant::now();
        let artefact = compile_in_child(&self.compiler, component);
        let artefact = artefact.map_err(|error| refused(error.code(), error.to_string()))?;
        let program = self.runtime.load(&artefact).map_err(|error| refused(error.code(), error.to_string()))?;
        Ok(Loaded { program, facts, compiled_in: begin.elapsed() })
    }
}

/// An instance of `program` with this configuration; an error is the filter's own word, or the fault.
pub(super) fn instance(program: &Program, config: &[u8]) -> Result<Trial, String> {
    limited(program, config, SlotLimits::default())
}

/// The same with [`PATIENCE`] times the CPU time for a batch: for events that are made up to be odd and large, on a
/// machine that may be busy and a program that may be a debug build. What never ends fails all the same.
pub(super) fn patient_instance(program: &Program, config: &[u8]) -> Result<Trial, String> {
    let limits = SlotLimits::default();
    limited(program, config, SlotLimits { batch_cpu_us_max: PATIENCE * limits.batch_cpu_us_max, ..limits })
}

fn limited(program: &Program, config: &[u8], limits: SlotLimits) -> Result<Trial, String> {
    let setup = SlotSetup { config, limits, ..SlotSetup::default() };
    program.instantiate(&setup).map(|slot| Trial::new(Box::new(slot))).map_err(|error| error.to_string())
}

/// An instance that judges captured batches, with the time of [`patient_instance`]: a batch that was in time at a router
/// must not be late here.
pub(super) fn replay_instance(program: &Program, config: &[u8]) -> Result<Replay, String> {
    let limits = SlotLimits::default();
    let limits = SlotLimits { batch_cpu_us_max: PATIENCE * limits.batch_cpu_us_max, ..limits };
    Replay::new(program, config, limits).map_err(|error| error.to_string())
}

/// A decision in a line.
pub(super) fn told(decision: &Decision) -> String {
    let mut told = decision.verdict.as_str().to_owned();
    if let Some(reason) = &decision.reason {
        told += &format!(" \"{}\"", short(reason));
    }
    if let Some(detail) = &decision.detail {
        told += &format!(" ({})", short(detail));
    }
    if !decision.routes.is_empty() {
        told += &format!(" -> {}", decision.routes.join(", "));
    }
    if let Some(payload) = &decision.payload {
        told += &format!(", payload {}", short(&String::from_utf8_lossy(payload)));
    }
    if let Some(block) = &decision.attrs {
        told += &format!(", headers {}", short(&headers(block)));
    }
    for event in &decision.emitted {
        told += &format!(", emits {} {}", event.topic, short(&String::from_utf8_lossy(&event.payload)));
    }
    told
}

/// `name=value, ..`
fn headers(block: &[u8]) -> String {
    let headers = Attrs::new(block).iter().filter(|attr| attr.tag == attrs::HEADER);
    let headers = headers.map(|attr| format!("{}={}", attr.name, String::from_utf8_lossy(attr.value)));
    headers.collect::<Vec<_>>().join(", ")
}

/// The beginning of a text that others wrote, fit for a line on a terminal.
pub(super) fn short(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_MAX).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_arena::AttrsBuilder;
    use myelin_engine::ExpectedKind;

    #[test]
    fn a_decision_is_told_in_a_line() {
        let mut block = AttrsBuilder::new();
        block.own(attrs::KEY, b"k").header("x-a", "1");
        let decision = Decision {
            verdict: ExpectedKind::Add,
            reason: None,
            routes: vec!["topic:a".into()],
            payload: Some(b"new\n".to_vec()),
            attrs: Some(block.into_bytes()),
            detail: Some("x".repeat(100)),
            emitted: Vec::new(),
        };
        let detail = "x".repeat(60);
        assert_eq!(told(&decision), format!("add ({detail}…) -> topic:a, payload new?, headers x-a=1"));
    }
}
