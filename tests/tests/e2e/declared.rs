//! A folder of declarations: planned, applied once, changed, pruned, and written again from what there is.

use crate::attacks::eventually;
use crate::filters::push_built;
use crate::routing::decided;
use anyhow::{Context, Result, ensure};
use myelin_client::{Event, Outcome, Overflow};
use myelin_tests::sites::Sites;
use myelin_tests::{Router, program};
use serde_json::Value;
use std::path::Path;

const ORDER: &str = r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"},
    {"name": "price", "type": "Money"}]}"#;
const MONEY: &str = r#"{"type": "record", "name": "Money", "fields": [{"name": "cents", "type": "long"}]}"#;
/// Compatible with the first.
const MONEY_NEXT: &str = r#"{"type": "record", "name": "Money", "fields": [{"name": "cents", "type": "long"},
    {"name": "currency", "type": "string", "default": "EUR"}]}"#;
/// Not compatible: readers of the new one miss a field that old data do not have.
const MONEY_BROKEN: &str = r#"{"type": "record", "name": "Money", "fields": [{"name": "euros", "type": "long"}]}"#;

const FILES: [(&str, &str); 8] = [
    ("schemas/money.avsc", MONEY),
    ("schemas/orders-value.avsc", ORDER),
    (
        "schemas/orders-value.toml",
        "compatibility = 'FULL_TRANSITIVE'\n[[references]]\nname = 'Money'\nsubject = 'money'\n",
    ),
    ("topics/orders.toml", "pattern = 'orders/**'\n[schema]\nsubject = 'orders-value'\n"),
    ("policies/all.cedar", "permit (principal, action, resource);"),
    (
        "bindings/no-cards.toml",
        "module = 'redact@0.1.0'\npattern = 'payments/**'\nstage = 'egress'\n[config]\nfields = ['card']\naction = 'mask'\n\
         mask = '***'\n",
    ),
    ("README.md", "What our mesh is like."),
    ("tenants/acme.toml", "services = ['spiffe://acme.example/*']\n[quota]\nconnections = 5\n"),
];

fn write(folder: &Path, files: &[(&str, &str)]) -> Result<()> {
    for (file, text) in files {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// Applies a folder, and gives what the program tells programs.
fn apply(router: &Router, folder: &Path, more: &[&str]) -> Result<Value> {
    let folder = folder.to_string_lossy().into_owned();
    router.myelin(&[&["apply", "-f", &folder, "-o", "json"], more].concat())?.json()
}

/// Applies a folder, and gives what is said against it.
fn refused(router: &Router, folder: &Path, more: &[&str], code: i32) -> Result<String> {
    let folder = folder.to_string_lossy().into_owned();
    let ran = router.myelin(&[&["apply", "-f", &folder], more].concat())?;
    ensure!(ran.code == Some(code), "exit code {:?}\n{}\n{}", ran.code, ran.out, ran.err);
    Ok(ran.err)
}

fn revision(router: &Router) -> Result<u64> {
    router.ask("GET", "/v1/bindings", &[], b"")?.json()["revision"].as_u64().context("a revision")
}

/// The changes as `action kind name`.
fn changes(plan: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let changes = plan["changes"].as_array().into_iter().flatten();
    changes.map(|change| ["action", "kind", "name"].map(|field| text(&change[field])).join(" ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_applied_as_planned_and_a_second_time_nothing_changes() -> Result<()> {
    let router = Router::start()?;
    let folder = tempfile::tempdir()?;
    write(folder.path(), &FILES)?;
    // The binding's module is not there yet.
    let told = refused(&router, folder.path(), &["--dry-run"], 7)?;
    ensure!(told.contains("bindings/no-cards.toml: there is no module redact@0.1.0"), "{told}");
    push_built(&router, "redact", "redact", "0.1.0")?;

    let before = revision(&router)?;
    let created = [
        "create tenant acme",
        "create schema money",
        "create schema orders-value",
        "create topic orders",
        "create policy all",
        "create binding no-cards",
    ];
    let plan = apply(&router, folder.path(), &["--dry-run"])?;
    ensure!(changes(&plan) == created && plan["activates"][0] == "no-cards", "{plan:#}");
    ensure!(revision(&router)? == before && plan["revision"] == before, "a dry run changes nothing");
    let told = refused(&router, folder.path(), &["--if-match", "999"], 5)?;
    ensure!(told.contains("999") && revision(&router)? == before, "{told}");

    let applied = apply(&router, folder.path(), &["--if-match", &before.to_string()])?;
    ensure!(changes(&applied) == created && applied["applied"] == true, "{applied:#}");
    ensure!(applied["rollout"]["generation"].is_u64(), "{applied:#}");
    let client = router.client().await?;
    let bad = decided(&client, Event::new("orders/1", b"not avro")).await?;
    ensure!(matches!(&bad, Outcome::Refused { code, .. } if code.name() == "schema-violation"), "{bad:?}");
    let bindings = router.ask("GET", "/v1/bindings", &[], b"")?.json();
    ensure!(bindings["bindings"][0]["state"] == "active", "{bindings:#}");

    let after = revision(&router)?;
    let again = apply(&router, folder.path(), &["--prune"])?;
    ensure!(changes(&again).is_empty() && again["unchanged"] == 6 && revision(&router)? == after, "{again:#}");

    // What is there, written as a folder, is what is there.
    let copy = folder.path().join("copy");
    let told = router.myelin(&["export", &copy.to_string_lossy()])?.good()?.out;
    ensure!(told.contains("2 schemas, 1 topic, 1 policy, 1 binding"), "{told}");
    let same = apply(&router, &copy, &["--prune", "--dry-run"])?;
    ensure!(changes(&same).is_empty() && same["unchanged"] == 6, "{same:#}");
    ensure!(router.myelin(&["export", &copy.to_string_lossy()])?.code == Some(2), "a folder is not overwritten");

    // So it becomes at a router that has nothing, though what schemas refer to has no versions there yet.
    let elsewhere = Router::start()?;
    push_built(&elsewhere, "redact", "redact", "0.1.0")?;
    apply(&elsewhere, &copy, &[])?;
    let same = apply(&elsewhere, &copy, &["--prune", "--dry-run"])?;
    ensure!(changes(&same).is_empty() && same["unchanged"] == 6, "{same:#}");
    Ok(())
}

#[test]
fn of_two_who_apply_at_once_what_was_planned_one_does() -> Result<()> {
    let router = Router::start()?;
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let policy = |at: usize| format!("policies/p{at}.cedar");
    for round in 0..3 {
        for (number, folder) in folders.iter().enumerate() {
            let text = format!(
                "permit (principal == Service::\"spiffe://example.org/service/r{round}n{number}\", action, resource);"
            );
            let files: Vec<_> = (0..20).map(policy).collect();
            write(folder.path(), &files.iter().map(|file| (file.as_str(), text.as_str())).collect::<Vec<_>>())?;
            let schema = format!("{{\"title\": \"r{round}n{number}\"}}");
            write(folder.path(), &[("schemas/s.json", &schema), ("schemas/s.toml", "compatibility = 'NONE'")])?;
        }
        let planned = revision(&router)?.to_string();
        let apply = |folder: &Path| {
            let folder = folder.to_string_lossy().into_owned();
            router.myelin(&["apply", "-f", &folder, "--if-match", &planned, "-o", "json"])
        };
        let [first, second] = std::thread::scope(|scope| {
            folders
                .each_ref()
                .map(|folder| scope.spawn(|| apply(folder.path())))
                .map(|ran| ran.join().expect("it ends"))
        });
        let (first, second) = (first?, second?);
        let codes = [first.code, second.code];
        ensure!(codes == [Some(0), Some(5)] || codes == [Some(5), Some(0)], "{codes:?}\n{}\n{}", first.err, second.err);
        let (winner, done) = if first.code == Some(0) { (0, first.json()?) } else { (1, second.json()?) };
        ensure!(done["applied"] == true && done["revision"] == revision(&router)?, "{done:#}");
        let policies = router.ask("GET", "/v1/policies", &[], b"")?.json();
        for policy in policies["policies"].as_array().context("policies")? {
            let text = policy["text"].as_str().unwrap_or_default();
            ensure!(text.contains(&format!("r{round}n{winner}")), "of the other: {text}");
        }
    }
    Ok(())
}

#[test]
fn programs_are_told_what_took_effect_and_the_revision_then() -> Result<()> {
    let router = Router::start()?;
    let folder = tempfile::tempdir()?;
    let subjects: Vec<_> = (0..3).map(|at| format!("schemas/s{at}.json")).collect();
    write(folder.path(), &subjects.iter().map(|file| (file.as_str(), "{}")).collect::<Vec<_>>())?;
    write(
        folder.path(),
        &[(
            "policies/p.cedar",
            "forbid (principal, action, resource) when { principal.id == \"spiffe://example.org/service/x\" };",
        )],
    )?;
    let planned = revision(&router)?;
    let ran = router.myelin(&["apply", "-f", &folder.path().to_string_lossy(), "--json"])?.json()?;
    let done: Vec<_> = ran["changes"].as_array().into_iter().flatten().map(|change| &change["done"]).collect();
    ensure!(done == [true, true, true, true] && ran["failed"].is_null(), "{ran:#}");
    ensure!(ran["revision"] == revision(&router)? && revision(&router)? == planned + 4, "{ran:#}");
    Ok(())
}

#[test]
fn what_cannot_be_printed_is_no_success() -> Result<()> {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
    let ran = std::process::Command::new(program()).args(["config", "default"]).stdout(full).output()?;
    ensure!(ran.status.code() == Some(1), "{ran:?}");
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    ensure!(told.contains("standard output: ") && !told.contains("panic"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_before_anything_changes_and_what_is_gone_is_pruned() -> Result<()> {
    let router = Router::start()?;
    push_built(&router, "redact", "redact", "0.1.0")?;
    let folder = tempfile::tempdir()?;
    write(folder.path(), &FILES)?;
    apply(&router, folder.path(), &[])?;
    let before = revision(&router)?;

    // Beside something that could be changed: all or nothing.
    write(
        folder.path(),
        &[
            ("schemas/money.avsc", MONEY_BROKEN),
            ("policies/all.cedar", "permit (principal, action, resource) when { resource.colour == \"red\" };"),
            ("topics/orders.toml", "pattern = 'orders/*'\n[schema]\nsubject = 'nowhere'\n"),
        ],
    )?;
    for more in [&["--dry-run"][..], &[]] {
        let told = refused(&router, folder.path(), more, 7)?;
        for part in ["money.avsc: it is not compatible with subject money (BACKWARD)", "colour", "subject nowhere"] {
            ensure!(told.contains(part), "{part} is missing in\n{told}");
        }
    }
    ensure!(revision(&router)? == before, "nothing is half applied");

    // A new version makes a new version of what refers to it.
    write(folder.path(), &[FILES[3], FILES[4], ("schemas/money.avsc", MONEY_NEXT)])?;
    let applied = apply(&router, folder.path(), &[])?;
    let updated = ["update schema money", "update schema orders-value", "update topic orders"];
    ensure!(changes(&applied) == updated, "{applied:#}");
    let newest = router.ask("GET", "/registry/subjects/orders-value/versions/latest", &[], b"")?.json();
    ensure!(newest["version"] == 2 && newest["references"][0]["version"] == 2, "{newest:#}");
    ensure!(changes(&apply(&router, folder.path(), &[])?).is_empty());

    // Taken out of the folder, a thing stays; pruned, it goes, and what others need goes after them.
    for gone in ["bindings/no-cards.toml", "topics/orders.toml", "schemas/orders-value.avsc", "schemas/money.avsc"] {
        std::fs::remove_file(folder.path().join(gone))?;
    }
    std::fs::remove_file(folder.path().join("schemas/orders-value.toml"))?;
    ensure!(changes(&apply(&router, folder.path(), &["--dry-run"])?).is_empty());
    let pruned = apply(&router, folder.path(), &["--prune"])?;
    let removed =
        ["remove binding no-cards", "remove topic orders", "remove schema orders-value", "remove schema money"];
    ensure!(changes(&pruned) == removed, "{pruned:#}");
    let bindings = router.ask("GET", "/v1/bindings", &[], b"")?.json();
    ensure!(bindings["bindings"].as_array().is_some_and(Vec::is_empty), "{bindings:#}");
    ensure!(router.ask("GET", "/registry/subjects", &[], b"")?.json() == serde_json::json!([]));
    ensure!(changes(&apply(&router, folder.path(), &["--prune"])?).is_empty());
    Ok(())
}

/// An order, and one of which the price is a text.
const PRICED: &str = r#"{"type":"object","properties":{"price":{"type":"integer"}},"required":["price"]}"#;
const SPELT: &str = r#"{"type":"object","properties":{"price":{"type":["integer","string"]}},"required":["price"]}"#;

const JUDGED: [(&str, &str); 4] = [
    ("schemas/prices.json", SPELT),
    ("schemas/prices.toml", "compatibility = 'NONE'\n"),
    ("topics/prices.toml", "pattern = 'prices/**'\n[schema]\nsubject = 'prices'\n"),
    ("topics/secret.toml", "pattern = 'secret/**'\n[residency]\nsites = ['s1']\n"),
];

/// Waits until that judges prices at each site: another router reads of a rollout's end a moment later.
async fn judge(sites: &Sites, by: &str) -> Result<()> {
    eventually("the rule", || Ok(judging(sites)? == [by; 2])).await
}

/// What judges prices at each site.
fn judging(sites: &Sites) -> Result<Vec<String>> {
    let by = |router: &Router| {
        let rule = router.ask("GET", "/v1/topics/prices", &[], b"")?.json();
        Ok(rule["screening"]["by"].as_str().unwrap_or_default().split(' ').next().unwrap_or_default().to_owned())
    };
    sites.routers.iter().map(by).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_mesh_a_plan_says_where_and_another_schema_comes_by_a_rollout() -> Result<()> {
    let sites = Sites::start_with(2, &[(0, 1)], &[]).await?;
    let near = &sites.routers[0];
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_string_lossy().into_owned();
    write(folder.path(), &JUDGED)?;
    let plan = apply(near, folder.path(), &["--dry-run"])?;
    let at = |plan: &Value, name: &str| {
        let mut changes = plan["changes"].as_array().into_iter().flatten();
        let change = changes.find(|change| change["name"] == name && change["kind"] == "topic").cloned();
        change.map(|change| (change["sites"].clone(), change["by_rollout"] == true)).context("a change")
    };
    ensure!(at(&plan, "prices")? == (serde_json::json!(["s0", "s1"]), true), "{plan:#}");
    ensure!(at(&plan, "secret")? == (serde_json::json!(["s1"]), false), "{plan:#}");
    let applied = apply(near, folder.path(), &[])?;
    ensure!(applied["rollout"]["state"] == "complete", "{applied:#}");
    judge(&sites, "prices:1").await?;
    ensure!(changes(&apply(near, folder.path(), &[])?).is_empty());

    // A stricter version: it comes to no site while a router has recorded what it would turn back.
    sites.routers[1].myelin(&["capture", "start", "prices/**"])?.good()?;
    let client = sites.client(1, "shop", Overflow::Pause).await?;
    let outcome = decided(&client, Event::new("prices/1", br#"{"price": "ten"}"#)).await?;
    ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");
    write(
        folder.path(),
        &[
            ("schemas/prices.json", PRICED),
            ("topics/secret.toml", "pattern = 'secret/**'\n[residency]\nsites = ['s*']\n"),
        ],
    )?;
    let shown = near.myelin(&["apply", "-f", &path, "--dry-run"])?.good()?.out;
    for part in [
        "all 2 sites  schema.version: 1 -> \"the new one\"",
        "all 2 sites  residency.sites: [\"s1\"] -> [\"s*\"]; events may be now at s0",
        "start   rollout          all 2 sites  of topic prices",
    ] {
        ensure!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let told = refused(near, folder.path(), &[], 7)?;
    for part in ["router s1/r1", "1 of 1 recorded events would be turned back", "prices/1 from"] {
        ensure!(told.contains(part), "{part} is missing in\n{told}");
    }
    ensure!(judging(&sites)? == ["prices:1"; 2], "it holds nowhere");
    // The version is there now, and waits for a rollout.
    let left = near.myelin(&["apply", "-f", &path, "--no-rollout"])?.good()?.out;
    ensure!(left.contains(&format!("`myelin rollout start --topics {path}/topics/prices.toml`")), "{left}");
    ensure!(judging(&sites)? == ["prices:1"; 2], "it holds nowhere still");
    let applied = apply(near, folder.path(), &["--accept-failures"])?;
    ensure!(changes(&applied) == ["update topic prices"] && applied["rollout"]["state"] == "complete", "{applied:#}");
    judge(&sites, "prices:2").await?;

    // Back to the text before: its version judges again, and nothing is registered.
    write(folder.path(), &[("schemas/prices.json", SPELT)])?;
    let back = apply(near, folder.path(), &[])?;
    ensure!(changes(&back) == ["update topic prices"], "{back:#}");
    judge(&sites, "prices:1").await?;
    // What is gone from the folder goes, and what it judged by after it.
    for gone in ["schemas/prices.json", "schemas/prices.toml", "topics/prices.toml"] {
        std::fs::remove_file(folder.path().join(gone))?;
    }
    let pruned = apply(near, folder.path(), &["--prune"])?;
    ensure!(changes(&pruned) == ["remove topic prices", "remove schema prices"], "{pruned:#}");
    ensure!(near.ask("GET", "/registry/subjects", &[], b"")?.json() == serde_json::json!([]));
    sites.settle().await?;
    sites.end()
}
