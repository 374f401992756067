//! The world `easy`: a filter in JavaScript, and its twin in Rust, which must not differ in anything but speed.

use crate::filters::{bind, built};
use crate::routing::{decided, payloads};
use anyhow::{Context, Result, ensure};
use myelin_client::{Event, Outcome, SubscribeOptions};
use myelin_engine::{
    Batch, BindingSetup, BoundFilter, Chain, ChainScratch, EventView, Fate, FaultPolicy, Grant, ModuleLimits, OnFault,
    Program, Runtime, RuntimeConfig, SlotLimits, SlotSetup, TestVector, World, inspect, parse_vectors,
};
use myelin_tests::{Router, Setup};
use serde_json::Value;
use std::rc::Rc;
use std::time::Duration;

/// CPU time for a batch in JavaScript, in microseconds; an interpreter needs some 30 for each event.
const DEADLINE_US: u64 = 50_000;

/// What became of one event, with its parts in a form in which both twins must agree.
#[derive(Debug, PartialEq)]
struct Observed {
    fate: Fate,
    reason: String,
    detail: String,
    fault: Option<String>,
    targets: Vec<String>,
    attrs: Option<Vec<u8>>,
    payload: Option<Value>,
}

/// What came of one run: the events, what was emitted, the counters, and the state for the next version.
#[derive(Debug, PartialEq)]
struct Run {
    events: Vec<Observed>,
    emitted: Vec<(String, Vec<u8>, Value)>,
    counters: Vec<(String, u64)>,
    state: Option<Vec<u8>>,
}

/// A built filter, and the test vectors that it carries.
fn load(runtime: &Runtime, file: &str, world: World) -> Result<(Program, Vec<TestVector>)> {
    let limits = ModuleLimits::default();
    let component = std::fs::read(built(file)?)?;
    let facts = inspect(&component, &limits)?;
    ensure!(facts.world == world, "{file} is of the world {}", facts.world.as_str());
    let program = runtime.load(&runtime.compile_here(&component)?)?;
    let vectors = parse_vectors(&facts.vectors.unwrap_or_default(), &limits).map_err(anyhow::Error::msg)?;
    Ok((program, vectors))
}

/// Runs vectors of one configuration through a fresh instance, in batches of `size`.
async fn run(program: &Program, vectors: &[TestVector], size: usize) -> Result<Run> {
    let config = vectors.first().map_or(&[][..], |vector| &vector.config);
    let limits = SlotLimits { batch_cpu_us_max: DEADLINE_US, ..SlotLimits::default() };
    let slot = program.instantiate(&SlotSetup { limits, config, ..SlotSetup::default() })?;
    let (name, grant, policy) = ("desk".into(), Grant::everything(), FaultPolicy::default());
    let setup = BindingSetup { name, on_fault: OnFault::Reject, grant, policy };
    let filter = Rc::new(BoundFilter::new(setup, Box::new(slot), None)?);
    let chain = Chain::new(vec![filter.clone()]);
    let mut run = Run { events: Vec::new(), emitted: Vec::new(), counters: Vec::new(), state: None };
    for batch in vectors.chunks(size) {
        let views: Vec<_> = batch.iter().map(view).collect();
        let mut scratch = ChainScratch::new();
        let judgement = chain.run(&Batch::new(&views, 1_767_225_600_000_000_000, 0)?, &mut scratch).await;
        for (index, judged) in judgement.events().enumerate() {
            run.events.push(Observed {
                fate: judged.fate,
                reason: judged.reason.to_owned(),
                detail: judged.detail.to_owned(),
                fault: judged.fault.map(ToString::to_string),
                targets: judgement.targets(index).map(ToString::to_string).collect(),
                attrs: judged.attrs.map(<[u8]>::to_vec),
                payload: judged.payload.map(serde_json::from_slice).transpose()?,
            });
        }
        for event in judgement.emitted() {
            let payload = serde_json::from_slice(event.payload)?;
            run.emitted.push((event.topic.to_owned(), event.attrs.to_vec(), payload));
        }
    }
    run.counters = filter.cells().read().counters.into_iter().collect();
    run.state = filter.save();
    Ok(run)
}

fn view(vector: &TestVector) -> EventView<'_> {
    EventView { topic: &vector.topic, attrs: &vector.attrs, payload: &vector.payload, identity: &vector.identity }
}

#[tokio::test]
async fn the_twins_in_rust_and_javascript_agree_on_everything() -> Result<()> {
    let runtime = Runtime::new(&RuntimeConfig { slots: 8, ..RuntimeConfig::default() })?;
    let (rust, vectors) = load(&runtime, "order-desk", World::Fast)?;
    let (javascript, same) = load(&runtime, "order-desk-js", World::Easy)?;
    // Each build numbers the instances that its fixtures ask for in its own way.
    let unnumbered = |vectors: &[TestVector]| -> Vec<TestVector> {
        vectors.iter().map(|vector| TestVector { instance: 0, ..vector.clone() }).collect()
    };
    assert_eq!(unnumbered(&vectors), unnumbered(&same), "both carry the same fixtures");
    assert!(vectors.len() >= 20, "{}", vectors.len());
    let mut fates = std::collections::HashSet::new();
    for part in vectors.chunk_by(|left, right| left.config == right.config) {
        // One by one and all at once: what is kept from event to event is kept either way.
        for size in [1, 64] {
            let (left, right) = (run(&rust, part, size).await?, run(&javascript, part, size).await?);
            assert_eq!(left, right, "batches of {size}");
            assert!(left.events.iter().all(|event| event.fault.is_none()), "{left:?}");
            fates.extend(left.events.iter().map(|event| event.fate));
        }
    }
    assert_eq!(fates.len(), 5, "every fate occurs: {fates:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_in_javascript_is_pushed_bound_and_swapped_like_any_other() -> Result<()> {
    let variables = vec![("MYELIN_WASM__DEADLINE_US".to_owned(), DEADLINE_US.to_string())];
    let router = Router::start_with(Setup { workers: 2, variables })?;
    let file = built("order-desk-js")?;
    // Its name, its version and its self-test are in the component.
    let pushed = router.myelin(&["filter", "push", &file.to_string_lossy()])?.good()?;
    assert!(pushed.out.contains("order-desk-js@1.0.0"), "{}", pushed.out);
    let rust = built("order-desk")?;
    router.myelin(&["filter", "push", &rust.to_string_lossy()])?.good()?;
    for (module, world) in [("order-desk-js@1.0.0", "easy"), ("order-desk@1.0.0", "fast")] {
        let described = router.myelin(&["filter", "describe", module, "-o", "json"])?.json()?;
        assert_eq!(described["world"], world, "{described}");
    }
    let refused = router.myelin(&["bind", "desk", "--module", "order-desk-js@1.0.0", "--pattern", "orders/**"])?;
    assert!(refused.code != Some(0) && refused.err.contains("`tenants`"), "{}", refused.err);
    let config = r#"{"tenants":["acme"],"per_minute":1000}"#;
    let grants = ["--config", config, "--deadline", "50ms", "--grant-topic", "audit/*", "--grant-topic", "desk/*"];
    bind(&router, "desk", "order-desk-js@1.0.0", "orders/**", &grants)?;

    let client = router.client().await?;
    let mut orders = client.subscribe("orders/**", SubscribeOptions::default()).await?;
    let mut refunds = client.subscribe("audit/refunds", SubscribeOptions::default()).await?;
    let mut audited = client.subscribe("audit/orders", SubscribeOptions::default()).await?;
    let order = |payload: &'static str| Event::new("orders/eu", payload).header("x-tenant", "acme");
    let denied = decided(&client, Event::new("orders/eu", "{}")).await?;
    assert!(
        matches!(&denied, Outcome::Refused { code, detail } if code.name() == "denied" && detail.contains("no tenant")),
        "{denied:?}"
    );
    for payload in [r#"{"id":"1","card":"4111111111111111"}"#, r#"{"id":"1"}"#, r#"{"id":"2","refund":true}"#] {
        assert!(matches!(decided(&client, order(payload)).await?, Outcome::Acked), "{payload}");
    }
    let seen = payloads(&mut orders, 2).await?;
    assert!(seen[0].contains("****1111") && seen[1].contains("refund"), "{seen:?}");
    assert!(payloads(&mut refunds, 1).await?[0].contains("\"id\":\"2\""));
    // Its Rust twin takes over, and knows what was there already.
    bind(&router, "desk", "order-desk@1.0.0", "orders/**", &grants)?;
    assert!(matches!(decided(&client, order(r#"{"id":"2"}"#)).await?, Outcome::Acked), "dropped: a duplicate");
    assert!(matches!(decided(&client, order(r#"{"id":"3","cents":100000}"#)).await?, Outcome::Acked));
    let large = tokio::time::timeout(Duration::from_secs(20), audited.next()).await?.context("a copy")?;
    assert_eq!((large.header("x-large"), large.header("x-tenant")), (Some("yes"), None));
    assert_eq!(payloads(&mut orders, 1).await?, [r#"{"id":"3","cents":100000}"#]);
    let ledger = router.settled_ledger()?;
    assert_eq!(ledger["balances"], true, "{ledger}");
    Ok(())
}
