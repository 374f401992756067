//! The tape as a representation of JSON, for the library.

use super::{Part, Slot, Sorted, children, reasons, unique};
use crate::json::weight::{Kind, Weight};
use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object};
use jsonschema_value::LazyInstance;
use serde_json::{Number, Value};
use std::borrow::Cow;

/// The representation.
#[derive(Debug)]
pub(in crate::json) struct Payload;

/// A value: its piece of the tape, which is never empty.
#[derive(Clone, Copy, Debug)]
pub(in crate::json) struct At<'a>(&'a [Part<'a>]);

impl<'a> At<'a> {
    /// The value that a whole tape is.
    pub(super) fn all(parts: &'a [Part<'a>]) -> Self {
        Self(parts)
    }

    pub(super) fn slot(self) -> &'a Slot<'a> {
        &self.0[0].slot
    }

    /// Its name, where it is a member of an object.
    pub(super) fn name(self) -> &'a str {
        self.0[0].name
    }

    /// What stands at `at` of what is inside this.
    fn inside(self, at: usize) -> Self {
        let parts = &self.0[1 + at..];
        Self(&parts[..parts[0].parts as usize])
    }

    /// How many parts it is, with all that is inside it.
    pub(in crate::json) fn parts(self) -> usize {
        self.0.len()
    }

    /// How many values it is inside each other.
    pub(in crate::json) fn depth(self) -> usize {
        1 + self.children().map(Self::depth).max().unwrap_or_default()
    }

    /// What it takes by itself where a schema has that weight.
    pub(in crate::json) fn weighed(self, weight: &Weight) -> u64 {
        let (kind, members, bytes) = match self.slot() {
            Slot::Null | Slot::Bool(_) => (Kind::Other, 0, 0),
            Slot::Number(number) if number.is_i64() => (Kind::Integer, 0, 0),
            Slot::Number(_) => (Kind::Number, 0, 0),
            Slot::Text(text) => (Kind::Text, 0, text.len()),
            Slot::Array { .. } => (Kind::Array, 0, 0),
            Slot::Object { len, .. } => (Kind::Object, u64::from(*len), 0),
        };
        let bytes = (bytes + self.0[0].name.len()) as u64;
        let of_members = members.saturating_mul(weight[Kind::Member]);
        let of_bytes = bytes.saturating_mul(weight[Kind::Byte]);
        weight[kind].saturating_add(weight[Kind::Unique]).saturating_add(of_members).saturating_add(of_bytes)
    }

    /// The elements, or the values of the members.
    pub(in crate::json) fn children(self) -> impl Iterator<Item = Self> {
        children(&self.0[1..]).map(move |at| self.inside(at))
    }
}

impl Json for Payload {
    type Node<'a> = At<'a>;
    type PreparedKey = String;
    type StringBuffer = ();

    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>((): &mut (), text: &str, judge: impl FnOnce(At<'_>) -> T) -> T {
        judge(At(&[Part { name: "", parts: 1, slot: Slot::Text(text) }]))
    }
}

impl<'a> Node<'a, Payload> for At<'a> {
    type Object = Members<'a>;
    type Array = Elements<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<Members<'a>> {
        match self.slot() {
            Slot::Object { len, sorted } => Some(Members { of: *self, len: *len as usize, sorted: *sorted }),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<Elements<'a>> {
        if let Slot::Array { len } = self.slot() {
            Some(Elements { rest: &self.0[1..], len: *len as usize })
        } else {
            None
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        if let Slot::Text(text) = self.slot() { Some(Cow::Borrowed(text)) } else { None }
    }

    fn as_number(&self) -> Option<&'a Number> {
        if let Slot::Number(number) = self.slot() { Some(number) } else { None }
    }

    fn as_boolean(&self) -> Option<bool> {
        if let Slot::Bool(value) = self.slot() { Some(*value) } else { None }
    }

    fn is_null(&self) -> bool {
        matches!(self.slot(), Slot::Null)
    }

    fn json_type(&self) -> JsonType {
        match self.slot() {
            Slot::Null => JsonType::Null,
            Slot::Bool(_) => JsonType::Boolean,
            Slot::Number(_) => JsonType::Number,
            Slot::Text(_) => JsonType::String,
            Slot::Array { .. } => JsonType::Array,
            Slot::Object { .. } => JsonType::Object,
        }
    }

    fn string_length_within(&self, min: u64, max: u64) -> Option<bool> {
        let Slot::Text(text) = self.slot() else { return None };
        // A character takes one to four bytes: as a rule that says enough.
        let bytes = text.len() as u64;
        if bytes < min || bytes.div_ceil(4) > max {
            return Some(false);
        }
        let is_surely = bytes <= max && bytes.div_ceil(4) >= min;
        let length = || if text.is_ascii() { bytes } else { text.chars().count() as u64 };
        Some(is_surely || (min..=max).contains(&length()))
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (self.slot(), expected) {
            (Slot::Text(text), expected) => expected.as_str() == Some(*text),
            (Slot::Bool(value), expected) => expected.as_bool() == Some(*value),
            (Slot::Null, expected) => expected.is_null(),
            (Slot::Number(number), Value::Number(expected)) => equal_numbers(number, expected),
            // Without a copy: a schema may list many values to compare with.
            (Slot::Array { len }, Value::Array(expected)) => {
                let mut pairs = self.children().zip(expected);
                *len as usize == expected.len() && pairs.all(|(element, expected)| element.equals_value(expected))
            }
            (Slot::Object { len, .. }, Value::Object(expected)) => {
                let is_equal =
                    |value: Self| expected.get(value.0[0].name).is_some_and(|expected| value.equals_value(expected));
                *len as usize == expected.len() && self.children().all(is_equal)
            }
            _ => false,
        }
    }

    /// Nothing of the value: no reason shows it, and each of many errors would keep a copy.
    fn lazy_value(&self) -> LazyInstance<'a> {
        reasons::spend(if let Slot::Object { .. } = self.slot() { self.parts() } else { 0 });
        LazyInstance::Ready(Cow::Owned(Value::Null))
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self.slot() {
            Slot::Null => Value::Null,
            Slot::Bool(value) => (*value).into(),
            Slot::Number(number) => Value::Number(number.clone()),
            Slot::Text(text) => (*text).into(),
            Slot::Array { .. } => self.children().map(|element| element.to_value().into_owned()).collect(),
            Slot::Object { .. } => {
                let member = |value: At<'_>| (value.0[0].name.to_owned(), value.to_value().into_owned());
                Value::Object(self.children().map(member).collect())
            }
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(self.0.as_ptr().addr()))
    }
}

/// Numbers are equal where their values are, however they are written.
fn equal_numbers(number: &Number, expected: &Number) -> bool {
    if let (Some(number), Some(expected)) = (number.as_i64(), expected.as_i64()) {
        return number == expected;
    }
    match (whole(number), whole(expected)) {
        (Some(number), Some(expected)) => number == expected,
        (None, None) => number.as_f64() == expected.as_f64(),
        _ => false,
    }
}

/// A number as an integer, where it is one: exactly, and greater than any that is written as one.
pub(super) fn whole(number: &Number) -> Option<i128> {
    const BEYOND_INTEGERS: f64 = 1e38;
    let float = || number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < BEYOND_INTEGERS);
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and an `i128` holds it")]
    number.as_i128().or_else(|| float().map(|float| float as i128))
}

/// The members of an object.
#[derive(Clone, Copy, Debug)]
pub(in crate::json) struct Members<'a> {
    of: At<'a>,
    len: usize,
    sorted: Option<Sorted<'a>>,
}

impl<'a> Object<'a, Payload> for Members<'a> {
    type Node = At<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, name: &String) -> Option<At<'a>> {
        let members = &self.of.0[1..];
        let found = match self.sorted {
            Some(all) => all.binary_search_by(|&at| members[at].name.cmp(name)).ok().map(|found| all[found]),
            None => children(members).find(|&at| members[at].name == name),
        };
        found.map(|at| self.of.inside(at))
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter(Elements { rest: &self.of.0[1..], len: self.len })
    }
}

/// The members one after the other.
#[derive(Clone, Debug)]
pub(in crate::json) struct MembersIter<'a>(Elements<'a>);

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, At<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|value| (value.0[0].name, value))
    }
}

/// The elements of an array, one after the other.
#[derive(Clone, Debug)]
pub(in crate::json) struct Elements<'a> {
    rest: &'a [Part<'a>],
    len: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = At<'a>;

    fn next(&mut self) -> Option<At<'a>> {
        let (value, rest) = self.rest.split_at_checked(self.rest.first()?.parts as usize)?;
        self.rest = rest;
        Some(At(value))
    }
}

impl<'a> Array<'a, Payload> for Elements<'a> {
    type Node = At<'a>;
    type ElementsIter = Self;

    fn len(&self) -> usize {
        self.len
    }

    fn elements(&self) -> Self {
        self.clone()
    }

    fn is_unique(&self) -> bool {
        self.len < 2 || unique::are_unique(self.clone())
    }
}
