//! Named steps with a timing table at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    NotRun,
    Skipped(String),
}

/// A run of named steps. After a failure the following steps are not run, unless `keep_going`.
#[derive(Debug)]
pub(crate) struct Steps {
    keep_going: bool,
    only: Option<String>,
    names: Vec<&'static str>,
    done: Vec<(&'static str, Outcome, Duration)>,
}

impl Steps {
    /// No steps yet. With `only`, every other step is passed over without a word.
    pub(crate) fn new(keep_going: bool, only: Option<String>) -> Self {
        Self { keep_going, only, names: Vec::new(), done: Vec::new() }
    }

    /// Announces the step, runs it and notes the result and the time it took.
    pub(crate) fn step(&mut self, name: &'static str, why: &str, work: impl FnOnce() -> Result<()>) {
        self.names.push(name);
        if self.only.as_ref().is_some_and(|only| only != name) {
            return;
        }
        if !self.keep_going && self.first_failure().is_some() {
            self.done.push((name, Outcome::NotRun, Duration::ZERO));
            return;
        }
        eprintln!("\n==> {name}: {why}");
        let started = Instant::now();
        let outcome = match work() {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                eprintln!("    {name} failed: {error:#}");
                Outcome::Failed(format!("{error:#}"))
            }
        };
        self.done.push((name, outcome, started.elapsed()));
    }

    /// Says that the step is left out on this machine, in the table as well: nobody is to take it for passed. Where it is
    /// what was asked for, that is a failure.
    pub(crate) fn skip(&mut self, name: &'static str, why: &str) {
        self.names.push(name);
        if self.only.as_ref().is_some_and(|only| only != name) {
            return;
        }
        eprintln!("\n==> {name}: SKIPPED, {why}");
        let outcome = match self.only {
            Some(_) => Outcome::Failed(why.to_owned()),
            None => Outcome::Skipped(why.to_owned()),
        };
        self.done.push((name, outcome, Duration::ZERO));
    }

    /// Prints the table; an error that names the first failing step if there is one.
    pub(crate) fn finish(self) -> Result<()> {
        if let Some(only) = self.only.as_ref().filter(|_| self.done.is_empty()) {
            bail!("there is no step '{only}'; steps are {}", self.names.join(", "));
        }
        eprint!("\n{}", self.table());
        match self.first_failure() {
            None => Ok(()),
            Some((name, error)) => bail!("step '{name}' failed: {error}"),
        }
    }

    fn first_failure(&self) -> Option<(&'static str, &str)> {
        self.done.iter().find_map(|(name, outcome, _)| match outcome {
            Outcome::Failed(error) => Some((*name, error.as_str())),
            Outcome::Passed | Outcome::NotRun | Outcome::Skipped(_) => None,
        })
    }

    fn table(&self) -> String {
        let width = self.done.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max("total".len());
        let mut table = String::new();
        for (name, outcome, took) in &self.done {
            let word = match outcome {
                Outcome::Passed => "ok".to_owned(),
                Outcome::Failed(_) => "FAILED".to_owned(),
                Outcome::NotRun => "not run".to_owned(),
                Outcome::Skipped(why) => format!("SKIPPED: {why}"),
            };
            table.push_str(&format!("{name:<width$}  {:>8}  {word}\n", clock(*took)));
        }
        let total = self.done.iter().map(|(.., took)| *took).sum();
        table.push_str(&format!("{:<width$}  {:>8}\n", "total", clock(total)));
        table
    }
}

/// Minutes and seconds; tenths below a minute.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{}m {:02}s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::bail;

    use super::{Steps, clock};

    #[test]
    fn a_failure_stops_the_rest_and_is_named() {
        let mut steps = Steps::new(false, None);
        let mut ran_after = false;
        steps.step("one", "passes", || Ok(()));
        steps.step("two", "fails", || bail!("no luck"));
        steps.step("three", "must not run", || {
            ran_after = true;
            Ok(())
        });
        assert!(!ran_after);
        let table = steps.table();
        assert!(
            table.lines().nth(1).is_some_and(|line| line.starts_with("two") && line.ends_with("FAILED")),
            "{table}"
        );
        assert!(table.lines().nth(2).is_some_and(|line| line.ends_with("not run")), "{table}");
        assert_eq!(steps.finish().expect_err("two failed").to_string(), "step 'two' failed: no luck");
    }

    #[test]
    fn keep_going_runs_everything_and_still_fails() {
        let mut steps = Steps::new(true, None);
        let mut ran_after = false;
        steps.step("one", "fails", || bail!("first"));
        steps.step("two", "runs", || {
            ran_after = true;
            bail!("second")
        });
        assert!(ran_after);
        assert_eq!(steps.finish().expect_err("both failed").to_string(), "step 'one' failed: first");
    }

    #[test]
    fn one_step_can_be_chosen_and_an_unknown_one_is_refused() {
        let run = |only: &str| {
            let mut steps = Steps::new(false, Some(only.to_owned()));
            steps.step("one", "fails", || bail!("no luck"));
            steps.step("two", "passes", || Ok(()));
            steps.finish()
        };
        run("two").expect("one is not run");
        assert_eq!(run("one").expect_err("one fails").to_string(), "step 'one' failed: no luck");
        assert_eq!(run("six").expect_err("not a step").to_string(), "there is no step 'six'; steps are one, two");
    }

    #[test]
    fn what_is_skipped_is_told_and_is_a_failure_where_it_was_asked_for() {
        let mut steps = Steps::new(false, None);
        steps.step("one", "passes", || Ok(()));
        steps.skip("two", "no root");
        assert!(
            steps.table().lines().nth(1).is_some_and(|line| line.ends_with("SKIPPED: no root")),
            "{}",
            steps.table()
        );
        steps.finish().expect("nothing failed");
        let mut steps = Steps::new(false, Some("two".to_owned()));
        steps.skip("two", "no root");
        assert_eq!(steps.finish().expect_err("it was asked for").to_string(), "step 'two' failed: no root");
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(clock(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(clock(Duration::from_secs(125)), "2m 05s");
    }
}
