//! Which authorities speak for which trust domain.
//!
//! An authority whose own certificate names a trust domain (a URI name `spiffe://DOMAIN`, as `myelin cert ca` writes it)
//! speaks for that one only; one that names none speaks for whichever it is trusted with. X.509 has name constraints for
//! this, and the verifier underneath refuses all chains in which there is one for URIs (rustls-webpki up to 0.103.17, the one
//! of `Cargo.lock`, has none of its own and fails closed; a test holds it to that): so it is looked at here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::extensions::GeneralName;

use super::{TlsError, TlsErrorKind, crypto_provider};
use crate::identity::Identity;

/// Most authorities that one refusal or warning names; of more it says how many.
const AUTHORITIES_TOLD_MAX: usize = 4;

/// Who checks the certificates of clients, and of servers.
#[derive(Clone)]
pub(super) struct Verifiers {
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    pub(super) servers: Arc<dyn ServerCertVerifier>,
}

/// The authorities of a `ca` file.
pub(super) struct Authorities {
    /// By the trust domain that is spoken for: our own, or, for whoever is nobody, each that is named.
    by_domain: BTreeMap<String, Verifiers>,
    /// Those that name none, for all other trust domains; only for whoever is nobody.
    any: Option<Verifiers>,
    /// Those that speak for another trust domain than ours, in words.
    left_out: Vec<String>,
}

/// One authority of a file: what it names.
struct Authority {
    certificate: CertificateDer<'static>,
    domains: BTreeSet<String>,
}

impl Authorities {
    /// The authorities in `certificates`, which are those of the file `path`, as far as they speak for the trust domain
    /// of `ours`. Others are left out: what they may say is refused anyway. To refuse the file would keep the one before
    /// in use, with an authority in it that perhaps was taken out for good reason, and keep a router from starting.
    ///
    /// # Errors
    /// A certificate that is no authority's; or no authority that speaks for this trust domain.
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        ours: &Identity,
        path: &Path,
    ) -> Result<Self, TlsError> {
        let named = certificates.into_iter().map(|certificate| {
            let domains = domains(&certificate).map_err(|problem| bad_roots(path, &problem))?;
            Ok(Authority { certificate, domains })
        });
        let all = named.collect::<Result<Vec<_>, TlsError>>()?;
        if ours.is_nobody() {
            return Self::of_all(&all, path);
        }
        let domain = ours.trust_domain();
        let (own, foreign): (Vec<_>, Vec<_>) = all.iter().partition(|authority| authority.speaks_for(domain));
        let left_out: Vec<_> = foreign.iter().map(|authority| authority.told(path, domain)).collect();
        if own.is_empty() {
            let (problem, more) = (left_out.iter().take(AUTHORITIES_TOLD_MAX), foreign.len() > AUTHORITIES_TOLD_MAX);
            let problem = problem.map(String::as_str).collect::<Vec<_>>().join("; ");
            return Err(TlsError::new(
                TlsErrorKind::ForeignAuthority,
                path,
                format!(
                    "there is no authority for this trust domain, {domain}: {problem}{}",
                    if more { ", and so on" } else { "" }
                ),
                "give the certificate of the authority that issues names of this trust domain",
            ));
        }
        let by_domain = BTreeMap::from([(domain.to_owned(), verifiers(own, path)?)]);
        Ok(Self { by_domain, any: None, left_out })
    }

    /// For whoever has no name, and so no trust domain: each authority for its own.
    fn of_all(all: &[Authority], path: &Path) -> Result<Self, TlsError> {
        let named: BTreeSet<&String> = all.iter().flat_map(|authority| &authority.domains).collect();
        let speaking = |domain: &str| all.iter().filter(|authority| authority.speaks_for(domain)).collect::<Vec<_>>();
        let of_one = |domain: &&String| Ok(((*domain).clone(), verifiers(speaking(domain), path)?));
        let by_domain = named.iter().map(of_one).collect::<Result<_, TlsError>>()?;
        let unnamed: Vec<_> = all.iter().filter(|authority| authority.domains.is_empty()).collect();
        let any = if unnamed.is_empty() { None } else { Some(verifiers(unnamed, path)?) };
        Ok(Self { by_domain, any, left_out: Vec::new() })
    }

    /// Who checks certificates for names of that trust domain; none where nobody speaks for it.
    pub(super) fn of(&self, domain: &str) -> Option<&Verifiers> {
        self.by_domain.get(domain).or(self.any.as_ref())
    }

    /// The authorities of the file that are not trusted, since they speak for another trust domain: each in words.
    pub(super) fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

impl Authority {
    fn speaks_for(&self, domain: &str) -> bool {
        self.domains.is_empty() || self.domains.contains(domain)
    }

    fn told(&self, path: &Path, ours: &str) -> String {
        let subject = match x509_parser::parse_x509_certificate(&self.certificate) {
            Ok((_, certificate)) => certificate.subject().to_string(),
            Err(_) => String::new(),
        };
        let domains = self.domains.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        // Whoever wrote the certificate chose both texts.
        let plain = |text: &str| text.chars().filter(|letter| !letter.is_control()).take(256).collect::<String>();
        format!(
            "the authority `{}` in {} names the trust domain {}, and not {ours}",
            plain(&subject),
            path.display(),
            plain(&domains)
        )
    }
}

/// Whether a certificate further up in a chain names trust domains, and `domain` is not one of them.
pub(super) fn is_foreign(certificate: &[u8], domain: &str) -> bool {
    // What cannot be read may name any.
    domains(certificate).map_or(true, |domains| !domains.is_empty() && !domains.contains(domain))
}

/// The trust domains that a certificate names.
fn domains(certificate: &[u8]) -> Result<BTreeSet<String>, String> {
    const SCHEME: &str = "spiffe://";
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let domain = |name: &GeneralName<'_>| {
        let GeneralName::URI(uri) = name else { return None };
        let rest = uri.get(SCHEME.len()..).filter(|_| uri[..SCHEME.len()].eq_ignore_ascii_case(SCHEME))?;
        Some(rest.split('/').next().unwrap_or_default().to_ascii_lowercase())
    };
    Ok(names.iter().flat_map(|extension| &extension.value.general_names).filter_map(domain).collect())
}

fn verifiers(authorities: Vec<&Authority>, path: &Path) -> Result<Verifiers, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.certificate.clone()).map_err(|error| bad_roots(path, &error))?;
    }
    let roots = Arc::new(roots);
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), crypto_provider())
        .build()
        .map_err(|error| bad_roots(path, &error))?;
    let servers = WebPkiServerVerifier::builder_with_provider(roots, crypto_provider())
        .build()
        .map_err(|error| bad_roots(path, &error))?;
    Ok(Verifiers { clients, servers })
}

fn bad_roots(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::new(
        TlsErrorKind::Malformed,
        path,
        format!("a CA certificate cannot be used: {error}"),
        "give the CA's own certificate, not one it issued",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair, SanType};
    use rustls::pki_types::UnixTime;

    fn authority(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn who_names_nothing_speaks_for_all_and_who_names_something_for_that() {
        let ours: Identity = "spiffe://own.example/service/a".parse().unwrap();
        let trusted = |uris: &[&str]| Authorities::new(vec![authority(uris)], &ours, Path::new("ca.pem")).is_ok();
        assert!(trusted(&[]), "as other tools make it");
        assert!(trusted(&["https://own.example/about"]), "no name of SPIFFE");
        assert!(trusted(&["spiffe://own.example"]) && trusted(&["spiffe://own.example/ca/1"]));
        assert!(trusted(&["SPIFFE://Own.Example"]), "neither is told apart by case");
        assert!(trusted(&["spiffe://other.example", "spiffe://own.example"]), "both");
        assert!(!trusted(&["spiffe://other.example"]) && !trusted(&["spiffe://other.example/own.example"]));
        assert!(!trusted(&["spiffe://own.example.other.example"]) && !trusted(&["spiffe://"]));
    }

    #[test]
    fn whoever_is_nobody_asks_those_who_speak_for_the_name() {
        let all = vec![authority(&["spiffe://a.example"]), authority(&["spiffe://b.example"])];
        let nobody = Authorities::new(all, &Identity::nobody(), Path::new("ca.pem")).unwrap();
        assert!(nobody.of("a.example").is_some() && nobody.of("b.example").is_some());
        assert!(nobody.of("c.example").is_none(), "nobody speaks for it");
        let any = Authorities::new(vec![authority(&[])], &Identity::nobody(), Path::new("ca.pem")).unwrap();
        assert!(any.of("c.example").is_some());
    }

    /// As soon as this fails, the verifier knows of name constraints for URIs, and `myelin cert ca` can write one.
    #[test]
    fn an_authority_with_a_name_constraint_for_uris_is_of_no_use_to_the_verifier() {
        let is_taken = |extensions: Vec<CustomExtension>| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.custom_extensions = extensions;
            let key = KeyPair::generate().unwrap();
            let root = params.self_signed(&key).unwrap().der().clone();
            let issuer = Issuer::new(params, key);
            let mut own = CertificateParams::default();
            own.subject_alt_names = vec![SanType::URI("spiffe://own.example/service/a".try_into().unwrap())];
            let own = own.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
            let ours: Identity = "spiffe://own.example/service/a".parse().unwrap();
            let authorities = Authorities::new(vec![root], &ours, Path::new("ca.pem")).unwrap();
            let clients = &authorities.of("own.example").unwrap().clients;
            clients.verify_client_cert(own.der(), &[], UnixTime::now()).is_ok()
        };
        // Permitted: names of the host `own.example`, which ours has.
        let mut constraint = vec![0x30, 0x11, 0xa0, 0x0f, 0x30, 0x0d, 0x86, 0x0b];
        constraint.extend(b"own.example");
        let constraint = CustomExtension::from_oid_content(&[2, 5, 29, 30], constraint);
        assert!(is_taken(Vec::new()) && !is_taken(vec![constraint]));
    }

    #[test]
    fn a_certificate_between_the_two_speaks_for_what_it_names() {
        assert!(is_foreign(&authority(&["spiffe://b.example"]), "a.example"));
        assert!(!is_foreign(&authority(&["spiffe://b.example"]), "b.example"));
        assert!(!is_foreign(&authority(&[]), "a.example") && is_foreign(b"nonsense", "a.example"));
    }
}
