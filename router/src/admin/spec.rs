//! A binding as it is asked for: the catalog's own, with what OpenAPI needs to describe it.

use super::intake::object;
use myelin_catalog::{Binding, BindingLimits, CatalogError, Consent, Grant, ModuleRef, Name, OnFault, Stage};
use myelin_wire::Pattern;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A binding as it is asked for. What is left out has its default.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BindingSpec {
    /// The binding's name; may be left out, and must be the path's otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "orders-schema")]
    name: Option<Name>,
    /// The module, `name@version`.
    #[schema(value_type = String, example = "schema-json@0.1.0")]
    module: ModuleRef,
    /// The topics whose events it judges.
    #[schema(value_type = String, example = "orders/**")]
    pattern: Pattern,
    /// Where on an event's way it stands: `ingress` (at the router where it was published) or `egress` (at the one
    /// that delivers).
    #[serde(default)]
    #[schema(value_type = String, default = "ingress", pattern = "^(ingress|egress)$")]
    stage: Stage,
    /// Its place in the chain: lower comes first, equal ones by name.
    #[serde(default)]
    order: i32,
    /// What the filter is given at its start: any JSON.
    #[serde(default)]
    config: Value,
    /// What it may cost.
    #[serde(default, deserialize_with = "object")]
    #[schema(value_type = LimitsSchema)]
    limits: BindingLimits,
    /// What becomes of an event on which the filter fails: `reject`, `pass`, `dead-letter` or `last-good`.
    #[serde(default)]
    #[schema(value_type = String, default = "reject", pattern = "^(reject|pass|dead-letter|last-good)$")]
    on_fault: OnFault,
    /// What it may send, beside the events that it lets pass.
    #[serde(default, deserialize_with = "object")]
    #[schema(value_type = GrantSchema)]
    grant: Grant,
    /// Whether it enforces a rule, so that an event may never pass it unjudged.
    #[serde(default)]
    policy: bool,
    /// Whether an egress filter runs for each subscriber; not yet.
    #[serde(default)]
    per_subscriber: bool,
    /// What whoever stages it agrees to.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Consent::is_empty")]
    #[schema(value_type = ConsentSchema)]
    consent: Consent,
}

/// What whoever stages a binding agrees to.
#[derive(ToSchema)]
#[schema(as = Consent)]
#[expect(dead_code, reason = "describes myelin_catalog::Consent, which knows no OpenAPI; a test compares them")]
struct ConsentSchema {
    /// The functions of the host that the module may use, and the one that is active does not.
    capabilities: Vec<String>,
    /// A signed statement of `myelin filter allow-downgrade`: the text of its file.
    downgrade: Option<String>,
}

/// What a filter may cost.
#[derive(ToSchema)]
#[schema(as = BindingLimits)]
#[expect(dead_code, reason = "describes myelin_catalog::BindingLimits, which knows no OpenAPI; a test compares them")]
struct LimitsSchema {
    /// Memory of one instance, in bytes.
    memory_bytes: u64,
    /// CPU time of one batch, in microseconds.
    deadline_us: u32,
}

/// What a filter may send, beside the events that it lets pass.
#[derive(ToSchema)]
#[schema(as = Grant)]
#[expect(dead_code, reason = "describes myelin_catalog::Grant, which knows no OpenAPI; a test compares them")]
struct GrantSchema {
    /// Topics that it may route or emit to.
    topics: Vec<String>,
    /// Sites that it may route to.
    sites: Vec<String>,
}

impl BindingSpec {
    /// The binding that is called `name`.
    pub(super) fn named(self, path: Name) -> Result<Binding, CatalogError> {
        let Self {
            name,
            module,
            pattern,
            stage,
            order,
            config,
            limits,
            on_fault,
            grant,
            policy,
            per_subscriber,
            consent,
        } = self;
        if let Some(name) = name.filter(|name| *name != path) {
            let why = format!("it is `{name}` in the body and `{path}` in the path; leave it out of the body");
            return Err(CatalogError::InvalidBinding { binding: path.to_string(), field: "name", why });
        }
        let name = path;
        // A dependency lets `serde_json` keep the order in which keys were written; a record has them sorted, as routers
        // without that dependency write it again when they check its hash.
        let mut config = config;
        config.sort_all_objects();
        Ok(Binding {
            name,
            module,
            pattern,
            stage,
            order,
            config,
            limits,
            on_fault,
            grant,
            policy,
            per_subscriber,
            consent,
        })
    }
}

impl From<&Binding> for BindingSpec {
    fn from(binding: &Binding) -> Self {
        let binding = binding.clone();
        let Binding {
            name,
            module,
            pattern,
            stage,
            order,
            config,
            limits,
            on_fault,
            grant,
            policy,
            per_subscriber,
            consent,
        } = binding;
        let name = Some(name);
        Self { name, module, pattern, stage, order, config, limits, on_fault, grant, policy, per_subscriber, consent }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use utoipa::PartialSchema;

    fn binding() -> Binding {
        Binding::new("b".parse().unwrap(), "m@1.0.0".parse().unwrap(), Pattern::new("a/**").unwrap())
    }

    /// Names of the properties that a schema describes.
    fn described<T: PartialSchema>() -> Vec<String> {
        let schema = serde_json::to_value(T::schema()).unwrap();
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    }

    fn written(value: impl Serialize) -> Vec<String> {
        let mut keys: Vec<_> = serde_json::to_value(value).unwrap().as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    }

    #[test]
    fn the_specification_is_the_catalogs_binding() {
        let binding = binding();
        let mut spec = described::<BindingSpec>();
        spec.sort();
        // What agrees to nothing is left out.
        let consenting =
            Binding { consent: Consent { capabilities: vec!["log".into()], downgrade: None }, ..binding.clone() };
        assert_eq!(spec, written(&consenting));
        assert_eq!(written(BindingSpec::from(&binding)), written(&binding));
        assert_eq!(serde_json::to_value(BindingSpec::from(&binding)).unwrap(), serde_json::to_value(&binding).unwrap());
        let (mut limits, mut grant) = (described::<LimitsSchema>(), described::<GrantSchema>());
        limits.sort();
        grant.sort();
        assert_eq!((limits, grant), (written(binding.limits), written(&binding.grant)));
    }

    #[test]
    fn the_name_in_the_body_is_the_paths_or_none() {
        let spec = BindingSpec::from(&binding());
        assert_eq!(spec.clone().named("b".parse().unwrap()).unwrap(), binding());
        assert_eq!(spec.clone().named("c".parse().unwrap()).unwrap_err().code(), "invalid-binding");
        assert_eq!(BindingSpec { name: None, ..spec }.named("b".parse().unwrap()).unwrap(), binding());
    }

    #[test]
    fn defaults_are_the_catalogs() {
        let spec: BindingSpec = serde_json::from_str(r#"{"module":"m@1.0.0","pattern":"a/**"}"#).unwrap();
        assert_eq!(spec.named("b".parse().unwrap()).unwrap(), binding());
        let mentioned = serde_json::to_value(<BindingSpec as PartialSchema>::schema()).unwrap();
        assert_eq!(mentioned["properties"]["on_fault"]["default"], OnFault::default().as_str());
        assert_eq!(mentioned["properties"]["stage"]["default"], Stage::default().as_str());
    }
}
