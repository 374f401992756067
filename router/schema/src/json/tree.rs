//! A payload as it is judged: texts stay where they were received, and an object is a list of its members.
//!
//! The library judges any representation of JSON. This one costs an event no copy of a text, no map and no hash, which is
//! most of what its own costs: small objects are looked through, large ones are sorted once and searched.

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use std::borrow::Cow;
use std::fmt;

/// Members of an object that is looked through; more are sorted. Whoever makes a payload chooses how many there are: looking
/// through all of them for each name of a schema would be theirs to make dear.
const SCANNED_MAX: usize = 16;
/// Members, and elements, that room is made for before they are there.
const ROOM: usize = 4;

/// A value of a payload.
#[derive(Debug, Default)]
pub(super) enum Tree<'p> {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'p, str>),
    Array(Vec<Self>),
    /// Every name once; where one comes twice, the last counts, as in the library's own representation. By name, where there
    /// are more than [`SCANNED_MAX`].
    Object(Vec<(Cow<'p, str>, Self)>),
}

/// The representation, for the library.
#[derive(Debug)]
pub(super) struct Payload;

impl<'de> Deserialize<'de> for Tree<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree<'de>, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree<'de>, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree<'de>, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree<'de>, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree<'de>, E> {
        Number::from_f64(value).map(Tree::Number).ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree<'de>, A::Error> {
        let mut all = Vec::new();
        while let Some(element) = elements.next_element()? {
            if all.is_empty() {
                all.reserve(ROOM);
            }
            all.push(element);
        }
        Ok(Tree::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree<'de>, A::Error> {
        let mut all: Vec<(Cow<'de, str>, Tree<'de>)> = Vec::new();
        while let Some(name) = members.next_key_seed(Name)? {
            let value = members.next_value()?;
            if all.is_empty() {
                all.reserve(ROOM);
            }
            // Beyond that, doubles are found once for all.
            let known = if all.len() < SCANNED_MAX { all.iter_mut().find(|(known, _)| *known == name) } else { None };
            match known {
                Some((_, known)) => *known = value,
                None => all.push((name, value)),
            }
        }
        if all.len() > SCANNED_MAX {
            sort(&mut all);
        }
        Ok(Tree::Object(all))
    }
}

/// Sorts members by name; of those of one name the last stays.
fn sort(members: &mut Vec<(Cow<'_, str>, Tree<'_>)>) {
    // Stable: the later one of two stands behind the earlier one.
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    members.dedup_by(|later, earlier| {
        let is_same = later.0 == earlier.0;
        if is_same {
            std::mem::swap(later, earlier);
        }
        is_same
    });
}

/// Reads the name of a member where it stands, if it holds no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

impl Json for Payload {
    type Node<'a> = &'a Tree<'a>;
    type PreparedKey = String;
    type StringBuffer = Tree<'static>;

    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(buffer: &mut Tree<'static>, text: &str, judge: impl FnOnce(Self::Node<'_>) -> T) -> T {
        *buffer = Tree::Text(Cow::Owned(text.to_owned()));
        judge(buffer)
    }
}

impl<'a> Node<'a, Payload> for &'a Tree<'a> {
    type Object = Members<'a>;
    type Array = &'a [Tree<'a>];
    type Number = &'a Number;

    fn as_object(&self) -> Option<Members<'a>> {
        if let Tree::Object(members) = self { Some(Members(members)) } else { None }
    }

    fn as_array(&self) -> Option<&'a [Tree<'a>]> {
        if let Tree::Array(elements) = self { Some(elements) } else { None }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        if let Tree::Text(text) = self { Some(Cow::Borrowed(text)) } else { None }
    }

    fn as_number(&self) -> Option<&'a Number> {
        if let Tree::Number(number) = self { Some(number) } else { None }
    }

    fn as_boolean(&self) -> Option<bool> {
        if let Tree::Bool(value) = self { Some(*value) } else { None }
    }

    fn is_null(&self) -> bool {
        matches!(self, Tree::Null)
    }

    fn json_type(&self) -> JsonType {
        match self {
            Tree::Null => JsonType::Null,
            Tree::Bool(_) => JsonType::Boolean,
            Tree::Number(_) => JsonType::Number,
            Tree::Text(_) => JsonType::String,
            Tree::Array(_) => JsonType::Array,
            Tree::Object(_) => JsonType::Object,
        }
    }

    fn string_length_within(&self, min: u64, max: u64) -> Option<bool> {
        let Tree::Text(text) = self else { return None };
        // A character takes one to four bytes: as a rule that says enough.
        let bytes = text.len() as u64;
        if bytes < min || bytes.div_ceil(4) > max {
            return Some(false);
        }
        let is_surely = bytes <= max && bytes.div_ceil(4) >= min;
        Some(is_surely || (min..=max).contains(&(text.chars().count() as u64)))
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (self, expected) {
            (Tree::Text(text), expected) => expected.as_str() == Some(text),
            (Tree::Bool(value), expected) => expected.as_bool() == Some(*value),
            (Tree::Null, expected) => expected.is_null(),
            // Numbers are equal where their values are, however they are written: that is the library's to say.
            _ => {
                let value = self.to_value();
                (&*value).equals_value(expected)
            }
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self {
            Tree::Null => Value::Null,
            Tree::Bool(value) => (*value).into(),
            Tree::Number(number) => Value::Number(number.clone()),
            Tree::Text(text) => Value::String(text.clone().into_owned()),
            Tree::Array(elements) => elements.iter().map(|element| element.to_value().into_owned()).collect(),
            Tree::Object(members) => {
                let owned = |(name, value): &'a (Cow<'a, str>, Tree<'a>)| {
                    (name.clone().into_owned(), value.to_value().into_owned())
                };
                Value::Object(members.iter().map(owned).collect())
            }
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Tree<'_>>(self).addr()))
    }
}

/// The members of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'a>(&'a [(Cow<'a, str>, Tree<'a>)]);

/// The members one after the other.
#[derive(Debug)]
pub(super) struct MembersIter<'a>(std::slice::Iter<'a, (Cow<'a, str>, Tree<'a>)>);

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, &'a Tree<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (&**name, value))
    }
}

impl<'a> Object<'a, Payload> for Members<'a> {
    type Node = &'a Tree<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, name: &String) -> Option<&'a Tree<'a>> {
        let found = match self.0.len() > SCANNED_MAX {
            true => self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok(),
            false => self.0.iter().position(|(known, _)| known == name),
        };
        found.map(|at| &self.0[at].1)
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter(self.0.iter())
    }
}

impl<'a> Array<'a, Payload> for &'a [Tree<'a>] {
    type Node = &'a Tree<'a>;
    type ElementsIter = std::slice::Iter<'a, Tree<'a>>;

    fn len(&self) -> usize {
        <[Tree<'_>]>::len(self)
    }

    fn elements(&self) -> Self::ElementsIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use proptest::prelude::*;

    /// Any value, with names that often come twice.
    fn text() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<u64>().prop_map(|number| number.to_string()),
            (-1e9..1e9_f64).prop_map(|number| format!("{number:e}")),
            "\\PC{0,12}".prop_map(|text| Value::from(text).to_string()),
            Just(r#""a\u00e9\n\ud83d\ude00""#.to_owned()),
        ];
        leaf.prop_recursive(4, 64, 24, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(|all| format!("[{}]", all.join(" , "))),
                prop::collection::vec(("[a-f]{1,2}", inner), 0..40).prop_map(|all| {
                    let members: Vec<_> = all.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        /// What is read is what the library's own representation reads, doubles and all.
        #[test]
        fn a_tree_is_the_value_that_its_text_says(text in text()) {
            let (tree, value): (Tree<'_>, Value) = (serde_json::from_str(&text).unwrap(), serde_json::from_str(&text).unwrap());
            prop_assert_eq!((&tree).to_value().into_owned(), value.clone());
            prop_assert!((&tree).equals_value(&value));
            if let (Some(members), Value::Object(fields)) = ((&tree).as_object(), &value) {
                prop_assert_eq!(members.len(), fields.len());
                for (name, field) in fields {
                    let found = members.get(name).map(|node| node.to_value().into_owned());
                    prop_assert_eq!(found.as_ref(), Some(field));
                }
                prop_assert!(members.get(&"zz".to_owned()).is_none());
            }
        }

        #[test]
        fn the_length_of_a_text_is_counted_in_characters(text in "\\PC{0,20}", min in 0u64..24, more in 0u64..24) {
            let (tree, length) = (Tree::Text(Cow::Borrowed(&text)), text.chars().count() as u64);
            let wanted = (min..=min + more).contains(&length);
            prop_assert_eq!((&tree).string_length_within(min, min + more), Some(wanted));
        }
    }

    #[test]
    fn what_is_no_json_is_none_here_either() {
        let deep = "[".repeat(200);
        for text in ["", "{", "[1,]", "{\"a\":1,}", "1e999", "nul", "\"\\ud800\"", "{1:2}", "1 2", &*deep] {
            let (tree, value) = (serde_json::from_str::<Tree<'_>>(text), serde_json::from_str::<Value>(text));
            assert_eq!(tree.unwrap_err().to_string(), value.unwrap_err().to_string(), "{text}");
        }
    }
}
