//! Server processes: started, waited for, stopped.

use crate::peers::Protocol;
use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);
/// How long a server may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(10);
/// Where the certificates are in a server's folder.
pub(crate) const CERTIFICATES: &str = "dev";
/// How often either is looked for.
const POLL: Duration = Duration::from_millis(10);

/// A running server with a fresh data directory of its own. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Its folder lives as long as it does.
    _data: TempDir,
    certificates: PathBuf,
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
        command.arg("relay").stdin(Stdio::null());
        Self::start(command)
    }

    /// Starts the router `binary` with `workers` workers.
    pub(crate) fn router(binary: &Path, workers: usize) -> anyhow::Result<Self> {
        Self::router_with(binary, workers, &[])
    }

    /// The same with settings from the environment.
    pub(crate) fn router_with(binary: &Path, workers: usize, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut command = Self::serve(binary, workers);
        command.envs(settings.iter().copied()).stdin(Stdio::null());
        Self::start(command)
    }

    /// Starts the router with a counting allocator, one worker.
    pub(crate) fn counted(binary: &Path) -> anyhow::Result<Self> {
        let mut command = Self::serve(binary, 1);
        // Its standard error holds counts and nothing else.
        command.env("RUST_LOG", "off").stdin(Stdio::piped()).stderr(Stdio::piped());
        Self::start(command)
    }

    /// Starts a router with the configuration in `file`; its clients have the certificates in `certificates`.
    pub(crate) fn router_of(binary: &Path, workers: usize, file: &Path, certificates: &Path) -> anyhow::Result<Self> {
        let mut command = Self::serve(binary, workers);
        command.arg("--config").arg(file).stdin(Stdio::null());
        let mut server = Self::start(command)?;
        server.certificates = certificates.to_owned();
        Ok(server)
    }

    fn serve(binary: &Path, workers: usize) -> Command {
        let mut command = Command::new(binary);
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers"]);
        command.arg(workers.to_string()).env("RUST_LOG", "warn");
        command
    }

    /// How many allocations a [counted](Self::counted) router has made: it answers each line with a line.
    pub(crate) fn allocations(&mut self) -> anyhow::Result<u64> {
        let (asked, told) = (self.child.stdin.as_mut(), self.child.stderr.as_mut());
        let (asked, told) = asked.zip(told).context("this router counts no allocations")?;
        asked.write_all(b"\n")?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        // Byte by byte: what a buffer has read ahead would be lost with it.
        while told.read(&mut byte)? > 0 {
            match byte {
                [b'\n'] => return String::from_utf8(line)?.trim().parse().context("this is no count"),
                [other] => line.push(other),
            }
        }
        bail!("the router has ended")
    }

    /// Starts a server that is not ours: it is ready when something serves at `port` of `protocol`.
    pub(crate) fn foreign(mut command: Command, data: TempDir, protocol: Protocol, port: u16) -> anyhow::Result<Self> {
        let log_file = data.path().join("log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log_file)?);
        let client_addr = (Ipv4Addr::LOCALHOST, port).into();
        let certificates = data.path().join(CERTIFICATES);
        let look = || protocol.is_served(port).then_some(Ready { client_addr, admin_addr: None });
        let (child, ready) = spawn(command, look)
            .with_context(|| format!("it said: {}", std::fs::read_to_string(&log_file).unwrap_or_default()))?;
        Ok(Self { child, _data: data, certificates, ready })
    }

    /// Starts one of ours: it says in a file that it is ready.
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let data = private_folder()?;
        let certificates = data.path().join(CERTIFICATES);
        let ready_file = data.path().join("ready.json");
        command.arg("--data-dir").arg(data.path()).arg("--ready-file").arg(&ready_file).stdout(Stdio::null());
        let (child, ready) = spawn(command, || serde_json::from_slice(&std::fs::read(&ready_file).ok()?).ok())?;
        Ok(Self { child, _data: data, certificates, ready })
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
    pub(crate) fn certificates(&self) -> &Path {
        &self.certificates
    }

    /// Ends a server that has nothing to finish.
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

/// Starts a server and waits until `look` finds that it serves.
/// A folder of our own, which nobody else may read: a router warns of another one.
fn private_folder() -> std::io::Result<TempDir> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir()
}

fn spawn(mut command: Command, look: impl Fn() -> Option<Ready>) -> anyhow::Result<(Child, Ready)> {
    let program = command.get_program().to_owned();
    let mut child = command.spawn().with_context(|| format!("cannot start {program:?}"))?;
    match wait_until_ready(&mut child, look) {
        Ok(ready) => Ok((child, ready)),
        Err(error) => {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            Err(error.context(format!("{program:?} does not serve")))
        }
    }
}

fn wait_until_ready(child: &mut Child, look: impl Fn() -> Option<Ready>) -> anyhow::Result<Ready> {
    let until = Instant::now() + START;
    while Instant::now() < until {
        if let Some(ready) = look() {
            return Ok(ready);
        }
        if let Some(status) = child.try_wait()? {
            bail!("it ended with {status}");
        }
        thread::sleep(POLL);
    }
    bail!("it was not ready within {} s", START.as_secs())
}
