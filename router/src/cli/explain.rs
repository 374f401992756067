//! `myelin explain`

use super::admin::Admin;
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::http::query;
use super::listing::{Listing, items, table, text};
use clap::Args;
use myelin_transport::Identity;
use myelin_wire::validate_topic;
use serde_json::Value;

const AFTER_HELP: &str = "\
Examples:
  myelin explain orders/eu --as spiffe://corp/service/shop
  myelin explain orders/eu --as spiffe://corp/service/shop --at ohio
  myelin explain orders/eu --as spiffe://corp/service/shop -o json | jq '.destinations'

Nothing is sent. Each router on the way says itself what it would do: which bindings it runs, by its own generation, how
many subscribers it has, and to whom it hands a copy. What a filter decides depends on the event; to see that, send one
with `myelin pub --trace`. docs/TRACING.md explains the output.";

/// Digits of a digest that are shown: enough to tell modules apart.
const DIGEST_SHOWN: usize = 12;

/// Say what would become of an event
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Explain {
    /// The event's topic, such as orders/eu
    topic: String,
    /// Who publishes it, as its certificate says
    #[arg(long = "as", value_name = "IDENTITY")]
    identity: String,
    /// Where it is published: a site, or SITE/ROUTER; the asked router where none is given
    #[arg(long, value_name = "SITE[/ROUTER]")]
    at: Option<String>,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    admin: Admin,
}

impl Explain {
    pub(super) fn run(self) -> Result<()> {
        let path = self.path()?;
        block_on(async {
            let api = self.admin.api()?;
            self.listing.show(|| api.get(&path), show).await
        })
    }

    fn path(&self) -> Result<String> {
        let usage = |what: String| Failure::new(Exit::Usage, what);
        validate_topic(&self.topic).map_err(|error| usage(error.to_string()))?;
        Identity::parse(&self.identity).map_err(|error| {
            usage(format!("--as: {error}"))
                .next("give the URI of the client's certificate, such as spiffe://corp/service/web")
        })?;
        let at = self.at.iter().map(|at| ("at", at.as_str()));
        Ok(query("/v1/explain", [("topic", &*self.topic), ("as", &self.identity)].into_iter().chain(at)))
    }
}

fn show(explanation: &Value) -> String {
    let [topic, identity, origin] = ["topic", "identity", "origin"].map(|field| text(&explanation[field]));
    let mut shown = format!("{topic}, published by {identity} at {origin}\n");
    if let Some(refused) = explanation["refused"].as_object() {
        let word = if refused["code"] == "depends-on-event" { "IT DEPENDS" } else { "REFUSED" };
        shown += &format!("\n{word}: {} ({})\n", text(&refused["message"]), text(&refused["code"]));
    }
    if let Some(rollout) = explanation["governed_by"].as_u64() {
        shown += &format!("\nthe rules and policies at {origin} are those of rollout {rollout}, which is under way\n");
    }
    let schemas = items(explanation, "schemas");
    if !schemas.is_empty() {
        shown += &format!("\npayloads at {origin}\n{}", judged_by(schemas));
    }
    shown += &format!("\ningress at {origin}\n{}", bindings(items(explanation, "ingress")));
    shown += &format!("\nwanted by other routers\n{}", wanted(explanation));
    shown += "\nway\n";
    for hop in items(explanation, "hops") {
        shown += &show_hop(hop);
    }
    let rows = items(explanation, "destinations").iter().map(|end| {
        let row = ["site", "state", "subscribers", "groups", "cost"].map(|field| text(&end[field]));
        row.into_iter().chain([way(&end["path"])]).collect()
    });
    let header = ["site", "state", "subscribers", "groups", "cost ms", "path"];
    shown + &format!("\ndestinations\n{}", table(&header, &["subscribers", "cost ms"], rows))
}

fn judged_by(schemas: &[Value]) -> String {
    let rows = schemas.iter().map(|schema| {
        let mut row = ["rule", "by", "on_invalid"].map(|field| text(&schema[field])).to_vec();
        row.push(if schema["is_required"] == true { "" } else { "where there is one" }.to_owned());
        row
    });
    table(&["rule", "judged by", "else", ""], &[], rows)
}

fn bindings(bindings: &[Value]) -> String {
    let rows = bindings.iter().map(|binding| {
        let digest: String = text(&binding["digest"]).chars().take(DIGEST_SHOWN).collect();
        let mut row = ["order", "name", "pattern", "module"].map(|field| text(&binding[field])).to_vec();
        let quarantined = if binding["is_quarantined"] == true { "QUARANTINED" } else { "" };
        row.extend([digest, text(&binding["on_fault"]), may(binding), quarantined.to_owned()]);
        row
    });
    table(&["order", "name", "pattern", "module", "digest", "on fault", "may", ""], &["order"], rows)
}

/// What a binding may do with an event beside letting it pass or refusing it.
fn may(binding: &Value) -> String {
    let mut may: Vec<String> =
        items(binding, "routes").iter().map(|route| format!("route to {}", text(route))).collect();
    may.extend(items(binding, "may_emit_to").iter().map(|topic| format!("emit to {}", text(topic))));
    if binding["output_bytes_max"].as_u64().is_some_and(|bytes| bytes > 0) {
        may.push("change it".to_owned());
    }
    if binding["reads_identity"] == true {
        may.push("see who publishes".to_owned());
    }
    may.join(", ")
}

fn wanted(explanation: &Value) -> String {
    let rows = items(explanation, "wanted").iter().map(|wanted| {
        ["pattern", "group", "routers", "without_path", "chosen"].map(|field| text(&wanted[field])).to_vec()
    });
    let mut shown = table(&["pattern", "group", "routers", "no path to", "chosen site"], &[], rows);
    if explanation["wanted_left_out"].as_u64().is_some_and(|count| count > 0) {
        shown += &format!("and {} more\n", text(&explanation["wanted_left_out"]));
    }
    shown
}

fn way(path: &Value) -> String {
    path.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(" > ")
}

fn show_hop(hop: &Value) -> String {
    let head = format!("{} ({} ms)", way(&hop["path"]), text(&hop["cost"]));
    if let Some(why) = hop["no_answer"].as_str() {
        let sites: Vec<_> = items(hop, "copies").iter().map(|copy| text(&copy["sites"])).collect();
        return format!("{head}\n  NO ANSWER, for {}: {why}\n", sites.join(", "));
    }
    let mut shown = format!("{head}, generation {}\n", text(&hop["generation"]));
    let egress = items(hop, "egress");
    if !egress.is_empty() {
        bindings(egress).lines().for_each(|line| shown += &format!("  {line}\n"));
    }
    if hop["is_destination"] == true {
        shown += &format!("  {} subscribers here\n", text(&hop["subscribers"]));
        for group in items(hop, "groups") {
            let [name, pattern, members] = ["name", "pattern", "members"].map(|field| text(&group[field]));
            shown += &format!("  one of {members} members of group {name} ({pattern})\n");
        }
    }
    for copy in items(hop, "copies") {
        let [to, cost, sites] = ["to", "cost", "sites"].map(|field| text(&copy[field]));
        shown += &format!("  a copy to {to} ({cost} ms), for {sites}\n");
    }
    if hop["refused_here"] == true {
        shown += "  REFUSED: a topic rule keeps it from this site; see `myelin topic ls`\n";
    }
    let left_out = [
        ("no_path", "NO PATH to"),
        ("too_far", "TOO FAR"),
        ("not_allowed", "NOT ALLOWED at"),
        ("no_allowed_path", "NO ALLOWED PATH to"),
    ];
    for (field, what) in left_out {
        if !items(hop, field).is_empty() {
            shown += &format!("  {what} {}\n", text(&hop[field]));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_hop_and_end_is_shown() {
        let binding = json!({"name": "check", "order": 5, "pattern": "orders/**", "module": "schema@1.0.0",
            "digest": "0123456789abcdef0123", "on_fault": "reject", "routes": ["topic:audit/log"], "may_emit_to": [],
            "output_bytes_max": 8, "is_quarantined": true});
        let hops = json!([
            {"path": ["eu/r1"], "cost": 0, "generation": 7, "is_destination": true, "subscribers": 2,
             "groups": [{"name": "g", "pattern": "**", "members": 3}],
             "copies": [{"to": "us/r1", "cost": 80, "sites": ["us", "jp"]}], "no_path": ["cn"]},
            {"path": ["eu/r1", "us/r1"], "cost": 80, "no_answer": "late", "copies": [{"to": "", "sites": ["jp"]}]},
        ]);
        let shown = show(&json!({"topic": "orders/eu", "identity": "spiffe://d/service/s", "origin": "eu/r1",
            "schemas": [{"rule": "shop", "by": "orders-value:2 (id 7)", "on_invalid": "dead-letter", "is_required": false}],
            "ingress": [binding], "wanted": [{"pattern": "orders/*", "group": "g", "routers": ["us/r1"], "chosen": "us"}],
            "hops": hops, "destinations": [{"site": "cn", "state": "no-path", "path": ["eu/r1"], "cost": 0}]}));
        for part in [
            "orders-value:2 (id 7)  dead-letter  where there is one",
            "orders/eu, published by spiffe://d/service/s at eu/r1",
            "0123456789ab ",
            "route to topic:audit/log",
            "change it",
            "QUARANTINED",
            "eu/r1 > us/r1 (80 ms)",
            "NO ANSWER, for jp: late",
            "NO PATH to cn",
            "one of 3 members of group g (**)",
            "a copy to us/r1 (80 ms), for us, jp",
            "no-path",
        ] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }
}
