//! Notices saves: the package's sources, fixtures and manifest, and nothing that a build writes.

use crate::cli::failure::Result;
use anyhow::Context;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Saves that may wait to be noticed: one is enough to build, further ones are the same news.
const NOTICES_MAX: usize = 16;
/// An editor writes, renames and touches in one go: a save is over when nothing has happened for so long.
const QUIET: Duration = Duration::from_millis(40);
/// Whatever happens, a save is taken up after so long.
const QUIET_MAX: Duration = Duration::from_millis(400);
/// Kinds of files that make a difference.
const EXTENSIONS: [&str; 4] = ["rs", "toml", "jsonl", "json"];
/// Folders of the package that are watched with all below them.
const FOLDERS: [&str; 3] = ["src", "fixtures", "tests"];

/// Notices saves for as long as it lives.
pub(super) struct Watch {
    notices: mpsc::Receiver<Instant>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches the package in `dir`.
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let told = || format!("watching {}", dir.display());
        let dir = dir.canonicalize().with_context(told)?;
        let (notice, notices) = mpsc::channel(NOTICES_MAX);
        let root = dir.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_save(&root, &event)) {
                // Where there is no room, somebody is told already.
                let _ = notice.try_send(Instant::now());
            }
        })
        .with_context(told)?;
        // The folder itself for Cargo.toml, which editors replace; `target` and `vendor` are not looked into.
        watcher.watch(&dir, RecursiveMode::NonRecursive).with_context(told)?;
        for folder in FOLDERS.iter().map(|folder| dir.join(folder)).filter(|folder| folder.is_dir()) {
            watcher.watch(&folder, RecursiveMode::Recursive).with_context(told)?;
        }
        Ok(Self { notices, _watcher: watcher })
    }

    /// Waits for the next save; when it began. Cancel-safe.
    pub(super) async fn next(&mut self) -> Instant {
        let Some(first) = self.notices.recv().await else {
            // The watcher lives as long as this does.
            return std::future::pending().await;
        };
        while first.elapsed() < QUIET_MAX && timeout(QUIET, self.notices.recv()).await.is_ok_and(|next| next.is_some())
        {
        }
        first
    }
}

/// Whether something was written that makes a difference.
fn is_save(root: &Path, event: &Event) -> bool {
    let is_change = matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_));
    is_change && event.paths.iter().any(|path| is_source(root, path))
}

fn is_source(root: &Path, path: &Path) -> bool {
    let Ok(inside) = path.strip_prefix(root) else { return false };
    let name = inside.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let extension = inside.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    // Editors keep their swap files beside the real ones.
    let is_plain = !name.starts_with(['.', '#']) && EXTENSIONS.contains(&extension);
    let is_watched = match inside.components().count() {
        1 => name == "Cargo.toml",
        _ => FOLDERS.iter().any(|folder| inside.starts_with(folder)),
    };
    is_plain && is_watched
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn only_what_makes_a_difference_is_a_save() {
        let root = Path::new("/p");
        let is = |path: &str| is_source(root, Path::new(path));
        for path in ["/p/src/lib.rs", "/p/src/a/b.rs", "/p/fixtures/a.jsonl", "/p/Cargo.toml"] {
            assert!(is(path), "{path}");
        }
        for path in [
            "/p/target/release/x.rs",
            "/p/vendor/myelin-filter/arena/src/lib.rs",
            "/p/src/.lib.rs.swp",
            "/p/src/.#lib.rs",
            "/p/src/4913",
            "/p/Cargo.lock",
            "/q/src/lib.rs",
            "/p/README.md",
        ] {
            assert!(!is(path), "{path}");
        }
    }

    #[tokio::test]
    async fn every_save_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        let mut watch = Watch::start(folder.path()).unwrap();
        let file = folder.path().join("src/lib.rs");
        std::fs::write(&file, "one").unwrap();
        std::fs::write(&file, "two").unwrap();
        let patience = Duration::from_secs(30);
        assert!(timeout(patience, watch.next()).await.is_ok(), "the save was not noticed");
        // Whatever else the two writes were told as is over once it is quiet.
        while timeout(Duration::from_millis(300), watch.next()).await.is_ok() {}
        std::fs::rename(&file, folder.path().join("src/new.rs")).unwrap();
        assert!(timeout(patience, watch.next()).await.is_ok(), "the second save was not noticed");
    }
}
