//! `[jwt]`: whose tokens are believed, and what they say about somebody's roles.

use super::roles::{Role, Roles};
use hyper::Uri;
use hyper::http::uri::Scheme;
use myelin_token::{Algorithm, Rules};
use myelin_transport::Identity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How far the clocks of an issuer and of this router may be apart, in seconds.
pub const LEEWAY_S: u64 = 60;
/// Least and longest time between two looks at an issuer's keys, in seconds.
const REFRESH_S: std::ops::RangeInclusive<u64> = 10..=86_400;
/// Least and longest time that an issuer's keys count after they were read, in seconds.
const KEYS_AGE_S: std::ops::RangeInclusive<u64> = 60..=30 * 86_400;
/// That time where nothing is said. Tokens are mostly good for an hour at most: an issuer that is away for longer has nobody
/// whose token would still be good, and a key that it has taken back meanwhile shall not count for longer than a day.
const KEYS_AGE_DEFAULT_S: u64 = 86_400;
/// Issuers of a router: each keeps its keys in memory.
const ISSUERS_MAX: usize = 16;

/// `[jwt]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtConfig {
    /// The issuers by a name of our own, which is part of the identities that they give.
    pub issuers: BTreeMap<String, IssuerConfig>,
    /// How often the keys of the issuers are read anew, in seconds.
    pub refresh_seconds: u64,
    /// How long keys count after they were read, while they cannot be read anew, in seconds.
    pub keys_max_age_seconds: u64,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self { issuers: BTreeMap::new(), refresh_seconds: 300, keys_max_age_seconds: KEYS_AGE_DEFAULT_S }
    }
}

/// `[jwt.issuers.NAME]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// What its tokens say in `iss`, letter by letter.
    pub issuer: String,
    /// One of these must be in a token's `aud`.
    pub audience: Vec<String>,
    /// The trust domain of the identities that it gives.
    pub trust_domain: String,
    /// Where its key set is, over HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Or a file that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// The authorities of the certificate there; those of the system where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How its tokens may be signed.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<String>,
    /// Whether a `sub` that is the SPIFFE name of a service of `trust_domain` (a JWT-SVID) gives that name.
    #[serde(default)]
    pub spiffe_subjects: bool,
    /// The claim whose texts are the groups of whoever shows a token, for policies: `principal.groups`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_claim: Option<String>,
    /// The claim whose texts `roles` maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles_claim: Option<String>,
    /// Which roles of the admin API each text of that claim stands for.
    #[serde(default)]
    pub roles: BTreeMap<String, Vec<Role>>,
}

fn default_algorithms() -> Vec<String> {
    Algorithm::DEFAULT.map(|algorithm| algorithm.name().to_owned()).to_vec()
}

impl JwtConfig {
    /// Whether a token may have a role of the admin API.
    pub(super) fn gives_roles(&self) -> bool {
        self.issuers.values().any(|issuer| issuer.roles_claim.is_some() && !issuer.roles.is_empty())
    }

    /// What is wrong with it, and how to mend it.
    pub(super) fn problems(&self, dev: bool) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        if !REFRESH_S.contains(&self.refresh_seconds) {
            problems.push((format!("refresh_seconds = {}", self.refresh_seconds), "give 10 to 86400".to_owned()));
        }
        let (age, refresh) = (self.keys_max_age_seconds, self.refresh_seconds);
        if !KEYS_AGE_S.contains(&age) || age < refresh {
            let remedy = format!("give 60 to 2592000, and no less than refresh_seconds = {refresh}");
            problems.push((format!("keys_max_age_seconds = {age}"), remedy));
        }
        if self.issuers.len() > ISSUERS_MAX {
            let problem = format!("issuers: there are {}", self.issuers.len());
            problems.push((problem, format!("{ISSUERS_MAX} are the most")));
        }
        for (name, issuer) in &self.issuers {
            let of_issuer = issuer.problems(name, dev);
            problems
                .extend(of_issuer.into_iter().map(|(what, remedy)| (format!("issuers.{name}: {what}"), remedy.into())));
        }
        let mut seen: Vec<&str> = self.issuers.values().map(|issuer| &*issuer.issuer).collect();
        seen.sort_unstable();
        if let Some(twice) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
            let remedy = "name each issuer once; `audience` may list several".to_owned();
            problems.push((format!("issuers: `{}` is there twice", twice[0]), remedy));
        }
        problems
    }
}

impl IssuerConfig {
    fn problems(&self, name: &str, dev: bool) -> Vec<(String, &'static str)> {
        let mut problems = Vec::new();
        let mut refuse = |what: String, remedy| problems.push((what, remedy));
        if let Err(error) = Identity::bearer(&self.trust_domain, name, "x") {
            refuse(error.to_string(), "give issuers a name of letters, digits, `-`, `.` and `_`, and a trust_domain");
        }
        if self.issuer.is_empty() {
            refuse(
                "issuer is empty".to_owned(),
                "give what its tokens say in `iss`, such as https://login.example.org",
            );
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            let remedy = "give what its tokens for this mesh say in `aud`, such as audience = [\"myelin\"]";
            refuse("audience names nobody".to_owned(), remedy);
        }
        match (&self.jwks_url, &self.jwks_file) {
            (Some(url), None) => {
                if let Err(what) = key_set_url(url, dev) {
                    refuse(
                        what,
                        "give the https:// URL of the issuer's key set (`jwks_uri` of its discovery document)",
                    );
                }
            }
            (None, Some(_)) => {}
            _ => refuse("there must be either jwks_url or jwks_file".to_owned(), "give one of the two"),
        }
        if let Some(unknown) = self.algorithms.iter().find(|name| Algorithm::from_name(name).is_none()) {
            let remedy =
                "give some of RS256, RS384, RS512, PS256, ES256, ES384, EdDSA; `none` and HS* are never accepted";
            refuse(format!("the algorithm `{unknown}`"), remedy);
        }
        if self.algorithms.is_empty() {
            refuse("algorithms is empty".to_owned(), "leave it out for RS256, ES256 and EdDSA");
        }
        if self.roles_claim.is_none() && !self.roles.is_empty() {
            refuse(
                "there are roles, and no roles_claim".to_owned(),
                "name the claim, such as roles_claim = \"groups\"",
            );
        }
        problems
    }

    /// What a token of it must say.
    pub fn rules(&self) -> Rules {
        Rules {
            issuer: self.issuer.clone(),
            audiences: self.audience.clone(),
            algorithms: self.algorithms.iter().filter_map(|name| Algorithm::from_name(name)).collect(),
            leeway_s: LEEWAY_S,
        }
    }

    /// The roles that these texts of `roles_claim` stand for.
    pub fn roles_of(&self, texts: &[&str]) -> Roles {
        texts.iter().filter_map(|text| self.roles.get(*text)).flatten().copied().collect()
    }
}

/// A URL as it may be shown: without the user and the password that it may name, wherever they end.
pub(crate) fn without_user(url: &str) -> String {
    let Some((user, rest)) = url.rsplit_once('@') else { return url.to_owned() };
    let scheme = user.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
    format!("{scheme}***@{rest}")
}

/// The URL of a key set. Whoever can change what is there can be anybody, so it is read over TLS.
fn key_set_url(url: &str, dev: bool) -> Result<Uri, String> {
    let shown = without_user(url);
    let uri: Uri = url.parse().map_err(|error| format!("jwks_url `{shown}` is no URL: {error}"))?;
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return Err(format!("jwks_url `{shown}` names no host, or a user"));
    }
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS || (dev && *scheme == Scheme::HTTP) => Ok(uri),
        _ => Err(format!("jwks_url `{shown}` is not https://")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    #[test]
    fn a_password_in_a_url_is_shown_nowhere() {
        for url in ["https://u:hunter2@h/keys", "https://u:hunter2@x@h/keys", "http://u:hunt/er2@h", "u:hunter2@h"] {
            let told = super::key_set_url(url, false).unwrap_err();
            assert!(!told.contains("hunt") && told.contains("***@h"), "{told}");
        }
        assert_eq!(super::without_user("https://h/keys"), "https://h/keys");
    }

    use super::*;

    const GOOD: &str = "[issuers.corp]\nissuer = 'https://login.example.org'\naudience = ['myelin']\n\
        trust_domain = 'example.org'\njwks_url = 'https://login.example.org/keys'\nroles_claim = 'groups'\n\
        roles = { dev = ['developer'], leads = ['releaser', 'payloads'] }\n";

    fn read(text: &str) -> JwtConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn an_issuer_is_named_once_with_its_keys_and_its_roles() {
        let config = read(GOOD);
        assert_eq!(config.problems(false), []);
        assert!(config.gives_roles());
        let issuer = &config.issuers["corp"];
        assert_eq!(issuer.roles_of(&["leads", "dev", "other"]).to_string(), "developer, releaser, payloads");
        assert!(issuer.roles_of(&["other"]).is_empty());
        let rules = issuer.rules();
        assert_eq!((rules.algorithms, rules.leeway_s), (Algorithm::DEFAULT.to_vec(), 60));
    }

    #[test]
    fn what_would_make_anybody_anybody_is_refused() {
        for (from, to, part) in [
            ("https://login.example.org/keys", "http://login.example.org/keys", "is not https://"),
            ("https://login.example.org/keys", "https://user@login.example.org/keys", "names no host, or a user"),
            ("https://login.example.org/keys", "file:///etc/keys", "is no URL"),
            ("['myelin']", "[]", "audience names nobody"),
            ("'example.org'", "'Example Org'", "trust domain"),
            ("issuers.corp", "issuers.'co/rp'", "the name"),
            ("roles_claim = 'groups'\n", "", "no roles_claim"),
            ("roles_claim", "algorithms = ['HS256']\nroles_claim", "`HS256`"),
            ("roles_claim", "algorithms = ['none']\nroles_claim", "`none`"),
            ("roles_claim", "algorithms = []\nroles_claim", "algorithms is empty"),
            ("roles_claim", "jwks_file = 'x'\nroles_claim", "either jwks_url or jwks_file"),
        ] {
            let problems = read(&GOOD.replace(from, to)).problems(false);
            assert!(problems.len() == 1 && problems[0].0.contains(part), "{to}: {problems:?}");
        }
        let plain = read(&GOOD.replace("https://login.example.org/keys", "http://127.0.0.1:1/keys"));
        assert_eq!(plain.problems(true), [], "with --dev it may be plain");
        let twice = format!("{GOOD}{}", GOOD.replace("issuers.corp", "issuers.again"));
        assert!(read(&twice).problems(false)[0].0.contains("is there twice"));
    }
}
