//! Whom a tenant may take in, and with whom it shares.

use myelin_catalog::{Selector, ServiceSelector, Tenant};
use myelin_transport::Identity;
use std::collections::BTreeSet;

/// Tenants that a warning names.
const NAMED_MAX: usize = 8;

/// The selectors of a tenant that the one of the same name did not have before.
pub fn new_selectors<'a>(tenant: &'a Tenant, before: Option<&'a Tenant>) -> impl Iterator<Item = &'a ServiceSelector> {
    let is_new = move |selector: &&ServiceSelector| before.is_none_or(|before| !before.services.contains(*selector));
    tenant.services.iter().filter(is_new)
}

/// What a selector may be: the name of somebody, or the beginning of names of one trust domain. Catalogs may have others
/// from before.
///
/// # Errors
/// What is wrong with it, to be read after the selector.
pub fn check_reach(selector: &ServiceSelector) -> Result<(), String> {
    /// What follows the trust domain in the names that there are.
    const KINDS: [&str; 3] = ["service/", "jwt/", "site/"];
    let Some(beginning) = selector.beginning() else {
        let parsed = Identity::parse(selector.as_str());
        return parsed.map(drop).map_err(|error| format!("is nobody's name: {error}; or end it with `*`"));
    };
    let parts = beginning.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
    let Some((domain, path)) = parts.filter(|(domain, _)| Identity::service(domain, "x").is_ok()) else {
        return Err(
            "names no whole trust domain, and might take in anybody: begin with one, `spiffe://acme.example/*`".into(),
        );
    };
    if KINDS.iter().any(|kind| kind.starts_with(path) || path.starts_with(kind)) {
        return Ok(());
    }
    Err(format!(
        "fits nobody: names are spiffe://{domain}/service/NAME, and of tokens spiffe://{domain}/jwt/ISSUER/SUBJECT"
    ))
}

/// That a tenant shares with tenants which there are not, where it does. No fault: two may share with each other, and one of
/// them comes first; but a slip in a name looks the same, and whoever is called so later has what is shared. A beginning with
/// `*` is meant for those to come.
pub fn unmet_shares(tenant: &Tenant, is_there: impl Fn(&str) -> bool) -> Option<String> {
    let names = tenant.shares.iter().flat_map(|share| &share.with).map(Selector::as_str);
    let is_unmet = |name: &&str| !name.ends_with('*') && *name != tenant.name.as_str() && !is_there(name);
    let unmet: BTreeSet<&str> = names.filter(is_unmet).collect();
    let named: Vec<_> = unmet.iter().take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
    let more = match unmet.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!named.is_empty()).then(|| {
        let (tenant, named) = (&tenant.name, named.join(", "));
        format!(
            "tenant {tenant}: shares: there is no tenant {named}{more}; what is shared holds once there is one of that name: \
             mend the name where it is a slip"
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn what_is_shared_with_nobody_is_told_by_name() {
        let sharing = |with: &[&str]| -> Tenant {
            serde_json::from_value(serde_json::json!({"name": "umbra", "services": ["spiffe://umbra.example/*"],
                "root": "umbra", "shares": [{"topics": "umbra/news/**", "with": with}]}))
            .unwrap()
        };
        let unmet = |with: &[&str]| unmet_shares(&sharing(with), |name| name == "acme");
        assert_eq!(unmet(&["acme", "umbra", "*", "partner-*"]), None);
        let told = unmet(&["acmee", "acme", "acmee", "b"]).unwrap();
        assert!(told.starts_with("tenant umbra: shares: there is no tenant `acmee`, `b`; what is shared"), "{told}");
        let many: Vec<_> = (0..20).map(|number| format!("t{number}")).collect();
        let told = unmet(&many.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        assert!(told.contains("and 12 more") && told.is_ascii() && !told.contains(['"', '\n']), "{told}");
    }

    #[test]
    fn a_selector_is_somebody_or_of_one_trust_domain() {
        let check = |text: &str| check_reach(&text.parse().unwrap());
        for good in [
            "spiffe://acme.example/*",
            "spiffe://acme.example/ser*",
            "spiffe://acme.example/service/shop-*",
            "spiffe://acme.example/jwt/corp/*",
            "spiffe://acme.example/service/shop",
            "spiffe://acme.example/jwt/corp/ann",
        ] {
            check(good).unwrap_or_else(|why| panic!("{good}: {why}"));
        }
        for (bad, why) in [
            ("spiffe://*", "no whole trust domain"),
            ("s*", "no whole trust domain"),
            ("spiffe://acme*", "no whole trust domain"),
            ("spiffe:///*", "no whole trust domain"),
            ("spiffe://acme.example/umbra/*", "fits nobody"),
            ("spiffe://acme.example/umbra", "nobody's name"),
            ("nonsense", "nobody's name"),
        ] {
            let told = check(bad).expect_err(bad);
            assert!(told.contains(why), "{bad}: {told}");
        }
    }
}
