//! `myelin mesh [keys ls|revoke]`

use super::admin::Admin;
use super::connect::block_on;
use super::failure::Result;
use super::http::Body;
use super::listing::{Listing, Shape, items, shown, table, text};
use super::resource::{Show, change};
use clap::{Args, Subcommand};
use hyper::Method;
use myelin_catalog::Name;
use serde_json::Value;

const AFTER_HELP: &str = "\
Examples:
  myelin mesh
  myelin mesh --watch 1
  myelin mesh -o json | jq '.links[] | select(.queued_bytes > 0)'
  myelin mesh keys ls

A link is one QUIC connection to the router of another site. What waits for a neighbour that does not keep up is bounded;
the oldest is shed. docs/MESH.md tells how to set a mesh up.";

/// Show the links to the routers of other sites
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub(super) struct Mesh {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    admin: Admin,
}

/// What else there is of it.
#[derive(Debug, Subcommand)]
enum Part {
    /// The keys that sign the catalog
    #[command(subcommand)]
    Keys(Keys),
}

/// The keys that sign the catalog
#[derive(Debug, Subcommand)]
enum Keys {
    /// Show them, revoked ones too
    #[command(after_help = "Examples:\n  \
        myelin mesh keys ls\n  \
        myelin mesh keys ls -o json")]
    Ls(Show),
    /// Refuse all that a key signs from now on; for good
    #[command(after_help = "Example:\n  myelin mesh keys revoke ohio-r1-3f8a90c1\n\n\
        Ask a router that signs with another key. docs/OPERATIONS.md tells what to do about the router that had it.")]
    Revoke(Revoke),
}

/// Revoke a key
#[derive(Args, Debug)]
struct Revoke {
    /// Its name, as `myelin mesh keys ls` shows it
    #[arg(value_name = "KEY")]
    name: Name,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

impl Keys {
    async fn run(self) -> Result<()> {
        match self {
            Self::Ls(all) => all.run("/v1/mesh/keys", show_keys).await,
            Self::Revoke(Revoke { name, shape, admin }) => {
                let path = format!("/v1/mesh/keys/{name}");
                let revision = admin.api()?.tell(Method::DELETE, &path, Body::None).await?;
                shape.tell(&change("key", name.as_str(), "revoked", revision), |_| {
                    format!("{name} is revoked; what it signed before stays valid\n")
                });
                Ok(())
            }
        }
    }
}

fn show_keys(value: &Value) -> String {
    let rows = items(value, "keys").iter().map(|key| {
        let state = match (&key["revoked_revision"], &key["is_root"]) {
            (Value::Null, Value::Bool(true)) => "root".to_owned(),
            (Value::Null, _) => "trusted".to_owned(),
            (revision, _) => format!("revoked at {}", text(revision)),
        };
        vec![text(&key["name"]), state, text(&key["revision"]), text(&key["public_key"]), shown(&text(&key["note"]))]
    });
    table(&["name", "state", "since", "key", "note"], &["since"], rows)
}

impl Mesh {
    pub(super) fn run(self) -> Result<()> {
        block_on(async {
            if let Some(Part::Keys(keys)) = self.part {
                return keys.run().await;
            }
            let api = self.admin.api()?;
            self.listing.show(|| api.get("/v1/mesh"), show).await
        })
    }
}

/// The links as a table.
pub(super) fn links(mesh: &Value) -> String {
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
    table(&header, &header[4..], rows)
}

fn show(mesh: &Value) -> String {
    let mut shown = links(mesh);
    if mesh["router"] == 0 {
        return shown;
    }
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
    fn keys_are_shown_with_what_became_of_them() {
        let key = |name: &str, is_root: bool, revoked: Value| {
            serde_json::json!({"name": name, "public_key": "ab", "note": "the key of router s1/r1", "is_root": is_root,
                "revision": 1, "revoked_revision": revoked})
        };
        let keys = [key("a", true, Value::Null), key("b", false, Value::Null), key("c", false, 9.into())];
        let shown = show_keys(&serde_json::json!({ "keys": keys }));
        for part in ["root", "trusted", "revoked at 9", "router s1/r1"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }

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
