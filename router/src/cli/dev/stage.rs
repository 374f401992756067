//! The router that `myelin dev` runs: a process of its own, as a user's would be.

use crate::cli::admin::{Api, development_api};
use crate::cli::connect::{dialable, running};
use crate::cli::development::client_files;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::serve::Ready;
use anyhow::Context;
use myelin_client::{Client, ClientConfig};
use rustix::process::{Pid, Signal, kill_process};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long the router may take to start.
const START_TIME: Duration = Duration::from_secs(30);
/// How long it may take to drain: its own bound, and some.
const DRAIN_TIME: Duration = Duration::from_secs(45);
/// How often its process is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How often it is looked at while it serves.
const LOOK_SERVING: Duration = Duration::from_millis(500);
/// How long a call of the admin API may take: compiling a large filter takes most of it.
const CALL_TIME: Duration = Duration::from_secs(60);

/// The router, and what it said about itself.
pub(super) struct Stage {
    data_dir: PathBuf,
    process: Process,
    ready: Ready,
}

/// The router's process; nothing of it is left running.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Stage {
    /// Starts a router with this data directory.
    pub(super) fn start(data_dir: &Path) -> Result<Self> {
        if let Some(other) = running(data_dir) {
            let what = format!("a router runs with {} already (process {})", data_dir.display(), other.pid);
            return Err(Failure::new(Exit::Conflict, what).next("end it, or give another --data-dir"));
        }
        let mut process = Process::start(data_dir)?;
        let begin = Instant::now();
        loop {
            if let Some(ready) = running(data_dir).filter(|ready| ready.pid == process.child.id()) {
                return Ok(Self { data_dir: data_dir.to_owned(), process, ready });
            }
            if let Some(status) = process.status() {
                return Err(process.failure(status));
            }
            if begin.elapsed() > START_TIME {
                let what = format!("the router did not start within {START_TIME:?}: {}", process.last_words());
                return Err(Failure::new(Exit::Timeout, what));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Where clients connect.
    pub(super) fn client_addr(&self) -> SocketAddr {
        dialable(self.ready.client_addr)
    }

    /// Where the admin API is.
    pub(super) fn admin(&self) -> &str {
        &self.ready.admin_url
    }

    /// Where the router logs.
    pub(super) fn log(&self) -> &Path {
        &self.process.log
    }

    /// Its admin API.
    pub(super) fn api(&self) -> Result<Api> {
        development_api(&self.ready, &self.data_dir, CALL_TIME)
    }

    /// A client of it.
    pub(super) async fn client(&self) -> Result<Client> {
        let config = ClientConfig::new(self.client_addr().to_string(), client_files(&self.data_dir));
        Ok(Client::connect(config.with_server_name("localhost").with_name("myelin-dev")).await?)
    }

    /// Waits until the router ends by itself, which it should not. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Failure {
        loop {
            if let Some(status) = self.process.status() {
                return self.process.failure(status);
            }
            tokio::time::sleep(LOOK_SERVING).await;
        }
    }

    /// Drains the router and waits for its end.
    pub(super) fn stop(&mut self) -> Result<()> {
        let process = &mut self.process;
        if process.status().is_none()
            && let Some(pid) = Pid::from_raw(i32::try_from(process.child.id()).unwrap_or_default())
        {
            kill_process(pid, Signal::TERM).context("asking the router to drain")?;
        }
        let begin = Instant::now();
        while begin.elapsed() < DRAIN_TIME {
            match process.status() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(process.failure(status)),
                None => std::thread::sleep(LOOK),
            }
        }
        Err(Failure::new(Exit::Timeout, format!("the router did not drain within {DRAIN_TIME:?}"))
            .next(format!("it was killed; its log: {}", process.log.display())))
    }
}

impl Process {
    fn start(data_dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
        let log = data_dir.join("dev.log");
        let file = std::fs::File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        let child = Command::new(std::env::current_exe().context("finding this program")?)
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("the router's log")?)
            .stderr(file)
            // Ctrl-C in the terminal is ours: the router is asked to drain once the traffic has ended.
            .process_group(0)
            .spawn()
            .context("starting the router")?;
        Ok(Self { child, log })
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn failure(&self, status: ExitStatus) -> Failure {
        let what = format!("the router ended ({status}): {}", self.last_words());
        Failure::new(Exit::Failed, what).next(format!("its log: {}", self.log.display()))
    }

    /// The last line of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It was drained, unless something failed on the way.
        if self.status().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
