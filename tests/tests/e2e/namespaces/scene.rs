//! Five sites with publishers, subscribers, and a rollout for each fault.

use crate::chaos::{Ears, Mouth};
use crate::jetstream::good;
use anyhow::{Context, Result, ensure};
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::relay::Path;
use myelin_tests::sites::{PATIENCE, Sites};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub(super) const SITES: usize = 5;
/// Sites that publish, and sites that subscribe: nothing of them is killed.
const MOUTHS: [usize; 2] = [2, 4];
const EARS: [usize; 2] = [2, 3];
const INTERVAL: Duration = Duration::from_millis(40);
/// More than a test publishes.
const MANY: u64 = 1_000_000;
/// Round trips of the links, in turn: for shapes without a choice, and so that the direct way is the shortest.
pub(super) const FAR_MS: [u64; 5] = [80, 200, 110, 170, 140];
pub(super) const NEAR_MS: [u64; 5] = [80, 140, 100, 120, 90];
/// What may still be lost after everybody knows everything again: the routes follow within this time.
const ROUTES: Duration = Duration::from_secs(2);
/// How long a fault lasts that nothing goes around: longer than a silent link is believed to be alive.
const LASTS: Duration = Duration::from_secs(6);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Questions about one router's patterns, one a second, after which a router has them when all is whole again: five seconds
/// of the mesh's own, however long they take on a busy machine.
const QUESTIONS_MAX: u64 = 5;

/// How five sites are linked, and what they survive: what breaks, and whether all the while a path is there between those
/// who publish and those who subscribe.
pub(super) struct Shape {
    pub(super) links: Vec<(usize, usize)>,
    pub(super) rtts_ms: [u64; 5],
    pub(super) seed: u64,
    pub(super) faults: Vec<(Fault, bool)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// A link is cut: silence.
    Cut((usize, usize)),
    /// A link goes and comes, once a second.
    Flap((usize, usize)),
    /// A router is killed and started again.
    Kill(usize),
    /// A router stands still for ten seconds.
    Freeze(usize),
    /// A site's interface is down: its own system says so.
    Unplug(usize),
    /// Every router gets a certificate of another authority, and the old one is trusted no longer; then each link breaks
    /// and must come back by the new ones.
    Rotate,
}

pub(super) struct Scene {
    sites: Sites,
    ears: Vec<Ears>,
    mouths: Vec<Mouth>,
    /// The version of the filter that is staged last, and the one that judges.
    version: u32,
    active: u32,
}

/// A link that does everything but break.
fn rough(rtt_ms: u64) -> Path {
    let wide = Path::wide_area(Duration::from_millis(rtt_ms), 20);
    Path { duplicate_per_mille: 5, reorder_per_mille: 5, ..wide }
}

impl Fault {
    async fn begin(self, sites: &mut Sites) -> Result<()> {
        match self {
            Self::Cut(link) => sites.link(link).cut(),
            Self::Flap(link) => {
                for _ in 0..6 {
                    sites.link(link).cut();
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    sites.link(link).heal();
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
            Self::Kill(site) => drop(sites.routers[site].kill()?),
            Self::Freeze(site) => sites.routers[site].freeze()?,
            Self::Unplug(site) => sites.namespace(site).unplug()?,
            Self::Rotate => sites.rotate_certificates().await?,
        }
        Ok(())
    }

    async fn end(self, sites: &mut Sites) -> Result<()> {
        match self {
            Self::Cut(link) => sites.link(link).heal(),
            Self::Flap(_) | Self::Rotate => {}
            Self::Kill(site) => sites.routers[site].restart()?,
            Self::Freeze(site) => {
                tokio::time::sleep(Duration::from_secs(10)).await;
                sites.routers[site].thaw()?;
            }
            Self::Unplug(site) => sites.namespace(site).plug()?,
        }
        Ok(())
    }

    fn killed(self) -> Option<usize> {
        if let Self::Kill(site) = self { Some(site) } else { None }
    }
}

impl Scene {
    pub(super) async fn open(shape: &Shape) -> Result<Self> {
        let path = |link: usize| rough(shape.rtts_ms[link % shape.rtts_ms.len()]);
        let sites = Sites::start_apart(SITES, &shape.links, shape.seed, path).await?;
        let (mut ears, mut mouths) = (Vec::new(), Vec::new());
        for site in EARS {
            ears.push(Ears::open(&sites, site).await?);
        }
        let mut scene = Self { sites, ears, mouths: Vec::new(), version: 0, active: 0 };
        scene.agree().await?;
        // The first set is there before anything breaks.
        let id = scene.roll_out().await?;
        ensure!(scene.ended(id).await? == "complete", "nothing was broken");
        scene.is_one_set("complete").await?;
        for site in MOUTHS {
            mouths.push(Mouth::open(&scene.sites, site, INTERVAL, MANY).await?);
        }
        scene.mouths = mouths;
        Ok(scene)
    }

    /// Something breaks during a rollout, and is whole again.
    pub(super) async fn survives(&mut self, fault: &Fault, has_path: bool) -> Result<()> {
        let begin = Instant::now();
        for (ears, mouth) in self.pairs() {
            ears.hears_later_than(mouth.site(), mouth.sent()).await?;
        }
        let (before, gone_before) = (self.sent(), self.gone(fault.killed())?);
        let id = self.roll_out().await?;
        fault.begin(&mut self.sites).await?;
        if has_path {
            let during = self.sent();
            for (ears, mouth) in self.pairs() {
                ears.hears_later_than(mouth.site(), during[&mouth.site()]).await?;
            }
        } else {
            tokio::time::sleep(LASTS).await;
        }
        fault.end(&mut self.sites).await?;
        let (healed, asked_before) = (Instant::now(), self.asked()?);
        if matches!(fault, Fault::Rotate) {
            // The new certificates themselves have cost nothing.
            for (ears, mouth) in self.pairs() {
                ears.hears(mouth.site(), before[&mouth.site()], mouth.sent()).await?;
            }
            self.every_link_breaks().await?;
        }
        self.agree().await?;
        let agreed = healed.elapsed();
        self.hashes_agree().await?;
        let hashes = healed.elapsed().saturating_sub(agreed);
        let asked = self.asked()?;
        // A router that was killed counts from its start on.
        let asked: Vec<u64> = asked.iter().zip(&asked_before).map(|(now, then)| now.saturating_sub(*then)).collect();
        let most = QUESTIONS_MAX * (SITES as u64 - 1);
        ensure!(asked.iter().all(|asked| *asked <= most), "{fault:?}: {asked:?} questions until the hashes agreed");
        let state = self.ended(id).await?;
        self.is_one_set(&state).await?;

        // From here on nothing is lost.
        tokio::time::sleep(ROUTES).await;
        let whole = self.sent();
        for (ears, mouth) in self.pairs() {
            ears.hears_later_than(mouth.site(), mouth.sent() + 10).await?;
            ears.hears(mouth.site(), whole[&mouth.site()], whole[&mouth.site()] + 10).await?;
            ears.heard_none_twice(mouth.site())?;
        }
        let missing: u64 = self.pairs().map(|(ears, mouth)| missing(ears, mouth.site(), &before, &whole)).sum();
        let gone = self.gone(fault.killed())?.saturating_sub(gone_before);
        println!(
            "{fault:?}: rollout {id} is {state}; missing {missing}, lost or shed {gone}; links and interest {agreed:.1?} \
             after it was whole, hashes {hashes:.1?} later, after {asked:?} questions; {:.0?} in all",
            begin.elapsed()
        );
        // A lost copy may have been for every site that subscribes.
        let most = gone * EARS.len() as u64;
        let has_path = has_path && !matches!(fault, Fault::Rotate);
        ensure!(!has_path || missing <= most, "{fault:?}: {missing} events are missing, {gone} are declared");
        Ok(())
    }

    /// Each event that was ever published is accounted for.
    pub(super) async fn ends(mut self) -> Result<()> {
        for mouth in std::mem::take(&mut self.mouths) {
            mouth.close(true).await?;
        }
        self.sites.settle().await?;
        let begin = Instant::now();
        loop {
            let ledger = self.get(0, "/v1/mesh/ledger")?;
            if ledger["balances"] == true && ledger["settled"] == true {
                break;
            }
            ensure!(begin.elapsed() < PATIENCE, "the ledger of the mesh: {ledger:#}");
            tokio::time::sleep(PAUSE).await;
        }
        for ears in &self.ears {
            MOUTHS.iter().try_for_each(|site| ears.heard_none_twice(*site))?;
        }
        for site in 0..SITES {
            let alarms = self.get(site, "/v1/mesh/sites")?["alarms"].clone();
            ensure!(alarms == json!({}), "site {site}: {alarms}");
            ensure!(!self.sites.routers[site].log().contains("panicked"), "{}", self.sites.routers[site].log());
        }
        self.sites.end()
    }

    fn pairs(&self) -> impl Iterator<Item = (&Ears, &Mouth)> {
        self.ears.iter().flat_map(|ears| self.mouths.iter().map(move |mouth| (ears, mouth)))
    }

    /// How many events each site has published.
    fn sent(&self) -> BTreeMap<usize, u64> {
        self.mouths.iter().map(|mouth| (mouth.site(), mouth.sent())).collect()
    }

    /// What the ledgers declare to be lost or shed; that of a router that is killed is gone with it.
    fn gone(&self, killed: Option<usize>) -> Result<u64> {
        let mut sum = 0;
        for (_, router) in self.sites.routers.iter().enumerate().filter(|(site, _)| Some(*site) != killed) {
            let ledger = router.ask("GET", "/v1/ledger", &[], b"")?.json();
            sum += ["lost", "shed"].iter().filter_map(|term| ledger["total"][term].as_u64()).sum::<u64>();
        }
        Ok(sum)
    }

    /// Waits until all links are there and everybody knows exactly what the others want.
    async fn agree(&self) -> Result<()> {
        let wanted = |site: usize| EARS.iter().filter(|ears| **ears != site).count();
        self.sites.agree(&(0..SITES).map(|site| (site, wanted(site))).collect::<Vec<_>>()).await
    }

    /// How often each router has asked for another's patterns since its start.
    fn asked(&self) -> Result<Vec<u64>> {
        let asked = |site| self.sites.mesh(site)?["interest_asked"].as_u64().context("a count of questions");
        (0..SITES).map(asked).collect()
    }

    /// Waits until every site has the same hash of what each router's sessions want.
    async fn hashes_agree(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let all =
                (0..SITES).map(|site| Ok(self.sites.mesh(site)?["interests"].clone())).collect::<Result<Vec<_>>>()?;
            let is_whole = |hashes: &Value| hashes.as_object().is_some_and(|hashes| hashes.len() == SITES);
            if all.iter().all(|hashes| is_whole(hashes) && *hashes == all[0]) {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "the hashes differ: {all:#?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Every link falls silent and comes back; whoever trusts only the new authority takes no old certificate.
    async fn every_link_breaks(&self) -> Result<()> {
        self.sites.links().for_each(|(_, link)| link.cut());
        let begin = Instant::now();
        for site in 0..SITES {
            while self.sites.mesh(site)?["links"].as_array().is_none_or(|links| !links.is_empty()) {
                ensure!(begin.elapsed() < PATIENCE, "site {site} still believes in a link");
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.sites.links().for_each(|(_, link)| link.heal());
        Ok(())
    }

    /// Starts a rollout of a new version at the router that writes the catalog; its number.
    async fn roll_out(&mut self) -> Result<u64> {
        self.version += 1;
        let version = format!("{}.0.0", self.version);
        let router = &self.sites.routers[0];
        good(router.upload("gate", &version, &component(Behaviour::Allow)?)?)?;
        let binding = json!({"module": format!("gate@{version}"), "pattern": "chaos/**"});
        good(router.send_json("PUT", "/v1/bindings/gate", &binding)?)?;
        let any = json!({"traps_ppm": 1_000, "rejects_ppm": null, "module_p99_us": null, "fuel_percent": null});
        let plan = json!({"canary": ["s4"], "waves": [60, 100], "observe_s": 1, "events_min": 0, "gates": any,
            "deadline_s": 90});
        let started = good(router.send_json("POST", "/v1/rollouts", &json!({"plan": plan}))?)?;
        started["id"].as_u64().context("the rollout's number")
    }

    /// Waits for the end of a rollout as every site's copy has it; how it ended.
    async fn ended(&mut self, id: u64) -> Result<String> {
        let (begin, mut state) = (Instant::now(), String::new());
        for site in 0..SITES {
            loop {
                // The controller may be away; its site's copy of the log tells when it is over.
                let rollout = self.get(site, &format!("/v1/rollouts/{id}")).unwrap_or_default();
                if rollout["running"] == false {
                    state = rollout["state"].as_str().unwrap_or_default().to_owned();
                    ensure!(["complete", "rolled-back"].contains(&state.as_str()), "{rollout:#}");
                    break;
                }
                ensure!(begin.elapsed() < 3 * PATIENCE, "site {site}: {rollout:#}");
                tokio::time::sleep(PAUSE).await;
            }
        }
        if state == "complete" {
            self.active = self.version;
        }
        Ok(state)
    }

    /// Waits until every router has the same records and runs the set that the log says for its site, which is the new
    /// one after a rollout that is complete and the old one after one that was rolled back.
    async fn is_one_set(&self, state: &str) -> Result<()> {
        let (begin, version) = (Instant::now(), format!("gate@{}.0.0", self.active));
        loop {
            let sites = self.get(0, "/v1/mesh/sites")?["sites"].clone();
            let all = (0..SITES).map(|site| self.get(site, "/v1/status")).collect::<Result<Vec<_>>>()?;
            let bindings = (0..SITES).map(|site| self.get(site, "/v1/bindings")).collect::<Result<Vec<_>>>()?;
            let runs = |site: usize| all[site]["generation"] == sites[site]["generation"];
            let has = |bindings: &Value| {
                let gate = &bindings["bindings"][0];
                gate["module"] == version.as_str() && gate["state"] == "active"
            };
            let revisions: BTreeSet<_> = all.iter().map(|status| status["revision"].as_u64()).collect();
            if revisions.len() == 1 && (0..SITES).all(runs) && bindings.iter().all(has) {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "{state}, {version}: {sites:#} {all:#?} {bindings:#?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn get(&self, site: usize, path: &str) -> Result<Value> {
        Ok(self.sites.routers[site].ask("GET", path, &[], b"")?.json())
    }
}

/// Events that were published between the two moments and that did not come.
fn missing(ears: &Ears, from: usize, before: &BTreeMap<usize, u64>, whole: &BTreeMap<usize, u64>) -> u64 {
    let heard: BTreeSet<u64> = ears.heard(from).into_iter().collect();
    (before[&from]..whole[&from]).filter(|number| !heard.contains(number)).count() as u64
}
