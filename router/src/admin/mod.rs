//! The admin API: HTTP on a thread of its own, so that health answers however busy the workers are.
//!
//! Plain HTTP on loopback, TLS 1.3 elsewhere, and there as well where certificates say who asks. A request passes the gate
//! (who asks), then the bounds (headers, body, time, memory), then its handler, which asks the [`World`] for the change or
//! reads its view. Every route is declared once, together with its description: `/openapi.json` cannot differ from what is
//! served.

mod access;
mod audit;
mod bindings;
mod captures;
mod description;
mod explain;
mod fleet;
mod forbids;
mod governance;
mod health;
mod intake;
mod keys;
mod logs;
mod metrics;
mod modules;
mod observe;
mod policies;
mod problem;
mod proposals;
mod registry;
mod rights;
mod rollouts;
mod server;
mod shadow;
mod sites;
mod spec;
mod stall;
mod tenants;
mod token;
mod topics;
mod traces;
mod trust;
mod types;
mod whoami;

pub use server::AdminHandle;
pub use token::{TOKEN_LEN_MAX, TOKEN_LEN_MIN, Token, TokenError};

use crate::audit::Audit;
use crate::config::{RoleMap, know_certificates};
use crate::ledger::Counts;
use crate::links::LinksStatus;
use crate::otlp;
use crate::shared::Shared;
use crate::world::World;
use access::Gate;
use arc_swap::ArcSwap;
use axum::Router;
use axum::http::header::{CACHE_CONTROL, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use description::routes;
use logs::LogBook;
use myelin_transport::{Identity, ListenerStats, TlsIdentity, TlsReloader};
use rollouts::Notes;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;

/// Where the ledger's sums come from; see [`Counts`].
pub type LedgerSource = Arc<dyn Fn() -> LedgerFuture + Send + Sync>;

/// The ledger's sums by generation, on their way.
pub type LedgerFuture = Pin<Box<dyn Future<Output = BTreeMap<u64, Counts>> + Send>>;

/// Where the admin API listens, and who may use it.
#[derive(Clone, Debug)]
pub struct AdminListen {
    /// TCP address; port 0 takes any free one.
    pub addr: SocketAddr,
    /// `--dev`: on loopback, whoever is on this machine may use it without a token.
    pub dev: bool,
    /// The bearer token.
    pub token: Option<Token>,
    /// The router's certificate; needed wherever TLS is spoken.
    pub tls: Option<TlsIdentity>,
    /// The client certificates that may use the API; none named = none may.
    pub identities: Vec<Identity>,
    /// Who else may use it, and for what.
    pub roles: RoleMap,
    /// Whether a rollout needs a second person.
    pub two_person: bool,
    /// Largest module that is accepted, in bytes.
    pub module_bytes_max: usize,
}

impl AdminListen {
    /// Whether TLS is spoken: everywhere but on loopback, and there as well where somebody is known by a certificate, which
    /// plain HTTP cannot show, or where nothing else is left to show.
    fn is_tls(&self) -> bool {
        let can_show = self.tls.is_some() && know_certificates(&self.identities, &self.roles);
        !self.addr.ip().is_loopback() || (!self.dev && (self.token.is_none() || can_show))
    }
}

/// What the admin API shows and changes.
#[derive(Clone)]
pub struct AdminState {
    /// What is deployed.
    pub world: World,
    /// What the workers share.
    pub shared: Arc<Shared>,
    /// Counters of the client listeners, one for each worker.
    pub listeners: Vec<Arc<ListenerStats>>,
    /// The ledger.
    pub ledger: LedgerSource,
    /// Where clients connect.
    pub client_addr: SocketAddr,
    /// The mesh as this router sees it.
    pub mesh: Arc<ArcSwap<LinksStatus>>,
    /// What follows the certificate's files, where there are files.
    pub reloader: Option<Arc<TlsReloader>>,
    /// What became of the records of traces, where they are exported.
    pub exports: Option<Arc<otlp::Figures>>,
    /// Who did what.
    pub audit: Audit,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminState({}/{})", self.shared.site, self.shared.router)
    }
}

/// Starts the admin API on a thread of its own. Speaks plain HTTP where the address is loopback and there is `dev`,
/// or a token and nobody who is known by a certificate; TLS 1.3 everywhere else.
///
/// # Errors
/// When the address cannot be bound, or there is no certificate where TLS is needed.
pub fn serve(listen: AdminListen, state: AdminState) -> io::Result<AdminHandle> {
    server::start(listen, state)
}

/// What the readers of bodies say about `bytes`: of a binding, of a rollout, of a rollback; none where they take them.
/// For fuzzing, without HTTP around it.
#[cfg(feature = "testing")]
#[must_use]
pub fn read_bodies(bytes: &[u8]) -> [Option<String>; 3] {
    [
        intake::complaint::<spec::BindingSpec>(bytes),
        intake::complaint::<types::RolloutRequest>(bytes),
        intake::complaint::<types::RollbackRequest>(bytes),
    ]
}

/// What the handlers share.
pub(crate) struct Context {
    state: AdminState,
    gate: Gate,
    tls: Option<TlsIdentity>,
    /// Bytes of an uploaded module.
    module_bytes_max: usize,
    /// Memory for bodies, in KiB.
    bodies: Arc<Semaphore>,
    logs: LogBook,
    notes: Notes,
    two_person: bool,
}

impl Context {
    /// What a listener at `addr` serves.
    fn routes(listen: AdminListen, addr: SocketAddr, is_tls: bool, state: AdminState) -> Router {
        let AdminListen { dev, token, tls, identities, roles, two_person, module_bytes_max, .. } = listen;
        let (is_open, tokens) = (dev && addr.ip().is_loopback(), state.shared.tokens.clone());
        let gate = Gate { addr, is_tls, is_open, token, identities, roles, tokens };
        // Its description, some hundred KiB, is made anew for whoever asks.
        let (router, _) = declared().split_for_parts();
        let context = Arc::new(Self {
            state,
            gate,
            tls,
            module_bytes_max,
            bodies: Arc::new(Semaphore::new(intake::BODIES_KIB_MAX)),
            logs: LogBook::default(),
            notes: Notes::default(),
            two_person,
        });
        router
            .fallback(async |uri: Uri| registry::refused(&uri, problem::unknown_route(&uri)))
            .method_not_allowed_fallback(async |method: Method, uri: Uri| {
                registry::refused(&uri, problem::unknown_method(&method, &uri))
            })
            .layer(from_fn_with_state(context.clone(), access::check))
            .layer(from_fn_with_state(context.clone(), audit::keep))
            .layer(from_fn(seal))
            .with_state(context)
    }
}

/// Every route, each with its description.
fn declared() -> OpenApiRouter<Arc<Context>> {
    registry::declared(OpenApiRouter::with_openapi(description::frame()))
        .routes(routes!(modules: list))
        .routes(routes!(modules: upload, describe, remove))
        .routes(routes!(modules: release))
        .routes(routes!(modules: logs))
        .routes(routes!(bindings: list))
        .routes(routes!(bindings: stage, describe, remove))
        .routes(routes!(rollouts: list, start))
        .routes(routes!(rollouts: roll_back))
        .routes(routes!(fleet: describe))
        .routes(routes!(shadow: shadow))
        .routes(routes!(fleet: step))
        .routes(routes!(proposals: describe, approve, withdraw))
        .routes(routes!(sites as fleet: sites))
        .routes(routes!(sites as fleet: add_site, move_site, remove_site))
        .routes(routes!(sites as fleet: add_router, remove_router))
        .routes(routes!(keys: list))
        .routes(routes!(keys: revoke))
        .routes(routes!(captures: list, start))
        .routes(routes!(captures: describe, remove))
        .routes(routes!(captures: stop))
        .routes(routes!(captures: file))
        .routes(routes!(topics: list))
        .routes(routes!(topics: apply, describe, remove))
        .routes(routes!(tenants: list))
        .routes(routes!(tenants: apply, describe, remove))
        .routes(routes!(policies: list))
        .routes(routes!(policies: explain))
        .routes(routes!(policies: apply, describe, remove))
        .routes(routes!(trust: describe))
        .routes(routes!(trust: change))
        .routes(routes!(observe: ledger))
        .routes(routes!(observe: mesh_ledger))
        .routes(routes!(observe: clients))
        .routes(routes!(observe: status))
        .routes(routes!(observe: mesh))
        .routes(routes!(audit: list))
        .routes(routes!(audit: file))
        .routes(routes!(audit: verify))
        .routes(routes!(explain: explain))
        .routes(routes!(traces: trace))
        .routes(routes!(logs: logs))
        .routes(routes!(metrics: metrics))
        .routes(routes!(health: live))
        .routes(routes!(health: ready))
        .routes(routes!(whoami: whoami))
        .routes(routes!(description: openapi))
}

/// No answer is kept by a cache or taken for anything but what it says it is.
async fn seal(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
    let mut response = next.run(request).await;
    let sealed: [(HeaderName, &'static str); 2] = [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in sealed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
