//! Problems: how the API refuses (RFC 9457), with a stable code and a sentence that says what, where and how to mend
//! it.

use crate::world::{Blame, WorldError};
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use myelin_catalog::CatalogError;
use serde::Serialize;
use std::borrow::Cow;
use utoipa::ToSchema;

/// The content type of a problem.
pub(crate) const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";
/// The code where somebody is known by a certificate that is over: it ends the connection.
pub(crate) const CERTIFICATE_EXPIRED: &str = "certificate-expired";
/// Characters of a stranger's text that a problem shows.
const SHOWN_MAX: usize = 80;

/// The stable code of a problem, beside the answer: for the audit log.
#[derive(Clone, Debug)]
pub(super) struct ProblemCode(pub(super) Cow<'static, str>);

/// Why a request was refused (RFC 9457). Nothing of it was applied.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// The kind of problem as a relative URI; ends with the code.
    #[serde(rename = "type")]
    kind: String,
    /// The kind of problem for people; always the same for a code.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request, where, and how to mend it.
    detail: Cow<'static, str>,
    /// The stable code: for programs.
    code: Cow<'static, str>,
}

impl Problem {
    /// A problem with these parts.
    pub(crate) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let code = code.into();
        let mut title = code.replace('-', " ");
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Self { kind: format!("/problems/{code}"), title, status: status.as_u16(), detail: detail.into(), code }
    }

    /// What is asked for is not there.
    pub(crate) fn not_found(detail: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The stable code.
    pub(crate) fn code_text(&self) -> &str {
        &self.code
    }

    /// What is wrong.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The stable code.
    #[cfg(test)]
    pub(crate) fn code(&self) -> &'static str {
        // Tests are short.
        self.code.to_string().leak()
    }
}

impl From<WorldError> for Problem {
    fn from(error: WorldError) -> Self {
        let status = match error.blame {
            Blame::Request if error.code == "two-person" => StatusCode::FORBIDDEN,
            Blame::Request if error.code == "too-many-looks" => StatusCode::TOO_MANY_REQUESTS,
            Blame::Request => StatusCode::BAD_REQUEST,
            Blame::NotFound => StatusCode::NOT_FOUND,
            Blame::Conflict => StatusCode::CONFLICT,
            Blame::Full => StatusCode::INSUFFICIENT_STORAGE,
            Blame::Filter => StatusCode::UNPROCESSABLE_ENTITY,
            // What passes: the router stops, or the servers of a shared catalog are away.
            Blame::Router if ["stopping", "store-unavailable", "cannot-sign"].contains(&&*error.code) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Blame::Router if error.code == "no-answer" => StatusCode::GATEWAY_TIMEOUT,
            Blame::Router => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.code, error.message)
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        WorldError::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::warn!(code = &*self.code, detail = %self.detail, "the admin API answers a problem");
        }
        let code = ProblemCode(self.code.clone());
        let mut response = (status, axum::Json(self)).into_response();
        response.extensions_mut().insert(code);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM));
        match status {
            StatusCode::UNAUTHORIZED => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            StatusCode::SERVICE_UNAVAILABLE => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))),
            _ => {}
        }
        response
    }
}

/// Any path that is not ours.
pub(crate) fn unknown_route(uri: &Uri) -> Problem {
    let detail = format!("there is nothing at `{}`; /openapi.json lists what there is", shown(uri.path()));
    Problem::new(StatusCode::NOT_FOUND, "unknown-route", detail)
}

/// A path of ours with a method that it does not have.
pub(crate) fn unknown_method(method: &axum::http::Method, uri: &Uri) -> Problem {
    let (method, path) = (shown(method.as_str()), shown(uri.path()));
    let detail = format!("`{path}` has no {method}; /openapi.json lists what it has");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
}

/// The beginning of a stranger's text, short enough for a sentence and without characters that move the cursor.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
