//! Why a change is refused, and whose fault that is.

use myelin_catalog::CatalogError;
use myelin_catalog::rollout::{Outcome, Rollout};
use std::borrow::Cow;

/// Whose fault a refused change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The asker's: what was sent is wrong.
    Request,
    /// What the change names does not exist.
    NotFound,
    /// The change does not fit what is there now.
    Conflict,
    /// Nobody's: a bound of the catalog is reached.
    Full,
    /// The filter's: it does not compile, refuses its configuration, or fails its self-test.
    Filter,
    /// The router's.
    Router,
}

impl Blame {
    const ALL: [(Self, &str); 6] = [
        (Self::Request, "request"),
        (Self::NotFound, "not-found"),
        (Self::Conflict, "conflict"),
        (Self::Full, "full"),
        (Self::Filter, "filter"),
        (Self::Router, "router"),
    ];

    /// As it is spelled between routers.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(blame, _)| *blame == self).map_or("router", |(_, name)| name)
    }

    pub(super) fn named(name: &str) -> Self {
        Self::ALL.iter().find(|(_, known)| *known == name).map_or(Self::Router, |(blame, _)| *blame)
    }
}

/// Why a change was refused. Nothing of it is applied.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct WorldError {
    /// The stable code.
    pub code: Cow<'static, str>,
    /// Whose fault it is.
    pub blame: Blame,
    /// What, where and how to mend it.
    pub message: String,
}

impl WorldError {
    /// An error with these parts.
    pub fn new(blame: Blame, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), blame, message: message.into() }
    }

    /// The router is shutting down, or its keeper has failed.
    pub(super) fn stopped() -> Self {
        Self::new(Blame::Router, "stopping", "the router is shutting down; ask again when it is back")
    }
}

impl From<CatalogError> for WorldError {
    fn from(error: CatalogError) -> Self {
        let blame = match error.code() {
            "not-found" => Blame::NotFound,
            "subject-not-found"
            | "version-not-found"
            | "subject-deleted"
            | "version-deleted"
            | "compatibility-not-set"
            | "mode-not-set" => Blame::NotFound,
            "trust-stale" | "trust-signatures" | "capability-approval" | "downgrade" => Blame::Conflict,
            "conflict" | "rollout-running" | "schema-referenced" | "subject-not-deleted" | "version-not-deleted" => {
                Blame::Conflict
            }
            "catalog-full" => Blame::Full,
            // A router without the key that its log demands cannot write, whoever asks.
            "chain-broken" | "unsigned-record" | "unknown-key" | "revoked-key" | "bad-signature" => Blame::Router,
            _ => Blame::Request,
        };
        Self::new(blame, error.code(), error.to_string())
    }
}

/// Why a rollout that is over is not complete.
pub(super) fn failure(rollout: &Rollout) -> Option<WorldError> {
    let end = rollout.end.as_ref()?;
    match end.outcome {
        Outcome::Complete => return None,
        Outcome::Unbalanced => {
            let message = format!("rollout {}: {}; look at `myelin ledger --mesh`", rollout.id, end.reason);
            return Some(WorldError::new(Blame::Router, "ledger-unbalanced", message));
        }
        Outcome::RolledBack => {}
    }
    let abort = rollout.abort.as_ref();
    let code = abort.map_or("rolled-back", |abort| abort.cause.code());
    let why = abort.map_or(&end.reason, |abort| &abort.reason);
    let message = format!("rollout {} was rolled back at every site: {why}", rollout.id);
    Some(WorldError::new(if code == "nack" { Blame::Filter } else { Blame::Conflict }, code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blame_is_read_as_it_was_written() {
        for (blame, name) in Blame::ALL {
            assert_eq!((blame.name(), Blame::named(name)), (name, blame));
        }
        assert_eq!(Blame::named("of a newer router"), Blame::Router);
    }
}
