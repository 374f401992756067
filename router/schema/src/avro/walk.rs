//! Judges a payload in Avro's binary encoding by walking over it.

use super::schema::{Node, Number, Table};
use crate::bytes::{Step, bad, below, take, varint};
use crate::error::Fault;
use crate::limits::{AVRO_DEPTH_MAX, AVRO_VALUE_NS, AVRO_VALUES_MAX};

/// Whether the payload is one value of the schema, and nothing more.
pub(super) fn judge(table: &Table, payload: &[u8], work_ns: &mut u64) -> Result<(), Fault> {
    let mut walk = Walk { table, rest: payload, values: 0, depth: 0 };
    let judged = walk.value(table.root());
    *work_ns += AVRO_VALUE_NS * walk.values;
    judged.map_err(|bad| Fault::new(bad.path, bad.text))?;
    match walk.rest.len() {
        0 => Ok(()),
        more => Err(Fault::whole(format!("has {more} bytes after its value"))),
    }
}

struct Walk<'a> {
    table: &'a Table,
    rest: &'a [u8],
    values: u64,
    depth: usize,
}

impl<'a> Walk<'a> {
    fn value(&mut self, number: Number) -> Step {
        self.values += 1;
        if self.values > AVRO_VALUES_MAX {
            return bad("has more values than are judged");
        }
        if self.depth >= AVRO_DEPTH_MAX {
            return bad("is nested too deeply");
        }
        self.depth += 1;
        self.inner(number)?;
        self.depth -= 1;
        Ok(())
    }

    fn inner(&mut self, number: Number) -> Step {
        let table = self.table;
        match table.node(number) {
            Node::Null => Ok(()),
            Node::Boolean => match self.take(1)? {
                [0 | 1] => Ok(()),
                _ => bad("is no boolean: its byte is neither 0 nor 1"),
            },
            Node::Int => match i32::try_from(self.long()?) {
                Ok(_) => Ok(()),
                Err(_) => bad("is no int: it has more than 32 bits"),
            },
            Node::Long => self.long().map(drop),
            Node::Float => self.take(4).map(drop),
            Node::Double => self.take(8).map(drop),
            Node::Bytes => self.counted().map(drop),
            Node::String => self.text().map(drop),
            Node::Fixed { size, .. } => self.take(*size).map(drop),
            Node::Enum { symbols, .. } => match usize::try_from(self.long()?) {
                Ok(index) if index < symbols.len() => Ok(()),
                _ => bad("is no symbol of the enum"),
            },
            Node::Union(branches) => match usize::try_from(self.long()?).ok().and_then(|index| branches.get(index)) {
                Some(branch) => self.value(*branch),
                None => bad("is of no branch of the union"),
            },
            Node::Record { fields, .. } => {
                fields.iter().try_for_each(|field| self.value(field.node).map_err(|bad| below(bad, &field.name)))
            }
            Node::Array(items) => {
                self.blocks(|walk, index| walk.value(*items).map_err(|bad| below(bad, &index.to_string())))
            }
            Node::Map(values) => self.blocks(|walk, _| {
                let key = walk.text()?;
                walk.value(*values).map_err(|bad| below(bad, key))
            }),
        }
    }

    /// The blocks of an array or a map, each with its count; one that is negative is followed by the block's size.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self, u64) -> Step) -> Step {
        let mut index = 0;
        loop {
            let count = self.long()?;
            let mut end = None;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                let size = usize::try_from(self.long()?).ok().filter(|size| *size <= self.rest.len());
                let Some(size) = size else { return bad("has a block that says to be longer than the payload") };
                end = Some(self.rest.len() - size);
            }
            // However many are claimed: each counts as a value, and values are bounded.
            for _ in 0..count.unsigned_abs() {
                item(self, index)?;
                index += 1;
            }
            if end.is_some_and(|end| end != self.rest.len()) {
                return bad("has a block that is not as long as it says");
            }
        }
    }

    fn text(&mut self) -> Step<&'a str> {
        match std::str::from_utf8(self.counted()?) {
            Ok(text) => Ok(text),
            Err(_) => bad("is no string: it is not UTF-8"),
        }
    }

    fn counted(&mut self) -> Step<&'a [u8]> {
        match usize::try_from(self.long()?) {
            Ok(length) => self.take(length),
            Err(_) => bad("has a negative length"),
        }
    }

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        take(&mut self.rest, length)
    }

    /// A number in zigzag, seven bits in each byte.
    fn long(&mut self) -> Step<i64> {
        let bits = varint(&mut self.rest)?;
        Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed())
    }
}
