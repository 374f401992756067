//! Policies: texts that say who may do what. What they mean is no business of the catalog's; `myelin-policy` compiles
//! them, before a record is drafted and at every router that has it.

use serde::{Deserialize, Serialize};

use crate::error::CatalogError;
use crate::limits::POLICY_LEN_MAX_BYTES;
use crate::names::Name;

#[cfg(test)]
mod tests;

/// A text with some statements about who may do what. All policies of a catalog hold together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What it is called; a policy of the same name replaces it.
    pub name: Name,
    /// The statements, in Cedar.
    pub text: String,
}

impl Policy {
    /// Checks what the parts do not say about themselves.
    ///
    /// # Errors
    /// `invalid-policy`.
    pub fn validate(&self) -> Result<(), CatalogError> {
        let refuse = |why: String| Err(CatalogError::InvalidPolicy { policy: self.name.to_string(), why });
        if self.text.len() > POLICY_LEN_MAX_BYTES {
            return refuse(format!(
                "it has {} bytes; {POLICY_LEN_MAX_BYTES} are the most: split it into several policies",
                self.text.len()
            ));
        }
        if self.text.trim().is_empty() {
            return refuse("it is empty: remove it, if nothing is to hold".to_owned());
        }
        Ok(())
    }
}
