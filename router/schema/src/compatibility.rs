//! Which changes of a schema its readers and writers survive.

use crate::error::SchemaError;
use crate::format::{Format, Source};
use crate::limits::INCOMPATIBILITIES_MAX;
use crate::{avro, json, protobuf};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a newer schema owes to older ones; in texts as Confluent's registry says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Compatibility {
    /// Nothing.
    None,
    /// It reads what the version before it wrote.
    #[default]
    Backward,
    /// It reads what all versions before it wrote.
    BackwardTransitive,
    /// The version before it reads what it writes.
    Forward,
    /// All versions before it read what it writes.
    ForwardTransitive,
    /// Both, with the version before it.
    Full,
    /// Both, with all versions before it.
    FullTransitive,
}

impl Compatibility {
    const ALL: [Self; 7] = [
        Self::None,
        Self::Backward,
        Self::BackwardTransitive,
        Self::Forward,
        Self::ForwardTransitive,
        Self::Full,
        Self::FullTransitive,
    ];

    /// Its name in the registry's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Backward => "BACKWARD",
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::Forward => "FORWARD",
            Self::ForwardTransitive => "FORWARD_TRANSITIVE",
            Self::Full => "FULL",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// Whether all older versions count, not only the newest of them.
    pub fn is_transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    fn is_backward(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }

    fn is_forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }
}

impl fmt::Display for Compatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Compatibility {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        let known = Self::ALL.into_iter().find(|level| level.as_str() == text);
        known.ok_or_else(|| {
            SchemaError::unknown_word(
                "a level of compatibility",
                text,
                "NONE, BACKWARD, FORWARD or FULL, the last three also with _TRANSITIVE",
            )
        })
    }
}

/// What of the older schemas (newest first) the newer one breaks, for people; empty = compatible. Levels that are not
/// transitive look at the first of `older` only. At most [`INCOMPATIBILITIES_MAX`] texts.
///
/// # Errors
///
/// What is wrong with one of the schemas, or that they are too complex to compare.
pub fn incompatibilities(
    level: Compatibility,
    newer: &Source<'_>,
    older: &[Source<'_>],
) -> Result<Vec<String>, SchemaError> {
    newer.check_size()?;
    let looked_at = if level.is_transitive() { older.len() } else { older.len().min(1) };
    let mut found = Vec::new();
    if level == Compatibility::None {
        return Ok(found);
    }
    for (back, older) in (1..).zip(&older[..looked_at]) {
        older.check_size()?;
        if older.format != newer.format {
            found.push(format!("the format was {} {}, and is now {}", older.format, ago(back), newer.format));
            continue;
        }
        if level.is_backward() {
            add(&mut found, reads(newer, older)?, &format!("data of {} cannot be read", version(back)));
        }
        if level.is_forward() {
            add(&mut found, reads(older, newer)?, &format!("readers with {} cannot read", version(back)));
        }
    }
    found.truncate(INCOMPATIBILITIES_MAX);
    Ok(found)
}

fn add(found: &mut Vec<String>, reasons: Vec<String>, about: &str) {
    found.extend(reasons.into_iter().map(|reason| format!("{about}: {reason}")));
}

fn version(back: usize) -> String {
    if back == 1 { "the version before".to_owned() } else { format!("the version {back} before") }
}

fn ago(back: usize) -> String {
    if back == 1 { "in the version before".to_owned() } else { format!("{back} versions before") }
}

/// Why the reader's schema does not read all that the writer's describes.
fn reads(reader: &Source<'_>, writer: &Source<'_>) -> Result<Vec<String>, SchemaError> {
    match reader.format {
        Format::Json => json::unreadable(reader, writer),
        Format::Avro => avro::unreadable(reader, writer),
        Format::Protobuf => protobuf::unreadable(reader, writer),
    }
}
