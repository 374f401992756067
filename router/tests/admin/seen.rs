//! Which version of a schema a filter gets that names none.

use crate::contract::publish;
use crate::guest::asking_component;
use crate::world::Router;
use serde_json::{Value, json};

/// What the filter was told when it asked with the newest batch.
async fn seen(router: &Router) -> String {
    publish(router, 1).await;
    let logs = router.show("/v1/logs").await;
    logs["lines"].as_array().unwrap().last().unwrap()["message"].as_str().unwrap().to_owned()
}

async fn register(router: &Router, text: &str) {
    let body = json!({"schema": text, "schemaType": "JSON"});
    assert_eq!(router.send_json("POST", "/registry/subjects/quiet/versions", &body).await.status, 200, "{text}");
}

/// Stages the binding with this configuration, and asks for it to become active: what is answered.
async fn bind(router: &Router, config: Value) -> u16 {
    let binding = json!({"module": "asks@1.0.0", "pattern": "**", "config": config});
    assert_eq!(router.send_json("PUT", "/v1/bindings/x", &binding).await.status, 202);
    router.ask("POST", "/v1/rollouts", &[], b"").await.status
}

#[tokio::test]
async fn a_new_version_comes_with_a_rollout_of_the_binding_and_goes_with_its_rollback() {
    let router = Router::start().await;
    let level = json!({"compatibility": "NONE"});
    assert_eq!(router.send_json("PUT", "/registry/config", &level).await.status, 200);
    assert_eq!(router.upload("asks", "1.0.0", &asking_component("1.0.0")).await.status, 201);
    assert_eq!(bind(&router, json!(1)).await, 200);
    assert_eq!(seen(&router).await, "no");
    register(&router, "true").await;
    assert_eq!(seen(&router).await, "no", "the first is a new version as well");
    assert_eq!(bind(&router, json!(2)).await, 200);
    assert_eq!(seen(&router).await, "true");

    register(&router, "{}").await;
    assert_eq!(seen(&router).await, "true");
    // Whoever looks at what is staged sees no difference: then there is none.
    assert_eq!(bind(&router, json!(2)).await, 409);
    let other = json!({"module": "asks@1.0.0", "pattern": "other/**"});
    assert_eq!(router.send_json("PUT", "/v1/bindings/y", &other).await.status, 202);
    assert_eq!(router.ask("POST", "/v1/rollouts", &[], b"").await.status, 200);
    assert_eq!(seen(&router).await, "true", "nor does another binding bring it");
    // Kept for whoever has it: it is gone for those that come.
    assert_eq!(router.ask("DELETE", "/registry/subjects/quiet/versions/1", &[], b"").await.status, 200);
    assert_eq!(seen(&router).await, "true");

    assert_eq!(bind(&router, json!(3)).await, 200);
    assert_eq!(seen(&router).await, "{}");
    assert_eq!(router.ask("POST", "/v1/rollouts/rollback", &[], b"").await.status, 200);
    assert_eq!(seen(&router).await, "true");
    router.stop().await;
}
