//! A whole router: what `myelin serve` runs, and what tests and embedders start.

use crate::audit::{Audit, Kind, Note};
use crate::capture::Captures;
use crate::config::{Config, Engine, NodeConfig, WasmConfig, members};
use crate::files::{make_private_folder, sweep};
use crate::ledger::Counts;
use crate::links::{BoundLinks, LinksStatus};
use crate::otlp::{self, Exporter};
use crate::peering::Peering;
use crate::policy::{Denials, Rules};
use crate::residency::HeldBack;
use crate::shared::{Identities, MAILBOX_PARCELS, Outward, Parcel, Phase, Refusals, Shared, TableCommand};
use crate::subscriptions::{CHANGES_WAITING_MAX, write_table};
use crate::tokens::Tokens;
use crate::worker::{Ledgers, Order, Worker};
use crate::world::members::Member;
use crate::world::{self, Account, MeshSetup, World, WorldSetup, keys};
use anyhow::Context;
use arc_swap::ArcSwap;
use myelin_catalog::limits::NAME_LEN_MAX;
use myelin_catalog::{Catalog, Name};
use myelin_core::{Table, TableWriter};
use myelin_engine::{CodeCache, CompilerConfig, CompilerLimits, ModuleLimits, Runtime, RuntimeConfig, SlotLimits};
use myelin_mesh::{Directory, Site, SiteNumber};
use myelin_store::{DiskStore, Recovered};
use myelin_transport::{BoundListener, Listener, ListenerConfig, ListenerStats, ResetKey, TlsIdentity};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// The key that signs what this router writes into the catalog, in the data directory.
const CATALOG_KEY_FILE: &str = "catalog.key";
/// The key of stateless resets, in the data directory.
const RESET_KEY_FILE: &str = "reset.key";
/// How long clients with nothing in flight have to read GOAWAY and to move on by themselves.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How often a draining router looks whether its publishers are gone.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// How often it is looked whether all threads are there.
const WATCH: Duration = Duration::from_secs(1);

/// The hidden subcommand that compiles a module in a child process. Its arguments are the limits: address space in
/// bytes, CPU time in seconds, module size in bytes.
pub const COMPILE_COMMAND: &str = "compile-module";

/// A running router.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    addr: SocketAddr,
    mesh_addr: Option<SocketAddr>,
    mesh_status: Arc<ArcSwap<LinksStatus>>,
    listeners: Vec<Arc<ListenerStats>>,
    drain: Duration,
    world: World,
    exporter: Option<Exporter>,
    audit: Audit,
}

/// What leads from one thread of a router to another.
struct Plumbing {
    /// The router's number in the mesh.
    origin: u32,
    table: Arc<ArcSwap<Table>>,
    table_writer: mpsc::Sender<TableCommand>,
    outward: Option<Outward>,
    alone: Directory,
    mailboxes: Vec<mpsc::Sender<Parcel>>,
}

impl Plumbing {
    /// What the workers share, before the first event.
    fn shared(self, config: &Config, epoch: u32, tokens: Option<Arc<Tokens>>, audit: Audit) -> Shared {
        Shared {
            site: config.node.site.clone(),
            router: config.node.name.clone(),
            origin: self.origin,
            epoch,
            limits: config.limits,
            outbox: config.outbox.into(),
            sessions_max: config.node.sessions_per_worker,
            table: self.table,
            table_writer: self.table_writer,
            outward: self.outward,
            residency: Arc::default(),
            alone: self.alone,
            mailboxes: self.mailboxes.into(),
            gauges: RwLock::default(),
            services: RwLock::default(),
            identities: Arc::new(Identities::new(
                config.node.sessions_per_identity,
                config.node.subscriptions_per_identity,
            )),
            tokens,
            rules: Arc::new(ArcSwap::from_pointee(Rules::new(config.policy.default, &config.node.site))),
            rules_version: watch::Sender::new(0),
            denials: Denials::new(audit),
            phase: watch::Sender::new(Phase::Serving),
            publishers: Default::default(),
            held_back: HeldBack::default(),
            screens: Arc::default(),
            registry: Arc::default(),
            sessions: Default::default(),
            started: Instant::now(),
            refusals: Refusals::default(),
            captures: Captures::default(),
        }
    }
}

impl Node {
    /// Starts a router. Needs a tokio runtime for its control plane; the workers bring their own.
    ///
    /// # Errors
    /// When an address cannot be bound or a worker does not start.
    pub async fn start(config: &Config, tls: &TlsIdentity, epoch: u32) -> anyhow::Result<Self> {
        let count = config.workers();
        let collector = otlp::Target::load(&config.telemetry)?;
        // The key of the start before: clients of a router that was killed learn at once that their sessions are gone.
        let data_dir = &config.node.data_dir;
        make_private_folder(data_dir).with_context(|| format!("the data directory {}", data_dir.display()))?;
        let audit = Audit::open(data_dir, config.audit.bytes()).context("the audit log")?;
        let reset_key = Some(ResetKey::load_or_create(&data_dir.join(RESET_KEY_FILE))?);
        let tokens = Tokens::start(&config.jwt, data_dir)?;
        let (addr, certificate_optional) = (config.listen.client, tokens.is_some());
        let listener = ListenerConfig { addr, reset_key, certificate_optional, ..ListenerConfig::default() };
        let listeners = Listener::bind_group(listener, tls, count)
            .with_context(|| format!("the client listener on {} ([listen] client)", config.listen.client))?;
        let addr = listeners.first().map_or(config.listen.client, BoundListener::local_addr);
        let stats = listeners.iter().map(BoundListener::stats).collect();

        let (mailboxes, mail): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(MAILBOX_PARCELS)).unzip();
        let (table_writer, changes) = mpsc::channel(CHANGES_WAITING_MAX);
        let writer = TableWriter::default();
        let table = Arc::new(ArcSwap::from_pointee(writer.snapshot()));
        let names = (&*config.node.site, &*config.node.name);
        let catalog = data_dir.join("catalog");
        let (store, recovered) = tokio::task::spawn_blocking(move || DiskStore::open(&catalog)).await??;
        // The catalog is locked now: no other router has this directory.
        sweep_left(data_dir);
        let directory = directory(config, &recovered.catalog)?;
        let bound = BoundLinks::bind(&config.mesh, directory.clone(), names, epoch, tls)?;
        let (links, outward, peering) = match bound {
            Some((links, outward, peering)) => (Some(links), Some(outward), Some(peering)),
            None => (None, None, None),
        };
        let mesh = peering.map(|peering| mesh_setup(config, peering, &directory, &recovered.catalog)).transpose()?;
        let interest = outward.as_ref().map(|outward| outward.interest.clone());
        tokio::spawn(write_table(table.clone(), writer, changes, interest));

        let origin = links.as_ref().map_or(1, |links| links.number().0);
        let plumbing = Plumbing { origin, table, table_writer, outward, alone: alone(config)?, mailboxes };
        let shared = Arc::new(plumbing.shared(config, epoch, tokens, audit.clone()));
        let mut workers = Vec::new();
        for ((id, listener), mailbox) in (0..).zip(listeners).zip(mail) {
            workers.push(Worker::start(id, shared.clone(), listener, mailbox).context("starting a worker thread")?);
        }
        let mesh_addr = links.as_ref().map(BoundLinks::local_addr);
        let mesh_status = links.as_ref().map(BoundLinks::status).unwrap_or_default();
        if let Some(links) = links {
            let id = u8::try_from(count).context("one worker too many")?;
            workers.push(links.start(id, shared.clone()).context("starting the links' thread")?);
        }
        let links_orders = mesh_addr.and(workers.last()).map(|links| links.orders.clone());
        let account = Account {
            site: config.node.site.clone(),
            router: config.node.name.clone(),
            epoch,
            ledgers: Ledgers::new(workers.iter().map(|worker| worker.orders.clone()).collect()),
            links: links_orders,
            shared: shared.clone(),
            audit: audit.clone(),
        };
        let world = Box::pin(open_world(config, account, (store, recovered), mesh)).await?;
        let exporter = collector.map(|collector| export(config, collector, &workers));
        let (listeners, drain) = (stats, config.drain());
        Ok(Self { shared, workers, addr, mesh_addr, mesh_status, listeners, drain, world, exporter, audit })
    }

    /// Where clients connect, with the real port.
    pub fn client_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where other routers connect, with the real port; `None` where this router has no links.
    pub fn mesh_addr(&self) -> Option<SocketAddr> {
        self.mesh_addr
    }

    /// The mesh as this router sees it.
    pub fn mesh_status(&self) -> &Arc<ArcSwap<LinksStatus>> {
        &self.mesh_status
    }

    /// What the workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Counters of the listeners, one for each worker.
    pub fn listeners(&self) -> &[Arc<ListenerStats>] {
        &self.listeners
    }

    /// What is deployed, and how to change it.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// What became of the records of traces that are exported; `None` where none are.
    pub fn exports(&self) -> Option<Arc<otlp::Figures>> {
        self.exporter.as_ref().map(|exporter| exporter.figures().clone())
    }

    /// Reads the ledger.
    pub fn ledgers(&self) -> Ledgers {
        Ledgers::new(self.workers.iter().map(|worker| worker.orders.clone()).collect())
    }

    /// Waits until a thread that the router cannot be without has ended by itself, and says which: a defect. What is left
    /// would look well and do half of its work.
    pub async fn broken(&self) -> &'static str {
        loop {
            if self.world.has_ended() {
                return "the thread that keeps the catalog";
            }
            if self.workers.iter().any(|worker| worker.orders.is_closed()) {
                return "a worker";
            }
            tokio::time::sleep(WATCH).await;
        }
    }

    /// Makes every worker's ledger forget to count `term`, to show that the balance notices.
    #[cfg(feature = "sabotage")]
    pub async fn sabotage(&self, term: Option<crate::ledger::Term>) {
        for worker in &self.workers {
            let _ = worker.orders.send(Order::Sabotage(term)).await;
        }
    }

    /// Reads the ledger once nothing is on its way any more, to other sites either; at `until` in any case.
    async fn settle(&self, until: Instant) -> BTreeMap<u64, Counts> {
        loop {
            let ledger = self.ledgers().read().await;
            let has_links = self.mesh_addr.is_some();
            if !has_links || ledger.values().all(Counts::is_settled) || Instant::now() >= until {
                return ledger;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Shuts down gracefully: no new sessions, clients are told to move on, publishers finish, queues are flushed.
    /// Returns the ledger as it stands at the end.
    pub async fn drain(self) -> BTreeMap<u64, Counts> {
        let until = Instant::now() + self.drain;
        for worker in &self.workers {
            let _ = worker.orders.send(Order::StopAccepting).await;
        }
        self.shared.phase.send_replace(Phase::Draining(until));
        let wait_for = async |counter: &std::sync::atomic::AtomicUsize, until: Instant| {
            while counter.load(Ordering::Relaxed) > 0 && Instant::now() < until {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        wait_for(&self.shared.sessions, until.min(Instant::now() + DRAIN_GRACE)).await;
        wait_for(&self.shared.publishers, until).await;
        self.shared.phase.send_replace(Phase::Flushing(until));
        wait_for(&self.shared.sessions, until + Duration::from_secs(5)).await;
        let ledger = self.settle(until).await;
        if let Some(exporter) = self.exporter {
            exporter.finish().await;
        }
        for worker in &self.workers {
            let _ = worker.orders.send(Order::Stop).await;
        }
        self.world.stop().await;
        self.audit.write(Note::new(Kind::Router, "-", "stop", "ok")).await;
        let workers = self.workers;
        // Joining blocks; the control plane's runtime goes on meanwhile.
        let _ = tokio::task::spawn_blocking(move || workers.into_iter().for_each(Worker::join)).await;
        ledger
    }
}

/// Removes what an earlier run of this router has left where it was killed in the middle of a write.
fn sweep_left(data_dir: &Path) {
    match sweep(data_dir) {
        Ok(0) => {}
        Ok(files) => tracing::info!(files, "half-written files of a run that was killed are removed"),
        Err(error) => tracing::warn!(%error, "half-written files in the data directory stay there"),
    }
}

/// Begins to export what the workers record of sampled events.
fn export(config: &Config, collector: otlp::Target, workers: &[Worker]) -> Exporter {
    let NodeConfig { site, name, region, cloud, .. } = config.node.clone();
    let place = otlp::Place { site, router: name, region, cloud };
    Exporter::start(collector, &place, workers.iter().map(|worker| worker.orders.clone()).collect())
}

/// The routers of the mesh: as the catalog says where it names this one, else as the configuration does.
fn directory(config: &Config, catalog: &Catalog) -> anyhow::Result<Arc<Directory>> {
    let own = config.node.site.parse().ok().zip(config.node.name.parse().ok());
    let named = named(config)?;
    let is_named = own.is_some_and(|(site, name)| catalog.fleet().router(&site, &name).is_some());
    let read = match is_named {
        true => world::members::read(catalog.fleet(), &named)
            .map_err(|error| anyhow::anyhow!("the catalog's routers: {error}")),
        false => members(&config.mesh).map_err(|error| anyhow::anyhow!("[mesh] members: {error}")),
    };
    Ok(Arc::new(read?))
}

/// The own site, as the configuration has it, and no other.
fn alone(config: &Config) -> anyhow::Result<Directory> {
    let text = |text: &str| Arc::from(text);
    let (name, region, cloud) = (text(&config.node.site), text(&config.node.region), text(&config.node.cloud));
    let number = SiteNumber::try_from(0).map_err(anyhow::Error::msg)?;
    Directory::new([Site { number, name, region, cloud }], []).map_err(anyhow::Error::msg)
}

/// The site and the router that `SITE/ROUTER` names.
fn split(router: &str) -> anyhow::Result<(Name, Name)> {
    let (site, router) = router.split_once('/').context("a router is SITE/ROUTER")?;
    Ok((site.parse()?, router.parse()?))
}

/// The members that the configuration names.
fn named(config: &Config) -> anyhow::Result<Vec<Member>> {
    let members = config.mesh.members.iter().map(|member| match member.contains('/') {
        true => split(member).map(|(site, router)| (site, Some(router))),
        false => Ok((member.parse()?, None)),
    });
    members.collect()
}

/// What the world needs of the mesh.
fn mesh_setup(
    config: &Config,
    peering: Peering,
    directory: &Directory,
    catalog: &Catalog,
) -> anyhow::Result<MeshSetup> {
    let key_file = config.node.data_dir.join(CATALOG_KEY_FILE);
    let (writer, key, shared) = match config.catalog.engine {
        Engine::Disk => {
            let first = config.mesh.members.iter().find(|member| member.contains('/'));
            let title = config.catalog.writer.as_ref().or(first);
            let title = title.context("[catalog] writer names nobody, and [mesh] members has no router")?.clone();
            let (site, router) = split(&title)?;
            let number = directory.by_name(site.as_str(), router.as_str());
            let number = number.with_context(|| format!("[catalog] writer: `{title}` does not belong to the mesh"))?.0;
            let is_here = number == peering.number;
            let key = is_here.then(|| keys::load_or_create(&key_file, key_id(&site, &router)?)).transpose()?;
            ((number, title), key, None)
        }
        Engine::Jetstream => {
            let (site, router) = (config.node.site.parse()?, config.node.name.parse()?);
            let key = keys::load_or_create_own(&key_file, (&site, &router), catalog)?;
            ((peering.number, format!("{site}/{router}")), Some(key), Some(config.jetstream.clone()))
        }
    };
    Ok(MeshSetup {
        peering,
        router: config.node.name.parse()?,
        members: named(config)?,
        writer,
        shared,
        root: config.catalog.root_key,
        key,
        join_wait: Duration::from_secs(config.catalog.join_seconds),
        has_seeds: !config.mesh.seeds.is_empty(),
    })
}

/// What a writer's key is called in the catalog.
fn key_id(site: &Name, router: &Name) -> anyhow::Result<Name> {
    let mut id = format!("{site}-{router}");
    id.truncate(NAME_LEN_MAX);
    Ok(id.trim_end_matches('-').parse()?)
}

/// Makes the catalog's active generation judge on every worker.
async fn open_world(
    config: &Config,
    account: Account,
    (store, recovered): (DiskStore, Recovered),
    mesh: Option<MeshSetup>,
) -> anyhow::Result<World> {
    let (node, wasm) = (&config.node, &config.wasm);
    // Others in the mesh have what is missing here.
    if let Some(module) = recovered.missing.first().filter(|_| mesh.is_none()) {
        anyhow::bail!(
            "the bytes of module {module} are missing in the catalog: restore {} from a backup",
            node.data_dir.display()
        );
    }
    let engine =
        RuntimeConfig { slots: wasm.instances, memory_bytes_max: wasm.memory_bytes, ..RuntimeConfig::default() };
    let runtime = Runtime::new(&engine).context("the Wasm engine")?;
    runtime.serve_schemas(account.shared.registry.clone());
    let setup = WorldSetup {
        store,
        recovered,
        data_dir: node.data_dir.clone(),
        site: node.site.parse().ok(),
        demands: config.modules.demands(),
        two_person: config.admin.two_person,
        runtime,
        cache: CodeCache::open(&node.data_dir.join("code")).context("the cache of compiled filters")?,
        compiler: compiler(wasm)?,
        modules: ModuleLimits { bytes_max: wasm.module_bytes, ..ModuleLimits::default() },
        slots: SlotLimits {
            memory_bytes_max: wasm.memory_bytes,
            batch_cpu_us_max: wasm.deadline_us,
            ..SlotLimits::default()
        },
        workers: account.ledgers.workers().to_vec(),
        account,
        mesh,
    };
    setup.start().await.context("starting the filters of the active generation")
}

/// Which program compiles filters, and within which limits: this one, by its hidden subcommand.
///
/// # Errors
/// When the running program cannot be found.
pub(crate) fn compiler(wasm: &WasmConfig) -> anyhow::Result<CompilerConfig> {
    let program = match &wasm.compiler {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("finding the router's own program, which compiles filters")?,
    };
    let limits = CompilerLimits {
        address_space_bytes: wasm.compile_address_space_bytes,
        cpu_seconds: wasm.compile_cpu_seconds,
        module_bytes_max: wasm.module_bytes,
    };
    let args = vec![
        COMPILE_COMMAND.to_owned(),
        limits.address_space_bytes.to_string(),
        limits.cpu_seconds.to_string(),
        limits.module_bytes_max.to_string(),
    ];
    Ok(CompilerConfig { program, args, limits, wall: Duration::from_secs(wasm.compile_cpu_seconds * 2) })
}
