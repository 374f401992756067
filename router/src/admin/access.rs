//! Who may ask: a bearer token, a client certificate, or, with `--dev`, whoever is on this machine; and for what.
//!
//! Clients of schema registries know user and password only: for the registry the password may be the token.

use super::Context;
use super::forbids;
use super::problem::{CERTIFICATE_EXPIRED, Problem, shown, unknown_method};
use super::registry;
use super::rights::{self, Right};
use super::server::Peer;
use super::token::Token;
use crate::config::{Role, RoleMap, Roles};
use crate::tokens::{Bearer, Tokens, unix_s};
use crate::world::Actor;
use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use myelin_policy::Service;
use myelin_token::Refusal;
use myelin_transport::Identity;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

/// Who may ask at this listener.
#[derive(Debug)]
pub(super) struct Gate {
    /// The listener's address.
    pub(super) addr: SocketAddr,
    /// Whether it speaks HTTPS.
    pub(super) is_tls: bool,
    /// Whether whoever is on this machine may ask.
    pub(super) is_open: bool,
    /// The bearer token.
    pub(super) token: Option<Token>,
    /// The certificates that may ask for everything: that a trusted authority issued it is not enough.
    pub(super) identities: Vec<Identity>,
    /// Who else may ask, and for what.
    pub(super) roles: RoleMap,
    /// The issuers whose tokens are believed.
    pub(super) tokens: Option<Arc<Tokens>>,
}

/// Who asks, and what they may.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// As the audit log and the catalog know them.
    pub(super) actor: Actor,
    /// How they have shown who they are.
    pub(super) by: By,
    /// What they may.
    pub(super) roles: Roles,
}

/// How somebody has shown who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// By being on this machine.
    Local,
    /// By the bearer token.
    Token,
    /// By a certificate.
    Certificate,
    /// By a JSON Web Token that is good until then, in Unix seconds.
    Jwt(u64),
}

impl By {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Jwt(_) => "jwt",
        }
    }

    /// When it ends by itself, in Unix seconds.
    pub(super) fn expires_unix_s(self) -> Option<u64> {
        match self {
            Self::Jwt(expires_unix_s) => Some(expires_unix_s),
            _ => None,
        }
    }
}

impl Caller {
    fn admin(actor: &str, by: By) -> Self {
        Self { actor: actor.into(), by, roles: Roles::of(&[Role::Admin]) }
    }

    /// Whether they may use the route `path` in this way.
    fn check(&self, request: &Request, path: &str) -> Result<(), Problem> {
        match rights::right(request.method(), path) {
            Right::Of(needed) => self.need(needed, format_args!("{} {path}", request.method())),
            // Who may do everything is told by the router itself what it has.
            Right::NoMethod if self.roles.meets(Roles::of(&[Role::Admin])) => Ok(()),
            Right::NoMethod => Err(unknown_method(request.method(), request.uri())),
        }
    }

    /// Whether they may do by another route what `method` does at the route `path`.
    ///
    /// # Errors
    /// `forbidden-role`.
    pub(super) fn may(&self, method: &Method, path: &str) -> Result<(), Problem> {
        match rights::right(method, path) {
            Right::Of(needed) => self.need(needed, format_args!("{method} {path}")),
            Right::NoMethod => self.need(Roles::of(&[Role::Admin]), format_args!("{method} {path}")),
        }
    }

    /// Whether they have one of the roles that `what` is for.
    ///
    /// # Errors
    /// `forbidden-role`.
    pub(super) fn need(&self, needed: Roles, what: impl Display) -> Result<(), Problem> {
        if self.roles.meets(needed) {
            return Ok(());
        }
        let Self { actor, roles, .. } = self;
        let detail = format!(
            "{actor} has the roles: {roles}; {what} is for: {needed}; one of these in [admin] roles, or in the `roles` of \
             the token's issuer below [jwt], gives it that right (`myelin whoami` shows what it may)"
        );
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden-role", detail))
    }
}

/// Lets a request through with its [`Actor`] and [`Caller`], or refuses it before anything else is looked at.
pub(super) async fn check(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let is_registry = registry::owns(request.uri().path());
    let uri = request.uri().clone();
    let refuse = |problem| registry::refused(&uri, problem);
    let caller = match context.gate.admit(&peer, request.headers(), is_registry).await {
        Ok(caller) => caller,
        Err(_) if context.gate.lets_probe(&request) => return next.run(request).await,
        Err(problem) => return turned_away(&uri, problem),
    };
    // Without a route there is nothing to have a right to: that there is none is told.
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let tenant = tenant_of(&context, &caller);
    let mut allowed = path.as_deref().map_or(Ok(()), |path| {
        caller.check(&request, path)?;
        tenant.map_or(Ok(()), |tenant| check_tenant(&caller, &request, path, &tenant))
    });
    if let (Ok(()), Some(path)) = (&allowed, &path) {
        allowed = forbids::check(&context, &caller, &mut request, path).await;
    }
    let mut response = match allowed {
        Ok(()) => {
            request.extensions_mut().insert(caller.actor.clone());
            request.extensions_mut().insert(caller.clone());
            next.run(request).await
        }
        Err(problem) => refuse(problem),
    };
    // For the audit log, which sees refusals as well and so is asked before this gate.
    response.extensions_mut().insert(caller);
    response
}

/// The tenant that somebody belongs to. Whoever may do everything is nobody's: tenants are theirs to make.
pub(super) fn tenant_of(context: &Context, caller: &Caller) -> Option<Arc<str>> {
    let is_somebody = matches!(caller.by, By::Certificate | By::Jwt(_));
    if !is_somebody || caller.roles.meets(Roles::of(&[Role::Admin])) {
        return None;
    }
    let rules = context.state.shared.rules.load();
    let service = Service::new(&*caller.actor.to_string());
    rules.tenants().of(&service).map(|known| known.usage.name().clone())
}

/// Refuses those of a tenant what may tell them of others.
fn check_tenant(caller: &Caller, request: &Request, path: &str, tenant: &str) -> Result<(), Problem> {
    if rights::is_for_tenant(request.method(), path, request.uri().path(), tenant) {
        return Ok(());
    }
    let detail = format!(
        "{} is of tenant {tenant}, and {} {path} tells of others or changes what is theirs; of this API a tenant has \
         /v1/whoami and /v1/tenants/{tenant}",
        caller.actor,
        request.method()
    );
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden-tenant", detail))
}

impl Gate {
    async fn admit(&self, peer: &Peer, headers: &HeaderMap, is_registry: bool) -> Result<Caller, Problem> {
        self.check_origin(headers)?;
        if let Some(given) = headers.get(AUTHORIZATION)
            && (self.token.is_some() || self.tokens.is_some())
        {
            let given = given.as_bytes();
            let password = if is_registry { password(given) } else { None };
            return self.admit_token(password.as_deref().or_else(|| bearer(given)).unwrap_or_default()).await;
        }
        if let Some(identity) = &peer.identity {
            if peer.is_over(unix_s()) {
                return Err(certificate_over());
            }
            return self.admit_certificate(identity);
        }
        if self.is_open {
            self.check_host(headers)?;
            return Ok(Caller::admin("local", By::Local));
        }
        let has_token = self.token.is_some() || self.tokens.is_some();
        Err(match (self.is_tls, has_token) {
            (true, true) => unauthorized("send `Authorization: Bearer TOKEN`, or connect with a client certificate"),
            (true, false) => unauthorized("connect with a client certificate that [admin] identities or roles names"),
            (false, true) if self.token.is_none() => {
                unauthorized("send `Authorization: Bearer TOKEN` with a token of an issuer below [jwt]")
            }
            (false, _) => unauthorized("send `Authorization: Bearer TOKEN` with what [admin] token_file holds"),
        })
    }

    /// Whether it is the probe of an orchestrator or a load balancer, which has no certificate and no token, and learns no
    /// more than yes or no. Web pages are none, and the open API of `--dev` knows them by their host alone.
    fn lets_probe(&self, request: &Request) -> bool {
        let route = request.extensions().get::<MatchedPath>();
        let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
        is_get
            && !self.is_open
            && route.is_some_and(|route| rights::PROBES.contains(&route.as_str()))
            && self.check_origin(request.headers()).is_ok()
    }

    /// The one token of the configuration, or one that an issuer has signed.
    async fn admit_token(&self, given: &[u8]) -> Result<Caller, Problem> {
        if self.token.as_ref().is_some_and(|token| token.is(given)) {
            return Ok(Caller::admin("token", By::Token));
        }
        let Some(tokens) = self.tokens.as_ref().filter(|_| Tokens::may_be_one(given)) else {
            return Err(self.no_token(given));
        };
        let Bearer { identity, roles, expires_unix_s, .. } = tokens
            .verify(given)
            .await
            .map_err(|refused| Problem::new(StatusCode::UNAUTHORIZED, refused.code(), refused.to_string()))?;
        if self.identities.contains(&identity) {
            return Ok(Caller::admin(identity.as_str(), By::Jwt(expires_unix_s)));
        }
        let roles = roles.and(self.roles.of(&identity));
        if roles.is_empty() {
            let detail = format!(
                "{identity} has no role; map one of the token's claims below [jwt] issuers, or name it in [admin] roles"
            );
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        Ok(Caller { actor: identity.as_str().into(), by: By::Jwt(expires_unix_s), roles })
    }

    /// What was sent is not what the file holds, and no token of an issuer either.
    fn no_token(&self, given: &[u8]) -> Problem {
        match (&self.token, &self.tokens) {
            (None, _) if !given.is_empty() => {
                let told = Refusal::Malformed;
                Problem::new(StatusCode::UNAUTHORIZED, told.code(), told.to_string())
            }
            (None, _) => unauthorized("send `Authorization: Bearer TOKEN` with a token of an issuer below [jwt]"),
            (Some(_), Some(_)) => unauthorized(
                "the bearer token is not the right one; send what [admin] token_file holds, or a token of an issuer \
                 below [jwt]",
            ),
            (Some(_), None) => {
                unauthorized("the bearer token is not the right one; send what [admin] token_file holds")
            }
        }
    }

    fn admit_certificate(&self, identity: &Identity) -> Result<Caller, Problem> {
        if self.identities.contains(identity) {
            return Ok(Caller::admin(identity.as_str(), By::Certificate));
        }
        let roles = self.roles.of(identity);
        if !roles.is_empty() {
            return Ok(Caller { actor: identity.as_str().into(), by: By::Certificate, roles });
        }
        let detail = format!(
            "{identity} is not among [admin] identities and has no role; add it there or in [admin] roles, or use another \
             certificate"
        );
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }

    /// A page of another site, loaded in a browser on this machine, sends its own `Origin` with what it posts; a
    /// browser would add the certificate by itself.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let scheme = if self.is_tls { "https://" } else { "http://" };
        let own = headers.get(HOST).map(|host| [scheme.as_bytes(), host.as_bytes()].concat());
        if own.is_some_and(|own| own.eq_ignore_ascii_case(origin.as_bytes())) {
            return Ok(());
        }
        let origin = shown(&String::from_utf8_lossy(origin.as_bytes()));
        let detail =
            format!("a web page of `{origin}` may not use this API; use the `myelin` command or a page of this router");
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden-origin", detail))
    }

    /// A page whose name was pointed at this machine (DNS rebinding) counts as of the same origin, but cannot hide
    /// its name.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let port = self.addr.port();
        let known = ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| match host.get(..name.len()) {
            Some(start) if start.eq_ignore_ascii_case(name) => match host.get(name.len()..) {
                Some("") => port == 80,
                Some(rest) => rest.strip_prefix(':').is_some_and(|text| text == port.to_string()),
                None => false,
            },
            _ => false,
        });
        if known || host == self.addr.to_string() {
            return Ok(());
        }
        let detail = format!("`{}` is not this router; ask for localhost:{port} or 127.0.0.1:{port}", shown(host));
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden-host", detail))
    }
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

/// The password of a client that knows user and password only.
fn password(header: &[u8]) -> Option<Vec<u8>> {
    let (scheme, pair) = header.split_at_checked("basic ".len())?;
    let pair = STANDARD.decode(pair.trim_ascii()).ok().filter(|_| scheme.eq_ignore_ascii_case(b"basic "))?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

fn unauthorized(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

/// The answer to whoever is not let in; a connection that no new one could begin as ends with it.
pub(super) fn turned_away(uri: &Uri, problem: Problem) -> Response {
    let is_last = problem.code_text() == CERTIFICATE_EXPIRED;
    let mut response = registry::refused(uri, problem);
    if is_last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The connection goes on with a certificate that no new one could begin with.
pub(super) fn certificate_over() -> Problem {
    let detail = "the certificate of this connection is over; connect again with a new one (`myelin` and curl do for each \
                  command, with the files that they are given)";
    Problem::new(StatusCode::UNAUTHORIZED, CERTIFICATE_EXPIRED, detail)
}

#[cfg(test)]
mod tests;
