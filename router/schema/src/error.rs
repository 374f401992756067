//! What is wrong with a schema, and with a payload.

use crate::format::Format;
use crate::limits::{FAULT_TEXT_MAX, REFERENCES_MAX};
use crate::repeated::Repeated;
use std::fmt::Display;

/// Why a text is no schema that can be used, or why nothing can be said about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SchemaError {
    /// Stable, in kebab case: `schema-too-big`, `schema-malformed`, ...
    pub code: &'static str,
    /// What, where, and how to make it good.
    pub message: String,
}

/// The most of a message that comes from a library or from the text itself.
const MESSAGE_MAX: usize = 600;

impl SchemaError {
    pub(crate) fn new(code: &'static str, message: impl Display) -> Self {
        Self { code, message: shortened(message.to_string(), MESSAGE_MAX) }
    }

    /// The text cannot be read as what it claims to be.
    pub(crate) fn malformed(format: &str, reason: impl Display) -> Self {
        Self::new("schema-malformed", format!("the text is no {format} schema: {reason}"))
    }

    /// Which of two members of one name counts, readers do not agree.
    pub(crate) fn ambiguous(format: Format, repeated: &Repeated) -> Self {
        let place = if repeated.path.is_empty() { "its object".to_owned() } else { format!("`{}`", repeated.path) };
        let place = shortened(place, FAULT_TEXT_MAX);
        let reason = format!("{place} {repeated}, and readers do not agree which of them counts: leave one");
        Self::malformed(format.as_str(), reason)
    }

    pub(crate) fn too_big(what: &str, size: usize, most: usize) -> Self {
        Self::new("schema-too-big", format!("{what} has {size} bytes; at most {most} are allowed: split it up"))
    }

    pub(crate) fn too_many_references(count: usize) -> Self {
        let message = format!("the schema refers to {count} others; at most {REFERENCES_MAX} are allowed: join some");
        Self::new("schema-too-many-references", message)
    }

    /// More parts, or deeper, than the limits allow.
    pub(crate) fn too_complex(what: impl Display, most: impl Display) -> Self {
        Self::new("schema-too-complex", format!("{what}; at most {most} are allowed: make the schema simpler"))
    }

    /// Something is referred to that was not handed in.
    pub(crate) fn unresolved(reference: &str) -> Self {
        Self::new(
            "schema-reference-unresolved",
            format!(
                "`{}` is not among the schema's references; nothing is fetched: register it as a subject and name it in \
                 `references`",
                shortened(reference.to_owned(), FAULT_TEXT_MAX)
            ),
        )
    }

    pub(crate) fn unknown_word(what: &str, text: &str, known: &str) -> Self {
        let text = shortened(text.to_owned(), FAULT_TEXT_MAX);
        Self::new("schema-unknown-word", format!("`{text}` is not {what}; use {known}"))
    }
}

/// What is wrong with a payload. Both texts have at most [`FAULT_TEXT_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", place(path))]
pub struct Fault {
    /// Where: a JSON pointer, or the path of fields of an Avro or Protobuf value. Empty for the payload as a whole.
    pub path: String,
    /// What.
    pub text: String,
}

impl Fault {
    pub(crate) fn new(path: impl Into<String>, text: impl Display) -> Self {
        Self { path: shortened(path.into(), FAULT_TEXT_MAX), text: shortened(text.to_string(), FAULT_TEXT_MAX) }
    }

    /// The payload as a whole.
    pub(crate) fn whole(text: impl Display) -> Self {
        Self::new("", text)
    }
}

/// How a fault begins that is not about the payload as a whole.
fn place(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("at `{path}`: ") }
}

/// At most `most` bytes of the text, cut between characters and marked, without control characters.
pub(crate) fn shortened(mut text: String, most: usize) -> String {
    const MARK: &str = "...";
    if text.len() > most {
        let mut end = most - MARK.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(MARK);
    }
    if text.contains(char::is_control) {
        text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = shortened("ä".repeat(300), FAULT_TEXT_MAX);
        assert!(text.len() <= FAULT_TEXT_MAX && text.ends_with("ä..."), "{text}");
        assert_eq!(shortened("short".to_owned(), 200), "short");
        assert_eq!(shortened("a\nb".to_owned(), 200), "a b");
    }
}
