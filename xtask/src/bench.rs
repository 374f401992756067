//! `cargo xtask bench`: the only place where ratios and percentiles are asserted.

use anyhow::{Context as _, Result};

use crate::filters::{self, Profile};
use crate::repository::Repository;
use crate::setup;
use crate::shell;

/// The package of the benches; its first binary is run.
const BENCH_PACKAGE: &str = "myelin-benches";

/// Builds router, filters and benches for release and runs the benches with `arguments`.
pub(crate) fn run(repository: &Repository, arguments: &[String]) -> Result<()> {
    let packages = repository.packages("Cargo.toml")?;
    let benches = packages.iter().find(|package| package.name == BENCH_PACKAGE);
    let binary = benches.and_then(|package| package.binaries.first());
    let binary = binary.with_context(|| format!("package {BENCH_PACKAGE} has no binary"))?.clone();
    setup::wasm_toolchain(repository)?;
    shell::run(repository.cargo().args(["build", "--release", "--package", "myelin", "--package", BENCH_PACKAGE]))?;
    filters::build_all(repository, Profile::Release)?;
    shell::run(
        repository
            .command(repository.target.join("release").join(binary))
            .env("MYELIN_BIN", filters::router(repository, Profile::Release))
            .env("MYELIN_FILTERS_DIR", repository.filter_components())
            .args(arguments),
    )
}
