//! Who may approve what a module can do beyond the one before it.

use crate::access::{ask_with, upload_as};
use crate::guest::component;
use crate::world::{Router, files};
use myelin::config::{Role, RoleMap};
use serde_json::json;

/// Who makes filters, and two who make them and have one of the roles that look at them again.
const PEOPLE: [&str; 4] = ["dev", "lead", "guard", "ops"];

async fn start() -> Router {
    let named = |names: &[&str]| {
        names.iter().map(|name| format!("spiffe://test.example/service/{name}").try_into().unwrap()).collect()
    };
    let roles = [
        (Role::Developer, named(&["dev", "lead", "guard"])),
        (Role::Releaser, named(&["lead", "ops"])),
        (Role::Security, named(&["guard"])),
    ];
    Router::start_with(|listen| (listen.dev, listen.roles) = (false, RoleMap(roles.into()))).await
}

#[tokio::test]
async fn whoever_only_makes_filters_approves_none_of_their_capabilities() {
    let router = start().await;
    let [dev, lead, guard, ops] =
        PEOPLE.map(|name| files(&router.dir, &router.ca, name, &router.ca.issue_service(name, 1).unwrap()));
    for (name, version) in [("quiet", "1.0.0"), ("quiet", "1.0.1"), ("other", "1.0.0")] {
        assert_eq!(upload_as(&router, &dev, (name, version), &component(version)).await.status, 201);
    }
    let bind = async |who, name: &str, module: &str, approved: &[&str]| {
        let body = json!({"module": module, "pattern": "orders/**", "consent": {"capabilities": approved}});
        let answer = ask_with(&router, Some(who), "PUT", &format!("/v1/bindings/{name}"), &body.to_string()).await;
        if answer.status == 202 { (202, String::new()) } else { answer.problem() }
    };
    let (good, refused) = ((202, String::new()), (403, "forbidden-role".to_owned()));
    assert_eq!(bind(&dev, "check", "quiet@1.0.0", &[]).await, good, "a binding that approves nothing");
    assert_eq!(bind(&dev, "check", "quiet@1.0.0", &["log"]).await, refused);
    assert_eq!(bind(&ops, "check", "quiet@1.0.0", &["log"]).await, refused, "it binds as well");
    assert_eq!(bind(&lead, "check", "quiet@1.0.0", &["log"]).await, good);
    // What was approved stays so for the module there, and for nothing else.
    assert_eq!(bind(&dev, "check", "quiet@1.0.1", &["log"]).await, good);
    assert_eq!(bind(&dev, "check", "quiet@1.0.1", &["log", "seen"]).await, refused);
    assert_eq!(bind(&dev, "check", "other@1.0.0", &["log"]).await, refused);
    assert_eq!(bind(&dev, "check2", "quiet@1.0.0", &["log"]).await, refused);
    assert_eq!(bind(&guard, "check2", "quiet@1.0.0", &["log", "seen"]).await, good);
    // Nor does it come back by itself once it was taken away.
    assert_eq!(bind(&dev, "check", "quiet@1.0.1", &[]).await, good);
    assert_eq!(bind(&dev, "check", "quiet@1.0.1", &["log"]).await, refused);
    let body = json!({"module": "quiet@1.0.1", "pattern": "orders/**", "consent": {"capabilities": ["log"]}});
    let told = ask_with(&router, Some(&dev), "PUT", "/v1/bindings/check", &body.to_string()).await.json();
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("capabilities of quiet@1.0.1 (`log`) is for: releaser, security, admin"), "{detail}");
    router.stop().await;
}
