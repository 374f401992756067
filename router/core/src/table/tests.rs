#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Key = (SessionKey, u32);
type Wanted = (Pattern, Option<Arc<str>>);
type Groups = BTreeMap<(Arc<str>, Arc<str>), Vec<Key>>;

/// The table by definition: a list of subscriptions, asked one by one.
#[derive(Clone, Default)]
struct Naive(BTreeMap<Key, Wanted>);

impl Naive {
    fn matches(&self, topic: &str) -> MatchSet {
        let mut plain = BTreeSet::new();
        let mut groups = Groups::new();
        for (key, (pattern, group)) in self.0.iter().filter(|(_, (pattern, _))| pattern.matches(topic)) {
            match group {
                None => drop(plain.insert(key.0)),
                Some(name) => {
                    let members = groups.entry((name.clone(), pattern.clone().into_shared())).or_default();
                    if members.iter().all(|member| member.0 != key.0) {
                        members.push(*key);
                    }
                }
            }
        }
        let groups = groups.into_iter().map(|((name, pattern), members)| GroupMatch { name, pattern, members });
        MatchSet { plain: plain.into_iter().collect(), groups: groups.collect() }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Subscribe(SessionKey, u32, Pattern, Option<Arc<str>>),
    Unsubscribe(SessionKey, u32),
    Drop(SessionKey),
    /// Subscribes many sessions to one pattern, so that flat sets become trees.
    Crowd(Pattern, Option<Arc<str>>),
    /// Removes all sessions of a crowd but a few, so that trees become flat again.
    Disperse,
    /// Keeps a snapshot, which no later change may alter.
    Keep,
}

fn session() -> impl Strategy<Value = SessionKey> {
    (0u8..2, 0u32..6, 0u32..2).prop_map(|(worker, slot, generation)| SessionKey { worker, slot, generation })
}

fn crowd() -> impl Iterator<Item = SessionKey> {
    (100..140).map(|slot| SessionKey { worker: 3, slot, generation: 0 })
}

fn level() -> impl Strategy<Value = String> {
    // A few that meet often, and enough others that a node outgrows its flat children.
    prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "$s"]).prop_map(str::to_owned),
        2 => (0..24).prop_map(|n| format!("n{n}")),
    ]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let levels = prop::collection::vec(prop_oneof![3 => level(), 1 => Just("*".to_owned())], 0..4);
    (levels, any::<bool>()).prop_map(|(mut levels, deep)| {
        if deep || levels.is_empty() {
            levels.push("**".to_owned());
        }
        Pattern::new(&levels.join("/")).unwrap()
    })
}

fn group() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of(prop::sample::select(vec!["g", "h"]).prop_map(Arc::from))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (session(), 0u32..4, pattern(), group()).prop_map(|(s, id, p, g)| Op::Subscribe(s, id, p, g)),
        8 => (session(), 0u32..4).prop_map(|(s, id)| Op::Unsubscribe(s, id)),
        2 => session().prop_map(Op::Drop),
        1 => (pattern(), group()).prop_map(|(p, g)| Op::Crowd(p, g)),
        1 => Just(Op::Disperse),
        1 => Just(Op::Keep),
    ]
}

fn apply(op: Op, writer: &mut TableWriter, naive: &mut Naive) {
    let before = writer.version();
    let changed = match op {
        Op::Subscribe(session, id, pattern, group) => {
            let fresh = !naive.0.contains_key(&(session, id));
            let expected = if fresh { Ok(()) } else { Err(TableError::Duplicate { subscription: id }) };
            assert_eq!(writer.subscribe(session, id, &pattern, group.clone()), expected);
            if fresh {
                naive.0.insert((session, id), (pattern, group));
            }
            fresh
        }
        Op::Unsubscribe(session, id) => {
            let known = naive.0.remove(&(session, id)).is_some();
            let expected = if known { Ok(()) } else { Err(TableError::Unknown { subscription: id }) };
            assert_eq!(writer.unsubscribe(session, id).map(drop), expected);
            known
        }
        Op::Drop(session) => drop_session(session, writer, naive) > 0,
        Op::Crowd(pattern, group) => {
            let id = u32::try_from(naive.0.len()).unwrap() + 10;
            let fresh: Vec<_> = crowd().filter(|session| !naive.0.contains_key(&(*session, id))).collect();
            for session in &fresh {
                writer.subscribe(*session, id, &pattern, group.clone()).unwrap();
                naive.0.insert((*session, id), (pattern.clone(), group.clone()));
            }
            !fresh.is_empty()
        }
        Op::Disperse => crowd().skip(3).map(|session| drop_session(session, writer, naive)).sum::<usize>() > 0,
        Op::Keep => false,
    };
    assert_eq!(writer.version() > before, changed);
}

fn drop_session(session: SessionKey, writer: &mut TableWriter, naive: &mut Naive) -> usize {
    let before = naive.0.len();
    naive.0.retain(|key, _| key.0 != session);
    let gone = before - naive.0.len();
    assert_eq!(writer.drop_session(session).len(), gone);
    gone
}

fn compare(table: &Table, naive: &Naive, topics: &[String]) {
    // One scratch for all, as a worker does: a stale answer would show.
    let mut out = MatchSet::default();
    for topic in topics {
        table.matches(topic, &mut out);
        assert_eq!(out, naive.matches(topic), "{topic}");
    }
    assert_eq!((table.len(), table.is_empty()), (naive.0.len(), naive.0.is_empty()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_table_agrees_with_the_naive_table_under_churn(
        ops in prop::collection::vec(op(), 1..400),
        topics in prop::collection::vec(prop::collection::vec(level(), 1..5).prop_map(|l| l.join("/")), 16),
    ) {
        let (mut writer, mut naive) = (TableWriter::new(), Naive::default());
        let mut kept = Vec::new();
        for (turn, op) in ops.into_iter().enumerate() {
            if matches!(op, Op::Keep) {
                kept.push((writer.snapshot(), naive.clone()));
            }
            apply(op, &mut writer, &mut naive);
            if turn % 8 == 0 {
                compare(&writer.snapshot(), &naive, &topics);
            }
        }
        kept.push((writer.snapshot(), naive.clone()));
        kept.iter().for_each(|(table, naive)| compare(table, naive, &topics));

        let sessions: BTreeSet<_> = naive.0.keys().map(|key| key.0).collect();
        for session in sessions {
            drop_session(session, &mut writer, &mut naive);
        }
        prop_assert!(writer.table.root.is_empty(), "an empty table keeps no nodes");
    }
}

fn key(slot: u32) -> SessionKey {
    SessionKey { worker: 0, slot, generation: 0 }
}

fn subscribe(writer: &mut TableWriter, slot: u32, id: u32, pattern: &str, group: Option<&str>) {
    writer.subscribe(key(slot), id, &Pattern::new(pattern).unwrap(), group.map(Arc::from)).unwrap();
}

#[test]
fn a_session_gets_one_copy_and_one_for_each_group_membership() {
    let mut writer = TableWriter::new();
    subscribe(&mut writer, 1, 0, "a/**", None);
    subscribe(&mut writer, 1, 1, "a/*", None);
    subscribe(&mut writer, 1, 2, "a/b", Some("g"));
    subscribe(&mut writer, 2, 0, "a/b", Some("g"));
    subscribe(&mut writer, 2, 1, "a/*", Some("g"));
    let mut out = MatchSet::default();
    writer.snapshot().matches("a/b", &mut out);
    assert_eq!(out.plain.as_slice(), [key(1)]);
    let group = |pattern: &str, members: &[(SessionKey, u32)]| GroupMatch {
        name: "g".into(),
        pattern: pattern.into(),
        members: members.to_vec(),
    };
    assert_eq!(out.groups, [group("a/*", &[(key(2), 1)]), group("a/b", &[(key(1), 2), (key(2), 0)])]);
    assert_eq!(out.targets(), 3);
}

#[test]
fn a_session_that_joins_a_group_again_gets_no_more_of_its_events() {
    let mut writer = TableWriter::new();
    subscribe(&mut writer, 1, 7, "a", Some("g"));
    (0..200).for_each(|id| subscribe(&mut writer, 2, id, "a", Some("g")));
    let members = |writer: &TableWriter| {
        let mut out = MatchSet::default();
        writer.snapshot().matches("a", &mut out);
        out.groups.remove(0).members
    };
    assert_eq!(members(&writer), [(key(1), 7), (key(2), 0)]);
    writer.unsubscribe(key(2), 0).unwrap();
    assert_eq!(members(&writer), [(key(1), 7), (key(2), 1)], "it is a member as long as it is one anywhere");
}

#[test]
fn refusals_name_the_subscription_and_change_nothing() {
    let mut writer = TableWriter::new();
    subscribe(&mut writer, 1, 7, "a", None);
    let refused = writer.subscribe(key(1), 7, &Pattern::new("b").unwrap(), None).unwrap_err();
    assert_eq!(refused.code(), "duplicate-subscription");
    assert!(refused.to_string().contains("subscription 7"));
    assert_eq!(writer.unsubscribe(key(2), 7).unwrap_err().code(), "unknown-subscription");
    assert_eq!(writer.version(), 1);
}

#[test]
fn router_topics_are_hidden_from_leading_wildcards() {
    let mut writer = TableWriter::new();
    subscribe(&mut writer, 1, 0, "**", None);
    subscribe(&mut writer, 2, 0, "*/x", None);
    subscribe(&mut writer, 3, 0, "$dead/**", None);
    let mut out = MatchSet::default();
    writer.snapshot().matches("$dead/x", &mut out);
    assert_eq!(out.plain.as_slice(), [key(3)]);
}
