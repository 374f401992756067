//! The control stream of a link: `u32 len | u8 type | body`, little-endian, where `len` counts the body.
//!
//! Bodies are MessagePack maps, but for [`Control::Application`], whose body is one byte and what the shell makes of
//! it. A receiver skips types that it does not know where bit 7 is set, and closes the link where it is not.

use bytes::{Buf, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::limits::{APPLICATION_BYTES_MAX, CONTROL_BODY_BYTES_MAX, CONTROL_DEPTH_MAX};
use crate::violation::{Violation, ViolationCode};

mod bounded;
mod message;
#[cfg(test)]
mod tests;

pub use bounded::FixedBytes;
pub use message::{
    CatalogHash, CatalogHead, Digest, Drain, Entry, GenerationStatus, GroupName, Hello, HelloRefused, InterestDelta,
    InterestHash, InterestHead, InterestPull, InterestSnapshot, LinkState, LinkStatePull, Status,
};

/// ALPN protocol id of a connection between routers.
pub const ALPN_MESH: &[u8] = b"myelin-mesh/1";
/// The versions of the mesh protocol that this crate speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 5;
/// Bit of a type: a receiver that does not know it skips the frame.
pub const SKIPPABLE: u8 = 0x80;

/// A range of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Lowest.
    pub min: u16,
    /// Highest.
    pub max: u16,
}

/// The version that two routers speak: the highest that both do.
///
/// # Errors
/// `version` where there is none.
pub fn negotiate(ours: Versions, theirs: Versions) -> Result<u16, Violation> {
    let version = ours.max.min(theirs.max);
    if version >= ours.min.max(theirs.min) {
        return Ok(version);
    }
    let message = format!(
        "the peer speaks versions {} to {} of the mesh protocol, this router {} to {}; upgrade the older one by one \
         release at a time",
        theirs.min, theirs.max, ours.min, ours.max
    );
    Err(Violation::new(ViolationCode::Version, message))
}

/// A message of the control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described at its type")]
pub enum Control {
    Hello(Hello),
    HelloRefused(HelloRefused),
    LinkState(LinkState),
    Digest(Digest),
    LinkStatePull(LinkStatePull),
    InterestDelta(InterestDelta),
    InterestPull(InterestPull),
    InterestSnapshot(InterestSnapshot),
    Drain(Drain),
    /// The shell's own: the mesh carries it to the neighbour and reads nothing.
    Application {
        kind: u8,
        body: Bytes,
    },
}

impl Control {
    /// The type's number.
    pub fn type_number(&self) -> u8 {
        match self {
            Self::Hello(_) => 0x01,
            Self::HelloRefused(_) => 0x02,
            Self::LinkState(_) => 0x03,
            Self::Digest(_) => 0x04,
            Self::LinkStatePull(_) => 0x05,
            Self::InterestDelta(_) => 0x06,
            Self::InterestPull(_) => 0x07,
            Self::InterestSnapshot(_) => 0x08,
            Self::Drain(_) => 0x09,
            Self::Application { .. } => 0x0a,
        }
    }

    /// Appends the whole frame to `out`.
    ///
    /// # Errors
    /// `frame-too-large` when the body is over its limit; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Violation> {
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, self.type_number()]);
        let written = match self {
            Self::Hello(body) => write(body, out),
            Self::HelloRefused(body) => write(body, out),
            Self::LinkState(body) => write(body, out),
            Self::Digest(body) => write(body, out),
            Self::LinkStatePull(body) => write(body, out),
            Self::InterestDelta(body) => write(body, out),
            Self::InterestPull(body) => write(body, out),
            Self::InterestSnapshot(body) => write(body, out),
            Self::Drain(body) => write(body, out),
            Self::Application { kind, body } => {
                out.push(*kind);
                out.extend_from_slice(body);
                Ok(())
            }
        };
        let len = out.len() - start - HEADER_BYTES;
        if let Err(refused) = written.and_then(|()| check_len(self.type_number(), len)) {
            out.truncate(start);
            return Err(refused);
        }
        out[start..start + 4].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        Ok(())
    }

    /// Reads the body of a frame; `None` for an unknown type that may be skipped.
    ///
    /// # Errors
    /// `malformed` or `unknown-frame`.
    fn decode(kind: u8, mut body: Bytes) -> Result<Option<Self>, Violation> {
        Ok(Some(match kind {
            0x01 => Self::Hello(read(kind, &body)?),
            0x02 => Self::HelloRefused(read(kind, &body)?),
            0x03 => Self::LinkState(read(kind, &body)?),
            0x04 => Self::Digest(read(kind, &body)?),
            0x05 => Self::LinkStatePull(read(kind, &body)?),
            0x06 => Self::InterestDelta(read(kind, &body)?),
            0x07 => Self::InterestPull(read(kind, &body)?),
            0x08 => Self::InterestSnapshot(read(kind, &body)?),
            0x09 => Self::Drain(read(kind, &body)?),
            0x0a if body.is_empty() => return Err(malformed(kind, &"it has no kind")),
            0x0a => Self::Application { kind: body.get_u8(), body },
            _ if kind & SKIPPABLE != 0 => return Ok(None),
            _ => {
                let message = format!("a control frame has type {kind:#04x}, which is unknown and not skippable");
                return Err(Violation::new(ViolationCode::UnknownFrame, message));
            }
        }))
    }
}

fn write<T: Serialize>(body: &T, out: &mut Vec<u8>) -> Result<(), Violation> {
    rmp_serde::encode::write_named(out, body).map_err(|error| malformed(0, &error))
}

fn read<T: DeserializeOwned>(kind: u8, body: &[u8]) -> Result<T, Violation> {
    // The decoder would take an array for the map: then the fields' order would be part of the protocol.
    if !matches!(body.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        return Err(malformed(kind, &"it is not a MessagePack map"));
    }
    let mut reader = rmp_serde::Deserializer::new(body);
    // An unknown key may hold anything, and the decoder recurses.
    reader.set_max_depth(CONTROL_DEPTH_MAX + 1);
    let value = T::deserialize(&mut reader).map_err(|error| malformed(kind, &error))?;
    if reader.get_ref().is_empty() { Ok(value) } else { Err(malformed(kind, &"it goes on after its map")) }
}

fn malformed(kind: u8, why: &dyn std::fmt::Display) -> Violation {
    Violation::new(ViolationCode::Malformed, format!("the body of a control frame of type {kind:#04x}: {why}"))
}

fn check_len(kind: u8, len: usize) -> Result<(), Violation> {
    let limit = if kind == 0x0a { APPLICATION_BYTES_MAX + 1 } else { CONTROL_BODY_BYTES_MAX };
    if len <= limit {
        return Ok(());
    }
    let message = format!("a control frame of type {kind:#04x} has a body of {len} bytes; the limit is {limit}");
    Err(Violation::new(ViolationCode::FrameTooLarge, message))
}

/// Cuts a control stream into messages. Holds at most one frame beyond what was pushed last.
#[derive(Debug, Default)]
pub struct ControlDecoder {
    buffer: BytesMut,
}

impl ControlDecoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the stream may end here.
    pub fn is_at_boundary(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole message; `None` until more bytes come.
    ///
    /// # Errors
    /// `frame-too-large` by the header alone, `unknown-frame`, `malformed`. The stream is then of no more use.
    pub fn poll(&mut self) -> Result<Option<Control>, Violation> {
        while let Some(&[a, b, c, d, kind]) = self.buffer.first_chunk::<HEADER_BYTES>() {
            let len = u32::from_le_bytes([a, b, c, d]) as usize;
            check_len(kind, len)?;
            if self.buffer.len() < HEADER_BYTES + len {
                return Ok(None);
            }
            let mut frame = self.buffer.split_to(HEADER_BYTES + len).freeze();
            frame.advance(HEADER_BYTES);
            if let Some(message) = Control::decode(kind, frame)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}
