#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::testing::{Story, add, binding, stage};
use crate::{Catalog, Op};
use serde_json::json;

fn tenant(value: serde_json::Value) -> Tenant {
    serde_json::from_value(value).unwrap()
}

fn acme() -> Tenant {
    tenant(json!({"name": "acme", "services": ["spiffe://acme.example/*"], "root": "acme"}))
}

fn set(catalog: &mut Catalog, tenant: Tenant) -> Result<(), CatalogError> {
    let record = catalog.draft(Op::TenantSet { tenant: Box::new(tenant) }, "ann", 0)?;
    catalog.apply(&record)
}

#[test]
fn a_tenant_is_kept_replaced_and_removed() {
    let mut catalog = Catalog::new();
    set(&mut catalog, acme()).unwrap();
    let broader = Tenant { root: Topic::new("acme-corp").unwrap(), ..acme() };
    set(&mut catalog, broader.clone()).unwrap();
    assert_eq!(catalog.tenants().map(|tenant| tenant.as_ref()).collect::<Vec<_>>(), [&broader]);
    assert_eq!(catalog.tenant(&broader.name), Some(&broader));
    let gone = catalog.draft(Op::TenantRemoved { name: broader.name.clone() }, "ann", 0).unwrap();
    catalog.apply(&gone).unwrap();
    assert_eq!(catalog.tenants().len(), 0);
    let again = catalog.draft(Op::TenantRemoved { name: broader.name }, "ann", 0).unwrap_err();
    assert_eq!(again.code(), "not-found");
}

#[test]
fn nothing_belongs_to_two() {
    let mut catalog = Catalog::new();
    set(&mut catalog, acme()).unwrap();
    for (root, services, part) in [
        ("acme", "spiffe://b/*", "overlap"),
        ("acme/eu", "spiffe://b/*", "overlap"),
        ("acme/eu/x", "spiffe://b/*", "overlap"),
        ("b", "spiffe://acme.example/*", "belongs to tenant acme"),
    ] {
        let refused = set(&mut catalog, tenant(json!({"name": "b", "services": [services], "root": root})));
        let refused = refused.unwrap_err();
        assert!(refused.code() == "conflict" && refused.to_string().contains(part), "{root} {services}: {refused}");
    }
    // A beginning that is longer, and a root that only looks alike.
    set(&mut catalog, tenant(json!({"name": "b", "services": ["spiffe://acme.example/b/*"], "root": "acme2"})))
        .unwrap();
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let with = |change: serde_json::Value| {
        let mut value = serde_json::to_value(acme()).unwrap();
        value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        tenant(value)
    };
    for (change, part) in [
        (json!({"services": []}), "services: nobody"),
        (json!({"root": "$acme"}), "root: topics that begin with `$`"),
        (json!({"root": "a/b/c/d/e"}), "root: it has 5 levels"),
        (json!({"root": "x".repeat(248)}), "root: it has 248 bytes"),
        (json!({"quota": {"events_per_s": 0}}), "quota.events_per_s: 0 would shut it out"),
        (json!({"quota": {"bytes_per_s": u64::MAX}}), "quota.bytes_per_s"),
        (json!({"shares": [{"topics": "acme/x", "with": []}]}), "shares"),
        (json!({"shares": [{"topics": "other/x", "with": ["b"]}]}), "not its own topics"),
        (json!({"shares": [{"topics": "**", "with": ["b"]}]}), "not its own topics"),
        (json!({"services": (0..65).map(|n| format!("s{n}")).collect::<Vec<_>>()}), "services: there are 65"),
    ] {
        let refused = with(change.clone()).validate().unwrap_err();
        assert!(refused.code() == "invalid-tenant" && refused.to_string().contains(part), "{change}: {refused}");
    }
    for text in ["", "*", "a*b", "a b", "a\n", &"x".repeat(257)] {
        assert_eq!(text.parse::<ServiceSelector>().unwrap_err().code(), "invalid-service-selector", "{text:?}");
    }
    with(json!({"quota": {"bindings": 0, "connections": 5}})).validate().unwrap();
}

#[test]
fn bindings_for_a_tenant_s_topics_are_counted() {
    let mut story = Story::default();
    story.try_add(add("gate@1.0.0")).unwrap();
    let quota = Quota { bindings: Some(1), ..Quota::default() };
    story.try_add(Op::TenantSet { tenant: Box::new(Tenant { quota, ..acme() }) }).unwrap();
    let mut stage = |name: &str, pattern: &str| story.try_add(stage(binding(name, "gate@1.0.0", pattern)));
    stage("a", "acme/x").unwrap();
    stage("a", "acme/y").unwrap();
    stage("all", "**").unwrap();
    let refused = stage("b", "acme/**").unwrap_err();
    assert!(refused.code() == "tenant-quota" && refused.to_string().contains("has 2 bindings"), "{refused}");
    // Nor by way of one that had other topics.
    assert_eq!(stage("all", "acme/**").unwrap_err().code(), "tenant-quota");
}
