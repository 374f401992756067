//! `/v1/logs`: what filters logged. Lines are taken from the workers when somebody looks, kept so that a second look
//! sees them again, and numbered, so that a follower asks for what came after.

use super::Context;
use super::problem::Problem;
use super::types::{LogEntry, LogList};
use crate::shared::Phase;
use crate::world::View;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use myelin_catalog::{ModuleRef, Name};
use myelin_engine::LogLevel;
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

/// Lines that are kept for each module.
const LINES_MAX: usize = 1_000;
/// Longest that an answer waits for lines. Short enough that no proxy in between gives up.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a waiting answer looks for lines: workers do not tell.
const LOOK: Duration = Duration::from_millis(100);
/// Answers that may wait at a time; further ones come at once. Each holds a connection, and those are bounded.
const WAITING_MAX: usize = 32;

/// Which lines are asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogQuery {
    /// Lines of this module only: `name`, or `name@version`.
    module: Option<String>,
    /// Lines of this binding only.
    binding: Option<String>,
    /// Lines with a larger number only: `next` of the answer before.
    after: u64,
    /// How long to wait for the first line, in milliseconds; at most 10,000.
    wait_ms: u64,
}

/// What filters logged, oldest first. With `after` and `wait_ms` it can be followed.
#[utoipa::path(get, path = "/v1/logs", tag = "observation",
    params(
        ("module" = Option<String>, Query, description = "Only lines of this module: name, or name@version"),
        ("binding" = Option<String>, Query, description = "Only lines of this binding"),
        ("after" = Option<u64>, Query, description = "Only lines with a larger number: `next` of the answer before"),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for the first line; at most 10,000"),
    ),
    responses(
        (status = 200, body = LogList),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The query or a name in it is none"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such module or binding"),
    ))]
pub(super) async fn logs(
    State(context): State<Arc<Context>>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Json<LogList>, Problem> {
    let Query(query) = query.map_err(|rejection| {
        let detail = format!("{}; the query may have module, binding, after and wait_ms", rejection.body_text());
        Problem::new(StatusCode::BAD_REQUEST, "invalid-query", detail)
    })?;
    let wanted = Wanted::new(&query, &context.state.world.view())?;
    let place = context.logs.waiting.try_acquire();
    let wait = if place.is_ok() { Duration::from_millis(query.wait_ms).min(WAIT_MAX) } else { Duration::ZERO };
    let until = Instant::now() + wait;
    loop {
        let list = context.logs.read(&context.state.world.view(), &wanted);
        let is_serving = *context.state.shared.phase.borrow() == Phase::Serving;
        // Who follows is not what a router that drains waits for.
        if !list.lines.is_empty() || Instant::now() >= until || !is_serving {
            return Ok(Json(list));
        }
        sleep(LOOK).await;
    }
}

/// Which lines are wanted, the names in it known to be good.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    module: Option<Which>,
    binding: Option<Name>,
    after: u64,
}

/// One version of a module, or all.
#[derive(Clone, Debug)]
enum Which {
    Version(ModuleRef),
    All(Name),
}

impl Wanted {
    /// All lines of one version of a module.
    pub(super) fn of_module(module: ModuleRef) -> Self {
        Self { module: Some(Which::Version(module)), ..Self::default() }
    }

    fn new(query: &LogQuery, view: &View) -> Result<Self, Problem> {
        let module = match query.module.as_deref() {
            None => None,
            Some(text) if text.contains('@') => Some(Which::Version(text.parse()?)),
            Some(text) => Some(Which::All(text.parse()?)),
        };
        let binding = query.binding.as_deref().map(str::parse::<Name>).transpose()?;
        let wanted = Self { module, binding, after: query.after };
        if wanted.module.is_some() && !view.catalog.modules().any(|module| wanted.is_of(&module.module_ref())) {
            return Err(Problem::not_found(
                "there is no such module; `myelin filter ls` shows those that there are".into(),
            ));
        }
        let is_known = |name: &Name| super::bindings::all(view).any(|(staged, _)| staged.binding.name == *name);
        match &wanted.binding {
            Some(name) if !is_known(name) => Err(Problem::not_found(format!(
                "there is no binding `{name}`; `myelin filter ls` shows those that there are"
            ))),
            _ => Ok(wanted),
        }
    }

    fn is_of(&self, module: &ModuleRef) -> bool {
        match &self.module {
            None => true,
            Some(Which::Version(wanted)) => wanted == module,
            Some(Which::All(name)) => *name == module.name,
        }
    }

    fn is_line(&self, line: &LogEntry) -> bool {
        line.number > self.after && self.binding.as_ref().is_none_or(|binding| binding.as_str() == line.binding)
    }
}

/// All lines that are kept.
#[derive(Debug)]
pub(super) struct LogBook {
    pages: Mutex<Pages>,
    waiting: Semaphore,
}

impl Default for LogBook {
    fn default() -> Self {
        Self { pages: Mutex::default(), waiting: Semaphore::new(WAITING_MAX) }
    }
}

#[derive(Debug, Default)]
struct Pages {
    /// Number of the newest line.
    newest: u64,
    modules: BTreeMap<ModuleRef, Page>,
}

/// Lines of one version of a module.
#[derive(Debug, Default)]
struct Page {
    lines: VecDeque<LogEntry>,
    /// Number of the newest line that fell out.
    dropped: u64,
}

impl LogBook {
    /// The lines that are wanted, oldest first, with what was logged since the last look.
    pub(super) fn read(&self, view: &View, wanted: &Wanted) -> LogList {
        // A poisoned lock still guards whole values: every change is a push or a removal.
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        // Modules that are gone take their lines with them: the catalog bounds how many there are.
        pages.modules.retain(|known, _| view.catalog.module(known).is_some());
        for card in &view.cards {
            for line in card.take_logs() {
                let (time_unix_ns, level, message) = (line.time_unix_ns, level(line.level), line.text);
                let (binding, module) = (card.name.to_string(), card.module.to_string());
                pages.push(&card.module, LogEntry { number: 0, time_unix_ns, level, module, binding, message });
            }
        }
        let of = pages.modules.iter().filter(|(module, _)| wanted.is_of(module));
        let missed = wanted.after > 0 && of.clone().any(|(_, page)| page.dropped > wanted.after);
        let lines = of.flat_map(|(_, page)| page.lines.iter().filter(|line| wanted.is_line(line)));
        let mut lines: Vec<_> = lines.cloned().collect();
        lines.sort_by_key(|line| line.number);
        LogList { lines, next: pages.newest, missed }
    }
}

impl Pages {
    fn push(&mut self, module: &ModuleRef, line: LogEntry) {
        self.newest += 1;
        let page = self.modules.entry(module.clone()).or_default();
        page.lines.push_back(LogEntry { number: self.newest, ..line });
        if page.lines.len() > LINES_MAX
            && let Some(oldest) = page.lines.pop_front()
        {
            page.dropped = oldest.number;
        }
    }
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn lines_are_numbered_across_modules_and_a_gap_is_noticed() {
        let mut pages = Pages::default();
        let (a, b) = ("a@1.0.0".parse().unwrap(), "b@1.0.0".parse().unwrap());
        let line = || LogEntry {
            number: 0,
            time_unix_ns: 0,
            level: "info",
            module: "m".into(),
            binding: "x".into(),
            message: String::new(),
        };
        for _ in 0..LINES_MAX {
            pages.push(&a, line());
        }
        pages.push(&b, line());
        assert_eq!((pages.newest, pages.modules[&a].dropped, pages.modules[&b].lines[0].number), (1_001, 0, 1_001));
        pages.push(&a, line());
        assert_eq!((pages.modules[&a].dropped, pages.modules[&a].lines.len()), (1, LINES_MAX));
    }
}
