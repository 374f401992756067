//! What a trusted comment says: which module a signature is for, or which downgrade it permits.
//!
//! `myelin name=orders version=1.2.0 sha256=... [expires=UNIX-SECONDS]` and
//! `myelin rollback name=orders version=1.1.0 binding=check generation=17`. A field that is not known is refused: it
//! might narrow what the signer meant.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::names::{ModuleRef, Name};

/// What a module's signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleStatement {
    /// The module.
    pub module: ModuleRef,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Until when it may be taken into a catalog and rolled out, in Unix seconds; for ever where it does not say.
    pub expires_unix_s: Option<u64>,
}

/// That a lower version may follow a higher one, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackStatement {
    /// The lower version.
    pub module: ModuleRef,
    /// The binding that gets it.
    pub binding: Name,
    /// The generation that is active when it does: by the next one the statement is used up.
    pub generation: u64,
}

impl FromStr for ModuleStatement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = words(text, "myelin ")?;
        let [name, version, digest, expires] = fields(words, ["name", "version", "sha256", "expires"])?;
        let expires_unix_s = expires.map(|seconds| number("expires", seconds)).transpose()?;
        let digest = needed("sha256", digest)?.parse().map_err(|error| format!("sha256: {error}"))?;
        Ok(Self { module: module(name, version)?, digest, expires_unix_s })
    }
}

impl FromStr for RollbackStatement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = words(text, "myelin rollback ")?;
        let known = ["name", "version", "binding", "generation"];
        let [name, version, binding, generation] = fields(words, known)?;
        let binding = needed("binding", binding)?.parse().map_err(|error| format!("binding: {error}"))?;
        let generation = number("generation", needed("generation", generation)?)?;
        Ok(Self { module: module(name, version)?, binding, generation })
    }
}

fn words<'a>(text: &'a str, kind: &str) -> Result<&'a str, String> {
    text.strip_prefix(kind).ok_or_else(|| format!("it does not begin with `{kind}`"))
}

/// The values of the known fields, each given once at most.
fn fields<'a, const N: usize>(text: &'a str, known: [&str; N]) -> Result<[Option<&'a str>; N], String> {
    let mut values = [None; N];
    for word in text.split_ascii_whitespace() {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{}` is no KEY=VALUE", short(word)))?;
        let at = known.iter().position(|known| *known == key);
        let at = at.ok_or_else(|| format!("`{}` is none of {}", short(key), known.join(", ")))?;
        if values[at].replace(value).is_some() {
            return Err(format!("`{key}` is given twice"));
        }
    }
    Ok(values)
}

fn short(text: &str) -> String {
    crate::error::cut(text)
}

fn needed<'a>(key: &str, value: Option<&'a str>) -> Result<&'a str, String> {
    value.ok_or_else(|| format!("it has no `{key}=`"))
}

fn number(key: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("`{key}={}` is no number", short(value)))
}

fn module(name: Option<&str>, version: Option<&str>) -> Result<ModuleRef, String> {
    let name = needed("name", name)?.parse().map_err(|error| format!("name: {error}"))?;
    let version = needed("version", version)?.parse().map_err(|error| format!("version: {error}"))?;
    Ok(ModuleRef { name, version })
}

impl fmt::Display for ModuleStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModuleRef { name, version } = &self.module;
        write!(f, "myelin name={name} version={version} sha256={}", self.digest)?;
        match self.expires_unix_s {
            Some(seconds) => write!(f, " expires={seconds}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RollbackStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModuleRef { name, version } = &self.module;
        let (binding, generation) = (&self.binding, self.generation);
        write!(f, "myelin rollback name={name} version={version} binding={binding} generation={generation}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn statements_are_read_as_they_are_written_and_nothing_else_is() {
        let digest = Digest::of(b"x");
        for expires in ["", " expires=1900000000"] {
            let text = format!("myelin name=orders version=1.2.0 sha256={digest}{expires}");
            assert_eq!(text.parse::<ModuleStatement>().unwrap().to_string(), text);
        }
        let rollback = "myelin rollback name=orders version=1.1.0 binding=check generation=17";
        assert_eq!(rollback.parse::<RollbackStatement>().unwrap().to_string(), rollback);
        assert!(rollback.parse::<ModuleStatement>().is_err(), "one is never taken for the other");
        let wrong = [
            "timestamp:1700000000\tfile:orders.wasm\thashed".to_owned(),
            "myelin name=orders version=1.2.0".to_owned(),
            format!("myelin name=orders version=1.2.0 sha256={digest} tenant=a"),
            format!("myelin name=orders name=other version=1.2.0 sha256={digest}"),
            format!("myelin name=../orders version=1.2.0 sha256={digest}"),
            format!("myelin name=orders version=1.2.0 sha256={digest} expires=soon"),
        ];
        for text in wrong {
            assert!(text.parse::<ModuleStatement>().is_err(), "{text}");
        }
        assert!(format!("myelin name=a version=1.0.0 sha256={digest}").parse::<RollbackStatement>().is_err());
        assert!("myelin rollback name=orders version=1.1.0 binding=check".parse::<RollbackStatement>().is_err());
    }
}
