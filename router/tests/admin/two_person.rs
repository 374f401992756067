//! With the rule of two nobody makes a filter active alone.

use crate::access::{ask_as, ask_with};
use crate::guest::component;
use crate::http::{Answer, exchange, request};
use crate::world::{Router, files};
use myelin::admin::Token;
use myelin::config::{Role, RoleMap};
use myelin_transport::TlsFiles;
use serde_json::{Value, json};
use tokio::net::TcpStream;

const TOKEN: &str = "correct-horse-battery-staple";

/// Stages a binding, past the admin API.
async fn stage(router: &Router, name: &str) {
    let world = router.node.world();
    let (module, version) = ("quiet".parse().unwrap(), "1.0.0".parse().unwrap());
    world.add_module(module, version, component("1.0.0").into(), "ops".into()).await.unwrap();
    let binding = json!({"name": name, "module": "quiet@1.0.0", "pattern": "**"});
    world.stage(serde_json::from_value(binding).unwrap(), None, "ops".into()).await.unwrap();
}

/// The path that approves what an answer proposes.
fn approve(proposed: &Answer) -> String {
    let proposal = proposed.json();
    assert!(proposed.status == 202 && proposal["proposal"].is_u64(), "{proposed:?}");
    format!("/v1/rollouts/{}/approve", proposal["proposal"])
}

/// A router that wants two persons, and the two.
async fn with_two() -> (Router, [TlsFiles; 2]) {
    let holders = ["ann", "bob"].map(|name| format!("spiffe://test.example/service/{name}").try_into().unwrap());
    let roles =
        [Role::Releaser, Role::Developer, Role::Security].map(|role| (role, holders.to_vec())).into_iter().collect();
    let router = Router::start_with(|listen| {
        (listen.dev, listen.two_person, listen.roles) = (false, true, RoleMap(roles));
    })
    .await;
    let two =
        ["ann", "bob"].map(|name| files(&router.dir, &router.ca, name, &router.ca.issue_service(name, 1).unwrap()));
    (router, two)
}

#[tokio::test]
async fn whoever_is_on_the_machine_is_neither_of_the_two() {
    let router = Router::start_with(|listen| listen.two_person = true).await;
    stage(&router, "x").await;
    let proposed = router.send_json("POST", "/v1/rollouts", &json!({"note": "try it"})).await;
    assert_eq!(proposed.problem(), (403, "two-person".into()));
    assert_eq!(router.ask("POST", "/v1/rollouts/1/approve", &[], b"").await.problem(), (403, "two-person".into()));
    assert_eq!(router.show("/v1/status").await["generation"], 0, "nothing is active");
    // Going back needs nobody's leave: it is asked for at once, and there is nothing to go back to.
    assert_eq!(router.ask("POST", "/v1/rollouts/rollback", &[], b"").await.problem().0, 404);
    router.stop().await;
}

#[tokio::test]
async fn what_is_approved_is_seen_and_may_be_withdrawn() {
    let (router, [ann, bob]) = with_two().await;
    stage(&router, "x").await;
    let bad = ask_with(&router, Some(&ann), "POST", "/v1/rollouts", r#"{"note":"a\nb"}"#).await;
    assert!(
        bad.problem() == (400, "invalid-body".into()) && bad.json()["detail"].to_string().contains("note"),
        "{bad:?}"
    );
    let proposed = ask_with(&router, Some(&ann), "POST", "/v1/rollouts", r#"{"note":"try it"}"#).await;
    let path = approve(&proposed);
    let waiting = ask_as(&router, Some(&bob), "GET", "/v1/rollouts").await.json()["proposals"][0].clone();
    assert_eq!(
        (&waiting["note"], &waiting["only_changes"], &waiting["plan"]),
        (&json!("try it"), &json!(false), &Value::Null)
    );
    let filter = &waiting["filters"][0];
    assert_eq!((&filter["binding"], &filter["action"]), (&json!("x"), &json!("added")));
    assert!(filter["module"] == "quiet@1.0.0" && filter["digest"].as_str().is_some_and(|digest| digest.len() == 64));
    let whole = ask_as(&router, Some(&bob), "GET", &path).await.json();
    assert_eq!((&whole["proposal"], &whole["content"]["policies"]), (&waiting["proposal"], &json!([])));
    let binding = &whole["bindings"][0];
    let all = ["module", "pattern", "stage", "order", "config", "limits", "on_fault", "grant", "policy"];
    assert!(all.iter().all(|field| binding["after"].get(field).is_some()), "{binding}");
    assert_eq!((&binding["before"], &binding["digest_after"]), (&Value::Null, &filter["digest"]));

    assert_eq!(ask_as(&router, Some(&bob), "DELETE", &path).await.status, 204);
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(ask_as(&router, Some(&bob), method, &path).await.problem(), (404, "not-found".into()), "{method}");
    }
    router.stop().await;
}

#[tokio::test]
async fn who_asks_again_for_the_same_has_the_same_proposal() {
    let (router, [ann, bob]) = with_two().await;
    stage(&router, "x").await;
    let ask = async |who: &TlsFiles, body: &str| {
        let proposed = ask_with(&router, Some(who), "POST", "/v1/rollouts", body).await;
        approve(&proposed);
        proposed.json()["proposal"].clone()
    };
    let first = ask(&ann, r#"{"note":"try it"}"#).await;
    let revision = async || ask_as(&router, Some(&ann), "GET", "/v1/bindings").await.json()["revision"].clone();
    let before = revision().await;
    assert_eq!(ask(&ann, r#"{"note":"try it"}"#).await, first, "a script may ask twice");
    assert_eq!(revision().await, before, "and nothing is written down for it");
    // Another reason, another person, and other filters are something else.
    let other = ask(&ann, r#"{"note":"for another reason"}"#).await;
    assert_ne!(other, first);
    assert_ne!(ask(&bob, r#"{"note":"for another reason"}"#).await, other);
    stage(&router, "y").await;
    assert_ne!(ask(&ann, r#"{"note":"for another reason"}"#).await, other);
    router.stop().await;
}

#[tokio::test]
async fn the_second_person_sees_what_each_field_was_and_will_be() {
    let (router, [ann, bob]) = with_two().await;
    stage(&router, "x").await;
    let first = approve(&ask_as(&router, Some(&ann), "POST", "/v1/rollouts").await);
    assert_eq!(ask_as(&router, Some(&bob), "POST", &first).await.status, 200);
    let body = r#"{"module":"quiet@1.0.0","pattern":"orders/**","order":7,"on_fault":"pass","config":{"tenants":["evil"]},
        "grant":{"topics":["audit/*","**"],"sites":[]}}"#;
    assert_eq!(ask_with(&router, Some(&ann), "PUT", "/v1/bindings/x", body).await.status, 202);
    let path = approve(&ask_as(&router, Some(&ann), "POST", "/v1/rollouts").await);
    let whole = ask_as(&router, Some(&bob), "GET", &path).await.json();
    let binding = &whole["bindings"][0];
    assert_eq!((&binding["binding"], &binding["action"]), (&json!("x"), &json!("changed")), "{whole}");
    assert_eq!(binding["fields"], json!(["pattern", "order", "config", "on_fault", "grant"]));
    let changes = [
        ("pattern", json!("**"), json!("orders/**")),
        ("order", json!(0), json!(7)),
        ("on_fault", json!("reject"), json!("pass")),
        ("config", Value::Null, json!({"tenants": ["evil"]})),
        ("grant", json!({"topics": [], "sites": []}), json!({"topics": ["audit/*", "**"], "sites": []})),
    ];
    for (field, before, after) in &changes {
        assert_eq!((&binding["before"][field], &binding["after"][field]), (before, after), "{field}");
    }
    assert_eq!(binding["digest_before"], binding["digest_after"]);
    assert_eq!(ask_as(&router, Some(&bob), "POST", &path).await.status, 200);

    // What goes is shown as well: it may be what kept something out.
    assert_eq!(ask_as(&router, Some(&ann), "DELETE", "/v1/bindings/x").await.status, 202);
    let path = approve(&ask_as(&router, Some(&ann), "POST", "/v1/rollouts").await);
    let whole = ask_as(&router, Some(&bob), "GET", &path).await.json();
    let binding = &whole["bindings"][0];
    assert_eq!((&binding["action"], &binding["before"]["order"]), (&json!("removed"), &json!(7)), "{whole}");
    assert!(binding["after"].is_null());
    router.stop().await;
}

#[tokio::test]
async fn a_digest_is_what_is_approved_and_both_are_in_the_history() {
    let (router, [ann, bob]) = with_two().await;
    let nothing = ask_as(&router, Some(&ann), "POST", "/v1/rollouts").await;
    assert_eq!(nothing.problem(), (409, "conflict".into()), "nobody is asked to approve nothing");
    stage(&router, "x").await;
    let first = approve(&ask_as(&router, Some(&ann), "POST", "/v1/rollouts").await);
    assert_eq!(ask_as(&router, Some(&ann), "POST", &first).await.problem(), (403, "two-person".into()));

    // Somebody stages something else meanwhile: what was proposed is no more.
    stage(&router, "y").await;
    assert_eq!(ask_as(&router, Some(&bob), "POST", &first).await.problem(), (409, "proposal-stale".into()));
    assert_eq!(ask_as(&router, Some(&ann), "GET", "/v1/rollouts").await.json()["proposals"], json!([]));

    let second = approve(&ask_as(&router, Some(&ann), "POST", "/v1/rollouts").await);
    let begun = ask_as(&router, Some(&bob), "POST", &second).await;
    let both = "spiffe://test.example/service/ann, approved by spiffe://test.example/service/bob";
    assert_eq!((begun.status, &begun.json()["actor"]), (200, &json!(both)), "{begun:?}");
    let rollouts = ask_as(&router, Some(&ann), "GET", "/v1/rollouts").await.json();
    let newest = rollouts["rollouts"].as_array().unwrap().last().unwrap();
    assert_eq!((&rollouts["proposals"], &newest["actor"]), (&json!([]), &json!(both)));
    assert_eq!(
        ask_as(&router, Some(&bob), "POST", &second).await.problem(),
        (404, "not-found".into()),
        "it begins once"
    );
    router.stop().await;
}

#[tokio::test]
async fn the_one_token_is_no_person() {
    let router = Router::start_with(|listen| {
        (listen.dev, listen.two_person, listen.token) = (false, true, Some(Token::new(TOKEN).unwrap()));
    })
    .await;
    stage(&router, "x").await;
    let bearer = format!("Bearer {TOKEN}");
    let ask = async |path: &str| {
        let stream = TcpStream::connect(router.addr()).await.unwrap();
        let bytes = request("POST", path, &router.addr().to_string(), &[("Authorization", &bearer)], b"");
        exchange(stream, &bytes).await.unwrap()
    };
    for path in ["/v1/rollouts", "/v1/rollouts/1/approve"] {
        assert_eq!(ask(path).await.problem(), (403, "two-person".into()), "{path}");
    }
    router.stop().await;
}
