//! The types that policies are checked against.

use crate::who::Action;
use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema, Validator};
use std::str::FromStr;
use std::sync::OnceLock;

/// The schema of policies for clients, as it is read and printed.
pub const SCHEMA: &str = include_str!("schema.cedarschema");
/// The schema of policies for the admin API.
pub const ADMIN_SCHEMA: &str = include_str!("admin.cedarschema");
/// The one action of the admin API.
pub(crate) const ADMIN: &str = "admin";

/// The kinds of entities, in the order of their names in [`Types`].
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Service,
    Topic,
    Event,
    Caller,
    Module,
    Binding,
    Rule,
    Subject,
    Tenant,
    Rollout,
    Capture,
    Site,
}

const KINDS: [&str; 12] = [
    "Service", "Topic", "Event", "Caller", "Module", "Binding", "Rule", "Subject", "Tenant", "Rollout", "Capture",
    "Site",
];

/// The schemas read, and the names that every question needs. Made when the first policy is.
pub(crate) struct Types {
    pub(crate) clients: Validator,
    pub(crate) admin: Validator,
    kinds: [EntityTypeName; KINDS.len()],
    actions: [EntityUid; Action::ALL.len()],
    admin_action: EntityUid,
}

impl Types {
    /// Why there are none is a defect of this crate, told like a fault of a policy: a test reads the schemas.
    pub(crate) fn load() -> Result<&'static Self, &'static str> {
        static TYPES: OnceLock<Result<Types, String>> = OnceLock::new();
        TYPES.get_or_init(Self::read).as_ref().map_err(String::as_str)
    }

    fn read() -> Result<Self, String> {
        let read = |text| Schema::from_cedarschema_str(text).map_err(|error| error.to_string());
        let ((clients, _), (admin, _)) = (read(SCHEMA)?, read(ADMIN_SCHEMA)?);
        let named = |name| EntityTypeName::from_str(name).map_err(|error| error.to_string());
        let kinds = KINDS.map(named).into_iter().collect::<Result<Vec<_>, _>>()?;
        let kinds = kinds.try_into().map_err(|_| "as many kinds as names".to_owned())?;
        let action = named("Action")?;
        let uid = |name| EntityUid::from_type_name_and_id(action.clone(), EntityId::new(name));
        Ok(Self {
            clients: Validator::new(clients),
            admin: Validator::new(admin),
            kinds,
            actions: Action::ALL.map(|known| uid(known.name())),
            admin_action: uid(ADMIN),
        })
    }

    pub(crate) fn entity(&self, kind: Kind, name: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.kinds[kind as usize].clone(), EntityId::new(name))
    }

    pub(crate) fn action(&self, action: Action) -> EntityUid {
        self.actions[action as usize].clone()
    }

    pub(crate) fn admin_action(&self) -> EntityUid {
        self.admin_action.clone()
    }
}
