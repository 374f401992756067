//! Certificates that change while the process runs.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::identity::Loaded;
use super::{TlsError, TlsErrorKind, TlsFiles, TlsIdentity};

/// Loads a [`TlsIdentity`] again when its files change. A bad new file keeps the old identity in use and is told.
#[derive(Debug)]
pub struct TlsReloader {
    files: TlsFiles,
    tls: TlsIdentity,
    state: Mutex<State>,
}

/// What a look at the files found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The files are as they were.
    Unchanged,
    /// New files are in use from the next handshake on.
    Reloaded,
    /// New files cannot be used; the old ones stay in use.
    Failed(TlsError),
}

/// Counters of a [`TlsReloader`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReloadStats {
    /// Successful reloads.
    pub reloads: u64,
    /// Reloads that failed, with the old files staying in use.
    pub failures: u64,
    /// The newest failure, until a reload succeeds.
    pub last_error: Option<TlsError>,
}

#[derive(Debug)]
struct State {
    seen: Stamps,
    stats: ReloadStats,
}

/// Enough of a file's metadata to notice a rewrite within the clock's grain: rename gives a new inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

type Stamps = [Option<Stamp>; 3];

impl TlsReloader {
    /// Loads the files a first time.
    ///
    /// # Errors
    /// [`TlsError`] names the file, the problem and the remedy.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        // Stamps first: a change during the load is then seen by the next look.
        let seen = stamps(&files);
        let tls = TlsIdentity::load(&files)?;
        Ok(Self { files, tls, state: Mutex::new(State { seen, stats: ReloadStats::default() }) })
    }

    /// The identity that follows the files.
    #[must_use]
    pub fn tls(&self) -> TlsIdentity {
        self.tls.clone()
    }

    /// Looks at the files and reloads them if they have changed since the last look. Three `stat` calls.
    pub fn check(&self) -> ReloadOutcome {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now_seen = stamps(&self.files);
        if now_seen == state.seen {
            return ReloadOutcome::Unchanged;
        }
        self.load(&mut state, now_seen)
    }

    /// Reloads the files whether or not they have changed: what SIGHUP asks for.
    ///
    /// # Errors
    /// [`TlsError`] when the files cannot be used; the old ones stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now_seen = stamps(&self.files);
        match self.load(&mut state, now_seen) {
            ReloadOutcome::Failed(error) => Err(error),
            ReloadOutcome::Reloaded | ReloadOutcome::Unchanged => Ok(()),
        }
    }

    /// Looks at the files every `interval`, for ever, and hands each outcome that is not `Unchanged` to `tell`.
    pub async fn run(&self, interval: Duration, mut tell: impl FnMut(ReloadOutcome)) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.check() {
                ReloadOutcome::Unchanged => {}
                outcome => tell(outcome),
            }
        }
    }

    /// The counters so far.
    #[must_use]
    pub fn stats(&self) -> ReloadStats {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stats.clone()
    }

    fn load(&self, state: &mut State, now_seen: Stamps) -> ReloadOutcome {
        // Remembered on failure too: a bad file is told once, not at every look.
        state.seen = now_seen;
        match self.read_same_identity() {
            Ok(loaded) => {
                myelin_failpoint::reach("certificates-read");
                self.tls.swap(loaded);
                myelin_failpoint::reach("certificates-taken");
                state.stats.reloads += 1;
                state.stats.last_error = None;
                ReloadOutcome::Reloaded
            }
            Err(error) => {
                if error.kind == TlsErrorKind::NotYetValid {
                    // Nobody has to touch it for its time to come.
                    state.seen = Stamps::default();
                }
                state.stats.failures += 1;
                state.stats.last_error = Some(error.clone());
                ReloadOutcome::Failed(error)
            }
        }
    }

    fn read_same_identity(&self) -> Result<Loaded, TlsError> {
        let loaded = Loaded::read(&self.files, SystemTime::now())?;
        let ours = self.tls.identity();
        if loaded.identity != ours {
            return Err(TlsError::new(
                TlsErrorKind::IdentityChanged,
                &self.files.cert,
                format!("the new certificate is for {}, but this process is {ours}", loaded.identity),
                "put the right certificate there, or restart to change who this is",
            ));
        }
        Ok(loaded)
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    [stamp(&files.cert), stamp(&files.key), stamp(&files.ca)]
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: meta.modified().ok(), bytes: meta.len(), inode: meta.ino() })
}
