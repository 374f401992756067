//! Rules for topics: at which sites their events may be, and by which schema their payloads are judged.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use myelin_wire::topic::{Pattern, is_reserved};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::CatalogError;
use crate::limits::SELECTORS_MAX;
use crate::names::Name;
use crate::schemas::{SchemaRefusal, Schemas, SubjectName};

mod schema;

pub use schema::{OnInvalid, SchemaNaming, SchemaRule, SchemaVersion};

#[cfg(test)]
mod tests;

/// A rule for the topics that a pattern matches. Where several match a topic, all of them hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicRule {
    /// What it is called; a rule of the same name replaces it.
    pub name: Name,
    /// The topics.
    pub pattern: Pattern,
    /// The sites at which their events may be; anywhere where it says nothing.
    #[serde(default, skip_serializing_if = "Residency::is_anywhere")]
    pub residency: Residency,
    /// What their payloads must be like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaRule>,
}

/// The sites at which events may be: those that every list fits that is not empty.
///
/// Binds the ways, too: an event passes no site at which it may not be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Residency {
    /// Regions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<Selector>,
    /// Clouds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clouds: Vec<Selector>,
    /// Sites by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<Selector>,
}

/// A name, or with a `*` at its end all that begin with what stands before: `eu-*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Arc<str>);

impl TopicRule {
    /// The rule that holds when this one is asked for: where it says no version of its subject, the newest there is. So
    /// that a version which is registered later judges nothing before somebody lets it.
    ///
    /// # Errors
    /// `subject-not-found`, where the subject has no version.
    pub fn settled(self, schemas: &Schemas) -> Result<Self, CatalogError> {
        let rule = self.settled_by(|subject| Some(schemas.latest(subject.as_str())?.version));
        match rule.schema.as_ref().filter(|schema| schema.version.is_none()).and_then(|schema| schema.subject.clone()) {
            Some(subject) => Err(SchemaRefusal::SubjectNotFound(subject).into()),
            None => Ok(rule),
        }
    }

    /// The same by whoever knows the newest versions of subjects; a rule of which that is not known stays without one.
    #[must_use]
    pub fn settled_by(mut self, newest: impl Fn(&SubjectName) -> Option<u32>) -> Self {
        self.schema = self.schema.map(|schema| schema.settled_by(newest));
        self
    }

    /// The subject whose newest version judges from the moment on that it is registered, if it is so.
    pub fn follows(&self) -> Option<&SubjectName> {
        let schema = self.schema.as_ref().filter(|schema| schema.by.is_none())?;
        schema.subject.as_ref().filter(|_| schema.version == Some(SchemaVersion::Latest))
    }

    /// Whether it judges payloads, and by another schema or of other topics than the rule that was there before.
    pub fn judges_otherwise_than(&self, before: Option<&Self>) -> bool {
        let same = |before: &Self| before.schema == self.schema && before.pattern == self.pattern;
        self.schema.is_some() && !before.is_some_and(same)
    }

    /// Checks what a rule that holds must say, and one that is asked for need not.
    pub(crate) fn check_settled(&self) -> Result<(), CatalogError> {
        match &self.schema {
            Some(schema) if schema.version.is_none() => Err(CatalogError::InvalidTopicRule {
                rule: self.name.to_string(),
                field: "schema.version",
                why: "it says none, and so nothing that holds: give a number, or `latest`".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Checks what the parts do not say about themselves.
    ///
    /// # Errors
    /// `invalid-topic-rule`.
    pub fn validate(&self) -> Result<(), CatalogError> {
        let refuse =
            |field, why: String| Err(CatalogError::InvalidTopicRule { rule: self.name.to_string(), field, why });
        if is_reserved(self.pattern.as_str()) {
            return refuse("pattern", "topics that begin with `$` are the router's own and know no rules".to_owned());
        }
        let Residency { regions, clouds, sites } = &self.residency;
        let lists = [("regions", regions), ("clouds", clouds), ("sites", sites)];
        if let Some((field, why)) = self.schema.as_ref().and_then(SchemaRule::fault) {
            return refuse(field, why.to_owned());
        }
        if self.residency.is_anywhere() && self.schema.is_none() {
            return refuse("residency", "it allows every site: name regions, clouds or sites, or a schema".to_owned());
        }
        match lists.into_iter().find(|(_, list)| list.len() > SELECTORS_MAX) {
            Some((field, list)) => refuse(
                field,
                format!("{} of them, {SELECTORS_MAX} are the most: use `*` at the end of one", list.len()),
            ),
            None => Ok(()),
        }
    }
}

impl Residency {
    /// Whether it names nothing, and so allows every site.
    pub fn is_anywhere(&self) -> bool {
        self.regions.is_empty() && self.clouds.is_empty() && self.sites.is_empty()
    }

    /// Whether events may be at a site: its name, its region and its cloud. A site of which nobody has said where it is
    /// has an empty region, which no selector fits but `*`.
    pub fn allows(&self, site: &str, region: &str, cloud: &str) -> bool {
        [(&self.sites, site), (&self.regions, region), (&self.clouds, cloud)]
            .into_iter()
            .all(|(list, name)| list.is_empty() || list.iter().any(|selector| selector.fits(name)))
    }
}

impl Selector {
    /// Whether it means this name.
    pub fn fits(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => *self.0 == *name,
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Selector {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        match text.strip_suffix('*') {
            Some("") => {}
            Some(beginning) => drop(beginning.parse::<Name>()?),
            None => drop(text.parse::<Name>()?),
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({})", self.0)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
