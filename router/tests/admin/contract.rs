//! What is documented is what is served.

use crate::guest::component;
use crate::http::Answer;
use crate::world::{Router, files};
use myelin::shared::Phase;
use myelin_client::{Client, ClientConfig, Event};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const METHODS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];

/// The contract, each route with the name of its operation, by which generated clients call it: what the command line and
/// other programs rely on. A change here is a change for users.
const ROUTES: [(&str, &str); 93] = [
    ("DELETE /registry/config", "registry_settings_unset_level"),
    ("DELETE /registry/config/{subject}", "registry_settings_unset_subject_level"),
    ("DELETE /registry/mode", "registry_settings_unset_mode"),
    ("DELETE /registry/mode/{subject}", "registry_settings_unset_subject_mode"),
    ("DELETE /registry/subjects/{subject}", "registry_subjects_remove"),
    ("DELETE /registry/subjects/{subject}/versions/{version}", "registry_versions_remove"),
    ("DELETE /v1/bindings/{name}", "bindings_remove"),
    ("DELETE /v1/captures/{id}", "captures_remove"),
    ("DELETE /v1/mesh/keys/{name}", "keys_revoke"),
    ("DELETE /v1/mesh/sites/{name}", "fleet_remove_site"),
    ("DELETE /v1/mesh/sites/{site}/routers/{router}", "fleet_remove_router"),
    ("DELETE /v1/modules/{name}/versions/{version}", "modules_remove"),
    ("DELETE /v1/policies/{name}", "policies_remove"),
    ("DELETE /v1/rollouts/{id}/approve", "proposals_withdraw"),
    ("DELETE /v1/tenants/{name}", "tenants_remove"),
    ("DELETE /v1/topics/{name}", "topics_remove"),
    ("GET /livez", "health_live"),
    ("GET /metrics", "metrics"),
    ("GET /openapi.json", "description_openapi"),
    ("GET /readyz", "health_ready"),
    ("GET /registry/config", "registry_settings_level"),
    ("GET /registry/config/{subject}", "registry_settings_subject_level"),
    ("GET /registry/mode", "registry_settings_mode"),
    ("GET /registry/mode/{subject}", "registry_settings_subject_mode"),
    ("GET /registry/schemas/ids/{id}", "registry_ids_describe"),
    ("GET /registry/schemas/ids/{id}/schema", "registry_ids_text"),
    ("GET /registry/schemas/ids/{id}/subjects", "registry_ids_subjects"),
    ("GET /registry/schemas/ids/{id}/versions", "registry_ids_versions"),
    ("GET /registry/schemas/types", "registry_ids_types"),
    ("GET /registry/subjects", "registry_subjects_list"),
    ("GET /registry/subjects/{subject}/versions", "registry_versions_list"),
    ("GET /registry/subjects/{subject}/versions/{version}", "registry_versions_describe"),
    ("GET /registry/subjects/{subject}/versions/{version}/referencedby", "registry_versions_referrers"),
    ("GET /registry/subjects/{subject}/versions/{version}/schema", "registry_versions_text"),
    ("GET /v1/audit", "audit_list"),
    ("GET /v1/audit/file", "audit_file"),
    ("GET /v1/audit/verify", "audit_verify"),
    ("GET /v1/bindings", "bindings_list"),
    ("GET /v1/bindings/{name}", "bindings_describe"),
    ("GET /v1/captures", "captures_list"),
    ("GET /v1/captures/{id}", "captures_describe"),
    ("GET /v1/captures/{id}/file", "captures_file"),
    ("GET /v1/clients", "observe_clients"),
    ("GET /v1/explain", "explain"),
    ("GET /v1/ledger", "observe_ledger"),
    ("GET /v1/logs", "logs"),
    ("GET /v1/mesh", "observe_mesh"),
    ("GET /v1/mesh/keys", "keys_list"),
    ("GET /v1/mesh/ledger", "observe_mesh_ledger"),
    ("GET /v1/mesh/sites", "fleet_sites"),
    ("GET /v1/modules", "modules_list"),
    ("GET /v1/modules/{name}/versions/{version}", "modules_describe"),
    ("GET /v1/modules/{name}/versions/{version}/logs", "modules_logs"),
    ("GET /v1/policies", "policies_list"),
    ("GET /v1/policies/{name}", "policies_describe"),
    ("GET /v1/rollouts", "rollouts_list"),
    ("GET /v1/rollouts/{id}", "fleet_describe"),
    ("GET /v1/rollouts/{id}/approve", "proposals_describe"),
    ("GET /v1/rollouts/{id}/shadow", "shadow"),
    ("GET /v1/schemas", "registry_overview"),
    ("GET /v1/status", "observe_status"),
    ("GET /v1/tenants", "tenants_list"),
    ("GET /v1/tenants/{name}", "tenants_describe"),
    ("GET /v1/topics", "topics_list"),
    ("GET /v1/topics/{name}", "topics_describe"),
    ("GET /v1/traces/{trace_id}", "traces_trace"),
    ("GET /v1/trust", "trust_describe"),
    ("GET /v1/whoami", "whoami"),
    ("PATCH /v1/mesh/sites/{name}", "fleet_move_site"),
    ("POST /registry/compatibility/subjects/{subject}/versions", "registry_compatibility_compare_all"),
    ("POST /registry/compatibility/subjects/{subject}/versions/{version}", "registry_compatibility_compare"),
    ("POST /registry/subjects/{subject}", "registry_subjects_look_up"),
    ("POST /registry/subjects/{subject}/versions", "registry_versions_register"),
    ("POST /v1/captures", "captures_start"),
    ("POST /v1/captures/{id}/stop", "captures_stop"),
    ("POST /v1/modules/{name}/versions/{version}/release", "modules_release"),
    ("POST /v1/policies/explain", "policies_explain"),
    ("POST /v1/rollouts", "rollouts_start"),
    ("POST /v1/rollouts/rollback", "rollouts_roll_back"),
    ("POST /v1/rollouts/{id}/approve", "proposals_approve"),
    ("POST /v1/rollouts/{id}/{step}", "fleet_step"),
    ("POST /v1/trust/changes", "trust_change"),
    ("PUT /registry/config", "registry_settings_set_level"),
    ("PUT /registry/config/{subject}", "registry_settings_set_subject_level"),
    ("PUT /registry/mode", "registry_settings_set_mode"),
    ("PUT /registry/mode/{subject}", "registry_settings_set_subject_mode"),
    ("PUT /v1/bindings/{name}", "bindings_stage"),
    ("PUT /v1/mesh/sites/{name}", "fleet_add_site"),
    ("PUT /v1/mesh/sites/{site}/routers/{router}", "fleet_add_router"),
    ("PUT /v1/modules/{name}/versions/{version}", "modules_upload"),
    ("PUT /v1/policies/{name}", "policies_apply"),
    ("PUT /v1/tenants/{name}", "tenants_apply"),
    ("PUT /v1/topics/{name}", "topics_apply"),
];

fn documented(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    let routes = paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().keys().map(|key| key.to_uppercase());
        operations.filter(|key| METHODS.contains(&key.as_str())).map(move |method| format!("{method} {path}"))
    });
    routes.collect()
}

#[tokio::test]
async fn every_documented_route_is_served_and_no_other() {
    let router = Router::start().await;
    let document = router.show("/openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let documented = documented(&document);
    let contract: BTreeSet<_> = ROUTES.iter().map(|(route, _)| (*route).to_owned()).collect();
    assert_eq!(documented, contract);
    for (route, name) in ROUTES {
        let (method, path) = route.split_once(' ').unwrap();
        assert_eq!(document["paths"][path][method.to_lowercase()]["operationId"], name, "{route}");
    }

    let unserved = ["unknown-route", "method-not-allowed"];
    for path in document["paths"].as_object().unwrap().keys() {
        let real = path
            .replace("{name}", "x")
            .replace("{version}", "1.0.0")
            .replace("{id}", "7")
            .replace("{step}", "pause")
            .replace("{trace_id}", "4bf92f3577b34da6a3ce929d0e0e4736")
            .replace("{site}", "x")
            .replace("{router}", "x")
            .replace("{subject}", "x");
        for method in METHODS {
            let answer = router.ask(method, &real, &[], b"").await;
            if documented.contains(&format!("{method} {path}")) {
                let code = if answer.status < 400 { String::new() } else { refusal(&answer, path).1 };
                let said = &document["paths"][path][method.to_lowercase()]["responses"][answer.status.to_string()];
                assert!(said.is_object(), "{method} {path}: {} is not documented", answer.status);
                assert!(!unserved.contains(&code.as_str()), "{method} {path}: {answer:?}");
            } else {
                assert_eq!(refusal(&answer, path), (405, "method-not-allowed".into()), "{method} {path}");
                let allowed = answer.header("allow").unwrap_or_default();
                assert!(!allowed.is_empty() && !allowed.contains(method), "{method} {path}: {allowed}");
            }
        }
    }
    for path in ["/", "/v1", "/v1/", "/v2/modules", "/problems/not-found", "/v1/modules/x", "/favicon.ico"] {
        let answer = router.get(path).await;
        assert_eq!(answer.problem(), (404, "unknown-route".into()), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for path in ["/registry", "/registry/contexts", "/registry/schemas/guids/x", "/registry/subjects/x/metadata"] {
        let answer = router.get(path).await;
        assert_eq!(refusal(&answer, path), (404, "unknown-route".into()), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    router.stop().await;
}

/// Status and code of a refusal, in the form that those read who ask for `path`.
fn refusal(answer: &Answer, path: &str) -> (u16, String) {
    if !path.starts_with("/registry") {
        return answer.problem();
    }
    assert_eq!(answer.header("content-type"), Some("application/vnd.schemaregistry.v1+json"), "{path}: {answer:?}");
    let body = answer.json();
    let number = body["error_code"].as_u64().unwrap();
    assert!(number == u64::from(answer.status) || number / 100 == u64::from(answer.status), "{path}: {body}");
    assert!(body["message"].is_string(), "{path}: {body}");
    (answer.status, body["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_does_not_fit_into_a_path_or_query_is_a_problem_with_a_code() {
    let router = Router::start().await;
    for (method, path, code) in [
        ("GET", "/v1/rollouts/abc", "invalid-path"),
        ("GET", "/v1/rollouts/abc/shadow", "invalid-path"),
        ("GET", "/v1/rollouts/abc/approve", "invalid-path"),
        ("DELETE", "/v1/rollouts/x/approve", "invalid-path"),
        ("POST", "/v1/rollouts/x/approve", "invalid-path"),
        ("POST", "/v1/rollouts/x/pause", "invalid-path"),
        ("GET", "/v1/traces/%ff", "invalid-path"),
        ("PUT", "/v1/mesh/sites/x/routers/%ff", "invalid-path"),
        ("GET", "/v1/modules/%ff/versions/1.0.0", "invalid-name"),
        ("GET", "/v1/rollouts/1/shadow?x=1", "invalid-query"),
        ("GET", "/v1/audit?after=x", "invalid-query"),
        ("GET", "/v1/audit?kind=bogus", "invalid-query"),
        ("GET", "/v1/audit/file?after=-1", "invalid-query"),
        ("GET", "/v1/logs?limit=x", "invalid-query"),
    ] {
        let answer = router.ask(method, path, &[("Content-Type", "application/json")], b"{}").await;
        assert_eq!(answer.problem(), (400, code.into()), "{method} {path}");
    }
    router.stop().await;
}

#[tokio::test]
async fn answers_have_the_documented_shape() {
    let router = Router::start().await;
    assert_eq!(router.upload("quiet", "1.0.0", &component("1.0.0")).await.status, 201);
    let binding = json!({"module": "quiet@1.0.0", "pattern": "**", "stage": "egress", "config": {"any": [1, null]}});
    assert_eq!(router.send_json("PUT", "/v1/bindings/x", &binding).await.status, 202);
    assert_eq!(router.ask("POST", "/v1/rollouts", &[], b"").await.status, 200);
    let capture = json!({"pattern": "a/**", "sample": "1%", "redact": ["x"], "binding": "x"});
    assert_eq!(router.send_json("POST", "/v1/captures", &capture).await.status, 201);
    let document = router.show("/openapi.json").await;
    for (path, real) in [
        ("/v1/captures", "/v1/captures"),
        ("/v1/captures/{id}", "/v1/captures/1"),
        ("/v1/modules", "/v1/modules"),
        ("/v1/modules/{name}/versions/{version}", "/v1/modules/quiet/versions/1.0.0"),
        ("/v1/modules/{name}/versions/{version}/logs", "/v1/modules/quiet/versions/1.0.0/logs"),
        ("/v1/bindings", "/v1/bindings"),
        ("/v1/bindings/{name}", "/v1/bindings/x"),
        ("/v1/rollouts", "/v1/rollouts"),
        ("/v1/schemas", "/v1/schemas"),
        ("/v1/ledger", "/v1/ledger"),
        ("/v1/logs", "/v1/logs"),
        ("/v1/clients", "/v1/clients"),
        ("/v1/status", "/v1/status"),
        ("/v1/mesh", "/v1/mesh"),
        ("/v1/mesh/keys", "/v1/mesh/keys"),
        ("/v1/whoami", "/v1/whoami"),
        ("/v1/explain", "/v1/explain?topic=a/b&as=spiffe://test/service/web"),
        ("/livez", "/livez"),
        ("/readyz", "/readyz"),
    ] {
        let answer = router.show(real).await;
        let schema = &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path} has a documented answer");
        compare(&document, schema, &answer, path);
    }
    let answer = router.get("/v1/bindings/none").await.json();
    let content = &document["paths"]["/v1/bindings/{name}"]["get"]["responses"]["404"]["content"];
    compare(&document, &content["application/problem+json"]["schema"], &answer, "problem");
    router.stop().await;
}

/// Fails where `value` is not as `schema` says: a type, a missing or an undescribed property.
fn compare(document: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = resolve(document, schema);
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let of_null = |choice: &&Value| (choice["type"] == "null") == value.is_null();
        let choice = choices.iter().find(of_null).unwrap_or_else(|| panic!("{at}: no choice of {schema} fits {value}"));
        return compare(document, choice, value, at);
    }
    if let Some(types) = schema.get("type") {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = types == kind || types.as_array().is_some_and(|types| types.iter().any(|known| known == kind));
        assert!(fits, "{at}: {kind} in place of {types}");
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        assert!(values.contains(value), "{at}: {value} is none of {values:?}");
    }
    if let Some(values) = value.as_array() {
        values.iter().for_each(|value| compare(document, &schema["items"], value, &format!("{at}[]")));
    }
    let Some(fields) = value.as_object() else { return };
    if schema.get("type").is_none() && schema.get("allOf").is_none() {
        return; // any JSON
    }
    let (mut properties, mut required) = (Map::new(), Vec::new());
    gather(document, &schema, &mut properties, &mut required);
    for name in required {
        assert!(fields.contains_key(&name), "{at}: no `{name}`");
    }
    for (name, field) in fields {
        match properties.get(name).or(schema.get("additionalProperties")) {
            Some(schema) => compare(document, schema, field, &format!("{at}.{name}")),
            None => panic!("{at}: `{name}` is not documented"),
        }
    }
}

fn resolve(document: &Value, schema: &Value) -> Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let found = document.pointer(reference.trim_start_matches('#'));
            found.unwrap_or_else(|| panic!("`{reference}` leads nowhere")).clone()
        }
        None => schema.clone(),
    }
}

/// The properties of `schema` and of all that it is put together from.
fn gather(document: &Value, schema: &Value, properties: &mut Map<String, Value>, required: &mut Vec<String>) {
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        let part_alone = resolve(document, part);
        assert_ne!(
            part_alone["additionalProperties"],
            json!(false),
            "a closed part refuses all the others: {part_alone}"
        );
        gather(document, &resolve(document, part), properties, required);
    }
    properties.extend(schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default());
    let names = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    required.extend(names.filter_map(|name| name.as_str().map(ToOwned::to_owned)));
}

#[tokio::test]
async fn health_and_figures_tell_how_it_is() {
    let router = Router::start().await;
    assert_eq!(router.show("/livez").await["status"], "alive");
    assert_eq!(router.show("/readyz").await["status"], "ready");
    let status = router.show("/v1/status").await;
    assert_eq!((&status["phase"], &status["ready"], &status["workers"]), (&json!("serving"), &json!(true), &json!(2)));
    assert_eq!(status["addr"], router.node.client_addr().to_string());
    let ledger = router.show("/v1/ledger").await;
    assert_eq!((&ledger["balances"], &ledger["total"]["accepted"]), (&json!(true), &json!(0)));
    let clients = router.show("/v1/clients").await;
    assert_eq!((&clients["sessions"], clients["workers"].as_array().unwrap().len()), (&json!(0), 2));

    assert_eq!(router.upload("quiet", "1.0.0", &component("1.0.0")).await.status, 201);
    let binding = json!({"module": "quiet@1.0.0", "pattern": "**"});
    assert_eq!(router.send_json("PUT", "/v1/bindings/x", &binding).await.status, 202);
    assert_eq!(router.ask("POST", "/v1/rollouts", &[], b"").await.status, 200);
    let metrics = router.get("/metrics").await;
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let generation = router.show("/v1/status").await["generation"].clone();
    for line in [
        "myelin_ready 1".to_owned(),
        "myelin_modules 1".to_owned(),
        format!("myelin_generation {generation}"),
        "myelin_events_total{outcome=\"accepted\"} 0".to_owned(),
        "myelin_ledger_off_by{balance=\"events\"} 0".to_owned(),
        "myelin_rollouts_total{kind=\"activated\"} 1".to_owned(),
        "myelin_rollouts_total{kind=\"started\"} 1".to_owned(),
        "myelin_filter_events_total{binding=\"x\",module=\"quiet@1.0.0\",stage=\"ingress\",verdict=\"allow\"} 0"
            .to_owned(),
    ] {
        assert!(metrics.text().lines().any(|found| found == line), "no `{line}` in\n{}", metrics.text());
    }

    publish(&router, 50).await;
    let ledger = router.show("/v1/ledger").await;
    assert_eq!(
        (&ledger["balances"], &ledger["total"]["accepted"], &ledger["total"]["unmatched"]),
        (&json!(true), &json!(50), &json!(50))
    );
    let stats = router.show("/v1/bindings/x").await["stats"].clone();
    assert_eq!((&stats["events"], &stats["verdicts"]["allow"], &stats["faulted"]), (&json!(50), &json!(50), &json!(0)));
    let text = router.get("/metrics").await.text().to_owned();
    for line in [
        "myelin_events_total{outcome=\"unmatched\"} 50".to_owned(),
        format!("myelin_generation_events_total{{generation=\"{generation}\",outcome=\"accepted\"}} 50"),
        "myelin_filter_events_total{binding=\"x\",module=\"quiet@1.0.0\",stage=\"ingress\",verdict=\"allow\"} 50"
            .to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
    }
    let path = "/v1/modules/quiet/versions/1.0.0/logs";
    let logs = router.show(path).await;
    let line = &logs["lines"][0];
    assert_eq!(
        (&line["message"], &line["level"], &line["binding"]),
        (&json!("set up"), &json!("info"), &json!("x")),
        "{logs}"
    );
    assert_eq!(logs, router.show(path).await, "a second look sees it again");

    router.node.shared().phase.send_replace(Phase::Draining(Instant::now()));
    assert_eq!(router.get("/readyz").await.problem(), (503, "draining".into()));
    assert_eq!(router.get("/readyz").await.header("retry-after"), Some("1"));
    assert_eq!(router.show("/livez").await["status"], "alive", "a router that drains is not to be killed");
    assert_eq!(router.show("/v1/status").await["phase"], "draining");
    router.stop().await;
}

/// Publishes events that nobody subscribes to, and waits until all are decided.
pub(crate) async fn publish(router: &Router, count: usize) {
    let issued = router.ca.issue_service("publisher", 1).unwrap();
    let tls = files(&router.dir, &router.ca, "publisher", &issued);
    let config = ClientConfig::new(router.node.client_addr().to_string(), tls).with_server_name("localhost");
    let client = Client::connect(config).await.unwrap();
    for _ in 0..count {
        client.send(Event::new("orders/new", b"{}")).await.unwrap();
    }
    timeout(Duration::from_secs(30), client.flush()).await.unwrap();
    client.close().await;
}
