//! The world `easy` in real slots: the same rules, limits and faults as the world `fast`; and what instances share.

use super::easy_guest;
use super::*;

fn easy() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let artefact = runtime().compile_here(&easy_guest::component()).expect("compiled");
        runtime().load(&artefact).expect("linked")
    })
}

/// A chain of one easy filter, with what it shares.
fn chain_sharing(shared: &Arc<SharedState>, on_fault: OnFault) -> Chain {
    let setup = SlotSetup { shared: Arc::clone(shared), ..SlotSetup::default() };
    Chain::new(vec![bind(easy().instantiate(&setup).expect("a slot"), on_fault, FaultPolicy::default())])
}

fn chain(on_fault: OnFault) -> Chain {
    chain_sharing(&Arc::default(), on_fault)
}

#[test]
fn a_component_of_the_world_easy_is_known_as_such() {
    let facts = inspect(&easy_guest::component(), &ModuleLimits::default()).expect("taken in");
    assert_eq!((facts.world, facts.exports), (World::Easy, vec!["myelin:filter/easy-filter@0.1.0".to_owned()]));
    assert_eq!((easy().world(), hostile().world()), (World::Easy, World::Fast));
    let fast = inspect(&Guest::default().component(), &ModuleLimits::default()).expect("taken in");
    assert_eq!((fast.world.as_str(), World::Easy.as_str()), ("fast", "easy"));
    let newer = "(component (instance $i) (export \"myelin:filter/easy-filter@0.2.0\" (instance $i)))";
    let refusal = inspect(&wat::parse_str(newer).unwrap(), &ModuleLimits::default()).expect_err("another version");
    assert_eq!(refusal.code(), "module-wrong-version");
}

#[test]
fn typed_verdicts_count_like_any_other() {
    let chain = chain(OnFault::Reject);
    let payloads = ["a", "D", "Ax", "Pnew", ""];
    let events = events(&payloads);
    let mut scratch = ChainScratch::new();
    let judgement = block_on(chain.run(&Batch::new(&events, 1, 0).unwrap(), &mut scratch));
    let fates: Vec<_> = judgement.events().map(|judged| judged.fate).collect();
    assert_eq!(fates, [Fate::Pass, Fate::Deny, Fate::Pass, Fate::Pass, Fate::Pass]);
    assert_eq!(judgement.event(1).reason, "second reason");
    assert_eq!(judgement.targets(2).map(ToString::to_string).collect::<Vec<_>>(), ["topic:audit/log"]);
    assert_eq!((judgement.event(3).payload, judgement.event(4).payload), (Some(&b"new"[..]), None));
    let info = slot(easy()).info().clone();
    assert_eq!((info.name.as_str(), info.max_output, info.needs.payload), ("guest", 1024, PayloadNeed::Full));
}

#[test]
fn faults_of_the_world_easy_have_the_same_codes_and_take_no_neighbour_with_them() {
    let cases = [
        ("X", FaultCode::Trap),
        ("L", FaultCode::Deadline),
        ("U", FaultCode::MalformedOutput),
        ("C", FaultCode::MalformedOutput),
        ("Z", FaultCode::MalformedOutput),
    ];
    for (payload, code) in cases {
        let chain = chain(OnFault::DeadLetter);
        let payloads = ["a", payload, "D"];
        let events = events(&payloads);
        let mut scratch = ChainScratch::new();
        let judgement = block_on(chain.run(&Batch::new(&events, 1, 0).unwrap(), &mut scratch));
        let fates: Vec<_> = judgement.events().map(|judged| judged.fate).collect();
        assert_eq!(fates, [Fate::Pass, Fate::DeadLetter, Fate::Deny], "{payload}");
        assert_eq!(judgement.event(1).fault.map(|fault| fault.code), Some(code), "{payload}");
    }
}

#[test]
fn the_self_test_judges_typed_verdicts_too() {
    let report = self_test(easy(), &SlotSetup::default(), None).expect("healthy");
    assert_eq!(report.synthetic, 65);
    let vectors = concat!(
        r#"{"topic":"a","payload":"S","expect":{"verdict":"allow"}}"#,
        "\n",
        r#"{"topic":"a","payload":"S","expect":{"verdict":"drop"}}"#,
        "\n{\"config\":{}}\n",
        r#"{"topic":"a","payload":"S","expect":{"verdict":"allow"}}"#,
    );
    let shared = Arc::new(SharedState::default());
    let setup = SlotSetup { shared: Arc::clone(&shared), ..SlotSetup::default() };
    let report = self_test(easy(), &setup, Some(vectors.as_bytes())).expect("each configuration begins anew");
    assert_eq!((report.expected, shared.stats()), (3, SharedStats::default()), "and nothing is left behind");
}

#[test]
fn instances_of_a_binding_share_limits_and_duplicates_across_versions() {
    let shared = Arc::new(SharedState::default());
    let (first, second) = (chain_sharing(&shared, OnFault::Reject), chain_sharing(&shared, OnFault::Reject));
    assert_eq!(fates(&first, &["T", "S"], 0), [Fate::Pass, Fate::Pass]);
    assert_eq!(fates(&second, &["T", "S", "T"], 0), [Fate::Pass, Fate::Drop, Fate::Deny]);
    drop((first, second));
    let next = chain_sharing(&shared, OnFault::Reject);
    assert_eq!(fates(&next, &["T", "S"], 999), [Fate::Deny, Fate::Drop], "the next version finds them as they were");
    assert_eq!(fates(&next, &["T", "S"], 1_000), [Fate::Pass, Fate::Pass], "and their time passes");
    assert_eq!(
        fates(&chain(OnFault::Reject), &["T", "T", "T"], 0),
        [Fate::Pass, Fate::Pass, Fate::Deny],
        "another binding"
    );
}

#[test]
fn a_call_that_faults_takes_no_token_and_remembers_no_key() {
    let shared = Arc::new(SharedState::default());
    let chain = chain_sharing(&shared, OnFault::Pass);
    // The whole batch faults after all three host calls; then each event is judged on its own, and finds what it
    // would have found first.
    let judged = fates(&chain, &["T", "S", "X"], 0);
    assert_eq!(judged, [Fate::Pass, Fate::Pass, Fate::Pass]);
    assert_eq!(fates(&chain, &["T", "T", "S"], 0), [Fate::Pass, Fate::Deny, Fate::Drop], "one token is left, not none");
    // An answer that breaks the contract counts for nothing either.
    let shared = Arc::new(SharedState::default());
    let chain = chain_sharing(&shared, OnFault::Pass);
    fates(&chain, &["T", "C"], 0);
    fates(&chain, &["T", "U"], 0);
    assert_eq!(fates(&chain, &["T"], 0), [Fate::Deny], "two tokens were taken, by the two that were judged");
}
