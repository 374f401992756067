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

/// The roles of each route by method and path, beside `admin`, which may use all.
const TABLE: &[(&str, &str, Roles)] = &[
    ("GET", "/livez", ANY),
    ("GET", "/readyz", ANY),
    ("GET", "/metrics", VIEW),
    ("GET", "/openapi.json", ANY),
    ("GET", "/v1/whoami", ANY),
    ("GET", "/v1/audit", SECURE),
    ("GET", "/v1/audit/file", SECURE),
    ("GET", "/v1/audit/verify", SECURE),
    ("GET", "/v1/bindings", VIEW),
    ("GET", "/v1/bindings/{name}", VIEW),
    ("PUT", "/v1/bindings/{name}", DEVELOP),
    ("DELETE", "/v1/bindings/{name}", DEVELOP),
    ("GET", "/v1/captures", VIEW),
    ("POST", "/v1/captures", CAPTURE),
    ("GET", "/v1/captures/{id}", VIEW),
    ("DELETE", "/v1/captures/{id}", CAPTURE),
    ("GET", "/v1/captures/{id}/file", PAYLOADS),
    ("POST", "/v1/captures/{id}/stop", CAPTURE),
    ("GET", "/v1/clients", VIEW),
    ("GET", "/v1/explain", VIEW),
    ("GET", "/v1/ledger", VIEW),
    ("GET", "/v1/logs", LINES),
    ("GET", "/v1/mesh", VIEW),
    ("GET", "/v1/mesh/keys", VIEW),
    ("DELETE", "/v1/mesh/keys/{name}", SECURE),
    ("GET", "/v1/mesh/ledger", VIEW),
    ("GET", "/v1/mesh/sites", VIEW),
    ("PUT", "/v1/mesh/sites/{name}", OPERATE),
    ("PATCH", "/v1/mesh/sites/{name}", OPERATE),
    ("DELETE", "/v1/mesh/sites/{name}", OPERATE),
    ("PUT", "/v1/mesh/sites/{site}/routers/{router}", OPERATE),
    ("DELETE", "/v1/mesh/sites/{site}/routers/{router}", OPERATE),
    ("GET", "/v1/modules", VIEW),
    ("GET", "/v1/modules/{name}/versions/{version}", VIEW),
    ("PUT", "/v1/modules/{name}/versions/{version}", DEVELOP),
    ("DELETE", "/v1/modules/{name}/versions/{version}", DEVELOP),
    ("GET", "/v1/modules/{name}/versions/{version}/logs", LINES),
    ("POST", "/v1/modules/{name}/versions/{version}/release", RELEASE),
    ("GET", "/v1/policies", VIEW),
    ("POST", "/v1/policies/explain", VIEW),
    ("GET", "/v1/policies/{name}", VIEW),
    ("PUT", "/v1/policies/{name}", SECURE),
    ("DELETE", "/v1/policies/{name}", SECURE),
    ("GET", "/v1/rollouts", VIEW),
    ("POST", "/v1/rollouts", RELEASE),
    ("POST", "/v1/rollouts/rollback", RELEASE),
    ("GET", "/v1/rollouts/{id}", VIEW),
    ("GET", "/v1/rollouts/{id}/shadow", VIEW),
    ("GET", "/v1/rollouts/{id}/approve", VIEW),
    ("POST", "/v1/rollouts/{id}/approve", RELEASE),
    ("DELETE", "/v1/rollouts/{id}/approve", RELEASE),
    ("POST", "/v1/rollouts/{id}/{step}", RELEASE),
    ("GET", "/v1/schemas", VIEW),
    ("GET", "/v1/status", VIEW),
    ("GET", "/v1/tenants", VIEW),
    ("GET", "/v1/tenants/{name}", VIEW),
    ("PUT", "/v1/tenants/{name}", SECURE),
    ("DELETE", "/v1/tenants/{name}", SECURE),
    ("GET", "/v1/topics", VIEW),
    ("GET", "/v1/topics/{name}", VIEW),
    ("PUT", "/v1/topics/{name}", DEVELOP),
    ("DELETE", "/v1/topics/{name}", DEVELOP),
    ("GET", "/v1/traces/{trace_id}", VIEW),
    ("GET", "/v1/trust", VIEW),
    ("POST", "/v1/trust/changes", SECURE),
    ("POST", "/registry/compatibility/subjects/{subject}/versions", VIEW),
    ("POST", "/registry/compatibility/subjects/{subject}/versions/{version}", VIEW),
    ("GET", "/registry/config", VIEW),
    ("PUT", "/registry/config", SECURE),
    ("DELETE", "/registry/config", SECURE),
    ("GET", "/registry/config/{subject}", VIEW),
    ("PUT", "/registry/config/{subject}", DEVELOP),
    ("DELETE", "/registry/config/{subject}", DEVELOP),
    ("GET", "/registry/mode", VIEW),
    ("PUT", "/registry/mode", SECURE),
    ("DELETE", "/registry/mode", SECURE),
    ("GET", "/registry/mode/{subject}", VIEW),
    ("PUT", "/registry/mode/{subject}", DEVELOP),
    ("DELETE", "/registry/mode/{subject}", DEVELOP),
    ("GET", "/registry/schemas/ids/{id}", VIEW),
    ("GET", "/registry/schemas/ids/{id}/schema", VIEW),
    ("GET", "/registry/schemas/ids/{id}/subjects", VIEW),
    ("GET", "/registry/schemas/ids/{id}/versions", VIEW),
    ("GET", "/registry/schemas/types", VIEW),
    ("GET", "/registry/subjects", VIEW),
    ("POST", "/registry/subjects/{subject}", VIEW),
    ("DELETE", "/registry/subjects/{subject}", DEVELOP),
    ("GET", "/registry/subjects/{subject}/versions", VIEW),
    ("POST", "/registry/subjects/{subject}/versions", DEVELOP),
    ("GET", "/registry/subjects/{subject}/versions/{version}", VIEW),
    ("DELETE", "/registry/subjects/{subject}/versions/{version}", DEVELOP),
    ("GET", "/registry/subjects/{subject}/versions/{version}/referencedby", VIEW),
    ("GET", "/registry/subjects/{subject}/versions/{version}/schema", VIEW),
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
    let mut of_path = TABLE.iter().filter(|(_, known, _)| *known == path).peekable();
    if of_path.peek().is_none() {
        return Right::Of(ADMIN);
    }
    of_path.find(|(known, ..)| *known == method).map_or(Right::NoMethod, |(.., roles)| Right::Of(roles.and(ADMIN)))
}

/// Whether somebody of `tenant` may use `method` at `uri`, which the route `path` serves, as far as their roles let them.
pub(super) fn is_for_tenant(method: &Method, path: &str, uri: &str, tenant: &str) -> bool {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let is_known = OF_TENANT.contains(&(method, path));
    is_known && (path != OWN_TENANT || uri.strip_prefix("/v1/tenants/") == Some(tenant))
}

/// Whether this route shows payloads: each use of it is written down by itself.
pub(super) fn shows_payloads(path: &str) -> bool {
    TABLE.iter().any(|(_, known, roles)| *known == path && *roles == PAYLOADS)
}

/// Whether somebody with `roles` may look at payloads.
pub(super) fn sees_payloads(roles: Roles) -> bool {
    roles.meets(PAYLOADS.and(ADMIN))
}

/// What somebody with `roles` may do, as `METHOD PATH`; of `tenant` where they are one's.
pub(super) fn of(roles: Roles, tenant: Option<&str>) -> Vec<String> {
    let mine = TABLE.iter().filter(|(.., needed)| roles.meets(needed.and(ADMIN)));
    let mine = mine.filter(|(method, path, _)| tenant.is_none() || OF_TENANT.contains(&(*method, *path)));
    mine.map(|(method, path, _)| match tenant {
        Some(tenant) if *path == OWN_TENANT => format!("{method} /v1/tenants/{tenant}"),
        _ => format!("{method} {path}"),
    })
    .collect()
}

/// Adds its roles to an operation of the description.
pub(super) fn describe(method: &str, path: &str, operation: &mut Operation) {
    let declared = TABLE.iter().find(|(known, at, _)| *known == method && *at == path);
    let Some((.., roles)) = declared else { return };
    let names = roles.and(ADMIN).names();
    operation.extensions.get_or_insert_with(|| ExtensionsBuilder::new().build()).insert(EXTENSION.into(), names.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_stands_once_in_the_table() {
        let mut routes: Vec<_> = TABLE.iter().map(|(method, path, _)| (method, path)).collect();
        let count = routes.len();
        routes.sort();
        routes.dedup();
        assert_eq!(routes.len(), count);
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
        assert!(OF_TENANT.iter().all(|route| TABLE.iter().any(|(method, path, _)| *route == (*method, *path))));
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
        assert!(shows_payloads("/v1/captures/{id}/file") && !shows_payloads("/v1/logs"));
    }
}
