//! Rules and policies that a rollout brings: who may let them come, and what is no such thing.

use crate::access::ask_with;
use crate::world::{Router, files};
use myelin::config::{Role, RoleMap};
use serde_json::{Value, json};

/// A releaser, one who makes rules as well, and one who makes policies as well.
const PEOPLE: [&str; 3] = ["releaser", "developer", "security"];

async fn start() -> Router {
    let named = |names: &[&str]| {
        names.iter().map(|name| format!("spiffe://test.example/service/{name}").try_into().unwrap()).collect()
    };
    let roles = [
        (Role::Releaser, named(&PEOPLE)),
        (Role::Developer, named(&["developer"])),
        (Role::Security, named(&["security"])),
    ];
    Router::start_with(|listen| (listen.dev, listen.roles) = (false, RoleMap(roles.into()))).await
}

#[tokio::test]
async fn a_rollout_brings_only_what_who_starts_it_may_change_at_once() {
    let router = start().await;
    let certificates =
        PEOPLE.map(|name| files(&router.dir, &router.ca, name, &router.ca.issue_service(name, 1).unwrap()));
    let rule = json!({"name": "eu", "pattern": "eu/**", "residency": {"regions": ["eu-*"]}});
    let policy = json!({"name": "all", "text": "permit (principal, action, resource);"});
    // There are no sites to roll out over, which is told to whoever may roll out.
    let (refused, let_in) = ((403, "forbidden-role"), (409, "conflict"));
    for (changes, wanted) in [
        (json!({"topics": [rule]}), [refused, let_in, refused]),
        (json!({"policies": [policy]}), [refused, refused, let_in]),
        (json!({"topics": [rule], "policies": [policy]}), [refused, refused, refused]),
    ] {
        for ((certificate, wanted), name) in certificates.iter().zip(wanted).zip(PEOPLE) {
            let answer =
                ask_with(&router, Some(certificate), "POST", "/v1/rollouts", &json!({"changes": changes}).to_string())
                    .await;
            let (status, code) = answer.problem();
            assert_eq!((status, &*code), wanted, "{name}: {changes}");
        }
    }
    // What goes is as much of a change as what comes; and without changes all is as it was.
    let removal = json!({"changes": {"remove_policies": ["all"]}});
    assert_eq!(
        ask_with(&router, Some(&certificates[1]), "POST", "/v1/rollouts", &removal.to_string()).await.problem().1,
        "forbidden-role"
    );
    assert_eq!(
        ask_with(&router, Some(&certificates[0]), "POST", "/v1/rollouts", r#"{"changes": {}}"#).await.status,
        409
    );
    router.stop().await;
}

#[tokio::test]
async fn what_is_no_change_is_refused_before_anything_begins() {
    let router = Router::start().await;
    let post = async |body: Value| router.send_json("POST", "/v1/rollouts", &body).await.problem();
    for body in [
        json!({"only_changes": true}),
        json!({"changes": {"rules": []}}),
        json!({"changes": {"topics": [{"name": "a", "pattern": "a", "colour": "red"}]}}),
        json!({"changes": {"policies": [{"name": "a", "text": "", "more": 1}]}}),
        json!({"changes": {"remove_topics": ["No Name"]}}),
    ] {
        assert_eq!(post(body.clone()).await, (400, "invalid-body".into()), "{body}");
    }
    router.stop().await;
}
