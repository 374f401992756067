#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin_wire::topic::Pattern;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::binding::{OnFault, Stage};
use crate::limits::{BINDINGS_MAX, CHAIN_LEN_MAX, CONFIG_LEN_MAX_BYTES, MODULE_SIZE_MAX_BYTES};
use crate::rollout::{Cause, Outcome, RolloutPlan, Step};
use crate::testing::{Story, add, add_site, binding, module, name, quarantine, revoke, stage, trust};

#[test]
fn staging_changes_nothing_until_activation() {
    let mut story = Story::with_two_versions();
    assert_eq!(story.catalog.generation(), 4);
    story.add(stage(binding("redact", "redact@2.0.0", "orders/**")));
    assert_eq!((story.catalog.generation(), story.active_modules()), (4, vec!["redact@1.0.0".to_owned()]));
    let plan = story.catalog.staged_plan();
    assert_eq!((plan.changed[0].name.as_str(), &plan.changed[0].fields[..]), ("redact", &["module"][..]));
    assert_eq!(story.activate(), 6);
    assert_eq!((story.catalog.generation(), story.active_modules()), (6, vec!["redact@2.0.0".to_owned()]));
    assert!(story.catalog.staged_plan().is_empty());
    assert_eq!(story.catalog.staged_plan().kept.len(), 1);
}

#[test]
fn a_rollback_returns_to_the_set_before_and_a_second_one_further_back() {
    let mut story = Story::with_two_versions();
    story.add(stage(binding("redact", "redact@2.0.0", "orders/**")));
    story.activate();
    let target = story.catalog.rollback_target().unwrap().number;
    assert_eq!(target, 4);
    assert_eq!(story.add(Op::RolledBack { to: target }), 7);
    assert_eq!((story.catalog.generation(), story.active_modules()), (7, vec!["redact@1.0.0".to_owned()]));
    assert!(story.catalog.staged_plan().is_empty(), "what was taken back does not stay staged");
    let further = story.catalog.rollback_target().unwrap().number;
    assert_eq!(further, 0);
    story.add(Op::RolledBack { to: further });
    assert!(story.catalog.active().bindings.is_empty());
    assert_eq!(story.catalog.rollback_target(), None);
}

#[test]
fn a_rollback_keeps_what_is_staged_and_was_never_active() {
    let mut story = Story::with_two_versions();
    story.add(stage(binding("redact", "redact@2.0.0", "orders/**")));
    story.add(stage(binding("other", "redact@1.0.0", "x")));
    story.activate();
    story.add(stage(binding("pending", "redact@1.0.0", "y")));
    story.add(Op::BindingRemoved { name: "other".parse().unwrap() });
    story.add(Op::RolledBack { to: 4 });
    assert_eq!(story.staged_names(), ["pending", "redact"]);
    let plan = story.catalog.staged_plan();
    assert_eq!((plan.added.len(), plan.changed.len(), plan.removed.len()), (1, 0, 0));
}

#[test]
fn modules_in_use_stay() {
    let mut story = Story::with_two_versions();
    story.add(stage(binding("redact", "redact@2.0.0", "orders/**")));
    let remove = |module: &str| Op::ModuleRemoved { module: module.parse().unwrap() };
    let active = story.refusal(remove("redact@1.0.0"));
    assert!(active.code() == "conflict" && active.to_string().contains("active binding redact"), "{active}");
    assert!(story.refusal(remove("redact@2.0.0")).to_string().contains("staged binding redact"));
    assert_eq!(story.refusal(remove("redact@3.0.0")).code(), "not-found");
    story.activate();
    story.add(remove("redact@1.0.0"));

    let lost = story.refusal(Op::RolledBack { to: 4 });
    assert!(lost.code() == "conflict" && lost.to_string().contains("upload it again"), "{lost}");
    story.add(Op::ModuleAdded { module: module("redact@1.0.0", b"other bytes") });
    assert_eq!(story.refusal(Op::RolledBack { to: 4 }), lost, "other bytes are another module");
    story.add(remove("redact@1.0.0"));
    story.add(add("redact@1.0.0"));
    story.add(Op::RolledBack { to: 4 });
}

#[test]
fn versions_never_change() {
    let mut story = Story::with_two_versions();
    assert!(story.refusal(add("redact@1.0.0")).to_string().contains("with the same bytes"));
    let other = Op::ModuleAdded { module: module("redact@1.0.0", b"other") };
    assert!(story.refusal(other).to_string().contains("with other bytes"));
}

#[test]
fn activations_name_what_they_activate() {
    let mut story = Story::with_two_versions();
    assert!(story.refusal(story.catalog.activation()).to_string().contains("nothing is staged"));
    let seen = story.catalog.activation();
    story.add(stage(binding("late", "redact@2.0.0", "x")));
    assert!(story.refusal(seen).to_string().contains("has changed meanwhile"));
    assert_eq!(story.refusal(Op::RolledBack { to: 3 }).code(), "not-found");
    assert_eq!(story.refusal(Op::RolledBack { to: 4 }).code(), "conflict");
}

#[test]
fn a_quarantined_module_stays_out_of_new_bindings_until_released() {
    let mut story = Story::with_two_versions();
    assert_eq!(story.refusal(quarantine("redact@2.0.0", "redact")).code(), "conflict");
    assert_eq!(story.refusal(quarantine("redact@9.0.0", "redact")).code(), "not-found");
    story.add(quarantine("redact@1.0.0", "redact"));
    assert_eq!(story.catalog.generation(), 4, "the set is the same: the binding answers its fault verdict");
    assert_eq!(story.refusal(quarantine("redact@1.0.0", "redact")).code(), "conflict");

    story.add(stage(binding("healthy", "redact@2.0.0", "x")));
    story.activate();
    story.add(stage(binding("second", "redact@1.0.0", "y")));
    assert!(story.refusal(story.catalog.activation()).to_string().contains("quarantined"));
    let released = Op::Released { module: "redact@1.0.0".parse().unwrap() };
    story.add(released.clone());
    story.activate();
    assert_eq!(story.refusal(released).code(), "not-found");
}

#[test]
fn bindings_that_cannot_be_are_refused_where_they_are_wrong() {
    let mut story = Story::with_two_versions();
    let mut field = |change: fn(&mut Binding)| {
        let mut wrong = binding("wrong", "redact@1.0.0", "a");
        change(&mut wrong);
        match story.refusal(stage(wrong)) {
            CatalogError::InvalidBinding { field, .. } => field,
            other => panic!("{other}"),
        }
    };
    assert_eq!(field(|b| b.per_subscriber = true), "per_subscriber");
    assert_eq!(field(|b| (b.policy, b.on_fault) = (true, OnFault::Pass)), "on_fault");
    assert_eq!(field(|b| b.limits.memory_bytes = 65_535), "limits.memory_bytes");
    assert_eq!(field(|b| b.limits.memory_bytes = 64 * 1024 * 1024 + 1), "limits.memory_bytes");
    assert_eq!(field(|b| b.limits.deadline_us = 99), "limits.deadline_us");
    assert_eq!(field(|b| b.grant.topics = vec![Pattern::new("$sys/**").unwrap()]), "grant.topics");
    assert_eq!(field(|b| b.grant.topics = vec![Pattern::new("a").unwrap(); 65]), "grant.topics");
    assert_eq!(field(|b| b.grant.sites = vec!["s".parse().unwrap(); 65]), "grant.sites");
    assert_eq!(field(|b| b.config = json!("x".repeat(CONFIG_LEN_MAX_BYTES - 1))), "config");
    assert_eq!(field(|b| b.config = (0..129).fold(json!(1), |inner, _| json!([inner]))), "config");
    assert_eq!(story.refusal(stage(binding("b", "other@1.0.0", "a"))).code(), "not-found");

    let mut good = binding("good", "redact@1.0.0", "a");
    good.config = json!("x".repeat(CONFIG_LEN_MAX_BYTES - 2));
    story.add(stage(good.clone()));
    good.config = (0..128).fold(json!(1.5), |inner, _| json!([inner]));
    story.add(stage(good));
    let read: Vec<_> = story.log.iter().map(|record| Record::decode(&record.encode()).unwrap()).collect();
    assert_eq!(read, story.log, "whatever may be written can be read");
}

#[test]
fn modules_and_records_that_cannot_be_are_refused() {
    let mut story = Story::default();
    let mut wrong = |change: fn(&mut Module)| {
        let mut wrong = module("m@1.0.0", b"m");
        change(&mut wrong);
        assert_eq!(story.refusal(Op::ModuleAdded { module: wrong }).code(), "invalid-module");
    };
    wrong(|m| m.size_bytes = 0);
    wrong(|m| m.size_bytes = MODULE_SIZE_MAX_BYTES + 1);
    wrong(|m| m.imports = vec!["a".into(); 65]);
    wrong(|m| m.imports = vec!["a\n".into()]);
    for actor in ["", "a\nb", &"x".repeat(257)] {
        assert_eq!(story.catalog.draft(add("m@1.0.0"), actor, 0).unwrap_err().code(), "invalid-record");
    }
    let mut signed = story.catalog.draft(add("m@1.0.0"), "ada", 0).unwrap();
    signed.sig = "00".into();
    assert_eq!(story.catalog.apply(&signed).unwrap_err().code(), "invalid-record");
    assert_ne!(signed.hash(), signed.signing_digest());
}

#[test]
fn sets_and_chains_are_bounded() {
    let mut story = Story::default();
    story.add(add("m@1.0.0"));
    let wide = |n: usize| stage(binding(&format!("wide-{n}"), "m@1.0.0", "a/**"));
    for n in 0..CHAIN_LEN_MAX {
        story.add(wide(n));
    }
    assert_eq!(story.refusal(wide(CHAIN_LEN_MAX)).code(), "invalid-binding");
    story.add(wide(0));
    assert_eq!(story.refusal(stage(binding("narrow", "m@1.0.0", "a/b"))).code(), "invalid-binding");
    assert_eq!(story.refusal(stage(binding("wider", "m@1.0.0", "**"))).code(), "invalid-binding");
    let mut egress = binding("egress", "m@1.0.0", "a/b");
    egress.stage = Stage::Egress;
    story.add(stage(egress));
    for n in story.catalog.staged().len()..BINDINGS_MAX {
        story.add(stage(binding(&format!("b-{n}"), "m@1.0.0", &format!("t/{n}"))));
    }
    assert_eq!(story.refusal(stage(binding("last", "m@1.0.0", "z"))).code(), "catalog-full");
    story.activate();

    let big = |n: usize| {
        let mut big = binding(&format!("b-{n}"), "m@1.0.0", &format!("t/{n}"));
        big.config = json!("x".repeat(CONFIG_LEN_MAX_BYTES - 2));
        stage(big)
    };
    for n in 100..132 {
        story.add(big(n));
    }
    assert_eq!(story.refusal(big(132)).code(), "catalog-full");
}

#[test]
fn history_is_bounded_and_keeps_the_newest() {
    let mut story = Story::with_two_versions();
    for turn in 0..2 * HISTORY_MAX {
        story.add(stage(binding("redact", ["redact@2.0.0", "redact@1.0.0"][turn % 2], "orders/**")));
        story.activate();
    }
    let numbers: Vec<u64> = story.catalog.history().map(|generation| generation.number).collect();
    assert_eq!(numbers.len(), HISTORY_MAX);
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(numbers.last(), Some(&story.catalog.generation()));
}

#[test]
fn chains_run_by_order_then_name() {
    let mut story = Story::default();
    story.add(add("m@1.0.0"));
    for (name, order) in [("c", -1), ("b", 5), ("a", 5)] {
        story.add(stage(Binding { order, ..binding(name, "m@1.0.0", "x") }));
    }
    let chain = story.catalog.staged().stage(Stage::Ingress);
    assert_eq!(chain.iter().map(|staged| staged.binding.name.as_str()).collect::<Vec<_>>(), ["c", "a", "b"]);
    assert!(story.catalog.staged().stage(Stage::Egress).is_empty());
}

#[test]
fn bindings_are_read_from_json_with_defaults_and_without_unknown_keys() {
    let text = r#"{"name":"r","module":"redact@1.0.0","pattern":"a/**","on_fault":"dead-letter"}"#;
    let read: Binding = serde_json::from_str(text).unwrap();
    assert_eq!(read, Binding { on_fault: OnFault::DeadLetter, ..binding("r", "redact@1.0.0", "a/**") });
    for (from, to) in [("}", r#","order":1.5}"#), ("a/**", "a*"), ("\"r\"", "\"R\""), ("}", r#","memory":1}"#)] {
        assert!(serde_json::from_str::<Binding>(&text.replace(from, to)).is_err(), "{to}");
    }
}

/// A log with every kind of record that one site has.
fn whole_log() -> Story {
    let mut story = Story::with_two_versions();
    let mut second = binding("redact", "redact@2.0.0", "orders/**");
    second.config = json!({"fields": ["/card", "/name"], "depth": 3, "share": 0.25, "none": null});
    story.add(stage(second));
    story.activate();
    story.add(quarantine("redact@2.0.0", "redact"));
    story.add(Op::RolledBack { to: 4 });
    story.add(Op::Released { module: "redact@2.0.0".parse().unwrap() });
    story.add(Op::BindingRemoved { name: "redact".parse().unwrap() });
    story.add(Op::ModuleRemoved { module: "redact@2.0.0".parse().unwrap() });
    story
}

/// A signed log with every kind of record that a mesh has.
fn mesh_log() -> Story {
    let mut story = Story::with_sites(2);
    story.sign_with("root");
    story.add(trust("second"));
    story.add(revoke("second"));
    let plan = || RolloutPlan { canary: vec![name("a")], ..RolloutPlan::default() };
    let id = story.add(story.catalog.rollout_start(plan()));
    story.add(Op::RolloutPaused { id });
    story.add(Op::RolloutResumed { id });
    story.add(Op::RolloutPaused { id });
    story.add(Op::RolloutPromoted { id });
    for _ in 0..3 {
        story.advance();
    }
    story.add(Op::RolloutAborted { id, cause: Cause::GateTraps, reason: "9 faults".into() });
    story.add(Op::RolloutFinished { id, outcome: Outcome::RolledBack, reason: "all are back".into() });
    story.add(Op::RouterRemoved { site: name("b"), name: name("r1") });
    story.add(Op::SiteRemoved { name: name("b") });
    story
}

fn verify(log: &[Vec<u8>], kept: &Head) -> Result<Vec<Record>, CatalogError> {
    let mut chain = Chain::new();
    let records = log.iter().map(|bytes| chain.accept_encoded(bytes)).collect::<Result<Vec<_>, _>>()?;
    chain.finish(kept)?;
    Ok(records)
}

fn assert_broken(log: &[Vec<u8>], kept: &Head, how: &str) {
    let refused = verify(log, kept).expect_err(how);
    assert_eq!(refused.code(), "chain-broken", "{how}: {refused}");
}

#[test]
fn an_untouched_log_is_believed() {
    for story in [whole_log(), mesh_log()] {
        let records = verify(&story.encoded(), &story.catalog.head()).unwrap();
        assert_eq!(records, story.log);
        assert_eq!(Catalog::from_records(&records).unwrap(), story.catalog);
    }
}

#[test]
fn every_flipped_byte_breaks_the_log() {
    [whole_log(), mesh_log()].iter().for_each(assert_no_flip_is_believed);
}

fn assert_no_flip_is_believed(story: &Story) {
    let (log, head) = (story.encoded(), story.catalog.head());
    for at in 0..log.len() {
        for byte in 0..log[at].len() {
            for mask in [0x01, 0x20, 0xff] {
                let mut log = log.clone();
                log[at][byte] ^= mask;
                assert_broken(&log, &head, &format!("byte {byte} of record {} ^ {mask:#x}", at + 1));
            }
        }
    }
}

#[test]
fn records_cannot_be_removed_moved_doubled_cut_or_put_in() {
    let story = whole_log();
    let (log, head) = (story.encoded(), story.catalog.head());
    for at in 0..log.len() {
        let broken = |change: &dyn Fn(&mut Vec<Vec<u8>>), how| {
            let mut log = log.clone();
            change(&mut log);
            assert_broken(&log, &head, &format!("{how} at {at}"));
        };
        broken(&|log| drop(log.remove(at)), "removed");
        broken(&|log| log.truncate(at), "ended");
        broken(&|log| log.insert(at, log[at].clone()), "doubled");
        broken(&|log| assert!(log[at].pop().is_some()), "cut");
        broken(&|log| log[at].push(0xc0), "longer");
        for other in at + 1..log.len() {
            broken(&|log| log.swap(at, other), "swapped");
        }
    }
    let mut longer = whole_log();
    longer.activate();
    assert_broken(&longer.encoded(), &head, "a record after the head");
}

#[test]
fn a_well_chained_record_that_changes_the_impossible_is_refused() {
    let mut story = whole_log();
    let forged = Record::after(&story.catalog.head(), Op::RolledBack { to: 99 }, "eve", 0);
    story.log.push(forged);
    let refused = Catalog::from_records(&story.log).unwrap_err();
    let CatalogError::ChainBroken { rev: 12, fault: ChainFault::Impossible(why) } = refused else {
        panic!("{refused}")
    };
    assert!(why.contains("no generation `99`"), "{why}");
}

#[test]
fn the_encoding_is_the_one_that_logs_on_disk_have() {
    // Changes of this value make every existing catalog unreadable.
    let record = Record::after(&Head::EMPTY, add("redact@1.0.0"), "ada", 1_000);
    assert_eq!(record.hash().to_string(), "798a03c15f51b8209e79c35a8437f857c410595a894d01148b96ea1c1c7f036f");
}

#[derive(Clone, Debug)]
enum Intent {
    Add(usize, u8),
    Remove(usize),
    Stage(usize, usize, usize),
    Unstage(usize),
    Activate,
    RollBack(u64),
    RollBackOne,
    Quarantine(usize, usize),
    Release(usize),
    AddSite(usize),
    Start(usize, u8),
    Advance,
    Abort,
    Finish(bool),
}

const MODULES: [&str; 4] = ["m@1.0.0", "m@1.1.0", "n@1.0.0", "n@2.0.0"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const PATTERNS: [&str; 3] = ["x/**", "x/*", "y"];

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![
        4 => (0..4usize, 0..2u8).prop_map(|(module, bytes)| Intent::Add(module, bytes)),
        2 => (0..4usize).prop_map(Intent::Remove),
        8 => (0..4usize, 0..4usize, 0..3usize).prop_map(|(name, module, pattern)| Intent::Stage(name, module, pattern)),
        3 => (0..4usize).prop_map(Intent::Unstage),
        5 => Just(Intent::Activate),
        1 => (0..60u64).prop_map(Intent::RollBack),
        3 => Just(Intent::RollBackOne),
        2 => (0..4usize, 0..4usize).prop_map(|(module, name)| Intent::Quarantine(module, name)),
        1 => (0..4usize).prop_map(Intent::Release),
        1 => (0..4usize).prop_map(Intent::AddSite),
        3 => (0..4usize, 1..100u8).prop_map(|(canary, wave)| Intent::Start(canary, wave)),
        8 => Just(Intent::Advance),
        1 => Just(Intent::Abort),
        3 => any::<bool>().prop_map(Intent::Finish),
    ]
}

fn op(intent: &Intent, catalog: &Catalog) -> Op {
    match *intent {
        Intent::Add(at, bytes) => Op::ModuleAdded { module: module(MODULES[at], &[bytes]) },
        Intent::Remove(at) => Op::ModuleRemoved { module: MODULES[at].parse().unwrap() },
        Intent::Stage(name, module, pattern) => stage(binding(NAMES[name], MODULES[module], PATTERNS[pattern])),
        Intent::Unstage(name) => Op::BindingRemoved { name: NAMES[name].parse().unwrap() },
        Intent::Activate => catalog.activation(),
        Intent::RollBack(to) => Op::RolledBack { to },
        Intent::RollBackOne => Op::RolledBack { to: catalog.rollback_target().map_or(0, |target| target.number) },
        Intent::Quarantine(module, name) => quarantine(MODULES[module], NAMES[name]),
        Intent::Release(module) => Op::Released { module: MODULES[module].parse().unwrap() },
        Intent::AddSite(at) => add_site(NAMES[at]),
        Intent::Start(canary, wave) => {
            let canary = vec![name(NAMES[canary])];
            catalog.rollout_start(RolloutPlan { canary, waves: vec![wave, 100], ..RolloutPlan::default() })
        }
        Intent::Advance => {
            let next = catalog.rollout().and_then(|rollout| rollout.next());
            let (to, sites) = next.map_or((Step::Staged, Vec::new()), |next| (next.step, next.sites.clone()));
            Op::RolloutAdvanced { id: running(catalog), to, sites }
        }
        Intent::Abort => Op::RolloutAborted { id: running(catalog), cause: Cause::Hand, reason: "no".into() },
        Intent::Finish(complete) => {
            let outcome = if complete { Outcome::Complete } else { Outcome::RolledBack };
            Op::RolloutFinished { id: running(catalog), outcome, reason: "yes".into() }
        }
    }
}

fn running(catalog: &Catalog) -> u64 {
    catalog.rollout().map_or(0, |rollout| rollout.id)
}

/// Whether the record changed the set of the whole mesh.
fn changes_active(record: &Record) -> bool {
    let completes = matches!(record.op, Op::RolloutFinished { outcome: Outcome::Complete, .. });
    completes || matches!(record.op, Op::Activated { .. } | Op::RolledBack { .. })
}

fn check_sites(catalog: &Catalog) {
    let reached: Vec<_> = catalog.rollout().map_or(Vec::new(), |r| r.reached().cloned().collect());
    let mut numbers = vec![catalog.generation()];
    for site in catalog.fleet().sites() {
        let active = catalog.active_for(&site.name);
        let has_new = reached.contains(&site.name) && catalog.rollout().is_some_and(|rollout| rollout.is_forward());
        let expected = match catalog.rollout() {
            Some(rollout) if has_new => &rollout.candidate,
            _ => &catalog.active().bindings,
        };
        assert_eq!(&active.bindings, expected, "{}", site.name);
        numbers.push(active.number);
        for staged in active.bindings.iter() {
            assert_eq!(catalog.module(&staged.binding.module).unwrap().digest, staged.digest, "code of a set is kept");
        }
    }
    assert!(numbers.iter().all(|number| *number <= catalog.head().rev));
}

fn check_invariants(story: &Story) {
    let catalog = &story.catalog;
    let newest = story.log.iter().rev().find(|record| changes_active(record));
    assert_eq!(catalog.generation(), newest.map_or(0, |record| record.rev));
    for staged in catalog.staged().iter().chain(catalog.active().bindings.iter()) {
        assert_eq!(catalog.module(&staged.binding.module).unwrap().digest, staged.digest, "code of a set is kept");
        assert!(catalog.needs_blob(&staged.digest));
    }
    check_sites(catalog);
    assert!(catalog.quarantined().all(|(module, _)| catalog.module(module).is_some()));
    assert!(catalog.rollback_target().is_none_or(|target| target.number < catalog.active().source));
    let source = catalog.find_generation(catalog.active().source);
    assert!(source.is_none_or(|source| source.bindings == catalog.active().bindings));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_changes_keep_the_invariants(intents in prop::collection::vec(intent(), 1..120)) {
        let mut story = Story::default();
        for intent in &intents {
            let op = op(intent, &story.catalog);
            if story.catalog.draft(op.clone(), "ada", 0).is_ok() {
                story.add(op);
            } else {
                story.refusal(op);
            }
            check_invariants(&story);
        }
        let records = verify(&story.encoded(), &story.catalog.head()).unwrap();
        prop_assert_eq!(Catalog::from_records(&records).unwrap(), story.catalog);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), at in any::<prop::sample::Index>()) {
        prop_assert!(Record::decode(&bytes).is_err());
        let mut damaged = whole_log().log[4].encode();
        let start = at.index(damaged.len());
        damaged.splice(start.., bytes);
        // Whatever it still reads, it writes the same.
        prop_assert!(Record::decode(&damaged).map_or(true, |record| record.encode() == damaged));
    }
}
