//! Loading: file below environment below flags, every fault told at once and with its place.

use super::check::check;
use super::schema::{Key, Kind, keys, sections};
use super::{Config, Demand, PolicyDefault};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Value;
use toml::de::{DeTable, DeValue};

/// Largest configuration file that is read, in bytes: a wrong path must not fill the memory.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// What a variable of the environment begins with when it sets a key.
const VARIABLE_PREFIX: &str = "MYELIN_";
/// What stands between section and key in such a variable; others with the prefix are options of the command line.
const VARIABLE_SEPARATOR: &str = "__";
/// Faults that are told at once: a file with more is no configuration, and finding the place of each takes time.
const FAULTS_TOLD_MAX: usize = 64;
/// Characters of a fault's text: what stands in the file may be quoted in it, at any length.
const PROBLEM_CHARACTERS_MAX: usize = 300;
/// How alike two names must be for the one to be offered for the other (Jaro-Winkler, 1 = equal).
const ALIKE_MIN: f64 = 0.75;

/// Where a configuration comes from, lowest layer first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file's name and its text.
    pub file: Option<(PathBuf, String)>,
    /// Variables of the environment; those that are not `MYELIN_SECTION__KEY` are passed over.
    pub environment: Vec<(String, String)>,
    /// What the command line sets.
    pub flags: Vec<Setting>,
    /// `--dev`: where no certificate is named, one is made.
    pub dev: bool,
}

/// One key that a flag sets.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The flag, for messages.
    pub flag: &'static str,
    /// Section of the key.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where: `myelin.toml:3:1`, a variable, a flag.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// How to mend it.
    pub remedy: String,
}

/// Where each value came from.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<(&'static str, &'static str), String>);

impl Places {
    /// Where `section.key` was set, else its name.
    pub(super) fn of(&self, section: &'static str, key: &'static str) -> String {
        match self.0.get(&(section, key)) {
            Some(place) => place.clone(),
            None => format!("[{section}] {key}"),
        }
    }
}

impl Places {
    /// Whether somebody has set `section.key`.
    fn names(&self, section: &'static str, key: &'static str) -> bool {
        self.0.contains_key(&(section, key))
    }
}

impl Sources {
    /// Reads `file`, where given, and takes the environment of this process.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_process(file: Option<&Path>, flags: Vec<Setting>) -> Result<Self, ConfigErrors> {
        let file = match file {
            Some(path) => Some((path.to_path_buf(), read(path)?)),
            None => None,
        };
        // A variable that is not UTF-8 cannot be one of ours.
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Ok(Self { file, environment: environment.collect(), flags, dev: false })
    }
}

impl Config {
    /// Puts the layers together and checks the whole.
    ///
    /// # Errors
    /// Every fault at once: unknown keys, values of the wrong sort, values that do not go together.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut loading = Loading { keys: keys(), ..Loading::default() };
        if let Some((path, text)) = &sources.file {
            loading.file(path, text);
        }
        let mut environment: Vec<_> = sources.environment.iter().collect();
        environment.sort();
        for (name, value) in environment {
            loading.variable(name, value);
        }
        for Setting { flag, section, key, value } in &sources.flags {
            if let Some(key) = loading.key(section, key) {
                loading.text(key, value, (*flag).to_owned());
            }
        }
        let mut errors = loading.errors;
        match Self::deserialize(Value::Table(loading.values)) {
            Ok(mut config) => {
                if sources.dev && !loading.places.names("policy", "default") {
                    config.policy.default = PolicyDefault::AllowUntilFirst;
                }
                let modules = &mut config.modules;
                for (key, demand) in [("signatures", &mut modules.signatures), ("approvals", &mut modules.approvals)] {
                    if sources.dev && !loading.places.names("modules", key) {
                        *demand = Demand::Optional;
                    }
                }
                check(&config, sources.dev, &loading.places, &mut errors);
                if errors.is_empty() {
                    return Ok(config);
                }
            }
            // Each value was tried alone before, so this cannot be; told all the same.
            Err(error) if errors.is_empty() => {
                errors.push(ConfigError::new("the configuration", error.message(), "see `myelin config default`"));
            }
            Err(_) => {}
        }
        Err(ConfigErrors(errors))
    }
}

#[derive(Default)]
struct Loading {
    keys: Vec<Key>,
    values: toml::Table,
    places: Places,
    errors: Vec<ConfigError>,
}

impl Loading {
    fn key(&self, section: &str, name: &str) -> Option<Key> {
        self.keys.iter().find(|key| key.section == section && key.name == name).copied()
    }

    fn file(&mut self, path: &Path, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let place = |at: usize| {
            let (line, column) = line_column(text, at);
            format!("{}:{line}:{column}", path.display())
        };
        for error in errors.iter().take(FAULTS_TOLD_MAX) {
            let at = error.span().map_or(0, |span| span.start);
            self.fault(place(at), error.message(), "this is not TOML; `myelin config default` shows a whole file");
        }
        for (section, value) in table.get_ref() {
            if self.errors.len() >= FAULTS_TOLD_MAX {
                return;
            }
            let name: &str = section.get_ref();
            let here = place(section.span().start);
            if !sections().contains(&name) {
                let remedy = self.remedy_for_section(name);
                self.fault(here, format!("there is no section `{}`", cut(name)), remedy);
                continue;
            }
            let DeValue::Table(keys) = value.get_ref() else {
                let problem = format!("`{name}` is a section, not a value");
                self.fault(here, problem, format!("write `[{name}]` on a line of its own, its keys below"));
                continue;
            };
            for (key, value) in keys {
                if self.errors.len() >= FAULTS_TOLD_MAX {
                    return;
                }
                let here = place(key.span().start);
                match self.key(name, key.get_ref()) {
                    Some(known) => match to_value(value.get_ref()) {
                        Some(value) => self.set(known, value, here),
                        None => self.fault(here, format!("`{}` has no usable value", known.name), wanted(known)),
                    },
                    None => {
                        let remedy = self.remedy_for_key(name, key.get_ref());
                        self.fault(here, format!("there is no key `{}` in [{name}]", cut(key.get_ref())), remedy);
                    }
                }
            }
        }
    }

    fn variable(&mut self, variable: &str, value: &str) {
        let Some((section, name)) =
            variable.strip_prefix(VARIABLE_PREFIX).and_then(|rest| rest.split_once(VARIABLE_SEPARATOR))
        else {
            return;
        };
        let place = format!("environment variable {}", cut(variable));
        match self.key(&section.to_lowercase(), &name.to_lowercase()) {
            Some(key) => self.text(key, value, place),
            None => {
                let known = self.keys.iter().map(Key::variable);
                let remedy = did_you_mean(variable, known)
                    .unwrap_or_else(|| "unset it, or see `myelin config default` for the keys there are".to_owned());
                self.fault(place, "it sets no key that there is", remedy);
            }
        }
    }

    /// Sets `key` from text that is not TOML: of a variable or a flag.
    fn text(&mut self, key: Key, text: &str, place: String) {
        let value = match key.kind {
            Kind::Text => Some(Value::String(text.to_owned())),
            Kind::Integer => text.replace('_', "").parse().ok().map(Value::Integer),
            Kind::Bool => text.parse().ok().map(Value::Boolean),
            Kind::List => Some(listed(text)),
            Kind::Table | Kind::Other => text.parse().ok(),
        };
        match value {
            Some(value) => self.set(key, value, place),
            None => self.fault(
                place,
                format!("`{}` is no value for [{}] {}", cut(text), key.section, key.name),
                wanted(key),
            ),
        }
    }

    /// Tries the value alone, so that several bad ones are told at once.
    fn set(&mut self, key: Key, value: Value, place: String) {
        let alone = |value: Value| {
            let inner = toml::Table::from_iter([(key.name.to_owned(), value)]);
            Value::Table(toml::Table::from_iter([(key.section.to_owned(), Value::Table(inner))]))
        };
        if let Err(error) = Config::deserialize(alone(value.clone())) {
            let problem = format!("[{}] {}: {}", key.section, key.name, error.message());
            self.fault(place, problem, wanted(key));
            return;
        }
        let section = self.values.entry(key.section).or_insert_with(|| Value::Table(toml::Table::new()));
        if let Value::Table(section) = section {
            section.insert(key.name.to_owned(), value);
        }
        self.places.0.insert((key.section, key.name), place);
    }

    fn remedy_for_section(&self, name: &str) -> String {
        // A key without its section, as in a flat file.
        if let Some(key) = self.keys.iter().find(|key| key.name == name) {
            return format!("`{}` belongs below `[{}]`", key.name, key.section);
        }
        did_you_mean(name, sections().iter().map(|section| format!("[{section}]")))
            .unwrap_or_else(|| format!("the sections are {}", sections().join(", ")))
    }

    fn remedy_for_key(&self, section: &str, name: &str) -> String {
        let siblings = || self.keys.iter().filter(|key| key.section == section).map(|key| key.name.to_owned());
        if let Some(key) = self.keys.iter().find(|key| key.name == name) {
            return format!("`{}` belongs below `[{}]`", key.name, key.section);
        }
        did_you_mean(name, siblings())
            .unwrap_or_else(|| format!("its keys are {}", siblings().collect::<Vec<_>>().join(", ")))
    }

    fn fault(&mut self, place: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) {
        self.errors.push(ConfigError::new(place, problem, remedy));
    }
}

impl ConfigError {
    pub(super) fn new(place: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        let mut problem: String = problem.into();
        if let Some((end, _)) = problem.char_indices().nth(PROBLEM_CHARACTERS_MAX) {
            problem.truncate(end);
            problem.push('…');
        }
        Self { place: place.into(), problem, remedy: remedy.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.problem, self.remedy)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The one of `known` that is most like `name`, as a sentence; nothing when none is like it.
fn did_you_mean(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let letters = |text: &str| text.to_lowercase().replace(['[', ']', '-'], "");
    let name = letters(&cut(name));
    let likeness = |candidate: &String| strsim::jaro_winkler(&name, &letters(candidate));
    let (likeness, best) =
        known.map(|candidate| (likeness(&candidate), candidate)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= ALIKE_MIN).then(|| format!("did you mean `{best}`?"))
}

fn wanted(key: Key) -> String {
    let kind = match key.kind {
        Kind::Bool => "true or false",
        Kind::Integer => "a whole number",
        Kind::Text => "text, in quotes in the file",
        Kind::List => "a list of texts: [\"a\", \"b\"] in the file, a,b in a variable",
        Kind::Table => "a table: { name = value } or, in the file, a section of its own",
        Kind::Other => "a TOML value",
    };
    format!("[{}] {} is {kind}; `myelin config default` explains it", key.section, key.name)
}

/// The texts between the commas: a variable or a flag has no quotes.
fn listed(text: &str) -> Value {
    let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
    Value::Array(texts.map(|text| Value::String(text.to_owned())).collect())
}

/// Text of a stranger in a message: bounded, without control characters.
fn cut(text: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    text.chars().take(CHARACTERS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn to_value(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()?),
        DeValue::Float(number) => Value::Float(number.as_str().parse().ok()?),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(values) => Value::Array(values.iter().map(|v| to_value(v.get_ref())).collect::<Option<_>>()?),
        DeValue::Table(table) => Value::Table(
            table
                .iter()
                .map(|(key, value)| Some((key.get_ref().to_string(), to_value(value.get_ref())?)))
                .collect::<Option<_>>()?,
        ),
    })
}

/// 1-based line and column (in characters) of the byte `at`.
fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn read(path: &Path) -> Result<String, ConfigErrors> {
    let fault = |problem: String, remedy: &str| {
        ConfigErrors(vec![ConfigError::new(path.display().to_string(), problem, remedy)])
    };
    let text = std::fs::metadata(path).and_then(|meta| {
        if meta.len() > FILE_BYTES_MAX {
            return Err(std::io::Error::other(format!("{} bytes are too many for a configuration", meta.len())));
        }
        std::fs::read_to_string(path)
    });
    text.map_err(|error| {
        fault(error.to_string(), "check the path, or write a file with `myelin config default > myelin.toml`")
    })
}
