//! Why an artifact is refused, or a registry: a stable code, and a sentence that says what to do.

use crate::credentials::CREDENTIALS_FILE_BYTES_MAX;
use crate::manifest::{COMPONENT_TYPE, CONFIG_TYPE, MANIFEST_TYPE};
use myelin_catalog::Digest;

/// Characters of a stranger's text that are shown.
const SHOWN_CHARS_MAX: usize = 80;

/// Why an artifact is refused, or a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OciError {
    /// It names no artifact.
    #[error(
        "`{text}` names no artifact: {why}; write oci://REGISTRY/REPOSITORY:TAG or oci://REGISTRY/REPOSITORY@sha256:DIGEST"
    )]
    Reference {
        /// What was given, cut.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The manifest cannot be read.
    #[error("the manifest of the artifact cannot be taken: {why}")]
    Manifest {
        /// What is wrong with it.
        why: String,
    },
    /// It is no artifact with a component.
    #[error(
        "{what} is `{found}` and not `{wanted}`: this is no Wasm artifact as the CNCF lays them out; push the component \
         with `myelin filter push FILE --to oci://..` or with wkg"
    )]
    MediaType {
        /// Which part.
        what: &'static str,
        /// What it says it is, cut.
        found: String,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// Not one layer.
    #[error("the artifact has {found}; a filter is exactly one layer of {COMPONENT_TYPE}")]
    Layers {
        /// What it has instead.
        found: String,
    },
    /// For another machine, or no component.
    #[error(
        "the artifact is {found}; filters are WebAssembly components: push one that `myelin filter build` has made"
    )]
    Architecture {
        /// What it is.
        found: String,
    },
    /// More than is ever read.
    #[error("{what} has {bytes} bytes; {max} are the most")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// How many it says it has, or how many came before reading ended.
        bytes: u64,
        /// How many are read.
        max: u64,
    },
    /// Other bytes than those that were named.
    #[error(
        "{what} has the digest sha256:{found} and not sha256:{wanted}: the registry, or somebody on the way to it, gave \
         other bytes than those that were asked for; nothing of them was kept"
    )]
    Digest {
        /// Which part.
        what: &'static str,
        /// What was named.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// Another length than the one that was named.
    #[error("{what} has {wanted} bytes by the manifest, and the registry has sent {found}; nothing of them was kept")]
    Size {
        /// Which part.
        what: &'static str,
        /// What was named.
        wanted: u64,
        /// How many came before reading ended.
        found: u64,
    },
    /// The credentials cannot be used.
    #[error("credentials: {why}")]
    Credentials {
        /// What is wrong with them.
        why: String,
    },
    /// The registry does not let us in.
    #[error(
        "the registry {registry} does not let {who} in: {said}; log in with `docker login`, or give --username and --password-stdin"
    )]
    Unauthorized {
        /// Which registry.
        registry: String,
        /// As whom.
        who: String,
        /// What it says.
        said: String,
    },
    /// The registry does not permit it.
    #[error("the registry {registry} does not permit it: {said}; ask whoever administers the repository")]
    Denied {
        /// Which registry.
        registry: String,
        /// What it says.
        said: String,
    },
    /// There is no such thing.
    #[error("{what} is not in the registry {registry}: {said}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Which registry.
        registry: String,
        /// What it says.
        said: String,
    },
    /// The registry answers as none does.
    #[error("the registry {registry} answers {doing} with {said}")]
    Registry {
        /// Which registry.
        registry: String,
        /// What was asked.
        doing: String,
        /// What it says.
        said: String,
    },
    /// Nobody answers.
    #[error("the registry {registry} cannot be reached: {why}")]
    Unreachable {
        /// Which registry.
        registry: String,
        /// Why.
        why: String,
    },
    /// Without TLS to somewhere else.
    #[error("{host} is not this machine: without TLS only a registry on loopback is spoken to; leave --plain-http out")]
    PlainHttp {
        /// Where to.
        host: String,
    },
    /// The registry sends us somewhere we do not go.
    #[error("the registry {registry} sends us to `{location}`: {why}")]
    Redirect {
        /// Which registry.
        registry: String,
        /// Where to, cut.
        location: String,
        /// Why not.
        why: &'static str,
    },
}

impl OciError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Reference { .. } => "oci-reference",
            Self::Manifest { .. } => "oci-manifest",
            Self::MediaType { .. } => "oci-media-type",
            Self::Layers { .. } => "oci-layers",
            Self::Architecture { .. } => "oci-architecture",
            Self::TooLarge { .. } => "oci-too-large",
            Self::Digest { .. } => "oci-digest-mismatch",
            Self::Size { .. } => "oci-size-mismatch",
            Self::Credentials { .. } => "oci-credentials",
            Self::Unauthorized { .. } => "oci-unauthorized",
            Self::Denied { .. } => "oci-denied",
            Self::NotFound { .. } => "oci-not-found",
            Self::Registry { .. } => "oci-registry",
            Self::Unreachable { .. } => "oci-unreachable",
            Self::PlainHttp { .. } => "oci-plain-http",
            Self::Redirect { .. } => "oci-redirect",
        }
    }

    pub(crate) fn manifest_type(found: &str) -> Self {
        Self::MediaType { what: "the manifest", found: cut(found), wanted: MANIFEST_TYPE }
    }

    pub(crate) fn config_type(found: &str) -> Self {
        Self::MediaType { what: "the manifest's config", found: cut(found), wanted: CONFIG_TYPE }
    }

    pub(crate) fn layer_type(found: &str) -> Self {
        Self::MediaType { what: "the manifest's layer", found: cut(found), wanted: COMPONENT_TYPE }
    }

    pub(crate) fn credentials(why: impl Into<String>) -> Self {
        Self::Credentials { why: why.into() }
    }

    pub(crate) fn credentials_too_large() -> Self {
        Self::credentials(format!("the file has more than {CREDENTIALS_FILE_BYTES_MAX} bytes"))
    }
}

/// A stranger's text, as far as it is shown.
pub(crate) fn cut(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).map(clean).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push_str("..");
    }
    shown
}
