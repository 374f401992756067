//! The routers that `myelin dev` runs: each a process of its own, as a user's would be.

use crate::cli::admin::{Api, development_api};
use crate::cli::connect::{dialable, running};
use crate::cli::development::{client_files, share_authority};
use crate::cli::distance::{SITES, neighbours};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::http::Body;
use crate::cli::serve::Ready;
use crate::cli::values::say;
use crate::files::make_private_folder;
use anyhow::Context;
use hyper::Method;
use myelin_client::{Client, ClientConfig};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
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

/// The routers, the first of which takes the changes, and what each said about itself.
pub(super) struct Stage {
    routers: Vec<Router>,
}

/// A router that serves.
struct Router {
    data_dir: PathBuf,
    process: Process,
    ready: Ready,
}

/// A router's process; nothing of it is left running.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Stage {
    /// Starts a router with this data directory; of several sites, one each, with theirs below it.
    pub(super) async fn start(data_dir: &Path, sites: usize) -> Result<Self> {
        if sites == 1 {
            let process = start(data_dir, None)?;
            return Ok(Self { routers: vec![process.serving(data_dir)?] });
        }
        let folder = data_dir.join(format!("sites-{sites}"));
        let data_dirs: Vec<PathBuf> = SITES.iter().take(sites).map(|site| folder.join(site)).collect();
        share_authority(&data_dirs)?;
        let mesh = neighbours(sites).await.context("the links between the sites")?;
        // All at once: a router that was here before waits for the others.
        let mut processes = Vec::new();
        for ((data_dir, neighbour), site) in data_dirs.iter().zip(&mesh).zip(SITES) {
            let config = format!("[node]\nsite = \"{site}\"\nname = \"r1\"\n{}", neighbour.section(sites));
            processes.push(start(data_dir, Some(&config))?);
        }
        let serving = data_dirs.iter().zip(processes).map(|(data_dir, process)| process.serving(data_dir));
        let stage = Self { routers: serving.collect::<Result<_>>()? };
        stage.linked().await?;
        Ok(stage)
    }

    /// Waits until every router has a link to every other.
    async fn linked(&self) -> Result<()> {
        let (begin, others) = (Instant::now(), self.routers.len() - 1);
        for router in &self.routers {
            let api = development_api(&router.ready, &router.data_dir, CALL_TIME)?;
            loop {
                let mesh = api.ask::<Value>(Method::GET, "/v1/mesh", Body::None).await?;
                if mesh["links"].as_array().is_some_and(|links| links.len() >= others) {
                    break;
                }
                if begin.elapsed() > START_TIME {
                    let what = format!("the sites were not linked within {START_TIME:?}");
                    return Err(Failure::new(Exit::Timeout, what)
                        .next(format!("the log of one of them: {}", router.process.log.display())));
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Says where the routers are.
    pub(super) fn introduce(&self) {
        for (Router { data_dir, process, ready }, site) in self.routers.iter().zip(SITES) {
            let (clients, admin, log) = (dialable(ready.client_addr), &ready.admin_url, process.log.display());
            if self.routers.len() == 1 {
                say!("router   {clients} (clients), {admin} (admin API); its log: {log}");
            } else {
                say!("{site:<8} {clients} (clients), {admin} (admin API), --data-dir {}", data_dir.display());
            }
        }
    }

    /// The admin API that takes changes.
    pub(super) fn api(&self) -> Result<Api> {
        let first = self.routers.first().context("there is a router")?;
        development_api(&first.ready, &first.data_dir, CALL_TIME)
    }

    /// A client of each router.
    pub(super) async fn clients(&self) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        for Router { data_dir, ready, .. } in &self.routers {
            let config = ClientConfig::new(dialable(ready.client_addr).to_string(), client_files(data_dir));
            clients.push(Client::connect(config.with_server_name("localhost").with_name("myelin-dev")).await?);
        }
        Ok(clients)
    }

    /// Waits until a router ends by itself, which it should not. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Failure {
        loop {
            for process in self.routers.iter_mut().map(|router| &mut router.process) {
                if let Some(status) = process.status() {
                    return process.failure(status);
                }
            }
            tokio::time::sleep(LOOK_SERVING).await;
        }
    }

    /// Drains the routers and waits for their end.
    pub(super) fn stop(&mut self) -> Result<()> {
        for router in &mut self.routers {
            router.process.ask_to_drain()?;
        }
        let begin = Instant::now();
        self.routers.iter_mut().try_for_each(|router| router.process.drained(begin))
    }
}

/// Starts a router with this data directory, where none runs with it.
fn start(data_dir: &Path, config: Option<&String>) -> Result<Process> {
    if let Some(other) = running(data_dir) {
        let what = format!("a router runs with {} already (process {})", data_dir.display(), other.pid);
        return Err(Failure::new(Exit::Conflict, what).next("end it, or give another --data-dir"));
    }
    Process::start(data_dir, config)
}

impl Process {
    fn start(data_dir: &Path, config: Option<&String>) -> Result<Self> {
        make_private_folder(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
        let log = data_dir.join("dev.log");
        let file = std::fs::File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"]);
        command.arg(data_dir);
        if let Some(config) = config {
            let file = data_dir.join("dev.toml");
            std::fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
            command.arg("--config").arg(file);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("the router's log")?)
            .stderr(file)
            // Ctrl-C in the terminal is ours: the router is asked to drain once the traffic has ended.
            .process_group(0)
            .spawn()
            .context("starting the router")?;
        Ok(Self { child, log })
    }

    /// Waits until it serves.
    fn serving(mut self, data_dir: &Path) -> Result<Router> {
        let begin = Instant::now();
        loop {
            if let Some(ready) = running(data_dir).filter(|ready| ready.pid == self.child.id()) {
                return Ok(Router { data_dir: data_dir.to_owned(), process: self, ready });
            }
            if let Some(status) = self.status() {
                return Err(self.failure(status));
            }
            if begin.elapsed() > START_TIME {
                let what = format!("the router did not start within {START_TIME:?}: {}", self.last_words());
                return Err(Failure::new(Exit::Timeout, what));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn ask_to_drain(&mut self) -> Result<()> {
        if self.status().is_none()
            && let Some(pid) = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default())
        {
            kill_process(pid, Signal::TERM).context("asking the router to drain")?;
        }
        Ok(())
    }

    /// Waits for its end, where it was asked to drain at `begin`.
    fn drained(&mut self, begin: Instant) -> Result<()> {
        while begin.elapsed() < DRAIN_TIME {
            match self.status() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failure(status)),
                None => std::thread::sleep(LOOK),
            }
        }
        Err(Failure::new(Exit::Timeout, format!("the router did not drain within {DRAIN_TIME:?}"))
            .next(format!("it was killed; its log: {}", self.log.display())))
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
