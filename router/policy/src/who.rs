//! Who asks, and for what.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The one topic that [`Action::Reply`] is asked about.
pub const INBOX_TOPIC: &str = "$inbox";

/// What somebody wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Action {
    /// Send an event that asks for no answer.
    Publish,
    /// Send an event that asks for an answer.
    Request,
    /// Answer a request; the topic is [`INBOX_TOPIC`].
    Reply,
    /// Get events.
    Subscribe,
}

impl Action {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Request, Self::Reply, Self::Subscribe];

    /// Whether it is about an event that is sent. Whoever subscribes is asked about none.
    pub const fn has_event(self) -> bool {
        !matches!(self, Self::Subscribe)
    }

    /// As policies and people spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Request => "request",
            Self::Reply => "reply",
            Self::Subscribe => "subscribe",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|action| action.name() == text);
        known.ok_or_else(|| format!("there is no action `{text}`: say publish, request, reply or subscribe"))
    }
}

/// A program that connects, by its SPIFFE name and the groups that its token tells. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    id: Arc<str>,
    /// Sorted, each once.
    groups: Arc<[Box<str>]>,
}

impl Service {
    /// The service of that SPIFFE name. Any text will do: parts that it lacks are empty.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self { id: id.into(), groups: Arc::default() }
    }

    /// The same service with these groups.
    #[must_use]
    pub fn with_groups<'a>(self, groups: impl IntoIterator<Item = &'a str>) -> Self {
        let mut groups: Vec<Box<str>> = groups.into_iter().map(Into::into).collect();
        groups.sort_unstable();
        groups.dedup();
        Self { groups: groups.into(), ..self }
    }

    /// Its groups, sorted.
    pub fn groups(&self) -> &[Box<str>] {
        &self.groups
    }

    /// The whole name.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn parts(&self) -> (&str, &str) {
        let rest = self.id.strip_prefix("spiffe://").unwrap_or(&self.id);
        rest.split_once('/').unwrap_or((rest, ""))
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        self.parts().0
    }

    /// What follows the trust domain.
    pub fn path(&self) -> &str {
        self.parts().1
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path().rsplit('/').next().unwrap_or_default()
    }
}

/// What is asked: may `service` do this with `topic`?
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who.
    pub service: &'a Service,
    /// What.
    pub action: Action,
    /// With which topic, or pattern.
    pub topic: &'a str,
    /// Where.
    pub place: Place<'a>,
}

/// Where something is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place<'a> {
    /// The site.
    pub site: &'a str,
    /// The tenant that the service belongs to there; empty where it belongs to none.
    pub tenant: &'a str,
}

/// The head of an event; what it lacks is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventHead<'a> {
    /// Its identifier.
    pub id: &'a str,
    /// Where it comes from, as it says.
    pub source: &'a str,
    /// Its type.
    pub kind: &'a str,
    /// Its key.
    pub key: &'a str,
    /// The type of its payload.
    pub content_type: &'a str,
    /// The schema that it names.
    pub schema: &'a str,
    /// Its headers; of several with one name the first counts.
    pub headers: Vec<(&'a str, &'a str)>,
}

/// What a call of the admin API is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A module, and its version where one is named.
    Module(&'a str, &'a str),
    /// A binding.
    Binding(&'a str),
    /// A rule for topics.
    Rule(&'a str),
    /// A subject of the schema registry.
    Subject(&'a str),
    /// A tenant.
    Tenant(&'a str),
    /// A rollout, by its number.
    Rollout(&'a str),
    /// A capture.
    Capture(&'a str),
    /// Nothing of these: the site of the router that is asked.
    Site(&'a str),
}

/// A call of the admin API by somebody whose roles allow it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Who.
    pub caller: &'a str,
    /// Their roles.
    pub roles: &'a [&'a str],
    /// About what.
    pub subject: Subject<'a>,
    /// The method of HTTP.
    pub method: &'a str,
    /// As the API's description spells it: `/v1/bindings/{name}`.
    pub route: &'a str,
    /// At which site.
    pub site: &'a str,
}
