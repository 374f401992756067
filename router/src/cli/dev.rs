//! `myelin dev`: a router with traffic; every save of the filter is built, swapped in, and compared with the version
//! before.

mod compare;
mod package;
mod session;
mod stage;
mod traffic;
mod watch;

use super::connect::block_on;
use super::failure::Result;
use super::signals::Signals;
use super::trial::Engine;
use super::values::say;
use clap::Args;
use package::Package;
use session::Session;
use stage::Stage;
use std::path::PathBuf;
use std::time::Instant;
use traffic::Traffic;
use watch::Watch;

const AFTER_HELP: &str = "\
Examples:
  myelin dev                                   the filter in this folder
  myelin dev filters/redact --config redact.json --pattern 'payments/**'
  myelin dev --rate 5000                       more traffic
  myelin dev --sites 3                         three sites, with distances as between continents

The traffic is made from the events in fixtures/*.jsonl, varied by the seed. Pattern and grants come from
[package.metadata.myelin] in Cargo.toml unless they are given here. In another terminal, in the same folder:
  myelin sub '**' -v     myelin top     myelin filter logs NAME -f
With several sites each has a data directory of its own, which is printed: `myelin sub '**' --data-dir DIR`.
Ctrl-C drains the routers and ends.";

/// Run a filter on live traffic, anew with every save
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Dev {
    /// The filter's package
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Topics whose events it judges [default: as in Cargo.toml, else what the fixtures have in common]
    #[arg(long)]
    pattern: Option<String>,
    /// Topics that it may send to; may be repeated [default: as in Cargo.toml, else any]
    #[arg(long, value_name = "PATTERN")]
    grant_topic: Vec<String>,
    /// The filter's configuration: JSON, or a file that holds JSON [default: the first of the fixtures]
    #[arg(long, value_name = "JSON|FILE")]
    config: Option<String>,
    /// Events a second, at each site; 0 = no traffic
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    rate: u32,
    /// What the traffic and the compared events are made from: the same seed gives the same events
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Made-up events on which versions are compared, beside the fixtures
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    sample: u32,
    /// Sites, of one router each: every save is swapped in at all of them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    sites: u8,
    /// Data directory of the router; with several sites, those of their routers are below it
    #[arg(long, value_name = "DIR", env = "MYELIN_NODE__DATA_DIR", default_value = ".myelin")]
    data_dir: PathBuf,
}

impl Dev {
    pub(super) fn run(self) -> Result<()> {
        block_on(self.work())
    }

    async fn work(self) -> Result<()> {
        let mut signals = Signals::catch()?;
        let package = Package::read(&self)?;
        let watch = Watch::start(&self.dir)?;
        let mut stage = Stage::start(&self.data_dir, self.sites.into()).await?;
        stage.introduce();
        say!("filter   {} judges {}", package.name, package.pattern);
        let mut session = Session::new(stage.api()?, Engine::start()?, package, self.sample, self.seed)?;
        let ended = self.watch(&mut session, &mut stage, watch, &mut signals).await;
        // Whatever ended it: the router is drained, and its last words count.
        let drained = stage.stop();
        ended.and(drained)?;
        say!("drained");
        Ok(())
    }

    /// Takes up every save until Ctrl-C.
    async fn watch(
        &self,
        session: &mut Session,
        stage: &mut Stage,
        mut watch: Watch,
        signals: &mut Signals,
    ) -> Result<()> {
        tokio::select! {
            () = session.take_up(Instant::now()) => {}
            () = signals.next() => return Ok(()),
        }
        let traffic = Traffic::start(stage, session.package(), self.rate, self.seed).await?;
        let ended = loop {
            say!("watching {} (Ctrl-C ends)", self.dir.display());
            let saved = tokio::select! {
                saved = watch.next() => saved,
                () = signals.next() => break Ok(()),
                failure = stage.ended() => break Err(failure),
            };
            tokio::select! {
                () = session.take_up(saved) => {}
                () = signals.next() => break Ok(()),
                failure = stage.ended() => break Err(failure),
            }
            say!("traffic  {}", traffic.told());
        };
        let told = traffic.stop().await;
        say!("\ntraffic  {told}");
        ended
    }
}
