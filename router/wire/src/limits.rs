//! The one table of limits of `myelin-client/1`. What a router can configure is in [`Limits`]; the rest is fixed.

use crate::event::HEAD_AFTER_LEN;
use serde::{Deserialize, Serialize};

/// Longest body of a control frame, in bytes.
pub const CONTROL_FRAME_BYTES_MAX: u32 = 64 * 1024;
/// Deepest nesting of maps and arrays in a control frame, its own map counted.
pub const CONTROL_DEPTH_MAX: usize = 32;
/// Longest body of a data frame, in bytes: a frame is parsed as it arrives, so that this bounds no memory.
pub const DATA_FRAME_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Longest topic or pattern, in bytes.
pub const TOPIC_BYTES_MAX: usize = crate::topic::TOPIC_LEN_MAX_BYTES;
/// Most levels of a topic or pattern.
pub const TOPIC_LEVELS_MAX: usize = crate::topic::TOPIC_LEVELS_MAX;
/// Longest name of a queue group, in bytes.
pub const GROUP_BYTES_MAX: usize = 64;
/// Longest announced name (a topic or a publisher's identity), in bytes.
pub const NAME_BYTES_MAX: usize = 2048;
/// A publisher's topic references are below this.
pub const TOPIC_REFS_MAX: u32 = 65_536;
/// Largest payload that a router can be configured to accept, in bytes.
pub const PAYLOAD_BYTES_CEILING: u32 = 16 * 1024 * 1024;
/// Most exceptions in one ack; further ones go into the next ack.
pub const ACK_EXCEPTIONS_MAX: usize = 256;
/// Longest detail text of an exception, in bytes; longer ones are cut at a character.
pub const DETAIL_BYTES_MAX: usize = 120;
/// Longest client name in HELLO, in bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 128;
/// Time within which HELLO must be there, in milliseconds.
pub const HELLO_TIMEOUT_MS: u32 = 5_000;
/// Events that a router has under way to a session without a receipt; the write that reaches this may go above it.
pub const UNRECEIPTED_EVENTS_MAX: u64 = 131_072;
/// Bytes of events that a router has under way to a session without a receipt; likewise.
pub const UNRECEIPTED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A client sends a receipt after this many events at the latest.
pub const RECEIPT_EVENTS: u64 = 1_000;
/// A client sends a receipt after this many bytes of events at the latest.
pub const RECEIPT_BYTES: u64 = 64 * 1024;
/// A client sends a receipt this long after it took an event at the latest, in milliseconds.
pub const RECEIPT_DELAY_MS: u32 = 50;

/// The limits that a router announces in WELCOME and enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest payload, in bytes; at most [`PAYLOAD_BYTES_CEILING`].
    pub payload_bytes: u32,
    /// Most headers of an event.
    pub headers: u16,
    /// Largest attribute block of an event, in bytes (at most 65,535).
    pub attributes_bytes: u16,
    /// Most subscriptions of a session.
    pub subscriptions: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { payload_bytes: 1024 * 1024, headers: 64, attributes_bytes: 16 * 1024, subscriptions: 1024 }
    }
}

impl Limits {
    /// The largest `len` of an event that these limits allow a publisher.
    pub fn event_len_max(&self) -> u32 {
        self.len_max(self.attributes_bytes)
    }

    /// The largest `len` of an event that a subscriber may be sent: filters and dead letters add attributes, up to
    /// what the layout holds.
    pub fn delivered_len_max(&self) -> u32 {
        self.len_max(u16::MAX)
    }

    /// A payload limit over the ceiling counts as the ceiling: the other side may have announced anything.
    fn len_max(&self, attributes_bytes: u16) -> u32 {
        HEAD_AFTER_LEN + u32::from(attributes_bytes) + self.payload_bytes.min(PAYLOAD_BYTES_CEILING)
    }
}
