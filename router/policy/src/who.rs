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

/// A program that connects with a certificate, by its SPIFFE name. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    id: Arc<str>,
}

impl Service {
    /// The service of that SPIFFE name. Any text will do: parts that it lacks are empty.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self { id: id.into() }
    }

    /// The whole name.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn shared_id(&self) -> Arc<str> {
        self.id.clone()
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
