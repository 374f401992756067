//! The SDK that travels in this program: `arena`, `sdk-guest` and `wit` of the very sources it was built from.
//!
//! They keep their places relative to each other, and their manifests their words: only the workspace above them is
//! written anew, with what they inherit from it.

use anyhow::{Context, Result};
use std::path::Path;
use toml::{Table, Value};

/// Relative path and text of each file.
pub(super) const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));
/// The packages, as folders.
const PACKAGES: [&str; 3] = ["arena", "sdk-guest", "sdk-guest/macros"];
/// Folder of the SDK itself among them.
pub(super) const SDK: &str = "sdk-guest";
/// The manifest of the workspace above them.
const WORKSPACE: &str = "Cargo.toml";

const NOTE: &str = "\
# The SDK for filters, as it was in the `myelin` that made this package. Filters built with it speak the contract in
# wit/. Change nothing here: another version comes with `myelin filter new` of another `myelin`.
";

/// Writes the SDK below `folder`.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(folder: &Path) -> Result<()> {
    for (name, text) in FILES {
        let text = if *name == WORKSPACE { workspace(text)? } else { (*text).to_owned() };
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().context("every file lies in a folder")?)?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The workspace's manifest: of the repository's own, what the packages inherit.
fn workspace(manifest: &str) -> Result<String> {
    let given: Table = manifest.parse().context("the manifest of the SDK's workspace")?;
    let given = given.get("workspace").and_then(Value::as_table).context("it has no [workspace]")?;
    let manifests: Vec<_> = PACKAGES.iter().filter_map(|package| file(&format!("{package}/Cargo.toml"))).collect();
    let inherits = |name: &str| {
        let ways = [format!("\n{name}.workspace"), format!("\n{name} = {{ workspace")];
        manifests.iter().any(|manifest| ways.iter().any(|way| manifest.contains(way)))
    };
    let mut own = Table::new();
    own.insert("resolver".into(), given.get("resolver").cloned().unwrap_or_else(|| "3".into()));
    own.insert("members".into(), PACKAGES.map(Value::from).to_vec().into());
    for part in ["package", "lints"] {
        own.insert(part.into(), given.get(part).cloned().with_context(|| format!("it has no [workspace.{part}]"))?);
    }
    let dependencies = given.get("dependencies").and_then(Value::as_table).context("it has no dependencies")?;
    let kept = dependencies.iter().filter(|(name, _)| inherits(name));
    own.insert("dependencies".into(), Value::Table(kept.map(|(name, value)| (name.clone(), value.clone())).collect()));
    let whole = Table::from_iter([("workspace".to_owned(), Value::Table(own))]);
    Ok(format!("{NOTE}{}", toml::to_string(&whole).context("writing the workspace's manifest")?))
}

fn file(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn the_sdk_is_whole_and_nothing_else() {
        for name in [
            "arena/src/lib.rs",
            "sdk-guest/src/lib.rs",
            "sdk-guest/src/testing/fixtures.rs",
            "sdk-guest/macros/src/lib.rs",
            "wit/0.1.0/filter.wit",
            "LICENSE",
        ] {
            assert!(file(name).is_some_and(|text| !text.is_empty()), "{name}");
        }
        assert!(FILES.iter().all(|(name, _)| !name.contains("tests/") && !name.starts_with("router")));
    }

    #[test]
    fn the_workspace_has_what_its_packages_inherit_and_no_more() {
        let manifest: Table = workspace(file(WORKSPACE).unwrap()).unwrap().parse().unwrap();
        let dependencies = manifest["workspace"]["dependencies"].as_table().unwrap();
        for name in ["myelin-arena", "myelin-filter-macros", "wit-bindgen", "serde_json"] {
            assert!(dependencies.contains_key(name), "{name}");
        }
        assert!(!dependencies.contains_key("wasmtime") && !dependencies.contains_key("myelin"));
        assert_eq!(dependencies["myelin-arena"]["path"].as_str(), Some("arena"));
        assert_eq!(manifest["workspace"]["members"].as_array().unwrap().len(), 3);
        assert_eq!(manifest["workspace"]["package"]["edition"].as_str(), Some("2024"));
    }
}
