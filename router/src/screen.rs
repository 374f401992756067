//! Which schemas payloads are judged by where they come in: the catalog's rules for topics, compiled.
//!
//! The keeper of the catalog publishes a table whenever the rules or the registry change. It compiles each schema once, on
//! its own thread; workers only look up. A router without rules about schemas has an empty table and no schema in memory.
//!
//! Who cannot be judged does not pass: a subject without a version, an id that no registry gave, a schema that cannot be
//! compiled are all as bad as a payload that is not as it must be.

use crate::registry::judged_as;
use myelin_catalog::{Name, TopicRule};
use myelin_catalog::{
    OnInvalid, Schema, SchemaNaming, SchemaRule, SchemaVersion, Schemas, SubjectName, SubjectVersion,
};
use myelin_engine::EventView;
use myelin_schema::{ReferenceText, Source, Validator};
use myelin_wire::Pattern;
use naming::{Named, Place, unprefixed};
use slots::{Shelf, Slot};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

mod naming;
mod pace;
mod slots;
#[cfg(test)]
mod tests;

pub use pace::Pace;
pub use slots::Waiting;

/// What stands in the topics of dead letters for the binding, where no filter but a schema has ended the event.
pub const ADMISSION: &str = "admission";
/// The message of a Protobuf file that is meant where none is named.
const FIRST_MESSAGE: [u32; 1] = [0];

/// The rules about schemas at a moment.
#[derive(Debug, Default)]
pub struct Screens {
    /// Grows with every table.
    version: u64,
    screens: Vec<(Pattern, Arc<Screen>)>,
    /// All that the rules judge by themselves, by id.
    compiled: HashMap<u32, Compiled>,
    /// All that events may name, by id.
    slots: HashMap<u32, Arc<Slot>>,
    shelf: Arc<Shelf>,
}

/// A schema, or why there is none.
type Compiled = Result<Arc<Judge>, Arc<str>>;

/// A schema that judges.
#[derive(Debug)]
struct Judge {
    id: u32,
    validator: Validator,
}

/// One rule.
#[derive(Debug)]
pub struct Screen {
    rule: Name,
    on_invalid: OnInvalid,
    is_required: bool,
    by: By,
    counts: Arc<Counts>,
}

/// Where the schema comes from.
#[derive(Debug)]
enum By {
    /// The rule itself: that version of the subject.
    Rule { subject: SubjectName, version: u32, schema: Compiled },
    /// Each event names one of these.
    Event { naming: SchemaNaming, known: Known },
}

/// A version that is not there, or not yet.
#[derive(Debug)]
pub struct Next {
    /// Whose it is.
    pub subject: SubjectName,
    /// Its id and its number, where the subject has it.
    pub place: Option<(u32, u32)>,
    /// What judges by it.
    pub validator: Validator,
}

/// The schemas that events may name.
#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<u32, Arc<Slot>>,
    /// Of each subject its versions in order.
    by_name: HashMap<SubjectName, Vec<KnownVersion>>,
}

/// A version that events may name.
#[derive(Debug)]
struct KnownVersion {
    version: u32,
    schema: Arc<Slot>,
    /// Whether it is deleted, and kept for events that name it: it is no subject's newest.
    is_deleted: bool,
}

/// What a rule has done since the router's start.
#[derive(Debug, Default)]
pub struct Counts {
    passed: AtomicU64,
    refused: AtomicU64,
    dead_lettered: AtomicU64,
}

/// Why an event may not come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where in the payload; empty for the whole.
    pub path: String,
    /// What is wrong there.
    pub text: String,
    /// What judged it, where that is known: `subject:version`, or an id.
    pub schema: String,
}

impl Violation {
    fn whole(text: impl Into<String>) -> Box<Self> {
        Box::new(Self { path: String::new(), text: text.into(), schema: String::new() })
    }

    /// For the publisher: where and what first, because little room is left.
    pub fn detail(&self) -> String {
        match &*self.path {
            "" => self.text.clone(),
            path => format!("at {path}: {}", self.text),
        }
    }
}

impl Screens {
    /// The table that comes after `before`; what that has compiled is not compiled again.
    pub fn after<'a>(before: &Self, rules: impl Iterator<Item = &'a TopicRule>, schemas: &Schemas) -> Self {
        Self::after_with(before, None, rules, schemas)
    }

    /// The same, where a table was made of much the same `ahead` of time and never published: what that has compiled is
    /// not compiled again, either.
    pub fn after_with<'a>(
        before: &Self,
        ahead: Option<&Self>,
        rules: impl Iterator<Item = &'a TopicRule>,
        schemas: &Schemas,
    ) -> Self {
        let mut forge = Forge { before, ahead, schemas, compiled: HashMap::new(), slots: HashMap::new() };
        let screens =
            rules.filter_map(|rule| Some((rule.pattern.clone(), Arc::new(forge.screen(rule, rule.schema.as_ref()?)))));
        let screens = screens.collect();
        let Forge { compiled, slots, .. } = forge;
        Self { version: before.version + 1, screens, compiled, slots, shelf: before.shelf.clone() }
    }

    /// The rules as they would judge if `next` were the newest version of its subject, and the only schema there is.
    pub fn of_next<'a>(rules: impl Iterator<Item = &'a TopicRule>, next: Next) -> Self {
        let Next { subject, place, validator } = next;
        // Numbers begin with 1: nobody names what has none yet by it.
        let (id, version) = place.unwrap_or_default();
        let compiled: Compiled = Ok(Arc::new(Judge { id, validator }));
        let screen = |rule: &TopicRule| {
            let schema = rule.schema.as_ref()?;
            let by = match schema.by {
                None => By::Rule { subject: subject.clone(), version, schema: compiled.clone() },
                Some(naming) => {
                    let slot = Slot::full(id, compiled.clone());
                    let by_id = place.map(|(id, _)| (id, slot.clone())).into_iter().collect();
                    let newest = KnownVersion { version, schema: slot, is_deleted: false };
                    let by_name = HashMap::from([(subject.clone(), vec![newest])]);
                    By::Event { naming, known: Known { by_id, by_name } }
                }
            };
            Some((rule.pattern.clone(), Arc::new(Screen::new(rule, schema, by, Arc::default()))))
        };
        Self { version: 1, screens: rules.filter_map(screen).collect(), ..Self::default() }
    }

    /// Tells tables apart.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether there is nothing to judge.
    pub fn is_empty(&self) -> bool {
        self.screens.is_empty()
    }

    /// Whether events may name schemas, which are compiled when they do.
    pub fn lets_events_name(&self) -> bool {
        !self.slots.is_empty()
    }

    /// The rules of a topic, all of which hold. The router's own topics have none.
    pub fn of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Arc<Screen>> {
        let is_own = topic.starts_with('$');
        self.screens.iter().filter(move |(pattern, _)| !is_own && pattern.matches(topic)).map(|(_, screen)| screen)
    }

    /// Schemas that events named and that were compiled, could not be, gave way to others, and were waited for in vain.
    pub fn compilations(&self) -> [(&'static str, u64); 4] {
        self.shelf.counts()
    }

    /// All rules.
    pub fn all(&self) -> impl Iterator<Item = &Screen> {
        self.screens.iter().map(|(_, screen)| &**screen)
    }
}

impl Screen {
    fn new(rule: &TopicRule, schema: &SchemaRule, by: By, counts: Arc<Counts>) -> Self {
        let (rule, on_invalid, is_required) = (rule.name.clone(), schema.on_invalid, schema.required);
        Self { rule, on_invalid, is_required, by, counts }
    }

    /// The rule's name.
    pub fn rule(&self) -> &str {
        self.rule.as_str()
    }

    /// What becomes of events that may not come in.
    pub fn on_invalid(&self) -> OnInvalid {
        self.on_invalid
    }

    /// Whether an event without a payload, or one that names no schema, may not come in.
    pub fn is_required(&self) -> bool {
        self.is_required
    }

    /// Events that passed, were refused, and went to the dead letters, since the router's start.
    pub fn counts(&self) -> (u64, u64, u64) {
        let Counts { passed, refused, dead_lettered } = &*self.counts;
        (passed.load(Relaxed), refused.load(Relaxed), dead_lettered.load(Relaxed))
    }

    /// Counts events that passed.
    pub fn passed(&self, events: u64) {
        self.counts.passed.fetch_add(events, Relaxed);
    }

    /// Counts an event that did not.
    pub fn held_back(&self) {
        let count = match self.on_invalid {
            OnInvalid::Refuse => &self.counts.refused,
            OnInvalid::DeadLetter => &self.counts.dead_lettered,
        };
        count.fetch_add(1, Relaxed);
    }

    /// What it judges by now, for people.
    pub fn describe(&self) -> String {
        match &self.by {
            By::Rule { subject, version, schema: Ok(judge) } => format!("{subject}:{version} (id {})", judge.id),
            By::Rule { schema: Err(why), .. } => format!("no schema, and so none passes: {why}"),
            By::Event { known, .. } => format!("{} schemas that events may name", known.by_id.len()),
        }
    }

    /// Why it judges by no schema and lets nothing in, where that is so.
    pub fn fault(&self) -> Option<&str> {
        match &self.by {
            By::Rule { schema: Err(why), .. } => Some(why),
            _ => None,
        }
    }

    /// Whether the event may come in. A schema that it is the first to name is compiled here: not for workers.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, event: &EventView<'_>) -> Result<(), Box<Violation>> {
        self.judge_by(event, Slot::fill_here, &mut 0)
    }

    /// The same for workers, which have [waited](Self::wait_for_schema) for what the event names: what is not compiled
    /// then comes not in. `work_ns` grows by what it takes at most to find out.
    ///
    /// # Errors
    /// Why not.
    pub fn judge_waited(&self, event: &EventView<'_>, work_ns: &mut u64) -> Result<(), Box<Violation>> {
        self.judge_by(event, |slot| slot.late(), work_ns)
    }

    #[inline]
    fn judge_by(
        &self,
        event: &EventView<'_>,
        missing: impl FnOnce(&Arc<Slot>) -> Arc<Compiled>,
        work_ns: &mut u64,
    ) -> Result<(), Box<Violation>> {
        let (naming, known) = match &self.by {
            By::Rule { .. } if event.payload.is_empty() && !self.is_required => return Ok(()),
            By::Rule { subject, version, schema } => {
                let judged = judge_of(schema)?.validator.judge(&FIRST_MESSAGE, event.payload, work_ns);
                return judged.map_err(|fault| faulty(fault, format!("{subject}:{version}")));
            }
            By::Event { naming, known } => (*naming, known),
        };
        let Some(named) = Named::of(naming, event)? else { return self.without_name(naming) };
        let slot = known.get(named.place).ok_or_else(|| named.unknown())?;
        if let Some(compiled) = &*slot.load() {
            return judge_named(naming, &named, compiled, event.payload, work_ns);
        }
        judge_named(naming, &named, &missing(slot), event.payload, work_ns)
    }

    /// Has the schema that the event names compiled aside, where it is the first to name it, and waits for that.
    pub async fn wait_for_schema(&self, event: &EventView<'_>, waiting: &mut Waiting) {
        let By::Event { naming, known } = &self.by else { return };
        let Ok(Some(named)) = Named::of(*naming, event) else { return };
        if let Some(slot) = known.get(named.place).filter(|slot| slot.load().is_none()) {
            waiting.wait_for(slot).await;
        }
    }

    /// Whether the event names a schema that is none of those that this rule has: another one is to judge it, or none.
    pub fn names_another(&self, event: &EventView<'_>) -> bool {
        match &self.by {
            By::Rule { .. } => false,
            By::Event { naming, known } => match Named::of(*naming, event) {
                Ok(named) => named.is_some_and(|named| known.get(named.place).is_none()),
                Err(_) => true,
            },
        }
    }

    fn without_name(&self, naming: SchemaNaming) -> Result<(), Box<Violation>> {
        let text = match naming {
            _ if !self.is_required => return Ok(()),
            SchemaNaming::Confluent => "begins with no schema id: a zero byte and four bytes of it",
            _ => "names no schema in its head",
        };
        Err(Violation::whole(text))
    }
}

/// Judges a payload by the schema that its event names.
fn judge_named(
    naming: SchemaNaming,
    named: &Named<'_>,
    compiled: &Compiled,
    payload: &[u8],
    work_ns: &mut u64,
) -> Result<(), Box<Violation>> {
    let validator = &judge_of(compiled)?.validator;
    let judged = match naming {
        SchemaNaming::Confluent => match unprefixed(payload, validator.format()) {
            Some((indexes, rest)) => validator.judge(&indexes, rest, work_ns),
            None => return Err(Violation::whole("names its Protobuf message in no known way")),
        },
        _ => validator.judge(&FIRST_MESSAGE, payload, work_ns),
    };
    judged.map_err(|fault| faulty(fault, named.to_string()))
}

fn judge_of(compiled: &Compiled) -> Result<&Judge, Box<Violation>> {
    compiled.as_ref().map(|judge| &**judge).map_err(|why| Violation::whole(&**why))
}

impl Known {
    fn get(&self, place: Place<'_>) -> Option<&Arc<Slot>> {
        let (subject, version) = match place {
            Place::Id(id) => return self.by_id.get(&id),
            Place::Version(subject, version) => (subject, version),
        };
        let versions = self.by_name.get(subject)?;
        let found = match version {
            SchemaVersion::Latest => versions.iter().rev().find(|found| !found.is_deleted),
            SchemaVersion::Number(number) => versions.iter().find(|found| found.version == number),
        };
        found.map(|found| &found.schema)
    }
}

fn faulty(fault: myelin_schema::Fault, schema: String) -> Box<Violation> {
    Box::new(Violation { path: fault.path, text: fault.text, schema })
}

/// Makes screens, and compiles what they need.
struct Forge<'a> {
    before: &'a Screens,
    ahead: Option<&'a Screens>,
    schemas: &'a Schemas,
    compiled: HashMap<u32, Compiled>,
    slots: HashMap<u32, Arc<Slot>>,
}

impl Forge<'_> {
    fn screen(&mut self, rule: &TopicRule, schema: &SchemaRule) -> Screen {
        let by = match (&schema.by, &schema.subject) {
            (Some(naming), subject) => By::Event { naming: *naming, known: self.known(subject.as_ref()) },
            (None, Some(subject)) => self.fixed(subject, schema.version.unwrap_or(SchemaVersion::Latest)),
            // No rule is so; see `SchemaRule`.
            (None, None) => By::Event { naming: SchemaNaming::Header, known: Known::default() },
        };
        let before = self.before.all().find(|screen| screen.rule == rule.name);
        Screen::new(rule, schema, by, before.map(|screen| screen.counts.clone()).unwrap_or_default())
    }

    fn fixed(&mut self, subject: &SubjectName, version: SchemaVersion) -> By {
        let found = match version {
            SchemaVersion::Latest => self.schemas.latest(subject.as_str()),
            SchemaVersion::Number(number) => self.schemas.version(subject.as_str(), number),
        };
        match found {
            Some(found) => {
                let (version, schema) = (found.version, self.compile(&found.schema.clone()));
                By::Rule { subject: subject.clone(), version, schema }
            }
            None => {
                let why = match version {
                    SchemaVersion::Latest => format!("the subject {subject} has no schema yet"),
                    SchemaVersion::Number(number) => format!("the subject {subject} has no version {number}"),
                };
                By::Rule { subject: subject.clone(), version: 0, schema: Err(why.into()) }
            }
        }
    }

    /// The schemas that events may name: of one subject or of all.
    fn known(&mut self, only: Option<&SubjectName>) -> Known {
        let schemas = self.schemas;
        let mut known = Known::default();
        let subjects = schemas.subjects().filter(|subject| only.is_none_or(|only| subject.name() == only));
        for subject in subjects {
            // What is deleted and kept is still what events have its id for.
            let there = subject.all().map(|there @ SubjectVersion { version, schema, .. }| {
                let slot = self.slot(schema);
                known.by_id.insert(schema.id, slot.clone());
                KnownVersion { version: *version, schema: slot, is_deleted: there.is_deleted() }
            });
            let there = there.collect();
            known.by_name.insert(subject.name().clone(), there);
        }
        known
    }

    fn slot(&mut self, schema: &Arc<Schema>) -> Arc<Slot> {
        let Self { before, ahead, slots, .. } = self;
        let slot = slots.entry(schema.id).or_insert_with(|| {
            // An id means the same schema for good.
            let known = before.slots.get(&schema.id).or_else(|| ahead.as_ref()?.slots.get(&schema.id));
            known.cloned().unwrap_or_else(|| Slot::new(schema.clone(), before.shelf.clone()))
        });
        slot.clone()
    }

    fn compile(&mut self, schema: &Arc<Schema>) -> Compiled {
        // An id means the same schema for good.
        let known = self.compiled.get(&schema.id).or_else(|| self.before.compiled.get(&schema.id));
        if let Some(known) = known.or_else(|| self.ahead?.compiled.get(&schema.id)) {
            let known = known.clone();
            self.compiled.insert(schema.id, known.clone());
            return known;
        }
        let compiled = compile(schema);
        self.compiled.insert(schema.id, compiled.clone());
        compiled
    }
}

fn compile(schema: &Schema) -> Compiled {
    let dependencies = schema.dependencies();
    let references: Vec<ReferenceText<'_>> =
        dependencies.iter().map(|(name, schema)| ReferenceText { name, text: &schema.text }).collect();
    let format = judged_as(schema.format);
    match Validator::compile(&Source { format, text: &schema.text, references: &references }) {
        Ok(validator) => Ok(Arc::new(Judge { id: schema.id, validator })),
        Err(error) => {
            tracing::error!(id = schema.id, code = error.code, %error, "a schema cannot be compiled: its events are held back");
            Err(format!("the schema {} cannot be compiled: {error}", schema.id).into())
        }
    }
}
