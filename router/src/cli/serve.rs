//! `myelin serve`: a router from its configuration to its graceful end.

use super::development;
use super::failure::{Exit, Failure, Result};
use super::logging::Logging;
use super::secrets;
use super::signals::Signals;
use super::values::{say, write_atomically};
use crate::admin::{self, AdminHandle, AdminListen, AdminState, Token};
use crate::config::{Config, Setting, Sources};
use crate::files::make_private_folder;
use crate::ledger::{self, Counts};
use crate::node::Node;
use anyhow::Context;
use clap::Args;
use myelin_transport::{Identity, IdentityKind, ReloadOutcome, TlsErrorKind, TlsFiles, TlsIdentity, TlsReloader};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Threads of the control plane: one waits on files or compilers while the other answers.
const CONTROL_THREADS: usize = 2;
/// Threads for blocking calls of the control plane.
const BLOCKING_THREADS_MAX: usize = 16;
/// How often the certificate files are looked at.
const TLS_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The configuration that is taken when none is named.
const CONFIG_FILE: &str = "myelin.toml";
/// Locked while a router uses the data directory.
const LOCK_FILE: &str = "lock";
/// Holds how often the router was started, below the data directory.
const EPOCH_FILE: &str = "epoch";

const AFTER_HELP: &str = "\
Examples:
  myelin serve --dev                                   everything local, certificates made in .myelin/dev
  myelin serve --dev --listen 127.0.0.1:0 --workers 2  any free port, two workers
  myelin serve -c /etc/myelin/myelin.toml              as configured; see `myelin config default`

SIGTERM or Ctrl-C shuts down gracefully: clients are told to move on, what is in flight is finished. A second one ends
at once, as does the first while the router starts or waits for its mesh. SIGHUP reloads the certificates. Exit code 0
after a graceful end whose ledger balances, and where nobody was served yet, else 1.";

/// Run a router
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Serve {
    /// Configuration file; ./myelin.toml where there is one
    #[arg(short, long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Make certificates under the data directory and let anybody on this machine use the admin API
    #[arg(long)]
    dev: bool,
    /// Name of the site
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Name of the router, unique within its site
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// UDP address for clients; port 0 takes any free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// TCP address of the admin API
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Where the router keeps its state
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Worker threads; 0 = one for each core
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// Write addresses and process id as JSON there, once the router serves
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    logging: Logging,
}

/// What a router says about itself once it serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    /// Name of the site.
    pub(super) site: String,
    /// Name of the router.
    pub(super) name: String,
    /// Where clients connect.
    pub(super) client_addr: SocketAddr,
    /// Where the admin API is.
    pub(super) admin_addr: SocketAddr,
    /// The same as a URL: HTTP or HTTPS.
    pub(super) admin_url: String,
    /// Process id.
    pub(super) pid: u32,
}

impl Serve {
    pub(super) fn run(self) -> Result<()> {
        self.logging.start()?;
        let file = config_file(self.config.clone());
        let config = Sources::of_process(file.as_deref(), self.settings())
            .and_then(|sources| Config::load(&Sources { dev: self.dev, ..sources }))?;
        for exposed in secrets::exposed(&config) {
            tracing::warn!("{exposed}; {}", exposed.step());
        }
        for (idle, step) in config.idle() {
            tracing::warn!("{idle}; {step}");
        }
        let data_dir = &config.node.data_dir;
        make_private_folder(data_dir)
            .with_context(|| format!("the data directory {} ([node] data_dir)", data_dir.display()))?;
        // Held until the process ends: two starts at once would renew each other's certificates and share an epoch.
        let _lock = lock(data_dir)?;
        let tls = match tls_files(&config) {
            Some(files) => {
                check_site(&config, &files)?;
                files
            }
            None if self.dev => development::prepare(&config)?,
            None => {
                return Err(Failure::new(Exit::Usage, "[tls] names no certificate, and without one nobody is served")
                    .next("for a try: `myelin serve --dev`; else `myelin cert ca` and `myelin cert issue`"));
            }
        };
        let epoch = next_epoch(data_dir)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(CONTROL_THREADS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("control")
            .enable_all()
            .build()
            .context("the control plane's runtime")?;
        let served = runtime.block_on(self.serve(&config, tls, epoch));
        // Not dropped: that would wait for whatever still blocks, and a second signal means at once.
        runtime.shutdown_background();
        served
    }

    async fn serve(&self, config: &Config, tls: TlsFiles, epoch: u32) -> Result<()> {
        // Before anything else: a signal during the start must not kill a half-started router.
        let mut signals = Signals::catch()?;
        // Caught before anybody is told that this router is ready: it would die of it.
        let hangups = signal(SignalKind::hangup()).context("catching SIGHUP")?;
        for file in self.ready_files(config) {
            // Left behind by a run that was killed.
            let _ = std::fs::remove_file(file);
        }
        let reloader = Arc::new(TlsReloader::open(tls).context("[tls]")?);
        warn_of_left_out(&reloader.tls());
        // Before the node starts: one that waits for its catalog may wait for better certificates, and is not to die of a
        // SIGHUP.
        tokio::spawn(follow_certificates(reloader.clone(), hangups));
        let tls = reloader.tls();
        let node = tokio::select! {
            node = Node::start(config, &tls, epoch) => node?,
            // Nobody was served yet, so there is nobody to tell and nothing to finish; files are whole at any moment.
            () = signals.next() => {
                tracing::info!("asked to end before this router served anybody: it ends at once");
                return Ok(());
            }
        };
        let admin = self.start_admin(config, &node, &reloader)?;

        let ready = Ready {
            site: config.node.site.clone(),
            name: config.node.name.clone(),
            client_addr: node.client_addr(),
            admin_addr: admin.addr(),
            admin_url: admin.url(),
            pid: std::process::id(),
        };
        self.announce(config, &ready)?;
        match myelin_engine::release_startup_code() {
            Ok(bytes) => tracing::debug!(bytes, "code that ran at the start left the resident set"),
            Err(error) => tracing::debug!(%error, "code that ran at the start stays in the resident set"),
        }
        let broken = tokio::select! {
            () = signals.next() => None,
            what = node.broken() => Some(what),
        };
        if let Some(what) = broken {
            tracing::error!(
                "{what} has ended by itself, a defect of the router: it drains and ends, to be started again"
            );
        }
        tracing::info!(seconds_max = config.node.drain_seconds, "draining; a second signal ends at once");
        for file in self.ready_files(config) {
            let _ = std::fs::remove_file(file);
        }
        tokio::select! {
            // The admin API answers until the end: a draining router is not ready, but it is alive.
            ledger = node.drain() => {
                admin.stop().await;
                check_ledger(&ledger)?;
                tracing::info!("drained");
                broken.map_or(Ok(()), |what| Err(defect(what)))
            }
            () = signals.next() => {
                Err(Failure::new(Exit::Failed, "a second signal came before the router was drained")
                    .next("clients learn `unknown` for events that were not acknowledged"))
            }
        }
    }

    /// The admin API, on its own thread.
    fn start_admin(&self, config: &Config, node: &Node, reloader: &Arc<TlsReloader>) -> Result<AdminHandle> {
        let token = config.admin.token_file.as_deref().map(Token::read).transpose().context("[admin] token_file")?;
        let mut identities = config.admin.identities.clone();
        if self.dev && tls_files(config).is_none() {
            // The authority is ours, and so is the one client that it has issued a certificate to.
            identities.push(development::client_identity()?);
        }
        let listen = AdminListen {
            addr: config.listen.admin,
            dev: self.dev,
            token,
            tls: Some(reloader.tls()),
            identities,
            roles: config.admin.roles.clone(),
            two_person: config.admin.two_person,
            module_bytes_max: config.wasm.module_bytes,
        };
        let ledgers = node.ledgers();
        let state = AdminState {
            world: node.world().clone(),
            shared: node.shared().clone(),
            listeners: node.listeners().to_vec(),
            ledger: Arc::new(move || {
                let ledgers = ledgers.clone();
                Box::pin(async move { ledgers.read().await })
            }),
            client_addr: node.client_addr(),
            mesh: node.mesh_status().clone(),
            reloader: Some(reloader.clone()),
            exports: node.exports(),
            audit: node.audit().clone(),
        };
        let addr = config.listen.admin;
        Ok(admin::serve(listen, state).with_context(|| format!("the admin API on {addr} ([listen] admin)"))?)
    }

    /// What the flags set.
    fn settings(&self) -> Vec<Setting> {
        let flags = [
            ("--site", "node", "site", &self.site),
            ("--name", "node", "name", &self.name),
            ("--listen", "listen", "client", &self.listen),
            ("--admin", "listen", "admin", &self.admin),
            ("--data-dir", "node", "data_dir", &self.data_dir),
            ("--workers", "node", "workers", &self.workers),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(flag, section, key, value)| value.clone().map(|value| Setting { flag, section, key, value }));
        given.collect()
    }

    /// The files that are there only while the router serves.
    fn ready_files(&self, config: &Config) -> impl Iterator<Item = PathBuf> {
        let of_dev = self.dev.then(|| development::ready_file(&config.node.data_dir));
        self.ready_file.iter().cloned().chain(of_dev)
    }

    /// Tells people and programs that the router serves.
    fn announce(&self, config: &Config, ready: &Ready) -> Result<()> {
        let text = serde_json::to_string(ready).context("the ready file's text")?;
        for file in self.ready_files(config) {
            // With certificates of its own, --dev has made no folder.
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
            }
            write_atomically(&file, &format!("{text}\n"))
                .with_context(|| format!("the ready file {}", file.display()))?;
        }
        let Ready { site, name, client_addr, admin_url, .. } = ready;
        say!("myelin: router {name} of site {site} serves");
        say!("  clients  {client_addr} (QUIC)");
        say!("  admin    {admin_url}");
        if self.dev {
            say!("  files    {}", development::folder(&config.node.data_dir).display());
            say!("  try      myelin sub 'demo/**'    and, in another terminal,    myelin pub demo/hello -m hi");
        }
        tracing::info!(%site, router = %name, %client_addr, workers = config.workers(), "serving");
        Ok(())
    }
}

fn defect(what: &str) -> Failure {
    Failure::new(Exit::Failed, format!("{what} has ended by itself, which is a defect of the router"))
        .next("start it again; the log before this says where, and whoever makes Myelin wants to see it")
}

/// What was lost count of must not end well: supervisors read the exit code.
fn check_ledger(ledger: &BTreeMap<u64, Counts>) -> Result<()> {
    ledger::check(ledger).map_err(|unbalanced| {
        for (generation, counts) in ledger {
            tracing::error!(generation, ?counts, balances = counts.balances(), "the ledger at the end");
        }
        Failure::new(Exit::Failed, format!("drained, but {unbalanced}"))
            .next("report it, with the log's last lines: they hold the ledger of every generation")
    })
}

/// The file that is named, else `./myelin.toml` where there is one.
pub(super) fn config_file(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| Path::new(CONFIG_FILE).exists().then(|| PathBuf::from(CONFIG_FILE)))
}

/// The files of `[tls]`, which are all there or none.
pub(super) fn tls_files(config: &Config) -> Option<TlsFiles> {
    let tls = config.tls.clone();
    Some(TlsFiles { cert: tls.cert?, key: tls.key?, ca: tls.ca? })
}

/// The identity of a certificate that a router is to serve with.
pub(super) fn router_identity(files: &TlsFiles) -> Result<Identity> {
    let told = |why: String| Failure::new(Exit::Usage, why).doing("[tls]");
    let identity = TlsIdentity::load(files).map_err(|error| told(error.to_string()))?.identity();
    match identity.is_router() {
        true => Ok(identity),
        false => Err(told(format!("{} is the certificate of {identity}, and not a router's", files.cert.display()))
            .next("issue one with `myelin cert issue router SITE NAME --host HOST`")),
    }
}

/// Whether the certificate is that of a router at the configured site: other routers believe the certificate, and policies
/// and rules for topics the configuration. A certificate that cannot be used is told by whoever uses it.
pub(super) fn check_site(config: &Config, files: &TlsFiles) -> Result<()> {
    let Ok(tls) = TlsIdentity::load(files) else { return Ok(()) };
    let (identity, site) = (tls.identity(), &config.node.site);
    match identity.kind() {
        IdentityKind::Router { site: certified, .. } if certified != site => {
            let cert = files.cert.display();
            let what =
                format!("[node] site: it is `{site}`, and {cert} is a certificate for site `{certified}` ({identity})");
            Err(Failure::new(Exit::Usage, what).next(format!(
                "set [node] site = \"{certified}\", or issue one with `myelin cert issue router {site} NAME`"
            )))
        }
        _ => Ok(()),
    }
}

fn warn_of_left_out(tls: &TlsIdentity) {
    for authority in tls.left_out_authorities() {
        tracing::warn!(code = TlsErrorKind::ForeignAuthority.code(), "[tls] ca: {authority}: it is not trusted");
    }
}

/// Claims the data directory for this process.
fn lock(data_dir: &Path) -> Result<File> {
    let file = data_dir.join(LOCK_FILE);
    let open = File::options().create(true).truncate(false).write(true).open(&file);
    let open = open.with_context(|| format!("{}", file.display()))?;
    match open.try_lock() {
        Ok(()) => Ok(open),
        Err(TryLockError::WouldBlock) => {
            let what = format!("the data directory {} is in use by another router", data_dir.display());
            Err(Failure::new(Exit::Conflict, what).next("stop that router, or give this one its own --data-dir"))
        }
        Err(TryLockError::Error(error)) => {
            Err(Failure::new(Exit::Failed, format!("{} cannot be locked: {error}", file.display())))
        }
    }
}

/// Counts this start, on disk before anything is sent: two runs must never give out the same stamps.
fn next_epoch(data_dir: &Path) -> Result<u32> {
    let file = data_dir.join(EPOCH_FILE);
    let last = match std::fs::read_to_string(&file) {
        Ok(text) => text.trim().parse::<u32>().map_err(|_| {
            Failure::new(Exit::Failed, format!("{} does not hold a number", file.display()))
                .next("restore it; a number that was used before would let event ids repeat")
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(Failure::new(Exit::Failed, format!("{}: {error}", file.display()))),
    };
    let epoch = last.checked_add(1).context("the router was started too often")?;
    write_atomically(&file, &format!("{epoch}\n")).map_err(|error| not_written(&file, &error))?;
    Ok(epoch)
}

/// A router that cannot write into its data directory does not start: where that is for want of room, it says so.
fn not_written(file: &Path, error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Failure::new(Exit::Failed, format!("{}: {error}; nothing can be written there", file.display()))
                .next("free room first, then start the router")
        }
        _ => Failure::new(Exit::Failed, format!("{}: {error}", file.display())),
    }
}

/// Takes up new certificate files by themselves and on SIGHUP.
async fn follow_certificates(reloader: Arc<TlsReloader>, mut hangups: Signal) {
    let tell = |outcome: ReloadOutcome| match outcome {
        ReloadOutcome::Reloaded => {
            tracing::info!("new certificates are in use");
            warn_of_left_out(&reloader.tls());
        }
        ReloadOutcome::Failed(error) => {
            tracing::error!(code = error.code(), %error, "the old certificates stay in use")
        }
        ReloadOutcome::Unchanged => {}
    };
    let by_signal = async {
        while hangups.recv().await.is_some() {
            tell(reloader.reload().map_or_else(ReloadOutcome::Failed, |()| ReloadOutcome::Reloaded));
        }
    };
    tokio::join!(reloader.run(TLS_LOOK_INTERVAL, tell), by_signal);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn a_data_directory_has_one_router() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        assert_eq!(lock(folder.path()).unwrap_err().exit, Exit::Conflict);
        drop(first);
        assert!(lock(folder.path()).is_ok());
    }

    #[test]
    fn a_ledger_that_is_off_fails_the_command() {
        let good = Counts { accepted: 3, rejected: 3, ..Counts::default() };
        assert!(check_ledger(&BTreeMap::from([(1, good)])).is_ok());
        let failure = check_ledger(&BTreeMap::from([(1, Counts { rejected: 2, ..good })])).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.what.contains("off by 1 events"), "{failure}");
    }

    #[test]
    fn every_start_has_a_number_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!([(); 3].map(|()| next_epoch(folder.path()).unwrap()), [1, 2, 3]);
        std::fs::write(folder.path().join(EPOCH_FILE), "garbage").unwrap();
        assert!(next_epoch(folder.path()).unwrap_err().what.contains("does not hold a number"));
        let full = not_written(folder.path(), &ErrorKind::StorageFull.into());
        assert!(full.next.is_some_and(|next| next.contains("free room first")));
    }
}
