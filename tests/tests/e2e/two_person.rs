//! The rule of two over a mesh: what one asks for at one router, another approves at another one.

use crate::attacks::eventually;
use anyhow::{Context, Result, ensure};
use myelin_tests::Router;
use myelin_tests::admin::Answer;
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::sites::{Sites, shapes};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SigningKey;
use serde_json::{Value, json};
use std::sync::Arc;

/// What stands before the seed of an Ed25519 key in PKCS #8.
const PKCS8_PREFIX: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// Bytes of its public key, with which the description of one ends.
const PUBLIC_KEY_LEN: usize = 32;
/// When tokens end, in Unix seconds: in the year 2100.
const END_UNIX_S: u64 = 4_102_444_800;

/// An issuer of tokens: persons have one each.
pub(crate) struct Issuer(Arc<dyn SigningKey>);

impl Issuer {
    pub(crate) fn new() -> Result<Self> {
        let key = [PKCS8_PREFIX, &[7; 32]].concat();
        Ok(Self(any_eddsa_type(&PrivatePkcs8KeyDer::from(key))?))
    }

    /// Its set of keys.
    pub(crate) fn keys(&self) -> Result<String> {
        let public = self.0.public_key().context("a public key")?;
        let x = base64url(&public[public.len() - PUBLIC_KEY_LEN..]);
        Ok(json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]}).to_string())
    }

    pub(crate) fn person(&self, name: &str) -> Result<Person> {
        let claims = json!({"iss": "https://login.test", "aud": "myelin", "sub": name, "exp": END_UNIX_S,
            "groups": ["releasers"]});
        let header = json!({"alg": "EdDSA", "kid": "k"}).to_string();
        let message = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.to_string().as_bytes()));
        let signer = self.0.choose_scheme(&[SignatureScheme::ED25519]).context("a signer")?;
        let signature = signer.sign(message.as_bytes())?;
        Ok(Person {
            name: format!("spiffe://test/jwt/corp/{name}"),
            bearer: format!("Bearer {message}.{}", base64url(&signature)),
        })
    }
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

pub(crate) struct Person {
    name: String,
    pub(crate) bearer: String,
}

impl Person {
    fn ask(&self, router: &Router, method: &str, path: &str, body: &Value) -> Result<Answer> {
        let headers = [("Authorization", &*self.bearer), ("Content-Type", "application/json")];
        router.ask(method, path, &headers, body.to_string().as_bytes())
    }

    fn post(&self, router: &Router, path: &str, body: &Value) -> Result<Answer> {
        self.ask(router, "POST", path, body)
    }
}

fn shown(router: &Router) -> Result<Value> {
    Ok(router.ask("GET", "/v1/rollouts", &[], b"")?.json())
}

/// What waits at a router; it has to be exactly that, by and by.
async fn waits(router: &Router, numbers: &[u64]) -> Result<()> {
    eventually("what waits for somebody else", || {
        let proposals = shown(router)?["proposals"].as_array().context("a list")?.clone();
        Ok(proposals.iter().map(|proposal| proposal["proposal"].as_u64()).eq(numbers.iter().copied().map(Some)))
    })
    .await
}

async fn is_at(router: &Router, id: &Value, states: &[&str]) -> Result<()> {
    eventually("the rollout's step", || {
        let rollout = router.ask("GET", &format!("/v1/rollouts/{id}"), &[], b"")?.json();
        Ok(states.iter().any(|state| rollout["state"] == *state))
    })
    .await
}

/// Two sites whose routers want two persons, and the persons.
async fn begins() -> Result<(Sites, Person, Person, tempfile::TempDir)> {
    let (folder, issuer) = (tempfile::tempdir()?, Issuer::new()?);
    let file = folder.path().join("keys.json");
    std::fs::write(&file, issuer.keys()?)?;
    let issuers = format!(
        "{{ corp = {{ issuer = 'https://login.test', audience = ['myelin'], trust_domain = 'test', jwks_file = '{}', \
         roles_claim = 'groups', roles = {{ releasers = ['releaser', 'developer'] }} }} }}",
        file.display()
    );
    let keys = [("ADMIN__TWO_PERSON", "true"), ("JWT__ISSUERS", &*issuers)];
    let sites = Sites::start_with(2, &shapes::line(2), &keys).await?;
    Ok((sites, issuer.person("ann")?, issuer.person("bob")?, folder))
}

/// Starts a router anew at which nobody wants two; what it had for that.
fn wants_one(router: &mut Router) -> Result<Vec<(String, String)>> {
    let is_it = |(name, _): &(String, String)| name.ends_with("ADMIN__TWO_PERSON");
    let wanted = router.setup_mut().variables.extract_if(.., |variable| is_it(variable)).collect();
    router.terminate()?;
    router.restart()?;
    Ok(wanted)
}

/// Starts it anew with that.
fn wants_two(router: &mut Router, wanted: &[(String, String)]) -> Result<()> {
    router.setup_mut().variables.extend_from_slice(wanted);
    router.terminate()?;
    router.restart()
}

/// Asks for a rollout that observes its canary for an hour.
fn asks_to_start(router: &Router, who: &Person) -> Result<Value> {
    ensure!(router.upload("gate", "1.0.0", &component(Behaviour::Allow)?)?.status == 201);
    let binding = json!({"module": "gate@1.0.0", "pattern": "orders/**"});
    ensure!(router.send_json("PUT", "/v1/bindings/gate", &binding)?.status == 202);
    let plan = json!({"canary": ["s0"], "waves": [100], "observe_s": 3_600, "events_min": 0});
    let body = json!({"plan": plan, "note": "try it"});
    // Whoever is on the machine may be either of the two.
    let nobody = router.send_json("POST", "/v1/rollouts", &body)?;
    ensure!(nobody.problem() == (403, "two-person".to_owned()), "{}", nobody.json());
    let asked = who.post(router, "/v1/rollouts", &body)?;
    let proposal = asked.json();
    ensure!(asked.status == 202 && proposal["by"] == *who.name, "{proposal}");
    Ok(proposal)
}

/// Approves at a router that has just started: those find each other again first, and until then nothing begins.
async fn approves(router: &Router, who: &Person, path: &str) -> Result<Answer> {
    let mut begun = who.post(router, path, &json!({}))?;
    eventually("a path to the router that writes the catalog", || {
        if begun.code() == "writer-unreachable" {
            begun = who.post(router, path, &json!({}))?;
        }
        Ok(begun.code() != "writer-unreachable")
    })
    .await?;
    Ok(begun)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_person_a_start_and_a_promotion_are_approved_at_another_router_also_after_a_restart() -> Result<()> {
    let (mut sites, ann, bob, _folder) = begins().await?;
    let [first, second] = [0, 1];
    let proposal = asks_to_start(&sites.routers[first], &ann)?;
    let number = proposal["proposal"].as_u64().context("its number")?;

    // It is there at the other router, also when both have started anew.
    waits(&sites.routers[second], &[number]).await?;
    for site in [second, first] {
        sites.routers[site].terminate()?;
        sites.routers[site].restart()?;
    }
    for site in [first, second] {
        waits(&sites.routers[site], &[number]).await?;
    }
    let there = &shown(&sites.routers[second])?["proposals"][0];
    ensure!(there["digest"] == proposal["digest"] && there["note"] == "try it", "{there}");
    // What is to be approved is seen there.
    ensure!(there["filters"][0]["module"] == "gate@1.0.0" && there["plan"]["canary"] == json!(["s0"]), "{there}");

    // Nobody approves what is their own, wherever, and nobody without a name; and it begins once.
    let approve = format!("/v1/rollouts/{number}/approve");
    for site in [first, second] {
        let own = approves(&sites.routers[site], &ann, &approve).await?;
        ensure!(own.problem() == (403, "two-person".to_owned()), "{}", own.json());
        let nobody = sites.routers[site].ask("POST", &approve, &[], b"")?;
        ensure!(nobody.problem() == (403, "two-person".to_owned()), "{}", nobody.json());
    }
    // What is no matter of the proposal may change: it is approved at once at a router that may not know it yet.
    let other = sites.routers[first].upload("other", "1.0.0", &component(Behaviour::Allow)?)?;
    ensure!(other.status == 201, "{}", other.json());
    let begun = bob.post(&sites.routers[second], &approve, &json!({}))?;
    let (rollout, both) = (begun.json(), format!("{}, approved by {}", ann.name, bob.name));
    ensure!(begun.status == 202 && rollout["actor"] == *both, "{}: {rollout}", begun.status);
    // The other one knows so at once, wherever it has begun.
    ensure!(bob.post(&sites.routers[first], &approve, &json!({}))?.status == 404);
    waits(&sites.routers[first], &[]).await?;

    // A step ahead of time needs two as well, here the other way around.
    let id = &rollout["id"];
    is_at(&sites.routers[second], id, &["observe"]).await?;
    let promote = format!("/v1/rollouts/{id}/promote");
    let asked = bob.post(&sites.routers[second], &promote, &json!({"reason": "it is quiet"}))?;
    let proposal = asked.json();
    ensure!(asked.status == 202 && proposal["wants"] == "promote" && proposal["rollout"] == *id, "{proposal}");
    let number = proposal["proposal"].as_u64().context("its number")?;
    // At a router that may not have heard of it yet.
    let approve = format!("/v1/rollouts/{number}/approve");
    ensure!(bob.post(&sites.routers[first], &approve, &json!({}))?.status == 403);
    let promoted = ann.post(&sites.routers[first], &approve, &json!({}))?;
    ensure!(promoted.status == 202, "{}: {}", promoted.status, promoted.json());
    for site in [first, second] {
        is_at(&sites.routers[site], id, &["wave 1"]).await?;
        waits(&sites.routers[site], &[]).await?;
    }
    // Going back needs one, also one without a name.
    let aborted = sites.routers[second].send_json("POST", &format!("/v1/rollouts/{id}/abort"), &json!({}))?;
    ensure!(aborted.status == 200, "{}: {}", aborted.status, aborted.json());
    for site in [first, second] {
        is_at(&sites.routers[site], id, &["rolled-back"]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_person_what_is_withdrawn_or_overtaken_is_not_approved_anywhere() -> Result<()> {
    let (sites, ann, bob, _folder) = begins().await?;
    let [first, second] = [&sites.routers[0], &sites.routers[1]];
    let proposal = asks_to_start(first, &ann)?;
    let path = |proposal: &Value| format!("/v1/rollouts/{}/approve", proposal["proposal"]);
    let withdrawn = ann.ask(first, "DELETE", &path(&proposal), &json!({}))?;
    ensure!(withdrawn.status == 204, "{}", withdrawn.json());
    ensure!(bob.post(second, &path(&proposal), &json!({}))?.status == 404);

    let policy = |text: &str| json!({"name": "all", "text": text});
    let permit = policy("permit (principal, action, resource);");
    let body =
        json!({"changes": {"policies": [permit]}, "only_changes": true, "plan": {"waves": [100], "observe_s": 0}});
    // To bring policies takes the role that may set them.
    ensure!(ann.post(first, "/v1/rollouts", &body)?.status == 403);
    let again = ann.post(first, "/v1/rollouts", &json!({}))?;
    ensure!(again.status == 202, "{}", again.json());
    let binding = json!({"module": "gate@1.0.0", "pattern": "payments/**"});
    ensure!(first.send_json("PUT", "/v1/bindings/gate", &binding)?.status == 202);
    let stale = bob.post(second, &path(&again.json()), &json!({}))?;
    ensure!(stale.problem() == (409, "proposal-stale".to_owned()), "{}", stale.json());
    waits(second, &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_person_nobody_lets_a_schema_judge_alone() -> Result<()> {
    let (sites, ann, bob, folder) = begins().await?;
    let [first, second] = [&sites.routers[0], &sites.routers[1]];
    let file = folder.path().join("order.json");
    std::fs::write(&file, r#"{"type": "object"}"#)?;
    first.myelin(&["schema", "register", "orders-value", &file.to_string_lossy()])?.good()?;
    let mut rule = json!({"pattern": "orders/**", "schema": {"subject": "orders-value", "on_invalid": "refuse", "required": true}});
    // A rule that is new, by whatever name, would be the way round one that is changed.
    for path in ["/v1/topics/orders", "/v1/topics/orders?at-once=true"] {
        let alone = ann.ask(first, "PUT", path, &rule)?;
        ensure!(alone.problem() == (403, "two-person".to_owned()), "{path}: {}", alone.json());
    }
    let place = json!({"pattern": "orders/**", "residency": {"sites": ["s*"]}});
    let placed = ann.ask(first, "PUT", "/v1/topics/place", &place)?;
    ensure!(placed.status == 204, "where events may be is no matter of two: {}", placed.json());

    rule["name"] = "orders".into();
    let plan = json!({"waves": [100], "observe_s": 0, "events_min": 0});
    let body = json!({"changes": {"topics": [rule]}, "only_changes": true, "plan": plan});
    let asked = ann.post(first, "/v1/rollouts", &body)?;
    let proposal = asked.json();
    ensure!(asked.status == 202, "{proposal}");
    let approve = format!("/v1/rollouts/{}/approve", proposal["proposal"]);
    let begun = bob.post(second, &approve, &json!({}))?;
    ensure!(begun.status == 202, "{}", begun.json());
    for router in [first, second] {
        is_at(router, &begun.json()["id"], &["complete"]).await?;
    }
    // One person takes it away again.
    let gone = bob.ask(second, "DELETE", "/v1/topics/orders", &Value::Null)?;
    ensure!(gone.status == 204, "{}", gone.json());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_person_nobody_changes_alone_what_a_rule_follows() -> Result<()> {
    let (mut sites, ann, bob, _folder) = begins().await?;
    // Where nobody wants two, a rule may follow the newest version: also the router that writes must not want them.
    let wanted = [wants_one(&mut sites.routers[0])?, wants_one(&mut sites.routers[1])?];
    let rule =
        |version: Value| json!({"pattern": "orders/**", "schema": {"subject": "orders-value", "version": version}});
    let sets =
        |router: &Router, version: Value| bob.ask(router, "PUT", "/v1/topics/orders?at-once=true", &rule(version));
    let versions = "/registry/subjects/orders-value/versions";
    let body = |text: &str| json!({"schema": text, "schemaType": "JSON"});
    let texts =
        [r#"{"type": "object"}"#, r#"{"type": ["object", "null"]}"#, r#"{"type": ["object", "null", "array"]}"#];
    for text in &texts[..2] {
        let made = ann.post(&sites.routers[0], versions, &body(text))?;
        ensure!(made.status == 200, "{}", made.json());
    }
    eventually("a rule that follows", || Ok(sets(&sites.routers[1], json!("latest"))?.status == 204)).await?;
    wants_two(&mut sites.routers[0], &wanted[0])?;
    let [first, second] = [&sites.routers[0], &sites.routers[1]];
    let is_set =
        |version: &Value| Ok(first.ask("GET", "/v1/topics/orders", &[], b"")?.json()["schema"]["version"] == *version);
    eventually("the rule at the other router", || is_set(&json!("latest"))).await?;
    // By way of the router that does not want two, it is the same.
    eventually("a refusal of the router that writes", || {
        let newest = ann.post(second, versions, &body(texts[2]))?;
        Ok(newest.problem() == (403, "two-person".to_owned()))
    })
    .await?;

    let newest = ann.post(first, versions, &body(texts[2]))?;
    ensure!(newest.problem() == (403, "two-person".to_owned()), "{}", newest.json());
    ensure!(newest.json()["message"].to_string().contains("topic rule `orders` follows"), "{}", newest.json());
    let file = sites.routers[0].folder().join("next.json");
    std::fs::write(&file, texts[2])?;
    let told = first.myelin(&["schema", "register", "orders-value", &file.to_string_lossy()])?;
    ensure!(told.code != Some(0) && told.err.contains("--schema orders"), "{told:?}");
    let gone = ann.ask(first, "DELETE", &format!("{versions}/latest"), &Value::Null)?;
    ensure!(gone.problem() == (403, "two-person".to_owned()), "{}", gone.json());
    // What changes nothing that is judged takes one person.
    let known = ann.post(first, versions, &body(texts[1]))?;
    ensure!(known.status == 200 && known.json()["version"] == 2, "{}", known.json());
    let older = ann.ask(first, "DELETE", &format!("{versions}/1"), &Value::Null)?;
    ensure!(older.status == 200, "{}", older.json());
    let other = ann.post(first, "/registry/subjects/other/versions", &body(texts[2]))?;
    ensure!(other.status == 200, "{}", other.json());

    let alone = sets(second, json!(2))?;
    ensure!(alone.problem() == (403, "two-person".to_owned()), "{}", alone.json());
    wants_one(&mut sites.routers[0])?;
    let [first, second] = [&sites.routers[0], &sites.routers[1]];
    let is_set =
        |version: &Value| Ok(first.ask("GET", "/v1/topics/orders", &[], b"")?.json()["schema"]["version"] == *version);
    eventually("a rule that names its version", || Ok(sets(second, json!(2))?.status == 204)).await?;
    eventually("the number at the other router", || is_set(&json!(2))).await?;
    let next = ann.post(first, versions, &body(texts[2]))?;
    ensure!(next.status == 200 && next.json()["version"] == 3, "{}", next.json());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_person_a_router_that_does_not_want_them_begins_nothing_for_the_one_that_writes() -> Result<()> {
    let (mut sites, ann, bob, _folder) = begins().await?;
    wants_one(&mut sites.routers[1])?;
    let [writer, other] = [&sites.routers[0], &sites.routers[1]];
    eventually("a path to the router that writes", || {
        Ok(other.upload("gate", "1.0.0", &component(Behaviour::Allow)?)?.status == 201)
    })
    .await?;
    let binding = json!({"module": "gate@1.0.0", "pattern": "orders/**"});
    ensure!(other.send_json("PUT", "/v1/bindings/gate", &binding)?.status == 202);

    // Whoever is on that machine has every right there, and begins nothing alone: at once, or over the sites.
    let plan = json!({"canary": ["s0"], "waves": [100], "observe_s": 3_600, "events_min": 0});
    for body in [json!({}), json!({"plan": plan})] {
        let alone = other.send_json("POST", "/v1/rollouts", &body)?;
        ensure!(alone.problem() == (403, "two-person".to_owned()), "{}", alone.json());
        ensure!(alone.json()["detail"].to_string().contains("router s1/r1"), "{}", alone.json());
    }
    let schema = json!({"schema": r#"{"type": "object"}"#, "schemaType": "JSON"});
    let made = ann.post(other, "/registry/subjects/orders-value/versions", &schema)?;
    ensure!(made.status == 200, "nothing judges by it: {}", made.json());
    let rule = json!({"pattern": "orders/**", "schema": {"subject": "orders-value", "version": 1}});
    let rule = other.send_json("PUT", "/v1/topics/orders?at-once=true", &rule)?;
    ensure!(rule.problem() == (403, "two-person".to_owned()), "{}", rule.json());

    // Two persons begin it by way of that router as well.
    let asked = ann.post(writer, "/v1/rollouts", &json!({"plan": plan}))?;
    ensure!(asked.status == 202, "{}", asked.json());
    let approve = format!("/v1/rollouts/{}/approve", asked.json()["proposal"]);
    let begun = bob.post(other, &approve, &json!({}))?;
    ensure!(begun.status == 202, "{}", begun.json());
    let id = &begun.json()["id"];
    is_at(other, id, &["observe"]).await?;
    let promoted = other.send_json("POST", &format!("/v1/rollouts/{id}/promote"), &json!({}))?;
    ensure!(promoted.problem() == (403, "two-person".to_owned()), "{}", promoted.json());
    let aborted = other.send_json("POST", &format!("/v1/rollouts/{id}/abort"), &json!({}))?;
    ensure!(aborted.status == 200, "retreat needs nobody's leave: {}", aborted.json());

    // The writer's audit log says by whom it came.
    eventually("the way by which it came", || {
        let page = writer.ask("GET", "/v1/audit?limit=1000", &[], b"")?.json();
        let entries = page["entries"].as_array().context("entries")?.clone();
        let has = |action: &str, result: &str| {
            let is_it = |entry: &Value| {
                entry["kind"] == "catalog"
                    && entry["action"] == action
                    && entry["result"] == result
                    && entry["from"] == "via s1/r1"
            };
            entries.iter().any(is_it)
        };
        Ok(has("binding-staged", "ok") && has("rollout-started", "ok") && has("rollout-started", "two-person"))
    })
    .await
}
