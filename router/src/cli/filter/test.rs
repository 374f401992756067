//! `myelin filter test`: fixtures and made-up events through the real engine, without a router.

mod junit;
mod measure;
mod report;
mod stress;

use super::{build, component};
use crate::cli::build::{self as building, BuildOptions};
use crate::cli::examine::{Checked, examine};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::fixtures::{FixtureFile, read_folder};
use crate::cli::listing::Output;
use crate::cli::trial::Engine;
use crate::cli::values::{print, write_atomically};
use anyhow::Context;
use clap::Args;
use myelin_engine::{SlotSetup, self_test};
use report::Report;
use std::path::{Path, PathBuf};

const AFTER_HELP: &str = "\
Examples:
  myelin filter test                          the package in this folder: builds it, runs fixtures/*.jsonl
  myelin filter test redact.wasm              a component, with the events that it carries
  myelin filter test --random 10000 --seed 7  made-up events, too: none may make the filter fail
  myelin filter test --update                 writes what the filter says into the fixtures
  myelin filter test --junit report.xml -o json

A line of a fixture is an event; `expect` is optional and has `verdict` and, where wanted, `reason`, `routes`,
`payload`, `headers`, `detail` and `emitted`. A line {\"config\": ..} begins a new instance with that configuration.
Exit code 7 when an event is not judged as expected, or the filter fails.";

/// Most made-up events of one run: some minutes of a slow filter.
const RANDOM_MAX: u32 = 10_000_000;

/// Run fixtures and made-up events in the real engine, without a router
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct Test {
    /// A package's folder, which is built first, or a component's file
    #[arg(default_value = ".", value_name = "DIR|FILE")]
    what: PathBuf,
    /// Folder of the fixtures [default: DIR/fixtures; for a component the events that it carries]
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
    /// Write what the filter says into the fixtures, where it is not what they expect
    #[arg(long)]
    update: bool,
    /// Run so many made-up events, too
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(RANDOM_MAX)))]
    random: Option<u32>,
    /// What the made-up events are made from: the same seed gives the same events
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Cargo features to turn on
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What is tested.
struct Subject {
    module: String,
    component: Vec<u8>,
    files: Vec<FixtureFile>,
}

impl Test {
    pub(super) fn run(self) -> Result<()> {
        let Subject { module, component, files } = self.subject()?;
        let engine = Engine::start()?;
        let loaded = engine.load(&component)?;
        let checked = examine(&loaded.program, &files);
        let updated = if self.update { update(&files, &checked)? } else { 0 };
        let speed = measure::measure(&loaded.program, &files, &checked);
        let stress = self.random.map(|events| stress::stress(&loaded.program, &files, events as usize, self.seed));
        // What every router does before the filter goes live, with the events that the component carries.
        let self_test = self_test(&loaded.program, &SlotSetup::default(), loaded.facts.vectors.as_deref());
        let report = Report {
            module,
            component_bytes: component.len(),
            compiled_in: loaded.compiled_in,
            checked,
            updated,
            speed,
            stress,
            // Without fixtures there may be no configuration to try it with.
            self_test: if files.is_empty() { None } else { Some(self_test.map_err(|failure| failure.to_string())) },
        };
        if let Some(file) = &self.junit {
            let told = || format!("writing {}", file.display());
            write_atomically(file, &junit::xml(&report)).with_context(told)?;
        }
        print(match self.output {
            Output::Json => format!("{}\n", report.json()),
            Output::Table => report.text(),
        });
        report.verdict()
    }

    /// What is tested, built where it is a package.
    fn subject(&self) -> Result<Subject> {
        let folder = self.fixtures.clone();
        if self.what.is_dir() {
            let (dir, features) = (self.what.clone(), self.features.clone());
            let files = read_folder(&folder.unwrap_or_else(|| dir.join("fixtures")))?;
            // Programs read stdout; cargo's words go to stderr all the same.
            let quiet = self.output == Output::Json;
            let built = build(&BuildOptions { dir, features, quiet, ..BuildOptions::default() })?;
            let module = format!("{}@{}", built.name, built.version);
            return Ok(Subject { module, component: component(&built.path)?, files });
        }
        let component = component(&self.what)?;
        let module = match building::label(&component).with_context(|| format!("{}", self.what.display()))? {
            Some((name, version)) => format!("{name}@{version}"),
            None => self.what.display().to_string(),
        };
        let files = match &folder {
            Some(folder) => read_folder(folder)?,
            None if self.update => {
                return Err(Failure::new(Exit::Usage, "--update has no fixtures to write to")
                    .next("name the package's folder, or give --fixtures DIR"));
            }
            None => carried(&self.what, &component)?,
        };
        Ok(Subject { module, component, files })
    }
}

/// The events that a component carries.
fn carried(path: &Path, component: &[u8]) -> Result<Vec<FixtureFile>> {
    let Some(lines) = building::vectors(component)? else { return Ok(Vec::new()) };
    let text = String::from_utf8(lines).context("the events that the component carries")?;
    Ok(vec![FixtureFile::parse(path.to_owned(), text)?])
}

/// Writes what the filter says into the fixtures; how many expectations are new.
fn update(files: &[FixtureFile], checked: &[Checked]) -> Result<usize> {
    let mut updated = 0;
    for (number, file) in files.iter().enumerate() {
        let of_file = checked.iter().filter(|checked| checked.file == number);
        let new: Vec<_> = of_file
            .enumerate()
            .filter_map(|(number, checked)| {
                let case = &file.cases[number];
                Some((number, checked.new_expectation(&case.vector, &case.further)?))
            })
            .collect();
        if !new.is_empty() {
            updated += new.len();
            let told = || format!("writing {}", file.path.display());
            write_atomically(&file.path, &file.with_expectations(&new)).with_context(told)?;
        }
    }
    Ok(updated)
}
