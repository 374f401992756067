//! Every route, asked as every role: `roles.txt` is what may come of it.
//!
//! The table is compared with what the router does, not with what it says; `MYELIN_UPDATE_ROLES=1` writes it anew.

use crate::access::{ask_as, ask_with};
use crate::http::Answer;
use crate::world::{Router, files};
use myelin::config::{Role, RoleMap};
use myelin_transport::{Identity, TlsFiles};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

const TABLE: &str = include_str!("roles.txt");
const TABLE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/admin/roles.txt");
/// A certificate of our authority that nobody has named.
const STRANGER: &str = "stranger";

/// A router whose roles each have one holder, who is called like the role.
pub(crate) async fn start() -> Router {
    let holders = Role::ALL.iter().map(|role| {
        let name = format!("spiffe://test.example/service/{}", role.name());
        (*role, vec![name.try_into().unwrap()])
    });
    let roles = RoleMap(holders.collect());
    Router::start_with(|listen| (listen.dev, listen.roles) = (false, roles)).await
}

pub(crate) fn certificate(router: &Router, name: &str) -> TlsFiles {
    files(&router.dir, &router.ca, name, &router.ca.issue_service(name, 1).unwrap())
}

pub(crate) fn real(path: &str) -> String {
    let values = [
        ("{name}", "x"),
        ("{version}", "1.0.0"),
        ("{id}", "7"),
        ("{step}", "pause"),
        ("{trace_id}", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("{site}", "x"),
        ("{router}", "x"),
        ("{subject}", "x"),
    ];
    values.iter().fold(path.to_owned(), |path, (from, to)| path.replace(from, to))
}

/// What became of a request: let in, or refused for lack of a role, or of any right to ask.
fn sign(answer: &Answer, path: &str) -> char {
    let code = match answer.status {
        401 | 403 if path.starts_with("/registry") => answer.json()["code"].as_str().unwrap().to_owned(),
        401 | 403 => answer.problem().1,
        _ => return 'x',
    };
    match (answer.status, &*code) {
        (403, "forbidden-role") => '.',
        (403, "forbidden") => '-',
        (401, "unauthorized") => '-',
        other => panic!("{path}: {other:?}"),
    }
}

#[tokio::test]
async fn every_route_is_for_its_roles_and_for_nobody_else() {
    let router = start().await;
    let mut names: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
    names.push(STRANGER);
    let certificates: Vec<_> = names.iter().map(|name| Some(certificate(&router, name))).chain([None]).collect();
    names.push("nobody");
    let admin = certificates[names.iter().position(|name| *name == "admin").unwrap()].as_ref();
    let document = ask_as(&router, admin, "GET", "/openapi.json").await.json();

    let mut found = format!("{:<74}{}\n", "", names.join(" "));
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "patch", "delete"] {
            let Some(operation) = item.get(method) else { continue };
            let method = method.to_uppercase();
            let declared = operation["x-myelin-roles"].as_array();
            let declared = declared.unwrap_or_else(|| panic!("{method} {path} is not in admin/rights.rs"));
            let declared: BTreeSet<&str> = declared.iter().map(|role| role.as_str().unwrap()).collect();
            write!(found, "{:<74}", format!("{method} {path}")).unwrap();
            for (name, certificate) in names.iter().zip(&certificates) {
                let sign = sign(&ask_as(&router, certificate.as_ref(), &method, &real(path)).await, path);
                let is_open = ["/livez", "/readyz"].contains(&path.as_str());
                assert_eq!(
                    sign == 'x',
                    is_open || declared.contains(name),
                    "{method} {path} as {name}: what is said is done"
                );
                write!(found, "{sign:<width$} ", width = name.len()).unwrap();
            }
            found.truncate(found.trim_end().len());
            found.push('\n');
        }
    }
    router.stop().await;
    if std::env::var_os("MYELIN_UPDATE_ROLES").is_some() {
        return std::fs::write(TABLE_FILE, &found).unwrap();
    }
    assert!(found == TABLE, "who may do what has changed; MYELIN_UPDATE_ROLES=1 writes roles.txt anew:\n{found}");
}

/// What somebody of a tenant may ask at all, whatever their roles open.
const OF_TENANT: [&str; 5] =
    ["GET /livez", "GET /readyz", "GET /openapi.json", "GET /v1/whoami", "GET /v1/tenants/{name}"];

#[tokio::test]
async fn nobody_takes_in_themselves_or_everybody() {
    let router = start().await;
    let [admin, security] = ["admin", "security"].map(|role| certificate(&router, role));
    for (selector, why) in [
        ("spiffe://*", "no whole trust domain"),
        ("spiffe://test.example/*", "who asks for it"),
        ("spiffe://test.example/service/security", "who asks for it"),
    ] {
        let body = json!({"services": [selector]}).to_string();
        let refused = ask_with(&router, Some(&security), "PUT", "/v1/tenants/acme", &body).await;
        assert_eq!(refused.problem(), (400, "invalid-tenant".into()), "{selector}");
        assert!(refused.json()["detail"].as_str().unwrap().contains(why), "{}", refused.json());
    }
    let others = json!({"services": ["spiffe://test.example/service/acme-*"]}).to_string();
    assert_eq!(ask_with(&router, Some(&security), "PUT", "/v1/tenants/acme", &others).await.status, 204);
    // Whoever may everything is of no tenant, and can take it back.
    let all = json!({"services": ["spiffe://test.example/*"]}).to_string();
    assert_eq!(ask_with(&router, Some(&admin), "PUT", "/v1/tenants/acme", &all).await.status, 204);
    let shut_out = ask_with(&router, Some(&security), "DELETE", "/v1/tenants/acme", "").await;
    assert_eq!(shut_out.problem(), (403, "forbidden-tenant".into()));
    assert_eq!(ask_with(&router, Some(&admin), "DELETE", "/v1/tenants/acme", "").await.status, 204);
}

#[tokio::test]
async fn those_of_a_tenant_see_their_own_tenant_and_nothing_else() {
    let router = start().await;
    let admin = certificate(&router, "admin");
    let mine = |role: &str| json!({"services": [format!("spiffe://test.example/service/{role}")]}).to_string();
    // That of payloads opens next to nothing anyway, and tenants are made by those who may do everything.
    let roles = ["viewer", "developer", "releaser", "operator", "security"];
    for role in roles.into_iter().chain(["admin"]) {
        let path = format!("/v1/tenants/{role}");
        assert_eq!(ask_with(&router, Some(&admin), "PUT", &path, &mine(role)).await.status, 204, "{role}");
    }
    let document = ask_as(&router, Some(&admin), "GET", "/openapi.json").await.json();
    for role in roles {
        let certificate = certificate(&router, role);
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in ["get", "put", "post", "delete"] {
                let Some(operation) = item.get(method) else { continue };
                let route = format!("{} {path}", method.to_uppercase());
                let has_role = operation["x-myelin-roles"].as_array().unwrap().contains(&json!(role));
                let own = path.replace("/v1/tenants/{name}", &format!("/v1/tenants/{role}"));
                let answer = ask_as(&router, Some(&certificate), &method.to_uppercase(), &real(&own)).await;
                let code = (answer.status == 403).then(|| answer.json()["code"].as_str().unwrap().to_owned());
                match code.as_deref() {
                    None => assert!(OF_TENANT.contains(&&*route), "{role}: {route}"),
                    Some("forbidden-role") => assert!(!has_role, "{role}: {route}"),
                    Some("forbidden-tenant") => assert!(has_role && !OF_TENANT.contains(&&*route), "{role}: {route}"),
                    Some(other) => panic!("{role}: {route}: {other}"),
                }
            }
        }
        let other = if role == "viewer" { "developer" } else { "viewer" };
        let ask =
            async |tenant| ask_as(&router, Some(&certificate), "GET", &format!("/v1/tenants/{tenant}")).await.status;
        assert_eq!((ask(role).await, ask(other).await), (200, 403), "{role}");
        let me = ask_as(&router, Some(&certificate), "GET", "/v1/whoami").await.json();
        assert_eq!(me["tenant"], role);
        let own = json!(format!("GET /v1/tenants/{role}"));
        let may = me["may"].as_array().unwrap();
        assert!(may.contains(&own) && may.len() <= OF_TENANT.len(), "only what a tenant may: {me}");
    }
    assert_eq!(ask_as(&router, Some(&admin), "GET", "/v1/tenants/viewer").await.status, 200);
    assert_eq!(ask_as(&router, Some(&admin), "GET", "/v1/whoami").await.json()["tenant"], Value::Null);
    router.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_to_whoever_may_ask_and_done_by_nobody() {
    let router = start().await;
    let viewer = certificate(&router, "viewer");
    let ask = async |certificate, method, path| ask_as(&router, certificate, method, path).await.problem();
    assert_eq!(ask(Some(&viewer), "GET", "/v1/nowhere").await, (404, "unknown-route".into()));
    assert_eq!(ask(Some(&viewer), "PATCH", "/v1/status").await, (405, "method-not-allowed".into()));
    assert_eq!(ask(Some(&viewer), "DELETE", "/v1/rollouts").await, (405, "method-not-allowed".into()));
    assert_eq!(ask(None, "GET", "/v1/nowhere").await, (401, "unauthorized".into()));
    assert_eq!(ask(None, "PATCH", "/v1/status").await, (401, "unauthorized".into()));
    let stranger = certificate(&router, STRANGER);
    assert_eq!(ask(Some(&stranger), "GET", "/v1/nowhere").await, (403, "forbidden".into()));
    router.stop().await;
}

#[tokio::test]
async fn a_refusal_says_who_was_refused_what_and_why_and_is_written_down() {
    let router = start().await;
    let viewer = certificate(&router, "viewer");
    let refused = ask_as(&router, Some(&viewer), "DELETE", "/v1/policies/x").await;
    assert_eq!(refused.problem(), (403, "forbidden-role".into()));
    let detail = refused.json()["detail"].to_string();
    for part in ["spiffe://test.example/service/viewer", "roles: viewer", "security, admin", "[admin] roles", "whoami"]
    {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    let registry = ask_as(&router, Some(&viewer), "DELETE", "/registry/config").await;
    let body = registry.json();
    assert_eq!((registry.status, &body["error_code"], &body["code"]), (403, &json!(403), &json!("forbidden-role")));

    let payloads = certificate(&router, "payloads");
    assert_eq!(ask_as(&router, Some(&payloads), "GET", "/v1/captures/7/file").await.problem().0, 404);
    assert_eq!(ask_as(&router, Some(&payloads), "GET", "/v1/captures/7/file").await.problem().0, 404);
    let security = certificate(&router, "security");
    let entries = ask_as(&router, Some(&security), "GET", "/v1/audit?kind=admin").await.json();
    let entries = entries["entries"].as_array().unwrap();
    let of = |action: &str| entries.iter().filter(|entry| entry["action"] == action).collect::<Vec<_>>();
    let denied = of("DELETE /v1/policies/{name}");
    assert_eq!((denied.len(), &denied[0]["result"]), (1, &json!("forbidden-role")), "{denied:?}");
    assert_eq!(denied[0]["actor"], "spiffe://test.example/service/viewer");
    assert_eq!(denied[0]["detail"], "with the roles: viewer");
    assert_eq!(of("GET /v1/captures/{id}/file").len(), 2, "each look at payloads is an entry of its own");
    router.stop().await;
}

#[tokio::test]
async fn whoever_asks_is_told_who_that_is_and_what_they_may() {
    let router = start().await;
    let releaser = certificate(&router, "releaser");
    let me = ask_as(&router, Some(&releaser), "GET", "/v1/whoami").await.json();
    let identity = Identity::service("test.example", "releaser").unwrap();
    assert_eq!((&me["identity"], &me["by"]), (&json!(identity.as_str()), &json!("certificate")));
    assert_eq!(me["roles"], json!(["releaser"]));
    let may: BTreeMap<&str, bool> = ["POST /v1/rollouts", "PUT /v1/policies/{name}", "GET /v1/status"]
        .map(|route| (route, me["may"].as_array().unwrap().contains(&Value::from(route))))
        .into();
    assert_eq!(may.into_values().collect::<Vec<_>>(), [true, true, false], "by name: GET, POST, PUT");
    router.stop().await;
    // On this machine, with --dev.
    let router = Router::start().await;
    let me = router.show("/v1/whoami").await;
    assert_eq!((&me["identity"], &me["by"], &me["roles"]), (&json!("local"), &json!("local"), &json!(["admin"])));
    tokio::time::timeout(Duration::from_secs(30), router.stop()).await.unwrap();
}
