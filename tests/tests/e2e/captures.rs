//! Captures of live events, and what a replay says about them.

use crate::filters::{bind, built, push_built};
use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Event};
use myelin_tests::Router;
use serde_json::{Value, json};
use std::path::PathBuf;

const SCHEMA: &str = r#"{"schema":{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}}"#;
/// The same, and nothing above 50.
const STRICTER: &str =
    r#"{"schema":{"type":"object","required":["id"],"properties":{"id":{"type":"integer","maximum":50}}}}"#;
const SECRET: &str = "sesame-open-4711";

/// Publishes `{"id": N}` for each number, with a secret header; every tenth has a text in place of its number.
async fn publish(client: &Client, topic: &str, numbers: std::ops::Range<u32>) -> Result<()> {
    for number in numbers {
        let payload = if number % 10 == 0 { json!({"id": "ten"}) } else { json!({"id": number}) };
        client.send(Event::new(topic, &payload.to_string()).header("authorization", SECRET)).await?;
    }
    client.flush().await;
    Ok(())
}

fn fetched(router: &Router, id: u32) -> Result<PathBuf> {
    let file = router.folder().join(format!("{id}.capture"));
    router.myelin(&["capture", "fetch", &id.to_string(), "-o", &file.to_string_lossy()])?.good()?;
    Ok(file)
}

fn replay(router: &Router, file: &std::path::Path, module: &str, more: &[&str]) -> Result<Value> {
    let module = built(module)?;
    let (file, module) = (file.to_string_lossy(), module.to_string_lossy());
    let mut args = vec!["replay", &*file, "--module", &*module, "--json"];
    args.extend_from_slice(more);
    let first = router.myelin(&args)?.good()?;
    let again = router.myelin(&args)?.good()?;
    ensure!(first.out == again.out, "the same twice");
    Ok(serde_json::from_str(&first.out)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_the_same_module_changes_nothing_and_of_another_exactly_what_it_should() -> Result<()> {
    let router = Router::start()?;
    push_built(&router, "schema-json", "schema-json", "0.1.0")?;
    bind(&router, "orders-schema", "schema-json@0.1.0", "orders/**", &["--config", SCHEMA])?;
    let client = router.client().await?;
    publish(&client, "orders/before", 0..20).await?;
    router.myelin(&["capture", "start", "orders/**", "--redact", "authorization"])?.good()?;
    tokio::try_join!(publish(&client, "orders/new", 0..100), publish(&client, "other/new", 0..100))?;
    router.myelin(&["capture", "stop", "1"])?.good()?;
    publish(&client, "orders/after", 0..20).await?;

    let file = fetched(&router, 1)?;
    let text = std::fs::read_to_string(&file)?;
    ensure!(!text.contains(SECRET) && text.contains("[redacted]"), "the header was taken out");
    ensure!(text.contains("orders/new") && !text.contains("orders/before") && !text.contains("orders/after"));
    let same = replay(&router, &file, "schema-json", &["--fail-on-diff"])?;
    assert_eq!((&same["events"], &same["same"], &same["changed"]), (&json!(100), &json!(100), &json!(0)), "{same}");

    let stricter = replay(&router, &file, "schema-json", &["--config", STRICTER])?;
    // From 51 to 99, without the four tens that were refused before: their reason stays the same.
    assert_eq!((&stricter["changed"], &stricter["not_recorded"]), (&json!(45), &json!(0)), "{stricter}");
    let transitions = stricter["transitions"].as_array().context("transitions")?;
    ensure!(transitions.len() == 1 && transitions[0]["from"] == "allow" && transitions[0]["count"] == 45, "{stricter}");
    ensure!(transitions[0]["to"].as_str().is_some_and(|to| to.starts_with("deny")), "{stricter}");
    let (path, module) = (file.to_string_lossy(), built("schema-json")?);
    let module = module.to_string_lossy();
    let gate =
        router.myelin(&["replay", &path, "--module", &module, "--config", STRICTER, "--fail-on-diff", "--json"])?;
    assert_eq!(gate.code, Some(7), "{}", gate.err);
    assert_eq!(router.settled_ledger()?["balances"], true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_said_is_replayed_and_nothing_is_made_up() -> Result<()> {
    let router = Router::start()?;
    push_built(&router, "rate-limit", "rate-limit", "0.1.0")?;
    let limit = |amount: u32| format!(r#"{{"amount":{amount},"period_ms":3600000,"by":["level:0"]}}"#);
    bind(&router, "limit", "rate-limit@0.1.0", "*/limited", &["--config", &limit(10)])?;
    let client = router.client().await?;
    // Six of ten tokens go before the capture begins: what it does not hold, it answers all the same.
    publish(&client, "a/limited", 0..6).await?;
    router.myelin(&["capture", "start", "*/limited", "--binding", "limit"])?.good()?;
    publish(&client, "a/limited", 0..20).await?;
    let file = fetched(&router, 1)?;
    let same = replay(&router, &file, "rate-limit", &[])?;
    assert_eq!((&same["same"], &same["not_recorded"]), (&json!(20), &json!(0)), "{same}");
    let text = std::fs::read_to_string(&file)?;
    assert_eq!(text.matches(r#""kind":"deny""#).count(), 16, "four tokens were left");
    // Another limit is another question.
    let other = replay(&router, &file, "rate-limit", &["--config", &limit(5)])?;
    assert_eq!((&other["same"], &other["not_recorded"]), (&json!(0), &json!(20)), "{other}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rings_stay_bounded_and_end_by_themselves() -> Result<()> {
    let mut router = Router::start()?;
    let client = router.client().await?;
    let bounds = ["--max-bytes", "64KiB"];
    router.myelin(&[&["capture", "start", "**", "--keep", "last"], &bounds[..]].concat())?.good()?;
    router.myelin(&["capture", "start", "**", "--max-events", "50"])?.good()?;
    router.myelin(&["capture", "start", "**", "--sample", "10%"])?.good()?;
    publish(&client, "a/b", 0..3_000).await?;
    let captures = router.myelin(&["capture", "ls", "-o", "json"])?.json()?;
    let captures = captures["captures"].as_array().context("captures")?;
    let number = |at: usize, field: &str| captures[at][field].as_u64().unwrap_or_default();
    ensure!(number(0, "bytes") <= 64 << 10 && number(0, "evicted") > 0, "{captures:?}");
    assert_eq!(number(0, "events") + number(0, "evicted"), 3_000);
    assert_eq!((&captures[1]["state"], number(1, "events")), (&json!("full"), 50));
    ensure!(number(2, "events").abs_diff(300) <= 65, "{captures:?}");
    assert_eq!(number(2, "events") + number(2, "sampled_out"), 3_000);
    ensure!(std::fs::metadata(fetched(&router, 1)?)?.len() <= 64 << 10);
    // No binding judges them: a replay says what a filter would.
    let unjudged = replay(&router, &fetched(&router, 2)?, "schema-json", &["--config", SCHEMA])?;
    assert_eq!((&unjudged["events"], &unjudged["changed"]), (&json!(50), &json!(5)), "{unjudged}");
    router.terminate()?;
    router.restart()?;
    let after = router.myelin(&["capture", "ls", "-o", "json"])?.json()?;
    assert_eq!(after["captures"], json!([]), "no capture outlives its router");
    Ok(())
}

#[test]
fn what_is_wrong_is_told_with_a_stable_code() -> Result<()> {
    let router = Router::start()?;
    for (args, code, exit) in [
        (&["start", "a//b"][..], "invalid-body", 2),
        (&["start", "a", "--sample", "lots"], "invalid-capture", 2),
        (&["start", "a", "--max-bytes", "1"], "invalid-capture", 2),
        (&["start", "a", "--max-bytes", "1GiB"], "invalid-capture", 2),
        (&["start", "a", "--for", "2h"], "invalid-capture", 2),
        (&["stop", "7"], "not-found", 3),
        (&["rm", "7"], "not-found", 3),
        (&["fetch", "7", "-o", "/dev/null"], "not-found", 3),
    ] {
        let ran = router.myelin(&[&["capture"], args].concat())?;
        ensure!(ran.code == Some(exit) && ran.err.contains(code), "{args:?}: {:?} {}", ran.code, ran.err);
    }
    let module = built("redact")?;
    for (bytes, code) in [
        (&b"no capture"[..], "capture-format"),
        (b"{\"capture\":{\"format\":9}}\n", "capture-version"),
        (b"{\"capture\":{\"format\":1}}\n", "capture-invalid"),
    ] {
        let file = router.folder().join("bad.capture");
        std::fs::write(&file, bytes)?;
        let ran = router.myelin(&["replay", &file.to_string_lossy(), "--module", &module.to_string_lossy()])?;
        ensure!(ran.code == Some(2) && ran.err.contains(code), "{code}: {:?} {}", ran.code, ran.err);
    }
    Ok(())
}
