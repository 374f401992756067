//! The configuration of a router: one TOML file, `MYELIN_SECTION__KEY` variables above it, flags above both.
//!
//! Each section is plain data with its default; `myelin config default` prints all keys with their explanation.

mod check;
mod jwt;
mod load;
mod roles;
mod schema;
mod telemetry;
#[cfg(test)]
mod tests;

pub(crate) use jwt::without_user;
pub use jwt::{IssuerConfig, JwtConfig, LEEWAY_S};
pub use load::{ConfigError, ConfigErrors, Setting, Sources};
pub use roles::{Holder, Role, RoleMap, Roles, know_certificates};
pub use schema::{Key, Kind, keys, sections};
pub use telemetry::TelemetryConfig;
pub(crate) use telemetry::{collector, header};

use myelin_catalog::PublicKey;
use myelin_mesh::{Directory, Router, RouterNumber, Site, SiteNumber};
use myelin_store::JetstreamOptions;
use myelin_transport::Identity;
use myelin_wire::Limits;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What `myelin config default` prints: every key with its default and its explanation.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who the router is.
    pub node: NodeConfig,
    /// Its certificate and whom it trusts.
    pub tls: TlsConfig,
    /// Where it listens.
    pub listen: ListenConfig,
    /// The other sites.
    pub mesh: MeshConfig,
    /// What is deployed, and who writes it down.
    pub catalog: CatalogConfig,
    /// The servers of a catalog that all routers write.
    pub jetstream: JetstreamOptions,
    /// Limits of what clients may send.
    pub limits: Limits,
    /// Bounds of what waits for a subscriber.
    pub outbox: OutboxConfig,
    /// Limits of filters.
    pub wasm: WasmConfig,
    /// What is demanded of modules before they run.
    pub modules: ModulesConfig,
    /// What holds where no policy speaks.
    pub policy: PolicyConfig,
    /// Who may use the admin API.
    pub admin: AdminConfig,
    /// Whose tokens are believed.
    pub jwt: JwtConfig,
    /// The log of who did what.
    pub audit: AuditConfig,
    /// Where the records of traces go.
    pub telemetry: TelemetryConfig,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Name of the site.
    pub site: String,
    /// Name of the router, unique within its site.
    pub name: String,
    /// Region of the site, a label.
    pub region: String,
    /// Cloud of the site, a label.
    pub cloud: String,
    /// Where the router keeps its catalog, modules, compiled code and development certificates.
    pub data_dir: PathBuf,
    /// Worker threads; 0 = one per core.
    pub workers: usize,
    /// Sessions that a worker takes.
    pub sessions_per_worker: usize,
    /// Sessions that one identity has at this router at a time.
    pub sessions_per_identity: usize,
    /// Subscriptions that one identity has at this router at a time, in all its sessions together.
    pub subscriptions_per_identity: usize,
    /// How long a graceful shutdown may take, in seconds.
    pub drain_seconds: u64,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            site: "local".into(),
            name: "r1".into(),
            region: String::new(),
            cloud: String::new(),
            data_dir: PathBuf::from(".myelin"),
            workers: 0,
            sessions_per_worker: 16_384,
            sessions_per_identity: 1_024,
            subscriptions_per_identity: SUBSCRIPTIONS_PER_IDENTITY,
            drain_seconds: 30,
        }
    }
}

/// Subscriptions of one identity where nothing else is said: some 64 MB where they are made, and sixteen sessions that each
/// have as many as a session may have, or one for each of a thousand sessions and some to spare.
const SUBSCRIPTIONS_PER_IDENTITY: usize = 16_384;

/// `[tls]`: PEM files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The router's certificate chain.
    pub cert: Option<PathBuf>,
    /// The certificate's private key.
    pub key: Option<PathBuf>,
    /// The authorities whose clients are trusted.
    pub ca: Option<PathBuf>,
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// UDP address for clients (QUIC); port 0 takes any free one.
    pub client: SocketAddr,
    /// TCP address of the admin API (HTTP on loopback, HTTPS elsewhere).
    pub admin: SocketAddr,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { client: (Ipv4Addr::LOCALHOST, 7400).into(), admin: (Ipv4Addr::LOCALHOST, 7480).into() }
    }
}

/// `[mesh]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeshConfig {
    /// UDP address for the routers of other sites (QUIC); without one this router has no links.
    pub listen: Option<SocketAddr>,
    /// Every router of the mesh as `SITE/ROUTER`, in the same order everywhere: its place is its number. A site by itself,
    /// `SITE`, keeps the number of one without routers.
    pub members: Vec<String>,
    /// Where routers to link with are, as `HOST:PORT`.
    pub seeds: Vec<String>,
    /// Where others reach this router's `listen`, as `HOST:PORT`; they are told, and link by themselves.
    pub advertise: Vec<String>,
    /// Encoded bytes that may wait for one neighbour; the oldest make room for new ones.
    pub queue_bytes: usize,
}

impl Default for MeshConfig {
    fn default() -> Self {
        let (members, seeds, advertise) = (Vec::new(), Vec::new(), Vec::new());
        Self { listen: None, members, seeds, advertise, queue_bytes: 64 * 1024 * 1024 }
    }
}

/// `[catalog]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogConfig {
    /// What keeps the log.
    pub engine: Engine,
    /// Which router of the mesh writes the catalog, as `SITE/ROUTER`; the first of `[mesh] members` where none is named.
    pub writer: Option<String>,
    /// The public key with which the signed part of the catalog must begin; any where none is named.
    pub root_key: Option<PublicKey>,
    /// How long a starting router that knows a catalog waits for the others, in seconds.
    pub join_seconds: u64,
}

/// What keeps the catalog's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
// Text, as every name in the file is.
#[serde(try_from = "String", into = "String")]
pub enum Engine {
    /// The data directory of one router, which writes it.
    Disk,
    /// NATS JetStream: every router writes it, as `[jetstream]` says.
    Jetstream,
}

impl Engine {
    const ALL: [(Self, &str); 2] = [(Self::Disk, "disk"), (Self::Jetstream, "jetstream")];
}

impl TryFrom<String> for Engine {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(engine, _)| *engine).ok_or_else(|| "the engines are `disk` and `jetstream`".to_owned())
    }
}

impl From<Engine> for String {
    fn from(engine: Engine) -> Self {
        Engine::ALL.iter().find(|(known, _)| *known == engine).map_or_else(Self::new, |(_, name)| (*name).to_owned())
    }
}

impl Default for CatalogConfig {
    fn default() -> Self {
        Self { engine: Engine::Disk, writer: None, root_key: None, join_seconds: 10 }
    }
}

/// `[outbox]`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboxConfig {
    /// Encoded bytes that may wait for one subscriber.
    pub bytes: usize,
    /// Events that may wait for one subscriber.
    pub events: usize,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self { bytes: 4 * 1024 * 1024, events: 65_536 }
    }
}

/// `[wasm]`: the most that any binding may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WasmConfig {
    /// Largest module that is accepted, in bytes.
    pub module_bytes: usize,
    /// Largest linear memory of a filter instance, in bytes.
    pub memory_bytes: usize,
    /// Filter instances that all workers together may hold, warm previous generations included.
    pub instances: u32,
    /// CPU time that a batch may take, in microseconds.
    pub deadline_us: u64,
    /// CPU time that compiling a module may take, in seconds.
    pub compile_cpu_seconds: u64,
    /// Address space that compiling a module may take, in bytes.
    pub compile_address_space_bytes: u64,
    /// The program that compiles; the router's own unless a test or an embedder says otherwise. Not in the file.
    #[serde(skip)]
    pub compiler: Option<PathBuf>,
}

impl Default for WasmConfig {
    fn default() -> Self {
        Self {
            module_bytes: 16 * 1024 * 1024,
            memory_bytes: 64 * 1024 * 1024,
            instances: 512,
            deadline_us: 2_000,
            compile_cpu_seconds: 20,
            compile_address_space_bytes: 2 * 1024 * 1024 * 1024,
            compiler: None,
        }
    }
}

/// `[modules]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModulesConfig {
    /// That they are signed.
    pub signatures: Demand,
    /// That what a new version can do beyond the running one is approved.
    pub approvals: Demand,
}

impl ModulesConfig {
    /// What `--dev` takes: a signature that is there must be right, and nothing more is asked.
    pub const OPEN: Self = Self { signatures: Demand::Optional, approvals: Demand::Optional };

    /// The same, as the catalog is asked.
    #[must_use]
    pub fn demands(&self) -> myelin_catalog::Demands {
        let is_required = |demand| demand == Demand::Required;
        myelin_catalog::Demands { signatures: is_required(self.signatures), approvals: is_required(self.approvals) }
    }
}

/// Whether something must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
// Text, as every name in the file is.
#[serde(try_from = "String", into = "String")]
pub enum Demand {
    /// It must.
    #[default]
    Required,
    /// It need not: what `--dev` takes.
    Optional,
}

impl TryFrom<String> for Demand {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "required" => Ok(Self::Required),
            "optional" => Ok(Self::Optional),
            _ => Err("say `required` or `optional`".to_owned()),
        }
    }
}

impl From<Demand> for String {
    fn from(demand: Demand) -> Self {
        match demand {
            Demand::Required => "required".to_owned(),
            Demand::Optional => "optional".to_owned(),
        }
    }
}

/// `[policy]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// What is done about that of which no policy speaks.
    pub default: PolicyDefault,
}

/// What is done about that of which no policy speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
// Text, as every name in the file is.
#[serde(try_from = "String", into = "String")]
pub enum PolicyDefault {
    /// It is denied.
    #[default]
    Deny,
    /// It is allowed.
    Allow,
    /// It is allowed while there is no policy at all, and denied from the first one on: what `--dev` takes.
    AllowUntilFirst,
}

impl PolicyDefault {
    const ALL: [(Self, &str); 3] =
        [(Self::Deny, "deny"), (Self::Allow, "allow"), (Self::AllowUntilFirst, "allow-until-first")];

    /// As the file spells it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }
}

impl TryFrom<String> for PolicyDefault {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(default, _)| *default).ok_or_else(|| "say `deny`, `allow` or `allow-until-first`".to_owned())
    }
}

impl From<PolicyDefault> for String {
    fn from(default: PolicyDefault) -> Self {
        default.name().to_owned()
    }
}

/// `[admin]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// A file that holds the bearer token; without it only client certificates and tokens of issuers are accepted outside
    /// `--dev`.
    pub token_file: Option<PathBuf>,
    /// The client certificates that may use the admin API. None named = none may: whoever may publish is not yet
    /// trusted with the filters of everybody.
    #[serde(with = "identity_texts")]
    pub identities: Vec<Identity>,
    /// Who else may use it, and for what.
    pub roles: RoleMap,
    /// Whether a rollout begins only once somebody else has approved it.
    pub two_person: bool,
}

impl AdminConfig {
    /// Whether somebody is known by a certificate: then the API speaks TLS on loopback, too.
    pub fn knows_certificates(&self) -> bool {
        know_certificates(&self.identities, &self.roles)
    }
}

/// `[audit]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Room for the audit log in the data directory, in MiB; its oldest entries go beyond.
    pub mebibytes: u64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        // Some 200,000 entries: months of changes, or weeks beside a dashboard.
        Self { mebibytes: 64 }
    }
}

impl AuditConfig {
    /// The same in bytes.
    pub fn bytes(&self) -> u64 {
        self.mebibytes.saturating_mul(1024 * 1024)
    }
}

/// Identities as the texts that they are.
mod identity_texts {
    use myelin_transport::Identity;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(identities: &[Identity], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(identities.iter().map(Identity::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Identity>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| Identity::parse(text).map_err(D::Error::custom)).collect()
    }
}

/// The routers and sites that `[mesh] members` names. A site's number is its place among the sites, that of its first
/// router or where it stands by itself; a router's is its place among the routers.
///
/// # Errors
/// What is wrong with the list.
pub fn members(mesh: &MeshConfig) -> Result<Directory, String> {
    let mut sites: Vec<Site> = Vec::new();
    let mut routers = Vec::new();
    for member in &mesh.members {
        let (site, name) = member.split_once('/').map_or((&**member, None), |(site, name)| (site, Some(name)));
        let known = sites.iter().find(|known| &*known.name == site).map(|known| known.number);
        let number = match known {
            Some(number) => number,
            None => {
                let number = u16::try_from(sites.len()).ok().and_then(SiteNumber::new);
                let number = number.ok_or_else(|| format!("`{member}` would be at one site too many"))?;
                sites.push(Site { number, name: site.into(), region: "".into(), cloud: "".into() });
                number
            }
        };
        let Some(name) = name else { continue };
        let place = u32::try_from(routers.len() + 1).map_err(|_| format!("`{member}` is one router too many"))?;
        routers.push(Router { number: RouterNumber(place), name: name.into(), site: number });
    }
    Directory::new(sites, routers).map_err(|error| error.to_string())
}

impl Config {
    /// What is no fault, and yet cannot do what it is there for: each with a way to mend it.
    pub fn idle(&self) -> Vec<(String, String)> {
        check::idle(self)
    }

    /// How many workers run.
    pub fn workers(&self) -> usize {
        match self.node.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
        .min(usize::from(u8::MAX))
    }

    /// How long a graceful shutdown may take.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.node.drain_seconds)
    }
}
