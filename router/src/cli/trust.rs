//! `myelin trust ls|change|sign|show|apply`

use super::admin::{Admin, Api};
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::http::Body;
use super::listing::{items, table, text};
use super::resource::Show;
use super::signing::{Signer, public_key, read_text};
use super::values::{print, say};
use crate::files::write_atomically;
use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use hyper::Method;
use myelin_catalog::{Head, KeyId, MinisignSignature, ModulePattern, TrustAction, TrustChange};
use serde_json::Value;
use std::path::{Path, PathBuf};

const CHANGE_HELP: &str = "\
Examples:
  myelin trust change --add-key release.pub --modules 'orders-*' --note 'release team' --apply
  myelin trust change --root-key ann.pub --root-key bob.pub --root-key eve.pub --threshold 2 --apply
  myelin trust change --remove-key 9D7DC3D9B5A1DFA4 --out change.json

While the mesh has no root set, --apply is enough. Afterwards a change needs signatures: write it with --out, have the
holders of root keys run `myelin trust sign change.json --key THEIRS`, wherever they are, and apply it.";

const SIGN_HELP: &str = "\
Examples:
  myelin trust show change.json                        look at it first
  myelin trust sign change.json --key ann.key
  myelin trust show change.json --statement > s && minisign -S -s ann.key -m s
  myelin trust sign change.json --signature s.minisig  the same by minisign, on a machine without Myelin";

/// Whose signatures on modules count, and who decides about that
#[derive(Debug, Subcommand)]
pub(super) enum Trust {
    /// Show the keys and the root set
    #[command(after_help = "Examples:\n  \
        myelin trust ls\n  \
        myelin trust ls -o json | jq '.keys[].key_id'")]
    Ls(Show),
    /// Make a change: add and remove keys, set the root keys
    #[command(after_help = CHANGE_HELP)]
    Change(Change),
    /// Agree to a change with a root key; no router is needed
    #[command(after_help = SIGN_HELP)]
    Sign(Sign),
    /// Show what a change does and who has signed it; no router is needed
    #[command(after_help = "Examples:\n  \
        myelin trust show change.json\n  \
        myelin trust show change.json --statement > s && minisign -S -s ann.key -m s")]
    Show(ShowChange),
    /// Apply a change that enough have signed
    #[command(after_help = "Example:\n  \
        myelin trust sign change.json --key ann.key && myelin trust apply change.json")]
    Apply(Apply),
}

/// Make a change
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("where").required(true).args(["apply", "out"]))]
pub(super) struct Change {
    /// A key that may sign modules, its file or its text; may be repeated
    #[arg(long, value_name = "PUB", requires = "modules")]
    add_key: Vec<String>,
    /// The modules that the added keys may sign: names, or beginnings with `*`
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', requires = "add_key")]
    modules: Vec<ModulePattern>,
    /// Whose the added keys are
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// The id of a key that may sign no longer; may be repeated
    #[arg(long, value_name = "ID")]
    remove_key: Vec<KeyId>,
    /// A root key from now on, its file or its text: name all of them
    #[arg(long, value_name = "PUB", requires = "threshold")]
    root_key: Vec<String>,
    /// How many root keys must agree to a change
    #[arg(long, value_name = "K", requires = "root_key")]
    threshold: Option<u8>,
    /// Where the change goes, to be signed
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Apply it at once: while there is no root set
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    admin: Admin,
}

/// Agree to a change
#[derive(Args, Debug)]
pub(super) struct Sign {
    /// The change
    file: PathBuf,
    #[command(flatten)]
    signer: Option<Signer>,
    /// A signature that minisign has made of `myelin trust show FILE --statement`
    #[arg(long, value_name = "FILE", conflicts_with = "key", required_unless_present = "key")]
    signature: Option<PathBuf>,
}

/// Show a change
#[derive(Args, Debug)]
pub(super) struct ShowChange {
    /// The change
    file: PathBuf,
    /// Print only what is signed, byte for byte
    #[arg(long)]
    statement: bool,
}

/// Apply a change
#[derive(Args, Debug)]
pub(super) struct Apply {
    /// The change
    file: PathBuf,
    #[command(flatten)]
    admin: Admin,
}

impl Trust {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Sign(sign) => sign.run(),
            Self::Show(show) => show.run(),
            Self::Ls(all) => block_on(all.run("/v1/trust", shown)),
            Self::Change(change) => block_on(change.run()),
            Self::Apply(Apply { file, admin }) => block_on(async { apply(&admin.api()?, &read(&file)?).await }),
        }
    }
}

impl Change {
    async fn run(self) -> Result<()> {
        let api = self.admin.api()?;
        let after: Head = serde_json::from_value(api.get("/v1/trust").await?["after"].clone())
            .context("what the router says of its newest change")?;
        let change = TrustChange { after, actions: self.actions()?, signatures: Vec::new() };
        let Some(out) = &self.out else { return apply(&api, &change).await };
        write(out, &change)?;
        say!("{}: {} to be signed, `{}`", out.display(), count(change.actions.len(), "thing"), what(&change));
        say!("  next: myelin trust sign {} --key ROOT.key", out.display());
        Ok(())
    }

    fn actions(&self) -> Result<Vec<TrustAction>> {
        let mut actions = Vec::new();
        for key in &self.add_key {
            let (modules, note) = (self.modules.clone(), self.note.clone());
            actions.push(TrustAction::AddKey { public_key: public_key(key)?, modules, note });
        }
        actions.extend(self.remove_key.iter().map(|key_id| TrustAction::RemoveKey { key_id: *key_id }));
        if let Some(threshold) = self.threshold {
            let keys = self.root_key.iter().map(|key| public_key(key)).collect::<Result<_>>()?;
            actions.push(TrustAction::SetRoots { keys, threshold });
        }
        match actions.is_empty() {
            true => Err(Failure::new(Exit::Usage, "this changes nothing")
                .next("give --add-key, --remove-key, or --root-key with --threshold")),
            false => Ok(actions),
        }
    }
}

impl Sign {
    fn run(self) -> Result<()> {
        let mut change = read(&self.file)?;
        let text = match (&self.signer, &self.signature) {
            (Some(signer), _) => signer.sign(change.statement().as_bytes(), "myelin trust change")?,
            (None, Some(file)) => read_text(file)?,
            (None, None) => return Err(Failure::new(Exit::Usage, "give --key or --signature")),
        };
        let signature: MinisignSignature = text.parse().context("the signature")?;
        let key_id = signature.key_id();
        // Once more by the same key takes the place of what it had signed.
        change.signatures.retain(|there| there.key_id() != key_id);
        change.signatures.push(signature);
        write(&self.file, &change)?;
        say!("{}: signed by {key_id}; {} so far", self.file.display(), count(change.signatures.len(), "signature"));
        say!("  next: myelin trust apply {}", self.file.display());
        Ok(())
    }
}

impl ShowChange {
    fn run(self) -> Result<()> {
        let change = read(&self.file)?;
        if self.statement {
            print(change.statement());
            return Ok(());
        }
        change.actions.iter().for_each(|action| say!("{}", told(action)));
        say!("after revision {} ({})", change.after.rev, change.after.hash.short());
        change.signatures.iter().for_each(|signature| say!("signed by {}", signature.key_id()));
        Ok(())
    }
}

async fn apply(api: &Api, change: &TrustChange) -> Result<()> {
    let body = serde_json::to_value(change).context("the change")?;
    let done: Value = api.ask(Method::POST, "/v1/trust/changes", Body::Json(body)).await?;
    say!("{} (revision {})", what(change), done["revision"]);
    Ok(())
}

fn read(file: &Path) -> Result<TrustChange> {
    let text = read_text(file)?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(Exit::Usage, format!("{}: {error}", file.display())).next("`myelin trust change --out` makes one")
    })
}

fn write(file: &Path, change: &TrustChange) -> Result<()> {
    let text = serde_json::to_string_pretty(change).context("the change")?;
    Ok(write_atomically(file, &format!("{text}\n")).with_context(|| format!("{}", file.display()))?)
}

fn what(change: &TrustChange) -> String {
    change.actions.iter().map(told).collect::<Vec<_>>().join("; ")
}

fn told(action: &TrustAction) -> String {
    match action {
        TrustAction::AddKey { public_key, modules, note } => {
            let modules = modules.iter().map(ModulePattern::to_string).collect::<Vec<_>>().join(", ");
            let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
            format!("key {}{note} may sign {modules}", public_key.id())
        }
        TrustAction::RemoveKey { key_id } => format!("key {key_id} may sign no longer"),
        TrustAction::SetRoots { keys, threshold } => {
            let ids: Vec<_> = keys.iter().map(|key| key.id().to_string()).collect();
            format!("{threshold} of the root keys {} must agree", ids.join(", "))
        }
    }
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn shown(value: &Value) -> String {
    let keys: Vec<Vec<String>> = items(value, "keys")
        .iter()
        .map(|key| {
            let state = match key["removed_rev"].as_u64() {
                Some(rev) => format!("removed by {rev}"),
                None => "trusted".to_owned(),
            };
            vec![text(&key["key_id"]), state, text(&key["modules"]), text(&key["note"])]
        })
        .collect();
    let keys = match keys.is_empty() {
        true => "no key may sign modules; `myelin trust change --add-key` lets one\n".to_owned(),
        false => table(&["key", "state", "may sign", "note"], &[], keys),
    };
    let roots = match &value["roots"] {
        Value::Null => "no root set: whoever may use the admin API changes trust alone\n".to_owned(),
        roots => {
            let ids: Vec<_> = items(roots, "keys").iter().map(|key| text(&key["key_id"])).collect();
            format!("changes need {} of the root keys {}\n", text(&roots["threshold"]), ids.join(", "))
        }
    };
    format!("{keys}\n{roots}")
}
