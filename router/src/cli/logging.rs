//! The log: to stderr, as text for people or as JSON for machines.

use super::failure::{Exit, Failure, Result};
use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What is logged where `--log` and RUST_LOG say nothing.
const DEFAULT_FILTER: &str = "info";

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
        started.map_err(|error| Failure::new(Exit::Failed, format!("the log does not start: {error}")))
    }
}
