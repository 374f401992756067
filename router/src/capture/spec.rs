//! What is to be captured, within which bounds.

use super::redact::Redaction;
use myelin_catalog::Name;
use myelin_wire::Pattern;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bytes that all captures of a router keep together. A capture reserves its bound when it begins, so that none that
/// has begun finds no room.
pub const ROUTER_BYTES_MAX: u64 = 64 << 20;
/// Bytes of one capture.
const BYTES_MAX: u64 = 32 << 20;
const BYTES_DEFAULT: u64 = 8 << 20;
/// Smallest bound in bytes that has room for a head and a batch.
const BYTES_MIN: u64 = 64 << 10;
/// Events of one capture: far more than its bytes hold, as a rule.
const EVENTS_MAX: u64 = 1_000_000;
const EVENTS_DEFAULT: u64 = 10_000;
/// Longest time of one capture: a day's forgotten capture costs a check on every batch.
const SECONDS_MAX: u64 = 3_600;
const SECONDS_DEFAULT: u64 = 60;
/// Words of redaction.
const REDACT_MAX: usize = 64;

/// What is to be captured. What is left out has its default.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CaptureSpec {
    /// The topics.
    #[schema(value_type = String, example = "orders/**")]
    pub pattern: Pattern,
    /// Only what this binding judges, and only what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "orders-schema")]
    pub binding: Option<Name>,
    /// How much of it: `1%` of the events, or `100/s`. All by default. Batches are taken whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1%")]
    pub sample: Option<String>,
    /// What is replaced by `[redacted]` before anything is kept: names of headers, `payload`, `identity`, `config`.
    #[serde(default)]
    pub redact: Vec<String>,
    /// Most bytes that are kept: 64 KiB to 32 MiB.
    #[serde(default = "bytes_default")]
    #[schema(default = 8_388_608)]
    pub bytes_max: u64,
    /// Most events that are kept, of those that match.
    #[serde(default = "events_default")]
    #[schema(default = 10_000)]
    pub events_max: u64,
    /// For how long, at most an hour.
    #[serde(default = "seconds_default")]
    #[schema(default = 60)]
    pub seconds: u64,
    /// Which events stay when there are more than fit.
    #[serde(default)]
    pub keep: Keep,
    /// Whether the events are kept, too, that a filter judged in one batch with those that match. Without them a replay
    /// is exact only for filters that look at each event for itself.
    #[serde(default = "neighbours_default")]
    #[schema(default = true)]
    pub neighbours: bool,
}

/// Which events stay when there are more than fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The first: the capture ends when it is full.
    #[default]
    First,
    /// The last: the oldest make room, until the time is over or somebody stops it.
    Last,
}

fn bytes_default() -> u64 {
    BYTES_DEFAULT
}

fn events_default() -> u64 {
    EVENTS_DEFAULT
}

fn seconds_default() -> u64 {
    SECONDS_DEFAULT
}

fn neighbours_default() -> bool {
    true
}

/// How much of what matches is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sample {
    All,
    /// So many in a million events.
    Share(u64),
    /// So many events a second.
    Rate(u64),
}

impl Sample {
    /// Reads `1%`, `0.5%` or `100/s`.
    fn read(text: &str) -> Result<Self, String> {
        let told = || format!("`sample` {text:?} is neither a share from 0.0001% to 100% nor a rate such as 100/s");
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.trim().parse().map_err(|_| told())?;
            if !(0.0001..=100.0).contains(&percent) {
                return Err(told());
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 1,000,000")]
            return Ok(Self::Share((percent * 10_000.0).round() as u64));
        }
        let rate = text.strip_suffix("/s").and_then(|rate| rate.trim().parse::<u32>().ok()).filter(|rate| *rate > 0);
        rate.map(|rate| Self::Rate(rate.into())).ok_or_else(told)
    }
}

impl CaptureSpec {
    /// Everything of `pattern`, within the default bounds.
    pub fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            binding: None,
            sample: None,
            redact: Vec::new(),
            bytes_max: BYTES_DEFAULT,
            events_max: EVENTS_DEFAULT,
            seconds: SECONDS_DEFAULT,
            keep: Keep::First,
            neighbours: true,
        }
    }

    /// Checks it.
    pub(super) fn checked(&self) -> Result<(Sample, Redaction), String> {
        let within = |name: &str, value: u64, min: u64, max: u64| match (min..=max).contains(&value) {
            true => Ok(()),
            false => Err(format!("`{name}` is {value}; give {min} to {max}")),
        };
        within("bytes_max", self.bytes_max, BYTES_MIN, BYTES_MAX)?;
        within("events_max", self.events_max, 1, EVENTS_MAX)?;
        within("seconds", self.seconds, 1, SECONDS_MAX)?;
        if self.redact.len() > REDACT_MAX {
            return Err(format!("`redact` has {} words; at most {REDACT_MAX} are possible", self.redact.len()));
        }
        let redaction = Redaction::new(self.redact.iter().map(String::as_str))?;
        let sample = self.sample.as_deref().map_or(Ok(Sample::All), Sample::read)?;
        Ok((sample, redaction))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn samples_are_shares_or_rates() {
        assert_eq!(Sample::read("1%"), Ok(Sample::Share(10_000)));
        assert_eq!(Sample::read("0.5 %"), Ok(Sample::Share(5_000)));
        assert_eq!(Sample::read("100%"), Ok(Sample::Share(1_000_000)));
        assert_eq!(Sample::read("100/s"), Ok(Sample::Rate(100)));
        for bad in ["", "%", "0%", "101%", "-1%", "nan%", "inf%", "0/s", "1/m", "x/s", "5", "99999999999/s"] {
            assert!(Sample::read(bad).is_err_and(|told| told.contains("100/s")), "{bad}");
        }
    }

    #[test]
    fn every_bound_is_checked() {
        let good = CaptureSpec::new(Pattern::new("a/**").unwrap());
        assert!(good.checked().is_ok());
        for (bad, field) in [
            (CaptureSpec { bytes_max: 1, ..good.clone() }, "bytes_max"),
            (CaptureSpec { bytes_max: u64::MAX, ..good.clone() }, "bytes_max"),
            (CaptureSpec { events_max: 0, ..good.clone() }, "events_max"),
            (CaptureSpec { seconds: 0, ..good.clone() }, "seconds"),
            (CaptureSpec { seconds: 3_601, ..good.clone() }, "seconds"),
            (CaptureSpec { sample: Some("some".into()), ..good.clone() }, "sample"),
            (CaptureSpec { redact: vec![String::new()], ..good.clone() }, "header"),
            (CaptureSpec { redact: vec!["x".into(); 65], ..good.clone() }, "redact"),
        ] {
            assert!(bad.checked().unwrap_err().contains(field), "{field}");
        }
        let read: CaptureSpec = serde_json::from_str(r#"{"pattern":"a/**"}"#).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), serde_json::to_value(good).unwrap());
    }
}
