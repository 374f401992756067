//! The verdict of a filter on one event: a `u64`.
//!
//! | bits | meaning |
//! |---|---|
//! | 0-2 | [`Kind`] |
//! | 3 | the payload is replaced: an output entry holds it |
//! | 4 | the attributes are replaced: the same output entry holds them |
//! | 5 | a detail text follows as an output entry |
//! | 6-7 | zero |
//! | 8-15 | how many events the filter emits beside this one |
//! | 16-31 | reason id |
//! | 32-63 | set of routes, bit n for the n-th declared route |
//!
//! Output entries stand in the order of the events, and for one event in the order replacement, detail, emitted.

/// What becomes of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// It goes on under its own topic.
    Allow = 0,
    /// It is refused; the publisher learns the reason.
    Deny = 1,
    /// It goes to the dead-letter topic with the reason.
    DeadLetter = 2,
    /// It vanishes, counted.
    Drop = 3,
    /// It goes on under the routes only, not under its own topic.
    Redirect = 4,
    /// It goes on under its own topic and under the routes.
    Add = 5,
}

/// A verdict as it crosses the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict(pub u64);

const PAYLOAD: u64 = 1 << 3;
const ATTRS: u64 = 1 << 4;
const DETAIL: u64 = 1 << 5;
const ZERO: u64 = 0b11 << 6;

/// Why a verdict is malformed output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictError {
    /// Bits 0-2 hold no known kind.
    Kind,
    /// Bits 6-7 are not zero.
    Reserved,
    /// The reason id was not declared.
    Reason,
    /// A route bit was not declared, or the kind takes no routes, or needs one and has none.
    Routes,
    /// A replacement on an event that does not go on.
    Replacement,
}

impl core::fmt::Display for VerdictError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Kind => "bits 0-2 hold no known verdict kind",
            Self::Reserved => "bits 6-7 are not zero",
            Self::Reason => "the reason id is outside the declared reasons",
            Self::Routes => "the route set does not fit the kind or the declared routes",
            Self::Replacement => "an event that does not go on is replaced",
        })
    }
}

impl core::error::Error for VerdictError {}

impl Verdict {
    /// The verdict that lets an event pass untouched.
    pub const ALLOW: Self = Self(0);

    /// A verdict of `kind` with nothing else set.
    pub const fn of(kind: Kind) -> Self {
        Self(kind as u64)
    }

    /// The same with reason `id`.
    pub const fn with_reason(self, id: u16) -> Self {
        Self(self.0 & !(0xffff << 16) | (id as u64) << 16)
    }

    /// The same with the set of `routes`.
    pub const fn with_routes(self, routes: u32) -> Self {
        Self(self.0 & 0xffff_ffff | (routes as u64) << 32)
    }

    /// The same with `count` emitted events.
    pub const fn with_emitted(self, count: u8) -> Self {
        Self(self.0 & !(0xff << 8) | (count as u64) << 8)
    }

    /// The same, saying that an output entry replaces the payload, the attributes, or both.
    pub const fn with_replacement(self, payload: bool, attrs: bool) -> Self {
        let bits = if payload { PAYLOAD } else { 0 } | if attrs { ATTRS } else { 0 };
        Self(self.0 & !(PAYLOAD | ATTRS) | bits)
    }

    /// The same, saying that a detail text follows.
    pub const fn with_detail(self) -> Self {
        Self(self.0 | DETAIL)
    }

    /// What becomes of the event.
    ///
    /// # Errors
    /// [`VerdictError::Kind`] for the values 6 and 7.
    pub const fn kind(self) -> Result<Kind, VerdictError> {
        Ok(match self.0 & 0b111 {
            0 => Kind::Allow,
            1 => Kind::Deny,
            2 => Kind::DeadLetter,
            3 => Kind::Drop,
            4 => Kind::Redirect,
            5 => Kind::Add,
            _ => return Err(VerdictError::Kind),
        })
    }

    /// Whether an output entry replaces the payload.
    pub const fn replaces_payload(self) -> bool {
        self.0 & PAYLOAD != 0
    }

    /// Whether an output entry replaces the attributes.
    pub const fn replaces_attrs(self) -> bool {
        self.0 & ATTRS != 0
    }

    /// Whether a detail text follows as an output entry.
    pub const fn has_detail(self) -> bool {
        self.0 & DETAIL != 0
    }

    /// How many events the filter emits beside this one.
    pub const fn emitted(self) -> u8 {
        (self.0 >> 8 & 0xff) as u8
    }

    /// The reason id; 0 is the first declared reason.
    pub const fn reason(self) -> u16 {
        (self.0 >> 16 & 0xffff) as u16
    }

    /// The set of routes.
    pub const fn routes(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// How many output entries belong to this verdict.
    pub const fn output_entries(self) -> usize {
        (self.replaces_payload() || self.replaces_attrs()) as usize
            + self.has_detail() as usize
            + self.emitted() as usize
    }

    /// Checks everything that can be checked without the output.
    ///
    /// # Errors
    /// The first rule that the verdict breaks, given how many `reasons` and `routes` the filter declared.
    pub fn check(self, reasons: usize, routes: usize) -> Result<Kind, VerdictError> {
        let kind = self.kind()?;
        if self.0 & ZERO != 0 {
            return Err(VerdictError::Reserved);
        }
        let gives_reason = matches!(kind, Kind::Deny | Kind::DeadLetter);
        // Reason 0 needs no declaration: a filter without reasons may still deny.
        if usize::from(self.reason()) >= reasons.max(1) || (!gives_reason && self.reason() != 0) {
            return Err(VerdictError::Reason);
        }
        let takes_routes = matches!(kind, Kind::Redirect | Kind::Add);
        let declared = if routes >= 32 { u32::MAX } else { (1 << routes) - 1 };
        if self.routes() & !declared != 0 || takes_routes != (self.routes() != 0) {
            return Err(VerdictError::Routes);
        }
        let goes_on = matches!(kind, Kind::Allow | Kind::Redirect | Kind::Add);
        if !goes_on && (self.replaces_payload() || self.replaces_attrs()) {
            return Err(VerdictError::Replacement);
        }
        Ok(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_stand_where_the_protocol_says() {
        assert_eq!(Verdict::of(Kind::Add).with_routes(0b101).0, 5 | 0b101 << 32);
        assert_eq!(Verdict::of(Kind::Deny).with_reason(7).with_detail().0, 1 | 1 << 5 | 7 << 16);
        assert_eq!(Verdict::ALLOW.with_replacement(true, true).with_emitted(2).0, 0b11 << 3 | 2 << 8);
    }

    #[test]
    fn every_lie_is_named() {
        let check = |bits: u64| Verdict(bits).check(2, 3);
        assert_eq!(check(6), Err(VerdictError::Kind));
        assert_eq!(check(1 << 6), Err(VerdictError::Reserved));
        assert_eq!(check(1 | 2 << 16), Err(VerdictError::Reason));
        assert_eq!(check(1 << 16), Err(VerdictError::Reason), "an allow gives no reason");
        assert_eq!(check(4), Err(VerdictError::Routes), "a redirect goes somewhere");
        assert_eq!(check(4 | 8 << 32), Err(VerdictError::Routes));
        assert_eq!(check(1 << 32), Err(VerdictError::Routes), "an allow takes no routes");
        assert_eq!(check(3 | 1 << 3), Err(VerdictError::Replacement));
        assert_eq!(check(5 | 7 << 32), Ok(Kind::Add));
        assert_eq!(check(1 | 1 << 16), Ok(Kind::Deny));
    }
}
