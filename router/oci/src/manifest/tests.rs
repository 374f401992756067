#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0and so on";

fn artifact(signature: Option<&str>) -> Artifact<'_> {
    let (imports, exports) = (vec!["myelin:filter/host@0.1.0".into()], vec!["myelin:filter/filter@0.1.0".into()]);
    Artifact { component: COMPONENT, name: "redact", version: "1.2.0", imports, exports, signature }
}

/// The manifest with one field set otherwise.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    let mut manifest: Value = serde_json::from_slice(&artifact(None).encode().manifest).unwrap();
    *manifest.pointer_mut(pointer).unwrap() = value;
    manifest.to_string().into_bytes()
}

#[test]
fn an_artifact_is_read_as_it_is_written_and_is_the_same_every_time() {
    let signature = "untrusted comment: x\nRU..\ntrusted comment: y\n..\n";
    let encoded = artifact(Some(signature)).encode();
    assert_eq!(encoded, artifact(Some(signature)).encode());
    let manifest = Manifest::read(&encoded.manifest).unwrap();
    assert_eq!(manifest.component, Descriptor::of(COMPONENT));
    assert_eq!(manifest.config, Descriptor::of(&encoded.config));
    assert_eq!(manifest.signature.as_deref(), Some(signature));
    check_config(&encoded.config, &manifest.component).unwrap();
    check_component(COMPONENT).unwrap();
    assert_eq!(Manifest::read(&artifact(None).encode().manifest).unwrap().signature, None);
}

/// What other tools look for.
#[test]
fn the_layout_is_the_one_of_the_working_group() {
    let encoded = artifact(None).encode();
    let manifest: Value = serde_json::from_slice(&encoded.manifest).unwrap();
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(manifest["annotations"]["org.opencontainers.image.title"], "redact");
    let config: Value = serde_json::from_slice(&encoded.config).unwrap();
    assert_eq!((&config["architecture"], &config["os"]), (&json!("wasm"), &json!("wasip2")));
    assert_eq!(config["layerDigests"][0], manifest["layers"][0]["digest"]);
    assert_eq!(config["component"]["exports"][0], "myelin:filter/filter@0.1.0");
    assert!(config["created"].is_string());
}

#[test]
fn what_is_no_artifact_of_a_component_is_refused() {
    let layer = |media_type: &str| Descriptor::of(COMPONENT).json(media_type);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": []});
    let unnamed_index = json!({"schemaVersion": 2, "manifests": [{"digest": "sha256:.."}]});
    let half = &artifact(None).encode().manifest[..100];
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "oci-manifest"),
        (b"[]".to_vec(), "oci-manifest"),
        (half.to_vec(), "oci-manifest"),
        (b"{\"schemaVersion\": 2, \"schemaVersion\": 2}".to_vec(), "oci-manifest"),
        (vec![b' '; usize::try_from(MANIFEST_BYTES_MAX).unwrap() + 1], "oci-too-large"),
        (vec![b'['; 60_000], "oci-manifest"),
        (index.to_string().into_bytes(), "oci-manifest"),
        (unnamed_index.to_string().into_bytes(), "oci-manifest"),
        (with("/schemaVersion", json!(1)), "oci-manifest"),
        (with("/mediaType", json!("application/vnd.docker.distribution.manifest.v2+json")), "oci-media-type"),
        (with("/config", Value::Null), "oci-manifest"),
        (with("/config/mediaType", json!("application/vnd.oci.image.config.v1+json")), "oci-media-type"),
        (with("/config/size", json!(CONFIG_BYTES_MAX + 1)), "oci-too-large"),
        (with("/layers", json!([])), "oci-layers"),
        (with("/layers", json!([layer(COMPONENT_TYPE), layer(COMPONENT_TYPE)])), "oci-layers"),
        (with("/layers", json!([layer(COMPONENT_TYPE), {"mediaType": "x", "digest": "y", "size": 1}])), "oci-layers"),
        (with("/layers/0/mediaType", json!("application/vnd.oci.image.layer.v1.tar+gzip")), "oci-media-type"),
        (with("/layers/0/mediaType", json!("Application/Wasm")), "oci-media-type"),
        (with("/layers/0/size", json!(MODULE_SIZE_MAX_BYTES + 1)), "oci-too-large"),
        (with("/layers/0/size", json!(u64::MAX)), "oci-too-large"),
        (with("/layers/0/size", json!(0)), "oci-manifest"),
        (with("/layers/0/size", json!(-1)), "oci-manifest"),
        (with("/layers/0/digest", json!("sha512:00")), "oci-manifest"),
        (with("/layers/0/digest", json!("sha256:../../x")), "oci-manifest"),
        (with("/annotations", json!({"a": 1})), "oci-manifest"),
    ];
    for (bytes, code) in cases {
        let refusal = Manifest::read(&bytes).unwrap_err();
        assert_eq!(refusal.code(), code, "{}: {refusal}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
        assert!(refusal.to_string().len() < 600, "{refusal}");
    }
}

#[test]
fn the_largest_module_that_there_may_be_is_taken() {
    let read = Manifest::read(&with("/layers/0/size", json!(MODULE_SIZE_MAX_BYTES))).unwrap();
    assert_eq!(read.component.size, MODULE_SIZE_MAX_BYTES);
}

#[test]
fn a_config_for_something_else_is_refused() {
    let component = Descriptor::of(COMPONENT);
    let config = |architecture: &str, os: &str, layers: Value| {
        json!({"architecture": architecture, "os": os, "layerDigests": layers}).to_string().into_bytes()
    };
    let own = json!([component.digest_text()]);
    check_config(&config("wasm", "wasip2", own.clone()), &component).unwrap();
    check_config(br#"{"architecture": "wasm", "os": "wasip2"}"#, &component).unwrap();
    let cases = [
        (config("amd64", "linux", own.clone()), "oci-architecture"),
        (config("wasm", "wasip1", own), "oci-architecture"),
        (config("wasm", "wasip2", json!(["sha256:00"])), "oci-layers"),
        (config("wasm", "wasip2", json!([])), "oci-layers"),
        (b"{}".to_vec(), "oci-manifest"),
    ];
    for (bytes, code) in cases {
        assert_eq!(check_config(&bytes, &component).unwrap_err().code(), code);
    }
    for bytes in [&b"\0asm\x01\0\0\0"[..], b"\x7fELF", b""] {
        assert_eq!(check_component(bytes).unwrap_err().code(), "oci-architecture");
    }
}

#[test]
fn bytes_are_checked_by_length_and_digest() {
    let described = Descriptor::of(COMPONENT);
    described.check("it", COMPONENT).unwrap();
    let mut other = COMPONENT.to_vec();
    other[9] ^= 1;
    assert_eq!(described.check("it", &other).unwrap_err().code(), "oci-digest-mismatch");
    assert_eq!(described.check("it", &COMPONENT[1..]).unwrap_err().code(), "oci-size-mismatch");
}
