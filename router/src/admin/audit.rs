//! `/v1/audit`: who did what. Every request goes through [`keep`], also one that is refused.

use super::Context;
use super::access::Caller;
use super::intake::{self, Query};
use super::problem::{Problem, ProblemCode};
use super::rights::{self, Effect};
use super::server::{Peer, Place};
use crate::audit::{Entry, Kind, Note, lines};
use crate::world::{MeshAudit, WorldError};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http_body::{Frame, SizeHint};
use myelin_catalog::Digest;
use myelin_oci::Reference;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};
use tokio::task::JoinError;
use utoipa::{IntoParams, ToSchema};

/// Entries in an answer.
const ENTRIES_MAX: usize = 1_000;
/// Entries in an answer that did not say how many.
const ENTRIES: usize = 100;
/// Bytes of a piece of the log.
const PIECE_BYTES: usize = 1024 * 1024;
/// Lines that one question looks through for entries that fit.
const LOOKED_AT_MAX: usize = 200_000;
/// The content type of lines of JSON.
const CONTENT_TYPE_LINES: &str = "application/x-ndjson";
/// What comes every few seconds from whatever watches the router: let in, it says nothing about anybody.
const UNTOLD: [&str; 3] = ["/livez", "/readyz", "/metrics"];
/// The methods that are told by their names: others are whatever somebody has sent.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// Where to go on after a piece of the log: the number of its last entry.
const LAST: HeaderName = HeaderName::from_static("myelin-audit-last");

/// Answers a request, and has it written down: what changes something before it is answered, reads by the minute.
pub(super) async fn keep(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    Extension(place): Extension<Place>,
    request: Request,
    next: Next,
) -> Response {
    if is_get(request.method()) {
        return answer(&context, &peer, request, next).await;
    }
    // A client that hangs up takes nothing back: the change goes on, and so does what writes it down. It keeps the
    // connection's place until then, so that there are no more of them than connections.
    let whole = tokio::spawn(async move {
        let _place = place;
        answer(&context, &peer, request, next).await
    });
    match whole.await.map_err(JoinError::try_into_panic) {
        Ok(response) => response,
        // It ends the connection, as one in the connection's own task does.
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The listener has stopped.
        Err(Err(_)) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

fn is_get(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

async fn answer(context: &Context, peer: &Peer, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("-", MatchedPath::as_str).to_owned();
    // Whoever looks at payloads is written down each time.
    let is_read = rights::effect(request.method(), &route) == Effect::Read;
    let has_body = !is_get(request.method());
    let method = if METHODS.contains(request.method()) { request.method().as_str() } else { "-" };
    let action = format!("{method} {route}");
    let origin = intake::origin(request.headers());
    let hashed = Hashed::default();
    let sent = hashed.0.clone();
    let request = if has_body { request.map(|body| Body::new(Hashing { body, hashed })) } else { request };
    let response = next.run(request).await;

    let caller = response.extensions().get::<Caller>().cloned();
    let is_good = response.status().as_u16() < StatusCode::BAD_REQUEST.as_u16();
    if is_good && UNTOLD.contains(&&*path) {
        return response;
    }
    let code = response.extensions().get::<ProblemCode>().map(|code| code.0.to_string());
    let result = if is_good { "ok".to_owned() } else { code.unwrap_or_else(|| response.status().as_u16().to_string()) };
    let actor = caller.as_ref().map_or("-", |caller| &caller.actor);
    let mut note = Note::new(Kind::Admin, actor, action, result);
    note.from = Some(peer.addr.ip().to_string());
    // What a stranger asks for is what a stranger says: there is no end of sorts of it.
    note.subject = if caller.is_some() { path } else { route };
    match (&caller, &peer.identity) {
        (Some(caller), _) if response.status() == StatusCode::FORBIDDEN => {
            note.detail = format!("with the roles: {}", caller.roles);
        }
        (None, Some(identity)) => note.detail = format!("with the certificate of {identity}"),
        (Some(_), _) => note.detail = origin.map_or_else(String::new, |origin| origin_told(&origin)),
        _ => {}
    }
    // A question that is a POST tells apart who may not ask it, as the body that was sent with it.
    let is_counted = is_read && !(has_body && response.status() == StatusCode::FORBIDDEN);
    if is_counted || caller.is_none() {
        context.state.audit.count(note, caller.is_some());
        return response;
    }
    note.digest = sent.lock().unwrap_or_else(PoisonError::into_inner).take().map(finish);
    note.from = Some(peer.addr.to_string());
    context.state.audit.write(note).await;
    response
}

/// The digest first: a detail is cut where it is too long.
fn origin_told(origin: &Reference) -> String {
    let digest = origin.digest().map(|digest| digest.to_string()).unwrap_or_default();
    let tag = origin.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
    format!("artifact sha256:{digest} of oci://{}/{}{tag}, as the client says", origin.registry(), origin.repository())
}

fn finish(hasher: Sha256) -> Digest {
    Digest::from_bytes(hasher.finalize().into())
}

/// The hash of what was read of a body; none where nothing was.
#[derive(Clone, Debug, Default)]
struct Hashed(Arc<Mutex<Option<Sha256>>>);

/// A body that is hashed as it is read.
struct Hashing {
    body: Body,
    hashed: Hashed,
}

impl HttpBody for Hashing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(task);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let mut hashed = self.hashed.0.lock().unwrap_or_else(PoisonError::into_inner);
            hashed.get_or_insert_default().update(data);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Which entries are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Those after this number; without it the newest.
    after: Option<u64>,
    /// So many at most; 1,000 are the most. Default 100.
    limit: Option<usize>,
    /// Only those of this kind.
    kind: Option<Kind>,
    /// Only those of this actor.
    actor: Option<String>,
    /// Only those whose result is not `ok`.
    #[serde(default)]
    failed: bool,
}

impl Wanted {
    fn fits(&self, entry: &Entry) -> bool {
        self.kind.is_none_or(|kind| entry.note.kind == kind)
            && self.actor.as_ref().is_none_or(|actor| *actor == entry.note.actor)
            && !(self.failed && entry.note.result == "ok")
    }
}

/// A part of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditPage {
    /// Entries, oldest first.
    entries: Vec<Entry>,
    /// Where the log ends.
    head: crate::audit::Head,
    /// Ask with `after` set to this for what follows.
    last: u64,
}

/// Entries of this router's audit log: who did what, from where, and what became of it (docs/AUDIT.md). Reads and refusals
/// of the same are counted together for a minute.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(Wanted), responses((status = 200, body = AuditPage)))]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<AuditPage>, Problem> {
    let audit = context.state.audit.clone();
    let page = aside(move || {
        let head = audit.head();
        let limit = wanted.limit.unwrap_or(ENTRIES).clamp(1, ENTRIES_MAX);
        let mut entries = std::collections::VecDeque::new();
        let from = match wanted.after {
            Some(after) => after + 1,
            None => head.seq.saturating_sub(LOOKED_AT_MAX as u64 - 1),
        };
        let mut last = from.saturating_sub(1);
        for line in lines(audit.folder(), from)?.take(LOOKED_AT_MAX) {
            // One that somebody else has written is for `verify` to tell.
            let Ok(entry) = serde_json::from_str::<Entry>(&line?) else { continue };
            last = entry.seq;
            if !wanted.fits(&entry) {
                continue;
            }
            entries.push_back(entry);
            if entries.len() > limit {
                entries.pop_front();
            }
            if wanted.after.is_some() && entries.len() == limit {
                break;
            }
        }
        Ok(AuditPage { entries: entries.into(), head, last })
    });
    Ok(Json(page.await?))
}

/// Where a piece of the log begins.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece {
    /// After the entry of this number.
    #[serde(default)]
    after: u64,
}

/// The lines of this router's audit log as they were written, up to a mebibyte: what `myelin audit verify` needs. The
/// header `myelin-audit-last` says where to go on.
#[utoipa::path(get, path = "/v1/audit/file", tag = "audit", params(Piece), responses(
    (status = 200, description = "One entry a line", body = String, content_type = "application/x-ndjson"),
))]
pub(super) async fn file(
    State(context): State<Arc<Context>>,
    Query(Piece { after }): Query<Piece>,
) -> Result<impl IntoResponse, Problem> {
    let audit = context.state.audit.clone();
    let piece = aside(move || {
        let (mut text, mut last) = (String::new(), after);
        for line in lines(audit.folder(), after + 1)? {
            let line = line?;
            if text.len() + line.len() > PIECE_BYTES {
                break;
            }
            last = serde_json::from_str::<Entry>(&line).map_or(last + 1, |entry| entry.seq);
            text.push_str(&line);
            text.push('\n');
        }
        Ok((text, last))
    });
    let (text, last) = piece.await?;
    Ok(([(CONTENT_TYPE, CONTENT_TYPE_LINES.to_owned()), (LAST, last.to_string())], text))
}

/// Whether the audit logs are what was written: this router's from its first entry to its end, and those of the others in
/// the places where this router has seen them end.
#[utoipa::path(get, path = "/v1/audit/verify", tag = "audit", responses((status = 200, body = MeshAudit)))]
pub(super) async fn verify(State(context): State<Arc<Context>>) -> Result<Json<MeshAudit>, Problem> {
    Ok(Json(context.state.world.verify_audit().await?))
}

/// Reads files aside from the API's thread.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, WorldError> {
    let unreadable = |error: std::io::Error| crate::world::unreadable(&error);
    tokio::task::spawn_blocking(work).await.map_err(|error| unreadable(error.into()))?.map_err(unreadable)
}
