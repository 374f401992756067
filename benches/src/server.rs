//! Server processes: started, waited for, stopped.

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);
/// How long a server may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(10);
/// How often either is looked for.
const POLL: Duration = Duration::from_millis(10);

/// A running server with a fresh data directory of its own. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    data: TempDir,
    ready: Ready,
}

/// What a server says when it listens.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Ready {
    client_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
}

impl Server {
    /// Starts this program's relay.
    pub(crate) fn relay() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("relay");
        Self::start(command)
    }

    /// Starts the router `binary` with `workers` workers.
    pub(crate) fn router(binary: &Path, workers: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers"]);
        command.arg(workers.to_string()).env("RUST_LOG", "warn");
        Self::start(command)
    }

    fn start(mut command: Command) -> anyhow::Result<Self> {
        let data = TempDir::new()?;
        let ready_file = data.path().join("ready.json");
        command.arg("--data-dir").arg(data.path()).arg("--ready-file").arg(&ready_file);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        match wait_until_ready(&mut child, &ready_file) {
            Ok(ready) => Ok(Self { child, data, ready }),
            Err(error) => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                Err(error.context(format!("{:?} does not serve", command.get_program())))
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where clients connect.
    pub(crate) fn client_addr(&self) -> SocketAddr {
        self.ready.client_addr
    }

    /// Where the admin API is.
    pub(crate) fn admin_addr(&self) -> anyhow::Result<SocketAddr> {
        self.ready.admin_addr.context("the router names no admin API")
    }

    /// Where the certificates of clients are.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.data.path().join("dev")
    }

    /// Ends a relay: it has nothing to finish.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends a router as an operator would: SIGTERM, and exit code 0.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a process has a number")?;
        kill_process(pid, Signal::TERM)?;
        let until = Instant::now() + STOP;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the router ended with {status} after SIGTERM");
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("the router still ran {} s after SIGTERM", STOP.as_secs())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until_ready(child: &mut Child, file: &Path) -> anyhow::Result<Ready> {
    let until = Instant::now() + START;
    while Instant::now() < until {
        if let Some(ready) = std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(ready);
        }
        if let Some(status) = child.try_wait()? {
            bail!("it ended with {status}");
        }
        thread::sleep(POLL);
    }
    bail!("it was not ready within {} s", START.as_secs())
}
