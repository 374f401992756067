//! Builds every filter of the repository into a component, with the `myelin` binary's own `filter build`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::repository::Repository;
use crate::shell;

/// Further versions of a filter: folder, name of the component, cargo features. The demo and the tests swap between
/// the first two; the third has the bug that the demo catches.
const VARIANTS: &[(&str, &str, &str)] = &[("tenant", "tenant-2", "audit"), ("tenant", "tenant-3", "tiers")];

/// Which build of `myelin` does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `target/debug`, shared with the tests.
    Dev,
    /// `target/release`, shared with demo and bench.
    Release,
}

/// Path of the `myelin` binary of a profile.
pub(crate) fn router(repository: &Repository, profile: Profile) -> PathBuf {
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    repository.target.join(folder).join("myelin")
}

/// Builds the `myelin` binary.
pub(crate) fn build_router(repository: &Repository, profile: Profile) -> Result<()> {
    let mut cargo = repository.cargo();
    cargo.args(["build", "--package", "myelin", "--bin", "myelin"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    shell::run(&mut cargo)
}

/// Builds all filters into `target/filters/<folder>.wasm`. The first one compiles std and takes a minute or two.
pub(crate) fn build_all(repository: &Repository, profile: Profile) -> Result<()> {
    let folders = repository.filter_folders()?;
    if folders.is_empty() {
        bail!("there is no filter below filters/ or examples/filters/");
    }
    let components = repository.filter_components();
    std::fs::create_dir_all(&components).with_context(|| format!("cannot make {}", components.display()))?;
    for (number, folder) in folders.iter().enumerate() {
        let name = folder.rsplit('/').next().unwrap_or(folder);
        eprintln!("    filter {}/{}: {folder}", number + 1, folders.len());
        build_one(repository, profile, folder, name, None)?;
        for (_, variant, features) in VARIANTS.iter().filter(|(of, _, _)| *of == name) {
            build_one(repository, profile, folder, variant, Some(features))?;
        }
    }
    Ok(())
}

fn build_one(
    repository: &Repository,
    profile: Profile,
    folder: &str,
    name: &str,
    features: Option<&str>,
) -> Result<()> {
    let component = repository.filter_components().join(format!("{name}.wasm"));
    let started = Instant::now();
    let mut build = repository.command(router(repository, profile));
    build.env("CARGO_TARGET_DIR", repository.guest_target()).args(["filter", "build", folder, "--out"]).arg(&component);
    if let Some(features) = features {
        build.args(["--features", features]);
    }
    // What is built beside a task's own output, such as the tables of `bench --markdown`, is no part of it.
    build.stdout(std::io::stderr());
    shell::run(&mut build)?;
    let size = std::fs::metadata(&component)
        .with_context(|| format!("`myelin filter build` succeeded but left no {}", component.display()))?
        .len();
    eprintln!("    {name}: {} KiB in {:.1} s", size / 1024, started.elapsed().as_secs_f64());
    Ok(())
}
