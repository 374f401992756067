//! The head of an event, as policies see it: of one that is there, and of one that somebody asks about.

use myelin_policy::EventHead;
use myelin_wire::{Attrs, attrs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The head of an event; what it lacks is empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyEvent {
    /// Its identifier.
    pub id: String,
    /// Where it comes from.
    pub source: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its key.
    pub key: String,
    /// The type of its payload.
    pub content_type: String,
    /// The schema that it names.
    pub schema: String,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
}

impl PolicyEvent {
    /// As policies see it.
    pub fn head(&self) -> EventHead<'_> {
        let Self { id, source, kind, key, content_type, schema, headers } = self;
        let headers = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        EventHead { id, source, kind, key, content_type, schema, headers }
    }
}

/// The head of an event, as policies see it.
pub fn head<'a>(attrs: &Attrs<'a>) -> EventHead<'a> {
    let mut head = EventHead::default();
    for attr in attrs.iter() {
        let text = attr.text().unwrap_or_default();
        match attr.tag {
            attrs::HEADER => head.headers.push((attr.name, text)),
            attrs::ID => head.id = text,
            attrs::SOURCE => head.source = text,
            attrs::TYPE => head.kind = text,
            attrs::KEY => head.key = text,
            attrs::CONTENT_TYPE => head.content_type = text,
            attrs::SCHEMA => head.schema = text,
            _ => {}
        }
    }
    head
}
