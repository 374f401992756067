//! Who may do what: the catalog's policies, compiled, and what holds where they are silent.
//!
//! The keeper of the catalog publishes [`Rules`] whenever a policy changes; each worker asks them on its cold ways and
//! remembers the answers: with a publisher's topic, and with the route of a topic. Nothing is asked for single events.

pub mod asked;
mod denials;
mod event;
pub mod named;

pub use denials::Denials;
pub use event::{PolicyEvent, head};

use crate::config::PolicyDefault;
use crate::names::INBOX;
use crate::residency::event_of_letter;
use crate::tenants::{Foreign, Tenants};
use myelin_core::{MatchSet, SessionKey};
use myelin_policy::{
    Action, Call, Decider, Decision, EventHead, INBOX_TOPIC, Place, Policies, Question, Service, Verdict,
};
use myelin_wire::limits::DETAIL_BYTES_MAX;
use myelin_wire::{Code, Refusal};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};

/// Most bytes of a topic or pattern in a refusal: what a client sent is shown to it, and cannot fill its log.
const TOPIC_SHOWN_BYTES_MAX: usize = 64;
/// Least bytes of it, however long the name of who asks is.
const TOPIC_SHOWN_BYTES_MIN: usize = 8;

/// Who the open sessions are.
pub type Services = RwLock<HashMap<SessionKey, Service>>;

/// The policies at a moment.
#[derive(Debug)]
pub struct Rules {
    /// Grows with every set; never 0.
    version: u64,
    policies: Arc<Policies>,
    /// Whose topics are whose: asked before any policy.
    tenants: Arc<Tenants>,
    default: PolicyDefault,
    site: Arc<str>,
}

impl Rules {
    /// The rules of a router at `site` before it has read a policy.
    pub fn new(default: PolicyDefault, site: &str) -> Self {
        Self { version: 1, policies: Arc::default(), tenants: Arc::default(), default, site: site.into() }
    }

    /// The rules that come after these.
    #[must_use]
    pub fn after(&self, policies: Arc<Policies>) -> Self {
        let Self { version, tenants, default, site, .. } = self;
        Self { version: version + 1, policies, tenants: tenants.clone(), default: *default, site: site.clone() }
    }

    /// The rules that come after these with other tenants.
    #[must_use]
    pub fn with_tenants(&self, tenants: Arc<Tenants>) -> Self {
        Self { tenants, ..self.after(self.policies.clone()) }
    }

    /// The rules that hold where the catalog's policies cannot be compiled and none have been before: nobody may
    /// anything.
    #[must_use]
    pub fn closed(&self) -> Self {
        Self { default: PolicyDefault::Deny, ..self.after(Arc::default()) }
    }

    /// Tells rules apart.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The tenants.
    pub fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// What the configuration says of that of which no policy speaks.
    pub fn default_name(&self) -> &'static str {
        self.default.name()
    }

    /// How many statements there are.
    pub fn statements(&self) -> usize {
        self.policies.statements()
    }

    /// What is done about that of which no policy speaks: `true` where it is allowed.
    pub fn allows_unspoken(&self) -> bool {
        match self.default {
            PolicyDefault::Deny => false,
            PolicyDefault::Allow => true,
            PolicyDefault::AllowUntilFirst => self.policies.is_empty(),
        }
    }

    /// Whether everybody may everything.
    pub fn are_open(&self) -> bool {
        self.tenants.is_empty() && self.is_all_permitted()
    }

    /// Whether no policy forbids anybody anything.
    fn is_all_permitted(&self) -> bool {
        self.policies.is_empty() && self.allows_unspoken()
    }

    /// Where `service` asks.
    fn place(&self, service: &Service) -> Place<'_> {
        Place { site: &self.site, tenant: self.tenants.of(service).map_or("", |known| known.tenant.name.as_str()) }
    }

    /// What the policies say, and which of them, asked for this site or another one; of one event where its head is
    /// given.
    pub fn decide(&self, asked: &Asked<'_>, site: Option<&str>) -> Decision {
        let mut question = self.question(asked);
        question.place.site = site.unwrap_or(&self.site);
        match asked.event {
            Some(event) => self.policies.judge(&question, event),
            None => self.policies.decide(&question),
        }
    }

    fn question<'a>(&'a self, asked: &Asked<'a>) -> Question<'a> {
        let &Asked { service, action, topic, .. } = asked;
        Question { service, action, topic: subject(action, topic), place: self.place(service) }
    }

    /// What they say of a call of the admin API by somebody whose roles allow it: forbidden, or nothing.
    pub fn decide_admin(&self, call: &Call<'_>) -> Decision {
        self.policies.decide_admin(call)
    }

    /// Whether they say anything of the admin API.
    pub fn speak_of_admin(&self) -> bool {
        self.policies.speak_of_admin()
    }

    /// The site at which they hold.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// Whether that verdict lets something be done, whatever the event.
    pub fn allow(&self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Permit => true,
            Verdict::Forbid | Verdict::ByEvent { .. } => false,
            Verdict::Silent => self.allows_unspoken(),
        }
    }

    /// Whether `service` may, by what is remembered of these very rules.
    pub fn may(&self, decider: &mut Decider, service: &Service, action: Action, topic: &str) -> bool {
        self.tenants.check(service, action, topic).is_ok()
            && (self.is_all_permitted() || self.allow(self.remembered(decider, service, action, topic)))
    }

    fn remembered(&self, decider: &mut Decider, service: &Service, action: Action, topic: &str) -> Verdict {
        decider.decide(&self.policies, (service, action, subject(action, topic)), || self.place(service))
    }

    /// Whether `service` may send the event of that head; and whether that is so because of it.
    pub fn may_send(&self, decider: &mut Decider, asked: &Asked<'_>) -> (bool, bool) {
        let &Asked { service, action, topic, event } = asked;
        if self.tenants.check(service, action, topic).is_err() {
            return (false, false);
        }
        if self.is_all_permitted() {
            return (true, false);
        }
        match (self.remembered(decider, service, action, topic), event) {
            (Verdict::ByEvent { is_permitted }, Some(event)) => {
                (self.allow(self.policies.look(&self.question(asked), event, is_permitted)), true)
            }
            (verdict, _) => (self.allow(verdict), false),
        }
    }

    /// Whether `service` may get events of the very topic. A dead letter may be had only by those who may have had the
    /// event - one that does not say which it was, by nobody -, and a session's answers are nobody else's.
    fn may_get(&self, decider: &mut Decider, service: &Service, topic: &str) -> bool {
        let mut may = |topic| self.may(decider, service, Action::Subscribe, topic);
        match event_of_letter(topic) {
            None => may(topic),
            Some(event) => event.is_some_and(|event| may(topic) && may(event)),
        }
    }

    /// Takes out of `targets` who may not get events of `topic`; how many copies are withheld.
    pub fn withhold(&self, services: &Services, decider: &mut Decider, topic: &str, targets: &mut MatchSet) -> u32 {
        if self.are_open() || topic.starts_with(INBOX) || (targets.plain.is_empty() && targets.groups.is_empty()) {
            return 0;
        }
        let Ok(services) = services.read() else {
            // Somebody panicked while writing: nobody is known any more.
            *targets = MatchSet::default();
            return 0;
        };
        // A session that is not known is about to end.
        let mut may =
            |session: &SessionKey| services.get(session).is_some_and(|service| self.may_get(decider, service, topic));
        let before = targets.plain.len() + targets.groups.len();
        targets.plain.retain(|session| may(session));
        targets.groups.retain_mut(|group| {
            group.members.retain(|(session, _)| may(session));
            !group.members.is_empty()
        });
        u32::try_from(before - targets.plain.len() - targets.groups.len()).unwrap_or(u32::MAX)
    }

    /// Why somebody may not. What matters comes first, and whole: the detail of an event's refusal is short.
    pub fn refusal(&self, asked: &Asked<'_>) -> Refusal {
        let &Asked { service, action, topic, .. } = asked;
        let (why, mend) = match self.tenants.check(service, action, topic) {
            Err(foreign) => told(&foreign),
            Ok(()) => self.said(self.decide(asked, None)),
        };
        let name = service.id();
        let rest = why.len() + name.len() + action.name().len() + ":  ".len() + " by ".len();
        let room = DETAIL_BYTES_MAX.saturating_sub(rest).clamp(TOPIC_SHOWN_BYTES_MIN, TOPIC_SHOWN_BYTES_MAX);
        let mut text = format!("{why}: {action} {} by {name}", shortened(topic, room));
        // What mends it is said where it fits; the name of who may not is never cut for it.
        if let Some(mend) = mend.into_iter().find(|mend| text.len() + mend.len() + " ()".len() <= DETAIL_BYTES_MAX) {
            text += &format!(" ({mend})");
        }
        Refusal::new(Code::Forbidden, text)
    }

    /// Why the policies do not let somebody do something, and what mends that, the best first.
    fn said(&self, Decision { verdict, reasons }: Decision) -> (String, Vec<&'static str>) {
        match (verdict, self.default) {
            (Verdict::Forbid, _) => {
                let more = if reasons.len() > 1 { format!(" and {} more", reasons.len() - 1) } else { String::new() };
                let first = reasons.first().map(String::as_str).unwrap_or_default();
                (format!("policy {first}{more} forbids it"), vec!["`myelin policy explain`"])
            }
            (Verdict::ByEvent { .. }, _) => (format!("policy {} looks at each event", reasons.join(", ")), Vec::new()),
            // Policies that changed meanwhile: the next event may pass.
            (Verdict::Permit, _) => ("the policies have just changed; try again".to_owned(), Vec::new()),
            (Verdict::Silent, PolicyDefault::AllowUntilFirst) => {
                ("no policy permits it".to_owned(), vec!["and there are some: `myelin policy apply`", PERMIT])
            }
            (Verdict::Silent, _) => {
                let default = "[policy] default `deny`; `myelin policy apply`";
                ("no policy permits it".to_owned(), vec![default, PERMIT])
            }
        }
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who.
    pub service: &'a Service,
    /// What.
    pub action: Action,
    /// With which topic, or pattern.
    pub topic: &'a str,
    /// The head of the event that it is about; none where it is about all of them.
    pub event: Option<&'a EventHead<'a>>,
}

/// What lets somebody do something.
const PERMIT: &str = "`myelin policy apply`";

/// The beginning of a topic, marked where more follows.
fn shortened(topic: &str, bytes_max: usize) -> Cow<'_, str> {
    const MARK: &str = "…";
    match topic.len() <= bytes_max {
        true => topic.into(),
        false => format!("{}{MARK}", &topic[..topic.floor_char_boundary(bytes_max - MARK.len())]).into(),
    }
}

/// Why a topic is not for somebody, and what to do about it.
fn told(foreign: &Foreign) -> (String, Vec<&'static str>) {
    let mend = match foreign {
        Foreign::Outside { .. } => "`myelin tenant ls`",
        Foreign::Owned { .. } => "`myelin tenant`: its tenant must share it",
        Foreign::Inbox => "`myelin tenant`: share with `publish`",
        Foreign::DeadLetters => "subscribe to $dead/*/TOPICS",
    };
    (foreign.to_string(), vec![mend])
}

/// What is asked about: answers go to topics that nobody could name in a policy.
fn subject(action: Action, topic: &str) -> &str {
    if action == Action::Reply { INBOX_TOPIC } else { topic }
}

/// What a publisher does with an event of `topic`.
pub fn sending(topic: &str, is_request: bool) -> Action {
    match is_request {
        _ if topic.starts_with(INBOX) => Action::Reply,
        true => Action::Request,
        false => Action::Publish,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn rules(default: PolicyDefault, text: &str) -> Rules {
        let texts = (!text.is_empty()).then_some(("p", text));
        Rules::new(default, "hamburg").after(Arc::new(Policies::compile(texts).unwrap()))
    }

    fn publishing<'a>(service: &'a Service, topic: &'a str) -> Asked<'a> {
        Asked { service, action: Action::Publish, topic, event: None }
    }

    #[test]
    fn the_default_holds_where_nobody_speaks() {
        use PolicyDefault::{Allow, AllowUntilFirst, Deny};
        let text = r#"permit (principal, action, resource == Topic::"a");
            forbid (principal, action, resource == Topic::"b");"#;
        let who = Service::new("spiffe://example.org/service/shop");
        for (default, text, wanted) in [
            (Deny, "", [false, false, false]),
            (Allow, "", [true, true, true]),
            (AllowUntilFirst, "", [true, true, true]),
            (Deny, text, [true, false, false]),
            (Allow, text, [true, false, true]),
            (AllowUntilFirst, text, [true, false, false]),
        ] {
            let (rules, mut decider) = (rules(default, text), Decider::default());
            let may = ["a", "b", "c"].map(|topic| rules.may(&mut decider, &who, Action::Publish, topic));
            assert_eq!(may, wanted, "{default:?} {text}");
            assert_eq!(rules.are_open(), text.is_empty() && default != Deny);
        }
        assert!(!rules(Allow, "").closed().are_open());
    }

    #[test]
    fn a_refusal_says_who_may_not_what_and_how_to_permit_it() {
        let who = Service::new("spiffe://example.org/service/shop");
        let told = |default, text: &str| rules(default, text).refusal(&publishing(&who, "orders/1")).to_string();
        let silent = told(PolicyDefault::Deny, "");
        for part in ["publish orders/1 by spiffe://example.org/service/shop", "policy apply"] {
            assert!(silent.contains(part), "{silent}");
        }
        let short = Service::new("spiffe://a/service/shop");
        let short = rules(PolicyDefault::Deny, "").refusal(&publishing(&short, "orders/1")).to_string();
        assert!(short.ends_with("([policy] default `deny`; `myelin policy apply`)"), "{short}");
        let forbidden = told(PolicyDefault::Allow, "forbid (principal, action, resource);");
        assert!(forbidden.contains("p#1"), "{forbidden}");
        let long = rules(PolicyDefault::Deny, "").refusal(&publishing(&who, &"x".repeat(200)));
        assert!(long.to_string().len() < 256, "{long}");
    }

    #[test]
    fn whoever_may_not_is_named_whole_within_what_an_event_is_told() {
        let name = "spiffe://example.org/service/a-service-with-a-name";
        let who = Service::new(name);
        for (default, text) in [
            (PolicyDefault::Deny, ""),
            (PolicyDefault::AllowUntilFirst, r#"permit (principal, action, resource == Topic::"a");"#),
            (PolicyDefault::Allow, "forbid (principal, action, resource);"),
        ] {
            for topic in ["demo/hello".to_owned(), format!("demo/{}", "ä".repeat(90))] {
                let told = rules(default, text).refusal(&publishing(&who, &topic)).message;
                let cut = &told[..told.floor_char_boundary(DETAIL_BYTES_MAX)];
                assert!(cut.contains(&format!(" by {name}")) && cut.contains("publish demo/"), "{told}");
                assert_eq!(cut.len(), told.len(), "{told}");
            }
        }
        let endless = format!("spiffe://example.org/service/{}", "x".repeat(200));
        let told = rules(PolicyDefault::Deny, "").refusal(&publishing(&Service::new(&*endless), "demo/hello"));
        assert!(told.message.ends_with(&endless), "{told}");
    }

    #[test]
    fn a_dead_letter_is_for_those_who_may_have_the_event() {
        let text = r#"permit (principal, action, resource);
            forbid (principal, action == Action::"subscribe", resource == Topic::"secret");"#;
        let (rules, mut decider) = (rules(PolicyDefault::Deny, text), Decider::default());
        let who = Service::new("spiffe://example.org/service/shop");
        let mut may = |topic| rules.may_get(&mut decider, &who, topic);
        assert_eq!([may("$dead/gate/open"), may("$dead/gate/secret"), may("secret")], [true, false, false]);
        assert!(!may("$dead/gate"), "of which event nobody knows");
    }

    #[test]
    fn copies_are_withheld_by_statements_that_look_at_events_too() {
        let text = r#"permit (principal, action, resource);
            forbid (principal, action, resource) when { resource.name like "secret/*" }
              unless { context has event && context.event.source == "x" };"#;
        let (rules, mut decider) = (rules(PolicyDefault::Deny, text), Decider::default());
        let session = SessionKey { worker: 0, slot: 1, generation: 1 };
        let who = Service::new("spiffe://example.org/service/shop");
        let services = Services::new(HashMap::from([(session, who.clone())]));
        for (topic, left) in [("secret/1", 0), ("open/1", 1), ("$dead/gate/secret/1", 0)] {
            let mut targets = MatchSet::default();
            targets.plain.push(session);
            let withheld = rules.withhold(&services, &mut decider, topic, &mut targets);
            assert_eq!((withheld, targets.plain.len()), (1 - left, left as usize), "{topic}");
        }
        let asked = Asked { service: &who, action: Action::Subscribe, topic: "secret/1", event: None };
        assert!(rules.refusal(&asked).to_string().contains("p#2"));
    }

    #[test]
    fn answers_are_one_topic_and_denials_are_counted_by_action() {
        assert_eq!(sending("$inbox/1/2-3", false), Action::Reply);
        assert_eq!(sending("orders", true), Action::Request);
        assert_eq!(sending("orders", false), Action::Publish);
        let rules = rules(PolicyDefault::Deny, r#"permit (principal, action, resource == Topic::"$inbox");"#);
        let who = Service::new("x");
        assert!(rules.may(&mut Decider::default(), &who, Action::Reply, "$inbox/1/2-3"));
        let denials = Denials::default();
        (0..3).for_each(|_| denials.note(&who, Action::Request, "orders"));
        assert_eq!(denials.by_action(), [("publish", 0), ("request", 3), ("reply", 0), ("subscribe", 0)]);
    }
}
