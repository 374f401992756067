//! `/registry`: the schema registry, in the words that the clients and serializers of Kafka speak.
//!
//! Paths, bodies, error numbers and the media type are those of Confluent's registry, so that unmodified clients work:
//! their URL is this router's admin API with `/registry` behind it. Reads are answered from this router's own copy of the
//! catalog; changes go to whoever writes it, like all others.

mod bodies;
mod compatibility;
mod ids;
mod intake;
mod overview;
mod refusal;
mod settings;
mod subjects;
mod versions;

pub(super) use refusal::{RegistryProblem, owns};

use super::Context;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How bodies and answers are typed.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Every route of the registry, each with its description.
pub(super) fn declared(router: OpenApiRouter<Arc<Context>>) -> OpenApiRouter<Arc<Context>> {
    router
        .routes(routes!(overview::overview))
        .routes(routes!(subjects::list))
        .routes(routes!(subjects::look_up, subjects::remove))
        .routes(routes!(versions::list, versions::register))
        .routes(routes!(versions::describe, versions::remove))
        .routes(routes!(versions::text))
        .routes(routes!(versions::referrers))
        .routes(routes!(ids::types))
        .routes(routes!(ids::describe))
        .routes(routes!(ids::text))
        .routes(routes!(ids::subjects))
        .routes(routes!(ids::versions))
        .routes(routes!(compatibility::compare))
        .routes(routes!(compatibility::compare_all))
        .routes(routes!(settings::level, settings::set_level, settings::unset_level))
        .routes(routes!(settings::subject_level, settings::set_subject_level, settings::unset_subject_level))
        .routes(routes!(settings::mode, settings::set_mode, settings::unset_mode))
        .routes(routes!(settings::subject_mode, settings::set_subject_mode, settings::unset_subject_mode))
}
