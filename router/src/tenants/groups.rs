//! Queue groups of tenants: what two tenants call alike is two groups.

use super::Usage;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use myelin_wire::limits::GROUP_BYTES_MAX;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// What the names of groups begin with that are a tenant's.
const OF_TENANT: char = '$';
/// Stands between a tenant and what its services call the group.
const BETWEEN: char = '/';
/// Stands before the digest of a name that would be too long. No tenant is called like that.
const DIGEST: char = '#';

/// The name that the routers of the mesh have for a group which services of that tenant call `name`: `$TENANT/NAME`, or a
/// digest of it where that is longer than the mesh lets a group be called. Those without a tenant have their names as they
/// are, but for such as look like a tenant's.
pub fn group_name(tenant: Option<&Usage>, name: &str) -> Arc<str> {
    let tenant = match tenant {
        Some(tenant) => tenant.name(),
        None if name.starts_with(OF_TENANT) => "",
        None => return name.into(),
    };
    let whole = format!("{OF_TENANT}{tenant}{BETWEEN}{name}");
    if whole.len() <= GROUP_BYTES_MAX {
        return whole.into();
    }
    format!("{OF_TENANT}{DIGEST}{}", URL_SAFE_NO_PAD.encode(Sha256::digest(&whole))).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_tenant_is_in_a_group_of_another_one_whatever_it_calls_it() {
        let tenants = [None, Some("acme"), Some("umbra"), Some("acme-2")];
        let tenants = tenants.map(|tenant| tenant.map(Usage::new));
        let long = "g".repeat(GROUP_BYTES_MAX);
        let mut chosen: Vec<String> = ["workers", "acme/workers", "$acme/workers", "$/workers", "$#", "#", "/"]
            .map(ToOwned::to_owned)
            .into_iter()
            .chain([long.clone(), format!("${}", &long[1..])])
            .collect();
        // Whoever knows how they are made may choose what others' groups are called inside.
        let made: Vec<_> =
            tenants.iter().flat_map(|tenant| chosen.iter().map(|name| group_name(tenant.as_ref(), name))).collect();
        chosen.extend(made.iter().map(ToString::to_string));
        chosen.sort_unstable();
        chosen.dedup();
        let names: HashSet<_> = tenants
            .iter()
            .flat_map(|tenant| chosen.iter().map(|name| group_name(tenant.as_ref(), name)))
            .inspect(|name| {
                // What the mesh takes.
                assert!(!name.is_empty() && name.len() <= GROUP_BYTES_MAX && !name.chars().any(char::is_control));
            })
            .collect();
        assert_eq!(names.len(), tenants.len() * chosen.len());
        assert_eq!(&*group_name(None, "workers"), "workers");
        assert_eq!(&*group_name(tenants[1].as_ref(), "workers"), "$acme/workers");
    }
}
