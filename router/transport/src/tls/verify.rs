//! The verifiers of both sides, and the names for why they refuse.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::authorities::{Verifiers, is_foreign};
use super::identity::Loaded;
use super::{TlsIdentity, crypto_provider};
use crate::identity::Identity;

/// Why a handshake was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The client showed no certificate.
    NoCertificate,
    /// The certificate does not chain to a trusted CA.
    WrongAuthority,
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not come.
    NotYetValid,
    /// The peer says that our certificate is expired or not yet valid; TLS has one alert for both.
    OutsideValidity,
    /// The server's certificate is not for the name that was dialled.
    WrongName,
    /// Not exactly one URI name, not one of ours, another trust domain, or a service where a router must be.
    WrongIdentity,
    /// The certificate may not be used for this side of a connection.
    WrongPurpose,
    /// The certificate or its signature is damaged.
    BadCertificate,
    /// No application protocol in common.
    WrongAlpn,
    /// The listener is full or stopping.
    Busy,
    /// Any other end of a handshake.
    Handshake,
}

impl Refusal {
    /// All refusals, in the order of their discriminants.
    pub const ALL: [Self; 12] = [
        Self::NoCertificate,
        Self::WrongAuthority,
        Self::Expired,
        Self::NotYetValid,
        Self::OutsideValidity,
        Self::WrongName,
        Self::WrongIdentity,
        Self::WrongPurpose,
        Self::BadCertificate,
        Self::WrongAlpn,
        Self::Busy,
        Self::Handshake,
    ];

    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::WrongAuthority => "wrong-authority",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::OutsideValidity => "outside-validity",
            Self::WrongName => "wrong-name",
            Self::WrongIdentity => "wrong-identity",
            Self::WrongPurpose => "wrong-purpose",
            Self::BadCertificate => "bad-certificate",
            Self::WrongAlpn => "wrong-alpn",
            Self::Busy => "busy",
            Self::Handshake => "handshake-failed",
        }
    }

    /// The refusal that a QUIC transport error code tells, if it is one: TLS alerts are 0x100 + alert.
    pub(crate) fn from_quic_code(code: u64) -> Option<Self> {
        const CONNECTION_REFUSED: u64 = 0x2;
        match code {
            CONNECTION_REFUSED => Some(Self::Busy),
            0x100..=0x1ff => Some(match code & 0xff {
                // All alerts that rustls has for the faults of a certificate and that have no line of their own below.
                42 | 44 | 46 | 51 | 113 => Self::BadCertificate,
                43 => Self::WrongPurpose,
                45 => Self::OutsideValidity,
                48 => Self::WrongAuthority,
                49 => Self::WrongIdentity,
                116 => Self::NoCertificate,
                120 => Self::WrongAlpn,
                _ => Self::Handshake,
            }),
            _ => None,
        }
    }

    /// Whether the alert for this refusal is raised by our own certificate verifier, which has told the sink already.
    pub(crate) fn is_of_certificate(self) -> bool {
        !matches!(self, Self::NoCertificate | Self::WrongAlpn | Self::Busy | Self::Handshake)
    }

    fn of(error: &Error) -> Self {
        use CertificateError as C;
        let Error::InvalidCertificate(error) = error else { return Self::BadCertificate };
        match error {
            C::Expired | C::ExpiredContext { .. } => Self::Expired,
            C::NotValidYet | C::NotValidYetContext { .. } => Self::NotYetValid,
            // Two CAs of one name: the chain is found by name, then its signature fails.
            C::UnknownIssuer | C::BadSignature => Self::WrongAuthority,
            C::NotValidForName | C::NotValidForNameContext { .. } => Self::WrongName,
            C::InvalidPurpose | C::InvalidPurposeContext { .. } => Self::WrongPurpose,
            C::ApplicationVerificationFailure => Self::WrongIdentity,
            _ => Self::BadCertificate,
        }
    }
}

/// Where the verifiers tell why they refused: TLS alerts alone cannot carry it.
#[derive(Clone, Default)]
pub(crate) struct RefusalSink(Option<Arc<dyn Fn(Refusal) + Send + Sync>>);

impl RefusalSink {
    pub(crate) fn new(sink: impl Fn(Refusal) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(sink)))
    }

    fn tell(&self, error: Error) -> Error {
        if let Some(sink) = &self.0 {
            sink(Refusal::of(&error));
        }
        match error {
            // Sent as `unknown_ca`, so that the other side reads what really is wrong.
            Error::InvalidCertificate(CertificateError::BadSignature) => CertificateError::UnknownIssuer.into(),
            other => other,
        }
    }
}

impl fmt::Debug for RefusalSink {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("RefusalSink")
    }
}

/// The listener's side: the chain, then the identity.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) tls: TlsIdentity,
    pub(super) mandatory: bool,
    pub(super) refusals: RefusalSink,
}

impl ClientVerifier {
    fn verify(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let current = self.tls.current();
        current.verifiers(leaf)?.clients.verify_client_cert(leaf, rest, now)?;
        current.identify(leaf, rest).map(drop)
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    // No hints: they would tell strangers whom we trust, and the list could not follow a reload.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, rest, now).map_err(|error| self.refusals.tell(error))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &crypto_provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &crypto_provider().signature_verification_algorithms)
            .map_err(|error| self.refusals.tell(error))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The dialling side: the chain, the name that was dialled, then that this is a router of our trust domain.
#[derive(Debug)]
pub(super) struct RouterVerifier {
    pub(super) tls: TlsIdentity,
    pub(super) refusals: RefusalSink,
}

impl ServerCertVerifier for RouterVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = || {
            let current = self.tls.current();
            current.verifiers(leaf)?.servers.verify_server_cert(leaf, rest, name, ocsp, now)?;
            match current.identify(leaf, rest)?.is_router() {
                true => Ok(()),
                false => Err(wrong_identity()),
            }
        };
        verify().map_err(|error| self.refusals.tell(error))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &crypto_provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &crypto_provider().signature_verification_algorithms)
            .map_err(|error| self.refusals.tell(error))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl Loaded {
    /// Who checks where a certificate comes from. Who has a name asks those who speak for its own trust domain; who has
    /// none, those who speak for the trust domain of the certificate.
    fn verifiers(&self, leaf: &CertificateDer<'_>) -> Result<&Verifiers, Error> {
        let verifiers = match self.identity.is_nobody() {
            true => self.authorities.of(named(leaf)?.trust_domain()),
            false => self.authorities.of(self.identity.trust_domain()),
        };
        verifiers.ok_or_else(|| CertificateError::UnknownIssuer.into())
    }

    /// Who a verified certificate names. A CA may have signed more than its own trust domain: the bundle speaks for ours
    /// only, and so does each certificate between the two.
    fn identify(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<Identity, Error> {
        let peer = named(leaf)?;
        let is_ours = self.identity.is_nobody() || peer.trust_domain() == self.identity.trust_domain();
        if !is_ours || rest.iter().any(|above| is_foreign(above, peer.trust_domain())) {
            return Err(wrong_identity());
        }
        Ok(peer)
    }
}

fn named(leaf: &CertificateDer<'_>) -> Result<Identity, Error> {
    Identity::from_certificate(leaf).map_err(|_| wrong_identity())
}

fn wrong_identity() -> Error {
    CertificateError::ApplicationVerificationFailure.into()
}
