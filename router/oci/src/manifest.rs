//! The manifest and the config of an artifact, as the CNCF's Wasm working group has laid them out: a config of
//! [`CONFIG_TYPE`] and one layer of [`COMPONENT_TYPE`], the component.
//!
//! The module's signature travels as an annotation of the manifest, [`SIGNATURE_ANNOTATION`]: the layout has one layer, and
//! tools refuse a second. Whoever can write to the repository can take it away or put another there, and gains nothing by
//! it: routers believe a signature because of its key.

use crate::error::{OciError, cut};
use myelin_catalog::Digest;
use myelin_catalog::limits::MODULE_SIZE_MAX_BYTES;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The media type of a manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of a Wasm artifact's config.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
/// The media type of a component.
pub(crate) const COMPONENT_TYPE: &str = "application/wasm";
/// The media types of lists of manifests, one for each platform.
pub(crate) const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Bytes of a manifest that is read. A filter's has about a thousand; registries take 4 MiB.
pub const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a config that is read: it names imports and exports.
pub const CONFIG_BYTES_MAX: u64 = 64 * 1024;
/// The annotation with the module's signature, the text of its `.minisig` file.
pub const SIGNATURE_ANNOTATION: &str = "dev.myelin.minisign";
/// The annotations with the module's name and version.
const TITLE_ANNOTATION: &str = "org.opencontainers.image.title";
const VERSION_ANNOTATION: &str = "org.opencontainers.image.version";
/// The architecture of WebAssembly, and what the layout calls components and core modules.
const ARCHITECTURE: &str = "wasm";
const COMPONENT_OS: &str = "wasip2";
/// When the artifact was made: always then, so that the same module has the same digest, whoever pushes it.
const CREATED: &str = "1970-01-01T00:00:00Z";
/// What a digest begins with.
const ALGORITHM: &str = "sha256:";
/// The first bytes of a component, and of a core module.
const COMPONENT_MAGIC: &[u8] = b"\0asm\x0d\0\x01\0";
const WASM_MAGIC: &[u8] = b"\0asm";

/// A part of an artifact: everything of it is known before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
}

/// A manifest whose artifact is a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What the component is.
    pub config: Descriptor,
    /// The component.
    pub component: Descriptor,
    /// The text of its signature, as it says.
    pub signature: Option<String>,
}

/// A component that is to become an artifact.
#[derive(Clone, Debug)]
pub struct Artifact<'a> {
    /// Its bytes.
    pub component: &'a [u8],
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// The text of its signature.
    pub signature: Option<&'a str>,
}

/// The texts that stand beside a component in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The config.
    pub config: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

impl Artifact<'_> {
    /// The artifact's config and manifest; the same for the same component and signature.
    pub fn encode(&self) -> Encoded {
        let layer = Descriptor::of(self.component);
        let config = json!({
            "created": CREATED,
            "architecture": ARCHITECTURE,
            "os": COMPONENT_OS,
            "layerDigests": [layer.digest_text()],
            "component": {"exports": self.exports, "imports": self.imports},
        });
        let config = text(config);
        let mut annotations = BTreeMap::from([(TITLE_ANNOTATION, self.name), (VERSION_ANNOTATION, self.version)]);
        annotations.extend(self.signature.map(|signature| (SIGNATURE_ANNOTATION, signature)));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": Descriptor::of(&config).json(CONFIG_TYPE),
            "layers": [layer.json(COMPONENT_TYPE)],
            "annotations": annotations,
        });
        Encoded { config, manifest: text(manifest) }
    }
}

/// The text of a value whose objects have their keys sorted, whether or not `serde_json` keeps their order: a digest is
/// taken of it.
fn text(mut value: Value) -> Vec<u8> {
    value.sort_all_objects();
    value.to_string().into_bytes()
}

impl Descriptor {
    /// What describes these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }

    /// Its digest, as registries write it.
    pub fn digest_text(&self) -> String {
        format!("{ALGORITHM}{}", self.digest)
    }

    fn json(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest_text(), "size": self.size})
    }

    /// Whether these are the bytes.
    ///
    /// # Errors
    /// `oci-size-mismatch`, `oci-digest-mismatch`.
    pub fn check(&self, what: &'static str, bytes: &[u8]) -> Result<(), OciError> {
        let found = Self::of(bytes);
        if found.size != self.size {
            return Err(OciError::Size { what, wanted: self.size, found: found.size });
        }
        match found.digest == self.digest {
            true => Ok(()),
            false => Err(OciError::Digest { what, wanted: self.digest, found: found.digest }),
        }
    }
}

/// A manifest as it is written. Fields that we do not know may be there: the format grows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<WrittenPart>,
    #[serde(default)]
    layers: Option<Vec<WrittenPart>>,
    /// Of an index.
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenPart {
    media_type: String,
    digest: String,
    size: u64,
}

impl Manifest {
    /// Reads the manifest of an artifact that is a component.
    ///
    /// # Errors
    /// `oci-too-large`, `oci-manifest`, `oci-media-type`, `oci-layers`.
    pub fn read(bytes: &[u8]) -> Result<Self, OciError> {
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(too_large("the manifest", bytes.len() as u64, MANIFEST_BYTES_MAX));
        }
        let refuse = |why: String| OciError::Manifest { why };
        let written: Written =
            serde_json::from_slice(bytes).map_err(|error| refuse(cut(&format!("it is no manifest: {error}"))))?;
        let said = written.media_type.as_deref();
        if written.manifests.is_some() || said.is_some_and(|said| INDEX_TYPES.contains(&said)) {
            let why =
                "it is a list of several artifacts; name one of them by its digest, as `oras manifest fetch` shows it";
            return Err(refuse(why.to_owned()));
        }
        if let Some(foreign) = said.filter(|said| *said != MANIFEST_TYPE) {
            return Err(OciError::manifest_type(foreign));
        }
        if written.schema_version != 2 {
            return Err(refuse(format!("its schemaVersion is {} and not 2", written.schema_version)));
        }
        let config = written.config.ok_or_else(|| refuse("it has no config".to_owned()))?;
        if config.media_type != CONFIG_TYPE {
            return Err(OciError::config_type(&config.media_type));
        }
        let layers = written.layers.unwrap_or_default();
        let layer = match &layers[..] {
            [one] => one,
            [] => return Err(OciError::Layers { found: "no layer".to_owned() }),
            [first, rest @ ..] => {
                let found = match rest.iter().any(|layer| layer.digest == first.digest) {
                    true => "the same layer twice".to_owned(),
                    false => format!("{} layers", layers.len()),
                };
                return Err(OciError::Layers { found });
            }
        };
        if layer.media_type != COMPONENT_TYPE {
            return Err(OciError::layer_type(&layer.media_type));
        }
        let signature = written.annotations.and_then(|mut texts| texts.remove(SIGNATURE_ANNOTATION));
        Ok(Self {
            config: config.described("the config", CONFIG_BYTES_MAX)?,
            component: layer.described("the component", MODULE_SIZE_MAX_BYTES)?,
            signature,
        })
    }
}

impl WrittenPart {
    fn described(&self, what: &'static str, max: u64) -> Result<Descriptor, OciError> {
        let digest = self.digest.strip_prefix(ALGORITHM).and_then(|hex| hex.parse().ok()).ok_or_else(|| {
            let why = format!("the digest of {what} is `{}`, and not of sha256", cut(&self.digest));
            OciError::Manifest { why }
        })?;
        match self.size {
            0 => Err(OciError::Manifest { why: format!("{what} has no bytes") }),
            size if size > max => Err(too_large(what, size, max)),
            size => Ok(Descriptor { digest, size }),
        }
    }
}

fn too_large(what: &'static str, bytes: u64, max: u64) -> OciError {
    OciError::TooLarge { what, bytes, max }
}

/// The config of an artifact, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenConfig {
    architecture: String,
    os: String,
    #[serde(default)]
    layer_digests: Option<Vec<String>>,
}

/// Checks that a config is of this component.
///
/// # Errors
/// `oci-manifest`, `oci-architecture`, `oci-layers`.
pub fn check_config(bytes: &[u8], component: &Descriptor) -> Result<(), OciError> {
    let written: WrittenConfig = serde_json::from_slice(bytes)
        .map_err(|error| OciError::Manifest { why: cut(&format!("its config is none of Wasm: {error}")) })?;
    let WrittenConfig { architecture, os, layer_digests } = written;
    if architecture != ARCHITECTURE {
        return Err(OciError::Architecture { found: format!("for `{}` on `{}`", cut(&architecture), cut(&os)) });
    }
    if os != COMPONENT_OS {
        let found = format!("for `{}`: only {COMPONENT_OS} stands for components", cut(&os));
        return Err(OciError::Architecture { found });
    }
    match layer_digests {
        Some(layers) if layers != [component.digest_text()] => {
            Err(OciError::Layers { found: "a config that names other layers than its manifest".to_owned() })
        }
        _ => Ok(()),
    }
}

/// Checks that bytes begin as a component does.
///
/// # Errors
/// `oci-architecture`.
pub fn check_component(bytes: &[u8]) -> Result<(), OciError> {
    let found = match bytes {
        bytes if bytes.starts_with(COMPONENT_MAGIC) => return Ok(()),
        bytes if bytes.starts_with(WASM_MAGIC) => "a core module",
        _ => "no WebAssembly",
    };
    Err(OciError::Architecture { found: found.to_owned() })
}

#[cfg(test)]
mod tests;
