//! `myelin shadow start`: a rollout that stays in its shadow until somebody says what becomes of it.

use crate::cli::admin::{Admin, Api, binding_alone, binding_path, module_path};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::http::Body;
use crate::cli::listing::{Shape, items, text};
use crate::cli::rollout::plan::{Onward, percent, seconds};
use crate::cli::rollout::proposed;
use crate::cli::values::{duration, say};
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};
use std::time::Duration;

pub(super) const AFTER_HELP: &str = "\
Examples:
  myelin shadow start redact@1.3.0                         in place of redact wherever it is bound
  myelin shadow start --for 2h --sample 10% --gate diff=1%   whatever is staged
  myelin shadow start redact@1.3.0 --canary eu1 --wave 50,100  and how it goes on once it is promoted

Every router prepares the new filters and lets them judge copies of live events. `myelin shadow status` and `shadow diff`
show what they would change. `myelin shadow promote` lets the rollout go on, `myelin shadow stop` drops it; after --for it is
dropped by itself.";

/// Let new filters judge copies of live events until they are promoted or stopped
#[derive(Args, Debug)]
pub(in crate::cli) struct Start {
    /// A module as NAME@VERSION: takes the place of its other versions in every binding of them; without it, what is staged
    #[arg(value_name = "MODULE")]
    module: Option<String>,
    /// Stop it by itself after this long
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, default_value = "1h")]
    time: Duration,
    /// How many of the events they judge copies of [default: 100%]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    sample: Option<u8>,
    /// Why, for those who read the history
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    onward: Onward,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

impl Start {
    pub(super) async fn run(self) -> Result<()> {
        let api = self.admin.api()?;
        if let Some(module) = &self.module {
            let staged = stage(&api, module).await?;
            if !self.shape.is_json() {
                staged.iter().for_each(|name| say!("{name} is staged with {module}"));
            }
        }
        let body = json!({ "note": self.note, "plan": self.body() });
        let rollout: Value = api.ask(Method::POST, "/v1/rollouts", Body::Json(body)).await?;
        self.shape.tell(&rollout, begun);
        Ok(())
    }

    fn body(&self) -> Value {
        let mut plan = Value::from(self.onward.read());
        plan["shadow_hold"] = true.into();
        plan["shadow_s"] = seconds(self.time).into();
        if let Some(percent) = self.sample {
            plan["shadow_percent"] = percent.into();
        }
        plan
    }
}

/// What came of it, for people: where the router wants two persons, nothing runs yet.
fn begun(rollout: &Value) -> String {
    proposed(rollout).unwrap_or_else(|| {
        let id = text(&rollout["id"]);
        format!(
            "rollout {id} is in shadow once every router has prepared it; `myelin shadow status` shows what it compares, \
             `myelin shadow promote {id}` lets it go on, `myelin shadow stop {id}` drops it\n"
        )
    })
}

/// Stages the module in place of its other versions; gives the bindings that it is staged in.
async fn stage(api: &Api, module: &str) -> Result<Vec<String>> {
    module_path(module)?;
    let bindings = api.get("/v1/bindings").await?;
    let (changed, is_staged) = in_place(&bindings, module);
    if changed.is_empty() && !is_staged {
        let name = module.split('@').next().unwrap_or_default();
        let next = format!(
            "stage its first binding with `myelin bind NAME --module {module} --pattern PATTERN --no-rollout`, and run \
             `myelin shadow start` without a module"
        );
        return Err(Failure::new(Exit::NotFound, format!("no binding has a version of {name}")).next(next));
    }
    let mut staged = Vec::new();
    for binding in changed {
        let name = text(&binding["name"]);
        let _: Value = api.ask(Method::PUT, &binding_path(&name)?, Body::Json(binding)).await?;
        staged.push(name);
    }
    Ok(staged)
}

/// The staged bindings of other versions of `module`, with that one; and whether one has it already.
fn in_place(bindings: &Value, module: &str) -> (Vec<Value>, bool) {
    let name = |module: &str| module.split('@').next().map(str::to_owned);
    let staged = || items(bindings, "bindings").iter().filter(|binding| binding["state"] != "leaving");
    let is_staged = staged().any(|binding| binding["module"] == module);
    let others = staged().filter(|binding| {
        binding["module"].as_str().is_some_and(|other| other != module && name(other) == name(module))
    });
    let changed = others.map(|binding| {
        let mut binding = binding_alone(binding);
        binding["module"] = module.into();
        binding
    });
    (changed.collect(), is_staged)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        start: Start,
    }

    #[test]
    fn the_plan_is_held_and_keeps_how_it_goes_on() {
        let start = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.start.body());
        assert_eq!(start("start").unwrap(), json!({"shadow_hold": true, "shadow_s": 3_600}));
        assert_eq!(
            start("start redact@1.3.0 --for 90s --sample 10% --canary eu1 --wave 50,100").unwrap(),
            json!({"shadow_hold": true, "shadow_s": 90, "shadow_percent": 10, "canary": ["eu1"], "waves": [50, 100]})
        );
    }

    #[test]
    fn where_two_persons_are_wanted_a_shadow_is_a_proposal() {
        let told = begun(&json!({"proposal": 214, "by": "ann", "wants": "rollout", "digest": "6d1f"}));
        assert!(told.contains("proposal 214 waits") && told.contains("myelin rollout approve 214"), "{told}");
        assert!(!told.contains("in shadow"), "{told}");
        let told = begun(&json!({"id": 42, "state": "preparing"}));
        assert!(told.starts_with("rollout 42 is in shadow once") && told.contains("shadow stop 42"), "{told}");
        assert!(Line::try_parse_from(["start", "-o", "json"]).is_ok_and(|line| line.start.shape.is_json()));
    }

    #[test]
    fn a_module_takes_the_place_of_its_other_versions_only() {
        let binding = |name: &str, module: &str, state: &str| json!({"name": name, "module": module, "pattern": "a/**", "state": state, "revision": 4, "digest": "ab"});
        let bindings = json!({"bindings": [
            binding("one", "redact@1.2.0", "active"), binding("two", "redact@1.3.0", "staged"),
            binding("gone", "redact@1.1.0", "leaving"), binding("other", "redactor@1.2.0", "active"),
        ]});
        let (changed, is_staged) = in_place(&bindings, "redact@1.3.0");
        assert_eq!(changed, [json!({"name": "one", "module": "redact@1.3.0", "pattern": "a/**"})]);
        assert!(is_staged);
        assert_eq!(in_place(&bindings, "gate@1.0.0"), (Vec::new(), false));
    }
}
