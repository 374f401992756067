//! `myelin topic ls|describe|apply|rm`

use super::admin::Admin;
use super::connect::block_on;
use super::failure::Result;
use super::http::Body;
use super::listing::{Shape, items, table, text};
use super::patterns;
use super::resource::{Described, Kind, Removed, Show, whole};
use super::values::quoted;
use clap::{ArgGroup, Args, Subcommand};
use hyper::Method;
use myelin_catalog::{Name, SchemaVersion, Selector};
use myelin_wire::Pattern;
use serde_json::{Value, json};

const RULES: Kind = Kind { word: "rule", noun: "topic", path: "/v1/topics" };

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
    Describe(Described),
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
    Rm(Removed),
}

/// Set a rule
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("where").required(true).multiple(true).args(["region", "cloud", "site", "schema_subject", "schema_by"]),
    group = ArgGroup::new("judges").multiple(true).args(["schema_subject", "schema_by"]),
)]
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
    shape: Shape,
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
    #[arg(long, value_name = "FATE", value_parser = ["refuse", "dead-letter"], default_value = "refuse", requires = "judges")]
    on_invalid: String,
    /// Let events pass that have no payload, or name no schema
    #[arg(long, requires = "judges")]
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
                Self::Describe(one) => one.run(&RULES, whole).await,
                Self::Apply(apply) => apply.run().await,
                Self::Rm(one) => one.run(&RULES).await,
            }
        })
    }
}

/// The command that lets a rule, as the admin API has it, be as it is, but judge by `version` of its subject.
pub(super) fn command(rule: &Value, version: &Value) -> String {
    let mut words = vec![text(&rule["name"]), quoted(&text(&rule["pattern"]))];
    let mut add = |flag: &str, value: &Value| match text(value) {
        // It would be read as a flag of its own.
        value if value.starts_with('-') => words.push(format!("--{flag}={}", quoted(&value))),
        value => words.extend([format!("--{flag}"), quoted(&value)]),
    };
    for (flag, kind) in [("region", "regions"), ("cloud", "clouds"), ("site", "sites")] {
        items(&rule["residency"], kind).iter().for_each(|selector| add(flag, selector));
    }
    let schema = &rule["schema"];
    add("schema-subject", &schema["subject"]);
    add("schema-version", version);
    if schema["on_invalid"].as_str().is_some_and(|fate| fate != "refuse") {
        add("on-invalid", &schema["on_invalid"]);
    }
    if schema["required"] == false {
        words.push("--schema-optional".to_owned());
    }
    format!("myelin topic apply {}", words.join(" "))
}

impl Apply {
    fn body(&self) -> Value {
        json!({
            "pattern": self.pattern.as_str(),
            "residency": {"regions": self.region, "clouds": self.cloud, "sites": self.site},
            "schema": self.schema.body(),
        })
    }

    async fn run(self) -> Result<()> {
        patterns::hint(self.pattern.as_str());
        let api = self.admin.api()?;
        let wishes = [("at-once", self.at_once), ("accept-failures", self.accept_failures)];
        let path = super::http::wishing(&RULES.at(&self.name), &wishes);
        let revision = api.tell(Method::PUT, &path, Body::Json(self.body())).await?;
        let rule = api.get(&RULES.at(&self.name)).await?;
        let mut done = RULES.change(&self.name, "applied", revision);
        done["rule"] = rule;
        self.shape.tell(&done, |done| self.told(&done["rule"]));
        Ok(())
    }

    fn told(&self, rule: &Value) -> String {
        let (name, pattern) = (&self.name, self.pattern.as_str());
        let mut told = String::new();
        if let Some(by) = rule["screening"]["by"].as_str() {
            told += &format!("rule {name}: payloads of {pattern} are judged by {by}\n");
        }
        if self.region.is_empty() && self.cloud.is_empty() && self.site.is_empty() {
            return told;
        }
        told += &match &*sites(rule) {
            "" => format!("rule {name} holds, and no site fits it yet: events of its topics are refused everywhere\n"),
            sites => format!("rule {name} holds: events of {pattern} may be at {sites}\n"),
        };
        told
    }
}

fn sites(rule: &Value) -> String {
    items(rule, "allowed").iter().map(text).collect::<Vec<_>>().join(", ")
}

/// By what a rule judges here, and by what else it judges elsewhere or could.
fn judged(rule: &Value) -> String {
    let by = rule["screening"]["by"].as_str().unwrap_or_default();
    let (rollout, newest) = (&rule["rollout"], &rule["newest"]);
    let words = |schema: &Value| match (&schema["version"], &schema["by"]) {
        (_, by) if by.is_string() => format!("what events name by {}", text(by)),
        (version, _) if version.is_null() => "no schema".to_owned(),
        (version, _) => format!("{}:{}", text(&schema["subject"]), text(version)),
    };
    match rollout["id"].as_u64() {
        Some(id) if rollout["is_here"] == true => {
            let by = if by.is_empty() { "no schema" } else { by };
            format!("{by} by rollout {id}; elsewhere {}", words(&rule["schema"]))
        }
        Some(id) => format!("{by}; rollout {id} brings {}", words(&rollout["schema"])),
        None if newest.is_u64() => format!("{by}; {newest} is there"),
        None => by.to_owned(),
    }
}

fn show(value: &Value) -> String {
    let rows = items(value, "rules").iter().map(|rule| {
        let list = |kind: &str| items(&rule["residency"], kind).iter().map(text).collect::<Vec<_>>().join(", ");
        let mut row = vec![text(&rule["name"]), text(&rule["pattern"])];
        row.extend(["regions", "clouds", "sites"].map(list));
        row.push(sites(rule));
        row.push(judged(rule));
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
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        apply: Apply,
    }

    /// What a shell makes of a command whose only quotes are single ones, without its first three words.
    fn words(command: &str) -> Vec<String> {
        let output =
            std::process::Command::new("sh").args(["-c", &format!("printf '%s\\n' {command}")]).output().unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        words.lines().skip(3).map(str::to_owned).collect()
    }

    #[test]
    fn the_command_for_another_version_keeps_all_that_the_rule_says() {
        let all = json!({"name": "orders", "pattern": "orders/$x/it's a/*/**",
            "residency": {"regions": ["eu-*", "us"], "clouds": ["own"], "sites": ["hamburg", "madrid"]},
            "schema": {"subject": "-o's \"$HOME\" `id`;value", "version": 1, "on_invalid": "dead-letter", "required": false}});
        let plain = json!({"name": "orders", "pattern": "orders/**",
            "residency": {"regions": [], "clouds": [], "sites": []},
            "schema": {"subject": "orders-value", "version": 1, "on_invalid": "refuse", "required": true}});
        for mut rule in [all, plain] {
            let command = command(&rule, &json!(7));
            let line = Line::try_parse_from([vec!["apply".to_owned()], words(&command)].concat());
            let apply = line.unwrap_or_else(|error| panic!("{command}\n{error}")).apply;
            let mut meant = apply.body();
            meant["name"] = json!(apply.name);
            rule["schema"]["version"] = json!(7);
            assert_eq!(meant, rule, "{command}");
        }
    }

    #[test]
    fn what_is_about_a_schema_needs_one() {
        let parse =
            |more: &[&str]| Line::try_parse_from([&["apply", "eu", "orders/**", "--region", "eu"], more].concat());
        for flags in [&["--schema-optional"][..], &["--on-invalid", "dead-letter"], &["--on-invalid", "refuse"]] {
            assert!(parse(flags).is_err(), "{flags:?}");
            for schema in [["--schema-subject", "s"], ["--schema-by", "header"]] {
                assert!(parse(&[flags, &schema].concat()).is_ok(), "{flags:?} {schema:?}");
            }
        }
        assert!(parse(&[]).is_ok());
    }

    #[test]
    fn a_rule_that_a_rollout_changes_is_shown_with_what_judges_here_and_elsewhere() {
        let rule = |is_here, by: &str| {
            json!({"schema": {"subject": "s", "version": 1}, "newest": 2,
            "rollout": {"id": 41, "is_here": is_here, "schema": {"subject": "s", "version": 2}}, "screening": {"by": by}})
        };
        assert_eq!(judged(&rule(true, "s:2 (id 7)")), "s:2 (id 7) by rollout 41; elsewhere s:1");
        assert_eq!(judged(&rule(false, "s:1 (id 6)")), "s:1 (id 6); rollout 41 brings s:2");
        let mut gone = rule(false, "s:1 (id 6)");
        gone["rollout"]["schema"] = Value::Null;
        assert_eq!(judged(&gone), "s:1 (id 6); rollout 41 brings no schema");
    }

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
