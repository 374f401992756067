//! `myelin shadow start|status|diff|promote|stop`

mod hold;

use super::admin::{Admin, Api};
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::listing::{Listing, items, shown, table, text, time};
use super::rollout::{Step, running};
use super::trial::short;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::fmt::Write;

const AFTER_HELP: &str = "\
Examples:
  myelin shadow start redact@1.3.0
  myelin shadow status
  myelin shadow diff --site eu1
  myelin shadow diff 42 -o json | jq .routers[].bindings[].transitions

While a shadow runs, new filters judge copies of live events. Nothing follows from what they say; it is
compared with what the active filters said. What was found out stays at each router until its next shadow.";

/// Let new filters judge copies of live events, and show what they would change
#[derive(Debug, Subcommand)]
#[command(after_help = AFTER_HELP)]
pub(super) enum Shadow {
    /// Let new filters judge copies of live events everywhere until they are promoted or stopped; nothing becomes active
    #[command(after_help = hold::AFTER_HELP)]
    Start(hold::Start),
    /// Show how many events were compared at each router, and how many are judged otherwise
    #[command(after_help = "Examples:\n  \
        myelin shadow status\n  \
        myelin shadow status 42 --watch")]
    Status(Show),
    /// Show what is judged otherwise: counted by verdicts, with samples
    #[command(after_help = "Examples:\n  \
        myelin shadow diff --site eu1\n  \
        myelin shadow diff 42 -o json | jq '.routers[].bindings[].transitions'")]
    Diff(Show),
    /// Let the rollout go on from its shadow: canaries and waves, as its start said
    #[command(after_help = "Examples:\n  \
        myelin shadow promote\n  \
        myelin shadow promote 42")]
    Promote(Step),
    /// End the shadow and drop what was staged for it; what was found out stays
    #[command(after_help = "Examples:\n  \
        myelin shadow stop\n  \
        myelin shadow stop 42 --reason 'too many differences'")]
    Stop(Step),
}

/// Of which rollout, and where
#[derive(Args, Debug)]
pub(super) struct Show {
    /// The rollout's number; the newest where none is given
    #[arg(value_name = "ROLLOUT")]
    id: Option<u64>,
    /// Only the routers of this site
    #[arg(long, value_name = "SITE")]
    site: Option<String>,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    admin: Admin,
}

impl Shadow {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Start(start) => block_on(start.run()),
            Self::Promote(step) => block_on(step.take_shadow("promote")),
            Self::Stop(step) => block_on(step.take_shadow("abort")),
            Self::Status(show) => block_on(show.run(status)),
            Self::Diff(show) => block_on(show.run(diff)),
        }
    }
}

impl Show {
    async fn run(self, show: impl Fn(&Value) -> String) -> Result<()> {
        let api = self.admin.api()?;
        let id = match self.id {
            Some(id) => id,
            None => newest(&api).await?,
        };
        let path = match &self.site {
            Some(site) => format!("/v1/rollouts/{id}/shadow?site={site}"),
            None => format!("/v1/rollouts/{id}/shadow"),
        };
        self.listing.show(|| api.get(&path), show).await
    }
}

/// The rollout over the sites that is under way, or was last.
async fn newest(api: &Api) -> Result<u64> {
    let value = api.get("/v1/rollouts").await?;
    let rollout = running(&value).or_else(|| items(&value, "mesh").last());
    rollout.and_then(|rollout| rollout["id"].as_u64()).ok_or_else(|| {
        Failure::new(Exit::NotFound, "no rollout over the sites is remembered")
            .next("`myelin shadow start` lets what is staged judge copies of events")
    })
}

const HEADER: [&str; 10] =
    ["site", "router", "binding", "change", "events", "differ", "faults", "rejects", "before", "p99 us"];

fn status(value: &Value) -> String {
    let routers = items(value, "routers");
    let rows = routers.iter().flat_map(|router| {
        items(router, "bindings").iter().map(|binding| {
            let mut row = vec![text(&router["site"]), text(&router["router"])];
            let fields = ["name", "change", "events", "differences", "traps", "rejects", "base_rejects", "call_us_p99"];
            row.extend(fields.map(|field| text(&binding[field])));
            row
        })
    });
    let mut told = format!("{}\n{}", head(value), table(&HEADER, &HEADER[4..], rows));
    for router in routers {
        let count = |field: &str| router[field].as_u64().unwrap_or_default();
        let (skipped, sampled_out) = (count("skipped"), count("sampled_out"));
        let events: u64 = items(router, "bindings").iter().filter_map(|binding| binding["events"].as_u64()).sum();
        if events == 0 {
            let (site, router) = (text(&router["site"]), text(&router["router"]));
            let _ = writeln!(told, "{site}/{router}: no event came that they judge; nothing is compared there");
        }
        if skipped + sampled_out > 0 {
            let _ = writeln!(
                told,
                "{}/{}: {sampled_out} events are not in the sample of {} %, {skipped} were left out for want of time",
                text(&router["site"]),
                text(&router["router"]),
                text(&router["sample_percent"]),
            );
        }
    }
    told + &missing(value)
}

fn head(value: &Value) -> String {
    let routers = items(value, "routers");
    let running = routers.iter().filter(|router| router["running"] == true).count();
    format!(
        "shadow of rollout {}: of {} events {} are judged otherwise, {} faulted; it runs at {running} of {} routers\n",
        text(&value["rollout"]),
        text(&value["events"]),
        text(&value["differences"]),
        text(&value["traps"]),
        routers.len(),
    )
}

fn missing(value: &Value) -> String {
    let missing = value["missing"].as_object().into_iter().flatten();
    missing.map(|(router, why)| format!("{}: {}\n", shown(router), shown(&text(why)))).collect()
}

fn diff(value: &Value) -> String {
    let mut told = head(value);
    for router in items(value, "routers") {
        for binding in items(router, "bindings") {
            let or_none = |field: &str| binding[field].as_str().map_or_else(|| "no module".to_owned(), shown);
            let _ = writeln!(
                told,
                "\n{}/{} {}: {} -> {}, {} of {} events judged otherwise",
                text(&router["site"]),
                text(&router["router"]),
                shown(&text(&binding["name"])),
                or_none("old"),
                or_none("new"),
                text(&binding["differences"]),
                text(&binding["events"]),
            );
            if binding["asked_otherwise"].as_u64().unwrap_or_default() > 0 {
                let asked = text(&binding["asked_otherwise"]);
                let _ = writeln!(told, "  it asked its host {asked} times what the active one had not asked");
            }
            let rows = items(binding, "transitions").iter();
            let rows = rows.map(|row| vec![short(&text(&row["from"])), short(&text(&row["to"])), text(&row["count"])]);
            if !items(binding, "transitions").is_empty() {
                told += &table(&["now", "then", "events"], &["events"], rows);
            }
            items(binding, "samples").iter().for_each(|sample| told += &self::sample(sample));
        }
    }
    told + &missing(value)
}

fn sample(sample: &Value) -> String {
    let at = time(&sample["at_unix_ms"]);
    let key = match sample["key"]["hash"].as_str() {
        Some(hash) => format!(", key {} ({} bytes)", shown(hash), text(&sample["key"]["bytes"])),
        None => String::new(),
    };
    let topic = short(&text(&sample["topic"]));
    let said = |side: &str| short(&sample[side].to_string());
    format!(
        "\n  {at}  {topic}{key}, {} bytes\n    now   {}\n    then  {}\n",
        text(&sample["payload_bytes"]),
        said("old"),
        said("new")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found() -> Value {
        json!({"rollout": 9, "events": 100, "differences": 50, "traps": 0, "missing": {"us1/r1": "no answer"},
            "routers": [{"site": "eu1", "router": "r1", "running": true, "skipped": 3, "sampled_out": 7,
                "sample_percent": 50, "bindings": [{"name": "gate", "change": "changed", "old": "gate@1.0.0",
                "new": "gate@2.0.0", "events": 100, "differences": 50, "traps": 0, "rejects": 50, "base_rejects": 0,
                "asked_otherwise": 2, "call_us_p99": 12,
                "transitions": [{"from": "allow", "to": "deny: odd", "count": 50}],
                "samples": [{"at_unix_ms": 0, "topic": "orders/new", "key": {"bytes": 2, "hash": "ab12"},
                    "payload_bytes": 3, "old": {"verdict": "allow"}, "new": {"verdict": "deny", "reason": "odd"}}]}]}]})
    }

    #[test]
    fn status_counts_and_says_what_was_left_out() {
        let shown = status(&found());
        let parts =
            ["of 100 events 50", "1 of 1 routers", "eu1", "gate", "changed", "7 events", "3 were left out", "us1/r1"];
        for part in parts {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }

    #[test]
    fn diff_shows_both_verdicts() {
        let shown = diff(&found());
        let parts =
            ["gate@1.0.0 -> gate@2.0.0", "deny: odd", "orders/new, key ab12 (2 bytes), 3 bytes", "asked its host 2"];
        for part in parts.into_iter().chain([r#"{"verdict":"allow"}"#, "no answer"]) {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }
}
