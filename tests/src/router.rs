//! A router process and what a test wants to do with it.

use crate::namespaces::Namespace;
use anyhow::{Context, Result, bail, ensure};
use myelin_client::{Client, ClientConfig, Overflow, TlsFiles};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a router may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `myelin` program under test: `MYELIN_BIN`, or the one beside this test's own program.
///
/// # Panics
/// When there is none: a test that cannot run has failed.
pub fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("MYELIN_BIN") {
        return named.into();
    }
    let own = std::env::current_exe().expect("the test's own program has a path");
    let beside = own.ancestors().map(|folder| folder.join("myelin")).find(|path| path.is_file());
    beside.expect("no `myelin` program: run `cargo build -p myelin`, or name it in MYELIN_BIN")
}

/// How a router is started.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Worker threads; 0 = one per core.
    pub workers: usize,
    /// Further environment variables, such as `MYELIN_OUTBOX__BYTES`.
    pub variables: Vec<(String, String)>,
}

/// Copies a folder with all that is in it, permissions too.
///
/// # Errors
/// When something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// A running router with a data directory of its own. Ends with the test.
#[derive(Debug)]
pub struct Router {
    folder: tempfile::TempDir,
    setup: Setup,
    namespace: Option<Arc<Namespace>>,
    process: Option<Child>,
    client_addr: SocketAddr,
    admin_addr: SocketAddr,
}

/// What a command of `myelin` gave.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Ran {
    /// The same when the command succeeded.
    ///
    /// # Errors
    /// What it printed.
    pub fn good(self) -> Result<Self> {
        ensure!(self.code == Some(0), "exit code {:?}\n{}\n{}", self.code, self.out, self.err);
        Ok(self)
    }

    /// The output as JSON.
    ///
    /// # Errors
    /// When the command failed or printed something else.
    pub fn json(self) -> Result<Value> {
        let ran = self.good()?;
        serde_json::from_str(&ran.out).with_context(|| format!("not JSON: {}", ran.out))
    }
}

impl Router {
    /// Starts a router with two workers.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Self> {
        Self::start_with(Setup { workers: 2, ..Setup::default() })
    }

    /// Starts a router as `setup` says.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_with(setup: Setup) -> Result<Self> {
        Self::start_inside(setup, None)
    }

    /// The same in a network namespace, with clients at its address there.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_inside(setup: Setup, namespace: Option<Arc<Namespace>>) -> Result<Self> {
        let mut router = Self::new(setup, namespace)?;
        router.restart()?;
        Ok(router)
    }

    /// A router that is not started, with a copy of the data directory of another one.
    ///
    /// # Errors
    /// When the data cannot be copied.
    pub fn prepare(setup: Setup, data: Option<&Path>) -> Result<Self> {
        let router = Self::new(setup, None)?;
        data.map_or(Ok(()), |data| copy_folder(data, &router.data_dir()))?;
        Ok(router)
    }

    /// The next start takes any free client port: that of a router that is down may be another one's by then.
    pub fn move_port(&mut self) {
        self.client_addr.set_port(0);
    }

    /// How the next start is made.
    pub fn setup_mut(&mut self) -> &mut Setup {
        &mut self.setup
    }

    fn new(setup: Setup, namespace: Option<Arc<Namespace>>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let client_addr = namespace.as_ref().map_or(nowhere, |namespace| (namespace.addr(), 0).into());
        Ok(Self { folder, setup, namespace, process: None, client_addr, admin_addr: nowhere })
    }

    /// Starts the process on the data directory as it is, on the client port of the run before.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        self.comes_up()
    }

    /// Whether the process says that it serves.
    pub fn is_ready(&self) -> bool {
        self.ready_file().exists()
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    /// Starts the process and does not wait until it serves.
    ///
    /// # Errors
    /// When there is no process.
    pub fn launch(&mut self) -> Result<()> {
        let ready_file = self.ready_file();
        let _ = std::fs::remove_file(&ready_file);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut command = Command::new(program());
        command
            .args(["serve", "--dev", "--listen", &self.client_addr.to_string(), "--admin", "127.0.0.1:0"])
            .args(["--workers", &self.setup.workers.to_string()])
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--ready-file")
            .arg(&ready_file)
            .envs(self.setup.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let spawned = self.inside(|| command.spawn())?;
        self.process = Some(spawned.with_context(|| format!("{}", program().display()))?);
        Ok(())
    }

    /// Waits until the process serves.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn comes_up(&mut self) -> Result<()> {
        let (ready_file, begin) = (self.ready_file(), Instant::now());
        while !ready_file.exists() {
            if let Some(status) = self.process.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("the router ended with {status}: {}", self.log());
            }
            ensure!(begin.elapsed() < PATIENCE, "the router did not come up: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        let ready: Value = serde_json::from_slice(&std::fs::read(&ready_file)?)?;
        let addr = |key: &str| ready[key].as_str().unwrap_or_default().parse::<SocketAddr>().context(key.to_owned());
        (self.client_addr, self.admin_addr) = (addr("client_addr")?, addr("admin_addr")?);
        Ok(())
    }

    /// Does some work where this router's network is.
    ///
    /// # Errors
    /// When there is no way in.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        match &self.namespace {
            Some(namespace) => namespace.enter(work),
            None => Ok(work()),
        }
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where clients connect.
    pub fn client_addr(&self) -> SocketAddr {
        self.client_addr
    }

    /// Where the admin API is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// What the router has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The configuration of a client with the development certificate.
    pub fn client_config(&self) -> ClientConfig {
        let dev = self.data_dir().join("dev");
        let files = TlsFiles { cert: dev.join("client.pem"), key: dev.join("client-key.pem"), ca: dev.join("ca.pem") };
        ClientConfig::new(self.client_addr.to_string(), files).with_server_name("localhost")
    }

    /// A connected client.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.client_config()).await?)
    }

    /// A connected client with an overflow policy.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn client_with(&self, overflow: Overflow) -> Result<Client> {
        Ok(Client::connect(self.client_config().with_overflow(overflow)).await?)
    }

    /// Runs `myelin` with `args` against this router.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn myelin(&self, args: &[&str]) -> Result<Ran> {
        let mut command = Command::new(program());
        command
            .args(args)
            .env("MYELIN_ADMIN", format!("http://{}", self.admin_addr))
            .env("MYELIN_ADDR", self.client_addr.to_string())
            .env("MYELIN_NODE__DATA_DIR", self.data_dir())
            .stdin(Stdio::null());
        let output = self.inside(|| command.output())??;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
    }

    /// The ledger as the API shows it.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn ledger(&self) -> Result<Value> {
        self.myelin(&["ledger", "-o", "json"])?.json()
    }

    /// The ledger, once nothing is on its way any more.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn settled_ledger(&self) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let ledger = self.ledger()?;
            if ledger["total"]["in_queue"] == 0 && ledger["total"]["in_pipeline"] == 0 {
                return Ok(ledger);
            }
            ensure!(begin.elapsed() < PATIENCE, "the ledger does not settle: {ledger}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Process id.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Resident memory of the process, in KiB, its code among it.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_kib(&self) -> Result<u64> {
        self.memory_kib("VmRSS:")
    }

    /// The same without pages of its code, which come and go: what it has allocated.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn own_memory_kib(&self) -> Result<u64> {
        self.memory_kib("RssAnon:")
    }

    fn memory_kib(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid().context("no process")?))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name}"))?.trim().trim_end_matches(" kB").trim().parse()?)
    }

    /// Asks the router to end, without waiting for it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn ask_to_end(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends the router gracefully.
    ///
    /// # Errors
    /// When it does not end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.ask_to_end()?;
        self.wait()
    }

    /// Kills the router as a power cut would.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.wait()
    }

    /// How the process has ended, where it has.
    ///
    /// # Errors
    /// When there is none.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.process.as_mut().context("no process")?.try_wait()?)
    }

    /// Waits for the router's end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let begin = Instant::now();
        let child = self.process.as_mut().context("no process")?;
        loop {
            if let Some(status) = child.try_wait()? {
                self.process = None;
                return Ok(status);
            }
            ensure!(begin.elapsed() < PATIENCE, "the router does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops the process where it stands, as a hypervisor would.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Lets the router read its certificates again.
    ///
    /// # Errors
    /// When it is gone.
    pub fn hang_up(&self) -> Result<()> {
        self.signal(Signal::HUP)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).context("no process")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the router's log\n{}", self.log());
        }
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
