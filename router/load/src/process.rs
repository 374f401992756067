//! What the kernel says: CPU time and memory of a process.

use anyhow::Context;
use std::fs::read_to_string;

/// Clock ticks a second in `/proc/PID/stat`: 100 on every Linux that Rust builds for.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time that process `pid` has used, user and system, in seconds; exact to 10 ms.
///
/// # Errors
/// When there is no such process.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
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
///
/// # Errors
/// When there is no such process.
pub fn memory_mib(pid: u32) -> anyhow::Result<(f64, f64)> {
    let status = read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let kib =
        |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
    let mib = |key: &str| kib(key).map_or(0.0, |kib: f64| kib / 1024.0);
    Ok((mib("VmRSS:"), mib("VmHWM:")))
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
}
