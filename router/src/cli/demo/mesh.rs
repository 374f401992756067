//! The demo with several sites: events across them, a rollout that succeeds under load, a bad filter that is caught at
//! the canary, and the ledger of the whole mesh.

use super::{Binding, Demo, Line, NUMBER, Ready, START_TIMEOUT, histogram, nanos, read_events};
use crate::cli::distance::{Neighbour, SITES as NAMES, neighbours};
use crate::cli::failure::Exit;
use anyhow::{Context, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use myelin_client::{Client, ClientConfig, Event, Overflow, SubscribeOptions, Subscription, Summary, TlsFiles};
use myelin_transport::ca::CertificateAuthority;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The sites and what is wanted there. The first writes the catalog.
const SITES: [(&str, &str); 3] = [(NAMES[0], "orders/**"), (NAMES[1], "telemetry/**"), (NAMES[2], "payments/**")];
/// Where a new filter judges first.
const CANARY: &str = "us1";
/// Events a second that each site publishes.
const RATE: u64 = 1_000;
/// How long there is traffic before and after the rollouts.
const QUIET: Duration = Duration::from_secs(4);
/// How long links, filters and last events may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Events that one run may send; bounds the account that is kept of them.
const EVENTS_MAX: usize = 10_000_000;

/// Three routers of a mesh, their distances, and the folder of it all.
struct Mesh {
    folder: PathBuf,
    routers: Vec<Router>,
}

/// A router process.
struct Router {
    process: Child,
    client_addr: String,
    admin: String,
}

/// What is known of every event that was sent.
struct Account {
    begin: Instant,
    is_over: AtomicBool,
    /// For each event: how often it arrived, the site that sent it, and when it was due, in nanoseconds.
    events: Mutex<Vec<(u8, u8, u64)>>,
    /// By sending and receiving site.
    latency: Mutex<Vec<Histogram<u64>>>,
}

/// Plays the demo; what is wrong at the end, if anything is.
pub(super) async fn play(demo: &Demo) -> anyhow::Result<Option<String>> {
    let events = Arc::new(read_events(&demo.data)?);
    println!("\nthree sites on this machine, with the distances of eu, us and ap between them\n");
    let mesh = Mesh::start().await?;
    mesh.wait_linked().await?;
    mesh.run(&["site", "ls"])?;
    mesh.run(&["mesh"])?;
    println!("\nfilters, pushed at {}: one catalog for all sites, signed by its writer\n", SITES[0].0);
    mesh.deploy(demo)?;

    let account = Arc::new(Account::new()?);
    let mut publishers = Vec::new();
    for (site, (name, wanted)) in SITES.iter().enumerate() {
        let subscriber = mesh.client(site, &format!("reader-{name}"), Overflow::Pause).await?;
        let subscription = subscriber.subscribe(wanted, SubscribeOptions::default()).await.map_err(|e| anyhow!(e))?;
        tokio::spawn(take(subscription, subscriber, account.clone(), site));
    }
    mesh.wait_interest().await?;
    println!(
        "\n{RATE} events/s at each of the three sites; orders are wanted at eu1, telemetry at us1, payments at ap1"
    );
    for (site, (name, ..)) in SITES.iter().enumerate() {
        let client = mesh.client(site, &format!("publisher-{name}"), Overflow::DropOldest).await?;
        publishers.push(tokio::spawn(publish(client, events.clone(), account.clone(), site)));
    }
    let story = tell(&mesh).await;
    account.is_over.store(true, Ordering::Relaxed);
    let mut summaries = Vec::new();
    for publisher in publishers {
        summaries.push(publisher.await.context("a publisher")??);
    }
    story?;
    conclude(&mesh, &account, &summaries).await
}

/// The two rollouts, under load.
async fn tell(mesh: &Mesh) -> anyhow::Result<()> {
    tokio::time::sleep(QUIET).await;
    let start = ["rollout", "start", "--canary", CANARY, "--wave", "50,100", "--observe", "2s", "--events", "200"];
    println!(
        "\na new version of the filter `tenant`, first at the canary {CANARY}, then in waves; every router reports\n"
    );
    stage_tenant(mesh, "2.0.0")?;
    let good = [&start[..], &["--watch", "--note", "audit large orders"]].concat();
    ensure!(mesh.watch(&good)? == 0, "the rollout of tenant@2.0.0 did not complete");

    tokio::time::sleep(QUIET).await;
    println!("\na version with a bug that passes its tests: it traps on an order of 2,000.00 and more\n");
    stage_tenant(mesh, "3.0.0")?;
    let bad = [&start[..], &["--gate", "trap=0.1%", "--watch", "--note", "tiers"]].concat();
    let code = mesh.watch(&bad)?;
    ensure!(code == Exit::GateFailed as i32, "the bad filter was not caught: exit {code}");
    println!("\ncaught at {CANARY}: the other sites never ran it, and {CANARY} has its old set again\n");
    mesh.run(&["rollout", "history"])?;
    tokio::time::sleep(QUIET).await;
    Ok(())
}

/// Stages a version of the example filter; nothing of it judges before a rollout.
fn stage_tenant(mesh: &Mesh, version: &str) -> anyhow::Result<()> {
    let module = format!("tenant@{version}");
    let tenants = r#"{"tenants":["acme","globex","initech","umbrella","hooli"]}"#;
    let mut args = vec!["bind", "tenants", "--module", &module, "--pattern", "orders/**", "--order", "5"];
    // What a new version fails on, the version before judges.
    args.extend(["--config", tenants, "--grant-topic", "audit/**", "--on-fault", "last-good"]);
    args.push("--no-rollout");
    mesh.run(&args)
}

impl Mesh {
    /// Starts the three routers, each behind a relay that keeps its distance.
    async fn start() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("myelin-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let authority = CertificateAuthority::create("demo.example", 2)?;
        authority.save(&folder)?;
        let mut mesh = Self { folder, routers: Vec::new() };
        let neighbours = neighbours(SITES.len()).await?;
        for ((name, ..), neighbour) in SITES.iter().zip(&neighbours) {
            authority
                .issue_router(name, "r1", &["localhost".into(), "127.0.0.1".into()], 2)?
                .save(&mesh.folder, name)?;
            let file = mesh.folder.join(format!("{name}.toml"));
            std::fs::write(&file, mesh.config(name, neighbour))?;
            let router = mesh.spawn(name, &file)?;
            mesh.routers.push(router);
        }
        for (site, (name, ..)) in SITES.iter().enumerate() {
            mesh.wait_ready(site, name)?;
        }
        Ok(mesh)
    }

    fn config(&self, name: &str, neighbour: &Neighbour) -> String {
        let folder = self.folder.display();
        format!(
            "[node]\nsite = \"{name}\"\nname = \"r1\"\ndata_dir = \"{folder}/data-{name}\"\nworkers = 1\n\
             [tls]\ncert = \"{folder}/{name}.pem\"\nkey = \"{folder}/{name}-key.pem\"\nca = \"{folder}/ca.pem\"\n\
             [listen]\nclient = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n{}",
            neighbour.section(SITES.len())
        )
    }

    fn spawn(&self, name: &str, config: &Path) -> anyhow::Result<Router> {
        let log = std::fs::File::create(self.folder.join(format!("{name}.log")))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--dev", "-c"]).arg(config).arg("--ready-file").arg(self.ready_file(name));
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let process = process.with_context(|| format!("starting the router of {name}"))?;
        Ok(Router { process, client_addr: String::new(), admin: String::new() })
    }

    fn ready_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.ready"))
    }

    fn wait_ready(&mut self, site: usize, name: &str) -> anyhow::Result<()> {
        let (file, log) = (self.ready_file(name), self.folder.join(format!("{name}.log")));
        let router = &mut self.routers[site];
        let begin = Instant::now();
        while !file.exists() {
            if router.process.try_wait()?.is_some() || begin.elapsed() > START_TIMEOUT {
                bail!("the router of {name} did not start: {}", std::fs::read_to_string(log)?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let ready: Ready = serde_json::from_slice(&std::fs::read(&file)?)?;
        router.client_addr = ready.client_addr;
        router.admin = format!("http://{}", ready.admin_addr);
        println!("  {name}: clients {}, admin {}", router.client_addr, router.admin);
        Ok(())
    }

    /// A command of `myelin` to the router of the first site.
    fn myelin(&self, args: &[&str]) -> anyhow::Result<Command> {
        self.myelin_at(0, args)
    }

    fn myelin_at(&self, site: usize, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).env("MYELIN_ADMIN", &self.routers[site].admin).stdin(Stdio::null());
        command.env("MYELIN_NODE__DATA_DIR", self.folder.join("none"));
        Ok(command)
    }

    /// Runs a command and shows it with what it says.
    fn run(&self, args: &[&str]) -> anyhow::Result<()> {
        show_command(args);
        let output = tokio::task::block_in_place(|| self.myelin(args)?.output().context("running it"))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`myelin {}`: {}", args.join(" "), err.trim());
        out.lines().filter(|line| !line.trim().is_empty()).for_each(|line| println!("    {}", line.trim_end()));
        Ok(())
    }

    /// Runs a command that goes on for a while, and shows what it says when it says it. Returns its exit code.
    fn watch(&self, args: &[&str]) -> anyhow::Result<i32> {
        show_command(args);
        tokio::task::block_in_place(|| {
            let mut child = self.myelin(args)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            if let Some(out) = child.stdout.take() {
                for line in BufReader::new(out).lines() {
                    println!("    {}", line?);
                }
            }
            let output = child.wait_with_output()?;
            String::from_utf8_lossy(&output.stderr).lines().for_each(|line| println!("    {line}"));
            output.status.code().context("it was killed")
        })
    }

    fn json(&self, site: usize, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let args = [args, &["-o", "json"]].concat();
        let output = self.myelin_at(site, &args)?.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Waits until `seen` holds of what every router says of the mesh.
    async fn wait(&self, what: &str, seen: impl Fn(&serde_json::Value) -> bool) -> anyhow::Result<()> {
        for (site, (name, ..)) in SITES.iter().enumerate() {
            let begin = Instant::now();
            while !seen(&tokio::task::block_in_place(|| self.json(site, &["mesh"]))?) {
                ensure!(begin.elapsed() < PATIENCE, "{name} has no {what}: see {}", self.folder.display());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    async fn wait_linked(&self) -> anyhow::Result<()> {
        self.wait("links to the others", |mesh| mesh["links"].as_array().is_some_and(|links| links.len() == 2)).await
    }

    /// The pattern of each other site, and its router's inboxes.
    async fn wait_interest(&self) -> anyhow::Result<()> {
        self.wait("interest of the others", |mesh| mesh["interest"].as_u64().is_some_and(|known| known >= 4)).await
    }

    /// Pushes the filters, stages their bindings, and makes all of them active at every site at once.
    fn deploy(&self, demo: &Demo) -> anyhow::Result<()> {
        for file in ["schema-json", "content-route", "redact", "tenant", "tenant-2", "tenant-3"] {
            let path = demo.filters.join(format!("{file}.wasm"));
            ensure!(path.is_file(), "{} is missing: `cargo xtask demo` builds the filters", path.display());
            self.run(&["filter", "push", &path.to_string_lossy()])?;
        }
        let folder = demo.data.parent().unwrap_or(Path::new(".")).join("bindings");
        for Binding { name, module, pattern, order, config, grant } in super::read_bindings(&folder)? {
            let order = order.to_string();
            let mut args = vec!["bind", &name, "--module", &module, "--pattern", &pattern, "--no-rollout"];
            args.extend(["--order", &order, "--config", config.get()]);
            grant.topics.iter().for_each(|topic| args.extend(["--grant-topic", topic]));
            self.run(&args)?;
        }
        stage_tenant(self, "1.0.0")?;
        self.run(&["rollout", "start", "--note", "the first filters"])
    }

    async fn client(&self, site: usize, name: &str, overflow: Overflow) -> anyhow::Result<Client> {
        let authority = CertificateAuthority::load(&self.folder)?;
        let (cert, key) = authority.issue_service(name, 2)?.save(&self.folder, name)?;
        let files = TlsFiles { cert, key, ca: self.folder.join("ca.pem") };
        let config = ClientConfig::new(&self.routers[site].client_addr, files).with_server_name("localhost");
        Ok(Client::connect(config.with_name(name).with_overflow(overflow)).await?)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        // The account is closed; what is left is the demo's own processes and folder.
        for router in &mut self.routers {
            let _ = router.process.kill();
            let _ = router.process.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn show_command(args: &[&str]) {
    let words = args.iter().map(|arg| match arg {
        arg if arg.len() > 60 => "{..}".to_owned(),
        arg if arg.contains(' ') => format!("'{arg}'"),
        arg => (*arg).to_owned(),
    });
    println!("  $ myelin {}", words.collect::<Vec<_>>().join(" "));
}

impl Account {
    fn new() -> anyhow::Result<Self> {
        let latency = (0..SITES.len() * SITES.len()).map(|_| histogram()).collect::<Result<_, _>>()?;
        let (is_over, events) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { begin: Instant::now(), is_over, events, latency: Mutex::new(latency) })
    }

    /// Notes an event that is about to be sent; its number.
    fn note(&self, site: usize, due_ns: u64) -> anyhow::Result<usize> {
        let mut events = self.events.lock().map_err(|_| anyhow!("a task of the demo panicked"))?;
        ensure!(events.len() < EVENTS_MAX, "the demo keeps account of {EVENTS_MAX} events at most");
        events.push((0, u8::try_from(site)?, due_ns));
        Ok(events.len() - 1)
    }

    /// How many arrived, each counted once, and how many more than once.
    fn arrived(&self) -> (u64, u64) {
        let Ok(events) = self.events.lock() else { return (0, 0) };
        let arrived = events.iter().filter(|(times, ..)| *times > 0).count();
        let doubled = events.iter().filter(|(times, ..)| *times > 1).count();
        (arrived as u64, doubled as u64)
    }
}

/// An open loop: an event is sent when it is due, whatever became of the ones before.
async fn publish(client: Client, lines: Arc<Vec<Line>>, account: Arc<Account>, site: usize) -> anyhow::Result<Summary> {
    let interval = Duration::from_secs(1) / u32::try_from(RATE)?;
    let start = account.begin.elapsed();
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let mut sent = 0u32;
    // Each site begins elsewhere in the data.
    let mut lines = lines.iter().cycle().skip(site * 500);
    while !account.is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
        while start + interval * sent <= account.begin.elapsed() {
            let Some(line) = lines.next() else { break };
            let number = account.note(site, nanos(start + interval * sent))?;
            let mut event = Event::new(&line.topic, line.payload.get()).key(&line.key).event_type(&line.kind);
            for (name, value) in &line.headers {
                event = event.header(name, value);
            }
            client.send(event.header(NUMBER, &number.to_string())).await?;
            sent += 1;
        }
    }
    let summary = client.flush().await;
    client.close().await;
    Ok(summary)
}

/// Takes what arrives at a site and crosses it off.
async fn take(mut subscription: Subscription, _client: Client, account: Arc<Account>, site: usize) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if subscription.next_batch(&mut batch, 1024).await == 0 {
            return;
        }
        let now_ns = nanos(account.begin.elapsed());
        let (Ok(mut events), Ok(mut latency)) = (account.events.lock(), account.latency.lock()) else { return };
        for event in &batch {
            let number = event.header(NUMBER).and_then(|number| number.parse::<usize>().ok());
            let Some((times, from, due_ns)) = number.and_then(|number| events.get_mut(number)) else { continue };
            *times = times.saturating_add(1);
            let path = usize::from(*from) * SITES.len() + site;
            latency[path].saturating_record(now_ns.saturating_sub(*due_ns) / 1_000);
        }
    }
}

/// Prints the account; what is wrong with it, if anything is.
async fn conclude(mesh: &Mesh, account: &Account, summaries: &[Summary]) -> anyhow::Result<Option<String>> {
    let sum = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
    let expected = sum(|summary| summary.acked);
    let begin = Instant::now();
    let ledger = loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let ledger = tokio::task::block_in_place(|| mesh.json(0, &["ledger", "--mesh"]))?;
        let is_over = ledger["settled"] == true && account.arrived().0 >= expected;
        if is_over || begin.elapsed() > PATIENCE {
            break ledger;
        }
    };
    println!("\nthe ledger of the whole mesh");
    mesh.run(&["ledger", "--mesh"])?;
    let (arrived, doubled) = account.arrived();
    println!("\nthe publishers' and the subscribers' own account");
    println!("  sent       {:>10}", sum(|summary| summary.published));
    println!("  refused    {:>10}   by filters, with a reason", sum(|summary| summary.refused));
    println!("  accepted   {expected:>10}");
    println!("  delivered  {arrived:>10}");
    println!("  lost       {:>10}", expected.saturating_sub(arrived));
    println!("  doubled    {doubled:>10}");
    show_latency(account);
    if expected != arrived || doubled > 0 || sum(|summary| summary.unknown) > 0 {
        return Ok(Some(format!("{} events were lost and {doubled} doubled", expected.abs_diff(arrived))));
    }
    if ledger["balances"] != true {
        return Ok(Some("the ledger of the mesh does not balance".to_owned()));
    }
    println!("\nnothing was lost, nothing was doubled, and the ledgers of all sites and links balance");
    Ok(None)
}

fn show_latency(account: &Account) {
    let Ok(latency) = account.latency.lock() else { return };
    println!(
        "\nfrom when an event was due to its arrival, p50 / p99 in milliseconds (rows publish, columns subscribe)"
    );
    print!("      ");
    SITES.iter().for_each(|(name, ..)| print!("{name:>16}"));
    for (from, (name, ..)) in SITES.iter().enumerate() {
        print!("\n  {name} ");
        for to in 0..SITES.len() {
            let path = &latency[from * SITES.len() + to];
            #[expect(clippy::cast_precision_loss, reason = "at most a minute in microseconds")]
            let at = |quantile| path.value_at_quantile(quantile) as f64 / 1e3;
            print!("{:>16}", format!("{:.1} / {:.1}", at(0.5), at(0.99)));
        }
    }
    println!();
}
