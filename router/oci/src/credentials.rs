//! Who we are to a registry: given, or as `docker login` has written it down.

use crate::error::{OciError, cut};
use crate::reference::Registry;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// Bytes of a file with credentials that is read: of all registries that somebody uses.
pub const CREDENTIALS_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of a name and of a password: tokens of clouds have some thousand.
const PART_BYTES_MAX: usize = 16 * 1024;
/// What Docker calls its own registry in that file.
const DOCKER_KEY: &str = "index.docker.io";

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    username: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

impl Credentials {
    /// Of this name and password.
    ///
    /// # Errors
    /// `oci-credentials`: they cannot be sent.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Result<Self, OciError> {
        let (username, password) = (username.into(), password.into());
        if username.is_empty() || username.contains(':') {
            return Err(OciError::credentials("a user's name is not empty and has no colon"));
        }
        if password.is_empty() {
            return Err(OciError::credentials("the password is empty"));
        }
        let is_bad = |part: &str| part.len() > PART_BYTES_MAX || part.chars().any(char::is_control);
        if is_bad(&username) || is_bad(&password) {
            return Err(OciError::credentials(format!(
                "a name and a password have at most {PART_BYTES_MAX} bytes and no control characters"
            )));
        }
        Ok(Self { username, password })
    }

    /// The name.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// What stands in the header `Authorization`.
    pub fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(format!("{}:{}", self.username, self.password)))
    }

    /// Those for `registry` in the text of Docker's `config.json`, which podman's and oras' files are like.
    ///
    /// # Errors
    /// `oci-credentials`: the file is none, or a helper of Docker's keeps them, which is not run.
    pub fn of_docker(text: &str, registry: &Registry) -> Result<Option<Self>, OciError> {
        if text.len() as u64 > CREDENTIALS_FILE_BYTES_MAX {
            return Err(OciError::credentials_too_large());
        }
        // The error's own words would show what is secret.
        let file: File = serde_json::from_str(text).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            OciError::credentials(format!("the file is not as Docker writes it: {place}"))
        })?;
        let is_meant = |key: &str| key_host(key).is_some_and(|host| is_for(host, registry));
        let helper = file.cred_helpers.iter().find(|(key, _)| is_meant(key)).map(|(_, helper)| helper);
        let helped = |helper: &str| {
            let why = format!(
                "docker-credential-{} keeps those for {registry}, and no other program is run from here; give --username \
                 and --password-stdin",
                cut(helper)
            );
            Err(OciError::credentials(why))
        };
        if let Some(helper) = helper {
            return helped(helper);
        }
        let Some((_, entry)) = file.auths.iter().find(|(key, _)| is_meant(key)) else { return Ok(None) };
        if let Some(auth) = entry.auth.as_deref().filter(|auth| !auth.is_empty()) {
            let refuse =
                || OciError::credentials(format!("the file's `auth` for {registry} is not base64 of NAME:PASSWORD"));
            let pair =
                BASE64.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(refuse)?;
            let (username, password) = pair.split_once(':').ok_or_else(refuse)?;
            return Self::new(username, password.trim_end_matches('\0')).map(Some);
        }
        match (&entry.username, &entry.password, &entry.identitytoken, &file.creds_store) {
            (Some(username), Some(password), ..) => Self::new(username, password).map(Some),
            (_, _, Some(_), _) => Err(OciError::credentials(format!(
                "the file has an identity token for {registry}, which is not understood; give --username and --password-stdin"
            ))),
            (_, _, None, Some(store)) => helped(store),
            _ => Ok(None),
        }
    }
}

/// The host and port of a key in the file, which may be a URL.
fn key_host(key: &str) -> Option<&str> {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().filter(|host| !host.is_empty())
}

fn is_for(host: &str, registry: &Registry) -> bool {
    let name = registry.to_string();
    host.eq_ignore_ascii_case(&name) || (host == DOCKER_KEY && name == "docker.io")
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn find(text: &str, registry: &str) -> Result<Option<String>, OciError> {
        let found = Credentials::of_docker(text, &registry.parse().unwrap())?;
        Ok(found.map(|found| format!("{}:{}", found.username, found.password)))
    }

    #[test]
    fn docker_files_are_read() {
        // alice:sesame:x
        let auth = BASE64.encode("alice:sesame:x");
        let file = format!(
            r#"{{"auths": {{"registry.example:5000": {{"auth": "{auth}"}}, "https://index.docker.io/v1/": {{"auth": "{auth}"}},
            "plain.example": {{"username": "bob", "password": "pw"}}}}, "HttpHeaders": {{}}}}"#
        );
        let there = Ok(Some("alice:sesame:x".to_owned()));
        assert_eq!(find(&file, "registry.example:5000"), there);
        assert_eq!(find(&file, "docker.io"), there);
        assert_eq!(find(&file, "plain.example"), Ok(Some("bob:pw".to_owned())));
        // Another port is another server.
        assert_eq!(find(&file, "registry.example"), Ok(None));
        assert_eq!(find("{}", "registry.example"), Ok(None));
    }

    #[test]
    fn what_is_kept_elsewhere_is_said_and_nothing_secret_is() {
        let stored = r#"{"auths": {"r.example": {}}, "credsStore": "desktop"}"#;
        assert!(find(stored, "r.example").unwrap_err().to_string().contains("docker-credential-desktop"));
        assert_eq!(find(stored, "other.example"), Ok(None));
        let helped = r#"{"credHelpers": {"r.example": "ecr-login"}}"#;
        assert_eq!(find(helped, "r.example").unwrap_err().code(), "oci-credentials");
        let token = r#"{"auths": {"r.example": {"identitytoken": "hush"}}}"#;
        let secret = [
            find(token, "r.example").unwrap_err(),
            find(r#"{"auths": {"r.example": {"auth": "hush!"}}}"#, "r.example").unwrap_err(),
            find(r#"{"auths": "hush"}"#, "r.example").unwrap_err(),
            find(&" ".repeat(2 << 20), "r.example").unwrap_err(),
        ];
        for refusal in secret {
            assert_eq!(refusal.code(), "oci-credentials");
            assert!(!refusal.to_string().contains("hush"), "{refusal}");
        }
        let shown = format!("{:?}", Credentials::new("alice", "hush").unwrap());
        assert!(shown.contains("alice") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for (name, password) in [("", "x"), ("a:b", "x"), ("a", ""), ("a", "x\ny"), ("a\r", "x")] {
            assert_eq!(Credentials::new(name, password).unwrap_err().code(), "oci-credentials");
        }
        assert!(Credentials::new("a", "x".repeat(PART_BYTES_MAX + 1)).is_err());
    }
}
