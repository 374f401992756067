//! Hostile filters beside a healthy one: the router lives, each binding gets its declared verdict, others do not notice.

use crate::filters::bind;
use crate::routing::{decided, payloads};
use anyhow::{Context, Result};
use myelin_client::{Event, Outcome, SubscribeOptions};
use myelin_tests::Router;
use myelin_tests::guests::{Behaviour, component};

fn push(router: &Router, name: &str, behaviour: Behaviour) -> Result<()> {
    let path = router.folder().join(format!("{name}.wasm"));
    std::fs::write(&path, component(behaviour)?)?;
    // Pushing runs the self-test on made-up events: a filter that fails it is refused there and then.
    router.myelin(&["filter", "push", &path.to_string_lossy(), "--as", &format!("{name}@1.0.0")])?.good()?;
    Ok(())
}

#[test]
fn a_filter_that_faults_on_anything_is_refused_at_upload() -> Result<()> {
    use Behaviour as B;
    let router = Router::start()?;
    for behaviour in [B::Trap, B::Loop, B::Recurse, B::Grow, B::SurplusVerdict, B::UnknownKind, B::DanglingOutput] {
        let path = router.folder().join("hostile.wasm");
        std::fs::write(&path, component(behaviour)?)?;
        let ran = router.myelin(&["filter", "push", &path.to_string_lossy(), "--as", "hostile@1.0.0"])?;
        assert_eq!(ran.code, Some(7), "{behaviour:?}: {}", ran.err);
        assert!(ran.err.contains("self-test"), "{behaviour:?}: {}", ran.err);
    }
    assert_eq!(router.ledger()?["balances"], true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_takes_no_neighbour_with_it() -> Result<()> {
    let router = Router::start()?;
    push(&router, "brittle", Behaviour::TrapOnPoison)?;
    bind(&router, "brittle", "brittle@1.0.0", "in/**", &["--on-fault", "dead-letter"])?;
    let client = router.client().await?;
    let mut events = client.subscribe("in/**", SubscribeOptions::default()).await?;
    let mut dead = client.subscribe("$dead/brittle/**", SubscribeOptions::default()).await?;
    for n in 0..63 {
        let payload = if n == 20 { "Poison".to_owned() } else { n.to_string() };
        client.send(Event::new("in/a", &payload)).await?;
    }
    let summary = client.flush().await;
    assert_eq!(summary.acked, 62, "{summary:?}");
    let expected: Vec<String> = (0..63).filter(|n| *n != 20).map(|n| n.to_string()).collect();
    assert_eq!(payloads(&mut events, 62).await?, expected);
    let letter = dead.next().await.context("a dead letter")?;
    assert_eq!(letter.payload(), b"Poison");
    assert!(letter.header("myelin-reason").is_some_and(|reason| reason.starts_with("trap")), "{letter:?}");
    let described = router.myelin(&["filter", "describe", "brittle@1.0.0"])?.good()?;
    assert!(described.out.contains("trap"), "{}", described.out);
    assert_eq!(router.settled_ledger()?["balances"], true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_filter_is_quarantined_and_hurts_only_its_own_binding() -> Result<()> {
    let router = Router::start()?;
    push(&router, "healthy", Behaviour::Allow)?;
    push(&router, "brittle", Behaviour::TrapOnPoison)?;
    bind(&router, "healthy", "healthy@1.0.0", "good/**", &[])?;
    bind(&router, "rejecting", "brittle@1.0.0", "bad/reject/**", &["--on-fault", "reject"])?;
    let (good, bad) = (router.client().await?, router.client().await?);
    let mut events = good.subscribe("good/**", SubscribeOptions::default()).await?;
    let before = router.own_memory_kib()?;
    for n in 0..200 {
        let refused = decided(&bad, Event::new("bad/reject/a", "Poison")).await?;
        assert!(matches!(&refused, Outcome::Refused { code, .. } if code.name() == "filter-fault"), "{refused:?}");
        assert!(matches!(decided(&good, Event::new("good/a", &n.to_string())).await?, Outcome::Acked));
    }
    assert_eq!(payloads(&mut events, 200).await?.len(), 200);
    assert!(router.own_memory_kib()? < before + 64 * 1024, "memory is bounded");
    let quarantined = decided(&bad, Event::new("bad/reject/a", "even a good one")).await?;
    assert!(
        matches!(&quarantined, Outcome::Refused { detail, .. } if detail.contains("quarantined")),
        "{quarantined:?}"
    );
    let described = router.myelin(&["filter", "describe", "brittle@1.0.0"])?.good()?;
    assert!(described.out.contains("quarantined"), "{}", described.out);
    assert_eq!(router.settled_ledger()?["balances"], true);
    Ok(())
}
