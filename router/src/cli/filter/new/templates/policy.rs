//! Enforces who may publish where: the topics below `tenants/NAME/` are for the service called NAME, and for the
//! administrators.
//!
//! Configuration: `{"admins": ["ops"]}`. The name of a service is the last part of its certificate's identity,
//! `spiffe://DOMAIN/service/NAME`, which the router has checked before the filter sees it.

use myelin_filter::config::Config;
use myelin_filter::prelude::*;

/// `#[filter]` exports this type as the package's filter; name and version are those of Cargo.toml.
#[filter]
pub struct TenantTopics {
    admins: Vec<String>,
}

impl Filter for TenantTopics {
    // What the router copies into the filter for each event. What is not asked for costs nothing and reads as absent.
    const NEEDS: Needs = needs!(identity);
    // Why the filter refuses. Publishers and metrics name the text; a verdict carries its number.
    const REASONS: &[&str] = &["no service", "not this tenant's topic"];
    // Metrics of the filter's own, beside those that the router keeps of its verdicts.
    const COUNTERS: &[&str] = &["by_admins"];

    fn new(config: &[u8], _previous: Option<&[u8]>) -> Result<Self, String> {
        // An error refuses the binding: the operator reads the sentence word for word.
        let config = Config::parse(config, &["admins"])?;
        let admins = match config.value("admins") {
            None => Vec::new(),
            Some(_) => config.required_texts("admins", "[\"ops\"]")?,
        };
        Ok(Self {
            admins: admins.into_iter().map(str::to_owned).collect(),
        })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        let Some(service) = event.identity().and_then(service) else {
            return Verdict::deny(reason!("no service"));
        };
        if self.admins.iter().any(|admin| admin == service) {
            host::count(counter!("by_admins"), 1);
            return Verdict::allow();
        }
        // A rule says yes to what it knows: everything else is refused.
        match event.topic().split('/').nth(1) {
            Some(tenant) if tenant == service => Verdict::allow(),
            _ => {
                // For the author, about 4 KiB a second: `myelin filter logs`.
                host::log(
                    host::Level::Warn,
                    &format!("{service} tried {}", event.topic()),
                );
                Verdict::deny(reason!("not this tenant's topic"))
            }
        }
    }
}

/// The service's name in an identity.
fn service(identity: &str) -> Option<&str> {
    let (_, path) = identity.strip_prefix("spiffe://")?.split_once('/')?;
    path.strip_prefix("service/")
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, run_fixtures};

    #[test]
    fn fixtures_hold() {
        run_fixtures::<TenantTopics>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }

    #[test]
    fn administrators_are_counted() {
        let mut topics =
            Harness::<TenantTopics>::new(r#"{"admins":["ops"]}"#).expect("a configuration");
        let ops = "spiffe://corp.example/service/ops";
        topics.event("tenants/acme/orders").identity(ops).verdict();
        assert_eq!(topics.counter("by_admins"), 1);
    }
}
