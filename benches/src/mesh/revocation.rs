//! A right that is taken away: how long it takes until no router lets anything pass.

use super::{Row, Sheet};
use crate::scenarios::Size;
use anyhow::{Context, Result, ensure};
use myelin_client::{Client, Event, Outcome, Overflow, SubscribeOptions};
use myelin_tests::sites::{PATIENCE, Sites, shapes};
use myelin_wire::Code;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Until what was allowed is refused at every router, open subscriptions included, from the moment of asking for it.
const REVOKED_S_MAX: f64 = 2.0;
const SITES: usize = 3;
/// How often a publisher tries.
const EVERY: Duration = Duration::from_millis(2);

/// Takes rights away at one end of a line of sites, and looks at the other.
pub(super) async fn revocation(size: Size, sheet: &mut Sheet) -> Result<()> {
    let sites = Sites::start_with(SITES, &shapes::line(SITES), &[]).await?;
    let far = SITES - 1;
    let (publisher, subscriber) =
        (sites.client(far, "pub", Overflow::Pause).await?, sites.client(far, "sub", Overflow::Pause).await?);
    let set = |name: &str, text: &str| -> Result<()> {
        let answer = sites.routers[0].send_json("PUT", &format!("/v1/policies/{name}"), &json!({"text": text}))?;
        ensure!(answer.status == 204, "{}", answer.status);
        Ok(())
    };
    set("all", "permit (principal, action, resource);")?;
    let (mut refused_s, mut ended_s) = (0.0_f64, 0.0_f64);
    for _ in 0..size.of(50) {
        until(&publisher, |outcome| matches!(outcome, Outcome::Acked)).await?;
        let mut events = subscriber.subscribe("orders/**", SubscribeOptions::default()).await?;
        let ending = tokio::spawn(async move {
            while events.next().await.is_some() {}
            Instant::now()
        });
        let begin = Instant::now();
        set("closed", "forbid (principal, action, resource) when { resource.name like \"orders/*\" };")?;
        until(&publisher, |outcome| matches!(outcome, Outcome::Refused { code: Code::Forbidden, .. })).await?;
        refused_s = refused_s.max(begin.elapsed().as_secs_f64());
        let ended = timeout(PATIENCE, ending).await.context("the subscription went on")??;
        ended_s = ended_s.max(ended.duration_since(begin).as_secs_f64());
        let gone = sites.routers[0].ask("DELETE", "/v1/policies/closed", &[], b"")?;
        ensure!(gone.status == 204, "{}", gone.status);
    }
    sites.end()?;
    sheet.add(Row::at_most("revocation: events refused, two sites away", refused_s, REVOKED_S_MAX, "s"))?;
    sheet.add(Row::at_most("revocation: open subscription ended there", ended_s, REVOKED_S_MAX, "s"))
}

/// Publishes until an event is decided so.
async fn until(client: &Client, wanted: impl Fn(&Outcome) -> bool) -> Result<()> {
    let found = timeout(PATIENCE, async {
        loop {
            if wanted(&client.publish(Event::new("orders/1", b"x")).await?.await) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(EVERY).await;
        }
    });
    found.await.context("it never came to that")?
}
