//! Every hostile module at the engine itself: stopped at its stage, with its code, and harmless to its neighbours.

use anyhow::{Context, Result, ensure};
use myelin::node::COMPILE_COMMAND;
use myelin_attacks::modules::{self, COMPILE_CPU_SECONDS, GRANTED, Hostile, POISON, Stop};
use myelin_engine::{
    Artefact, Batch, BindingSetup, BoundFilter, Chain, ChainScratch, CompilerConfig, CompilerLimits, EventView, Fate,
    FaultPolicy, Filter, Grant, ModuleLimits, OnFault, Program, Runtime, RuntimeConfig, SlotSetup, compile_in_child,
    inspect, self_test,
};
use myelin_wire::Pattern;
use std::rc::Rc;
use std::time::Duration;

/// A module gets as far as it can; where it is stopped, and by which code.
fn stop_of(runtime: &Runtime, module: &Hostile) -> Result<Stop> {
    let wasm = module.wasm();
    let facts = match inspect(&wasm, &ModuleLimits::default()) {
        Ok(facts) => facts,
        Err(refusal) => return Ok(Stop::Inspect(refusal.code())),
    };
    let artefact = match compile(runtime, module, &wasm) {
        Ok(artefact) => artefact,
        Err(code) => return Ok(Stop::Compile(code)),
    };
    let program = match runtime.load(&artefact) {
        Ok(program) => program,
        Err(error) => return Ok(Stop::Load(error.code())),
    };
    if let Err(failure) = self_test(&program, &SlotSetup::default(), facts.vectors.as_deref()) {
        return Ok(Stop::SelfTest(failure.code()));
    }
    let binding = match bind(&program) {
        Ok(binding) => binding,
        Err(code) => return Ok(Stop::Bind(code)),
    };
    if let Some(code) = woken(&binding)? {
        return Ok(Stop::Call(code));
    }
    let mut slot = program.instantiate(&SlotSetup::default())?;
    Ok(slot.save().map_or_else(|fault| Stop::Save(fault.code()), |_| Stop::Borne))
}

/// Those that aim at the compiler meet it in its own process, as all do in a router; the others are compiled here,
/// which is quicker.
fn compile(runtime: &Runtime, module: &Hostile, wasm: &[u8]) -> Result<Artefact, &'static str> {
    if !matches!(module.stop, Stop::Compile(_)) {
        return runtime.compile_here(wasm).map_err(|error| error.code());
    }
    // As a router has them by default, but for the time.
    let address_space_bytes = 2 << 30;
    let limits = CompilerLimits { cpu_seconds: COMPILE_CPU_SECONDS, address_space_bytes, ..CompilerLimits::default() };
    let numbers = [limits.address_space_bytes, limits.cpu_seconds, limits.module_bytes_max as u64];
    let args = [COMPILE_COMMAND.to_owned()].into_iter().chain(numbers.map(|number| number.to_string())).collect();
    let config = CompilerConfig { program: myelin_tests::program(), args, limits, wall: Duration::from_secs(60) };
    compile_in_child(&config, wasm).map_err(|error| error.code())
}

fn bind(program: &Program) -> Result<Rc<BoundFilter>, &'static str> {
    let slot = program.instantiate(&SlotSetup::default()).map_err(|error| error.code())?;
    let grant = Grant::new(Pattern::new(GRANTED).into_iter().collect(), Vec::new());
    let setup = BindingSetup { name: "b".into(), on_fault: OnFault::Reject, grant, policy: FaultPolicy::default() };
    BoundFilter::new(setup, Box::new(slot), None).map(Rc::new).map_err(|error| error.code())
}

/// Judges a batch with one event that wakes the module: its code where it faults. Its neighbours must pass.
fn woken(binding: &Rc<BoundFilter>) -> Result<Option<&'static str>> {
    let chain = Chain::new(vec![binding.clone()]);
    let fates = |payloads: &[&str]| -> Result<Vec<(Fate, Option<&'static str>)>> {
        let view =
            |payload: &&'static str| EventView { topic: "t", payload: payload.as_bytes(), ..EventView::default() };
        let payloads: Vec<&'static str> = payloads.iter().map(|p| if *p == POISON { POISON } else { "fine" }).collect();
        let (events, mut scratch) = (payloads.iter().map(view).collect::<Vec<_>>(), ChainScratch::new());
        let batch = Batch::new(&events, 1, 1)?;
        let run = chain.run(&batch, &mut scratch);
        let judgement = tokio::runtime::Builder::new_current_thread().build()?.block_on(run);
        Ok(judgement.events().map(|judged| (judged.fate, judged.fault.map(|fault| fault.code()))).collect())
    };
    let found = fates(&["fine", POISON, "fine"])?;
    for (fate, fault) in [&found[0], &found[2]] {
        ensure!((*fate, *fault) == (Fate::Pass, None), "a neighbour of the poison: {found:?}");
    }
    let (fate, fault) = found[1];
    ensure!(fate == if fault.is_some() { Fate::Deny } else { Fate::Pass }, "{found:?}");
    let after = fates(&["fine"])?;
    ensure!(after == [(Fate::Pass, None)], "after the poison: {after:?}");
    Ok(fault)
}

#[test]
fn every_hostile_module_is_stopped_at_its_stage_with_its_code() -> Result<()> {
    let runtime = Runtime::new(&RuntimeConfig { slots: 32, ..RuntimeConfig::default() })?;
    let mut wrong = Vec::new();
    for module in modules::all() {
        let found = stop_of(&runtime, &module).with_context(|| module.name.to_owned())?;
        if found != module.stop {
            wrong.push(format!("{}: {found:?}, not {:?}", module.name, module.stop));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn a_filter_that_is_another_after_its_fault_is_not_run_again() -> Result<()> {
    let runtime = Runtime::new(&RuntimeConfig { slots: 4, ..RuntimeConfig::default() })?;
    let program = runtime.load(&runtime.compile_here(&modules::two_faced())?)?;
    let mut slot = program.instantiate(&SlotSetup { previous: Some(b"state"), ..SlotSetup::default() })?;
    slot.reset();
    let fault = slot.save().expect_err("a fresh instance introduces itself as another");
    assert_eq!(fault.code(), "malformed-output", "{fault}");
    Ok(())
}
