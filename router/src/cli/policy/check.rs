//! `myelin policy test`: decisions as they are expected, and as policy files make them.

use super::files;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::listing::{Shape, table};
use crate::cli::values::{print, say};
use crate::policy::{PolicyEvent, asked};
use clap::Args;
use myelin_policy::{Action, Place, Policies, Question, Service, Verdict};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;

pub(super) const HELP: &str = "\
Examples:
  myelin policy test decisions.toml
  myelin policy test decisions.toml -o json | jq '.differing[]'

A table in TOML (or the same in JSON):
  policies = [\"orders.cedar\", \"common/\"]   # relative to the table's folder
  default = \"deny\"                         # what holds where no policy speaks: deny (as here) or allow
  site = \"hamburg\"                         # where the questions are asked; may be left out

  [[case]]
  principal = \"spiffe://example.org/service/billing\"
  action = \"publish\"
  resource = \"orders/eu/1\"
  expect = \"allow\"
  reasons = [\"orders#1\"]                   # which statements; may be left out
  groups = [\"staff\"]                       # these three may be left out as well
  tenant = \"acme\"
  event = { type = \"invoice\", headers = { region = \"eu\" } }

Exit code 1 where a decision differs, with a table of those.";

/// Test policies
#[derive(Args, Debug)]
pub(crate) struct Test {
    /// The table, in TOML or JSON
    #[arg(value_name = "FILE")]
    path: PathBuf,
    #[command(flatten)]
    shape: Shape,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    policies: Vec<PathBuf>,
    #[serde(default)]
    default: Expected,
    #[serde(default)]
    site: String,
    #[serde(default)]
    case: Vec<Case>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    #[default]
    Deny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    principal: String,
    action: String,
    resource: String,
    site: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    tenant: String,
    event: Option<PolicyEvent>,
    expect: Expected,
    reasons: Option<Vec<String>>,
}

impl Test {
    pub(super) fn run(self) -> Result<()> {
        let shown = self.path.display().to_string();
        let text = std::fs::read_to_string(&self.path).map_err(|error| Failure::of_file(&self.path, error))?;
        let usage = |why: String| {
            Failure::new(Exit::Usage, format!("{shown}: {why}")).next("`myelin policy test --help` shows a table")
        };
        let is_json = self.path.extension().is_some_and(|extension| extension == "json");
        let cases: Cases = match is_json {
            true => serde_json::from_str(&text).map_err(|error| usage(error.to_string()))?,
            false => toml::from_str(&text).map_err(|error| usage(error.to_string()))?,
        };
        if cases.case.is_empty() {
            return Err(usage("it has no `[[case]]`".to_owned()));
        }
        let folder = self.path.parent().unwrap_or_else(|| ".".as_ref());
        let mut found = Vec::new();
        for path in &cases.policies {
            found.extend(files::read(&folder.join(path))?);
        }
        files::compile(&found)?;
        // Named like at a router, so that reasons read the same.
        let policies = Policies::compile(found.iter().map(|file| (file.name.as_str(), &*file.text)))
            .map_err(|errors| Failure::new(Exit::Usage, errors.to_string()))?;
        let differing = differing(&cases, &policies).map_err(usage)?;
        let (count, all) = (differing.len(), cases.case.len());
        if self.shape.is_json() {
            say!("{}", json!({"decisions": all, "differing": for_programs(&differing)}));
        } else if count == 0 {
            say!("{all} decisions are as expected");
        } else {
            print(table(&HEADER, &[], differing));
        }
        if count == 0 {
            return Ok(());
        }
        Err(Failure::new(Exit::Failed, format!("{count} of {all} decisions are not as {shown} expects")))
    }
}

const HEADER: [&str; 6] = ["principal", "action", "resource", "expected", "is", "by"];

fn for_programs(rows: &[Vec<String>]) -> Vec<Value> {
    rows.iter()
        .map(|row| HEADER.iter().zip(row).map(|(name, cell)| ((*name).to_owned(), json!(cell))).collect())
        .collect()
}

/// A row for each case that is decided otherwise than it expects.
fn differing(cases: &Cases, policies: &Policies) -> Result<Vec<Vec<String>>, String> {
    let mut rows = Vec::new();
    for (number, case) in (1..).zip(&cases.case) {
        let action: Action = case.action.parse().map_err(|why| format!("case {number}: {why}"))?;
        // A slip would be denied, and look as expected where that is expected.
        asked::check(&case.principal, action, &case.resource).map_err(|why| format!("case {number}: {why}"))?;
        let site = case.site.as_deref().unwrap_or(&cases.site);
        let service = Service::new(&*case.principal).with_groups(case.groups.iter().map(|group| &**group));
        let place = Place { site, tenant: &case.tenant };
        let question = Question { service: &service, action, topic: &case.resource, place };
        let head = case.event.as_ref().map(PolicyEvent::head).unwrap_or_default();
        let decision = policies.judge(&question, &head);
        let is = match decision.verdict {
            Verdict::Permit => Expected::Allow,
            Verdict::Forbid | Verdict::ByEvent { .. } => Expected::Deny,
            Verdict::Silent => cases.default,
        };
        let by = if decision.reasons.is_empty() { "the default".to_owned() } else { decision.reasons.join(", ") };
        let told = |expected| if expected == Expected::Allow { "allow" } else { "deny" };
        let expected = match &case.reasons {
            Some(reasons) => {
                let mut sorted = reasons.clone();
                sorted.sort_unstable();
                if is == case.expect && sorted == decision.reasons {
                    continue;
                }
                format!("{} by {}", told(case.expect), sorted.join(", "))
            }
            None if is == case.expect => continue,
            None => told(case.expect).to_owned(),
        };
        rows.push(vec![
            case.principal.clone(),
            action.to_string(),
            case.resource.clone(),
            expected,
            told(is).into(),
            by,
        ]);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn only_decisions_that_differ_are_told() {
        let text = r#"
            policies = []
            [[case]]
            principal = "spiffe://example.org/service/shop"
            action = "publish"
            resource = "orders/1"
            expect = "allow"
            reasons = ["p#1"]
            [[case]]
            principal = "spiffe://example.org/service/shop"
            action = "subscribe"
            resource = "orders/1"
            expect = "allow"
            [[case]]
            principal = "spiffe://example.org/service/shop"
            action = "publish"
            resource = "orders/1"
            expect = "allow"
            reasons = ["q#1"]
        "#;
        let cases: Cases = toml::from_str(text).unwrap();
        let policies =
            r#"permit (principal, action == Action::"publish", resource) when { resource.name like "orders/*" };"#;
        let rows = differing(&cases, &Policies::compile([("p", policies)]).unwrap()).unwrap();
        let told: Vec<_> = rows.iter().map(|row| row[3..].join("|")).collect();
        assert_eq!(for_programs(&rows)[1]["is"], "allow");
        assert_eq!(told, ["allow|deny|the default", "allow by q#1|allow|p#1"]);
        let wrong = Cases {
            case: vec![Case { action: "read".into(), ..cases.case.into_iter().next().unwrap() }],
            ..toml::from_str("policies = []").unwrap()
        };
        assert!(differing(&wrong, &Policies::default()).unwrap_err().contains("case 1"));
    }

    #[test]
    fn a_slip_in_a_row_is_told_even_where_it_is_expected_to_be_denied() {
        let row = |principal: &str, action: &str, resource: &str| {
            let row = json!({"principal": principal, "action": action, "resource": resource, "expect": "deny"});
            let cases = serde_json::from_value(json!({"policies": [], "case": [row]})).unwrap();
            differing(&cases, &Policies::default())
        };
        assert_eq!(row("spiffe://a/service/b", "publish", "c"), Ok(Vec::new()));
        for (principal, resource) in [("shop", "c"), ("spiffe://a/service/b", ""), ("spiffe://a/service/b", "c/**")] {
            let told = row(principal, "publish", resource).unwrap_err();
            assert!(told.starts_with("case 1: "), "{told}");
        }
    }
}
