//! How a command fails: what, where, why, the next step, and the exit code that scripts read.

use myelin_client::Code;
use myelin_transport::DialError;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::Path;
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
    /// It went well, and would change something: for whoever asks by `--exit-code`.
    WouldChange = 8,
}

/// Why a command failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong, where and why.
    pub what: String,
    /// What to do about it.
    pub next: Option<String>,
    /// The stable code of whoever refused; where nobody else did, [`code`](Self::code) has one of the command line's own.
    pub(super) refused: Option<Cow<'static, str>>,
    /// What the router answered: its problem (RFC 9457), or an error of the schema registry.
    pub(super) problem: Option<Box<Value>>,
    /// Nobody has answered: what was asked about may be there.
    pub(super) is_unanswered: bool,
}

impl Failure {
    /// A failure without a next step.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), next: None, refused: None, problem: None, is_unanswered: false }
    }

    /// A file that was given cannot be read, or not be written.
    pub fn of_file(file: &Path, why: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, format!("{}: {why}", file.display()))
    }

    /// Nobody answers where somebody should.
    pub fn unanswered(what: impl Into<String>) -> Self {
        Self { is_unanswered: true, ..Self::new(Exit::NotFound, what) }
    }

    /// Whether somebody has answered that what was named does not exist.
    pub fn is_absence(&self) -> bool {
        self.exit == Exit::NotFound && !self.is_unanswered
    }

    /// Says what to do about it.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }

    /// Says the stable code of whoever refused.
    #[must_use]
    pub(super) fn coded(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.refused = Some(code.into());
        self
    }

    /// Keeps what the router answered.
    #[must_use]
    pub(super) fn answered(mut self, problem: Value) -> Self {
        self.problem = Some(Box::new(problem));
        self
    }

    /// The stable code: that of whoever refused, else one for the exit code.
    pub fn code(&self) -> &str {
        match (&self.refused, self.is_unanswered) {
            (Some(code), _) => code,
            (None, true) => "unanswered",
            (None, false) => self.exit.name(),
        }
    }

    /// The same for programs.
    pub fn for_programs(&self) -> Value {
        json!({"error": {
            "code": self.code(),
            "message": self.what,
            "fix": self.next,
            "exit_code": self.exit as u8,
            "problem": self.problem,
        }})
    }

    /// Puts what was being done before why it failed.
    #[must_use]
    pub fn doing(mut self, what: impl fmt::Display) -> Self {
        self.what = format!("{what}: {}", self.what);
        self
    }
}

impl Exit {
    /// Its name, as `code` of an error that has no other.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Timeout => "timeout",
            Self::GateFailed => "gate-failed",
            Self::WouldChange => "would-change",
        }
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
        let is_nobody = |cause: &(dyn std::error::Error + 'static)| {
            matches!(cause.downcast_ref::<DialError>(), Some(DialError::Timeout { .. }))
        };
        let failure = match error.chain().any(is_nobody) {
            true => Self::unanswered(told(&error)),
            false => Self::new(Exit::Failed, told(&error)),
        };
        let is_taken = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
        };
        match error.chain().any(is_taken) {
            true => {
                let step = another_address(&failure.what);
                failure.next(step)
            }
            false => failure,
        }
    }
}

/// What to do where an address is taken: what was being done names the setting.
fn another_address(what: &str) -> String {
    let settings = [
        ("[listen] client", "--listen, or [listen] client"),
        ("[listen] admin", "--admin, or [listen] admin"),
        ("[mesh] listen", "[mesh] listen"),
    ];
    let set = settings.iter().find(|(setting, _)| what.contains(setting)).map_or("another address", |(_, how)| how);
    format!("stop what has this address (`ss -lntup` shows it), or set another: {set}")
}

/// All causes, each once: many an error says its cause itself.
fn told(error: &anyhow::Error) -> String {
    let mut whole = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if whole.is_empty() {
            whole = cause;
        } else if !whole.ends_with(&cause) {
            whole += &format!(": {cause}");
        }
    }
    whole
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

/// Which exit code a refusal of a router stands for. Without a wildcard: whoever adds a code decides here.
pub(super) fn exit_for_refusal(code: Code) -> Exit {
    match code {
        Code::Forbidden | Code::Unauthenticated | Code::ReservedTopic => Exit::Denied,
        Code::TokenExpired | Code::CertificateExpired => Exit::Denied,
        // An event that filters, schemas or rules for topics turn back is denied, whoever of them it was.
        Code::Denied | Code::DeadLettered | Code::FilterFault | Code::Residency | Code::SchemaViolation => Exit::Denied,
        Code::NoResponder => Exit::NotFound,
        Code::Expired | Code::HelloTimeout => Exit::Timeout,
        // What was given cannot be: the command finds the same by itself where it can.
        Code::InvalidTopic | Code::InvalidPattern | Code::InvalidGroup => Exit::Usage,
        Code::PayloadTooLarge | Code::InvalidAttributes => Exit::Usage,
        Code::Malformed | Code::UnknownFrame | Code::FrameTooLarge | Code::OutOfOrder | Code::Version => Exit::Failed,
        Code::UnknownTopicRef | Code::SubscriptionId | Code::TooManySubscriptions => Exit::Failed,
        Code::SlowConsumer | Code::Draining | Code::TooManySessions | Code::Internal => Exit::Failed,
    }
}

/// What to do about a refusal of `what`, such as `publish orders/eu`.
pub(super) fn step_for_refusal(code: Code, what: &str) -> String {
    match code {
        Code::Forbidden => format!("`myelin policy explain WHO {what}` says which policies and tenants decide"),
        Code::Unauthenticated | Code::TokenExpired | Code::CertificateExpired => {
            "give --cert, --key and --ca, or a new token with --token-file".to_owned()
        }
        Code::ReservedTopic => "topics that begin with `$` are the router's: choose another".to_owned(),
        Code::SchemaViolation => "`myelin topic ls` shows which schema judges the topic, `myelin schema describe \
             SUBJECT` what that wants"
            .to_owned(),
        Code::Residency => "`myelin topic ls` shows at which sites events of the topic may be".to_owned(),
        Code::DeadLettered => "`myelin sub '$dead/**' -v` shows dead letters with their reasons".to_owned(),
        Code::Denied | Code::FilterFault => "`myelin filter ls` shows which filters judge the topic, `myelin filter \
             describe NAME@VERSION` what they say"
            .to_owned(),
        Code::NoResponder => "start one with `myelin reply TOPIC --echo`".to_owned(),
        Code::Expired => "give it longer with --ttl".to_owned(),
        Code::Draining | Code::TooManySessions => "name further routers with --addr, or try again later".to_owned(),
        Code::SlowConsumer => {
            "subscribe with --overflow drop-oldest or pause, or share the work with --group".to_owned()
        }
        _ => "docs/PROTOCOL.md explains the codes".to_owned(),
    }
}

/// Which exit code a stable code, of a refusal or of a problem of the admin API, stands for. `None` where the status
/// says enough.
pub(super) fn exit_for_code(code: &str) -> Option<Exit> {
    if let Some(refusal) = Code::ALL.iter().find(|refusal| refusal.name() == code) {
        return Some(exit_for_refusal(*refusal));
    }
    Some(match code {
        "not-found" | "subject-deleted" | "version-deleted" => Exit::NotFound,
        "unauthorized" | "forbidden-role" | "forbidden-tenant" | "forbidden-origin" | "forbidden-host" => Exit::Denied,
        "two-person" | "tenant-quota" | "registry-mode" | "too-many-looks" => Exit::Denied,
        "signature-missing" | "signature-invalid" | "signature-expired" | "signature-untrusted" => Exit::Denied,
        "signature-mismatch" | "trust-signatures" | "capability-approval" | "downgrade" => Exit::Denied,
        "conflict" | "rollout-running" | "catalog-moved" | "trust-stale" | "proposal-stale" => Exit::Conflict,
        "subject-not-deleted" | "version-not-deleted" | "schema-referenced" | "schema-in-use" => Exit::Conflict,
        "rollout-needed" => Exit::Conflict,
        code if is_nobody(code) => Exit::NotFound,
        "timeout" | "body-timeout" | "record-late" => Exit::Timeout,
        // A filter that fails what every router does with it before it judges.
        "self-test-fault" | "self-test-unexpected" | "self-test-synthetic-fault" => Exit::GateFailed,
        "gate-failed" | "not-ready" | "incompatible-schema" | "recorded-events" => Exit::GateFailed,
        "module-not-wasm" | "module-core" | "module-invalid" | "module-wrong-world" | "wrong-world" => Exit::Usage,
        "module-unknown-import" | "module-wrong-version" | "module-too-complex" | "module-too-large" => Exit::Usage,
        "module-vectors" | "module-does-not-compile" | "compile-time" | "compile-memory" => Exit::Usage,
        "filter-config-refused" | "filter-info-invalid" | "route-not-granted" => Exit::Usage,
        "schema-unusable" | "body-missing" | "body-too-large" => Exit::Usage,
        _ if code.starts_with("invalid-") => Exit::Usage,
        _ => return None,
    })
}

/// Whether a stable code says that nobody answers behind whoever was asked: another router, or the one that writes.
pub(super) fn is_nobody(code: &str) -> bool {
    matches!(code, "no-answer" | "writer-unreachable")
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
    fn every_refusal_of_a_router_has_its_exit_code_and_a_next_step() {
        let table = [
            (Exit::Denied, "forbidden unauthenticated token-expired reserved-topic denied dead-lettered filter-fault"),
            (Exit::Denied, "residency schema-violation certificate-expired"),
            (Exit::NotFound, "no-responder"),
            (Exit::Timeout, "expired hello-timeout"),
            (Exit::Usage, "invalid-topic invalid-pattern invalid-group payload-too-large invalid-attributes"),
            (Exit::Failed, "malformed unknown-frame frame-too-large out-of-order version unknown-topic-ref"),
            (Exit::Failed, "subscription-id too-many-subscriptions slow-consumer draining too-many-sessions internal"),
        ];
        let decided = |name: &str| table.iter().find(|(_, names)| names.split(' ').any(|known| known == name));
        for code in Code::ALL {
            let found = decided(code.name()).map(|(exit, _)| *exit);
            assert_eq!(exit_for_code(code.name()), found, "{code}: decide what scripts are told, and add it here");
            assert!(!step_for_refusal(*code, "publish a").is_empty());
        }
        assert_eq!(table.iter().map(|(_, names)| names.split(' ').count()).sum::<usize>(), Code::ALL.len());
    }

    #[test]
    fn a_next_step_is_about_what_refused() {
        for (code, part) in [
            (Code::Forbidden, "myelin policy explain WHO publish orders/eu"),
            (Code::SchemaViolation, "myelin schema describe"),
            (Code::Residency, "myelin topic ls"),
            (Code::Denied, "myelin filter describe"),
        ] {
            let step = step_for_refusal(code, "publish orders/eu");
            assert!(step.contains(part), "{code}: {step}");
        }
    }

    #[test]
    fn codes_and_statuses_map_to_the_documented_exit_codes() {
        let of_code = |code| exit_for_code(code).map(|exit| exit as u8);
        assert_eq!(
            ["not-found", "two-person", "conflict", "timeout", "gate-failed", "internal-affairs"].map(of_code),
            [Some(3), Some(4), Some(5), Some(6), Some(7), None]
        );
        for (exit, codes) in [
            (2, "module-not-wasm invalid-binding invalid-schema filter-config-refused"),
            (4, "signature-missing signature-untrusted capability-approval downgrade tenant-quota registry-mode"),
            (5, "trust-stale subject-not-deleted schema-referenced"),
            (7, "self-test-fault incompatible-schema"),
            (3, "no-answer writer-unreachable"),
        ] {
            codes.split(' ').for_each(|code| assert_eq!(of_code(code), Some(exit), "{code}"));
        }
        let of_status = |status| exit_for_status(status) as u8;
        assert_eq!([400, 401, 403, 404, 408, 409, 412, 500, 504].map(of_status), [1, 4, 4, 3, 6, 5, 5, 1, 6]);
    }

    #[test]
    fn an_address_that_is_taken_is_told_once_and_with_what_to_set() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot listen on UDP 127.0.0.1:1: {source}")]
        struct Taken {
            source: io::Error,
        }
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let cause = source.to_string();
        let failure = Failure::from(anyhow::Error::from(Taken { source }).context("the listener ([listen] client)"));
        assert_eq!(failure.what.matches(&cause).count(), 1, "{failure}");
        assert!(failure.what.starts_with("the listener ([listen] client): cannot listen"), "{failure}");
        assert!(failure.next.is_some_and(|next| next.contains("--listen")));
        assert_eq!(Failure::from(anyhow::anyhow!("no").context("a")).to_string(), "error: a: no");
    }

    #[test]
    fn nobody_who_answers_is_told_apart_from_nothing_that_is_there() {
        let [nobody, nothing] = [Failure::unanswered("no"), Failure::new(Exit::NotFound, "no")];
        assert_eq!((nobody.exit, nobody.is_absence()), (Exit::NotFound, false));
        let addr = ([127, 0, 0, 1], 1).into();
        let dialled = anyhow::Error::from(DialError::Timeout { addr, waited_ms: 1 }).context("a session");
        assert_eq!(Failure::from(dialled).exit, Exit::NotFound);
        assert!(nothing.is_absence() && !Failure::new(Exit::Denied, "no").is_absence());
    }

    #[test]
    fn programs_are_told_a_code_a_sentence_what_to_do_and_the_exit_code() {
        let problem = json!({"title": "Conflict", "status": 409, "detail": "no", "code": "rollout-running"});
        let refused =
            Failure::new(Exit::Conflict, "no").next("wait").coded("rollout-running").answered(problem.clone());
        assert_eq!(
            refused.doing("policy a").for_programs(),
            json!({"error": {"code": "rollout-running", "message": "policy a: no", "fix": "wait", "exit_code": 5, "problem": problem}})
        );
        for (failure, code, exit) in [
            (Failure::new(Exit::Usage, "no"), "usage", 2),
            (Failure::new(Exit::NotFound, "no"), "not-found", 3),
            (Failure::unanswered("no"), "unanswered", 3),
            (Failure::new(Exit::GateFailed, "no"), "gate-failed", 7),
        ] {
            let told = failure.for_programs();
            let error = &told["error"];
            assert_eq!(
                (&error["code"], &error["exit_code"], &error["fix"]),
                (&json!(code), &json!(exit), &Value::Null)
            );
        }
    }

    #[test]
    fn a_failure_reads_as_what_and_what_next() {
        let failure = Failure::new(Exit::NotFound, "there is no `x`").next("try `y`").doing("reading");
        assert_eq!(failure.to_string(), "error: reading: there is no `x`\n  next: try `y`");
    }
}
