//! `myelin apply -f DIR` and `myelin export DIR`

mod asyncapi;
mod check;
mod current;
mod export;
mod folder;
mod plan;
mod registry;
mod schemas;
mod state;

pub(super) use asyncapi::AsyncApi;
pub(super) use export::Export;
pub(super) use folder::rules;
pub(super) use registry::{Named, Registry};
pub(super) use state::Reference;

use super::admin::{Admin, Api};
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::http::Body;
use super::listing::{Output, table};
use super::rollout;
use super::values::{print, say};
use clap::Args;
use folder::{Folder, counted};
use plan::{Action, Change, Plan};
use schemas::Judge;
use serde_json::Value;
use state::Kind;
use std::path::PathBuf;

const HELP: &str = "\
A folder has, of what it speaks of:
  tenants/NAME.toml|.json              services, root, quota, shares: as `myelin tenant describe` shows them
  schemas/SUBJECT.avsc|.json|.proto    and beside it SUBJECT.toml: compatibility, references, subject
  topics/NAME.toml|.json               pattern, residency, schema: as `myelin topic describe` shows them
  policies/NAME.cedar                  as `myelin policy apply` takes them
  bindings/NAME.toml|.json             module, pattern, config, ..: as `myelin bind -f` takes them

Examples:
  myelin export mesh.d                 writes what there is
  myelin apply -f mesh.d --dry-run     checks it, and shows what would change
  myelin apply -f mesh.d --prune       and removes what the folder does not have

Everything is checked before anything is changed: schemas for compatibility, policies together, rules and bindings for
what they name; exit code 2 for a file that cannot be read, 7 for what does not fit. Applied twice, it changes nothing.
Bindings are made active by one rollout at the end.";

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
    /// Remove what the folder does not have, of the kinds that it has a folder of
    #[arg(long)]
    prune: bool,
    /// Only stage bindings; `myelin rollout start` makes them active, with canaries and waves where you want them
    #[arg(long)]
    no_rollout: bool,
    /// Why, for those who read `myelin rollout history`
    #[arg(long, value_name = "TEXT", conflicts_with = "no_rollout")]
    note: Option<String>,
    /// Only when the catalog's revision is still this one, as a dry run showed it; exit code 5 otherwise
    #[arg(long, value_name = "REVISION")]
    if_match: Option<u64>,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    admin: Admin,
}

impl Apply {
    pub(super) fn run(self) -> Result<()> {
        let folder = folder::read(&self.file)?;
        block_on(self.apply(&folder))
    }

    async fn apply(&self, folder: &Folder) -> Result<()> {
        let api = self.admin.api()?;
        let plan = self.plan(&api, folder).await?;
        let (is_applied, mut rollout) = (!self.dry_run, Value::Null);
        if self.output == Output::Table {
            print(shown(&plan));
        }
        if is_applied && !plan.is_empty() {
            // What somebody else changed since is not overwritten unseen.
            unchanged_since(plan.revision, current::revision(&api).await?)?;
            rollout = self.perform(&api, &plan).await?;
        }
        match self.output {
            Output::Json => say!("{}", plan.for_programs(is_applied, &rollout)),
            Output::Table => say!("{}", summary(&plan, is_applied)),
        }
        Ok(())
    }

    /// What differs, when all of it can be.
    async fn plan(&self, api: &Api, folder: &Folder) -> Result<Plan> {
        let current = current::read(api).await?;
        if let Some(revision) = self.if_match {
            unchanged_since(revision, current.revision)?;
        }
        let mut plan = Plan { revision: current.revision, ..Plan::default() };
        let of_tenants = plan.compare_tenants(folder, &current, self.prune).err();
        let mut judge = Judge::new(folder, &current, Registry::new(api));
        judge.judge(&mut plan).await?;
        plan.compare(folder, &current, self.prune);
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

    /// Makes the changes, then active what is staged; gives the answer about that: a report, or a proposal where a second
    /// person has to approve it.
    async fn perform(&self, api: &Api, plan: &Plan) -> Result<Value> {
        for (done, change) in plan.changes.iter().enumerate() {
            let Change { kind, name, action, .. } = change;
            send(api, change).await.map_err(|failure| {
                let before = counted(done, "change");
                let failure = failure.doing(format!("{} {name}, after {before} that took effect", kind.noun()));
                match failure.next {
                    Some(_) => failure,
                    None => failure.next("run it again when this is mended: what took effect is not done twice"),
                }
            })?;
            if self.output == Output::Table {
                say!("{} {name} {}", kind.noun(), action.done());
            }
        }
        if plan.activates.is_empty() {
            return Ok(Value::Null);
        }
        let note = self.note.clone().or_else(|| Some(format!("myelin apply -f {}", self.file.display())));
        let begun = rollout::activate(api, note).await;
        let begun = begun.map_err(|failure| failure.doing("what is staged is not active"))?;
        if self.output == Output::Table {
            print(rollout::begun(&begun));
        }
        Ok(begun)
    }
}

async fn send(api: &Api, change: &Change) -> Result<()> {
    for call in &change.calls {
        let body = call.body.clone().map_or(Body::None, Body::Json);
        api.tell(call.method.clone(), &call.path, body).await?;
    }
    Ok(())
}

fn unchanged_since(planned: u64, now: u64) -> Result<()> {
    if planned == now {
        return Ok(());
    }
    let what = format!("the catalog has revision {now}, and not {planned}, for which the plan was made");
    Err(Failure::new(Exit::Conflict, what).next("look at the plan anew with --dry-run"))
}

fn shown(plan: &Plan) -> String {
    let mut shown = String::new();
    if !plan.is_empty() {
        let rows = plan.changes.iter().map(|change| {
            let Change { kind, name, action, details, .. } = change;
            vec![action.name().to_owned(), kind.noun().to_owned(), name.clone(), details.join("; ")]
        });
        let rollout = (!plan.activates.is_empty()).then(|| {
            vec!["start".to_owned(), "rollout".to_owned(), String::new(), format!("of {}", plan.activates.join(", "))]
        });
        shown += &table(&["do", "kind", "name", "what"], &[], rows.chain(rollout));
        shown.push('\n');
    }
    for remark in &plan.remarks {
        shown += &format!("note: {remark}\n");
    }
    shown
}

fn summary(plan: &Plan, is_applied: bool) -> String {
    let unchanged = counted(plan.unchanged, "thing");
    if plan.is_empty() {
        return format!("nothing to change: {unchanged} as the folder says (revision {})", plan.revision);
    }
    let counts: Vec<_> = [Action::Create, Action::Update, Action::Remove]
        .into_iter()
        .map(|action| {
            let verb = if is_applied { action.done().to_owned() } else { format!("to {}", action.name()) };
            format!("{} {verb}", plan.count(action))
        })
        .collect();
    let counts = counts.join(", ");
    match is_applied {
        true => format!("applied: {counts}, {} unchanged", plan.unchanged),
        false => {
            format!("plan: {counts}, {} unchanged (revision {}); nothing was changed", plan.unchanged, plan.revision)
        }
    }
}
