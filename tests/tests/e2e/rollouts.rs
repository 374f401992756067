//! One catalog for all sites: what is pushed at one judges at every one, and a bad filter is caught at the canary.

use crate::mesh::{PATIENCE, Sites};
use anyhow::{Context, Result, ensure};
use myelin::audit::{Entry, Kind, Note};
use myelin::ledger::Term;
use myelin::node::Node;
use myelin::world::{Actor, Change, View};
use myelin_catalog::rollout::{Cause, Outcome};
use myelin_catalog::{Binding, Gates, Name, Op, RolloutPlan};
use myelin_client::{Client, Event, SubscribeOptions};
use myelin_tests::guests::{Behaviour, component};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

fn ann() -> Actor {
    "ann".into()
}

/// Pushes a filter that behaves so, and stages its binding to all orders.
async fn stage(at: &Node, version: &str, behaviour: Behaviour) -> Result<()> {
    let bytes = component(behaviour)?.into();
    at.world().add_module("gate".parse()?, version.parse()?, bytes, ann()).await?;
    let binding = serde_json::json!({"name": "gate", "module": format!("gate@{version}"), "pattern": "orders/**"});
    at.world().stage(serde_json::from_value::<Binding>(binding)?, None, ann()).await?;
    Ok(())
}

/// Waits until `seen` holds at every site that runs.
async fn everywhere(sites: &Sites, what: &str, seen: impl Fn(&View) -> bool) -> Result<()> {
    for node in sites.nodes.iter().flatten() {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !seen(&node.world().view()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.with_context(|| {
            let view = node.world().view();
            format!("{what}: {:?} at revision {}, alarms {:?}", view.report, view.catalog.head().rev, view.alarms)
        })?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_at_one_site_judges_at_every_site() -> Result<()> {
    let mut sites = Sites::start(3, |site, other| other + 1 == site).await?;
    // At a router that does not write the catalog, two hops from the one that does.
    stage(sites.at(2), "1.0.0", Behaviour::Allow).await?;
    let report = sites.at(2).world().rollout(ann()).await?;
    ensure!(report.plan.added.len() == 1, "{report:?}");
    let head = sites.at(2).world().view().catalog.head();
    everywhere(&sites, "the same catalog", |view| view.catalog.head().rev >= head.rev && view.cards.len() == 1).await?;
    let views: Vec<_> = sites.nodes.iter().flatten().map(|node| node.world().view()).collect();
    for view in &views {
        ensure!(view.generation == view.active().number && view.active().bindings.len() == 1);
        ensure!(view.catalog.keys().root().is_some() && view.catalog.keys() == views[0].catalog.keys(), "signed");
        ensure!(view.alarms.is_empty(), "{:?}", view.alarms);
    }
    // One that was away catches up before it serves: with the filter, and not one event without.
    let away = sites.nodes[1].take().context("it runs")?;
    away.drain().await;
    stage(sites.at(0), "1.1.0", Behaviour::Allow).await?;
    // A rollout waits for every router; a change at once is made without those that are away by a rollback only.
    let error = sites.at(0).world().rollback(None, ann()).await.err();
    ensure!(error.is_none(), "{error:?}");
    let rev = sites.at(0).world().view().catalog.head().rev;
    sites.nodes[1] = Some(sites.node(1, &[0], 2).await?);
    let back = sites.at(1).world().view();
    let newest = back.catalog.head().rev;
    ensure!(newest >= rev, "at {newest} of {rev}: it is level with its neighbours when it serves");
    ensure!(back.cards.is_empty(), "the set before has no filters: {:?}", back.active());
    sites.end().await?;
    Ok(())
}

/// Publishes orders at one site until it is told to stop; every tenth is what the bad filter traps on, while that is
/// wanted.
async fn publish(client: Client, is_over: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> Result<()> {
    let mut number = 0u64;
    while !is_over.load(Ordering::Relaxed) {
        let payload = if number.is_multiple_of(10) { "P" } else { "ok" };
        client.send(Event::new("orders/new", payload)).await?;
        sent.fetch_add(1, Ordering::Relaxed);
        number += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    client.flush().await;
    Ok(())
}

/// The steps of rollouts in a router's audit log that are meant, oldest first, and who made each.
fn steps(node: &Node, is_meant: impl Fn(&Note) -> bool) -> Result<Vec<(String, String)>> {
    let mut steps = Vec::new();
    for line in myelin::audit::lines(node.audit().folder(), 0)? {
        let Entry { note, .. } = serde_json::from_str(&line?)?;
        if note.kind == Kind::Catalog && note.action.starts_with("rollout-") && is_meant(&note) {
            ensure!(note.rev.is_some() && note.digest.is_some() && note.result == "ok", "{note:?}");
            steps.push((note.action, note.actor));
        }
    }
    Ok(steps)
}

fn plan(canary: &str) -> Result<RolloutPlan> {
    Ok(RolloutPlan {
        canary: vec![canary.parse()?],
        waves: vec![100],
        observe_s: 1,
        events_min: 50,
        gates: Gates { module_p99_us: None, fuel_percent: None, ..Gates::default() },
        deadline_s: 60,
        ..RolloutPlan::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_filter_reaches_all_sites_and_a_bad_one_is_caught_at_the_canary() -> Result<()> {
    let sites = Sites::start(3, |site, other| other + 1 == site).await?;
    let (is_over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut publishers = Vec::new();
    for site in 0..3 {
        let client = sites.client(site, &format!("publisher-{site}")).await?;
        publishers.push(tokio::spawn(publish(client, is_over.clone(), sent.clone())));
    }
    let reader = sites.client(2, "reader").await?;
    let mut orders = reader.subscribe("orders/**", SubscribeOptions::default()).await?;
    let reading = tokio::spawn(async move { while orders.next().await.is_some() {} });

    stage(sites.at(0), "1.0.0", Behaviour::Allow).await?;
    let id = sites.at(1).world().start_rollout(plan("s1")?, ann()).await?;
    let over = |view: &View| view.catalog.rollouts().any(|rollout| rollout.id == id && !rollout.is_running());
    everywhere(&sites, "the good one", over).await?;
    let view = sites.at(2).world().view();
    let rollout = view.catalog.rollouts().find(|rollout| rollout.id == id).context("remembered")?.clone();
    ensure!(rollout.end.as_ref().is_some_and(|end| end.outcome == Outcome::Complete), "{rollout:?}");
    everywhere(&sites, "the good set", |view| view.cards.len() == 1).await?;
    let (good, good_id) = (sites.at(2).world().view().active().bindings.clone(), id);

    stage(sites.at(2), "2.0.0", Behaviour::TrapOnPoison).await?;
    let id = sites.at(0).world().start_rollout(plan("s1")?, ann()).await?;
    let over = |view: &View| view.catalog.rollouts().any(|rollout| rollout.id == id && !rollout.is_running());
    everywhere(&sites, "the bad one", over).await?;
    let view = sites.at(0).world().view();
    let rollout = view.catalog.rollouts().find(|rollout| rollout.id == id).context("remembered")?.clone();
    ensure!(rollout.end.as_ref().is_some_and(|end| end.outcome == Outcome::RolledBack), "{rollout:?}");
    let cause = rollout.abort.as_ref().map(|abort| abort.cause);
    ensure!(matches!(cause, Some(Cause::GateTraps | Cause::Quarantined)), "{rollout:?}");
    let reached: Vec<_> = rollout.reached().map(|site| site.as_str()).collect();
    ensure!(reached == ["s1"], "the bad filter judged at the canary only: {reached:?}");
    everywhere(&sites, "the good set again", |view| {
        view.active().bindings == good && view.generation == view.active().number
    })
    .await?;

    // Every router has each step in its audit log, whoever has made it.
    for node in sites.nodes.iter().flatten() {
        let started = steps(node, |note| note.action == "rollout-started")?;
        ensure!(started.iter().filter(|(_, actor)| actor == "ann").count() == 2, "{started:?}");
        for (id, wanted) in [(good_id, "rollout-advanced"), (id, "rollout-aborted")] {
            let is_of = |note: &Note| format!("{} ", note.subject).starts_with(&format!("rollout {id} "));
            let steps = steps(node, is_of)?;
            ensure!(steps.iter().any(|(action, _)| action == wanted), "{wanted}: {steps:?}");
            ensure!(steps.last().is_some_and(|(action, _)| action == "rollout-finished"), "{steps:?}");
        }
    }

    is_over.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await??;
    }
    let (s0, s1, s2) = (0, 1, 2);
    let ledgers = sites.end().await?;
    reading.abort();
    // The bad filter trapped at the canary, where its verdict for faults is to reject; nowhere else was anything.
    ensure!(ledgers[s1].rejected > 0 && ledgers[s0].rejected == 0 && ledgers[s2].rejected == 0, "{ledgers:?}");
    let accepted: u64 = ledgers.iter().map(|ledger| ledger.accepted).sum();
    ensure!(accepted == sent.load(Ordering::Relaxed), "every event is accounted for: {ledgers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_writer_events_flow_and_routers_start_and_changes_wait() -> Result<()> {
    let mut sites = Sites::start(3, |site, other| other + 1 == site).await?;
    stage(sites.at(0), "1.0.0", Behaviour::Allow).await?;
    sites.at(0).world().rollout(ann()).await?;
    everywhere(&sites, "the filter", |view| view.cards.len() == 1).await?;
    sites.nodes[0].take().context("it runs")?.drain().await;

    let refused =
        sites.at(2).world().add_module("late".parse()?, "1.0.0".parse()?, component(Behaviour::Allow)?.into(), ann());
    let refused = refused.await.err().context("nobody writes it down")?;
    ensure!(refused.code == "writer-unreachable" && refused.message.contains("s0/r1"), "{refused:?}");

    sites.nodes[2].take().context("it runs")?.drain().await;
    sites.nodes[2] = Some(sites.node(2, &[1], 2).await?);
    ensure!(sites.at(2).world().view().cards.len() == 1, "its own copy does");
    let (near, far) = (sites.client(1, "near").await?, sites.client(2, "far").await?);
    let mut events = far.subscribe("orders/**", SubscribeOptions::default()).await?;
    let arrived = async {
        loop {
            near.send(Event::new("orders/a", "still")).await?;
            // Its subscription is heard of there a little later.
            if let Ok(event) = tokio::time::timeout(Duration::from_millis(100), events.next()).await {
                return event.context("an event");
            }
        }
    };
    let event = tokio::time::timeout(PATIENCE, arrived).await.context("events flow")??;
    ensure!(event.payload() == b"still");
    sites.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_added_and_removed_while_the_mesh_runs() -> Result<()> {
    let mut sites = Sites::start(2, |site, other| other + 1 == site).await?;
    stage(sites.at(0), "1.0.0", Behaviour::Allow).await?;
    sites.at(0).world().rollout(ann()).await?;
    let (site, name): (Name, Name) = ("s2".parse()?, "r1".parse()?);
    let (region, cloud) = ("us-east".parse()?, "own".parse()?);
    // At a router that does not write the catalog.
    let change = |op| sites.at(1).world().change(Change::Record(Box::new(op)), None, ann());
    // One by mistake: its number is used up, and the next router joins all the same.
    let typo: Name = "typo".parse()?;
    change(Op::SiteAdded { name: typo.clone(), region, cloud }).await?;
    change(Op::SiteRemoved { name: typo }).await?;
    let (region, cloud) = ("us-east".parse()?, "own".parse()?);
    change(Op::SiteAdded { name: site.clone(), region, cloud }).await?;
    change(Op::RouterAdded { site: site.clone(), name: name.clone() }).await?;
    everywhere(&sites, "three routers", |view| view.catalog.fleet().routers().len() == 3).await?;
    sites.skip("removed-2");
    sites.join("s2/r1", &[1]).await?;
    ensure!(sites.at(2).world().view().cards.len() == 1, "it has the filter when it serves");

    // Two hops: it dials one of them, and the other hears of it.
    let (near, far) = (sites.client(0, "near").await?, sites.client(2, "far").await?);
    let mut events = far.subscribe("orders/**", SubscribeOptions::default()).await?;
    sites.knows(0, 1).await?;
    near.send(Event::new("orders/a", "hello")).await?;
    let event = tokio::time::timeout(PATIENCE, events.next()).await?.context("an event")?;
    ensure!(event.payload() == b"hello");
    // A rollout has to hear of it as well.
    stage(sites.at(2), "1.1.0", Behaviour::Allow).await?;
    sites.at(2).world().rollout(ann()).await?;

    drop(events);
    sites.nodes.pop().flatten().context("it runs")?.drain().await;
    let change = |op| sites.at(1).world().change(Change::Record(Box::new(op)), None, ann());
    change(Op::RouterRemoved { site: site.clone(), name }).await?;
    change(Op::SiteRemoved { name: site }).await?;
    everywhere(&sites, "two routers", |view| view.catalog.fleet().routers().len() == 2).await?;
    // Who was removed takes no part any more: whoever it reaches tells it nothing.
    let again = sites.node(2, &[0], 2).await?;
    let alone = async {
        while again.mesh_status().load().links.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, alone).await.context("it dials")?;
    let head = again.world().view().catalog.head();
    ensure!(head.rev < sites.at(0).world().view().catalog.head().rev, "it is not given the catalog");
    let (here, there) = (sites.at(0).mesh_status().load(), again.mesh_status().load());
    ensure!(here.reachable == 1 && there.reachable == 0, "{here:?} {there:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_not_complete_where_the_ledger_of_the_mesh_does_not_balance() -> Result<()> {
    let sites = Sites::start(3, |site, other| other + 1 == site).await?;
    let (near, far) = (sites.client(0, "near").await?, sites.client(2, "far").await?);
    let mut events = far.subscribe("orders/**", SubscribeOptions::default()).await?;
    sites.knows(0, 1).await?;
    // Every copy that leaves the first site is forgotten by its ledger.
    sites.at(0).sabotage(Some(Term::Forwarded)).await;
    near.send(Event::new("orders/a", "hello")).await?;
    let event = tokio::time::timeout(PATIENCE, events.next()).await?.context("an event")?;
    ensure!(event.payload() == b"hello");

    stage(sites.at(1), "1.0.0", Behaviour::Allow).await?;
    let plan = RolloutPlan { observe_s: 0, events_min: 0, deadline_s: 8, ..plan("s1")? };
    let id = sites.at(1).world().start_rollout(plan, ann()).await?;
    let over = |view: &View| view.catalog.rollouts().any(|rollout| rollout.id == id && !rollout.is_running());
    everywhere(&sites, "its end", over).await?;
    let view = sites.at(2).world().view();
    let end = view.catalog.rollouts().find(|rollout| rollout.id == id).and_then(|rollout| rollout.end.clone());
    let end = end.context("it is over")?;
    ensure!(end.outcome == Outcome::Unbalanced && end.reason.contains("router s0/r1: generation"), "{end:?}");
    // The set has passed everything else: it stays.
    everywhere(&sites, "the new set", |view| view.cards.len() == 1 && view.catalog.is_uniform()).await?;
    let off = sites.at(2).world().ledger_off().await;
    ensure!(off.as_ref().is_some_and(|off| off.contains("s0/r1")), "every router says so: {off:?}");
    Ok(())
}
