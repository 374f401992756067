//! From a save to its effect: build, push, bind, roll out; then what it changed.

use super::compare::{decide, differences, sample};
use super::package::Package;
use crate::cli::admin::{Api, binding_path, module_path};
use crate::cli::build::{BuildOptions, BuiltFilter, Toolchain, build_filter, wasm_toolchain};
use crate::cli::examine::examine;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::http::{Body, Upload};
use crate::cli::trial::{Engine, told};
use crate::cli::values::{print, say};
use anyhow::Context;
use hyper::Method;
use myelin_engine::Program;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Versions that stay at the router: the live one, the one that a rollback returns to, and one more.
const VERSIONS_KEPT: usize = 3;
/// Fixtures that are told when they are not as expected; further ones are counted.
const BAD_SHOWN_MAX: usize = 5;

/// The filter on its way from save to save.
pub(super) struct Session {
    api: Api,
    engine: Engine,
    toolchain: Toolchain,
    package: Package,
    sample: u32,
    seed: u64,
    /// What judges the traffic.
    live: Option<Live>,
    /// Versions at the router, oldest first.
    pushed: VecDeque<String>,
}

/// A version that judges the traffic.
struct Live {
    digest: String,
    program: Program,
}

/// How long the steps took.
struct Steps {
    build: Duration,
    push: Duration,
    swap: Duration,
    pause_us: u64,
}

impl Session {
    /// A session whose filter does not run yet.
    pub(super) fn new(api: Api, engine: Engine, package: Package, sample: u32, seed: u64) -> Result<Self> {
        let toolchain = wasm_toolchain().map_err(|step| Failure::new(Exit::Failed, step.what).next(step.run))?;
        Ok(Self { api, engine, toolchain, package, sample, seed, live: None, pushed: VecDeque::new() })
    }

    /// The package.
    pub(super) fn package(&self) -> &Package {
        &self.package
    }

    /// Takes up a save that was made at `saved`. What goes wrong is told, and the version before goes on.
    pub(super) async fn take_up(&mut self, saved: Instant) {
        if let Err(failure) = self.try_take_up(saved).await {
            let goes_on = if self.live.is_some() { "; the version before goes on" } else { "" };
            say!("not live{goes_on}\n{failure}");
        }
    }

    async fn try_take_up(&mut self, saved: Instant) -> Result<()> {
        let begin = Instant::now();
        let built = self.build().await?;
        let build = begin.elapsed();
        if let Some(live) = self.live.as_ref().filter(|live| live.digest == built.digest) {
            say!("the same component as before: nothing to swap");
            return self.fixtures(&live.program);
        }
        let component = std::fs::read(&built.path).with_context(|| format!("reading {}", built.path.display()))?;
        let module = format!("{}@{}", built.name, development_version(&built.version));
        let (push, swap, pause_us) = self.deploy(&module, &component).await?;
        let steps = Steps { build, push, swap, pause_us };
        say!("live     {module}  {}", steps.told(saved.elapsed()));
        // The rest explains; the traffic is judged by the new version already.
        let program = self.engine.load(&component)?.program;
        let before = self.live.replace(Live { digest: built.digest, program: program.clone() });
        self.tidy_up(module).await;
        self.fixtures(&program)?;
        match before {
            Some(before) => self.compare(&before.program, &program),
            None => Ok(()),
        }
    }

    /// Builds the package; cargo's errors go to the terminal.
    async fn build(&self) -> Result<BuiltFilter> {
        let (dir, toolchain) = (self.package.dir.clone(), Some(self.toolchain));
        // A fixture that is not met is told; it keeps no author from seeing the filter at work.
        let options = BuildOptions { dir, toolchain, quiet: true, without_fixtures: true, ..BuildOptions::default() };
        let built = tokio::task::spawn_blocking(move || build_filter(&options)).await.context("the build")?;
        Ok(built?)
    }

    /// Pushes, binds and rolls out; how long pushing and swapping took, and how long a worker paused.
    async fn deploy(&self, module: &str, component: &[u8]) -> Result<(Duration, Duration, u64)> {
        let begin = Instant::now();
        let body = Body::Wasm(Upload { component: component.to_vec().into(), ..Upload::default() });
        self.api.ask::<Value>(Method::PUT, &module_path(module)?, body).await?;
        let push = begin.elapsed();
        let Package { name, pattern, grants, config, .. } = &self.package;
        let binding = json!({"module": module, "pattern": pattern, "config": config, "grant": {"topics": grants}});
        self.api.ask::<Value>(Method::PUT, &binding_path(name)?, Body::Json(binding)).await?;
        let note = json!({"note": "myelin dev"});
        let report = self.api.ask::<Value>(Method::POST, "/v1/rollouts", Body::Json(note)).await?;
        Ok((push, begin.elapsed() - push, report["swap_us_max"].as_u64().unwrap_or_default()))
    }

    /// Says which fixtures are not as expected.
    fn fixtures(&self, program: &Program) -> Result<()> {
        let checked = examine(program, &self.package.fixtures()?);
        let bad: Vec<_> = checked.iter().filter(|checked| !checked.is_good()).collect();
        say!("fixtures {} of {} as expected", checked.len() - bad.len(), checked.len());
        for checked in bad.iter().take(BAD_SHOWN_MAX) {
            let said = checked.said.as_ref().map_or_else(Clone::clone, told);
            let expected = checked.unmet.first().map_or("no fault", |unmet| unmet.expected.as_str());
            say!("  {}:{}  expected {expected}, got {said}", checked.path.display(), checked.line);
        }
        if bad.len() > BAD_SHOWN_MAX {
            say!("  and {} more; `myelin filter test` shows all", bad.len() - BAD_SHOWN_MAX);
        }
        Ok(())
    }

    /// Says what is decided otherwise than by the version before.
    fn compare(&self, before: &Program, program: &Program) -> Result<()> {
        let config = self.package.config_bytes();
        let events = sample(&self.package, self.sample, self.seed, &[])?;
        match (decide(before, &config, &events), decide(program, &config, &events)) {
            (Ok(before), Ok(after)) => print(format!("changes  {}", differences(&events, &before, &after))),
            (before, after) => {
                let why = before.err().or(after.err()).unwrap_or_default();
                say!("changes  not compared: {why}");
            }
        }
        Ok(())
    }

    /// Removes versions that nobody returns to: a day of saves is hundreds of them.
    async fn tidy_up(&mut self, module: String) {
        self.pushed.push_back(module);
        while self.pushed.len() > VERSIONS_KEPT
            && let Some(oldest) = self.pushed.pop_front()
        {
            let Ok(path) = module_path(&oldest) else { continue };
            // One that is in use after all stays; the next session's data directory may be emptied by hand.
            let _ = self.api.tell(Method::DELETE, &path, Body::None).await;
        }
    }
}

impl Steps {
    fn told(&self, since_save: Duration) -> String {
        let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
        format!(
            "{} s after the save: build {}, push {}, swap {} (a worker paused {} us)",
            seconds(since_save),
            seconds(self.build),
            seconds(self.push),
            seconds(self.swap),
            self.pause_us
        )
    }
}

/// A version never changes at a router: each save is a version of its own, later than those before.
fn development_version(version: &str) -> String {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    // With a pre-release there, ours is a part of that.
    let joint = if version.contains('-') { ".dev." } else { "-dev." };
    format!("{version}{joint}{now_ms}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_save_is_a_version_that_the_catalog_takes() {
        for version in ["1.0.0", "1.0.0-rc.1"] {
            let module = format!("m@{}", development_version(version));
            assert!(module_path(&module).is_ok(), "{module}");
            assert!(module.starts_with(&format!("m@{version}")));
        }
    }
}
