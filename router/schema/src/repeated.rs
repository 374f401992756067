//! Objects that have a name more than once.
//!
//! JSON lets them be, and leaves to each reader which of the members counts (RFC 8259, section 4): what is judged by one of
//! them may be read by another. I-JSON forbids them (RFC 7493, section 2.3), and so do we: in payloads, and in the texts of
//! schemas.

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// A name that comes twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repeated {
    /// The object, as a JSON pointer.
    pub(crate) path: String,
    /// The name, without its escapes.
    pub(crate) name: String,
}

impl fmt::Display for Repeated {
    /// What is wrong with the object. The name comes last: it may be long, and is cut then.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "has more than one member of the name `{}`", self.name)
    }
}

/// The first name of a JSON text that comes twice in its object.
///
/// # Errors
/// Why the text is no JSON, wherever that is: that comes before what it says.
pub(crate) fn first(text: &[u8]) -> Result<Option<Repeated>, serde_json::Error> {
    let mut search = Search::default();
    let mut reader = serde_json::Deserializer::from_slice(text);
    (&mut search).deserialize(&mut reader)?;
    reader.end()?;
    Ok(search.name.map(|name| {
        search.steps.reverse();
        Repeated { path: search.steps.concat(), name }
    }))
}

/// What was found, and the way to it from the inside.
#[derive(Default)]
struct Search {
    name: Option<String>,
    steps: Vec<String>,
}

impl Search {
    /// Looks into a value that is inside the one that is being read; `step` leads to it.
    fn inside<E>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Option<()>, E>,
        step: impl FnOnce() -> String,
    ) -> Result<Option<()>, E> {
        let was_found = self.name.is_some();
        let value = read(self)?;
        if !was_found && self.name.is_some() {
            self.steps.push(step());
        }
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for &mut Search {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Search {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        while self.inside(|search| elements.next_element_seed(search), || format!("/{index}"))?.is_some() {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if self.name.is_none() && names.contains(&name) {
                self.name = Some(name);
                members.next_value_seed(&mut *self)?;
                continue;
            }
            let step = || format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            self.inside(|search| members.next_value_seed(search).map(Some), step)?;
            // The first is looked for: what comes after it is read, and not remembered.
            if self.name.is_none() {
                names.insert(name);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn the_first_name_that_comes_twice_is_found_with_its_object() {
        let long = format!(r#"{{{}"n7":1}}"#, (0..40).map(|n| format!(r#""n{n}":{{"a":1}},"#)).collect::<String>());
        for (text, wanted) in [
            (r#"{"a":1,"b":2}"#, None),
            (r#"[{"a":1},{"a":1}]"#, None),
            (r#"{"a":{"a":{"a":1}}}"#, None),
            (r#"{"a":1,"A":2}"#, None),
            (r#"{"a":1,"a":2}"#, Some(("", "a"))),
            (r#"{"a":1,"\u0061":2}"#, Some(("", "a"))),
            (r#"{"":1,"":2}"#, Some(("", ""))),
            (r#"{"a":{"b":[0,{"c":1,"c":1}]},"a":1}"#, Some(("/a/b/1", "c"))),
            (r#"{"a/b~":{"x":[],"y":{},"x":0}}"#, Some(("/a~1b~0", "x"))),
            (&long, Some(("", "n7"))),
        ] {
            let found = first(text.as_bytes()).unwrap();
            let found = found.as_ref().map(|found| (&*found.path, &*found.name));
            assert_eq!(found, wanted, "{text}");
        }
        assert!(first(br#"{"a":1,"a":2"#).is_err() && first(br#"{"a":1,"a":2} 3"#).is_err(), "that is no JSON");
    }
}
