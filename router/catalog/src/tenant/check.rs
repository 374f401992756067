//! Whether a tenant can be beside the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Tenant;
use crate::error::CatalogError;
use crate::limits::TENANTS_MAX;
use crate::names::Name;

/// Checks that nothing of `tenant` is another one's.
///
/// # Errors
/// `invalid-tenant` for what it is, `conflict` for what another has, `full`.
pub fn check_among(tenant: &Tenant, all: &BTreeMap<Name, Arc<Tenant>>) -> Result<(), CatalogError> {
    tenant.validate()?;
    if all.len() >= TENANTS_MAX && !all.contains_key(&tenant.name) {
        let mend = "remove one that is no longer needed";
        return Err(CatalogError::Full { what: "tenants", max: TENANTS_MAX as u64, mend });
    }
    let conflict = |why: String| Err(CatalogError::Conflict(why));
    for other in all.values().filter(|other| other.name != tenant.name) {
        if overlap(&tenant.root, &other.root) {
            return conflict(format!(
                "the topics of tenant {}, `{}`, and of tenant {}, `{}`, overlap; choose roots of which none is below the \
                 other",
                tenant.name,
                tenant.topics(),
                other.name,
                other.topics()
            ));
        }
        if let Some(twice) = tenant.services.iter().find(|selector| other.services.contains(selector)) {
            return conflict(format!(
                "`{twice}` belongs to tenant {} already; take it out there first, or say it more exactly here",
                other.name
            ));
        }
    }
    Ok(())
}

/// Whether one is the other, or below it.
fn overlap(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
