//! Why a text is no topic or no pattern, in a sentence for whoever wrote it.

use super::{TOPIC_LEN_MAX_BYTES, TOPIC_LEVELS_MAX};
use std::fmt;

/// Why a text is no topic or no pattern. Its `Display` says what is wrong, where, and how to mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicError {
    /// What the text was meant to be.
    pub subject: Subject,
    /// What is wrong with it.
    pub fault: TopicFault,
}

/// What a refused text was meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A topic, without wildcards.
    Topic,
    /// A pattern, where wildcards may stand.
    Pattern,
}

/// What is wrong with a topic or pattern. Levels count from 1, bytes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicFault {
    /// It has no characters.
    Empty,
    /// It is longer than [`TOPIC_LEN_MAX_BYTES`].
    TooLong {
        /// How long it is.
        len_bytes: usize,
    },
    /// It has more than [`TOPIC_LEVELS_MAX`] levels.
    TooManyLevels {
        /// How many it has.
        levels: usize,
    },
    /// A level is empty: two slashes in a row, or one at either end.
    EmptyLevel {
        /// Which level.
        level: usize,
    },
    /// It holds a control character.
    ControlCharacter {
        /// Which one.
        character: char,
        /// The byte where it stands.
        at_byte: usize,
    },
    /// Its bytes are not UTF-8.
    NotUtf8 {
        /// The first byte that does not belong.
        at_byte: usize,
    },
    /// A topic holds `*`.
    Wildcard {
        /// Which level.
        level: usize,
    },
    /// A level of a pattern mixes `*` with other characters.
    MixedWildcard {
        /// Which level.
        level: usize,
    },
    /// `**` stands before the last level.
    DeepNotLast {
        /// Which level.
        level: usize,
    },
}

impl TopicError {
    /// The stable name of this refusal.
    pub fn code(&self) -> &'static str {
        match self.subject {
            Subject::Topic => "invalid-topic",
            Subject::Pattern => "invalid-pattern",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Topic => "topic",
            Self::Pattern => "pattern",
        })
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.subject;
        match self.fault {
            TopicFault::Empty => write!(f, "the {subject} is empty; write at least one level, such as `orders`"),
            TopicFault::TooLong { len_bytes } => {
                write!(f, "the {subject} has {len_bytes} bytes; shorten it to {TOPIC_LEN_MAX_BYTES}")
            }
            TopicFault::TooManyLevels { levels } => {
                write!(f, "the {subject} has {levels} levels; use at most {TOPIC_LEVELS_MAX}")
            }
            TopicFault::EmptyLevel { level } => write!(
                f,
                "level {level} of the {subject} is empty; remove the slash at that end, or the second of two slashes"
            ),
            TopicFault::ControlCharacter { character, at_byte } => write!(
                f,
                "the {subject} holds the control character U+{:04X} at byte {at_byte}; remove it",
                u32::from(character)
            ),
            TopicFault::NotUtf8 { at_byte } => {
                write!(f, "the {subject} is not UTF-8 at byte {at_byte}; encode it as UTF-8")
            }
            TopicFault::Wildcard { level } => write!(
                f,
                "level {level} of the topic holds `*`, which only patterns may; name the one topic that is meant"
            ),
            TopicFault::MixedWildcard { level } => write!(
                f,
                "level {level} of the pattern mixes `*` with other characters; a wildcard is a whole level: write `*` \
                 for one level, `**` for the rest, or the level's full name"
            ),
            TopicFault::DeepNotLast { level } => write!(
                f,
                "level {level} of the pattern is `**` and more levels follow; put `**` last, or use `*` for one level"
            ),
        }
    }
}

impl std::error::Error for TopicError {}
