//! `myelin tenant ls|describe|apply|rm`

use super::admin::Admin;
use super::connect::block_on;
use super::failure::Result;
use super::http::Body;
use super::listing::{Shape, items, shown, table, text};
use super::resource::{Described, Kind, Removed, Show, whole};
use clap::{Args, Subcommand};
use hyper::Method;
use myelin_catalog::{CatalogError, Name, Selector, ServiceSelector};
use myelin_wire::{Pattern, Topic};
use serde_json::{Map, Value, json};
use std::str::FromStr;

const TENANTS: Kind = Kind { word: "tenant", noun: "tenant", path: "/v1/tenants" };

/// Whose topics are whose, and how much each tenant may use
#[derive(Debug, Subcommand)]
pub(super) enum Tenant {
    /// Show the tenants, and what they have used of this router
    #[command(after_help = "Examples:\n  \
        myelin tenant ls\n  \
        myelin tenant ls --watch 1")]
    Ls(Show),
    /// Show one tenant
    #[command(after_help = "Example:\n  myelin tenant describe acme")]
    Describe(Described),
    /// Let a tenant be as said, in place of the one of the same name
    #[command(after_help = "Examples:\n  \
        myelin tenant apply acme --service 'spiffe://acme.example/*' --events 5000 --connections 200\n  \
        myelin tenant apply umbra --service 'spiffe://example.org/service/umbra-*' --root customers/umbra \\\n    \
        --share 'customers/umbra/news/**=*' --share 'customers/umbra/ask/*=acme:publish'\n\n\
        Services of a tenant use the topics below its root and no others; nobody else uses those, unless the tenant shares \
        them. Policies hold besides. Quotas are for each router: publishers beyond a rate are held back, not refused. It \
        holds at once, without a rollout; sessions whose tenant is another one by that connect again.")]
    Apply(Apply),
    /// Remove a tenant: its topics are everybody's, as far as the policies permit
    #[command(after_help = "Example:\n  myelin tenant rm acme")]
    Rm(Removed),
}

/// Set a tenant
#[derive(Args, Debug)]
pub(super) struct Apply {
    /// Name of the tenant
    name: Name,
    /// Who belongs to it: the name of a service, or the beginning of some: `spiffe://acme.example/*`; may be repeated. Of
    /// several that fit, also of other tenants, the longest counts
    #[arg(long, required = true, value_name = "SERVICE")]
    service: Vec<ServiceSelector>,
    /// Its topics are this one and all below it [default: the tenant's name]
    #[arg(long, value_name = "TOPIC")]
    root: Option<Topic>,
    /// Topics of its own that others may use: `PATTERN=TENANT,..[:subscribe|publish|both]`, `*` for everybody; may be
    /// repeated
    #[arg(long, value_name = "SHARE")]
    share: Vec<ShareText>,
    #[command(flatten)]
    quota: QuotaChoice,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// What a tenant may use at each router; what is not given is not bounded
#[derive(Args, Debug)]
#[command(next_help_heading = "Quotas, for each router")]
struct QuotaChoice {
    /// Events published, per second
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Bytes published, per second
    #[arg(long, value_name = "N")]
    bytes: Option<u64>,
    /// Connections at a time
    #[arg(long, value_name = "N")]
    connections: Option<u64>,
    /// CPU time of filters for its events, in milliseconds per second
    #[arg(long, value_name = "MS")]
    filter_ms: Option<u64>,
    /// Bindings for its topics, in the whole mesh
    #[arg(long, value_name = "N")]
    bindings: Option<u64>,
    /// Events that go to dead letters, per second; those beyond are refused
    #[arg(long, value_name = "N")]
    dead_letters: Option<u64>,
}

/// A share as it is written on the command line.
#[derive(Clone, Debug)]
struct ShareText {
    topics: Pattern,
    with: Vec<Selector>,
    access: String,
}

impl FromStr for ShareText {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (topics, with) = text.split_once('=').ok_or("write PATTERN=TENANT, as in 'acme/news/**=*'")?;
        let (with, access) = with.split_once(':').unwrap_or((with, "subscribe"));
        if !["subscribe", "publish", "both"].contains(&access) {
            return Err(format!("`{access}` is no access: say subscribe, publish or both"));
        }
        let with = with.split(',').map(str::parse);
        Ok(Self {
            topics: topics.parse().map_err(|error: myelin_wire::TopicError| error.to_string())?,
            with: with.collect::<std::result::Result<_, CatalogError>>().map_err(|error| error.to_string())?,
            access: access.to_owned(),
        })
    }
}

impl QuotaChoice {
    fn body(&self) -> Value {
        let said = [
            ("events_per_s", self.events),
            ("bytes_per_s", self.bytes),
            ("connections", self.connections),
            ("filter_ms_per_s", self.filter_ms),
            ("bindings", self.bindings),
            ("dead_letters_per_s", self.dead_letters),
        ];
        let said = said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
        Value::Object(said.collect::<Map<_, _>>())
    }
}

impl Tenant {
    pub(super) fn run(self) -> Result<()> {
        block_on(async {
            match self {
                Self::Ls(all) => all.run(TENANTS.path, show).await,
                Self::Describe(one) => one.run(&TENANTS, whole).await,
                Self::Apply(apply) => apply.run().await,
                Self::Rm(one) => one.run(&TENANTS).await,
            }
        })
    }
}

impl Apply {
    async fn run(self) -> Result<()> {
        let shares = self
            .share
            .iter()
            .map(|share| json!({"topics": share.topics.as_str(), "with": share.with, "access": share.access}));
        let mut body = json!({
            "services": self.service,
            "quota": self.quota.body(),
            "shares": shares.collect::<Vec<_>>(),
        });
        if let Some(root) = &self.root {
            body["root"] = json!(root);
        }
        let api = self.admin.api()?;
        let (revision, warnings) = api.tell_warned(Method::PUT, &TENANTS.at(&self.name), Body::Json(body)).await?;
        let root = self.root.as_ref().map_or(self.name.as_str(), Topic::as_str);
        let mut done = TENANTS.change(&self.name, "applied", revision);
        (done["root"], done["warnings"]) = (json!(root), json!(warnings));
        self.shape.tell(&done, |_| format!("tenant {} holds: its topics are {root}/**\n", self.name));
        if !self.shape.is_json() {
            warnings.iter().for_each(|warning| eprintln!("warning: {}", shown(warning)));
        }
        Ok(())
    }
}

fn show(value: &Value) -> String {
    let rows = items(value, "tenants").iter().map(|tenant| {
        let (usage, quota) = (&tenant["usage"], &tenant["quota"]);
        let of = |used: &Value, quota: &Value| match quota.as_u64() {
            Some(most) => format!("{} of {most}", text(used)),
            None => text(used),
        };
        vec![
            text(&tenant["name"]),
            format!("{}/**", text(&tenant["root"])),
            items(tenant, "services").iter().map(text).collect::<Vec<_>>().join(", "),
            of(&usage["connections"], &quota["connections"]),
            of(&tenant["bindings"], &quota["bindings"]),
            text(&usage["events"]),
            rate(quota),
            text(&usage["paused_ms"]),
        ]
    });
    let heads =
        ["tenant", "topics", "services", "connections", "bindings", "events", "per second at most", "held back, ms"];
    table(&heads, &["connections", "bindings", "events", "held back, ms"], rows)
}

/// The rates of a quota.
fn rate(quota: &Value) -> String {
    let said = [
        ("events_per_s", "events"),
        ("bytes_per_s", "bytes"),
        ("filter_ms_per_s", "ms of filters"),
        ("dead_letters_per_s", "dead letters"),
    ];
    let said = said.iter().filter(|(key, _)| quota[key].is_u64());
    said.map(|(key, word)| format!("{} {word}", text(&quota[key]))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn tenants_are_shown_beside_their_quotas() {
        let shown = show(&json!({"tenants": [{"name": "acme", "root": "acme", "services": ["spiffe://acme.example/*"],
            "quota": {"connections": 200, "events_per_s": 5000, "filter_ms_per_s": 100}, "bindings": 3,
            "usage": {"connections": 7, "events": 12, "paused_ms": 40}}]}));
        for part in ["acme/**", "spiffe://acme.example/*", "7 of 200", " 3 ", "5000 events, 100 ms of filters", "40"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }

    #[test]
    fn a_share_is_read_as_it_is_written() {
        let share: ShareText = "acme/news/**=*".parse().unwrap();
        assert_eq!((share.topics.as_str(), share.with[0].as_str(), &*share.access), ("acme/news/**", "*", "subscribe"));
        let share: ShareText = "acme/ask/*=umbra,eu-*:publish".parse().unwrap();
        assert_eq!((share.with.len(), &*share.access), (2, "publish"));
        for text in ["acme/news", "a=b:own", "=b", "a/**/b=c", "a=", "a=B b"] {
            assert!(text.parse::<ShareText>().is_err(), "{text}");
        }
    }
}
