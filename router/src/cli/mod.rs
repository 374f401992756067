//! The command line: every command is one file that parses its arguments and calls what does the work.

pub mod build;
mod config;
mod development;
mod failure;
mod logging;
mod serve;
mod values;

pub use failure::{Exit, Failure};

use clap::{Parser, Subcommand};
use failure::Result;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
First steps, in two terminals:
  myelin serve --dev                     a router with certificates of its own
  myelin sub 'demo/**'                   prints what arrives below demo/
  myelin pub demo/hello -m 'hi there'    sends one event

Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 denied, 5 conflict, 6 timeout, 7 gate failed.";

/// The WebAssembly-programmable edge router of an event mesh.
#[derive(Debug, Parser)]
#[command(name = "myelin", version, after_help = AFTER_HELP, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a router
    Serve(serve::Serve),
    /// Show or check configuration
    #[command(subcommand)]
    Config(config::Config),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // `--help` and `--version` come this way, too, and go to stdout.
            let _ = told.print();
            return if told.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Config(config) => config.run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_holds_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
