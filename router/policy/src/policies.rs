//! Texts become a compiled set, and the set answers questions.

use crate::bounds;
use crate::error::{PolicyError, PolicyErrors, tell};
use crate::index::{Index, Known, Together};
use crate::limits::{ERRORS_MAX, STATEMENTS_MAX, TOGETHER_MAX};
use crate::mentions::Mentions;
use crate::needs;
use crate::question;
use crate::requests;
use crate::schema::Types;
use crate::scope::{self, Scope};
use crate::who::{Action, Call, EventHead, Question};
use cedar_policy::{
    Authorizer, Decision as CedarDecision, Effect, Entities, Policy, PolicyId, PolicySet, Request, Response,
    ValidationMode,
};
use miette::Diagnostic;
use std::str::FromStr;

/// A compiled set of policies; the empty one is silent about everything and takes no memory.
#[derive(Debug, Default)]
pub struct Policies {
    /// Those that are decided for a service and a topic.
    index: Index,
    /// Those that look at each event, or at whether there is one.
    by_event: Index,
    /// Those about the admin API.
    admin: PolicySet,
    statements: usize,
}

/// What policies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A statement permits it and none forbids it.
    Permit,
    /// A statement forbids it, or could not be evaluated.
    Forbid,
    /// No statement speaks of it.
    Silent,
    /// Statements that look at the event could speak of it: [`Policies::judge`] and [`Policies::look`] say what they do.
    ByEvent {
        /// Whether others permit it. None forbids it.
        is_permitted: bool,
    },
}

/// What policies say, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What they say.
    pub verdict: Verdict,
    /// The statements that decided, or that look at the event, as `NAME#NUMBER`, sorted.
    pub reasons: Vec<String>,
}

impl Decision {
    const SILENT: Self = Self { verdict: Verdict::Silent, reasons: Vec::new() };
}

impl Policies {
    /// Reads texts, each with its name, checks them against the schema, and makes them ready for questions.
    ///
    /// # Errors
    /// All that is wrong with any of them, up to a bound for each.
    pub fn compile<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, PolicyErrors> {
        let (mut policies, mut errors) = (Self::default(), Vec::new());
        for (name, text) in texts {
            match read(name, text) {
                Ok(statements) => policies.add(name, statements, &mut errors),
                Err(faults) => errors.extend(faults.iter().cloned()),
            }
        }
        PolicyErrors::check(errors)?;
        Ok(policies)
    }

    fn add(&mut self, name: &str, statements: Vec<Policy>, errors: &mut Vec<PolicyError>) {
        self.statements += statements.len();
        if self.statements > STATEMENTS_MAX {
            let what = format!("with it there are {} statements; {STATEMENTS_MAX} are the most", self.statements);
            return errors.push(PolicyError::of(name, what, "let one statement speak of several topics or services"));
        }
        for statement in &statements {
            if let Err(error) = self.put(name, statement) {
                return errors.push(error);
            }
        }
    }

    /// Puts a statement where questions that it could speak of find it.
    fn put(&mut self, name: &str, statement: &Policy) -> Result<(), PolicyError> {
        let refused = |why: String| PolicyError::of(name, why, "write it more simply");
        let json = statement.to_json().map_err(|error| refused(error.to_string()))?;
        match scope::of(&json) {
            Scope::Clients => {
                let index = if scope::looks_at_events(&json) { &mut self.by_event } else { &mut self.index };
                let known = Known {
                    statement: statement.clone(),
                    of_requests: requests::of(statement, &json).map_err(refused)?,
                    needs: needs::of(&json),
                    mentions: Mentions::of(&json),
                };
                index.insert(name, &known)
            }
            Scope::Admin | Scope::Both if self.admin.num_of_policies() >= TOGETHER_MAX => {
                let what = format!("more than {TOGETHER_MAX} statements about the admin API");
                Err(PolicyError::of(name, what, "let one statement list several with `[..].contains(..)`"))
            }
            Scope::Admin | Scope::Both => self.admin.add(statement.clone()).map_err(|error| refused(error.to_string())),
        }
    }

    /// How many statements there are.
    pub fn statements(&self) -> usize {
        self.statements
    }

    /// Whether there are none about clients.
    pub fn is_empty(&self) -> bool {
        self.statements == self.admin.num_of_policies()
    }

    /// Whether any is about the admin API.
    pub fn speak_of_admin(&self) -> bool {
        !self.admin.is_empty()
    }

    /// What the policies say of all events that are alike, but for their heads.
    pub fn decide(&self, asked: &Question<'_>) -> Decision {
        let plain = self.ask(asked, None);
        if plain.verdict == Verdict::Forbid || !asked.action.has_event() {
            return plain;
        }
        let looking = || self.by_event.find(asked.service, asked.topic).flat_map(|found| found.set.policies());
        let is_permitted = plain.verdict == Verdict::Permit;
        // What one permits that is permitted already is nothing new.
        let is_open = match is_permitted {
            true => looking().any(|statement| statement.effect() == Effect::Forbid),
            false => looking().next().is_some(),
        };
        if !is_open {
            return plain;
        }
        let mut reasons: Vec<_> = looking().map(|statement| statement.id().to_string()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        Decision { verdict: Verdict::ByEvent { is_permitted }, reasons }
    }

    /// What they say of one event: never [`Verdict::ByEvent`].
    pub fn judge(&self, asked: &Question<'_>, event: &EventHead<'_>) -> Decision {
        self.ask(asked, Some(event))
    }

    /// The same, where [`decide`](Self::decide) was asked before and said [`Verdict::ByEvent`]: only the statements that
    /// look at the event are evaluated.
    pub fn look(&self, asked: &Question<'_>, event: &EventHead<'_>, is_permitted: bool) -> Verdict {
        let looking: Vec<_> = self.by_event.find(asked.service, asked.topic).collect();
        match decide_client(&looking, asked, Some(event)).verdict {
            Verdict::Silent if is_permitted => Verdict::Permit,
            verdict => verdict,
        }
    }

    fn ask(&self, asked: &Question<'_>, event: Option<&EventHead<'_>>) -> Decision {
        if self.is_empty() {
            return Decision::SILENT;
        }
        // Of what is about no event, statements that look at one say what they say where there is none.
        let may_look = event.is_some() || !asked.action.has_event();
        let looking = may_look.then(|| self.by_event.find(asked.service, asked.topic)).into_iter().flatten();
        let found: Vec<_> = self.index.find(asked.service, asked.topic).chain(looking).collect();
        decide_client(&found, asked, event)
    }

    /// What they say of a call of the admin API: forbidden, or nothing.
    pub fn decide_admin(&self, call: &Call<'_>) -> Decision {
        if self.admin.is_empty() {
            return Decision::SILENT;
        }
        decide([&self.admin], question::of_admin(call))
    }
}

/// What these statements say of what a client wants.
fn decide_client(found: &[&Together], asked: &Question<'_>, event: Option<&EventHead<'_>>) -> Decision {
    if found.is_empty() {
        return Decision::SILENT;
    }
    let mentioned: Vec<_> = found.iter().map(|found| &found.mentions).collect();
    let of_requests = found.iter().map(|found| &found.of_requests);
    let of_requests = of_requests.filter(|set| asked.action == Action::Request && !set.is_empty());
    let sets = found.iter().map(|found| &found.set).chain(of_requests);
    decide(sets, question::of_client(asked, event, &mentioned))
}

/// What the statements of these sets say together.
fn decide<'a>(sets: impl IntoIterator<Item = &'a PolicySet>, asked: Result<(Request, Entities), String>) -> Decision {
    let Ok((request, entities)) = asked else {
        // Nothing of these could be told: never a reason to let something pass.
        return Decision { verdict: Verdict::Forbid, reasons: Vec::new() };
    };
    let authorizer = Authorizer::new();
    let mut said = Said::default();
    for set in sets {
        said.add(&authorizer.is_authorized(&request, set, &entities));
    }
    said.decision()
}

/// What the statements of several sets say together.
#[derive(Default)]
struct Said {
    permit: Vec<String>,
    forbid: Vec<String>,
}

impl Said {
    fn add(&mut self, response: &Response) {
        let reasons = response.diagnostics().reason().map(ToString::to_string);
        match response.decision() {
            CedarDecision::Allow => self.permit.extend(reasons),
            CedarDecision::Deny => self.forbid.extend(reasons),
        }
        // Cedar passes over what it cannot evaluate; where that is a `forbid`, something would pass that must not.
        self.forbid.extend(response.diagnostics().errors().map(|error| match error {
            cedar_policy::AuthorizationError::PolicyEvaluationError(error) => error.policy_id().to_string(),
        }));
    }

    fn decision(self) -> Decision {
        let (verdict, mut reasons) = match (self.forbid.is_empty(), self.permit.is_empty()) {
            (false, _) => (Verdict::Forbid, self.forbid),
            (true, false) => (Verdict::Permit, self.permit),
            (true, true) => return Decision::SILENT,
        };
        // One statement may stand in several sets.
        reasons.sort_unstable();
        reasons.dedup();
        Decision { verdict, reasons }
    }
}

/// The statements of one text, named `NAME#NUMBER` in its order.
fn read(name: &str, text: &str) -> Result<Vec<Policy>, PolicyErrors> {
    bounds::check(name, text)?;
    let types = Types::load().map_err(|why| PolicyError::of(name, why, "this is a defect of the router"))?;
    let mut errors = Vec::new();
    let set = match PolicySet::from_str(text) {
        Ok(set) => set,
        Err(faults) => {
            tell(&mut errors, (name, text), faults.iter().map(|fault| fault as &dyn Diagnostic));
            return Err(PolicyErrors::check(errors).err().unwrap_or_else(|| unknown(name)));
        }
    };
    if set.num_of_templates() > 0 {
        let what = "`?principal` and `?resource` stand for something that nobody fills in here";
        return Err(PolicyError::of(name, what, "name the service or the topic").into());
    }
    if set.is_empty() {
        let what = "it has no statement";
        return Err(PolicyError::of(name, what, "write `permit (..);` or `forbid (..);`, or remove it").into());
    }
    let (admin, clients) = divide(name, &set)?;
    for (validator, part) in [(&types.clients, &clients), (&types.admin, &admin)] {
        let checked = validator.validate(part, ValidationMode::Strict);
        tell(&mut errors, (name, text), checked.validation_errors().map(|fault| fault as &dyn Diagnostic));
    }
    PolicyErrors::check(errors)?;
    // Cedar numbers statements from 0, in their order.
    let number = |id: &PolicyId| id.to_string().strip_prefix("policy").and_then(|number| number.parse::<usize>().ok());
    let mut statements: Vec<_> = set.policies().map(|statement| (number(statement.id()), statement)).collect();
    statements.sort_by_key(|(number, _)| *number);
    let named = (1..)
        .zip(statements)
        .map(|(number, (_, statement))| statement.new_id(PolicyId::new(format!("{name}#{number}"))));
    Ok(named.collect())
}

/// The statements about the admin API, and those about clients.
fn divide(name: &str, set: &PolicySet) -> Result<(PolicySet, PolicySet), PolicyError> {
    let (mut admin, mut clients) = (PolicySet::new(), PolicySet::new());
    let refused = |why: &dyn std::error::Error| PolicyError::of(name, why.to_string(), "write it more simply");
    for statement in set.policies() {
        let part = match scope::of(&statement.to_json().map_err(|error| refused(&error))?) {
            Scope::Clients => &mut clients,
            Scope::Admin if statement.effect() == Effect::Forbid => &mut admin,
            Scope::Admin => {
                let what = "it permits something of the admin API, where roles say who may do what";
                return Err(PolicyError::of(name, what, "give a role ([admin] roles), or `forbid .. unless ..`"));
            }
            Scope::Both => {
                let what = "it names the action of the admin API beside those of clients";
                return Err(PolicyError::of(name, what, "write two statements"));
            }
        };
        part.add(statement.clone()).map_err(|error| refused(&error))?;
    }
    Ok((admin, clients))
}

fn unknown(name: &str) -> PolicyErrors {
    let mend = format!("Cedar refuses it and names none of up to {ERRORS_MAX} reasons; write it more simply");
    PolicyError::of(name, "it cannot be read", mend).into()
}
