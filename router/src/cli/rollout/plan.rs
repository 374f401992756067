//! How a rollout goes on over the sites: flags into the plan of the API.

use crate::cli::values::duration;
use clap::Args;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How it goes on over the sites of a mesh, after a shadow or without one
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Over the sites of a mesh")]
pub(in crate::cli) struct Onward {
    /// Sites that have the new set first, and are watched before the waves
    #[arg(long, value_name = "SITE", value_delimiter = ',')]
    canary: Vec<String>,
    /// How many sites have it after each wave, in percent of all [default: 10,50,100]
    #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
    wave: Vec<u8>,
    /// What ends it: trap=0.1%,reject=2%,p99=5ms,fuel=50% are the defaults; NAME=any lifts one; diff=1% ends it when more
    /// events than that are judged otherwise in shadow
    #[arg(long, value_name = "NAME=MOST", value_delimiter = ',', value_parser = gate)]
    gate: Vec<Gate>,
    /// How long it is watched after the canaries and after each wave [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    observe: Option<Duration>,
    /// How many events each router judges before a step is over; a quiet one is waited for until --deadline, in shadow not
    /// one without events [default: 1000]
    #[arg(long, value_name = "COUNT")]
    events: Option<u64>,
    /// How long a step may take beyond --observe before all is rolled back [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    deadline: Option<Duration>,
}

/// How it goes on over the sites of a mesh
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Over the sites of a mesh")]
pub(super) struct Plan {
    #[command(flatten)]
    onward: Onward,
    /// Let the new filters judge copies of live events for so long before they are active anywhere, without effect;
    /// `myelin shadow diff` shows what they would change, `myelin shadow start` has no end of its own
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    shadow: Option<Duration>,
    /// How many of the events they judge copies of [default: 100%]
    #[arg(long, value_name = "PERCENT", value_parser = percent, requires = "shadow")]
    shadow_sample: Option<u8>,
}

/// A gate: its name in the API and its value there; `null` = any.
#[derive(Clone, Debug, PartialEq)]
struct Gate(&'static str, Value);

/// Reads a whole percentage from 1 to 100, `%` or not.
pub(in crate::cli) fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number.filter(|percent| (1..=100).contains(percent)).ok_or_else(|| format!("`{text}` is not one of 1% to 100%"))
}

/// Whole seconds: a part of one is watched for a whole one.
pub(in crate::cli) fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Reads `NAME=MOST`.
fn gate(text: &str) -> Result<Gate, String> {
    let told = || format!("`{text}` is no gate; write trap=0.1%, reject=2%, p99=5ms, fuel=50%, diff=1%, or NAME=any");
    let (name, most) = text.split_once('=').ok_or_else(told)?;
    let field = match name {
        "trap" => "traps_ppm",
        "reject" => "rejects_ppm",
        "p99" => "module_p99_us",
        "fuel" => "fuel_percent",
        "diff" => "differences_ppm",
        _ => return Err(told()),
    };
    if most == "any" {
        return Ok(Gate(field, Value::Null));
    }
    let percent = || -> Option<f64> {
        let percent: f64 = most.strip_suffix('%')?.parse().ok()?;
        (0.0..=100.0).contains(&percent).then_some(percent)
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
    let value = match name {
        "p99" => duration(most).ok().and_then(|time| u32::try_from(time.as_micros()).ok()),
        "fuel" => percent().map(|percent| percent as u32),
        _ => percent().map(|percent| (percent * 10_000.0).round() as u32),
    };
    Ok(Gate(field, value.ok_or_else(told)?.into()))
}

impl Onward {
    /// The fields of the plan that flags ask for.
    pub(in crate::cli) fn read(&self) -> Map<String, Value> {
        let mut plan = Map::new();
        if !self.canary.is_empty() {
            plan.insert("canary".into(), json!(self.canary));
        }
        if !self.wave.is_empty() {
            plan.insert("waves".into(), json!(self.wave));
        }
        if !self.gate.is_empty() {
            let gates: Map<_, _> =
                self.gate.iter().map(|Gate(name, most)| ((*name).to_owned(), most.clone())).collect();
            plan.insert("gates".into(), gates.into());
        }
        for (name, time) in [("observe_s", self.observe), ("deadline_s", self.deadline)] {
            if let Some(time) = time {
                plan.insert(name.into(), seconds(time).into());
            }
        }
        if let Some(events) = self.events {
            plan.insert("events_min".into(), events.into());
        }
        plan
    }
}

impl Plan {
    /// The plan as the API takes it; none where no flag asks for one.
    pub(super) fn read(&self) -> Option<Value> {
        let mut plan = self.onward.read();
        if let Some(time) = self.shadow {
            plan.insert("shadow_s".into(), seconds(time).into());
        }
        if let Some(percent) = self.shadow_sample {
            plan.insert("shadow_percent".into(), percent.into());
        }
        (!plan.is_empty()).then_some(plan.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn gates_are_read() {
        assert_eq!(gate("trap=0.1%"), Ok(Gate("traps_ppm", json!(1_000))));
        assert_eq!(gate("reject=2%"), Ok(Gate("rejects_ppm", json!(20_000))));
        assert_eq!(gate("p99=5ms"), Ok(Gate("module_p99_us", json!(5_000))));
        assert_eq!(gate("fuel=50%"), Ok(Gate("fuel_percent", json!(50))));
        assert_eq!(gate("diff=1%"), Ok(Gate("differences_ppm", json!(10_000))));
        assert_eq!(gate("trap=any"), Ok(Gate("traps_ppm", Value::Null)));
        for bad in ["trap", "trap=", "trap=5", "trap=101%", "p99=5%", "speed=1%"] {
            assert!(gate(bad).is_err_and(|told| told.contains("no gate")), "{bad}");
        }
    }

    #[test]
    fn a_shadow_is_asked_for() {
        let plan = Plan {
            shadow: Some(Duration::from_secs(60)),
            shadow_sample: Some(percent("10%").unwrap()),
            ..Plan::default()
        };
        assert_eq!(plan.read(), Some(json!({"shadow_s": 60, "shadow_percent": 10})));
        for bad in ["0%", "101%", "1.5%", "ten", ""] {
            assert!(percent(bad).is_err_and(|told| told.contains("1% to 100%")), "{bad}");
        }
    }

    #[test]
    fn no_flag_is_no_plan() {
        assert_eq!(Plan::default().read(), None);
        let onward = Onward {
            canary: vec!["eu1".into()],
            wave: vec![50, 100],
            gate: vec![gate("p99=1ms").unwrap()],
            observe: Some(Duration::from_millis(1_500)),
            ..Onward::default()
        };
        let plan = Plan { onward, ..Plan::default() };
        assert_eq!(
            plan.read(),
            Some(json!({"canary": ["eu1"], "waves": [50, 100], "gates": {"module_p99_us": 1_000}, "observe_s": 2}))
        );
    }
}
