//! Names of bindings, modules and sites, and versions of modules.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{CatalogError, cut};
use crate::limits::{NAME_LEN_MAX, VERSION_LEN_MAX_BYTES};

/// A name that fits `[a-z0-9][a-z0-9-]{0,62}`; cloning it copies no text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// A version of a module: semantic versioning without build metadata, ordered as it says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(semver::Version);

/// Which module: `name@version`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleRef {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: Version,
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let refuse = |why| CatalogError::InvalidName { text: cut(text), why };
        if text.is_empty() {
            return Err(refuse("it is empty"));
        }
        if text.len() > NAME_LEN_MAX {
            return Err(refuse("it is too long"));
        }
        if text.starts_with('-') {
            return Err(refuse("it begins with `-`"));
        }
        if !text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            return Err(refuse("it holds another character"));
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for Version {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let refuse = |why: String| CatalogError::InvalidVersion { text: cut(text), why };
        if text.len() > VERSION_LEN_MAX_BYTES {
            return Err(refuse(format!("it is longer than {VERSION_LEN_MAX_BYTES} bytes")));
        }
        let version = semver::Version::parse(text).map_err(|e| refuse(e.to_string()))?;
        if !version.build.is_empty() {
            // Two builds of one version would be equal in order and different in bytes.
            return Err(refuse("build metadata after `+` is not kept".into()));
        }
        Ok(Self(version))
    }
}

impl FromStr for ModuleRef {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let (name, version) = text.split_once('@').ok_or_else(|| CatalogError::InvalidVersion {
            text: cut(text),
            why: "a module is named NAME@VERSION and there is no `@`".into(),
        })?;
        Ok(Self { name: name.parse()?, version: version.parse()? })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for ModuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// They are texts wherever they travel, and are checked where they arrive.
macro_rules! text_impls {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`{self}`")
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

text_impls!(Name Version ModuleRef);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "0", "a-b-", "schema-json", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "A", "a_b", "a.b", "ä", "a/b", "..", &"x".repeat(64)] {
            assert_eq!(bad.parse::<Name>().unwrap_err().code(), "invalid-name", "{bad}");
        }
        let shown = "\u{1b}[2J\n".repeat(1_000).parse::<Name>().unwrap_err().to_string();
        assert!(shown.len() < 500 && !shown.contains('\n') && !shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn versions_are_ordered_as_semantic_versioning_says() {
        let ordered = ["0.9.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-rc.2", "1.0.0-rc.10", "1.0.0", "1.0.10"];
        let parsed: Vec<Version> = ordered.iter().map(|v| v.parse().unwrap()).collect();
        assert!(parsed.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(parsed.iter().map(Version::to_string).collect::<Vec<_>>(), ordered);
        for bad in ["", "1", "1.2", "01.2.3", "1.2.3+build", "v1.2.3", &format!("1.2.3-{}", "x".repeat(64))] {
            assert_eq!(bad.parse::<Version>().unwrap_err().code(), "invalid-version", "{bad}");
        }
    }

    #[test]
    fn a_module_is_named_by_name_and_version() {
        let module: ModuleRef = "redact@1.2.0".parse().unwrap();
        assert_eq!(serde_json::to_string(&module).unwrap(), r#""redact@1.2.0""#);
        assert_eq!("redact".parse::<ModuleRef>().unwrap_err().code(), "invalid-version");
        assert_eq!("Redact@1.2.0".parse::<ModuleRef>().unwrap_err().code(), "invalid-name");
    }
}
