//! `myelin schema ls|describe|register|check|rm|config`

mod against;
pub(super) mod candidate;
mod check;
mod config;

use super::admin::Admin;
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::http::Body;
use super::listing::{Listing, Shape, items, size, table, text, time};
use super::resource::change;
use candidate::Candidate;
use clap::{Args, Subcommand};
use hyper::Method;
use myelin_catalog::{SchemaFormat, SubjectName};
use serde_json::Value;

/// Formats of payloads, and how they change
#[derive(Debug, Subcommand)]
pub(super) enum Schema {
    /// Show the subjects, and their newest versions
    #[command(after_help = "Examples:\n  \
        myelin schema ls\n  \
        myelin schema ls --deleted")]
    Ls(Show),
    /// Show a version of a subject
    #[command(after_help = "Examples:\n  \
        myelin schema describe orders-value\n  \
        myelin schema describe orders-value --version 1 -o json | jq -r .schema")]
    Describe(Describe),
    /// Make a schema the next version of a subject
    #[command(after_help = "Examples:\n  myelin schema register orders-value order.avsc\n  \
        myelin schema register orders-value order.json --type json --dry-run\n  \
        myelin schema register orders-value order.proto --reference money.proto=money:1\n\n\
        A schema that is there already is not registered again. Whether a new one is compatible with those before is \
        decided at the subject's level; see `myelin schema config`.")]
    Register(Register),
    /// Say what a schema would break; registers nothing
    #[command(after_help = "Examples:\n  myelin schema check orders-value order-next.avsc\n  \
        myelin schema check orders-value order-next.avsc --against orders.capture\n  \
        myelin schema check orders-value order-next.avsc -o json | jq .is_compatible\n\n\
        With --against the events of a capture are judged by the schema, as a rule for topics would judge them: it lists \
        which producers, topics and sites would be turned back. Texts can be compatible and data not, and the other way \
        round.")]
    Check(check::Check),
    /// Delete a version, or all versions, of a subject
    #[command(after_help = "Examples:\n  myelin schema rm orders-value --version 1\n  \
        myelin schema rm orders-value && myelin schema rm orders-value --permanent\n\n\
        What is deleted is kept, so that whoever has its id can still read events. Deleted again \
        with --permanent it is gone for good.")]
    Rm(Remove),
    /// Show or set what new versions must be compatible with, and what may be changed
    #[command(after_help = "Examples:\n  \
        myelin schema config                         the default of all subjects\n  \
        myelin schema config orders-value --compatibility full\n  \
        myelin schema config orders-value --reset")]
    Config(config::Config),
}

/// Show the subjects
#[derive(Args, Debug)]
pub(super) struct Show {
    /// Those of which only deleted versions are left as well
    #[arg(long)]
    deleted: bool,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    admin: Admin,
}

/// A version of a subject
#[derive(Args, Debug)]
pub(super) struct Describe {
    /// Name of the subject
    subject: SubjectName,
    /// Which version
    #[arg(long, value_name = "VERSION", default_value = "latest")]
    version: String,
    /// Among deleted versions as well
    #[arg(long)]
    deleted: bool,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    admin: Admin,
}

/// Register a schema
#[derive(Args, Debug)]
pub(super) struct Register {
    #[command(flatten)]
    candidate: Candidate,
    /// Keep the canonical form in place of the text
    #[arg(long)]
    normalize: bool,
    /// Only say what it would break
    #[arg(long)]
    dry_run: bool,
    /// Also when a rule that follows `latest` would turn back events that the router has recorded
    #[arg(long)]
    accept_failures: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// Delete versions
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// Name of the subject
    subject: SubjectName,
    /// Only this version
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// For good; it must have been deleted before
    #[arg(long)]
    permanent: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

impl Schema {
    pub(super) fn run(self) -> Result<()> {
        block_on(async {
            match self {
                Self::Ls(Show { deleted, listing, admin }) => {
                    let api = admin.api()?;
                    listing.show(|| api.get("/v1/schemas"), |value| overview(value, deleted)).await
                }
                Self::Describe(described) => described.run().await,
                Self::Register(register) => register.run().await,
                Self::Check(check) => check.run().await,
                Self::Rm(remove) => remove.run().await,
                Self::Config(config) => config.run().await,
            }
        })
    }
}

/// A path below a subject's.
pub(super) fn path(begin: &str, subject: &SubjectName, end: &str) -> String {
    format!("/registry/{begin}/{}{end}", encoded(subject.as_str()))
}

/// A text as a part of a path.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let spell = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(spell).collect()
}

impl Describe {
    async fn run(self) -> Result<()> {
        let api = self.admin.api()?;
        let deleted = if self.deleted { "?deleted=true" } else { "" };
        let path = path("subjects", &self.subject, &format!("/versions/{}{deleted}", encoded(&self.version)));
        let fetch = || async { api.get(&path).await.map(with_format) };
        self.listing.show(fetch, described).await
    }
}

/// A version whose format is said, also where the registry's API leaves it out because it is the one that it began with.
fn with_format(mut version: Value) -> Value {
    if version.is_object() && version["schemaType"].is_null() {
        version["schemaType"] = SchemaFormat::Avro.as_str().into();
    }
    version
}

impl Register {
    async fn run(self) -> Result<()> {
        let (api, subject) = (self.admin.api()?, self.candidate.subject.clone());
        let body = self.candidate.body()?;
        if self.dry_run {
            return check::judge(&api, &subject, None, body, self.shape).await;
        }
        let wishes = [("normalize", self.normalize), ("acceptFailures", self.accept_failures)];
        let path = super::http::wishing(&path("subjects", &subject, "/versions"), &wishes);
        let made: Value = api.ask(Method::POST, &path, Body::Json(body)).await?;
        // Who may register need not be one who may read the rules.
        let (mut rules, mut sites) = (Value::Null, Value::Null);
        if !self.shape.is_json() {
            rules = api.get("/v1/topics").await.unwrap_or_default();
            sites = api.get("/v1/mesh/sites").await.unwrap_or_default();
        }
        self.shape.tell(&made, |made| {
            let behind = behind(&rules, &subject, !items(&sites, "sites").is_empty());
            format!("subject {subject} has it as version {}, id {}\n{behind}", made["version"], made["id"])
        });
        Ok(())
    }
}

/// The rules that judge by an older version of a subject, and what lets the newest hold: a rollout, where there are sites.
fn behind(rules: &Value, subject: &SubjectName, has_sites: bool) -> String {
    let is_behind = |rule: &&Value| rule["schema"]["subject"] == subject.as_str() && rule["newest"].is_u64();
    let behind = items(rules, "rules").iter().filter(is_behind).map(|rule| {
        let name = text(&rule["name"]);
        let moves = match has_sites {
            true => format!("myelin rollout start --only-changes --schema {name}"),
            false => super::topic::command(rule, &rule["newest"]),
        };
        format!("rule {name} judges by version {} until `{moves}`\n", text(&rule["schema"]["version"]))
    });
    behind.collect()
}

impl Remove {
    async fn run(self) -> Result<()> {
        let api = self.admin.api()?;
        let permanent = if self.permanent { "?permanent=true" } else { "" };
        let version = self.version.as_deref().map(|version| format!("/versions/{}", encoded(version)));
        let path = path("subjects", &self.subject, &(version.unwrap_or_default() + permanent));
        let (gone, revision): (Value, _) = api.ask_revised(Method::DELETE, &path, Body::None).await?;
        let (action, how) = match self.permanent {
            true => ("removed", "gone for good"),
            false => ("deleted", "deleted, and kept for whoever has their ids"),
        };
        let mut done = change("schema", self.subject.as_str(), action, revision);
        // One version is told by its number, all by theirs.
        done["versions"] = if gone.is_array() { gone } else { Value::from(vec![gone]) };
        self.shape.tell(&done, |done| {
            format!("of subject {} these versions are {how}: {}\n", self.subject, text(&done["versions"]))
        });
        Ok(())
    }
}

fn overview(value: &Value, deleted: bool) -> String {
    let is_shown = |subject: &&Value| deleted || !items(subject, "versions").is_empty();
    let rows = items(value, "subjects").iter().filter(is_shown).map(|subject| {
        let newest = items(subject, "versions").last().map(text).unwrap_or_default();
        let gone = items(subject, "deleted").len();
        vec![
            text(&subject["name"]),
            newest,
            text(&subject["id"]),
            text(&subject["format"]),
            text(&subject["compatibility"]),
            text(&subject["mode"]),
            if gone == 0 { String::new() } else { gone.to_string() },
            time(&subject["registered_unix_ms"]),
        ]
    });
    let header = ["subject", "version", "id", "format", "compatibility", "mode", "deleted", "registered"];
    let mut shown = table(&header, &["version", "id", "deleted"], rows);
    let (level, mode) = (text(&value["compatibility"]), text(&value["mode"]));
    shown += &format!("\nby default: {level}, {mode}; texts of {}\n", size(&value["text_bytes"]));
    shown
}

fn described(value: &Value) -> String {
    let format = text(&value["schemaType"]);
    let (subject, version) = (text(&value["subject"]), text(&value["version"]));
    let mut shown = format!("{subject} version {version}, id {}, {format}\n", text(&value["id"]));
    for reference in items(value, "references") {
        let (name, of) = (text(&reference["name"]), text(&reference["subject"]));
        shown += &format!("refers to {name}: {of} version {}\n", text(&reference["version"]));
    }
    shown + "\n" + &super::listing::shown(value["schema"].as_str().unwrap_or_default()) + "\n"
}

/// What a schema breaks, as the failure of a check.
fn incompatible(subject: &SubjectName, messages: &[Value]) -> Failure {
    let listed: String = messages.iter().map(|message| format!("\n  {}", text(message))).collect();
    let what = format!("the schema is not compatible with subject {subject}:{listed}");
    Failure::new(Exit::GateFailed, what).next("change the schema, or the level with `myelin schema config`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn subjects_are_shown_with_their_newest_version() {
        let value = json!({"subjects": [
            {"name": "orders-value", "versions": [1, 3], "deleted": [2], "id": 7, "format": "AVRO",
             "compatibility": "FULL", "mode": "READWRITE", "registered_unix_ms": 0},
            {"name": "old", "versions": [], "deleted": [1], "id": null, "format": null,
             "compatibility": "BACKWARD", "mode": "READWRITE", "registered_unix_ms": null},
        ], "compatibility": "BACKWARD", "mode": "READWRITE", "text_bytes": 120});
        let shown = overview(&value, false);
        assert!(shown.contains("orders-value        3   7  AVRO    FULL"), "{shown}");
        assert!(!shown.contains("old") && shown.contains("by default: BACKWARD, READWRITE; texts of 120 B"), "{shown}");
        assert!(overview(&value, true).contains("old"));
    }

    #[test]
    fn a_version_is_shown_with_what_it_refers_to() {
        let value = json!({"subject": "s", "version": 2, "id": 7, "schemaType": "PROTOBUF", "schema": "syntax = \"proto3\";",
            "references": [{"name": "money.proto", "subject": "money", "version": 1}]});
        let shown = described(&value);
        for part in ["s version 2, id 7, PROTOBUF", "refers to money.proto: money version 1", "syntax ="] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }

    #[test]
    fn every_version_says_its_format() {
        for (there, said) in [(Value::Null, "AVRO"), ("JSON".into(), "JSON")] {
            assert_eq!(with_format(json!({"subject": "s", "version": 1, "schemaType": there}))["schemaType"], said);
        }
        assert!(
            described(&with_format(json!({"subject": "s", "version": 1, "id": 3})))
                .starts_with("s version 1, id 3, AVRO")
        );
    }

    #[test]
    fn whoever_registers_is_told_which_rules_judge_by_an_older_version() {
        let rules = json!({"rules": [
            {"name": "orders", "pattern": "o/**", "schema": {"subject": "s", "version": 1}, "newest": 2},
            {"name": "follows", "schema": {"subject": "s", "version": "latest"}},
            {"name": "other", "schema": {"subject": "t", "version": 1}, "newest": 2}]});
        let Ok(subject) = "s".parse() else { panic!("it is a subject") };
        let moves = [
            (true, "rollout start --only-changes --schema orders"),
            (false, "topic apply orders 'o/**' --schema-subject s --schema-version 2"),
        ];
        for (has_sites, moves) in moves {
            let told = format!("rule orders judges by version 1 until `myelin {moves}`\n");
            assert_eq!(behind(&rules, &subject, has_sites), told);
        }
        assert_eq!(behind(&Value::Null, &subject, true), "");
    }

    #[test]
    fn any_subject_is_one_part_of_a_path() {
        assert_eq!(encoded("orders/eu 1-value?ä"), "orders%2Feu%201-value%3F%C3%A4");
    }
}
