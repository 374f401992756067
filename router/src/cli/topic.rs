//! `myelin topic ls|describe|apply|rm`

use super::admin::Admin;
use super::connect::block_on;
use super::failure::Result;
use super::http::Body;
use super::listing::{items, table, text};
use super::patterns;
use super::resource::{Kind, One, Show};
use super::values::say;
use clap::{ArgGroup, Args, Subcommand};
use hyper::Method;
use myelin_catalog::{Name, SchemaVersion, Selector};
use myelin_wire::Pattern;
use serde_json::{Value, json};

const RULES: Kind = Kind { word: "rule", path: "/v1/topics" };

/// Where events of which topics may be, and what their payloads must be like
#[derive(Debug, Subcommand)]
pub(super) enum Topic {
    /// Show the rules for topics, and what they have held back
    #[command(after_help = "Examples:\n  \
        myelin topic ls\n  \
        myelin topic ls -o json | jq '.rules[].pattern'")]
    Ls(Show),
    /// Show one rule, and the sites that it means
    #[command(after_help = "Example:\n  myelin topic describe eu-orders")]
    Describe(One),
    /// Let a rule hold, in place of the one of the same name
    #[command(after_help = "Examples:\n  myelin topic apply eu-orders 'orders/eu/**' --region 'eu-*'\n  \
        myelin topic apply secrets 'secrets/**' --cloud own --site hamburg --site madrid\n  \
        myelin topic apply orders 'orders/**' --schema-subject orders-value --on-invalid dead-letter\n\n\
        A site must fit every kind that is given: a region, a cloud, and a site. Where several rules match a topic, all \
        of them hold.\nEvents go over allowed sites only, and are refused (code `residency`) where they may not be at \
        all. Payloads are judged where they come in, before any filter: what is not as the schema says is refused (code \
        `schema-violation`), or goes to `$dead/admission/<topic>`. The rule holds at once, without a rollout; \
        one that judges by another schema, or of other topics, than before is for `myelin rollout start --schema|--topics`, which brings it \
        site by site, or for --at-once. A version that is registered later judges \
        nothing until a rollout brings it, unless --schema-version says `latest`.")]
    Apply(Apply),
    /// Remove a rule
    #[command(after_help = "Example:\n  myelin topic rm eu-orders")]
    Rm(One),
}

/// Set a rule
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("where").required(true).multiple(true).args(["region", "cloud", "site", "schema_subject", "schema_by"]))]
pub(super) struct Apply {
    /// Name of the rule
    name: Name,
    /// The topics
    pattern: Pattern,
    /// A region where their events may be, or the beginning of some: `eu-*`; may be repeated
    #[arg(long, value_name = "REGION")]
    region: Vec<Selector>,
    /// A cloud where they may be; may be repeated
    #[arg(long, value_name = "CLOUD")]
    cloud: Vec<Selector>,
    /// A site where they may be; may be repeated
    #[arg(long, value_name = "SITE")]
    site: Vec<Selector>,
    #[command(flatten)]
    schema: SchemaChoice,
    /// Also when the rule judged payloads otherwise until now: all sites change together, with no canary and no gate. Not
    /// where the routers want two persons
    #[arg(long)]
    at_once: bool,
    /// Also when its schema would turn back events that the router has recorded (`myelin capture`)
    #[arg(long)]
    accept_failures: bool,
    #[command(flatten)]
    admin: Admin,
}

/// What payloads must be like
#[derive(Args, Debug)]
struct SchemaChoice {
    /// The subject of the schema registry whose schema payloads are judged by
    #[arg(long, value_name = "SUBJECT")]
    schema_subject: Option<String>,
    /// The version of the subject: a number, or `latest` for each new one as soon as it is registered; else the newest
    /// there is now, which a rollout moves
    #[arg(long, value_name = "VERSION", requires = "schema_subject", conflicts_with = "schema_by")]
    schema_version: Option<SchemaVersion>,
    /// How events name their schema themselves: by the prefix of Confluent's serializers, by their attribute `schema`, or
    /// by the header `dataschema`; with --schema-subject only schemas of that subject
    #[arg(long, value_name = "HOW", value_parser = ["confluent", "header", "dataschema"])]
    schema_by: Option<String>,
    /// What becomes of an event that is not as the schema says
    #[arg(long, value_name = "FATE", value_parser = ["refuse", "dead-letter"], default_value = "refuse")]
    on_invalid: String,
    /// Let events pass that have no payload, or name no schema
    #[arg(long)]
    schema_optional: bool,
}

impl SchemaChoice {
    fn body(&self) -> Option<Value> {
        if self.schema_subject.is_none() && self.schema_by.is_none() {
            return None;
        }
        let mut body = json!({"on_invalid": self.on_invalid, "required": !self.schema_optional});
        let said = [("subject", &self.schema_subject), ("by", &self.schema_by)];
        for (key, value) in said.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
            body[key] = json!(value);
        }
        if let Some(version) = self.schema_version {
            body["version"] = json!(version);
        }
        Some(body)
    }
}

impl Topic {
    pub(super) fn run(self) -> Result<()> {
        block_on(async {
            match self {
                Self::Ls(all) => all.run(RULES.path, show).await,
                Self::Describe(one) => one.describe(&RULES).await,
                Self::Apply(apply) => apply.run().await,
                Self::Rm(one) => one.remove(&RULES).await,
            }
        })
    }
}

impl Apply {
    async fn run(self) -> Result<()> {
        patterns::hint(self.pattern.as_str());
        let api = self.admin.api()?;
        let body = json!({
            "pattern": self.pattern.as_str(),
            "residency": {"regions": self.region, "clouds": self.cloud, "sites": self.site},
            "schema": self.schema.body(),
        });
        let wishes = [("at-once", self.at_once), ("accept-failures", self.accept_failures)];
        let path = super::http::wishing(&RULES.at(&self.name), &wishes);
        api.tell(Method::PUT, &path, Body::Json(body)).await?;
        let rule = api.get(&RULES.at(&self.name)).await?;
        if let Some(by) = rule["screening"]["by"].as_str() {
            say!("rule {}: payloads of {} are judged by {by}", self.name, self.pattern.as_str());
        }
        if self.region.is_empty() && self.cloud.is_empty() && self.site.is_empty() {
            return Ok(());
        }
        match &*sites(&rule) {
            "" => {
                say!("rule {} holds, and no site fits it yet: events of its topics are refused everywhere", self.name)
            }
            sites => say!("rule {} holds: events of {} may be at {sites}", self.name, self.pattern.as_str()),
        }
        Ok(())
    }
}

fn sites(rule: &Value) -> String {
    items(rule, "allowed").iter().map(text).collect::<Vec<_>>().join(", ")
}

fn show(value: &Value) -> String {
    let rows = items(value, "rules").iter().map(|rule| {
        let list = |kind: &str| items(&rule["residency"], kind).iter().map(text).collect::<Vec<_>>().join(", ");
        let mut row = vec![text(&rule["name"]), text(&rule["pattern"])];
        row.extend(["regions", "clouds", "sites"].map(list));
        row.push(sites(rule));
        let by = rule["screening"]["by"].as_str().unwrap_or_default();
        row.push(match rule["newest"].as_u64() {
            Some(newest) => format!("{by}; {newest} is there"),
            None => by.to_owned(),
        });
        row
    });
    let mut shown = table(&["rule", "pattern", "regions", "clouds", "sites", "may be at", "schema"], &[], rows);
    let (refused, held_back) = (text(&value["refused"]), text(&value["held_back"]));
    shown += &format!("\nsince this router's start: {refused} events refused, {held_back} copies held back\n");
    for rule in items(value, "rules").iter().filter(|rule| rule["screening"].is_object()) {
        let figure = |name: &str| text(&rule["screening"][name]);
        let (passed, refused, dead) = (figure("passed"), figure("refused"), figure("dead_lettered"));
        let name = text(&rule["name"]);
        shown += &format!("by the schema of {name}: {passed} events passed, {refused} refused, {dead} dead letters\n");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_shown_with_the_sites_that_they_mean() {
        let shown = show(&json!({"rules": [{"name": "eu", "pattern": "orders/**",
            "residency": {"regions": ["eu-*"]}, "allowed": ["hamburg", "madrid"],
            "newest": 3, "screening": {"by": "orders-value:2 (id 7)", "passed": 5, "refused": 1, "dead_lettered": 0}}],
            "refused": 3, "held_back": 12}));
        for part in [
            "orders/**",
            "eu-*",
            "hamburg, madrid",
            "3 events refused, 12 copies held back",
            "orders-value:2 (id 7); 3 is there",
            "5 events passed, 1 refused",
        ] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }
}
