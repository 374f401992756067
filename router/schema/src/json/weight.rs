//! How much work one schema makes of one value, in nanoseconds of a machine that is busy with other things too.
//!
//! The figures are rounded up from measurements with one schema of a kind, a hundred times, over a payload of a megabyte.
//! They need not be right: they tell a list of ten thousand numbers from one of three.

use crate::limits::REGEX_STEPS_MAX;
use serde_json::{Map, Value};
use std::array;
use std::ops::{Index, IndexMut};

/// To get to a schema, and to go on from it.
const SCHEMA_NS: u64 = 8;
/// A keyword that looks at the value itself.
const KEYWORD_NS: u64 = 5;
/// To compare a scalar with one of a list.
const COMPARE_NS: u64 = 5;
/// To look for a name, or a text, among many.
const LOOKUP_NS: u64 = 10;
/// To begin with a regular expression.
const REGEX_NS: u64 = 32;
/// Each byte of a text for each regular expression or format.
const SCAN_BYTE_NS: u64 = 8;
/// A step back of an expression that needs such steps; there are [`REGEX_STEPS_MAX`] for each text.
const BACKTRACK_NS: u64 = 20;
/// Whether a number is a multiple of another one: of fractions it is found out with all their digits.
const MULTIPLE_NS: u64 = 160;
/// To tell a part of an array from others.
const TELL_NS: u64 = 64;
/// Bytes of a text that are compared in about the time of a scalar.
const COMPARED_BYTES: usize = 16;
/// Texts in `enum` up to which the library looks at each; more are looked up.
const LISTED_TEXTS_MAX: usize = 10;

/// What pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `null`, `true`, or `false`.
    Other,
    /// A number that an `i64` holds.
    Integer,
    /// Any other number, also `2.0`.
    Number,
    Text,
    Array,
    Object,
    /// Each member of an object, besides its value.
    Member,
    /// Each byte of a text or a name.
    Byte,
    /// Each part of an array, whatever it is.
    Unique,
}

impl Kind {
    /// Values are of these.
    const VALUES: [Self; 6] = [Self::Other, Self::Integer, Self::Number, Self::Text, Self::Array, Self::Object];
    const COUNT: usize = Self::Unique as usize + 1;
}

/// What a schema takes for each kind of value, and more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight([u64; Kind::COUNT]);

impl Index<Kind> for Weight {
    type Output = u64;

    fn index(&self, kind: Kind) -> &u64 {
        &self.0[kind as usize]
    }
}

impl IndexMut<Kind> for Weight {
    fn index_mut(&mut self, kind: Kind) -> &mut u64 {
        &mut self.0[kind as usize]
    }
}

impl Weight {
    /// What any schema takes.
    pub(super) fn least() -> Self {
        let mut weight = Self::default();
        weight.add_to_all(SCHEMA_NS);
        weight
    }

    /// What the keywords of a schema take, without the schemas in them.
    pub(super) fn of(keywords: &Map<String, Value>) -> Self {
        let mut weight = Self::least();
        for (key, value) in keywords {
            weight.add_keyword(key, value);
        }
        weight
    }

    fn add_keyword(&mut self, key: &str, value: &Value) {
        let entries = value.as_object().map_or(0, Map::len) as u64;
        match key {
            "title" | "description" | "default" | "examples" | "deprecated" | "readOnly" | "writeOnly"
            | "definitions" => {}
            key if key.starts_with('$') => {}
            "enum" => self.add_list(value.as_array().map_or(&[], Vec::as_slice)),
            "const" => self.add_list(std::slice::from_ref(value)),
            "properties" => self[Kind::Object] += entries * LOOKUP_NS,
            "required" => self[Kind::Object] += size(value) * LOOKUP_NS,
            "dependentRequired" | "dependencies" => {
                let named = value.as_object().into_iter().flat_map(Map::values).filter_map(Value::as_array);
                self[Kind::Object] += (entries + named.map(|names| names.len() as u64).sum::<u64>()) * LOOKUP_NS;
            }
            "dependentSchemas" => self[Kind::Object] += entries * LOOKUP_NS,
            "additionalProperties" | "unevaluatedProperties" => self[Kind::Member] += LOOKUP_NS,
            // Once more, where it is asked which members are left over.
            "patternProperties" => {
                let patterns = value.as_object().into_iter().flat_map(Map::keys);
                self[Kind::Member] += 2 * patterns.map(|pattern| regex_ns(pattern)).sum::<u64>();
                self[Kind::Byte] += 2 * entries * SCAN_BYTE_NS;
            }
            "pattern" | "format" | "contentEncoding" | "contentMediaType" => {
                self[Kind::Text] += value.as_str().filter(|_| key == "pattern").map_or(REGEX_NS, regex_ns);
                self[Kind::Byte] += SCAN_BYTE_NS;
            }
            "minLength" | "maxLength" => {
                self[Kind::Text] += KEYWORD_NS;
                self[Kind::Byte] += 1;
            }
            "multipleOf" | "divisibleBy" => {
                self[Kind::Integer] += MULTIPLE_NS;
                self[Kind::Number] += MULTIPLE_NS;
            }
            "uniqueItems" if *value == Value::Bool(true) => {
                self[Kind::Unique] += TELL_NS;
                self[Kind::Byte] += 1;
            }
            _ => self.add_to_all(KEYWORD_NS),
        }
    }

    /// A list of values, one of which the value must be.
    fn add_list(&mut self, values: &[Value]) {
        self.add_to_all(KEYWORD_NS);
        self[Kind::Byte] += 1;
        if values.len() > LISTED_TEXTS_MAX && values.iter().all(|value| value.is_string() || value.is_null()) {
            self[Kind::Text] += LOOKUP_NS;
            return;
        }
        let are_integers = values.iter().all(|value| value.is_i64() || value.is_u64() || value.is_null());
        for kind in Kind::VALUES {
            let of_kind = |value: &&Value| match value {
                Value::Null | Value::Bool(_) => kind == Kind::Other,
                Value::Number(_) => matches!(kind, Kind::Integer | Kind::Number),
                Value::String(_) => kind == Kind::Text,
                Value::Array(_) => kind == Kind::Array,
                Value::Object(_) => kind == Kind::Object,
            };
            let compared = || values.iter().map(|value| if of_kind(&value) { size(value) } else { 1 });
            self[kind] += match kind {
                // Only a number of another form is compared with each of them.
                Kind::Integer if are_integers && values.len() > 1 => LOOKUP_NS,
                _ if values.iter().any(|value| of_kind(&value)) => compared().sum::<u64>() * COMPARE_NS,
                _ => 0,
            };
        }
    }

    fn add_to_all(&mut self, ns: u64) {
        Kind::VALUES.into_iter().for_each(|kind| self[kind] += ns);
    }

    /// Adds another one, so many times.
    pub(super) fn add(&mut self, other: &Self, times: u64) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own = own.saturating_add(other.saturating_mul(times));
        }
    }

    /// For each kind the greater of both.
    pub(super) fn max(&self, other: &Self) -> Self {
        Self(array::from_fn(|kind| self.0[kind].max(other.0[kind])))
    }

    /// The most that one part of a payload takes, without its bytes.
    pub(super) fn of_any_part(&self) -> u64 {
        let most = Kind::VALUES.into_iter().map(|kind| self[kind]).max().unwrap_or_default();
        most.saturating_add(self[Kind::Member]).saturating_add(self[Kind::Unique])
    }
}

/// What a regular expression takes, without the bytes that it reads.
fn regex_ns(pattern: &str) -> u64 {
    if backtracks(pattern) { REGEX_NS + REGEX_STEPS_MAX as u64 * BACKTRACK_NS } else { REGEX_NS }
}

/// Whether an expression may need steps back to be matched: it looks around, or refers to what was matched, or has groups
/// and repetitions that give nothing back. Where that is not sure it may.
fn backtracks(pattern: &str) -> bool {
    let looks = ["(?=", "(?!", "(?<=", "(?<!", "(?>", "(?(", "\\k", "\\K", "\\G", "++", "*+", "?+", "}+"];
    let refers = |pair: &[u8]| pair[0] == b'\\' && matches!(pair[1], b'1'..=b'9');
    looks.iter().any(|part| pattern.contains(part)) || pattern.as_bytes().windows(2).any(refers)
}

/// How many scalars a value is, to compare with it.
fn size(value: &Value) -> u64 {
    match value {
        Value::String(text) => 1 + (text.len() / COMPARED_BYTES) as u64,
        Value::Array(values) => 1 + values.iter().map(size).sum::<u64>(),
        // Each name is looked up.
        Value::Object(values) => 1 + values.values().map(|value| LOOKUP_NS / COMPARE_NS + size(value)).sum::<u64>(),
        _ => 1,
    }
}
