//! Whether a question about policies is one: a slip in it would be answered like a real question, and mostly with `denied`.

use myelin_policy::{Action, INBOX_TOPIC};
use myelin_transport::Identity;
use myelin_wire::{Pattern, Topic};

/// Checks who is asked about, and with which topic or pattern.
///
/// # Errors
/// What is wrong with it, and how it should look.
pub fn check(principal: &str, action: Action, resource: &str) -> Result<(), String> {
    Identity::parse(principal).map_err(|error| nobody(principal, &error))?;
    let told = match action {
        Action::Reply if resource == INBOX_TOPIC => return Ok(()),
        Action::Reply => return Err(format!("whoever may reply is asked about the one topic `{INBOX_TOPIC}`")),
        Action::Subscribe => Pattern::new(resource).err(),
        Action::Publish | Action::Request => Topic::new(resource).err(),
    };
    match told {
        Some(error) => Err(format!("`{resource}` is nothing that somebody could {action}: {error}")),
        None => Ok(()),
    }
}

/// That nobody can have that name.
pub(super) fn nobody(principal: &str, error: &dyn std::error::Error) -> String {
    format!("the principal `{principal}` is nobody's name: {error}; write it as spiffe://example.org/service/shop")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_no_question() {
        const SHOP: &str = "spiffe://example.org/service/shop";
        for (principal, action, resource, part) in [
            ("shop", Action::Publish, "a/b", "spiffe://example.org/service/shop"),
            ("nonsense", Action::Subscribe, "a/**", "`nonsense`"),
            ("spiffe://example.org", Action::Publish, "a", "spiffe://example.org/service/shop"),
            (SHOP, Action::Publish, "", "``"),
            (SHOP, Action::Subscribe, "", "``"),
            (SHOP, Action::Publish, "a/**", "publish"),
            (SHOP, Action::Request, "a/*", "request"),
            (SHOP, Action::Reply, "a", "$inbox"),
        ] {
            let told = check(principal, action, resource).err().unwrap_or_default();
            assert!(told.contains(part), "{principal} {action} {resource}: {told}");
        }
        for (principal, action, resource) in [
            (SHOP, Action::Publish, "a/b"),
            (SHOP, Action::Subscribe, "a/**"),
            (SHOP, Action::Subscribe, "a/b"),
            (SHOP, Action::Reply, "$inbox"),
            ("spiffe://example.org/jwt/sso/alice_40example.org", Action::Request, "a"),
            ("spiffe://example.org/site/hamburg/router/r1", Action::Publish, "a"),
        ] {
            assert_eq!(check(principal, action, resource), Ok(()));
        }
    }
}
