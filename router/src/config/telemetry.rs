//! `[telemetry]`: where the records of traces go.

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::uri::Scheme;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Shortest time for one export, in milliseconds: less than a collector in the same machine needs is none.
const TIMEOUT_MIN_MS: u64 = 100;
/// Longest, in milliseconds: meanwhile newer records make the ones that wait behind it go.
const TIMEOUT_MAX_MS: u64 = 60_000;
/// Headers that the router writes itself.
const OWN_HEADERS: [&str; 6] =
    ["connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"];

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The collector's base URL, OTLP over HTTP; without one nothing is exported.
    pub otlp: Option<String>,
    /// Headers of every export, as `NAME=VALUE`.
    pub headers: Vec<String>,
    /// A file with more of them, one on a line: for those that nobody else may read.
    pub headers_file: Option<PathBuf>,
    /// The authorities of the collector's certificate; those of the system where none is named.
    pub ca: Option<PathBuf>,
    /// The router's own certificate, where the collector asks for one.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// How long one export may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        let (otlp, headers, headers_file) = (None, Vec::new(), None);
        // What OpenTelemetry's own exporters wait.
        Self { otlp, headers, headers_file, ca: None, certificate: None, key: None, timeout_ms: 10_000 }
    }
}

/// A key, what is wrong with its value, and how to mend it.
type Problem = (&'static str, String, &'static str);

impl TelemetryConfig {
    /// What is wrong with it. Where nothing is exported, the rest is not looked at.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let Some(url) = &self.otlp else { return Vec::new() };
        let mut problems = Vec::new();
        let is_secure = match collector(url) {
            Ok(uri) => uri.scheme() == Some(&Scheme::HTTPS),
            Err((problem, remedy)) => {
                problems.push(("otlp", problem, remedy));
                // Nobody knows what was meant.
                true
            }
        };
        for text in &self.headers {
            if let Err(problem) = header(text) {
                problems.push(("headers", problem, "give each as \"NAME=VALUE\", such as \"x-tenant=edge\""));
            }
        }
        let files = [("ca", &self.ca), ("certificate", &self.certificate), ("key", &self.key)];
        if let Some((key, _)) = files.iter().find(|(_, file)| file.is_some() && !is_secure) {
            let problem = format!("there is a file, and `{url}` has no TLS");
            problems.push((key, problem, "give an https:// URL, or remove the file"));
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => problems.push(("certificate", "it has no key".to_owned(), "give `key` as well")),
            (None, Some(_)) => problems.push(("key", "it has no certificate".to_owned(), "give `certificate` as well")),
            _ => {}
        }
        if !(TIMEOUT_MIN_MS..=TIMEOUT_MAX_MS).contains(&self.timeout_ms) {
            problems.push(("timeout_ms", format!("{} is out of bounds", self.timeout_ms), "give 100 to 60000"));
        }
        problems
    }
}

/// The base URL of a collector.
///
/// # Errors
/// What is wrong with it, and how to mend it.
pub(crate) fn collector(url: &str) -> Result<Uri, (String, &'static str)> {
    const FORM: &str = "give the collector's base URL, such as \"http://127.0.0.1:4318\"";
    let uri: Uri = url.parse().map_err(|error| (format!("`{url}` is no URL: {error}"), FORM))?;
    let is_http = uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    if !is_http || uri.host().is_none_or(str::is_empty) {
        return Err((format!("`{url}` is no http:// or https:// URL"), FORM));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        let remedy = "put credentials into `headers_file`, such as `authorization=Basic ...`";
        return Err(("the URL holds a user".to_owned(), remedy));
    }
    if uri.query().is_some() {
        return Err((format!("`{url}` has a query"), FORM));
    }
    if uri.path().trim_end_matches('/').ends_with("/v1/traces") {
        return Err((format!("`{url}` ends in /v1/traces"), "leave /v1/traces out: the router adds it"));
    }
    Ok(uri)
}

/// A header as `NAME=VALUE`.
///
/// # Errors
/// What is wrong with it; its value is not told.
pub(crate) fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let Some((name, value)) = text.split_once('=') else { return Err("a header has no `=`".to_owned()) };
    let (name, value) = (name.trim(), value.trim());
    let known: HeaderName = name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
    if OWN_HEADERS.contains(&known.as_str()) {
        return Err(format!("the router writes the header `{known}` itself"));
    }
    let mut value = HeaderValue::from_str(value).map_err(|_| format!("the value of `{known}` is none of a header"))?;
    value.set_sensitive(true);
    Ok((known, value))
}
