//! `myelin bench` against a running router: every event is there once, and the report says so.

use anyhow::{Context, Result};
use myelin_tests::Router;

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_delivers_every_event_and_writes_its_report() -> Result<()> {
    let router = Router::start()?;
    let folder = router.folder().join("report");
    let report = folder.to_str().context("a path that is text")?;
    let load = ["--rate", "500", "--seconds", "1s", "--warm-up", "100ms", "--scenario", "128:1-1,1024:2-2"];
    let ran = router.myelin(&[&["bench", "--json", "--report", report], &load[..]].concat())?.json()?;
    let scenarios = ran.as_array().context("a list of scenarios")?;
    assert_eq!(scenarios.len(), 2);
    for scenario in scenarios {
        for wrong in ["lost", "doubled", "refused"] {
            assert_eq!(scenario[wrong], 0, "{scenario}");
        }
        let delivered = scenario["delivered"].as_u64().context("delivered")?;
        assert!(delivered > 0, "{scenario}");
        assert!(scenario["latency_us"]["events"].as_u64().is_some_and(|events| events > 0), "{scenario}");
    }
    for file in ["report.json", "report.html", "128b-1-1.hgrm", "1024b-2-2.hgrm"] {
        assert!(folder.join(file).exists(), "{file}");
    }
    // What the bench counted is what the router counted: two publishers' events to two subscribers each.
    let total = &router.settled_ledger()?["total"];
    assert_eq!((&total["rejected"], &total["shed"]), (&0.into(), &0.into()), "{total}");
    assert!(total["delivered"].as_u64() > total["accepted"].as_u64(), "{total}");
    let nobody = router.myelin(&["bench", "--addr", "127.0.0.1:1", "--seconds", "1s"])?;
    assert_eq!(nobody.code, Some(3), "{}", nobody.err);
    Ok(())
}
