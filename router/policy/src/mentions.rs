//! Which attributes and headers statements mention: a question is made of these alone.
//!
//! Cedar has no way to an attribute or a tag but by its name, and compares entities by theirs; so what no statement
//! mentions decides nothing. A decision for each event is made of little then, however much its head says.

use serde_json::Value;

/// What statements mention.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mentions {
    /// Attributes, of whatever entity.
    pub(crate) attributes: Names,
    pub(crate) headers: Names,
}

/// Names that are mentioned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// These, each once.
    These(Vec<Box<str>>),
    /// Any: a name is told by the event itself.
    Any,
}

impl Default for Names {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl Mentions {
    /// What a statement mentions, from its form in JSON.
    pub(crate) fn of(statement: &Value) -> Self {
        let mut found = Self::default();
        let mut left: Vec<&Value> = statement["conditions"].as_array().into_iter().flatten().collect();
        while let Some(value) = left.pop() {
            match value {
                Value::Object(fields) => {
                    fields.iter().for_each(|(operator, sides)| found.note(operator, sides));
                    left.extend(fields.values());
                }
                Value::Array(values) => left.extend(values),
                _ => {}
            }
        }
        found
    }

    fn note(&mut self, operator: &str, sides: &Value) {
        match operator {
            // `has` may name a path: `context has event.source`.
            "." | "has" => match &sides["attr"] {
                Value::Array(path) => path.iter().for_each(|name| self.attributes.put(name.as_str())),
                name => self.attributes.put(name.as_str()),
            },
            "hasTag" | "getTag" => self.headers.put(sides["right"]["Value"].as_str()),
            _ => {}
        }
    }

    /// Takes in what others mention.
    pub(crate) fn extend(&mut self, others: &Self) {
        self.attributes.extend(&others.attributes);
        self.headers.extend(&others.headers);
    }
}

impl Names {
    /// Whether that one is mentioned.
    pub(crate) fn contain(&self, name: &str) -> bool {
        match self {
            Self::These(names) => names.iter().any(|mentioned| **mentioned == *name),
            Self::Any => true,
        }
    }

    /// Takes in a name; one that cannot be told is any.
    fn put(&mut self, name: Option<&str>) {
        match (name, &mut *self) {
            (Some(name), Self::These(names)) => {
                if names.iter().all(|known| **known != *name) {
                    names.push(name.into());
                }
            }
            _ => *self = Self::Any,
        }
    }

    fn extend(&mut self, others: &Self) {
        match others {
            Self::These(names) => names.iter().for_each(|name| self.put(Some(name))),
            Self::Any => *self = Self::Any,
        }
    }
}
