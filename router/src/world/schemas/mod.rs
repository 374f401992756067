//! The schema registry: what is asked for, judged beside the keeper's thread, and written down by way of it.
//!
//! A schema is parsed and compared where it is asked for, against this router's copy of the registry; its record is
//! drafted for exactly that revision. Where another change came first all is done again, so that of two who register
//! the same schema at two routers at the same time one finds it there.

mod judge;
#[cfg(test)]
mod tests;

pub(super) use judge::confirm;
pub use judge::{Asked, Candidate};

use super::answer::aside;
use super::{Actor, Blame, Change, Look, World, WorldError, unix_ms};
use judge::{Judged, refuse};
use myelin_catalog::{
    Catalog, CatalogError, GovernanceChange, Op, Registration, RegistryMode, Schema, SchemaRule, SchemaVersion,
    Schemas, StagedBinding, SubjectName, TopicRule, schemas,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How often a schema is judged anew when other changes come first: each time one of them was made.
const ATTEMPTS: u32 = 16;
/// The most that is waited between two of these, once for each before; routers that got into each other's way once do not
/// do so for ever.
const PAUSE_STEP_MS: u64 = 10;
/// Schemas that are parsed or compared at once; others wait. Each may take a core for as long as the limits of schemas
/// let it, and routing needs its cores.
pub(super) const JUDGED_MAX: usize = 2;

/// Versions that are told to whoever names one that is not there: the newest, which are mostly meant.
const VERSIONS_TOLD_MAX: usize = 10;

/// What a schema is in a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub id: u32,
    /// Its version.
    pub version: u32,
}

/// What two must do where one wants a topic rule to judge otherwise than before, at once: `why` says how it came to that.
pub fn not_alone(rule: &str, why: &str) -> WorldError {
    let message = format!(
        "topic rule `{rule}` {why} would judge payloads otherwise than before at all sites at once, and with `[admin] \
         two_person` nobody lets it do so alone: let a rollout bring the version, which somebody else approves (`myelin \
         rollout start --only-changes --schema {rule}[=VERSION]`, or `--topics FILE`)"
    );
    refuse(Blame::Request, "two-person", message)
}

/// Whether a version may come or go without two persons: none that a rule follows.
///
/// # Errors
/// `two-person`.
pub(super) fn not_alone_by(catalog: &Catalog, subject: &SubjectName, version: u32) -> Result<(), WorldError> {
    let newest = catalog.schemas().latest(subject.as_str()).map(|newest| newest.version);
    if catalog.fleet().sites().next().is_none() || newest.is_some_and(|newest| version < newest) {
        return Ok(());
    }
    let Some(rule) = catalog.topic_rules().find(|rule| rule.follows() == Some(subject)) else { return Ok(()) };
    let why = format!("follows the newest version of subject `{subject}`, and with another one it");
    Err(not_alone(rule.name.as_str(), &why))
}

/// Whether a version, or without one all of a subject, may go for good without two persons: none that the filter of an active
/// binding sees as its subject's newest, and so would see the one before.
///
/// # Errors
/// `two-person`.
pub(super) fn not_alone_without(
    catalog: &Catalog,
    subject: &SubjectName,
    version: Option<u32>,
) -> Result<(), WorldError> {
    let Some(there) = catalog.schemas().subject(subject.as_str()) else { return Ok(()) };
    let asks = |staged: &StagedBinding| {
        let module = catalog.module(&staged.binding.module);
        // One that was uploaded by a router that did not look may ask for anything.
        let known = module.and_then(|module| module.capabilities.as_ref());
        known.is_none_or(|known| known.iter().any(|function| function == "schema"))
    };
    let sees = |staged: &StagedBinding| {
        let seen = there.latest_at(staged.since);
        seen.is_some_and(|seen| version.is_none_or(|version| seen.version == version))
    };
    let sites = catalog.fleet().sites().map(|site| catalog.active_for(&site.name));
    let mut active = sites.chain([catalog.active()]).flat_map(|generation| generation.bindings.iter());
    let Some(staged) = active.find(|staged| sees(staged) && asks(staged)) else { return Ok(()) };
    let message = format!(
        "the filter of binding `{}` may ask for subject `{subject}` without a version, gets one that is to go, and would get \
         another one then, which with `[admin] two_person` nobody brings about alone: change the binding first (another \
         module or configuration), and roll that out",
        staged.binding.name
    );
    Err(refuse(Blame::Request, "two-person", message))
}

/// A version that somebody wants there.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its schema.
    pub candidate: Candidate,
    /// The id and the version that it has elsewhere, for a subject in mode `IMPORT`.
    pub place: Option<(u32, Option<u32>)>,
    /// Whether it comes although a rule that follows the subject's newest version would turn back recorded events.
    pub accept_failures: bool,
    /// Whether nobody changes alone what payloads are judged by.
    pub by_two: bool,
    /// Whether who wants it may see payloads.
    pub sees_payloads: bool,
    /// The only revision of the catalog at which it is wanted, where one was said.
    pub if_match: Option<u64>,
}

/// Keeps the judging of schemas within [`JUDGED_MAX`].
#[derive(Clone, Debug)]
pub(super) struct Desk(Arc<Semaphore>);

impl Default for Desk {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(JUDGED_MAX)))
    }
}

impl Desk {
    /// Does the work aside from the runtime's threads, when it is its turn.
    pub(super) async fn judge<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, WorldError> + Send + 'static,
    ) -> Result<T, WorldError> {
        let place = self.0.clone().acquire_owned().await.map_err(|_| WorldError::stopped())?;
        aside(move || {
            let _place = place;
            work()
        })
        .await
    }
}

impl World {
    /// The registry as this router has it.
    pub fn schemas(&self) -> Schemas {
        self.view.load().catalog.schemas().clone()
    }

    /// Makes a schema the next version of a subject; where it is there, nothing changes. Gives the catalog's revision with it,
    /// too.
    ///
    /// # Errors
    /// `invalid-schema`, `incompatible-schema`, `registry-mode`, `two-person`, `recorded-events`, `catalog-full`,
    /// `writer-unreachable`.
    pub async fn register_schema(
        &self,
        subject: SubjectName,
        wanted: Wish,
        actor: Actor,
    ) -> Result<(Registered, u64), WorldError> {
        let Wish { candidate, place, accept_failures, by_two, sees_payloads, if_match } = wanted;
        let (candidate, mut is_judged) = (Arc::new(candidate), accept_failures);
        for attempt in 1..=ATTEMPTS {
            let catalog = self.view().catalog.clone();
            let (head, wanted) = (catalog.head().rev, (subject.clone(), candidate.clone()));
            let wanted = self.desk.judge(move || judge::register(catalog.schemas(), &wanted.0, &wanted.1, place));
            let registration = match wanted.await? {
                schemas::Wanted::Known { id, version } => return Ok((Registered { id, version }, head)),
                schemas::Wanted::New(registration) => registration,
            };
            if by_two {
                self.check_by_two(&registration.subject, registration.version)?;
            }
            let (id, version) = (registration.id, registration.version);
            let op = Op::SchemaRegistered { registration: registration.clone() };
            if !is_judged {
                // Once, however often others come first; and of what is refused anyway nothing is to be seen.
                if if_match.is_some() {
                    self.check_first(&op, if_match, &actor).await?;
                }
                let look = Look { actor: actor.clone(), sees_payloads, subject: registration.subject.to_string() };
                self.check_followed(&look, &registration).await?;
                is_judged = true;
            }
            match self.change(Change::Record(Box::new(op)), if_match.or(Some(head)), actor.clone()).await {
                Ok(revision) => return Ok((Registered { id, version }, revision)),
                Err(error) if if_match.is_none() && is_overtaken(&error) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..=PAUSE_STEP_MS * u64::from(attempt)))).await;
            self.catch_up().await?;
        }
        let message = format!("other changes came first {ATTEMPTS} times; try again");
        Err(WorldError::new(Blame::Conflict, "catalog-moved", message))
    }

    /// Whether what this router has recorded may come in by a version that rules follow as soon as it is there.
    ///
    /// # Errors
    /// `recorded-events`.
    async fn check_followed(&self, look: &Look, registration: &Registration) -> Result<(), WorldError> {
        let view = self.view();
        let is_followed = |rule: &&TopicRule| rule.follows() == Some(&registration.subject);
        let followers: Vec<TopicRule> = view.catalog.topic_rules().filter(is_followed).cloned().collect();
        match followers.is_empty() {
            true => Ok(()),
            false => self.check_recorded(look, followers, view.catalog.schemas().with(registration)).await,
        }
    }

    /// Whether no rule follows the newest version of a subject, where that version is to come, or to go: that would change
    /// at all sites at once what payloads are judged by, as a rule does which one person may not set alone.
    ///
    /// # Errors
    /// `two-person`.
    pub fn check_by_two(&self, subject: &SubjectName, version: u32) -> Result<(), WorldError> {
        not_alone_by(&self.view().catalog, subject, version)
    }

    /// Whether no active filter would see another version of a subject than before, where one or all are to go for good.
    ///
    /// # Errors
    /// `two-person`.
    pub fn check_by_two_for_good(&self, subject: &SubjectName, version: Option<u32>) -> Result<(), WorldError> {
        not_alone_without(&self.view().catalog, subject, version)
    }

    /// Whether no rule would judge by nothing, and so let nothing in, without that version of a subject, or without the
    /// subject; nor, where it goes for good, turn back events that name it. A guard for whoever deletes: a rule that comes
    /// at the same moment is not seen, nor one that lets events name schemas of all subjects.
    ///
    /// # Errors
    /// `schema-in-use`.
    pub fn check_unused(&self, subject: &SubjectName, version: Option<u32>, permanent: bool) -> Result<(), WorldError> {
        let view = self.view();
        let there = view.catalog.schemas().subject(subject.as_str());
        let is_last = |version: u32| there.is_some_and(|there| there.versions().all(|left| left.version == version));
        let needs = |schema: &SchemaRule| match schema.version {
            _ if schema.subject.as_ref() != Some(subject) => false,
            _ if schema.by.is_some() => permanent,
            Some(SchemaVersion::Number(number)) => version.is_none_or(|version| version == number),
            Some(SchemaVersion::Latest) => version.is_none_or(is_last),
            None => false,
        };
        let needing = |rule: &&TopicRule| rule.schema.as_ref().is_some_and(needs);
        let waiting = || view.catalog.approvals(unix_ms()).flat_map(|approval| approval.intent.changes());
        let brought = || waiting().filter_map(GovernanceChange::rule);
        let Some(rule) = view.catalog.topic_rules().chain(brought()).find(needing) else { return Ok(()) };
        let what = version.map_or("subject".to_owned(), |version| format!("version {version} of subject"));
        let is_named = rule.schema.as_ref().is_some_and(|schema| schema.by.is_some());
        let message = match is_named {
            true => format!(
                "topic rule `{}` lets events name {what} `{subject}` and would turn them back without it; let them name \
                 another subject's first, or remove the rule",
                rule.name
            ),
            false => format!(
                "topic rule `{}` judges by {what} `{subject}`, or is to by a proposal that waits, and would let nothing in \
                 without it; let it judge by another one first, remove it, or withdraw the proposal",
                rule.name
            ),
        };
        Err(refuse(Blame::Conflict, "schema-in-use", message))
    }

    /// The rule that holds when this one is asked for: see [`TopicRule::settled`]. It judges by a version that is there:
    /// without one it would let nothing in, and whoever has mistyped a name would find out by that.
    ///
    /// # Errors
    /// `subject-not-found`, `version-not-found`, `writer-unreachable`.
    pub async fn settle(&self, rule: TopicRule) -> Result<TopicRule, WorldError> {
        let is_unsure =
            |schema: &SchemaRule| schema.version.is_none() || check_pinned(schema, &self.schemas()).is_err();
        if rule.schema.as_ref().is_some_and(is_unsure) {
            // What was registered through another router counts.
            self.catch_up().await?;
        }
        let schemas = self.schemas();
        let rule = rule.settled(&schemas)?;
        rule.schema.as_ref().map_or(Ok(()), |schema| check_pinned(schema, &schemas))?;
        Ok(rule)
    }

    /// The same for the rules that a rollout brings.
    ///
    /// # Errors
    /// As of [`Self::settle`].
    pub async fn settle_all(&self, changes: &mut [GovernanceChange]) -> Result<(), WorldError> {
        for change in changes {
            if let GovernanceChange::TopicRuleSet { rule } = change {
                **rule = self.settle((**rule).clone()).await?;
            }
        }
        Ok(())
    }

    /// What a schema is in a subject, if it is there.
    ///
    /// # Errors
    /// `subject-not-found`, `schema-not-found`, `invalid-schema`.
    pub async fn find_schema(
        &self,
        subject: SubjectName,
        candidate: Candidate,
        deleted: bool,
    ) -> Result<Registered, WorldError> {
        let schemas = self.schemas();
        let there = schemas.find_subject(&subject).map_err(CatalogError::from)?.clone();
        if !deleted && !there.is_live() {
            return Err(CatalogError::from(schemas::SchemaRefusal::SubjectNotFound(subject)).into());
        }
        let digest = self.desk.judge(move || Ok(Judged::new(&schemas, &subject, &candidate)?.digest)).await?;
        let found = self.schemas().find(&digest).and_then(|schema| there.find_schema(schema.id, deleted).cloned());
        found.map(|found| Registered { id: found.schema.id, version: found.version }).ok_or_else(|| {
            let message = format!("subject `{}` has no version with this schema; register it first", there.name());
            WorldError::new(Blame::NotFound, "schema-not-found", message)
        })
    }

    /// What a schema breaks: of version `version` of a subject, or of those that its level of compatibility names.
    /// Empty = compatible.
    ///
    /// # Errors
    /// `version-not-found`, `invalid-schema`.
    pub async fn compare_schema(
        &self,
        subject: SubjectName,
        version: Asked,
        candidate: Candidate,
    ) -> Result<Vec<String>, WorldError> {
        let schemas = self.schemas();
        self.desk.judge(move || judge::compare(&schemas, &subject, version, &candidate)).await
    }

    /// The text of a schema, in the form that is asked for: its own, or, of Protobuf, `serialized`.
    ///
    /// # Errors
    /// `invalid-format` where there is no such form.
    pub async fn schema_text(&self, schema: &Arc<Schema>, form: Option<&str>) -> Result<String, WorldError> {
        match form {
            None | Some("" | "default") => Ok(schema.text.to_string()),
            Some("serialized") => {
                let schema = schema.clone();
                self.desk.judge(move || judge::serialized(&schema)).await
            }
            Some(form) => {
                let message = format!("schemas in {} are not shown as `{form}`; leave `format` out", schema.format);
                Err(refuse(Blame::Request, "invalid-format", message))
            }
        }
    }

    /// Makes another change of the registry, and waits until it is here. Gives the catalog's revision with it.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub async fn change_registry(&self, op: Op, if_match: Option<u64>, actor: Actor) -> Result<u64, WorldError> {
        for _ in 1..ATTEMPTS {
            match self.change(Change::Record(Box::new(op.clone())), if_match, actor.clone()).await {
                Err(error) if if_match.is_none() && is_overtaken(&error) => {}
                done => return done,
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..=PAUSE_STEP_MS))).await;
        }
        self.change(Change::Record(Box::new(op)), if_match, actor).await
    }

    /// Whether a subject, or the registry without one, may begin to take schemas over: where there are none.
    ///
    /// # Errors
    /// `registry-mode`.
    pub fn check_import(&self, subject: Option<&SubjectName>) -> Result<(), WorldError> {
        let schemas = self.schemas();
        let has_schemas = match subject {
            Some(subject) => schemas.subject(subject.as_str()).is_some_and(|subject| subject.is_live()),
            None => schemas.subjects().any(|subject| subject.is_live()),
        };
        if !has_schemas {
            return Ok(());
        }
        let message = format!(
            "{} has schemas: mode {} is for what is empty; ask with `--force` (`?force=true`) if both shall be there",
            subject.map_or("the registry".to_owned(), |subject| format!("subject `{subject}`")),
            RegistryMode::Import
        );
        Err(refuse(Blame::Request, "registry-mode", message))
    }
}

/// Whether the version by which a rule judges is there.
///
/// # Errors
/// `subject-not-found`, `version-not-found`.
fn check_pinned(schema: &SchemaRule, schemas: &Schemas) -> Result<(), WorldError> {
    let (Some(subject), None, Some(version)) = (&schema.subject, schema.by, schema.version) else { return Ok(()) };
    let there: Vec<u32> = schemas
        .subject(subject.as_str())
        .iter()
        .flat_map(|there| there.versions())
        .map(|found| found.version)
        .collect();
    if there.is_empty() {
        return Err(CatalogError::from(schemas::SchemaRefusal::SubjectNotFound(subject.clone())).into());
    }
    match version {
        SchemaVersion::Number(number) if !there.contains(&number) => {
            let left_out = there.len().saturating_sub(VERSIONS_TOLD_MAX);
            let shown: Vec<_> = there.iter().skip(left_out).map(ToString::to_string).collect();
            let before = if left_out == 0 { String::new() } else { format!("{left_out} older ones, ") };
            let message = format!(
                "subject `{subject}` has no version {number}: it has {before}{}; name one of these, or register that first",
                shown.join(", ")
            );
            Err(refuse(Blame::NotFound, "version-not-found", message))
        }
        _ => Ok(()),
    }
}

/// Whether a change was not made because another came first.
fn is_overtaken(error: &WorldError) -> bool {
    error.blame == Blame::Conflict && (error.code == "conflict" || error.code == super::shared::MOVED)
}
