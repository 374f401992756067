//! With the rule of two nobody makes a filter active alone.

use crate::access::ask_as;
use crate::guest::component;
use crate::http::{Answer, exchange, request};
use crate::world::{Router, files};
use myelin::admin::Token;
use myelin::config::{Role, RoleMap};
use serde_json::json;
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

#[tokio::test]
async fn what_one_has_proposed_another_begins() {
    let router = Router::start_with(|listen| listen.two_person = true).await;
    stage(&router, "x").await;
    let proposed = router.send_json("POST", "/v1/rollouts", &json!({"note": "try it"})).await;
    let (proposal, path) = (proposed.json(), approve(&proposed));
    assert_eq!(proposal["by"], "local");
    let waiting = &router.show("/v1/rollouts").await["proposals"][0];
    assert_eq!((&waiting["digest"], &waiting["note"]), (&proposal["digest"], &json!("try it")));
    assert_eq!(router.show("/v1/status").await["generation"], 0, "nothing is active yet");

    assert_eq!(router.ask("POST", &path, &[], b"").await.problem(), (403, "two-person".into()));
    assert_eq!(router.ask("POST", "/v1/rollouts/1/approve", &[], b"").await.problem(), (404, "not-found".into()));
    // Going back needs nobody's leave: it is asked for at once, and there is nothing to go back to.
    assert_eq!(router.ask("POST", "/v1/rollouts/rollback", &[], b"").await.problem().0, 404);
    router.stop().await;
}

#[tokio::test]
async fn a_digest_is_what_is_approved_and_both_are_in_the_history() {
    let holders = ["ann", "bob"].map(|name| format!("spiffe://test.example/service/{name}").try_into().unwrap());
    let roles = [(Role::Releaser, holders.to_vec()), (Role::Developer, holders.to_vec())];
    let router = Router::start_with(|listen| {
        (listen.dev, listen.two_person, listen.roles) = (false, true, RoleMap(roles.into()));
    })
    .await;
    let [ann, bob] =
        ["ann", "bob"].map(|name| files(&router.dir, &router.ca, name, &router.ca.issue_service(name, 1).unwrap()));
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
async fn the_one_token_is_one_person() {
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
    let path = approve(&ask("/v1/rollouts").await);
    assert_eq!(ask(&path).await.problem(), (403, "two-person".into()));
    router.stop().await;
}
