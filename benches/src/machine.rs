//! What machine this is, and the versions that decide the figures.

use serde::{Deserialize, Serialize};
use std::fs::read_to_string;
use std::process::Command;

/// Of `Cargo.lock`, what decides the figures.
const PACKAGES: [&str; 6] = ["quinn", "quinn-proto", "quinn-udp", "rustls", "ring", "tokio"];

/// The machine and the versions that a report is worth nothing without.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) cpu: String,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    pub(crate) packages: Vec<String>,
}

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Self {
        let first_line = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
        let cpu = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let rustc =
            Command::new("rustc").arg("--version").output().map(|out| String::from_utf8_lossy(&out.stdout).into());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: model.map_or_else(|| "unknown".into(), |(_, name)| name.trim().to_owned()),
            kernel: first_line(read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()),
            rustc: first_line(rustc.unwrap_or_default()),
            packages: packages(include_str!("../../Cargo.lock")),
        }
    }
}

fn packages(lock: &str) -> Vec<String> {
    let entries = lock.split("[[package]]").filter_map(|entry| {
        let field = |key: &str| entry.lines().find_map(|line| line.strip_prefix(key)?.strip_suffix('"'));
        Some((field("name = \"")?, field("version = \"")?))
    });
    let wanted = entries.filter(|(name, _)| PACKAGES.contains(name));
    wanted.map(|(name, version)| format!("{name} {version}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"quinn\"\nversion = \"0.11.12\"\n[[package]]\nname = \"a\"\nversion = \"1\"\n";
        assert_eq!(packages(lock), ["quinn 0.11.12"]);
        assert_eq!(Machine::here().packages.len(), PACKAGES.len());
    }
}
