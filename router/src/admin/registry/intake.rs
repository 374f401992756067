//! What comes in: subjects, versions and ids from paths, what is asked for in queries, bodies.

use super::super::Context;
use super::super::intake::read_json;
use super::{MEDIA_TYPE, RegistryProblem};
use crate::world::Asked;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use myelin_catalog::limits::{SCHEMA_ID_MAX, SCHEMA_LEN_MAX_BYTES};
use myelin_catalog::{SchemaRefusal, SubjectName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Bytes of a body: a schema's text in which every second character is escaped, and its frame.
const BODY_BYTES_MAX: usize = 2 * SCHEMA_LEN_MAX_BYTES + 256 * 1024;
/// What bodies may be typed: as clients of registries do it, of whatever version, and as plain JSON.
const BODY_TYPES: [&str; 3] = [MEDIA_TYPE, "application/vnd.schemaregistry+json", "application/json"];

/// The subject in the path.
pub(super) struct SubjectPath(pub(super) SubjectName);

/// The subject and the version in the path.
pub(super) struct VersionPath(pub(super) SubjectName, pub(super) VersionAsked);

/// The id in the path.
pub(super) struct IdPath(pub(super) u32);

/// A version as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VersionAsked {
    /// Of that number.
    Number(u32),
    /// The newest.
    Latest,
}

/// What a query asks for. What is not known is not looked at: clients of newer registries send more.
pub(super) struct Wishes(Vec<(String, String)>);

/// A body.
pub(super) struct Body<T>(pub(super) T);

/// An answer.
pub(super) struct Answer<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let mut response = axum::Json(self.0).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}

impl Wishes {
    /// Whether something is wished.
    pub(super) fn has(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    /// What is said to something.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }

    /// The part of a list that is wished: how many are left out at its beginning, and how many there may be.
    pub(super) fn part(&self) -> (usize, usize) {
        let number = |name| self.text(name).and_then(|text| text.parse().ok());
        (number("offset").unwrap_or(0), number("limit").unwrap_or(usize::MAX))
    }
}

impl VersionAsked {
    fn read(text: &str) -> Result<Self, RegistryProblem> {
        if matches!(text, "latest" | "-1") {
            return Ok(Self::Latest);
        }
        let number = text.parse().ok().filter(|number| (1..=SCHEMA_ID_MAX).contains(number));
        number.map(Self::Number).ok_or_else(|| {
            let shown = super::super::problem::shown(text);
            let message = format!("`{shown}` is no version: it is `latest` or a number from 1 to {SCHEMA_ID_MAX}");
            RegistryProblem::new("invalid-version", message)
        })
    }

    pub(super) fn asked(self) -> Asked {
        match self {
            Self::Number(number) => Asked::Version(number),
            Self::Latest => Asked::Latest,
        }
    }
}

/// The texts in a path.
async fn path<T: DeserializeOwned + Send, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<T, RegistryProblem> {
    let found = Path::<T>::from_request_parts(parts, state).await;
    found.map(|Path(found)| found).map_err(|_| {
        let why = "it is no UTF-8; encode it as URLs are".to_owned();
        SchemaRefusal::InvalidSubject { text: super::super::problem::shown(parts.uri.path()), why }.into()
    })
}

impl<S: Send + Sync> FromRequestParts<S> for SubjectPath {
    type Rejection = RegistryProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RegistryProblem> {
        Ok(Self(path::<String, S>(parts, state).await?.parse()?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for VersionPath {
    type Rejection = RegistryProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RegistryProblem> {
        let (subject, version) = path::<(String, String), S>(parts, state).await?;
        Ok(Self(subject.parse()?, VersionAsked::read(&version)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdPath {
    type Rejection = RegistryProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RegistryProblem> {
        let text = path::<String, S>(parts, state).await?;
        text.parse().map(Self).map_err(|_| not_found(&super::super::problem::shown(&text)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Wishes {
    type Rejection = RegistryProblem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, RegistryProblem> {
        // A query of any text is a list of pairs.
        Ok(Self(serde_urlencoded::from_str(parts.uri.query().unwrap_or_default()).unwrap_or_default()))
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<Context>> for Body<T> {
    type Rejection = RegistryProblem;

    async fn from_request(request: Request, context: &Arc<Context>) -> Result<Self, RegistryProblem> {
        Ok(Self(read_json(context, request, &BODY_TYPES, BODY_BYTES_MAX).await?))
    }
}

/// That there is no schema of an id.
pub(super) fn not_found(id: &impl std::fmt::Display) -> RegistryProblem {
    RegistryProblem::new("schema-not-found", format!("there is no schema with id {id}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn versions_are_numbers_or_the_latest() {
        assert_eq!(VersionAsked::read("latest").unwrap(), VersionAsked::Latest);
        assert_eq!(VersionAsked::read("-1").unwrap(), VersionAsked::Latest);
        assert_eq!(VersionAsked::read("7").unwrap(), VersionAsked::Number(7));
        for bad in ["0", "-2", "x", "", "1.0", "2147483648"] {
            assert!(VersionAsked::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wishes_are_read_as_clients_write_them() {
        let wishes = |query: &str| Wishes(serde_urlencoded::from_str(query).unwrap());
        assert!(wishes("normalize=True&x=1").has("normalize") && !wishes("normalize=False").has("normalize"));
        assert_eq!(wishes("offset=5&limit=2").part(), (5, 2));
        assert_eq!(wishes("limit=-1").part(), (0, usize::MAX));
    }
}
