//! Chains of native filters: order, routes, replacements, emitted events, and what a binding refuses.

use super::*;
use myelin_arena::{AttrsBuilder, Kind};

/// A filter that answers every event with `verdict` and `output`.
fn always(info: FilterInfo, verdict: Verdict, output: Vec<OutputEntry>) -> NativeFilter {
    native(FilterInfo { max_output: 1024, ..info }, move |_, out| {
        out.extend(output.clone());
        Ok(verdict)
    })
}

fn routes(texts: &[&str]) -> FilterInfo {
    FilterInfo { routes: texts.iter().map(|text| RouteTarget::parse(text).unwrap()).collect(), ..FilterInfo::default() }
}

fn bound(filter: NativeFilter) -> Rc<BoundFilter> {
    bind(filter, OnFault::Reject, FaultPolicy::default())
}

fn entry(topic: &str, attrs: &[u8], payload: &str) -> OutputEntry {
    OutputEntry { topic: topic.into(), attrs: attrs.into(), payload: payload.into() }
}

#[test]
fn an_empty_chain_lets_everything_pass() {
    let chain = Chain::default();
    let (events, mut scratch) = (events(&["a", "b"]), ChainScratch::new());
    let judgement = now(chain.run(&Batch::new(&events, 0, 0).unwrap(), &mut scratch)).expect("ready at once");
    assert!(judgement.all_pass_untouched());
    assert_eq!(judgement.events().filter(|judged| judged.fate == Fate::Pass).count(), 2);
}

#[test]
fn the_first_deny_ends_it_and_later_bindings_do_not_see_the_event() {
    let reasons = FilterInfo { reasons: vec!["no".into(), "too old".into()], ..FilterInfo::default() };
    let denies = native(FilterInfo { max_output: 64, ..reasons }, |payload, out| match payload {
        "old" => {
            out.push(OutputEntry { payload: b"/age".to_vec(), ..OutputEntry::default() });
            Ok(Verdict::of(Kind::Deny).with_reason(1).with_detail())
        }
        "drop" => Ok(Verdict::of(Kind::Drop)),
        _ => Ok(Verdict::ALLOW),
    });
    let second = bound(native(FilterInfo::default(), |payload, _| {
        assert_eq!(payload, "new", "the others have ended");
        Ok(Verdict::ALLOW)
    }));
    let first = bound(denies);
    let chain = Chain::new(vec![first.clone(), second.clone()]);
    let (events, mut scratch) = (events(&["old", "new", "drop"]), ChainScratch::new());
    let judgement = now(chain.run(&Batch::new(&events, 0, 0).unwrap(), &mut scratch)).expect("ready at once");
    assert!(!judgement.all_pass_untouched());
    let old = judgement.event(0);
    assert_eq!((old.fate, old.binding, old.reason, old.detail), (Fate::Deny, Some(0), "too old", "/age"));
    assert_eq!((judgement.event(1).fate, judgement.event(1).binding), (Fate::Pass, None));
    assert_eq!(judgement.event(2).fate, Fate::Drop);
    let stats = first.cells().read();
    assert_eq!((stats.batches, stats.events, stats.allowed, stats.denied, stats.dropped), (1, 3, 1, 1, 1));
    assert_eq!(second.cells().read().events, 1);
}

#[test]
fn sets_of_routes_add_up_and_a_redirect_stands() {
    let away = always(routes(&["topic:audit/a", "site:eu-1"]), Verdict::of(Kind::Redirect).with_routes(0b11), vec![]);
    let more = always(routes(&["topic:audit/b"]), Verdict::of(Kind::Add).with_routes(1), vec![]);
    let chain = Chain::new(vec![bound(away), bound(more)]);
    let (events, mut scratch) = (events(&["x", "y"]), ChainScratch::new());
    let judgement = now(chain.run(&Batch::new(&events, 0, 0).unwrap(), &mut scratch)).expect("ready at once");
    for index in 0..2 {
        assert_eq!((judgement.event(index).fate, judgement.event(index).has_targets), (Fate::Redirect, true));
        let mut targets: Vec<_> = judgement.targets(index).map(ToString::to_string).collect();
        targets.sort();
        assert_eq!(targets, ["site:eu-1", "topic:audit/a", "topic:audit/b"]);
    }
}

#[test]
fn a_binding_sees_what_the_one_before_left() {
    let mut block = AttrsBuilder::new();
    block.header("x-by", "first");
    let attrs = block.into_bytes();
    let both = Verdict::ALLOW.with_replacement(true, true);
    let first = always(FilterInfo::default(), both, vec![entry("", &attrs, "changed")]);
    let second = NativeFilter::new(
        FilterInfo { needs: Needs::everything(), max_output: 64, ..FilterInfo::default() },
        |entry, out| {
            assert_eq!(myelin_arena::Attrs::new(entry.attrs).header("x-by"), Some("first"));
            let payload = [entry.payload, b" twice"].concat();
            out.push(OutputEntry { payload, ..OutputEntry::default() });
            Ok(Verdict::ALLOW.with_replacement(true, false))
        },
    );
    let chain = Chain::new(vec![bound(first), bound(second)]);
    let (events, mut scratch) = (events(&["x", "y"]), ChainScratch::new());
    let judgement = now(chain.run(&Batch::new(&events, 0, 0).unwrap(), &mut scratch)).expect("ready at once");
    for judged in judgement.events() {
        assert_eq!(
            (judged.fate, judged.payload, judged.attrs),
            (Fate::Pass, Some(&b"changed twice"[..]), Some(&attrs[..]))
        );
    }
    assert_eq!(chain.bindings()[1].cells().read().replaced, 2);
}

#[test]
fn emitted_events_name_their_cause_and_their_binding() {
    let emits = native(FilterInfo { max_output: 64, ..FilterInfo::default() }, |payload, out| {
        if payload != "b" {
            return Ok(Verdict::ALLOW);
        }
        out.extend([entry("audit/one", b"", "1"), entry("audit/two", b"\x05\x01\0k", "2")]);
        Ok(Verdict::of(Kind::Drop).with_emitted(2))
    });
    let chain = Chain::new(vec![bound(native(FilterInfo::default(), |_, _| Ok(Verdict::ALLOW))), bound(emits)]);
    let (events, mut scratch) = (events(&["a", "b"]), ChainScratch::new());
    let judgement = now(chain.run(&Batch::new(&events, 0, 0).unwrap(), &mut scratch)).expect("ready at once");
    let emitted: Vec<_> = judgement.emitted().collect();
    let expected = Emitted { topic: "audit/two", attrs: b"\x05\x01\0k", payload: b"2", binding: 1, cause: 1 };
    assert_eq!((emitted.len(), emitted[0].topic, emitted[1]), (2, "audit/one", expected));
    assert_eq!(judgement.event(1).fate, Fate::Drop);
}

#[test]
fn an_event_that_goes_where_the_binding_does_not_grant_is_a_fault() {
    let emits = always(FilterInfo::default(), Verdict::ALLOW.with_emitted(1), vec![entry("orders/eu", b"", "1")]);
    let binding = bound(emits);
    assert_eq!(fates(&Chain::new(vec![binding.clone()]), &["a"], 0), [Fate::Deny]);
    let stats = binding.cells().read();
    assert_eq!((stats.faults, stats.emitted), (vec![("malformed-output", 1)], 0));
    assert!(stats.last_fault.unwrap().detail.contains("grant"));
}

#[test]
fn a_verdict_that_adds_sites_alone_is_a_fault() {
    let declared = || routes(&["topic:audit/a", "site:eu-1"]);
    for (set, is_good) in [(0b10, false), (0b11, true), (0b01, true)] {
        let adds = always(declared(), Verdict::of(Kind::Add).with_routes(set), vec![]);
        let binding = bound(adds);
        let chain = Chain::new(vec![binding.clone()]);
        assert_eq!(fates(&chain, &["a"], 0), [if is_good { Fate::Pass } else { Fate::Deny }], "{set:b}");
        let stats = binding.cells().read();
        assert_eq!(stats.faults, if is_good { vec![] } else { vec![("malformed-output", 1)] }, "{set:b}");
        assert_eq!(stats.last_fault.is_some_and(|fault| fault.detail.contains("it adds no topic")), !is_good);
    }
    // A redirect to sites alone narrows the event itself down.
    let away = always(declared(), Verdict::of(Kind::Redirect).with_routes(0b10), vec![]);
    assert_eq!(fates(&Chain::new(vec![bound(away)]), &["a"], 0), [Fate::Redirect]);
}

#[test]
fn a_route_that_is_not_granted_is_refused_when_it_is_bound() {
    let filter = always(routes(&["topic:orders/eu"]), Verdict::ALLOW, vec![]);
    let setup = BindingSetup {
        name: "b".into(),
        on_fault: OnFault::Reject,
        grant: Grant::default(),
        policy: FaultPolicy::default(),
    };
    let refused = BoundFilter::new(setup, Box::new(filter), None).err().expect("refused");
    assert_eq!(refused.code(), "route-not-granted");
    assert!(refused.to_string().contains("topic:orders/eu"), "{refused}");
}

#[test]
fn a_filter_sees_what_it_needs_and_no_more() {
    let needs = Needs { payload: PayloadNeed::Prefix(2), ..Needs::default() };
    let info = FilterInfo { needs, ..FilterInfo::default() };
    let modest = NativeFilter::new(info, |entry, _| {
        assert_eq!((entry.attrs, entry.payload, entry.payload_total, entry.identity), (&b""[..], &b"pa"[..], 7, None));
        Ok(Verdict::ALLOW)
    });
    let chain = Chain::new(vec![bound(modest)]);
    let event = EventView { topic: "t", attrs: b"\x05\x01\0k", payload: b"payload", identity: "me" };
    let mut scratch = ChainScratch::new();
    let judgement = now(chain.run(&Batch::new(&[event], 0, 0).unwrap(), &mut scratch)).expect("ready at once");
    assert!(judgement.all_pass_untouched());
}

#[test]
fn state_is_saved_through_the_binding() {
    assert_eq!(bound(faulty().with_state("kept")).save().as_deref(), Some(&b"kept"[..]));
}

#[test]
fn a_watched_chain_judges_alike_and_tells_what_each_binding_said() {
    let denies = || {
        native(FilterInfo::default(), |payload, _| match payload {
            "bad" => Ok(Verdict::of(Kind::Deny)),
            "broken" => Err(FilterFault::new(FaultCode::Trap, "poison")),
            _ => Ok(Verdict::ALLOW),
        })
    };
    let add = || {
        always(
            routes(&["topic:audit/b"]),
            Verdict::of(Kind::Add).with_routes(1).with_emitted(1),
            vec![entry("audit/log", b"", "x")],
        )
    };
    let change =
        || always(FilterInfo::default(), Verdict::ALLOW.with_replacement(true, false), vec![entry("", b"", "new")]);
    let chain = || Chain::new(vec![bound(denies()), bound(add()), bound(change())]);
    for (payloads, watched) in
        [(&["good"][..], vec![0]), (&["bad"], vec![0]), (&["broken"], vec![0]), (&["bad"], vec![])]
    {
        let (events, mut scratch, mut plain) = (events(payloads), ChainScratch::new(), ChainScratch::new());
        let (watching, running, mut seen) = (chain(), chain(), Vec::new());
        let batch = Batch::new(&events, 0, 0).unwrap();
        let judgement = block_on(watching.run_watched(&batch, &mut scratch, &watched, &mut seen));
        let fates: Vec<_> = judgement.events().map(|judged| judged.fate).collect();
        let expected = block_on(running.run(&batch, &mut plain));
        assert_eq!(fates, expected.events().map(|judged| judged.fate).collect::<Vec<_>>(), "{payloads:?}");
        let told: Vec<_> =
            seen.iter().map(|one| (one.binding, one.fate, one.adds, one.changes, one.emits, one.fault)).collect();
        let good = [
            (0, Fate::Pass, false, false, false, None),
            (1, Fate::Pass, true, false, true, None),
            (2, Fate::Pass, false, true, false, None),
        ];
        match (payloads[0], watched.is_empty()) {
            ("good", _) => assert_eq!(told, good),
            ("bad", false) => assert_eq!(told, [(0, Fate::Deny, false, false, false, None)]),
            ("broken", _) => assert_eq!(told, [(0, Fate::Deny, false, false, false, Some("trap"))]),
            _ => assert!(told.is_empty(), "nobody is watched: {told:?}"),
        }
        assert!(seen.iter().all(|one| one.judged == 1), "{seen:?}");
    }
}
