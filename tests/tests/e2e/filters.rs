//! Filters from the command line to the event.

use crate::routing::{decided, payloads};
use anyhow::{Context, Result};
use myelin_client::{Event, Outcome, SubscribeOptions};
use myelin_tests::Router;
use std::path::PathBuf;

/// A filter that `cargo xtask filters` has built.
pub(crate) fn built(file: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("MYELIN_FILTERS_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/filters"),
    };
    let path = folder.join(format!("{file}.wasm"));
    path.is_file().then_some(path.clone()).with_context(|| format!("{}: run `cargo xtask filters`", path.display()))
}

/// Pushes a built filter.
pub(crate) fn push_built(router: &Router, file: &str, name: &str, version: &str) -> Result<()> {
    let path = built(file)?;
    router.myelin(&["filter", "push", &path.to_string_lossy(), "--as", &format!("{name}@{version}")])?.good()?;
    Ok(())
}

/// Binds a module and waits until it judges.
pub(crate) fn bind(router: &Router, name: &str, module: &str, pattern: &str, more: &[&str]) -> Result<()> {
    let mut args = vec!["bind", name, "--module", module, "--pattern", pattern];
    args.extend_from_slice(more);
    router.myelin(&args)?.good()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_filters_do_what_they_say() -> Result<()> {
    let router = Router::start()?;
    for name in ["schema-json", "content-route", "redact"] {
        push_built(&router, name, name, "0.1.0")?;
    }
    let schema = r#"{"schema":{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}}"#;
    bind(&router, "orders-schema", "schema-json@0.1.0", "orders/**", &["--config", schema])?;
    let routes = r#"{"field":"region","mode":"add","routes":{"eu":"regions/eu"}}"#;
    bind(
        &router,
        "by-region",
        "content-route@0.1.0",
        "orders/**",
        &["--order", "10", "--config", routes, "--grant-topic", "regions/**"],
    )?;
    let fields = r#"{"fields":["card.number"],"action":"mask","mask":"***"}"#;
    bind(&router, "no-cards", "redact@0.1.0", "orders/**", &["--stage", "egress", "--config", fields])?;

    let client = router.client().await?;
    let mut orders = client.subscribe("orders/**", SubscribeOptions::default()).await?;
    let mut regions = client.subscribe("regions/**", SubscribeOptions::default()).await?;
    let good = r#"{"id":1,"region":"eu","card":{"number":"4111111111111111"}}"#;
    let bad = decided(&client, Event::new("orders/new", r#"{"id":"one"}"#)).await?;
    assert!(
        matches!(&bad, Outcome::Refused { code, detail } if code.name() == "denied" && detail.contains("/id")),
        "{bad:?}"
    );
    assert!(matches!(decided(&client, Event::new("orders/new", good)).await?, Outcome::Acked));
    let order = payloads(&mut orders, 1).await?.remove(0);
    assert!(order.contains("\"***\"") && !order.contains("4111"), "{order}");
    assert!(payloads(&mut regions, 1).await?[0].contains("\"id\":1"));
    let ledger = router.settled_ledger()?;
    assert_eq!(ledger["balances"], true, "{ledger}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_tells_why_and_keeps_the_event() -> Result<()> {
    let router = Router::start()?;
    push_built(&router, "schema-json", "schema-json", "0.1.0")?;
    let schema = r#"{"schema":{"type":"object"},"on_invalid":"dead-letter"}"#;
    bind(&router, "objects", "schema-json@0.1.0", "in/**", &["--config", schema])?;
    let client = router.client().await?;
    let mut dead = client.subscribe("$dead/objects/**", SubscribeOptions::default()).await?;
    let outcome = decided(&client, Event::new("in/a", "[1]").header("x", "y")).await?;
    assert!(matches!(&outcome, Outcome::Refused { code, .. } if code.name() == "dead-lettered"), "{outcome:?}");
    let letter = dead.next().await.context("a dead letter")?;
    assert_eq!((letter.topic(), letter.payload()), ("$dead/objects/in/a", &b"[1]"[..]));
    assert_eq!((letter.header("x"), letter.header("myelin-module")), (Some("y"), Some("schema-json@0.1.0")));
    let why = letter.header("myelin-reason").context("a reason")?.to_owned();
    assert!(why.starts_with("payload does not match the schema: (document): "), "{why}");

    // A trace has the reason that the filter declares, and not what it says besides: that may quote the payload.
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traced = Event::new("in/a", "[1]").traceparent(&format!("00-{trace}-00f067aa0ba902b7-01"));
    decided(&client, traced).await?;
    let found = router.ask("GET", &format!("/v1/traces/{trace}"), &[], b"")?.json();
    let hop = &found["records"].as_array().into_iter().flatten().find(|record| record["topic"] == "in/a");
    let hop = &hop.context("a record")?["hop"];
    let declared = "payload does not match the schema";
    assert_eq!((&hop["outcome"], &hop["detail"]), (&"dead-letter".into(), &declared.into()), "{found:#}");
    assert_eq!(hop["verdicts"][0]["reason"], declared, "{found:#}");
    dead.next().await.context("its letter")?;

    // Where no letter can say of which event it is, there is none, and the publisher is told so.
    let letter_of = |event: &str| format!("$dead/objects/{event}");
    let longest = format!("in/{}", "x".repeat(250 - letter_of("in/").len()));
    for (topic, code) in
        [(longest.clone(), "dead-lettered"), (longest + "x", "denied"), (["in"; 31].join("/"), "denied")]
    {
        let outcome = decided(&client, Event::new(&topic, "[1]")).await?;
        let Outcome::Refused { code: found, detail } = outcome else { anyhow::bail!("{topic}: {outcome:?}") };
        assert_eq!(found.name(), code, "{topic}: {detail}");
    }
    assert_eq!(dead.next().await.context("the one that has room")?.topic().len(), 250);
    let ledger = router.settled_ledger()?;
    assert_eq!(ledger["balances"], true, "{ledger}");
    Ok(())
}

#[test]
fn what_is_wrong_with_an_upload_or_a_binding_is_said() -> Result<()> {
    let router = Router::start()?;
    let file = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = router.folder().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let core = myelin_tests::guests::core_module(myelin_tests::guests::Behaviour::Allow);
    for (path, code) in [
        (file("text.wasm", b"this is no module")?, "module-not-wasm"),
        (file("core.wasm", &wat::parse_str(core)?)?, "module-core"),
        (file("world.wasm", &wat::parse_str("(component)")?)?, "wrong-world"),
    ] {
        let ran = router.myelin(&["filter", "push", &path, "--as", "x@1.0.0"])?;
        assert_ne!(ran.code, Some(0));
        assert!(ran.err.contains(code), "{path}: {}", ran.err);
    }
    push_built(&router, "redact", "redact", "0.1.0")?;
    let ran = router.myelin(&[
        "bind",
        "b",
        "--module",
        "redact@0.1.0",
        "--pattern",
        "a/**",
        "--config",
        r#"{"feilds":[]}"#,
    ])?;
    assert!(ran.code != Some(0) && ran.err.contains("feilds"), "{}", ran.err);
    let ran = router.myelin(&["bind", "b", "--module", "nothing@9.9.9", "--pattern", "a/**"])?;
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    let bindings = router.myelin(&["ledger", "-o", "json"])?.json()?;
    assert_eq!(bindings["balances"], true, "the router is up, and nothing is half-applied");
    Ok(())
}
