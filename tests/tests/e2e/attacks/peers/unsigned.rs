//! A writer that lets through what nobody has signed: its key is somebody's, and so are its records.

use super::records::seed;
use anyhow::{Context, Result, ensure};
use myelin_catalog::{Catalog, Digest, Head, MinisignSignature, Module, Op, Record, SigningKey};
use myelin_client::{Event, Outcome, Overflow, SubscribeOptions};
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::hostile::{HostileRouter, RawLink};
use myelin_tests::relay::Path;
use myelin_tests::sites::{Sites, shapes};
use serde_json::json;
use tokio::time::timeout;

/// The router that follows.
const VICTIM: usize = 1;
const VICTIM_NUMBER: u32 = 2;
/// Members that are somebody's. Who gave something wrong is left alone for a while: each gives one thing.
const EVIL: [&str; 6] = ["e1", "e2", "e3", "e4", "e5", "e6"];

/// Somebody with the writer's key, and the log as it would go on.
struct Thief {
    sites: Sites,
    key: SigningKey,
    catalog: Catalog,
    /// Links that stay, so that what was said there goes on to hold.
    links: Vec<RawLink>,
}

impl Thief {
    fn path(&self, name: &str) -> String {
        self.sites.folder().join(name).display().to_string()
    }

    /// Runs `myelin` at the writer; words that begin with `@` are files.
    fn good(&self, line: &str) -> Result<String> {
        let words = line.split_whitespace();
        let words: Vec<String> =
            words.map(|word| word.strip_prefix('@').map_or_else(|| word.to_owned(), |name| self.path(name))).collect();
        let ran = self.sites.routers[0].myelin(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(ran.good().with_context(|| line.to_owned())?.out)
    }

    /// The signature of a file's bytes as this module, with this key.
    fn signature(&self, file: &str, module: &str, key: &str) -> Result<MinisignSignature> {
        self.good(&format!("filter sign @{file} --as {module} --key @{key}.key --out @{file}.{key}"))?;
        Ok(std::fs::read_to_string(self.path(&format!("{file}.{key}")))?.parse()?)
    }

    /// A module as the one that lets all events pass, under another version.
    fn module(&self, version: &str, signature: Option<MinisignSignature>) -> Result<Module> {
        let pushed = self.catalog.module(&"gate@1.5.0".parse()?).context("the module that was pushed")?;
        Ok(Module { version: version.parse()?, signature, ..Module::clone(pushed) })
    }

    /// Writes a record down as the writer would.
    fn write(&mut self, op: Op) -> Result<Vec<u8>> {
        let record = self.catalog.draft_signed(op, "thief", 1, &self.key)?;
        self.catalog.apply(&record)?;
        Ok(record.encode())
    }

    /// The records by which a module judges in place of the one that does.
    fn takeover(&mut self, version: &str) -> Result<Vec<Vec<u8>>> {
        let binding = json!({"name": "check", "module": format!("gate@{version}"), "pattern": "orders/**"});
        let staged = self.write(Op::BindingStaged { binding: serde_json::from_value(binding)? })?;
        Ok(vec![staged, self.write(self.catalog.activation())?])
    }

    /// A link of the next member.
    async fn link(&self) -> Result<RawLink> {
        let at = self.links.len();
        HostileRouter::new(&self.sites, EVIL[at], u32::try_from(at + 3)?, VICTIM)?.link().await
    }

    /// Has the victim pull these records, which end with `head`.
    async fn offer(&mut self, head: Head, page: Vec<Vec<u8>>) -> Result<()> {
        let mut link = self.link().await?;
        link.offer_records(VICTIM_NUMBER, head, page).await?;
        self.links.push(link);
        Ok(())
    }

    fn revision(&self, site: usize) -> Result<u64> {
        let status = self.sites.routers[site].ask("GET", "/v1/status", &[], b"")?.json();
        status["revision"].as_u64().context("a revision")
    }

    /// The generation that runs at a site.
    fn generation(&self, site: usize) -> Result<u64> {
        let list = self.sites.routers[site].ask("GET", "/v1/bindings", &[], b"")?.json();
        list["active_generation"].as_u64().context("a generation")
    }

    fn alarms(&self, site: usize, code: &str) -> Result<u64> {
        Ok(self.sites.mesh(site)?["alarms"][code].as_u64().unwrap_or_default())
    }

    /// What of a marked event and one that is not passes at the victim.
    async fn passes(&self) -> Result<Vec<String>> {
        let subscriber = self.sites.client(VICTIM, "reader", Overflow::Pause).await?;
        let mut events = subscriber.subscribe("orders/**", SubscribeOptions::default()).await?;
        let publisher = self.sites.client(VICTIM, "writer", Overflow::Pause).await?;
        for payload in ["D", "last"] {
            let ticket = publisher.publish(Event::new("orders/1", payload)).await?;
            let outcome = timeout(super::PATIENCE, ticket).await?;
            ensure!(payload == "D" || matches!(outcome, Outcome::Acked), "{outcome:?}");
        }
        let mut passed = Vec::new();
        while passed.last().is_none_or(|payload| payload != "last") {
            let event = timeout(super::PATIENCE, events.next()).await?.context("the subscription ended")?;
            passed.push(String::from_utf8(event.payload().to_vec())?);
        }
        Ok(passed)
    }
}

async fn start() -> Result<Thief> {
    let further: Vec<String> = EVIL.iter().map(|name| format!("{name}/r1")).collect();
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let keys = [("MODULES__SIGNATURES", "required")];
    let sites = Sites::start_among(2, &shapes::line(2), 53, |_| Path::default(), &further, &keys).await?;
    let nobody = SigningKey::from_seed("nobody".parse()?, &[9; 32])?;
    let mut thief = Thief { sites, key: nobody, catalog: Catalog::new(), links: Vec::new() };
    // Two modules that the mesh trusts: one drops marked events, one lets all pass.
    for (file, behaviour) in [("strict.wasm", Behaviour::DropMarked), ("lax.wasm", Behaviour::Allow)] {
        std::fs::write(thief.path(file), component(behaviour)?)?;
    }
    for key in ["release", "stranger"] {
        thief.good(&format!("filter keygen @{key} --no-password"))?;
    }
    thief.good("trust change --add-key @release.pub --modules * --apply")?;
    for (file, module) in [("strict.wasm", "gate@1.0.0"), ("lax.wasm", "gate@1.5.0")] {
        thief.good(&format!("filter sign @{file} --as {module} --key @release.key"))?;
        thief.good(&format!("filter push @{file} --as {module}"))?;
    }
    let level = || Ok(thief.revision(VICTIM)? == thief.revision(0)?);
    super::super::eventually("one log", level).await?;
    let mut link = thief.link().await?;
    let log = link.records_of(VICTIM_NUMBER).await?;
    let log = log.iter().map(|bytes| Record::decode(bytes)).collect::<std::result::Result<Vec<_>, _>>()?;
    thief.catalog = Catalog::from_records(&log)?;
    ensure!(thief.catalog.head().rev == thief.revision(0)?, "the whole log in one page");
    let (writer, _) = thief.catalog.keys().iter().next().context("the writer's key")?;
    thief.key = SigningKey::from_seed(writer.clone(), &seed(&thief.sites)?)?;
    // The strict one judges.
    let page = thief.takeover("1.0.0")?;
    let head = thief.catalog.head();
    link.offer_records(VICTIM_NUMBER, head, page).await?;
    thief.links.push(link);
    for site in [VICTIM, 0] {
        super::super::eventually("the strict filter", || Ok(thief.generation(site)? == head.rev)).await?;
    }
    Ok(thief)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_writer_lets_through_unsigned_runs_at_no_router_that_demands_signatures() -> Result<()> {
    let mut thief = start().await?;
    let (generation, revision) = (thief.generation(VICTIM)?, thief.revision(VICTIM)?);
    ensure!(thief.passes().await? == ["last"], "the strict filter judges");

    // Signed by somebody whom the mesh does not trust, for another version, or under another comment: no such record is
    // ever taken, whoever has written it.
    let signed = thief.signature("lax.wasm", "gate@1.5.0", "release")?;
    let recommented = signed.to_string().replace("version=1.5.0", "version=2.0.0").parse()?;
    let stranger = thief.signature("lax.wasm", "gate@2.0.0", "stranger")?;
    let wrong = [
        ("which the mesh does not trust", stranger),
        ("it names gate@1.5.0", signed),
        ("its trusted comment is not what the key has signed", recommented),
    ];
    for (times, (why, signature)) in (1..).zip(wrong) {
        let op = Op::ModuleAdded { module: thief.module("2.0.0", Some(signature))? };
        let record = Record::after(&thief.catalog.head(), op, "thief", 1).sign(&thief.key);
        let head = Head { rev: revision + 1, hash: Digest::of(b"made up") };
        thief.offer(head, vec![record.encode()]).await?;
        super::super::eventually(why, || Ok(thief.alarms(VICTIM, "chain-broken")? == times)).await?;
        ensure!(thief.sites.routers[VICTIM].log().contains(why), "{why}: not told");
        ensure!(thief.revision(VICTIM)? == revision, "{why}: the record was taken");
    }

    // Unsigned, which the catalog's rules permit: it is for each router to demand what it demands. All bytes are here.
    let module = thief.module("2.0.0", None)?;
    let mut page = vec![thief.write(Op::ModuleAdded { module })?];
    page.extend(thief.takeover("2.0.0")?);
    let head = thief.catalog.head();
    thief.offer(head, page).await?;
    for site in [VICTIM, 0] {
        let is_told = || Ok(thief.revision(site)? >= head.rev && thief.alarms(site, "signature-missing")? >= 1);
        super::super::eventually("signature-missing", is_told).await?;
        ensure!(thief.generation(site)? == generation, "site {site} runs what nobody has signed");
    }
    ensure!(thief.passes().await? == ["last"], "the strict filter goes on judging");
    ensure!(thief.alarms(VICTIM, "signature-missing")? == 1, "an alarm for each look at it");

    // The very same with a signature runs: that was all that was wrong.
    let good = thief.signature("lax.wasm", "gate@3.0.0", "release")?;
    let module = thief.module("3.0.0", Some(good))?;
    let mut page = vec![thief.write(Op::ModuleAdded { module })?];
    page.extend(thief.takeover("3.0.0")?);
    let head = thief.catalog.head();
    thief.offer(head, page).await?;
    super::super::eventually("the lax filter", || Ok(thief.generation(VICTIM)? == head.rev)).await?;
    ensure!(thief.passes().await? == ["D", "last"], "the lax filter judges");
    let log = thief.sites.routers[VICTIM].log();
    ensure!(!log.contains("panicked"), "{log}");
    thief.sites.end()
}
