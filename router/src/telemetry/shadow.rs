//! What the newest shadow of a candidate found out.

use super::family::{Family, Series, Value, by, label, single};
use super::{BINDINGS_SHOWN, Readings};
use std::fmt;

/// What the newest shadow of a candidate found out here.
#[derive(Clone, Debug, Default)]
pub struct ShadowReading {
    /// The rollout whose new filters judge, or judged, copies of events.
    pub rollout: u64,
    /// Whether they still do.
    pub is_running: bool,
    /// Events that are not in the sample.
    pub sampled_out: u64,
    /// Events that were left out for want of time.
    pub skipped: u64,
    /// Each binding that differs.
    pub bindings: Vec<ShadowBindingReading>,
}

/// The same for one binding.
#[derive(Clone, Debug, Default)]
pub struct ShadowBindingReading {
    /// Which.
    pub binding: String,
    /// Events on which the two versions were compared.
    pub events: u64,
    /// Those that are judged otherwise.
    pub differences: u64,
    /// Those on which the new filter failed.
    pub faults: u64,
}

impl Readings {
    /// The counts begin anew with every shadow, as counters may; which one it is says the gauge.
    pub(super) fn encode_shadow(&self, family: &mut Family<'_, '_>) -> fmt::Result {
        let Some(shadow) = &self.shadow else { return Ok(()) };
        let rollout = single(shadow.rollout);
        family.gauge("myelin_shadow_rollout", "The rollout whose new filters were last in shadow here", rollout)?;
        let running = single(u64::from(shadow.is_running));
        family.gauge("myelin_shadow_running", "1 while new filters judge copies of events", running)?;
        let each = |read: fn(&ShadowBindingReading) -> u64| {
            let shown = shadow.bindings.iter().take(BINDINGS_SHOWN);
            let series = shown.map(move |found| (label("binding", found.binding.as_str()), Value::Count(read(found))));
            series.collect::<Vec<Series>>()
        };
        let help = "Events on which a new filter in shadow and the active one were compared";
        family.counter("myelin_shadow_events", help, each(|found| found.events))?;
        let help = "Events that a new filter in shadow judged otherwise than the active one";
        family.counter("myelin_shadow_differences", help, each(|found| found.differences))?;
        let help = "Events on which a new filter failed in shadow";
        family.counter("myelin_shadow_faults", help, each(|found| found.faults))?;
        let help = "Events that were not compared in shadow, by reason";
        let left_out = by("reason", &[("sample", shadow.sampled_out), ("time", shadow.skipped)]);
        family.counter("myelin_shadow_left_out", help, left_out)
    }
}
