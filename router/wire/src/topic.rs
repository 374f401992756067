//! Topics and patterns: what may stand in them, and which topic a pattern matches.
//!
//! A *topic* is a run of non-empty levels between slashes: `orders/eu/42`. A *pattern* is a topic whose levels may
//! be wildcards: `*` is exactly one level, `**` is zero or more levels and stands last (`a/**` matches `a` too).
//! A pattern that begins with a wildcard matches no topic that begins with `$`: those belong to the router.

mod fault;

pub use self::fault::{Subject, TopicError, TopicFault};

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Levels of a topic or a pattern; a level costs a step of the match and of every recursion over it.
pub const TOPIC_LEVELS_MAX: usize = 32;
/// Bytes of a topic or a pattern, so that one with a prefix of the router's own still has a one-byte length.
pub const TOPIC_LEN_MAX_BYTES: usize = 250;
/// Matches exactly one level.
pub const WILDCARD_ONE: &str = "*";
/// Matches zero or more levels; only as the last level.
pub const WILDCARD_DEEP: &str = "**";

/// A topic that has passed [`validate_topic`]; cloning it copies no text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// A pattern that has passed [`validate_pattern`]; cloning it copies no text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

/// Checks that `text` is a topic.
pub fn validate_topic(text: &str) -> Result<(), TopicError> {
    validate(text, Subject::Topic).map_err(|fault| TopicError { subject: Subject::Topic, fault })
}

/// Checks that `bytes`, as they came from a stranger, are a topic, and gives them back as text.
pub fn validate_topic_bytes(bytes: &[u8]) -> Result<&str, TopicError> {
    let refuse = |fault| TopicError { subject: Subject::Topic, fault };
    // The length first: a stranger's megabyte is not worth decoding.
    if bytes.len() > TOPIC_LEN_MAX_BYTES {
        return Err(refuse(TopicFault::TooLong { len_bytes: bytes.len() }));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| refuse(TopicFault::NotUtf8 { at_byte: e.valid_up_to() }))?;
    validate_topic(text)?;
    Ok(text)
}

/// Checks that `text` is a pattern.
pub fn validate_pattern(text: &str) -> Result<(), TopicError> {
    validate(text, Subject::Pattern).map_err(|fault| TopicError { subject: Subject::Pattern, fault })
}

/// Whether `topic` belongs to the router: no pattern with a leading wildcard matches it.
pub fn is_reserved(topic: &str) -> bool {
    topic.starts_with('$')
}

fn validate(text: &str, subject: Subject) -> Result<(), TopicFault> {
    if text.is_empty() {
        return Err(TopicFault::Empty);
    }
    if text.len() > TOPIC_LEN_MAX_BYTES {
        return Err(TopicFault::TooLong { len_bytes: text.len() });
    }
    let levels = text.split('/').count();
    if levels > TOPIC_LEVELS_MAX {
        return Err(TopicFault::TooManyLevels { levels });
    }
    if let Some((at_byte, character)) = text.char_indices().find(|(_, c)| c.is_control()) {
        return Err(TopicFault::ControlCharacter { character, at_byte });
    }
    for (index, level) in text.split('/').enumerate() {
        validate_level(level, index + 1, index + 1 == levels, subject)?;
    }
    Ok(())
}

fn validate_level(text: &str, level: usize, last: bool, subject: Subject) -> Result<(), TopicFault> {
    match text {
        "" => Err(TopicFault::EmptyLevel { level }),
        _ if !text.contains('*') => Ok(()),
        _ if subject == Subject::Topic => Err(TopicFault::Wildcard { level }),
        WILDCARD_ONE => Ok(()),
        WILDCARD_DEEP if last => Ok(()),
        WILDCARD_DEEP => Err(TopicFault::DeepNotLast { level }),
        _ => Err(TopicFault::MixedWildcard { level }),
    }
}

impl Topic {
    /// Checks `text` and keeps it.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        validate_topic(text)?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared text itself.
    pub fn into_shared(self) -> Arc<str> {
        self.0
    }
}

impl Pattern {
    /// Checks `text` and keeps it.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        validate_pattern(text)?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared text itself.
    pub fn into_shared(self) -> Arc<str> {
        self.0
    }

    /// The levels, first to last.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether it has no wildcard, so that it matches the one topic of the same text.
    pub fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it matches `topic`, which must be valid.
    pub fn matches(&self, topic: &str) -> bool {
        if is_reserved(topic) && self.0.starts_with('*') {
            return false;
        }
        let mut topic_levels = topic.split('/');
        for wanted in self.levels() {
            if wanted == WILDCARD_DEEP {
                return true;
            }
            match topic_levels.next() {
                Some(level) if wanted == WILDCARD_ONE || wanted == level => {}
                _ => return false,
            }
        }
        topic_levels.next().is_none()
    }

    /// Whether every topic that `other` matches is matched by this pattern too. Never says so wrongly; of patterns
    /// that only the limit of levels makes equal (32 levels of `*`) it may fail to say so.
    pub fn implies(&self, other: &Self) -> bool {
        if is_reserved(other.as_str()) && self.0.starts_with('*') {
            return false;
        }
        // A topic has at least one level, so a pattern `**` is `*/**`.
        let whole = if other.as_str() == WILDCARD_DEEP { "*/**" } else { other.as_str() };
        let mut others = whole.split('/');
        for wanted in self.levels() {
            if wanted == WILDCARD_DEEP {
                return true;
            }
            match others.next() {
                None | Some(WILDCARD_DEEP) => return false,
                Some(level) if wanted == WILDCARD_ONE || wanted == level => {}
                Some(_) => return false,
            }
        }
        others.next().is_none()
    }
}

/// What both texts can do: be read as text, be parsed, be printed, travel as a string.
macro_rules! text_impls {
    ($name:ident) => {
        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = TopicError;
            fn from_str(text: &str) -> Result<Self, TopicError> {
                Self::new(text)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_impls!(Topic);
text_impls!(Pattern);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::*;

    fn topic_fault(text: &str) -> TopicFault {
        validate_topic(text).unwrap_err().fault
    }

    fn pattern_fault(text: &str) -> TopicFault {
        Pattern::new(text).unwrap_err().fault
    }

    /// The definition, level by level, without a shortcut.
    fn naive(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            ([], []) => true,
            (["**"], _) => true,
            (["*", pattern @ ..], [_, topic @ ..]) => naive(pattern, topic),
            ([wanted, pattern @ ..], [level, topic @ ..]) => wanted == level && naive(pattern, topic),
            _ => false,
        }
    }

    fn naive_matches(pattern: &str, topic: &str) -> bool {
        let pattern: Vec<_> = pattern.split('/').collect();
        let topic: Vec<_> = topic.split('/').collect();
        let hidden = topic[0].starts_with('$') && matches!(pattern[0], "*" | "**");
        !hidden && naive(&pattern, &topic)
    }

    fn topic_text() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "$s", "ü"]), 1..6).prop_map(|l| l.join("/"))
    }

    fn pattern_text() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "$s", "ü", "*", "*"]);
        (prop::collection::vec(level, 0..5), any::<bool>()).prop_map(|(mut levels, deep)| {
            if deep || levels.is_empty() {
                levels.push("**");
            }
            levels.join("/")
        })
    }

    #[test]
    fn good_texts_are_kept_as_they_are() {
        for text in ["a", "a/b", "$sys/x", "ü/Ж", "with space/ ", &"x".repeat(250), &["l"; 32].join("/")] {
            assert_eq!(Topic::new(text).unwrap().as_str(), text);
            assert_eq!(Pattern::new(text).unwrap().as_str(), text);
        }
        for text in ["*", "**", "a/*", "a/**", "*/*/**", "$sys/**"] {
            assert_eq!(Pattern::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn bad_topics_are_refused_at_their_fault() {
        assert_eq!(topic_fault(""), TopicFault::Empty);
        assert_eq!(topic_fault(&"x".repeat(251)), TopicFault::TooLong { len_bytes: 251 });
        assert_eq!(topic_fault(&["l"; 33].join("/")), TopicFault::TooManyLevels { levels: 33 });
        assert_eq!(topic_fault("/a"), TopicFault::EmptyLevel { level: 1 });
        assert_eq!(topic_fault("a//b"), TopicFault::EmptyLevel { level: 2 });
        assert_eq!(topic_fault("a/"), TopicFault::EmptyLevel { level: 2 });
        assert_eq!(topic_fault("a/\u{7f}"), TopicFault::ControlCharacter { character: '\u{7f}', at_byte: 2 });
        assert_eq!(topic_fault("ü\0"), TopicFault::ControlCharacter { character: '\0', at_byte: 2 });
        assert_eq!(topic_fault("a/b*"), TopicFault::Wildcard { level: 2 });
        let refused = validate_topic_bytes(b"ab\xff").unwrap_err();
        assert_eq!((refused.code(), refused.fault), ("invalid-topic", TopicFault::NotUtf8 { at_byte: 2 }));
        assert_eq!(validate_topic_bytes(&[0xff; 251]).unwrap_err().fault, TopicFault::TooLong { len_bytes: 251 });
        assert_eq!(validate_topic_bytes("a/ü".as_bytes()), Ok("a/ü"));
    }

    #[test]
    fn bad_patterns_are_refused_with_a_sentence() {
        assert_eq!(pattern_fault("a*"), TopicFault::MixedWildcard { level: 1 });
        assert_eq!(pattern_fault("a/***"), TopicFault::MixedWildcard { level: 2 });
        assert_eq!(pattern_fault("**/a"), TopicFault::DeepNotLast { level: 1 });
        let refused = Pattern::new("x/a*").unwrap_err();
        assert_eq!(refused.code(), "invalid-pattern");
        assert!(refused.to_string().starts_with("level 2 of the pattern mixes `*` with other characters;"));
    }

    #[test]
    fn wildcards_match_as_documented() {
        let cases = [
            ("a/**", "a", true),
            ("a/**", "a/b/c", true),
            ("a/**", "ab", false),
            ("a/*", "a", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("*/b", "a/b", true),
            ("**", "a", true),
            ("**", "$sys/a", false),
            ("*/a", "$sys/a", false),
            ("$sys/**", "$sys/a", true),
            ("a/*", "a/$b", true),
        ];
        for (pattern, topic, expected) in cases {
            assert_eq!(Pattern::new(pattern).unwrap().matches(topic), expected, "{pattern} {topic}");
        }
    }

    #[test]
    fn texts_travel_as_plain_strings_and_are_checked_on_arrival() {
        let pattern: Pattern = serde_json::from_str(r#""a/\u002a""#).unwrap();
        assert_eq!(serde_json::to_string(&pattern).unwrap(), r#""a/*""#);
        let refused = serde_json::from_str::<Topic>(r#""a/*""#).unwrap_err();
        assert!(refused.to_string().contains("only patterns may"), "{refused}");
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_naive_matcher(pattern in pattern_text(), topic in topic_text()) {
            prop_assert_eq!(Pattern::new(&pattern).unwrap().matches(&topic), naive_matches(&pattern, &topic));
        }

        #[test]
        fn a_topic_as_pattern_matches_itself_only(a in topic_text(), b in topic_text()) {
            prop_assert_eq!(Pattern::new(&a).unwrap().matches(&b), a == b);
        }

        #[test]
        fn an_implying_pattern_matches_all_that_the_implied_one_does(
            a in pattern_text(), b in pattern_text(), topics in prop::collection::vec(topic_text(), 64),
        ) {
            let (a, b) = (Pattern::new(&a).unwrap(), Pattern::new(&b).unwrap());
            let witness = topics.iter().find(|t| b.matches(t) && !a.matches(t));
            prop_assert!(!(a.implies(&b) && witness.is_some()), "{a} does not cover {b}: {witness:?}");
        }

        /// Over this alphabet a fresh level (`fresh`, `$fresh` excluded by rule) separates any two patterns.
        #[test]
        fn a_pattern_that_is_not_implied_has_a_witness(a in pattern_text(), b in pattern_text()) {
            let (a, b) = (Pattern::new(&a).unwrap(), Pattern::new(&b).unwrap());
            let stem: Vec<_> = b.levels().filter(|l| *l != "**").map(|l| if l == "*" { "fresh" } else { l }).collect();
            let mut witnesses = vec![stem.clone()];
            if b.ends_with("**") {
                witnesses.extend((1..7).map(|n| [stem.clone(), vec!["fresh"; n]].concat()));
            }
            let covered = witnesses.iter().filter(|w| !w.is_empty()).all(|w| a.matches(&w.join("/")));
            prop_assert_eq!(a.implies(&b), covered, "{} {}", a, b);
        }

        #[test]
        fn no_text_makes_the_checks_panic(text in ".{0,300}", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let topic = validate_topic(&text).is_ok();
            prop_assert!(!topic || validate_pattern(&text).is_ok());
            if let Ok(checked) = validate_topic_bytes(&bytes) {
                prop_assert_eq!(checked.as_bytes(), &bytes[..]);
            }
        }
    }
}
