//! A compiled schema, which judges payloads.

use crate::error::{Fault, SchemaError};
use crate::format::{Format, Source};
use crate::limits::READ_BYTE_NS;
use crate::{avro, json, protobuf};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A compiled schema. Made once, and shared by all that judge.
#[derive(Debug)]
pub struct Validator(Compiled);

#[derive(Debug)]
enum Compiled {
    Json(json::Validator),
    Avro(avro::Validator),
    Protobuf(protobuf::Validator),
}

impl Validator {
    /// Compiles a schema.
    ///
    /// # Errors
    ///
    /// What is wrong with the schema, and where.
    pub fn compile(source: &Source<'_>) -> Result<Self, SchemaError> {
        source.check_size()?;
        Ok(Self(match source.format {
            Format::Json => Compiled::Json(json::Validator::compile(source)?),
            Format::Avro => Compiled::Avro(avro::Validator::compile(source)?),
            Format::Protobuf => Compiled::Protobuf(protobuf::Validator::compile(source)?),
        }))
    }

    /// What the schema is written in.
    pub fn format(&self) -> Format {
        match self.0 {
            Compiled::Json(_) => Format::Json,
            Compiled::Avro(_) => Format::Avro,
            Compiled::Protobuf(_) => Format::Protobuf,
        }
    }

    /// Whether the payload is as the schema says. Of a Protobuf file its first message is meant.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn validate(&self, payload: &[u8]) -> Result<(), Fault> {
        self.validate_message(&[0], payload)
    }

    /// As [`validate`](Self::validate), with the message of a Protobuf file that Confluent's wire format names: the number
    /// of a top-level message, of one inside it, and so on. The other formats ignore it.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn validate_message(&self, indexes: &[u32], payload: &[u8]) -> Result<(), Fault> {
        self.judge(indexes, payload, &mut 0)
    }

    /// The same; `work_ns` grows by what that takes at most, in nanoseconds, so that whoever judges many payloads knows when
    /// to let others have their turn without looking at a clock.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn judge(&self, indexes: &[u32], payload: &[u8], work_ns: &mut u64) -> Result<(), Fault> {
        *work_ns += READ_BYTE_NS * payload.len() as u64;
        // Libraries judge what strangers have written: where one fails on a payload, that payload is turned back, and whoever
        // judges goes on. Compiled schemas are only read, and what was built on the way is dropped.
        let judged = catch_unwind(AssertUnwindSafe(|| match &self.0 {
            Compiled::Json(validator) => validator.validate(payload, work_ns),
            Compiled::Avro(validator) => validator.validate(payload, work_ns),
            Compiled::Protobuf(validator) => validator.validate(indexes, payload),
        }));
        judged.unwrap_or_else(|_panic| Err(failed()))
    }
}

#[cold]
fn failed() -> Fault {
    Fault::whole("cannot be judged: the library that judges by this schema has failed on it")
}
