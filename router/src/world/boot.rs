//! The boot guard's file: which generation this router is trying, and which have killed it.

use crate::files::write_atomically;
use myelin_catalog::{BootDecision, BootMarker};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The marker's name in the data directory.
const FILE: &str = "boot.json";

/// The marker and where it is kept.
#[derive(Debug)]
pub(super) struct BootGuard {
    file: PathBuf,
    marker: BootMarker,
}

impl BootGuard {
    /// The guard of the router in `data_dir`.
    pub(super) fn open(data_dir: &Path) -> Self {
        let file = data_dir.join(FILE);
        let marker = match fs::read(&file) {
            Ok(bytes) => BootMarker::decode(&bytes).unwrap_or_else(|error| {
                tracing::error!(%error, file = %file.display(), "the boot marker is not readable; it begins anew");
                BootMarker::default()
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => BootMarker::default(),
            Err(error) => {
                tracing::error!(%error, file = %file.display(), "the boot marker is not readable; it begins anew");
                BootMarker::default()
            }
        };
        Self { file, marker }
    }

    /// What is to be run at this start.
    pub(super) fn boot(&mut self, wanted: u64, earlier: &[u64]) -> BootDecision {
        let (decision, marker) = self.marker.boot(wanted, earlier);
        self.keep(marker);
        decision
    }

    /// The running router is about to activate `generation`.
    pub(super) fn activating(&mut self, generation: u64) {
        self.keep(self.marker.activating(generation));
    }

    /// The generation that was tried is healthy, or the router ends in good order.
    pub(super) fn healthy(&mut self) {
        self.keep(self.marker.healthy());
    }

    /// A marker that cannot be kept must not keep a router from running: it guards against the next crash only.
    fn keep(&mut self, marker: BootMarker) {
        if marker == self.marker && self.file.exists() {
            return;
        }
        let text = String::from_utf8_lossy(&marker.encode()).into_owned();
        if let Err(error) = write_atomically(&self.file, &text) {
            tracing::error!(%error, file = %self.file.display(), "the boot marker is not kept");
        }
        myelin_failpoint::reach("boot-marked");
        self.marker = marker;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn two_starts_that_failed_lead_to_the_generation_before() {
        let folder = tempfile::tempdir().unwrap();
        let boot = || BootGuard::open(folder.path()).boot(7, &[4, 2]);
        assert_eq!(boot(), BootDecision::Run { generation: 7 });
        assert_eq!(boot(), BootDecision::Run { generation: 7 });
        let BootDecision::Retreat(retreat) = boot() else { panic!("a third start with generation 7") };
        assert_eq!((retreat.from, retreat.to), (7, 4));
    }

    #[test]
    fn a_healthy_start_is_forgotten_and_garbage_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..4 {
            let mut guard = BootGuard::open(folder.path());
            assert_eq!(guard.boot(7, &[4]), BootDecision::Run { generation: 7 });
            guard.healthy();
        }
        fs::write(folder.path().join(FILE), "garbage").unwrap();
        assert_eq!(BootGuard::open(folder.path()).boot(7, &[4]), BootDecision::Run { generation: 7 });
    }
}
