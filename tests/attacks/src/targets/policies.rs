//! Policies, as an administrator sends them.

use super::REFUSAL_BYTES_MAX;
use myelin_policy::{Action, Call, Decider, EventHead, Place, Policies, Question, Service, Subject, Verdict};

/// The text of a policy; whatever it says, its decisions are the same again.
pub(super) fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Policies::compile([("p", text)]) {
        Ok(policies) => {
            let (service, mut decider) = (Service::new("spiffe://example.org/service/shop"), Decider::default());
            for action in Action::ALL {
                let place = Place { site: "hamburg", tenant: "" };
                let question = Question { service: &service, action, topic: "orders/1", place };
                let told = policies.decide(&question).verdict;
                for _ in 0..2 {
                    assert_eq!(decider.decide(&policies, (&service, action, "orders/1"), || place), told);
                }
                // Only where the event is said to matter may it.
                let event = EventHead { kind: "invoice", headers: vec![("region", "eu")], ..EventHead::default() };
                let of_event = policies.judge(&question, &event).verdict;
                let short = match told {
                    Verdict::ByEvent { is_permitted } => policies.look(&question, &event, is_permitted),
                    _ => told,
                };
                assert_eq!(of_event, short, "{action}");
            }
            let subject = Subject::Binding("gate");
            let (method, route) = ("PUT", "/v1/bindings/{name}");
            let call = Call { caller: "ops", roles: &["admin"], subject, method, route, site: "hamburg" };
            assert!(policies.decide_admin(&call).verdict != Verdict::Permit, "only roles permit");
        }
        Err(errors) => {
            assert!(errors.iter().next().is_some(), "a refusal says why");
            for error in errors.iter() {
                assert!(error.to_string().len() < REFUSAL_BYTES_MAX, "{error}");
            }
        }
    }
}
