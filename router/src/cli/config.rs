//! `myelin config default|check`

use super::failure::{Exit, Failure, Result};
use super::serve;
use super::values::{print, say};
use crate::config::{Config as Configuration, DEFAULT_TOML, Sources};
use crate::otlp;
use clap::Subcommand;
use std::path::PathBuf;

/// Show or check configuration
#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Print every key with its default and its explanation
    #[command(after_help = "Example:\n  myelin config default > myelin.toml")]
    Default,
    /// Tell everything that is wrong with a configuration, environment included
    #[command(after_help = "Example:\n  MYELIN_NODE__SITE=hamburg myelin config check -c myelin.toml")]
    Check {
        /// The file; ./myelin.toml where there is one
        #[arg(short, long = "config", value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

impl Config {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Default => {
                print(DEFAULT_TOML);
                Ok(())
            }
            Self::Check { config } => check(config),
        }
    }
}

fn check(file: Option<PathBuf>) -> Result<()> {
    let file = serve::config_file(file);
    let config = Sources::of_process(file.as_deref(), Vec::new()).and_then(|sources| Configuration::load(&sources))?;
    // What the files of [tls] and [telemetry] hold is as much a part of the configuration as their names.
    if let Some(files) = serve::tls_files(&config) {
        myelin_transport::TlsIdentity::load(&files)
            .map_err(|error| Failure::new(Exit::Usage, error.to_string()).doing("[tls]"))?;
    }
    otlp::Target::load(&config.telemetry).map_err(|error| Failure::new(Exit::Usage, format!("{error:#}")))?;
    match file {
        Some(file) => say!("{} is good", file.display()),
        None => say!("no file is given and ./myelin.toml does not exist; defaults and environment are good"),
    }
    Ok(())
}

impl From<crate::config::ConfigErrors> for Failure {
    fn from(errors: crate::config::ConfigErrors) -> Self {
        let count = errors.0.len();
        let what = match &errors.0[..] {
            [only] => format!("{}: {}", only.place, only.problem),
            _ => format!("{count} faults in the configuration\n{errors}"),
        };
        let next = match &errors.0[..] {
            [only] => only.remedy.clone(),
            _ => "mend these, then look again with `myelin config check`".into(),
        };
        Self::new(Exit::Usage, what).next(next)
    }
}
