//! Who did what is written down, and cannot be written anew without being noticed.

use crate::jetstream::good;
use anyhow::{Context, Result, ensure};
use myelin_catalog::Digest;
use myelin_tests::Router;
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::sites::{PATIENCE, Sites};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

fn audit(router: &Router, query: &str) -> Result<Vec<Value>> {
    let page = router.ask("GET", &format!("/v1/audit?limit=1000{query}"), &[], b"")?.json();
    Ok(page["entries"].as_array().context("entries")?.clone())
}

/// The entries that have these values.
fn found<'a>(entries: &'a [Value], wanted: &Value) -> Vec<&'a Value> {
    let fits = |entry: &&Value| wanted.as_object().into_iter().flatten().all(|(key, value)| entry[key] == *value);
    entries.iter().filter(fits).collect()
}

/// The newest segment of a router's log.
fn segment(router: &Router) -> Result<PathBuf> {
    let files = std::fs::read_dir(router.data_dir().join("audit"))?;
    files
        .map(|file| file.map(|file| file.path()))
        .max_by_key(|file| file.as_ref().ok().cloned())
        .context("a segment")?
        .map_err(Into::into)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_refusals_and_reads_are_written_down_and_survive_a_kill() -> Result<()> {
    let mut router = Router::start()?;
    let module = component(Behaviour::Allow)?;
    good(router.upload("gate", "1.0.0", &module)?)?;
    good(router.send_json("PUT", "/v1/bindings/gate", &json!({"module": "gate@1.0.0", "pattern": "orders/**"}))?)?;
    good(router.send_json("POST", "/v1/rollouts", &json!({}))?)?;
    let refused = router.send_json("PUT", "/v1/bindings/other", &json!({"module": "none@1.0.0", "pattern": "a"}))?;
    ensure!(refused.status >= 400);
    let stranger = router.ask("GET", "/v1/bindings", &[("Origin", "http://evil.example")], b"")?;
    ensure!(stranger.status == 403, "{stranger:?}");
    for _ in 0..20 {
        router.ask("GET", "/v1/modules", &[], b"")?;
        router.ask("GET", "/metrics", &[], b"")?;
    }

    // What changes something is on the disk when it is answered: a kill takes nothing of it.
    router.kill()?;
    router.restart()?;
    let entries = audit(&router, "")?;
    let one = |wanted: Value| -> Result<Value> {
        let found = found(&entries, &wanted);
        ensure!(found.len() == 1, "{wanted}: {found:?} of {entries:#?}");
        Ok(found[0].clone())
    };
    let upload = one(json!({"kind": "admin", "action": "PUT /v1/modules/{name}/versions/{version}", "result": "ok"}))?;
    let digest = Digest::of(&module).to_string();
    ensure!(upload["digest"] == digest && upload["actor"] == "local" && upload["from"].is_string(), "{upload}");
    ensure!(upload["subject"] == "/v1/modules/gate/versions/1.0.0");
    let refusal = one(json!({"action": "PUT /v1/bindings/{name}", "subject": "/v1/bindings/other"}))?;
    ensure!(refusal["result"] == refused.code(), "{refusal}");
    one(json!({"actor": "-", "result": "forbidden-origin"}))?;
    for (action, subject) in [("module-added", "gate@1.0.0"), ("binding-staged", "gate"), ("activated", "")] {
        let subject = if subject.is_empty() { Value::Null } else { json!(subject) };
        let record = one(json!({"kind": "catalog", "action": action, "subject": subject}))?;
        ensure!(record["rev"].is_u64() && record["digest"].is_string(), "{record}");
    }
    ensure!(found(&entries, &json!({"action": "GET /v1/modules"})).len() == 1, "the first of its minute: {entries:#?}");
    ensure!(entries.iter().all(|entry| entry["count"].is_u64()), "each says how often: {entries:#?}");
    ensure!(!entries.iter().any(|entry| entry["subject"] == "/metrics"));
    ensure!(found(&entries, &json!({"kind": "router", "action": "start"})).len() == 2);
    let failed = audit(&router, "&failed=true&kind=admin")?;
    ensure!(failed.iter().all(|entry| entry["result"] != "ok") && failed.len() >= 2, "{failed:#?}");

    // The command line says the same, also from a file.
    let listed = router.myelin(&["audit", "ls", "--failed"])?.good()?;
    ensure!(listed.out.contains("forbidden-origin") && !listed.out.contains("binding-staged"), "{}", listed.out);
    let file = router.folder().join("audit.jsonl").display().to_string();
    router.myelin(&["audit", "export", &file])?.good()?;
    let over = router.myelin(&["audit", "export", &file])?;
    ensure!(over.code == Some(5) && over.err.contains("--force"), "{}", over.err);
    let verified = router.myelin(&["audit", "verify", "--file", &file])?.good()?;
    ensure!(verified.out.contains("hang together"), "{}", verified.out);
    router.myelin(&["audit", "verify"])?.good()?;
    heads(&router, &file)?;
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replacen("\"local\"", "\"other\"", 1))?;
    let forged = router.myelin(&["audit", "verify", "--file", &file])?;
    ensure!(forged.code == Some(1) && forged.out.contains("broken at entry"), "{}\n{}", forged.out, forged.err);
    router.terminate()?;
    Ok(())
}

/// An export without its end hangs together as well: only a head that was noted tells.
fn heads(router: &Router, file: &str) -> Result<()> {
    let whole: Value =
        serde_json::from_str(&router.myelin(&["audit", "verify", "--file", file, "-o", "json"])?.good()?.out)?;
    ensure!((&whole["end"], &whole["proven_to"]) == (&json!("unproven"), &Value::Null), "{whole:#}");
    let (seq, hash) = (whole["own"]["head"]["seq"].as_u64().context("seq")?, &whole["own"]["head"]["hash"]);
    let head = format!("{seq}:{}", hash.as_str().context("hash")?);
    // The router's own log has gone on since.
    for of in [vec!["audit", "verify", "--file", file], vec!["audit", "verify"]] {
        let ran = router.myelin(&[of, vec!["--head", &head, "-o", "json"]].concat())?.good()?;
        let proven: Value = serde_json::from_str(&ran.out)?;
        ensure!((&proven["end"], &proven["proven_to"]) == (&json!("noted"), &json!(seq)), "{proven:#}");
    }
    let text = std::fs::read_to_string(file)?;
    let cut = format!("{file}.cut");
    std::fs::write(
        &cut,
        text.lines().take(text.lines().count() - 1).map(|line| format!("{line}\n")).collect::<String>(),
    )?;
    let plain = router.myelin(&["audit", "verify", "--file", &cut])?.good()?;
    ensure!(plain.out.contains("the end is unproven"), "{}", plain.out);
    let found_out = router.myelin(&["audit", "verify", "--file", &cut, "--head", &head])?;
    ensure!(found_out.code == Some(1) && found_out.err.contains("is gone"), "{}\n{}", found_out.out, found_out.err);
    let nonsense = router.myelin(&["audit", "verify", "--file", &cut, "--head", "61:6f0c.."])?;
    ensure!(nonsense.code == Some(2), "{:?}: {}", nonsense.code, nonsense.err);
    Ok(())
}

/// What the first router has seen of the other's log, once that fits: links come up when they do.
async fn seen(sites: &Sites, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    let begin = Instant::now();
    loop {
        let found = sites.routers[0].ask("GET", "/v1/audit/verify", &[], b"")?.json();
        match found["others"].as_array().filter(|others| others.len() == 1) {
            Some(others) if fits(&others[0]) => return Ok(others[0].clone()),
            _ => ensure!(begin.elapsed() < PATIENCE, "{found:#}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_beginning_was_cut_off_is_noticed_by_other_routers() -> Result<()> {
    let mut sites = Sites::start_with(2, &[(0, 1)], &[]).await?;
    let seen = self::seen(&sites, |seen| seen["fault"].is_null()).await?;
    let last = seen["head"]["seq"].as_u64().context("a number")?;
    // All that was seen is removed, and one line stays that says it follows.
    sites.routers[1].kill()?;
    let file = segment(&sites.routers[1])?;
    std::fs::remove_file(&file)?;
    let before = myelin::audit::Head { seq: last, hash: Digest::of(b"whatever") };
    let note = myelin::audit::Note::new(myelin::audit::Kind::Admin, "local", "GET /v1/status", "ok");
    let (_, line) = before.next(note, 1);
    std::fs::write(file.with_file_name(format!("{:020}.jsonl", last + 1)), line + "\n")?;
    sites.routers[1].restart()?;
    let seen = self::seen(&sites, |seen| !seen["fault"].is_null()).await?;
    let fault = seen["fault"].as_str().context("a text")?.to_owned();
    ensure!(fault.contains(&format!("was written after another entry {last} than there was")), "{fault}");
    let alarms = audit(&sites.routers[0], "&kind=alarm")?;
    ensure!(found(&alarms, &json!({"action": "audit-fork"})).len() == 1, "{alarms:#?}");
    let own = sites.routers[1].myelin(&["audit", "verify"])?.good()?;
    ensure!(own.out.contains(&format!("what was before entry {} is not here", last + 1)), "{}", own.out);
    sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_written_anew_is_noticed_by_other_routers() -> Result<()> {
    let mut sites = Sites::start_with(2, &[(0, 1)], &[]).await?;
    good(sites.routers[1].upload("gate", "1.0.0", &component(Behaviour::Allow)?)?)?;
    let seen = self::seen(&sites, |_| true).await?;
    ensure!(seen["fault"].is_null() && seen["head"]["seq"].as_u64() >= Some(2), "{seen:#}");

    // Somebody who may write there takes an entry out and writes all later ones anew, as the program itself would.
    sites.routers[1].kill()?;
    let file = segment(&sites.routers[1])?;
    let lines: Vec<String> = std::fs::read_to_string(&file)?.lines().map(str::to_owned).collect();
    let mut head = myelin::audit::Head::default();
    let mut text = String::new();
    for line in &lines {
        let mut entry: myelin::audit::Entry = serde_json::from_str(line)?;
        entry.note.actor = entry.note.actor.replace("local", "nobody");
        let (next, line) = head.next(entry.note, entry.at_unix_ms);
        (head, text) = (next, text + &line + "\n");
    }
    std::fs::write(&file, text)?;
    sites.routers[1].restart()?;
    let own = sites.routers[1].myelin(&["audit", "verify", "--file", &file.display().to_string()])?;
    ensure!(own.code == Some(0), "by itself it hangs together: {}", own.out);

    let seen = self::seen(&sites, |seen| !seen["fault"].is_null()).await?;
    ensure!(seen["fault"].as_str().context("a text")?.contains("is another than it was"), "{seen:#}");
    let alarms = audit(&sites.routers[0], "&kind=alarm")?;
    ensure!(found(&alarms, &json!({"action": "audit-fork"})).len() == 1, "{alarms:#?}");
    let begin = Instant::now();
    while sites.routers[0].metric("myelin_alarms_total{code=\"audit-fork\"}").unwrap_or(0) == 0 {
        ensure!(begin.elapsed() < PATIENCE, "no alarm");
        tokio::time::sleep(PAUSE).await;
    }
    let ran = sites.routers[0].myelin(&["audit", "verify"])?;
    ensure!(ran.code == Some(1) && ran.out.contains("is another than it was"), "{}\n{}", ran.out, ran.err);

    // A restart of the witness mends nothing: it says so still, and nothing is written down a second time.
    sites.routers[0].kill()?;
    sites.routers[0].restart()?;
    let again = self::seen(&sites, |_| true).await?;
    ensure!(again["fault"] == seen["fault"] && again["head"] == seen["head"], "{seen:#} {again:#}");
    let ran = sites.routers[0].myelin(&["audit", "verify"])?;
    ensure!(ran.code == Some(1) && ran.out.contains("is another than it was"), "{}\n{}", ran.out, ran.err);
    let alarms = audit(&sites.routers[0], "&kind=alarm")?;
    ensure!(found(&alarms, &json!({"action": "audit-fork"})).len() == 1, "{alarms:#?}");
    let shown = sites.routers[0].myelin(&["mesh"])?.good()?.out;
    ensure!(shown.contains("audit-fork"), "{shown}");
    sites.end()
}
