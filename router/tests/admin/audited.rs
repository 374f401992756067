//! What the audit log says of each route: changes one by one, reads together, whatever their method.

use crate::access::{ask_as, ask_with};
use crate::roles::{certificate, real, start};
use crate::world::Router;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The questions that do not fit into a path. Whatever else is no GET changes something: a route that is added here is told
/// by the number of its uses only.
const QUESTIONS: [&str; 4] = [
    "POST /registry/compatibility/subjects/{subject}/versions",
    "POST /registry/compatibility/subjects/{subject}/versions/{version}",
    "POST /registry/subjects/{subject}",
    "POST /v1/policies/explain",
];
/// How often each route is asked.
const TIMES: u64 = 3;

/// Entries about requests, and how many requests they tell of, by action.
async fn told(router: &Router) -> BTreeMap<String, (u64, u64)> {
    let page = router.show("/v1/audit?kind=admin&limit=1000").await;
    let mut told = BTreeMap::new();
    for entry in page["entries"].as_array().unwrap() {
        let (entries, count) = told.entry(entry["action"].as_str().unwrap().to_owned()).or_default();
        *entries += 1;
        *count += entry["count"].as_u64().unwrap();
    }
    told
}

#[tokio::test]
async fn only_what_changes_nothing_is_counted_together() {
    let router = Router::start().await;
    let document = router.show("/openapi.json").await;
    let paths = document["paths"].as_object().unwrap();
    let routes = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys().filter(|method| ["put", "post", "delete"].contains(&&***method));
        methods.map(move |method| (method.to_uppercase(), path))
    });
    let routes: Vec<_> = routes.collect();
    for (method, path) in &routes {
        for _ in 0..TIMES {
            router.send_json(method, &real(path), &Value::Object(serde_json::Map::new())).await;
        }
    }
    let all_are_told = async {
        loop {
            let told = told(&router).await;
            if routes.iter().all(|(method, path)| told.contains_key(&format!("{method} {path}"))) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), all_are_told).await.unwrap();
    let mut counted = BTreeSet::new();
    for (method, path) in &routes {
        let action = format!("{method} {path}");
        match told[&action] {
            // The first at once; the others with the minute.
            (1, 1) => counted.insert(action),
            each => {
                assert_eq!(each, (TIMES, TIMES), "{action}");
                continue;
            }
        };
    }
    assert_eq!(counted, QUESTIONS.map(String::from).into());
    router.stop().await;
}

#[tokio::test]
async fn whoever_may_not_ask_a_question_is_written_down_each_time_with_what_was_sent() {
    let router = start().await;
    let (payloads, security) = (certificate(&router, "payloads"), certificate(&router, "security"));
    for question in QUESTIONS {
        let path = real(question.strip_prefix("POST ").unwrap());
        for _ in 0..TIMES {
            assert_eq!(ask_with(&router, Some(&payloads), "POST", &path, "{}").await.status, 403, "{question}");
        }
    }
    let page = ask_as(&router, Some(&security), "GET", "/v1/audit?kind=admin&failed=true").await.json();
    for question in QUESTIONS {
        let entries = page["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == question);
        let refused: Vec<_> = entries.collect();
        assert_eq!(refused.len() as u64, TIMES, "{question}: {refused:?}");
        assert!(refused.iter().all(|entry| entry["result"] == "forbidden-role" && entry["count"] == 1), "{refused:?}");
    }
    router.stop().await;
}
