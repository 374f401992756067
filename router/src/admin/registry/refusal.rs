//! How the registry refuses: with the numbers that its clients know, and with our own stable code beside them.

use super::super::problem::{Problem, ProblemCode};
use super::MEDIA_TYPE;
use crate::world::WorldError;
use axum::http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use myelin_catalog::{CatalogError, SchemaRefusal};
use serde::Serialize;
use utoipa::ToSchema;

/// Why the registry refused. Nothing of the request was applied.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RegistryProblem {
    /// The number that clients of registries know: the HTTP status, or that with two more digits.
    error_code: u32,
    /// What is wrong with this request, where, and how to mend it.
    message: String,
    /// The stable code, as everywhere else in this API.
    code: String,
    #[serde(skip)]
    status: StatusCode,
    /// What else the status says in its headers.
    #[serde(skip)]
    origin: Option<Box<Problem>>,
}

/// The numbers of our codes: those of the registry whose API this is.
const NUMBERS: &[(&str, u32)] = &[
    ("subject-not-found", 40401),
    ("version-not-found", 40402),
    ("schema-not-found", 40403),
    ("subject-deleted", 40404),
    ("subject-not-deleted", 40405),
    ("version-deleted", 40406),
    ("version-not-deleted", 40407),
    ("compatibility-not-set", 40408),
    ("mode-not-set", 40409),
    ("incompatible-schema", 409),
    ("invalid-schema", 42201),
    ("invalid-format", 42201),
    ("invalid-version", 42202),
    ("invalid-compatibility", 42203),
    ("invalid-mode", 42204),
    ("registry-mode", 42205),
    ("schema-referenced", 42206),
    ("schema-in-use", 42206),
    ("invalid-subject", 42208),
    ("record-late", 50002),
    ("writer-unreachable", 50003),
];
/// Clients of registries know user and password: the token is the password.
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"myelin\", charset=\"UTF-8\"");
/// What went wrong where the registry is kept.
const BACKEND: u32 = 50001;

impl RegistryProblem {
    /// A refusal with these parts.
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self::of(code, message.into(), StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// `status` is that of codes without a number.
    fn of(code: &str, message: String, status: StatusCode) -> Self {
        let known = NUMBERS.iter().find(|(known, _)| *known == code).map(|(_, number)| *number);
        let error_code = known.unwrap_or(if status.is_server_error() { BACKEND } else { u32::from(status.as_u16()) });
        let of_number = |number: u32| {
            let digits = if number > 1_000 { number / 100 } else { number };
            u16::try_from(digits).ok().and_then(|status| StatusCode::from_u16(status).ok())
        };
        let status = known.and_then(of_number).unwrap_or(status);
        Self { error_code, message, code: code.to_owned(), status, origin: None }
    }
}

impl From<Problem> for RegistryProblem {
    fn from(problem: Problem) -> Self {
        let refused = Self::of(problem.code_text(), problem.detail().to_owned(), problem.status());
        Self { origin: Some(Box::new(problem)), ..refused }
    }
}

impl From<WorldError> for RegistryProblem {
    fn from(error: WorldError) -> Self {
        Problem::from(error).into()
    }
}

impl From<CatalogError> for RegistryProblem {
    fn from(error: CatalogError) -> Self {
        WorldError::from(error).into()
    }
}

impl From<SchemaRefusal> for RegistryProblem {
    fn from(refusal: SchemaRefusal) -> Self {
        CatalogError::from(refusal).into()
    }
}

impl IntoResponse for RegistryProblem {
    fn into_response(mut self) -> Response {
        // The headers that go with a status, and the line in the log, are the problem's.
        let mut response = match self.origin.take() {
            Some(problem) => {
                let headers = problem.into_response().into_parts().0.headers;
                let mut response = (self.status, axum::Json(&self)).into_response();
                response.headers_mut().extend(headers.into_iter().filter(|(name, _)| {
                    name.as_ref().is_some_and(|name| *name != "content-type" && *name != "content-length")
                }));
                response
            }
            None => (self.status, axum::Json(&self)).into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if self.status == StatusCode::UNAUTHORIZED {
            // Beside `Bearer`, which the problem says.
            headers.append(WWW_AUTHENTICATE, BASIC);
        }
        response.extensions_mut().insert(ProblemCode(self.code.into()));
        response
    }
}

/// Whether a path is the registry's, also one at which there is nothing.
pub(crate) fn owns(path: &str) -> bool {
    path.strip_prefix("/registry").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A problem as those read it who ask for `uri`: clients of registries know their own numbers and media type only.
pub(crate) fn refused(uri: &Uri, problem: Problem) -> Response {
    match owns(uri.path()) {
        true => RegistryProblem::from(problem).into_response(),
        false => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Blame;

    #[test]
    fn codes_have_the_numbers_that_clients_know() {
        for (blame, code, number, status) in [
            (Blame::NotFound, "subject-not-found", 40401, 404),
            (Blame::Conflict, "subject-not-deleted", 40405, 404),
            (Blame::Conflict, "incompatible-schema", 409, 409),
            (Blame::Request, "invalid-schema", 42201, 422),
            (Blame::Conflict, "schema-referenced", 42206, 422),
            (Blame::Router, "writer-unreachable", 50003, 500),
            (Blame::Router, "store-unavailable", 50001, 503),
            (Blame::Full, "catalog-full", 50001, 507),
            (Blame::Conflict, "catalog-moved", 409, 409),
        ] {
            let problem = RegistryProblem::from(WorldError::new(blame, code, "it is so"));
            assert_eq!((problem.error_code, problem.status.as_u16()), (number, status), "{code}");
        }
    }
}
