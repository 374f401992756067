//! Schemas of payloads: JSON Schema, Avro and Protobuf, checked, compared and compiled.
//!
//! Everything here is a pure function of texts: nothing is read from a disk, nothing is fetched, no clock is asked. What a
//! schema refers to is handed in with it. All work is bounded by [`limits`], because schemas are uploaded by people and
//! payloads come from strangers; what goes beyond is an error or a fault, never a panic.
//!
//! * [`check`] says whether a text is a schema, [`canonical`] which texts are the same schema;
//! * [`Validator`] judges payloads, and is made once for each schema;
//! * [`incompatibilities`] says what of older schemas a newer one breaks.
#![forbid(unsafe_code)]

mod avro;
mod bytes;
mod compatibility;
mod descriptor;
mod error;
mod format;
mod json;
pub mod limits;
mod protobuf;
mod repeated;
mod validator;

pub use compatibility::{Compatibility, incompatibilities};
pub use descriptor::{from_serialized, serialized};
pub use error::{Fault, SchemaError};
pub use format::{Format, ReferenceText, Source};
pub use validator::Validator;

/// Whether the text is a schema that payloads can be judged by, within the limits, and that all readers understand alike:
/// none of its objects has a name twice. A registry that asked for less before has texts that only [`Validator::compile`]
/// takes.
///
/// # Errors
///
/// What is wrong with it, and where.
pub fn check(source: &Source<'_>) -> Result<(), SchemaError> {
    Validator::compile(source)?;
    let is_json = matches!(source.format, Format::Json | Format::Avro);
    // What compiles and is no JSON text has no objects.
    match repeated::first(source.text.as_bytes()) {
        Ok(Some(repeated)) if is_json => Err(SchemaError::ambiguous(source.format, &repeated)),
        _ => Ok(()),
    }
}

/// The text that is the same for all texts of one schema, as a registry wants it.
///
/// Avro: the canonical form, with defaults and aliases, without documentation. JSON: compact, with sorted keys. Protobuf:
/// normalised text, without comments.
///
/// # Errors
///
/// What is wrong with the schema, and where.
pub fn canonical(source: &Source<'_>) -> Result<String, SchemaError> {
    source.check_size()?;
    match source.format {
        Format::Json => json::canonical(source),
        Format::Avro => avro::canonical(source),
        Format::Protobuf => protobuf::canonical(source),
    }
}
