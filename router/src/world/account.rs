//! The ledger of the whole mesh: that of every router, and what each link says at its two ends.

use super::WorldError;
use crate::audit::Audit;
use crate::ledger::{self, Counts, Exchanged};
use crate::shared::Shared;
use crate::worker::{Ledgers, Order};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

/// Reads what a router says of itself.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its site.
    pub site: String,
    /// Its name.
    pub router: String,
    /// How often it was started.
    pub epoch: u32,
    /// Its workers' ledgers.
    pub ledgers: Ledgers,
    /// The thread of its links.
    pub links: Option<mpsc::Sender<Order>>,
    /// What its workers share.
    pub shared: Arc<Shared>,
    /// Its audit log.
    pub audit: Audit,
}

/// A router's part of the mesh's ledger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouterLedger {
    /// Its site.
    pub site: String,
    /// Its name.
    pub router: String,
    /// How often it was started.
    pub epoch: u32,
    /// All generations together.
    pub total: Counts,
    /// Each generation.
    pub generations: BTreeMap<u64, Counts>,
    /// What it exchanged with each neighbour.
    pub neighbours: Vec<Exchanged>,
}

/// The ledger of the whole mesh.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct MeshLedger {
    /// The routers that answered, by site and name.
    pub routers: Vec<RouterLedger>,
    /// Those that did not, as `SITE/ROUTER`, and why.
    pub missing: BTreeMap<String, String>,
    /// Each link in each direction.
    pub links: Vec<LinkLedger>,
    /// All routers together.
    pub total: Counts,
    /// Whether every router answered, every router's ledger balances, and every link agrees at its two ends.
    pub balances: bool,
    /// The same of those that answered: where some did not, nothing more can be said.
    pub answered_balance: bool,
    /// Whether nothing is on its way, at any router or between two.
    pub settled: bool,
}

/// A link in one direction, as its two ends have counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LinkLedger {
    /// The sender, as `SITE/ROUTER`.
    pub from: String,
    /// The receiver.
    pub to: String,
    /// Events that were sent.
    pub sent: u64,
    /// Those that the receiver has acknowledged, as the sender counts.
    pub acknowledged: u64,
    /// Those that came, as the receiver counts.
    pub received: u64,
    /// Those that were on their way when the link ended.
    pub lost: u64,
    /// Those that are on their way.
    pub in_flight: u64,
    /// Whether the two ends agree: everything acknowledged came, and nothing came that was not sent.
    pub agrees: bool,
}

impl Account {
    /// What this router says of itself now.
    pub async fn read(&self) -> RouterLedger {
        let generations = self.ledgers.read().await;
        let mut total = Counts::default();
        generations.values().for_each(|counts| total.add(counts));
        let neighbours = self.exchanged().await.unwrap_or_default();
        let (site, router, epoch) = (self.site.clone(), self.router.clone(), self.epoch);
        RouterLedger { site, router, epoch, total, generations, neighbours }
    }

    async fn exchanged(&self) -> Option<Vec<Exchanged>> {
        let (answer, answered) = oneshot::channel();
        self.links.as_ref()?.send(Order::Exchanged(answer)).await.ok()?;
        answered.await.ok()
    }

    pub(super) async fn encode(&self) -> Result<Vec<u8>, WorldError> {
        let failed = |error: serde_json::Error| WorldError::new(super::Blame::Router, "internal", error.to_string());
        serde_json::to_vec(&self.read().await).map_err(failed)
    }
}

impl MeshLedger {
    /// Puts the parts together and holds them against each other. All routers are read twice, `before` and then again:
    /// what a sender knew to have come must have come when the receiver is read later, and what a receiver had must
    /// have been sent when the sender is read later. So both hold under load, too.
    pub fn new(before: &[RouterLedger], mut routers: Vec<RouterLedger>, missing: BTreeMap<String, String>) -> Self {
        routers.sort_by(|a, b| (&a.site, &a.router).cmp(&(&b.site, &b.router)));
        let mut total = Counts::default();
        routers.iter().for_each(|router| total.add(&router.total));
        let links: Vec<_> = routers.iter().flat_map(|from| links_of(from, before, &routers)).collect();
        let answered_balance =
            routers.iter().all(|router| router.off().is_none()) && links.iter().all(|link| link.agrees);
        let balances = missing.is_empty() && answered_balance;
        let settled =
            routers.iter().all(|router| router.total.is_settled()) && links.iter().all(|link| link.in_flight == 0);
        Self { routers, missing, links, total, balances, answered_balance, settled }
    }

    /// The first thing that is off: a router that does not answer or balance, a link whose ends do not agree, or a router
    /// that still judges by another generation than is `active` at its site. None = it balances and all old sets are done.
    pub(super) fn off(&self, active: impl Fn(&str) -> Option<u64>) -> Option<String> {
        if let Some((router, why)) = self.missing.first_key_value() {
            return Some(format!("router {router} did not give its ledger: {why}"));
        }
        for router in &self.routers {
            let title = format!("router {}/{}", router.site, router.router);
            if let Some(off) = router.off() {
                return Some(format!("{title}: {off}"));
            }
            let active = active(&router.site);
            let mut old = router.generations.iter().filter(|(generation, _)| Some(**generation) != active);
            if let Some((generation, counts)) = old.find(|(_, counts)| counts.in_pipeline != 0) {
                return Some(format!("{title} still judges {} events by generation {generation}", counts.in_pipeline));
            }
        }
        let link = self.links.iter().find(|link| !link.agrees)?;
        let LinkLedger { from, to, sent, acknowledged, received, .. } = link;
        Some(format!("link {from} to {to}: {sent} sent, {acknowledged} acknowledged, {received} received"))
    }
}

impl RouterLedger {
    /// By how much the balances of this router are off. Where workers have added up old generations, which they may do
    /// differently, only the whole is proof; before, each generation is.
    fn off(&self) -> Option<String> {
        let off = if self.generations.len() < ledger::GENERATIONS_MAX {
            let mut each = self.generations.iter().map(|(number, counts)| (format!("generation {number}"), counts));
            each.find(|(_, counts)| !counts.balances())
        } else {
            (!self.total.balances()).then(|| ("all generations".to_owned(), &self.total))
        };
        off.map(|(of, counts)| {
            format!("{of} is off by {} events and {} copies", counts.events_off_by(), counts.copies_off_by())
        })
    }
}

/// The links of `from` to routers that answered, in the runs that both are in now.
fn links_of(from: &RouterLedger, before: &[RouterLedger], routers: &[RouterLedger]) -> Vec<LinkLedger> {
    let pairs = from.neighbours.iter().filter_map(|out| {
        let to = routers.iter().find(|to| to.site == out.site && to.router == out.router && to.epoch == out.epoch)?;
        let received = with(to, from).map_or(0, |back| back.received);
        let Exchanged { sent, acknowledged, lost, .. } = *out;
        let acknowledged_before = same(before, from).and_then(|from| with(from, to)).map_or(0, |out| out.acknowledged);
        let received_before = same(before, to).and_then(|to| with(to, from)).map_or(0, |back| back.received);
        Some(LinkLedger {
            from: format!("{}/{}", from.site, from.router),
            to: format!("{}/{}", to.site, to.router),
            sent,
            acknowledged,
            received,
            lost,
            in_flight: sent - acknowledged - lost,
            agrees: acknowledged_before <= received && received_before <= sent,
        })
    });
    pairs.collect()
}

/// What `router` exchanged with the run of `other`.
fn with<'a>(router: &'a RouterLedger, other: &RouterLedger) -> Option<&'a Exchanged> {
    let is_it = |it: &&Exchanged| it.site == other.site && it.router == other.router && it.epoch == other.epoch;
    router.neighbours.iter().find(is_it)
}

/// The same run of a router as it was read before.
fn same<'a>(before: &'a [RouterLedger], router: &RouterLedger) -> Option<&'a RouterLedger> {
    before.iter().find(|it| it.site == router.site && it.router == router.router && it.epoch == router.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(site: &str, with: &str, sent: u64, acknowledged: u64, received: u64) -> RouterLedger {
        let neighbour =
            Exchanged { site: with.into(), router: "r1".into(), epoch: 1, sent, acknowledged, lost: 0, received };
        let total = Counts { accepted: 5, rejected: 5, ..Counts::default() };
        RouterLedger {
            site: site.into(),
            router: "r1".into(),
            epoch: 1,
            total,
            generations: BTreeMap::from([(0, total)]),
            neighbours: vec![neighbour],
        }
    }

    /// Nothing changed between the two times.
    fn read(routers: Vec<RouterLedger>) -> MeshLedger {
        MeshLedger::new(&routers.clone(), routers, BTreeMap::new())
    }

    #[test]
    fn links_are_held_against_each_other() {
        let good = read(vec![router("us", "eu", 7, 7, 3), router("eu", "us", 3, 3, 7)]);
        assert!(good.balances && good.settled, "{good:?}");
        assert_eq!((good.links[0].from.as_str(), good.links[0].to.as_str()), ("eu/r1", "us/r1"));
        assert_eq!(good.total.accepted, 10);
        let on_the_way = read(vec![router("us", "eu", 9, 7, 3), router("eu", "us", 3, 3, 8)]);
        assert!(on_the_way.balances && !on_the_way.settled, "{on_the_way:?}");
        for (sent, acknowledged, came) in [(7, 7, 6), (7, 6, 8)] {
            let off = vec![router("us", "eu", sent, acknowledged, 3), router("eu", "us", 3, 3, came)];
            assert!(!read(off).balances, "{sent} sent, {came} came");
        }
    }

    #[test]
    fn what_moves_between_the_two_readings_is_no_fault() {
        let before = [router("us", "eu", 5, 5, 0), router("eu", "us", 0, 0, 5)];
        // Read later: us has sent more and heard of it, eu is read a little earlier or later than us.
        for came in [5, 7, 9] {
            let now = vec![router("us", "eu", 9, 7, 0), router("eu", "us", 0, 0, came)];
            assert!(MeshLedger::new(&before, now, BTreeMap::new()).balances, "{came}");
        }
        let now = vec![router("us", "eu", 9, 7, 0), router("eu", "us", 0, 0, 4)];
        assert!(!MeshLedger::new(&before, now, BTreeMap::new()).balances, "what had come is gone");
    }

    #[test]
    fn a_router_that_does_not_answer_or_balance_shows() {
        let missing = BTreeMap::from([("eu/r1".to_owned(), "no path".to_owned())]);
        let incomplete = MeshLedger::new(&[], vec![router("us", "eu", 7, 7, 3)], missing);
        assert!(!incomplete.balances && incomplete.answered_balance, "{incomplete:?}");
        let mut off = router("us", "eu", 0, 0, 0);
        off.generations.insert(3, Counts { accepted: 1, ..Counts::default() });
        assert!(!read(vec![off]).balances);
    }

    #[test]
    fn what_is_off_is_named_and_old_sets_must_be_done() {
        let active = |_: &str| Some(4);
        let good = vec![router("us", "eu", 7, 7, 3), router("eu", "us", 3, 3, 7)];
        assert_eq!(read(good.clone()).off(active), None);
        let with = |generation, counts: Counts| {
            let mut routers = good.clone();
            routers[0].generations.insert(generation, counts);
            read(routers).off(active)
        };
        let judging = Counts { accepted: 2, in_pipeline: 2, ..Counts::default() };
        assert_eq!(with(4, judging), None, "by the new set");
        assert!(with(3, judging).is_some_and(|off| off == "router us/r1 still judges 2 events by generation 3"));
        let waiting = Counts { targets: 2, in_queue: 2, ..Counts::default() };
        assert_eq!(with(3, waiting), None, "a slow subscriber may take its time");
        let forgotten = Counts { targets: 2, in_queue: 1, ..Counts::default() };
        assert!(
            with(3, forgotten).is_some_and(|off| off.contains("us/r1: generation 3 is off by 0 events and 1 copies"))
        );
        let off = vec![router("us", "eu", 7, 7, 3), router("eu", "us", 3, 3, 6)];
        assert!(
            read(off).off(active).is_some_and(|off| off.contains("link us/r1 to eu/r1: 7 sent, 7 acknowledged, 6"))
        );
        let missing = BTreeMap::from([("eu/r1".to_owned(), "no path".to_owned())]);
        let ledger = MeshLedger::new(&[], vec![router("us", "eu", 7, 7, 3)], missing);
        assert!(ledger.off(active).is_some_and(|off| off.contains("eu/r1 did not give its ledger: no path")));
    }

    #[test]
    fn generations_that_workers_have_added_up_differently_are_checked_as_a_whole() {
        let most = u64::try_from(ledger::GENERATIONS_MAX).unwrap_or(u64::MAX);
        let mut us = router("us", "eu", 0, 0, 0);
        // One worker has added generation 0 up into generation 1, the other has not.
        us.generations = (0..most).map(|generation| (generation, Counts::default())).collect();
        us.generations.insert(0, Counts { rejected: 5, ..Counts::default() });
        us.generations.insert(1, Counts { accepted: 5, ..Counts::default() });
        assert!(read(vec![us.clone()]).balances, "{:?}", us.off());
        us.total.accepted += 1;
        assert!(!read(vec![us]).balances);
    }

    #[test]
    fn runs_that_are_over_are_not_compared() {
        let mut eu = router("eu", "us", 3, 3, 0);
        eu.epoch = 2;
        let ledger = read(vec![router("us", "eu", 7, 7, 3), eu]);
        assert_eq!(ledger.links.len(), 1, "us knows a run of eu that is over: {ledger:?}");
    }
}
