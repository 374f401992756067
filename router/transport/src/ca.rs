//! A small certificate authority: what `myelin cert ca`, `myelin cert issue` and `--dev` call.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use crate::identity::{Identity, IdentityError, check_trust_domain};

/// File name of a CA's certificate.
pub const CA_CERT_FILE: &str = "ca.pem";
/// File name of a CA's private key.
pub const CA_KEY_FILE: &str = "ca-key.pem";

/// Certificates begin this long before now: the clocks of a fleet differ a little.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
const VALIDITY_DAYS_MAX: u32 = 36_500;

/// A certificate authority with its private key (ECDSA P-256), for one trust domain.
pub struct CertificateAuthority {
    trust_domain: String,
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct IssuedCertificate {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key (PKCS#8). A secret.
    pub key_pem: String,
}

/// Whose certificate a PEM file holds: the first that is there, whether it is good or not. None where there is none that says
/// it.
pub fn holder(pem: &str) -> Option<Identity> {
    let first = CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()?;
    Identity::from_certificate(&first).ok()
}

/// From when until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub not_before: SystemTime,
    /// Its last moment.
    pub not_after: SystemTime,
}

/// Everything about a certificate to be issued, unchecked. [`CertificateAuthority::issue_unchecked`] makes what no
/// operator should have: it is there for tests of refusals.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    /// URI subject alternative names.
    pub uris: Vec<String>,
    /// DNS names and IP addresses as subject alternative names.
    pub hosts: Vec<String>,
    /// The validity.
    pub validity: Validity,
    /// Whether it may serve.
    pub for_server: bool,
    /// Whether it may dial.
    pub for_client: bool,
}

/// Why a certificate was not made, saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The trust domain or a name will not do.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A name for the certificate is neither a DNS name nor an IP address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Host(String),
    /// No validity at all, or one beyond a century.
    #[error("{0} days of validity; give 1 to 36500")]
    Days(u32),
    /// There is something already where a CA was to be saved: replacing one cuts off everybody who trusts it.
    #[error("{} exists already; remove it first if the old CA is really to go", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file holds no usable CA.
    #[error("{}: {problem}", .file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Key generation or signing failed.
    #[error("cannot make the certificate: {0}")]
    Crypto(String),
}

impl CaError {
    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Identity(error) => error.code(),
            Self::Host(_) => "ca-invalid-host",
            Self::Days(_) => "ca-invalid-days",
            Self::Exists(_) => "ca-exists",
            Self::Io { .. } => "ca-io",
            Self::Malformed { .. } => "ca-malformed",
            Self::Crypto(_) => "ca-crypto",
        }
    }
}

impl Validity {
    /// From five minutes ago, for clocks that differ, until `days` from now.
    ///
    /// # Errors
    /// [`CaError::Days`] for 0 or more than 36,500.
    pub fn days(days: u32) -> Result<Self, CaError> {
        if !(1..=VALIDITY_DAYS_MAX).contains(&days) {
            return Err(CaError::Days(days));
        }
        let now = SystemTime::now();
        Ok(Self { not_before: now - CLOCK_SKEW, not_after: now + Duration::from_secs(u64::from(days) * 86_400) })
    }
}

impl CertificateAuthority {
    /// Makes a new CA with a new key.
    ///
    /// # Errors
    /// [`CaError`] when the trust domain or the days will not do.
    pub fn create(trust_domain: &str, days: u32) -> Result<Self, CaError> {
        check_trust_domain(trust_domain)?;
        let validity = Validity::days(days)?;
        let key = generate_key()?;
        let mut params = base_params(&validity);
        // Two CAs of one trust domain must differ in name, or verifiers take one for the other and see bad signatures.
        let mark: String = key.public_key_raw().iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name.push(DnType::CommonName, format!("Myelin CA {trust_domain} {mark}"));
        // No name constraint says it: the verifier would refuse every chain. See `tls::authorities`.
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert_pem = params.self_signed(&key).map_err(crypto)?.pem();
        Ok(Self { trust_domain: trust_domain.to_owned(), cert_pem, issuer: Issuer::new(params, key) })
    }

    /// Loads the CA that [`save`](Self::save) wrote to `dir`.
    ///
    /// # Errors
    /// [`CaError`] names the file and the problem.
    pub fn load(dir: &Path) -> Result<Self, CaError> {
        let (cert_file, key_file) = (dir.join(CA_CERT_FILE), dir.join(CA_KEY_FILE));
        let read =
            |file: &Path| fs::read_to_string(file).map_err(|source| CaError::Io { file: file.to_path_buf(), source });
        let malformed = |file: &Path, problem: String| CaError::Malformed { file: file.to_path_buf(), problem };
        let cert_pem = read(&cert_file)?;
        let key = KeyPair::from_pem(&read(&key_file)?).map_err(|error| malformed(&key_file, error.to_string()))?;
        let trust_domain = ca_trust_domain(&cert_pem, &key).map_err(|problem| malformed(&cert_file, problem))?;
        let issuer =
            Issuer::from_ca_cert_pem(&cert_pem, key).map_err(|error| malformed(&cert_file, error.to_string()))?;
        Ok(Self { trust_domain, cert_pem, issuer })
    }

    /// Writes `ca.pem` (0644) and `ca-key.pem` (0600) into `dir`, which is made (0700) if need be.
    ///
    /// # Errors
    /// [`CaError::Exists`] when one is there already; [`CaError::Io`] otherwise.
    pub fn save(&self, dir: &Path) -> Result<(), CaError> {
        make_dir(dir)?;
        let (cert_file, key_file) = (dir.join(CA_CERT_FILE), dir.join(CA_KEY_FILE));
        for file in [&cert_file, &key_file] {
            if file.exists() {
                return Err(CaError::Exists(file.clone()));
            }
        }
        write_atomically(&key_file, &self.issuer.key().serialize_pem(), 0o600)?;
        write_atomically(&cert_file, &self.cert_pem, 0o644)
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The CA's certificate: what peers trust.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Issues a service's certificate: it may dial, not serve.
    ///
    /// # Errors
    /// [`CaError`] when the name or the days will not do.
    pub fn issue_service(&self, name: &str, days: u32) -> Result<IssuedCertificate, CaError> {
        let identity = Identity::service(&self.trust_domain, name)?;
        self.issue_unchecked(&CertificateRequest {
            uris: vec![identity.as_str().to_owned()],
            hosts: Vec::new(),
            validity: Validity::days(days)?,
            for_server: false,
            for_client: true,
        })
    }

    /// Issues a router's certificate: it may serve and dial. `hosts` are the DNS names and IP addresses that clients
    /// dial it by.
    ///
    /// # Errors
    /// [`CaError`] when a name or the days will not do.
    pub fn issue_router(
        &self,
        site: &str,
        name: &str,
        hosts: &[String],
        days: u32,
    ) -> Result<IssuedCertificate, CaError> {
        let identity = Identity::router(&self.trust_domain, site, name)?;
        if hosts.is_empty() {
            return Err(CaError::Host(String::new()));
        }
        self.issue_unchecked(&CertificateRequest {
            uris: vec![identity.as_str().to_owned()],
            hosts: hosts.to_vec(),
            validity: Validity::days(days)?,
            for_server: true,
            for_client: true,
        })
    }

    /// Issues whatever is asked for: expired, without or with several identities. For tests of refusals.
    ///
    /// # Errors
    /// [`CaError`] when a name cannot be written into a certificate.
    pub fn issue_unchecked(&self, request: &CertificateRequest) -> Result<IssuedCertificate, CaError> {
        let key = generate_key()?;
        let mut params = base_params(&request.validity);
        if let Some(identity) = request.uris.first() {
            // X.509 allows 64 characters here, and nothing reads it: the identity is in the URI.
            let name: String = identity.chars().rev().take(64).collect::<Vec<_>>().into_iter().rev().collect();
            params.distinguished_name.push(DnType::CommonName, name);
        }
        for text in &request.uris {
            params.subject_alt_names.push(uri(text)?);
        }
        for text in &request.hosts {
            params.subject_alt_names.push(host(text)?);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if request.for_server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if request.for_client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        let cert_pem = params.signed_by(&key, &self.issuer).map_err(crypto)?.pem();
        Ok(IssuedCertificate { cert_pem, key_pem: key.serialize_pem() })
    }
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "CertificateAuthority({})", self.trust_domain)
    }
}

impl std::fmt::Debug for IssuedCertificate {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("IssuedCertificate(key elided)")
    }
}

impl IssuedCertificate {
    /// Writes `<stem>.pem` (0644) and `<stem>-key.pem` (0600) into `dir`, each whole or not at all, over older ones.
    /// Returns the two paths.
    ///
    /// # Errors
    /// [`CaError::Io`] names the file.
    pub fn save(&self, dir: &Path, stem: &str) -> Result<(PathBuf, PathBuf), CaError> {
        make_dir(dir)?;
        let (cert, key) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}-key.pem")));
        write_atomically(&key, &self.key_pem, 0o600)?;
        write_atomically(&cert, &self.cert_pem, 0o644)?;
        Ok((cert, key))
    }
}

fn generate_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto)
}

fn crypto(error: rcgen::Error) -> CaError {
    CaError::Crypto(error.to_string())
}

fn base_params(validity: &Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = OffsetDateTime::from(validity.not_before);
    params.not_after = OffsetDateTime::from(validity.not_after);
    params
}

fn uri(text: &str) -> Result<SanType, CaError> {
    Ok(SanType::URI(text.try_into().map_err(|_| CaError::Host(text.to_owned()))?))
}

fn host(text: &str) -> Result<SanType, CaError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    rustls::pki_types::DnsName::try_from(text.strip_prefix("*.").unwrap_or(text))
        .map_err(|_| CaError::Host(text.to_owned()))?;
    Ok(SanType::DnsName(text.try_into().map_err(|_| CaError::Host(text.to_owned()))?))
}

/// The trust domain of a CA certificate: its one URI name is `spiffe://<trust-domain>`.
fn ca_trust_domain(cert_pem: &str, key: &KeyPair) -> Result<String, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use x509_parser::extensions::GeneralName;
    let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|error| error.to_string())?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|error| error.to_string())?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(format!("{CA_KEY_FILE} does not belong to this certificate"));
    }
    let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris[..] {
        [only] if only.starts_with("spiffe://") => {
            let trust_domain = &only["spiffe://".len()..];
            check_trust_domain(trust_domain).map_err(|error| error.to_string())?;
            Ok(trust_domain.to_owned())
        }
        _ => Err("this CA does not name its trust domain (one URI name spiffe://<trust-domain>)".to_owned()),
    }
}

fn make_dir(dir: &Path) -> Result<(), CaError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| CaError::Io { file: dir.to_path_buf(), source })
}

/// Readers see the old file or the whole new one: a reload may look at any moment.
fn write_atomically(file: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    // In a folder where others may write as well, nobody is to know the name before.
    name.push(format!(".{:016x}.new", RandomState::new().hash_one(std::process::id())));
    let temporary = file.with_file_name(name);
    let write = || -> io::Result<()> {
        // A file or a link that lay there would be written, with the mode that its owner gave it: it is refused.
        let mut out: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&temporary, file)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        CaError::Io { file: file.to_path_buf(), source }
    })
}
