//! The schema registry, as clients of registries ask it.

use crate::http::Answer;
use crate::world::Router;
use myelin::admin::Token;
use serde_json::{Value, json};

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// A record with these fields, each without a default, and more that have one.
fn order(fields: &[&str], optional: &[&str]) -> String {
    let plain = fields.iter().map(|name| json!({"name": name, "type": "string"}));
    let optional = optional.iter().map(|name| json!({"name": name, "type": "string", "default": ""}));
    json!({"type": "record", "name": "Order", "fields": plain.chain(optional).collect::<Vec<_>>()}).to_string()
}

impl Router {
    async fn registry(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let path = format!("/registry{path}");
        let answer = self.ask(method, &path, &[("Content-Type", MEDIA_TYPE)], body.as_bytes()).await;
        assert_eq!(answer.header("content-type"), Some(MEDIA_TYPE), "{method} {path}: {answer:?}");
        answer
    }

    /// What the registry answers to a request that is right.
    async fn tells(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.registry(method, path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        answer.json()
    }

    async fn sees(&self, path: &str) -> Value {
        self.tells("GET", path, None).await
    }

    /// Status and number of a refusal, which must be whole.
    async fn refuses(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, u64) {
        let answer = self.registry(method, path, body).await;
        let told = answer.json();
        let message = told["message"].as_str().unwrap();
        assert!(message.len() > 10 && message.len() < 20_000, "{message}");
        assert!(!told["code"].as_str().unwrap().is_empty());
        (answer.status, told["error_code"].as_u64().unwrap())
    }

    async fn register(&self, subject: &str, body: &Value) -> (u64, u64) {
        let made = self.tells("POST", &format!("/subjects/{subject}/versions"), Some(body)).await;
        (made["id"].as_u64().unwrap(), made["version"].as_u64().unwrap())
    }
}

fn avro(text: &str) -> Value {
    json!({"schema": text})
}

#[tokio::test]
async fn a_schema_is_registered_found_compared_and_deleted() {
    let router = Router::start().await;
    assert_eq!(router.sees("/subjects").await, json!([]));
    let (first, second) = (avro(&order(&["id"], &[])), avro(&order(&["id"], &["note"])));
    assert_eq!(router.register("orders%2Feu-value", &first).await, (1, 1));
    assert_eq!(router.register("orders%2Feu-value", &second).await, (2, 2));
    let spaced = avro(&first["schema"].as_str().unwrap().replace(',', " ,\n"));
    assert_eq!(router.register("orders%2Feu-value", &spaced).await, (1, 1), "the same schema in another text");
    assert_eq!(router.register("other", &second).await, (2, 1));
    assert_eq!(router.sees("/subjects").await, json!(["orders/eu-value", "other"]));
    assert_eq!(router.sees("/subjects?subjectPrefix=ot").await, json!(["other"]));
    assert_eq!(router.sees("/subjects/orders%2Feu-value/versions").await, json!([1, 2]));
    let latest = router.sees("/subjects/orders%2Feu-value/versions/latest").await;
    let expected = json!({"subject": "orders/eu-value", "version": 2, "id": 2, "schema": second["schema"]});
    assert_eq!(latest, expected, "the type of Avro is left out");
    let text = router.registry("GET", "/subjects/orders%2Feu-value/versions/1/schema", None).await;
    assert_eq!(text.text(), first["schema"].as_str().unwrap());
    assert_eq!(router.sees("/schemas/ids/2?fetchMaxId=true").await, json!({"schema": second["schema"], "maxId": 2}));
    assert_eq!(router.sees("/schemas/ids/2/subjects").await, json!(["orders/eu-value", "other"]));
    let places = json!([{"subject": "orders/eu-value", "version": 2}, {"subject": "other", "version": 1}]);
    assert_eq!(router.sees("/schemas/ids/2/versions").await, places);
    assert_eq!(router.sees("/schemas/types").await, json!(["JSON", "AVRO", "PROTOBUF"]));
    let found = router.tells("POST", "/subjects/orders%2Feu-value", Some(&spaced)).await;
    assert_eq!((&found["version"], &found["id"]), (&json!(1), &json!(1)));
    assert_eq!(router.refuses("POST", "/subjects/other", Some(&first)).await, (404, 40403));
    assert_eq!(router.refuses("POST", "/subjects/none", Some(&first)).await, (404, 40401));

    assert_eq!(router.refuses("DELETE", "/subjects/other?permanent=true", None).await, (404, 40405));
    assert_eq!(router.tells("DELETE", "/subjects/other", None).await, json!([1]));
    assert_eq!(router.refuses("DELETE", "/subjects/other", None).await, (404, 40404));
    assert_eq!(router.sees("/subjects?deleted=true").await, json!(["orders/eu-value", "other"]));
    assert_eq!(router.sees("/subjects?deletedOnly=true").await, json!(["other"]));
    assert_eq!(router.refuses("GET", "/subjects/other/versions", None).await, (404, 40401));
    assert_eq!(router.sees("/subjects/other/versions?deleted=true").await, json!([1]));
    assert_eq!(router.sees("/subjects/other/versions/1?deleted=true").await["id"], 2);
    assert_eq!(router.tells("DELETE", "/subjects/other?permanent=true", None).await, json!([1]));
    assert_eq!(router.refuses("DELETE", "/subjects/other", None).await, (404, 40401));

    let version = "/subjects/orders%2Feu-value/versions/2";
    assert_eq!(router.refuses("DELETE", &format!("{version}?permanent=true"), None).await, (404, 40407));
    assert_eq!(router.tells("DELETE", "/subjects/orders%2Feu-value/versions/latest", None).await, json!(2));
    assert_eq!(router.refuses("DELETE", version, None).await, (404, 40406));
    assert_eq!(router.refuses("GET", version, None).await, (404, 40402));
    assert_eq!(router.sees("/schemas/ids/2").await["schema"], second["schema"], "who has the id can read it");
    assert_eq!(router.tells("DELETE", &format!("{version}?permanent=true"), None).await, json!(2));
    assert_eq!(router.refuses("GET", "/schemas/ids/2", None).await, (404, 40403));
    assert_eq!(router.register("orders%2Feu-value", &second).await, (3, 3), "ids are never used again");
    router.stop().await;
}

#[tokio::test]
async fn what_breaks_readers_is_refused_at_the_level_that_holds() {
    let router = Router::start().await;
    let (first, grown) = (avro(&order(&["id"], &[])), avro(&order(&["id", "note"], &[])));
    router.register("s", &first).await;
    assert_eq!(router.refuses("POST", "/subjects/s/versions", Some(&grown)).await, (409, 409));
    let check = "/compatibility/subjects/s/versions/latest";
    let verdict = router.tells("POST", &format!("{check}?verbose=true"), Some(&grown)).await;
    assert!(
        verdict["is_compatible"] == false && verdict["messages"][0].as_str().unwrap().contains("note"),
        "{verdict}"
    );
    assert_eq!(router.tells("POST", check, Some(&grown)).await, json!({"is_compatible": false}));
    let all = "/compatibility/subjects/s/versions";
    assert_eq!(router.tells("POST", all, Some(&first)).await, json!({"is_compatible": true}));
    assert_eq!(router.tells("POST", "/compatibility/subjects/t/versions", Some(&first)).await["is_compatible"], true);
    assert_eq!(router.refuses("POST", "/compatibility/subjects/t/versions/latest", Some(&first)).await, (404, 40401));
    assert_eq!(router.refuses("POST", "/compatibility/subjects/s/versions/9", Some(&first)).await, (404, 40402));

    assert_eq!(router.refuses("GET", "/config/s", None).await, (404, 40408));
    assert_eq!(router.sees("/config/s?defaultToGlobal=true").await, json!({"compatibilityLevel": "BACKWARD"}));
    let forward = json!({"compatibility": "forward"});
    assert_eq!(router.tells("PUT", "/config/s", Some(&forward)).await, json!({"compatibility": "FORWARD"}));
    assert_eq!(router.register("s", &grown).await, (2, 2));
    assert_eq!(router.tells("DELETE", "/config/s", None).await, json!({"compatibilityLevel": "FORWARD"}));
    assert_eq!(router.tells("PUT", "/config", Some(&json!({"compatibility": "NONE"}))).await["compatibility"], "NONE");
    assert_eq!(router.sees("/config").await, json!({"compatibilityLevel": "NONE"}));
    let other = avro(r#"{"type": "enum", "name": "Kind", "symbols": ["A"]}"#);
    assert_eq!(router.register("s", &other).await, (3, 3));
    assert_eq!(router.refuses("PUT", "/config", Some(&json!({"compatibility": "MOSTLY"}))).await, (422, 42203));
    let alias = json!({"compatibility": "NONE", "alias": "x"});
    assert_eq!(router.refuses("PUT", "/config/s", Some(&alias)).await, (422, 42205));
    router.stop().await;
}

#[tokio::test]
async fn what_is_no_schema_is_refused_and_changes_nothing() {
    let router = Router::start().await;
    let revision = router.revision().await;
    let schema = order(&["id"], &[]);
    for (body, refused) in [
        (avro("{\"type\": \"rec"), (422, 42201)),
        (avro(""), (422, 42201)),
        (avro(&"x".repeat(1024 * 1024 + 1)), (422, 42201)),
        (json!({"schema": schema, "schemaType": "THRIFT"}), (422, 42201)),
        (json!({"schema": schema, "ruleSet": {"domainRules": [{"name": "x"}]}}), (422, 42201)),
        (json!({"schema": schema, "references": [{"name": "x", "subject": "none", "version": 1}]}), (422, 42201)),
        (json!({"schema": schema, "references": [{"name": "x", "subject": "none", "version": -1}]}), (422, 42201)),
        (json!({"schema": schema, "id": 7}), (422, 42205)),
        (json!({"schema": {"type": "string"}}), (400, 400)),
        (json!({"schemaType": "AVRO"}), (400, 400)),
        (json!([]), (400, 400)),
    ] {
        assert_eq!(
            router.refuses("POST", "/subjects/s/versions", Some(&body)).await,
            refused,
            "{:.80}",
            body.to_string()
        );
    }
    let nothing = json!({"schema": schema, "references": [], "metadata": null, "ruleSet": {"domainRules": null}});
    let body = nothing.to_string();
    let long = "x".repeat(256);
    for (path, refused) in [
        ("/subjects/__GLOBAL/versions", (422, 42208)),
        ("/subjects/a%0Ab/versions", (422, 42208)),
        ("/subjects/%FF/versions", (422, 42208)),
        (&*format!("/subjects/{long}/versions"), (422, 42208)),
        ("/compatibility/subjects/s/versions/first", (422, 42202)),
    ] {
        assert_eq!(router.refuses("POST", path, Some(&nothing)).await, refused, "{path}");
    }
    for path in ["/subjects/s/versions/0", "/subjects/s/versions/-2", "/subjects/s/versions/2147483648"] {
        assert_eq!(router.refuses("GET", path, None).await, (422, 42202), "{path}");
    }
    for path in ["/schemas/ids/7", "/schemas/ids/x", "/schemas/ids/4294967296/schema", "/schemas/ids/0/versions"] {
        assert_eq!(router.refuses("GET", path, None).await, (404, 40403), "{path}");
    }
    let ask = async |kind: &str, length: Option<&str>, body: &str| {
        let mut headers = vec![("Content-Type", kind)];
        headers.extend(length.map(|length| ("Content-Length", length)));
        let answer = router.ask("POST", "/registry/subjects/s/versions", &headers, body.as_bytes()).await;
        (answer.status, answer.json()["error_code"].as_u64().unwrap_or(0))
    };
    assert_eq!(ask("text/plain", None, &body).await, (415, 415));
    assert_eq!(ask(MEDIA_TYPE, Some("3000000"), "").await, (413, 413), "before its first byte");
    assert_eq!(router.revision().await, revision, "nothing is written down");
    assert_eq!(ask("application/json; charset=utf-8", None, &body).await.0, 200);
    assert_eq!(router.revision().await, revision + 1);
    router.stop().await;
}

#[tokio::test]
async fn references_are_followed_and_held() {
    let router = Router::start().await;
    let money = r#"{"type": "record", "name": "Money", "fields": [{"name": "cents", "type": "long"}]}"#;
    let item = r#"{"type": "record", "name": "Item", "fields": [{"name": "price", "type": "Money"}]}"#;
    router.register("money", &avro(money)).await;
    assert_eq!(
        router.refuses("POST", "/subjects/item/versions", Some(&avro(item))).await,
        (422, 42201),
        "no reference"
    );
    let references = json!([{"name": "Money", "subject": "money", "version": -1}]);
    let with = json!({"schema": item, "schemaType": "AVRO", "references": references});
    assert_eq!(router.register("item", &with).await, (2, 1));
    assert_eq!(router.register("item", &with).await, (2, 1));
    let shown = router.sees("/schemas/ids/2").await;
    assert_eq!(
        shown["references"],
        json!([{"name": "Money", "subject": "money", "version": 1}]),
        "the newest is named"
    );
    assert_eq!(router.sees("/subjects/money/versions/1/referencedby").await, json!([2]));
    assert_eq!(router.refuses("DELETE", "/subjects/money", None).await, (422, 42206));
    assert_eq!(router.refuses("DELETE", "/subjects/money/versions/1", None).await, (422, 42206));
    router.tells("DELETE", "/subjects/item", None).await;
    assert_eq!(router.sees("/subjects/money/versions/1/referencedby").await, json!([]));
    assert_eq!(router.tells("DELETE", "/subjects/money", None).await, json!([1]));
    router.stop().await;
}

#[tokio::test]
async fn modes_let_changes_in_or_not() {
    let router = Router::start().await;
    let (first, second) = (avro(&order(&["id"], &[])), avro(&order(&["id"], &["note"])));
    router.register("s", &first).await;
    assert_eq!(router.sees("/mode").await, json!({"mode": "READWRITE"}));
    assert_eq!(router.refuses("GET", "/mode/s", None).await, (404, 40409));
    let readonly = json!({"mode": "READONLY"});
    assert_eq!(router.tells("PUT", "/mode/s", Some(&readonly)).await, readonly);
    assert_eq!(router.refuses("POST", "/subjects/s/versions", Some(&second)).await, (422, 42205));
    assert_eq!(router.refuses("DELETE", "/subjects/s", None).await, (422, 42205));
    assert_eq!(router.register("s", &first).await, (1, 1), "what is there is found in every mode");
    assert_eq!(router.tells("DELETE", "/mode/s", None).await, readonly);
    assert_eq!(router.refuses("PUT", "/mode", Some(&json!({"mode": "WRITEONLY"}))).await, (422, 42204));

    let import = json!({"mode": "IMPORT"});
    assert_eq!(router.refuses("PUT", "/mode", Some(&import)).await, (422, 42205), "there are schemas");
    assert_eq!(router.tells("PUT", "/mode/taken", Some(&import)).await, import);
    let place = |body: &Value, id: u64, version: u64| json!({"schema": body["schema"], "schemaType": "AVRO", "id": id, "version": version});
    assert_eq!(router.refuses("POST", "/subjects/taken/versions", Some(&second)).await, (422, 42205), "without an id");
    assert_eq!(router.register("taken", &place(&second, 40, 3)).await, (40, 3));
    assert_eq!(router.register("taken", &place(&second, 40, 3)).await, (40, 3));
    assert_eq!(router.refuses("POST", "/subjects/taken/versions", Some(&place(&first, 40, 4))).await, (422, 42201));
    assert_eq!(router.register("taken", &place(&first, 1, 1)).await, (1, 1), "as the other subject has it");
    assert_eq!(router.tells("PUT", "/mode?force=true", Some(&import)).await, import);
    assert_eq!(router.tells("DELETE", "/mode", None).await, import);
    router.stop().await;
}

#[tokio::test]
async fn clients_that_know_user_and_password_only_get_in_with_the_token() {
    const TOKEN: &str = "correct-horse-battery-staple";
    let router = Router::start_with(|listen| {
        listen.dev = false;
        listen.token = Some(Token::new(TOKEN).unwrap());
    })
    .await;
    let refused = router.get("/registry/subjects").await;
    assert_eq!((refused.status, refused.json()["error_code"].as_u64()), (401, Some(401)));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    // user:correct-horse-battery-staple
    let basic = "Basic dXNlcjpjb3JyZWN0LWhvcnNlLWJhdHRlcnktc3RhcGxl";
    let status = async |path: &str, credentials: &str| {
        router.ask("GET", path, &[("Authorization", credentials)], b"").await.status
    };
    assert_eq!(status("/registry/subjects", basic).await, 200);
    assert_eq!(status("/registry/subjects", &format!("Bearer {TOKEN}")).await, 200);
    assert_eq!(status("/registry/subjects", "Basic dXNlcjp3cm9uZw==").await, 401);
    assert_eq!(status("/v1/schemas", basic).await, 401, "a password is for the registry only");
    router.stop().await;
}
