//! Records of the catalog that nobody should take.

use anyhow::{Context, Result, ensure};
use myelin_catalog::{Catalog, Digest, Head, Op, Record, SigningKey};
use myelin_tests::hostile::{HostileRouter, RawLink};
use myelin_tests::relay::Path;
use myelin_tests::sites::{Sites, shapes};

/// The router that is attacked: it follows the log that the first site writes.
const VICTIM: usize = 1;
const VICTIM_NUMBER: u32 = 2;
/// Members that are somebody's. Who gave something wrong is left alone for a while: each attacks once.
const EVIL: [&str; 5] = ["e1", "e2", "e3", "e4", "e5"];

struct Attack {
    sites: Sites,
}

impl Attack {
    /// A link of the next hostile member.
    async fn link(&self, at: usize) -> Result<RawLink> {
        let number = u32::try_from(at + 3)?;
        HostileRouter::new(&self.sites, EVIL[at], number, VICTIM)?.link().await
    }

    fn revision(&self, site: usize) -> Result<u64> {
        let status = self.sites.routers[site].ask("GET", "/v1/status", &[], b"")?.json();
        status["revision"].as_u64().context("a revision")
    }
}

fn note(key: &SigningKey) -> Op {
    Op::KeyTrusted { key_id: key.id().clone(), public_key: key.public_key(), note: String::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_nobody_trusts_are_refused_with_their_code_and_change_nothing() -> Result<()> {
    let further: Vec<String> = EVIL.iter().map(|name| format!("{name}/r1")).collect();
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let sites = Sites::start_among(2, &shapes::line(2), 51, |_| Path::default(), &further, &[]).await?;
    let attack = Attack { sites };
    super::super::eventually("one log", || Ok(attack.revision(VICTIM)? == attack.revision(0)?)).await?;

    // Somebody has the writer's key: what it signs is the log, here a key that is trusted and removed again.
    let mut thief = attack.link(0).await?;
    let old = thief.records_of(VICTIM_NUMBER).await?;
    let records = old.iter().map(|bytes| Record::decode(bytes)).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut catalog = Catalog::from_records(&records)?;
    let (writer, _) = catalog.keys().iter().next().context("the writer's key")?;
    let stolen = SigningKey::from_seed(writer.clone(), &seed(&attack.sites)?)?;
    let removed = SigningKey::from_seed("removed".parse()?, &[7; 32])?;
    let mut page = Vec::new();
    for op in [note(&removed), Op::KeyRevoked { key_id: removed.id().clone() }] {
        let record = catalog.draft_signed(op, "thief", 0, &stolen)?;
        catalog.apply(&record)?;
        page.push(record.encode());
    }
    let head = catalog.head();
    thief.offer_records(VICTIM_NUMBER, head, page).await?;
    super::super::eventually("both keys", || {
        Ok((0..2).map(|site| attack.revision(site)).all(|rev| rev.is_ok_and(|rev| rev == head.rev)))
    })
    .await?;

    // What comes then is signed by the removed key, by one that nobody knows, or by none.
    let unknown = SigningKey::from_seed("unknown".parse()?, &[8; 32])?;
    let next = || Record::after(&head, note(&unknown), "thief", 0);
    let lie = Head { rev: head.rev + 1, hash: Digest::of(b"made up") };
    let records =
        [("revoked-key", next().sign(&removed)), ("unknown-key", next().sign(&unknown)), ("unsigned-record", next())];
    for (at, (code, record)) in (1..).zip(records) {
        let mut link = attack.link(at).await?;
        link.offer_records(VICTIM_NUMBER, lie, vec![record.encode()]).await?;
        super::super::eventually(code, || Ok(attack.sites.mesh(VICTIM)?["alarms"][code].as_u64() >= Some(1))).await?;
        let counted = attack.sites.routers[VICTIM].metric(&format!("myelin_alarms_total{{code=\"{code}\"}}"))?;
        ensure!(counted >= 1, "{code} is not in the metrics");
    }
    // The whole log once more, as if it were new.
    let mut link = attack.link(4).await?;
    link.offer_records(VICTIM_NUMBER, lie, old).await?;
    let is_told = || Ok(attack.sites.routers[VICTIM].log().contains("catalog-stale"));
    super::super::eventually("catalog-stale", is_told).await?;

    for site in 0..2 {
        ensure!(attack.revision(site)? == head.rev, "site {site} has taken something");
    }
    let alarms = attack.sites.mesh(VICTIM)?["alarms"].clone();
    ensure!(alarms["catalog-fork"].is_null(), "whoever may not write can raise no alarm of a fork: {alarms}");
    let refused = attack.sites.routers[VICTIM].log();
    ensure!(!refused.contains("panicked"), "{refused}");
    attack.sites.end()
}

/// The writer's seed, as its file holds it.
pub(super) fn seed(sites: &Sites) -> Result<[u8; 32]> {
    let text = std::fs::read_to_string(sites.routers[0].data_dir().join("catalog.key"))?;
    let byte = |at: usize| Ok(u8::from_str_radix(text.get(at..at + 2).context("64 digits")?, 16)?);
    let bytes = (0..32).map(|at| byte(2 * at)).collect::<Result<Vec<u8>>>()?;
    bytes.try_into().ok().context("32 bytes")
}
