#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::binding::Consent;
use crate::digest::Digest;
use crate::limits::PEAKS_MAX;
use crate::op::Op;
use crate::rollout::{Outcome, RolloutPlan};
use crate::testing::{Holder, Story, add, binding, module, name, stage};

const REQUIRED: Demands = Demands { signatures: true, approvals: true };
/// A moment after all of a story.
const NOW_MS: u64 = 1_000_000;

/// A catalog that trusts a key for all modules.
fn trusting(pattern: &str) -> (Story, Holder) {
    let (mut story, holder) = (Story::default(), Holder::new());
    story.add_trust(vec![holder.add_key(pattern)], &[]);
    (story, holder)
}

fn added(module: Module) -> Op {
    Op::ModuleAdded { module }
}

/// A module of another's, with a signature of this comment.
fn with_comment(holder: &Holder, reference: &str, comment: &str) -> Module {
    Module { signature: Some(holder.sign(reference.as_bytes(), comment)), ..module(reference, reference.as_bytes()) }
}

fn demanded(story: &Story, binding: &Binding) -> Result<(), &'static str> {
    story.catalog.check_demands_of(binding, REQUIRED, NOW_MS).map_err(|refused| refused.code())
}

#[test]
fn a_module_is_taken_with_a_right_signature_only_or_none() {
    let (mut story, holder) = trusting("orders-*");
    let stranger = Holder::new();
    story.add(added(holder.module("orders-a@1.0.0")));
    let digest = |of: &str| Digest::of(of.as_bytes());
    let cases = [
        (stranger.module("orders-b@1.0.0"), "signature-untrusted"),
        (holder.module("billing@1.0.0"), "signature-untrusted"),
        (with_comment(&holder, "orders-b@1.0.0", "timestamp:1 file:x"), "signature-mismatch"),
        // The signature of another name, another version, other bytes.
        (
            Module { signature: holder.module("orders-a@1.0.0").signature, ..module("orders-b@1.0.0", b"x") },
            "signature-mismatch",
        ),
        (
            Module { signature: holder.module("orders-a@1.0.0").signature, ..module("orders-a@1.0.1", b"x") },
            "signature-mismatch",
        ),
        (
            Module { signature: holder.module("orders-b@1.0.0").signature, ..module("orders-b@1.0.0", b"evil") },
            "signature-mismatch",
        ),
    ];
    for (module, code) in cases {
        assert_eq!(story.refusal(added(module)).code(), code);
    }
    // Time stands at some seconds in these stories.
    let late = format!("myelin name=orders-b version=1.0.0 sha256={} expires=1", digest("orders-b@1.0.0"));
    let late = added(with_comment(&holder, "orders-b@1.0.0", &late));
    assert_eq!(story.try_add(late).unwrap_err().code(), "signature-expired");
    // A comment that says all the right things, signed by nobody.
    let mut forged = holder.module("orders-b@1.0.0");
    let text = holder.module("orders-a@1.0.0").signature.unwrap().to_string();
    forged.signature = Some(
        text.replace("orders-a", "orders-b")
            .replace(&digest("orders-a@1.0.0").to_string(), &digest("orders-b@1.0.0").to_string())
            .parse()
            .unwrap(),
    );
    assert_eq!(story.refusal(added(forged)).code(), "signature-invalid");
    // Whether there must be one is not the log's to say.
    story.add(add("unsigned@1.0.0"));
    let unsigned = binding("b", "unsigned@1.0.0", "a");
    assert_eq!(demanded(&story, &unsigned), Err("signature-missing"));
    assert_eq!(story.catalog.check_demands_of(&unsigned, Demands::default(), NOW_MS), Ok(()));
}

#[test]
fn a_removed_key_stops_new_rollouts_and_nothing_that_runs() {
    let (mut story, holder) = trusting("*");
    for version in ["1.0.0", "2.0.0"] {
        story.add(added(holder.module(&format!("redact@{version}"))));
    }
    story.add(stage(binding("redact", "redact@1.0.0", "orders/**")));
    story.activate();
    story.add(stage(binding("redact", "redact@2.0.0", "orders/**")));
    story.activate();
    let rev = story.add_trust(vec![holder.remove_key()], &[]);
    let running = story.catalog.active().bindings.clone();
    assert_eq!(story.catalog.check_all_signed(&running, REQUIRED), Ok(()), "a restart runs what ran");
    let module = story.catalog.modules().next().unwrap().clone();
    assert_eq!(story.catalog.signature_state(&module, NOW_MS), SignatureState::KeyRemoved);

    story.add(stage(binding("more", "redact@2.0.0", "b")));
    let activation = story.catalog.activation();
    let refused = story.refusal(activation);
    assert_eq!(refused.code(), "signature-untrusted");
    assert!(refused.to_string().contains(&format!("removed by the newer trust record {rev}")), "{refused}");
    let back = story.catalog.rollback_target().unwrap().number;
    assert_eq!(story.refusal(Op::RolledBack { to: back }).code(), "signature-untrusted");
    // The same bytes under a key of today.
    let next = Holder::new();
    story.add_trust(vec![next.add_key("*")], &[]);
    for version in ["1.0.0", "2.0.0"] {
        let module = next.module(&format!("redact@{version}"));
        let signed = |signature| Op::ModuleSigned { module: module.module_ref(), signature };
        let removed = holder.module(&format!("redact@{version}")).signature.unwrap();
        assert_eq!(story.refusal(signed(removed)).code(), "signature-untrusted");
        let foreign = next.module("redact@3.0.0").signature.unwrap();
        assert_eq!(story.refusal(signed(foreign)).code(), "signature-mismatch");
        story.add(signed(module.signature.clone().unwrap()));
        assert_eq!(story.refusal(signed(module.signature.clone().unwrap())).code(), "conflict");
    }
    story.activate();
    assert_eq!(crate::Catalog::from_records(&story.log).unwrap(), story.catalog);
}

#[test]
fn an_expired_signature_starts_no_rollout() {
    let (mut story, holder) = trusting("*");
    let digest = Digest::of(b"redact@1.0.0");
    let comment = format!("myelin name=redact version=1.0.0 sha256={digest} expires=900");
    story.add(added(with_comment(&holder, "redact@1.0.0", &comment)));
    let staged = binding("b", "redact@1.0.0", "a");
    assert_eq!(story.catalog.check_demands_of(&staged, REQUIRED, 899_999), Ok(()));
    assert_eq!(story.catalog.check_demands_of(&staged, REQUIRED, 900_000).unwrap_err().code(), "signature-expired");
}

#[test]
fn a_new_capability_is_approved_or_refused() {
    let (mut story, holder) = trusting("*");
    let can = |reference: &str, functions: &[&str]| Module {
        capabilities: Some(functions.iter().map(|&name| name.to_owned()).collect()),
        ..holder.module(reference)
    };
    story.add(added(can("redact@1.0.0", &["log"])));
    story.add(added(can("redact@2.0.0", &["log", "seen", "take"])));
    story.add(added(holder.module("redact@3.0.0")));
    let mut two = binding("redact", "redact@2.0.0", "a");
    assert_eq!(demanded(&story, &two), Ok(()), "the first version of a binding has nothing to be compared with");
    story.add(stage(binding("redact", "redact@1.0.0", "a")));
    story.activate();
    let refused = story.catalog.check_demands_of(&two, REQUIRED, NOW_MS).unwrap_err();
    assert_eq!(refused.code(), "capability-approval");
    assert!(refused.to_string().contains("uses seen,take of the host, which redact@1.0.0 does not"), "{refused}");
    two.consent.capabilities = vec!["seen".into()];
    assert_eq!(demanded(&story, &two), Err("capability-approval"), "all of it");
    two.consent.capabilities.push("take".into());
    assert_eq!(demanded(&story, &two), Ok(()));
    story.add(stage(two));
    story.activate();
    assert_eq!(demanded(&story, &binding("redact", "redact@3.0.0", "a")), Ok(()), "nobody looked: not compared");
    let open = Demands { approvals: false, ..REQUIRED };
    assert_eq!(story.catalog.check_demands_of(&binding("redact", "redact@2.0.0", "b"), open, NOW_MS), Ok(()));
}

#[test]
fn a_downgrade_needs_a_signed_statement_of_this_very_moment() {
    let (mut story, holder) = trusting("*");
    for version in ["1.0.0", "1.1.0", "2.0.0"] {
        story.add(added(holder.module(&format!("redact@{version}"))));
    }
    story.add(added(holder.module("other@1.0.0")));
    let activate = |story: &mut Story, module: &str| {
        story.add(stage(binding("redact", module, "a")));
        story.activate()
    };
    let generation = activate(&mut story, "redact@2.0.0");
    let lower = |consent: Option<MinisignSignature>| Binding {
        consent: Consent { downgrade: consent, ..Consent::default() },
        ..binding("redact", "redact@1.1.0", "a")
    };
    assert_eq!(demanded(&story, &lower(None)), Err("downgrade"));
    let statement = |module: &str, binding: &str, generation: u64| {
        let [module, binding] = [format!("name=redact version={module}"), format!("binding={binding}")];
        format!("myelin rollback {module} {binding} generation={generation}")
    };
    let right = statement("1.1.0", "redact", generation);
    let said = |holder: &Holder, text: &str| lower(Some(holder.sign(text.as_bytes(), text)));
    for wrong in [
        statement("1.0.0", "redact", generation),
        statement("1.1.0", "other", generation),
        statement("1.1.0", "redact", generation - 1),
        "agreed".to_owned(),
    ] {
        assert_eq!(demanded(&story, &said(&holder, &wrong)), Err("downgrade"), "{wrong}");
    }
    assert_eq!(demanded(&story, &said(&Holder::new(), &right)), Err("signature-untrusted"));
    // The comment alone is not the statement: that is what is signed.
    let only_comment = lower(Some(holder.sign(b"something", &right)));
    assert_eq!(demanded(&story, &only_comment), Err("signature-invalid"));
    assert_eq!(demanded(&story, &said(&holder, &right)), Ok(()));
    story.add(stage(said(&holder, &right)));
    story.activate();
    // What is active may change otherwise; the statement is used up by that.
    assert_eq!(demanded(&story, &lower(None)), Ok(()));
    activate(&mut story, "redact@2.0.0");
    assert_eq!(demanded(&story, &said(&holder, &right)), Err("downgrade"), "replayed");
    // Neither another module in between nor a binding that was away makes one forget.
    activate(&mut story, "other@1.0.0");
    assert_eq!(demanded(&story, &lower(None)), Err("downgrade"));
    story.add(Op::BindingRemoved { name: "redact".parse().unwrap() });
    story.activate();
    assert_eq!(demanded(&story, &lower(None)), Err("downgrade"));
    // An explicit rollback is one.
    let back = story.catalog.history().find(|kept| kept.number == generation).unwrap().number;
    story.add(Op::RolledBack { to: back });
}

#[test]
fn a_downgrade_is_signed_for_the_number_that_a_site_shows() {
    let (mut story, holder) = (Story::with_sites(2), Holder::new());
    story.add_trust(vec![holder.add_key("*")], &[]);
    let signed = |reference: &str| holder.module(reference).signature.unwrap();
    story.add(Op::ModuleSigned { module: "redact@1.0.0".parse().unwrap(), signature: signed("redact@1.0.0") });
    let before = story.catalog.generation();
    story.add(story.catalog.rollout_start(RolloutPlan { canary: vec![name("a")], ..RolloutPlan::default() }));
    let lower = |generation: u64| {
        let text = format!("myelin rollback name=redact version=1.0.0 binding=redact generation={generation}");
        let downgrade = Some(holder.sign(text.as_bytes(), &text));
        Binding { consent: Consent { downgrade, ..Consent::default() }, ..binding("redact", "redact@1.0.0", "a") }
    };
    while story.catalog.rollout().unwrap().next().is_some() {
        story.advance();
    }
    let id = story.catalog.rollout().unwrap().id;
    story.add(Op::RolloutFinished { id, outcome: Outcome::Complete, reason: String::new() });
    // The number of each site, and that of the whole mesh, are one set's.
    let numbers = [story.generation_at("a"), story.generation_at("b"), story.catalog.generation()];
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    for number in numbers {
        assert_eq!(demanded(&story, &lower(number)), Ok(()), "{number} of {numbers:?}");
    }
    for other in [before, id, numbers[2] + 1] {
        let refused = story.catalog.check_demands_of(&lower(other), REQUIRED, NOW_MS).unwrap_err().to_string();
        let [a, b, _] = numbers;
        assert!(refused.contains(&format!("is for generation {other}, and {a} or {b} is active")), "{refused}");
    }
}

#[test]
fn what_is_remembered_of_versions_is_bounded() {
    let (mut story, holder) = trusting("*");
    story.add(added(holder.module("redact@1.0.0")));
    let mut generation = Generation::clone(story.catalog.active());
    let names: Vec<Name> = (0..PEAKS_MAX + 50).map(|number| format!("b{number}").parse().unwrap()).collect();
    for (number, name) in names.iter().enumerate() {
        let staged = binding(name.as_str(), "redact@1.0.0", "a");
        generation.number = number as u64;
        generation.bindings = BindingSet::default();
        generation.bindings.insert(crate::set::StagedBinding::new(1, Digest::of(b"redact@1.0.0"), staged));
        story.catalog.raise_peaks(&generation);
    }
    let module: Name = "redact".parse().unwrap();
    let is_known = |name: &&Name| story.catalog.peaks.of_binding(name, &module).is_some();
    assert_eq!(names.iter().filter(is_known).count(), PEAKS_MAX);
    assert!(!is_known(&&names[0]) && is_known(&names.last().unwrap()), "the oldest is forgotten");
    assert_eq!(story.catalog.peaks.of_module(&module).unwrap().to_string(), "1.0.0", "whatever became of its bindings");
    for number in 0..PEAKS_MAX + 50 {
        generation.number += 1;
        generation.bindings = BindingSet::default();
        let other = binding("b", &format!("m{number}@1.0.0"), "a");
        generation.bindings.insert(crate::set::StagedBinding::new(1, Digest::of(b"m"), other));
        story.catalog.raise_peaks(&generation);
    }
    let known = (0..PEAKS_MAX + 50).map(|number| format!("m{number}").parse().unwrap());
    assert_eq!(known.filter(|name| story.catalog.peaks.of_module(name).is_some()).count(), PEAKS_MAX);
}

/// A module that uses these functions of the host.
fn using(holder: &Holder, reference: &str, functions: &[&str]) -> Module {
    let capabilities = Some(functions.iter().map(|&name| name.to_owned()).collect());
    Module { capabilities, ..holder.module(reference) }
}

#[test]
fn a_new_name_for_a_binding_is_no_way_round_a_statement_or_an_approval() {
    let (mut story, holder) = trusting("*");
    for (reference, functions) in [
        ("redact@1.0.0", &["log"][..]),
        ("redact@2.0.0", &["log"]),
        ("redact@2.1.0", &["log", "take"]),
        ("other@1.0.0", &["log", "take"]),
    ] {
        story.add(added(using(&holder, reference, functions)));
    }
    assert_eq!(demanded(&story, &binding("first", "redact@1.0.0", "a")), Ok(()), "nothing of it ever ran");
    // What an earlier binding had is no reason to have it again.
    story.add(stage(binding("former", "redact@1.0.0", "a")));
    story.activate();
    story.add(Op::BindingRemoved { name: "former".parse().unwrap() });
    story.add(stage(binding("check", "redact@2.0.0", "a")));
    let generation = story.activate();
    for other in ["check2", "former"] {
        assert_eq!(demanded(&story, &binding(other, "redact@1.0.0", "a")), Err("downgrade"), "{other}");
        assert_eq!(demanded(&story, &binding(other, "redact@2.0.0", "a")), Ok(()), "{other}");
        assert_eq!(demanded(&story, &binding(other, "redact@2.1.0", "a")), Err("capability-approval"), "{other}");
    }
    assert_eq!(demanded(&story, &binding("check2", "other@1.0.0", "a")), Ok(()), "the first of its module");
    let mut approved = binding("check2", "redact@2.1.0", "a");
    approved.consent.capabilities = vec!["take".into()];
    assert_eq!(demanded(&story, &approved), Ok(()));
    let statement = format!("myelin rollback name=redact version=1.0.0 binding=check2 generation={generation}");
    let downgrade = Some(holder.sign(statement.as_bytes(), &statement));
    let signed_for =
        Binding { consent: Consent { downgrade, ..Consent::default() }, ..binding("check2", "redact@1.0.0", "a") };
    assert_eq!(demanded(&story, &signed_for), Ok(()));
    // Nor is it forgotten by taking all of it away.
    story.add(Op::BindingRemoved { name: "check".parse().unwrap() });
    story.activate();
    for again in ["check", "check2"] {
        assert_eq!(demanded(&story, &binding(again, "redact@1.0.0", "a")), Err("downgrade"));
        assert_eq!(demanded(&story, &binding(again, "redact@2.1.0", "a")), Err("capability-approval"));
    }
    // What ran anywhere with somebody's approval is approved for the module.
    story.add(stage(approved));
    story.activate();
    assert_eq!(demanded(&story, &binding("check3", "redact@2.1.0", "a")), Ok(()));
}

#[test]
fn a_log_with_an_old_version_under_a_new_name_is_read_and_rolled_back_in() {
    // As routers wrote it that measured each binding by itself.
    let (mut story, holder) = trusting("*");
    for (reference, functions) in [("redact@1.0.0", &["log", "take"][..]), ("redact@2.0.0", &["log"])] {
        story.add(added(using(&holder, reference, functions)));
    }
    story.add(stage(binding("check", "redact@2.0.0", "a")));
    story.activate();
    story.add(Op::BindingRemoved { name: "check".parse().unwrap() });
    story.add(stage(binding("check2", "redact@1.0.0", "a")));
    let old = story.activate();
    let mut read = crate::Catalog::from_records(&story.log).unwrap();
    assert_eq!(read, story.catalog);
    // It runs on, over restarts and changes of its binding, and a rollback to it and away from it needs nobody's leave.
    let running = read.active().bindings.clone();
    assert_eq!(read.check_demands(&running, REQUIRED, NOW_MS), Ok(()));
    assert_eq!(demanded(&story, &binding("check2", "redact@1.0.0", "b")), Ok(()));
    let up = stage(binding("check2", "redact@2.0.0", "a"));
    story.add(up);
    story.activate();
    story.add(Op::RolledBack { to: old });
    let back = story.catalog.rollback_target().unwrap().number;
    story.add(Op::RolledBack { to: back });
    read = crate::Catalog::from_records(&story.log).unwrap();
    assert_eq!((&read, read.generation()), (&story.catalog, story.catalog.head().rev));
}
