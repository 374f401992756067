//! Filters as artifacts of OCI registries, in the layout that the CNCF's Wasm working group has written down, so that
//! other tools understand what Myelin pushes and Myelin what they push.
//!
//! Nothing that a registry says is believed: a tag is resolved to the digest of the manifest's bytes, and everything
//! else is named by its digest and its size in there. Both are checked, the size before anything is read.
//!
//! The readers are pure. [`Client`], behind the feature `client`, belongs to the command line: no router speaks to a
//! registry.

mod challenge;
#[cfg(feature = "client")]
mod client;
mod credentials;
mod error;
mod manifest;
mod reference;

pub use challenge::{CHALLENGE_BYTES_MAX, Challenge};
#[cfg(feature = "client")]
pub use client::{Client, Pulled, Transport};
pub use credentials::{CREDENTIALS_FILE_BYTES_MAX, Credentials};
pub use error::OciError;
pub use manifest::{
    Artifact, CONFIG_BYTES_MAX, Descriptor, Encoded, MANIFEST_BYTES_MAX, MANIFEST_TYPE, Manifest, SIGNATURE_ANNOTATION,
    check_component, check_config,
};
pub use reference::{REFERENCE_BYTES_MAX, Reference, Registry, SCHEME};
