//! The schema registry of a mesh: registered at one router, read at all, the same everywhere whoever was first.

use anyhow::{Context, Result, ensure};
use apache_avro::types::Value as Avro;
use myelin_tests::Router;
use myelin_tests::admin::Answer;
use myelin_tests::sites::{PATIENCE, Sites};
use schema_registry_converter::async_impl::avro::{AvroDecoder, AvroEncoder};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, is_compatible_schema};
use schema_registry_converter::schema_registry_common::{SchemaType, SubjectNameStrategy, SuppliedSchema};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// A record whose optional fields are these.
fn order(optional: &[&str]) -> Value {
    let optional = optional.iter().map(|name| json!({"name": name, "type": "string", "default": ""}));
    let fields: Vec<Value> = [json!({"name": "id", "type": "string"})].into_iter().chain(optional).collect();
    json!({"schema": json!({"type": "record", "name": "Order", "fields": fields}).to_string(), "schemaType": "AVRO"})
}

fn register(router: &Router, subject: &str, schema: &Value) -> Result<Answer> {
    router.send_json("POST", &format!("/registry/subjects/{subject}/versions"), schema)
}

/// Id and version of a schema that must have been taken.
fn registered(answer: Answer) -> Result<(u64, u64)> {
    ensure!(answer.status == 200, "{answer:?}");
    let made = answer.json();
    Ok((made["id"].as_u64().context("an id")?, made["version"].as_u64().context("a version")?))
}

fn get(router: &Router, path: &str) -> Result<Answer> {
    router.ask("GET", &format!("/registry{path}"), &[], b"")
}

/// Waits until a router answers so.
fn sees(router: &Router, path: &str, wanted: &Value) -> Result<()> {
    let begin = Instant::now();
    loop {
        let found = get(router, path)?;
        if found.status == 200 && found.json() == *wanted {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "{path}: {found:?}\n{}", router.log());
        std::thread::sleep(PAUSE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_registered_at_any_router_and_read_at_all_of_them_with_or_without_the_writer() -> Result<()> {
    let mut sites = Sites::start_with(3, &[(0, 1), (1, 2)], &[]).await?;
    tokio::task::block_in_place(|| {
        // Through a router that does not write the log, and from there to the ends of the mesh.
        let first = order(&[]);
        ensure!(registered(register(&sites.routers[2], "orders-value", &first)?)? == (1, 1));
        for router in &sites.routers {
            sees(router, "/schemas/ids/1", &json!({"schema": first["schema"]}))?;
            sees(router, "/subjects/orders-value/versions", &json!([1]))?;
        }
        let broken = json!({"schema": first["schema"].as_str().context("a text")?.replace("\"id\"", "\"key\"")});
        for router in &sites.routers {
            let refused = register(router, "orders-value", &broken)?;
            ensure!((refused.status, &refused.json()["error_code"]) == (409, &json!(409)), "{refused:?}");
        }

        // Without the writer everything is read, and what is there is registered; nothing new is.
        sites.routers[0].kill()?;
        let alone = &sites.routers[1];
        ensure!(registered(register(alone, "orders-value", &first)?)? == (1, 1));
        let second = order(&["note"]);
        let refused = register(alone, "orders-value", &second)?;
        ensure!((refused.status, &refused.json()["error_code"]) == (500, &json!(50003)), "{refused:?}");
        ensure!(get(alone, "/subjects/orders-value/versions")?.json() == json!([1]), "nothing is half-applied");

        sites.routers[0].restart()?;
        sees(&sites.routers[0], "/subjects/orders-value/versions", &json!([1]))?;
        let begin = Instant::now();
        let made = loop {
            let answer = register(&sites.routers[1], "orders-value", &second)?;
            if answer.status == 200 || begin.elapsed() > PATIENCE {
                break registered(answer)?;
            }
        };
        ensure!(made == (2, 2), "{made:?}");
        for router in &sites.routers {
            sees(router, "/subjects/orders-value/versions", &json!([1, 2]))?;
        }
        // A router that starts again has it all from its own disk and its neighbours.
        sites.routers[2].terminate()?;
        sites.routers[2].restart()?;
        sees(
            &sites.routers[2],
            "/subjects/orders-value/versions/latest/schema",
            &serde_json::from_str(second["schema"].as_str().context("a text")?)?,
        )
    })?;
    sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_routers_that_register_at_the_same_time_agree_on_ids_and_versions() -> Result<()> {
    /// Races; each pair of requests is under way at once.
    const ROUNDS: usize = 8;
    let sites = Sites::start_with(3, &[(0, 1), (0, 2)], &[]).await?;
    let race = |mine: (&str, &Value), theirs: (&str, &Value)| -> Result<[(u64, u64); 2]> {
        std::thread::scope(|scope| {
            let one = scope.spawn(|| registered(register(&sites.routers[1], mine.0, mine.1)?));
            let other = scope.spawn(|| registered(register(&sites.routers[2], theirs.0, theirs.1)?));
            let joined = |race: std::thread::ScopedJoinHandle<'_, _>| race.join().ok().context("a panic")?;
            Ok([joined(one)?, joined(other)?])
        })
    };
    tokio::task::block_in_place(|| {
        let mut fields = Vec::new();
        let mut ids = BTreeSet::new();
        for round in 1..=ROUNDS {
            let name = format!("f{round}");
            fields.push(name.as_str().to_owned());
            let names: Vec<&str> = fields.iter().map(String::as_str).collect();
            // The same schema in one subject: it is there once.
            let same = order(&names);
            let [one, other] = race(("same", &same), ("same", &same))?;
            ensure!(one == other && one.1 == round as u64, "round {round}: {one:?} {other:?}");
            ensure!(ids.insert(one.0), "round {round}: id {} is given twice", one.0);
            // The same schema in two subjects has one id; others in one subject are two versions.
            let [one, other] = race((&format!("a{round}"), &same), (&format!("b{round}"), &same))?;
            ensure!(one.0 == other.0 && ids.contains(&one.0), "round {round}: {one:?} {other:?}");
            let (mine, theirs) = (order(&[&format!("x{round}")]), order(&[&format!("y{round}")]));
            let [one, other] = race(("other", &mine), ("other", &theirs))?;
            ensure!(one.0 != other.0 && ids.insert(one.0) && ids.insert(other.0), "round {round}: {one:?} {other:?}");
            let versions = BTreeSet::from([one.1, other.1]);
            let newest = 2 * round as u64;
            ensure!(versions == BTreeSet::from([newest - 1, newest]), "round {round}: {versions:?}");
        }
        let all: Vec<u64> = (1..=2 * ROUNDS as u64).collect();
        for router in &sites.routers {
            sees(router, "/subjects/other/versions", &json!(all))?;
        }
        Ok(())
    })?;
    sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_not_ours_writes_and_reads_by_it() -> Result<()> {
    let mut router = Router::start()?;
    let settings = SrSettings::new_builder(format!("http://{}/registry", router.admin_addr())).no_proxy().build()?;
    let text = order(&["note"])["schema"].as_str().context("a text")?.to_owned();
    let supplied = SuppliedSchema::new(Some("Order".to_owned()), SchemaType::Avro, text);
    let strategy = SubjectNameStrategy::TopicNameStrategyWithSchema("orders.eu".to_owned(), false, supplied.clone());
    let fields = vec![("id", Avro::String("o-1".to_owned())), ("note", Avro::String("soon".to_owned()))];
    let bytes = AvroEncoder::new(settings.clone()).encode(fields, strategy).await?;
    ensure!(bytes.starts_with(&[0, 0, 0, 0, 1]), "the magic byte and id 1: {bytes:?}");
    ensure!(get(&router, "/subjects")?.json() == json!(["orders.eu-value"]));
    let read = AvroDecoder::new(settings.clone()).decode(Some(&bytes)).await?;
    let Avro::Record(fields) = read.value else { anyhow::bail!("{:?} is no record", read.value) };
    ensure!(fields[0] == ("id".to_owned(), Avro::String("o-1".to_owned())), "{fields:?}");
    ensure!(is_compatible_schema(&settings, "orders.eu-value".to_owned(), supplied).await?);
    router.terminate()?;
    Ok(())
}

#[test]
fn the_command_line_registers_compares_and_deletes() -> Result<()> {
    let mut router = Router::start()?;
    let file = |name: &str, schema: &Value| -> Result<String> {
        let path = router.folder().join(name);
        std::fs::write(&path, schema["schema"].as_str().context("a text")?)?;
        Ok(path.to_str().context("a path")?.to_owned())
    };
    let (first, second) = (file("first.avsc", &order(&[]))?, file("second.avsc", &order(&["note"]))?);
    let broken = file("broken.avsc", &json!({"schema": r#"{"type": "enum", "name": "Order", "symbols": ["A"]}"#}))?;
    let run = |args: &[&str]| router.myelin(args);
    ensure!(run(&["schema", "register", "orders", &first])?.good()?.out.contains("version 1, id 1"));
    let dry = run(&["schema", "register", "orders", &second, "--dry-run"])?.good()?;
    ensure!(dry.out.contains("nothing is registered"), "{}", dry.out);
    let refused = run(&["schema", "check", "orders", &broken])?;
    ensure!(refused.code == Some(7) && refused.err.contains("not compatible"), "{refused:?}");
    ensure!(run(&["schema", "register", "orders", &broken])?.code == Some(7));
    ensure!(run(&["schema", "register", "orders", &second])?.good()?.out.contains("version 2, id 2"));

    let listed = run(&["schema", "ls", "-o", "json"])?.good()?.json()?;
    let found = &listed["subjects"][0];
    ensure!(found["name"] == "orders" && found["versions"] == json!([1, 2]) && found["format"] == "AVRO", "{listed}");
    let shown = run(&["schema", "describe", "orders", "--version", "1"])?.good()?;
    ensure!(shown.out.contains("orders version 1, id 1, AVRO"), "{}", shown.out);
    ensure!(run(&["schema", "describe", "none"])?.code == Some(3));

    let set = run(&["schema", "config", "orders", "--compatibility", "none", "--mode", "readonly"])?.good()?;
    ensure!(set.out.contains("NONE, READONLY"), "{}", set.out);
    ensure!(run(&["schema", "rm", "orders"])?.code == Some(4), "nothing changes in that mode");
    ensure!(run(&["schema", "config", "orders", "--reset"])?.good()?.out.contains("BACKWARD, READWRITE"));
    ensure!(run(&["schema", "config", "orders", "--reset"])?.code == Some(3));
    ensure!(run(&["schema", "rm", "orders", "--version", "1"])?.good()?.out.contains("kept"));
    ensure!(run(&["schema", "rm", "orders"])?.good()?.out.contains(": 2"));
    ensure!(run(&["schema", "rm", "orders", "--permanent"])?.good()?.out.contains("gone for good: 1, 2"));
    ensure!(run(&["schema", "ls", "--deleted"])?.good()?.out.contains("none"));
    router.terminate()?;
    Ok(())
}
