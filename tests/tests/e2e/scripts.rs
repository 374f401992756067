//! The command line as scripts use it: what a command did, and why one failed, as JSON; and exit codes.

use anyhow::{Context, Result, ensure};
use myelin_tests::{Ran, Router};
use serde_json::{Value, json};

/// Runs a command that is given in words.
fn run(router: &Router, line: &str) -> Result<Ran> {
    router.myelin(&line.split(' ').collect::<Vec<_>>())
}

/// What a command says that it did.
fn did(router: &Router, line: &str) -> Result<Value> {
    run(router, &format!("{line} -o json"))?.json().with_context(|| line.to_owned())
}

/// The error that a program reads, which is the last line of the standard error.
fn error(ran: &Ran) -> Result<Value> {
    let last: Value = serde_json::from_str(ran.err.lines().last().unwrap_or_default())
        .with_context(|| format!("no JSON at the end of: {}", ran.err))?;
    ensure!(last["error"]["exit_code"].as_i64() == ran.code.map(i64::from), "{last}");
    Ok(last["error"].clone())
}

#[test]
fn an_error_is_json_where_json_is_asked_for_and_a_sentence_where_not() -> Result<()> {
    let router = Router::start()?;
    for line in ["policy rm nope", "tenant describe nope", "topic rm nope"] {
        let ran = run(&router, &format!("{line} --json"))?;
        let told = error(&ran)?;
        ensure!(ran.out.is_empty() && ran.code == Some(3) && told["code"] == "not-found", "{line}: {told}");
        ensure!(told["problem"]["status"] == 404 && told["problem"]["type"] == "/problems/not-found", "{told}");
        ensure!(told["message"].as_str().is_some_and(|text| text.contains("nope")), "{told}");
        let ran = run(&router, line)?;
        ensure!(ran.code == Some(3) && ran.err.starts_with("error: ") && ran.err.contains("nope"), "{}", ran.err);
    }
    // Nobody is there: another code than that of what is not there, and no problem of a router.
    let nobody = error(&run(&router, "tenant ls -o json --admin http://127.0.0.1:1")?)?;
    ensure!((&nobody["code"], &nobody["problem"]) == (&json!("unanswered"), &Value::Null), "{nobody}");
    ensure!(nobody["fix"].as_str().is_some_and(|fix| fix.contains("myelin serve --dev")), "{nobody}");
    // A file that is wrong is told by the command, as JSON; the command line itself by its parser, as text.
    let file = error(&run(&router, "policy apply /nope.cedar -o json")?)?;
    ensure!((&file["code"], &file["exit_code"]) == (&json!("usage"), &json!(2)), "{file}");
    let ran = run(&router, "policy apply -o json")?;
    ensure!(ran.code == Some(2) && error(&ran).is_err(), "{}", ran.err);
    Ok(())
}

#[test]
fn what_changes_something_says_to_programs_what_it_did() -> Result<()> {
    let router = Router::start()?;
    let folder = tempfile::tempdir()?;
    for (name, text) in [("all", "permit (principal, action, resource);"), ("none", "permit (principal, action, res);")]
    {
        std::fs::write(folder.path().join(name).with_extension("cedar"), text)?;
    }
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let revision = || -> Result<Value> { Ok(router.ask("GET", "/v1/bindings", &[], b"")?.json()["revision"].clone()) };

    let dry = did(&router, &format!("policy apply {} --dry-run", file("all.cedar")))?;
    ensure!((&dry["dry_run"], &dry["policies"][0]["action"]) == (&json!(true), &json!("checked")), "{dry}");
    let applied = did(&router, &format!("policy apply {}", file("all.cedar")))?;
    let policy = json!({"kind": "policy", "name": "all", "action": "applied", "revision": revision()?});
    ensure!(applied == json!({"policies": [policy], "dry_run": false, "failed": null}), "{applied}");

    let share =
        |with: &str| format!("tenant apply umbra --service spiffe://umbra.example/* --share umbra/news/**={with}");
    let tenant = did(&router, &share("acmee"))?;
    ensure!((&tenant["name"], &tenant["revision"]) == (&json!("umbra"), &revision()?), "{tenant}");
    ensure!(tenant["warnings"][0].as_str().is_some_and(|told| told.contains("no tenant `acmee`")), "{tenant}");
    let ran = run(&router, &share("acmee"))?.good()?;
    ensure!(
        ran.err.starts_with("warning: ") && ran.err.contains("`acmee`") && ran.out.contains("holds"),
        "{}",
        ran.err
    );
    ensure!(
        did(&router, &share("partner-*"))?["warnings"] == json!([])
            && run(&router, &share("*"))?.good()?.err.is_empty()
    );

    let rule = did(&router, "topic apply eu orders/** --region eu-*")?;
    ensure!((&rule["kind"], &rule["rule"]["pattern"]) == (&json!("topic"), &json!("orders/**")), "{rule}");
    let started = did(&router, "capture start a/** --for 5s")?;
    let id = started["id"].as_u64().context("a capture's number")?;
    ensure!(did(&router, &format!("capture stop {id}"))?["state"] == "stopped");
    for (line, kind, name) in [
        ("policy rm all".to_owned(), "policy", "all".to_owned()),
        ("tenant rm umbra".to_owned(), "tenant", "umbra".to_owned()),
        ("topic rm eu".to_owned(), "topic", "eu".to_owned()),
        (format!("capture rm {id}"), "capture", id.to_string()),
    ] {
        let gone = did(&router, &line)?;
        ensure!(
            (&gone["kind"], &gone["name"], &gone["action"]) == (&json!(kind), &json!(name), &json!("removed")),
            "{gone}"
        );
        ensure!(kind == "capture" || gone["revision"] == revision()?, "{gone}");
    }
    Ok(())
}

#[test]
fn a_dry_run_says_by_its_exit_code_whether_something_would_change() -> Result<()> {
    let router = Router::start()?;
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("policies"))?;
    let policy = folder.path().join("policies/all.cedar");
    std::fs::write(&policy, "permit (principal, action, resource);")?;
    let apply = format!("apply -f {}", folder.path().display());
    let code = |more: &str| -> Result<Option<i32>> { Ok(run(&router, &format!("{apply} {more}"))?.code) };
    ensure!(code("--exit-code")? == Some(2), "only a dry run has it");
    let ran = run(&router, &format!("{apply} --dry-run --exit-code -o json"))?;
    ensure!(ran.code == Some(8) && ran.err.is_empty(), "it is no error: {}", ran.err);
    let plan: Value = serde_json::from_str(&ran.out)?;
    ensure!(plan["changes"][0]["name"] == "all", "{plan}");
    ensure!(code("--dry-run")? == Some(0) && code("--note first")? == Some(0));
    ensure!(code("--dry-run --exit-code")? == Some(0), "nothing would change any more");
    std::fs::write(&policy, "permit (principal, action, res);")?;
    ensure!(code("--dry-run --exit-code")? != Some(8), "what cannot be is an error");
    std::fs::remove_file(&policy)?;
    ensure!(code("--dry-run --exit-code --prune")? == Some(8), "what goes is a change");
    Ok(())
}
