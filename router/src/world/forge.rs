//! The forge: from a module's bytes to a program that has passed its self-test.

use super::{Blame, WorldError};
use myelin_catalog::Digest;
use myelin_engine::{
    CodeCache, CompilerConfig, InstantiateError, ModuleFacts, ModuleLimits, Program, Runtime, SelfTestFailure,
    SelfTestReport, SlotLimits, SlotSetup, inspect, self_test,
};
use std::collections::HashMap;

/// Makes programs and keeps those that are in use.
pub(super) struct Forge {
    runtime: Runtime,
    cache: CodeCache,
    compiler: CompilerConfig,
    limits: ModuleLimits,
    /// What a module may use in its own test: as much as any binding.
    slots: SlotLimits,
    programs: HashMap<Digest, Program>,
}

impl Forge {
    /// A forge that compiles as `compiler` says and remembers compiled code in `cache`.
    pub(super) fn new(
        runtime: Runtime,
        cache: CodeCache,
        compiler: CompilerConfig,
        limits: ModuleLimits,
        slots: SlotLimits,
    ) -> Self {
        Self { runtime, cache, compiler, limits, slots, programs: HashMap::new() }
    }

    /// Looks at a module before anything is compiled.
    ///
    /// # Errors
    /// What is wrong with it, by its author's blame.
    pub(super) fn inspect(&self, bytes: &[u8]) -> Result<ModuleFacts, WorldError> {
        inspect(bytes, &self.limits)
            .map_err(|refusal| WorldError::new(Blame::Filter, refusal.code(), refusal.to_string()))
    }

    /// The program of the module with `digest`; `bytes` are asked for unless it is in use already.
    ///
    /// # Errors
    /// When the module does not compile within its limits, or its bytes are not to be had.
    pub(super) fn program(
        &mut self,
        digest: Digest,
        bytes: impl FnOnce() -> Result<Vec<u8>, WorldError>,
    ) -> Result<Program, WorldError> {
        if let Some(program) = self.programs.get(&digest) {
            return Ok(program.clone());
        }
        let program = self.cache.program(&self.runtime, &self.compiler, &bytes()?);
        let program =
            program.map_err(|error| WorldError::new(compile_blame(error.code()), error.code(), error.to_string()))?;
        self.programs.insert(digest, program.clone());
        Ok(program)
    }

    /// Runs the module's own sample events, or made-up ones where it brings none.
    ///
    /// # Errors
    /// The first sample that is not judged as expected, or the fault.
    pub(super) fn test(&self, program: &Program, facts: &ModuleFacts) -> Result<(), WorldError> {
        let setup = SlotSetup { limits: self.slots.clone(), ..SlotSetup::default() };
        match self_test(program, &setup, facts.vectors.as_deref()) {
            // Without samples of its own there is no configuration to try it with: its binding brings one.
            Err(SelfTestFailure::Instantiate(InstantiateError::Configuration(_))) if facts.vectors.is_none() => Ok(()),
            tested => failed(tested),
        }
    }

    /// Runs made-up events through a program under a binding's configuration.
    ///
    /// # Errors
    /// The fault.
    pub(super) fn test_bound(&self, program: &Program, setup: &SlotSetup<'_>) -> Result<(), WorldError> {
        failed(self_test(program, setup, None))
    }

    /// Forgets programs that are not `needed`.
    pub(super) fn keep(&mut self, needed: impl Fn(&Digest) -> bool) {
        self.programs.retain(|digest, _| needed(digest));
    }
}

fn failed(tested: Result<SelfTestReport, SelfTestFailure>) -> Result<(), WorldError> {
    match tested {
        Ok(_) => Ok(()),
        Err(failure) => Err(WorldError::new(Blame::Filter, failure.code(), failure.to_string())),
    }
}

/// Whose fault it is that a module was not compiled.
fn compile_blame(code: &str) -> Blame {
    match code {
        "compiler-start" | "compiler-limits" | "compiler-answer" => Blame::Router,
        _ => Blame::Filter,
    }
}
