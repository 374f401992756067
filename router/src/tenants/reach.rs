//! Whom a tenant may take in.

use myelin_catalog::{ServiceSelector, Tenant};
use myelin_transport::Identity;

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

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
