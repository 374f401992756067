//! With the rule of two nobody makes a filter active alone.

use crate::access::ask_as;
use crate::guest::component;
use crate::http::{exchange, request};
use crate::world::{Router, files};
use myelin::admin::Token;
use myelin::config::{Role, RoleMap};
use serde_json::json;
use tokio::net::TcpStream;

const TOKEN: &str = "correct-horse-battery-staple";

#[tokio::test]
async fn what_one_has_proposed_another_begins() {
    let router = Router::start_with(|listen| listen.two_person = true).await;
    assert_eq!(router.upload("quiet", "1.0.0", &component("1.0.0")).await.status, 201);
    let binding = json!({"module": "quiet@1.0.0", "pattern": "**"});
    assert_eq!(router.send_json("PUT", "/v1/bindings/x", &binding).await.status, 202);
    let proposed = router.send_json("POST", "/v1/rollouts", &json!({"note": "try it"})).await;
    let proposal = proposed.json();
    assert_eq!((proposed.status, &proposal["proposal"], &proposal["by"]), (202, &json!(1), &json!("local")));
    assert_eq!(router.show("/v1/rollouts").await["proposals"][0]["digest"], proposal["digest"]);
    assert_eq!(router.show("/v1/status").await["generation"], 0, "nothing is active yet");

    let own = router.ask("POST", "/v1/rollouts/1/approve", &[], b"").await;
    assert_eq!(own.problem(), (403, "two-person".into()));
    assert_eq!(router.ask("POST", "/v1/rollouts/2/approve", &[], b"").await.problem(), (404, "not-found".into()));
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
    let proposed = ask_as(&router, Some(&ann), "POST", "/v1/rollouts").await;
    assert_eq!((proposed.status, &proposed.json()["proposal"]), (202, &json!(1)));
    let own = ask_as(&router, Some(&ann), "POST", "/v1/rollouts/1/approve").await;
    assert_eq!(own.problem(), (403, "two-person".into()));

    // Somebody stages something meanwhile: what was proposed is no more.
    let module = component("1.0.0");
    let world = router.node.world();
    let (name, version) = ("quiet".parse().unwrap(), "1.0.0".parse().unwrap());
    world.add_module(name, version, module.into(), "ops".into()).await.unwrap();
    let binding = serde_json::from_value(json!({"name": "x", "module": "quiet@1.0.0", "pattern": "**"})).unwrap();
    world.stage(binding, None, "ops".into()).await.unwrap();
    let stale = ask_as(&router, Some(&bob), "POST", "/v1/rollouts/1/approve").await;
    assert_eq!(stale.problem(), (409, "proposal-stale".into()));
    let gone = ask_as(&router, Some(&bob), "POST", "/v1/rollouts/1/approve").await;
    assert_eq!(gone.problem(), (404, "not-found".into()));

    assert_eq!(ask_as(&router, Some(&ann), "POST", "/v1/rollouts").await.json()["proposal"], 2);
    let begun = ask_as(&router, Some(&bob), "POST", "/v1/rollouts/2/approve").await;
    let both = "spiffe://test.example/service/ann, approved by spiffe://test.example/service/bob";
    assert_eq!((begun.status, &begun.json()["actor"]), (200, &json!(both)), "{begun:?}");
    let rollouts = ask_as(&router, Some(&ann), "GET", "/v1/rollouts").await.json();
    let newest = rollouts["rollouts"].as_array().unwrap().last().unwrap();
    assert_eq!((&rollouts["proposals"], &newest["actor"]), (&json!([]), &json!(both)));
    router.stop().await;
}

#[tokio::test]
async fn the_one_token_is_one_person() {
    let router = Router::start_with(|listen| {
        (listen.dev, listen.two_person, listen.token) = (false, true, Some(Token::new(TOKEN).unwrap()));
    })
    .await;
    let bearer = format!("Bearer {TOKEN}");
    let ask = async |path: &str| {
        let stream = TcpStream::connect(router.addr()).await.unwrap();
        let bytes = request("POST", path, &router.addr().to_string(), &[("Authorization", &bearer)], b"");
        exchange(stream, &bytes).await.unwrap()
    };
    assert_eq!(ask("/v1/rollouts").await.status, 202);
    assert_eq!(ask("/v1/rollouts/1/approve").await.problem(), (403, "two-person".into()));
    router.stop().await;
}
