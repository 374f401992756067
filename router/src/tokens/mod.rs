//! Tokens that issuers have signed: their keys, kept fresh, and who somebody is by a token.
//!
//! A task for each issuer reads its key set now and then, and at once, but seldom, when a token names a key that is not in
//! it. What was read last and was good counts until something better comes, over a restart, too: an issuer that is away
//! keeps nobody out whose token is good. Not for ever: whoever keeps us from reading must not keep a key alive that the
//! issuer has taken back.

mod fetch;
mod kept;
#[cfg(test)]
mod tests;

use crate::config::{IssuerConfig, JwtConfig, Roles};
use anyhow::Context;
use arc_swap::ArcSwapOption;
use fetch::Fetcher;
use kept::{Origin, is_too_old};
use myelin_token::{Claims, KEYS_BYTES_MAX, Keys, Refusal, Rules};
use myelin_transport::Identity;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How often keys are read.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Between two looks that went well.
    refresh: Duration,
    /// After the first that did not; it doubles up to `refresh`.
    retry: Duration,
    /// Between two looks because of an unknown key: whoever makes keys up must not make us ask.
    unknown: Duration,
    /// How long a token waits for such a look.
    wait: Duration,
    /// How long a look may take.
    fetch: Duration,
}

impl Pace {
    fn new(refresh: Duration) -> Self {
        let seconds = Duration::from_secs;
        // A token waits less than a client waits for its WELCOME.
        Self { refresh, retry: seconds(1).min(refresh), unknown: seconds(10), wait: seconds(3), fetch: seconds(5) }
    }
}

/// The issuers whose tokens are believed.
pub struct Tokens {
    issuers: Vec<Arc<Issuer>>,
    pace: Pace,
    /// The tasks that keep keys fresh; they end with this.
    _following: JoinSet<()>,
}

/// Who somebody is by a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Bearer {
    /// The name.
    pub identity: Identity,
    /// The roles of the admin API that the token stands for.
    pub roles: Roles,
    /// The groups that it names, for policies.
    pub groups: Vec<String>,
    /// Until when it counts, in Unix seconds.
    pub expires_unix_s: u64,
}

struct Issuer {
    name: String,
    config: IssuerConfig,
    rules: Rules,
    source: Source,
    keys: ArcSwapOption<Held>,
    /// How old they may get, in seconds.
    max_age_s: u64,
    /// How often they got older than that.
    too_old: AtomicU64,
    /// Somebody wants the keys to be read now.
    wanted: Notify,
    /// That is under way.
    busy: AtomicBool,
    /// When somebody wanted it last.
    asked: Mutex<Option<Instant>>,
    /// How often they were read, or it was tried.
    looked: watch::Sender<u64>,
}

enum Source {
    File(PathBuf),
    /// Over HTTP, with the file that keeps what was read last.
    Url(Fetcher, Origin, PathBuf),
}

/// Keys, and when they were read.
struct Held {
    keys: Keys,
    read_unix_s: u64,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.issuers.iter().map(|issuer| &issuer.name)).finish()
    }
}

impl Tokens {
    /// Reads what there is of the issuers' keys, and begins to keep them fresh; none where no issuer is configured. Needs
    /// a tokio runtime.
    ///
    /// # Errors
    /// When a file that is named cannot be used.
    pub fn start(config: &JwtConfig, data_dir: &Path) -> anyhow::Result<Option<Arc<Self>>> {
        Self::start_at(Pace::new(Duration::from_secs(config.refresh_seconds)), config, data_dir)
    }

    /// Whether what is configured could be used: files that are named are read.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn check(config: &JwtConfig, data_dir: &Path) -> anyhow::Result<()> {
        for (name, issuer) in &config.issuers {
            Issuer::open(name, issuer, max_age_s(config), data_dir).with_context(|| format!("[jwt.issuers.{name}]"))?;
        }
        Ok(())
    }

    fn start_at(pace: Pace, config: &JwtConfig, data_dir: &Path) -> anyhow::Result<Option<Arc<Self>>> {
        if config.issuers.is_empty() {
            return Ok(None);
        }
        let mut issuers = Vec::new();
        let mut following = JoinSet::new();
        let max_age_s = max_age_s(config);
        for (name, config) in &config.issuers {
            let issuer =
                Issuer::open(name, config, max_age_s, data_dir).with_context(|| format!("[jwt.issuers.{name}]"))?;
            let issuer = Arc::new(issuer);
            following.spawn(follow(issuer.clone(), pace));
            issuers.push(issuer);
        }
        Ok(Some(Arc::new(Self { issuers, pace, _following: following })))
    }

    /// Whether `text` has the form of a token: three parts between dots.
    pub fn may_be_one(text: &[u8]) -> bool {
        text.iter().filter(|byte| **byte == b'.').count() == 2
    }

    /// How often the keys of an issuer got too old to count.
    pub fn keys_too_old(&self) -> u64 {
        self.issuers.iter().map(|issuer| issuer.too_old.load(Ordering::Relaxed)).sum()
    }

    /// Who shows `token`. Waits for the issuer's keys to be read once more when its key is not among them.
    ///
    /// # Errors
    /// Why it is not believed.
    pub async fn verify(&self, token: &[u8]) -> Result<Bearer, Refusal> {
        let named = myelin_token::issuer(token)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.rules.issuer == named).ok_or(Refusal::Issuer)?;
        let claims = match issuer.judge(token) {
            Err(Refusal::Key | Refusal::NoKeys) if issuer.look_again(&self.pace).await => issuer.judge(token)?,
            judged => judged?,
        };
        issuer.bearer(&claims)
    }
}

/// How old keys may get, in seconds: one look that fails must not be all that lies between a user and the door.
fn max_age_s(config: &JwtConfig) -> u64 {
    config.keys_max_age_seconds.max(2 * config.refresh_seconds)
}

/// The clock's Unix seconds.
pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Issuer {
    fn open(name: &str, config: &IssuerConfig, max_age_s: u64, data_dir: &Path) -> anyhow::Result<Self> {
        let now = unix_s();
        let (source, held) = match (&config.jwks_url, &config.jwks_file) {
            (_, Some(file)) => (Source::File(file.clone()), Some((read(file)?, now))),
            (Some(url), None) => {
                let kept = data_dir.join(format!("jwks-{name}.json"));
                let origin = Origin { issuer: config.issuer.clone(), jwks_url: url.clone(), max_age_s };
                // What is not there, or not good any more, is read anew.
                let keys = match kept.exists().then(|| origin.load(&kept, now)).transpose() {
                    Ok(keys) => keys,
                    Err(error) => {
                        let (error, file) = (format!("{error:#}"), kept.display());
                        tracing::warn!(issuer = name, error, %file, "keys of the last start do not count");
                        None
                    }
                };
                (Source::Url(Fetcher::new(url, config.ca.as_deref())?, origin, kept), keys)
            }
            (None, None) => anyhow::bail!("there is neither jwks_url nor jwks_file"),
        };
        Ok(Self {
            name: name.to_owned(),
            rules: config.rules(),
            config: config.clone(),
            source,
            keys: ArcSwapOption::from_pointee(held.map(|(keys, read_unix_s)| Held { keys, read_unix_s })),
            max_age_s,
            too_old: AtomicU64::new(0),
            wanted: Notify::new(),
            busy: AtomicBool::new(false),
            asked: Mutex::default(),
            looked: watch::Sender::new(0),
        })
    }

    fn judge(&self, token: &[u8]) -> Result<Claims, Refusal> {
        let (held, now) = (self.keys.load(), unix_s());
        let held = held.as_ref().filter(|held| !is_too_old(held.read_unix_s, self.max_age_s, now));
        myelin_token::verify(token, &held.ok_or(Refusal::NoKeys)?.keys, &self.rules, now)
    }

    /// Whether there are keys, and they do not count any more.
    fn has_old_keys(&self) -> bool {
        self.keys.load().as_ref().is_some_and(|held| is_too_old(held.read_unix_s, self.max_age_s, unix_s()))
    }

    fn bearer(&self, claims: &Claims) -> Result<Bearer, Refusal> {
        let domain = &self.config.trust_domain;
        let identity = if self.config.spiffe_subjects && claims.subject.starts_with("spiffe://") {
            let named = Identity::parse(&claims.subject).ok();
            let is_ours = |identity: &Identity| identity.trust_domain() == domain && identity.is_service();
            named.filter(is_ours).ok_or(Refusal::Subject)?
        } else {
            Identity::bearer(domain, &self.name, &claims.subject).map_err(|_| Refusal::Subject)?
        };
        let texts = |claim: &Option<String>| claim.as_deref().map(|claim| claims.texts(claim)).unwrap_or_default();
        let roles = self.config.roles_of(&texts(&self.config.roles_claim));
        let groups = texts(&self.config.groups_claim).into_iter().map(str::to_owned).collect();
        Ok(Bearer { identity, roles, groups, expires_unix_s: claims.expires_unix_s })
    }

    /// Has the keys read once more, and waits for that; false where that was done just now.
    async fn look_again(&self, pace: &Pace) -> bool {
        let mut looked = self.looked.subscribe();
        let is_due = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = asked.is_none_or(|asked| asked.elapsed() >= pace.unknown);
            if is_due {
                *asked = Some(Instant::now());
                self.busy.store(true, Ordering::Release);
            }
            is_due
        };
        if is_due {
            self.wanted.notify_one();
        } else if !self.busy.load(Ordering::Acquire) {
            return false;
        }
        timeout(pace.wait, looked.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    /// Reads the keys. What is no key set changes nothing.
    async fn look(&self, pace: &Pace) -> anyhow::Result<()> {
        let (keys, read_unix_s) = match &self.source {
            Source::File(file) => {
                let file = file.clone();
                (tokio::task::spawn_blocking(move || read(&file)).await??, unix_s())
            }
            Source::Url(fetcher, origin, kept) => {
                let text = timeout(pace.fetch, fetcher.fetch()).await.context("no answer in time")??;
                let (keys, now) = (Keys::parse(&text)?, unix_s());
                let (kept, text) = (kept.clone(), String::from_utf8(text.to_vec()).context("the key set")?);
                let origin = origin.clone();
                let written = tokio::task::spawn_blocking(move || origin.keep(&kept, &text, now)).await?;
                if let Err(error) = written {
                    tracing::warn!(issuer = self.name, %error, "keys are good, but not kept for the next start");
                }
                (keys, now)
            }
        };
        self.keys.store(Some(Arc::new(Held { keys, read_unix_s })));
        Ok(())
    }
}

/// Keeps the keys of an issuer fresh.
async fn follow(issuer: Arc<Issuer>, pace: Pace) {
    let mut retry = pace.retry;
    let mut trouble: Option<String> = None;
    let mut was_old = false;
    loop {
        let pause = match issuer.look(&pace).await {
            Ok(()) => {
                if trouble.take().is_some() {
                    tracing::info!(issuer = issuer.name, "the issuer's keys are read again");
                }
                (retry, was_old) = (pace.retry, false);
                pace.refresh
            }
            Err(error) => {
                let told = format!("{error:#}");
                if trouble.as_ref() != Some(&told) {
                    let has_keys = issuer.keys.load().is_some();
                    tracing::warn!(issuer = issuer.name, error = told, has_keys, "the issuer's keys cannot be read");
                }
                trouble = Some(told);
                let is_old = issuer.has_old_keys();
                if is_old && !was_old {
                    issuer.too_old.fetch_add(1, Ordering::Relaxed);
                    let max_age_s = issuer.max_age_s;
                    tracing::error!(
                        issuer = issuer.name,
                        max_age_s,
                        "the issuer's keys are too old, and its tokens are refused until they can be read; \
                         keys_max_age_seconds below [jwt] says how long they count"
                    );
                }
                was_old = is_old;
                let pause = retry;
                retry = (retry * 2).min(pace.refresh);
                pause
            }
        };
        issuer.busy.store(false, Ordering::Release);
        issuer.looked.send_modify(|count| *count += 1);
        tokio::select! {
            () = sleep(pause) => {}
            () = issuer.wanted.notified() => {}
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Keys> {
    let mut text = Vec::new();
    let open = std::fs::File::open(file).and_then(|file| file.take(KEYS_BYTES_MAX as u64 + 1).read_to_end(&mut text));
    open.with_context(|| file.display().to_string())?;
    Keys::parse(&text).with_context(|| file.display().to_string())
}
