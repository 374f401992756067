//! Frames: what every stream of `myelin-client/1` consists of.
//!
//! `u32 body-len | u8 type | u8 flags | u16 0`, then the body. Control frames hold one MessagePack map
//! ([`crate::message`]); data frames hold bytes ([`crate::stream`]).

use crate::limits::{CONTROL_FRAME_BYTES_MAX, DATA_FRAME_BYTES_MAX};
use crate::refusal::{Code, Refusal};

/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 8;
/// Flag: a receiver that does not know the type skips the frame.
pub const FLAG_SKIPPABLE: u8 = 1;

/// The known types of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the types are described in docs/PROTOCOL.md, one section each")]
pub enum FrameType {
    Hello = 0x01,
    Subscribe = 0x02,
    Unsubscribe = 0x03,
    Receipt = 0x04,
    Bye = 0x05,
    Name = 0x10,
    Events = 0x11,
    Deliver = 0x12,
    Welcome = 0x41,
    Subscribed = 0x42,
    Unsubscribed = 0x43,
    Ack = 0x44,
    Refused = 0x45,
    GoAway = 0x46,
}

impl FrameType {
    /// The type with this number, when it is known.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0x01 => Self::Hello,
            0x02 => Self::Subscribe,
            0x03 => Self::Unsubscribe,
            0x04 => Self::Receipt,
            0x05 => Self::Bye,
            0x10 => Self::Name,
            0x11 => Self::Events,
            0x12 => Self::Deliver,
            0x41 => Self::Welcome,
            0x42 => Self::Subscribed,
            0x43 => Self::Unsubscribed,
            0x44 => Self::Ack,
            0x45 => Self::Refused,
            0x46 => Self::GoAway,
            _ => return None,
        })
    }

    /// Whether clients send frames of this type on the control stream.
    pub const fn is_from_client(self) -> bool {
        matches!(self, Self::Hello | Self::Subscribe | Self::Unsubscribe | Self::Receipt | Self::Bye)
    }

    /// Whether routers send frames of this type on the control stream.
    pub const fn is_from_router(self) -> bool {
        !self.is_from_client() && !self.is_data()
    }

    /// Whether frames of this type travel on a data stream.
    pub const fn is_data(self) -> bool {
        matches!(self, Self::Name | Self::Events | Self::Deliver)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the body in bytes.
    pub body_len: u32,
    /// The type's number, known or not.
    pub kind: u8,
    /// [`FLAG_SKIPPABLE`]; the other bits are zero.
    pub flags: u8,
}

impl FrameHeader {
    /// The header of a frame of a known type.
    pub const fn new(kind: FrameType, body_len: u32) -> Self {
        Self { body_len, kind: kind as u8, flags: 0 }
    }

    /// The header as it stands on the wire.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = self.body_len.to_le_bytes();
        [a, b, c, d, self.kind, self.flags, 0, 0]
    }

    /// Reads the header from the beginning of `bytes`; `None` when there are fewer than [`HEADER_BYTES`].
    ///
    /// # Errors
    /// `malformed` for flags or zeros that are not as defined.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Refusal> {
        let Some(&[a, b, c, d, kind, flags, zero_low, zero_high]) = bytes.first_chunk() else { return Ok(None) };
        if flags & !FLAG_SKIPPABLE != 0 || zero_low != 0 || zero_high != 0 {
            let message = format!("frame header of type {kind:#04x} has reserved bits set (flags {flags:#04x})");
            return Err(Refusal::new(Code::Malformed, message));
        }
        Ok(Some(Self { body_len: u32::from_le_bytes([a, b, c, d]), kind, flags }))
    }

    /// What to do with a frame of this header on a control (`data = false`) or data stream: the known type, or `None`
    /// to skip it.
    ///
    /// # Errors
    /// `frame-too-large`, `unknown-frame`, or `out-of-order` for a type that belongs to the other kind of stream.
    pub fn classify(self, data: bool) -> Result<Option<FrameType>, Refusal> {
        let limit = if data { DATA_FRAME_BYTES_MAX } else { CONTROL_FRAME_BYTES_MAX };
        let (kind, len) = (self.kind, self.body_len);
        if len > limit {
            let message = format!("a frame of type {kind:#04x} has a body of {len} bytes; the limit is {limit}");
            return Err(Refusal::new(Code::FrameTooLarge, message));
        }
        match FrameType::from_number(kind) {
            Some(known) if known.is_data() == data => Ok(Some(known)),
            Some(known) => {
                let place = if data { "data" } else { "control" };
                Err(Refusal::new(Code::OutOfOrder, format!("a {known:?} frame does not belong on a {place} stream")))
            }
            None if self.flags & FLAG_SKIPPABLE != 0 => Ok(None),
            None => {
                Err(Refusal::new(Code::UnknownFrame, format!("frame type {kind:#04x} is unknown and not skippable")))
            }
        }
    }
}
