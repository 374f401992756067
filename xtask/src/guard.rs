//! `cargo xtask guard`: how many instructions the hot path takes, counted by callgrind, against committed figures.
//!
//! Wall time says little on a machine that others use; instructions of the same code are the same everywhere, but for
//! the compiler. The counted functions are built in the dev profile that the tests use: the hot crates are optimised
//! there, in one codegen unit, so that nothing is built twice and inlining does not depend on how the work was split.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::repository::Repository;
use crate::setup;
use crate::shell;

/// The committed figures.
const FIGURES: &str = "benches/guard.toml";
/// The binary whose functions are counted.
const BINARY: &str = "myelin-guard";
/// What is counted: each is a function of `benches/src/guard.rs`, and how many events, topics or frames it does.
const COUNTED: &[(&str, u64)] =
    &[("decode", 64), ("match_topics", 256), ("encode", 64), ("filter_batch", 64), ("judge_json", 64)];
/// Above this share of its figure a count fails; below the second one the figure is stale.
const WORSE_MAX: f64 = 1.10;
const BETTER_MIN: f64 = 0.90;

/// Whether figures are compared or rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Check,
    Update,
}

/// Builds, counts, and compares or rewrites.
pub(crate) fn run(repository: &Repository, mode: Mode) -> Result<()> {
    setup::valgrind(repository)?;
    // The whole workspace, as the tests build it: one package alone would resolve features otherwise, and compile again.
    shell::run(repository.cargo().args(["build", "--workspace", "--all-targets"]))?;
    let binary = repository.target.join("debug").join(BINARY);
    let mut counts = BTreeMap::new();
    for (function, pieces) in COUNTED {
        let count = count(repository, &binary, function)? as f64 / *pieces as f64;
        counts.insert((*function).to_owned(), count);
    }
    let file = repository.root.join(FIGURES);
    if mode == Mode::Update {
        std::fs::write(&file, written(&counts)).with_context(|| format!("cannot write {FIGURES}"))?;
        eprintln!("    {FIGURES} is rewritten");
        return Ok(());
    }
    let figures = std::fs::read_to_string(&file).with_context(|| format!("cannot read {FIGURES}"))?;
    let (table, worse) = compare(&read(&figures)?, &counts)?;
    eprint!("{table}");
    if !worse.is_empty() {
        bail!(
            "{} take more instructions than {FIGURES} allows; `cargo xtask guard --update` accepts it",
            worse.join(", ")
        );
    }
    Ok(())
}

/// Instructions inside `function`, in one call of it.
fn count(repository: &Repository, binary: &Path, function: &str) -> Result<u64> {
    let out = repository.target.join("guard").join(format!("{function}.callgrind"));
    std::fs::create_dir_all(repository.target.join("guard"))?;
    shell::run(
        repository
            .command("valgrind")
            // Symbols are bound before anything is counted.
            .env("LD_BIND_NOW", "1")
            .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
            .arg(format!("--toggle-collect={}::{function}", BINARY.replace('-', "_")))
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(binary)
            .arg(function),
    )?;
    let text = std::fs::read_to_string(&out).with_context(|| format!("callgrind left no {}", out.display()))?;
    total(&text).with_context(|| format!("callgrind has counted nothing in {function}"))
}

/// The total of a callgrind file; none when nothing was counted.
fn total(text: &str) -> Option<u64> {
    let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    of("summary:").or_else(|| of("totals:")).filter(|total| *total > 0)
}

fn written(counts: &BTreeMap<String, f64>) -> String {
    let mut text = String::from(
        "# Instructions of the hot path, counted by callgrind: `cargo xtask guard` compares, `--update` rewrites.\n\
         # One event decoded, one topic matched among 10,000 subscriptions, one event encoded, one event of a full batch\n\
         # through a Wasm filter, one JSON event of 128 bytes judged by its schema.\n",
    );
    for (name, count) in counts {
        let _ = writeln!(text, "{name} = {count:.1}");
    }
    text
}

fn read(text: &str) -> Result<BTreeMap<String, f64>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let figure = |line: &str| {
        let (name, count) = line.split_once(" = ")?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    lines.map(|line| figure(line).with_context(|| format!("{FIGURES}: `{line}` is no figure"))).collect()
}

/// A table, and what is worse than allowed.
fn compare(figures: &BTreeMap<String, f64>, counts: &BTreeMap<String, f64>) -> Result<(String, Vec<String>)> {
    let (mut table, mut worse) = (String::new(), Vec::new());
    for (name, count) in counts {
        let figure = figures.get(name).with_context(|| format!("{FIGURES} has no {name}; run with --update"))?;
        let share = count / figure;
        let verdict = match share {
            share if share > WORSE_MAX => "WORSE",
            share if share < BETTER_MIN => "better: run with --update, so that it stays so",
            _ => "ok",
        };
        let _ = writeln!(
            table,
            "    {name:<14}{count:>10.1} instructions, figure {figure:>10.1}, {:+.1} %  {verdict}",
            100.0 * (share - 1.0)
        );
        if share > WORSE_MAX {
            worse.push(name.clone());
        }
    }
    Ok((table, worse))
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, compare, read, total, written};

    fn figures(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_count_is_read_and_nothing_is_no_count() {
        assert_eq!(total("events: Ir\nsummary: 123\n"), Some(123));
        assert_eq!(total("events: Ir\ntotals: 77\n"), Some(77));
        assert_eq!(total("events: Ir\nsummary: 0\n"), None);
    }

    #[test]
    fn ten_percent_more_are_allowed_and_no_more() {
        let committed = read(&written(&figures(&[("decode", 100.0), ("encode", 50.0)]))).expect("as written");
        let worse = |decode| compare(&committed, &figures(&[("decode", decode)])).expect("known").1;
        assert!(worse(109.0).is_empty() && worse(10.0).is_empty());
        assert_eq!(worse(111.0), ["decode"]);
        assert!(compare(&committed, &figures(&[("new", 1.0)])).is_err(), "a count without a figure is no pass");
        assert!(read("decode: 5").is_err());
    }
}
