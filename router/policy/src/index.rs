//! Statements by what they need.

use crate::error::PolicyError;
use crate::limits::TOGETHER_MAX;
use crate::mentions::Mentions;
use crate::needs::Need;
use crate::who::Service;
use cedar_policy::{Policy, PolicySet};
use hashbrown::HashMap;

/// All statements, each in every place where a question that it needs is looked for.
#[derive(Debug, Default)]
pub(crate) struct Index {
    places: HashMap<Need, Together, foldhash::fast::RandomState>,
    /// Lengths of the beginnings of topics, each once.
    topic_prefixes: Vec<usize>,
    /// The same of services.
    service_prefixes: Vec<usize>,
}

/// Statements that are found together.
#[derive(Debug, Default)]
pub(crate) struct Together {
    pub(crate) set: PolicySet,
    /// What those of them forbid of a request that forbid to publish, and do not speak of requests themselves.
    pub(crate) of_requests: PolicySet,
    /// What any of them mentions.
    pub(crate) mentions: Mentions,
}

/// A statement, and what is known of it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) statement: Policy,
    /// What it forbids of a request, where that is not said by itself.
    pub(crate) of_requests: Option<Policy>,
    /// Where it has to be found.
    pub(crate) needs: Vec<Need>,
    pub(crate) mentions: Mentions,
}

impl Index {
    /// Puts a statement of the text `name` into its places.
    ///
    /// # Errors
    /// When one of them is full.
    pub(crate) fn insert(&mut self, name: &str, known: &Known) -> Result<(), PolicyError> {
        for need in &known.needs {
            match need {
                Need::TopicPrefix(text) => remember(&mut self.topic_prefixes, text.len()),
                Need::ServicePrefix(text) => remember(&mut self.service_prefixes, text.len()),
                _ => {}
            }
            let place = self.places.entry(need.clone()).or_default();
            if place.set.num_of_policies() >= TOGETHER_MAX {
                return Err(full(name, need));
            }
            // Only a name that is taken is refused, and every statement has its own.
            let refused = |error: cedar_policy::PolicySetError| PolicyError::of(name, error.to_string(), "rename it");
            place.set.add(known.statement.clone()).map_err(refused)?;
            if let Some(statement) = &known.of_requests {
                place.of_requests.add(statement.clone()).map_err(refused)?;
            }
            place.mentions.extend(&known.mentions);
        }
        Ok(())
    }

    /// The statements that could speak of a topic and a service. Some stand in several of these sets.
    pub(crate) fn find<'a>(&'a self, service: &'a Service, topic: &'a str) -> impl Iterator<Item = &'a Together> {
        let beginnings = |lengths: &'a [usize], text: &'a str| {
            let fitting = lengths.iter().take_while(move |length| **length <= text.len());
            fitting.filter_map(move |length| text.get(..*length))
        };
        let whole = [Key::Topic(topic), Key::Service(service.id()), Key::Name(service.name()), Key::Nothing];
        whole
            .into_iter()
            .chain(beginnings(&self.topic_prefixes, topic).map(Key::TopicPrefix))
            .chain(beginnings(&self.service_prefixes, service.id()).map(Key::ServicePrefix))
            .filter_map(|key| self.places.get(&key))
    }
}

/// Keeps lengths sorted.
fn remember(lengths: &mut Vec<usize>, length: usize) {
    if let Err(at) = lengths.binary_search(&length) {
        lengths.insert(at, length);
    }
}

fn full(name: &str, need: &Need) -> PolicyError {
    let which = match need {
        Need::Topic(text) => format!("need the topic `{text}`"),
        Need::Service(text) | Need::Name(text) => format!("need the service `{text}`"),
        Need::TopicPrefix(text) => format!("need a topic that begins with `{text}`"),
        Need::ServicePrefix(text) => format!("need a service that begins with `{text}`"),
        Need::Nothing => "name neither a topic nor a service that every question could be compared with".to_owned(),
    };
    let what = format!("more than {TOGETHER_MAX} statements {which}: all would be evaluated for each decision");
    PolicyError::of(name, what, "let one statement list several with `[..].contains(..)`, or name longer beginnings")
}

/// A [`Need`] that borrows its text; hashes like it.
#[derive(Hash)]
enum Key<'a> {
    Topic(&'a str),
    Service(&'a str),
    Name(&'a str),
    TopicPrefix(&'a str),
    ServicePrefix(&'a str),
    Nothing,
}

impl hashbrown::Equivalent<Need> for Key<'_> {
    fn equivalent(&self, need: &Need) -> bool {
        match (self, need) {
            (Self::Topic(text), Need::Topic(other))
            | (Self::Service(text), Need::Service(other))
            | (Self::Name(text), Need::Name(other))
            | (Self::TopicPrefix(text), Need::TopicPrefix(other))
            | (Self::ServicePrefix(text), Need::ServicePrefix(other)) => text == other,
            (Self::Nothing, Need::Nothing) => true,
            _ => false,
        }
    }
}
