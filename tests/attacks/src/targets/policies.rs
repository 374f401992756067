//! Policies, as an administrator sends them.

use super::REFUSAL_BYTES_MAX;
use myelin_policy::{Action, Decider, Policies, Service};

/// The text of a policy; whatever it says, its decisions are the same again.
pub(super) fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Policies::compile([("p", text)]) {
        Ok(policies) => {
            let (service, mut decider) = (Service::new("spiffe://example.org/service/shop"), Decider::default());
            for action in Action::ALL {
                let told = policies.decide(&service, action, "orders/1", "hamburg").verdict;
                for _ in 0..2 {
                    assert_eq!(decider.decide(&policies, &service, action, "orders/1", "hamburg"), told);
                }
            }
        }
        Err(errors) => {
            assert!(errors.iter().next().is_some(), "a refusal says why");
            for error in errors.iter() {
                assert!(error.to_string().len() < REFUSAL_BYTES_MAX, "{error}");
            }
        }
    }
}
