//! What became of records and requests.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$one:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$one])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }
    };
}

reasons! {
    /// Why a record was not exported.
    Lost {
        /// Its worker's ring was full of newer ones before the collector had taken those before it.
        Overwritten = "overwritten",
        /// The collector could not be reached, or asked to come later, too often.
        Unavailable = "unavailable",
        /// The collector refuses such requests.
        Refused = "refused",
        /// The router has stopped.
        Stopped = "stopped",
    }
}

reasons! {
    /// Why a request was in vain.
    Trouble {
        /// No connection, or it broke.
        Connection = "connection",
        /// No answer in time.
        Timeout = "timeout",
        /// The collector asked to come later: status 429, 502, 503 or 504.
        Busy = "busy",
        /// The collector said no: any other status.
        Refused = "refused",
    }
}

/// Counts what became of records and requests; read by anybody.
#[derive(Debug, Default)]
pub struct Figures {
    records: AtomicU64,
    spans: AtomicU64,
    spans_rejected: AtomicU64,
    lost: [AtomicU64; Lost::ALL.len()],
    failed: [AtomicU64; Trouble::ALL.len()],
}

impl Figures {
    pub(super) fn export(&self, records: u64, spans: u64, rejected: u64) {
        self.records.fetch_add(records, Relaxed);
        self.spans.fetch_add(spans, Relaxed);
        self.spans_rejected.fetch_add(rejected, Relaxed);
    }

    pub(super) fn lose(&self, why: Lost, records: u64) {
        self.lost[why as usize].fetch_add(records, Relaxed);
    }

    pub(super) fn fail(&self, why: Trouble) {
        self.failed[why as usize].fetch_add(1, Relaxed);
    }

    /// Records that the collector has taken.
    pub fn records(&self) -> u64 {
        self.records.load(Relaxed)
    }

    /// Spans that the collector has taken: records, and the verdicts in them.
    pub fn spans(&self) -> u64 {
        self.spans.load(Relaxed)
    }

    /// Spans that the collector has rejected out of requests that it took.
    pub fn spans_rejected(&self) -> u64 {
        self.spans_rejected.load(Relaxed)
    }

    /// Records that were not exported, by reason.
    pub fn lost(&self) -> Vec<(&'static str, u64)> {
        Lost::ALL.iter().map(|why| (why.code(), self.lost[*why as usize].load(Relaxed))).collect()
    }

    /// Requests that were in vain, by reason.
    pub fn failed(&self) -> Vec<(&'static str, u64)> {
        Trouble::ALL.iter().map(|why| (why.code(), self.failed[*why as usize].load(Relaxed))).collect()
    }
}
