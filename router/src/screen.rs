//! Which schemas payloads are judged by where they come in: the catalog's rules for topics, compiled.
//!
//! The keeper of the catalog publishes a table whenever the rules or the registry change. It compiles each schema once, on
//! its own thread; workers only look up. A router without rules about schemas has an empty table and no schema in memory.
//!
//! Who cannot be judged does not pass: a subject without a version, an id that no registry gave, a schema that cannot be
//! compiled are all as bad as a payload that is not as it must be.

mod pace;

pub use pace::Pace;

use crate::registry::judged_as;
use myelin_catalog::{Name, TopicRule};
use myelin_catalog::{OnInvalid, Schema, SchemaNaming, SchemaRule, SchemaVersion, Schemas, SubjectName};
use myelin_engine::EventView;
use myelin_schema::limits::PROTOBUF_INDEXES_MAX;
use myelin_schema::{Format, ReferenceText, Source, Validator};
use myelin_wire::{Attrs, Pattern, attrs};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What stands in the topics of dead letters for the binding, where no filter but a schema has ended the event.
pub const ADMISSION: &str = "admission";
/// Schemas that are compiled for rules that let events name theirs. Those registered last; events that name older ones are
/// held back. A compiled schema is some kilobytes to some megabytes.
pub const NAMED_SCHEMAS_MAX: usize = 1024;
/// Length of Confluent's prefix: a zero byte, and the id.
const PREFIX_LEN: usize = 5;
/// The message of a Protobuf file that is meant where none is named.
const FIRST_MESSAGE: [u32; 1] = [0];
/// Headers with the address of a schema: of an event that came as CloudEvents says, and of one that a gateway took in.
const DATASCHEMA: [&str; 2] = ["dataschema", "ce-dataschema"];

/// The rules about schemas at a moment.
#[derive(Debug, Default)]
pub struct Screens {
    /// Grows with every table.
    version: u64,
    screens: Vec<(Pattern, Arc<Screen>)>,
    /// All that the screens judge by, by id.
    compiled: HashMap<u32, Compiled>,
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

/// The schemas that events may name.
#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<u32, Compiled>,
    /// Of each subject its versions in order, with their ids.
    by_name: HashMap<SubjectName, Vec<(u32, u32)>>,
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
        let mut forge = Forge { before, ahead, schemas, compiled: HashMap::new() };
        let screens =
            rules.filter_map(|rule| Some((rule.pattern.clone(), Arc::new(forge.screen(rule, rule.schema.as_ref()?)))));
        let screens = screens.collect();
        Self { version: before.version + 1, screens, compiled: forge.compiled }
    }

    /// Tells tables apart.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether there is nothing to judge.
    pub fn is_empty(&self) -> bool {
        self.screens.is_empty()
    }

    /// The rules of a topic, all of which hold. The router's own topics have none.
    pub fn of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Arc<Screen>> {
        let is_own = topic.starts_with('$');
        self.screens.iter().filter(move |(pattern, _)| !is_own && pattern.matches(topic)).map(|(_, screen)| screen)
    }

    /// All rules.
    pub fn all(&self) -> impl Iterator<Item = &Screen> {
        self.screens.iter().map(|(_, screen)| &**screen)
    }
}

impl Screen {
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
            By::Rule { schema: Err(why), .. } => format!("nothing: {why}"),
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

    /// Whether the event may come in; `work_ns` grows by what it takes at most to find out.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, event: &EventView<'_>, work_ns: &mut u64) -> Result<(), Box<Violation>> {
        match &self.by {
            By::Rule { .. } if event.payload.is_empty() && !self.is_required => Ok(()),
            By::Rule { subject, version, schema } => {
                let judge = schema.as_ref().map_err(|why| Violation::whole(&**why))?;
                let judged = judge.validator.judge(&FIRST_MESSAGE, event.payload, work_ns);
                judged.map_err(|fault| faulty(fault, format!("{subject}:{version}")))
            }
            By::Event { naming: SchemaNaming::Confluent, known } => self.judge_prefixed(event.payload, known, work_ns),
            By::Event { naming, known } => {
                let named = match naming {
                    SchemaNaming::Header => Attrs::new(event.attrs).text(attrs::SCHEMA),
                    _ => DATASCHEMA.iter().find_map(|name| Attrs::new(event.attrs).header(name)),
                };
                let Some(named) = named else { return self.without_name("names no schema in its head") };
                let judge = known.named(named)?;
                let judged = judge.validator.judge(&FIRST_MESSAGE, event.payload, work_ns);
                judged.map_err(|fault| faulty(fault, named.to_owned()))
            }
        }
    }

    /// A payload that says its schema's id itself.
    fn judge_prefixed(&self, payload: &[u8], known: &Known, work_ns: &mut u64) -> Result<(), Box<Violation>> {
        let Some((id, _)) = prefix(payload) else {
            return self.without_name("begins with no schema id: a zero byte and four bytes of it");
        };
        let judge = known.of_id(id)?;
        let Some((_, indexes, rest)) = unprefixed(payload, judge.validator.format()) else {
            return Err(Violation::whole("names its Protobuf message in no known way"));
        };
        judge.validator.judge(&indexes, rest, work_ns).map_err(|fault| faulty(fault, id.to_string()))
    }

    fn without_name(&self, text: &str) -> Result<(), Box<Violation>> {
        if self.is_required { Err(Violation::whole(text)) } else { Ok(()) }
    }
}

impl Known {
    fn of_id(&self, id: u32) -> Result<&Judge, Box<Violation>> {
        match self.by_id.get(&id) {
            Some(Ok(judge)) => Ok(judge),
            Some(Err(why)) => Err(Violation::whole(&**why)),
            None => Err(Violation::whole(format!("names the schema {id}, which is not among those of this topic"))),
        }
    }

    /// The schema that a text means: an id, a subject with or without a version, or an address that ends with one of them.
    fn named(&self, text: &str) -> Result<&Judge, Box<Violation>> {
        let unknown = || Violation::whole(format!("names the schema `{text}`, which is not among those of this topic"));
        let path = text.split(['?', '#']).next().unwrap_or(text);
        if let Some((_, id)) = path.rsplit_once("/schemas/ids/") {
            return self.of_id(id.parse().map_err(|_| unknown())?);
        }
        let in_path = path.rsplit_once("/subjects/").and_then(|(_, rest)| rest.split_once("/versions/"));
        let (subject, version) = match in_path.or_else(|| text.rsplit_once(':')) {
            Some((subject, version)) => (subject, version.parse::<SchemaVersion>().map_err(|_| unknown())?),
            None => match text.parse() {
                Ok(id) => return self.of_id(id),
                Err(_) => (text, SchemaVersion::Latest),
            },
        };
        let versions = self.by_name.get(subject).ok_or_else(unknown)?;
        let found = match version {
            SchemaVersion::Latest => versions.last(),
            SchemaVersion::Number(number) => versions.iter().find(|(version, _)| *version == number),
        };
        self.of_id(found.ok_or_else(unknown)?.1)
    }
}

fn faulty(fault: myelin_schema::Fault, schema: String) -> Box<Violation> {
    Box::new(Violation { path: fault.path, text: fault.text, schema })
}

/// The schema's id before a payload, and what follows it.
fn prefix(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (prefix, rest) = payload.split_first_chunk::<PREFIX_LEN>()?;
    let [0, a, b, c, d] = *prefix else { return None };
    Some((u32::from_be_bytes([a, b, c, d]), rest))
}

/// Indexes of a Protobuf message; few have more.
pub type Indexes = SmallVec<[u32; 8]>;

/// A payload in Confluent's wire format: the schema's id, the indexes of its message where it is Protobuf, and the bytes
/// that the schema is about; `None` where it is no such payload.
pub fn unprefixed(payload: &[u8], format: Format) -> Option<(u32, Indexes, &[u8])> {
    let (id, rest) = prefix(payload)?;
    let (indexes, rest) = if format == Format::Protobuf { message_indexes(rest)? } else { (Indexes::new(), rest) };
    Some((id, indexes, rest))
}

/// The message that Confluent's wire format names, and what follows: a count of indexes and these, each a zigzag number;
/// one zero byte stands for the first message.
fn message_indexes(bytes: &[u8]) -> Option<(Indexes, &[u8])> {
    let (count, mut rest) = zigzag(bytes)?;
    let mut indexes = Indexes::new();
    if count == 0 {
        indexes.push(0);
        return Some((indexes, rest));
    }
    if usize::try_from(count).ok()? > PROTOBUF_INDEXES_MAX {
        return None;
    }
    for _ in 0..count {
        let (index, after) = zigzag(rest)?;
        indexes.push(index);
        rest = after;
    }
    Some((indexes, rest))
}

/// A number that is not negative.
fn zigzag(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(PREFIX_LEN) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let number = (value & 1 == 0).then_some(value >> 1)?;
            return Some((u32::try_from(number).ok()?, &bytes[at + 1..]));
        }
    }
    None
}

/// Makes screens, and compiles what they need.
struct Forge<'a> {
    before: &'a Screens,
    ahead: Option<&'a Screens>,
    schemas: &'a Schemas,
    compiled: HashMap<u32, Compiled>,
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
        Screen {
            rule: rule.name.clone(),
            on_invalid: schema.on_invalid,
            is_required: schema.required,
            by,
            counts: before.map(|screen| screen.counts.clone()).unwrap_or_default(),
        }
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
        let mut wanted: Vec<Arc<Schema>> = Vec::new();
        let subjects = schemas.subjects().filter(|subject| only.is_none_or(|only| subject.name() == only));
        for subject in subjects {
            for version in subject.versions().filter(|version| !version.is_deleted) {
                let versions = known.by_name.entry(subject.name().clone()).or_default();
                versions.push((version.version, version.schema.id));
                wanted.push(version.schema.clone());
            }
        }
        wanted.sort_unstable_by_key(|schema| std::cmp::Reverse(schema.id));
        wanted.dedup_by_key(|schema| schema.id);
        if wanted.len() > NAMED_SCHEMAS_MAX {
            tracing::warn!(
                schemas = wanted.len(),
                compiled = NAMED_SCHEMAS_MAX,
                "a rule for topics lets events name more schemas than are compiled: name a subject in the rule"
            );
        }
        for schema in wanted.iter().take(NAMED_SCHEMAS_MAX) {
            known.by_id.insert(schema.id, self.compile(schema));
        }
        known
    }

    fn compile(&mut self, schema: &Arc<Schema>) -> Compiled {
        // An id means the same schema for good.
        let known = self.compiled.get(&schema.id).or_else(|| self.before.compiled.get(&schema.id));
        if let Some(known) = known.or_else(|| self.ahead?.compiled.get(&schema.id)) {
            let known = known.clone();
            self.compiled.insert(schema.id, known.clone());
            return known;
        }
        let dependencies = schema.dependencies();
        let references: Vec<ReferenceText<'_>> =
            dependencies.iter().map(|(name, schema)| ReferenceText { name, text: &schema.text }).collect();
        let format = judged_as(schema.format);
        let compiled = Validator::compile(&Source { format, text: &schema.text, references: &references });
        let compiled: Compiled = match compiled {
            Ok(validator) => Ok(Arc::new(Judge { id: schema.id, validator })),
            Err(error) => {
                tracing::error!(id = schema.id, code = error.code, %error, "a schema cannot be compiled: its events are held back");
                Err(format!("the schema {} cannot be compiled: {error}", schema.id).into())
            }
        };
        self.compiled.insert(schema.id, compiled.clone());
        compiled
    }
}

#[cfg(test)]
mod tests;
