//! Rules and policies that come with a rollout: site after site, watched by its gates, and taken back by itself.

use crate::attacks::eventually;
use crate::mesh::{PATIENCE, Sites};
use anyhow::{Context, Result, ensure};
use myelin::capture::CaptureSpec;
use myelin::world::{Actor, Change, Look, View, WorldError};
use myelin_catalog::rollout::{Cause, Outcome, Rollout};
use myelin_catalog::schemas::Wanted;
use myelin_catalog::{
    Digest, Gates, GovernanceChange, NewSchema, Op, Policy, RolloutPlan, SchemaFormat, SchemaVersion, TopicRule,
};
use myelin_client::{Client, Event, SubscribeOptions};
use myelin_tests::sites::Sites as RealSites;
use myelin_wire::Pattern;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const SUBJECT: &str = "orders-value";
/// What is published has a number as its id, and every tenth a text: the second of these turns that back.
const VERSIONS: [&str; 3] = [
    r#"{"type":"object","properties":{"id":{"type":["integer","string"]}}}"#,
    r#"{"type":"object","properties":{"id":{"type":"integer"}}}"#,
    r#"{"type":"object","properties":{"id":{"type":["integer","string"]}},"required":["id"]}"#,
];

fn ann() -> Actor {
    "ann".into()
}

async fn record(sites: &Sites, op: Op) -> Result<u64, WorldError> {
    sites.at(0).world().change(Change::Record(Box::new(op)), None, ann()).await
}

async fn register(sites: &Sites, text: &str) -> Result<()> {
    let (format, digest) = (SchemaFormat::Json, Digest::of(text.as_bytes()));
    let schema = NewSchema { format, digest, text: text.to_owned(), references: Vec::new() };
    let catalog = sites.at(0).world().view().catalog.clone();
    let Wanted::New(registration) = catalog.schemas().register_next(&SUBJECT.parse()?, schema) else {
        anyhow::bail!("it is there")
    };
    record(sites, Op::SchemaRegistered { registration }).await?;
    Ok(())
}

fn rule(version: u32) -> Result<Box<TopicRule>> {
    let schema = json!({"subject": SUBJECT, "version": version});
    Ok(serde_json::from_value(json!({"name": "orders", "pattern": "orders/**", "schema": schema}))?)
}

fn judged_by(version: u32) -> Result<GovernanceChange> {
    Ok(GovernanceChange::TopicRuleSet { rule: rule(version)? })
}

fn policy(name: &str, text: &str) -> Result<Policy> {
    Ok(Policy { name: name.parse()?, text: text.to_owned() })
}

fn plan(changes: Vec<GovernanceChange>) -> Result<RolloutPlan> {
    Ok(RolloutPlan {
        canary: vec!["s1".parse()?],
        waves: vec![100],
        observe_s: 1,
        events_min: 50,
        gates: Gates { module_p99_us: None, fuel_percent: None, ..Gates::default() },
        deadline_s: 60,
        changes,
        ..RolloutPlan::default()
    })
}

/// Waits until `seen` holds at every site.
async fn everywhere(sites: &Sites, what: &str, seen: impl Fn(&View) -> bool) -> Result<()> {
    for node in sites.nodes.iter().flatten() {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !seen(&node.world().view()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.with_context(|| {
            let view = node.world().view();
            format!("{what}: {:?} of {:?}, alarms {:?}", view.report, view.catalog.rollout(), view.alarms)
        })?;
    }
    Ok(())
}

/// Rolls out, and waits until that is over and every site runs what is active there.
async fn roll_out(sites: &Sites, changes: Vec<GovernanceChange>) -> Result<Rollout> {
    follow(sites, RolloutPlan { accept_failures: true, ..plan(changes)? }).await
}

async fn follow(sites: &Sites, plan: RolloutPlan) -> Result<Rollout> {
    let id = sites.at(2).world().start_governance(plan, ann()).await?;
    let over = |view: &View| view.catalog.rollouts().any(|rollout| rollout.id == id && !rollout.is_running());
    everywhere(sites, "its end", over).await?;
    everywhere(sites, "what is active", |view| view.generation == view.active().number).await?;
    let view = sites.at(0).world().view();
    Ok(Rollout::clone(view.catalog.rollouts().find(|rollout| rollout.id == id).context("remembered")?))
}

/// What every site judges orders by: the subject and its version.
fn judging(sites: &Sites) -> Vec<String> {
    let by = |node: &myelin::node::Node| {
        let screens = node.shared().screens.load();
        screens.of("orders/new").map(|screen| screen.describe()).collect::<Vec<_>>().join(", ")
    };
    let by = sites.nodes.iter().flatten().map(by);
    by.map(|by| by.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// Publishes orders until it is told to stop.
async fn publish(client: Client, is_over: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> Result<()> {
    let mut number = 0u64;
    while !is_over.load(Ordering::Relaxed) {
        let payload = if number.is_multiple_of(10) { r#"{"id":"ten"}"# } else { r#"{"id":1}"# };
        client.send(Event::new("orders/new", payload)).await?;
        sent.fetch_add(1, Ordering::Relaxed);
        number += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    client.flush().await;
    Ok(())
}

fn check_rolled_back(rollout: &Rollout) -> Result<()> {
    let cause = rollout.abort.as_ref().map(|abort| abort.cause);
    ensure!(cause == Some(Cause::GateRejects), "{rollout:?}");
    ensure!(rollout.end.as_ref().is_some_and(|end| end.outcome == Outcome::RolledBack), "{rollout:?}");
    let reached: Vec<_> = rollout.reached().map(|site| site.as_str()).collect();
    ensure!(reached == ["s1"], "it held at the canary only: {reached:?}");
    Ok(())
}

/// A router that has recorded what would be turned back says so before anything begins.
async fn check_recorded(sites: &Sites) -> Result<()> {
    let captures = &sites.at(0).shared().captures;
    let spec = CaptureSpec::new(Pattern::new("orders/**")?);
    let id = captures.start(spec, ("s0", "r1"), "ann".into(), (sites.at(0).shared().now_ms(), 0))?.id;
    let recorded = async {
        while captures.find(id).is_some_and(|capture| capture.info(0).events < 20) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, recorded).await.context("recorded events")?;
    let told = follow(sites, plan(vec![judged_by(2)?])?).await?;
    let abort = told.abort.as_ref().context("it is refused")?;
    ensure!(abort.cause == Cause::Nack && told.reached().count() == 0, "{told:?}");
    for part in ["router s0/r1", "recorded events would be turned back", "orders/new from spiffe:"] {
        ensure!(abort.reason.contains(part), "{part}: {}", abort.reason);
    }
    // Everybody reads it: nothing of a payload is in it.
    ensure!(!abort.reason.contains("/id"), "{}", abort.reason);

    // Nor is it told without end: it counts among the looks of who has asked for it.
    let look = Look { actor: ann(), sees_payloads: false, subject: "orders".to_owned() };
    let world = sites.at(0).world();
    let mut looks = 1;
    let last = loop {
        let looked = world.check_recorded(&look, vec![*rule(2)?], world.schemas()).await;
        match looked.err().context("a tenth is turned back")? {
            error if error.code == "recorded-events" => looks += 1,
            error => break error,
        }
    };
    ensure!(last.code == "too-many-looks" && looks == 32, "{last} after {looks}");
    for version in [2, 3] {
        // One turns something back, one nothing: neither is told.
        let told = follow(sites, plan(vec![judged_by(version)?])?).await?;
        let reason = &told.abort.as_ref().context("it is refused")?.reason;
        ensure!(reason.contains("had recorded events judged 32 times"), "{reason}");
        ensure!(!reason.contains("would be turned back"), "{reason}");
    }
    Ok(())
}

/// What came in at each site and was forbidden, passed the rule, and was turned back by it. An event is judged once, by the
/// version that holds there.
fn judged(sites: &Sites) -> Result<Vec<(u64, u64, u64)>> {
    let mut judged = Vec::new();
    for node in sites.nodes.iter().flatten() {
        let denied = node.shared().denials.by_action().iter().map(|(_, count)| count).sum::<u64>();
        let screens = node.shared().screens.load();
        let (passed, refused, dead) = screens.all().next().context("the rule")?.counts();
        judged.push((denied, passed, refused + dead));
    }
    Ok(judged)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_schema_or_policy_is_caught_at_the_canary_and_one_that_fits_reaches_all() -> Result<()> {
    let sites = Sites::start(3, |site, other| other + 1 == site).await?;
    for text in VERSIONS {
        register(&sites, text).await?;
    }
    record(&sites, Op::TopicRuleSet { rule: rule(1)? }).await?;
    everywhere(&sites, "the rule", |view| view.catalog.topic_rules().len() == 1).await?;
    let (is_over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut publishers = Vec::new();
    for site in 0..3 {
        let client = sites.client(site, &format!("publisher-{site}")).await?;
        publishers.push(tokio::spawn(publish(client, is_over.clone(), sent.clone())));
    }
    let reader = sites.client(2, "reader").await?;
    let mut orders = reader.subscribe("orders/**", SubscribeOptions::default()).await?;
    let reading = tokio::spawn(async move { while orders.next().await.is_some() {} });

    check_recorded(&sites).await?;

    // The schema that turns a tenth back, and the policy that turns all back.
    check_rolled_back(&roll_out(&sites, vec![judged_by(2)?]).await?)?;
    ensure!(judging(&sites) == ["orders-value:1"; 3], "{:?}", judging(&sites));
    let nobody = policy("nobody", r#"forbid (principal, action == Action::"publish", resource);"#)?;
    let strict = GovernanceChange::PolicySet { policy: nobody };
    check_rolled_back(&roll_out(&sites, vec![strict]).await?)?;
    ensure!(sites.at(1).shared().rules.load().statements() == 0, "it holds at the canary no more");

    // What is wrong is refused before anything begins.
    let broken = policy("broken", "permit (principal, action, resourcE);")?;
    let start =
        sites.at(2).world().start_governance(plan(vec![GovernanceChange::PolicySet { policy: broken }])?, ann());
    let refused = start.await.err().context("it does not compile")?;
    ensure!(refused.code == "invalid-policy", "{refused:?}");

    // And what fits reaches all, together: a schema that asks for more, and a policy.
    let someone = policy("services", "permit (principal, action, resource);")?;
    let rollout = roll_out(&sites, vec![judged_by(3)?, GovernanceChange::PolicySet { policy: someone }]).await?;
    ensure!(rollout.end.as_ref().is_some_and(|end| end.outcome == Outcome::Complete), "{rollout:?}");
    ensure!(judging(&sites) == ["orders-value:3"; 3], "{:?}", judging(&sites));
    for node in sites.nodes.iter().flatten() {
        let view = node.world().view();
        let schema = view.catalog.topic_rule(&"orders".parse()?).and_then(|rule| rule.schema.clone());
        ensure!(
            schema.is_some_and(|schema| schema.version == Some(SchemaVersion::Number(3))),
            "it is the catalog's now"
        );
        ensure!(node.shared().rules.load().statements() == 1 && view.alarms.is_empty(), "{:?}", view.alarms);
    }

    is_over.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await??;
    }
    let judged = judged(&sites)?;
    let ledgers = sites.end().await?;
    reading.abort();
    for (ledger, (denied, passed, turned_back)) in ledgers.iter().zip(&judged) {
        ensure!(ledger.accepted == denied + passed + turned_back, "{ledger:?} {judged:?}");
        ensure!(ledger.rejected == denied + turned_back, "{ledger:?} {judged:?}");
    }
    let at_canary = judged[1];
    ensure!(at_canary.0 > 0 && at_canary.2 > 0, "both were caught there: {judged:?}");
    ensure!(ledgers[0].rejected == 0 && ledgers[2].rejected == 0, "nowhere else was anything refused: {ledgers:?}");
    let accepted: u64 = ledgers.iter().map(|ledger| ledger.accepted).sum();
    ensure!(accepted == sent.load(Ordering::Relaxed), "every event is accounted for: {ledgers:?}");
    Ok(())
}

/// What `topic ls` says at a site that a rollout has not reached, and at its canary.
fn listed(sites: &RealSites) -> Result<()> {
    for (site, by, is_here) in [(0, "orders-value:1", false), (1, "orders-value:2", true)] {
        let router = &sites.routers[site];
        let rule = router.myelin(&["topic", "describe", "orders", "-o", "json"])?.json()?;
        ensure!(rule["schema"]["version"] == 1 && rule["rollout"]["schema"]["version"] == 2, "{rule}");
        ensure!(rule["rollout"]["is_here"] == is_here && rule["rollout"]["id"].is_u64(), "{rule}");
        ensure!(rule["screening"]["by"].as_str().is_some_and(|judges| judges.starts_with(by)), "{rule}");
        let told = router.myelin(&["topic", "ls"])?.good()?.out;
        let by = if is_here { "; elsewhere orders-value:1" } else { " brings orders-value:2" };
        ensure!(told.contains(by), "{told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_of_a_schema_comes_to_one_site_first_and_every_tool_says_so() -> Result<()> {
    let sites = RealSites::start_with(2, &[(0, 1)], &[]).await?;
    let near = &sites.routers[0];
    for text in &VERSIONS[..2] {
        let body = json!({"schema": text, "schemaType": "JSON"});
        let none = near.send_json("PUT", "/registry/config", &json!({"compatibility": "NONE"}))?;
        let answer = near.send_json("POST", &format!("/registry/subjects/{SUBJECT}/versions"), &body)?;
        ensure!(none.status == 200 && answer.status == 200, "{answer:?}");
    }
    let apply = ["topic", "apply", "orders", "orders/**", "--schema-subject", SUBJECT, "--schema-version", "1"];
    near.myelin(&apply)?.good()?;
    let start = [
        &["rollout", "start", "--only-changes", "--schema", "orders=2", "--canary", "s1"][..],
        &["--wave", "100", "--observe", "1h", "--events", "0"],
    ]
    .concat();
    near.myelin(&start)?.good()?;
    // At the canary the new version judges, elsewhere the old one.
    let explained = |at: &str| near.myelin(&["explain", "orders/1", "--as", "spiffe://test/service/a", "--at", at]);
    eventually("the canary", || {
        let ran = explained("s1")?;
        Ok(ran.out.contains("orders-value:2") && ran.out.contains("those of rollout"))
    })
    .await?;
    let elsewhere = explained("s0")?.good()?.out;
    ensure!(elsewhere.contains("orders-value:1") && !elsewhere.contains("those of rollout"), "{elsewhere}");
    listed(&sites)?;
    let status = near.myelin(&["rollout", "status"])?.good()?.out;
    ensure!(status.contains("topic rule orders set: orders/** judged by orders-value:2, refuse"), "{status}");
    // Meanwhile nobody else changes that rule, and anybody another one.
    let held = near.myelin(&[&apply[..], &["--on-invalid", "dead-letter", "--at-once"]].concat())?;
    ensure!(held.code != Some(0) && held.err.contains("it changes just that: abort it"), "{}", held.err);
    near.myelin(&["topic", "apply", "other", "other/**", "--schema-subject", SUBJECT])?.good()?;
    for step in ["observe", "wave 1"] {
        eventually(step, || Ok(near.myelin(&["rollout", "status"])?.out.contains(&format!(": {step}\n")))).await?;
        near.myelin(&["rollout", "promote"])?.good()?;
    }
    eventually("the end", || {
        let history = near.myelin(&["rollout", "history"])?.good()?.out;
        Ok(history.contains("complete") && history.contains("+orders"))
    })
    .await?;
    for site in ["s0", "s1"] {
        // Another router reads of the end a moment later.
        eventually("the same everywhere", || {
            let everywhere = explained(site)?.good()?.out;
            Ok(everywhere.contains("orders-value:2") && !everywhere.contains("those of rollout"))
        })
        .await?;
    }
    sites.settle().await?;
    sites.end()
}
