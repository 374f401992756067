//! Files that nobody but the router's user should be able to read.

use crate::config::Config;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What nobody but the owner should be able to do: its group may read it, as it must where secrets are mounted.
const OTHERS: u32 = 0o037;
/// The same of a folder, which a group that reads has to enter.
const OTHERS_IN_FOLDER: u32 = 0o027;

/// A file with a secret that others may read or change, or the folder of all of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exposed {
    /// Which setting names it.
    pub(super) setting: &'static str,
    pub(super) file: PathBuf,
    pub(super) mode: u32,
}

impl Exposed {
    /// What to do about it.
    pub(super) fn step(&self) -> String {
        format!("chmod {} {}", if self.file.is_dir() { 700 } else { 600 }, self.file.display())
    }
}

impl std::fmt::Display for Exposed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { setting, file, mode } = self;
        write!(out, "{setting}: others on this machine may use {} (mode {mode:04o})", file.display())
    }
}

/// The secrets of a configuration that others may use. What is not there, others tell.
pub(super) fn exposed(config: &Config) -> Vec<Exposed> {
    let secrets = [("[tls] key", &config.tls.key), ("[admin] token_file", &config.admin.token_file)];
    let named = secrets.into_iter().filter_map(|(setting, file)| Some((setting, file.as_deref()?)));
    // What a router makes is its user's alone; one that was there before stays as it is.
    let folder = ("[node] data_dir", config.node.data_dir.as_path());
    named.chain([folder]).filter_map(|(setting, file)| look(setting, file)).collect()
}

fn look(setting: &'static str, file: &Path) -> Option<Exposed> {
    let facts = std::fs::metadata(file).ok()?;
    let (mode, others) = (facts.permissions().mode() & 0o7777, if facts.is_dir() { OTHERS_IN_FOLDER } else { OTHERS });
    (mode & others != 0).then(|| Exposed { setting, file: file.to_owned(), mode })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use std::fs::{Permissions, set_permissions};

    #[test]
    fn a_secret_that_others_may_read_is_told_with_the_step_that_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let mut config = Config::default();
        config.node.data_dir = folder.path().to_owned();
        set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        config.admin.token_file = Some(file.clone());
        assert_eq!(exposed(&config), [], "there is none");
        std::fs::write(&file, "secret").unwrap();
        for (mode, is_exposed) in
            [(0o600, false), (0o400, false), (0o640, false), (0o660, true), (0o604, true), (0o666, true)]
        {
            set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(!exposed(&config).is_empty(), is_exposed, "{mode:o}");
        }
        let told = &exposed(&config)[0];
        assert!(told.to_string().contains("[admin] token_file") && told.to_string().contains("0666"), "{told}");
        assert!(told.step().starts_with("chmod 600 /"));

        std::fs::remove_file(&file).unwrap();
        for (mode, is_exposed) in [(0o700, false), (0o750, false), (0o770, true), (0o755, true), (0o701, true)] {
            set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(!exposed(&config).is_empty(), is_exposed, "{mode:o}");
        }
        let told = &exposed(&config)[0];
        assert!(told.to_string().contains("[node] data_dir") && told.step().starts_with("chmod 700 /"), "{told}");
    }
}
