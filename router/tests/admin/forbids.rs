//! What policies take away from those whose roles allow it.

use crate::access::{ask_as, ask_with};
use crate::world::{Router, files};
use myelin::config::{Role, RoleMap};
use myelin_transport::TlsFiles;
use serde_json::json;

const TEXT: &str = r#"
    forbid (principal, action == Action::"admin", resource is Binding)
      when { resource.name like "prod-*" && context.method != "GET" }
      unless { principal.roles.contains("operator") };
    forbid (principal, action == Action::"admin", resource is Rule) when { resource.name == "held" };
    forbid (principal, action == Action::"admin", resource is Subject) when { resource.name like "bank-*" };
    forbid (principal, action == Action::"admin", resource is Site) when { context.route == "/v1/mesh" };
"#;

async fn start() -> (Router, [TlsFiles; 2]) {
    let service = |name: &str| format!("spiffe://test.example/service/{name}").try_into().unwrap();
    let roles = [
        (Role::Admin, vec![service("admin")]),
        (Role::Operator, vec![service("both")]),
        (Role::Developer, vec![service("both")]),
    ];
    let router =
        Router::start_with(|listen| (listen.dev, listen.roles) = (false, RoleMap(roles.into_iter().collect()))).await;
    let certificate = |name: &str| files(&router.dir, &router.ca, name, &router.ca.issue_service(name, 1).unwrap());
    let certificates = ["admin", "both"].map(certificate);
    (router, certificates)
}

#[tokio::test]
async fn a_policy_narrows_what_roles_allow_and_never_locks_anybody_out_of_policies() {
    let (router, [admin, both]) = start().await;
    let body = json!({"text": TEXT}).to_string();
    let put = ask_with(&router, Some(&admin), "PUT", "/v1/policies/ops", &body).await;
    assert_eq!(put.status, 204, "{}", put.json());
    let binding = json!({"module": "gate@1.0.0", "pattern": "a/**"}).to_string();
    // Also where the name is written otherwise.
    for path in ["/v1/bindings/prod-gate", "/v1/bindings/%70rod-gate"] {
        let refused = ask_with(&router, Some(&admin), "PUT", path, &binding).await;
        let (status, code) = refused.problem();
        assert_eq!((status, &*code), (403, "forbidden-policy"), "{path}");
        assert!(refused.json()["detail"].as_str().unwrap().contains("ops#1"));
    }
    // An operator may; that there is no such module is told by the catalog.
    assert_ne!(ask_with(&router, Some(&both), "PUT", "/v1/bindings/prod-gate", &binding).await.status, 403);
    assert_eq!(ask_as(&router, Some(&admin), "GET", "/v1/bindings/prod-gate").await.status, 404);
    assert_ne!(ask_with(&router, Some(&admin), "PUT", "/v1/bindings/test-gate", &binding).await.status, 403);
    assert_eq!(ask_as(&router, Some(&admin), "GET", "/v1/mesh").await.problem().1, "forbidden-policy");

    // Neither at once nor by a rollout.
    let rule = json!({"pattern": "a/**", "residency": {"sites": ["x"]}});
    let at_once = ask_with(&router, Some(&admin), "PUT", "/v1/topics/held", &rule.to_string()).await;
    assert_eq!(at_once.problem().1, "forbidden-policy");
    let mut named = rule.clone();
    named["name"] = "held".into();
    let rollout = json!({"plan": {}, "changes": {"topics": [named]}}).to_string();
    let rollout = ask_with(&router, Some(&admin), "POST", "/v1/rollouts", &rollout).await;
    assert_eq!(rollout.problem().1, "forbidden-policy", "{}", rollout.json());
    let registry = ask_as(&router, Some(&admin), "GET", "/registry/subjects/bank-value/versions").await;
    assert_eq!((registry.status, registry.json()["code"].as_str()), (403, Some("forbidden-policy")));

    // Whoever forbids everything finds the way back.
    let all = json!({"text": r#"forbid (principal, action == Action::"admin", resource);"#}).to_string();
    assert_eq!(ask_with(&router, Some(&admin), "PUT", "/v1/policies/all", &all).await.status, 204);
    assert_eq!(ask_as(&router, Some(&admin), "GET", "/v1/bindings").await.problem().1, "forbidden-policy");
    assert_eq!(ask_as(&router, Some(&admin), "GET", "/v1/whoami").await.status, 200);
    for name in ["all", "ops"] {
        assert_eq!(ask_as(&router, Some(&admin), "DELETE", &format!("/v1/policies/{name}")).await.status, 204);
    }
    assert_eq!(ask_as(&router, Some(&admin), "GET", "/v1/bindings").await.status, 200);
    router.stop().await;
}

#[tokio::test]
async fn a_policy_that_names_what_nobody_can_be_is_refused_and_may_not_come_with_a_rollout() {
    let (router, [admin, _]) = start().await;
    for text in [
        r#"forbid (principal == Service::"service/shop", action, resource);"#,
        r#"forbid (principal, action, resource) when { principal in [Service::"shop"] };"#,
        r#"forbid (principal == Caller::"ci", action == Action::"admin", resource);"#,
        r#"forbid (principal, action, resource == Topic::"/x//");"#,
    ] {
        for path in ["/v1/policies/typo?dry-run=true", "/v1/policies/typo"] {
            let refused = ask_with(&router, Some(&admin), "PUT", path, &json!({"text": text}).to_string()).await;
            assert_eq!(refused.problem(), (400, "invalid-policy".into()), "{path} {text}");
        }
    }
    let list = ask_as(&router, Some(&admin), "GET", "/v1/policies").await.json();
    assert_eq!(list["policies"], json!([]));
    router.stop().await;
}
