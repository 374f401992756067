//! Which roles may use which route: the one table. A route that is not in it is for nobody but `admin`.
//!
//! The description shows the roles of each route as `x-myelin-roles`; `tests/admin/roles.txt` is the whole matrix, and a
//! test asks every route as every role.

use crate::config::{Role, Roles};
use axum::http::Method;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::Operation;

/// How a route's roles are called in the description.
const EXTENSION: &str = "x-myelin-roles";

const ADMIN: Roles = Roles::of(&[Role::Admin]);
/// Whoever has a role: what a program needs to know to talk to the API at all.
const ANY: Roles = Roles::of(&Role::ALL);
/// Reading: all roles but that of payloads, which opens nothing else.
const VIEW: Roles = Roles::of(&[Role::Viewer, Role::Developer, Role::Releaser, Role::Operator, Role::Security]);
/// Making filters and schemas.
const DEVELOP: Roles = Roles::of(&[Role::Developer]);
/// Making them active, and taking them back.
const RELEASE: Roles = Roles::of(&[Role::Releaser]);
/// Letting a module do more than the one before it: a second look, by another role than that which makes filters.
pub(super) const APPROVE: Roles = Roles::of(&[Role::Releaser, Role::Security, Role::Admin]);
/// Who belongs to the mesh.
const OPERATE: Roles = Roles::of(&[Role::Operator]);
/// Recording events, without seeing them.
const CAPTURE: Roles = Roles::of(&[Role::Developer, Role::Operator]);
/// Rules that hold for everybody, and who did what.
const SECURE: Roles = Roles::of(&[Role::Security]);
/// Payloads themselves.
const PAYLOADS: Roles = Roles::of(&[Role::Payloads]);
/// What filters write may hold payloads; whoever uploads a filter can let it write all that it sees.
const LINES: Roles = Roles::of(&[Role::Developer, Role::Payloads]);

/// What anybody may ask who reaches the listener: probes have no certificate.
pub(super) const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// What using a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It changes nothing: uses of it are counted together. Questions that do not fit into a path are a POST.
    Read,
    /// It may change something: each use of it is written down by itself.
    Change,
    /// It changes nothing, and shows payloads: each use of it is written down by itself.
    Payloads,
}
use Effect::{Change, Payloads, Read};

/// The roles of each route by method and path, beside `admin`, which may use all; and what the route does.
const TABLE: &[(&str, &str, Roles, Effect)] = &[
    ("GET", "/livez", ANY, Read),
    ("GET", "/readyz", ANY, Read),
    ("GET", "/metrics", VIEW, Read),
    ("GET", "/openapi.json", ANY, Read),
    ("GET", "/v1/whoami", ANY, Read),
    ("GET", "/v1/audit", SECURE, Read),
    ("GET", "/v1/audit/file", SECURE, Read),
    ("GET", "/v1/audit/verify", SECURE, Read),
    ("GET", "/v1/bindings", VIEW, Read),
    ("GET", "/v1/bindings/{name}", VIEW, Read),
    ("PUT", "/v1/bindings/{name}", DEVELOP, Change),
    ("DELETE", "/v1/bindings/{name}", DEVELOP, Change),
    ("GET", "/v1/captures", VIEW, Read),
    ("POST", "/v1/captures", CAPTURE, Change),
    ("GET", "/v1/captures/{id}", VIEW, Read),
    ("DELETE", "/v1/captures/{id}", CAPTURE, Change),
    ("GET", "/v1/captures/{id}/file", PAYLOADS, Payloads),
    ("POST", "/v1/captures/{id}/stop", CAPTURE, Change),
    ("GET", "/v1/clients", VIEW, Read),
    ("GET", "/v1/explain", VIEW, Read),
    ("GET", "/v1/ledger", VIEW, Read),
    ("GET", "/v1/logs", LINES, Read),
    ("GET", "/v1/mesh", VIEW, Read),
    ("GET", "/v1/mesh/keys", VIEW, Read),
    ("DELETE", "/v1/mesh/keys/{name}", SECURE, Change),
    ("GET", "/v1/mesh/ledger", VIEW, Read),
    ("GET", "/v1/mesh/sites", VIEW, Read),
    ("PUT", "/v1/mesh/sites/{name}", OPERATE, Change),
    ("PATCH", "/v1/mesh/sites/{name}", OPERATE, Change),
    ("DELETE", "/v1/mesh/sites/{name}", OPERATE, Change),
    ("PUT", "/v1/mesh/sites/{site}/routers/{router}", OPERATE, Change),
    ("DELETE", "/v1/mesh/sites/{site}/routers/{router}", OPERATE, Change),
    ("GET", "/v1/modules", VIEW, Read),
    ("GET", "/v1/modules/{name}/versions/{version}", VIEW, Read),
    ("PUT", "/v1/modules/{name}/versions/{version}", DEVELOP, Change),
    ("DELETE", "/v1/modules/{name}/versions/{version}", DEVELOP, Change),
    ("GET", "/v1/modules/{name}/versions/{version}/logs", LINES, Read),
    ("POST", "/v1/modules/{name}/versions/{version}/release", RELEASE, Change),
    ("GET", "/v1/policies", VIEW, Read),
    ("POST", "/v1/policies/explain", VIEW, Read),
    ("GET", "/v1/policies/{name}", VIEW, Read),
    ("PUT", "/v1/policies/{name}", SECURE, Change),
    ("DELETE", "/v1/policies/{name}", SECURE, Change),
    ("GET", "/v1/rollouts", VIEW, Read),
    ("POST", "/v1/rollouts", RELEASE, Change),
    ("POST", "/v1/rollouts/rollback", RELEASE, Change),
    ("GET", "/v1/rollouts/{id}", VIEW, Read),
    ("GET", "/v1/rollouts/{id}/shadow", VIEW, Read),
    ("GET", "/v1/rollouts/{id}/approve", VIEW, Read),
    ("POST", "/v1/rollouts/{id}/approve", RELEASE, Change),
    ("DELETE", "/v1/rollouts/{id}/approve", RELEASE, Change),
    ("POST", "/v1/rollouts/{id}/{step}", RELEASE, Change),
    ("GET", "/v1/schemas", VIEW, Read),
    ("GET", "/v1/status", VIEW, Read),
    ("GET", "/v1/tenants", VIEW, Read),
    ("GET", "/v1/tenants/{name}", VIEW, Read),
    ("PUT", "/v1/tenants/{name}", SECURE, Change),
    ("DELETE", "/v1/tenants/{name}", SECURE, Change),
    ("GET", "/v1/topics", VIEW, Read),
    ("GET", "/v1/topics/{name}", VIEW, Read),
    ("PUT", "/v1/topics/{name}", DEVELOP, Change),
    ("DELETE", "/v1/topics/{name}", DEVELOP, Change),
    ("GET", "/v1/traces/{trace_id}", VIEW, Read),
    ("GET", "/v1/trust", VIEW, Read),
    ("POST", "/v1/trust/changes", SECURE, Change),
    ("POST", "/registry/compatibility/subjects/{subject}/versions", VIEW, Read),
    ("POST", "/registry/compatibility/subjects/{subject}/versions/{version}", VIEW, Read),
    ("GET", "/registry/config", VIEW, Read),
    ("PUT", "/registry/config", SECURE, Change),
    ("DELETE", "/registry/config", SECURE, Change),
    ("GET", "/registry/config/{subject}", VIEW, Read),
    ("PUT", "/registry/config/{subject}", DEVELOP, Change),
    ("DELETE", "/registry/config/{subject}", DEVELOP, Change),
    ("GET", "/registry/mode", VIEW, Read),
    ("PUT", "/registry/mode", SECURE, Change),
    ("DELETE", "/registry/mode", SECURE, Change),
    ("GET", "/registry/mode/{subject}", VIEW, Read),
    ("PUT", "/registry/mode/{subject}", DEVELOP, Change),
    ("DELETE", "/registry/mode/{subject}", DEVELOP, Change),
    ("GET", "/registry/schemas/ids/{id}", VIEW, Read),
    ("GET", "/registry/schemas/ids/{id}/schema", VIEW, Read),
    ("GET", "/registry/schemas/ids/{id}/subjects", VIEW, Read),
    ("GET", "/registry/schemas/ids/{id}/versions", VIEW, Read),
    ("GET", "/registry/schemas/types", VIEW, Read),
    ("GET", "/registry/subjects", VIEW, Read),
    ("POST", "/registry/subjects/{subject}", VIEW, Read),
    ("DELETE", "/registry/subjects/{subject}", DEVELOP, Change),
    ("GET", "/registry/subjects/{subject}/versions", VIEW, Read),
    ("POST", "/registry/subjects/{subject}/versions", DEVELOP, Change),
    ("GET", "/registry/subjects/{subject}/versions/{version}", VIEW, Read),
    ("DELETE", "/registry/subjects/{subject}/versions/{version}", DEVELOP, Change),
    ("GET", "/registry/subjects/{subject}/versions/{version}/referencedby", VIEW, Read),
    ("GET", "/registry/subjects/{subject}/versions/{version}/schema", VIEW, Read),
];

/// What somebody of a tenant may use of the routes that their roles open: nothing there tells of other tenants.
const OF_TENANT: &[(&str, &str)] =
    &[("GET", "/livez"), ("GET", "/readyz"), ("GET", "/openapi.json"), ("GET", "/v1/whoami"), ("GET", OWN_TENANT)];
/// The one of these that is for the own tenant only.
const OWN_TENANT: &str = "/v1/tenants/{name}";

/// What may be done with a method on a path that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// It is for these roles.
    Of(Roles),
    /// The path has other methods.
    NoMethod,
}

/// Which roles `method` at the route `path` is for. A path that nobody has declared is for `admin`.
pub(super) fn right(method: &Method, path: &str) -> Right {
    // Whatever answers GET answers HEAD.
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let mut of_path = TABLE.iter().filter(|(_, known, ..)| *known == path).peekable();
    if of_path.peek().is_none() {
        return Right::Of(ADMIN);
    }
    of_path.find(|(known, ..)| *known == method).map_or(Right::NoMethod, |(_, _, roles, _)| Right::Of(roles.and(ADMIN)))
}

/// Whether somebody of `tenant` may use `method` at `uri`, which the route `path` serves, as far as their roles let them.
pub(super) fn is_for_tenant(method: &Method, path: &str, uri: &str, tenant: &str) -> bool {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let is_known = OF_TENANT.contains(&(method, path));
    is_known && (path != OWN_TENANT || uri.strip_prefix("/v1/tenants/") == Some(tenant))
}

/// What `method` at the route `path` does. What nobody has declared is not served, whatever it asks for.
pub(super) fn effect(method: &Method, path: &str) -> Effect {
    let name = if method == Method::HEAD { "GET" } else { method.as_str() };
    let declared = TABLE.iter().find(|(known, at, ..)| *known == name && *at == path);
    let undeclared = || if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) { Read } else { Change };
    declared.map_or_else(undeclared, |(.., effect)| *effect)
}

/// Whether somebody with `roles` may look at payloads.
pub(super) fn sees_payloads(roles: Roles) -> bool {
    roles.meets(PAYLOADS.and(ADMIN))
}

/// Whether somebody with `roles` may read what filters write, which may hold payloads.
pub(super) fn reads_lines(roles: Roles) -> bool {
    roles.meets(LINES.and(ADMIN))
}

/// What somebody with `roles` may do, as `METHOD PATH`; of `tenant` where they are one's.
pub(super) fn of(roles: Roles, tenant: Option<&str>) -> Vec<String> {
    let mine = TABLE.iter().filter(|(_, _, needed, _)| roles.meets(needed.and(ADMIN)));
    let mine = mine.filter(|(method, path, ..)| tenant.is_none() || OF_TENANT.contains(&(*method, *path)));
    mine.map(|(method, path, ..)| match tenant {
        Some(tenant) if *path == OWN_TENANT => format!("{method} /v1/tenants/{tenant}"),
        _ => format!("{method} {path}"),
    })
    .collect()
}

/// Adds its roles to an operation of the description.
pub(super) fn describe(method: &str, path: &str, operation: &mut Operation) {
    let declared = TABLE.iter().find(|(known, at, ..)| *known == method && *at == path);
    let Some((_, _, roles, _)) = declared else { return };
    let names = roles.and(ADMIN).names();
    operation.extensions.get_or_insert_with(|| ExtensionsBuilder::new().build()).insert(EXTENSION.into(), names.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_stands_once_in_the_table() {
        let mut routes: Vec<_> = TABLE.iter().map(|(method, path, ..)| (method, path)).collect();
        let count = routes.len();
        routes.sort();
        routes.dedup();
        assert_eq!(routes.len(), count);
    }

    #[test]
    fn get_changes_nothing_and_of_the_others_only_questions_do_not() {
        for (method, path, _, effect) in TABLE {
            let may = match *method {
                "GET" => *effect != Change,
                "POST" => *effect != Payloads,
                _ => *effect == Change,
            };
            assert!(may, "{method} {path}: {effect:?}");
        }
        assert_eq!(effect(&Method::HEAD, "/v1/captures/{id}/file"), Payloads, "whatever answers GET answers HEAD");
        let unserved = ["/v1/status", "/v1/new", "-"];
        assert!(unserved.iter().all(|path| effect(&Method::OPTIONS, path) == Read));
        assert!(unserved.iter().all(|path| effect(&Method::POST, path) == Change));
    }

    #[test]
    fn what_nobody_declared_is_for_admin_and_head_is_get() {
        assert_eq!(right(&Method::GET, "/v1/new"), Right::Of(ADMIN));
        assert_eq!(right(&Method::PATCH, "/v1/status"), Right::NoMethod);
        assert_eq!(right(&Method::HEAD, "/v1/status"), Right::Of(VIEW.and(ADMIN)));
    }

    #[test]
    fn those_of_a_tenant_see_their_own_only() {
        let may = |method: Method, path: &str, uri: &str| is_for_tenant(&method, path, uri, "acme");
        assert!(may(Method::GET, "/v1/whoami", "/v1/whoami"));
        assert!(may(Method::HEAD, OWN_TENANT, "/v1/tenants/acme"));
        assert!(!may(Method::GET, OWN_TENANT, "/v1/tenants/acme2"));
        assert!(!may(Method::DELETE, OWN_TENANT, "/v1/tenants/acme"));
        assert!(!may(Method::GET, "/metrics", "/metrics"));
        assert!(OF_TENANT.iter().all(|route| TABLE.iter().any(|(method, path, ..)| *route == (*method, *path))));
    }

    #[test]
    fn payloads_open_nothing_but_payloads() {
        let known = [
            "GET /livez",
            "GET /readyz",
            "GET /openapi.json",
            "GET /v1/whoami",
            "GET /v1/captures/{id}/file",
            "GET /v1/logs",
            "GET /v1/modules/{name}/versions/{version}/logs",
        ];
        assert_eq!(of(PAYLOADS, None), known);
        let shows: Vec<_> = TABLE.iter().filter(|(.., effect)| *effect == Payloads).collect();
        assert!(shows.iter().all(|(method, _, roles, _)| (*method, *roles) == ("GET", PAYLOADS)), "{shows:?}");
        assert!(TABLE.iter().all(|(_, _, roles, effect)| *roles != PAYLOADS || *effect == Payloads));
    }
}
