#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::super::topics::Bringing;
use super::*;
use std::path::PathBuf;

fn folder(files: &[(&str, &str)]) -> Folder {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    super::super::folder::read(folder.path()).unwrap()
}

fn current(folder: Folder) -> Current {
    Current { state: folder.state, ..Current::default() }
}

const EU: (&str, &str) = ("topics/eu.toml", "pattern = 'orders/eu/**'\n[residency]\nregions = ['eu-*']\n");
const CHECK: (&str, &str) =
    ("bindings/check.json", "{\"module\": \"schema@1.0.0\", \"pattern\": \"a/**\", \"config\": {\"b\": 1, \"a\": 2}}");

fn calls(change: &Change) -> &[Call] {
    let By::Calls(calls) = &change.by else { panic!("{change:?} comes by a rollout") };
    calls
}

/// Topics and all else, at a router that is alone, where subjects have version 3.
fn compare(plan: &mut Plan, folder: &Folder, current: &Current, prune: bool) {
    plan.compare_topics(folder, current, Bringing::AtOnce { accept_failures: false }, |_| Some(3));
    plan.compare(folder, current, prune);
    if prune {
        plan.prune_topics(folder, current, Bringing::AtOnce { accept_failures: false });
    }
}

fn changes(plan: &Plan) -> Vec<(&'static str, &str, &'static str)> {
    plan.changes.iter().map(|change| (change.kind.noun(), &*change.name, change.action.name())).collect()
}

#[test]
fn what_is_there_already_is_left_alone() {
    let mut plan = Plan::default();
    compare(&mut plan, &folder(&[EU, CHECK]), &current(folder(&[EU, CHECK])), true);
    plan.activate(&Current::default());
    assert!(plan.is_empty() && plan.unchanged == 2);
}

#[test]
fn a_share_with_a_tenant_that_there_will_not_be_is_remarked_on() {
    let tenant = |name: &str, with: &str| {
        let share = format!("[[shares]]\ntopics = '{name}/news/**'\nwith = ['{with}']\n");
        format!("services = ['spiffe://{name}.example/*']\n{share}")
    };
    let (acme, umbra) = (tenant("acme", "umbra"), tenant("umbra", "acme"));
    let both = folder(&[("tenants/acme.toml", &acme), ("tenants/umbra.toml", &umbra)]);
    let mut plan = Plan::default();
    plan.compare_tenants(&both, &Current::default(), false).unwrap();
    assert!(plan.remarks.is_empty() && plan.changes.len() == 2, "each may come first: {:?}", plan.remarks);
    // The same as it is, and with the other one pruned.
    let (there, alone) = (current(both), folder(&[("tenants/acme.toml", &acme)]));
    for (prune, remarks) in [(false, 0), (true, 1)] {
        let mut plan = Plan::default();
        plan.compare_tenants(&alone, &there, prune).unwrap();
        assert_eq!(plan.remarks.len(), remarks, "{:?}", plan.remarks);
        assert!(plan.remarks.iter().all(|remark| remark.contains("acme") && remark.contains("`umbra`")));
    }
}

#[test]
fn a_folder_says_nothing_of_kinds_that_it_has_no_folder_for() {
    let (there, policy) =
        (current(folder(&[EU, CHECK])), ("policies/p.cedar", "permit (principal, action, resource);"));
    let mut plan = Plan::default();
    compare(&mut plan, &folder(&[policy, ("topics/README.md", "none")]), &there, true);
    assert_eq!(changes(&plan), [("policy", "p", "create"), ("topic", "eu", "remove")]);
    let mut plan = Plan::default();
    compare(&mut plan, &folder(&[policy, ("topics/README.md", "none")]), &there, false);
    assert_eq!(changes(&plan), [("policy", "p", "create")]);
}

#[test]
fn changes_are_told_by_field_and_what_is_staged_is_made_active() {
    let new = (CHECK.0, "{\"module\": \"schema@1.1.0\", \"pattern\": \"a/**\", \"config\": {\"b\": 1}}");
    let mut there = current(folder(&[CHECK]));
    there.inactive = ["other".parse().unwrap()].into();
    let mut plan = Plan::default();
    plan.compare(&folder(&[new]), &there, false);
    plan.activate(&there);
    let change = &plan.changes[0];
    assert_eq!(change.details, ["module: \"schema@1.0.0\" -> \"schema@1.1.0\"", "config.a: 2 -> nothing"]);
    let body = calls(change)[0].body.as_ref().unwrap();
    assert!(calls(change)[0].path == "/v1/bindings/check" && body["name"].is_null() && body["config"]["b"] == 1);
    assert_eq!(plan.activates, ["check", "other"]);
}

#[test]
fn tenants_change_in_an_order_in_which_nothing_is_ever_twos() {
    let acme = ("tenants/acme.toml", "services = ['spiffe://a/service/acme-*', 'spiffe://a/service/shop']\n");
    let there = current(folder(&[acme, ("tenants/old.toml", "services = ['spiffe://*']\nroot = 'umbra'\n")]));
    // `old` goes, `umbra` takes its topics, and what `acme` gives away before.
    let without = (acme.0, "services = ['spiffe://a/service/acme-*']\n");
    let umbra = ("tenants/umbra.json", "{\"services\": [\"spiffe://a/service/shop\"]}");
    let mut plan = Plan::default();
    plan.compare_tenants(&folder(&[without, umbra]), &there, true).unwrap();
    let wanted = [("tenant", "old", "remove"), ("tenant", "acme", "update"), ("tenant", "umbra", "create")];
    assert_eq!(changes(&plan), wanted);
    assert_eq!(calls(&plan.changes[2])[0].path, "/v1/tenants/umbra");
    // Without --prune `old` has them still.
    let faults = Plan::default().compare_tenants(&folder(&[without, umbra]), &there, false).unwrap_err();
    assert!(faults.len() == 1 && faults[0].contains("umbra.json: ") && faults[0].contains("overlap"), "{faults:?}");
    // What is there may stay as it is; nobody new is everybody.
    let everybody = [("tenants/old.toml", "services = ['spiffe://*']\nroot = 'b'\n"), acme];
    Plan::default().compare_tenants(&folder(&everybody), &there, false).unwrap();
    let new = ("tenants/new.toml", "services = ['spiffe://n*']\n");
    let faults = Plan::default().compare_tenants(&folder(&[acme, new]), &there, false).unwrap_err();
    assert!(faults.len() == 1 && faults[0].contains("new.toml: ") && faults[0].contains("trust domain"), "{faults:?}");
}

#[test]
fn what_was_agreed_to_stays_agreed_to_for_the_same_module() {
    let consent = "\"consent\": {\"capabilities\": [\"log\"]}, ";
    let agreed = CHECK.1.replace("\"config\"", &format!("{consent}\"config\""));
    let there = current(folder(&[(CHECK.0, &agreed)]));
    let mut plan = Plan::default();
    plan.compare(&folder(&[CHECK]), &there, false);
    assert!(plan.changes.is_empty());
    let next = CHECK.1.replace("1.0.0", "1.1.0");
    plan.compare(&folder(&[(CHECK.0, &next)]), &there, false);
    assert_eq!(plan.changes[0].details.len(), 2, "the module, and that nothing is agreed to for it");
}

#[test]
fn faults_of_all_files_are_told_together() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("topics/a.toml", "pattern = 'a/**'"),
        ("topics/b.yaml", ""),
        ("topics/c d.toml", ""),
        ("bindings/d.toml", "name = 'other'"),
        ("bindings/sub/e.toml", "module = 'm@1.0.0'\npattern = 'a'\n"),
        ("bindings/e.json", "{\"module\": \"m@1.0.0\", \"pattern\": \"a\"}"),
        ("schemas/f.toml", ""),
        ("schemas/g.xsd", ""),
        ("policy/h.cedar", ""),
    ];
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let told = super::super::folder::read(folder.path()).unwrap_err().what;
    let parts =
        ["8 things", "a.toml: ", "b.yaml: ", "c d.toml: ", "other", "called `e` as well", "f.toml: ", "g.xsd: "];
    for part in parts.into_iter().chain(["policy: "]) {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    assert!(super::super::folder::read(&PathBuf::from("/nonexistent")).is_err());
}
