//! The examples of the client library, as somebody runs them who has just built them.

use crate::routing::PATIENCE;
use anyhow::{Context, Result, ensure};
use myelin_tests::{Ran, Router, program};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// Lines of an example that may wait to be read.
const LINES_MAX: usize = 1_024;

/// An example that runs beside the test. Ends with it.
struct Example {
    process: Child,
    lines: Receiver<String>,
}

/// The example's own program, which the build of the workspace puts beside `myelin`.
fn example(router: &Router, name: &str, args: &[&str]) -> Result<Command> {
    let path = program().with_file_name(name);
    ensure!(path.is_file(), "{}: run `cargo build --workspace`", path.display());
    let dev = router.data_dir().join("dev");
    let mut command = Command::new(path);
    // The certificate of a development router holds this name.
    command.args(args).arg("--addr").arg(format!("localhost:{}", router.client_addr().port()));
    for (flag, file) in [("--cert", "client.pem"), ("--key", "client-key.pem"), ("--ca", "ca.pem")] {
        command.arg(flag).arg(dev.join(file));
    }
    command.stdin(Stdio::null());
    Ok(command)
}

/// Runs one to its end.
fn run(router: &Router, name: &str, args: &[&str]) -> Result<Ran> {
    let output = example(router, name, args)?.output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

impl Example {
    /// Starts one, and waits for the line by which it says that it is there.
    fn start(router: &Router, name: &str, args: &[&str], ready: &str) -> Result<Self> {
        let mut process = example(router, name, args)?.stdout(Stdio::piped()).spawn()?;
        let lines = read(process.stdout.take().context("its output")?);
        let example = Self { process, lines };
        let first = example.line()?;
        ensure!(first == ready, "{name} says `{first}`");
        Ok(example)
    }

    fn line(&self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).context("no line came")
    }

    /// What it says until it ends by itself, which must be well.
    fn rest(mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            lines.push(line);
        }
        // Its output is closed: it is about to end.
        let status = self.process.wait()?;
        ensure!(status.success(), "{status} after {lines:?}");
        Ok(lines)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(out: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

#[test]
fn what_publish_sends_subscribe_prints() -> Result<()> {
    let router = Router::start()?;
    let ready = "subscribed to orders/**; end with Ctrl-C";
    let subscriber = Example::start(&router, "subscribe", &["orders/**", "--count", "6"], ready)?;
    let published = run(&router, "publish", &["orders/eu", "--count", "5"])?.good()?;
    ensure!(
        published.out == "event 1: offered to all who subscribed\n6 published, 6 acked, 0 refused\n",
        "{published:?}"
    );
    let lines = subscriber.rest()?;
    let (events, headers): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| !line.starts_with(' '));
    let (from, first) = events[0].split_once(": ").with_context(|| events[0].clone())?;
    ensure!(from.starts_with("orders/eu from spiffe://"), "{events:?}");
    ensure!(first == r#"{"order":1,"state":"placed"}"# && headers == ["    x-tenant: acme"], "{events:?} {headers:?}");
    let expected: Vec<_> = (0..5).map(|n| format!(r#"{from}: {{"order":{n}}}"#)).collect();
    ensure!(events[1..] == expected, "{events:?}");
    Ok(())
}

#[test]
fn what_is_refused_publish_tells_one_by_one() -> Result<()> {
    let router = Router::start()?;
    let published = run(&router, "publish", &["$reserved/topic", "--count", "2"])?.good()?;
    let lines: Vec<_> = published.out.lines().collect();
    ensure!(lines.first().is_some_and(|line| line.starts_with("event 1: refused, ")), "{published:?}");
    ensure!(lines.get(1) == Some(&"3 published, 0 acked, 3 refused"), "{published:?}");
    ensure!(lines.len() >= 4 && lines[2..].iter().all(|line| line.starts_with("event ")), "{published:?}");
    Ok(())
}

#[test]
fn members_of_a_group_share_what_publish_sends() -> Result<()> {
    let router = Router::start()?;
    let member = || {
        let args = ["orders/**", "--group", "workers"];
        Example::start(&router, "subscribe", &args, "subscribed to orders/**; end with Ctrl-C")
    };
    let (first, second) = (member()?, member()?);
    run(&router, "publish", &["orders/eu", "--count", "99"])?.good()?;
    let (mut came, begin) = (Vec::new(), Instant::now());
    while came.len() < 100 {
        ensure!(begin.elapsed() < PATIENCE, "{} of 100 came", came.len());
        for member in [&first, &second] {
            came.extend(member.lines.try_iter().filter(|line| line.starts_with("orders/eu from ")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let distinct: BTreeSet<_> = came.iter().collect();
    ensure!(came.len() == 100 && distinct.len() == 100, "each event once: {came:?}");
    Ok(())
}

#[test]
fn a_request_is_answered_by_one_that_serves() -> Result<()> {
    let router = Router::start()?;
    let nobody = run(&router, "request", &[])?.good()?;
    ensure!(nobody.out == "nobody is there; start one with --serve\n", "{nobody:?}");
    let _clock = Example::start(&router, "request", &["--serve"], "answering; end with Ctrl-C")?;
    let asked = run(&router, "request", &[])?.good()?;
    let seconds = asked.out.strip_suffix(" s since 1970\n").with_context(|| asked.out.clone())?;
    ensure!(seconds.parse::<u64>()? > 1_700_000_000, "{seconds}");
    Ok(())
}

#[test]
fn without_a_router_an_example_says_what_to_start() -> Result<()> {
    let mut router = Router::start()?;
    router.terminate()?;
    let ran = run(&router, "publish", &["orders/eu"])?;
    ensure!(ran.code == Some(1) && ran.err.contains("is `myelin serve --dev` running?"), "{ran:?}");
    Ok(())
}
