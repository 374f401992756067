//! Refusals: what went wrong by the client's blame, as it goes over the wire.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why something was refused: a stable number on the wire, a stable name in logs, metrics and docs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Code { $($(#[doc = $doc])* $variant = $number,)* }

        impl Code {
            /// Every code, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The code with `number`, when this version knows it.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    /// A frame, a message or an event does not follow the layout.
    Malformed = 1, "malformed";
    /// A frame of an unknown type that is not marked skippable.
    UnknownFrame = 2, "unknown-frame";
    /// A frame is longer than its limit.
    FrameTooLarge = 3, "frame-too-large";
    /// A frame that is known but not allowed here or now.
    OutOfOrder = 4, "out-of-order";
    /// No protocol version in common.
    Version = 5, "version";
    /// A topic breaks the rules of topics.
    InvalidTopic = 6, "invalid-topic";
    /// A pattern breaks the rules of patterns.
    InvalidPattern = 7, "invalid-pattern";
    /// The payload is over the limit.
    PayloadTooLarge = 8, "payload-too-large";
    /// The attribute block is malformed or over a limit.
    InvalidAttributes = 9, "invalid-attributes";
    /// An event names a topic reference that was not announced.
    UnknownTopicRef = 10, "unknown-topic-ref";
    /// The topic belongs to the router.
    ReservedTopic = 11, "reserved-topic";
    /// More subscriptions than a session may have.
    TooManySubscriptions = 12, "too-many-subscriptions";
    /// The subscription id is in use, or there is no such subscription.
    SubscriptionId = 13, "subscription-id";
    /// A queue group's name is not allowed.
    InvalidGroup = 14, "invalid-group";
    /// No policy permits it, or one forbids it.
    Forbidden = 15, "forbidden";
    /// The client has shown neither a certificate nor a token that is believed.
    Unauthenticated = 16, "unauthenticated";
    /// The token of the session is over; connect again with a new one.
    TokenExpired = 17, "token-expired";
    /// The certificate of the session is over; connect again with a new one.
    CertificateExpired = 18, "certificate-expired";
    /// A filter denied the event.
    Denied = 20, "denied";
    /// A filter sent the event to the dead-letter topic.
    DeadLettered = 21, "dead-lettered";
    /// A filter failed and its binding rejects.
    FilterFault = 22, "filter-fault";
    /// The event's time to live ran out before it was routed.
    Expired = 23, "expired";
    /// Nobody is there to answer a request.
    NoResponder = 24, "no-responder";
    /// Events of this topic may not be at this router's site.
    Residency = 25, "residency";
    /// The payload is not as the schema of its topic says.
    SchemaViolation = 26, "schema-violation";
    /// The subscriber does not keep up and its overflow policy is `disconnect`.
    SlowConsumer = 30, "slow-consumer";
    /// The client did not say HELLO in time.
    HelloTimeout = 31, "hello-timeout";
    /// The router is shutting down; connect to another, or again later.
    Draining = 32, "draining";
    /// More sessions than the router takes.
    TooManySessions = 33, "too-many-sessions";
    /// The router's own fault.
    Internal = 40, "internal";
}

impl Code {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u16::deserialize(deserializer)?;
        // A newer router may know more codes: to this client they are faults of the router.
        Ok(Self::from_number(number).unwrap_or(Self::Internal))
    }
}

/// A refusal: the code, and a sentence that says what, where and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// For a person.
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with `code` and `message`.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_lead_back() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(Code::ALL.iter().all(|code| Code::from_number(code.number()) == Some(*code)));
        assert_eq!(Code::from_number(0), None);
    }
}
