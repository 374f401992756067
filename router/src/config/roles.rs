//! `[admin] roles`: what whoever may use the admin API may do there.

use myelin_transport::{Identity, IdentityKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What somebody may do with the admin API. docs/IDENTITY.md has the table of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
// Text, as every name in the file is.
#[serde(try_from = "String", into = "String")]
pub enum Role {
    /// Reads everything but payloads, the lines that filters write, and the audit log.
    Viewer,
    /// Also uploads modules, stages bindings, registers schemas and captures events.
    Developer,
    /// Also starts, pauses, promotes, aborts and takes back rollouts, and lifts quarantines.
    Releaser,
    /// Also changes who belongs to the mesh, and captures events.
    Operator,
    /// Also changes policies and the registry's general rules, and reads the audit log.
    Security,
    /// Reads payloads and nothing else: to be had beside another role.
    Payloads,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] =
        [Self::Viewer, Self::Developer, Self::Releaser, Self::Operator, Self::Security, Self::Payloads, Self::Admin];

    /// As the configuration spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Releaser => "releaser",
            Self::Operator => "operator",
            Self::Security => "security",
            Self::Payloads => "payloads",
            Self::Admin => "admin",
        }
    }
}

impl TryFrom<String> for Role {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|role| role.name() == text);
        known.ok_or_else(|| format!("the roles are {}", Roles::of(&Self::ALL)))
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.name().to_owned()
    }
}

/// Several roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// These roles.
    pub const fn of(roles: &[Role]) -> Self {
        let (mut bits, mut next) = (0, 0);
        while next < roles.len() {
            bits |= 1 << roles[next] as u8;
            next += 1;
        }
        Self(bits)
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether one of them is among `others`.
    pub const fn meets(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.meets(Self::of(&[*role])))
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Role::name).collect()
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::default(), |all, role| all.and(Self::of(&[role])))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&self.names().join(", "))
    }
}

/// Who has a role: one identity, or with `/*` at the end everybody whose name is in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Holder(String);

impl Holder {
    /// One of those who are meant.
    pub(super) fn example(&self) -> Option<Identity> {
        let text = self.0.strip_suffix('*').map_or_else(|| self.0.clone(), |start| format!("{start}x"));
        Identity::parse(&text).ok()
    }

    fn is(&self, identity: &Identity) -> bool {
        match self.0.strip_suffix('*') {
            // Whole parts only: `.../service/*` is no `.../service-desk/x`.
            Some(start) => identity.as_str().strip_prefix(start).is_some_and(|name| !name.contains('/')),
            None => self.0 == identity.as_str(),
        }
    }
}

/// Whether some of these show who they are by a certificate: names of tokens are never in one.
pub fn know_certificates(identities: &[Identity], roles: &RoleMap) -> bool {
    let by_certificate = |identity: &Identity| !matches!(identity.kind(), IdentityKind::Bearer { .. });
    identities.iter().any(by_certificate) || roles.holders().filter_map(Holder::example).any(|one| by_certificate(&one))
}

impl TryFrom<String> for Holder {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let whole = match text.strip_suffix("/*") {
            Some(start) => format!("{start}/x"),
            None => text.clone(),
        };
        match Identity::parse(&whole) {
            Ok(_) => Ok(Self(text)),
            Err(error) => Err(format!(
                "{error}; give an identity, or all services of a trust domain as spiffe://DOMAIN/service/*"
            )),
        }
    }
}

impl From<Holder> for String {
    fn from(holder: Holder) -> Self {
        holder.0
    }
}

/// Who has which roles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoleMap(pub BTreeMap<Role, Vec<Holder>>);

impl RoleMap {
    /// The roles of `identity`.
    pub fn of(&self, identity: &Identity) -> Roles {
        let held = self.0.iter().filter(|(_, holders)| holders.iter().any(|holder| holder.is(identity)));
        held.map(|(role, _)| *role).collect()
    }

    /// Everybody who has one.
    pub fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.0.values().flatten()
    }

    /// Whether nobody has any.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn map(text: &str) -> Result<RoleMap, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_holder_has_all_roles_that_name_it() {
        let map =
            map("viewer = ['spiffe://a/service/*']\nreleaser = ['spiffe://a/service/ann', 'spiffe://b/service/ann']\n\
             payloads = ['spiffe://a/site/x/router/*']")
            .unwrap();
        for (identity, roles) in [
            ("spiffe://a/service/ann", "viewer, releaser"),
            ("spiffe://a/service/bob", "viewer"),
            ("spiffe://b/service/ann", "releaser"),
            ("spiffe://b/service/bob", "none"),
            ("spiffe://a.b/service/ann", "none"),
            ("spiffe://a/site/x/router/r1", "payloads"),
            ("spiffe://a/site/y/router/r1", "none"),
        ] {
            assert_eq!(map.of(&Identity::parse(identity).unwrap()).to_string(), roles, "{identity}");
        }
    }

    #[test]
    fn who_is_nobody_is_refused_and_so_are_unknown_roles() {
        for text in ["*", "spiffe://*", "spiffe://a/*", "spiffe://a/service*", "spiffe://a/service/x/*", "ann"] {
            let told = map(&format!("viewer = ['{text}']")).unwrap_err().to_string();
            assert!(told.contains("spiffe://DOMAIN/service/*"), "{text}: {told}");
        }
        let told = map("root = []").unwrap_err().to_string();
        assert!(told.contains("viewer, developer, releaser, operator, security, payloads, admin"), "{told}");
    }

    #[test]
    fn sets_of_roles_are_sets() {
        let all = Roles::of(&Role::ALL);
        assert_eq!(all.iter().collect::<Vec<_>>(), Role::ALL);
        for role in Role::ALL {
            let one = Roles::of(&[role]);
            assert!(one.meets(all) && !one.is_empty() && !Roles::default().meets(one));
            assert_eq!(Role::try_from(role.name().to_owned()), Ok(role));
        }
    }
}
