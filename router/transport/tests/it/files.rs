//! What is written to disk, and what is made of what lies there.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use myelin_transport::ca::{CertificateAuthority, CertificateRequest};
use myelin_transport::{TlsErrorKind, TlsFiles, TlsIdentity};
use rustls::client::danger::ServerCertVerifier;

use crate::common::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn keys_are_for_their_owner_only_and_a_ca_is_never_overwritten() {
    let dir = tempfile::TempDir::new().unwrap();
    let home = dir.path().join("pki");
    let ca = CertificateAuthority::create("acme.example", 30).unwrap();
    ca.save(&home).unwrap();
    assert_eq!(mode(&home), 0o700);
    assert_eq!(mode(&home.join("ca-key.pem")), 0o600);
    assert_eq!(mode(&home.join("ca.pem")), 0o644);
    let (cert, key) = ca.issue_service("alice", 1).unwrap().save(&home, "alice").unwrap();
    assert_eq!((mode(&cert), mode(&key)), (0o644, 0o600));

    let kept = std::fs::read(home.join("ca-key.pem")).unwrap();
    let other = CertificateAuthority::create("acme.example", 30).unwrap();
    assert_eq!(other.save(&home).unwrap_err().code(), "ca-exists");
    assert_eq!(std::fs::read(home.join("ca-key.pem")).unwrap(), kept);
    let left: Vec<_> = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "no temporary files: {left:?}");
}

#[test]
fn a_loaded_ca_issues_what_the_saved_one_is_trusted_for() {
    let world = World::new();
    world.ca.save(world.dir.path()).unwrap();
    let loaded = CertificateAuthority::load(world.dir.path()).unwrap();
    assert_eq!(loaded.trust_domain(), TRUST_DOMAIN);
    let tls = TlsIdentity::load(&world.files("alice", &loaded.issue_service("alice", 1).unwrap())).unwrap();
    assert_eq!(tls.identity().as_str(), "spiffe://test.example/service/alice");
    assert!(tls.chain_bytes() < 1_000, "{} bytes", tls.chain_bytes());

    // Chains to the saved certificate, not only in name.
    let roots = webpki_roots(world.ca.cert_pem());
    let leaf = chain(&issue_router(&loaded));
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), myelin_transport::crypto_provider())
            .build()
            .unwrap();
    let name = "localhost".try_into().unwrap();
    verifier.verify_server_cert(&leaf[0], &[], &name, &[], rustls::pki_types::UnixTime::now()).unwrap();

    let other = CertificateAuthority::create(TRUST_DOMAIN, 1).unwrap();
    std::fs::write(world.path("ca.pem"), other.cert_pem()).unwrap();
    let error = CertificateAuthority::load(world.dir.path()).unwrap_err();
    assert!(error.to_string().contains("does not belong"), "{error}");
}

fn webpki_roots(pem: &str) -> rustls::RootCertStore {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    roots
}

#[test]
fn the_ca_refuses_what_it_cannot_stand_for() {
    let ca = CertificateAuthority::create("acme.example", 30).unwrap();
    let hosts = ["r1.acme.example".to_owned(), "*.acme.example".to_owned(), "::1".to_owned()];
    ca.issue_router("berlin", "r1", &hosts, 1).unwrap();
    assert_eq!(CertificateAuthority::create("Not A Domain", 1).unwrap_err().code(), "identity-trust-domain");
    assert_eq!(CertificateAuthority::create("a", 0).unwrap_err().code(), "ca-invalid-days");
    assert_eq!(ca.issue_service("a/b", 1).unwrap_err().code(), "identity-name");
    assert_eq!(ca.issue_service("a", 40_000).unwrap_err().code(), "ca-invalid-days");
    assert_eq!(ca.issue_router("s", "r", &[], 1).unwrap_err().code(), "ca-invalid-host");
    assert_eq!(ca.issue_router("s", "r", &["a b".into()], 1).unwrap_err().code(), "ca-invalid-host");
}

#[test]
fn every_unusable_file_is_named_with_what_to_do() {
    let world = World::new();
    let good = world.files("good", &issue_router(&world.ca));
    let write = |name: &str, text: &str| {
        std::fs::write(world.path(name), text).unwrap();
        world.path(name)
    };
    let files =
        |stem: &str, request: CertificateRequest| world.files(stem, &world.ca.issue_unchecked(&request).unwrap());
    let two = ["a", "b"].map(|name| format!("spiffe://{TRUST_DOMAIN}/service/{name}")).to_vec();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let unclosed = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let other = world.files("other", &issue_router(&world.ca));
    let missing = world.path("missing.pem");
    let directory = world.dir.path().to_path_buf();
    let leaf_as_ca = write("garbled-ca.pem", broken);
    let cases: Vec<(TlsFiles, TlsErrorKind)> = vec![
        (TlsFiles { cert: missing.clone(), ..good.clone() }, TlsErrorKind::Unreadable),
        (TlsFiles { key: missing.clone(), ..good.clone() }, TlsErrorKind::Unreadable),
        (TlsFiles { ca: missing, ..good.clone() }, TlsErrorKind::Unreadable),
        (TlsFiles { ca: directory, ..good.clone() }, TlsErrorKind::Unreadable),
        (TlsFiles { cert: write("empty.pem", ""), ..good.clone() }, TlsErrorKind::Empty),
        (TlsFiles { cert: good.key.clone(), ..good.clone() }, TlsErrorKind::Empty),
        (TlsFiles { key: good.cert.clone(), ..good.clone() }, TlsErrorKind::Empty),
        (TlsFiles { cert: write("unclosed.pem", unclosed), ..good.clone() }, TlsErrorKind::Malformed),
        (TlsFiles { ca: leaf_as_ca, ..good.clone() }, TlsErrorKind::Malformed),
        (TlsFiles { cert: write("broken.pem", broken), ..good.clone() }, TlsErrorKind::Identity),
        (TlsFiles { key: other.key, ..good.clone() }, TlsErrorKind::KeyMismatch),
        (files("two", CertificateRequest { uris: two, ..service_request() }), TlsErrorKind::Identity),
        (files("none", CertificateRequest { uris: Vec::new(), ..service_request() }), TlsErrorKind::Identity),
        (files("old", CertificateRequest { validity: expired(), ..service_request() }), TlsErrorKind::Expired),
        (
            files("new", CertificateRequest { validity: not_yet_valid(), ..service_request() }),
            TlsErrorKind::NotYetValid,
        ),
    ];
    for (files, kind) in cases {
        let error = TlsIdentity::load(&files).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!([&files.cert, &files.key, &files.ca].contains(&&error.file), "{error}");
        assert!(!error.remedy.is_empty() && !error.problem.is_empty());
    }
}

#[test]
fn settings_out_of_range_are_all_told_at_once() {
    let mut config = listener_config();
    config.validate().unwrap();
    config.quic.mtu_bytes_max = 6501;
    config.quic.keep_alive_ms = config.quic.idle_timeout_ms;
    config.alpn.clear();
    let errors = config.validate().unwrap_err();
    let keys: Vec<_> = errors.iter().map(|error| error.key).collect();
    assert_eq!(keys, ["mtu_bytes_max", "keep_alive_ms", "alpn"]);
}
