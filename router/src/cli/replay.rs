//! `myelin replay`: what would another module have said about captured events?

mod judge;
mod report;

use super::binding::configuration;
use super::failure::{Exit, Failure, Result};
use super::filter::component;
use super::trial::Engine;
use super::values::print;
use crate::capture::{Bound, FILE_BYTES_MAX, ReadError, Recording};
use clap::Args;
use judge::{Player, Selection, Source};
use myelin_catalog::Digest;
use report::{Comparison, Report};
use std::io::Read;
use std::path::{Path, PathBuf};

const AFTER_HELP: &str = "\
Examples:
  myelin capture fetch 1 --out orders.capture
  myelin replay orders.capture --module new.wasm                   against what was said then
  myelin replay orders.capture --module new.wasm --diff old.wasm   against another module
  myelin replay orders.capture --module new.wasm --config strict.json --fail-on-diff --json

The module judges what the binding judged, batch by batch, with the clock and the host's answers of then: the same file
and the same module always give the same report. A question that the old module did not ask has no answer in the file;
the event counts as `not recorded`, and nothing is made up. What a filter had remembered before the capture began is not in
it. docs/CAPTURE.md tells where a replay is exact and where it is not.
Exit code 7 with --fail-on-diff when anything differs or is not recorded.";

/// Run another module over captured events, offline, and show what would change
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Replay {
    /// A capture's file
    #[arg(value_name = "CAPTURE")]
    file: PathBuf,
    /// The component to try
    #[arg(long, value_name = "FILE.wasm")]
    module: PathBuf,
    /// What to compare it with: `current` for what was said then, or another component
    #[arg(long, value_name = "current|FILE.wasm", default_value = "current")]
    diff: String,
    /// In the place of this binding; may be left out where only one has judged
    #[arg(long, value_name = "NAME")]
    binding: Option<String>,
    /// Another configuration than the binding's: JSON, or a file that holds JSON
    #[arg(long, value_name = "JSON|FILE")]
    config: Option<String>,
    /// How many differences to show in full
    #[arg(long, value_name = "N", default_value_t = 10)]
    samples: usize,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Exit with 7 when anything would change, or is not recorded
    #[arg(long)]
    fail_on_diff: bool,
}

impl Replay {
    pub(super) fn run(self) -> Result<()> {
        let recording = read(&self.file)?;
        let selection = selection(&recording, self.binding.as_deref())?;
        let config = self.config.as_deref().map(configuration).transpose()?;
        let config = config.map(|config| serde_json::to_vec(&config).unwrap_or_default());
        let engine = Engine::start()?;
        let load = |path: &Path| -> Result<Source> {
            let bytes = component(path)?;
            let (name, digest) = (path.display().to_string(), Digest::of(&bytes).to_string());
            Ok(Source { name, digest, program: engine.load(&bytes)?.program, config: config.clone() })
        };
        let new = load(&self.module)?;
        let old = if self.diff == "current" { None } else { Some(load(Path::new(&self.diff))?) };
        let mut comparison = Comparison::new(self.samples);
        let mut player = Player::new(&recording, &new, selection)?;
        let mut other = old.as_ref().map(|old| Player::new(&recording, old, selection)).transpose()?;
        for batch in &recording.batches {
            for judged in selection.of(&recording, batch) {
                let said = player.play(batch, judged)?;
                let before = match &mut other {
                    Some(other) => other.play(batch, judged)?,
                    None => selection.recorded(batch, judged),
                };
                comparison.add(batch, judged, &before, &said);
            }
        }
        let report = Report {
            recording: &recording,
            selection,
            new: (&new.name, &new.digest),
            old: old.as_ref().map(|old| (old.name.as_str(), old.digest.as_str())),
            warnings: report::warnings(&recording, selection, player.info()),
            comparison,
        };
        print(if self.json { format!("{}\n", report.json()) } else { report.text() });
        if self.fail_on_diff { report.verdict() } else { Ok(()) }
    }
}

/// Reads a file within its bound.
pub(super) fn read(path: &Path) -> Result<Recording> {
    let unreadable = |error: std::io::Error| {
        Failure::new(Exit::Usage, format!("{}: {error}", path.display()))
            .next("give the file of a capture; `myelin capture fetch ID --out FILE` writes one")
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more shows that it is too large, whatever its length is said to be.
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Recording::read(&bytes).map_err(|error: ReadError| {
        Failure::new(Exit::Usage, format!("{}: {error} ({})", path.display(), error.code())).coded(error.code())
    })
}

/// In whose place the module is to judge.
fn selection<'a>(recording: &'a Recording, wanted: Option<&'a str>) -> Result<Selection<'a>> {
    let mut names: Vec<&str> = recording.bindings.iter().map(|Bound { name, .. }| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    match (wanted, names.as_slice()) {
        (Some(wanted), _) if names.contains(&wanted) => Ok(Selection::Binding(wanted)),
        (Some(wanted), _) => {
            let what = format!("no binding `{wanted}` has judged in this capture");
            Err(Failure::new(Exit::NotFound, what).next(format!("those that have: {}", listed(&names))))
        }
        (None, []) => Ok(Selection::Unjudged),
        (None, [only]) => Ok(Selection::Binding(only)),
        (None, _) => Err(Failure::new(Exit::Usage, "several bindings have judged in this capture")
            .next(format!("name one with --binding: {}", listed(&names)))),
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
