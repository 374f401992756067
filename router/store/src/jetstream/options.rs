//! What an operator says about the log's servers.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::ServerAddr;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// Copies of each message below which one server's disk decides over the catalog, or one server's absence stops it.
pub(super) const REPLICAS_MIN: usize = 3;
/// The most that JetStream keeps.
const REPLICAS_MAX: usize = 5;
/// Longest name of the stream; its buckets add a suffix.
const STREAM_NAME_LEN_MAX: usize = 32;
/// Longest wait for one answer, and for an answer in the end.
const WAIT_MAX_MS: u64 = 10 * 60 * 1_000;

/// How the servers are reached, and what they must do for the catalog: the router's `[jetstream]`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JetstreamOptions {
    /// The servers, such as `tls://nats-1.example:4222`; one that answers is enough. A user and password
    /// in the first that names them are those for all; prefer `credentials`.
    pub urls: Vec<String>,
    /// Accepts `nats://` to other machines: records and modules are readable on the way, and a stranger in between could
    /// hold them back. For networks that encrypt by themselves.
    pub allow_plaintext: bool,
    /// A `.creds` file with the user's JWT and seed.
    pub credentials: Option<PathBuf>,
    /// Certificates, in PEM, that the servers' are signed by. Without, those of the system are trusted.
    pub ca: Option<PathBuf>,
    /// Our own certificate, in PEM, with `key`, where the servers ask for one.
    pub certificate: Option<PathBuf>,
    /// The key of `certificate`.
    pub key: Option<PathBuf>,
    /// The stream of records. The buckets `<stream>_STATE` and `<stream>_BLOBS` belong to it.
    pub stream: String,
    /// How many servers keep each message: the number that missing streams are created with, and the least that those
    /// that are there may have.
    pub replicas: usize,
    /// Accepts fewer than three replicas. For tests and single machines: one lost disk is a lost catalog.
    pub allow_single_replica: bool,
    /// The operator's word that every server has `sync_interval: always`. A client cannot read it; with `system_urls`
    /// it is asked for instead.
    pub servers_sync_always: bool,
    /// Accepts servers that answer before the record is on the disk (JetStream's default, up to two minutes before):
    /// when a majority loses power at once, acknowledged records are gone.
    pub accept_lazy_fsync: bool,
    /// The servers again, reached as a user of their system account: then what each does about syncing is read when the
    /// log is opened.
    pub system_urls: Vec<String>,
    /// A `.creds` file for `system_urls`.
    pub system_credentials: Option<PathBuf>,
    /// Longest wait for one answer, in milliseconds.
    pub call_timeout_ms: u64,
    /// How long one operation tries again, in milliseconds: longer than the servers take to choose a new leader.
    pub patience_ms: u64,
    /// Age, in seconds, from which a module's bytes that no record names are garbage. It must exceed the time from an
    /// upload to its record by more than clocks differ.
    pub orphan_age_min_s: u64,
}

impl Default for JetstreamOptions {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            allow_plaintext: false,
            credentials: None,
            ca: None,
            certificate: None,
            key: None,
            stream: "MYELIN_CATALOG".into(),
            replicas: REPLICAS_MIN,
            allow_single_replica: false,
            servers_sync_always: false,
            accept_lazy_fsync: false,
            system_urls: Vec::new(),
            system_credentials: None,
            call_timeout_ms: 5_000,
            patience_ms: 30_000,
            orphan_age_min_s: 24 * 60 * 60,
        }
    }
}

impl fmt::Debug for JetstreamOptions {
    /// URLs may carry passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        f.debug_struct("JetstreamOptions")
            .field("place", &place)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}

impl JetstreamOptions {
    /// What the log is called in errors: its stream and its servers, without passwords.
    pub(super) fn place(&self) -> String {
        let hosts: Vec<&str> = self.urls.iter().map(|url| url.rsplit(['@', '/']).next().unwrap_or_default()).collect();
        format!("stream {} at {}", self.stream, hosts.join(", "))
    }

    /// The key-value bucket of leases and of the witness.
    pub(super) fn state_bucket(&self) -> String {
        format!("{}_STATE", self.stream)
    }

    /// The object store of modules.
    pub(super) fn blob_bucket(&self) -> String {
        format!("{}_BLOBS", self.stream)
    }

    pub(super) fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms)
    }

    pub(super) fn orphan_age_min(&self) -> Duration {
        Duration::from_secs(self.orphan_age_min_s)
    }

    /// The least number of replicas that streams may have.
    pub(super) fn replicas_min(&self) -> usize {
        if self.allow_single_replica { 1 } else { REPLICAS_MIN.max(self.replicas) }
    }

    /// Checks what can be checked without a server.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(StoreError::Unfit { place: self.place(), problems }) }
    }

    /// All that is wrong and can be told without a server, each with how to mend it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        require(!self.urls.is_empty(), "no `urls`; name at least one server, such as nats://nats-1:4222");
        let is_plain = self.stream.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let is_named = is_plain && (1..=STREAM_NAME_LEN_MAX).contains(&self.stream.len());
        require(is_named, "`stream` has 1 to 32 letters, digits, `-` and `_`");
        require((1..=REPLICAS_MAX).contains(&self.replicas), "`replicas` is 1 to 5; 3 is the rule");
        require(
            self.replicas >= REPLICAS_MIN || self.allow_single_replica,
            "`replicas` is below 3: one lost disk loses the catalog; set it to 3, or say `allow_single_replica = true`",
        );
        require(
            self.certificate.is_some() == self.key.is_some(),
            "`certificate` and `key` belong together; name both or none",
        );
        let waits = [self.call_timeout_ms, self.patience_ms];
        require(
            waits.iter().all(|wait| (1..=WAIT_MAX_MS).contains(wait)) && self.call_timeout_ms <= self.patience_ms,
            "`call_timeout_ms` and `patience_ms` are 1 ms to 10 minutes, and the first is not the longer one",
        );
        require(
            self.servers_sync_always || self.accept_lazy_fsync || !self.system_urls.is_empty(),
            "it is not known whether the servers sync before they answer, and a client cannot ask: give every server \
             `jetstream { sync_interval: always }` and say `servers_sync_always = true`, or name `system_urls` to have \
             it checked, or say `accept_lazy_fsync = true`",
        );
        problems.extend(self.url_problems("urls", &self.urls));
        problems.extend(self.url_problems("system_urls", &self.system_urls));
        problems
    }

    fn url_problems(&self, option: &str, urls: &[String]) -> Vec<String> {
        let problem = |(place, url): (usize, &String)| {
            // The URL itself may have a password in it.
            let address = match url.parse::<ServerAddr>() {
                Ok(address) => address,
                Err(e) => return Some(format!("`{option}[{place}]` is no address of a server: {e}")),
            };
            let host = address.host();
            let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            match address.scheme() {
                "tls" => None,
                "nats" if is_here || self.allow_plaintext => None,
                "nats" => Some(format!(
                    "`{option}[{place}]`, {host}, is reached without TLS; write tls://, or accept it with \
                     `allow_plaintext = true`"
                )),
                other => Some(format!("`{option}[{place}]` is of scheme {other}; write tls://")),
            }
        };
        urls.iter().enumerate().filter_map(problem).collect()
    }
}
