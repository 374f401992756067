//! What the kernel says: CPU time and memory of a process, and what machine this is.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs::read_to_string;
use std::process::Command;

/// Clock ticks a second in `/proc/PID/stat`: 100 on every Linux that Rust builds for.
const TICKS_PER_SECOND: f64 = 100.0;
/// Of `Cargo.lock`, what decides the figures.
const PACKAGES: [&str; 6] = ["quinn", "quinn-proto", "quinn-udp", "rustls", "ring", "tokio"];

/// CPU time that process `pid` has used, user and system, in seconds; exact to 10 ms.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    cpu_of(&stat).with_context(|| format!("/proc/{pid}/stat is not as known"))
}

fn cpu_of(stat: &str) -> Option<f64> {
    // The program's name may hold spaces and parentheses; the last one ends it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Resident memory of process `pid` in MiB: now, and at most so far.
pub(crate) fn memory_mib(pid: u32) -> anyhow::Result<(f64, f64)> {
    let status = read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let kib =
        |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
    let mib = |key: &str| kib(key).map_or(0.0, |kib: f64| kib / 1024.0);
    Ok((mib("VmRSS:"), mib("VmHWM:")))
}

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
    fn cpu_time_is_found_behind_any_name() {
        let stat = "77 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(cpu_of(stat), Some(3.0));
        assert_eq!(cpu_of("77 (x) S 1"), None);
        assert!(cpu_seconds(std::process::id()).is_ok_and(|seconds| seconds < 3600.0));
    }

    #[test]
    fn the_versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"quinn\"\nversion = \"0.11.12\"\n[[package]]\nname = \"a\"\nversion = \"1\"\n";
        assert_eq!(packages(lock), ["quinn 0.11.12"]);
        assert_eq!(Machine::here().packages.len(), PACKAGES.len());
    }
}
