//! Where filters find schemas: the router's registry, which the engine knows nothing about.

use std::fmt::Debug;
use std::sync::Arc;

/// Answers the host call `schema`.
pub trait SchemaSource: Debug + Send + Sync {
    /// The text of a schema: of `subject` the version that is meant where the registry is seen as it was `at` that
    /// revision, and without one as it is now; of `subject:version` that one.
    fn schema(&self, name: &str, at: Option<u64>) -> Option<Arc<str>>;
}
