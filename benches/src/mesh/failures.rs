//! How long events stay away when something on their way breaks: four router processes in a ring over relays; site 0
//! publishes every five milliseconds, site 2 subscribes, and what is between breaks: whichever of the two ways they take.

use crate::scenarios::{Row, Sheet, Size};
use anyhow::{Context, Result};
use myelin_client::{Client, Event, Overflow, SubscribeOptions};
use myelin_tests::relay::Path;
use myelin_tests::sites::{Sites, shapes};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const SITES: usize = 4;
const INTERVAL: Duration = Duration::from_millis(5);
/// How long events flow before something breaks, and after.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(8);

/// The way of events there and back, without queues.
const RTT: Duration = Duration::from_millis(20);
/// Runs for each kind of failure; the worst counts.
const RUNS: u64 = 5;
/// A neighbour that says nothing any more is routed around within this, in seconds ...
const SILENT_S: f64 = 5.0;
/// ... and one whose connection closes within this.
const CLOSED_S: f64 = 0.3;

/// What breaks: the link or the router that the events pass.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// The link from site 0 on falls silent.
    NearLink,
    /// The link to site 2 falls silent.
    FarLink,
    /// The router between is killed: nothing tells its neighbours.
    Killed,
    /// The router between is told to end: it takes its leave, and its connections close.
    Ended,
}

/// Arrivals of numbered events.
#[derive(Default)]
struct Arrivals(Mutex<Vec<(u64, Instant)>>);

impl Arrivals {
    fn last(&self) -> Option<(u64, Instant)> {
        self.0.lock().ok()?.last().copied()
    }

    /// The longest pause between two arrivals since `from`, and how many numbers are missing from then on.
    fn worst(&self, from: Instant) -> Option<(Duration, u64)> {
        let all = self.0.lock().ok()?;
        let since: Vec<_> = all.iter().filter(|(_, at)| *at + INTERVAL * 4 >= from).collect();
        let pause = since.windows(2).map(|pair| pair[1].1 - pair[0].1).max()?;
        let (least, most) =
            (since.iter().map(|(number, _)| *number).min()?, since.iter().map(|(number, _)| *number).max()?);
        Some((pause.saturating_sub(INTERVAL), most - least + 1 - since.len() as u64))
    }
}

struct Flow {
    arrivals: Arc<Arrivals>,
    stop: Arc<AtomicBool>,
    publisher: JoinHandle<Result<()>>,
    _subscriber: Client,
    reader: JoinHandle<()>,
}

impl Flow {
    async fn start(sites: &Sites) -> Result<Self> {
        let subscriber = sites.client(2, "subscriber", Overflow::Pause).await?;
        let mut events = subscriber.subscribe("flow", SubscribeOptions::default()).await?;
        let arrivals = Arc::<Arrivals>::default();
        let reader = tokio::spawn({
            let arrivals = arrivals.clone();
            async move {
                while let Some(event) = events.next().await {
                    let number = std::str::from_utf8(event.payload()).ok().and_then(|text| text.parse().ok());
                    if let (Some(number), Ok(mut all)) = (number, arrivals.0.lock()) {
                        all.push((number, Instant::now()));
                    }
                }
            }
        });
        sites.agree(&[(0, 1), (1, 1), (2, 0), (3, 1)]).await?;
        let client = sites.client(0, "publisher", Overflow::DropOldest).await?;
        let (stop, number) = (Arc::<AtomicBool>::default(), AtomicU64::new(0));
        let publisher = tokio::spawn({
            let stop = stop.clone();
            async move {
                let mut tick = tokio::time::interval(INTERVAL);
                while !stop.load(Relaxed) {
                    tick.tick().await;
                    client.send(Event::new("flow", &number.fetch_add(1, Relaxed).to_string())).await?;
                }
                client.flush().await;
                Ok(())
            }
        });
        Ok(Self { arrivals, stop, publisher, _subscriber: subscriber, reader })
    }

    async fn end(self) -> Result<()> {
        self.stop.store(true, Relaxed);
        self.publisher.await??;
        self.reader.abort();
        Ok(())
    }
}

/// The site between 0 and 2 that the events pass: the one whose link from site 0 has carried them.
fn site_between(sites: &Sites) -> Result<usize> {
    let mesh = sites.mesh(0)?;
    let links = mesh["links"].as_array().context("links")?;
    let most = links.iter().max_by_key(|link| link["sent"].as_u64()).context("a link")?;
    Ok(if most["site"] == "s1" { 1 } else { 3 })
}

async fn once(failure: Failure, run: u64) -> Result<(Duration, u64)> {
    let links = shapes::ring(SITES);
    let mut sites = Sites::start(SITES, &links, run, |_| Path { delay: RTT / 2, ..Path::default() }).await?;
    let flow = Flow::start(&sites).await?;
    tokio::time::sleep(BEFORE).await;
    let between = site_between(&sites)?;
    let broken = Instant::now();
    match failure {
        Failure::NearLink => sites.link((0, between)).cut(),
        Failure::FarLink => sites.link((between.min(2), between.max(2))).cut(),
        Failure::Killed => drop(sites.routers[between].kill()?),
        Failure::Ended => sites.routers[between].ask_to_end()?,
    }
    tokio::time::sleep(AFTER).await;
    flow.arrivals.last().filter(|(_, at)| *at > broken + AFTER / 2).context("events do not come back")?;
    let worst = flow.arrivals.worst(broken).context("arrivals")?;
    flow.end().await?;
    Ok(worst)
}

/// Every kind of failure, each a few times.
pub(super) async fn dead_neighbours(size: Size, sheet: &mut Sheet) -> Result<()> {
    for (failure, what, bound_s) in [
        (Failure::NearLink, "dead-neighbour: away, its link is silent", SILENT_S),
        (Failure::FarLink, "dead-neighbour: away, a link beyond is silent", SILENT_S),
        (Failure::Killed, "dead-neighbour: away, killed", SILENT_S),
        (Failure::Ended, "dead-neighbour: away, it closed its links", CLOSED_S),
    ] {
        let (mut worst, mut lost) = (Duration::ZERO, Vec::new());
        for run in 0..size.of(RUNS) {
            let (pause, missing) = once(failure, run).await.with_context(|| format!("{failure:?}"))?;
            worst = worst.max(pause);
            lost.push(missing);
        }
        eprintln!("  {failure:?}: lost events {lost:?}");
        sheet.add(Row::at_most(what, worst.as_secs_f64(), bound_s, "s"))?;
    }
    Ok(())
}
