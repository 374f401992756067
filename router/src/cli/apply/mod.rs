//! `myelin apply -f DIR` and `myelin export DIR`

mod asyncapi;
mod check;
mod course;
mod current;
mod export;
mod folder;
mod plan;
mod registry;
mod schemas;
mod state;
mod topics;

pub(super) use asyncapi::AsyncApi;
pub(super) use export::Export;
pub(super) use folder::rules;
pub(super) use registry::{Named, Registry};
pub(super) use state::Reference;

use super::admin::{Admin, Api};
use super::connect::block_on;
use super::failure::{Exit, Result};
use super::listing::{Shape, table};
use super::rollout;
use super::values::{print, say};
use clap::Args;
use course::{Course, unchanged_since};
use folder::{Folder, counted};
use plan::{Action, By, Change, Plan};
use schemas::Judge;
use serde_json::Value;
use state::Kind;
use std::path::PathBuf;
use topics::Bringing;

/// Sites that a plan names in one line.
const SITES_SHOWN_MAX: usize = 4;

const HELP: &str = "\
A folder has, of what it speaks of:
  tenants/NAME.toml|.json              services, root, quota, shares: as `myelin tenant describe` shows them
  schemas/SUBJECT.avsc|.json|.proto    and beside it SUBJECT.toml: compatibility, references, subject
  topics/NAME.toml|.json               pattern, residency, schema: as `myelin topic describe` shows them
  policies/NAME.cedar                  as `myelin policy apply` takes them
  bindings/NAME.toml|.json             module, pattern, config, ..: as `myelin bind -f` takes them

Examples:
  myelin export mesh.d                 writes what there is
  myelin apply -f mesh.d --dry-run     checks it, and shows what would change where
  myelin apply -f mesh.d --dry-run --exit-code   ends with 8 when something would change
  myelin apply -f mesh.d --prune       and removes what the folder does not have

Everything is checked before anything is changed: schemas for compatibility, policies together, rules and bindings for
what they name; exit code 2 for a file that cannot be read, 7 for what does not fit. Applied twice, it changes nothing.
One rollout at the end makes bindings active, and brings the rules for topics that judge payloads by another schema; the
routers that have captures judge those first, and refuse what would turn recorded events back.";

/// Make tenants, schemas, topics, policies and bindings what a folder says
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Apply {
    /// The folder
    #[arg(short, long, value_name = "DIR")]
    file: PathBuf,
    /// Check everything and show the plan; change nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: exit code 8 when something would change, 0 when nothing would
    #[arg(long, requires = "dry_run")]
    exit_code: bool,
    /// Remove what the folder does not have, of the kinds that it has a folder of
    #[arg(long)]
    prune: bool,
    /// Only stage bindings, and leave rules as they are that judge by another schema; `myelin rollout start` brings them,
    /// with canaries and waves where you want them
    #[arg(long)]
    no_rollout: bool,
    /// Go on although a rule would turn back events that routers have recorded (`myelin capture`)
    #[arg(long, conflicts_with = "no_rollout")]
    accept_failures: bool,
    /// Why, for those who read `myelin rollout history`
    #[arg(long, value_name = "TEXT", conflicts_with = "no_rollout")]
    note: Option<String>,
    /// Only when the catalog's revision is still this one, as a dry run showed it; exit code 5 otherwise
    #[arg(long, value_name = "REVISION")]
    if_match: Option<u64>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

impl Apply {
    pub(super) fn run(self) -> Result<Option<Exit>> {
        let folder = folder::read(&self.file)?;
        block_on(self.apply(&folder))
    }

    /// Gives the exit code that says that something would change, where it is asked for.
    async fn apply(&self, folder: &Folder) -> Result<Option<Exit>> {
        let api = self.admin.api()?;
        let plan = self.plan(&api, folder).await?;
        let mut course = Course::new(plan.revision, self.if_match.is_some());
        if !self.shape.is_json() {
            print(shown(&plan));
        }
        let mut made = Ok(Value::Null);
        if !self.dry_run && !plan.is_empty() {
            // What somebody else changed since is not overwritten unseen.
            unchanged_since(plan.revision, current::revision(&api).await?)?;
            made = self.perform(&api, &plan, &mut course).await;
        }
        match &made {
            made if self.shape.is_json() => say!("{}", plan.for_programs(!self.dry_run, &course, made.as_ref())),
            Ok(rollout) => say!("{}", summary(&plan, !self.dry_run, rollout["proposal"].as_u64())),
            Err(_) => {}
        }
        made.map(|_| (self.exit_code && !plan.is_empty()).then_some(Exit::WouldChange))
    }

    /// What differs, when all of it can be.
    async fn plan(&self, api: &Api, folder: &Folder) -> Result<Plan> {
        let current = current::read(api).await?;
        if let Some(revision) = self.if_match {
            unchanged_since(revision, current.revision)?;
        }
        let mut plan = Plan { revision: current.revision, ..Plan::default() };
        let of_tenants = plan.compare_tenants(folder, &current, self.prune).err();
        let mut judge = Judge::new(folder, &current, Registry::new(api), self.accept_failures);
        judge.judge(&mut plan).await?;
        plan.sites = current.sites.iter().map(|site| site.name.to_string()).collect();
        let bringing = match (self.no_rollout, plan.sites.is_empty()) {
            (_, true) => Bringing::AtOnce { accept_failures: self.accept_failures },
            (true, false) => Bringing::Later,
            (false, false) => Bringing::Rollout,
        };
        plan.compare_topics(folder, &current, bringing, |subject| judge.meant(subject));
        plan.compare(folder, &current, self.prune);
        if self.prune {
            plan.prune_topics(folder, &current, bringing);
        }
        if self.prune && folder.kinds.contains(&Kind::Schema) {
            judge.prune(&mut plan).await?;
        }
        if !self.no_rollout && folder.kinds.contains(&Kind::Binding) {
            plan.activate(&current);
        }
        let mut faults = judge.faults;
        faults.extend(of_tenants.into_iter().flatten());
        faults.extend(check::check(api, folder, &current, &plan).await?);
        folder::refuse(&faults, Exit::GateFailed).map(|()| plan)
    }

    /// Makes the changes: first what holds at once, then by rollouts what is staged and brought, at last what nothing needs
    /// any more. Gives the answer about the rollout: how it ended, or a proposal where a second person has to approve it,
    /// which is as far as it goes then.
    async fn perform(&self, api: &Api, plan: &Plan, course: &mut Course) -> Result<Value> {
        let is_last = |change: &&Change| change.kind == Kind::Schema && change.action == Action::Remove;
        let (last, first): (Vec<_>, Vec<_>) = plan.changes.iter().partition(is_last);
        self.make(api, &first, course).await?;
        let rollout = self.roll_out(api, plan, course).await?;
        if rollout::is_proposal(&rollout) && !last.is_empty() {
            eprintln!("schemas are removed once it is approved: run this again then");
            return Ok(rollout);
        }
        self.make(api, &last, course).await?;
        Ok(rollout)
    }

    /// Makes those of the changes that hold at once.
    async fn make(&self, api: &Api, changes: &[&Change], course: &mut Course) -> Result<()> {
        for Change { kind, name, action, by, .. } in changes {
            let By::Calls(calls) = by else { continue };
            course.send(api, calls).await.map_err(|failure| {
                let before = counted(course.done.len(), "change");
                let failure = failure.doing(format!("{} {name}, after {before} that took effect", kind.noun()));
                match failure.next {
                    Some(_) => failure,
                    None => failure.next("run it again when this is mended: what took effect is not done twice"),
                }
            })?;
            course.done.insert((*kind, name.clone()));
            if !self.shape.is_json() {
                say!("{} {name} {}", kind.noun(), action.done());
            }
        }
        Ok(())
    }

    async fn roll_out(&self, api: &Api, plan: &Plan, course: &mut Course) -> Result<Value> {
        let is_needed = !plan.activates.is_empty() || !plan.brought().is_empty();
        if is_needed && course.is_alone {
            unchanged_since(course.revision, current::revision(api).await?)?;
        }
        let rollout = self.bring(api, plan).await?;
        if is_needed {
            // The mesh has written down what it did by itself.
            course.revision = current::revision(api).await?;
        }
        Ok(rollout)
    }

    async fn bring(&self, api: &Api, plan: &Plan) -> Result<Value> {
        let note = self.note.clone().or_else(|| Some(format!("myelin apply -f {}", self.file.display())));
        let mut rollout = Value::Null;
        let parts = plan.brought();
        for (at, changes) in parts.iter().enumerate() {
            let only_changes = at > 0 || plan.activates.is_empty();
            let begun = rollout::bring(api, changes, only_changes, self.accept_failures, note.as_deref()).await;
            rollout = begun.map_err(|failure| failure.doing("rules that judge payloads are as they were"))?;
            self.tell(&rollout);
            if rollout::is_proposal(&rollout) {
                if at + 1 < parts.len() {
                    eprintln!("further rules come once it is approved: run this again then");
                }
                return Ok(rollout);
            }
        }
        if parts.is_empty() && !plan.activates.is_empty() {
            let begun = rollout::activate(api, note).await;
            rollout = begun.map_err(|failure| failure.doing("what is staged is not active"))?;
            self.tell(&rollout);
        }
        Ok(rollout)
    }

    fn tell(&self, rollout: &Value) {
        if !self.shape.is_json() {
            print(rollout::begun(rollout));
        }
    }
}

fn shown(plan: &Plan) -> String {
    let mut shown = String::new();
    if !plan.is_empty() {
        let everywhere = places(&plan.sites, &plan.sites);
        let rows = plan.changes.iter().map(|change| {
            let Change { kind, name, action, details, sites, .. } = change;
            let place = sites.as_ref().map_or_else(|| everywhere.clone(), |sites| places(sites, &plan.sites));
            vec![action.name().to_owned(), kind.noun().to_owned(), name.clone(), place, details.join("; ")]
        });
        let rules = plan.changes.iter().filter(|change| matches!(change.by, By::Rollout(_)));
        let brought = rules.map(|change| format!("{} {}", change.kind.noun(), change.name));
        let brought: Vec<_> = plan.activates.iter().cloned().chain(brought).collect();
        let rollout = (!brought.is_empty()).then(|| {
            let what = format!("of {}", brought.join(", "));
            vec!["start".to_owned(), "rollout".to_owned(), String::new(), everywhere.clone(), what]
        });
        shown += &table(&["do", "kind", "name", "where", "what"], &[], rows.chain(rollout));
        shown.push('\n');
    }
    for remark in &plan.remarks {
        shown += &format!("note: {remark}\n");
    }
    shown
}

/// The sites where something changes, of all that there are, for a column.
fn places(sites: &[String], all: &[String]) -> String {
    match (sites.len(), all.len()) {
        (_, 0) => "this router".to_owned(),
        (0, _) => "nowhere".to_owned(),
        (1, 1) => sites[0].clone(),
        (some, all) if some == all => format!("all {all} sites"),
        (some, _) if some > SITES_SHOWN_MAX => {
            format!("{} and {} more", sites[..SITES_SHOWN_MAX].join(", "), some - SITES_SHOWN_MAX)
        }
        _ => sites.join(", "),
    }
}

fn summary(plan: &Plan, is_applied: bool, proposal: Option<u64>) -> String {
    let unchanged = counted(plan.unchanged, "thing");
    if plan.is_empty() {
        return format!("nothing to change: {unchanged} as the folder says (revision {})", plan.revision);
    }
    let counts: Vec<_> = [Action::Create, Action::Update, Action::Remove]
        .into_iter()
        .map(|action| {
            let verb = if is_applied { action.done().to_owned() } else { format!("to {}", action.name()) };
            format!("{} {verb}", plan.count(action, proposal))
        })
        .collect();
    let counts = counts.join(", ");
    if let Some(proposal) = proposal {
        let waiting = plan.changes.iter().filter(|change| plan.waits(change));
        let mut waiting: Vec<_> = waiting.map(|change| format!("{} {}", change.kind.noun(), change.name)).collect();
        // Those that were staged before, and that this rollout makes active as well.
        let others = plan.activates.iter().map(|name| format!("{} {name}", Kind::Binding.noun()));
        waiting.extend(others.filter(|name| !waiting.contains(name)).collect::<Vec<_>>());
        return format!(
            "not applied yet: {} until somebody else approves proposal {proposal} (`myelin rollout approve {proposal}`); all \
             else is: {counts}, {} unchanged",
            waiting.join(", "),
            plan.unchanged
        );
    }
    match is_applied {
        true => format!("applied: {counts}, {} unchanged", plan.unchanged),
        false => {
            format!("plan: {counts}, {} unchanged (revision {}); nothing was changed", plan.unchanged, plan.revision)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::plan::Brought;
    use super::*;
    use crate::cli::failure::Failure;

    fn change(kind: Kind, name: &str, by: By) -> Change {
        Change { kind, name: name.to_owned(), action: Action::Create, details: Vec::new(), sites: None, by }
    }

    #[test]
    fn what_waits_for_a_second_person_is_not_told_as_done() {
        let mut plan = Plan { unchanged: 3, ..Plan::default() };
        plan.changes.push(change(Kind::Topic, "orders", By::Rollout(Brought::Rule(Value::Null))));
        plan.changes.push(change(Kind::Binding, "check", By::Calls(Vec::new())));
        plan.changes.push(change(Kind::Policy, "all", By::Calls(Vec::new())));
        plan.activates = vec!["check".to_owned(), "before".to_owned()];
        assert_eq!(
            summary(&plan, true, Some(41)),
            "not applied yet: topic orders, binding check, binding before until somebody else approves proposal 41 (`myelin \
             rollout approve 41`); all else is: 1 created, 0 updated, 0 removed, 3 unchanged"
        );
        assert_eq!(summary(&plan, true, None), "applied: 3 created, 0 updated, 0 removed, 3 unchanged");
        let mut course = Course::new(7, false);
        course.done.insert((Kind::Policy, "all".to_owned()));
        let told = plan.for_programs(true, &course, Ok(&serde_json::json!({"proposal": 41})));
        assert_eq!((&told["applied"], &told["proposal"]), (&false.into(), &41.into()));
        let waits: Vec<_> = told["changes"].as_array().into_iter().flatten().map(|change| &change["waits"]).collect();
        assert_eq!(waits, [true, true, false]);
        let done = plan.for_programs(true, &course, Ok(&Value::Null));
        assert_eq!((&done["applied"], &done["changes"][0]["waits"]), (&true.into(), &false.into()));

        // Midway: what took effect is told.
        let failure = Failure::new(Exit::Denied, "policy all: no (forbidden-role)");
        let midway = plan.for_programs(true, &course, Err(&failure));
        let done: Vec<_> = midway["changes"].as_array().into_iter().flatten().map(|change| &change["done"]).collect();
        assert_eq!(done, [false, false, true]);
        assert_eq!((&midway["applied"], &midway["failed"]), (&false.into(), &"policy all: no (forbidden-role)".into()));
    }
}
