//! Avro: texts are read by `apache-avro`; the schema as a table, payloads and compatibility are judged here.
//!
//! The library's decoder builds a tree of values for each payload, and believes the lengths that it claims. To judge a
//! payload neither is needed: [`Validator`] walks over the bytes and keeps nothing.

mod canonical;
mod compare;
mod schema;
mod walk;

pub(crate) use canonical::canonical;
pub(crate) use compare::unreadable;

use crate::error::{Fault, SchemaError};
use crate::format::Source;
use schema::Table;

/// A compiled Avro schema.
#[derive(Debug)]
pub(crate) struct Validator(Table);

impl Validator {
    pub(crate) fn compile(source: &Source<'_>) -> Result<Self, SchemaError> {
        Table::read(source).map(Self)
    }

    /// Judges a payload; `work_ns` grows by what its values take at most, besides its bytes.
    pub(crate) fn validate(&self, payload: &[u8], work_ns: &mut u64) -> Result<(), Fault> {
        walk::judge(&self.0, payload, work_ns)
    }
}

#[cfg(test)]
mod tests;
