//! The package under development: what it is called, and how it is bound.

use super::Dev;
use crate::cli::binding::configuration;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::fixtures::{FixtureFile, read_folder};
use anyhow::Context;
use myelin_engine::TestVector;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where everything may be sent, unless it is said otherwise: this router is the author's own.
const GRANT_ANY: &str = "**";

/// The package under development.
pub(super) struct Package {
    /// Its folder.
    pub(super) dir: PathBuf,
    /// Its name, which is the module's and the binding's.
    pub(super) name: String,
    /// Topics whose events it judges.
    pub(super) pattern: String,
    /// Topics that it may send to.
    pub(super) grants: Vec<String>,
    /// Its configuration; `null` where it has none.
    pub(super) config: Value,
}

impl Package {
    /// Reads the manifest and the fixtures.
    pub(super) fn read(dev: &Dev) -> Result<Self> {
        let dir = dev.dir.clone();
        let path = dir.join("Cargo.toml");
        let manifest = std::fs::read_to_string(&path).map_err(|error| {
            Failure::new(Exit::Usage, format!("{}: {error}", path.display()))
                .next("name the folder of a filter's package; `myelin filter new NAME` makes one")
        })?;
        let manifest: toml::Table = manifest.parse().with_context(|| format!("{}", path.display()))?;
        let package = manifest.get("package").and_then(toml::Value::as_table);
        let name = package.and_then(|package| package.get("name")?.as_str()).unwrap_or_default().to_owned();
        // The binding takes the name; a workspace's manifest has none.
        name.parse::<myelin_catalog::Name>()
            .map_err(|error| Failure::new(Exit::Usage, format!("{}: [package] name: {error}", path.display())))?;
        let metadata = package.and_then(|package| package.get("metadata")?.get("myelin")?.as_table());
        let fixtures = fixtures(&dir)?;
        let given = metadata.and_then(|metadata| metadata.get("pattern")?.as_str()).map(str::to_owned);
        let pattern = dev.pattern.clone().or(given).unwrap_or_else(|| common(&topics(&fixtures)));
        let granted = metadata.and_then(|metadata| metadata.get("grant-topics")?.as_array());
        let granted = granted.map(|topics| topics.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect());
        let grants = match dev.grant_topic.is_empty() {
            true => granted.unwrap_or_else(|| vec![GRANT_ANY.to_owned()]),
            false => dev.grant_topic.clone(),
        };
        let config = match &dev.config {
            Some(given) => configuration(given)?,
            None => first_config(&fixtures),
        };
        Ok(Self { dir, name, pattern, grants, config })
    }

    /// The fixtures as they are now.
    pub(super) fn fixtures(&self) -> Result<Vec<FixtureFile>> {
        fixtures(&self.dir)
    }

    /// The configuration as the filter gets it.
    pub(super) fn config_bytes(&self) -> Vec<u8> {
        if self.config.is_null() { Vec::new() } else { self.config.to_string().into_bytes() }
    }
}

fn fixtures(dir: &Path) -> Result<Vec<FixtureFile>> {
    Ok(read_folder(&dir.join("fixtures"))?)
}

/// The events of all fixtures.
pub(super) fn samples(files: &[FixtureFile]) -> Vec<TestVector> {
    files.iter().flat_map(|file| file.cases.iter().map(|case| case.vector.clone())).collect()
}

fn topics(files: &[FixtureFile]) -> Vec<&str> {
    files.iter().flat_map(|file| file.cases.iter().map(|case| case.vector.topic.as_str())).collect()
}

/// The pattern of the first level that all topics have; of any topic where they have none.
fn common(topics: &[&str]) -> String {
    let first = |topic: &&str| topic.split('/').next().map(str::to_owned);
    let level = topics.first().and_then(first);
    match level {
        Some(level) if topics.iter().all(|topic| first(topic).as_ref() == Some(&level)) => format!("{level}/**"),
        _ => "**".to_owned(),
    }
}

fn first_config(files: &[FixtureFile]) -> Value {
    let mut configs = files.iter().flat_map(|file| file.cases.iter().map(|case| &case.vector.config));
    let first = configs.find(|config| !config.is_empty());
    first.and_then(|config| serde_json::from_slice(config).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        dev: Dev,
    }

    fn package(manifest: &str, arguments: &[&str]) -> Result<Package> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        std::fs::create_dir(folder.path().join("fixtures")).unwrap();
        let lines = "{\"topic\":\"orders/a\"}\n{\"config\":{\"x\":1}}\n{\"topic\":\"orders/b\"}\n";
        std::fs::write(folder.path().join("fixtures/a.jsonl"), lines).unwrap();
        let line = ["dev", folder.path().to_str().unwrap()].into_iter().chain(arguments.iter().copied());
        Package::read(&Line::try_parse_from(line).unwrap().dev)
    }

    #[test]
    fn what_is_not_given_comes_from_the_manifest_then_from_the_fixtures() {
        let plain = "[package]\nname = \"m\"\n";
        let read = package(plain, &[]).unwrap();
        assert_eq!((read.name.as_str(), read.pattern.as_str()), ("m", "orders/**"));
        assert_eq!(read.grants, ["**"]);
        assert_eq!(read.config_bytes(), br#"{"x":1}"#);
        let full = format!("{plain}[package.metadata.myelin]\npattern = \"a/**\"\ngrant-topics = []\n");
        let read = package(&full, &[]).unwrap();
        assert_eq!((read.pattern.as_str(), read.grants.len()), ("a/**", 0));
        let read = package(&full, &["--pattern", "b", "--grant-topic", "c", "--config", "{}"]).unwrap();
        assert_eq!((read.pattern.as_str(), read.grants[0].as_str(), read.config), ("b", "c", serde_json::json!({})));
    }

    #[test]
    fn what_is_no_package_is_said() {
        assert!(package("[workspace]\n", &[]).is_err_and(|failure| failure.exit == Exit::Usage));
        assert_eq!(common(&["a/b", "c"]), "**");
        assert_eq!(common(&[]), "**");
    }
}
