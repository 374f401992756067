//! What a registry of artifacts says, and what names one.

use super::REFUSAL_BYTES_MAX;
use myelin_catalog::limits::MODULE_SIZE_MAX_BYTES;
use myelin_oci::{
    CHALLENGE_BYTES_MAX, CONFIG_BYTES_MAX, Challenge, Credentials, MANIFEST_BYTES_MAX, Manifest, OciError, Reference,
    Registry, check_component, check_config,
};

/// Whose credentials are looked for.
const REGISTRY: &str = "registry.example:5000";

/// The bytes are a reference, a challenge, a file with credentials, a manifest, a config, and a component.
pub(super) fn oci(data: &[u8]) {
    let registry: Registry = REGISTRY.parse().expect("a registry");
    if let Ok(text) = std::str::from_utf8(data) {
        if let Some(reference) = told(text.parse::<Reference>()) {
            assert_eq!(reference.to_string().parse(), Ok(reference.clone()), "written and read again");
            assert!(reference.tag().is_some() || reference.digest().is_some());
            let path = reference.repository();
            assert!(!path.split('/').any(|part| matches!(part, "" | "." | "..")), "{path:?} stays where it is");
            assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)), "{path:?}");
            let host = reference.registry().host();
            assert!(host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-".contains(&byte)), "{host:?}");
        }
        if let Some(Some(Challenge::Bearer { realm, service, scope })) = told(Challenge::read(text, REGISTRY)) {
            let read = realm.len() + service.map_or(0, |text| text.len()) + scope.map_or(0, |text| text.len());
            assert!(read <= text.len() && text.len() <= CHALLENGE_BYTES_MAX, "no more than was there");
        }
        if let Some(Some(found)) = told(Credentials::of_docker(text, &registry)) {
            assert!(!found.basic().bytes().any(|byte| byte.is_ascii_control()), "it can stand in a header");
        }
    }
    if let Some(manifest) = told(Manifest::read(data)) {
        assert!(data.len() as u64 <= MANIFEST_BYTES_MAX);
        assert!((1..=MODULE_SIZE_MAX_BYTES).contains(&manifest.component.size));
        assert!((1..=CONFIG_BYTES_MAX).contains(&manifest.config.size));
        let is_it = manifest.component.check("it", data).is_ok();
        assert!(!is_it, "a manifest that names itself");
        told(check_config(data, &manifest.component));
    }
    let component = myelin_oci::Descriptor::of(b"a component");
    told(check_config(data, &component));
    told(check_component(data));
    assert!(component.check("it", data).is_ok() == (data == b"a component"));
}

/// What was read; a refusal has a code and a sentence of one line.
fn told<T>(read: Result<T, OciError>) -> Option<T> {
    read.map_err(|refusal| {
        let told = refusal.to_string();
        assert!(refusal.code().starts_with("oci-") && told.len() < REFUSAL_BYTES_MAX, "{} bytes: {told}", told.len());
        assert!(!told.contains(char::is_control), "{told:?}");
    })
    .ok()
}
