//! Parts of an event that an operator names in a configuration (cargo feature `config`).

use crate::{EventView, Needs, PayloadNeed, json};
use std::borrow::Cow;
use std::fmt::Write;

/// What an operator can name, for errors and documentation.
const NAMES: &str =
    "`id`, `identity`, `topic`, `level:N`, `key`, `type`, `content-type`, `header:NAME` or `field:PATH`";

/// A part of an event, named by a text: `id`, `identity`, `topic`, `level:N` (the topic's level number N, from 0), `key`,
/// `type`, `content-type`, `header:NAME` or `field:PATH` (of the JSON payload, names with dots between them).
///
/// ```
/// use myelin_filter::source::Source;
/// let source = Source::parse("header:x-tenant").unwrap();
/// assert!(source.needs().has_attributes());
/// assert!(Source::parse("heder:x-tenant").unwrap_err().contains("`header:NAME`"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The event's id, where its publisher gave one.
    Id,
    /// The publisher's identity.
    Identity,
    /// The topic.
    Topic,
    /// One level of the topic, from 0.
    Level(usize),
    /// The ordering key; in hex where it is no text.
    Key,
    /// The event's type.
    Type,
    /// The media type of the payload.
    ContentType,
    /// The first header of this name.
    Header(String),
    /// The first field of this path: a text, a number, `true`, `false` or `null`.
    Field(String),
}

impl Source {
    /// Reads a name.
    ///
    /// # Errors
    /// A sentence with the names that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unknown = || format!("\"{text}\" names no part of an event; write {NAMES}");
        let (name, rest) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        Ok(match (name, rest) {
            ("id", None) => Self::Id,
            ("identity", None) => Self::Identity,
            ("topic", None) => Self::Topic,
            ("key", None) => Self::Key,
            ("type", None) => Self::Type,
            ("content-type", None) => Self::ContentType,
            ("level", Some(level)) => Self::Level(level.parse().map_err(|_| unknown())?),
            ("header", Some(name)) if !name.is_empty() => Self::Header(name.to_owned()),
            ("field", Some(path)) if path.split('.').all(|step| !step.is_empty()) => Self::Field(path.to_owned()),
            _ => return Err(unknown()),
        })
    }

    /// What the router must copy for it.
    pub const fn needs(&self) -> Needs {
        match self {
            Self::Topic | Self::Level(_) => Needs::NOTHING,
            Self::Identity => Needs::NOTHING.identity(),
            Self::Id | Self::Key | Self::Type | Self::ContentType | Self::Header(_) => Needs::NOTHING.attributes(),
            Self::Field(_) => Needs::NOTHING.payload(PayloadNeed::Full),
        }
    }

    /// Its text; `None` where the event has no such part.
    pub fn text<'a>(&self, event: &EventView<'a>) -> Option<Cow<'a, str>> {
        let text = match self {
            Self::Id => event.id(),
            Self::Identity => event.identity().filter(|identity| !identity.is_empty()),
            Self::Topic => Some(event.topic()),
            Self::Level(level) => event.topic().split('/').nth(*level),
            Self::Key => return event.key().map(key_text),
            Self::Type => event.event_type(),
            Self::ContentType => event.content_type(),
            Self::Header(name) => event.header_named(name),
            Self::Field(path) => return json::field(event.payload(), path).and_then(json::JsonValue::into_text),
        };
        text.map(Cow::Borrowed)
    }
}

fn key_text(key: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(key).map_or_else(
        |_| {
            let hex = key.iter().fold("hex:".to_owned(), |mut hex, byte| {
                // Writing to a text does not fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            Cow::Owned(hex)
        },
        Cow::Borrowed,
    )
}

/// Appends parts to `name` so that no two lists of parts give the same one: each with its length before it. `None`
/// stands for a part that is not there.
pub fn join(name: &mut String, part: Option<&str>) {
    // Writing to a text does not fail.
    let _ = match part {
        Some(part) => write!(name, "{}:{part}", part.len()),
        None => write!(name, "-:"),
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use myelin_arena::{AttrsBuilder, Entry, attrs};

    #[test]
    fn every_part_is_found_by_its_name() {
        let mut block = AttrsBuilder::new();
        block.own(attrs::ID, b"i").own(attrs::TYPE, b"t").own(attrs::KEY, b"k").own(attrs::CONTENT_TYPE, b"c");
        block.header("x-a", "h");
        let payload = br#"{"a":{"b":"f"},"n":7,"o":{},"t":true}"#;
        let entry =
            Entry { topic: "one/two", attrs: block.as_bytes(), payload, payload_total: 9, identity: Some("me") };
        let event = EventView { entry, index: 0, now_unix_ns: 0, headers: &[] };
        let text = |name: &str| Source::parse(name).unwrap().text(&event).map(Cow::into_owned);
        for (name, expected) in [
            ("id", "i"),
            ("identity", "me"),
            ("topic", "one/two"),
            ("level:1", "two"),
            ("key", "k"),
            ("type", "t"),
            ("content-type", "c"),
            ("header:x-a", "h"),
            ("field:a.b", "f"),
            ("field:n", "7"),
            ("field:t", "true"),
        ] {
            assert_eq!(text(name).as_deref(), Some(expected), "{name}");
        }
        for absent in ["level:2", "header:x-b", "field:a", "field:o", "field:x"] {
            assert_eq!(text(absent), None, "{absent}");
        }
        assert_eq!(key_text(&[0xff, 1]), "hex:ff01");
    }

    #[test]
    fn what_names_nothing_is_refused_with_what_there_is() {
        for bad in ["", "ids", "id:x", "level", "level:x", "level:-1", "header:", "field:", "field:a..b", "field"] {
            let error = Source::parse(bad).unwrap_err();
            assert!(error.contains(&format!("\"{bad}\"")) && error.contains("`level:N`"), "{error}");
        }
    }

    #[test]
    fn joined_parts_are_never_ambiguous() {
        let joined = |parts: &[Option<&str>]| {
            let mut name = String::new();
            parts.iter().for_each(|part| join(&mut name, *part));
            name
        };
        assert_ne!(joined(&[Some("a"), Some("b")]), joined(&[Some("ab"), Some("")]));
        assert_ne!(joined(&[None, Some("")]), joined(&[Some(""), None]));
        assert_ne!(joined(&[Some("1:x")]), joined(&[Some("x"), Some("x")]));
    }
}
