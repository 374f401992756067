//! `myelin trust ls|change|sign|show|apply`

use super::admin::{Admin, Api};
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::http::Body;
use super::listing::{Shape, items, table, text};
use super::resource::Show;
use super::signing::{Signer, public_key, read_text};
use super::values::{print, say, unless_there};
use crate::files::write_atomically;
use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use hyper::Method;
use myelin_catalog::{Head, KeyId, MinisignSignature, ModulePattern, TrustAction, TrustChange};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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
    /// Overwrite what is there, and the signatures in it
    #[arg(long, requires = "out")]
    force: bool,
    #[command(flatten)]
    shape: Shape,
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
    #[command(flatten)]
    shape: Shape,
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
    shape: Shape,
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
            Self::Apply(Apply { file, shape, admin }) => {
                block_on(async { apply(&admin.api()?, &read(&file)?.change, shape).await })
            }
        }
    }
}

impl Change {
    async fn run(self) -> Result<()> {
        if let Some(out) = &self.out {
            unless_there(out, self.force)?;
        }
        let api = self.admin.api()?;
        let there = api.get("/v1/trust").await?;
        let told = "what the router says of its newest change";
        let after: Head = serde_json::from_value(there["after"].clone()).context(told)?;
        let change = TrustChange { after, actions: self.actions()?, signatures: Vec::new() };
        let Some(out) = &self.out else { return apply(&api, &change, self.shape).await };
        let roots = Roots::of(&there["roots"]).context(told)?;
        let draft = Draft { change, roots };
        write(out, &draft)?;
        let change = &draft.change;
        let done = json!({"kind": "trust", "action": "written", "file": out, "changes": listed(change)});
        self.shape.tell(&done, |_| {
            let (out, things) = (out.display(), count(change.actions.len(), "thing"));
            let what = what(change);
            format!("{out}: {things} to be signed, `{what}`\n  next: myelin trust sign {out} --key ROOT.key\n")
        });
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
        let mut draft = read(&self.file)?;
        let change = &mut draft.change;
        let text = match (&self.signer, &self.signature) {
            (Some(signer), _) => signer.sign(change.statement().as_bytes(), "myelin trust change")?,
            (None, Some(file)) => read_text(file)?,
            (None, None) => return Err(Failure::new(Exit::Usage, "give --key or --signature")),
        };
        let signature: MinisignSignature = text.parse().context("the signature")?;
        let key_id = signature.key_id();
        if let Some(roots) = draft.roots.as_ref().filter(|roots| !roots.keys.contains(&key_id)) {
            let what = format!("{key_id} is no root key: its signature would not count");
            return Err(Failure::new(Exit::Usage, what).next(format!("sign with one of {}", roots.listed())));
        }
        // Once more by the same key takes the place of what it had signed.
        change.signatures.retain(|there| there.key_id() != key_id);
        change.signatures.push(signature);
        let signatures = change.signatures.len();
        write(&self.file, &draft)?;
        let done = json!({"kind": "trust", "action": "signed", "file": self.file, "key_id": key_id.to_string(),
            "signatures": signatures, "missing": draft.missing()});
        self.shape.tell(&done, |_| {
            let (file, so_far) = (self.file.display(), count(signatures, "signature"));
            format!("{file}: signed by {key_id}; {so_far} so far\n  next: {}\n", draft.next(&self.file))
        });
        Ok(())
    }
}

impl ShowChange {
    fn run(self) -> Result<()> {
        let Draft { change, .. } = read(&self.file)?;
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

async fn apply(api: &Api, change: &TrustChange, shape: Shape) -> Result<()> {
    let body = serde_json::to_value(change).context("the change")?;
    let done: Value = api.ask(Method::POST, "/v1/trust/changes", Body::Json(body)).await?;
    let (revision, changes) = (&done["revision"], listed(change));
    let done = json!({"kind": "trust", "action": "applied", "revision": revision, "changes": changes});
    shape.tell(&done, |done| format!("{} (revision {})\n", what(change), done["revision"]));
    Ok(())
}

/// A change in a file, and by whom it has to be signed. Whoever changes what is said of the roots there deceives those who
/// sign about what is left to do, and no router: it asks its own.
#[derive(Debug)]
struct Draft {
    change: TrustChange,
    /// None where the router that was asked had no root set, or the file is of a version before.
    roots: Option<Roots>,
}

/// What a file calls them.
const ROOTS: &str = "roots";

/// The root keys when the change was made.
#[derive(Debug, Deserialize, Serialize)]
struct Roots {
    keys: Vec<KeyId>,
    threshold: usize,
}

impl Roots {
    /// Those that a router has told; none where it has none.
    fn of(told: &Value) -> serde_json::Result<Option<Self>> {
        if told.is_null() {
            return Ok(None);
        }
        let ids: Vec<&Value> = items(told, "keys").iter().map(|key| &key["key_id"]).collect();
        serde_json::from_value(json!({"keys": ids, "threshold": told["threshold"]})).map(Some)
    }

    fn listed(&self) -> String {
        self.keys.iter().map(KeyId::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl Draft {
    fn parse(text: &str) -> serde_json::Result<Self> {
        let mut value: Value = serde_json::from_str(text)?;
        let roots = value.as_object_mut().and_then(|fields| fields.remove(ROOTS));
        let roots = roots.map(serde_json::from_value).transpose()?;
        Ok(Self { change: serde_json::from_value(value)?, roots })
    }

    fn text(&self) -> serde_json::Result<String> {
        let mut value = serde_json::to_value(&self.change)?;
        if let (Some(fields), Some(roots)) = (value.as_object_mut(), &self.roots) {
            fields.insert(ROOTS.to_owned(), serde_json::to_value(roots)?);
        }
        serde_json::to_string_pretty(&value)
    }

    /// How many signatures of root keys it needs still; `None` where that is not known here.
    fn missing(&self) -> Option<usize> {
        let roots = self.roots.as_ref()?;
        let counts = |signature: &&MinisignSignature| roots.keys.contains(&signature.key_id());
        Some(roots.threshold.saturating_sub(self.change.signatures.iter().filter(counts).count()))
    }

    /// What is to be done with it now.
    fn next(&self, file: &Path) -> String {
        let file = file.display();
        let Some(roots) = &self.roots else {
            return format!("myelin trust apply {file}, once as many root keys have signed as `myelin trust ls` says");
        };
        match self.missing().unwrap_or_default() {
            0 => format!("myelin trust apply {file}"),
            missing => {
                let missing = count(missing, "more signature");
                format!("{missing} by the root keys {}: myelin trust sign {file} --key ROOT.key", roots.listed())
            }
        }
    }
}

fn read(file: &Path) -> Result<Draft> {
    let text = read_text(file)?;
    Draft::parse(&text).map_err(|error| {
        Failure::new(Exit::Usage, format!("{}: {error}", file.display())).next("`myelin trust change --out` makes one")
    })
}

fn write(file: &Path, draft: &Draft) -> Result<()> {
    let text = draft.text().context("the change")?;
    write_atomically(file, &format!("{text}\n")).map_err(|error| Failure::of_file(file, error))
}

fn listed(change: &TrustChange) -> Vec<String> {
    change.actions.iter().map(told).collect()
}

fn what(change: &TrustChange) -> String {
    listed(change).join("; ")
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::cli::signing::make_keys;

    /// A folder with the keys a, b and c, and a change that two of a and b have to sign.
    fn draft(folder: &Path, has_roots: bool) -> PathBuf {
        let [a, b, c] = ["a", "b", "c"].map(|name| make_keys(&folder.join(name), true, None).unwrap());
        let change = TrustChange {
            after: Head::default(),
            actions: vec![TrustAction::RemoveKey { key_id: c.id() }],
            signatures: Vec::new(),
        };
        let keys = [a, b].map(|key| json!({"key_id": key.id().to_string(), "public_key": key.to_string()}));
        let told = if has_roots { json!({"threshold": 2, "keys": keys, "rev": 1}) } else { Value::Null };
        let file = folder.join("change.json");
        write(&file, &Draft { change, roots: Roots::of(&told).unwrap() }).unwrap();
        file
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        sign: Sign,
    }

    fn sign(file: &Path, key: &str) -> Result<()> {
        let key = file.with_file_name(key);
        let words = ["sign", file.to_str().unwrap(), "--key", key.to_str().unwrap()];
        <Line as clap::Parser>::try_parse_from(words).unwrap().sign.run()
    }

    #[test]
    fn who_signs_is_told_how_many_are_missing_and_who_is_no_root_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = draft(folder.path(), true);
        let next = || read(&file).unwrap().next(&file);
        assert!(next().starts_with("2 more signatures by the root keys "), "{}", next());
        let refused = sign(&file, "c.key").unwrap_err();
        assert!(refused.exit == Exit::Usage && refused.what.contains("is no root key"), "{refused}");
        sign(&file, "a.key").unwrap();
        sign(&file, "a.key").unwrap();
        assert!(next().starts_with("1 more signature by the root keys "), "{}", next());
        sign(&file, "b.key").unwrap();
        assert!(next().starts_with("myelin trust apply "), "{}", next());
        assert_eq!(read(&file).unwrap().change.signatures.len(), 2);
    }

    #[test]
    fn a_change_without_roots_is_signed_by_whoever_wants_and_unknown_fields_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = draft(folder.path(), false);
        sign(&file, "c.key").unwrap();
        assert!(read(&file).unwrap().next(&file).contains("as many root keys have signed"));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replacen('{', "{\"other\": 1,", 1)).unwrap();
        assert_eq!(read(&file).unwrap_err().exit, Exit::Usage);
    }
}
