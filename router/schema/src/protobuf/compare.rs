//! Whether a reader's file reads what a writer's wrote, by what the encoding says.
//!
//! Names of fields are not in the encoding, and may change. Numbers, the groups of types that are encoded alike, labels and
//! the members of a `oneof` are, or decide what a reader makes of it. A message that is gone or has another name cannot be
//! found by readers that ask for it by its name.

use super::file::compile;
use crate::error::SchemaError;
use crate::format::Source;
use crate::limits::INCOMPATIBILITIES_MAX;
use prost_reflect::{Cardinality, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, OneofDescriptor};
use std::collections::{HashMap, HashSet};

/// Why the reader cannot read what the writer wrote; empty where it can.
pub(crate) fn unreadable(reader: &Source<'_>, writer: &Source<'_>) -> Result<Vec<String>, SchemaError> {
    let (reader, writer) = (compile(reader)?, compile(writer)?);
    let mut comparison = Comparison { found: Vec::new(), compared: HashSet::new(), open: Vec::new() };
    let new = messages(&reader);
    for (name, old) in messages(&writer) {
        match new.iter().find(|(known, _)| *known == name) {
            Some((_, new)) => comparison.open.push((new.clone(), old)),
            None => comparison.fault(format!("the message {name} is gone, or has another name")),
        }
    }
    while let Some((new, old)) = comparison.open.pop() {
        if comparison.compared.insert((new.full_name().to_owned(), old.full_name().to_owned())) {
            comparison.message(&new, &old);
        }
    }
    comparison.found.sort();
    comparison.found.truncate(INCOMPATIBILITIES_MAX);
    Ok(comparison.found)
}

/// All messages of a file by their names, without the package, which is not in the encoding.
fn messages(file: &FileDescriptor) -> Vec<(String, MessageDescriptor)> {
    let mut found = Vec::new();
    let mut open: Vec<MessageDescriptor> = file.messages().collect();
    while let Some(message) = open.pop() {
        open.extend(message.child_messages());
        if !message.is_map_entry() {
            found.push((relative(&message), message));
        }
    }
    found
}

fn relative(message: &MessageDescriptor) -> String {
    let name = message.full_name();
    let package = message.package_name();
    name.strip_prefix(package).and_then(|name| name.strip_prefix('.')).unwrap_or(name).to_owned()
}

struct Comparison {
    found: Vec<String>,
    /// By both full names.
    compared: HashSet<(String, String)>,
    open: Vec<(MessageDescriptor, MessageDescriptor)>,
}

impl Comparison {
    /// Writes a reason down. Twice as many as are told are kept, because they are sorted at the end.
    fn fault(&mut self, reason: String) {
        if self.found.len() < 2 * INCOMPATIBILITIES_MAX {
            self.found.push(crate::error::shortened(reason, 2 * crate::limits::FAULT_TEXT_MAX));
        }
    }

    fn message(&mut self, new: &MessageDescriptor, old: &MessageDescriptor) {
        let name = relative(old);
        for field in new.fields() {
            match old.get_field(field.number()) {
                Some(written) => self.field(&name, &field, &written),
                None => self.added(&name, &field, old),
            }
        }
        for written in old.fields() {
            let gone = new.get_field(written.number()).is_none();
            if gone && real_oneof(&written).is_some() {
                self.fault(format!(
                    "{name}: the field {} of a oneof is gone: its readers see none set",
                    label(&written)
                ));
            }
        }
        self.oneofs(&name, new, old);
    }

    fn added(&mut self, name: &str, field: &FieldDescriptor, old: &MessageDescriptor) {
        let described = label(field);
        if field.cardinality() == Cardinality::Required {
            self.fault(format!("{name}: the required field {described} was not written"));
        }
        if old.reserved_ranges().any(|range| range.contains(&field.number())) {
            self.fault(format!("{name}: the field {described} has a number that was reserved"));
        }
        if old.reserved_names().any(|reserved| reserved == field.name()) {
            self.fault(format!("{name}: the field {described} has a name that was reserved"));
        }
    }

    fn field(&mut self, name: &str, new: &FieldDescriptor, old: &FieldDescriptor) {
        let described = label(old);
        let (group, written) = (Group::of(new), Group::of(old));
        if group != written {
            self.fault(format!("{name}: the field {described} was {written}, and is read as {group}"));
            return;
        }
        let repeated = |field: &FieldDescriptor| field.cardinality() == Cardinality::Repeated;
        if repeated(new) != repeated(old) && group != Group::Text {
            self.fault(format!("{name}: the field {described} became repeated, or is not any more"));
        }
        let required = |field: &FieldDescriptor| field.cardinality() == Cardinality::Required;
        if required(new) && !required(old) {
            self.fault(format!("{name}: the field {described} is required now"));
        }
        if let (Kind::Message(new), Kind::Message(old)) = (new.kind(), old.kind()) {
            if relative(&new) != relative(&old) && !new.is_map_entry() {
                self.fault(format!(
                    "{name}: the field {described} was a {}, and is read as a {}",
                    relative(&old),
                    relative(&new)
                ));
            } else {
                self.open.push((new, old));
            }
        }
    }

    /// A field alone may go into a oneof of its own; fields that could be set together cannot share one.
    fn oneofs(&mut self, name: &str, new: &MessageDescriptor, old: &MessageDescriptor) {
        for oneof in new.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            let mut from: HashMap<Option<String>, Vec<String>> = HashMap::new();
            for field in oneof.fields() {
                if let Some(written) = old.get_field(field.number()) {
                    let before = real_oneof(&written).map(|oneof| oneof.name().to_owned());
                    from.entry(before).or_default().push(label(&written));
                }
            }
            let alone = from.get(&None).map_or(0, Vec::len);
            let groups = from.len() - usize::from(alone > 0);
            if alone + groups > 1 {
                let mut moved: Vec<String> = from.into_values().flatten().collect();
                moved.sort();
                self.fault(format!(
                    "{name}: fields that could be set together are in the oneof {} now: {}",
                    oneof.name(),
                    moved.join(", ")
                ));
            }
        }
    }
}

/// The oneof that people wrote; `optional` makes one of its own.
fn real_oneof(field: &FieldDescriptor) -> Option<OneofDescriptor> {
    field.containing_oneof().filter(|oneof| !oneof.is_synthetic())
}

fn label(field: &FieldDescriptor) -> String {
    format!("{} = {}", field.name(), field.number())
}

/// Types that are encoded alike.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Integer,
    Zigzag,
    Fixed32,
    Fixed64,
    Float,
    Double,
    Text,
    Message,
    Delimited,
}

impl Group {
    fn of(field: &FieldDescriptor) -> Self {
        match field.kind() {
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Bool | Kind::Enum(_) => Self::Integer,
            Kind::Sint32 | Kind::Sint64 => Self::Zigzag,
            Kind::Fixed32 | Kind::Sfixed32 => Self::Fixed32,
            Kind::Fixed64 | Kind::Sfixed64 => Self::Fixed64,
            Kind::Float => Self::Float,
            Kind::Double => Self::Double,
            Kind::String | Kind::Bytes => Self::Text,
            Kind::Message(_) if field.is_group() => Self::Delimited,
            Kind::Message(_) => Self::Message,
        }
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Integer => "an integer, bool or enum",
            Self::Zigzag => "a sint",
            Self::Fixed32 => "a fixed of 32 bits",
            Self::Fixed64 => "a fixed of 64 bits",
            Self::Float => "a float",
            Self::Double => "a double",
            Self::Text => "a string or bytes",
            Self::Message => "a message",
            Self::Delimited => "a group",
        })
    }
}
