//! Judges a payload in Protobuf's encoding by walking over it.

use crate::bytes::{Step, bad, below, take, varint};
use crate::error::{Fault, SchemaError};
use crate::limits::{PAYLOAD_DEPTH_MAX, PROTOBUF_NODES_MAX};
use prost_reflect::{Cardinality, FileDescriptor, Kind, MessageDescriptor};
use std::collections::HashMap;

/// A message by its number.
type Number = usize;

/// The messages of a file and all that they contain.
#[derive(Debug)]
pub(super) struct Table {
    messages: Vec<Message>,
    /// The file's own messages, by their indexes.
    places: HashMap<Vec<u32>, Number>,
}

#[derive(Debug)]
struct Message {
    /// By their numbers.
    fields: Vec<Field>,
    /// How many of them must be there.
    required: usize,
}

#[derive(Debug)]
struct Field {
    number: u32,
    name: String,
    content: Content,
    repeated: bool,
    /// Its place among the required fields.
    required: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Varint,
    Fixed32,
    Fixed64,
    Bytes,
    Text,
    Message(Number),
    Group(Number),
}

impl Table {
    pub(super) fn of(file: &FileDescriptor) -> Result<Self, SchemaError> {
        let mut builder = Builder { known: HashMap::new(), open: Vec::new() };
        let mut places = HashMap::new();
        let mut nested: Vec<(Vec<u32>, MessageDescriptor)> = Vec::new();
        nested.extend((0..).zip(file.messages()).map(|(index, message)| (vec![index], message)));
        while let Some((place, message)) = nested.pop() {
            nested.extend((0..).zip(message.child_messages()).map(|(index, child)| {
                let inner: Vec<u32> = place.iter().copied().chain([index]).collect();
                (inner, child)
            }));
            places.insert(place, builder.number(&message));
        }
        let mut messages = Vec::new();
        while messages.len() < builder.open.len() {
            if messages.len() > PROTOBUF_NODES_MAX {
                return Err(SchemaError::too_complex("the schema has more messages", PROTOBUF_NODES_MAX));
            }
            let descriptor = builder.open[messages.len()].clone();
            messages.push(builder.message(&descriptor));
        }
        Ok(Self { messages, places })
    }

    pub(super) fn find(&self, indexes: &[u32]) -> Option<Number> {
        self.places.get(indexes).copied()
    }
}

struct Builder {
    known: HashMap<String, Number>,
    open: Vec<MessageDescriptor>,
}

impl Builder {
    fn number(&mut self, message: &MessageDescriptor) -> Number {
        let next = self.open.len();
        let number = *self.known.entry(message.full_name().to_owned()).or_insert(next);
        if number == next {
            self.open.push(message.clone());
        }
        number
    }

    fn message(&mut self, descriptor: &MessageDescriptor) -> Message {
        let mut required = 0;
        let mut fields: Vec<Field> = Vec::with_capacity(descriptor.fields().len());
        for field in descriptor.fields() {
            let content = match field.kind() {
                Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Content::Fixed64,
                Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Content::Fixed32,
                Kind::String => Content::Text,
                Kind::Bytes => Content::Bytes,
                Kind::Message(message) if field.is_group() => Content::Group(self.number(&message)),
                Kind::Message(message) => Content::Message(self.number(&message)),
                _ => Content::Varint,
            };
            let place = (field.cardinality() == Cardinality::Required).then_some(required);
            required += usize::from(place.is_some());
            fields.push(Field {
                number: field.number(),
                name: field.name().to_owned(),
                content,
                repeated: field.cardinality() == Cardinality::Repeated,
                required: place,
            });
        }
        fields.sort_by_key(|field| field.number);
        Message { fields, required }
    }
}

/// Whether the payload is such a message.
pub(super) fn judge(table: &Table, message: Number, payload: &[u8]) -> Result<(), Fault> {
    let mut walk = Walk { table, rest: payload };
    walk.message(message, None, 0).map_err(|bad| Fault::new(bad.path, bad.text))
}

struct Walk<'a> {
    table: &'a Table,
    rest: &'a [u8],
}

/// What a key says: the field's number, and how its value is written.
#[derive(Clone, Copy)]
struct Key {
    number: u32,
    wire: Wire,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Varint,
    Fixed64,
    Length,
    Start,
    End,
    Fixed32,
}

impl<'a> Walk<'a> {
    /// All fields up to the end, or up to the end of the group of that number.
    fn message(&mut self, number: Number, group: Option<u32>, depth: usize) -> Step {
        if depth > PAYLOAD_DEPTH_MAX {
            return bad("is nested too deeply");
        }
        let message = &self.table.messages[number];
        let mut present = Present::default();
        loop {
            if self.rest.is_empty() && group.is_none() {
                break;
            }
            let key = self.key()?;
            if key.wire == Wire::End {
                match group {
                    Some(number) if number == key.number => break,
                    _ => return bad("has the end of a group that did not begin"),
                }
            }
            match message.fields.binary_search_by_key(&key.number, |field| field.number) {
                Ok(index) => {
                    let field = &message.fields[index];
                    if let Some(place) = field.required {
                        present.add(place);
                    }
                    self.field(field, key, depth).map_err(|bad| below(bad, &field.name))?;
                }
                Err(_) => self.skip(key, depth)?,
            }
        }
        if present.count < message.required {
            let missing = message.fields.iter().find(|field| field.required.is_some_and(|place| !present.has(place)));
            let name = missing.map(|field| field.name.as_str()).unwrap_or_default();
            return bad(&format!("lacks the required field {name}"));
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, key: Key, depth: usize) -> Step {
        match (field.content, key.wire) {
            (Content::Varint, Wire::Varint) => self.varint().map(drop),
            (Content::Fixed32, Wire::Fixed32) => self.take(4).map(drop),
            (Content::Fixed64, Wire::Fixed64) => self.take(8).map(drop),
            (Content::Bytes, Wire::Length) => self.counted().map(drop),
            (Content::Text, Wire::Length) => match std::str::from_utf8(self.counted()?) {
                Ok(_) => Ok(()),
                Err(_) => bad("is no string: it is not UTF-8"),
            },
            (Content::Message(number), Wire::Length) => {
                let inside = self.counted()?;
                Walk { table: self.table, rest: inside }.message(number, None, depth + 1)
            }
            (Content::Group(number), Wire::Start) => self.message(number, Some(key.number), depth + 1),
            (content, Wire::Length) if field.repeated => self.packed(content),
            _ => bad("is not written as the schema says"),
        }
    }

    /// Numbers of a repeated field, one after the other.
    fn packed(&mut self, content: Content) -> Step {
        let inside = self.counted()?;
        let mut walk = Walk { table: self.table, rest: inside };
        while !walk.rest.is_empty() {
            match content {
                Content::Varint => walk.varint().map(drop)?,
                Content::Fixed32 => walk.take(4).map(drop)?,
                Content::Fixed64 => walk.take(8).map(drop)?,
                _ => return bad("is not written as the schema says"),
            }
        }
        Ok(())
    }

    /// A field that the schema does not know.
    fn skip(&mut self, key: Key, depth: usize) -> Step {
        if depth > PAYLOAD_DEPTH_MAX {
            return bad("is nested too deeply");
        }
        match key.wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed32 => self.take(4).map(drop),
            Wire::Fixed64 => self.take(8).map(drop),
            Wire::Length => self.counted().map(drop),
            Wire::End => bad("has the end of a group that did not begin"),
            Wire::Start => loop {
                let inner = self.key()?;
                if inner.wire != Wire::End {
                    self.skip(inner, depth + 1)?;
                } else if inner.number == key.number {
                    return Ok(());
                } else {
                    return bad("has the end of a group that did not begin");
                }
            },
        }
    }

    fn key(&mut self) -> Step<Key> {
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Length,
            3 => Wire::Start,
            4 => Wire::End,
            5 => Wire::Fixed32,
            _ => return bad("is no Protobuf: a field is written in no known way"),
        };
        match u32::try_from(key >> 3) {
            Ok(number) if (1..1 << 29).contains(&number) => Ok(Key { number, wire }),
            _ => bad("is no Protobuf: a field has a number that no field can have"),
        }
    }

    fn counted(&mut self) -> Step<&'a [u8]> {
        match usize::try_from(self.varint()?) {
            Ok(length) => self.take(length),
            Err(_) => bad("is cut off: the payload ends before its value does"),
        }
    }

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        take(&mut self.rest, length)
    }

    fn varint(&mut self) -> Step<u64> {
        varint(&mut self.rest)
    }
}

/// Which required fields were there. A message that comes in two pieces, which readers would join, counts in each.
#[derive(Default)]
struct Present {
    first: u64,
    /// Beyond the first 64, which hardly a message has.
    more: Vec<usize>,
    count: usize,
}

impl Present {
    fn add(&mut self, place: usize) {
        if self.has(place) {
            return;
        }
        self.count += 1;
        match place {
            0..64 => self.first |= 1 << place,
            _ => self.more.push(place),
        }
    }

    fn has(&self, place: usize) -> bool {
        match place {
            0..64 => self.first >> place & 1 == 1,
            _ => self.more.contains(&place),
        }
    }
}
