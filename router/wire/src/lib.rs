//! Vocabulary and bytes of Myelin: what a topic is, how an event and a frame are laid out, which limits hold and which
//! refusals there are. Documented for strangers in `docs/PROTOCOL.md`, whose test vectors this crate's tests read.
//!
//! No I/O, no clock, no runtime: bytes in, values out. Every length is checked against its limit before anything is
//! allocated for it.
#![forbid(unsafe_code)]

pub mod event;
pub mod frame;
pub mod limits;
pub mod message;
pub mod refusal;
pub mod stream;
pub mod topic;

pub use event::{EventBuilder, EventHead, Stamp};
pub use frame::{FrameHeader, FrameType};
pub use limits::Limits;
pub use message::Message;
pub use refusal::{Code, Refusal};
pub use topic::{Pattern, Topic, TopicError, validate_topic};

/// The attribute block, re-exported so that users of the wire need no second crate.
pub use myelin_arena::attrs;
pub use myelin_arena::{Attr, AttrError, Attrs, AttrsBuilder};

/// ALPN protocol id of a client's connection.
pub const ALPN_CLIENT: &[u8] = b"myelin-client/1";
/// The protocol version that this crate speaks.
pub const VERSION: u16 = 1;
