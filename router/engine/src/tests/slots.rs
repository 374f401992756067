//! Slots: what a guest may do, and what happens when it does more.

use super::*;
use myelin_arena::ArenaBuilder;

/// Runs payloads through a slot as one batch.
fn run(slot: &mut Slot, payloads: &[&str]) -> Result<Outcome, FilterFault> {
    let mut builder = ArenaBuilder::new(payloads.len());
    let mut copies = Payloads::default();
    for payload in payloads {
        let payload = payload.as_bytes();
        builder.push(&Entry { topic: "t", attrs: &[], payload, payload_total: payload.len() as u32, identity: None });
        copies.push(payload);
    }
    let copies = Arc::new(copies);
    let batch = FilterBatch {
        record_calls: false,
        arena: builder.finish(),
        count: payloads.len() as u32,
        now_unix_ns: 5,
        now_ms: 0,
        payloads: Some(&copies),
        cpu_start_ns: None,
    };
    let mut outcome = Outcome::default();
    slot.run(&batch, &mut outcome).map(|()| outcome)
}

#[test]
fn a_healthy_batch_is_judged() {
    let mut slot = slot(hostile());
    let outcome = run(&mut slot, &["a", "D", "H"]).expect("judged");
    assert_eq!(outcome.verdicts, vec![0, 1 | 1 << 16, 1]);
    assert!(outcome.output.is_empty());
    let info = slot.info();
    assert_eq!((info.name.as_str(), info.version.as_str(), info.max_output), ("guest", "1.0.0", 1024));
    assert_eq!(info.reasons, ["first reason", "second reason"]);
    assert_eq!((info.needs.all_headers, info.needs.identity, info.needs.payload), (true, false, PayloadNeed::Full));
    assert_eq!(info.routes[0].to_string(), "topic:audit/log");
    assert!(slot.reads_payloads());
}

#[test]
fn each_fault_has_its_code_and_the_next_call_finds_a_fresh_instance() {
    let mut slot = slot(hostile());
    for (payload, code) in [
        ("X", FaultCode::Trap),
        ("L", FaultCode::Deadline),
        ("M", FaultCode::Memory),
        ("R", FaultCode::StackOverflow),
        ("O", FaultCode::OutOfBounds),
        ("B", FaultCode::HostCallBudget),
        ("Q", FaultCode::BadHostCall),
        ("Z", FaultCode::MalformedOutput),
    ] {
        let fault = run(&mut slot, &["a", payload]).expect_err(payload);
        assert_eq!(fault.code, code, "{payload}: {fault}");
        assert!(!fault.detail.is_empty());
        assert_eq!(run(&mut slot, &["a", "D"]).expect("fresh").verdicts, vec![0, 65537], "after {payload}");
    }
}

#[test]
fn state_goes_from_save_to_init_and_is_lost_with_a_fault() {
    let mut first = slot(hostile());
    run(&mut first, &["a", "b", "c"]).expect("judged");
    let saved = first.save().expect("saved");
    assert_eq!(saved, 3_u32.to_le_bytes());
    let setup = SlotSetup { previous: Some(&saved), ..SlotSetup::default() };
    let mut second = hostile().instantiate(&setup).expect("a slot");
    run(&mut second, &["d"]).expect("judged");
    assert_eq!(second.save().expect("saved"), 4_u32.to_le_bytes());
    run(&mut second, &["X"]).expect_err("trap");
    assert_eq!(second.save().expect("saved"), 0_u32.to_le_bytes());
}

#[test]
fn a_spare_is_set_up_later_elsewhere_and_with_a_time_of_its_own() {
    let limits = SlotLimits { init_cpu_ms_max: 5, ..SlotLimits::default() };
    let spare = || hostile().spare(&SlotSetup { limits: limits.clone(), ..SlotSetup::default() }).expect("a spare");
    let (good, endless, refused) = (spare(), spare(), spare());
    // Ticks enough for the deadline of its making to be over, were it still that.
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut slot = good.set_up(b"", Some(&7_u32.to_le_bytes())).expect("a slot");
            run(&mut slot, &["a"]).expect("judged");
            assert_eq!(slot.save().expect("saved"), 8_u32.to_le_bytes());
            let endless = endless.set_up(b"loop", None).err().expect("endless");
            assert_eq!(endless.code(), "deadline", "{endless}");
            let refused = refused.set_up(b"bad", None).err().expect("refused");
            assert_eq!(refused.code(), "filter-config-refused");
        });
    });
}

#[test]
fn a_filter_with_a_state_takes_the_place_of_the_same_one_and_of_no_other() {
    let bound = bind(slot(hostile()), OnFault::Reject, FaultPolicy::default());
    let setup = SlotSetup { previous: Some(&[7, 0, 0, 0]), ..SlotSetup::default() };
    let with_state = hostile().instantiate(&setup).expect("a slot");
    let mut before = bound.replace(Box::new(with_state)).ok().expect("the same filter");
    assert_eq!(before.save().expect("saved"), [0; 4]);
    assert_eq!(bound.save(), Some(vec![7, 0, 0, 0]));
    let other = bound.replace(Box::new(slot(healthy()))).err().expect("another version");
    assert_eq!(other.info().version, "0.9.0");
    assert_eq!(bound.save(), Some(vec![7, 0, 0, 0]), "nothing has changed");
}

#[test]
fn a_refused_configuration_is_told_from_a_fault() {
    let start = |config: &[u8], limits: SlotLimits| {
        let setup = SlotSetup { config, limits, ..SlotSetup::default() };
        hostile().instantiate(&setup).err().expect("no slot")
    };
    let refused = start(b"bad", SlotLimits::default());
    assert_eq!(refused, InstantiateError::Configuration("config is bad".into()));
    assert_eq!(refused.code(), "filter-config-refused");
    let endless = start(b"loop", SlotLimits { init_cpu_ms_max: 5, ..SlotLimits::default() });
    assert_eq!(endless.code(), "deadline", "{endless}");
    let large = start(b"", SlotLimits { memory_bytes_max: 65536, ..SlotLimits::default() });
    assert_eq!(large.code(), "memory", "{large}");
    let verbose = start(b"", SlotLimits { event_output_bytes_max: 1000, ..SlotLimits::default() });
    assert_eq!(verbose.code(), "filter-info-invalid", "{verbose}");
}

#[test]
fn a_route_that_leads_nowhere_is_refused() {
    let guest = Guest { route: "audit/log", ..Guest::default() };
    let refused = program(&guest).instantiate(&SlotSetup::default()).err().expect("no slot");
    assert!(matches!(&refused, InstantiateError::Info(text) if text.contains("topic:NAME")), "{refused}");
}

#[test]
fn logs_counters_and_payloads_work_and_a_fault_takes_them_back() {
    let mut slot = slot(hostile());
    let outcome = run(&mut slot, &["G", "Gx", "P?!", "P!?"]).expect("judged");
    assert_eq!(outcome.verdicts, vec![0, 0, 1, 0]);
    assert_eq!(outcome.notes.counts, vec![(0, 2), (0, 2)]);
    let line = LogLine { time_unix_ns: 5, level: LogLevel::Info, text: "config is bad".into() };
    assert_eq!(outcome.notes.logs, vec![line.clone(), line]);
    assert_eq!(outcome.notes.host_calls, 6);
    run(&mut slot, &["G", "X"]).expect_err("trap");
    assert_eq!(run(&mut slot, &["a"]).expect("fresh").notes, Notes::default(), "nothing of the faulted call is left");
}

#[test]
fn an_endless_loop_costs_its_deadline_and_little_more() {
    let mut slot = slot(hostile());
    let before = crate::deadline::thread_cpu_ns();
    assert_eq!(run(&mut slot, &["L"]).expect_err("endless").code, FaultCode::Deadline);
    let spent_ms = (crate::deadline::thread_cpu_ns() - before) / 1_000_000;
    assert!((1..50).contains(&spent_ms), "{spent_ms} ms of CPU");
}

#[test]
fn slots_are_bounded_and_come_back() {
    let small = Runtime::new(&RuntimeConfig { slots: 2, ..RuntimeConfig::default() }).unwrap();
    let program = small.load(&small.compile_here(&Guest::default().component()).unwrap()).unwrap();
    let setup = SlotSetup::default();
    let (first, _second) = (program.instantiate(&setup).unwrap(), program.instantiate(&setup).unwrap());
    let third = program.instantiate(&setup).err().expect("no room");
    assert_eq!(third.code(), "no-slot", "{third}");
    drop(first);
    program.instantiate(&setup).expect("room again");
}

#[test]
fn code_of_the_pool_runs_without_it_and_the_other_way_round() {
    let single = Runtime::new(&RuntimeConfig { pooling: false, ..RuntimeConfig::default() }).unwrap();
    assert_eq!(single.compatibility(), runtime().compatibility());
    let artefact = single.compile_here(&Guest::default().component()).unwrap();
    for runtime in [&single, runtime()] {
        let mut slot = slot(&runtime.load(&artefact).expect("loaded"));
        assert_eq!(run(&mut slot, &["D"]).expect("judged").verdicts, vec![65537]);
    }
}

#[test]
fn the_self_test_runs_vectors_or_makes_events_up() {
    let setup = SlotSetup::default();
    let report = self_test(hostile(), &setup, None).expect("healthy on made-up events");
    assert_eq!(report, SelfTestReport { vectors: 0, expected: 0, synthetic: 65 });
    let vectors = concat!(
        r#"{"topic":"a","payload":"Dx","expect":{"verdict":"deny","reason":"second reason","routes":[]}}"#,
        "\n",
        r#"{"topic":"a","payload":{"b":1}}"#
    );
    let report = self_test(hostile(), &setup, Some(vectors.as_bytes())).expect("as expected");
    assert_eq!(report, SelfTestReport { vectors: 2, expected: 1, synthetic: 0 });
    let fails = |line: &str| self_test(hostile(), &setup, Some(line.as_bytes())).expect_err("fails");
    let other = fails(r#"{"topic":"a","payload":"a","expect":{"verdict":"deny"}}"#);
    assert_eq!(other.code(), "self-test-unexpected", "{other}");
    assert!(other.to_string().contains("expects deny, the filter says allow"), "{other}");
    assert!(fails(r#"{"topic":"a","payload":"D","expect":{"verdict":"deny","reason":"x"}}"#).to_string().contains('x'));
    assert_eq!(fails(r#"{"topic":"a","payload":"X"}"#).code(), "self-test-fault");
    assert_eq!(fails("{}").code(), "module-vectors");
}

#[test]
fn a_core_module_called_directly_says_and_faults_as_its_component_does() {
    let flat = hostile();
    let plain = runtime().compile_here(&Guest::default().plain_component()).expect("compiled");
    let plain = runtime().load(&plain).expect("linked");
    assert!(flat.is_flat() && !plain.is_flat());
    assert_eq!(flat.reads_payloads(), plain.reads_payloads());
    let batches: [&[&str]; 19] = [
        &[],
        &["a"],
        &["D", "a", "Dx"],
        &["T", "a"],
        &["G", "Gx", "P?!", "P!?"],
        &["H"],
        &["a"; 64],
        &["X"],
        &["L"],
        &["M"],
        &["R"],
        &["O"],
        &["C"],
        &["V"],
        &["E"],
        &["Z"],
        &["B"],
        &["Q"],
        &["a", "X", "b"],
    ];
    for payloads in batches {
        let judge = |program: &Program| {
            let mut slot = slot(program);
            let first = run(&mut slot, payloads).map_err(|fault| fault.code);
            (first, run(&mut slot, &["D"]).map_err(|fault| fault.code), slot.save())
        };
        assert_eq!(judge(flat), judge(&plain), "{payloads:?}");
    }
}

#[test]
fn an_offered_module_that_is_no_filter_is_refused_by_name() {
    let core = wat::parse_str("(module (memory (export \"memory\") 1))").expect("well-formed");
    let mut component = Guest::default().plain_component();
    wasm_encoder::ComponentSection::append_to_component(
        &wasm_encoder::RawSection { id: 1, data: &core },
        &mut component,
    );
    let modules = wasmparser::Parser::new(0).parse_all(&component).flatten();
    let modules = modules.filter(|part| matches!(part, wasmparser::Payload::ModuleSection { .. })).count();
    let mut exports = wasm_encoder::ComponentExportSection::new();
    let last = u32::try_from(modules).expect("few") - 1;
    exports.export("flat-module", wasm_encoder::ComponentExportKind::Module, last, None);
    wasm_encoder::ComponentSection::append_to_component(&exports, &mut component);
    let refused = runtime().load(&runtime().compile_here(&component).expect("compiled")).err().expect("refused");
    assert_eq!(refused.code(), "wrong-world");
    assert!(refused.to_string().contains("flat-module") && refused.to_string().contains("cabi_realloc"), "{refused}");
}
