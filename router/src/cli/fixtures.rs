//! Fixtures with their places in their files: events, and what a filter ought to say about them.
//!
//! The engine reads the lines, as it reads them in a component's self-test; here is only where each of them stands, so
//! that a failure can be told with its place and an expectation can be written anew.

use super::expectation::{Further, split};
use anyhow::{Context, Result, anyhow, ensure};
use myelin_engine::{ModuleLimits, TestVector, parse_vectors};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file of fixtures.
#[derive(Clone, Debug)]
pub(super) struct FixtureFile {
    /// Where it is, for people.
    pub(super) path: PathBuf,
    text: String,
    /// Its events, in order.
    pub(super) cases: Vec<Case>,
}

/// One event of a file.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Line of the file, from 1.
    pub(super) line: usize,
    /// The event and what is expected.
    pub(super) vector: TestVector,
    /// What is expected beside what the engine knows.
    pub(super) further: Further,
    /// Where the expectation stands in the text; where it would be put, when it is empty.
    place: Range<usize>,
}

/// What is looked at in a line; the rest is the engine's.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    topic: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "given")]
    expect: Option<&'a RawValue>,
}

/// What was given, `null` included: it stands in its place, too.
fn given<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

/// Reads `folder/*.jsonl` in the order of their names; none where there is no such folder.
///
/// # Errors
/// File, line, and what is wrong with it.
pub(super) fn read_folder(folder: &Path) -> Result<Vec<FixtureFile>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let told = || format!("reading {}", folder.display());
    let entries = std::fs::read_dir(folder).with_context(told)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().with_context(told)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        FixtureFile::parse(path, text)
    };
    paths.into_iter().map(read).collect()
}

impl FixtureFile {
    /// Reads the lines of a file.
    ///
    /// # Errors
    /// File, line, and what is wrong with it.
    pub(super) fn parse(path: PathBuf, text: String) -> Result<Self> {
        let (mut known, mut further) = (String::with_capacity(text.len()), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let (line, own) = split(line).with_context(|| format!("{}: line {number}", path.display()))?;
            known.extend([&line, "\n"]);
            further.push(own);
        }
        let vectors = parse_vectors(known.as_bytes(), &ModuleLimits::default());
        let vectors = vectors.map_err(|error| anyhow!("{}: {error}", path.display()))?;
        let mut cases = Vec::with_capacity(vectors.len());
        let mut vectors = vectors.into_iter();
        let lines = (1..).zip(text.lines()).zip(further);
        for ((number, line), further) in lines.filter(|((_, line), _)| !line.trim().is_empty()) {
            let told = || format!("{}:{number}", path.display());
            let parsed: Line<'_> = serde_json::from_str(line).with_context(told)?;
            // A line with a configuration.
            if parsed.topic.is_none() {
                continue;
            }
            let vector = vectors.next().with_context(told)?;
            let place = match parsed.expect {
                Some(expect) => {
                    let start = offset_in(&text, expect.get());
                    start..start + expect.get().len()
                }
                None => {
                    let end = offset_in(&text, line) + line.rfind('}').with_context(told)?;
                    end..end
                }
            };
            cases.push(Case { line: number, vector, further, place });
        }
        ensure!(vectors.next().is_none(), "{}: its lines and its events do not agree", path.display());
        Ok(Self { path, text, cases })
    }

    /// The text with new expectations for some of its cases, by their index. Everything else stays as it is.
    pub(super) fn with_expectations(&self, new: &[(usize, String)]) -> String {
        let mut text = self.text.clone();
        let mut places: Vec<_> = new.iter().map(|(case, expect)| (self.cases[*case].place.clone(), expect)).collect();
        // From the end, so that the places before stay true.
        places.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
        for (place, expect) in places {
            match place.is_empty() {
                true => text.insert_str(place.start, &format!(",\"expect\":{expect}")),
                false => text.replace_range(place, expect),
            }
        }
        text
    }
}

/// Where `part`, which is a part of `text`, begins in it.
fn offset_in(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = concat!(
        "{\"topic\":\"a\",\"expect\": {\"verdict\":\"allow\"}, \"payload\":1}\n\n",
        "{\"config\":null}\n",
        "{\"topic\":\"b\"} \n",
        "{\"config\":{\"x\":1}}\n",
        "{\"topic\":\"c\",\"expect\":{\"verdict\":\"deny\"}}",
    );

    fn file(text: &str) -> Result<FixtureFile> {
        FixtureFile::parse("f.jsonl".into(), text.to_owned())
    }

    #[test]
    fn each_event_has_its_line_and_its_instance() {
        let file = file(TEXT).expect("parsed");
        let places: Vec<_> = file.cases.iter().map(|case| (case.line, case.vector.instance)).collect();
        assert_eq!(places, [(1, 0), (4, 1), (6, 2)]);
        assert_eq!(file.cases[2].vector.config, br#"{"x":1}"#);
    }

    #[test]
    fn an_expectation_is_written_in_its_place_and_nothing_else_changes() {
        let file = file(TEXT).expect("parsed");
        let new = [(0, "{\"verdict\":\"drop\"}".to_owned()), (1, "{\"verdict\":\"add\"}".to_owned())];
        let written = file.with_expectations(&new);
        let expected = TEXT
            .replace("{\"verdict\":\"allow\"}", "{\"verdict\":\"drop\"}")
            .replace("{\"topic\":\"b\"} ", "{\"topic\":\"b\",\"expect\":{\"verdict\":\"add\"}} ");
        assert_eq!(written, expected);
        assert_eq!(FixtureFile::parse("f.jsonl".into(), written).expect("parsed").cases.len(), 3);
        assert_eq!(file.with_expectations(&[]), TEXT);
    }

    #[test]
    fn what_the_engine_does_not_know_stays_with_its_event() {
        let lines = "{\"topic\":\"a\"}\n\n{\"config\":{}}\n{\"topic\":\"b\",\"expect\":{\"verdict\":\"allow\",\"detail\":\"d\"}}";
        let read = file(lines).expect("parsed");
        let further: Vec<_> = read.cases.iter().map(|case| (case.line, case.further == Further::default())).collect();
        assert_eq!(further, [(1, true), (4, false)]);
        // Its place is that in the file as it is.
        let written = read.with_expectations(&[(1, "{\"verdict\":\"drop\"}".to_owned())]);
        assert!(written.ends_with("{\"topic\":\"b\",\"expect\":{\"verdict\":\"drop\"}}"), "{written}");
        let told = format!("{:#}", file("{\"topic\":\"a\",\"expect\":{\"detail\":1}}").expect_err("refused"));
        assert!(told.starts_with("f.jsonl: line 1: `expect`"), "{told}");
    }

    #[test]
    fn a_bad_line_is_told_with_its_place() {
        let told = format!("{:#}", file("{\"topic\":\"a\"}\n{\"topic\":\"b\",\"tpye\":1}").expect_err("refused"));
        assert!(told.starts_with("f.jsonl: line 2:") && told.contains("tpye"), "{told}");
    }
}
