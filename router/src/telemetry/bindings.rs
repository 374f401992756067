//! What filters did: the figures of the active bindings.

use super::family::{Family, Series, Value};
use super::{BINDINGS_SHOWN, Readings};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;

/// A binding's figures, summed over the workers.
#[derive(Clone, Debug, Default)]
pub struct BindingReading {
    /// Its name.
    pub binding: String,
    /// Its module, `name@version`.
    pub module: String,
    /// Its stage.
    pub stage: &'static str,
    /// Batches judged.
    pub batches: u64,
    /// Events by verdict; `faulted` are those without one.
    pub verdicts: Vec<(&'static str, u64)>,
    /// Events without a verdict by what became of them.
    pub faulted: Vec<(&'static str, u64)>,
    /// Faulted calls by code.
    pub faults: Vec<(&'static str, u64)>,
    /// CPU time in seconds.
    pub cpu_seconds: f64,
    /// Host calls.
    pub host_calls: u64,
    /// Events emitted beside the others.
    pub emitted: u64,
    /// Log lines that were over the rate.
    pub logs_dropped: u64,
    /// The filter's own counters; the engine bounds how many there are.
    pub counters: Vec<(String, u64)>,
    /// Whether it runs on a thread of its own at any worker.
    pub apart: bool,
    /// Whether any worker gave it up.
    pub quarantined: bool,
}

impl Readings {
    pub(super) fn encode_bindings(&self, family: &mut Family<'_, '_>) -> fmt::Result {
        let shown = || self.bindings.iter().take(BINDINGS_SHOWN);
        let each = |read: fn(&BindingReading) -> Value| {
            shown().map(move |binding| (binding.labels(), read(binding))).collect::<Vec<Series>>()
        };
        let split = |key: &'static str, read: fn(&BindingReading) -> &[(&'static str, u64)]| {
            let series = shown().flat_map(move |binding| {
                read(binding).iter().map(move |(name, count)| {
                    let mut labels = binding.labels();
                    labels.push((key, (*name).into()));
                    (labels, Value::Count(*count))
                })
            });
            series.collect::<Vec<Series>>()
        };
        let events = split("verdict", |binding| &binding.verdicts);
        family.counter("myelin_filter_events", "Events that came to a filter, by its verdict", events)?;
        let faulted = split("became", |binding| &binding.faulted);
        family.counter(
            "myelin_filter_faulted_events",
            "Events on which a filter failed, by what became of them",
            faulted,
        )?;
        let faults = split("code", |binding| &binding.faults);
        family.counter("myelin_filter_faults", "Calls of a filter that failed, by code", faults)?;
        family.counter("myelin_filter_batches", "Batches that a filter judged", each(|b| b.batches.into()))?;
        family.counter("myelin_filter_emitted_events", "Events that a filter made", each(|b| b.emitted.into()))?;
        family.counter("myelin_filter_host_calls", "Calls of a filter to its host", each(|b| b.host_calls.into()))?;
        let dropped = each(|b| b.logs_dropped.into());
        family.counter("myelin_filter_log_lines_dropped", "Log lines of a filter that were over the rate", dropped)?;
        let (help, seconds) = ("CPU time that a filter used", Some(&Unit::Seconds));
        let cpu = each(|b| Value::Real(b.cpu_seconds));
        family.write(MetricType::Counter, "myelin_filter_cpu", help, seconds, cpu)?;
        let apart = each(|b| u64::from(b.apart).into());
        family.gauge("myelin_filter_apart", "1 while a filter runs on a thread of its own after a fault", apart)?;
        let quarantined = each(|b| u64::from(b.quarantined).into());
        family.gauge("myelin_filter_quarantined", "1 when a filter was given up", quarantined)?;
        let own = shown().flat_map(|binding| {
            binding.counters.iter().map(|(name, count)| {
                let mut labels = binding.labels();
                labels.push(("counter", name.clone()));
                (labels, Value::Count(*count))
            })
        });
        family.counter("myelin_filter_counter", "The filters' own counters", own)
    }
}

impl BindingReading {
    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![("binding", self.binding.clone()), ("module", self.module.clone()), ("stage", self.stage.into())]
    }
}
