//! Bindings and rollouts: staged, made active, taken back; refused without a trace.

use crate::guest::component;
use crate::http::request;
use crate::world::Router;
use myelin_catalog::limits::{CONFIG_LEN_MAX_BYTES, CONFIGS_TOTAL_MAX_BYTES};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

async fn with_module() -> Router {
    let router = Router::start().await;
    assert_eq!(router.upload("quiet", "1.0.0", &component("1.0.0")).await.status, 201);
    router
}

fn binding() -> Value {
    json!({"module": "quiet@1.0.0", "pattern": "orders/**"})
}

#[tokio::test]
async fn every_change_of_the_catalog_says_the_revision_that_it_has_then() {
    let router = with_module().await;
    let site = json!({"region": "eu"});
    for (method, path, body) in [
        ("PUT", "/v1/mesh/sites/eu1", site.clone()),
        ("PUT", "/v1/mesh/sites/eu1/routers/r1", json!({})),
        ("DELETE", "/v1/mesh/sites/eu1/routers/r1", json!({})),
        ("DELETE", "/v1/mesh/sites/eu1", json!({})),
        ("DELETE", "/v1/modules/quiet/versions/1.0.0", json!({})),
    ] {
        let done = router.send_json(method, path, &body).await;
        assert_eq!(done.status, 204, "{method} {path}: {done:?}");
        let revision = router.show("/v1/bindings").await["revision"].as_u64().unwrap();
        assert_eq!(done.header("etag"), Some(&*format!("\"{revision}\"")), "{method} {path}");
    }
    router.stop().await;
}

#[tokio::test]
async fn a_share_with_a_tenant_that_there_is_not_is_warned_of() {
    let router = Router::start().await;
    let apply = async |name: &str, with: &str| {
        let share = json!({"topics": format!("{name}/news/**"), "with": [with]});
        let tenant = json!({"services": [format!("spiffe://{name}.example/*")], "shares": [share]});
        let done = router.send_json("PUT", &format!("/v1/tenants/{name}"), &tenant).await;
        assert_eq!(done.status, 204, "{done:?}");
        done.header("warning").map(str::to_owned)
    };
    // Each of two that share with each other may come first: it is no fault.
    let told = apply("acme", "umbra").await.unwrap();
    assert!(
        told.starts_with("299 - \"tenant acme: shares: there is no tenant `umbra`;") && told.ends_with('"'),
        "{told}"
    );
    assert_eq!(apply("umbra", "acme").await, None);
    assert_eq!(apply("acme", "umbra").await, None);
    router.stop().await;
}

#[tokio::test]
async fn a_binding_is_staged_then_active_then_taken_back() {
    let router = with_module().await;
    let staged = router.send_json("PUT", "/v1/bindings/first", &binding()).await;
    assert_eq!(staged.status, 202, "{staged:?}");
    let revision = staged.json()["revision"].as_u64().unwrap();
    assert_eq!(staged.header("etag"), Some(&*format!("\"{revision}\"")));
    let described = router.show("/v1/bindings/first").await;
    assert_eq!((&described["state"], &described["stats"]), (&json!("staged"), &Value::Null));
    assert_eq!((&described["on_fault"], &described["name"]), (&json!("reject"), &json!("first")));

    let active = router.send_json("POST", "/v1/rollouts", &json!({"note": "the first"})).await;
    assert_eq!(active.status, 200, "{active:?}");
    let report = active.json();
    assert_eq!(
        (&report["kind"], &report["workers"], &report["plan"]["added"]),
        (&json!("activated"), &json!(2), &json!(["first"]))
    );
    assert!(report["took_ms"].is_u64() && report["previous"].as_u64() < report["generation"].as_u64());
    let generation = report["generation"].clone();

    let described = router.show("/v1/bindings/first").await;
    assert_eq!((&described["state"], &described["info"]["name"]), (&json!("active"), &json!("quiet")));
    assert_eq!((&described["stats"]["workers"], &described["stats"]["verdicts"]["allow"]), (&json!(2), &json!(0)));
    let module = router.show("/v1/modules/quiet/versions/1.0.0").await;
    assert_eq!((&module["state"], &module["bindings"][0]["name"]), (&json!("active"), &json!("first")));
    let in_use = router.ask("DELETE", "/v1/modules/quiet/versions/1.0.0", &[], b"").await;
    assert_eq!(in_use.problem(), (409, "conflict".into()));
    let list = router.show("/v1/bindings").await;
    assert_eq!((&list["active_generation"], list["bindings"].as_array().unwrap().len()), (&generation, 1));

    let back = router.send_json("POST", "/v1/rollouts/rollback", &json!({})).await;
    assert_eq!((back.status, &back.json()["kind"]), (200, &json!("rolled-back")), "{back:?}");
    assert_eq!(router.show("/v1/bindings").await["bindings"], json!([]));
    let again =
        router.send_json("POST", "/v1/rollouts/rollback", &json!({"to": generation, "note": "after all"})).await;
    assert_eq!(again.status, 200, "{again:?}");
    let rollouts = router.show("/v1/rollouts").await;
    let notes: Vec<_> =
        rollouts["rollouts"].as_array().unwrap().iter().map(|rollout| rollout["note"].clone()).collect();
    assert_eq!(notes, [Value::Null, json!("the first"), Value::Null, json!("after all")]);
    let kept = rollouts["generations"].as_array().unwrap();
    assert!(
        !kept.is_empty() && kept.iter().all(|kept| kept["bindings"] == 0),
        "no way leads to what is active: {kept:?}"
    );

    let removed = router.ask("DELETE", "/v1/bindings/first", &[], b"").await;
    assert_eq!(removed.status, 202, "{removed:?}");
    assert_eq!(router.show("/v1/bindings/first").await["state"], "leaving", "it judges until the next rollout");
    let empty = router.ask("POST", "/v1/rollouts", &[], b"").await;
    assert_eq!(empty.status, 200, "a rollout needs no body: {empty:?}");
    assert_eq!(router.get("/v1/bindings/first").await.problem(), (404, "not-found".into()));

    // The way back stays open, unless somebody wants it closed; then nobody is told of it.
    let there = router.show("/v1/rollouts").await["generations"].clone();
    assert_eq!(there.as_array().unwrap().iter().filter(|kept| kept["bindings"] == 1).count(), 2, "{there}");
    let kept = router.ask("DELETE", "/v1/modules/quiet/versions/1.0.0", &[], b"").await;
    assert_eq!(kept.problem(), (409, "conflict".into()));
    let told = kept.json()["detail"].as_str().unwrap().to_owned();
    assert!(told.contains("generation ") && told.contains("force"), "{told}");
    let forced = router.ask("DELETE", "/v1/modules/quiet/versions/1.0.0?force=true", &[], b"").await;
    assert_eq!(forced.status, 204, "{forced:?}");
    let there = router.show("/v1/rollouts").await["generations"].clone();
    assert!(there.as_array().unwrap().iter().all(|kept| kept["bindings"] == 0), "{there}");
    router.stop().await;
}

#[tokio::test]
async fn what_is_active_just_so_is_not_staged_anew() {
    let router = with_module().await;
    let put = async |body: &Value| {
        let staged = router.send_json("PUT", "/v1/bindings/first", body).await;
        assert_eq!(staged.status, 202, "{staged:?}");
        staged.json()["revision"].as_u64().unwrap()
    };
    let state = async || router.show("/v1/bindings/first").await["state"].clone();
    let first = put(&binding()).await;
    assert_eq!((put(&binding()).await, state().await), (first, json!("staged")), "it is staged already");
    assert_eq!(router.send_json("POST", "/v1/rollouts", &json!({})).await.status, 200);
    let revision = router.revision().await;
    assert_eq!((put(&binding()).await, state().await), (revision, json!("active")), "and active");
    // Something else and back again: no rollout would change anything.
    let mut other = binding();
    other["order"] = 7.into();
    assert!(put(&other).await > revision);
    assert_eq!(state().await, "changed");
    put(&binding()).await;
    assert_eq!(state().await, "active");
    assert_eq!(router.send_json("POST", "/v1/rollouts", &json!({})).await.problem(), (409, "conflict".into()));
    router.stop().await;
}

#[tokio::test]
async fn a_change_that_expects_another_revision_is_a_conflict() {
    let router = with_module().await;
    let body = binding().to_string();
    let revision = router.revision().await;
    let put = async |tag: &str| {
        let headers = [("Content-Type", "application/json"), ("If-Match", tag)];
        router.ask("PUT", "/v1/bindings/first", &headers, body.as_bytes()).await
    };
    assert_eq!(put(&format!("\"{}\"", revision + 1)).await.problem(), (409, "conflict".into()));
    for bad in ["*", "W/\"1\"", "\"x\"", "\"\"", "-1", "\"1\", \"2\"", "99999999999999999999999"] {
        assert_eq!(put(bad).await.problem(), (400, "invalid-if-match".into()), "{bad}");
    }
    assert_eq!(router.revision().await, revision);
    assert_eq!(put(&format!("\"{revision}\"")).await.status, 202);
    let stale = router.ask("DELETE", "/v1/bindings/first", &[("If-Match", &format!("\"{revision}\""))], b"").await;
    assert_eq!(stale.problem(), (409, "conflict".into()));
    router.stop().await;
}

#[tokio::test]
async fn a_wrong_body_is_told_where_and_changes_nothing() {
    let router = with_module().await;
    let revision = router.revision().await;
    let with = |key: &str, value: Value| {
        let mut binding = binding();
        binding[key] = value;
        binding
    };
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let cases = [
        (json!([]), 400, "invalid-body", "expected an object"),
        (json!(["quiet@1.0.0", "a"]), 400, "invalid-body", "expected an object"),
        (with("limits", json!([65536, 2000])), 400, "invalid-body", "expected an object"),
        (with("grant", json!([[], []])), 400, "invalid-body", "`grant`"),
        (json!({"pattern": "a"}), 400, "invalid-body", "missing field `module`"),
        (with("color", json!("red")), 400, "invalid-body", "unknown field `color`"),
        (with("limits", json!({"memory_bytes": "much"})), 400, "invalid-body", "`limits.memory_bytes`"),
        (with("limits", json!({"memory": 1})), 400, "invalid-body", "unknown field `memory`"),
        (with("on_fault", json!("explode")), 400, "invalid-body", "`on_fault`"),
        (with("module", json!("quiet")), 400, "invalid-body", "NAME@VERSION"),
        (with("pattern", json!("a//b")), 400, "invalid-body", "`pattern`"),
        (with("order", json!(1e99)), 400, "invalid-body", "`order`"),
        (with("grant", json!({"topics": ["a", 7]})), 400, "invalid-body", "`grant.topics[1]`"),
        (with("name", json!("second")), 400, "invalid-binding", "leave it out"),
        (with("limits", json!({"memory_bytes": 1})), 400, "invalid-binding", "limits.memory_bytes"),
        (with("per_subscriber", json!(true)), 400, "invalid-binding", "per_subscriber"),
        (with("module", json!("quiet@9.9.9")), 404, "not-found", "quiet@9.9.9"),
    ];
    for (body, status, code, part) in cases {
        let answer = router.send_json("PUT", "/v1/bindings/first", &body).await;
        assert_eq!(answer.problem(), (status, code.into()), "{body}: {answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(part), "{body}: no `{part}` in `{detail}`");
    }
    let refused = router.send_json("PUT", "/v1/bindings/first", &with("config", json!("no"))).await;
    let (status, _) = refused.problem();
    assert_eq!(status, 422);
    assert!(refused.text().contains("no texts"), "the filter's own words: {refused:?}");
    for text in ["", "{", "{} {}", "\u{feff}{}", "nul"] {
        let answer =
            router.ask("PUT", "/v1/bindings/first", &[("Content-Type", "application/json")], text.as_bytes()).await;
        assert_eq!(answer.status, 400, "{text}: {answer:?}");
    }
    for (path, body) in [
        ("/v1/rollouts", json!({"force": true})),
        ("/v1/rollouts", json!({"note": "x".repeat(1_025)})),
        ("/v1/rollouts", json!({"note": 7})),
        ("/v1/rollouts/rollback", json!({"to": -1})),
        ("/v1/rollouts/rollback", json!({"to": 7.5})),
    ] {
        assert_eq!(
            router.send_json("POST", path, &body).await.problem(),
            (400, "invalid-body".into()),
            "{path} {body}"
        );
    }
    assert_eq!(router.send_json("POST", "/v1/rollouts/rollback", &json!({"to": 999})).await.problem().0, 404);
    assert_eq!(router.ask("DELETE", "/v1/bindings/first", &[], b"").await.problem(), (404, "not-found".into()));
    let accepted = router.send_json("PUT", "/v1/bindings/deep", &with("config", deep)).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let list = router.show("/v1/bindings").await;
    assert_eq!((&list["revision"], list["bindings"].as_array().unwrap().len()), (&json!(revision + 1), 1));
    router.stop().await;
}

#[tokio::test]
async fn a_full_catalog_is_no_fault_of_the_request() {
    let router = with_module().await;
    let config = json!({ "filling": "x".repeat(CONFIG_LEN_MAX_BYTES - 64) });
    let fitting = CONFIGS_TOTAL_MAX_BYTES / CONFIG_LEN_MAX_BYTES;
    for n in 0..=fitting {
        let binding = json!({"module": "quiet@1.0.0", "pattern": format!("n/{n}"), "config": config});
        let answer = router.send_json("PUT", &format!("/v1/bindings/b{n}"), &binding).await;
        if n < fitting {
            assert_eq!(answer.status, 202, "{n}: {answer:?}");
        } else {
            assert_eq!(answer.problem(), (507, "catalog-full".into()));
        }
    }
    let there = router.show("/v1/bindings").await["bindings"].as_array().unwrap().len();
    assert_eq!(there, fitting, "nothing of the refused one was kept");
    router.stop().await;
}

#[tokio::test]
async fn a_change_whose_client_hangs_up_is_in_the_audit_log() {
    const CHANGES: usize = 24;
    let router = with_module().await;
    let (host, body) = (router.addr().to_string(), binding().to_string());
    for number in 0..CHANGES {
        let path = format!("/v1/bindings/b{number}");
        let bytes = request("PUT", &path, &host, &[("Content-Type", "application/json")], body.as_bytes());
        let mut stream = TcpStream::connect(router.addr()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        // Gone before there is an answer, or about then.
        tokio::time::sleep(Duration::from_micros(100 * (number as u64 % 8))).await;
    }
    let (begin, mut before) = (Instant::now(), None);
    loop {
        let entries = router.show("/v1/audit?limit=1000").await["entries"].clone();
        let entries = entries.as_array().unwrap();
        let told: Vec<_> = entries.iter().filter(|entry| entry["action"] == "PUT /v1/bindings/{name}").collect();
        let good = told.iter().filter(|entry| entry["result"] == "ok").count();
        let made = entries.iter().filter(|entry| entry["action"] == "binding-staged").count();
        let counts = (told.len(), good, made);
        // A request that was not read before its client had gone has changed nothing, and is told by nobody: all others are,
        // once nothing comes any more.
        if told.len() == made && good == made && made > CHANGES / 2 && before == Some(counts) {
            break;
        }
        before = Some(counts);
        assert!(begin.elapsed() < Duration::from_secs(20), "told, good and made: {counts:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    router.stop().await;
}

#[tokio::test]
async fn a_site_that_is_there_is_said_to_be_elsewhere_and_keeps_its_number() {
    let router = Router::start().await;
    let path = "/v1/mesh/sites/hamburg";
    let set = async |body: Value| router.send_json("PATCH", path, &body).await;
    let site = async || router.show("/v1/mesh/sites").await["sites"][1].clone();
    assert_eq!(set(json!({"region": "eu-central"})).await.problem(), (404, "not-found".into()));
    // As the configuration of a mesh names it at its beginning.
    for first in ["/v1/mesh/sites/berlin", path] {
        assert_eq!(router.send_json("PUT", first, &json!({})).await.status, 204);
    }
    assert_eq!(router.send_json("PUT", path, &json!({"region": "eu"})).await.problem(), (409, "conflict".into()));
    assert_eq!((&site().await["region"], &site().await["number"]), (&json!("unset"), &json!(1)));
    assert_eq!(set(json!({"region": "eu-central"})).await.status, 204);
    assert_eq!((&site().await["region"], &site().await["cloud"]), (&json!("eu-central"), &json!("unset")));
    assert_eq!(set(json!({"cloud": "own"})).await.status, 204);
    let now = site().await;
    assert_eq!((&now["region"], &now["cloud"], &now["number"]), (&json!("eu-central"), &json!("own"), &json!(1)));
    let revision = router.show("/v1/bindings").await["revision"].clone();
    assert_eq!(set(json!({"cloud": "own"})).await.status, 204);
    assert_eq!(router.show("/v1/bindings").await["revision"], revision, "nothing has changed");
    assert_eq!(set(json!({})).await.problem(), (400, "invalid-body".into()));
    router.stop().await;
}
