//! Questions in Cedar's terms.

use crate::mentions::Mentions;
use crate::schema::{Kind, Types};
use crate::who::{Call, EventHead, Place, Question, Subject};
use cedar_policy::{Context, Entities, Entity, EntityUid, Request, RestrictedExpression};
use std::collections::HashMap;

/// What stands for the one event that is asked about.
const THE_EVENT: &str = "";

type Attributes<'a> = Vec<(&'static str, &'a str)>;

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn set<'a>(texts: impl Iterator<Item = &'a str>) -> RestrictedExpression {
    RestrictedExpression::new_set(texts.map(text))
}

fn told(error: impl std::error::Error) -> String {
    error.to_string()
}

/// An entity of texts, and one set of them where it has one.
fn entity(uid: EntityUid, texts: Attributes<'_>, set: Option<(&str, RestrictedExpression)>) -> Result<Entity, String> {
    let texts = texts.into_iter().map(|(key, value)| (key.to_owned(), text(value)));
    let attributes = texts.chain(set.map(|(key, value)| (key.to_owned(), value)));
    Entity::new_with_tags(uid, attributes, [], []).map_err(told)
}

/// What a client wants, as far as any statement that is asked mentions it; `event` where it is about one, and not about
/// all that are alike.
pub(crate) fn of_client(
    asked: &Question<'_>,
    event: Option<&EventHead<'_>>,
    mentioned: &[&Mentions],
) -> Result<(Request, Entities), String> {
    let types = Types::load()?;
    let is_mentioned = |name: &str| mentioned.iter().any(|mentions| mentions.attributes.contain(name));
    let Question { service, action, topic, place: Place { site, tenant } } = *asked;
    let (principal, resource) = (types.entity(Kind::Service, service.id()), types.entity(Kind::Topic, topic));
    let (path, name) = (service.path(), service.name());
    let texts = [
        ("id", service.id()),
        ("trust_domain", service.trust_domain()),
        ("path", path),
        ("name", name),
        ("tenant", tenant),
    ];
    let texts = texts.into_iter().filter(|(name, _)| is_mentioned(name)).collect();
    let groups = || set(service.groups().iter().map(|group| &**group));
    let mut entities = vec![
        entity(principal.clone(), texts, is_mentioned("groups").then(|| ("groups", groups())))?,
        entity(resource.clone(), vec![("name", topic)], None)?,
    ];
    let mut context = vec![("site".to_owned(), text(site))];
    if let Some(event) = event.filter(|_| action.has_event()) {
        let uid = types.entity(Kind::Event, THE_EVENT);
        entities.push(head(uid.clone(), event, mentioned)?);
        context.push(("event".to_owned(), RestrictedExpression::new_entity_uid(uid)));
    }
    finish((principal, types.action(action), resource), context, entities)
}

fn head(uid: EntityUid, event: &EventHead<'_>, mentioned: &[&Mentions]) -> Result<Entity, String> {
    let EventHead { id, source, kind, key, content_type, schema, headers } = event;
    let attributes = [
        ("id", id),
        ("source", source),
        ("type", kind),
        ("key", key),
        ("content_type", content_type),
        ("schema", schema),
    ];
    let is_mentioned = |name: &str| mentioned.iter().any(|mentions| mentions.attributes.contain(name));
    let attributes = attributes.into_iter().filter(|(name, _)| is_mentioned(name));
    let attributes = attributes.map(|(name, value)| (name.to_owned(), text(value)));
    let mut tags: HashMap<String, RestrictedExpression> = HashMap::new();
    for (name, value) in headers {
        if mentioned.iter().any(|mentions| mentions.headers.contain(name)) {
            // Of several with one name the first counts.
            tags.entry((*name).to_owned()).or_insert_with(|| text(value));
        }
    }
    Entity::new_with_tags(uid, attributes, [], tags).map_err(told)
}

/// What somebody wants of the admin API.
pub(crate) fn of_admin(call: &Call<'_>) -> Result<(Request, Entities), String> {
    let types = Types::load()?;
    let Call { caller, roles, subject, method, route, site } = *call;
    let principal = types.entity(Kind::Caller, caller);
    let roles = set(roles.iter().copied());
    let (kind, name, version) = match subject {
        Subject::Module(name, version) => (Kind::Module, name, Some(version)),
        Subject::Binding(name) => (Kind::Binding, name, None),
        Subject::Rule(name) => (Kind::Rule, name, None),
        Subject::Subject(name) => (Kind::Subject, name, None),
        Subject::Tenant(name) => (Kind::Tenant, name, None),
        Subject::Rollout(name) => (Kind::Rollout, name, None),
        Subject::Capture(name) => (Kind::Capture, name, None),
        Subject::Site(name) => (Kind::Site, name, None),
    };
    let resource = types.entity(kind, name);
    let mut texts = vec![("name", name)];
    texts.extend(version.map(|version| ("version", version)));
    let entities = vec![
        entity(principal.clone(), vec![("id", caller)], Some(("roles", roles)))?,
        entity(resource.clone(), texts, None)?,
    ];
    let context = [("method", method), ("route", route), ("site", site)];
    let context = context.map(|(key, value)| (key.to_owned(), text(value))).into();
    finish((principal, types.admin_action(), resource), context, entities)
}

fn finish(
    (principal, action, resource): (EntityUid, EntityUid, EntityUid),
    context: Vec<(String, RestrictedExpression)>,
    entities: Vec<Entity>,
) -> Result<(Request, Entities), String> {
    let entities = Entities::from_entities(entities, None).map_err(told)?;
    let context = Context::from_pairs(context).map_err(told)?;
    Ok((Request::new(principal, action, resource, context, None).map_err(told)?, entities))
}
