//! `myelin policy apply|ls|describe|rm|explain|test|schema`

mod check;
pub(super) mod files;
mod question;

use super::admin::Admin;
use super::connect::block_on;
use super::failure::Result;
use super::http::Body;
use super::listing::{Shape, items, table, text};
use super::resource::{Described, Kind, Removed, Show};
use super::values::{print, say};
use clap::{Args, Subcommand};
use hyper::Method;
use myelin_policy::{ADMIN_SCHEMA, Action, SCHEMA};
use serde_json::{Value, json};
use std::path::PathBuf;

const POLICIES: Kind = Kind { word: "policy", noun: "policy", path: "/v1/policies" };

/// Who may publish and subscribe
#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Let the policies of a file or a folder hold, each in place of the one of the same name
    #[command(
        after_help = "Examples:\n  myelin policy apply orders.cedar\n  myelin policy apply policies/ --dry-run\n  \
        myelin policy apply policies/ -o json | jq '.policies[].revision'\n\n\
        A policy is called what its file is, without `.cedar`. It holds at once, without a rollout, on every router; \
        `myelin rollout start --policies` lets it hold site by site. \
        What does not type-check is refused with file, line and column, and changes nothing."
    )]
    Apply(Apply),
    /// Show the policies, and what they have denied
    #[command(after_help = "Examples:\n  \
        myelin policy ls\n  \
        myelin policy ls -o json | jq '.policies[].name'")]
    Ls(Show),
    /// Print the text of one
    #[command(after_help = "Example:\n  myelin policy describe orders > orders.cedar")]
    Describe(Described),
    /// Remove one
    #[command(after_help = "Example:\n  myelin policy rm orders")]
    Rm(Removed),
    /// Say whether somebody may do something, and which policies decide
    #[command(
        after_help = "Examples:\n  myelin policy explain spiffe://example.org/service/billing publish orders/eu/1\n  \
        myelin policy explain spiffe://example.org/service/shop subscribe 'orders/**'\n  \
        myelin policy explain spiffe://example.org/service/shop publish orders/eu/1 -o json | jq .allowed\n\n\
        To subscribe is decided twice: for the pattern as it is written, and for each topic that has events."
    )]
    Explain(Box<Explain>),
    /// Compare a table of expected decisions with policy files; nobody is asked
    #[command(after_help = check::HELP)]
    Test(check::Test),
    /// Print what policies can speak of
    #[command(after_help = "Example:\n  myelin policy schema > myelin.cedarschema\n  myelin policy schema --admin")]
    Schema(Schema),
}

/// Apply policies
#[derive(Args, Debug)]
pub(super) struct Apply {
    /// A policy, or a folder of files that end in `.cedar`
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// Only check them, here and at the router
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// A question
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// Who: a service's SPIFFE name
    principal: String,
    /// What: publish, request, reply or subscribe
    action: Action,
    /// With which topic, or pattern
    resource: String,
    /// At which site [default: that of the router that is asked]
    #[arg(long)]
    site: Option<String>,
    /// A group of the service's token; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    event: question::EventArgs,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// The types of policies
#[derive(Args, Debug)]
pub(super) struct Schema {
    /// Those of policies about the admin API
    #[arg(long)]
    admin: bool,
}

impl Policy {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Test(test) => return test.run(),
            Self::Schema(Schema { admin }) => {
                print(if admin { ADMIN_SCHEMA } else { SCHEMA });
                return Ok(());
            }
            _ => {}
        }
        block_on(async {
            match self {
                Self::Ls(all) => all.run(POLICIES.path, show).await,
                Self::Describe(one) => one.run(&POLICIES, |policy| text(&policy["text"])).await,
                Self::Rm(one) => one.run(&POLICIES).await,
                Self::Apply(apply) => apply.run().await,
                Self::Explain(explain) => explain.run().await,
                Self::Test(_) | Self::Schema(_) => Ok(()),
            }
        })
    }
}

impl Apply {
    async fn run(self) -> Result<()> {
        let files = files::read(&self.path)?;
        // All of them, before the first is sent.
        files::compile(&files)?;
        let api = self.admin.api()?;
        let (mut done, mut made) = (Vec::new(), Ok(()));
        let (query, action) = if self.dry_run { ("?dry-run=true", "checked") } else { ("", "applied") };
        for file in &files {
            let path = POLICIES.at(&file.name) + query;
            match api.tell(Method::PUT, &path, Body::Json(json!({"text": file.text}))).await {
                Ok(revision) => done.push(POLICIES.change(&file.name, action, revision)),
                Err(failure) => {
                    made = Err(failure.doing(file.path.display()));
                    break;
                }
            }
            if !self.shape.is_json() {
                say!("policy {} {}", file.name, if self.dry_run { "could hold" } else { "holds" });
            }
        }
        // Once, and also where one was refused: those before it hold.
        if self.shape.is_json() {
            let failed = made.as_ref().err().map(|failure| &failure.what);
            say!("{}", json!({"policies": done, "dry_run": self.dry_run, "failed": failed}));
        }
        made
    }
}

impl Explain {
    async fn run(self) -> Result<()> {
        let question = json!({
            "principal": self.principal,
            "action": self.action.name(),
            "resource": self.resource,
            "site": self.site,
            "groups": self.groups,
            "event": self.event.read(),
        });
        let api = self.admin.api()?;
        let answer: Value = api.ask(Method::POST, "/v1/policies/explain", Body::Json(question)).await?;
        self.shape.tell(&answer, |answer| format!("{}\n", explained(answer)));
        Ok(())
    }
}

fn explained(answer: &Value) -> String {
    let allowed = if answer["allowed"] == true { "allowed" } else { "denied" };
    let (reasons, default) = (text(&answer["reasons"]), text(&answer["default"]));
    if let Some(foreign) = answer["foreign"].as_str() {
        return format!("{allowed}: {foreign} (`myelin tenant`), whatever the policies say");
    }
    match answer["verdict"].as_str() {
        Some("permit") => format!("{allowed}: {reasons} permits it, and no policy forbids it"),
        Some("forbid") => format!("{allowed}: {reasons} forbids it"),
        Some("by-event") => {
            format!("it depends on the event: {reasons} looks at each; give its head (--type, --header ..)")
        }
        _ => format!("{allowed}: no policy speaks of it, and [policy] default is `{default}`"),
    }
}

fn show(value: &Value) -> String {
    let statements = |text: &Value| {
        let lines = text.as_str().unwrap_or_default().lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with("//")).collect::<Vec<_>>().join(" ")
    };
    let rows = items(value, "policies").iter().map(|policy| {
        let shown = statements(&policy["text"]);
        let end = shown.floor_char_boundary(SHOWN_BYTES);
        let dots = if end < shown.len() { "…" } else { "" };
        vec![text(&policy["name"]), format!("{}{dots}", &shown[..end])]
    });
    let mut shown = table(&["policy", "says"], &[], rows);
    let unspoken = if value["allows_unspoken"] == true { "allowed" } else { "denied" };
    let default = text(&value["default"]);
    shown += &format!("\nwhat no policy speaks of is {unspoken} ([policy] default is `{default}`)\n");
    let denials = value["denials"].as_object().into_iter().flatten();
    let denials = denials.map(|(action, count)| format!("{action} {count}")).collect::<Vec<_>>().join(", ");
    let withheld = text(&value["withheld"]);
    shown += &format!("denied since this router's start: {denials}; {withheld} copies withheld\n");
    shown
}

/// Bytes of a policy that a list shows.
const SHOWN_BYTES: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_shown_with_what_they_have_denied() {
        let shown = show(&json!({
            "policies": [{"name": "orders", "text": "// Who.\npermit (principal,\n  action, resource);\n"}],
            "allows_unspoken": false, "default": "deny", "denials": {"publish": 3, "subscribe": 1}, "withheld": 7,
        }));
        for part in ["permit (principal, action, resource);", "is denied", "publish 3, subscribe 1; 7 copies"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }

    #[test]
    fn an_answer_says_who_decided() {
        let told = |allowed, verdict, reasons: &[&str]| {
            explained(&json!({"allowed": allowed, "verdict": verdict, "reasons": reasons, "default": "deny"}))
        };
        assert_eq!(told(true, "permit", &["a#1", "b#2"]), "allowed: a#1, b#2 permits it, and no policy forbids it");
        assert_eq!(told(false, "forbid", &["a#1"]), "denied: a#1 forbids it");
        assert_eq!(told(false, "silent", &[]), "denied: no policy speaks of it, and [policy] default is `deny`");
    }
}
