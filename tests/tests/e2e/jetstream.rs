//! A catalog on NATS JetStream: every router changes it, and what happens when servers and routers of it die.

use crate::chaos::{Ears, Mouth};
use crate::routing::decided;
use anyhow::{Context, Result, ensure};
use myelin_client::{Event, Outcome, Overflow};
use myelin_store::JetstreamOptions;
use myelin_store::servers::{Cluster, leader};
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::sites::{Sites, shapes};
use myelin_tests::{Answer, Router};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

mod copies;

const SITES: usize = 3;
/// How long anything may take: longer than the servers need to choose leaders, one after another, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two events of a publisher.
const INTERVAL: Duration = Duration::from_millis(10);
/// More than a test publishes.
const MANY: u64 = 1_000_000;
/// How long a router tries an operation again: an election, and then some.
const PATIENCE_MS: u64 = 15_000;

/// Routers at three sites, linked each with each, that share the catalog on three servers.
struct Mesh {
    cluster: Cluster,
    options: JetstreamOptions,
    sites: Sites,
}

impl Mesh {
    async fn start() -> Result<Self> {
        let cluster = tokio::task::block_in_place(Cluster::start);
        let options = JetstreamOptions { urls: cluster.urls(), ..JetstreamOptions::default() };
        let (urls, patience) = (options.urls.join(","), PATIENCE_MS.to_string());
        let system_urls = cluster.system_urls().join(",");
        let keys = [
            ("CATALOG__ENGINE", "jetstream"),
            ("JETSTREAM__URLS", &urls),
            // That the servers sync before they answer is looked at, not believed.
            ("JETSTREAM__SYSTEM_URLS", &system_urls),
            ("JETSTREAM__CALL_TIMEOUT_MS", "2000"),
            ("JETSTREAM__PATIENCE_MS", &patience),
        ];
        let sites = Sites::start_with(SITES, &shapes::mesh(SITES), &keys).await?;
        Ok(Self { cluster, options, sites })
    }

    fn at(&self, site: usize) -> &Router {
        &self.sites.routers[site]
    }

    /// The server that leads the stream of records.
    fn leader(&self) -> usize {
        tokio::task::block_in_place(|| leader(&self.options))
    }

    fn kill(&mut self, server: usize) {
        tokio::task::block_in_place(|| self.cluster.kill(server));
    }

    fn revive(&mut self, server: usize) {
        tokio::task::block_in_place(|| self.cluster.revive(server));
    }

    fn get(&self, site: usize, path: &str) -> Result<Value> {
        Ok(self.at(site).ask("GET", path, &[], b"")?.json())
    }

    /// Uploads a filter that behaves so.
    fn push(&self, site: usize, version: &str, behaviour: Behaviour) -> Result<Answer> {
        tokio::task::block_in_place(|| self.at(site).upload("gate", version, &component(behaviour)?))
    }

    /// Stages it for everything that is published.
    fn bind(&self, site: usize, version: &str) -> Result<Answer> {
        let binding = json!({"module": format!("gate@{version}"), "pattern": "chaos/**"});
        tokio::task::block_in_place(|| self.at(site).send_json("PUT", "/v1/bindings/gate", &binding))
    }

    /// Makes what is staged active everywhere at once.
    fn activate(&self, site: usize) -> Result<Value> {
        let answer = tokio::task::block_in_place(|| self.at(site).send_json("POST", "/v1/rollouts", &json!({})))?;
        good(answer).context("a rollout at once")
    }

    /// Starts a rollout with a canary and two waves, each watched for `observe_s`; its number.
    fn start_rollout(&self, site: usize, canary: &str, observe_s: u32) -> Result<u64> {
        let any = json!({"traps_ppm": 1_000, "rejects_ppm": null, "module_p99_us": null, "fuel_percent": null});
        let plan = json!({"canary": [canary], "waves": [67, 100], "observe_s": observe_s, "events_min": 0,
            "gates": any, "deadline_s": 60});
        let answer = self.at(site).send_json("POST", "/v1/rollouts", &json!({"plan": plan}))?;
        good(answer)?["id"].as_u64().context("the rollout's number")
    }

    /// A rollout as a site's copy has it.
    fn rollout(&self, site: usize, id: u64) -> Result<Value> {
        Ok(self.at(site).ask("GET", &format!("/v1/rollouts/{id}"), &[], b"")?.json())
    }

    /// Waits until `seen` holds of what `look` gives at all sites.
    async fn everywhere(
        &self,
        what: &str,
        look: impl Fn(&Self, usize) -> Result<Value>,
        seen: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        for site in 0..SITES {
            self.wait(&format!("{what}, site {site}"), |mesh| look(mesh, site), &seen).await?;
        }
        Ok(())
    }

    async fn wait(
        &self,
        what: &str,
        look: impl Fn(&Self) -> Result<Value>,
        seen: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let begin = Instant::now();
        loop {
            // A router that is just killed does not answer.
            let found = look(self).unwrap_or_default();
            if seen(&found) {
                return Ok(found);
            }
            ensure!(begin.elapsed() < PATIENCE, "{what}: {found:#}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The router that controls rollouts, as `site` knows it.
    async fn controller(&self, site: usize) -> Result<usize> {
        let of = |mesh: &Self| mesh.get(site, "/v1/mesh/sites");
        let found = self.wait("a controller", of, |sites| sites["shared_log"]["controller"].is_string()).await?;
        number(&found["shared_log"]["controller"])
    }

    /// Waits until all copies end with the same record and each router runs what the log says for its site.
    async fn agree(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let sites = self.get(0, "/v1/mesh/sites")?;
            let all = (0..SITES).map(|site| self.get(site, "/v1/status")).collect::<Result<Vec<_>>>()?;
            let runs = |site: usize| all[site]["generation"] == sites["sites"][site]["generation"];
            if all.iter().all(|status| status["revision"] == all[0]["revision"]) && (0..SITES).all(runs) {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "the copies do not agree: {sites:#} {all:#?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether the filter judges at a site, and judges as it should: the poison does not pass.
    async fn judges(&self, site: usize, name: &str) -> Result<bool> {
        let client = self.sites.client(site, name, Overflow::DropOldest).await?;
        let outcome = decided(&client, Event::new("chaos/poison", "Poison")).await?;
        Ok(matches!(outcome, Outcome::Refused { .. }))
    }

    /// No router has seen another catalog.
    fn no_fork(&self) -> Result<()> {
        self.no_alarm_but(&["store-unavailable"])
    }

    /// No router has raised another alarm about the catalog than these.
    fn no_alarm_but(&self, expected: &[&str]) -> Result<()> {
        for site in 0..SITES {
            let alarms = self.get(site, "/v1/mesh/sites")?["alarms"].clone();
            let codes: Vec<&String> = alarms.as_object().into_iter().flatten().map(|(code, _)| code).collect();
            ensure!(codes.iter().all(|code| expected.contains(&code.as_str())), "site {site}: {alarms}");
        }
        Ok(())
    }
}

/// The body of an answer that says yes.
pub(crate) fn good(answer: Answer) -> Result<Value> {
    ensure!((200..300).contains(&answer.status), "{}: {:#}", answer.status, answer.json());
    Ok(answer.json())
}

/// The number of the site that `sN/r1` names.
fn number(title: &Value) -> Result<usize> {
    let title = title.as_str().context("a title")?;
    Ok(title.trim_start_matches('s').split('/').next().unwrap_or_default().parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_router_changes_the_catalog_and_what_is_pushed_at_one_judges_at_all() -> Result<()> {
    let mesh = Mesh::start().await?;
    // Each at another router, with nothing between: what one has answered counts at the next.
    good(mesh.push(1, "1.0.0", Behaviour::TrapOnPoison)?)?;
    good(mesh.bind(2, "1.0.0")?)?;
    mesh.activate(0)?;
    mesh.agree().await?;
    for site in 0..SITES {
        ensure!(mesh.judges(site, &format!("asker-{site}")).await?, "site {site} lets the poison pass");
    }
    // All at once: each record follows another, and none is refused for that.
    let component = component(Behaviour::Allow)?;
    std::thread::scope(|scope| {
        let pushing = (0..SITES).map(|site| {
            let (router, component) = (mesh.at(site), &component);
            scope.spawn(move || good(router.upload(&format!("from-{site}"), "1.0.0", component)?))
        });
        let pushing: Vec<_> = pushing.collect();
        pushing.into_iter().try_for_each(|pushed| pushed.join().expect("it does not panic").map(drop))
    })?;
    mesh.agree().await?;
    for site in 0..SITES {
        let modules = mesh.get(site, "/v1/modules")?;
        ensure!(modules["modules"].as_array().map(Vec::len) == Some(1 + SITES), "site {site}: {modules:#}");
    }
    mesh.no_fork()?;
    who_wrote_what(&mesh)?;
    mesh.sites.end()
}

/// Each router appends by itself, and signs: its key tells whose record it is. What it appended for one whose key was not
/// trusted yet, as the key itself, it alone knows for whom.
fn who_wrote_what(mesh: &Mesh) -> Result<()> {
    let mut handed_in = Vec::new();
    for site in 0..SITES {
        let page = mesh.get(site, "/v1/audit?kind=catalog&limit=1000")?;
        let entries = page["entries"].as_array().context("entries")?;
        let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let records: Vec<_> = entries.iter().filter(|entry| !entry["digest"].is_null()).collect();
        let is_signed = |entry: &&&Value| text(entry, "detail").starts_with("signed with the key ");
        ensure!(records.iter().filter(is_signed).count() == records.len(), "site {site}: {records:#?}");
        let via = records.iter().filter(|entry| text(entry, "from").starts_with("via "));
        handed_in.extend(via.map(|entry| text(entry, "action")));
    }
    ensure!(handed_in == ["key-trusted"; SITES - 1], "{handed_in:?}");
    Ok(())
}

/// Publishers at two sites and a subscriber at the third.
struct Traffic {
    mouths: Vec<Mouth>,
    ears: Ears,
}

impl Traffic {
    async fn start(mesh: &Mesh, mouths: &[usize], ears: usize) -> Result<Self> {
        let ears = Ears::open(&mesh.sites, ears).await?;
        let wanted: Vec<_> = mouths.iter().map(|site| (*site, 1)).collect();
        mesh.sites.agree(&wanted).await?;
        let mut open = Vec::new();
        for site in mouths {
            open.push(Mouth::open(&mesh.sites, *site, INTERVAL, MANY).await?);
        }
        Ok(Self { mouths: open, ears })
    }

    /// Waits until more events were published and heard.
    async fn flows(&self) -> Result<()> {
        for mouth in &self.mouths {
            let sent = mouth.sent();
            self.ears.hears(mouth.site(), sent, sent + 20).await?;
        }
        Ok(())
    }

    /// Ends it: every event was heard once, and every ledger of the mesh balances.
    async fn end(self, mesh: &Mesh) -> Result<()> {
        for mouth in self.mouths {
            let site = mouth.site();
            let sent = mouth.close(true).await?;
            self.ears.hears(site, 0, sent).await?;
            self.ears.heard_none_twice(site)?;
        }
        let settled = mesh.sites.settle().await?;
        ensure!(settled["lost"] == 0 && settled["shed"] == 0, "{settled:?}");
        let of = |mesh: &Mesh| mesh.get(0, "/v1/mesh/ledger");
        mesh.wait("the mesh's ledger", of, |ledger| ledger["balances"] == true && ledger["settled"] == true).await?;
        Ok(())
    }
}

fn is_over(rollout: &Value) -> bool {
    rollout["running"] == false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_the_cluster_that_is_killed_during_a_rollout_loses_no_event_and_no_step() -> Result<()> {
    let mut mesh = Mesh::start().await?;
    good(mesh.push(0, "1.0.0", Behaviour::Allow)?)?;
    good(mesh.bind(0, "1.0.0")?)?;
    let traffic = Traffic::start(&mesh, &[0, 2], 1).await?;
    let id = mesh.start_rollout(1, "s0", 2)?;
    let leader = mesh.leader();
    mesh.kill(leader);
    let now = mesh.rollout(1, id)?;
    ensure!(now["running"] == true, "it was over before the server died: {now:#}");
    mesh.everywhere("the rollout", |mesh, site| mesh.rollout(site, id), is_over).await?;
    let states = (0..SITES).map(|site| Ok(mesh.rollout(site, id)?["state"].clone())).collect::<Result<Vec<_>>>()?;
    ensure!(states.iter().all(|state| state == "complete"), "{states:?}");
    mesh.agree().await?;
    mesh.revive(leader);
    traffic.end(&mesh).await?;
    mesh.no_fork()?;
    mesh.sites.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_cluster_events_flow_and_routers_restart_and_changes_wait() -> Result<()> {
    let mut mesh = Mesh::start().await?;
    good(mesh.push(0, "1.0.0", Behaviour::TrapOnPoison)?)?;
    good(mesh.bind(0, "1.0.0")?)?;
    mesh.activate(0)?;
    mesh.agree().await?;
    (0..SITES).for_each(|server| mesh.kill(server));
    let refused = mesh.push(1, "2.0.0", Behaviour::Allow)?;
    ensure!(refused.problem() == (503, "store-unavailable".into()), "{:#}", refused.json());
    mesh.sites.routers[2].kill()?;
    tokio::task::block_in_place(|| mesh.sites.routers[2].restart())?;
    ensure!(mesh.judges(2, "asker").await?, "its own copy does");
    let traffic = Traffic::start(&mesh, &[0], 2).await?;
    traffic.flows().await?;
    traffic.end(&mesh).await?;
    (0..SITES).for_each(|server| mesh.revive(server));
    let again = |mesh: &Mesh| Ok(json!(mesh.push(1, "2.0.0", Behaviour::Allow)?.status));
    mesh.wait("the change", again, |status| status.as_u64().is_some_and(|status| status < 300)).await?;
    mesh.agree().await?;
    // The servers come back one after the other: who asks meanwhile finds fewer than it needs.
    mesh.no_alarm_but(&["store-unavailable", "store-unfit"])?;
    mesh.sites.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_finished_by_another_router_when_its_controller_dies() -> Result<()> {
    let mut mesh = Mesh::start().await?;
    good(mesh.push(0, "1.0.0", Behaviour::Allow)?)?;
    good(mesh.bind(0, "1.0.0")?)?;
    let dead = mesh.controller(0).await?;
    let other = (dead + 1) % SITES;
    let id = mesh.start_rollout(other, &format!("s{other}"), 3)?;
    mesh.wait("the canary", |mesh| mesh.rollout(other, id), |rollout| rollout["state"] == "observe").await?;
    mesh.sites.routers[dead].kill()?;
    let of = |mesh: &Mesh| mesh.get(other, "/v1/mesh/sites");
    let took_over = |sites: &Value| number(&sites["shared_log"]["controller"]).is_ok_and(|site| site != dead);
    mesh.wait("another controller", of, took_over).await?;
    tokio::task::block_in_place(|| mesh.sites.routers[dead].restart())?;
    mesh.everywhere("the rollout", |mesh, site| mesh.rollout(site, id), is_over).await?;
    let ended = mesh.rollout(other, id)?;
    ensure!(ended["state"] == "complete", "{ended:#}");
    mesh.agree().await?;
    mesh.no_fork()?;
    mesh.sites.end()
}
