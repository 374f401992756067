//! What a filter can do wrong while it runs: the guest's fault, never the publisher's and never ours.

use std::fmt;

/// Why a call of a filter failed. Metric label, log field and documentation anchor in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FaultCode {
    /// The guest trapped: a panic, an `unreachable`, a division by zero, a bad indirect call.
    Trap,
    /// It recursed until its stack was used up.
    StackOverflow,
    /// It read or wrote outside its memory or table.
    OutOfBounds,
    /// It used up the CPU time of its call.
    Deadline,
    /// It asked for more memory, or larger tables, than its limit.
    Memory,
    /// It made more host calls, or copied more through them, than a batch may.
    HostCallBudget,
    /// It called the host with arguments that make no sense, such as an event that is not in the batch.
    BadHostCall,
    /// What it answered breaks the contract.
    MalformedOutput,
    /// A fresh instance could not be made after a fault.
    Instantiate,
    /// It is quarantined; it was not called at all.
    Quarantined,
    /// The batch had spent its deadlines on other events; this one was not called again.
    BudgetSpent,
    /// The host failed it: not the guest's fault, but the event has no verdict all the same.
    Host,
}

impl FaultCode {
    /// Every code, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Trap,
        Self::StackOverflow,
        Self::OutOfBounds,
        Self::Deadline,
        Self::Memory,
        Self::HostCallBudget,
        Self::BadHostCall,
        Self::MalformedOutput,
        Self::Instantiate,
        Self::Quarantined,
        Self::BudgetSpent,
        Self::Host,
    ];

    /// The stable name.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::StackOverflow => "stack-overflow",
            Self::OutOfBounds => "out-of-bounds",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::HostCallBudget => "host-call-budget",
            Self::BadHostCall => "bad-host-call",
            Self::MalformedOutput => "malformed-output",
            Self::Instantiate => "instantiate",
            Self::Quarantined => "quarantined",
            Self::BudgetSpent => "budget-spent",
            Self::Host => "host",
        }
    }

    /// Whether the detail of such a fault may quote what the guest put out, and so what it has read: parts of payloads. The
    /// others say what the host has measured.
    pub const fn may_quote(self) -> bool {
        match self {
            Self::BadHostCall | Self::MalformedOutput | Self::Instantiate | Self::Host => true,
            Self::Trap
            | Self::StackOverflow
            | Self::OutOfBounds
            | Self::Deadline
            | Self::Memory
            | Self::HostCallBudget
            | Self::Quarantined
            | Self::BudgetSpent => false,
        }
    }
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A fault with what is known about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct FilterFault {
    /// Which kind of fault.
    pub code: FaultCode,
    /// What happened, for people.
    pub detail: String,
}

impl FilterFault {
    /// A fault of kind `code`.
    pub fn new(code: FaultCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// The output breaks the contract in the way that `detail` says.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(FaultCode::MalformedOutput, detail)
    }

    /// The stable name of its kind.
    pub fn code(&self) -> &'static str {
        self.code.code()
    }
}
