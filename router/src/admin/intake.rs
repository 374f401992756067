//! What comes in: names from paths, revisions from headers, bodies within their bounds of size, time and memory.

use super::Context;
use super::problem::{Problem, shown};
use axum::body::Body;
use axum::extract::{self, FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, WARNING};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use myelin_catalog::{CatalogError, MinisignSignature, ModuleRef, Name};
use myelin_oci::Reference;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Bytes of a JSON body.
pub(super) const JSON_BYTES_MAX: usize = 1024 * 1024;
/// KiB of bodies that all requests together may hold: four modules of the largest size.
pub(super) const BODIES_KIB_MAX: usize = 64 * 1024;
/// Holds a module's signature, a file of minisign's in base64.
const SIGNATURE_HEADER: &str = "myelin-signature";
/// Holds where a module comes from, as the client says: the log of who did what keeps it.
const ORIGIN_HEADER: &str = "myelin-origin";
/// How slowly a body may arrive: in 30 seconds, or no slower than 512 kbit/s beyond that.
const PACE: Pace = Pace { time: Duration::from_secs(30), time_per_step: Duration::from_secs(1) };
/// The steps of [`Pace`].
const STEP_BYTES: usize = 64 * 1024;

/// How slowly a body may arrive.
#[derive(Clone, Copy)]
struct Pace {
    /// What any body may take.
    time: Duration,
    /// What it may take in addition for each [`STEP_BYTES`] that have arrived.
    time_per_step: Duration,
}

/// The name in the path.
pub(super) struct NamePath(pub(super) Name);

/// The name and version in the path.
pub(super) struct ModulePath(pub(super) ModuleRef);

/// What is in the path, where it is no name.
pub(super) struct InPath<T>(pub(super) T);

/// What is in the query.
pub(super) struct Query<T>(pub(super) T);

/// The revision in `If-Match`.
pub(super) struct IfMatch(pub(super) Option<u64>);

/// The catalog's revision, as [`IfMatch`] takes it.
pub(super) type RevisionTag = [(HeaderName, String); 1];

/// Says the catalog's revision after a change, so that the next one can ask for it.
pub(super) fn revision_tag(revision: u64) -> RevisionTag {
    [(ETAG, format!("\"{revision}\""))]
}

/// What somebody should look at although it is done, as a header.
pub(super) type Warning = Option<[(HeaderName, String); 1]>;

/// Says what somebody should look at although it is done: as Kubernetes' API does it, `299 - "TEXT"`.
pub(super) fn warning(text: Option<String>) -> Warning {
    text.map(|text| [(WARNING, format!("299 - \"{}\"", text.replace('"', "\\\"")))])
}

/// The signature of a module, in [`SIGNATURE_HEADER`].
pub(super) struct Signature(pub(super) Option<MinisignSignature>);

/// Where a module comes from, in [`ORIGIN_HEADER`]: an artifact of an OCI registry, by its digest.
pub(super) struct Origin;

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

/// A JSON body that may be left out.
pub(super) struct OptionalJson<T>(pub(super) T);

/// A Wasm body, with the place that it takes among all bodies.
pub(super) struct Wasm {
    pub(super) bytes: Bytes,
    pub(super) place: OwnedSemaphorePermit,
}

impl<S: Send + Sync> FromRequestParts<S> for NamePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(name) = path::<String, S>(parts, state).await?;
        Ok(Self(name.parse()?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ModulePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path((name, version)) = path::<(String, String), S>(parts, state).await?;
        Ok(Self(ModuleRef { name: name.parse()?, version: version.parse()? }))
    }
}

async fn path<T: DeserializeOwned + Send, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Path<T>, Problem> {
    Path::from_request_parts(parts, state).await.map_err(|_| {
        let detail = format!("a name in the path `{}` is no UTF-8; use a-z, 0-9 and `-`", shown(parts.uri.path()));
        Problem::new(StatusCode::BAD_REQUEST, "invalid-name", detail)
    })
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = Path::from_request_parts(parts, state).await;
        found.map(|Path(found)| Self(found)).map_err(|rejection| {
            let (path, why) = (shown(parts.uri.path()), cut(rejection.body_text()));
            let detail = format!("the path `{path}` does not fit: {why}; /openapi.json says what stands in it");
            Problem::new(StatusCode::BAD_REQUEST, "invalid-path", detail)
        })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = extract::Query::from_request_parts(parts, state).await;
        found.map(|extract::Query(found)| Self(found)).map_err(|rejection| {
            let detail = format!("{}; /openapi.json says what the query may have", cut(rejection.body_text()));
            Problem::new(StatusCode::BAD_REQUEST, "invalid-query", detail)
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut given = parts.headers.get_all(IF_MATCH).iter();
        let Some(first) = given.next() else { return Ok(Self(None)) };
        let text = first.to_str().unwrap_or_default().trim();
        let digits = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match digits.parse() {
            Ok(revision) if is_number && given.next().is_none() => Ok(Self(Some(revision))),
            _ => {
                let detail = format!("If-Match `{}` is no revision; send one, such as `If-Match: \"17\"`", shown(text));
                Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-if-match", detail))
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Signature {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut given = parts.headers.get_all(SIGNATURE_HEADER).iter();
        let Some(first) = given.next() else { return Ok(Self(None)) };
        let text = BASE64.decode(first).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (Some(text), None) = (text, given.next()) else {
            let detail = "`Myelin-Signature` is one signature file in base64, such as of `base64 -w0 MODULE.minisig`";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "signature-invalid", detail));
        };
        let signature = text.parse::<MinisignSignature>().map_err(CatalogError::from)?;
        Ok(Self(Some(signature)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.headers.contains_key(ORIGIN_HEADER) && origin(&parts.headers).is_none() {
            let detail = "`Myelin-Origin` names one artifact, such as oci://registry.example/redact:1.2@sha256:.. with its digest";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-origin", detail));
        }
        Ok(Self)
    }
}

/// Where a module comes from, as the client says.
pub(super) fn origin(headers: &HeaderMap) -> Option<Reference> {
    let mut given = headers.get_all(ORIGIN_HEADER).iter();
    let origin: Reference = given.next()?.to_str().ok()?.parse().ok()?;
    (origin.digest().is_some() && given.next().is_none()).then_some(origin)
}

impl<T: DeserializeOwned> FromRequest<Arc<Context>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, context: &Arc<Context>) -> Result<Self, Problem> {
        Ok(Self(read_json(context, request, &["application/json"], JSON_BYTES_MAX).await?))
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Arc<Context>> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, context: &Arc<Context>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let (bytes, _place) = read(&context.bodies, &parts.headers, body, JSON_BYTES_MAX, PACE).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        check_type(&parts.headers, &["application/json"])?;
        Ok(Self(parse(&bytes)?))
    }
}

impl FromRequest<Arc<Context>> for Wasm {
    type Rejection = Problem;

    async fn from_request(request: Request, context: &Arc<Context>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        check_type(&parts.headers, &["application/wasm"])?;
        let (bytes, place) = read(&context.bodies, &parts.headers, body, context.module_bytes_max, PACE).await?;
        Ok(Self { bytes, place })
    }
}

/// Reads JSON of at most `bytes_max` that is typed as one of `types`.
pub(super) async fn read_json<T: DeserializeOwned>(
    context: &Context,
    request: Request,
    types: &[&'static str],
    bytes_max: usize,
) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    check_type(&parts.headers, types)?;
    let (bytes, _place) = read(&context.bodies, &parts.headers, body, bytes_max, PACE).await?;
    parse(&bytes)
}

/// The first of `wanted` is the one that is told.
fn check_type(headers: &HeaderMap, wanted: &[&'static str]) -> Result<(), Problem> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if wanted.iter().any(|wanted| essence.eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    let wanted = wanted.first().copied().unwrap_or_default();
    let detail = match given {
        "" => format!("the request has no content type; send `Content-Type: {wanted}`"),
        _ => format!("this route takes {wanted}, not `{}`", shown(given)),
    };
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail))
}

/// Reads a whole body of at most `bytes_max`. Its place among all bodies is taken before its first byte.
async fn read(
    places: &Arc<Semaphore>,
    headers: &HeaderMap,
    mut body: Body,
    bytes_max: usize,
    pace: Pace,
) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|value| value.as_bytes() != b"identity") {
        let encoding = shown(&String::from_utf8_lossy(encoding.as_bytes()));
        let detail = format!("a body in `{encoding}` is not unpacked; send it as it is, without Content-Encoding");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-encoding", detail));
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let kib = u32::try_from(announced.unwrap_or(bytes_max).div_ceil(1024)).unwrap_or(u32::MAX);
    let place = places.clone().try_acquire_many_owned(kib).map_err(|_| {
        let detail = "the router holds as many request bodies as it takes; try again in a second";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    })?;

    let begin = Instant::now();
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0));
    loop {
        let steps = u32::try_from(bytes.len() / STEP_BYTES).unwrap_or(u32::MAX);
        let until = begin + pace.time + pace.time_per_step * steps;
        let Some(frame) = timeout_at(until, body.frame()).await.map_err(|_| too_slow())? else { break };
        let frame = frame.map_err(|error| {
            let detail = format!("the body broke off after {} bytes: {error}", bytes.len());
            Problem::new(StatusCode::BAD_REQUEST, "body-incomplete", detail)
        })?;
        // Trailers say nothing here.
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.freeze(), place))
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("the body has more than {bytes_max} bytes, which is the most here");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
}

fn too_slow() -> Problem {
    let detail = "the body came too slowly; send it within 30 seconds and 1 more for every 64 KiB";
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", detail)
}

/// Reads JSON; what does not fit is told with its path and what was expected there.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize::<_, Object<T>>(&mut json);
    let (path, error) = match parsed {
        Ok(Object(value)) => match json.end() {
            Ok(()) => return Ok(value),
            Err(error) => (".".to_owned(), error),
        },
        Err(error) => (error.path().to_string(), error.into_inner()),
    };
    let text = cut(error.to_string());
    let at = if path == "." { "the body".to_owned() } else { format!("`{}`", shown(&path)) };
    let (code, detail) = match error.classify() {
        serde_json::error::Category::Data => ("invalid-body", format!("{at} does not fit: {text}")),
        _ => ("invalid-json", format!("the body is no JSON: {text}")),
    };
    Err(Problem::new(StatusCode::BAD_REQUEST, code, detail))
}

/// What a stranger sent may stand in the text, at any length.
fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(400) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The problem that `bytes` are as a body, as its client would read it.
#[cfg(feature = "testing")]
pub(super) fn complaint<T: DeserializeOwned>(bytes: &[u8]) -> Option<String> {
    let problem = parse::<T>(bytes).err()?;
    Some(serde_json::to_string(&problem).unwrap_or_default())
}

/// A value that is written as an object. What serde derives takes an array of the fields as well, which nobody means.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer).map(Self)
    }
}

/// Reads a `T` that is written as an object.
pub(super) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Fields<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Fields(PhantomData))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use hyper::body::Frame;
    use std::pin::Pin;
    use std::task::{self, Poll, ready};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(rename = "inner")]
        _inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "count")]
        _count: u8,
    }

    /// A body that brings `step` bytes each `pace`, for ever.
    struct Trickle {
        step: usize,
        pace: Pin<Box<tokio::time::Sleep>>,
        every: Duration,
    }

    impl Trickle {
        fn body(step: usize, every: Duration) -> Body {
            Body::new(Self { step, pace: Box::pin(tokio::time::sleep(every)), every })
        }
    }

    impl axum::body::HttpBody for Trickle {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut task::Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            ready!(self.pace.as_mut().poll(context));
            let next = Instant::now() + self.every;
            self.pace.as_mut().reset(next);
            Poll::Ready(Some(Ok(Frame::data(vec![0; self.step].into()))))
        }
    }

    #[tokio::test]
    async fn a_slow_body_ends_and_a_steady_one_may_take_longer() {
        let places = Arc::new(Semaphore::new(BODIES_KIB_MAX));
        let pace = Pace { time: Duration::from_millis(200), time_per_step: Duration::from_millis(100) };
        let refused =
            async |body, bytes_max| read(&places, &HeaderMap::new(), body, bytes_max, pace).await.unwrap_err().code();
        let begin = Instant::now();
        let drip = Trickle::body(1, Duration::from_millis(10));
        assert_eq!(refused(drip, JSON_BYTES_MAX).await, "body-timeout");
        assert!(begin.elapsed() >= pace.time);
        // Two steps every 20 milliseconds: 16 MiB take longer than `pace.time`, and reach the bound.
        let steady = Trickle::body(2 * STEP_BYTES, Duration::from_millis(20));
        assert_eq!(refused(steady, 16 * 1024 * 1024).await, "body-too-large");
        assert!(begin.elapsed() > 3 * pace.time);
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_give_their_place_back() {
        let places = Arc::new(Semaphore::new(BODIES_KIB_MAX));
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, (16 * 1024 * 1024).into())]);
        let take = || read(&places, &headers, Body::from("short"), 16 * 1024 * 1024, PACE);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(take().await.unwrap());
        }
        assert_eq!(take().await.unwrap_err().code(), "busy");
        held.pop();
        assert!(take().await.is_ok());
    }

    fn refused(text: &str) -> (String, String) {
        let problem = serde_json::to_value(parse::<Outer>(text.as_bytes()).unwrap_err()).unwrap();
        (problem["code"].as_str().unwrap().into(), problem["detail"].as_str().unwrap().into())
    }

    #[test]
    fn a_wrong_shape_is_told_with_its_path() {
        assert!(parse::<Outer>(br#"{"inner":[{"count":1}]}"#).is_ok());
        let (code, detail) = refused(r#"{"inner":[{"count":1},{"count":"x"}]}"#);
        assert_eq!(code, "invalid-body");
        assert!(detail.contains("`inner[1].count`") && detail.contains("expected u8"), "{detail}");
        assert!(refused(r#"{"inner":[],"other":1}"#).1.contains("unknown field `other`, expected `inner`"));
        assert!(refused(r#"{"inner":[],"inner":[]}"#).1.contains("duplicate field"));
        for text in ["[]", "[[]]", "7", "null"] {
            assert!(refused(text).1.contains("expected an object"), "{text}: {:?}", refused(text));
        }
        for text in ["", "{", "{} {}", "{\"inner\":[]} x", "\u{0}", &"[".repeat(100_000)] {
            let (code, detail) = refused(text);
            assert!(code.starts_with("invalid-") && detail.len() < 700, "{code} {detail}");
        }
        let long = format!(r#"{{"inner":[],"{}":1}}"#, "k".repeat(100_000));
        assert!(refused(&long).1.len() < 700);
    }
}
