#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use std::collections::BTreeSet;

use super::*;
use crate::op::Op;
use crate::testing::{Holder, Story, add, set_roots};

/// What one has signed, as if the key of that id had.
fn resigned(signature: MinisignSignature, key: &MinisignKey) -> MinisignSignature {
    use base64::Engine as _;
    let codec = base64::engine::general_purpose::STANDARD;
    let text = signature.to_string();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut first = codec.decode(&lines[1]).unwrap();
    first[2..10].copy_from_slice(&codec.decode(key.to_string()).unwrap()[2..10]);
    lines[1] = codec.encode(first);
    (lines.join("\n") + "\n").parse().unwrap()
}

fn changed(change: &TrustChange) -> Op {
    Op::TrustChanged { change: Box::new(change.clone()) }
}

/// A catalog with three root keys, two of which must agree.
fn rooted() -> (Story, [Holder; 3]) {
    let (mut story, roots) = (Story::default(), [Holder::new(), Holder::new(), Holder::new()]);
    story.add_trust(vec![set_roots(&[&roots[0], &roots[1], &roots[2]], 2)], &[]);
    (story, roots)
}

#[test]
fn without_a_root_set_the_administrator_decides_and_the_first_one_ends_that() {
    let (mut story, first, second) = (Story::default(), Holder::new(), Holder::new());
    story.add_trust(vec![first.add_key("*")], &[]);
    assert_eq!(story.catalog.trust().keys().len(), 1);
    let root = Holder::new();
    story.add_trust(vec![set_roots(&[&root], 1)], &[]);
    let unsigned = changed(&story.trust(vec![second.add_key("*")], &[]));
    assert_eq!(story.refusal(unsigned).code(), "trust-signatures");
    story.add_trust(vec![second.add_key("orders-*")], &[&root]);
    assert_eq!(story.catalog.trust().keys().len(), 2);
    assert_eq!(crate::Catalog::from_records(&story.log).unwrap(), story.catalog);
}

#[test]
fn a_change_needs_as_many_different_root_keys_as_were_agreed() {
    let (mut story, [a, b, c]) = rooted();
    let (new, stranger) = (Holder::new(), Holder::new());
    let mut refused = |signers: &[&Holder]| {
        let change = story.trust(vec![new.add_key("*")], signers);
        let refusal = story.refusal(changed(&change));
        assert_eq!(refusal.code(), "trust-signatures", "{refusal}");
        refusal.to_string()
    };
    refused(&[]);
    assert!(refused(&[&a]).contains("needs 2 signatures by different root keys and has 1"));
    assert!(refused(&[&a, &a]).contains("signed twice"));
    assert!(refused(&[&a, &stranger]).contains("no root key"));
    assert!(refused(&[&a, &b, &stranger]).contains("no root key"), "a signature that does not count is no accident");
    story.add_trust(vec![new.add_key("*")], &[&c, &a]);
}

#[test]
fn a_signature_is_for_one_change_once() {
    let (mut story, [a, b, _]) = rooted();
    let new = Holder::new();
    let change = story.trust(vec![new.add_key("orders-*")], &[&a, &b]);
    // Another change under the same signatures.
    let wider = TrustChange { actions: vec![new.add_key("*")], ..change.clone() };
    assert_eq!(story.refusal(changed(&wider)).code(), "trust-signatures");
    story.add(changed(&change));
    assert_eq!(story.refusal(changed(&change)).code(), "trust-stale", "a replay");
    // Once more after the key was removed, with what was signed then.
    story.add_trust(vec![new.remove_key()], &[&a, &b]);
    assert_eq!(story.refusal(changed(&change)).code(), "trust-stale");
    let refreshed = TrustChange { after: story.catalog.trust().head(), ..change };
    assert_eq!(story.refusal(changed(&refreshed)).code(), "trust-signatures");
    // A key that was removed never comes back, whoever agrees.
    let again = story.trust(vec![new.add_key("*")], &[&a, &b]);
    assert_eq!(story.refusal(changed(&again)).code(), "invalid-trust");
}

/// The id of a key is what its file says.
#[test]
fn a_key_under_another_id_is_the_same_key() {
    let mut story = Story::default();
    let (stolen, root, other) = (Holder::new(), Holder::new(), Holder::new());
    let renamed = |holder: &Holder| {
        let key = holder.renamed();
        assert!(key.is_same_key(&holder.public()) && key.id() != holder.id());
        key
    };
    let add = |public_key| TrustAction::AddKey { public_key, modules: vec!["*".parse().unwrap()], note: String::new() };
    story.add_trust(vec![stolen.add_key("*")], &[]);
    story.add_trust(vec![stolen.remove_key()], &[]);
    let again = story.trust(vec![add(renamed(&stolen))], &[]);
    let refused = story.try_add(changed(&again)).unwrap_err();
    assert!(refused.code() == "invalid-trust" && refused.to_string().contains("under two ids"), "{refused}");
    let within = story.trust(vec![add(other.public()), add(renamed(&other))], &[]);
    assert_eq!(story.try_add(changed(&within)).unwrap_err().code(), "invalid-trust");
    let roots = TrustAction::SetRoots { keys: vec![root.public(), other.public(), renamed(&root)], threshold: 2 };
    let alone = story.trust(vec![roots.clone()], &[]);
    assert!(story.try_add(changed(&alone)).unwrap_err().to_string().contains("agree twice"));
    // In a log that has such a set, who signs with both agrees once.
    let record = crate::Record::after(&story.catalog.head(), changed(&alone), "ada", 0);
    story.catalog.apply(&record).unwrap();
    story.log.push(record);
    let mut change = story.trust(vec![other.add_key("*")], &[&root]);
    let second = resigned(change.signatures[0].clone(), &renamed(&root));
    change.signatures.push(second);
    let refused = story.refusal(changed(&change));
    assert!(refused.code() == "trust-signatures" && refused.to_string().contains("signed twice"), "{refused}");
}

#[test]
fn what_one_mesh_agreed_to_is_nothing_to_another_with_the_same_roots() {
    let (mut story, roots) = rooted();
    let mut other = Story::default();
    other.add(add("noise@1.0.0"));
    other.add_trust(vec![set_roots(&[&roots[0], &roots[1], &roots[2]], 2)], &[]);
    let change = story.trust(vec![Holder::new().add_key("*")], &[&roots[0], &roots[1]]);
    assert_eq!(other.refusal(changed(&change)).code(), "trust-stale");
    story.add(changed(&change));
}

#[test]
fn a_removed_root_key_does_not_count_and_its_successors_do() {
    let (mut story, [a, b, c]) = rooted();
    let d = Holder::new();
    // Those who set themselves aside agree by their old keys, not by their new ones.
    let usurped = story.trust(vec![set_roots(&[&d], 1)], &[&d]);
    assert_eq!(story.refusal(changed(&usurped)).code(), "trust-signatures");
    story.add_trust(vec![set_roots(&[&b, &c, &d], 2)], &[&a, &b]);
    let by_removed = story.trust(vec![a.add_key("*")], &[&a, &b]);
    assert!(story.refusal(changed(&by_removed)).to_string().contains("no root key"));
    story.add_trust(vec![a.add_key("*")], &[&b, &d]);
}

#[test]
fn changes_that_cannot_be_are_refused() {
    let (mut story, [a, b, c]) = rooted();
    let key = Holder::new();
    let many = (0..=crate::limits::TRUST_ACTIONS_MAX).map(|_| Holder::new().add_key("*")).collect();
    let wrong = [
        vec![],
        many,
        vec![key.remove_key()],
        vec![key.add_key("*"), key.add_key("*")],
        vec![set_roots(&[], 0)],
        vec![set_roots(&[&a, &b], 3)],
        vec![set_roots(&[&a, &b], 0)],
        vec![set_roots(&[&a, &a], 1)],
    ];
    for actions in wrong {
        let change = story.trust(actions, &[&a, &b, &c]);
        assert_eq!(story.refusal(changed(&change)).code(), "invalid-trust", "{:?}", change.actions);
    }
    for pattern in ["", "Orders", "*-orders", "a*b", "a b", "../*"] {
        assert!(pattern.parse::<ModulePattern>().is_err(), "{pattern}");
    }
}

#[derive(Clone, Debug)]
enum Intent {
    Add(usize),
    Remove(usize),
    Roots(Vec<usize>, u8),
}

fn intents() -> impl Strategy<Value = (Intent, Vec<usize>, bool)> {
    let intent = prop_oneof![
        3 => (0..6usize).prop_map(Intent::Add),
        3 => (0..6usize).prop_map(Intent::Remove),
        1 => (proptest::collection::btree_set(0..6usize, 1..5), 1..4u8)
            .prop_map(|(keys, threshold)| Intent::Roots(keys.into_iter().collect(), threshold)),
    ];
    (intent, proptest::collection::vec(0..6usize, 0..4), proptest::bool::weighted(0.1))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is tried, trust changes exactly where a model says that enough of the present roots have agreed to what
    /// can be, on what is there now.
    #[test]
    fn trust_changes_only_as_its_present_roots_agree(tried in proptest::collection::vec(intents(), 1..20)) {
        let holders: Vec<Holder> = (0..6).map(|_| Holder::new()).collect();
        let mut story = Story::default();
        let (mut roots, mut trusted, mut ever) = (None::<(Vec<usize>, u8)>, BTreeSet::new(), BTreeSet::new());
        let mut replayed = None::<TrustChange>;
        for (intent, signers, is_replay) in tried {
            let action = match &intent {
                Intent::Add(at) => holders[*at].add_key("*"),
                Intent::Remove(at) => holders[*at].remove_key(),
                Intent::Roots(keys, threshold) => {
                    set_roots(&keys.iter().map(|at| &holders[*at]).collect::<Vec<_>>(), *threshold)
                }
            };
            let can_be = match &intent {
                Intent::Add(at) => !ever.contains(at),
                Intent::Remove(at) => trusted.contains(at),
                Intent::Roots(keys, threshold) => usize::from(*threshold) <= keys.len(),
            };
            let distinct: BTreeSet<_> = signers.iter().copied().collect();
            let agreed = roots.as_ref().is_none_or(|(keys, threshold)| {
                distinct.len() == signers.len()
                    && distinct.iter().all(|at| keys.contains(at))
                    && distinct.len() >= usize::from(*threshold)
            });
            let change = story.trust(vec![action], &signers.iter().map(|at| &holders[*at]).collect::<Vec<_>>());
            let result = story.try_add(changed(&change));
            prop_assert_eq!(result.is_ok(), can_be && agreed, "{:?} by {:?}: {:?}", intent, signers, result);
            if result.is_ok() {
                match intent {
                    Intent::Add(at) => { trusted.insert(at); ever.insert(at); }
                    Intent::Remove(at) => { trusted.remove(&at); }
                    Intent::Roots(keys, threshold) => roots = Some((keys, threshold)),
                }
                replayed = Some(change);
            }
            if let Some(old) = replayed.clone().filter(|_| is_replay) {
                let refused = story.try_add(changed(&old)).unwrap_err();
                prop_assert_eq!(refused.code(), "trust-stale");
            }
            let active = story.catalog.trust().keys().filter(|(_, key)| key.removed_rev.is_none()).count();
            prop_assert_eq!(active, trusted.len());
        }
        prop_assert_eq!(crate::Catalog::from_records(&story.log).unwrap(), story.catalog);
    }
}
