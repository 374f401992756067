//! What is told of a filter's faults, and to whom.

use crate::access::{ask_as, ask_with, upload_as};
use crate::contract::publish;
use crate::guest::faulty;
use crate::roles::{certificate, start};
use serde_json::json;

#[tokio::test]
async fn what_a_faulty_filter_put_out_is_for_those_who_may_read_what_filters_write() {
    let router = start().await;
    let admin = certificate(&router, "admin");
    assert_eq!(upload_as(&router, &admin, ("quiet", "1.0.0"), &faulty("1.0.0")).await.status, 201);
    let binding = json!({"module": "quiet@1.0.0", "pattern": "orders/**"}).to_string();
    assert_eq!(ask_with(&router, Some(&admin), "PUT", "/v1/bindings/x", &binding).await.status, 202);
    assert_eq!(ask_as(&router, Some(&admin), "POST", "/v1/rollouts").await.status, 200);
    publish(&router, 20).await;
    for (role, is_shown) in [
        ("admin", true),
        ("developer", true),
        ("payloads", false),
        ("viewer", false),
        ("releaser", false),
        ("operator", false),
        ("security", false),
    ] {
        let shown = certificate(&router, role);
        for path in ["/v1/bindings/x", "/v1/modules/quiet/versions/1.0.0"] {
            let told = ask_as(&router, Some(&shown), "GET", path).await;
            if role == "payloads" {
                assert_eq!(told.problem(), (403, "forbidden-role".into()), "it is given beside another role");
                continue;
            }
            let told = told.json();
            let binding = if path.starts_with("/v1/modules") { &told["bindings"][0] } else { &told };
            let fault = &binding["stats"]["last_fault"];
            let detail = fault["detail"].as_str().unwrap_or_else(|| panic!("{role} {path}: {told}"));
            assert_eq!(fault["code"], "malformed-output");
            assert_eq!(detail.contains("verdicts for"), is_shown, "{role} {path}: {detail}");
            assert_ne!(detail.contains("developer or payloads"), is_shown, "{role} {path}: {detail}");
            assert!(fault.get("may_quote").is_none(), "{fault}");
            // Eight of them quarantine it: everybody reads why, and nothing of what it put out.
            if path.starts_with("/v1/modules") && !told["quarantine"].is_null() {
                let reason = told["quarantine"]["reason"].as_str().unwrap();
                assert!(reason.starts_with("malformed-output;") && !reason.contains("verdicts for"), "{reason}");
            }
        }
    }
    router.stop().await;
}
