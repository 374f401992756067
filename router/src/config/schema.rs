//! Which sections and keys there are, and of what sort: asked of the structs themselves, so that no second list of
//! keys can go stale.

use super::Config;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor, value::StrDeserializer};
use serde::{Deserialize, forward_to_deserialize_any};
use std::cell::Cell;

/// A key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The section that it belongs to.
    pub section: &'static str,
    /// Its name within the section.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
}

/// What the value of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// Text: a name, a path, an address.
    Text,
    /// Several texts.
    List,
    /// Names with values: a table of its own.
    Table,
    /// Anything else; written as TOML.
    Other,
}

impl Key {
    /// The environment variable that sets this key.
    pub fn variable(&self) -> String {
        format!("MYELIN_{}__{}", self.section.to_uppercase(), self.name.to_uppercase())
    }
}

/// The sections, in the order of [`Config`].
pub fn sections() -> &'static [&'static str] {
    match probe(&[]) {
        Some(Found::Fields(fields)) => fields,
        _ => &[],
    }
}

/// Every key, section by section.
pub fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    for section in sections() {
        let Some(Found::Fields(names)) = probe(&[section]) else { continue };
        for name in names {
            let kind = match probe(&[section, name]) {
                Some(Found::Scalar(kind)) => kind,
                _ => Kind::Other,
            };
            keys.push(Key { section, name, kind });
        }
    }
    keys
}

#[derive(Clone, Copy)]
enum Found {
    Fields(&'static [&'static str]),
    Scalar(Kind),
}

/// What stands at `path`: deserialises a configuration that holds this one path, and notes what is asked for there.
fn probe(path: &[&str]) -> Option<Found> {
    let found = Cell::new(None);
    // Ends in an error always: the value that is asked for is never given.
    let _ = Config::deserialize(Probe { path, found: &found });
    found.get()
}

type ProbeError = serde::de::value::Error;

struct Probe<'a> {
    path: &'a [&'a str],
    found: &'a Cell<Option<Found>>,
}

impl Probe<'_> {
    fn stop<T>(&self, found: Found) -> Result<T, ProbeError> {
        self.found.set(Some(found));
        Err(ProbeError::custom("found"))
    }
}

macro_rules! scalars {
    ($($method:ident: $kind:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ProbeError> {
            self.stop(Found::Scalar(Kind::$kind))
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = ProbeError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        if self.path.is_empty() { self.stop(Found::Fields(fields)) } else { visitor.visit_map(OneEntry(Some(self))) }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_some(self)
    }

    scalars! {
        deserialize_any: Other,
        deserialize_bool: Bool,
        deserialize_u8: Integer, deserialize_u16: Integer, deserialize_u32: Integer, deserialize_u64: Integer,
        deserialize_i8: Integer, deserialize_i16: Integer, deserialize_i32: Integer, deserialize_i64: Integer,
        deserialize_str: Text, deserialize_string: Text,
        deserialize_seq: List,
        deserialize_map: Table,
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

/// A map with the first name of the path as its only key.
struct OneEntry<'a>(Option<Probe<'a>>);

impl<'de> MapAccess<'de> for OneEntry<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ProbeError> {
        match self.0.as_ref().and_then(|probe| probe.path.first()) {
            Some(name) => seed.deserialize(StrDeserializer::new(name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ProbeError> {
        let Some(probe) = self.0.take() else { return Err(ProbeError::custom("no value without a key")) };
        seed.deserialize(Probe { path: probe.path.get(1..).unwrap_or_default(), found: probe.found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structs_say_which_keys_there_are() {
        assert!(sections().starts_with(&["node", "tls", "listen"]), "{:?}", sections());
        let keys = keys();
        for (section, name, kind) in [
            ("node", "site", Kind::Text),
            ("node", "data_dir", Kind::Text),
            ("node", "workers", Kind::Integer),
            ("tls", "cert", Kind::Text),
            ("listen", "admin", Kind::Text),
            ("limits", "headers", Kind::Integer),
            ("admin", "token_file", Kind::Text),
            ("admin", "identities", Kind::List),
            ("admin", "roles", Kind::Table),
            ("jwt", "issuers", Kind::Table),
        ] {
            assert!(keys.contains(&Key { section, name, kind }), "{section}.{name}: {keys:?}");
        }
        assert!(keys.iter().all(|key| key.kind != Kind::Other), "{keys:?}");
        assert_eq!(keys[0].variable(), "MYELIN_NODE__SITE");
    }
}
