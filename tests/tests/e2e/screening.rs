//! Payloads are judged by the schema of their topic where they come in, before any filter.

use crate::attacks::eventually;
use crate::two_person::Issuer;
use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Event, Outcome, Overflow, SubscribeOptions, Subscription};
use myelin_tests::sites::{PATIENCE, Sites};
use myelin_tests::{Router, Setup};
use myelin_wire::Code;
use serde_json::json;
use tokio::time::timeout;

const FIRST: &str = r#"{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}"#;
const SECOND: &str = r#"{"type":"object","properties":{"id":{"type":["integer","string"]}},"required":["id"]}"#;

fn register(router: &Router, subject: &str, kind: &str, text: &str) -> Result<u64> {
    let body = json!({"schema": text, "schemaType": kind});
    let answer = router.send_json("POST", &format!("/registry/subjects/{subject}/versions"), &body)?;
    ensure!(answer.status == 200, "{answer:?}");
    answer.json()["id"].as_u64().context("an id")
}

async fn publish(client: &Client, event: Event<'_>) -> Result<Outcome> {
    Ok(timeout(PATIENCE, client.publish(event).await?).await?)
}

/// Waits until a rule judges by this at a router.
async fn judges(router: &Router, rule: &str, by: &str) -> Result<()> {
    eventually("the rule", || {
        let rule = router.ask("GET", &format!("/v1/topics/{rule}"), &[], b"")?;
        Ok(rule.status == 200 && rule.json()["screening"]["by"].as_str().is_some_and(|said| said.starts_with(by)))
    })
    .await
}

fn figures(router: &Router, rule: &str) -> Result<(u64, u64, u64)> {
    let screening = router.ask("GET", &format!("/v1/topics/{rule}"), &[], b"")?.json()["screening"].clone();
    let figure = |name: &str| screening[name].as_u64().with_context(|| format!("{name}: {screening}"));
    Ok((figure("passed")?, figure("refused")?, figure("dead_lettered")?))
}

/// A version more changes nothing by itself: a rollout lets both sites judge by it, with no restart.
async fn move_on(sites: &Sites, clients: &[Client; 2], events: &mut Subscription) -> Result<()> {
    let file = tempfile::NamedTempFile::with_suffix(".json")?;
    std::fs::write(file.path(), SECOND)?;
    let told =
        sites.routers[1].myelin(&["schema", "register", "orders-value", &file.path().to_string_lossy()])?.good()?;
    let moves = ["rollout", "start", "--only-changes", "--schema", "orders"];
    ensure!(
        told.out.contains(&format!("rule orders judges by version 1 until `myelin {}`", moves.join(" "))),
        "{}",
        told.out
    );
    for (router, client) in sites.routers.iter().zip(clients) {
        judges(router, "orders", "orders-value:1").await?;
        let outcome = publish(client, Event::new("orders/1", br#"{"id": "one"}"#)).await?;
        ensure!(matches!(outcome, Outcome::Refused { code: Code::SchemaViolation, .. }), "{outcome:?}");
    }
    let listed = sites.routers[0].myelin(&["topic", "ls"])?.good()?.out;
    ensure!(listed.contains("orders-value:1 (id 1); 2 is there"), "{listed}");
    let at_once =
        sites.routers[0].myelin(&["topic", "apply", "orders", "orders/**", "--schema-subject", "orders-value"])?;
    ensure!(at_once.code == Some(5) && at_once.err.contains("rollout-needed"), "{at_once:?}");
    sites.routers[1]
        .myelin(&[&moves[..], &["--wave", "100", "--observe", "0s", "--events", "0", "--watch"]].concat())?
        .good()?;
    for (router, client) in sites.routers.iter().zip(clients) {
        judges(router, "orders", "orders-value:2").await?;
        let outcome = publish(client, Event::new("orders/1", br#"{"id": "one"}"#)).await?;
        ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");
        timeout(PATIENCE, events.next()).await?.context("an event")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_router_refuses_what_is_not_as_the_schema_says_and_a_rollout_brings_a_new_version() -> Result<()> {
    let sites = Sites::start_with(2, &[(0, 1)], &[]).await?;
    let subscriber = sites.client(0, "sub", Overflow::Pause).await?;
    let mut events = subscriber.subscribe("orders/**", SubscribeOptions::default()).await?;
    let clients = [sites.client(0, "pub-0", Overflow::Pause).await?, sites.client(1, "pub-1", Overflow::Pause).await?];
    sites.agree(&[(0, 0), (1, 1)]).await?;
    register(&sites.routers[0], "orders-value", "JSON", FIRST)?;
    let said =
        sites.routers[1].myelin(&["topic", "apply", "orders", "orders/**", "--schema-subject", "orders-value"])?;
    let said = said.good()?.out;
    ensure!(said.contains("orders-value:1"), "{said}");
    for (router, client) in sites.routers.iter().zip(&clients) {
        judges(router, "orders", "orders-value:1").await?;
        let outcome = publish(client, Event::new("orders/1", br#"{"id": 1}"#)).await?;
        ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");
        let event = timeout(PATIENCE, events.next()).await?.context("an event")?;
        ensure!(event.payload() == br#"{"id": 1}"#);
        let Outcome::Refused { code: Code::SchemaViolation, detail } =
            publish(client, Event::new("orders/1", br#"{"id": "one"}"#)).await?
        else {
            anyhow::bail!("not refused")
        };
        ensure!(detail.starts_with("at /id: ") && detail.contains("integer") && !detail.contains("one"), "{detail}");
        // Neighbours in a batch have fates of their own, and other topics have no rule.
        let batch = [("orders/1", "1"), ("orders/1", r#"{"id": 2}"#), ("other", "1"), ("orders/2", "{}")];
        let mut tickets = Vec::new();
        for (topic, payload) in &batch {
            tickets.push(client.publish(Event::new(topic, payload)).await?);
        }
        let mut passed = Vec::new();
        for ticket in tickets {
            passed.push(matches!(timeout(PATIENCE, ticket).await?, Outcome::Acked));
        }
        ensure!(passed == [false, true, true, false], "{passed:?}");
        let event = timeout(PATIENCE, events.next()).await?.context("an event")?;
        ensure!(event.payload() == br#"{"id": 2}"#);
        ensure!(figures(router, "orders")? == (2, 3, 0), "{:?}", figures(router, "orders")?);
    }
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced = Event::new("orders/1", b"[]").traceparent(&format!("00-{trace}-00f067aa0ba902b7-01"));
    publish(&clients[1], traced).await?;
    let recorded = sites.routers[1].ask("GET", &format!("/v1/traces/{trace}"), &[], b"")?.json();
    let hop = &recorded["records"][0]["hop"];
    let detail = hop["detail"].as_str().unwrap_or_default();
    ensure!(hop["outcome"] == "refused" && detail.starts_with("schema-violation: rule orders"), "{recorded:#}");

    move_on(&sites, &clients, &mut events).await?;
    let metrics = String::from_utf8(sites.routers[0].ask("GET", "/metrics", &[], b"")?.body)?;
    for series in ["outcome=\"passed\"} 3", "outcome=\"refused\"} 4"] {
        let line = format!("\nmyelin_schema_events_total{{rule=\"orders\",{series}\n");
        ensure!(metrics.contains(&line), "{line}: {metrics}");
    }
    let link = sites.routers[0].myelin(&["link", "ls", "-o", "json"])?.json()?["links"][0].clone();
    let peer = format!("{}/{}", link["site"].as_str().context("a site")?, link["router"].as_str().context("a router")?);
    let described = sites.routers[0].myelin(&["link", "describe", &peer])?.json()?;
    ensure!(described["address"] == link["address"] && link["address"].is_string(), "{described:#}");
    let explained = sites.routers[0].myelin(&["explain", "orders/1", "--as", "spiffe://test/service/a"])?.good()?.out;
    ensure!(explained.contains("orders-value:2"), "{explained}");
    let shown = sites.routers[0].myelin(&["topic", "ls"])?.good()?.out;
    ensure!(shown.contains("by the schema of orders: 3 events passed, 4 refused"), "{shown}");
    sites.settle().await?;
    sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_as_the_schema_says_goes_to_the_dead_letters_where_the_rule_wants_that() -> Result<()> {
    let router = Router::start()?;
    let client = router.client().await?;
    let mut dead = client.subscribe("$dead/admission/**", SubscribeOptions::default()).await?;
    let avro =
        r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},{"name":"paid","type":"boolean"}]}"#;
    let id = register(&router, "orders-value", "AVRO", avro)?;
    let prefix = [&[0], &u32::try_from(id)?.to_be_bytes()[..]].concat();
    let args = ["topic", "apply", "orders", "orders/**", "--schema-by", "confluent", "--on-invalid", "dead-letter"];
    router.myelin(&args)?.good()?;
    let good = [&prefix[..], &[2, 1]].concat();
    let outcome = publish(&client, Event::new("orders/1", &good)).await?;
    ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");
    let bad = [&prefix[..], &[2, 7]].concat();
    let outcome = publish(&client, Event::new("orders/1", &bad).header("tenant", "acme")).await?;
    let Outcome::Refused { code: Code::DeadLettered, detail } = outcome else { anyhow::bail!("{outcome:?}") };
    ensure!(detail.starts_with("at paid: is no boolean"), "{detail}");
    let letter = timeout(PATIENCE, dead.next()).await?.context("a dead letter")?;
    ensure!((letter.topic(), letter.payload()) == ("$dead/admission/orders/1", &bad[..]));
    for (name, begins) in [
        ("myelin-reason", "schema-violation: at paid: is no boolean"),
        ("myelin-path", "paid"),
        ("myelin-rule", "orders"),
        ("myelin-topic", "orders/1"),
        ("tenant", "acme"),
    ] {
        let value = letter.attrs().header(name).unwrap_or_default();
        ensure!(value.starts_with(begins), "{name}: {value}");
    }
    let outcome = publish(&client, Event::new("orders/1", b"no prefix")).await?;
    ensure!(matches!(outcome, Outcome::Refused { code: Code::DeadLettered, .. }), "{outcome:?}");
    timeout(PATIENCE, dead.next()).await?.context("another")?;
    ensure!(figures(&router, "orders")? == (1, 0, 2));
    let ledger = router.settled_ledger()?;
    ensure!(ledger["balances"] == json!(true), "{ledger}");
    // What a rule judges by is not deleted from under it.
    router.myelin(&["topic", "apply", "orders", "orders/**", "--schema-subject", "orders-value"])?.good()?;
    for args in [&["schema", "rm", "orders-value"][..], &["schema", "rm", "orders-value", "--version", "1"]] {
        let kept = router.myelin(args)?;
        ensure!(kept.code == Some(5) && kept.err.contains("topic rule `orders` judges by"), "{kept:?}");
    }
    // A rule means a version that is there, whether it says which or not: without one nothing would pass.
    let missing = ["topic", "apply", "orders", "orders/**", "--schema-subject", "missing"];
    for version in [&[][..], &["--schema-version", "2"], &["--schema-version", "latest"]] {
        let none = router.myelin(&[&missing[..], version].concat())?;
        ensure!(none.code == Some(3) && none.err.contains("`missing`"), "{version:?}: {none:?}");
    }
    let there = ["topic", "apply", "orders", "orders/**", "--schema-subject", "orders-value", "--schema-version", "77"];
    let none = router.myelin(&there)?;
    ensure!(none.code == Some(3) && none.err.contains("has no version 77: it has 1; name"), "{none:?}");
    judges(&router, "orders", "orders-value:1").await?;
    router.myelin(&["topic", "rm", "orders"])?.good()?;
    let outcome = publish(&client, Event::new("orders/1", b"anything")).await?;
    ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_events_are_judged_before_another_schema_holds() -> Result<()> {
    let router = Router::start()?;
    let client = router.client().await?;
    register(&router, "orders-value", "JSON", SECOND)?;
    router.myelin(&["schema", "config", "orders-value", "--compatibility", "none"])?.good()?;
    let apply = ["topic", "apply", "orders", "orders/**", "--schema-subject", "orders-value", "--schema-version"];
    let by = |version: &str, more: &[&str]| router.myelin(&[&apply[..], &[version], more].concat());
    by("latest", &[])?.good()?;
    router.myelin(&["capture", "start", "orders/**"])?.good()?;
    let outcome = publish(&client, Event::new("orders/1", br#"{"id": "one"}"#)).await?;
    ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");

    // Where a rule follows the newest version, to register one is to let it hold.
    let file = tempfile::NamedTempFile::with_suffix(".json")?;
    std::fs::write(file.path(), FIRST)?;
    let file = file.path().to_string_lossy();
    let next = ["schema", "register", "orders-value", &*file];
    let turned_back = |ran: myelin_tests::Ran| -> Result<()> {
        let told = ["recorded-events", "1 of 1 recorded events", "orders/1 from", "at /id"];
        ensure!(ran.code == Some(7) && told.iter().all(|part| ran.err.contains(part)), "{ran:?}");
        Ok(())
    };
    turned_back(router.myelin(&next)?)?;
    ensure!(
        router.myelin(&["schema", "describe", "orders-value"])?.good()?.out.contains("version 1"),
        "nothing is there"
    );
    router.myelin(&[&next[..], &["--accept-failures"]].concat())?.good()?;
    judges(&router, "orders", "orders-value:2").await?;

    // The same where the rule itself changes; a router that is alone needs no rollout for that.
    by("1", &[])?.good()?;
    turned_back(by("2", &[])?)?;
    judges(&router, "orders", "orders-value:1").await?;
    by("2", &["--accept-failures"])?.good()?;
    judges(&router, "orders", "orders-value:2").await
}

/// Who chooses the rule and hears how many recorded events it turns back can guess one piece by piece: slowly, and seen.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_see_payloads_guesses_them_seldom_and_is_written_down() -> Result<()> {
    let (folder, issuer) = (tempfile::tempdir()?, Issuer::new()?);
    let file = folder.path().join("keys.json");
    std::fs::write(&file, issuer.keys()?)?;
    let issuers = format!(
        "{{ corp = {{ issuer = 'https://login.test', audience = ['myelin'], trust_domain = 'test', jwks_file = '{}', \
         roles_claim = 'groups', roles = {{ releasers = ['developer'] }} }} }}",
        file.display()
    );
    let variables = vec![("MYELIN_JWT__ISSUERS".to_owned(), issuers)];
    let router = Router::start_with(Setup { variables, ..Setup::default() })?;
    let developer = issuer.person("dev")?;
    register(&router, "first", "JSON", FIRST)?;
    router.myelin(&["capture", "start", "orders/**"])?.good()?;
    let outcome = publish(&router.client().await?, Event::new("orders/1", br#"{"id": "one"}"#)).await?;
    ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");

    let rule = json!({"pattern": "orders/**", "schema": {"subject": "first", "version": 1}}).to_string();
    let path = "/v1/topics/oracle";
    let headers = [("Authorization", &*developer.bearer), ("Content-Type", "application/json")];
    // What is refused anyway says nothing.
    let stale = router.ask("PUT", path, &[&headers[..], &[("If-Match", "\"0\"")]].concat(), rule.as_bytes())?;
    ensure!(stale.problem() == (409, "conflict".to_owned()), "{}", stale.json());
    for look in 0..32 {
        let told = router.ask("PUT", path, &headers, rule.as_bytes())?;
        ensure!(told.problem() == (409, "recorded-events".to_owned()), "{look}: {}", told.json());
        let detail = told.json()["detail"].to_string();
        ensure!(detail.contains("1 of 1 recorded events") && detail.contains("orders/1 from"), "{detail}");
        ensure!(!detail.contains("/id") && !detail.contains("one"), "nothing of a payload: {detail}");
    }
    let more = router.ask("PUT", path, &headers, rule.as_bytes())?;
    ensure!(more.problem() == (429, "too-many-looks".to_owned()), "{}", more.json());
    // Who may see payloads is told why, and as often as they ask.
    let told = router.ask("PUT", path, &headers[1..], rule.as_bytes())?;
    ensure!(told.status == 409 && told.json()["detail"].to_string().contains("at /id"), "{}", told.json());
    let page = router.ask("GET", "/v1/audit?limit=1000", &[], b"")?.json();
    let entries = page["entries"].as_array().context("entries")?;
    let looks =
        entries.iter().filter(|entry| entry["action"] == "judge recorded events" && entry["subject"] == "oracle");
    let of =
        |result: &str| looks.clone().filter(|entry| entry["result"] == result && entry["actor"] != "local").count();
    ensure!((of("recorded-events"), of("too-many-looks"), looks.clone().count()) == (32, 1, 34), "{page}");
    Ok(())
}

/// A schema that asks much of each value: what is too much of it is refused unjudged, and the tenant pays for the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_that_are_dear_to_judge_are_bounded_and_paid_for() -> Result<()> {
    let router = Router::start()?;
    let tenant = json!({"root": "acme", "services": ["spiffe://myelin.dev/*"]});
    let answer = router.send_json("PUT", "/v1/tenants/acme", &tenant)?;
    ensure!(answer.status < 300, "{answer:?}");
    let list: Vec<f64> = (0..1_000).map(|number| f64::from(number) + 0.5).collect();
    register(&router, "rates-value", "JSON", &json!({"items": {"enum": list}}).to_string())?;
    router.myelin(&["topic", "apply", "rates", "acme/rates/**", "--schema-subject", "rates-value"])?.good()?;
    judges(&router, "rates", "rates-value:1").await?;
    let client = router.client().await?;
    let payload = |count: usize| json!(vec![999.5; count]).to_string();
    for _ in 0..10 {
        let outcome = publish(&client, Event::new("acme/rates/1", payload(10_000).as_bytes())).await?;
        ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");
    }
    let outcome = publish(&client, Event::new("acme/rates/1", payload(100_000).as_bytes())).await?;
    let Outcome::Refused { code: Code::SchemaViolation, detail } = outcome else { anyhow::bail!("{outcome:?}") };
    ensure!(detail.contains("too many"), "{detail}");
    ensure!(figures(&router, "rates")? == (10, 1, 0));
    // No filter was there: a hundred million comparisons are what it paid for.
    let used = router.ask("GET", "/v1/tenants/acme", &[], b"")?.json();
    ensure!(used["usage"]["filter_ms"].as_u64().is_some_and(|ms| ms > 0), "{used}");
    ensure!(router.settled_ledger()?["balances"] == json!(true));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_passes_while_it_is_kept_and_does_not_go_for_good_unasked() -> Result<()> {
    let router = Router::start()?;
    let client = router.client().await?;
    let id = register(&router, "orders-value", "JSON", FIRST)?;
    register(&router, "orders-value", "JSON", SECOND)?;
    let payload = [&[0], &u32::try_from(id)?.to_be_bytes()[..], br#"{"id": 1}"#].concat();
    let by = ["topic", "apply", "orders", "orders/**", "--schema-by", "confluent"];
    router.myelin(&[&by[..], &["--schema-subject", "orders-value"]].concat())?.good()?;
    let rm = ["schema", "rm", "orders-value", "--version", "1"];
    router.myelin(&rm)?.good()?;
    for _ in 0..2 {
        let outcome = publish(&client, Event::new("orders/1", &payload)).await?;
        ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");
    }
    let for_good = [&rm[..], &["--permanent"]].concat();
    let refused = router.myelin(&for_good)?;
    ensure!(refused.code != Some(0) && refused.err.contains("schema-in-use"), "{refused:?}");
    ensure!(refused.err.contains("`orders` lets events name version 1"), "{refused:?}");
    let figures = String::from_utf8(router.ask("GET", "/metrics", &[], b"")?.body)?;
    ensure!(figures.contains("myelin_schema_compilations_total{outcome=\"compiled\"} 1"), "{figures}");
    router.myelin(&by)?.good()?;
    router.myelin(&for_good)?.good()?;
    judges(&router, "orders", "1 schemas").await?;
    let outcome = publish(&client, Event::new("orders/1", &payload)).await?;
    ensure!(matches!(outcome, Outcome::Refused { code: Code::SchemaViolation, .. }), "{outcome:?}");
    Ok(())
}
