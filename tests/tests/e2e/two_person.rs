//! The rule of two over a mesh: what one asks for at one router, another approves at another one.

use crate::attacks::eventually;
use anyhow::{Context, Result, ensure};
use myelin_tests::Router;
use myelin_tests::admin::Answer;
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::sites::{Sites, shapes};
use serde_json::{Value, json};

const TOKEN: &str = "correct-horse-battery-staple";

fn with_token(router: &Router, path: &str, body: &Value) -> Result<Answer> {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
    router.ask("POST", path, &headers, body.to_string().as_bytes())
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

/// Asks for a rollout that observes its canary for an hour.
fn asks_to_start(router: &Router) -> Result<Value> {
    ensure!(router.upload("gate", "1.0.0", &component(Behaviour::Allow)?)?.status == 201);
    let binding = json!({"module": "gate@1.0.0", "pattern": "orders/**"});
    ensure!(router.send_json("PUT", "/v1/bindings/gate", &binding)?.status == 202);
    let plan = json!({"canary": ["s0"], "waves": [100], "observe_s": 3_600, "events_min": 0});
    let asked = router.send_json("POST", "/v1/rollouts", &json!({"plan": plan, "note": "try it"}))?;
    let proposal = asked.json();
    ensure!(asked.status == 202 && proposal["by"] == "local", "{proposal}");
    Ok(proposal)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_and_a_promotion_are_approved_at_another_router_also_after_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN)?;
    let token_file = file.to_string_lossy().into_owned();
    let keys = [("ADMIN__TWO_PERSON", "true"), ("ADMIN__TOKEN_FILE", &*token_file)];
    let mut sites = Sites::start_with(2, &shapes::line(2), &keys).await?;
    let [first, second] = [0, 1];
    let proposal = asks_to_start(&sites.routers[first])?;
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

    // Nobody approves what is their own, wherever; and it begins once.
    let approve = format!("/v1/rollouts/{number}/approve");
    for site in [first, second] {
        let own = sites.routers[site].ask("POST", &approve, &[], b"")?;
        ensure!(own.status == 403 && own.json()["code"] == "two-person", "{}", own.json());
    }
    // Routers that have just started find each other again first: until then nothing is written, and nothing begins.
    let mut begun = with_token(&sites.routers[second], &approve, &json!({}))?;
    eventually("a path to the router that writes the catalog", || {
        if begun.code() == "writer-unreachable" {
            begun = with_token(&sites.routers[second], &approve, &json!({}))?;
        }
        Ok(begun.code() != "writer-unreachable")
    })
    .await?;
    let (rollout, both) = (begun.json(), "local, approved by token");
    ensure!(begun.status == 202 && rollout["actor"] == both, "{}: {rollout}", begun.status);
    waits(&sites.routers[first], &[]).await?;
    ensure!(with_token(&sites.routers[first], &approve, &json!({}))?.status == 404);

    // A step ahead of time needs two as well, here the other way around.
    let id = &rollout["id"];
    is_at(&sites.routers[second], id, &["observe"]).await?;
    let promote = format!("/v1/rollouts/{id}/promote");
    let asked = with_token(&sites.routers[second], &promote, &json!({"reason": "it is quiet"}))?;
    let proposal = asked.json();
    ensure!(asked.status == 202 && proposal["wants"] == "promote" && proposal["rollout"] == *id, "{proposal}");
    let number = proposal["proposal"].as_u64().context("its number")?;
    waits(&sites.routers[first], &[number]).await?;
    let approve = format!("/v1/rollouts/{number}/approve");
    ensure!(with_token(&sites.routers[first], &approve, &json!({}))?.status == 403);
    let promoted = sites.routers[first].ask("POST", &approve, &[], b"")?;
    ensure!(promoted.status == 202, "{}: {}", promoted.status, promoted.json());
    for site in [first, second] {
        is_at(&sites.routers[site], id, &["wave 1", "complete"]).await?;
        waits(&sites.routers[site], &[]).await?;
    }
    // Going back needs one.
    let aborted = sites.routers[second].ask(
        "POST",
        &format!("/v1/rollouts/{id}/abort"),
        &[("Content-Type", "application/json")],
        b"{}",
    )?;
    ensure!([200, 404, 409].contains(&aborted.status), "{}", aborted.status);
    Ok(())
}
