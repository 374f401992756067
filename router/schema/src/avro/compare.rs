//! Whether a reader's schema resolves what a writer's wrote, by the rules of Avro's specification.

use super::schema::{Field, Names, Node, Number, Table};
use crate::error::SchemaError;
use crate::format::Source;
use crate::limits::{AVRO_DEPTH_MAX, COMPARED_PAIRS_MAX, FAULT_TEXT_MAX, INCOMPATIBILITIES_MAX};
use std::collections::HashMap;

/// Why the reader cannot read what the writer wrote; empty where it can.
pub(crate) fn unreadable(reader: &Source<'_>, writer: &Source<'_>) -> Result<Vec<String>, SchemaError> {
    let (reader, writer) = (Table::read(reader)?, Table::read(writer)?);
    let (new, old) = (reader.root(), writer.root());
    let mut resolution = Resolution { reader, writer, found: Vec::new(), path: Vec::new(), known: HashMap::new() };
    resolution.pair(new, old)?;
    Ok(resolution.found)
}

struct Resolution {
    reader: Table,
    writer: Table,
    found: Vec<String>,
    path: Vec<String>,
    /// Pairs that were looked at, and what came out; `None` for those that are being looked at, which count as readable.
    known: HashMap<(Number, Number), Option<bool>>,
}

type Outcome = Result<bool, SchemaError>;

impl Resolution {
    fn pair(&mut self, reader: Number, writer: Number) -> Outcome {
        match self.known.get(&(reader, writer)) {
            Some(None | Some(true)) => return Ok(true),
            Some(Some(false)) => return Ok(self.fault("cannot be read, as said where the type is first met")),
            None => {}
        }
        if self.known.len() >= COMPARED_PAIRS_MAX || self.path.len() >= AVRO_DEPTH_MAX {
            return Err(SchemaError::too_complex("the comparison meets more pairs of types", COMPARED_PAIRS_MAX));
        }
        self.known.insert((reader, writer), None);
        let readable = self.resolve(reader, writer)?;
        self.known.insert((reader, writer), Some(readable));
        Ok(readable)
    }

    fn resolve(&mut self, new: Number, old: Number) -> Outcome {
        enum Next {
            Done(Result<(), String>),
            Inside(&'static str, Number, Number),
            Branches(Vec<Number>),
            Choose(Vec<Number>),
            Record,
        }
        let next = match (self.reader.node(new), self.writer.node(old)) {
            (_, Node::Union(branches)) => Next::Branches(branches.clone()),
            (Node::Union(branches), _) => Next::Choose(branches.clone()),
            (Node::Array(new), Node::Array(old)) => Next::Inside("[]", *new, *old),
            (Node::Map(new), Node::Map(old)) => Next::Inside("{}", *new, *old),
            (Node::Record { names, .. }, Node::Record { names: old, .. }) => match named_alike(names, old) {
                Ok(()) => Next::Record,
                refused => Next::Done(refused),
            },
            (Node::Enum { names, symbols, default }, Node::Enum { names: old, symbols: written, .. }) => {
                Next::Done(named_alike(names, old).and_then(|()| symbols_known(symbols, default.is_some(), written)))
            }
            (Node::Fixed { names, size }, Node::Fixed { names: old, size: written }) => {
                let same_size = if size == written {
                    Ok(())
                } else {
                    Err(format!("fixed {} has {size} bytes, and was written with {written}", names.full))
                };
                Next::Done(named_alike(names, old).and(same_size))
            }
            (new, old) if promoted(new, old) => Next::Done(Ok(())),
            (new, old) => {
                Next::Done(Err(format!("{} was written, which is not read as {}", old.describe(), new.describe())))
            }
        };
        match next {
            Next::Done(Ok(())) => Ok(true),
            Next::Done(Err(reason)) => Ok(self.fault(&reason)),
            Next::Inside(step, new, old) => self.at(step, new, old),
            Next::Branches(branches) => {
                let mut readable = true;
                for branch in branches {
                    readable &= self.pair(new, branch)?;
                }
                Ok(readable)
            }
            Next::Choose(branches) => self.choose(&branches, old),
            Next::Record => self.record(new, old),
        }
    }

    /// The reader's union needs one branch that reads what was written.
    fn choose(&mut self, branches: &[Number], old: Number) -> Outcome {
        let before = self.found.len();
        for &branch in branches {
            if self.pair(branch, old)? {
                self.found.truncate(before);
                return Ok(true);
            }
        }
        let reasons = self.found.split_off(before);
        let description = self.writer.node(old).describe();
        self.fault(&format!("no branch of the union reads {description}"));
        // The branch of the same kind says more than that there is none.
        let kind = description.split(' ').next().unwrap_or_default();
        let deeper = |reason: &String| !reason.contains("which is not read as") && !kind.is_empty();
        self.found.extend(reasons.into_iter().filter(deeper));
        self.found.truncate(INCOMPATIBILITIES_MAX);
        Ok(false)
    }

    fn record(&mut self, new: Number, old: Number) -> Outcome {
        let (Node::Record { fields: new, .. }, Node::Record { fields: old, .. }) =
            (self.reader.node(new), self.writer.node(old))
        else {
            return Ok(true);
        };
        let mut pairs = Vec::with_capacity(new.len());
        let mut missing = Vec::new();
        for field in new {
            match written(field, old) {
                Some(written) => pairs.push((field.name.clone(), field.node, written.node)),
                None if field.has_default => {}
                None => missing.push(field.name.clone()),
            }
        }
        let mut readable = true;
        for name in missing {
            readable = self.fault(&format!("the field `{name}` was not written, and has no default"));
        }
        for (name, new, old) in pairs {
            readable &= self.at(&name, new, old)?;
        }
        Ok(readable)
    }

    fn at(&mut self, step: &str, new: Number, old: Number) -> Outcome {
        self.path.push(step.to_owned());
        let outcome = self.pair(new, old);
        self.path.pop();
        outcome
    }

    /// Writes a reason down. False, to be returned.
    fn fault(&mut self, reason: &str) -> bool {
        if self.found.len() < INCOMPATIBILITIES_MAX {
            let place = crate::error::shortened(self.path.join("."), FAULT_TEXT_MAX);
            let reason = crate::error::shortened(reason.to_owned(), FAULT_TEXT_MAX);
            self.found.push(if place.is_empty() { reason } else { format!("at `{place}`: {reason}") });
        }
        false
    }
}

/// The written field that a reader's field gets its value from: of the same name, or of one of its aliases.
fn written<'a>(field: &Field, old: &'a [Field]) -> Option<&'a Field> {
    let named = |name: &String| old.iter().find(|old| old.name == *name);
    named(&field.name).or_else(|| field.aliases.iter().find_map(named))
}

/// Named types match by their names without the namespaces, or by an alias of the reader's.
fn named_alike(new: &Names, old: &Names) -> Result<(), String> {
    if new.short == old.short || new.aliases.contains(&old.full) {
        return Ok(());
    }
    Err(format!("{} was written, and is called {} now, without an alias", old.full, new.full))
}

fn symbols_known(symbols: &[String], has_default: bool, written: &[String]) -> Result<(), String> {
    let gone: Vec<&str> = written.iter().filter(|symbol| !symbols.contains(symbol)).map(String::as_str).collect();
    if gone.is_empty() || has_default {
        return Ok(());
    }
    Err(format!("the enum has no symbol {} any more, and no default", gone.join(", ")))
}

fn promoted(new: &Node, old: &Node) -> bool {
    match old {
        Node::Null => matches!(new, Node::Null),
        Node::Boolean => matches!(new, Node::Boolean),
        Node::Int => matches!(new, Node::Int | Node::Long | Node::Float | Node::Double),
        Node::Long => matches!(new, Node::Long | Node::Float | Node::Double),
        Node::Float => matches!(new, Node::Float | Node::Double),
        Node::Double => matches!(new, Node::Double),
        Node::Bytes | Node::String => matches!(new, Node::Bytes | Node::String),
        _ => false,
    }
}
