//! What waits for a second person, as that person reads it.

mod bindings;

use super::{ACTIVATION_MAX, told, watch};
use crate::cli::admin::Admin;
use crate::cli::failure::Result;
use crate::cli::http::Body;
use crate::cli::listing::{Shape, items, shown, table, text};
use crate::cli::resource::change;
use clap::Args;
use hyper::Method;
use serde_json::Value;

/// Begin what somebody else has proposed
#[derive(Args, Debug)]
pub(in crate::cli) struct Approve {
    /// The proposal's number; `myelin rollout history` shows those that wait
    #[arg(value_name = "PROPOSAL")]
    proposal: u64,
    /// Show it with all that its bindings say, before and after, and its rules and policies in full; do not begin it
    #[arg(long)]
    show: bool,
    /// Show how it goes until it ends; exit code 7 when it was taken back
    #[arg(short, long, conflicts_with = "show")]
    watch: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// Let a proposal wait no longer
#[derive(Args, Debug)]
pub(in crate::cli) struct Withdraw {
    /// The proposal's number; `myelin rollout history` shows those that wait
    #[arg(value_name = "PROPOSAL")]
    proposal: u64,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

impl Approve {
    pub(super) async fn run(self) -> Result<()> {
        let (api, path) = (self.admin.api()?, path(self.proposal));
        if self.show {
            let proposal = api.get(&path).await?;
            let text =
                |it: &Value| format!("{}{}{}{}", line(it), details(it), bindings::all(it), content(&it["content"]));
            self.shape.tell(&proposal, text);
            return Ok(());
        }
        let patient = api.patient(ACTIVATION_MAX);
        let begun: Value = watch::telling(&api, patient.ask(Method::POST, &path, Body::None)).await?;
        let is_over = begun["generation"].is_u64();
        if let (true, false, Some(id)) = (self.watch, is_over, begun["id"].as_u64()) {
            return watch::watch(&api, id, self.shape).await;
        }
        self.shape.tell(&begun, |begun| match is_over {
            true => told(begun),
            false => {
                let (id, state) = (text(&begun["id"]), text(&begun["state"]));
                format!("rollout {id}: {state}; `myelin rollout status --watch` shows how it goes\n")
            }
        });
        Ok(())
    }
}

impl Withdraw {
    pub(super) async fn run(self) -> Result<()> {
        let id = self.proposal;
        let revision = self.admin.api()?.tell(Method::DELETE, &path(id), Body::None).await?;
        let mut done = change("proposal", &id.to_string(), "withdrawn", revision);
        done["proposal"] = id.into();
        self.shape.tell(&done, |_| format!("proposal {id} is withdrawn\n"));
        Ok(())
    }
}

fn path(proposal: u64) -> String {
    format!("/v1/rollouts/{proposal}/approve")
}

/// What waits for a second person.
pub(super) fn waiting(value: &Value) -> String {
    let proposals = items(value, "proposals");
    if proposals.is_empty() {
        return String::new();
    }
    let rows = proposals.iter().map(|proposal| {
        let minutes = proposal["expires_in_s"].as_u64().unwrap_or_default().div_ceil(60);
        let number = text(&proposal["proposal"]);
        vec![number, wants(proposal), text(&proposal["by"]), format!("{minutes} min"), text(&proposal["note"])]
    });
    let rows = table(&["proposal", "wants", "by", "waits still", "note"], &["proposal"], rows);
    let each =
        proposals.iter().map(|proposal| format!("proposal {}:\n{}", text(&proposal["proposal"]), details(proposal)));
    format!(
        "\nwaiting for somebody else (`myelin rollout approve [--show]`):\n{rows}{}",
        each.collect::<Vec<_>>().concat()
    )
}

fn wants(proposal: &Value) -> String {
    match &proposal["rollout"] {
        Value::Null => text(&proposal["wants"]),
        rollout => format!("{} of {}", text(&proposal["wants"]), text(rollout)),
    }
}

fn line(proposal: &Value) -> String {
    let by = shown(&text(&proposal["by"]));
    format!("proposal {} by {by}: {}\n", text(&proposal["proposal"]), wants(proposal))
}

/// What it brings, how it goes on, and the digest of all that.
fn details(proposal: &Value) -> String {
    let mut told = format!("  of {}\n", text(&proposal["digest"]));
    let mut line = |text: &str| told += &format!("  {}\n", shown(text));
    if proposal["only_changes"] == true {
        line("rules and policies alone: what is staged stays staged");
    }
    for filter in items(proposal, "filters") {
        let field = |name: &str| text(&filter[name]);
        let fields = items(filter, "fields").iter().map(text).collect::<Vec<_>>().join(", ");
        let fields = if fields.is_empty() { fields } else { format!(" ({fields})") };
        let module = if filter["module"].is_null() { String::new() } else { format!(": {}", field("module")) };
        let digest = field("digest").chars().take(12).collect::<String>();
        let digest = if digest.is_empty() { digest } else { format!(" {digest}") };
        line(&format!("binding {} {}{fields}{module}{digest}", field("binding"), field("action")));
    }
    for change in items(proposal, "changes") {
        let field = |name: &str| text(&change[name]);
        let detail = field("detail");
        let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
        line(&format!("{} {} {}{detail}", field("kind"), field("name"), field("action")));
    }
    match &proposal["plan"] {
        Value::Null if proposal["rollout"].is_null() => line("every site swaps as soon as all have prepared"),
        Value::Null => {}
        plan => line(&way(plan)),
    }
    told
}

/// How a rollout goes on, on one line.
fn way(plan: &Value) -> String {
    let list = |name: &str| items(plan, name).iter().map(text).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    if plan["shadow_s"].as_u64().is_some_and(|seconds| seconds > 0) {
        let held = if plan["shadow_hold"] == true { ", held" } else { "" };
        parts.push(format!("shadow {} s of {} %{held}", text(&plan["shadow_s"]), text(&plan["shadow_percent"])));
    }
    let canary = list("canary");
    if !canary.is_empty() {
        parts.push(format!("canary {canary}"));
    }
    parts.push(format!("waves {} %", list("waves")));
    parts.push(format!("observe {} s, {} events", text(&plan["observe_s"]), text(&plan["events_min"])));
    let gates = plan["gates"].as_object().into_iter().flatten();
    let gates: Vec<_> =
        gates.filter(|(_, most)| !most.is_null()).map(|(gate, most)| format!("{gate}={most}")).collect();
    parts.push(match &*gates {
        [] => "no gates".to_owned(),
        _ => format!("gates {}", gates.join(" ")),
    });
    if plan["accept_failures"] == true {
        parts.push("FAILURES OF RECORDED EVENTS ARE ACCEPTED".to_owned());
    }
    parts.join("; ")
}

/// The rules and policies in full.
fn content(content: &Value) -> String {
    let mut told = String::new();
    for rule in items(content, "topics") {
        told += &format!("\ntopic rule {}:\n  {}\n", shown(&text(&rule["name"])), shown(&rule.to_string()));
    }
    for policy in items(content, "policies") {
        told += &format!("\npolicy {}:\n", shown(&text(&policy["name"])));
        for line in text(&policy["text"]).lines() {
            told += &format!("  {}\n", shown(line));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn history_shows_what_waits_for_somebody_else() {
        let shown = waiting(&json!({"proposals": [
            {"proposal": 41, "by": "ann", "wants": "rollout", "note": "try it", "expires_in_s": 3_541, "digest": "6d1f"},
            {"proposal": 42, "by": "bob", "wants": "promote", "rollout": 17, "expires_in_s": 30}]}));
        for part in ["41", "try it", "60 min", "promote of 17", " 1 min", "of 6d1f", "every site swaps"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }

    #[test]
    fn what_is_approved_is_seen() {
        let proposal = json!({"proposal": 7, "by": "ann", "wants": "rollout", "digest": "6d1f", "only_changes": false,
            "filters": [
                {"binding": "gate", "action": "changed", "fields": ["module"], "module": "gate@2.0.0", "digest": "ab".repeat(32)},
                {"binding": "old", "action": "removed", "fields": [], "module": null, "digest": null}],
            "changes": [{"kind": "policy", "name": "all", "action": "set", "detail": ""}],
            "plan": {"canary": ["eu1"], "waves": [50, 100], "shadow_s": 0, "observe_s": 60, "events_min": 10,
                "gates": {"traps_ppm": 1_000, "rejects_ppm": null}, "accept_failures": true}});
        assert_eq!(
            details(&proposal),
            "  of 6d1f\n  binding gate changed (module): gate@2.0.0 abababababab\n  binding old removed\n  policy all set\n  \
             canary eu1; waves 50, 100 %; observe 60 s, 10 events; gates traps_ppm=1000; FAILURES OF RECORDED EVENTS ARE \
             ACCEPTED\n"
        );
        let alone = details(&json!({"only_changes": true, "plan": {"waves": [100], "gates": {}}}));
        assert!(alone.contains("rules and policies alone") && alone.contains("no gates"), "{alone}");
        let full = content(&json!({"policies": [{"name": "all", "text": "permit (\n  principal\u{1b});"}],
            "topics": [{"name": "eu", "pattern": "a/**", "residency": {"allow": ["eu"]}}]}));
        assert!(full.contains("policy all:\n  permit (\n    principal") && full.contains("residency"), "{full}");
        assert!(!full.contains('\u{1b}'), "{full:?}");
    }
}
