//! Bindings: which module judges which events, how it is configured, and what it may cost.

use myelin_wire::topic::{Pattern, is_reserved};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::CatalogError;
use crate::limits::{
    CAPABILITIES_MAX, CONFIG_DEPTH_MAX, CONFIG_LEN_MAX_BYTES, DEADLINE_DEFAULT_US, DEADLINE_MAX_US, DEADLINE_MIN_US,
    GRANTS_MAX, MEMORY_MAX_BYTES, MEMORY_MIN_BYTES, NAME_LEN_MAX,
};
use crate::minisign::MinisignSignature;
use crate::names::{ModuleRef, Name};

/// A module attached to a pattern. What is left out has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// What it is called; a binding of the same name replaces it.
    pub name: Name,
    /// The code.
    pub module: ModuleRef,
    /// The topics whose events it judges.
    pub pattern: Pattern,
    /// Where on an event's way it stands.
    #[serde(default)]
    pub stage: Stage,
    /// Its place in the chain: lower comes first, equal ones by name.
    #[serde(default)]
    pub order: i32,
    /// What the filter is given at its start, as JSON; `null` = nothing.
    #[serde(default)]
    pub config: Value,
    /// What it may cost.
    #[serde(default)]
    pub limits: BindingLimits,
    /// What becomes of an event on which the filter fails.
    #[serde(default)]
    pub on_fault: OnFault,
    /// What the filter may send where.
    #[serde(default)]
    pub grant: Grant,
    /// Whether it enforces a rule, so that an event may never pass it unjudged.
    #[serde(default)]
    pub policy: bool,
    /// Whether an egress filter runs for each subscriber; not yet.
    #[serde(default)]
    pub per_subscriber: bool,
    /// What whoever stages it agrees to.
    #[serde(default, skip_serializing_if = "Consent::is_empty")]
    pub consent: Consent,
}

/// What whoever stages a binding agrees to, beside the binding itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Consent {
    /// The functions of the host that the module may use, and the one that is active does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// A signed [`crate::RollbackStatement`]: that this version may follow a higher one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downgrade: Option<MinisignSignature>,
}

impl Consent {
    /// Whether it agrees to nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where on an event's way a binding stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// After admission, at the router where the event was published.
    #[default]
    Ingress,
    /// Before delivery, at the router that delivers.
    Egress,
}

/// What becomes of an event on which a filter fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFault {
    /// It is refused.
    #[default]
    Reject,
    /// It goes on as if the binding were not there.
    Pass,
    /// It goes to the dead-letter topic.
    DeadLetter,
    /// The version of the filter before this one judges it.
    LastGood,
}

/// What a filter may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BindingLimits {
    /// Memory of one instance, in bytes.
    pub memory_bytes: u64,
    /// CPU time of one batch, in microseconds.
    pub deadline_us: u32,
}

/// What a filter may send, beside the events that it lets pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grant {
    /// Topics that it may route or emit to.
    pub topics: Vec<Pattern>,
    /// Sites that it may route to.
    pub sites: Vec<Name>,
}

impl Default for BindingLimits {
    fn default() -> Self {
        Self { memory_bytes: MEMORY_MAX_BYTES, deadline_us: DEADLINE_DEFAULT_US }
    }
}

impl Grant {
    /// Whether the filter may send to `topic`, which must be valid.
    pub fn allows_topic(&self, topic: &str) -> bool {
        !is_reserved(topic) && self.topics.iter().any(|pattern| pattern.matches(topic))
    }
}

impl Stage {
    /// The name in the catalog, the API and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl OnFault {
    /// The name in the catalog, the API and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Pass => "pass",
            Self::DeadLetter => "dead-letter",
            Self::LastGood => "last-good",
        }
    }
}

impl Binding {
    /// A binding with all defaults.
    pub fn new(name: Name, module: ModuleRef, pattern: Pattern) -> Self {
        Self {
            name,
            module,
            pattern,
            stage: Stage::default(),
            order: 0,
            config: Value::Null,
            limits: BindingLimits::default(),
            on_fault: OnFault::default(),
            grant: Grant::default(),
            policy: false,
            per_subscriber: false,
            consent: Consent::default(),
        }
    }

    /// The configuration as the filter gets it: compact JSON, empty where there is none.
    pub fn config_bytes(&self) -> Vec<u8> {
        if self.config.is_null() {
            return Vec::new();
        }
        serde_json::to_vec(&self.config).expect("a JSON value has string keys and no other way to fail")
    }

    /// Checks what the types do not.
    pub fn validate(&self) -> Result<(), CatalogError> {
        if self.per_subscriber {
            return Err(self.refuse(
                "per_subscriber",
                "filters cannot yet run for each subscriber; set it to false: the filter runs once for each event",
            ));
        }
        if self.policy && self.on_fault == OnFault::Pass {
            return Err(self.refuse(
                "on_fault",
                "a policy filter cannot let events pass unjudged; use reject, dead-letter or last-good",
            ));
        }
        self.validate_limits()?;
        self.validate_grant()?;
        self.validate_consent()?;
        if is_deeper(&self.config, CONFIG_DEPTH_MAX) {
            return Err(self.refuse("config", format!("it is nested deeper than {CONFIG_DEPTH_MAX}; flatten it")));
        }
        let config_len = self.config_bytes().len();
        if config_len > CONFIG_LEN_MAX_BYTES {
            let why = format!("it has {config_len} bytes as compact JSON; {CONFIG_LEN_MAX_BYTES} are the most");
            return Err(self.refuse("config", why));
        }
        Ok(())
    }

    fn validate_limits(&self) -> Result<(), CatalogError> {
        let BindingLimits { memory_bytes, deadline_us } = self.limits;
        if !(MEMORY_MIN_BYTES..=MEMORY_MAX_BYTES).contains(&memory_bytes) {
            let why = format!("{memory_bytes} is outside {MEMORY_MIN_BYTES} to {MEMORY_MAX_BYTES}");
            return Err(self.refuse("limits.memory_bytes", why));
        }
        if !(DEADLINE_MIN_US..=DEADLINE_MAX_US).contains(&deadline_us) {
            let why = format!("{deadline_us} is outside {DEADLINE_MIN_US} to {DEADLINE_MAX_US}");
            return Err(self.refuse("limits.deadline_us", why));
        }
        Ok(())
    }

    fn validate_grant(&self) -> Result<(), CatalogError> {
        let Grant { topics, sites } = &self.grant;
        for (field, count) in [("grant.topics", topics.len()), ("grant.sites", sites.len())] {
            if count > GRANTS_MAX {
                let why = format!("it names {count}; {GRANTS_MAX} are the most: use patterns with wildcards");
                return Err(self.refuse(field, why));
            }
        }
        match topics.iter().find(|pattern| is_reserved(pattern.as_str())) {
            Some(pattern) => {
                let why = format!("`{pattern}` is the router's own: topics that begin with `$` cannot be granted");
                Err(self.refuse("grant.topics", why))
            }
            None => Ok(()),
        }
    }

    fn validate_consent(&self) -> Result<(), CatalogError> {
        let capabilities = &self.consent.capabilities;
        let has_form = |name: &String| name.len() <= NAME_LEN_MAX && !name.chars().any(char::is_control);
        if capabilities.len() > CAPABILITIES_MAX || !capabilities.iter().all(has_form) {
            return Err(self.refuse(
                "consent.capabilities",
                format!("give at most {CAPABILITIES_MAX} names of functions, as `myelin filter describe` lists them"),
            ));
        }
        Ok(())
    }

    pub(crate) fn refuse(&self, field: &'static str, why: impl Into<String>) -> CatalogError {
        CatalogError::InvalidBinding { binding: self.name.to_string(), field, why: why.into() }
    }
}

/// Whether `value` has more than `depth` objects and arrays inside each other.
fn is_deeper(value: &Value, depth: usize) -> bool {
    let mut inner: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(values) => Box::new(values.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => return false,
    };
    depth == 0 || inner.any(|value| is_deeper(value, depth - 1))
}
