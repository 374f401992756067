#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::catalog::Catalog;
use crate::limits::POLICIES_MAX;
use crate::op::Op;
use crate::record::Record;

fn policy(name: &str, text: &str) -> Policy {
    Policy { name: name.parse().unwrap(), text: text.into() }
}

fn set(catalog: &mut Catalog, policy: Policy) -> Result<Record, CatalogError> {
    let record = catalog.draft(Op::PolicySet { policy }, "ann", 0)?;
    catalog.apply(&record)?;
    Ok(record)
}

#[test]
fn policies_are_set_replaced_and_removed_by_records() {
    let mut catalog = Catalog::new();
    let record = set(&mut catalog, policy("orders", "permit (principal, action, resource);")).unwrap();
    assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    let stricter = policy("orders", "forbid (principal, action, resource);");
    set(&mut catalog, stricter.clone()).unwrap();
    assert_eq!(catalog.policies().map(|policy| &**policy).collect::<Vec<_>>(), [&stricter]);
    assert_eq!(catalog.policy(&stricter.name), Some(&stricter));
    let remove = |catalog: &Catalog| catalog.draft(Op::PolicyRemoved { name: stricter.name.clone() }, "ann", 0);
    let record = remove(&catalog).unwrap();
    assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    catalog.apply(&record).unwrap();
    assert_eq!(catalog.policies().len(), 0);
    assert_eq!(remove(&catalog).unwrap_err().code(), "not-found");
}

#[test]
fn what_is_empty_or_too_much_is_refused() {
    let mut catalog = Catalog::new();
    let refused = |catalog: &mut Catalog, policy| set(catalog, policy).unwrap_err();
    assert_eq!(refused(&mut catalog, policy("a", " \n")).code(), "invalid-policy");
    let long = "x".repeat(POLICY_LEN_MAX_BYTES + 1);
    assert!(refused(&mut catalog, policy("a", &long)).to_string().contains("split it"));
    set(&mut catalog, policy("a", &long[1..])).unwrap();
    for number in 1..POLICIES_MAX {
        set(&mut catalog, policy(&format!("p{number}"), "x")).unwrap();
    }
    assert_eq!(refused(&mut catalog, policy("more", "x")).code(), "catalog-full");
    set(&mut catalog, policy("p1", "y")).unwrap();
}
