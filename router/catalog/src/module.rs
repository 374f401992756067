//! Modules: the code of filters, named by name and version, identified by digest.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::CatalogError;
use crate::limits::{CAPABILITIES_MAX, IMPORT_LEN_MAX_BYTES, IMPORTS_MAX, MODULE_SIZE_MAX_BYTES};
use crate::minisign::MinisignSignature;
use crate::names::{ModuleRef, Name, Version};

/// Which world of the filter contract a module is built for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// Events travel as bytes.
    #[default]
    Fast,
    /// Events travel as typed records.
    Easy,
}

impl World {
    /// Its name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Easy => "easy",
        }
    }

    /// Whether a record leaves it out: the first world needs no word.
    fn is_fast(&self) -> bool {
        *self == Self::Fast
    }
}

/// A version of a module. It never changes; its bytes are elsewhere, under their digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// What it is called.
    pub name: Name,
    /// Which version of that it is.
    pub version: Version,
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// When it was uploaded, for people: nothing is ordered by it.
    pub uploaded_unix_ms: u64,
    /// The interfaces that it imports from the router.
    #[serde(default)]
    pub imports: Vec<String>,
    /// The world that it is built for.
    #[serde(default, skip_serializing_if = "World::is_fast")]
    pub world: World,
    /// The functions of the host that it uses, sorted; none where it was uploaded by a router that did not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Who vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<MinisignSignature>,
}

impl Module {
    /// The reference that bindings use.
    pub fn module_ref(&self) -> ModuleRef {
        ModuleRef { name: self.name.clone(), version: self.version.clone() }
    }

    /// Checks what the types do not.
    pub fn validate(&self) -> Result<(), CatalogError> {
        let refuse = |why: String| CatalogError::InvalidModule { module: self.module_ref().to_string(), why };
        if self.size_bytes == 0 {
            return Err(refuse("it has no bytes; upload a Wasm component".into()));
        }
        if self.size_bytes > MODULE_SIZE_MAX_BYTES {
            return Err(refuse(format!(
                "it has {} bytes and {MODULE_SIZE_MAX_BYTES} are the most; build it in release mode and strip it",
                self.size_bytes
            )));
        }
        if self.imports.len() > IMPORTS_MAX {
            return Err(refuse(format!("it has {} imports and {IMPORTS_MAX} are the most", self.imports.len())));
        }
        let capabilities = self.capabilities.as_deref().unwrap_or_default();
        if capabilities.len() > CAPABILITIES_MAX {
            return Err(refuse(format!(
                "it uses {} functions and {CAPABILITIES_MAX} are the most",
                capabilities.len()
            )));
        }
        let bad = self.imports.iter().chain(capabilities).find(|import| {
            import.is_empty() || import.len() > IMPORT_LEN_MAX_BYTES || import.chars().any(char::is_control)
        });
        match bad {
            Some(import) => Err(refuse(format!(
                "an import's name has 1 to {IMPORT_LEN_MAX_BYTES} bytes and no control characters; `{}` is none",
                crate::error::cut(import)
            ))),
            None => Ok(()),
        }
    }
}
