//! Builds the filters in JavaScript into components, with the SDK in `sdk-js` and its pinned packages.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::repository::Repository;
use crate::shell;

/// The SDK: its build script makes the component.
const SDK: &str = "sdk-js";
/// Filters in JavaScript: each folder below is a package.
const FILTERS: &str = "examples/filters-js";
/// What a component's file is called beside its folder: the Rust twin has the folder's name.
const SUFFIX: &str = "-js.wasm";

/// Builds all of them into `target/filters/<folder>-js.wasm`.
pub(crate) fn build_all(repository: &Repository) -> Result<()> {
    install_packages(repository, SDK)?;
    let components = repository.filter_components();
    std::fs::create_dir_all(&components).with_context(|| format!("cannot make {}", components.display()))?;
    let folders = packages_below(&repository.root.join(FILTERS))?;
    if folders.is_empty() {
        bail!("there is no filter below {FILTERS}/");
    }
    for name in folders {
        let mut build = repository.command("node");
        build.arg(format!("{SDK}/build.mjs")).arg(format!("{FILTERS}/{name}")).arg("--out");
        shell::run(build.arg(components.join(format!("{name}{SUFFIX}"))))?;
    }
    Ok(())
}

/// Installs what the lock file of a folder names; does nothing when that was done from the same file.
pub(crate) fn install_packages(repository: &Repository, folder: &str) -> Result<()> {
    let folder = repository.root.join(folder);
    let lock = folder.join("package-lock.json");
    let wanted = std::fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let stamp = folder.join("node_modules/.installed-lock.json");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    // Scripts of packages, which would run with our rights, are not needed.
    shell::run(shell::command("npm", &folder).args(["ci", "--ignore-scripts"]))?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Names of the folders that hold a `package.json`, sorted.
fn packages_below(parent: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(parent).with_context(|| format!("cannot read {}", parent.display()))? {
        let entry = entry?;
        if entry.path().join("package.json").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::{FILTERS, SDK, packages_below};
    use crate::repository::Repository;

    #[test]
    fn every_filter_in_javascript_has_a_twin_with_its_fixtures() {
        let root = Repository::find().expect("inside the repository").root;
        let names = packages_below(&root.join(FILTERS)).expect("the folder is there");
        assert!(!names.is_empty());
        for name in names {
            assert!(root.join("examples/filters").join(&name).join("fixtures").is_dir(), "{name} has no twin in Rust");
        }
    }

    #[test]
    fn the_sdk_pins_its_packages() {
        let root = Repository::find().expect("inside the repository").root;
        let read = |file: &str| -> serde_json::Value {
            let text = std::fs::read_to_string(root.join(SDK).join(file)).expect("it is there");
            serde_json::from_str(&text).expect("it is JSON")
        };
        let (manifest, lock) = (read("package.json"), read("package-lock.json"));
        for (name, version) in manifest["dependencies"].as_object().expect("it has some") {
            let version = version.as_str().unwrap_or_default();
            assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{name} {version} is no exact version");
            assert_eq!(lock["packages"][format!("node_modules/{name}")]["version"], version);
        }
    }
}
