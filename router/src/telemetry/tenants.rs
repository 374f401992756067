//! What each tenant has used.

use super::Readings;
use super::family::{Family, Series, Value, label};
use std::fmt;

/// What a tenant has used.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct TenantReading {
    pub tenant: String,
    pub events: u64,
    pub bytes: u64,
    pub filter_cpu_seconds: f64,
    pub dead_letters: u64,
    pub dead_letters_refused: u64,
    pub connections: u64,
    pub connections_refused: u64,
    pub paused_seconds: f64,
}

impl Readings {
    pub(super) fn encode_tenants(&self, family: &mut Family<'_, '_>) -> fmt::Result {
        let of = |value: fn(&TenantReading) -> Value| -> Vec<Series> {
            self.tenants.iter().map(|used| (label("tenant", &used.tenant), value(used))).collect()
        };
        family.counter("myelin_tenant_events", "Events that a tenant has published", of(|used| used.events.into()))?;
        let help = "Bytes that a tenant has published";
        family.counter("myelin_tenant_bytes", help, of(|used| used.bytes.into()))?;
        let help = "CPU time that filters have spent on a tenant's events";
        family.counter("myelin_tenant_filter_cpu_seconds", help, of(|used| Value::Real(used.filter_cpu_seconds)))?;
        let help = "Events of a tenant that went to dead letters";
        family.counter("myelin_tenant_dead_letters", help, of(|used| used.dead_letters.into()))?;
        let help = "Events of a tenant that were refused since its rate of dead letters was used up";
        family.counter("myelin_tenant_dead_letters_refused", help, of(|used| used.dead_letters_refused.into()))?;
        family.gauge(
            "myelin_tenant_connections",
            "Open connections of a tenant",
            of(|used| used.connections.into()),
        )?;
        let help = "Connections of a tenant that were refused since it had as many as its quota";
        family.counter("myelin_tenant_connections_refused", help, of(|used| used.connections_refused.into()))?;
        let help = "How long the publishers of a tenant were held back by its quota, all together";
        family.counter("myelin_tenant_paused_seconds", help, of(|used| Value::Real(used.paused_seconds)))
    }
}
