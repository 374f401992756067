//! Where things are: the root, the target directory, the packages and the tracked files.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::shell;

/// The workspaces of filters, beside the main one. `examples/filters/*` hold one workspace each.
pub(crate) const FILTERS: &str = "filters";
/// Example filters: the folders below are packages of their own.
pub(crate) const EXAMPLE_FILTERS: &str = "examples/filters";
/// New files of these kinds are looked at before they are tracked.
const SOURCE_EXTENSIONS: &[&str] = &[".rs", ".py", ".sh", ".js", ".mjs", ".md", ".toml"];

/// The checked-out repository and its target directory.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// `CARGO_TARGET_DIR` where set, else `target`.
    pub(crate) target: PathBuf,
}

/// One package as `cargo metadata` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its name, such as `myelin-wire`.
    pub(crate) name: String,
    /// The folder of its manifest, relative to the root.
    pub(crate) folder: String,
    /// Names of the packages it depends on, of every kind (normal, build, dev).
    pub(crate) dependencies: Vec<String>,
    /// Names of its binaries.
    pub(crate) binaries: Vec<String>,
}

impl Repository {
    /// The repository that this xtask was compiled in.
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().context("xtask is not inside a repository")?.to_owned();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => root.join(folder),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// `program` in the root.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        shell::command(program, &self.root)
    }

    /// The cargo that runs this xtask, in the root.
    pub(crate) fn cargo(&self) -> Command {
        self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// The target directory that all guests share, so that std is built for Wasm once.
    pub(crate) fn guest_target(&self) -> PathBuf {
        self.target.join("guests")
    }

    /// Where filter components go.
    pub(crate) fn filter_components(&self) -> PathBuf {
        self.target.join("filters")
    }

    /// The tracked files and new sources that are not ignored, relative to the root, sorted. Other new files, such as
    /// a log that somebody left there, are nobody's concern until they are added.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let list = |which: &str| {
            shell::output(self.command("git").args(["ls-files", which, "--exclude-standard", "-z"]))
                .context("tidy needs git and a clone of the repository")
        };
        let (tracked, new) = (list("--cached")?, list("--others")?);
        let is_source = |path: &&str| SOURCE_EXTENSIONS.iter().any(|extension| path.ends_with(extension));
        let paths = tracked.split('\0').chain(new.split('\0').filter(is_source));
        // A file removed but not yet committed is still listed.
        let exists = |path: &&str| !path.is_empty() && self.root.join(path).is_file();
        let mut files: Vec<String> = paths.filter(exists).map(str::to_owned).collect();
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// The packages of the workspace whose manifest is `manifest` (relative to the root), without their dependencies.
    pub(crate) fn packages(&self, manifest: &str) -> Result<Vec<Package>> {
        let text = shell::output(
            self.cargo()
                .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
                .arg(manifest),
        )?;
        parse_packages(&text, &self.root)
    }

    /// Manifests of every workspace here: the main one, the stock filters, each example filter.
    pub(crate) fn workspaces(&self) -> Result<Vec<String>> {
        let mut manifests = vec!["Cargo.toml".to_owned()];
        manifests.extend(self.filter_workspaces()?);
        Ok(manifests)
    }

    /// Manifests of the filters' workspaces only.
    pub(crate) fn filter_workspaces(&self) -> Result<Vec<String>> {
        let mut manifests = Vec::new();
        if self.root.join(FILTERS).join("Cargo.toml").is_file() {
            manifests.push(format!("{FILTERS}/Cargo.toml"));
        }
        manifests.extend(self.crates_below(EXAMPLE_FILTERS)?.into_iter().map(|folder| format!("{folder}/Cargo.toml")));
        Ok(manifests)
    }

    /// Folders of all filters, stock ones first.
    pub(crate) fn filter_folders(&self) -> Result<Vec<String>> {
        let mut folders = self.crates_below(FILTERS)?;
        folders.extend(self.crates_below(EXAMPLE_FILTERS)?);
        Ok(folders)
    }

    /// Folders directly below `parent` that hold a `Cargo.toml`, sorted.
    fn crates_below(&self, parent: &str) -> Result<Vec<String>> {
        let path = self.root.join(parent);
        if !path.is_dir() {
            return Ok(Vec::new());
        }
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
            let entry = entry?;
            if entry.path().join("Cargo.toml").is_file() {
                folders.push(format!("{parent}/{}", entry.file_name().to_string_lossy()));
            }
        }
        folders.sort();
        Ok(folders)
    }
}

fn parse_packages(text: &str, root: &Path) -> Result<Vec<Package>> {
    let metadata: Value = serde_json::from_str(text).context("cargo metadata printed something that is not JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    packages.iter().map(|package| parse_package(package, root)).collect()
}

fn parse_package(package: &Value, root: &Path) -> Result<Package> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let manifest = text(&package["manifest_path"]);
    let folder = Path::new(&manifest).parent().context("a manifest without a folder")?;
    let folder = folder.strip_prefix(root).unwrap_or(folder).to_string_lossy().into_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let dependencies = list(&package["dependencies"]).iter().map(|entry| text(&entry["name"])).collect();
    let binaries = list(&package["targets"])
        .iter()
        .filter(|target| list(&target["kind"]).iter().any(|kind| kind == "bin"))
        .map(|target| text(&target["name"]))
        .collect();
    Ok(Package { name: text(&package["name"]), folder, dependencies, binaries })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Package, parse_packages};

    #[test]
    fn metadata_becomes_packages() {
        let text = r#"{"packages":[{"name":"myelin","manifest_path":"/r/router/Cargo.toml",
            "dependencies":[{"name":"myelin-wire","kind":null},{"name":"tempfile","kind":"dev"}],
            "targets":[{"name":"myelin","kind":["bin"]},{"name":"myelin","kind":["lib"]}]}]}"#;
        let expected = Package {
            name: "myelin".into(),
            folder: "router".into(),
            dependencies: vec!["myelin-wire".into(), "tempfile".into()],
            binaries: vec!["myelin".into()],
        };
        assert_eq!(parse_packages(text, Path::new("/r")).expect("valid metadata"), [expected]);
        assert!(parse_packages("{}", Path::new("/r")).is_err());
    }
}
