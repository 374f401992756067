//! A registry as large as registries get: what it costs to start with it, to hold it, and to read from it.

use anyhow::{Result, ensure};
use myelin_catalog::schemas::Wanted;
use myelin_catalog::{Catalog, Digest, NewSchema, Op, SchemaFormat, SubjectName};
use myelin_store::{CatalogStore, DiskStore};
use myelin_tests::Router;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// Subjects, and versions of each.
const SUBJECTS: usize = 10_000;
const VERSIONS: usize = 5;
/// Reads whose times are looked at.
const READS: usize = 2_000;
/// How long a router may take to start with it, and a read of it at p99, with its connection.
const START_MAX: Duration = Duration::from_secs(5);
const READ_P99_MAX: Duration = Duration::from_millis(5);
/// What a router with such a registry may hold.
const RESIDENT_KIB_MAX: u64 = 500 * 1024;

/// A schema of some 600 bytes, as many of which are alike as schemas are.
fn schema(subject: usize, version: usize) -> NewSchema {
    let field = |number: usize| json!({"name": format!("field_{number}"), "type": ["null", "string"], "default": null});
    let fields: Vec<_> = (0..6 + version).map(field).collect();
    let text =
        json!({"type": "record", "name": format!("Order{subject}"), "namespace": "com.example", "fields": fields});
    let text = text.to_string();
    NewSchema { format: SchemaFormat::Avro, digest: Digest::of(text.as_bytes()), text, references: Vec::new() }
}

/// Writes the log of a registry that grew version by version into the folder of a router that is not running.
fn fill(folder: &Path) -> Result<Catalog> {
    let (mut store, recovered) = DiskStore::open(folder)?;
    let mut catalog = recovered.catalog;
    for version in 0..VERSIONS {
        for number in 0..SUBJECTS {
            let subject: SubjectName = format!("orders-{number}-value").parse()?;
            let Wanted::New(registration) = catalog.schemas().register_next(&subject, schema(number, version)) else {
                anyhow::bail!("{subject} has version {version} already");
            };
            let record = catalog.draft(Op::SchemaRegistered { registration }, "test", 1)?;
            store.append(&record)?;
            catalog.apply(&record)?;
        }
    }
    Ok(catalog)
}

fn read(router: &Router, path: &str) -> Result<Duration> {
    let begin = Instant::now();
    let answer = router.ask("GET", path, &[], b"")?;
    ensure!(answer.status == 200, "{path}: {answer:?}");
    Ok(begin.elapsed())
}

#[test]
#[ignore = "takes minutes: cargo test --workspace --test e2e registry_scale -- --ignored --nocapture"]
fn ten_thousand_subjects_are_started_with_held_and_read() -> Result<()> {
    let mut router = Router::start()?;
    let empty_kib = router.own_memory_kib()?;
    router.terminate()?;
    let filled = Instant::now();
    let catalog = fill(&router.data_dir().join("catalog"))?;
    let (subjects, versions, text_bytes) = catalog.schemas().counts();
    ensure!((subjects, versions) == (SUBJECTS, SUBJECTS * VERSIONS));
    println!("filled in {:?}: {text_bytes} bytes of texts", filled.elapsed());
    drop(catalog);

    let begin = Instant::now();
    router.restart()?;
    let started = begin.elapsed();
    println!("started in {started:?}");
    let own_kib = router.own_memory_kib()?;
    println!("memory: {own_kib} KiB, {empty_kib} KiB without schemas");
    let mut times = Vec::new();
    for number in 0..READS {
        let at = number * 7_919;
        times.push(read(&router, &format!("/registry/subjects/orders-{}-value/versions/latest", at % SUBJECTS))?);
        times.push(read(&router, &format!("/registry/schemas/ids/{}", 1 + at % (SUBJECTS * VERSIONS)))?);
    }
    times.sort_unstable();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1_000];
    println!("one read, with its connection: p50 {:?}, p99 {:?}, most {:?}", at(500), at(990), at(1_000));
    println!(
        "all subjects: {:?}; at a glance: {:?}",
        read(&router, "/registry/subjects")?,
        read(&router, "/v1/schemas")?
    );
    ensure!(own_kib < RESIDENT_KIB_MAX, "{own_kib} KiB");
    ensure!(started <= START_MAX && at(990) <= READ_P99_MAX, "{started:?}, {:?}", at(990));
    router.terminate()?;
    Ok(())
}
