//! Where filters find schemas: the router's registry, which the engine knows nothing about.

use std::fmt::Debug;
use std::sync::Arc;

/// Answers the host call `schema`.
pub trait SchemaSource: Debug + Send + Sync {
    /// The text of a schema: of `subject` its newest version, of `subject:version` that one.
    fn schema(&self, name: &str) -> Option<Arc<str>>;
}
