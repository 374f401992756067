//! `topic-policy`: lets identities publish to the topics that a table allows.
//!
//! ```json
//! {"rules": [
//!    {"identity": "spiffe://shop/service/web", "topic": "orders/**", "action": "allow"},
//!    {"identity": "**", "topic": "orders/**", "action": "deny", "reason": "orders come from the web shop"},
//!    {"identity": ["spiffe://shop/service/*", "spiffe://ops/**"], "topic": ["metrics/**", "logs/**"], "action": "allow"}
//!  ],
//!  "default": "deny"}
//! ```
//!
//! * `rules`: the first rule whose `identity` and `topic` match decides. Either is a pattern or a list of patterns: `*` is
//!   one level, `**` at the end any number. Where one is not given it matches everything. At most 1,000 rules.
//! * `action`: `allow`, `deny`, `dead-letter` or `drop`.
//! * `reason`: what a denied publisher reads; "the policy denies it" where not given.
//! * `default`: the action for events that no rule matches; `deny` where not given.
//!
//! A publisher without an identity is matched by `**` only. Bind it with `--policy`, so that no event passes unjudged.

use myelin_filter::Pattern;
use myelin_filter::config::{Config, Value, wrong};
use myelin_filter::prelude::*;

/// Most rules. They are tried one after the other, some 30 ns each; what the event before said is known.
const RULES_MAX: usize = 1_000;
/// The reason of events that no rule matches.
const NO_RULE: &str = "no rule of the policy allows it";
/// The reason of a rule that gives none.
const BY_RULE: &str = "the policy denies it";
/// Longest reason that a router takes, in bytes.
const REASON_BYTES_MAX: usize = 256;

/// The filter with its parsed table.
#[filter]
#[derive(Debug)]
pub struct TopicPolicy {
    rules: Vec<Rule>,
    default: Action,
    reasons: Vec<String>,
    /// What was decided last, for whom and where: neighbours in a batch are often alike.
    last: Option<Decided>,
}

#[derive(Debug)]
struct Rule {
    identities: Vec<Pattern>,
    topics: Vec<Pattern>,
    action: Action,
    /// Index into the reasons.
    reason: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Allow,
    Deny,
    DeadLetter,
    Drop,
}

const ACTIONS: [(&str, Action); 4] =
    [("allow", Action::Allow), ("deny", Action::Deny), ("dead-letter", Action::DeadLetter), ("drop", Action::Drop)];

#[derive(Debug)]
struct Decided {
    identity: String,
    topic: String,
    action: Action,
    reason: usize,
}

impl Filter for TopicPolicy {
    const NEEDS: Needs = needs!(identity);
    const COUNTERS: &[&str] = &["allowed", "refused"];

    fn new(config: &[u8], _previous: Option<&[u8]>) -> Result<Self, String> {
        let config = Config::parse(config, &["rules", "default"])?;
        let example =
            "[{\"identity\": \"spiffe://shop/service/web\", \"topic\": \"orders/**\", \"action\": \"allow\"}]";
        let given = config.required("rules", example)?;
        let list = given.as_array().filter(|rules| !rules.is_empty() && rules.len() <= RULES_MAX);
        let list =
            list.ok_or_else(|| wrong("rules", given, &format!("a list of 1 to {RULES_MAX} rules such as {example}")))?;
        let mut reasons = vec![NO_RULE.to_owned()];
        let rules =
            list.iter().enumerate().map(|(index, rule)| Rule::parse(&format!("rules.{index}"), rule, &mut reasons));
        let rules = rules.collect::<Result<_, _>>()?;
        let [allow, deny, dead_letter, drop] = ACTIONS;
        let default = config.choice("default", &[deny, allow, dead_letter, drop])?;
        Ok(Self { rules, default, reasons, last: None })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        let (identity, topic) = (event.identity().unwrap_or_default(), event.topic());
        let (action, reason) = match &self.last {
            Some(last) if last.topic == topic && last.identity == identity => (last.action, last.reason),
            _ => self.decide(identity, topic),
        };
        host::count(if action == Action::Allow { counter!("allowed") } else { counter!("refused") }, 1);
        match action {
            Action::Allow => Verdict::allow(),
            Action::Deny => Verdict::deny(Reason::nth(reason)),
            Action::DeadLetter => Verdict::dead_letter(Reason::nth(reason)),
            Action::Drop => Verdict::drop(),
        }
    }

    fn reasons(&self) -> Vec<String> {
        self.reasons.clone()
    }
}

impl TopicPolicy {
    fn decide(&mut self, identity: &str, topic: &str) -> (Action, usize) {
        let matches = |patterns: &[Pattern], text: &str| patterns.iter().any(|pattern| pattern.matches(text));
        let rule = self.rules.iter().find(|rule| matches(&rule.topics, topic) && matches(&rule.identities, identity));
        let (action, reason) = rule.map_or((self.default, 0), |rule| (rule.action, rule.reason));
        self.last = Some(Decided { identity: identity.to_owned(), topic: topic.to_owned(), action, reason });
        (action, reason)
    }
}

impl Rule {
    /// Reads a rule; its reason joins `reasons`, each of which stands there once.
    fn parse(place: &str, rule: &Value, reasons: &mut Vec<String>) -> Result<Self, String> {
        let rule = Config::within(place, rule, &["identity", "topic", "action", "reason"])?;
        rule.required("action", "\"allow\"")?;
        let action = rule.choice("action", &ACTIONS)?;
        let reason = rule.text("reason")?;
        if let Some(reason) = reason.filter(|reason| reason.is_empty() || reason.len() > REASON_BYTES_MAX) {
            let write = format!("a text of 1 to {REASON_BYTES_MAX} bytes");
            return Err(wrong(&format!("{place}.reason"), &reason.into(), &write));
        }
        if reason.is_some() && matches!(action, Action::Allow | Action::Drop) {
            return Err(format!("configuration key `{place}.reason` has no meaning for this action; leave it out"));
        }
        let text = reason.unwrap_or(BY_RULE);
        let reason = reasons.iter().position(|known| known == text).unwrap_or_else(|| {
            reasons.push(text.to_owned());
            reasons.len() - 1
        });
        let patterns = |key: &str| patterns(&format!("{place}.{key}"), rule.value(key));
        Ok(Self { identities: patterns("identity")?, topics: patterns("topic")?, action, reason })
    }
}

/// A pattern, or a list of patterns; everything where none is given.
fn patterns(place: &str, given: Option<&Value>) -> Result<Vec<Pattern>, String> {
    let list = match given {
        None => return Pattern::new("**").map(|everything| vec![everything]),
        Some(Value::Array(list)) if !list.is_empty() => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let parse = |value: &Value| {
        let text = value.as_str().ok_or_else(|| wrong(place, value, "a pattern or a list of patterns"))?;
        Pattern::new(text).map_err(|error| format!("configuration key `{place}`: {error}"))
    };
    list.iter().map(parse).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, run_fixtures};

    fn refused(config: &str) -> String {
        Harness::<TopicPolicy>::new(config).err().unwrap()
    }

    #[test]
    fn fixtures_hold() {
        let report = run_fixtures::<TopicPolicy>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
        assert_eq!(report.events, report.expectations, "every fixture says what it expects");
    }

    #[test]
    fn a_wrong_configuration_says_how_to_mend_it() {
        let rule = |rule: &str| refused(&format!("{{\"rules\":[{{\"action\":\"allow\"}},{{{rule}}}]}}"));
        assert!(refused("").starts_with("configuration key `rules` is missing"));
        assert!(refused("{\"rules\":[]}").contains("a list of 1 to 1000 rules"));
        assert!(refused("{\"rule\":[]}").ends_with("did you mean `rules`?"));
        assert!(rule("").starts_with("configuration key `rules.1.action` is missing"));
        assert!(rule("\"action\":\"permit\"").contains("`rules.1.action` is \"permit\"; write \"allow\" or \"deny\""));
        assert!(rule("\"action\":\"deny\",\"topics\":\"a\"").contains("did you mean `topic`?"));
        assert!(
            rule("\"action\":\"deny\",\"topic\":\"a/**/b\"")
                .starts_with("configuration key `rules.1.topic`: the pattern")
        );
        assert!(rule("\"action\":\"deny\",\"identity\":[7]").contains("`rules.1.identity` is 7"));
        assert!(rule("\"action\":\"allow\",\"reason\":\"x\"").contains("no meaning"));
        assert!(rule(&format!("\"action\":\"deny\",\"reason\":\"{}\"", "x".repeat(257))).contains("1 to 256 bytes"));
        assert!(
            refused("{\"rules\":[{\"action\":\"allow\"}],\"default\":\"maybe\"}").contains("`default` is \"maybe\"")
        );
    }

    #[test]
    fn as_many_rules_as_fit_have_a_reason_of_their_own() {
        let rules = |count: usize| {
            let rule = |at| format!("{{\"topic\":\"t/{at}\",\"action\":\"deny\",\"reason\":\"reason {at}\"}}");
            format!("{{\"rules\":[{}]}}", (0..count).map(rule).collect::<Vec<_>>().join(","))
        };
        let mut policy = Harness::<TopicPolicy>::new(rules(RULES_MAX)).unwrap();
        assert_eq!(policy.event("t/999").verdict().reason.as_deref(), Some("reason 999"));
        assert_eq!(policy.event("t/1000").verdict().reason.as_deref(), Some(NO_RULE));
        assert!(refused(&rules(RULES_MAX + 1)).contains("1 to 1000 rules"));
    }

    #[test]
    fn what_the_event_before_said_holds_for_its_like_only() {
        let config = r#"{"rules":[{"identity":"a","topic":"t/**","action":"allow"}]}"#;
        let mut policy = Harness::<TopicPolicy>::new(config).unwrap();
        for (identity, topic, kind) in [
            ("a", "t/1", Kind::Allow),
            ("a", "t/1", Kind::Allow),
            ("b", "t/1", Kind::Deny),
            ("b", "t/1", Kind::Deny),
            ("a", "u", Kind::Deny),
            ("a", "t/1", Kind::Allow),
        ] {
            assert_eq!(policy.event(topic).identity(identity).verdict().kind, kind, "{identity} {topic}");
        }
        assert_eq!((policy.counter("allowed"), policy.counter("refused")), (3, 3));
    }
}
