//! What filters logged: taken from the workers when somebody looks, kept so that a second look sees it again.

use super::types::LogEntry;
use crate::world::View;
use myelin_catalog::ModuleRef;
use myelin_engine::LogLevel;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Lines that are kept for each module.
const LINES_MAX: usize = 1_000;

/// Lines by module.
#[derive(Debug, Default)]
pub(super) struct LogBook(Mutex<BTreeMap<ModuleRef, VecDeque<LogEntry>>>);

impl LogBook {
    /// The lines of `module`, oldest first, with what was logged since the last look.
    pub(super) fn read(&self, view: &View, module: &ModuleRef) -> Vec<LogEntry> {
        // A poisoned lock still guards whole values: every change is a push or a removal.
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Modules that are gone take their lines with them: the catalog bounds how many there are.
        book.retain(|known, _| view.catalog.module(known).is_some());
        let lines = book.entry(module.clone()).or_default();
        for card in view.cards.iter().filter(|card| card.module == *module) {
            lines.extend(card.take_logs().into_iter().map(|line| LogEntry {
                time_unix_ns: line.time_unix_ns,
                level: level(line.level),
                binding: card.name.to_string(),
                message: line.text,
            }));
        }
        lines.make_contiguous().sort_by_key(|line| line.time_unix_ns);
        let surplus = lines.len().saturating_sub(LINES_MAX);
        lines.drain(..surplus);
        lines.iter().cloned().collect()
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
