//! What other routers hand in for the log: held against the rule of two, where this router wants two persons.
//!
//! Each router asks its own callers who they are, and what may be done alone. Whoever writes the log does not know those
//! callers, but it has the log: what must not begin alone has to wait there, and has to begin in the names of two. So a router
//! without `[admin] two_person` is no way round those that have it. One that lies about who asked for what still names whom it
//! likes; which one that was is in the audit log.

use super::approve::{at_begin, is_of_two};
use super::keeper::Keeper;
use super::schemas::{not_alone, not_alone_by, not_alone_without};
use super::{Blame, WorldError, unix_ms};
use crate::audit::{Kind, Note};
use myelin_catalog::{Catalog, Op, Proposal};

impl Keeper {
    /// Whether another router may ask for that change, for which nobody else has to be asked here.
    ///
    /// # Errors
    /// `two-person`; `controller-only` for a step that the controller takes by itself.
    pub(super) fn check_handed_in(&mut self, proposal: &Proposal, via: &str) -> Result<(), WorldError> {
        let Proposal { op, actor, .. } = proposal;
        let checked = match op {
            Op::RolloutAdvanced { .. } | Op::RolloutFinished { .. } => Err(controller_only()),
            _ if self.two_person => check_two(self.catalog(), op, actor, unix_ms()),
            _ => Ok(()),
        };
        checked.map_err(|error| {
            let message = format!("router {via} asks for it: {}", error.message);
            self.handed_back += 1;
            if self.handed_back.is_power_of_two() {
                tracing::warn!(code = &*error.code, via, kind = op.kind(), refused = self.handed_back, "{message}");
            }
            // Counted by the router: it asks again and again, if it likes, and in whose name it likes.
            let mut note = Note::new(Kind::Catalog, &told(via), op.kind(), &*error.code);
            (note.from, note.subject, note.detail) = (Some(told(via)), op.subject(), format!("in the name of {actor}"));
            self.account.audit.count(note, true);
            WorldError { message, ..error }
        })
    }
}

/// Where a change came from, for the audit log.
pub(super) fn told(via: &str) -> String {
    format!("via {via}")
}

/// Whether two persons want that change, where one may not make it alone.
fn check_two(catalog: &Catalog, op: &Op, actor: &str, now_unix_ms: u64) -> Result<(), WorldError> {
    let has_sites = catalog.fleet().sites().next().is_some();
    match op {
        Op::Activated { .. } | Op::RolloutStarted { .. } | Op::RolloutPromoted { .. } => {
            let is_it = |by: &str| is_of_two(by, actor);
            let mut asked =
                catalog.approvals(now_unix_ms).filter(|approval| at_begin(catalog, &approval.intent) == *op);
            match asked.any(|approval| is_it(&approval.by)) {
                true => Ok(()),
                false => Err(alone(op)),
            }
        }
        Op::RolledBack { to } => check_way_to(catalog, *to),
        Op::TopicRuleSet { rule } if has_sites && rule.judges_otherwise_than(catalog.topic_rule(&rule.name)) => {
            Err(not_alone(rule.name.as_str(), "as it is to be"))
        }
        Op::SchemaRegistered { registration } => not_alone_by(catalog, &registration.subject, registration.version),
        Op::SchemaVersionDeleted { subject, version, permanent: false } => not_alone_by(catalog, subject, *version),
        Op::SubjectDeleted { subject, permanent: false } => not_alone_by(catalog, subject, u32::MAX),
        Op::SchemaVersionDeleted { subject, version, .. } => not_alone_without(catalog, subject, Some(*version)),
        Op::SubjectDeleted { subject, .. } => not_alone_without(catalog, subject, None),
        _ => Ok(()),
    }
}

/// Whether one person may let the set of that generation judge again: what ran before the one that runs, and was not taken
/// back.
///
/// # Errors
/// `two-person`.
pub(super) fn check_way_to(catalog: &Catalog, generation: u64) -> Result<(), WorldError> {
    let Some(target) = catalog.find_generation(generation) else { return Ok(()) };
    let Some(why) = catalog.goes_forward_to(target) else { return Ok(()) };
    let message = format!(
        "the set of generation {generation} {why}: to let it judge again is no way back, and with `[admin] two_person` nobody \
         does so alone; stage its bindings again and propose a rollout, which somebody else approves (`myelin rollout start`), \
         or name a generation that ran before this one (`myelin rollout history`)"
    );
    Err(WorldError::new(Blame::Request, "two-person", message))
}

fn alone(op: &Op) -> WorldError {
    let what = match op {
        Op::RolloutPromoted { .. } => "a rollout is promoted",
        _ => "filters, rules and policies begin to hold",
    };
    let message = format!(
        "the router that writes the catalog has `[admin] two_person`, and {what} there only as one person has proposed it and \
         another one has approved it; set `[admin] two_person` at every router, the one that was asked included, then propose \
         it again"
    );
    WorldError::new(Blame::Request, "two-person", message)
}

fn controller_only() -> WorldError {
    let message = "the steps of a rollout are taken by the router that controls it, and not for others; promote or abort the \
                   rollout instead";
    WorldError::new(Blame::Request, "controller-only", message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_catalog::{Binding, Digest, Intent, Module, Name, RolloutPlan, SubjectName};

    const ANN: &str = "spiffe://example.org/service/ann";
    const BOB: &str = "spiffe://example.org/service/bob";

    fn add(catalog: &mut Catalog, op: Op, actor: &str) {
        let record = catalog.draft(op, actor, 1).unwrap();
        catalog.apply(&record).unwrap();
    }

    fn code(catalog: &Catalog, op: &Op, actor: &str) -> String {
        check_two(catalog, op, actor, 2).err().map(|error| error.code.to_string()).unwrap_or_default()
    }

    fn stages(catalog: &mut Catalog, pattern: &str) {
        let binding = serde_json::json!({"name": "gate", "module": "gate@1.0.0", "pattern": pattern});
        let binding: Binding = serde_json::from_value(binding).unwrap();
        add(catalog, Op::BindingStaged { binding: Box::new(binding) }, ANN);
    }

    /// A mesh of one site, with something staged.
    fn staged(has_site: bool) -> Catalog {
        let mut catalog = Catalog::new();
        let unset: Name = "unset".parse().unwrap();
        if has_site {
            let op = Op::SiteAdded { name: "a".parse().unwrap(), region: unset.clone(), cloud: unset };
            add(&mut catalog, op, "router");
        }
        let module = Module {
            name: "gate".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            digest: Digest::of(b"gate"),
            size_bytes: 4,
            uploaded_unix_ms: 0,
            imports: Vec::new(),
            world: myelin_catalog::World::Fast,
            capabilities: None,
            signature: None,
        };
        add(&mut catalog, Op::ModuleAdded { module }, ANN);
        stages(&mut catalog, "a/**");
        catalog
    }

    #[test]
    fn what_begins_waits_in_the_log_and_begins_in_the_names_of_two() {
        let mut catalog = staged(true);
        let plan = RolloutPlan { waves: vec![100], ..RolloutPlan::default() };
        let begun = catalog.rollout_start(plan.clone());
        let both = format!("{ANN}, approved by {BOB}");
        assert_eq!(code(&catalog, &begun, &both), "two-person", "nobody has asked for it");
        let intent = Intent::Start { bindings: catalog.staged().revisions(), plan: Box::new(plan.clone()) };
        add(&mut catalog, Op::ApprovalRequested { intent, note: String::new() }, ANN);
        assert_eq!(code(&catalog, &begun, &both), "");
        let refused = [
            ANN.to_owned(),
            BOB.to_owned(),
            format!("{ANN}, approved by {ANN}"),
            format!("{BOB}, approved by {ANN}"),
            format!("{ANN}, approved by token"),
            format!("{ANN}, approved by "),
            format!("{ANN}x, approved by {BOB}"),
        ];
        for actor in refused {
            assert_eq!(code(&catalog, &begun, &actor), "two-person", "{actor}");
        }
        let other = catalog.rollout_start(RolloutPlan { waves: vec![50, 100], ..plan });
        assert_eq!(code(&catalog, &other, &both), "two-person", "another plan than was asked for");
        assert_eq!(
            check_two(&catalog, &begun, &both, u64::MAX / 2).unwrap_err().code,
            "two-person",
            "its hour is over"
        );
        add(&mut catalog, begun, &both);
        assert_eq!(code(&catalog, &Op::RolloutPromoted { id: catalog.head().rev }, &both), "two-person");
        // Retreat needs nobody's leave, and what a router finds out by itself neither.
        let id = catalog.head().rev;
        let abort = Op::RolloutAborted { id, cause: myelin_catalog::Cause::Hand, reason: String::new() };
        for op in [Op::RolloutPaused { id }, abort] {
            assert_eq!(code(&catalog, &op, ANN), "");
        }
    }

    #[test]
    fn nobody_lets_a_rule_judge_alone_by_way_of_another_router() {
        let mut catalog = staged(true);
        let rule = |version: &str| {
            let rule = serde_json::json!({"name": "orders", "pattern": "orders/**", "schema": {
                "subject": "orders-value", "version": version, "on_invalid": "refuse", "required": true}});
            Op::TopicRuleSet { rule: serde_json::from_value(rule).unwrap() }
        };
        assert_eq!(code(&catalog, &rule("latest"), ANN), "two-person");
        add(&mut catalog, rule("latest"), ANN);
        assert_eq!(code(&catalog, &rule("latest"), ANN), "", "it is so already");
        let subject: SubjectName = "orders-value".parse().unwrap();
        let deleted = |subject: &SubjectName, permanent| Op::SubjectDeleted { subject: subject.clone(), permanent };
        assert_eq!(code(&catalog, &deleted(&subject, false), ANN), "two-person");
        assert_eq!(code(&catalog, &deleted(&subject, true), ANN), "", "it went before");
        assert_eq!(code(&catalog, &deleted(&"other".parse().unwrap(), false), ANN), "");
    }

    #[test]
    fn what_an_active_filter_may_see_goes_for_good_by_two() {
        let mut catalog = staged(true);
        let subject: SubjectName = "s".parse().unwrap();
        let registered = |catalog: &mut Catalog, text: &str| {
            let (format, digest) = (myelin_catalog::SchemaFormat::Json, Digest::of(text.as_bytes()));
            let schema = myelin_catalog::NewSchema { format, digest, text: text.to_owned(), references: Vec::new() };
            let wanted = catalog.schemas().register_next(&"s".parse().unwrap(), schema);
            let myelin_catalog::schemas::Wanted::New(registration) = wanted else { panic!("{text} is there") };
            add(catalog, Op::SchemaRegistered { registration }, ANN);
        };
        let deleted =
            |version, permanent| Op::SchemaVersionDeleted { subject: "s".parse().unwrap(), version, permanent };
        for text in ["1", "2"] {
            registered(&mut catalog, text);
        }
        // Staged anew with another pattern: version 2 is what its filter sees.
        stages(&mut catalog, "b/**");
        registered(&mut catalog, "3");
        for version in [1, 2, 3] {
            add(&mut catalog, deleted(version, false), ANN);
            assert_eq!(code(&catalog, &deleted(version, true), ANN), "", "nothing is active");
        }
        let activation = catalog.activation();
        add(&mut catalog, activation, ANN);
        let codes = [1, 2, 3].map(|version| code(&catalog, &deleted(version, true), ANN));
        assert_eq!(codes, ["", "two-person", ""]);
        let all = Op::SubjectDeleted { subject, permanent: true };
        assert_eq!(code(&catalog, &all, ANN), "two-person");
        stages(&mut catalog, "c/**");
        let activation = catalog.activation();
        add(&mut catalog, activation, ANN);
        assert_eq!(code(&catalog, &all, ANN), "", "it sees none");
    }

    #[test]
    fn a_rollback_alone_goes_back_and_not_forward_again() {
        let mut catalog = staged(false);
        let activates = |catalog: &mut Catalog, pattern: &str| {
            stages(catalog, pattern);
            let op = catalog.activation();
            add(catalog, op, ANN);
            catalog.generation()
        };
        let rolls_back = |catalog: &mut Catalog, to| {
            add(catalog, Op::RolledBack { to }, ANN);
            catalog.generation()
        };
        let is_alone = |catalog: &Catalog, to| check_way_to(catalog, to).is_ok();
        let [first, second, bad] = ["b/**", "c/**", "d/**"].map(|pattern| activates(&mut catalog, pattern));
        assert!(is_alone(&catalog, first) && is_alone(&catalog, second) && is_alone(&catalog, 0));
        let back = rolls_back(&mut catalog, second);
        let refused = check_way_to(&catalog, bad).unwrap_err();
        assert!(refused.code == "two-person" && refused.message.contains("newer than the active one"), "{refused}");
        assert!(is_alone(&catalog, first) && is_alone(&catalog, back), "further back, or nowhere");
        // Also once something newer judges: it was taken back.
        let next = activates(&mut catalog, "e/**");
        let refused = check_way_to(&catalog, bad).unwrap_err();
        assert!(refused.message.contains("rolled back when it judged last"), "{refused}");
        assert!(is_alone(&catalog, second) && is_alone(&catalog, back));
        let earliest = rolls_back(&mut catalog, first);
        for forward in [second, back, bad, next] {
            assert!(!is_alone(&catalog, forward), "{forward}");
        }
        assert!(is_alone(&catalog, 0) && is_alone(&catalog, earliest));
        // Where that one got there again with two persons, or before two were wanted, it ran before the next one as any.
        rolls_back(&mut catalog, bad);
        activates(&mut catalog, "f/**");
        assert!(is_alone(&catalog, bad));
        // What a step back has passed over is no way back, either, also once something newer judges.
        let [passed, newest] = ["g/**", "h/**"].map(|pattern| activates(&mut catalog, pattern));
        rolls_back(&mut catalog, first);
        let unrelated = activates(&mut catalog, "i/**");
        for forward in [passed, newest] {
            assert!(!is_alone(&catalog, forward), "{forward}");
        }
        assert!(is_alone(&catalog, first) && is_alone(&catalog, unrelated));
    }
}
