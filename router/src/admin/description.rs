//! `/openapi.json`: what this API is, for programs.
//!
//! Each route says what is its own, beside its function. What holds for all is added here: the names of operations, the
//! roles, why anything may be refused, and a word for every answer.

use super::problem::CONTENT_TYPE_PROBLEM;
use super::{declared, registry, rights};
use axum::Json;
use std::collections::BTreeMap;
use utoipa::openapi::path::{Operation, ParameterIn, Paths};
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, Response,
    ResponseBuilder, Schema,
};
use utoipa_axum::router::UtoipaMethodRouter;

/// The routes of a module's functions, as `utoipa_axum::routes!` has them. Most modules have a `list`: the operations are
/// called by the module as well, and by its area where there is one.
macro_rules! routes {
    ($module:ident: $($function:ident),+) => {
        $crate::admin::description::named(stringify!($module), utoipa_axum::routes!($($module::$function),+))
    };
    // What a module was called when the contract was made.
    ($module:ident as $part:ident: $($function:ident),+) => {
        $crate::admin::description::named(stringify!($part), utoipa_axum::routes!($($module::$function),+))
    };
    ($area:ident / $module:ident: $($function:ident),+) => {
        $crate::admin::description::named(stringify!($area), routes!($module: $($function),+))
    };
}
pub(super) use routes;

/// These routes, whose operations are called `PART_FUNCTION`; `PART` where the function is called so already.
pub(super) fn named<S>(part: &str, (schemas, mut paths, router): UtoipaMethodRouter<S>) -> UtoipaMethodRouter<S> {
    for (_, _, operation) in operations(&mut paths) {
        let function = operation.operation_id.take().filter(|function| function != part);
        operation.operation_id =
            Some(function.map_or_else(|| part.to_owned(), |function| format!("{part}_{function}")));
    }
    (schemas, paths, router)
}

/// What the description says about all routes.
pub(super) fn frame() -> OpenApi {
    let description = "The admin API of a Myelin router. Loopback needs no credentials with `--dev`; anything else \
         needs a bearer token or a client certificate that the configuration names, or a JSON Web Token of an issuer that it trusts; `x-myelin-roles` says which roles an \
         operation is for. Refusals are problems (RFC 9457) with a stable `code`; \
         those of `/registry`, which speaks as Confluent's schema registry does, have its error numbers beside it.";
    let info = InfoBuilder::new()
        .title("Myelin admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(description))
        .license(Some(License::new("Apache-2.0")))
        .build();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let description_mutual = Some("a client certificate".to_owned());
    let mutual = SecurityScheme::MutualTls { description: description_mutual, deprecated: None, extensions: None };
    let basic = SecurityScheme::Http(
        HttpBuilder::new()
            .scheme(HttpAuthScheme::Basic)
            .description(Some("for `/registry` only: any user, the token as password"))
            .build(),
    );
    let components = ComponentsBuilder::new()
        .security_scheme("token", bearer)
        .security_scheme("password", basic)
        .security_scheme("certificate", mutual);
    let schemes = ["token", "password", "certificate"];
    let none: [&str; 0] = [];
    let security = schemes.map(|name| utoipa::openapi::SecurityRequirement::new(name, none));
    OpenApiBuilder::new().info(info).components(Some(components.build())).security(Some(security)).build()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "description", responses(
    (status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json"),
))]
pub(super) async fn openapi() -> Json<OpenApi> {
    Json(whole())
}

fn whole() -> OpenApi {
    let mut document = declared().into_openapi();
    open_parts(&mut document);
    for (method, path, operation) in operations(&mut document.paths) {
        rights::describe(method, path, operation);
        add_refusals(method, path, operation);
        for (status, response) in &mut operation.responses.responses {
            if let RefOr::T(Response { description, .. }) = response
                && description.is_empty()
            {
                told(status).clone_into(description);
            }
        }
    }
    document
}

/// Every operation, with its method and path.
fn operations(paths: &mut Paths) -> impl Iterator<Item = (&'static str, &str, &mut Operation)> {
    paths.paths.iter_mut().flat_map(|(path, item)| {
        let PathItem { get, put, post, patch, delete, .. } = item;
        let declared = [("GET", get), ("PUT", put), ("POST", post), ("PATCH", patch), ("DELETE", delete)];
        declared.into_iter().filter_map(move |(method, operation)| Some((method, path.as_str(), operation.as_mut()?)))
    })
}

/// What is part of something larger is not closed by itself: `additionalProperties: false` of a request's body would refuse
/// all that an answer has beside it.
fn open_parts(document: &mut OpenApi) {
    let Some(components) = &mut document.components else { return };
    let is_closed = |closed: &AdditionalProperties<Schema>| matches!(closed, AdditionalProperties::FreeForm(false));
    let opened = components.schemas.iter().filter_map(|(name, schema)| match schema {
        RefOr::T(Schema::Object(object)) if object.additional_properties.as_deref().is_some_and(is_closed) => {
            let mut open = object.clone();
            open.additional_properties = None;
            Some((Ref::from_schema_name(name).ref_location, open))
        }
        _ => None,
    });
    let opened: BTreeMap<_, _> = opened.collect();
    for schema in components.schemas.values_mut() {
        let RefOr::T(Schema::AllOf(whole)) = schema else { continue };
        for part in &mut whole.items {
            if let RefOr::Ref(Ref { ref_location, .. }) = part
                && let Some(open) = opened.get(ref_location)
            {
                *part = Schema::Object(open.clone()).into();
            }
        }
    }
}

/// Adds why any request of this kind may be refused, where the operation does not say it in words of its own.
fn add_refusals(method: &str, path: &str, operation: &mut Operation) {
    let is_registry = registry::owns(path);
    let has = |wanted: ParameterIn| {
        operation.parameters.iter().flatten().any(|parameter| match parameter {
            RefOr::T(parameter) => parameter.parameter_in == wanted,
            RefOr::Ref(_) => false,
        })
    };
    let mut statuses = vec!["401", "403"];
    match is_registry {
        // What a query says beyond what is known is not looked at there.
        true if path.contains("{subject}") => statuses.push("422"),
        true => {}
        false if has(ParameterIn::Path) || has(ParameterIn::Query) || has(ParameterIn::Header) => statuses.push("400"),
        false => {}
    }
    if operation.request_body.is_some() {
        statuses.extend(["400", "408", "413", "415", "503"]);
    }
    if method != "GET" {
        statuses.extend(["500", "503"]);
    }
    let (problem, content_type) = match is_registry {
        true => ("RegistryProblem", registry::MEDIA_TYPE),
        false => ("Problem", CONTENT_TYPE_PROBLEM),
    };
    for status in statuses {
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(problem))).build();
            ResponseBuilder::new().description(told(status)).content(content_type, content).build().into()
        });
    }
}

/// What a status says, where an operation says no more about it.
fn told(status: &str) -> &'static str {
    match status {
        "200" => "The answer",
        "201" => "It is there now",
        "202" => "It is taken",
        "204" => "It is done",
        "400" => "The request is not as it must be: `detail` says where",
        "401" => "Nobody is shown who may ask: a token is missing, wrong or too old, or a certificate is missing",
        "403" => "Whoever asks has no role for this, or is of a tenant that has no part in it",
        "404" => "There is no such thing",
        "408" => "The body came too slowly",
        "409" => "The catalog is not as this request takes it to be",
        "413" => "The body is larger than it may be",
        "415" => "The body is of another media type, or packed",
        "422" => "What was sent has its form, but cannot be used",
        "429" => "It was asked for too often: `detail` says when it may be again",
        "500" => "Whoever writes the catalog is not reached, or the router has failed",
        "503" => "The router stops or is busy: ask again in a second",
        "504" => "Somebody who has to answer first does not",
        "507" => "The catalog holds as much as it may",
        _ => "It is refused",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_has_a_name_of_its_own_and_every_answer_a_word() {
        let (mut document, mut names) = (whole(), BTreeSet::new());
        for (method, path, operation) in operations(&mut document.paths) {
            let name = operation.operation_id.clone().unwrap();
            assert!(names.insert(name.clone()), "{method} {path}: `{name}` is another's");
            let responses = &operation.responses.responses;
            for (status, response) in responses {
                let RefOr::T(response) = response else { panic!("{name}: {status} is somewhere else") };
                assert!(!response.description.is_empty(), "{name}: {status}");
                assert_eq!(response.content.is_empty(), status == "204", "{name}: {status} has a body");
                assert_ne!(told(status), "It is refused", "{name}: {status} is a status without a word");
            }
            let asked = responses.contains_key("401") && responses.contains_key("403");
            assert!(asked, "{name} says what becomes of whoever may not ask");
            let is_refused_in_form = |status: &str| match &responses[status] {
                RefOr::T(response) => response
                    .content
                    .keys()
                    .all(|kind| kind == if registry::owns(path) { registry::MEDIA_TYPE } else { CONTENT_TYPE_PROBLEM }),
                RefOr::Ref(_) => false,
            };
            assert!(
                responses.keys().filter(|status| status.as_str() >= "400").all(|status| is_refused_in_form(status))
            );
        }
        assert_eq!(names.len(), 93, "the contract, of which tests/admin/contract.rs has the names");
    }
}
