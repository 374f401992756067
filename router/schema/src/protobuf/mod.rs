//! Protobuf: files are compiled by `protox`, without a compiler beside; payloads and compatibility are judged here.
//!
//! As with Avro, a payload is walked over and nothing of it is kept. A field that the schema does not know is no fault:
//! that is how Protobuf's schemas grow.

mod canonical;
mod compare;
mod file;
mod walk;

pub(crate) use canonical::canonical;
pub(crate) use compare::unreadable;

use crate::error::{Fault, SchemaError};
use crate::format::Source;
use crate::limits::PROTOBUF_INDEXES_MAX;
use walk::Table;

/// A compiled file of Protobuf.
#[derive(Debug)]
pub(crate) struct Validator(Table);

impl Validator {
    pub(crate) fn compile(source: &Source<'_>) -> Result<Self, SchemaError> {
        let table = Table::of(&file::compile(source)?)?;
        if table.find(&[0]).is_none() {
            return Err(SchemaError::malformed("Protobuf", "the file has no message, so that it describes no payload"));
        }
        Ok(Self(table))
    }

    pub(crate) fn validate(&self, indexes: &[u32], payload: &[u8]) -> Result<(), Fault> {
        let found = if indexes.len() > PROTOBUF_INDEXES_MAX { None } else { self.0.find(indexes) };
        match found {
            Some(message) => walk::judge(&self.0, message, payload),
            None => Err(Fault::whole("names a message that the schema does not have")),
        }
    }
}

#[cfg(test)]
mod tests;
