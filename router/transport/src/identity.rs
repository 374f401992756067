//! Who is on the other end: the one SPIFFE name of a certificate.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;

/// Longest identity in bytes; the SPIFFE standard's own limit.
pub const IDENTITY_BYTES_MAX: usize = 2048;
/// Longest trust domain in bytes.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// Longest site, router or service name in bytes: they become metric labels and log fields.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest subject of a token in bytes, as it stands in an identity: a service account of Kubernetes with two long names
/// has 155, and the whole must fit into a record of the catalog.
pub const SUBJECT_BYTES_MAX: usize = 160;
/// The text of whoever has not shown a name.
const NOBODY: &str = "nobody";

/// A verified or configured name: `spiffe://<trust-domain>/service/<name>`,
/// `spiffe://<trust-domain>/site/<site>/router/<name>` or, of whoever shows a token,
/// `spiffe://<trust-domain>/jwt/<issuer>/<subject>`.
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
    /// Whoever shows a token of an issuer. No certificate is for such a name.
    Bearer {
        /// The issuer, as the configuration calls it.
        issuer: &'a str,
        /// The token's subject, escaped.
        subject: &'a str,
    },
    /// Whoever has shown neither certificate nor token.
    Nobody,
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
            [Some("jwt"), Some(issuer), Some(subject), None, ..] => {
                check_subject(subject)?;
                &[issuer]
            }
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

    /// The identity of whoever shows a token of `issuer` with the `sub` `subject`. What a name may not hold is escaped,
    /// each byte as `_` and two hexadecimal digits: `alice@example.org` becomes `alice_40example.org`.
    ///
    /// # Errors
    /// [`IdentityError`] when a part holds what an identity may not, or the subject is empty or too long.
    pub fn bearer(trust_domain: &str, issuer: &str, subject: &str) -> Result<Self, IdentityError> {
        check_trust_domain(trust_domain)?;
        check_name(issuer)?;
        let escaped = escape(subject);
        check_subject(&escaped)?;
        Ok(Self(format!("spiffe://{trust_domain}/jwt/{issuer}/{escaped}").into()))
    }

    /// Whoever has shown neither certificate nor token. Not the name of anybody.
    #[must_use]
    pub fn nobody() -> Self {
        Self(NOBODY.into())
    }

    /// Whether this is [`nobody`](Self::nobody).
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        &*self.0 == NOBODY
    }

    /// The identity in a certificate (DER): its only URI subject alternative name.
    ///
    /// # Errors
    /// [`IdentityError`] when there is none, more than one, or one that is neither a service's nor a router's.
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
            0 => match Self::parse(only)? {
                // Whose tokens are good decides who has such a name, not who has a certificate.
                identity if matches!(identity.kind(), IdentityKind::Bearer { .. }) => {
                    Err(IdentityError::UnknownPath { text: shorten(only) })
                }
                identity => Ok(identity),
            },
            more => Err(IdentityError::Several { count: more + 1 }),
        }
    }

    /// The names and addresses that a certificate (DER) may be dialled by, as it has them.
    #[must_use]
    pub fn hosts_of_certificate(der: &[u8]) -> Vec<String> {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else { return Vec::new() };
        let Ok(names) = certificate.subject_alternative_name() else { return Vec::new() };
        let host = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match **bytes {
                [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            },
            _ => None,
        };
        names.iter().flat_map(|extension| &extension.value.general_names).filter_map(host).collect()
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
        if let Some((site, name)) = path.strip_prefix("site/").and_then(|rest| rest.split_once("/router/")) {
            return IdentityKind::Router { site, name };
        }
        if let Some((issuer, subject)) = path.strip_prefix("jwt/").and_then(|rest| rest.split_once('/')) {
            return IdentityKind::Bearer { issuer, subject };
        }
        match path.strip_prefix("service/") {
            Some(name) => IdentityKind::Service { name },
            None => IdentityKind::Nobody,
        }
    }

    /// The name of the service or of the router, or the subject of the token.
    #[must_use]
    pub fn name(&self) -> &str {
        match self.kind() {
            IdentityKind::Service { name } | IdentityKind::Router { name, .. } => name,
            IdentityKind::Bearer { subject, .. } => subject,
            IdentityKind::Nobody => NOBODY,
        }
    }

    /// Whether this names a service.
    #[must_use]
    pub fn is_service(&self) -> bool {
        matches!(self.kind(), IdentityKind::Service { .. })
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
    #[error(
        "the path of `{text}` is none of /service/<name>, /site/<site>/router/<name> and, for tokens, /jwt/<issuer>/<subject>"
    )]
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
    /// The subject of a token is empty, too long or not escaped.
    #[error(
        "the subject `{text}` must be 1 to 160 of A-Z a-z 0-9 . - _, with other bytes as _ and two hexadecimal digits"
    )]
    Subject {
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
            Self::Subject { .. } => "identity-subject",
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

/// A subject within an identity: nothing but what [`escape`] writes, so that two subjects are never one name.
fn check_subject(text: &str) -> Result<(), IdentityError> {
    let is_escaped = unescape(text).is_some_and(|subject| escape(&subject) == text);
    if text.is_empty() || text.len() > SUBJECT_BYTES_MAX || !is_escaped {
        return Err(IdentityError::Subject { text: shorten(text) });
    }
    Ok(())
}

fn escape(subject: &str) -> String {
    let is_path = subject == "." || subject == "..";
    let mut escaped = String::with_capacity(subject.len());
    for byte in subject.bytes() {
        match byte {
            b'.' if is_path => escaped.push_str("_2e"),
            byte if byte.is_ascii_alphanumeric() || b".-".contains(&byte) => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("_{byte:02x}")),
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'_' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after.get(2..)?;
    }
    String::from_utf8(bytes).ok()
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
    fn subjects_of_tokens_are_names_and_lead_back() {
        for (subject, escaped) in [
            ("alice", "alice"),
            ("alice@example.org", "alice_40example.org"),
            ("auth0|5f7c", "auth0_7c5f7c"),
            ("system:serviceaccount:shop:web", "system_3aserviceaccount_3ashop_3aweb"),
            ("a_b", "a_5fb"),
            ("../../x", ".._2f.._2fx"),
            ("..", "_2e_2e"),
            (".", "_2e"),
            ("ü\u{1b}", "_c3_bc_1b"),
        ] {
            let identity = Identity::bearer("acme.example", "corp", subject).unwrap();
            assert_eq!(identity.as_str(), format!("spiffe://acme.example/jwt/corp/{escaped}"));
            assert_eq!(identity.kind(), IdentityKind::Bearer { issuer: "corp", subject: escaped });
            assert_eq!(Identity::parse(identity.as_str()), Ok(identity));
            assert_eq!(unescape(escaped).as_deref(), Some(subject));
        }
        for bad in ["", &"x".repeat(SUBJECT_BYTES_MAX + 1), &"@".repeat(54)] {
            assert_eq!(Identity::bearer("a", "corp", bad).unwrap_err().code(), "identity-subject");
        }
        // One name for one subject: no other way to write it is a name.
        for bad in ["a_", "a_4", "a_zz", "_61lice", "a_5F", "..", "a b", "a%20b", "_ff", "_+1"] {
            let told = Identity::parse(&format!("spiffe://a/jwt/corp/{bad}")).unwrap_err();
            assert_eq!(told.code(), "identity-subject", "{bad}");
        }
        assert_eq!(Identity::parse("spiffe://a/jwt/corp").unwrap_err().code(), "identity-form");
        assert_eq!(Identity::parse("spiffe://a/jwt/corp/a/b").unwrap_err().code(), "identity-form");
        assert!(Identity::parse("nobody").is_err(), "nobody is not the name of anybody");
        assert!(Identity::nobody().is_nobody() && !Identity::nobody().is_router());
    }

    #[test]
    fn error_sentences_carry_no_terminal_escapes() {
        let error = Identity::parse("spiffe://a/service/\u{1b}[2J").unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
