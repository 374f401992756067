//! Who is on the other end: the one SPIFFE name of a certificate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;

/// Longest identity in bytes; the SPIFFE standard's own limit.
pub const IDENTITY_BYTES_MAX: usize = 2048;
/// Longest trust domain in bytes.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// Longest site, router or service name in bytes: they become metric labels and log fields.
pub const NAME_BYTES_MAX: usize = 128;

/// A verified or configured name: `spiffe://<trust-domain>/service/<name>` or
/// `spiffe://<trust-domain>/site/<site>/router/<name>`.
///
/// Cheap to clone. Two identities are equal when their text is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<str>);

/// What an [`Identity`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdentityKind<'a> {
    /// A program that publishes or subscribes.
    Service {
        /// The service's name.
        name: &'a str,
    },
    /// A `myelin serve` process.
    Router {
        /// The site the router stands at.
        site: &'a str,
        /// The router's name within its site.
        name: &'a str,
    },
}

impl Identity {
    /// Parses and validates an identity.
    ///
    /// # Errors
    /// [`IdentityError`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        if text.len() > IDENTITY_BYTES_MAX {
            return Err(IdentityError::TooLong { bytes: text.len() });
        }
        let (trust_domain, path) = split(text).ok_or_else(|| IdentityError::NotSpiffe { text: shorten(text) })?;
        check_trust_domain(trust_domain)?;
        let mut segments = path.split('/');
        let parts = [segments.next(), segments.next(), segments.next(), segments.next(), segments.next()];
        let names: &[&str] = match parts {
            [Some("service"), Some(name), None, ..] => &[name],
            [Some("site"), Some(site), Some("router"), Some(name), None] => &[site, name],
            _ => return Err(IdentityError::UnknownPath { text: shorten(text) }),
        };
        for name in names {
            check_name(name)?;
        }
        Ok(Self(Arc::from(text)))
    }

    /// The identity of a service.
    ///
    /// # Errors
    /// [`IdentityError`] when a part holds what an identity may not.
    pub fn service(trust_domain: &str, name: &str) -> Result<Self, IdentityError> {
        check_trust_domain(trust_domain)?;
        check_name(name)?;
        Ok(Self(format!("spiffe://{trust_domain}/service/{name}").into()))
    }

    /// The identity of a router.
    ///
    /// # Errors
    /// [`IdentityError`] when a part holds what an identity may not.
    pub fn router(trust_domain: &str, site: &str, name: &str) -> Result<Self, IdentityError> {
        check_trust_domain(trust_domain)?;
        check_name(site)?;
        check_name(name)?;
        Ok(Self(format!("spiffe://{trust_domain}/site/{site}/router/{name}").into()))
    }

    /// The identity in a certificate (DER): its only URI subject alternative name.
    ///
    /// # Errors
    /// [`IdentityError`] when there is none, more than one, or one that does not parse.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| IdentityError::Malformed)?;
        let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
        let mut uris =
            names.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            });
        let Some(only) = uris.next() else { return Err(IdentityError::Missing) };
        match uris.count() {
            0 => Self::parse(only),
            more => Err(IdentityError::Several { count: more + 1 }),
        }
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain: the part that one CA bundle stands for.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        split(&self.0).map_or("", |(trust_domain, _)| trust_domain)
    }

    /// What this names.
    #[must_use]
    pub fn kind(&self) -> IdentityKind<'_> {
        let path = split(&self.0).map_or("", |(_, path)| path);
        match path.strip_prefix("site/").and_then(|rest| rest.split_once("/router/")) {
            Some((site, name)) => IdentityKind::Router { site, name },
            None => IdentityKind::Service { name: path.strip_prefix("service/").unwrap_or(path) },
        }
    }

    /// The name of the service or of the router.
    #[must_use]
    pub fn name(&self) -> &str {
        match self.kind() {
            IdentityKind::Service { name } | IdentityKind::Router { name, .. } => name,
        }
    }

    /// Whether this names a router.
    #[must_use]
    pub fn is_router(&self) -> bool {
        matches!(self.kind(), IdentityKind::Router { .. })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Identity({})", self.0)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Why a text or a certificate holds no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The certificate has no URI subject alternative name.
    #[error("the certificate names nobody: it needs exactly one URI subject alternative name (spiffe://...)")]
    Missing,
    /// The certificate has more than one URI subject alternative name.
    #[error("the certificate has {count} URI subject alternative names, where exactly one is allowed")]
    Several {
        /// How many there are.
        count: usize,
    },
    /// The certificate cannot be read.
    #[error("the certificate is not well-formed X.509")]
    Malformed,
    /// Not a `spiffe://` name with a trust domain and a path.
    #[error("`{text}` is not of the form spiffe://<trust-domain>/<path>")]
    NotSpiffe {
        /// The offending text, shortened.
        text: String,
    },
    /// A path of neither known form.
    #[error("the path of `{text}` is neither /service/<name> nor /site/<site>/router/<name>")]
    UnknownPath {
        /// The offending text, shortened.
        text: String,
    },
    /// The trust domain is empty, too long or holds a forbidden character.
    #[error("the trust domain `{text}` must be 1 to 255 of a-z 0-9 . - _")]
    TrustDomain {
        /// The offending text, shortened.
        text: String,
    },
    /// A name is empty, too long or holds a forbidden character.
    #[error("the name `{text}` must be 1 to 128 of A-Z a-z 0-9 . - _, and not . or ..")]
    Name {
        /// The offending text, shortened.
        text: String,
    },
    /// Longer than [`IDENTITY_BYTES_MAX`].
    #[error("the identity has {bytes} bytes; 2048 are allowed")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
}

impl IdentityError {
    /// Stable code for metrics, logs and documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "identity-missing",
            Self::Several { .. } => "identity-several",
            Self::Malformed => "identity-malformed",
            Self::NotSpiffe { .. } | Self::UnknownPath { .. } | Self::TooLong { .. } => "identity-form",
            Self::TrustDomain { .. } => "identity-trust-domain",
            Self::Name { .. } => "identity-name",
        }
    }
}

pub(crate) fn check_trust_domain(text: &str) -> Result<(), IdentityError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    if text.is_empty() || text.len() > TRUST_DOMAIN_BYTES_MAX || !text.bytes().all(allowed) {
        return Err(IdentityError::TrustDomain { text: shorten(text) });
    }
    Ok(())
}

fn check_name(text: &str) -> Result<(), IdentityError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let dots = text == "." || text == "..";
    if text.is_empty() || text.len() > NAME_BYTES_MAX || dots || !text.bytes().all(allowed) {
        return Err(IdentityError::Name { text: shorten(text) });
    }
    Ok(())
}

fn split(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("spiffe://")?.split_once('/')
}

/// Hostile names end up in error sentences: cut them and take out what a terminal would act on.
fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    text.chars().take(SHOWN_CHARS_MAX).map(|char| if char.is_control() { '?' } else { char }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn both_forms_parse_and_say_what_they_name() {
        let service = Identity::parse("spiffe://acme.example/service/meter-reader").unwrap();
        assert_eq!(service.trust_domain(), "acme.example");
        assert_eq!(service.kind(), IdentityKind::Service { name: "meter-reader" });
        assert_eq!(service, Identity::service("acme.example", "meter-reader").unwrap());

        let router = Identity::parse("spiffe://acme.example/site/berlin/router/r1").unwrap();
        assert_eq!(router.kind(), IdentityKind::Router { site: "berlin", name: "r1" });
        assert!(router.is_router() && !service.is_router());
        assert_eq!(router, Identity::router("acme.example", "berlin", "r1").unwrap());
    }

    #[test]
    fn a_service_named_like_a_path_stays_a_service() {
        // `router` is a fine name; only the whole path decides.
        let service = Identity::parse("spiffe://a/service/router").unwrap();
        assert_eq!(service.kind(), IdentityKind::Service { name: "router" });
    }

    #[test]
    fn other_forms_are_refused_with_a_code() {
        for (text, code) in [
            ("", "identity-form"),
            ("https://a/service/b", "identity-form"),
            ("spiffe://a", "identity-form"),
            ("spiffe:///service/b", "identity-trust-domain"),
            ("spiffe://A/service/b", "identity-trust-domain"),
            ("spiffe://a:1/service/b", "identity-trust-domain"),
            ("spiffe://user@a/service/b", "identity-trust-domain"),
            ("spiffe://a/service/", "identity-name"),
            ("spiffe://a/service/b/", "identity-form"),
            ("spiffe://a/service/b?c", "identity-name"),
            ("spiffe://a/service/..", "identity-name"),
            ("spiffe://a/service/b%20c", "identity-name"),
            ("spiffe://a/service/b/c", "identity-form"),
            ("spiffe://a/site/s/router", "identity-form"),
            ("spiffe://a/site//router/r", "identity-name"),
            ("spiffe://a/site/s/router/r/x", "identity-form"),
            ("spiffe://a/workload/b", "identity-form"),
            ("spiffe://a/service/\u{1b}[2J", "identity-name"),
        ] {
            assert_eq!(Identity::parse(text).unwrap_err().code(), code, "{text:?}");
        }
        let long = format!("spiffe://a/service/{}", "b".repeat(IDENTITY_BYTES_MAX));
        assert_eq!(Identity::parse(&long).unwrap_err().code(), "identity-form");
        let long = format!("spiffe://a/service/{}", "b".repeat(NAME_BYTES_MAX + 1));
        assert_eq!(Identity::parse(&long).unwrap_err().code(), "identity-name");
    }

    #[test]
    fn error_sentences_carry_no_terminal_escapes() {
        let error = Identity::parse("spiffe://a/service/\u{1b}[2J").unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
