//! Named points at which a test lets the whole process die, to see what the next start makes of what is there.
//!
//! With `MYELIN_FAILPOINT=NAME` in its environment a process ends where it reaches NAME, with `NAME:3` where it does so
//! the third time: at once, without a destructor and without a word to anybody, as it would by SIGKILL. No release build
//! has any of it. `tests/tests/e2e/failpoints/` kills a router at each.
#![forbid(unsafe_code)]

/// Every point, by what is on its way there. Each stands at one place of the code.
pub const NAMES: &[&str] = &[
    // A log that is begun.
    "log-begun",
    "log-named",
    // A record, in the database's transaction, and the term of a lease.
    "log-record-written",
    "log-head-written",
    "log-committed",
    "log-term-kept",
    // A module's bytes.
    "blob-aside",
    "blob-named",
    "blob-removed",
    // Compiled code.
    "code-compiled",
    "code-aside",
    "code-named",
    // Small files: the epoch, the boot guard's marker, the ready file.
    "file-aside",
    "file-named",
    "boot-marked",
    // The start.
    "boot-chosen",
    "boot-judges",
    // An upload.
    "module-tested",
    "module-put",
    // A change, from the keeper's word to the answer.
    "change-decided",
    "record-verified",
    "record-adopted",
    "record-audited",
    "change-kept",
    "change-told",
    "change-settled",
    // The audit log.
    "audit-written",
    "audit-synced",
    // A generation that is prepared, and one that takes over.
    "set-planned",
    "set-tested",
    "set-prepared",
    "swap-begins",
    "worker-swapped",
    "worker-swapped-back",
    "swap-answered",
    "swap-told",
    // A step of a rollout.
    "step-leased",
    "step-kept",
    // Certificates.
    "certificates-read",
    "certificates-taken",
    // The end in good order.
    "end-closed",
];

/// Points at which a thread panics in place of that: to see what becomes of the others.
pub const TRIPS: &[&str] = &[
    // The thread that keeps the catalog, with a command in hand.
    "keeper-obeys",
    // A worker, with a batch of a publisher in hand.
    "batch-admitted",
];

/// Panics here, where the environment names this point.
#[cfg(debug_assertions)]
pub fn trip(name: &str) {
    armed::trip(name);
}

/// Nothing: this is no build for tests.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn trip(_name: &str) {}

/// Ends the process here, where the environment names this point.
#[cfg(debug_assertions)]
pub fn reach(name: &str) {
    armed::reach(name);
}

/// Nothing: this is no build for tests.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_name: &str) {}

#[cfg(debug_assertions)]
mod armed {
    use std::io::Write as _;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    const VARIABLE: &str = "MYELIN_FAILPOINT";

    /// The point that the environment names.
    pub(super) struct Armed {
        name: String,
        /// How often it is passed before it ends the process.
        left: AtomicU32,
    }

    impl Armed {
        pub(super) fn read(text: &str) -> Self {
            let (name, time) = text.split_once(':').unwrap_or((text, "1"));
            Self { name: name.to_owned(), left: AtomicU32::new(time.parse().unwrap_or(1)) }
        }

        /// Whether this is the time.
        pub(super) fn is_now(&self, name: &str) -> bool {
            self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
        }
    }

    fn is_now(name: &str) -> bool {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| std::env::var(VARIABLE).ok().map(|text| Armed::read(&text)));
        armed.as_ref().is_some_and(|armed| armed.is_now(name))
    }

    pub(super) fn trip(name: &str) {
        assert!(!is_now(name), "failpoint {name}");
    }

    pub(super) fn reach(name: &str) {
        if is_now(name) {
            // So that a test can tell it from any other end.
            let _ = writeln!(std::io::stderr(), "failpoint {name}");
            std::process::abort();
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::armed::Armed;

    #[test]
    fn a_point_ends_the_process_at_the_time_that_is_named_and_no_other() {
        let once = Armed::read("log-named");
        assert!(!once.is_now("log-begun") && once.is_now("log-named"));
        let third = Armed::read("log-named:3");
        let passed = [(); 4].map(|()| third.is_now("log-named"));
        assert_eq!(passed, [false, false, true, false]);
    }
}
