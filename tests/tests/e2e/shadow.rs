//! The shadow of a rollout at three sites: what a candidate would decide is counted, and nothing follows from it.

use crate::mesh::{PATIENCE, Sites};
use anyhow::{Context, Result, ensure};
use myelin::shadow::{ShadowTransition, ShadowedBinding};
use myelin::world::{Actor, Change, MeshShadow, View};
use myelin_catalog::rollout::{Cause, Outcome, Rollout};
use myelin_catalog::{Binding, Gates, Op, Phase, RolloutPlan};
use myelin_client::Overflow;
use myelin_client::{Client, Event, SubscribeOptions, Subscription};
use myelin_tests::Router;
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::sites::{self, shapes};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Events between two looks at the shadow: fewer than may wait for it, so that none is left out.
const PORTION: usize = 40;

fn ann() -> Actor {
    "ann".into()
}

/// Pushes a filter that behaves so as that version of the module `name`, and stages its binding to `pattern`.
async fn stage(sites: &Sites, (name, version): (&str, &str), pattern: &str, behaviour: Behaviour) -> Result<()> {
    let world = sites.at(0).world();
    world.add_module(name.parse()?, version.parse()?, component(behaviour)?.into(), ann()).await?;
    let binding = serde_json::json!({"name": name, "module": format!("{name}@{version}"), "pattern": pattern});
    world.stage(serde_json::from_value::<Binding>(binding)?, None, ann()).await?;
    Ok(())
}

/// A long shadow, and then all sites at once.
fn plan() -> RolloutPlan {
    RolloutPlan {
        waves: vec![100],
        shadow_s: 600,
        observe_s: 0,
        events_min: 0,
        // How long a call takes is this machine's to say.
        gates: Gates { module_p99_us: None, fuel_percent: None, ..Gates::default() },
        deadline_s: 60,
        ..RolloutPlan::default()
    }
}

async fn everywhere(sites: &Sites, what: &str, seen: impl Fn(&View) -> bool) -> Result<()> {
    for node in sites.nodes.iter().flatten() {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !seen(&node.world().view()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.with_context(|| {
            let view = node.world().view();
            format!("{what}: {:?} at revision {}", view.report, view.catalog.head().rev)
        })?;
    }
    Ok(())
}

/// Starts a rollout of what is staged, and waits until its shadow judges at every router.
async fn begin(sites: &Sites) -> Result<u64> {
    let id = sites.at(1).world().start_rollout(plan(), ann()).await?;
    let is_shadowing = |view: &View| {
        view.report.as_ref().is_some_and(|own| own.rollout == id && matches!(own.phase, Phase::Shadowing { .. }))
    };
    everywhere(sites, "the shadow", is_shadowing).await?;
    Ok(id)
}

/// How the rollout ended.
async fn over(sites: &Sites, id: u64) -> Result<Arc<Rollout>> {
    let is_over = |view: &View| view.catalog.rollouts().any(|rollout| rollout.id == id && !rollout.is_running());
    everywhere(sites, "the rollout's end", is_over).await?;
    let view = sites.at(0).world().view();
    view.catalog.rollouts().find(|rollout| rollout.id == id).cloned().context("it is remembered")
}

/// Promotes the rollout out of its shadow, and waits until every site has the new set.
async fn promote(sites: &Sites, id: u64) -> Result<()> {
    sites.at(2).world().change(Change::Record(Box::new(Op::RolloutPromoted { id })), None, ann()).await?;
    let rollout = over(sites, id).await?;
    ensure!(rollout.end.as_ref().is_some_and(|end| end.outcome == Outcome::Complete), "{rollout:?}");
    everywhere(sites, "the new set", |view| view.generation == view.active().number).await
}

/// Publishes events with these payloads, a portion at a time, and waits after each until the shadow has compared it.
async fn publish(sites: &Sites, client: &Client, id: u64, topic: &str, payloads: &[String]) -> Result<MeshShadow> {
    publish_for(sites, client, (id, 1), topic, payloads).await
}

/// The same where only every so manyth event is compared.
async fn publish_for(
    sites: &Sites,
    client: &Client,
    (id, one_in): (u64, usize),
    topic: &str,
    payloads: &[String],
) -> Result<MeshShadow> {
    let mut found = sites.at(1).world().shadow(id, None).await?;
    for portion in payloads.chunks(PORTION) {
        let wanted = found.events + (portion.len() / one_in) as u64;
        send(client, topic, portion).await?;
        let compared = async {
            loop {
                let now = sites.at(1).world().shadow(id, None).await?;
                if now.events >= wanted {
                    return anyhow::Ok(now);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, compared).await;
        found = waited.with_context(|| format!("{wanted} events compared"))??;
    }
    Ok(found)
}

async fn send(client: &Client, topic: &str, payloads: &[String]) -> Result<()> {
    for payload in payloads {
        client.send(Event::new(topic, payload.as_bytes())).await?;
    }
    client.flush().await;
    Ok(())
}

/// Payloads of which every second one is marked for being dropped.
fn marked(count: usize) -> Vec<String> {
    (0..count).map(|number| if number % 2 == 0 { format!("D{number}") } else { format!("ok{number}") }).collect()
}

async fn read(from: &mut Subscription, count: usize) -> Result<Vec<String>> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let next = tokio::time::timeout(PATIENCE, from.next()).await;
        let event = next.with_context(|| format!("{} of {count} events came", payloads.len()))?.context("an event")?;
        payloads.push(String::from_utf8(event.payload().to_vec())?);
    }
    Ok(payloads)
}

/// A binding of what the router of `site` found out.
fn binding<'a>(found: &'a MeshShadow, site: &str, name: &str) -> Result<&'a ShadowedBinding> {
    let router = found.routers.iter().find(|router| router.site == site).context("the router")?;
    ensure!(router.skipped == 0 && router.sampled_out == 0, "all of it was compared: {router:?}");
    router.bindings.iter().find(|binding| binding.name == name).context("the binding")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_candidate_decides_otherwise_is_counted_exactly_and_changes_nothing() -> Result<()> {
    let sites = Sites::start(3, |site, other| other + 1 == site).await?;
    stage(&sites, ("gate", "1.0.0"), "orders/**", Behaviour::Allow).await?;
    sites.at(0).world().rollout(ann()).await?;
    everywhere(&sites, "the first version", |view| view.cards.len() == 1).await?;
    let reader = sites.client(2, "reader").await?;
    let mut orders = reader.subscribe("orders/**", SubscribeOptions::default()).await?;
    sites.knows(0, 1).await?;
    let (near, far) = (sites.client(0, "near").await?, sites.client(2, "far").await?);

    stage(&sites, ("gate", "2.0.0"), "orders/**", Behaviour::DropMarked).await?;
    let id = begin(&sites).await?;
    let sent = marked(400);
    publish(&sites, &near, id, "orders/new", &sent).await?;
    ensure!(read(&mut orders, sent.len()).await? == sent, "what the active version says, and nothing else");
    let elsewhere = marked(60);
    let found = publish(&sites, &far, id, "orders/new", &elsewhere).await?;
    ensure!(read(&mut orders, elsewhere.len()).await? == elsewhere);

    ensure!((found.events, found.differences, found.traps) == (460, 230, 0), "{found:?}");
    ensure!(found.missing.is_empty() && found.routers.len() == 3, "{found:?}");
    for (site, events) in [("s0", 400), ("s1", 0), ("s2", 60)] {
        let gate = binding(&found, site, "gate")?;
        ensure!((gate.events, gate.differences) == (events, events / 2), "{site}: {gate:?}");
    }
    let gate = binding(&found, "s0", "gate")?;
    ensure!(gate.transitions == [ShadowTransition { from: "allow".into(), to: "drop".into(), count: 200 }], "{gate:?}");
    ensure!((gate.old.as_deref(), gate.new.as_deref()) == (Some("gate@1.0.0"), Some("gate@2.0.0")), "{gate:?}");
    let sample = gate.samples.last().context("samples")?;
    ensure!((&*sample.topic, &*sample.old.verdict, &*sample.new.verdict) == ("orders/new", "allow", "drop"));
    let one = sites.at(1).world().shadow(id, Some("s2")).await?;
    ensure!(one.routers.len() == 1 && one.events == 60, "of one site: {one:?}");

    promote(&sites, id).await?;
    let found = sites.at(0).world().shadow(id, None).await?;
    ensure!(found.events == 460 && found.routers.iter().all(|router| !router.running), "it stays, and is over");
    let last = marked(10);
    send(&near, "orders/new", &last).await?;
    let kept: Vec<_> = last.iter().filter(|payload| !payload.starts_with('D')).cloned().collect();
    ensure!(read(&mut orders, kept.len()).await? == kept, "now it decides");
    let ledgers = sites.end().await?;
    let sum = |term: fn(&myelin::ledger::Counts) -> u64| ledgers.iter().map(term).sum::<u64>();
    ensure!(sum(|ledger| ledger.accepted) == 470 && sum(|ledger| ledger.emitted) == 0, "{ledgers:?}");
    ensure!(sum(|ledger| ledger.dropped) == 5 && sum(|ledger| ledger.rejected) == 0, "{ledgers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_traps_in_shadow_is_rolled_back_and_no_event_notices() -> Result<()> {
    let sites = Sites::start(3, |site, other| other + 1 == site).await?;
    stage(&sites, ("gate", "1.0.0"), "orders/**", Behaviour::Allow).await?;
    sites.at(0).world().rollout(ann()).await?;
    everywhere(&sites, "the first version", |view| view.cards.len() == 1).await?;
    let good = sites.at(0).world().view().active().clone();
    let reader = sites.client(2, "reader").await?;
    let mut orders = reader.subscribe("orders/**", SubscribeOptions::default()).await?;
    sites.knows(0, 1).await?;
    let near = sites.client(0, "near").await?;

    stage(&sites, ("gate", "2.0.0"), "orders/**", Behaviour::TrapOnPoison).await?;
    let id = begin(&sites).await?;
    let sent: Vec<_> = ["ok", "P", "ok", "P", "P"].map(str::to_owned).to_vec();
    send(&near, "orders/new", &sent).await?;
    let rollout = over(&sites, id).await?;
    let cause = rollout.abort.as_ref().map(|abort| abort.cause);
    ensure!(cause == Some(Cause::GateTraps), "{rollout:?}");
    ensure!(rollout.reached().next().is_none(), "it was active nowhere");
    send(&near, "orders/new", &sent).await?;
    let all: Vec<_> = sent.iter().chain(&sent).cloned().collect();
    ensure!(read(&mut orders, all.len()).await? == all, "the active version lets all of them pass");
    for node in sites.nodes.iter().flatten() {
        let view = node.world().view();
        ensure!(view.generation == good.number && view.active().bindings == good.bindings, "{:?}", view.active());
        let quarantined =
            ["gate@1.0.0", "gate@2.0.0"].map(|module| module.parse().map(|it| view.catalog.quarantine(&it).is_some()));
        ensure!(quarantined.iter().all(|it| matches!(it, Ok(false))), "the shadow's faults are its own");
        ensure!(view.cards.iter().flat_map(|card| card.figures()).all(|(_, figures)| figures.faulted == 0));
    }
    let ledgers = sites.end().await?;
    ensure!(ledgers.iter().all(|ledger| ledger.rejected == 0 && ledger.dead_lettered == 0), "{ledgers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_the_shadow_saw_is_in_what_becomes_active() -> Result<()> {
    let sites = Sites::start(3, |site, other| other + 1 == site).await?;
    // One remembers in its own memory, one in the host's.
    let (counts, keys) = (("count", "counts/**"), ("keys", "keys/**"));
    for (name, pattern) in [counts, keys] {
        stage(&sites, (name, "1.0.0"), pattern, Behaviour::Allow).await?;
    }
    sites.at(0).world().rollout(ann()).await?;
    everywhere(&sites, "the first versions", |view| view.cards.len() == 2).await?;
    let client = sites.client(0, "both").await?;
    let mut counted = client.subscribe("counts/**", SubscribeOptions::default()).await?;
    let mut keyed = client.subscribe("keys/**", SubscribeOptions::default()).await?;

    stage(&sites, (counts.0, "2.0.0"), counts.1, Behaviour::DropAfterTen).await?;
    stage(&sites, (keys.0, "2.0.0"), keys.1, Behaviour::DropSeen).await?;
    let id = begin(&sites).await?;
    let numbers: Vec<_> = (0..25).map(|number| number.to_string()).collect();
    publish(&sites, &client, id, "counts/a", &numbers).await?;
    let names = ["a", "b", "a"].map(str::to_owned);
    let found = publish(&sites, &client, id, "keys/a", &names).await?;
    ensure!(binding(&found, "s0", counts.0)?.differences == 15, "it has counted in its own memory: {found:?}");
    let keys_found = binding(&found, "s0", keys.0)?;
    ensure!((keys_found.differences, keys_found.asked_otherwise) == (1, 3), "and asked its own: {keys_found:?}");
    ensure!(read(&mut counted, 25).await? == numbers && read(&mut keyed, 3).await? == names, "all of it came");

    promote(&sites, id).await?;
    send(&client, "counts/a", &numbers).await?;
    send(&client, "keys/a", &names).await?;
    ensure!(read(&mut counted, 10).await? == numbers[..10], "it begins to count when it is active");
    ensure!(read(&mut keyed, 2).await? == names[..2], "and to remember");
    let ledgers = sites.end().await?;
    ensure!(ledgers[0].dropped == 15 + 1 && ledgers[0].rejected == 0, "{ledgers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_that_come_and_go_are_compared_with_letting_pass() -> Result<()> {
    let sites = Sites::start(3, |site, other| other + 1 == site).await?;
    stage(&sites, ("first", "1.0.0"), "orders/**", Behaviour::DropMarked).await?;
    stage(&sites, ("away", "1.0.0"), "gone/**", Behaviour::DropMarked).await?;
    sites.at(0).world().rollout(ann()).await?;
    everywhere(&sites, "the first set", |view| view.cards.len() == 2).await?;
    let client = sites.client(0, "both").await?;
    let mut all = client.subscribe("**", SubscribeOptions::default()).await?;

    stage(&sites, ("later", "1.0.0"), "orders/**", Behaviour::DropAfterTen).await?;
    stage(&sites, ("fresh", "1.0.0"), "fresh/**", Behaviour::DropMarked).await?;
    let egress = serde_json::json!({"name": "out", "module": "fresh@1.0.0", "pattern": "out/**", "stage": "egress"});
    sites.at(0).world().stage(serde_json::from_value::<Binding>(egress)?, None, ann()).await?;
    sites.at(0).world().unstage("away".parse()?, None, ann()).await?;
    let id = begin(&sites).await?;

    // Half of them end at the active binding before.
    publish_for(&sites, &client, (id, 2), "orders/new", &marked(40)).await?;
    publish(&sites, &client, id, "gone/a", &marked(10)).await?;
    publish(&sites, &client, id, "fresh/a", &marked(30)).await?;
    let found = publish(&sites, &client, id, "out/a", &marked(8)).await?;
    let differing = |name| binding(&found, "s0", name).map(|it| (it.change.as_str(), it.events, it.differences));
    ensure!(differing("later")? == ("added", 20, 10), "{found:?}");
    ensure!(differing("away")? == ("removed", 10, 5), "{found:?}");
    ensure!(differing("fresh")? == ("added", 30, 15), "{found:?}");
    ensure!(differing("out")? == ("added", 8, 4), "{found:?}");
    ensure!(!found.routers.iter().any(|router| router.bindings.iter().any(|it| it.name == "first")), "it stays");
    read(&mut all, 20 + 5 + 30 + 8).await?;
    sites
        .at(0)
        .world()
        .change(
            Change::Record(Box::new(Op::RolloutAborted { id, cause: Cause::Hand, reason: "seen enough".into() })),
            None,
            ann(),
        )
        .await?;
    over(&sites, id).await?;
    let ended = |view: &View| view.shadow.as_ref().is_some_and(|shadow| shadow.rollout == id && !shadow.is_running());
    everywhere(&sites, "the shadow's end", ended).await?;
    let ledgers = sites.end().await?;
    ensure!(ledgers[0].dropped == 20 + 5 && ledgers[0].egress_rejected == 0, "{ledgers:?}");
    Ok(())
}

/// What a command says to programs, once that is as `seen` wants it.
async fn told(router: &Router, args: &[&str], seen: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let begin = std::time::Instant::now();
    while begin.elapsed() < PATIENCE {
        // Just after its beginning no router has a shadow.
        if let Ok(ran) = tokio::task::block_in_place(|| router.myelin(args))?.good() {
            last = ran.json()?;
            if seen(&last) {
                return Ok(last);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("{args:?} says {last:#}")
}

/// Stages a version of the filter, as the command line or a program would.
fn bind(router: &Router, version: &str) -> Result<()> {
    let binding = json!({"module": format!("gate@{version}"), "pattern": "orders/**"});
    let answer = tokio::task::block_in_place(|| router.send_json("PUT", "/v1/bindings/gate", &binding))?;
    ensure!(answer.status == 202, "{answer:?}");
    Ok(())
}

/// Three sites in a line, two versions of the filter there, the first one staged.
async fn with_two_gates() -> Result<sites::Sites> {
    let sites = sites::Sites::start_with(3, &shapes::line(3), &[]).await?;
    for (version, behaviour) in [("1.0.0", Behaviour::Allow), ("2.0.0", Behaviour::DropMarked)] {
        let first = &sites.routers[0];
        let answer = tokio::task::block_in_place(|| first.upload("gate", version, &component(behaviour)?))?;
        ensure!(answer.status == 201, "{answer:?}");
    }
    bind(&sites.routers[0], "1.0.0")?;
    Ok(sites)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_a_shadow_of_the_whole_mesh_and_a_gate_ends_it() -> Result<()> {
    let sites = with_two_gates().await?;
    let (first, last) = (&sites.routers[0], &sites.routers[2]);
    let run = |args: &[&str]| tokio::task::block_in_place(|| last.myelin(args))?.good();
    run(&["rollout", "start"])?;
    let client = sites.client(0, "near", Overflow::Pause).await?;
    let status = ["rollout", "status", "-o", "json"];
    let shadows = |value: &Value| {
        let routers = value["rollout"]["routers"].as_array().cloned().unwrap_or_default();
        routers.len() == 3 && routers.iter().all(|router| router["phase"] == "SHADOWING")
    };
    let (events, long) = (["--events", "0"], ["rollout", "start", "--shadow", "600s", "--shadow-sample", "100%"]);

    bind(first, "2.0.0")?;
    run(&[&long[..], &events, &["--gate", "diff=60%,p99=any,fuel=any"]].concat())?;
    told(last, &status, shadows).await?;
    send(&client, "orders/new", &marked(20)).await?;
    let found = told(last, &["shadow", "status", "-o", "json"], |found| found["events"] == 20).await?;
    ensure!(found["differences"] == 10 && found["missing"] == json!({}), "{found:#}");
    let progress = told(last, &status, |value| value["rollout"]["routers"][0]["differences"] == 10).await?;
    ensure!(progress["rollout"]["running"] == true, "half of them is within the gate: {progress:#}");
    let shown = run(&["shadow", "diff", "--site", "s0"])?.out;
    for part in ["of 20 events 10 are judged otherwise", "gate@1.0.0 -> gate@2.0.0", "orders/new, 2 bytes", "drop"] {
        ensure!(shown.contains(part), "`{part}` is missing in\n{shown}");
    }
    run(&["rollout", "abort"])?;
    told(last, &status, |value| value["rollout"].is_null()).await?;

    bind(first, "2.0.0")?;
    run(&[&long[..], &events, &["--gate", "diff=10%,p99=any,fuel=any"]].concat())?;
    told(last, &status, shadows).await?;
    send(&client, "orders/new", &marked(20)).await?;
    let is_over = |value: &Value| {
        let newest = value["mesh"].as_array().and_then(|all| all.last());
        newest.is_some_and(|newest| newest["state"] == "rolled-back" && newest["cause"] == "gate-differences")
    };
    told(last, &["rollout", "history", "-o", "json"], is_over).await?;
    sites.end()
}

/// The numbers that this site shows for the newest set and the one before are ones that a rollback knows.
async fn numbers_lead_back(router: &Router, history: &Value) -> Result<()> {
    let run = |args: &[&str]| tokio::task::block_in_place(|| router.myelin(args))?.good();
    let status = ["rollout", "status", "-o", "json"];
    let shown = history["rollouts"].as_array().context("rollouts")?;
    let numbers: Vec<String> = shown.iter().map(|rollout| rollout["generation"].to_string()).collect();
    ensure!(numbers.len() >= 2, "{history:#}");
    let (before, now) = (&numbers[numbers.len() - 2], &numbers[numbers.len() - 1]);
    run(&["rollout", "rollback", "--to", before])?;
    let back = told(router, &status, |value| value["rollout"].is_null()).await?;
    ensure!(back["bindings"].to_string().contains("gate@1.0.0"), "{back:#}");
    run(&["rollout", "rollback", "--to", now])?;
    let again = told(router, &status, |value| value["rollout"].is_null()).await?;
    ensure!(again["bindings"].to_string().contains("gate@2.0.0"), "{again:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_stays_until_it_is_promoted_or_stopped_and_monitoring_counts_it() -> Result<()> {
    let sites = with_two_gates().await?;
    let (first, last) = (&sites.routers[0], &sites.routers[2]);
    let run = |args: &[&str]| tokio::task::block_in_place(|| last.myelin(args))?.good();
    let refused = |args: &[&str]| tokio::task::block_in_place(|| last.myelin(args));
    run(&["rollout", "start"])?;
    let client = sites.client(0, "near", Overflow::Pause).await?;
    let status = ["rollout", "status", "-o", "json"];
    let is_held = |value: &Value| {
        let routers = value["rollout"]["routers"].as_array().cloned().unwrap_or_default();
        let shadowing = routers.iter().filter(|router| router["phase"] == "SHADOWING").count();
        value["rollout"]["state"] == "shadow, held" && shadowing == 3
    };
    ensure!(refused(&["shadow", "stop"])?.code == Some(3), "there is none");
    ensure!(refused(&["shadow", "start", "redact@1.0.0"])?.code == Some(3), "nothing has a version of it");

    // The module takes the place of its version before, wherever that is bound.
    let start = ["shadow", "start", "gate@2.0.0", "--gate", "p99=any,fuel=any", "--observe", "0s", "--events", "0"];
    let began = run(&start)?.out;
    ensure!(began.contains("gate is staged with gate@2.0.0"), "{began}");
    told(last, &status, is_held).await?;
    send(&client, "orders/new", &marked(20)).await?;
    told(last, &["shadow", "status", "-o", "json"], |found| found["events"] == 20).await?;
    let shown = run(&["shadow", "status"])?.out;
    ensure!(shown.contains("s2/r1: no event came that they judge"), "{shown}");
    let series = |router: &Router| -> Result<String> {
        let answer = tokio::task::block_in_place(|| router.ask("GET", "/metrics", &[], b""))?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    };
    let metrics = series(first)?;
    for line in [
        "myelin_shadow_running 1",
        "myelin_shadow_events_total{binding=\"gate\"} 20",
        "myelin_shadow_differences_total{binding=\"gate\"} 10",
        "myelin_shadow_faults_total{binding=\"gate\"} 0",
    ] {
        ensure!(metrics.lines().any(|found| found == line), "no `{line}` in\n{metrics}");
    }
    // Stopped, nothing has become active, and what was staged for it is gone.
    run(&["shadow", "stop"])?;
    let stopped = told(last, &status, |value| value["rollout"].is_null()).await?;
    ensure!(stopped["bindings"][0]["module"] == "gate@1.0.0", "{stopped:#}");
    ensure!(stopped["bindings"][0]["state"] == "active", "{stopped:#}");
    let is_over =
        |found: &Value| found["routers"].as_array().is_some_and(|all| all.iter().all(|it| it["running"] == false));
    let found = told(last, &["shadow", "status", "-o", "json"], is_over).await?;
    ensure!(found["events"] == 20, "what it found out stays: {found:#}");
    ensure!(series(first)?.contains("myelin_shadow_running 0"));

    // Promoted, it goes on to all sites; from there on it is no shadow that `shadow stop` would end.
    run(&[&start[..], &["--wave", "100"]].concat())?;
    let held = told(last, &status, is_held).await?;
    let id = held["rollout"]["id"].to_string();
    run(&["shadow", "promote"])?;
    let history = ["rollout", "history", "-o", "json"];
    let over = told(last, &history, |value| {
        value["mesh"].as_array().and_then(|all| all.last()).is_some_and(|newest| newest["state"] == "complete")
    });
    let over = over.await?;
    ensure!(refused(&["shadow", "stop", &id])?.code == Some(5), "it is past its shadow");

    numbers_lead_back(last, &over).await?;
    sites.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_nobody_promotes_is_dropped_with_its_time() -> Result<()> {
    let sites = Sites::start(2, |site, other| other + 1 == site).await?;
    stage(&sites, ("gate", "1.0.0"), "orders/**", Behaviour::Allow).await?;
    sites.at(0).world().rollout(ann()).await?;
    stage(&sites, ("gate", "2.0.0"), "orders/**", Behaviour::DropMarked).await?;
    let plan = RolloutPlan { shadow_s: 3, shadow_hold: true, ..plan() };
    let id = sites.at(1).world().start_rollout(plan, ann()).await?;
    let rollout = over(&sites, id).await?;
    let cause = rollout.abort.as_ref().map(|abort| abort.cause);
    ensure!(cause == Some(Cause::ShadowOver) && rollout.reached().next().is_none(), "{rollout:?}");
    let view = sites.at(1).world().view();
    ensure!(view.active().bindings.len() == 1 && view.catalog.staged().len() == 1, "{:?}", view.active());
    sites.end().await?;
    Ok(())
}
