//! `myelin pub` and `sub` go on at the next address when their router goes away, and say so.

use anyhow::{Context, Result, ensure};
use myelin_client::SubscribeOptions;
use myelin_tests::{Ran, Router, Setup, program};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

/// Events that are published.
const LINES: u64 = 1_200;
/// How many a second: all in six seconds, of which the router is there for less than one.
const RATE: &str = "200";
/// As many are through before the router goes away.
const BEFORE: u64 = 50;
/// Most that may be in doubt after a router was killed: those of the time in which it may only be slow, and some.
const UNKNOWN_MAX: u64 = 600;

/// Two routers that trust the same clients.
struct Two {
    first: Router,
    second: Router,
}

impl Two {
    fn start() -> Result<Self> {
        let first = Router::start()?;
        let mut second = Router::prepare(Setup { workers: 1, ..Setup::default() }, Some(&first.data_dir()))?;
        for file in ["ready.json", "lock"] {
            let _ = std::fs::remove_file(second.data_dir().join(file));
        }
        second.restart()?;
        Ok(Self { first, second })
    }

    fn addrs(&self) -> String {
        format!("{},{}", self.first.client_addr(), self.second.client_addr())
    }

    fn myelin(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(args)
            .args(["--addr", &self.addrs(), "--server-name", "localhost"])
            .env("MYELIN_NODE__DATA_DIR", self.second.data_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Publishes lines, and gives the publisher once the first router has let some through.
    async fn publish(&self) -> Result<Child> {
        let client = self.first.client().await?;
        let mut events = client.subscribe("orders/**", SubscribeOptions::default()).await?;
        let mut publisher = self.myelin(&["pub", "orders/c", "-l", "--rate", RATE, "--json"]).spawn()?;
        let mut stdin = publisher.stdin.take().context("its standard input")?;
        let lines: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
        stdin.write_all(lines.as_bytes())?;
        for _ in 0..BEFORE {
            events.next().await.context("an event")?;
        }
        client.close().await;
        Ok(publisher)
    }
}

async fn ended(child: Child) -> Result<Ran> {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_and_a_subscriber_move_on_when_their_router_is_drained() -> Result<()> {
    let mut two = Two::start()?;
    let mut subscriber = two.myelin(&["sub", "orders/**", "--json"]).spawn()?;
    let mut said = BufReader::new(subscriber.stderr.take().context("its standard error")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    ensure!(line.starts_with("listening on orders/**"), "{line}");
    let publisher = two.publish().await?;
    let status = two.first.terminate()?;
    ensure!(status.code() == Some(0), "{status}");

    let ran = ended(publisher).await?;
    let told: Value = serde_json::from_str(&ran.out).with_context(|| format!("{}\n{}", ran.out, ran.err))?;
    ensure!(ran.code == Some(0), "{}\n{told}", ran.err);
    ensure!(told["published"] == LINES && told["acknowledged"] == LINES && told["unknown"] == 0, "{told}");
    let second = format!("connected again: {}", two.second.client_addr());
    ensure!(ran.err.contains("is going away: ") && ran.err.contains(&second), "{}", ran.err);

    subscriber.kill()?;
    ended(subscriber).await?;
    let mut rest = String::new();
    said.read_to_string(&mut rest)?;
    let said = rest;
    ensure!(said.contains("is going away: ") && said.contains(&second), "{said}");
    ensure!(said.contains("events in between may be missing"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_moves_on_when_its_router_is_killed_and_says_what_is_unknown() -> Result<()> {
    let mut two = Two::start()?;
    let publisher = two.publish().await?;
    two.first.kill()?;

    let ran = ended(publisher).await?;
    let told: Value = serde_json::from_str(&ran.out).with_context(|| format!("{}\n{}", ran.out, ran.err))?;
    ensure!(ran.code == Some(1), "{:?} {}\n{told}", ran.code, ran.err);
    let count = |key: &str| told[key].as_u64().unwrap_or_default();
    let (acknowledged, unknown) = (count("acknowledged"), count("unknown"));
    ensure!(count("published") == LINES && acknowledged + unknown == LINES, "{told}");
    ensure!(acknowledged >= BEFORE && (1..UNKNOWN_MAX).contains(&unknown), "{told}");
    let run = &told["unknown_events"][0];
    let (first, last) = (run[0].as_u64().unwrap_or_default(), run[1].as_u64().unwrap_or_default());
    ensure!(first > BEFORE && last + 1 - first == unknown, "{told}");
    let second = format!("connected again: {}", two.second.client_addr());
    ensure!(ran.err.contains("the connection is lost: ") && ran.err.contains(&second), "{}", ran.err);
    ensure!(ran.err.contains(&format!("what became of {unknown} of {LINES} events is unknown")), "{}", ran.err);

    // Where nobody is there at all, programs are told, too.
    two.second.kill()?;
    let ran = two.second.myelin(&["pub", "orders/c", "-m", "x", "--json"])?;
    let told: Value = serde_json::from_str(&ran.out).with_context(|| ran.out.clone())?;
    ensure!(ran.code == Some(3) && told["published"] == 0 && told["error"].is_string(), "{:?} {told}", ran.code);
    Ok(())
}
