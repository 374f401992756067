//! The words of the registry: names of subjects, formats, levels of compatibility, modes.
//!
//! They are spelled as in the REST API that clients of other registries speak.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::cut;
use crate::limits::SUBJECT_LEN_MAX_BYTES;
use crate::schemas::SchemaRefusal;

/// What a subject must not be called: clients name the whole registry so.
const RESERVED: [&str; 2] = ["__GLOBAL", "__EMPTY"];

/// Under which name the versions of a schema are kept: any text without control characters, as clients choose it;
/// cloning it copies no text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectName(Arc<str>);

impl SubjectName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SubjectName {
    type Err = SchemaRefusal;

    fn from_str(text: &str) -> Result<Self, SchemaRefusal> {
        let refuse = |why: String| Err(SchemaRefusal::InvalidSubject { text: cut(text), why });
        if text.is_empty() || text.len() > SUBJECT_LEN_MAX_BYTES {
            return refuse(format!("it has {} bytes; 1 to {SUBJECT_LEN_MAX_BYTES} are right", text.len()));
        }
        if text.chars().any(char::is_control) {
            return refuse("it holds a control character; remove it".to_owned());
        }
        if RESERVED.contains(&text) {
            return refuse("that name means all subjects; choose another".to_owned());
        }
        if text.starts_with(":.") {
            return refuse("contexts are not kept; leave out what stands between the colons".to_owned());
        }
        Ok(Self(text.into()))
    }
}

impl std::borrow::Borrow<str> for SubjectName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

impl Serialize for SubjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SubjectName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A closed set of words, each spelled as clients spell it.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$item_doc:meta])* $item:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$item_doc])* #[serde(rename = $text)] $item,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$item),+];

            /// How it is spelled.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$item => $text,)+
                }
            }
        }

        impl FromStr for $name {
            type Err = SchemaRefusal;

            fn from_str(text: &str) -> Result<Self, SchemaRefusal> {
                let known = Self::ALL.iter().find(|known| known.as_str().eq_ignore_ascii_case(text));
                known.copied().ok_or_else(|| SchemaRefusal::UnknownWord {
                    what: $what,
                    text: cut(text),
                    known: Self::ALL.iter().map(|known| known.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// In which language a schema is written.
    SchemaFormat, "format of schemas" {
        /// JSON Schema.
        Json = "JSON",
        /// Apache Avro.
        Avro = "AVRO",
        /// Protocol Buffers.
        Protobuf = "PROTOBUF",
    }
}

words! {
    /// What a new version of a subject must be compatible with.
    CompatibilityLevel, "level of compatibility" {
        /// Nothing.
        None = "NONE",
        /// Who has it reads what was written with the version before.
        Backward = "BACKWARD",
        /// The same, with all versions before.
        BackwardTransitive = "BACKWARD_TRANSITIVE",
        /// Who has the version before reads what is written with it.
        Forward = "FORWARD",
        /// The same, with all versions before.
        ForwardTransitive = "FORWARD_TRANSITIVE",
        /// Both ways, with the version before.
        Full = "FULL",
        /// Both ways, with all versions before.
        FullTransitive = "FULL_TRANSITIVE",
    }
}

words! {
    /// What may be changed.
    RegistryMode, "mode of the registry" {
        /// Schemas are registered and deleted.
        ReadWrite = "READWRITE",
        /// Nothing.
        ReadOnly = "READONLY",
        /// Nothing, whatever subjects say of themselves; for the whole registry only.
        ReadOnlyOverride = "READONLY_OVERRIDE",
        /// Schemas are taken over with the ids and versions that they have elsewhere, and are not compared.
        Import = "IMPORT",
    }
}
