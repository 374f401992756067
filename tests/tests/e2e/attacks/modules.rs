//! Every hostile module by the admin API at a real router, beside a healthy binding that goes on judging right.

use super::assert_growth;
use crate::routing::{PATIENCE, decided};
use anyhow::{Context, Result, ensure};
use myelin_attacks::modules::{self, COMPILE_CPU_SECONDS, GRANTED, POISON, Stop};
use myelin_client::{Client, Event, Outcome, SubscribeOptions, Subscription};
use myelin_tests::{Healthy, Router, Setup};
use serde_json::json;
use tokio::time::timeout;

/// What the uploads and the calls of all modules may leave behind: compiled code of those that were kept, and their
/// instances.
const GROWTH_KIB_MAX: u64 = 256 * 1024;

fn start() -> Result<Router> {
    let variables = vec![("MYELIN_WASM__COMPILE_CPU_SECONDS".to_owned(), COMPILE_CPU_SECONDS.to_string())];
    Router::start_with(Setup { workers: 2, variables })
}

/// Stages a binding of the module, and gives the problem where there is one.
fn stage(router: &Router, name: &str, on_fault: &str) -> Result<Option<String>> {
    let binding = json!({
        "module": format!("{name}@1.0.0"), "pattern": format!("bad/{name}/**"), "on_fault": on_fault,
        "grant": { "topics": [GRANTED] },
    });
    let answer = router.send_json("PUT", &format!("/v1/bindings/{name}"), &binding)?;
    Ok((answer.status != 202).then(|| answer.code()))
}

/// Activates what is staged, and gives the problem where there is one.
fn roll_out(router: &Router) -> Result<Option<String>> {
    let answer = router.send_json("POST", "/v1/rollouts", &json!({}))?;
    Ok((answer.status / 100 != 2).then(|| answer.code()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_get_in_is_refused_at_upload_and_leaves_nothing() -> Result<()> {
    let router = start()?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    healthy.beat(1).await?;
    let (before, mut refused) = (router.own_memory_kib()?, 0);
    for module in modules::all() {
        let code = match module.stop {
            // What is announced as too large is refused before a byte of it is read.
            Stop::Inspect("module-too-large") => "body-too-large",
            Stop::Inspect(code) | Stop::Compile(code) | Stop::Load(code) | Stop::SelfTest(code) => code,
            Stop::Bind(_) | Stop::Call(_) | Stop::Save(_) | Stop::Borne => continue,
        };
        let answer = match code {
            "body-too-large" => {
                let len = module.wasm().len().to_string();
                let headers = [("Content-Type", "application/wasm"), ("Content-Length", &len)];
                router.ask("PUT", "/v1/modules/large/versions/1.0.0", &headers, b"")?
            }
            _ => router.upload(module.name, "1.0.0", &module.wasm())?,
        };
        assert_eq!(answer.code(), code, "{}: {answer:?}", module.name);
        healthy.beat(1).await?;
        refused += 1;
    }
    ensure!(refused >= 40, "{refused}");
    assert_eq!(router.ask("GET", "/v1/modules", &[], b"")?.json()["modules"], json!([]), "nothing is kept");
    assert_growth(&router, before, GROWTH_KIB_MAX)?;
    assert_eq!(router.settled_ledger()?["balances"], true);
    println!("{refused} modules refused");
    Ok(())
}

/// Wakes a module, and checks that its binding's declared verdict stands for it.
async fn wake(client: &Client, name: &str, on_fault: &str, code: &str, seen: &mut Subscription) -> Result<()> {
    let topic = format!("bad/{name}/x");
    let fine = decided(client, Event::new(&topic, "fine")).await?;
    ensure!(matches!(fine, Outcome::Acked), "before: {fine:?}");
    expect(seen, &topic, "fine").await?;
    let outcome = decided(client, Event::new(&topic, POISON)).await?;
    let wanted = match on_fault {
        "reject" => "filter-fault",
        "dead-letter" => "dead-lettered",
        _ => {
            ensure!(matches!(outcome, Outcome::Acked), "passes: {outcome:?}");
            return expect(seen, &topic, POISON).await;
        }
    };
    let Outcome::Refused { code: told, detail } = &outcome else { anyhow::bail!("{outcome:?}") };
    ensure!(told.name() == wanted && detail.contains(&format!("{name}: {code}: ")), "{outcome:?}");
    let fine = decided(client, Event::new(&topic, "fine")).await?;
    ensure!(matches!(fine, Outcome::Acked), "after: {fine:?}");
    expect(seen, &topic, "fine").await
}

async fn expect(seen: &mut Subscription, topic: &str, payload: &str) -> Result<()> {
    let event = timeout(PATIENCE, seen.next()).await.context("in time")?.context("an event")?;
    ensure!(
        event.topic() == topic && event.payload() == payload.as_bytes(),
        "{event:?} where {topic} {payload} was due"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bides_its_time_hurts_its_own_binding_only() -> Result<()> {
    let router = start()?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    assert_eq!(router.upload("quiet", "1.0.0", &modules::quiet())?.status, 201);
    let binding = json!({ "module": "quiet@1.0.0", "pattern": "calm" });
    assert_eq!(router.send_json("PUT", "/v1/bindings/calm", &binding)?.status, 202);
    let mut woken = Vec::new();
    for module in modules::all() {
        let code = match module.stop {
            Stop::Call(code) => Some(code),
            Stop::Save(_) | Stop::Borne => None,
            _ => continue,
        };
        let answer = router.upload(module.name, "1.0.0", &module.wasm())?;
        assert_eq!(answer.status, 201, "{}: {answer:?}", module.name);
        let on_fault = ["reject", "dead-letter", "pass"][woken.len() % 3];
        assert_eq!(stage(&router, module.name, on_fault)?, None, "{}", module.name);
        woken.push((module.name, on_fault, code));
    }
    assert_eq!(roll_out(&router)?, None);
    healthy.beat(10).await?;
    let client = router.client().await?;
    let mut seen = client.subscribe("bad/**", SubscribeOptions::default()).await?;
    let before = router.own_memory_kib()?;
    for (name, on_fault, code) in &woken {
        match code {
            Some(code) => wake(&client, name, on_fault, code, &mut seen).await.context(*name)?,
            None => {
                let topic = format!("bad/{name}/x");
                let outcome = decided(&client, Event::new(&topic, POISON)).await?;
                ensure!(matches!(outcome, Outcome::Acked), "{name}: {outcome:?}");
                expect(&mut seen, &topic, POISON).await.context(*name)?;
            }
        }
        healthy.beat(2).await?;
    }
    assert_growth(&router, before, GROWTH_KIB_MAX)?;
    // A swap asks every filter for its state, those that loop and lie when asked included.
    let again = json!({ "module": "quiet@1.0.0", "pattern": "calm", "order": 1 });
    assert_eq!(router.send_json("PUT", "/v1/bindings/calm", &again)?.status, 202);
    for (name, on_fault, code) in &woken {
        if code.is_none() {
            let binding = json!({
                "module": format!("{name}@1.0.0"), "pattern": format!("bad/{name}/**"), "on_fault": on_fault,
                "grant": { "topics": [GRANTED] }, "order": 1,
            });
            assert_eq!(router.send_json("PUT", &format!("/v1/bindings/{name}"), &binding)?.status, 202);
        }
    }
    assert_eq!(roll_out(&router)?, None);
    healthy.beat(10).await?;
    ensure!(woken.len() >= 40, "{}", woken.len());
    println!("{} modules woken", woken.len());
    assert_eq!(router.settled_ledger()?["balances"], true);
    Ok(())
}

#[test]
fn a_route_outside_the_grant_is_refused_before_it_is_active() -> Result<()> {
    let router = start()?;
    for module in modules::all() {
        let Stop::Bind(code) = module.stop else { continue };
        assert_eq!(router.upload(module.name, "1.0.0", &module.wasm())?.status, 201, "{}", module.name);
        let problem = match stage(&router, module.name, "reject")? {
            Some(code) => Some(code),
            None => roll_out(&router)?,
        };
        assert_eq!(problem.as_deref(), Some(code), "{}", module.name);
    }
    assert_eq!(router.ask("GET", "/v1/status", &[], b"")?.json()["generation"].as_u64().unwrap_or(0), 0);
    Ok(())
}
