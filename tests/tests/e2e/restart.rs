//! SIGKILL and start again: the catalog is intact.

use crate::filters::{bind, push_built};
use crate::routing::decided;
use anyhow::Result;
use myelin_client::{Event, Outcome};
use myelin_tests::Router;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_router_comes_back_with_its_filters() -> Result<()> {
    let mut router = Router::start()?;
    push_built(&router, "tenant", "tenant", "1.0.0")?;
    bind(
        &router,
        "tenants",
        "tenant@1.0.0",
        "orders/**",
        &["--config", r#"{"tenants":["acme"]}"#, "--grant-topic", "audit/**"],
    )?;
    let before = router.myelin(&["filter", "ls", "-o", "json"])?.json()?;
    for _ in 0..3 {
        router.kill()?;
        router.restart()?;
    }
    assert_eq!(router.myelin(&["filter", "ls", "-o", "json"])?.json()?, before);
    let client = router.client().await?;
    let refused = decided(&client, Event::new("orders/eu", "{}").header("x-tenant", "nobody")).await?;
    assert!(
        matches!(&refused, Outcome::Refused { code, detail } if code.name() == "denied" && detail.contains("unknown tenant")),
        "{refused:?}"
    );
    let acked = decided(&client, Event::new("orders/eu", "{}").header("x-tenant", "acme")).await?;
    assert!(matches!(acked, Outcome::Acked), "{acked:?}");
    Ok(())
}
