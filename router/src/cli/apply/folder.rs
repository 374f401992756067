//! A folder of declarations: every file is one thing, called like the file.

use super::state::{Beside, Kind, State, Subject};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::schema::candidate::format_of;
use crate::cli::values::{inside, read_text};
use myelin_catalog::limits::{POLICY_LEN_MAX_BYTES, SCHEMA_LEN_MAX_BYTES};
use myelin_catalog::{Binding, Name, SubjectName, Tenant, TopicRule};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Files of a folder. The catalog takes 10,000 subjects with a file beside each; more is a wrong folder.
const FILES_MAX: usize = 50_000;
/// Folders inside each other; a link to a folder above ends here.
const DEPTH_MAX: usize = 8;
/// Bytes of a topic's, a binding's or a schema's own file: a binding's configuration is most of it.
const DECLARATION_BYTES_MAX: usize = 1024 * 1024;
/// Faults that are told at once.
const FAULTS_SHOWN_MAX: usize = 20;

/// What a folder says.
#[derive(Debug, Default)]
pub(super) struct Folder {
    pub(super) state: State,
    /// The kinds that it speaks of: those that have a folder. Of others it says nothing, not even that there are none.
    pub(super) kinds: BTreeSet<Kind>,
    /// The file of each thing.
    pub(super) files: BTreeMap<(Kind, String), PathBuf>,
    faults: Vec<String>,
    /// Where it is.
    root: PathBuf,
}

/// Reads a folder.
///
/// # Errors
/// All that is wrong with its files, together.
pub(super) fn read(root: &Path) -> Result<Folder> {
    let mut folder = Folder { root: root.to_owned(), ..Folder::default() };
    for entry in entries(root)? {
        let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !entry.is_dir() || name.starts_with('.') {
            continue;
        }
        if let Err(why) = inside(root, &entry) {
            folder.fault(&entry, why);
            continue;
        }
        match Kind::ALL.into_iter().find(|kind| kind.folder() == name) {
            Some(kind) => folder.read_kind(kind, &entry)?,
            // A slip in a name must not look like a folder that says nothing.
            None => folder
                .fault(&entry, "a folder here is called tenants, schemas, topics, policies or bindings; rename it"),
        }
    }
    if folder.kinds.is_empty() && folder.faults.is_empty() {
        let what = format!("{} has no folder tenants, schemas, topics, policies or bindings", root.display());
        return Err(Failure::new(Exit::Usage, what).next("`myelin export DIR` writes one of what there is"));
    }
    refuse(&folder.faults, Exit::Usage).map(|()| folder)
}

/// The rule for topics in a file, or all of a folder, checked.
///
/// # Errors
/// All that is wrong with them, together.
pub(in crate::cli) fn rules(path: &Path) -> Result<Vec<TopicRule>> {
    let mut folder = Folder { root: path.to_owned(), ..Folder::default() };
    match path.is_dir() {
        true => folder.read_kind(Kind::Topic, path)?,
        false => {
            if let Err(why) = folder.read_file(Kind::Topic, path) {
                folder.fault(path, why);
            }
        }
    }
    refuse(&folder.faults, Exit::Usage)?;
    Ok(folder.state.topics.into_values().collect())
}

/// A failure that tells all of them; none where there are none.
pub(super) fn refuse(faults: &[String], exit: Exit) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    let mut what = format!("nothing was changed; {} must be mended first:", counted(faults.len(), "thing"));
    for fault in faults.iter().take(FAULTS_SHOWN_MAX) {
        what += &format!("\n  {}", fault.replace('\n', "\n    "));
    }
    if faults.len() > FAULTS_SHOWN_MAX {
        what += &format!("\n  and {} more", faults.len() - FAULTS_SHOWN_MAX);
    }
    Err(Failure::new(exit, what))
}

/// `1 thing`, `2 things`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{end}")
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let told = |error: std::io::Error| Failure::of_file(folder, error);
    let found = std::fs::read_dir(folder).map_err(told)?;
    let mut paths = Vec::new();
    for entry in found.take(FILES_MAX + 1) {
        paths.push(entry.map_err(told)?.path());
    }
    if paths.len() > FILES_MAX {
        return Err(Failure::new(Exit::Usage, format!("{} has more than {FILES_MAX} files", folder.display())));
    }
    paths.sort();
    Ok(paths)
}

/// The files in a folder and in those inside it, hidden ones left out, by path; and what is wrong with others that would be
/// read.
fn files(root: &Path, folder: &Path, is_read: impl Fn(&Path) -> bool) -> Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    let mut open = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = open.pop() {
        if depth > DEPTH_MAX {
            let what = format!("{}: folders are more than {DEPTH_MAX} inside each other", folder.display());
            return Err(Failure::new(Exit::Usage, what));
        }
        for path in entries(&folder)? {
            let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if is_hidden {
                continue;
            }
            match inside(root, &path) {
                // What nobody reads may lead anywhere.
                Err(_) if !path.is_dir() && !is_read(&path) => {}
                Err(why) => faults.push(format!("{}: {why}", path.display())),
                Ok(()) if path.is_dir() => open.push((path, depth + 1)),
                Ok(()) => found.push(path),
            }
        }
        if found.len() > FILES_MAX {
            return Err(Failure::new(Exit::Usage, format!("{} has more than {FILES_MAX} files", folder.display())));
        }
    }
    found.sort();
    Ok((found, faults))
}

/// Whether a file is a declaration: expected decisions stand beside policies, for `myelin policy test`; and everything may
/// be explained.
fn is_read(kind: Kind, path: &Path) -> bool {
    ending(path) != "md" && (kind != Kind::Policy || ending(path) == "cedar")
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

/// A declaration in TOML or JSON, which may leave out its own name.
fn declared<T: DeserializeOwned>(path: &Path, name: &Name) -> Result<T, String> {
    serde_json::from_value(fields(path, name)?.into()).map_err(|error| error.to_string())
}

/// The fields of a declaration, its name among them.
fn fields(path: &Path, name: &Name) -> Result<Map<String, Value>, String> {
    let text = read_text(path, DECLARATION_BYTES_MAX)?;
    let mut fields: Map<String, Value> = match ending(path) {
        "toml" => toml::from_str(&text).map_err(|error| error.to_string())?,
        "json" => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        _ => return Err("declarations here end in .toml or .json; rename it, or move it elsewhere".into()),
    };
    let said = fields.entry("name").or_insert_with(|| name.as_str().into());
    if said != name.as_str() {
        return Err(format!("it says that its name is {said}; leave that out, or rename the file"));
    }
    Ok(fields)
}

/// A tenant, which may leave out its root where that is called like itself.
fn tenant(path: &Path, name: &Name) -> Result<Tenant, String> {
    let mut fields = fields(path, name)?;
    fields.entry("root").or_insert_with(|| name.as_str().into());
    let tenant: Tenant = serde_json::from_value(fields.into()).map_err(|error| error.to_string())?;
    tenant.validate().map_err(|error| error.to_string())?;
    Ok(tenant)
}

impl Folder {
    fn fault(&mut self, path: &Path, why: impl Display) {
        self.faults.push(format!("{}: {why}", path.display()));
    }

    fn read_kind(&mut self, kind: Kind, folder: &Path) -> Result<()> {
        self.kinds.insert(kind);
        let (files, outside) = files(&self.root, folder, |path| is_read(kind, path))?;
        self.faults.extend(outside);
        if kind == Kind::Schema {
            self.read_schemas(&files);
            return Ok(());
        }
        for path in files {
            if !is_read(kind, &path) {
                continue;
            }
            if let Err(why) = self.read_file(kind, &path) {
                self.fault(&path, why);
            }
        }
        Ok(())
    }

    fn read_file(&mut self, kind: Kind, path: &Path) -> Result<(), String> {
        let name: Name = stem(path).parse().map_err(|error| format!("it names its {}: {error}", kind.noun()))?;
        match kind {
            Kind::Tenant => drop(self.state.tenants.insert(name.clone(), tenant(path, &name)?)),
            Kind::Topic => {
                let rule: TopicRule = declared(path, &name)?;
                rule.validate().map_err(|error| error.to_string())?;
                self.state.topics.insert(name.clone(), rule);
            }
            Kind::Binding => {
                let mut binding: Binding = declared(path, &name)?;
                binding.validate().map_err(|error| error.to_string())?;
                // As the catalog keeps it.
                binding.config.sort_all_objects();
                self.state.bindings.insert(name.clone(), binding);
            }
            Kind::Policy => drop(self.state.policies.insert(name.clone(), read_text(path, POLICY_LEN_MAX_BYTES)?)),
            Kind::Schema => {}
        }
        self.place(kind, name.to_string(), path)
    }

    /// Remembers where a thing is; two files of one name are a fault.
    fn place(&mut self, kind: Kind, name: String, path: &Path) -> Result<(), String> {
        match self.files.insert((kind, name.clone()), path.to_path_buf()) {
            Some(other) => Err(format!("{} is called `{name}` as well; rename one", other.display())),
            None => Ok(()),
        }
    }

    fn read_schemas(&mut self, files: &[PathBuf]) {
        let is_beside = |path: &&PathBuf| ending(path) == "toml";
        let mut beside: BTreeMap<PathBuf, &PathBuf> =
            files.iter().filter(is_beside).map(|path| (path.with_extension(""), path)).collect();
        for path in files.iter().filter(|path| !is_beside(path) && ending(path) != "md") {
            let own = beside.remove(&path.with_extension(""));
            if let Err(why) = self.read_schema(path, own) {
                self.fault(path, why);
            }
        }
        for path in beside.into_values() {
            self.fault(path, "there is no schema beside it: a file of that name that ends in .avsc, .json or .proto");
        }
    }

    fn read_schema(&mut self, path: &Path, beside: Option<&PathBuf>) -> Result<(), String> {
        let format = format_of(path).ok_or("schemas end in .avsc, .json or .proto; rename it, or move it elsewhere")?;
        let beside = match beside {
            None => Beside::default(),
            Some(path) => read_text(path, DECLARATION_BYTES_MAX)
                .and_then(|text| toml::from_str(&text).map_err(|error| error.to_string()))
                .map_err(|why| format!("beside it, {}: {why}", path.display()))?,
        };
        let subject: SubjectName = match beside.subject {
            Some(subject) => subject,
            None => stem(path).parse().map_err(|error| format!("it names its subject: {error}"))?,
        };
        let mut references = beside.references;
        references.sort();
        let text = read_text(path, SCHEMA_LEN_MAX_BYTES)?;
        let schema = Subject { format, text, references, compatibility: beside.compatibility };
        self.state.schemas.insert(subject.clone(), schema);
        self.place(Kind::Schema, subject.to_string(), path)
    }

    /// The file of a thing, to begin what is said about it.
    pub(super) fn file(&self, kind: Kind, name: &str) -> String {
        let file = self.files.get(&(kind, name.to_owned()));
        file.map_or_else(|| format!("{} {name}", kind.noun()), |path| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_that_leaves_the_folder_is_refused_and_nothing_of_its_target_is_shown() {
        let all = tempfile::tempdir().unwrap();
        let (root, outside) = (all.path().join("mesh.d"), all.path().join("outside"));
        let (topics, policies) = (root.join("topics"), root.join("policies"));
        [&topics, &policies, &outside].into_iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        fs::write(outside.join("secret.toml"), "root:x:0:0").unwrap();
        fs::write(policies.join(".data"), "permit (principal, action, resource);").unwrap();
        // As Kubernetes mounts what it configures.
        symlink(".data", policies.join("all.cedar")).unwrap();
        assert_eq!(read(&root).unwrap().state.policies.len(), 1);
        // What nobody reads may lead anywhere.
        symlink(outside.join("secret.toml"), topics.join("README.md")).unwrap();
        symlink(outside.join("secret.toml"), policies.join("table.toml")).unwrap();
        assert_eq!(read(&root).unwrap().state.policies.len(), 1);

        let told = |link: &Path, target: &Path| {
            symlink(target, link).unwrap();
            let failures = [read(&root).unwrap_err(), rules(&topics).unwrap_err()];
            fs::remove_file(link).unwrap();
            for failure in failures {
                let named = failure.what.contains(&link.display().to_string());
                assert!(failure.exit == Exit::Usage && named && !failure.what.contains("root:x"), "{failure}");
            }
        };
        told(&topics.join("pw.toml"), &outside.join("secret.toml"));
        told(&topics.join("pw.toml"), Path::new("../../outside/secret.toml"));
        told(&topics.join("more"), &outside);
        fs::remove_dir_all(&topics).unwrap();
        symlink(&outside, &topics).unwrap();
        let failure = read(&root).unwrap_err();
        assert!(failure.what.contains("outside the folder") && !failure.what.contains("root:x"), "{failure}");
    }
}
