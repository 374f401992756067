//! Tenants that share routers: nothing of one reaches another, and none uses more than its quota.

use anyhow::{Context, Result, bail, ensure};
use myelin_client::{
    Client, ClientConfig, ClientError, Event, Outcome, Overflow, Status, SubscribeOptions, Subscription,
};
use myelin_tests::sites::{PATIENCE, Sites, shapes};
use myelin_tests::{Router, Setup};
use myelin_wire::Code;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::time::timeout;

const TENANTS: usize = 20;
const PAIRS: usize = 10_000;
const SEED: u64 = 20_26;

fn set(router: &Router, name: &str, tenant: &Value) -> Result<()> {
    let answer = router.send_json("PUT", &format!("/v1/tenants/{name}"), tenant)?;
    ensure!(answer.status == 204, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(())
}

async fn known(router: &Router, count: usize) -> Result<()> {
    crate::attacks::eventually("the tenants", || {
        Ok(router.ask("GET", "/v1/tenants", &[], b"")?.json()["tenants"].as_array().map(Vec::len) == Some(count))
    })
    .await
}

async fn sent(client: &Client, topic: &str, payload: &str) -> Result<Outcome> {
    Ok(timeout(PATIENCE, client.publish(Event::new(topic, payload)).await?).await?)
}

async fn subscribed(client: &Client, pattern: &str) -> Result<Option<Subscription>> {
    match client.subscribe(pattern, SubscribeOptions::default()).await {
        Ok(subscription) => Ok(Some(subscription)),
        Err(ClientError::Refused(refusal)) if refusal.code == Code::Forbidden => Ok(None),
        Err(other) => Err(other.into()),
    }
}

async fn next(events: &mut Subscription) -> Result<(String, String)> {
    let event = timeout(PATIENCE, events.next()).await?.context("the subscription ended")?;
    Ok((event.topic().to_owned(), String::from_utf8_lossy(event.payload()).into_owned()))
}

/// One service of a tenant at each of two sites, that takes whatever it can get.
struct Pair {
    clients: [Client; 2],
    /// What it gets at each site: by its own topics, and by whatever else it was let subscribe to.
    events: Vec<Subscription>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_pairs_of_twenty_tenants_leak_nothing() -> Result<()> {
    let sites = Sites::start_with(2, &shapes::line(2), &[]).await?;
    let mut random = fastrand::Rng::with_seed(SEED);
    for tenant in 0..TENANTS {
        // Roots that begin alike, of one and of two levels.
        let root = if tenant % 2 == 0 { format!("t{tenant}") } else { format!("t/{tenant}") };
        let services = [format!("spiffe://test/service/t{tenant}")];
        set(&sites.routers[0], &format!("t{tenant}"), &json!({"services": services, "root": root}))?;
    }
    for router in &sites.routers {
        known(router, TENANTS).await?;
    }
    let roots: Vec<String> =
        (0..TENANTS).map(|tenant| if tenant % 2 == 0 { format!("t{tenant}") } else { format!("t/{tenant}") }).collect();
    let mut pairs = Vec::new();
    for (tenant, root) in roots.iter().enumerate() {
        let name = format!("t{tenant}");
        let clients = [sites.client(0, &name, Overflow::Pause).await?, sites.client(1, &name, Overflow::Pause).await?];
        let mut events = Vec::new();
        for client in &clients {
            // Whatever reaches further is refused as a whole.
            for pattern in ["**", "*", "*/**", "t/**", "t/*/x", "$dead/**", "$dead/*/**"] {
                ensure!(subscribed(client, pattern).await?.is_none(), "{name} may subscribe to {pattern}");
            }
            events.push(subscribed(client, &format!("{root}/**")).await?.context("its own topics")?);
        }
        pairs.push(Pair { clients, events });
    }
    let outsider = sites.client(1, "outsider", Overflow::Pause).await?;
    let mut outside = subscribed(&outsider, "**").await?.context("a service of no tenant")?;
    // The outsider's `**` covers all that site 1 wants.
    sites.agree(&[(0, 1), (1, TENANTS)]).await?;

    // Who sends and who is meant are drawn anew each time; what arrives says who sent it and how many before.
    let mut sent_by: BTreeMap<usize, u64> = BTreeMap::new();
    let mut refused = 0;
    for _ in 0..PAIRS {
        let (from, to) = (random.usize(0..TENANTS), random.usize(0..TENANTS));
        let topic = format!("{}/{}", roots[to], ["x", "y/z", "orders/eu/1"][random.usize(0..3)]);
        let client = &pairs[from].clients[random.usize(0..2)];
        match sent(client, &topic, &from.to_string()).await? {
            Outcome::Acked if from == to => *sent_by.entry(from).or_default() += 1,
            Outcome::Refused { code: Code::Forbidden, .. } if from != to => refused += 1,
            other => bail!("t{from} to {topic}: {other:?}"),
        }
        if random.usize(0..20) == 0 && from != to {
            let pattern = format!("{}/**", roots[to]);
            ensure!(subscribed(client, &pattern).await?.is_none(), "t{from} may subscribe to {pattern}");
        }
    }
    ensure!(refused > PAIRS / 2, "{refused} of {PAIRS}");
    // Both of each tenant get exactly what the two have sent, and the outsider nothing but what is nobody's.
    for (tenant, pair) in pairs.iter_mut().enumerate() {
        for events in &mut pair.events {
            for _ in 0..sent_by.get(&tenant).copied().unwrap_or_default() {
                let (topic, from) = next(events).await?;
                ensure!(
                    from == tenant.to_string() && topic.starts_with(&format!("{}/", roots[tenant])),
                    "{topic} {from}"
                );
            }
        }
    }
    ensure!(matches!(sent(&outsider, "free", "outside").await?, Outcome::Acked));
    ensure!(next(&mut outside).await? == ("free".into(), "outside".into()), "something came before");
    drop(pairs);
    sites.settle().await?;
    sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_topics_and_questions_cross_and_nothing_else_does() -> Result<()> {
    let sites = Sites::start_with(2, &shapes::line(2), &[]).await?;
    let acme = json!({"services": ["spiffe://test/service/acme-*"], "shares": [
        {"topics": "acme/news/**", "with": ["umbra"]},
        {"topics": "acme/ask/*", "with": ["umbra"], "access": "publish"},
    ]});
    set(&sites.routers[1], "acme", &acme)?;
    set(&sites.routers[1], "umbra", &json!({"services": ["spiffe://test/service/umbra"]}))?;
    for router in &sites.routers {
        known(router, 2).await?;
    }
    let acme = sites.client(0, "acme-1", Overflow::Pause).await?;
    let umbra = sites.client(1, "umbra", Overflow::Pause).await?;
    let mut news = subscribed(&umbra, "acme/news/**").await?.context("shared")?;
    ensure!(subscribed(&umbra, "acme/**").await?.is_none() && subscribed(&umbra, "acme/ask/*").await?.is_none());
    let mut questions = subscribed(&acme, "acme/ask/*").await?.context("its own")?;
    sites.agree(&[(0, 1), (1, 1)]).await?;
    for topic in ["acme/secret", "acme/news/today"] {
        ensure!(matches!(sent(&acme, topic, "from acme").await?, Outcome::Acked), "{topic}");
    }
    ensure!(next(&mut news).await? == ("acme/news/today".into(), "from acme".into()));
    // A question of another tenant is answered, across the link.
    let asked = tokio::spawn(async move {
        let answer = umbra.request_event(Event::new("acme/ask/price", "how much?"), PATIENCE).await;
        (umbra, answer)
    });
    let question = timeout(PATIENCE, questions.next()).await?.context("the question")?;
    let reply_to = question.reply_to().context("where to")?.to_owned();
    ensure!(reply_to.contains(":umbra/"), "{reply_to}");
    acme.reply(&question, "7").await?;
    let (umbra, answer) = asked.await?;
    ensure!(answer?.payload() == b"7");
    // Nobody answers who was not asked: a service without a tenant knows the name of the inbox.
    let stranger = sites.client(1, "stranger", Overflow::Pause).await?;
    let told = sent(&stranger, &reply_to, "8").await?;
    ensure!(matches!(&told, Outcome::Refused { code: Code::Forbidden, .. }), "{told:?}");
    // What is no longer shared ends under the open session, and is explained.
    set(&sites.routers[0], "acme", &json!({"services": ["spiffe://test/service/acme-*"]}))?;
    ensure!(timeout(PATIENCE, news.next()).await?.is_none(), "it goes on");
    let question =
        json!({"principal": "spiffe://test/service/umbra", "action": "subscribe", "resource": "acme/news/x"});
    let answer = sites.routers[1].send_json("POST", "/v1/policies/explain", &question)?.json();
    ensure!(answer["allowed"] == false && answer["tenant"] == "umbra" && answer["foreign"].is_string(), "{answer}");
    drop((acme, umbra, stranger));
    sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_takes_no_work_and_stops_nobody() -> Result<()> {
    let sites = Sites::start_with(2, &shapes::line(2), &[]).await?;
    let acme = json!({"services": ["spiffe://test/service/acme"], "shares": [
        {"topics": "acme/news/**", "with": ["umbra"]},
    ]});
    set(&sites.routers[0], "acme", &acme)?;
    set(&sites.routers[0], "umbra", &json!({"services": ["spiffe://test/service/umbra"]}))?;
    for router in &sites.routers {
        known(router, 2).await?;
    }
    let publisher = sites.client(0, "acme", Overflow::Pause).await?;
    let workers =
        [sites.client(1, "acme", Overflow::DropOldest).await?, sites.client(1, "umbra", Overflow::DropOldest).await?];
    let mut groups = Vec::new();
    for worker in &workers {
        // One session is one member, however often it joins.
        let mut joined = Vec::new();
        for _ in 0..5 {
            joined.push(worker.subscribe("acme/news/**", SubscribeOptions::group("workers")).await?);
        }
        groups.push(joined);
    }
    sites.agree(&[(0, 2), (1, 0)]).await?;
    for number in 0..20 {
        ensure!(matches!(sent(&publisher, "acme/news/x", &number.to_string()).await?, Outcome::Acked));
    }
    for joined in &mut groups {
        for number in 0..20 {
            ensure!(next(&mut joined[0]).await? == ("acme/news/x".into(), number.to_string()));
        }
    }
    // It lets publishers wait, and never reads: those of the other tenant do not.
    let idle = sites.client(0, "umbra", Overflow::Pause).await?;
    let unread = subscribed(&idle, "acme/news/**").await?.context("shared")?;
    let payload = "x".repeat(500_000);
    for _ in 0..120 {
        ensure!(matches!(sent(&publisher, "acme/news/large", &payload).await?, Outcome::Acked));
    }
    drop((publisher, workers, groups, unread, idle));
    sites.settle().await?;
    sites.end()
}

/// One router with the tenant `acme`, whose service is the development client.
async fn limited(quota: Value) -> Result<Router> {
    let router = Router::start_with(Setup::default())?;
    set(&router, "acme", &json!({"services": ["spiffe://myelin.dev/*"], "quota": quota}))?;
    Ok(router)
}

fn used(router: &Router, figure: &str) -> Result<u64> {
    let tenant = router.ask("GET", "/v1/tenants/acme", &[], b"")?.json();
    tenant["usage"][figure].as_u64().with_context(|| format!("{figure} in {tenant}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_holds_publishers_back_and_loses_nothing() -> Result<()> {
    let router = limited(json!({"events_per_s": 200})).await?;
    let client = router.client().await?;
    let mut events = subscribed(&client, "acme/**").await?.context("its own")?;
    let mut acks = Vec::new();
    for number in 0..300 {
        acks.push(client.publish(Event::new("acme/x", &number.to_string())).await?);
    }
    for ack in acks {
        ensure!(matches!(timeout(PATIENCE, ack).await?, Outcome::Acked));
    }
    for number in 0..300 {
        ensure!(next(&mut events).await? == ("acme/x".into(), number.to_string()));
    }
    ensure!(used(&router, "events")? == 300 && used(&router, "paused_ms")? > 0);
    ensure!(router.metric("myelin_tenant_events_total{tenant=\"acme\"}")? == 300);
    router.settled_ledger()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_dead_letters_stop_at_the_quota() -> Result<()> {
    let router = limited(json!({"connections": 2, "dead_letters_per_s": 1})).await?;
    let client = router.client().await?;
    let second = router.client().await?;
    let mut config = router.client_config();
    config.reconnect = false;
    let refused = Client::connect(config).await.err().context("a third connection")?;
    ensure!(refused.to_string().contains("tenant acme has 2 connections"), "{refused}");
    drop(second);
    crate::attacks::eventually("a free place", || Ok(used(&router, "connections")? == 1)).await?;

    let rule = json!({"pattern": "acme/**", "schema": {"subject": "x", "on_invalid": "dead-letter"}});
    let schema = json!({"schemaType": "JSON", "schema": r#"{"type": "object"}"#});
    let registered = router.send_json("POST", "/registry/subjects/x/versions", &schema)?;
    ensure!(registered.status == 200, "{}", registered.status);
    ensure!(router.send_json("PUT", "/v1/topics/acme", &rule)?.status == 204);
    let (mut buried, mut refused) = (0, 0);
    for _ in 0..20 {
        match sent(&client, "acme/x", "no object").await? {
            Outcome::Refused { code: Code::DeadLettered, .. } => buried += 1,
            Outcome::Refused { code: Code::SchemaViolation, .. } => refused += 1,
            other => bail!("{other:?}"),
        }
    }
    ensure!(buried > 0 && refused > 0, "{buried} buried, {refused} refused");
    ensure!(used(&router, "dead_letters")? == buried && used(&router, "dead_letters_refused")? == refused);
    router.settled_ledger()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_has_no_more_sessions_than_it_may() -> Result<()> {
    let variables = vec![("MYELIN_NODE__SESSIONS_PER_IDENTITY".to_owned(), "2".to_owned())];
    let router = Router::start_with(Setup { variables, ..Setup::default() })?;
    let first = router.client().await?;
    let second = router.client().await?;
    let mut config = router.client_config();
    config.reconnect = false;
    let refused = Client::connect(config).await.err().context("a third session")?;
    ensure!(
        refused.code() == "too-many-sessions" && refused.to_string().contains("sessions_per_identity"),
        "{refused}"
    );
    drop(first);
    crate::attacks::eventually("a free place", || Ok(router.metric("myelin_sessions")? == 1)).await?;
    let third = router.client().await?;
    drop((second, third));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_has_no_more_subscriptions_than_it_may_in_all_its_sessions() -> Result<()> {
    let variables = vec![("MYELIN_NODE__SUBSCRIPTIONS_PER_IDENTITY".to_owned(), "3".to_owned())];
    let router = Router::start_with(Setup { variables, ..Setup::default() })?;
    let (first, second) = (router.client().await?, router.client().await?);
    let mut held = Vec::new();
    for (client, topic) in [(&first, "a"), (&second, "b"), (&second, "c")] {
        held.push(client.subscribe(topic, SubscribeOptions::default()).await?);
    }
    for client in [&first, &second] {
        let refused = client.subscribe("d", SubscribeOptions::default()).await.err().context("a fourth")?;
        ensure!(refused.code() == "too-many-subscriptions", "{refused}");
        ensure!(refused.to_string().contains("subscriptions_per_identity"), "{refused}");
    }
    // What ends makes room, in whichever session: a subscription, then a whole session.
    drop(held.remove(0));
    held.push(first.subscribe("d", SubscribeOptions::default()).await?);
    ensure!(second.subscribe("e", SubscribeOptions::default()).await.is_err());
    drop((held, second));
    crate::attacks::eventually("a session less", || Ok(router.metric("myelin_sessions")? == 1)).await?;
    let mut held = Vec::new();
    for topic in ["a", "b", "c"] {
        held.push(first.subscribe(topic, SubscribeOptions::default()).await?);
    }
    ensure!(first.subscribe("d", SubscribeOptions::default()).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_tenant_is_another_one() -> Result<()> {
    let router = Router::start()?;
    let mut config: ClientConfig = router.client_config();
    config.reconnect = false;
    let client = Client::connect(config).await?;
    ensure!(matches!(sent(&client, "orders", "free").await?, Outcome::Acked));
    set(&router, "acme", &json!({"services": ["spiffe://myelin.dev/*"]}))?;
    let mut status = client.status();
    let ended = timeout(PATIENCE, status.wait_for(|status| matches!(status, Status::Closed(_)))).await??.clone();
    ensure!(format!("{ended:?}").contains("connect again"), "{ended:?}");
    let client = router.client().await?;
    let told = sent(&client, "orders", "taken").await?;
    let Outcome::Refused { code: Code::Forbidden, detail } = &told else { bail!("{told:?}") };
    ensure!(detail.contains("the topics of tenant acme are `acme/**`"), "{detail}");
    Ok(())
}
