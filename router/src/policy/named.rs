//! Whether somebody can have the names that policies name. One that nobody has never matches: a `forbid` with a slip in it
//! would be taken, and forbid nothing.
//!
//! Asked where a policy is accepted, and not where a log is read: what holds since before goes on to hold.

use super::asked::nobody;
use myelin_catalog::{GovernanceChange, Intent, Op, Policy};
use myelin_policy::{INBOX_TOPIC, Named, named};
use myelin_transport::Identity;
use myelin_wire::{Pattern, Topic};

/// The stable name of the refusal: that of any policy that cannot be.
pub const CODE: &str = "invalid-policy";
/// Callers of the admin API that have no SPIFFE name: who is on this machine, and who has the bearer token.
const CALLERS: [&str; 2] = ["local", "token"];
/// Names that are told of one policy.
const TOLD_MAX: usize = 8;

/// Checks what the text of the policy, or file, `name` names.
///
/// # Errors
/// Each name that nobody and nothing can have, and how it should look.
pub fn check_names(name: &str, text: &str) -> Result<(), String> {
    let names = named(text);
    let faults = names.iter().filter_map(fault).take(TOLD_MAX).map(|fault| format!("{name}: {fault}"));
    let faults: Vec<_> = faults.collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// The same for all policies that a change brings; for those that `is_there` knows as they are, nothing changes.
///
/// # Errors
/// As for [`check_names`].
pub fn check_change(op: &Op, is_there: impl Fn(&Policy) -> bool) -> Result<(), String> {
    let plan = match op {
        Op::PolicySet { policy } if !is_there(policy) => return check_names(policy.name.as_str(), &policy.text),
        Op::RolloutStarted { plan, .. } => plan,
        Op::ApprovalRequested { intent: Intent::Start { plan, .. } | Intent::Govern { plan }, .. } => plan,
        _ => return Ok(()),
    };
    for change in &plan.changes {
        if let GovernanceChange::PolicySet { policy } = change
            && !is_there(policy)
        {
            check_names(policy.name.as_str(), &policy.text)?;
        }
    }
    Ok(())
}

fn fault(named: &Named) -> Option<String> {
    match named {
        Named::Service(id) => Identity::parse(id).err().map(|error| nobody(id, &error)),
        Named::Caller(id) if CALLERS.contains(&id.as_str()) => None,
        Named::Caller(id) => Identity::parse(id)
            .err()
            .map(|error| format!("{}, or as `local` or `token`; `myelin whoami` shows it", nobody(id, &error))),
        Named::Topic(name) if name == INBOX_TOPIC || Topic::new(name).is_ok() => None,
        Named::Topic(name) => {
            Pattern::new(name).err().map(|error| format!("`{name}` is neither a topic nor a pattern: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_catalog::RolloutPlan;
    use std::collections::BTreeMap;

    #[test]
    fn what_a_rollout_brings_is_checked_and_what_holds_since_before_goes_on_to_hold() {
        let policy = |name: &str, text: &str| Policy { name: name.parse().unwrap(), text: text.to_owned() };
        let typo = policy("typo", r#"forbid (principal == Service::"service/shop", action, resource);"#);
        let set = Op::PolicySet { policy: typo.clone() };
        let changes = vec![
            GovernanceChange::PolicyRemoved { name: "old".parse().unwrap() },
            GovernanceChange::PolicySet { policy: typo.clone() },
        ];
        let plan = Box::new(RolloutPlan { changes, ..RolloutPlan::default() });
        let asked = Op::ApprovalRequested { intent: Intent::Govern { plan: plan.clone() }, note: String::new() };
        let started = Op::RolloutStarted { bindings: BTreeMap::new(), plan };
        for op in [&set, &asked, &started] {
            let told = check_change(op, |_| false).err().unwrap_or_default();
            assert!(told.contains("typo: the principal `service/shop` is nobody's name"), "{told}");
            assert_eq!(check_change(op, |policy| *policy == typo), Ok(()));
        }
        assert_eq!(check_change(&Op::PolicyRemoved { name: typo.name.clone() }, |_| false), Ok(()));
        assert!(myelin_policy::Policies::compile([("typo", typo.text.as_str())]).is_ok(), "a log that has it is read");
    }

    #[test]
    fn a_policy_names_only_what_can_be() {
        for (text, part) in [
            (r#"forbid (principal == Service::"service/shop", action, resource);"#, "`service/shop` is nobody's name"),
            (r#"forbid (principal in Service::"shop", action, resource);"#, "spiffe://example.org/service/shop"),
            (
                r#"forbid (principal, action, resource) when { principal == Service::"spiffe://example.org" };"#,
                "`spiffe://example.org`",
            ),
            (r#"permit (principal, action, resource) when { ["shop"].contains(principal.id) };"#, "`shop`"),
            (r#"forbid (principal == Caller::"ci", action == Action::"admin", resource);"#, "`local` or `token`"),
            (r#"forbid (principal, action, resource == Topic::"/x//");"#, "neither a topic nor a pattern"),
        ] {
            let told = check_names("typo", text).err().unwrap_or_default();
            assert!(told.starts_with("typo: ") && told.contains(part), "{text}: {told}");
        }
        for text in [
            r#"forbid (principal == Service::"spiffe://example.org/service/shop", action, resource == Topic::"a/b");"#,
            r#"permit (principal, action == Action::"reply", resource == Topic::"$inbox");"#,
            r#"permit (principal, action == Action::"subscribe", resource == Topic::"orders/**");"#,
            r#"permit (principal, action == Action::"subscribe", resource == Topic::"$dead/**");"#,
            r#"forbid (principal == Caller::"token", action == Action::"admin", resource);"#,
            r#"forbid (principal, action == Action::"admin", resource)
               unless { principal.id == "spiffe://example.org/jwt/sso/alice_40example.org" };"#,
        ] {
            assert_eq!(check_names("good", text), Ok(()), "{text}");
        }
    }
}
