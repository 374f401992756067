//! What a rule for topics says about payloads.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schemas::SubjectName;

/// By which schema the payloads of topics are judged where they come in, and what becomes of those that are not as it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaRule {
    /// The subject whose schema it is; with `by`, the only subject whose schemas events may name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<SubjectName>,
    /// How each event names its schema; it does not have to where the subject says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<SchemaNaming>,
    /// Which version of the subject. A rule that is asked for may leave it out, which is the newest at that moment;
    /// one that holds says it: [`TopicRule::settled`](super::TopicRule::settled).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<SchemaVersion>,
    /// What becomes of an event that is not as the schema says.
    #[serde(default)]
    pub on_invalid: OnInvalid,
    /// Whether an event without a payload, or with `by` one that names no schema, is not as it must be.
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

/// How an event names its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchemaNaming {
    /// The payload begins with a zero byte and the schema's id, as the serializers of Confluent write it.
    Confluent,
    /// The event's attribute `schema` says `subject:version`, `subject` for the newest, or an id.
    Header,
    /// The header `dataschema` or `ce-dataschema` has the schema's address in a registry.
    Dataschema,
}

/// What becomes of an event that is not as its schema says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnInvalid {
    /// Its publisher is told, with the reason.
    #[default]
    Refuse,
    /// It goes to `$dead/admission/<topic>`, with the reason in its headers; its publisher is told so.
    DeadLetter,
}

impl OnInvalid {
    /// The name in the catalog and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::DeadLetter => "dead-letter",
        }
    }
}

/// Which version of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaVersion {
    /// The newest at any moment: a version that is registered counts at once, everywhere, without a rollout.
    Latest,
    /// That one.
    Number(u32),
}

impl SchemaRule {
    /// The field that cannot be so, and why.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        if self.subject.is_none() && self.by.is_none() {
            return Some(("schema", "it says no schema: name a subject, or by what events name theirs"));
        }
        match self.version {
            Some(SchemaVersion::Number(_)) if self.by.is_some() => {
                Some(("schema.version", "events name their version themselves: leave it out, or leave out `by`"))
            }
            Some(SchemaVersion::Number(0)) => Some(("schema.version", "versions begin with 1")),
            _ => None,
        }
    }

    /// The same with a version, where it has none: what `newest` says of the subject, if it says something. Where events
    /// name theirs it is the newest at any moment.
    pub(super) fn settled_by(mut self, newest: impl Fn(&SubjectName) -> Option<u32>) -> Self {
        self.version = self.version.or_else(|| match (&self.subject, self.by) {
            (Some(subject), None) => newest(subject).map(SchemaVersion::Number),
            _ => Some(SchemaVersion::Latest),
        });
        self
    }
}

impl FromStr for SchemaVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "latest" => Ok(Self::Latest),
            _ => text.parse().map(Self::Number).map_err(|_| format!("`{text}` is neither `latest` nor a number")),
        }
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Latest => serializer.serialize_str("latest"),
            Self::Number(number) => serializer.serialize_u32(*number),
        }
    }
}

impl<'de> Deserialize<'de> for SchemaVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Version;
        impl Visitor<'_> for Version {
            type Value = SchemaVersion;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`latest` or the number of a version")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SchemaVersion, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<SchemaVersion, E> {
                u32::try_from(number).map(SchemaVersion::Number).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Version)
    }
}
