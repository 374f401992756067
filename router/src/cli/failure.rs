//! How a command fails: what, where, why, the next step, and the exit code that scripts read.

use std::fmt;
use std::process::ExitCode;

/// What a command returns.
pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

/// The exit codes of `myelin`, the same for every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It failed.
    Failed = 1,
    /// The command line or a given file is wrong.
    Usage = 2,
    /// What was named does not exist, or nobody answers for it.
    NotFound = 3,
    /// Not allowed.
    Denied = 4,
    /// It does not fit what is there now.
    Conflict = 5,
    /// The time was up.
    Timeout = 6,
    /// A check that guards something said no.
    GateFailed = 7,
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong, where and why.
    pub what: String,
    /// What to do about it.
    pub next: Option<String>,
}

impl Failure {
    /// A failure without a next step.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), next: None }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }

    /// Puts what was being done before why it failed.
    #[must_use]
    pub fn doing(mut self, what: impl fmt::Display) -> Self {
        self.what = format!("{what}: {}", self.what);
        self
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Everything that has no exit code of its own.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, format!("{error:#}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        match &self.next {
            Some(step) => write!(f, "\n  next: {step}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Which exit code a stable code, of a refusal or of a problem of the admin API, stands for.
pub(super) fn exit_for_code(code: &str) -> Option<Exit> {
    Some(match code {
        "not-found" | "no-responder" | "unknown-module" | "unknown-binding" | "nothing-to-roll-back" => Exit::NotFound,
        "denied" | "unauthorized" | "forbidden" | "filter-fault" | "dead-lettered" | "reserved-topic" => Exit::Denied,
        "unauthenticated" | "token-expired" | "forbidden-role" | "two-person" => Exit::Denied,
        "conflict" | "exists" | "in-use" | "revision-mismatch" | "rollout-running" => Exit::Conflict,
        "timeout" | "expired" => Exit::Timeout,
        "self-test-failed" | "gate-failed" | "not-ready" | "incompatible-schema" => Exit::GateFailed,
        _ => return None,
    })
}

/// Which exit code a status of the admin API stands for.
pub(super) fn exit_for_status(status: u16) -> Exit {
    match status {
        401 | 403 => Exit::Denied,
        404 => Exit::NotFound,
        409 | 412 => Exit::Conflict,
        408 | 504 => Exit::Timeout,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses_map_to_the_documented_exit_codes() {
        let of_code = |code| exit_for_code(code).map(|exit| exit as u8);
        assert_eq!(
            ["not-found", "denied", "conflict", "timeout", "gate-failed", "malformed"].map(of_code),
            [Some(3), Some(4), Some(5), Some(6), Some(7), None]
        );
        let of_status = |status| exit_for_status(status) as u8;
        assert_eq!([400, 401, 403, 404, 408, 409, 412, 500, 504].map(of_status), [1, 4, 4, 3, 6, 5, 5, 1, 6]);
    }

    #[test]
    fn a_failure_reads_as_what_and_what_next() {
        let failure = Failure::new(Exit::NotFound, "there is no `x`").next("try `y`").doing("reading");
        assert_eq!(failure.to_string(), "error: reading: there is no `x`\n  next: try `y`");
    }
}
