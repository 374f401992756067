//! What filters logged: looked at, narrowed down, followed.

use crate::contract::publish;
use crate::guest::component;
use crate::world::Router;
use serde_json::{Value, json};
use std::sync::Arc;

/// Binds the filter, which logs a line on each worker with its first batch after it was set up.
async fn bind(router: &Router, name: &str, module: &str) {
    let binding = json!({"module": module, "pattern": "**"});
    assert_eq!(router.send_json("PUT", &format!("/v1/bindings/{name}"), &binding).await.status, 202);
    assert_eq!(router.ask("POST", "/v1/rollouts", &[], b"").await.status, 200);
}

fn lines(logs: &Value) -> Vec<(u64, &str, &str)> {
    let lines = logs["lines"].as_array().unwrap().iter();
    lines
        .map(|line| {
            assert_eq!((&line["message"], &line["level"]), (&json!("set up"), &json!("info")));
            let (module, binding) = (line["module"].as_str().unwrap(), line["binding"].as_str().unwrap());
            (line["number"].as_u64().unwrap(), module, binding)
        })
        .collect()
}

#[tokio::test]
async fn lines_are_found_by_module_and_by_binding_and_only_once_by_a_follower() {
    let router = Router::start().await;
    for version in ["1.0.0", "1.0.1"] {
        assert_eq!(router.upload("quiet", version, &component(version)).await.status, 201);
    }
    let empty = router.show("/v1/logs").await;
    assert_eq!((&empty["lines"], &empty["next"], &empty["missed"]), (&json!([]), &json!(0), &json!(false)));

    bind(&router, "x", "quiet@1.0.0").await;
    publish(&router, 10).await;
    let first = router.show("/v1/logs").await;
    let found = lines(&first);
    assert!(!found.is_empty() && found.iter().all(|line| (line.1, line.2) == ("quiet@1.0.0", "x")), "{first}");
    assert_eq!(first["next"], found.last().unwrap().0);
    for query in ["binding=x", "module=quiet", "module=quiet@1.0.0", "module=quiet&binding=x"] {
        assert_eq!(router.show(&format!("/v1/logs?{query}")).await, first, "{query}");
    }
    let other = router.show("/v1/logs?module=quiet@1.0.1").await;
    assert_eq!((&other["lines"], &other["next"]), (&json!([]), &first["next"]));

    // The version changes, and the binding is followed all the same.
    bind(&router, "x", "quiet@1.0.1").await;
    publish(&router, 10).await;
    let next = router.show(&format!("/v1/logs?binding=x&after={}", first["next"])).await;
    assert!(!lines(&next).is_empty() && lines(&next).iter().all(|line| line.1 == "quiet@1.0.1"), "{next}");
    assert_eq!(router.show(&format!("/v1/logs?after={}", next["next"])).await["lines"], json!([]));
    router.stop().await;
}

#[tokio::test]
async fn a_follower_waits_until_there_is_something() {
    let router = Arc::new(Router::start().await);
    assert_eq!(router.upload("quiet", "1.0.0", &component("1.0.0")).await.status, 201);
    bind(&router, "x", "quiet@1.0.0").await;
    let follower = router.clone();
    let waiting = tokio::spawn(async move { follower.show("/v1/logs?binding=x&wait_ms=10000").await });
    publish(&router, 10).await;
    let logs = waiting.await.unwrap();
    assert!(!lines(&logs).is_empty(), "{logs}");
    let router = Arc::into_inner(router).unwrap();
    router.stop().await;
}

#[tokio::test]
async fn what_is_not_there_or_not_understood_is_said() {
    let router = Router::start().await;
    for (query, status, code) in [
        ("module=none", 404, "not-found"),
        ("module=none@1.0.0", 404, "not-found"),
        ("binding=none", 404, "not-found"),
        ("module=A", 400, "invalid-name"),
        ("module=a@1", 400, "invalid-version"),
        ("binding=../x", 400, "invalid-name"),
        ("after=-1", 400, "invalid-query"),
        ("after=x", 400, "invalid-query"),
        ("lines=5", 400, "invalid-query"),
    ] {
        let answer = router.get(&format!("/v1/logs?{query}")).await;
        assert_eq!(answer.problem(), (status, code.into()), "{query}");
    }
    router.stop().await;
}
