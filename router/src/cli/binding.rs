//! `myelin bind` and `myelin unbind`

use super::admin::{Admin, binding_path, module_path};
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::http::Body;
use super::listing::{Shape, text};
use super::patterns;
use super::rollout;
use super::signing::read_text;
use super::values::{self, bytes, duration};
use clap::{Args, ValueEnum};
use hyper::Method;
use myelin_catalog::Name;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a binding's file: what the admin API takes.
const BINDING_FILE_BYTES_MAX: usize = 1024 * 1024;

const BIND_HELP: &str = "\
Examples:
  myelin bind check-orders --module schema-json@0.1.0 --pattern 'orders/**' --config schema.json
  myelin bind hide-cards --module redact@0.1.0 --pattern 'payments/**' --config '{\"fields\": [\"card.number\"]}'
  myelin bind route --module content-route@0.1.0 --pattern 'orders/**' --order 20 --grant-topic 'orders/eu/**'
  myelin bind hide-cards --module redact@0.1.0 --pattern 'payments/**' -o json | jq .generation
  myelin bind -f binding.json                            all of it as JSON, as `GET /v1/bindings` shows it

Stages the binding, then makes everything that is staged active, and waits: every filter is compiled, tested on its own
sample events and warm on every worker before the first event sees it. A binding of the same name is replaced; where it is
active just so, there is nothing to change.";

/// What `-f` says itself.
const FLAGS: &[&str] = &[
    "module",
    "pattern",
    "stage",
    "order",
    "config",
    "on_fault",
    "grant_topic",
    "grant_site",
    "memory",
    "deadline",
    "policy",
    "approve_capabilities",
    "allow_downgrade",
];

/// Attach a filter to the events of a pattern, and make it active
#[derive(Args, Debug)]
#[command(after_help = BIND_HELP)]
pub(super) struct Bind {
    /// What the binding is called
    #[arg(required_unless_present = "file")]
    name: Option<String>,
    /// The filter's module as NAME@VERSION
    #[arg(long, value_name = "NAME@VERSION", required_unless_present = "file")]
    module: Option<String>,
    /// Whose events it judges: * is one level, ** at the end is any number; quote it
    #[arg(long, required_unless_present = "file")]
    pattern: Option<String>,
    /// Take all of it from a JSON file
    #[arg(short, long, value_name = "FILE", conflicts_with_all = FLAGS)]
    file: Option<PathBuf>,
    /// Where on an event's way
    #[arg(long, value_enum, default_value_t)]
    stage: Stage,
    /// Place among the bindings of its stage: lower comes first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    order: i32,
    /// The filter's configuration: JSON, or a file that holds JSON
    #[arg(long, value_name = "JSON|FILE")]
    config: Option<String>,
    /// What becomes of an event on which the filter fails
    #[arg(long, value_enum, default_value_t)]
    on_fault: OnFault,
    /// Topics that the filter may send to; may be repeated
    #[arg(long, value_name = "PATTERN")]
    grant_topic: Vec<String>,
    /// Sites that the filter may narrow events down to; may be repeated
    #[arg(long, value_name = "SITE")]
    grant_site: Vec<Name>,
    /// Memory of one instance, such as 16MiB
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
    /// CPU time of one batch, such as 2ms
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    deadline: Option<Duration>,
    /// It enforces a rule: no event may ever pass it unjudged
    #[arg(long)]
    policy: bool,
    /// Functions of the host that the module may use and the running one does not; see `myelin filter describe`
    #[arg(long, value_name = "FUNCTION", value_delimiter = ',')]
    approve_capabilities: Vec<String>,
    /// A signed statement that this lower version may follow, of `myelin filter allow-downgrade`
    #[arg(long, value_name = "FILE")]
    allow_downgrade: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

/// Detach a filter
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  myelin unbind check-orders")]
pub(super) struct Unbind {
    /// The binding
    name: String,
    #[command(flatten)]
    change: Change,
}

/// How a change is made.
#[derive(Args, Debug)]
struct Change {
    /// Only stage it; `myelin rollout start` makes it active, with everything else that is staged
    #[arg(long)]
    no_rollout: bool,
    /// Why, for those who read `myelin rollout history`
    #[arg(long, value_name = "TEXT", conflicts_with = "no_rollout")]
    note: Option<String>,
    /// Only when the catalog's revision is still this one; exit code 5 otherwise
    #[arg(long, value_name = "REVISION")]
    if_match: Option<u64>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Stage {
    /// Where it was published, before it is routed
    #[default]
    Ingress,
    /// Where it is delivered
    Egress,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum OnFault {
    /// Refuse it
    #[default]
    Reject,
    /// Let it pass unjudged
    Pass,
    /// Send it to the dead-letter topic
    DeadLetter,
    /// Let the filter's previous version judge it
    LastGood,
}

impl Bind {
    pub(super) fn run(self) -> Result<()> {
        let body = match &self.file {
            Some(file) => binding_file(file)?,
            None => self.body()?,
        };
        let name = match &self.name {
            Some(name) => name.clone(),
            None => text(&body["name"]),
        };
        let path = binding_path(&name)?;
        // Checked here, so that a slip in a name is told without a router.
        module_path(&text(&body["module"]))?;
        patterns::hint(&text(&body["pattern"]));
        self.grant_topic.iter().for_each(|pattern| patterns::hint(pattern));
        block_on(self.change.make(&name, Method::PUT, path, Body::Json(body)))
    }

    /// The binding as the API takes it; what was not given is left to the router's defaults.
    fn body(&self) -> Result<Value> {
        let mut body = json!({
            "module": self.module,
            "pattern": self.pattern,
            "stage": name(self.stage),
            "order": self.order,
            "on_fault": name(self.on_fault),
            "policy": self.policy,
        });
        let mut limits = serde_json::Map::new();
        if let Some(memory) = self.memory {
            limits.insert("memory_bytes".into(), memory.into());
        }
        if let Some(deadline) = self.deadline {
            limits.insert("deadline_us".into(), u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX).into());
        }
        if !limits.is_empty() {
            body["limits"] = limits.into();
        }
        if !self.grant_topic.is_empty() || !self.grant_site.is_empty() {
            body["grant"] = json!({ "topics": self.grant_topic, "sites": self.grant_site });
        }
        let mut consent = serde_json::Map::new();
        if !self.approve_capabilities.is_empty() {
            consent.insert("capabilities".into(), self.approve_capabilities.clone().into());
        }
        if let Some(file) = &self.allow_downgrade {
            consent.insert("downgrade".into(), read_text(file)?.into());
        }
        if !consent.is_empty() {
            body["consent"] = consent.into();
        }
        if let Some(config) = &self.config {
            body["config"] = configuration(config)?;
        }
        Ok(body)
    }
}

impl Unbind {
    pub(super) fn run(self) -> Result<()> {
        let path = binding_path(&self.name)?;
        block_on(self.change.make(&self.name, Method::DELETE, path, Body::None))
    }
}

impl Change {
    async fn make(&self, name: &str, method: Method, path: String, body: Body) -> Result<()> {
        let api = self.admin.api()?;
        let staged: Value = api.ask_if(method, &path, self.if_match, body).await?;
        if self.no_rollout {
            self.shape.tell(&staged, |staged| {
                let revision = &staged["revision"];
                format!("{name} is staged (revision {revision}); `myelin rollout start` makes it active\n")
            });
            return Ok(());
        }
        if let Some(same) = rollout::nothing_to_change(&api).await {
            self.shape.tell(&same, |same| {
                format!("nothing to change: what is staged is active in generation {}\n", text(&same["generation"]))
            });
            return Ok(());
        }
        rollout::start(&api, self.note.clone(), self.shape).await.map_err(|failure| {
            let what = format!("the change of {name} is staged and not active");
            let next = "mend it and run this again, or take it back: `myelin rollout status` shows what is staged";
            Failure { next: Some(failure.next.clone().unwrap_or_else(|| next.to_owned())), ..failure }.doing(what)
        })
    }
}

/// The name of a value in the API.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A binding in a file.
fn binding_file(file: &Path) -> Result<Value> {
    let told = |error: String| {
        Failure::new(Exit::Usage, format!("{}: {error}", file.display()))
            .next("write it as {\"name\": .., \"module\": \"NAME@VERSION\", \"pattern\": .., \"config\": {..}}")
    };
    let text = values::read_text(file, BINDING_FILE_BYTES_MAX).map_err(told)?;
    let body: Value = serde_json::from_str(&text).map_err(|error| told(error.to_string()))?;
    if body.is_object() { Ok(body) } else { Err(told("this is no object".into())) }
}

/// JSON that is given, or that is in the file that is given.
pub(super) fn configuration(given: &str) -> Result<Value> {
    let told = |place: &str, error: serde_json::Error| {
        Failure::new(Exit::Usage, format!("--config {place}: {error}"))
            .next("give JSON such as '{\"fields\": [\"card.number\"]}', or the name of a file that holds JSON")
    };
    let looks_like_json = given.trim_start().starts_with(['{', '[', '"']);
    if looks_like_json {
        return serde_json::from_str(given).map_err(|error| told("(given)", error));
    }
    match std::fs::read_to_string(given) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| told(given, error)),
        // A number, true, false or null.
        Err(io) => serde_json::from_str(given).map_err(|_| told(given, serde_json::Error::io(io))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bind: Bind,
    }

    fn body(arguments: &str) -> Value {
        let given = format!("bind x --module redact@1.0.0 --pattern a/** {arguments}");
        Line::try_parse_from(given.split(' ').filter(|part| !part.is_empty())).unwrap().bind.body().unwrap()
    }

    #[test]
    fn what_is_not_given_is_left_to_the_router() {
        assert_eq!(
            body(""),
            json!({"module": "redact@1.0.0", "pattern": "a/**", "stage": "ingress", "order": 0, "on_fault": "reject",
                "policy": false})
        );
    }

    #[test]
    fn every_flag_has_its_place_in_the_catalogs_binding() {
        let mut body = body(
            "--stage egress --order -5 --on-fault last-good --grant-topic b/** --grant-topic c --grant-site eu1 --memory 16MiB \
             --deadline 2ms --config {\"a\":1} --policy",
        );
        body["name"] = json!("x");
        let binding: myelin_catalog::Binding = serde_json::from_value(body).unwrap();
        assert_eq!((binding.order, binding.limits.memory_bytes, binding.limits.deadline_us), (-5, 16 << 20, 2_000));
        assert_eq!((binding.grant.topics.len(), binding.grant.sites.len()), (2, 1));
        assert!(binding.policy && binding.validate().is_ok());
        assert_eq!((binding.stage.as_str(), binding.on_fault.as_str()), ("egress", "last-good"));
    }

    #[test]
    fn a_binding_comes_from_a_file_or_from_flags() {
        let parse = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.bind.file.is_some());
        assert_eq!(parse("bind -f b.json").ok(), Some(true));
        assert_eq!(parse("bind x -f b.json --no-rollout").ok(), Some(true));
        for bad in ["bind", "bind x", "bind x --module a@1.0.0", "bind -f b.json --pattern a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_configuration_is_json_or_a_file_of_it() {
        assert_eq!(configuration("{\"a\": 1}").unwrap(), json!({"a": 1}));
        assert_eq!(configuration("7").unwrap(), json!(7));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1]").unwrap();
        assert_eq!(configuration(file.path().to_str().unwrap()).unwrap(), json!([1]));
        for bad in ["{", "nonexistent.json"] {
            assert_eq!(configuration(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }
}
