//! The log: to stderr, as text for people or as JSON for machines.

use super::failure::{Exit, Failure, Result};
use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;

/// What is logged where `--log` and RUST_LOG say nothing.
const DEFAULT_FILTER: &str = "info";

/// Panics that are told at once. What a stranger sends may make a library panic, each time they send it: the first ones say
/// all that there is to say, and the log has room for the rest.
const PANICS_TOLD: u32 = 8;
/// After that long there is one more.
const PANIC_EVERY: Duration = Duration::from_secs(10);

/// Options of the log.
#[derive(Args, Debug)]
pub(super) struct Logging {
    /// What to log: a level (error, warn, info, debug, trace) or `myelin=debug,quinn=warn`
    #[arg(long = "log", value_name = "FILTER", env = "RUST_LOG", help_heading = "Log")]
    filter: Option<String>,
    /// How a line of the log looks
    #[arg(long = "log-format", value_enum, default_value_t, help_heading = "Log")]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

impl Logging {
    /// Starts the log of this process.
    pub(super) fn start(&self) -> Result<()> {
        let text = self.filter.as_deref().filter(|text| !text.is_empty()).unwrap_or(DEFAULT_FILTER);
        let filter = EnvFilter::try_new(text).map_err(|error| {
            Failure::new(Exit::Usage, format!("--log `{text}`: {error}"))
                .next("give a level such as `debug`, or `myelin=debug,quinn=warn`")
        })?;
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let started = match self.format {
            Format::Text => log.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
            Format::Json => log.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| Failure::new(Exit::Failed, format!("the log does not start: {error}")))?;
        tell_panics_seldom();
        Ok(())
    }
}

/// From now on panics are told as before, within the bound.
fn tell_panics_seldom() {
    let (tell, told) = (std::panic::take_hook(), Mutex::new(Told::new(Instant::now())));
    std::panic::set_hook(Box::new(move |panic| {
        let may_tell = told.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if may_tell {
            tell(panic);
        }
    }));
}

/// How many panics may be told.
struct Told {
    left: u32,
    since: Instant,
}

impl Told {
    fn new(now: Instant) -> Self {
        Self { left: PANICS_TOLD, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let periods = now.saturating_duration_since(self.since).as_secs() / PANIC_EVERY.as_secs();
        let more = u32::try_from(periods).unwrap_or(PANICS_TOLD).min(PANICS_TOLD);
        if more > 0 {
            (self.left, self.since) = ((self.left + more).min(PANICS_TOLD), now);
        }
        let may_tell = self.left > 0;
        self.left -= u32::from(may_tell);
        may_tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panics_are_told_and_later_ones_now_and_then() {
        let begin = Instant::now();
        let mut told = Told::new(begin);
        let tell = |told: &mut Told, now| (0..100).filter(|_| told.take(now)).count();
        assert_eq!(tell(&mut told, begin), 8);
        assert_eq!(tell(&mut told, begin + Duration::from_secs(9)), 0);
        assert_eq!(tell(&mut told, begin + Duration::from_secs(25)), 2);
        assert_eq!(tell(&mut told, begin + Duration::from_secs(100_000)), 8);
    }
}
