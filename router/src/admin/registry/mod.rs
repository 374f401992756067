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

use refusal::RegistryProblem;
pub(super) use refusal::{owns, refused};

use super::Context;
use super::description::routes;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;

/// How bodies and answers are typed.
pub(super) const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Every route of the registry, each with its description.
pub(super) fn declared(router: OpenApiRouter<Arc<Context>>) -> OpenApiRouter<Arc<Context>> {
    router
        .routes(routes!(registry / overview: overview))
        .routes(routes!(registry / subjects: list))
        .routes(routes!(registry / subjects: look_up, remove))
        .routes(routes!(registry / versions: list, register))
        .routes(routes!(registry / versions: describe, remove))
        .routes(routes!(registry / versions: text))
        .routes(routes!(registry / versions: referrers))
        .routes(routes!(registry / ids: types))
        .routes(routes!(registry / ids: describe))
        .routes(routes!(registry / ids: text))
        .routes(routes!(registry / ids: subjects))
        .routes(routes!(registry / ids: versions))
        .routes(routes!(registry / compatibility: compare))
        .routes(routes!(registry / compatibility: compare_all))
        .routes(routes!(registry / settings: level, set_level, unset_level))
        .routes(routes!(registry / settings: subject_level, set_subject_level, unset_subject_level))
        .routes(routes!(registry / settings: mode, set_mode, unset_mode))
        .routes(routes!(registry / settings: subject_mode, set_subject_mode, unset_subject_mode))
}
