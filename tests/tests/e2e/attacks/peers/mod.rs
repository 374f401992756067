//! Hostile peers: somebody holds the certificate of a member and links with a router of a mesh of three.

mod control;
mod events;
mod floods;
mod forged;
mod hello;
mod records;
mod unsigned;

use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Event, Outcome, Overflow, SubscribeOptions, Subscription};
use myelin_mesh::ViolationCode;
use myelin_tests::hostile::HostileRouter;
use myelin_tests::relay::Path;
use myelin_tests::sites::{Sites, shapes};
use std::time::Duration;
use tokio::time::timeout;

/// Longer than anything honest takes while the machine is under attack.
const PATIENCE: Duration = Duration::from_secs(20);
/// The number of the hostile member.
const EVIL: u32 = 4;

/// Three sites, each linked with each, and a member that is somebody's who attacks site 0.
struct Attacked {
    sites: Sites,
    evil: HostileRouter,
    publisher: Client,
    subscribers: Vec<(Client, Subscription)>,
    sent: u64,
    before_kib: u64,
}

impl Attacked {
    async fn start() -> Result<Self> {
        let sites = Sites::start_among(3, &shapes::mesh(3), 31, |_| Path::default(), &["evil/r1"], &[]).await?;
        let evil = HostileRouter::new(&sites, "evil", EVIL, 0)?;
        let mut subscribers = Vec::new();
        for site in [0, 2] {
            let client = sites.client(site, &format!("calm-{site}"), Overflow::Pause).await?;
            let events = client.subscribe("calm", SubscribeOptions::default()).await?;
            subscribers.push((client, events));
        }
        let publisher = sites.client(1, "calm-1", Overflow::Pause).await?;
        sites.agree(&[(0, 1), (1, 2), (2, 1)]).await?;
        let mut attacked = Self { sites, evil, publisher, subscribers, sent: 0, before_kib: 0 };
        attacked.beat(20).await?;
        attacked.before_kib = attacked.sites.routers[0].own_memory_kib()?;
        Ok(attacked)
    }

    /// Publishes events at site 1, one after the other: each must arrive at sites 0 and 2, next and once.
    async fn beat(&mut self, count: u64) -> Result<()> {
        for _ in 0..count {
            let payload = self.sent.to_string();
            let ticket = timeout(PATIENCE, self.publisher.publish(Event::new("calm", &payload))).await??;
            let outcome = timeout(PATIENCE, ticket).await.context("no ack in time")?;
            ensure!(matches!(outcome, Outcome::Acked), "event {payload}: {outcome:?}");
            for (_, events) in &mut self.subscribers {
                let event = timeout(PATIENCE, events.next()).await.with_context(|| format!("event {payload}"))?;
                let event = event.context("the subscription ended")?;
                ensure!(event.payload() == payload.as_bytes(), "{:?} came where {payload} was due", event.payload());
            }
            self.sent += 1;
        }
        Ok(())
    }

    /// How often site 0 has counted `key` under `what`: its alarms or its violations.
    fn counted(&self, what: &str, key: &str) -> Result<u64> {
        Ok(self.sites.mesh(0)?[what][key].as_u64().unwrap_or_default())
    }

    /// Waits until site 0 has no link to the hostile member.
    async fn unlinked(&self) -> Result<()> {
        super::eventually("no link", || {
            let mesh = self.sites.mesh(0)?;
            Ok(mesh["links"].as_array().is_some_and(|links| links.iter().all(|link| link["site"] != "evil")))
        })
        .await
    }

    /// Waits until site 0 has counted this violation `times` times: it tells its counters once a second.
    async fn counts(&self, code: ViolationCode, times: u64) -> Result<()> {
        super::eventually(code.name(), || Ok(self.counted("violations", code.name())? >= times)).await
    }

    /// The attack is over: the honest routers' links have held, their events pass, their ledgers balance, and the
    /// attacked router has not grown by more than `most_kib`.
    async fn ends_unharmed(mut self, most_kib: u64) -> Result<()> {
        self.beat(20).await?;
        for (site, router) in self.sites.routers.iter().enumerate() {
            let log = router.log();
            let broken = log.lines().find(|line| line.contains("link down") && !line.contains("evil"));
            ensure!(broken.is_none(), "site {site} lost a link: {broken:?}");
            ensure!(!log.contains("panicked"), "site {site} panicked: {log}");
        }
        super::assert_growth(&self.sites.routers[0], self.before_kib, most_kib)?;
        self.sites.settle().await?;
        self.sites.end()
    }
}
