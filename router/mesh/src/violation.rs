//! Violations: what a peer did that the mesh does not allow, with a stable code.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $number:literal, $name:literal, $closes:literal;)*) => {
        /// Why something of a peer was refused: a stable number on the wire, a stable name in logs and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum ViolationCode { $($(#[doc = $doc])* $variant = $number,)* }

        impl ViolationCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether the link must be closed.
            pub const fn closes_link(self) -> bool {
                match self { $(Self::$variant => $closes,)* }
            }

            /// The code with `number`, when this version knows it.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    /// A frame or a message does not follow the layout.
    Malformed = 1, "malformed", true;
    /// A frame of an unknown type that is not marked skippable.
    UnknownFrame = 2, "unknown-frame", true;
    /// A frame is longer than its limit.
    FrameTooLarge = 3, "frame-too-large", true;
    /// A message that is known but not allowed here or now.
    OutOfOrder = 4, "out-of-order", true;
    /// No protocol version in common.
    Version = 5, "version", true;
    /// The peer is not who its certificate or the catalog says.
    Identity = 6, "identity", true;
    /// Somebody of the same identity is there already.
    IdentityInUse = 7, "identity-in-use", true;
    /// The two routers have a link already.
    DuplicateLink = 8, "duplicate-link", true;
    /// The peer claims to be this very router.
    OwnIdentity = 9, "own-identity", true;
    /// A count is over its limit.
    TooMany = 10, "too-many", true;
    /// An interest does not have the hash that was told with it.
    InterestHash = 11, "interest-hash", true;
    /// The router has as many links as it takes.
    TooManyLinks = 12, "too-many-links", true;
    /// An event came to a site where it must not be.
    Residency = 13, "residency", false;
    /// An event is for a site that the catalog does not know.
    UnknownSite = 14, "unknown-site", false;
    /// An event passed more routers than it may.
    HopLimit = 15, "hop-limit", false;
    /// A copy that was to be delivered where it arrived names other sites as well.
    NotHere = 16, "not-here", false;
    /// Events of a router that the catalog does not know, or of the very router that they came to.
    Hearsay = 17, "hearsay", false;
}

impl ViolationCode {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for ViolationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for ViolationCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for ViolationCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A newer router may know more codes; what it says besides is for people.
        Ok(Self::from_number(u16::deserialize(deserializer)?).unwrap_or(Self::Malformed))
    }
}

/// A violation: the code, and a sentence that says what and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Violation {
    /// The stable code.
    pub code: ViolationCode,
    /// For a person.
    pub message: Cow<'static, str>,
}

impl Violation {
    /// A violation with `code` and `message`.
    pub fn new(code: ViolationCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// Whether the link must be closed: the protocol was broken, and what follows cannot be trusted to be in step.
    pub fn closes_link(&self) -> bool {
        self.code.closes_link()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_lead_back() {
        let mut names: Vec<_> = ViolationCode::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ViolationCode::ALL.len());
        assert!(ViolationCode::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ViolationCode::ALL.iter().all(|code| ViolationCode::from_number(code.number()) == Some(*code)));
    }
}
