//! `oci://REGISTRY/REPOSITORY:TAG` and `oci://REGISTRY/REPOSITORY@sha256:DIGEST`.

use crate::error::{OciError, cut};
use myelin_catalog::Digest;
use std::fmt;
use std::str::FromStr;

/// What a reference begins with.
pub const SCHEME: &str = "oci://";
/// Bytes of a reference: a host, a repository and a tag of the greatest length each, and a digest.
pub const REFERENCE_BYTES_MAX: usize = 800;
/// Bytes of a host: a DNS name's.
const HOST_BYTES_MAX: usize = 253;
/// Bytes of a repository, as the distribution specification advises clients.
const REPOSITORY_BYTES_MAX: usize = 255;
/// Bytes of a tag, as the distribution specification says.
const TAG_BYTES_MAX: usize = 128;
/// What a digest begins with: the one algorithm that every registry has.
const ALGORITHM: &str = "sha256:";
/// What people call the registry of Docker, and where that is.
const DOCKER: (&str, &str) = ("docker.io", "registry-1.docker.io");
/// Where repositories of Docker are that name no owner.
const DOCKER_OWNER: &str = "library/";

/// A reference that is none, as it may be shown: where somebody names a user, a password stands before the host.
fn shown(text: &str) -> String {
    let is_user = |at: &(usize, &str)| !text[at.0 + 1..].starts_with(ALGORITHM);
    let Some((at, _)) = text.rmatch_indices('@').find(is_user) else { return cut(text) };
    let scheme = if text.starts_with(SCHEME) { SCHEME } else { "" };
    cut(&format!("{scheme}***{}", &text[at..]))
}

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registry {
    host: String,
    port: Option<u16>,
}

/// An artifact: by tag, by digest, or by both, of which the digest counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: Registry,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Registry {
    /// The host, without brackets where it is an address.
    pub fn host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    /// The port, where it is named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Where its API is: Docker's is not where its name is.
    #[must_use]
    pub fn api(&self) -> Self {
        match self.host == DOCKER.0 {
            true => Self { host: DOCKER.1.to_owned(), port: self.port },
            false => self.clone(),
        }
    }
}

impl Reference {
    /// Where it is.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The repository, as the API names it.
    pub fn repository(&self) -> String {
        match self.registry.host == DOCKER.0 && !self.repository.contains('/') {
            true => format!("{DOCKER_OWNER}{}", self.repository),
            false => self.repository.clone(),
        }
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which says everything.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same artifact by its digest, with the tag for people.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl FromStr for Registry {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let refuse = |why| OciError::Reference { text: shown(text), why };
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => {
                address.parse::<std::net::Ipv6Addr>().map_err(|_| refuse("what is in brackets is no IPv6 address"))?;
                let port = match rest {
                    "" => None,
                    rest => Some(rest.strip_prefix(':').ok_or_else(|| refuse("the port is none"))?),
                };
                (format!("[{address}]"), port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
                None => (text.to_ascii_lowercase(), None),
            },
        };
        let is_name = |host: &str| {
            host.len() <= HOST_BYTES_MAX
                && host.split('.').all(|label| {
                    let has_form = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                    (1..=63).contains(&label.len()) && has_form && !label.starts_with('-') && !label.ends_with('-')
                })
        };
        if !host.starts_with('[') && !is_name(&host) {
            return Err(refuse("the registry is no host name"));
        }
        let number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
        let port = match port {
            None => None,
            Some(port) => Some(number(port).filter(|port| *port != 0).ok_or_else(|| refuse("the port is none"))?),
        };
        Ok(Self { host, port })
    }
}

impl FromStr for Reference {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let refuse = |why| OciError::Reference { text: shown(text), why };
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(refuse("it is too long"));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| refuse("it does not begin with oci://"))?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest, None),
        };
        let digest = match digest.map(|digest| digest.strip_prefix(ALGORITHM)) {
            None => None,
            Some(None) => return Err(refuse("after `@` there is no digest of sha256, and no user stands before it")),
            Some(Some(hex)) => Some(hex.parse().map_err(|_| refuse("a digest has 64 digits of 0-9 and a-f"))?),
        };
        let (registry, path) = rest.split_once('/').ok_or_else(|| refuse("it names no repository"))?;
        let registry = registry.parse().map_err(|error| match error {
            OciError::Reference { why, .. } => refuse(why),
            other => other,
        })?;
        // The last colon is the tag's: repositories have none.
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if !is_repository(repository) {
            return Err(refuse("a repository is of a-z, 0-9 and single . _ - between them, in parts between /"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse("a tag has 1 to 128 characters of A-Z, a-z, 0-9, _ . - and does not begin with . or -"));
        }
        if tag.is_none() && digest.is_none() {
            // No `latest`: what is rolled out over a mesh is named.
            return Err(refuse("it has neither a tag nor a digest"));
        }
        Ok(Self { registry, repository: repository.to_owned(), tag: tag.map(str::to_owned), digest })
    }
}

fn is_repository(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    // Between plain characters stand `.`, `_`, `__`, or any number of `-`.
    let is_part = |part: &str| {
        let ends_plain = part.bytes().next().is_some_and(is_plain) && part.bytes().last().is_some_and(is_plain);
        let mut between = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends_plain && between.all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
    };
    text.len() <= REPOSITORY_BYTES_MAX && text.split('/').all(is_part)
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=TAG_BYTES_MAX).contains(&text.len())
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{ALGORITHM}{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_are_read_as_they_are_written() {
        let digest = Digest::of(b"x");
        let good = [
            "oci://registry.example:5000/team/redact:1.2".to_owned(),
            "oci://localhost/a/b/c:v1.0.0-rc.1_x".to_owned(),
            "oci://127.0.0.1:5000/a__b/c.d-e---f:1".to_owned(),
            "oci://[::1]:5000/redact:1".to_owned(),
            "oci://[::1]/redact:1".to_owned(),
            format!("oci://ghcr.io/team/redact@sha256:{digest}"),
            format!("oci://ghcr.io/team/redact:1.2@sha256:{digest}"),
        ];
        for text in good {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        let tagged: Reference = "oci://R.example/redact:1".parse().unwrap();
        assert_eq!((tagged.registry().to_string(), tagged.digest()), ("r.example".to_owned(), None));
        assert_eq!(tagged.pinned(digest).to_string(), format!("oci://r.example/redact:1@sha256:{digest}"));
    }

    #[test]
    fn what_names_no_artifact_is_refused_with_a_code_and_a_sentence() {
        let hex = Digest::of(b"x").to_string();
        let bad = [
            String::new(),
            "registry.example/team/redact:1".to_owned(),
            "https://registry.example/team/redact:1".to_owned(),
            "oci://".to_owned(),
            "oci:///redact:1".to_owned(),
            "oci://registry.example".to_owned(),
            "oci://registry.example/redact".to_owned(),
            "oci://registry.example/redact:".to_owned(),
            "oci://registry.example/redact:.x".to_owned(),
            "oci://registry.example/redact:a/b".to_owned(),
            "oci://registry.example/Redact:1".to_owned(),
            "oci://registry.example/a//b:1".to_owned(),
            "oci://registry.example/../v2/x:1".to_owned(),
            "oci://registry.example/a..b:1".to_owned(),
            "oci://registry.example/a___b:1".to_owned(),
            "oci://registry.example/-a:1".to_owned(),
            "oci://registry.example/ä:1".to_owned(),
            "oci://registry.example/a?x=1:1".to_owned(),
            "oci://registry.example/a:1#x".to_owned(),
            "oci://user:pass@registry.example/a:1".to_owned(),
            format!("oci://user:pass@registry.example/a@sha256:{hex}"),
            "oci://user:pa/pass@registry.example/a:1".to_owned(),
            "user:pass@registry.example/a:1".to_owned(),
            "oci://registry.example:0/a:1".to_owned(),
            "oci://registry.example:+80/a:1".to_owned(),
            "oci://registry.example:99999/a:1".to_owned(),
            "oci://registry..example/a:1".to_owned(),
            "oci://[::g]/a:1".to_owned(),
            "oci://[::1]x/a:1".to_owned(),
            "oci://[::1]5000/a:1".to_owned(),
            "oci://registry.example/a@md5:abc".to_owned(),
            "oci://registry.example/a@sha256:abc".to_owned(),
            format!("oci://registry.example/a@sha256:{}", hex.to_uppercase()),
            format!("oci://registry.example/a@sha256:{hex}@sha256:{hex}"),
            format!("oci://registry.example/{}:1", "a".repeat(300)),
            format!("oci://registry.example/a:{}", "1".repeat(129)),
            format!("oci://{}/a:1", "a".repeat(64)),
            format!("oci://registry.example/{}:1\r\nHost: x", "a/".repeat(2_000)),
        ];
        for text in bad {
            let refusal = text.parse::<Reference>().unwrap_err();
            assert_eq!(refusal.code(), "oci-reference", "{text:.80}");
            let told = refusal.to_string();
            assert!(told.len() < 500 && !told.contains('\n') && !told.contains("pass"), "{told}");
        }
    }

    #[test]
    fn docker_is_where_it_is_and_its_short_names_have_an_owner() {
        let short: Reference = "oci://docker.io/redact:1".parse().unwrap();
        assert_eq!(short.registry().api().host(), "registry-1.docker.io");
        assert_eq!(short.repository(), "library/redact");
        let owned: Reference = "oci://docker.io/team/redact:1".parse().unwrap();
        assert_eq!(owned.repository(), "team/redact");
    }

    proptest! {
        #[test]
        fn any_text_is_a_reference_that_reads_the_same_or_is_refused(text in "(oci://)?[a-z0-9.:/@_\\[\\]-]{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
            }
        }
    }
}
