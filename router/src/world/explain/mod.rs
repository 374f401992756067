//! What would become of an event, router by router, each by its own answer. Nothing is sent.
//!
//! The router where the event would be published says what its filters, its own subscribers and its plan are; then it
//! asks each router that would get a copy what that would do with it, and so on: nobody has to guess what another one
//! knows. Questions are bounded in number, size and time.

mod hop;
mod types;

pub use types::{
    AdmissionRefusal, Destination, DestinationState, ExplainedBinding, ExplainedCopy, ExplainedGroup, ExplainedHop,
    Explanation, Wanted,
};

use super::{Blame, View, WorldError};
use crate::local::INBOX;
use crate::peering::Caller;
use crate::policy::{Asked, sending};
use crate::shared::Shared;
use arc_swap::ArcSwap;
use bytes::Bytes;
use hop::{Here, title};
use myelin_catalog::Stage;
use myelin_catalog::exchange::{Answer, Ask};
use myelin_mesh::limits::HOPS_MAX;
use myelin_mesh::{RouterNumber, STAMP_BYTES_MAX, Stamp};
use myelin_policy::{Decider, Decision, Service, Verdict};
use myelin_transport::Identity;
use myelin_wire::{Code, Refusal, topic, validate_topic};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use types::HopAnswer;

/// Explanations that this router works out at once: each asks others, who serve their catalogs meanwhile.
const EXPLANATIONS_MAX: usize = 4;
/// Routers that are asked for one explanation: the sites of a full mesh, and some routers more at each.
const QUESTIONS_MAX: usize = 256;
/// How long a router may take to say what it would do: it looks things up, and its answer crosses some links.
const HOP_WAIT: Duration = Duration::from_secs(5);
/// How long a whole explanation may take. Shorter than the links wait for an answer.
const EXPLANATION_WAIT: Duration = Duration::from_secs(15);
/// Bytes of the answer about a hop: its bindings, its groups and its copies.
const HOP_BYTES_MAX: usize = 512 * 1024;
/// Bytes of a whole explanation of another router: as much as the links pass on.
const EXPLANATION_BYTES_MAX: usize = 1024 * 1024;

/// Explains what would become of events. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Explainer {
    shared: Arc<Shared>,
    view: Arc<ArcSwap<View>>,
    /// Asks other routers; none where there are no links.
    caller: Option<Caller>,
    places: Arc<Semaphore>,
}

/// A router that is to be asked, and how the event comes there.
struct Question {
    router: u32,
    stamp: Vec<u8>,
    path: Vec<String>,
    cost: u32,
    sites: Vec<String>,
}

impl Explainer {
    pub(super) fn new(shared: Arc<Shared>, view: Arc<ArcSwap<View>>, caller: Option<Caller>) -> Self {
        Self { shared, view, caller, places: Arc::new(Semaphore::new(EXPLANATIONS_MAX)) }
    }

    /// What would become of an event of `topic` that `identity` publishes: at this router, or at the site or
    /// `SITE/ROUTER` that `at` names.
    ///
    /// # Errors
    /// `invalid-topic`, `invalid-identity`, `not-found`, `no-answer`, `explain-busy`.
    pub(super) async fn explain(
        &self,
        topic: &str,
        identity: &str,
        at: Option<&str>,
    ) -> Result<Explanation, WorldError> {
        check(topic, identity)?;
        match self.elsewhere(at)? {
            None => self.here(topic, identity).await,
            Some(router) => self.there(router, topic, identity).await,
        }
    }

    /// The same for an event that is published at this router.
    ///
    /// # Errors
    /// As of [`Self::explain`].
    pub(super) async fn here(&self, topic: &str, identity: &str) -> Result<Explanation, WorldError> {
        check(topic, identity)?;
        let Ok(_place) = self.places.try_acquire() else {
            let message = format!("{EXPLANATIONS_MAX} explanations are being worked out here already; ask again");
            return Err(WorldError::new(Blame::Conflict, "explain-busy", message));
        };
        let (mut explanation, questions) = self.begin(topic, identity)?;
        let late = tokio::time::sleep(EXPLANATION_WAIT);
        let mut walk = Walk { topic, caller: self.caller.clone(), hops: Vec::new(), waiting: questions, asked: 0 };
        tokio::select! {
            () = walk.run() => {}
            () = late => {}
        }
        walk.give_up();
        explanation.hops.append(&mut walk.hops);
        explanation.destinations = destinations(&explanation);
        Ok(explanation)
    }

    /// What this router would do with an event that comes by a link.
    ///
    /// # Errors
    /// `invalid-topic`, or what is wrong with the stamp.
    pub(super) fn hop(&self, topic: &str, stamp: &[u8]) -> Result<Vec<u8>, WorldError> {
        check_topic(topic)?;
        let refuse = |why: String| WorldError::new(Blame::Request, "invalid-stamp", why);
        if stamp.len() > STAMP_BYTES_MAX {
            return Err(refuse(format!("a stamp of {} bytes; {STAMP_BYTES_MAX} are the most", stamp.len())));
        }
        let (stamp, _) = Stamp::decode(stamp).map_err(|violation| refuse(violation.to_string()))?;
        let view = self.view.load_full();
        encode(&Here::now(&self.shared, &view).arrive(topic, &stamp)?)
    }

    /// What this router says itself, and whom to ask next.
    fn begin(&self, topic: &str, identity: &str) -> Result<(Explanation, Vec<Question>), WorldError> {
        let view = self.view.load_full();
        let here = Here::now(&self.shared, &view);
        let (HopAnswer { mut hop, next }, wanted, wanted_left_out) = here.publish(topic)?;
        hop.path = vec![here.title()];
        let questions = questions(&hop, next);
        let explanation = Explanation {
            topic: topic.to_owned(),
            identity: identity.to_owned(),
            origin: here.title(),
            refused: refusal(topic).or_else(|| self.forbidden(topic, identity)),
            schemas: here.schemas(topic),
            governed_by: here.governed_by(),
            ingress: here.bindings(Stage::Ingress, topic),
            wanted,
            wanted_left_out,
            hops: vec![hop],
            destinations: Vec::new(),
        };
        Ok((explanation, questions))
    }

    /// Why the policies of this router do not let `identity` publish to `topic`, where that is so.
    fn forbidden(&self, topic: &str, identity: &str) -> Option<AdmissionRefusal> {
        let (rules, service, action) = (self.shared.rules.load(), Service::new(identity), sending(topic, false));
        if rules.may(&mut Decider::default(), &service, action, topic) {
            return None;
        }
        let asked = Asked { service: &service, action, topic, event: None };
        let is_own = rules.tenants().check(&service, action, topic).is_ok();
        if let (true, Decision { verdict: Verdict::ByEvent { .. }, reasons }) = (is_own, rules.decide(&asked, None)) {
            let message =
                format!("{} looks at the head of each event (`myelin policy explain --type ..`)", reasons.join(", "));
            return Some(AdmissionRefusal { code: "depends-on-event".to_owned(), message });
        }
        let Refusal { code, message } = rules.refusal(&asked);
        Some(AdmissionRefusal { code: code.name().to_owned(), message: message.into_owned() })
    }

    /// The router that `at` names, where it is another one: of a site the nearest that can be reached.
    fn elsewhere(&self, at: Option<&str>) -> Result<Option<(RouterNumber, String)>, WorldError> {
        let Some(at) = at else { return Ok(None) };
        let (site, router) = at.split_once('/').map_or((at, None), |(site, router)| (site, Some(router)));
        if site == self.shared.site && router.is_none_or(|router| router == self.shared.router) {
            return Ok(None);
        }
        let view = self.view.load_full();
        let here = Here::now(&self.shared, &view);
        let unknown = || {
            let message =
                format!("there is no `{at}` in this mesh; `myelin site ls` shows the sites and their routers");
            WorldError::new(Blame::NotFound, "not-found", message)
        };
        let reach = here.reach().ok_or_else(unknown)?;
        let directory = reach.interest.directory();
        let is_asked = |known: &&myelin_mesh::Router| {
            directory.site(known.site).is_some_and(|known| *known.name == *site)
                && router.is_none_or(|router| *known.name == *router)
        };
        let known: Vec<_> = directory.routers().filter(is_asked).map(|router| router.number).collect();
        let nearest = known.iter().filter_map(|number| Some((reach.routes.hop(*number)?.cost, *number))).min();
        match (nearest, known.first()) {
            (Some((_, number)), _) => Ok(Some((number, title(directory, number)))),
            (None, Some(_)) => {
                let message = format!("no path leads to `{at}` now; see `myelin mesh`");
                Err(WorldError::new(Blame::Router, "no-answer", message))
            }
            (None, None) => Err(unknown()),
        }
    }

    /// Asks another router for the explanation.
    async fn there(
        &self,
        (router, title): (RouterNumber, String),
        topic: &str,
        identity: &str,
    ) -> Result<Explanation, WorldError> {
        let failed = |why: String| WorldError::new(Blame::Router, "no-answer", format!("{title}: {why}"));
        let caller = self.caller.as_ref().ok_or_else(WorldError::stopped)?;
        let ask = Ask::Explain { topic: topic.to_owned(), identity: identity.to_owned() };
        let answer = caller.call(router.0, Bytes::from(ask.encode()), EXPLANATION_BYTES_MAX).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        match Answer::decode(&answer)? {
            Answer::Explained(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string())),
            answer => Err(super::propose::unexpected(answer)),
        }
    }
}

/// The way of an event from the origin on.
struct Walk<'a> {
    topic: &'a str,
    caller: Option<Caller>,
    hops: Vec<ExplainedHop>,
    waiting: Vec<Question>,
    asked: usize,
}

impl Walk<'_> {
    /// Asks hop after hop until nobody gets a further copy. No stamp passes more than [`HOPS_MAX`] links.
    async fn run(&mut self) {
        for _ in 0..=HOPS_MAX {
            if self.waiting.is_empty() || self.asked >= QUESTIONS_MAX {
                return;
            }
            let left = QUESTIONS_MAX - self.asked;
            let mut asking = JoinSet::new();
            for at in 0..self.waiting.len().min(left) {
                self.asked += 1;
                asking.spawn(ask(self.caller.clone(), self.topic.to_owned(), self.waiting[at].copy(), at));
            }
            let mut answers = asking.join_all().await;
            answers.sort_by_key(|(at, _)| *at);
            let later = self.waiting.split_off(answers.len());
            for (question, (_, answer)) in std::mem::replace(&mut self.waiting, later).into_iter().zip(answers) {
                self.take(question, answer);
            }
        }
    }

    fn take(&mut self, question: Question, answer: Result<HopAnswer, String>) {
        match answer {
            Ok(HopAnswer { hop, next }) => {
                let hop = ExplainedHop { path: question.path, cost: question.cost, ..hop };
                self.waiting.append(&mut questions(&hop, next));
                self.hops.push(hop);
            }
            Err(why) => self.hops.push(unanswered(question, why)),
        }
    }

    /// Whoever was not asked, or not in time, has given no answer.
    fn give_up(&mut self) {
        let why = format!("not asked, or not in time: at most {QUESTIONS_MAX} routers are, for {EXPLANATION_WAIT:?}");
        self.hops.extend(self.waiting.drain(..).map(|question| unanswered(question, why.clone())));
    }
}

impl Question {
    fn copy(&self) -> (u32, Vec<u8>) {
        (self.router, self.stamp.clone())
    }
}

async fn ask(
    caller: Option<Caller>,
    topic: String,
    (router, stamp): (u32, Vec<u8>),
    at: usize,
) -> (usize, Result<HopAnswer, String>) {
    let answered = async {
        let caller = caller.ok_or("this router has no links")?;
        let ask = Bytes::from(Ask::Hop { topic, stamp: stamp.into() }.encode());
        let answer = tokio::time::timeout(HOP_WAIT, caller.call(router, ask, HOP_BYTES_MAX)).await;
        let answer =
            answer.map_err(|_| format!("no answer within {HOP_WAIT:?}"))?.map_err(|error| error.to_string())?;
        match Answer::decode(&answer).map_err(|error| error.to_string())? {
            Answer::Hop(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            answer => Err(super::propose::unexpected(answer).message),
        }
    };
    (at, answered.await)
}

/// Whom to ask after a hop.
fn questions(hop: &ExplainedHop, next: Vec<types::NextHop>) -> Vec<Question> {
    let pairs = hop.copies.iter().zip(next);
    let questions = pairs.filter_map(|(copy, next)| {
        let mut path = hop.path.clone();
        path.push(copy.to.clone());
        let (router, stamp) = (next.router, hex::decode(next.stamp).ok()?);
        Some(Question { router, stamp, path, cost: hop.cost.saturating_add(copy.cost), sites: copy.sites.clone() })
    });
    questions.collect()
}

fn unanswered(question: Question, why: String) -> ExplainedHop {
    let Question { path, cost, sites, .. } = question;
    let router = path.last().cloned().unwrap_or_default();
    // What the copy is for stands in place of what the router would do.
    let copies = vec![ExplainedCopy { to: String::new(), cost: 0, sites }];
    ExplainedHop { router, path, cost, no_answer: Some(why), copies, ..ExplainedHop::default() }
}

/// Where the event ends, by what the hops said.
fn destinations(explanation: &Explanation) -> Vec<Destination> {
    let mut all = Vec::new();
    let mut known = BTreeSet::new();
    let mut add = |destination: Destination| {
        known.insert(destination.site.clone());
        all.push(destination);
    };
    for hop in &explanation.hops {
        let ends = |site: &str, state| Destination {
            site: site.to_owned(),
            state,
            path: hop.path.clone(),
            cost: hop.cost,
            subscribers: hop.subscribers,
            groups: hop.groups.iter().map(|group| group.name.clone()).collect(),
        };
        if hop.no_answer.is_some() {
            let sites = hop.copies.iter().flat_map(|copy| &copy.sites);
            sites.for_each(|site| add(ends(site, DestinationState::NoAnswer)));
            continue;
        }
        let (site, _) = hop.router.split_once('/').unwrap_or((&hop.router, ""));
        let gets = hop.subscribers > 0 || !hop.groups.is_empty();
        // A copy that a sibling gets is no end without subscribers of its own.
        let hands_on = hop.copies.iter().any(|copy| copy.sites.iter().any(|to| to == site));
        if hop.is_destination && (gets || !hands_on) {
            add(ends(site, if gets { DestinationState::Reached } else { DestinationState::Nobody }));
        }
        hop.no_path.iter().for_each(|site| add(ends(site, DestinationState::NoPath)));
        hop.too_far.iter().for_each(|site| add(ends(site, DestinationState::TooFar)));
        hop.not_allowed.iter().for_each(|site| add(ends(site, DestinationState::NotAllowed)));
        hop.no_allowed_path.iter().for_each(|site| add(ends(site, DestinationState::NoAllowedPath)));
    }
    let absent = explanation.wanted.iter().flat_map(|wanted| &wanted.without_path);
    for site in absent.filter_map(|router| router.split_once('/')).map(|(site, _)| site) {
        if known.insert(site.to_owned()) {
            let (path, state) = (vec![explanation.origin.clone()], DestinationState::NoPath);
            all.push(Destination { site: site.to_owned(), state, path, cost: 0, subscribers: 0, groups: Vec::new() });
        }
    }
    all
}

fn check(topic: &str, identity: &str) -> Result<(), WorldError> {
    check_topic(topic)?;
    let refuse = |error: myelin_transport::IdentityError| {
        WorldError::new(Blame::Request, "invalid-identity", format!("the identity: {error}"))
    };
    Identity::parse(identity).map(drop).map_err(refuse)
}

fn check_topic(topic: &str) -> Result<(), WorldError> {
    validate_topic(topic).map_err(|error| WorldError::new(Blame::Request, "invalid-topic", error.to_string()))
}

/// Why admission lets nobody publish to a valid topic.
fn refusal(text: &str) -> Option<AdmissionRefusal> {
    let is_refused = topic::is_reserved(text) && !text.starts_with(INBOX);
    is_refused.then(|| AdmissionRefusal {
        code: Code::ReservedTopic.name().to_owned(),
        message: "topics that begin with `$` belong to the router".to_owned(),
    })
}

pub(super) fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, WorldError> {
    serde_json::to_vec(value).map_err(|error| WorldError::new(Blame::Router, "internal", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(path: &[&str], subscribers: usize) -> ExplainedHop {
        let path: Vec<String> = path.iter().map(|&router| router.to_owned()).collect();
        let router = path.last().cloned().unwrap_or_default();
        ExplainedHop { router, path, subscribers, ..ExplainedHop::default() }
    }

    fn explanation(hops: Vec<ExplainedHop>, wanted: Vec<Wanted>) -> Explanation {
        Explanation {
            topic: "a".into(),
            identity: "i".into(),
            origin: "eu/r1".into(),
            refused: None,
            schemas: Vec::new(),
            governed_by: None,
            ingress: Vec::new(),
            wanted,
            wanted_left_out: 0,
            hops,
            destinations: Vec::new(),
        }
    }

    #[test]
    fn destinations_are_where_somebody_gets_it_or_nobody_can() {
        let copy = |to: &str, sites: &[&str]| ExplainedCopy {
            to: to.into(),
            cost: 1,
            sites: sites.iter().map(|&site| site.to_owned()).collect(),
        };
        let passed = ExplainedHop { copies: vec![copy("us/r1", &["us"])], ..hop(&["eu/r1", "uk/r1"], 0) };
        let reached = ExplainedHop { is_destination: true, ..hop(&["eu/r1", "uk/r1", "us/r1"], 2) };
        // The entry of a site with two routers: only the other one has a subscriber.
        let entry =
            ExplainedHop { is_destination: true, copies: vec![copy("jp/r2", &["jp"])], ..hop(&["eu/r1", "jp/r1"], 0) };
        let sibling = ExplainedHop { is_destination: true, ..hop(&["eu/r1", "jp/r1", "jp/r2"], 1) };
        let gone = ExplainedHop { is_destination: true, ..hop(&["eu/r1", "br/r1"], 0) };
        let silent = ExplainedHop {
            no_answer: Some("late".into()),
            copies: vec![copy("", &["za"])],
            ..hop(&["eu/r1", "za/r1"], 0)
        };
        let first = ExplainedHop { no_path: vec!["cn".into()], ..hop(&["eu/r1"], 0) };
        let absent = Wanted {
            pattern: "a".into(),
            group: None,
            routers: Vec::new(),
            without_path: vec!["cn/r1".into(), "in/r1".into()],
            chosen: None,
        };
        let hops = vec![first, passed, reached, entry, sibling, gone, silent];
        let told: Vec<_> = destinations(&explanation(hops, vec![absent]))
            .into_iter()
            .map(|end| (end.site, end.state, end.subscribers))
            .collect();
        use DestinationState as S;
        let expected = [
            ("cn", S::NoPath, 0),
            ("us", S::Reached, 2),
            ("jp", S::Reached, 1),
            ("br", S::Nobody, 0),
            ("za", S::NoAnswer, 0),
            ("in", S::NoPath, 0),
        ];
        assert_eq!(told, expected.map(|(site, state, count)| (site.to_owned(), state, count)));
    }

    #[test]
    fn bad_topics_and_identities_have_codes() {
        let code = |topic: &str, identity: &str| check(topic, identity).err().map(|error| error.code.to_string());
        let good = "spiffe://test/service/web";
        assert_eq!(code("a/b", good), None);
        assert_eq!(code("a/**", good).as_deref(), Some("invalid-topic"));
        assert_eq!(code("a/b", "web").as_deref(), Some("invalid-identity"));
        assert_eq!(refusal("$sys/x").map(|refusal| refusal.code).as_deref(), Some("reserved-topic"));
        assert!(refusal("$inbox/1/2").is_none() && refusal("a").is_none());
    }

    #[tokio::test]
    async fn a_walk_asks_no_more_than_it_may_and_says_whom_it_did_not_ask() {
        let question = |number: u32| Question {
            router: number,
            stamp: Vec::new(),
            path: vec![format!("s{number}/r1")],
            cost: 0,
            sites: vec![format!("s{number}")],
        };
        let waiting = (0..300).map(question).collect();
        let mut walk = Walk { topic: "a", caller: None, hops: Vec::new(), waiting, asked: 0 };
        walk.run().await;
        assert_eq!((walk.asked, walk.hops.len(), walk.waiting.len()), (QUESTIONS_MAX, QUESTIONS_MAX, 44));
        walk.give_up();
        assert_eq!(walk.hops.len(), 300);
        let why = |at: usize| walk.hops[at].no_answer.as_deref().unwrap_or_default();
        assert!(why(0).contains("no links") && why(299).contains("not asked"), "{} {}", why(0), why(299));
    }
}
