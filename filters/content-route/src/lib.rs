//! `content-route`: chooses or adds topics by a field of the JSON payload.
//!
//! ```json
//! {"field": "region", "mode": "add", "routes": {"eu": "fulfilment/eu", "us": "fulfilment/us"}, "default": null}
//! ```
//!
//! * `field`: where the value stands, names with dots between them (`customer.country`). A number, `true` and `false`
//!   are compared as they are written.
//! * `mode`: `redirect` (the event goes to the route only) or `add` (it goes on, and a copy to the route). `redirect`
//!   where not given.
//! * `routes`: for each value a topic, or `site:NAME` (in `redirect`: the event stays what it is, and goes to that site
//!   only).
//! * `default`: the same for every other value, and for a payload without the field. `null` or not given: such an event
//!   goes on as it is.

use myelin_filter::config::{Config, Value, wrong};
use myelin_filter::prelude::*;
use std::collections::BTreeMap;

/// The filter with its parsed configuration.
#[filter]
#[derive(Debug)]
pub struct ContentRoute {
    field: String,
    adds: bool,
    /// What stands behind the bits of a verdict.
    routes: Vec<String>,
    /// For each value the index of its route.
    by_value: BTreeMap<String, usize>,
    default: Option<usize>,
}

impl Filter for ContentRoute {
    const NEEDS: Needs = needs!(payload);
    const COUNTERS: &[&str] = &["matched", "unmatched"];

    fn new(config: &[u8], _previous: Option<&[u8]>) -> Result<Self, String> {
        let config = Config::parse(config, &["field", "mode", "routes", "default"])?;
        let field = config.required_text("field", "\"region\"")?;
        let adds = config.choice("mode", &[("redirect", false), ("add", true)])?;
        let example = "{\"eu\": \"orders/eu\"}";
        let given = config.required("routes", example)?;
        let map = given.as_object().filter(|map| !map.is_empty());
        let map = map.ok_or_else(|| wrong("routes", given, &format!("an object such as {example}")))?;
        let mut routes = Vec::new();
        let mut by_value = BTreeMap::new();
        for (value, target) in map {
            by_value.insert(value.clone(), route_index(&mut routes, &format!("routes.{value}"), target)?);
        }
        let default = config.value("default").map(|target| route_index(&mut routes, "default", target)).transpose()?;
        if let Some(site) = routes.iter().find(|route| adds && route.starts_with("site:")) {
            return Err(format!(
                "`{site}` says where an event may go and adds none; write \"mode\": \"redirect\" for sites"
            ));
        }
        Ok(Self { field: field.to_owned(), adds, routes, by_value, default })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        let value = json::field(event.payload(), &self.field);
        let matched = value.as_ref().and_then(|value| self.by_value.get(value.scalar_text()?)).copied();
        host::count(if matched.is_some() { counter!("matched") } else { counter!("unmatched") }, 1);
        match matched.or(self.default) {
            None => Verdict::allow(),
            Some(route) if self.adds => Verdict::add([route]),
            Some(route) => Verdict::redirect([route]),
        }
    }

    fn routes(&self) -> Vec<String> {
        self.routes.clone()
    }
}

/// The index of a configured target among the `routes`, each of which stands there once.
fn route_index(routes: &mut Vec<String>, key: &str, target: &Value) -> Result<usize, String> {
    let text = target.as_str().filter(|text| is_target(text));
    let text = text.ok_or_else(|| wrong(key, target, "a topic without wildcards such as \"orders/eu\""))?;
    let is_whole = text.starts_with("site:") || text.starts_with("topic:");
    let route = if is_whole { text.to_owned() } else { format!("topic:{text}") };
    Ok(routes.iter().position(|known| *known == route).unwrap_or_else(|| {
        routes.push(route);
        routes.len() - 1
    }))
}

/// Whether the text can be a topic or a site.
fn is_target(text: &str) -> bool {
    let name = text.strip_prefix("site:").or_else(|| text.strip_prefix("topic:")).unwrap_or(text);
    name.split('/').all(|level| !level.is_empty() && level != "*" && level != "**")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, run_fixtures};

    fn refused(config: &str) -> String {
        Harness::<ContentRoute>::new(config).err().unwrap()
    }

    #[test]
    fn fixtures_hold() {
        let report = run_fixtures::<ContentRoute>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
        assert_eq!(report.events, report.expectations, "every fixture says what it expects");
    }

    #[test]
    fn a_wrong_configuration_says_how_to_mend_it() {
        let with = |rest: &str| refused(&format!("{{\"field\":\"f\",{rest}}}"));
        assert_eq!(refused(""), "configuration key `field` is missing; write for example \"field\": \"region\"");
        assert_eq!(
            with("\"route\":{}"),
            "configuration key `route` is not known; known are `field`, `mode`, `routes`, `default`; did you mean \
             `routes`?"
        );
        assert_eq!(with("\"mode\":\"copy\""), "configuration key `mode` is \"copy\"; write \"redirect\" or \"add\"");
        let object = "configuration key `routes` is {}; write an object such as {\"eu\": \"orders/eu\"}";
        assert_eq!(with("\"routes\":{}"), object);
        let topic = "configuration key `routes.eu` is \"a/*\"; write a topic without wildcards such as \"orders/eu\"";
        assert_eq!(with("\"routes\":{\"eu\":\"a/*\"}"), topic);
        assert!(
            with("\"mode\":\"add\",\"routes\":{\"eu\":\"site:eu1\"}")
                .contains("write \"mode\": \"redirect\" for sites")
        );
        assert!(with("\"routes\":{\"eu\":\"a\"},\"default\":7").contains("key `default` is 7; write a topic"));
    }

    #[test]
    fn more_targets_than_a_verdict_has_bits_are_refused() {
        let routes = |count: u32| {
            let routes = (0..count).map(|at| format!("\"{at}\":\"t/{at}\"")).collect::<Vec<_>>().join(",");
            format!("{{\"field\":\"f\",\"routes\":{{{routes}}}}}")
        };
        assert_eq!(Harness::<ContentRoute>::new(routes(32)).unwrap().routes().len(), 32);
        assert_eq!(refused(&routes(33)), "the configuration gives 33 routes; a filter has at most 32");
    }

    #[test]
    fn values_may_share_a_target() {
        let config = r#"{"field":"f","routes":{"a":"t","b":"topic:t","c":"site:eu-1"},"default":"t"}"#;
        assert_eq!(Harness::<ContentRoute>::new(config).unwrap().routes(), ["topic:t", "site:eu-1"]);
    }

    #[test]
    fn events_are_counted() {
        let mut route = Harness::<ContentRoute>::new(r#"{"field":"f","routes":{"a":"t"}}"#).unwrap();
        route.event("o").payload(r#"{"f":"a"}"#).verdict();
        route.event("o").payload(r#"{"f":"b"}"#).verdict();
        route.event("o").payload("no JSON").verdict();
        assert_eq!((route.counter("matched"), route.counter("unmatched")), (1, 2));
    }
}
