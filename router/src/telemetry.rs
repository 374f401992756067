//! What monitoring reads: the router's figures as Prometheus (OpenMetrics) text.
//!
//! The only place that knows Prometheus. Whoever has figures puts them into [`Readings`], which is plain data; names
//! and labels are decided here. Every label set is bounded: codes come from fixed lists, bindings and generations from
//! the caps below, tenants from the bound of the catalog.

use family::{Family, Series, Value, by, label, single};
use myelin_transport::{ListenerStats, Refusal, ReloadStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

mod bindings;
mod family;
mod shadow;
mod tenants;

pub use bindings::BindingReading;
pub use shadow::{ShadowBindingReading, ShadowReading};
pub use tenants::TenantReading;

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Generations that the ledger's series tell apart, newest first; all of them are in the totals.
pub const GENERATIONS_SHOWN: usize = 8;
/// Bindings that have series; a catalog has no more.
pub const BINDINGS_SHOWN: usize = 1_024;

/// Everything that is shown, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// Version of this program.
    pub version: &'static str,
    /// Name of the site.
    pub site: String,
    /// Name of the router.
    pub router: String,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// Whether `/readyz` says so.
    pub is_ready: bool,
    /// The active generation.
    pub generation: u64,
    /// The catalog's revision.
    pub revision: u64,
    /// Modules in the catalog.
    pub modules: usize,
    /// Modules that are quarantined.
    pub modules_quarantined: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Open publish streams.
    pub publishers: usize,
    /// Refusals by code.
    pub refusals: Vec<(&'static str, u64)>,
    /// Each worker's listener.
    pub listeners: Vec<Arc<ListenerStats>>,
    /// Rollouts since the start by kind: their number.
    pub rollouts: Vec<(&'static str, u64)>,
    /// The newest rollout's preparation, in seconds.
    pub rollout_prepare_seconds: f64,
    /// The newest rollout's longest pause of a worker, in seconds.
    pub rollout_pause_seconds: f64,
    /// The ledger by generation, oldest first.
    pub ledger: Vec<(u64, LedgerReading)>,
    /// The ledger's sum over all generations.
    pub ledger_total: LedgerReading,
    /// The active bindings.
    pub bindings: Vec<BindingReading>,
    /// The newest shadow of a candidate, running or over.
    pub shadow: Option<ShadowReading>,
    /// Events that were refused because they may not be at this site.
    pub refused_by_residency: u64,
    /// What the policies have denied, by action.
    pub denials: Vec<(&'static str, u64)>,
    /// What each tenant has used.
    pub tenants: Vec<TenantReading>,
    /// Copies that the policies withhold from subscribers to broader patterns.
    pub withheld: u64,
    /// Of each topic rule about schemas, events that passed, were refused, and went to the dead letters.
    pub screened: Vec<(String, (u64, u64, u64))>,
    /// Schemas that events have named, by what became of compiling them.
    pub schema_compilations: Vec<(&'static str, u64)>,
    /// Copies that other sites want and that may not go there.
    pub held_back: u64,
    /// Records of sampled events that were not made, because there were too many at once.
    pub not_recorded: u64,
    /// What became of the records, where they are exported.
    pub export: Option<ExportReading>,
    /// A write of the catalog failed, and its disk takes none still.
    pub is_store_failed: bool,
    /// Alarms of the links and the catalog by code.
    pub alarms: Vec<(String, u64)>,
    /// Reloads of the certificate, where there are files to follow.
    pub reloads: Option<ReloadStats>,
    /// End of the certificate's validity in Unix seconds.
    pub certificate_not_after: Option<i64>,
}

/// A generation's terms.
#[derive(Clone, Debug, Default)]
pub struct LedgerReading {
    /// What became of events, by term.
    pub events: Vec<(&'static str, u64)>,
    /// What became of copies, by term.
    pub copies: Vec<(&'static str, u64)>,
    /// Events that are being judged.
    pub in_pipeline: i64,
    /// Copies on their way.
    pub in_queue: i64,
    /// What is missing in the balance of the events.
    pub events_off_by: i64,
    /// What is missing in the balance of the copies.
    pub copies_off_by: i64,
}

/// What became of records that are exported as spans.
#[derive(Clone, Debug, Default)]
pub struct ExportReading {
    /// Records that the collector has taken.
    pub records: u64,
    /// Spans that it has taken.
    pub spans: u64,
    /// Spans that it has rejected.
    pub spans_rejected: u64,
    /// Records that it has not got, by reason.
    pub lost: Vec<(&'static str, u64)>,
    /// Requests that were in vain, by reason.
    pub failed: Vec<(&'static str, u64)>,
}

/// The text for `readings`.
pub fn render(readings: Readings) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(readings));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("writing to a string does not fail");
    out
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = Family { encoder: &mut encoder };
        self.encode_router(&mut family)?;
        self.encode_clients(&mut family)?;
        self.encode_ledger(&mut family)?;
        self.encode_tenants(&mut family)?;
        self.encode_traces(&mut family)?;
        self.encode_bindings(&mut family)?;
        self.encode_shadow(&mut family)
    }
}

impl Readings {
    fn encode_router(&self, family: &mut Family<'_, '_>) -> fmt::Result {
        let build =
            vec![("version", self.version.into()), ("site", self.site.clone()), ("router", self.router.clone())];
        family.gauge("myelin_build_info", "Which program this is, and where it runs", [(build, Value::Count(1))])?;
        let seconds = Some(&Unit::Seconds);
        let real = |value| [(Vec::new(), Value::Real(value))];
        family.write(MetricType::Gauge, "myelin_uptime", "Time since the start", seconds, real(self.uptime_seconds))?;
        family.gauge("myelin_ready", "1 while the router serves", single(u64::from(self.is_ready)))?;
        family.gauge("myelin_generation", "The active generation", single(self.generation))?;
        family.gauge("myelin_catalog_revision", "The catalog's revision", single(self.revision))?;
        family.gauge("myelin_modules", "Modules in the catalog", single(self.modules as u64))?;
        let quarantined = single(self.modules_quarantined as u64);
        family.gauge("myelin_modules_quarantined", "Modules that are quarantined", quarantined)?;
        family.counter("myelin_rollouts", "Changes of the active generation", by("kind", &self.rollouts))?;
        let help = "How long the newest change of the generation was prepared";
        let prepare = real(self.rollout_prepare_seconds);
        family.write(MetricType::Gauge, "myelin_rollout_prepare", help, seconds, prepare)?;
        let help = "The longest that a worker paused for the newest change of the generation";
        family.write(MetricType::Gauge, "myelin_rollout_pause", help, seconds, real(self.rollout_pause_seconds))?;
        let help = "1 while the catalog cannot be written down, such as on a full disk: nothing can be changed";
        family.gauge("myelin_catalog_store_failed", help, single(u64::from(self.is_store_failed)))?;
        let alarms = self.alarms.iter().map(|(code, count)| (label("code", code.as_str()), Value::Count(*count)));
        family.counter("myelin_alarms", "Alarms of the links and the catalog", alarms)?;
        if let Some(reloads) = &self.reloads {
            let help = "Reloads of the certificate by outcome";
            let outcomes = by("outcome", &[("reloaded", reloads.reloads), ("failed", reloads.failures)]);
            family.counter("myelin_certificate_reloads", help, outcomes)?;
        }
        if let Some(end) = self.certificate_not_after {
            let help = "When the router's certificate expires, Unix time";
            let series = [(Vec::new(), Value::Level(end))];
            family.write(MetricType::Gauge, "myelin_certificate_not_after_timestamp", help, seconds, series)?;
        }
        Ok(())
    }

    fn encode_clients(&self, family: &mut Family<'_, '_>) -> fmt::Result {
        family.gauge("myelin_sessions", "Open sessions", single(self.sessions as u64))?;
        family.gauge("myelin_publishers", "Open publish streams", single(self.publishers as u64))?;
        family.counter("myelin_refusals", "Refusals told to clients, by code", by("code", &self.refusals))?;
        let workers = || self.listeners.iter().enumerate();
        let each = |read: fn(&ListenerStats) -> u64| {
            let series =
                workers().map(move |(worker, stats)| (label("worker", worker.to_string()), read(stats).into()));
            series.collect::<Vec<Series>>()
        };
        let attempts = each(|stats| stats.attempts.load(Relaxed));
        family.counter("myelin_connection_attempts", "First packets that reached the listener", attempts)?;
        let accepted = each(|stats| stats.accepted.load(Relaxed));
        family.counter("myelin_connections_accepted", "Connections through the handshake", accepted)?;
        let retried = each(|stats| stats.retried.load(Relaxed));
        family.counter("myelin_connections_retried", "Clients asked to prove their address", retried)?;
        let ignored = each(|stats| stats.ignored.load(Relaxed));
        family.counter("myelin_connections_ignored", "First packets over the rate", ignored)?;
        let handshaking = each(|stats| stats.handshaking.load(Relaxed) as u64);
        family.gauge("myelin_connections_handshaking", "Handshakes under way", handshaking)?;
        let refused = workers().flat_map(|(worker, stats)| {
            let reasons = Refusal::ALL.iter().map(|refusal| (refusal.code(), stats.refused(*refusal)));
            let others = [
                ("timed-out", stats.timed_out.load(Relaxed)),
                ("refused-by-client", stats.refused_by_client.load(Relaxed)),
            ];
            let series = reasons.chain(others).filter(|(_, count)| *count > 0);
            series.map(move |(reason, count)| {
                (vec![("worker", worker.to_string()), ("reason", reason.into())], Value::Count(count))
            })
        });
        family.counter("myelin_connections_refused", "Connections refused, by reason", refused)
    }

    fn encode_ledger(&self, family: &mut Family<'_, '_>) -> fmt::Result {
        let total = &self.ledger_total;
        family.counter("myelin_events", "What became of events", by("outcome", &total.events))?;
        family.counter("myelin_copies", "What became of copies for subscribers", by("outcome", &total.copies))?;
        let level = |value| [(Vec::new(), Value::Level(value))];
        family.gauge("myelin_events_in_pipeline", "Events that are being judged", level(total.in_pipeline))?;
        family.gauge("myelin_copies_in_queue", "Copies on their way to a subscriber", level(total.in_queue))?;
        let off = [("events", total.events_off_by), ("copies", total.copies_off_by)];
        let off = off.map(|(balance, off)| (label("balance", balance), Value::Level(off)));
        family.gauge("myelin_ledger_off_by", "What is missing in the ledger: 0 when it balances", off)?;

        let shown = || self.ledger.iter().rev().take(GENERATIONS_SHOWN);
        let terms = |pick: fn(&LedgerReading) -> &[(&'static str, u64)]| {
            let series = shown().flat_map(move |(generation, reading)| {
                let labelled = pick(reading).iter().filter(|(_, count)| *count > 0);
                labelled.map(move |(term, count)| {
                    (vec![("generation", generation.to_string()), ("outcome", (*term).into())], Value::Count(*count))
                })
            });
            series.collect::<Vec<Series>>()
        };
        let help = "What became of the events of the newest generations";
        family.counter("myelin_generation_events", help, terms(|reading| &reading.events))?;
        let help = "What became of the copies of the newest generations";
        family.counter("myelin_generation_copies", help, terms(|reading| &reading.copies))
    }

    fn encode_traces(&self, family: &mut Family<'_, '_>) -> fmt::Result {
        let refused = single(self.refused_by_residency);
        family.counter("myelin_residency_refused_events", "Events that may not be at this site", refused)?;
        let help = "Copies that other sites want and that may not go there";
        family.counter("myelin_residency_held_back_copies", help, single(self.held_back))?;
        let help = "Events and subscriptions that the policies have denied, by action";
        family.counter("myelin_policy_denials", help, by("action", &self.denials))?;
        let help = "Copies that the policies withhold from subscribers to broader patterns";
        family.counter("myelin_policy_withheld_copies", help, single(self.withheld))?;
        let screened = self.screened.iter().flat_map(|(rule, (passed, refused, dead_lettered))| {
            let outcomes = [("passed", passed), ("refused", refused), ("dead_lettered", dead_lettered)];
            outcomes.map(|(word, count)| (vec![("rule", rule.clone()), ("outcome", word.into())], Value::Count(*count)))
        });
        let help = "Events that were judged by the schema of a topic rule, by what became of them";
        family.counter("myelin_schema_events", help, screened.collect::<Vec<Series>>())?;
        let help =
            "Schemas that events have named, by what became of compiling them: late were events that waited in vain";
        let compilations = by("outcome", &self.schema_compilations);
        family.counter("myelin_schema_compilations", help, compilations)?;
        let help = "Records of sampled events that were not made: too many at once";
        family.counter("myelin_trace_not_recorded", help, single(self.not_recorded))?;
        let Some(export) = &self.export else { return Ok(()) };
        let help = "Records of sampled events that the collector has taken";
        family.counter("myelin_trace_records_exported", help, single(export.records))?;
        let help = "Records of sampled events that the collector has not got, by reason";
        family.counter("myelin_trace_records_dropped", help, by("reason", &export.lost))?;
        family.counter("myelin_trace_spans_exported", "Spans that the collector has taken", single(export.spans))?;
        let help = "Spans that the collector has rejected out of what it took";
        family.counter("myelin_trace_spans_rejected", help, single(export.spans_rejected))?;
        let help = "Requests to the collector that were in vain, by reason";
        family.counter("myelin_trace_export_failures", help, by("reason", &export.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Readings {
        let ledger = LedgerReading {
            events: vec![("accepted", 5), ("matched", 5)],
            copies: vec![("targets", 5), ("delivered", 4)],
            in_queue: -1,
            ..LedgerReading::default()
        };
        Readings {
            version: "1.2.3",
            site: "a\"b\\c\nd".into(),
            router: "r1".into(),
            refusals: vec![("denied", 2)],
            listeners: vec![Arc::default()],
            ledger: (1..=20).map(|generation| (generation, ledger.clone())).collect(),
            ledger_total: ledger,
            denials: vec![("publish", 6)],
            tenants: vec![TenantReading {
                tenant: "acme".into(),
                events: 7,
                paused_seconds: 1.5,
                ..TenantReading::default()
            }],
            held_back: 3,
            shadow: Some(ShadowReading {
                rollout: 7,
                skipped: 5,
                bindings: vec![ShadowBindingReading {
                    binding: "gate".into(),
                    events: 4,
                    differences: 2,
                    ..ShadowBindingReading::default()
                }],
                ..ShadowReading::default()
            }),
            screened: vec![("orders".into(), (7, 2, 1))],
            schema_compilations: vec![("compiled", 3), ("late", 0)],
            not_recorded: 7,
            export: Some(ExportReading { lost: vec![("overwritten", 4)], ..ExportReading::default() }),
            bindings: vec![BindingReading {
                binding: "b".into(),
                module: "m@1.0.0".into(),
                stage: "ingress",
                cpu_seconds: 0.25,
                verdicts: vec![("allow", 3)],
                counters: vec![("hits".into(), 9)],
                ..BindingReading::default()
            }],
            ..Readings::default()
        }
    }

    #[test]
    fn names_carry_their_unit_and_kind() {
        let text = render(reading());
        for line in [
            "myelin_events_total{outcome=\"accepted\"} 5",
            "myelin_copies_in_queue -1",
            "myelin_refusals_total{code=\"denied\"} 2",
            "myelin_filter_cpu_seconds_total{binding=\"b\",module=\"m@1.0.0\",stage=\"ingress\"} 0.25",
            "myelin_filter_counter_total{binding=\"b\",module=\"m@1.0.0\",stage=\"ingress\",counter=\"hits\"} 9",
            "myelin_connection_attempts_total{worker=\"0\"} 0",
            "myelin_ready 0",
            "myelin_residency_held_back_copies_total 3",
            "myelin_policy_denials_total{action=\"publish\"} 6",
            "myelin_tenant_events_total{tenant=\"acme\"} 7",
            "myelin_tenant_paused_seconds_total{tenant=\"acme\"} 1.5",
            "myelin_policy_withheld_copies_total 0",
            "myelin_schema_events_total{rule=\"orders\",outcome=\"refused\"} 2",
            "myelin_trace_not_recorded_total 7",
            "myelin_shadow_rollout 7",
            "myelin_shadow_running 0",
            "myelin_shadow_events_total{binding=\"gate\"} 4",
            "myelin_shadow_differences_total{binding=\"gate\"} 2",
            "myelin_shadow_left_out_total{reason=\"time\"} 5",
            "myelin_trace_records_dropped_total{reason=\"overwritten\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_not_exported_has_no_series() {
        let text = render(Readings { export: None, ..reading() });
        assert!(text.contains("myelin_trace_not_recorded_total 7") && !text.contains("exported"), "{text}");
    }

    #[test]
    fn label_sets_are_bounded_and_newest_generations_win() {
        let text = render(reading());
        let shown = text.lines().filter(|line| line.starts_with("myelin_generation_events_total{")).count();
        assert_eq!(shown, GENERATIONS_SHOWN * 2);
        assert!(text.contains("generation=\"20\"") && !text.contains("generation=\"12\""));
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let text = render(reading());
        assert!(text.contains(r#"site="a\"b\\c\nd""#), "{text}");
        let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut unique = families.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(families.len(), unique.len(), "a family is described once");
    }
}
