//! `cargo xtask bench`: the only place where ratios and percentiles are asserted.

use anyhow::Result;

use crate::filters::{self, Profile};
use crate::peers;
use crate::repository::Repository;
use crate::setup;
use crate::shell;

/// The package of the benches, and its binary that measures.
const BENCH_PACKAGE: &str = "myelin-benches";
const BENCH_BINARY: &str = "myelin-bench";

/// The benches that need other brokers.
const PEERS: [&str; 2] = ["peers", "hops"];

/// Builds router, filters and benches for release, with `peers` the other brokers too, and runs the benches with
/// `arguments`.
pub(crate) fn run(repository: &Repository, arguments: &[String]) -> Result<()> {
    setup::wasm_toolchain(repository)?;
    let packages = ["build", "--release", "--package", "myelin", "--package", BENCH_PACKAGE];
    shell::run(repository.cargo().args(packages))?;
    filters::build_all(repository, Profile::Release)?;
    let mut bench = repository.command(repository.target.join("release").join(BENCH_BINARY));
    bench
        .env("MYELIN_BIN", filters::router(repository, Profile::Release))
        .env("MYELIN_FILTERS_DIR", repository.filter_components())
        .args(arguments);
    if arguments.first().is_some_and(|first| PEERS.contains(&first.as_str())) {
        for (name, program) in peers::build(repository)? {
            bench.env(name, program);
        }
    }
    shell::run(&mut bench)
}
