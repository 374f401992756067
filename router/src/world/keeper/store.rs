//! A disk that is full, or does not write for another reason: what is in memory judges on, and the log is opened again.

use super::Keeper;
use std::time::{Duration, Instant};

/// How often it is tried at most: opening it reads and checks the whole file.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// The alarm while no record can be written down.
const ALARM: &str = "store-failed";

impl Keeper {
    /// Opens the log again after a write that failed, as soon as that is possible. Until then nothing can be changed, and
    /// somebody is to know.
    pub(super) fn tend_store(&mut self) {
        if !self.log.has_failed() {
            self.store_failed = None;
            return;
        }
        match self.store_failed {
            None => {
                *self.alarms.entry(ALARM.to_owned()).or_default() += 1;
                tracing::error!(
                    code = ALARM,
                    "the catalog cannot be written down: this router routes on and nothing can be changed; free room in \
                     [node] data_dir, or mend its permissions: it is opened again by itself"
                );
            }
            Some(tried) if tried.elapsed() < REOPEN_INTERVAL => return,
            Some(_) => {}
        }
        match self.log.reopen() {
            Ok(records) => {
                self.store_failed = None;
                tracing::info!(records = records.len(), "the catalog is written down again");
                if !records.is_empty() {
                    self.log_moved();
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the catalog cannot be opened again yet");
                self.store_failed = Some(Instant::now());
            }
        }
    }
}
