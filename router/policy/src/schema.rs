//! The types that policies are checked against.

use crate::who::Action;
use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema, Validator};
use std::str::FromStr;
use std::sync::OnceLock;

/// The schema, as it is read and printed.
pub const SCHEMA: &str = include_str!("schema.cedarschema");

/// The schema read, and the names that every question needs. Made when the first policy is.
pub(crate) struct Types {
    pub(crate) validator: Validator,
    service: EntityTypeName,
    topic: EntityTypeName,
    actions: [EntityUid; Action::ALL.len()],
}

impl Types {
    /// Why there are none is a defect of this crate, told like a fault of a policy: a test reads the schema.
    pub(crate) fn load() -> Result<&'static Self, &'static str> {
        static TYPES: OnceLock<Result<Types, String>> = OnceLock::new();
        TYPES.get_or_init(Self::read).as_ref().map_err(String::as_str)
    }

    fn read() -> Result<Self, String> {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| error.to_string())?;
        let named = |name| EntityTypeName::from_str(name).map_err(|error| error.to_string());
        let (service, topic, action) = (named("Service")?, named("Topic")?, named("Action")?);
        let actions =
            Action::ALL.map(|known| EntityUid::from_type_name_and_id(action.clone(), EntityId::new(known.name())));
        Ok(Self { validator: Validator::new(schema), service, topic, actions })
    }

    pub(crate) fn service(&self, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.service.clone(), EntityId::new(id))
    }

    pub(crate) fn topic(&self, name: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.topic.clone(), EntityId::new(name))
    }

    pub(crate) fn action(&self, action: Action) -> EntityUid {
        self.actions[action as usize].clone()
    }
}
