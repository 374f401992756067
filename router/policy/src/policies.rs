//! Texts become a compiled set, and the set answers questions.

use crate::bounds;
use crate::error::{PolicyError, PolicyErrors, tell};
use crate::index::Index;
use crate::limits::{ERRORS_MAX, STATEMENTS_MAX};
use crate::needs;
use crate::schema::Types;
use crate::who::{Action, Service};
use cedar_policy::{
    Authorizer, Context, Decision as CedarDecision, Entities, Entity, Policy, PolicyId, PolicySet, Request, Response,
    RestrictedExpression, ValidationMode,
};
use miette::Diagnostic;
use std::collections::{HashMap, HashSet};
use std::str::FromStr;

/// A compiled set of policies; the empty one is silent about everything and takes no memory.
#[derive(Debug, Default)]
pub struct Policies {
    index: Index,
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
}

/// What policies say, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What they say.
    pub verdict: Verdict,
    /// The statements that decided, as `NAME#NUMBER`, sorted.
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
            let needs = match statement.to_json() {
                Ok(json) => needs::of(&json),
                Err(error) => return errors.push(PolicyError::of(name, error.to_string(), "write it more simply")),
            };
            if let Err(error) = self.index.insert(name, statement, needs) {
                return errors.push(error);
            }
        }
    }

    /// How many statements there are.
    pub fn statements(&self) -> usize {
        self.statements
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.statements == 0
    }

    /// What the policies say of `service` doing `action` with `topic` at the site `site`.
    pub fn decide(&self, service: &Service, action: Action, topic: &str, site: &str) -> Decision {
        if self.is_empty() {
            return Decision::SILENT;
        }
        let mut sets = self.index.find(service, topic).peekable();
        if sets.peek().is_none() {
            return Decision::SILENT;
        }
        let Ok((request, entities)) = question(service, action, topic, site) else {
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
    let checked = types.validator.validate(&set, ValidationMode::Strict);
    tell(&mut errors, (name, text), checked.validation_errors().map(|fault| fault as &dyn Diagnostic));
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

fn unknown(name: &str) -> PolicyErrors {
    let mend = format!("Cedar refuses it and names none of up to {ERRORS_MAX} reasons; write it more simply");
    PolicyError::of(name, "it cannot be read", mend).into()
}

/// A question in Cedar's terms.
pub(crate) fn question(
    service: &Service,
    action: Action,
    topic: &str,
    site: &str,
) -> Result<(Request, Entities), String> {
    let types = Types::load()?;
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let principal = types.service(service.id());
    let resource = types.topic(topic);
    let attributes = [
        ("id", service.id()),
        ("trust_domain", service.trust_domain()),
        ("path", service.path()),
        ("name", service.name()),
    ];
    let attributes = attributes.map(|(key, value)| (key.to_owned(), text(value)));
    let named = HashMap::from([("name".to_owned(), text(topic))]);
    let told = |error: &dyn std::error::Error| error.to_string();
    let who = Entity::new(principal.clone(), HashMap::from(attributes), HashSet::new()).map_err(|e| told(&e))?;
    let what = Entity::new(resource.clone(), named, HashSet::new()).map_err(|e| told(&e))?;
    let entities = Entities::from_entities([who, what], None).map_err(|e| told(&e))?;
    let context = Context::from_pairs([("site".to_owned(), text(site))]).map_err(|e| told(&e))?;
    let request =
        Request::new(principal, types.action(action), resource, context, None).map_err(|error| told(&error))?;
    Ok((request, entities))
}
