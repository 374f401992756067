//! A router is killed at every named point of its code and started again: it is as it was before the change that was on
//! its way, or as it is after it, and never anything between.

mod story;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use story::{Begin, STEPS, Story};

/// Routers that run at the same time.
const AT_ONCE: usize = 2;

/// Where each point is reached: the point, how the story begins, and the time at which it is deadly.
const CASES: &[(&str, Begin, u32)] = &[
    ("log-begun", Begin::Empty, 1),
    ("log-named", Begin::Empty, 1),
    // Records of a story: upload, stage, activation, upload, stage, activation, rollback, upload, removal.
    ("log-record-written", Begin::Again, 1),
    ("log-record-written", Begin::Again, 7),
    ("log-head-written", Begin::Again, 2),
    ("log-head-written", Begin::Again, 6),
    ("log-committed", Begin::Again, 3),
    ("log-committed", Begin::Again, 9),
    ("log-term-kept", Begin::Mesh, 1),
    ("blob-aside", Begin::Empty, 1),
    ("blob-named", Begin::Empty, 2),
    ("blob-removed", Begin::Again, 1),
    ("code-compiled", Begin::Empty, 1),
    // The key of the cache comes before the first code.
    ("code-aside", Begin::Empty, 1),
    ("code-aside", Begin::Empty, 2),
    ("code-named", Begin::Empty, 1),
    ("code-named", Begin::Empty, 2),
    // First of all the epoch.
    ("file-aside", Begin::Again, 1),
    ("file-named", Begin::Again, 1),
    ("file-named", Begin::Again, 2),
    // The start, then the first activation.
    ("boot-marked", Begin::Again, 1),
    ("boot-marked", Begin::Again, 2),
    ("boot-chosen", Begin::Again, 1),
    ("boot-judges", Begin::Again, 1),
    ("module-tested", Begin::Again, 1),
    ("module-put", Begin::Again, 2),
    ("change-decided", Begin::Again, 3),
    ("record-verified", Begin::Again, 2),
    ("record-adopted", Begin::Again, 3),
    ("record-audited", Begin::Again, 1),
    ("change-kept", Begin::Again, 7),
    ("change-told", Begin::Again, 6),
    ("change-settled", Begin::Again, 3),
    ("change-settled", Begin::Again, 9),
    ("audit-written", Begin::Again, 3),
    ("audit-synced", Begin::Again, 5),
    // The first of each is the start's own, of which there is one more at every worker.
    ("set-planned", Begin::Again, 2),
    ("set-tested", Begin::Again, 2),
    ("set-prepared", Begin::Again, 2),
    ("swap-begins", Begin::Again, 2),
    ("worker-swapped", Begin::Again, 1),
    ("worker-swapped", Begin::Again, 3),
    ("worker-swapped", Begin::Again, 5),
    ("worker-swapped-back", Begin::Again, 1),
    ("swap-answered", Begin::Again, 2),
    ("swap-told", Begin::Again, 2),
    ("swap-told", Begin::Again, 4),
    ("step-leased", Begin::Mesh, 1),
    ("step-kept", Begin::Mesh, 1),
    ("step-kept", Begin::Mesh, 2),
    ("certificates-read", Begin::Again, 1),
    ("certificates-taken", Begin::Again, 1),
    ("end-closed", Begin::Again, 1),
];

/// What the story comes to where nobody dies, by how it begins; and the data that it leaves.
struct Expected {
    empty: Vec<Value>,
    again: Vec<Value>,
    mesh: Vec<Value>,
    left: tempfile::TempDir,
}

impl Expected {
    async fn learn() -> Result<Self> {
        let mut first = Story::prepare(Begin::Empty, None, None)?;
        let empty = first.tell().await.context("the story")?;
        let left = tempfile::tempdir()?;
        myelin_tests::copy_folder(&first.router.data_dir(), left.path())?;
        let again = Story::prepare(Begin::Again, Some(left.path()), None)?.tell().await.context("told again")?;
        ensure!(empty.last().map(without_versions) == again.first().map(without_versions), "{empty:#?} {again:#?}");
        let mesh = Story::prepare(Begin::Mesh, None, None)?.tell().await.context("in a mesh")?;
        Ok(Self { empty, again, mesh, left })
    }

    fn states(&self, begin: Begin) -> &[Value] {
        match begin {
            Begin::Empty => &self.empty,
            Begin::Again => &self.again,
            Begin::Mesh => &self.mesh,
        }
    }

    fn data(&self, begin: Begin) -> Option<&Path> {
        (begin == Begin::Again).then(|| self.left.path())
    }
}

/// A start makes a generation of its own from the same set.
fn without_versions(state: &Value) -> Value {
    let mut state = state.clone();
    state["generation"] = Value::Null;
    state
}

/// Kills a router at one point and looks at what comes back.
async fn die_and_rise(expected: &Expected, (point, begin, time): (&str, Begin, u32)) -> Result<()> {
    let states = expected.states(begin);
    let mut story = Story::prepare(begin, expected.data(begin), Some(format!("{point}:{time}")))?;
    let died_at = die(&mut story, point).await?;
    story.disarm();
    story.router.restart().context("it starts again")?;
    story.is_sound()?;
    let found = story.state().await?;
    // Before its first step and after its last one there is no other change.
    let (before, after) = match died_at {
        Death::Start => (0, 0),
        Death::Step(step) => (step, step + 1),
        Death::End => (STEPS.len(), STEPS.len()),
    };
    let next = match (found == states[after], found == states[before]) {
        (true, _) => after,
        (false, true) => before,
        (false, false) => bail!("{died_at:?}: {found:#} is neither {:#} nor {:#}", states[before], states[after]),
    };
    // What is left of the story can be told.
    for step in &STEPS[next..] {
        story.perform(*step).with_context(|| format!("{step:?} after {died_at:?}"))?;
    }
    let end = story.state().await?;
    ensure!(Some(&end) == states.last(), "{died_at:?}: the story ended with {end:#}, not with {:#?}", states.last());
    story.ends_well().await
}

/// When a router died.
#[derive(Clone, Copy, Debug)]
enum Death {
    Start,
    Step(usize),
    End,
}

async fn die(story: &mut Story, point: &str) -> Result<Death> {
    if let Err(error) = story.router.restart() {
        ensure!(story.has_died(point, true)?, "{error:#}");
        return Ok(Death::Start);
    }
    for (index, step) in STEPS.into_iter().enumerate() {
        let performed = story.perform(step);
        if story.has_died(point, performed.is_err())? {
            return Ok(Death::Step(index));
        }
        performed.with_context(|| format!("{step:?}"))?;
    }
    story.router.ask_to_end()?;
    ensure!(story.has_died(point, true).context("the point was not reached")?, "it does not end");
    Ok(Death::End)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_router_that_dies_at_any_point_comes_back_before_or_after_the_change() -> Result<()> {
    let expected = Arc::new(Expected::learn().await?);
    let cases = Arc::new(Mutex::new(CASES.iter().copied().collect::<VecDeque<_>>()));
    let all = (0..AT_ONCE).map(|_| {
        let (expected, cases) = (expected.clone(), cases.clone());
        tokio::spawn(async move {
            let mut failures = Vec::new();
            while let Some(case) = { cases.lock().unwrap_or_else(PoisonError::into_inner).pop_front() } {
                if let Err(error) = die_and_rise(&expected, case).await {
                    failures.push(format!("{case:?}: {error:#}"));
                }
            }
            failures
        })
    });
    let mut failures = Vec::new();
    for one in all.collect::<Vec<_>>() {
        failures.extend(one.await?);
    }
    ensure!(failures.is_empty(), "{} of {}:\n{}", failures.len(), CASES.len(), failures.join("\n"));
    Ok(())
}

/// How often each point is named by the code in a folder.
fn named(folder: &Path, found: &mut BTreeMap<String, usize>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            named(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            for rest in text.split("myelin_failpoint::reach(\"").skip(1) {
                *found.entry(rest.split('"').next().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
    }
    Ok(())
}

#[test]
fn every_point_stands_at_one_place_and_has_a_case() -> Result<()> {
    let mut found = BTreeMap::new();
    named(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../router"), &mut found)?;
    let listed: BTreeMap<String, usize> = myelin_failpoint::NAMES.iter().map(|name| ((*name).to_owned(), 1)).collect();
    assert_eq!(found, listed, "left: how often the code names each; right: the list, each of them once");
    let tried: BTreeSet<&str> = CASES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(tried, myelin_failpoint::NAMES.iter().copied().collect());
    Ok(())
}
