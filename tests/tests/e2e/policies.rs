//! Who may publish and subscribe: denied unless permitted, and changed under open sessions, on every router.

use anyhow::{Context, Result, ensure};
use myelin_client::{
    Client, ClientConfig, ClientError, Event, Outcome, Overflow, RequestError, SubscribeOptions, Subscription, TlsFiles,
};
use myelin_tests::sites::{PATIENCE, Sites, shapes};
use myelin_tests::{Router, Setup};
use myelin_transport::ca::CertificateAuthority;
use myelin_wire::Code;
use serde_json::json;
use tokio::time::timeout;

const DENY: (&str, &str) = ("POLICY__DEFAULT", "deny");

async fn sent(client: &Client, topic: &str, payload: &str) -> Result<Outcome> {
    Ok(timeout(PATIENCE, client.publish(Event::new(topic, payload)).await?).await?)
}

/// Waits until an event is decided so; policies reach other routers a moment after the one that took them.
async fn until_sent(client: &Client, topic: &str, wanted: impl Fn(&Outcome) -> bool) -> Result<Outcome> {
    let found = timeout(PATIENCE, async {
        loop {
            let outcome = sent(client, topic, "again").await?;
            if wanted(&outcome) {
                return anyhow::Ok(outcome);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    found.await.with_context(|| format!("the policies never came to hold for {topic}"))?
}

fn is_forbidden(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused { code: Code::Forbidden, .. })
}

fn is_acked(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Acked)
}

async fn next(events: &mut Subscription) -> Result<(String, String)> {
    let event = timeout(PATIENCE, events.next()).await?.context("the subscription ended")?;
    Ok((event.topic().to_owned(), String::from_utf8_lossy(event.payload()).into_owned()))
}

fn apply(router: &Router, name: &str, text: &str) -> Result<()> {
    let answer = router.send_json("PUT", &format!("/v1/policies/{name}"), &json!({"text": text}))?;
    ensure!(answer.status == 204, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(())
}

/// A subscription once it is permitted.
async fn until_subscribed(client: &Client, pattern: &str) -> Result<Subscription> {
    let found = timeout(PATIENCE, async {
        loop {
            match client.subscribe(pattern, SubscribeOptions::default()).await {
                Err(ClientError::Refused(refusal)) if refusal.code == Code::Forbidden => {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
    });
    Ok(found.await.with_context(|| format!("{pattern} was never permitted"))??)
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_dev_nobody_may_anything_until_a_policy_permits_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = CertificateAuthority::create("test", 2)?;
    authority.save(folder.path())?;
    let (cert, key) = authority.issue_router("site", "r1", &["localhost".into()], 1)?.save(folder.path(), "router")?;
    let ready = folder.path().join("ready.json");
    let token = folder.path().join("token");
    std::fs::write(&token, "a-token-of-this-test-only")?;
    let mut process = std::process::Command::new(myelin_tests::program());
    process
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1", "--data-dir"])
        .arg(folder.path().join("data"))
        .arg("--ready-file")
        .arg(&ready)
        .env("MYELIN_NODE__SITE", "site")
        .env("MYELIN_TLS__CERT", &cert)
        .env("MYELIN_TLS__KEY", &key)
        .env("MYELIN_TLS__CA", folder.path().join("ca.pem"))
        .env("MYELIN_ADMIN__TOKEN_FILE", &token);
    let mut process = process.spawn()?;
    crate::attacks::eventually("the router", || Ok(ready.exists())).await?;
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready)?)?;
    let (cert, key) = authority.issue_service("shop", 1)?.save(folder.path(), "shop")?;
    let files = TlsFiles { cert, key, ca: folder.path().join("ca.pem") };
    let addr = told["client_addr"].as_str().context("an address")?;
    let client = Client::connect(ClientConfig::new(addr, files).with_server_name("localhost")).await?;

    let refused = sent(&client, "orders/1", "x").await?;
    let Outcome::Refused { code: Code::Forbidden, detail } = &refused else { anyhow::bail!("{refused:?}") };
    for part in
        ["no policy permits it", "[policy] default `deny`", "myelin policy apply", "publish orders/1 by spiffe:"]
    {
        ensure!(detail.contains(part), "{part} is missing in {detail}");
    }
    let refused = client.subscribe("orders/**", SubscribeOptions::default()).await;
    ensure!(matches!(&refused, Err(ClientError::Refused(refusal)) if refusal.code == Code::Forbidden), "{refused:?}");

    let policy = folder.path().join("orders.cedar");
    std::fs::write(&policy, "permit (principal, action, resource) when { resource.name like \"orders/*\" };")?;
    let admin = format!("http://{}", told["admin_addr"].as_str().context("an address")?);
    let applied = std::process::Command::new(myelin_tests::program())
        .args(["policy", "apply", &policy.to_string_lossy(), "--admin", &admin, "--token", "a-token-of-this-test-only"])
        .output()?;
    ensure!(applied.status.success(), "{applied:?}");
    let mut events = client.subscribe("orders/**", SubscribeOptions::default()).await?;
    let outcome = sent(&client, "orders/1", "permitted").await?;
    ensure!(is_acked(&outcome), "{outcome:?}");
    ensure!(next(&mut events).await? == ("orders/1".into(), "permitted".into()));
    ensure!(is_forbidden(&sent(&client, "other", "x").await?));
    let audited = std::process::Command::new(myelin_tests::program())
        .args(["audit", "ls", "--kind", "denial", "--admin", &admin, "--token", "a-token-of-this-test-only"])
        .output()?;
    let audited = String::from_utf8_lossy(&audited.stdout).into_owned();
    ensure!(audited.contains("publish") && audited.contains("subscribe") && audited.contains("forbidden"), "{audited}");
    process.kill()?;
    process.wait()?;
    Ok(())
}

/// Two sites that deny what no policy permits, each with a publisher and a subscriber to `orders/**`; all were permitted
/// under their open sessions.
struct Two {
    sites: Sites,
    publishers: [Client; 2],
    readers: [Client; 2],
    events: [Subscription; 2],
}

impl Two {
    async fn start() -> Result<Self> {
        let sites = Sites::start_with(2, &shapes::line(2), &[DENY]).await?;
        let publishers =
            [sites.client(0, "pub", Overflow::Pause).await?, sites.client(1, "pub", Overflow::Pause).await?];
        let readers = [sites.client(0, "sub", Overflow::Pause).await?, sites.client(1, "sub", Overflow::Pause).await?];
        for publisher in &publishers {
            ensure!(is_forbidden(&sent(publisher, "orders/1", "early").await?));
        }
        // At the router that does not write the catalog.
        for (name, action, who) in [("publish", "publish", "pub"), ("subscribe", "subscribe", "sub")] {
            let text = format!(
                "permit (principal, action == Action::\"{action}\", resource) when {{ principal.name == \"{who}\" }};"
            );
            apply(&sites.routers[1], name, &text)?;
        }
        let events =
            [until_subscribed(&readers[0], "orders/**").await?, until_subscribed(&readers[1], "orders/**").await?];
        for publisher in &publishers {
            until_sent(publisher, "warm-up", is_acked).await?;
        }
        sites.agree(&[(0, 1), (1, 1)]).await?;
        Ok(Self { sites, publishers, readers, events })
    }

    /// Publishes at both sites; both subscribers get it as their next event.
    async fn reaches_both(&mut self, topic: &str) -> Result<()> {
        for (site, publisher) in self.publishers.iter().enumerate() {
            let payload = format!("{topic} from {site}");
            ensure!(is_acked(&sent(publisher, topic, &payload).await?), "{payload}");
            for events in &mut self.events {
                let came = next(events).await?;
                ensure!(came == (topic.to_owned(), payload.clone()), "{came:?}, not {payload}");
            }
        }
        Ok(())
    }

    /// Lets another policy hold on both routers.
    async fn apply(&self, name: &str, text: &str, statements: u64) -> Result<()> {
        apply(&self.sites.routers[0], name, text)?;
        for router in &self.sites.routers {
            crate::attacks::eventually("the policy", || {
                Ok(router.ask("GET", "/v1/policies", &[], b"")?.json()["statements"] == statements)
            })
            .await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_given_and_a_topic_is_closed_within_open_subscriptions() -> Result<()> {
    let mut two = Two::start().await?;
    two.reaches_both("orders/1").await?;
    let text = r#"forbid (principal, action == Action::"subscribe", resource == Topic::"orders/secret");"#;
    two.apply("secret", text, 3).await?;
    for publisher in &two.publishers {
        ensure!(is_acked(&sent(publisher, "orders/secret", "nobody reads this").await?));
    }
    // What is forbidden would have come first.
    two.reaches_both("orders/2").await?;
    ensure!(two.sites.routers[0].metric("myelin_policy_withheld_copies_total")? > 0);
    let refused = two.readers[0].subscribe("orders/secret", SubscribeOptions::default()).await;
    ensure!(matches!(&refused, Err(ClientError::Refused(refusal)) if refusal.code == Code::Forbidden), "{refused:?}");
    let gone = two.sites.routers[1].ask("DELETE", "/v1/policies/secret", &[], b"")?;
    ensure!(gone.status == 204, "{}", gone.status);
    let again = until_subscribed(&two.readers[0], "orders/secret").await?;
    drop(again);
    two.sites.settle().await?;
    two.sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_taken_under_open_sessions_on_both_routers() -> Result<()> {
    let mut two = Two::start().await?;
    let mut others = two.readers[1].subscribe("other", SubscribeOptions::default()).await?;
    two.sites.agree(&[(0, 2), (1, 1)]).await?;
    two.reaches_both("orders/1").await?;
    // The right to read: open subscriptions end, with the reason, on both routers; others go on.
    let text = r#"forbid (principal, action == Action::"subscribe", resource) when { resource.name like "orders/*" };"#;
    two.apply("no-orders", text, 3).await?;
    for events in &mut two.events {
        let end = timeout(PATIENCE, events.next()).await?;
        ensure!(end.is_none(), "another event came: {end:?}");
        let told = events.error().context("it ended without a reason")?;
        ensure!(told.to_string().contains("no-orders#1"), "{told}");
    }
    ensure!(is_acked(&sent(&two.publishers[0], "other", "still").await?));
    ensure!(next(&mut others).await? == ("other".into(), "still".into()));

    // The right to publish, on both routers.
    let gone = two.sites.routers[1].ask("DELETE", "/v1/policies/publish", &[], b"")?;
    ensure!(gone.status == 204, "{}", gone.status);
    for publisher in &two.publishers {
        let refused = until_sent(publisher, "other", is_forbidden).await?;
        let Outcome::Refused { detail, .. } = &refused else { anyhow::bail!("{refused:?}") };
        ensure!(detail.contains("no policy permits it"), "{detail}");
    }
    ensure!(two.sites.routers[0].metric("myelin_policy_denials_total{action=\"publish\"}")? > 0);
    two.sites.settle().await?;
    two.sites.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_type_check_changes_nothing_and_a_restart_keeps_what_holds() -> Result<()> {
    let variables = vec![("MYELIN_POLICY__DEFAULT".to_owned(), "deny".to_owned())];
    let mut router = Router::start_with(Setup { workers: 2, variables })?;
    let good = r#"permit (principal, action, resource) when { resource.name like "open/*" };"#;
    apply(&router, "open", good)?;
    let before = router.ask("GET", "/v1/policies", &[], b"")?.json();
    for (name, text, told) in [
        ("open", "permit (principal, action, resource) when { resource.nme == 1 };", "open:1:"),
        ("more", "permit (principal, action == Action::\"fly\", resource);", "fly"),
        ("more", "permit (principal, action, resource", "more:1:"),
        ("more", "", "empty"),
    ] {
        let refused = router.send_json("PUT", &format!("/v1/policies/{name}"), &json!({"text": text}))?;
        let said = String::from_utf8_lossy(&refused.body).into_owned();
        ensure!(refused.status == 400 && refused.code() == "invalid-policy" && said.contains(told), "{said}");
    }
    let deep = format!("permit (principal, action, resource) when {{ {}true }};", "!".repeat(50_000));
    let refused = router.send_json("PUT", "/v1/policies/deep", &json!({"text": deep}))?;
    ensure!((refused.status, refused.code()) == (400, "invalid-policy".to_owned()));
    let long = router.send_json("PUT", "/v1/policies/long", &json!({"text": "x".repeat(100_000)}))?;
    ensure!(matches!(long.status, 400 | 413), "{}", long.status);
    let dry = router.send_json("PUT", "/v1/policies/more?dry-run=true", &json!({"text": good}))?;
    ensure!(dry.status == 204, "{}", dry.status);
    ensure!(router.ask("GET", "/v1/policies", &[], b"")?.json() == before, "a refused policy left something behind");

    router.kill()?;
    router.restart()?;
    let client = router.client().await?;
    ensure!(is_acked(&sent(&client, "open/1", "x").await?));
    ensure!(is_forbidden(&sent(&client, "closed", "x").await?));
    // The command line says what holds, and why.
    let listed = router.myelin(&["policy", "ls"])?.good()?.out;
    ensure!(listed.contains("open") && listed.contains("what no policy speaks of is denied"), "{listed}");
    let described = router.myelin(&["policy", "describe", "open"])?.good()?.out;
    ensure!(described.trim() == good, "{described}");
    let explain = |topic: &str| {
        let asked = ["policy", "explain", "spiffe://test/service/shop", "publish", topic];
        anyhow::Ok(router.myelin(&asked)?.good()?.out)
    };
    ensure!(explain("open/1")?.starts_with("allowed: open#1 permits it"));
    ensure!(explain("closed")?.starts_with("denied: no policy speaks of it"));
    let shop = "spiffe://test/service/shop";
    for asked in
        [["shop", "publish", "closed"], [shop, "publish", ""], [shop, "publish", "open/**"], [shop, "reply", "a"]]
    {
        let ran = router.myelin(&[&["policy", "explain"], &asked[..]].concat())?;
        ensure!(ran.code == Some(2) && ran.err.contains("(invalid-question)"), "{asked:?}: {}", ran.err);
    }
    let told = router.myelin(&["explain", "closed", "--as", "spiffe://test/service/shop"])?.good()?.out;
    ensure!(told.contains("forbidden") && told.contains("no policy permits it"), "{told}");
    router.myelin(&["policy", "rm", "open"])?.good()?;
    ensure!(router.myelin(&["policy", "rm", "open"])?.code == Some(3));
    ensure!(is_forbidden(&until_sent(&client, "open/1", is_forbidden).await?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn under_dev_everything_is_allowed_until_there_is_a_policy() -> Result<()> {
    let router = Router::start()?;
    let client = router.client().await?;
    ensure!(is_acked(&sent(&client, "any", "x").await?));
    apply(&router, "only", r#"permit (principal, action == Action::"request", resource == Topic::"questions");"#)?;
    ensure!(is_forbidden(&until_sent(&client, "any", is_forbidden).await?));
    // A request is another action than an event that asks for nothing. Nobody is there to answer; it was let pass.
    let answered = client.request("questions", "?", PATIENCE).await;
    ensure!(matches!(answered, Err(RequestError::NoResponder)), "{answered:?}");
    ensure!(is_forbidden(&sent(&client, "questions", "no request").await?));
    let gone = router.ask("DELETE", "/v1/policies/only", &[], b"")?;
    ensure!(gone.status == 204);
    until_sent(&client, "any", is_acked).await?;
    Ok(())
}

#[test]
fn tables_of_decisions_are_tested_offline() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write(
        "orders.cedar",
        r#"permit (principal, action == Action::"publish", resource) when { resource.name like "orders/*" };"#,
    )?;
    let case = |resource: &str, expect: &str| {
        let who = "[[case]]\nprincipal = \"spiffe://a/service/b\"\naction = \"publish\"\n";
        format!("{who}resource = \"{resource}\"\nexpect = \"{expect}\"\n")
    };
    let head = "policies = [\"orders.cedar\"]\n";
    write("good.toml", &format!("{head}{}{}", case("orders/1", "allow"), case("other", "deny")))?;
    write("bad.toml", &format!("{head}{}{}", case("orders/1", "deny"), case("other", "deny")))?;
    write("broken.cedar", "permit (principal, action, resource)\n  when { resource.colour == 1 };")?;
    write("broken.toml", &format!("policies = [\"broken.cedar\"]\n{}", case("x", "deny")))?;
    let run = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let output =
            std::process::Command::new(myelin_tests::program()).args(arguments).current_dir(folder.path()).output()?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.code(), told))
    };
    ensure!(run(&["policy", "test", "good.toml"])? == (Some(0), "2 decisions are as expected\n".to_owned()));
    let (code, told) = run(&["policy", "test", "bad.toml"])?;
    ensure!(code == Some(1) && told.contains("orders#1") && told.contains("1 of 2 decisions"), "{told}");
    let (code, told) = run(&["policy", "test", "broken.toml"])?;
    ensure!(code == Some(2) && told.contains("broken.cedar:2:10: "), "{told}");
    let (code, told) = run(&["policy", "schema"])?;
    ensure!(code == Some(0) && told.contains("entity Service"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_looks_at_events_judges_each() -> Result<()> {
    let router = Router::start()?;
    let client = router.client().await?;
    let mut events = client.subscribe("claims/**", SubscribeOptions::default()).await?;
    let text = r#"permit (principal, action, resource) when { resource.name like "claims/*" };
        forbid (principal, action == Action::"publish", resource)
        when { resource.name == "claims/eu" && !(context.event.hasTag("region") && context.event.getTag("region") == "eu") };"#;
    apply(&router, "claims", text)?;
    let outcome = async |topic: &str, region: Option<&str>| -> Result<Outcome> {
        let event = region.into_iter().fold(Event::new(topic, "x"), |event, region| event.header("region", region));
        Ok(timeout(PATIENCE, client.publish(event).await?).await?)
    };
    // One after the other on one stream: what was decided of one event is not said of the next.
    for _ in 0..3 {
        ensure!(is_acked(&outcome("claims/eu", Some("eu")).await?));
        let refused = outcome("claims/eu", Some("us")).await?;
        ensure!(is_forbidden(&refused) && format!("{refused:?}").contains("claims#2"), "{refused:?}");
        ensure!(is_forbidden(&outcome("claims/eu", None).await?));
        ensure!(is_acked(&outcome("claims/us", Some("us")).await?));
    }
    for _ in 0..3 {
        for topic in ["claims/eu", "claims/us"] {
            ensure!(next(&mut events).await?.0 == topic);
        }
    }
    let explain = |more: &[&str]| -> Result<String> {
        let question = ["policy", "explain", "spiffe://a/service/b", "publish", "claims/eu"];
        Ok(router.myelin(&[&question[..], more].concat())?.good()?.out)
    };
    let told = explain(&[])?;
    ensure!(told.contains("depends on the event") && told.contains("claims#2"), "{told}");
    ensure!(
        explain(&["-H", "region=eu"])?.starts_with("allowed") && explain(&["-H", "region=us"])?.starts_with("denied")
    );
    ensure!(router.myelin(&["explain", "claims/eu", "--as", "spiffe://a/service/b"])?.out.contains("IT DEPENDS"));
    ensure!(router.ledger()?["balances"] == true);
    Ok(())
}

/// A statement may look at events and speak of subscribing, where there is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_looks_at_events_keeps_subscribers_out_too() -> Result<()> {
    let router = Router::start()?;
    let client = router.client().await?;
    let mut all = client.subscribe("**", SubscribeOptions::default()).await?;
    let mut secrets = client.subscribe("secret/**", SubscribeOptions::default()).await?;
    let text = r#"permit (principal, action, resource);
        forbid (principal, action, resource) when { resource.name like "secret/*" }
        unless { context has event && context.event.source == "x" };"#;
    apply(&router, "secrets", text)?;
    // The open subscription ends, a new one is refused, and the broader one does not get what it may not have.
    let end = timeout(PATIENCE, secrets.next()).await?;
    ensure!(end.is_none(), "another event came: {end:?}");
    ensure!(secrets.error().context("it ended without a reason")?.to_string().contains("secrets#2"));
    let refused = client.subscribe("secret/1", SubscribeOptions::default()).await;
    ensure!(matches!(&refused, Err(ClientError::Refused(refusal)) if refusal.code == Code::Forbidden), "{refused:?}");
    let from_x = Event::new("secret/1", "x").source("x");
    ensure!(is_acked(&timeout(PATIENCE, client.publish(from_x).await?).await?));
    ensure!(is_forbidden(&sent(&client, "secret/1", "y").await?));
    ensure!(is_acked(&sent(&client, "open/1", "z").await?));
    ensure!(next(&mut all).await? == ("open/1".into(), "z".into()));
    let told = router.myelin(&["policy", "explain", "spiffe://a/service/b", "subscribe", "secret/1"])?.out;
    ensure!(told.starts_with("denied") && told.contains("secrets#2"), "{told}");
    ensure!(router.ledger()?["balances"] == true);
    Ok(())
}
