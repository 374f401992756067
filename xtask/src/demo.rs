//! `cargo xtask demo`: from a fresh machine to filters swapped under load.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::filters::{self, Profile};
use crate::repository::Repository;
use crate::setup;
use crate::steps::Steps;

/// Installs and builds what is missing, then becomes `myelin demo`; `arguments` are passed on to it.
pub(crate) fn run(repository: &Repository, arguments: &[String]) -> Result<()> {
    let mut steps = Steps::new(false, None);
    steps.step("setup", "what building needs, installed once", || {
        setup::c_compiler(repository)?;
        setup::wasm_toolchain(repository)
    });
    steps.step("router", "the release binary; the first time takes several minutes", || {
        filters::build_router(repository, Profile::Release)
    });
    steps.step("filters", "stock and example filters as components", || {
        filters::build_all(repository, Profile::Release)
    });
    steps.finish()?;
    let mut demo = repository.command(filters::router(repository, Profile::Release));
    demo.arg("demo").arg("--filters").arg(repository.filter_components());
    demo.arg("--data").arg(repository.root.join("examples/data")).args(arguments);
    eprintln!();
    // Replaces this process: signals, terminal and exit code are the demo's own.
    Err(demo.exec()).context("cannot start `myelin demo`")
}
