//! `cargo xtask test`: every check of the repository, in the order in which a failure is cheapest.
//!
//! One dev build serves clippy's successors: binaries, tests, Python tests and README commands all use it. Building the
//! whole workspace with all targets at once keeps cargo from resolving features differently for a single package,
//! which would compile Wasm engine and TLS a second time.

use anyhow::{Context as _, Result, bail};

use crate::filters::{self, Profile};
use crate::fuzz;
use crate::guard;
use crate::javascript;
use crate::namespaces;
use crate::peers;
use crate::readme;
use crate::repository::Repository;
use crate::setup;
use crate::shell;
use crate::steps::Steps;
use crate::supply;
use crate::tidy;

/// The packages with which tests read AsyncAPI documents.
const ASYNCAPI: &str = "tests/asyncapi";

/// What to leave out and when to stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Only what needs no install, no Wasm and no network.
    pub(crate) quick: bool,
    /// Run the later steps even after a failure.
    pub(crate) keep_going: bool,
    /// Run this step alone; those it builds on must have been run before.
    pub(crate) only: Option<String>,
}

impl Options {
    /// From the command line.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--keep-going" => options.keep_going = true,
                "--only" => options.only = Some(rest.next().context("--only needs the name of a step")?.clone()),
                unknown => bail!("`cargo xtask test` knows --quick, --keep-going and --only STEP, not '{unknown}'"),
            }
        }
        Ok(options)
    }
}

/// Runs the steps and prints their times.
pub(crate) fn run(repository: &Repository, options: &Options) -> Result<()> {
    let mut steps = Steps::new(options.keep_going, options.only.clone());
    if !options.quick {
        steps.step("setup", "what the tests need, installed once", || setup::everything(repository));
    }
    steps.step("tidy", "layers, sizes, words, links", || tidy::run(repository));
    steps.step("format", "cargo fmt --check", || format(repository));
    steps.step("dependencies", "bans, licences and sources of every crate", || supply::run(repository));
    steps.step("clippy", "lints of all targets, warnings are errors", || clippy(repository, options.quick));
    if options.quick {
        steps.step("unit-tests", "libraries and binaries, without those that need a server", || {
            // Tests of that name need the server that `setup` installs.
            let without = ["--", "--skip", "with_nats_server"];
            shell::run(repository.cargo().args(["test", "--workspace", "--lib", "--bins"]).args(without))
        });
        return steps.finish();
    }
    steps.step("build", "binaries and tests, one dev build for everything below", || {
        shell::run(repository.cargo().args(["build", "--workspace", "--all-targets"]))
    });
    steps.step("filters", "all filters as components", || filters::build_all(repository, Profile::Dev));
    steps.step("filters-js", "filters in JavaScript as components", || javascript::build_all(repository));
    steps.step("demo-data", "the committed events are what the generator makes", || {
        shell::run(repository.command("python3").args(["examples/data/generate.py", "--check"]))
    });
    steps.step("rust-tests", "unit, property and end-to-end tests, documentation examples", || {
        shell::run(with_router(repository, &mut repository.cargo()).args(["test", "--workspace"]))
    });
    match namespaces::find(repository) {
        Ok(way) => steps.step("namespaces", "five sites in network namespaces: faults during rollouts", || {
            namespaces::run(repository, way, |command| {
                with_router(repository, command);
            })
        }),
        Err(why) => steps.skip("namespaces", &why),
    }
    steps.step("guard", "instructions of the hot path, counted, against benches/guard.toml", || {
        guard::run(repository, guard::Mode::Check)
    });
    steps.step("filter-tests", "filters on the host, as their authors test them", || filter_tests(repository));
    steps.step("python-tests", "an independent client, written from docs/PROTOCOL.md", || python_tests(repository));
    steps.step("readme", "every command of README.md", || readme::run(repository));
    steps.finish()
}

/// Tells tests where the binary, the filter components and the NATS server are.
fn with_router<'a>(repository: &Repository, command: &'a mut std::process::Command) -> &'a mut std::process::Command {
    command
        .env("MYELIN_BIN", filters::router(repository, Profile::Dev))
        .env("MYELIN_FILTERS_DIR", repository.filter_components())
        .env("MYELIN_NATS_SERVER", setup::nats_server(repository))
        // A test that returns an error says what it found in its last lines, not forty frames before them.
        .env("RUST_LIB_BACKTRACE", "0")
}

fn format(repository: &Repository) -> Result<()> {
    for manifest in repository.workspaces()?.into_iter().chain([peers::MANIFEST.to_owned()]) {
        // Without its own path dependencies: those are formatted with their workspace.
        let scope: &[&str] = if manifest == peers::MANIFEST { &[] } else { &["--all"] };
        shell::run(repository.cargo().arg("fmt").args(scope).args(["--check", "--manifest-path", &manifest]))?;
    }
    Ok(())
}

fn clippy(repository: &Repository, quick: bool) -> Result<()> {
    let lint = ["--all-targets", "--", "-D", "warnings"];
    shell::run(repository.cargo().args(["clippy", "--workspace"]).args(lint))?;
    if quick {
        return Ok(());
    }
    // Only running the fuzz targets needs a nightly compiler; those with the whole router are left to `cargo xtask fuzz`.
    let fuzz = ["clippy", "--bins", "--manifest-path", fuzz::MANIFEST, "--", "-D", "warnings"];
    shell::run(repository.cargo().env("CARGO_TARGET_DIR", repository.target.join("fuzz")).args(fuzz))?;
    for manifest in repository.filter_workspaces()? {
        shell::run(
            repository
                .cargo()
                .env("CARGO_TARGET_DIR", repository.guest_target())
                .args(["clippy", "--workspace", "--manifest-path", &manifest])
                .args(lint),
        )?;
    }
    Ok(())
}

fn filter_tests(repository: &Repository) -> Result<()> {
    let manifests = repository.filter_workspaces()?;
    if manifests.is_empty() {
        bail!("there is no filter workspace to test");
    }
    for manifest in manifests {
        shell::run(repository.cargo().env("CARGO_TARGET_DIR", repository.guest_target()).args([
            "test",
            "--workspace",
            "--manifest-path",
            &manifest,
        ]))?;
    }
    Ok(())
}

fn python_tests(repository: &Repository) -> Result<()> {
    javascript::install_packages(repository, ASYNCAPI)?;
    let mut pytest = repository.command(setup::python_interpreter(repository));
    shell::run(with_router(repository, &mut pytest).args(["-m", "pytest", "-q", "tests/python"]))
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        let parse = |words: &[&str]| Options::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        let expected = Options { quick: true, keep_going: false, only: Some("tidy".to_owned()) };
        assert_eq!(parse(&["--quick", "--only", "tidy"]).expect("all known"), expected);
        assert_eq!(parse(&["--only"]).expect_err("no name").to_string(), "--only needs the name of a step");
        assert!(parse(&["--fast"]).expect_err("unknown").to_string().ends_with("not '--fast'"));
    }
}
