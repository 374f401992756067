//! Control messages: the bodies of control frames, MessagePack maps with string keys.
//!
//! Unknown keys are ignored, so that later versions can add to a message; a missing key without a default refuses it,
//! and nil says the same as leaving a key out.

use crate::frame::{FrameHeader, FrameType, HEADER_BYTES};
use crate::limits::{CONTROL_DEPTH_MAX, Limits};
use crate::refusal::{Code, Refusal};
use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use std::fmt;

/// What the router does when a subscriber's outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// The oldest queued events make room; they are counted as shed.
    #[default]
    DropOldest,
    /// The subscriber is disconnected with `slow-consumer`.
    Disconnect,
    /// The publishers wait: nothing is lost, and one slow subscriber slows them all.
    Pause,
}

/// First frame of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest protocol version that the client speaks.
    pub min: u16,
    /// Highest protocol version that the client speaks.
    pub max: u16,
    /// Name and version of the client's software, for logs; at most 128 bytes.
    #[serde(default, deserialize_with = "or_default")]
    pub client: String,
    /// What to do when this client's outbox is full.
    #[serde(default, deserialize_with = "or_default")]
    pub overflow: Overflow,
    /// A JSON Web Token that says who the client is, where it shows no certificate; at most 8 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

/// A token, which no log shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(elided)")
    }
}

/// Reads a key that has a default. Encoders of languages with null write nil where there is nothing to say.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// First frame of a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both speak from here on.
    pub version: u16,
    /// Site of the router.
    pub site: String,
    /// Name of the router.
    pub router: String,
    /// Topics below this one reach this session only: `$inbox/<session>`.
    pub inbox: String,
    /// The limits that hold.
    #[serde(deserialize_with = "announced_limits")]
    pub limits: Limits,
}

/// Reads limits as another router announced them: one that this version does not know is no fault, whereas in a
/// configuration file it is.
fn announced_limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
    #[derive(Deserialize)]
    struct Announced {
        payload_bytes: Option<u32>,
        headers: Option<u16>,
        attributes_bytes: Option<u16>,
        subscriptions: Option<u32>,
    }
    let (announced, default) = (Announced::deserialize(deserializer)?, Limits::default());
    Ok(Limits {
        payload_bytes: announced.payload_bytes.unwrap_or(default.payload_bytes),
        headers: announced.headers.unwrap_or(default.headers),
        attributes_bytes: announced.attributes_bytes.unwrap_or(default.attributes_bytes),
        subscriptions: announced.subscriptions.unwrap_or(default.subscriptions),
    })
}

/// Opens a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Chosen by the client, 1 or more, not in use.
    pub id: u32,
    /// Which topics.
    pub pattern: String,
    /// Each event goes to one member of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Names a subscription: UNSUBSCRIBE, SUBSCRIBED and UNSUBSCRIBED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionId {
    /// The client's id of it.
    pub id: u32,
}

/// How many events of the delivery stream the client has taken over, from the stream's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Cumulative.
    pub events: u64,
}

/// One exception of an ack: `[seq, code, detail]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception(pub u64, pub Code, pub String);

/// Acknowledges a publisher's events: admitted, filtered, offered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// All events of the publish stream up to this one (the first is 1) are decided.
    pub seq: u64,
    /// Those among them that were not offered, and why.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<Exception>,
}

/// A request of the client was refused; the session goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The subscription it was about.
    pub id: u32,
    /// Why.
    pub code: Code,
    /// For a person.
    pub message: String,
}

/// The router is about to close the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoAway {
    /// Why.
    pub code: Code,
    /// For a person.
    pub message: String,
    /// How long the router still takes and delivers what is in flight, in milliseconds.
    pub drain_ms: u32,
}

/// Any control message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's type says what it is")]
pub enum Message {
    Hello(Hello),
    Subscribe(Subscribe),
    Unsubscribe(SubscriptionId),
    Receipt(Receipt),
    /// The client is done: no more frames from it.
    Bye,
    Welcome(Welcome),
    Subscribed(SubscriptionId),
    Unsubscribed(SubscriptionId),
    Ack(Ack),
    Refused(Refused),
    GoAway(GoAway),
}

impl Message {
    /// The type of the frame that carries this message.
    pub fn frame_type(&self) -> FrameType {
        match self {
            Self::Hello(_) => FrameType::Hello,
            Self::Subscribe(_) => FrameType::Subscribe,
            Self::Unsubscribe(_) => FrameType::Unsubscribe,
            Self::Receipt(_) => FrameType::Receipt,
            Self::Bye => FrameType::Bye,
            Self::Welcome(_) => FrameType::Welcome,
            Self::Subscribed(_) => FrameType::Subscribed,
            Self::Unsubscribed(_) => FrameType::Unsubscribed,
            Self::Ack(_) => FrameType::Ack,
            Self::Refused(_) => FrameType::Refused,
            Self::GoAway(_) => FrameType::GoAway,
        }
    }

    /// Appends the whole frame to `out`.
    ///
    /// # Errors
    /// `frame-too-large` when the body exceeds the limit of control frames (only through a text of the caller).
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let body = match self {
            Self::Hello(body) => rmp_serde::to_vec_named(body),
            Self::Subscribe(body) => rmp_serde::to_vec_named(body),
            Self::Unsubscribe(body) | Self::Subscribed(body) | Self::Unsubscribed(body) => {
                rmp_serde::to_vec_named(body)
            }
            Self::Receipt(body) => rmp_serde::to_vec_named(body),
            Self::Bye => Ok(Vec::new()),
            Self::Welcome(body) => rmp_serde::to_vec_named(body),
            Self::Ack(body) => rmp_serde::to_vec_named(body),
            Self::Refused(body) => rmp_serde::to_vec_named(body),
            Self::GoAway(body) => rmp_serde::to_vec_named(body),
        }
        .map_err(|error| Refusal::new(Code::Internal, format!("a control message cannot be encoded: {error}")))?;
        let header = FrameHeader::new(self.frame_type(), u32::try_from(body.len()).unwrap_or(u32::MAX));
        header.classify(false)?;
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(&body);
        Ok(())
    }

    /// Reads the body of a control frame of type `kind`.
    ///
    /// # Errors
    /// `malformed` when the body is not the map that the type needs; `out-of-order` for a data frame.
    pub fn decode(kind: FrameType, body: &[u8]) -> Result<Self, Refusal> {
        fn read<T: DeserializeOwned>(kind: FrameType, body: &[u8]) -> Result<T, Refusal> {
            // The decoder would take an array for the map: then the fields' order would be part of the protocol.
            if !matches!(body.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
                return Err(Refusal::new(
                    Code::Malformed,
                    format!("the body of a {kind:?} frame is not a MessagePack map"),
                ));
            }
            let mut reader = rmp_serde::Deserializer::new(body);
            // An unknown key may hold anything, and the decoder recurses: its own bound overflows a worker's stack.
            reader.set_max_depth(CONTROL_DEPTH_MAX + 1);
            let value = T::deserialize(&mut reader)
                .map_err(|error| Refusal::new(Code::Malformed, format!("the body of a {kind:?} frame: {error}")))?;
            if reader.get_ref().is_empty() {
                return Ok(value);
            }
            Err(Refusal::new(Code::Malformed, format!("the body of a {kind:?} frame goes on after its map")))
        }
        Ok(match kind {
            FrameType::Hello => Self::Hello(read(kind, body)?),
            FrameType::Subscribe => Self::Subscribe(read(kind, body)?),
            FrameType::Unsubscribe => Self::Unsubscribe(read(kind, body)?),
            FrameType::Receipt => Self::Receipt(read(kind, body)?),
            FrameType::Bye if body.is_empty() => Self::Bye,
            FrameType::Bye => return Err(Refusal::new(Code::Malformed, "a BYE frame has no body")),
            FrameType::Welcome => Self::Welcome(read(kind, body)?),
            FrameType::Subscribed => Self::Subscribed(read(kind, body)?),
            FrameType::Unsubscribed => Self::Unsubscribed(read(kind, body)?),
            FrameType::Ack => Self::Ack(read(kind, body)?),
            FrameType::Refused => Self::Refused(read(kind, body)?),
            FrameType::GoAway => Self::GoAway(read(kind, body)?),
            FrameType::Name | FrameType::Events | FrameType::Deliver => {
                return Err(Refusal::new(Code::OutOfOrder, format!("{kind:?} is a data frame")));
            }
        })
    }
}

/// Cuts a control stream into messages. Holds at most one frame beyond what was pushed last.
#[derive(Debug, Default)]
pub struct MessageDecoder {
    buffer: BytesMut,
}

impl MessageDecoder {
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

    /// The next whole message, whatever it is; `None` until more bytes come.
    ///
    /// # Errors
    /// Any refusal of a header or a body. The stream is then of no more use.
    pub fn poll(&mut self) -> Result<Option<Message>, Refusal> {
        self.poll_if(|_| true)
    }

    /// Like [`poll`](Self::poll), where `may_come` knows which frames belong to this side of the stream, and now. The
    /// others are refused by their header: what their body holds is nobody's concern.
    ///
    /// # Errors
    /// `out-of-order` for them, and any refusal of a header or a body. The stream is then of no more use.
    pub fn poll_if(&mut self, may_come: impl Fn(FrameType) -> bool) -> Result<Option<Message>, Refusal> {
        while let Some(header) = FrameHeader::parse(&self.buffer)? {
            let kind = header.classify(false)?;
            if let Some(kind) = kind.filter(|kind| !may_come(*kind)) {
                let message = format!("a {kind:?} frame is not allowed here, or not now");
                return Err(Refusal::new(Code::OutOfOrder, message));
            }
            let whole = HEADER_BYTES + header.body_len as usize;
            if self.buffer.len() < whole {
                return Ok(None);
            }
            let mut frame: Bytes = self.buffer.split_to(whole).freeze();
            frame.advance(HEADER_BYTES);
            if let Some(kind) = kind {
                return Message::decode(kind, &frame).map(Some);
            }
        }
        Ok(None)
    }
}
