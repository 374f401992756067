//! The formats, and a schema's text with what it refers to.

use crate::error::SchemaError;
use crate::limits::{REFERENCES_MAX, SCHEMA_BYTES_MAX, TOTAL_BYTES_MAX};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a schema is written in; in texts as Confluent's registry says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Format {
    /// JSON Schema, drafts 4 to 2020-12.
    Json,
    /// Avro 1.12.
    Avro,
    /// Protobuf: the text of a `.proto` file.
    Protobuf,
}

impl Format {
    /// Its name in the registry's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        match text {
            "JSON" => Ok(Self::Json),
            "AVRO" => Ok(Self::Avro),
            "PROTOBUF" => Ok(Self::Protobuf),
            _ => Err(SchemaError::unknown_word("a format of schemas", text, "AVRO, JSON or PROTOBUF")),
        }
    }
}

/// A schema's text with what it refers to.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What it is written in.
    pub format: Format,
    /// The schema itself.
    pub text: &'a str,
    /// All that it refers to, directly or not, dependencies first.
    pub references: &'a [ReferenceText<'a>],
}

/// A schema that another refers to.
#[derive(Debug, Clone, Copy)]
pub struct ReferenceText<'a> {
    /// The name that the referring text uses: an import path, a `$ref`'s URI, an Avro full name.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

impl Source<'_> {
    /// Refuses what is too big before anything parses it.
    pub(crate) fn check_size(&self) -> Result<(), SchemaError> {
        if self.references.len() > REFERENCES_MAX {
            return Err(SchemaError::too_many_references(self.references.len()));
        }
        let sizes = self.references.iter().map(|reference| reference.text.len()).chain([self.text.len()]);
        let mut total = 0;
        for size in sizes {
            if size > SCHEMA_BYTES_MAX {
                return Err(SchemaError::too_big("the schema, or one that it refers to,", size, SCHEMA_BYTES_MAX));
            }
            total += size;
        }
        if total > TOTAL_BYTES_MAX {
            return Err(SchemaError::too_big("the schema with all that it refers to", total, TOTAL_BYTES_MAX));
        }
        Ok(())
    }
}
