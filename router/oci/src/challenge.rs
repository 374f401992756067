//! How a registry asks who we are: the header `WWW-Authenticate`.

use crate::error::OciError;

/// Bytes of a challenge that is read.
pub const CHALLENGE_BYTES_MAX: usize = 4 * 1024;
/// Parameters of a challenge that are read; three of them have a meaning.
const PARAMETERS_MAX: usize = 16;

/// How a registry asks who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// By name and password.
    Basic,
    /// By a token, which somebody else gives.
    Bearer {
        /// The URL of who gives it.
        realm: String,
        /// For which service.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads one header; none where it asks in a way that we do not know.
    ///
    /// # Errors
    /// `oci-registry`, where it is not well formed; `registry` is named in it.
    pub fn read(text: &str, registry: &str) -> Result<Option<Self>, OciError> {
        let refuse = || OciError::Registry {
            registry: registry.to_owned(),
            doing: "who we are".to_owned(),
            said: "a challenge that is not well formed".to_owned(),
        };
        if text.len() > CHALLENGE_BYTES_MAX {
            return Err(refuse());
        }
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(Some(Self::Basic));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Ok(None);
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let (mut rest, mut count) = (rest.trim_start(), 0);
        while !rest.is_empty() {
            let (key, value, after) = parameter(rest).ok_or_else(refuse)?;
            count += 1;
            let place = match key.to_ascii_lowercase().as_str() {
                "realm" => Some(&mut realm),
                "service" => Some(&mut service),
                "scope" => Some(&mut scope),
                _ => None,
            };
            let is_again = place.is_some_and(|place| place.replace(value).is_some());
            if is_again || count > PARAMETERS_MAX {
                return Err(refuse());
            }
            rest = after;
        }
        let realm = realm.ok_or_else(refuse)?;
        Ok(Some(Self::Bearer { realm, service, scope }))
    }
}

/// `key=value` or `key="value"`, and what is behind the comma.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (key, rest) = text.split_once('=')?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if key.is_empty() || !key.bytes().all(is_token) {
        return None;
    }
    let (value, rest) = match rest.strip_prefix('"') {
        None => {
            let end = rest.find(',').unwrap_or(rest.len());
            let value = rest[..end].trim_end();
            (value.bytes().all(is_token).then(|| value.to_owned())?, &rest[end..])
        }
        Some(quoted) => {
            let (mut value, mut characters) = (String::new(), quoted.char_indices());
            let end = loop {
                match characters.next()? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(characters.next()?.1),
                    (_, character) => value.push(character),
                }
            };
            (value, &quoted[end + 1..])
        }
    };
    if value.chars().any(char::is_control) {
        return None;
    }
    match rest.trim_start() {
        "" => Some((key, value, "")),
        rest => Some((key, value, rest.strip_prefix(',')?.trim_start())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn read(text: &str) -> Option<Challenge> {
        Challenge::read(text, "r").unwrap()
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        assert_eq!(read("Basic realm=\"docker-registry\""), Some(Challenge::Basic));
        assert_eq!(read("basic"), Some(Challenge::Basic));
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let [service, scope] = [service, scope].map(|text| text.map(str::to_owned));
            Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
        };
        let hub = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",\
            scope=\"repository:a/b:pull,push\"";
        let expected =
            bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push"));
        assert_eq!(read(hub), expected);
        assert_eq!(read("BEARER Realm=\"https://x/\\\"y\" , error=invalid_token"), bearer("https://x/\"y", None, None));
        assert_eq!(read("Negotiate abc"), None);
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        let long = format!("Bearer realm=\"{}\"", "x".repeat(CHALLENGE_BYTES_MAX));
        let many = format!("Bearer {}", "a=b,".repeat(PARAMETERS_MAX + 1));
        let bad = [
            "Bearer",
            "Bearer service=x",
            "Bearer realm=\"x",
            "Bearer realm=\"x\\",
            "Bearer realm=\"x\" service=y",
            "Bearer realm=x,realm=y",
            "Bearer realm=\"a\u{7}b\"",
            "Bearer =x",
            "Bearer realm",
            &long,
            &many,
        ];
        for text in bad {
            assert_eq!(Challenge::read(text, "r").unwrap_err().code(), "oci-registry", "{text:.60}");
        }
    }
}
