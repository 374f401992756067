//! What policies take away from those whose roles allow a call: `forbid (principal, action == Action::"admin", ..)`.

use super::Context;
use super::access::Caller;
use super::problem::Problem;
use crate::policy::Rules;
use axum::RequestExt;
use axum::extract::{RawPathParams, Request};
use axum::http::StatusCode;
use myelin_policy::{Call, Decision, Subject, Verdict};

/// Routes that no policy closes, with all below them: whether the router lives, who one is, what it has, and the policies
/// themselves. Whoever locked everybody out finds the way back.
const OPEN: [&str; 5] = ["/livez", "/readyz", "/openapi.json", "/v1/whoami", "/v1/policies"];

/// Refuses what a policy forbids.
///
/// # Errors
/// `forbidden-policy`, with the statements.
pub(super) async fn check(
    context: &Context,
    caller: &Caller,
    request: &mut Request,
    route: &str,
) -> Result<(), Problem> {
    let rules = context.state.shared.rules.load_full();
    if !rules.speak_of_admin() || is_open(route) {
        return Ok(());
    }
    let unreadable = |error: &dyn std::fmt::Display| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid-path", format!("the path cannot be read: {error}"))
    };
    let parts = request.extract_parts::<RawPathParams>().await.map_err(|error| unreadable(&error))?;
    let parts: Vec<_> = parts.iter().collect();
    let subject = subject(route, &parts).unwrap_or_else(|| Subject::Site(rules.site()));
    ask(&rules, caller, subject, (request.method().as_str(), route))
}

/// The same of something that a call names in its body.
///
/// # Errors
/// As above.
pub(super) fn ask(
    rules: &Rules,
    caller: &Caller,
    subject: Subject<'_>,
    (method, route): (&str, &str),
) -> Result<(), Problem> {
    let (actor, roles) = (caller.actor.to_string(), caller.roles.names());
    let call = Call { caller: &actor, roles: &roles, subject, method, route, site: rules.site() };
    let Decision { verdict: Verdict::Forbid, reasons } = rules.decide_admin(&call) else { return Ok(()) };
    let detail = format!(
        "policy {} forbids {method} {route} to {actor}, whatever the roles (`myelin policy ls` shows the text)",
        reasons.join(", ")
    );
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden-policy", detail))
}

fn is_open(route: &str) -> bool {
    OPEN.iter().any(|open| route.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// What a route is about; none where that is the router's site.
fn subject<'a>(route: &str, parts: &[(&str, &'a str)]) -> Option<Subject<'a>> {
    let part = |wanted: &str| parts.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    // `/v1/modules/..` and `/registry/subjects/..`; below `/registry`, whatever names a subject is about it.
    let kind = route.split('/').nth(2)?;
    match kind {
        "modules" => Some(Subject::Module(part("name")?, part("version").unwrap_or_default())),
        "bindings" => Some(Subject::Binding(part("name")?)),
        "topics" => Some(Subject::Rule(part("name")?)),
        "tenants" => Some(Subject::Tenant(part("name")?)),
        "rollouts" => Some(Subject::Rollout(part("id")?)),
        "captures" => Some(Subject::Capture(part("id")?)),
        "mesh" => Some(Subject::Site(part("site").or_else(|| part("name"))?)),
        _ => Some(Subject::Subject(part("subject")?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_about_what_it_names() {
        let module = [("name", "redact"), ("version", "1.0.0")];
        let route = "/v1/modules/{name}/versions/{version}/logs";
        assert_eq!(subject(route, &module), Some(Subject::Module("redact", "1.0.0")));
        assert_eq!(subject("/v1/bindings/{name}", &[("name", "gate")]), Some(Subject::Binding("gate")));
        assert_eq!(subject("/v1/rollouts/{id}/{step}", &[("id", "7"), ("step", "abort")]), Some(Subject::Rollout("7")));
        let subjects = [("subject", "orders-value"), ("version", "1")];
        let route = "/registry/compatibility/subjects/{subject}/versions/{version}";
        assert_eq!(subject(route, &subjects), Some(Subject::Subject("orders-value")));
        assert_eq!(subject("/registry/config/{subject}", &subjects), Some(Subject::Subject("orders-value")));
        let router = [("site", "hamburg"), ("router", "r1")];
        assert_eq!(subject("/v1/mesh/sites/{site}/routers/{router}", &router), Some(Subject::Site("hamburg")));
        for about_the_site in ["/metrics", "/v1/rollouts", "/v1/mesh", "/v1/audit", "/registry/schemas/ids/{id}"] {
            assert_eq!(subject(about_the_site, &[("id", "1")][..0]), None, "{about_the_site}");
        }
        assert!(
            is_open("/v1/policies/{name}") && is_open("/livez") && !is_open("/v1/policiesx") && !is_open("/v1/trust")
        );
    }
}
