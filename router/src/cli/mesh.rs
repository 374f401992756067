//! `myelin mesh`

use super::admin::Admin;
use super::connect::block_on;
use super::failure::Result;
use super::listing::{Listing, items, table, text};
use clap::Args;
use serde_json::Value;

const AFTER_HELP: &str = "\
Examples:
  myelin mesh
  myelin mesh --watch 1
  myelin mesh -o json | jq '.links[] | select(.queued_bytes > 0)'

A link is one QUIC connection to the router of another site. What waits for a neighbour that does not keep up is bounded;
the oldest is shed. docs/MESH.md tells how to set a mesh up.";

/// Show the links to the routers of other sites
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Mesh {
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    admin: Admin,
}

impl Mesh {
    pub(super) fn run(self) -> Result<()> {
        block_on(async {
            let api = self.admin.api()?;
            self.listing.show(|| api.get("/v1/mesh"), show).await
        })
    }
}

fn show(mesh: &Value) -> String {
    if mesh["router"] == 0 {
        return "this router has no links: [mesh] listen is not set\n".to_owned();
    }
    let header = ["site", "router", "address", "opened", "rtt ms", "queued B", "sent", "received", "shed"];
    let rows = items(mesh, "links").iter().map(|link| {
        let opened = if link["dialled"] == true { "here" } else { "there" };
        #[expect(clippy::cast_precision_loss, reason = "a round trip has few digits")]
        let rtt_ms = link["rtt_us"].as_u64().unwrap_or_default() as f64 / 1_000.0;
        let mut row = vec![text(&link["site"]), text(&link["router"]), text(&link["address"]), opened.to_owned()];
        row.push(format!("{rtt_ms:.1}"));
        row.extend(["queued_bytes", "sent", "received", "shed"].map(|key| text(&link[key])));
        row
    });
    let mut shown = table(&header, &header[4..], rows);
    shown.push_str(&format!(
        "\nrouter {}: {} others reachable, {} patterns wanted elsewhere\n",
        text(&mesh["router"]),
        text(&mesh["reachable"]),
        text(&mesh["interest"])
    ));
    for (what, key) in [("alarm", "alarms"), ("violation", "violations")] {
        for (code, count) in mesh[key].as_object().into_iter().flatten() {
            shown.push_str(&format!("{what} {code}: {count} since the start\n"));
        }
    }
    for (what, key) in [("events that came twice", "duplicates"), ("copies that no path led for", "unreachable")] {
        if mesh[key].as_u64().is_some_and(|count| count > 0) {
            shown.push_str(&format!("{what}: {}\n", text(&mesh[key])));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::{LinkStatus, LinksStatus};

    #[test]
    fn links_and_what_is_wrong_are_shown() {
        let link = LinkStatus {
            site: "ohio".into(),
            router: "r1".into(),
            address: "192.0.2.1:7401".into(),
            dialled: true,
            rtt_us: 81_250,
            queued_bytes: 12,
            sent: 34,
            received: 56,
            shed: 78,
        };
        let alarms = [("identity-in-use".to_owned(), 2)].into();
        let status =
            LinksStatus { router: 1, reachable: 1, interest: 9, links: vec![link], alarms, ..Default::default() };
        let shown = show(&serde_json::to_value(status).expect("JSON"));
        for part in ["ohio", "192.0.2.1:7401", "here", "81.2", "1 others reachable", "9 patterns", "identity-in-use: 2"]
        {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        assert!(!shown.contains("twice"), "{shown}");
        let alone = show(&serde_json::to_value(LinksStatus::default()).expect("JSON"));
        assert!(alone.contains("[mesh] listen is not set"), "{alone}");
    }
}
