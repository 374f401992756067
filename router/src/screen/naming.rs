//! How events name their schemas: in their head, or by Confluent's prefix of the payload.

use super::Violation;
use myelin_catalog::{SchemaNaming, SchemaVersion};
use myelin_engine::EventView;
use myelin_schema::Format;
use myelin_schema::limits::PROTOBUF_INDEXES_MAX;
use myelin_wire::{Attrs, attrs};
use smallvec::SmallVec;
use std::fmt;

/// Length of Confluent's prefix: a zero byte, and the id.
const PREFIX_LEN: usize = 5;
/// Headers with the address of a schema: of an event that came as CloudEvents says, and of one that a gateway took in.
pub(super) const DATASCHEMA: [&str; 2] = ["dataschema", "ce-dataschema"];

/// A schema as an event names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    /// In its words; nothing where it gives the bytes of an id.
    text: &'a str,
    pub(super) place: Place<'a>,
}

/// Which schema that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Id(u32),
    Version(&'a str, SchemaVersion),
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Id(id) if self.text.is_empty() => id.fmt(f),
            _ => f.write_str(self.text),
        }
    }
}

impl<'a> Named<'a> {
    /// The schema that an event names, if it names any.
    ///
    /// # Errors
    /// Where what it says can be no schema's name.
    pub(super) fn of(naming: SchemaNaming, event: &EventView<'a>) -> Result<Option<Self>, Box<Violation>> {
        let text = match naming {
            SchemaNaming::Confluent => {
                return Ok(prefix(event.payload).map(|(id, _)| Self { text: "", place: Place::Id(id) }));
            }
            SchemaNaming::Header => Attrs::new(event.attrs).text(attrs::SCHEMA),
            _ => DATASCHEMA.iter().find_map(|name| Attrs::new(event.attrs).header(name)),
        };
        let Some(text) = text else { return Ok(None) };
        let place = Place::parse(text).ok_or_else(|| unknown(&format_args!("`{text}`")))?;
        Ok(Some(Self { text, place }))
    }

    /// That no such schema may be named there.
    pub(super) fn unknown(&self) -> Box<Violation> {
        match self.place {
            Place::Id(id) => unknown(&id),
            Place::Version(..) => unknown(&format_args!("`{}`", self.text)),
        }
    }
}

fn unknown(named: &dyn fmt::Display) -> Box<Violation> {
    Violation::whole(format!("names the schema {named}, which is not among those of this topic"))
}

impl<'a> Place<'a> {
    /// What a text means: an id, a subject with or without a version, or an address that ends with one of them.
    fn parse(text: &'a str) -> Option<Self> {
        let path = text.split(['?', '#']).next().unwrap_or(text);
        if let Some((_, id)) = path.rsplit_once("/schemas/ids/") {
            return id.parse().ok().map(Self::Id);
        }
        let in_path = path.rsplit_once("/subjects/").and_then(|(_, rest)| rest.split_once("/versions/"));
        match in_path.or_else(|| text.rsplit_once(':')) {
            Some((subject, version)) => Some(Self::Version(subject, version.parse().ok()?)),
            None => Some(text.parse().map_or(Self::Version(text, SchemaVersion::Latest), Self::Id)),
        }
    }
}

/// The schema's id before a payload, and what follows it.
fn prefix(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (prefix, rest) = payload.split_first_chunk::<PREFIX_LEN>()?;
    let [0, a, b, c, d] = *prefix else { return None };
    Some((u32::from_be_bytes([a, b, c, d]), rest))
}

/// Indexes of a Protobuf message; few have more.
pub(super) type Indexes = SmallVec<[u32; 8]>;

/// What follows the id in a payload of Confluent's wire format: the indexes of its message where it is Protobuf, and the
/// bytes that the schema is about; `None` where it is no such payload.
pub(super) fn unprefixed(payload: &[u8], format: Format) -> Option<(Indexes, &[u8])> {
    let (_, rest) = prefix(payload)?;
    if format == Format::Protobuf { message_indexes(rest) } else { Some((Indexes::new(), rest)) }
}

/// The message that Confluent's wire format names, and what follows: a count of indexes and these, each a zigzag number;
/// one zero byte stands for the first message.
fn message_indexes(bytes: &[u8]) -> Option<(Indexes, &[u8])> {
    let (count, mut rest) = zigzag(bytes)?;
    let mut indexes = Indexes::new();
    if count == 0 {
        indexes.push(0);
        return Some((indexes, rest));
    }
    if usize::try_from(count).ok()? > PROTOBUF_INDEXES_MAX {
        return None;
    }
    for _ in 0..count {
        let (index, after) = zigzag(rest)?;
        indexes.push(index);
        rest = after;
    }
    Some((indexes, rest))
}

/// A number that is not negative.
fn zigzag(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(PREFIX_LEN) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let number = (value & 1 == 0).then_some(value >> 1)?;
            return Some((u32::try_from(number).ok()?, &bytes[at + 1..]));
        }
    }
    None
}
